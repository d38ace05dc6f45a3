"""An index on a network file system is refused; one that lies apart from its objects is never mistaken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import PayloadMissing, WarehouseError
from pyplantx.testing import forget_reactors
from pyplantx.warehouse import apart, session
from pyplantx.warehouse.filesystems import Mount
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch, send


def nfs(path: str) -> Mount | None:
    """All of /…/shared is on NFS."""
    return Mount("/shared", "nfs4", "server:/export") if "/shared" in path else None


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(apart, "network_mount", nfs)
    return tmp_path / "shared"


def test_an_index_on_a_network_file_system_is_refused(shared: Path) -> None:
    for options in ({}, {"read_only": True}):
        with pytest.raises(WarehouseError, match="nfs4 server:/export, mounted on /shared") as caught:
            Warehouse(shared, **options).close()
        assert "index=" in caught.value.hint and "network_index=True" in caught.value.hint
    assert not shared.exists()


def test_what_may_be_one_is_refused_in_other_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "network_mount", lambda path: Mount("/data", "fuse", "mount"))
    with pytest.raises(
        WarehouseError, match=r"what may be a network file system \(fuse mount, mounted on /data"
    ) as caught:
        Warehouse(tmp_path / "store")
    assert "network_index=True) if it is a local one" in caught.value.hint
    Warehouse(tmp_path / "store", network_index=True, durability="process").close()


def test_unless_somebody_knows_better(shared: Path) -> None:
    with Plant(shared, network_index=True) as plant:
        plant.warehouse.blob_put("test", "key", "text")
    with pytest.raises(WarehouseError, match="network"):
        Plant(shared)


def test_the_index_on_a_local_disk_and_the_objects_there(shared: Path, tmp_path: Path) -> None:
    ran: list[str] = []

    def run() -> Any:
        forget_reactors()

        @ReactorFunc
        def make(pipe: Any) -> None:
            pipe.send("x", np.arange(300_000.0))

        with Plant(shared, index=tmp_path / "index") as plant:
            plant.add_event_listener(Plant.EventType.reactor_started, lambda kind, name, function: ran.append(name))
            return float(plant.produce("x").sum())

    assert run() == run() == sum(range(300_000)) and ran == ["make"]
    here = {path.name for path in shared.iterdir()}
    assert here == {"format.json", "index.json", "objects", "staging", "backup", "quarantine"}
    there = {path.name for path in (tmp_path / "index").iterdir()}
    assert there == {"objects.json", "meta.lmdb", "small.lmdb", "locks", "claims", "clean.json"}
    forget_reactors()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    store, index = tmp_path / "store", tmp_path / "index"
    with Warehouse(store, index=index, durability="process") as warehouse:
        send(warehouse, "x", np.arange(300_000.0))
        send(warehouse, "y", "text")
        assert warehouse.check() == []
    return store, index


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(match: str, store: Path, **options: Any) -> WarehouseError:
    before = files(store)
    with pytest.raises(WarehouseError, match=match) as caught:
        Warehouse(store, durability="process", **options).close()
    assert files(store) == before
    return caught.value


def test_without_its_index_a_store_is_not_empty_but_an_error(pair: tuple[Path, Path], tmp_path: Path) -> None:
    store, index = pair
    for options in ({}, {"read_only": True}, {"index": tmp_path / "other"}):
        error = refused(f"lies in {str(index)!r}", store, **options)
        assert str(index) in error.hint and "backup" in error.hint


def test_an_index_is_not_used_for_another_store(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, index = pair
    refused("index of another store", tmp_path / "new", index=index)
    Warehouse(tmp_path / "plain", durability="process").close()
    refused("has its index inside", tmp_path / "plain", index=tmp_path / "elsewhere")


def test_an_index_that_is_begun_anywhere_is_found(
    pair: tuple[Path, Path], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: nobody compares the notes of the two directories, nor looks at the mount."""
    monkeypatch.setattr(session, "check_pair", lambda layout: None)
    monkeypatch.setattr(session, "refuse_network", lambda layout: None)
    for test in (test_without_its_index_a_store_is_not_empty_but_an_error, test_an_index_is_not_used_for_another_store):
        with pytest.raises((pytest.fail.Exception, AssertionError), match="DID NOT RAISE"):
            test(pair, tmp_path)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_an_index_on_a_network_file_system_is_refused(shared)


def test_both_may_move(pair: tuple[Path, Path], tmp_path: Path) -> None:
    store, index = pair
    store.rename(tmp_path / "store moved")
    index.rename(tmp_path / "index moved")
    with Warehouse(tmp_path / "store moved", index=tmp_path / "index moved", durability="process") as warehouse:
        assert fetch(warehouse, "y") == "text" and fetch(warehouse, "x").sum() == sum(range(300_000))


def test_a_lost_index_begins_anew_from_its_backup(pair: tuple[Path, Path], tmp_path: Path) -> None:
    store, index = pair
    shutil.rmtree(index)
    refused("lies in", store, index=index)
    (store / "index.json").unlink()
    with Warehouse(store, index=index, durability="process") as warehouse:
        assert fetch(warehouse, "x").sum() == sum(range(300_000))


def test_a_damaged_index_is_put_aside_where_it_lies(pair: tuple[Path, Path]) -> None:
    store, index = pair
    (index / "meta.lmdb" / "data.mdb").write_bytes(b"\xff" * 8192)
    with Warehouse(store, index=index, durability="process") as warehouse:
        assert fetch(warehouse, "y") == "text"
    assert [path.name for path in index.iterdir() if "damaged" in path.name]


def test_a_note_that_was_lost_is_written_again(pair: tuple[Path, Path]) -> None:
    store, index = pair
    (store / "index.json").unlink()
    (store / "index.json").symlink_to("index.json")
    assert "same index=" in refused("can't be read", store, index=index).hint
    before = (index / "objects.json").read_bytes()
    (store / "index.json").unlink()
    for _ in range(2):
        with Warehouse(store, index=index, durability="process") as warehouse:
            assert fetch(warehouse, "y") == "text"
    assert (index / "objects.json").read_bytes() == before
    refused("lies in", store)


@pytest.mark.parametrize("closed", [True, False], ids=["with a backup", "without"])
def test_a_lost_note_does_not_make_a_store_look_as_if_its_index_were_inside(
    pair: tuple[Path, Path], closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store, index = pair
    (store / "index.json").unlink()
    if not closed:
        (store / "backup" / "meta.mdb").unlink()
    for options in ({}, {"read_only": True}):
        hint = refused("nothing in it says where that is", store, **options).hint
    (store / "meta.lmdb").mkdir()  # as the hint says
    assert "empty folder as index=" in hint and str(store / "meta.lmdb") in hint
    with Warehouse(store, durability="process") as warehouse:
        assert not closed or fetch(warehouse, "x").sum() == sum(range(300_000))
    (store / "meta.lmdb" / "data.mdb").unlink()
    shutil.rmtree(index)
    Warehouse(store, durability="process").close()


def test_a_payload_that_went_with_the_index_is_not_said_to_be_damaged(
    pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    store, index = pair
    with Warehouse(store, index=index, durability="process") as warehouse:
        send(warehouse, "z", "text" * 5000)
    shutil.rmtree(index)
    (store / "index.json").unlink()
    with Warehouse(store, index=index, durability="process") as warehouse:
        with pytest.raises(PayloadMissing, match="not in the store .* any more"):
            fetch(warehouse, "z")
    assert "is not where its record says" in caplog.text and "checksum" not in caplog.text


def test_a_note_that_the_index_has_lost_is_written_again(pair: tuple[Path, Path]) -> None:
    store, index = pair
    before = (index / "objects.json").read_bytes()
    (index / "objects.json").unlink()
    for _ in range(2):
        with Warehouse(store, index=index, durability="process") as warehouse:
            assert fetch(warehouse, "y") == "text"
    assert (index / "objects.json").read_bytes() == before
    (index / "objects.json").unlink()
    index.rename(index.parent / "moved")  # nothing says that this is the index of that store
    refused("not in", store, index=index.parent / "moved")


def test_a_backup_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with Warehouse(tmp_path / "store", durability="process") as warehouse:
        send(warehouse, "x", 1)
        (tmp_path / "store" / "backup").rmdir()
        (tmp_path / "store" / "backup").symlink_to(tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "store" / "backup" / "meta.mdb").is_file()


DAMAGED = [b"", b"{", b"\xff\0", b"[]", b"{}", b'{"index":1,"host":"h","pair":2,"objects":[]}', b"[" * 4000]


@pytest.mark.parametrize("damaged", DAMAGED)
@pytest.mark.parametrize("which", ["index.json", "objects.json"])
def test_a_damaged_note_is_written_again(pair: tuple[Path, Path], which: str, damaged: bytes) -> None:
    store, index = pair
    note, aside = (store / which, store / "quarantine") if which == "index.json" else (index / which, index)
    before = note.read_bytes()
    note.write_bytes(damaged)
    Warehouse(store, index=index, durability="process", read_only=True).close()
    assert note.read_bytes() == damaged
    with Warehouse(store, index=index, durability="process") as warehouse:
        assert fetch(warehouse, "y") == "text" and fetch(warehouse, "x").sum() == sum(range(300_000))
        assert warehouse.check() == []
    assert note.read_bytes() == before
    assert [path.read_bytes() for path in aside.glob(f"{which}-*")] == [damaged]
    refused("lies in", store)


def test_a_damaged_note_stays_until_it_is_replaced(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, the store must not look as if its index were inside."""
    store, index = pair
    (store / "index.json").write_text("{")
    replaced = os.rename

    def killed(source: str, target: str) -> None:
        if target == str(store / "index.json"):
            raise KeyboardInterrupt
        replaced(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", killed)
        Warehouse(store, index=index, durability="process")
    refused("is damaged", store)
    with Warehouse(store, index=index, durability="process") as warehouse:
        assert fetch(warehouse, "y") == "text"


def test_a_damaged_note_that_nothing_replaces_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    store, index = pair
    (store / "index.json").write_text("{}")
    for other in ({}, {"index": tmp_path / "empty"}):
        assert "same index=" in refused("is damaged", store, **other).hint
    (index / "objects.json").write_text("{}")  # both say nothing, and that is not the same
    refused("is damaged", store, index=index)
    (store / "index.json").unlink()
    refused("is damaged", store, index=index)
    with Warehouse(store, index=tmp_path / "empty", durability="process") as warehouse:  # as the hint says
        assert fetch(warehouse, "x").sum() == sum(range(300_000))


def test_a_signed_store_with_its_index_apart(tmp_path: Path) -> None:
    options: dict[str, Any] = {"trust": "signed", "key": tmp_path / "key", "index": tmp_path / "index"}
    with Warehouse(tmp_path / "store", **options) as warehouse:
        send(warehouse, "x", {"a": (1,)})
    with Warehouse(tmp_path / "store", **options) as warehouse:
        assert fetch(warehouse, "x") == {"a": (1,)}

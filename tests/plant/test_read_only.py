"""A plant that only reads: what is up to date is given, what would have to run is told, and nothing is ever written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import NoProducer, StoreReadOnly, WarehouseError
from pyplantx.testing import forget_reactors

VALUES: dict[str, Any] = {"tiny": [1, 2], "middle": "x" * 20_000, "large": np.arange(300_000.0), "object": {1: {2, 3}}}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    forget_reactors()
    yield
    forget_reactors()


def reactors(version: str = "1") -> list[Any]:
    @ReactorFunc(name="make", version=version)
    def make(pipe: Any) -> None:
        for name, value in VALUES.items():
            pipe.send(name, value)

    @ReactorFunc(name="add")
    def add(pipe: Any) -> Any:
        factor = pipe.read_config("factor")
        pipe.send("sum", factor * float((yield pipe.receive("large")).sum()))

    return [make, add]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """One that somebody else has filled, and in which nothing can be written (unless by root)."""
    folder = tmp_path / "plant"
    with Plant(folder, config={"factor": 2}, durability="process") as plant:
        plant.add_reactors(reactors())
        plant.produce("sum")
    before = state(folder)
    modes = [(path, path.stat().st_mode) for path in (folder, *folder.rglob("*"))]
    for path, mode in modes:
        path.chmod(mode & ~0o222)
    yield folder
    for path, mode in modes:
        path.chmod(mode)
    assert state(folder) == before


def state(folder: Path) -> dict[str, Any]:
    """All files with content and time; LMDB's own lock file holds who reads."""
    files = [path for path in sorted(folder.rglob("*")) if path.name != "lock.mdb"]
    return {str(path): (os.stat(path).st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in files}


def opened(store: Path, version: str = "1", factor: int = 2) -> Plant:
    plant = Plant(store, config={"factor": factor}, read_only=True)
    plant.add_reactors(reactors(version))
    return plant


def test_what_is_up_to_date_is_given(store: Path) -> None:
    with opened(store) as plant:
        for name, value in VALUES.items():
            assert np.all(plant.produce(name) == value) and np.all(plant.fetch_ingredient(name) == value)
        assert plant.produce("sum") == 2 * VALUES["large"].sum()
        plant.run_reactor("add", force=False)
        assert [decision.action for decision in plant.status().decisions] == ["up to date"] * 2
        assert str(plant.why("add")) == "add: up to date" and plant.accept() == []
        assert plant.check() == [] and "2.40 MB" in str(plant.du())
        assert [entry["reactor"] for entry in plant.get_execution_history(all_sessions=True)] == ["make", "add"]
        with pytest.raises(NoProducer):
            plant.produce("nobody's")


def test_what_would_have_to_run_is_told_with_its_reason(store: Path) -> None:
    with opened(store, factor=3) as plant:
        with pytest.raises(StoreReadOnly, match="reactor add would have to run .*factor.*open for reading only"):
            plant.produce("sum")
        assert plant.produce("tiny") == [1, 2]
        assert plant.fetch_ingredient("sum") == 2 * VALUES["large"].sum()
        assert plant.why("add").action == "would run" and plant.get_execution_history() == []
    with opened(store, version="2") as plant:
        with pytest.raises(StoreReadOnly, match=r"reactor make would have to run \(version changed\)"):
            plant.produce("sum")
        with pytest.raises(StoreReadOnly, match=r"reactor make would have to run \(asked for by name\)"):
            plant.run_reactor("make")


def test_a_name_that_nobody_is_known_to_send_is_told(store: Path) -> None:
    """It may be misspelt, and the reactor that would be tried is none that anybody has thought of."""

    def publish(pipe: Any, name: str) -> None:
        pipe.send(name, 1)

    @ReactorFunc(name="helped")
    def helped(pipe: Any) -> None:
        publish(pipe, "".join(["ta", "ble"]))

    with opened(store) as plant:
        plant.add_reactor(helped)
        with pytest.raises(
            StoreReadOnly, match="reactor helped would have to run to find out whether it sends 'lagre'"
        ):
            plant.produce("lagre")
        with pytest.raises(StoreReadOnly, match=r"reactor helped would have to run \("):
            plant.run_reactor("helped")


CHANGES: list[Callable[[Plant], Any]] = [
    lambda plant: plant.gc(max_size=0),
    lambda plant: plant.pin("large"),
    lambda plant: plant.unpin("large"),
    lambda plant: plant.warehouse.backup(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_change_the_store_is_refused(store: Path, change: Callable[[Plant], Any]) -> None:
    with opened(store) as plant:
        with pytest.raises(StoreReadOnly, match="opened with read_only=True"):
            change(plant)
        assert plant.produce("tiny") == [1, 2]
        assert plant.gc(max_size=0, dry_run=True) is not None


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_refused_beside_a_plant_that_writes(tmp_path: Path, change: Callable[[Plant], Any]) -> None:
    """They share all that lies below them."""
    with Plant(tmp_path / "plant", config={"factor": 2}, durability="process") as writing:
        writing.add_reactors(reactors())
        writing.produce("sum")
        with opened(tmp_path / "plant") as plant:
            with pytest.raises(StoreReadOnly, match="opened with read_only=True"):
                change(plant)
            assert plant.produce("sum") == writing.produce("sum")


def test_nothing_is_mended_beside_a_plant_that_writes(tmp_path: Path) -> None:
    with Plant(tmp_path / "plant", config={"factor": 2}, durability="process") as writing:
        writing.add_reactors(reactors())
        writing.produce("sum")
        ref = writing.find_ingredient("large")
        assert ref is not None
        shutil.rmtree(writing.warehouse._session.objects.layout.object_folder(ref.address))
        with opened(tmp_path / "plant") as plant:
            assert (
                [problem.kind for problem in plant.check(fix=True)] == [problem.kind for problem in plant.check()] != []
            )
        assert writing.check(fix=True) != [] and writing.check() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_who_may_not_write_is_told_how_to_read(store: Path) -> None:
    with pytest.raises(StoreReadOnly, match="read_only=True"):
        Plant(store)


def test_a_store_that_takes_no_writes_names_the_way_to_read_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("pyplantx.warehouse.files.make_folder", refused)
    with pytest.raises(StoreReadOnly, match="Permission denied") as caught:
        Plant(store)
    assert "Plant(dir, read_only=True)" in caught.value.hint


@pytest.mark.parametrize("place", ["", "meta.lmdb", "small.lmdb/data.mdb", "locks/entry", "format.json"])
@pytest.mark.parametrize("read_only", [True, False])
def test_who_may_not_read_is_told_so(store: Path, monkeypatch: pytest.MonkeyPatch, place: str, read_only: bool) -> None:
    """A store is made for its owner alone."""
    access, closed, owner = os.access, str(store / place), os.geteuid()
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    with pytest.raises(WarehouseError, match=f"can't be read: no permission for {closed!r}") as caught:
        Plant(store, read_only=read_only)
    assert "it is yours: chmod -R u+rwX" in caught.value.hint
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(WarehouseError, match=f"can't be read: no permission for {closed!r}") as caught:
        Plant(store, read_only=read_only)
    assert "chmod -R go+rX" in caught.value.hint


def test_who_can_not_even_read_is_not_told_to_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise StoreReadOnly("no lock file can be made", hint="ask for the right to write there")

    monkeypatch.setattr("pyplantx.warehouse.session.Session.open", refused)
    with pytest.raises(StoreReadOnly) as caught:
        Plant(store, read_only=True)
    assert caught.value.hint == "ask for the right to write there"

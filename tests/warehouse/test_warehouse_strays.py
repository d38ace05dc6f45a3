"""What does not belong where it lies in a store: told, taken out of the way, and never a reason not to open."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyplantx.errors import WarehouseError
from pyplantx.warehouse.files import Layout, make_folder
from pyplantx.warehouse.inspection import write_mark
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch, send

Open = Callable[..., Warehouse]


@pytest.fixture
def folder(opened: Open, directory: Path) -> Path:
    """The folder of the one object of a closed store that consists of files."""
    with opened() as warehouse:
        send(warehouse, "array", np.arange(300_000.0))
    (found,) = (directory / "objects").glob("*/*")
    return found


def misplaced(folder: Path) -> Path:
    place = folder.parent.with_name("zz") / folder.name
    place.parent.mkdir()
    return folder.rename(place)


def unknown(folder: Path) -> Path:
    place = folder.parent.with_name("zz") / ("0" * 32)
    place.mkdir(parents=True)
    return place


def file_among_folders(folder: Path) -> Path:
    place = folder.parent.with_name("notes.txt")
    place.write_text("")
    return place


def linked_prefix(folder: Path) -> Path:
    place = folder.parent.with_name("00")
    elsewhere = folder.parents[2].with_name("elsewhere")
    (elsewhere / ("00" * 16)).mkdir(parents=True)
    place.symlink_to(elsewhere)
    return place


@pytest.mark.parametrize("make", [misplaced, unknown, file_among_folders, linked_prefix])
def test_what_has_no_place_among_the_objects_is_put_aside(
    opened: Open, directory: Path, folder: Path, make: Callable[[Path], Path]
) -> None:
    stray = make(folder)
    warehouse = opened()
    told = [problem for problem in warehouse.check() if problem.kind == "garbage"]
    assert [(problem.where, problem.harmless) for problem in told] == [(str(stray), True)]
    assert [problem for problem in warehouse.check(fix=True) if not problem.fixed] == []
    assert warehouse.check() == [] and not os.path.lexists(stray)
    (aside,) = (directory / "quarantine").iterdir()
    assert aside.name.startswith("stray-")
    if make is linked_prefix:  # what lies behind it is somebody else's
        assert (directory.with_name("elsewhere") / ("00" * 16)).is_dir()


@pytest.mark.parametrize("name", ["objects", "small.lmdb"])
def test_a_folder_that_somebody_has_moved_and_linked_is_told(
    opened: Open, directory: Path, folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / name).rename(directory.with_name("elsewhere"))
    (directory / name).symlink_to(directory.with_name("elsewhere"))
    opened()
    assert f"{str(directory / name)!r} was no folder" in caplog.text and "is made again" in caplog.text


def test_staging_with_names_that_are_no_sessions(opened: Open, directory: Path, folder: Path) -> None:
    (directory / "staging" / ("n" * 250)).mkdir()
    assert fetch(opened(), "array")[7] == 7.0
    assert all(len(name.partition(".")[0]) == 32 for name in os.listdir(directory / "staging"))


def test_a_folder_in_the_place_of_the_copy_of_the_backup(opened: Open, directory: Path, folder: Path) -> None:
    shutil.rmtree(directory / "meta.lmdb")
    (directory / "meta.lmdb" / "data.mdb.new").mkdir(parents=True)
    assert fetch(opened(), "array")[7] == 7.0


def test_who_has_lost_rights_to_his_own_store_is_told_how_to_get_them_back(
    directory: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root everything may be read
    with pytest.raises(WarehouseError, match="no permission") as caught:
        Warehouse(directory)
    assert f"chmod -R u+rwX {str(directory)!r}" in caught.value.hint
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(WarehouseError) as caught:
        Warehouse(directory)
    assert "its owner can let others read" in caught.value.hint


def other_byte_order(data: bytes) -> bytes:
    return struct.pack(f">{len(data) // 4}I", *struct.unpack(f"<{len(data) // 4}I", data))


def other_version(data: bytes) -> bytes:
    return data.replace(struct.pack("=II", 0xBEEFC0DE, 1), struct.pack("=II", 0xBEEFC0DE, 2))


@pytest.mark.parametrize("change", [other_byte_order, other_version])
def test_a_store_of_another_machine_is_opened(
    opened: Open, directory: Path, folder: Path, change: Callable[[bytes], bytes]
) -> None:
    """It was closed cleanly there, so the mark says that its files are what they should be."""
    for path in directory.rglob("data.mdb"):
        path.write_bytes(change(path.read_bytes()))
    (directory / "clean.json").unlink()
    write_mark(Layout(str(directory)), durable=False)
    assert fetch(opened(), "array")[7] == 7.0  # from the backup, which is of this machine
    assert any(path.name.startswith("meta.lmdb-") for path in (directory / "quarantine").iterdir())


def test_a_folder_that_somebody_else_has_just_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes find the same file in the place of a folder; the faster one has stored something by now."""
    path, rename = tmp_path / "ab", os.rename
    path.write_text("a file")

    def come_too_late(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert make_folder(str(path)) is not None
        (path / "object").touch()
        os.rename(source, target)

    monkeypatch.setattr(os, "rename", come_too_late)
    assert make_folder(str(path)) is None
    assert os.listdir(path) == ["object"]
    (aside,) = [other for other in tmp_path.iterdir() if other != path]
    assert aside.read_text() == "a file"

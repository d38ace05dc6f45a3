"""The folder of all payloads is moved away, or another one put in its place, while a plant is open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import WarehouseError
from pyplantx.testing import forget_reactors
from pyplantx.warehouse import objects, verify

TWICE = 2 * sum(range(300_000))


@pytest.fixture(autouse=True)
def program() -> Iterator[None]:
    forget_reactors()

    @ReactorFunc
    def base(pipe: Any) -> None:
        pipe.send("base", np.arange(300_000.0))

    @ReactorFunc
    def twice(pipe: Any) -> Any:
        pipe.send("twice", 2 * (yield pipe.receive("base")))

    yield
    forget_reactors()


def value(plant: Plant) -> float:
    return float(plant.produce("twice").sum())


def gone(folder: Path) -> None:
    """Moved away, and nothing in its place."""


def empty(folder: Path) -> None:
    folder.mkdir()


def a_file(folder: Path) -> None:
    folder.touch()


def a_link(folder: Path) -> None:
    folder.symlink_to(folder.parent / "moved")


def a_copy(folder: Path) -> None:
    shutil.copytree(folder.parent / "moved", folder, copy_function=shutil.copy2)


def another(folder: Path) -> None:
    """Files of the same sizes and times, with other bytes."""
    a_copy(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            times = path.stat()
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-8] + b"\1" * 8)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("put", [gone, empty, a_file, a_link, a_copy, another])
def test_it_is_never_wrong_and_says_what_to_do(tmp_path: Path, put: Any) -> None:
    folder = tmp_path / "objects"
    with Plant(tmp_path) as plant:
        plant.produce("base")
        folder.rename(tmp_path / "moved")
        put(folder)
        if put in (gone, a_file, a_link):
            with pytest.raises(WarehouseError, match="where the payloads of this store are") as caught:
                value(plant)
            assert "put it back" in caught.value.hint and "open it again" in caught.value.hint
            with pytest.raises(WarehouseError, match="where the payloads of this store are"):
                plant.warehouse.check()
        else:
            assert value(plant) == TWICE
    with Plant(tmp_path) as plant:
        assert value(plant) == TWICE
        assert all(problem.harmless for problem in plant.warehouse.check())


def test_files_that_are_known_by_size_and_time_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: that a file is another one is seen by these two only, as `rsync` and `make` do."""
    monkeypatch.setattr(verify, "stamp_of", lambda info: (0, info.st_size, info.st_mtime_ns, 0))
    with pytest.raises(AssertionError, match="== 89999700000"):
        test_it_is_never_wrong_and_says_what_to_do(tmp_path, another)


def test_a_folder_that_is_made_anew_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: nobody looks whether the folder of all objects is there; it is made where it is missing."""
    monkeypatch.setattr(objects.Objects, "_check_folder", lambda self: os.makedirs(self.layout.objects, exist_ok=True))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_it_is_never_wrong_and_says_what_to_do(tmp_path, gone)


def test_put_back_it_goes_on(tmp_path: Path) -> None:
    with Plant(tmp_path) as plant:
        plant.produce("base")
        (tmp_path / "objects").rename(tmp_path / "moved")
        with pytest.raises(WarehouseError):
            value(plant)
        (tmp_path / "moved").rename(tmp_path / "objects")
        assert value(plant) == TWICE


def test_another_one_is_made_durable_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(objects, "sync_path", synced.append)
    with Plant(tmp_path) as plant:
        address = plant.warehouse.store("x", np.arange(300_000.0)).address
        found = plant.warehouse._session.objects
        record = plant.warehouse._opener.find(address)[0]
        found.sync(address, record)
        synced.clear()
        (tmp_path / "objects").rename(tmp_path / "moved")
        shutil.copytree(tmp_path / "moved", tmp_path / "objects")
        found.sync(address, record)  # unless the thread that makes things durable was first
        assert str(tmp_path) in synced and str(tmp_path / "objects") in synced

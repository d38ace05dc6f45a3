"""What others do around a store: die as they read, copy it as it is written to, live in containers, set the clock."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyplantx.errors import PayloadMissing, StoreBusy
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults.children import Child, Tell
from tests.warehouse.stores import fetch, send

Open = Callable[..., Warehouse]


def test_pages_that_a_killed_process_was_reading_are_used_again(opened: Open, directory: Path) -> None:
    opened(durability="process")

    def read(tell: Tell) -> None:
        warehouse = Warehouse(directory, durability="process")
        warehouse.begin_activity()
        warehouse.last_ref("x")
        tell("reading")
        time.sleep(60)

    child = Child(read)
    assert child.wait_for("reading")
    warehouse = opened(durability="process")
    child.kill(signal.SIGKILL)
    child.end()
    for number in range(200):
        send(warehouse, "x", number)
        warehouse.sync()
    assert (directory / "meta.lmdb" / "data.mdb").stat().st_size < 500_000  # 4 MB with all that it has left


def test_a_process_of_another_container_with_the_same_number(opened: Open, directory: Path) -> None:
    opened().close()
    number = os.getpid()

    def hold(tell: Tell) -> None:
        with open(directory / "meta.lmdb" / "lock.mdb", "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, number)  # as LMDB does
            tell("held")
            time.sleep(60)

    child = Child(hold)
    assert child.wait_for("held")
    try:
        with pytest.raises(StoreBusy, match=f"has the number {number}, too"):
            _open_beside(opened, directory)
    finally:
        child.kill(signal.SIGKILL)
        child.end()


def _open_beside(opened: Open, directory: Path) -> None:
    """With the lock file of LMDB as it is: somebody else is here."""
    from pyplantx.warehouse.locks import FolderLock

    other = FolderLock(str(directory / "meta.lmdb"))
    try:
        assert other.acquire(shared=True)
        opened(lock_timeout=0.1)
    finally:
        other.close()


@pytest.mark.parametrize("first", ["index", "objects"])
def test_a_store_that_is_copied_while_it_is_written_to(opened: Open, directory: Path, first: str) -> None:
    """File by file: what was copied first is older than the rest."""
    warehouse, copy = opened(), directory.with_name("copy")
    old = {name: name * 400_000 for name in "abc"}
    for name in old:
        send(warehouse, name, old[name])
    warehouse.sync()
    is_index = shutil.ignore_patterns("objects", "staging", "backup")
    is_rest = shutil.ignore_patterns("*.lmdb")
    shutil.copytree(directory, copy, ignore=is_index if first == "index" else is_rest)
    new = {name: name * 500_000 for name in "abcd"}
    for name in new:
        send(warehouse, name, new[name])
    warehouse.sync()
    shutil.copytree(directory, copy, ignore=is_rest if first == "index" else is_index, dirs_exist_ok=True)
    with Warehouse(copy) as copied:
        for name in new:
            assert _found(copied, name) in (old.get(name), None) if first == "index" else (new[name], None)
        copied.check(fix=True)
        assert copied.check() == []


def _found(warehouse: Warehouse, name: str) -> object:
    try:
        return fetch(warehouse, name)
    except PayloadMissing:
        return None


@pytest.mark.parametrize("years", [-60, -10, 80, 8000])
def test_no_clock_makes_anything_old_or_new(
    opened: Open, directory: Path, years: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as warehouse:
        send(warehouse, "x", "x" * 2_000_000)
    now = time.time() + years * 365.25 * 86400
    monkeypatch.setattr(time, "time", lambda: now)
    with opened() as warehouse:
        send(warehouse, "y", 2)
        assert warehouse.check() == []
        assert warehouse.keeper.du().budget > 0
    monkeypatch.undo()
    with opened() as warehouse:
        assert (len(fetch(warehouse, "x")), fetch(warehouse, "y")) == (2_000_000, 2)

"""Lock and data files that are removed, replaced or linked by somebody else while the store is open, or before."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import StoreBusy, WarehouseError
from pyplantx.warehouse import locks, session
from pyplantx.warehouse.inspection import refuse_damaged
from pyplantx.warehouse.locks import FileLock, FolderLock
from pyplantx.warehouse.warehouse import Warehouse
from tests.executors.waiting import until
from tests.faults.children import Child, Tell, run_child
from tests.warehouse.stores import fetch, send

Open = Callable[..., Warehouse]


def remove_lock_files(directory: Path) -> None:
    for path in (directory / "locks").iterdir():
        path.unlink()


def remove_lock_folder(directory: Path) -> None:
    shutil.rmtree(directory / "locks")


def in_another_process(directory: Path) -> list[str]:
    """What another process says that opens the store and sends something."""

    def act(tell: Tell) -> None:
        try:
            with Warehouse(directory, lock_timeout=0.2) as warehouse:
                tell(f"alone {warehouse._session.is_alone()}")
                warehouse._session.share()
                send(warehouse, "theirs", 2)
        except StoreBusy as error:
            tell(str(error).replace("\n", " "))

    ended = run_child(act)
    assert ended.status == 0, ended.errors
    return ended.lines


@pytest.mark.parametrize("remove", [remove_lock_files, remove_lock_folder])
def test_who_removes_the_lock_files_of_an_open_store_loses_nothing(
    opened: Open, directory: Path, remove: Callable[[Path], None]
) -> None:
    warehouse = opened()
    send(warehouse, "ours", 1)
    warehouse.sync()
    remove(directory)
    assert in_another_process(directory) == ["alone False"]
    send(warehouse, "later", 3)
    warehouse.close()
    assert [fetch(opened(), name) for name in ("ours", "theirs", "later")] == [1, 2, 3]


def test_locks_that_are_made_anew_keep_others_away(opened: Open, directory: Path) -> None:
    session = opened()._session
    remove_lock_folder(directory)
    assert session.is_alone()  # with files that it has made
    assert "is being opened, checked or closed" in in_another_process(directory)[0]
    session.share()


def test_who_removes_the_lock_file_of_the_index_is_told_who_has_it_open(opened: Open, directory: Path) -> None:
    warehouse = opened()
    send(warehouse, "ours", 1)
    warehouse.sync()
    (directory / "meta.lmdb" / "lock.mdb").unlink()
    assert f"was removed while the process {os.getpid()}" in in_another_process(directory)[0]
    send(warehouse, "later", 3)
    warehouse.close()
    assert in_another_process(directory) == ["alone True"]
    assert [fetch(opened(), name) for name in ("ours", "theirs", "later")] == [1, 2, 3]


@pytest.mark.parametrize("read_only", [True, False], ids=["reader", "writer"])
def test_who_comes_while_a_reader_checks_a_copy_without_locks_waits_for_what_it_finds(
    opened: Open, directory: Path, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone once it has found damage, which LMDB must not be given by the next one either."""
    with opened() as warehouse:
        send(warehouse, "x", 1)
    remove_lock_folder(directory)
    data = directory / "meta.lmdb" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192] + bytes(8192))

    refused = directory.with_name("refused")

    def check(tell: Tell) -> None:
        def when_one_was_refused(*given: Any, **options: Any) -> None:
            tell("checking")
            until(refused.exists)
            refuse_damaged(*given, **options)

        monkeypatch.setattr(session, "refuse_damaged", when_one_was_refused)
        with pytest.raises(WarehouseError, match="is damaged"):
            Warehouse(directory, read_only=True)

    child = Child(check)
    assert child.wait_for("checking")
    with pytest.raises(StoreBusy, match=f"checked or closed by the process {child.pid} for more"):
        Warehouse(directory, read_only=True, lock_timeout=0.01)
    refused.touch()
    if read_only:
        with pytest.raises(WarehouseError, match="is damaged"):
            Warehouse(directory, read_only=True)
    else:
        assert fetch(opened(), "x") == 1  # from the backup
    assert child.end().status == 0


def linked_copy(directory: Path) -> Path:
    copy = directory.with_name("copy")
    subprocess.run(["cp", "-al", directory, copy], check=True)
    return copy


def test_a_copy_by_hard_links_gets_files_of_its_own(
    opened: Open, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened() as warehouse:
        send(warehouse, "ours", 1)
    copy = linked_copy(directory)
    before = {path: path.read_bytes() for path in directory.rglob("*.mdb")}
    with Warehouse(copy) as warehouse:
        send(warehouse, "theirs", 2)
    assert {path: path.read_bytes() for path in directory.rglob("*.mdb")} == before
    assert "has its own now" in caplog.text
    caplog.clear()
    with opened() as warehouse, Warehouse(copy) as other:
        assert (fetch(warehouse, "ours"), fetch(warehouse, "theirs")) == (1, None)
        assert (fetch(other, "ours"), fetch(other, "theirs")) == (1, 2)
    assert not caplog.text


def test_a_copy_by_hard_links_of_an_open_store(opened: Open, directory: Path) -> None:
    warehouse = opened()
    send(warehouse, "ours", 1)
    warehouse.sync()
    copy = linked_copy(directory)
    with pytest.raises(StoreBusy, match=rf"by hard links, that the process {os.getpid()} has open"):
        Warehouse(copy, lock_timeout=0.1)
    assert in_another_process(directory) == ["alone False"]  # the original is nobody's copy
    warehouse.close()
    with Warehouse(copy) as other:
        assert fetch(other, "ours") == 1


def test_a_backup_that_a_program_has_joined_with_the_index(opened: Open, directory: Path) -> None:
    """Right after a clean close they have the same bytes."""
    with opened() as warehouse:
        send(warehouse, "x", 1)
    backup, data = directory / "backup" / "meta.mdb", directory / "meta.lmdb" / "data.mdb"
    backup.unlink()
    os.link(data, backup)
    warehouse = opened()
    before = backup.read_bytes()
    send(warehouse, "x", 2)
    warehouse.sync()
    assert backup.read_bytes() == before


@pytest.mark.parametrize("name", ["meta.lmdb", "small.lmdb"])
def test_nothing_is_announced_that_goes_to_a_removed_file(opened: Open, directory: Path, name: str) -> None:
    warehouse = opened()
    send(warehouse, "x", 1)
    warehouse.sync()
    (directory / name / "data.mdb").rename(directory / "elsewhere")
    send(warehouse, "x", 2)
    with pytest.raises(WarehouseError, match="was (removed|replaced) while it was open") as caught:
        warehouse.sync()
    assert "open it again" in caught.value.hint
    (directory / "elsewhere").rename(directory / name / "data.mdb")
    warehouse.sync()
    assert fetch(warehouse, "x") == 2


@pytest.mark.parametrize("shared", [True, False])
def test_a_lock_of_somebody_else_on_the_folder_of_the_store_is_none_of_ours(
    opened: Open, directory: Path, shared: bool
) -> None:
    """``flock STORE python script.py`` holds it as long as the script runs."""
    directory.mkdir()
    others = FolderLock(str(directory))
    assert others.acquire(shared=shared)
    assert opened(lock_timeout=0.1)._session.is_alone()
    others.close()


def test_the_lock_of_an_index_that_is_put_aside_is_that_of_the_new_one(opened: Open, directory: Path) -> None:
    opened().close()
    (directory / "meta.lmdb" / "data.mdb").write_bytes(b"damaged" * 4096)
    warehouse = opened()
    remove_lock_files(directory)
    assert in_another_process(directory) == ["alone False"]
    assert fetch(warehouse, "theirs") == 2


# -- the locks themselves ---------------------------------------------------------------------------------------------


def test_a_lasting_lock_follows_its_path(tmp_path: Path) -> None:
    mine, other = FileLock(str(tmp_path / "lock"), lasting=True), FileLock(str(tmp_path / "lock"), lasting=True)
    assert mine.acquire()
    (tmp_path / "lock").unlink()
    assert other.acquire() and other.is_current()
    assert not mine.acquire()  # it is the other one's now
    other.close()
    assert mine.acquire() and mine.is_current()
    mine.close()


def test_a_lock_whose_folder_is_gone_for_good_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "store" / "locks").mkdir(parents=True)
    lock = FileLock(str(tmp_path / "store" / "locks" / "lock"), lasting=True)
    assert lock.acquire()
    shutil.rmtree(tmp_path / "store")
    assert lock.acquire() and not (tmp_path / "store").exists()
    lock.close()


def test_the_lock_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = FolderLock(str(tmp_path)), FolderLock(str(tmp_path))
    assert one.acquire(shared=True) and two.acquire(shared=True)
    assert not one.acquire() and one.acquire(shared=True)
    assert one.processes() == {os.getpid()}
    two.close()
    assert one.acquire()
    one.close()

    def refuse(fd: int, operation: int) -> bool:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(locks, "_try_flock", refuse)
    assert one.acquire()
    one.close()
    with pytest.raises(WarehouseError, match="can't be opened"):
        FolderLock(str(tmp_path / "nothing")).acquire()

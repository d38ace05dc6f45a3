"""Ctrl-C at a line of the warehouse: nothing hangs, nothing is wrong, the same process goes on."""

from __future__ import annotations

import linecache
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults import broken
from tests.warehouse.stores import fetch, send

VALUES = {"tiny": 1, "little": "l" * 3_000, "small": "s" * 30_000, "large": "x" * 1_200_000}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th executed line of the package's warehouse, in the main thread.

    Left out are lines where the interpreter never delivers a signal: ``try``, which does nothing, and ``with``, where a
    trace function is called once more when the block ends, *before* the lock is released.
    """

    def __init__(self, number: int, files: tuple[str, ...] = ("/pyplantx/warehouse/",)) -> None:
        self.left = number
        self._files = files

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in self._files):
            return None
        if event == "line" and not _is_safe(frame):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def _is_safe(frame: FrameType) -> bool:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(("with ", "try:"))


def life(directory: Path, interrupt: Interrupt) -> None:
    warehouse = None
    try:
        sys.settrace(interrupt)
        warehouse = Warehouse(directory, durability="process", lock_timeout=3)
        warehouse.begin_activity()
        for name, value in VALUES.items():
            send(warehouse, name, value)
            warehouse.maybe_flush()
        warehouse.sync()
        for name in VALUES:
            fetch(warehouse, name)
        warehouse.end_activity()
        warehouse.close()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    again = warehouse if warehouse is not None and not warehouse._closed else None
    again = again or Warehouse(directory, durability="process", lock_timeout=3)
    for name, value in VALUES.items():
        send(again, name, value)
    again.sync()
    assert {name: fetch(again, name) for name in VALUES} == VALUES
    again.close()


def outcome(directory: Path, number: int) -> int:
    """2: no such line; 0: survived; else not."""
    interrupt = Interrupt(number)
    return in_child(number, lambda: life(directory, interrupt), lambda: 0 if interrupt.left <= 0 else 2)


def in_child(number: int, work: Callable[[], None], judge: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        result = 1
        try:
            signal.alarm(20)
            work()
            result = judge()
        except BaseException:
            print(f"line {number}:", file=sys.stderr)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("step", [131, pytest.param(1, marks=pytest.mark.campaign)])
def test_an_interrupt_at_a_line(tmp_path: Path, step: int) -> None:
    number, result = 0, 0
    while result != 2:
        number += step
        directory = tmp_path / f"plant{number}"
        result = outcome(directory, number)
        assert result in (0, 2), number
        with Warehouse(directory, durability="process", lock_timeout=3) as warehouse:
            assert {name: fetch(warehouse, name) for name in VALUES} == VALUES
            assert [problem for problem in warehouse.check() if not problem.harmless] == []
        shutil.rmtree(directory)
    assert number > 500


# -- no lock stays with a process that was interrupted where it gives the lock back ---------------------------------


def clear(warehouse: Warehouse) -> None:
    """Only garbage has a check take the store to itself."""
    warehouse._session.index.write(lambda: ({b"0" * 32: b"named by nothing"}, None), 1.0)
    assert [problem.fixed for problem in warehouse.check(fix=True)] == [True]


#: What takes a lock from others for a while, and the files with the lines that do.
TAKING = {
    "close": (Warehouse.close, ("/warehouse/session.py", "/warehouse/locks.py", "/warehouse/warehouse.py")),
    "check": (clear, ("/warehouse/session.py", "/warehouse/locks.py", "/warehouse/stillness.py")),
    "collect": (
        lambda warehouse: warehouse.keeper.gc(0, None, None, False),
        ("/warehouse/session.py", "/warehouse/locks.py"),
    ),
    "sync": (lambda warehouse: warehouse.sync(), ("/warehouse/locks.py",)),
}
#: Those that are tried in the campaign only.
LONG = ("collect", "sync")


def interrupted(directory: Path, take: Callable[[Warehouse], object], interrupt: Interrupt) -> None:
    """The process lives on, and so do the interrupt and the lines that it has passed, as in a notebook."""
    warehouse = Warehouse(directory, durability="process", lock_timeout=3)
    send(warehouse, "tiny", 1)
    kept: BaseException | None = None
    try:
        sys.settrace(interrupt)
        take(warehouse)
    except KeyboardInterrupt as error:
        kept = error
    finally:
        sys.settrace(None)
    assert in_child(interrupt.left, lambda: neighbour(directory), lambda: 0) == 0, kept


def neighbour(directory: Path) -> None:
    """Another process opens the store, writes, and would like to have it to itself."""
    with Warehouse(directory, durability="process", lock_timeout=0.3) as warehouse:
        send(warehouse, "tiny", 2)


def held(directory: Path, what: str, number: int) -> int:
    """2: no such line; 0: no lock was left; else one was."""
    take, files = TAKING[what]
    interrupt = Interrupt(number, files)
    return in_child(number, lambda: interrupted(directory, take, interrupt), lambda: 0 if interrupt.left <= 0 else 2)


@pytest.mark.parametrize("what", ["close", "check", *(pytest.param(it, marks=pytest.mark.campaign) for it in LONG)])
def test_no_lock_is_left_where_it_is_given_back(tmp_path: Path, what: str) -> None:
    number, result = 0, 0
    while result != 2:
        number += 1
        result = held(tmp_path / f"plant{number}", what, number)
        assert result in (0, 2), (what, number)
    assert number > 10


def test_a_lock_that_is_left_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control."""
    monkeypatch.setattr(FileLock, "release", FileLock.release)  # given back at the end of the test
    broken.leaked_lock()
    assert 1 in [held(tmp_path / str(number), "check", number) for number in range(60, 92, 8)]

"""Ctrl-C at a line of the warehouse: nothing hangs, nothing is wrong, the same process goes on."""

from __future__ import annotations

import linecache
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch, send

VALUES = {"tiny": 1, "little": "l" * 3_000, "small": "s" * 30_000, "large": "x" * 1_200_000}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th executed line of the package's warehouse, in the main thread.

    Lines of ``with`` are left out: a trace function is called there once more when the block ends, *before* the lock is
    released, where the interpreter never delivers a signal.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if "/pyplantx/warehouse/" not in frame.f_code.co_filename:
            return None
        if event == "line" and not _is_with(frame):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def _is_with(frame: FrameType) -> bool:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")


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
    pid = os.fork()
    if pid == 0:
        result = 1
        try:
            signal.alarm(20)
            interrupt = Interrupt(number)
            life(directory, interrupt)
            result = 0 if interrupt.left <= 0 else 2
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

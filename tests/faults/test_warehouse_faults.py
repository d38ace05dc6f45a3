"""The n-th system call fails, for n = 1, 2, … until none is left: a clear error, nothing wrong, and work goes on."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import specs
from pyplantx.errors import PyplantxError
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch, send

CALLS = ("open", "write", "pwrite", "rename", "unlink", "mkdir", "chmod", "fchmod", "fsync", "preadv", "dup", "listdir")
VALUES = {
    **{"tiny": 1, "little": "l" * 3_000, "small": "s" * 30_000, "large": "x" * 1_200_000, "more": b"y" * 1_100_000},
    **{"array": np.arange(150_000), "by two threads": np.arange(1_200_000)},
}


def same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(other, np.ndarray) else one == other


class Fault:
    """Makes one call of `CALLS` fail, counted over all of them."""

    def __init__(self, number: int, code: int) -> None:
        self.left = number
        self.code = code
        self.hit = ""
        for name in CALLS:
            setattr(os, name, self._watch(name, getattr(os, name)))

    def _watch(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.hit = name
                raise OSError(self.code, os.strerror(self.code), "somewhere")
            return real(*args, **options)

        return call


def tolerant(action: Callable[[], Any]) -> Any:
    """The result, or None after an error of ours: any other error fails the test."""
    try:
        return action()
    except PyplantxError:
        return None


def life(directory: Path, fault: Fault) -> None:
    """Everything that a store does, errors allowed; then all must be as if nothing had happened."""
    warehouse = tolerant(lambda: Warehouse(directory)) or Warehouse(directory)
    announced = []
    for name, value in VALUES.items():
        tolerant(lambda name=name, value=value: send(warehouse, name, value))
        tolerant(warehouse.sync)
        announced += warehouse.announcements()
    tolerant(lambda: warehouse.allocate("file", "file", suffix=".txt").discard())
    tolerant(warehouse.backup)
    tolerant(lambda: warehouse.keeper.gc(None, 1, None, False))
    tolerant(warehouse.check)
    for name, value in VALUES.items():
        found = tolerant(lambda name=name: fetch(warehouse, name))
        assert found is None or same(found, value), name
    tolerant(warehouse.close)
    fault.left = 0  # no more of that
    warehouse = Warehouse(directory)
    for name, value in VALUES.items():
        send(warehouse, name, value)
    warehouse.sync()
    assert all(same(fetch(warehouse, name), value) for name, value in VALUES.items())
    assert [problem for problem in warehouse.check(fix=True) if problem.kind not in ("garbage", "absent")] == []
    tolerant(warehouse.close)


def outcome(directory: Path, number: int, code: int) -> int:
    """2: the fault was not reached; 0: reached and survived; 1: not survived."""
    pid = os.fork()
    if pid == 0:
        result = 1
        try:
            fault = Fault(number, code)
            life(directory, fault)
            result = 0 if fault.hit else 2
        except BaseException:
            print(f"call {number} ({fault.hit}):", file=sys.stderr)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(result)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _each(code: int) -> Any:
    return pytest.param(code, 1, marks=pytest.mark.campaign, id=f"each-{errno.errorcode[code]}")


ALL = [_each(code) for code in (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES)]


@pytest.mark.parametrize(("code", "step"), [(errno.EIO, 7), (errno.ENOSPC, 9), *ALL])
def test_each_call_fails_once(tmp_path: Path, code: int, step: int) -> None:
    number, result = 0, 0
    while result != 2:
        number += step
        directory = tmp_path / f"plant{number}"
        result = outcome(directory, number, code)
        assert result in (0, 2), number
        if number % 5 == 0:
            with Warehouse(directory) as warehouse:
                assert all(same(fetch(warehouse, name), value) for name, value in VALUES.items())
                assert [problem for problem in warehouse.check() if not problem.harmless] == []
        shutil.rmtree(directory)
    assert number > 60


def test_the_system_may_take_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is short: nothing of ours takes a part for the whole."""
    pwrite, write = os.pwrite, os.write
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, memoryview(data)[: 1 + len(data) // 2], at))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[: 1 + len(data) // 2]))
    with Warehouse(tmp_path / "store", durability="process", verify="always") as warehouse:
        for name, value in VALUES.items():
            send(warehouse, name, value)
        for spec in (specs.ArraySpec, specs.HdfArraySpec):
            allocated = warehouse.allocate(spec.name, spec, shape=(400, 400), dtype="f8")
            allocated.handle[:] = np.arange(160_000.0).reshape(400, 400)
            assert (warehouse.open(allocated.seal())[:].ravel() == np.arange(160_000.0)).all(), spec
        warehouse.sync()
        for name, value in VALUES.items():
            assert same(fetch(warehouse, name), value), name
        assert [problem for problem in warehouse.check() if not problem.harmless] == []

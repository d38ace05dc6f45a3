"""Ctrl-C where a lock of the standard library is given back, or threads hang: a loop over blocks still ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, specs
from tests.faults.interrupts import Lines

#: Seconds after which a case hangs.
LIMIT = 10
ROWS = 24


class LinesOfLocks(Lines):
    """Ctrl-C at the n-th line in which the standard library is about to give back the lock of a condition."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._files = threading.__file__

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return super()._trace(frame, event, argument) if frame.f_code.co_name == "__exit__" else None


def by_map(pipe: Any, x: Any, y: Any) -> None:
    pipe.map_blocks(lambda part: part + 1, x, out=y, memory="128kB", workers=1)


def by_threads(pipe: Any, x: Any, y: Any) -> None:
    pipe.map_blocks(lambda part: part + 1, x, out=y, memory="128kB")


def by_loop(pipe: Any, x: Any, y: Any) -> None:
    for block in pipe.blocks(x, y, memory="128kB"):
        if block.index % 3:  # what was read ahead is not always wanted
            y[block] = x[block] + 1
        else:
            y[block] = np.arange(ROWS)[block[0], None] + np.ones(1000)


def hangs(*_: object) -> None:
    raise TimeoutError("it hangs")


@pytest.mark.parametrize("fill", [by_map, by_threads, by_loop])
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.campaign)])
def test_a_loop_ends_after_ctrl_c(tmp_path: Path, fill: Callable[[Any, Any, Any], None], step: int) -> None:
    @ReactorFunc
    def source(pipe: Any) -> None:
        pipe.send("x", np.arange(ROWS)[:, None] + np.zeros(1000))

    @ReactorFunc
    def target(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        y = pipe.allocate("y", specs.HdfArraySpec, shape=x.shape, dtype=x.dtype)
        fill(pipe, x, y)
        pipe.send("y", y)

    before = signal.signal(signal.SIGALRM, hangs)
    n, more = 1, True
    try:
        while more:
            with Plant(tmp_path / str(n), executor="threads", durability="process") as plant:
                plant.add_reactor(source, target)
                plant.produce("x")
                fault = LinesOfLocks(n)
                signal.alarm(LIMIT)
                try:
                    with fault.active():
                        plant.produce("y")
                except KeyboardInterrupt:
                    assert fault.reached
                assert (plant.produce("y")[:, 0] == np.arange(ROWS) + 1).all(), n
                signal.alarm(0)
            n, more = n + step, fault.reached
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert n > 10


def stands_in_a_lock(over: threading.Event) -> None:
    over.wait(3 * LIMIT)


def goes_round(over: threading.Event) -> None:
    while not over.is_set():
        pass


@pytest.mark.parametrize("hang", [stands_in_a_lock, goes_round])
@pytest.mark.parametrize("given", [False, True])
def test_ctrl_c_does_not_wait_for_threads_that_hang(
    tmp_path: Path, hang: Callable[[threading.Event], None], given: bool
) -> None:
    over, interrupted = threading.Event(), threading.Event()

    def works(part: Any) -> Any:
        if part[0] == 0:
            return part
        if not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
        return hang(over)

    @ReactorFunc
    def early(pipe: Any) -> None:
        pipe.send("a", np.arange(1000.0))

    @ReactorFunc
    def mapped(pipe: Any) -> Any:
        a = yield pipe.receive("a")
        out = pipe.allocate("b", specs.HdfArraySpec, shape=a.shape, dtype=a.dtype)
        pipe.map_blocks(works, a, out=out, memory="8kB", workers=2)
        pipe.send("b", out)

    executor = ThreadPoolExecutor(2) if given else "threads"
    try:
        with Plant(tmp_path, executor=executor, durability="process") as plant:
            plant.add_reactors(early, mapped)
            begun = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                plant.produce("b")
            assert time.monotonic() - begun < LIMIT
            assert plant.produce("a")[-1] == 999
            assert hang is stands_in_a_lock or all(not each.is_alive() for each in threads_of_maps())
    finally:
        over.set()
        for thread in threads_of_maps():
            thread.join()
        if isinstance(executor, ThreadPoolExecutor):
            executor.shutdown()


def threads_of_maps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pyplantx-map")]

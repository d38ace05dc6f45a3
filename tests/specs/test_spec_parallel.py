"""Threads of our own: what their stacks count where memory is limited, and that nobody else's change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import _base as futures
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pyplantx.specs import pools, threads
from pyplantx.specs.pools import Pool, SteadyPool
from pyplantx.specs.threads import SMALL_STACK, small_stacks, start_thread
from tests.faults.interrupts import Lines

COUNTED = """
import resource, threading
from pyplantx.specs.pools import Pool
from pyplantx.specs.threads import start_thread

def counted():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))

def work():
    waiting.release()
    over.wait()

resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
over, waiting = threading.Event(), threading.Semaphore(0)
pool = Pool(4, "pool")
before = counted()
for number in range(4):
    assert start_thread(work, "alone") is not None
    pool.submit(work)
for number in range(8):
    waiting.acquire()
print(counted() - before)
over.set()
pool.shutdown()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stacks_are_small_where_memory_is_limited() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * 2 * SMALL_STACK  # eight threads, and what malloc takes for them


PACKED_IN_A_LOOP = """
import resource, sys
import numpy as np
from pyplantx import Plant, ReactorFunc, specs

resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, resource.RLIM_INFINITY))


@ReactorFunc
def fill(pipe):
    x = pipe.allocate("x", specs.HdfArraySpec, shape=(4000, 100), dtype="f4", chunks=(100, 100), compression="lzf")
    for b in pipe.blocks(x, memory="1MB"):
        x[b] = np.arange(4000)[b[0], None]
    pipe.send("x", x)


with Plant(sys.argv[1]) as plant:
    print(plant.produce("x")[3999, 99])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits RLIMIT_DATA")
def test_the_threads_of_a_loop_have_stack_enough_for_filters_of_hdf5(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PACKED_IN_A_LOOP, str(tmp_path / "plant")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3999.0\n"), done.stderr


def test_the_setting_of_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyplantx.specs.threads.is_memory_limited", lambda: False)
    with small_stacks():
        assert threading.stack_size() == 0  # the usual one
    monkeypatch.setattr("pyplantx.specs.threads.is_memory_limited", lambda: True)
    before = threading.stack_size()
    with pytest.raises(ZeroDivisionError), small_stacks():
        assert threading.stack_size() == SMALL_STACK
        raise ZeroDivisionError
    assert threading.stack_size() == before


def test_no_memory_for_a_stack_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    assert start_thread(lambda: None, "helper") is None


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Each thread dies before its first line; `threading.Thread.start` would wait for that for ever."""

    def die(_: threading.Thread) -> None:
        raise MemoryError

    monkeypatch.setattr(threading.Thread, "_bootstrap_inner", die)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    return monkeypatch


def test_a_thread_that_dies_before_its_first_line_is_not_waited_for(no_memory: pytest.MonkeyPatch) -> None:
    before = threading.enumerate()
    assert start_thread(lambda: None, "helper") is None
    assert threading.enumerate() == before
    with Pool(2, "pool") as pool:
        assert pool.submit(abs, -1).result() == 1
        no_memory.undo()
        assert pool.submit(abs, -2).result() == 2


def test_no_memory_to_wait_for_a_thread_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bool:
        raise MemoryError

    ran = threading.Lock()
    ran.acquire()
    monkeypatch.setattr(threading.Event, "wait", fails)
    thread = start_thread(ran.release, "helper")
    assert thread is not None
    thread.join()
    assert ran.acquire(blocking=False)


def test_a_thread_that_is_slow_to_begin_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def begins_late(thread: threading.Thread) -> None:
        time.sleep(0.2)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "_bootstrap_inner", begins_late)
    thread = start_thread(lambda: None, "helper")
    assert thread is not None and thread.ident
    thread.join()


def test_threads_of_a_pool_end_when_nobody_has_it_any_more() -> None:
    pool = Pool(2, "forgotten")
    pool.submit(abs, -1).result()
    (thread,) = (thread for thread in threading.enumerate() if thread.name.startswith("forgotten"))
    del pool
    thread.join(10)
    assert not thread.is_alive()


def test_what_was_not_begun_can_be_cancelled() -> None:
    begun, over = threading.Event(), threading.Event()
    pool = Pool(1, "pool")
    first = pool.submit(lambda: (begun.set(), over.wait()))
    begun.wait()
    second, third, fourth = (pool.submit(abs, -1) for _ in range(3))
    assert second.cancel() and not first.cancel()
    pool.shutdown(wait=False, cancel_futures=True)
    assert third.cancelled() and fourth.cancelled()
    over.set()
    assert first.result()
    with pytest.raises(CancelledError):
        third.result()


def test_a_pool_does_what_it_is_given() -> None:
    with Pool(2, "pool") as pool:
        assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert pool.submit(lambda *values, **named: (values, named), 1, x=2).result() == ((1,), {"x": 2})


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No thread can be started, as where there is no memory for its stack."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


@pytest.mark.parametrize("kind", [Pool, SteadyPool])
def test_without_threads_the_work_is_done_here(no_threads: pytest.MonkeyPatch, kind: type[SteadyPool]) -> None:
    ran: list[str] = []
    with kind(2, "none") as pool:
        assert pool.submit(lambda: ran.append(threading.current_thread().name) or 7).result() == 7
        failed = pool.submit(int, "seven")
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        no_threads.undo()
        assert pool.submit(abs, -3).result() == 3  # by a thread, which finds what was left in the queue
    assert ran == [threading.current_thread().name]
    with pytest.raises(ValueError, match="seven"):
        failed.result()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, -1)


def test_work_that_a_busy_thread_takes_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread can't be started: the first one, or this one, does the work; never both."""
    pool = Pool(2, "one")
    over, begun, counts = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        over.wait()

    busy = pool.submit(first)
    begun.wait()

    def refuse(_: threading.Thread) -> None:
        over.set()
        busy.result()  # the first thread is free, and takes what is in the queue
        taken.wait(10)
        raise RuntimeError("can't start new thread")

    taken = threading.Event()

    def second() -> str:
        counts.append(threading.current_thread().name)
        taken.set()
        return "done"

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert pool.submit(second).result() == "done"
    pool.shutdown()
    assert len(counts) == 1 and counts[0].startswith("one")


class TestResultOf:
    """What a pool's future gives; Ctrl-C is noticed although the thread that waits for it has fallen asleep."""

    def test_gives_and_raises_what_the_work_does(self):
        def late():
            time.sleep(0.05)
            raise TimeoutError("its own")

        with pools.SteadyPool(1, "test") as pool:
            assert pools.result_of(pool.submit(lambda: 5)) == 5
            with pytest.raises(TimeoutError, match="its own"):
                pools.result_of(pool.submit(late))
            with pytest.raises(ZeroDivisionError):
                pools.result_of(pool.submit(lambda: 1 / 0))

    def test_outlasts_its_own_patience(self, monkeypatch):
        monkeypatch.setattr(pools, "_LOOK_UP_AFTER", 0.01)
        with pools.SteadyPool(1, "test") as pool:
            assert pools.result_of(pool.submit(lambda: time.sleep(0.1) or "late")) == "late"

    def test_a_signal_that_another_thread_was_given(self):
        """The system may choose any thread that has not blocked it; the main one hears of it when it wakes."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # so it goes to the pool's thread
        try:
            over = threading.Event()

            def work():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
                time.sleep(0.2)  # the main thread is asleep by now
                os.kill(os.getpid(), signal.SIGINT)
                over.wait(5)

            with pools.SteadyPool(1, "test") as pool:
                future = pool.submit(work)
                try:
                    with pytest.raises(KeyboardInterrupt):
                        pools.result_of(future)
                    assert not future.done()  # else it woke because the work was over
                finally:
                    over.set()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LinesOfStarting(Lines):
    """Ctrl-C at the n-th line in which a thread is started and noted."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._files = (threading.__file__, threads.__file__, pools.__file__)


def hand_in(kept: list[SteadyPool]) -> None:
    """To a pool, which starts a thread for it."""
    with SteadyPool(2, "test") as pool:
        kept.append(pool)  # what Python lets go of is not interrupted
        for _ in range(2):
            pool.submit(int)


def test_ctrl_c_leaves_no_thread_that_nobody_knows():
    """It would never end, or end in place of one that is waited for."""
    for n in count(1):
        before, kept = set(threading.enumerate()), []
        fault = LinesOfStarting(n)
        try:
            with fault.active():
                hand_in(kept)
        except KeyboardInterrupt:
            assert fault.reached
        kept.clear()
        left = [thread for thread in threading.enumerate() if thread not in before and thread.ident is not None]
        for thread in left:  # one that was let go of ends by itself, soon
            thread.join(5)
        assert not any(thread.is_alive() for thread in left), f"at line {n}, {fault.where}"
        if not fault.reached:
            break
    assert n > 1


class LinesOfLocks(Lines):
    """Ctrl-C at the n-th line that the standard library executes with its locks."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._files = (futures.__file__, threading.__file__)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda pool, future: pools.result_of(future), id="result_of"),
        pytest.param(lambda pool, future: pools.was_cancelled(future), id="was_cancelled"),
        pytest.param(lambda pool, future: pool.submit(int), id="submit"),
        pytest.param(lambda pool, future: pool.shutdown(cancel_futures=True), id="shutdown"),
    ],
)
def test_ctrl_c_leaves_no_lock_behind(use: Callable[[SteadyPool, futures.Future[int]], Any]):
    """The standard library gives a future's lock back in Python code: a signal there would leave it taken."""
    for n in count(1):
        fault, over = LinesOfLocks(n), threading.Event()
        pool = SteadyPool(1, "test")
        pool.submit(over.wait)
        future = pool.submit(int)
        threading.Timer(0.01, over.set).start()
        try:
            with fault.active():
                use(pool, future)
        except KeyboardInterrupt:
            assert fault.reached
        over.set()
        assert future._condition.acquire(timeout=5), f"at line {n}"
        future._condition.release()
        if not pool._over:
            assert pools.result_of(pool.submit(int)) == 0
        pool.shutdown()
        if not fault.reached:
            break
    assert n > 1

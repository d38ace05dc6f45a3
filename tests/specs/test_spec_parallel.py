"""Threads of our own: what their stacks count where memory is limited, and that nobody else's change."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from pyplantx.specs.parallel import SMALL_STACK, small_stacks, start_thread
from pyplantx.specs.pools import Pool, SteadyPool

COUNTED = """
import resource, threading
from pyplantx.specs.parallel import start_thread
from pyplantx.specs.pools import Pool

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


def test_the_setting_of_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyplantx.specs.parallel._is_limited", lambda: False)
    with small_stacks():
        assert threading.stack_size() == 0  # the usual one
    monkeypatch.setattr("pyplantx.specs.parallel._is_limited", lambda: True)
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

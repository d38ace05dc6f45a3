"""Pools of threads that get on without threads. Imported only by those who need one: ``concurrent.futures`` costs 5 ms.

Where memory is limited, or there are too many threads, none may be had. That is no reason to fail: the work is then
done by whoever hands it in. (The pool of the standard library starts its threads in a way that may wait for ever, see
``threads.py``.)
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from pyplantx.basics.interrupts import uninterrupted
from pyplantx.specs.threads import FILTER_STACK, SMALL_STACK, start_thread

_T = TypeVar("_T")

#: Seconds after which a thread that waits for another looks up.
_LOOK_UP_AFTER = 0.5


class NoAnswer(Exception):
    """What was waited for did not come in time."""


def result_of(future: Future[_T], patience: float = math.inf) -> _T:
    """What ``future.result()`` gives, or raises; Ctrl-C neither goes unnoticed nor leaves a lock behind.

    Python's main thread handles a signal between two steps of its own. One that comes just before it falls asleep on a
    lock, or that the system gives to another thread, would otherwise be noticed at the next one only: it wakes now and
    then. And it does not sleep in the future, whose lock the standard library gives back in Python code.

    Parameters
    ----------
    future : Future
    patience : float
        Seconds after which it is given up.

    Raises
    ------
    NoAnswer
        If it was given up.
    """
    over, deadline = threading.Lock(), time.monotonic() + patience
    over.acquire()
    with uninterrupted():
        future.add_done_callback(lambda _: over.release())
    while not over.acquire(timeout=_LOOK_UP_AFTER):
        if time.monotonic() > deadline:
            raise NoAnswer
    try:
        with uninterrupted():
            return future.result()
    finally:
        del future  # an error has this frame, and the future has the error


def is_over(future: Future[Any]) -> bool:
    """What ``future.done()`` gives; Ctrl-C leaves no lock behind."""
    with uninterrupted():
        return future.done()


def was_cancelled(future: Future[Any]) -> bool:
    """Cancel what has not begun, as ``future.cancel()`` does; Ctrl-C leaves no lock behind."""
    with uninterrupted():
        return future.cancel()


class SteadyPool(Executor):
    """A pool of threads that does the work in the calling thread if it can't start one of its own.

    Threads are started when there is work for them, and end with the pool: at `shutdown`, or when it is let go of.

    Parameters
    ----------
    threads : int
        How many at most.
    name : str
        Of the threads, followed by their numbers.
    """

    _stack: int | None = None  #: bytes of stack that are enough, where memory is limited

    def __init__(self, threads: int, name: str) -> None:
        self._most = threads
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._idle = _Idle()
        self._over = False

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `concurrent.futures.Executor.submit`; without a thread to do it, it is over when this returns."""
        job = _Job(partial(work, *args, **options))
        with self._lock:
            if self._over:
                raise RuntimeError("no work can be handed in after shutdown")
            self._jobs.put(job)
            is_taken = self._idle.has_one() or len(self._threads) == self._most or self._add_thread()
        # One that is done here stays in the queue all the same: whoever finds it there has nothing to do.
        return job.outcome if is_taken else job.here()

    def _add_thread(self) -> bool:
        name = f"{self._name}_{len(self._threads)}"
        with uninterrupted():  # one that nobody knows would never end, and take from another the word to do so
            thread = start_thread(partial(_work_on, self._jobs, self._idle), name, stack=self._stack)
            if thread is not None:
                self._threads.append(thread)
        return thread is not None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        with self._lock:
            self._over = True
            if cancel_futures:
                with uninterrupted():
                    self._cancel_all()
            self._let_go()
        if wait:
            self.has_ended(math.inf)

    def has_ended(self, patience: float) -> bool:
        """Wait for the threads, after `shutdown`; whether they have ended within so many seconds."""
        deadline = time.monotonic() + patience
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < deadline:  # see `result_of`
                thread.join(min(_LOOK_UP_AFTER, patience))
        return not any(thread.is_alive() for thread in self._threads)

    def _cancel_all(self) -> None:
        try:
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.cancel()
        except Empty:
            pass

    def _let_go(self) -> None:
        """Have each thread end when it has done what is in the queue."""
        for _ in self._threads:
            self._jobs.put(None)

    def __del__(self) -> None:
        if "_jobs" in vars(self):  # Ctrl-C may have come while it was made
            self._let_go()


class Pool(SteadyPool):
    """A pool for work of ours: its threads have small stacks where memory is limited.

    Functions of users, which may call themselves as deep as they like, belong into a `SteadyPool`.
    """

    _stack = SMALL_STACK


class FilterPool(Pool):
    """A pool for what reads and writes datasets, in which HDF5 may pack chunks."""

    _stack = FILTER_STACK


class _Idle:
    """How many threads wait for work that nobody has handed in yet; with a lock that no Ctrl-C can leave behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def one_more(self) -> None:
        """Told by a thread that waits."""
        with self._lock:
            self._count += 1

    def has_one(self) -> bool:
        """Whether one waits, which is no longer counted then: it is to get the work."""
        with self._lock:
            taken = self._count > 0
            self._count -= taken
        return taken


def _work_on(jobs: SimpleQueue[_Job | None], idle: _Idle) -> None:
    """What a thread of a pool does, which knows nothing of the pool itself."""
    while True:
        try:
            job = jobs.get_nowait()
        except (Empty, MemoryError):  # as little as that takes: a thread that ends would leave work undone
            idle.one_more()
            job = jobs.get()
        if job is None:
            return
        job()
        del job  # and with it all that the work holds


class _Job:
    """Work that is done once, by the first thread that comes to it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._unclaimed = threading.Lock()
        self.outcome: Future[Any] = Future()

    def __call__(self) -> None:
        """In a thread of the pool."""
        outcome, work = self.outcome, None
        try:
            work = self._claim()
            if work is None or not outcome.set_running_or_notify_cancel():
                return
            value = work()
        except BaseException as error:
            outcome.set_exception(error)
            del outcome, work, self  # which the error's frames would keep, and they the error
        else:
            outcome.set_result(value)

    def here(self) -> Future[Any]:
        """Do it now, unless another thread has begun; interrupts are raised, since they are meant for this thread."""
        work = self._claim()
        if work is None:
            return self.outcome
        outcomes: list[Future[Any]] = [Future()]  # not ours: we may stay in the queue for long
        try:
            outcomes[0].set_result(work())
        except Exception as error:  # raised by `Future.result`, as if it had happened in another thread
            outcomes[0].set_exception(error)
            del work, self
        return outcomes.pop()  # so that this frame, which the error has, does not have the error

    def cancel(self) -> None:
        """Leave it undone, unless a thread has begun."""
        if self._claim() is not None:
            self.outcome.cancel()
            self.outcome.set_running_or_notify_cancel()

    def _claim(self) -> Callable[[], Any] | None:
        """The work, if nobody else has it; who stays in a queue holds nothing of it."""
        if not self._unclaimed.acquire(blocking=False):
            return None
        work, self._work = self._work, None
        return work

"""Pools of threads that get on without threads. Imported only by those who need one: ``concurrent.futures`` costs 5 ms.

Where memory is limited, or there are too many threads, none may be had. That is no reason to fail: the work is then
done by whoever hands it in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from pyplantx.specs.parallel import small_stacks


class SteadyPool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` that does the work in the calling thread if it can't start one of its own.

    Parameters
    ----------
    threads : int
        How many at most.
    name : str
        Of the threads, followed by their numbers.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name)
        self._over = False

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `concurrent.futures.Executor.submit`; without a thread to do it, it is over when this returns."""
        job = _Job(partial(work, *args, **options))
        try:
            return self._begin(job)
        except RuntimeError:
            if self._over:
                raise
            return job.here()  # it stays in the pool's queue all the same: whoever finds it there has nothing to do

    def _begin(self, job: _Job) -> Future[Any]:
        return super().submit(job)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        self._over = True
        super().shutdown(wait, cancel_futures=cancel_futures)


class Pool(SteadyPool):
    """A pool for work of ours: its threads have small stacks where memory is limited.

    Functions of users, which may call themselves as deep as they like, belong into a `SteadyPool`.
    """

    def _begin(self, job: _Job) -> Future[Any]:
        with small_stacks():
            return super()._begin(job)


class _Job:
    """Work that is done once, by the first thread that comes to it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._unclaimed = threading.Lock()
        self._outcome: Future[Any] = Future()

    def __call__(self) -> Any:
        """In a thread of the pool."""
        work = self._claim()
        if work is None:
            return None
        outcome = self._outcome
        try:
            value = work()
        except BaseException as error:
            outcome.set_exception(error)
            del outcome, self  # which the error's traceback would keep, with all that the work holds
            raise
        outcome.set_result(value)
        return value

    def here(self) -> Future[Any]:
        """Do it now, unless another thread has begun; interrupts are raised, since they are meant for this thread."""
        work = self._claim()
        if work is None:
            return self._outcome
        outcome: Future[Any] = Future()  # not ours: we may stay in the queue for long
        try:
            outcome.set_result(work())
        except Exception as error:  # raised by `Future.result`, as if it had happened in another thread
            outcome.set_exception(error)
        return outcome

    def _claim(self) -> Callable[[], Any] | None:
        """The work, if nobody else has it; who stays in a queue holds nothing of it."""
        if not self._unclaimed.acquire(blocking=False):
            return None
        work, self._work = self._work, None
        return work

"""Whom a plant has call the functions of blocks: threads, processes of its own, or an executor of the user's.

This file may know: executors of ``concurrent.futures``, jobs. It may not know: arrays, runs, stores.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pyplantx.basics.helping import helping
from pyplantx.basics.interrupts import uninterrupted
from pyplantx.errors import BadRequest, ReactorError, shown
from pyplantx.runs.deadlines import Calls

if TYPE_CHECKING:
    from pyplantx.executors.processes import WorkerProcesses

_POSSIBLE = "executor='threads', 'processes', or an executor of concurrent.futures, such as loky's or dask's"


def workers_for(executor: Any) -> Threads | WorkerProcesses | Given | None:
    """The workers for what was given to the plant as ``executor=``; None if the reactors' own thread is to do all.

    Raises
    ------
    BadRequest
        If it is no executor.
    """
    if executor is None:
        return None
    if isinstance(executor, str) and executor == "threads":
        return Threads(_cores())
    if isinstance(executor, str) and executor == "processes":
        from pyplantx.executors.processes import WorkerProcesses

        return WorkerProcesses(_cores())
    if isinstance(executor, str) or not callable(getattr(executor, "submit", None)):
        raise BadRequest(f"executor={shown(executor)} is not possible", hint=_POSSIBLE)
    return Given(executor)


def _cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """Threads of the plant's process; the loop has them. Like all of them it is a `pyplantx.blocks.travel.Workers`.

    Parameters
    ----------
    count : int
        How many at once.
    """

    travels, same_machine = False, True

    def __init__(self, count: int) -> None:
        self.count = count

    def pack(self, function: Callable[..., Any], pickler: Any) -> Any:
        """See `Workers`: it stays here."""
        return function

    def begin(self, job: Callable[..., Any]) -> contextlib.AbstractContextManager[Callable[..., Any]]:
        """See `Workers`."""
        return contextlib.nullcontext(job)

    def close(self) -> None:
        """They end with their loop."""


class Given:
    """An executor of the user's, who also closes it.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        Or anything with its ``submit``.
    """

    same_machine = False

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self.travels = not _is_of_threads(executor)
        self.count = getattr(executor, "_max_workers", None) or _cores()

    def pack(self, function: Callable[..., Any], pickler: Any) -> Any:
        """See `Workers`."""
        from pyplantx.executors.worker import packed

        return packed(function, pickler)

    @contextlib.contextmanager
    def begin(self, job: Any) -> Iterator[Callable[..., Any]]:
        """See `Workers`. When the ``with`` statement is left by an exception, nobody waits for what is under way."""
        from concurrent.futures import Future

        over: Future[None] = Future()
        kind = _Remote if self.travels else _Near
        called = kind(self._executor, job, over)
        try:
            yield called
        finally:
            with uninterrupted():
                over.set_result(None)
                called.end()

    def close(self) -> None:
        """It is not ours."""


class _Near:
    """Calls a function in an executor of this process."""

    def __init__(self, executor: Any, job: Any, over: Any) -> None:
        self._executor, self._job, self._over = executor, job, over
        self._waits = threading.get_ident()
        self._calls = Calls()

    def __call__(self, *parts: Any) -> Any:
        return self._wait_for(self._calls.call, helping, self._waits, self._job, *parts)

    def end(self) -> None:
        """Nobody wants to know any more."""
        self._calls.end()

    def _wait_for(self, function: Callable[..., Any], *given: Any) -> Any:
        from concurrent.futures import BrokenExecutor

        try:
            return self._result_of(self._submitted(function, *given))
        except BrokenExecutor as error:
            raise ReactorError(
                f"the executor that was given to the plant has lost a worker: {error}",
                hint="if the system has killed it there was too little memory (its log says so): give less memory= or "
                "fewer workers=. An executor that has lost one takes no more work: open the plant with a new one; "
                "executor='processes' tries such a block once more",
            ) from error

    def _result_of(self, future: Any) -> Any:
        from concurrent.futures import FIRST_COMPLETED, wait

        try:
            wait([future, self._over], return_when=FIRST_COMPLETED)
            if self._over.done():
                future.cancel()
                raise ReactorError("the loop has ended")  # nobody is there to see it
            return future.result()
        finally:
            del future  # an error has this frame, and the future has the error

    def _submitted(self, function: Callable[..., Any], *given: Any) -> Any:
        from concurrent.futures import BrokenExecutor

        try:
            return self._executor.submit(function, *given)
        except BrokenExecutor:
            raise
        except RuntimeError as error:  # what the standard library's raise after their shutdown
            raise BadRequest(
                f"the executor that was given to the plant takes no work: {error}", hint="close the plant before it"
            ) from error


class _Remote(_Near):
    """Does a job in an executor whose workers are in other processes, perhaps on other machines."""

    def __init__(self, executor: Any, job: Any, over: Any) -> None:
        from pyplantx.executors.worker import wrap

        super().__init__(executor, job, over)
        self._code = wrap(job.code)

    def __call__(self, *parts: Any) -> Any:
        from pyplantx.executors.channel import encode
        from pyplantx.executors.worker import run_block, taken, unwrap, wrap

        return taken(unwrap(self._wait_for(run_block, self._job.key, self._code, wrap(encode(parts)))))


def _is_of_threads(executor: Any) -> bool:
    """Whether its workers are threads of this very interpreter."""
    import concurrent.futures as futures

    apart = getattr(
        futures, "InterpreterPoolExecutor", ()
    )  # from 3.14 on: threads, each with an interpreter of its own
    return isinstance(executor, futures.ThreadPoolExecutor) and not isinstance(executor, apart)

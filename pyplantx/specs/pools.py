"""Pools of threads that run our own code. Imported only by those who need one: ``concurrent.futures`` costs 5 ms."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pyplantx.specs.parallel import small_stacks


class Pool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` for work of ours: its threads have small stacks where memory is limited.

    Functions of users, which may call themselves as deep as they like, belong into an ordinary one.

    Parameters
    ----------
    threads : int
        How many at most.
    name : str
        Of the threads, followed by their numbers.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, name)

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `concurrent.futures.Executor.submit`; a thread is started here if none is idle."""
        with small_stacks():
            return super().submit(work, *args, **options)

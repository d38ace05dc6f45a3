"""Work on the blocks of large arrays by two threads: hashing and system calls give up the interpreter lock.

This file knows nothing of arrays, hashes or files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pyplantx.specs.threads import start_thread

_T = TypeVar("_T")

#: From how many bytes on a second thread is worth its start (about 0.1 ms).
WORTHWHILE = 8 << 20


def for_each_block(count: int, work: Callable[[int], _T], *, parallel: bool = True) -> list[_T]:
    """The results of ``work(0)`` to ``work(count - 1)``, in order.

    Parameters
    ----------
    count : int
        How many blocks there are.
    work : callable
        Called once for each; by this thread and another one if `parallel`, so it must bear that.
    parallel : bool
        Whether a second thread helps.

    Raises
    ------
    Exception
        What a call of `work` raised first; no further blocks are begun then, and none is under way any more.
    """
    if count < 2 or not parallel:
        return [work(index) for index in range(count)]
    return _Shared(count, work).run()


class _Shared(Generic[_T]):
    def __init__(self, count: int, work: Callable[[int], _T]) -> None:
        self._work = work
        self._indices = iter(range(count))
        self._claim = threading.Lock()
        self._results: list[Any] = [None] * count
        self._error: BaseException | None = None

    def run(self) -> list[_T]:
        from pyplantx.basics.interrupts import uninterrupted  # signal, which a warm run does without

        helper: threading.Thread | None = None
        try:
            with uninterrupted():  # one that nobody knows would go on with buffers that are ours
                helper = start_thread(self._help, "pyplantx blocks")
            self._do()
        except BaseException as error:  # Ctrl-C too: the helper must not go on with buffers that are ours
            self._error = self._error or error
        finally:
            if helper is not None:
                self._end(helper)
        if self._error is not None:
            raise self._error
        return self._results

    def _end(self, helper: threading.Thread) -> None:
        """Wait for the helper; an interrupt waits with us, since it ends after its block at the latest."""
        while helper.is_alive():
            try:
                helper.join()
            except KeyboardInterrupt as interrupt:
                self._error = self._error or interrupt

    def _help(self) -> None:
        try:
            self._do()
        except BaseException as error:  # `run` raises it, in the thread of whoever asked
            self._error = self._error or error

    def _do(self) -> None:
        while self._error is None:
            with self._claim:
                index = next(self._indices, None)
            if index is None:
                return
            self._results[index] = self._work(index)

"""Blocks that no Ctrl-C interrupts: calls into libraries and locks of others that an exception would leave half done.

In the main thread that is done by signals. Other threads are interrupted by who has an exception raised in them, which
goes by `interrupt`.

Locks of our own need no such block if they are C's (`threading.Lock`, `threading.RLock`) and taken by ``with``. Those
of `threading.Condition` and `threading.Semaphore` are given back in Python code, in which a signal may be handled.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: The signal that ends what has run for too long, see `pyplantx.runs.deadlines`; None where there is none.
TIME_IS_UP: signal.Signals | None = getattr(signal, "SIGURG", None)

#: Signals that raise exceptions where people use them to interrupt a computation.
_INTERRUPTS = tuple(filter(None, (TIME_IS_UP, signal.SIGALRM, signal.SIGTERM, signal.SIGINT)))


class _Doorkeeper:
    """Stands in for the handlers of `_INTERRUPTS`: while it holds signals back their calls wait, else it hands them on.

    Handlers raise wherever they are called, so also between the steps that give them back. No signal is dead then: the
    handlers that follow are given back nevertheless, and until that is done their signals are handed on.
    """

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Callable[..., object]] = {}
        self._waiting: list[tuple[Any, ...]] = []
        self._holds = False

    def __call__(self, *call: Any) -> None:
        if self._holds:
            self._waiting.append(call)
        else:
            self._handlers[call[0]](*call)

    def hold(self) -> bool:
        """Hold signals back from now on; False if they are held back already."""
        taken: dict[signal.Signals, Callable[..., object]] = {}
        for number in _INTERRUPTS:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not self:
                taken[number] = handler
        if self._holds and not taken:
            return False
        self._handlers.update(taken)
        try:
            for number in taken:
                signal.signal(number, self)
        except BaseException:
            self._give_back()
            raise
        self._holds = True
        return True

    def let_go(self) -> None:
        """Give the handlers back, then call them for what has come meanwhile; the first error of theirs is raised."""
        try:
            self._give_back()
        except BaseException:
            self._give_back()  # one that was given back has raised: the others
            raise
        finally:
            self._holds = False
            self._handle_waiting()

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is self:
                signal.signal(number, handler)

    def _handle_waiting(self) -> None:
        first: BaseException | None = None
        while self._waiting:
            call = self._waiting.pop(0)
            try:
                self._handlers[call[0]](*call)
            except BaseException as error:
                first = first or error
        try:
            if first is not None:
                raise first
        finally:
            del first  # its frames have this one, and this one would have it


_doorkeeper = _Doorkeeper()


class _Shelter:
    """The threads but the main one that are in an uninterrupted block, each with what is to interrupt it behind that.

    Its lock is one that a thread may take again: what the collector finds under it may have such a block, too.
    """

    def __init__(self) -> None:
        self._threads: dict[int, Callable[[], object] | None] = {}
        self.forked()

    def forked(self) -> None:
        """In a child nobody else has the lock."""
        self._lock = threading.RLock()

    def enter(self, thread: int) -> bool:
        """Interrupt it later from now on; False if that is so already."""
        with self._lock:
            if thread in self._threads:
                return False
            self._threads[thread] = None
        return True

    def leave(self, thread: int) -> None:
        """It may be interrupted again, and is if somebody wanted to."""
        with self._lock:
            strike = self._threads.pop(thread, None)
        if strike is not None:
            strike()

    def interrupt(self, thread: int, strike: Callable[[], object]) -> None:
        """See `interrupt`."""
        with self._lock:  # it must not enter between the look and the strike
            if thread in self._threads:
                self._threads[thread] = strike
            else:
                strike()


_shelter = _Shelter()
os.register_at_fork(after_in_child=_shelter.forked)


def interrupt(thread: int, strike: Callable[[], object]) -> None:
    """Call what has an exception raised in a thread: now, or by that thread itself at its uninterrupted block's end."""
    _shelter.interrupt(thread, strike)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block at whose end signals are handled that come while it runs: Ctrl-C above all.

    Python handles them when it enters a function, which might be one of ours that HDF5 has called, or one of the
    standard library's that is about to give a lock back. To be kept short.
    """
    if threading.current_thread() is not threading.main_thread():
        with _sheltered():
            yield  # signals are handled in the main thread only
        return
    outermost = False
    try:
        outermost = _doorkeeper.hold()
        yield
    finally:
        if outermost:
            _doorkeeper.let_go()


@contextmanager
def _sheltered() -> Iterator[None]:
    thread = threading.get_ident()
    outermost = True  # what interrupts it on its way in has no other block around it
    try:
        outermost = _shelter.enter(thread)
        yield
    finally:
        if outermost:
            _shelter.leave(thread)

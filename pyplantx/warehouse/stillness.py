"""Who works with an open store in this process, and who has it still for a moment.

This file may know: threads, and how long one waits. It may not know: what is stored, what is removed.

All plants of a process that use one directory share a session. Whoever removes something has looked whether it is
needed; what another plant stores, or is answered with, between the look and the removal must not be missed. So whoever
removes has the store *still*: no activity begins meanwhile, and nothing is being stored.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pyplantx.errors import StoreBusy

_T = TypeVar("_T")


class Stillness:
    """Of one session.

    Parameters
    ----------
    root : str
        The warehouse's directory, for messages.
    timeout : float
        Seconds to wait for each other.

    Attributes
    ----------
    active : set of int
        Who of the session's users is in an activity just now.
    """

    def __init__(self, root: str, timeout: float) -> None:
        self._root, self._timeout = root, timeout
        self._lock = threading.RLock()  # by itself, not through the condition: see `interrupts.py`
        self._changed = threading.Condition(self._lock)
        self._storing: set[int] = set()  # threads
        self._still = 0  # the thread that has the store still
        self.active: set[int] = set()

    def begin_activity(self, who: int) -> None:
        """One of the session's users begins to work.

        Raises
        ------
        StoreBusy
            If the store is still for too long.
        """
        with self._lock:
            self._wait_for(self._is_free)
            self.active.add(who)

    def end_activity(self, who: int) -> None:
        """It has ended; once too often does no harm."""
        with self._lock:
            self.active.discard(who)

    def when_quiet(self, action: Callable[[], None]) -> None:
        """Do something short, unless somebody is in an activity or stores something; nobody begins meanwhile."""
        with self._lock:
            if not self.active and self._storing <= {threading.get_ident()}:
                action()

    def begin_storing(self) -> None:
        """This thread is about to store an object: from the look whether it is there to the record that waits.

        Raises
        ------
        StoreBusy
            If the store is still for too long.
        """
        with self._lock:
            if self._still:
                self._wait_for(self._is_free)
            self._storing.add(threading.get_ident())

    def end_storing(self) -> None:
        """It has done so; once too often does no harm."""
        with self._lock:
            self._storing.discard(threading.get_ident())
            self._changed.notify_all()

    def while_still(self, work: Callable[[], _T]) -> _T:
        """Do something while nobody of this process begins an activity or stores anything; activities go on.

        Raises
        ------
        StoreBusy
            If what is being stored, or who else has the store still, does not come to an end.
        """
        me = threading.get_ident()
        try:
            with self._lock:
                self._wait_for(lambda: self._is_free() and self._storing <= {me})
                self._still = me
            return work()
        finally:
            try:
                self._go_on(me)
            except BaseException:  # Ctrl-C in there: the others would wait in vain
                self._go_on(me)
                raise

    def _go_on(self, me: int) -> None:
        with self._lock:
            if self._still == me:
                self._still = 0
            self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._still in (0, threading.get_ident())

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._busy()
            self._changed.wait(left)

    def _busy(self) -> StoreBusy:
        return StoreBusy(
            f"another thread of this process collects or mends the store {self._root!r}, or stores something, for "
            f"more than {self._timeout:g} s",
            hint="try again when that has ended; Plant(lock_timeout=...) waits longer",
        )

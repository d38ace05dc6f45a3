"""The interpreter lock, given to a background thread soon.

While user code computes in pure Python, a thread that asks for the lock waits for five milliseconds; and writing to the
index gives it up a dozen times. So that what has ended is durable in time, the thread asks more often while it writes.

This file may know: how Python switches threads. It may not know: what is written.
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType

#: Seconds after which another thread has to give the lock up.
_SOON = 0.0005
#: Python keeps whole microseconds, and cuts off the rest: of 9.9999 it would make 9.
_ROUNDED_OFF = 0.5e-6


class Haste:
    """``with haste:`` around what a background thread does, several at once; what a program has chosen is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._usual = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(_SOON, self._usual) + _ROUNDED_OFF)
            self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._count -= 1
            if not self._count and sys.getswitchinterval() < 1.01 * _SOON:  # else the program has set it meanwhile
                self._slow_down()

    def forget(self) -> None:
        """In a forked child: the threads that were in haste are the parent's."""
        self._lock = threading.Lock()
        if self._count:
            self._count = 0
            self._slow_down()

    def _slow_down(self) -> None:
        sys.setswitchinterval(self._usual + _ROUNDED_OFF)


#: Of the process, as what it changes is.
haste = Haste()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=haste.forget)

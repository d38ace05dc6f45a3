"""Timers of the Linux kernel that send a signal to one thread, whatever the interpreter is doing.

This file may know: ctypes, the C library of 64-bit Linux. Imported by those who set a timer: ctypes takes milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import threading

_MONOTONIC = 1  # CLOCK_MONOTONIC: stands still while the machine sleeps
_TO_THREAD = 4  # SIGEV_THREAD_ID
_NONE_YET = 1 << 62  #: no timer has this number, and one may have 0


class _Event(ctypes.Structure):
    """``struct sigevent``, which has 64 bytes."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_byte * 44),
    ]


class _Times(ctypes.Structure):
    """``struct itimerspec``: seconds and nanoseconds, between two signals and up to the first."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]


_libc = ctypes.CDLL(None, use_errno=True)


class KernelTimer:
    """Sends a signal to the thread that sets it, again and again until it is stopped.

    Parameters
    ----------
    number : int
        Of the signal.
    every : float
        Seconds between two signals.

    Attributes
    ----------
    is_there : bool
        Whether the C library has such timers.
    """

    is_there = all(hasattr(_libc, name) for name in ("timer_create", "timer_settime", "timer_delete"))

    def __init__(self, number: int, every: float) -> None:
        self._number, self._every = number, every
        self._timer: ctypes.c_void_p | None = None

    def set(self, seconds: float) -> None:
        """Send the first signal after so many seconds.

        Raises
        ------
        OSError
            If there are too many timers.
        """
        event = _Event(number=self._number, notify=_TO_THREAD, thread=threading.get_native_id())
        timer = ctypes.c_void_p(_NONE_YET)
        self._timer = timer  # before it is made: Ctrl-C must not leave behind one that nobody knows
        _checked(_libc.timer_create(_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)))
        times = _Times(*_split(self._every), *_split(seconds))
        _checked(_libc.timer_settime(timer, 0, ctypes.byref(times), None))

    def stop(self) -> None:
        """Send nothing more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.value != _NONE_YET:
            _libc.timer_delete(timer)


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1e9)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

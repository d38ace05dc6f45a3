"""Ends code that runs for too long, by an exception in the middle of it.

This file may know: signals, threads, frames, exceptions. It may not know: runs, reactors, what comes of the exception.

In the main thread a signal wakes whatever waits in the system, and its handler raises. The signal is SIGURG: nobody
loses one that comes late or twice, since it is ignored unless somebody asks for it, and the alarm clock of the process
(SIGALRM), which test runners and users set, stays theirs. On Linux the kernel sends it, for a thread that is to do so
has to wait for the interpreter lock, which a regular expression that hangs does not let go of. Other threads are raised
in between two steps of their own, and can't be woken.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.interrupts import TIME_IS_UP, interrupt
from pyplantx.basics.logs import log
from pyplantx.specs.threads import start_thread

if TYPE_CHECKING:
    from types import FrameType

#: Seconds between two looks at what should have ended: an exception may be lost (in a `__del__`), or be caught.
_LOOK_AGAIN = 1.0

#: Packages in whose frames a program stands that is being debugged.
_DEBUGGERS = frozenset(("bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"))


class TimeIsUp(BaseException):
    """Raised in code that has run for too long. No `Exception`: who catches those is to be ended, too."""


class Deadline:
    """The time that calls may take together. One is under way at a time.

    Parameters
    ----------
    seconds : float
        More than none.

    Attributes
    ----------
    has_passed : bool
        Whether a call was, or is being, ended.
    stood : list of (str, int)
        File and line of each frame of the call when the time was over, the outermost first.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._grace = max(seconds, _LOOK_AGAIN)
        self._call: FrameType | None = None  # of the call that is under way
        self._ends = self._cleaned_up = math.inf
        self.has_passed = False
        self.stood: list[tuple[str, int]] = []

    def call(self, function: Callable[..., Any], *given: Any, least: float = 0.0) -> Any:
        """Call a function, and end it when the time is over. Its clean-up then gets as long again.

        Parameters
        ----------
        function, *given
            Whom to call, with what.
        least : float
            Seconds that it may take even if fewer are left.

        Raises
        ------
        TimeIsUp
            When the time is over; not if the function catches it, which `has_passed` tells.
        """
        begun = time.monotonic()
        alarm = _alarm(self)
        try:
            try:
                self._call, self._ends = sys._getframe(), begun + max(self._left, least)
                alarm.set(max(self._ends - begun, 1e-6))
                return function(*given)
            finally:
                self._end(alarm, begun)
        except BaseException:
            self._end(alarm, begun)  # it may have come just there
            raise

    def _end(self, alarm: Alarm, begun: float) -> None:
        if self._call is None:
            return
        alarm.stop()
        self._left -= time.monotonic() - begun
        self._ends, self._call = math.inf, None

    def is_due(self, frame: FrameType | None, thread: int) -> bool:
        """Whether what a thread does in a frame is to be ended now.

        Not if the call is over, stands in a debugger, or is cleaning up after it was ended.
        """
        now = time.monotonic()
        if now < self._ends:
            return False
        frames = self._frames_of_call(frame)
        if not frames or any(_is_debugger(each) for each in frames):
            return False
        if self.has_passed and now < self._cleaned_up and _is_handled(thread):
            return False
        if not self.has_passed:
            self.stood = [(each.f_code.co_filename, each.f_lineno) for each in frames]
        self.has_passed, self._cleaned_up = True, now + self._grace
        return True

    def _frames_of_call(self, frame: FrameType | None) -> list[FrameType]:
        """Frames of the call that is under way, the outermost first; none if there is no such call there."""
        found = []
        while frame is not None and frame is not self._call:
            found.append(frame)
            frame = frame.f_back
        return found[::-1] if frame is not None else []


class Alarm(Protocol):
    """Ends what a thread does when the time is over."""

    def set(self, seconds: float) -> None:
        """Begin."""

    def stop(self) -> None:
        """Nothing is to be ended any more. May be called again."""


def _alarm(deadline: Deadline) -> Alarm:
    """The alarm for this thread."""
    thread = threading.get_ident()
    in_main = threading.current_thread() is threading.main_thread()
    if TIME_IS_UP is not None and in_main and signal.getsignal(TIME_IS_UP) is not None:  # None: a handler in C's
        return _Signal(deadline, TIME_IS_UP, _kernel_timer() or _Watcher(partial(_send, thread, TIME_IS_UP)))
    strike = partial(_raise_in, thread, deadline)
    return _Watcher(partial(interrupt, thread, strike), partial(_absorb, thread))


def _is_debugger(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _DEBUGGERS


def _is_handled(thread: int) -> bool:
    """Whether a thread is in a block that `TimeIsUp` leads through: an ``except``, a ``finally``, a ``with``'s end."""
    found: Any = sys._current_exceptions().get(thread)
    error: BaseException | None = found[1] if isinstance(found, tuple) else found  # a tuple in Python 3.11
    while error is not None and not isinstance(error, TimeIsUp):
        error = error.__context__
    return error is not None


# -- the main thread --------------------------------------------------------------------------------


class _Signal:
    """A signal, whose handler raises. Stands in for whoever handles it otherwise, and hands on what is not ours."""

    def __init__(self, deadline: Deadline, number: signal.Signals, timer: Alarm) -> None:
        self._deadline, self._number, self._timer = deadline, number, timer
        self._before: Any = None
        self._is_set = False

    def set(self, seconds: float) -> None:
        """See `Alarm`."""
        self._before = signal.getsignal(self._number)
        self._is_set = True
        signal.signal(self._number, self)
        try:
            self._timer.set(seconds)
        except OSError:  # the user has as many timers, or signals under way, as are allowed
            self._timer = _Watcher(partial(_send, threading.get_ident(), self._number))
            self._timer.set(seconds)

    def stop(self) -> None:
        """See `Alarm`. Signals that have come are handled before their handler is exchanged."""
        self._timer.stop()
        handler: object = signal.getsignal(self._number)
        if self._is_set and handler is self:  # else the reactor has set another one, which stays
            signal.signal(self._number, self._before)
        self._is_set = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The frame may be one that was left, if signals were held back: where the thread is now is what counts."""
        if self._deadline.is_due(sys._getframe(1), threading.get_ident()):
            raise TimeIsUp
        if callable(self._before):
            self._before(number, frame)


def _send(thread: int, number: int) -> None:
    signal.pthread_kill(thread, number)


def _kernel_timer() -> Alarm | None:
    """A timer of the system's that sends the signal to this thread; None if it has none of that kind."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    from pyplantx.basics.kerneltimers import KernelTimer

    return KernelTimer(int(TIME_IS_UP or 0), _LOOK_AGAIN) if KernelTimer.is_there else None


# -- other threads, and other systems ---------------------------------------------------------------


class _Watcher:
    """A thread that does something when the time is over, and each second from then on.

    Parameters
    ----------
    strike : callable
        What it does.
    undo : callable, optional
        Called when nothing is to be done any more, if something was.
    """

    def __init__(self, strike: Callable[[], None], undo: Callable[[], None] | None = None) -> None:
        self._strike, self._undo = strike, undo
        self._over = threading.Lock()
        self._striking = threading.Lock()
        self._is_set = self._has_struck = False

    def set(self, seconds: float) -> None:
        """See `Alarm`."""
        self._over.acquire()
        self._is_set = True
        if start_thread(partial(self._watch, seconds), "pyplantx-timeout") is None:
            log().warning("there is no memory for a thread that looks at the time: a timeout is not kept")

    def stop(self) -> None:
        """See `Alarm`."""
        with self._striking:
            if not self._is_set:
                return
            self._is_set = False
            self._over.release()
        if self._has_struck and self._undo is not None:
            self._undo()

    def _watch(self, seconds: float) -> None:
        while not self._over.acquire(timeout=seconds):
            with self._striking:
                if self._is_set:
                    self._has_struck = True
                    self._strike()
            seconds = _LOOK_AGAIN


class Calls:
    """Calls under way in several threads, which can all be ended at their next step."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # `end` has it when a thread is raised in, and a thread that was spared takes it
        self._threads: list[int] = []
        self._over = False

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """Call a function in this thread.

        Raises
        ------
        TimeIsUp
            Once they are to end.
        """
        thread = threading.get_ident()
        try:
            try:
                self._begin(thread)
                return function(*given)
            finally:
                self._leave(thread)
        except TimeIsUp:
            self._leave(thread)  # it may have come just there
            raise

    def _begin(self, thread: int) -> None:
        with self._lock:
            if self._over:
                raise TimeIsUp
            self._threads.append(thread)

    def _leave(self, thread: int) -> None:
        with self._lock:
            is_here = thread in self._threads
            if is_here:
                self._threads.remove(thread)
        if is_here and self._over:
            _absorb(thread)

    def end(self) -> None:
        """End them. Those that wait in the system, or compute in C, go on until they come back from there."""
        with self._lock:
            self._over = True
            for thread in self._threads:
                interrupt(thread, partial(self._end_in, thread))

    def _end_in(self, thread: int) -> None:
        with self._lock:
            if thread in self._threads:
                _set_exception(thread, TimeIsUp)


def _raise_in(thread: int, deadline: Deadline) -> None:
    """Raise in another thread, at its next step."""
    frame = sys._current_frames().get(thread)
    if deadline.is_due(frame, thread):
        _set_exception(thread, TimeIsUp)


def _absorb(thread: int) -> None:
    """What may still be to be raised in this thread comes here.

    It takes the place of what is to come; without that, nothing may be. To take it back (an exception that is NULL)
    would leave a flag set, with which Python 3.11 hangs as soon as a debugger or a coverage tool begins to trace.
    """
    try:
        _set_exception(thread, TimeIsUp)
        while True:
            time.sleep(0)
    except TimeIsUp:
        pass


def _set_exception(thread: int, kind: type[BaseException]) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))

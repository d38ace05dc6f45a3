"""The gate of a plant: one activity at a time gets in, and each is ended, whatever comes between.

This file may know: threads, signals, frames, and who has to be told when an activity begins and ends. It may not know:
what is asked of a plant, its reactors, its config, how an activity meets a demand.

Ctrl-C raises where Python handles signals, above all as a function in Python is entered. So it may come as one of ours
is entered that was to end something, before the first line of it: no ``finally`` in there helps, and no ``with`` block
around it. What can be relied on is this:

1. That an activity is on its way is noted before anything is taken for it.
2. `Gate._close` ends one. Until its ``try`` is reached nothing is given back, and what is done there can be done again.
   From there on the lock is given back in any case: the ``finally`` calls no function in Python. What the warehouse was
   not told then does no harm, and is put right by the next activity.
3. If Ctrl-C comes before that, all stays taken, and the plant looks busy. Whoever asks next, `Gate.is_at_work`, sees
   that the call which the activity was for is no longer on the stack, and ends it then. Only the thread that began it
   can do so, for the lock lets nobody else in; others wait.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyplantx.errors import BadRequest
from pyplantx.failures import UsersFrames, trim
from pyplantx.helping import helped
from pyplantx.logs import log

if TYPE_CHECKING:
    from types import FrameType

    from pyplantx.activity import Activity
    from pyplantx.fingerprint.code import Fingerprinter
    from pyplantx.fingerprint.memo import PackedMemo
    from pyplantx.warehouse.warehouse import Warehouse

_RESTLESS = "a reactor (or a listener) can't use its plant while it runs"

#: Seconds that a thread waits in silence for another one, which uses the same plant.
_PATIENCE = 30.0
_WHO_IS_AT_WORK = (
    "another thread that runs reactors of the same plant; if those wait for this thread in turn, neither goes on: "
    "a reactor asks for ingredients by `yield pipe.receive(...)`"
)
_BEFORE_THE_LOOP = "ask for the ingredient before the loop: x = yield pipe.receive('x')"


class Gate:
    """Lets activities in one after the other; reactors and listeners of the one that is inside are turned away.

    Parameters
    ----------
    warehouse, fingerprinter, memo
        Who is told when an activity begins and ends.
    """

    def __init__(self, warehouse: Warehouse, fingerprinter: Fingerprinter, memo: PackedMemo) -> None:
        self._warehouse, self._fingerprinter, self._memo = warehouse, fingerprinter, memo
        self._lock = threading.RLock()
        self._active = False
        self._asked_in: FrameType | None = None  # whose ``with`` block the activity is
        self._thread = 0  # the one that is at work
        self.inside: Activity | None = None  #: the activity that is on its way

    def activity(self, make: Callable[[], Activity]) -> Visit:
        """A ``with`` block around an activity, which sees the code, the config and the index as they are now.

        Parameters
        ----------
        make : callable
            Gives the activity. Called when nobody else is inside.

        Raises
        ------
        BadRequest
            As the block is entered: if a reactor or a listener of this plant asks.
        """
        return Visit(self, make)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A ``with`` block during which no reactor of this plant runs.

        Raises
        ------
        BadRequest
            As `activity`.
        """
        self._await_turn()
        with self._lock:
            if self.is_at_work():
                raise BadRequest(_RESTLESS, hint="do it where the plant was opened")
            yield

    def is_at_work(self) -> bool:
        """Whether an activity is on its way.

        One that this thread has left is ended now: Ctrl-C came in the steps that were to end it.
        """
        if not self._active or not self._lock.acquire(blocking=False):
            return self._active
        try:
            if self._active and not _is_running(self._asked_in):
                self._close()
            return self._active
        finally:
            self._lock.release()

    def _open(self, make: Callable[[], Activity], asked_in: FrameType) -> Activity:
        """Begin an activity."""
        self._await_turn()
        with self._lock:
            if self.is_at_work():
                raise BadRequest(_RESTLESS, hint="x = yield pipe.receive('x') asks for an ingredient")
            self._asked_in, self._thread, self._active = asked_in, threading.get_ident(), True
            try:
                self._lock.acquire()  # until `_close`
                self._warehouse.begin_activity()
                self._fingerprinter.begin_activity()
                self.inside = activity = make()
                return activity
            except BaseException:
                self._close()
                raise

    def _close(self) -> None:
        """End what `_open` began."""
        self._fingerprinter.leave_activity()  # if nothing ran: else the end of the demand was its end, too
        try:
            self._warehouse.end_activity()
            self._memo.keep()  # of those who only asked, too
        finally:
            self.inside = self._asked_in = None
            self._active = False
            self._lock.release()

    def _await_turn(self) -> None:
        """Where another thread is at work: it may itself be waiting for this one, and then both wait for ever.

        Raises
        ------
        BadRequest
            If that is known.
        """
        if not self._active or self._thread == threading.get_ident():
            return
        if helped() == self._thread:
            raise BadRequest("a function of a loop can't use the plant of its reactor", hint=_BEFORE_THE_LOOP)
        if not self._lock.acquire(timeout=_PATIENCE):
            log().warning("%s has waited %g s for %s", threading.current_thread().name, _PATIENCE, _WHO_IS_AT_WORK)
        else:
            self._lock.release()


class Visit:
    """The ``with`` block around an activity. Errors leave it with the user's frames only."""

    def __init__(self, gate: Gate, make: Callable[[], Activity]) -> None:
        self._gate, self._make = gate, make

    def __enter__(self) -> Activity:
        with UsersFrames():
            self._activity = self._gate._open(self._make, sys._getframe(1))
        return self._activity

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._gate._close()
        self._activity.let_go()
        if error is not None:
            trim(error)


def _is_running(call: FrameType | None) -> bool:
    """Whether this thread still is in a call, or in something that it has called."""
    above: FrameType | None = sys._getframe(1)
    while above is not None and above is not call:
        above = above.f_back
    return above is not None

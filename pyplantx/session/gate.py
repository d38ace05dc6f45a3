"""The gate of a plant: one activity at a time gets in, and each is ended, whatever comes between.

This file may know: threads, signals, frames, and who has to be told when an activity begins and ends. It may not know:
what is asked of a plant, its reactors, its config, how an activity meets a demand.

Ctrl-C raises where Python handles signals: as a function in Python is entered, and as a call returns, one of a
function in C, too. So it may come as one of ours is entered that was to end something, before the first line of it: no
``finally`` in there helps, and no ``with`` block around it; and after a lock was taken, before the ``try`` that would
give it back. What can be relied on is this:

1. Nothing comes between a ``with`` statement and the lock in C that it takes, or gives back. So no lock is taken
   otherwise here, and what has to be held from one call to another is held by a generator that stands in such a block
   (`Gate._stay`). That an activity is on its way is not noted anywhere else: it is so while the generator stands there.
2. `Gate._close` ends one. Until its ``finally`` is reached nothing is given back, and what is done there can be done
   again. What the warehouse was not told then does no harm, and is put right by the next activity.
3. If Ctrl-C comes before that, all stays taken, and the plant looks busy. Whoever asks next, `Gate.is_at_work`, sees
   that the call which the activity was for is no longer on the stack, and ends it then. Only the thread that began it
   can do so, for the lock lets nobody else in; others wait.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pyplantx.basics.helping import helped
from pyplantx.basics.logs import log
from pyplantx.errors import BadRequest
from pyplantx.runs.failures import UsersFrames, trim

if TYPE_CHECKING:
    from types import FrameType, GeneratorType

    from pyplantx.fingerprint.code import Fingerprinter
    from pyplantx.fingerprint.memo import PackedMemo
    from pyplantx.session.activity import Activity
    from pyplantx.warehouse.warehouse import Warehouse

    #: A generator; all that it has to say is whether it stands at its ``yield``.
    Stay = GeneratorType[None, None, None]

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
        self._held: Stay = self._stay()  # by the activity that is on its way, if there is one
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

    def resting(self) -> AbstractContextManager[object]:
        """A ``with`` block during which no reactor of this plant runs.

        Raises
        ------
        BadRequest
            As `activity`, but before the block is entered.
        """
        self._await_turn()
        if self._is_at_work_here():
            raise BadRequest(_RESTLESS, hint="do it where the plant was opened")
        return self._lock  # who has it is alone: what is at work in another thread has it until its end

    def is_at_work(self) -> bool:
        """Whether an activity is on its way.

        One that this thread has left is ended now: Ctrl-C came in the steps that were to end it.
        """
        return self._is_at_work_here() or self._is_held()

    def _is_at_work_here(self) -> bool:
        """`is_at_work`, in this thread."""
        if not self._is_held() or self._thread != threading.get_ident():
            return False
        if not _is_running(self._asked_in):
            self._close()
        return self._is_held()

    def _stay(self) -> Stay:
        """Has the lock from its first step until it is closed, which can be done twice."""
        return cast("Stay", _in_block(self._lock))

    def _is_held(self) -> bool:
        return self._held.gi_suspended

    def _open(self, make: Callable[[], Activity], asked_in: FrameType) -> Activity:
        """Begin an activity."""
        self._await_turn()
        with self._lock:
            if self._is_at_work_here():
                raise BadRequest(_RESTLESS, hint="x = yield pipe.receive('x') asks for an ingredient")
            self._asked_in, self._thread, self._held = asked_in, threading.get_ident(), self._stay()
            try:
                next(self._held)  # until `_close`
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
            self._held.close()

    def _await_turn(self) -> None:
        """Where another thread is at work: it may itself be waiting for this one, and then both wait for ever.

        Raises
        ------
        BadRequest
            If that is known.
        """
        if not self._is_held() or self._thread == threading.get_ident():
            return
        if helped() == self._thread:
            raise BadRequest("a function of a loop can't use the plant of its reactor", hint=_BEFORE_THE_LOOP)
        if not _comes_free(self._lock, _PATIENCE):
            log().warning("%s has waited %g s for %s", threading.current_thread().name, _PATIENCE, _WHO_IS_AT_WORK)


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


def _in_block(lock: AbstractContextManager[Any]) -> Any:
    with lock:
        yield


def _comes_free(lock: Any, seconds: float) -> bool:
    """Whether a lock can be had within so many seconds. It is given back at once, in C: no signal comes between."""
    tries = map(partial(lock.acquire, timeout=seconds), (True,))
    return bool(list(map(lock.__exit__, filter(None, tries))))


def _is_running(call: FrameType | None) -> bool:
    """Whether this thread still is in a call, or in something that it has called."""
    above: FrameType | None = sys._getframe(1)
    while above is not None and above is not call:
        above = above.f_back
    return above is not None

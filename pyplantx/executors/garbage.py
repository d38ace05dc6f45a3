"""The garbage collector around user code.

Bookkeeping makes millions of small tuples and no cycles, and the collector looks at all of them again and again: for
10,000 reactors that is a third of the time, and it grows with their number. So it is off while the plant works, and on
while user code runs, where it sees what that step makes and nothing else: all that was there before is frozen. What a
step leaves is looked at when it ends, so that its cycles go at once. Those that were in use then and fall out of it
later go with the next full collection, which comes as often as a twentieth of the user code's time pays for, or after
the demand. Where memory was not enough, cycles (an error leads to frames, these to arrays) go before the next demand.
"""

from __future__ import annotations

import gc
import time

#: A full collection comes after at least so many seconds of user code, and so many times what the last one took.
_SELDOM, _SHARE = 5.0, 20.0

#: What a step has made lies in the generations up to this one; a full collection would also throw away free lists.
_MIDDLE = 1


_shortage: list[None] = []  #: not empty after memory was not enough, anywhere in the process


def note_shortage(error: BaseException | None) -> None:
    """An error was raised; if it says that memory is not enough, or comes from one that does, that is remembered."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError):
            _shortage[:] = [None]
            return
        seen.add(id(error))
        error = error.__cause__ or error.__context__


class Garbage:
    """Says when the collector runs during one demand. A program that has it off, or froze things itself, is left alone.

    ``with garbage:`` around the demand; `enter` and `leave` around each step of user code.
    """

    __slots__ = ("_cost", "_freezes", "_is_on", "_ran")

    def __init__(self) -> None:
        self._is_on = self._freezes = False
        self._ran = self._cost = 0.0

    def __enter__(self) -> Garbage:
        self._is_on = gc.isenabled()
        if _shortage and self._is_on:  # whoever got the error has let go of it by now
            _shortage.clear()
            gc.collect()
        self._freezes = self._is_on and not gc.get_freeze_count()  # what somebody else froze is not ours to thaw
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        if self._freezes:
            gc.unfreeze()
        if self._is_on:
            gc.enable()

    def enter(self) -> None:
        """User code begins."""
        if self._freezes:
            gc.freeze()
        if self._is_on:
            gc.enable()

    def leave(self, seconds: float) -> None:
        """User code has stopped, after so many seconds."""
        if not self._is_on:
            return
        gc.disable()
        if self._freezes:
            gc.collect(_MIDDLE)
            self._ran += seconds
            if self._ran > _SELDOM + _SHARE * self._cost:
                self._collect_all()

    def _collect_all(self) -> None:
        begun = time.perf_counter()
        gc.unfreeze()
        gc.collect()
        self._ran, self._cost = 0.0, time.perf_counter() - begun

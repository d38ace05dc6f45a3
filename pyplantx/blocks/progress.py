"""How far a loop over blocks is, for the log and for whoever asked to be told.

This file may know: numbers, the clock, the log. It may not know: arrays, threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pyplantx.basics.logs import log
from pyplantx.basics.units import show_bytes

#: Seconds between two lines of the log; a loop that is over before says nothing.
_EVERY = 5.0

#: What a user may pass: blocks done, blocks in all, seconds left.
Tell = Callable[[int, int, float], object]


class Progress:
    """Counts the blocks of one loop.

    Parameters
    ----------
    who : str
        What runs the loop, as in "reactor 'smooth'".
    count : int
        Blocks in all.
    done : int
        Blocks that an earlier run has finished.
    tell : callable, optional
        Called with (blocks done, blocks in all, seconds left) after each block.
    clock : callable
        Seconds.
    """

    def __init__(
        self, who: str, count: int, done: int, tell: Tell | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._who, self._count, self._done, self._tell, self._clock = who, count, done, tell, clock
        self._begun = self._spoke = clock()
        self._blocks = self._bytes = 0

    def step(self, nbytes: int) -> None:
        """A block of so many bytes is done."""
        now = self._clock()
        self._blocks += 1
        self._bytes += nbytes
        seconds = max(now - self._begun, 1e-9)
        left = seconds / self._blocks * (self._count - self._done - self._blocks)
        if self._tell is not None:
            self._tell(self._done + self._blocks, self._count, left)
        if now - self._spoke >= _EVERY:
            self._spoke = now
            log().info(
                "%s: block %d of %d, %s/s, %s left",
                self._who,
                self._done + self._blocks,
                self._count,
                show_bytes(self._bytes / seconds),
                duration(left),
            )


def duration(seconds: float) -> str:
    """ "1 min 20 s"."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

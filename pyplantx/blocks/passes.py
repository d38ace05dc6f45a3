"""Several passes in place over one dataset: to which of them each block has come, when a killed run is taken up.

A pass writes over what the one before has left, so after a kill in a later one the file has blocks of several. What a
block was after each pass stands in their ledgers, and each ledger names the one that follows. So a block of a later
pass is as good as one of the first: nobody has to do either again. A block that no ledger knows is done again from the
first pass on.

Until the run has come to the last of these passes, the dataset is *ahead*: it does not hold what an undisturbed run has
there. Whoever looks at it otherwise than by these very passes would see that. Datasets tell of it (arrays in memory
don't, so they have no passes here): then the run is worth nothing, and begins anew.

This file may know: datasets' watchers, digests of blocks. It may not know: loops, how ledgers are kept.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyplantx.basics.logs import log
from pyplantx.core.trace import Digest

#: Block -> digest of what a pass has left there.
Left = Mapping[int, Digest]


class Passes:
    """The passes over one dataset that a run has allocated.

    Parameters
    ----------
    who : str
        Whose they are, for messages.
    grid : str
        What their blocks are like; all passes have the same.
    lose : callable
        Called when the run can't go on with what it has taken up.

    Attributes
    ----------
    number : int
        Of the pass that was begun last; the first one is 1.
    walker : object
        The loop that is this pass, as long as it is open.
    """

    def __init__(self, who: str, grid: str, lose: Callable[[], None]) -> None:
        self._who, self.grid, self._lose = who, grid, lose
        self.number = 1
        self.walker: object = None
        self._later: dict[int, Left] = {}  # number of a pass -> what it has left; the last ones of the killed run
        self._ahead: dict[int, int] = {}  # block -> the pass whose content it has, if that is still to come
        self._skips = self._is_astray = False
        self._was_looked_at = False
        self._process = os.getpid()
        self._seen_elsewhere: mmap.mmap | None = None  # a byte that forked children share

    # -- taking up

    def expect(self, later: Iterable[Left]) -> None:
        """What the passes behind the first one have left in a killed run, in their order.

        A pass is begun when the one before is through. So all blocks are of the last two, but for those that an earlier
        taking up has found torn: these are done again from the first pass on.
        """
        self._later = dict(deque(enumerate(later, 2), maxlen=2))

    def is_later(self, block: int, digest: Digest) -> bool:
        """Whether a block has the content of a pass to come; it is ahead then. By several threads."""
        number = next((number for number, left in self._later.items() if left.get(block) == digest), None)
        if number is None:
            return False
        self._ahead[block] = number
        return True

    @property
    def are_ahead(self) -> bool:
        """Whether any block has the content of a pass to come."""
        return bool(self._ahead)

    def begin(self) -> None:
        """The first pass knows what was taken up."""
        if self._ahead:
            self._seen_elsewhere = mmap.mmap(-1, 1)
            log().info("%s: %d blocks have come to a later pass", self._who, len(self._ahead))

    def has(self, block: int, digest: Digest) -> bool:
        """Whether a block that a later pass has left with this digest has been through it."""
        number = self._ahead.get(block, 0)
        return number > self.number or (number == self.number and self._later[number].get(block) == digest)

    def take(self, finished: Iterable[int]) -> None:
        """A later pass leaves out these blocks. All others must be as the pass before has left them."""
        taken = set(finished)
        if not taken.issuperset(self._ahead):
            self.look()
        self._skips = bool(taken)
        self._ahead = {block: number for block, number in self._ahead.items() if number > self.number}

    def end(self) -> None:
        """The loop over the pass has ended."""
        self._skips, self.walker = False, None

    # -- what keeps them from going on

    @property
    def go_on(self) -> bool:
        """Whether another pass may follow: nobody has looked at the dataset since the first one began."""
        return not self._was_looked_at

    @property
    def is_astray(self) -> bool:
        """Whether somebody may have seen what an undisturbed run does not have there."""
        if self._seen_elsewhere is not None and self._seen_elsewhere[0]:
            self.look()
        return self._is_astray

    def watch(self, writes: bool) -> None:
        """Somebody looks at the dataset otherwise than by the blocks of a pass, or writes to it. See `HdfDataset`."""
        self.look()

    def look(self) -> None:
        """As `watch`."""
        if os.getpid() != self._process:
            if self._seen_elsewhere is not None:
                self._seen_elsewhere[0] = 1
            return
        self._was_looked_at = True
        if (self._ahead or self._skips) and not self._is_astray:
            self._is_astray = True
            log().info("%s begins anew: an array is looked at between passes over it that had begun", self._who)
            self._lose()

    def close(self) -> None:
        """The run is over: who has the dataset still may look at it."""
        self._lose = _nothing


def passes_of(array: Any) -> Passes | None:
    """The passes over an array; None if there are none."""
    owners = (getattr(watch, "__self__", None) for watch in getattr(array, "watchers", ()))
    return next((owner for owner in owners if type(owner) is Passes), None)


def _nothing() -> None:
    pass

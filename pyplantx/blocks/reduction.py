"""A reduction that goes on after a kill: the value so far is kept now and then, and taken up by the next run.

This file may know: logbooks, sources. It may not know: how values are kept, the threads of a loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyplantx.basics.logs import log
from pyplantx.blocks.logbook import latest_value
from pyplantx.blocks.loop import note_nothing
from pyplantx.blocks.sources import folded
from pyplantx.errors import PyplantxError

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.blocks.captured import Look
    from pyplantx.blocks.geometry import Block, Grid
    from pyplantx.blocks.logbook import Logbook
    from pyplantx.blocks.loop import Note
    from pyplantx.blocks.sources import Sources

    Array = np.ndarray[Any, np.dtype[Any]]

#: A value is saved when so many times as much time has passed as that takes.
WORTH = 20.0


class Reduction:
    """The value of a reduction so far. The `Keeper` of its loop.

    Saving the value takes time, so it is done only when a multiple of that has passed since it was done last.

    Parameters
    ----------
    logbook : Logbook
        Its ledger.
    grid : Grid
        Its blocks.
    sources : Sources
        What is read.
    look : callable
        See `Captured.look`.
    clock : callable
        Seconds.

    Attributes
    ----------
    total : list
        The value that an interrupted run has left; empty if there is none.
    finished : frozenset of int
        The blocks that it is made of.
    fills, looks
        See `Keeper`.
    """

    fills: frozenset[int] = frozenset()

    def __init__(
        self, logbook: Logbook, grid: Grid, sources: Sources, look: Look, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.logbook, self._look, self._clock = logbook, look, clock
        self._sources, self.looks = sources, sources.places
        self.total: list[Any] = []
        self.finished: frozenset[int] = frozenset()
        self._read = ""  # digest of all that went into the value
        found = latest_value(logbook, grid.size)
        if found is not None:
            self._take_up(grid, *found)
        self._kept: dict[str, Any] | None = None
        self._saw: list[list[str]] = []
        self._saved, self._took = -math.inf, 0.0

    def _take_up(self, grid: Grid, entry: dict[str, Any], value: Any) -> None:
        finished = range(entry["block"] + 1)
        read = ""
        for index in finished if self.looks else ():
            read = folded(read, self._sources.of(grid.block(index)))
        if [read] != entry["read"]:
            who = self.logbook.who
            log().info("%s: what was combined was made from something else than is there now: it is done again", who)
            return self.logbook.begin()
        self.total, self.finished, self._read = [value], frozenset(finished), read

    def keep(self, block: Block, value: Any) -> None:
        """The value after a block."""
        begun = self._clock()
        if not self.logbook.going or begun - self._saved < WORTH * self._took:
            return
        try:
            self._kept = self.logbook.keep_value(value, block.index)
        except (OSError, PyplantxError) as error:
            self.logbook.give_up(error)
        self._saved = self._clock()
        self._took = self._saved - begun

    def done(self, block: Block) -> Note:
        """See `Keeper.done`."""
        self._saw += self.logbook.saw()
        kept, self._kept = self._kept, None
        if not self.logbook.going:
            return note_nothing
        parts = self._sources.taken(block)
        if parts is None:
            self.logbook.has_no_words()
            return note_nothing
        read = self._read = folded(self._read, parts)
        if kept is None:
            return note_nothing
        if not self._look(now=True):
            self.logbook.has_state()
            return note_nothing
        saw, self._saw = self._saw, []

        def note(_: dict[int, Array]) -> None:
            self.logbook.add_value({"block": block.index, "value": kept, "read": [read], "saw": saw})

        return note

    def given(self, block: Block, place: int, part: Any) -> None:
        """See `Keeper.given`."""
        if self.logbook.going:
            self._sources.give(block, place, part)

    def watch(self, block: Block) -> None:
        """See `Keeper.watch`: a function is given parts alone."""

    def blank(self, block: Block) -> None:
        """See `Keeper.blank`: nothing is written."""

    def wrote_elsewhere(self, array: Any) -> None:
        """See `Keeper.wrote_elsewhere`: what a function writes besides is no part of the value."""

    def kept_elsewhere(self) -> None:
        """See `Keeper.kept_elsewhere`."""
        self.logbook.keeps_more()

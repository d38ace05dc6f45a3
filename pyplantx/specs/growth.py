"""Which rows of a growing dataset were written to since somebody has looked.

This file may know: shapes, selections. It may not know: files, HDF5, what becomes of the rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pyplantx.specs.selections import parse


def axis_of_growth(shape: tuple[int, ...], limits: tuple[int | None, ...]) -> int | None:
    """The first axis along which an array may become longer; None if there is none."""
    places = (place for place, (now, most) in enumerate(zip(shape, limits)) if most is None or most > now)
    return next(places, None)


class Growth:
    """What was written to along one axis; *rows* are the indices of that axis. Thread-safe.

    Parameters
    ----------
    axis : int
        The axis.
    on_crossed : callable, optional
        Called before a write to rows that are kept; may raise.

    Attributes
    ----------
    kept : int
        Somebody keeps rows before this one, and nobody may write to them any more.
    low, high : int
        All rows that were written to since `look_again` are in ``low:high``; the two are equal if none were.
    crossed : bool
        Whether a row that is kept was written to, or taken away.
    by_blocks : bool
        Whether a loop over blocks has written here, which keeps its blocks itself.
    """

    def __init__(self, axis: int, on_crossed: Callable[[], None] | None = None) -> None:
        self.axis, self._on_crossed = axis, on_crossed
        self.kept = self.low = self.high = 0
        self.crossed = self.by_blocks = False
        self._lock = threading.Lock()

    def let_go(self) -> None:
        """Nobody wants to be called any more."""
        self._on_crossed = None

    def look_again(self, kept: int) -> None:
        """What was written to up to now is kept, or was there before."""
        with self._lock:
            self.kept = max(self.kept, kept)
            self.low = self.high = 0

    def writes(self, selection: Any, shape: tuple[int, ...]) -> None:
        """The selected elements are about to be written to."""
        low, high = self._rows(selection, shape)
        if high > low:
            self._touch(low, high)

    def resizes(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """The shape is about to change, or has just done so: rows that are taken away count as written to."""
        old, new = before[self.axis], after[self.axis]
        others = [length for place, length in enumerate(before) if place != self.axis]
        if others != [length for place, length in enumerate(after) if place != self.axis]:
            self._touch(0, max(old, new))
        elif new < old:
            self._touch(new, old)

    def _rows(self, selection: Any, shape: tuple[int, ...]) -> tuple[int, int]:
        """From which row to which a selection reaches; all, if only others can tell."""
        try:
            region = parse(selection, shape)
        except IndexError:  # whoever is to write says so
            region = None
        if region is None:
            return 0, shape[self.axis]
        start, count, step = (of[self.axis] for of in (region.starts, region.counts, region.steps))
        return (start, start + (count - 1) * step + 1) if region.size else (0, 0)

    def _touch(self, low: int, high: int) -> None:
        with self._lock:
            is_first = self.low == self.high
            self.low = low if is_first else min(self.low, low)
            self.high = high if is_first else max(self.high, high)
            crosses = low < self.kept
            self.crossed = self.crossed or crosses
            on_crossed = self._on_crossed
        if crosses and on_crossed is not None:
            on_crossed()

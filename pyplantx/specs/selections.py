"""Basic selections of an array that lies in C order in a file: which stretches of it they are.

This file may know: shapes and numbers. It may not know: files, NumPy, what becomes of the stretches. Integers, slices
with positive step and ``...`` are *basic*; everything else is left to those who know more.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from itertools import product
from typing import Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import BadSelection

#: Bytes of a stretch with gaps that are read at once.
PIECE = 4 << 20

#: Bytes between two wanted elements up to which reading what lies between is cheaper than another system call.
GAP = 32 << 10

#: What to do where a selection or a value was refused.
HOW_TO_WRITE = "write values of the array's type and of the selection's shape: dataset[0:10] = x.astype(dataset.dtype)"

_WHOLE = slice(None)


class Region(NamedTuple):
    """A rectangular selection, axis by axis.

    Attributes
    ----------
    lengths : tuple of int
        Shape of the array.
    starts, counts, steps : tuple of int
        Per axis: the first index, how many, and how far apart.
    kept : tuple of bool
        Per axis: whether the result has it (False: it was selected by an integer).
    """

    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    steps: tuple[int, ...]
    kept: tuple[bool, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(count for count, kept in zip(self.counts, self.kept) if kept)

    @property
    def size(self) -> int:
        """Number of selected elements."""
        return math.prod(self.counts)


class Tile(NamedTuple):
    """One stretch of the file, in elements, and its place among the selected ones.

    Attributes
    ----------
    start, span : int
        The first element, and how many there are up to the last one, gaps included.
    place : tuple
        Where they belong in an array of the region's `counts`.
    counts, pitches : tuple of int
        How they lie in the stretch, per axis: how many, and how far apart. Empty if there are no gaps.
    """

    start: int
    span: int
    place: tuple[Any, ...]
    counts: tuple[int, ...] = ()
    pitches: tuple[int, ...] = ()


def parse(selection: Any, shape: tuple[int, ...]) -> Region | None:
    """The region of a basic selection.

    Parameters
    ----------
    selection : object
        As between the brackets of ``array[...]``.
    shape : tuple of int
        Of the array.

    Returns
    -------
    Region or None
        None if the selection is not basic, or wrong.

    Raises
    ------
    BadSelection
        If an integer is out of range.
    """
    parts = as_tuple(selection)
    filled = fill(parts, len(shape))
    if filled is None:
        return None
    axes = []
    for part, length in zip(filled, shape):
        axis = along(part, length)
        if axis is None:
            return None
        axes.append(axis)
    starts, counts, steps, kept = zip(*axes) if axes else ((), (), (), ())
    return Region(shape, starts, counts, steps, kept)


def fill(parts: tuple[Any, ...], rank: int) -> tuple[Any, ...] | None:
    """The parts with ``...``, or the end, replaced by whole axes; None if there are too many."""
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    missing = rank - len(parts) + len(dots)
    if len(dots) > 1 or missing < 0:
        return None
    at = dots[0] if dots else len(parts)
    return (*parts[:at], *[_WHOLE] * missing, *parts[at + 1 :])


def along(part: Any, length: int) -> tuple[int, int, int, bool] | None:
    """(start, count, step, kept) along one axis; None if the part is neither an integer nor such a slice.

    Parameters
    ----------
    part : object
        The index of this axis.
    length : int
        Of the axis.

    Raises
    ------
    BadSelection
        If an integer is out of range.
    """
    if type(part) is slice:
        try:
            start, stop, step = part.indices(length)
        except (TypeError, ValueError):  # of something else than whole numbers, or with step 0
            return None
        return (start, len(range(start, stop, step)), step, True) if step > 0 else None
    if isinstance(part, bool) or not hasattr(part, "__index__") or getattr(part, "shape", ()) != ():
        return None
    try:
        index = operator.index(part)
    except TypeError:
        return None
    if not -length <= index < length:
        raise BadSelection(f"index {index} is out of range for an axis of length {length}")
    return index % length, 1, 1, False


def tiles(region: Region, itemsize: int) -> Iterator[Tile]:
    """Cut a region into stretches: long ones without gaps, or pieces with small gaps, in C order.

    Parameters
    ----------
    region : Region
        What is selected.
    itemsize : int
        Bytes per element.

    Yields
    ------
    Tile
        Those with gaps span `PIECE` bytes at most; those without any may be as long as the region.
    """
    if not region.size:
        return
    pitches = _pitches(region)
    run = _first_of_run(region.counts, pitches)
    inner = _first_of_piece(region.counts, pitches, run, itemsize)
    begin = sum(map(operator.mul, region.starts, _strides(region.lengths)))
    for outer in product(*map(range, region.counts[:inner])):
        start = begin + sum(map(operator.mul, outer, pitches))
        if inner == run:
            yield Tile(start, math.prod(region.counts[run:]), outer)
        else:
            yield from _pieces(start, outer, region.counts[inner:], pitches[inner:], itemsize)


def _pieces(
    start: int, outer: tuple[int, ...], counts: tuple[int, ...], pitches: tuple[int, ...], itemsize: int
) -> Iterator[Tile]:
    step = max(1, PIECE // (pitches[0] * itemsize))
    rest = sum((count - 1) * pitch for count, pitch in zip(counts[1:], pitches[1:]))
    for first in range(0, counts[0], step):
        rows = min(step, counts[0] - first)
        span = (rows - 1) * pitches[0] + rest + 1
        place = (*outer, slice(first, first + rows))
        yield Tile(start + first * pitches[0], span, place, (rows, *counts[1:]), pitches)


def _strides(lengths: tuple[int, ...]) -> list[int]:
    """Elements from one index to the next, per axis."""
    return [math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]


def _pitches(region: Region) -> tuple[int, ...]:
    return tuple(map(operator.mul, _strides(region.lengths), region.steps))


def _first_of_run(counts: tuple[int, ...], pitches: tuple[int, ...]) -> int:
    """The first of those last axes whose elements lie one after the other."""
    axis, length = len(counts), 1
    while axis and (counts[axis - 1] == 1 or pitches[axis - 1] == length):
        axis -= 1
        length *= counts[axis]
    return axis


def _first_of_piece(counts: tuple[int, ...], pitches: tuple[int, ...], run: int, itemsize: int) -> int:
    """The first of those axes that are worth reading with what lies between; `run` if none is."""
    axis, runs = run, 1
    while axis and pitches[axis - 1] * itemsize <= min(PIECE, GAP * runs):
        axis -= 1
        runs *= counts[axis]
    return axis


def slabs(shape: tuple[int, ...], itemsize: int, aim: int = PIECE) -> Iterator[Any]:
    """Selections that cover an array in C order, each of about `aim` bytes, of whole rows if they are small."""
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:]) * itemsize
    if row > aim and len(shape) > 1:
        for index in range(shape[0]):
            yield from ((index, *as_tuple(rest)) for rest in slabs(shape[1:], itemsize, aim))
        return
    step = max(1, aim // max(1, row))
    yield from (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def as_tuple(selection: Any) -> tuple[Any, ...]:
    """The parts of a selection."""
    return selection if isinstance(selection, tuple) else (selection,)

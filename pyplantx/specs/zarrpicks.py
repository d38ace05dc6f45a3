"""What zarr is asked for where NumPy's users select by lists, masks and slices that run backwards.

Of these zarr takes some, in its own sense: several lists beside slices each select along their axis, and into a shard
it does not write by lists. So it is asked for rectangles, for one list of indices in their order, and for points.

This file knows an array of zarr only by its face. It may not know: files, threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import BadSelection, shown
from pyplantx.specs.picks import Pick, indices_along, mask_of, pick
from pyplantx.specs.selections import Region, as_tuple, parse

Array = np.ndarray[Any, Any]


class Rectangle(NamedTuple):
    """Whole numbers and slices that run forwards.

    Attributes
    ----------
    parts : tuple
        One per axis.
    shape : tuple of int
        Of what is selected.
    """

    parts: tuple[Any, ...]
    shape: tuple[int, ...]

    def read(self, array: Any) -> Any:
        """The selected elements."""
        return array[self.parts]

    def write(self, array: Any, value: Any) -> None:
        """Write a value of the right shape, or one number."""
        array[self.parts] = value


class Listed(NamedTuple):
    """One list or mask along an axis, or a slice that runs backwards."""

    pick: Pick

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is selected."""
        return self.pick.shape

    def read(self, array: Any) -> Any:
        """The selected elements."""
        if self.pick.is_empty:
            return np.empty(self.shape, array.dtype)
        found = array.oindex[self.pick.selection]
        return found if self.pick.after is None else found[self.pick.after]

    def write(self, array: Any, value: Any) -> None:
        """Write a value that can be broadcast."""
        if self.pick.is_empty:
            return
        spread = np.broadcast_to(value, self.shape)
        ordered = spread if self.pick.before is None else spread[self.pick.before]
        axis = next((at for at, part in enumerate(self.pick.selection) if isinstance(part, np.ndarray)), None)
        if axis is None or array.shards is None:
            array.oindex[self.pick.selection] = ordered
            return
        for box, inside, outside in _shard_by_shard(self.pick.selection, axis, array.shards[axis]):
            part = array[box]
            part[inside] = ordered[outside]
            array[box] = part


class Points(NamedTuple):
    """Single elements: a list for each axis, or a mask of the array.

    Attributes
    ----------
    places : tuple of numpy.ndarray
        Their indices along each axis, from 0.
    shape : tuple of int
        Of what is selected.
    """

    places: tuple[Array, ...]
    shape: tuple[int, ...]

    def read(self, array: Any) -> Any:
        """The selected elements."""
        return array.vindex[self.places].reshape(self.shape)

    def write(self, array: Any, value: Any) -> None:
        """Write a value that can be broadcast; of what is written to one element twice, the last counts."""
        values = np.broadcast_to(value, self.shape).reshape(-1)
        grid = array.chunks if array.shards is None else array.shards
        for chosen in _piece_by_piece(self.places, array.shape, grid):
            places = [along[chosen] for along in self.places]
            first = [along.min() for along in places]
            box = tuple([slice(low, along.max() + 1) for low, along in zip(first, places)])
            part = array[box]
            part[tuple([along - low for low, along in zip(first, places)])] = values[chosen]
            array[box] = part


def asked(selection: Any, shape: tuple[int, ...]) -> Rectangle | Listed | Points:
    """How to ask zarr for a selection.

    Parameters
    ----------
    selection : object
        As between the brackets of ``array[...]``.
    shape : tuple of int
        Of the array.

    Raises
    ------
    BadSelection
        If it is wrong. What zarr says of it would be taken for damage.
    """
    region = parse(selection, shape)
    if region is not None:
        return Rectangle(_forwards(region), region.shape)
    mask = mask_of(as_tuple(selection), shape)
    parts = as_tuple(selection) if mask is None else np.nonzero(mask)
    points = _points(parts, shape)
    if points is not None:
        return points
    picked = None if any(isinstance(part, str) for part in parts) else pick(parts, shape)
    if picked is None:
        raise BadSelection(f"{shown(selection)} is no index of a Zarr array", hint="array[0:10], array[[1, 2]]")
    return Listed(picked)


def _forwards(region: Region) -> tuple[Any, ...]:
    axes = zip(region.starts, region.counts, region.steps, region.kept)
    return tuple(
        [
            slice(start, start + max(0, (count - 1) * step + 1) if count else start, step) if kept else start
            for start, count, step, kept in axes
        ]
    )


def _points(parts: tuple[Any, ...], shape: tuple[int, ...]) -> Points | None:
    """Several lists of which each axis has one (or a number), as NumPy pairs them."""
    lists = [part for part in parts if isinstance(part, (list, range)) or np.ndim(part) > 0]
    if len(parts) != len(shape) or len(lists) < 2 or not all(_is_whole(part) for part in parts):
        return None
    given = [indices_along(np.asarray(part), length) for part, length in zip(parts, shape)]
    try:
        paired = np.broadcast_arrays(*given)
    except ValueError as error:
        raise BadSelection(f"lists of different lengths can't be paired: {error}") from error
    return Points(tuple([one.reshape(-1) for one in paired]), paired[0].shape)


def _is_whole(part: Any) -> bool:
    """Whether this is a number or a list of numbers that count elements."""
    if part is None or isinstance(part, (bool, slice, str, tuple)) or part is Ellipsis:
        return False
    try:
        return np.asarray(part).dtype.kind in "iu"
    except ValueError:  # lists of different lengths
        return False


def _shard_by_shard(parts: tuple[Any, ...], axis: int, length: int) -> Iterator[tuple[Any, Any, Any]]:
    """A rectangle of each shard along the axis of a list; where the elements lie in it, and in the value."""
    indices: Array = parts[axis]
    before = (slice(None),) * sum(isinstance(part, slice) for part in parts[:axis])
    borders = [0, *(np.flatnonzero(np.diff(indices // length)) + 1).tolist(), len(indices)]
    for start, stop in zip(borders, borders[1:]):
        part = indices[start:stop]
        box = (*parts[:axis], slice(int(part[0]), int(part[-1]) + 1), *parts[axis + 1 :])
        yield box, (*before, part - part[0]), (*before, slice(start, stop))


def _piece_by_piece(places: tuple[Array, ...], shape: tuple[int, ...], grid: tuple[int, ...]) -> Iterator[Array]:
    """Which of some points lie in each piece of a grid, in their order."""
    counts = [math.ceil(length / part) for length, part in zip(shape, grid)]
    if not len(places[0]):
        return
    pieces = np.ravel_multi_index([along // part for along, part in zip(places, grid)], counts)
    order = np.argsort(pieces, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(pieces[order])) + 1)

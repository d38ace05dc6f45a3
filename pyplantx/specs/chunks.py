"""Geometry of chunked arrays: which shape a chunk gets, how large its cache is, which chunks a selection touches.

This file may know: shapes. It may not know: files, h5py, numpy.

Chunk shapes follow the access that the user names, never a guess: h5py's own makes nearly cubic chunks, so that a slab
of rows touches them all, more than the chunk cache holds, and each is read, unpacked and packed again for every
slab (30 times slower in our measurements).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Final

from pyplantx.basics.given import check_wholes, several, whole
from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import BadRequest, shown
from pyplantx.specs.selections import Region

AIM: Final = 1 << 20  #: bytes that a chunk chosen here comes near to
CACHE_LIMIT: Final = 64 << 20  #: bytes of the largest chunk cache, unless the caller allows more
_CACHE_LEAST: Final = 1 << 20
_MOST_SLOTS: Final = 1 << 17  #: of a chunk cache's hash table: 1 MiB
_UNLIMITED: Final = 1 << 62

Shape = tuple[int, ...]


# -- choosing -----------------------------------------------------------------------------------


def choose(
    shape: Sequence[int],
    itemsize: int,
    *,
    maxshape: Sequence[int | None] | None = None,
    axis: int | Iterable[int] | None = None,
    blocks: Sequence[int | None] | None = None,
    aim: int = AIM,
) -> Shape:
    """The shape of a chunk for the access that the user names.

    Parameters
    ----------
    shape : sequence of int
        Lengths of the axes.
    itemsize : int
        Bytes per element.
    maxshape : sequence of int or None, optional
        How far the axes may grow; None is without limit. Default: not at all.
    axis : int or several, optional
        Slabs across these axes are read or written: ``axis=0`` is ``x[a:b]``, ``axis=1`` is ``x[:, a:b]``,
        ``axis=(0, 1)`` is both. Chunks are thin along them and whole along the others, as long as these are now.
        Default: 0.
    blocks : sequence of int or None, optional
        Shape of the very blocks that are read or written, None for a whole axis: the chunks tile them.
    aim : int
        Bytes per chunk to come near to.

    Returns
    -------
    tuple of int
        One length per axis, none above the axis' limit (but at least 1); () for an array without axes.

    Raises
    ------
    BadRequest
        If `axis` or `blocks` don't fit the shape, or both are given.
    """
    limits = _limits(shape, maxshape)
    room = max(1, aim // max(1, itemsize))
    if blocks is None:
        return _for_growing_slabs(shape, limits, _checked_axes(axis, len(limits)), room)
    if axis is not None:
        raise BadRequest("chunks follow either axis= or blocks=, not both", hint="leave one of them off")
    return _for_growing_blocks(_checked_blocks(blocks, len(limits)), shape, limits, room)


def check_alone(chunks: Any, axis: Any, blocks: Any) -> None:
    """Refuse chunks of a given shape that are to follow an access as well.

    Raises
    ------
    BadRequest
        If `axis` or `blocks` is given beside a shape.
    """
    if chunks is None or isinstance(chunks, bool) or (axis is None and blocks is None):
        return
    other = f"axis={axis!r}" if blocks is None else f"blocks={blocks!r}"
    raise BadRequest(
        f"chunks={chunks!r} says how long chunks are, and {other} how to choose that: both are not possible",
        hint="leave one of them off",
    )


def _limits(shape: Sequence[int], maxshape: Sequence[int | None] | None) -> Shape:
    if maxshape is None:
        return tuple(max(1, length) for length in shape)
    lengths = _lengths(maxshape, least=0)
    if lengths is None or len(lengths) != len(shape):
        raise BadRequest(
            f"maxshape={shown(maxshape)} does not say how far the {len(shape)} axes of the array may grow",
            hint="one length per axis, None for an axis without limit; maxshape=True: all of them",
        )
    return tuple(_UNLIMITED if limit is None else max(1, limit) for limit in lengths)


def _present(shape: Sequence[int], limits: Shape) -> Shape:
    """What the axes are today; 1 for those that have no length yet."""
    return tuple(min(max(1, length), limit) for length, limit in zip(shape, limits))


def _lengths(given: object, least: int) -> tuple[int | None, ...] | None:
    """One length per axis, where None stands for a whole axis or no limit; None if that is not what it is."""
    lengths = several(given)
    if lengths is None:
        return None
    numbers = tuple([None if length is None else whole(length) for length in lengths])
    wrong = any(number is None and length is not None for number, length in zip(numbers, lengths))
    return None if wrong or any(number is not None and number < least for number in numbers) else numbers


def _checked_axes(axis: int | Iterable[int] | None, ndim: int) -> frozenset[int]:
    given = (0,) if axis is None else check_wholes("axis=", axis, "axis=0, axis=(0, 1)")
    wrong = [one for one in given if not -ndim <= one < ndim]
    if axis is not None and (wrong or not given):
        raise BadRequest(f"axis={axis!r} is no axis of an array with {ndim}", hint=f"0 to {ndim - 1}, or several")
    return frozenset(one % ndim for one in given if ndim)


def _checked_blocks(blocks: Sequence[int | None], ndim: int) -> tuple[int | None, ...]:
    lengths = _lengths(blocks, least=1)
    if lengths is None or len(lengths) > ndim:
        raise BadRequest(
            f"blocks={shown(blocks)} is not the shape of a block of an array with {ndim} axes",
            hint="one positive length per axis, None for a whole axis; axes left off are whole",
        )
    return (*lengths, *[None] * (ndim - len(lengths)))


def _for_growing_slabs(shape: Sequence[int], limits: Shape, thin: frozenset[int], room: int) -> Shape:
    """`_for_slabs`, where a whole axis is as long as it is today: a chunk takes its room however little is in it.

    What room the array leaves today is for the axes along which it has to grow, since they have no length yet; what
    these leave is shared by those along which it may.
    """
    present = _present(shape, limits)
    if all(present[axis] == limits[axis] for axis in range(len(limits)) if axis not in thin):
        return _for_slabs(limits, thin, room)
    chunk = _for_slabs(present, thin, room)
    growing = [axis for axis in range(len(limits)) if chunk[axis] == present[axis]]
    chunk = _longer(chunk, [axis for axis in growing if not shape[axis]], limits, room)
    return _longer(chunk, growing, limits, room)


def _for_growing_blocks(blocks: Sequence[int | None], shape: Sequence[int], limits: Shape, room: int) -> Shape:
    """`_for_blocks`, with whole axes as in `_for_growing_slabs`: all chunks of today share what room is left."""
    lengths = tuple(min(length or limit, limit) for length, limit in zip(shape, limits))
    asked = zip(blocks, lengths, limits)
    chunk = _for_blocks(tuple(length if one is None else min(one, limit) for one, length, limit in asked), room)
    whole_axes = [axis for axis, one in enumerate(blocks) if one is None and chunk[axis] == lengths[axis]]
    return _longer(chunk, whole_axes, limits, room // math.prod(map(_times, lengths, chunk)))


def _times(length: int, part: int) -> int:
    return -(-length // part)


def _longer(chunk: Shape, axes: Sequence[int], limits: Shape, room: int) -> Shape:
    """A chunk that is longer along those axes that may grow, as far as there is room."""
    longer = list(chunk)
    growing = sorted([axis for axis in axes if chunk[axis] < limits[axis]], key=lambda axis: limits[axis])
    for left, axis in zip(range(len(growing), 0, -1), growing):
        size = math.prod(longer)
        wanted = room // (size // longer[axis]) if left == 1 else longer[axis] * _root(max(1, room // size), left)
        longer[axis] = min(limits[axis], max(longer[axis], wanted))
    return tuple(longer)


def _for_slabs(limits: Shape, thin: frozenset[int], room: int) -> Shape:
    """Whole along the axes that are not `thin`, last ones first; what room is left is shared by the thin ones."""
    chunk = [1] * len(limits)
    for axis in reversed(range(len(limits))):
        if axis not in thin:
            chunk[axis] = min(limits[axis], room)
            room = max(1, room // chunk[axis])
    # Short axes first: what they can't use goes to the others.
    left = sorted(thin, key=lambda axis: limits[axis])
    while left:
        axis = left.pop(0)
        chunk[axis] = min(limits[axis], max(1, _root(room, len(left) + 1)))
        room = max(1, room // chunk[axis])
    return tuple(chunk)


def _root(number: int, degree: int) -> int:
    """The largest whole number whose power is at most `number`."""
    guess = int(round(number ** (1 / degree)))
    return guess if guess**degree <= number else guess - 1


def _for_blocks(block: Shape, room: int) -> Shape:
    """Cut the block along its first axes into equal parts, until one is about as large as there is room."""
    chunk = list(block)
    for axis, length in enumerate(block):
        size = math.prod(chunk)
        if size <= room:
            break
        rest = size // length
        chunk[axis] = 1 if rest >= 2 * room else _part(length, room / rest)
    return tuple(chunk)


def _part(length: int, wanted: float) -> int:
    """The divisor of `length` that is nearest to what is wanted, as a ratio."""
    if length >= _UNLIMITED:
        return max(1, int(wanted))
    small = [one for one in range(1, math.isqrt(length) + 1) if length % one == 0]
    return min({*small, *(length // one for one in small)}, key=lambda one: (abs(math.log(one / wanted)), one))


# -- caching ------------------------------------------------------------------------------------


def cache_bytes(
    shape: Sequence[int], chunks: Sequence[int], itemsize: int, axis: int = 0, *, limit: int = CACHE_LIMIT
) -> int:
    """How large a chunk cache must be so that slabs along an axis read each chunk once.

    Parameters
    ----------
    shape, chunks : sequence of int
        Lengths of the array and of a chunk.
    itemsize : int
        Bytes per element.
    axis : int
        Slabs across this axis are read one after the other.
    limit : int
        Bytes at most. A single chunk always has a place, whatever the limit.

    Returns
    -------
    int
        Bytes of the chunks of a slab that is one chunk thick. Along other axes than the first twice that: a slab that
        lies in two rows of chunks goes from one to the other and back.
    """
    chunk = math.prod(chunks) * itemsize * (1 if axis == 0 else 2)
    across = math.prod(-(-length // part) for length, part in zip(shape, chunks))
    across //= max(1, -(-shape[axis] // chunks[axis])) if chunks else 1
    return max(math.prod(chunks) * itemsize, min(limit, max(_CACHE_LEAST, across * chunk)))


def cache_slots(nbytes: int, chunk_bytes: int) -> int:
    """Slots of HDF5's hash table for a cache: a prime, about a hundred for each chunk that it holds.

    Each slot takes eight bytes from the start on, and holds one chunk at most: of tiny chunks there are fewer slots.
    """
    return _next_prime(min(_MOST_SLOTS, 100 * max(1, nbytes // max(1, chunk_bytes))) + 1)


def _next_prime(number: int) -> int:
    while any(number % one == 0 for one in range(2, math.isqrt(number) + 1)):
        number += 1
    return number


def grown(shape: Sequence[int], chunks: Sequence[int] | None, itemsize: int, aim: int) -> Shape:
    """Pieces in which an array is read well: whole chunks, put together along the last axes first, near `aim` bytes.

    Parameters
    ----------
    shape : sequence of int
        Lengths of the array.
    chunks : sequence of int or None
        Lengths of a chunk; None if the array lies in one piece.
    itemsize : int
        Bytes per element.
    aim : int
        Bytes per piece to come near to.
    """
    if chunks is None:
        return choose(shape, itemsize, aim=aim)
    piece = [min(part, max(1, length)) for part, length in zip(chunks, shape)]
    for axis in reversed(range(len(piece))):
        times = max(1, aim // max(1, math.prod(piece) * itemsize))
        piece[axis] = min(max(1, shape[axis]), piece[axis] * times)
    return tuple(piece)


# -- selecting ----------------------------------------------------------------------------------


class Piece(NamedTuple):
    """The part of a region that lies in one chunk.

    Attributes
    ----------
    chunk : tuple of int
        The chunk's place in the grid of chunks.
    inside : tuple of slice
        Where it lies in the chunk.
    outside : tuple of slice
        Where it lies in what was selected (with every axis).
    whole : bool
        Whether it is all of the chunk that lies in the array.
    """

    chunk: Shape
    inside: tuple[slice, ...]
    outside: tuple[slice, ...]
    whole: bool


def pieces(region: Region, chunks: Shape) -> Iterator[Piece]:
    """The chunks that a region touches, in C order."""
    places = (range(start, start + count * step, step) for start, count, step in _axes(region))
    lists = [list(_cut(*found)) for found in zip(places, region.lengths, chunks)]
    for touched in product(*lists):
        numbers, inside, outside, whole = zip(*touched) if touched else ((), (), (), ())
        yield Piece(numbers, inside, outside, all(whole))


def _axes(region: Region) -> Iterator[tuple[int, int, int]]:
    return zip(region.starts, region.counts, region.steps)


def _cut(places: range, length: int, part: int) -> Iterator[tuple[int, slice, slice, bool]]:
    if not places:
        return
    start, step = places.start, places.step
    for number in range(start // part, places[-1] // part + 1):
        low, high = number * part, min(number * part + part, length)
        first = max(0, -((start - low) // step))
        end = min(len(places), -((start - high) // step))
        if first < end:
            inside = slice(start + first * step - low, start + (end - 1) * step - low + 1, step)
            yield number, inside, slice(first, end), end - first == high - low

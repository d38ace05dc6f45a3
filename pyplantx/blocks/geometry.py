"""How arrays are cut into blocks. Pure: knows shapes and bytes, no data, no threads.

The blocks form a grid over the leading axes of the arrays. Together they cover every element exactly once, in C order;
the last ones along an axis may be shorter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from pyplantx.basics.given import check_wholes
from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import BadRequest
from pyplantx.specs.selections import GAP

#: Blocks of each array that are in flight at once: in the reactor's hands, and two being read, or written.
IN_FLIGHT = 3

#: Bytes that a block of the largest array aims at: larger ones are no faster, and what they hold is not recycled.
TARGET = 4 << 20

#: A block is at least so many times as long as the rows that it shares with its neighbours.
_WORTH_ITS_HALO = 8

Box = tuple[slice, ...]


class Reads(Protocol):
    """What a block asks when an array is read or written by it; see `pyplantx.blocks.loop`."""

    def fetch(self, block: Block, array: Any, padded: bool) -> Any: ...
    def store(self, block: Block, array: Any, value: Any) -> None: ...


class Extent(NamedTuple):
    """What the geometry has to know about one array.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the axes.
    itemsize : int
        Bytes per element.
    chunks : tuple of int or None
        In which pieces it is stored, if a piece can only be read or written as a whole.
    run : int
        Bytes per logical block of its digest; 0 if that does not matter (nobody writes it).
    """

    shape: tuple[int, ...]
    itemsize: int
    chunks: tuple[int, ...] | None = None
    run: int = 0


class Block(tuple[slice, ...]):
    """One block: an index for the arrays of a loop, ``array[block]``.

    Attributes
    ----------
    index : int
        Its number, from 0.
    count : int
        How many there are.
    shape : tuple of int
        Lengths along the axes that it speaks of.
    padded : tuple of slice
        The block with its halo, clipped at the borders of the array; an index, too.
    inner : tuple of slice
        Where the block lies in ``array[block.padded]``.
    """

    index: int  # type: ignore[assignment]
    count: int  # type: ignore[assignment]
    inner: Box
    _with_halo: Box
    _reads: Reads | None

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self)

    @property
    def padded(self) -> Padded:
        padded = Padded(self._with_halo)
        padded.block = self  # it is made when it is asked for: two that keep each other would keep the loop's arrays
        return padded

    def fetch(self, array: Any) -> Any:
        """``array[block]``, for arrays that ask: what was read ahead."""
        return array.read_block(tuple(self)) if self._reads is None else self._reads.fetch(self, array, False)

    def store(self, array: Any, value: Any) -> None:
        """``array[block] = value``, for arrays that ask: it is written behind."""
        if self._reads is None:
            array.write_block(tuple(self), value)
        else:
            self._reads.store(self, array, value)

    def __repr__(self) -> str:
        return f"<block {self.index + 1} of {self.count}: {shown(self)}>"


class Padded(tuple[slice, ...]):
    """A block with its halo; see `Block.padded`."""

    block: Block

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths along the axes that it speaks of."""
        return shape_of(self)

    def fetch(self, array: Any) -> Any:
        """``array[block.padded]``, for arrays that ask: what was read ahead."""
        reads = self.block._reads
        return array.read_block(tuple(self)) if reads is None else reads.fetch(self.block, array, True)

    def store(self, array: Any, value: Any) -> None:
        """Refused: it would overwrite what belongs to the neighbours."""
        raise BadRequest(
            f"{self.block!r} is written with its halo, which belongs to its neighbours",
            hint="dst[b] = result[b.inner]",
        )

    def __repr__(self) -> str:
        return f"<{self.block!r} with halo: {shown(self)}>"


def shape_of(box: Sequence[slice]) -> tuple[int, ...]:
    """Lengths of a box."""
    return tuple([part.stop - part.start for part in box])


def shown(box: Sequence[slice]) -> str:
    """A box as one would write it in brackets."""
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in box) + "]"


class Grid(NamedTuple):
    """Blocks over the leading axes of some arrays.

    Attributes
    ----------
    lengths : tuple of int
        Of these axes.
    steps : tuple of int
        Lengths of a block along them.
    halo : tuple of int
        How many rows a block shares with its neighbour, on each side.
    """

    lengths: tuple[int, ...]
    steps: tuple[int, ...]
    halo: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many blocks there are along each axis."""
        return tuple([-(-length // max(1, step)) for length, step in zip(self.lengths, self.steps)])

    @property
    def size(self) -> int:
        """How many blocks there are."""
        return math.prod(self.counts)

    def block(self, index: int, reads: Reads | None = None) -> Block:
        """A block by its number.

        Parameters
        ----------
        index : int
            From 0.
        reads : Reads, optional
            Asked when an array is read or written by the block.
        """
        starts = self._starts(index)
        stops = [min(start + step, length) for start, step, length in zip(starts, self.steps, self.lengths)]
        before = [min(start, halo) for start, halo in zip(starts, self.halo)]
        after = [min(length - stop, halo) for stop, length, halo in zip(stops, self.lengths, self.halo)]
        block = Block(map(slice, starts, stops))
        block.index, block.count, block._reads = index, self.size, reads
        block._with_halo = tuple(map(slice, map(int.__sub__, starts, before), map(int.__add__, stops, after)))
        block.inner = tuple([slice(b, b + n) for b, n in zip(before, block.shape)])
        return block

    def _starts(self, index: int) -> list[int]:
        starts = []
        for count, step in zip(reversed(self.counts), reversed(self.steps)):
            index, at = divmod(index, count)
            starts.append(at * step)
        return starts[::-1]

    def __str__(self) -> str:
        return f"lengths {self.lengths} steps {self.steps} halo {self.halo}"


def cut(extents: Sequence[Extent], memory: int, *, axis: int | Sequence[int] = 0, halo: Any = 0, more: int = 0) -> Grid:
    """Cut arrays into blocks.

    Parameters
    ----------
    extents : sequence of Extent
        The arrays; equally long along the axes up to the last one that is cut.
    memory : int
        Bytes that all blocks in flight may take together.
    axis : int or sequence of int
        The axis to cut along; several: along the first, and along the next ones only if a row is too large.
    halo : int or sequence of int
        Rows that a block sees of its neighbours; several: in the order of `axis`.
    more : int
        Blocks that are in flight besides the usual ones: in the hands of other threads.

    Returns
    -------
    Grid
        Blocks that begin at borders of chunks, and of logical blocks of the digest where these are not longer.

    Raises
    ------
    BadRequest
        If the arrays don't go together, or one row (one chunk) takes more than `memory`.
    """
    axes = _axes(extents, axis)
    lengths = _common_lengths(extents, max(axes) + 1 if axes else 0)
    halos = [0] * len(lengths)
    for at, rows in zip(axes, _halos(halo, axes)):
        halos[at] = rows
    room = _Room(extents, lengths, halos, memory, IN_FLIGHT + more)
    for at in axes:
        if room.fit(at):
            return Grid(lengths, tuple(room.steps), tuple(halos))
    if not axes and room.bytes() <= memory:
        return Grid((), (), ())
    raise _too_large(room, axes, memory)


class _Room:
    """How long blocks may be: all in one at first, made shorter axis by axis."""

    def __init__(
        self, extents: Sequence[Extent], lengths: tuple[int, ...], halos: list[int], memory: int, flight: int
    ) -> None:
        self._extents, self._lengths, self._halos, self._memory = extents, lengths, halos, memory
        self.steps, self.flight = list(lengths), flight

    def bytes(self) -> int:
        """What is in flight with the present steps."""
        return sum(self.flight * self._weight(extent, None) for extent in self._extents)

    def fit(self, axis: int) -> bool:
        """Make blocks short enough along this axis; if that can't be, as short as possible."""
        needed = self._needed(axis)
        most = self._most(axis)
        if most >= self._lengths[axis] and self._wanted(axis) >= self._lengths[axis]:
            return True
        if most < needed:
            self.steps[axis] = needed
            return self.bytes() <= self._memory  # a length that is shorter than the chunk, say
        self.steps[axis] = self._aligned(axis, max(needed, min(most, self._wanted(axis))), most)
        return True

    def other_ways(self, axes: Sequence[int]) -> list[str]:
        """What could make blocks smaller, besides more memory."""
        chunks = [extent.chunks for extent in self._extents if extent.chunks]
        smaller = ["smaller chunks="] if any(math.prod(chunk) > 1 for chunk in chunks) else []
        dimensions = min(len(extent.shape) for extent in self._extents)
        more = [at for at in range(dimensions) if at not in axes and self._can_be_cut(at)]
        return [*smaller, f"axis={(*axes, more[0])}"] if more else smaller

    def _can_be_cut(self, axis: int) -> bool:
        """Whether blocks along this axis would be shorter than it, in all arrays together."""
        first = self._extents[0].shape
        alike = all(extent.shape[: axis + 1] == first[: axis + 1] for extent in self._extents)
        return alike and max([1, *[extent.chunks[axis] for extent in self._extents if extent.chunks]]) < first[axis]

    def _most(self, axis: int) -> int:
        """Rows that fit into memory."""
        row = self.flight * sum(self._weight(extent, axis) for extent in self._extents)
        rows = self._memory // row if row else self._lengths[axis]
        if rows >= self._lengths[axis]:
            return max(1, self._lengths[axis])
        return rows - 2 * self._halos[axis]

    def _wanted(self, axis: int) -> int:
        """Rows that make a good block."""
        row = max(self._weight(extent, axis) for extent in self._extents)
        rows = TARGET // row if row else self._lengths[axis]
        return max(1, rows, _WORTH_ITS_HALO * self._halos[axis], self._worth_their_gaps(axis))

    def _worth_their_gaps(self, axis: int) -> int:
        """How long blocks are that lie side by side in an array without chunks, each with a piece of many rows.

        What lies between short pieces is read with them, so that each block would take as long as the whole array.
        """
        if math.prod(self.steps[:axis]) < 2:
            return 1
        widths = [
            extent.itemsize * math.prod(extent.shape[axis + 1 :]) for extent in self._extents if not extent.chunks
        ]
        return max([1, *(GAP // width for width in widths if width)])

    def _needed(self, axis: int) -> int:
        """Rows that can't be divided: the longest chunk."""
        chunks = [extent.chunks[axis] for extent in self._extents if extent.chunks]
        return max(1, min(max([1, *chunks]), self._lengths[axis]))

    def _aligned(self, axis: int, rows: int, most: int) -> int:
        """`rows`, made to end at borders of chunks, and of logical blocks if they are not too far apart."""
        chunks = [extent.chunks[axis] for extent in self._extents if extent.chunks]
        runs = [self._run(extent, axis) for extent in self._extents if extent.run and not extent.chunks]
        unit = _joined(_joined(1, chunks, most), runs, min(most, 2 * rows))
        return min(self._lengths[axis], max(unit, rows // unit * unit))

    def _run(self, extent: Extent, axis: int) -> int:
        """After how many rows a logical block of a contiguous array ends."""
        row = extent.itemsize * math.prod(extent.shape[axis + 1 :])
        return extent.run // math.gcd(extent.run, row) if row else 1

    def _weight(self, extent: Extent, axis: int | None) -> int:
        """Bytes of a block of one array, halo included; of one row of it along `axis`."""
        covered = len(self.steps)
        rows = [
            1 if at == axis else min(self._lengths[at], self.steps[at] + 2 * self._halos[at]) for at in range(covered)
        ]
        return extent.itemsize * math.prod(rows) * math.prod(extent.shape[covered:])


def _joined(unit: int, others: Sequence[int], most: int) -> int:
    """A multiple of `unit` and of as many others as go together below `most`."""
    for other in others:
        joined = math.lcm(unit, other)
        unit = joined if joined <= most else unit
    return unit


def _axes(extents: Sequence[Extent], axis: int | Sequence[int]) -> list[int]:
    if not extents:
        raise BadRequest("pipe.blocks() needs an array to walk through", hint="for b in pipe.blocks(src, dst): ...")
    dimensions = min(len(extent.shape) for extent in extents)
    given = list(check_wholes("axis=", axis, "axis=0, axis=(0, 1)"))
    if dimensions == 0 and given == [0]:
        return []  # arrays without an axis are one block
    axes = [at + dimensions if at < 0 else at for at in given]  # in their order: halos belong to them, and who is first
    if not axes or len(set(axes)) < len(axes) or not all(0 <= at < dimensions for at in axes):
        shapes = ", ".join(str(extent.shape) for extent in extents)
        # Of a sparse matrix the extent is that of its rows.
        hint = "axis=0, axis=(0, 1)" if dimensions > 1 else "axis=0: of a sparse matrix rows are all that can be cut"
        raise BadRequest(f"axis={axis!r} is not possible for arrays of the shapes {shapes}", hint=hint)
    return axes


def _common_lengths(extents: Sequence[Extent], covered: int) -> tuple[int, ...]:
    lengths = extents[0].shape[:covered]
    for extent in extents:
        if extent.shape[:covered] != lengths:
            shapes = ", ".join(str(extent.shape) for extent in extents)
            raise BadRequest(
                f"arrays of the shapes {shapes} can't be walked through together: their first {covered} axes differ",
                hint="name arrays that are equally long along the axis of the blocks",
            )
    return lengths


def _halos(halo: Any, axes: Sequence[int]) -> list[int]:
    given = list(check_wholes("halo=", halo, "a number of rows, or one per axis of axis=: halo=1", least=0))
    halos = given if isinstance(halo, Iterable) else given * len(axes)
    if len(halos) != len(axes):
        raise BadRequest(f"halo={halo!r} is not a number of rows (or one per axis of axis=)", hint="halo=1")
    return halos


def _too_large(room: _Room, axes: Sequence[int], memory: int) -> BadRequest:
    what = f"a block of {shape_text(room.steps)}" if room.steps else "the array"
    return BadRequest(
        f"{what}, the smallest that whole rows and chunks allow, needs {room.bytes():,} bytes of memory (each array "
        f"{room.flight} times: read ahead, in use, being written), and memory={memory:,} was given",
        hint=" or ".join(["memory= so much", *room.other_ways(axes)]),
    )


def shape_text(shape: Sequence[int]) -> str:
    """ "10 x 200"."""
    return " x ".join(map(str, shape))


def blocks_of(grid: Grid, reads: Reads | None = None) -> Iterator[Block]:
    """All blocks of a grid, in order."""
    return (grid.block(index, reads) for index in range(grid.size))

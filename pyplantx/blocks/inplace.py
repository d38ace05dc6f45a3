"""Arrays that a loop reads and writes: in place is right as long as no block reads what another one writes.

This file may know: handles, grids, where arrays lie in memory. It may not know: threads, runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyplantx.blocks.geometry import Block, Box, Grid, shown
from pyplantx.blocks.handles import Handle, MapHandle
from pyplantx.errors import BadRequest

#: What to do instead.
HINT = "write to another array: pipe.allocate, or pipe.allocate_temp for what is not sent"

#: Steps that the question whether two arrays have elements in common may take; what takes more is taken for yes.
_STEPS = 10_000


def check_output(source: Handle, out: Handle, grid: Grid, who: str) -> None:
    """Refuse an output of which a later block is read after an earlier one was written there.

    Raises
    ------
    BadRequest
        If it is so.
    """
    if not has_common(source, out):
        return
    if any(grid.halo):
        raise BadRequest(
            f"{who}: map_blocks with halo={_told(grid.halo)} writes to an array that it reads: blocks would find rows "
            "of their neighbours that were written over already",
            hint=HINT,
        )
    if source.array is not out.array and any(_is_shifted(source, out, axis) for axis in _cut_axes(grid)):
        raise BadRequest(
            f"{who}: out= of map_blocks lies on the memory of a source, elsewhere: blocks would find rows that were "
            "written over already",
            hint=HINT,
        )


def refusal(who: str, block: Box) -> BadRequest:
    """The error of a loop that writes to an array which it reads with a halo."""
    return BadRequest(
        f"{who}: in block {shown(block)} the loop writes to an array that it reads with a halo: others would find "
        "rows of their neighbours that were written over already",
        hint=HINT,
    )


class Borders:
    """What the blocks after a block will read of it by their halos, of an array in memory, which tells of no write.

    Parameters
    ----------
    handle : MapHandle
        The only array of a loop: so what is read with a halo is this one.
    grid : Grid
        With a halo.
    """

    def __init__(self, handle: MapHandle, grid: Grid) -> None:
        self._handle, self._grid = handle, grid

    def of(self, block: Block) -> list[bytes]:
        """The rows of a block that the next ones will read."""
        return [self._handle.read(box).tobytes() for box in self._boxes(block)]

    def _boxes(self, block: Block) -> list[tuple[slice, ...]]:
        """The last rows along each axis along which blocks follow."""
        boxes = []
        for axis, (part, length, halo) in enumerate(zip(block, self._grid.lengths, self._grid.halo)):
            if halo and part.stop < length:
                last = slice(max(part.start, part.stop - halo), part.stop)
                boxes.append((*block[:axis], last, *block[axis + 1 :]))
        return boxes


def borders_of(handles: Sequence[Handle], grid: Grid) -> Borders | None:
    """For a loop with a halo over one array in memory; None for any other."""
    if not any(grid.halo) or len(handles) != 1 or not isinstance(handles[0], MapHandle):
        return None
    return Borders(handles[0], grid) if handles[0].array.flags.writeable else None


def has_common(source: Handle, out: Handle) -> bool:
    """Whether two arrays have elements in common."""
    if source.array is out.array:
        return True
    return _shares(source.array, out.array)


def _shares(one: Any, other: Any) -> bool:
    import numpy as np

    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return False
    try:
        return bool(np.shares_memory(one, other, max_work=_STEPS))  # type: ignore[arg-type]  # the stub knows two
    except np.exceptions.TooHardError:
        return True


def _is_shifted(source: Handle, out: Handle, axis: int) -> bool:
    """Whether a row of a source lies where an earlier row of the output is."""
    read, written = source.array, out.array
    if read.strides[axis] != written.strides[axis]:
        return True
    before = (slice(None),) * axis
    return _shares(written[(*before, slice(0, 1))], read[(*before, slice(1, None))])


def _cut_axes(grid: Grid) -> list[int]:
    return [axis for axis, count in enumerate(grid.counts) if count > 1]


def _told(halo: tuple[int, ...]) -> str:
    return str(halo[0] if len(halo) == 1 else halo)

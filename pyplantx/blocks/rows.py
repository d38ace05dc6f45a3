"""The rows of a growing dataset, and copies of them that outlive a kill.

Nothing is believed for being there: copies are compared with their digests before they count.

This file may know: growing datasets, the files of workspaces. It may not know: what the lines of a ledger mean, keys.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from pyplantx.blocks.handles import in_c_order
from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject
from pyplantx.fingerprint.value import Hasher
from pyplantx.specs.growth import Growth

if TYPE_CHECKING:
    from pyplantx.warehouse.resume import Workspace

#: Bytes that are copied at once.
_SLAB: Final[int] = 16 << 20

#: Bytes that copies of rows leave free: the datasets need room, too.
SPARE: Final[int] = 64 << 20

#: Number of the array, shape, first row, end of the rows, digest of their bytes.
Row = Sequence[Any]


class Rows:
    """The rows of one growing dataset, and their copies.

    Parameters
    ----------
    number : int
        Tells it apart.
    allocation : Allocated
        Its handle is the dataset.
    workspace : Workspace
        Where the copies are.
    on_crossed : callable
        See `Growth`.

    Attributes
    ----------
    growth : Growth
        What was written to since the last line.
    """

    def __init__(self, number: int, allocation: Any, workspace: Workspace, on_crossed: Callable[[], None]) -> None:
        dataset = allocation.handle
        self.number, self.allocation, self._workspace = number, allocation, workspace
        self.growth = Growth(dataset.axis_of_growth, on_crossed)
        self._shape = dataset.shape
        dataset.growth = self.growth

    @property
    def _dataset(self) -> Any:
        return self.allocation.handle

    def pending(self) -> tuple[tuple[int, ...], int, int] | None:
        """The shape, and the rows that were written to since the last line; None if all is as it was."""
        dataset = self._dataset
        if dataset is None:  # scratch space that nobody has any more
            return None
        shape, low = dataset.shape, self.growth.low
        high = min(self.growth.high, shape[self.growth.axis])
        low = min(low, high)
        return None if shape == self._shape and low == high else (shape, low, high)

    def stand(self) -> None:
        """There is a line that tells all that was written up to now."""
        pending = self.pending()
        if pending is not None:
            self._shape, low, high = pending
            self.growth.look_again(high if high > low else 0)

    def save(self) -> Row | None:
        """Copy what is pending.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        pending = self.pending()
        if pending is None:
            return None
        shape, low, high = pending
        return [self.number, list(shape), low, high, self._copied(low, high)]

    def _copied(self, low: int, high: int) -> Digest:
        hasher, at = Hasher(), low * self._width
        path = self._workspace.path(self._name)
        _ask_for_space(os.path.dirname(path), (high - low) * self._width)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            for box in self._boxes(low, high):
                data = in_c_order(self._dataset.read_block(box))
                hasher.update(data)
                at = _written(fd, memoryview(data), at)
        finally:
            os.close(fd)
        return hasher.hexdigest()

    def is_as(self, lines: Sequence[Row]) -> bool:
        """Whether what is pending is what these lines tell, one after the other."""
        pending = self.pending()
        if not lines or pending is None:
            return not lines and pending is None
        shape, low, high = pending
        boxes = [(start, end) for _, _, start, end, _ in lines if start < end]
        if list(shape) != list(lines[-1][1]) or not _cover(boxes, low, high):
            return False
        return all(self._digest(start, end) == digest for _, _, start, end, digest in lines)

    def begins_as(self, lines: Sequence[Row]) -> bool:
        """Whether what is pending may be the first part of what these lines tell.

        Raises
        ------
        DamagedObject, OSError
            If there are no copies to compare with.
        """
        pending = self.pending()
        if pending is None:
            return True
        shape, low, high = pending
        boxes = [(start, end) for _, _, start, end, _ in lines if start < end]
        lengths = [told[self.growth.axis] for _, told, *_ in lines]
        if shape[self.growth.axis] > max(lengths, default=0):
            return False
        if low < high and not (boxes and boxes[0][0] == low and high <= boxes[-1][1]):
            return False
        return low == high or self._is_as_copied(low, high)

    def _is_as_copied(self, low: int, high: int) -> bool:
        with _Opened(self._workspace.path(self._name)) as fd:
            for box in self._boxes(low, high):
                rows, data = box[self.growth.axis], memoryview(in_c_order(self._dataset.read_block(box))).cast("B")
                if _read(fd, len(data), rows.start * self._width) != data:
                    return False
        return True

    def _digest(self, low: int, high: int) -> Digest:
        hasher = Hasher()
        for box in self._boxes(low, high):
            hasher.update(in_c_order(self._dataset.read_block(box)))
        return hasher.hexdigest()

    def is_whole(self, row: Row) -> bool:
        """Whether the copy of some rows is there, as it was written."""
        _, shape, low, high, digest = row
        if self._dataset is None or len(shape) != len(self._shape) or high > shape[self.growth.axis]:
            return False
        width = self._width_in(shape)
        try:
            with _Opened(self._workspace.path(self._name)) as fd:
                hasher = Hasher()
                for start in range(low, high, self._step(width)):
                    end = min(start + self._step(width), high)
                    hasher.update(_read(fd, (end - start) * width, start * width))
        except (OSError, DamagedObject):
            return bool(low == high)
        return bool(hasher.hexdigest() == digest)

    def bring(self, row: Row) -> None:
        """Have the dataset as it was at a line; `is_whole` holds.

        Raises
        ------
        DamagedObject, OSError, PyplantxError
            If that can't be; then the dataset is neither as it was nor as it shall be.
        """
        import numpy as np

        _, shape, low, high, digest = row
        dataset, hasher = self._dataset, Hasher()
        dataset.growth = None
        try:
            if dataset.shape != tuple(shape):
                dataset.resize(tuple(shape))
            if low < high:
                with _Opened(self._workspace.path(self._name)) as fd:
                    for box in self._boxes(low, high):
                        rows = box[self.growth.axis]
                        data = _read(fd, (rows.stop - rows.start) * self._width, rows.start * self._width)
                        hasher.update(data)
                        lengths = [*shape]
                        lengths[self.growth.axis] = rows.stop - rows.start
                        dataset[box] = np.frombuffer(data, dataset.dtype).reshape(lengths)
                if hasher.hexdigest() != digest:
                    raise DamagedObject("rows that an interrupted run has kept have changed while they were read")
        finally:
            dataset.growth = self.growth
        self._shape = dataset.shape
        self.growth.look_again(high if high > low else 0)

    def remove(self) -> None:
        """Give the room back."""
        self._workspace.unlink(self._name)

    def end(self) -> None:
        """Nobody asks for it any more."""
        self.growth.let_go()
        dataset = self._dataset
        if dataset is not None and dataset.growth is self.growth:
            dataset.growth = None

    @property
    def _name(self) -> str:
        return f"rows-{self.number}"

    @property
    def _width(self) -> int:
        """Bytes of a row."""
        return self._width_in(self._dataset.shape)

    def _width_in(self, shape: Sequence[int]) -> int:
        others = (length for place, length in enumerate(shape) if place != self.growth.axis)
        return math.prod(others) * int(self._dataset.dtype.itemsize)

    @staticmethod
    def _step(width: int) -> int:
        return max(1, _SLAB // max(1, width))

    def _boxes(self, low: int, high: int) -> Iterator[tuple[slice, ...]]:
        step = self._step(self._width)
        for start in range(low, high, step):
            rows = slice(start, min(start + step, high))
            yield (*[slice(None)] * self.growth.axis, rows)


def _cover(boxes: Sequence[tuple[int, int]], low: int, high: int) -> bool:
    """Whether these are exactly the rows from `low` to `high`, piece by piece."""
    ends = [low, *[end for _, end in boxes]]
    return ends[-1] == high and all(start == end for (start, _), end in zip(boxes, ends))


# -- files ----------------------------------------------------------------------------------------


def _ask_for_space(folder: str, nbytes: int) -> None:
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < nbytes + SPARE:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for copies of the rows")


def _written(fd: int, data: memoryview, at: int) -> int:
    """Write all of it; where it ends."""
    while len(data):
        count = os.pwrite(fd, data, at)
        data, at = data[count:], at + count
    return at


class _Opened:
    """An ordinary file, open for reading: who may write to the store may have put anything in its place."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def __enter__(self) -> int:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise DamagedObject("something else is in the place of the rows of an interrupted run")
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _read(fd: int, nbytes: int, at: int) -> bytes:
    pieces, left = [], nbytes
    while left:
        piece = os.pread(fd, left, at)
        if not piece:
            raise DamagedObject("the rows of an interrupted run are incomplete")
        pieces.append(piece)
        left, at = left - len(piece), at + len(piece)
    return b"".join(pieces)

"""An array in C order at an offset of a file, read and written by position, by any thread, without copying the whole.

This file may know: descriptors, NumPy, selections, the map of blocks. It may not know: HDF5, headers of any kind.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pyplantx.basics.disk import free_bytes
from pyplantx.core.trace import Digest
from pyplantx.errors import WarehouseError, WarehouseFull
from pyplantx.fingerprint.arrays import block_size, c_order_buffers
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.specs import writeback
from pyplantx.specs.buffers import map_descriptor
from pyplantx.specs.dirty import BlockMap, Write
from pyplantx.specs.parallel import WORTHWHILE, for_each_block
from pyplantx.specs.selections import PIECE, Region, Tile, tiles

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pyplantx.specs.pools import Pool

Array = np.ndarray[Any, np.dtype[Any]]
#: Gives an array of another dtype the dtype of the file.
Cast = Callable[[Array], Array]

_AT_ONCE = 8 << 20  #: bytes per system call, so that signals get through
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Readable(Protocol):
    """What an array is read from: a `RawFile`, or a `pyplantx.specs.base.CheckedFile`."""

    size: int

    def read_into(self, buffer: Any, start: int) -> None: ...

    def close(self) -> None: ...


class RawFile:
    """A file to read and write by position. Its descriptor is closed when nobody has it any more.

    Parameters
    ----------
    path : str
        An existing file.
    writable : bool
        Whether it is written to.
    new : bool
        Whether it is made, and must not exist.
    """

    def __init__(self, path: str, writable: bool = False, *, new: bool = False) -> None:
        self._fd = -1
        self._over = False
        self._early = writable and writeback.is_wanted(path)
        made = os.O_CREAT | os.O_EXCL if new else 0
        self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | made, 0o600)
        self.path = path
        self.size = os.fstat(self._fd).st_size

    def read_into(self, buffer: Any, start: int) -> None:
        """Fill the buffer from position `start`.

        Raises
        ------
        WarehouseError
            If it can't be read, or ends before.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")
        while view.nbytes:
            try:
                count = os.preadv(self._fd, [view[:_AT_ONCE]], start)
            except OSError as error:
                raise WarehouseError(f"{self.path!r} can't be read: {error.strerror}") from error
            if not count:
                raise WarehouseError(f"{self.path!r} ends before its array does: somebody has truncated it")
            view, start = view[count:], start + count

    def write_from(self, buffer: Any, start: int) -> None:
        """Write the buffer at position `start`.

        Raises
        ------
        WarehouseFull
            If there is no space left.
        WarehouseError
            If it can't be written for another reason.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")
        while view.nbytes:
            try:
                count = os.pwrite(self._fd, view[:_AT_ONCE], start)
            except OSError as error:
                raise self._failed(error, view.nbytes) from error
            if self._early:
                writeback.begin(self._fd, start, count)
            view, start = view[count:], start + count

    def truncate(self, size: int) -> None:
        """Make the file so long.

        Raises
        ------
        WarehouseFull
            If there is no space left.
        WarehouseError
            If that can't be done for another reason.
        """
        self._check_open()
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failed(error, size) from error

    def sync(self) -> None:
        """Wait until the disk has everything that was written.

        Raises
        ------
        WarehouseError
            If it has not kept it: what is read from now on may be something else.
        """
        self._check_open()
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._failed(error, 0) from error

    def _failed(self, error: OSError, nbytes: int) -> WarehouseError:
        if error.errno in _NO_SPACE:
            return no_space(os.path.dirname(self.path), nbytes, error.strerror or "")
        return WarehouseError(f"{self.path!r} can't be written: {error.strerror}")

    def make_read_only(self) -> None:
        """Give up the right to write; whoever reads meanwhile goes on undisturbed."""
        fd = os.open(f"/proc/self/fd/{self._fd}" if os.path.isdir("/proc/self/fd") else self.path, os.O_RDONLY)
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)

    def reopen(self, path: str) -> None:
        """Go on with another file of the same size, for reading and writing."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self.path = path

    def map(self, writable: bool) -> Any:
        """A private memory map of the whole file: copy-on-write if `writable` and memory is not limited."""
        self._check_open()
        return map_descriptor(self._fd, writable, self.path)

    def close(self) -> None:
        """Let go of the file.

        The descriptor's number stays taken as long as somebody has this object: a thread that is still writing must not
        meet another file under it.
        """
        self._over = True
        with suppress(OSError):  # too many open files: then it is let go of with the object
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(nothing, self._fd, inheritable=False)
            os.close(nothing)

    def _check_open(self) -> None:
        if self._over:
            raise gone(self.path)

    def __del__(self, close: Callable[[int], None] = os.close, without: Any = suppress) -> None:
        if self._fd >= 0:  # and what the module has imported may be gone, at the end of the interpreter
            with without(OSError):  # it is closed all the same; whoever needs the data durable has synced them
                close(self._fd)


def gone(path: str) -> WarehouseError:
    """The error for an array that was never sent, and is looked at after the end of its reactor."""
    return WarehouseError(
        f"the array in {path!r} is gone with the reactor that allocated it", hint="pipe.send what is to stay"
    )


def no_space(folder: str, nbytes: int, why: str = "", *, reserve: int = 0) -> WarehouseFull:
    """The error for an array that does not fit on the disk, with figures.

    Parameters
    ----------
    folder : str
        Where it is written.
    nbytes : int
        Bytes that are to be written.
    why : str
        What the system said.
    reserve : int
        Bytes that must stay free besides.
    """
    kept = f", {reserve:,} of them are kept free for what HDF5 writes besides" if reserve else ""
    return WarehouseFull(
        f"no space to write {nbytes:,} bytes of an array: {free_bytes(folder):,} bytes are free"
        f"{kept}{why and f' ({why})'}",
        hint="free some space, or put the plant's directory on a larger disk",
    )


class RawArray:
    """An array in C order at an offset of a file. Thread-safe.

    Parameters
    ----------
    file : Readable
        Where it lies; a `RawFile` if it is written to.
    shape : tuple of int
        Lengths of the axes.
    dtype : numpy.dtype
        Element type; of fixed width, without objects.
    offset : int
        Position of the first element, in bytes.
    """

    def __init__(self, file: Readable, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
        self.file = file
        self.shape = shape
        self.dtype = dtype
        self.offset = offset
        self.blocks = BlockMap(math.prod(shape) * dtype.itemsize, block_size(dtype.itemsize))

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.blocks.nbytes

    # -- reading

    def read(self, region: Region) -> Array:
        """The selected elements, in a new array of the region's shape."""
        values = np.empty(region.counts, self.dtype)
        self._fill(region, values)
        return values.reshape(region.shape)

    def read_into(self, region: Region, target: Array) -> None:
        """Read the selected elements into a C-contiguous array of the same dtype and as many elements."""
        self._fill(region, target.reshape(region.counts))

    def _fill(self, region: Region, values: Array) -> None:
        for tile in tiles(region, self.dtype.itemsize):
            part = values[(*tile.place, ...)]
            if tile.counts:
                part[...] = self._with_gaps(tile)[1]
            else:
                self.file.read_into(_bytes(part), self._position(tile.start))

    def _with_gaps(self, tile: Tile) -> tuple[Array, Array]:
        """All elements of the stretch, and a view of the selected ones among them."""
        stretch = np.empty(tile.span, self.dtype)
        self.file.read_into(_bytes(stretch), self._position(tile.start))
        strides = [pitch * self.dtype.itemsize for pitch in tile.pitches]
        return stretch, np.ndarray(tile.counts, self.dtype, stretch, 0, strides)

    def _position(self, element: int) -> int:
        return self.offset + element * self.dtype.itemsize

    # -- writing

    def write(self, region: Region, values: Array, cast: Cast) -> None:
        """Write to the selected elements.

        Parameters
        ----------
        region : Region
            Which.
        values : ndarray
            Of the region's `counts`; any layout, broadcast ones too.
        cast : callable
            Converts contiguous pieces of another dtype.
        """
        for tile in tiles(region, self.dtype.itemsize):
            part = values[(*tile.place, ...)]
            if tile.counts:
                self._alter(tile, part if part.dtype == self.dtype else cast(np.ascontiguousarray(part)))
                continue
            start = tile.start * self.dtype.itemsize
            for buffer in self._contiguous(part, cast):
                self._put(start, buffer)
                start += buffer.nbytes

    def _contiguous(self, part: Array, cast: Cast) -> Iterator[memoryview]:
        """The elements in C order as they will lie in the file; converted ones in pieces."""
        for buffer in c_order_buffers(part):
            if part.dtype == self.dtype:
                yield memoryview(buffer)
                continue
            step = max(1, PIECE // part.dtype.itemsize) * part.dtype.itemsize
            for start in range(0, buffer.nbytes, step):
                yield _bytes(cast(buffer[start : start + step].view(part.dtype)))

    def _alter(self, tile: Tile, values: Array) -> None:
        start, nbytes = tile.start * self.dtype.itemsize, tile.span * self.dtype.itemsize
        with self.blocks.altering(start, start + nbytes):
            stretch, selected = self._with_gaps(tile)
            selected[...] = values
            self._writable().write_from(_bytes(stretch), self.offset + start)

    def _put(self, start: int, data: memoryview) -> None:
        """Write bytes at a position of the array, and hash them while they are in the processor's cache."""
        with self.blocks.writing(start, start + data.nbytes) as write:
            left = deque(enumerate(write.pieces()))
            beside = _begin(lambda: _hash(left, write, data)) if data.nbytes >= WORTHWHILE else None
            self._writable().write_from(data, self.offset + start)
            _hash(left, write, data)
            if beside is not None:
                _end(beside)

    def _writable(self) -> RawFile:
        assert isinstance(self.file, RawFile)
        return self.file

    def digests(self) -> list[Digest]:
        """Take no more writes. The digests of all logical blocks; those that are not known are read, by two threads.

        Raises
        ------
        BadRequest
            If another thread is writing.
        """
        self.blocks.freeze()
        missing = self.blocks.to_read()

        def read(place: int) -> None:
            start, stop = self.blocks.span(missing[place])
            buffer = bytearray(stop - start)
            self.file.read_into(buffer, self.offset + start)
            self.blocks.know(missing[place], hash_bytes(buffer))

        for_each_block(len(missing), read)
        return self.blocks.digests()


def _hash(left: deque[tuple[int, tuple[int, int]]], write: Write, data: memoryview) -> None:
    """Hash the pieces that nobody has begun with; two threads may do so at once."""
    while left:
        with suppress(IndexError):  # somebody else has taken the last one
            place, (low, high) = left.popleft()
            write.hash(place, data[low:high])


def _begin(work: Callable[[], None]) -> Future[None] | None:
    """Have another thread do something that this one will do if the other does not come to it.

    Only hashing is done so: the kernel lets one thread at a time write to a file.
    """
    with suppress(RuntimeError):  # no more threads can be had, or the interpreter is about to end
        return _helper().submit(work)
    return None


def _end(beside: Future[None]) -> None:
    """Have what was begun be over."""
    from pyplantx.specs.pools import result_of, was_cancelled

    if not was_cancelled(beside):
        result_of(beside)


@lru_cache(maxsize=1)
def _helper() -> Pool:
    from pyplantx.specs.pools import Pool

    return Pool(1, "pyplantx hashing")


os.register_at_fork(after_in_child=_helper.cache_clear)  # threads stay behind


def _bytes(array: Array) -> memoryview:
    """The memory of a C-contiguous array."""
    flat: Any = array.reshape(-1).view("u1")
    return memoryview(flat)

"""The handle of an HDF array: h5py's interface, read-only once sent or received, hashing what passes in order.

This file knows a dataset only by its interface; h5py is imported in hdf.py. A bare h5py dataset can't be made to refuse
writes, and can't be watched; this one can.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, WarehouseFull

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.fingerprint.value import BlockHasher

#: How to open a dataset again: a function and its arguments.
Again = tuple[Callable[..., Any], tuple[Any, ...]]

_SPARE = 16 << 20  #: bytes that stay free on the disk for HDF5's own structures


class HdfDataset:
    """A dataset of the plant with h5py's interface: shape, dtype, slicing, ``len``, iteration, ``read_direct``.

    One that was allocated takes writes until it is sent; one that was received takes none. Not made by
    users: see `HdfArraySpec.allocate`.

    Parameters
    ----------
    dataset : h5py.Dataset
        What it wraps.
    writer : Writer, optional
        Its writing side; without one it is read-only.
    again : (callable, tuple), optional
        How another process opens it again.
    """

    def __init__(self, dataset: Any, *, writer: Writer | None = None, again: Again | None = None) -> None:
        self._dataset = dataset
        self._writer = writer
        self._again = again

    # -- facts

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(self._dataset.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        dtype: np.dtype[Any] = self._dataset.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements, uncompressed."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of a chunk; None if the data lie in one piece."""
        chunks: tuple[int, ...] | None = self._dataset.chunks
        return chunks

    @property
    def maxshape(self) -> tuple[int | None, ...]:
        """How far `resize` may go; None is without limit."""
        return tuple(self._dataset.maxshape)

    @property
    def compression(self) -> str | None:
        """Name of the compression."""
        name: str | None = self._dataset.compression
        return name

    @property
    def fillvalue(self) -> Any:
        """What elements are that were never written."""
        return self._dataset.fillvalue

    def __len__(self) -> int:
        return len(self._dataset)

    def __repr__(self) -> str:
        state = "writable" if self._writer else "read-only"
        return f"<HdfDataset {self.dtype} {self.shape}, {state}>"

    # -- reading

    def __getitem__(self, selection: Any) -> Any:
        return self._dataset[selection]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ValueError("a dataset on disk can't become an array without a copy")
        return self._dataset.__array__(dtype)

    def read_direct(self, dest: Any, source_sel: Any = None, dest_sel: Any = None) -> None:
        """Read into an existing array, as h5py does."""
        self._dataset.read_direct(dest, source_sel, dest_sel)

    def astype(self, dtype: Any) -> Any:
        """A view whose slices come as `dtype`, as h5py does."""
        return self._dataset.astype(dtype)

    def iter_chunks(self, sel: Any = None) -> Iterator[tuple[slice, ...]]:
        """The chunks as slices, as h5py does."""
        chunks: Iterator[tuple[slice, ...]] = self._dataset.iter_chunks(sel)
        return chunks

    # -- writing

    def __setitem__(self, selection: Any, value: Any) -> None:
        self._writing().write(selection, value)

    def write_direct(self, source: Any, source_sel: Any = None, dest_sel: Any = None) -> None:
        """Write from an existing array, as h5py does."""
        part = source if source_sel is None else source[source_sel]
        self._writing().write(() if dest_sel is None else dest_sel, part)

    def resize(self, size: Any, axis: int | None = None) -> None:
        """Change the shape within `maxshape`, as h5py does."""
        self._writing().resize(size, axis)

    def _writing(self) -> Writer:
        if self._writer is None:
            raise BadRequest(
                "this dataset is read-only (it has been sent, or was received) and can't be written to",
                hint="allocate another one, write to it before pipe.send, or copy a part: x = dataset[0:1000]",
            )
        return self._writer

    # -- elsewhere

    def __reduce__(self) -> Any:
        if self._again is None:
            raise BadRequest(
                "an allocated dataset can't be pickled", hint="use it in the reactor's own process, or receive it first"
            )
        return self._again

    # -- for the spec

    @property
    def inner(self) -> Any:
        """The h5py dataset behind it."""
        return self._dataset

    def settle(self, dataset: Any) -> None:
        """Take no more writes; read from `dataset` from now on."""
        self._writer = None
        self._dataset = dataset


class Writer:
    """The writing side of a dataset: asks for space first, and hashes rows that are written in order.

    Rows ``0 .. _next`` have been hashed as they passed. Anything but the next whole rows ends that (`_hasher`
    is None), and the seal reads the data back.

    Parameters
    ----------
    dataset : h5py.Dataset
        What is written to.
    path : str
        Its file.
    cache : int
        Bytes that HDF5 may hold back before it writes them.
    """

    def __init__(self, dataset: Any, path: str, cache: int) -> None:
        from pyplantx.fingerprint.value import BlockHasher, block_size

        self._dataset = dataset
        self._folder = os.path.dirname(path)
        self._reserve = _SPARE + cache
        # HDF5 does not keep padding, so the bytes that pass are not always those that are read back.
        padded = dataset.dtype.names is not None or dataset.dtype.char in "gG"
        self._hasher: BlockHasher | None = None if padded else BlockHasher(block_size(dataset.dtype.itemsize))
        self._next = 0

    def write(self, selection: Any, value: Any) -> None:
        nbytes = _selected(selection, self._dataset.shape) * self._dataset.dtype.itemsize
        self._ask_for_space(nbytes)
        rows = self._follows(selection, value)
        # Without a hasher until all is done: whatever interrupts this, the seal then reads the data back.
        hasher, self._hasher = self._hasher, None
        try:
            self._dataset[selection] = value
        except OSError as error:
            raise _write_failed(self._folder, nbytes, error) from error
        if rows is not None and hasher is not None:
            _feed(hasher, value)
            self._next, self._hasher = rows, hasher

    def resize(self, size: Any, axis: int | None) -> None:
        before = self._dataset.shape
        try:
            self._dataset.resize(size, axis)
        except TypeError as error:
            raise BadRequest(f"the dataset can't be resized: {error}", hint="allocate it with maxshape=") from error
        if self._dataset.shape[0] < self._next or self._dataset.shape[1:] != before[1:]:
            self._hasher = None

    def digests(self) -> list[Digest] | None:
        """The digests of all blocks if every row was hashed as it passed, else None."""
        shape = self._dataset.shape
        whole = self._hasher is not None and shape and self._next == shape[0]
        return self._hasher.digests() if whole and self._hasher else None

    def _follows(self, selection: Any, value: Any) -> int | None:
        """Where the next row is after this write, if it writes whole rows exactly after the last one."""
        dataset = self._dataset
        if self._hasher is None or not dataset.shape or not _has_dtype(value, dataset.dtype):
            return None
        first = selection[0] if isinstance(selection, tuple) and selection else selection
        rest = selection[1:] if isinstance(selection, tuple) else ()
        rows = _row_range(first, dataset.shape[0])
        if rows is None or rows[0] != self._next or not all(map(_is_whole, rest)):
            return None
        shape = (rows[1] - rows[0], *dataset.shape[1:])
        same = value.shape == shape or (type(first) is int and value.shape == shape[1:])
        return rows[1] if same else None

    def _ask_for_space(self, nbytes: int) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if free < nbytes + self._reserve:
            raise _full(nbytes, free)


def _has_dtype(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a value is written as the very bytes that it has: NumPy's own, and of this dtype."""
    import numpy as np

    # The class first: a dtype equals whatever NumPy can make it from, None and float among them.
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype == dtype


def _feed(hasher: BlockHasher, value: Any) -> None:
    from pyplantx.fingerprint.arrays import c_order_buffers

    for buffer in c_order_buffers(value):
        hasher.update(buffer)


def _is_whole(part: Any) -> bool:
    return part is Ellipsis or (type(part) is slice and part == slice(None))


def _selected(selection: Any, shape: tuple[int, ...]) -> int:
    """How many elements a selection has at most."""
    parts = selection if type(selection) is tuple else (selection,)
    if any(part is Ellipsis for part in parts):
        return math.prod(shape)
    named = math.prod(_selected_along(part, length) for part, length in zip(parts, shape))
    return named * math.prod(shape[len(parts) :])


def _selected_along(part: Any, length: int) -> int:
    if type(part) is slice:
        return len(range(*part.indices(length)))
    return 1 if isinstance(part, int) else length


def _row_range(first: Any, length: int) -> tuple[int, int] | None:
    """(start, end) of the rows that the first index selects; None if they are not one range."""
    if first is Ellipsis or (type(first) is tuple and not first):
        return 0, length
    if type(first) is int and 0 <= first < length:
        return first, first + 1
    if type(first) is slice and first.step in (None, 1):
        start, end, _ = first.indices(length)
        return start, max(start, end)
    return None


def _full(nbytes: int, free: int) -> WarehouseFull:
    return WarehouseFull(
        f"no space to write {nbytes:,} bytes to an HDF array: {free:,} bytes are free, some of them in reserve",
        hint="free some space, or put the plant's directory on a larger disk",
    )


def _write_failed(folder: str, nbytes: int, error: OSError) -> Exception:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT) or f"errno = {errno.ENOSPC}" in str(error)
    disk = os.statvfs(folder)
    return _full(nbytes, disk.f_bavail * disk.f_frsize) if full else error

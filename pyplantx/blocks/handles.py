"""One way to look at what a loop walks through: datasets of the plant, memory maps, and any other array.

A dataset (`BlockArray`: it has ``read_block`` and ``write_block``) asks the loop for its blocks. An ``ndarray`` does
not: ``src[b]`` is an ordinary view, ``dst[b] = value`` writes into memory at once; for them the threads only see to it
that the pages are there.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.loaded import is_of
from pyplantx.blocks.geometry import Extent, shape_of
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest
from pyplantx.fingerprint.arrays import opaque
from pyplantx.fingerprint.value import block_size, hash_bytes
from pyplantx.specs.buffers import COLD, POPULATE_READ, POPULATE_WRITE, WILL_NEED, madvise
from pyplantx.specs.masks import is_masked_array
from pyplantx.specs.sparserows import is_sparse, must_be, rows

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.blocks.geometry import Box


class BlockArray(Protocol):
    """What a dataset offers to a loop."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    untouched: bool  #: allocated, and never written to
    last_write: object  #: another one after each write; None: there was none
    watchers: tuple[Any, ...]  #: told of each access that does not go by a block; True: it writes
    data_path: str | None  #: of the staged file that holds the elements at fixed places; None if there is no such file

    def read_block(self, selection: Box) -> np.ndarray[Any, Any]: ...
    def write_block(self, selection: Box, array: np.ndarray[Any, Any]) -> None: ...
    def adopt(self, path: str) -> None: ...


class Handle:
    """An array of a loop.

    Parameters
    ----------
    array : object
        With ``shape``, ``dtype`` and slicing.
    allocation : Allocated, optional
        What the array is the handle of, if this run has allocated it and not sent it yet.

    Attributes
    ----------
    asks : bool
        Whether ``array[block]`` asks the loop.
    tells : bool
        Whether it tells its loops of each access that does not go by a block. Nothing waits for one that does not.
    """

    asks = tells = False

    def __init__(self, array: Any, allocation: Any = None) -> None:
        self.array, self.allocation = array, allocation
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = array.dtype

    @property
    def extent(self) -> Extent:
        """What the geometry has to know."""
        run = block_size(self.dtype.itemsize) if self.allocation is not None else 0
        return Extent(self.shape, self.dtype.itemsize, self._chunks(), run)

    def _chunks(self) -> tuple[int, ...] | None:
        chunks = getattr(self.array, "chunks", None)
        plain = isinstance(chunks, tuple) and all(isinstance(length, int) for length in chunks)
        return chunks if plain else None

    def region(self, box: Box) -> tuple[int, ...]:
        """Shape of the part that a box selects."""
        return (*shape_of(box), *self.shape[len(box) :])

    def nbytes(self, box: Box) -> int:
        """Bytes of that part."""
        return math.prod(self.region(box)) * int(self.dtype.itemsize)

    def read(self, box: Box) -> Any:
        """The elements of a box."""
        import numpy as np

        return np.asarray(self.array[tuple(box)])

    def part(self, box: Box) -> Any:
        """The elements of a box, for a function that must not write to them."""
        part = self.read(box).view()
        part.flags.writeable = False
        return part

    def write(self, box: Box, value: Any) -> None:
        """Write the elements of a box."""
        self.array[tuple(box)] = value

    def made_from(self, dtype: Any) -> Any:
        """What elements of a dtype are converted to before they are written; None: the array converts them itself."""
        return self.dtype

    def digest(self, box: Box) -> Digest:
        """Digest of the elements of a box, as they can be read now."""
        return digest_of(self.read(box))

    def expect(self, box: Box) -> None:
        """A box is going to be used soon."""

    def let_go(self, box: Box) -> None:
        """A box is not going to be used any more."""

    @property
    def here(self) -> Handle:
        """The array as this process reads it."""
        return self

    def arrays(self) -> list[Any]:
        """Plain arrays in memory that say all that is in it; none if that can't be told."""
        return []

    # -- for outputs that are to survive a kill

    @property
    def untouched(self) -> bool:
        """Whether it was allocated by this run and holds nothing but zeros yet."""
        return False

    @property
    def data_path(self) -> str | None:
        """The staged file in which each element has its place; None if there is none."""
        return None

    def adopt(self, path: str) -> None:
        """Take over a file with the same geometry in place of one's own."""
        raise BadRequest(f"an array of the type {type(self.array).__name__} can't take over a file")


class DatasetHandle(Handle):
    """A dataset of the plant."""

    asks = True

    def __init__(self, array: Any, allocation: Any = None) -> None:
        super().__init__(array, allocation)
        self.tells = hasattr(array, "watchers")

    def read(self, box: Box) -> Any:
        return self.array.read_block(tuple(box))

    def write(self, box: Box, value: Any) -> None:
        self.array.write_block(tuple(box), value)

    def made_from(self, dtype: Any) -> Any:
        import numpy as np

        return None if self.dtype.kind in "iu" and not np.can_cast(dtype, self.dtype) else self.dtype  # HDF5 clips them

    @property
    def untouched(self) -> bool:
        return self.allocation is not None and bool(self.array.untouched)

    @property
    def data_path(self) -> str | None:
        path: str | None = self.array.data_path
        return path

    def adopt(self, path: str) -> None:
        self.array.adopt(path)


class MapHandle(Handle):
    """An ``ndarray``: a received or an allocated memory map, or plain memory."""

    def part(self, box: Box) -> Any:
        """A view of the array's own class, such as a masked array, that nothing can write to."""
        import numpy as np

        part = self.array[(*box, ...)]
        if self.is_plain:
            part = part.view(np.ndarray)
        part.flags.writeable = False
        mask = np.ma.getmask(part) if is_masked_array(part) else np.ma.nomask
        if mask is not np.ma.nomask:
            mask.flags.writeable = False  # masking an element writes to nothing else
        return part

    @property
    def is_plain(self) -> bool:
        """Whether its class says no more than that it is an array; that of a memory map says where it lies."""
        import numpy as np

        return type(self.array) in (np.ndarray, np.memmap)

    def write(self, box: Box, value: Any) -> None:
        """With what is between the fields of structures: digests of blocks tell of it."""
        if self.dtype.names is not None and not self.dtype.hasobject and value.dtype == self.dtype:
            opaque(self.array)[tuple(box)] = opaque(value)
        else:
            super().write(box, value)

    def expect(self, box: Box) -> None:
        """Have the pages of a box brought in, here and not where they are computed with."""
        allocated = self.allocation is not None
        if not _advise(self.array[tuple(box)], POPULATE_WRITE if allocated else POPULATE_READ):
            _advise(self.array[tuple(box)], WILL_NEED)

    def let_go(self, box: Box) -> None:
        """A long scan gives its pages back first."""
        _advise(self.array[tuple(box)], COLD)

    def arrays(self) -> list[Any]:
        return [self.array] if self.is_plain else []

    @property
    def untouched(self) -> bool:
        path = self.data_path
        return path is not None and _is_blank(path, self.array)

    @property
    def data_path(self) -> str | None:
        path: str | None = getattr(self._inner, "data_path", None)
        return path

    def adopt(self, path: str) -> None:
        assert self._inner is not None
        self._inner.adopt(path)

    @property
    def _inner(self) -> Any:
        return getattr(self.allocation, "inner", None)


class RowsHandle(Handle):
    """A sparse matrix in csr format: its blocks are rows of it, on the memory of the whole."""

    @property
    def extent(self) -> Extent:
        """One axis, of rows; each as large as they are on the average."""
        entry = self.dtype.itemsize + self.array.indices.itemsize
        each = self.array.nnz * entry // max(1, self.shape[0]) + self.array.indptr.itemsize
        return Extent(self.shape[:1], each, None, 0)

    def nbytes(self, box: Box) -> int:
        return shape_of(box)[0] * self.extent.itemsize

    def read(self, box: Box) -> Any:
        return rows(self.array, box[0].start, box[0].stop)

    def part(self, box: Box) -> Any:
        return self.read(box)

    def arrays(self) -> list[Any]:
        return [self.array.data, self.array.indices, self.array.indptr]

    def write(self, box: Box, value: Any) -> None:
        raise BadRequest("a sparse matrix can't be filled in blocks", hint="build it whole and pipe.send it")


def handle_of(array: Any, allocation: Any = None) -> Handle:
    """The handle for an array, by what it can do.

    Raises
    ------
    BadRequest
        If it is no array at all.
    """
    if hasattr(array, "read_block"):
        return DatasetHandle(array, allocation)
    if is_of(array, "numpy", "ndarray"):
        return MapHandle(array, allocation)
    if is_sparse(array):
        must_be(array, "csr", "a sparse matrix is walked through in rows, which csr has")
        return RowsHandle(array, allocation)
    if not hasattr(array, "shape") or not hasattr(array, "dtype") or not hasattr(array, "__getitem__"):
        raise BadRequest(
            f"a {type(array).__name__} can't be walked through in blocks",
            hint="pass arrays or datasets: what pipe.receive gave, or pipe.allocate returned",
        )
    return Handle(array, allocation)


def weakly(array: Any) -> Callable[[], Any]:
    """What gives an array as long as somebody else has it; always, if that can't be told."""
    try:
        return weakref.ref(array)
    except TypeError:
        return lambda: array


def digest_of(array: Any) -> Digest:
    """Digest of the elements of an array in C order."""
    return hash_bytes(in_c_order(array))


def in_c_order(array: Any) -> Any:
    """The bytes of the elements of an array in C order."""
    import numpy as np

    return np.ascontiguousarray(opaque(array)).reshape(-1).view("u1") if array.nbytes else np.empty(0, "u1")


# -- pages ----------------------------------------------------------------------------------------


def _advise(part: Any, advice: int) -> bool:
    """Tell the system about the memory of an array; False if it does not understand.

    What it says about the pages themselves (an I/O error, no memory) does not matter here: who touches them is told.
    """
    if not part.nbytes or not part.flags.c_contiguous or sys.platform != "linux":
        return True
    start = part.__array_interface__["data"][0]
    first = start & -mmap.PAGESIZE
    return bool(madvise()(first, start + part.nbytes - first, advice) == 0)


def _is_blank(path: str, array: Any) -> bool:
    """Whether a file of an array has no data yet, or only zeros; holes are not read."""
    import numpy as np

    head = os.path.getsize(path) - array.nbytes
    whole = np.memmap(path, np.uint8, "r") if array.nbytes else np.empty(0, np.uint8)
    with open(path, "rb") as file:
        at = head
        while (start := _next_data(file.fileno(), at)) is not None:
            at = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), start + block_size(1))
            if whole[start:at].any():
                return False
    return True


def _next_data(fd: int, at: int) -> int | None:
    """Where the next data of a file begin, from `at` on; None if only a hole follows."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # ENXIO: there is none
        return None

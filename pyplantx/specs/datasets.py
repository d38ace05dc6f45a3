"""The handle of an HDF array: h5py's interface, read-only once sent or received.

This file knows a dataset only by its backend: unchunked.py or chunked.py. A bare h5py dataset can't be made to refuse
writes, can't be watched, and is no faster than HDF5's one lock allows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest
from pyplantx.fingerprint.arrays import contiguous
from pyplantx.specs.base import Layout
from pyplantx.specs.growth import Growth, axis_of_growth
from pyplantx.specs.masks import check_written
from pyplantx.specs.selections import as_tuple, parse, slabs

if TYPE_CHECKING:
    import numpy as np

_SLAB = 16 << 20  #: bytes that are copied at once from one dataset to another
_NOWHERE = object()  #: selects nothing; None selects something in NumPy

#: How to open a dataset again: a function and its arguments.
Again = tuple[Callable[..., Any], tuple[Any, ...]]


class Facts(NamedTuple):
    """What a dataset is, whatever is in it; the names are h5py's.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the axes.
    dtype : numpy.dtype
        Element type.
    chunks : tuple of int or None
        Shape of a chunk; None if the data lie in one piece.
    maxshape : tuple of int or None
        How far `resize` may go; None is without limit.
    compression : str or None
        Name of the compression.
    fillvalue : scalar
        What elements are that were never written.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    maxshape: tuple[int | None, ...]
    compression: str | None
    fillvalue: Any


class Finished(NamedTuple):
    """What is known of a dataset when it takes no more writes.

    Attributes
    ----------
    digests : list of Digest
        Of its logical blocks, in order.
    layout : Layout or None
        Of its file, if the blocks lie in it as they are.
    """

    digests: list[Digest]
    layout: Layout | None = None


class Backend(Protocol):
    """Where the elements of one dataset lie, and how they get there and back. Thread-safe."""

    @property
    def facts(self) -> Facts:
        """Shape, dtype and so on, as they are now."""

    @property
    def writable(self) -> bool:
        """Whether it takes writes: it is being made."""

    @property
    def untouched(self) -> bool:
        """Whether it is writable and nobody has written to it."""

    @property
    def path(self) -> str | None:
        """Path of the staged file, if another one of the same geometry can take its place; see `adopt`."""

    def read(self, selection: Any) -> Any:
        """The selected elements, as h5py gives them."""

    def read_direct(self, dest: Any, source_sel: Any, dest_sel: Any) -> None:
        """Read into an array."""

    def write(self, selection: Any, value: Any) -> None:
        """Write to the selected elements."""

    def cast(self, array: Any, dtype: Any) -> Any:
        """The array with another dtype, converted as HDF5 converts."""

    def resize(self, size: Any, axis: int | None) -> None:
        """Change the shape."""

    def iter_chunks(self, selection: Any) -> Iterator[tuple[slice, ...]]:
        """The chunks that a selection touches."""

    def adopt(self, path: str) -> None:
        """Take over a file of the same geometry in place of one's own; every block of it is read at the end."""

    def mapped(self, writable: bool) -> Any:
        """The whole as an array on a private memory map."""

    def finish(self) -> Finished:
        """Take no more writes, close the file for good, and read on from it."""

    def close(self) -> None:
        """Let go of everything."""


class ArrayFacts:
    """What follows from shape and dtype; the same for every handle of an array on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        raise NotImplementedError

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


class HdfDataset(ArrayFacts):
    """A dataset of the plant with h5py's interface: shape, dtype, slicing, ``len``, iteration, ``read_direct``.

    One that was allocated takes writes until it is sent; one that was received takes none. Several threads may read and
    write at once. It stays readable as long as it is kept, whatever becomes of newer versions. Not made by users: see
    `HdfArraySpec.allocate`.

    A selection object with a method ``fetch`` (``store``) is asked instead: ``dataset[b]`` is ``b.fetch(dataset)``, and
    ``dataset[b] = value`` is ``b.store(dataset, value)``. That is how blocks that were read ahead are found.

    Parameters
    ----------
    backend : Backend
        Where the elements are.
    again : (callable, tuple), optional
        How another process opens it again.
    """

    def __init__(self, backend: Backend, *, again: Again | None = None) -> None:
        self._backend = backend
        self._again = again
        self._process = os.getpid()
        #: Told before each access that does not go by a block; True: it writes. Loops over blocks put themselves here.
        self.watchers: tuple[Callable[[bool], None], ...] = ()
        #: Another one after each write, however it was done; None: there was none.
        self.last_write: object = None
        #: Told of each write and of each change of the shape; None: nobody wants to know. Checkpoints put it here.
        self.growth: Growth | None = None

    # -- facts

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._backend.facts.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._backend.facts.dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of a chunk; None if the data lie in one piece."""
        return self._backend.facts.chunks

    @property
    def maxshape(self) -> tuple[int | None, ...]:
        """How far `resize` may go; None is without limit."""
        return self._backend.facts.maxshape

    @property
    def compression(self) -> str | None:
        """Name of the compression."""
        return self._backend.facts.compression

    @property
    def fillvalue(self) -> Any:
        """What elements are that were never written."""
        return self._backend.facts.fillvalue

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        state = "writable" if self._backend.writable else "read-only"
        return f"<HdfDataset {self.dtype} {self.shape}, {state}>"

    # -- reading

    def __getitem__(self, selection: Any) -> Any:
        fetch = getattr(selection, "fetch", None)
        return self._reading().read(selection) if fetch is None else fetch(self)

    def __iter__(self) -> Iterator[Any]:
        return (self._reading().read(index) for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        if copy is False:
            raise ValueError("a dataset on disk can't become an array without a copy; see dataset.mapped()")
        return np.asarray(self._reading().read(...), dtype=dtype)

    def mapped(self, writable: bool = False) -> Any:
        """The whole dataset as an array on a private memory map: nothing is read before it is touched.

        Parameters
        ----------
        writable : bool
            Whether the array may be written to. What is written stays in this process's memory (copy-on-write).

        Returns
        -------
        numpy.ndarray
            Of the dataset's shape and dtype. It stays valid as long as it is kept.

        Raises
        ------
        BadRequest
            If the dataset is chunked or compressed, or not yet sent.
        """
        return self._backend.mapped(writable)

    def read_direct(self, dest: Any, source_sel: Any = None, dest_sel: Any = None) -> None:
        """Read into an existing array, as h5py does."""
        self._reading().read_direct(dest, source_sel, dest_sel)

    def astype(self, dtype: Any) -> AsType:
        """A view whose slices come as `dtype`, as h5py does."""
        return AsType(self._reading, dtype)

    def iter_chunks(self, sel: Any = None) -> Iterator[tuple[slice, ...]]:
        """The chunks as slices, as h5py does."""
        return self._backend.iter_chunks(sel)

    # -- writing

    def __setitem__(self, selection: Any, value: Any) -> None:
        store = getattr(selection, "store", None)
        if store is not None:
            store(self, value)
        elif isinstance(value, HdfDataset):
            self._copy(selection, value)
        else:
            check_written(value, "an HDF array")
            structured = self.dtype.names is not None and not any(isinstance(key, str) for key in as_tuple(selection))
            fitted = _structures(value, self.dtype, parse(selection, self.shape)) if structured else value
            self._writing(selection).write(selection, fitted)

    def _copy(self, selection: Any, source: HdfDataset) -> None:
        """Write another dataset into this one, piece by piece if it covers it."""
        region = parse(selection, self.shape)
        covers = region is not None and region.shape == region.lengths == source.shape
        for rows in slabs(self.shape, self.dtype.itemsize, _SLAB) if covers else ():
            self._writing(rows).write(rows, source._reading().read(rows))
        if not covers:
            self._writing(selection).write(selection, source._reading().read(...))

    def write_direct(self, source: Any, source_sel: Any = None, dest_sel: Any = None) -> None:
        """Write from an existing array, as h5py does."""
        part = source if source_sel is None else source[source_sel]
        check_written(part, "an HDF array")
        place = () if dest_sel is None else dest_sel
        self._writing(place).write(place, part)

    def resize(self, size: Any, axis: int | None = None) -> None:
        """Change the shape within `maxshape`, as h5py does."""
        backend, growth = self._writing(), self.growth
        if growth is None:
            backend.resize(size, axis)
            return
        before = self.shape
        growth.resizes(before, _resized(before, size, axis))
        try:
            backend.resize(size, axis)
        finally:
            growth.resizes(before, self.shape)

    def _reading(self) -> Backend:
        for watch in self.watchers:
            watch(False)
        return self._backend

    def _writing(self, selection: Any = _NOWHERE) -> Backend:
        """What takes a write to the selected elements."""
        for watch in self.watchers:
            watch(True)
        if self.growth is not None and selection is not _NOWHERE:
            self.growth.writes(selection, self.shape)
        return self._taking_writes()

    def _taking_writes(self) -> Backend:
        if not self._backend.writable:
            raise BadRequest(
                "this dataset is read-only (it has been sent, or was received) and can't be written to",
                hint="allocate another one, write to it before pipe.send, or copy a part: x = dataset[0:1000]",
            )
        if os.getpid() != self._process:  # what it noted of the content nobody would hear of
            raise BadRequest(
                "this dataset was allocated by the process from which this one was forked, and can't be filled here",
                hint="use pipe.map_blocks with Plant(executor='processes'), let the workers return what is to be "
                "written, or allocate it with specs.ArraySpec, whose memory is shared",
            )
        self.last_write = object()
        return self._backend

    # -- for loops over blocks

    @property
    def untouched(self) -> bool:
        """Whether it was allocated and never written to."""
        return self._backend.untouched

    @property
    def data_path(self) -> str | None:
        """Path of the staged file; None if another one can't take its place."""
        return self._backend.path

    def read_block(self, selection: tuple[slice, ...]) -> Any:
        """A rectangular region as a new array."""
        import numpy as np

        return np.asarray(self._backend.read(selection))

    def write_block(self, selection: tuple[slice, ...], array: Any) -> None:
        """Write a rectangular region."""
        check_written(array, "an HDF array")
        if self.growth is not None:
            self.growth.by_blocks = True
            self.growth.writes(selection, self.shape)
        self._taking_writes().write(selection, array)

    @property
    def axis_of_growth(self) -> int | None:
        """Along which axis rows are appended; None if its shape is fixed."""
        return axis_of_growth(self.shape, self.maxshape)

    def digests_so_far(self) -> list[Digest] | None:
        """Digests of the logical blocks that are there now, if it is known without reading what is in them."""
        known = getattr(self._backend, "digests_so_far", None)
        return None if known is None else known()

    def adopt(self, path: str) -> None:
        """Take over a former attempt's file in place of one's own: it is moved, not copied.

        Parameters
        ----------
        path : str
            A file that was `data_path` of a dataset allocated with the same options.

        Raises
        ------
        BadRequest
            If this dataset can't, or was written to.
        DamagedObject
            If the file has another geometry.
        """
        self._taking_writes().adopt(path)

    # -- elsewhere

    def __reduce__(self) -> Any:
        if self._again is None:
            raise BadRequest(
                "an allocated dataset can't be pickled", hint="use it in the reactor's own process, or receive it first"
            )
        return self._again

    # -- for the spec

    @property
    def backend(self) -> Backend:
        """Where the elements are."""
        return self._backend


def _resized(shape: tuple[int, ...], size: Any, axis: Any) -> tuple[int, ...]:
    """The shape that `HdfDataset.resize` is asked for; the present one if it makes no sense, which others say."""
    try:
        if axis is None:
            wanted = tuple(map(int, size)) if hasattr(size, "__iter__") else (int(size),)
            return wanted if len(wanted) == len(shape) else shape
        place = range(len(shape))[axis]
        return (*shape[:place], int(size), *shape[place + 1 :])
    except (TypeError, ValueError, IndexError, OverflowError):
        return shape


def _structures(value: Any, dtype: np.dtype[Any], region: Any) -> Any:
    """Structures that are made from tuples or numbers, or spread: NumPy leaves to chance what is between the fields."""
    import numpy as np

    if dtype.hasobject:
        return value
    is_made = isinstance(value, (np.ndarray, np.void)) and value.dtype.names is not None
    try:
        array = np.asarray(value, None if is_made else dtype)
        if not is_made:
            array, made = np.zeros(array.shape, dtype), array
            array[...] = made
        if region is None or array.shape == region.shape or math.prod(region.shape) * dtype.itemsize > _SLAB:
            return array
        return contiguous(np.broadcast_to(array, region.shape))
    except (TypeError, ValueError, OverflowError):
        return value  # who is to write it says what is wrong


class AsType:
    """A dataset whose slices come as another dtype, converted as HDF5 converts.

    Parameters
    ----------
    reading : callable
        Gives the backend in which the elements are.
    dtype : dtype-like
        What they become.
    """

    def __init__(self, reading: Callable[[], Backend], dtype: Any) -> None:
        import numpy as np

        self._reading = reading
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self._reading().facts.shape[0]

    def __getitem__(self, selection: Any) -> Any:
        import numpy as np

        backend = self._reading()
        found = backend.read(selection)
        made = backend.cast(np.asarray(found), self.dtype)
        return made if isinstance(found, np.ndarray) else made[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        return np.asarray(self[...], dtype=dtype)

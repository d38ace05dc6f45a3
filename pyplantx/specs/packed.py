"""HDF arrays whose chunks are packed and unpacked outside of HDF5.

This file may know: `PackedArray`, and the backend of chunked datasets, which does what is not a matter of basic
selections. It may not know: how h5py is imported, filters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pyplantx.core.trace import Digest
from pyplantx.errors import WarehouseError
from pyplantx.specs.chunked import H5Backend, Writer
from pyplantx.specs.chunks import CACHE_LIMIT, Shape
from pyplantx.specs.datasets import Finished
from pyplantx.specs.filters import Room
from pyplantx.specs.library import Library, StagedView, cast, write_words
from pyplantx.specs.packing import (
    ChunkTable,
    PackedArray,
    PackedWriter,
    Packing,
    Stored,
    are_listed_rightly,
    chunk_from_hdf5,
    packing_of,
)
from pyplantx.specs.rawfile import Array, Readable
from pyplantx.specs.selections import parse


class PackedBackend(H5Backend):
    """A chunked dataset whose filters run here, in two threads, if they can; else HDF5 does everything.

    Parameters
    ----------
    library, source, dataset, staged
        As in `H5Backend`.
    cache : int
        Bytes that HDF5 may hold back of what is being made.
    limit : int
        Bytes of unpacked chunks that may be held.
    """

    def __init__(
        self,
        library: Library,
        *,
        source: Readable | None = None,
        dataset: Any = None,
        staged: StagedView | None = None,
        cache: int = 0,
        limit: int = CACHE_LIMIT,
    ) -> None:
        self._limit = limit
        packing = None if staged is None else packing_of(dataset, packs=True)
        self._front = None if packing is None or staged is None else Front(library, packing, dataset, staged, limit)
        self._array: PackedArray | None = None if self._front is None else self._front.array
        self._finder: _Finder | None = None
        writer = None if staged is None else self._new_writer(dataset, staged, cache)
        super().__init__(library, source=source, dataset=dataset, staged=staged, writer=writer)
        self._packing = packing if staged is not None else packing_of(self.dataset, packs=False)

    def _new_writer(self, dataset: Any, staged: StagedView, cache: int) -> Writer:
        if self._front is None:
            return Writer(dataset, staged.file.path, cache, asked=staged.asked)
        return Writer(self._front, staged.file.path, cache, held=self._front.array.most_held)

    def read(self, selection: Any) -> Any:
        """See `Backend.read`."""
        region = None if self._packing is None else parse(selection, self.facts.shape)
        if region is None:
            return self._by_hdf5(lambda: super(PackedBackend, self).read(selection))
        array = self._unpacking()
        try:
            values = array.read(region)
        except WarehouseError:
            if array is self._array:
                raise
            values = self._unpacking().read(region)  # it was sent meanwhile, and is read where it is now
        return values if region.shape else values[()]

    def read_direct(self, dest: Any, source_sel: Any, dest_sel: Any) -> None:
        """See `Backend.read_direct`."""
        self._by_hdf5(lambda: super(PackedBackend, self).read_direct(dest, source_sel, dest_sel))

    def finish(self) -> Finished:
        """See `Backend.finish`."""
        with self._lock:
            if self._front is not None:
                self._front.flush()
                self._front.array.close()
            self._front = self._array = None
            return super().finish()

    def forked(self) -> None:
        """See `H5Backend.forked`."""
        super().forked()
        if self._array is not None:
            self._array.forked()

    def close(self) -> None:
        """See `Backend.close`."""
        with self._lock:
            if self._front is not None:
                self._front.array.close()
            if self._finder is not None:
                self._finder.close()
            self._front = self._array = self._finder = None
            super().close()

    def _by_hdf5(self, question: Any) -> Any:
        with self._lock:
            if self._front is not None:
                self._front.flush()
            return question()

    def _unpacking(self) -> PackedArray:
        """The array that unpacks; made when it is first needed, since it asks for the place of every chunk."""
        with self._lock:
            if self._array is None:
                self._array = self._ask(self._table)
                self.let_go()
            return self._array

    def _table(self, dataset: Any) -> PackedArray:
        assert self._view is not None and self._packing is not None
        file = self._view.file
        load: Callable[[Shape], Stored]
        if are_listed_rightly(dataset):
            load = ChunkTable(dataset, file.size, lambda start, size: _fetched(file, start, size))
        else:
            self._finder = _Finder(self._library, self._packing, file)
            load = self._finder.stored
        return PackedArray(self._packing, tuple(dataset.shape), load, limit=self._limit)

    def _read_back(self) -> list[Digest]:
        return super()._read_back() if self._packing is None else self._unpacking().digests()


class _Finder(H5Backend):
    """Has HDF5 find chunks whose places it does not tell.

    It has a lock of its own: the threads that read ask it while one who waits for them has that of the array.
    """

    def __init__(self, library: Library, packing: Packing, file: Readable) -> None:
        super().__init__(library, source=file, borrowed=True)
        self._packing = packing

    def stored(self, chunk: Shape) -> Stored:
        """What is stored of a chunk."""
        return self._ask(lambda dataset: chunk_from_hdf5(dataset, self._packing, chunk))


def _fetched(file: Readable, start: int, size: int) -> Room:
    room = Room(size)
    file.read_into(room.view(), start)
    return room


class Front:
    """What a `Writer` takes for the h5py dataset: writes go to the threads that pack, or to HDF5 if they are unusual.

    Parameters
    ----------
    library : Library
        HDF5.
    packing : Packing
        How chunks are packed.
    dataset : h5py.Dataset
        The dataset.
    staged : StagedView
        Its file.
    limit : int
        Bytes of unpacked chunks that may be held.
    """

    def __init__(self, library: Library, packing: Packing, dataset: Any, staged: StagedView, limit: int) -> None:
        self._library = library
        self._dataset = dataset
        self._staged = staged
        self.array = PackedWriter(packing, dataset, staged, limit=limit)
        self.dtype = dataset.dtype
        self.maxshape = dataset.maxshape

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, as they are now."""
        return self.array.shape

    def resize(self, size: Any, axis: int | None = None) -> None:
        """Change the shape, as h5py does."""
        self.array.resize(size, axis)

    def flush(self) -> None:
        """Hand everything to HDF5; errors of the threads are raised here at the latest.

        Raises
        ------
        WarehouseFull
            If there is no space left.
        """
        self.array.flush()

    def __setitem__(self, selection: Any, value: Any) -> None:
        region = parse(selection, self.shape)
        made = None if region is None else self._fitted(value, region.shape)
        if region is None or made is None:
            self.flush()
            with self.array.altered_by_hdf5(), self._staged.asked():
                write_words(self._dataset, selection, value)  # h5py says what is wrong with it, or does it
            return
        self.array.write(region, made)

    def _fitted(self, value: Any, shape: tuple[int, ...]) -> Array | None:
        """The value with the dataset's dtype, of a shape that can be broadcast; None if only h5py can tell."""
        if type(value) is not np.ndarray:
            if isinstance(value, np.ndarray):
                return None
            value = np.asarray(value, self.dtype)
        try:
            np.broadcast_to(value, shape)
        except ValueError:
            return None
        # What is contiguous has an axis at least, so arrays without one get their shape back.
        same = value.dtype == self.dtype
        contiguous = value if same else np.ascontiguousarray(value).reshape(value.shape)
        return cast(self._library, contiguous, self.dtype)

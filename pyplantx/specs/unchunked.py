"""Elements in C order at an offset of a file: HDF5 has made the file, and is asked no more.

This file may know: files by position, NumPy. It may not know: how h5py is imported, how files are trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from pyplantx.errors import BadRequest, DamagedObject
from pyplantx.specs.base import Layout
from pyplantx.specs.chunked import H5Backend
from pyplantx.specs.datasets import Facts, Finished
from pyplantx.specs.library import Library, StagedView, ask_for_space, broadcast, cast, write_words
from pyplantx.specs.rawfile import Array, RawArray, RawFile
from pyplantx.specs.selections import HOW_TO_WRITE, Region, as_tuple, parse

_T = TypeVar("_T")
_WHOLE = slice(None)


class RawBackend:
    """Elements in C order at an offset of a file. HDF5 is asked only for selections that are not basic.

    Parameters
    ----------
    library : Library
        HDF5.
    raw : RawArray
        Where the elements are.
    path : str, optional
        Path of the staged file, while it is being made.
    map_file : callable, optional
        Gives a private memory map of the whole file; its argument is whether it may be written to.
    """

    def __init__(
        self, library: Library, raw: RawArray, *, path: str | None = None, map_file: Callable[[bool], Any] | None = None
    ) -> None:
        self._library = library
        self._raw = raw
        self._map_file = map_file
        self.path = path
        zero = np.zeros((), raw.dtype)[()]
        self.facts = Facts(raw.shape, raw.dtype, None, raw.shape, None, zero)

    @property
    def writable(self) -> bool:
        """See `Backend.writable`."""
        return self.path is not None

    @property
    def untouched(self) -> bool:
        """See `Backend.untouched`."""
        return self.writable and self._raw.blocks.untouched

    def read(self, selection: Any) -> Any:
        """See `Backend.read`."""
        region = parse(selection, self._raw.shape)
        if region is None:
            return self._by_hdf5(lambda dataset: dataset.read(selection))
        values = self._raw.read(region)
        return values if region.shape else values[()]

    def read_direct(self, dest: Any, source_sel: Any, dest_sel: Any) -> None:
        """See `Backend.read_direct`."""
        target = dest if dest_sel is None else dest[(*as_tuple(dest_sel), ...)]
        region = parse(() if source_sel is None else source_sel, self._raw.shape)
        if region is not None and _takes(target, self._raw.dtype, region):
            self._raw.read_into(region, target)
        else:
            self._by_hdf5(lambda dataset: dataset.read_direct(dest, source_sel, dest_sel))

    def write(self, selection: Any, value: Any) -> None:
        """See `Backend.write`."""
        region = parse(selection, self._raw.shape)
        array = _as_array(value, self._raw.dtype)
        if region is None:
            self._write_by_hdf5(selection, array)
        else:
            self._raw.write(region, _fitted(array, region), lambda part: self.cast(part, self._raw.dtype))

    def cast(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """See `Backend.cast`."""
        return cast(self._library, array, dtype)

    def _by_hdf5(self, question: Callable[[H5Backend], _T]) -> _T:
        """Ask HDF5, which opens the file for this one question: what it keeps in its buffers would get old."""
        dataset = H5Backend(self._library, source=self._raw.file, borrowed=True)
        try:
            if (dataset.facts.shape, dataset.offset) != (self._raw.shape, self._raw.offset):
                raise DamagedObject("the HDF5 file has another dataset than the one at the offset in its record")
            return question(dataset)
        finally:
            dataset.close()

    def _write_by_hdf5(self, selection: Any, array: Array) -> None:
        nbytes = self._raw.nbytes
        ask_for_space(os.path.dirname(self._staged()), min(nbytes, array.nbytes))
        view = StagedView(self._own_file())
        with self._raw.blocks.altering(0, nbytes), self._library.altering(view) as dataset:
            write_words(dataset, selection, array)

    def _staged(self) -> str:
        assert self.path is not None
        return self.path

    def resize(self, size: Any, axis: int | None) -> None:
        """See `Backend.resize`."""
        raise BadRequest(
            "the dataset can't be resized: it was made with one fixed shape", hint="allocate it with maxshape="
        )

    def iter_chunks(self, selection: Any) -> Iterator[tuple[slice, ...]]:
        """See `Backend.iter_chunks`."""
        raise BadRequest(
            "the dataset has no chunks: its data lie in one piece", hint="pipe.blocks(dataset) cuts any array"
        )

    def adopt(self, path: str) -> None:
        """See `Backend.adopt`."""
        if not self.untouched:
            raise BadRequest("a dataset that was written to can't take over a former attempt's file")
        other = RawFile(path)
        try:
            self._must_fit(other)
        finally:
            other.close()
        os.rename(path, self._staged())
        self._own_file().reopen(self._staged())
        self._raw.blocks.touch_all()

    def _must_fit(self, other: RawFile) -> None:
        heads = [bytearray(self._raw.offset) for _ in range(2)]
        if other.size == self._raw.file.size:
            for head, file in zip(heads, (other, self._raw.file)):
                file.read_into(head, 0)
        if other.size != self._raw.file.size or heads[0] != heads[1]:
            raise DamagedObject(f"{other.path!r} is not an HDF5 file of {self._raw.dtype} {self._raw.shape} of ours")

    def _own_file(self) -> RawFile:
        assert isinstance(self._raw.file, RawFile)
        return self._raw.file

    def mapped(self, writable: bool) -> Any:
        """See `Backend.mapped`."""
        if self.writable:
            raise BadRequest(
                "a dataset that is being written can't be mapped", hint="pipe.send it first, or read slices"
            )
        whole = self._map_file(writable) if self._map_file else self._own_file().map(writable)
        return np.ndarray(self._raw.shape, self._raw.dtype, whole, self._raw.offset)

    def finish(self) -> Finished:
        """See `Backend.finish`."""
        digests = self._raw.digests()
        self._own_file().make_read_only()
        self.path = None
        return Finished(digests, Layout(self._raw.offset, self._raw.blocks.block, self._raw.nbytes))

    def close(self) -> None:
        """See `Backend.close`."""
        self.path = None
        self._raw.file.close()


def _takes(target: Any, dtype: np.dtype[Any], region: Region) -> bool:
    """Whether elements can be read straight into an array's memory."""
    plain = type(target) is np.ndarray and target.dtype == dtype and target.shape == region.shape
    return bool(plain and target.flags.c_contiguous and target.flags.writeable)


def _as_array(value: Any, dtype: np.dtype[Any]) -> Array:
    """The value as an array; one that has no dtype of its own gets the dataset's, as in h5py."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise BadRequest(f"HDF5 doesn't convert Python objects to {dtype}", hint="convert the value with astype")
        return value.view(np.ndarray)
    try:
        return np.asarray(value, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"the value can't be written to an array of {dtype}: {error}", hint=HOW_TO_WRITE) from error


def _fitted(array: Array, region: Region) -> Array:
    """The array broadcast to the region's `counts`, without a copy."""
    wanted = region.shape
    return (array if array.shape == wanted else broadcast(array, wanted))[
        tuple(_WHOLE if kept else None for kept in region.kept)
    ]

"""Chunks that wait unpacked in a file: those of an array that is written across its chunks, again and again.

Rows that are written to chunks of whole columns touch every chunk of the array. There is no memory for all of them, and
to pack and unpack each one for every few rows takes a hundred times as long as the array itself. This file may know:
files, chunks, selections. It may not know: how chunks are packed, HDF5.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pyplantx.basics.disk import free_bytes
from pyplantx.specs.rawfile import Array, RawArray, RawFile
from pyplantx.specs.selections import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyplantx.specs.chunks import Shape
    from pyplantx.specs.selections import Region


class UnpackedChunks:
    """Chunks of one array, side by side in a file without a name: it vanishes with the process.

    Parameters
    ----------
    beside : str
        Path of the array's own file.
    chunks : tuple of int
        Shape of a chunk.
    dtype : numpy.dtype
        Element type.
    """

    def __init__(self, beside: str, chunks: Shape, dtype: np.dtype[Any]) -> None:
        self._beside = beside
        self._chunks, self._dtype = chunks, dtype
        self._size = math.prod(chunks) * dtype.itemsize
        self._file: RawFile | None = None
        self._places: dict[Shape, RawArray] = {}
        self._free: list[RawArray] = []

    def __contains__(self, chunk: Shape) -> bool:
        return chunk in self._places

    def __iter__(self) -> Iterator[Shape]:
        return iter(sorted(self._places))

    @property
    def nbytes(self) -> int:
        """Bytes of all chunks that wait here."""
        return len(self._places) * self._size

    def put(self, chunk: Shape, array: Array, reserve: int) -> bool:
        """Take a whole chunk, if the disk has room for it.

        Parameters
        ----------
        chunk : tuple of int
            Its place in the grid of chunks.
        array : ndarray
            Its elements.
        reserve : int
            Bytes that have to stay free besides.

        Returns
        -------
        bool
            False if there is too little room; then nothing was taken.
        """
        if free_bytes(os.path.dirname(self._beside)) < reserve + self._size:
            return False
        if not self._free:
            self._free.append(self._new_place())
        self._free[-1].write(self._region(...), array, _unchanged)
        self._places[chunk] = self._free.pop()  # only now: it counts as here once it is whole
        return True

    def write(self, chunk: Shape, inside: tuple[slice, ...], value: Array) -> None:
        """Write to a part of a chunk that is here; the value has the part's shape."""
        self._places[chunk].write(self._region(inside), value.astype(self._dtype, copy=False), _unchanged)

    def read(self, chunk: Shape, inside: Any = ...) -> Array:
        """A part of a chunk that is here, as a new array."""
        return self._places[chunk].read(self._region(inside))

    def drop(self, chunk: Shape) -> None:
        """Forget a chunk, if it is here."""
        place = self._places.pop(chunk, None)
        if place is not None:
            self._free.append(place)

    def check(self) -> None:
        """Ask the disk whether it has kept everything: else what is read back may not be what was written.

        Raises
        ------
        WarehouseError
            If it has not.
        """
        if self._places:
            self._opened().sync()

    def close(self) -> None:
        """Forget everything."""
        self._places.clear()
        self._free.clear()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _new_place(self) -> RawArray:
        file = self._opened()
        count = len(self._places) + len(self._free)
        return RawArray(file, self._chunks, self._dtype, count * self._size)

    def _opened(self) -> RawFile:
        if self._file is None:
            path = f"{self._beside}.unpacked"
            self._file = RawFile(path, writable=True, new=True)
            os.unlink(path)
        return self._file

    def _region(self, inside: Any) -> Region:
        found = parse(inside, self._chunks)
        assert found is not None
        return found


def _unchanged(array: Array) -> Array:
    return array

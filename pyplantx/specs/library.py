"""What the backends of HDF arrays ask of HDF5, and what must be watched where HDF5 reads, converts and writes.

This file may know: NumPy, how h5py's objects behave. It may not know: how h5py is imported, or what makes a file
trustworthy; both are hdf.py's, which hands in a `Library`.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from pyplantx.errors import BadRequest, PyplantxError, WarehouseError
from pyplantx.specs.rawfile import Array, Readable, no_space

SPARE = 16 << 20  #: bytes that stay free on the disk for HDF5's own structures


class Library(Protocol):
    """What is asked of HDF5."""

    def opened(self, file: FileView) -> Any:
        """The dataset of a sealed file, opened for reading and checked.

        Raises
        ------
        DamagedObject
            If the file breaks its format.
        """

    def altering(self, path: str) -> AbstractContextManager[Any]:
        """The dataset of a staged file, opened for writing until the end of the block."""

    def cast(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """A contiguous array with another dtype, converted as HDF5 converts."""


class FileView:
    """What h5py's driver for file objects asks of a file; every byte that it is given has been checked.

    An exception must not pass through HDF5: in a call that opens a file it leaves that half open. So zeros are given
    instead, and `trouble` says what happened; whatever HDF5 has made of the zeros is thrown away.

    Parameters
    ----------
    file : Readable
        The file itself.
    """

    def __init__(self, file: Readable) -> None:
        self.file = file
        self.trouble: BaseException | None = None
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.file.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Where we are."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self.file.size - self._position)]
        try:
            self.file.read_into(view, self._position)
        except BaseException as error:
            self.trouble = self.trouble or error
            view[:] = bytes(view.nbytes)
        self._position += view.nbytes
        return view.nbytes

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = bytearray(max(0, self.file.size - self._position) if size < 0 else size)
        return bytes(data[: self.readinto(data)])

    def write(self, _: Any) -> int:
        """Never."""
        raise io.UnsupportedOperation("a sealed file can't be written to")

    def truncate(self, _: int | None = None) -> int:
        """Never."""
        raise io.UnsupportedOperation("a sealed file can't be cut off")

    def flush(self) -> None:
        """Nothing to flush."""


def cast(library: Library, array: Array, dtype: np.dtype[Any]) -> Array:
    """A contiguous array with another dtype, converted as HDF5 does; by NumPy where that does the same, only faster."""
    if array.dtype == dtype:
        return array
    if _agree(array.dtype, dtype):
        with np.errstate(all="ignore"):
            return array.astype(dtype)
    return library.cast(array, dtype)


def _agree(source: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whether NumPy converts as HDF5 does: HDF5 clips to the range of integers, where NumPy wraps around."""
    kinds = source.kind + dtype.kind
    if kinds == "SS" or np.can_cast(source, dtype, "safe"):
        return source.kind in "biufcS" and (source.kind == "S") == (dtype.kind == "S")
    return kinds in ("if", "uf", "ff", "ic", "uc", "fc", "cc")  # no number to a complex one in HDF5 at all


def write_words(dataset: Any, selection: Any, value: Any) -> None:
    """Write through h5py; what it says of a value or a full disk is said in our words.

    Raises
    ------
    BadRequest
        If the value does not fit.
    WarehouseFull
        If there is no space left.
    WarehouseError
        If it can't be written for another reason.
    """
    try:
        dataset[selection] = value
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(
            f"the value can't be written to an array of {dataset.dtype} {dataset.shape}: {error}"
        ) from error
    except OSError as error:
        folder = os.path.dirname(dataset.file.filename)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or f"errno = {errno.ENOSPC}" in str(error):
            raise no_space(folder, getattr(value, "nbytes", dataset.dtype.itemsize)) from error
        if "conversion" in str(error):
            raise BadRequest(f"HDF5 doesn't convert such a value to {dataset.dtype}: {error}") from error
        raise WarehouseError(f"an HDF array can't be written to: {error}") from error


@contextmanager
def as_system_errors(path: str) -> Iterator[None]:
    """What HDF5 says of a system call that failed becomes an `OSError` with its number; the warehouse words it.

    Parameters
    ----------
    path : str
        The file.
    """
    try:
        yield
    except PyplantxError:
        raise
    except (OSError, RuntimeError, TypeError) as error:
        told = re.search(r"errno = (\d+)", str(error))  # HDF5 tells it in its text only
        number = int(told[1]) if told else getattr(error, "errno", None) or errno.EIO
        raise OSError(number, f"HDF5: {os.strerror(number)}", path) from error


@contextmanager
def as_store_errors(path: str, nbytes: int) -> Iterator[None]:
    """As `as_system_errors`, for writes that the user's own line makes: in our words already.

    Raises
    ------
    WarehouseFull
        If there is no space left for these bytes.
    WarehouseError
        If they can't be written for another reason.
    """
    try:
        with as_system_errors(path):
            yield
    except PyplantxError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(os.path.dirname(path), nbytes) from error
        raise WarehouseError(f"an HDF array can't be written to: {error.strerror}") from error


def ask_for_space(folder: str, nbytes: int, reserve: int = SPARE) -> None:
    """Refuse to begin what would fill the disk: HDF5 on a full one can end the interpreter.

    Parameters
    ----------
    folder : str
        Where it is written.
    nbytes : int
        Bytes that are to be written, before they are packed.
    reserve : int
        Bytes that must stay free besides.

    Raises
    ------
    WarehouseFull
        If there is too little space for both.
    """
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < nbytes + reserve:
        raise no_space(folder, nbytes, reserve=reserve)

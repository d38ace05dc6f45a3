"""What the backends of HDF arrays ask of HDF5, and what must be watched where HDF5 reads, converts and writes.

This file may know: NumPy, how h5py's objects behave. It may not know: how h5py is imported, or what makes a file
trustworthy; both are hdf.py's, which hands in a `Library`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Any, Protocol

import numpy as np

from pyplantx.basics.disk import free_bytes
from pyplantx.basics.interrupts import uninterrupted
from pyplantx.errors import BadRequest, BadSelection, WarehouseError, shown
from pyplantx.fingerprint.arrays import contiguous
from pyplantx.specs.picks import Pick, pick
from pyplantx.specs.rawfile import Array, RawFile, Readable, no_space
from pyplantx.specs.scarce import Reserve, ask_for_memory
from pyplantx.specs.selections import HOW_TO_WRITE, as_tuple, parse

MEMORY = 4 << 20  #: bytes that HDF5 may take for its own structures
_SIGNATURE = 8  #: bytes with which each HDF5 file begins
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

    def altering(self, file: StagedView) -> AbstractContextManager[Any]:
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

    Attributes
    ----------
    trouble : BaseException or None
        What happened first.
    size : int
        Bytes of the file, as HDF5 knows it.
    """

    def __init__(self, file: Readable) -> None:
        self.file = file
        self.trouble: BaseException | None = None
        self.size = file.size
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        if whence != os.SEEK_SET:
            offset += self.size if whence == os.SEEK_END else self._position
        self._position = offset
        return offset

    def tell(self) -> int:
        """Where we are."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes; zeros follow."""
        view = memoryview(buffer).cast("B")
        there = max(0, min(view.nbytes, self.size - self._position))
        try:
            self.file.read_into(view[:there], self._position)
        except BaseException as error:
            self._note(error)
            there = 0
        view[there:] = bytes(view.nbytes - there)
        self._position += view.nbytes
        return view.nbytes

    def _note(self, error: BaseException) -> None:
        self.trouble = self.trouble or error

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        rest = max(0, self.size - self._position)
        data = bytearray(rest if size < 0 else min(size, rest))
        self.readinto(data)
        return bytes(data)

    def write(self, _: Any) -> int:
        """Never."""
        raise io.UnsupportedOperation("a sealed file can't be written to")

    def truncate(self, _: int | None = None) -> int:
        """Never."""
        raise io.UnsupportedOperation("a sealed file can't be cut off")

    def flush(self) -> None:
        """Nothing to flush."""


class StagedView(FileView):
    """The same for a file that is being made: HDF5 never learns that a write has failed.

    It can't bear that: what it could not write it can neither keep nor give up, its handles are invalid or half so, and
    closing them, or letting the last one go, can end the process (SIGSEGV; h5py 3.16, HDF5 2.0). So each write succeeds
    for HDF5. After the first one that did not, nothing more is written, and whoever asks HDF5 for anything within
    `asked` gets the error; the file can only be closed and thrown away.

    Nor does it bear that there is no memory, so that is asked for before, and some is put aside for the end.
    The file's signature is written last, by `complete`: what a killed process leaves is no HDF5 file.

    Parameters
    ----------
    file : RawFile
        The file itself, open for writing.
    memory : int
        Bytes that HDF5 may hold besides its own structures: chunks, above all.
    """

    file: RawFile

    def __init__(self, file: RawFile, memory: int = 0) -> None:
        super().__init__(file)
        self._signature = b""
        self._memory = MEMORY + memory
        self._reserve = Reserve(MEMORY // 4, "HDF5")

    def write(self, data: Any) -> int:
        """Write at the position."""
        view, start = memoryview(data).cast("B"), self._position
        held_back = 0 if start else _SIGNATURE
        if held_back:
            self._signature = bytes(view[:held_back])
        self._try(self.file.write_from, view[held_back:], start + held_back)
        self._position = end = start + view.nbytes
        self.size = max(self.size, end)
        return view.nbytes

    def truncate(self, size: int | None = None) -> int:
        """Make the file so long."""
        length = self._position if size is None else size
        if length != self.size:
            self._try(self.file.truncate, length)
            self.size = length
        return length

    @contextmanager
    def ending(self) -> Iterator[None]:
        """A block in which HDF5 closes a file that is thrown away; it has the memory for that whatever has happened."""
        self._reserve.release()
        with uninterrupted():
            yield

    def disown(self) -> None:
        """In a forked child, whose HDF5 would write to the file what its parent has long replaced."""
        self._note(filled_elsewhere())

    def complete(self) -> None:
        """Make an HDF5 file of what HDF5 has written and closed.

        Raises
        ------
        WarehouseFull, WarehouseError
            See `asked`.
        """
        self._raise_trouble()
        self._reserve.release()
        self.file.size = self.size
        self.file.write_from(self._signature, 0)

    def _try(self, change: Callable[..., None], *arguments: Any) -> None:
        try:
            if self.trouble is None:
                change(*arguments)
        except BaseException as error:
            self._note(error)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """A block in which HDF5 is asked for something that concerns the file.

        Raises
        ------
        WarehouseFull
            If there was no space left for what HDF5 had to write, now or earlier.
        WarehouseError
            If it could not be written for another reason.
        MemoryError
            If there may not be enough memory.
        """
        self._raise_trouble()
        ask_for_memory(self._memory, "HDF5")
        with uninterrupted():
            try:
                yield
            except (OSError, RuntimeError) as error:
                raise WarehouseError(f"HDF5 can't go on with the array in {self.file.path!r}: {error}") from error
            finally:
                self._raise_trouble()

    def _note(self, error: BaseException) -> None:
        super()._note(_without_frames(error))  # which have all that the reactor holds, and it would stay with us

    def _raise_trouble(self) -> None:
        if self.trouble is not None:
            raise copy(self.trouble) from self.trouble.__cause__


def filled_elsewhere() -> BadRequest:
    """The error for a dataset that is being filled, in a process that was forked meanwhile."""
    return BadRequest(
        "this dataset is being filled by the process from which this one was forked, and can't be read here",
        hint="pipe.send it and let another reactor receive it, or read before the fork what the child needs",
    )


def _without_frames(error: BaseException) -> BaseException:
    """The error and its cause, without the frames that they have passed through."""
    if error.__cause__ is not None:
        _without_frames(error.__cause__)
    error.__context__ = None
    return error.with_traceback(None)


def cast(library: Library, array: Array, dtype: np.dtype[Any]) -> Array:
    """A contiguous array with another dtype, converted as HDF5 does; by NumPy where that does the same, only faster."""
    if array.dtype == dtype:
        return array
    if dtype.names is not None:
        array = with_truths(array, dtype)
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


def with_truths(value: Any, dtype: np.dtype[Any]) -> Any:
    """An array with truth values in the place of integers, where those of a dtype are: HDF5 would keep the numbers.

    Parameters
    ----------
    value : numpy.ndarray or numpy.void
        What is to be written; it comes back itself where nothing is to be done.
    dtype : numpy.dtype
        Of the dataset. Fields of structures are found by their names, as HDF5 does.
    """
    if dtype.base.kind == "b" and value.dtype.kind in "iu":
        return value != 0
    if dtype.names is None or value.dtype.names is None or value.dtype == dtype:
        return value
    fields = {name: value[name] for name in value.dtype.names}
    made = {name: with_truths(part, dtype[name].base) if name in dtype.names else part for name, part in fields.items()}
    if all(made[name] is part for name, part in fields.items()):
        return value
    told = [(name, part.dtype, value.dtype[name].shape) for name, part in made.items()]
    array = np.zeros(value.shape, told)
    for name, part in made.items():
        array[name] = part
    return array


def settle_truths(array: Array, dtype: np.dtype[Any]) -> None:
    """Make truth values of the numbers that HDF5 has left in the boolean fields of structures, where `dtype` has some.

    Parameters
    ----------
    array : numpy.ndarray
        What HDF5 has read into.
    dtype : numpy.dtype
        Of the dataset.
    """
    for name in set(array.dtype.names or ()) & set(dtype.names or ()):
        field, source = array[name], dtype[name].base
        if field.dtype.kind == "b" and source.kind in "iu":
            field[...] = field.view("u1") != 0
        else:
            settle_truths(field, source)


def read_words(dataset: Any, selection: Any) -> Any:
    """Read through h5py, as NumPy would index; what h5py says of a selection is said in our words.

    Raises
    ------
    BadSelection
        If it can't be selected.
    """
    picked = pick(selection, dataset.shape)
    if picked is None and parse(selection, dataset.shape) is not None:
        return dataset[selection]  # whatever is wrong now, the selection is not
    try:
        found = dataset[selection if picked is None else picked.selection]
    except (TypeError, ValueError, IndexError) as error:
        raise BadSelection(f"HDF5 can't select that of an array of {dataset.dtype} {dataset.shape}: {error}") from error
    if picked is not None and picked.is_empty:
        return found.reshape(picked.shape + found.shape[dataset.ndim :])
    return found if picked is None or picked.after is None else found[picked.after]


def write_words(dataset: Any, selection: Any, value: Any) -> None:
    """Write through h5py; what it says of a value is said in our words. All else: see `StagedView.asked`.

    Raises
    ------
    BadRequest
        If the value does not fit.
    BadSelection
        If it can't be selected.
    """
    dtype, shape = dataset.dtype, dataset.shape
    if dtype.names is None and any(isinstance(part, str) for part in as_tuple(selection)):
        raise BadSelection(f"an array of {dtype} has no fields: {shown(selection)} is no index of it")
    picked = pick(selection, shape)
    if isinstance(value, (np.ndarray, np.void)):
        value = with_truths(value, dtype)
    try:
        if picked is not None:
            selection, value = picked.selection, _in_order(value, picked, dtype)
            if picked.is_empty:
                return
        # Structures with what is between their fields, which h5py's own copy has not; HDF5 keeps that, too.
        is_copied = dtype.names is not None and isinstance(value, np.ndarray)
        dataset[selection] = contiguous(value) if is_copied else value
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(
            f"the value can't be written to an array of {dtype} {shape}: {error}", hint=HOW_TO_WRITE
        ) from error
    except (OSError, RuntimeError) as error:
        if "conversion" in str(error):
            raise BadRequest(f"HDF5 doesn't convert such a value to {dtype}: {error}", hint=HOW_TO_WRITE) from error
        raise


def _in_order(value: Any, picked: Pick, dtype: np.dtype[Any]) -> Any:
    """A value in the shape of what is selected, which h5py asks for, and in the order in which HDF5 writes it."""
    fields = [part for part in picked.selection if isinstance(part, str)]
    if len(fields) > 1 and picked.before is None:
        return value  # h5py knows what is in them
    element = dtype[fields[0]] if len(fields) == 1 and fields[0] in (dtype.names or ()) else dtype
    array = np.asarray(value, None if isinstance(value, (np.ndarray, np.void)) else element.base)
    array = broadcast(array, picked.shape + element.shape)
    return array if picked.before is None else array[picked.before]


def broadcast(array: Array, shape: tuple[int, ...]) -> Array:
    """An array that is written to a selection of this shape, broadcast to it without a copy.

    Raises
    ------
    BadRequest
        If that can't be.
    """
    extra = array.ndim - len(shape)
    own = array.shape[extra:] if extra > 0 and array.shape[:extra] == (1,) * extra else array.shape
    try:
        return np.broadcast_to(array.reshape(own), shape)
    except ValueError:
        raise BadRequest(
            f"an array of shape {array.shape} can't be written to a selection of shape {shape}",
            hint="the shapes must agree, axis by axis from the last; an axis of length 1 is repeated",
        ) from None


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
    if free_bytes(folder) < nbytes + reserve:
        raise no_space(folder, nbytes, reserve=reserve)

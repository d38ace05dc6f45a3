"""The handle of a Zarr array: numpy's slicing, read-only once sent or received, hashing what passes.

This file knows an array of zarr only by its face; zarr is imported in zarr.py.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from pyplantx.errors import BadRequest, DamagedObject, PyplantxError, WarehouseError, WarehouseFull
from pyplantx.specs.datasets import Again, ArrayFacts
from pyplantx.specs.masks import check_written
from pyplantx.specs.rawfile import gone
from pyplantx.specs.selections import HOW_TO_WRITE, Region, parse
from pyplantx.specs.zarrthreads import answer_of, entering

if TYPE_CHECKING:
    import numpy as np


#: What zarr makes of broken files.
ZARR_ERRORS = (ValueError, TypeError, KeyError, IndexError, RuntimeError, OSError, AttributeError)


class ZarrArray(ArrayFacts):
    """An array of the plant in Zarr: shape, dtype, chunks and slicing; read-only once sent or received.

    Not made by users: see `ZarrArraySpec`. Several threads may read and write; writes are done one after the other. One
    that the system refuses is the last: zarr's threads may still be at its other chunks, so nobody can tell what they
    will be, and the array can only be thrown away.

    Parameters
    ----------
    array : zarr.Array
        What it stands for.
    watcher : Watcher, optional
        Told of writes; none: it takes no writes.
    again : callable, optional
        Gives the function and the arguments that open it in another process.
    """

    data_path = None  #: a chunk file alone says nothing, so no former attempt's can be taken over

    def __init__(
        self,
        array: Any,
        *,
        watcher: Watcher | None = None,
        again: Callable[[], Again] | None = None,
    ) -> None:
        self._array = array
        self._watcher = watcher
        self._again = again
        self._lock = threading.RLock()
        self._trouble: BaseException | None = None
        self._gone: WarehouseError | None = None
        #: As those of `HdfDataset`: told before each access that does not go by a block; True: it writes.
        self.watchers: tuple[Callable[[bool], None], ...] = ()
        self._last_write: object = None
        self._fork_before = _last_fork
        if watcher is not None:
            _BEING_FILLED.add(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return tuple(self._array.chunks)

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a file of several chunks; None if each chunk is a file."""
        return None if self._array.shards is None else tuple(self._array.shards)

    @property
    def fillvalue(self) -> Any:
        """What elements are that were never written."""
        return self._array.fill_value

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        state = "read-only" if self._watcher is None else "writable"
        return f"<ZarrArray {self.dtype} {self.shape}, {state}>"

    def __getitem__(self, selection: Any) -> Any:
        if hasattr(selection, "fetch"):
            return selection.fetch(self)
        for watch in self.watchers:
            watch(False)
        return self.read_block(selection)

    def __setitem__(self, selection: Any, value: Any) -> None:
        if hasattr(selection, "store"):
            selection.store(self, value)
            return
        for watch in self.watchers:
            watch(True)
        self.write_block(selection, value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        if copy is False:
            raise ValueError("an array on disk can't become one in memory without a copy")
        return np.asarray(self[...], dtype)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> Any:
        if self._again is None:
            raise BadRequest(
                "an allocated array can't be pickled", hint="use it in the reactor's own process, or receive it first"
            )
        return self._again()

    def _watching(self) -> Watcher:
        if self._watcher is None:
            raise BadRequest(
                "this array is read-only (it has been sent, or was received) and can't be written to",
                hint="allocate another one, write to it before pipe.send, or copy a part: x = array[0:1000]",
            )
        return self._watcher

    # -- for loops over blocks

    @property
    def untouched(self) -> bool:
        """Whether it was allocated and never written to."""
        return self._watcher is not None and self._watcher.untouched and not self.is_shared

    @property
    def last_write(self) -> object:
        """As that of `HdfDataset`: another one after each write; one of each moment if others may write."""
        return object() if self.is_shared else self._last_write

    @property
    def is_shared(self) -> bool:
        """Whether the process was forked since this was allocated.

        A child may write to the files as we do, at any time, and nobody here would hear of it.
        """
        return self._fork_before is not _last_fork

    def read_block(self, selection: Any) -> Any:
        """The selected elements, as an array of their own."""
        while True:
            array = self.inner
            values = self._read(array, selection)
            # If it was sent meanwhile, or given up, zarr has taken files that were no more where it looked for zeros.
            if array is self.inner:
                return values

    def _read(self, array: Any, selection: Any) -> Any:
        from pyplantx.specs.zarrpicks import asked
        from pyplantx.specs.zarrstore import read_whole

        wanted = asked(selection, self.shape)
        nbytes = math.prod(wanted.shape) * self.dtype.itemsize
        with entering(self._at_once()), _reading():
            return answer_of(lambda: read_whole(lambda: wanted.read(array)), nbytes)

    def write_block(self, selection: Any, array: Any) -> None:
        """Write to the selected elements."""
        from pyplantx.basics.interrupts import uninterrupted
        from pyplantx.specs.zarrpicks import asked

        check_written(array, "a Zarr array")
        with self._lock, _in_our_words():
            self.check_written()
            self._last_write = object()
            wanted = asked(selection, self.shape)
            made = _fitted(array, wanted.shape, self.dtype)
            put = partial(wanted.write, self._array, made)
            with self._watching().writing(selection, made), entering(self._at_once()), uninterrupted():
                with self._noting_trouble():
                    answer_of(put, math.prod(wanted.shape) * self.dtype.itemsize)

    def _at_once(self) -> int:
        """Bytes of one file of several that zarr holds at a time."""
        return math.prod(self.shards or self.chunks) * self.dtype.itemsize

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        try:
            with _writing():
                yield
        except (ValueError, TypeError, IndexError, BadRequest):
            raise  # of the value or the selection, at which zarr looks before it begins
        except BaseException as error:
            self._trouble = copy(error)  # without frames, which have all that the reactor holds
            raise

    def check_written(self) -> None:
        """Raise what a write has failed for, if one has."""
        if self._trouble is not None:
            raise copy(self._trouble)

    def forked(self) -> None:
        """In a forked child: a thread that was left behind may have the lock, or have begun to write."""
        self._lock = threading.RLock()
        if self._watcher is not None:
            self._watcher.begin_anew()

    def adopt(self, path: str) -> None:
        """Never: see `data_path`."""
        raise BadRequest("a Zarr array can't take over the file of a former attempt: it has many")

    # -- for the spec

    @property
    def inner(self) -> Any:
        """The zarr array behind it."""
        self._check_there()
        return self._array

    def give_up(self, folder: str) -> None:
        """Take no more writes, and give nothing: the files are about to go, and zarr would read zeros."""
        with self._lock:
            self._watcher = None
            self._gone = gone(folder)

    def _check_there(self) -> None:
        if self._gone is not None:
            raise copy(self._gone)

    def settle(self, array: Any) -> None:
        """Take no more writes; read from `array` from now on."""
        with self._lock:
            self._watcher = None
            self._array = array


#: Those that were allocated here, and perhaps not sent yet.
_BEING_FILLED: weakref.WeakSet[ZarrArray] = weakref.WeakSet()
_last_fork: object = None  #: another one after each fork of this process


def _forked_in_parent() -> None:
    global _last_fork
    _last_fork = object()


def _forked_in_child() -> None:
    for array in list(_BEING_FILLED):
        array.forked()


os.register_at_fork(after_in_parent=_forked_in_parent, after_in_child=_forked_in_child)


def _fitted(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """The value in the shape of what is selected: zarr itself takes what it needs of one that is too large.

    Raises
    ------
    ValueError
        If it can't be broadcast.
    """
    import numpy as np

    made = value if isinstance(value, np.ndarray) else np.asarray(value, dtype)
    return np.broadcast_to(made, shape) if made.ndim else made


@contextmanager
def _reading() -> Iterator[None]:
    """What zarr can't read is damaged: selections that are wrong are index errors."""
    try:
        yield
    except (PyplantxError, IndexError):
        raise
    except ZARR_ERRORS as error:
        if _is_no_thread(error):
            raise _no_thread("read") from error
        raise DamagedObject(f"a chunk of the Zarr array can't be read: {error}") from error


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What is said of values that can't be written is said in our words."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise BadRequest(f"the value can't be written to the Zarr array: {error}", hint=HOW_TO_WRITE) from error


@contextmanager
def _writing() -> Iterator[None]:
    """What the system says of writing is said in our words."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WarehouseFull(
                f"a Zarr array can't be written to: {why}",
                hint="free some space, or put the plant's directory on a larger disk",
            ) from error
        raise WarehouseError(f"a Zarr array can't be written to: {why}") from error
    except RuntimeError as error:
        if _is_no_thread(error):
            raise _no_thread("write") from error
        raise


def _is_no_thread(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def _no_thread(what: str) -> WarehouseError:
    return WarehouseError(
        f"zarr can't {what} the array, which it does by threads: there is no memory for one, or are too many",
        hint=f"give the process more memory, or {what} the array before so many threads are started",
    )


class Watcher:
    """Digests of the logical blocks of an array, from what is written to it where that is possible.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    filled : bool
        Whether elements that are never written are something else than zeros.

    Attributes
    ----------
    untouched : bool
        Whether nothing was written yet.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], filled: bool) -> None:
        from pyplantx.fingerprint.value import block_size
        from pyplantx.specs.dirty import BlockMap

        self.untouched = True
        self._shape, self._dtype = shape, dtype
        self.blocks = BlockMap(math.prod(shape) * dtype.itemsize, block_size(dtype.itemsize))
        if filled:
            self.blocks.touch_all()

    def begin_anew(self) -> None:
        """In a forked child, which knows nothing of the writes that are under way, and is asked for no digests."""
        from pyplantx.specs.dirty import BlockMap

        self.blocks = BlockMap(self.blocks.nbytes, self.blocks.block)

    @contextmanager
    def writing(self, selection: Any, value: Any) -> Iterator[None]:
        """A write; what it writes is hashed if it is one stretch of the array."""
        self.untouched = False
        region = parse(selection, self._shape)
        if not (self.blocks.nbytes if region is None else region.size):
            yield
            return
        if region is None:
            with self.blocks.altering(0, self.blocks.nbytes):
                yield
            return
        start, stop = _extent(region)
        width = self._dtype.itemsize
        with self.blocks.writing(start * width, stop * width) as write:
            yield
            if stop - start == region.size and _is_plain(value, self._dtype, region.shape):
                flat = memoryview(value.reshape(-1).view("u1"))
                for place, (begin, end) in enumerate(write.pieces()):
                    write.hash(place, flat[begin:end])


def _extent(region: Region) -> tuple[int, int]:
    """The first element of a region in C order, and the one after its last."""
    first = last = 0
    for length, start, count, step in zip(region.lengths, region.starts, region.counts, region.steps):
        first = first * length + start
        last = last * length + start + (count - 1) * step
    return first, last + 1


def _is_plain(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Whether a value is written as the very bytes that it has."""
    import numpy as np

    same = type(value) is np.ndarray and value.dtype == dtype and value.shape == shape
    return bool(same and value.flags.c_contiguous)

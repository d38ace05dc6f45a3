"""Elements that lie wherever HDF5 has put them: chunked, growing, compressed, or structured ones.

This file may know: NumPy, how to talk to h5py's datasets. It may not know: how h5py is imported, how files are trusted.
"""

from __future__ import annotations

import atexit
import math
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

import numpy as np

from pyplantx.basics.interrupts import uninterrupted
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, PyplantxError, WarehouseError
from pyplantx.fingerprint.arrays import block_size, c_order_buffers
from pyplantx.fingerprint.value import BlockHasher
from pyplantx.specs.datasets import Facts, Finished
from pyplantx.specs.filters import compression_of
from pyplantx.specs.library import (
    MEMORY,
    SPARE,
    FileView,
    Library,
    StagedView,
    ask_for_space,
    cast,
    read_words,
    settle_truths,
    write_words,
)
from pyplantx.specs.picks import pick
from pyplantx.specs.rawfile import Array, RawFile, Readable, gone
from pyplantx.specs.scarce import ask_for_memory
from pyplantx.specs.selections import along, as_tuple, slabs

_T = TypeVar("_T")
#: What h5py raises when HDF5 can't go on.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError)

#: Those that are open through our own reading functions. HDF5 closes what is still open when the process has ended, and
#: would then call functions of an interpreter that is no more.
_READING: weakref.WeakSet[H5Backend] = weakref.WeakSet()


@atexit.register
def close_all() -> None:
    """Close all that HDF5 has open through us, at the end of the process."""
    for backend in list(_READING):
        backend.close()


def _forked() -> None:
    for backend in list(_READING):
        backend.forked()


os.register_at_fork(after_in_child=_forked)


class H5Backend:
    """A dataset that HDF5 reads and writes: chunked, growing, compressed, or of structured elements.

    Parameters
    ----------
    library : Library
        HDF5.
    source : Readable, optional
        A sealed file to read from.
    dataset : h5py.Dataset, optional
        One that is being made.
    staged : StagedView, optional
        The file of that.
    writer : Writer, optional
        Its writing side.
    borrowed : bool
        Whether the file belongs to somebody else, who closes it.
    """

    def __init__(
        self,
        library: Library,
        *,
        source: Readable | None = None,
        dataset: Any = None,
        staged: StagedView | None = None,
        writer: Writer | None = None,
        borrowed: bool = False,
    ) -> None:
        self._library = library
        self._staged = staged
        self._view = FileView(source) if source is not None else None
        self._was_at = "" if staged is None else staged.file.path
        self._writer = writer
        self._borrowed = borrowed
        self._lock = threading.RLock()
        self._dataset = dataset if dataset is not None else self._opened()
        self.facts = _facts_of(self._dataset)
        _READING.add(self)
        self.path: str | None = None  # a killed HDF5 file proves nothing, so none can be taken over

    @property
    def dataset(self) -> Any:
        """The h5py dataset."""
        if self._dataset is None:
            self._dataset = self._opened()
        return self._dataset

    @property
    def offset(self) -> int | None:
        """Where the elements begin, if they lie in one piece."""
        place: int | None = self._ask(lambda dataset: dataset.id.get_offset())
        return place

    def _opened(self) -> Any:
        if self._view is None:
            raise gone(self._was_at)
        try:
            ask_for_memory(MEMORY, "HDF5")
            with uninterrupted():
                return self._library.opened(self._view)
        finally:
            self._raise_trouble()

    def _raise_trouble(self) -> None:
        """Raise what happened while HDF5 was reading, and forget what it has made of that."""
        trouble = self._view.trouble if self._view is not None else None
        if self._view is None or trouble is None:
            return
        self._view.trouble = None
        self.let_go()
        raise trouble

    def let_go(self) -> None:
        """Close what HDF5 has open of a sealed file; it is opened again if something else is asked."""
        with uninterrupted():
            dataset, self._dataset = getattr(self, "_dataset", None), None
            if dataset is not None:
                dataset.file.close()

    def _ask(self, question: Callable[[Any], _T]) -> _T:
        with self._lock, uninterrupted() if self._staged is None else self._staged.asked():
            try:
                return question(self.dataset)
            except (OSError, RuntimeError) as error:
                if self._staged is not None or isinstance(error, (PyplantxError, RecursionError)):
                    raise
                raise WarehouseError(f"HDF5 can't read the array: {error}") from error  # a file that was made so
            finally:
                self._raise_trouble()

    @property
    def writable(self) -> bool:
        """See `Backend.writable`."""
        return self._writer is not None

    @property
    def untouched(self) -> bool:
        """See `Backend.untouched`."""
        return self._writer is not None and self._writer.untouched

    def read(self, selection: Any) -> Any:
        """See `Backend.read`."""
        return self._ask(lambda dataset: read_words(dataset, selection))

    def read_direct(self, dest: Any, source_sel: Any, dest_sel: Any) -> None:
        """See `Backend.read_direct`."""
        if source_sel is not None and pick(source_sel, self.facts.shape) is not None:
            dest[... if dest_sel is None else dest_sel] = self.read(source_sel)
            return
        truths = dest.dtype.kind == "b" and self.facts.dtype.kind in "iu"  # HDF5 would keep the numbers in their place
        target = np.empty(dest.shape, self.facts.dtype) if truths else dest
        self._ask(lambda dataset: dataset.read_direct(target, source_sel, dest_sel))
        settle_truths(target, self.facts.dtype)
        if truths:
            place = () if dest_sel is None else dest_sel
            dest[place] = target[place] != 0

    def write(self, selection: Any, value: Any) -> None:
        """See `Backend.write`."""
        with self._lock:
            self._writing().write(selection, value)

    def cast(self, array: Array, dtype: np.dtype[Any]) -> Array:
        """See `Backend.cast`."""
        return cast(self._library, array, dtype)

    def resize(self, size: Any, axis: int | None) -> None:
        """See `Backend.resize`."""
        with self._lock:
            writer = self._writing()
            try:
                writer.resize(size, axis)
            finally:  # whatever interrupts this
                self.facts = _facts_of(self.dataset)

    def _writing(self) -> Writer:
        if self._writer is None:
            raise BadRequest("the array has been sent and can't be written to", hint="write before pipe.send")
        return self._writer

    def iter_chunks(self, selection: Any) -> Iterator[tuple[slice, ...]]:
        """See `Backend.iter_chunks`."""
        return self._ask(lambda dataset: iter(dataset.iter_chunks(selection)))

    def adopt(self, path: str) -> None:
        """See `Backend.adopt`."""
        raise BadRequest("a chunked HDF array can't go on from the file of a killed run: only HDF5 knows what is in it")

    def mapped(self, writable: bool) -> Any:
        """See `Backend.mapped`."""
        reason = "chunks" if self.facts.chunks else "structured elements or no data"
        raise BadRequest(
            f"this dataset can't be mapped: it has {reason}",
            hint="read slices; a dataset that is allocated without chunks, compression and maxshape can be mapped",
        )

    def digests_so_far(self) -> list[Digest] | None:
        """The digests of all blocks that are there now, if every row was hashed as it was written; else None."""
        with self._lock:
            return None if self._writer is None else self._writer.digests()

    def finish(self) -> Finished:
        """See `Backend.finish`."""
        with self._lock:
            writer, self._writer = self._writing(), None
            digests = writer.digests()
            self.facts = _facts_of(self._dataset)
            self._view = FileView(self._sealed())
            return Finished(self._read_back() if digests is None else digests)

    def _sealed(self) -> RawFile:
        """The file, once HDF5 has let go of it; whatever it has held back is written now."""
        assert self._staged is not None
        with self._staged.asked():
            dataset, self._dataset = self._dataset, None
            dataset.file.close()
        self._staged.complete()
        file, self._staged = self._staged.file, None
        file.make_read_only()
        return file

    def _read_back(self) -> list[Digest]:
        hasher = BlockHasher(block_size(self.facts.dtype.itemsize))
        for rows in slabs(self.facts.shape, self.facts.dtype.itemsize) if math.prod(self.facts.shape) else ():
            hasher.update(np.ascontiguousarray(self.read(rows)).reshape(-1).view("u1"))
        return hasher.digests()

    def forked(self) -> None:
        """In a forked child: a thread that was left behind may have the lock, and what is being made is the parent's.

        HDF5 itself is at rest: h5py waits for its end before a fork.
        """
        self._lock = threading.RLock()
        if self._staged is not None:
            self._staged.disown()

    def close(self) -> None:
        """See `Backend.close`."""
        with self._lock:
            staged, self._staged, self._writer = self._staged, None, None
            if staged is None:
                self.let_go()
            else:  # it is thrown away, whatever HDF5 says of it
                with staged.ending(), suppress(*_BROKEN):
                    self.let_go()
                staged.file.close()
            if self._view is not None and not self._borrowed:
                self._view.file.close()


def _facts_of(dataset: Any) -> Facts:
    maxshape = tuple(dataset.maxshape)
    packed = compression_of(dataset)
    return Facts(tuple(dataset.shape), dataset.dtype, dataset.chunks, maxshape, packed, dataset.fillvalue)


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
    held : callable, optional
        Bytes that others may hold back besides, now.
    asked : callable, optional
        Gives the block in which the dataset is altered (`StagedView.asked`).

    Attributes
    ----------
    untouched : bool
        Whether nothing was written yet.
    """

    def __init__(
        self,
        dataset: Any,
        path: str,
        cache: int,
        *,
        held: Callable[[], int] = lambda: 0,
        asked: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.path = path
        self.untouched = True
        self._dataset = dataset
        self._reserve = SPARE + cache
        self._held = held
        self._asked = asked
        self._limits = tuple(dataset.maxshape)
        # HDF5 does not keep padding, so the bytes that pass are not always those that are read back.
        padded = dataset.dtype.names is not None or dataset.dtype.char in "gG"
        self._hasher: BlockHasher | None = None if padded else BlockHasher(block_size(dataset.dtype.itemsize))
        self._next = 0

    def write(self, selection: Any, value: Any) -> None:
        """Write to the selected elements, as h5py does."""
        self.untouched = False
        nbytes = _selected(selection, self._dataset.shape) * self._dataset.dtype.itemsize
        ask_for_space(os.path.dirname(self.path), nbytes, self._reserve + self._held())
        rows = self._follows(selection, value)
        # Without a hasher until all is done: whatever interrupts this, the seal then reads the data back.
        hasher, self._hasher = self._hasher, None
        with self._asked():
            write_words(self._dataset, selection, value)
        if rows is not None and hasher is not None:
            _feed(hasher, value)
            self._next, self._hasher = rows, hasher

    def resize(self, size: Any, axis: int | None) -> None:
        """Change the shape, as h5py does."""
        before = self._dataset.shape
        axis = None if axis is None else _counted_from_0(axis, len(before))
        self.untouched = False
        try:
            _check_size(size, axis, before, self._limits)
            with self._asked():
                self._dataset.resize(size, axis)
        except (TypeError, ValueError, OverflowError) as error:
            example = ", ".join(map(str, before))
            hint = f"resize(n, axis=0), or the whole shape, as in resize(({example}{',' * (len(before) == 1)}))"
            raise BadRequest(f"the dataset can't be resized to {size!r}: {error}", hint=hint) from error
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


def _counted_from_0(axis: Any, ndim: int) -> int:
    """An axis that may be counted from the end, as NumPy does."""
    try:
        return range(ndim)[operator.index(axis)]
    except (TypeError, IndexError):
        known = f"0 to {ndim - 1}, or -1 for the last one" if ndim else "an array without axes can't be resized"
        raise BadRequest(f"axis={axis!r} is no axis of an array with {ndim}", hint=known) from None


def _check_size(size: Any, axis: int | None, shape: tuple[int, ...], limits: tuple[int | None, ...]) -> None:
    """Refuse a shape beyond the limits of the array; whatever makes no sense at all is left to h5py."""
    wanted = {axis: size} if axis is not None else dict(enumerate(size if hasattr(size, "__iter__") else (size,)))
    for at, length in wanted.items():
        limit = limits[at] if at < len(limits) else None
        if limit is not None and length > limit:
            raise BadRequest(
                f"the dataset can't be resized to {length:,} along axis {at}: it may have {limit:,} there at most",
                hint=f"allocate it with a larger maxshape= (now {limits}); None is without limit",
            )


def _has_dtype(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a value is written as the very bytes that it has: NumPy's own, and of this dtype."""
    # The class first: a dtype equals whatever NumPy can make it from, None and float among them.
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype == dtype


def _feed(hasher: BlockHasher, value: Any) -> None:
    for buffer in c_order_buffers(value):
        hasher.update(buffer)


def _is_whole(part: Any) -> bool:
    return part is Ellipsis or (type(part) is slice and part == slice(None))


def _selected(selection: Any, shape: tuple[int, ...]) -> int:
    """How many elements a selection has at most."""
    parts = as_tuple(selection)
    if any(part is Ellipsis for part in parts):
        return math.prod(shape)
    named = math.prod(_selected_along(part, length) for part, length in zip(parts, shape))
    return named * math.prod(shape[len(parts) :])


def _selected_along(part: Any, length: int) -> int:
    basic = along(part, length)
    return length if basic is None else basic[1]


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

"""Chunked HDF5 datasets whose filters run here, in two threads, and not inside HDF5.

Chunks are packed by threads and handed to HDF5 ready to be stored (``write_direct_chunk``); stored ones are taken as
they are (``read_direct_chunk``, or by their place in the file) and unpacked by two threads. What is in the file is what
HDF5's own pipeline would have put there. Datasets are passed in; h5py is imported in hdf.py.

Selections are `Region`s. For all others (lists, masks, fields) the caller uses h5py, after `PackedWriter.flush`
and, to write, within `PackedWriter.altered_by_hdf5`.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

from pyplantx.basics.interrupts import uninterrupted
from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject, WarehouseError
from pyplantx.specs.chunks import CACHE_LIMIT, Piece, Shape, cache_bytes, pieces
from pyplantx.specs.filters import Pipeline, Room, pipeline
from pyplantx.specs.library import SPARE, filled_elsewhere
from pyplantx.specs.parallel import for_each_block
from pyplantx.specs.scarce import keep_freed_memory
from pyplantx.specs.selections import Region, parse
from pyplantx.specs.unpacked import UnpackedChunks

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np

    from pyplantx.specs.library import StagedView
    from pyplantx.specs.pools import Pool

    Array = np.ndarray[Any, np.dtype[Any]]

Buffer = Any
#: What is stored of one chunk: the mask of filters that were left out, and the bytes; None if nothing is.
Stored = tuple[int, Buffer] | None

_THREADS = 2
_PLAIN = "biufcS"  #: kinds of elements whose bytes in memory are those in the file
_AT_ONCE = 1 << 20  #: bytes from which on a second thread is worth its start
_TOGETHER = 4 << 20  #: bytes of neighbouring chunks that one thread unpacks: a block of the file
_SLAB = 16 << 20  #: bytes that are read at once to be hashed
_MOST_FREED = 16 << 20  #: bytes of freed memory that are kept for the next chunks


class Packing(NamedTuple):
    """What must be known of a dataset to pack and unpack its chunks.

    Attributes
    ----------
    dtype : numpy.dtype
        Element type.
    chunks : tuple of int
        Shape of a chunk.
    fill : numpy scalar
        What elements are that are not stored.
    pipeline : Pipeline
        Its filters.
    """

    dtype: np.dtype[Any]
    chunks: Shape
    fill: Any
    pipeline: Pipeline

    @property
    def nbytes(self) -> int:
        """Bytes of an unpacked chunk."""
        return self.pipeline.nbytes


def packing_of(dataset: Any, *, packs: bool) -> Packing | None:
    """How the chunks of an h5py dataset are packed; None if its filters have to run inside HDF5.

    `packs` says whether chunks will be packed, or only unpacked. None is for datasets without filters, with filters
    that only HDF5 can run (fletcher32, others; lzf where it packs), and for elements whose bytes HDF5 may rearrange
    (structures, extended precision).
    """
    dtype, shape = dataset.dtype, dataset.chunks
    plist = dataset.id.get_create_plist()
    if shape is None or dtype.kind not in _PLAIN or dtype.char in "gG" or not plist.get_nfilters():
        return None
    listed = (plist.get_filter(place)[:3] for place in range(plist.get_nfilters()))
    made = pipeline(listed, math.prod(shape) * dtype.itemsize, packs=packs)
    return None if made is None else Packing(dtype, tuple(shape), dataset.fillvalue, made)


# -- reading ------------------------------------------------------------------------------------


def are_listed_rightly(dataset: Any) -> bool:
    """Whether HDF5 tells of each chunk where it lies.

    With one axis without limit, and that not the first, HDF5 keeps the places of chunks as if it were the first, and
    lists them as if it had not (seen in HDF5 2.0): all but some are said to be other chunks. Reading one by its number
    is right in any case.
    """
    limits = tuple(dataset.maxshape)
    return limits.count(None) != 1 or limits[0] is None


class ChunkTable:
    """Where the chunks of a closed file lie, so that HDF5 is not needed to read them; see `are_listed_rightly`.

    Parameters
    ----------
    dataset : h5py.Dataset
        Of the closed file.
    size : int
        Bytes of the file.
    fetch : callable
        ``fetch(start, nbytes)`` gives checked bytes of the file; called by several threads.

    Raises
    ------
    DamagedObject
        If a chunk is said to lie outside of the file.
    """

    def __init__(self, dataset: Any, size: int, fetch: Callable[[int, int], Buffer]) -> None:
        import numpy as np

        self._fetch = fetch
        self._grid = tuple(-(-length // part) for length, part in zip(dataset.shape, dataset.chunks))
        rows = sorted(self._rows(dataset))
        table = np.array(rows, "i8").reshape(-1, 4)
        self._numbers, self._masks, self._starts, self._sizes = table.T.copy()
        if len(rows) and (self._starts.min() < 0 or int((self._starts + self._sizes).max()) > size):
            raise DamagedObject("the HDF5 file is shorter than its chunks")

    def _rows(self, dataset: Any) -> list[tuple[int, int, int, int]]:
        rows: list[tuple[int, int, int, int]] = []

        def note(chunk: Any) -> None:
            place = tuple(at // part for at, part in zip(chunk.chunk_offset, dataset.chunks))
            rows.append((self._number(place), chunk.filter_mask, chunk.byte_offset, chunk.size))

        dataset.id.chunk_iter(note)
        return rows

    def _number(self, chunk: Shape) -> int:
        number = 0
        for place, count in zip(chunk, self._grid):
            number = number * count + place
        return number

    def __call__(self, chunk: Shape) -> Stored:
        number = self._number(chunk)
        row = int(self._numbers.searchsorted(number))
        if row == len(self._numbers) or self._numbers[row] != number:
            return None
        return int(self._masks[row]), self._fetch(int(self._starts[row]), int(self._sizes[row]))


def chunk_from_hdf5(dataset: Any, known: Packing, chunk: Shape) -> Stored:
    """What is stored of a chunk of a closed file, found by HDF5."""
    start = tuple(place * part for place, part in zip(chunk, known.chunks))
    try:
        mask, data = dataset.id.read_direct_chunk(start)
    except (OSError, RuntimeError, MemoryError, SystemError):
        # Nothing is stored: h5py says so, or takes what it finds in its memory for a size. Other trouble is met again.
        return unpacked_by_hdf5(dataset, known, start)
    return mask, data


def unpacked_by_hdf5(dataset: Any, known: Packing, start: Shape) -> Stored:
    """A chunk that HDF5 has unpacked: as one for which all filters were left out."""
    window = tuple(slice(at, at + part) for at, part in zip(start, known.chunks))
    return -1, padded(known, dataset[window])


def padded(known: Packing, value: Array) -> Array:
    """A whole chunk of one's own: what lies outside of the array is filled."""
    import numpy as np

    array = np.full(known.chunks, known.fill, known.dtype)
    array[tuple(slice(length) for length in value.shape)] = value
    return array


class PackedArray:
    """A chunked array whose chunks are unpacked in two threads.

    May be read by several threads at once.

    Parameters
    ----------
    known : Packing
        See `packing_of`.
    shape : tuple of int
        Lengths of the axes.
    load : callable, optional
        Gives what is stored of a chunk (such as a `ChunkTable`); called by several threads. Not for subclasses that
        know it themselves: a method of theirs kept here would be a cycle, and their file wait for the collector.
    limit : int
        Bytes of unpacked chunks that are kept because only a part of them was read.
    """

    def __init__(
        self, known: Packing, shape: Shape, load: Callable[[Shape], Stored] | None = None, *, limit: int = CACHE_LIMIT
    ) -> None:
        self.shape = shape
        self._known = known
        self._given = load
        self._kept: OrderedDict[Shape, Array] = OrderedDict()
        self._budget = limit
        self.limit = self._cache_limit()
        self._lock = threading.RLock()
        self._alone = _cores() < 2  # a thread would only take turns with us, and find its chunk out of the cache
        keep_freed_memory(min(4 * known.nbytes, _MOST_FREED))  # faulting one in takes longer than unpacking it
        self._writes = 0  # what was unpacked before a write is not kept after it

    def read(self, selected: Region) -> Array:
        """The selected elements, as a new array.

        Raises
        ------
        DamagedObject
            If a chunk can't be unpacked.
        """
        import numpy as np

        out = np.empty(selected.counts, self._known.dtype)
        touched = list(pieces(selected, self._known.chunks))
        several = len(touched) * self._known.nbytes >= _AT_ONCE and not self._alone
        # Neighbours go to one thread: their bytes share blocks of the file, and whoever comes first checks a block.
        step = max(1, min(_TOGETHER // self._known.nbytes, len(touched) // (2 * _THREADS)))

        def copy_some(index: int) -> None:
            for piece in touched[index * step : (index + 1) * step]:
                self._copy_out(piece, out)

        for_each_block(-(-len(touched) // step), copy_some, parallel=several)
        return out.reshape(selected.shape)

    def _load(self, chunk: Shape) -> Stored:
        assert self._given is not None
        return self._given(chunk)

    def forked(self) -> None:
        """In a forked child: a thread that was left behind may have the lock."""
        self._lock = threading.RLock()

    def _cache_limit(self) -> int:
        return cache_bytes(self.shape, self._known.chunks, self._known.dtype.itemsize, limit=self._budget)

    def digests(self) -> list[Digest]:
        """Digests of the logical blocks of all elements, read back in bounded pieces."""
        from pyplantx.fingerprint.value import BlockHasher, block_size

        hasher = BlockHasher(block_size(self._known.dtype.itemsize))
        for slab in self._slabs():
            hasher.update(self.read(slab).reshape(-1).view("u1"))
        return hasher.digests()

    def _slabs(self) -> Iterator[Region]:
        """Regions that cover the array in C order: whole rows of chunks where the budget allows, else thinner ones."""
        if 0 in self.shape:
            return
        row = self._known.dtype.itemsize * math.prod(self.shape)
        for axis, length in enumerate(self.shape):
            row //= length  # bytes per index along this axis
            if row <= self._budget or axis == len(self.shape) - 1:
                break
        part = self._known.chunks[axis]
        step = max(1, (_SLAB if part * row <= _SLAB else self._budget) // row)
        step = step // part * part or step
        for front in product(*map(range, self.shape[:axis])):
            yield from (self._region((*front, slice(at, at + step))) for at in range(0, length, step))

    def _region(self, selection: tuple[Any, ...]) -> Region:
        found = parse(selection, self.shape)
        assert found is not None
        return found

    def _wait_for(self, chunk: Shape) -> None:
        """Nothing is under way in an array that is only read."""

    def _copy_out(self, piece: Piece, out: Array) -> None:
        with self._lock:
            if self._copy_kept(piece, out):
                return
            writes = self._writes
            self._wait_for(piece.chunk)
        array = self._unpacked(piece.chunk)
        if array is None:
            out[piece.outside] = self._known.fill
            return
        out[piece.outside] = array[piece.inside]
        if not piece.whole:
            with self._lock:
                if writes == self._writes:
                    self._keep(piece.chunk, array)

    def _copy_kept(self, piece: Piece, out: Array) -> bool:
        """Take it from a chunk that is kept unpacked, if it is."""
        kept = self._kept.get(piece.chunk)
        if kept is None:
            return False
        self._kept.move_to_end(piece.chunk)
        out[piece.outside] = kept[piece.inside]
        return True

    def _unpacked(self, chunk: Shape) -> Array | None:
        import numpy as np

        stored = self._load(chunk)
        if stored is None:
            return None
        data = self._known.pipeline.unpack(*stored)
        return np.frombuffer(data, self._known.dtype).reshape(self._known.chunks)

    def _keep(self, chunk: Shape, array: Array) -> None:
        self._kept[chunk] = array
        self._kept.move_to_end(chunk)
        while len(self._kept) > max(1, self.limit // self._known.nbytes):
            self._let_go(next(iter(self._kept)))

    def _let_go(self, chunk: Shape) -> None:
        """What was only read can be read again."""
        del self._kept[chunk]


def _cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- writing ------------------------------------------------------------------------------------


def _interrupted(stop: BaseException) -> WarehouseError:
    return WarehouseError(
        f"the array was interrupted by {type(stop).__name__} while it was written, and elements of it are lost",
        hint="let the reactor end; it runs again when what it sends is asked for",
    )


class PackedWriter(PackedArray):
    """A chunked dataset that is being written: chunks are packed beside the caller, by two threads.

    Chunks that are written in part are kept unpacked until there are too many of them; then the one that was left
    alone for the longest is packed. One that is written to again after that waits unpacked on the disk from then on, if
    there is room. After an error every further call raises that error.

    Ctrl-C may be caught by a reactor that goes on. So signals wait while elements go from one place to another
    (`_moving`); between such steps each chunk is in a place where it is found.

    Parameters
    ----------
    known : Packing
        See `packing_of`.
    dataset : h5py.Dataset
        Open for writing; fresh.
    staged : StagedView
        Its file.
    limit : int
        Bytes of unpacked chunks that are kept, and of those under way.
    """

    def __init__(self, known: Packing, dataset: Any, staged: StagedView, *, limit: int = CACHE_LIMIT) -> None:
        super().__init__(known, tuple(dataset.shape), limit=limit)
        self._dataset = dataset
        self._staged = staged
        self._mine: set[Shape] = set()  # chunks that were stored from here
        self._others = False  # whether h5py may have stored more
        self._dirty: set[Shape] = set()  # of the kept ones
        self._on_disk = UnpackedChunks(staged.file.path, known.chunks, known.dtype)
        self._under_way: dict[Shape, Future[None]] = {}
        self._most = max(_THREADS, min(2 * _THREADS, limit // (3 * known.nbytes)))
        self._pool: Pool | None = None
        self._error: BaseException | None = None

    def write(self, selected: Region, value: Array) -> None:
        """Write the selected elements; the value is copied before this returns.

        Parameters
        ----------
        selected : Region
            Where.
        value : ndarray
            Of the very dtype or one that is cast to it, and a shape that can be broadcast to ``selected.shape``.

        Raises
        ------
        ValueError
            If it can't be broadcast.
        WarehouseError
            If a chunk, perhaps of an earlier call, could not be written.
        """
        import numpy as np

        spread = np.broadcast_to(value, selected.shape).reshape(selected.counts)
        with self._lock, np.errstate(over="ignore"):  # HDF5 makes infinities without a word
            self._raise_error()
            self._writes += 1
            for piece in pieces(selected, self._known.chunks):
                self._write_piece(piece, spread[piece.outside])

    def resize(self, size: Any, axis: int | None = None) -> None:
        """Change the dataset's shape as h5py does. What is appended at the end of a chunk goes into that chunk."""
        with self._lock:
            wanted = tuple(size) if axis is None else (*self.shape[:axis], size, *self.shape[axis + 1 :])
            smaller = any(length < now for length, now in zip(wanted, self.shape))
            if smaller:
                self.flush()
            with uninterrupted():
                with self._staged.asked():
                    self._dataset.resize(size, axis)
                self.shape = tuple(self._dataset.shape)
                self.limit = self._cache_limit()
                if smaller:
                    self._cut_off()

    def most_held(self) -> int:
        """Bytes of chunks that are on the disk, or may be kept or under way, before they are packed and written."""
        return max(self.limit, self._known.nbytes) + self._most * self._known.nbytes + self._on_disk.nbytes

    def flush(self) -> None:
        """Hand everything to HDF5.

        Raises
        ------
        WarehouseError
            If a chunk could not be written.
        """
        with self._lock:
            for chunk in sorted(self._dirty):
                with self._moving():
                    self._dirty.discard(chunk)
                    self._pack_later(chunk, self._kept.pop(chunk))
            self._pack_from_disk()
            while self._under_way:
                self._finish(next(iter(self._under_way)))
            self._raise_error()

    def _pack_from_disk(self) -> None:
        with self._moving():
            self._on_disk.check()
        for chunk in self._on_disk:
            with self._moving():
                self._pack_later(chunk, self._on_disk.read(chunk))
                self._on_disk.drop(chunk)

    @contextmanager
    def altered_by_hdf5(self) -> Iterator[None]:
        """A block after `flush` in which h5py writes; what it has written is seen from then on, even if it fails."""
        with self._lock, uninterrupted():
            try:
                yield
            finally:
                self._others = True
                self._forget()

    def forked(self) -> None:
        """In a forked child, which has neither the threads that pack nor a right to the file.

        Nor does it keep chunks: the parent goes on with its own, and gives their places on the disk to others.
        """
        super().forked()
        self._pool = None
        self._under_way.clear()
        self._dirty.clear()
        self._forget()
        self._on_disk.close()
        self._error = self._error or filled_elsewhere()

    def _forget(self) -> None:
        self._writes += 1
        self._kept.clear()

    def close(self) -> None:
        """End the threads; what was not flushed is lost."""
        with self._lock:
            self._kept.clear()
            self._dirty.clear()
            self._on_disk.close()
            pool, self._pool = self._pool, None
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            self._under_way.clear()
            self._error = None  # its frames have us, and whatever else the reactor held

    def _write_piece(self, piece: Piece, value: Array) -> None:
        if value.shape == self._known.chunks:
            self._replace(piece.chunk, self._copied(value))
            return
        if piece.chunk in self._on_disk:
            with self._lasting():
                self._on_disk.write(piece.chunk, piece.inside, value)
            return
        if piece.whole:  # so far: the array may still grow into the chunk's rest
            array = padded(self._known, value)
        else:
            array = self._for_writing(piece.chunk)
            array[piece.inside] = value
        self._kept[piece.chunk] = array  # first: what counts as dirty must be here, whatever comes between
        self._dirty.add(piece.chunk)
        self._keep(piece.chunk, array)

    def _replace(self, chunk: Shape, data: Room) -> None:
        with self._moving():
            self._kept.pop(chunk, None)
            self._dirty.discard(chunk)
            self._on_disk.drop(chunk)
            self._pack_later(chunk, data)

    def _copied(self, value: Array) -> Room:
        import numpy as np

        room = Room(self._known.nbytes)
        np.frombuffer(room.view(), self._known.dtype).reshape(self._known.chunks)[...] = value
        return room

    def _for_writing(self, chunk: Shape) -> Array:
        import numpy as np

        kept = self._kept.get(chunk)
        if kept is not None and kept.flags.writeable:
            return kept
        self._wait_for(chunk)
        array = kept if kept is not None else self._unpacked(chunk)
        if array is None:
            return np.full(self._known.chunks, self._known.fill, self._known.dtype)
        return array if array.flags.writeable else array.copy()

    def _load(self, chunk: Shape) -> Stored:
        start = tuple(place * part for place, part in zip(chunk, self._known.chunks))
        if chunk in self._mine:
            with self._staged.asked():
                mask, data = self._dataset.id.read_direct_chunk(start)
            return mask, data
        if not self._others:
            return None
        with self._staged.asked():
            return unpacked_by_hdf5(self._dataset, self._known, start)

    def _let_go(self, chunk: Shape) -> None:
        if chunk not in self._dirty:
            super()._let_go(chunk)
            return
        with self._moving():
            self._dirty.discard(chunk)
            array = self._kept.pop(chunk)
            if not (chunk in self._mine and self._on_disk.put(chunk, array, self._to_stay_free())):
                self._pack_later(chunk, array)

    def _to_stay_free(self) -> int:
        """Bytes of the disk that chunks which wait there must not take: what is still to be written may need them."""
        return 2 * SPARE + self.most_held() + math.prod(self.shape) * self._known.dtype.itemsize

    def _cut_off(self) -> None:
        """Forget chunks that a smaller shape has removed; HDF5 has filled up those that it cut."""
        self._others = True
        self._forget()
        ends = [-(-length // part) for length, part in zip(self.shape, self._known.chunks)]
        self._mine = {chunk for chunk in self._mine if all(place < end for place, end in zip(chunk, ends))}

    def _copy_kept(self, piece: Piece, out: Array) -> bool:
        if piece.chunk not in self._on_disk:
            return super()._copy_kept(piece, out)
        out[piece.outside] = self._on_disk.read(piece.chunk, piece.inside)
        return True

    # -- the threads

    def _pack_later(self, chunk: Shape, data: Array | Room) -> None:
        if chunk in self._under_way:
            self._finish(chunk)
        while len(self._under_way) >= self._most:
            self._finish(next(iter(self._under_way)))
        self._raise_error()
        if self._alone:
            self._pack(chunk, data)
        else:
            self._under_way[chunk] = self._threads().submit(self._pack, chunk, data)

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """A block in which elements go from one place to another.

        Signals wait for its end. Elements are lost by whatever is raised in it nevertheless, so every further call
        raises that too; what only stops a program, and may be caught, becomes an error that says so.
        """
        with uninterrupted():
            try:
                yield
            except BaseException as error:
                self._error = self._error or (error if isinstance(error, Exception) else _interrupted(error))
                raise

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """A block that alters a chunk in its place: errors last, Ctrl-C costs nothing but what is being written."""
        try:
            yield
        except Exception as error:
            self._error = self._error or error
            raise

    def _pack(self, chunk: Shape, unpacked: Array | Room) -> None:
        flat = unpacked if isinstance(unpacked, Room) else unpacked.reshape(-1).view("u1")
        mask, data = self._known.pipeline.pack(flat)
        start = tuple(place * part for place, part in zip(chunk, self._known.chunks))
        with self._staged.asked():
            self._dataset.id.write_direct_chunk(start, data, mask)
        self._mine.add(chunk)

    def _finish(self, chunk: Shape) -> None:
        from pyplantx.specs.pools import result_of

        try:
            result_of(self._under_way[chunk])
        except Exception as error:  # kept for whoever comes next
            self._error = self._error or error
        del self._under_way[chunk]

    def _wait_for(self, chunk: Shape) -> None:
        if chunk in self._under_way:
            self._finish(chunk)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _threads(self) -> Pool:
        if self._pool is None:
            from pyplantx.specs.pools import Pool

            self._pool = Pool(_THREADS, "pyplantx packing")
        return self._pool

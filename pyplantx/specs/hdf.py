"""HdfArraySpec: arrays larger than memory in an HDF5 file (specs/hdf is the written format).

The only importer of h5py, on first use. What the measurements say about HDF5 decides how it is used: a
file is written once, closed, and never opened for writing again; each write asks for free space first,
because HDF5 on a full disk can kill the interpreter; metadata carry checksums, and a file that was not
closed does not open (``libver='v110'``).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, CannotStore, DamagedObject
from pyplantx.specs.base import Allocation, Payload, Stage, Written
from pyplantx.specs.buffers import one_line
from pyplantx.specs.datasets import HdfDataset, Writer
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import BuiltinSpec, OptionalLibrary

if TYPE_CHECKING:
    pass

_PART = "data.h5"
_NAME = "data"  #: of the one dataset in the file
_CHUNK = 1 << 20  #: bytes that a chunk chosen by us aims at
_COMPRESSIONS = (None, "gzip", "lzf")
#: Filters that are read: deflate, shuffle, fletcher32, lzf. All others may come from plug-ins.
_FILTERS = frozenset({1, 2, 3, 32000})
_FORMAT = ("v110", "v110")
_ANY_DTYPE = "Ingredient.Type.array keeps any fixed-width dtype"


def _received(path: str) -> HdfDataset:
    return HdfDataset(_opened(path), again=(_received, (path,)))


class HdfArraySpec(BuiltinSpec):
    """An HDF5 dataset: allocated and filled by the reactor, or sent as an array; received lazily."""

    name = "hdf"

    def recognise(self, value: Any) -> bool:
        return isinstance(value, HdfDataset) or _is_h5py_dataset(value)

    def write(self, value: Any, stage: Stage) -> Written:
        source = value.inner if isinstance(value, HdfDataset) else value
        numpy = sys.modules.get("numpy")
        if not _is_h5py_dataset(source) and not (numpy and isinstance(source, numpy.ndarray)):
            raise CannotStore(
                f"value is a {type_name(type(value))}, neither an array nor an HDF5 dataset",
                hint="send a NumPy array or an h5py dataset, or allocate one with pipe.allocate",
            )
        options = {"chunks": source.chunks, "compression": source.compression} if _is_h5py_dataset(source) else {}
        if options.get("compression") not in _COMPRESSIONS:
            options = {"chunks": None, "compression": None}
        try:
            allocation = self.allocate(stage, shape=source.shape, dtype=_plain(source.dtype), **options)
        except BadRequest as error:
            raise CannotStore(f"value can't be kept as HDF5: {error}") from error
        return _filled(allocation, source)

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> HdfDataset:
        if tuple(payload.parts()) != (_PART,) or not payload.is_file(_PART):
            raise DamagedObject(f"an HDF array has the one file {_PART}, this one has {', '.join(payload.parts())}")
        path = payload.path(_PART)
        received = _received(path)
        dataset = received.inner
        found = (list(dataset.shape), _dtype_text(dataset.dtype))
        if found != (meta.get("shape"), meta.get("dtype")):
            dataset.file.close()
            raise DamagedObject(f"the dataset's shape and dtype are {found}, its record says otherwise: {dict(meta)}")
        return received

    def allocate(self, stage: Stage, **options: Any) -> Allocation:
        """Begin a dataset.

        Parameters
        ----------
        stage : Stage
            Where it will lie.
        shape : tuple of int
            Lengths of the axes.
        dtype : dtype-like, default float32
            Element type.
        chunks : tuple of int or True, optional
            Shape of a chunk. Chosen (whole rows near 1 MiB) if compression or maxshape need chunks.
        compression : {None, "gzip", "lzf"}, optional
            With `compression_opts` and `shuffle` as in h5py.
        maxshape : tuple of int or None, optional
            Limits for `resize`.
        fillvalue : scalar, optional
            What elements are that are never written.

        Returns
        -------
        Allocation
            Its handle is a writable `HdfDataset`.
        """
        h5py = _h5py()
        settings = _settings(**options)
        return _HdfAllocation(h5py, stage.path(_PART), settings)

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        return one_line(f"hdf {meta.get('dtype')} {tuple(meta.get('shape', ()))}")


def _h5py() -> Any:
    with OptionalLibrary("h5py", "an HDF array"):
        import h5py
    return h5py


def _is_h5py_dataset(value: Any) -> bool:
    h5py = sys.modules.get("h5py")
    return h5py is not None and isinstance(value, h5py.Dataset)


# -- writing ------------------------------------------------------------------------------------


def _settings(
    *,
    shape: Any = None,
    dtype: Any = None,
    chunks: Any = None,
    compression: str | None = None,
    compression_opts: Any = None,
    shuffle: bool | None = None,
    maxshape: Any = None,
    fillvalue: Any = None,
    **unknown: Any,
) -> dict[str, Any]:
    """What `create_dataset` is called with; `BadRequest` for what can't be."""
    from pyplantx.specs.arrays import checked_dtype, checked_shape

    if unknown:
        raise BadRequest(
            f"an HDF array can't be allocated with {', '.join(unknown)}=",
            hint="shape, dtype, chunks, compression, compression_opts, shuffle, maxshape and fillvalue are possible",
        )
    if shape is None:
        raise BadRequest("an HDF array can't be allocated without shape=", hint="shape=(500, 1000)")
    if compression not in _COMPRESSIONS:
        raise BadRequest(f"compression={compression!r} is not kept: other readers may lack it", hint='"gzip" or "lzf"')
    lengths = checked_shape(shape)
    made = checked_dtype("float32" if dtype is None else dtype)
    settings = {"shape": lengths, "dtype": made, "maxshape": maxshape, "fillvalue": fillvalue}
    wanted = (chunks is True or compression or shuffle or maxshape is not None) and lengths != ()
    if chunks in (None, True, False) and wanted:
        chunks = choose_chunks(maxshape or lengths, made.itemsize)
    packing = {"compression": compression, "compression_opts": compression_opts, "shuffle": shuffle}
    given = {name: value for name, value in packing.items() if value is not None}
    return {**settings, "chunks": chunks or None, **given}


def choose_chunks(shape: tuple[int | None, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of whole rows near 1 MiB: good for reading and writing along the first axis.

    Parameters
    ----------
    shape : tuple of int or None
        Lengths of the axes, or their limits; None is without limit.
    itemsize : int
        Bytes per element.

    Returns
    -------
    tuple of int
        Shape of a chunk: as many of the last axes whole as fit, then a part of one, then ones.
    """
    room = max(1, _CHUNK // itemsize)
    chunks: list[int] = []
    for length in reversed(shape):
        part = max(1, min(room, room if length is None else length))
        chunks.append(part)
        room //= part
        room = max(1, room)
    return tuple(reversed(chunks))


class _HdfAllocation:
    def __init__(self, h5py: Any, path: str, settings: dict[str, Any]) -> None:
        self._path = path
        chunks = settings["chunks"] or ()
        cache = min(32 << 20, max(1 << 20, 4 * math.prod(chunks) * settings["dtype"].itemsize))
        # Nobody else sees a staged file, and some file systems have no locks.
        self._file = h5py.File(path, "x", libver=_FORMAT, locking="best-effort", rdcc_nbytes=cache)
        try:
            dataset = _created(self._file, settings)
        except BaseException:
            self._file.close()
            raise
        self._writer = Writer(dataset, path, cache if chunks else 0)
        self.handle = HdfDataset(dataset, writer=self._writer)

    def seal(self) -> Written:
        """Close the file for good, and open it once more for reading: the handle reads on."""
        self.handle.settle(self.handle.inner)
        digests = self._writer.digests()
        try:
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise CannotStore(f"HDF5 could not finish the file: {error}", hint="is the disk full?") from error
        dataset = _opened(self._path)
        self.handle.settle(dataset)
        if digests is None:
            digests = _read_back(dataset)
        meta = {"shape": list(dataset.shape), "dtype": _dtype_text(dataset.dtype)}
        return Written(_tree(dataset, digests), meta)

    def discard(self) -> None:
        self.handle.settle(self.handle.inner)
        self._file.close()


def _created(file: Any, settings: dict[str, Any]) -> Any:
    dtype = settings["dtype"]
    try:
        dataset = file.create_dataset(_NAME, **settings)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"HDF5 can't keep such an array: {error}", hint=_ANY_DTYPE) from error
    if dataset.dtype != dtype:
        raise BadRequest(f"HDF5 keeps {dtype} as {dataset.dtype}", hint=_ANY_DTYPE)
    return dataset


def _plain(dtype: Any) -> Any:
    """Text of fixed width without the note about its encoding that h5py gives to what it has read."""
    import numpy as np

    return np.dtype(dtype.str) if dtype.kind == "S" else dtype


def _filled(allocation: Allocation, source: Any) -> Written:
    try:
        for rows in _slabs(source.shape, source.dtype.itemsize):
            allocation.handle[rows] = source[rows]
        return allocation.seal()
    except BaseException:
        allocation.discard()
        raise


def _slabs(shape: tuple[int, ...], itemsize: int) -> Iterator[Any]:
    """Selections that cover an array in C order, each of about one block, of whole rows if they are small."""
    from pyplantx.fingerprint.value import BLOCK

    if not shape:
        yield ()
        return
    row = math.prod(shape[1:]) * itemsize
    if row > BLOCK and len(shape) > 1:
        for index in range(shape[0]):
            yield from ((index, *_as_tuple(rest)) for rest in _slabs(shape[1:], itemsize))
        return
    step = max(1, BLOCK // max(1, row))
    yield from (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _as_tuple(selection: Any) -> tuple[Any, ...]:
    return selection if isinstance(selection, tuple) else (selection,)


def _read_back(dataset: Any) -> list[Digest]:
    import numpy as np

    from pyplantx.fingerprint.value import BlockHasher, block_size

    hasher = BlockHasher(block_size(dataset.dtype.itemsize))
    if dataset.size:
        for rows in _slabs(dataset.shape, dataset.dtype.itemsize):
            hasher.update(np.ascontiguousarray(dataset[rows]).reshape(-1).view("u1"))
    return hasher.digests()


def _tree(dataset: Any, digests: list[Digest]) -> Digest:
    from pyplantx.fingerprint.value import array_header, combine

    return combine(array_header(dataset.dtype, dataset.shape, "hdf"), digests)


def _dtype_text(dtype: Any) -> str:
    return str(dtype.str) if dtype.names is None else str(dtype.descr)


# -- reading ------------------------------------------------------------------------------------


def _opened(path: str) -> Any:
    """The dataset of a closed file, opened for reading and checked."""
    h5py = _h5py()
    try:
        # Sealed files never have a writer, so there is nothing to lock against.
        file = h5py.File(path, "r", libver=_FORMAT, locking=False)
    except OSError as error:
        raise DamagedObject(f"the file is not an HDF5 file that was closed properly: {error}") from error
    try:
        return _checked(h5py, file)
    except DamagedObject:
        file.close()
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py makes of broken structures
        file.close()
        raise DamagedObject(f"the HDF5 file can't be read: {error}") from error


def _checked(h5py: Any, file: Any) -> Any:
    """The file's one dataset, if it can't lead a reader astray (outside files, code, endless data)."""
    _must(list(file) == [_NAME], f"holds {sorted(file)[:5]} instead of the one dataset 'data'")
    link = file.get(_NAME, getlink=True)
    _must(type(link) is h5py.HardLink, f"reaches its data through a {type(link).__name__}")
    dataset = file[_NAME]
    _must(isinstance(dataset, h5py.Dataset), f"holds a {type(dataset).__name__} instead of a dataset")
    plist = dataset.id.get_create_plist()
    _must(not dataset.external and not plist.get_external_count(), "keeps its data in another file (external storage)")
    _must(not dataset.is_virtual, "takes its data from other files (a virtual dataset)")
    _must(not _holds_objects(h5py, dataset.dtype), f"holds elements of variable size or references ({dataset.dtype})")
    filters = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
    _must(filters <= _FILTERS, f"uses filters that are not read: {sorted(filters - _FILTERS)}")
    if plist.get_layout() == h5py.h5d.CONTIGUOUS:
        stored = dataset.id.get_storage_size()
        _must(stored in (0, dataset.nbytes), f"claims {dataset.nbytes:,} bytes of data, {stored:,} are there")
        _must(stored <= os.stat(file.filename).st_size, "is shorter than its data")
    return dataset


def _holds_objects(h5py: Any, dtype: Any) -> bool:
    if dtype.subdtype is not None:
        return _holds_objects(h5py, dtype.subdtype[0])
    if dtype.names is not None:
        return any(_holds_objects(h5py, dtype.fields[name][0]) for name in dtype.names)
    return bool(dtype.hasobject) or h5py.check_ref_dtype(dtype) is not None


def _must(holds: bool, trouble: str) -> None:
    if not holds:
        raise DamagedObject(f"the HDF5 file {trouble}")

"""HdfArraySpec: arrays larger than memory in an HDF5 file (specs/hdf is the written format).

The only importer of h5py, on first use. What the measurements say about HDF5 decides how it is used: an uncompressed
dataset in one piece is made by HDF5, which is then asked no more (unchunked.py); of all others a file is written once,
closed, and never opened for writing again. HDF5 reads and writes through functions of ours which never fail, because it
can end the interpreter after a write that did (library.py); metadata carry checksums (``libver='v110'``), and a file
that was not closed does not open, because its signature is written last.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyplantx.basics.loaded import is_of
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, MissingLibrary, shown
from pyplantx.specs.base import Allocation, CheckedFile, Payload, Stage, Written
from pyplantx.specs.buffers import one_line
from pyplantx.specs.datasets import Backend, HdfDataset
from pyplantx.specs.masks import check_sent
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import CHUNK_MEMORY, BuiltinSpec, OptionalLibrary, unknown_options

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.specs.chunked import H5Backend
    from pyplantx.specs.library import FileView, StagedView
    from pyplantx.specs.rawfile import Readable
    from pyplantx.specs.unchunked import RawBackend

_PART = "data.h5"
_NAME = "data"  #: of the one dataset in the file
#: What h5py makes of broken structures.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError)
_FORMAT = ("v110", "v110")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MARK = 11  #: place of the superblock's byte that says whether the file is open for writing
_ANY_DTYPE = "Ingredient.Type.array keeps any fixed-width dtype"
_OPTIONS = (
    *("shape", "dtype", "chunks", "axis", "blocks"),
    *("compression", "compression_opts", "shuffle", "maxshape", "fillvalue"),
)
_TUNED = ("chunks", "maxshape", "compression_opts", "fillvalue")  #: what of an array can be wrong besides its dtype
_PAGE = 4096  #: where elements begin that are read and written without HDF5
_LONGEST_HEAD = 1 << 20  #: bytes before the elements
_LARGE = 64 << 10  #: bytes from which on a dataset begins at a page
_SLAB = 16 << 20  #: bytes that are copied at once from one dataset to another


class HdfArraySpec(BuiltinSpec):
    """An HDF5 dataset: allocated and filled by the reactor, or sent as an array; received lazily."""

    name = "hdf"

    def recognise(self, value: Any) -> bool:
        return isinstance(value, HdfDataset) or _is_h5py_dataset(value)

    def write(self, value: Any, stage: Stage) -> Written:
        check_sent(value, "an HDF array")
        is_dataset = self.recognise(value)
        if not is_dataset and not is_of(value, "numpy", "ndarray"):
            raise CannotStore(
                f"value is a {type_name(type(value))}, neither an array nor an HDF5 dataset",
                hint="send a NumPy array or an h5py dataset, or allocate one with pipe.allocate",
            )
        if is_dataset and not isinstance(value, HdfDataset) and not value:
            raise CannotStore(
                "value is an h5py dataset whose file is closed",
                hint="send it before the file is closed, or what it holds: dataset[...]",
            )
        options = _layout_of(value) if is_dataset else {}
        try:
            allocation = self.allocate(stage, shape=value.shape, dtype=_plain(value.dtype), **options)
        except BadRequest as error:
            raise CannotStore(f"value can't be kept as HDF5: {error}") from error
        return _filled(allocation, value, is_dataset)

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> HdfDataset:
        if tuple(payload.parts()) != (_PART,) or not payload.is_file(_PART):
            raise DamagedObject(f"an HDF array has the one file {_PART}, this one has {', '.join(payload.parts())}")
        if "offset" not in meta:
            _h5py()  # a missing library is told before the file is touched
        file = payload.open_checked(_PART)
        try:
            limit = self.services.chunk_memory
            backend = _backend(file, meta, lambda writable: payload.map(_PART, writable), limit)
        except BaseException:
            file.close()
            raise
        return HdfDataset(backend, again=(_received, (file, dict(meta))))

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
            Shape of a chunk. Chosen (near 1 MiB) if compression, maxshape, `axis` or `blocks` need chunks. Without
            chunks the data lie in one piece, which is the fastest. A shape excludes `axis` and `blocks`.
        axis : int or several, optional
            Chunks are made for slabs across these axes; default 0: whole rows. See `chunks.choose`.
        blocks : tuple of int or None, optional
            Chunks are made to tile these blocks.
        compression : {None, "gzip", "lzf", "blosc2", "zstd", "lz4", "bitshuffle"}, optional
            With `compression_opts` and `shuffle` as in h5py. All but the first two need the package hdf5plugin.
        maxshape : tuple of int or None, or True, optional
            Limits for `resize`; None is an axis without limit, and True are only such axes.
        fillvalue : scalar, optional
            What elements are that are never written.

        Returns
        -------
        Allocation
            Its handle is a writable `HdfDataset`.

        Raises
        ------
        BadRequest
            If the options are impossible.
        MissingLibrary
            If the compression needs hdf5plugin, and that is not installed.
        WarehouseFull
            If the disk has no room for a dataset in one piece.
        """
        settings = _settings(**options)
        h5py = _h5py()
        if _is_raw(settings):
            return _HdfAllocation(stage, _new_raw(h5py, stage.path(_PART), settings))
        return _HdfAllocation(stage, _new_h5(h5py, stage.path(_PART), settings, self.services.chunk_memory))

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        return one_line(f"hdf {meta.get('dtype')} {tuple(meta.get('shape', ()))}")


def _layout_of(value: Any) -> dict[str, Any]:
    """The options with which a dataset is stored as it is: its chunks and its compression, if we know that."""
    from pyplantx.specs.filters import COMPRESSIONS, compression_of

    packed = value.compression if isinstance(value, HdfDataset) else compression_of(value)
    return {"chunks": value.chunks, "compression": packed} if packed in (None, *COMPRESSIONS) else {}


def _h5py() -> Any:
    with OptionalLibrary("h5py", "an HDF array"):
        import h5py
    return h5py


def _is_h5py_dataset(value: Any) -> bool:
    return is_of(value, "h5py", "Dataset")


# -- writing ------------------------------------------------------------------------------------


def _settings(
    *,
    shape: Any = None,
    dtype: Any = None,
    chunks: Any = None,
    axis: Any = None,
    blocks: Any = None,
    compression: str | None = None,
    compression_opts: Any = None,
    shuffle: bool | None = None,
    maxshape: Any = None,
    fillvalue: Any = None,
    **unknown: Any,
) -> dict[str, Any]:
    """What `create_dataset` is called with; `BadRequest` for what can't be."""
    from pyplantx.specs import filters
    from pyplantx.specs.arrays import check_extent, checked_dtype, checked_shape
    from pyplantx.specs.chunks import check_alone, choose

    if unknown:
        raise unknown_options("an HDF array", unknown, _OPTIONS)
    if shape is None:
        raise BadRequest("an HDF array can't be allocated without shape=", hint="shape=(500, 1000)")
    check_alone(chunks, axis, blocks)
    chunks = chunks if chunks is None or isinstance(chunks, bool) else checked_shape(chunks, "chunks", least=1)
    lengths = checked_shape(shape)
    made = checked_dtype("float32" if dtype is None else dtype)
    check_extent(lengths, made, "an HDF array")
    limits = _limits(maxshape, len(lengths))
    settings = {"shape": lengths, "dtype": made, "maxshape": limits, "fillvalue": _fill_of(made, fillvalue)}
    given = filters.settings(compression, compression_opts, shuffle)
    single = not (lengths or limits) and chunks in (None, True, False, ())
    if single or (limits is None and 0 in lengths):
        return {**settings, "chunks": None}  # one element at most, so there is nothing to cut or to pack
    asked = chunks is True or axis is not None or blocks is not None
    if chunks in (None, True, False) and lengths and (asked or compression or shuffle or limits is not None):
        chunks = choose(lengths, made.itemsize, maxshape=limits, axis=axis, blocks=blocks)
    cut = None if isinstance(chunks, bool) else chunks or None
    check_extent(cut or (), made, "a chunk")
    return {**settings, "chunks": cut, **given}


def _fill_of(dtype: np.dtype[Any], fillvalue: Any) -> Any:
    """A number of the array's own type where HDF5 converts no other ones to it: 1 of truth values, 1.5 of complex.

    Raises
    ------
    BadRequest
        If there are several, of which h5py takes the first.
    """
    import numpy as np

    if dtype.names is None and np.ndim(fillvalue):
        raise BadRequest(f"fillvalue={shown(fillvalue)} is not one element of {dtype}", hint="fillvalue=0")
    given = np.asarray(fillvalue)
    if dtype.kind not in "bc" or given.dtype.kind not in "biufc":
        return fillvalue  # HDF5 converts it, or says what is wrong with it
    return given.astype(dtype)[()]


def _limits(maxshape: Any, ndim: int) -> tuple[int | None, ...] | None:
    """How far the axes may grow, of what h5py takes for it; True, which it takes of some, is without limit."""
    if maxshape is True:
        return (None,) * ndim
    return tuple(maxshape) if isinstance(maxshape, Iterable) else None if maxshape is None else (maxshape,)


class _HdfAllocation:
    """The `pyplantx.specs.base.Allocation` of a dataset."""

    def __init__(self, stage: Stage, backend: RawBackend | H5Backend) -> None:
        self._stage = stage
        self._backend = backend
        self.handle: Any = HdfDataset(backend)

    def seal(self) -> Written:
        """Close the file for good; the handle reads on."""
        digests, layout = self._backend.finish()
        facts = self._backend.facts
        meta: dict[str, Any] = {"shape": list(facts.shape), "dtype": _dtype_text(facts.dtype)}
        if layout is not None:
            self._stage.describe(_PART, layout, digests)
            meta["offset"] = layout.head
        return Written(_tree(facts, digests), meta)

    def let_go_of_handle(self) -> None:
        """See `pyplantx.specs.base.Allocation`."""
        self.handle = None

    def discard(self) -> None:
        self._backend.close()


def _is_raw(settings: dict[str, Any]) -> bool:
    """Whether HDF5 makes no more than the file: one piece of plain elements that begin as zeros."""
    import numpy as np

    dtype, fill = settings["dtype"], settings["fillvalue"]
    if settings["chunks"] or settings["maxshape"] is not None or not math.prod(settings["shape"]):
        return False
    try:
        zeros = fill is None or not any(np.asarray(fill, dtype).tobytes())
    except (TypeError, ValueError, OverflowError):
        return False  # HDF5 says what is wrong with it
    return zeros and settings["shape"] != () and _is_plain(dtype)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are the same bytes in memory and in the file, padding apart from none."""
    own = dtype.type.__module__ == "numpy" and dtype.metadata is None and dtype.itemsize > 0
    return own and dtype.kind in "biufcS" and dtype.char not in "gG"


def _new_raw(h5py: Any, path: str, settings: dict[str, Any]) -> RawBackend:
    """A file that HDF5 has made and closed, with room for all elements."""
    from pyplantx.specs.library import StagedView, ask_for_space
    from pyplantx.specs.rawfile import RawArray, RawFile
    from pyplantx.specs.unchunked import RawBackend

    shape, dtype = settings["shape"], settings["dtype"]
    nbytes = math.prod(shape) * dtype.itemsize
    ask_for_space(os.path.dirname(path), nbytes)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # what is never written stays a hole: zeros
    pages = {"alignment_threshold": _LARGE, "alignment_interval": _PAGE}
    view = StagedView(RawFile(path, writable=True, new=True))
    with view.asked(), h5py.File(view, "x", libver=_FORMAT, **pages) as file:
        offset = _created(file, {"shape": shape, "dtype": dtype, "dcpl": plist}).id.get_offset()
    view.complete()
    return RawBackend(_HDF5, RawArray(view.file, shape, dtype, offset), path=path)


def _new_h5(h5py: Any, path: str, settings: dict[str, Any], limit: int) -> H5Backend:
    """A file that stays open in HDF5 until the seal."""
    from pyplantx.specs.chunks import cache_bytes, cache_slots
    from pyplantx.specs.library import StagedView
    from pyplantx.specs.packed import PackedBackend
    from pyplantx.specs.rawfile import RawFile

    shape, chunks, width = settings["shape"], settings["chunks"] or (), settings["dtype"].itemsize
    cache = cache_bytes(shape, chunks, width, limit=limit) if shape and chunks else 0
    slots = cache_slots(cache, math.prod(chunks) * width)
    view = StagedView(RawFile(path, writable=True, new=True), cache + 2 * math.prod(chunks) * width)
    with view.asked():
        file = h5py.File(view, "x", libver=_FORMAT, rdcc_nbytes=cache, rdcc_nslots=slots)
        try:
            return PackedBackend(_HDF5, dataset=_created(file, settings), staged=view, cache=cache, limit=limit)
        except BaseException:
            with view.ending():
                file.close()
            raise


def _created(file: Any, settings: dict[str, Any]) -> Any:
    dtype = settings["dtype"]
    try:
        dataset = file.create_dataset(_NAME, **settings)
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
        AttributeError,
    ) as error:  # the last: fillvalue=1 of "S4"
        raise BadRequest(f"HDF5 can't keep such an array: {error}", hint=_what_to_change(settings)) from error
    if dataset.dtype != dtype:
        raise BadRequest(f"HDF5 keeps {dtype} as {dataset.dtype}", hint=_ANY_DTYPE)
    return dataset


def _what_to_change(settings: dict[str, Any]) -> str:
    """What may be wrong with an array that HDF5 refuses: the dtype if that is not its own, else the other options."""
    try:
        _h5py().h5t.py_create(settings["dtype"], logical=True)
    except (TypeError, ValueError):
        return _ANY_DTYPE
    given = [f"{name}={value!r}" for name, value in settings.items() if name in _TUNED and value is not None]
    return "change " + " or ".join(given) if given else _ANY_DTYPE


def _plain(dtype: Any) -> Any:
    """Text of fixed width without the note about its encoding that h5py gives to what it has read."""
    import numpy as np

    return np.dtype(dtype.str) if dtype.kind == "S" else dtype


def _filled(allocation: Allocation, source: Any, in_slabs: bool) -> Written:
    from pyplantx.specs.selections import slabs

    whole = not in_slabs and allocation.handle.chunks is None and source.ndim
    try:
        for rows in [...] if whole else slabs(source.shape, source.dtype.itemsize, _SLAB):
            allocation.handle[rows] = source[rows]
        return allocation.seal()
    except BaseException:
        allocation.discard()
        raise


def _tree(facts: Any, digests: list[Digest]) -> Digest:
    from pyplantx.fingerprint.value import array_header, combine

    return combine(array_header(facts.dtype, facts.shape, "hdf"), digests)


def _dtype_text(dtype: Any) -> str:
    return str(dtype.str) if dtype.names is None else str(dtype.descr)


# -- reading ------------------------------------------------------------------------------------


def _received(file: CheckedFile, meta: Mapping[str, Any]) -> HdfDataset:
    """A dataset of a sealed file, in another process than the one that received it."""
    return HdfDataset(_backend(file, meta, file.map), again=(_received, (file, meta)))


def _backend(file: Readable, meta: Mapping[str, Any], map_file: Any = None, limit: int = CHUNK_MEMORY) -> Backend:
    """Where the elements of a sealed file are: at the offset that its record tells, else where HDF5 says."""
    from pyplantx.specs.packed import PackedBackend
    from pyplantx.specs.unchunked import RawBackend

    array = _recorded(file, meta) if "offset" in meta else None
    if array is not None:
        return RawBackend(_HDF5, array, map_file=map_file)
    backend = PackedBackend(_HDF5, source=file, limit=limit)
    try:
        _must_be_as_recorded(backend.facts, meta)
        array = _in_one_piece(file, backend)
    except BaseException:
        backend.close()
        raise
    if array is None:
        return backend
    backend.let_go()
    return RawBackend(_HDF5, array, map_file=map_file)


def _recorded(file: Readable, meta: Mapping[str, Any]) -> Any:
    """The array that the record says to be in the file, which ends with it."""
    import numpy as np

    from pyplantx.specs.rawfile import RawArray

    try:
        shape, offset = tuple(meta["shape"]), meta["offset"]
        dtype = np.dtype(meta["dtype"])
        whole = all(type(number) is int and number >= 0 for number in (*shape, offset)) and _is_plain(dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedObject(f"the record of an HDF array can't be read: {dict(meta)}") from error
    if not whole or not shape or offset > _LONGEST_HEAD or offset + math.prod(shape) * dtype.itemsize != file.size:
        raise DamagedObject(f"an HDF5 file of {file.size:,} bytes is not what its record says: {dict(meta)}")
    head = bytearray(offset)
    file.read_into(head, 0)  # a damaged one is found now, and not by whoever opens the file by other means
    if not head.startswith(_SIGNATURE):
        raise DamagedObject(f"the file is not an HDF5 file: it begins with {bytes(head[:8])!r}")
    return RawArray(file, shape, dtype, offset)


def _must_be_as_recorded(facts: Any, meta: Mapping[str, Any]) -> None:
    found = (list(facts.shape), _dtype_text(facts.dtype))
    if found != (meta.get("shape"), meta.get("dtype")):
        raise DamagedObject(f"the dataset's shape and dtype are {found}, its record says otherwise: {dict(meta)}")


def _in_one_piece(file: Readable, backend: H5Backend) -> Any:
    """The dataset as an array at an offset of the file; None if it is not one."""
    from pyplantx.specs.rawfile import RawArray

    facts = backend.facts
    dtype = _plain(facts.dtype)
    if not facts.shape or facts.chunks or not _is_plain(dtype) or backend.offset is None:
        return None
    return RawArray(file, facts.shape, dtype, backend.offset)


class _Hdf5:
    """The `pyplantx.specs.library.Library` that is HDF5."""

    def opened(self, file: FileView) -> Any:
        """See `Library.opened`."""
        h5py = _h5py()
        file.seek(_MARK)
        if any(file.read(1)):  # HDF5 itself looks at it in files that it opens by their path
            raise DamagedObject("the file is not an HDF5 file that was closed properly: it is marked as being written")
        try:
            opened = h5py.File(file, "r", libver=_FORMAT)
        except OSError as error:
            _end_with_python(h5py)
            raise DamagedObject(f"the file is not an HDF5 file that was closed properly: {error}") from error
        try:
            return _checked(h5py, opened, file.file.size)
        except (DamagedObject, MissingLibrary):
            opened.close()
            raise
        except _BROKEN as error:
            opened.close()
            raise DamagedObject(f"the HDF5 file can't be read: {error}") from error

    @contextmanager
    def altering(self, file: StagedView) -> Iterator[Any]:
        """See `Library.altering`."""
        with file.asked(), _h5py().File(file, "r+", libver=_FORMAT) as opened:
            yield opened[_NAME]
        file.complete()

    def cast(self, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """See `Library.cast`."""
        import numpy as np

        types = _h5py().h5t
        buffer = np.zeros(array.size * max(array.itemsize, dtype.itemsize), "u1")
        buffer[: array.nbytes] = array.reshape(-1).view("u1")
        try:
            types.convert(types.py_create(array.dtype), types.py_create(dtype), array.size, buffer)
        except TypeError as error:
            raise BadRequest(
                f"HDF5 doesn't convert {array.dtype} to {dtype}: {error}", hint="convert the value with astype"
            ) from error
        made = buffer[: array.size * dtype.itemsize]
        return (made != 0 if dtype.kind == "b" else made.view(dtype)).reshape(array.shape)


_HDF5 = _Hdf5()


_ended_with_python: list[Any] = []  #: HDF5, once it has to end before the interpreter


def _end_with_python(h5py: Any) -> None:
    """See to it that HDF5 ends while there is an interpreter.

    HDF5 keeps a file open that it could not open, and would close it when the process has ended, by functions of an
    interpreter that is no more.
    """
    if not _ended_with_python:
        _ended_with_python.append(h5py)
        atexit.register(_end_hdf5)


def _end_hdf5() -> None:
    import ctypes

    from pyplantx.specs.chunked import close_all

    close_all()
    ctypes.PyDLL(_ended_with_python[0].h5.__file__).H5close()


def _checked(h5py: Any, file: Any, size: int) -> Any:
    """The file's one dataset, if it can't lead a reader astray (outside files, code, endless data)."""
    from pyplantx.specs import filters

    _must(list(file) == [_NAME], f"holds {sorted(file)[:5]} instead of the one dataset 'data'")
    link = file.get(_NAME, getlink=True)
    _must(type(link) is h5py.HardLink, f"reaches its data through a {type(link).__name__}")
    dataset = file[_NAME]
    _must(isinstance(dataset, h5py.Dataset), f"holds a {type(dataset).__name__} instead of a dataset")
    _must(dataset.shape is not None, "holds a dataset without elements (a null space)")
    plist = dataset.id.get_create_plist()
    _must(not dataset.external and not plist.get_external_count(), "keeps its data in another file (external storage)")
    _must(not dataset.is_virtual, "takes its data from other files (a virtual dataset)")
    _must(not _holds_objects(h5py, dataset.dtype), f"holds elements of variable size or references ({dataset.dtype})")
    used = {plist.get_filter(index)[0] for index in range(plist.get_nfilters())}
    known = filters.BUILT_IN | filters.PLUGINS
    _must(used <= known, f"uses filters that are not read: {sorted(used - known)}")
    filters.require(used)
    if plist.get_layout() == h5py.h5d.CONTIGUOUS:
        stored = dataset.id.get_storage_size()
        _must(stored in (0, dataset.nbytes), f"claims {dataset.nbytes:,} bytes of data, {stored:,} are there")
        _must(stored + (dataset.id.get_offset() or 0) <= size, "is shorter than its data")
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

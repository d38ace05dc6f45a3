"""ZarrArraySpec: chunked arrays as Zarr version 3, each chunk a file (specs/zarr is the written format).

zarr is imported on first use. An object's folder is a Zarr store as it stands (``zarr.open_array(folder)``): chunk keys
have dots, so that they are names of parts, and each chunk has its own checksum, looked at when it is first read; those
of a small array when it is opened.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pyplantx.basics.loaded import is_of
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, MissingLibrary, PyplantxError, check_choice
from pyplantx.specs.base import Allocation, Payload, Stage, Written
from pyplantx.specs.buffers import one_line
from pyplantx.specs.chunks import check_alone, choose
from pyplantx.specs.masks import check_sent
from pyplantx.specs.plain import type_name
from pyplantx.specs.selections import slabs
from pyplantx.specs.services import BuiltinSpec, OptionalLibrary, check_uncompressed, make_compressor, unknown_options
from pyplantx.specs.zarrarray import ZARR_ERRORS, Watcher, ZarrArray
from pyplantx.specs.zarrthreads import answer_of, entering

if TYPE_CHECKING:
    from pyplantx.specs.rawfile import Readable
    from pyplantx.specs.zarrstore import Folder

_HEAD = "zarr.json"
_AIM = 16 << 20  #: bytes of a chunk that we choose: each is a file, with a checksum and a sync of its own
_MOST_FILES = 4096
_AT_ONCE = 1 << 20  #: bytes that are checked when an array is opened, the others when they are read
_SLAB = 64 << 20  #: bytes that are copied or hashed at once
#: Element types that Zarr keeps as they are: numbers of native byte order.
_KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_OPTIONS = (
    *("shape", "dtype", "chunks", "shards", "axis", "blocks"),
    *("compression", "compression_opts", "fillvalue"),
)
#: Name of a compression -> zarr's class for it, and what a lone number in `compression_opts=` means.
_COMPRESSIONS = {"zstd": ("ZstdCodec", "level"), "gzip": ("GzipCodec", "level"), "blosc": ("BloscCodec", "clevel")}
#: Codecs that are read: no others, since a codec is code that an installed package may add under any name.
_CODECS = frozenset({"bytes", "zstd", "gzip", "blosc", "sharding_indexed", "crc32c"})


class ZarrArraySpec(BuiltinSpec):
    """A Zarr version 3 array: allocated and filled by the reactor, or sent as an array; received lazily.

    A received array opens a chunk when it is read. So unlike an HDF array it can't be read any more once its version
    was collected: nothing is while a plant is open that has given it away, and afterwards nothing that is pinned.
    """

    name = "zarr"

    def recognise(self, value: Any) -> bool:
        return isinstance(value, ZarrArray) or _is_zarr(value)

    def write(self, value: Any, stage: Stage) -> Written:
        check_sent(value, "a Zarr array")
        source = value.inner if isinstance(value, ZarrArray) else value
        if not _is_zarr(source) and not is_of(source, "numpy", "ndarray"):
            raise CannotStore(
                f"value is a {type_name(type(value))}, neither a NumPy nor a Zarr array",
                hint="send an array, or allocate one with pipe.allocate",
            )
        chunks = tuple(source.chunks) if _is_zarr(source) else None
        try:
            allocation = self.allocate(stage, shape=source.shape, dtype=source.dtype, chunks=chunks)
        except BadRequest as error:
            raise CannotStore(f"value can't be kept as Zarr: {error}") from error
        return _filled(allocation, source)

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> ZarrArray:
        _zarr()  # a missing library is told before a file is touched
        parts = tuple(payload.parts())
        if _HEAD not in parts:
            raise DamagedObject(f"a Zarr array without its part {_HEAD}")
        _check_head(payload.read(_HEAD), parts)
        _check_first(payload, parts)
        array = _opened(parts, lambda part: _opened_part(payload, part), meta)
        return ZarrArray(array, again=cache(lambda: (_opened_again, (_packed_parts(payload), dict(meta)))))

    def allocate(self, stage: Stage, **options: Any) -> Allocation:
        """Begin an array.

        Parameters
        ----------
        stage : Stage
            Where it will lie.
        shape : int or tuple of int
            Lengths of the axes.
        dtype : dtype-like, default float32
            Element type: numbers and truth values, of native byte order.
        chunks : tuple of int or True, optional
            Shape of a chunk. Chosen (near 16 MiB, by `axis` and `blocks`, which a shape excludes) if not given or True.
        shards : tuple of int, optional
            Shape of a file of several chunks; a multiple of `chunks`. Not given: each chunk is a file.
        axis, blocks : optional
            The access that chunks are chosen for; see `pyplantx.specs.chunks.choose`.
        compression : {None, "zstd", "gzip", "blosc"}, optional
            How chunks are packed.
        compression_opts : int or mapping, optional
            The level, or the codec's own arguments.
        fillvalue : scalar, optional
            What elements are that are never written; 0 if not given.

        Returns
        -------
        Allocation
            Its handle is a writable `ZarrArray`.
        """
        zarr = _zarr()
        settings = _settings(zarr, **options)
        return _ZarrAllocation(zarr, stage, settings)

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        return one_line(f"zarr {meta.get('dtype')} {tuple(meta.get('shape', ()))}")


def _zarr() -> Any:
    with OptionalLibrary("zarr", "a Zarr array"):
        import zarr
    if int(zarr.__version__.split(".")[0]) < 3:
        raise MissingLibrary(
            f"a Zarr array needs zarr 3 or newer, {zarr.__version__} is installed", hint="pip install --upgrade zarr"
        )
    return zarr


def _is_zarr(value: Any) -> bool:
    return is_of(value, "zarr", "Array")


# -- allocation ---------------------------------------------------------------------------------


def _settings(
    zarr: Any,
    *,
    shape: Any = None,
    dtype: Any = None,
    chunks: Any = None,
    shards: Any = None,
    axis: Any = None,
    blocks: Any = None,
    compression: str | None = None,
    compression_opts: Any = None,
    fillvalue: Any = None,
    **unknown: Any,
) -> dict[str, Any]:
    """What ``zarr.create_array`` is called with; `BadRequest` for what can't be."""
    from pyplantx.specs.arrays import check_extent, checked_dtype, checked_shape

    if unknown:
        raise unknown_options("a Zarr array", unknown, _OPTIONS)
    if shape is None:
        raise BadRequest("a Zarr array can't be allocated without shape=", hint="shape=(500, 1000)")
    check_alone(chunks, axis, blocks)
    chunks = chunks if chunks is None or isinstance(chunks, bool) else checked_shape(chunks, "chunks", least=1)
    lengths = checked_shape(shape)
    made = checked_dtype("float32" if dtype is None else dtype)
    if made.itemsize not in _KINDS.get(made.kind, ()) or not made.isnative:
        raise BadRequest(
            f"Zarr doesn't keep {made} as it is",
            hint="Ingredient.Type.array keeps any fixed-width dtype; so does specs.HdfArraySpec, but for str and dates",
        )
    check_extent(lengths, made, "a Zarr array")
    if chunks is None or chunks is True:
        aim = max(_AIM, 2 * math.prod(lengths) * made.itemsize // _MOST_FILES) if shards is None else 1 << 20
        chunks = choose(lengths, made.itemsize, axis=axis, blocks=blocks, aim=aim)
    cut = checked_shape(lengths if chunks is False else chunks, "chunks")
    files = None if shards is None else checked_shape(shards, "shards", least=1)
    check_extent(files or cut, made, "a chunk")
    return {
        "shape": lengths,
        "dtype": made,
        "chunks": cut,
        "shards": files,
        "compressors": _codec(zarr, compression, compression_opts),
        "fill_value": made.type(0) if fillvalue is None else fillvalue,
    }


def _codec(zarr: Any, compression: str | None, options: Any) -> Any:
    if compression is None:
        check_uncompressed(options)
        return None
    check_choice("compression", compression, tuple(_COMPRESSIONS))
    kind, level = _COMPRESSIONS[compression]
    return make_compressor(getattr(zarr.codecs, kind), compression, options, level)


class _ZarrAllocation:
    def __init__(self, zarr: Any, stage: Stage, settings: dict[str, Any]) -> None:
        _check_count(settings)
        self._stage = stage
        self._files: Folder | None = None
        self._folder = os.path.dirname(stage.path(_HEAD))
        array = _created(zarr, self._folder, settings)
        try:
            self._watcher = Watcher(tuple(array.shape), array.dtype, bool(array.fill_value.tobytes().strip(b"\0")))
        except MemoryError as error:
            nbytes = math.prod(array.shape) * array.dtype.itemsize
            raise BadRequest(
                f"a Zarr array of {nbytes:,} bytes can't be allocated: there is too little memory to list its blocks",
                hint="is this the shape that was meant? else split it into several ingredients",
            ) from error
        self.handle: Any = ZarrArray(array, watcher=self._watcher)
        self._handle = weakref.ref(self.handle)

    def seal(self) -> Written:
        """Take no more writes, name the parts, and find out the digests that are not known from writing."""
        from pyplantx.fingerprint.value import array_header, combine
        from pyplantx.specs.zarrstore import Folder

        self._watcher.blocks.freeze()
        self.handle.check_written()
        array = self.handle.inner
        self.handle.settle(array)
        for part in sorted(os.listdir(self._folder)):
            if part != _HEAD:
                self._stage.path(part)
        to_read = self.handle.is_shared or self._watcher.blocks.to_read()
        digests = _read_back(self.handle) if to_read else self._watcher.blocks.digests()
        meta = {"shape": list(array.shape), "dtype": array.dtype.str}
        parts = os.listdir(self._folder)
        self._files = Folder(self._folder)
        self.handle.settle(_opened(parts, self._files.open, meta))
        return Written(combine(array_header(array.dtype, array.shape, "zarr"), digests), meta)

    def published(self, folder: str) -> None:
        """See `pyplantx.specs.base.Allocation`: of an array that the store had already, ours is removed."""
        if self._files is not None:
            self._files.twin = folder

    def let_go_of_handle(self) -> None:
        """See `pyplantx.specs.base.Allocation`: it is still found as long as somebody else has it."""
        self.handle = None

    def discard(self) -> None:
        handle = self._handle()
        if handle is not None:
            handle.give_up(self._folder)


def _check_count(settings: dict[str, Any]) -> None:
    files = settings["shards"] or settings["chunks"]
    if len(files) != len(settings["shape"]) or 0 in files:
        raise BadRequest(
            f"chunks of {files} don't fit an array of {settings['shape']}", hint="one positive length per axis"
        )
    count = math.prod(-(-length // part) for length, part in zip(settings["shape"], files))
    if count > _MOST_FILES:
        raise BadRequest(
            f"a Zarr array can't have {count:,} files, {_MOST_FILES:,} at most: each is checked and synced on its own",
            hint="larger chunks=, or shards= of many chunks each",
        )


def _created(zarr: Any, folder: str, settings: dict[str, Any]) -> Any:
    from pyplantx.basics.interrupts import uninterrupted

    try:
        create = partial(
            zarr.create_array,
            zarr.storage.LocalStore(folder),
            **settings,
            filters=None,
            zarr_format=3,
            chunk_key_encoding={"name": "default", "separator": "."},
            config={"write_empty_chunks": True},  # zarr takes -0.0 for 0.0 when it leaves chunks out
        )
        with entering(), uninterrupted():  # else zarr's thread goes on, in a folder that is being removed
            return answer_of(create)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"Zarr can't keep such an array: {error}", hint="correct the option that it names") from error


def _filled(allocation: Allocation, source: Any) -> Written:
    try:
        handle = allocation.handle
        for rows in _slabs(handle.shape, handle.chunks, handle.dtype.itemsize):
            handle[rows] = source[rows]
        return allocation.seal()
    except BaseException:
        allocation.discard()
        raise


def _slabs(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int) -> Iterator[Any]:
    """Selections that cover an array in C order: whole rows of chunks, unless these are too large for memory."""
    if 0 in shape:
        return
    row = math.prod(shape[1:]) * itemsize
    if not shape or row * chunks[0] > 4 * _SLAB:
        yield from slabs(shape, itemsize, _SLAB)
        return
    step = max(1, _SLAB // (row * chunks[0])) * chunks[0]
    yield from (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _read_back(array: ZarrArray) -> list[Digest]:
    import numpy as np

    from pyplantx.fingerprint.value import BlockHasher, block_size

    hasher = BlockHasher(block_size(array.dtype.itemsize))
    for rows in _slabs(array.shape, array.chunks, array.dtype.itemsize):
        hasher.update(np.ascontiguousarray(array[rows]).reshape(-1).view("u1"))
    return hasher.digests()


# -- reading ------------------------------------------------------------------------------------


def _opened(parts: Iterable[str], open_part: Callable[[str], Readable], meta: Mapping[str, Any]) -> Any:
    """The zarr array that some parts are."""
    from pyplantx.specs.zarrstore import PartsStore

    zarr = _zarr()
    try:
        with entering():
            array = answer_of(partial(zarr.open_array, PartsStore(parts, open_part), mode="r", zarr_format=3))
    except PyplantxError:
        raise
    except ZARR_ERRORS as error:
        raise DamagedObject(f"the Zarr array can't be opened: {error}") from error
    found = (list(array.shape), array.dtype.str)
    if found != (meta.get("shape"), meta.get("dtype")):
        raise DamagedObject(f"the Zarr array's shape and dtype are {found}, its record says otherwise: {dict(meta)}")
    return array


def _check_first(payload: Payload, parts: Iterable[str]) -> None:
    """Check the first chunks, of a small array all of them: found here, damage costs a run and is nobody's error."""
    left = _AT_ONCE
    for part in parts:
        if part == _HEAD or not payload.is_file(part):
            continue
        reader = payload.open_checked(part)
        try:
            left -= reader.size
            if left < 0:
                return
            reader.read_into(bytearray(reader.size), 0)
        finally:
            reader.close()


def _opened_part(payload: Payload, part: str) -> Readable:
    from pyplantx.specs.zarrstore import InMemory

    return payload.open_checked(part) if payload.is_file(part) else InMemory(payload.read(part))


def _packed_parts(payload: Payload) -> dict[str, bytes]:
    """Of each part what opens it in another process, where it is checked by the same checksums."""
    packed = {}
    for part in payload.parts():
        reader = _opened_part(payload, part)
        try:
            packed[part] = pickle.dumps(reader)
        finally:
            reader.close()
    return packed


def _opened_again(packed: dict[str, bytes], meta: Mapping[str, Any]) -> ZarrArray:
    """A sealed array in another process than the one that received it."""
    array = _opened(packed, lambda part: pickle.loads(packed[part]), meta)
    return ZarrArray(array, again=lambda: (_opened_again, (packed, meta)))


def _check_head(text: bytes, parts: Iterable[str]) -> None:
    """Refuse whatever zarr might make more of than an array of numbers in the parts that are there."""
    try:
        head = json.loads(text)
        grid, keys = head["chunk_grid"], head["chunk_key_encoding"]
        _must(head["zarr_format"] == 3 and head["node_type"] == "array", "is not an array of Zarr version 3")
        _must(not head.get("storage_transformers"), "is stored in a way that is not read")
        _must(grid["name"] == "regular", "has chunks of different shapes")
        _must(keys["name"] == "default" and keys["configuration"]["separator"] == ".", "names its chunks otherwise")
        strange = sorted(set(_codec_names(head["codecs"])) - _CODECS)
        _must(not strange, f"uses codecs that are not read: {strange}")
        counts = [-(-length // part) for length, part in zip(head["shape"], grid["configuration"]["chunk_shape"])]
        for part in parts:
            _must(part == _HEAD or _is_chunk(part, counts), f"has the part {part!r}, which is no chunk of it")
    except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError, AttributeError) as error:
        raise DamagedObject(f"the head of a Zarr array is not what it must be: {error!r}") from error


def _codec_names(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        yield str(codec["name"])
        inner = codec.get("configuration") or {}
        yield from _codec_names((*inner.get("codecs", ()), *inner.get("index_codecs", ())))


def _is_chunk(part: str, counts: list[int]) -> bool:
    first, *places = part.split(".")
    plain = all(place.isascii() and place.isdigit() and str(int(place)) == place for place in places)
    fits = len(places) == len(counts) and all(int(place) < count for place, count in zip(places, counts) if plain)
    return first == "c" and plain and fits


def _must(holds: bool, trouble: str) -> None:
    if not holds:
        raise DamagedObject(f"the Zarr array {trouble}")

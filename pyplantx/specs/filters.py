"""HDF5's filters, run outside of HDF5: one chunk packed or unpacked in any thread, without the interpreter lock.

This file may know: the written forms of HDF5's filters (HDF5 File Format Specification), zlib, and the binary interface
of HDF5's filter plug-ins. It may not know: h5py, files.

HDF5 runs its filters under one lock. But deflate is a zlib stream, shuffle is a transposition of bytes, and a plug-in
is a shared library with one exported function, ``H5PLget_plugin_info``, that returns a record with the filter function
(``H5Z_class2_t`` in HDF5's H5Zpublic.h). We call that very function, so the bytes are those that HDF5 would have
written. The plug-ins are those of the package ``hdf5plugin``. h5py's own filter, lzf, is such a function, too, and one
of its extension modules exports it. Only chunks that are stored are given to it: to pack it takes 1 MiB of stack, which
is more than many a thread has, and to have less ends the process.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, Final

from pyplantx.basics.given import check_flag
from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import CannotStore, DamagedObject, MissingLibrary, check_choice
from pyplantx.specs.services import OptionalLibrary, check_uncompressed, make_compressor

Buffer = Any

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
_LZ4, _BITSHUFFLE, _ZSTD, _BLOSC2 = 32004, 32008, 32015, 32026

#: Filters that every reader has: HDF5's own, and h5py's.
BUILT_IN: Final = frozenset({DEFLATE, SHUFFLE, FLETCHER32, LZF})
#: Filters of the package hdf5plugin that are read and written here: code -> (class, library).
_PLUGINS: Final = {
    _LZ4: ("LZ4", "libh5lz4"),
    _BITSHUFFLE: ("Bitshuffle", "libh5bshuf"),
    _ZSTD: ("Zstd", "libh5zstd"),
    _BLOSC2: ("Blosc2", "libh5blosc2"),
}
PLUGINS: Final = frozenset(_PLUGINS)

_NAMES: Final = {"lz4": _LZ4, "bitshuffle": _BITSHUFFLE, "zstd": _ZSTD, "blosc2": _BLOSC2}
#: What `compression=` may be.
COMPRESSIONS: Final = ("gzip", "lzf", *_NAMES)
#: What a lone number in `compression_opts=` means.
_LEVEL: Final = {"lz4": "nbytes", "bitshuffle": "nelems", "zstd": "clevel", "blosc2": "clevel"}

_ZLIB_HAS_NO_MEMORY = "Error -4 "  #: Z_MEM_ERROR
_NEEDED = 3  #: chunks that a filter may take memory for: the result, and what it works in
_ATTEMPTS = 4  #: to unpack a chunk that its filter refuses
_REVERSE = 0x0100  #: H5Z_FLAG_REVERSE: unpack
_FILTER_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_size_t,  # bytes that are valid in the end; 0: it failed
    ctypes.c_uint,  # flags
    ctypes.c_size_t,  # number of settings
    ctypes.POINTER(ctypes.c_uint),  # settings
    ctypes.c_size_t,  # bytes that are valid now
    ctypes.POINTER(ctypes.c_size_t),  # bytes that are allocated
    ctypes.POINTER(ctypes.c_void_p),  # the buffer, from malloc; the filter may free it and put another in its place
)


# -- for whoever makes or opens a dataset -------------------------------------------------------


def settings(compression: str | None, options: Any = None, shuffle: bool | None = None) -> dict[str, Any]:
    """What h5py's ``create_dataset`` is given for a compression.

    Parameters
    ----------
    compression : str or None
        One of `COMPRESSIONS`.
    options : int or mapping, optional
        The level; for those of hdf5plugin also the arguments of its class: ``{"cname": "zstd", "clevel": 3}``.
    shuffle : bool, optional
        Whether bytes are shuffled before.

    Raises
    ------
    BadRequest
        If it is none of them, or the options are not its own.
    MissingLibrary
        If it needs hdf5plugin, and that is not installed.
    """
    given = {} if shuffle is None else {"shuffle": check_flag("shuffle=", shuffle)}
    if compression is None:
        check_uncompressed(options)
        return given
    check_choice("compression", compression, COMPRESSIONS)
    if compression not in _NAMES:
        return {**given, "compression": compression, **({} if options is None else {"compression_opts": options})}
    return {**given, **_plugin_settings(compression, options)}


def _plugin_settings(compression: str, options: Any) -> dict[str, Any]:
    library = _hdf5plugin(f"compression={compression!r}")
    made = getattr(library, _PLUGINS[_NAMES[compression]][0])
    if compression == "blosc2":
        made = partial(made, cname="lz4")
    return dict(make_compressor(made, compression, options, _LEVEL[compression]))


def compression_of(dataset: Any) -> str | None:
    """The name of an h5py dataset's compression, those of plug-ins included."""
    plist = dataset.id.get_create_plist()
    used = {plist.get_filter(place)[0] for place in range(plist.get_nfilters())}
    named = (name for name, code in _NAMES.items() if code in used)
    found: str | None = next(named, dataset.compression)  # h5py calls them "unknown"
    return found


def require(codes: Iterable[int]) -> None:
    """Make sure that datasets with these filters can be read, by h5py too.

    Raises
    ------
    MissingLibrary
        If hdf5plugin is needed and not installed.
    """
    names = sorted(name for name, code in _NAMES.items() if code in set(codes))
    if names:
        _hdf5plugin(f"a dataset packed with {' and '.join(names)}")


def _hdf5plugin(what: str) -> Any:
    with OptionalLibrary("hdf5plugin", what):
        import hdf5plugin  # registers its filters with HDF5
    return hdf5plugin


# -- memory -------------------------------------------------------------------------------------


class Room:
    """Memory for one chunk, from malloc: a plug-in filter takes it over, which saves it a copy.

    Parameters
    ----------
    nbytes : int
        How many bytes; they are not zeroed.
    """

    __slots__ = ("_address", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self._address: int = _libc().malloc(max(1, nbytes)) or 0
        self.nbytes = nbytes
        if not self._address:
            raise MemoryError(_no_room(nbytes))

    def view(self) -> memoryview:
        """The bytes, to be written and read as long as this object lives and was not taken."""
        return memoryview((ctypes.c_ubyte * self.nbytes).from_address(self._address)).cast("B")

    def take(self) -> int:
        """The address; whoever takes it frees it, or puts it back."""
        address, self._address = self._address, 0
        return address

    def put_back(self, address: int, nbytes: int) -> None:
        """What was taken is there again, perhaps in other memory."""
        self._address, self.nbytes = address, nbytes

    def __del__(self) -> None:
        if getattr(self, "_address", 0):
            _libc().free(self._address)


def _flat(data: Buffer | Room) -> Buffer:
    return data.view() if isinstance(data, Room) else data


# -- one chunk ----------------------------------------------------------------------------------


class Filter(NamedTuple):
    """One step of a pipeline, both ways.

    Attributes
    ----------
    pack : callable
        Buffer -> buffer, or None if it can't be made smaller; it is untouched then.
    unpack : callable
        (buffer, bytes of the whole chunk) -> buffer; raises `DamagedObject`.
    optional : bool
        Whether a chunk that can't be packed is kept as it is.
    """

    pack: Callable[[Buffer], Buffer | None]
    unpack: Callable[[Buffer, int], Buffer]
    optional: bool


class Pipeline:
    """The filters of one dataset.

    Parameters
    ----------
    filters : sequence of Filter
        In the order in which chunks are packed.
    nbytes : int
        Bytes of an unpacked chunk.
    """

    def __init__(self, filters: Sequence[Filter], nbytes: int) -> None:
        self._filters = tuple(filters)
        self.nbytes = nbytes

    def pack(self, chunk: Buffer) -> tuple[int, Buffer]:
        """A chunk's bytes as they are stored, and the mask of the filters that were left out (bit 0 is the first).

        A `Room` is used up.
        """
        mask, data = 0, chunk  # a `Room` until the first filter has taken it
        for place, step in enumerate(self._filters):
            packed = step.pack(data)
            if packed is not None:
                data = packed
            elif step.optional:
                mask |= 1 << place
            else:
                raise CannotStore("a chunk can't be packed by its filter", hint="try another compression=")
        return mask, bytes(data.view()) if isinstance(data, Room) else data

    def unpack(self, mask: int, data: Buffer) -> Buffer:
        """A chunk's elements from what is stored.

        Raises
        ------
        DamagedObject
            If that is not what the filters have made of a chunk.
        """
        for place in reversed(range(len(self._filters))):
            if not mask >> place & 1:
                data = self._filters[place].unpack(data, self.nbytes)
        if isinstance(data, Room):
            data = bytes(data.view())
        if memoryview(data).nbytes != self.nbytes:
            raise _damaged(f"{memoryview(data).nbytes:,} bytes instead of {self.nbytes:,}")
        return data


def pipeline(listed: Iterable[tuple[int, int, tuple[int, ...]]], nbytes: int, *, packs: bool = True) -> Pipeline | None:
    """The filters of a dataset, to be run here; None if one of them only runs inside HDF5 (fletcher32, others).

    Parameters
    ----------
    listed : iterable of (code, flags, settings)
        As ``plist.get_filter(0)``, ``get_filter(1)``, ... say it.
    nbytes : int
        Bytes of an unpacked chunk.
    packs : bool
        Whether chunks will be packed, too: lzf runs inside HDF5 then.
    """
    made = [None if packs and code == LZF else _filter(code, flags, values) for code, flags, values in listed]
    steps = [step for step in made if step is not None]
    return Pipeline(steps, nbytes) if len(steps) == len(made) else None


def _filter(code: int, flags: int, values: tuple[int, ...]) -> Filter | None:
    optional = bool(flags & 1)  # H5Z_FLAG_OPTIONAL
    if code == DEFLATE:
        level = values[0] if values else -1
        return Filter(lambda data: zlib.compress(_flat(data), level), _inflated, optional)
    if code == SHUFFLE:
        width = values[0] if values else 1
        return Filter(lambda data: _shuffled(data, width), lambda data, _: _shuffled(data, width, back=True), optional)
    run = _plugin(code) if code in _PLUGINS else _lzf() if code == LZF else None
    if run is not None:
        array = (ctypes.c_uint * len(values))(*values)
        return Filter(
            lambda data: _run(run, 0, array, data) or None,
            lambda data, nbytes: _unpacked(run, array, data, nbytes),
            optional,
        )
    return None


def _inflated(data: Buffer, nbytes: int) -> Buffer:
    stream = zlib.decompressobj()
    try:
        return stream.decompress(_flat(data), nbytes)  # no more than that, whatever the stream says
    except zlib.error as error:
        if str(error).startswith(_ZLIB_HAS_NO_MEMORY):
            raise MemoryError(_no_room(nbytes)) from error
        raise _damaged(str(error)) from error


def _shuffled(data: Buffer, width: int, *, back: bool = False) -> Buffer:
    """First bytes of all elements, second bytes of all elements, ...; what is left of a last element follows.

    Parameters
    ----------
    data : buffer
    width : int
        Bytes of an element.
    back : bool
        Whether `data` is shuffled, and the elements are wanted.
    """
    import numpy as np

    flat = np.frombuffer(_flat(data), "u1")
    whole = len(flat) // width * width
    if width < 2 or whole <= width:
        return data
    made = np.empty_like(flat)
    by_element, by_byte = (made, flat) if back else (flat, made)
    elements, planes = by_element[:whole].reshape(-1, width), by_byte[:whole].reshape(width, -1)
    for place in range(width):  # one transposing assignment would be four times slower
        if back:
            elements[:, place] = planes[place]
        else:
            planes[place] = elements[:, place]
    made[whole:] = flat[whole:]
    return made


def _damaged(why: str) -> DamagedObject:
    return DamagedObject(f"a packed chunk can't be unpacked: {why}")


def _no_room(nbytes: int) -> str:
    return f"a chunk of a packed array needs {nbytes:,} bytes of memory, and there are not so many"


def _unpacked(function: Any, values: Any, data: Buffer | Room, nbytes: int) -> Buffer:
    """What a filter function makes of a stored chunk. That it fails is all it says: want of memory may be the reason.

    Raises
    ------
    DamagedObject
        If it refuses the bytes, though there is memory enough.
    MemoryError
        If there is not.
    """
    for _ in range(_ATTEMPTS):
        made = _run(function, _REVERSE, values, data)
        if made:
            return made
        Room(_NEEDED * nbytes)  # others may have freed some by now, so it is tried again
    raise _damaged("its filter refuses it")


# -- plug-ins -----------------------------------------------------------------------------------


class _PluginInfo(ctypes.Structure):
    """``H5Z_class2_t``."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("code", ctypes.c_int),
        ("encoder_present", ctypes.c_uint),
        ("decoder_present", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("can_apply", ctypes.c_void_p),
        ("set_local", ctypes.c_void_p),
        ("filter", _FILTER_FUNCTION),
    ]


@cache
def _plugin(code: int) -> Any:
    """The filter function of a plug-in. The library is never unloaded."""
    name, stem = _PLUGINS[code]
    library = _hdf5plugin(f"a dataset packed with {name}")
    folder = library.PLUGIN_PATH
    files = [file for file in os.listdir(folder) if file.split(".")[0] == stem]
    if not files:
        raise MissingLibrary(
            f"the package 'hdf5plugin' that is installed was made without {name}",
            hint="pip install --force-reinstall hdf5plugin",
        )
    plugin = ctypes.CDLL(os.path.join(folder, files[0]))
    plugin.H5PLget_plugin_info.restype = ctypes.POINTER(_PluginInfo)
    info = plugin.H5PLget_plugin_info().contents
    if info.version != 1 or info.code != code:
        raise MissingLibrary(f"the plug-in for {name} has another interface than HDF5 filters have")
    return info.filter


@cache
def _lzf() -> Any:
    """h5py's filter function; None if this h5py does not export it."""
    module = sys.modules.get("h5py.h5z")  # whoever has a dataset has imported it
    try:
        library = ctypes.CDLL(getattr(module, "__file__", None) or "")
        return _FILTER_FUNCTION(("lzf_filter", library))
    except (OSError, AttributeError):
        return None


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.restype = None
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


def _run(function: Any, flags: int, values: Any, data: Buffer | Room) -> Buffer:
    """What a filter function makes of some bytes; b"" if it fails, and the bytes are as they were."""
    room = data if isinstance(data, Room) else _copied(data)
    count, nbytes = 0, room.nbytes
    buffer, size = ctypes.c_void_p(room.take()), ctypes.c_size_t(nbytes)
    try:
        count = function(flags, len(values), values, nbytes, ctypes.byref(size), ctypes.byref(buffer))
    finally:
        if not count:  # by HDF5's rules the buffer is as it was
            room.put_back(buffer.value or 0, nbytes)
    return _owned(buffer, count) if count else b""


def _copied(data: Buffer) -> Room:
    view = memoryview(data).cast("B")
    room = Room(view.nbytes)
    room.view()[:] = view
    return room


def _owned(buffer: ctypes.c_void_p, count: int) -> Buffer:
    """Memory from malloc as a buffer that frees it in the end: a copy would cost as much as some filters."""
    array = (ctypes.c_ubyte * count).from_address(buffer.value or 0)
    weakref.finalize(array, _libc().free, buffer).atexit = False
    return memoryview(array).cast("B")

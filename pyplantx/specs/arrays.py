"""NumPy arrays and scalars as ``.npy`` (specs/array is the written format). Imports numpy on first use."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pyplantx.basics.disk import free_bytes
from pyplantx.basics.given import check_wholes
from pyplantx.basics.loaded import is_of
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, WarehouseError, WarehouseFull, shown
from pyplantx.specs.base import Allocation, Payload, Stage, Written
from pyplantx.specs.buffers import NO_RESERVE, one_line
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import BuiltinSpec, OptionalLibrary, unknown_options

if TYPE_CHECKING:
    import mmap

    import numpy as np

_PART = "data.npy"
_MASK = "mask.npy"
_FILL = "fill.npy"

#: Scalars of these kinds come back from a 0-d array as they were (text loses trailing NULs there).
_SCALAR_KINDS = "biufcmM"

#: Of an array: a file may have 2^63, and there is a head.
_MOST_BYTES = (1 << 63) - (1 << 20)


class ArraySpec(BuiltinSpec):
    """NumPy arrays of fixed-width elements, masked arrays, matrices, record arrays; and numeric scalars."""

    name = "array"
    opens_in_place = True

    def recognise(self, value: Any) -> bool:
        return is_of(value, "numpy", "ndarray", "generic") and _why_not(value) is None

    def write(self, value: Any, stage: Stage) -> Written:
        trouble = _why_not(value)
        if trouble is not None:
            raise CannotStore(
                f"value is {trouble}", hint="leave the type off, or convert it with np.asarray(value, dtype=...)"
            )
        write = _WRITERS[_class_of(value) or "array"]
        return write(value, stage)

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        npy = _npy()
        array = npy.open_array(payload, _PART, self.services.writable)
        if not meta:
            return array
        if "aligned" in meta:
            array = array.view(npy.realigned(array.dtype, meta["aligned"]))
        return _as_class(array, payload, meta, self.services.writable)

    def allocate(self, stage: Stage, **options: Any) -> Allocation:
        """Begin an array in a file.

        Parameters
        ----------
        stage : Stage
            Where it will lie.
        shape : int or tuple of int
            Lengths of the axes.
        dtype : dtype-like, default float64
            Element type.
        order : {"C", "F"}
            Layout in memory and in the file.

        Returns
        -------
        Allocation
            Its handle is an array of zeros on a shared mapping of the file.

        Raises
        ------
        WarehouseFull
            If the file system has no room for it.
        """
        with OptionalLibrary("numpy", "an array"):
            shape, dtype, order = _options(**options)
        return _ArrayAllocation(stage, shape, dtype, order == "F")

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        with OptionalLibrary("numpy", "an array"):
            from pyplantx.specs.npy import open_array, summary

        return one_line(f"{meta.get('class', 'array')} {summary(open_array(payload, _PART, writable=False))}", 120)


@cache
def _npy() -> Any:
    """The room that imports numpy; an import statement costs as much as the rest of opening a small array."""
    with OptionalLibrary("numpy", "an array"):
        from pyplantx.specs import npy
    return npy


# -- classes ------------------------------------------------------------------------------------


def _class_of(value: Any) -> str | None:
    """The name under which the class of `value` is kept; None if it is not one of NumPy's own."""
    import numpy as np

    kind = type(value)
    if kind is np.ndarray or kind is np.memmap:  # a memory map is where an array lies, not what it is
        return "array"
    if kind is np.matrix or kind is np.recarray:
        return "matrix" if kind is np.matrix else "recarray"
    if isinstance(value, np.generic):
        return "scalar" if kind.__module__ == "numpy" and value.dtype.kind in _SCALAR_KINDS else None
    if kind.__module__.startswith("numpy.ma") and kind.__name__ == "MaskedArray":
        return "masked" if type(value.data) in (np.ndarray, np.memmap) else None
    return None


def _why_not(value: Any) -> str | None:
    from pyplantx.specs.npy import why_not

    if _class_of(value) is None:
        return f"a {type_name(type(value))}, not a plain NumPy array"
    trouble = why_not(value.dtype if value.dtype.type.__name__ != "record" else _unrecorded(value.dtype))
    return None if trouble is None else f"an array that .npy can't keep: {trouble}"


def _unrecorded(dtype: np.dtype[Any]) -> np.dtype[Any]:
    import numpy as np

    return np.dtype((np.void, dtype))


def _facts(value: Any) -> dict[str, Any]:
    """What the head of a ``.npy`` file does not say about structured elements."""
    from pyplantx.specs.npy import alignment

    if value.dtype.base.names is None:
        return {}
    aligned = alignment(value.dtype)
    record = {"record": True} if value.dtype.type.__name__ == "record" else {}
    return {**record, "aligned": aligned} if any(aligned) else record


def _write_array(value: Any, stage: Stage) -> Written:
    from pyplantx.specs.npy import write_array

    return Written(write_array(value, _PART, stage), _facts(value))


def _write_subclass(value: Any, stage: Stage) -> Written:
    from pyplantx.fingerprint.value import class_tag
    from pyplantx.specs.npy import write_array

    meta = {"class": _class_of(value), **_facts(value)}
    return Written(write_array(value, _PART, stage, class_tag(type(value))), meta)


def _write_scalar(value: Any, stage: Stage) -> Written:
    import numpy as np

    from pyplantx.fingerprint.value import digest
    from pyplantx.specs.npy import write_array

    write_array(np.asarray(value), _PART, stage)
    return Written(digest(value), {"class": "scalar"})


def _write_masked(value: Any, stage: Stage) -> Written:
    import numpy as np

    from pyplantx.fingerprint.value import array_digest
    from pyplantx.specs.npy import write_array

    write_array(value.data, _PART, stage)
    meta: dict[str, Any] = {"class": "masked", **_facts(value)}
    if value.mask is not np.ma.nomask:
        write_array(value.mask, _MASK, stage)
    if value._fill_value is not None:  # the public property would make one up
        write_array(np.asarray(value._fill_value), _FILL, stage)
    if value.hardmask:
        meta["hard_mask"] = True
    return Written(array_digest(value), meta)


_WRITERS: dict[str, Callable[[Any, Stage], Written]] = {
    "array": _write_array,
    "matrix": _write_subclass,
    "recarray": _write_subclass,
    "scalar": _write_scalar,
    "masked": _write_masked,
}


def _as_class(array: Any, payload: Payload, meta: Mapping[str, Any], writable: bool) -> Any:
    import numpy as np

    kind = str(meta.get("class", "array"))
    if meta.get("record"):
        array = array.view(np.dtype((np.record, array.dtype)))
    if kind == "scalar":
        return array[()]
    if kind == "masked":
        return _as_masked(array, payload, meta, writable)
    views = {"array": np.ndarray, "matrix": np.matrix, "recarray": np.recarray}
    if kind not in views:
        raise DamagedObject(f"an array of the unknown class {kind!r}")
    return array.view(views[kind])


def _as_masked(array: Any, payload: Payload, meta: Mapping[str, Any], writable: bool) -> Any:
    import numpy as np

    from pyplantx.specs.npy import open_array

    mask = open_array(payload, _MASK, writable) if _MASK in payload.parts() else np.ma.nomask
    if mask is not np.ma.nomask and mask.shape != array.shape:
        raise DamagedObject(f"the mask's shape is {mask.shape}, the data's {array.shape}")
    value: Any = np.ma.MaskedArray(array, mask=mask, hard_mask=meta.get("hard_mask", False), keep_mask=True)
    if _FILL in payload.parts():
        value._fill_value = open_array(payload, _FILL, writable=True)
    return value


# -- allocation ---------------------------------------------------------------------------------


def _options(
    *, shape: Any = None, dtype: Any = float, order: str = "C", **unknown: Any
) -> tuple[tuple[int, ...], Any, str]:
    if unknown:
        raise unknown_options("an array", unknown, ("shape", "dtype", "order"))
    if shape is None:
        raise BadRequest("an array can't be allocated without shape=", hint="shape=(1000, 3)")
    if not isinstance(order, str) or order not in ("C", "F"):
        raise BadRequest(f"order={shown(order)} is neither 'C' nor 'F'", hint="order='C' keeps rows together")
    lengths, made = checked_shape(shape), checked_dtype(dtype)
    check_extent(lengths, made)
    return lengths, made, order


def checked_shape(shape: Any, what: str = "shape", least: int = 0) -> tuple[int, ...]:
    """A shape as a tuple of ints; `BadRequest` if it is none. `what` is the name of the option."""
    return check_wholes(f"{what}=", shape, f"{what}=(1000, 3): one whole number per axis", least)


def checked_dtype(dtype: Any) -> Any:
    """A dtype that a file can hold; `BadRequest` if it can't."""
    import numpy

    from pyplantx.specs.npy import why_not

    try:
        made = numpy.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"dtype={shown(dtype)} is not a NumPy dtype: {error}", hint="dtype='float32'") from error
    trouble = why_not(made)
    if trouble is not None:
        raise BadRequest(
            f"an array of {made} can't be allocated: {trouble}", hint="dtype='float64', 'S20', or the like"
        )
    if _is_without_width(made):
        raise BadRequest(
            f"an array of {dtype!r} can't be allocated: its texts would have no room, so each would come out empty",
            hint="say how long they may be: dtype='U20' of 20 characters, 'S20' or 'V20' of 20 bytes",
        )
    return made


def _is_without_width(dtype: np.dtype[Any]) -> bool:
    """Whether elements, or fields of them, take no bytes: NumPy finds the width of `str` for given values only."""
    if dtype.subdtype is not None:
        return _is_without_width(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_is_without_width(dtype[name]) for name in dtype.names)
    return dtype.itemsize == 0


def check_extent(shape: tuple[int, ...], dtype: Any, what: str = "an array") -> None:
    """Refuse what is too large for NumPy and for any file; `BadRequest`. `what` is for the message."""
    from pyplantx.specs.npy import MOST_AXES

    if len(shape) > MOST_AXES:
        raise BadRequest(f"{what} of {len(shape)} axes can't be allocated: NumPy knows {MOST_AXES} at most")
    nbytes = math.prod(length or 1 for length in shape) * dtype.itemsize  # NumPy leaves out empty axes, too
    if nbytes > _MOST_BYTES:
        raise BadRequest(
            f"{what} of {dtype} {shape} can't be allocated: {nbytes:,} bytes are more than any file holds",
            hint=f"{_MOST_BYTES:,} bytes at most; of empty axes the others count",
        )


class _ArrayAllocation:
    def __init__(self, stage: Stage, shape: tuple[int, ...], dtype: Any, fortran: bool) -> None:
        import numpy as np

        from pyplantx.specs.npy import header_bytes

        head = self._head = header_bytes(dtype, shape, fortran)
        size = len(head) + int(np.prod(shape, dtype=object)) * dtype.itemsize
        self._stage, self._path = stage, stage.path(_PART)
        self._map = _new_mapping(self._path, head, size)
        self.handle: Any = np.ndarray(shape, dtype, buffer=self._map, offset=len(head), order="F" if fortran else "C")

    def seal(self) -> Written:
        from pyplantx.specs.npy import seal_in_place

        _make_private(self._map, self._path)
        self.handle.flags.writeable = False
        return Written(seal_in_place(self.handle, _PART, self._stage), _facts(self.handle))

    @property
    def data_path(self) -> str:
        """The staged file; see `pyplantx.blocks.handles.BlockArray`."""
        return self._path

    def adopt(self, path: str) -> None:
        """Take over the file of a former attempt: it takes the place of ours, in the stage and in memory."""
        import mmap

        from pyplantx.specs.npy import write_at

        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.posix_fallocate(fd, 0, len(self._map))
            os.truncate(fd, len(self._map))
            write_at(fd, memoryview(self._head), 0)
            code = _map_over(self._map, fd, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED)
            if code:
                raise OSError(code, os.strerror(code), path)
            os.rename(path, self._path)
        finally:
            os.close(fd)

    def let_go_of_handle(self) -> None:
        """See `pyplantx.specs.base.Allocation`."""
        self.handle = None

    def discard(self) -> None:
        """The mapping goes with the handle."""


def _new_mapping(path: str, head: bytes, size: int) -> mmap.mmap:
    import mmap

    from pyplantx.specs.npy import write_at

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Writing to a mapping of a full disk kills the process (SIGBUS), so the space is taken now.
        os.posix_fallocate(fd, 0, size)
        write_at(fd, memoryview(head), 0)
        return mmap.mmap(fd, size)
    except OSError as error:
        raise _no_room(path, size, error) from error
    finally:
        os.close(fd)


def _no_room(path: str, size: int, error: OSError) -> Exception:
    if error.errno == errno.ENODEV:
        return WarehouseError(
            f"an array of {size:,} bytes can't be allocated: this file system maps no files for writing",
            hint="allocate it as specs.HdfArraySpec, or put the plant's directory on another file system",
        )
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    free = free_bytes(os.path.dirname(path))
    return WarehouseFull(
        f"an array of {size:,} bytes can't be allocated: {free:,} bytes are free",
        hint="free some space, or put the plant's directory on a larger disk",
    )


def _make_private(mapping: mmap.mmap, path: str) -> None:
    """Map the same addresses again, privately: what views of the old mapping write no longer reaches the file.

    Where the process may not have so much private memory, the addresses become read-only.
    """
    import mmap

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        code = _map_over(mapping, fd, mmap.PROT_READ | mmap.PROT_WRITE) if _may_have(len(mapping)) else errno.ENOMEM
        if code == errno.ENOMEM:
            code = _map_over(mapping, fd, mmap.PROT_READ)
        if code:
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)


def _may_have(size: int) -> bool:
    """Whether the process may have so much more private memory.

    Mapping over other pages, the kernel does not ask: it would let us pass the limit, and refuse everything after that.
    """
    import resource

    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit == resource.RLIM_INFINITY:
        return True
    try:
        with open("/proc/self/statm") as status:
            used = int(status.read().split()[5]) * resource.getpagesize()
    except OSError:  # not Linux
        return True
    return used + size <= limit


def _map_over(mapping: mmap.mmap, fd: int, access: int, kind: int = 0) -> int:
    """Replace the pages of `mapping` by a map of the file, a private one; the error number, 0 if it went well."""
    import ctypes
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    integer = ctypes.c_int
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, integer, integer, integer, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    map_fixed = 0x10  # the same on Linux, macOS and the BSDs
    flags = kind or mmap.MAP_PRIVATE | NO_RESERVE
    found = libc.mmap(address, len(mapping), access, flags | map_fixed, fd, 0)
    return 0 if found == address else ctypes.get_errno()

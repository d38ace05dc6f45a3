"""The ``.npy`` format: header, blocks written and hashed in one pass by two threads, private mappings.

Header grammar: NumPy Enhancement Proposal 1. The parser here is our own because NumPy's takes about
100 µs per file; it accepts exactly what NumPy's does with ``allow_pickle=False``, and a payload must be as
long as its header says.
"""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject
from pyplantx.fingerprint.arrays import c_order_buffers, has_metadata, opaque
from pyplantx.fingerprint.value import Hasher, array_header, block_size, combine
from pyplantx.specs import writeback
from pyplantx.specs.base import Layout, Payload, Stage
from pyplantx.specs.buffers import LAID_OUT, map_file
from pyplantx.specs.parallel import WORTHWHILE, for_each_block

Array = np.ndarray[Any, np.dtype[Any]]

_MAGIC = b"\x93NUMPY"
_ALIGN = 64
_LONGEST_HEADER = 1 << 20
MOST_AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32


class Header(NamedTuple):
    """What the head of a ``.npy`` file says; `offset` is where the elements begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


# -- writing ------------------------------------------------------------------------------------


def why_not(dtype: np.dtype[Any]) -> str | None:
    """Why arrays of this dtype can't be kept bit-equal in a ``.npy`` file; None if they can."""
    return _why_not(dtype, dtype.type.__name__, has_metadata(dtype))


@lru_cache(maxsize=512)
def _why_not(dtype: np.dtype[Any], _: str, metadata: bool) -> str | None:
    # Equal dtypes may differ in their scalar type and metadata, so these are part of the key.
    if dtype.hasobject:
        return "its elements are Python objects"
    if metadata:
        return "its dtype carries metadata"
    if dtype.kind == "T" or dtype.type.__module__ != "numpy":
        return f"the dtype {dtype} is not one of NumPy's own fixed-width ones"
    return _why_not_inside(dtype)


def _why_not_inside(dtype: np.dtype[Any]) -> str | None:
    if dtype.subdtype is not None:
        return why_not(dtype.subdtype[0])
    if dtype.names is None:
        return None
    inside = next(filter(None, (why_not(dtype.fields[name][0]) for name in dtype.names)), None)  # type: ignore[index]
    if inside is not None:
        return inside
    try:
        kept = npy_format.descr_to_dtype(npy_format.dtype_to_descr(dtype)) == dtype
    except ValueError:
        kept = False
    return None if kept else f"the fields of {dtype} overlap or are out of order"


@lru_cache(maxsize=4096)
def header_bytes(dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> bytes:
    """The head of a ``.npy`` file: format 1.0 where it fits, else 3.0."""
    fields = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    text = "{" + "".join(f"{name!r}: {value!r}, " for name, value in fields.items()) + "}"
    try:
        body, version, width = text.encode("latin-1"), b"\x01\x00", 2
    except UnicodeEncodeError:
        body, version, width = text.encode(), b"\x03\x00", 4
    if width == 2 and len(body) + _ALIGN >= 1 << 16:
        version, width = b"\x03\x00", 4
    start = len(_MAGIC) + 2 + width
    length = -(-(start + len(body) + 1) // _ALIGN) * _ALIGN - start
    return _MAGIC + version + length.to_bytes(width, "little") + body.ljust(length - 1) + b"\n"


def write_array(array: Array, part: str, stage: Stage, tag: str = "") -> Digest:
    """Write an array as one part and hash it, block by block, without a copy of the whole.

    Parameters
    ----------
    array : ndarray
        Of a dtype for which `why_not` is None. Fortran-contiguous ones are written in that order.
    part : str
        Name of the part.
    stage : Stage
        Where to write.
    tag : str
        Class tag for the digest's header.

    Returns
    -------
    Digest
        The semantic digest: equal to ``fingerprint.value.array_digest(array)``.
    """
    base = array.view(np.ndarray)
    fortran = is_fortran(base)
    head, block = header_bytes(base.dtype, base.shape, fortran), block_size(base.itemsize)
    if fortran:
        stage.write_array(part, head, _flat(base.T), block)
        digests = block_digests(base)
    elif base.flags.c_contiguous or base.nbytes < WORTHWHILE:
        digests = stage.write_array(part, head, _flat(np.ascontiguousarray(opaque(base))), block)
    else:
        digests = _write_gathered(stage.path(part), head, base)
        stage.describe(part, Layout(len(head), block, base.nbytes), digests)
    return combine(array_header(base.dtype, base.shape, tag), digests)


def is_fortran(array: Array) -> bool:
    """Whether an array is kept in Fortran order."""
    return array.flags.f_contiguous and not array.flags.c_contiguous


def seal_in_place(array: Array, part: str, stage: Stage) -> Digest:
    """Hash an array that lies in the store already, at the end of the file of a part; tell the stage what is known.

    Returns
    -------
    Digest
        As `write_array`.
    """
    head = header_bytes(array.dtype, array.shape, is_fortran(array))
    digests = block_digests(array)
    if len(head) + array.nbytes > LAID_OUT:
        stored = block_digests(array.T) if is_fortran(array) else digests
        stage.describe(part, Layout(len(head), block_size(array.itemsize), array.nbytes), stored)
    return combine(array_header(array.dtype, array.shape), digests)


def block_digests(array: Array) -> list[Digest]:
    """Digests of an array's logical blocks, by two threads if it is large."""

    def digest_of(index: int) -> Digest:
        hasher = Hasher()
        for piece in _block(array, index):
            hasher.update(piece)
        return hasher.hexdigest()

    return _for_each_block(array, digest_of)


def _write_gathered(path: str, head: bytes, array: Array) -> list[Digest]:
    """Write an array that is not contiguous to a new file, in C order; the digests of its blocks."""
    fd, early = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), writeback.is_wanted(path)

    def write_one(index: int) -> Digest:
        start = len(head) + index * block_size(array.itemsize)
        hasher, position = Hasher(), start
        for piece in _block(array, index):
            hasher.update(piece)
            position = write_at(fd, piece.data, position)
        if early:
            writeback.begin(fd, start, position - start)
        return hasher.hexdigest()

    try:
        write_at(fd, memoryview(head), 0)
        return _for_each_block(array, write_one)
    finally:
        os.close(fd)


def write_at(fd: int, view: memoryview, position: int) -> int:
    """Write all of it, however little the system takes at a time; the position behind it."""
    while view.nbytes:
        count = os.pwrite(fd, view, position)
        view, position = view[count:], position + count
    return position


def _for_each_block(array: Array, work: Callable[[int], Digest]) -> list[Digest]:
    count = -(-array.nbytes // block_size(array.itemsize))
    return for_each_block(count, work, parallel=array.nbytes >= WORTHWHILE)


def _block(array: Array, index: int) -> Iterator[Array]:
    """Buffers that, put together, are one logical block."""
    length = block_size(array.itemsize) // array.itemsize
    return _elements(array, index * length, min((index + 1) * length, array.size))


def _elements(array: Array, start: int, stop: int) -> Iterator[Array]:
    """Buffers of the elements `start` to `stop` in C order; whole rows are gathered at once."""
    if array.flags.c_contiguous or array.ndim == 1:
        yield from c_order_buffers(array.reshape(-1)[start:stop])
        return
    row = math.prod(array.shape[1:])
    first, last = -(-start // row), stop // row  # rows that lie inside
    if first > last:
        yield from _elements(array[last], start - last * row, stop - last * row)
        return
    if start < first * row:
        yield from _elements(array[first - 1], start - (first - 1) * row, row)
    yield from c_order_buffers(array[first:last])
    if last * row < stop:
        yield from _elements(array[last], 0, stop - last * row)


def _flat(array: Array) -> Any:
    """The bytes of a C-contiguous array."""
    return array.reshape(-1).view("u1") if array.nbytes else b""


# -- reading ------------------------------------------------------------------------------------


def open_array(payload: Payload, part: str, writable: bool, checked: bool = False) -> Array:
    """The array of one part: a private mapping of its file, or private memory if it is kept in the index.

    Parameters
    ----------
    payload : Payload
        The sealed object.
    part : str
        Which part.
    writable : bool
        Whether it may be written to (copy-on-write); else nothing can make it writable.
    checked : bool
        Whether every byte is checked before the array is returned, and not beside the computation: for indices that
        will be followed without a look at them. Booleans are always checked: NumPy counts on their being 0 or 1.

    Raises
    ------
    DamagedObject
        If the part is not a whole ``.npy`` file without objects.
    """
    data = _data(payload, part, writable, checked)
    header = read_header(data, part)
    if header.size != len(data):
        raise DamagedObject(f"{part} should have {header.size:,} bytes by its header, but it has {len(data):,}")
    if not checked and _holds_booleans(header.dtype) and payload.is_file(part):
        payload.path(part)
    order: Any = "F" if header.fortran else "C"
    return np.ndarray(header.shape, header.dtype, buffer=data, offset=header.offset, order=order)


def _data(payload: Payload, part: str, writable: bool, checked: bool) -> Any:
    if part not in payload.parts():
        raise DamagedObject(f"the part {part} is missing")
    if payload.is_file(part):
        return map_file(payload.path(part), writable) if checked else payload.map(part, writable)
    own = getattr(payload, "own", None)  # memory that nobody else has, as it is
    if own is not None:
        return own(part) if writable else own(part).toreadonly()
    return bytearray(payload.read(part)) if writable else payload.read(part)


def _holds_booleans(dtype: np.dtype[Any]) -> bool:
    base = dtype.base
    if base.names is None:
        return base.kind == "b"
    assert base.fields is not None
    return any(_holds_booleans(base.fields[name][0]) for name in base.names)


def read_header(data: Any, part: str) -> Header:
    """Parse the head of a ``.npy`` buffer (bytes, bytearray or memory map)."""
    head = bytes(data[:12])
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(head[6:8])
    if head[:6] != _MAGIC or width is None:
        raise DamagedObject(f"{part} is not a .npy file of format 1.0, 2.0 or 3.0: it begins with {head[:8]!r}")
    offset = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if offset > min(len(data), _LONGEST_HEADER):
        raise DamagedObject(f"the header of {part} claims {offset:,} bytes, the part has {len(data):,}")
    return _parse(bytes(data[8 + width : offset]), "utf-8" if head[6] == 3 else "latin-1", offset, part)


@lru_cache(maxsize=4096)
def _parse(text: bytes, encoding: str, offset: int, part: str) -> Header:
    try:
        fields = ast.literal_eval(text.decode(encoding))
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = npy_format.descr_to_dtype(descr)
    except (ValueError, TypeError, SyntaxError, KeyError, MemoryError, RecursionError) as error:
        raise DamagedObject(f"the header of {part} can't be read: {error}") from error
    if len(fields) != 3 or type(fortran) is not bool or not _is_shape(shape):
        raise DamagedObject(f"the header of {part} holds something else than descr, fortran_order and shape")
    if dtype.hasobject:
        raise DamagedObject(f"{part} holds Python objects, which are never read from a .npy file")
    return Header(dtype, shape, fortran, offset)


def _is_shape(shape: Any) -> bool:
    return (
        type(shape) is tuple
        and len(shape) <= MOST_AXES
        and all(type(length) is int and length >= 0 for length in shape)
    )


# -- structured elements --------------------------------------------------------------------------


def alignment(dtype: np.dtype[Any]) -> list[bool]:
    """Of a structured dtype and of those in it, outer before inner, fields in order: whether it is aligned.

    ``align=True`` sets where the fields are, which a ``.npy`` file keeps, and a flag, which it doesn't.
    """
    base = dtype.base
    if base.names is None:
        return []
    assert base.fields is not None
    return [base.isalignedstruct, *(flag for name in base.names for flag in alignment(base.fields[name][0]))]


def realigned(dtype: np.dtype[Any], flags: Sequence[bool]) -> np.dtype[Any]:
    """The dtype with the flags that `alignment` gave.

    Raises
    ------
    DamagedObject
        If they don't fit the dtype.
    """
    try:
        rest = iter(flags)
        made = _realigned(dtype, rest)
    except (StopIteration, ValueError, TypeError) as error:
        raise DamagedObject(f"the dtype {dtype} can't be aligned: {error}") from error
    if made != dtype or list(rest):
        raise DamagedObject(f"the dtype {dtype} has other structures than are said to be aligned")
    return made


def _realigned(dtype: np.dtype[Any], flags: Iterator[bool]) -> np.dtype[Any]:
    base, shape = dtype.base, dtype.shape
    if base.names is None:
        return dtype
    aligned = next(flags) is True
    assert base.fields is not None
    fields = [base.fields[name] for name in base.names]
    described: Any = {
        "names": base.names,
        "formats": [_realigned(field[0], flags) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": base.itemsize,
    }
    made: np.dtype[Any] = np.dtype(described, align=aligned)
    return np.dtype((made, shape)) if shape else made


def summary(array: Array, most: int = 5) -> str:
    """dtype, shape and first values in one line; touches only those values."""
    first = array.reshape(-1)[:most] if array.flags.c_contiguous else array.T.reshape(-1)[:most]
    values = ", ".join(map(str, first.tolist())) + (", ..." if array.size > most else "")
    return f"{array.dtype} {array.shape}: {values}"

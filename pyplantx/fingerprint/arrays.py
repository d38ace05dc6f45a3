"""Numpy arrays as canonical bytes: a header (class, dtype, shape) and fixed logical blocks in C order.

This file may know: how to look at an array that somebody else has made. It may not know: how anything is
hashed, and it never imports numpy: whoever holds an array has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

#: Logical block of the tree hash, in bytes of the C-order stream. Part of the format: never change it.
BLOCK: Final = 4 << 20

#: Elements of the last axis that are gathered at once.
_TILE: Final = 64

#: Classes whose arrays are the same value as a plain `numpy.ndarray`.
PLAIN: Final = frozenset({"numpy.ndarray", "numpy.memmap"})


def size(number: int) -> bytes:
    """A length as eight bytes, little-endian."""
    return number.to_bytes(8, "little")


def text(value: str) -> bytes:
    """A length-prefixed text, UTF-8 with lone surrogates let through."""
    raw = value.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw


def class_tag(cls: type) -> str:
    """Name of an array's class as it enters the header; "" for plain arrays and memory maps."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    return "" if name in PLAIN else name


def describe_dtype(dtype: Any) -> bytes:
    """Canonical bytes of a dtype: kind, width, byte order, unit; fields with offsets for structured ones."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return b"A" + describe_dtype(base) + _shape(shape)
    if dtype.names is not None:
        return _describe_fields(dtype)
    owner = dtype.type.__module__
    if owner != "numpy":  # bfloat16 and its kin call themselves "<V2": only the class tells them apart
        return b"U" + text(f"{owner}.{dtype.type.__qualname__}") + text(dtype.str)
    return b"S" + text(dtype.str)


def _describe_fields(dtype: Any) -> bytes:
    parts = [b"F", size(dtype.itemsize), size(len(dtype.names))]
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        parts += (text(name), size(offset), describe_dtype(field))
    return b"".join(parts)


def beside_layout(dtype: Any, path: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
    """What a dtype says that is not in `describe_dtype`, since no file of elements keeps it; [] for plain ones.

    Metadata (the names of an HDF enumeration, what a string of HDF is), titles of fields, the class of records, and
    what strings of variable width take for missing.
    """
    found: list[tuple[object, ...]] = []
    if dtype.metadata:
        found.append((path, "metadata", dict(dtype.metadata)))
    if dtype.subdtype is not None:
        found += beside_layout(dtype.subdtype[0], (*path, "[]"))
    elif dtype.names is not None:
        found += _beside_fields(dtype, path)
    elif dtype.kind == "T":
        found += [(path, name, getattr(dtype, name)) for name in ("na_object", "coerce") if _is_set(dtype, name)]
    return found


def _beside_fields(dtype: Any, path: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    if dtype.type.__name__ != "void":
        yield path, "class", dtype.type
    for name in dtype.names:
        field, _, *title = dtype.fields[name]
        if title:
            yield (*path, name), "title", title[0]
        yield from beside_layout(field, (*path, name))


def _is_set(dtype: Any, name: str) -> bool:
    """Whether an option of variable-width strings differs from what they have without being told."""
    return hasattr(dtype, name) and (name != "coerce" or not dtype.coerce)


def _shape(shape: Sequence[int]) -> bytes:
    return size(len(shape)) + b"".join(size(int(n)) for n in shape)


def header(dtype: Any, shape: Sequence[int], tag: str = "") -> bytes:
    """Canonical bytes of everything about an array but its elements.

    Parameters
    ----------
    dtype : numpy.dtype
        Element type; the byte order counts.
    shape : sequence of int
        Lengths of the axes.
    tag : str
        `class_tag` of the array's class, or the tag of another container with the same tree ("hdf").
    """
    return b"array\0" + text(tag) + describe_dtype(dtype) + _shape(shape)


def block_size(itemsize: int) -> int:
    """Bytes per logical block for elements of `itemsize` bytes: whole elements, `BLOCK` at most (one at least)."""
    return max(1, BLOCK // max(1, itemsize)) * max(1, itemsize)


def is_elementwise(dtype: Any) -> bool:
    """Whether the raw bytes say nothing (object pointers, variable-width strings)."""
    return bool(dtype.hasobject) or dtype.kind == "T"


def has_metadata(dtype: Any) -> bool:
    """Whether a dtype carries metadata, itself or in a field."""
    return any(kind == "metadata" for _, kind, _ in beside_layout(dtype))


def c_order_buffers(array: Any) -> Iterator[Any]:
    """Buffers that, put together, are the array's elements in C order; at most about one block is copied.

    Parameters
    ----------
    array : numpy.ndarray
        Of any layout, without object elements.

    Yields
    ------
    numpy.ndarray of uint8
        Contiguous, one-dimensional. Their sizes are not aligned to logical blocks.
    """
    if array.nbytes:
        base = array.view(sys.modules["numpy"].ndarray)  # np.matrix can't lose an axis, so rows would not end
        yield from _buffers(opaque(base))


def opaque(array: Any) -> Any:
    """An array with its structures as mere bytes, to be copied.

    A copy of structures leaves out the bytes between fields, and has whatever was in its memory there.

    Parameters
    ----------
    array : numpy.ndarray
        Without object elements.
    """
    return array if array.dtype.names is None or not array.nbytes else array.view(f"V{array.dtype.itemsize}")


def contiguous(array: Any) -> Any:
    """An array in C order, copied only if it is not; with what lies between the fields of structures, see `opaque`."""
    np = sys.modules["numpy"]
    return _taken(array, np.ascontiguousarray if array.ndim else np.asarray)  # the first would give it an axis


def copied(array: Any) -> Any:
    """A copy of an array, with what lies between the fields of structures, see `opaque`."""
    return _taken(array, sys.modules["numpy"].array)


def _taken(array: Any, take: Callable[[Any], Any]) -> Any:
    if array.dtype.names is None or array.dtype.hasobject:
        return take(array)
    return take(opaque(array)).view(array.dtype)


def _buffers(array: Any) -> Iterator[Any]:
    if array.flags.c_contiguous:
        yield array.reshape(-1).view("u1")
    elif array.nbytes <= BLOCK:
        yield _gather(array).reshape(-1).view("u1")
    else:
        yield from _slabs(array)


def _gather(array: Any) -> Any:
    """A copy in C order, in tiles: a straight transposing copy touches a page per element (0.2 instead of 4 GB/s)."""
    if array.ndim < 2 or array.shape[-1] <= _TILE:
        return array.copy("C")
    gathered = sys.modules["numpy"].empty(array.shape, array.dtype)
    for start in range(0, array.shape[-1], _TILE):
        tile = array[..., start : start + _TILE]
        gathered[..., start : start + _TILE] = tile.copy("K")
    return gathered


def _slabs(array: Any) -> Iterator[Any]:
    row = array.nbytes // array.shape[0]
    if row > BLOCK:
        for item in array:
            yield from _buffers(item)
        return
    step = max(1, BLOCK // row)
    for start in range(0, array.shape[0], step):
        yield from _buffers(array[start : start + step])

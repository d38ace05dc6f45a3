"""The values of the golden files, and how any value is described without the code under test.

`describe` turns a value into JSON that says its type and its bits; the golden files hold such descriptions.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import struct
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from pyplantx import specs


def bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def describe(value: Any) -> Any:
    """Type and bits of a value as JSON."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if kind in _PLAIN:
        return {"type": name, "value": _PLAIN[kind](value)}
    if isinstance(value, np.ma.MaskedArray):
        return {"type": "masked", "parts": [describe(part) for part in (value.data, value.mask, value.fill_value)]}
    if isinstance(value, (np.ndarray, np.generic)):
        return describe_array(value, name)
    if sp.issparse(value):
        return describe_sparse(value)
    if hasattr(value, "shards"):
        return {**describe_array(np.asarray(value), "zarr"), "chunks": list(value.chunks)}
    if hasattr(value, "read_direct"):
        return {**describe_array(np.asarray(value), "hdf"), "chunks": value.chunks and list(value.chunks)}
    if hasattr(value, "get_weights"):
        return {"type": "keras", "name": value.name, "weights": [describe(weight) for weight in value.get_weights()]}
    if callable(value):
        return {"type": "function", "of 2": describe(value(2))}
    return {"type": name, "value": repr(value)}


_PLAIN: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: None,
    bool: bool,
    int: hex,
    float: bits,
    complex: lambda value: [bits(value.real), bits(value.imag)],
    str: lambda value: value.encode("utf-8", "surrogatepass").hex(),
    bytes: bytes.hex,
    bytearray: lambda value: value.hex(),
    list: lambda value: [describe(item) for item in value],
    tuple: lambda value: [describe(item) for item in value],
    set: lambda value: sorted((describe(item) for item in value), key=str),
    dict: lambda value: [[describe(key), describe(item)] for key, item in value.items()],
}


def describe_array(value: Any, name: str) -> Any:
    order = "F" if isinstance(value, np.ndarray) and value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    dtype = value.dtype.str if value.dtype.names is None else str(value.dtype.descr)
    if name.startswith("numpy.rec"):
        name = "numpy.recarray"
    if value.dtype.hasobject:
        return {"type": name, "shape": list(value.shape), "items": describe(value.tolist())}
    data = value.tobytes()
    shown = {"bytes": data.hex()} if len(data) <= 256 else {"sha256": hashlib.sha256(data).hexdigest()}
    return {"type": name, "dtype": dtype, "shape": list(value.shape), "order": order, **shown}


def describe_sparse(value: Any) -> Any:
    plain = value.tocoo()
    items = ([value.dtype.type(item).tobytes().hex()] for item in plain.data)
    entries = sorted([*map(int, key), *item] for key, item in zip(zip(*plain.coords), items))
    indices = getattr(value, "indices", getattr(value, "coords", (None,))[0])
    width = str(indices.dtype) if isinstance(indices, np.ndarray) and value.format != "lil" else None
    name = f"scipy.sparse.{type(value).__name__}"
    return {"type": name, "dtype": value.dtype.str, "shape": list(value.shape), "indices": width, "entries": entries}


def describe_file(path: str) -> Any:
    """A received file: its ending and its bytes."""
    with open(path, "rb") as file:
        return {"type": "file", "ending": os.path.splitext(path)[1], "bytes": file.read().hex()}


def _nowhere(function: Any) -> Any:
    """The function without traces of this machine and this module, as if it had been defined in math."""
    code = function.__code__.replace(co_filename="golden.py", co_firstlineno=1)
    return types.FunctionType(code, vars(math), function.__name__)


def _floats(*hexes: str) -> list[float]:
    return [struct.unpack(">d", bytes.fromhex(text))[0] for text in hexes]


def _packed(fill: int) -> Any:
    return {"shape": (4, 3), "dtype": "<i2", "compression": "gzip", "chunks": (2, 3), "fillvalue": fill}


def _zarr(fill: float, **options: Any) -> Any:
    return {"shape": (5, 4), "dtype": "<f4", "chunks": (2, 2), "fillvalue": fill, **options}


_DENSE = np.array([[0, 1.5, 0], [0, 0, 0], [-0.25, 0, 3]])
_WIDE = sp.csc_array(_DENSE)
_WIDE.indices, _WIDE.indptr = _WIDE.indices.astype("i8"), _WIDE.indptr.astype("i8")

#: spec name -> case name -> value. For "hdf" and "zarr" a dict holds the options of an allocation, whose first row is
#: filled.
VALUES: dict[str, dict[str, Any]] = {
    "simple": {
        "none": None,
        "true": True,
        "small-int": -42,
        "largest-plain-int": 2**53,
        "tagged-int": -(2**53) - 1,
        "huge-int": 10**5000,
        "float": 0.1,
        "integral-float": 3.0,
        "negative-zero": -0.0,
        "nan-with-payload": _floats("fff8000000000123")[0],
        "minus-infinity": float("-inf"),
        "complex": complex(-0.0, float("nan")),
        "text": 'Grüße "𝔘"\n\x00',
        "lone-surrogates": "\ud835\udd18",
        "bytes": b"\x00\xff",
        "longest-inline-bytes": bytes(range(256)),
        "raw-bytes": bytes(range(256)) + b"!",
    },
    "list": {
        "empty": [],
        "mixed": [None, True, 1, 1.0, "1", b"1", 1j, 2**60, float("inf"), "\ud800"],
        "nested": [[], [1, [2, [3.5]]], "x"],
        "ints": [1, 2, 3],
        "floats": [0.5, -0.0, 1e300],
    },
    "object": {
        "dict-of-tuples": {"a": (1, 2), ("b",): {3}},
        "date": datetime.date(2026, 11, 20),
        "object-array": np.array([1, "a", None], dtype=object),
        "large-buffer": {"weights": np.arange(2**13, dtype="<f8").reshape(2, -1)},
        "lambda": _nowhere(lambda x: x * 21),
    },
    "array": {
        "two-rows": np.arange(6.0).reshape(2, 3),
        "fortran-order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "zero-dimensional": np.array(5, "<i4"),
        "empty": np.zeros((0, 3), "<f4"),
        "big-endian": np.arange(3, dtype=">i2"),
        "structured": np.array([(1, [0.5, -0.0])], [("a", ">i2"), ("b", "<f8", (2,))]),
        "padded-structure": np.zeros(2, np.dtype([("a", "i1"), ("b", "<f8")], align=True)),
        "unicode-field": np.zeros(1, [("ключ", "<i4")]),
        "nan-bits": np.array(_floats("7ff8000000000000", "fff8000000000123", "8000000000000000")),
        "text": np.array(["a", "bc"]),
        "times": np.array([1, "NaT"], "M8[ns]"),
        "bool": np.array([True, False]),
        "scalar": np.float64(0.1),
        "matrix": np.asmatrix([[1, 2]], dtype="<i8"),
        "record-array": np.rec.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=7, dtype="<i8"),
        "masked-without-mask": np.ma.array([1.0, 2.0], dtype="<f8"),
    },
    "sparse": {
        **{
            f"{form}-{kind.__name__[4:]}": kind(_DENSE).asformat(form)
            for form in ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")
            for kind in (sp.csr_array, sp.csr_matrix)
        },
        "wide-indices": _WIDE,
        "stored-zero": sp.csr_array((np.array([0.0, 1.0]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2)),
        "three-dimensional": sp.coo_array(np.eye(2).reshape(1, 2, 2)),
        "empty": sp.csr_matrix((2, 0), dtype="<c8"),
    },
    "file": {
        "png": (".png", b"\x89PNG\r\n\x1a\n"),
        "without-ending": ("", b"text"),
        "compressed-tar": (".tar.gz", b"\x1f\x8b"),
        "empty": (".csv", b""),
    },
    "hdf": {
        "contiguous": np.arange(6, dtype="<f4").reshape(2, 3),
        "zero-dimensional": np.array(2.5),
        "empty": np.zeros((0, 2)),
        "big-endian": np.arange(3, dtype=">i4"),
        "at-an-offset": np.arange(-3, 9, dtype=">i2").reshape(3, 4),
        "structured": np.array([(1, 2.0)], [("a", "<i2"), ("b", "<f8")]),
        "chunked-compressed-filled": _packed(-1),
    },
    "zarr": {
        "one-chunk": np.arange(6, dtype="<f8").reshape(2, 3),
        "zero-dimensional": np.array(2.5),
        "empty": np.zeros((0, 2)),
        "truth": np.array([True, False, True]),
        "complex": np.array([1j, -0.0], "<c8"),
        "chunks-never-written": _zarr(-1.5),
        "packed": _zarr(0.0, compression="gzip"),
        "sharded": _zarr(0.0, chunks=(1, 2), shards=(2, 4)),
    },
    "keras": {},
}


def write(spec: specs.IngredientTypeSpec, value: Any, stage: Any) -> specs.Written:
    """Write one golden value with today's writer."""
    if spec.name == "file":
        ending, content = value
        allocation = spec.allocate(stage, suffix=ending)
        with open(allocation.handle, "xb") as file:
            file.write(content)
        return allocation.seal()
    if isinstance(value, dict) and "fillvalue" in value:
        allocation = spec.allocate(stage, **value)
        allocation.handle[0] = np.arange(value["shape"][1])
        return allocation.seal()
    return spec.write(value, stage)


def received(spec: specs.IngredientTypeSpec, value: Any) -> Any:
    """Description of an opened value."""
    return describe_file(value) if spec.name == "file" else describe(value)

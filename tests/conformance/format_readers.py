"""Readers written from specs/*/1/FORMAT.md alone. They import nothing of pyplantx, and refuse little."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import pickle
import struct
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
import xxhash

Parts = dict[str, bytes]


def read_simple(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    if meta.get("part") == "value.bin":
        assert list(parts) == ["value.bin"] and len(parts["value.bin"]) > 256
        return parts["value.bin"]
    assert list(parts) == ["value.json"] and meta == {}
    text = parts["value.json"].decode("utf-8")
    assert text == text.strip()
    return json.loads(text, object_hook=untag, parse_constant=lambda name: 1 / 0)


def untag(tagged: dict[str, Any]) -> Any:
    ((tag, content),) = tagged.items()
    if tag == "int":
        assert abs(int(content, 0)) > 2**53
        return int(content, 0)
    if tag == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if tag == "complex":
        return complex(*content)
    if tag == "str":
        return bytes.fromhex(content).decode("utf-8", "surrogatepass")
    assert tag == "bytes"
    return base64.b64decode(content)


def read_object(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    names = [f"buffer-{index}.bin" for index in range(meta.get("buffers", 0))]
    assert set(parts) == {"value.pickle", *names}
    assert all(len(parts[name]) >= 65536 for name in names)
    assert parts["value.pickle"][:2] == b"\x80\x05"
    loads = __import__("dill").loads if "dill" in meta else pickle.loads
    return loads(parts["value.pickle"], buffers=[bytearray(parts[name]) for name in names])


def read_npy(data: bytes) -> Any:
    assert data[:6] == b"\x93NUMPY" and data[6:8] in (b"\x01\x00", b"\x03\x00")
    width, encoding = (2, "latin-1") if data[6] == 1 else (4, "utf-8")
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    assert start % 64 == 0
    head = ast.literal_eval(data[8 + width : start].decode(encoding))
    dtype = np.lib.format.descr_to_dtype(head["descr"])
    flat = np.frombuffer(bytearray(data[start:]), dtype) if dtype.itemsize else np.empty(head["shape"], dtype)
    return flat.reshape(head["shape"], order="F" if head["fortran_order"] else "C")


def read_array(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    array = read_npy(parts["data.npy"])
    if meta.get("record"):
        array = array.view(np.dtype((np.record, array.dtype)))
    kind = meta.get("class")
    if kind == "scalar":
        return array[()]
    if kind == "masked":
        mask = read_npy(parts["mask.npy"]) if "mask.npy" in parts else np.ma.nomask
        value = np.ma.array(array, mask=mask)
        if "fill.npy" in parts:
            value.fill_value = read_npy(parts["fill.npy"])
        return value
    return array if kind is None else array.view({"matrix": np.matrix, "recarray": np.recarray}[kind])


def read_sparse(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    found = {name.removesuffix(".npy"): read_npy(data) for name, data in parts.items()}
    kind, shape, form = getattr(sp, meta["class"]), tuple(meta["shape"]), meta["class"][:3]
    if form in ("csr", "csc", "bsr"):
        value = kind((found["data"], found["indices"], found["indptr"]), shape=shape)
        if form != "bsr":
            value.indices = value.indices.astype(found["indices"].dtype)
        return value
    if form == "coo":
        coords = [found[f"coords-{axis}"] for axis in range(len(shape))]
        return kind((found["data"], tuple(coords)), shape=shape)
    if form == "dia":
        return kind((found["data"], found["offsets"]), shape=shape)
    if form == "lil":
        rows = np.repeat(np.arange(shape[0]), np.diff(found["indptr"]))
        keys = np.column_stack([rows, found["indices"]])
    else:
        keys = found["keys"]
    value = kind(shape, dtype=meta["dtype"])
    for key, item in zip(keys.tolist(), found["data"]):
        value[tuple(key)] = item
    return value


def read_file(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    assert list(parts) == [meta["part"]] and meta["part"].startswith("file")
    return str(path / meta["part"])


class Dataset:
    """What `describe` asks of a dataset."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._values, self.chunks, self.read_direct = dataset[()], dataset.chunks, None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self._values)


def read_hdf(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    assert list(parts) == ["data.h5"] and parts["data.h5"][8] == 3  # the superblock's version
    with h5py.File(path / "data.h5") as file:
        assert list(file) == ["data"]
        dataset = file["data"]
        assert parts["data.h5"][meta.get("offset", len(parts["data.h5"])) :] in (b"", dataset[()].tobytes())
        assert list(dataset.shape) == meta["shape"]
        assert meta["dtype"] in (dataset.dtype.str, str(dataset.dtype.descr))
        return Dataset(dataset)


class Pieces:
    """What `describe` asks of a Zarr array."""

    shards = None

    def __init__(self, values: Any, chunks: list[int]) -> None:
        self._values, self.chunks = values, chunks

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self._values


def read_zarr(parts: Parts, meta: dict[str, Any], path: Any) -> Any:
    head = json.loads(parts["zarr.json"])
    assert head["zarr_format"] == 3 and head["node_type"] == "array" and head["shape"] == meta["shape"]
    names = {"float64": "<f8", "float32": "<f4", "complex64": "<c8", "bool": "|b1"}
    assert names[head["data_type"]] == meta["dtype"]
    fill = np.array([complex(*head["fill_value"]) if "c" in meta["dtype"] else head["fill_value"]]).astype(
        meta["dtype"]
    )
    values = np.full(meta["shape"], fill[0], meta["dtype"])
    size = head["chunk_grid"]["configuration"]["chunk_shape"]
    for part in parts.keys() - {"zarr.json"}:
        place = [int(number) for number in part.split(".")[1:]]
        chunk = zarr_chunk(parts[part], head["codecs"], size, fill)
        put(values, [number * length for number, length in zip(place, size)], chunk)
    codec = head["codecs"][0]
    return Pieces(values, codec["configuration"]["chunk_shape"] if codec["name"] == "sharding_indexed" else size)


def put(values: Any, start: list[int], chunk: Any) -> None:
    """Put a chunk in its place; what is beyond the array's end is cut off."""
    target = values[(*(slice(at, at + length) for at, length in zip(start, chunk.shape)), ...)]
    target[...] = chunk[tuple(map(slice, target.shape))]


def zarr_chunk(data: bytes, codecs: list[Any], size: list[int], fill: Any) -> Any:
    first, *rest = codecs
    for codec in reversed(rest):
        assert codec["name"] == "gzip"
        data = gzip.decompress(data)
    if first["name"] == "bytes":
        assert first.get("configuration", {"endian": "little"}) == {"endian": "little"}
        return np.frombuffer(data, fill.dtype).reshape(size)
    assert first["name"] == "sharding_indexed"
    inner = first["configuration"]["chunk_shape"]
    grid = [length // part for length, part in zip(size, inner)]
    index = np.frombuffer(data[-4 - 16 * int(np.prod(grid)) : -4], "<u8").reshape(*grid, 2)
    chunk = np.full(size, fill[0])
    for place in np.ndindex(*grid):
        offset, nbytes = map(int, index[place])
        if offset != 2**64 - 1:
            piece = zarr_chunk(data[offset : offset + nbytes], first["configuration"]["codecs"], inner, fill)
            put(chunk, [number * length for number, length in zip(place, inner)], piece)
    return chunk


READERS = {
    "simple": read_simple,
    "list": read_simple,
    "object": read_object,
    "array": read_array,
    "sparse": read_sparse,
    "file": read_file,
    "hdf": read_hdf,
    "zarr": read_zarr,
}


# -- digests --------------------------------------------------------------------------------------


def combine(header: bytes, digests: list[str]) -> str:
    joined = b"".join(map(bytes.fromhex, digests))
    return xxhash.xxh3_128_hexdigest(len(header).to_bytes(8, "little") + header + joined)


def blocks(data: bytes, size: int = 4 << 20) -> list[str]:
    return [xxhash.xxh3_128_hexdigest(data[start : start + size]) for start in range(0, len(data), size)]


def file_digest(parts: Parts, meta: dict[str, Any]) -> str:
    ((name, data),) = parts.items()
    return combine(b"file\0" + name.removeprefix("file").encode(), blocks(data))


def array_digest(array: Any, tag: bytes = b"") -> str:
    """Only for plain dtypes without fields."""
    dtype = array.dtype.str.encode()
    shape = b"".join(length.to_bytes(8, "little") for length in (len(array.shape), *array.shape))
    head = b"array\0" + len(tag).to_bytes(8, "little") + tag + b"S" + len(dtype).to_bytes(8, "little") + dtype + shape
    return combine(head, blocks(array.tobytes(), (4 << 20) // array.dtype.itemsize * array.dtype.itemsize))


def sparse_digest(parts: Parts, meta: dict[str, Any]) -> str:
    names = sorted(name.removesuffix(".npy") for name in parts)
    head = "\0".join(["sparse", meta["class"], str(tuple(meta["shape"])), meta.get("dtype", ""), ",".join(names)])
    return combine(head.encode(), [array_digest(read_npy(parts[f"{name}.npy"])) for name in names])

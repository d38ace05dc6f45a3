"""Makes the files that must be refused: ``python tests/conformance/write_rejects.py``.

Like golden files, existing ones are never touched. Each case is a folder with the parts, and a case.json with the
metadata that the index would hold and the reason for which it is refused.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def npy(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def header(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def array(values: Any, dtype: str = "<f8") -> bytes:
    flat = np.asarray(values, dtype)
    return npy(header(repr(dtype), repr(flat.shape)), flat.tobytes())


def hdf(make: Callable[[h5py.File], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with h5py.File(folder / "data.h5", "w", libver=("v110", "v110")) as file:
            make(file)

    return write


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (3,))
    file.create_virtual_dataset("data", layout)


def early(file: h5py.File) -> None:
    """Twelve bytes of elements after 2048 others."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    file.create_dataset("data", (3,), "<f4", dcpl=plist)


def unclosed(folder: Path) -> None:
    with h5py.File(folder / "data.h5", "w", libver=("v110", "v110")) as file:
        file.create_dataset("data", (3,), "<f4")
    content = bytearray((folder / "data.h5").read_bytes())
    content[11] |= 1  # the superblock's mark of a file open for writing
    (folder / "data.h5").write_bytes(content)


def archive(*members: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / "model.keras", "w") as file:
            for member in members:
                file.writestr(zipfile.ZipInfo(member), b"{}")

    return write


def zarr_head(**changes: Any) -> bytes:
    head = {
        "shape": [3],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0.0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "zarr_format": 3,
        "node_type": "array",
    }
    return json.dumps({**head, **changes}).encode()


CSR = {"class": "csr_array", "shape": [2, 2]}
F4 = {"shape": [3], "dtype": "<f4"}
CSR_PARTS = {"data.npy": array([1, 2]), "indices.npy": array([0, 1], "<i4"), "indptr.npy": array([0, 1, 2], "<i4")}

#: spec -> case -> (parts or a function that writes them, metadata, reason)
REJECTS: dict[str, dict[str, tuple[Any, dict[str, Any], str]]] = {
    "simple": {
        "nan-literal": ({"value.json": b"NaN"}, {}, "NaN is not JSON"),
        "trailing-newline": ({"value.json": b"5\n"}, {}, "goes on after its end"),
        "unknown-tag": ({"value.json": b'{"tuple":[1]}'}, {}, "unknown tag 'tuple'"),
        "two-tags": ({"value.json": b'{"int":"0x1","str":"61"}'}, {}, "has one key"),
        "float-out-of-range": ({"value.json": b"1e999"}, {}, "out of range"),
        "untagged-huge-int": ({"value.json": b"1" + b"0" * 5000}, {}, "not what it must be"),
        "complex-of-ints": ({"value.json": b'{"complex":[1,2]}'}, {}, "two floats"),
        "short-float-bits": ({"value.json": b'{"float":"7ff8"}'}, {}, "holds something else"),
        "bad-base64": ({"value.json": b'{"bytes":"*"}'}, {}, "not what it must be"),
        "not-utf-8": ({"value.json": b'"\xff"'}, {}, "can't decode"),
        "empty": ({"value.json": b""}, {}, "not JSON"),
        "a-list": ({"value.json": b"[1]"}, {}, "is a list"),
    },
    "list": {
        "not-a-list": ({"value.json": b"5"}, {}, "is a int"),
        "unclosed": ({"value.json": b"[1,2"}, {}, "not what it must be"),
        "too-deep": ({"value.json": b"[" * 20_000 + b"]" * 20_000}, {}, "not what it must be"),
        "object-inside": ({"value.json": b'[{"a":1}]'}, {}, "unknown tag 'a'"),
    },
    "object": {
        "truncated": (
            {"value.pickle": b"\x80\x05\x95\x20\x00\x00\x00\x00\x00\x00\x00}"},
            {"type": "dict"},
            "not a whole pickle",
        ),
        "not-a-pickle": ({"value.pickle": b"hello"}, {"type": "str"}, "not a whole pickle"),
        "missing-buffer": ({"value.pickle": b"\x80\x05N."}, {"type": "dict", "buffers": 1}, "don't match its record"),
        "extra-part": (
            {"value.pickle": b"\x80\x05N.", "more.bin": b"x"},
            {"type": "NoneType"},
            "don't match its record",
        ),
        "bytecode-of-python-2.7": (
            {"value.pickle": b"\x80\x05N."},
            {"type": "function", "dill": "0.4.1", "python": [2, 7]},
            "bytecode of Python 2.7",
        ),
        "class-that-is-gone": (
            {"value.pickle": b"\x80\x05cno_such_module\nModel\n."},
            {"type": "no_such_module.Model", "classes": ["no_such_module:Model"]},
            "can't be made again",
        ),
        "library-that-is-missing": (
            {"value.pickle": b"\x80\x05cno_such_module\nModel\n."},
            {"type": "no_such_module.Model"},
            "needs the package 'no_such_module'",
        ),
    },
    "array": {
        "no-magic": ({"data.npy": b"PK\x03\x04" + bytes(60)}, {}, "not a .npy file"),
        "format-9": ({"data.npy": b"\x93NUMPY\x09\x00\x02\x00{}"}, {}, "not a .npy file"),
        "header-beyond-the-end": ({"data.npy": b"\x93NUMPY\x01\x00\xff\xff{"}, {}, "claims"),
        "objects": ({"data.npy": npy(header("'|O'", "(1,)"), bytes(8))}, {}, "Python objects"),
        "objects-in-a-field": ({"data.npy": npy(header("[('a', '|O')]", "(1,)"), bytes(8))}, {}, "Python objects"),
        "eight-tebibytes": ({"data.npy": npy(header("'<f8'", "(1099511627776,)"))}, {}, "should have 8,796,093"),
        "one-byte-short": ({"data.npy": array([1.0, 2.0])[:-1]}, {}, "should have"),
        "one-byte-more": ({"data.npy": array([1.0, 2.0]) + b"\0"}, {}, "should have"),
        "negative-length": ({"data.npy": npy(header("'<f8'", "(-1,)"))}, {}, "something else"),
        "code-in-the-header": ({"data.npy": npy("__import__('os').getcwd()\n")}, {}, "can't be read"),
        "unknown-class": ({"data.npy": array([1.0])}, {"class": "quaternion"}, "unknown class"),
        "mask-of-another-shape": (
            {"data.npy": array([1.0]), "mask.npy": array([1, 0], "|b1")},
            {"class": "masked"},
            "mask's shape",
        ),
    },
    "sparse": {
        "pointer-too-short": ({**CSR_PARTS, "indptr.npy": array([0, 2], "<i4")}, CSR, "wrong length"),
        "pointer-beyond-the-values": ({**CSR_PARTS, "indptr.npy": array([0, 1, 9], "<i4")}, CSR, "points outside"),
        "index-out-of-range": ({**CSR_PARTS, "indices.npy": array([0, 70000], "<i4")}, CSR, "don't fit"),
        "negative-index": ({**CSR_PARTS, "indices.npy": array([0, -1], "<i4")}, CSR, "don't fit"),
        "fewer-indices-than-values": ({**CSR_PARTS, "indices.npy": array([0], "<i4")}, CSR, "more indices than values"),
        "missing-part": ({"data.npy": array([1, 2])}, CSR, "without its part"),
        "unknown-class": (CSR_PARTS, {**CSR, "class": "os_array"}, "not a class of scipy.sparse"),
    },
    "file": {
        "other-part": ({"file.exe": b"x"}, {"part": "file.png"}, "has the one part 'file.png'"),
        "two-parts": ({"file.png": b"x", "more.png": b"x"}, {"part": "file.png"}, "has the one part"),
    },
    "hdf": {
        "not-hdf5": ({"data.h5": b"\x89HDF\r\n\x1a\n" + bytes(56)}, F4, "not an HDF5 file"),
        "not-closed": (unclosed, F4, "closed properly"),
        "external-storage": (
            hdf(lambda f: f.create_dataset("data", (3,), "<f4", external=[("/etc/hostname", 0, 12)])),
            F4,
            "external storage",
        ),
        "external-link": (
            hdf(lambda f: f.__setitem__("data", h5py.ExternalLink("/etc/other.h5", "x"))),
            F4,
            "ExternalLink",
        ),
        "soft-link": (hdf(lambda f: f.__setitem__("data", h5py.SoftLink("/x"))), F4, "SoftLink"),
        "virtual-dataset": (hdf(virtual), F4, "virtual dataset"),
        "two-datasets": (
            hdf(lambda f: [f.create_dataset(n, (3,), "<f4") for n in ("data", "more")]),
            F4,
            "instead of the one dataset",
        ),
        "a-group": (hdf(lambda f: f.create_group("data")), F4, "a Group instead of a dataset"),
        "texts-of-any-length": (
            hdf(lambda f: f.create_dataset("data", (3,), h5py.string_dtype())),
            F4,
            "variable size or references",
        ),
        "references": (
            hdf(lambda f: f.create_dataset("data", (3,), h5py.ref_dtype)),
            F4,
            "variable size or references",
        ),
        "unknown-filter": (
            hdf(lambda f: f.create_dataset("data", (3,), "<i4", scaleoffset=2)),
            {"shape": [3], "dtype": "<i4"},
            "filters that are not read",
        ),
        "other-shape-than-recorded": (
            hdf(lambda f: f.create_dataset("data", (4,), "<f4")),
            F4,
            "its record says otherwise",
        ),
        "offset-before-the-elements": (hdf(early), {**F4, "offset": 2040}, "is not what its record says"),
        "offset-with-another-shape": (
            hdf(early),
            {"shape": [4], "dtype": "<f4", "offset": 2048},
            "is not what its record says",
        ),
        "offset-of-structures": (
            hdf(early),
            {"shape": [1], "dtype": "[('a', '<f4')]", "offset": 2048},
            "record of an HDF array",
        ),
        "offset-in-another-format": ({"data.h5": bytes(2060)}, {**F4, "offset": 2048}, "not an HDF5 file"),
    },
    "zarr": {
        "no-head": ({"c.0": bytes(12)}, F4, "without its part zarr.json"),
        "not-json": ({"zarr.json": b"{"}, F4, "not what it must be"),
        "not-an-object": ({"zarr.json": b"[]"}, F4, "not what it must be"),
        "version-2": ({"zarr.json": zarr_head(zarr_format=2)}, F4, "not an array of Zarr version 3"),
        "a-group": ({"zarr.json": zarr_head(node_type="group")}, F4, "not an array of Zarr version 3"),
        "storage-transformer": ({"zarr.json": zarr_head(storage_transformers=[{"name": "x"}])}, F4, "not read"),
        "unknown-codec": (
            {"zarr.json": zarr_head(codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle"}])},
            F4,
            "codecs that are not read: ['numcodecs.pickle']",
        ),
        "codec-in-a-shard": (
            {
                "zarr.json": zarr_head(
                    codecs=[{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "vlen-utf8"}]}}]
                )
            },
            F4,
            "codecs that are not read: ['vlen-utf8']",
        ),
        "folders-for-chunks": (
            {"zarr.json": zarr_head(chunk_key_encoding={"name": "default", "configuration": {"separator": "/"}})},
            F4,
            "names its chunks otherwise",
        ),
        "chunk-outside": ({"zarr.json": zarr_head(), "c.1": bytes(12)}, F4, "'c.1', which is no chunk"),
        "part-that-is-no-chunk": ({"zarr.json": zarr_head(), "c.00": bytes(12)}, F4, "'c.00', which is no chunk"),
        "texts-of-any-length": ({"zarr.json": zarr_head(data_type="string", fill_value="")}, F4, "Zarr array"),
        "other-shape-than-recorded": (
            {"zarr.json": zarr_head(shape=[4])},
            F4,
            "its record says otherwise",
        ),
    },
    "keras": {
        "not-a-zip": ({"model.keras": b"PK no archive"}, {"name": "m"}, "not a zip archive"),
        "no-weights": (archive("config.json", "metadata.json"), {"name": "m"}, "lacks model.weights.h5"),
    },
}


def main() -> None:
    for name, cases in REJECTS.items():
        for case, (parts, meta, reason) in cases.items():
            folder = ROOT / "specs" / name / "1" / "reject" / case
            if not folder.exists():
                folder.mkdir(parents=True)
                write_parts(folder, parts)
                (folder / "case.json").write_text(json.dumps({"meta": meta, "reason": reason}, indent=1) + "\n")
                print(folder.relative_to(ROOT), file=sys.stderr)


def write_parts(folder: Path, parts: Any) -> None:
    if callable(parts):
        parts(folder)
        return
    for part, content in parts.items():
        (folder / part).write_bytes(content)


if __name__ == "__main__":
    main()

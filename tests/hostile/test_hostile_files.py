"""Crafted payloads with right checksums: refused with a reason, by a process that lives on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pyplantx import Plant
from pyplantx.warehouse import objects
from tests.hostile.forge import Forger
from tests.hostile.test_hostile_stores import assert_harmless, stores, template  # noqa: F401 (fixtures)

HDF_META = {"shape": [4], "dtype": "<f8"}
Files = dict[str, tuple[str, dict[str, bytes], dict[str, Any]]]


# -- HDF5 -----------------------------------------------------------------------------------------


def hdf(make: Callable[[Any], None]) -> bytes:
    """The bytes of an HDF5 file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        make(file)
    return buffer.getvalue()


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (4,))
    file.create_virtual_dataset("data", layout)


def _filtered(file: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(307, h5py.h5z.FLAG_OPTIONAL, ())  # bzip2: of a plug-in
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F64LE, space, plist)


def _second(file: Any) -> None:
    file["data"] = np.zeros(4)
    file["more"] = np.zeros(4)


def _group(file: Any) -> None:
    file.create_group("data")


def _named_type(file: Any) -> None:
    file["data"] = np.dtype("f8")


def _linked(link: Any) -> Callable[[Any], None]:
    def make(file: Any) -> None:
        file["data"] = link

    return make


def _dataset(**options: Any) -> Callable[[Any], None]:
    def make(file: Any) -> None:
        file.create_dataset("data", **options)

    return make


def hdf_files() -> Files:
    text, reference = h5py.string_dtype(), h5py.ref_dtype
    makers: dict[str, Callable[[Any], None]] = {
        "external storage": _dataset(shape=(4,), dtype="f8", external=[("/etc/passwd", 0, 32)]),
        "external link": _linked(h5py.ExternalLink("/etc/passwd", "data")),
        "soft link": _linked(h5py.SoftLink("/data")),
        "virtual": _virtual,
        "vlen": _dataset(shape=(4,), dtype=h5py.vlen_dtype("f8")),
        "vlen text": _dataset(shape=(4,), dtype=text),
        "reference": _dataset(shape=(4,), dtype=reference),
        "region reference": _dataset(shape=(4,), dtype=h5py.regionref_dtype),
        "vlen in a structure": _dataset(shape=(4,), dtype=[("a", "f8"), ("b", text)]),
        "vlen in a subarray": _dataset(shape=(4,), dtype=[("a", h5py.vlen_dtype("i4"), (2,))]),
        "8 TiB": _dataset(shape=(1 << 40,), dtype="f8", chunks=(1 << 20,)),
        "8 TiB in one piece": _dataset(shape=(1 << 40,), dtype="f8"),
        "a filter": _filtered,
        "two datasets": _second,
        "group": _group,
        "named type": _named_type,
        "another name": lambda file: file.create_dataset("other", data=np.zeros(4)),
        "another shape": _dataset(data=np.zeros(5)),
        "another dtype": _dataset(data=np.zeros(4, "f4")),
        "null space": lambda file: file.create_dataset("data", data=h5py.Empty("f8")),
    }
    return {name: ("hdf", {"data.h5": hdf(make)}, HDF_META) for name, make in makers.items()}


def hdf_records() -> Files:
    """Sound files whose record lies."""
    sound = hdf(_dataset(data=np.zeros(4)))
    metas: list[dict[str, Any]] = [
        {**HDF_META, "offset": 0},
        {**HDF_META, "offset": -8},
        {**HDF_META, "offset": 1 << 62},
        {**HDF_META, "offset": 2.0},
        {**HDF_META, "offset": True},
        {**HDF_META, "offset": len(sound) - 32, "shape": [-4]},
        {**HDF_META, "offset": len(sound) - 32, "shape": "4"},
        {**HDF_META, "offset": len(sound) - 32, "dtype": "O"},
        {**HDF_META, "offset": len(sound) - 32, "dtype": "|V8"},
        {**HDF_META, "offset": len(sound) - 32, "dtype": "<f8" * 100_000},
        {**HDF_META, "offset": len(sound) - 32, "dtype": ["a"]},
        {**HDF_META, "offset": 8, "shape": [1 << 62, 1 << 62]},
        {"shape": [1 << 40], "dtype": "<f8"},
        {},
    ]
    return {f"hdf record {number}": ("hdf", {"data.h5": sound}, meta) for number, meta in enumerate(metas)}


# -- npy ------------------------------------------------------------------------------------------


def npy(header: str | bytes, body: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """A ``.npy`` file with any header."""
    text = header if isinstance(header, bytes) else header.encode("latin-1")
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text + body


def head(descr: str = "'<f8'", shape: str = "(4,)", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def npy_files() -> Files:
    body = bytes(32)
    files = {
        "objects": npy(head("'|O'"), body),
        "objects in a structure": npy(head("[('a', '|O')]"), body),
        "objects in a subarray": npy(head("('|O', (2,))"), body),
        "negative": npy(head(shape="(-4,)"), body),
        "huge": npy(head(shape="(1 << 60,)"), body),
        "huge by numbers": npy(head(shape="(4611686018427387904, 4)"), body),
        "overflow to nothing": npy(head(shape="(4294967296, 4294967296, 4294967296)"), body),
        "many axes": npy(head(shape="(" + "1," * 100 + ")"), bytes(8)),
        "too short": npy(head(), bytes(31)),
        "too long": npy(head(), bytes(33)),
        "bomb of brackets": npy("(" * 60_000, body),
        "bomb of minus signs": npy("-" * 60_000 + "1", body),
        "bomb of powers": npy(head(shape="(9**9**9,)"), body),
        "bomb of digits": npy(head(shape="(" + "9" * 50_000 + ",)"), body),
        "call": npy("__import__('os').system('true')", body),
        "header beyond the end": npy(head(), body, length=60_000),
        "header of 4 GiB": npy(head(), body, version=2, length=(1 << 32) - 1),
        "version 9": npy(head(), body, version=9),
        "no dict": npy("[1, 2]", body),
        "dict of other keys": npy("{'a': 1, 'b': 2, 'c': 3}", body),
        "unhashable": npy("{[]: 1}", body),
        "null bytes": npy("\0" * 100, body),
        "not latin": npy(b"\xff\xfe" * 50, body, version=3),
        "float shape": npy(head(shape="(4.0,)"), body),
        "bool shape": npy(head(shape="(True,)"), bytes(8)),
        "shape is a number": npy(head(shape="4"), body),
        "unknown dtype": npy(head("'<q99'"), body),
        "dtype of nothing": npy(head("''"), body),
        "void of no width": npy(head("'|V0'"), b""),
        "dtype of 2 GiB": npy(head("'|S2147483647'"), body),
        "dates of no unit": npy(head("'<M8[x]'"), body),
        "empty": b"",
        "magic only": b"\x93NUMPY",
    }
    return {name: ("array", {"data.npy": data}, {}) for name, data in files.items()}


def npy_records() -> Files:
    sound = npy(head(), bytes(32))
    metas: list[dict[str, Any]] = [
        {"class": "no such"},
        {"class": ["array"]},
        {"class": "masked"},
        {"class": "scalar"},
        {"class": "matrix"},
        {"class": "recarray"},
        {"aligned": [True, True]},
        {"aligned": "yes"},
        {"record": True},
        {"record": "yes", "class": 3},
    ]
    return {f"array record {number}": ("array", {"data.npy": sound}, meta) for number, meta in enumerate(metas)}


# -- sparse ---------------------------------------------------------------------------------------


def parts_of(**arrays: Any) -> dict[str, bytes]:
    found = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(array))
        found[f"{name.replace('_', '-')}.npy"] = buffer.getvalue()
    return found


def sparse_files() -> Files:
    csr = {"class": "csr_array", "shape": [2, 2]}
    coo = {"class": "coo_array", "shape": [2, 2]}
    ones = np.ones(2)
    cases: list[tuple[dict[str, Any], dict[str, bytes]]] = [
        (csr, parts_of(data=ones, indices=np.array([0, 1 << 30]), indptr=np.array([0, 1, 2]))),
        (csr, parts_of(data=ones, indices=np.array([0, -5]), indptr=np.array([0, 1, 2]))),
        (csr, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, 9, 2]))),
        (csr, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, -9, 2]))),
        (csr, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, 1, 1 << 40]))),
        (csr, parts_of(data=ones, indices=np.array([0.5, 1.5]), indptr=np.array([0, 1, 2]))),
        (csr, parts_of(data=ones, indices=np.array(["a", "b"]), indptr=np.array([0, 1, 2]))),
        (csr, parts_of(data=ones, indices=np.array([[0], [1]]), indptr=np.array([0, 1, 2]))),
        (csr, parts_of(data=ones)),
        ({**csr, "shape": [1 << 60, 2]}, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, 1, 2]))),
        ({**csr, "shape": [-2, -2]}, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, 1, 2]))),
        ({**csr, "shape": []}, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, 1, 2]))),
        ({**csr, "shape": ["a", None]}, parts_of(data=ones, indices=np.array([0, 1]), indptr=np.array([0, 1, 2]))),
        ({**csr, "class": "csr_array.__init__"}, parts_of(data=ones)),
        ({**csr, "class": "__class__"}, parts_of(data=ones)),
        ({**csr, "class": None}, parts_of(data=ones)),
        (coo, parts_of(data=ones, coords_0=np.array([0, 7]), coords_1=np.array([0, 1]))),
        (coo, parts_of(data=ones, coords_0=np.array([0, -1]), coords_1=np.array([0, 1]))),
        (coo, parts_of(data=ones, coords_0=np.array([0]), coords_1=np.array([0, 1]))),
        ({"class": "bsr_array", "shape": [2, 2]}, parts_of(data=np.ones((1, 2, 2)), indices=[9], indptr=[0, 1])),
        ({"class": "bsr_array", "shape": [2, 2]}, parts_of(data=np.ones((1, 0, 2)), indices=[0], indptr=[0, 1])),
        ({"class": "csc_array", "shape": [2, 2]}, parts_of(data=ones, indices=[0, 5], indptr=[0, 1, 2])),
        ({"class": "dia_array", "shape": [2, 2]}, parts_of(data=np.ones((2, 2)), offsets=[0, 0])),
        ({"class": "dia_array", "shape": [2, 2]}, parts_of(data=np.ones((1, 2)), offsets=[1 << 62])),
        ({"class": "lil_array", "shape": [2, 2]}, parts_of(data=ones, indices=[0, 9], indptr=[0, 1, 2])),
        ({"class": "lil_array", "shape": [2, 2]}, parts_of(data=ones, indices=[0, 1], indptr=[0, 5, 2])),
        ({"class": "lil_array", "shape": [1 << 50, 2]}, parts_of(data=ones, indices=[0, 1], indptr=[0, 1, 2])),
        ({"class": "dok_array", "shape": [2, 2]}, parts_of(data=ones, keys=[[0, 0], [9, 9]])),
        ({"class": "dok_array", "shape": [2, 2]}, parts_of(data=ones, keys=[[0, 0]])),
    ]
    return {f"sparse {number}": ("sparse", parts, meta) for number, (meta, parts) in enumerate(cases)}


# -- the rest -------------------------------------------------------------------------------------


def zarr_files() -> Files:
    sound = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": "float64",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0.0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
    cases: list[Any] = [
        {**sound, "codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
        {**sound, "codecs": [{"name": "os.system"}]},
        {**sound, "codecs": "bytes"},
        {**sound, "shape": [1 << 62]},
        {**sound, "shape": [-4]},
        {**sound, "shape": "four"},
        {**sound, "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
        {**sound, "chunk_grid": {"name": "no.such"}},
        {**sound, "data_type": "object"},
        {**sound, "data_type": {"name": "x", "configuration": {}}},
        {**sound, "storage_transformers": [{"name": "x"}]},
        {**sound, "zarr_format": 2},
        {**sound, "node_type": "group"},
        [],
        7,
        None,
    ]
    meta = {"shape": [4], "dtype": "<f8"}
    heads = [json.dumps(case).encode() for case in cases]
    heads += [b"", b"\xff", b"[" * 100_000, b'{"shape":' + b"9" * 10_000 + b"}"]
    return {f"zarr {number}": ("zarr", {"zarr.json": data}, meta) for number, data in enumerate(heads)}


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


def keras_files() -> Files:
    config = json.dumps({"class_name": "Lambda", "module": "builtins", "config": {"function": "eval"}}).encode()
    members = {"config.json": config, "metadata.json": b"{}", "model.weights.h5": b""}
    cases = [archive(members), archive({"../../x": b""}), archive({}), b"PK\x05\x06", b"", b"PK\x03\x04" + bytes(100)]
    return {f"keras {number}": ("keras", {"model.keras": data}, {}) for number, data in enumerate(cases)}


def json_files() -> Files:
    texts = [
        b"",
        b"[",
        b"[" * 100_000,
        b'{"int":"0x' + b"f" * 100_000 + b'"}',
        b"9" * 100_000,
        b"1e999",
        b"NaN",
        b'{"float":"zz"}',
        b'{"float":"00"}',
        b'{"complex":[1]}',
        b'{"complex":[{"complex":[1.0,2.0]},1.0]}',
        b'{"bytes":"*"}',
        b'{"str":"ff"}',
        b'{"__reduce__":"x"}',
        b'{"a":1,"b":2}',
        b"\xff\xfe",
        b"null null",
        b'"\\ud800"',
    ]
    simple = {f"simple {number}": ("simple", {"value.json": text}, {}) for number, text in enumerate(texts)}
    lists = {f"list {number}": ("list", {"value.json": text}, {}) for number, text in enumerate(texts)}
    others: Files = {
        "simple other part": ("simple", {"value.json": b"1"}, {"part": "value.bin"}),
        "simple meta": ("simple", {"value.json": b"1"}, {"part": ["value.json"]}),
        "file other part": ("file", {"file.txt": b"1"}, {"part": "other.txt"}),
        "file part path": ("file", {"file.txt": b"1"}, {"part": "../file.txt"}),
        "file no part": ("file", {"file.txt": b"1"}, {}),
        "file two parts": ("file", {"file.txt": b"1", "more.txt": b"2"}, {"part": "file.txt"}),
        "buffers": ("object", {"value.pickle": b"\x80\x05N."}, {"buffers": 1 << 40}),
    }
    return {**simple, **lists, **others}


GROUPS: dict[str, Callable[[], Files]] = {
    "hdf": hdf_files,
    "hdf records": hdf_records,
    "npy": npy_files,
    "npy records": npy_records,
    "sparse": sparse_files,
    "zarr": zarr_files,
    "keras": keras_files,
    "json": json_files,
}

#: What is odd, and yet a value: nothing is wrong with it.
FINE = {
    *("simple 3", "simple 17", "array record 3", "array record 4", "array record 5", "bool shape", "void of no width"),
    *("array record 8", "simple 4", "list 4", "array record 2", "simple meta"),
}


@pytest.mark.parametrize("home", ["files", "record"])
@pytest.mark.parametrize("group", GROUPS)
def test_crafted_payloads_are_refused(stores: tuple[Path, Path], group: str, home: str) -> None:  # noqa: F811
    check_refused(*stores, GROUPS[group](), home)


def check_refused(friendly: Path, strange: Path, files: Files, home: str, missing: str = "") -> None:
    """None of the files is opened, each is refused with an error of the hierarchy, by a process that lives on."""
    forger = Forger(strange)
    for name, (spec, parts, meta) in files.items():
        forger.add(f"crafted {name}", spec, parts, meta, home)
    errors = assert_harmless(friendly, strange, missing=missing)
    refused = {
        error.split(":")[0].removeprefix("fetch crafted ") for error in errors if error.startswith("fetch crafted")
    }
    assert set(files) - refused <= FINE


@pytest.mark.parametrize(
    ("missing", "group", "name"),
    [
        ("any_hdf5_file", "hdf", "external storage"),
        ("any_npy_length", "npy", "too long"),
        ("any_sparse_index", "sparse", "sparse 22"),  # two diagonals in one place
        ("any_json", "json", "simple 14"),  # two tags
    ],
)
def test_a_check_that_is_missing_is_found(
    stores: tuple[Path, Path],  # noqa: F811
    missing: str,
    group: str,
    name: str,
) -> None:
    """The positive control: of a whole group the one file is opened, and only without the check that is for it."""
    with pytest.raises(AssertionError, match=re.escape(f"assert ({{{name!r}}}") + "|" + re.escape(f"{{{name!r}}} <=")):
        check_refused(*stores, {name: GROUPS[group]()[name]}, "files", missing)


def test_a_model_that_is_no_code_is_found(stores: tuple[Path, Path], tmp_path: Path) -> None:  # noqa: F811
    """The positive control: a sound model is opened, and only by who does not take it for code."""
    keras = pytest.importorskip("keras", reason="Keras 3 with a backend is not installed", exc_type=ImportError)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "model.keras")
    model: Files = {"a model": ("keras", {"model.keras": (tmp_path / "model.keras").read_bytes()}, {})}
    check_refused(*stores, model, "files")
    with pytest.raises(AssertionError):
        check_refused(*stores, model, "files", "any_keras_model")


def test_a_head_that_is_left_to_zarr_is_found(stores: tuple[Path, Path]) -> None:  # noqa: F811
    """The positive control: zarr's own error comes through."""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        check_refused(*stores, {"chunks of nothing": zarr_files()["zarr 6"]}, "files", "any_zarr_head")


@pytest.mark.parametrize(
    "layout", [[-1, 4, 8], [0, 0, 32], [0, -5, 32], [1 << 62, 4, 4], [0, 1, 1 << 62], ["a", 1, 2], [1, 2]]
)
def test_a_layout_that_makes_no_sense(stores: tuple[Path, Path], layout: list[Any]) -> None:  # noqa: F811
    from pyplantx.core.trace import ObjectRef
    from pyplantx.fingerprint.value import hash_text
    from pyplantx.warehouse.records import to_json
    from tests.hostile.forge import named

    friendly, strange = stores
    address, digests = "12" * 16, "ab" * 64
    header = ["array", 1, "ab" * 16, "", "files", [["data.npy", 32, hash_text(digests), digests, layout]], 1.0]
    (strange / "objects" / "12" / address).mkdir(parents=True)
    (strange / "objects" / "12" / address / "data.npy").write_bytes(bytes(32))
    ref = ObjectRef("array", 1, "ab" * 16, address, 32)
    Forger(strange).put(("objects", address.encode(), to_json(header).encode() + b"\n"), named("x", ref))
    errors = assert_harmless(friendly, strange)
    assert any(error.startswith("fetch x") for error in errors)


# -- file system ------------------------------------------------------------------------------------


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _hard_link(path: Path, outside: Path) -> None:
    os.link(outside, path)


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, outside: Path) -> None:
    path.mkdir()


KINDS = {"link": _link, "hard link": _hard_link, "fifo": _fifo, "folder": _folder}


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_that_are_no_ordinary_files(stores: tuple[Path, Path], tmp_path: Path, kind: str) -> None:  # noqa: F811
    friendly, strange = stores
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    for path in sorted(strange.glob("objects/*/*/*")):
        path.unlink()
        KINDS[kind](path, outside)
    errors = assert_harmless(friendly, strange)
    assert outside.read_bytes() == b"secret" and not any("secret" in error for error in errors)
    assert len([error for error in errors if error.startswith("fetch") and "PayloadMissing" in error]) >= 3


def test_a_wait_for_a_pipe_is_found(stores: tuple[Path, Path]) -> None:  # noqa: F811
    """The positive control: payloads are opened whatever they are."""
    friendly, strange = stores
    path = next(strange.glob("objects/*/*/*"))
    path.unlink()
    _fifo(path, path)
    with pytest.raises(subprocess.TimeoutExpired):
        assert_harmless(friendly, strange, missing="any_file", limit=3.0)
    assert_harmless(friendly, strange)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
@pytest.mark.parametrize(
    "what", ["objects", "staging", "quarantine", "backup", "claims", "meta.lmdb", "small.lmdb", "locks"]
)
def test_folders_that_are_something_else(stores: tuple[Path, Path], tmp_path: Path, what: str, kind: str) -> None:  # noqa: F811
    """Nothing outside is touched, nobody waits for ever."""
    friendly, strange = stores
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (strange / what).rename(tmp_path / "was")
    KINDS[kind](strange / what, outside)
    assert_harmless(friendly, strange)
    assert sorted(os.listdir(outside)) == ["precious"]


UNDER_UMASK = """
import os, sys
from pyplantx import Plant, ReactorFunc, errors
@ReactorFunc
def sender(pipe): pipe.send("x", bytes(3_000_000))
os.umask(int(sys.argv[1], 8))
try:
    with Plant(sys.argv[2]) as plant: plant.run_reactor(sender)
except errors.StoreReadOnly as error:
    print(error.hint)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the umask can be read on Linux only")
@pytest.mark.parametrize("umask", ["0777", "0277"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_umask_that_takes_the_rights_to_our_own_files_is_named(tmp_path: Path, umask: str, is_there: bool) -> None:
    command = [sys.executable, "-c", UNDER_UMASK, umask, str(tmp_path / "plant")]
    if os.geteuid() == 0:  # root may do everything, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("nothing takes from root the right to everything")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    if is_there:
        Plant(tmp_path / "plant").close()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert f"the umask {umask} takes from you" in done.stdout, done.stderr


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_permissions_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    from pyplantx import Ingredient, Plant, specs

    source = tmp_path / "source.txt"
    source.write_text("x")
    os.chmod(source, 0o666)
    before = os.umask(umask)
    try:
        with Plant(tmp_path / "plant") as plant:
            store = plant.warehouse.store
            kept = store("a", np.arange(300_000.0)), store("b", {"x": np.zeros(300_000)}), store("c", b"x" * 100_000)
            kept += store("d", str(source), Ingredient.Type.file), store("e", np.zeros(30), specs.HdfArraySpec)
            allocated = plant.warehouse.allocate("f", specs.ArraySpec, shape=(300_000,))
            for path in (tmp_path / "plant").rglob("*"):
                assert path.stat().st_mode & 0o077 == 0, path
            allocated.seal()
            plant.warehouse.blob_put("test", "key", "text")
            plant.warehouse.backup()
            assert kept
    finally:
        os.umask(before)
    for path in [tmp_path / "plant", *(tmp_path / "plant").rglob("*")]:
        mode = path.stat().st_mode & 0o777
        assert mode == 0o700 if path.is_dir() else mode in (0o400, 0o600), (path, oct(mode))
    for path in (tmp_path / "plant" / "objects").glob("*/*/*"):
        assert path.stat().st_mode & 0o777 == 0o400, path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_while_a_store_is_open(tmp_path: Path, kind: str) -> None:
    """In the place of folders that are to be made and of files that are read: nothing outside changes, nobody waits."""
    from pyplantx.errors import PyplantxError
    from pyplantx.warehouse.warehouse import Warehouse

    outside = tmp_path / "outside"
    outside.mkdir() if kind == "link" else outside.write_bytes(b"secret")
    with Warehouse(tmp_path / "store", durability="process") as warehouse:
        kept = warehouse.store("kept", np.arange(300_000.0))
        for prefix in (f"{number:02x}" for number in range(256)):
            path = tmp_path / "store" / "objects" / prefix
            if not path.exists():
                KINDS[kind](path, outside)
        for number in range(5):
            ref = warehouse.store("x", np.full(300_000, number))
            assert (warehouse.open(ref) == number).all()
        part = next((tmp_path / "store" / "objects" / kept.address[:2] / kept.address).iterdir())
        part.unlink()
        KINDS[kind](part, outside)
        with pytest.raises(PyplantxError):
            warehouse.open(kept)
        assert not [problem for problem in warehouse.check(fix=True) if not problem.fixed and not problem.harmless]
    assert (sorted(outside.iterdir()) if kind == "link" else outside.read_bytes()) in ([], b"secret")


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_files_that_are_exchanged_by_another_thread(tmp_path: Path, kind: str) -> None:
    """A thread puts links and FIFOs in the place of a payload and back, while it is opened again and again."""
    import threading

    from pyplantx.errors import PyplantxError
    from pyplantx.warehouse.warehouse import Warehouse

    outside, stop = tmp_path / "outside.npy", threading.Event()
    np.save(outside, np.zeros(300_000))
    value = np.arange(300_000.0)
    with Warehouse(tmp_path / "store", durability="process", verify="always") as warehouse:
        ref = warehouse.store("x", value)
        part = next((tmp_path / "store" / "objects" / ref.address[:2] / ref.address).iterdir())
        sound, planted = tmp_path / "sound", tmp_path / "planted"
        os.link(part, sound)
        KINDS[kind](planted, outside)

        def exchange() -> None:
            while not stop.is_set():
                for source in (planted, sound):
                    with contextlib.suppress(OSError):  # it was put into quarantine, or made again, meanwhile
                        os.link(source, part.with_name("next"), follow_symlinks=False)
                        os.rename(part.with_name("next"), part)

        racer = threading.Thread(target=exchange)
        racer.start()
        try:
            for _ in range(100):
                try:
                    assert (warehouse.open(ref) == value).all()
                except PyplantxError:
                    ref = warehouse.store("x", value)
        finally:
            stop.set()
            racer.join()
        assert (warehouse.open(warehouse.store("x", value)) == value).all()
    assert not np.load(outside).any()


def test_folders_through_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a folder is made if nothing is there, and a link to one is good enough."""
    monkeypatch.setattr(objects, "make_folder", lambda path: os.makedirs(path, exist_ok=True))
    with pytest.raises(AssertionError, match="outside/"):
        test_what_is_planted_while_a_store_is_open(tmp_path, "link")


def test_rights_that_the_umask_leaves_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: folders have the mode that `mkdir` gives them."""
    monkeypatch.setattr(objects, "make_folder", lambda path: os.makedirs(path, exist_ok=True))
    with pytest.raises(AssertionError, match="objects/"):
        test_permissions_whatever_the_umask(tmp_path, 0)

"""Every built-in type keeps what `SpecTests` asks; the kit itself finds types that don't."""

from __future__ import annotations

import collections
import datetime
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from pyplantx import specs
from pyplantx.errors import BadRequest, CannotFingerprint, CannotStore
from pyplantx.spec_tests import FolderStage, SpecTests, same
from pyplantx.specs.base import IngredientTypeSpec, Payload, Stage, Written
from pyplantx.specs.services import Services


def bits(text: str) -> float:
    return struct.unpack(">d", bytes.fromhex(text))[0]


class TestSimple(SpecTests):
    spec = specs.SimpleSpec()
    values = [
        None,
        True,
        False,
        0,
        1,
        -1,
        2**53,
        2**53 + 1,
        -(2**53) - 1,
        2**64,
        -(10**5000),
        10**5000,
        0.0,
        -0.0,
        1.0,
        1e300,
        5e-324,
        0.1,
        bits("7ff8000000000000"),
        float("inf"),
        float("-inf"),
        0j,
        complex(-0.0, 0.0),
        complex("inf+nanj"),
        "",
        "0",
        "1.0",
        "null",
        "plain",
        "\x00",
        'quo"te\\',
        "line\nbreak\u2028",
        "Grüße",
        "𝔘",
        "\ud800",
        "\ud835\udd18",
        "x" * 9999,
        b"",
        b"\x00",
        b"plain",
        b"r" * 256,
        b"R" * 257,
        bytes(range(256)) * 20000,
    ]


class TestList(SpecTests):
    spec = specs.ListSpec()
    values = [
        [],
        [None],
        [1, 2, 3],
        [1.0, 2.0],
        [1, 2.0, True],
        ["a", "\ud800", b"\xff"],
        [2**60, 1],
        [float("nan"), -0.0],
        [[]],
        [[], []],
        [[1, [2, [3, []]]], "x"],
        [1j],
        list(range(1000)),
        [[0.5] * 3 for _ in range(3)],
    ]

    def alter(self, received):
        received.append("altered")
        for item in received:
            if isinstance(item, list):
                item.clear()


class Point:
    def __init__(self, x: float, y: Any) -> None:
        self.x = x
        self.y = y


Pair = collections.namedtuple("Pair", "left right")


class Colour(str):
    pass


def by_pickle(value: object) -> str:
    """A stand-in for the plant's canonical digest, good enough for these samples."""
    try:
        text = pickle.dumps(sorted(value) if isinstance(value, (set, frozenset)) else value)
    except (pickle.PicklingError, AttributeError) as error:
        raise CannotFingerprint(str(error)) from error
    return hashlib.md5(type(value).__name__.encode() + text).hexdigest()


class TestObject(SpecTests):
    spec = specs.ObjectSpec().serve(Services(encode=by_pickle))
    values = [
        (1, 2),
        (),
        {},
        {"a": [1, (2, {3})]},
        {1, 2},
        frozenset({1}),
        Point(1, [2]),
        Pair(1, "b"),
        Colour("red"),
        collections.OrderedDict(a=1),
        datetime.date(2026, 1, 2),
        range(3),
        bytearray(b"abc"),
        Ellipsis,
        NotImplemented,
        int,
        len,
        [(1,)],
        np.array([1, "a", None], dtype=object),
        {"big": np.arange(50_000.0)},
        [np.ones((300, 300), order="F")],
        np.str_("text\0"),
        bytearray(b"x" * 100_000),
    ]

    def alter(self, received):
        if isinstance(received, dict):
            for item in received.values():
                if isinstance(item, np.ndarray):
                    item[...] = -1
            received["altered"] = True
        elif isinstance(received, list) and isinstance(received[0], np.ndarray):
            received[0].base[:] = b"\0" * len(received[0].base) if isinstance(received[0].base, bytearray) else None
        elif isinstance(received, Point):
            received.y.append(3)


class TestArray(SpecTests):
    spec = specs.ArraySpec()
    values = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3) + 1),
        np.array(5),
        np.array(5.0),
        np.zeros((0, 3)),
        np.zeros((3, 0)),
        np.zeros(0),
        np.zeros(3, "S0"),
        np.zeros(2, "V0"),
        np.array(["a", "bc\0"]),
        np.array([b"a\0b"]),
        np.arange(3, dtype=">i4"),
        np.arange(3, dtype="<i4"),
        np.array([np.nan, -0.0, bits("fff8000000000123")]),
        np.array([1, "NaT"], "M8[ns]"),
        np.array([5], "m8[3h]"),
        np.array([1 + 2j], "c16"),
        np.ones(3, np.longdouble),
        np.ones(3, np.float16),
        np.array([True, False]),
        np.array([(1, [2.0, 3.0])], [("a", ">i2"), ("b", "f8", (2,))]),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.array([("x", 1)], [("Grüße", "U1"), ("ключ", "u1")]),
        np.zeros(2, {"names": ["a"], "formats": ["i2"], "offsets": [6], "itemsize": 16}),
        np.matrix([[1, 2]]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(2, np.dtype((np.record, [("q", "i4")]))),
        np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=7),
        np.ma.array([1.0, 2.0]),
        np.ma.array([[1, 2]], mask=True, hard_mask=True),
        np.float32(3),
        np.float64("nan"),
        np.int8(-3),
        np.bool_(True),
        np.complex64(1j),
        np.datetime64("2026-11-20"),
        np.timedelta64(4, "D"),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2).copy(),
        np.arange(300_000.0),
    ]

    def alter(self, received):
        if isinstance(received, np.ndarray) and received.nbytes:
            received.reshape(-1).view(np.ndarray)[...] = received.reshape(-1).view(np.ndarray)[::-1].copy()
            base = received
            while isinstance(base, np.ndarray) and base.base is not None:
                base = base.base
            if not isinstance(base, np.ndarray):
                memoryview(base).cast("B")[-received.itemsize :] = b"\x07" * received.itemsize


def sparse_samples() -> list[Any]:
    base = sp.random(5, 6, 0.4, random_state=1)
    plain = [
        kind(base).asformat(form)
        for form in "csr csc coo bsr dia lil dok".split()
        for kind in (sp.csr_array, sp.csr_matrix)
    ]
    wide = sp.csr_array(base)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    zeros = sp.csr_array(
        (np.array([0.0, 1.0]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2)
    )  # stored zero, unsorted
    twice = sp.coo_array((np.array([1, 2]), (np.array([0, 0]), np.array([1, 1]))), shape=(2, 2))
    dok = sp.dok_array((2, 3), dtype=np.float32)
    dok[1, 2] = 3
    return [
        *plain,
        wide,
        zeros,
        twice,
        dok,
        sp.csr_array((3, 4)),
        sp.csc_matrix((0, 5), dtype=np.int8),
        sp.lil_array((0, 2)),
        sp.bsr_array(np.kron(np.eye(2), np.ones((2, 3))), blocksize=(2, 3)),
        sp.csr_array(np.eye(2, dtype=complex)),
        sp.csr_array(np.array([0.0, 2.0])),
        sp.coo_array(np.ones((2, 2, 2))),
        sp.dia_array(([[1, 2]], [-1]), shape=(3, 3)),
    ]


class TestSparse(SpecTests):
    spec = specs.ScipySparseSpec(full_check=True)
    values = sparse_samples()

    def same(self, sent, received):
        arrays = {name for name, item in vars(sent).items() if isinstance(item, np.ndarray) and item.dtype != object}
        return (
            type(sent) is type(received)
            and sent.shape == received.shape
            and sent.dtype == received.dtype
            and all(same(vars(sent)[name], vars(received)[name]) for name in arrays)
            and same(list(map(tuple, indexes(sent))), list(map(tuple, indexes(received))))
            and sent.toarray().tobytes() == received.toarray().tobytes()
        )

    def alter(self, received):
        if received.format == "dok":
            received.clear()
        elif received.data.dtype != object:
            received.data[...] = 0


def indexes(matrix: Any) -> list[Any]:
    if matrix.format == "dok":
        return [(*map(int, np.atleast_1d(key)), matrix.dtype.type(item)) for key, item in matrix.items()]
    if matrix.format == "lil":
        return [*matrix.rows, *(map(float, row) for row in matrix.data)]
    return list(matrix.coords) if matrix.format == "coo" else []


class TestFile(SpecTests):
    spec = specs.FileSpec()
    inferred = False

    @pytest.fixture(autouse=True)
    def files(self, tmp_path):
        contents = {
            "a.png": b"\x89PNG",
            "b.png": b"",
            "noending": b"x",
            ".hidden": b"h",
            "big.tar.gz": bytes(5 << 20),
            "v1.2.csv": b"1",
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        self.values = [str(tmp_path / name) for name in contents]
        self.values[0] = tmp_path / "a.png"

    def same(self, sent, received):
        with open(sent, "rb") as left, open(received, "rb") as right:
            same_content = left.read() == right.read()
        name = os.path.basename(sent).lstrip(".")
        return type(received) is str and same_content and os.path.splitext(received)[1] == os.path.splitext(name)[1]


class TestHdf(SpecTests):
    spec = specs.HdfArraySpec()
    inferred = False
    values = [
        np.arange(6.0).reshape(2, 3),
        np.array(5),
        np.zeros((0, 3)),
        np.zeros(0),
        np.arange(3, dtype=">i4"),
        np.array([b"a\0b"]),
        np.asfortranarray(np.arange(8.0).reshape(2, 4)),
        np.array([np.nan, -0.0]),
        np.array([True]),
        np.array([1j], "c8"),
        np.ones(3, np.float16),
        np.array([(1, [2.0, 3.0])], [("a", ">i2"), ("b", "f8", (2,))]),
        np.ones((3, 500_000)),
        np.arange(2_000_000, dtype="i4").reshape(1, 2, 1_000_000),
        np.ones(2, np.longdouble),
    ]

    def same(self, sent, received):
        assert repr(received) and received.ndim == sent.ndim and received.nbytes == sent.nbytes
        return same(np.ascontiguousarray(sent).reshape(sent.shape), np.asarray(received))

    def alter(self, received):
        with pytest.raises(BadRequest, match="read-only"):
            received[...] = 0
        with pytest.raises((BadRequest, ValueError), match="read-only|can't be mapped"):
            received.mapped()[...] = 0
        if hasattr(received.backend, "dataset"):
            with pytest.raises((OSError, ValueError)):
                received.backend.dataset.file.create_group("x")


def test_hdf_takes_datasets_too(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("any", data=np.arange(10.0), chunks=(3,), compression="gzip")
        assert specs.HdfArraySpec().recognise(data)
        written = specs.HdfArraySpec().write(data, FolderStage(str(tmp_path)))
    with h5py.File(tmp_path / "data.h5") as file:
        assert file["data"].compression == "gzip" and file["data"].chunks == (3,)
    (tmp_path / "other").mkdir()
    assert written.digest == specs.HdfArraySpec().write(np.arange(10.0), FolderStage(str(tmp_path / "other"))).digest


class PointSpec(IngredientTypeSpec):
    """What a plug-in author writes."""

    name = "point"

    def recognise(self, value: Any) -> bool:
        return type(value) is Point

    def write(self, value: Any, stage: Stage) -> Written:
        if type(value) is not Point:
            raise CannotStore(f"{value!r} is no point")
        text = json.dumps([value.x, value.y])
        stage.write("point.json", (text.encode(),))
        return Written(hashlib.md5(text.encode()).hexdigest())

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        return Point(*json.loads(payload.read("point.json")))


class TestPlugIn(SpecTests):
    spec = PointSpec()
    values = [Point(0, 0), Point(-1, 2)]


class SharingSpec(PointSpec):
    kept: dict[str, Any] = {}

    def open(self, payload, meta, version):
        text = payload.read("point.json").decode()
        return self.kept.setdefault(text, Point(*json.loads(text)))


class LosingSpec(PointSpec):
    def open(self, payload, meta, version):
        return Point(0, 0)


class RandomSpec(PointSpec):
    def write(self, value, stage):
        return super().write(value, stage)._replace(digest=os.urandom(16).hex())


@pytest.mark.parametrize(
    ("spec", "check"),
    [
        (SharingSpec(), "test_received_values_are_isolated"),
        (LosingSpec(), "test_round_trip"),
        (RandomSpec(), "test_equal_values_have_equal_digests"),
    ],
)
def test_the_kit_finds_broken_types(spec, check):
    kit = type("Kit", (SpecTests,), {"spec": spec, "values": [Point(1, 2), Point(3, 4)]})()
    kit.alter = lambda received: setattr(received, "x", 99)
    with pytest.raises(AssertionError):
        getattr(kit, check)()
    with pytest.raises(AssertionError):
        kit.run_all()


@pytest.mark.parametrize("spec", [specs.SimpleSpec(), specs.ListSpec(), specs.ObjectSpec(), specs.ScipySparseSpec()])
def test_types_that_cannot_be_allocated_say_so(tmp_path, spec):
    with pytest.raises(BadRequest, match=f"of type '{spec.name}' can't be allocated") as caught:
        spec.allocate(FolderStage(str(tmp_path)), shape=(3,))
    assert "array, file and hdf can" in caught.value.hint


def test_a_type_that_is_not_finished_says_what_it_lacks(tmp_path):
    class Half(IngredientTypeSpec):
        pass

    with pytest.raises(BadRequest, match=r"type 'test_.*Half' can't be stored: .* define write"):
        Half().write(1, FolderStage(str(tmp_path)))
    with pytest.raises(BadRequest, match="define open"):
        Half().open(FolderStage(str(tmp_path)).seal(), {}, 1)

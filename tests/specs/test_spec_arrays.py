"""Arrays: every dtype, shape and layout bit-equal; one digest whatever the layout; the store out of reach."""

from __future__ import annotations

import io
import mmap
import os

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx import specs
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, WarehouseFull
from pyplantx.fingerprint.value import array_digest, digest
from pyplantx.spec_tests import FolderPayload, FolderStage, same, stored
from pyplantx.specs import npy
from pyplantx.specs.services import Services

SPEC = specs.ArraySpec()
dtypes = hnp.scalar_dtypes() | hnp.byte_string_dtypes() | hnp.unicode_string_dtypes() | hnp.array_dtypes()
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def arrays(draw):
    array = draw(hnp.arrays(draw(dtypes), draw(shapes)))
    layout = draw(st.sampled_from(["C", "F", "strided", "reversed"]))
    if layout in "CF":
        return array.copy(layout)
    return (
        array.repeat(2, 0)[::2] if layout == "strided" and array.ndim else array.T[..., ::-1] if array.ndim else array
    )


@given(arrays(), st.booleans())
def test_any_array_comes_back(array, inline):
    assert SPEC.recognise(array)
    with stored(SPEC, array, inline=inline) as entry:
        received = entry.open()
        assert type(received) is np.ndarray and same(array, received)
        assert received.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc
        assert received.flags.writeable
        assert entry.written.digest == array_digest(array)
        plain = np.load(io.BytesIO(entry.payload.read("data.npy")), allow_pickle=False)
        assert plain.tobytes() == array.tobytes() and plain.dtype == array.dtype


@pytest.mark.parametrize("order", ["C", "F"])
def test_more_than_a_block(order):
    array = np.arange(3 * 700_001.0).reshape(3, -1).copy(order)
    with stored(SPEC, array) as entry, stored(SPEC, array[:, ::1]) as other:
        assert same(entry.open(), array)
        assert entry.written.digest == other.written.digest == array_digest(array) == digest(array)


@given(arrays(), st.data())
def test_any_stretch_of_any_layout_is_gathered_in_c_order(array, data):
    start = data.draw(st.integers(0, array.size))
    stop = data.draw(st.integers(start, array.size))
    if array.itemsize and start < stop:
        gathered = b"".join(piece.tobytes() for piece in npy._elements(array, start, stop))
        assert gathered == array.reshape(-1)[start:stop].tobytes()


class Watched(FolderPayload):
    """Notes which parts were checked before they were given away, and which were mapped at once."""

    def __init__(self, stage):
        super().__init__(stage.folder, [*stage.written, *stage.given])
        self.checked, self.mapped = set(), set()

    def path(self, part):
        self.checked.add(part)
        return super().path(part)

    def map(self, part, writable):
        self.mapped.add(part)
        return npy.map_file(os.path.join(self._folder, part), writable)


def watched(spec, value, folder):
    stage = FolderStage(str(folder))
    written = spec.write(value, stage)
    payload = Watched(stage)
    spec.open(payload, written.meta, 1)
    return payload


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "dia", "lil", "dok"])
def test_what_scipy_follows_blindly_is_checked_before_and_values_beside(kind, tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random_array((20, 30), density=0.2, format="csr", rng=np.random.default_rng(0)).asformat(kind)
    payload = watched(specs.ScipySparseSpec(), matrix, tmp_path)
    lazily = set() if kind in ("lil", "dok") else {"data.npy"}
    assert payload.mapped == lazily and payload.checked == set(payload.parts()) - lazily


@pytest.mark.parametrize(
    ("value", "checked"),
    [
        (np.zeros(3), set()),
        (np.zeros(3, bool), {"data.npy"}),
        (np.zeros(3, [("a", "f8"), ("b", [("c", "?", 2)])]), {"data.npy"}),
        (np.ma.masked_array([1.0, 2.0], [True, False]), {"mask.npy"}),
    ],
)
def test_booleans_are_checked_before(value, checked, tmp_path):
    payload = watched(SPEC, value, tmp_path)
    assert payload.checked == checked and "data.npy" in payload.mapped


def _noted(matrix):
    names = ("has_sorted_indices", "has_canonical_format")
    return [vars(matrix).get(name, vars(matrix).get(f"_{name}")) for name in names]


@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix", "coo_array", "coo_matrix"])
@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("columns", [[1, 1, 0], [2, 1, 0], [0, 1, 2]])
def test_what_scipy_has_noted_of_the_order_comes_back(kind, looked_at, columns):
    sparse = pytest.importorskip("scipy.sparse")
    where = (columns, [0, 3, 3, 3]) if kind[:3] != "coo" else ([0, 0, 0], columns)
    data = np.array([1.0, 2.0, 3.0])
    parts = (data, *where) if kind[:3] != "coo" else (data, where)
    matrix = getattr(sparse, kind)(parts, shape=(3, 3))
    if looked_at:
        matrix.has_canonical_format  # noqa: B018 - scipy notes what it finds
    with stored(specs.ScipySparseSpec(), matrix) as entry:
        received = entry.open()
        assert _noted(received) == _noted(matrix)
        assert received.max() == matrix.max() and np.array_equal(
            received.tocsr().power(2).todense(), matrix.tocsr().power(2).todense()
        )


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "dia"])
@pytest.mark.parametrize("dtype", [">f8", ">i4", "f2", "M8[s]", "S3"])
@pytest.mark.parametrize("full_check", [False, True])
def test_sparse_elements_that_scipy_makes_no_empty_matrix_of(kind, dtype, full_check):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_array(np.diag([1.0, 2.0, 3.0])).asformat(kind)
    matrix.data = matrix.data.astype(dtype)
    with stored(specs.ScipySparseSpec(full_check), matrix) as entry:
        received = entry.open()
        assert received.dtype == matrix.dtype and received.data.tobytes() == matrix.data.tobytes()


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "dia", "lil", "dok"])
def test_attributes_that_hang_on_a_sparse_matrix_come_back(kind, tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    matrices = [sparse.csr_array(np.eye(3)).asformat(kind) for _ in range(3)]
    registry, digests = specs.SpecRegistry(), []
    assert registry.infer(matrices[0]).name == "sparse"
    matrices[1].note, matrices[2].note = "a", "b"
    for matrix in matrices[1:]:
        with pytest.raises(CannotStore, match="attributes of its own: note"):
            specs.ScipySparseSpec().write(matrix, FolderStage(str(tmp_path)))
        assert registry.infer(matrix).name == "object"
        with stored(specs.ObjectSpec(), matrix) as entry:
            assert entry.open().note == matrix.note and (entry.open().todense() == np.eye(3)).all()
            digests.append(entry.written.digest)
    assert digests[0] != digests[1]


def test_layouts_share_a_digest_but_not_their_bytes():
    c = np.arange(6.0).reshape(2, 3)
    with stored(SPEC, c) as left, stored(SPEC, np.asfortranarray(c)) as right:
        assert left.written.digest == right.written.digest
        assert left.contents() != right.contents()


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_values_that_must_not_share_a_digest():
    values = [
        np.zeros((2, 3)),
        np.zeros((3, 2)),
        np.zeros(6),
        np.zeros(6, ">f8"),
        np.zeros(6, "i8"),
        np.asmatrix(np.zeros(6)),
        np.float64(0),
        np.array(0.0),
        np.ma.zeros(6),
        np.ma.masked_all(6),
    ]
    digests = []
    for value in values:
        with stored(SPEC, value) as entry:
            digests.append(entry.written.digest)
    assert len(set(digests)) == len(values)


def test_scalars_and_masked_arrays_have_the_digest_of_the_value():
    for value in (np.float64(0.5), np.int8(3), np.ma.array([1, 2], mask=[0, 1])):
        with stored(SPEC, value) as entry:
            assert entry.written.digest == digest(value)


def test_memory_maps_come_back_as_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "x", float, "w+", shape=(3,))
    with stored(SPEC, mapped) as entry:
        assert type(entry.open()) is np.ndarray
        assert entry.written.digest == array_digest(np.zeros(3))


class Subclass(np.ndarray):
    pass


OTHERS = {
    "objects": np.array([{}, None]),
    "objects inside": np.zeros(2, [("a", "O")]),
    "metadata": np.zeros(2, np.dtype("f8", metadata={"unit": "m"})),
    "metadata inside": np.zeros(2, [("a", np.dtype("f8", metadata={"unit": "m"}))]),
    "overlap": np.zeros(2, {"names": ["a", "b"], "formats": ["i4", "f4"], "offsets": [0, 0]}),
    "strings": np.array(["a", "b"], dtype=np.dtypes.StringDType())
    if hasattr(np.dtypes, "StringDType")
    else np.array([None]),
    "subclass": np.zeros(2).view(Subclass),
    "void scalar": np.zeros(2, "i4,i4")[0],
    "text scalar": np.str_("text"),
    "masked matrix": np.ma.array(np.asmatrix([1])),
    "masked constant": np.ma.masked,
}


@pytest.mark.parametrize("value", OTHERS.values(), ids=OTHERS)
def test_other_arrays_are_objects(value, tmp_path):
    assert SPEC.recognise(np.zeros(2, [("a", "f8")]))  # equal to one with metadata, so they could be mixed up
    assert not SPEC.recognise(value)
    assert specs.SpecRegistry().infer(value).name == "object"
    with pytest.raises(CannotStore):
        SPEC.write(value, FolderStage(str(tmp_path)))


def test_a_list_is_no_array(tmp_path):
    with pytest.raises(CannotStore, match="value is a list"):
        SPEC.write([1, 2], FolderStage(str(tmp_path)))


# -- isolation ----------------------------------------------------------------------------------


def test_received_files_are_private_maps():
    with stored(SPEC, np.arange(1000.0)) as entry:
        received = entry.open()
        assert isinstance(received.base, mmap.mmap)
        received += 1
        received.base[-8:] = b"\1" * 8
        np.multiply(received, 2, out=received)
        assert same(entry.open(), np.arange(1000.0))


@pytest.mark.parametrize("inline", [False, True])
def test_read_only_arrays_stay_so(inline):
    spec = specs.ArraySpec().serve(Services(writable=False))
    with stored(spec, np.arange(1000.0), inline=inline) as entry:
        received = entry.open()
        with pytest.raises(ValueError, match="read-only"):
            received[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            received.flags.writeable = True


def test_the_sent_array_may_be_altered_afterwards():
    array = np.arange(10.0)
    with stored(SPEC, array) as entry:
        array[:] = -1
        assert same(entry.open(), np.arange(10.0))


# -- allocation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"order": "F"}, {"dtype": ">i2"}, {"dtype": [("a", "i4"), ("b", "f8")]}])
def test_allocated_arrays(options, tmp_path):
    stage = FolderStage(str(tmp_path))
    allocation = SPEC.allocate(stage, shape=(3, 4), **options)
    assert not allocation.handle.view(np.ndarray).astype("V").tobytes().strip(b"\0")
    expected = np.zeros((3, 4), options.get("dtype", float), options.get("order", "C"))
    expected[1] = 7
    allocation.handle[1] = 7
    written = allocation.seal()
    assert written.digest == array_digest(expected)
    assert same(SPEC.open(stage.seal(), written.meta, 1), expected)


def test_an_allocated_array_loses_its_file_at_the_seal(tmp_path):
    stage = FolderStage(str(tmp_path))
    allocation = SPEC.allocate(stage, shape=(5000,))
    early, window = allocation.handle[10:20], memoryview(allocation.handle.base)
    allocation.handle[:] = 1
    written = allocation.seal()
    with pytest.raises(ValueError, match="read-only"):
        allocation.handle[0] = 5
    early[:] = 5
    window[-8:] = b"\1" * 8
    received = SPEC.open(stage.seal(), written.meta, 1)
    assert same(received, np.ones(5000)) and written.digest == array_digest(received)
    assert early[0] == 5 and allocation.handle[0] == 1


@pytest.mark.parametrize("shape", [(), 0, (0, 3), 7])
def test_allocated_shapes(shape, tmp_path):
    stage = FolderStage(str(tmp_path))
    written = SPEC.allocate(stage, shape=shape, dtype="i4").seal()
    assert same(SPEC.open(stage.seal(), written.meta, 1), np.zeros(shape, "i4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without shape="),
        ({"shape": (2, -1)}, r"shape=\(2, -1\) is not possible"),
        ({"shape": "ab"}, "one whole number per axis"),
        ({"shape": (1.5,)}, "one whole number per axis"),
        ({"shape": 3, "dtype": object}, "Python objects"),
        ({"shape": 3, "dtype": "nonsense"}, "not a NumPy dtype"),
        ({"shape": 3, "order": "X"}, "neither"),
        ({"shape": 3, "chunks": 3}, "have chunks=\n  hint: shape, dtype and order are possible"),
    ],
)
def test_impossible_allocations(options, message, tmp_path):
    with pytest.raises(BadRequest, match=message):
        SPEC.allocate(FolderStage(str(tmp_path)), **options)


ALLOCATING = [SPEC, specs.HdfArraySpec(), specs.ZarrArraySpec()]


@pytest.mark.parametrize("spec", ALLOCATING, ids=lambda spec: spec.name)
@pytest.mark.parametrize("dtype", [str, bytes, np.void, "U0", [("a", "f4", (2,)), ("b", str)]])
def test_texts_without_width_are_refused(spec, dtype, tmp_path):
    pytest.importorskip({"hdf": "h5py", "zarr": "zarr"}.get(spec.name, "numpy"))
    with pytest.raises(BadRequest, match="no room, so each would come out empty\n.*dtype='U20'"):
        spec.allocate(FolderStage(str(tmp_path)), shape=(3,), dtype=dtype)


@pytest.mark.parametrize("spec", ALLOCATING, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    ("options", "figure"),
    [
        ({"shape": (10**12, 10**12)}, "8,000,000,000,000,000,000,000,000 bytes"),
        ({"shape": 1 << 63}, "73,786,976,294,838,206,464 bytes"),
        ({"shape": (0, 1 << 63)}, "73,786,976,294,838,206,464 bytes"),
        ({"shape": (1,) * 70}, "70 axes"),
        ({"shape": (10, 10), "chunks": (10**12, 10**12)}, "a chunk .*8,000,000,000,000,000,000,000,000 bytes"),
    ],
)
def test_absurd_shapes_are_refused_with_figures(spec, options, figure, tmp_path):
    pytest.importorskip({"hdf": "h5py", "zarr": "zarr"}.get(spec.name, "numpy"))
    if spec is SPEC and "chunks" in options:
        return
    with pytest.raises(BadRequest, match=figure):
        spec.allocate(FolderStage(str(tmp_path)), dtype="f8", **options)


def test_no_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(WarehouseFull, match="8,000,000,128 bytes can't be allocated"):
        SPEC.allocate(FolderStage(str(tmp_path)), shape=(1_000_000_000,))


# -- payloads that are not ours -------------------------------------------------------------------


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text.encode("latin-1")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a .npy file"),
        (b"PK\3\4 zip archives too", "not a .npy file"),
        (header("{}", b"\x09\x00"), "not a .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "claims 65,545 bytes"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"), "should have 8,796,093,022"),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }") + b"x",
            "67 bytes by its header, but it has 68",
        ),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"x" * 8, "Python objects"),
        (header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }") + b"x" * 8, "Python objects"),
        (header("{'descr': '<f8', 'fortran_order': 0, 'shape': (0,), }"), "something else"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"), "something else"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }"), "something else"),
        (header("{'descr': '<f8', 'shape': (1,), }"), "can't be read"),
        (header("{'descr': 'nope', 'fortran_order': False, 'shape': (0,), }"), "can't be read"),
        (header("__import__('os').getcwd()"), "can't be read"),
        (header("(" * 5000), "can't be read"),
    ],
)
def test_other_files_are_refused(data, reason):
    with pytest.raises(DamagedObject, match=reason):
        SPEC.open(FolderPayload("", ["data.npy"], {"data.npy": data}), {}, 1)


@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_numpy_reads_what_we_write_and_we_read_what_numpy_writes(tmp_path):
    long_names = np.zeros(2, [(f"field{n:04}" * 4, "f8") for n in range(2500)])
    for array in (long_names, np.zeros(3, [("ключ", "i4")]), np.arange(4).reshape(2, 2)):
        with stored(SPEC, array) as entry:
            assert np.load(entry.payload.path("data.npy"), max_header_size=10**6).dtype == array.dtype
        np.save(tmp_path / "data.npy", array)
        assert same(SPEC.open(FolderPayload(str(tmp_path), ["data.npy"]), {}, 1), array)


def test_headers_are_aligned_for_mapping():
    for length in range(1, 80):
        head = npy.header_bytes(np.dtype("f8"), (10**length,), False)
        assert len(head) % 64 == 0 and head.endswith(b"\n")


def _flags(dtype):
    base = dtype.base
    return base.type, base.isalignedstruct, [_flags(base.fields[name][0]) for name in base.names or ()]


ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
PACKED = np.dtype([("a", "i1"), ("b", "f8")])
STRUCTURES = {
    "aligned": ALIGNED,
    "packed": PACKED,
    "both": np.dtype([("x", ALIGNED), ("y", PACKED), ("z", (ALIGNED, (2,)))], align=True),
    "inside": np.dtype([("y", PACKED), ("x", ALIGNED)]),
    "titles": np.dtype([(("Title", "a"), "i1"), ("b", "f8")], align=True),
    "record": np.dtype((np.record, ALIGNED)),
}


@pytest.mark.parametrize("dtype", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("view", [np.asarray, lambda x: x.view(np.recarray), np.ma.array])
@pytest.mark.parametrize("inline", [True, False])
def test_aligned_structures_stay_so(dtype, view, inline):
    value = view(np.zeros(3, dtype))
    with stored(SPEC, value, inline=inline) as entry:
        opened = entry.open()
        assert (
            type(opened) is type(value) and opened.dtype == value.dtype and _flags(opened.dtype) == _flags(value.dtype)
        )


@pytest.mark.parametrize("dtype", STRUCTURES.values(), ids=STRUCTURES)
def test_allocated_structures_stay_what_they_are(tmp_path, dtype):
    stage = FolderStage(str(tmp_path))
    written = SPEC.allocate(stage, shape=(3,), dtype=dtype).seal()
    assert _flags(SPEC.open(stage.seal(), written.meta, 1).dtype) == _flags(dtype)


@pytest.mark.parametrize("dtype", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("shape", [(6, 4), (700, 300)])
def test_the_bytes_between_fields_are_the_same_in_any_layout(dtype, shape):
    size = shape[0] * shape[1] * dtype.itemsize
    value = np.full(size, 0xAA, "u1").view(f"V{dtype.itemsize}").reshape(shape)
    layouts = (value.copy("F"), value.repeat(2, 0)[::2], value.T.copy()[::-1].T[:, ::-1])
    for array in (each.view(dtype) for each in layouts):
        assert array_digest(array) == array_digest(value.view(dtype))
        with stored(SPEC, array) as entry:
            assert entry.written.digest == array_digest(array)
            assert array.flags.f_contiguous or entry.open().tobytes() == value.tobytes()


@pytest.mark.parametrize("aligned", [[], [True, True], 7, [None, None]])
def test_alignment_that_does_not_fit_is_damage(aligned):
    with stored(SPEC, np.zeros(3, ALIGNED)) as entry, pytest.raises(DamagedObject, match="aligned"):
        SPEC.open(entry.payload, {"aligned": aligned}, 1)
    with stored(SPEC, np.zeros(3, PACKED)) as entry, pytest.raises(DamagedObject, match="aligned"):
        SPEC.open(entry.payload, {"aligned": [True]}, 1)

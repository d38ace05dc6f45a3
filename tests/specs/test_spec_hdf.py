"""HDF arrays: filled in any order with one digest, closed at the seal, lazy and read-only when received."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx import specs
from pyplantx.errors import BadRequest, BadSelection, CannotStore, DamagedObject, WarehouseFull
from pyplantx.fingerprint.value import BLOCK, array_digest
from pyplantx.spec_tests import FolderPayload, FolderStage, stored
from pyplantx.specs import chunked, datasets, hdf
from pyplantx.specs.chunks import choose
from pyplantx.specs.datasets import HdfDataset
from pyplantx.specs.rawfile import RawFile

SPEC = specs.HdfArraySpec()


@pytest.fixture
def stage(tmp_path):
    return FolderStage(str(tmp_path))


def digest_of(array):
    with stored(SPEC, array) as entry:
        return entry.written.digest


def test_allocate_fill_seal_receive(stage):
    allocation = SPEC.allocate(stage, shape=(6, 4), dtype=np.float32)
    dataset = allocation.handle
    dataset[0:2] = np.ones((2, 4))
    dataset[3, 1] = 5
    assert dataset[3].tolist() == [0, 5, 0, 0] and len(dataset) == 6 and "writable" in repr(dataset)
    written = allocation.seal()
    received = SPEC.open(stage.seal(), written.meta, 1)
    assert received.shape == (6, 4) and received.dtype == np.float32 and received.size == 24
    assert np.array_equal(np.asarray(received), np.asarray(dataset)) and received[:].sum() == 13
    assert sum(row.sum() for row in received) == 13
    target = np.zeros((1, 4), np.float32)
    received.read_direct(target, np.s_[3:4], np.s_[0:1])
    assert target.sum() == 5 and received.astype("i8")[3, 1] == 5
    with pytest.raises(ValueError, match="without a copy"):
        received.__array__(copy=False)


def test_no_writing_after_the_seal_but_reading_goes_on(stage):
    allocation = SPEC.allocate(stage, shape=(3,), maxshape=(None,))
    allocation.handle[:] = 1
    allocation.seal()
    os.rename(stage.path("data.h5"), stage.path("moved.h5"))  # as the warehouse does
    for write in (
        lambda handle: handle.__setitem__(0, 2),
        lambda handle: handle.write_direct(np.zeros(3, "f4")),
        lambda handle: handle.resize((9,)),
    ):
        with pytest.raises(BadRequest, match="read-only"):
            write(allocation.handle)
    assert allocation.handle[:].tolist() == [1, 1, 1]


def test_a_received_dataset_can_go_to_another_process():
    with stored(SPEC, np.arange(5.0)) as entry:
        assert pickle.loads(pickle.dumps(entry.open()))[:].tolist() == [0, 1, 2, 3, 4]


def test_an_allocated_dataset_can_not(stage):
    allocation = SPEC.allocate(stage, shape=(3,))
    with pytest.raises(BadRequest, match="can't be pickled"):
        pickle.dumps(allocation.handle)
    allocation.discard()


def test_a_received_dataset_can_be_sent_on():
    with stored(SPEC, np.arange(5.0)) as entry, stored(SPEC, entry.open()) as again:
        assert again.written.digest == entry.written.digest


writes = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8), st.integers(0, 9), st.booleans()), max_size=6)


@settings(max_examples=60)
@given(writes, st.sampled_from([{}, {"chunks": (3, 2)}, {"compression": "gzip"}, {"maxshape": (None, 5)}]))
def test_the_digest_knows_neither_order_nor_chunks(tmp_path_factory, plan, options):
    stage = FolderStage(str(tmp_path_factory.mktemp("hdf")))
    expected = np.zeros((8, 5), "f4")
    allocation = SPEC.allocate(stage, shape=(8, 5), dtype="f4", **options)
    for start, stop, number, whole in plan:
        rows = np.full((len(range(*slice(start, stop).indices(8))), 5), number, "f4")
        selection = np.s_[start:stop] if whole else np.s_[start:stop, :]
        allocation.handle[selection] = rows if number % 2 else number
        expected[selection] = number
    assert allocation.seal().digest == digest_of(expected)


@pytest.mark.parametrize("step", [1, 7, 64])
@pytest.mark.parametrize("options", [{}, {"chunks": (8, BLOCK // 128)}], ids=["in one piece", "chunked"])
def test_rows_in_order_are_hashed_as_they_pass(stage, monkeypatch, step, options):
    array = np.random.default_rng(0).random((64, BLOCK // 128))
    expected = digest_of(array)
    allocation = SPEC.allocate(stage, shape=array.shape, dtype=array.dtype, **options)
    for start in range(0, 64, step):
        allocation.handle[start : start + step, ...] = array[start : start + step]
    monkeypatch.setattr(type(allocation.handle.backend), "read", lambda *_: pytest.fail("read back without need"))
    monkeypatch.setattr(RawFile, "read_into", lambda *_: pytest.fail("read back without need"))
    assert allocation.seal().digest == expected


def test_single_rows_and_appended_rows_count_as_in_order(stage, monkeypatch):
    array = np.arange(12.0).reshape(4, 3)
    expected = digest_of(array)
    allocation = SPEC.allocate(stage, shape=(0, 3), dtype="f8", maxshape=(None, 3))
    monkeypatch.setattr(chunked.H5Backend, "_read_back", lambda _: pytest.fail("read back without need"))
    for index in range(4):
        allocation.handle.resize(index + 1, axis=0)
        allocation.handle[index] = array[index]
    assert allocation.seal().digest == expected


@pytest.mark.parametrize(
    "write",
    [
        lambda d, a: d.__setitem__(slice(0, 4), a[:4].astype("f4")),
        lambda d, a: (d.__setitem__(Ellipsis, a), d.__setitem__((0, 0), 99)),
        lambda d, a: (d.__setitem__((), a), d.resize((4, 2)), d.resize((4, 3))),
        lambda d, a: (d.__setitem__(slice(0, 4), a), d.resize((2, 3)), d.resize((4, 3))),
        lambda d, a: d.write_direct(a, np.s_[1:3], np.s_[0:2]),
        lambda d, a: d.__setitem__(slice(0, 4, 2), a[:2]),
        lambda d, a: d.__setitem__([0, 2], a[:2]),
        lambda d, a: d.__setitem__(np.array([True, False, True, False]), a[:2]),
        lambda d, a: d.__setitem__((slice(0, 2), np.array([0, 2])), a[:2, :2]),
        lambda d, a: d.__setitem__(slice(0, 4), a[0]),
        lambda d, a: d.__setitem__(-1, a[0]),
    ],
)
def test_anything_else_is_read_back(stage, write):
    array = np.random.default_rng(0).random((4, 3))
    allocation = SPEC.allocate(stage, shape=(4, 3), dtype="f8", maxshape=(4, 3))
    write(allocation.handle, array)
    expected = allocation.handle[:]
    assert allocation.seal().digest == digest_of(expected)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"maxshape": (None, 5)}])
def test_the_bytes_between_fields_are_the_same_in_any_layout(tmp_path_factory, options):
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    value = np.full(60 * 5 * dtype.itemsize, 0xAA, "u1").view(f"V{dtype.itemsize}").reshape(60, 5)
    digests = set()
    for array in (value, value.copy("F"), value.repeat(2, 0)[::2]):
        allocation = SPEC.allocate(
            FolderStage(str(tmp_path_factory.mktemp("stage"))), shape=(60, 5), dtype=dtype, **options
        )
        allocation.handle[:] = array.view(dtype)
        digests.add(allocation.seal().digest)
        assert allocation.handle[:].tobytes() == value.tobytes()
    assert len(digests) == 1


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"maxshape": (None,)}])
@pytest.mark.parametrize("value", [[(1, 2.5)] * 20, (1, 2.5), 1, np.ones(20)], ids=["list", "tuple", "1", "array"])
def test_the_bytes_between_fields_of_tuples_are_not_left_to_chance(stage, options, value):
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    dataset = SPEC.allocate(stage, shape=(20,), dtype=dtype, **options).handle
    held = [np.full(nbytes, 0xAA, "u1") for nbytes in (16, 320) * 20]
    held.clear()  # what is made next gets this memory
    dataset[:] = value
    assert dataset[:]["a"].tolist() == [1] * 20
    assert not dataset[:].view("u1").reshape(20, 16)[:, 1:8].any()


def test_arrays_and_datasets_of_the_same_numbers_are_different_values():
    array = np.arange(5.0)
    assert digest_of(array) != array_digest(array)
    assert len({digest_of(x) for x in (np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6), np.zeros(6, "f4"))}) == 4


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunks"),
    [
        ((2_097_152, 1024), 4, (256, 1024)),
        ((10, 10), 8, (10, 10)),
        ((5, 1 << 20), 8, (1, 1 << 17)),
        ((100, 100, 100), 8, (13, 100, 100)),
        ((None, 1000), 4, (262, 1000)),
        ((None,), 1, (1 << 20,)),
        ((0, 5), 8, (1, 5)),
        ((3, 0), 8, (3, 1)),
    ],
)
def test_chunks_are_whole_rows_near_a_mebibyte(shape, itemsize, chunks):
    assert choose([length or 0 for length in shape], itemsize, maxshape=shape) == chunks


def test_layouts(stage, tmp_path):
    plain = SPEC.allocate(stage, shape=(100, 10))
    assert plain.handle.chunks is None and plain.handle.compression is None and plain.handle.fillvalue == 0
    plain.discard()
    os.remove(tmp_path / "data.h5")
    packed = SPEC.allocate(stage, shape=(100, 10), compression="gzip", compression_opts=1, shuffle=True, fillvalue=-1)
    assert packed.handle.chunks == (100, 10) and packed.handle.compression == "gzip" and packed.handle[0, 0] == -1
    assert packed.handle.maxshape == (100, 10) and list(packed.handle.iter_chunks())
    packed.discard()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without shape="),
        ({"shape": (3,), "dtype": "M8[s]"}, "HDF5 can't keep"),
        ({"shape": (3,), "dtype": "U3"}, "HDF5 can't keep"),
        ({"shape": (3,), "dtype": object}, "Python objects"),
        ({"shape": (3,), "compression": "zip"}, "compression='zip' is not possible"),
        ({"shape": (3,), "compression_opts": 0}, "compression_opts=0 is given, and no compression="),
        ({"shape": (3,), "chunks": (9,)}, "HDF5 can't keep"),
        ({"shape": (), "chunks": (9,)}, "HDF5 can't keep"),
        ({"shape": (3,), "maxshape": (1 << 65,)}, "HDF5 can't keep"),
        ({"shape": (3,), "dtype": "S4", "fillvalue": 1}, "HDF5 can't keep"),
        ({"shape": (3,), "dtype": "?", "fillvalue": "no"}, "HDF5 can't keep"),
        ({"shape": (3,), "fillvalue": [1, 2]}, "is not one element"),
        ({"shape": (3,), "external": "x"}, "have external="),
        ({"shape": (-3,)}, "shape=.*one whole number per axis"),
    ],
)
def test_impossible_allocations(stage, options, message):
    with pytest.raises(BadRequest, match=message):
        SPEC.allocate(stage, **options)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_name_is_no_index_of_plain_numbers(stage, compression):
    array = SPEC.allocate(stage, shape=(3,), compression=compression).handle
    with pytest.raises(BadSelection, match="has no fields: 'a' is no index"):
        array["a"] = 1


@pytest.mark.parametrize(
    ("dtype", "fill"), [("?", 1), ("?", np.int8(1)), ("c8", 1), ("c8", 1.5), (">c16", np.float32(2)), ("c8", 2j)]
)
def test_fill_values_are_converted_where_hdf5_does_not(dtype, fill, stage):
    allocation = SPEC.allocate(stage, shape=(3,), dtype=dtype, fillvalue=fill)
    assert np.array_equal(allocation.handle[...], np.full(3, fill, dtype))


@pytest.mark.parametrize(
    ("shape", "maxshape", "limits"),
    [((3,), True, (None,)), ((3, 4), True, (None, None)), ((3, 4), np.array([5, 6]), (5, 6)), ((3,), 9, (9,))],
)
def test_whatever_says_how_far_the_axes_may_grow(stage, shape, maxshape, limits):
    allocation = SPEC.allocate(stage, shape=shape, maxshape=maxshape)
    allocation.handle.resize(5, axis=0)
    assert allocation.handle.maxshape == limits and len(allocation.handle[...]) == 5
    allocation.discard()


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"maxshape": True}, {"maxshape": ()}], ids=str)
def test_one_element_needs_no_packing(stage, options):
    allocation = SPEC.allocate(stage, shape=(), compression="gzip", **options)
    allocation.handle[()] = 3
    allocation.seal()
    assert allocation.handle[()] == 3 and allocation.handle.compression is None


def test_resizing_needs_room(stage):
    allocation = SPEC.allocate(stage, shape=(3,))
    with pytest.raises(BadRequest, match="can't be resized"):
        allocation.handle.resize((5,))
    allocation.discard()


@pytest.mark.parametrize(("size", "axis"), [((60, 20), None), (60, 0), ((10, 21), None), (21, -1)])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}], ids=["plain", "packed"])
def test_resizing_knows_its_limits(stage, size, axis, options):
    allocation = SPEC.allocate(stage, shape=(10, 20), maxshape=(50, 20), **options)
    with pytest.raises(BadRequest, match=r"at most\n  hint: allocate it with a larger maxshape= \(now \(50, 20\)\)"):
        allocation.handle.resize(size, axis)
    allocation.handle.resize((50, 20))
    assert allocation.handle.shape == (50, 20)
    allocation.discard()


@pytest.mark.parametrize(
    ("size", "axis", "words"),
    [
        (9, 2, r"axis=2 is no axis of an array with 2\n  hint: 0 to 1, or -1 for the last one"),
        (9, "a", "axis='a' is no axis"),
        ("x", 0, r"to 'x'.*\n  hint: resize\(n, axis=0\), or the whole shape, as in resize\(\(2, 3\)\)"),
        (-2, 0, "to -2"),
        ((3,), None, "length"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}], ids=["plain", "packed"])
def test_resizing_to_what_is_no_shape(stage, size, axis, words, options):
    allocation = SPEC.allocate(stage, shape=(2, 3), maxshape=(None, None), **options)
    with pytest.raises(BadRequest, match=words):
        allocation.handle.resize(size, axis)
    assert allocation.handle.shape == (2, 3)
    allocation.discard()


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (2,)}, {"compression": "gzip"}, {"compression": "lzf"}],
    ids=["raw", "chunked", "packed", "lzf"],
)
@pytest.mark.parametrize("selection", [..., [0, 1, 2, 3]], ids=["all", "list"])
def test_numbers_become_truth_values_wherever_they_are_written(stage, options, selection):
    allocation = SPEC.allocate(stage, shape=(4,), dtype=bool, **options)
    with pytest.raises(BadRequest, match="HDF5 doesn't convert"):
        allocation.handle[selection] = np.array([0.5, 0, 1, 2])
    for numbers in (np.array([255, 0, 1, 3], "u1"), np.array([0, -3, 256, 0], ">i2")):
        allocation.handle[selection] = numbers
        assert allocation.handle[...].tobytes() == (numbers != 0).tobytes()
    allocation.discard()


@pytest.mark.parametrize("options", [{}, {"chunks": (2,)}, {"compression": "gzip"}], ids=["raw", "chunked", "packed"])
def test_numbers_become_truth_values_where_they_are_read_into_them(stage, options):
    allocation = SPEC.allocate(stage, shape=(4,), dtype="u1", **options)
    allocation.handle[:] = [255, 0, 1, 3]
    found = np.ones(6, bool)
    allocation.handle.read_direct(found, np.s_[1:4], np.s_[2:5])
    assert found.tobytes() == bytes([1, 1, 0, 1, 1, 1])
    allocation.handle.read_direct(found[:4])
    assert found.tobytes() == bytes([1, 0, 1, 1, 1, 1])
    allocation.discard()


NUMBERS = np.array(
    [([255, 0], (0,), 1.5), ([1, 3], (200,), -1)], [("ok", "u1", 2), ("in", [("is", "<i4")]), ("x", "f8")]
)
TRUTHS = np.dtype([("x", "f4"), ("ok", "?", 2), ("in", [("is", "?")])], align=True)


@pytest.mark.parametrize("options", [{}, {"chunks": (1,)}, {"compression": "gzip"}], ids=["raw", "chunked", "packed"])
@pytest.mark.parametrize("write", ["all", "one", "list", "direct"])
def test_numbers_become_truth_values_in_structures(stage, options, write):
    """HDF5 goes by the names of fields, and would leave 127 in the place of a truth value."""
    expected = np.zeros(2, TRUTHS)
    expected["ok"], expected["in"]["is"], expected["x"] = NUMBERS["ok"] != 0, NUMBERS["in"]["is"] != 0, NUMBERS["x"]
    allocation = SPEC.allocate(stage, shape=(2,), dtype=TRUTHS, **options)
    if write == "one":
        allocation.handle[0], allocation.handle[1] = NUMBERS
    elif write == "direct":
        allocation.handle.write_direct(NUMBERS)
    else:
        allocation.handle[... if write == "all" else [1, 0]] = NUMBERS if write == "all" else NUMBERS[::-1]
    assert allocation.handle[...].tobytes() == expected.tobytes()
    assert allocation.seal().digest == digest_of(expected)


@pytest.mark.parametrize("options", [{}, {"chunks": (1,)}, {"compression": "gzip"}], ids=["raw", "chunked", "packed"])
def test_numbers_become_truth_values_where_structures_are_read_into_them(stage, options):
    allocation = SPEC.allocate(stage, shape=(2,), dtype=NUMBERS.dtype, **options)
    allocation.handle[...] = NUMBERS
    found = np.zeros(2, TRUTHS)
    allocation.handle.read_direct(found)
    for truths in (found, allocation.handle.astype(TRUTHS)[...]):
        assert truths["ok"].tobytes() == bytes([1, 0, 1, 1]) and truths["in"]["is"].tobytes() == bytes([0, 1])
        assert truths["x"].tolist() == [1.5, -1]
    allocation.discard()


@pytest.mark.parametrize("value", [np.array([7, 0], "u1"), (7, 0)], ids=repr)
def test_truth_values_are_sent_with_their_very_bits(value):
    array = np.zeros(2, [("ok", "?"), ("x", "f4")])
    array["ok"].view("u1")[...] = value  # whoever makes such ones gets them back
    with stored(SPEC, array) as entry:
        assert entry.open()[...].tobytes() == array.tobytes()


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}], ids=["plain", "packed"])
@pytest.mark.parametrize(("axis", "shape"), [(-1, (2, 5)), (-2, (5, 3))])
def test_resizing_along_an_axis_counted_from_the_end(stage, axis, shape, options):
    allocation = SPEC.allocate(stage, shape=(2, 3), maxshape=(None, None), **options)
    allocation.handle[...] = 7
    allocation.handle.resize(5, axis=axis)
    assert allocation.handle.shape == shape and allocation.handle[...].sum() == 6 * 7
    allocation.discard()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"maxshape": (5, 20)}, r"change .*maxshape=\(5, 20\)"),
        ({"compression": "gzip", "compression_opts": 77}, "change .*compression_opts=77"),
        ({"chunks": (5,)}, r"change chunks=\(5,\)"),
        ({"dtype": "U3"}, "Ingredient.Type.array keeps"),
        ({"chunks": (5, 5), "blocks": (4, 4)}, "leave one of them off"),
        ({"dytpe": "f4"}, "did you mean 'dtype'[?] shape, .* and fillvalue are possible"),
        ({"chunks": (5, 5), "axis": 1}, "leave one of them off"),
    ],
)
def test_hints_name_what_is_wrong(stage, options, hint):
    with pytest.raises(BadRequest, match=f"hint: {hint}"):
        SPEC.allocate(stage, shape=(10, 20), **options)


def test_what_can_not_be_sent(stage):
    for value, message in (([1, 2], "value is a list"), (np.array(["a"]), "can't be kept as HDF5")):
        with pytest.raises(CannotStore, match=message):
            SPEC.write(value, stage)


def test_a_mask_does_not_vanish(stage):
    masked = np.ma.array([1.0, -999.0, 3.0], mask=[False, True, False])
    with pytest.raises(CannotStore, match="masked array, and an HDF array has no mask"):
        SPEC.write(masked, stage)
    array = SPEC.allocate(stage, shape=(3,)).handle
    for write in (
        lambda: array.__setitem__(slice(None), masked),
        lambda: array.__setitem__(0, np.ma.masked),
        lambda: array.write_direct(masked),
        lambda: array.write_block((slice(0, 3),), masked),
    ):
        with pytest.raises(BadRequest, match="no mask"):
            write()
    assert array.untouched
    array[:2] = masked[::2]
    array[2] = masked.filled(7)[1]
    assert array[...].tolist() == [1, 3, 7]


@pytest.fixture
def little_space(stage, monkeypatch):
    real = os.statvfs(stage.folder)
    return lambda: monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([*real[:3], 5000, 5000, *real[5:]]))


@pytest.mark.parametrize("length", [0, 3])
def test_a_dataset_whose_file_is_closed_is_told_so(stage, tmp_path, length):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        dataset = file.create_dataset("x", data=np.arange(float(length)))
    assert SPEC.recognise(dataset)
    with pytest.raises(CannotStore, match="value is an h5py dataset whose file is closed\n  hint: send it before"):
        SPEC.write(dataset, stage)
    with pytest.raises(CannotStore, match="not a plain NumPy array"):
        specs.ArraySpec().write(dataset, stage)


def test_a_full_disk_is_told_before_hdf5_meets_it(stage, little_space):
    allocation = SPEC.allocate(stage, shape=(1000, 1000), dtype="f8", chunks=True)
    little_space()
    with pytest.raises(WarehouseFull, match="no space to write 8,000,000 bytes"):
        allocation.handle[:] = 0
    allocation.discard()


def test_what_is_kept_free_is_told_and_no_more_than_needed(stage, monkeypatch):
    """A packed array may hold back few chunks, whatever the budget is; only these and HDF5's own are asked for."""
    real = os.statvfs(stage.folder)
    allocation = SPEC.allocate(stage, shape=(10_000, 1024), dtype="f4", compression="gzip")

    def has_free(nbytes):
        pages = nbytes // real.f_frsize
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([*real[:3], pages, pages, *real[5:]]))

    has_free(28 << 20)
    allocation.handle[:1024] = 0  # 4 MiB
    has_free(18 << 20)
    with pytest.raises(WarehouseFull) as caught:
        allocation.handle[1024:2048] = 0
    needed, free, kept = (int(number.replace(",", "")) for number in re.findall("[0-9,]*[0-9]", str(caught.value))[:3])
    assert needed == 4 << 20 and free == 18 << 20 and free < needed + kept <= 28 << 20
    allocation.discard()


def test_an_array_that_is_larger_than_the_disk_is_refused_at_once(stage, little_space):
    little_space()
    with pytest.raises(WarehouseFull, match="no space to write 8,000,000,000 bytes"):
        SPEC.allocate(stage, shape=(1000, 1000, 1000), dtype="f8")
    assert os.listdir(stage.folder) == []


# -- files that are not ours ----------------------------------------------------------------------


def crafted(tmp_path, make):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w", libver="latest") as file:
        make(file)
    return FolderPayload(str(tmp_path), ["data.h5"])


def external(file):
    (folder := os.path.dirname(file.filename))
    with open(os.path.join(folder, "secret"), "wb") as secret:
        secret.write(b"TOPSECRET")
    file.create_dataset("data", (9,), "u1", external=[(os.path.join(folder, "secret"), 0, 9)])


def virtual(file):
    layout = h5py.VirtualLayout((3,), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("data", layout)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (external, "external storage"),
        (virtual, "virtual dataset"),
        (lambda f: f.__setitem__("data", h5py.ExternalLink("other.h5", "x")), "through a ExternalLink"),
        (lambda f: f.__setitem__("data", h5py.SoftLink("/x")), "through a SoftLink"),
        (lambda f: f.create_group("data"), "a Group instead of"),
        (lambda f: f.create_dataset("other", (3,), "f4"), "instead of the one dataset"),
        (lambda f: [f.create_dataset(name, (3,), "f4") for name in ("data", "more")], "instead of the one dataset"),
        (lambda f: f.create_dataset("data", (3,), h5py.string_dtype()), "variable size or references"),
        (lambda f: f.create_dataset("data", (3,), h5py.ref_dtype), "variable size or references"),
        (lambda f: f.create_dataset("data", (3,), [("a", h5py.vlen_dtype("i4"))]), "variable size or references"),
        (lambda f: f.create_dataset("data", (30,), scaleoffset=2, dtype="i4"), "filters that are not read"),
        (lambda f: f.create_dataset("data", (4,), "f4"), "its record says otherwise"),
        (lambda f: f.create_dataset("data", (3,), "f8"), "its record says otherwise"),
    ],
)
def test_dangerous_files_are_refused(tmp_path, make, reason):
    payload = crafted(tmp_path, make)
    with pytest.raises(DamagedObject, match=reason):
        SPEC.open(payload, {"shape": [3], "dtype": "<f4"}, 1)


def test_files_that_are_no_hdf5_are_refused(tmp_path):
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DamagedObject, match="not an HDF5 file that was closed properly"):
        SPEC.open(FolderPayload(str(tmp_path), ["data.h5"]), {}, 1)
    with pytest.raises(DamagedObject, match="has the one file"):
        SPEC.open(FolderPayload(str(tmp_path), ["data.npy"]), {}, 1)


KILLED = """
import os, sys
from pyplantx import specs
from pyplantx.spec_tests import FolderStage
allocation = specs.HdfArraySpec().allocate(FolderStage(sys.argv[1]), shape=(1000, 1000), compression="lzf")
allocation.handle[:500] = 1
allocation.handle.backend.dataset.file.flush()
os._exit(9)
"""


def test_a_file_of_a_killed_writer_does_not_open(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert (tmp_path / "data.h5").stat().st_size > 1000
    with pytest.raises(DamagedObject, match="closed properly"):
        SPEC.open(FolderPayload(str(tmp_path), ["data.h5"]), {"shape": [1000, 1000], "dtype": "<f4"}, 1)


def test_a_write_that_is_interrupted_is_read_back(stage, monkeypatch):
    array = np.arange(12.0).reshape(4, 3)
    expected = digest_of(array)
    allocation = SPEC.allocate(stage, shape=(4, 3), dtype="f8", chunks=True)
    feed = chunked._feed

    def interrupted(hasher, value):
        feed(hasher, value)
        raise KeyboardInterrupt

    monkeypatch.setattr(chunked, "_feed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        allocation.handle[:2] = array[:2]
    monkeypatch.undo()
    allocation.handle[:2] = array[:2]
    allocation.handle[2:] = array[2:]
    assert allocation.seal().digest == expected


@pytest.mark.parametrize(
    "value", [1.0, 3, True, None, [1, 2, 3, 4], (1.0,) * 4, np.float64(2), np.arange(4.0)], ids=repr
)
@pytest.mark.parametrize("selection", [slice(None), slice(0, 4), ..., ()], ids=repr)
def test_plain_values_are_written_as_h5py_writes_them(stage, value, selection):
    """None and a list have no dtype, and NumPy says that None equals float64."""
    allocation = SPEC.allocate(stage, shape=(4,), dtype="f8")
    allocation.handle[selection] = value
    written = allocation.seal()
    expected = np.empty(4)
    expected[selection] = value
    assert written.digest == digest_of(expected)
    assert np.array_equal(SPEC.open(stage.seal(), written.meta, 1)[:], expected, equal_nan=True)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("wrap", [np.matrix, np.ma.array, np.asfortranarray, lambda x: x[::1, ::-1]])
def test_other_arrays_are_hashed_as_they_are_written(stage, wrap):
    value = wrap(np.arange(6.0).reshape(3, 2))
    allocation = SPEC.allocate(stage, shape=(3, 2), dtype="f8")
    allocation.handle[:] = value
    assert allocation.seal().digest == digest_of(np.array(value))


@pytest.mark.parametrize("selection", [..., (), slice(None), np.s_[0:4], np.s_[:, 0:3], 1, np.s_[[0, 2]]], ids=repr)
@pytest.mark.parametrize("options", [{}, {"chunks": True}], ids=["in one piece", "chunked"])
def test_a_dataset_of_ours_may_be_written_into_another(stage, tmp_path_factory, monkeypatch, selection, options):
    monkeypatch.setattr(datasets, "_SLAB", 10)
    expected = np.zeros((4, 3))
    source = np.random.default_rng(0).random(expected[selection].shape)
    expected[selection] = source
    with stored(SPEC, source) as entry:
        allocation = SPEC.allocate(stage, shape=(4, 3), dtype="f8", **options)
        allocation.handle[selection] = entry.open()
        assert allocation.seal().digest == digest_of(expected)


def test_a_dataset_may_be_written_into_another(stage, tmp_path):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        allocation = SPEC.allocate(stage, shape=(4,), dtype="f8")
        allocation.handle[:] = file.create_dataset("x", data=np.arange(4.0))
    assert allocation.seal().digest == digest_of(np.arange(4.0))


def test_text_that_was_read_can_be_sent_on(tmp_path):
    """h5py marks the dtype of what it has read with the text's encoding."""
    text = np.array([b"a", b"bc", b""], "S3")
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        read = file.create_dataset("x", data=text)[:]
    assert read.dtype.metadata and digest_of(read) == digest_of(text)
    with stored(SPEC, text) as entry:
        assert digest_of(entry.open()) == digest_of(entry.open()[:]) == entry.written.digest


class Trouble:
    """A file that can't be read at one place."""

    def __init__(self, path, place, error):
        self.path, self.place, self.error = path, place, error
        self.file = RawFile(path)
        self.size = self.file.size

    def read_into(self, buffer, start):
        if start <= self.place < start + memoryview(buffer).nbytes:
            raise self.error
        self.file.read_into(buffer, start)

    def close(self):
        self.file.close()


@pytest.mark.parametrize(
    "error", [DamagedObject("torn"), KeyboardInterrupt(), MemoryError()], ids=lambda e: type(e).__name__
)
def test_trouble_in_reading_is_raised_and_leaves_nothing_behind(tmp_path, error):
    """HDF5 keeps what it has read; what it was given in place of bytes that can't be read must not be among that."""
    array = np.random.default_rng(0).random((64, 64))
    with h5py.File(tmp_path / "x.h5", "w", libver=("v110", "v110")) as file:
        file.create_dataset("data", data=array, chunks=(8, 64))
    meta = {"shape": [64, 64], "dtype": "<f8"}
    raised, descriptors = 0, len(os.listdir("/dev/fd"))
    for place in range(0, os.path.getsize(tmp_path / "x.h5"), 97):
        source = Trouble(str(tmp_path / "x.h5"), place, error)
        try:
            dataset = HdfDataset(hdf._backend(source, meta))
            assert np.array_equal(dataset[...], array)
        except type(error) as caught:
            assert caught is error
            raised += 1
            source.place = -1  # it can be read after all
            assert np.array_equal(HdfDataset(hdf._backend(source, meta))[...], array)
            error.__traceback__ = None  # one error for all places: its frames would hold all of their files
    assert raised > 300 and len(os.listdir("/dev/fd")) < descriptors + 10


def test_a_dataset_that_could_not_be_read_can_be_read_later(tmp_path):
    array = np.random.default_rng(0).random((64, 64))
    with h5py.File(tmp_path / "x.h5", "w", libver=("v110", "v110")) as file:
        place = file.create_dataset("data", data=array, chunks=(8, 64)).id.get_chunk_info(3).byte_offset
    source = Trouble(str(tmp_path / "x.h5"), -1, KeyboardInterrupt())
    dataset = HdfDataset(hdf._backend(source, {"shape": [64, 64], "dtype": "<f8"}))
    assert np.array_equal(dataset[:8], array[:8])
    source.place = place + 5
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            dataset[:]
    source.place = -1
    assert np.array_equal(dataset[:], array)


AT_EXIT = """
import sys, threading
{first}
import numpy as np
from pyplantx import specs
from pyplantx.spec_tests import FolderPayload
{last}
dataset = specs.HdfArraySpec().open(FolderPayload(sys.argv[1], ["data.h5"]), {{"shape": [9, 5], "dtype": "<f4"}}, 1)
cycle = [dataset[3:5, 2]]
cycle.append(cycle)
kept = dataset
del dataset
{end}
"""


LEAKED = "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))"


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "kept[[1, 3]]", LEAKED])
@pytest.mark.parametrize("first", [True, False])
def test_the_interpreter_ends_well_with_open_datasets(tmp_path, end, first):
    """HDF5 closes files when the interpreter is gone; it must not find any that it reads through Python."""
    with h5py.File(tmp_path / "data.h5", "w", libver=("v110", "v110")) as file:
        file.create_dataset("data", (9, 5), "<f4", chunks=(2, 2))[...] = 1
    order = {"first": "import h5py", "last": ""} if first else {"first": "", "last": "import h5py"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = AT_EXIT.format(end=end, **order)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_dataset_at_another_place_than_recorded(stage):
    with stored(SPEC, np.zeros((20, 3))) as entry:
        received = SPEC.open(entry.payload, {**entry.meta, "shape": [3, 20]}, 1)
        with pytest.raises(DamagedObject, match="another dataset"):
            received[[1, 2]]


def test_blocks_of_a_dataset(stage, tmp_path):
    options = {"shape": (9, 5), "dtype": ">i2"}
    former, allocation = (SPEC.allocate(FolderStage(str(make(tmp_path / name))), **options) for name in ("a", "b"))
    region = np.s_[2:5, 0:5]
    value = np.arange(15, dtype="i8").reshape(3, 5)
    former.handle.write_block(region, value)
    assert former.handle.read_block(region).tolist() == value.tolist() and not former.handle.untouched
    dataset = allocation.handle
    assert dataset.untouched and dataset.data_path == str(tmp_path / "b" / "data.h5")
    dataset.adopt(former.handle.data_path)
    assert not os.path.exists(tmp_path / "a" / "data.h5") and not dataset.untouched
    assert dataset.read_block(region).tolist() == value.tolist()
    dataset[0] = 1
    expected = np.zeros((9, 5), ">i2")
    expected[region], expected[0] = value, 1
    assert allocation.seal().digest == digest_of(expected)
    assert dataset.data_path is None
    former.discard()


def test_what_can_not_be_adopted(tmp_path):
    allocation = SPEC.allocate(FolderStage(str(make(tmp_path / "a"))), shape=(9, 5))
    other = SPEC.allocate(FolderStage(str(make(tmp_path / "b"))), shape=(5, 9))
    longer = SPEC.allocate(FolderStage(str(make(tmp_path / "c"))), shape=(9, 6))
    chunks = SPEC.allocate(FolderStage(str(make(tmp_path / "d"))), shape=(9, 5), chunks=True)
    for stranger in (other, longer):
        with pytest.raises(DamagedObject, match=r"is not an HDF5 file of float32 \(9, 5\)"):
            allocation.handle.adopt(stranger.handle.data_path)
    with pytest.raises(BadRequest, match="only HDF5 knows"):
        chunks.handle.adopt(other.handle.data_path)
    assert chunks.handle.data_path is None and chunks.handle.untouched
    allocation.handle[0] = 1
    with pytest.raises(BadRequest, match="was written to"):
        allocation.handle.adopt(other.handle.data_path)
    chunks.handle.write_block(np.s_[0:2], np.ones((2, 5)))
    assert chunks.handle.read_block(np.s_[1:3]).tolist() == [[1] * 5, [0] * 5]
    for each in (allocation, other, longer, chunks):
        each.discard()


def make(folder):
    folder.mkdir()
    return folder


class Selecting:
    """A selection with hooks."""

    def __init__(self):
        self.stored = []

    def fetch(self, array):
        return array.read_block(np.s_[0:2]) * 10

    def store(self, array, value):
        self.stored.append(value)


def test_selections_with_hooks(stage):
    allocation = SPEC.allocate(stage, shape=(3,))
    allocation.handle[:] = [1, 2, 3]
    selecting = Selecting()
    allocation.handle[selecting] = 5
    assert allocation.handle[selecting].tolist() == [10, 20] and selecting.stored == [5]
    allocation.seal()
    assert allocation.handle[selecting].tolist() == [10, 20]


@pytest.mark.parametrize("writable", [False, True])
def test_maps(stage, writable):
    allocation = SPEC.allocate(stage, shape=(3, 4), dtype="i4")
    allocation.handle[...] = 7
    with pytest.raises(BadRequest, match="pipe.send it first"):
        allocation.handle.mapped()
    written = allocation.seal()
    received = SPEC.open(stage.seal(), written.meta, 1)
    for dataset in (allocation.handle, received):
        array = dataset.mapped(writable)
        assert type(array) is np.ndarray and array.tolist() == [[7] * 4] * 3 and array.flags.writeable is writable
        if writable:
            array[0] = 1
        assert received[...].tolist() == [[7] * 4] * 3
        with pytest.raises(ValueError, match="cannot set"):
            received.mapped().flags.writeable = True


@pytest.mark.parametrize("value", [np.zeros((4, 3)), np.zeros(3, [("a", "i4")])], ids=["chunked", "structured"])
def test_what_can_not_be_mapped(stage, value):
    options = {} if value.dtype.names else {"chunks": True}
    allocation = SPEC.allocate(stage, shape=value.shape, dtype=value.dtype, **options)
    allocation.handle[...] = value
    allocation.seal()
    with pytest.raises(BadRequest, match="can't be mapped"):
        allocation.handle.mapped()


def test_read_direct_and_write_direct(stage):
    array = np.arange(12.0).reshape(3, 4)
    allocation = SPEC.allocate(stage, shape=(3, 4), dtype="f8")
    allocation.handle.write_direct(array)
    allocation.handle.write_direct(array, np.s_[0:1], np.s_[2:3])
    expected = np.vstack([array[:2], array[:1]])
    target = np.zeros((3, 4))
    allocation.handle.read_direct(target)
    assert np.array_equal(target, expected)
    allocation.handle.read_direct(target, np.s_[0:2, 1:3], np.s_[1:3, 0:2])
    assert np.array_equal(target[1:3, 0:2], expected[0:2, 1:3])
    narrow = np.zeros(4, "f4")
    allocation.handle.read_direct(narrow, np.s_[1])
    assert np.array_equal(narrow, expected[1])
    allocation.discard()


def test_iteration_and_length(stage):
    allocation = SPEC.allocate(stage, shape=(3, 2))
    allocation.handle[...] = 2
    assert [row.tolist() for row in allocation.handle] == [[2, 2]] * 3
    with pytest.raises(BadRequest, match="has no chunks"):
        allocation.handle.iter_chunks()
    allocation.discard()
    with stored(SPEC, np.array(2.5)) as entry:
        assert entry.open()[()] == 2.5
        with pytest.raises(TypeError, match="no length"):
            len(entry.open())


SHAPE = (6, 4, 3)
MASK = np.array([0, 1, 0, 0, 1, 1], bool)
AS_NUMPY = [
    [5, 1, 1],
    np.array([5, 1, 1]),
    np.array([3, 1], "u1"),  # whose differences are never negative
    [-1, -3],
    (1, 0),
    range(3, 0, -1),
    np.array([[1, 0], [2, 2]]),
    np.s_[::-1],
    np.s_[4:1:-2, 1, ::-1],
    np.s_[1:5, [2, 0]],
    np.s_[[3, 0], :, 1],
    np.s_[..., [2, 0, 2]],
    np.s_[:, ::-1, np.array([[2], [0]])],
    MASK,
    MASK.tolist(),
    np.s_[::-1, np.array([1, 0, 1, 0], bool)],
    np.arange(72).reshape(SHAPE) % 5 == 0,
    [],
    np.s_[0:0, [2, 1]],
    np.s_[2:2:-1],
]


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 2, 2)}, {"compression": "gzip"}], ids=str)
@pytest.mark.parametrize("selection", AS_NUMPY, ids=repr)
def test_lists_and_masks_select_as_in_numpy(stage, selection, options):
    array = np.arange(72, dtype="f4").reshape(SHAPE)
    allocation = SPEC.allocate(stage, shape=SHAPE, dtype="f4", **options)
    allocation.handle[...] = array
    values = np.random.default_rng(0).random(array[selection].shape)
    array[selection] = values
    allocation.handle[selection] = values
    written = allocation.seal()
    assert written.digest == digest_of(array)
    dataset = SPEC.open(stage.seal(), written.meta, 1)
    assert np.array_equal(dataset[selection if isinstance(selection, tuple) else (selection,)], array[selection])
    assert dataset.astype("f8")[selection].tolist() == array[selection].tolist()
    target = np.zeros_like(array[selection])
    dataset.read_direct(target, selection)
    assert np.array_equal(target, array[selection])


BROADCAST = [
    (np.s_[[0, 2]], 7),
    (np.s_[[0, 2]], [[[7]]]),
    (np.s_[[2, 0, 5]], np.arange(3)),
    (np.s_[[0, 2]], np.arange(12).reshape(4, 3)),
    (np.s_[:, [0, 2]], np.arange(6).reshape(2, 3)),
    (np.s_[[0, 2]], np.arange(2).reshape(2, 1, 1)),
    (np.s_[[2, 0]], np.arange(24).reshape(1, 2, 4, 3)),
    (np.s_[::-1, 1], np.arange(18).reshape(1, 6, 3)),
    (MASK, np.arange(3)),
    (np.arange(72).reshape(SHAPE) % 5 == 0, [7]),
    (np.s_[[0, 2], 0:0], 7),
]


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 2, 2)}, {"compression": "gzip"}], ids=str)
@pytest.mark.parametrize(("selection", "value"), BROADCAST, ids=lambda one: repr(one)[:30])
def test_what_is_written_to_lists_and_masks_is_broadcast_as_in_numpy(stage, selection, value, options):
    array = np.arange(72, dtype="f4").reshape(SHAPE)
    allocation = SPEC.allocate(stage, shape=SHAPE, dtype="f4", **options)
    allocation.handle[...] = array
    allocation.handle[selection] = value
    array[selection] = value
    assert allocation.seal().digest == digest_of(array)


@pytest.mark.parametrize("options", [{}, {"chunks": (64, 2)}], ids=["in one piece", "chunked"])
@pytest.mark.parametrize(
    "selection", [np.s_[list(range(64)), 2:2], np.s_[2:2, [1]], np.s_[np.arange(130) % 3 > 0, 3:0:2]], ids=repr
)
def test_a_list_of_nothing_is_nothing(stage, selection, options):
    """h5py makes a point of each index of a long list, and has no selection of none."""
    array = np.arange(390, dtype="i2").reshape(130, 3)
    handle = SPEC.allocate(stage, shape=(130, 3), dtype="i2", **options).handle
    handle[...] = array
    found = handle[selection]
    assert found.shape == array[selection].shape and found.dtype == array.dtype
    handle[selection] = array[selection]
    assert np.array_equal(handle[...], array)


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (2, 2)}, {"compression": "gzip"}], ids=["one piece", "chunked", "packed"]
)
@pytest.mark.parametrize("form", [lambda m: m, lambda m: (m,), lambda m: (..., m), lambda m: (np.array(m), ...)])
def test_a_mask_of_the_whole_may_be_nested_lists(stage, form, options):
    selection, array = form([[True, False, True], [False, False, True]]), np.arange(6).reshape(2, 3)
    dataset = SPEC.allocate(stage, shape=(2, 3), dtype=array.dtype, **options).handle
    dataset[...] = array
    assert np.array_equal(dataset[selection], array[selection])
    for value in (7, [1, 2, 3]):
        dataset[selection] = array[selection] = value
        assert np.array_equal(dataset[...], array)


@pytest.mark.parametrize("options", [{}, {"chunks": (4,)}], ids=["in one piece", "chunked"])
def test_a_number_is_written_to_a_list_and_structures_keep_what_is_between_their_fields(stage, options):
    dtype = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    values = np.frombuffer(np.random.default_rng(0).bytes(6 * dtype.itemsize), dtype)
    allocation = SPEC.allocate(stage, shape=(6,), dtype=dtype, **options)
    allocation.handle[[5, 4, 3, 2, 1, 0]] = values[::-1]
    assert allocation.handle["a", [3, 1]].tolist() == values["a"][[3, 1]].tolist()
    assert allocation.seal().digest == digest_of(values)


@pytest.mark.parametrize("options", [{}, {"chunks": (4,)}], ids=["in one piece", "chunked"])
@pytest.mark.parametrize("selection", [[1, 3], [3, 1], [3, 1, 3], np.s_[::-1], MASK], ids=repr)
def test_fields_are_written_to_lists(stage, selection, options):
    dtype = np.dtype([("a", "i4"), ("b", "f8", (2,))])
    array = np.zeros(6, dtype)
    allocation = SPEC.allocate(stage, shape=(6,), dtype=dtype, **options)
    handle = allocation.handle
    handle[...] = array
    handle["a", selection] = array["a"][selection] = np.arange(len(array[selection]))
    handle["b", selection] = array["b"][selection] = np.arange(2.0 * len(array[selection])).reshape(-1, 2)
    assert np.array_equal(handle[...], array)
    handle["a", selection] = array["a"][selection] = 7
    assert np.array_equal(handle[...], array)
    with pytest.raises(BadRequest):
        handle["c", selection] = 7


WRONG = [
    ([9], "index 9 is out of range for an axis of length 6"),
    (np.array([2**63], "u8"), "index 9223372036854775808 is out of range"),
    (np.s_[0, -5], "index -5 is out of range for an axis of length 4"),
    (MASK[1:], r"a mask of shape \(5,\) doesn't fit an axis of length 6"),
    (np.zeros((6, 4), bool), r"a mask of shape \(6, 4\) doesn't fit"),
    (np.s_[[0], [1]], "takes one list or mask, not several\n.*dataset\\[rows\\]"),
    ([1.0], "has float64 for indices"),
    ([[1], [1, 2]], "is no list of indices"),
    (1.5, "1.5 is no index"),
    (None, "None is no index"),
    (np.s_[:, :, :, None], "None is no index of an array on disk: it would add an axis\n.*read first"),
    ([[True, False], [False, True]], r"a mask of shape \(2, 2\) doesn't fit"),
    (True, "True is no index"),
    ("a", "can't select that"),
    (np.s_["a":"b"], "is no slice of whole numbers"),
    (np.s_[::0], "slice step cannot be zero"),
    ((0, 0, 0, 0), "has too many indices"),
    ((..., ...), "or '...', for shape"),
]


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 2, 2)}], ids=["in one piece", "chunked"])
@pytest.mark.parametrize(("selection", "message"), WRONG, ids=[repr(wrong) for wrong, _ in WRONG])
def test_what_can_not_be_selected_is_told_as_an_index_error(stage, selection, message, options):
    dataset = SPEC.allocate(stage, shape=SHAPE, dtype="f4", **options).handle
    reads = [lambda: dataset[selection], lambda: dataset.read_direct(np.zeros(SHAPE), selection)]
    for read in reads[: 1 if selection is None else 2]:  # there None is the whole
        with pytest.raises(BadSelection, match=message) as caught:
            read()
        assert isinstance(caught.value, IndexError) and isinstance(caught.value, BadRequest)
    if not isinstance(selection, str):
        with pytest.raises(BadSelection, match=message):
            dataset[selection] = 1
    with pytest.raises(BadRequest, match="can't be written"):
        dataset[[2, 1]] = np.zeros(7)
    with pytest.raises(BadRequest, match=r"shape \(7,\) can't be written to a selection of shape \(2, 4, 3\)"):
        dataset[[1, 2]] = np.zeros(7)

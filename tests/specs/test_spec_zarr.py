"""Zarr arrays: one digest whatever the order of writes; a folder that zarr opens; lazy, checked, read-only."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

zarr = pytest.importorskip("zarr")

from pyplantx import Plant, ReactorFunc, specs  # noqa: E402
from pyplantx import errors as err  # noqa: E402
from pyplantx.errors import BadRequest, BadSelection, CannotStore, DamagedObject, WarehouseError  # noqa: E402
from pyplantx.fingerprint.value import BLOCK, array_header, combine, hash_bytes  # noqa: E402
from pyplantx.spec_tests import FolderStage, SpecTests, stored  # noqa: E402
from pyplantx.specs import masks, zarrstore, zarrthreads  # noqa: E402
from pyplantx.specs import zarr as module  # noqa: E402

SPEC = specs.ZarrArraySpec()


class TestTheContract(SpecTests):
    spec = SPEC
    inferred = False
    values = [
        np.arange(6.0).reshape(2, 3),
        np.array(2.5),
        np.zeros((0, 2), "f4"),
        np.array([True, False]),
        np.array([-0.0, np.nan, np.inf], "f2"),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([1 - 2j]),
    ]

    def same(self, sent, received):
        found = np.asarray(received)
        same_kind = found.dtype == sent.dtype and found.shape == sent.shape
        return same_kind and found.tobytes() == np.ascontiguousarray(sent).tobytes()

    def alter(self, received):
        with pytest.raises(BadRequest, match="read-only"):
            received[...] = 0
        np.asarray(received)[...] = 0


@pytest.fixture
def stage(tmp_path):
    return FolderStage(str(tmp_path))


def expected_digest(array):
    data = np.ascontiguousarray(array).tobytes()
    blocks = [hash_bytes(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    return combine(array_header(array.dtype, array.shape, "zarr"), blocks)


def test_allocate_fill_seal_receive(stage):
    allocation = SPEC.allocate(stage, shape=(6, 4), chunks=(4, 4))
    array = allocation.handle
    assert array.untouched and "writable" in repr(array) and array.shards is None and array.nbytes == 96
    array[0:2] = np.ones((2, 4))
    array[3, 1] = 5
    assert array[3].tolist() == [0, 5, 0, 0] and len(array) == 6 and not array.untouched
    written = allocation.seal()
    received = SPEC.open(stage.seal(), written.meta, 1)
    assert received.shape == (6, 4) and received.dtype == np.float32 and received.ndim == 2 and received.size == 24
    assert received[:].sum() == 13 and sum(row.sum() for row in received) == 13 and received.fillvalue == 0
    with pytest.raises(ValueError, match="without a copy"):
        received.__array__(copy=False)
    with pytest.raises(TypeError, match="no length"):
        len(SPEC.allocate(FolderStage(stage.folder + "/.."), shape=()).handle)


def test_the_folder_is_a_zarr_store_as_it_stands(stage):
    array = np.arange(60, dtype="i4").reshape(12, 5)
    allocation = SPEC.allocate(stage, shape=array.shape, dtype="i4", chunks=(5, 5), compression="zstd")
    allocation.handle[...] = array
    allocation.seal()
    assert sorted(os.listdir(stage.folder)) == ["c.0.0", "c.1.0", "c.2.0", "zarr.json"] == sorted(stage.given)
    assert np.array_equal(zarr.open_array(stage.folder, mode="r")[...], array)


def test_the_handle_reads_on_where_the_folder_is_moved_to(stage, tmp_path):
    allocation = SPEC.allocate(stage, shape=(3,), chunks=(2,))
    allocation.handle[:] = 7
    allocation.seal()
    os.rename(tmp_path, tmp_path.with_name("moved"))
    assert allocation.handle[:].tolist() == [7, 7, 7]
    with pytest.raises(BadRequest, match="read-only"):
        allocation.handle[0] = 1
    os.remove(tmp_path.with_name("moved") / "c.1")
    with pytest.raises(err.PayloadMissing, match="'c.1' of a Zarr array is gone"):
        allocation.handle[2]


def test_a_received_array_can_go_to_another_process():
    with stored(SPEC, np.arange(5.0)) as entry:
        again = pickle.loads(pickle.dumps(entry.open()))
        assert again[:].tolist() == [0, 1, 2, 3, 4]
        assert pickle.loads(pickle.dumps(again))[1] == 1


def test_an_allocated_one_can_not(stage):
    allocation = SPEC.allocate(stage, shape=(3,))
    with pytest.raises(BadRequest, match="can't be pickled"):
        pickle.dumps(allocation.handle)
    allocation.discard()


def test_arrays_of_zarr_and_received_ones_can_be_sent():
    given = zarr.create_array(zarr.storage.MemoryStore(), shape=(7,), chunks=(2,), dtype="f8")
    given[:] = np.arange(7.0)
    with stored(SPEC, given) as entry, stored(SPEC, entry.open()) as again:
        assert again.written.digest == entry.written.digest == expected_digest(np.arange(7.0))
        assert again.open().chunks == (2,)


def test_what_is_neither(stage):
    with pytest.raises(CannotStore, match="neither a NumPy nor a Zarr array"):
        SPEC.write([1, 2], stage)
    with pytest.raises(CannotStore, match="doesn't keep"):
        SPEC.write(np.array(["a"]), stage)


def test_chunks_are_chosen_or_given(stage):
    allocation = SPEC.allocate(stage, shape=(10, 20), chunks=True)
    assert allocation.handle.chunks == (10, 20)
    allocation.discard()
    with pytest.raises(BadRequest, match="leave one of them off"):
        SPEC.allocate(stage, shape=(10, 20), chunks=(2, 2), blocks=(4, 4))


def test_a_thread_that_is_missing_is_no_damage(monkeypatch):
    with stored(SPEC, np.arange(7.0)) as entry:
        array = entry.open()

        def refuse(*_):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(type(array.inner), "__getitem__", refuse)
        with pytest.raises(err.WarehouseError, match="too many") as caught:
            array[2:5]
        assert not isinstance(caught.value, DamagedObject)


# -- digests ------------------------------------------------------------------------------------

writes = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8), st.integers(0, 9), st.integers(0, 2)), max_size=6)
layouts = st.sampled_from(
    [
        {"chunks": (8, 5)},
        {"chunks": (3, 2)},
        {"chunks": (2, 1), "shards": (4, 3)},
        {"compression": "gzip", "compression_opts": 1},
        {"compression": "blosc", "compression_opts": {"cname": "lz4"}},
        {"fillvalue": -1.5},
    ]
)


@settings(max_examples=40, deadline=None)
@given(writes, layouts)
def test_the_digest_knows_neither_order_nor_layout(tmp_path_factory, plan, options):
    stage = FolderStage(str(tmp_path_factory.mktemp("zarr")))
    expected = np.full((8, 5), options.get("fillvalue", 0), "f4")
    allocation = SPEC.allocate(stage, shape=(8, 5), **options)
    for start, stop, number, way in plan:
        selection = [np.s_[start:stop], np.s_[start:stop, 1:4], np.s_[start:stop:2, ...]][way]
        value = np.full(expected[selection].shape, number, "f4")
        allocation.handle[selection] = value if number % 2 else number
        expected[selection] = number
    assert allocation.seal().digest == expected_digest(expected)


def test_large_blocks_are_hashed_as_they_pass(stage, monkeypatch):
    array = np.random.default_rng(0).random((64, BLOCK // 256))
    allocation = SPEC.allocate(stage, shape=array.shape, dtype="f8")
    for start in (32, 0, 48, 16):  # in any order
        allocation.handle.write_block((slice(start, start + 16),), array[start : start + 16])
    monkeypatch.setattr(module, "_read_back", lambda _: pytest.fail("read back without need"))
    assert allocation.seal().digest == expected_digest(array)
    part = np.s_[10:20, 5:9]
    assert np.array_equal(allocation.handle.read_block(part), array[part])


def test_an_array_whose_rows_are_too_large_is_read_back_in_parts(stage, monkeypatch):
    monkeypatch.setattr(module, "_SLAB", 100)
    array = np.arange(2400.0).reshape(4, 30, 20)
    allocation = SPEC.allocate(stage, shape=array.shape, dtype="f8", chunks=(3, 7, 20))
    allocation.handle[:, [2, 0]] = array[:, [2, 0]]
    allocation.handle[...] = array
    allocation.handle[:, [3]] = array[:, [3]]
    assert allocation.seal().digest == expected_digest(array)


def test_minus_zero_is_no_fill_value(stage):
    allocation = SPEC.allocate(stage, shape=(2,), dtype="f8")
    allocation.handle[...] = np.array([-0.0, -0.0])
    written = allocation.seal()
    assert np.signbit(SPEC.open(stage.seal(), written.meta, 1)[...]).all()


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without shape="),
        ({"shape": 4, "order": "F"}, "have order="),
        ({"shape": 4, "dtype": ">f8"}, "doesn't keep >f8"),
        ({"shape": 4, "dtype": "S3"}, r"doesn't keep \|S3"),
        ({"shape": 4, "dtype": "U3"}, "so does specs.HdfArraySpec, but for str and dates"),
        ({"shape": 4, "compression": "lzma"}, "compression='lzma' is not possible"),
        ({"shape": 4, "compression": "gzip", "compression_opts": {"speed": 1}}, "is not for 'gzip'"),
        ({"shape": 4, "compression_opts": 3}, "compression_opts=3 is given, and no compression="),
        ({"shape": (4, 4), "chunks": 4}, "one positive length per axis"),
        ({"shape": (4, 4), "chunks": (0, 4)}, "chunks=.*one whole number per axis"),
        ({"shape": (4, 4), "chunks": (2, 2), "shards": (3, 3)}, "Zarr can't keep such an array"),
        ({"shape": (100, 100), "chunks": (1, 1)}, "can't have 10,000 files"),
        ({"shape": 4, "fillvalue": "x"}, "Zarr can't keep such an array"),
    ],
)
def test_bad_options(stage, options, message):
    with pytest.raises(BadRequest, match=message):
        SPEC.allocate(stage, **options)


def test_too_little_memory_for_the_list_of_blocks_is_told_with_figures(stage, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr(module, "Watcher", no_memory)
    with pytest.raises(BadRequest, match="a Zarr array of 4,000 bytes can't be allocated: there is too little memory"):
        SPEC.allocate(stage, shape=1000)


def test_chunks_are_chosen_by_the_access(stage):
    for number, (options, expected) in enumerate(
        [({}, (1024, 4096)), ({"axis": 1}, (8192, 512)), ({"blocks": (512, 512)}, (512, 512))]
    ):
        os.mkdir(f"{stage.folder}/{number}")
        place = FolderStage(f"{stage.folder}/{number}")
        assert SPEC.allocate(place, shape=(8192, 4096), **options).handle.chunks == expected


def test_a_value_that_does_not_fit(stage):
    allocation = SPEC.allocate(stage, shape=(3, 4))
    for selection, value in [(0, np.zeros(7)), (slice(0, 2), np.zeros((3, 4))), (0, "a"), (0, [1, 2])]:
        with pytest.raises(BadRequest, match="can't be written to the Zarr array"):
            allocation.handle[selection] = value
    allocation.handle[1:] = [1, 2, 3, 4]
    assert allocation.handle[:].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [1, 2, 3, 4]]
    with pytest.raises(IndexError):
        allocation.handle[9]


class Slow:
    """Stands for zarr's array, and lets something happen while it is read: that of which the files go gives zeros."""

    def __init__(self, array, meanwhile):
        self.array, self.meanwhile = array, meanwhile

    def __getattr__(self, name):
        return getattr(self.array, name)

    def __getitem__(self, selection):
        self.meanwhile()
        return np.zeros(self.array.shape)[selection]


def test_what_is_sent_while_a_thread_reads_it_is_read_where_it_is_then(stage):
    allocation = SPEC.allocate(stage, shape=4)
    allocation.handle[:] = 5
    sent = allocation.handle.inner
    allocation.handle._array = Slow(sent, lambda: allocation.handle.settle(sent))
    assert allocation.handle[1:].tolist() == [5, 5, 5]


def test_what_goes_while_a_thread_reads_it_is_no_zeros(stage):
    allocation = SPEC.allocate(stage, shape=4)
    allocation.handle[:] = 5
    allocation.handle._array = Slow(allocation.handle.inner, allocation.discard)
    with pytest.raises(WarehouseError, match="is gone with the reactor"):
        allocation.handle[1:]


MASK, MASK_2D = np.array([True, False, True]), np.arange(12).reshape(3, 4) % 5 == 0
SELECTIONS = [
    *(MASK_2D, (MASK, slice(None)), (MASK, ...), (..., [1, 3]), ([0, 2], slice(1, 3)), [2, 0], ([0, 2], [1, 3])),
    *((1, [0, 3]), (slice(None), [True, False, False, True]), np.int64(2), np.array([1, 2]), MASK),
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_values_of_lists_and_masks_must_fit(selection, stage):
    array, plain = SPEC.allocate(stage, shape=(3, 4), dtype="f8", chunks=(2, 2)).handle, np.zeros((3, 4))
    value = np.arange(1.0, 1 + plain[selection].size).reshape(plain[selection].shape)
    for wrong in (np.zeros((len(value) + 1, *value.shape[1:])), np.zeros((2, 3, 5))):
        with pytest.raises(BadRequest, match="can't be written to the Zarr array"):
            array[selection] = wrong
    array[selection] = plain[selection] = value
    assert np.array_equal(array[...], plain) and np.array_equal(array[selection], value)
    array[selection] = plain[selection] = 7
    assert np.array_equal(array[...], plain)


def test_a_folder_is_closed_at_the_end_of_the_interpreter(tmp_path, monkeypatch):
    """Modules that it was written with may be gone by then."""
    folder = zarrstore.Folder(str(tmp_path))
    fd, present = folder._fd, os.fstat
    monkeypatch.setattr(zarrstore, "os", None)
    folder.__del__()
    folder._fd = -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        present(fd)


@pytest.mark.parametrize(
    "selection", [(MASK, 9), (MASK, MASK), (MASK_2D.T, ...), (MASK, ..., 0, 0), (..., [1], ...)], ids=str
)
def test_wrong_indices_are_no_damage(selection):
    with stored(SPEC, np.zeros((3, 4))) as entry, pytest.raises(IndexError):
        entry.open()[selection]


SHAPE = (7, 6, 5)
ODD = np.arange(7) % 2 == 1
AS_IN_NUMPY = [
    *(np.s_[::-1], np.s_[::-2, 1], np.s_[[1, 2], ::-1], np.s_[ODD, ::-1], np.s_[[5, 1, 1]], np.s_[:, [[3, 0], [0, 3]]]),
    *(np.s_[[-1, -2], ::2], np.s_[..., [1, 0]], np.s_[1, 2, [0, 3]], np.s_[range(3)], np.s_[(1, 2), 3], np.s_[[]]),
    *(np.s_[np.array(3)], np.s_[ODD], np.arange(210).reshape(SHAPE) % 3 == 0, np.s_[[6, 0, 6], [1, 5, 1], [0, 4, 0]]),
    *(np.s_[[[6], [0]], 5, [0, 4]], np.zeros(SHAPE, bool), np.s_[ODD, 0, ::3], np.s_[[0, 1, 5], 1:5, 4:0:-2]),
]


@pytest.mark.parametrize("shards", [None, (6, 4, 6)], ids=["chunks", "shards"])
@pytest.mark.parametrize("selection", AS_IN_NUMPY, ids=str)
def test_an_array_is_indexed_as_numpy_would(selection, shards, stage):
    """Zarr knows no slices that run backwards; into shards it does not write by lists."""
    array, plain = SPEC.allocate(stage, shape=SHAPE, dtype="i4", chunks=(3, 2, 3), shards=shards).handle, np.ones(SHAPE)
    array[...] = plain[...] = np.arange(plain.size).reshape(SHAPE)
    assert np.array_equal(array[selection], plain[selection])
    array[selection] = plain[selection] = -np.arange(plain[selection].size).reshape(plain[selection].shape)
    assert np.array_equal(array[...], plain)
    array[selection] = plain[selection] = 7
    assert np.array_equal(array[...], plain)


@pytest.mark.parametrize("options", [{}, {"chunks": (2,), "shards": (4,)}], ids=["chunks", "shards"])
def test_a_mask_of_one_axis_is_written_by(options, stage):
    array, plain = SPEC.allocate(stage, shape=(7,), dtype="i4", **options).handle, np.zeros(7)
    array[ODD] = plain[ODD] = [1, 3, 5]
    assert np.array_equal(array[...], plain)


@pytest.mark.parametrize("mask", [MASK_2D.tolist(), (..., MASK_2D), (MASK_2D, ...)], ids=["lists", "last", "first"])
def test_a_mask_may_be_lists_or_have_dots_beside_it(mask, stage):
    array, plain = SPEC.allocate(stage, shape=(3, 4), dtype="i4", chunks=(2, 2)).handle, np.arange(12).reshape(3, 4)
    array[...] = plain
    assert np.array_equal(array[mask], plain[MASK_2D])
    array[mask] = plain[MASK_2D] = 7
    assert np.array_equal(array[...], plain)


def test_an_array_without_an_axis_has_no_mask(stage):
    array = SPEC.allocate(stage, shape=(), dtype="i4").handle
    with pytest.raises(BadSelection, match="too many indices"):
        array[np.array(True)]


@pytest.mark.parametrize("selection", [np.s_[[]], np.s_[::-1], np.zeros(0, bool)], ids=str)
def test_to_an_empty_array_nothing_is_written(selection, stage):
    allocation = SPEC.allocate(stage, shape=(0,), dtype="i4")
    allocation.handle[selection] = 7
    assert allocation.seal().digest == expected_digest(np.zeros(0, "i4"))


@pytest.mark.parametrize(
    "selection",
    [np.s_[[1, 2], :, [3, 4]], np.s_[ODD, [1, 2, 3]], np.s_[[1, 2], [3]], np.s_[[1, 2], [1, 2, 3], [0, 1]], None, "a"],
    ids=str,
)
def test_what_zarr_would_take_in_its_own_sense_is_refused(selection):
    with stored(SPEC, np.zeros(SHAPE)) as entry, pytest.raises(BadSelection):
        entry.open()[selection]


def test_a_mask_does_not_vanish(stage):
    masked = np.ma.array([1.0, -999.0, 3.0], mask=[False, True, False])
    with pytest.raises(CannotStore, match="masked array, and a Zarr array has no mask"):
        SPEC.write(masked, stage)
    array = SPEC.allocate(stage, shape=(3,)).handle
    with pytest.raises(BadRequest, match="no mask"):
        array[:] = masked
    assert array.untouched
    array[:2] = masked[::2]
    assert array[...].tolist() == [1, 3, 0]


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        (np.ma.array([1, 2]), False),
        (np.ma.array([1, 2], mask=[False, False]), False),
        (np.ma.array(1, mask=True), True),
        (np.ma.array([(1, 2)], dtype="i4,i4", mask=[(False, True)]), True),
        (np.ma.array([(1, 2)], dtype="i4,i4", mask=[(False, False)]), False),
        (np.ma.masked, True),
        (np.array([1]), False),
        (1, False),
    ],
)
def test_what_hides_elements(value, hidden):
    assert masks.hides_elements(value) is hidden


def test_a_full_disk_is_named(stage, monkeypatch):
    allocation = SPEC.allocate(stage, shape=(3, 4))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(allocation.handle.inner), "__setitem__", full)
    with pytest.raises(err.WarehouseFull, match="No space left"):
        allocation.handle[0] = 1


@pytest.mark.parametrize(
    ("error", "told", "match"),
    [
        (OSError(errno.EIO, "Input/output error"), err.WarehouseError, "can't be written to: Input/output error"),
        (RuntimeError("can't start new thread"), err.WarehouseError, "zarr can't write the array"),
        (MemoryError("no room"), MemoryError, "no room"),
    ],
)
def test_a_write_that_the_system_refuses_is_the_last(stage, monkeypatch, error, told, match):
    """zarr's threads may still be writing other chunks: what the array will be can't be known."""
    allocation = SPEC.allocate(stage, shape=(3, 4))

    def refuse(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(allocation.handle.inner), "__setitem__", refuse)
        with pytest.raises(told, match=match):
            allocation.handle[0] = 1
    for act in (lambda: allocation.handle.__setitem__(0, 1), allocation.seal):
        with pytest.raises(told, match=match):
            act()


def test_memory_for_the_threads_of_zarr_is_asked_for(stage, monkeypatch):
    """A thread that has none for its first lines is waited for for ever."""
    allocation = SPEC.allocate(stage, shape=(1000, 100), dtype="f8", chunks=(500, 100))
    asked = []

    def refuse(nbytes, purpose):
        asked.append(nbytes)
        raise MemoryError(f"{purpose} needs more")

    with monkeypatch.context() as patch:
        patch.setattr(zarrthreads, "is_memory_limited", lambda: True)
        patch.setattr(zarrthreads, "ask_for_memory", refuse)
        for act in (lambda: allocation.handle[0], lambda: allocation.handle.__setitem__(0, 1)):
            with pytest.raises(MemoryError, match="zarr needs more"):
                act()
        with pytest.raises(MemoryError):
            SPEC.allocate(stage, shape=3)
    assert asked[0] == asked[1] >= asked[2] + 500 * 100 * 8
    allocation.handle[0] = 1
    allocation.seal()


def test_an_interrupt_waits_for_the_end_of_a_write(stage, monkeypatch):
    allocation = SPEC.allocate(stage, shape=(3, 4))
    kind = type(allocation.handle.inner)
    write = kind.__setitem__

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "__setitem__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            allocation.handle[0] = 1
    allocation.handle[1] = 2
    assert allocation.handle[:].tolist() == [[1] * 4, [2] * 4, [0] * 4]
    allocation.seal()


def test_a_missing_library_is_named(stage, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(err.MissingLibrary, match="needs the package 'zarr'"):
        SPEC.allocate(stage, shape=3)


def test_inference_imports_nothing():
    code = (
        "import sys, numpy; from pyplantx import specs; r = specs.SpecRegistry(); r.infer(numpy.zeros(3)); r.infer({})"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('zarr' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


# -- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"chunks": (2,), "shards": (4,)}])
def test_a_chunk_that_can_not_be_decoded_is_refused_when_it_is_read(stage, options):
    allocation = SPEC.allocate(stage, shape=(8,), **{"chunks": (4,), **options})
    allocation.handle[:] = np.arange(8)
    written = allocation.seal()
    with open(stage.folder + "/c.1", "wb") as file:
        file.write(b"\xff\xff\xff")
    received = SPEC.open(stage.seal(), written.meta, 1)
    assert received[:4].tolist() == [0, 1, 2, 3]
    with pytest.raises(DamagedObject, match="can't be read"):
        received[4:]


# -- in a plant ---------------------------------------------------------------------------------


@ReactorFunc
def produce(pipe):
    array = pipe.allocate("volume", specs.ZarrArraySpec, shape=(600, 1000), dtype="f8", chunks=(200, 1000))
    for start in range(0, 600, 200):
        array[start : start + 200] = start
    pipe.send("volume", array)


@ReactorFunc
def consume(pipe):
    volume = yield pipe.receive("volume")
    pipe.send("total", float(volume[:].sum()))


def test_a_plant_stores_gives_back_and_notices_damage(tmp_path):
    with Plant(tmp_path) as plant:
        plant.add_reactors(produce, consume)
        assert plant.produce("total") == 120_000_000.0
    damaged = next(path for path in tmp_path.glob("objects/*/*/c.1.0"))
    damaged.chmod(0o600)
    content = bytearray(damaged.read_bytes())
    content[12345] ^= 1
    damaged.write_bytes(content)
    with Plant(tmp_path) as plant:
        plant.add_reactors(produce, consume)
        volume = plant.fetch_ingredient("volume")
        assert volume[5, 5] == 0
        with pytest.raises(DamagedObject):
            volume[300]


def test_an_array_that_was_collected_says_so(tmp_path):
    @ReactorFunc(name="make_versions")
    def make(pipe, config):
        pipe.send("field", np.full((30, 30), float(config["version"])), specs.ZarrArraySpec)

    def produced(version):
        with Plant(tmp_path / "plant", durability="process", config={"version": version}) as plant:
            plant.add_reactors(make)
            return plant.produce("field")

    held, now = produced(1), produced(2)
    again = pickle.loads(pickle.dumps(held))
    with Plant(tmp_path / "plant", durability="process") as plant:
        assert plant.gc(keep_versions=1).gone
    for array in (held, again):
        with pytest.raises(err.PayloadMissing, match="collected while it was held") as caught:
            array[0]
        assert "plant.pin" in caught.value.hint
    assert now[0, 0] == 2


@pytest.mark.parametrize("options", [{}, {"shards": (100, 10)}], ids=["chunks", "shards"])
def test_what_is_gone_leaves_no_tasks_of_zarr_behind(tmp_path, options, caplog):
    """They would go on, each with an error of its own, and asyncio would complain of them at the end."""

    @ReactorFunc(name="make_small_chunks")
    def make(pipe):
        array = pipe.allocate("field", specs.ZarrArraySpec, shape=(2000, 10), dtype="f8", chunks=(1, 10), **options)
        array[...] = np.ones((2000, 10))
        pipe.send("field", array)

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(make)
        field = plant.produce("field")
    assert field[...].sum() == 20_000
    for part in tmp_path.glob("plant/objects/*/*/c.*.0"):
        part.unlink()
    for _ in range(2):
        with pytest.raises(err.PayloadMissing):
            field[...]
        assert not [task for task in asyncio.all_tasks(zarr.core.sync.loop[0]) if not task.done()]
    assert len(caplog.records) < 100
    with pytest.raises(err.PayloadMissing):
        next(iter(field))


def test_the_head_is_plain_json(stage):
    SPEC.allocate(stage, shape=(8,), chunks=(4,)).seal()
    with open(stage.folder + "/zarr.json") as file:
        assert json.load(file)["chunk_key_encoding"]["configuration"] == {"separator": "."}


def test_damage_to_a_small_array_is_found_when_it_is_opened(tmp_path):
    ran = []

    @ReactorFunc(sends="small_tiles")
    def make_small_tiles(pipe):
        ran.append(1)
        tiles = pipe.allocate("small_tiles", SPEC, shape=(4, 50), dtype="i8", chunks=(2, 50))
        tiles[...] = np.arange(200).reshape(4, 50)
        pipe.send("small_tiles", tiles)

    def produced():
        with Plant(tmp_path) as plant:
            plant.add_reactor(make_small_tiles)
            return plant.produce("small_tiles")[...].sum()

    assert produced() == 19900
    (chunk,) = tmp_path.glob("objects/*/*/c.1.0")
    os.chmod(chunk, 0o600)
    os.truncate(chunk, 8)
    assert produced() == 19900 and len(ran) == 2


def test_an_answer_that_never_comes_is_an_error(stage, monkeypatch):
    """Zarr waits for ever for a thread whose answer got lost; what is written then is void."""
    allocation = SPEC.allocate(stage, shape=(10, 10), dtype="f8")
    allocation.handle[0] = 1
    never = threading.Event()
    monkeypatch.setattr(zarrthreads, "PATIENCE", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(type(allocation.handle.inner), "__getitem__", lambda *_: never.wait())
        with pytest.raises(WarehouseError, match="zarr has given no answer for 0 s"):
            allocation.handle[0]
    assert (allocation.handle[0] == 1).all()
    with monkeypatch.context() as patch:
        patch.setattr(type(allocation.handle.inner), "__setitem__", lambda *_: never.wait())
        with pytest.raises(WarehouseError, match="no answer"):
            allocation.handle[1] = 2
    with pytest.raises(WarehouseError, match="no answer"):
        allocation.handle[1] = 3
    never.set()
    allocation.discard()

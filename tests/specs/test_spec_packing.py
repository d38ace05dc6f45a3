"""Chunks packed outside of HDF5: the same bytes, the same elements, readable by h5py, and the other way round."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, MissingLibrary, WarehouseFull
from pyplantx.fingerprint.value import BlockHasher, block_size
from pyplantx.spec_tests import FolderStage, stored
from pyplantx.specs import filters, packing
from pyplantx.specs.library import StagedView
from pyplantx.specs.rawfile import RawFile
from pyplantx.specs.selections import parse

SPEC = specs.HdfArraySpec()
PLUGINS = ("blosc2", "zstd", "lz4", "bitshuffle")
PACKINGS = [
    pytest.param(*packing, id=f"{packing[0]}-{packing[2]}")
    for packing in [
        *(("gzip", 1, None), ("gzip", 4, True), ("zstd", 1, True)),
        *((name, None, None) for name in PLUGINS),
    ]
]


class StagedFile:
    """An HDF5 file that is being made."""

    def __init__(self, path):
        self.view = StagedView(RawFile(str(path), writable=True, new=True))
        self.hdf5 = h5py.File(self.view, "w", libver=("v110", "v110"))

    def close(self):
        self.hdf5.close()
        self.view.complete()


def packed(path, shape, dtype="f4", compression="gzip", options=1, shuffle=None, **more):
    """(file, dataset, writer) of a fresh dataset; skips where the compression's library is missing."""
    if compression in PLUGINS:
        pytest.importorskip("hdf5plugin")
    file = StagedFile(path)
    dataset = file.hdf5.create_dataset("data", shape, dtype, **filters.settings(compression, options, shuffle), **more)
    known = packing.packing_of(dataset, packs=True)
    assert known is not None
    return file, dataset, packing.PackedWriter(known, dataset, file.view)


def sealed(path):
    """(file, array) of a closed file, read by the places of its chunks, with every fetched range noted."""
    file = h5py.File(path, "r")
    dataset = file["data"]
    with open(path, "rb") as raw:
        content = raw.read()
    table = packing.ChunkTable(dataset, len(content), lambda start, size: content[start : start + size])
    return file, packing.PackedArray(packing.packing_of(dataset, packs=False), dataset.shape, table)


def select(selection, shape):
    found = parse(selection, shape)
    assert found is not None
    return found


def digest_of(array):
    with stored(SPEC, array) as entry:
        return entry.written.digest


def noise(shape, dtype="f4"):
    return (np.random.default_rng(1).random(shape) * 100).round(1).astype(dtype)


# -- both directions ----------------------------------------------------------------------------


@pytest.mark.parametrize(("compression", "options", "shuffle"), PACKINGS)
def test_h5py_reads_what_is_written_here_and_the_bytes_are_its_own(tmp_path, compression, options, shuffle):
    array = noise((70, 33))
    file, dataset, writer = packed(
        tmp_path / "ours.h5", array.shape, "f4", compression, options, shuffle, chunks=(16, 33)
    )
    writer.write(select(np.s_[:], array.shape), array)
    writer.flush()
    writer.close()
    theirs = h5py.File(tmp_path / "theirs.h5", "w", libver=("v110", "v110"))
    kept = theirs.create_dataset("data", data=array, chunks=(16, 33), **filters.settings(compression, options, shuffle))
    theirs.flush()
    for start in range(0, 70, 16):
        assert dataset.id.read_direct_chunk((start, 0)) == kept.id.read_direct_chunk((start, 0))
    file.close()
    theirs.close()
    with h5py.File(tmp_path / "ours.h5") as again:
        assert np.array_equal(again["data"][()], array)


@pytest.mark.parametrize(("compression", "options", "shuffle"), [*PACKINGS, ("lzf", None, None), ("lzf", None, True)])
def test_what_h5py_wrote_is_read_here(tmp_path, compression, options, shuffle):
    if compression in PLUGINS:
        pytest.importorskip("hdf5plugin")
    array = noise((70, 33), "<i2")
    array[16:32] = np.random.default_rng(1).integers(-32768, 32767, (16, 33))  # gets no smaller
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=array, chunks=(16, 10), **filters.settings(compression, options, shuffle))
    file, reader = sealed(tmp_path / "x.h5")
    for selection in (np.s_[:], np.s_[5], np.s_[-1, 3], np.s_[3:60:7, ..., 2:31:3], np.s_[20:20], np.s_[:, 32]):
        assert np.array_equal(reader.read(select(selection, array.shape)), array[selection])
    file.close()


@pytest.mark.parametrize("shuffle", [None, True])
@pytest.mark.parametrize("compression", ["gzip", *PLUGINS])
def test_chunks_that_get_no_smaller_are_kept_as_h5py_keeps_them(tmp_path, compression, shuffle):
    array = np.random.default_rng(1).integers(0, 256, (32, 1000), "u1")
    array[8:16] = 7  # one chunk of four gets smaller
    file, dataset, writer = packed(
        tmp_path / "ours.h5", array.shape, "u1", compression, None, shuffle, chunks=(8, 1000)
    )
    writer.write(select(np.s_[:], array.shape), array)
    assert np.array_equal(writer.read(select(np.s_[:], array.shape)), array)
    writer.flush()
    theirs = h5py.File(tmp_path / "theirs.h5", "w", libver=("v110", "v110"))
    kept = theirs.create_dataset("data", data=array, chunks=(8, 1000), **filters.settings(compression, None, shuffle))
    theirs.flush()
    for start in range(0, 32, 8):
        assert dataset.id.read_direct_chunk((start, 0)) == kept.id.read_direct_chunk((start, 0))
    writer.close()
    file.close()
    theirs.close()
    with h5py.File(tmp_path / "ours.h5") as again:
        assert np.array_equal(again["data"][()], array)


def test_lzf_is_unpacked_here_if_h5py_lets_us(tmp_path, monkeypatch):
    """To pack with it takes more stack than a thread may have."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("data", (4, 4), "f4", compression="lzf")
        assert packing.packing_of(dataset, packs=True) is None
        assert packing.packing_of(dataset, packs=False) is not None
        monkeypatch.setattr(filters, "_lzf", lambda: None)
        assert packing.packing_of(dataset, packs=False) is None


@pytest.mark.parametrize("dtype", [">f8", "<c8", "?", "S3", "<f2", ">i2", "u1"])
def test_every_plain_dtype(tmp_path, dtype):
    array = noise((9, 5)).astype(dtype)
    file, dataset, writer = packed(tmp_path / "x.h5", array.shape, dtype, shuffle=True, chunks=(4, 3))
    writer.write(select(np.s_[:7], array.shape), array[:7])
    assert np.array_equal(writer.read(select(np.s_[:7], array.shape)), array[:7])
    writer.flush()
    assert np.array_equal(dataset[:7], array[:7]) and dataset.dtype == array.dtype
    writer.close()
    file.close()


@pytest.mark.parametrize(
    "options",
    [
        {"fletcher32": True, "compression": "gzip"},
        {"scaleoffset": 2, "dtype": "i4"},
        {"chunks": (2, 2)},
        {},
        {"compression": "gzip", "dtype": [("a", "i1"), ("b", "f8")]},
        {"compression": "gzip", "dtype": "longdouble"},
        {"compression": "gzip", "dtype": h5py.string_dtype()},
    ],
    ids=str,
)
def test_what_only_hdf5_can_pack_is_left_to_it(tmp_path, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("data", (4, 4), **{"dtype": "f4", **options})
        assert packing.packing_of(dataset, packs=True) is None
        assert packing.packing_of(dataset, packs=False) is None


# -- any order of writes ------------------------------------------------------------------------

spans = st.tuples(st.integers(0, 11), st.integers(0, 12), st.integers(1, 3))
steps = st.tuples(st.sampled_from("write read shrink grow h5py flush".split()), spans, spans, st.integers(1, 9))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(steps, max_size=12),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([1, 200, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
def test_any_program_does_what_numpy_does(tmp_path_factory, program, chunks, limit, shuffle, alone):
    path = tmp_path_factory.mktemp("packing") / "x.h5"
    options = {"maxshape": (None, 12), "fillvalue": -3, "chunks": chunks}
    file, dataset, writer = packed(path, (10, 12), "i4", shuffle=shuffle, **options)
    writer = packing.PackedWriter(writer._known, dataset, writer._staged, limit=limit)
    writer._alone = alone
    expected = np.full((10, 12), -3, "i4")
    for kind, rows, columns, number in program:
        selection = (slice(*rows), slice(*columns))
        expected = take_step(kind, writer, dataset, expected, selection, number)
    assert np.array_equal(writer.read(select(..., expected.shape)), expected)
    writer.flush()
    writer.close()
    assert np.array_equal(dataset[()], expected)
    file.close()
    file, reader = sealed(path)
    hasher = BlockHasher(block_size(4))
    hasher.update(expected.tobytes())
    assert reader.digests() == hasher.digests()
    file.close()


def take_step(kind, writer, dataset, expected, selection, number):
    if kind == "read":
        assert np.array_equal(writer.read(select(selection, expected.shape)), expected[selection])
    elif kind == "write":
        count = expected[selection].size
        value = np.arange(count, dtype="i4").reshape(expected[selection].shape) * number
        writer.write(select(selection, expected.shape), value if number > 2 else np.int32(number))
        expected[selection] = value if number > 2 else number
    elif kind == "h5py":
        writer.flush()
        with writer.altered_by_hdf5():
            dataset[selection] = number
        expected[selection] = number
    elif kind == "flush":
        writer.flush()
    else:
        rows = max(0, len(expected) + (number if kind == "grow" else -number))
        writer.resize(rows, axis=0)
        grown = np.full((rows, 12), -3, "i4")
        both = min(rows, len(expected))
        grown[:both] = expected[:both]
        return grown
    return expected


def test_slabs_that_share_chunks_pack_each_chunk_once(tmp_path, monkeypatch):
    array = noise((100, 8))
    file, dataset, writer = packed(tmp_path / "x.h5", array.shape, chunks=(16, 4))
    monkeypatch.setattr(writer._known.pipeline, "unpack", lambda *_: pytest.fail("unpacked without need"))
    stored = []
    original = writer._pack
    monkeypatch.setattr(writer, "_pack", lambda chunk, data: (stored.append(chunk), original(chunk, data)))
    for start in range(0, 100, 7):
        writer.write(select(np.s_[start : start + 7], array.shape), array[start : start + 7])
    writer.flush()
    assert sorted(stored) == [(row, column) for row in range(7) for column in range(2)]
    assert np.array_equal(dataset[()], array)
    writer.close()
    file.close()


def test_rows_that_are_appended_one_by_one_pack_each_chunk_once(tmp_path, monkeypatch):
    file, dataset, writer = packed(tmp_path / "x.h5", (0, 3), "f8", chunks=(4, 3), maxshape=(None, 3))
    stored = []
    original = writer._pack
    monkeypatch.setattr(writer, "_pack", lambda chunk, data: (stored.append(chunk), original(chunk, data)))
    for row in range(10):
        writer.resize(row + 1, axis=0)
        writer.write(select(row, writer.shape), np.full(3, row))
    writer.flush()
    assert sorted(stored) == [(0, 0), (1, 0), (2, 0)]
    assert dataset[:, 0].tolist() == list(range(10))
    writer.close()
    file.close()


def test_reading_touches_only_the_chunks_that_are_selected(tmp_path):
    array = noise((64, 8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=array, chunks=(8, 8), compression="gzip")
    file, reader = sealed(tmp_path / "x.h5")
    loaded = []
    load = reader._load
    reader._load = lambda chunk: (loaded.append(chunk), load(chunk))[1]
    for row in range(10, 20):
        assert np.array_equal(reader.read(select(row, array.shape)), array[row])
    assert loaded == [(1, 0), (2, 0)]
    file.close()


def test_several_threads_write_and_read_one_dataset(tmp_path):
    array = noise((96, 40))
    file, dataset, writer = packed(tmp_path / "x.h5", array.shape, chunks=(10, 7))
    wrong = []

    def work(offset):
        for start in range(offset, 96, 12):
            rows = np.s_[start : start + 4]
            writer.write(select(rows, array.shape), array[rows])
            if not np.array_equal(writer.read(select(rows, array.shape)), array[rows]):
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 4, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    assert wrong == [] and np.array_equal(dataset[()], array)
    writer.close()
    file.close()


# -- trouble ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 2])
def test_an_error_is_raised_and_never_forgotten(tmp_path, monkeypatch, cores):
    monkeypatch.setattr(packing, "_cores", lambda: cores)
    file, dataset, writer = packed(tmp_path / "x.h5", (8, 4), chunks=(2, 4))

    def refuse(chunk, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_pack", refuse)
    with contextlib.suppress(OSError):  # with one core at once, else later
        writer.write(select(np.s_[0:2], (8, 4)), np.ones((2, 4), "f4"))
    for action in (writer.flush, writer.flush, lambda: writer.write(select(0, (8, 4)), np.ones(4, "f4"))):
        with pytest.raises(OSError, match="No space left"):
            action()
    writer.close()
    file.close()


@pytest.mark.parametrize(("compression", "options", "shuffle"), PACKINGS)
def test_a_damaged_chunk_is_refused(tmp_path, compression, options, shuffle):
    if compression in PLUGINS:
        pytest.importorskip("hdf5plugin")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data", data=noise((64, 64)), chunks=(64, 64), **filters.settings(compression, options, shuffle)
        )
        place = data.id.get_chunk_info(0)
    file = h5py.File(path, "r")
    table = packing.ChunkTable(file["data"], os.path.getsize(path), lambda start, size: b"\xff" * min(size, 9))
    assert place.size > 9
    reader = packing.PackedArray(packing.packing_of(file["data"], packs=False), (64, 64), table)
    with pytest.raises(DamagedObject, match="can't be unpacked"):
        reader.read(select(..., (64, 64)))
    with pytest.raises(DamagedObject, match="shorter than its chunks"):
        packing.ChunkTable(file["data"], place.byte_offset + 5, table)
    file.close()


def test_want_of_memory_is_no_damage(tmp_path, monkeypatch):
    """Else a sound file would be put aside, and made again."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data", data=noise((64, 64)), chunks=(64, 64), compression="lzf")
        reader = packing.PackedArray(
            packing.packing_of(file["data"], packs=False), (64, 64), lambda chunk: (0, bytes(1000))
        )
    calls = []

    def without_memory(*arguments):
        calls.append(arguments)
        monkeypatch.setattr(filters, "Room", refuse)
        return b""

    def refuse(nbytes):
        raise MemoryError(nbytes)

    monkeypatch.setattr(filters, "_run", without_memory)
    with pytest.raises(MemoryError):
        reader.read(select(..., (64, 64)))
    assert len(calls) == 1
    monkeypatch.undo()
    answers = iter([b"", bytes(64 * 64 * 4)])
    monkeypatch.setattr(filters, "_run", lambda *_: next(answers))
    assert not reader.read(select(..., (64, 64))).any()


def test_a_stream_without_memory_is_no_damage(monkeypatch):
    import zlib

    class Inflating:
        def decompress(self, *_):
            raise zlib.error("Error -4 while decompressing data")

    monkeypatch.setattr(zlib, "decompressobj", Inflating)
    pipeline = filters.pipeline([(filters.DEFLATE, 0, (4,))], 100)
    assert pipeline is not None
    with pytest.raises(MemoryError):
        pipeline.unpack(0, b"x")


def test_a_stream_that_goes_on_is_not_followed():
    import zlib

    bomb = zlib.compress(bytes(10_000_000))
    pipeline = filters.pipeline([(filters.DEFLATE, 0, (4,))], 100)
    assert pipeline is not None and bytes(pipeline.unpack(0, bomb)) == bytes(100)
    with pytest.raises(DamagedObject, match="instead of 100"):
        pipeline.unpack(0, zlib.compress(bytes(50)))


def test_chunks_that_a_filter_can_not_pack_are_kept_or_refused():
    never = filters.Filter(lambda data: None, lambda data, _: data, optional=True)
    assert filters.Pipeline([never], 3).pack(b"abc") == (1, b"abc")
    assert filters.Pipeline([never], 3).unpack(1, b"abc") == b"abc"
    with pytest.raises(CannotStore, match="can't be packed"):
        filters.Pipeline([never._replace(optional=False)], 3).pack(b"abc")


@pytest.mark.parametrize("width", [1, 2, 3, 8, 200])
def test_shuffling_and_back(width):
    data = bytes(range(100))
    pipeline = filters.pipeline([(filters.SHUFFLE, 0, (width,))], 100)
    assert pipeline is not None
    assert bytes(pipeline.unpack(*pipeline.pack(data))) == data


@pytest.mark.parametrize("name", PLUGINS)
def test_a_missing_library_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(MissingLibrary, match="needs the package 'hdf5plugin'") as caught:
        filters.settings(name)
    assert caught.value.hint == "pip install hdf5plugin"
    with pytest.raises(MissingLibrary, match=f"packed with {name}"):
        filters.require([filters.DEFLATE, filters._NAMES[name]])
    filters.require(filters.BUILT_IN)


@pytest.mark.parametrize(
    ("name", "options"), [("zstd", {"speed": 3}), ("zstd", 99), ("blosc2", {"cname": "best"}), ("lz4", "much")]
)
def test_options_that_a_plug_in_does_not_have(name, options):
    pytest.importorskip("hdf5plugin")
    with pytest.raises(BadRequest, match="compression_opts="):
        filters.settings(name, options)


def test_an_unknown_compression_is_refused_with_the_known_ones():
    with pytest.raises(BadRequest, match="'gzip', 'lzf', 'lz4', 'bitshuffle', 'zstd', 'blosc2'"):
        filters.settings("zip")


# -- through HdfArraySpec -----------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path):
    return FolderStage(str(tmp_path))


@pytest.mark.parametrize("compression", [*PLUGINS, "gzip", "lzf"])
def test_every_compression_gives_back_what_was_written_with_one_digest(stage, compression):
    if compression in PLUGINS:
        pytest.importorskip("hdf5plugin")
    array = noise((50, 40))
    with stored(SPEC, array) as plain:
        expected = plain.written.digest
    allocation = SPEC.allocate(stage, shape=array.shape, dtype="f4", compression=compression, chunks=(8, 16))
    for start in (40, 0, 20):
        allocation.handle[start : start + 20] = array[start : start + 20]
    allocation.handle[5, [1, 3]] = array[5, [1, 3]]
    assert np.array_equal(allocation.handle[3:30:2, 5], array[3:30:2, 5])
    written = allocation.seal()
    assert written.digest == expected and np.array_equal(allocation.handle[...], array)
    received = SPEC.open(stage.seal(), written.meta, 1)
    assert np.array_equal(received[...], array) and np.array_equal(received[[2, 9]], array[[2, 9]])
    assert received[7, 7] == array[7, 7] and received[-1].shape == (40,)
    assert received.compression == compression
    with stored(SPEC, received) as sent_on:
        assert sent_on.written.digest == expected and sent_on.open().compression == compression
    again = pickle.loads(pickle.dumps(received))
    assert np.array_equal(again[10:20], array[10:20])
    with h5py.File(stage.path("data.h5"), "r") as file:
        assert np.array_equal(file["data"][()], array)
        with stored(SPEC, file["data"]) as sent:
            assert sent.written.digest == expected and sent.open().compression == compression


def test_unusual_values_are_written_as_h5py_does(stage):
    allocation = SPEC.allocate(stage, shape=(4, 3), dtype="u1", compression="gzip")
    handle = allocation.handle
    handle[0] = np.array([300.0, -5.0, 7.9])  # HDF5 clips
    handle[1] = [1, 2, 3]
    handle[2] = np.array([[4, 5, 6]])
    handle[3, 1] = 9
    with pytest.raises(BadRequest, match="can't be written"):
        handle[0] = np.zeros(7)
    assert handle[:].tolist() == [[255, 0, 7], [1, 2, 3], [4, 5, 6], [0, 9, 0]]
    target = np.zeros((2, 3), "u1")
    handle.read_direct(target, np.s_[1:3])
    assert target.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert allocation.seal().digest == digest_of(handle[:])


def test_appending_in_pieces_that_are_not_chunks(stage):
    array = noise((1000, 3), "f8")
    allocation = SPEC.allocate(stage, shape=(0, 3), dtype="f8", maxshape=(None, 3), compression="gzip", chunks=(64, 3))
    for start in range(0, 1000, 37):
        piece = array[start : start + 37]
        allocation.handle.resize(start + len(piece), axis=0)
        allocation.handle[start:] = piece
    assert allocation.seal().digest == digest_of(array)
    assert np.array_equal(allocation.handle[:], array)


@pytest.mark.parametrize("maxshape", [(8, None), (20, None), (None, 20), (None, None), (20, 30)])
@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_arrays_that_grow_along_any_axis_are_read_as_they_were_written(stage, compression, maxshape):
    array = noise((7, 10), "i4")
    allocation = SPEC.allocate(
        stage, shape=(7, 4), dtype="i4", maxshape=maxshape, chunks=(2, 3), compression=compression, fillvalue=5
    )
    allocation.handle[:, :4] = array[:, :4]
    allocation.handle.resize(10, axis=1)
    allocation.handle[:, 4:7] = array[:, 4:7]
    array[:, 7:] = 5  # never written: the last chunks are not there
    written = allocation.seal()
    assert written.digest == digest_of(array)
    received = SPEC.open(stage.seal(), written.meta, SPEC.version)
    for dataset in (allocation.handle, received):
        assert np.array_equal(dataset[...], array) and np.array_equal(dataset[3:6, 2:9], array[3:6, 2:9])
    received.backend.close()


def test_what_is_sent_while_a_thread_reads_it(stage, monkeypatch):
    allocation = SPEC.allocate(stage, shape=(4, 4), chunks=(2, 2), compression="gzip")
    allocation.handle[...] = 5
    writing = allocation.handle.backend._array
    read = writing.read

    def read_late(region):
        allocation.seal()
        return read(region)

    monkeypatch.setattr(writing, "read", read_late)
    assert allocation.handle[1].tolist() == [5, 5, 5, 5]


def test_an_array_without_axes_is_written_to_one_element(stage):
    allocation = SPEC.allocate(stage, shape=(2, 3), dtype="i4", compression="gzip")
    for value in (np.array(5, "i8"), np.array(5.5), np.array(5, ">i4")):
        allocation.handle[1, 2] = value
        assert allocation.handle[1, 2] == 5
        allocation.handle[1, 2] = 0
    allocation.discard()


def test_an_array_that_grows_along_the_last_axis_and_was_never_written(stage):
    allocation = SPEC.allocate(stage, shape=(2, 3), maxshape=(2, None), chunks=(2, 1), compression="gzip", fillvalue=7)
    written = allocation.seal()
    assert written.digest == digest_of(np.full((2, 3), 7, "f4")) and allocation.handle[1].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("options", "chunks"),
    [({"axis": 1}, (400, 65)), ({"blocks": (100, 100)}, (100, 100)), ({"axis": (0, 1)}, (161, 161))],
)
def test_chunks_follow_the_access(stage, monkeypatch, options, chunks):
    from pyplantx.specs import chunks as geometry

    choose = geometry.choose
    monkeypatch.setattr(geometry, "choose", lambda *given, **named: choose(*given, **{**named, "aim": 400 * 65 * 4}))
    allocation = SPEC.allocate(stage, shape=(400, 300), **options)
    assert allocation.handle.chunks == chunks
    allocation.discard()


def test_an_array_without_plug_ins_is_not_read_and_says_what_to_install(stage, monkeypatch):
    pytest.importorskip("hdf5plugin")
    allocation = SPEC.allocate(stage, shape=(4,), compression="zstd")
    allocation.handle[:] = 1
    written = allocation.seal()
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(MissingLibrary, match="packed with zstd needs the package 'hdf5plugin'"):
        SPEC.open(stage.seal(), written.meta, 1)


def test_an_error_while_packing_is_raised_at_the_seal_at_the_latest(stage, monkeypatch):
    allocation = SPEC.allocate(stage, shape=(8, 4), chunks=(2, 4), compression="gzip")

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    allocation.handle[0:2] = 1
    for _ in range(2):
        with pytest.raises(WarehouseFull, match="no space"):
            allocation.seal()
    allocation.discard()


def test_memory_is_bounded_by_the_chunks_in_flight(stage):
    import tracemalloc

    allocation = SPEC.allocate(stage, shape=(4096, 4096), dtype="f4", compression="gzip", compression_opts=1)
    slab = np.ones((512, 4096), "f4")
    tracemalloc.start()
    for start in range(0, 4096, 512):
        allocation.handle[start : start + 512] = slab
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    allocation.seal()
    assert peak < 40 << 20


def test_threads_end_with_the_seal_and_with_giving_up(stage, tmp_path):
    before = threading.active_count()
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        allocation = SPEC.allocate(FolderStage(str(tmp_path / str(number))), shape=(8, 4), compression="gzip")
        allocation.handle[:] = 1
        allocation.seal() if number else allocation.discard()
        assert threading.active_count() == before


# -- in a plant ---------------------------------------------------------------------------------


@ReactorFunc
def produce_volume(pipe):
    volume = pipe.allocate("volume", specs.HdfArraySpec, shape=(600, 1000), dtype="f8", compression="gzip")
    for start in range(0, 600, 200):
        volume[start : start + 200] = np.random.default_rng(start).random((200, 1000))
    pipe.send("volume", volume)


@ReactorFunc
def sum_up(pipe):
    volume = yield pipe.receive("volume")
    pipe.send("total", float(volume[:].sum()))


def test_a_damaged_chunk_never_reaches_a_result(tmp_path):
    with Plant(tmp_path) as plant:
        plant.add_reactors(produce_volume, sum_up)
        total = plant.produce("total")
    path = next(tmp_path.glob("objects/*/*/data.h5"))
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with Plant(tmp_path) as plant:
        plant.add_reactors(produce_volume, sum_up)
        plant.run_reactor(sum_up)
        assert plant.produce("total") == total
    with Plant(tmp_path) as plant:
        assert plant.warehouse.check() == []

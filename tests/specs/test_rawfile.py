"""Arrays at an offset of a file: selections, the map of blocks, many threads, and what h5py would have done."""

from __future__ import annotations

import errno
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplantx import specs
from pyplantx.errors import BadRequest, WarehouseError, WarehouseFull
from pyplantx.fingerprint.value import array_header, combine, hash_bytes
from pyplantx.spec_tests import FolderStage
from pyplantx.specs import rawfile, selections
from pyplantx.specs.dirty import BlockMap
from pyplantx.specs.rawfile import RawArray, RawFile
from pyplantx.specs.selections import parse, slabs, tiles
from tests.faults.children import in_child

SPEC = specs.HdfArraySpec()
HEAD = b"the head of the file"


@pytest.fixture
def small_pieces(monkeypatch):
    """Blocks, pieces and gaps so small that arrays of some hundred bytes meet their borders."""
    monkeypatch.setattr(rawfile, "block_size", lambda itemsize: max(1, 48 // itemsize) * itemsize)
    monkeypatch.setattr(rawfile, "PIECE", 64)
    monkeypatch.setattr(rawfile, "WORTHWHILE", 100)
    monkeypatch.setattr(rawfile, "_AT_ONCE", 40)
    monkeypatch.setattr(selections, "PIECE", 64)
    monkeypatch.setattr(selections, "GAP", 16)


def raw_array(path, shape, dtype="f8"):
    dtype = np.dtype(dtype)
    with open(path, "wb") as file:
        file.write(HEAD)
        file.truncate(len(HEAD) + math.prod(shape) * dtype.itemsize)
    return RawArray(RawFile(str(path), writable=True), shape, dtype, len(HEAD))


def put(raw, selection, value):
    region = parse(selection, raw.shape)
    counts = np.broadcast_to(value, region.shape).reshape(region.counts)
    raw.write(region, counts, lambda part: part.astype(raw.dtype))


def true_digests(raw):
    """The digests of the blocks as they are in the file."""
    with open(raw.file.path, "rb") as file:
        body = file.read()[raw.offset :]
    return [hash_bytes(body[start : start + raw.blocks.block]) for start in range(0, len(body), raw.blocks.block)]


# -- selections -----------------------------------------------------------------------------------


@st.composite
def selected(draw, shape):
    """A basic selection of an array."""
    parts = [draw(along(length)) for length in shape]
    first, last = sorted(draw(st.tuples(*[st.integers(0, len(shape))] * 2)))
    if draw(st.booleans()):
        parts = [*parts[:first], ..., *parts[last:]]
    else:
        parts = parts[:last]
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


def along(length):
    bound = st.none() | st.integers(-length - 2, length + 2)
    return st.integers(-length, length - 1) | st.builds(slice, bound, bound, st.none() | st.integers(1, 4))


shapes = st.lists(st.integers(1, 9), min_size=0, max_size=4).map(tuple)
shaped = shapes.flatmap(lambda shape: st.tuples(st.just(shape), st.lists(selected(shape), min_size=1, max_size=5)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shaped)
def test_reading_is_what_numpy_gives(small_pieces, tmp_path, case):
    shape, wanted = case
    array = np.random.default_rng(0).random(shape)
    raw = raw_array(tmp_path / "x", shape)
    put(raw, ..., array)
    for selection in wanted:
        found = raw.read(parse(selection, shape))
        assert found.shape == array[selection].shape and np.array_equal(found, array[selection])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shaped)
def test_any_order_of_writes_gives_the_digests_of_what_is_there(small_pieces, tmp_path, case):
    shape, places = case
    array = np.zeros(shape, "i2")
    raw = raw_array(tmp_path / "x", shape, "i2")
    assert raw.blocks.untouched
    for number, selection in enumerate(places, 1):
        value = np.arange(array[selection].size).reshape(array[selection].shape) + number
        array[selection] = value
        put(raw, selection, value if number % 2 else value.astype("i2"))
    assert np.array_equal(raw.read(parse((), shape)), array)
    assert raw.digests() == true_digests(raw)


@given(shaped, st.sampled_from([1, 8]))
def test_tiles_cover_a_selection_once_and_in_order(case, itemsize):
    shape, (selection, *_) = case
    region = parse(selection, shape)
    numbers = np.arange(math.prod(shape))
    found = []
    for tile in tiles(region, itemsize):
        stretch = numbers[tile.start : tile.start + tile.span]
        strides = [pitch * stretch.itemsize for pitch in tile.pitches]
        part = np.lib.stride_tricks.as_strided(stretch, tile.counts, strides) if tile.counts else stretch
        found += part.reshape(-1).tolist()
    assert found == numbers.reshape(shape)[selection].reshape(-1).tolist()


@pytest.mark.parametrize(
    "selection", [[1, 2], np.array([1]), slice(3, 0, -1), True, None, (0, 0, 0), (..., ...), "x", 1.0]
)
def test_other_selections_are_left_to_others(selection):
    assert parse(selection, (4, 4)) is None


def test_integers_out_of_range():
    for index in (4, -5, np.int64(9)):
        with pytest.raises(IndexError, match="out of range for an axis of length 4"):
            parse(index, (4, 4))
    assert parse(np.int64(-1), (4, 4)).starts == (3, 0)


def test_what_lies_far_apart_is_read_one_by_one():
    """A column of long rows must not cost the whole array."""
    assert len(list(tiles(parse(np.s_[:, 7], (100, 1 << 20)), 8))) == 100
    assert [tile.span for tile in tiles(parse(np.s_[:, 1], (1 << 20, 2)), 8)] == [(1 << 19) - 1] * 4


@given(shapes, st.sampled_from([1, 24, 100]))
def test_slabs_cover_an_array_in_order(shape, aim):
    numbers = np.arange(math.prod(shape)).reshape(shape)
    found = [number for part in slabs(shape, 1, aim) for number in np.ravel(numbers[part]).tolist()]
    assert found == list(range(numbers.size))


# -- the map of blocks ----------------------------------------------------------------------------


def test_whole_blocks_and_blocks_from_their_start_on_are_not_read_again(small_pieces, tmp_path, monkeypatch):
    raw = raw_array(tmp_path / "x", (36,))  # blocks of 6 elements
    array = np.zeros(36)
    for start, stop in [(18, 24), (6, 8), (8, 11), (11, 12), (24, 36), (3, 6), (0, 3), (0, 6)]:
        array[start:stop] = np.arange(start, stop) + 1
        put(raw, slice(start, stop), array[start:stop])
    put(raw, slice(12, 14), 7.0)  # the rest of it stays zeros
    expected = true_digests(raw)
    monkeypatch.setattr(RawFile, "read_into", lambda *_: pytest.fail("read again without need"))
    assert raw.digests() == expected


def test_holes_are_not_read(tmp_path, monkeypatch):
    raw = raw_array(tmp_path / "x", (1 << 27,))  # a gigabyte of them
    put(raw, slice(1 << 20, 2 << 20), np.ones(1 << 20))
    monkeypatch.setattr(RawFile, "read_into", lambda *_: pytest.fail("read a hole"))
    digests = raw.digests()
    assert len(digests) == 256 and len(set(digests)) == 2 and digests[2] == digests[3] != digests[0]


def test_a_failed_write_leaves_its_blocks_to_be_read(small_pieces, tmp_path, monkeypatch):
    raw = raw_array(tmp_path / "x", (36,))
    put(raw, slice(None), np.arange(36.0))
    real, calls = os.pwrite, []

    def third_fails(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, "pwrite", third_fails)
    with pytest.raises(WarehouseFull, match="bytes are free"):
        put(raw, slice(3, 33), np.zeros(30))
    monkeypatch.undo()
    assert raw.digests() == true_digests(raw)


def test_two_writers_of_one_block_leave_it_to_be_read():
    blocks = BlockMap(10, 10)
    with blocks.writing(0, 10) as first, blocks.writing(0, 4) as second:
        first.hash(0, memoryview(b"x" * 10))
        second.hash(0, memoryview(b"y" * 4))
    assert blocks.to_read() == [0]
    with blocks.writing(0, 10) as write:
        write.hash(0, memoryview(b"z" * 10))
    assert blocks.to_read() == [] and blocks.digests() == [hash_bytes(b"z" * 10)]


def test_a_writer_that_began_earlier_and_ends_later_counts():
    blocks = BlockMap(10, 10)
    earlier = blocks.writing(0, 4)
    earlier.__enter__()
    with blocks.writing(0, 10) as write:
        write.hash(0, memoryview(b"x" * 10))
    earlier.__exit__(None, None, None)
    assert blocks.to_read() == [0]


def test_nothing_is_sent_while_somebody_writes():
    blocks = BlockMap(10, 10)
    with blocks.writing(0, 4), pytest.raises(BadRequest, match="a thread is still writing"):
        blocks.freeze()
    blocks.freeze()
    with pytest.raises(BadRequest, match="has been sent"), blocks.writing(0, 4):
        pass


def test_threads_that_write_to_neighbouring_elements_lose_nothing(small_pieces, tmp_path):
    raw = raw_array(tmp_path / "x", (64, 8), "i4")
    with ThreadPoolExecutor(8) as threads:
        jobs = [(np.s_[:, column], column + 1) for column in range(8)] * 5
        list(threads.map(lambda job: put(raw, job[0], np.full(64, job[1], "i4")), jobs))
    assert np.array_equal(raw.read(parse((), raw.shape)), np.tile(np.arange(1, 9, dtype="i4"), (64, 1)))
    assert raw.digests() == true_digests(raw)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(40)), st.integers(1, 50))
def test_threads_in_any_order(small_pieces, tmp_path, order, rows):
    array = np.random.default_rng(rows).integers(0, 99, (40 * rows // 7 + 1, 3), "i2")
    raw = raw_array(tmp_path / "x", array.shape, "i2")
    step = -(-len(array) // 40)
    parts = [slice(place * step, (place + 1) * step) for place in order if place * step < len(array)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda part: put(raw, part, array[part]), parts))
    assert raw.digests() == true_digests(raw)
    assert np.array_equal(raw.read(parse((), raw.shape)), array)


def test_an_interrupt_between_write_and_hash(small_pieces, tmp_path, monkeypatch):
    raw = raw_array(tmp_path / "x", (6,))
    put(raw, slice(None), np.ones(6))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyplantx.specs.dirty.Write.hash", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(raw, slice(None), np.zeros(6))
    monkeypatch.undo()
    assert raw.digests() == true_digests(raw) == [hash_bytes(bytes(48))]


# -- files ----------------------------------------------------------------------------------------


def test_short_transfers_are_continued(tmp_path, monkeypatch):
    raw = raw_array(tmp_path / "x", (100,))
    pread, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, start: pwrite(fd, data[:7], start))
    monkeypatch.setattr(os, "preadv", lambda fd, views, start: pread(fd, [views[0][:5]], start))
    put(raw, slice(None), np.arange(100.0))
    assert raw.read(parse((), raw.shape)).tolist() == list(range(100))


def test_a_file_that_was_truncated(tmp_path):
    raw = raw_array(tmp_path / "x", (100,))
    os.truncate(tmp_path / "x", 50)
    with pytest.raises(WarehouseError, match="ends before its array does"):
        raw.read(parse((), raw.shape))


def test_descriptors_are_given_back(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    raw = raw_array(tmp_path / "x", (100,))
    raw.file.make_read_only()
    with pytest.raises(WarehouseError, match="can't be written"):
        put(raw, 0, 1.0)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del raw
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thread_that_goes_on_after_the_end_meets_no_other_file(tmp_path):
    raw = raw_array(tmp_path / "x", (100,))
    number = raw.file._fd
    raw.file.close()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() != number
        with pytest.raises(OSError):
            os.pwrite(number, b"x", 0)
    for action in (lambda: put(raw, 0, 1.0), lambda: raw.read(parse(0, (100,)))):
        with pytest.raises(WarehouseError, match="gone with the reactor"):
            action()


# -- as h5py does ---------------------------------------------------------------------------------


def outcome(action):
    """What an action gives, or that it is refused: too many indices are no `IndexError` in h5py."""
    try:
        return action()
    except (IndexError, TypeError, ValueError, OSError, OverflowError, BadRequest):
        return "refused"


def bits(value, dtype):
    """The elements of an array or scalar as bytes; h5py keeps any number as a truth value, we keep 0 and 1."""
    array = np.ascontiguousarray(value)
    return (array.view("u1") != 0).tobytes() if dtype == "?" else array.tobytes()


DTYPES = ["f4", ">f8", "f2", "i2", "u1", ">i8", "?", "c16", "S3"]
written = st.lists(
    st.tuples(
        st.integers(0, 1 << 16),
        st.sampled_from(["same", "f8", "i8", "u1", "list", "number", "long"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def indexed(draw, shape):
    """A selection that may be wrong."""
    parts = list(draw(selected(shape).map(lambda found: found if isinstance(found, tuple) else (found,))))
    wrong = draw(st.sampled_from([None] * 6 + [99, -99, slice(3, 1), [0], "field"]))
    if wrong is not None and parts:
        parts[draw(st.integers(0, len(parts) - 1))] = wrong
    return tuple(parts)


cases = (
    st.lists(st.integers(1, 7), min_size=1, max_size=3)
    .map(tuple)
    .flatmap(lambda shape: st.tuples(st.just(shape), st.lists(indexed(shape), min_size=1, max_size=4)))
)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases, written, st.sampled_from(DTYPES))
def test_writing_and_reading_is_what_h5py_does(tmp_path_factory, case, plan, dtype):
    shape, places = case
    stage = FolderStage(str(tmp_path_factory.mktemp("raw")))
    allocation = SPEC.allocate(stage, shape=shape, dtype=dtype)
    ours = allocation.handle
    with h5py.File("theirs", "w", driver="core", backing_store=False) as file:
        theirs = file.create_dataset("x", shape, dtype)
        for selection, (seed, kind, cut) in zip(places, plan):
            value = made_value(outcome(lambda: theirs[selection]), seed, kind, cut, dtype)  # noqa: B023
            results = [outcome(lambda d=d: d.__setitem__(selection, value)) for d in (ours, theirs)]  # noqa: B023
            if results == [None, "refused"]:  # a number as a complex one or a truth value: we are more generous
                assert dtype in ("c16", "?", "S3")
                theirs[selection] = np.asarray(value).astype(dtype)
            else:
                assert results[0] == results[1]
        for selection in [*places, ()]:
            found, expected = (outcome(lambda d=d: d[selection]) for d in (ours, theirs))  # noqa: B023
            assert type(found) is type(expected)
            assert np.shape(found) == np.shape(expected)
            assert found == expected if isinstance(expected, str) else bits(found, dtype) == bits(expected, dtype)
        whole = np.frombuffer(bits(theirs[()], dtype), dtype).reshape(shape)
    digest = combine(array_header(np.dtype(dtype), shape, "hdf"), [hash_bytes(whole.tobytes())])
    sealed = allocation.seal()
    assert sealed.digest == digest
    received = SPEC.open(stage.seal(), sealed.meta, 1)
    assert received[()].tobytes() == received.mapped().tobytes() == whole.tobytes()
    with h5py.File(stage.path("data.h5")) as file:
        assert bits(file["data"][()], dtype) == whole.tobytes()


def made_value(place, seed, kind, cut, dtype):
    """A value for a place of an array; some axes are left out, to be broadcast."""
    shape = np.shape(place)[cut:] if not isinstance(place, str) else (2,)
    if kind == "number":
        return 3
    numbers = np.random.default_rng(seed).random((*shape, 3) if kind == "long" else shape) * 300 - 20
    if kind == "list":
        return numbers.astype(dtype).tolist()
    return numbers.astype(dtype if kind in ("same", "long") else kind)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (np.array([300.7, -1, np.nan]), "u1", [255, 0, 0]),
        (np.array([300, -1, 5]), "u1", [255, 0, 5]),
        (np.array([0, 5, -1]), "?", [False, True, True]),
        (np.array([True, False, True]), "f4", [1, 0, 1]),
        (np.array([b"abcd", b"", b"x"]), "S2", [b"ab", b"", b"x"]),
        (np.array([1, 2, 3]), "c8", [1, 2, 3]),
    ],
)
def test_conversions(tmp_path, value, dtype, expected):
    """HDF5 clips numbers to the range of integers, where NumPy wraps around."""
    allocation = SPEC.allocate(FolderStage(str(tmp_path)), shape=(3,), dtype=dtype)
    allocation.handle[:] = value
    assert allocation.handle[:].tolist() == expected
    allocation.discard()


@pytest.mark.parametrize(
    "value", [np.array(["a", "b", "c"]), np.array([1, 2, 3], object), np.array([1, 2, 3], "M8[s]")]
)
def test_values_that_hdf5_does_not_convert(tmp_path, value):
    allocation = SPEC.allocate(FolderStage(str(tmp_path)), shape=(3,), dtype="i4")
    with pytest.raises(BadRequest, match="HDF5 doesn't convert"):
        allocation.handle[:] = value
    allocation.discard()


def test_large_values_of_another_dtype_and_layout_are_converted_in_pieces(small_pieces, tmp_path):
    array = np.random.default_rng(0).random((40, 30)).T
    allocation = SPEC.allocate(FolderStage(str(tmp_path)), shape=(30, 40), dtype="f4")
    allocation.handle[...] = array
    assert np.array_equal(allocation.handle[...], array.astype("f4"))
    allocation.handle[...] = array * 1000
    allocation.handle[1:29:3, 5:40:2] = 1
    assert np.array_equal(allocation.handle[2:29:3], (array * 1000).astype("f4")[2:29:3])
    allocation.seal()


def test_lists_and_masks_go_by_hdf5_while_others_wait(tmp_path):
    allocation = SPEC.allocate(FolderStage(str(tmp_path)), shape=(40, 30), dtype="i4")
    dataset = allocation.handle
    mask = np.zeros((40, 30), bool)
    mask[5, ::3] = True
    threads = [threading.Thread(target=dataset.__setitem__, args=(row, row)) for row in range(10, 40)]
    for thread in threads:
        thread.start()
    dataset[[1, 3]] = np.full((2, 30), 7)
    dataset[mask] = np.arange(10)
    for thread in threads:
        thread.join()
    assert dataset[[1, 3]].tolist() == [[7] * 30] * 2 and dataset[mask].tolist() == list(range(10))
    assert dataset[10:].sum() == 30 * sum(range(10, 40))
    expected = dataset[...]
    assert allocation.seal().digest == combine(
        array_header(expected.dtype, expected.shape, "hdf"), [hash_bytes(expected.tobytes())]
    )
    assert dataset[[1, 3]].tolist() == [[7] * 30] * 2


def test_a_forked_child_hashes_too(small_pieces, tmp_path):
    """The thread that hashes beside large writes stays behind in the parent."""
    put(raw_array(tmp_path / "x", (100,)), slice(None), np.arange(100.0))

    def hashes() -> None:
        raw = raw_array(tmp_path / "y", (100,))
        put(raw, slice(None), np.arange(100.0))
        assert raw.digests() == true_digests(raw)

    assert in_child(hashes) == 0

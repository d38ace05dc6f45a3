"""The geometry of chunks: they fit, they follow the access that was named, and slabs touch each of them once."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyplantx.errors import BadRequest
from pyplantx.specs.chunks import AIM, cache_bytes, cache_slots, choose, grown, pieces
from pyplantx.specs.selections import parse

shapes = st.lists(st.integers(0, 3000), min_size=1, max_size=4).map(tuple)
small = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)
itemsizes = st.sampled_from([1, 2, 4, 8, 16, 12, 1000])


@pytest.mark.parametrize(
    ("shape", "itemsize", "options", "expected"),
    [
        ((2_097_152, 1024), 4, {}, (256, 1024)),  # whole rows; h5py would guess (8192, 8)
        ((2_097_152, 1024), 4, {"axis": 0}, (256, 1024)),
        ((2_097_152, 1024), 4, {"axis": 1}, (262_144, 1)),
        ((2_097_152, 1024), 4, {"axis": -1}, (262_144, 1)),
        ((2_097_152, 1024), 4, {"axis": (0, 1)}, (512, 512)),
        ((500, 500, 500), 4, {"axis": 1}, (500, 1, 500)),
        ((100, 200, 300), 8, {"axis": (0, 2)}, (25, 200, 26)),
        ((3, 100_000), 8, {"axis": (0, 1)}, (3, 43_690)),  # what a short axis can't use goes to the other
        ((0, 3), 8, {"maxshape": (None, 3)}, (43_690, 3)),
        ((10, 10), 8, {}, (10, 10)),
        ((), 8, {}, ()),
        ((0, 3), 4, {}, (1, 3)),
        ((1000, 1000, 1000), 4, {"blocks": (100, 100, 100)}, (25, 100, 100)),
        ((1000, 1000), 4, {"blocks": (128,)}, (128, 1000)),
        ((1000, 1000), 4, {"blocks": (None, 8)}, (1000, 8)),
        ((79_190, 128), 8, {"blocks": (7919,)}, (7919, 16)),  # a prime is not cut into single rows
        ((100, 1000, 1000), 8, {"blocks": (1,)}, (1, 125, 1000)),
        ((10, 10), 8, {"aim": 80}, (1, 10)),
        ((4000, 500), 8, {"maxshape": (None, None)}, (262, 500)),  # as long as a row is now, not as it may be
        ((4000, 500), 8, {"maxshape": (None, 10**6)}, (262, 500)),
        ((4000, 500), 8, {"maxshape": (None, None), "axis": 1}, (4096, 32)),
        ((4000, 500), 8, {"maxshape": (4000, None)}, (262, 500)),
        ((100, 30), 8, {"maxshape": (100, None)}, (100, 1310)),
        ((2, 3), 8, {"maxshape": (None, None)}, (294, 445)),  # growing along either, it fills its chunks
        ((0, 0), 8, {"maxshape": (None, None)}, (362, 362)),
        ((0, 100), 8, {"maxshape": (None, None)}, (1310, 100)),  # it has to grow along the first axis
        ((100, 0), 8, {"maxshape": (None, None)}, (100, 1310)),
        ((0, 100), 8, {"maxshape": (5, None)}, (5, 26_214)),
        ((1000, 1000), 4, {"blocks": (10, None), "maxshape": (None, None)}, (10, 1000)),
        (
            (1, 1000),
            8,
            {"blocks": (None, 10), "maxshape": (None, 1000)},
            (131, 10),
        ),  # its hundred chunks share the room
        ((1,), 8, {"blocks": (None,), "maxshape": (None,)}, (131_072,)),
        ((0, 1000), 8, {"blocks": (None, 10), "maxshape": (None, 1000)}, (13_107, 10)),
    ],
)
def test_chunks_follow_the_access(shape, itemsize, options, expected):
    assert choose(shape, itemsize, **options) == expected


@given(shapes, itemsizes, st.data())
def test_a_chunk_fits_the_shape_and_the_aim(shape, itemsize, data):
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    chunk = choose(shape, itemsize, axis=sorted(axes))
    assert all(1 <= part <= max(1, length) for part, length in zip(chunk, shape))
    nbytes = math.prod(chunk) * itemsize
    assert nbytes <= max(AIM, itemsize)
    if math.prod(shape) * itemsize >= AIM:
        assert nbytes >= AIM / 2 ** len(shape) - itemsize  # each axis rounds down, to a half at worst


@given(shapes, itemsizes, st.data())
def test_whatever_may_grow_takes_little_more_than_its_elements(shape, itemsize, data):
    assume(0 not in shape)
    limits = [data.draw(st.sampled_from([length, 10 * length, None])) for length in shape]
    axes = data.draw(st.none() | st.sets(st.integers(0, len(shape) - 1), min_size=1).map(sorted))
    chunk = choose(shape, itemsize, maxshape=limits, axis=axes)
    assert math.prod(chunk) * itemsize <= max(AIM, itemsize)
    taken = math.prod(-(-length // part) * part for length, part in zip(shape, chunk)) * itemsize
    assert taken <= 2 ** len(shape) * max(AIM, math.prod(shape) * itemsize)  # the last chunk along each axis


@given(shapes, itemsizes, st.data())
def test_blocks_are_tiled(shape, itemsize, data):
    assume(0 not in shape)
    blocks = tuple(data.draw(st.integers(1, length)) for length in shape)
    chunk = choose(shape, itemsize, blocks=blocks)
    assert all(block % part == 0 for block, part in zip(blocks, chunk))
    whole = math.prod(blocks) * itemsize
    assert math.prod(chunk) * itemsize >= min(whole, AIM // 64)


@given(small, st.data())
def test_slabs_touch_each_chunk_once_with_that_cache(shape, data):
    chunks = tuple(data.draw(st.integers(1, length)) for length in shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    thickness = data.draw(st.integers(1, 5 if axis == 0 else chunks[axis]))
    room = cache_bytes(shape, chunks, 1 << 20, axis) // (math.prod(chunks) << 20)
    across = math.prod(-(-n // part) for k, (n, part) in enumerate(zip(shape, chunks)) if k != axis)
    assume(room >= across * (2 if axis else 1))  # else the budget is too small for one row of chunks
    loads, cache = [], OrderedDict()
    for start in range(0, shape[axis], thickness):
        selection = (*(slice(None),) * axis, slice(start, start + thickness))
        for piece in pieces(parse(selection, shape), chunks):
            if piece.chunk not in cache:
                loads.append(piece.chunk)
            cache[piece.chunk] = None
            cache.move_to_end(piece.chunk)
            while len(cache) > room:
                cache.popitem(last=False)
    assert len(loads) == len(set(loads)) == math.prod(-(-n // part) for n, part in zip(shape, chunks))


def test_the_cache_is_bounded_and_holds_one_chunk_at_least():
    assert cache_bytes((1 << 20, 1 << 20), (1, 1 << 10), 8) == 8 << 20
    assert cache_bytes((1 << 20, 1 << 20), (1 << 10, 1), 8) == 64 << 20
    assert cache_bytes((1 << 20, 1 << 20), (1 << 10, 1), 8, limit=1 << 21) == 2 << 20
    assert cache_bytes((1 << 14, 1 << 14), (1 << 14, 1 << 14), 8) == 8 << 28
    assert cache_bytes((), (), 8) == 1 << 20
    assert cache_bytes((0, 5), (10, 5), 8) == 1 << 20


def test_slots_are_a_prime_of_about_a_hundred_per_chunk():
    assert cache_slots(64 << 20, 1 << 20) == 6421
    assert all(cache_slots(1 << 20, 1 << 20) % number for number in range(2, 11))


def test_the_hash_table_of_tiny_chunks_is_small() -> None:
    """Chunks of one number would have got a hundred slots each: 200 MiB in every open dataset, and two seconds."""
    assert 8 * cache_slots(1 << 20, 4) < 2 << 20


@given(shapes, itemsizes, st.data())
def test_grown_pieces_are_whole_chunks(shape, itemsize, data):
    chunks = tuple(data.draw(st.integers(1, max(1, length))) for length in shape)
    piece = grown(shape, chunks, itemsize, 1 << 20)
    assert all(part % chunk == 0 or part == max(1, length) for part, chunk, length in zip(piece, chunks, shape))
    assert math.prod(piece) * itemsize <= max(1 << 20, math.prod(chunks) * itemsize)


def test_grown_pieces_of_an_array_in_one_piece_are_rows():
    assert grown((1 << 20, 1024), None, 4, 64 << 20) == (1 << 14, 1024)


# -- selecting ----------------------------------------------------------------------------------

slices = st.builds(slice, *[st.none() | st.integers(-15, 15)] * 2, st.none() | st.integers(1, 7))


@given(small, st.data())
def test_pieces_select_what_numpy_selects(shape, data):
    chunks = tuple(data.draw(st.integers(1, length + 1)) for length in shape)
    picks = [data.draw(slices | st.integers(-length, length - 1)) for length in shape]
    cut = data.draw(st.integers(0, len(shape)))
    selection = (*picks[:cut], ..., *picks[len(shape) - data.draw(st.integers(0, len(shape) - cut)) :])
    array = np.arange(math.prod(shape)).reshape(shape)
    found = parse(selection, shape)
    assert found is not None and found.shape == array[selection].shape
    out = np.full(found.counts, -1)
    for piece in pieces(found, chunks):
        start = [place * part for place, part in zip(piece.chunk, chunks)]
        chunk = array[tuple(slice(at, at + part) for at, part in zip(start, chunks))]
        out[piece.outside] = chunk[piece.inside]
        assert piece.whole == (chunk[piece.inside].size == chunk.size)
    assert np.array_equal(out.reshape(found.shape), array[selection])


# -- bad requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": 2}, "axis=2 is no axis"),
        ({"axis": ()}, "no axis of an array with 2"),
        ({"axis": 0, "blocks": (1, 1)}, "not both"),
        ({"blocks": (1, 1, 1)}, "not the shape of a block"),
        ({"blocks": (0, 1)}, "not the shape of a block"),
        ({"maxshape": (None,)}, "does not say how far the 2 axes"),
    ],
)
def test_bad_requests(options, message):
    with pytest.raises(BadRequest, match=message):
        choose((4, 4), 8, **options)

"""How arrays are cut: every element once, within memory, at the borders of chunks."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyplantx.blocks.geometry import IN_FLIGHT, TARGET, Extent, Grid, blocks_of, cut
from pyplantx.errors import BadRequest


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Extent], tuple[int, ...], tuple[int, ...], int]:
    """Arrays that go together, the axes to cut, their halos, and a memory."""
    leading = draw(st.lists(st.integers(0, 20), min_size=1, max_size=3))
    axes = draw(st.lists(st.integers(0, len(leading) - 1), min_size=1, max_size=2, unique=True))
    covered = leading[: max(axes) + 1]
    extents = []
    for _ in range(draw(st.integers(1, 3))):
        shape = (*covered, *draw(st.lists(st.integers(0, 6), max_size=2)))
        chunks = tuple(draw(st.integers(1, max(1, length))) for length in shape) if draw(st.booleans()) else None
        itemsize = draw(st.sampled_from([1, 3, 8]))
        extents.append(Extent(shape, itemsize, chunks, draw(st.sampled_from([0, 48, 960]))))
    halo = tuple(draw(st.integers(0, 3)) for _ in axes)
    return extents, tuple(axes), halo, draw(st.integers(1, 60_000))


def in_flight(grid: Grid, extents: list[Extent]) -> int:
    """Bytes of the largest block with its halo, as often as it can be there at once."""
    largest = 0
    for block in blocks_of(grid):
        rows = math.prod(block.padded.shape)
        rest = len(grid.lengths)
        largest = max(largest, sum(rows * math.prod(e.shape[rest:]) * e.itemsize for e in extents))
    return IN_FLIGHT * largest


class TestCut:
    @given(problems())
    def test_blocks_cover_everything_once_and_fit(self, problem):
        extents, axes, halo, memory = problem
        try:
            grid = cut(extents, memory, axis=axes, halo=halo)
        except BadRequest as error:
            assert "needs" in str(error)
            return
        assert in_flight(grid, extents) <= memory
        seen: dict[tuple[int, ...], int] = {}
        for block in blocks_of(grid):
            assert all(part.step is None and part.start < part.stop for part in block)
            for place in itertools.product(*(range(part.start, part.stop) for part in block)):
                seen[place] = seen.get(place, 0) + 1
        assert sorted(seen) == list(itertools.product(*map(range, grid.lengths)))
        assert set(seen.values()) <= {1}

    @given(problems())
    def test_halos_are_clipped_and_inner_finds_the_block(self, problem):
        extents, axes, halo, memory = problem
        try:
            grid = cut(extents, memory, axis=axes, halo=halo)
        except BadRequest:
            assume(False)
        for number, block in enumerate(blocks_of(grid)):
            assert (block.index, block.count) == (number, grid.size)
            for own, wide, inner, length, rows in zip(block, block.padded, block.inner, grid.lengths, grid.halo):
                assert wide == slice(max(0, own.start - rows), min(length, own.stop + rows))
                assert range(wide.start, wide.stop)[inner] == range(own.start, own.stop)

    @given(problems())
    def test_a_single_chunked_array_is_cut_at_chunks(self, problem):
        extents, axes, halo, memory = problem
        first = extents[0]
        assume(first.chunks is not None)
        try:
            grid = cut([first], memory, axis=axes, halo=halo)
        except BadRequest:
            assume(False)
        for step, chunk, length in zip(grid.steps, first.chunks, grid.lengths):
            assert step == length or step % chunk == 0

    @given(problems())
    def test_what_is_said_to_be_needed_is_enough(self, problem):
        extents, axes, halo, _ = problem
        try:
            cut(extents, 0, axis=axes, halo=halo)
        except BadRequest as error:
            needed = int(str(error).split(" needs ")[1].split(" bytes")[0].replace(",", ""))
            assert in_flight(cut(extents, needed, axis=axes, halo=halo), extents) <= needed
        else:
            assert any(0 in extent.shape for extent in extents)

    def test_blocks_are_not_larger_than_does_any_good(self):
        grid = cut([Extent((1 << 20, 1024), 4)] * 2, 1 << 40)
        assert grid.steps[0] * 4096 == TARGET

    def test_blocks_side_by_side_have_rows_that_are_worth_their_gaps(self):
        """Of 160,000 rows 6 columns are 4 MiB, and to read them is to read all: 167 times 640 MB."""
        tall = Extent((160_000, 1000), 4)
        assert cut([tall], 256 << 20, axis=1).steps == (160_000, (256 << 20) // (3 * 160_000 * 4))
        assert cut([tall], 1 << 40, axis=1).steps == (160_000, 1000)
        assert cut([tall._replace(shape=(160_000, 100_000))], 1 << 40, axis=1).steps == (160_000, 8192)
        assert cut([tall._replace(chunks=(160_000, 2))], 256 << 20, axis=1).steps == (160_000, 6)

    def test_blocks_end_where_logical_blocks_of_the_digest_do(self):
        grid = cut([Extent((100_000, 1000), 4, None, 4_194_304)], 64 << 20)
        assert grid.steps == (1048,)  # rows of 4,000 bytes meet these borders too rarely
        grid = cut([Extent((100_000, 1024), 8, None, 4_194_304)], 20 << 20)
        assert grid.steps[0] % 512 == 0

    def test_a_halo_makes_blocks_worth_it(self):
        assert cut([Extent((1000, 1 << 20), 8)], 8 << 30, halo=2).steps == (16,)

    def test_arrays_without_axes_are_one_block(self):
        grid = cut([Extent((), 8)] * 2, 100)
        (block,) = blocks_of(grid)
        assert block == () and block.padded == () and block.inner == () and block.shape == ()

    def test_empty_arrays_have_no_blocks(self):
        assert cut([Extent((0, 5), 8)], 100).size == 0
        assert cut([Extent((5, 0), 8)], 100).size == 1

    @pytest.mark.parametrize(
        ("extents", "options", "words"),
        [
            ([], {}, "needs an array"),
            ([Extent((4,), 8), Extent((5,), 8)], {}, r"\(4,\), \(5,\)"),
            ([Extent((4,), 8)], {"axis": 1}, "axis=1"),
            ([Extent((4,), 8)], {"axis": (0, 0)}, "axis="),
            ([Extent((4,), 8)], {"halo": -1}, "halo=-1"),
            ([Extent((4,), 8)], {"halo": (1, 1)}, "halo="),
            ([Extent((4, 1000), 8)], {}, "24,000 bytes.*axis="),
            ([Extent((1000, 2), 8, (100, 2))], {}, "4,800 bytes"),
            ([Extent((), 1000)], {}, "3,000 bytes"),
        ],
    )
    def test_what_can_not_be_is_refused(self, extents, options, words):
        with pytest.raises(BadRequest, match=f"(?s){words}"):
            cut(extents, 1000, **options)

    def test_negative_axes_count_from_the_end(self):
        grid = cut([Extent((4, 1000), 8)], 3 * 4 * 8 * 100, axis=-1)
        assert grid.lengths == (4, 1000) and grid.steps == (4, 100)

    @pytest.mark.parametrize(("axis", "halo"), [((0, 1), (2, 1)), ((1, 0), (1, 2)), ((-1, 0), (1, 2))])
    def test_each_halo_belongs_to_its_axis(self, axis, halo):
        grid = cut([Extent((100, 100), 8)], 3 * 8 * 300, axis=axis, halo=halo)
        assert grid.halo == (2, 1)

    def test_the_first_axis_that_is_named_is_cut_first(self):
        extents = [Extent((100, 100), 8)]
        assert cut(extents, 3 * 8 * 1000, axis=(0, 1)).steps == (10, 100)
        assert cut(extents, 3 * 8 * 1000, axis=(1, 0)).steps == (100, 10)

    @pytest.mark.parametrize(
        ("extent", "axis", "hint"),
        [
            (Extent((4000,), 8), 0, "memory= so much$"),
            (Extent((40, 4000), 8), (0, 1), "memory= so much$"),
            (Extent((40, 4000), 8), 0, r"memory= so much or axis=\(0, 1\)$"),
            (Extent((40, 4000), 8), 1, r"memory= so much or axis=\(1, 0\)$"),
            (Extent((40, 400), 8, (40, 400)), 0, "memory= so much or smaller chunks=$"),
            (Extent((40, 400), 8, (40, 10)), 0, r"memory= so much or smaller chunks= or axis=\(0, 1\)$"),
        ],
    )
    def test_only_what_helps_is_advised(self, extent, axis, hint):
        with pytest.raises(BadRequest, match=f"hint: {hint}"):
            cut([extent], 10, axis=axis)

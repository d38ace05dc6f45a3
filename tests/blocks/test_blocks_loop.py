"""The loop and its threads, with arrays in memory that note who does what."""

from __future__ import annotations

import errno
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.blocks.geometry import Grid
from pyplantx.blocks.handles import handle_of
from pyplantx.blocks.loop import BlockLoop
from pyplantx.blocks.progress import Progress, duration
from pyplantx.errors import BadRequest, WarehouseFull
from tests.blocks.fakes import FakeAllocation, FakeDataset, address, block_threads


class SilentDataset(FakeDataset):
    """Asks blocks, and tells nobody who else looks at it."""

    def __getitem__(self, selection: Any) -> Any:
        return selection.fetch(self) if hasattr(selection, "fetch") else self.data[selection].copy()


def loop_over(grid: Grid, src: Any, dst: Any, **options: Any) -> BlockLoop:
    handles = [handle_of(src), handle_of(dst, FakeAllocation(dst))]
    return BlockLoop(grid, handles, "reactor r", **options)


def arrays(rows: int = 20) -> tuple[FakeDataset, FakeDataset, Grid]:
    return (
        FakeDataset(np.arange(rows * 3.0).reshape(rows, 3)),
        FakeDataset(np.zeros((rows, 3))),
        Grid((rows,), (4,), (0,)),
    )


class TestWhoDoesWhat:
    def test_reading_and_writing_is_done_by_threads(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            dst[b] = src[b] * 2
        assert (dst.data == src.data * 2).all()
        assert {thread.partition("_")[0] for _, thread in src.reads} == {"pyplantx-read"}
        assert {thread.partition("_")[0] for _, thread in dst.writes} == {"pyplantx-write"}
        assert len(src.reads) == len(dst.writes) == 5
        assert dst.reads == []

    def test_not_more_is_under_way_than_there_is_memory_for(self):
        src, dst, grid = arrays(40)
        for b in loop_over(grid, src, dst):
            assert len(src.reads) <= b.index + 3
            assert b.index - len(dst.written) <= 2
            dst[b] = src[b]

    def test_what_the_body_does_not_use_is_not_read_on_and_on(self):
        src, dst, grid = arrays(80)
        for b in loop_over(grid, src, dst):
            dst[b] = 1.0
        assert len(src.reads) <= 4
        assert (dst.data == 1).all()

    def test_a_block_that_is_asked_for_twice_is_read_again(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            first = src[b]
            first += 1
            dst[b] = src[b]
        assert (dst.data == src.data).all()

    def test_arrays_in_memory_are_views(self):
        src, dst = np.arange(12.0), np.zeros(12)
        for b in loop_over(Grid((12,), (5,), (1,)), src, dst):
            assert src[b].base is src
            assert src[b.padded][b.inner].tolist() == src[b].tolist()
            dst[b] = src[b]
        assert (dst == src).all()

    def test_other_arrays_are_indexed_as_they_are(self):
        class Plain:
            shape, dtype = (6,), np.dtype("f8")

            def __init__(self) -> None:
                self.data = np.zeros(6)

            def __getitem__(self, selection: Any) -> Any:
                return self.data[selection]

            def __setitem__(self, selection: Any, value: Any) -> None:
                self.data[selection] = value

        plain, dst = Plain(), FakeDataset(np.zeros(6))
        for b in loop_over(Grid((6,), (2,), (0,)), plain, dst):
            plain[b] = b.index
            dst[b] = plain[b]
        assert dst.data.tolist() == [0, 0, 1, 1, 2, 2]

    def test_what_is_no_array_is_refused(self):
        with pytest.raises(BadRequest, match="a list can't be walked through"):
            handle_of([1, 2])

    @given(st.integers(1, 9), st.integers(0, 4), st.integers(0, 25))
    def test_halos(self, step, halo, rows):
        src, dst = FakeDataset(np.arange(float(rows))), FakeDataset(np.zeros(rows))
        for b in loop_over(Grid((rows,), (step,), (halo,)), src, dst):
            padded = src[b.padded]
            assert padded.tolist() == src.data[max(0, b[0].start - halo) : b[0].stop + halo].tolist()
            dst[b] = np.convolve(padded, np.ones(2 * halo + 1), "same")[b.inner]
        inner = slice(halo, max(halo, rows - halo))
        expected = np.array([src.data[max(0, i - halo) : i + halo + 1].sum() for i in range(rows)])
        assert np.allclose(dst.data[inner], expected[inner])

    def test_without_its_halo_a_block_is_the_inner_part(self):
        src, dst = FakeDataset(np.arange(10.0)), FakeDataset(np.zeros(10))
        for b in loop_over(Grid((10,), (3,), (2,)), src, dst):
            dst[b] = src[b]
        assert (dst.data == src.data).all()

    def test_writing_with_the_halo_is_refused(self):
        src, dst = FakeDataset(np.arange(10.0)), FakeDataset(np.zeros(10))
        with pytest.raises(BadRequest, match="with its halo"):
            for b in loop_over(Grid((10,), (3,), (2,)), src, dst):
                dst[b.padded] = src[b.padded]


class TestValuesThatWait:
    def stored(self, assign: Any) -> tuple[FakeDataset, list[int]]:
        """What was written when the body was through with each block, and what `assign` noted."""
        src, dst, grid = arrays()
        through = threading.Semaphore(0)
        dst.fail = lambda what, selection: None if through.acquire(timeout=30) else pytest.fail("never written")
        places: list[int] = []
        for b in loop_over(grid, src, dst):
            assign(dst, b, src[b], places)
            through.release()
        assert (dst.data == src.data).all()
        return dst, places

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="there every value is copied")
    def test_a_temporary_is_not_copied(self):
        def made(values: Any, places: list[int]) -> Any:
            fresh = values + 0
            places.append(address(fresh))
            return fresh

        def assign(dst: Any, b: Any, values: Any, places: list[int]) -> None:
            dst[b] = made(values, places)

        dst, places = self.stored(assign)
        assert dst.written == places

    @pytest.mark.parametrize("how", ["variable", "method", "chain", "view", "kept elsewhere", "operator"])
    def test_what_somebody_else_holds_is_copied_first(self, how):
        kept: list[Any] = []

        def assign(dst: Any, b: Any, values: Any, places: list[int]) -> None:
            value = values.copy()
            if how == "variable":
                dst[b] = value
            elif how == "method":
                dst.__setitem__(b, value)
            elif how == "chain":
                other = dst[b] = value + 0
                value = other
            elif how == "view":
                dst[b] = value[:]
            elif how == "operator":
                import operator

                operator.setitem(dst, b, value)
            else:
                kept.append(value)
                del value
                dst[b] = kept[-1]
                value = kept[-1]
            value[...] = -1

        self.stored(assign)

    def test_scalars_and_rows_are_spread(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            dst[b] = [b.index, 0, 1]
        assert dst.data[:, 0].tolist() == sorted([0, 1, 2, 3, 4] * 4)

    def test_other_dtypes_are_left_to_the_dataset(self):
        src, dst = FakeDataset(np.arange(6)), FakeDataset(np.zeros(6, "f4"))
        for b in loop_over(Grid((6,), (4,), (0,)), src, dst):
            dst[b] = src[b]
        assert dst.data.tolist() == [0, 1, 2, 3, 4, 5]

    def test_a_value_of_another_shape_is_refused_with_the_block(self):
        src, dst, grid = arrays()
        with pytest.raises(BadRequest, match=r"reactor r: a value of the shape \(3, 3\).*\(4, 3\)"):
            for b in loop_over(grid, src, dst):
                dst[b] = np.ones((3, 3))

    def test_the_last_of_several_values_wins(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            dst[b] = 1
            dst[b] = src[b]
            dst[b] += 1
        assert (dst.data == src.data + 1).all()


class TestLookingOtherwise:
    def test_reading_a_dataset_directly_sees_what_was_written(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            dst[b] = src[b]
            assert (dst[b[0]] == src.data[b[0]]).all()

    def test_writing_directly_is_not_overtaken_by_what_waits(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            dst[b] = src[b]
            dst[b[0].start] = -1
        assert (dst.data[::4] == -1).all()
        assert (dst.data[1::4] == src.data[1::4]).all()

    def test_what_was_read_ahead_is_forgotten_when_somebody_writes_there(self):
        data, out, grid = arrays()
        seen = []
        for b in loop_over(grid, data, out):
            seen.append(data[b][0, 0])
            if b.index == 1:
                data[8:] = 7.0
        assert seen == [0, 12, 7, 7, 7]

    def test_in_place(self):
        data = FakeDataset(np.arange(10.0))
        for b in BlockLoop(Grid((10,), (3,), (0,)), [handle_of(data, FakeAllocation(data))], "reactor r"):
            data[b] = data[b] * 2
        assert (data.data == np.arange(10.0) * 2).all()

    def test_nothing_waits_for_an_array_that_tells_nobody(self):
        src, dst, grid = arrays()
        del src.watchers, dst.watchers
        src.__class__ = dst.__class__ = SilentDataset
        for b in loop_over(grid, src, dst):
            dst[b] = src[b]
            assert (dst[b[0]] == src.data[b[0]]).all()

    def test_one_loop_in_another(self):
        src, dst, grid = arrays()
        for outer in loop_over(grid, src, dst):
            for b in loop_over(Grid((20,), (10,), (0,)), src, dst):
                dst[b] = src[b] + outer.index
            assert (dst[outer] == src[outer] + outer.index).all()
        assert src.watchers == dst.watchers == ()

    def test_a_block_is_an_index_after_its_loop_too(self):
        src, dst, grid = arrays()
        blocks = list(loop_over(grid, src, dst))
        dst[blocks[1]] = src[blocks[1]]
        assert (dst.data[4:8] == src.data[4:8]).all()

    def test_a_block_of_a_loop_that_does_not_name_a_dataset_is_a_look_at_it(self):
        src, dst, grid = arrays()
        ended = list(loop_over(grid, src, dst))
        other = FakeDataset(src.data)
        told: list[bool] = []
        other.watchers += (told.append,)
        for b in loop_over(grid, src, dst):
            other[b] = other[ended[b.index]]
        assert told == [False, True] * grid.size


def full(what: str, number: int) -> Any:
    """A disk that is full from one row on."""

    def fail(doing: str, selection: Any) -> None:
        if doing == what and selection[0].start >= number:
            raise OSError(errno.ENOSPC, "No space left on device")

    return fail


class TestErrors:
    def test_of_the_writing_thread_are_raised_in_the_loop(self):
        src, dst, grid = arrays(80)
        dst.fail = full("write", 8)
        done = []
        with pytest.raises(WarehouseFull, match=r"reactor r: block 3 of 20 \[8:12\] can't be written: no space left"):
            for b in loop_over(grid, src, dst):
                dst[b] = src[b]
                done.append(b.index)
        assert done[-1] <= 6

    def test_of_the_last_block_too(self):
        src, dst, grid = arrays()
        dst.fail = full("write", 16)
        with pytest.raises(WarehouseFull, match="block 5 of 5"):
            for b in loop_over(grid, src, dst):
                dst[b] = src[b]

    def test_of_the_reading_thread_come_where_the_block_is_used(self):
        src, dst, grid = arrays()
        src.fail = full("read", 8)
        done = []
        with pytest.raises(WarehouseFull, match=r"block 3 of 5 \[8:12\] can't be read"):
            for b in loop_over(grid, src, dst):
                dst[b] = src[b]
                done.append(b.index)
        assert done == [0, 1]
        assert (dst.data[:8] == src.data[:8]).all()

    def test_ours_keep_their_type_and_name_the_block_in_a_note(self):
        src, dst, grid = arrays()

        def refuse(doing: str, selection: Any) -> None:
            raise BadRequest("this dataset is read-only")

        dst.fail = refuse
        with pytest.raises(BadRequest, match="read-only") as caught:
            for b in loop_over(grid, src, dst):
                dst[b] = src[b]
        assert "block 1 of 5" in caught.value.__notes__[0]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
    def test_of_the_body_end_the_threads_and_lose_no_write(self, error):
        src, dst, grid = arrays()
        with pytest.raises(error):
            for b in loop_over(grid, src, dst):
                dst[b] = src[b]
                if b.index == 2:
                    raise error
        assert block_threads() == []
        assert (dst.data[:12] == src.data[:12]).all()
        assert src.watchers == dst.watchers == ()

    def test_a_loop_that_is_left_writes_what_was_assigned(self):
        src, dst, grid = arrays()
        for b in loop_over(grid, src, dst):
            dst[b] = src[b]
            if b.index == 1:
                break
        assert block_threads() == []
        assert (dst.data[:8] == src.data[:8]).all() and not dst.data[8:].any()

    def test_what_comes_too_late_to_be_raised_is_told(self):
        src, dst, grid = arrays()
        dst.fail = full("write", 0)
        late: list[BaseException] = []
        for b in loop_over(grid, src, dst, on_late_error=late.append):
            dst[b] = src[b]
            break
        assert isinstance(late[0], WarehouseFull)

    def test_a_loop_that_nobody_goes_on_with_can_be_closed(self):
        src, dst, grid = arrays()
        loop = loop_over(grid, src, dst)
        walk = iter(loop)
        b = next(walk)
        dst[b] = src[b]
        loop.close()
        assert block_threads() == []
        assert (dst.data[:4] == src.data[:4]).all()
        walk.close()


class Clock:
    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class TestProgress:
    def test_the_user_is_told(self):
        src, dst, grid = arrays()
        told: list[tuple[int, int, float]] = []
        for b in loop_over(grid, src, dst, progress=lambda *numbers: told.append(numbers)):
            dst[b] = src[b]
        assert [numbers[:2] for numbers in told] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
        assert told[-1][2] == 0

    def test_the_log_is_told_every_few_seconds(self, caplog):
        caplog.set_level("INFO", "pyplantx")
        progress = Progress("reactor smooth", 100, 10, None, Clock(2.0))
        for _ in range(6):
            progress.step(34_000_000)
        assert [record.getMessage() for record in caplog.records] == [
            "reactor smooth: block 13 of 100, 17.0 MB/s, 2 min 54 s left",
            "reactor smooth: block 16 of 100, 17.0 MB/s, 2 min 48 s left",
        ]

    @pytest.mark.parametrize(
        ("seconds", "words"), [(0.2, "0 s"), (59.6, "1 min 0 s"), (80, "1 min 20 s"), (7_300, "2 h 1 min")]
    )
    def test_durations(self, seconds, words):
        assert duration(seconds) == words

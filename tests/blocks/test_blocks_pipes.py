"""blocks, map_blocks, reduce_blocks and checkpoint as reactors use them, on whole plants."""

from __future__ import annotations

import errno
import gc
import logging
import os
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.blocks.attempt import Attempt
from pyplantx.blocks.outputs import Spool
from pyplantx.errors import BadRequest, CannotStore, NotSent, WarehouseError
from pyplantx.testing import PipeworkMock, run_reactor_to_completion
from pyplantx.warehouse.resume import Ledger
from tests.blocks.values import LAYOUTS, Unseen, some_values

#: All kinds of arrays that can be allocated.
_KINDS = {**LAYOUTS, "zarr": (specs.ZarrArraySpec, {"chunks": (10, 4)})}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Run one function as a reactor and give back the ingredient 'x' (None if it sends nothing)."""

    def ran(function: Callable[[Any], Any], **options: Any) -> Any:
        with Plant(tmp_path / "plant", durability="process", **options) as plant:
            reactor = ReactorFunc(name="r")(function)
            plant.add_reactors(reactor)
            plant.run_reactor(reactor)
            return np.array(plant.fetch_ingredient("x")) if plant.is_ingredient_known("x") else None

    return ran


class TestSparse:
    def matrix(self) -> Any:
        from scipy import sparse

        return sparse.random(300, 40, 0.05, format="csr", random_state=1)

    def test_rows_of_a_csr_matrix(self, run):
        matrix, seen = self.matrix(), []

        def entries(part: Any) -> float:
            assert part.format == "csr" and part.shape[1] == 40
            seen.append(part.shape[0])
            return float(part.sum())

        def work(pipe: Any) -> None:
            pipe.send("x", pipe.reduce_blocks(entries, matrix, memory="8kB"))

        assert np.isclose(run(work), matrix.sum())
        assert sum(seen) == 300 and len(seen) > 3

    def test_into_a_dense_array(self, run):
        matrix = self.matrix()

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.ArraySpec, shape=matrix.shape, dtype="f8")
            pipe.map_blocks(lambda part: part.toarray(), matrix, out=dst, memory="60kB")
            pipe.send("x", dst)

        assert (run(work) == matrix.toarray()).all()

    @pytest.mark.parametrize("function", [lambda part: part * 2, lambda part: part.tocsc()], ids=["csr", "csc"])
    def test_a_sparse_result_is_refused_as_such(self, function, run):
        matrix = self.matrix()

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.ArraySpec, shape=matrix.shape, dtype="f8")
            pipe.map_blocks(function, matrix, out=dst)

        with pytest.raises(BadRequest, match=r"sparse matrix of the shape \(300, 40\) for block 1 .*\n.*toarray\(\)"):
            run(work)

    @pytest.mark.parametrize("form", ["csc", "coo"])
    def test_other_formats_are_refused(self, form, run):
        with pytest.raises(BadRequest, match="csr"):
            run(lambda pipe: pipe.reduce_blocks(lambda part: part.sum(), self.matrix().asformat(form)))

    def test_columns_are_refused(self, run):
        with pytest.raises(BadRequest, match=r"axis=1 is not possible.*\n.*rows are all"):
            run(lambda pipe: pipe.reduce_blocks(lambda part: part.sum(), self.matrix(), axis=1))


class TestInPlace:
    """Only as long as no block reads what another one writes."""

    def allocated(self, pipe: Any, kind: str, name: str = "x") -> Any:
        spec, options = _KINDS[kind]
        chunks = {"chunks": (100, 4)} if kind in ("chunked", "packed", "zarr") else {}
        return pipe.allocate(name, spec, shape=(3000, 4), dtype="f8", **{**options, **chunks})

    def filled(self, pipe: Any, kind: str) -> Any:
        array = self.allocated(pipe, kind)
        array[...] = np.arange(12000.0).reshape(3000, 4)
        return array

    @pytest.mark.parametrize("workers", [1, 3])
    @pytest.mark.parametrize("way", ["mapped", "looped"])
    @pytest.mark.parametrize("kind", _KINDS)
    def test_without_a_halo(self, kind, way, workers, run):
        def work(pipe: Any) -> None:
            array = self.filled(pipe, kind)
            if way == "mapped":
                pipe.map_blocks(lambda part: part * 2 + 1, array, out=array, memory="200kB", workers=workers)
            for b in pipe.blocks(array, memory="200kB") if way == "looped" else ():
                array[b] = array[b] * 2 + 1
            pipe.send("x", array)

        assert (run(work) == np.arange(12000.0).reshape(3000, 4) * 2 + 1).all()

    @pytest.mark.parametrize("memory", ["200kB", "1MB"], ids=["many", "one"])
    @pytest.mark.parametrize("kind", _KINDS)
    def test_not_mapped_with_a_halo(self, kind, memory, run):
        def work(pipe: Any) -> None:
            array = self.filled(pipe, kind)
            pipe.map_blocks(lambda part: part, np.zeros((3000, 4)), array, out=array, halo=1, memory=memory)

        with pytest.raises(
            BadRequest, match=r"map_blocks with halo=1 writes to an array that it reads[^$]*allocate_temp"
        ):
            run(work)

    @pytest.mark.parametrize("how", ["by block", "by rows", "before it is read"])
    @pytest.mark.parametrize("kind", _KINDS)
    def test_not_looped_with_a_halo(self, kind, how, run):
        def work(pipe: Any) -> None:
            array = self.filled(pipe, kind)
            for b in pipe.blocks(array, halo=1, memory="200kB"):
                if how == "before it is read":
                    array[b] = 0
                result = 2 * array[b.padded][b.inner]
                if how == "by block":
                    array[b] = result
                elif how == "by rows":
                    array[b[0].start : b[0].stop] = result

        with pytest.raises(BadRequest, match=r"writes to an array that it reads with a halo[^$]*allocate_temp"):
            run(work)

    def test_nor_if_the_loop_does_not_name_it(self, run):
        def work(pipe: Any) -> None:
            array = self.filled(pipe, "raw")
            for b in pipe.blocks(np.zeros(3000), halo=1, memory="20kB"):
                array[b] = array[b.padded][b.inner]

        with pytest.raises(BadRequest, match="reads with a halo"):
            run(work)

    @pytest.mark.parametrize("kind", _KINDS)
    def test_from_one_array_to_another_it_is_all_right(self, kind, run):
        def work(pipe: Any) -> None:
            array, other = self.filled(pipe, kind), self.allocated(pipe, kind, "y")
            for b in pipe.blocks(array, other, halo=1, memory="200kB"):
                other[b] = np.roll(array[b.padded], 1, 0)[b.inner]
            pipe.map_blocks(lambda part: np.roll(part, 1, 0), other, out=array, halo=1, memory="200kB")
            for b in pipe.blocks(array, halo=1, memory="200kB"):  # reading alone is
                assert array[b.padded].shape == (*b.padded.shape, 4)
            pipe.send("x", array)
            pipe.send("y", other)

        assert (run(work)[2:] == np.arange(11992.0).reshape(2998, 4)).all()

    @pytest.mark.parametrize("source", [np.s_[:-1], np.s_[::-1], np.s_[::2]], ids=["later", "backwards", "wider"])
    def test_not_onto_what_later_blocks_read(self, source, run):
        memory = np.zeros((60, 4))
        read = memory[source]
        written = memory[1:] if len(read) == 59 else memory[: len(read)]

        with pytest.raises(BadRequest, match="lies on the memory of a source"):
            run(lambda pipe: pipe.map_blocks(lambda part: part, read, out=written, memory=500))

    @pytest.mark.parametrize(
        ("source", "out"), [(np.s_[1:], np.s_[:-1]), (np.s_[:, :3], np.s_[:, 1:]), (np.s_[:], np.s_[:])]
    )
    def test_onto_what_no_later_block_reads(self, source, out, run):
        memory = np.arange(240.0).reshape(60, 4)
        expected = 2 * memory[source]
        run(lambda pipe: pipe.map_blocks(lambda part: 2 * part, memory[source], out=memory[out], memory=500, workers=2))
        assert (memory[out] == expected).all()

    def test_columns_beside_each_other_have_nothing_in_common(self, run):
        memory = np.arange(240.0).reshape(60, 4)
        run(lambda pipe: pipe.map_blocks(np.copy, memory[:, :2], out=memory[:, 2:], memory=2000, halo=1))
        assert (memory[:, 2:] == memory[:, :2]).all()


class TestSubclasses:
    def masked(self) -> Any:
        return np.ma.array(np.arange(40.0).reshape(10, 4), mask=np.arange(40).reshape(10, 4) % 2 == 0)

    def test_parts_of_a_masked_array_are_masked(self, run):
        def work(pipe: Any) -> None:
            pipe.send("x", pipe.reduce_blocks(lambda part: float(part.sum()), self.masked(), memory="256B"))

        assert run(work) == self.masked().sum()

    @pytest.mark.parametrize("kind", [np.matrix, np.memmap])
    def test_other_classes(self, kind, run, tmp_path):
        file = np.memmap(tmp_path / "data", "f8", "w+", shape=(8, 2))
        src = file if kind is np.memmap else file.view(kind)
        seen: set[type] = set()
        run(lambda pipe: pipe.reduce_blocks(lambda part: seen.add(type(part)) or 0, src))
        assert seen == {np.ndarray if kind is np.memmap else kind}

    def test_a_masked_number(self, run):
        src, seen = np.ma.array(5.0, mask=True), []
        run(lambda pipe: pipe.reduce_blocks(lambda part: seen.append(part) or 0, src))
        assert seen[0].shape == () and seen[0].mask

    def test_parts_can_not_be_masked_or_written_to(self, run):
        src = self.masked()

        def spoil(part: Any) -> float:
            with pytest.raises(ValueError, match="read-only"):
                part[0, 0] = 1
            with pytest.raises(ValueError, match="read-only"):
                part[0, 1] = np.ma.masked
            return 0.0

        run(lambda pipe: pipe.reduce_blocks(spoil, src))
        assert (src == self.masked()).all() and (src.mask == self.masked().mask).all()

    @pytest.mark.parametrize("out", LAYOUTS)
    def test_masked_results_are_refused(self, out, run):
        spec, options = LAYOUTS[out]

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", spec, shape=(10, 4), dtype="f8", **options)
            pipe.map_blocks(lambda part: part * 2, self.masked(), out=dst)

        with pytest.raises(BadRequest, match="masked elements for block 1 of 1"):
            run(work)

    def test_masked_values_of_blocks_are_refused(self, run):
        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10, 4), dtype="f8")
            for block in pipe.blocks(dst):
                dst[block] = self.masked()[block] * 2

        with pytest.raises(BadRequest, match="no mask: they would become numbers"):
            run(work)

    def test_what_masks_nothing_is_written(self, run):
        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10, 4), dtype="f8")
            pipe.map_blocks(lambda part: np.ma.array(part.filled(7), mask=False), self.masked(), out=dst)
            pipe.send("x", dst)

        assert (run(work) == self.masked().filled(7)).all()


class TestMapBlocks:
    @pytest.mark.parametrize("out", LAYOUTS)
    @pytest.mark.parametrize("kind", LAYOUTS)
    def test_from_any_array_to_any(self, kind, out, run):
        def work(pipe: Any) -> None:
            spec, options = LAYOUTS[kind]
            src = pipe.allocate_temp(spec, shape=(30, 4), dtype="i4", **options)
            for b in pipe.blocks(src, memory=1500):
                src[b] = np.arange(b[0].start * 4, b[0].stop * 4).reshape(-1, 4)
            spec, options = LAYOUTS[out]
            dst = pipe.allocate("x", spec, shape=(30, 4), dtype="f8", **options)
            pipe.map_blocks(
                lambda a: a[:, ::-1] * 0.5, src, out=dst, memory=30_000 if {kind, out} & {"chunked", "packed"} else 2000
            )
            pipe.send("x", dst)

        assert (run(work) == np.arange(120).reshape(30, 4)[:, ::-1] * 0.5).all()

    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")
    @pytest.mark.parametrize(("dtype", "value"), [("i1", 300), ("i1", -300), ("u2", 1 << 40), ("f4", 1e300)])
    @pytest.mark.parametrize("out", _KINDS)
    def test_numbers_that_are_too_large_become_what_an_assignment_makes_of_them(self, out, dtype, value, run):
        def work(pipe: Any) -> None:
            spec, options = _KINDS[out]
            src = np.full((30, 4), value, "u8" if dtype == "u2" else None)
            mapped, assigned = [pipe.allocate_temp(spec, shape=(30, 4), dtype=dtype, **options) for _ in range(2)]
            pipe.map_blocks(lambda part: part, src, out=mapped)
            for b in pipe.blocks(src, assigned):
                assigned[b] = src[b]
            pipe.send("x", np.array([mapped[...], assigned[...]]))

        mapped, assigned = run(work)
        assert (mapped == assigned).all()
        info = np.iinfo(dtype) if dtype != "f4" else None
        if info is not None and out in ("raw", "chunked", "packed"):
            assert (mapped == (info.max if value > 0 else info.min)).all()  # as HDF5 has it

    @settings(max_examples=30)
    @given(
        shape=st.lists(st.integers(0, 12), max_size=3).map(tuple),
        dtypes=st.tuples(*[st.sampled_from(["u1", ">i4", "<f4", ">f8", "c16", "S3", "M8[s]", "?", "i2,f4"])] * 2),
        memory=st.integers(24_000, 40_000),
        kinds=st.tuples(*[st.sampled_from(["raw", "npy", "npy F"])] * 2),
        workers=st.integers(1, 3),
    )
    def test_shapes_and_dtypes(self, shape, dtypes, memory, kinds, workers, tmp_path_factory):
        dtype, other = map(np.dtype, dtypes)
        rng = np.random.default_rng(1)
        value = np.frombuffer(rng.bytes(max(1, int(np.prod(shape))) * dtype.itemsize), dtype)
        value = (value > 100 if dtype.kind == "?" else value)[: int(np.prod(shape))].reshape(shape)
        if dtype.kind in "fc":
            value = np.nan_to_num(value)
        if not np.can_cast(dtype, other, "same_kind") or "M8[s]" in (dtypes[0], dtypes[1]) and dtype != other:
            other = dtype
        spec = [(specs.ArraySpec, {"order": "F"}) if k == "npy F" else LAYOUTS[k] for k in kinds]
        if "M" in (dtype.kind, other.kind) or dtype.names:
            spec = [LAYOUTS["npy"]] * 2

        def work(pipe: Any) -> None:
            src = pipe.allocate_temp(spec[0][0], shape=shape, dtype=dtype, **spec[0][1])
            src[...] = value
            dst = pipe.allocate("x", spec[1][0], shape=shape, dtype=other, **spec[1][1])
            pipe.map_blocks(lambda a: a, src, out=dst, memory=memory, workers=workers)
            pipe.send("x", dst)

        with Plant(tmp_path_factory.mktemp("p"), durability="process") as plant:
            plant.add_reactors(ReactorFunc(name="r")(work))
            found = np.array(plant.produce("x")[...])
        expected = np.empty(shape, other)
        expected[...] = value
        assert found.dtype == other and found.tobytes() == expected.tobytes()

    def test_several_sources_and_a_smaller_output(self, run):
        def work(pipe: Any) -> None:
            a, b = np.arange(40.0).reshape(10, 4), np.arange(10.0)
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10,), dtype="f8")
            pipe.map_blocks(lambda a, b: a.sum(1) - b, a, b, out=dst, memory=500)
            pipe.send("x", dst)

        assert (run(work) == np.arange(40.0).reshape(10, 4).sum(1) - np.arange(10.0)).all()

    def test_plain_arrays_as_output(self, run):
        def work(pipe: Any) -> None:
            out = np.zeros(100)
            pipe.map_blocks(np.sqrt, np.arange(100.0), out=out, memory=1000)
            pipe.send("x", out)

        assert (run(work) == np.sqrt(np.arange(100.0))).all()

    def test_sources_in_memory_can_not_be_written_to(self, run):
        def work(pipe: Any) -> None:
            src = np.arange(10.0)

            def double(a: Any) -> Any:
                a *= 2
                return a

            pipe.map_blocks(double, src, out=np.zeros(10))

        with pytest.raises(ValueError, match="read-only"):
            run(work)

    def test_threads_call_the_function_and_the_order_stays(self, run):
        together = threading.Barrier(3, timeout=30)

        def work(pipe: Any) -> None:
            def f(a: Any) -> Any:
                together.wait()
                return a + 1

            out = np.zeros(12)
            pipe.map_blocks(f, np.arange(12.0), out=out, memory=5 * 2 * 8, workers=3)
            pipe.send("x", out)

        assert (run(work) == np.arange(12) + 1).all()

    @pytest.mark.parametrize(
        ("function", "options", "words"),
        [
            (lambda a: None, {}, r"returned None for block 1 of 4"),
            (lambda a: a[:-1], {}, r"returned an array of the shape \(2,\) for block 1 of 4 \[0:3\].*should be \(3,\)"),
            (lambda a: a[:-1], {"halo": 1}, r"should be \(3,\) \(or \(5,\), with its halo\)"),
            (lambda a: a + 1j, {}, r"returned complex128 for block 1 .* the output is float64.*astype\('float64'\)"),
            (
                lambda a: a.astype(object),
                {},
                r"returned object for block 1 .*hint: return result.astype\('float64'\)\n",
            ),
            (lambda a: None, {}, r"block 1"),
            (np.sqrt, {"workers": 0}, "workers=0"),
        ],
    )
    def test_results_that_do_not_fit(self, function, options, words, run):
        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10,), dtype="f8")
            memory = 3 * 2 * 8 * (5 if "halo" in options else 3)
            pipe.map_blocks(function, np.arange(10.0), out=dst, memory=memory, **options)

        with pytest.raises(BadRequest, match=f"(?s){words}"):
            run(work)

    def test_errors_of_the_function_name_the_block(self, run):
        def work(pipe: Any) -> None:
            pipe.map_blocks(lambda a: 1 / 0, np.arange(10.0), out=np.zeros(10), memory=500)

        with pytest.raises(ZeroDivisionError) as caught:
            run(work)
        assert caught.value.__notes__[0].startswith("in <block 1 of 1: [0:10]>")

    def test_an_output_that_takes_no_writes(self, run):
        def work(pipe: Any) -> None:
            sent = pipe.allocate("x", specs.HdfArraySpec, shape=(10,))
            pipe.send("x", sent)
            pipe.map_blocks(np.sqrt, np.arange(10.0), out=sent)

        with pytest.raises(BadRequest, match="out= takes no writes"):
            run(work)

    def test_too_little_memory(self, run):
        with pytest.raises(BadRequest, match=r"needs 96 bytes.*memory=10 was given"):
            run(lambda pipe: pipe.map_blocks(np.sqrt, np.zeros((3, 2)), out=np.zeros((3, 2)), memory=10))
        with pytest.raises(BadRequest, match="memory="):
            run(lambda pipe: pipe.map_blocks(np.sqrt, np.zeros(3), out=np.zeros(3), memory="much"))


class TestReduceBlocks:
    def reduce(self, run: Any, *sources: Any, **options: Any) -> Any:
        def work(pipe: Any) -> None:
            function = options.pop("function", np.sum)
            pipe.send("x", pipe.reduce_blocks(function, *sources, memory=300, **options))

        return run(work)

    def test_sums(self, run):
        assert self.reduce(run, np.arange(100.0)) == 4950

    @pytest.mark.parametrize("workers", [1, 3])
    def test_in_order(self, run, workers):
        found = self.reduce(run, np.arange(40), function=list, combine=lambda a, b: a + b, workers=workers)
        assert found.tolist() == list(range(40))

    def test_an_initial_value(self, run):
        assert self.reduce(run, np.arange(100.0), initial=-1, combine=max, function=np.max) == 99
        assert self.reduce(run, np.zeros(0), initial=7) == 7

    def test_nothing_at_all(self, run):
        assert self.reduce(run, np.zeros(0)) == None  # noqa: E711 (an array with None in it)

    def test_values_that_can_not_be_kept_are_no_trouble(self, run, caplog):
        def work(pipe: Any) -> None:
            lock = pipe.reduce_blocks(lambda a: threading.Lock(), np.zeros(100), combine=lambda a, b: a, memory=300)
            pipe.send("x", lock.locked())

        assert run(work) == False  # noqa: E712
        assert any("could not be resumed" in record.getMessage() for record in caplog.records)


class TestLoops:
    def test_bytes_between_fields_are_no_writes(self, run, caplog):
        dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
        held = [np.full(30 * dtype.itemsize, 0xAA, "u1") for _ in range(20)]

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.ArraySpec, shape=(60, 3), dtype=dtype, order="F")
            held.clear()  # copies get this memory
            for b in pipe.blocks(dst, memory="1kB", resume=True):
                dst[b] = np.ones((60, 3), dtype)[b]
            pipe.send("x", dst)

        run(work)
        assert not [text for text in caplog.messages if "can't be resumed" in text]

    def test_a_loop_left_early_raises_its_errors_at_the_send(self, run, monkeypatch):
        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10,))

            def refuse(selection: Any, value: Any) -> None:
                raise WarehouseError("no")

            monkeypatch.setattr(dst, "write_block", refuse)
            for b in pipe.blocks(dst):
                dst[b] = 1
                break
            pipe.send("x", dst)

        with pytest.raises(WarehouseError, match="no"):
            run(work)

    def test_or_at_the_end(self, run, monkeypatch):
        def work(pipe: Any) -> None:
            dst = pipe.allocate_temp(specs.HdfArraySpec, shape=(10,))

            def refuse(selection: Any, value: Any) -> None:
                raise WarehouseError("no")

            monkeypatch.setattr(dst, "write_block", refuse)
            for b in pipe.blocks(dst):
                dst[b] = 1
                break

        with pytest.raises(WarehouseError, match="no"):
            run(work)

    def test_sending_in_the_loop_waits_for_what_is_being_written(self, run):
        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(1000,), dtype="i4")
            for b in pipe.blocks(dst, memory=3 * 4 * 250):
                dst[b] = np.arange(b[0].start, b[0].stop)
                if b.index == b.count - 1:
                    pipe.send("x", dst)

        assert (run(work) == np.arange(1000)).all()

    def test_an_open_loop_ends_with_its_reactor(self, run):
        def work(pipe: Any) -> None:
            data = np.zeros(100)
            walk = iter(pipe.blocks(data, memory=300))
            next(walk)
            pipe.loops = walk  # somebody holds it

        run(work)

    def test_a_loop_across_a_yield(self, run):
        def work(pipe: Any) -> Any:
            pipe.send("y", 5)
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10,), dtype="i4")
            for b in pipe.blocks(dst, memory=3 * 4 * 3):
                y = yield pipe.receive("y")
                dst[b] = y + b.index
            pipe.send("x", dst)

        assert run(work).tolist() == [5, 5, 5, 6, 6, 6, 7, 7, 7, 8]

    @pytest.mark.parametrize("way", ["filled", "mapped", "looped", "reduced"])
    def test_what_is_done_has_no_file_open(self, way, run):
        """A reactor may fill and send thousands of arrays."""
        counts: list[int] = Unseen()

        def work(pipe: Any) -> None:
            for number in range(12):
                counts.append(len(os.listdir("/proc/self/fd")))
                if way == "reduced":
                    pipe.reduce_blocks(np.sum, np.arange(4.0))
                    continue
                dst = pipe.allocate(f"x{number}", specs.HdfArraySpec, shape=(4,), dtype="f8")
                if way == "mapped":
                    pipe.map_blocks(np.sqrt, np.arange(4.0), out=dst)
                for b in pipe.blocks(dst, resume=True) if way == "looped" else ():
                    dst[b] = 1
                pipe.send(f"x{number}", dst)
            pipe.send("x", 1)

        run(work)
        assert counts[-1] - counts[3] < 4

    @pytest.mark.parametrize("way", ["map", "temporary", "loop", "resumed", "reduce", "in memory"])
    def test_arrays_go_when_the_reactor_lets_go_of_them(self, way, run):
        """Not when Python next looks for cycles: they are large."""

        def work(pipe: Any) -> None:
            source, target = np.arange(30.0), np.empty(30)
            if way in ("map", "resumed", "temporary"):
                take = pipe.allocate_temp if way == "temporary" else partial(pipe.allocate, "x")
                target = take(specs.HdfArraySpec, shape=(30,), dtype="f8")
            if way == "reduce":
                pipe.reduce_blocks(np.sum, source, memory=3 * 8 * 4)
            elif way in ("loop", "resumed"):
                for b in pipe.blocks(source, target, memory=3 * 16 * 4, resume=way == "resumed"):
                    target[b] = source[b] + 1
            else:
                pipe.map_blocks(lambda part: part + 1, source, out=target, memory=3 * 16 * 4)
            if way in ("map", "resumed"):
                pipe.send("x", target)
            held = [weakref.ref(source), *([] if way == "temporary" else [weakref.ref(target)])]
            del source, target
            assert [array() for array in held] == [None] * len(held)

        gc.disable()
        try:
            run(work)
        finally:
            gc.enable()

    def test_resuming_needs_something_to_fill(self, run):
        with pytest.raises(BadRequest, match="fills no array"):
            run(lambda pipe: list(pipe.blocks(np.zeros(4), resume=True)))

    def test_no_arrays(self, run):
        with pytest.raises(BadRequest, match="needs an array"):
            run(lambda pipe: pipe.blocks())

    def test_a_pipe_that_has_ended(self, run):
        pipes: list[Any] = []
        run(pipes.append)
        with pytest.raises(BadRequest, match="which has ended"):
            pipes[0].blocks(np.zeros(3))

    @pytest.mark.parametrize("begun", [True, False])
    def test_a_loop_that_outlives_its_run(self, begun, run):
        loops: list[Iterator[Any]] = []

        def work(pipe: Any) -> None:
            loops.append(pipe.blocks(np.zeros(30), memory=3 * 8 * 3))
            if begun:
                next(loops[0])

        run(work)
        with pytest.raises(BadRequest, match="reactor r has ended, and its loop"):
            next(loops[0])

    def test_allocated_and_not_sent_is_an_error_as_ever(self, run):
        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10,))
            pipe.map_blocks(np.sqrt, np.zeros(10), out=dst)

        with pytest.raises(NotSent):
            run(work)

    def test_without_a_plant(self):
        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=src.shape)
            for b in pipe.blocks(src, dst, memory=100, resume=True):
                dst[b] = src[b] + 1
            pipe.send("x", dst)
            pipe.send("y", pipe.reduce_blocks(np.sum, src, memory=100))
            pipe.checkpoint("k", 3)
            pipe.send("z", pipe.checkpoint("k", default=4))

        pipe = run_reactor_to_completion(work, PipeworkMock({"src": np.arange(10.0)}))
        assert pipe.sent["y"] == 45 and pipe.sent["z"] == 3

    def test_the_plants_budget_is_the_default(self, run):
        counts = []

        def work(pipe: Any) -> None:
            counts.append(sum(1 for _ in pipe.blocks(np.zeros((1 << 20, 8), "f4"))))

        run(work)
        assert counts == [8]


class TestCheckpoints:
    """In one plant: a run that fails, and the next."""

    def attempts(self, tmp_path: Path, body: Callable[[Any, int], Any], times: int = 2, **options: Any) -> Any:
        """Run a reactor that fails each time but the last."""
        attempt = iter(range(times))

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            now = next(attempt)
            yield from body(pipe, now)
            if now < times - 1:
                raise RuntimeError("not yet")

        @ReactorFunc(name="s")
        def other(pipe: Any) -> None:
            pipe.send("y", 1)

        with Plant(tmp_path / "plant", durability="process", **options) as plant:
            plant.add_reactors(reactor, other)
            for _ in range(times - 1):
                with pytest.raises(RuntimeError, match="not yet"):
                    plant.produce("x")
            return plant.produce("x")

    def test_a_value_comes_back(self, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            seen = pipe.checkpoint("k", default=())
            pipe.checkpoint("k", (*seen, attempt))
            pipe.send("x", seen)
            return
            yield

        assert self.attempts(tmp_path, body, 4) == (0, 1, 2)

    @pytest.mark.parametrize("value", [None, 0, [1.5], np.arange(1e6), {"a": {1}}, "x" * 3_000_000])
    def test_of_any_kind(self, value, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            found = pipe.checkpoint("k", default="nothing")
            if attempt == 0:
                pipe.checkpoint("k", value)
            pipe.send("x", found)
            return
            yield

        found = self.attempts(tmp_path, body)
        assert type(found) is type(value) and (np.array_equal(found, value) or found == value)

    @pytest.mark.parametrize("trust", ["own", "data"])
    def test_the_run_itself_finds_what_it_kept_last(self, trust, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            pipe.checkpoint("k", 7)
            pipe.checkpoint("k", np.arange(3))
            state = [attempt]
            for _ in range(3):
                pipe.checkpoint("l", state)
                state.append(-1)
            pipe.checkpoint("m", None)
            found = [pipe.checkpoint(key, default="nothing") for key in "klmn"]
            pipe.send("x", [found[0].tolist(), *found[1:]])
            return
            yield

        assert self.attempts(tmp_path, body, trust=trust) == [[0, 1, 2], [1, -1, -1], None, "nothing"]

    def test_it_does_where_nothing_outlives_it_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("pyplantx.warehouse.resume.Workspaces.take", lambda *_: None)

        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            state = [attempt]
            pipe.checkpoint("k", state)
            state.append(-1)
            pipe.checkpoint("k").append(-2)
            found = [pipe.checkpoint("k"), pipe.checkpoint("l", default=0)]
            pipe.send("x", found)
            return
            yield

        assert self.attempts(tmp_path, body) == [[1], 0]

    def test_not_after_a_request(self, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            pipe.checkpoint("k", 1)
            yield pipe.receive("y")
            pipe.send("x", pipe.checkpoint("k", default=0))

        assert self.attempts(tmp_path, body) == 0

    @pytest.mark.parametrize("kind", _KINDS)
    @pytest.mark.parametrize("way", ["assigned", "looped", "mapped", "allocated later"])
    def test_not_behind_a_write_that_is_lost(self, way, kind, tmp_path, caplog):
        spec, options = _KINDS[kind]

        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            dst = None if way == "allocated later" else pipe.allocate("x", spec, shape=(30, 4), dtype="f8", **options)
            begun = pipe.checkpoint("row", default=0)
            pipe.checkpoint("row", 0)
            if dst is None:
                dst = pipe.allocate("x", spec, shape=(30, 4), dtype="f8", **options)
            if way == "mapped" and begun == 0:
                pipe.map_blocks(lambda part: part + 2, np.ones((30, 4)), out=dst)
            if way == "looped" and begun == 0:
                for b in pipe.blocks(dst):
                    dst[b] = np.full(b.shape + (4,), 3)
                    pipe.checkpoint("row", 1)
            for row in range(begun, 30):
                dst[row] = 3
                pipe.checkpoint("row", row + 1)
            assert begun == 0 and pipe.checkpoint("row") == 30
            if attempt == 0:
                raise RuntimeError("not yet")  # before the send, with which the places change
            pipe.send("x", dst)
            return
            yield

        with caplog.at_level(logging.WARNING, logger="pyplantx"):
            assert (np.array(self.attempts(tmp_path, body)) == 3).all()
        told = [text for text in caplog.messages if "is not restored after a kill: 'x' was written to" in text]
        assert len(told) == 2 and "pipe.map_blocks" in told[0]

    @pytest.mark.parametrize("kind", _KINDS)
    def test_what_was_written_before_it_was_asked_for_is_written_again(self, kind, tmp_path, caplog):
        spec, options = _KINDS[kind]

        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            scratch = pipe.allocate_temp(spec, shape=(30, 4), dtype="f8", **options)
            scratch[3:7] = 5
            pipe.map_blocks(lambda part: part + 2, scratch, out=scratch)
            empty = pipe.allocate("y", spec, shape=(30, 4), dtype="f8", **options)
            seen = pipe.checkpoint("k", default=())
            pipe.checkpoint("k", (*seen, float(np.sum(scratch[2:4]))))
            pipe.send("x", seen)
            pipe.send("y", empty)
            return
            yield

        with caplog.at_level(logging.WARNING, logger="pyplantx"):
            assert self.attempts(tmp_path, body) == (36.0,)
        assert not caplog.messages

    def test_files_are_arrays_in_that(self, tmp_path, caplog):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            path = Path(pipe.allocate("x", "file"))
            for line in range(pipe.checkpoint("line", default=0), 3):
                with path.open("a") as file:
                    file.write(f"{line}\n")
                pipe.checkpoint("line", line + 1)
            pipe.send("x", path)
            return
            yield

        with caplog.at_level(logging.WARNING, logger="pyplantx"):
            assert Path(self.attempts(tmp_path, body)).read_text() == "0\n1\n2\n"
        assert "'x' was written to" in caplog.text

    def test_keys_are_kept_apart(self, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            found = [pipe.checkpoint(key, default=0) for key in ("a", "b", "ab")]
            for number, key in enumerate(("a", "b"), 1):
                pipe.checkpoint(key, number)
            pipe.send("x", found)
            return
            yield

        assert self.attempts(tmp_path, body) == [1, 2, 0]

    def test_after_a_request_it_is_asked_for_again(self, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            before = pipe.checkpoint("k", default=0)
            y = yield pipe.receive("y")
            after = pipe.checkpoint("k", default=0)
            pipe.checkpoint("k", 10 + y)
            pipe.send("x", [before, after])

        assert self.attempts(tmp_path, body) == [0, 11]

    def test_a_changed_answer_takes_it_back(self, tmp_path):
        os.environ["BLOCKS_TEST"] = "old"

        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            found = pipe.checkpoint("k", default=0)
            if not found:
                pipe.checkpoint("k", 1)
                pipe.env("BLOCKS_TEST")
                pipe.checkpoint("k", 2)
            pipe.send("x", found)
            if attempt == 0:
                os.environ["BLOCKS_TEST"] = "new"
            return
            yield

        try:
            assert self.attempts(tmp_path, body) == 1
        finally:
            del os.environ["BLOCKS_TEST"]

    def test_what_was_seen_before_it_was_kept_counts_in_the_trace(self, tmp_path):
        ran = []

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            ran.append(1)
            found = pipe.checkpoint("k", default=None)
            if found is None:
                found = pipe.env("BLOCKS_TEST")
                pipe.checkpoint("k", found)
            if len(ran) == 1:
                raise RuntimeError("not yet")
            pipe.send("x", found)

        try:
            with Plant(tmp_path / "plant", durability="process") as plant:
                plant.add_reactors(reactor)
                os.environ["BLOCKS_TEST"] = "old"
                with pytest.raises(RuntimeError):
                    plant.produce("x")
                assert plant.produce("x") == "old"
                os.environ["BLOCKS_TEST"] = "new"
                assert plant.produce("x") == "new"
        finally:
            del os.environ["BLOCKS_TEST"]

    def test_what_can_not_be_stored_is_refused(self, run):
        with pytest.raises(CannotStore):
            run(lambda pipe: pipe.checkpoint("k", {"a": threading.Lock()}))

    def test_nothing_stays_when_the_reactor_has_ended(self, tmp_path):
        def body(pipe: Any, attempt: int) -> Iterator[Any]:
            pipe.checkpoint("k", attempt)
            pipe.send("x", 1)
            return
            yield

        self.attempts(tmp_path, body)
        assert os.listdir(tmp_path / "plant/staging") == []


class TestResumingInOnePlant:
    def test_a_loop_that_writes_otherwise_is_not_resumed(self, tmp_path, caplog):
        done = []

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(40,), dtype="i4")
            for b in pipe.blocks(dst, memory=3 * 4 * 4, resume=True):
                done.append(b.index)
                dst[b] = 1
                dst[b[0].start] = 2
                if len(done) == 5:
                    raise RuntimeError("not yet")
            pipe.send("x", dst)

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(RuntimeError):
                plant.produce("x")
            assert plant.produce("x")[:].tolist() == [2, 1, 1, 1] * 10
        assert len(done) == 15
        assert any("writes otherwise" in record.getMessage() for record in caplog.records)

    @pytest.mark.parametrize(
        ("mapped", "options"),
        [(True, {}), (True, {"order": "F"})]  # in a loop NumPy itself writes to these
        + [(mapped, options) for mapped in (True, False) for options in ({"chunks": None}, {"chunks": (10, 4)})],
    )
    def test_bytes_between_fields_are_kept(self, tmp_path, mapped, options, caplog):
        dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
        source = np.full(80 * 4 * dtype.itemsize, 0x77, "u1").view(dtype).reshape(80, 4)[::2]
        source["a"] = np.arange(40)[:, None]
        flag = tmp_path / "dead"

        def unless_dead(part: Any) -> Any:
            if (part["a"] == 20).any() and not flag.exists():
                flag.touch()
                raise RuntimeError("not yet")
            return part

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            spec = specs.ArraySpec if options in ({}, {"order": "F"}) else specs.HdfArraySpec
            dst = pipe.allocate("x", spec, shape=(40, 4), dtype=dtype, **options)
            if mapped:
                pipe.map_blocks(unless_dead, source, out=dst, memory="4kB")
            else:
                for b in pipe.blocks(dst, memory="2kB", resume=True):
                    dst[b] = unless_dead(source[b])
            pipe.send("x", dst)

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(RuntimeError):
                plant.produce("x")
            found = plant.produce("x")[...]
        assert np.ascontiguousarray(found.view("V16")).tobytes() == np.ascontiguousarray(source.view("V16")).tobytes()
        assert not [text for text in caplog.messages if "checksums" in text]

    def test_a_body_may_let_go_of_scratch_space(self, tmp_path, caplog):
        done = []

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(40,), dtype="i4")
            scratch = pipe.allocate_temp(specs.HdfArraySpec, shape=(4,), dtype="i4")
            for b in pipe.blocks(dst, memory=3 * 4 * 4, resume=True):
                done.append(b.index)
                scratch = pipe.allocate_temp(specs.HdfArraySpec, shape=(4,), dtype="i4")
                scratch[:] = b.index
                dst[b] = scratch[:]
                if len(done) == 5:
                    raise RuntimeError("not yet")
            pipe.send("x", dst)

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(RuntimeError):
                plant.produce("x")
            assert plant.produce("x")[:].tolist() == [number // 4 for number in range(40)]
        assert len(done) == 11 and not caplog.messages

    @pytest.mark.parametrize("spec", [specs.HdfArraySpec, specs.ArraySpec])
    def test_what_was_written_before_the_loop_is_not_forgotten(self, tmp_path, spec):
        done = []

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("x", spec, shape=(40,), dtype="i4")
            dst[...] = 7
            for b in pipe.blocks(dst, memory=3 * 4 * 4, resume=True):
                done.append(b.index)
                dst[b] += 1
                if len(done) == 5:
                    raise RuntimeError("not yet")
            pipe.send("x", dst)

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(RuntimeError):
                plant.produce("x")
            assert set(np.array(plant.produce("x")).tolist()) == {8}

    @pytest.mark.parametrize("spec", [specs.HdfArraySpec, specs.ArraySpec])
    @pytest.mark.parametrize(("stop", "warned"), [(25, False), (5, True)], ids=["in the next map", "damaged"])
    def test_what_does_not_match_is_told_as_damage_only_if_it_is(self, stop, warned, spec, tmp_path, caplog):
        calls = Unseen()

        def plus_1(part: Any) -> Any:
            calls.append(1)
            if len(calls) == stop:
                raise RuntimeError("not yet")
            return part + 1

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("x", spec, shape=(400,), dtype="f8")
            for source in (np.ones(400), dst, dst):
                pipe.map_blocks(plus_1, source, out=dst, memory=20 * 8 * 2 * 3)
            pipe.send("x", dst)

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(RuntimeError):
                plant.produce("x")
            if warned:
                (path,) = tmp_path.glob("plant/staging/resume/*/*/data-*")
                with path.open("r+b") as file:
                    file.seek(-399 * 8, os.SEEK_END)
                    file.write(b"damage")
            with caplog.at_level(logging.INFO, logger="pyplantx"):
                assert set(np.array(plant.produce("x")).tolist()) == {4.0}
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert [("don't match their checksums" in text) for text in warnings] == [True] * warned
        is_told = spec is specs.HdfArraySpec  # who writes to it, and looks at it
        found = "had been through pass 2" if is_told else "of a finished loop were written to after it, or damaged"
        assert warned or found in caplog.text

    def test_the_number_of_a_loop_counts(self, tmp_path):
        calls = Unseen()

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            first = pipe.allocate_temp(specs.HdfArraySpec, shape=(40,), dtype="i4")
            second = pipe.allocate_temp(specs.HdfArraySpec, shape=(40,), dtype="i4")

            def one(x: Any) -> Any:
                calls.append(1)
                if len(calls) == 15:
                    raise RuntimeError("not yet")
                return x + 1

            pipe.map_blocks(one, np.zeros(40, "i4"), out=first, memory=3 * 2 * 16)
            pipe.map_blocks(one, np.full(40, 5, "i4"), out=second, memory=3 * 2 * 16)
            pipe.send("x", [int(first[:].sum()), int(second[:].sum())])

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(RuntimeError):
                plant.produce("x")
            assert plant.produce("x") == [40, 240]
        assert len(calls) == 15 + 6

    @settings(max_examples=40)
    @given(
        shape=st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple),
        dtype=st.sampled_from(["u1", ">i4", "<f4", ">f8", "c16", "?", "i2,f4", "M8[s]"]).map(np.dtype),
        layout=st.sampled_from(["raw", "chunked", "packed", "npy", "npy F"]),
        way=st.sampled_from(["map", "walk", "walk and add"]),
        axis=st.integers(0, 2),
        rows=st.integers(1, 4),
        stops=st.lists(st.integers(0, 6), max_size=3),
    )
    def test_any_array_stopped_anywhere(self, shape, dtype, layout, way, axis, rows, stops, tmp_path_factory):
        axis %= len(shape)
        if dtype.kind in "VM":
            layout, way = "npy F" if layout == "npy F" else "npy", "walk"
        spec, options = LAYOUTS[layout]
        if layout in ("chunked", "packed"):
            options = {**options, "chunks": tuple([min(2, length) for length in shape])}
            rows = 2 * rows
        row = 6 * dtype.itemsize * int(np.prod(shape)) // shape[axis]  # of two arrays, three times
        value = some_values(shape, dtype)
        stop, left = iter(stops), [0]

        def once_more(x: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                raise RuntimeError("stopped")
            return x

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", spec, shape=shape, dtype=dtype, **options)
            if way == "map":
                pipe.map_blocks(once_more, value, out=dst, memory=rows * row, axis=axis)
            else:
                for b in pipe.blocks(value, dst, resume=True, memory=rows * row, axis=axis):
                    dst[b] = value[b] if way == "walk" else dst[b] + value[b]
                    once_more(None)
            pipe.send("x", dst)

        with Plant(tmp_path_factory.mktemp("p"), durability="process") as plant:
            plant.add_reactors(ReactorFunc(name="r")(work))
            found = None
            while found is None:
                left[0] = next(stop, -1)
                try:
                    found = np.array(plant.produce("x")[...])
                except RuntimeError:
                    hypothesis.event("stopped")
        assert found.dtype == dtype and found.tobytes() == value.tobytes()

    def test_what_is_kept_for_a_resume_never_fills_the_disk(self, small_disk, caplog):
        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(100, 1 << 20), dtype="u1", compression="gzip")
            pipe.map_blocks(lambda x: np.full((*x.shape, 1 << 20), 7, "u1"), np.zeros(100, "u1"), out=dst)
            pipe.send("x", dst)

        with Plant(small_disk / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            assert (plant.produce("x")[99] == 7).all()
        assert any("could not be resumed" in record.getMessage() for record in caplog.records)

    def test_a_ledger_that_was_given_up_is_spoken_of_once_and_gets_no_copies(self, run, monkeypatch, caplog):
        done, second, asked = Attempt.done, threading.Event(), []

        def no_space(spool: Any, block: Any, nbytes: int) -> None:
            assert second.wait(60)
            asked.append(block.index)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def watched(attempt: Attempt, block: Any) -> Any:
            note = done(attempt, block)
            if block.index == 1:
                second.set()
            return note

        monkeypatch.setattr(Spool, "_ask_for_space", no_space)
        monkeypatch.setattr(Attempt, "done", watched)

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(40, 10), dtype="f8", chunks=(10, 10))
            for number, b in enumerate(pipe.blocks(dst, memory="3kB", resume=True)):
                dst[b] = number
            pipe.send("x", dst)

        assert run(work)[35, 0] == 3
        assert asked == [0] and sum("could not be resumed" in text for text in caplog.messages) == 1

    def test_a_workspace_that_could_not_be_begun_is_there_for_the_next_run(self, tmp_path, monkeypatch, caplog):
        append, lines = Ledger.append, []

        def full_at_first(ledger: Ledger, entry: dict[str, Any]) -> None:
            lines.append(entry)
            if len(lines) == 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            append(ledger, entry)

        monkeypatch.setattr(Ledger, "append", full_at_first)
        stops, calls = iter([True, True, False]), Unseen()

        def one(part: Any) -> Any:
            calls.append(1)
            return part + 1

        def work(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(10, 4), dtype="f8")
            pipe.map_blocks(one, np.zeros((10, 4)), out=dst, memory=6 * 32)
            if next(stops):
                raise ZeroDivisionError
            pipe.send("x", dst)

        with Plant(tmp_path / "plant", durability="process") as plant, caplog.at_level("INFO", "pyplantx"):
            plant.add_reactors(ReactorFunc(name="r")(work))
            for blocks in (10, 20):
                with pytest.raises(ZeroDivisionError):
                    plant.produce("x")
                assert len(calls) == blocks
            assert (plant.produce("x")[...] == 1).all()
        assert len(calls) == 20 and "another process" not in caplog.text

    def test_a_full_disk_loses_nothing_that_was_done(self, small_disk, caplog):
        caplog.set_level(logging.WARNING)
        calls = Unseen()

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=(40, 32768), dtype="u1")

            def row(x: Any) -> Any:
                calls.append(1)
                if len(calls) == 20:
                    _fill(small_disk / "ballast")
                return np.full(x.shape, len(calls), "u1")

            pipe.map_blocks(row, np.zeros((40, 32768), "u1"), out=dst, memory=3 * 2 * 32768)
            pipe.send("x", dst)

        with Plant(small_disk / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(WarehouseError, match="space"):
                plant.produce("x")
            (small_disk / "ballast").unlink()
            before = len(calls)
            assert plant.produce("x").shape == (40, 32768)
            assert len(calls) - before <= 40 - 15


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(ballast: Path) -> None:
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return

"""map_blocks and reduce_blocks on threads, processes, executors of the user's: the same results, whatever happens."""

from __future__ import annotations

import gc
import glob
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx import ConfigBase, ConfigValue, Plant, ReactorFunc, specs
from pyplantx.blocks import travel
from pyplantx.blocks.geometry import IN_FLIGHT
from pyplantx.blocks.handles import handle_of
from pyplantx.blocks.maps import Hands
from pyplantx.blocks.spaced import Spaced, has_gaps
from pyplantx.errors import BadRequest, ReactorError
from pyplantx.executors.channel import decode, encode
from pyplantx.executors.processes import WorkerProcesses
from pyplantx.executors.workers import Threads, workers_for
from tests.blocks.values import LAYOUTS, flip, some_values
from tests.executors.waiting import is_gone, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerProcesses]:
    """Two processes for all tests of this file."""
    workers = WorkerProcesses(2)
    yield workers
    workers.close()


def produced(folder: Path, workers: Any, *functions: Callable[..., Any], config: Any = None) -> Any:
    """The ingredient 'x' of some reactors, in a new plant."""
    with Plant(folder, durability="process", config=config) as plant:
        plant._workers = workers
        *others, last = functions
        plant.add_reactors(*[ReactorFunc(name=function.__name__)(function) for function in others])
        plant.add_reactors(ReactorFunc(name=last.__name__, sends="x")(last))
        try:
            return np.array(plant.produce("x"))
        finally:
            plant._workers = None  # which other tests go on with


def sender(value: Any, spec: Any = None, **options: Any) -> Callable[[Any], None]:
    """A reactor that sends some values as 'src': as they are, or in an array that was allocated."""

    def source(pipe: Any) -> None:
        if spec is None:
            pipe.send("src", value)
            return
        dataset = pipe.allocate("src", spec, shape=value.shape, dtype=value.dtype, **options)
        dataset[...] = value
        pipe.send("src", dataset)

    return source


#: Layouts of sources; one that is "sent" was not allocated.
KINDS: dict[str, Any] = {"sent": (None, {}), **LAYOUTS}

DTYPES = ["u1", ">i4", "<f4", ">f8", "c16", "?", "M8[s]", "i2,f4", "S3"]


class TestTheSame:
    @settings(max_examples=25)
    @given(
        shape=st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple),
        dtype=st.sampled_from(DTYPES).map(np.dtype),
        kinds=st.tuples(*[st.sampled_from([*KINDS])] * 2),
        halo=st.integers(0, 3),
        received=st.booleans(),
    )
    def test_maps(self, shape, dtype, kinds, halo, received, pool, tmp_path_factory):
        if dtype.kind in "MV":
            kinds = tuple("npy" if kind in ("raw", "chunked", "packed") else kind for kind in kinds)
        value = some_values(shape, dtype)

        def mixed(part: Any) -> Any:
            """Of each row and those that the halo has, whichever block they come in."""
            found = np.array(part, order="C")
            for step in range(1, halo + 1):
                for one, other in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
                    found[one] = np.where(found[one] == part[other], part[one], found[one])
                    if dtype.kind in "fic":
                        found[one] += part[other]
            return found

        def work(pipe: Any) -> Any:
            src = (yield pipe.receive("src")) if received else value
            spec, options = KINDS[kinds[1]] if kinds[1] != "sent" else KINDS["npy"]
            dst = pipe.allocate("x", spec, shape=shape, dtype=dtype, **options)
            pipe.map_blocks(mixed, src, out=dst, memory="100kB" if 0 in shape else "4MB", halo=halo)
            pipe.send("x", dst)

        spec, options = KINDS[kinds[0]]
        functions = [sender(value, spec, **options), work]
        found = [
            produced(tmp_path_factory.mktemp("p"), workers, *functions)
            for workers in (None, workers_for("threads"), pool)
        ]
        assert found[0].dtype == dtype and found[0].shape == shape
        assert len({one.tobytes() for one in found}) == 1
        hypothesis.event(f"changed: {found[0].tobytes() != value.tobytes()}")

    @settings(max_examples=15)
    @given(
        rows=st.integers(0, 3000),
        kind=st.sampled_from(["sent", "raw", "packed"]),
        memory=st.sampled_from(["300kB", "1MB"]),
        seed=st.integers(0, 5),
    )
    def test_reductions(self, rows, kind, memory, seed, pool, tmp_path_factory):
        """Sums of floats depend on their order, and on the blocks: cut alike, they are the same to the last bit."""
        value = np.random.default_rng(seed).normal(size=(rows, 7))

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            total = pipe.reduce_blocks(lambda part: [part.sum(), len(part)], src, combine=joined, memory=memory)
            pipe.send("x", np.array(total if total is not None else []))

        def joined(one: Any, other: Any) -> Any:
            return [one[0] / 2 + other[0], *one[1:], other[1]]

        spec, options = KINDS[kind]
        options = {**options, "chunks": (min(100, rows), 7)} if options and rows else options
        functions = [sender(value, spec, **options), work]
        found = {}
        for name, workers in (("threads", threads_alike()), ("processes", pool)):
            found[name] = produced(tmp_path_factory.mktemp("p"), workers, *functions)
        assert found["threads"].tobytes() == found["processes"].tobytes()
        assert found["threads"][1:].sum() == rows

    @settings(max_examples=60)
    @given(
        shape=st.lists(st.integers(1, 40), min_size=1, max_size=4),
        order=st.permutations(range(4)),
        cuts=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40), st.integers(1, 3)), min_size=4, max_size=4),
        seed=st.integers(0, 9),
    )
    def test_sums_of_parts_with_gaps(self, shape, order, cuts, seed):
        """As they are after having been sent: in memory they are summed in the same order."""
        axes = [axis for axis in order if axis < len(shape)]
        array = np.random.default_rng(seed).normal(size=shape).transpose(axes)
        part = array[tuple(slice(*cut) for cut, _ in zip(cuts, axes))]
        found = decode(encode(Spaced(part) if has_gaps(part) else part))
        assert (found == part).all() and found.shape == part.shape
        assert found.sum() == part.sum() or not part.size
        assert all((found.sum(axis) == part.sum(axis)).all() for axis in range(part.ndim))

    def test_sums_of_rows_in_fortran_order(self, pool, tmp_path):
        value = np.asfortranarray(np.random.default_rng(1).normal(size=(300, 200)))
        found = {}

        def sums(part: Any) -> list[float]:
            return [float(part.sum()), float((part * 0.1).sum())]

        for name, workers in (("threads", threads_alike()), ("processes", pool)):

            def work(pipe: Any) -> None:
                pipe.send("x", np.array(pipe.reduce_blocks(sums, value, combine=list.__add__, memory="500kB")))

            found[name] = produced(tmp_path / name, workers, work)
        assert found["threads"].tobytes() == found["processes"].tobytes() and len(found["threads"]) > 2

    def test_masks_travel(self, pool, tmp_path):
        masked = np.ma.array(np.arange(30000.0), mask=np.arange(30000) % 2 == 0)

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            total = pipe.reduce_blocks(lambda part: np.array([part.sum(), part.count()]), src, memory="100kB")
            pipe.send("x", total)

        found = produced(tmp_path, pool, sender(masked, None), work)
        assert found.tolist() == [masked.sum(), 15000]

    @pytest.mark.parametrize("kind", ["sent", "raw", "packed"])
    def test_memory_order_and_right_to_write(self, kind, pool, tmp_path):
        seen: dict[str, Any] = {}

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            looks = partial(pipe.reduce_blocks, combine=lambda a, b: a, memory="4MB")
            seen[f"{kind} here"] = looks(lambda part: (part.flags.writeable, part.strides, type(part)), src, workers=1)
            seen[f"{kind} there"] = looks(lambda part: (part.flags.writeable, part.strides, type(part)), src)
            pipe.send("x", 1)

        spec, options = KINDS[kind]
        produced(tmp_path, pool, sender(np.zeros((4000, 30)), spec, **options), work)
        assert seen[f"{kind} here"] == seen[f"{kind} there"]

    def test_sparse_rows(self, pool, tmp_path):
        from scipy import sparse

        matrix = sparse.random(3000, 40, 0.05, format="csr", random_state=1)

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            dst = pipe.allocate("x", specs.ArraySpec, shape=src.shape, dtype="f8")
            pipe.map_blocks(lambda part: part.toarray() + 1, src, out=dst, memory="1MB")
            pipe.send("x", dst)

        assert (produced(tmp_path, pool, sender(matrix), work) == matrix.toarray() + 1).all()


def threads_alike() -> Threads:
    """As many threads as have blocks in flight like two processes, so that the blocks are the same."""
    return Threads(6)


class TestWhoDoesIt:
    def pids(self, executor: Any, tmp_path: Path, **options: Any) -> set[int]:
        def work(pipe: Any) -> None:
            found = pipe.reduce_blocks(
                lambda part: {os.getpid()}, np.zeros((400, 500)), combine=set.union, memory="2MB", **options
            )
            pipe.send("x", sorted(found))

        return set(produced(tmp_path, executor, work).tolist())

    def test_processes(self, pool, tmp_path):
        assert os.getpid() not in self.pids(pool, tmp_path)

    def test_one_worker_is_the_reactors_own_thread(self, pool, tmp_path):
        assert self.pids(pool, tmp_path, workers=1) == {os.getpid()}

    def test_as_many_as_are_wanted(self, tmp_path):
        workers = WorkerProcesses(1)
        try:
            assert len(self.pids(workers, tmp_path, workers=3)) <= 3
            assert 2 <= len(workers._idle) <= 3
        finally:
            workers.close()

    def test_threads(self, tmp_path):
        together = threading.Barrier(2, timeout=30)

        def work(pipe: Any) -> None:
            out = np.zeros(1 << 18)
            pipe.map_blocks(lambda part: part + min(together.wait(), 0), np.ones(1 << 18), out=out, memory=1 << 22)
            pipe.send("x", out.sum())

        with ThreadPoolExecutor(2) as threads:
            assert produced(tmp_path / "given", workers_for(threads), work) == 1 << 18

    def test_an_executor_of_the_users(self, tmp_path):
        with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as processes:
            assert os.getpid() not in self.pids(workers_for(processes), tmp_path)

    def test_loky(self, tmp_path):
        loky = pytest.importorskip("loky")
        with loky.ProcessPoolExecutor(2) as processes:
            assert os.getpid() not in self.pids(workers_for(processes), tmp_path)

    def test_dask_on_a_cluster(self, tmp_path):
        distributed = pytest.importorskip("distributed")
        with distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
            assert os.getpid() not in self.pids(workers_for(client.get_executor()), tmp_path)

    def test_the_plants_own_are_ended_with_it(self, tmp_path):
        with Plant(tmp_path, executor="processes", durability="process") as plant:

            @ReactorFunc(name="r")
            def work(pipe: Any) -> None:
                blocks = np.zeros((400, 500))
                pipe.send("x", pipe.reduce_blocks(lambda x: {os.getpid()}, blocks, combine=set.union, workers=2))

            plant.add_reactors(work)
            pids = plant.produce("x")
        assert pids and all(is_gone(pid) for pid in pids)

    def test_what_is_no_executor_leaves_no_store_behind(self, tmp_path):
        with pytest.raises(BadRequest, match="executor='process' is not possible"):
            Plant(tmp_path / "plant", executor="process")
        assert not (tmp_path / "plant").exists()


class Settings(ConfigBase):
    scale: float = ConfigValue(2.0)
    other: float = ConfigValue(1.0)

    def doubled(self) -> float:
        return 2 * self.scale


class TestWhatTravels:
    def test_a_config_is_observed_as_a_whole(self, pool, tmp_path):
        ran = []

        def work(pipe: Any, config: Any) -> None:
            ran.append(1)
            out = np.zeros(1000)
            pipe.map_blocks(lambda part: part + config.doubled(), np.zeros(1000), out=out)
            pipe.send("x", out)

        for settings_, value, runs in (({}, 4, 1), ({}, 4, 1), ({"scale": 5.0}, 10, 2), ({"other": 3.0}, 4, 3)):
            config = Settings()
            vars(config).update(settings_)
            assert (produced(tmp_path, pool, work, config=config) == value).all()
            assert len(ran) == runs

    def test_a_value_of_it_is_not(self, pool, tmp_path):
        ran = []

        def work(pipe: Any, config: Any) -> None:
            ran.append(1)
            scale, out = config.scale, np.zeros(1000)
            pipe.map_blocks(lambda part: part + scale, np.zeros(1000), out=out)
            pipe.send("x", out)

        for other in (1.0, 2.0):
            config = Settings()
            config.other = other
            assert (produced(tmp_path, pool, work, config=config) == 2).all()
        assert len(ran) == 1

    @pytest.mark.parametrize("what", ["read_config", "receive", "env"])
    def test_a_pipe_is_refused(self, what, pool, tmp_path):
        def work(pipe: Any) -> None:
            pipe.map_blocks(lambda part: getattr(pipe, what)("a"), np.zeros(10), out=np.zeros(10))

        with pytest.raises(BadRequest, match="(?s)of map_blocks can't be sent.*the pipe of a reactor.*read the config"):
            produced(tmp_path, pool, work, config={"a": 1})

    def test_so_is_what_is_open(self, pool, tmp_path):
        lock = threading.Lock()

        def work(pipe: Any) -> None:
            pipe.reduce_blocks(lambda part: lock.locked(), np.zeros(10))

        with pytest.raises(BadRequest, match="(?s)of reduce_blocks can't be sent.*a lock"):
            produced(tmp_path, pool, work)

    def test_arrays_that_it_refers_to(self, pool, tmp_path):
        """Those in files are mapped there; to write to them changes nobody else's."""

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")

            def add(part: Any) -> Any:
                src[0] = 7
                return part + src

            out = np.zeros((50, 20_000))
            pipe.map_blocks(add, np.zeros((50, 20_000)), out=out, memory="16MB")
            pipe.send("x", [out[:, 1:].sum(), out[3, 0], src[0]])

        found = produced(tmp_path, pool, sender(np.arange(20_000.0)), work)
        assert found.tolist() == [50 * np.arange(20_000.0).sum(), 7, 0]

    def test_what_it_changes_besides_stays_there(self, pool, tmp_path):
        seen: list[int] = []

        def work(pipe: Any) -> None:
            pipe.reduce_blocks(lambda part: seen.append(1), np.zeros(10), combine=lambda a, b: None)
            pipe.send("x", len(seen))

        assert produced(tmp_path, pool, work) == 0


class TestPlaces:
    """Which sources a worker reads by itself."""

    def seen(self, workers: Any, tmp_path: Path, value: Any, change: Any = None, **kind: Any) -> tuple[bool, Any]:
        found = []

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            if change is not None:
                change(src)
            _, (handle,) = travel.pack(len, [handle_of(src)], "a test", workers)
            found.append(isinstance(handle, travel.Placed))
            pipe.send("x", pipe.reduce_blocks(np.sum, src, memory="16MB"))

        total = produced(tmp_path, workers, sender(value, **kind), work)
        return found[0], total

    @pytest.mark.parametrize("kind", KINDS)
    def test_received_ones(self, kind, pool, tmp_path):
        spec, options = KINDS[kind]
        value = np.arange(600_000).reshape(300, 2000)
        assert self.seen(pool, tmp_path, value, spec=spec, **options) == (True, value.sum())

    @pytest.mark.parametrize("spec", [specs.HdfArraySpec, specs.ZarrArraySpec])
    def test_received_ones_that_the_function_refers_to(self, spec, pool, tmp_path):
        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            pipe.send("x", pipe.reduce_blocks(lambda part: float(part.sum() + src[2]), np.ones(9)))

        assert produced(tmp_path, pool, sender(np.arange(5.0), spec), work) == 11

    def test_not_an_array_that_was_changed(self, pool, tmp_path):
        value = np.ones((300, 2000))
        found = self.seen(pool, tmp_path, value, lambda src: src.__setitem__((7, 8), 5.0))
        assert found == (False, 600_004)

    def test_not_small_ones(self, pool, tmp_path):
        assert self.seen(pool, tmp_path, np.ones(10)) == (False, 10)

    def test_not_what_is_not_sent_yet(self, pool, tmp_path):
        def work(pipe: Any) -> None:
            src = pipe.allocate_temp(specs.HdfArraySpec, shape=(300, 2000), dtype="f8")
            src[...] = 2
            _, (handle,) = travel.pack(len, [handle_of(src, pipe._run.allocation_of(src))], "a test", pool)
            assert not isinstance(handle, travel.Placed)
            pipe.send("x", pipe.reduce_blocks(np.sum, src, memory="16MB"))

        assert produced(tmp_path, pool, work) == 1_200_000

    @pytest.mark.parametrize("kind", ["sent", "raw"])
    def test_what_can_not_be_read_there_is_sent(self, kind, pool, tmp_path, monkeypatch):
        """As if the worker were on another machine."""
        monkeypatch.setattr("pyplantx.blocks.travel.Errand.__reduce__", elsewhere)
        spec, options = KINDS[kind]
        value = np.arange(600_000).reshape(300, 2000)
        assert self.seen(pool, tmp_path, value, spec=spec, **options) == (True, value.sum())


def elsewhere(errand: travel.Errand) -> tuple[Any, ...]:
    sources = [source and Gone() for source in errand._sources]
    return travel.Errand, (errand._function, sources)


class Gone:
    """A source that is not there."""

    def read_block(self, box: Any) -> Any:
        raise FileNotFoundError("another machine")


class TestDamage:
    @pytest.mark.parametrize("kind", ["raw", "packed", "sent"])
    def test_in_a_source_is_noticed(self, kind, pool, tmp_path):
        """The result is that of the source as it was made again."""
        value = np.random.default_rng(1).normal(size=(1000, 2000))
        made = []

        def work(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            dst = pipe.allocate("x", specs.HdfArraySpec, shape=src.shape, dtype="f8")
            pipe.map_blocks(lambda part: part * 2, src, out=dst, memory="32MB")
            pipe.send("x", dst)

        def source(pipe: Any) -> None:
            made.append(1)
            sender(value, KINDS[kind][0], **KINDS[kind][1])(pipe)

        with Plant(tmp_path, durability="process") as plant:
            plant.add_reactors(ReactorFunc(name="source")(source))
            plant.produce("src")
        (path,) = glob.glob(str(tmp_path / "objects/*/*/data.*"))
        flip(path, os.path.getsize(path) * 2 // 3, 6)
        assert (produced(tmp_path, pool, source, work) == value * 2).all()
        assert len(made) == 2


class TestMemory:
    @pytest.mark.parametrize("executor", ["processes", "threads"])
    @pytest.mark.parametrize("count", [2, 8, 60])
    def test_what_is_in_flight_fits(self, executor, count, tmp_path):
        """Of each array: what is read ahead and written behind, what each worker has, and what waits."""
        workers = workers_for(executor)
        workers.count = count
        grids = []

        def work(pipe: Any) -> None:
            shop, arrays = pipe._run.workshop(), [np.zeros((50_000, 10)), np.zeros(50_000)]
            hands = shop._hands("map_blocks", len, arrays, None)
            grids.append(shop._cut_for(hands, [handle_of(array) for array in arrays], "2MB", 0, 3))
            pipe.send("x", 1)

        produced(tmp_path, workers, work)
        ((grid, hands),) = grids
        assert hands.threads == count and hands.ahead == (count if executor == "processes" else 0)
        copies = IN_FLIGHT + (3 * count if executor == "processes" else count) - 1
        assert copies * (grid.steps[0] + 6) * 11 * 8 <= 2_000_000 < 1.1 * copies * (grid.steps[0] + 7) * 11 * 8

    def test_no_more_is_under_way_than_that(self):
        drawn: list[int] = []

        def work() -> Iterator[Any]:
            for number in range(50):
                drawn.append(number)
                yield number, [number]

        hands = Hands(lambda: nullcontext(lambda part: part), [], threads=2, ahead=3)
        for number, box in hands.apply(work()):
            assert box == [number] and len(drawn) <= number + 5
        assert len(drawn) == 50

    def test_where_memory_is_short_there_are_fewer_workers(self, tmp_path):
        """As many as there is room for: a program that runs without an executor runs with one."""
        workers = WorkerProcesses(16)
        value = np.ones((4000, 30))

        def work(pipe: Any, **options: Any) -> Any:
            src = yield pipe.receive("src")
            pipe.send("x", pipe.reduce_blocks(np.sum, src, memory="4MB", **options))

        def insists(pipe: Any) -> Any:
            return work(pipe, workers=16)

        source = sender(value, specs.HdfArraySpec, chunks=(4000, 30))
        assert produced(tmp_path / "plant", workers, source, work) == 120_000
        assert len(workers._idle) == 1
        workers.close()
        with pytest.raises(BadRequest, match="each array 50 times"):
            produced(tmp_path / "plant", workers, source, insists)


class TestErrors:
    def test_name_the_block_and_the_line(self, pool, tmp_path):
        def work(pipe: Any) -> None:
            pipe.map_blocks(lambda part: int("x"), np.arange(9), out=np.zeros(9))

        with pytest.raises(ValueError, match="invalid literal") as caught:
            produced(tmp_path, pool, work)
        there, block, *_ = caught.value.__notes__
        assert 'int("x")' in there and block.startswith("in <block 1 of ")

    def test_the_first_block_that_fails_is_told(self, pool, tmp_path):
        def fail(part: Any) -> None:
            raise RuntimeError(int(part[0, 0]))

        def work(pipe: Any) -> None:
            pipe.reduce_blocks(fail, np.arange(40 * 5000).reshape(40, 5000), memory="2MB")

        for attempt in range(3):
            with pytest.raises(RuntimeError, match="^0\n"):
                produced(tmp_path / str(attempt), pool, work)

    def test_the_workers_go_on_with_the_next_loop(self, pool, tmp_path):
        def work(pipe: Any) -> None:
            with pytest.raises(ZeroDivisionError):
                pipe.reduce_blocks(lambda part: 1 // int(part[0]), np.zeros(10))
            pipe.send("x", pipe.reduce_blocks(np.sum, np.ones(10)))

        assert produced(tmp_path, pool, work) == 10

    def test_a_worker_that_dies_names_the_block(self, pool, tmp_path):
        def work(pipe: Any) -> None:
            pipe.reduce_blocks(lambda part: os._exit(9), np.zeros(10))

        with pytest.raises(ReactorError, match="each time it died: it ended with status 9") as caught:
            produced(tmp_path, pool, work)
        assert caught.value.__notes__[0].startswith("in <block 1 of 1")

    def test_results_that_do_not_fit(self, pool, tmp_path):
        def work(pipe: Any) -> None:
            pipe.map_blocks(lambda part: part[:-1], np.zeros(10), out=np.zeros(10))

        with pytest.raises(BadRequest, match=r"returned an array of the shape \(9,\) for block 1"):
            produced(tmp_path, pool, work)


PROGRAM = """
import os, signal, sys, time
import numpy as np
from pyplantx import *

class Stats:
    def __init__(self, total):
        self.total = total
    def __add__(self, other):
        assert type(other) is Stats
        return Stats(self.total + other.total)

class Trouble(Exception):
    pass

STEP = 3

def note():
    with open(sys.argv[2], "a") as file:
        file.write(f"{os.getpid()}\\n")
    with open(sys.argv[2]) as file:
        return len(file.readlines())

def helper(part):
    if 0 < int(sys.argv[3]) <= note():  # two may have noted before one of them counts
        if sys.argv[4] == "kill":
            os.kill(os.getppid(), signal.SIGKILL)
        if sys.argv[4] == "trouble":
            raise Trouble("here")
        open(sys.argv[2] + ".long", "w").close()
        while True:
            pass
    return part * STEP

@ReactorFunc
def source(pipe):
    data = pipe.allocate("src", specs.HdfArraySpec, shape=(40, 1000))
    data[:] = np.arange(40)[:, None]
    pipe.send("src", data)

@ReactorFunc
def work(pipe):
    src = yield pipe.receive("src")
    dst = pipe.allocate("x", specs.HdfArraySpec, shape=(40, 1000))
    pipe.map_blocks(lambda part: helper(part) + 1, src, out=dst, memory=2 * 8 * 4000, workers=2)
    pipe.send("x", dst)
    pipe.send("stats", pipe.reduce_blocks(lambda part: Stats(float(part.sum())), src, memory="1MB").total)

with Plant(sys.argv[1], executor="processes", durability="process") as plant:
    try:
        x = plant.produce("x")
        print(x[39, 0], len(x), plant.produce("stats"))
    except Trouble as error:
        print("caught", error, len(error.__notes__))
"""


class TestPrograms:
    """A script without a main guard, as a process of its own."""

    def program(self, tmp_path: Path, at: int, how: str) -> subprocess.Popen[str]:
        script = tmp_path / "script.py"
        script.write_text(PROGRAM)
        command = [sys.executable, str(script), str(tmp_path / "plant"), str(tmp_path / "calls"), str(at), how]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def calls(self, tmp_path: Path) -> list[int]:
        return [int(line) for line in (tmp_path / "calls").read_text().split()]

    def test_functions_and_classes_of_the_program(self, tmp_path):
        out, err = self.program(tmp_path, 0, "").communicate(timeout=120)
        assert out.split() == ["118.0", "40", f"{1000.0 * sum(range(40))}"], err

    def test_exceptions_of_the_program(self, tmp_path):
        out, err = self.program(tmp_path, 5, "trouble").communicate(timeout=120)
        assert out.startswith("caught here"), err

    def test_killed_and_resumed(self, tmp_path):
        first = self.program(tmp_path, 25, "kill")
        first.communicate(timeout=120)
        assert first.returncode == -signal.SIGKILL
        until(lambda: all(is_gone(pid) for pid in self.calls(tmp_path)))
        before = len(self.calls(tmp_path))
        out, err = self.program(tmp_path, 0, "").communicate(timeout=120)
        assert out.split()[:2] == ["118.0", "40"], err
        assert len(self.calls(tmp_path)) - before <= 40 - 25 + 8

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_no_worker_is_left(self, how, tmp_path):
        """While a function of two is under way that never ends."""
        running = self.program(tmp_path, 5, "forever")
        until((tmp_path / "calls.long").exists)
        running.send_signal(how)
        _, err = running.communicate(timeout=120)
        assert running.returncode in (-signal.SIGINT, -signal.SIGKILL), err
        until(lambda: all(is_gone(pid) for pid in self.calls(tmp_path)))


class Kept:
    """Something that a run has, and that nobody needs when it is over."""


@pytest.mark.parametrize("executor", [None, "threads", "processes", "given"])
@pytest.mark.parametrize("failing", [0, 7, range(20)])
def test_a_loop_that_fails_keeps_nothing(executor, failing, pool, tmp_path):
    """An error has the frames that it passed, and a future the error: maps stayed open until the next collection."""
    blocks = set(failing) if isinstance(failing, range) else {failing}

    def fragile(part: Any) -> Any:
        if int(part[0]) // 1000 in blocks:
            raise ValueError("no")
        return part

    def work(pipe: Any) -> Any:
        kept = Kept()
        seen.append(weakref.ref(kept))
        src = yield pipe.receive("src")
        seen.append(weakref.ref(src))
        dst = pipe.allocate("x", specs.ArraySpec, shape=src.shape, dtype=src.dtype)
        pipe.map_blocks(fragile, src, out=dst, memory="64kB", workers=None if executor else 1)

    seen: list[weakref.ref[Any]] = []
    with ThreadPoolExecutor(2) as threads:
        workers = {"processes": pool, "given": workers_for(threads), "threads": workers_for("threads")}.get(executor)
        gc.disable()
        try:
            with pytest.raises(ValueError, match="no"):
                produced(tmp_path, workers, sender(np.arange(20_000.0)), work)
            assert [one() for one in seen] == [None, None]
        finally:
            gc.enable()

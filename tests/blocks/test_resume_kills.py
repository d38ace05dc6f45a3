"""Real kills in the middle of loops: the result is that of an undisturbed run, finished blocks are not redone."""

from __future__ import annotations

import glob
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.resume import Ledger
from tests.blocks.values import flip
from tests.faults.children import Child, in_child

ROWS, COLUMNS = 40, 64
MEMORY = 2 * 3 * 4 * COLUMNS * 8  # two arrays, three times four rows


def calls_of(path: str) -> list[int]:
    """First row of each block that was computed, in order."""
    return [int(line) for line in Path(path).read_text().split()] if os.path.exists(path) else []


def note(first: float) -> None:
    """Note a block beside the store; die at the one that was wanted."""
    path = os.environ["BLOCKS_CALLS"]
    with open(path, "a") as file:
        file.write(f"{int(first)}\n")
    if len(calls_of(path)) >= int(os.environ.get("BLOCKS_KILL_AT", "1000")):  # more than one thread may note
        os.kill(os.getpid(), signal.SIGKILL)
    if str(len(calls_of(path))) == os.environ.get("BLOCKS_RAISE_AT"):
        raise RuntimeError("no")
    if str(len(calls_of(path))) == os.environ.get("BLOCKS_INTERRUPT_AT"):
        raise KeyboardInterrupt


def smooth(x: Any) -> Any:
    """Depends on the rows beside."""
    note(x[0, 0] // COLUMNS)
    wide = np.pad(x, ((1, 1), (0, 0)), "edge")
    return wide[:-2] + 2 * wide[1:-1] + wide[2:]


@ReactorFunc
def source(pipe: Any) -> None:
    data = pipe.allocate("src", specs.HdfArraySpec, shape=(ROWS, COLUMNS), dtype="f8")
    data[:] = np.arange(ROWS * COLUMNS, dtype="f8").reshape(ROWS, COLUMNS)
    pipe.send("src", data)


@ReactorFunc
def source_in_memory(pipe: Any) -> None:
    pipe.send("src", np.arange(ROWS * COLUMNS, dtype="f8").reshape(ROWS, COLUMNS))


@ReactorFunc
def mapped(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(smooth, src, out=dst, memory=3 * MEMORY // 2, halo=1, axis=0)
    pipe.send("dst", dst)


@ReactorFunc
def mapped_by_threads(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(smooth, src, out=dst, memory=5 * MEMORY // 2, halo=1, workers=3)
    pipe.send("dst", dst)


@ReactorFunc
def walked(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    for b in pipe.blocks(src, dst, memory=MEMORY, resume=True):
        note(b[0].start)
        dst[b] += src[b]  # what a killed run has left in a block that it had not finished must not count
        dst[b] += 1
    pipe.send("dst", dst)


@ReactorFunc
def walked_in_memory(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.ArraySpec, shape=src.shape, dtype="f8")
    for b in pipe.blocks(src, dst, memory=MEMORY, resume=True):
        dst[b] += src[b]
        note(b[0].start)
        dst[b] += 1
    pipe.send("dst", dst)


@ReactorFunc
def mapped_in_memory(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.ArraySpec, shape=src.shape, dtype="f4", order="F")
    pipe.map_blocks(lambda x: smooth(x).astype("f4"), src, out=dst, memory=3 * MEMORY // 2, halo=1)
    pipe.send("dst", dst)


@ReactorFunc
def compressed(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8", chunks=(4, COLUMNS), compression="gzip")
    pipe.map_blocks(smooth, src, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


@ReactorFunc
def two_stages(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    middle = pipe.allocate_temp("middle", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(smooth, src, out=middle, memory=MEMORY)
    dst = pipe.allocate("dst", specs.ArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(lambda x: smooth(x) - 1, middle, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


@ReactorFunc
def reduced(pipe: Any) -> Any:
    src = yield pipe.receive("src")

    def part(x: Any) -> Any:
        note(x[0, 0] // COLUMNS)
        return np.sqrt(x + 0.1).sum(axis=0)

    pipe.send("dst", pipe.reduce_blocks(part, src, memory=MEMORY // 2))


@ReactorFunc
def with_checkpoints(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    state = pipe.checkpoint("fit", default={"row": 0, "sum": np.zeros(COLUMNS)})
    while state["row"] < ROWS:
        note(state["row"])
        part = np.asarray(src[state["row"] : state["row"] + 4])
        state = {"row": state["row"] + 4, "sum": state["sum"] + np.sin(part).sum(axis=0)}
        pipe.checkpoint("fit", state)
    pipe.send("dst", state["sum"])


WAYS = [
    mapped,
    mapped_by_threads,
    walked,
    walked_in_memory,
    mapped_in_memory,
    compressed,
    two_stages,
    reduced,
    with_checkpoints,
]


def name_of(reactor: Any) -> str:
    return str(reactor.name)


class Job:
    """One reactor on one store, run until it is through."""

    def __init__(self, folder: Path, reactor: Any, first: Any = source) -> None:
        self.folder, self.reactor, self.first = folder, reactor, first
        self.calls = str(folder / "calls")
        os.makedirs(folder, exist_ok=True)
        with self.plant() as plant:
            plant.produce("src")

    def plant(self, config: Any = None) -> Plant:
        plant = Plant(self.folder / "plant", durability="process", config=config)
        plant.add_reactors(self.first, self.reactor)
        return plant

    def run(self, config: Any = None, **environment: int) -> tuple[Any, str]:
        """The value and its digest."""
        os.environ["BLOCKS_CALLS"] = self.calls
        for name in ("KILL", "RAISE", "INTERRUPT"):
            os.environ.pop(f"BLOCKS_{name}_AT", None)
        os.environ.update({f"BLOCKS_{name.upper()}": str(value) for name, value in environment.items()})
        with self.plant(config) as plant:
            value = np.array(plant.produce("dst"))
            ref = plant.warehouse.last_ref("dst")
            assert ref is not None
            return value, ref.digest

    def killed(self, config: Any = None, **environment: int) -> list[int]:
        """Run it until it is killed; the calls of that run."""
        before = len(calls_of(self.calls))
        assert in_child(lambda: self.run(config, **environment)) == -signal.SIGKILL
        return calls_of(self.calls)[before:]

    def finished(self) -> list[dict[str, Any]]:
        """What the ledgers say."""
        return [entry for ledger in self.ledgers() for entry in read_ledger(ledger)[1:]]

    def ledgers(self) -> list[str]:
        return sorted(glob.glob(str(self.folder / "plant/staging/resume/*/*/ledger")))

    def leftovers(self) -> list[str]:
        return [name for name in os.listdir(self.folder / "plant/staging") if name == "resume"]


def read_ledger(path: str) -> list[dict[str, Any]]:
    ledger = Ledger(path, os.path.basename(os.path.dirname(path)))
    ledger.read()
    return ledger.entries


@pytest.fixture(autouse=True)
def every_value_is_saved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However little time its computation took."""
    monkeypatch.setattr("pyplantx.blocks.reduction.WORTH", 0.0)
    yield
    for name in [name for name in os.environ if name.startswith("BLOCKS_")]:
        del os.environ[name]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[..., tuple[Any, str, list[int]]]:
    """Value, digest and calls of a run that nobody kills."""

    def run(reactor: Any, first: Any = source, config: Any = None) -> tuple[Any, str, list[int]]:
        job = Job(tmp_path / "undisturbed", reactor, first)
        value, digest = job.run(config)
        assert job.leftovers() == []
        return value, digest, calls_of(job.calls)

    return run


class TestKilledInABlock:
    @pytest.mark.parametrize("reactor", WAYS, ids=name_of)
    def test_the_next_run_goes_on(self, reactor, tmp_path, undisturbed):
        value, digest, calls = undisturbed(reactor)
        for at in sorted(random.Random(reactor.name).sample(range(1, len(calls) + 1), 3)):
            job = Job(tmp_path / f"killed-at-{at}", reactor)
            before = len(job.killed(kill_at=at))
            finished = len(job.finished())
            found, found_digest = job.run()
            assert found.tobytes() == value.tobytes() and found_digest == digest
            assert len(calls_of(job.calls)) == before + len(calls) - finished
            assert before - finished <= 8  # those that were under way
            assert job.leftovers() == []

    @pytest.mark.parametrize("reactor", [walked, mapped_in_memory, compressed, reduced], ids=name_of)
    def test_and_the_next_again_and_again(self, reactor, tmp_path, undisturbed):
        value, digest, calls = undisturbed(reactor)
        job = Job(tmp_path / "job", reactor)
        done = 0
        while done < len(calls) - 1:
            before = len(calls_of(job.calls))
            job.killed(kill_at=before + min(7, len(calls) - done))
            assert len(job.finished()) >= done
            done = len(job.finished())
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest

    def test_arrays_in_memory_as_sources(self, tmp_path, undisturbed):
        value, digest, calls = undisturbed(mapped, source_in_memory)
        job = Job(tmp_path / "job", mapped, source_in_memory)
        job.killed(kill_at=9)
        finished = len(job.finished())
        found, found_digest = job.run()
        assert (found == value).all() and found_digest == digest
        assert len(calls_of(job.calls)) == 9 + len(calls) - finished


class TestKilledAtTheLedger:
    """Before a line is written, in the middle of it, and after."""

    @pytest.mark.parametrize("torn", [0, 0.5, 1], ids=["before", "in the middle", "after"])
    @pytest.mark.parametrize("reactor", [mapped, reduced, with_checkpoints], ids=name_of)
    def test_at_every_line(self, reactor, torn, tmp_path, undisturbed, monkeypatch):
        value, digest, calls = undisturbed(reactor)
        prepared = Job(tmp_path / "prepared", reactor)
        for line in range(0, len(calls) + 1, 3):
            shutil.copytree(prepared.folder, tmp_path / f"line-{line}-{torn}")
            job = Job(tmp_path / f"line-{line}-{torn}", reactor)
            append = Ledger.append
            monkeypatch.setattr(Ledger, "append", dying_at(line, torn, append))
            job.killed()
            monkeypatch.setattr(Ledger, "append", append)
            whole = max(0, line - 1 + (torn == 1))
            assert len(job.finished()) == whole
            before = len(calls_of(job.calls))
            found, found_digest = job.run()
            assert found.tobytes() == value.tobytes() and found_digest == digest
            assert len(calls_of(job.calls)) - before == len(calls) - whole


def dying_at(line: int, torn: float, append: Callable[..., None]) -> Callable[..., None]:
    """`Ledger.append` of a process that is killed at one line."""
    real_pwrite = os.pwrite

    def die(fd: int, data: Any, offset: int) -> int:
        real_pwrite(fd, data[: int(torn * len(data))], offset)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def dying(self: Ledger, entry: dict[str, Any]) -> None:
        if self.count == line:
            os.pwrite = die
        append(self, entry)

    return dying


class TestOtherEnds:
    @pytest.mark.parametrize("reactor", [mapped, walked_in_memory, with_checkpoints], ids=name_of)
    @pytest.mark.parametrize("how", ["raise_at", "interrupt_at"])
    def test_exceptions_and_ctrl_c(self, reactor, how, tmp_path, undisturbed):
        value, digest, calls = undisturbed(reactor)
        job = Job(tmp_path / "job", reactor)
        with pytest.raises(RuntimeError if how == "raise_at" else KeyboardInterrupt):
            job.run(**{how: 6})
        assert len(job.finished()) >= 3
        finished = len(job.finished())
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest
        assert len(calls_of(job.calls)) == 6 + len(calls) - finished

    def test_nothing_stays_of_a_run_that_did_not_finish_a_block(self, tmp_path):
        job = Job(tmp_path / "job", walked_in_memory)
        with pytest.raises(RuntimeError):
            job.run(raise_at=1)
        assert job.leftovers() == []


# -- what was observed ------------------------------------------------------------------------------


@ReactorFunc
def reads_config(pipe: Any, config: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    for b in pipe.blocks(src, dst, memory=MEMORY, resume=True):
        note(b[0].start)
        dst[b] = src[b] * config["early" if b.index < 5 else "late"]
    pipe.send("dst", dst)


@ReactorFunc
def sized(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(smooth, src, out=dst, memory=pipe.peek("memory"))
    pipe.send("dst", dst)


@ReactorFunc
def two_outputs(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    first = pipe.allocate("first", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(smooth, src, out=first, memory=MEMORY)
    pipe.send("first", first)
    second = pipe.allocate("second", specs.ArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(lambda x: smooth(x) - 1, src, out=second, memory=MEMORY)
    pipe.send("second", second)
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8", chunks=(4, COLUMNS))
    pipe.map_blocks(lambda x: smooth(x) - 2, src, out=dst, memory=MEMORY)
    pipe.send("dst", dst)
    note(0)


class TestSent:
    """What was sent before the kill is not computed again either: it lies at its address."""

    @pytest.mark.parametrize("at", [12, 25, 31])
    def test_it_is_copied_from_there(self, at, tmp_path, undisturbed):
        value, digest, calls = undisturbed(two_outputs)
        job = Job(tmp_path / "job", two_outputs)
        job.killed(kill_at=at)
        finished = sum("block" in entry for entry in job.finished())
        assert finished >= min(30, at - 6)
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest
        assert len(calls_of(job.calls)) == at + len(calls) - finished
        assert self.sent(job) == self.sent(Job(tmp_path / "undisturbed", two_outputs))

    def sent(self, job: Job) -> list[str]:
        with job.plant() as plant:
            assert [problem for problem in plant.warehouse.check() if not problem.harmless] == []
            return [plant.warehouse.last_ref(name).digest for name in ("first", "second", "dst")]

    @pytest.mark.parametrize("damage", ["flipped", "gone"])
    def test_unless_it_is_damaged_there_or_gone(self, damage, tmp_path, undisturbed):
        value, digest, calls = undisturbed(two_outputs)
        job = Job(tmp_path / "job", two_outputs)
        before = set(glob.glob(str(tmp_path / "job/plant/objects/*/*/data.*")))
        job.killed(kill_at=31)
        for path in set(glob.glob(str(tmp_path / "job/plant/objects/*/*/data.*"))) - before:
            flip(path, os.path.getsize(path) - 10) if damage == "flipped" else os.unlink(path)
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest
        assert self.sent(job) == self.sent(Job(tmp_path / "undisturbed", two_outputs))

    def test_a_seal_that_fails_loses_nothing(self, tmp_path, undisturbed, monkeypatch):
        value, digest, calls = undisturbed(walked)
        job = Job(tmp_path / "job", walked)

        def refuse(allocation: Any) -> None:
            raise MemoryError("no")

        with monkeypatch.context() as patch:
            patch.setattr("pyplantx.specs.hdf._HdfAllocation.seal", refuse)
            with pytest.raises(MemoryError, match="no"):
                job.run()
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest
        assert len(calls_of(job.calls)) == len(calls)


class TestObservations:
    def killed(self, tmp_path: Path, config: Any) -> tuple[Job, int]:
        job = Job(tmp_path / "job", reads_config)
        job.killed(config, kill_at=9)
        return job, len(job.finished())

    def value(self, early: float, late: float) -> Any:
        data = np.arange(ROWS * COLUMNS, dtype="f8").reshape(ROWS, COLUMNS)
        return np.concatenate([data[:20] * early, data[20:] * late])

    def test_what_a_finished_block_read_is_in_the_trace(self, tmp_path):
        job, _ = self.killed(tmp_path, {"early": 2.0, "late": 3.0})
        assert (job.run({"early": 2.0, "late": 3.0})[0] == self.value(2, 3)).all()
        assert (job.run({"early": 2.0, "late": 4.0})[0] == self.value(2, 4)).all()
        assert (job.run({"early": 5.0, "late": 4.0})[0] == self.value(5, 4)).all()
        calls = len(calls_of(job.calls))
        assert (job.run({"early": 2.0, "late": 3.0})[0] == self.value(2, 3)).all()
        assert len(calls_of(job.calls)) == calls  # and found again

    def test_a_change_takes_back_what_was_made_with_it(self, tmp_path):
        job, finished = self.killed(tmp_path, {"early": 2.0, "late": 3.0})
        assert finished >= 6
        assert (job.run({"early": 2.0, "late": 4.0})[0] == self.value(2, 4)).all()
        assert calls_of(job.calls)[9:] == [20, 24, 28, 32, 36]

    def test_and_all_if_it_was_read_at_first(self, tmp_path):
        job, _ = self.killed(tmp_path, {"early": 2.0, "late": 3.0})
        assert (job.run({"early": 7.0, "late": 3.0})[0] == self.value(7, 3)).all()
        assert calls_of(job.calls)[9:] == list(range(0, ROWS, 4))

    def test_a_run_that_fell_off_its_replay_goes_on_too(self, tmp_path):
        job = Job(tmp_path / "job", reads_config)
        job.run({"early": 2.0, "late": 3.0})
        job.killed({"early": 4.0, "late": 3.0}, kill_at=18)
        finished = len(job.finished())
        assert finished >= 5
        assert (job.run({"early": 4.0, "late": 3.0})[0] == self.value(4, 3)).all()
        assert len(calls_of(job.calls)) == 18 + 10 - finished

    def test_an_edited_reactor_begins_anew(self, tmp_path):
        job = Job(tmp_path / "job", mapped)
        job.killed(kill_at=8)
        assert job.finished()
        before = len(calls_of(job.calls))

        @ReactorFunc(name="mapped")
        def edited(pipe: Any) -> Any:
            src = yield pipe.receive("src")
            dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
            pipe.map_blocks(lambda x: smooth(x) + 1, src, out=dst, memory=3 * MEMORY // 2, halo=1, axis=0)
            pipe.send("dst", dst)

        expected = Job(tmp_path / "expected", edited)
        value, digest = expected.run()
        anew = Job(tmp_path / "job", edited)
        found, found_digest = anew.run()
        assert (found == value).all() and found_digest == digest
        assert len(calls_of(job.calls)) - before == len(calls_of(expected.calls))

    def test_another_geometry_begins_anew(self, tmp_path):
        job = Job(tmp_path / "job", sized)
        job.killed({"memory": MEMORY}, kill_at=8)
        assert len(job.finished()) >= 4
        job.run({"memory": 2 * MEMORY})
        assert calls_of(job.calls)[8:] == [0, 8, 16, 24, 32]


# -- damage -----------------------------------------------------------------------------------------


class TestDamage:
    @pytest.mark.parametrize("reactor", [walked, walked_in_memory, mapped_in_memory], ids=name_of)
    def test_a_block_that_does_not_match_is_done_again(self, reactor, tmp_path, undisturbed):
        value, digest, calls = undisturbed(reactor)
        job = Job(tmp_path / "job", reactor)
        job.killed(kill_at=len(calls) - 1)
        finished = len(job.finished())
        (path,) = glob.glob(str(tmp_path / "job/plant/staging/resume/*/*/data-*"))
        flip(path, os.path.getsize(path) - value.nbytes + 5 * COLUMNS * value.itemsize)  # in the second block of four
        before = len(calls_of(job.calls))
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest
        again = len(calls_of(job.calls)) - before
        most = {mapped_in_memory: 6, walked_in_memory: finished}  # columns; a later block may have written to it
        assert len(calls) - finished + 1 <= again <= len(calls) - finished + most.get(reactor, 1)

    def test_a_kept_block_that_does_not_match_is_done_again(self, tmp_path, undisturbed):
        value, digest, calls = undisturbed(compressed)
        job = Job(tmp_path / "job", compressed)
        job.killed(kill_at=len(calls) - 1)
        finished = len(job.finished())
        flip(glob.glob(str(tmp_path / "job/plant/staging/resume/*/*/block-1-2"))[0], 100)
        os.unlink(glob.glob(str(tmp_path / "job/plant/staging/resume/*/*/block-1-3"))[0])
        before = len(calls_of(job.calls))
        found, found_digest = job.run()
        assert (found == value).all() and found_digest == digest
        assert len(calls_of(job.calls)) - before == len(calls) - finished + 2

    @pytest.mark.parametrize("reactor", [mapped, reduced, with_checkpoints], ids=name_of)
    def test_a_flipped_bit_ends_the_ledger(self, reactor, tmp_path, undisturbed):
        value, digest, calls = undisturbed(reactor)
        job = Job(tmp_path / "job", reactor)
        job.killed(kill_at=len(calls) - 1)
        (path,) = job.ledgers()
        lines = Path(path).read_bytes().splitlines(keepends=True)
        flip(path, sum(map(len, lines[:3])) + 30)
        assert len(job.finished()) == 2
        before = len(calls_of(job.calls))
        found, found_digest = job.run()
        assert found.tobytes() == value.tobytes() and found_digest == digest
        redone = len(calls_of(job.calls)) - before
        assert redone == len(calls) - (2 if reactor is mapped else 0)  # of values only the last two are kept

    @pytest.mark.parametrize("damage", ["lost", "truncated", "foreign"])
    def test_a_data_file_that_is_of_no_use(self, damage, tmp_path, undisturbed):
        for reactor in (mapped, walked_in_memory):
            value, digest, calls = undisturbed(reactor)
            job = Job(tmp_path / reactor.name, reactor)
            job.killed(kill_at=len(calls) - 1)
            (path,) = glob.glob(str(tmp_path / f"{reactor.name}/plant/staging/resume/*/*/data-*"))
            if damage == "lost":
                os.unlink(path)
            elif damage == "truncated":
                os.truncate(path, 100)
            else:
                Path(path).write_bytes(b"\0" * os.path.getsize(path))
            found, found_digest = job.run()
            assert found.tobytes() == value.tobytes() and found_digest == digest
            shutil.rmtree(tmp_path / "undisturbed")


# -- several processes ------------------------------------------------------------------------------


class TestSeveral:
    def test_who_finds_the_workspace_held_works_on_its_own(self, tmp_path, undisturbed):
        value, digest, calls = undisturbed(walked)
        job = Job(tmp_path / "job", walked)
        job.killed(kill_at=8)
        lock = FileLock(job.ledgers()[0].replace("/ledger", "/lock"))
        assert lock.acquire()
        before = len(calls_of(job.calls))
        found, found_digest = job.run()
        assert (found == value).all() and found_digest == digest
        assert len(calls_of(job.calls)) - before == len(calls)
        lock.close()

    def test_two_processes_at_once(self, tmp_path, undisturbed):
        value, digest, calls = undisturbed(mapped)
        job = Job(tmp_path / "job", mapped)
        job.killed(kill_at=8)
        finished = len(job.finished())
        before = len(calls_of(job.calls))

        def goes_on(_: Any) -> None:
            found, found_digest = job.run()
            assert (found == value).all() and found_digest == digest

        both = [Child(goes_on) for _ in range(2)]
        assert [child.end().status for child in both] == [0, 0]
        assert len(calls_of(job.calls)) - before == len(calls) - finished


# -- sources that are being checked ------------------------------------------------------------------


@ReactorFunc
def large_source(pipe: Any) -> None:
    pipe.send("src", np.arange(ROWS * 50_000, dtype="f8").reshape(ROWS, 50_000))


@ReactorFunc
def rushed(pipe: Any) -> Any:
    """Is through with a block, and fails, before anything can have been checked."""
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")
    receipts, pipe._run._unchecked = pipe._run._unchecked, (_Unsettled(),)
    for b in pipe.blocks(src, dst, memory=4_900_000, resume=True):
        if b.index == 3:
            pipe._run._unchecked = receipts
            note(0)
        dst[b] = src[b].sum(axis=1)
    pipe._run._unchecked = receipts
    pipe.send("dst", dst)


class _Unsettled:
    """A receipt for something whose check takes its time."""

    def is_right(self) -> bool:
        return False


@ReactorFunc
def sums(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")

    def sum_of(x: Any) -> Any:
        note(x[0, 0] // 50_000)
        return x.sum(axis=1)

    pipe.map_blocks(sum_of, src, out=dst, memory=4_900_000)
    pipe.send("dst", dst)


def test_what_was_made_from_a_damaged_source_is_not_kept(tmp_path):
    """A map is handed out before it is checked; who is killed before that is over has finished nothing."""
    job = Job(tmp_path / "job", sums, large_source)
    (path,) = glob.glob(str(tmp_path / "job/plant/objects/*/*/data.npy"))
    flip(path, 128 + 8 * 50_000 * 2 + 6)  # the exponent of a number in the third row
    job.killed(kill_at=10)
    assert job.finished() == []
    value, _ = job.run()
    assert (value == np.arange(ROWS * 50_000, dtype="f8").reshape(ROWS, 50_000).sum(axis=1)).all()


@pytest.mark.parametrize("environment", [{}, {"raise_at": 1}])
def test_nor_what_waited_for_the_check(environment, tmp_path):
    """The run turns out to be deceived at its end, and begins again in the same process."""
    job = Job(tmp_path / "job", rushed, large_source)
    (path,) = glob.glob(str(tmp_path / "job/plant/objects/*/*/data.npy"))
    flip(path, 128 + 8 * 50_000 * 2 + 6)
    value, _ = job.run(**environment)
    assert (value == np.arange(ROWS * 50_000, dtype="f8").reshape(ROWS, 50_000).sum(axis=1)).all()

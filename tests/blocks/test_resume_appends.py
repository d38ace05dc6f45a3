"""Loops that append to datasets and keep where they are: the result is that of a run that nobody has killed."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, SubreactorFunc, specs
from pyplantx.blocks.alterations import Contents
from pyplantx.blocks.handles import DatasetHandle
from pyplantx.warehouse.locks import FileLock
from tests.blocks.fakes import FakeAllocation
from tests.blocks.values import Unseen, flip
from tests.faults.children import in_child

ROWS, STEP, WIDTH = 12, 3, 5


class Killed(Exception):
    """Ends a run as a kill does, as far as the store is concerned."""


#: How many steps were made, and at which one the run ends.
steps = Unseen()
ends_at = Unseen()


@pytest.fixture(autouse=True)
def nobody_dies() -> Iterator[None]:
    steps.clear()
    ends_at.clear()
    yield
    steps.clear()
    ends_at.clear()


def step(at: int = 0) -> None:
    """One record is going to be appended."""
    steps.append(at)
    if len(steps) in ends_at:
        raise Killed


def record(at: int, rows: int = STEP, dtype: Any = "f8") -> Any:
    """The rows that begin at one."""
    return (np.arange(rows * WIDTH).reshape(rows, WIDTH) * 7 + at * 100).astype(dtype)


def new(pipe: Any, name: str = "x", **options: Any) -> Any:
    given = {"shape": (0, WIDTH), "maxshape": (None, WIDTH), "dtype": "f8", **options}
    return pipe.allocate(name, specs.HdfArraySpec, **given)


def appended(pipe: Any, **options: Any) -> None:
    x = new(pipe, **options)
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step(at)
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at, dtype=x.dtype)
        step(at)
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


# -- programs: each sends x, and what it sends besides ------------------------------------------------


def chunked(pipe: Any) -> None:
    appended(pipe)


def compressed(pipe: Any) -> None:
    appended(pipe, compression="gzip", chunks=(7, WIDTH))


def compressed_by_hdf5(pipe: Any) -> None:
    appended(pipe, compression="lzf", chunks=(7, 2))


def small_chunks(pipe: Any) -> None:
    appended(pipe, chunks=(2, 3), fillvalue=9, dtype="i2")


def limited(pipe: Any) -> None:
    appended(pipe, maxshape=(ROWS, WIDTH))


def by_length(pipe: Any) -> None:
    """Who appends knows where by how long it is."""
    x = new(pipe, compression="gzip")
    for at in range(pipe.checkpoint("row", default=0), ROWS):
        step()
        x.resize(len(x) + 1, axis=0)
        x[-1] = record(at, 1)[0]
        step()
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def sideways(pipe: Any) -> None:
    x = new(pipe, shape=(WIDTH, 0), maxshape=(WIDTH, None), chunks=(2, 7), compression="gzip")
    for at in range(pipe.checkpoint("column", default=0), ROWS, STEP):
        step()
        x.resize((WIDTH, at + STEP))
        x[:, at : at + STEP] = record(at).T
        step()
        pipe.checkpoint("column", at + STEP)
    pipe.send("x", x)


def structured(pipe: Any) -> None:
    dtype = np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 24})
    x = new(pipe, shape=(0,), maxshape=(None,), dtype=dtype)
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = np.array([(at, at / 7), (1, 2), (3, at)], dtype)
        step()
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def truths(pipe: Any) -> None:
    x = new(pipe, dtype="?")
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at) % 3 == 0
        step()
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def several(pipe: Any) -> None:
    """Two that grow at different speeds, and scratch space, with one value for all."""
    x, y = new(pipe), new(pipe, "y", shape=(0,), maxshape=(None,), compression="gzip")
    scratch = pipe.allocate_temp(specs.HdfArraySpec, shape=(0,), maxshape=(None,), dtype="i8")
    start, total = pipe.checkpoint("state", default=(0, 0.0))
    for at in range(start, ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        step()
        if at % 2:
            y.resize(len(y) + 1, axis=0)
            y[len(y) - 1] = at
        scratch.resize(len(scratch) + 2, axis=0)
        scratch[-2:] = [at, len(x)]
        total += float(np.sum(x[at]))
        step()
        pipe.checkpoint("state", (at + STEP, total))
    pipe.send("y", y)
    pipe.send("z", np.append(scratch[:], total))
    pipe.send("x", x)


def two_keys(pipe: Any) -> None:
    """Both asked for before the loop; ended between the two, the next run has the rows and not the number."""
    x = new(pipe)
    marks = pipe.checkpoint("marks", default=[])
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        if at % 6 == 0 and at not in marks:
            marks = [*marks, at]
            step()
            pipe.checkpoint("marks", marks)
        step()
        pipe.checkpoint("row", at + STEP)
    pipe.send("y", marks)
    pipe.send("x", x)


def phases(pipe: Any) -> None:
    """One after the other, each with its own key; the second one is allocated, and asks, when the first is through."""
    x = new(pipe)
    for at in range(pipe.checkpoint("x", default=0), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        pipe.checkpoint("x", at + STEP)
    y = new(pipe, "y", compression="gzip")
    y.resize(1, axis=0)
    y[0] = len(x)
    for at in range(pipe.checkpoint("y", default=1), ROWS):
        step()
        y.resize(at + 1, axis=0)
        y[at] = record(at + len(x), 1)[0]
        pipe.checkpoint("y", at + 1)
    pipe.send("y", y)
    pipe.send("x", x)


def phases_of_one(pipe: Any) -> None:
    """The second loop goes on behind what it finds of the first, and behind rows that are written before it asks."""
    x = new(pipe)
    pipe.checkpoint("stage", "begun")
    for at in range(pipe.checkpoint("first", default=0), 12, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        pipe.checkpoint("first", at + STEP)
    base = len(x)
    x.resize(base + 1, axis=0)
    x[base] = -1
    for at in range(pipe.checkpoint("second", default=0), 12, STEP):
        step()
        x.resize(base + 1 + at + STEP, axis=0)
        x[base + 1 + at :] = record(at)
        pipe.checkpoint("second", at + STEP)
    pipe.send("x", x)


def header_first(pipe: Any) -> None:
    """What is written before the first call is written again, and compared."""
    x = new(pipe, shape=(2, WIDTH))
    x[:] = 7
    for at in range(pipe.checkpoint("row", default=2), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        step()
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def rows_to_and_fro(pipe: Any) -> None:
    """Grows by too much, and is cut; what was cut off must not come back."""
    x = new(pipe, chunks=(4, WIDTH))
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step()
        x.resize(at + 10, axis=0)
        x[at:] = 99
        step()
        x.resize(at + 1, axis=0)
        x.resize(at + STEP, axis=0)
        x[at + 2 : at + STEP] = record(at)[2:]
        step()
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def at_once(pipe: Any) -> None:
    """All room at the beginning, after the first call: what is done again is nothing."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=0)
    x.resize(ROWS, axis=0)
    for at in range(start, ROWS, STEP):
        step()
        x[at : at + STEP] = record(at)
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def header_after(pipe: Any) -> None:
    """A header after the first call: the next run, which has it, must begin anew."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=1)
    x.resize(1, axis=0)
    x[0] = -5
    for at in range(start, ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def summary_at_the_end(pipe: Any) -> None:
    """Writes to the first row when all is there."""
    x = new(pipe, shape=(1, WIDTH))
    for at in range(pipe.checkpoint("row", default=1), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        pipe.checkpoint("row", at + STEP)
    step()
    x[0] = x[1] + 1
    step()
    pipe.send("x", x)


def running_sum(pipe: Any) -> None:
    """The first row alters with each record: nothing of it can be kept."""
    x = new(pipe, shape=(1, WIDTH))
    for at in range(pipe.checkpoint("row", default=1), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        x[0] += x[at]
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def taken_away(pipe: Any) -> None:
    """Rows that were kept are taken away again."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=0)
    for at in range(start, ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        if at == 6:
            x.resize(5, axis=0)
            x.resize(at + STEP, axis=0)
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def beside_memory(pipe: Any) -> None:
    """A map that is written to as well can't be brought back: all is done anew."""
    x, y = new(pipe), pipe.allocate("y", specs.ArraySpec, shape=(ROWS,), dtype="f8")
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        y[at : at + STEP] += at
        pipe.checkpoint("row", at + STEP)
    pipe.send("y", y)
    pipe.send("x", x)


def beside_blocks(pipe: Any) -> None:
    """A map over blocks after the first call, which goes on by itself."""
    x, y = new(pipe), pipe.allocate("y", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")
    start = pipe.checkpoint("row", default=0)
    pipe.map_blocks(lambda part: part + 1, np.arange(float(ROWS)), out=y)
    for at in range(start, ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = record(at)
        pipe.checkpoint("row", at + STEP)
    pipe.send("y", y)
    pipe.send("x", x)


def copied_in_blocks(pipe: Any) -> None:
    """A plain loop over blocks writes to what grows."""
    x = new(pipe)
    for at in range(pipe.checkpoint("row", default=0), ROWS, 9):
        x.resize(at + 9, axis=0)
        for b in pipe.blocks(x, memory="4kB"):
            x[b] = np.full(x[b].shape, at)
        for _ in range(3):
            step()
        pipe.checkpoint("row", at + 9)
    pipe.send("x", x)


@SubreactorFunc
def append(pipe: Any, x: Any, first: int) -> Iterator[Any]:
    base = len(x)
    for at in range(pipe.checkpoint("row", default=0), 6, STEP):
        step()
        x.resize(base + at + STEP, axis=0)
        x[base + at :] = record(first + at)
        step()
        pipe.checkpoint("row", at + STEP)
    return base
    yield


def in_calls(pipe: Any) -> Iterator[Any]:
    """Each call has keys of its own, and goes on where the one before has ended."""
    x = new(pipe)
    found = []
    for first in (0, 50, 100):
        found.append((yield from append(pipe, x, first)))
    pipe.send("y", found)
    pipe.send("x", x)


def in_calls_of_kept(pipe: Any) -> Iterator[Any]:
    """Calls that are left out once they are kept."""
    x = new(pipe)
    done = pipe.checkpoint("done", default=[])
    for first in (0, 50, 100)[len(done) :]:
        done = [*done, (yield from append(pipe, x, first))]
        step()
        pipe.checkpoint("done", done)
    pipe.send("y", done)
    pipe.send("x", x)


def with_requests(pipe: Any) -> Iterator[Any]:
    """A request for each record: asked again after it."""
    x = new(pipe)
    for at in range(0, ROWS, STEP):
        rows = yield pipe.receive(f"record{at}")
        if pipe.checkpoint("row", default=at) == at:
            step()
            x.resize(at + STEP, axis=0)
            x[at : at + STEP] = rows
            step()
            pipe.checkpoint("row", at + STEP)
        step()
    pipe.send("x", x)


async def in_coroutine(pipe: Any) -> None:
    x = new(pipe)
    rows = await pipe.receive("record0")
    for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
        step()
        x.resize(at + STEP, axis=0)
        x[at : at + STEP] = rows + at
        step()
        pipe.checkpoint("row", at + STEP)
    pipe.send("x", x)


def loops_between_requests(pipe: Any) -> Iterator[Any]:
    """What stands before a request goes on by itself: of each loop the last record is made again."""
    x = new(pipe)
    for part in range(4):
        rows = yield pipe.receive(f"record{part * STEP}")
        for at in range(pipe.checkpoint("row", default=0), 4):
            step()
            x.resize(len(x) + STEP, axis=0)
            x[-STEP:] = rows + at
            pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def header_of_the_first(pipe: Any) -> None:
    """Appended where nothing was kept before."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=0)
    if start == 0:
        append_row(x, -5)
    for at in range(start, ROWS):
        step()
        append_row(x, at)
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def objects_kept(pipe: Any) -> None:
    """Equal, but not of the same bytes: who comes back has keys that others share, and one that is new."""
    x = new(pipe)
    seen, found = pipe.checkpoint("state", default=(set(), []))
    for at in range(len(found), ROWS):
        step()
        append_row(x, at)
        seen.add(f"record {at}")
        found.append({"the record": at, "rows": np.arange(3) + at})
        pipe.checkpoint("state", (seen, found))
    pipe.send("y", sorted(seen))
    pipe.send("x", x)


# -- those that would go on wrongly: what they do behind a checkpoint does not follow from its value


def append_row(x: Any, value: Any) -> None:
    x.resize(len(x) + 1, axis=0)
    x[-1] = value


def header_appended(pipe: Any) -> None:
    """Behind the first call, whatever that has given: it touches no row that is kept."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=0)
    x.resize(len(x) + 1, axis=0)
    x[-1] = -5
    for at in range(start, ROWS):
        step()
        append_row(x, at)
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def header_in_the_loop(pipe: Any) -> None:
    """By the same line as the rows, and kept as they are."""
    x = new(pipe)
    for at in itertools.chain([-1], range(pipe.checkpoint("row", default=0), ROWS)):
        step()
        append_row(x, at)
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def header_of_the_second(pipe: Any) -> None:
    x, y = new(pipe), new(pipe, "y")
    for at in range(pipe.checkpoint("x", default=0), 4):
        step()
        append_row(x, at)
        pipe.checkpoint("x", at + 1)
    start = pipe.checkpoint("y", default=0)
    append_row(y, -5)
    append_row(x, -6)
    for at in range(start, 6):
        step()
        append_row(y, at)
        pipe.checkpoint("y", at + 1)
    pipe.send("y", y)
    pipe.send("x", x)


def rare_rows(pipe: Any) -> None:
    """A header, and then many checkpoints without a row."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=0)
    append_row(x, -5)
    for at in range(start, ROWS):
        step()
        if at % 5 == 4:
            append_row(x, at)
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def header_and_no_rows(pipe: Any) -> None:
    x = new(pipe)
    start, total = pipe.checkpoint("row", default=(0, 0.0))
    append_row(x, -5)
    for at in range(start, ROWS):
        step()
        total += at
        pipe.checkpoint("row", (at + 1, total))
    pipe.send("y", total)
    pipe.send("x", x)


def random_rows(pipe: Any) -> None:
    """The generator begins anew with the run."""
    x, random = new(pipe), np.random.default_rng(1)
    for at in range(pipe.checkpoint("row", default=0), ROWS):
        step()
        append_row(x, random.random())
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def sums_of_all(pipe: Any) -> None:
    """The sum is in a variable alone."""
    x, total = new(pipe), 0
    for at in range(pipe.checkpoint("row", default=0), ROWS):
        step()
        total += at
        append_row(x, total)
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


def sums_of_all_kept(pipe: Any) -> None:
    """The sum is kept, and not asked for."""
    x, total = new(pipe), 0
    for at in range(pipe.checkpoint("row", default=0), ROWS):
        step()
        total += at
        append_row(x, at)
        pipe.checkpoint("total", total)
        pipe.checkpoint("row", at + 1)
    pipe.send("y", total)
    pipe.send("x", x)


def buffered(pipe: Any) -> None:
    """Rows wait in a list, which is lost with the process; seen once some were written."""
    x, waiting = new(pipe), []
    append_row(x, -5)
    for at in range(pipe.checkpoint("row", default=0), ROWS):
        waiting.append(at)
        if len(waiting) == 3:
            x.resize(len(x) + 3, axis=0)
            x[-3:] = np.array(waiting)[:, None]
            waiting = []
        if at >= 2:  # before, the first write is still to come, and values come back as without any dataset
            pipe.checkpoint("row", at + 1)
        step()
    pipe.send("x", x)


def apart(pipe: Any) -> None:
    """Two keys for what belongs together, and rows between the two."""
    x = new(pipe)
    marks = pipe.checkpoint("marks", default=[])
    for at in range(pipe.checkpoint("row", default=0), ROWS):
        step()
        append_row(x, len(marks))
        marks = [*marks, at]
        pipe.checkpoint("marks", marks)
        step()
        append_row(x, at)
        pipe.checkpoint("row", at + 1)
    pipe.send("y", marks)
    pipe.send("x", x)


def refuses_a_second_header(pipe: Any) -> None:
    """Raises an error that an undisturbed run does not raise."""
    x = new(pipe)
    start = pipe.checkpoint("row", default=0)
    append_row(x, -5)
    for at in range(start, ROWS):
        step()
        if len(x) != at + 1:
            raise ValueError("there are more rows than there should be")
        append_row(x, at)
        pipe.checkpoint("row", at + 1)
    pipe.send("x", x)


#: Of these no run goes on.
ASTRAY = [
    *(header_appended, header_in_the_loop, header_of_the_second, rare_rows, header_and_no_rows, random_rows),
    *(sums_of_all, sums_of_all_kept, buffered, apart, refuses_a_second_header),
]


#: Programs that go on where they were, and the most steps that the second run of any makes again: those of the record
#: at which it was ended, and of the last one that was kept.
GO_ON: dict[Callable[..., Any], int] = {
    **dict.fromkeys((chunked, compressed, compressed_by_hdf5, small_chunks, limited, by_length, sideways), 4),
    **dict.fromkeys((structured, truths, header_first, in_coroutine), 4),
    **{several: 6, phases: 3, phases_of_one: 2, rows_to_and_fro: 6, at_once: 2},
    **{in_calls: 4, in_calls_of_kept: 6},
    **{loops_between_requests: 6, header_of_the_first: 2, objects_kept: 2},
}
#: Those that begin anew at some or all places, and are right all the same.
BEGIN_ANEW = [
    *(header_after, summary_at_the_end, running_sum, taken_away, beside_memory, beside_blocks, copied_in_blocks),
    *(with_requests, two_keys),
]


def name_of(program: Any) -> str:
    return str(program.__name__)


@ReactorFunc(name="records")
def records(pipe: Any) -> None:
    for at in range(0, ROWS, STEP):
        pipe.send(f"record{at}", record(at))


class Job:
    """One program as a reactor on a store."""

    def __init__(self, folder: Path, program: Any, **options: Any) -> None:
        self.folder, self.options = folder, {"durability": "process", **options}
        self.reactor = ReactorFunc(name="r", version="1")(program)

    def plant(self) -> Plant:
        plant = Plant(self.folder / "plant", **self.options)
        plant.add_reactors(records, self.reactor)
        plant.produce("record0")
        return plant

    def run(self, *ends: int, on: Plant | None = None) -> dict[str, Any]:
        """Digest and content of all that was sent; `Killed` at these steps."""
        steps.clear()
        ends_at[:] = ends
        with self.plant() if on is None else contextlib.nullcontext(on) as plant:
            plant.produce("x")
            found = {}
            for name in ("x", "y", "z"):
                ref = plant.warehouse.last_ref(name)
                if ref is not None:
                    found[name] = ref.digest, np.array(plant.warehouse.open(ref)).tobytes()
            return found

    def ended(self, *ends: int, on: Plant | None = None) -> int:
        """Run it until its end at a step; how many it has made."""
        with pytest.raises(Killed):
            self.run(*ends, on=on)
        return len(steps)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[Any], tuple[dict[str, Any], int]]:
    """What a program sends that nobody ends, and how many steps it makes."""

    def run(program: Any) -> tuple[dict[str, Any], int]:
        found = Job(tmp_path / "undisturbed", program).run()
        return found, len(steps)

    return run


@pytest.mark.parametrize("program", [*GO_ON, *BEGIN_ANEW, *ASTRAY], ids=name_of)
def test_ended_at_each_step(program, tmp_path, undisturbed):
    expected, count = undisturbed(program)
    assert count > 3
    for end in range(1, count + 1):
        job = Job(tmp_path / f"job{end}", program)
        with job.plant() as plant:
            made = job.ended(end, on=plant)
            assert job.run(on=plant) == expected, f"ended at {end}"
        if program in GO_ON:
            assert made + len(steps) <= count + GO_ON[program], f"ended at {end}"
        assert not os.path.exists(job.folder / "plant/staging/resume")
        shutil.rmtree(job.folder)


@pytest.mark.parametrize("program", [*GO_ON, *BEGIN_ANEW, *ASTRAY], ids=name_of)
def test_ended_again_and_again(program, tmp_path, undisturbed):
    expected, count = undisturbed(program)
    job = Job(tmp_path / "job", program)
    for end in (1, 4, 4, 6, 3, 5, 1, 2):
        with contextlib.suppress(Killed):
            job.run(end)
            break
    assert job.run() == expected


# -- real kills ---------------------------------------------------------------------------------------

_MUTATING = ("open", "write", "pwrite", "pwritev", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate")


def killed_at(number: int) -> None:
    """This process dies just before its n-th mutating call; of a write, when half of it is done."""
    left = [number]

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if name == "pwrite":
                    data = memoryview(args[1]).cast("B")
                    real(args[0], data[: len(data) // 2], *args[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in _MUTATING:
        if hasattr(os, name):
            setattr(os, name, watched(name, getattr(os, name)))


def short(pipe: Any) -> None:
    """Two datasets that grow, with partial chunks; few calls."""
    x, y = new(pipe, chunks=(2, WIDTH), compression="gzip"), new(pipe, "y", chunks=(4, WIDTH))
    for at in range(pipe.checkpoint("row", default=0), 3 * STEP, STEP):
        step()
        x.resize(len(x) + STEP, axis=0)
        x[-STEP:] = record(at)
        y.resize(len(y) + 1, axis=0)
        y[-1] = record(at)[0]
        pipe.checkpoint("row", at + STEP)
    pipe.send("y", y)
    pipe.send("x", x)


@pytest.mark.parametrize("interrupted", [False, True], ids=["first", "again"])
@pytest.mark.parametrize(
    ("durability", "each"),
    [
        ("process", 7),
        pytest.param("process", 1, marks=pytest.mark.campaign),
        pytest.param("power", 1, marks=pytest.mark.campaign),
    ],
)
def test_killed_at_mutating_calls(durability, each, interrupted, tmp_path, undisturbed):
    """Of a first run, and of one that takes up what another one has left."""
    expected, count = undisturbed(short)
    prepared = Job(tmp_path / "prepared", short, durability=durability)
    prepared.plant().close()
    if interrupted:
        prepared.ended(3)
    made, status, number = [], -signal.SIGKILL, 0
    while status == -signal.SIGKILL:
        number += each
        shutil.copytree(prepared.folder, tmp_path / "job")
        job = Job(tmp_path / "job", short, durability=durability)

        def act(job: Job = job, number: int = number) -> None:
            with job.plant() as plant:
                killed_at(number)
                plant.produce("x")

        status = in_child(act)
        assert job.run() == expected, f"killed at call {number}"
        made.append(len(steps))
        if steps:  # else it was through, and what it kept goes in a week
            assert not os.path.exists(job.folder / "plant/staging/resume")
        shutil.rmtree(tmp_path / "job")
    assert number > 40 and set(made) == ({0, 1, 2} if interrupted else {0, 1, 2, 3})


# -- what an interrupted run has left -----------------------------------------------------------------


def files(job: Job, name: str) -> list[Path]:
    return sorted(job.folder.glob(f"plant/staging/resume/*/*/{name}"))


class TestDamage:
    def expect(self, job: Job, expected: Any, made: int) -> None:
        assert job.run() == expected
        assert len(steps) == made

    @pytest.mark.parametrize("at", [3, 3 * WIDTH * 8 + 5, -1])
    def test_a_flipped_bit_in_the_rows(self, at, tmp_path, undisturbed, caplog):
        expected, count = undisturbed(chunked)
        job = Job(tmp_path / "job", chunked)
        job.ended(7)
        flip(str(files(job, "rows-0")[0]), at)
        self.expect(job, expected, count - 4 if at == -1 else count)  # the last ones are made again anyway
        assert ("don't match their checksums" in caplog.text) == (at != -1)

    @pytest.mark.parametrize("damage", ["gone", "cut", "folder", "link", "pipe", "longer"])
    def test_another_file_in_their_place(self, damage, tmp_path, undisturbed):
        expected, count = undisturbed(compressed)
        job = Job(tmp_path / "job", compressed)
        job.ended(7)
        path = files(job, "rows-0")[0]
        content = path.read_bytes()
        if damage in ("cut", "longer"):
            path.write_bytes(content[:-300] if damage == "cut" else content + b"more")
        else:
            path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage == "link":
            os.symlink("/etc/hostname", path)
        elif damage == "pipe":
            os.mkfifo(path)
        self.expect(job, expected, count - 4 if damage == "longer" else count)

    def test_a_value_that_is_gone(self, tmp_path, undisturbed):
        """The one before it is the last one then."""
        expected, count = undisturbed(chunked)
        job = Job(tmp_path / "job", chunked)
        job.ended(7)
        values = sorted(files(job, "value-*"), key=lambda path: int(path.name[6:]))
        assert len(values) == 2
        shutil.rmtree(values[-1])
        self.expect(job, expected, count - 4)
        job = Job(tmp_path / "other", chunked)
        job.ended(7)
        for path in files(job, "value-*"):
            shutil.rmtree(path)
        self.expect(job, expected, count)

    def test_each_bit_of_the_ledger(self, tmp_path, undisturbed):
        expected, count = undisturbed(two_keys)
        job = Job(tmp_path / "prepared", two_keys)
        job.ended(8)
        size = files(job, "ledger")[0].stat().st_size
        for at in range(0, size, 97):
            shutil.copytree(job.folder, tmp_path / f"job{at}")
            other = Job(tmp_path / f"job{at}", two_keys)
            flip(str(files(other, "ledger")[0]), at, at % 8)
            assert other.run() == expected


def test_what_was_observed_meanwhile(tmp_path, monkeypatch, undisturbed):
    """An answer that has changed takes back what was kept after it."""

    def program(pipe: Any) -> None:
        x = new(pipe)
        for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
            step(at)
            x.resize(at + STEP, axis=0)
            x[at : at + STEP] = record(at) + (float(pipe.env("ROWS_TEST")) if at >= 6 else 0)
            pipe.checkpoint("row", at + STEP)
        pipe.send("x", x)

    monkeypatch.setenv("ROWS_TEST", "2")
    expected, _ = undisturbed(program)
    monkeypatch.setenv("ROWS_TEST", "1")
    job = Job(tmp_path / "job", program)
    job.ended(4)
    monkeypatch.setenv("ROWS_TEST", "2")
    assert job.run() == expected


@pytest.mark.parametrize("changed", ["before", "code", "layout", "content"])
def test_what_was_observed_before(changed, tmp_path, monkeypatch):
    """All begins anew."""

    def program(pipe: Any) -> None:
        value = pipe.env("ROWS_TEST") if changed == "before" else "1"
        x = new(pipe, chunks=(2 + (changed == "layout" and len(second)), WIDTH), shape=(1, WIDTH))
        x[0] = len(second) if changed == "content" else 0
        for at in range(pipe.checkpoint("row", default=1), ROWS, STEP):
            step(at)
            x.resize(at + STEP, axis=0)
            x[at : at + STEP] = record(at) + float(value)
            pipe.checkpoint("row", at + STEP)
        pipe.send("x", x)

    second = Unseen()
    monkeypatch.setenv("ROWS_TEST", "1")
    job = Job(tmp_path / "job", program)
    job.ended(4)
    second.append(1)
    monkeypatch.setenv("ROWS_TEST", "2")
    if changed == "code":
        job.reactor = ReactorFunc(name="r", version="2")(program)
    job.run()
    assert steps == list(range(1, ROWS, STEP))


# -- what else may be -----------------------------------------------------------------------------


def test_it_goes_on_without_room_for_copies(tmp_path, monkeypatch, undisturbed, caplog):
    expected, count = undisturbed(chunked)
    job = Job(tmp_path / "job", chunked)
    with monkeypatch.context() as patched:
        patched.setattr("pyplantx.blocks.rows.SPARE", 1 << 60)
        job.ended(4)
    assert "could not be resumed from here" in caplog.text and files(job, "rows-0") == []
    assert job.run() == expected and len(steps) == count


def test_long_rows_are_copied_in_pieces(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr("pyplantx.blocks.rows._SLAB", 2 * WIDTH * 8)
    for program in (compressed, sideways):
        expected, count = undisturbed(program)
        shutil.rmtree(tmp_path / "undisturbed")
        job = Job(tmp_path / program.__name__, program)
        job.ended(7)
        assert job.run() == expected and len(steps) == count - 4


def test_warnings_say_what_is_in_the_way(tmp_path, caplog):
    for program, words in {
        running_sum: "rows of 'x' that it has kept before",
        beside_memory: "'y' was written",
    }.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="pyplantx"):
            Job(tmp_path / program.__name__, program).run()
        assert len(caplog.messages) == 1 and words in caplog.text


def test_a_run_that_begins_again_says_why(tmp_path, caplog, undisturbed):
    expected, _ = undisturbed(header_after)
    job = Job(tmp_path / "job", header_after)
    job.ended(4)
    with caplog.at_level(logging.WARNING, logger="pyplantx"):
        assert job.run() == expected
    assert "the reactor begins anew: rows that it has kept are written to" in caplog.text


def test_an_error_while_a_record_is_made_again(tmp_path, undisturbed):
    """Whatever was appended by then is as it was: the next run goes on from there again."""
    expected, count = undisturbed(chunked)
    job = Job(tmp_path / "job", chunked)
    job.ended(7)
    for end in (1, 2, 1):
        assert job.ended(end) == end
    assert job.run() == expected and len(steps) == count - 4


def test_values_that_nobody_asks_for_go(tmp_path, undisturbed):
    """Those beside the last rows stay, and the last one; who makes lines again finds his own, and leaves no more."""
    counts = Unseen()

    def program(pipe: Any) -> None:
        x = new(pipe)
        for at in range(pipe.checkpoint("row", default=0), 4 * ROWS):
            step()
            if at in (0, 2):
                append_row(x, at)
            pipe.checkpoint("row", at + 1)
            assert pipe.checkpoint("row") == at + 1
            counts.append(len(files(job, "value-*")))
        pipe.send("x", x)

    job = Job(tmp_path / "undisturbed", program)
    expected, count = job.run(), len(steps)
    assert max(counts) == 3
    counts.clear()
    job = Job(tmp_path / "job", program)
    job.ended(2 * ROWS)
    for end in (ROWS, 1):
        job.ended(end)
    assert job.run() == expected and len(steps) == count - 2
    assert max(counts) <= 3 + 1 + 2  # one of its own that is not the last one, and one that each kill has left


def test_the_store_that_holds_no_code_keeps_plain_values(tmp_path, undisturbed):
    """A value that could run code when it is decoded is not taken: all begins anew, with the rows."""

    def program(pipe: Any) -> None:
        x = new(pipe)
        at, _ = pipe.checkpoint("row", default=(0, None))
        for row in range(at, ROWS, STEP):
            step(row)
            x.resize(len(x) + STEP, axis=0)
            x[-STEP:] = record(row)
            pipe.checkpoint("row", (row + STEP, {1, 2}))
        pipe.send("x", x)

    expected, count = undisturbed(program)
    job = Job(tmp_path / "job", program, trust="data")
    job.ended(4)
    assert job.run() == expected and len(steps) == count


def test_early_cutoff(tmp_path):
    """What is the same is not computed with again, whether its maker was interrupted or not."""
    ran = Unseen()

    @ReactorFunc(name="reader", version="1")
    def reader(pipe: Any) -> Iterator[Any]:
        x = yield pipe.receive("x")
        ran.append(1)
        pipe.send("sum", float(np.sum(x[:])))

    def produced(version: str) -> float:
        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reader, ReactorFunc(name="r", version=version)(compressed))
            return float(plant.produce("sum"))

    first = produced("1")
    ends_at.append(len(steps) + 6)
    with pytest.raises(Killed):
        produced("2")
    assert produced("2") == first and len(ran) == 1


def test_requests_between_rows_of_any_size(tmp_path, monkeypatch, undisturbed):
    """What is in a dataset is known from what was written: it is not read at each request to find the next place."""
    monkeypatch.setattr("pyplantx.blocks.alterations._MOST_BYTES", 10)
    expected, count = undisturbed(loops_between_requests)
    job = Job(tmp_path / "job", loops_between_requests)
    job.ended(12)
    assert job.run() == expected and len(steps) == count - 8


@pytest.mark.parametrize("rows", [0, 4, 5000])
def test_content_is_the_same_whether_it_is_known_or_read(rows, tmp_path, monkeypatch):
    """Who has written in another order has to read."""
    read, found = Unseen(), Unseen()
    real = DatasetHandle.read
    monkeypatch.setattr(DatasetHandle, "read", lambda self, box: read.append(box) or real(self, box))
    values = np.arange(rows * 300.0).reshape(rows, 300)

    @ReactorFunc(name="r", version="1")
    def reactor(pipe: Any) -> None:
        for order in (1, -1):
            x = pipe.allocate_temp(specs.HdfArraySpec, shape=(0, 300), maxshape=(None, 300), dtype="f8")
            x.resize(rows, axis=0)
            for part in [slice(0, rows // 2), slice(rows // 2, rows)][::order]:
                x[part] = values[part]
            read.clear()
            allocation = FakeAllocation(x)
            found.append(Contents(lambda _: None).of({allocation: x.last_write}))
            found.append(len(read))
        pipe.send("x", 1)

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(reactor)
        plant.produce("x")
    assert found[0] == found[2] and found[1] == 0 and bool(found[3]) == bool(rows)


# -- programs that do not leave it to us ------------------------------------------------------------


def test_who_swallows_the_error_begins_anew_at_the_end(tmp_path, undisturbed):
    def program(pipe: Any) -> None:
        x = new(pipe)
        start = pipe.checkpoint("row", default=1)
        with contextlib.suppress(Exception):
            x.resize(1, axis=0)
        with contextlib.suppress(Exception):
            x[0] = -5
        for at in range(start, ROWS):
            step()
            x.resize(at + 1, axis=0)
            x[at] = at
            with contextlib.suppress(Exception):
                pipe.checkpoint("row", at + 1)
        pipe.send("x", x)

    expected, count = undisturbed(program)
    for end in (3, 6):
        job = Job(tmp_path / f"job{end}", program)
        job.ended(end)
        assert job.run() == expected


def test_what_is_asked_for_before_anything_grows(tmp_path, undisturbed):
    """The first key has a ledger alone, so the rows are not kept beside it; all is done anew."""

    def program(pipe: Any) -> None:
        start = pipe.checkpoint("row", default=0)
        x = new(pipe)
        total = pipe.checkpoint("total", default=0)
        for at in range(start, ROWS):
            step()
            x.resize(len(x) + 1, axis=0)
            x[-1] = at
            total += at
            pipe.checkpoint("total", total)
            step()
            pipe.checkpoint("row", at + 1)
        pipe.send("y", total)
        pipe.send("x", x)

    expected, count = undisturbed(program)
    for end in range(1, count, 3):
        job = Job(tmp_path / f"job{end}", program)
        job.ended(end)
        assert job.run() == expected


def test_beside_a_map_that_is_being_checked(tmp_path, undisturbed):
    """Lines wait until what was received is known to be right."""

    def program(pipe: Any) -> Iterator[Any]:
        large = yield pipe.receive("large")
        x = new(pipe)
        for at in range(pipe.checkpoint("row", default=0), ROWS, STEP):
            step()
            x.resize(at + STEP, axis=0)
            x[at : at + STEP] = record(at) + large[at]
            pipe.checkpoint("row", at + STEP)
        pipe.send("x", x)

    @ReactorFunc(name="large", version="1")
    def large(pipe: Any) -> None:
        pipe.send("large", np.arange(3e6))

    class Larger(Job):
        def plant(self) -> Plant:
            plant = super().plant()
            plant.add_reactors(large)
            return plant

    expected = Larger(tmp_path / "undisturbed", program).run()
    for end in range(1, len(steps) + 1):
        job = Larger(tmp_path / f"job{end}", program)
        with job.plant() as plant:
            plant.produce("large")
        job.ended(end)
        assert job.run() == expected


def test_two_at_once(tmp_path, undisturbed):
    """Who finds the journal held works on its own."""
    expected, count = undisturbed(chunked)
    job = Job(tmp_path / "job", chunked)
    job.ended(5)
    locks = [FileLock(str(path)) for path in files(job, "lock")]
    assert locks and all(lock.acquire() for lock in locks)
    try:
        assert job.run() == expected and len(steps) == count
    finally:
        for lock in locks:
            lock.close()


def test_it_begins_anew_once_whatever_it_has_left(tmp_path, undisturbed):
    """Each of many journals would be met in turn, and a reactor is not started more than three times."""

    def program(pipe: Any) -> Iterator[Any]:
        x = new(pipe)
        for part in range(6):
            yield pipe.receive(f"record{part % 3 * STEP}")
            base = len(x)
            start = pipe.checkpoint(f"row{part}", default=0)
            x.resize(base + 1, axis=0)  # behind the call: taken for what takes rows away if they are there
            x[base] = -1
            for at in range(start, 3):
                step()
                x.resize(base + at + 2, axis=0)
                x[base + at + 1] = part + at
                pipe.checkpoint(f"row{part}", at + 1)
        pipe.send("x", x)

    expected, count = undisturbed(program)
    job = Job(tmp_path / "job", program)
    job.ended(count)
    assert len(files(job, "ledger")) >= 6
    assert job.run() == expected

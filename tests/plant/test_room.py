"""Room on disk and in memory, as a user of a plant meets it."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.basics.memory import MemoryBudget
from pyplantx.blocks import reduction
from pyplantx.blocks.logbook import covered
from pyplantx.errors import BadRequest, NoProducer, PayloadMissing
from pyplantx.warehouse.session import running_script
from pyplantx.warehouse.warehouse import Warehouse
from tests.blocks.values import Unseen

ROOT = Path(__file__).parents[2]
MB = 10**6


@ReactorFunc
def numbers(pipe: Any) -> None:
    pipe.send("numbers", np.arange(250_000.0) + pipe.read_config("offset"))


@ReactorFunc
def squares(pipe: Any) -> Any:
    x = yield pipe.receive("numbers")
    pipe.send("squares", x**2)


@ReactorFunc
def total(pipe: Any) -> Any:
    x = yield pipe.receive("squares")
    pipe.send("total", float(x.sum()))


ALL = (numbers, squares, total)


def test_what_the_last_run_reached_stays_and_earlier_versions_go(open_plant: Callable[..., Any]) -> None:
    for offset in (1, 2):
        with open_plant(*ALL, config={"offset": offset}) as plant:
            plant.produce("total")
    with open_plant(*ALL, config={"offset": 2}) as plant:
        done = plant.gc(max_size=0)
        assert sorted((str(verdict.stored), verdict.stored.version) for verdict in done.gone) == [
            ("numbers", 2),
            ("squares", 2),
        ]
        assert done.freed == pytest.approx(4 * MB, rel=0.01) and done.seconds > 0
        assert plant.produce("total", "squares")[0] > 0 and plant.log.ran == []
    with open_plant(*ALL, config={"offset": 1}) as plant:
        assert plant.produce("total") == float(((np.arange(250_000.0) + 1) ** 2).sum())
        assert plant.log.take() == []  # the answer is known; what it was made of is gone
        assert plant.produce("squares")[0] == 1.0
        assert sorted(plant.log.take()) == ["numbers", "squares"]


def test_what_a_recalled_ingredient_was_made_of_stays(open_plant: Callable[..., Any]) -> None:
    def link(number: int) -> Any:
        @ReactorFunc(name=f"link {number}")
        def follow(pipe: Any) -> Any:
            x = (yield pipe.receive(f"x{number - 1}")) if number else np.zeros(20_000)
            pipe.send(f"x{number}", x + 1)

        return follow

    links = [link(number) for number in range(12)]
    for _ in range(2):  # the second time the whole ancestry is recalled at once
        with open_plant(*links) as plant:
            assert plant.produce("x11")[0] == 12
    with open_plant(*links) as plant:
        assert plant.gc(max_size=0).gone == ()
        assert len(plant.du().ingredients) == 12


def test_the_seconds_of_a_run_are_what_its_ingredients_cost(open_plant: Callable[..., Any]) -> None:
    with open_plant(*ALL, config={"offset": 1}) as plant:
        plant.produce("total")
        spent = {entry["reactor"]: entry["seconds"] for entry in plant.get_execution_history()}
        costs = {str(verdict.stored): verdict.stored.seconds for verdict in plant.gc(max_size=0, dry_run=True).kept}
        assert costs == {name: spent[name] for name in ("numbers", "squares")}


@pytest.mark.parametrize("way", ["map", "reduce", "checkpoint"])
def test_what_killed_runs_have_spent_counts(way: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "WORTH", 0)  # every value is kept
    calls: list[int] = Unseen()

    def spend(value: Any) -> Any:
        calls.append(1)
        if len(calls) == 10:
            raise ConnectionError
        if len(calls) < 10:
            time.sleep(0.02)
        return value

    def dear(pipe: Any) -> None:
        source = np.arange(120.0)
        if way == "map":
            out = pipe.allocate("x", specs.ArraySpec, shape=(120,), dtype="f8")
            pipe.map_blocks(spend, source, out=out, memory=3 * 2 * 80)
        elif way == "reduce":
            out = pipe.reduce_blocks(lambda part: float(spend(part).sum()), source, memory=3 * 80)
        else:
            begin, out = pipe.checkpoint("sum", default=(0, 0.0))
            for number in range(begin, 12):
                out = spend(out) + number
                pipe.checkpoint("sum", (number + 1, out))
        pipe.send("x", out)

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(ReactorFunc(name="dear")(dear))
        with pytest.raises(ConnectionError):
            plant.produce("x")
        plant.produce("x")
        assert len(calls) == 10 + 3
        failed, ran = [entry["seconds"] for entry in plant.get_execution_history()]
        assert 9 * 0.02 <= ran < 2 * failed


def test_what_killed_runs_have_spent_counts_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "WORTH", 0)
    runs: list[int] = Unseen()

    def total(part: Any) -> float:
        time.sleep(0.02)
        return float(part.sum())

    def dear(pipe: Any) -> None:
        runs.append(1)
        pipe.checkpoint("sum", default=0.0)  # from here on
        out = pipe.reduce_blocks(total, np.arange(120.0), memory=3 * 80)
        pipe.checkpoint("sum", out)  # to here: all that the loop took, too
        if len(runs) == 1:
            raise ConnectionError
        pipe.send("x", out)

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(ReactorFunc(name="dear")(dear))
        with pytest.raises(ConnectionError):
            plant.produce("x")
        plant.produce("x")
        failed, ran = [entry["seconds"] for entry in plant.get_execution_history()]
        assert 12 * 0.02 <= ran < 1.5 * failed


def test_spans_that_overlap_count_once() -> None:
    assert covered([]) == 0
    assert covered([(5.0, 7.0), (0.0, 4.0), (1.0, 2.0), (3.0, 5.0), (9.0, 9.0)]) == 7


def test_pins_hold_the_version_of_today(open_plant: Callable[..., Any]) -> None:
    for offset in (1, 2, 3):
        with open_plant(*ALL, config={"offset": offset}) as plant:
            plant.produce("total")
            if offset == 1:
                plant.pin("squares", "total")
    with open_plant(*ALL, config={"offset": 3}) as plant:
        reasons = {verdict.why for verdict in plant.gc(max_size=0).kept}
        assert reasons == {"pinned", f"last run of {Path(running_script()).name}"}
        assert [(held.name, held.versions, held.pinned) for held in plant.du().ingredients] == [
            ("squares", 2, True),
            ("numbers", 1, False),
            ("total", 0, True),
        ]
        assert str(plant.du()).count(" ago") == 2  # nothing to say about what has no payload
        assert plant.unpin("squares", "numbers") == ["squares"]
        [gone] = plant.gc(keep_versions=1).gone
        assert gone.stored.names == ("squares",) and gone.why == "not among the newest 1"


def test_many_are_pinned_with_one_look_at_the_traces(
    open_plant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_plant(*ALL, config={"offset": 1}) as plant:
        plant.produce("total")
        with pytest.raises(NoProducer):
            plant.pin("numbers", "nothing")
        assert not any(held.pinned for held in plant.du().ingredients)
        opened: list[bool] = []
        make = Plant._make_activity
        monkeypatch.setattr(Plant, "_make_activity", lambda self, dry: opened.append(dry) or make(self, dry))
        plant.pin("numbers", "squares", "total")
        assert opened == [True]
        assert [held.pinned for held in plant.du().ingredients] == [True] * 3


def test_what_is_not_there_can_not_be_pinned(open_plant: Callable[..., Any]) -> None:
    with open_plant(*ALL, config={"offset": 1}) as plant:
        with pytest.raises(NoProducer):
            plant.pin("squares")
        plant.produce("squares")
    with open_plant(*ALL, config={"offset": 2}) as plant:
        plant.produce("squares")
    with open_plant(*ALL, config={"offset": 2}) as plant:
        plant.gc(max_size=0)
    with open_plant(*ALL, config={"offset": 1}) as plant:
        with pytest.raises(PayloadMissing, match=r"plant\.produce\('squares'\)"):
            plant.pin("squares")


def test_status_looks_whether_what_somebody_wants_is_there(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc
    def doubled(pipe: Any) -> Any:
        x = yield pipe.receive("squares")
        pipe.send("doubled", x * pipe.read_config("factor"))

    def told(plant: Plant) -> list[str]:
        return [str(decision) for decision in plant.status()]

    reactors = (*ALL, doubled)
    for offset in (1, 2):
        with open_plant(*reactors, config={"offset": offset, "factor": 2}) as plant:
            plant.produce("total", "doubled")
    with open_plant(*reactors, config={"offset": 2, "factor": 2}) as plant:
        plant.produce("total")
        plant.gc(keep_versions=1)
    with open_plant(*ALL, config={"offset": 1}) as plant:
        assert told(plant) == ["numbers: up to date", "squares: up to date", "total: up to date"]
        plant.produce("total")
        assert plant.log.take() == []  # a digest of what is gone is enough
        assert not plant.is_ingredient_known("squares") and plant.is_ingredient_known("total")
        with pytest.raises(PayloadMissing, match="'squares'") as caught:
            plant.fetch_ingredient("squares")
        assert "plant.produce" in caught.value.hint
    gone = [f"{name}: would run (the stored content of {name!r} is gone)" for name in ("numbers", "squares")]
    with open_plant(*reactors, config={"offset": 1, "factor": 2}) as plant:
        assert told(plant) == [
            *gone,
            "total: up to date",
            "doubled: would run (the stored content of 'doubled' is gone)",
        ]
    with open_plant(*reactors, config={"offset": 1, "factor": 3}) as plant:
        assert told(plant)[:3] == [*gone, "total: up to date"]
        assert told(plant)[3].startswith("doubled: would run (config factor")
        plant.produce("doubled")
        assert sorted(plant.log.take()) == ["doubled", "numbers", "squares"]
        assert set(told(plant)) == {f"{reactor.name}: up to date" for reactor in reactors}


def test_what_was_fetched_stays_while_the_plant_is_open(open_plant: Callable[..., Any]) -> None:
    for offset in (1, 2):
        with open_plant(*ALL, config={"offset": offset}) as plant:
            plant.produce("total")
    with open_plant(*ALL, config={"offset": 1}) as plant:
        fetched = plant.fetch_ingredient("squares")
        done = plant.gc(max_size=0)
        assert "this session" in {verdict.why for verdict in done.kept}
        assert [str(verdict.stored) for verdict in done.gone] == ["numbers"]
        assert fetched[0] == plant.fetch_ingredient("squares")[0] == 1.0


def test_a_reactor_can_not_collect(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc
    def greedy(pipe: Any) -> None:
        plants[0].gc(max_size=0)

    plants = [open_plant(greedy)]
    with plants[0] as plant, pytest.raises(BadRequest, match="can't use its plant while it runs"):
        plant.run_reactor(greedy)


def test_while_another_plant_of_the_process_runs_nothing_is_removed(open_plant: Callable[..., Any]) -> None:
    reports = []

    @ReactorFunc
    def busy(pipe: Any) -> None:
        reports.append(idle.gc(max_size=0))
        pipe.send("large", np.zeros(20_000))

    with open_plant(*ALL, config={"offset": 1}) as plant:
        plant.produce("total")
    with open_plant() as idle, open_plant(busy) as working:
        working.produce("large")
        assert reports[0].hindrance.startswith("another plant of this process is running reactors")
        done = idle.gc(max_size=0)
        assert done.hindrance == ""
        assert [str(item) for item, why in done.kept if why == "this session"] == ["large"]


@pytest.mark.parametrize("option", [{"disk": "much"}, {"disk": -1}, {"memory": "1 kB"}, {"memory": "2 days"}])
def test_nonsense_budgets_leave_no_store_behind(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"the {next(iter(option))} budget"):
        Plant(tmp_path / "plant", **option)
    assert not (tmp_path / "plant").exists()


def test_the_budgets_reach_those_who_keep_to_them(open_plant: Callable[..., Any]) -> None:
    with open_plant(memory="80MB", disk="1GB") as plant:
        assert plant.warehouse.memory.share("blocks") == 20 * MB
        assert plant.warehouse._committer._most_bytes == 10 * MB
        assert plant.du().budget == 1000 * MB


NEVER_CLOSED = """
import sys
import numpy as np
from pyplantx import *


@ReactorFunc
def numbers(pipe):
    pipe.send("numbers", np.arange(250_000.0))


plant = Plant(sys.argv[1], disk="1 MB")
plant.produce("numbers")
"""


def test_a_script_that_never_closes_its_plant_holds_what_it_reached(tmp_path: Path) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(NEVER_CLOSED)
    command = [sys.executable, str(script), str(tmp_path / "plant")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "holds 2.00 MB, its budget is 1.00 MB" in done.stderr
    with Plant(tmp_path / "plant") as plant:
        assert [verdict.why for verdict in plant.gc(max_size=0).kept] == ["last run of forgetful.py"]


# -- memory -----------------------------------------------------------------------------------------------------------


def test_payloads_that_wait_to_be_written_keep_within_their_share(tmp_path: Path) -> None:
    with Warehouse(tmp_path, durability="process", memory=MemoryBudget("32 MB")) as warehouse:
        waiting = []
        for number in range(100):
            warehouse.store(f"x{number}", f"{number:05}" * 20_000)
            waiting.append(warehouse._committer._bytes)
    assert 1 * MB < max(waiting) <= 4 * MB


class Large:
    """Something that can be watched."""


def test_what_a_failed_reactor_held_is_released_with_its_error(open_plant: Callable[..., Any]) -> None:
    held: list[weakref.ref[Large]] = []

    @ReactorFunc
    def failing(pipe: Any) -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    @ReactorFunc
    def waiting(pipe: Any) -> Any:
        large = Large()
        held.append(weakref.ref(large))
        yield pipe.receive("x")
        pipe.send("y", 1)

    @ReactorFunc
    def early(pipe: Any) -> Any:
        pipe.send("x0", 1)
        yield pipe.receive("never")
        pipe.send("x", 1)

    with open_plant(failing, waiting, early) as plant:
        gc.disable()  # nothing may depend on when cycles are looked for
        try:
            for demand in (lambda: plant.run_reactor(failing), lambda: plant.produce("y")):
                with pytest.raises(Exception) as caught:
                    demand()
                del caught
                assert held and [watch() for watch in held] == [None] * len(held)
        finally:
            gc.enable()


TEN = """
import sys
import numpy as np
from pyplantx import *

folder, kind, how, run = sys.argv[1:]
COUNT = 12_500_000


class Holder:
    def __init__(self, array):
        self.array = array


def make(number):
    array = np.full(COUNT, float(number))
    if kind == "list":
        return [array[: COUNT // 2], array[COUNT // 2 :]]
    return Holder(array) if kind == "object" else array


def total(value):
    if kind == "list":
        return sum(part.sum() for part in value)
    return value.array.sum() if kind == "object" else value.sum()


def producer(number):
    @ReactorFunc(name=f"produce {number}")
    def produce(pipe):
        pipe.send(f"x{number}", make(number))


def consumer(number):
    @ReactorFunc(name=f"consume {number}")
    def consume(pipe):
        x = yield pipe.receive(f"x{number}")
        pipe.send(f"sum {number}", float(total(x)) + pipe.read_config("run"))


@ReactorFunc
def one_by_one(pipe):
    result = pipe.read_config("run")
    for number in range(10):
        x = yield pipe.receive(f"x{number}")
        result += total(x)
        del x
    pipe.send("one by one", float(result))


@ReactorFunc
def each(pipe):
    sums = yield pipe.receive(*[f"sum {number}" for number in range(10)])
    pipe.send("each", sum(sums))


for number in range(10):
    producer(number)
    consumer(number)
with Plant(folder, durability="process", config={"run": int(run)}) as plant:
    print("ready", flush=True)
    sys.stdin.readline()
    print(plant.produce(how) - int(run) * (10 if how == "each" else 1))
"""


def private_memory(pid: int) -> int:
    """Bytes that a process has for itself; mapped files don't count."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon")), 0)
    except OSError:
        return 0


def peak_of(folder: Path, kind: str, how: str, run: str) -> int:
    """Private memory of a process of its own at its peak, beyond what it had with the plant opened."""
    command = [sys.executable, "-c", TEN, str(folder), kind, how, run]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        base = peak = private_memory(child.pid)
        child.stdin.close()
        while child.poll() is None:
            peak = max(peak, private_memory(child.pid))
        assert float(child.stdout.read()) == 45 * 12_500_000
    return peak - base


@pytest.mark.parametrize(
    ("kind", "how"), [("array", "one by one"), ("list", "one by one"), ("object", "one by one"), ("object", "each")]
)
def test_ten_large_values_one_after_the_other_take_the_memory_of_one(tmp_path: Path, kind: str, how: str) -> None:
    try:
        assert peak_of(tmp_path, kind, how, "1") < 132 * MB  # made and received
        assert peak_of(tmp_path, kind, how, "2") < 48 * MB  # received again, by consumers that have changed
    finally:
        shutil.rmtree(tmp_path)  # a gigabyte each

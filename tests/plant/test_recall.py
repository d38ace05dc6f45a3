"""Deep traces are only a short cut: with and without them, the same reactors run and the same values come out."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.core.demand import Demand
from pyplantx.session import recall
from pyplantx.warehouse.warehouse import Warehouse

SIZE = 14


def network(world: dict[str, Any], versions: dict[int, int]) -> list[Any]:
    """A network of reactors; `versions` says how each is written today, `world` is read behind our back."""
    reactors = []
    for i in range(SIZE):
        lines = [f"@ReactorFunc(name='r{i}')", f"def r{i}(pipe, config):"]
        inputs = [j for j in (i - 1, i // 2) if 0 <= j < i]
        for j in inputs:
            lines.append(f"    a{j} = yield pipe.receive('x{j}')")
        total = " + ".join([f"a{j}" for j in inputs] or ["0"])
        lines.append(f"    value = ({total}) * 3 + {versions[i] // 2} + config.c{i % 3}")
        if i == 2:
            lines.append("    value += world['hidden']")
        lines.append(f"    pipe.send('x{i}', value % 1000 if {versions[i] % 2} else value % 7)")
        lines.append("    yield")
        namespace = {"ReactorFunc": ReactorFunc, "world": Hidden(world), "__name__": "network"}
        exec("\n".join(lines), namespace)
        reactors.append(namespace[f"r{i}"])
    return reactors


class Hidden:
    """Something that reactors read and that no fingerprint sees."""

    def __init__(self, world: dict[str, Any]) -> None:
        self.world = world

    def __fingerprint__(self) -> str:
        return "hidden"

    def __getitem__(self, key: str) -> Any:
        return self.world[key]


def session(directory: Path, state: dict[str, Any], target: str, forced: list[str]) -> tuple[Any, list[str]]:
    ran: list[str] = []
    with Plant(directory, durability="process") as plant:
        plant.add_reactors(network(state["world"], state["versions"]))
        plant.set_config(SimpleNamespace(**state["config"]))
        plant.add_event_listener(Plant.EventType.reactor_started, lambda kind, name, function: ran.append(name))
        if forced:
            plant.run_reactor(*forced)
        value = plant.produce(target)
        assert plant.produce(target) == value
    return value, ran


@pytest.mark.parametrize("seed", range(6))
def test_with_and_without(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    state: dict[str, Any] = {
        "versions": dict.fromkeys(range(SIZE), 1),
        "config": {"c0": 1, "c1": 2, "c2": 3},
        "world": {"hidden": 0},
    }
    recalled = 0
    for _ in range(25):
        forced: list[str] = []
        what = chance.choice(["nothing", "nothing", "edit", "config", "hidden", "hidden", "forced"])
        if what == "edit":
            state["versions"][chance.randrange(SIZE)] = chance.randrange(4)
        elif what == "config":
            state["config"][chance.choice(["c0", "c1", "c2"])] = chance.randrange(3)
        elif what == "hidden":
            state["world"]["hidden"] = chance.randrange(5)
            forced = ["r2", *[f"r{chance.choice(range(3, SIZE))}" for _ in range(chance.randrange(2))]]
            chance.shuffle(forced)
        elif what == "forced":
            forced = [f"r{chance.randrange(SIZE)}"]
        target = f"x{chance.choice([SIZE - 1, SIZE - 2])}"
        with monkeypatch.context() as patch:
            counted = Counter(recall.Recall.recall)
            patch.setattr(recall.Recall, "recall", counted)
            quick = session(tmp_path / "quick", state, target, forced)
            recalled += counted.hits
        with monkeypatch.context() as patch:
            patch.setattr(recall.Recall, "recall", lambda self, name, forced: None)
            slow = session(tmp_path / "slow", state, target, forced)
        assert quick == slow, (what, forced)
    assert recalled > 10


class Counter:
    """Wraps `Recall.recall` and counts how often it knew the answer."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.hits = inner, 0

    def __get__(self, instance: Any, owner: Any) -> Any:
        def counted(*args: Any) -> Any:
            found = self.inner(instance, *args)
            self.hits += found is not None
            return found

        return counted


def test_a_payload_that_is_gone_is_made_again(open_plant: Any, tmp_path: Path) -> None:
    def step(i: int) -> Any:
        @ReactorFunc(name=f"step-{i}")
        def made(pipe: Any) -> Any:
            before = (yield pipe.receive(f"x{i - 1}")) if i else np.zeros(300_000)
            pipe.send(f"x{i}", before + 1)

        return made

    reactors = [step(i) for i in range(10)]
    with open_plant(*reactors) as plant:
        plant.produce("x9")
    with open_plant(*reactors) as plant:
        assert plant.produce("x9")[0] == 10
        assert plant.log.take() == []
    shutil.rmtree(tmp_path / "plant" / "objects")
    (tmp_path / "plant" / "objects").mkdir(mode=0o700)
    with open_plant(*reactors) as plant:
        assert plant.produce("x9")[0] == 10
        assert sorted(plant.log.take()) == sorted(f"step-{i}" for i in range(10))
        assert plant.produce("x9")[0] == 10
        assert plant.log.take() == []


def chain_with_two_ends(length: int) -> list[Any]:
    """A chain whose last ingredient comes from "left" or "right", as the config says."""

    @ReactorFunc(name="x0")
    def first(pipe: Any, config: Any) -> None:
        pipe.send("x0", config.seed)

    def step(i: int) -> Any:
        @ReactorFunc(name=f"x{i}")
        def made(pipe: Any) -> Any:
            pipe.send(f"x{i}", (yield pipe.receive(f"x{i - 1}")) + 1)

        return made

    def end(side: str) -> Any:
        @ReactorFunc(name=side)
        def made(pipe: Any, config: Any) -> Any:
            if config.side == side:
                pipe.send("end", (yield pipe.receive(f"x{length - 1}")) + 1)

        return made

    return [first, *[step(i) for i in range(1, length)], end("left"), end("right")]


def test_what_does_not_hold_tells_who_sent_what(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reactors, asked = chain_with_two_ends(10), []
    producers = Warehouse.producers
    monkeypatch.setattr(Warehouse, "producers", lambda self, name: asked.append(name) or producers(self, name))
    with open_plant(*reactors, config=SimpleNamespace(seed=1, side="left")) as plant:
        assert plant.produce("end") == 11
    for seed in (2, 3):
        asked.clear()
        with open_plant(*reactors, config=SimpleNamespace(seed=seed, side="left")) as plant:
            assert plant.produce("end") == seed + 10
            assert len(plant.log.take()) == 11
            assert asked == []


def test_who_has_sent_it_does_not_any_more(open_plant: Any) -> None:
    reactors = chain_with_two_ends(10)
    for seed, side in [(1, "left"), (2, "right"), (3, "right"), (4, "left"), (4, "right")]:
        with open_plant(*reactors, config=SimpleNamespace(seed=seed, side=side)) as plant:
            assert plant.produce("end") == seed + 10
    with open_plant(*[r for r in reactors if r.name != "right"], config=SimpleNamespace(seed=5, side="left")) as plant:
        assert plant.produce("end") == 15


SWAPPED = """
@ReactorFunc(name="A")
def a(pipe):
    name = {a!r}
    pipe.send(name, int("1"))

@ReactorFunc(name="B")
def b(pipe):
    name = {b!r}
    pipe.send(name, 1)
"""


def test_who_has_sent_it_in_another_version_is_not_asked(open_plant: Any) -> None:
    """Code that is switched back finds its traces: nobody runs to find out what these tell."""
    rest = chain_with_two_ends(10)[1:]
    for a, b, runs in [("x0", "z", {"A"}), ("w", "x0", {"B"}), ("x0", "z", set())]:
        made: dict[str, Any] = {"ReactorFunc": ReactorFunc}
        exec(compile(SWAPPED.format(a=a, b=b), "swapped.py", "exec"), made)
        with open_plant(made["a"], made["b"], *rest, config=SimpleNamespace(side="left")) as plant:
            assert plant.produce("end") == 11
            ran = set(plant.log.take())
            assert ran >= runs and bool(ran) == bool(runs)


def test_who_caught_a_failure_when_it_ran_again_is_not_recalled(
    open_plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first run of the activity is in the traces, its second one isn't: nothing tells what its failure hung on."""
    monkeypatch.setattr(recall, "_WORTH_IT", 1)
    state = {"x": 1, "mended": False}
    world = Hidden(state)

    @ReactorFunc(name="source")
    def source(pipe: Any) -> None:
        pipe.send("x", world["x"])
        pipe.send("w", np.zeros(300_000))

    @ReactorFunc(name="tolerant")
    def tolerant(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        try:
            pipe.send("t", x + (yield pipe.receive("y")) if x > 1 else x)
        except ValueError:
            pipe.send("t", 0)

    @ReactorFunc(name="user")
    def user(pipe: Any) -> Any:
        t = yield pipe.receive("t")
        w = yield pipe.receive("w")
        pipe.send("sum", t + w.sum())

    @ReactorFunc(name="bad")
    def bad(pipe: Any) -> None:
        if not world["mended"]:
            raise ValueError
        pipe.send("y", 10)

    reactors = [source, tolerant, user, bad]
    with open_plant(*reactors) as plant:
        assert plant.produce("x") == 1
    shutil.rmtree(tmp_path / "plant" / "objects")
    (tmp_path / "plant" / "objects").mkdir(mode=0o700)
    state["x"] = 2
    with open_plant(*reactors) as plant:
        plant.run_reactor(user)
        assert plant.log.take() == ["user", "tolerant", "source", "tolerant", "bad", "user"]
    state["mended"] = True
    with open_plant(*reactors) as plant:
        assert plant.produce("t") == 12


@pytest.fixture
def clocked() -> tuple[dict[str, int], list[Any]]:
    """A clock that no fingerprint sees, and reactors whose results hang on it: "small" and "large", by a chain."""
    state = {"time": 1}
    clock = Hidden(state)

    @ReactorFunc(name="x0")
    def first(pipe: Any) -> None:
        pipe.send("x0", clock["time"])
        pipe.send("heavy", np.full(300_000, clock["time"]))

    def step(i: int) -> Any:
        @ReactorFunc(name=f"x{i}")
        def made(pipe: Any) -> Any:
            pipe.send(f"x{i}", (yield pipe.receive(f"x{i - 1}")))

        return made

    @ReactorFunc(name="small")
    def small(pipe: Any) -> Any:
        pipe.send("small", (yield pipe.receive("x9")))

    @ReactorFunc(name="large")
    def large(pipe: Any) -> Any:
        yield pipe.receive("x9")
        pipe.send("large", (yield pipe.receive("heavy")) + 0)

    return state, [first, *[step(i) for i in range(1, 10)], small, large]


def test_what_hangs_on_a_reactor_that_is_to_run_is_not_recalled(open_plant: Any, clocked: Any) -> None:
    state, reactors = clocked
    for order in (["small", "x0"], ["x0", "small"]):
        with open_plant(*reactors) as plant:
            plant.run_reactor("small")
        state["time"] += 1
        with open_plant(*reactors) as plant:
            plant.run_reactor(*order)
            assert plant.produce("small") == state["time"]
            assert set(plant.log.take()) == {"small", *[f"x{i}" for i in range(10)]}


def test_what_was_recalled_follows_what_is_made_again_meanwhile(open_plant: Any, clocked: Any, tmp_path: Path) -> None:
    """The payload of "large" is gone, and what it is made of comes out different: "small" must not be of yesterday."""
    state, reactors = clocked
    with open_plant(*reactors) as plant:
        plant.produce("small", "large")
    shutil.rmtree(tmp_path / "plant" / "objects")
    (tmp_path / "plant" / "objects").mkdir(mode=0o700)
    state["time"] = 2
    with open_plant(*reactors) as plant:
        small, large = plant.produce("small", "large")
        assert (small, large[0]) == (2, 2)


def test_who_has_run_last_sends_it_for_those_behind_too(open_plant: Any) -> None:
    """A forced run leaves the trace that is there already, and is asked from now on."""
    made: dict[str, Any] = {"ReactorFunc": ReactorFunc}
    source = "@ReactorFunc(name={0!r})\ndef {0}(pipe):\n    pipe.send('x0', {1})\n"
    exec(source.format("one", 1) + source.format("two", 2), made)
    reactors = (made["one"], made["two"], *chain_with_two_ends(10)[1:])
    with open_plant(*reactors, config=SimpleNamespace(side="left")) as plant:
        for name, sent in [("one", 1), ("two", 2), ("one", 1), ("two", 2)]:
            plant.run_reactor(name)
            assert plant.produce("end") == plant.produce("x0") + 10 == sent + 10


def long_chain(length: int) -> list[Any]:
    """A chain, and one that receives all of it, one by one."""
    made: dict[str, Any] = {"ReactorFunc": ReactorFunc}
    lines = ["@ReactorFunc", "def r0(pipe):", "    pipe.send('x0', 1)"]
    for i in range(1, length):
        lines += ["@ReactorFunc", f"def r{i}(pipe):"]
        lines += [f"    pipe.send('x{i}', (yield pipe.receive('x{i - 1}')) + 1)"]
    lines += ["@ReactorFunc", "def all_of_it(pipe):", "    total = 0", f"    for i in range({length}):"]
    lines += ["        total += yield pipe.receive(f'x{i}')", "    pipe.send('total', total)"]
    exec("\n".join(lines), made)
    return [*(made[f"r{i}"] for i in range(length)), made["all_of_it"]]


def test_what_many_names_hang_on_is_not_walked_for_each(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    length = 200
    ancestry, read, walked, texts = Demand.ancestry, Warehouse.blob_get, [0], [0]

    def counting(self: Demand, *arguments: Any) -> Any:
        for step in ancestry(self, *arguments):
            walked[0] += 1
            yield step

    def noting(self: Warehouse, kind: str, key: str) -> str | None:
        texts[0] += kind == "deep trace" and key != "generation"
        return read(self, kind, key)

    monkeypatch.setattr(Demand, "ancestry", counting)
    monkeypatch.setattr(Warehouse, "blob_get", noting)
    for runs in (length + 1, 1):
        with open_plant(*long_chain(length)) as plant:
            walked[0] = texts[0] = 0
            plant.run_reactor("all_of_it")
            assert len(plant.log.take()) == runs
            assert walked[0] <= 6 * length and texts[0] <= 2 * recall._PLACES
    with open_plant(*long_chain(length)) as plant:
        assert plant.produce(f"x{length - 1}", "total") == (length, sum(range(length + 1)))
        assert plant.log.take() == []

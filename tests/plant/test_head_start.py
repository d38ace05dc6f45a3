"""A run is started with what its replay was given: it stops less often, and nothing else is different."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.runs.run import Run


def reactors() -> list[Any]:
    @ReactorFunc(name="seeds")
    def seeds(pipe: Any) -> Any:
        seed = pipe.read_config("seed")
        pipe.send("a", seed)
        pipe.send("b", [seed] * 3000)  # too long to be kept in the reference itself

    @ReactorFunc(name="adds")
    def adds(pipe: Any) -> Any:
        a, b = yield pipe.receive("a", "b")
        again = yield pipe.receive("a")
        late = pipe.read_config("late")
        pipe.send("early", late)
        b = yield pipe.receive("b")
        pipe.send("sum", a + sum(b) + again + late)

    @ReactorFunc(name="last")
    def last(pipe: Any) -> Any:
        total = yield pipe.receive("sum")
        pipe.send("total", -total)

    return [seeds, adds, last]


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the reactors whenever one is resumed."""
    resumed: list[str] = []
    resume = Run.resume

    def noted(self: Run, refs: Any) -> Any:
        resumed.append(self.reactor.name)
        return resume(self, refs)

    monkeypatch.setattr(Run, "resume", noted)
    return resumed


def run_twice(open_plant: Callable[..., Any], directory: str, told: bool) -> tuple[list[Any], list[Any]]:
    """Values under two configs, and all traces that are left."""
    values = []
    for seed in (1, 2):
        config = {"seed": seed, "late": 7}
        with open_plant(*reactors(), config=config, directory=directory) as plant:
            if told:
                plant.add_event_listener(Plant.EventType.reactor_step, lambda *_: None)
            values.append(plant.produce("total"))
            plant.warehouse.sync()
            traces = sorted(plant.warehouse._reader.scan("traces"))
    return values, traces


def test_it_leaves_the_same_values_and_traces(open_plant: Callable[..., Any], stops: list[str]) -> None:
    quick = run_twice(open_plant, "quick", told=False)
    at_once = stops[:]
    stops.clear()
    assert quick == run_twice(open_plant, "slow", told=True)
    assert quick[0] == [-(1 + 3000 + 1 + 7), -(2 + 6000 + 2 + 7)]
    assert stops == ["adds", "adds", "adds", "last"] * 2  # who listens is told of each step
    assert at_once == [*stops[:4], "adds", "adds"]  # beyond the change nothing is known; "last" need not stop at all


def test_a_payload_that_is_gone_is_made_again_first(open_plant: Callable[..., Any]) -> None:
    first, second, _ = reactors()
    with open_plant(first, second, config={"seed": 1, "late": 7}) as plant:
        plant.produce("sum")
        plant.warehouse._committer.forget_object(plant.warehouse.last_ref("b").address)
    with open_plant(first, second, config={"seed": 1, "late": 8}) as plant:
        assert plant.produce("sum") == 1 + 3000 + 1 + 8
        assert sorted(plant.log.take()) == ["adds", "seeds"]


def test_a_reactor_that_asks_for_something_else_now_is_given_that(open_plant: Callable[..., Any]) -> None:
    wanted = ["a"]

    @ReactorFunc(name="two")
    def two(pipe: Any) -> Any:
        pipe.send("a", pipe.read_config("seed"))
        pipe.send("b", -pipe.read_config("seed"))

    class Choice:
        def __fingerprint__(self) -> str:
            return "choice"

        def __call__(self) -> str:
            return wanted[0]

    choose = Choice()

    @ReactorFunc(name="fickle")
    def fickle(pipe: Any) -> Any:
        x = yield pipe.receive(choose())
        pipe.send("x", x)

    for seed, name, value in ((1, "a", 1), (2, "b", -2)):
        wanted[0] = name
        with open_plant(two, fickle, config={"seed": seed}) as plant:
            assert plant.produce("x") == value

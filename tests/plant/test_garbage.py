"""The garbage collector around user code: what a step leaves goes at once, and the program finds it as it was."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyplantx import ReactorFunc
from pyplantx.core.demand import Demand
from pyplantx.core.scheduler import Scheduler
from pyplantx.core.state import Conversation, Ingredient
from pyplantx.executors import garbage
from pyplantx.session.activity import Activity


class Node:
    """Something that can be watched."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    yield
    assert not gc.get_freeze_count()
    gc.enable()


def test_cycles_that_a_step_leaves_are_gone_before_the_next(open_plant: Callable[..., Any]) -> None:
    left: list[weakref.ref[Node]] = []
    alive: list[bool] = []

    @ReactorFunc
    def wasteful(pipe: Any) -> Any:
        left.append(weakref.ref(Node()))
        pipe.send("a", 1)

    @ReactorFunc
    def frugal(pipe: Any) -> Any:
        x = yield pipe.receive("a")
        alive.append(left[0]() is not None)
        pipe.send("b", x)

    with open_plant(wasteful, frugal) as plant:
        assert plant.produce("b") == 1
    assert alive == [False]


def test_cycles_that_outlive_their_step_go_after_the_demand(open_plant: Callable[..., Any]) -> None:
    kept: list[Node] = [Node()]
    seen = weakref.ref(kept[0])

    @ReactorFunc
    def first(pipe: Any) -> Any:
        kept.append(Node())
        pipe.send("a", 1)

    @ReactorFunc
    def second(pipe: Any) -> Any:
        x = yield pipe.receive("a")
        kept.clear()
        pipe.send("b", x)

    with open_plant(first, second) as plant:
        plant.produce("b")
        gc.collect()
    assert seen() is None


def test_a_long_demand_collects_everything_now_and_then(
    open_plant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "_SELDOM", 0.0)
    monkeypatch.setattr(garbage, "_SHARE", 0.0)
    kept: list[Node] = [Node()]
    seen = weakref.ref(kept[0])
    alive: list[bool] = []

    @ReactorFunc
    def first(pipe: Any) -> Any:
        kept.clear()
        pipe.send("a", 1)

    @ReactorFunc
    def second(pipe: Any) -> Any:
        x = yield pipe.receive("a")
        alive.append(seen() is not None)
        pipe.send("b", x)

    with open_plant(first, second) as plant:
        plant.produce("b")
    assert alive == [False]


def collector_in_a_reactor(open_plant: Callable[..., Any]) -> list[tuple[bool, int]]:
    """Whether the collector is on, and how much is frozen, while a reactor runs."""
    found: list[tuple[bool, int]] = []

    @ReactorFunc
    def curious(pipe: Any) -> Any:
        found.append((gc.isenabled(), gc.get_freeze_count()))
        pipe.send("a", 1)

    with open_plant(curious) as plant:
        plant.produce("a")
    return found


def test_user_code_runs_with_the_collector_on(open_plant: Callable[..., Any]) -> None:
    ((is_on, frozen),) = collector_in_a_reactor(open_plant)
    assert is_on and frozen
    assert gc.isenabled()


def test_a_program_that_has_the_collector_off_is_left_alone(open_plant: Callable[..., Any]) -> None:
    gc.disable()
    assert collector_in_a_reactor(open_plant) == [(False, 0)]
    assert not gc.isenabled()


def test_what_the_program_has_frozen_stays_frozen(open_plant: Callable[..., Any]) -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    try:
        ((is_on, _),) = collector_in_a_reactor(open_plant)
        assert is_on
        assert gc.isenabled()
        assert before // 2 < gc.get_freeze_count() <= before  # some of it died meanwhile, nothing was added
    finally:
        gc.unfreeze()


def test_an_error_leaves_the_collector_as_it_was(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc
    def interrupted(pipe: Any) -> Any:
        raise KeyboardInterrupt

    with open_plant(interrupted) as plant, pytest.raises(KeyboardInterrupt):
        plant.run_reactor(interrupted)
    assert gc.isenabled()


def test_where_memory_was_not_enough_cycles_go_before_the_next_demand(open_plant: Callable[..., Any]) -> None:
    left: list[weakref.ref[Node]] = []
    alive: list[bool] = []

    @ReactorFunc
    def greedy(pipe: Any) -> None:
        node = Node()
        left.append(weakref.ref(node))
        try:
            raise MemoryError
        except MemoryError as error:
            node.error = error  # type: ignore[attr-defined]
            raise ValueError("this is too much") from error

    @ReactorFunc
    def modest(pipe: Any) -> None:
        alive.append(left[0]() is not None)
        pipe.send("b", 1)

    with open_plant(greedy, modest) as plant:
        with pytest.raises(ValueError, match="too much"):
            plant.run_reactor(greedy)
        plant.produce("b")
    assert alive == [False]


def test_a_demand_leaves_no_cycles(open_plant: Callable[..., Any]) -> None:
    """Else a hundred of them, of a thousand reactors, leave millions of objects that only the collector can find."""

    @ReactorFunc
    def first(pipe: Any) -> Any:
        for number in range(5):
            pipe.send(f"a{number}", (yield pipe.receive(f"b{number}")) if number else 0)

    @ReactorFunc
    def second(pipe: Any) -> Any:
        for number in range(5):
            pipe.send(f"b{number + 1}", (yield pipe.receive(f"a{number}")) + 1)

    @ReactorFunc
    def failing(pipe: Any) -> Any:
        raise ValueError((yield pipe.receive("b5")))

    def parts_of_demands() -> list[Any]:
        return [
            kept
            for kept in gc.get_objects()
            if issubclass(type(kept), (Activity, Scheduler, Demand, Conversation, Ingredient))  # asks them for nothing
        ]

    gc.collect()
    others = parts_of_demands()  # of plants that other tests left
    gc.disable()
    with open_plant(first, second, failing) as plant:
        for _ in range(2):
            assert plant.produce("b5") == 5
            plant.run_reactor(second)
            plant.status()
            with pytest.raises(ValueError, match="5"):
                plant.run_reactor(failing)
        left = parts_of_demands()
    assert {id(part) for part in left} <= {id(part) for part in others}


def test_a_plant_that_is_forgotten_is_gone_at_once(open_plant: Callable[..., Any]) -> None:
    """Its parts don't lead back to it: what its reactors have made does not wait for the collector."""

    @ReactorFunc
    def one(pipe: Any) -> None:
        pipe.send("a", 1)

    plant = open_plant(one)
    plant.produce("a")
    plant.status()
    warehouse, seen = plant.warehouse, weakref.ref(plant)
    gc.disable()
    try:
        del plant
        assert seen() is None
    finally:
        warehouse.close()

"""Marks that come after the runs: what an auxiliary parameter was then does not count, as long as it is marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pyplantx import ConfigBase, ReactorFunc

Session = Callable[..., list[str]]


class Model(ConfigBase):
    """A group."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


class Settings(ConfigBase):
    """What the reactors read."""

    def __init__(self, workers: int = 1, depth: int = 1, rate: int = 1, marks: Iterable[str] = ()) -> None:
        self.workers, self.model, self.rate = workers, Model(depth), rate
        self.mark_auxiliary(marks)


@pytest.fixture
def session(open_plant: Any) -> Session:
    """A session of two reactors: who ran."""

    @ReactorFunc
    def first(pipe: Any, config: Any) -> None:
        pipe.send("x", config.workers + config.model.depth)

    @ReactorFunc
    def second(pipe: Any, config: Any) -> Any:
        pipe.send("out", config.rate + (yield pipe.receive("x")))

    def run(marks: Iterable[str] = (), **values: int) -> list[str]:
        with open_plant(first, second, config=Settings(**values, marks=marks)) as plant:
            planned = [line.reactor for line in plant.status() if line.action in ("would run", "may run")]
            plant.produce("out")
            ran: list[str] = plant.log.take()
        assert sorted(planned) == sorted(ran)
        return ran

    return run


@pytest.mark.parametrize(("mark", "value"), [("workers", "workers"), ("model", "depth"), ("model.depth", "depth")])
def test_a_value_that_is_changed_after_the_mark_runs_nothing(session: Session, mark: str, value: str) -> None:
    assert session() == ["second", "first"]
    for number in (2, 3, 1):
        assert session([mark], **{value: number}) == []
    assert session([mark], **{value: 2, "rate": 2}) == ["second"]
    assert session([mark], **{value: 3, "rate": 2}) == []


def test_the_value_counts_again_without_the_mark(session: Session) -> None:
    session(workers=1)
    assert session(["workers"], workers=2) == []
    assert sorted(session(workers=2)) == ["first", "second"]
    assert session(workers=1) == []
    assert session(["workers"], workers=7) == []
    assert session(workers=2) == []
    assert session(workers=7) != []


def test_other_parameters_count_as_before(session: Session) -> None:
    session()
    assert "first" in session(["rate"], workers=2, rate=2)
    assert session(["model.other"], depth=2) != []


def test_what_was_computed_with_the_present_value_comes_first(open_plant: Any) -> None:
    @ReactorFunc
    def reactor(pipe: Any, config: Any) -> None:
        pipe.send("x", config.workers)

    for workers, marks, expected in [(1, [], 1), (2, [], 2), (2, ["workers"], 2), (1, ["workers"], 1)]:
        with open_plant(reactor, config=Settings(workers, marks=marks)) as plant:
            assert plant.produce("x") == expected
    with open_plant(reactor, config=Settings(9, marks=["workers"])) as plant:
        assert plant.produce("x") in (1, 2) and plant.log.take() == []


def test_in_the_session_of_the_mark(open_plant: Any) -> None:
    @ReactorFunc
    def reactor(pipe: Any, config: Any) -> None:
        pipe.send("x", config["a"] + config["b"])

    with open_plant(reactor, config={"a": 1, "b": 1}) as plant:
        assert plant.produce("x") == 2
        plant.mark_params_as_auxiliary(["a"])
        plant.set_config({"a": 5, "b": 1})
        assert plant.produce("x") == 2
        plant.set_config({"a": 6, "b": 2})
        assert plant.produce("x") == 8
        assert plant.log.take() == ["reactor", "reactor"]


def test_a_chain_is_recalled_all_the_same(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @ReactorFunc
    def start(pipe: Any, config: Any) -> None:
        pipe.send("x0", config.workers)

    def link(number: int) -> Any:
        @ReactorFunc(name=f"r{number}", sends=[f"x{number}"])
        def reactor(pipe: Any) -> Any:
            pipe.send(f"x{number}", (yield pipe.receive(f"x{number - 1}")) + 1)

        return reactor

    reactors = [start, *map(link, range(1, 40))]
    with open_plant(*reactors, config=Settings()) as plant:
        assert plant.produce("x39") == 40
    with open_plant(*reactors, config=Settings(5, marks=["workers"])) as plant:
        assert plant.produce("x39") == 40
        assert plant.log.take() == []

"""Checkpoints in calls of subreactors: each call has keys of its own, which the next run finds again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, SubreactorFunc, specs
from pyplantx.fingerprint import code
from pyplantx.testing import PipeworkMock, run_reactor_to_completion
from pyplantx.warehouse.resume import sweep_workspaces

#: Which of the coming calls of `fit` are to die at their second value.
deaths: list[int] = []

#: What the calls of `fit` have begun with, in all runs together.
begun: list[Any] = []


class Killed(Exception):
    """Ends a run."""


@SubreactorFunc
def fit(pipe: Any, values: Any, of: Any = None) -> Iterator[Any]:
    """Add up some values one by one."""
    start, total = pipe.checkpoint("fit", default=(0, 0))
    begun.append(start)
    deaths[:] = [left - 1 for left in deaths]
    for at in range(start, len(values)):
        if at == 1 and 0 in deaths:
            raise Killed
        total = total + values[at]
        pipe.checkpoint("fit", (at + 1, total))
    return total
    yield


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """What reactors of other tests have left in the lists above is nobody's business."""
    code._STATE.clear()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Run a function as a reactor again and again; each run but the last is killed. What the last one has sent as x."""
    begun.clear()

    def ran(body: Callable[[Any, int], Any], times: int = 2, dying: tuple[int, ...] = ()) -> Any:
        attempt = iter(range(times))

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            now = next(attempt)
            deaths[:] = dying[now : now + 1]
            value = yield from body(pipe, now)
            pipe.send("x", value)

        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            for _ in range(times - 1):
                with pytest.raises(Killed):
                    plant.produce("x")
            return plant.produce("x")

    yield ran
    begun.clear()


def test_a_second_call_does_not_find_what_the_first_has_kept(runs):
    def body(pipe: Any, attempt: int) -> Any:
        first = yield from fit(pipe, [1, 2])
        second = yield from fit(pipe, [10, 20])
        third = yield from fit(pipe, [10, 20])
        return [first, second, third]

    assert runs(body, 3, dying=(2, 3)) == [3, 30, 30]
    assert begun == [0, 0, 2, 1, 0, 2, 2, 1]


def test_without_a_plant():
    def work(pipe: Any) -> Any:
        pipe.checkpoint("fit", (5, 5))
        first = yield from fit(pipe, [1, 2])
        pipe.send("x", [first, (yield from fit(pipe, [10, 20])), pipe.checkpoint("fit")])

    assert run_reactor_to_completion(work, PipeworkMock({})).sent["x"] == [3, 30, (5, 5)]


def test_keys_of_the_reactor_are_others(runs):
    def body(pipe: Any, attempt: int) -> Any:
        seen = pipe.checkpoint("fit", default=0)
        pipe.checkpoint("fit", 7)
        total = yield from fit(pipe, [1, 2])
        return [seen, total, pipe.checkpoint("fit")]

    assert runs(body, dying=(1,)) == [7, 3, 7]
    assert begun == [0, 1]


def test_calls_that_the_next_run_leaves_out(runs):
    """The first call that it makes is the second one, with the same arguments."""
    drawn = iter([100, 200, 300])

    @SubreactorFunc
    def draw(pipe: Any, until: int) -> Any:
        found = pipe.checkpoint("draw", default=None)
        if found is None:
            found = next(drawn)
            pipe.checkpoint("draw", found)
        if until == 0:
            raise Killed
        return found
        yield

    def body(pipe: Any, attempt: int) -> Any:
        stage, found = pipe.checkpoint("stage", default=(0, []))
        if stage < 1:
            found = [(yield from draw(pipe, 1))]
            pipe.checkpoint("stage", (1, found))
        if attempt == 0:
            raise Killed
        second = yield from draw(pipe, 1)
        if attempt == 1:
            raise Killed
        return [*found, second]

    assert runs(body, 3) == [100, 200]


@pytest.mark.parametrize(
    "values",
    [([1, 2], [3, 4]), (np.arange(3.0), np.arange(1.0, 4)), ([1, 2], [1.0, 2.0]), ((1, np.arange(2)), (1, np.ones(2)))],
)
def test_other_arguments_are_another_call(values, runs):
    """Which call comes first is left to chance: the second run begins with the other one."""

    def body(pipe: Any, attempt: int) -> Any:
        return (yield from fit(pipe, values[attempt]))

    found = runs(body, dying=(1,))
    assert np.array_equal(found, sum(values[1])) and type(found) is type(sum(values[1]))
    assert begun == [0, 0]


def test_the_order_of_calls_may_change(runs):
    @SubreactorFunc
    def named(pipe: Any, name: str) -> Any:
        begun.append((name, pipe.checkpoint("of", default=None)))
        pipe.checkpoint("of", name)
        return name
        yield

    def body(pipe: Any, attempt: int) -> Any:
        found = []
        for name in ("abc", "cab")[attempt]:
            found.append((yield from named(pipe, name)))
        if attempt == 0:
            raise Killed
        return found

    assert runs(body) == ["c", "a", "b"]
    assert begun == [("a", None), ("b", None), ("c", None), ("c", "c"), ("a", "a"), ("b", "b")]


def test_opaque_arguments_keep_nothing_for_the_next_run(runs, caplog):
    def body(pipe: Any, attempt: int) -> Any:
        totals = []
        for _ in range(3):
            totals.append((yield from fit(pipe, [1, 2], threading.Lock())))
        return totals

    with caplog.at_level(logging.WARNING, logger="pyplantx"):
        assert runs(body, dying=(3,)) == [3, 3, 3]
    assert begun == [0] * 6
    assert len([text for text in caplog.messages if "call of fit is not restored after a kill" in text]) == 2


def test_what_is_allocated_is_an_argument_like_others(runs):
    def body(pipe: Any, attempt: int) -> Any:
        scratch = pipe.allocate_temp(specs.ArraySpec, shape=(4,), dtype="f8")
        scratch[:] = 3
        return (yield from fit(pipe, [1, 2], scratch))

    assert runs(body, dying=(1,)) == 3
    assert begun == [0, 1]


@pytest.mark.parametrize("kind", [specs.ArraySpec, specs.HdfArraySpec])
def test_what_was_received_is_not_read(kind, tmp_path, monkeypatch):
    """It may be larger than what is looked at: what it was opened from tells which one it is."""
    monkeypatch.setattr("pyplantx.blocks.captured._MOST_BYTES", 1000)
    begun.clear()

    @ReactorFunc(name="large")
    def large(pipe: Any) -> None:
        pipe.send("x", np.ones((3, 200_000)), kind)

    @ReactorFunc(name="r", version="1")
    def reactor(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        deaths[:] = [] if begun else [2]
        first = yield from fit(pipe, [0, 0], x)
        pipe.send("y", first + (yield from fit(pipe, [1, 2], x)))

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(large, reactor)
        with pytest.raises(Killed):
            plant.produce("y")
    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(large, reactor)
        assert plant.produce("y") == 3
    assert begun == [0, 0, 2, 1]


def test_subreactors_and_functions_are_arguments_like_others(runs):
    @SubreactorFunc
    def one(pipe: Any) -> Any:
        return 1

    @SubreactorFunc
    def by(pipe: Any, times: Any, other: Any) -> Any:
        found = pipe.checkpoint("by", default=None)
        begun.append(found)
        pipe.checkpoint("by", times(2))
        return times(2)
        yield

    def body(pipe: Any, attempt: int) -> Any:
        double = yield from by(pipe, lambda value: 2 * value, one)
        triple = yield from by(pipe, lambda value: 3 * value, one)
        if attempt == 0:
            raise Killed
        return [double, triple]

    assert runs(body) == [4, 6]
    assert begun == [None, None, 4, 6]


def test_calls_in_calls(runs):
    @SubreactorFunc
    def outer(pipe: Any, values: Any) -> Any:
        first = yield from fit(pipe, values)
        return [first, (yield from fit(pipe, values[::-1])), pipe.checkpoint("fit", default=None)]

    def body(pipe: Any, attempt: int) -> Any:
        one = yield from outer(pipe, [1, 2])
        return one + (yield from outer(pipe, [3, 4]))

    assert runs(body, dying=(4,)) == [3, 3, None, 7, 7, None]
    assert begun == [0, 0, 0, 0, 2, 2, 2, 1]


def test_two_calls_that_are_stepped_by_turns(runs):
    @SubreactorFunc
    def halves(pipe: Any, name: str) -> Any:
        pipe.checkpoint("name", name)
        yield
        return pipe.checkpoint("name")

    def body(pipe: Any, attempt: int) -> Any:
        steps = [iter(halves(pipe, name)) for name in "ab"]
        for step in steps:
            next(step)
        found = []
        for step in steps:
            try:
                next(step)
            except StopIteration as end:
                found.append(end.value)
        return found
        yield

    assert runs(body, 1) == ["a", "b"]


def test_coroutines_and_plain_functions(runs):
    @SubreactorFunc
    async def waits(pipe: Any, name: str) -> Any:
        found = pipe.checkpoint("name", default="nothing")
        pipe.checkpoint("name", name)
        return found

    @SubreactorFunc
    def plain(pipe: Any, name: str) -> Any:
        found = pipe.checkpoint("name", default="nothing")
        pipe.checkpoint("name", name)
        return found

    def body(pipe: Any, attempt: int) -> Any:
        found = []
        for kind in (waits, plain):
            for name in "ab":
                found.append((yield from kind(pipe, name)))
        if attempt == 0:
            raise Killed
        return found

    assert runs(body) == ["a", "b", "a", "b"]


@pytest.mark.parametrize("held", [False, True])
def test_many_calls_have_few_files_open(runs, held):
    opened = []

    def body(pipe: Any, attempt: int) -> Any:
        calls = [fit(pipe, [number]) for number in range(200)] if held else None
        for number in range(200):
            yield from (fit(pipe, [number]) if calls is None else calls[number])
            opened.append(len(os.listdir("/proc/self/fd")))
        if attempt == 0:
            raise Killed
        return 1

    assert runs(body) == 1
    assert max(opened) - min(opened) < 100
    assert begun == [0] * 200 + [1] * 200


def test_seconds_of_the_run_itself_count_once(tmp_path):
    """Of so many calls that are held the ledgers are closed meanwhile, and opened again."""

    @SubreactorFunc
    def halves(pipe: Any, number: int) -> Any:
        pipe.checkpoint("half", default=0)
        if number == 0:
            time.sleep(1)
        pipe.checkpoint("half", 1)
        yield
        pipe.checkpoint("half", 2)

    @ReactorFunc(name="r")
    def reactor(pipe: Any) -> Any:
        steps = [iter(halves(pipe, number)) for number in range(40)]
        for step in steps:
            next(step)
        for step in steps:
            assert next(step, None) is None
        pipe.send("x", 1)

    began = time.perf_counter()
    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(reactor)
        plant.produce("x")
        took = time.perf_counter() - began
        (entry,) = plant.get_execution_history()
    assert 1 <= entry["seconds"] <= took


class Loose(dict[str, Any]):
    """Its keys are attributes; what is no key is a `KeyError`."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Anything:
    """Has a word for any name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


@pytest.mark.parametrize("argument", [Loose(a=1), Anything()], ids=["loose", "anything"])
def test_arguments_with_attributes_of_their_own_making(argument, runs):
    def body(pipe: Any, attempt: int) -> Any:
        return (yield from fit(pipe, [1, 2], argument))

    assert runs(body, dying=(1,)) == 3
    assert begun == [0, 1]


@pytest.mark.parametrize("spec", [specs.ArraySpec, specs.HdfArraySpec])
def test_scratch_space_of_one_name_is_told_apart(spec, runs):
    """Which call comes first is left to chance: the second run begins with the other one."""

    def body(pipe: Any, attempt: int) -> Any:
        arrays = [pipe.allocate_temp(spec, shape=(2,), dtype="f8") for _ in range(2)]
        for number, array in enumerate(arrays):
            array[:] = number + 1
        return float((yield from fit(pipe, np.arange(2.0), arrays[attempt])))

    runs(body, dying=(1,))
    assert begun == [0, 0]


@pytest.mark.parametrize("caught", [False, True], ids=["raised", "caught"])
def test_what_another_process_takes_over_of_many_calls_is_done_again(tmp_path, caught):
    """The ledgers of the oldest calls are closed; another process that works on the same ends, and removes them."""
    attempts = []

    @SubreactorFunc
    def halves(pipe: Any, number: int) -> Any:
        pipe.checkpoint("half", [number])
        yield
        try:
            return pipe.checkpoint("half")[0]
        except Exception:
            if not caught:
                raise
            return -1

    @ReactorFunc(name="r")
    def reactor(pipe: Any) -> Any:
        attempts.append(len(attempts))
        calls = [iter(halves(pipe, number)) for number in range(40)]
        for call in calls:
            next(call)
        if len(attempts) == 1:
            assert sweep_workspaces(str(tmp_path / "plant" / "staging"), older_than=-1.0)
        pipe.send("x", [ended(call) for call in calls])

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(reactor)
        assert plant.produce("x") == list(range(40))
        assert attempts == [0, 1]
        plant.produce("x")
        assert attempts == [0, 1]


def ended(call: Iterator[Any]) -> Any:
    """What a subreactor returns that has one more step to go."""
    try:
        next(call)
    except StopIteration as end:
        return end.value
    raise AssertionError("it goes on")

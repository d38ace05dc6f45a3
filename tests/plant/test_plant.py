"""Whole plants: what runs, what is up to date, what comes out."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyplantx import ConfigBase, Ingredient, Plant, ReactorFunc, SubreactorFunc, errors
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.session.world import Answers
from pyplantx.testing import forget_reactors
from pyplantx.warehouse.waiting import Commit


def make_chain() -> tuple[Any, Any]:
    @ReactorFunc
    def source(pipe: Any, config: Any) -> None:
        pipe.send("data", config.start)

    @ReactorFunc
    def double(pipe: Any) -> Any:
        data = yield pipe.receive("data")
        pipe.send("doubled", data * 2)

    return source, double


def test_a_second_session_runs_nothing(open_plant: Any) -> None:
    reactors = make_chain()
    with open_plant(*reactors, config=SimpleNamespace(start=3)) as plant:
        assert plant.produce("doubled") == 6
        assert plant.log.take() == ["double", "source"]
        assert plant.produce("doubled") == 6
        assert plant.log.take() == []
    with open_plant(*reactors, config=SimpleNamespace(start=3)) as plant:
        assert plant.produce("doubled") == 6
        assert plant.log.take() == []


def test_config_change_and_back(open_plant: Any) -> None:
    reactors = make_chain()
    for start, ran in [(3, ["double", "source"]), (4, ["source", "double"]), (3, []), (4, [])]:
        with open_plant(*reactors, config=SimpleNamespace(start=start)) as plant:
            assert plant.produce("doubled") == 2 * start
            assert plant.log.take() == ran


def test_early_cutoff(open_plant: Any) -> None:
    @ReactorFunc
    def parity(pipe: Any, config: Any) -> None:
        pipe.send("parity", config.n % 2)

    @ReactorFunc
    def use(pipe: Any) -> Any:
        pipe.send("used", (yield pipe.receive("parity")) + 10)

    with open_plant(parity, use, config=SimpleNamespace(n=3)) as plant:
        assert plant.produce("used") == 11
        plant.log.take()
        plant.set_config(SimpleNamespace(n=5))
        assert plant.produce("used") == 11
        assert plant.log.take() == ["parity"]


def test_run_reactor_always_runs_it(open_plant: Any) -> None:
    source, double = make_chain()
    seen = []

    @ReactorFunc
    def report(pipe: Any) -> Any:
        seen.append((yield pipe.receive("doubled")))

    with open_plant(source, double, report, config=SimpleNamespace(start=1)) as plant:
        plant.run_reactor(report)
        plant.run_reactor("report")
        assert seen == [2, 2]
        assert plant.log.take().count("double") == 1
        plant.run_reactor(report, force=False)
        assert seen == [2, 2]


def test_groups_coroutines_and_plain_functions(open_plant: Any) -> None:
    @ReactorFunc
    def plain(pipe: Any) -> None:
        pipe.send("a", 1)
        pipe.send("b", [1, 2])

    @ReactorFunc
    async def coroutine(pipe: Any) -> None:
        a, b = await pipe.receive("a", "b")
        pipe.send("c", (a, b))

    with open_plant(plain, coroutine) as plant:
        assert plant.produce("c", "a") == ((1, [1, 2]), 1)


def test_subreactors_count_as_their_callers(open_plant: Any) -> None:
    @SubreactorFunc
    def low(pipe: Any, x: int) -> Any:
        return (yield pipe.receive("data")) + x

    @SubreactorFunc
    def high(pipe: Any, x: int) -> Any:
        return (yield from low(pipe, x)) * 2

    @SubreactorFunc
    def plain(pipe: Any) -> int:
        return 13

    @ReactorFunc
    def source(pipe: Any) -> None:
        pipe.send("data", 10)

    @ReactorFunc
    def main(pipe: Any) -> Any:
        value = yield from high(pipe, 1)
        pipe.send("out", value + (yield from plain(pipe)))

    entered: list[str] = []
    with open_plant(source, main) as plant:
        plant.add_event_listener(Plant.EventType.subreactor_started, lambda kind, name, function: entered.append(name))
        assert plant.produce("out") == 35
        assert entered == ["high", "low", "plain"]
        assert plant.produce("out") == 35
        assert plant.log.take() == ["main", "source"]


def test_dialogue(open_plant: Any) -> None:
    @ReactorFunc
    def a(pipe: Any) -> Any:
        pipe.send("x", 2)
        y = yield pipe.receive("y")
        pipe.send("z", y + 1)

    @ReactorFunc
    def b(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        pipe.send("y", x * 10)

    for ran in (["a", "b"], []):
        with open_plant(a, b) as plant:
            assert plant.produce("z") == 21
            assert plant.log.take() == ran


def test_own_product(open_plant: Any) -> None:
    @ReactorFunc
    def alone(pipe: Any) -> Any:
        pipe.send("x", np.arange(5))
        x = yield pipe.receive("x")
        x += 1  # a private copy
        again = yield pipe.receive("x")
        pipe.send("sum", int(again.sum()))

    with open_plant(alone) as plant:
        assert plant.produce("sum") == 10


def test_a_failure_comes_out_itself_and_leaves_the_plant_usable(open_plant: Any) -> None:
    switch = SimpleNamespace(fail=True)

    @ReactorFunc
    def good(pipe: Any) -> None:
        pipe.send("good", 1)

    @ReactorFunc
    def bad(pipe: Any, config: Any) -> Any:
        good = yield pipe.receive("good")
        pipe.send("early", good)
        if config.fail:
            raise ZeroDivisionError("mine")
        pipe.send("out", 2)

    @ReactorFunc
    def last(pipe: Any) -> Any:
        pipe.send("end", (yield pipe.receive("out")))

    with open_plant(good, bad, last, config=switch) as plant:
        with pytest.raises(ZeroDivisionError, match="mine") as caught:
            plant.produce("end")
        assert "reactor bad" in caught.value.__notes__[0]
        assert "'out'" in caught.value.__notes__[0]
        frames = [entry.name for entry in caught.traceback]
        assert frames == ["test_a_failure_comes_out_itself_and_leaves_the_plant_usable", "bad"]
        with pytest.raises(ZeroDivisionError):
            plant.produce("early")
        plant.log.take()
        plant.set_config(SimpleNamespace(fail=False))
        assert plant.produce("end") == 2
        assert "good" not in plant.log.take()


def test_a_caught_failure_is_not_recorded(open_plant: Any) -> None:
    @ReactorFunc
    def bad(pipe: Any) -> None:
        pipe.send("never", 1 // 0)

    @ReactorFunc
    def careful(pipe: Any) -> Any:
        try:
            yield pipe.receive("never")
        except ZeroDivisionError:
            pipe.send("out", "caught")

    for _ in range(2):
        with open_plant(bad, careful) as plant:
            assert plant.produce("out") == "caught"
            assert plant.log.take() == ["careful", "bad"]


def test_errors_name_what_is_wrong(open_plant: Any) -> None:
    @ReactorFunc
    def waits(pipe: Any) -> Any:
        yield pipe.receive("loop-b")
        pipe.send("loop-a", 1)

    @ReactorFunc
    def waits_too(pipe: Any) -> Any:
        yield pipe.receive("loop-a")
        pipe.send("loop-b", 1)

    @ReactorFunc
    def first(pipe: Any) -> None:
        pipe.send("twice", 1)

    @ReactorFunc
    def second(pipe: Any) -> None:
        pipe.send("twice", 2)
        pipe.send("second", 2)

    @ReactorFunc
    def plain(pipe: Any) -> None:
        pipe.receive("twice")

    @ReactorFunc
    def garbage(pipe: Any) -> Any:
        yield 42

    @ReactorFunc
    def forgets(pipe: Any) -> Any:
        pipe.receive("twice")
        yield

    @ReactorFunc
    def unsent(pipe: Any) -> Any:
        pipe.allocate("scratch", Ingredient.Type.file)
        yield

    with open_plant(waits, waits_too, first, second, plain, garbage, forgets, unsent) as plant:
        with pytest.raises(errors.Deadlock, match="waits -> waits_too -> waits") as caught:
            plant.produce("loop-a")
        assert "test_plant.py" in str(caught.value)
        with pytest.raises(errors.TwoProducers, match="first and second"):
            plant.produce("twice", "second")
        with pytest.raises(errors.BadRequest, match="plain function"):
            plant.run_reactor(plain)
        with pytest.raises(errors.BadRequest, match="yielded int: 42"):
            plant.run_reactor(garbage)
        with pytest.raises(errors.BadRequest, match="never yielded"):
            plant.run_reactor(forgets)
        with pytest.raises(errors.NotSent, match="'scratch'"):
            plant.run_reactor(unsent)
        with pytest.raises(errors.UnknownReactor, match="unsent"):
            plant.run_reactor("unsnt")


def test_who_only_asks_what_would_run_keeps_what_it_found_out(open_plant: Any, monkeypatch: Any) -> None:
    """The normal forms of functions are made once, whatever the plant was opened for."""
    made: list[Any] = []
    normalise = Fingerprinter._normalise
    monkeypatch.setattr(Fingerprinter, "_normalise", lambda self, code: made.append(code) or normalise(self, code))

    def reactor(i: int) -> Any:
        space: dict[str, Any] = {"ReactorFunc": ReactorFunc}
        exec(f"@ReactorFunc(name='r{i}')\ndef r(pipe):\n    pipe.send('x{i}', {i})\n", space)
        return space["r"]

    for count in (20, 0):
        made.clear()
        with open_plant(*[reactor(i) for i in range(20)]) as plant:
            assert len(list(plant.status())) == 20
        assert len(made) == count


def test_a_misspelt_name_gets_a_near_miss(open_plant: Any) -> None:
    with open_plant(*make_chain(), config=SimpleNamespace(start=1)) as plant:
        with pytest.raises(errors.NoProducer, match="did you mean 'doubled'"):
            plant.produce("dubled")


def test_a_misspelt_name_starts_nobody_whose_code_shows_what_it_sends(open_plant: Any) -> None:
    def publish(pipe: Any, name: str) -> None:
        pipe.send(name, 1)

    @ReactorFunc
    def train(pipe: Any) -> Any:
        data = yield pipe.receive("data")
        pipe.send("model", data)

    @ReactorFunc
    def plot(pipe: Any) -> Any:
        yield pipe.receive("model")

    @ReactorFunc
    def data(pipe: Any) -> None:
        pipe.send("data", 1)

    @ReactorFunc
    def helped(pipe: Any) -> None:
        publish(pipe, "".join(["ta", "ble"]))

    with open_plant(train, plot, data) as plant:
        with pytest.raises(errors.NoProducer, match="did you mean 'model'"):
            plant.produce("modle")
        assert plant.log.take() == []
        plant.add_reactor(helped)
        assert plant.produce("table") == 1
        assert plant.log.take() == ["helped"]


def test_names_that_are_chosen_by_a_branch_are_found(open_plant: Any) -> None:
    def publish(send: Any, prefix: str) -> None:
        send(prefix + "b", 2)

    @ReactorFunc
    def chooses(pipe: Any, is_last: bool = True) -> None:
        pipe.send("x" + ("a" if is_last else "b"), 1)

    @ReactorFunc
    def hands_on(pipe: Any) -> None:
        publish(pipe.send, "y")

    with open_plant(chooses, hands_on) as plant:
        assert plant.produce("xa") == 1
        assert plant.produce("yb") == 2


def test_factories_need_names(open_plant: Any) -> None:
    def factory(n: int, **options: Any) -> Any:
        @ReactorFunc(**options)
        def made(pipe: Any) -> None:
            pipe.send(f"made-{n}", n)

        return made

    with open_plant() as plant, pytest.raises(errors.ReactorClash, match="name="):
        plant.add_reactors(factory(1), factory(2))
    with open_plant(*[factory(n, name=f"made {n}") for n in range(3)], directory="named") as plant:
        assert plant.produce("made-2") == 2
        assert plant.log.take() == ["made 2"]


def test_hints_find_the_right_reactor_on_a_cold_start(open_plant: Any) -> None:
    @ReactorFunc
    def stranger(pipe: Any) -> None:
        pipe.send("other", 1)

    @ReactorFunc
    def folds(pipe: Any) -> None:
        for i in range(3):
            pipe.send(f"fold-{i}", i)

    with open_plant(stranger, folds) as plant:
        assert plant.produce("fold-2") == 2
        assert plant.log.take() == ["folds"]


def test_on_a_cold_start_those_whose_code_mentions_the_name_come_before_strangers(open_plant: Any) -> None:
    def publish(pipe: Any, name: str) -> None:
        pipe.send(name, name)

    @ReactorFunc
    def stranger(pipe: Any) -> None:
        publish(pipe, "".join(["s", "tranger"]))

    @ReactorFunc
    def asks(pipe: Any) -> Any:
        value = yield pipe.receive("helped")
        publish(pipe, f"{value}.")

    @ReactorFunc
    def helped(pipe: Any) -> None:
        publish(pipe, "helped")

    @ReactorFunc
    def listed(pipe: Any) -> None:
        for name in ("one", "two"):
            pipe.send(name, name)

    with open_plant(stranger, asks, helped, listed) as plant:
        assert plant.produce("helped", "two") == ("helped", "two")
        assert plant.log.take() == ["helped", "listed"]


def test_automatic_registration_and_redefinition(open_plant: Any) -> None:
    def cell(source: str) -> None:
        exec(source, {"ReactorFunc": ReactorFunc, "__name__": "notebook"})

    cell("@ReactorFunc\ndef r(pipe):\n    pipe.send('x', 1)")
    with open_plant() as plant:
        assert plant.produce("x") == 1
        cell("@ReactorFunc\ndef r(pipe):\n    pipe.send('x', 2)")
        assert plant.produce("x") == 2
        cell("@ReactorFunc\ndef r(pipe):\n    # as in the beginning\n    pipe.send('x', 1)")
        plant.log.take()
        assert plant.produce("x") == 1
        assert plant.log.take() == []
        assert [r.name for r in plant.get_reactors()] == ["r"]


def test_a_redefinition_takes_effect_where_reactors_are_added_by_hand(open_plant: Any) -> None:
    def cell(number: int, name: str = "r") -> Any:
        space: dict[str, Any] = {"ReactorFunc": ReactorFunc, "__name__": "notebook"}
        exec(f"@ReactorFunc\ndef {name}(pipe):\n    pipe.send('x', {number})", space)
        return space[name]

    first = cell(1)
    with open_plant(first) as plant:
        assert plant.produce("x") == 1
        second = cell(2)
        cell(9, "other")
        assert [r.name for r in plant.get_reactors()] == ["r"]
        assert plant.produce("x") == 2
        plant.add_reactors(first)  # by hand: this one, though there is a newer one
        cell(10, "another")
        assert plant.produce("x") == 1
        plant.add_reactors(second)
        assert plant.produce("x") == 2
        cell(1)
        plant.log.take()
        assert (plant.produce("x"), plant.log.take()) == (1, [])
        forget_reactors()  # the guide's advice after one was renamed
        assert plant.produce("x") == 1
        cell(3)
        assert plant.produce("x") == 3


def test_a_redefinition_before_the_first_reactor_is_added_by_hand(open_plant: Any) -> None:
    def cell(number: int) -> None:
        exec(f"@ReactorFunc\ndef r(pipe):\n    pipe.send('x', {number})", {"ReactorFunc": ReactorFunc, "__name__": "n"})

    @ReactorFunc
    def other(pipe: Any) -> None:
        pipe.send("other", 1)

    cell(1)
    with open_plant() as plant:
        assert plant.produce("x") == 1
        cell(2)
        plant.add_reactors(other)
        assert plant.produce("x") == 2


def test_explain_why_and_status(open_plant: Any) -> None:
    reactors = make_chain()
    with open_plant(*reactors, config=SimpleNamespace(start=3)) as plant:
        assert [d.action for d in plant.status()] == ["would run", "would run"]
        plant.produce("doubled")
        assert plant.why("double").reason == "never run before"
        assert [d.action for d in plant.status()] == ["up to date", "up to date"]
        assert plant.log.take() == ["double", "source"]
        plant.set_config(SimpleNamespace(start=4))
        status = plant.status()
        assert "start: 3 → 4" in str(status)
        assert [d.action for d in status] == ["would run", "may run"]
        plant.produce("doubled")
        assert "start: 3 → 4" in plant.explain("data").reason
        assert plant.explain("doubled").reason == "ingredient data has new content"
        assert [entry["reactor"] for entry in plant.get_execution_history()] == ["source", "double", "source", "double"]
    with open_plant(*reactors, config=SimpleNamespace(start=4)) as plant:
        assert plant.explain("doubled").reason == "ingredient data has new content"
        assert plant.fetch_ingredient("doubled") == 8
        plant.set_config(SimpleNamespace(start=3))
        assert plant.fetch_ingredient("doubled") == 6
        plant.set_config(SimpleNamespace(start=99))
        assert plant.fetch_ingredient("doubled") == 8  # the last one
        assert plant.log.take() == []
        with pytest.raises(errors.NoProducer, match="did you mean 'doubled'"):
            plant.fetch_ingredient("dubled")


def test_a_value_that_is_not_of_today_comes_with_a_warning(open_plant: Any, caplog: pytest.LogCaptureFixture) -> None:
    @ReactorFunc
    def source(pipe: Any) -> None:
        pipe.send("x", pipe.read_config("start"))

    with open_plant(source, config={"start": 1}) as plant:
        plant.produce("x")
        plant.fetch_ingredient("x")
        assert not caplog.records
        plant.set_config({"start": 2})
        assert plant.fetch_ingredient("x") == 1
    assert [(record.levelname, "'x' is not up to date" in record.message) for record in caplog.records] == [
        ("WARNING", True)
    ]


class TestTwoDeclarations:
    """``sends=`` of two reactors for one ingredient is an error whoever has run before, and before anything runs."""

    @staticmethod
    def declared(name: str, *sends: str) -> Any:
        code = "lambda pipe: [pipe.send(ingredient, name) for ingredient in sends]"
        return ReactorFunc(name=name, sends=sends)(eval(code, {"name": name, "sends": sends}))  # new code each time

    def test_where_reactors_are_registered(self, open_plant: Any) -> None:
        one, two = self.declared("one", "a", "q"), self.declared("two", "q")
        with open_plant(one) as plant:
            assert plant.produce("q") == "one"
            with pytest.raises(errors.TwoProducers, match="'q': one and two"):
                plant.add_reactor(two)
            assert plant.get_reactors() == [one] and plant.produce("q") == "one"

    def test_where_they_register_themselves(self, open_plant: Any) -> None:
        self.declared("one", "q")
        with open_plant() as plant:
            assert plant.produce("q") == "one"
            self.declared("two", "b", "q")
            for ask in (lambda: plant.produce("q"), lambda: plant.produce("b"), plant.status):
                with pytest.raises(errors.TwoProducers, match="'q': one and two"):
                    ask()
            self.declared("two", "b")
            assert plant.produce("q", "b") == ("one", "two")

    def test_of_one_reactor_the_last_definition_counts(self, open_plant: Any) -> None:
        with open_plant(self.declared("one", "q", "q")) as plant:
            plant.add_reactors(self.declared("one", "r"), self.declared("two", "q"))
            assert plant.produce("q", "r") == ("two", "one")


def test_listeners_and_durability_events(open_plant: Any) -> None:
    events: list[tuple[str, str]] = []
    with open_plant(*make_chain(), config=SimpleNamespace(start=3)) as plant:
        for kind in Plant.EventType:
            plant.add_event_listener(kind, lambda kind, name, function=None: events.append((kind.name, name)))
        plant.produce("doubled")
    assert events[0] == ("reactor_started", "double")
    assert ("reactor_step", "double") in events
    assert {name for kind, name in events if kind == "reactor_finished"} == {"source", "double"}


def test_a_folder_that_many_track_is_looked_at_once(
    open_plant: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their replays; where a reactor has run since, it is looked at again."""
    looked: list[str] = []
    folder_digest = Answers._folder_digest
    monkeypatch.setattr(
        Answers, "_folder_digest", lambda self, path, *rest: looked.append(path) or folder_digest(self, path, *rest)
    )
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("1")

    def counting(name: str, first: str) -> Any:
        @ReactorFunc(name=name, sends=[name])
        def count(pipe: Any) -> Any:
            if first:
                yield pipe.receive(first)
            pipe.send(name, len(os.listdir(pipe.track_file(folder))))

        return count

    @ReactorFunc
    def write(pipe: Any) -> Any:
        pipe.send("written", pipe.read_config("new"))
        if pipe.read_config("new"):
            (folder / "b.txt").write_text("2")

    names = [f"n{number}" for number in range(5)]
    reactors = [*[counting(name, "") for name in names], counting("last", "written"), write]
    with open_plant(*reactors, config={"new": ""}) as plant:
        assert plant.produce(*names, "last") == (1,) * 6
        looked.clear()
        assert plant.produce(*names, "last") == (1,) * 6
        assert len(looked) == 1
        looked.clear()
        plant.set_config({"new": "b"})
        assert plant.produce(*names, "last") == (1, 1, 1, 1, 1, 2)


def test_track_file_and_env(open_plant: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input.txt"
    path.write_text("one")
    monkeypatch.setenv("PYPLANTX_TEST", "1")

    @ReactorFunc
    def read(pipe: Any, config: Any) -> None:
        with open(pipe.track_file(config.path)) as file:
            pipe.send("text", file.read() + str(pipe.env("PYPLANTX_TEST")))

    with open_plant(read, config=SimpleNamespace(path=str(path))) as plant:
        assert plant.produce("text") == "one1"
        path.write_text("one")  # touched, same content
        assert plant.produce("text") == "one1"
        assert plant.log.take() == ["read"]
        path.write_text("two")
        assert plant.produce("text") == "two1"
        assert plant.why(read).reason.startswith("file ")
        monkeypatch.setenv("PYPLANTX_TEST", "2")
        assert plant.produce("text") == "two2"
        monkeypatch.setenv("PYPLANTX_TEST", "1")
        plant.log.take()
        assert plant.produce("text") == "two1"
        assert plant.log.take() == []


def test_a_parameter_that_is_no_longer_auxiliary_counts(open_plant: Any) -> None:
    @ReactorFunc
    def reads(pipe: Any, config: Any) -> None:
        pipe.send("level", config["level"])

    with open_plant(reads, config={"level": 1}) as plant:
        plant.mark_params_as_auxiliary("level")
        assert plant.produce("level") == 1
        plant.set_config({"level": 2})
        assert plant.produce("level") == 1
    with open_plant(reads, config={"level": 2}) as plant:
        assert plant.produce("level") == 2
        assert plant.why(reads).reason == "config level: auxiliary → not auxiliary"
        plant.mark_params_as_auxiliary("level")
        assert plant.produce("level") == 2


def test_auxiliary_parameters_and_config_base(open_plant: Any) -> None:
    class Config(ConfigBase):
        def __init__(self) -> None:
            super().__init__()
            self.color = "red"
            self.tmp = "/a"
            self.mark_auxiliary(["tmp"])

    @ReactorFunc
    def paint(pipe: Any, config: Any) -> None:
        pipe.send("painted", config.color + config.tmp)

    config = Config()
    with open_plant(paint, config=config) as plant:
        assert plant.produce("painted") == "red/a"
        config.tmp = "/b"
        assert plant.produce("painted") == "red/a"
        config.color = "blue"
        assert plant.produce("painted") == "blue/b"
        assert plant.log.take() == ["paint", "paint"]


def test_dict_config(open_plant: Any) -> None:
    @ReactorFunc
    def paint(pipe: Any) -> None:
        pipe.send("painted", pipe.read_config("color"))

    with open_plant(paint, config={"color": "red", "level": 1}) as plant:
        assert plant.produce("painted") == "red"
        plant.set_config({"color": "red", "level": 2})
        assert plant.produce("painted") == "red"
        plant.set_config({"color": "blue", "level": 2})
        assert plant.produce("painted") == "blue"
        assert plant.log.take() == ["paint", "paint"]
        plant.set_config({"colour": "blue"})
        with pytest.raises(errors.UnknownParameter, match="colour"):
            plant.produce("painted")


def test_a_reactor_cant_use_its_plant(open_plant: Any) -> None:
    @ReactorFunc
    def nested(pipe: Any) -> None:
        plant.produce("x")

    @ReactorFunc
    def configures(pipe: Any) -> None:
        plant.set_config({"lr": 2})

    @ReactorFunc
    def hides(pipe: Any) -> None:
        plant.mark_params_as_auxiliary("lr")

    with open_plant(nested, configures, hides, config={"lr": 1}) as plant:
        for reactor in (nested, configures, hides):
            with pytest.raises(errors.BadRequest, match="while it runs"):
                plant.run_reactor(reactor)


def test_accepted_edits_do_not_matter(open_plant: Any) -> None:
    def define(source: str) -> Any:
        namespace = {"ReactorFunc": ReactorFunc, "__name__": "project"}
        exec(source, namespace)
        return namespace["r"]

    old = define("@ReactorFunc\ndef r(pipe, config):\n    pipe.send('x', config.n)")
    new = define("@ReactorFunc\ndef r(pipe, config):\n    pipe.send('x', config.n + 0)")
    with open_plant(old, config=SimpleNamespace(n=1)) as plant:
        assert plant.accept(old) == []
        plant.produce("x")
    with open_plant(new, config=SimpleNamespace(n=1)) as plant:
        assert "function project.r changed" in str(plant.status())
        assert plant.accept("r") == ["r"]
        assert plant.produce("x") == 1
        assert plant.log.take() == []
        plant.set_config(SimpleNamespace(n=2))
        assert plant.produce("x") == 2
        assert plant.log.take() == ["r"]


ACCEPTED = """
from pyplantx import ReactorFunc, SubreactorFunc
class Box:
    def value(self): return (5){box}
@SubreactorFunc
def inner(pipe):
    return (1){inner}
@SubreactorFunc
def outer(pipe, config):
    value = yield pipe.receive("y")
    yield from inner(pipe)
    return value.value() + config.n * (yield from last(pipe))
@SubreactorFunc
def last(pipe):
    return (10){last}
@ReactorFunc
def makes(pipe):
    pipe.send("y", Box())
@ReactorFunc
def r(pipe, config):
    pipe.send("x", (yield from outer(pipe, config)){r})
"""


@pytest.mark.parametrize("edited", [("inner",), ("last",), ("box",), ("inner", "last", "r"), ("box", "last"), ("r",)])
def test_accepted_edits_of_what_is_called_and_received_do_not_matter(open_plant: Any, edited: Any) -> None:
    def define(*edited: str) -> Any:
        name = "accepted_project"
        sys.modules[name] = module = ModuleType(name)  # where pickle looks for `Box`
        edits = {place: ".__add__(0)" if place in edited else "" for place in ("box", "inner", "last", "r")}
        exec(ACCEPTED.format_map(edits), vars(module))
        return module.makes, module.r

    with open_plant(*define(), config=SimpleNamespace(n=1)) as plant:
        assert plant.produce("x") == 15
        plant.set_config(SimpleNamespace(n=2))
        assert plant.produce("x") == 25
    with open_plant(*define(*edited), config=SimpleNamespace(n=2)) as plant:
        plant.accept("makes")
        assert plant.accept("r") == ["r"] and plant.accept("r") == []
        assert {decision.action for decision in plant.status()} == {"up to date"}
        assert (plant.produce("x"), plant.log.take()) == (25, [])
        plant.set_config(SimpleNamespace(n=3))
        assert (plant.produce("x"), plant.log.take()) == (35, ["r"])
    with open_plant(*define("inner", "last", "box"), config=SimpleNamespace(n=7)) as plant:
        plant.accept("r")
        assert (plant.produce("x"), plant.log.take()[-1]) == (75, "r")  # the config is another one, too


def version(body: str) -> Any:
    """A reactor "r" with this body, and two helpers."""
    source = f"def one(): return 1\ndef two(): return 2\n@ReactorFunc\ndef r(pipe):\n    {body}\n"
    namespace = {"ReactorFunc": ReactorFunc, "__name__": "project"}
    exec(source, namespace)
    return namespace["r"]


def test_the_last_version_is_the_one_that_was_in_use_last(open_plant: Any) -> None:
    """An experiment that was taken back is no longer what edits are compared with, or what they are accepted for."""
    first, second = "pipe.send('x', one())", "pipe.send('x', two())"
    for body, value in [(first, 1), (second, 2), (first, 1)]:
        with open_plant(version(body)) as plant:
            assert plant.produce("x") == value
    with open_plant(version("pipe.send('x', 0 + one())")) as plant:
        assert "two" not in str(plant.status())
        assert plant.accept("r") == ["r"]
        assert plant.produce("x") == 1


def test_a_forced_run_makes_a_version_the_last_one_again(open_plant: Any) -> None:
    for body in ("pipe.send('x', 1)", "pipe.send('x', 2)", "pipe.send('x', 1)"):
        with open_plant(version(body)) as plant:
            plant.run_reactor("r")
    with open_plant(version("pipe.send('x', 1 + 0 * one())")) as plant:
        assert plant.accept("r") == ["r"]
        assert plant.produce("x") == 1


def test_versions_that_were_accepted_for_one_another_hold_nothing(open_plant: Any) -> None:
    """After damage the second may be accepted for the first, which was accepted for it."""
    old, new = version("pipe.send('x', 1)"), version("pipe.send('x', 2)")
    with open_plant(old) as plant:
        assert plant.produce("x") == 1
        root = plant._roster.root(plant._roster.find("r"))
    with open_plant(new) as plant:
        assert plant.accept("r") == ["r"]
        accepted = plant._roster.root(plant._roster.find("r"))
        plant.warehouse.commit(Commit("r", "0" * 32, [(root, "no trace")]))
    with open_plant(old) as plant:
        assert plant.accept("r") == []  # a record that is no trace stands in its way
        plant.warehouse.commit(Commit("r", "0" * 32, [(root, f"accepted {accepted}")]))
        assert plant.produce("x") == 1
        assert plant.log.take() == ["r"]
        assert plant.produce("x") == 1
        assert plant.log.take() == []


def test_the_second_parameter_is_the_config_unless_it_has_a_default(open_plant: Any) -> None:
    reactors = []
    for i in range(3):

        @ReactorFunc(name=f"part-{i}")
        def part(pipe: Any, i: int = i) -> None:
            pipe.send(f"part-{i}", i * i)

        reactors.append(part)

    @ReactorFunc
    def reads(pipe: Any, config: Any = None) -> None:
        pipe.send("read", config.n)

    with open_plant(*reactors, reads, config=SimpleNamespace(n=5)) as plant:
        assert plant.produce("part-2", "read") == (4, 5)


def test_what_a_reactor_peeks_at_is_its_own(open_plant: Any) -> None:
    @ReactorFunc
    def first(pipe: Any) -> None:
        pipe.peek("options").append(99)
        pipe.read_config_unregistered("table")["new"] = 1
        pipe.send("a", 1)

    @ReactorFunc
    def second(pipe: Any) -> Any:
        with suppress(errors.ReadOnlyConfig):
            yield pipe.receive("a")
        pipe.send("b", [pipe.peek("options"), pipe.read_config_unregistered("table")])

    with open_plant(first, second, config={"options": [1], "table": {}}) as plant:
        assert plant.produce("b") == [[1], {}]
        with pytest.raises(errors.ReadOnlyConfig, match="options|table"):
            plant.produce("a")

"""Every failure that the scheduler can tell has an error with a message and a hint."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, errors
from pyplantx.core.messages import Failure
from pyplantx.runs.failures import error_of
from pyplantx.warehouse import claims

KINDS = {
    "no producer": errors.NoProducer,
    "two producers": errors.TwoProducers,
    "not deterministic": errors.NotDeterministic,
    "payload": errors.PayloadMissing,
    "deadlock": errors.Deadlock,
    "lost": errors.ReactorError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_has_words(kind: str) -> None:
    error = error_of(Failure(kind, "x", ("one", "two"), ("a", "b")), str.upper)
    assert type(error) is KINDS[kind]
    assert isinstance(error, errors.PyplantxError) and error.hint
    assert "ONE" in str(error)


def test_what_a_reactor_raised_comes_out_itself() -> None:
    mine = KeyError("mine")
    assert error_of(Failure("raised", reactors=("one",), error=mine), str) is mine


@pytest.mark.parametrize("options", [{"library_versions": "x"}, {"track": "no such module"}])
def test_a_plant_that_is_refused_leaves_no_store(options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError):
        Plant(tmp_path / "plant", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def add_chain(plant: Plant, first: Any, length: int) -> None:
    """`first`, and reactors of which each waits for the one before: the last one sends "x<length>"."""

    def reactor(i: int) -> Any:
        def waits(pipe: Any) -> Any:
            value = yield pipe.receive(f"x{i - 1}")
            pipe.send(f"x{i}", value)

        return ReactorFunc(waits, name=f"r{i}", sends=[f"x{i}"])

    plant.add_reactors(first, *[reactor(i) for i in range(1, length + 1)])


def test_a_failure_below_a_long_chain_is_told_in_a_few_lines(tmp_path: Path) -> None:
    """Those who only waited for it have nothing to say about it; of who asked for what, both ends count."""

    @ReactorFunc
    def fails(pipe: Any) -> None:
        pipe.send("x0", 1 // 0)

    with Plant(tmp_path / "plant") as plant:
        add_chain(plant, fails, 50)
        with pytest.raises(ZeroDivisionError) as caught:
            plant.produce("x50")
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_a_failure_below_a_long_chain_is_told_in_a_few_lines", "fails"]
    assert caught.value.__notes__ == [
        "pyplantx: in reactor fails ('x50' was demanded, r50 asked for 'x49', ... 45 more ..., r4 asked for 'x3', "
        "r3 asked for 'x2', r2 asked for 'x1', r1 asked for 'x0')"
    ]


def test_an_unknown_name_leads_to_the_line_that_asked_for_it(tmp_path: Path) -> None:
    @ReactorFunc
    def asks(pipe: Any) -> Any:
        value = yield pipe.receive("nothing")
        pipe.send("x0", value)

    with Plant(tmp_path / "plant") as plant:
        add_chain(plant, asks, 20)
        with pytest.raises(errors.NoProducer) as caught:
            plant.produce("x20")
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_an_unknown_name_leads_to_the_line_that_asked_for_it", "asks"]
    assert len(str(caught.value)) < 500


def test_claims_are_given_back_whatever_ends_a_demand(open_plant, monkeypatch):
    """Nobody waits for a run that is not done any more, though the process that had begun it lives on."""

    interrupts = [KeyboardInterrupt]

    @ReactorFunc
    def make(pipe):
        if interrupts:
            raise interrupts.pop()
        pipe.send("a", 1)

    def interrupted_again(_):
        raise KeyboardInterrupt

    plant = open_plant(make)
    with monkeypatch.context() as patch:
        patch.setattr(type(plant.warehouse), "sync", interrupted_again)
        with pytest.raises(KeyboardInterrupt):
            plant.produce("a")
    monkeypatch.setattr(claims.Claims, "wait", lambda *_: pytest.fail("somebody holds the claim"))
    with open_plant(make) as other:
        assert other.produce("a") == 1
    plant.close()


def waiting_in_a_ring() -> tuple[Any, Any]:
    @ReactorFunc
    def one(pipe: Any) -> Any:
        yield pipe.receive("two")
        pipe.send("one", 1)

    @ReactorFunc
    def two(pipe: Any) -> Any:
        yield pipe.receive("one")
        pipe.send("two", 2)

    return one, two


def test_errors_of_reactors_that_are_ended_hide_nothing(open_plant: Any, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    @ReactorFunc
    def done(pipe: Any) -> None:
        pipe.send("done", 1)

    def waits(name: str) -> Any:
        def reactor(pipe: Any) -> Any:
            yield pipe.receive("done")
            try:
                yield pipe.receive("one")
            finally:
                closed.append(name)
                raise OSError(f"of {name}")

        return ReactorFunc(reactor, name=name)

    finished: list[str] = []
    with open_plant(done, *waiting_in_a_ring(), waits("a"), waits("b")) as plant:
        plant.add_event_listener(Plant.EventType.reactor_finished, lambda kind, name, function: finished.append(name))
        with pytest.raises(errors.Deadlock) as caught:
            plant.run_reactor("a", "b")
        assert caught.value.__context__ is None
        assert sorted(closed) == ["a", "b"]
        assert finished == ["done"]
        told = [(entry["reactor"], entry["action"]) for entry in plant.get_execution_history()]
        assert told[0] == ("done", "ran")
        assert sorted(told[1:]) == [(name, "interrupted") for name in ("a", "b", "one", "two")]
    for name in "ab":
        assert f"reactor {name} did not end well: of {name}" in caplog.text


def test_ctrl_c_while_one_is_ended_ends_the_others(open_plant: Any) -> None:
    closed: list[str] = []

    def waits(name: str, error: BaseException) -> Any:
        def reactor(pipe: Any) -> Any:
            try:
                yield pipe.receive("one")
            finally:
                closed.append(name)
                raise error

        return ReactorFunc(reactor, name=name)

    with open_plant(*waiting_in_a_ring(), *[waits(name, KeyboardInterrupt(name)) for name in "abc"]) as plant:
        with pytest.raises(KeyboardInterrupt):
            plant.run_reactor("a", "b", "c")
        assert sorted(closed) == ["a", "b", "c"]


def test_a_listener_that_raises_keeps_nothing_from_the_others(open_plant: Any) -> None:
    told: list[tuple[str, str]] = []

    @ReactorFunc
    def a(pipe: Any) -> None:
        pipe.send("a", 1)

    @ReactorFunc
    def b(pipe: Any) -> Any:
        pipe.send("b", (yield pipe.receive("a")) + 1)

    def raises(kind: Any, name: str, function: Any) -> None:
        told.append(("raises", name))
        raise ValueError(name)

    with open_plant(a, b) as plant:
        plant.add_event_listener(Plant.EventType.reactor_finished, raises)
        plant.add_event_listener(Plant.EventType.reactor_finished, lambda kind, name, _: told.append(("other", name)))
        with pytest.raises(ValueError, match="a"):
            plant.produce("b")
        ran = len(plant.get_execution_history())
        with pytest.raises(ValueError, match="b") if ran == 1 else contextlib.nullcontext():
            assert plant.produce("b") == 2
    assert told == [("raises", "a"), ("other", "a"), ("raises", "b"), ("other", "b")]


def test_a_run_that_caught_what_no_trace_tells_of_is_not_reused(open_plant: Any, monkeypatch: Any) -> None:
    with contextlib.suppress(ImportError):
        import dask.array  # noqa: F401 - else it would be half there afterwards: its parts, and not itself

    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("thing", {"x": Path("x")})
        pipe.send("array", np.ones(10))

    @ReactorFunc
    def use(pipe: Any) -> Any:
        try:
            value = (yield pipe.receive("thing"))["x"].name
        except errors.UntrustedStore:
            value = "nothing"
        pipe.send("used", value)

    @ReactorFunc
    def view(pipe: Any) -> Any:
        try:
            value = float((yield pipe.receive("array", as_="dask")).sum().compute())
        except errors.MissingLibrary:
            value = -1.0
        pipe.send("viewed", value)

    @ReactorFunc
    def store(pipe: Any) -> None:
        try:
            pipe.send("large", 1)
        except errors.WarehouseFull:
            pipe.send("small", 0)
        else:
            pipe.send("small", 1)

    with open_plant(make, use, view, store, trust="data") as plant, monkeypatch.context() as patch:
        for library in ("dask", "dask.array"):
            patch.setitem(sys.modules, library, None)
        patch.setattr(plant.warehouse, "store", partial(refuse_large, plant.warehouse.store))
        assert plant.produce("used", "viewed", "small") == ("nothing", -1.0, 0)
    with open_plant(make, use, store) as plant:
        assert plant.produce("used", "small") == ("x", 1)
        assert sorted(plant.log.take()) == ["store", "use"]
    pytest.importorskip("dask.array")
    with open_plant(make, view) as plant:
        assert plant.produce("viewed") == 10.0
        assert plant.log.take() == ["view"]


def refuse_large(store: Any, name: str, *given: Any) -> Any:
    if name == "large":
        raise errors.WarehouseFull("there is no space left")
    return store(name, *given)


def test_ctrl_c_in_a_send_is_not_its_own_cause(open_plant):
    class Slow:
        def __reduce_ex__(self, _):
            signal.raise_signal(signal.SIGINT)

    @ReactorFunc
    def make(pipe):
        pipe.send("a", Slow())

    with open_plant(make) as plant, pytest.raises(KeyboardInterrupt) as caught:
        plant.produce("a")
    assert caught.value.__cause__ is None and not caught.value.__suppress_context__


def test_an_error_whose_class_refuses_attributes_comes_out_itself(tmp_path: Path) -> None:
    """A frozen dataclass takes neither a note nor a traceback in the ordinary way."""

    @dataclass(frozen=True)
    class Refused(Exception):
        code: int

    @ReactorFunc
    def fails(pipe: Any) -> None:
        pipe.send("x0", 1)
        raise Refused(3)

    with Plant(tmp_path / "plant") as plant:
        add_chain(plant, fails, 3)
        with pytest.raises(Refused) as caught:
            plant.produce("x3")
    assert [note.partition(" (")[0] for note in caught.value.__notes__] == ["pyplantx: in reactor fails"]
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_an_error_whose_class_refuses_attributes_comes_out_itself", "fails"]

"""Reactors that break every rule of a conversation: a clear error or a right value, and a plant that works on."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pyplantx import Ingredient, ReactorFunc
from pyplantx.errors import BadRequest, PyplantxError
from pyplantx.pipework import Request
from pyplantx.runs.run import Run
from pyplantx.session.gate import Gate


class Weird:
    """Not a request, and unpleasant to look at."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = object.__hash__


class Iterates:
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no iteration")


GARBAGE = [
    *(0, 1.5, "x", b"x", [], (), {}, set(), object(), Weird(), Iterates(), int, len, NotImplemented, Ellipsis),
    *([None], ("x",), {"x": 1}, (i for i in ()), lambda: None, Exception("x"), BaseException, threading.Lock()),
]


def still_works(plant: Any) -> None:
    """After whatever happened: another reactor of the same plant runs and is remembered."""

    @ReactorFunc
    def sound(pipe: Any) -> None:
        pipe.send("sound", 42)

    plant.add_reactors(sound)
    assert plant.produce("sound") == 42


@pytest.mark.parametrize("index", range(len(GARBAGE)))
def test_what_is_yielded_and_is_no_request_is_an_error_that_names_the_reactor(open_plant: Any, index: int) -> None:
    @ReactorFunc
    def mumbles(pipe: Any) -> Any:
        got = yield GARBAGE[index]
        pipe.send("never", got)

    with open_plant(mumbles) as plant:
        with pytest.raises(BadRequest, match=f"reactor mumbles yielded {type(GARBAGE[index]).__name__}: "):
            plant.run_reactor(mumbles)
        assert not plant.is_ingredient_known("never")
        still_works(plant)


def test_a_plant_that_ignores_what_it_is_asked_is_found(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: what is no request counts as a bare ``yield``."""
    real = Run._asked
    monkeypatch.setattr(Run, "_asked", lambda run, yielded: real(run, yielded if type(yielded) is Request else None))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_what_is_yielded_and_is_no_request_is_an_error_that_names_the_reactor(open_plant, 0)


def test_a_plant_that_stays_busy_after_an_error_is_found(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: the gate is left only where nothing goes wrong."""
    real = Gate._close
    monkeypatch.setattr(Gate, "_close", lambda gate: real(gate) if sys.exc_info()[0] is None else None)
    monkeypatch.setattr(Gate, "_is_at_work_here", Gate._is_held)
    with pytest.raises(BadRequest, match="while it runs"):
        test_a_yield_in_finally(open_plant)


def test_an_error_that_counts_as_an_end_is_found(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: what a reactor has sent before it failed is published."""
    with monkeypatch.context() as patch, pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        patch.setattr(Run, "_raised", lambda run, error: run._ended())
        test_whatever_is_raised_arrives_or_is_told(open_plant, StopAsyncIteration)


def test_an_error_in_close_does_not_replace_the_one_that_matters(open_plant: Any) -> None:
    @ReactorFunc
    def waits(pipe: Any) -> Any:
        try:
            yield pipe.receive("made")
        finally:
            raise OSError("while it was closed")

    @ReactorFunc
    def fails(pipe: Any) -> Any:
        yield pipe.receive("absent")
        pipe.send("made", 1)

    with open_plant(waits, fails) as plant:
        with pytest.raises((PyplantxError, OSError)):
            plant.run_reactor(waits)
        still_works(plant)


def test_a_generator_that_will_not_end(open_plant: Any) -> None:
    @ReactorFunc
    def stays(pipe: Any) -> Any:
        for _ in range(5):
            try:
                yield pipe.receive("absent")
            except GeneratorExit:
                continue

    with open_plant(stays) as plant:
        with pytest.raises(PyplantxError):
            plant.run_reactor(stays)
        gc.collect()
        still_works(plant)


def test_what_swallows_its_errors_ends_as_it_wants_and_is_not_believed(open_plant: Any) -> None:
    @ReactorFunc
    def swallows(pipe: Any) -> Any:
        for _ in range(3):
            try:
                yield pipe.receive("absent")
            except BaseException:
                continue
        pipe.send("made without", 1)

    with open_plant(swallows) as plant:
        for _ in range(2):
            assert plant.produce("made without") == 1
            plant.why(swallows)
        assert len(plant.get_execution_history()) == 2  # never reused: somebody may send it next time
        still_works(plant)


def test_a_yield_in_finally(open_plant: Any) -> None:
    @ReactorFunc
    def lingers(pipe: Any) -> Any:
        try:
            yield pipe.receive("absent")
        finally:
            yield pipe.receive("sound")

    with open_plant(lingers) as plant:
        with pytest.raises(PyplantxError):
            plant.run_reactor(lingers)
        still_works(plant)


def test_a_reactor_that_iterates_over_itself(open_plant: Any) -> None:
    own: list[Any] = []

    def turns(pipe: Any) -> Any:
        next(own[0])
        yield pipe.receive("absent")

    def makes(pipe: Any) -> Any:
        own.append(turns(pipe))
        return own[0]

    with open_plant(ReactorFunc(name="turns")(makes)) as plant:
        with pytest.raises((ValueError, PyplantxError)):
            plant.run_reactor("turns")
        still_works(plant)


@pytest.mark.parametrize(
    "call",
    [
        lambda plant: plant.produce("x"),
        lambda plant: plant.run_reactor("reenters"),
        lambda plant: plant.fetch_ingredient("x"),
        lambda plant: plant.status(),
        lambda plant: plant.gc(),
        lambda plant: plant.du(),
        lambda plant: plant.close(),
        lambda plant: plant.pin("x"),
    ],
)
def test_a_reactor_cant_use_its_plant(open_plant: Any, call: Any) -> None:
    @ReactorFunc
    def reenters(pipe: Any) -> None:
        pipe.send("x", 1)
        call(plant)

    with open_plant(reenters) as plant:
        with pytest.raises(BadRequest, match="while it runs"):
            plant.run_reactor(reenters)
        still_works(plant)


def test_another_thread_can_send_while_its_run_lasts_and_not_afterwards(open_plant: Any) -> None:
    """Whatever the thread does is either part of the run or refused."""
    kept: list[Any] = []
    errors: list[BaseException] = []

    def late(name: str) -> None:
        try:
            kept[0].send(name, 7)
        except BaseException as error:
            errors.append(error)

    def in_thread(name: str) -> None:
        thread = threading.Thread(target=late, args=(name,))
        thread.start()
        thread.join()

    @ReactorFunc
    def shares(pipe: Any) -> None:
        kept.append(pipe)
        in_thread("during")

    with open_plant(shares) as plant:
        plant.run_reactor(shares)
        in_thread("after")
        assert plant.fetch_ingredient("during") == 7
        assert [type(error) for error in errors] == [BadRequest]
        assert not plant.is_ingredient_known("after")
        still_works(plant)


def test_a_pipe_that_is_used_for_another_run(open_plant: Any) -> None:
    kept: list[Any] = []

    @ReactorFunc
    def first(pipe: Any) -> Any:
        kept.append(pipe)
        pipe.send("first", (yield pipe.receive("second")))

    @ReactorFunc
    def second(pipe: Any) -> None:
        kept[0].send("second", 1)

    with open_plant(first, second) as plant:
        with pytest.raises(PyplantxError):
            plant.run_reactor(first)
        still_works(plant)


@pytest.mark.parametrize("name", [None, 1, b"x", ("x",), float("nan")])
def test_names_that_are_no_text(open_plant: Any, name: Any) -> None:
    @ReactorFunc
    def sends(pipe: Any) -> None:
        pipe.send(name, 1)

    @ReactorFunc
    def receives(pipe: Any) -> Any:
        yield pipe.receive(name)

    @ReactorFunc
    def allocates(pipe: Any) -> None:
        pipe.allocate(name, Ingredient.Type.file)

    with open_plant(sends, receives, allocates) as plant:
        for reactor in (sends, receives, allocates):
            with pytest.raises(BadRequest):
                plant.run_reactor(reactor)
        still_works(plant)


class Quits(BaseException):
    """Not an Exception: as KeyboardInterrupt and SystemExit."""


@pytest.mark.parametrize(
    "kind", [Quits, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration]
)
def test_whatever_is_raised_arrives_or_is_told(open_plant: Any, kind: type[BaseException]) -> None:
    @ReactorFunc
    def raises(pipe: Any) -> Any:
        pipe.send("half", 1)
        yield
        raise kind("x")

    with open_plant(raises) as plant:
        with pytest.raises((kind, RuntimeError, PyplantxError)):
            plant.run_reactor(raises)
        still_works(plant)
    with open_plant(raises) as plant:
        assert not plant.is_ingredient_known("half")


def test_an_async_generator_is_no_reactor() -> None:
    async def streams(pipe: Any) -> Any:
        yield pipe.receive("absent")

    with pytest.raises(BadRequest, match="streams"):
        ReactorFunc(streams)


def test_requests_of_one_run_yielded_by_another(open_plant: Any) -> None:
    stolen: list[Any] = []

    @ReactorFunc
    def asks(pipe: Any) -> Any:
        stolen.append(pipe.receive("absent"))
        pipe.send("asked", 1)
        yield

    @ReactorFunc
    def steals(pipe: Any) -> Any:
        yield pipe.receive("asked")
        yield stolen[0]

    with open_plant(asks, steals) as plant:
        with pytest.raises(PyplantxError):
            plant.run_reactor(steals)
        still_works(plant)

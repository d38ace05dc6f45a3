"""Every failure that the scheduler can tell has an error with a message and a hint."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from pyplantx import Plant, ReactorFunc, errors
from pyplantx.core.messages import Failure
from pyplantx.failures import error_of
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

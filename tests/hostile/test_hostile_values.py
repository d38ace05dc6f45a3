"""Any value comes back with its type and its bits, or is refused when it is sent, with the place inside it."""

from __future__ import annotations

import functools
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pyplantx import Plant, ReactorFunc, SubreactorFunc
from pyplantx.errors import CannotFingerprint, CannotStore, PyplantxError
from pyplantx.specs import builtin, plain
from pyplantx.warehouse.warehouse import Warehouse
from tests.hostile import unwilling
from tests.hostile.strangers import same, values


def check_values(folder: Path, examples: int) -> None:
    with Warehouse(folder, durability="process") as warehouse:

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(values)
        def run(value: Any) -> None:
            try:
                ref = warehouse.store("x", value)
            except CannotStore as error:
                assert "value" in str(error)
                return
            found = warehouse.open(ref)
            assert same(found, value)
            again = warehouse.open(warehouse.store("x", found))
            assert same(again, value)

        run()


def test_values_come_back_to_the_bit(tmp_path: Path) -> None:
    check_values(tmp_path, 300)


def test_bits_that_are_lost_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: all NaNs are one, as in JSON."""
    real = plain._TAG[float]
    monkeypatch.setitem(plain._TAG, float, lambda value: real(math.nan if value != value else value))
    with pytest.raises(AssertionError, match="same.nan, nan"):
        check_values(tmp_path, 300)


@pytest.mark.campaign
def test_ten_thousand_values(tmp_path: Path) -> None:
    check_values(tmp_path, 10_000)


def deep_list() -> Any:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


class Liar:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class Endless:
    def __reduce__(self) -> Any:
        return Endless, (Endless(),)


class Wrong:
    def __reduce__(self) -> Any:
        return 7


REFUSED = {
    "a lock": lambda: {"deep": [1, (threading.Lock(),)]},
    "an open file": lambda: {"deep": [1, (open(sys.executable, "rb"),)]},
    "a generator": lambda: {"deep": [1, ((i for i in ()),)]},
    "a socket": lambda: {"deep": [1, (socket.socket(),)]},
    "a frame": lambda: {"deep": [1, (sys._getframe(),)]},
    "a liar": lambda: {"deep": [1, (Liar(),)]},
    "an endless one": lambda: {"deep": [1, (Endless(),)]},
    "a wrong one": lambda: {"deep": [1, (Wrong(),)]},
    "a module": lambda: {"deep": [1, (sys,)]},
    "depth": deep_list,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cant_be_stored_is_refused_where_it_is_sent(tmp_path: Path, what: str) -> None:
    value = REFUSED[what]()

    @ReactorFunc
    def sends(pipe: Any) -> None:
        pipe.send("x", value)

    with Plant(tmp_path / "plant") as plant:
        with pytest.raises(CannotStore) as caught:
            plant.run_reactor(sends)
        assert "'x'" in str(caught.value)
        if what not in ("depth", "an endless one"):
            assert "value['deep'][1][0]" in str(caught.value)
        assert not plant.is_ingredient_known("x")
        assert plant.warehouse.check() == []


def test_a_refusal_without_the_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: nobody looks where in the value the trouble is."""
    monkeypatch.setattr(builtin, "path_to", lambda value, target: None)
    monkeypatch.setattr(builtin, "deepest", lambda value, fails: ("value", value))
    with pytest.raises(AssertionError, match="deep"):
        test_what_cant_be_stored_is_refused_where_it_is_sent(tmp_path, "a liar")


def test_a_value_that_is_stored_and_should_not_be_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: what is never to be stored is given to dill, which stores a lock."""
    monkeypatch.setattr(builtin, "refusal", lambda kind: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_what_cant_be_stored_is_refused_where_it_is_sent(tmp_path, "a lock")


def test_a_value_that_holds_itself(tmp_path: Path) -> None:
    with Warehouse(tmp_path) as warehouse:
        found = warehouse.open(warehouse.store("x", cyclic()))
        assert found["self"][0] is found


def test_a_class_that_lies_about_its_type(tmp_path: Path) -> None:
    class Looks(int):
        @property
        def __class__(self) -> Any:
            return str

    with Warehouse(tmp_path) as warehouse:
        try:
            found = warehouse.open(warehouse.store("x", Looks(3)))
        except PyplantxError:
            return
        assert int(found) == 3


@SubreactorFunc
def keeping(pipe: Any, value: Any) -> Any:
    pipe.checkpoint("k", 1)
    return 1
    yield


USES: dict[str, Callable[[Any, Any], Any]] = {
    "sent": lambda pipe, value: pipe.send("x", [value]),
    "made and sent": lambda pipe, value: pipe.send("x", {"a": type(value)()}),
    "class": lambda pipe, value: pipe.send("x", [type(value)]),
    "kept": lambda pipe, value: (pipe.checkpoint("k", value), pipe.send("x", 1)),
    "read": lambda pipe, value: pipe.send("x", pipe.read_config("a") is not None),
    "given": lambda pipe, value: (yield from keeping(pipe, value)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", unwilling.NAMES)
def test_what_raises_when_it_is_looked_at_is_stored_or_refused(tmp_path: Path, name: str, use: str) -> None:
    """`SystemExit` and errors that are no `AttributeError` end neither the program nor say something else."""
    value = getattr(unwilling, name)()

    @ReactorFunc(name="r")
    def reactor(pipe: Any) -> Any:
        done = USES[use](pipe, value)
        if use == "given":
            pipe.send("x", (yield from done))

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(reactor)
        plant.set_config({"a": value})
        try:
            plant.produce("x")
        except (CannotStore, CannotFingerprint) as error:
            assert "value" in str(error) or "config" in str(error)


class Slow:
    """Is asked for its state just when the process is told to end."""

    def __getstate__(self) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return {}


def leave(signum: int, frame: Any) -> None:
    sys.exit(7)


def leave_once(signum: int, frame: Any) -> None:
    signal.signal(signum, signal.SIG_IGN)
    sys.exit(7)


def leave_with(status: int, *_: Any) -> None:
    sys.exit(status)


def run_out(signum: int, frame: Any) -> None:
    raise RuntimeError("7 s are over")


HANDLERS = [leave, leave_once, lambda *_: leave(*_), functools.partial(leave_with, 7), run_out]


@pytest.mark.parametrize("use", ["stored", "fingerprinted"])
@pytest.mark.parametrize("handler", HANDLERS, ids=["plain", "once", "lambda", "partial", "an error"])
def test_the_end_that_a_signal_asks_for_is_no_word_about_a_value(tmp_path: Path, handler: Any, use: str) -> None:
    held = Slow() if use == "fingerprinted" else None

    @ReactorFunc(name="r")
    def reactor(pipe: Any) -> None:
        pipe.send("x", held or Slow())

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises((SystemExit, RuntimeError), match="7"):
                plant.produce("x")
    finally:
        signal.signal(signal.SIGTERM, before)

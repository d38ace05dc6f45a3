"""Values that raise what ends a program, when they are looked at: an error about them, and the program goes on."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from pyplantx import ReactorFunc, errors


def raising(error: BaseException, hook: str) -> Any:
    def raise_it(*_: Any) -> Any:
        raise error

    namespace = {hook: property(raise_it) if hook == "__class__" else raise_it}
    return type("Unwilling", (), namespace)()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("hook", ["__getstate__", "__reduce__", "__class__"])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}])
def test_a_value_that_ends_programs_is_an_error_at_send(
    error: BaseException, hook: str, wrap: Any, open_plant: Any
) -> None:
    @ReactorFunc
    def sender(pipe: Any) -> Any:
        with pytest.raises(errors.CannotStore, match=type(error).__name__):
            pipe.send("y", wrap(raising(error, hook)))
        pipe.send("z", 1)
        yield

    with open_plant(sender) as plant:
        assert plant.produce("z") == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_global_that_ends_programs_counts_by_its_type(error: BaseException, open_plant: Any) -> None:
    unwilling = raising(error, "__getstate__")

    @ReactorFunc
    def sender(pipe: Any) -> None:
        pipe.send("z", 1 if unwilling else 2)

    with open_plant(sender) as plant:
        assert plant.produce("z") == 1


@pytest.mark.parametrize("own", [True, False])
def test_ctrl_c_in_the_midst_of_a_look_ends_the_program(own: bool, open_plant: Any) -> None:
    def handler(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    class Slow:
        def __getstate__(self) -> Any:
            signal.raise_signal(signal.SIGINT)
            return {}

    @ReactorFunc
    def sender(pipe: Any) -> None:
        pipe.send("y", Slow())

    before = signal.signal(signal.SIGINT, handler if own else signal.default_int_handler)
    try:
        with open_plant(sender) as plant, pytest.raises(KeyboardInterrupt):
            plant.run_reactor(sender)
    finally:
        signal.signal(signal.SIGINT, before)

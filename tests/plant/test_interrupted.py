"""Ctrl-C as functions of the plant are entered, which is when Python handles signals: the same plant goes on.

The lines of the whole package are tried in `tests/faults/interrupts.py`. A signal that came while no line of ours ran
is handled where a function begins; of ``with`` blocks that are functions in Python, this is before they end anything.
"""

import os
import signal
import sys

import pytest

from pyplantx import Plant, ReactorFunc, gate

PACKAGE = os.path.dirname(gate.__file__) + os.sep


class Calls:
    """Sends SIGINT as the n-th function of some files of the package is entered."""

    def __init__(self, n, files):
        self.left, self.files = n, tuple(PACKAGE + file for file in files)

    def __call__(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(self.files):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)


def interrupted(
    n,
    action,
    files=(
        "plant.py",
        "gate.py",
        "roster.py",
        "fingerprint/code.py",
        "warehouse/warehouse.py",
        "warehouse/stillness.py",
    ),
):
    """Whether there were n functions to enter."""
    calls = Calls(n, files)
    sys.settrace(calls)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return calls.left <= 0


@pytest.fixture
def reactors():
    @ReactorFunc
    def load(pipe):
        pipe.send("x", pipe.read_config("n"))

    @ReactorFunc
    def double(pipe):
        pipe.send("y", 2 * (yield pipe.receive("x")))

    return load, double


@pytest.fixture(autouse=True)
def ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


ACTIONS = {
    "produce": lambda plant: plant.produce("y"),
    "run_reactor": lambda plant: plant.run_reactor("double"),
    "status": lambda plant: plant.status(),
    "fetch": lambda plant: plant.fetch_ingredient("y"),
    "pin": lambda plant: plant.pin("y"),
    "gc": lambda plant: plant.gc(),
    "set_config": lambda plant: plant.set_config({"n": 5}),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_plant_is_of_use_after_ctrl_c_in_any_call(tmp_path, reactors, name):
    with Plant(tmp_path, config={"n": 0}) as plant:
        plant.add_reactor(*reactors)
        n = 1
        plant.produce("y")
        while interrupted(n, lambda: ACTIONS[name](plant)):
            plant.set_config({"n": n})
            assert plant.produce("y") == 2 * n
            n += 1
    assert n > 1


def test_a_plant_closes_after_ctrl_c_in_any_call(tmp_path, reactors):
    n, more = 0, True
    while more:
        n += 1
        with Plant(tmp_path, config={"n": n}) as plant:
            plant.add_reactor(*reactors)
            more = interrupted(n, lambda: plant.produce("y"), ["plant.py", "gate.py"])
    assert n > 10


def test_a_reactor_still_can_t_use_its_plant(tmp_path):
    errors = []

    @ReactorFunc
    def nosy(pipe):
        for action in (plant.status, plant.close, lambda: plant.set_config(1), lambda: plant.produce("x")):
            try:
                action()
            except Exception as error:
                errors.append(type(error).__name__)
        pipe.send("x", 1)

    with Plant(tmp_path) as plant:
        plant.add_reactor(nosy)
        assert plant.produce("x") == 1
    assert errors == ["BadRequest"] * 4

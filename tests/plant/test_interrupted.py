"""Ctrl-C as functions of the plant are entered, which is when Python handles signals: the same plant goes on.

The lines of the whole package are tried in `tests/faults/interrupts.py`. A signal that came while no line of ours ran
is handled where a function begins; of ``with`` blocks that are functions in Python, this is before they end anything.
"""

import contextlib
import linecache
import os
import signal
import sys
import threading

import pytest

import pyplantx
from pyplantx import Plant, ReactorFunc
from pyplantx.session import gate

PACKAGE = os.path.dirname(pyplantx.__file__) + os.sep


class Calls:
    """Sends SIGINT as the n-th function of some files of the package is entered.

    Left out is the generator that holds the gate's lock: a trace function hears of it when it is closed, too, where
    Python looks for no signal.
    """

    def __init__(self, n, files):
        self.left, self.files = n, tuple(PACKAGE + file for file in files)

    def __call__(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(self.files) and not is_block(frame):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)


def is_block(frame):
    return frame.f_code.co_name == "_in_block"


def interrupted(
    n,
    action,
    files=(
        "plant.py",
        "session/gate.py",
        "session/roster.py",
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
            more = interrupted(n, lambda: plant.produce("y"), ["plant.py", "session/gate.py"])
    assert n > 10


class Steps:
    """Sends SIGINT at the n-th step of gate.py: before a line, or as a call returns, of a function in C, too.

    Python looks for signals there; before a line it does so less often than this. Left out are lines of ``try``, which
    do nothing, and of ``with``, at which a trace function is called once more before the lock is given back.
    """

    file = PACKAGE + "session/gate.py"

    def __init__(self, n):
        self.left = n

    def __enter__(self):
        sys.setprofile(self.profile)
        sys.settrace(self.trace)
        return self

    def __exit__(self, kind, error, traceback):
        sys.settrace(None)
        sys.setprofile(None)
        return kind is KeyboardInterrupt

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename != self.file:
            return None
        line = linecache.getline(self.file, frame.f_lineno).lstrip()
        if event == "line" and not line.startswith(("try:", "with ")):
            self.step()
        return self.trace

    def profile(self, frame, event, argument):
        if event == "c_return" and frame.f_code.co_filename == self.file:
            self.step()

    def step(self):
        self.left -= 1
        if self.left == 0:
            sys.settrace(None)
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)


def in_another_thread(action, seconds=20):
    """Whether it comes to an end there."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


@pytest.mark.parametrize("name", ["status", "set_config", "get_reactors"])
@pytest.mark.parametrize("busy", [False, True])
def test_the_gate_is_left_by_ctrl_c_in_any_step(tmp_path, reactors, monkeypatch, name, busy):
    """Also where another thread was inside, for whom one has to wait."""
    actions = {**ACTIONS, "get_reactors": lambda plant: plant.get_reactors()}
    monkeypatch.setattr(gate, "_PATIENCE", 0.05)
    with Plant(tmp_path, config={"n": 0}) as plant:
        plant.add_reactor(*reactors)
        plant.produce("y")
        n, left = 0, 0
        while left <= 0:
            n += 1
            with inside(plant) if busy else contextlib.nullcontext():
                with Steps(n) as steps:
                    actions[name](plant)
            left = steps.left
            plant.set_config({"n": n})
            assert plant.produce("y") == 2 * n
            assert in_another_thread(plant.status)
    assert n > 3


@contextlib.contextmanager
def inside(plant):
    """Another thread is at work meanwhile, and ends a little later."""
    begun, left = threading.Event(), threading.Event()

    def listen(*_):
        begun.set()
        left.wait(0.2)

    plant.add_event_listener(Plant.EventType.reactor_started, listen)
    thread = threading.Thread(target=plant.run_reactor, args=("load",), kwargs={"force": True}, daemon=True)
    thread.start()
    begun.wait()
    yield
    left.set()
    thread.join()
    plant.remove_event_listener(listen)


def test_what_rests_is_left_by_ctrl_c(tmp_path, reactors):
    """The error is kept, and with it all the frames it has passed: no lock hangs on them."""
    kept, more, n = [], True, 0
    with Plant(tmp_path, config={"n": 0}) as plant:
        plant.add_reactor(*reactors)
        while more:
            n += 1
            try:
                more = calls_of(n, lambda: plant.set_config({"n": 1}))
            except KeyboardInterrupt as error:
                kept.append(error)
            assert in_another_thread(plant.status)
    assert len(kept) == n - 1 > 3


def calls_of(n, action):
    """Whether there were n functions to enter, of any file; Ctrl-C as the n-th is entered."""
    calls = Calls(n, [""])
    calls.files = (PACKAGE, contextlib.__file__)
    sys.settrace(calls)
    try:
        action()
    finally:
        sys.settrace(None)
    return calls.left <= 0


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

"""Several processes on one directory: equal results, and each piece of work done once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyplantx import ReactorFunc, untracked
from pyplantx.session.trees import Trees
from pyplantx.warehouse.claims import Claim
from pyplantx.warehouse.warehouse import Warehouse

PROGRAM = """
import os, sys, time
from pyplantx import Plant, ReactorFunc

directory, log = sys.argv[1:]

def note(name):
    with open(log, "a") as file:
        file.write(name + "\\n")

def make(i):
    @ReactorFunc(name=f"step-{i}", sends=f"x{i}")
    def step(pipe):
        x = (yield pipe.receive(f"x{i - 1}")) if i else 0
        note(f"step-{i}")
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        pipe.send(f"x{i}", x + i)
    return step

with Plant(directory) as plant:
    plant.add_reactors([make(i) for i in range(12)])
    print(plant.produce("x11"))
"""


def test_each_piece_of_work_is_done_once(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    log = tmp_path / "log"
    command = [sys.executable, str(script), str(tmp_path / "plant"), str(log)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["66"] * 4
    ran = log.read_text().split()
    assert sorted(ran) == sorted(f"step-{i}" for i in range(12))


CYTHON = """
import sys
import numpy as np
from pyplantx import Plant, ReactorFunc

@ReactorFunc
def begin(pipe):
    pipe.send("generator", np.random.default_rng(3))
    pipe.send("seeds", np.random.SeedSequence(3))

@ReactorFunc
def draw(pipe):
    generator, seeds = yield pipe.receive("generator", "seeds")
    pipe.send("number", float(generator.random()) + seeds.entropy)

with Plant(sys.argv[1]) as plant:
    plant.produce("number")
    print(len(plant.get_execution_history()))
"""


def test_objects_that_cython_pickles_are_known_again(tmp_path: Path) -> None:
    """Pickles name a function of Cython's; its class lies in a module that no process has before it imports NumPy's."""
    script = tmp_path / "program.py"
    script.write_text(CYTHON)
    command = [sys.executable, str(script), str(tmp_path / "plant")]
    ran = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout for _ in range(2)]
    assert ran == ["2\n", "0\n"]


def test_who_waited_for_other_work_claims_what_it_does_then(open_plant: Any, tmp_path: Path) -> None:
    """Nobody knows what a reactor reads before its first run, so all wait for that; then each has a work of its own."""
    begun: list[int] = []
    gates = {1: threading.Event(), 2: threading.Event()}

    @untracked
    def hold(number: int) -> None:
        begun.append(number)
        gates[number].wait(30)

    @ReactorFunc
    def train(pipe: Any) -> None:
        number = pipe.read_config("number")
        hold(number)
        pipe.send("model", number * 10)

    def produce(number: int) -> Any:
        with open_plant(train, config={"number": number}) as plant:
            return plant.produce("model")

    def somebody_waits() -> bool:
        return any((tmp_path / "plant" / "claims").glob("*.waits"))

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(produce, 1)
        _until(lambda: begun == [1])
        second = pool.submit(produce, 2)
        _until(somebody_waits)
        gates[1].set()
        _until(lambda: begun == [1, 2] and not somebody_waits())
        third = pool.submit(produce, 2)
        _until(lambda: somebody_waits() or len(begun) > 2)
        gates[2].set()
        assert [each.result() for each in (first, second, third)] == [10, 20, 20]
    assert begun == [1, 2]


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


MEANWHILE = """
import os, subprocess, sys
from pyplantx import Plant, ReactorFunc

script, directory, value, how = sys.argv

@ReactorFunc
def measure(pipe):
    value = pipe.read_config("value")
    if os.environ.pop("MEANWHILE", ""):  # sys.argv itself would make another reactor of it, each time
        subprocess.run([sys.executable, script, directory, "other", "run"], check=True)
    print("ran with", value, flush=True)
    pipe.send("x", value)

with Plant(directory) as plant:
    plant.set_config({"value": value})
    if how == "run":
        plant.run_reactor(measure)
    assert plant.produce("x") == value
"""


def test_a_trace_that_another_process_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    """Two forced runs begin where nothing is recorded; the one that ends last must not overwrite the other's trace."""
    script = tmp_path / "program.py"
    script.write_text(MEANWHILE)

    def call(value: str, how: str, **environment: str) -> list[str]:
        command = [sys.executable, str(script), str(tmp_path / "plant"), value, how]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=60, check=True, env={**os.environ, **environment}
        )
        return done.stdout.splitlines()

    assert call("one", "run", MEANWHILE="1") == ["ran with other", "ran with one"]
    assert call("other", "produce") == call("one", "produce") == []


BETWEEN = """
import os, subprocess, sys
from pyplantx import Plant, ReactorFunc
from pyplantx.warehouse.warehouse import Warehouse

directory, value, other = sys.argv[1:]
new_claim = Warehouse.new_claim

def new_claim_after_another(warehouse, key):
    Warehouse.new_claim = new_claim
    subprocess.run([sys.executable, sys.argv[0], directory, value, ""], check=True, env={**os.environ, "HOW": other})
    return new_claim(warehouse, key)

if other:
    Warehouse.new_claim = new_claim_after_another

@ReactorFunc
def measure(pipe):
    value = pipe.read_config("value")
    print("ran with", value, flush=True)
    pipe.send("x", value)

with Plant(directory) as plant:
    plant.set_config({"value": value})
    if os.environ.get("HOW") == "run_reactor":
        plant.run_reactor(measure)
    assert plant.produce("x") == value
"""


@pytest.mark.parametrize("other", ["produce", "run_reactor"])  # which claims nothing
def test_another_that_comes_to_its_end_between_look_up_and_claim_has_done_it(tmp_path: Path, other: str) -> None:
    """Without a trace of the reactor, then with one that the config leads off."""
    script = tmp_path / "program.py"
    script.write_text(BETWEEN)
    for value in ("one", "two"):
        command = [sys.executable, str(script), str(tmp_path / "plant"), value, other]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert done.stdout.splitlines() == [f"ran with {value}"]


def test_another_plant_of_the_process_that_closes_between_look_up_and_claim_has_done_it(
    open_plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    @untracked
    def note(value: int) -> None:
        ran.append(value)

    @ReactorFunc
    def measure(pipe: Any) -> None:
        note(pipe.read_config("value"))
        pipe.send("x", pipe.read_config("value"))

    new_claim = Warehouse.new_claim

    def new_claim_after_another(warehouse: Warehouse, key: str) -> Claim:
        monkeypatch.setattr(Warehouse, "new_claim", new_claim)
        with open_plant(measure, config={"value": value}) as other:
            assert other.produce("x") == value
        return new_claim(warehouse, key)

    with open_plant(measure) as plant:
        for value in (1, 2):
            plant.set_config({"value": value})
            monkeypatch.setattr(Warehouse, "new_claim", new_claim_after_another)
            assert plant.produce("x") == value
    assert ran == [1, 2]


def test_whoever_is_alone_looks_nothing_up_twice(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = []
    root = Trees.root

    def noted(trees: Trees, id: str) -> Any:
        looked_up.append(id)
        trees._warehouse.sync()  # own commits are no others'
        return root(trees, id)

    monkeypatch.setattr(Trees, "root", noted)

    def make(at: int) -> Any:
        @ReactorFunc(name=f"r{at}")
        def link(pipe: Any) -> Any:
            pipe.send(f"x{at}", ((yield pipe.receive(f"x{at - 1}")) if at else 0) + pipe.read_config("step"))

        return link

    links = [make(at) for at in range(20)]
    for step in (1, 2):
        with open_plant(*links, config={"step": step}) as plant:
            assert plant.produce("x19") == 20 * step
    assert len(looked_up) == 40

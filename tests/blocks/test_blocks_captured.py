"""A map goes on after a kill only if its function hangs on nothing but its blocks: else nothing tells of the kill."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, SubreactorFunc, specs
from pyplantx.blocks.captured import CannotTell, Captured
from pyplantx.fingerprint.code import Fingerprinter
from tests.blocks.values import Unseen

ROWS, MEMORY = 160, 3 * 2 * 16 * 4
COUNTED: list[float] = []


class Stop(Exception):
    """Ends a run in the middle, as a kill does."""


def pure(pipe: Any, config: Any) -> Callable[[Any], Any]:
    scale, table = 3, {"a": np.arange(4.0), "b": (1, "x", None)}
    return lambda x: x * scale + table["a"][1] + config["offset"]


def seeded(pipe: Any, config: Any) -> Callable[[Any], Any]:
    rng = np.random.default_rng(7)
    return lambda x: x + rng.normal(size=x.shape)


def seeded_for_all(pipe: Any, config: Any) -> Callable[[Any], Any]:
    np.random.seed(7)
    random.seed(7)
    return lambda x: x + np.random.normal(size=x.shape) + random.random()


def counting(pipe: Any, config: Any) -> Callable[[Any], Any]:
    seen: list[int] = []

    def number(x: Any) -> Any:
        seen.append(1)
        return x + len(seen)

    return number


def counting_in_a_global(pipe: Any, config: Any) -> Callable[[Any], Any]:
    COUNTED.clear()

    def number(x: Any) -> Any:
        COUNTED.append(1.0)
        return x + len(COUNTED)

    return number


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def number(self, x: Any, by: int) -> Any:
        self.count += by
        return x + self.count


def counting_in_an_object(pipe: Any, config: Any) -> Callable[[Any], Any]:
    return functools.partial(Counter().number, by=2)


STATES = [seeded, seeded_for_all, counting, counting_in_a_global, counting_in_an_object]


def job(make: Callable[[Any, Any], Callable[[Any], Any]], stop_at: int, calls: Unseen) -> Any:
    """A reactor that maps and reduces with a function, and stops in the middle when it is run first."""

    def stopping(function: Callable[[Any], Any], x: Any) -> Any:
        calls.append(1)
        if len(calls) == stop_at:
            raise Stop
        return function(x)

    @ReactorFunc(name="r")
    def reactor(pipe: Any, config: Any) -> None:
        dst = pipe.allocate("dst", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")
        source = np.arange(float(ROWS))
        pipe.map_blocks(functools.partial(stopping, make(pipe, config)), source, out=dst, memory=MEMORY)
        part = functools.partial(stopping, make(pipe, config))
        pipe.send("sum", pipe.reduce_blocks(lambda x: float(part(x).sum()), source, memory=MEMORY))
        pipe.send("dst", dst)

    return reactor


def results(directory: Path, reactor: Any) -> tuple[list[float], float]:
    with Plant(directory, durability="process") as plant:
        plant.set_config({"offset": 0.5})
        plant.add_reactors(reactor)
        dst, total = plant.produce("dst", "sum")
        return np.array(dst).tolist(), total


@pytest.mark.parametrize("stop_at", [15, 28])
@pytest.mark.parametrize("make", [pure, *STATES])
def test_nothing_tells_that_there_was_a_kill(make: Any, stop_at: int, tmp_path: Path) -> None:
    whole, calls = Unseen(), Unseen()
    undisturbed = results(tmp_path / "whole", job(make, -1, whole))
    with pytest.raises(Stop):
        results(tmp_path / "killed", job(make, stop_at, calls))
    assert results(tmp_path / "killed", job(make, stop_at, calls)) == undisturbed
    again = len(calls) - len(whole)
    # What was finished is not done again, but for a few that nobody had looked at: here the map's 20, or 14.
    assert again < 14 if make is pure else again >= 14


def test_what_a_function_writes_besides_is_not_lost(tmp_path: Path) -> None:
    def made(fill: Callable[[Any], Any], stop_at: int) -> Any:
        calls = Unseen()

        @ReactorFunc(name="r")
        def reactor(pipe: Any) -> None:
            dst = pipe.allocate("dst", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")
            other = fill(pipe)

            def both(x: Any) -> Any:
                calls.append(1)
                if len(calls) == stop_at:
                    raise Stop
                other[int(x[0]) : int(x[0]) + len(x)] = 1.0
                return x

            pipe.map_blocks(both, np.arange(float(ROWS)), out=dst, memory=MEMORY)
            pipe.send("sum", float(other[:].sum()))
            pipe.send("dst", dst)

        return reactor

    def dataset(pipe: Any) -> Any:
        return pipe.allocate_temp(specs.HdfArraySpec, shape=(ROWS,), dtype="f8")

    def mapped(pipe: Any) -> Any:
        return pipe.allocate_temp(specs.ArraySpec, shape=(ROWS,), dtype="f8")

    def in_memory(pipe: Any) -> Any:
        return np.zeros(ROWS)

    for fill in (dataset, mapped, in_memory):
        reactor = made(fill, 5)
        with pytest.raises(Stop):
            results(tmp_path / fill.__name__, reactor)
        assert results(tmp_path / fill.__name__, reactor)[1] == ROWS


@pytest.mark.parametrize("what", ["source", "closure", "initial"])
def test_values_that_the_run_made_itself_count(what: str, tmp_path: Path) -> None:
    """They are not observed: whatever made them differs from run to run here."""
    runs, calls = Unseen(), Unseen()

    @ReactorFunc(name="r")
    def reactor(pipe: Any) -> None:
        runs.append(1)
        value = {key: float(len(runs)) if key == what else 0.0 for key in ("source", "closure", "initial")}
        added = value["closure"]

        def part(x: Any) -> float:
            calls.append(1)
            if len(calls) == 8:
                raise Stop
            return float((x + added).sum())

        source = np.full(ROWS, value["source"])
        total = pipe.reduce_blocks(part, source, memory=MEMORY, initial=value["initial"])
        pipe.send("sum", total)
        pipe.send("dst", 0.0)

    with pytest.raises(Stop):
        results(tmp_path / "plant", reactor)
    expected = 2.0 if what == "initial" else 2.0 * ROWS
    assert results(tmp_path / "plant", reactor)[1] == expected


def test_what_can_not_be_seen(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as file:
        with pytest.raises(CannotTell, match="TextIOWrapper"):
            captured(lambda x: file.write("x"))
    numbers = iter([1, 2, 3])
    with pytest.raises(CannotTell, match="an iterator"):
        captured(lambda x: next(numbers))
    big = np.lib.stride_tricks.as_strided(np.zeros(1), (1 << 26,), (0,))
    with pytest.raises(CannotTell, match="more than is looked at"):
        captured(lambda x: x + big[0])
    with pytest.raises(CannotTell, match="not sent yet"):
        captured(lambda x: x + big[0], is_unfinished=lambda value: value is big)


def test_functions_of_libraries_have_no_state() -> None:
    import scipy.fft
    import scipy.ndimage

    for function in (np.sqrt, scipy.fft.fft, functools.partial(scipy.ndimage.gaussian_filter, sigma=2)):
        found = captured(function)
        function(np.ones(9))
        assert found.look(now=True)


def test_compiled_methods_have_that_of_their_object() -> None:
    items: list[int] = []
    found = captured(items.append)
    assert found.look(now=True)
    items.append(1)
    assert found.look(now=True) is False


def test_the_subreactors_that_it_calls_count() -> None:
    @SubreactorFunc
    def sub(pipe: Any, x: Any) -> Any:
        return x + 1

    def step(x: Any) -> Any:
        return next(iter(sub(None, x)))

    before = captured(step).digest
    sub.function.__code__ = (lambda pipe, x: x + 2).__code__
    assert captured(step).digest != before


def test_dear_looks_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyplantx.blocks.captured._CHEAP", 0.001)
    now, effort = iter([0.0, 1.0, 19.9, 20.0, 20.0, 21.0]), iter([0.0, 1.0, 1.0, 2.0])
    found = captured(lambda x: x, clock=lambda: next(now), effort=lambda: next(effort))
    assert [found.look(), found.look(), found.look(), found.look()] == [None, None, True, None]


def captured(function: Any, is_unfinished: Any = lambda value: False, **options: Any) -> Captured:
    return Captured([function], Fingerprinter(), is_unfinished, **options)


_WITH_A_CONFIG = """
import sys
import numpy as np
from pyplantx import *

class Options(ConfigBase):
    offset = 0.5

calls, KIND = [], sys.argv[2]

@untracked
def note():
    calls.append(1)
    if len(calls) == 5 and sys.argv[3] == "stop":
        raise RuntimeError

@ReactorFunc
def make(pipe, config):
    dst = pipe.allocate("x", specs.HdfArraySpec, shape=(40,), dtype="f8")
    def function(part):
        note()
        return part + (config["offset"] if KIND == "dict" else config.offset)
    pipe.map_blocks(function, np.zeros(40), out=dst, memory=3 * 2 * 8 * 4)
    pipe.send("x", dst)

with Plant(sys.argv[1], config={"offset": 0.5} if KIND == "dict" else Options()) as plant:
    print(plant.produce("x")[...].sum(), len(calls))
"""


@pytest.mark.parametrize("kind", ["dict", "object"])
def test_a_function_that_reads_the_config_is_gone_on_with_in_another_process(kind: str, tmp_path: Path) -> None:
    """The class of a config's view has a descriptor for its module, which lies elsewhere in each process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    (tmp_path / "script.py").write_text(_WITH_A_CONFIG)
    for stop in ("stop", "go on"):
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "plant"), kind, stop]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["20.0", "6"], done.stderr

"""Functions of blocks in other processes have the code and values that were fingerprinted, or nothing is computed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.blocks import travel
from pyplantx.blocks.handles import handle_of
from pyplantx.errors import BadRequest
from pyplantx.executors.processes import WorkerProcesses
from pyplantx.executors.workers import workers_for

HELPER = """
from functools import lru_cache
import logging
import threading
from pyplantx import SubreactorFunc

K = 3
CONF = {"a": 1}
COUNT = 0
SEEN = {}
LOG, LOCK = logging.getLogger(__name__), threading.Lock()

def f(part, k=10):
    return part * K + k * CONF["a"]

def counted(part):
    return part + COUNT

def remembered(part):
    SEEN[len(SEEN)] = 1
    return part + len(SEEN)

@lru_cache
def cached(number):
    return number * K

def logged(part):
    with LOCK:
        LOG.info("a part")
    return part

@SubreactorFunc
def sub(part):
    return part + 6

def calls(part):
    try:
        next(iter(sub(part)))
    except StopIteration as end:
        return end.value

class Single:
    factor = 2
    def __reduce__(self):
        return "ONLY"
    def __call__(self, part):
        return part * self.factor

ONLY = Single()

class Thing:
    scale = 2
    def __call__(self, part):
        return part * self.scale
"""

Make = Callable[[str], ModuleType]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Writes the user's module; imports it the first time.

    Nobody keeps its bytecode, workers neither: two texts of one length and one second would have the same.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def written(text: str) -> ModuleType:
        (tmp_path / "helper_code.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module("helper_code")

    yield written
    sys.modules.pop("helper_code", None)


@pytest.fixture
def helper(make: Make) -> ModuleType:
    return make(HELPER)


@pytest.fixture
def pool() -> Iterator[WorkerProcesses]:
    workers = WorkerProcesses(1)
    yield workers
    workers.close()


def called(workers: Any, function: Callable[..., Any], part: Any = 1) -> Any:
    """What a worker computes."""
    job, _ = travel.pack(function, [handle_of(np.zeros(1))], "a test", workers)
    with workers.begin(job) as call:
        return call(part)


def other_values(part: str) -> Any:
    return pytest.raises(BadRequest, match=f"other code or values.* something else for .*{part}")


#: What a function may be, and how it comes to the module's constant.
WAYS: dict[str, Callable[[ModuleType], Callable[..., Any]]] = {
    "by its name": lambda helper: helper.f,
    "module in a closure": lambda helper: lambda part: helper.f(part),
    "function in a closure": lambda helper: (lambda f: lambda part: f(part))(helper.f),
    "module in a default": lambda helper: lambda part, module=helper: module.f(part),
    "imported inside": lambda helper: imports_inside,
    "module as a global": lambda helper: of_globals(helper, "lambda part: helper.f(part)"),
    "constant of it": lambda helper: of_globals(helper, "lambda part: part * helper.K + 10"),
    "computed name": lambda helper: of_globals(helper, "lambda part: part * getattr(helper, 'K') + 10"),
    "cached": lambda helper: (lambda cached: lambda part: cached(part) + 10)(helper.cached),
}


def imports_inside(part: Any) -> Any:
    import helper_code

    return helper_code.f(part)


imports_inside.__qualname__ = "by value"  # since this file is another one when pytest has imported it


def of_globals(helper: ModuleType, text: str) -> Any:
    """A function of a script that has imported the module."""
    return eval(text, {"helper": helper, "__name__": "__main__"})


class TestWhatDiffersIsRefused:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_constant_that_was_set(self, way, helper, pool):
        function = WAYS[way](helper)
        assert called(pool, function) == 13
        helper.K = 5
        with other_values("constant helper_code.K"):
            called(pool, function)
        helper.K = 3
        assert called(pool, function) == 13

    @pytest.mark.parametrize("way", ["by its name", "module in a closure", "imported inside", "module as a global"])
    def test_a_global_that_was_changed_inside(self, way, helper, pool):
        helper.CONF["a"] = 7
        with other_values("constant helper_code.CONF"):
            called(pool, WAYS[way](helper))

    @pytest.mark.parametrize(
        ("old", "new", "part"),
        [
            ("K = 3", "K = 300", "constant helper_code.K"),
            ("k=10", "k=999", "function helper_code.f"),
            ("part * K", "part / K", "function helper_code.f"),
        ],
    )
    def test_a_file_that_was_edited(self, old, new, part, make, helper, pool):
        """A worker that has imported it before the edit goes on; one that imports it now would not compute the same."""
        assert called(pool, helper.f) == 13
        make(HELPER.replace(old, new))
        assert called(pool, helper.f) == 13
        pool.close()
        with other_values(part):
            called(pool, helper.f)

    def test_a_subreactor(self, make, helper, pool):
        assert called(pool, helper.calls) == 7
        make(HELPER.replace("part + 6", "part + 60"))
        pool.close()
        with other_values("helper_code.calls"):
            called(pool, helper.calls)

    def test_a_class(self, helper, pool):
        thing = helper.Thing()
        assert called(pool, thing) == 2
        helper.Thing.scale = 5
        with other_values("class helper_code.Thing"):
            called(pool, thing)

    def test_an_object_that_says_its_name(self, helper, pool):
        assert called(pool, helper.ONLY) == 2
        helper.Single.factor = 5
        with other_values("class helper_code.Single"):
            called(pool, helper.ONLY)

    def test_an_edit_that_matters_to_others_only(self, make, helper, pool):
        make(HELPER.replace("COUNT = 0", "COUNT = 1"))
        assert called(pool, helper.f) == 13

    def test_what_can_not_be_compared(self, make, pool):
        helper = make("import threading\nHERE = threading.local()\n\ndef f(part):\n    return HERE.value\n")
        with pytest.raises(BadRequest, match="helper_code.f refers to constant helper_code.HERE: .*nobody can tell"):
            called(pool, helper.f)

    def test_loggers_and_locks_do_not_matter(self, helper, pool):
        assert called(pool, helper.logged, 4) == 4

    def test_in_an_executor_of_the_users(self, make, helper):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
            given = workers_for(processes)
            assert called(given, helper.f) == 13
            assert called(given, helper.calls) == 7, "what the plant sends may call subreactors there"
            helper.K = 5
            with other_values("constant helper_code.K"):
                called(given, helper.f)
        helper.K = 3
        make(HELPER.replace("part * K", "part / 7"))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes, other_values("helper_code.f"):
            called(workers_for(processes), helper.f)


class TestWorkersThatAreOutOfDate:
    @pytest.mark.parametrize(("text", "name"), [(HELPER.replace("K = 3", "K = 4"), "f"), ("def g(x): return 14", "g")])
    def test_are_replaced_after_a_reload(self, text, name, make, helper, pool):
        assert called(pool, helper.f) == 13
        make(text)
        importlib.reload(helper)
        assert called(pool, getattr(helper, name)) == 14

    def test_or_if_a_job_has_changed_what_they_have(self, helper, pool):
        for _ in range(3):
            assert called(pool, helper.remembered) == 2

    def test_the_others_stay(self, helper, pool):
        assert called(pool, helper.f) == 13
        (before,) = pool._idle
        assert called(pool, lambda part: helper.f(part)) == 13
        assert pool._idle == [before]


class TestPlants:
    """A wrong value must not get into the store, where a plant without workers would find it."""

    def reactors(self, helper: ModuleType) -> list[Any]:
        @ReactorFunc(name="work", sends="x")
        def work(pipe: Any) -> None:
            pipe.send("x", pipe.reduce_blocks(helper.counted, np.ones(10), combine=max))

        @ReactorFunc(name="changes", sends="y")
        def changes(pipe: Any) -> None:
            helper.COUNT += 1
            pipe.send("y", helper.COUNT)

        return [work, changes]

    def test_a_constant_that_was_set(self, helper, tmp_path):
        helper.COUNT = 5
        work, _ = self.reactors(helper)
        with Plant(tmp_path / "plant", executor="processes", durability="process") as plant:
            plant.add_reactors(work)
            with other_values("constant helper_code.COUNT"):
                plant.produce("x")
        with Plant(tmp_path / "plant", durability="process") as plant:
            plant.add_reactors(work)
            assert (np.array(plant.produce("x")) == 6).all()

    def test_state(self, helper, tmp_path):
        """For fingerprints it is what it was before reactors changed it; for who computes, what it is."""
        work, changes = self.reactors(helper)
        with Plant(tmp_path / "plant", executor="processes", durability="process") as plant:
            plant.add_reactors(work, changes)
            plant.produce("y")
            with other_values("constant helper_code.COUNT"):
                plant.produce("x")

    def test_rules_of_the_plant_hold_in_the_workers(self, helper, tmp_path):
        """A library's constants don't count, whoever looks."""
        helper.COUNT = 5
        work, _ = self.reactors(helper)
        with Plant(tmp_path / "a", executor="processes", durability="process", library=["helper_code"]) as plant:
            plant.add_reactors(work)
            assert (np.array(plant.produce("x")) == 1).all()

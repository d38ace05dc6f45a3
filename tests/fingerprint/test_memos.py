"""What `functools.lru_cache` keeps does not outlive an edit of the code that has computed it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from pyplantx import Plant, untracked
from pyplantx.fingerprint import memos
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.testing import forget_reactors

CELL = """\
import functools
from pyplantx import ReactorFunc, SubreactorFunc
K, UNRELATED = 3, 1
def scaled(x): return x * K
@functools.lru_cache
def cached(x): return scaled(x)
@functools.cache
def other(x): return x + 1
class Table:
    @staticmethod
    @functools.lru_cache(maxsize=4)
    def row(x): return scaled(x)
@SubreactorFunc
def sub(pipe):
    return cached(2)
    yield
@ReactorFunc
def plain(pipe): pipe.send("plain", (cached(2), other(2), Table.row(2)))
@ReactorFunc
def calling(pipe):
    value = yield from sub(pipe)
    pipe.send("calling", value)
"""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The namespace of a notebook in which the cell was run."""
    forget_reactors()
    monkeypatch.setitem(sys.modules, "notebook_of_a_test", types.ModuleType("notebook_of_a_test"))
    exec(CELL, vars(sys.modules["notebook_of_a_test"]))
    return vars(sys.modules["notebook_of_a_test"])


def cached_of(names: dict[str, Any]) -> tuple[Any, ...]:
    return (names["cached"], names["other"], names["Table"].row)


def entries(names: dict[str, Any]) -> tuple[int, ...]:
    return tuple(one.cache_info().currsize for one in cached_of(names))


def test_only_what_other_code_has_computed_is_let_go(names: dict[str, Any]) -> None:
    printer = Fingerprinter()

    def run() -> None:
        printer.begin_activity()
        printer.freeze([names["plain"].function])
        for one in ("cached", "other"):
            names[one](2)
        names["Table"].row(2)
        printer.end_activity()

    def look() -> None:
        printer.begin_activity()
        printer.fingerprint(names["plain"].function)
        printer.leave_activity()

    run()
    names["cached"](5)
    run()
    assert entries(names) == (2, 1, 1)
    names["UNRELATED"] = 2
    run()
    assert entries(names) == (2, 1, 1)
    names["K"] = 4
    look()
    assert entries(names) == (2, 1, 1)  # who only asks changes nothing
    run()
    assert entries(names) == (1, 1, 1)
    assert (names["cached"](2), names["Table"].row(2)) == (8, 8)


def test_what_was_computed_before_anything_ran_is_known_by_who_asked(names: dict[str, Any]) -> None:
    printer = Fingerprinter()
    printer.begin_activity()
    printer.fingerprint(names["plain"].function)
    printer.leave_activity()
    names["cached"](2)
    names["K"] = 4
    printer.begin_activity()
    printer.freeze([names["plain"].function])
    assert names["cached"](2) == 8


@pytest.mark.parametrize("name", ["plain", "calling"])
def test_an_edit_behind_a_cache_gives_the_new_value_and_stores_no_old_one(
    name: str, names: dict[str, Any], tmp_path: Any
) -> None:
    first: Callable[[Any], Any] = lambda value: value[0] if name == "plain" else value  # noqa: E731
    with Plant(tmp_path / "plant") as plant:
        assert first(plant.produce(name)) == 6
        names["K"] = 4
        assert first(plant.produce(name)) == 8
        names["K"] = 3
        assert first(plant.produce(name)) == 6
        names["K"] = 4
        assert first(plant.produce(name)) == 8
        assert [entry["reactor"] for entry in plant.get_execution_history()] == [name, name]


def test_what_fills_it_is_not_mixed_up_between_plants_that_look_at_versions_in_different_ways(
    names: dict[str, Any], tmp_path: Any
) -> None:
    pytest.importorskip("numpy")
    exec("import numpy as np\n@functools.lru_cache\ndef cached(x): return int(np.sum(x)) * K", names)
    with Plant(tmp_path / "one") as one, Plant(tmp_path / "two", library_versions="exact") as two:
        for plant in (one, two):
            plant.run_reactor("plain")
        hits = names["cached"].cache_info().hits  # begins anew where it is cleared
        for plant in (one, two, one, two):
            plant.run_reactor("plain")
        assert names["cached"].cache_info().hits == hits + 4  # what took minutes to load stays
        names["K"] = 4
        assert two.produce("plain")[0] == 8
        names["K"] = 3
        assert one.produce("plain")[0] == 6
        assert two.produce("plain")[0] == 6


def test_who_looks_at_a_cache_for_the_first_time_in_a_way_of_its_own_trusts_nobody(
    names: dict[str, Any], tmp_path: Any
) -> None:
    with Plant(tmp_path / "one") as one, Plant(tmp_path / "two", library_versions="exact") as two:
        assert one.produce("plain")[0] == 6
        names["K"] = 4
        assert two.produce("plain")[0] == 8


def test_a_cache_is_looked_at_once_however_much_code_is_met_in_a_run(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Any] = []
    let_go = memos.let_go
    monkeypatch.setattr(memos, "let_go", lambda caches, *rest: (looked_at.extend(caches), let_go(caches, *rest)))
    printer = Fingerprinter()
    printer.begin_activity()
    printer.freeze([names["plain"].function])
    for number in range(5):
        exec(f"def met(x): return other(x) + K + {number}", names)
        printer.fingerprint(names["met"])
    exec("@functools.lru_cache\ndef late(x): return x\ndef met(x): return late(x)", names)
    printer.fingerprint(names["met"])
    assert sorted(map(id, looked_at)) == sorted(map(id, [*cached_of(names), names["late"]]))


def test_code_that_is_pinned_keeps_what_it_has_kept(names: dict[str, Any], tmp_path: Any) -> None:
    """A pool, or a connection, whose identity matters to others."""
    names["cached"] = untracked(names["cached"])
    with Plant(tmp_path / "plant") as plant:
        assert plant.produce("plain") == (6, 3, 6)
        names["K"] = 4
        assert plant.produce("plain") == (6, 3, 8)

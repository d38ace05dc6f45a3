"""Values of a wrong kind for what plants, pipes and tools take: each is an error that says what to give instead."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Ingredient, Plant, ReactorFunc, SubreactorFunc, errors, specs, utils
from pyplantx.testing import PipeworkMock, run_reactor_to_completion

Open = Callable[..., Any]

A = np.arange(12.0)

#: Kinds of values that nobody wants, by what they are not.
NO_TEXT = [None, 5, -1, 1.5, math.nan, [], ["x"], b"x", object(), True, np.array(["x", "y"])]
NO_TEXTS = [None, 5, 1.5, [5], [None], ["x", 5], object(), True, b"x"]
NO_PATH = [*NO_TEXT, "", "a\0b", "\ud800"]
NO_WHOLE = [1.5, math.nan, math.inf, "x", "2", "", True, object(), [1.5], ["x"], [None], np.float64(2.0), 2j]
NO_FLAG = [None, 2, -1, 0.5, "x", "", "no", [], object(), np.array([1, 2])]
NO_FUNCTION = [5, "x", "", True, [], 1.5, object()]
NO_SPAN = [None, "x", "", -1, -0.5, math.nan, -math.inf, [], object(), True, datetime.timedelta(-1), np.array([1, 2])]
NO_WORD = [None, "", "x", 5, [], ["own"], object(), np.array([1, 2])]
NO_SIZE = ["x", "", -1, math.nan, [], object(), True, np.array([1, 2])]


def piped(call: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """What a reactor asks its pipe for."""
    return lambda value: run_reactor_to_completion(lambda pipe: call(pipe, value), PipeworkMock(config={"a": 1}))


def received(value: Any) -> None:
    def reactor(pipe: Any) -> Iterator[Any]:
        yield pipe.receive("x", as_=value)

    run_reactor_to_completion(reactor, PipeworkMock({"x": A}))


PIPE: dict[str, tuple[Callable[[Any, Any], Any], list[Any]]] = {
    "send name": (lambda p, v: p.send(v, 1), NO_TEXT),
    "send type": (lambda p, v: p.send("x", 1, v), ["", "x", 5, [], object(), True]),
    "allocate type": (lambda p, v: p.allocate("x", v), NO_WORD),
    "allocate_temp type": (lambda p, v: p.allocate_temp(v), NO_WORD),
    "read_config": (lambda p, v: p.read_config(v), NO_TEXT),
    "read_config_unregistered": (lambda p, v: p.read_config_unregistered(v), NO_TEXT),
    "peek": (lambda p, v: p.peek(v), NO_TEXT),
    "has": (lambda p, v: p.has(v), NO_TEXT),
    "env": (lambda p, v: p.env(v), NO_TEXT),
    "track_file": (lambda p, v: p.track_file(v), [v for v in [*NO_TEXT, ""] if not isinstance(v, bytes)]),
    "track_file verify": (lambda p, v: p.track_file("f", verify=v), NO_FLAG),
    "checkpoint": (lambda p, v: p.checkpoint(v), NO_TEXT),
    "blocks axis": (lambda p, v: list(p.blocks(A, axis=v)), [*NO_WHOLE, None, 5, -2, []]),
    "blocks halo": (lambda p, v: list(p.blocks(A, halo=v)), [*NO_WHOLE, None, -1, [], [1, 1]]),
    "blocks memory": (lambda p, v: list(p.blocks(A, memory=v)), [*NO_SIZE, 0]),
    "blocks resume": (lambda p, v: list(p.blocks(A, resume=v)), NO_FLAG),
    "blocks progress": (lambda p, v: list(p.blocks(A, progress=v)), NO_FUNCTION),
    "map_blocks function": (lambda p, v: p.map_blocks(v, A, out=A.copy()), [*NO_FUNCTION, None]),
    "map_blocks workers": (lambda p, v: p.map_blocks(np.sin, A, out=A.copy(), workers=v), [*NO_WHOLE, 0, -1]),
    "map_blocks resume": (lambda p, v: p.map_blocks(np.sin, A, out=A.copy(), resume=v), NO_FLAG),
    "map_blocks progress": (lambda p, v: p.map_blocks(np.sin, A, out=A.copy(), progress=v), NO_FUNCTION),
    "map_blocks out": (
        lambda p, v: p.map_blocks(np.sin, A, out=v),
        [None, 5, "x", [0.0] * 12, np.broadcast_to(0.0, 12)],
    ),
    "reduce_blocks function": (lambda p, v: p.reduce_blocks(v, A), [*NO_FUNCTION, None]),
    "reduce_blocks combine": (lambda p, v: p.reduce_blocks(np.sum, A, combine=v), [*NO_FUNCTION, None]),
    "reduce_blocks workers": (lambda p, v: p.reduce_blocks(np.sum, A, workers=v), [*NO_WHOLE, 0, -1]),
    "reduce_blocks resume": (lambda p, v: p.reduce_blocks(np.sum, A, resume=v), NO_FLAG),
    "reduce_blocks progress": (lambda p, v: p.reduce_blocks(np.sum, A, progress=v), NO_FUNCTION),
}

ALLOCATE: dict[str, tuple[Any, list[Any]]] = {
    "shape": (specs.ArraySpec, [*NO_WHOLE, -1, dict]),
    "dtype": (specs.ArraySpec, ["x", object(), 5, "\ud800", object]),
    "order": (specs.ArraySpec, [*NO_WORD, "A"]),
    "chunks": (specs.HdfArraySpec, [v for v in NO_WHOLE if v is not True] + [0, -1, dict, np.array([1.5, 2.0])]),
    "maxshape": (specs.HdfArraySpec, [1.5, "x", "", [1.5], ["x"], object(), dict, [1, 2], -1]),
    "axis": (specs.HdfArraySpec, [*NO_WHOLE, 7, dict]),
    "blocks": (specs.HdfArraySpec, [*[v for v in NO_WHOLE if v != [None]], 5, [0], [1, 2, 3], dict]),
    "compression": (specs.HdfArraySpec, [v for v in NO_WORD if v is not None]),
    "shuffle": (specs.HdfArraySpec, [v for v in NO_FLAG if v is not None]),
}


@pytest.fixture
def refused() -> Callable[..., None]:
    def look(call: Callable[[Any], Any], values: list[Any]) -> None:
        for value in values:
            with pytest.raises(errors.PyplantxError) as caught:
                call(value)
                pytest.fail(f"{value!r} was taken")
            assert caught.value.hint, f"{value!r}: {caught.value}"

    return look


Refused = Callable[[Callable[[Any], Any], list[Any]], None]


@pytest.mark.parametrize("what", PIPE)
def test_what_a_reactor_asks_its_pipe_for(what: str, refused: Refused) -> None:
    call, values = PIPE[what]
    refused(piped(call), values)


def test_the_form_of_what_is_received(refused: Refused) -> None:
    refused(received, ["", "x", 5, [], ["numpy"], object()])


def test_rows_and_columns_of_a_matrix(refused: Refused) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    by_rows, by_columns = sparse.eye(4, format="csr"), sparse.eye(4, format="csc")
    for cut, matrix in ((specs.rows, by_rows), (specs.columns, by_columns)):
        refused(lambda value: cut(value, 0, 1), [None, 5, "x", [], object(), A])  # noqa: B023
        refused(lambda value: cut(matrix, value, 3), NO_WHOLE)  # noqa: B023
        refused(lambda value: cut(matrix, 0, value), NO_WHOLE)  # noqa: B023


@pytest.mark.parametrize("spec", [specs.HdfArraySpec, specs.ZarrArraySpec])
def test_what_is_written_to_a_dataset(spec: Any, refused: Refused) -> None:
    def write(pipe: Any, value: Any) -> None:
        pipe.allocate_temp(spec, shape=(6, 4), dtype="f4")[:] = value

    refused(piped(write), ["x", object(), [1, 2], {"a": 1}, np.ones(5)])


@pytest.mark.parametrize("option", ALLOCATE)
def test_options_of_an_allocation(option: str, refused: Refused) -> None:
    spec, values = ALLOCATE[option]
    given = {"shape": (3, 4), "dtype": "f4"}
    refused(piped(lambda pipe, value: pipe.allocate_temp(spec, **(given | {option: value}))), values)


def test_the_ending_of_a_file(refused: Refused) -> None:
    refused(
        piped(lambda p, v: p.allocate_temp(Ingredient.Type.file, suffix=v)), [5, [], "/../x", "a\0b", object(), b".x"]
    )


PLANT = {
    "config": [],
    "durability": NO_WORD,
    "trust": NO_WORD,
    "arrays": NO_WORD,
    "verify": NO_WORD,
    "library_versions": NO_WORD,
    "track": NO_TEXTS,
    "library": NO_TEXTS,
    "lock_timeout": NO_SPAN,
    "claim_timeout": NO_SPAN,
    "memory": [*NO_SIZE, 5],
    "disk": NO_SIZE,
    "executor": [5, "x", "", [], object(), np.array([1, 2])],
    "index": [value for value in NO_PATH if value is not None],
    "network_index": NO_FLAG,
}


@pytest.mark.parametrize("option", PLANT)
def test_options_of_a_plant(option: str, refused: Refused, tmp_path: Path) -> None:
    refused(lambda value: Plant(tmp_path / "plant", **{option: value}), PLANT[option])


def test_the_directory_and_the_key_of_a_plant(refused: Refused, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    refused(lambda value: Plant(value), NO_PATH)
    refused(lambda value: Plant("plant", key=value, trust="signed"), [value for value in NO_PATH if value is not None])
    assert not list(tmp_path.iterdir())


def test_waiting_as_long_as_it_takes(tmp_path: Path) -> None:
    with Plant(tmp_path / "plant", lock_timeout=math.inf, claim_timeout=math.inf) as plant:
        assert plant.status() is not None


def test_decorators(refused: Refused) -> None:
    refused(ReactorFunc, [5, "x", "", [], object(), dict])
    refused(SubreactorFunc, [5, "x", "", [], object(), None])
    refused(lambda value: ReactorFunc(name=value)(lambda pipe: None), [5, [], ["x"], b"x", object(), 1.5])
    refused(lambda value: ReactorFunc(version=value)(lambda pipe: None), [[], object(), b"x", None])
    refused(lambda value: ReactorFunc(sends=value)(lambda pipe: None), NO_TEXTS)


def test_methods_of_a_plant(refused: Refused, open_plant: Open) -> None:
    event = Plant.EventType.reactor_started
    with open_plant() as plant:
        for name in (
            "produce",
            "fetch_ingredient",
            "find_ingredient",
            "is_ingredient_known",
            "pin",
            "unpin",
            "explain",
        ):
            refused(getattr(plant, name), NO_TEXT)
        for name in ("add_reactor", "run_reactor", "why", "accept", "inputs_of"):
            refused(getattr(plant, name), [None, 5, "x", "", 1.5, b"x", object(), print])
        refused(plant.mark_params_as_auxiliary, NO_TEXTS)
        refused(lambda value: plant.run_reactor(force=value), NO_FLAG)
        refused(lambda value: plant.get_execution_history(all_sessions=value), NO_FLAG)
        refused(plant.print_execution_history, [*NO_FUNCTION, None])
        refused(plant.check, NO_FLAG)
        refused(lambda value: plant.add_event_listener(value, print), [None, "x", "reactor_started", 1, [], object()])
        refused(lambda value: plant.add_event_listener(event, value), [*NO_FUNCTION, None])
        refused(lambda value: plant.gc(max_size=value), NO_SIZE)
        refused(lambda value: plant.gc(older_than=value), [value for value in NO_SPAN if value is not None])
        refused(lambda value: plant.gc(keep_versions=value), ["x", -1, 1.5, [], object()])
        refused(lambda value: plant.gc(dry_run=value), NO_FLAG)


def test_tools(refused: Refused, open_plant: Open, tmp_path: Path) -> None:
    with open_plant() as plant:
        refused(lambda value: utils.store_ingredients_to_dir(value, ["x"], tmp_path / "out"), [None, 5, "x", object()])
        refused(lambda value: utils.store_reactor_inputs_to_dir(value, "x", tmp_path / "out"), [None, 5, "x", object()])
        refused(lambda value: utils.store_ingredients_to_dir(plant, value, tmp_path / "out"), NO_TEXTS)
        refused(lambda value: utils.store_ingredients_to_dir(plant, [], value), NO_PATH)
    refused(utils.load_ingredients_from_dir, NO_PATH)
    refused(lambda value: utils.load_ingredients_from_dir(tmp_path / "none", value), NO_TEXTS[1:])
    refused(PipeworkMock, [5, "x", [1], object()])
    refused(lambda value: run_reactor_to_completion(lambda pipe: None, value), [None, 5, "x", {}, object()])
    refused(lambda value: run_reactor_to_completion(value, PipeworkMock()), [None, 5, "x", dict, object()])

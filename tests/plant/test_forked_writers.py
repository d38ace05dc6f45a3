"""Arrays that are filled by processes which the user's code has forked: right, or refused, never silently wrong."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyplantx import ReactorFunc, specs
from pyplantx.errors import BadRequest

FORK = multiprocessing.get_context("fork")
FILLED: list[Any] = []


def fill(row: int) -> None:
    FILLED[0][row] = row + 1


def filled_by_workers(spec: Any, **options: Any) -> Any:
    @ReactorFunc(name="filled")
    def reactor(pipe: Any) -> None:
        FILLED[:] = [pipe.allocate("x", spec, shape=(4, 10), dtype="f8", **options)]
        with FORK.Pool(2) as pool:
            pool.map(fill, range(4))
        pipe.send("x", FILLED.pop())

    return reactor


@pytest.mark.parametrize("options", [{}, {"chunks": (1, 10)}, {"chunks": (1, 10), "compression": "gzip"}])
def test_a_dataset_refuses(open_plant: Callable[..., Any], options: dict[str, Any]) -> None:
    with open_plant(filled_by_workers(specs.HdfArraySpec, **options)) as plant:
        with pytest.raises(BadRequest, match="from which this one was forked"):
            plant.produce("x")
        assert plant.check() == []


@pytest.mark.parametrize(("spec", "options"), [(specs.ArraySpec, {}), (specs.ZarrArraySpec, {"chunks": (1, 10)})])
def test_shared_memory_and_files_of_chunks_are_right(
    open_plant: Callable[..., Any], spec: Any, options: dict[str, Any]
) -> None:
    with open_plant(filled_by_workers(spec, **options)) as plant:
        assert np.array(plant.produce("x")[:])[:, 0].tolist() == [1, 2, 3, 4]
        assert plant.check() == []


def fill_with(value: int) -> None:
    FILLED[0][:2] = value


@pytest.mark.parametrize(("spec", "options"), [(specs.ArraySpec, {}), (specs.ZarrArraySpec, {"chunks": (1, 10)})])
def test_what_children_write_is_seen_by_those_who_receive_it(
    open_plant: Callable[..., Any], spec: Any, options: dict[str, Any]
) -> None:
    @ReactorFunc
    def filled(pipe: Any) -> None:
        FILLED[:] = [pipe.allocate("x", spec, shape=(4, 10), dtype="f8", **options)]
        child = FORK.Process(target=fill_with, args=(pipe.read_config("value"),))
        child.start()
        child.join()
        pipe.send("x", FILLED.pop())

    @ReactorFunc
    def summed(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        pipe.send("sum", float(x[...].sum()))

    for value in (1, 2):
        with open_plant(filled, summed, config={"value": value}) as plant:
            assert plant.produce("sum") == 20 * value

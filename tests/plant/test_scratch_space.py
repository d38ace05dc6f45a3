"""Scratch space goes when nobody has it any more, with the file it has open, and at the latest with its reactor."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import ReactorFunc, specs

HDF, PACKED = (specs.HdfArraySpec, {}), (specs.HdfArraySpec, {"compression": "gzip"})
NPY, ZARR = (specs.ArraySpec, {}), (specs.ZarrArraySpec, {})
KINDS = [pytest.param(kind, id=name) for kind, name in ((HDF, "hdf"), (PACKED, "packed"), (NPY, "npy"), (ZARR, "zarr"))]
COUNT = 40
NUMBERS = np.arange(100.0)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def staged(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder / "staging") for name in names if not name.endswith("lease")]


def plain(pipe: Any, array: Any) -> None:
    array[:] = NUMBERS


def loop(pipe: Any, array: Any) -> None:
    for block in pipe.blocks(NUMBERS, array, resume=True):
        array[block] = NUMBERS[block]


def mapped(pipe: Any, array: Any) -> None:
    pipe.map_blocks(lambda part: part + 1, NUMBERS, out=array)


@pytest.mark.parametrize("fill", [plain, loop, mapped])
@pytest.mark.parametrize("kind", KINDS)
def test_one_after_the_other(
    open_plant: Callable[..., Any], tmp_path: Path, kind: Any, fill: Callable[[Any, Any], None]
) -> None:
    if kind is ZARR:
        pytest.importorskip("zarr")
    seen: list[Any] = []

    @ReactorFunc(name="many")
    def many(pipe: Any) -> None:
        def make() -> None:
            array = pipe.allocate_temp(kind[0], shape=(100,), dtype="f8", **kind[1])
            fill(pipe, array)

        make()
        gc.collect()  # what reactors and imports before have left
        before = open_files()
        gc.disable()  # else it hangs on chance how many are open
        try:
            for _ in range(COUNT):
                make()
        finally:
            gc.enable()
        seen.append(open_files() - before)
        if fill is plain:
            seen.append(len(staged(tmp_path / "plant")))
        pipe.send("many", 1)

    with open_plant(many) as plant:
        plant.produce("many")
        assert seen[0] < COUNT // 2
        assert fill is not plain or seen[1] <= 2  # of the last one
        assert not staged(tmp_path / "plant")


@pytest.mark.parametrize("kind", KINDS)
def test_those_that_are_held_stay(open_plant: Callable[..., Any], kind: Any) -> None:
    if kind is ZARR:
        pytest.importorskip("zarr")

    @ReactorFunc(name="held")
    def held(pipe: Any) -> None:
        arrays = [pipe.allocate_temp(kind[0], shape=(4,), dtype="f8", **kind[1]) for _ in range(6)]
        for number, array in enumerate(arrays):
            array[:] = number
        del arrays[::2]
        pipe.allocate_temp(kind[0], shape=(4,), dtype="f8", **kind[1])
        pipe.send("held", [float(array[0]) for array in arrays])

    with open_plant(held) as plant:
        assert plant.produce("held") == [1.0, 3.0, 5.0]


def test_a_view_of_one_holds_it(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc(name="views")
    def views(pipe: Any) -> None:
        def part(number: int) -> Any:
            array = pipe.allocate_temp(specs.ArraySpec, shape=(4096,), dtype="f8")
            array[:] = number
            return array.reshape(64, 64)[:2].ravel()[3:5]

        parts = [part(number) for number in range(5)]
        pipe.allocate_temp(specs.ArraySpec, shape=(4,), dtype="f8")
        pipe.send("views", [float(each[0]) for each in parts])

    with open_plant(views) as plant:
        assert plant.produce("views") == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_one_that_a_loop_has_filled_can_be_sent_as_another(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc(name="sent")
    def sent(pipe: Any) -> None:
        array = pipe.allocate_temp(specs.ArraySpec, shape=(100,), dtype="f8")
        mapped(pipe, array)
        pipe.send("sent", array)

    with open_plant(sent) as plant:
        assert np.array_equal(plant.produce("sent"), NUMBERS + 1)


def test_threads_of_a_reactor_may_allocate(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc(name="threads")
    def threads(pipe: Any) -> None:
        def make(number: int) -> float:
            array = pipe.allocate_temp(specs.ArraySpec, shape=(10,), dtype="f8")
            array[:] = number
            return float(array.sum())

        with ThreadPoolExecutor(4) as pool:
            pipe.send("threads", sum(pool.map(make, range(200))))

    with open_plant(threads) as plant:
        assert plant.produce("threads") == 10 * sum(range(200))

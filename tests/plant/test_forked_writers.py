"""Arrays that are filled by processes which the user's code has forked: right, or refused, never silently wrong."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyplantx import ReactorFunc, specs
from pyplantx.errors import BadRequest
from pyplantx.specs import chunked

FORK = multiprocessing.get_context("fork")
FILLED: list[Any] = []


def fill(row: int) -> None:
    FILLED[0][row] = row + 1


def filled_by_workers(spec: Any, **options: Any) -> Any:
    FILLED.clear()  # what another reactor has left there would be taken for a memo of other code

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


def check_sums(open_plant: Callable[..., Any], filled: Any) -> None:
    """What is made of the array follows what children have written to it."""

    @ReactorFunc
    def summed(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        pipe.send("sum", float(x[...].sum()))

    for value in (1, 2):
        with open_plant(filled, summed, config={"value": value}) as plant:
            assert plant.produce("sum") == 20 * value


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

    check_sums(open_plant, filled)


def fill_when_asked(value: int, asked: Any) -> None:
    asked.wait()
    fill_with(value)


def test_what_a_child_writes_after_its_parent_is_seen_too(open_plant: Callable[..., Any]) -> None:
    """As with a pool of processes that is started first, before the parent writes where they will write again."""

    @ReactorFunc
    def filled(pipe: Any) -> None:
        FILLED[:] = [pipe.allocate("x", specs.ZarrArraySpec, shape=(4, 10), dtype="f8", chunks=(1, 10))]
        asked = FORK.Event()
        child = FORK.Process(target=fill_when_asked, args=(pipe.read_config("value"), asked))
        child.start()
        FILLED[0][...] = np.zeros((4, 10))
        before = FILLED[0].last_write
        asked.set()
        child.join()
        assert not FILLED[0].untouched and FILLED[0].last_write is not before
        pipe.send("x", FILLED.pop())

    check_sums(open_plant, filled)


def test_children_write_while_a_thread_of_their_parent_does(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc
    def filled(pipe: Any) -> None:
        FILLED[:] = [pipe.allocate("x", specs.ZarrArraySpec, shape=(4, 10), dtype="f8", chunks=(1, 10))]
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with FILLED[0]._lock, FILLED[0]._watcher.writing([3], np.ones(10)):
                held.set()
                over.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = FORK.Process(target=fill_with, args=(5,))
        child.start()
        child.join(20)
        child.kill()
        over.set()
        thread.join()
        assert child.exitcode == 0
        pipe.send("x", FILLED.pop())

    with open_plant(filled) as plant:
        assert plant.produce("x")[:, 0].tolist() == [5, 5, 0, 0]


@pytest.mark.parametrize(
    ("spec", "options"),
    [(specs.ArraySpec, {}), (specs.HdfArraySpec, {"compression": "gzip"}), (specs.ZarrArraySpec, {})],
    ids=["array", "hdf", "zarr"],
)
def test_a_child_that_fails_in_the_reactor_removes_nothing(
    open_plant: Callable[..., Any], spec: Any, options: dict[str, Any]
) -> None:
    ours = os.getpid()

    @ReactorFunc
    def filled(pipe: Any) -> None:
        x = pipe.allocate("x", spec, shape=(3,), dtype="f8", **options)
        x[:] = 5
        child = os.fork()
        if not child:
            raise ValueError
        os.waitpid(child, 0)
        pipe.send("x", x)

    with open_plant(filled) as plant:
        try:
            assert plant.produce("x")[:].tolist() == [5, 5, 5]
        finally:
            if os.getpid() != ours:
                os._exit(0)


CHUNKED = [{}, {"compression": "gzip"}, {"compression": "lzf"}, {"maxshape": (None, None)}, {"dtype": [("a", "f8")]}]


def end_as_usual(may_end: Any) -> None:
    may_end.wait()
    with contextlib.suppress(BadRequest):
        FILLED[0][[1, 2]]
    chunked.close_all()  # what is registered to be done when the interpreter ends


@pytest.mark.parametrize("options", CHUNKED, ids=str)
def test_a_child_that_ends_while_its_parent_fills_a_dataset_alters_nothing(
    open_plant: Callable[..., Any], options: dict[str, Any]
) -> None:
    values = np.random.default_rng(1).random((400, 50)).view(options.get("dtype", "f8"))

    @ReactorFunc
    def filled(pipe: Any) -> None:
        dataset = pipe.allocate(
            "x", specs.HdfArraySpec, **{"shape": values.shape, "dtype": "f8", "chunks": (10, 50), **options}
        )
        FILLED[:] = [dataset]
        dataset[:155] = values[:155]  # one chunk in part
        may_end = FORK.Event()
        child = FORK.Process(target=end_as_usual, args=(may_end,))
        child.start()
        dataset[155:] = values[155:]
        assert (dataset[[1, 2]] == values[[1, 2]]).all()
        may_end.set()
        child.join(30)
        assert child.exitcode == 0
        pipe.send("x", FILLED.pop())

    with open_plant(filled) as plant:
        assert plant.produce("x")[...].tobytes() == values.tobytes()


def read_each(columns: range, may_read: Any) -> None:
    may_read.wait()
    for column in columns:
        with pytest.raises(BadRequest, match="is being filled by the process from which this one was forked"):
            FILLED[0][0, column]


def test_a_child_reads_nothing_of_what_its_parent_fills_across_its_chunks(open_plant: Callable[..., Any]) -> None:
    """The parent's chunks wait in memory or in a file of its own, at places that it gives to others meanwhile."""

    @ReactorFunc
    def filled(pipe: Any) -> None:
        x = pipe.allocate("x", specs.HdfArraySpec, shape=(40, 40), dtype="f8", chunks=(40, 4), compression="gzip")
        x.backend._array.limit = 2 * 40 * 4 * 8
        FILLED[:] = [x]
        for row in range(10):
            x[row] = np.arange(40)
        may_read = FORK.Event()
        child = FORK.Process(target=read_each, args=(range(0, 40, 4), may_read))
        child.start()
        x[:, :20] = -1.0  # their places are free
        for row in range(10, 20):
            x[row, :20] = row
        may_read.set()
        child.join(30)
        assert child.exitcode == 0
        pipe.send("x", FILLED.pop())

    with open_plant(filled) as plant:
        assert plant.produce("x")[0].tolist() == [-1] * 20 + list(range(20, 40))


def read_some(dataset: Any, row: int) -> None:
    assert dataset[row, 0] == row and dataset[[1, 2]][1, 0] == 2


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"compression": "gzip", "maxshape": (4, None)}], ids=str
)
def test_children_read_while_a_thread_of_their_parent_does(
    open_plant: Callable[..., Any], options: dict[str, Any]
) -> None:
    """The lock that the thread holds at that moment stays taken for ever in the child."""

    @ReactorFunc
    def made(pipe: Any) -> None:
        dataset = pipe.allocate("x", specs.HdfArraySpec, shape=(4, 10), dtype="f8", chunks=(2, 10), **options)
        dataset[...] = np.arange(4.0)[:, None]
        pipe.send("x", dataset)

    with open_plant(made) as plant:
        dataset = plant.produce("x")
        assert dataset[3, 0] == 3
        locks = [dataset.backend._lock, *([dataset.backend._array._lock] if options else [])]
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with contextlib.ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(lock)
                held.set()
                over.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = FORK.Process(target=read_some, args=(dataset, 2))
        child.start()
        over.set()
        thread.join()
        child.join(20)
        child.kill()
        assert child.exitcode == 0

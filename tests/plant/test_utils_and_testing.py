"""Export and load, and the helpers for testing one reactor."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Ingredient, ReactorFunc, errors, specs, utils
from pyplantx.testing import PipeworkMock, run_reactor_to_completion


def make_reactors() -> tuple[Any, Any]:
    @ReactorFunc
    def produce(pipe: Any) -> None:
        pipe.send("object", {"a": "a", "two": 2})
        pipe.send("array", np.arange(1000, dtype=np.uint64))
        pipe.send("other", 1)

    @ReactorFunc
    def consume(pipe: Any, config: Any) -> Any:
        yield pipe.receive("object")
        yield pipe.receive("array")

    return produce, consume


def test_inputs_of_a_reactor_travel(open_plant: Any, tmp_path: Path) -> None:
    with open_plant(*make_reactors()) as plant:
        plant.run_reactor("consume")
        utils.store_reactor_inputs_to_dir(plant, "consume", tmp_path / "export")
        utils.store_ingredients_to_dir(plant, ["other"], tmp_path / "more")
        assert plant.log.take() == ["consume", "produce"]
    loaded = utils.load_ingredients_from_dir(tmp_path / "export", logger=logging.getLogger())
    assert sorted(loaded) == ["array", "object"]
    assert loaded["object"] == {"a": "a", "two": 2}
    np.testing.assert_array_equal(loaded["array"], np.arange(1000, dtype=np.uint64))
    assert utils.load_ingredients_from_dir(tmp_path / "more") == {"other": 1}
    with pytest.raises(errors.NoProducer, match="there are: 'array', 'object'$"):
        utils.load_ingredients_from_dir(tmp_path / "export", ["nothing"])
    with pytest.raises(errors.NoProducer, match="did you mean 'object'"):
        utils.load_ingredients_from_dir(tmp_path / "export", "objekt")


@pytest.mark.parametrize("made", [False, True])
def test_loading_makes_no_warehouse(tmp_path: Path, made: bool) -> None:
    directory = tmp_path / "elsewhere"
    if made:
        directory.mkdir()
    for names in (None, ["object"], "object", []):
        with pytest.raises(errors.WarehouseError, match="there is no store in .*elsewhere"):
            utils.load_ingredients_from_dir(directory, names)
    assert directory.exists() == made and (not made or not list(directory.iterdir()))


def test_loading_changes_nothing(open_plant: Any, tmp_path: Path) -> None:
    export = tmp_path / "export"
    with open_plant(*make_reactors()) as plant:
        plant.run_reactor("consume")
        utils.store_ingredients_to_dir(plant, "object", export)
        with pytest.raises(errors.NoProducer):
            utils.store_ingredients_to_dir(plant, ["object", "nothing"], tmp_path / "unfinished")
    assert not (tmp_path / "unfinished").exists()
    before = {path: path.stat().st_mtime_ns for path in export.rglob("*") if path.name != "lock.mdb"}
    for names in (None, ["object"], "object"):
        assert utils.load_ingredients_from_dir(export, names) == {"object": {"a": "a", "two": 2}}
    assert before == {path: path.stat().st_mtime_ns for path in export.rglob("*") if path.name != "lock.mdb"}


def test_a_reactor_alone() -> None:
    @ReactorFunc
    def scale(pipe: Any, config: Any) -> Any:
        data, offset = yield pipe.receive("data", "offset")
        out = pipe.allocate("scaled", specs.HdfArraySpec, shape=(3,), dtype=np.float64)
        out[:] = np.asarray(data) * config.factor
        pipe.send("scaled", out)
        pipe.send("offset-out", offset + pipe.read_config("factor"))
        path = pipe.allocate("file", Ingredient.Type.file)
        Path(path).write_text("done")
        pipe.send("file", path, Ingredient.Type.file)

    class Config:
        factor = 2

    pipe = PipeworkMock({"data": [1, 2, 3], "offset": 1}, config=Config())
    run_reactor_to_completion(scale, pipe)
    assert pipe.received == ["data", "offset"]
    assert pipe.sent["offset-out"] == 3
    assert {"scaled", "file"} <= set(pipe.sent)
    with pytest.raises(errors.NoProducer, match="'data'"):
        run_reactor_to_completion(scale, PipeworkMock(config=Config()))


def test_a_plain_function_will_do() -> None:
    def bad(pipe: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_reactor_to_completion(bad, PipeworkMock())


def test_files_that_were_sent_to_a_mock_are_there_as_long_as_it_is():
    @ReactorFunc
    def files(pipe):
        path = pipe.allocate("note", Ingredient.Type.file, suffix=".txt")
        with open(path, "w") as file:
            file.write("hello")
        pipe.send("note", path)

    pipe = run_reactor_to_completion(files, PipeworkMock())
    path = pipe.sent["note"]
    with open(path) as file:
        assert file.read() == "hello"
    del pipe
    assert not os.path.exists(path)


def test_what_a_mock_does_not_have_is_missed_at_the_yield() -> None:
    closed = []

    @ReactorFunc
    def asks(pipe: Any) -> Any:
        try:
            yield pipe.receive("data", "ofset")
        finally:
            closed.append(True)

    @ReactorFunc
    def does_without(pipe: Any) -> Any:
        try:
            offset = yield pipe.receive("ofset")
        except errors.NoProducer:
            offset = 0
        pipe.send("offset", offset)

    pipe = PipeworkMock({"data": 1, "offset": 2})
    with pytest.raises(errors.NoProducer, match="'ofset', which the PipeworkMock was not given\n  hint: did you mean"):
        run_reactor_to_completion(asks, pipe)
    assert closed == [True] and pipe.received == ["data"]
    assert run_reactor_to_completion(does_without, pipe).sent == {"offset": 0}


def test_a_reactor_alone_can_use_blocks() -> None:
    @ReactorFunc
    def double(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        assert pipe.checkpoint("state", default=5) == 5
        y = pipe.allocate("y", specs.HdfArraySpec, shape=x.shape, dtype=x.dtype)
        pipe.map_blocks(lambda block: 2 * block, x, out=y, memory="1 MB")
        pipe.checkpoint("state", 6)
        pipe.send("sum", float(pipe.reduce_blocks(np.sum, x)))
        pipe.send("y", y)

    sent = run_reactor_to_completion(double, PipeworkMock({"x": np.arange(1000.0)})).sent
    assert sent["sum"] == 499500 and np.array_equal(sent["y"], 2 * np.arange(1000.0))

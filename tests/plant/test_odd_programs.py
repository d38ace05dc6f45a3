"""Programs that are not as one expects them, and that people write all the same."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import Ingredient, Plant, ReactorFunc, SubreactorFunc, errors
from pyplantx.core.trace import observations_of
from pyplantx.session import world
from pyplantx.session.trees import Trees


def test_a_tracked_file_is_looked_at_when_it_is_asked_for(open_plant: Any, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"

    @ReactorFunc
    def first(pipe: Any, config: Any) -> None:
        pipe.send("first", Path(pipe.track_file(config.path)).read_text())

    @ReactorFunc
    def rewrite(pipe: Any, config: Any) -> Any:
        value = yield pipe.receive("first")
        Path(config.path).write_text(value + config.add)
        pipe.send("rewritten", config.add)

    @ReactorFunc
    def last(pipe: Any, config: Any) -> Any:
        yield pipe.receive("rewritten")
        pipe.send("last", Path(pipe.track_file(config.path)).read_text())

    for add, expected in (("+", "A+"), ("", "A")):
        table.write_text("A")
        with open_plant(first, rewrite, last, config=SimpleNamespace(path=str(table), add=add)) as plant:
            assert plant.produce("last") == expected


def test_a_quick_change_of_equal_size_is_seen(open_plant: Any, tmp_path: Path) -> None:
    path = tmp_path / "f"

    @ReactorFunc
    def read(pipe: Any) -> None:
        pipe.send("text", Path(pipe.track_file(path)).read_text())

    with open_plant(read) as plant:
        for i in range(50):
            path.write_text(f"{i:04}")
            assert plant.produce("text") == f"{i:04}"


def test_a_tracked_folder(open_plant: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_text("1")

    @ReactorFunc
    def names(pipe: Any) -> None:
        pipe.send("names", sorted(os.listdir(pipe.track_file(folder))))

    with open_plant(names) as plant:
        assert plant.produce("names") == ["a", "deep"]
        assert plant.produce("names") == ["a", "deep"]
        assert plant.log.take() == ["names"]
        (folder / "b").write_text("1")
        assert plant.produce("names") == ["a", "b", "deep"]
        (folder / "deep" / "c").write_text("1")
        plant.produce("names")
        assert plant.log.take() == ["names", "names"]


def test_folders_that_links_lead_to_are_tracked(open_plant: Any, tmp_path: Path) -> None:
    folder, real = tmp_path / "data", tmp_path / "real"
    folder.mkdir()
    (real / "deep").mkdir(parents=True)
    (real / "x").write_text("1")
    (folder / "train").symlink_to(real)
    (folder / "again").symlink_to(real)
    (folder / "self").symlink_to(folder)
    (real / "deep" / "back").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "none")

    @ReactorFunc
    def read(pipe: Any) -> None:
        pipe.send("text", Path(pipe.track_file(folder), "train", "x").read_text())

    with open_plant(read) as plant:
        for text in ("1", "2"):
            (real / "x").write_text(text)
            assert plant.produce("text") == text
            assert plant.produce("text") == text
        assert plant.log.take() == ["read", "read"]
        (real / "deep" / "new").write_text("")
        plant.produce("text")
        assert plant.log.take() == ["read"]
        (real / "deep" / "back").unlink()
        (real / "deep" / "back").symlink_to(real)
        plant.produce("text")
        assert plant.log.take() == ["read"]


def test_a_file_that_is_to_be_read_each_time_is_read_by_replays_too(
    open_plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose times can't be relied on; simulated."""
    monkeypatch.setattr(world, "_stat_key", lambda stat: [stat.st_size])
    monkeypatch.setattr(world, "_is_settled", lambda stat: True)
    path = tmp_path / "f"

    def read(pipe: Any) -> None:
        pipe.send("text", Path(pipe.track_file(path, verify=True)).read_text())

    def read_once(pipe: Any) -> None:
        pipe.send("noted", Path(pipe.track_file(path)).read_text())

    with open_plant(ReactorFunc(read), ReactorFunc(read_once)) as plant:
        for text in ("1", "2"):
            path.write_text(text)
            assert plant.produce("noted") == "1"
            assert plant.produce("text") == text
        assert str(plant.why("read")) == f"read: ran (file {path} changed)"


class TestAWorkingFolderThatWasRemoved:
    @pytest.fixture(autouse=True)
    def nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # and back, at the end
        (tmp_path / "gone").mkdir()
        os.chdir("gone")
        os.rmdir(tmp_path / "gone")

    def test_is_no_reason_not_to_produce(self, open_plant: Any) -> None:
        @ReactorFunc
        def make(pipe: Any) -> None:
            pipe.send("there", os.path.exists(pipe.track_file("some.csv")))

        @ReactorFunc
        def fail(pipe: Any) -> None:
            exec(compile("raise ValueError('as it came')", "<relative>", "exec"))
            pipe.send("never", 1)

        with open_plant(make, fail) as plant:
            assert plant.produce("there") is False
            plant.produce("there")
            assert plant.log.take() == ["make"]
            with pytest.raises(ValueError, match="as it came"):
                plant.produce("never")

    def test_a_relative_folder_leads_nowhere(self) -> None:
        with pytest.raises(errors.WarehouseError, match="was removed") as caught:
            Plant("plant")
        assert "whole path" in caught.value.hint


def test_another_working_directory_inside_a_reactor(
    open_plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f.txt").write_text("one")
    monkeypatch.chdir(tmp_path)

    @ReactorFunc
    def read(pipe: Any) -> None:
        os.chdir("in")
        pipe.send("text", Path(pipe.track_file(b"f.txt")).read_text())
        os.chdir("..")

    with open_plant(read) as plant:
        assert plant.produce("text") == "one"
        (tmp_path / "in" / "f.txt").write_text("two")
        assert plant.produce("text") == "two"
        assert plant.produce("text") == "two"
        assert plant.log.take() == ["read", "read"]


def timed(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def bare(function: Any) -> Any:
    def wrapper(pipe: Any) -> Any:
        return function(pipe)

    return wrapper


def test_decorated_functions_and_callable_objects(open_plant: Any) -> None:
    def source(pipe: Any, value: int) -> None:
        pipe.send("source", value)

    @timed
    def wrapped(pipe: Any) -> Any:
        pipe.send("wrapped", (yield pipe.receive("source")))

    @bare
    def hidden(pipe: Any) -> Any:
        pipe.send("hidden", (yield pipe.receive("source")))

    @timed
    async def waits(pipe: Any) -> None:
        pipe.send("waits", await pipe.receive("source"))

    reactors = [
        ReactorFunc(name="source")(functools.partial(source, value=3)),
        ReactorFunc(wrapped),
        ReactorFunc(name="hidden")(hidden),
        ReactorFunc(waits),
    ]
    with open_plant(*reactors) as plant:
        assert plant.produce("wrapped", "hidden", "waits") == (3, 3, 3)
    with pytest.raises(errors.BadRequest, match="decorated already"):
        ReactorFunc(reactors[0])


def _inject(function: Any) -> Any:
    @functools.wraps(function)
    def with_value(pipe: Any) -> Any:
        return function(pipe, 7)

    return with_value


def _choose(function: Any) -> Any:
    @functools.wraps(function)
    def with_config(pipe: Any, config: Any) -> Any:
        return function(pipe, config["k"])

    return with_config


def _hand_on(function: Any) -> Any:
    @functools.wraps(function)
    def with_all(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return with_all


@pytest.mark.parametrize(
    ("decorators", "expected"),
    [
        ((), {"k": 3}),
        ((_inject,), 7),
        ((_choose,), 3),
        ((_hand_on,), {"k": 3}),
        ((_inject, _hand_on), 7),
        ((_hand_on, _choose), 3),
    ],
)
def test_a_decorator_may_take_or_give_the_config(open_plant: Any, decorators: Any, expected: Any) -> None:
    def main(pipe: Any, value: Any) -> None:
        pipe.send("out", value if type(value) is int else {"k": value["k"]})

    decorated: Any = main
    for decorator in decorators:
        decorated = decorator(decorated)
    assert ReactorFunc(functools.lru_cache(decorated)).takes_config == (_inject not in decorators)
    with open_plant(ReactorFunc(decorated), config={"k": 3}) as plant:
        assert plant.produce("out") == expected


def test_after_a_clash_the_plant_says_the_same_again(open_plant: Any) -> None:
    def make(n: int) -> Any:
        @ReactorFunc
        def made(pipe: Any) -> None:
            pipe.send(f"made-{n}", n)

        return made

    make(1), make(2)

    @ReactorFunc
    def other(pipe: Any) -> None:
        pipe.send("other", 1)

    with open_plant() as plant:
        for _ in range(2):
            with pytest.raises(errors.ReactorClash):
                plant.produce("other")


def test_a_failed_guess_is_named_and_shown(open_plant: Any) -> None:
    @ReactorFunc
    def table(pipe: Any) -> None:
        key = "-".join(["a", "b"])
        row: dict[str, int] = {}
        pipe.send(key, row["missing column"])

    @ReactorFunc
    def use(pipe: Any) -> Any:
        pipe.send("used", (yield pipe.receive("a-b")))

    with open_plant(table, use) as plant:
        with pytest.raises(errors.NoProducer, match="failed when they were tried: table") as caught:
            plant.produce("used")
        assert isinstance(caught.value.__cause__, KeyError)


def test_a_pipe_serves_one_run(open_plant: Any) -> None:
    kept: list[Any] = []

    @ReactorFunc
    def keeps(pipe: Any) -> None:
        kept.append(pipe)
        pipe.send("a", 1)

    with open_plant(keeps) as plant:
        plant.run_reactor(keeps)
        for call in (lambda pipe: pipe.send("b", 2), lambda pipe: pipe.allocate("c", Ingredient.Type.file)):
            with pytest.raises(errors.BadRequest, match="has ended"):
                call(kept[0])


def test_a_reactor_cant_close_its_plant(open_plant: Any) -> None:
    @ReactorFunc
    def closes(pipe: Any) -> None:
        plant.close()

    with open_plant(closes) as plant, pytest.raises(errors.BadRequest, match="can't close"):
        plant.run_reactor(closes)


def test_names_are_texts(open_plant: Any) -> None:
    with open_plant() as plant:
        for method in (plant.produce, plant.fetch_ingredient, plant.is_ingredient_known, plant.explain):
            with pytest.raises(errors.BadRequest, match="names of ingredients"):
                method(3)


def test_an_interrupted_reactor_is_in_the_history(open_plant: Any) -> None:
    @ReactorFunc
    def stopped(pipe: Any) -> Any:
        yield
        raise KeyboardInterrupt

    @ReactorFunc
    def after(pipe: Any) -> None:
        pipe.send("after", 1)

    with open_plant(stopped, after) as plant:
        with pytest.raises(KeyboardInterrupt):
            plant.run_reactor(stopped)
        assert plant.why(stopped).action == "interrupted"
        assert [entry["action"] for entry in plant.get_execution_history()] == ["interrupted"]
        assert plant.produce("after") == 1


def test_a_forgotten_yield_from_is_told(open_plant: Any) -> None:
    @SubreactorFunc
    def part(pipe: Any) -> int:
        return 1

    @ReactorFunc
    def forgets(pipe: Any) -> None:
        part(pipe)

    with open_plant(forgets) as plant, pytest.raises(errors.BadRequest, match="did not wait for it"):
        plant.run_reactor(forgets)


def test_two_senders_in_two_demands(open_plant: Any) -> None:
    @ReactorFunc
    def one(pipe: Any) -> None:
        pipe.send("same", 1)

    @ReactorFunc
    def two(pipe: Any) -> None:
        pipe.send("same", 1)

    with open_plant(one, two) as plant:
        plant.run_reactor(one)
        plant.run_reactor(two)
        assert "two reactors send" in str(plant.status())


def test_state_stays_state_for_the_next_plant_of_the_process(open_plant: Any) -> None:
    namespace: dict[str, Any] = {"ReactorFunc": ReactorFunc, "__name__": "counting"}
    exec(
        "import threading\nmemo = {}\nlock = threading.Lock()\n@ReactorFunc\ndef counts(pipe):\n"
        "    with lock:\n        memo[len(memo)] = 1\n    pipe.send('n', 1)",
        namespace,
    )
    ran = []
    for _ in range(3):
        with open_plant(namespace["counts"]) as plant:
            plant.produce("n")
            ran += plant.log.take()
            told = plant.explain("n")
    assert ran == ["counts"]
    assert "counting.memo" in str(told.state)
    assert "lock" in str(told.opaque)


_QUESTIONS: dict[str, Any] = {
    "status": lambda plant, reactor: plant.status(),
    "why": lambda plant, reactor: plant.why(reactor),
    "explain": lambda plant, reactor: plant.explain("k"),
    "fetch_ingredient": lambda plant, reactor: plant.fetch_ingredient("k"),
    "is_ingredient_known": lambda plant, reactor: plant.is_ingredient_known("k"),
    "inputs_of": lambda plant, reactor: plant.inputs_of(reactor),
    "accept": lambda plant, reactor: plant.accept(reactor),
    "add_reactor": lambda plant, reactor: plant.add_reactor(reactor),
}


@pytest.mark.parametrize("question", _QUESTIONS)
def test_an_edit_after_a_question_is_an_edit(question: str, open_plant: Any) -> None:
    namespace: dict[str, Any] = {"ReactorFunc": ReactorFunc, "__name__": "cells"}
    exec("K = 2\n@ReactorFunc\ndef reactor(pipe): pipe.send('k', K)", namespace)
    with open_plant(namespace["reactor"]) as plant:
        assert plant.produce("k") == 2
        _QUESTIONS[question](plant, namespace["reactor"])
        namespace["K"] = 3
        assert plant.produce("k") == 3
        assert plant.why("reactor").state == ()


def test_a_reactor_cant_register_others(open_plant: Any) -> None:
    @ReactorFunc
    def registers(pipe: Any) -> None:
        plant.add_reactor(registers)

    with open_plant(registers) as plant, pytest.raises(errors.BadRequest, match="while it runs"):
        plant.run_reactor(registers)


def test_what_is_not_seen_is_named_where_it_could_matter(open_plant: Any) -> None:
    namespace: dict[str, Any] = {"ReactorFunc": ReactorFunc, "__name__": "blind"}
    exec(
        "import logging, threading\nlock = threading.Lock()\nlog = logging.getLogger('x')\nG = (x for x in ())\n"
        "@ReactorFunc\ndef sums(pipe): pipe.send('n', sum(G))\n"
        "@ReactorFunc\ndef logs(pipe):\n    with lock: log.info('x')\n    pipe.send('m', 1)",
        namespace,
    )
    with open_plant(namespace["sums"], namespace["logs"]) as plant:
        plant.produce("n")
        plant.produce("m")
        blind, normal = str(plant.explain("n")), str(plant.explain("m"))
    assert blind == "sums: ran (never run before)\n    not seen: constant blind.G: a builtins.generator"
    assert normal == "logs: ran (never run before)"


def test_no_read_of_a_thread_is_lost_while_its_reactor_waits(open_plant: Any) -> None:
    """Observations come from one thread and are taken by another, many times."""
    count = 20_000

    @ReactorFunc
    def tick(pipe: Any) -> None:
        pipe.send("tick", 1)

    @ReactorFunc
    def busy(pipe: Any, config: Any) -> Any:
        reader = threading.Thread(target=lambda: [config[f"k{i}"] for i in range(count)])
        reader.start()
        while reader.is_alive():
            yield pipe.receive("tick")
        pipe.send("done", 1)

    traces: list[Any] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with open_plant(tick, busy, config={f"k{i}": i for i in range(count)}) as plant:
            grow = Trees.grow
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Trees, "grow", lambda trees, record: traces.append(record) or grow(trees, record))
                plant.produce("done")
    finally:
        sys.setswitchinterval(before)
    steps = next(record.steps for record in traces if "busy" in record.reactor)
    read = {key for kind, key, _ in observations_of(steps) if kind == "config"}
    assert read >= {f"value k{i}" for i in range(count)}


SHAPES = """
from eco_units import UNIT
class Square:
    def __init__(self, side): self.side = side
    def area(self): return self.side**2 * UNIT
    @classmethod
    def small(cls): return cls(1)
def double(side): return Square(side * 2)
class Unused:
    def area(self): return 0
"""


def _make(options: Any, **more: Any) -> Any:
    """What ``hydra.utils.instantiate`` does."""
    options = {**options, **more}
    path, _, name = options.pop("_target_").rpartition(".")
    try:
        holder = importlib.import_module(path)
    except ImportError:
        module, _, holder_name = path.rpartition(".")
        holder = getattr(importlib.import_module(module), holder_name)
    return getattr(holder, name)(**options)


_HYDRA = "hydra._internal.instantiate._instantiate2"
_instantiate = types.FunctionType(_make.__code__, {**globals(), "__name__": _HYDRA})


@pytest.mark.parametrize("target", ["eco_shapes.Square", "eco_shapes.double", "eco_shapes.Square.small"])
@pytest.mark.parametrize("kind", ["namespace", "dict", "whole dict", "omegaconf"])
def test_code_that_a_config_names_for_a_library_counts(
    open_plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, target: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    options = {"_target_": target, **({} if "small" in target else {"side": 3})}
    config: Any = SimpleNamespace(shape=options if kind == "dict" else SimpleNamespace(**options))
    if kind == "whole dict":
        config = {"shape": options}
    elif kind == "omegaconf":
        config = pytest.importorskip("omegaconf").OmegaConf.create({"shape": options})

    @ReactorFunc
    def measure(pipe: Any, config: Any) -> None:
        shape = config["shape"] if kind == "whole dict" else config.shape
        pipe.send("area", _instantiate(vars(shape) if kind == "namespace" else shape).area())

    areas = []
    for shapes, unit in (("", 1), ("", 2), ("+ 1", 2), ("return 0", 2)):
        source = SHAPES.replace("* UNIT", f"* UNIT {shapes}") if "+" in shapes else SHAPES
        source = source.replace("return 0", "return 7") if shapes == "return 0" else source
        (tmp_path / "eco_shapes.py").write_text(source)
        (tmp_path / "eco_units.py").write_text(f"UNIT = {unit}\n")
        for name in ("eco_shapes", "eco_units"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        with open_plant(measure, config=config) as plant:
            areas.append(plant.produce("area"))
            ran = plant.log.take()
            plant.produce("area")
            assert plant.log.take() == []
    first = areas[0]
    assert areas == [first, 2 * first, 2 * first + 1, 2 * first]
    assert ran == []  # that version had run already


def _compiled(function: Any) -> Any:
    """What numba does with a function that it compiles: it asks for its module, by a text that no code names."""
    importlib.import_module("_".join(["odd", "kernels"]))
    return function


_compile = types.FunctionType(_compiled.__code__, {**globals(), "__name__": "numba.core.environment"})


def test_the_module_of_a_function_that_numba_compiles_does_not_count(
    open_plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    ran = []
    for inner, other in ((1, 1), (1, 2), (3, 2)):
        (tmp_path / "odd_kernels.py").write_text(f"def inner(): return {inner}\ndef other(): return {other}\n")
        sys.modules.pop("odd_kernels", None)
        importlib.invalidate_caches()
        inner_function = importlib.import_module("odd_kernels").inner

        @ReactorFunc(name="total")
        def total(pipe: Any) -> None:
            pipe.send("total", _compile(inner_function)())  # noqa: B023

        with open_plant(total) as plant:
            assert plant.produce("total") == inner
            ran.append(plant.log.take())
    assert ran == [["total"], [], ["total"]]


def test_texts_that_name_no_code_of_the_project_are_texts(open_plant: Any) -> None:
    @ReactorFunc
    def read(pipe: Any, config: Any) -> None:
        pipe.send("read", [option["_target_"] for option in config.options])

    targets = [
        "collections.OrderedDict",
        "nowhere.at.all",
        "x",
        "",
        "a b.c",
        "pathlib",
        ".a",
        "sys.path.append",
        "test",
    ]
    with open_plant(read, config=SimpleNamespace(options=[{"_target_": target} for target in targets])) as plant:
        assert plant.produce("read") == targets
        assert plant.produce("read") == targets
        assert plant.log.take() == ["read"]

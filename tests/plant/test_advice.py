"""What a person is told who has made a common mistake."""

from __future__ import annotations

import errno
import logging
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, SubreactorFunc, errors, specs
from pyplantx.session.advice import Advice
from pyplantx.testing import forget_reactors

Open = Callable[..., Any]


OF_A_SCRIPT = """
import sys
import warnings
from pyplantx import Plant, ReactorFunc

class Model:
    def __init__(self, activation):
        self.activation = activation

    def __getstate__(self):
        assert warnings.filters is FILTERS  # they are the whole process's: other threads have their own to set
        return vars(self)

FILTERS = warnings.filters

@ReactorFunc
def make(pipe):
    pipe.send("model", Model(lambda x: x + 1))

with Plant(sys.argv[1]) as plant:
    print(plant.produce("model").activation(7))
"""


class TestAForgottenYield:
    def test_is_named_beside_the_error_that_it_leads_to(self, open_plant: Open) -> None:
        @ReactorFunc
        def make(pipe: Any) -> None:
            pipe.send("x", 1)
            pipe.send("y", 2)

        @ReactorFunc
        def use(pipe: Any) -> Any:
            x = pipe.receive("x")
            y = yield pipe.receive("y")
            pipe.send("sum", x + y)

        with open_plant(make, use) as plant, pytest.raises(TypeError) as caught:
            plant.produce("sum")
        notes = "\n".join(caught.value.__notes__)
        assert "asked for 'x' and never yielded the request" in notes and "test_advice.py:" in notes
        assert "x = yield pipe.receive('x')" in notes and "'y'" not in notes

    def test_an_async_reactor_awaits(self, open_plant: Open) -> None:
        @ReactorFunc
        async def use(pipe: Any) -> None:
            pipe.receive("x")

        with open_plant(use) as plant, pytest.raises(errors.BadRequest, match=r"x = await pipe\.receive\('x'\)"):
            plant.run_reactor(use)

    def test_no_note_where_nothing_was_forgotten(self, open_plant: Open) -> None:
        @ReactorFunc
        def use(pipe: Any) -> None:
            raise ValueError("mine")

        with open_plant(use) as plant, pytest.raises(ValueError, match="mine") as caught:
            plant.run_reactor(use)
        assert not any("yielded" in note for note in caught.value.__notes__)

    def test_a_request_says_what_it_is(self, open_plant: Open) -> None:
        shown: list[str] = []

        @ReactorFunc
        def use(pipe: Any) -> Any:
            request = pipe.receive("x", "y")
            shown.append(repr(request))
            pipe.send("z", sum((yield request)))

        @ReactorFunc
        def make(pipe: Any) -> None:
            pipe.send("x", 1)
            pipe.send("y", 2)

        with open_plant(make, use) as plant:
            assert plant.produce("z") == 3
        assert "request for 'x', 'y'" in shown[0] and "yield" in shown[0]


class TestNobodySends:
    def test_an_error_that_is_caught_and_read_later(self, open_plant: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was meant is looked for among all names, so only for those who want to know."""
        kept: list[errors.NoProducer] = []
        monkeypatch.setattr(pytest, "kept", kept, raising=False)  # where no fingerprint looks what is in it
        asked: list[str] = []
        near_misses = Advice.near_misses
        monkeypatch.setattr(Advice, "near_misses", lambda advice, name: asked.append(name) or near_misses(advice, name))

        @ReactorFunc
        def use(pipe: Any) -> Any:
            for name in ("tran", "tst"):
                try:
                    yield pipe.receive(name)
                except errors.NoProducer as error:
                    pytest.kept.append(error)  # type: ignore[attr-defined]
            pipe.send("train", 1)

        with open_plant(use) as plant:
            plant.produce("train")
            assert asked == []
            assert kept[0].hint == "did you mean 'train'?"
        assert asked == ["tran"]
        assert "its name right?" in str(kept[1])  # the store is closed, and names nothing any more

    def demand(self, plant: Any, name: str) -> str:
        with pytest.raises(errors.NoProducer) as caught:
            plant.produce(name)
        return caught.value.hint

    def test_a_reactor_that_returns_it(self, open_plant: Open) -> None:
        @ReactorFunc
        def answer(pipe: Any) -> int:
            return 5

        with open_plant(answer) as plant:
            assert "what it returns is not kept: pipe.send('answer', value)" in self.demand(plant, "answer")

    def test_a_reactor_that_would_send_it(self, open_plant: Open) -> None:
        @ReactorFunc
        def sometimes(pipe: Any) -> None:
            if pipe.read_config("on"):
                pipe.send("x", 1)

        with open_plant(sometimes, config={"on": False}) as plant:
            assert self.demand(plant, "x").startswith("sometimes would send it")

    def test_what_other_reactors_have_sent(self, open_plant: Open) -> None:
        @ReactorFunc
        def earlier(pipe: Any) -> None:
            pipe.send("x", 1)

        @ReactorFunc
        def other(pipe: Any) -> None:
            pipe.send("y", 1)

        with open_plant(earlier) as plant:
            plant.produce("x")
        with open_plant(other) as plant:
            assert "plant.fetch_ingredient('x')" in self.demand(plant, "x")
            assert plant.fetch_ingredient("x") == 1


class TestRivals:
    """Two reactors that send one name: the search ends with the first, so it has to be said."""

    def reactors(self) -> tuple[Any, Any]:
        @ReactorFunc
        def train(pipe: Any) -> None:
            pipe.send("model", "old")

        @ReactorFunc
        def train_again(pipe: Any) -> None:
            if pipe.read_config("again"):
                pipe.send("model", "new")

        return train, train_again

    def test_are_told_once(self, open_plant: Open, caplog: pytest.LogCaptureFixture) -> None:
        one, other = self.reactors()
        with open_plant(one, other, config={"again": True}) as plant, caplog.at_level(logging.WARNING, "pyplantx"):
            plant.run_reactor(one)
            plant.run_reactor(other)
            assert caplog.messages == []
            assert plant.produce("model") == "new"
            plant.produce("model")
            assert plant.log.take() == ["train", "train_again"]
        assert len(caplog.messages) == 1
        assert "train" in caplog.text and "train_again" in caplog.text and "both send 'model'" in caplog.text

    def test_one_at_a_time_is_no_rival(self, open_plant: Open, caplog: pytest.LogCaptureFixture) -> None:
        one, other = self.reactors()
        with open_plant(one, other, config={"again": True}) as plant, caplog.at_level(logging.WARNING, "pyplantx"):
            plant.run_reactor(one)
            plant.run_reactor(other)
            plant.set_config({"again": False})  # today it would not send
            plant.run_reactor(other)
            assert plant.produce("model") == "old"
        assert caplog.messages == []


def test_what_is_shown_at_a_prompt(open_plant: Open) -> None:
    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("x", 1)

    with open_plant(make) as plant:
        plant.produce("x")
        assert repr(plant.why(make)) == "<make: ran (never run before)>"
        assert repr(plant.status()) == str(plant.status())
        assert repr(plant.du()) == str(plant.du()) and repr(plant.gc(dry_run=True)) == str(plant.gc(dry_run=True))


def test_the_plant_checks_its_store(open_plant: Open) -> None:
    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("x", b"x" * 2_000_000)

    with open_plant(make) as plant:
        plant.produce("x")
        assert plant.check() == []
        (file,) = [path for path in (Path(plant.plant_dir) / "objects").rglob("*") if path.is_file()]
        file.chmod(0o600)
        file.write_bytes(b"y" + file.read_bytes()[1:])
        assert [problem.harmless for problem in plant.check(fix=True)] == [False]
        assert plant.check() == []  # it is not there any more, and will be made again
        assert plant.produce("x") == b"x" * 2_000_000
        assert plant.log.take() == ["make", "make"]

    def test_a_store_that_was_collected_has_no_problem(self, open_plant: Open) -> None:
        @ReactorFunc
        def make(pipe: Any) -> None:
            pipe.send("x", b"x" * 2_000_000)
            pipe.send("y", b"y" * 20_000)

        with open_plant(make) as plant:
            plant.produce("x")
        with open_plant() as plant:
            assert len(plant.gc(older_than=0).gone) == 2
            assert plant.check() == plant.check(fix=True) == plant.check() == []


class TestWhoFailedBeforeItSent:
    def test_it_is_not_told_to_send(self, open_plant: Open) -> None:
        def publish(pipe: Any, path: str) -> None:
            raise ValueError(f"no such file: {path}")
            pipe.send(path, 1)  # the compiler leaves it out

        @ReactorFunc
        def table(pipe: Any) -> None:
            publish(pipe, "table.csv")

        with open_plant(table) as plant, pytest.raises(errors.NoProducer, match="mend reactor table first") as caught:
            plant.produce("table")
        assert isinstance(caught.value.__cause__, ValueError)


class TestWhatPickleRefuses:
    def test_an_object_of_a_class_that_lies_in_a_function(self, open_plant: Open) -> None:
        @ReactorFunc
        def make(pipe: Any) -> None:
            class Local:
                pass

            pipe.send("x", [Local()])

        with (
            open_plant(make) as plant,
            pytest.raises(errors.CannotStore, match=r"move class Local out of its function"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error")
            plant.produce("x")

    def test_a_long_way_is_not_told_step_by_step(self, open_plant: Open) -> None:
        @ReactorFunc
        def make(pipe: Any) -> None:
            value: list[Any] = [threading.Lock()]
            for _ in range(300):
                value = [value]
            pipe.send("x", value)

        with (
            open_plant(make) as plant,
            pytest.raises(errors.CannotStore, match=r" \.\.\. .*: a lock") as caught,
        ):
            plant.produce("x")
        assert len(str(caught.value)) < 600

    def test_dill_does_not_warn_of_classes_that_it_finds(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(OF_A_SCRIPT)
        command = [sys.executable, "-W", "error", str(script), str(tmp_path / "plant")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("8\n", "")


class TestWhatCannotBeAReactor:
    def test_a_function_without_the_decorator(self, open_plant: Open) -> None:
        def draw(pipe: Any) -> None:
            pass

        with open_plant() as plant, pytest.raises(errors.UnknownReactor, match="@ReactorFunc above its def"):
            plant.run_reactor(draw)

    def test_one_that_takes_nothing(self) -> None:
        with pytest.raises(errors.BadRequest, match=r"reactor draw takes no argument\n.*def draw\(pipe\)"):

            @ReactorFunc
            def draw() -> None:
                pass

    def test_one_that_takes_more_than_there_is(self) -> None:
        with pytest.raises(errors.BadRequest, match="reactor draw wants 3 arguments, the third of them 'size'"):

            @ReactorFunc
            def draw(pipe: Any, config: Any, size: int) -> None:
                pass

    def test_one_that_takes_the_config_by_name(self) -> None:
        with pytest.raises(errors.BadRequest, match=r"reactor draw wants 'config' by name.*\n.*def draw\(pipe\)"):

            @ReactorFunc
            def draw(pipe: Any, *, config: Any = None) -> None:
                pass

    def test_a_method(self) -> None:
        with pytest.raises(errors.BadRequest, match="reactor draw is a method"):

            class Artist:
                @ReactorFunc
                def draw(self, pipe: Any) -> None:
                    pass

    def test_what_has_a_default_is_not_missed(self, open_plant: Open) -> None:
        @ReactorFunc
        def draw(pipe: Any, config: Any, size: int = 3, *more: Any, colour: str = "red") -> None:
            pipe.send("picture", (size, more, colour))

        @ReactorFunc
        def any_way(*given: Any) -> None:
            given[0].send("ways", len(given))

        with open_plant(draw, any_way, config={}) as plant:
            assert plant.produce("picture", "ways") == ((3, (), "red"), 1)


def test_several_names_are_no_list(open_plant: Open) -> None:
    @ReactorFunc
    def use(pipe: Any) -> Any:
        yield pipe.receive(["x", "y"])

    with open_plant(use) as plant, pytest.raises(errors.BadRequest, match="one after the other: 'x', 'y'"):
        plant.run_reactor(use)


def test_a_block_is_not_written_to(open_plant: Open) -> None:
    def double(part: Any) -> None:
        part *= 2

    @ReactorFunc
    def make(pipe: Any) -> None:
        x = pipe.allocate("x", specs.ArraySpec, shape=(10,), dtype=float)
        pipe.map_blocks(double, np.ones(10), out=x)
        pipe.send("x", x)

    with open_plant(make) as plant, pytest.raises(ValueError, match="read-only") as caught:
        plant.produce("x")
    assert "the blocks that the function gets can't be written to" in "\n".join(caught.value.__notes__)


class TestAClosedPlant:
    def test_is_closed_though_another_has_the_store_open(self, tmp_path: Path) -> None:
        with Plant(tmp_path) as other:
            with Plant(tmp_path) as plant:
                pass
            for ask in (lambda: plant.produce("x"), lambda: plant.fetch_ingredient("x"), plant.status, plant.du):
                with pytest.raises(errors.WarehouseError, match="is closed\n  hint: .*with"):
                    ask()
            assert other.check() == []

    def test_is_told_without_our_lines(self, tmp_path: Path) -> None:
        with Plant(tmp_path) as plant:
            pass
        with pytest.raises(errors.WarehouseError) as caught:
            plant.produce("x")
        assert [entry.name for entry in caught.traceback] == ["test_is_told_without_our_lines", "produce"]


class TestAPlantThatCannotBeOpened:
    @pytest.mark.parametrize("options", [{"trust": "mine"}, {"disk": "5 gigs"}, {"executor": "all"}, {"memory": "x"}])
    def test_a_wrong_option_is_told_without_our_lines(self, options: dict[str, str], tmp_path: Path) -> None:
        with pytest.raises(errors.BadRequest) as caught:
            Plant(tmp_path / "plant", **options)
        assert [entry.name for entry in caught.traceback] == ["test_a_wrong_option_is_told_without_our_lines"]

    def test_a_full_disk_is_told_without_our_lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(fd: int, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.write", write)
        with pytest.raises(errors.WarehouseFull) as caught:
            Plant(tmp_path / "plant")
        assert len(caught.traceback) == 1

    def test_one_that_may_not_be_written_to(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(lock: object) -> int:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr("pyplantx.warehouse.locks.FileLock._open_ordinary", refuse)
        with pytest.raises(errors.StoreReadOnly, match="copy the directory") as caught:
            Plant(tmp_path)
        assert "read_only=" not in str(caught.value)  # no option of a plant


def test_a_store_that_was_removed_while_it_was_open(tmp_path: Path) -> None:
    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("x", np.ones(100_000))

    plant = Plant(tmp_path / "plant")
    plant.add_reactor(make)
    shutil.rmtree(tmp_path / "plant")
    with pytest.raises(errors.WarehouseError, match="removed while it was open.*\n.*close it"):
        plant.produce("x")
    with pytest.raises(errors.WarehouseError, match="removed while it was open"):
        plant.close()
    with Plant(tmp_path / "plant") as again:
        again.add_reactor(make)
        assert again.produce("x").sum() == 100_000


def test_a_plant_tells_where_it_is(tmp_path: Path) -> None:
    with Plant(tmp_path) as plant:
        assert repr(plant) == f"<Plant {str(tmp_path)!r}>"


def test_a_forgotten_subreactor_is_found_in_the_file(open_plant: Open) -> None:
    @SubreactorFunc
    def part(pipe: Any) -> Any:
        return (yield pipe.receive("x"))

    @ReactorFunc
    def use(pipe: Any) -> Any:
        part(pipe)
        yield pipe.receive("x")

    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("x", 1)

    with (
        open_plant(make, use) as plant,
        pytest.raises(errors.BadRequest, match=r"wait for it \(.*test_advice.py:\d+\)"),
    ):
        plant.run_reactor(use)


def test_a_yielded_subreactor_call_is_named(open_plant: Open) -> None:
    @SubreactorFunc
    def part(pipe: Any) -> Any:
        return (yield pipe.receive("x"))

    @ReactorFunc
    def use(pipe: Any) -> Any:
        yield part(pipe)

    with (
        open_plant(use) as plant,
        pytest.raises(errors.BadRequest, match="<call of the subreactor part, made at .*py:"),
    ):
        plant.run_reactor(use)


def test_who_ran_under_another_modules_name(tmp_path: Path) -> None:
    """A script that ran is looked at from another program: `status` and `why` don't contradict each other."""

    def make(pipe: Any) -> None:
        pipe.send("x", 1)

    told = []
    for name in ("script.make", "module.make"):
        with Plant(tmp_path) as plant:
            plant.add_reactor(ReactorFunc(name=name)(make))
            if name == "script.make":
                plant.produce("x")
            told.append((plant.why(name).reason, plant.explain("x").reason))
            forget_reactors()
    assert told == [("never run before",) * 2, ("its code has run on this store, but not under this name",) * 2]


@pytest.mark.parametrize("ask", [Plant.why, Plant.run_reactor])
def test_the_name_of_an_ingredient_where_a_reactor_is_wanted(tmp_path: Path, ask: Any) -> None:
    @ReactorFunc
    def train(pipe: Any) -> None:
        pipe.send("model", 1)

    with Plant(tmp_path) as plant:
        plant.add_reactors(train)
        with pytest.raises(errors.UnknownReactor, match="there is no reactor .model.") as caught:
            ask(plant, "model")
    assert "which train sends" in caught.value.hint and "plant.produce('model')" in caught.value.hint

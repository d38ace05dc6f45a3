"""Reasons as people read them."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import ReactorFunc
from pyplantx.warehouse import records, warehouse


@pytest.mark.parametrize(("count", "ends"), [(16, "ingredient x15 has new content"), (1000, "; and 984 more")])
def test_a_thousand_changes_are_not_listed_one_by_one(open_plant: Any, count: int, ends: str) -> None:
    @ReactorFunc
    def source(pipe: Any, config: Any) -> None:
        for i in range(count):
            pipe.send(f"x{i}", config.seed + i)

    @ReactorFunc
    def total(pipe: Any) -> Any:
        pipe.send("total", sum((yield pipe.receive(*[f"x{i}" for i in range(count)]))))

    for seed in (1, 2):
        with open_plant(source, total, config=SimpleNamespace(seed=seed)) as plant:
            assert plant.produce("total") == sum(range(seed, seed + count))
            decision = plant.why(total)
    assert decision.reason.startswith("ingredient x0 has new content; ingredient x1 has")
    assert decision.reason.endswith(ends) and len(decision.old) == len(decision.new) == count
    assert plant.get_execution_history()[-1]["reason"] == decision.reason


class TestRunsThatLeaveNothing:
    """What failed, was interrupted, or can't be used again, as a later session tells of it."""

    def test_is_told_by_the_next_session(self, open_plant: Any) -> None:
        @ReactorFunc
        def fails(pipe: Any, config: Any) -> None:
            if config["fail"]:
                raise config["fail"]
            pipe.send("x", 1)

        @ReactorFunc
        def copes(pipe: Any) -> Any:
            try:
                value = yield pipe.receive("x")
            except ValueError:
                value = 0
            pipe.send("y", value)

        reactors = (fails, copes)
        with open_plant(*reactors, config={"fail": None}) as plant:
            plant.produce("x")
        with open_plant(*reactors, config={"fail": ValueError("no")}) as plant:
            assert plant.produce("y") == 0
            told = [str(plant.why(reactor)) for reactor in reactors]
            entries = plant.get_execution_history()
        with open_plant(*reactors, config={"fail": KeyboardInterrupt()}) as plant:
            assert [str(plant.why(reactor)) for reactor in reactors] == told
            assert [text.split(" (")[0] for text in told] == ["fails: failed", "copes: ran"]
            stored = plant.get_execution_history(all_sessions=True)[1:]
            assert [entry | {"started": 0, "seconds": 0} for entry in stored] == [
                entry | {"started": 0, "seconds": 0} for entry in entries
            ]
            assert all(entry["seconds"] > 0 for entry in entries)
            with pytest.raises(KeyboardInterrupt):
                plant.produce("x")
        with open_plant(*reactors) as plant:
            assert plant.why(fails).action == "interrupted"
            history = plant.get_execution_history(all_sessions=True)
            assert [(entry["reactor"], entry["action"]) for entry in history] == [
                ("fails", "ran"),
                ("fails", "failed"),
                ("copes", "ran"),
                ("fails", "interrupted"),
            ]

    @pytest.mark.parametrize("is_same_session", [True, False])
    def test_the_next_run_does_not_call_itself_the_first(self, open_plant: Any, is_same_session: bool) -> None:
        @ReactorFunc
        def fails(pipe: Any, config: Any) -> None:
            if config["fail"]:
                raise config["fail"]
            pipe.send("x", 1)

        @ReactorFunc
        def copes(pipe: Any) -> Any:
            try:
                pipe.send("y", (yield pipe.receive("x")))
            except ValueError:
                pipe.send("y", 0)

        plant = open_plant(fails, copes)
        told = []
        for error in (ValueError("no"), KeyboardInterrupt(), None, ValueError("again")):
            plant.set_config({"fail": error})
            told.append([decision.reason for decision in plant.status()])
            try:
                plant.produce("y")
            except KeyboardInterrupt:
                pass
            for at, reactor in enumerate((fails, copes)):
                assert plant.why(reactor).reason == plant.explain("xy"[at]).reason
            if not is_same_session:
                plant.close()
                plant = open_plant(fails, copes)
        plant.close()
        caught = "its last run caught an error or read what other code had left, so it is not used again"
        assert told == [
            ["never run before", "never run before"],
            ["its last run failed", caught],
            ["its last run was interrupted", "its last run was interrupted"],
            [told[3][0], "depends on the new content of 'x'"],
        ]
        assert told[3][0].startswith("config fail: None → ")

    def test_one_that_waited_is_told_as_interrupted(self, open_plant: Any) -> None:
        @ReactorFunc
        def source(pipe: Any) -> None:
            if pipe.read_config("stop"):
                raise KeyboardInterrupt
            pipe.send("x", 1)

        @ReactorFunc
        def sink(pipe: Any) -> Any:
            pipe.send("y", (yield pipe.receive("x")))

        ended = [("source", "interrupted"), ("sink", "interrupted")]
        with open_plant(source, sink, config={"stop": True}) as plant:
            with pytest.raises(KeyboardInterrupt):
                plant.produce("y")
            assert [(entry["reactor"], entry["action"]) for entry in plant.get_execution_history()] == ended
            assert plant.why(sink).action == "interrupted"
        with open_plant(source, sink, config={"stop": False}) as plant:
            assert plant.why(sink).action == "interrupted"
            assert plant.produce("y") == 1
            assert plant.why(sink).action == "ran"
            assert len(plant.get_execution_history()) == 2

    def test_one_that_succeeds_in_the_end_is_not_told_as_failed(self, open_plant: Any) -> None:
        trouble = [ValueError("once")]

        @ReactorFunc
        def flaky(pipe: Any) -> None:
            if trouble:
                raise trouble.pop()
            pipe.send("x", 1)

        with open_plant(flaky) as plant:
            with pytest.raises(ValueError, match="once"):
                plant.produce("x")
            plant.produce("x")
        with open_plant(flaky) as plant:
            assert plant.why(flaky).action == "ran"


def test_a_long_history_is_not_read_for_the_last_run(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @ReactorFunc
    def often(pipe: Any) -> None:
        pass

    @ReactorFunc
    def early(pipe: Any) -> None:
        pass

    @ReactorFunc
    def never(pipe: Any) -> None:
        pipe.send("x", 1)

    reactors, decode, decoded = (often, early, never), records.decode_history, list[bytes]()
    with open_plant(*reactors) as plant:
        plant.run_reactor(early)
        for _ in range(300):
            plant.run_reactor(often)
    monkeypatch.setattr(records, "decode_history", lambda body: decoded.append(body) or decode(body))
    with open_plant(*reactors) as plant:
        assert [plant.why(reactor).action for reactor in reactors] == ["ran", "ran", "unknown"]
        assert len(decoded) == 2
        monkeypatch.setattr(warehouse, "LOOK_BACK", 64)
        assert plant.why(early).reason == "run so long ago that the history is not searched for it"
        assert plant.why(never).reason == "never run on this store"


def test_who_asks_why_of_all_reactors_reads_the_history_once(open_plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(number: int) -> Any:
        @ReactorFunc(name=f"r{number}")
        def reactor(pipe: Any) -> None:
            pipe.send(f"x{number}", number)

        return reactor

    reactors, decode, decoded = [make(number) for number in range(20)], records.decode_history, list[bytes]()
    with open_plant(*reactors) as plant:
        plant.run_reactor(*reactors)
    monkeypatch.setattr(records, "decode_history", lambda body: decoded.append(body) or decode(body))
    with open_plant(*reactors) as plant:
        for reactor in reactors * 2:
            assert plant.why(reactor).reason == "asked for by name"
        assert len(decoded) == len(set(decoded)) <= 20
        before = plant.warehouse.last_run(reactors[3].id)
        with open_plant(*reactors) as other:
            other.run_reactor(reactors[3])
        after = plant.warehouse.last_run(reactors[3].id)
        assert before is not None and after is not None and after["started"] > before["started"]


SCRIPT = """
import sys
from pyplantx import Plant, ReactorFunc

FACTOR = 2

def scaled(x):
    return x * FACTOR

class Scale:
    def __call__(self, x):
        return scaled(x)

@ReactorFunc
def main(pipe):
    pipe.send("x", Scale()(1))

with Plant(sys.argv[1]) as plant:
    plant.produce("x")
    print(plant.why(main).reason)
"""


def test_parts_of_a_script_that_was_renamed_or_is_read_from_the_standard_input_are_compared(tmp_path: Path) -> None:
    def reason(name: str, source: str) -> str:
        (tmp_path / name).write_text(source)
        command = [sys.executable, name, str(tmp_path / "plant")]
        with open(tmp_path / name) as script:
            done = subprocess.run(command, stdin=script, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert reason("one.py", SCRIPT) == "never run before"
    assert reason("my.two.py", SCRIPT.replace("= 2", "= 3")) == "constant my.two.FACTOR changed"
    assert reason("-", SCRIPT.replace("= 2", "= 4")) == "constant <stdin>.FACTOR changed"
    edited = (
        SCRIPT.replace("def scaled(x)", "def times(x)")
        .replace("scaled(x)", "times(x)")
        .replace("Scale()(1)", "Scale()(2)")
    )
    assert reason("three.py", edited.replace("= 2", "= 4")) == (
        "function three.main changed; function three.Scale.__call__ changed; function three.times is new; "
        "function <stdin>.scaled is gone"
    )


def _reasons(open_plant: Any, sources: list[str], config: Any = None) -> str:
    """The reason of the second run of a reactor ``main``, made of the second source."""
    decision = None
    for number, source in enumerate(sources):
        names: dict[str, Any] = {"__name__": "app", "ReactorFunc": ReactorFunc, "functools": functools}
        exec(source, names)
        with open_plant(names["main"], config=config and config[number]) as plant:
            plant.run_reactor("main", force=False)
            decision = plant.why("main")
    assert decision is not None
    return str(decision.reason)


def test_a_listener_is_told_the_reason_of_the_run_that_begins(open_plant: Any) -> None:
    @ReactorFunc
    def source(pipe: Any) -> None:
        pipe.send("source", pipe.read_config("level"))

    told: list[str] = []
    with open_plant(source, config={"level": 1}) as plant:
        plant.add_event_listener(plant.EventType.reactor_started, lambda *_: told.append(str(plant.why("source"))))
        plant.produce("source")
        plant.set_config({"level": 2})
        plant.produce("source")
        told.append(str(plant.why("source")))
        plant.produce("source")
        told.append(str(plant.why("source")))
    changed = "source: ran (config level: 1 → 2)"
    assert told == ["source: ran (never run before)", changed, changed, "source: up to date"]


@pytest.mark.parametrize(
    ("source", "old", "new", "reason"),
    [
        ("G = functools.partial(max, 2)", "2", "3", "partial in constant app.G changed"),
        ("class G:\n    p = functools.partial(max, 2)", "2", "3", "partial in class app.G changed"),
        ("def a(): pass\ndef b(): return 1\nG = {'x': a, 'y': b}", "'x': a", "'x': b", "constant app.G changed"),
        ("a, b = lambda: 1, lambda: 2\nG = {'x': a, 'y': b}", "'x': a", "'x': b", "constant app.G changed"),
    ],
)
def test_parts_without_a_name_are_told_by_what_holds_them(
    open_plant: Any, source: str, old: str, new: str, reason: str
) -> None:
    source += "\n@ReactorFunc\ndef main(pipe): pipe.send('out', bool(G))\n"
    assert reason in _reasons(open_plant, [source, source.replace(old, new)])


@pytest.mark.parametrize(
    ("read", "before", "after", "reason"),
    [
        ("repr(config)", {"lr": 1, "name": "m"}, {"lr": 2, "name": "m"}, "config all of the config: lr=1 → lr=2"),
        ("config.name", {"name": "a, b"}, {"name": "a, c"}, "config name: 'a, b' → 'a, c'"),
        (
            "repr(config.m)",
            {"m": SimpleNamespace(a=SimpleNamespace(b=1, d=3), c=(1, 2))},
            {"m": SimpleNamespace(a=SimpleNamespace(b=2, d=3), c=(1, 2))},
            "config all of m: a={b=1, d=3} → a={b=2, d=3}",
        ),
        (
            "config.f",
            {"f": eval("lambda x: x + 1")},
            {"f": eval("lambda x: x + 2")},
            "config f: function <lambda>, whose code or definition changed",
        ),
    ],
)
def test_what_differs_in_a_config_is_said(open_plant: Any, read: str, before: Any, after: Any, reason: str) -> None:
    source = f"@ReactorFunc\ndef main(pipe, config): pipe.send('out', str({read})[:0])\n"
    configs = [SimpleNamespace(**before), SimpleNamespace(**after)]
    assert _reasons(open_plant, [source, source], configs) == reason

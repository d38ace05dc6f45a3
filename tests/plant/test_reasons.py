"""Reasons as people read them."""

from __future__ import annotations

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
        pass

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

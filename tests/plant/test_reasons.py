"""Reasons as people read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import ReactorFunc


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

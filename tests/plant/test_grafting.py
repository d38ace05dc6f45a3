"""A trace joins the tree where its reactor's replay fell off: the place that a walk through the index finds, too."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.core.messages import Record
from pyplantx.core.trace import graft
from pyplantx.fingerprint.value import hash_text
from pyplantx.session.trees import Trees


def reactors(world: dict[str, int]) -> list[Any]:
    """Some that are deterministic, one that asks and sends as `world`, which no fingerprint sees, has it."""
    hidden = Hidden(world)

    @ReactorFunc(name="source")
    def source(pipe: Any, config: Any) -> Any:
        pipe.send("a", config.a)
        pipe.send("b", config.b)

    @ReactorFunc(name="sum")
    def total(pipe: Any, config: Any) -> Any:
        a = yield pipe.receive("a")
        pipe.send("early", a % 2)
        b = (yield pipe.receive("b")) if a < 2 else config.b
        pipe.send("sum", a + b)

    @ReactorFunc(name="moody")
    def moody(pipe: Any) -> Any:
        names = ["a", "sum", "early"]
        for name in names[hidden.turn :] + names[: hidden.turn]:
            value = yield pipe.receive(name)
        pipe.send("mood", value + hidden.turn)

    @ReactorFunc(name="last")
    def last(pipe: Any) -> Any:
        mood, total = yield pipe.receive("mood", "sum")
        pipe.send("end", (mood + total) % 3)

    return [source, total, moody, last]


class Hidden:
    def __init__(self, world: dict[str, int]) -> None:
        self._world = world

    def __fingerprint__(self) -> str:
        return "hidden"

    @property
    def turn(self) -> int:
        return self._world["turn"]


@pytest.mark.parametrize("seed", range(4))
def test_the_short_way_and_the_long_one(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick: list[bool] = []
    short = Trees.grow

    def both(self: Trees, record: Record) -> Any:
        expected = graft(record.root, record.steps, self.find, hash_text)
        found = short(self, record)
        assert found == expected, record.reactor
        quick.append(record.joint is not None)
        return found

    monkeypatch.setattr(Trees, "grow", both)
    chance = random.Random(seed)
    for _ in range(30):
        world = {"turn": chance.randrange(3)}
        config = SimpleNamespace(a=chance.randrange(4), b=chance.randrange(4))
        with Plant(tmp_path / "plant", durability="process", config=config) as plant:
            plant.add_reactors(reactors(world))
            if chance.random() < 0.3:
                plant.run_reactor(chance.choice(["source", "sum", "moody"]))
            plant.produce("end")
    assert True in quick and False in quick

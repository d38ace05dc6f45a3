"""Several reactors that send one ingredient, each under another config: switching back to what was runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import ReactorFunc


def sender(key: int) -> Any:
    @ReactorFunc(name=f"sender-{key}")
    def reactor(pipe: Any, config: Any) -> Any:
        if config.first:
            yield pipe.receive("asked")
        if config.key == key:
            pipe.send("x", key)

    return reactor


@ReactorFunc(name="asked")
def asked(pipe: Any) -> None:
    pipe.send("asked", 1)


@ReactorFunc(name="user")
def user(pipe: Any) -> Any:
    pipe.send("y", (yield pipe.receive("x")) * 10)


@pytest.mark.parametrize("first", [False, True], ids=["by config", "after an ingredient"])
def test_who_sends_it_today_is_asked_first(open_plant: Callable[..., Any], first: bool) -> None:
    reactors = [sender(1), sender(2), sender(3), asked, user]
    for key in (1, 2, 3):
        with open_plant(*reactors, config=SimpleNamespace(key=key, first=first)) as plant:
            assert plant.produce("y") == 10 * key
    ran = []
    for key in (1, 2, 3, 2, 1):
        with open_plant(*reactors, config=SimpleNamespace(key=key, first=first)) as plant:
            assert plant.produce("y") == 10 * key
            ran += plant.log.take()
    assert first or ran == []  # what hangs on an ingredient is known only when that has been asked for


def test_who_no_longer_names_it_does_not_run_to_find_out(open_plant: Any) -> None:
    """A line that sends was moved from one reactor to another: the old one is nobody's business."""
    before = ("pipe.send('x', 1)", "pipe.send('y', 1)")
    after = ("pipe.send('raw', 1)", "pipe.send('y', 1); pipe.send('x', 2)")
    for bodies, value, runs in [(before, 1, ["load"]), (after, 2, ["prep"]), (before, 1, []), (after, 2, [])]:
        made: dict[str, Any] = {"ReactorFunc": ReactorFunc, "__name__": "project"}
        for name, body in zip(("load", "prep"), bodies, strict=True):
            exec(f"@ReactorFunc\ndef {name}(pipe):\n    {body}\n", made)
        with open_plant(made["load"], made["prep"]) as plant:
            assert plant.produce("x") == value
            assert plant.log.take() == runs


def test_who_is_edited_is_asked_where_nobody_else_names_it(open_plant: Any) -> None:
    """What a name is made of may be beyond what code tells at a glance."""
    for value in (1, 2):
        made: dict[str, Any] = {"ReactorFunc": ReactorFunc, "__name__": "project", "NAMES": {"a": "X"}}
        loop = f"    for name in NAMES.values():\n        pipe.send(name.lower(), {value})\n"
        source = f"@ReactorFunc\ndef load(pipe):\n{loop}"
        exec(source + "@ReactorFunc\ndef other(pipe):\n    pipe.send('y', 1)\n", made)
        with open_plant(made["other"], made["load"]) as plant:
            assert plant.produce("x") == value
            assert plant.log.take() == ["load"]  # the other one's code shows that it sends y and no more

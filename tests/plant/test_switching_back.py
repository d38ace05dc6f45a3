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

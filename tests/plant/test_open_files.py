"""A file that is still being written when it is sent: what waits in a buffer would come after it was sealed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyplantx import Ingredient, ReactorFunc
from pyplantx.errors import CannotStore


def left_open(path: str) -> Any:
    file = open(path, "w")
    file.write("hello")
    return file


def mapped(path: str) -> Any:
    return np.memmap(path, "u1", "w+", shape=(10,))


def closed(path: str) -> Any:
    left_open(path).close()
    return open(path)  # to read does no harm


@pytest.mark.parametrize("write", [left_open, mapped])
def test_it_is_refused(open_plant: Callable[..., Any], write: Callable[[str], Any]) -> None:
    @ReactorFunc(name="letter")
    def letter(pipe: Any) -> None:
        path = pipe.allocate("letter", Ingredient.Type.file, suffix=".txt")
        kept = write(path)
        pipe.send("letter", path)
        del kept

    with open_plant(letter) as plant:
        with pytest.raises(CannotStore, match="still open for writing"):
            plant.produce("letter")
        assert plant.log.take() == ["letter"]


def test_one_that_was_closed_is_taken(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc(name="letter")
    def letter(pipe: Any) -> None:
        path = pipe.allocate("letter", Ingredient.Type.file, suffix=".txt")
        with closed(path):
            pipe.send("letter", path)

    with open_plant(letter) as plant:
        with open(plant.produce("letter")) as file:
            assert file.read() == "hello"

"""Fixtures of the hostile tests: plants on a directory of the test's own, checked when the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx import Plant
from pyplantx.testing import forget_reactors


@pytest.fixture(autouse=True)
def own_reactors() -> Iterator[None]:
    """No test sees the reactors of another."""
    forget_reactors()
    yield
    forget_reactors()


@pytest.fixture
def open_plant(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A new plant on the test's directory; what the test leaves there must be sound."""

    def opened(*reactors: Any, config: object = None, **options: Any) -> Plant:
        plant = Plant(tmp_path / "plant", config=config, durability="process", **options)
        plant.add_reactors(*reactors)
        return plant

    yield opened
    with Plant(tmp_path / "plant", durability="process") as plant:
        assert [problem for problem in plant.warehouse.check() if not problem.harmless] == []

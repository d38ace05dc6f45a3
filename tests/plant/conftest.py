"""Fixtures for tests that run whole plants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx import Plant
from pyplantx.testing import forget_reactors


class Log:
    """Which reactors began to run, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, event_type: Any, name: str, function: Any) -> None:
        self.ran.append(name)

    def take(self) -> list[str]:
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture(autouse=True)
def own_reactors() -> Iterator[None]:
    """No test sees the reactors of another."""
    forget_reactors()
    yield
    forget_reactors()


@pytest.fixture
def open_plant(tmp_path: Path) -> Callable[..., Any]:
    """A new plant on the test's directory, with its `log`."""

    def opened(*reactors: Any, config: object = None, directory: str = "plant", **options: Any) -> Plant:
        plant = Plant(tmp_path / directory, **options)
        if config is not None:
            plant.set_config(config)
        if reactors:
            plant.add_reactors(*reactors)
        plant.log = Log()  # type: ignore[attr-defined]
        plant.add_event_listener(Plant.EventType.reactor_started, plant.log)  # type: ignore[attr-defined]
        return plant

    return opened

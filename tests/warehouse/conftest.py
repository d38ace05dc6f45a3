"""Fixtures of the warehouse's tests; every store is checked when its test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx.warehouse.warehouse import Warehouse


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "plant"


@pytest.fixture
def opened(directory: Path) -> Iterator[Callable[..., Warehouse]]:
    """Opens the test's directory; closes all that was opened."""
    warehouses: list[Warehouse] = []

    def open_it(**options: Any) -> Warehouse:
        warehouses.append(Warehouse(directory, **options))
        return warehouses[-1]

    yield open_it
    for warehouse in warehouses:
        warehouse.close()


@pytest.fixture
def warehouse(opened: Callable[..., Warehouse]) -> Iterator[Warehouse]:
    """An open warehouse that must be sound when the test has ended."""
    made = opened()
    yield made
    if not made._closed:
        assert [problem for problem in made.check() if not problem.harmless] == []

"""A full disk: a clear error, the store as it was, and work goes on when there is space again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyplantx.errors import WarehouseFull
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch, send


@pytest.fixture
def small_disk(new_disk: Callable[[str], Path]) -> Path:
    return new_disk("4m")


@pytest.mark.parametrize("size", [3_500_000, 600_000, 5_000])
def test_a_full_disk(small_disk: Path, size: int) -> None:
    warehouse = Warehouse(small_disk / "plant", durability="process")
    send(warehouse, "before", "b" * 300_000)
    warehouse.sync()
    ballast = small_disk / "ballast"
    _fill(ballast)
    with pytest.raises(WarehouseFull, match="free"):
        for number in range(2_000):
            send(warehouse, f"x{number}", f"{number} " * (size // 5))
            warehouse.sync()
    assert fetch(warehouse, "before") == "b" * 300_000
    ballast.unlink()
    warehouse.sync()
    send(warehouse, "after", "a" * 300_000)
    warehouse.sync()
    assert [problem for problem in warehouse.check() if not problem.harmless] == []
    warehouse.close()
    again = Warehouse(small_disk / "plant", durability="process")
    assert (fetch(again, "before"), fetch(again, "after")) == ("b" * 300_000, "a" * 300_000)
    again.close()


def _fill(ballast: Path) -> None:
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    os.truncate(ballast, max(0, os.path.getsize(ballast) - 64 * 1024))  # a little is left, as on real disks


def test_the_error_says_how_much_was_wanted(small_disk: Path) -> None:
    warehouse = Warehouse(small_disk / "plant", durability="process")
    with pytest.raises(WarehouseFull, match="8,000,000 bytes were to be written, [0-9,]+ bytes free"):
        send(warehouse, "x", np.ones(1_000_000))
    warehouse.close()


def test_a_full_disk_at_the_backup_is_called_so(small_disk: Path) -> None:
    warehouse = Warehouse(small_disk / "plant", durability="process")
    for number in range(20):
        send(warehouse, f"x{number}", f"{number} " * 3_000)
    warehouse.sync()
    ballast = small_disk / "ballast"
    _fill(ballast)
    with pytest.raises(WarehouseFull, match="the index can't be backed up: no space left"):
        warehouse.close()
    ballast.unlink()
    again = Warehouse(small_disk / "plant", durability="process")
    assert fetch(again, "x19") == "19 " * 3_000
    again.close()

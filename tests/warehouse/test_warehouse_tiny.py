"""Small simple values are stored and read without a stage or a payload; nothing else about them is different."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pyplantx.core.trace import ObjectRef
from pyplantx.errors import PayloadMissing
from pyplantx.specs.simple import SimpleSpec
from pyplantx.warehouse.staging import TINY
from pyplantx.warehouse.warehouse import Warehouse

VALUES = [
    *(None, True, False, 0, -1, 1 << 53, (1 << 53) + 1, -(1 << 300), 1.5, -0.0, math.inf, 1e-300, 2j, complex(-0.0, 1)),
    *("", "text", "ü", "\ud800", "\0", "x" * (TINY - 2), "x" * (TINY - 1), "ü" * TINY, b"", b"\0\xff", b"x" * TINY),
    *("x" * 5000, b"x" * 5000, 1 << 5000),
]


def long_way(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, value: Any) -> ObjectRef:
    with monkeypatch.context() as patch:
        patch.setattr(warehouse._storer, "_simple", None)
        patch.setattr(warehouse._opener, "_simple", None)
        ref = warehouse.store("x", value)
        assert repr(warehouse.open(ref)) == repr(value)
    return ref


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_both_ways_give_the_same(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Warehouse(tmp_path / "store", durability="process") as warehouse:
        ref = warehouse.store("x", value)
        assert ref == long_way(warehouse, monkeypatch, value)
        found = warehouse.open(ref)
        assert type(found) is type(value) and repr(found) == repr(value)


def test_a_spec_in_its_place_is_asked(tmp_path: Path) -> None:
    class Loud(SimpleSpec):
        def write(self, value: Any, stage: Any) -> Any:
            return super().write(value.upper(), stage)

    with Warehouse(tmp_path / "store", durability="process") as warehouse:
        warehouse.register_ingredient_specs([Loud()])
        assert warehouse.open(warehouse.store("x", "quiet")) == "QUIET"


@pytest.mark.parametrize("inline", ["value.json\n[1]", "value.json\n1 2", "value.json\n", "other\n1", "value.bin"])
def test_what_can_not_be_read_counts_as_missing(inline: str, tmp_path: Path) -> None:
    with Warehouse(tmp_path / "store", durability="process") as warehouse:
        ref = warehouse.store("x", 1)._replace(inline=inline)
        with pytest.raises(PayloadMissing):
            warehouse.open(ref)

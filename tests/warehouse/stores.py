"""What the warehouse's tests do with a store, in one line each; used by their subprocesses too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.warehouse import Commit, Warehouse

#: Where subprocesses run, so that they find this package.
ROOT = Path(__file__).parents[2]


def send(warehouse: Warehouse, name: str, value: Any, type_given: Any = None, reactor: str = "mod.r") -> Any:
    """Store and commit one ingredient, as the plant does for a reactor that sends it."""
    ref = warehouse.store(name, value, type_given)
    root = hash_text(f"{reactor} {name}")
    warehouse.commit(Commit(reactor, root, [(root, f'{{"sends":"{ref.address}"}}')], [(name, ref)]))
    return ref


def fetch(warehouse: Warehouse, name: str) -> Any:
    ref = warehouse.last_ref(name)
    return None if ref is None else warehouse.open(ref)

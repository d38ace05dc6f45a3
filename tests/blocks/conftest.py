"""What holds for all tests of blocks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyplantx.testing import forget_reactors
from tests.blocks.fakes import block_threads


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Reactors of other tests are not known, and whatever a loop has met with, its threads have ended."""
    forget_reactors()
    yield
    forget_reactors()
    assert block_threads() == []


@pytest.fixture(autouse=True)
def a_look_is_always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a look takes is a matter of the machine: none is put off, each block is noted once it is finished."""
    monkeypatch.setattr("pyplantx.blocks.captured._CHEAP", 1e9)

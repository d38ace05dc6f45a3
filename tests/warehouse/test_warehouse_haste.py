"""A background thread that writes gets the interpreter lock soon, and nothing of that is left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from pyplantx.warehouse.haste import Haste, haste
from tests.faults.children import in_child


@pytest.fixture(autouse=True)
def usual() -> Iterator[float]:
    before = sys.getswitchinterval()
    yield before
    sys.setswitchinterval(before)


def test_the_usual_pace_comes_back_after_the_last_one(usual: float) -> None:
    one = Haste()
    with one:
        with one:
            assert sys.getswitchinterval() < usual
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual


def test_it_comes_back_after_an_error(usual: float) -> None:
    one = Haste()
    with pytest.raises(KeyboardInterrupt), one:
        raise KeyboardInterrupt
    assert sys.getswitchinterval() == usual


def test_what_a_program_sets_meanwhile_is_kept() -> None:
    with Haste():
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_a_program_that_is_in_greater_haste_is_left_alone() -> None:
    sys.setswitchinterval(0.0001)
    for _ in range(3):
        with Haste():
            assert sys.getswitchinterval() == pytest.approx(0.0001)
    assert sys.getswitchinterval() == pytest.approx(0.0001)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_the_usual_pace(usual: float) -> None:
    with haste:
        assert in_child(lambda: os._exit(sys.getswitchinterval() != usual)) == 0

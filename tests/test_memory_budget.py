"""Who gets how much of the memory that the plant may hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.basics.memory import LEAST, SHARES, MemoryBudget
from pyplantx.errors import BadRequest

MB = 10**6


def test_of_a_large_budget_each_gets_what_is_enough() -> None:
    budget = MemoryBudget("64GB")
    assert budget.share("blocks") == 256 * MB
    assert (budget.share("chunks"), budget.share("waiting")) == (32 << 20, 16 * MB)


def test_of_a_small_budget_each_gets_its_part() -> None:
    budget = MemoryBudget("200MB")
    assert budget.share("blocks") == 50 * MB
    assert (budget.share("chunks"), budget.share("waiting")) == (25 * MB, 16 * MB)


def test_without_a_wish_it_is_half_of_the_machine() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        machine = int(file.readline().split()[1]) * 1024
    assert MemoryBudget().total == machine // 2
    assert str(MemoryBudget(2 * 10**9)) == "MemoryBudget(2.00 GB)"


@given(st.integers(LEAST, 10**15))
def test_three_loops_the_caches_and_the_queue_fit_into_the_whole(total: int) -> None:
    budget = MemoryBudget(total)
    assert 3 * budget.share("blocks") + budget.share("chunks") + budget.share("waiting") <= total
    assert all(budget.share(what) >= 4 * MB for what in SHARES)


@pytest.mark.parametrize("given", ["", "much", -1, 0, "1MB", LEAST - 1, True, float("nan"), [1]])
def test_nonsense_is_refused(given: Any) -> None:
    with pytest.raises(BadRequest, match="the memory budget can't be"):
        MemoryBudget(given)

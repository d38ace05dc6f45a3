"""Sizes and spans of time as people write them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.basics.units import parse_bytes, parse_seconds, show_bytes, show_seconds
from pyplantx.errors import BadRequest

SIZES = {
    "0": 0,
    "50GB": 50 * 10**9,
    "50 gb": 50 * 10**9,
    " 1.5 GiB ": 3 << 29,
    "200k": 200_000,
    "1_000 kB": 1_000_000,
    "2e3 B": 2_000,
    "64 MiB": 64 << 20,
    "12 bytes": 12,
    "1 byte": 1,
    "3Ti": 3 << 40,
    "1.9999 B": 1,
}

SPANS = {
    "7 days": 604_800.0,
    "1 week": 604_800.0,
    "12h": 43_200.0,
    "30 min": 1_800.0,
    "1.5 hours": 5_400.0,
    "90": 90.0,
    "250 ms": 0.25,
    "0s": 0.0,
}

NONSENSE: list[Any] = [
    *("", "GB", "-1GB", "1 XB", "1 GB 2", "1,5 GB", "one", "1..2", "٣GB", "1kbytes", "0x10", "nan", "inf"),
    *(-1, -0.5, math.nan, math.inf, -math.inf, True, False, [], {}, b"1GB", ..., 1j, timedelta(-1), 10**40),
]


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size
    assert type(parse_bytes(text)) is int


@pytest.mark.parametrize(("text", "seconds"), SPANS.items())
def test_spans(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("given", NONSENSE, ids=repr)
@pytest.mark.parametrize("parse", [parse_bytes, parse_seconds])
def test_nonsense_is_refused_by_name(parse: Any, given: Any) -> None:
    with pytest.raises(BadRequest, match="the budget can't be.*\n.*hint: the budget is"):
        parse(given, "the budget")


def test_a_unit_of_the_other_kind_is_refused() -> None:
    with pytest.raises(BadRequest):
        parse_bytes("3 days")
    with pytest.raises(BadRequest):
        parse_seconds("3 GB")
    with pytest.raises(BadRequest):
        parse_bytes(timedelta(seconds=3).__str__())


def test_numbers_and_none_pass() -> None:
    assert parse_bytes(None) is None and parse_seconds(None) is None
    assert parse_bytes(50_000_000) == 50_000_000
    assert parse_bytes(1e9) == 10**9
    assert parse_bytes(np.int64(7)) == 7 and type(parse_bytes(np.int64(7))) is int  # type: ignore[call-overload]
    assert parse_seconds(timedelta(days=7)) == parse_seconds("7 days")
    assert parse_seconds(2) == 2.0


def test_large_sizes_are_exact() -> None:
    assert parse_bytes("123456789012345678") == 123456789012345678
    assert parse_bytes(str(10**17 + 1)) == 10**17 + 1


def test_how_sizes_are_shown() -> None:
    shown = {0: "0 B", 999: "999 B", 999.5: "1.00 kB", 1_500: "1.50 kB", 12_345_678: "12.3 MB", 123_456_789: "123 MB"}
    shown |= {999_499: "999 kB", 999_500: "1.00 MB", 10**12: "1.00 TB", 10**19: "10,000 PB", -2_000: "-2.00 kB"}
    assert {size: show_bytes(size) for size in shown} == shown


def test_how_spans_are_shown() -> None:
    shown = {0: "0 ms", 0.003: "3 ms", 1: "1.0 s", 1.5: "1.5 s", 61: "61.0 s", 120: "2.0 min", 720: "12 min"}
    shown |= {3 * 3600: "3.0 h", 30 * 3600: "30 h", 12 * 86_400: "12 days", 4e9: "46,296 days"}
    assert {span: show_seconds(span) for span in shown} == shown


@given(st.integers(0, 10**18))
def test_what_is_shown_can_be_read_and_is_right_to_three_digits(size: int) -> None:
    read = parse_bytes(show_bytes(size).replace(",", ""))
    assert abs(read - size) <= max(0.0051 * size, 0)


@given(st.floats(0, 1e9))
def test_spans_that_are_shown_can_be_read(seconds: float) -> None:
    read = parse_seconds(show_seconds(seconds).replace(",", ""))
    assert abs(read - seconds) <= max(0.0005, 0.26 * seconds)

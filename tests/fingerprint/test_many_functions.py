"""Code that refers to many functions without names of their own: the time grows with their number only."""

from __future__ import annotations

import time
from typing import Any

from pyplantx.fingerprint.code import Fingerprinter


def table(count: int) -> Any:
    steps = [lambda x, i=i: x + i for i in range(count)]

    def first() -> Any:
        return steps[0]

    return first


def test_they_are_told_apart_by_number() -> None:
    labels = [label for label in Fingerprinter().parts(table(4)) if "lambda" in label]
    assert len(labels) == 4 and [label[-3:] for label in labels[1:]] == ["(2)", "(3)", "(4)"]


def test_equal_ones_are_one_part() -> None:
    steps = [lambda x: x + 1 for _ in range(4)]
    labels = [label for label in Fingerprinter().parts(lambda: steps) if "<listcomp>" in label or "steps" in label]
    assert not any("(2)" in label for label in labels)


def test_ten_thousand_take_no_square_of_their_number() -> None:
    begun = time.process_time()
    parts = Fingerprinter().parts(table(10_000))
    assert len(parts) > 10_000 and time.process_time() - begun < 5  # it was 20 and more

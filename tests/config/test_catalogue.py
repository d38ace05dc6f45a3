"""Cases D65-D80, D82, D83 of the catalogue of edits: which changes of a config are changes for a reactor."""

from __future__ import annotations

from types import SimpleNamespace as NS

import pytest
from config_tape import changed, record


def pick(m):
    return m.lr


CASES = {
    "D65 read option changes": (NS(a=1, b=2), NS(a=3, b=2), lambda c: c.a, True),
    "D66 unread option changes": (NS(a=1, b=2), NS(a=1, b=5), lambda c: c.a, False),
    "D67 sibling of nested option": (NS(m=NS(lr=1, n=2)), NS(m=NS(lr=1, n=3)), lambda c: c.m.lr, False),
    "D68 nested option": (NS(m=NS(lr=1, n=2)), NS(m=NS(lr=2, n=2)), lambda c: c.m.lr, True),
    "D69 nested, read by a helper": (NS(m=NS(lr=1, n=2)), NS(m=NS(lr=2, n=2)), lambda c: pick(c.m), True),
    "D69 nested, other option": (NS(m=NS(lr=1, n=2)), NS(m=NS(lr=1, n=3)), lambda c: pick(c.m), False),
    "D70 hasattr was false": (NS(a=1), NS(a=1, z=1), lambda c: hasattr(c, "z"), True),
    "D71 element of a list": (NS(a=[1, 2]), NS(a=[1, 3]), lambda c: sum(c.a), True),
    "D72 item of a dict": (NS(o={"a": 1, "b": 2}), NS(o={"a": 2, "b": 2}), lambda c: c.o["a"], True),
    "D73 text becomes int": (NS(a="1"), NS(a=1), lambda c: repr(c.a), True),
    "D74 int becomes float": (NS(a=1), NS(a=1.0), lambda c: repr(c.a), True),
    "D75 default takes over": (NS(a=1, z=4), NS(a=1), lambda c: getattr(c, "z", 0), True),
    "D76 callable edited": (NS(f=lambda x: x + 1), NS(f=lambda x: x + 2), lambda c: c.f(1), True),
    "D76 callable not edited": (NS(f=lambda x: x + 1), NS(f=lambda x: x + 1), lambda c: c.f(1), False),
    "D77 range": (NS(a=range(3)), NS(a=range(4)), lambda c: len(c.a), True),
    "D78 option added": (NS(a=1), NS(a=1, new=2), lambda c: c.a, False),
    "D79 read twice": (NS(a=1), NS(a=1), lambda c: c.a + c.a, False),
    "D82 dict config, read key": ({"a": 1, "b": 2}, {"a": 5, "b": 2}, lambda c: c["a"], True),
    "D83 dict config, other key": ({"a": 1, "b": 2}, {"a": 1, "b": 5}, lambda c: c["a"], False),
}


@pytest.mark.parametrize(("before", "after", "read", "runs"), CASES.values(), ids=CASES)
def test_case(before, after, read, runs):
    tape = record(before, read)
    assert bool(changed(tape, after)) is runs
    assert changed(tape, before) == []


@pytest.mark.parametrize(("before", "after", "read", "runs"), CASES.values(), ids=CASES)
def test_read_gives_what_the_plain_config_gives(before, after, read, runs):
    results = []
    record(before, lambda c: results.append(read(c)))
    assert results == [read(before)]


def test_d80_auxiliary_option_is_read_without_a_trace():
    before, after = NS(a=1, tmp="x"), NS(a=1, tmp="y")
    tape = record(before, lambda c: (c.a, c.tmp), auxiliary=["tmp"])
    assert tape.keys() == {"value a"}
    assert changed(tape, after, auxiliary=["tmp"]) == []


def test_5000_elements_and_one_of_them_changes():
    numpy = pytest.importorskip("numpy")
    before, after = numpy.zeros(5000), numpy.zeros(5000)
    after[2500] = 1
    tape = record(NS(a=before), lambda c: c.a.sum())
    assert changed(tape, NS(a=before.copy())) == []
    assert changed(tape, NS(a=after)) == ["value a"]


def test_nan_equals_nan_and_sets_have_no_order():
    tape = record(NS(a=float("nan"), s={"x", "y", "z"}), lambda c: (c.a, c.s))
    assert changed(tape, NS(a=float("nan"), s={"z", "y", "x"})) == []


def test_switching_back_gives_the_old_answers():
    first, second = NS(m=NS(lr=1)), NS(m=3)
    read = lambda c: getattr(c.m, "lr", None)
    tape = record(first, read)
    assert changed(tape, second) == ["value m", "value m.lr"]
    assert changed(tape, NS(m=NS(lr=1))) == []
    assert changed(record(second, read), NS(m=3)) == []

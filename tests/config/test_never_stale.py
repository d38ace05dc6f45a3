"""Whatever a program reads: if another config gives it another result, a recorded answer differs."""

from __future__ import annotations

import argparse
import copy
import re
from types import SimpleNamespace

import pytest
from config_tape import changed, record
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx.config import ConfigBase

NAMES = ["a", "b", "c", "_d"]


class Plain:
    shared = 7

    def __init__(self, **options):
        self.__dict__.update(options)

    @property
    def b_or_zero(self):
        return getattr(self, "b", 0)

    def summary(self, *names):
        return [show(getattr(self, name, None)) for name in names]


class Other(Plain):
    shared = 8


class Base(ConfigBase):
    def __init__(self, **options):
        for name, value in options.items():
            setattr(self, name, value)


GROUPS = [SimpleNamespace, argparse.Namespace, Plain, Other, Base]

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from([0.0, -0.0, 1.0, float("nan")]),
    st.sampled_from(["", "1", "a"]),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2), max_size=2),
    st.tuples(st.integers(0, 2), st.booleans()),
    st.frozensets(st.integers(0, 3), max_size=2),
    st.sampled_from(GROUPS),
    st.sampled_from([len, abs]),
)


def group_of(values):
    options = st.dictionaries(st.sampled_from(NAMES), values)
    return st.builds(lambda make, options: make(**options), st.sampled_from(GROUPS), options)


groups = st.recursive(
    group_of(leaves),
    lambda inner: group_of(inner | leaves),
    max_leaves=6,
)
configs = groups | st.dictionaries(st.sampled_from(NAMES), groups | leaves)
paths = st.lists(st.sampled_from([*NAMES, "shared", "b_or_zero"]), max_size=3)


def show(value):
    """A value with types, so that 1, 1.0 and True differ; groups by their parameters."""
    if isinstance(value, (SimpleNamespace, argparse.Namespace, Plain, ConfigBase)):
        return "group", [(name, show(inner)) for name, inner in vars(value).items()]
    if isinstance(value, dict):
        return "dict", [(name, show(inner)) for name, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [show(inner) for inner in value]
    if isinstance(value, frozenset):
        return "frozenset", sorted(map(repr, value))
    return type(value).__name__, repr(value)


def step(value, name):
    return value[name] if isinstance(value, dict) else getattr(value, name)


ENDS = {
    "value": show,
    "nothing": lambda value: "reached",
    "names": lambda value: list(value if isinstance(value, dict) else vars(value)),
    "has a": lambda value: hasattr(value, "a"),
    "get a": lambda value: show(getattr(value, "a", "none")),
    "in": lambda value: "a" in value,
    "len": len,
    "bool": bool,
    "repr": repr,
    "copy": lambda value: show(copy.copy(value)),
    "deepcopy": lambda value: show(copy.deepcopy(value)),
    "equal": lambda value: value == SimpleNamespace(a=1),
    "class": lambda value: value.__class__.__name__,
    "is a Plain": lambda value: isinstance(value, Plain),
    "method": lambda value: value.summary("a", "shared"),
    "items": lambda value: [(name, show(inner)) for name, inner in value.items()],
    "keywords": lambda value: (lambda **options: sorted(options))(**value),
    "callable": callable,
}


def run(program, config):
    return [run_one(path, end, config) for path, end in program]


def run_one(path, end, config):
    try:
        for name in path:
            config = step(config, name)
        return ENDS[end](config)
    except (AttributeError, KeyError, TypeError) as error:
        return "TypeError" if isinstance(error, TypeError) else "missing"


def same(one, other):
    """Equal with their types; addresses, which differ from run to run, are left out."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(one)) == re.sub(r" at 0x[0-9a-f]+", "", repr(other))


programs = st.lists(st.tuples(paths, st.sampled_from(sorted(ENDS))), min_size=1, max_size=4)


@settings(max_examples=1500)
@given(before=configs, after=configs, program=programs)
def test_never_stale_never_wrong(before, after, program):
    check(before, after, program)


@pytest.mark.campaign
@settings(max_examples=50_000, derandomize=False)
@given(before=configs, after=configs, program=programs)
def test_never_stale_never_wrong_at_length(before, after, program):
    check(before, after, program)


def check(before, after, program):
    results = []
    tape = record(before, lambda view: results.append(run(program, view)))
    plain = run(program, before)
    assert same(results[0], plain)
    if not same(run(program, after), plain):
        assert changed(tape, after)


@settings(max_examples=300)
@given(config=configs, program=programs)
def test_never_wasteful(config, program):
    tape = record(config, lambda view: run(program, view))
    assert changed(tape, copy.deepcopy(config)) == []


@settings(max_examples=300)
@given(config=groups, program=programs)
def test_an_unread_parameter_is_no_change(config, program):
    quiet = [(path, end) for path, end in program if end in ("nothing", "has a", "get a", "is a Plain")]
    tape = record(config, lambda view: run(quiet, view))
    more = copy.deepcopy(config)
    more.unread = object()
    assert changed(tape, more) == []


def set_below(config, path, value):
    """Whether there is such a place, which then holds `value`."""
    for name in path[:-1]:
        config = vars(config).get(name)
        if not isinstance(config, tuple(GROUPS)):
            return False
    found = path[-1] in vars(config)
    setattr(config, path[-1], value)
    return found


@settings(max_examples=300)
@given(config=groups, value=leaves, path=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2))
def test_auxiliary_paths_leave_no_trace(config, value, path):
    name, other = ".".join(path), copy.deepcopy(config)
    program = [(path, "value"), ([], "repr"), ([], "names")]
    tape = record(config, lambda view: run(program, view), auxiliary=[name])
    if set_below(other, path, value):
        assert changed(tape, other, auxiliary=[name]) == []

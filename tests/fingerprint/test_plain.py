"""Plain functions have the roots that the graph gives them, whatever is edited, and whatever runs do to globals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.graph import Graph
from pyplantx.fingerprint.plain import PlainFunctions

HEAD = """
import math
import numpy as np
from functools import lru_cache, partial
from math import floor
L = [1]
class C:
    n = 1
    def go(self, x): return x
"""
CLOSED_OVER = """
def make(k, g):
    def {f}(x):
        return g(k) + {body}
    return {f}
{f} = make(2, lambda x: x + K0)
"""
COUNTING = """
def make():
    k = 1
    def {f}(x):
        nonlocal k
        k += 1
        return k + {body}
    return {f}
{f} = make()
"""
SHAPES = [
    "def {f}(x):\n    return {body}",
    "def {f}(x):\n    'Text.'\n    return {body}",
    "def {f}(x, k=3, t=(1, 'a')):\n    return k + {body}",
    "def {f}(x, k=[3]):\n    return {body}",
    "def {f}(x, *, k=3):\n    return {body}",
    "def {f}(x):\n    import json\n    return {body}",
    "def {f}(x):\n    global K0\n    return {body}",
    CLOSED_OVER,
    COUNTING,
]
HOLDERS = [
    "class C:\n    n = 1\n    def go(self, x): return {f}(x)",
    "class C:\n    n = {f}\n    def go(self, x): return self.n",
    "L = [{f}, 1]",
    "{k} = {f}",
    "{k} = lambda: {f}(1)",
    "{k} = partial({f}, 2)",
    "{k} = lru_cache({f})",
]
FUNCTIONS, CONSTANTS = [f"f{i}" for i in range(5)], [f"K{i}" for i in range(3)]
VALUES = ["1", "1.0", "True", "'a'", "'__name__'", "b'x'", "None", "(1, 'b')", "(1, [2])", "[2]", "bytearray(2)", "len"]
USED = [*CONSTANTS, "L[0]", "len('ab')", "math.floor(x)", "floor(x)", "np.linalg.norm(x)", "C().go(x)", "gone"]
DONE = ["L.append(2)", "C.n = 2", "gone = 1", "{f}.hits = 1", "{f}.__doc__ = 'Other.'", "{f}.__defaults__ = (9,)"]

names = st.sampled_from(FUNCTIONS)
terms = st.one_of(
    st.sampled_from(USED),
    *[st.builds(text.format, names) for text in ("{}(x)", "{}(x)", "{}.__doc__", "{}.__name__", "{}.hits")],
)
bodies = st.lists(terms, max_size=3).map(lambda parts: " + ".join(["x", *parts]))
definitions = st.one_of(
    st.builds(lambda f, shape, body: shape.format(f=f, body=body), names, st.sampled_from(SHAPES), bodies),
    st.builds(lambda f, k, text: text.format(f=f, k=k), names, st.sampled_from(CONSTANTS), st.sampled_from(HOLDERS)),
)
changes = st.one_of(
    definitions,
    st.builds("{} = {}".format, st.sampled_from(CONSTANTS), st.sampled_from(VALUES)),
    st.builds(lambda text, f: text.replace("{f}", f), st.sampled_from(DONE), names),
)


class Session:
    """One process: a namespace, and fingerprints of all its functions, activity by activity."""

    def __init__(self, source: str) -> None:
        self.names: dict[str, Any] = {"__name__": "app"}
        self.printer = Fingerprinter()
        exec(source, self.names)

    def activity(self, during: list[str], look_into: int = 0) -> list[object]:
        """What is told of an activity in which that happens, and the parts of so many functions after it."""
        functions = [self.names[name] for name in FUNCTIONS]
        self.printer.begin_activity()
        told: list[object] = [self.printer.fingerprint(function) for function in functions]
        self.printer.freeze(functions)
        for text in during:
            exec(text, self.names)
        told += [self.printer.fingerprint(function) for function in functions]
        told += [self.printer.parts(function) for function in functions[:look_into]]
        told += [self.printer.remains(function) for function in functions]
        self.printer.end_activity()
        return [*told, self.printer.state_changes()]


def by_graph() -> Any:
    """No function is plain."""
    return mock.patch.object(PlainFunctions, "root", lambda self, function: None)


@given(
    st.lists(definitions, min_size=3, max_size=8),
    st.lists(st.tuples(st.lists(changes, max_size=2), st.lists(changes, max_size=2)), min_size=1, max_size=4),
    st.sampled_from([0, 2, 5]),
)
def test_plain_functions_are_told_as_by_the_graph(
    program: list[str], activities: list[tuple[list[str], list[str]]], look_into: int
) -> None:
    start = [f"def {f}(x): return x" for f in FUNCTIONS] + [f"{k} = 5" for k in CONSTANTS]
    source = HEAD + "\n".join([*start, *program])
    plain, slow = Session(source), Session(source)
    for during, between in activities:
        told = plain.activity(during, look_into)
        with by_graph():
            assert told == slow.activity(during, look_into)
        for text in between:
            exec(text, plain.names)
            exec(text, slow.names)


def counted_nodes() -> tuple[Any, Callable[[], int]]:
    """Counts the nodes that are made."""
    made, node = itertools.count(), Graph.node

    def counting(self: Graph, obj: Any) -> Any:
        next(made)
        return node(self, obj)

    return mock.patch.object(Graph, "node", counting), lambda: next(made)


USUAL = {
    "helper": "def f(x): return g(x)\ndef g(x): return h(x) + K\ndef h(x): return x\nK = 1",
    "library": "import math\ndef f(x): return math.floor(x) + len('a')",
    "default": "def f(x, k=2, name='a'): return g(x)\ndef g(x): return x",
    "closure": "def make(k, g):\n    def f(x): return g(k) + x\n    return f\nf = make(1, lambda x: x)",
    "class": "class C: pass\ndef f(x): return C()",
    "attribute of a module": "import math\ndef f(x): return math.pi * x",
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_functions_are_plain(name: str) -> None:
    session = Session(USUAL[name])
    counting, count = counted_nodes()
    with counting:
        session.printer.fingerprint(session.names["f"])
    assert count() == name.count("class")


@pytest.mark.parametrize("length", [3, 200])
def test_calls_of_any_depth(length: int) -> None:
    source = "\n".join(f"def c{i}(x): return c{i + 1}(x)" for i in range(length)) + f"\ndef c{length}(x): return x"
    plain, slow = Session(source), Session(source)
    with by_graph():
        expected = slow.printer.fingerprint(slow.names["c0"])
    assert plain.printer.fingerprint(plain.names["c0"]) == expected


def test_what_runs_change_is_named_as_ever() -> None:
    others = "".join(f"\ndef {f}(x): return x" for f in FUNCTIONS[1:])
    session = Session("K = 1\ndef g(x): return x\ndef f0(x, k=1): return g(x) + K" + others)
    session.activity(["K = 2", "g.hits = 1", "f0.__defaults__ = (2,)"])
    assert session.printer.state_changes() == ["constant app.K", "function app.f0: defaults", "function app.g.hits"]

"""Names that a function may send, and the paths by which code refers to other code."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.fingerprint.bytecode import Body, instructions
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.hints import _first_argument, _literal
from pyplantx.fingerprint.mentions import texts_in
from pyplantx.fingerprint.records import Pieces, pieces_to_json
from pyplantx.fingerprint.sending import SendHints, hints, mentions
from tests.fingerprint.harness import Role, program, subreactor

HINTS = {
    "pipe.send('x', 1)": (["x"], []),
    "pipe.allocate('x', 1, shape=(4,))": (["x"], []),
    "h = yield pipe.allocate('x'); pipe.send('y', h)": (["x", "y"], []),
    "pipe.send('x', NAME(*k, **k))": (["x"], []),
    "pipe.send(f'x_{k}', NAME(*k))": ([], ["x_7"]),
    "pipe.send(f'x_{k}', 1)": ([], ["x_7", "x_a b"]),
    "pipe.send(f'{k}_x_{k:03d}', 1)": ([], ["1_x_001"]),
    "pipe.send('x_' + str(k), 1)": ([], ["x_1"]),
    "pipe.send('x_%d_%s' % (k, k), 1)": ([], ["x_1_b"]),
    "pipe.send('x_{}.{}'.format(k, k), 1)": ([], ["x_1.2"]),
    "pipe.send(NAME, 1)": (["from_global"], []),
    "pipe.send(NAME + '_b', 1)": (["from_global_b"], []),
    "pipe.send(NAME + str(k), 1)": ([], ["from_global1"]),
    "pipe.send(COUNT + k, 1)": ([], []),
    "pipe.send(names.OUT, 1)": (["from_module"], []),
    "pipe.send(k, 1)": ([], []),
    "pipe.send(f'{k}', 1)": ([], []),
    "pipe.send(5, 1)": ([], []),
    "pipe.send((n := 'x'), n)": (["x"], []),
    "pipe.send('x', [q for q in k if q])": (["x"], []),
    "pipe.send('x', k if k else 2)": (["x"], []),
    "pipe.send('x' + ('a' if k else 'b'), 1)": ([], ["xa", "xb"]),
    "pipe.send('x' + ('y' + (k or 'z')), 1)": ([], ["xyz"]),
    "pipe.send(f\"x{'a' if k else 'b'}\", 1)": ([], ["xa", "xb"]),
    "pipe.send(f\"{NAME}-{'a' if k else 'b'}\", 1)": ([], ["from_global-a"]),
    "pipe.send(NAME + (k or 'a'), 1)": ([], ["from_globala"]),
    "pipe.send('x%s' % (k or 1), 1)": ([], ["x1"]),
    "pipe.send('x_{}'.format(k or 1), 1)": ([], ["x_1"]),
    "pipe.send(('x', 'y')[1 if k else 0], 1)": ([], []),
    "pipe.send('xy'[1 if k else 0], 1)": ([], []),
    "pipe.send(NAME if k else 'b', 1)": ([], []),
    "pipe.send(NAME, k if k else 2)": (["from_global"], []),
    "pipe.send('x' + str(k), [q for q in k if q] or 2)": ([], ["x1"]),
    "pipe.send('x', lambda: pipe.send('y', 1))": (["x", "y"], []),
    "pipe.send('x', (yield pipe.receive('y')))": (["x"], []),
    "pipe.send('x', {'a': [k, 1], **k})": (["x"], []),
    "[pipe.send(f'x{q}', q) for q in k]": ([], ["x1"]),
    "for q in k:\n        pipe.send('a', q) if q else pipe.send('b', -q)": (["a", "b"], []),
    "helper(pipe)": (["helped"], []),
    "yield from sub(pipe)": (["subbed"], []),
    "other_reactor(pipe)": ([], []),
    "pipe.receive('x')": ([], []),
}
CONTEXT = """
import types
NAME = 'from_global'
COUNT = 1
names = types.ModuleType('names'); names.OUT = 'from_module'
def helper(pipe): pipe.send('helped', 1)
def sub(pipe): pipe.send('subbed', 1); yield
def other_reactor(pipe): pipe.send('elsewhere', 1)
"""


@pytest.mark.parametrize("body", HINTS)
def test_hints(body: str) -> None:
    names: dict[str, Any] = {}
    exec(f"{CONTEXT}def f(pipe, k):\n    {body}\n", names)
    names["sub"], names["other_reactor"] = Role("subreactor", names["sub"]), Role("reactor", names["other_reactor"])
    found = hints(Fingerprinter(), names["f"])
    expected, matched = HINTS[body]
    assert list(found.names) == expected
    assert all(any(re.fullmatch(pattern, name) for pattern in found.patterns) for name in matched)
    assert bool(found.patterns) == bool(matched)


MENTIONS = {
    "for q in ['x', 'y']: pipe.send(q, 1)": {"x", "y"},
    "[pipe.send(q, 1) for q in LISTED]": {"l1", "l2"},
    "for q, v in PAIRS.items(): pipe.send(q, v)": {"p1", "p2"},
    "pipe.send(Names.X, 1); pipe.send(Kind.A.value, 2)": {"of_class", "of_enum"},
    "passes_on(pipe, 'x')": {"x", "by_default"},
    "pipe.send('x' if k else 'y', (yield pipe.receive('z', 'w')))": {"x", "y"},
}
MENTIONED = """
import enum
LISTED, PAIRS = ['l1', 'l2'], {'p1': 1, 'p2': 2}
class Names: X = 'of_class'
class Kind(enum.Enum): A = 'of_enum'
def passes_on(pipe, name='by_default'): pipe.send(name, 1)
"""


@pytest.mark.parametrize("body", MENTIONS)
def test_mentions(body: str) -> None:
    names: dict[str, Any] = {"__name__": "mentioned"}
    exec(f"{MENTIONED}def f(pipe, k):\n    {body}\n", names)
    every = set().union(*MENTIONS.values(), "zw")
    assert mentions(Fingerprinter(), names["f"]) & every == MENTIONS[body]


class Unread(dict[str, int]):
    """Can't be looked at in its own words."""

    def __len__(self) -> int:
        raise RuntimeError

    __iter__ = values = __len__  # type: ignore[assignment]


class Closed(Mapping[str, str]):
    """As a file of HDF5 is."""

    def __getitem__(self, key: str) -> str:
        raise ValueError

    def __len__(self) -> int:
        raise ValueError

    def __iter__(self) -> Iterator[str]:
        raise ValueError


def test_what_code_refers_to_is_looked_through_for_mentions_without_asking_it() -> None:
    gone = weakref.proxy(Role("?", None))
    held = [gone, Closed(), Unread(x=1), ["y", ("z", ["too deep"])]]
    names: dict[str, Any] = {"__name__": "mentioned", "HELD": held}
    exec("def f(pipe, *, given='by name'): HELD\n", names)
    assert mentions(Fingerprinter(), names["f"]) >= {"x", "y", "z", "by name"}
    assert "too deep" not in mentions(Fingerprinter(), names["f"])
    assert len(list(texts_in([[["x"] * 100] * 100] * 100))) < 10_000  # of a million


FIRST = (
    "'x'",
    "'x' + k",
    "'x' + str([q for q in k])",
    "f'x{k}'",
    "'x{}'.format(k)",
    "'x'.upper()",
    "(w := 'x')",
    "'x' or k",
)
REST = (
    "",
    ", 1",
    ", k + 1",
    ", k(w, a=1)",
    ", [q for q in k]",
    ", k if w else 2",
    ", *k",
    ", **k",
    ", {q: 1 for q in k}, a=w",
)


@pytest.mark.parametrize("first", FIRST)
def test_the_short_cut_for_literals_agrees_with_the_stack_machine(first: str) -> None:
    taken = 0
    for rest in REST:
        code = compile(f"def f(pipe, k, w): pipe.send({first}{rest})", "x", "exec").co_consts[0]
        body = Body(code)
        start = next(at for at, one in enumerate(instructions(code, body.units)) if one.arg == "send") + 1
        short = _literal(code, body, start)
        taken += short is not None
        assert short in (None, _first_argument(code, body, start))
    assert taken or first != "'x'"


@given(st.lists(st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=2), min_size=1, max_size=3), max_size=3))
def test_pieces_are_written_as_json(sent: list[Pieces]) -> None:
    assert pieces_to_json(sent) == (json.dumps(sent, separators=(",", ":")) if sent else "")


def test_factories_are_told_apart_by_their_closures() -> None:
    def make(n: int) -> Any:
        def reactor(pipe: Any) -> Any:
            x = yield pipe.receive(f"y{n}")
            pipe.send(f"y{n + 1}", x)
            pipe.send(f"z_{n}", x)

        return reactor

    found = hints(Fingerprinter(), make(3))
    assert found.names == ("z_3",)
    assert [bool(re.fullmatch(found.patterns[0], name)) for name in ("y4", "z_3")] == [True, False]


def test_hints_of_something_else() -> None:
    assert hints(Fingerprinter(), print) == SendHints((), ())


FILES = {
    "app.py": (
        "import utils\nfrom utils import mid as middle\nfrom api import sub\n"
        "@sub\ndef low(pipe): yield\n"
        "def helper(pipe): yield from low(pipe)\n"
        "def main(pipe):\n    from utils import late\n    yield from low(pipe); yield from utils.high(pipe)\n"
        "    yield from middle(pipe)\n"
        "    yield from late(pipe); helper(pipe)\n"
        "def through(pipe): yield from helper(pipe)\n"
        "def make():\n    inner = sub(lambda pipe: 1)\n    def closed(pipe): yield from inner(pipe)\n"
        "    return closed, inner\n"
        "closed, inner = make()\n"
    ),
    "utils.py": "from api import sub\n"
    + "".join(f"@sub\ndef {name}(pipe): yield\n" for name in ("high", "mid", "late", "other")),
    "api.py": "from tests.fingerprint.harness import subreactor as sub\n",
}


def places_of(printer: Fingerprinter, caller: Any, subreactor: Any) -> list[str]:
    named = printer.named_directly(caller)
    return [f"{number}.{len(named)}" for number, held in enumerate(named) if held is subreactor]


def test_places(tmp_path: Path) -> None:
    with program(tmp_path, FILES) as app:
        printer = Fingerprinter()
        utils = app.utils
        expected: list[tuple[Any, list[tuple[Any, list[str]]]]] = [
            (app.main, [(app.low, ["0.5", "4.5"]), (utils.mid, ["1.5"]), (utils.high, ["2.5"]), (utils.late, ["3.5"])]),
            (app.through, [(app.low, ["0.1"])]),
            (app.closed, [(app.inner, ["0.1"])]),
        ]
        for caller, named in expected:
            for target, places in named:
                assert places_of(printer, caller, target) == places
                assert places_of(printer, Role("reactor", caller), target) == places
                assert {printer.at_place(caller, place) for place in places} == {target}
        assert places_of(printer, app.main, utils.other) == []
        for place in ("5.5", "0.4", "-1.5", "0", "low", ""):
            with pytest.raises(LookupError):
                printer.at_place(app.main, place)


def test_places_follow_redefinition() -> None:
    names: dict[str, Any] = {}
    exec("def low(pipe): yield\ndef main(pipe): yield from low(pipe)", names)
    names["low"] = first = subreactor(names["low"])
    printer = Fingerprinter()
    assert places_of(printer, names["main"], first) == ["0.1"]
    names["low"] = second = subreactor(first.function)
    printer.begin_activity()
    assert printer.at_place(names["main"], "0.1") is second
    printer.end_activity()
    del names["low"]
    printer.begin_activity()
    with pytest.raises(LookupError):
        printer.at_place(names["main"], "0.1")


def test_what_is_held_and_what_is_defined() -> None:
    names: dict[str, Any] = {"sub": subreactor}
    exec("@sub\ndef low(pipe): pass\nS = [low]\ndef make():\n    @sub\n    def one(pipe): pass\n    return one", names)
    exec("def lies(): return S\ndef says(): return low\ndef makes(): return make()", names)
    printer, low, made = Fingerprinter(), names["low"], names["make"]()
    assert [printer.holds(names[name], low) for name in ("lies", "says", "makes")] == [True, False, False]
    assert [printer.defines(names[name], made) for name in ("lies", "says", "makes")] == [False, False, True]
    assert not printer.defines(names["makes"], subreactor(print))

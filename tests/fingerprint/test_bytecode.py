"""Code units and control flow, against what the standard library's ``dis`` says about the same code."""

from __future__ import annotations

import dis
import functools
import gc
import opcode
import sys
import types
from typing import Any

import pytest

from pyplantx.fingerprint.bytecode import NAME, Body, _widen, handlers, instructions
from pyplantx.fingerprint.flow import Flow
from pyplantx.fingerprint.normalform import normalise
from tests.fingerprint.harness import of_source

MODULES = ["argparse", "heapq", "inspect", "json.decoder", "shutil", "textwrap", "typing"]
NOT_THERE = {"CACHE", "NOP", "RESUME", "PRECALL", "PUSH_NULL", "EXTENDED_ARG"}
FUSED = {"LOAD_FAST_LOAD_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST", "RETURN_CONST"}
UNCONDITIONAL = ("JUMP_FORWARD", "JUMP_BACKWARD")


def nested(code: types.CodeType) -> list[types.CodeType]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [code, *(one for const in inner for one in nested(const))]


@functools.cache
def codes(name: str) -> list[types.CodeType]:
    module = __import__(name, fromlist=["x"])
    with open(module.__file__, encoding="utf-8") as stream:
        return nested(compile(stream.read(), "x.py", "exec"))


def listed(code: types.CodeType) -> list[dis.Instruction]:
    return [one for one in dis.get_instructions(code) if one.opname not in NOT_THERE]


@pytest.mark.parametrize("name", MODULES)
def test_the_instructions_are_those_that_dis_lists(name: str) -> None:
    for code in codes(name):
        body, expected = Body(code), [part for one in listed(code) for part in parts(one)]
        assert list(body.ops) == [op for op, _ in expected]
        assert [(unit & 255, unit >> 8) for unit in body.units] == expected


def parts(one: dis.Instruction) -> list[tuple[int, int]]:
    """Opcode and argument of an instruction, or of the two that it stands for."""
    arg = one.arg or 0
    if one.opname == "RETURN_CONST":
        return [(opcode.opmap["LOAD_CONST"], arg), (opcode.opmap["RETURN_VALUE"], 0)]
    if one.opname in FUSED:
        verbs = [word for word in one.opname.split("_") if word in ("LOAD", "STORE")]
        slots = (arg >> 4, arg & 15)
        return [(opcode.opmap[f"{verb}_FAST"], slot) for verb, slot in zip(verbs, slots, strict=True)]
    return [(one.opcode, arg)]


@pytest.mark.parametrize("name", MODULES)
def test_names_are_those_that_dis_lists(name: str) -> None:
    for code in codes(name):
        named = [one.arg for one in instructions(code, Body(code).units) if one.kind == NAME]
        expected = [one for one in listed(code) if one.opcode in opcode.hasname]
        assert named == [code.co_names[place(one)] for one in expected]


def place(one: dis.Instruction) -> int:
    """The index of a name, below which some opcodes keep flags."""
    flags = {"LOAD_GLOBAL": 1, "LOAD_SUPER_ATTR": 2, "LOAD_ATTR": int(sys.version_info >= (3, 12))}
    return (one.arg or 0) >> flags.get(one.opname, 0)


@pytest.mark.parametrize("name", MODULES)
def test_jumps_lead_where_dis_says(name: str) -> None:
    for code in codes(name):
        everything, body = list(dis.get_instructions(code)), Body(code)
        flow, places = Flow(code, body), body.places()
        jumps = [one for one in everything if one.opcode in dis.hasjrel]
        assert body.has_jumps() == bool(jumps)
        for one in jumps:
            at, target = places[one.offset // 2], places[one.argval // 2]
            if one.opname.startswith(UNCONDITIONAL):
                assert flow.goes[at] == target
            else:
                assert flow.splits[at + 1][1] == target


@pytest.mark.parametrize("name", MODULES)
def test_handlers_are_those_that_dis_lists(name: str) -> None:
    parse: Any = dis._parse_exception_table  # type: ignore[attr-defined]
    for code in codes(name):
        expected = [
            (2 * at, 2 * (at + n), 2 * to, d >> 1, bool(d & 1)) for at, n, to, d in handlers(code.co_exceptiontable)
        ]
        assert expected == [(one.start, one.end, one.target, one.depth, one.lasti) for one in parse(code)]


def test_blocks_are_not_jumped_into() -> None:
    for code in codes("argparse"):
        flow, size = Flow(code, Body(code)), len(Body(code).entries)
        starts = set(flow.ends)
        assert set(flow.goes.values()) <= starts
        assert {target for _, target in flow.splits.values()} <= starts
        assert set(flow.splits) <= {*starts, size}


def test_long_arguments() -> None:
    extended, load = opcode.EXTENDED_ARG, opcode.opmap["LOAD_CONST"]
    units = [load | 7 << 8, extended | 1 << 8, extended | 2 << 8, load | 3 << 8, load | 4 << 8]
    widened = list(_widen(units))
    assert [widened[0], *widened[3:]] == [load | 7 << 8, load | 0x010203 << 8, load | 4 << 8]


def test_fused_instructions_are_taken_apart() -> None:
    def swap(a: Any, b: Any) -> Any:
        a, b = b, a
        return a, b

    spelt = {one.name for one in instructions(swap.__code__, Body(swap.__code__).units)}
    assert spelt.isdisjoint(FUSED)
    assert {"LOAD_FAST", "STORE_FAST", "RETURN_VALUE"} <= spelt


CLASS = """
def f(x):
    class Inner:
        {}
        y = 1
    return Inner
"""


@pytest.mark.parametrize(
    "body",
    [
        "if x: __doc__ = '{}'",
        "if x: pass\n        else: __doc__ = '{}'",
        "while x:\n            __doc__ = '{}'\n            if x: break",
        "try: __doc__ = '{}'\n        except ValueError: __doc__ = '{}'",
    ],
)
def test_docstrings_that_a_class_body_jumps_over(body: str) -> None:
    one, other = (of_source(CLASS.format(body.replace("{}", doc))) for doc in ("a", "b"))
    assert one == other
    assert one != of_source(CLASS.format(body.replace("{}", "a").replace("__doc__", "text")))


def python_calls(code: types.CodeType) -> int:
    """How many Python functions run while a code object is normalised."""
    calls = 0

    def count(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    gc.collect()  # what other tests have left has functions of its own to call
    gc.disable()
    sys.setprofile(count)
    try:
        normalise(code)
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def test_instructions_cost_no_call_each() -> None:
    """What makes it quick: twice as many instructions, constants and names that are known already, no more calls."""
    codes_of = []
    for lines in (50, 100):
        namespace: dict[str, Any] = {}
        exec("def f(x, y):\n" + "    x = y.a + x[2]\n" * lines + "    return x", namespace)
        codes_of.append(namespace["f"].__code__)
    for code in codes_of:
        normalise(code)  # fills the table of units
    few, many = map(python_calls, codes_of)
    assert few == many < 40

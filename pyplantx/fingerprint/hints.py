"""What names a function may send: the first argument of ``.send(`` and ``.allocate(``, read off the bytecode.

Only hints: they say whom to ask first on a cold start, never what is true. A small stack machine runs over
the instructions behind the attribute load and keeps texts in *pieces*: ``["=", text]`` is literal,
``["g", "a.b"]`` a global, ``["d", name]`` a closure variable (with ``"+"`` behind it: if it holds a text), ``["*"]``
anything. It runs as far as the first jump; what takes the first argument behind that is found by the height of the
stack alone (`taker`), which is what ``sends.py`` goes by as well.
"""

from __future__ import annotations

import opcode
import re
import sys
from types import CodeType
from typing import Final

from pyplantx.fingerprint.bytecode import (
    BRANCH,
    CONST,
    END,
    FIND_ATTRIBUTES,
    JUMP,
    LOCAL,
    TEST,
    Body,
    Instruction,
    entry_of,
    instructions,
)
from pyplantx.fingerprint.records import ANYTHING, Pieces

_ANY: Final[Pieces] = [["*"]]
#: Methods whose first argument is the name of what is sent.
VERBS: Final = frozenset({"send", "allocate"})
_PERCENT: Final = r"%[-#0 +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z]"  # texts: few programs need them compiled
_BRACES: Final = r"\{[^{}]*\}"
_STOPS: Final = frozenset({JUMP, TEST, BRANCH, END})
#: What may let a stack of two shrink to one and does nothing to that one; jumps besides.
_LEAVING: Final = ("POP_TOP ", "STORE_", "KW_NAMES ", "JUMP_IF_")
_LOAD_CONST: Final = opcode.opmap["LOAD_CONST"]
_CALL_FUNCTION_EX: Final = opcode.opmap["CALL_FUNCTION_EX"]
#: Where the stack machine goes its own ways: null pushes are not there, and after ``GET_ITER`` comes the call of a
#: comprehension, which takes the iterator in the place of self.
_CHANGES: Final = {
    **dict.fromkeys(("LOAD_FAST", "LOAD_CONST", "LOAD_GLOBAL", "LOAD_DEREF"), 1),
    **{"LOAD_ATTR": 0, "KW_NAMES": 0, "GET_ITER": -1},
}
_TEXTS: Final = frozenset("=gd")  # kinds of pieces that are a text, or may be one
_ADD: Final = (0, 13)  # BINARY_OP arguments
_REMAINDER: Final = (6, 19)


def find_hints(code: CodeType, body: Body) -> list[Pieces]:
    """The pieces of each name that is sent or allocated in this code object (nested code not included)."""
    names, entries = code.co_names, body.entries
    starts = [match.end() for match in FIND_ATTRIBUTES.finditer(body.ops) if names[entries[match.start()][2]] in VERBS]
    hints = [_literal(code, body, start) or _first_argument(code, body, start) for start in starts]
    return [pieces for pieces in hints if any([piece[0] != "*" for piece in pieces])]


# --- the usual case: the name is a literal --------------------------------------------------------------------


def _literal(code: CodeType, body: Body, start: int) -> Pieces | None:
    """The pieces of a first argument that is pushed as a literal and stays as it is until the call."""
    units = body.units
    literal = code.co_consts[units[start] >> 8] if units[start] & 255 == _LOAD_CONST else None
    if not isinstance(literal, str):
        return None
    depth = 1
    for at in range(start + 1, len(units)):
        before, depth = depth, depth + _change_of(units[at])
        if depth < _JUMPED:
            return [["=", literal]] if is_taken_by_call(body, at, before) else None
        if depth < 2:  # that was the call, or something that needs to be looked at
            return [["=", literal]] if depth < 1 else None
    return None


#: Below that is how high the stack is said to be where the argument does not end in a straight line.
_JUMPED: Final = -sys.maxsize // 2


class _Changes(dict[int, int]):
    """Unit -> by how much the stack of `_first_argument` grows; what ends the argument takes everything away."""

    def __missing__(self, unit: int) -> int:
        self[unit] = change = _change(unit)
        return change


def _change(unit: int) -> int:
    return -sys.maxsize if entry_of(unit)[0] in _STOPS else growth(unit, jumps=False)


_change_of: Final = _Changes().__getitem__


def growth(unit: int, *, jumps: bool) -> int:
    """By how much an instruction lets the stack grow; null pushes are not there, and so not counted."""
    name = entry_of(unit)[1].partition(" ")[0]
    op, number = unit & 255, unit >> 8
    if name in ("CALL", "CALL_KW"):
        return -number - (name == "CALL_KW")
    return _CHANGES[name] if name in _CHANGES else _effect(op, number, jumps)


def _effect(op: int, number: int, jumps: bool = False) -> int:
    effect = int(opcode.stack_effect(op, number if op >= opcode.HAVE_ARGUMENT else None, jump=jumps))
    return effect + (op == _CALL_FUNCTION_EX)  # which takes a null away


# --- over jumps: the height of the stack alone -----------------------------------------------------------------


def taker(body: Body, start: int, height: int) -> tuple[int, int] | None:
    """The first instruction that takes, or may change, what lies lowest on a stack, and the height behind it.

    Parameters
    ----------
    body : Body
    start : int
        The instruction to begin with.
    height : int
        Of the stack there: what is looked for counts as one.
    """
    targets = body.targets()
    heights = {start: height}  # where one comes to an instruction
    for at in range(start, len(body.entries)):
        here = heights.pop(at, None)
        if here is None:  # one comes here from behind only, if at all
            continue
        kind, text, _ = body.entries[at]
        after = here + _growth_at(body, at, jumps=False)
        if after < 1 or (after == 1 and kind not in (JUMP, TEST) and not text.startswith(_LEAVING)):
            return at, after
        if at in targets:
            heights[targets[at]] = here + _growth_at(body, at, jumps=True)
        if kind != JUMP:
            heights[at + 1] = after
    return None


def is_taken_by_call(body: Body, start: int, height: int) -> bool:
    """Whether what lies lowest on a stack stays as it is until it is an argument of a call; see `taker`."""
    taken = taker(body, start, height)
    return taken is not None and taken[1] < 1 and body.entries[taken[0]][1].startswith("CALL")


def _growth_at(body: Body, at: int, *, jumps: bool) -> int:
    if body.entries[at][1].startswith("GET_ITER") and not body.entries[at + 1][1].startswith("CALL"):
        return 0  # of a comprehension that is no function
    return growth(body.units[at], jumps=jumps)


def _behind_jumps(body: Body, at: int, stack: list[Pieces]) -> Pieces:
    """The first argument where it, or another one, is put together on several ways, which part at an instruction."""
    taken = taker(body, at, len(stack)) if len(stack) > 1 else None
    if taken is None:  # it is itself what is chosen
        return _ANY
    place, height = taken
    name, operator = body.entries[place][1], body.units[place] >> 8
    if name.startswith("CALL"):
        return stack[0] if height < 1 else _filled(stack[0])
    if name.startswith("BUILD_STRING"):
        return [piece for part in stack[:-1] for piece in part] + _ANY
    return _binary(stack[0], _ANY, operator) if name.startswith("BINARY_OP") else _ANY


# --- every other case: a stack machine ------------------------------------------------------------------------


def _first_argument(code: CodeType, body: Body, start: int) -> Pieces:
    stack: list[Pieces] = []
    before = ""
    for at, one in enumerate(instructions(code, body.units[start:]), start):
        kind, name = one.kind, one.name
        if kind in _STOPS:
            return _behind_jumps(body, at, stack)
        if kind == LOCAL and name == "LOAD_FAST":
            stack.append(_ANY)
        elif kind == CONST and name == "LOAD_CONST":
            stack.append(_constant(code.co_consts[one.arg]))
        elif name == "CALL" and before == "GET_ITER":  # 3.11: a comprehension, its iterator in the place of self
            stack.pop()
        elif name.startswith("CALL") and _positional(one) >= len(stack):
            break
        else:
            _step(stack, one)
        before = name
    return stack[0] if stack else _ANY


def _constant(value: object) -> Pieces:
    return [["=", value]] if isinstance(value, str) else _ANY


def _positional(one: Instruction) -> int:
    return one.raw + (one.name == "CALL_KW") if one.name in ("CALL", "CALL_KW") else 0


def _step(stack: list[Pieces], one: Instruction) -> None:
    """Carry out one instruction."""
    if one.name == "LOAD_GLOBAL":
        stack.append([["g", str(one.arg)]])
    elif one.name == "LOAD_DEREF":
        stack.append([["d", str(one.arg)]])
    elif one.name == "LOAD_ATTR":
        stack[-1:] = [_attribute(stack[-1] if stack else _ANY, str(one.arg))]
    elif one.name == "BUILD_STRING":
        parts = stack[len(stack) - one.raw :]
        stack[len(stack) - one.raw :] = [[piece for part in parts for piece in part]]
    elif one.name == "BINARY_OP" and len(stack) > 1:
        stack[-2:] = [_binary(stack[-2], stack[-1], one.raw)]
    elif one.name.startswith(("FORMAT_", "CONVERT_")):
        _format(stack, one)
    else:
        _other(stack, one)


def _attribute(owner: Pieces, name: str) -> Pieces:
    if len(owner) == 1 and owner[0][0] == "g":
        return [["g", f"{owner[0][1]}.{name}"]]
    if len(owner) == 1 and owner[0][0] == "=" and name == "format":
        return [["{}", owner[0][1]]]
    return _ANY


def _binary(left: Pieces, right: Pieces, operator: int) -> Pieces:
    if operator in _ADD and (left[0][0] in _TEXTS or right[-1][0] in _TEXTS):
        return [_text_only(piece) for piece in left + right]
    if operator in _REMAINDER and left[0][0] == "=":
        return _wild(_PERCENT, left[0][1])
    return _ANY


def _text_only(piece: list[str]) -> list[str]:
    """A variable that is added to something says nothing if it holds a number."""
    return [*piece[:2], "+"] if piece[0] in "gd" else piece


def _wild(holes: str, template: str) -> Pieces:
    parts = re.split(holes, template)
    pieces: Pieces = [["=", parts[0]]]
    for part in parts[1:]:
        pieces += [["*"], ["=", part]]
    return pieces


def _format(stack: list[Pieces], one: Instruction) -> None:
    """A hole of an f-string: as it is if it has neither a format nor ``!r``."""
    if one.name == "FORMAT_SIMPLE" or (one.name in ("FORMAT_VALUE", "CONVERT_VALUE") and one.raw in (0, 1)):
        return
    if one.name == "FORMAT_WITH_SPEC" or (one.name == "FORMAT_VALUE" and one.raw & 4):
        stack.pop()
    stack[-1:] = [_ANY]


def _other(stack: list[Pieces], one: Instruction) -> None:
    if one.name in ("CALL", "CALL_KW"):
        callee = stack[len(stack) - _positional(one) - 1]
        stack[len(stack) - _positional(one) - 1 :] = [_filled(callee)]
        return
    if one.kind == CONST:  # KW_NAMES leaves the stack alone
        return
    if one.name == "STORE_FAST" and len(stack) > 1:  # of `:=`, which keeps a copy
        stack.pop()
        return
    effect = _effect(one.op, one.raw)
    if effect > 0:
        stack += [_ANY] * effect
    elif stack:
        del stack[len(stack) + effect :]
        stack[-1:] = [_ANY]


def _filled(callee: Pieces) -> Pieces:
    """What a call gives: of the ``format`` of a text something is known."""
    return _wild(_BRACES, callee[0][1]) if callee[0][0] == "{}" else _ANY


def to_pattern(pieces: Pieces) -> str | None:
    """A regular expression for ``re.fullmatch``; None if it would match everything."""
    if not any(kind == "=" and rest[0] for kind, *rest in pieces):
        return None
    return "".join(re.escape(rest[0]) if kind == "=" else ANYTHING for kind, *rest in pieces)

"""Bytecode of CPython 3.11, 3.12 and 3.13 as a list of simple instructions.

Each opcode is looked up once in a table made from the ``opcode`` module. What only concerns layout or
speed (caches, fused loads, null pushes, jump directions) is gone from the list; what the instructions
mean is left to ``normalform.py`` and ``hints.py``.
"""

from __future__ import annotations

import opcode
import sys
from types import CodeType
from typing import Any, Final, NamedTuple

# In this order, so that `scan` sees with one comparison that an argument stays the number that it is.
DROP, PLAIN, CONST, LOCAL, END, NAME, CELL, JUMP, TEST, BRANCH = range(10)
_FUSED, _RETURN_CONST, _EXTEND, _NAME_HIGH, _SUPER = range(10, 15)


class Instruction(NamedTuple):
    """One instruction.

    Attributes
    ----------
    kind : int
        `DROP` … `END`.
    name : str
        Opcode name with variants merged (``LOAD_METHOD`` is ``LOAD_ATTR``); for `TEST` the value tested for.
    arg : Any
        `NAME`, `CELL`: a name; `LOCAL`: slot number; `CONST`: index; jumps: index of the target in the list;
        otherwise the raw number.
    op, raw : int
        Opcode and argument as they stand in the code, for stack effects.
    """

    kind: int
    name: str
    arg: Any
    op: int = 0
    raw: int = 0


class Handler(NamedTuple):
    """An exception handler: covers instructions ``start`` to ``end`` (exclusive)."""

    start: int
    end: int
    target: int
    depth: int
    lasti: bool


_DROPPED: Final = frozenset({"CACHE", "NOP", "RESUME", "PRECALL", "NOT_TAKEN", "PUSH_NULL"})
_ENDS: Final = frozenset({"RETURN_VALUE", "RAISE_VARARGS", "RERAISE"})
_RENAMED: Final = {"LOAD_METHOD": "LOAD_ATTR", "LOAD_FAST_CHECK": "LOAD_FAST", "LOAD_FAST_BORROW": "LOAD_FAST"}
_FUSED_PARTS: Final = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}
#: Opcodes whose name index has flag bits below it: how many.
_FLAG_BITS: Final = {"LOAD_GLOBAL": 1, "LOAD_ATTR": 1 if sys.version_info >= (3, 12) else 0}
_CACHES: Any = opcode._inline_cache_entries  # type: ignore[attr-defined]


def _jump_kind(name: str) -> tuple[int, str]:
    if name.startswith("JUMP_BACKWARD") or name in ("JUMP_FORWARD", "JUMP"):
        return JUMP, name
    if name.startswith("POP_JUMP"):
        return TEST, name.rpartition("IF_")[2]
    return BRANCH, name


def _entry(op: int, name: str) -> tuple[int, str]:
    """Kind and merged name of one opcode."""
    if name in _DROPPED or name.startswith("<"):
        return DROP, name
    if name == "EXTENDED_ARG":
        return _EXTEND, name
    if name in _FUSED_PARTS:
        return _FUSED, name
    if name == "RETURN_CONST":
        return _RETURN_CONST, name
    if op in opcode.hasjrel:
        return _jump_kind(name)
    return _operand_kind(op, name)


def _operand_kind(op: int, name: str) -> tuple[int, str]:
    merged = _RENAMED.get(name, name)
    if op in opcode.hasname:
        if name == "LOAD_SUPER_ATTR":
            return _SUPER, merged
        return (_NAME_HIGH if _FLAG_BITS.get(name) else NAME), merged
    groups = ((opcode.hasconst, CONST), (opcode.haslocal, LOCAL), (opcode.hasfree, CELL))
    kind = next((kind for group, kind in groups if op in group), PLAIN)
    return (END if name in _ENDS else kind), merged


_TABLE: Final = [_entry(op, name) for op, name in enumerate(opcode.opname[:256])]
_BACKWARD: Final = frozenset(op for op, name in enumerate(opcode.opname[:256]) if "BACKWARD" in name)


def _caches(op: int) -> int:
    if isinstance(_CACHES, dict):
        return int(_CACHES.get(opcode.opname[op], 0))
    return int(_CACHES[op])


_AFTER: Final = [2 + 2 * _caches(op) for op in range(256)]
_JUMPS: Final = (JUMP, TEST, BRANCH)


def slot_names(code: CodeType) -> tuple[str, ...]:
    """Names of the fast local slots: variables, then cells that are no parameters, then free variables."""
    cells = tuple(name for name in code.co_cellvars if name not in code.co_varnames)
    return code.co_varnames + cells + code.co_freevars


def scan(code: CodeType) -> tuple[list[Instruction], bool, list[int]]:
    """The instructions of a code object, layout removed.

    Returns
    -------
    list of Instruction
    bool
        Whether any of them jumps.
    list of int
        Index of the instruction at (or after) each code unit.
    """
    found: list[Instruction] = []
    raw, names = code.co_code, code.co_names
    slots: tuple[str, ...] = ()
    at, high, jumps, unit = [0] * (len(raw) // 2 + 1), 0, False, -1
    make = tuple.__new__  # a third of the time of Instruction(...)
    add, table = found.append, _TABLE
    for op, low in zip(raw[::2], raw[1::2]):
        unit += 1
        if not op:  # half of the code units are caches
            continue
        at[unit] = len(found)
        kind, name = table[op]
        if kind == DROP:
            continue
        number, high = high | low, 0
        arg: Any = number
        if kind < NAME:
            pass
        elif kind == NAME:
            arg = names[number]
        elif kind == _NAME_HIGH:
            kind, arg = NAME, names[number >> 1]
        elif kind == CELL:
            slots = slots or slot_names(code)
            arg = slots[number]
        elif kind in _JUMPS:
            ahead = 2 * unit + _AFTER[op]
            arg, jumps = (ahead - 2 * number if op in _BACKWARD else ahead + 2 * number) // 2, True
        elif kind == _EXTEND:
            high = number << 8
            continue
        elif kind >= _FUSED:
            found += _split(kind, name, op, number, names)
            continue
        add(make(Instruction, (kind, name, arg, op, number)))
    at[-1] = len(found)
    return (_retarget(found, at) if jumps else found), jumps, at


def _split(kind: int, name: str, op: int, number: int, names: tuple[str, ...]) -> list[Instruction]:
    if kind == _RETURN_CONST:
        return [Instruction(CONST, "LOAD_CONST", number), Instruction(END, "RETURN_VALUE", 0)]
    if kind == _SUPER:  # bit 0 says "method call" (layout), bit 1 "two arguments" (meaning)
        two = "2" if number & 2 else ""
        return [Instruction(NAME, name + two, names[number >> 2], op, number)]
    first, second = _FUSED_PARTS[name]
    return [Instruction(LOCAL, first, number >> 4), Instruction(LOCAL, second, number & 15)]


def _retarget(found: list[Instruction], at: list[int]) -> list[Instruction]:
    return [Instruction(i[0], i[1], at[i[2]], i[3], i[4]) if i[0] in _JUMPS else i for i in found]


def handlers(code: CodeType, at: list[int]) -> list[Handler]:
    """The exception table, in terms of the indices of `scan`. Format: Objects/exception_handling_notes.txt."""
    numbers = iter(code.co_exceptiontable)
    found = []
    for first in numbers:
        start, length, target, packed = (_varint(numbers, first if n == 0 else None) for n in range(4))
        found.append(Handler(at[start], at[start + length], at[target], packed >> 1, bool(packed & 1)))
    return found


def _varint(numbers: Any, first: int | None) -> int:
    byte = next(numbers) if first is None else first
    value = byte & 63
    while byte & 64:
        byte = next(numbers)
        value = value << 6 | byte & 63
    return int(value)

"""Bytecode of CPython 3.11, 3.12 and 3.13 as code units, with a table that says what each unit is.

A unit is one instruction as a number: the opcode in the low byte, the argument above it. What a unit is does
not depend on the code object that it stands in (only what its argument points at does), so it is worked out
once per process; and what must be done for every unit is left to loops in C. What only concerns layout or
speed (caches, fused loads, null pushes, jump directions) is gone; what the instructions mean is the business
of ``normalform.py``, ``flow.py`` and ``hints.py``.
"""

from __future__ import annotations

import functools
import opcode
import re
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, compress, count
from types import CodeType
from typing import Any, Final

from pyplantx.basics.tuples import NamedTuple

#: Kinds of instructions.
DROP, PLAIN, CONST, LOCAL, END, NAME, CELL, JUMP, TEST, BRANCH = range(10)
#: In the table of opcodes only: two instructions in one, and names with flags below them.
_RETURN_CONST, _FUSED, _NAME_HIGH, _SUPER = range(10, 14)

#: Kind, text and argument of a unit, see `_Entries`.
Entry = tuple[int, str, int]


class Instruction(NamedTuple):
    """One instruction, for those who look at few of them.

    Attributes
    ----------
    kind : int
        `PLAIN` … `BRANCH`.
    name : str
        Opcode name with variants merged (``LOAD_METHOD`` is ``LOAD_ATTR``); for `TEST` the value tested for.
    arg : Any
        `NAME`, `CELL`: a name; `LOCAL`: slot number; `CONST`: index; jumps: units from here to the target;
        otherwise the raw number.
    op, raw : int
        Opcode and argument as they stand in the code, for stack effects.
    """

    kind: int
    name: str
    arg: Any
    op: int
    raw: int


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


# --- opcodes ------------------------------------------------------------------------------------------------


def _jump_kind(name: str) -> tuple[int, str]:
    if name.startswith("JUMP_BACKWARD") or name in ("JUMP_FORWARD", "JUMP"):
        return JUMP, name
    if name.startswith("POP_JUMP"):
        return TEST, name.rpartition("IF_")[2]
    return BRANCH, name


def _classify(op: int, name: str) -> tuple[int, str]:
    """Kind and merged name of one opcode."""
    if name in _DROPPED or name.startswith("<") or op == opcode.EXTENDED_ARG:
        return DROP, name
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


def _caches(op: int) -> int:
    if isinstance(_CACHES, dict):
        return int(_CACHES.get(opcode.opname[op], 0))
    return int(_CACHES[op])


_TABLE: Final = [_classify(op, name) for op, name in enumerate(opcode.opname[:256])]
_BACKWARD: Final = frozenset(op for op, name in enumerate(opcode.opname[:256]) if "BACKWARD" in name)
_JUMPS: Final = (JUMP, TEST, BRANCH)


def _ops(*kinds: int) -> bytes:
    return bytes(op for op, (kind, _) in enumerate(_TABLE) if kind in kinds)


def _mark(ops: bytes) -> bytes:
    """Table for `bytes.translate` that makes these opcodes 1 and all others 0."""
    return bytes(op in ops for op in range(256))


def _any_of(*names: str) -> bytes:
    """Regular expression for one of these opcodes."""
    return b"[" + b"".join(re.escape(bytes([op])) for op, (_, name) in enumerate(_TABLE) if name in names) + b"]"


_DROPPED_OPS: Final = _ops(DROP)
_DOUBLE_OPS: Final = _ops(_RETURN_CONST, _FUSED)
_KEPT: Final = _mark(bytes(set(range(256)).difference(_DROPPED_OPS)))
_WEIGHTS: Final = bytes(kept + (op in _DOUBLE_OPS) for op, kept in enumerate(_KEPT))
_JUMPING: Final = _mark(_ops(*_JUMPS))
_ENDING: Final = _mark(_ops(END))
_GLOBALS: Final = _any_of("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")

#: Over the opcodes of `Body`: an attribute; a global with the attributes that are taken from it at once.
FIND_ATTRIBUTES: Final = re.compile(_any_of("LOAD_ATTR"))
FIND_CHAINS: Final = re.compile(_GLOBALS + _any_of("LOAD_ATTR") + b"*")
IMPORT_NAME: Final = opcode.opmap["IMPORT_NAME"]


# --- units --------------------------------------------------------------------------------------------------


class _Entries(dict[int, Entry]):
    """Unit -> (kind, text, argument), worked out when it is first met.

    Text and argument by kind: `PLAIN`, `END`: the whole token; `NAME`, `CELL`, `CONST`, `LOCAL`: opcode name and
    a space, then the index; jumps: name, then the distance of the target in units.
    """

    def __missing__(self, unit: int) -> Entry:
        entry = _entry(*_TABLE[unit & 255], unit & 255, unit >> 8)
        if unit < 1 << 16:  # the others are rare and would be without number
            self[unit] = entry
        return entry


def _entry(kind: int, name: str, op: int, number: int) -> Entry:
    if kind == PLAIN or kind == END:
        return kind, f"{name} {number}", 0
    if kind in _JUMPS:
        return kind, name, 1 + _caches(op) + (-number if op in _BACKWARD else number)
    if kind == _NAME_HIGH:
        return NAME, f"{name} ", number >> 1
    if kind == _SUPER:  # bit 0 says "method call" (layout), bit 1 "two arguments" (meaning)
        return NAME, f"{name}2 " if number & 2 else f"{name} ", number >> 2
    return kind, f"{name} ", number


#: The entry of a unit.
entry_of: Final = _Entries().__getitem__

_GONE: Final[Entry] = (DROP, "", 0)


@functools.cache
def _parts_of(unit: int) -> tuple[int, ...]:
    """The units that a unit stands for."""
    kind, name = _TABLE[unit & 255]
    number = unit >> 8
    if kind == _RETURN_CONST:
        return opcode.opmap["LOAD_CONST"] | number << 8, opcode.opmap["RETURN_VALUE"]
    if kind == _FUSED:
        first, second = (opcode.opmap[part] for part in _FUSED_PARTS[name])
        return first | number >> 4 << 8, second | (number & 15) << 8
    return (unit,)


#: The opcodes that are two in one, and those two.
_TAKEN_APART: Final = [(bytes([op]), bytes(part & 255 for part in _parts_of(op))) for op in _DOUBLE_OPS]


class Body:
    """The instructions of a code object, layout removed.

    Attributes
    ----------
    units : list of int
        ``EXTENDED_ARG`` is part of the unit that it extends; what is two instructions in one is taken apart.
    entries : list of Entry
        What each unit is.
    ops : bytes
        The opcode of each unit, for regular expressions.
    gaps : tuple of int
        What `drop` took out.
    """

    __slots__ = ("_raw_ops", "_targets", "entries", "gaps", "ops", "units")

    def __init__(self, code: CodeType) -> None:
        raw = code.co_code
        units, ops = array("H", raw), raw[::2]
        if sys.byteorder == "big":
            units.byteswap()
        widened = _widen(units) if opcode.EXTENDED_ARG in ops else units
        self._raw_ops = ops
        self.ops = ops.translate(None, _DROPPED_OPS)
        self.units = list(compress(widened, ops.translate(_KEPT)))
        if _DOUBLE_OPS and 2 in ops.translate(_WEIGHTS):
            self.units = list(chain.from_iterable(map(_parts_of, self.units)))
            for double, parts in _TAKEN_APART:
                self.ops = self.ops.replace(double, parts)
        self.entries = list(map(entry_of, self.units))
        self.gaps: tuple[int, ...] = ()
        self._targets: dict[int, int] | None = None

    def drop(self, at: int) -> None:
        """Let an instruction be nothing from now on; it keeps its place."""
        self.entries[at] = _GONE
        self.gaps += (at,)

    def has_jumps(self) -> bool:
        """Whether any instruction jumps."""
        return 1 in self.ops.translate(_JUMPING)

    def jumps(self) -> Iterator[int]:
        """The places in the bytecode where jumps stand."""
        return compress(count(), self._raw_ops.translate(_JUMPING))

    def places(self) -> list[int]:
        """The index of the instruction at or after each place in the bytecode, the end included."""
        return list(accumulate(self._raw_ops.translate(_WEIGHTS), initial=0))

    def targets(self) -> dict[int, int]:
        """Instruction that jumps -> where to."""
        if self._targets is None:
            places = self.places()
            self._targets = {places[at]: places[at + self.entries[places[at]][2]] for at in self.jumps()}
        return self._targets

    def ends(self) -> bytes:
        """1 for each instruction after which control does not go on, 0 for all others."""
        return self.ops.translate(_ENDING)


def _widen(units: Iterable[int]) -> Iterator[int]:
    """Put the arguments of ``EXTENDED_ARG`` before the argument that each extends."""
    high = 0
    for unit in units:
        yield unit | high << 16
        high = high << 8 | unit >> 8 if unit & 255 == opcode.EXTENDED_ARG else 0


def slot_names(code: CodeType) -> tuple[str, ...]:
    """Names of the fast local slots: variables, then cells that are no parameters, then free variables."""
    cells = tuple(name for name in code.co_cellvars if name not in code.co_varnames)
    return code.co_varnames + cells + code.co_freevars


def instructions(code: CodeType, units: Iterable[int]) -> Iterator[Instruction]:
    """Some units of a code object, spelt out."""
    for unit in units:
        kind, text, arg = entry_of(unit)
        op, number = unit & 255, unit >> 8
        if kind == PLAIN or kind == END:
            yield Instruction(kind, _TABLE[op][1], number, op, number)
        elif kind == NAME:
            yield Instruction(kind, text[:-1], code.co_names[arg], op, number)
        elif kind == CELL:
            yield Instruction(kind, text[:-1], slot_names(code)[arg], op, number)
        else:
            yield Instruction(kind, text.rstrip(), arg, op, number)


def handlers(table: bytes) -> list[tuple[int, int, int, int]]:
    """An exception table. Format: Objects/exception_handling_notes.txt of CPython.

    Returns
    -------
    list of tuple of int
        First unit that is covered, number of units, unit of the handler, and the depth of the stack there
        shifted by one bit, which says whether the place of the exception is pushed.
    """
    numbers: list[int] = []
    value = 0
    for byte in table:  # six bits each; bit 6 says that more follow, bit 7 that an entry begins
        value = value << 6 | byte & 63
        if not byte & 64:
            numbers.append(value)
            value = 0
    return list(zip(*[iter(numbers)] * 4, strict=True))

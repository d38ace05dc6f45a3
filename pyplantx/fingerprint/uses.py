"""What code does with what a name holds: reads it, or only adds to it, as one does with logs and counters.

Needed only where running code has changed something and its code was edited since. Where it can't be told, it is
read.
This file may know: bytecode. It may not know: what names come to.
"""

from __future__ import annotations

import dis
from collections.abc import Container, Iterator, Sequence
from types import CodeType
from typing import Final

from pyplantx.fingerprint.bytecode import Body
from pyplantx.fingerprint.hints import taker
from pyplantx.fingerprint.nested import with_nested

#: Methods that add to what they belong to and tell nothing of what is in it.
_ADDING: Final = frozenset(
    {
        *("append", "appendleft", "add", "extend", "extendleft", "update", "insert", "put", "write", "writelines"),
        *("log", "debug", "info", "warning", "error", "exception", "critical"),
    }
)
_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_ATTR", "LOAD_METHOD"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_STORES: Final = frozenset({"STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "STORE_ATTR"})
#: How many values an instruction takes from the stack, and how many it leaves there; any other one reads.
_FIXED: Final = {
    **dict.fromkeys(("LOAD_CONST", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "PUSH_NULL", "COPY"), (0, 1)),
    **dict.fromkeys(("PRECALL", "KW_NAMES", "NOP"), (0, 0)),
    **dict.fromkeys(("FORMAT_SIMPLE", "CONVERT_VALUE"), (1, 1)),
    **dict.fromkeys(("BINARY_SUBSCR", "BINARY_OP"), (2, 1)),
    **{"LOAD_FAST_LOAD_FAST": (0, 2), "LOAD_METHOD": (1, 2)},
}
_LOCAL_LOADS: Final = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK"})


def uses(code: CodeType, names: Container[str]) -> Iterator[bool]:
    """For each place, nested code included, that takes what one of some names holds: whether it reads it."""
    for inner in with_nested(code):
        steps = list(dis.get_instructions(inner))
        for at, one in enumerate(steps):
            if one.opname in _LOADS and one.argval in names:
                yield not _is_only_added_to(inner, steps, at)


def calls_what_it_is_given(code: CodeType) -> bool:
    """Whether code calls a local variable: then what it computes hangs on the code of whoever calls it."""
    names = [one.opname for one in dis.get_instructions(code)]
    pairs = zip(names, names[1:], strict=False)
    return any({first, second} & _LOCAL_LOADS and "PUSH_NULL" in (first, second) for first, second in pairs)


def _is_only_added_to(code: CodeType, steps: Sequence[dis.Instruction], at: int) -> bool:
    """Whether what is loaded stays on the stack until something is put into it, or comes back changed."""
    loaded, depth = steps[at], 1
    for place, step in enumerate(steps[at + 1 :], at + 1):
        if depth == 1 and step.opname in _ATTRIBUTES and step.argval in _ADDING:
            return _gives_nothing(code, steps, place)
        if step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            return depth == 2
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            return depth == 1
        if step.opname == "SWAP":  # `x[key] += 1`, `x.n += 1`: what was read goes back
            return (depth, _next_but(steps, place, "SWAP").opname) in ((3, "STORE_SUBSCR"), (2, "STORE_ATTR"))
        if step.opname == "BINARY_SUBSCR" and depth == 2:
            depth = 1  # an item: a list of those of one kind may be added to
            continue
        taken, left = _FIXED.get(step.opname) or _effect(step)
        if taken >= depth:
            return step.opname == "BINARY_OP" and depth == 2 and _is_put_back(steps, place, loaded.argval)
        depth += left - taken
    return False


def _gives_nothing(code: CodeType, steps: Sequence[dis.Instruction], at: int) -> bool:
    """Whether what the method gives that is loaded by an instruction is thrown away (or that itself is)."""
    number = sum(step.opname in _ATTRIBUTES for step in steps[:at])
    body = Body(code)
    start = [place for place, entry in enumerate(body.entries) if entry[1].startswith("LOAD_ATTR")][number] + 1
    taken = taker(body, start, 1)
    if taken is None or taken[1] < 1:
        return taken is not None and body.entries[taken[0]][1].startswith("POP_TOP")
    return body.entries[taken[0] + 1][1].startswith("POP_TOP")


def _is_put_back(steps: Sequence[dis.Instruction], at: int, name: str) -> bool:
    """Whether what an instruction gives is stored under the name at once."""
    stored = _next_but(steps, at, "SWAP")
    return stored.opname in _STORES and stored.argval == name


def _next_but(steps: Sequence[dis.Instruction], at: int, passed: str) -> dis.Instruction:
    return next(step for step in steps[at + 1 :] if step.opname != passed)


def _effect(step: dis.Instruction) -> tuple[int, int]:
    number = step.arg or 0
    if step.opname == "LOAD_GLOBAL":
        return 0, 1 + (number & 1)
    if step.opname == "LOAD_ATTR":
        return 1, 2 if step.argrepr.endswith("+ NULL|self") or step.argrepr.startswith("NULL|self") else 1
    if step.opname == "CALL":
        return number + 2, 1
    if step.opname in ("BUILD_TUPLE", "BUILD_STRING"):
        return number, 1
    if step.opname == "FORMAT_VALUE":
        return 1 + (number & 4 == 4), 1
    return 1_000_000, 0

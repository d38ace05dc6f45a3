"""Texts that stand somewhere in a function's code, or in what that refers to: each may be the name of what it sends.

Even less than hints: they tell in which order strangers are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, Final

from pyplantx.fingerprint.bytecode import CONST, FIND_ATTRIBUTES, Body
from pyplantx.fingerprint.objects import as_builtin, builtin_base

_ASKING: Final = "receive"
#: How deep containers are looked through, and how many things are looked at for one value.
_DEEPEST, _MOST = 3, 10_000
#: Built-in container -> what tells the length of one, whatever its class says.
_LENGTHS: Final[dict[type, Callable[[Any], int]]] = {base: base.__len__ for base in (tuple, list, dict, set, frozenset)}


def texts_of(code: CodeType) -> Iterator[str]:
    """The texts in a code object and those inside it, without those that it asks for by ``receive``."""
    asked = set(_received(code)) if _ASKING in code.co_names else set()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from texts_of(constant)
        else:
            yield from (text for text in texts_in(constant) if text not in asked)


def _received(code: CodeType) -> Iterator[object]:
    body = Body(code)
    for match in FIND_ATTRIBUTES.finditer(body.ops):
        if code.co_names[body.entries[match.start()][2]] == _ASKING:
            yield from _constants_from(code, body, match.end())


def _constants_from(code: CodeType, body: Body, start: int) -> Iterator[object]:
    for kind, _, arg in body.entries[start:]:
        if kind != CONST:
            return
        yield code.co_consts[arg]


def texts_in(value: Any) -> Iterator[str]:
    """The texts in a value: itself, or what containers of the built-in kinds hold, read past what their classes say.

    Of other things nothing is asked: a file of HDF5 is a mapping, too, and may be closed.
    """
    pending, looked = [(value, 0)], 0
    while pending and looked < _MOST:
        one, depth = pending.pop()
        looked += 1
        base = builtin_base(type(one))
        if base is str:
            yield str.__str__(one)
        elif base is not None and base in _LENGTHS and depth < _DEEPEST and _LENGTHS[base](one) <= _MOST:
            plain = as_builtin(one, base)
            held = [*plain, *plain.values()] if base is dict else plain
            pending += [(item, depth + 1) for item in held]

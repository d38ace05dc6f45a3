"""Texts that stand somewhere in a function's code, or in what that refers to: each may be the name of what it sends.

Even less than hints: they tell in which order strangers are tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any, Final

from pyplantx.fingerprint.bytecode import CONST, FIND_ATTRIBUTES, Body

_ASKING: Final = "receive"
#: How deep containers are looked through, and how many things are looked at in one of them.
_DEEPEST, _MOST = 3, 10_000


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


def texts_in(value: Any, depth: int = _DEEPEST) -> Iterator[str]:
    """The texts in a value: itself, or what a container of the built-in kinds holds."""
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, (tuple, list, set, frozenset, Mapping)) and len(value) <= _MOST:
        for item in _items(value):
            yield from texts_in(item, depth - 1)


def _items(value: Any) -> Iterable[Any]:
    return [*value, *value.values()] if isinstance(value, Mapping) else list(value)

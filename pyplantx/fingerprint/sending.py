"""What a reactor seems to send: the names in its code and in its helpers', variables looked up.

This file may know: records of code objects, what code refers to. It may not know: reactors beyond their mark, runs.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.foreign import is_a
from pyplantx.fingerprint.objects import MISSING
from pyplantx.fingerprint.records import Pieces, sent_in
from pyplantx.fingerprint.references import follow
from pyplantx.fingerprint.roles import is_reactor, unwrapped

if TYPE_CHECKING:
    from pyplantx.fingerprint.code import Fingerprinter


class SendHints(NamedTuple):
    """What a function seems to send: read off its bytecode, never proof.

    Attributes
    ----------
    names : tuple of str
        Names that are certain to be meant.
    patterns : tuple of str
        Regular expressions for ``re.fullmatch``, for names that are put together at run time.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]


def hints(fingerprinter: Fingerprinter, function: Any) -> SendHints:
    """What `function`, and the helpers and subreactors that it refers to, seem to send or allocate."""
    inner = unwrapped(function)
    closed = fingerprinter.closed_record(inner) if type(inner) is types.FunctionType else None
    found = _Found(fingerprinter)
    if closed is not None:
        found.add(inner, closed)
    else:
        for one in _reached(fingerprinter, inner):
            if is_a(one, types.FunctionType):
                found.add(one, fingerprinter.record_text(one.__code__))
    return SendHints(tuple(found.names), tuple(filter(None, found.patterns)))


def shows_all_it_sends(function: Any) -> bool:
    """Whether `function` can send nothing but what `hints` has found in it."""
    from pyplantx.fingerprint import sends  # needed on a cold start only

    inner = unwrapped(function)
    return type(inner) is types.FunctionType and sends.shows_all_it_sends(inner.__code__)


def mentions(fingerprinter: Fingerprinter, function: Any) -> set[str]:
    """All texts in `function`, its helpers and subreactors, and in what they refer to, that it does not ask for."""
    from pyplantx.fingerprint.mentions import texts_in, texts_of  # needed on a cold start only

    found: set[str] = set()
    for one in _reached(fingerprinter, unwrapped(function)):
        if is_a(one, types.FunctionType):
            found.update(texts_of(one.__code__), texts_in(one.__defaults__), texts_in(one.__kwdefaults__))
        elif is_a(one, type) and fingerprinter.is_project_class(one):
            found.update(texts_in(dict(vars(one))))
        for slot in fingerprinter.node(one).constants:
            found.update(texts_in(slot.value))
    return found


def _reached(fingerprinter: Fingerprinter, function: Any) -> Iterator[Any]:
    """A function and the code of the project that it refers to, through subreactors but not other reactors."""
    pending, seen = [function], set[int]()
    while pending:
        one = pending.pop()
        if id(one) in seen or (one is not function and is_reactor(one)):
            continue
        seen.add(id(one))
        inner = unwrapped(one)
        if inner is not one:
            pending.append(inner)
            continue
        if not is_a(one, types.FunctionType) or fingerprinter.is_in_project(one.__globals__):
            yield one
        if is_a(one, types.FunctionType) and fingerprinter.closed_record(one) is not None:
            continue
        pending += reversed(fingerprinter.node(one).refs)


class _Found:
    """Names and patterns, in the order in which they were met."""

    __slots__ = ("_boundary", "names", "patterns")

    def __init__(self, fingerprinter: Fingerprinter) -> None:
        self._boundary = fingerprinter.boundary
        self.names: dict[str, None] = {}
        self.patterns: dict[str, None] = {}

    def add(self, function: types.FunctionType, record: str) -> None:
        """Add what a function sends, by its record."""
        for pieces in sent_in(record):
            if len(pieces) == 1 and pieces[0][0] == "=":  # a literal: nearly always
                self.names[pieces[0][1]] = None
                continue
            solved = [self._solve(function, piece, alone=len(pieces) == 1) for piece in pieces]
            if all(kind == "=" for kind, *_ in solved):
                self.names["".join(rest[0] for _, *rest in solved)] = None
            else:
                self.patterns[_to_pattern(solved)] = None

    def _solve(self, function: types.FunctionType, piece: list[str], alone: bool) -> list[str]:
        """A piece of a name with its variable looked up, if that is possible."""
        kind = piece[0]
        if kind == "g":
            value = follow(function.__globals__, piece[1].split("."), self._boundary).value
        elif kind == "d" and piece[1] in function.__code__.co_freevars:
            value = _cell_value(function, piece[1])
        else:
            return piece if kind == "=" else ["*"]
        allowed = (str,) if alone or len(piece) > 2 else (str, int)
        return ["=", str(value)] if type(value) in allowed else ["*"]


def _to_pattern(pieces: Pieces) -> str:
    from pyplantx.fingerprint.hints import to_pattern  # needed on a cold start only

    return to_pattern(pieces) or ""


def _cell_value(function: types.FunctionType, name: str) -> Any:
    cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return MISSING

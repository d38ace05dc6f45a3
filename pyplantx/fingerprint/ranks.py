"""An order for pieces of code that lie in a set, which every process finds alike.

While a value is described, code in it goes by a number: which one is met first. The elements of a set are met in an
order that Python makes up anew in each process; so they are sorted first, by what the pieces say of themselves. It
need not tell all of them apart: those of which it says the same do the same, as far as it looks, and it matters little
which of them is first.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any

from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.objects import MISSING, inner_function, role_function, static_attribute
from pyplantx.fingerprint.records import Record


class Ranks:
    """Says of a piece of code what doesn't depend on the process.

    Parameters
    ----------
    boundary : Boundary
    record : callable
        Code object -> its record.
    plain_name : callable
        Piece of code -> the name of a library's that says all about it, or None.
    parts : callable
        Thin wrapper -> what it wraps; nothing for all else.
    """

    def __init__(
        self,
        boundary: Boundary,
        record: Callable[[types.CodeType], Record],
        plain_name: Callable[[Any], str | None],
        parts: Callable[[Any], Iterable[Any]],
    ) -> None:
        self._boundary, self._record, self._plain_name, self._parts = boundary, record, plain_name, parts
        self._open: set[int] = set()

    def rank(self, obj: Any) -> str:
        """What a piece of code does, as far as it and what is bound to it say; then what it is called."""
        name = self._plain_name(obj)
        if name is not None or id(obj) in self._open:  # a function may lie in its own closure
            return name or ""
        self._open.add(id(obj))
        try:
            return self._told(obj)
        finally:
            self._open.discard(id(obj))

    def _told(self, obj: Any) -> str:
        if isinstance(static_attribute(obj, "__pyplantx_kind__"), str) and not isinstance(obj, type):
            return self.rank(role_function(obj))
        if (inner := inner_function(obj)) is not MISSING:
            return self.rank(inner)
        own, held = "", list(self._parts(obj))
        if isinstance(obj, types.FunctionType):
            own = self._record(obj.__code__).digest
            held = [obj.__defaults__, obj.__kwdefaults__, obj.__closure__]
        elif isinstance(obj, types.CodeType):
            own = self._record(obj).digest
        bound = values.hash_bytes(values.encode(held, self.rank, _ignore, self._boundary, self.rank))
        return f"{own} {bound} {getattr(obj, '__qualname__', '')} {getattr(obj, '__module__', '')}"


def _ignore(thing: object) -> None:
    """What has no encoding counts by its type."""

"""An order for pieces of code that lie in a set, which every process finds alike.

While a value is described, code in it goes by a number: which one is met first. The elements of a set are met in an
order that Python makes up anew in each process; so they are sorted first, by what the pieces say of themselves. It
need not tell all of them apart: those of which it says the same do the same, as far as it looks, and it matters little
which of them is first. It looks so many pieces deep, and says of each of them once what it is so far down: functions
that all hold the table in which they are listed would else be gone through in each order there is.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.foreign import ANSWERS, asked, let_end
from pyplantx.fingerprint.generated import origin_of
from pyplantx.fingerprint.objects import MISSING, inner_function, role_function, static_attribute
from pyplantx.fingerprint.pieces import static_pin
from pyplantx.fingerprint.records import Record

#: How far is looked from piece to piece: a function, the one in its closure, the one in that of this one.
_DEEPEST: Final = 5


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
        Thin wrapper -> what it wraps; class -> what it holds; nothing for all else.
    """

    def __init__(
        self,
        boundary: Boundary,
        record: Callable[[types.CodeType], Record],
        plain_name: Callable[[Any], str | None],
        parts: Callable[[Any], Iterable[Any]],
    ) -> None:
        self._boundary, self._record, self._plain_name, self._parts = boundary, record, plain_name, parts
        self._said: dict[tuple[int, int], tuple[Any, str]] = {}  # (id, depth) -> (kept alive, what it says)
        self._depth = 0

    def forget(self) -> None:
        """What was said holds for one value that is described: the next one may find another state."""
        self._said.clear()

    def rank(self, obj: Any) -> str:
        """What a piece of code does, as far as it and what is bound to it say; then what it is called."""
        name = self._plain_name(obj)
        if name is not None:
            return name
        key = id(obj), self._depth
        said = self._said.get(key)
        if said is None:
            self._depth += 1
            try:
                said = self._said[key] = obj, self._told(obj)
            finally:
                self._depth -= 1
        return said[1]

    def _told(self, obj: Any) -> str:
        pin = static_pin(obj)
        if pin is not None:
            return f"{pin.text} {asked(obj, '__qualname__', '')}"
        if isinstance(static_attribute(obj, "__pyplantx_kind__"), str) and not isinstance(obj, type):
            return self.rank(role_function(obj))
        if (inner := inner_function(obj)) is not MISSING:
            return self.rank(inner)
        own, held = "", list(self._parts(obj))
        origin = origin_of(obj) if isinstance(obj, types.FunctionType) else None
        if origin is not None:
            own, held = origin.library, [origin.wrapped, origin.options]
        elif isinstance(obj, types.FunctionType):
            own = self._record(obj.__code__).digest
            held = [obj.__defaults__, obj.__kwdefaults__, obj.__closure__]
        elif isinstance(obj, types.CodeType):
            own = self._record(obj).digest
        bound = self._bound(held) if self._depth <= _DEEPEST else ""
        return f"{own} {bound} {asked(obj, '__qualname__', '')} {asked(obj, '__module__', '')}"

    def _bound(self, held: list[Any]) -> str:
        try:
            return values.hash_bytes(values.encode(held, self.rank, _ignore, self._boundary))
        except MemoryError:  # says nothing of the value
            raise
        except ANSWERS as error:  # foreign state, out of reach of who is described perhaps: an order needs none
            let_end(error)
            return ""


def _ignore(thing: object) -> None:
    """What has no encoding counts by its type."""

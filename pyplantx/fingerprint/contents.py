"""What a place holds, as bytes, and the code in it: code goes by a number there, and stands among the references.

This file may know: the canonical encoding, and what stands for code. It may not know: which places count.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.arrays import text
from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.encoding import LEAVES, flat
from pyplantx.fingerprint.foreign import ANSWERS, is_a, let_end
from pyplantx.fingerprint.memos import Cached
from pyplantx.fingerprint.objects import (
    MISSING,
    bound_to,
    inner_function,
    is_code,
    library_name,
    qualified,
    role_function,
    static_attribute,
)
from pyplantx.fingerprint.pieces import ABSENT, Slot, static_pin
from pyplantx.fingerprint.ranks import Ranks
from pyplantx.fingerprint.records import READ_BY, Record, read_by_text

#: Leaves that can't be altered.
_FIXED: Final = frozenset(LEAVES) - {bytearray}

#: What a slot says that holds a function of the project: how the encoding writes the first piece of code in a value.
FIRST_CODE: Final = b"C" + text("#0")

#: Thin wrappers around code -> the attributes that are their parts.
PART_NAMES: Final[dict[Any, tuple[str, ...]]] = {
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    functools.cached_property: ("func",),
    types.MethodType: ("__func__", "__self__"),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    Cached: ("__wrapped__",),
}
PARTED: Final = tuple(PART_NAMES)


class Contents:
    """Encodes what places hold.

    Parameters
    ----------
    boundary : Boundary
        Tells libraries from the project.
    record : callable
        Code object -> its record.
    held_parts : callable
        Thin wrapper -> what it wraps; class -> what it holds; nothing for all else.
    """

    def __init__(
        self,
        boundary: Boundary,
        record: Callable[[types.CodeType], Record],
        held_parts: Callable[[Any], Iterable[Any]],
    ) -> None:
        self._boundary = boundary
        self._ranks = Ranks(boundary, record, self.plain_name, held_parts)
        self._bound_methods: dict[tuple[int, int], types.MethodType] = {}

    def fill(self, slot: Slot) -> None:
        """Encode what a slot holds."""
        value = slot.value
        leaf = LEAVES.get(type(value))
        if leaf is not None:
            slot.now = slot.data = leaf(value)
        elif value is MISSING:
            slot.now = slot.data = ABSENT
        elif type(value) is types.FunctionType:
            self._fill_function(slot, value)
        else:
            self._fill_other(slot)
        if b"__" in slot.now:
            slot.sees = read_by_text(slot.now.decode("latin-1"))

    def _fill_function(self, slot: Slot, function: types.FunctionType) -> None:
        """As `_fill_other` would, without the encoder: this is what most slots hold."""
        name = self.plain_name(function)
        slot.now = slot.data = FIRST_CODE if name is None else b"C" + text(name)
        slot.refs = slot.refs_now = (function,) if name is None else ()
        slot.sees = READ_BY.get(function.__name__, 0)  # `from inspect import signature as look`

    def _fill_other(self, slot: Slot) -> None:
        refs: list[Any] = []
        opaque: list[str] = []
        numbers: dict[int, str] = {}  # of what is among the refs, which keep it alive

        def stand_in(obj: Any) -> str:
            known = numbers.get(id(obj))
            if known is not None:
                return known
            if type(obj) is types.MethodType:  # a new object at each look: nodes would have no end
                obj = self._bound_methods.setdefault((id(obj.__func__), id(obj.__self__)), obj)
            name = self.plain_name(obj)
            if name is not None:
                return name
            held = obj is not slot.value and is_subreactor(obj)
            number = f"subreactor #{len(refs)}" if held else f"#{len(refs)}"
            refs.append(role_function(obj) if held else obj)  # which one lies where in a container can be seen uncalled
            if refs[-1] is obj:
                numbers[id(obj)] = number
            return number

        slot.now = slot.data = self._encode(slot, stand_in, opaque)
        slot.refs = slot.refs_now = tuple(refs)
        slot.opaque = tuple(opaque)

    def _encode(self, slot: Slot, stand_in: Callable[[object], str], opaque: list[str]) -> bytes:
        value = slot.value

        def note(thing: object) -> None:
            opaque.append(f"{slot.label}: a {qualified(type(thing))}")

        try:
            return values.encode(value, stand_in, note, self._boundary, self._ranks.rank)
        except MemoryError:  # says nothing of the value
            raise
        except ANSWERS as error:  # foreign state: proxies for something dead, hooks that fail, data in motion
            let_end(error)
            opaque.append(f"{slot.label}: {error}")
            return b"?" + text(stand_in(type(value))) + text(type(value).__qualname__)
        finally:
            self._ranks.forget()

    def plain_name(self, obj: Any) -> str | None:
        """The name of a library's function, class or module that says all about it; None for everything else."""
        if static_pin(obj) is not None:
            return None
        if is_a(obj, types.FunctionType):
            return self.held_name(obj)
        if is_a(obj, PARTED) or bound_to(obj) is not MISSING or inner_function(obj) is not MISSING:
            return None
        return library_name(obj, self._boundary)

    def held_name(self, function: types.FunctionType) -> str | None:
        """Name of a library function that its module holds under that very name."""
        if not self._boundary.owns_globals(function.__globals__):
            return None
        held: Any = function.__globals__
        for part in function.__code__.co_qualname.split("."):
            held = held.get(part) if isinstance(held, dict) else vars(held).get(part) if _has_vars(held) else None
        held = getattr(held, "__func__", held)
        return library_name(function, self._boundary) if held is function else None


def parts_of(obj: Any) -> tuple[str, ...]:
    return next(names for cls, names in PART_NAMES.items() if is_a(obj, cls))


def plain_value(value: Any) -> tuple[bytes, tuple[()]] | None:
    """The encoding of a value, and no code in it, that can't be altered and names nothing that is read about code."""
    kind = type(value)
    if kind in _FIXED:
        data: bytes | None = LEAVES[kind](value)
    else:
        data = flat(value) if kind is tuple and is_fixed(value) else None
    return None if data is None or b"__" in data else (data, ())


def is_fixed(value: Any) -> bool:
    """Whether it can't hold anything else than before, being the same object."""
    kind = type(value)
    if kind is tuple:
        return all([type(item) in _FIXED for item in value])
    return kind in _FIXED or value is MISSING or is_code(value)


def is_subreactor(obj: Any) -> bool:
    return not isinstance(obj, type) and static_attribute(obj, "__pyplantx_kind__") == "subreactor"


def _has_vars(obj: Any) -> bool:
    return isinstance(obj, type | types.ModuleType)

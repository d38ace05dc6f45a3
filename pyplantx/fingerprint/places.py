"""The places that code refers to: slots, which are looked at once per activity, and what becomes of them meanwhile.

A place that holds what can't be altered needs no slot at first: it is watched. The names in classes, modules and
functions that count with all that they hold are listed, so that those that running code adds are seen.

This file may know: how to read a place, and when what it holds has changed. It may not know: how that is written, or
what it means for a piece of code.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.boundary import Boundary, module_name
from pyplantx.fingerprint.contents import FIRST_CODE, Contents, is_fixed, plain_value
from pyplantx.fingerprint.objects import MISSING
from pyplantx.fingerprint.pieces import ABSENT, Node, Slot, label_of, read_class, read_item
from pyplantx.fingerprint.records import READ_BY

#: Attributes of a function that say nothing of what it does.
FUNCTION_NOISE: Final = frozenset({"__wrapped__", "__pyplantx_pin__"})
_NO_NAMES: Final[frozenset[str]] = frozenset()
#: What Python makes when it is first asked for, and which counts once something is in it.
_FILLED_LATER: Final = frozenset({"__annotations__"})

_new = tuple.__new__  # see `core/trace.py`

#: What the defaults of a function are called, behind its name.
DEFAULTS: Final = "defaults"

#: A class, or the dict of a function or module, of which all counts: its node, what doesn't, all that it held.
_Listed = tuple[Any, Node, Callable[[str], bool], frozenset[str]]


class _Watched(NamedTuple):
    """A place that needs no slot unless it changes.

    Attributes
    ----------
    owner, key, value, read
        As of a slot.
    holder, name
        What it belongs to: a namespace and a name in it, a function and one of its closure variables or its defaults;
        None where the name says it all.
    """

    owner: Any
    key: str
    value: Any
    read: Callable[[Any, str], Any]
    holder: Any
    name: str

    @property
    def label(self) -> str:
        """What people call the place."""
        if self.holder is None:
            return self.name
        if isinstance(self.holder, dict):
            return global_label(self.holder, self.name)
        return f"{label_of(self.holder)}: {self.name}"


class Places:
    """The places that were met in one activity.

    Parameters
    ----------
    boundary : Boundary
        Tells libraries from the project.
    contents : Contents
        Encodes what they hold.
    settle : callable
        Given a fresh slot, returns the one that counts (see ``code.py``: state).
    former : callable
        Owner, key -> what lay there before running code was seen to change it, as the only item; empty if it was not.
    """

    def __init__(
        self,
        boundary: Boundary,
        contents: Contents,
        settle: Callable[[Slot], Slot],
        former: Callable[[Any, str], tuple[Any, ...]],
    ) -> None:
        self._boundary, self._fill = boundary, contents.fill
        self._settle, self.former = settle, former
        self.slots: dict[tuple[int, str], Slot] = {}
        self._watched: dict[tuple[int, str], _Watched] = {}
        self._plain: dict[int, tuple[types.FunctionType, Any]] = {}  # that had no attributes, with their defaults
        self._listed: dict[int, _Listed] = {}

    def slot(self, owner: Any, key: str, label: str, read: Callable[[Any, str], Any], value: Any = MISSING) -> Slot:
        """The slot for a place, looked at once per activity."""
        known = self.slots.get((id(owner), key))
        if known is None:
            watched = self._watched.get((id(owner), key))
            if watched is not None:
                value = watched.value
            slot = Slot(owner, key, label, read(owner, key) if value is MISSING else value, read)
            self._fill(slot)
            known = self.slots[id(owner), key] = self._settle(slot)
        return known

    def held(
        self, owner: Any, key: str, read: Callable[[Any, str], Any], holder: Any, name: str
    ) -> tuple[bytes, tuple[Any, ...]] | None:
        """The encoding of a number, a text, a tuple of such, or a function in a place, and the code in it; else None.

        The place needs no slot: it is watched. What is in it can't be altered, but be replaced.
        """
        place = id(owner), key
        if place in self.slots or self.former(owner, key):
            return None
        watched = self._watched.get(place)
        value = read(owner, key) if watched is None else watched.value
        found: tuple[bytes, tuple[Any, ...]] | None = None
        if type(value) is not types.FunctionType:
            found = plain_value(value)
        elif self._is_bare(value):
            found = FIRST_CODE, (value,)
        if found is not None and watched is None:
            self._watched[place] = _new(_Watched, (owner, key, value, read, holder, name))
        return found

    def _is_bare(self, function: types.FunctionType) -> bool:
        """Whether a function is the project's, unmarked, and not called like one that reads about code."""
        if function.__dict__ or function.__name__ in READ_BY:
            return False
        return not self._boundary.owns_globals(function.__globals__)

    def before_runs(self, owner: Any, key: str, label: str, read: Callable[[Any, str], Any]) -> Any:
        """What a place holds; before running code put something else there, if nobody else has touched it since."""
        place, former = (id(owner), key), self.former(owner, key)
        known = self.slots.get(place) or self._watched.get(place)  # as it was when it was looked at first
        value = read(owner, key) if known is None else known.value
        if former or value is MISSING:
            slot = self.slot(owner, key, label, read)
            return former[0] if former and not slot.holds(slot.data, slot.refs) else value
        if known is None:
            self._watched[place] = _new(_Watched, (owner, key, value, read, None, label))
        return value

    def watch_function(self, function: types.FunctionType) -> None:
        """Of one without attributes and keyword-only defaults, which running code may give some."""
        self._plain[id(function)] = function, function.__defaults__

    def was_bare(self, function: types.FunctionType) -> bool:
        """Whether a function had no attributes: what it has by now, a run has given it."""
        return not function.__dict__ or id(function) in self._plain

    def defaults(self, function: types.FunctionType) -> tuple[Any, Any]:
        """The defaults that a function had when it was looked at first, and those of keyword-only parameters."""
        known = self._plain.get(id(function))
        return (function.__defaults__, function.__kwdefaults__) if known is None else (known[1], None)

    def list_none(self, function: types.FunctionType, node: Node) -> None:
        """List a function that had no attributes."""
        self._listed[id(function.__dict__)] = function.__dict__, node, FUNCTION_NOISE.__contains__, _NO_NAMES

    def changed(self) -> Iterator[tuple[tuple[int, str], Slot, Slot]]:
        """The slots that hold something else by now: key, as it was, as it is."""
        for place in self._watched.values():
            if place.read(place.owner, place.key) is not place.value:
                self.slot(place.owner, place.key, place.label, place.read)
        for key, slot in self.slots.items():
            value = slot.read(slot.owner, slot.key)
            if value is slot.value and is_fixed(value):
                continue
            after = Slot(slot.owner, slot.key, slot.label, value, slot.read)
            self._fill(after)
            if not after.holds(slot.now, slot.refs_now):
                yield key, slot, after

    def arrivals(self) -> Iterator[tuple[tuple[int, str], Slot]]:
        """The names that were added since to classes, functions and modules that count with all that they hold."""
        for owner, node, is_noise, known in list(self._listed.values()):
            if known.issuperset(_held_by(owner)):
                continue
            for key in sorted(_names_in(owner) - known):
                if not is_noise(key):
                    slot = Slot(owner, key, f"{node.label}.{key}", reader(owner)(owner, key), reader(owner))
                    self._fill(slot)
                    yield (id(owner), key), slot
        for function, _ in self._plain.values():
            attributes = function.__dict__
            for key in sorted(_names_in(attributes) - FUNCTION_NOISE):
                slot = Slot(attributes, key, f"{label_of(function)}.{key}", attributes[key], read_item)
                self._fill(slot)
                yield (id(attributes), key), slot

    def list_names(self, owner: Any, node: Node, is_noise: Callable[[str], bool]) -> list[str]:
        """The names in a class, or in the dict of a function or module, that count, in order; not what runs added."""
        held = _names_in(owner)
        names = [key for key in sorted(held) if not is_noise(key)]
        self._listed.setdefault(
            id(owner), (owner, node, is_noise, held if "__annotations__" in names else held - _FILLED_LATER)
        )
        return [key for key in names if not (self.has_arrived(owner, key) and self._is_arrival(owner, node, key))]

    def has_arrived(self, owner: Any, key: str) -> bool:
        """Whether running code put something there where nothing had been."""
        former = self.former(owner, key)
        return bool(former) and former[0] is MISSING

    def _is_arrival(self, owner: Any, node: Node, key: str) -> bool:
        return self.slot(owner, key, f"{node.label}.{key}", reader(owner)).data == ABSENT

    def listing(self, owner: int) -> list[Any]:
        """The code that counts with all that a class, or the dict of a function or module, holds; by its identity."""
        return [self._listed[owner][1].obj] if owner in self._listed else []

    def forget_changed(self) -> bool:
        """Forget the slots that hold something else by now, to be looked at again; whether there were any."""
        changed = [key for key, *_ in self.changed()]
        for key in changed:
            del self.slots[key]
            self._watched.pop(key, None)
        return bool(changed)

    def forget_lists(self) -> None:
        """Whatever is listed is to be listed anew."""
        self._listed.clear()
        self._plain.clear()


def closure_label(name: str) -> str:
    """What a closure variable is called, behind the name of its function."""
    return f"closure variable {name}"


def _held_by(owner: Any) -> Mapping[str, Any]:
    return vars(owner) if isinstance(owner, type) else owner


def global_label(namespace: Mapping[str, Any], name: str) -> str:
    """What a global is called."""
    return f"constant {module_name(str(namespace.get('__name__', '?')))}.{name}"


def reader(owner: Any) -> Callable[[Any, str], Any]:
    """How one looks at what a class or a namespace holds."""
    return read_class if isinstance(owner, type) else read_item


def _names_in(owner: Any) -> frozenset[str]:
    return frozenset([key for key in list(_held_by(owner)) if isinstance(key, str)])  # a copy: threads may add others

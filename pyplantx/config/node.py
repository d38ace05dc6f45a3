"""One place in the config, and today's answers about it.

A node knows the original object; it never hands it out, and it records nothing: that is the view's work.
Nodes and answers are kept for as long as their `ConfigSource`, that is for one activity of the plant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from reprlib import Repr
from types import FunctionType, ModuleType
from typing import Any, Protocol

from pyplantx.config.base import ConfigBase, ConfigValue, auxiliary_names
from pyplantx.config.keys import Path, make_key, path_name
from pyplantx.config.kinds import (
    ABSENT,
    ATOMS,
    CLASS,
    CODE,
    FAILED,
    GROUPS,
    LEAF,
    LIBRARY,
    MAPPING,
    OBJECT,
    class_attribute,
    class_data_names,
    class_names,
    is_data_descriptor,
    is_dunder,
    is_library,
    kind_of,
    kind_of_definition,
    protocols,
    slot_names,
)
from pyplantx.config.omega import plain, resolved
from pyplantx.core.trace import ABSENT as ABSENT_ANSWER
from pyplantx.core.trace import Digest
from pyplantx.errors import CannotFingerprint, ConfigError

#: A digest, and the answer as a person reads it.
Answer = tuple[Digest, str]

#: Characters of an answer that are kept for people.
SHOWN = 60
#: The same for all of a group, and how deep it is shown.
_OVERVIEW, _NESTED = 400, 2

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = SHOWN

#: Where texts name code that is to be called with the parameters beside it (hydra, Lightning's command line).
_TARGETS = (("_target_",), ("class_path",))

# Begins the digests of what can't be answered; the rest is random.
_UNIQUE = "c0f19ffffffffffe"
_PRESENT: Answer = ("c0f1900000000000000000000000be01", "there")
_AUXILIARY: Answer = ("c0f1900000000000000000000000be06", "auxiliary")
_OPEN: Answer = ("c0f1900000000000000000000000be07", "not auxiliary")
# Answers that say what kind of place it is; far from any digest of a value, like the one above.
_KIND_ANSWERS: dict[str, Answer] = {
    ABSENT: (ABSENT_ANSWER, "absent"),
    MAPPING: ("c0f1900000000000000000000000be03", "a mapping"),
    CLASS: ("c0f1900000000000000000000000be04", "part of its class"),
    LIBRARY: ("c0f1900000000000000000000000be05", "part of a library"),
}


class Hashers(Protocol):
    """What the plant injects: how values and code become digests."""

    @property
    def encode(self) -> Callable[[object], Digest]:
        """Canonical digest of a value; functions inside by code."""

    @property
    def code(self) -> Callable[[object], Digest]:
        """Fingerprint of a function or class."""


_NO_MARKS: frozenset[str] = frozenset()


class NoConfig:
    """Stands for a config that was never set: a group without parameters."""

    __slots__ = ()


class Node:
    """One place in the config.

    Parameters
    ----------
    hashers : Hashers
        See there.
    path : Path
        Where it is.
    kind : str
        One of the kinds of `kinds`.
    value : object
        The original value; for `CODE` the definition, for `FAILED` the exception.
    marks : frozenset of str
        Dotted names below this place that are auxiliary.
    parent : Node or None
        The group that it is in.
    hidden : bool
        Whether this place is auxiliary: of reads of it only that is recorded.
    """

    __slots__ = ("hashers", "path", "kind", "value", "marks", "parent", "hidden", "children", "_answers", "_inner")

    def __init__(
        self,
        hashers: Hashers,
        path: Path,
        kind: str,
        value: Any,
        marks: frozenset[str] = frozenset(),
        parent: Node | None = None,
        hidden: bool = False,
    ) -> None:
        self.hashers = hashers
        self.path = path
        self.kind = kind
        self.value = value
        self.marks = marks | auxiliary_names(value) if isinstance(value, ConfigBase) else marks
        self.parent = parent
        self.hidden = hidden
        self.children: dict[str | int, Node] = {}
        self._inner: dict[str, frozenset[str]] | None = None  # first part of a mark -> what follows it
        self._answers: dict[str, Answer] = {}

    @classmethod
    def root(cls, hashers: Hashers, config: object, marks: frozenset[str]) -> Node:
        """The node of a whole config.

        Raises
        ------
        ConfigError
            If it is a class.
        """
        if isinstance(config, type):
            raise ConfigError(
                f"the config is the class {config.__name__}, not an object of it",
                hint=f"plant.set_config({config.__name__}())",
            )
        value = NoConfig() if config is None else config
        return cls(hashers, (), kind_of(value, root=True), value, marks)

    def standing_for(self, value: object) -> Node:
        """A node like this one that holds `value` instead (a copy of its value)."""
        return Node(self.hashers, self.path, self.kind, value, self.marks, self.parent, self.hidden)

    # -- places below this one

    def child(self, name: str | int) -> Node:
        """The place `name` in this group (or in a dict, where a dotted name leads into one)."""
        found = self.children.get(name)
        if found is None:
            found = self.children.setdefault(name, self._look_up(name))
        return found

    def _look_up(self, name: str | int) -> Node:
        if self.kind == MAPPING:
            return self._item(name)
        if self.kind == OBJECT:
            return self._attribute(name) if isinstance(name, str) else self._make(name, ABSENT, None)
        if self.kind == LEAF and isinstance(self.value, dict):
            return self._item(name)
        return self._make(name, ABSENT, None)

    def _item(self, name: str | int) -> Node:
        group = self.value
        try:
            if name in group:
                return self._holding(name, group[name])
            if hasattr(type(group), "__missing__"):  # it may insert, so let it act on a copy
                from copy import copy

                return self._holding(name, copy(group)[name])
        except KeyError:
            pass  # it said "not there", which is an answer
        except MemoryError:  # says nothing of the config
            raise
        except Exception as error:
            return self._make(name, FAILED, error)
        return self._make(name, ABSENT, None)

    def _attribute(self, name: str) -> Node:
        """The attribute `name`, however the object and its class define it."""
        found = class_attribute(type(self.value), name)
        if found is None:
            return self._plain_attribute(name)
        owner, definition = found
        if isinstance(definition, ConfigValue):
            return self._plain_attribute(name, hidden=definition.auxiliary)
        kind = kind_of_definition(owner, definition, name)
        if kind == LEAF or not is_data_descriptor(definition) and name in getattr(self.value, "__dict__", ()):
            return self._plain_attribute(name)
        return self._make(name, kind, definition)

    def _plain_attribute(self, name: str, hidden: bool = False) -> Node:
        try:
            value = getattr(self.value, name)
        except AttributeError:
            return self._make(name, ABSENT, None, hidden)
        except MemoryError:  # says nothing of the config
            raise
        except Exception as error:
            return self._make(name, FAILED, error, hidden)
        return self._holding(name, value, hidden)

    def _holding(self, name: str | int, value: Any, hidden: bool = False) -> Node:
        if isinstance(value, ConfigValue):
            hidden, value = hidden or value.auxiliary, value.value
        value = resolved(value)
        return self._make(name, kind_of(value), value, hidden)

    def _make(self, name: str | int, kind: str, value: Any, hidden: bool = False) -> Node:
        hidden = hidden or self.hidden or name in self.marks
        return Node(self.hashers, (*self.path, name), kind, value, self._marks_in(name), self, hidden)

    def _marks_in(self, name: str | int) -> frozenset[str]:
        """The dotted names of auxiliary places below the one called `name`, as seen from there."""
        if self._inner is None:  # once for all places in this group: there may be thousands, and as many marks
            inner: dict[str, set[str]] = {}
            for mark in self.marks:
                for at in [at for at, letter in enumerate(mark) if letter == "."]:
                    inner.setdefault(mark[:at], set()).add(mark[at + 1 :])
            self._inner = {start: frozenset(rest) for start, rest in inner.items()}
        return self._inner.get(str(name), _NO_MARKS)

    def names(self) -> list[Any]:
        """Names of the parameters in this group that the object itself holds, in its order."""
        if self.kind == MAPPING:
            return list(self.value)
        return instance_names(self.value) if self.kind == OBJECT else []

    def all_names(self) -> list[Any]:
        """`names`, and those that the user's classes define as data."""
        names = dict.fromkeys(self.names())
        if self.kind == OBJECT:
            names.update(dict.fromkeys(class_data_names(type(self.value))))
        return list(names)

    # -- answers

    def key(self, mode: str) -> str:
        """The question of that mode about this place."""
        return make_key(mode, self.path)

    def answer(self, mode: str) -> Answer:
        """Today's answer; what can't be answered gets a digest of its own. Raises nothing but `MemoryError`."""
        found = self._answers.get(mode)
        if found is None:
            try:
                found = _ASK[mode](self)
            except MemoryError:  # says nothing of the config
                raise
            except Exception as error:
                found = unanswerable(error)
            found = self._answers.setdefault(mode, found)
        return found

    def _value(self) -> Answer:
        if self.kind == LEAF:
            return self._leaf(), show(plain(self.value))
        if self.kind == OBJECT:
            return self.hashers.encode(("pyplantx config group", protocols(type(self.value)))), "a group"
        if self.kind == CODE:
            return self._code()
        if self.kind == FAILED:
            return unanswerable(self.value)
        return _KIND_ANSWERS[self.kind]

    def _leaf(self) -> Digest:
        """Of a text that names code to be called, with that code."""
        named = isinstance(self.value, str) and self.path[-1:] in _TARGETS
        return self.hashers.encode({self.path[-1]: self.value} if named else plain(self.value))

    def _code(self) -> Answer:
        role = type(self.value).__name__
        digest = self.hashers.code(code_of(self.value))
        return self.hashers.encode(("pyplantx config code", role, digest)), f"code of a {role}"

    def _has(self) -> Answer:
        return _KIND_ANSWERS[ABSENT] if self.kind == ABSENT else _PRESENT

    def _keys(self) -> Answer:
        names = self.open_names()
        return self.hashers.encode(("pyplantx config keys", self.kind, tuple(names))), clip(", ".join(map(str, names)))

    def open_names(self) -> list[Any]:
        """`names` without the auxiliary ones."""
        return [name for name in self.names() if not self._hides(name)]

    def _hides(self, name: Any) -> bool:
        return isinstance(name, (str, int)) and self.child(name).hidden

    def _is_auxiliary(self) -> Answer:
        return _AUXILIARY if self.hidden else _OPEN

    def outermost_hidden(self) -> Node:
        """The place whose mark covers this one, which is auxiliary."""
        node = self
        while node.parent is not None and node.parent.hidden:
            node = node.parent
        return node

    def _len(self) -> Answer:
        count = len(self.open_names())
        return self.hashers.encode(("pyplantx config len", self.kind, count)), str(count)

    def _whole(self) -> Answer:
        if self.kind not in GROUPS:
            return self._value()
        return self._tree(()), clip(self._overview(_NESTED), _OVERVIEW)

    def _overview(self, depth: int) -> str:
        """Names and values, for people: ``lr=0.1, model={depth=3}``."""
        return ", ".join([f"{name}{self._shown(name, depth)}" for name in self.open_names()])

    def _shown(self, name: Any, depth: int) -> str:
        if not isinstance(name, (str, int)):
            return f"={show(self.value[name])}"
        child = self.child(name)
        if child.kind not in GROUPS:
            return f"={child.answer('value')[1]}"
        return f"={{{child._overview(depth - 1)}}}" if depth else ""

    def _tree(self, around: tuple[int, ...]) -> Digest:
        if id(self.value) in around:
            return self.hashers.encode(("pyplantx config cycle", around.index(id(self.value))))
        inside = (*around, id(self.value))
        parts = tuple((name, self._branch(name, inside)) for name in self.open_names())
        described = ("pyplantx config tree", self._sure("class"), parts, self._class_data(inside), *self._fields_set())
        return self.hashers.encode(described)

    def _fields_set(self) -> tuple[object, ...]:
        """The fields that a pydantic model was given, and so what ``model_dump(exclude_unset=True)`` is of."""
        if not hasattr(type(self.value), "__pydantic_fields__"):
            return ()
        return (frozenset(name for name in self.value.__pydantic_fields_set__ if not self._hides(name)),)

    def _branch(self, name: Any, around: tuple[int, ...]) -> Digest:
        if not isinstance(name, (str, int)):  # such a key has no path, but its value counts all the same
            return self.hashers.encode(self.value[name])
        child = self.child(name)
        return child._tree(around) if child.kind in GROUPS else child._sure("value")

    def _sure(self, mode: str) -> Digest:
        digest, shown = self.answer(mode)
        if not is_comparable(digest):
            raise CannotFingerprint(f"{path_name(self.path)} {shown}")
        return digest

    def _class_data(self, around: tuple[int, ...]) -> tuple[tuple[str, Digest], ...]:
        own = set(self.names())
        names = [name for name in self.all_names() if name not in own and not self._hides(name)]
        return tuple((name, self._class_branch(name, around)) for name in names)

    def _class_branch(self, name: str, around: tuple[int, ...]) -> Digest:
        child = self.child(name)
        if child.kind == LEAF:
            try:
                return child._leaf()
            except CannotFingerprint:
                return ""  # the code of the class counts it by its type
        return self._branch(name, around)

    def _class(self) -> Answer:
        cls = type(self.value)
        code = "" if is_library(cls) else self.hashers.code(cls)
        return self.hashers.encode(("pyplantx config class", class_names(cls), code)), f"class {cls.__name__}"


_ASK: dict[str, Callable[[Node], Answer]] = {
    "value": Node._value,
    "has": Node._has,
    "keys": Node._keys,
    "len": Node._len,
    "whole": Node._whole,
    "class": Node._class,
    "auxiliary": Node._is_auxiliary,
}


def code_of(definition: Any) -> Any:
    """The function behind a property, cached property, static or class method; else `definition`."""
    for name in ("fget", "__func__", "func"):
        inner = getattr(definition, name, None)
        if inner is not None:
            return inner
    return definition


def instance_names(value: Any) -> list[str]:
    """Names of what an object itself holds: its ``__dict__``, filled slots, pydantic's extra and private fields."""
    held = getattr(value, "__dict__", ())
    if isinstance(value, ModuleType):
        return [name for name in held if not is_dunder(name)]
    names = dict.fromkeys(held)
    names.update((name, None) for name in slot_names(type(value)) if hasattr(value, name))
    if hasattr(type(value), "__pydantic_fields__"):
        for store in ("__pydantic_extra__", "__pydantic_private__"):
            names.pop(store, None)
            names.update(dict.fromkeys(getattr(value, store, None) or ()))
        names.pop("__pydantic_fields_set__", None)
    return list(names)


def unanswerable(error: object) -> Answer:
    """An answer that equals no other, with the reason."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return _UNIQUE + os.urandom(8).hex(), clip(f"can't be compared: {reason}")


def is_comparable(digest: Digest) -> bool:
    """Whether an answer says anything about the value."""
    return not digest.startswith(_UNIQUE)


def show(value: object) -> str:
    """A value for people, on one line, never long; addresses, which mean nothing, are left out."""
    try:
        text = clip(_bounded_repr(value))
    except Exception:  # a user's __repr__ may fail; what is shown decides nothing
        text = ""
    return text if text and " at 0x" not in text else f"<{type(value).__name__}>"


def _bounded_repr(value: Any) -> str:
    cls = type(value)
    if cls in ATOMS and not isinstance(value, (str, bytes, FunctionType)):
        return repr(value)
    if isinstance(value, (FunctionType, type)):
        return f"{cls.__name__} {value.__qualname__}"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{cls.__name__} {getattr(value, 'dtype', '')} {shape}"
    return _SHORT.repr(value)


def clip(text: str, most: int = SHOWN) -> str:
    """`text` on one line of at most `most` characters."""
    line = text if text.isprintable() else repr(text)[1:-1]
    return line if len(line) <= most else line[: most - 1] + "…"

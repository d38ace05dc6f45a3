"""One run of one reactor: what it reads of the config is noted, what it is handed is its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, NoReturn, Protocol, cast

from pyplantx.config.copies import copies_exactly, private_copy
from pyplantx.config.kinds import (
    ABSENT,
    ATOMS,
    CLASS,
    CODE,
    FAILED,
    LEAF,
    LIBRARY,
    MAPPING,
    OBJECT,
    is_cached_property,
)
from pyplantx.config.messages import altered, unknown
from pyplantx.config.node import Node, is_comparable
from pyplantx.config.view import HELD, NOTHING, ConfigView, new_view
from pyplantx.core.trace import Digest


class Recorder(Protocol):
    """Where reads are noted. It drops repeats, and must bear calls from several threads."""

    def observe(self, kind: str, key: str, answer: Digest, shown: str) -> None:
        """Note that the question (`kind`, `key`) was given `answer`."""


# Places that must be read to find what is behind them.
_RUNS = frozenset((CODE, CLASS, LIBRARY, FAILED))


class ConfigRun:
    """The config as one run of one reactor sees it.

    Parameters
    ----------
    root : Node
        The config.
    recorder : Recorder or None
        Where reads are noted; None: nowhere.
    """

    __slots__ = ("_root", "_recorder", "_views", "_copies", "_checks", "_taken", "_named")

    def __init__(self, root: Node, recorder: Recorder | None) -> None:
        self._root = root
        self._recorder = recorder
        self._views: dict[Node, ConfigView] = {}
        self._copies: dict[tuple[str, Node], Any] = {}
        self._checks: list[tuple[Node, Callable[[], bool]]] = []
        self._taken: dict[Node, Any] = {}
        self._named: dict[str, Any] = {}

    # -- what a pipe offers

    def view(self) -> Any:
        """The whole config, as a recording view (a config that is one value: that value).

        That it is a group, and of which kind, is the first thing that is noted.
        """
        return self.take(self._root)

    def read(self, name: str, default: object = NOTHING) -> Any:
        """The parameter `name`; a dotted name leads into groups and dicts.

        Raises
        ------
        UnknownParameter
            If there is none and no `default` is given.
        """
        kept = self._named.get(name, NOTHING)
        if kept is not NOTHING:
            return kept
        try:
            return self._read(name, default)
        except (AttributeError, LookupError):
            if default is NOTHING:
                raise
            return default

    def _read(self, name: str, default: object) -> Any:
        node, rest = self._descend(name)
        if rest:
            return self._behind(node, rest)
        if node.kind == ABSENT and default is not NOTHING:
            self.note(node, "value")
            return default
        value = self.take(node)
        if node.kind in HELD:
            self._named[name] = value
        return value

    def has(self, name: str) -> bool:
        """Whether there is a parameter `name`; its value is not looked at."""
        node, rest = self._descend(name)
        if not rest:
            self.note(node, "has")
            return node.kind != ABSENT
        try:
            self._behind(node, rest)
        except (AttributeError, LookupError):
            return False
        return True

    def _descend(self, name: str) -> tuple[Node, list[str]]:
        """The node that `name` leads to; or one with code behind it, and the steps that remain."""
        if self._root.kind == MAPPING and "." in name:
            exact = self._root.child(name)
            if exact.kind != ABSENT:
                return exact, []
            self.note(exact, "value")
        node, steps = self._root, name.split(".")
        for position, step in enumerate(steps):
            if node.kind in _RUNS:
                return node, steps[position:]
            node = node.child(step)
        return node, []

    def _behind(self, node: Node, steps: list[str]) -> Any:
        value = self.take(node)
        for step in steps:
            # Asking for the type, because a view notes that it is asked for its class.
            value = value[step] if issubclass(type(value), Mapping) else getattr(value, step)
        return value

    # -- what views use

    def note(self, node: Node, mode: str) -> None:
        """Record today's answer to a question of that mode about a node; of an auxiliary one that it is that."""
        if self._recorder is None:
            return
        if node.hidden:
            node, mode = node.outermost_hidden(), "auxiliary"
        self._recorder.observe("config", node.key(mode), *node.answer(mode))

    def view_of(self, node: Node) -> ConfigView:
        """The one view of a group."""
        found = self._views.get(node)
        if found is None:
            found = self._views.setdefault(node, new_view(self, node))
        return found

    def take(self, node: Node) -> Any:
        """Note the read of a place and give what is there."""
        found = self._taken.get(node, NOTHING)
        if found is NOTHING:
            found = _TAKE[node.kind](self, node)
            if node.kind in HELD:
                self._taken[node] = found
        return found

    def _take_value(self, node: Node) -> Any:
        self.note(node, "value")
        if type(node.value) in ATOMS:
            return node.value
        return self._private(node, "value")

    def _take_group(self, node: Node) -> Any:
        self.note(node, "value")
        return self.view_of(node)

    def _take_absent(self, node: Node) -> NoReturn:
        self.note(node, "value")
        raise unknown(node)

    def _take_failed(self, node: Node) -> NoReturn:
        self.note(node, "value")
        raise cast(Exception, node.value)

    def _take_code(self, node: Node) -> Any:
        self.note(node, "value")
        view = self.view_of(cast(Node, node.parent))
        definition = node.value
        if isinstance(definition, property):
            return cast(Callable[[Any], Any], definition.fget)(view)
        if isinstance(definition, staticmethod):
            return definition.__func__
        return definition.func(view) if is_cached_property(definition) else MethodType(definition, view)

    def _take_class(self, node: Node) -> Any:
        group = cast(Node, node.parent)
        self.note(group, "class")
        definition = node.value
        if isinstance(definition, classmethod) or not hasattr(type(definition), "__get__"):
            return getattr(group.value, str(node.path[-1]))
        return definition.__get__(self.view_of(group), type(group.value))

    def _take_library(self, node: Node) -> Any:
        return getattr(self.whole(cast(Node, node.parent)), str(node.path[-1]))

    def whole(self, group: Node) -> Any:
        """The run's private copy of a group, with all that is in it."""
        self.note(group, "whole")
        return self._private(group, "whole")

    def _private(self, node: Node, mode: str) -> Any:
        found = self._copies.get((mode, node), NOTHING)
        if found is NOTHING:
            copy = private_copy(node.value)
            found = self._copies.setdefault((mode, node), copy)
            if found is copy and copy is not node.value:
                self._watch(node, copy, mode)
        return found

    def _watch(self, node: Node, copy: object, mode: str) -> None:
        known = node if copies_exactly(copy) else node.standing_for(copy)
        before = known.answer(mode)[0]
        if is_comparable(before):
            self._checks.append((node, lambda: node.standing_for(copy).answer(mode)[0] == before))

    def attributes(self, group: Node, view: ConfigView) -> dict[str, Any]:
        """What ``vars(view)`` is."""
        held = group.value.__dict__
        self.note(group, "keys")
        found = {name: getattr(view, name) for name in group.names() if name in held}
        given = dict(found)
        self._checks.append((group, lambda: _same_items(found, given)))
        return found

    def check_unchanged(self) -> None:
        """Raise if the reactor changed something that it was handed.

        Raises
        ------
        ReadOnlyConfig
            Naming the parameter.
        """
        for node, unchanged in self._checks:
            if not unchanged():
                raise altered(node.path)


_TAKE: dict[str, Callable[[ConfigRun, Node], Any]] = {
    LEAF: ConfigRun._take_value,
    OBJECT: ConfigRun._take_group,
    MAPPING: ConfigRun._take_group,
    ABSENT: ConfigRun._take_absent,
    FAILED: ConfigRun._take_failed,
    CODE: ConfigRun._take_code,
    CLASS: ConfigRun._take_class,
    LIBRARY: ConfigRun._take_library,
}


def _same_items(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return now.keys() == before.keys() and all(now[name] is before[name] for name in before)

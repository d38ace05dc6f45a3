"""Roots of plain functions, in a fraction of the time that the graph takes.

Plain is a function that is in no circle, and names constants and other code: most helpers, and most reactors.
Its root is what the graph would give it, from the same bytes (`pieces.joined`, `graph.root_of`), but no node is made,
and no slot for a global or closure variable that holds a number, a text or a function: a program in which nothing has
changed needs neither. Such places are watched, so that one that a run changes is found to be state.

Functions with attributes or imports of their own, and those that read names, docstrings or annotations, are not plain:
whatever asks for more than a look is left to the graph, as are classes and all else that a plain function refers to.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pyplantx.core.trace import Digest
from pyplantx.fingerprint.arrays import text
from pyplantx.fingerprint.generated import origin_of
from pyplantx.fingerprint.graph import Graph, root_of
from pyplantx.fingerprint.pieces import FUNCTION, Look, framed, joined, read_attribute, read_cell, read_item
from pyplantx.fingerprint.places import DEFAULTS, closure_label
from pyplantx.fingerprint.records import plain_chains
from pyplantx.fingerprint.references import LOCATION

if TYPE_CHECKING:
    from pyplantx.fingerprint.nodes import Describer

#: How many calls deep is looked: what lies deeper is left to the graph, which does not recurse.
_DEEPEST: Final = 16


class PlainFunctions:
    """The roots of plain functions that were met in one activity.

    Parameters
    ----------
    describer : Describer
        Says what names come to.
    graph : Graph
        Gives roots to all that is not plain.
    record_text : callable
        Code object -> the text of its record.
    may_be : callable
        Function -> whether it is the project's, and nothing counts for it that it does not name.
    """

    def __init__(
        self,
        describer: Describer,
        graph: Graph,
        record_text: Callable[[types.CodeType], str],
        may_be: Callable[[types.FunctionType], bool],
    ) -> None:
        self._describer, self._places, self._graph = describer, describer.places, graph
        self._record_text, self._may_be = record_text, may_be
        self._roots: dict[int, tuple[Digest | None, types.FunctionType]] = {}
        self._under_way: list[types.FunctionType] = []

    def root(self, function: types.FunctionType) -> Digest | None:
        """The root that the graph would give a function; None if it is not plain."""
        known = self._roots.get(id(function))
        if known is None:
            self._roots[id(function)] = None, function  # as long as it lasts: who comes back here is in a circle
            self._under_way.append(function)
            try:
                root = self._find(function) if len(self._under_way) <= _DEEPEST else None
            finally:
                self._under_way.pop()
            known = self._roots[id(function)] = root, function
        return known[0]

    def _root_of(self, ref: Any) -> Digest | None:
        """The root of what a function refers to; None if that leads back to it, or reads about code."""
        root = self.root(ref) if type(ref) is types.FunctionType else None
        return root or self._graph.root_apart_from(ref, self._under_way)

    def _find(self, function: types.FunctionType) -> Digest | None:
        if function.__kwdefaults__ or function.__dict__ or origin_of(function) is not None:
            return None
        record = self._record_text(function.__code__)
        chains = plain_chains(record)
        if chains is None or not self._may_be(function):
            return None
        own, constants, roots = [FUNCTION, record[:32].encode()], list[bytes](), list[Digest]()
        for found in self._looks(function, chains):
            if found is None:
                return None
            said, constant, refs = found
            own.append(said)
            if constant:
                constants.append(constant)
            for ref in refs:
                root = self._root_of(ref)
                if root is None:
                    return None
                roots.append(root)
        self._places.watch_function(function)
        return root_of(joined(b"".join(own), constants), roots)

    def _looks(self, function: types.FunctionType, chains: list[str]) -> Iterator[Look | None]:
        """What its defaults, its closure variables and the names that it uses add to a function, in order."""
        if function.__defaults__:
            yield self._in_defaults(function)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            yield self._in_cell(function, name, cell)
        for chain in chains:
            yield self._named(function.__globals__, chain)

    def _in_defaults(self, function: types.FunctionType) -> Look | None:
        held = self._places.held(function, "__defaults__", read_attribute, function, DEFAULTS)
        return None if held is None else (framed("__defaults__", held[0]), b"", held[1])

    def _in_cell(self, function: types.FunctionType, name: str, cell: types.CellType) -> Look | None:
        held = self._places.held(cell, "", read_cell, function, closure_label(name))
        return None if held is None else (text(name) + framed("", held[0]), b"", held[1])

    def _named(self, namespace: dict[str, Any], chain: str) -> Look | None:
        """What a name adds to a function that uses it; None if a look does not tell."""
        if chain not in LOCATION:
            held = self._places.held(namespace, chain, read_item, namespace, chain)
            if held is not None:
                return text(chain), framed(chain, held[0]), held[1]
        return self._describer.reference(namespace, chain).at_a_look

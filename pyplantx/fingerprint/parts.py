"""What a fingerprint is made of, part by part, for people who ask what has changed.

This file may know: nodes and their graph. It may not know: how code is described, what is done with the answer.
"""

from __future__ import annotations

from typing import Any

from pyplantx.core.trace import Digest
from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.foreign import asked, is_a
from pyplantx.fingerprint.graph import Graph
from pyplantx.fingerprint.objects import is_code
from pyplantx.fingerprint.pieces import Node, Slot


class Parts:
    """Collects the parts of one piece of code.

    Parameters
    ----------
    graph : Graph
        Of the code in reach.

    Attributes
    ----------
    found : dict of str to Digest
        Label ("function utils.scale", "constant app.K") -> digest.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.found: dict[str, Digest] = {}
        self._told: dict[str, set[Digest]] = {}  # label -> what had it so far

    def add_all(self, obj: Any) -> None:
        """Add all that the fingerprint of `obj` is made of."""
        self._graph.root(obj)
        nodes = list(self._graph.wide(obj).reach(obj))
        for node, label in zip(nodes, _full_labels(nodes)):
            self._add_node(node, label)

    def _add_node(self, node: Node, label: str) -> None:
        own = self._graph.node(node.obj).own
        self._add(label, bytes(own))
        if len(node.own) > len(own):
            self._add(f"docstring, names, annotations or derived classes of {label}", bytes(node.own[len(own) :]))
        for slot in node.constants:
            if not is_code(slot.value) or _is_other_class(slot):
                self.found[slot.label] = values.hash_bytes(slot.data + self._held(slot))

    def _add(self, label: str, own: bytes) -> None:
        """Add a part; pieces of one name (lambdas) are told apart by number."""
        same, digest = self._told.setdefault(label, set()), values.hash_bytes(own)
        if digest not in same:
            same.add(digest)
            self.found[label if len(same) == 1 else f"{label} ({len(same)})"] = digest

    def _held(self, slot: Slot) -> bytes:
        """Which code lies in a container, for those who compare: by name, and what has none by what it does."""
        told = bytearray()
        for ref in slot.refs:
            name = asked(ref, "__qualname__")
            if isinstance(name, str) and "<" not in name:
                told += name.encode("utf-8", "surrogatepass") + b"\0"
            else:
                told += self._graph.node(ref).own
        return bytes(told)


def _full_labels(nodes: list[Node]) -> list[str]:
    """The labels of nodes; with what holds it where one has no name of its own (partials, properties)."""
    labels = [node.label for node in nodes]
    if all([" " in label for label in labels[1:]]):
        return labels
    holders: dict[int, str] = {}
    for at, node in enumerate(nodes):  # whoever is met first is met before what he holds
        if " " not in labels[at] and id(node.obj) in holders:
            labels[at] += f" in {holders[id(node.obj)]}"
        for slot in node.constants:
            holders |= {id(ref): slot.label for ref in slot.refs if id(ref) not in holders}
        holders |= {id(ref): labels[at] for ref in node.refs if id(ref) not in holders}
    return labels


def _is_other_class(slot: Slot) -> bool:
    """Whether a global holds a class under another name, so that which one it is says more than its code does."""
    return is_a(slot.value, type) and slot.value.__name__ != slot.key

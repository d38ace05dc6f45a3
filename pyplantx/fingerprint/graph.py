"""From pieces of code to one digest each: a Merkle tree over strongly connected components.

A piece's root is the digest of its data and of the roots of what it refers to. Pieces that refer to each
other in a circle are digested together. Iterative, since the depth of calls is the user's; each root is
computed once, so that a thousand reactors share their helpers. (R. Tarjan, 1972, "Depth-first search and
linear graph algorithms"; the iterative form with an explicit stack of iterators.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from pyplantx.core.trace import Digest
from pyplantx.fingerprint.arrays import size
from pyplantx.fingerprint.pieces import Node
from pyplantx.fingerprint.value import hash_bytes


def root_of(data: bytes, roots: list[Digest]) -> Digest:
    """Root of a piece that is in no circle, from its data and the roots of what it refers to."""
    if not roots:
        return hash_bytes(b"N" + data)
    return hash_bytes(b"R" + size(len(data)) + data + "".join(roots).encode())


class Graph:
    """The pieces met in one activity, with their roots.

    Parameters
    ----------
    describe : callable
        Object -> its node.
    widen : callable, optional
        Node, what is read about code (as in `Record`) -> a node of the same object with that in it.
    """

    def __init__(self, describe: Callable[[Any], Node], widen: Callable[[Node, int], Node] | None = None) -> None:
        self._describe = describe
        self._widen = widen
        self._wide: dict[int, Graph] = {}  # of what some piece reads about others
        self._nodes: dict[int, Node] = {}  # a node keeps its object alive, so that ids stay true
        self._roots: dict[int, Digest] = {}
        self._sees: dict[int, int] = {}

    def node(self, obj: Any) -> Node:
        """The node of an object, made once."""
        node = self._nodes.get(id(obj))
        if node is None:
            node = self._nodes[id(obj)] = self._describe(obj)
        return node

    def nodes(self) -> list[Node]:
        """All nodes that were made so far."""
        return list(self._nodes.values())

    def root(self, obj: Any) -> Digest:
        """Root digest of an object; docstrings, names, annotations count if anything in reach reads them."""
        if id(obj) not in self._roots:
            node = self.node(obj)
            if self._know_roots(node.refs):
                self._close([node])
            else:
                self._visit(node)
        if id(obj) not in self._sees:
            return self._roots[id(obj)]
        wide = self.wide(obj)
        return self._roots[id(obj)] if wide is self else wide.root(obj)

    def _know_roots(self, refs: list[Any]) -> bool:
        """Whether all of these have roots; pieces that refer to no other are given theirs at once."""
        for ref in refs:
            if id(ref) not in self._roots:
                node = self.node(ref)
                if node.refs:
                    return False
                self._close([node])
        return True

    def root_apart_from(self, obj: Any, others: Iterable[Any]) -> Digest | None:
        """Root of an object; None if it reads about code, or if one of the others may be in its reach."""
        root = self.root(obj)
        if id(obj) in self._sees or any([id(other) in self._roots for other in others]):
            return None
        return root

    def wide(self, obj: Any) -> Graph:
        """The graph that counts for an object whose root is known: with what is read about the pieces in its reach."""
        graph, shown = self, 0
        while self._widen is not None and graph._sees.get(id(obj), 0) | shown != shown:
            shown |= graph._sees[id(obj)]
            graph = self._wide.get(shown) or self._widened(shown)
            graph.root(obj)  # pieces that come into reach only so may read more
        return graph

    def _widened(self, sees: int) -> Graph:
        widen = self._widen
        assert widen is not None
        graph = self._wide[sees] = Graph(lambda obj: widen(self.node(obj), sees))
        return graph

    def reach(self, obj: Any) -> Iterator[Node]:
        """All nodes in reach of an object, itself first, each once, in a canonical order."""
        pending, seen = [self.node(obj)], {id(obj)}
        while pending:
            node = pending.pop()
            yield node
            for ref in reversed(node.refs):
                if id(ref) not in seen:
                    seen.add(id(ref))
                    pending.append(self.node(ref))

    def _visit(self, start: Node) -> None:
        """Compute the roots of everything in reach that has none yet."""
        order: dict[int, int] = {}
        lowest: dict[int, int] = {}
        stack: list[Node] = []
        on_stack: set[int] = set()
        walk: list[tuple[Node, Iterator[Any]]] = []

        def enter(node: Node) -> None:
            key = id(node.obj)
            order[key] = lowest[key] = len(order)
            stack.append(node)
            on_stack.add(key)
            walk.append((node, iter(node.refs)))

        def leave(node: Node) -> None:
            key = id(node.obj)
            walk.pop()
            if walk:
                parent = id(walk[-1][0].obj)
                lowest[parent] = min(lowest[parent], lowest[key])
            if lowest[key] == order[key]:
                at = _last_index(stack, node)
                members = stack[at:]
                del stack[at:]
                on_stack.difference_update(id(member.obj) for member in members)
                self._close(members)

        enter(start)
        while walk:
            node, refs = walk[-1]
            ref = next(refs, refs)
            if ref is refs:
                leave(node)
            elif id(ref) in on_stack:
                lowest[id(node.obj)] = min(lowest[id(node.obj)], order[id(ref)])
            elif id(ref) not in self._roots:
                enter(self.node(ref))

    def _close(self, members: list[Node]) -> None:
        """Give a component its roots."""
        if len(members) == 1 and not any([ref is members[0].obj for ref in members[0].refs]):
            node = members[0]
            self._roots[id(node.obj)] = root_of(node.data, [self._roots[id(ref)] for ref in node.refs])
        else:
            self._circle(members)
        sees = 0
        for member in members:
            sees |= member.sees
        if self._sees:  # somebody reads something: else nobody has handed it on
            for ref in chain.from_iterable(member.refs for member in members):
                sees |= self._sees.get(id(ref), 0)
        if sees:
            self._sees.update({id(member.obj): sees for member in members})

    def _circle(self, members: list[Node]) -> None:
        """Roots of pieces that refer to each other, by refinement, so that neither entry nor order shows.

        A piece's colour is the digest of its data; then, round by round, of its colour and the colours of what
        it refers to, until no round tells more pieces apart (Hopcroft's equivalence of automata, the slow way).
        Pieces of one colour do the same, whatever they are called.
        """
        data = {id(node.obj): b"%d:%b" % (len(node.data), node.data) for node in members}
        colours = {key: hash_bytes(b"M" + own) for key, own in data.items()}
        known = 0
        while known < len(set(colours.values())):
            known = len(set(colours.values()))
            colours = {id(node.obj): self._recolour(node, colours) for node in members}
        whole = hash_bytes(b"C" + "".join(sorted(set(colours.values()))).encode())
        for key, colour in colours.items():
            self._roots[key] = hash_bytes(b"M" + whole.encode() + colour.encode())

    def _recolour(self, node: Node, colours: dict[int, Digest]) -> Digest:
        around = [colours.get(id(ref)) or self._roots[id(ref)] for ref in node.refs]
        return hash_bytes(b"M" + "".join([colours[id(node.obj)], *around]).encode())


def _last_index(stack: list[Node], node: Node) -> int:
    place = len(stack) - 1
    while stack[place] is not node:
        place -= 1
    return place

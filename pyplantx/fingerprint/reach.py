"""What lies in reach of a piece of code, and which subreactors are named there.

This file may know: nodes. It may not know: how code is described, what counts.
"""

from __future__ import annotations

import types
from collections.abc import Iterable

from pyplantx.fingerprint.nested import with_nested
from pyplantx.fingerprint.nodes import SUBREACTOR
from pyplantx.fingerprint.pieces import Node


class Reach:
    """What lies in reach of a piece of code.

    Attributes
    ----------
    objects : dict of int to object
        The pieces, by identity.
    subreactors : tuple
        Those that are named, one for each name, in a canonical order.
    """

    __slots__ = ("_nested", "objects", "subreactors")

    def __init__(self, nodes: Iterable[Node]) -> None:
        met = list(nodes)
        self.objects = {id(node.obj): node.obj for node in met}
        markers = {id(node.obj) for node in met if node.own == SUBREACTOR}
        self.subreactors = tuple([ref for node in met for ref in node.refs if id(ref) in markers]) if markers else ()
        self._nested: dict[int, types.CodeType] | None = None

    def nested(self) -> dict[int, types.CodeType]:
        """The code objects inside those of its functions, by identity."""
        if self._nested is None:
            codes = [obj.__code__ for obj in self.objects.values() if type(obj) is types.FunctionType]
            self._nested = {id(inner): inner for code in codes for inner in with_nested(code) if inner is not code}
        return self._nested

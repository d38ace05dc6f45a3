"""What a run has allocated for itself only: it goes when nobody has it any more, at the latest with the run.

Each array that is allocated has a file open, so a reactor that makes one after the other would come to the limit of the
system. That nobody has one any more is noted at once, and acted upon when the run allocates again: the note may be
taken wherever Python frees something, in the middle of a call of HDF5's too.

This file may know: allocations by their interface. It may not know: type specs, files.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any


class Scratch:
    """One allocation, without its handle: see `Allocated`, of which it has what loops over blocks ask for.

    Parameters
    ----------
    allocated : Allocated
    on_abandoned : callable
        Called with `look` once nobody has the handle any more.

    Attributes
    ----------
    name : str
        Of the allocation.
    look : callable
        Gives the handle, or None if nobody has it any more.
    before_publishing : list of callable
        As of `Allocated`; it is not published.
    """

    def __init__(self, allocated: Any, on_abandoned: Callable[[Any], None]) -> None:
        self.name = allocated.name
        self.before_publishing: list[Callable[[], None]] = []
        self._allocated: Any = allocated
        self.look = _weakly(allocated, on_abandoned)

    @property
    def handle(self) -> Any:
        """What the reactor writes into; None if nobody has it any more."""
        return self.look()

    @property
    def inner(self) -> Any:
        """What the type spec made; None once it is discarded."""
        return getattr(self._allocated, "inner", None)

    def discard(self) -> None:
        """Close the handle, remove what was written."""
        allocated, self._allocated = self._allocated, None  # others may have this one for long
        if allocated is not None:
            allocated.discard()


def _weakly(allocated: Any, on_gone: Callable[[Any], None]) -> Callable[[], Any]:
    """What gives the handle as long as somebody else has it; always, if it is not known who has it."""
    handle = allocated.handle
    let_go = getattr(allocated.inner, "let_go_of_handle", None)
    if let_go is None:  # a path, say
        return lambda: handle
    let_go()
    allocated.handle = None
    return weakref.ref(handle, on_gone)


class Temporaries:
    """All that one run has allocated for itself, and that is not gone yet."""

    __slots__ = ("_kept", "_abandoned")

    def __init__(self) -> None:
        self._kept: dict[int, Scratch] = {}  # by the identity of `Scratch.look`
        self._abandoned: list[Any] = []

    def __iter__(self) -> Iterator[Scratch]:
        return iter([each for each in list(self._kept.values()) if each.handle is not None])

    def add(self, allocated: Any) -> Any:
        """Take over an allocation; its handle."""
        handle = allocated.handle
        scratch = Scratch(allocated, self._abandoned.append)
        self._kept[id(scratch.look)] = scratch
        return handle

    def sweep(self) -> None:
        """Discard what nobody has any more."""
        while self._abandoned:
            try:
                look = self._abandoned.pop()
            except IndexError:  # another thread of the reactor was first
                return
            self._kept.pop(id(look)).discard()

    def discard(self) -> None:
        """Discard everything."""
        while self._kept:
            self._kept.popitem()[1].discard()
        self._abandoned.clear()

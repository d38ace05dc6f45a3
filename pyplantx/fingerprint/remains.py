"""State that other code has left behind: what a memo of the user's own kept before a helper was edited.

A memo can't be told from any other dict that running code has filled, and it is not ours to clear. But it is known
which code could fill it: the functions that name it. Each state carries their fingerprints from the activity that
changed it; where one of them is nobody's any more, what is in there may be what other code has computed, and a run
that reads it says nothing of the code of today. What only grows (logs, counters) and what is drawn from (random
generators) are no such thing.
This file may know: nodes and slots. It may not know: when state is noted, or what becomes of the runs.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final

from pyplantx.core.trace import Digest
from pyplantx.fingerprint.nested import names_in, texts_in
from pyplantx.fingerprint.objects import class_module, qualified, static_attribute
from pyplantx.fingerprint.pieces import Node, Slot
from pyplantx.fingerprint.roles import unwrapped
from pyplantx.fingerprint.uses import calls_what_it_is_given, uses

#: A place: identity of the namespace, name in it.
Key = tuple[int, str]

#: What is drawn from: that it was drawn from by other code says nothing of what comes next.
_DRAWN_FROM: Final = frozenset(
    {
        *("random.Random", "itertools.count", "torch._C.Generator"),
        *("numpy.random._generator.Generator", "numpy.random.mtrand.RandomState"),
    }
)

#: Names in code that writes attributes whose names are computed.
_BY_TEXT: Final = frozenset({"setattr", "__setattr__", "__dict__", "vars"})


def users_of(keys: Collection[Key], nodes: Iterable[Node]) -> dict[Key, list[Any]]:
    """The pieces of code that name each of some places themselves.

    An attribute of a class or function is named by whoever refers to that and says the attribute's name, too.
    """
    found: dict[Key, list[Any]] = {key: [] for key in keys}
    owners: dict[int, list[Key]] = {}
    for key in keys:
        owners.setdefault(key[0], []).append(key)
    for node in nodes:
        named = [(id(slot.owner), slot.key) for slot in node.constants]
        named += [key for owner in _owned_by(node.obj) for key in owners.get(owner, ())]
        inside = [key for ref in node.refs for owner in _open_in(ref) for key in owners.get(owner, ())]
        if inside and type(node.obj) is types.FunctionType:
            said = {*names_in(node.obj.__code__), *texts_in(node.obj.__code__)}
            named += [key for key in inside if key[1] in said or not _BY_TEXT.isdisjoint(said)]
        for key in dict.fromkeys(named):
            if key in found:
                found[key].append(node.obj)
    return found


def _owned_by(obj: Any) -> Iterator[int]:
    """The namespaces that are a piece's own: those of a class, of a function, its closure."""
    yield from _open_in(obj)
    if type(obj) is types.FunctionType:
        yield from map(id, obj.__closure__ or ())


def _open_in(obj: Any) -> Iterator[int]:
    """The namespaces of a piece into which all may write that get hold of it."""
    yield id(obj)
    if type(obj) is types.FunctionType:
        yield id(obj.__dict__)


def fillers(
    users: Iterable[Any], root: Callable[[Any], Digest], callers: Callable[[Any], Iterable[Digest]]
) -> set[Digest]:
    """The fingerprints of the code that may fill a place.

    Parameters
    ----------
    users : iterable of object
        The pieces of code that name it.
    root : callable
        Piece to fingerprint.
    callers : callable
        Piece to the fingerprints of the reactors in whose reach it is: they count where it calls what it is given.
    """
    found: set[Digest] = set()
    for user in users:
        found.add(root(user))
        if type(user) is types.FunctionType and calls_what_it_is_given(user.__code__):
            found.update(callers(user))
    return found


def is_read(slot: Slot, reach: Iterable[Any]) -> bool:
    """Whether some pieces of code read what a place holds; where nothing is seen of that, they do."""
    if qualified(type(slot.value)) in _DRAWN_FROM:
        return False
    seen = [read for obj in reach if type(obj) is types.FunctionType for read in _uses_of(slot, obj)]
    return any(seen) or not seen


def _uses_of(slot: Slot, function: types.FunctionType) -> Iterator[bool]:
    names = {slot.key}
    if isinstance(slot.owner, types.CellType):
        pairs = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        names = {name for name, cell in pairs if cell is slot.owner}
    return uses(function.__code__, names)


def others(pieces: Iterable[Any], known: Iterable[Any]) -> list[Any]:
    """Those among some pieces of code that are not known here, as another plant has them, and are still in force."""
    ids = set(map(id, known))
    return [piece for piece in pieces if id(piece) not in ids and _is_in_force(piece)]


def _is_in_force(piece: Any) -> bool:
    """Whether a function or class is what its name holds today."""
    if not isinstance(piece, types.FunctionType | type):
        return False
    held: Any = sys.modules.get(class_module(piece)) if isinstance(piece, type) else piece.__globals__
    for part in piece.__qualname__.split("."):
        held = held.get(part) if isinstance(held, dict) else static_attribute(held, part)
    return unwrapped(getattr(held, "__func__", held)) is piece

"""Private copies of what a reactor is handed out, so that it can't change the user's config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyplantx.config.kinds import ATOMS

_FLAT = frozenset((list, set, dict))


def private_copy(value: Any) -> Any:
    """A deep copy, or `value` itself if it can't be changed or can't be copied.

    What can't be copied (a lock, a connection) exists once, so handing out the original is right.
    """
    cls = type(value)
    if cls in ATOMS:
        return value
    if cls in _FLAT and _holds_atoms(value):
        return value.copy()
    return _deep_copy(value)


def copies_exactly(value: Any) -> bool:
    """Whether a copy surely has the digest of `value` (a class may copy its objects as it likes)."""
    cls = type(value)
    if cls in _FLAT:
        return _holds_atoms(value)
    return cls.__module__ == "numpy" and cls.__name__ == "ndarray" and not value.dtype.hasobject


def _holds_atoms(value: Any) -> bool:
    if type(value) is dict:
        return ATOMS.issuperset(map(type, value)) and ATOMS.issuperset(map(type, value.values()))
    return ATOMS.issuperset(map(type, value))


def _deep_copy(value: Any) -> Any:
    from copy import deepcopy

    try:
        return deepcopy(value)
    except MemoryError:  # says nothing of the value
        raise
    except Exception:  # any class may refuse, each in its own way
        return _copy_around(value)


def _copy_around(value: Any) -> Any:
    """A deep copy that shares just those parts that can't be copied."""
    from copy import deepcopy

    shared: dict[int, Any] = {}
    for part in reversed(_parts(value)):  # a part comes before what holds it
        try:
            deepcopy(part, dict(shared))
        except MemoryError:  # says nothing of the value
            raise
        except Exception:
            shared[id(part)] = part
    return deepcopy(value, shared)  # at worst the memo holds `value` itself


def _parts(value: Any) -> list[Any]:
    """`value` and all that is reached through attributes and built-in containers, holders first."""
    found: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if type(part) in ATOMS or id(part) in found:
            continue
        found[id(part)] = part
        waiting.extend(_held_by(part))
    return list(found.values())


def _held_by(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    if isinstance(part, (list, tuple, set, frozenset)):
        return part
    return () if isinstance(part, type) else getattr(part, "__dict__", {}).values()

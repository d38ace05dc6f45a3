"""What objects of some libraries note in themselves when somebody looks at them: no part of what they are.

Who shows a table, or asks a graph for its nodes, has not changed it: what follows from the other fields is left out.
This file may know: types by their names, and where they keep such notes. It may not know: how anything is encoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from pyplantx.fingerprint.objects import class_attribute, lineage, qualified

#: The class of the properties that pandas works out once.
_KEEPING: Final = "pandas._libs.properties.CachedProperty"


def _is_of_pandas(value: Any, name: str, item: Any) -> bool:
    """What properties have come to, and whether an array may be written to (as with those of NumPy)."""
    if name == "_readonly":
        return type(item) is bool
    if name != "_cache" or type(item) is not dict:
        return False
    return all(isinstance(key, str) and qualified(type(class_attribute(type(value), key))) == _KEEPING for key in item)


def _is_of_xarray(value: Any, name: str, item: Any) -> bool:
    """A dict of attributes is made when it is first asked for."""
    return name in ("_attrs", "_encoding") and not item


def _is_of_networkx(value: Any, name: str, item: Any) -> bool:
    """Views of a graph's nodes and edges."""
    made = class_attribute(type(value), name)
    return type(made) is functools.cached_property and made.func.__module__.startswith("networkx.")


#: Library -> whether a field (object, name, content) is such a note.
_NOTES: Final[dict[str, Callable[[Any, str, Any], bool]]] = {
    "pandas": _is_of_pandas,
    "xarray": _is_of_xarray,
    "networkx": _is_of_networkx,
}


def takes_notes(bases: Iterable[str]) -> bool:
    """Whether objects of a class with these bases, by their dotted names, may have any."""
    return any([base.partition(".")[0] in _NOTES for base in bases])


def is_note(value: Any, name: str, item: Any) -> bool:
    """Whether a field of an object says nothing of what the object is."""
    libraries = {base.partition(".")[0] for base in lineage(type(value))}
    return any([library in libraries and is_its(value, name, item) for library, is_its in _NOTES.items()])


def without_notes(value: Any, state: Any) -> Any:
    """The state that an object tells pickle, without its notes.

    These lie among its fields: they are the state or (Cython, slots) the last part of it. Cython leaves that out where
    there are none.
    """
    fields = state[-1] if type(state) is tuple and state else state
    if type(fields) is not dict:
        return state
    rest = {name: item for name, item in fields.items() if not is_note(value, name, item)}
    if fields is state:
        return rest
    return (*state[:-1], rest) if rest else state[:-1]

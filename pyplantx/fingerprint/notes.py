"""What objects of some libraries note in themselves when somebody looks at them: no part of what they are.

Who shows a table, or asks a graph for its nodes, has not changed it: what follows from the other fields is left out.
This file may know: types by their names, and where they keep such notes. It may not know: how anything is encoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

from pyplantx.fingerprint.objects import class_attribute, lineage, qualified

#: The classes of the properties that pandas works out once, and of the accessors that xarray makes once.
_KEEPING: Final = "pandas._libs.properties.CachedProperty"
_ACCESSOR: Final = "xarray.core.extensions._CachedAccessor"

#: What a group of xarray works out from its other fields when it is first asked for it.
_GROUP: Final = "xarray.core.groupby.GroupBy"
_OF_GROUPS: Final = frozenset({"_groups", "_dims", "_sizes"})

#: The class of the arrays of pandas that may be written to or not, in "pandas.api.extensions" of late.
_ARRAY: Final = ".ExtensionArray"


def _is_of_pandas(value: Any, name: str, item: Any) -> bool:
    """What properties have come to, and whether an array may be written to (as with those of NumPy)."""
    if name == "_readonly":
        return type(item) is bool and any([base.endswith(_ARRAY) for base in lineage(type(value))])
    return name == "_cache" and _is_kept(value, item, _KEEPING)


def _is_of_xarray(value: Any, name: str, item: Any) -> bool:
    """A dict of attributes is made when it is first asked for, and so is an accessor of somebody else."""
    if name == "_cache":
        return _is_kept(value, item, _ACCESSOR)
    if name in _OF_GROUPS:
        return _GROUP in lineage(type(value))
    return name in ("_attrs", "_encoding") and (item is None or item == {})


def _is_kept(value: Any, item: Any, by: str) -> bool:
    """Whether this is a dict of nothing but what attributes of an object's class keep there."""
    if type(item) is not dict:
        return False
    return all(isinstance(key, str) and qualified(type(class_attribute(type(value), key))) == by for key in item)


def _is_of_networkx(value: Any, name: str, item: Any) -> bool:
    """Views of a graph's nodes and edges, and what it was turned into for other programs that compute with it."""
    if name == "__networkx_cache__":
        return type(item) is dict
    made = class_attribute(type(value), name)
    if type(made) is not functools.cached_property:
        return False
    module = getattr(made.func, "__module__", None)
    return isinstance(module, str) and module.startswith("networkx.")


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

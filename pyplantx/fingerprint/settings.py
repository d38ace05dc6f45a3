"""Attributes that code takes from plain classes and objects: of a table of settings, what is read counts.

``CFG.lr`` gives what lies under that name, and nothing else of ``CFG`` has a say in it if the class is an ordinary
one. Where it is not (a metaclass, a property, a ``__getattribute__``, a state that the class itself describes), all of
it counts.
"""

from __future__ import annotations

from typing import Any, Final

from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.kinds import Kind
from pyplantx.fingerprint.objects import (
    MISSING,
    class_attribute,
    instance_dict,
    is_code,
    library_name,
    qualified,
)
from pyplantx.fingerprint.pieces import static_pin

#: Objects of libraries that are nothing but their fields.
_NAMESPACES: Final = frozenset({"types.SimpleNamespace", "argparse.Namespace"})
_DESCRIPTOR: Final = ("__get__", "__set__", "__delete__")


def place_of(holder: Any, name: str, boundary: Boundary, known: dict[type, bool]) -> Any:
    """Where an attribute lies, or would lie, if it is given as it is.

    Parameters
    ----------
    holder : object
    name : str
    boundary : Boundary
    known : dict of type to bool
        What was found out about classes before, in the same activity; added to.

    Returns
    -------
    object
        `holder` itself: the class, or the instance (of which a run may replace the ``__dict__``); `MISSING` if
        something else of it has a say.
    """
    if name[:2] == "__":
        return MISSING
    if type(holder) is type:
        is_known = static_pin(holder) is not None or library_name(holder, boundary) is not None
        return MISSING if is_known or _is_descriptor(vars(holder).get(name)) else holder
    if instance_dict(holder) is None or is_code(holder):
        return MISSING
    cls = type(holder)
    is_plain = known.get(cls)
    if is_plain is None:
        is_plain = known[cls] = qualified(cls) in _NAMESPACES or _is_plain(cls, boundary)
    return holder if is_plain and not _is_descriptor(class_attribute(cls, name)) else MISSING


def _is_plain(cls: type, boundary: Boundary) -> bool:
    """Whether the instances of a class of the project are no more than their fields."""
    if library_name(cls, boundary) is not None:
        return False
    if class_attribute(cls, "__getattribute__") is not object.__getattribute__:
        return False
    kind = Kind(cls)
    layout = kind.layout
    says_itself = kind.custom is not None or layout.is_reduced or layout.is_network
    return kind.is_ordinary and not says_itself and layout.builtin is None


def _is_descriptor(held: object) -> bool:
    return any(class_attribute(type(held), method) is not MISSING for method in _DESCRIPTOR)

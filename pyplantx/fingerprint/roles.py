"""Reactors and subreactors as code sees them: by the mark ``__pyplantx_kind__``, and the function inside.

This file may know: the mark. It may not know: how objects with it are made, or what they do.
"""

from __future__ import annotations

import types
from typing import Any

from pyplantx.fingerprint.foreign import ANSWERS, is_a, let_end
from pyplantx.fingerprint.objects import role_function, static_attribute


def is_reactor(obj: Any) -> bool:
    """Whether this is a reactor."""
    return bool(static_attribute(obj, "__pyplantx_kind__") == "reactor")


def has_role(obj: Any) -> bool:
    """Whether this is a reactor or a subreactor."""
    if type(obj) is types.FunctionType:  # the class of functions can't be marked
        return isinstance(obj.__dict__.get("__pyplantx_kind__"), str)
    try:
        marked = getattr(type(obj), "__pyplantx_kind__", None)
    except ANSWERS as error:  # the metaclass has a word of its own for what there is not
        let_end(error)
        marked = None
    if isinstance(marked, str):
        return True
    return not is_a(obj, type) and isinstance(static_attribute(obj, "__pyplantx_kind__"), str)


def unwrapped(obj: Any) -> Any:
    """The function of a reactor or subreactor, reached through whatever keeps ``__wrapped__``."""
    while has_role(obj):
        obj = role_function(obj)
    return obj

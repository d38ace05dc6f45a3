"""Functions that a library writes while a class or function is defined, with a number of this process in their code.

Such code is another in each process. What it was made from counts in its place: the attributes of the class, which
`attrs` keeps beside it; the function, its annotations and the options, with `beartype`.

This file may know: by what these functions are recognised. It may not know: how anything is described.
"""

from __future__ import annotations

import types

_BEARTYPE = "<@beartype("
_ATTRS = "<attrs generated "


def is_own_to_process(code: types.CodeType) -> bool:
    """Whether a code object has a number of this process in it."""
    file = code.co_filename
    return file[0:1] == "<" and (file.startswith(_BEARTYPE) or (file.startswith(_ATTRS) and code.co_name == "__hash__"))


def made_from(function: types.FunctionType) -> tuple[str, types.FunctionType | None, object] | None:
    """Name of the library that has written a function, what that wraps and with which options; None for all others."""
    code = function.__code__
    if not is_own_to_process(code):
        return None
    if code.co_name == "__hash__" and code.co_filename.startswith(_ATTRS):
        return "attrs", None, None
    wrapped = function.__dict__.get("__wrapped__")
    options = (function.__kwdefaults__ or {}).get("__beartype_conf")
    return ("beartype", wrapped, options) if isinstance(wrapped, types.FunctionType) else None

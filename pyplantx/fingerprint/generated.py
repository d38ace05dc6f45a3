"""Functions that a library makes of those of the project, with what belongs to the process in them: numbers, folders.

Such a function is another one in each process, or in each folder. What it was made from counts in its place: the
attributes of the class, which `attrs` keeps beside it; the function, its annotations and the options, with `beartype`
and `torch.compile`.

This file may know: by what these functions are recognised. It may not know: how anything is described.
"""

from __future__ import annotations

import types
from typing import Any, Final

from pyplantx.basics.tuples import NamedTuple

_BEARTYPE: Final = "<@beartype("
_ATTRS: Final = "<attrs generated "
#: What torch's compiler wraps, as an attribute of the wrapper; what it hands that to, as one of each step on the way.
_COMPILED: Final = "_torchdynamo_orig_callable"
_STEPS: Final = ("_torchdynamo_orig_backend", _COMPILED)
_TOLD_CONTEXT: Final = ("fullgraph", "_dynamic", "error_on_graph_break", "recursive", "msg")


class Origin(NamedTuple):
    """What a function was made from.

    Attributes
    ----------
    library : str
        Who made it.
    wrapped : object
        The project's function; None if there is none.
    options : object
        How it was made, as a value.
    """

    library: str
    wrapped: Any = None
    options: object = None


def is_own_to_process(code: types.CodeType) -> bool:
    """Whether a code object has a number of this process in it."""
    file = code.co_filename
    return file[0:1] == "<" and (file.startswith(_BEARTYPE) or (file.startswith(_ATTRS) and code.co_name == "__hash__"))


def origin_of(function: types.FunctionType) -> Origin | None:
    """What a function was made from, if it is of this kind."""
    if _COMPILED in function.__dict__:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        context = cells["self"].cell_contents if "self" in cells else None
        return Origin("torch", function.__dict__[_COMPILED], compiler_options(context))
    if not is_own_to_process(function.__code__):
        return None
    if function.__code__.co_filename.startswith(_ATTRS):
        return Origin("attrs")
    wrapped = function.__dict__.get("__wrapped__")
    options = (function.__kwdefaults__ or {}).get("__beartype_conf")
    return Origin("beartype", wrapped, options) if isinstance(wrapped, types.FunctionType) else None


def compiler_options(context: Any) -> object:
    """How something is compiled by torch: kind of the context, what that was told, and by which backend."""
    told = [getattr(context, name, None) for name in _TOLD_CONTEXT]
    backend = getattr(context, "callback", None)
    for _ in range(16):  # wrappers around the one that was chosen; a circle is nobody's
        inner = next((getattr(backend, step) for step in _STEPS if hasattr(backend, step)), None)
        if inner is None:
            break
        backend = inner
    chosen = dict(vars(backend)) if hasattr(backend, "__dict__") and not _is_code(backend) else backend
    return type(context).__qualname__, told, type(backend).__qualname__, chosen


def _is_code(backend: Any) -> bool:
    """Whether a backend is a function or class: that is what it is."""
    return isinstance(backend, types.FunctionType | type)

"""What numba compiles: the functions and classes of the project that it was given, and what it was told about them.

What it makes of these (signatures seen so far, contexts of the compiler, numbers of types) is of the process and does
not count. This file may know: numba's attributes. It may not know: how anything is described.
"""

from __future__ import annotations

import re
from typing import Any, Final

#: The class type of a ``jitclass`` is called after the address of the class.
_ADDRESS: Final = re.compile(r"#[0-9a-f]+(?=<)")


def options_of(compiler: Any) -> tuple[object, ...] | None:
    """What was said beside a function: options, types of locals, and the signatures that it is compiled for, if given.

    None if that is none of numba's compilers.
    """
    told = getattr(compiler, "targetoptions", None)
    if not isinstance(told, dict):
        return None
    is_fixed = getattr(compiler, "_can_compile", True) is False
    signatures = [_name(one) for one in compiler.nopython_signatures] if is_fixed else None
    return dict(told), _types_in(getattr(compiler, "locals", None) or {}), signatures


def callback_state(callback: Any) -> object:
    """What a ``cfunc`` is made of."""
    return callback._pyfunc, _name(callback._sig), options_of(callback._compiler)


def stencil_state(stencil: Any) -> object:
    """What a ``stencil`` is made of: a neighborhood that was given is an option, another one was found by a call."""
    return stencil.kernel_ir.func_id.func, stencil.mode, stencil.options


def class_state(made: Any) -> object:
    """What a ``jitclass`` is made of: its fields and methods, in the order in which they stand."""
    return made.class_name, _types_in(made.struct), made.jit_methods, made.jit_props, made.jit_static_methods


def _types_in(fields: dict[str, Any]) -> list[tuple[str, str, object]]:
    """Names with their types; the type of a ``jitclass`` with that class."""
    return [(name, _name(kind), getattr(kind, "class_type", None)) for name, kind in fields.items()]


def _name(kind: object) -> str:
    return _ADDRESS.sub("#", str(kind))

"""Which of the loaded modules code takes by a text: ``sys.modules["zoo.small"]``, ``sys.modules["zoo." + kind]``.

Nobody can watch a dict, so it is read off the code. A text that is computed may name any module of the project, or, if
it begins with a package, any in that.

This file may know: instructions, and what is loaded. It may not know: what counts about a module.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any, Final

from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.nested import texts_in, with_nested
from pyplantx.fingerprint.objects import instance_dict

_MODULES: Final = "modules"
#: What takes one module out of the dict by the text that it is given.
_TAKERS: Final = frozenset({"get", "__getitem__", "setdefault"})
#: What names a module to the code in it.
_OWN: Final = frozenset({"__name__", "__package__"})
_SKIPPED: Final = frozenset({"PRECALL", "CACHE", "PUSH_NULL", "EXTENDED_ARG"})
#: What asks for names only, or for all of them.
_NAMING: Final = frozenset({"CONTAINS_OP", "GET_ITER", "CALL"})
_NAMERS: Final = frozenset({"pop", "keys", "copy", "__contains__", "update"})


def loaded_by(code: types.CodeType, boundary: Boundary) -> Iterator[tuple[str, types.ModuleType]]:
    """Names and modules of the project, other than the script, that code may take from among the loaded ones."""
    texts, is_computed = _keys(code)
    packages = tuple(sorted(text for text in texts_in(code) if text.endswith(".") and text[:-1] in sys.modules))
    for name, module in sorted(sys.modules.items()):
        if name in texts or (is_computed and name != "__main__" and (not packages or name.startswith(packages))):
            if _is_projects(name, module, boundary):
                yield name, module


def _is_projects(name: str, module: object, boundary: Boundary) -> bool:
    file = (instance_dict(module) or {}).get("__file__")
    return isinstance(module, types.ModuleType) and isinstance(file, str) and not boundary.is_library(name, file)


def _keys(code: types.CodeType) -> tuple[set[str], bool]:
    """The texts under which code takes modules, and whether it takes some under another one."""
    import dis  # for programs with such code only

    keys = set[str | None]()
    for one in with_nested(code):
        steps = [step for step in dis.get_instructions(one) if step.opname not in _SKIPPED]
        places = (at for at, step in enumerate(steps) if step.argval == _MODULES and step.opname.startswith("LOAD_"))
        keys.update(_key(steps[at + 1 : at + 4]) for at in places)
    return {key for key in keys if key is not None}, None in keys


def _key(behind: list[Any]) -> str | None:
    """The text under which a module is taken; "" if none is, or that of the code itself; None if it is computed."""
    opnames = [one.opname for one in behind]
    if not behind or behind[0].opname in _NAMING or behind[0].argval in _NAMERS:
        return ""
    is_taken = behind[0].argval in _TAKERS
    key, then = (behind[1], "") if is_taken and len(behind) > 1 else (behind[0], opnames[1] if len(behind) > 1 else "")
    if then in ("STORE_SUBSCR", "DELETE_SUBSCR"):
        return ""
    if not is_taken and then != "BINARY_SUBSCR":
        return None
    if key.argval in _OWN:
        return ""
    is_text = key.opname == "LOAD_CONST" and isinstance(key.argval, str) and not key.argval.endswith(".")
    return str(key.argval) if is_text else None

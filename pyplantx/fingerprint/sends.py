"""Whether the code of a reactor shows all that it can send: then it need not run to find out that it sends no more.

That is so if it does nothing with its pipe but call methods, and each name that it sends or allocates is a literal:
whoever else might send has to be given the pipe, or one of these methods. What looks at local variables, or evaluates
texts, shows nothing.

This file may know: bytecode, the methods of pipes. It may not know: names that are looked for, reactors.
"""

from __future__ import annotations

import opcode
import sys
from types import CodeType
from typing import Final

from pyplantx.fingerprint.bytecode import LOCAL, NAME, Body
from pyplantx.fingerprint.hints import VERBS, is_taken_by_call

#: Methods of a pipe that hand it to nobody.
_METHODS: Final = VERBS | {
    *("receive", "read_config", "read_config_unregistered", "peek", "has", "track_file", "env", "allocate_temp"),
    *("blocks", "map_blocks", "reduce_blocks", "checkpoint"),
}
#: Names of what reaches local variables without naming them.
_LOOKING: Final = frozenset({"locals", "vars", "dir", "eval", "exec", "_getframe", "currentframe", "stack", "f_locals"})
_LOAD_METHOD: Final = opcode.opmap.get("LOAD_METHOD")


def shows_all_it_sends(code: CodeType) -> bool:
    """Whether no ingredient can come of a function's first argument but those whose names are literals in it.

    Parameters
    ----------
    code : CodeType
        Of a reactor's function.
    """
    if not code.co_argcount or code.co_varnames[0] in code.co_cellvars or not _LOOKING.isdisjoint(code.co_names):
        return False
    if any(type(constant) is tuple and "name" in constant for constant in code.co_consts):
        return False  # perhaps it is a keyword's: then the first argument is another one
    return _is_only_called(code, Body(code))


def _is_only_called(code: CodeType, body: Body) -> bool:
    entries = body.entries
    for at, (kind, text, arg) in enumerate(entries):
        if kind != LOCAL or arg != 0:
            continue
        following, load, name = entries[at + 1] if at + 1 < len(entries) else (LOCAL, "", 0)
        is_method = text == "LOAD_FAST " and following == NAME and load.startswith("LOAD_ATTR")
        if not is_method or code.co_names[name] not in _METHODS:
            return False
        if code.co_names[name] in VERBS and not _gets_a_literal(code, body, at + 2):
            return False
    return True


def _is_called(unit: int) -> bool:
    """Whether an attribute is loaded to be called at once, and not to be handed to somebody."""
    return unit & 255 == _LOAD_METHOD if sys.version_info < (3, 12) else bool(unit >> 8 & 1)


def _gets_a_literal(code: CodeType, body: Body, start: int) -> bool:
    """Whether a method is called, and with a literal text as the first argument; they begin at an instruction."""
    _, text, arg = body.entries[start]
    if not (_is_called(body.units[start - 1]) and text == "LOAD_CONST " and isinstance(code.co_consts[arg], str)):
        return False
    return is_taken_by_call(body, start + 1, 1)

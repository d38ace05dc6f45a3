"""Whether two processes run the same code: what a worker has imported is compared with what the program has.

A function that can be imported is sent by its name, so a worker imports its module itself. Was the file edited since
the program has imported it, the worker would compute with other code than that whose fingerprint its results are kept
under. So each worker tells digests of the project's modules that it has, and the plant compares them with its own.

This file may know: modules, code objects. It may not know: fingerprints, which mean more and cost more.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Container, Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any

_OURS = __name__.partition(".")[0]


def digests(known: Container[str] = ()) -> dict[str, str]:
    """Name -> digest of the code, of all of the project's modules that are imported here.

    Parameters
    ----------
    known : container of str
        Names that are left out.
    """
    found = [(name, module) for name, module in list(sys.modules.items()) if name not in known]
    return {name: digest(module) for name, module in found if is_project(name, module)}


def edited(theirs: dict[str, str]) -> list[str]:
    """Names of the modules whose code here is not what a worker has."""
    ours = {name: sys.modules.get(name) for name in theirs}
    return [name for name, module in ours.items() if is_project(name, module) and digest(module) != theirs[name]]


def is_project(name: str, module: Any) -> bool:
    """Whether a module is a source file of the user's project, imported in the ordinary way."""
    if name == "__main__" or name.partition(".")[0] == _OURS:
        return False
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    if type(loader) is not SourceFileLoader:  # pytest, for one, imports another code than stands in the file
        return False
    return not str(getattr(module, "__file__", None) or "").startswith(_library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(which) for which in ("stdlib", "platstdlib", "purelib", "platlib")})


def digest(module: Any) -> str:
    """A digest of the code of the functions and methods that a module defines."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, function in sorted(_functions(module.__dict__, module), key=lambda found: found[0]):
        hasher.update(f"{name} {_described(function.__code__)}\n".encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def _functions(namespace: Any, module: ModuleType, inside: str = "") -> Iterator[tuple[str, FunctionType]]:
    for name, item in list(namespace.items()):
        function = getattr(item, "__func__", item)  # of static and class methods
        if getattr(function, "__module__", None) != module.__name__:
            continue
        if isinstance(function, FunctionType):
            yield f"{inside}{name}", function
        elif isinstance(function, type) and not inside.startswith(f"{name}."):
            yield from _functions(function.__dict__, module, f"{name}.{inside}")


def _described(code: CodeType) -> str:
    constants = ", ".join(map(_constant, code.co_consts))
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} ({constants})"


def _constant(value: Any) -> str:
    """A constant of a code object, alike in every process."""
    if isinstance(value, CodeType):
        return _described(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    if isinstance(value, frozenset):  # its order depends on the process
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"

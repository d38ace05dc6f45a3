"""Shared libraries that `ctypes` has loaded, and their functions: what is known of them besides an address.

A library of the project counts with the content of its file, wherever it lies; one of the system or of an installed
package by its name. How a function is called (`restype`, `argtypes`, `errcheck`) is said by
the project, and counts; that a function was looked up says nothing.

This file may know: ctypes, by the names of its types. It may not know: how anything is encoded.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Final

from pyplantx.fingerprint.boundary import is_library_file

#: Type of the functions of a library; each library has one of its own.
FUNCTION: Final = "ctypes.CDLL.__init__.<locals>._FuncPtr"

#: Where the system's own libraries lie. What a project installs for itself, in ``/usr/local/lib``, is the project's.
_SYSTEM: Final = ("/lib/", "/lib32/", "/lib64/", "/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/System/", "/Library/")


def library_state(library: Any) -> object:
    """Name, content of its file if that is the project's, and how those of its functions are called that say so."""
    held = vars(library)
    functions = sorted([name for name, one in held.items() if type(one) is held.get("_FuncPtr")])
    told = {name: _call(held[name]) for name in functions if _call(held[name]) != _untold(held[name])}
    name = library._name
    return (os.path.basename(name) if isinstance(name, str) else name), _content(name), told


def function_state(function: Any) -> object:
    """Name, how it is called, and the library that it is from."""
    return function.__name__, _call(function), list((function._objects or {}).values())


def _call(function: Any) -> tuple[object, object, object]:
    return function.restype, function.argtypes, getattr(function, "errcheck", None)


def _untold(function: Any) -> tuple[object, object, object]:
    """How it is called if nobody has said so."""
    return type(function)._restype_, None, None


def is_of_system(path: str) -> bool:
    """Whether a file without symbolic links on its way is one of the system's libraries."""
    return path.startswith(_SYSTEM)


def _content(name: object) -> bytes:
    if not isinstance(name, str) or os.sep not in name or is_library_file(name):
        return b""
    path = os.path.realpath(name)
    if is_of_system(path):
        return b""
    try:
        now = os.stat(path)
        return _digest_of(path, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
    except OSError:  # removed or replaced since: it goes by its name
        return b""


@lru_cache(maxsize=64)
def _digest_of(path: str, *state: int) -> bytes:
    """Of a file in that state: it is asked for twice in each demand, and may be large."""
    import hashlib  # few have such libraries

    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()

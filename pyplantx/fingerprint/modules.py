"""Modules that are named by a text: whose they are before they are loaded, and what lies in them.

This file may know: how Python finds modules. It may not know: what counts. The only code that it runs is the
import of a project module that whoever has the text would import, and what such a module has for a lazy import.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

from pyplantx.fingerprint.boundary import Boundary, module_name
from pyplantx.fingerprint.objects import MISSING

#: Names under which a text says what is to be called with what lies beside it: hydra's, and Lightning's command line's.
TARGETS: Final = ("_target_", "class_path")


def is_library_module(name: str, boundary: Boundary) -> bool:
    """Whether a module that may not be loaded yet belongs to a library; found without running anything."""
    top = name.partition(".")[0]
    if name in sys.modules or top in sys.modules:
        return boundary.is_library(name if name in sys.modules else top)
    for finder in sys.meta_path if top else ():  # ".mod": relative, in a module without a package
        find = getattr(finder, "find_spec", None)
        spec = find(top, None) if find else None
        if spec is not None:
            return boundary.is_library(top, spec.origin if spec.has_location else None)
    return boundary.is_library(top)


def import_now(name: str, boundary: Boundary) -> ModuleType | None:
    """Import a project module, as the run would; None if that fails (then the run fails or copes as well)."""
    import importlib

    known = name in sys.modules
    try:
        module = importlib.import_module(name)
    except MemoryError:  # says nothing of the module
        raise
    except (Exception, SystemExit):  # foreign code: whatever its import raises means "missing", which counts as such
        return None
    boundary.imported += not known and name in sys.modules  # one that fails is tried again and again
    return module


def find_module(name: str, boundary: Boundary) -> ModuleType | None:
    """`import_now`; the script itself is not imported a second time under its own name."""
    return sys.modules["__main__"] if name == module_name("__main__") else import_now(name, boundary)


def can_be_read(module: ModuleType) -> bool:
    """Whether the names in a module can be read. To read them loads one that has a lazy loader, which may fail.

    Then it is left as it was, so that whoever uses it sees the error.
    """
    cls = type(module)
    if cls is ModuleType:
        return True
    try:
        vars(module)
    except MemoryError:  # says nothing of the module
        raise
    except (Exception, SystemExit):  # foreign code, as in `import_now`
        _give_back(module, cls)
        return False
    return True


def _give_back(module: ModuleType, cls: type[ModuleType]) -> None:
    """Have a lazy loader load a module that has failed once more when it is used next."""
    module.__class__ = cls  # 3.11
    spec = object.__getattribute__(module, "__spec__")
    state = getattr(spec, "loader_state", None)
    if isinstance(state, dict) and "is_loading" in state:  # 3.12 and later
        state["is_loading"] = False


def ask_now(module: ModuleType, name: str, boundary: Boundary) -> Any:
    """What `made_up` says; it may have imported a module."""
    loaded = len(sys.modules)
    value = made_up(module, name)
    boundary.imported += len(sys.modules) > loaded
    return value


def made_up(module: ModuleType, name: str) -> Any:
    """What a project module that loads lazily gives for a name that it does not hold, as it would to the code.

    Its ``__getattr__`` is asked, or that of its class; `MISSING` if it has none or fails.
    """
    if type(module) is ModuleType and "__getattr__" not in vars(module):
        return MISSING
    try:
        return getattr(module, name)
    except MemoryError:  # says nothing of the module
        raise
    except (Exception, SystemExit):  # foreign code, as in `import_now`
        return MISSING


def offered(module: ModuleType) -> list[str]:
    """The names that a project module with a ``__getattr__`` offers (``__dir__``, ``__all__``) and does not hold."""
    held = vars(module)
    if "__getattr__" not in held:
        return []
    try:
        names = {*dir(module), *held.get("__all__", ())}
    except MemoryError:  # says nothing of the module
        raise
    except (Exception, SystemExit):  # foreign code, as in `import_now`
        return []
    return sorted(name for name in names if isinstance(name, str) and name not in held and not name.startswith("__"))


def locate(path: str, boundary: Boundary) -> Any:
    """The project's code, or object, that a dotted path leads to (``"models.net.Net"``); `MISSING` if there is none.

    Parameters
    ----------
    path : str
        A module, and names in it.
    boundary : Boundary
        Tells libraries from the project.

    Notes
    -----
    The script itself is not imported a second time under its own name.
    """
    names = path.split(".")
    if len(names) < 2 or not all(map(str.isidentifier, names)) or is_library_module(path, boundary):
        return MISSING
    held: Any = MISSING
    for count, name in enumerate(names, start=1):
        held = _step(held, name, ".".join(names[:count]), boundary)
        if not issubclass(type(held), ModuleType):  # of the class, or object, of a method all counts
            return held
    return MISSING


def _step(held: Any, name: str, path: str, boundary: Boundary) -> Any:
    """What comes after `held` on a dotted path; at its beginning, or in a package, that may be a module to import."""
    if path == module_name("__main__"):
        return sys.modules["__main__"]
    if isinstance(held, ModuleType):
        found = vars(held)[name] if name in vars(held) else ask_now(held, name, boundary)
        if found is not MISSING:
            return found
    if held is MISSING or (isinstance(held, ModuleType) and "__path__" in vars(held)):
        return import_now(path, boundary) or MISSING
    return MISSING

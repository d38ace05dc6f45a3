"""Modules that a running reactor gets by a text: ``importlib.import_module("zoo." + kind)``.

Which one that is no code says, so it is seen as it happens. `watch` puts itself into the function that every
``import_module`` calls, however the caller came by it. Only what the reactor itself imports is told: not what a module
imports while it is loaded, for that depends on who loads it first; nor what is imported to read code or ingredients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from pyplantx.logs import log
from pyplantx.reactor import Watched, watching

#: Who is passed over when it is asked whose code imports a module.
_PASSING_ON = ("importlib", "pkgutil")

#: The reactor is called from there, and its functions in other threads from here.
_STEPS = "pyplantx.run"
_WATCHED = Watched.__call__.__code__

#: What is imported from there is no business of the reactor's; of what hydra instantiates the code counts already.
_OTHERS = (
    *("pyplantx.fingerprint", "pyplantx.specs", "pyplantx.warehouse", "pyplantx.world"),
    "hydra._internal.instantiate",
)

#: By identity, the code in which modules are found and loaded.
_loading: frozenset[int] = frozenset()
_is_watched = False


def watch() -> None:
    """See to it that whoever steps a reactor is told of its imports by text. Once in a process is enough."""
    global _is_watched, _loading
    if _is_watched:
        return
    _is_watched = True
    bootstrap: Any = sys.modules.get("_frozen_importlib")
    external: Any = sys.modules.get("_frozen_importlib_external")
    try:
        loaders = bootstrap._find_and_load_unlocked, bootstrap._exec, external._LoaderBasics.exec_module
        plain, resolve = bootstrap._gcd_import, bootstrap._resolve_name
        loading = frozenset([id(loader.__code__) for loader in (*loaders, bootstrap._load_unlocked)])
    except AttributeError as error:  # a later Python, whose import system is another one
        log().warning("on this Python it is not seen which modules reactors import by a computed text (%s)", error)
        return
    bootstrap._gcd_import = _telling(plain, resolve)
    _loading = loading


def _telling(plain: Callable[..., Any], resolve: Callable[..., str]) -> Callable[..., Any]:
    def _gcd_import(name: str, package: str | None = None, level: int = 0) -> Any:
        try:
            module = plain(name, package, level)
        except Exception:
            if watching.run is not None:
                tell(name, package, level, found=False)
            raise
        if watching.run is not None:
            tell(name, package, level, found=True)
        return module

    def tell(name: str, package: str | None, level: int, found: bool) -> None:
        caller = sys._getframe(2)
        if caller.f_code.co_name != "import_module" or caller.f_globals.get("__name__") != "importlib":
            return  # the parent of a module that is loaded
        run = watching.run
        if run is not None and isinstance(name, str) and (not level or isinstance(package, str)):
            try:
                full = resolve(name, package, level) if level else name
            except ImportError:  # it leads out of its package, as the reactor has been told
                return
            run.imported(full, caller, found)

    return _gcd_import


def is_reactors_own(caller: FrameType | None) -> bool:
    """Whether it is the reactor that imports something by text, and no module that is being loaded, nor the plant.

    Parameters
    ----------
    caller : frame
        That of ``import_module``.
    """
    while caller is not None:
        name = caller.f_globals.get("__name__")
        if name == _STEPS or caller.f_code is _WATCHED:
            return True
        if id(caller.f_code) in _loading or (isinstance(name, str) and name.startswith(_OTHERS)):
            return False
        caller = caller.f_back
    return True


def importer(caller: FrameType) -> Mapping[str, Any]:
    """The globals of the code that imports something by text, as in `is_reactors_own`."""
    at: FrameType | None = caller
    while at is not None and str(at.f_globals.get("__name__")).partition(".")[0] in _PASSING_ON:
        at = at.f_back
    return caller.f_globals if at is None else at.f_globals

"""Modules that a running reactor gets by a text: ``importlib.import_module("zoo." + kind)``.

Which one that is no code says, so it is seen as it happens. `watch` puts itself into the function that every
``import_module`` calls, however the caller came by it; `watch_calls` does so for calls of ``__import__``, once code is
met that names it, since every import statement passes there, and for `importlib.util.find_spec`. Only what the reactor
itself imports is told: not what a module imports while it is loaded, for that depends on who loads it first; nor what
is imported to read code or ingredients.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from types import FrameType, FunctionType
from typing import Any

from pyplantx.basics.logs import log
from pyplantx.fingerprint.references import SPEC_FINDER
from pyplantx.subreactor import Watched, watching

#: Who is passed over when it is asked whose code imports a module.
_PASSING_ON = ("importlib", "pkgutil")

#: The reactor is called from there, and its functions in other threads from here.
_STEPS = "pyplantx.runs.run"
_WATCHED = Watched.__call__.__code__

#: What is imported from there is no business of the reactor's. Of what hydra instantiates the code counts already; and
#: numba asks for the module of each function that it compiles: these functions count.
_OTHERS = (
    *("pyplantx.fingerprint", "pyplantx.specs", "pyplantx.warehouse", "pyplantx.session.world"),
    *("hydra._internal.instantiate", "numba.core"),
)

#: By identity, the code in which modules are found and loaded.
_loading: frozenset[int] = frozenset()
_is_watched = _are_calls_watched = _are_specs_watched = False
_IMPORT = "__import__"


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


def watch_calls(finders: Container[str]) -> None:
    """See to it that calls of ``__import__`` and `find_spec` are told, too, if some code finds modules with these.

    Parameters
    ----------
    finders : container of str
        What the code names.
    """
    global _are_calls_watched, _are_specs_watched
    if _IMPORT in finders and not _are_calls_watched:
        _are_calls_watched = True
        builtins.__import__ = _telling_calls(builtins.__import__)
    if SPEC_FINDER in finders and not _are_specs_watched:
        _are_specs_watched = True
        _watch_specs()


def _watch_specs() -> None:
    """Have `importlib.util.find_spec` tell what it finds, also those who have imported the function before."""
    import importlib.util

    find: Any = importlib.util.find_spec
    plain = FunctionType(find.__code__, find.__globals__, find.__name__, find.__defaults__, find.__closure__)

    def telling(name: str, package: str | None) -> Any:
        spec = plain(name, package)
        run = watching.run
        if run is not None and isinstance(name, str):
            run.imported(importlib.util.resolve_name(name, package), sys._getframe(1), spec is not None)
        return spec

    find.__globals__["__pyplantx_find_spec__"] = telling
    find.__code__ = _find_spec.__code__.replace(
        co_name=find.__name__, co_qualname=find.__qualname__
    )  # it counts by that


def _find_spec(name: str, package: str | None = None) -> Any:
    return __pyplantx_find_spec__(name, package)  # type: ignore[name-defined]  # noqa: F821


def _telling_calls(plain: Callable[..., Any]) -> Callable[..., Any]:
    def importing(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if watching.run is None or not _is_call(sys._getframe(1)):
            return plain(name, globals, locals, fromlist, level)
        try:
            module = plain(name, globals, locals, fromlist, level)
        except Exception:
            tell([_absolute(name, globals, level)], False)
            raise
        tell(_imported(_absolute(name, globals, level), fromlist), True)
        return module

    def tell(names: Sequence[str], found: bool) -> None:
        for name in names:
            run = watching.run
            if run is not None and name:
                run.imported(name, sys._getframe(2), found)

    return importing


def _is_call(caller: FrameType) -> bool:
    """Whether a function calls ``__import__`` by its name: no import statement, nor something that is written in C."""
    code = caller.f_code
    if _IMPORT not in code.co_names or caller.f_globals.get("__name__") == "importlib.util":
        return False
    return code.co_code[caller.f_lasti] != _statement()


def _absolute(name: object, namespace: Mapping[str, Any] | None, level: int) -> str:
    """The full name of a module; "" if it is none."""
    if not isinstance(name, str) or not level:
        return name if isinstance(name, str) else ""
    package = str((namespace or {}).get("__package__") or "").split(".")
    return ".".join(filter(None, [*package[: len(package) - level + 1], name]))


def _imported(name: str, fromlist: Sequence[str] | None) -> list[str]:
    """The modules that are imported: those in a package, if such are asked for, else the one of that name."""
    inside = [f"{name}.{one}" for one in fromlist or () if f"{name}.{one}" in sys.modules]
    return inside or [name]


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


@functools.cache
def _statement() -> int:
    """The instruction of an import statement."""
    import opcode  # for programs with such calls only

    return opcode.opmap["IMPORT_NAME"]

"""What the names in a function's code mean today: globals, attribute chains through modules, imports.

Everything is looked up statically, in dictionaries; the only code that may run is the import of a project
module that the function itself would import, or load by taking a name from a module that loads lazily.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.modules import ask_now, can_be_read, import_now, is_library_module
from pyplantx.fingerprint.objects import HEAP_TYPE, MISSING, instance_dict, is_of_project, library_name
from pyplantx.fingerprint.records import Import

#: Module globals that say where code lies, not what it does; moving a project must not re-run it.
LOCATION: Final = frozenset(
    {"__name__", "__file__", "__spec__", "__loader__", "__package__", "__path__", "__cached__", "__builtins__"}
)

#: Who takes this of a package looks for what is in it: `pkgutil.iter_modules(plugins.__path__)`.
PATH: Final = "__path__"

#: The command line is as good as a global of the program's own.
_ARGUMENTS: Final = "argv"

#: What Python has among its builtins that does not bear its own name; and what `pyplantx.runs.imports` wraps.
_UNNAMED: Final = frozenset(
    {
        *("Ellipsis", "NotImplemented", "True", "False", "None", "__debug__", "IOError", "EnvironmentError", "_"),
        *("copyright", "credits", "exit", "help", "license", "quit", "__import__"),
    }
)

_FINDERS: Final = (globals, eval, exec)
#: Functions of libraries that find code by text. What `import_module` is given is looked at where it has that name.
SPEC_FINDER: Final = "importlib.util.find_spec"
_MODULE_FINDERS: Final = frozenset(
    {
        *("importlib.import_module", "pydoc.locate", "pkgutil.resolve_name", "runpy.run_module", "runpy.run_path"),
        SPEC_FINDER,
    }
)
_MODULE_FINDER_NAMES: Final = frozenset({name.rpartition(".")[2] for name in _MODULE_FINDERS})
_LIBRARY_FINDERS: Final = (
    "sys:modules",
    *(f"builtins:{finder.__name__}" for finder in _FINDERS),
    *(name.replace(".", ":", 1) for name in sorted(_MODULE_FINDERS) if not name.endswith("import_module")),
    "importlib.util:find_spec",
)
#: Those of which it is seen, as they are called, what they find; see `pyplantx.runs.imports`.
WATCHED_FINDERS: Final = frozenset(
    {"__import__", "import_module", "importlib.import_module", "pkgutil.resolve_name", SPEC_FINDER},
)
#: What all loaded modules lie in.
MODULES: Final = "sys.modules"


_NOWHERE: Final[dict[str, Any]] = {}
_new = tuple.__new__  # see `core/trace.py`


class Target(NamedTuple):
    """What one name, with the attributes taken from it, comes to.

    Attributes
    ----------
    kind : str
        ``"library"``, ``"builtin"``, ``"missing"`` (`text` says it all), ``"module"`` (`value`, used as a whole)
        or ``"slot"`` (`value` lies in the namespace `owner` under `key`).
    text : str
        Canonical name.
    value : object
        The object; `MISSING` where there is none.
    owner : dict
        The namespace; of a missing global too, since running code may define it.
    key : str
        The name in it.
    used : int
        How many names of the chain led there.
    """

    kind: str
    text: str = ""
    value: Any = MISSING
    owner: dict[str, Any] = _NOWHERE
    key: str = ""
    used: int = 1

    @property
    def finder(self) -> str:
        """Name of this, if it finds what the caller's own module holds by names that are computed; else ""."""
        kind, text, value, _, key, _ = self
        if kind == "library":
            return text.partition("@")[0].replace(":", ".") if text.startswith(_LIBRARY_FINDERS) else ""
        if type(value) is BuiltinFunctionType:
            return value.__name__ if value in _FINDERS else ""
        if type(value) is not FunctionType or value.__name__ not in _MODULE_FINDER_NAMES or key == "import_module":
            return ""
        name = f"{value.__module__}.{value.__qualname__}"
        return name if name in _MODULE_FINDERS else ""


def follow(namespace: dict[str, Any], chain: Sequence[str], boundary: Boundary) -> Target:
    """Follow a global name and its attribute chain, as far as it goes through modules."""
    value = namespace.get(chain[0], MISSING)
    return _builtin(namespace, chain[0], boundary) if value is MISSING else _walk(namespace, chain, value, boundary)


def _walk(owner: dict[str, Any], chain: Sequence[str], value: Any, boundary: Boundary) -> Target:
    """Go on along a chain whose first name, in the namespace `owner`, comes to `value`."""
    name, used = chain[0], 1
    while issubclass(type(value), ModuleType):  # not isinstance(), which a dead proxy can't answer
        if not can_be_read(value):
            return Target("missing", ".".join(chain[:used]), used=used)
        if boundary.is_library(value.__name__, _file(value)):
            if value is sys and chain[used : used + 1] == [_ARGUMENTS]:
                return _arguments(used + 1)
            return _in_library(value.__name__, value, chain, used, boundary)
        if used == len(chain) or _is_up_to_class(value, chain[used], boundary):
            return Target("module", value=value, owner=owner, key=name, used=used)
        owner, name, used = vars(value), chain[used], used + 1
        value = _attribute(value, name, boundary)
    if value is MISSING:
        return Target("missing", ".".join(chain[:used]), used=used)
    if value is vars(sys).get(_ARGUMENTS, MISSING):  # absent where Python is embedded
        return _arguments(used)
    if value is sys.modules:  # it holds whatever has been imported so far
        return Target("library", boundary.name_library("sys", "modules"), value, used=used)
    return _new(Target, ("slot", "", value, owner, name, used))


def _arguments(used: int) -> Target:
    return Target("slot", owner=vars(sys), key=_ARGUMENTS, used=used)


def _builtin(namespace: dict[str, Any], name: str, boundary: Boundary) -> Target:
    builtins = namespace.get("__builtins__", sys.modules["builtins"])
    names = vars(builtins) if isinstance(builtins, ModuleType) else builtins
    if name not in names:
        return Target("missing", name, owner=namespace, key=name)
    held = names[name]
    if name in _UNNAMED or _is_native(held, name) or _is_of_library(held, name, boundary):
        return _new(Target, ("builtin", name, held, _NOWHERE, "", 1))
    return Target("slot", value=held, owner=names, key=name)  # the program has put it there


def _is_native(held: Any, name: str) -> bool:
    """Whether Python itself has something among its builtins; found out in less time than a library's name."""
    if type(held) is type:
        return held.__flags__ & HEAP_TYPE == 0 and held.__name__ == name
    return type(held) is BuiltinFunctionType and held.__module__ == "builtins" and held.__name__ == name


def _is_of_library(held: Any, name: str, boundary: Boundary) -> bool:
    return getattr(held, "__name__", "") == name and library_name(held, boundary) is not None


def _in_library(name: str, module: Any, chain: Sequence[str], used: int, boundary: Boundary) -> Target:
    """What a library's module holds: the library's own, or what the program has hung in there."""
    owner, at, held = instance_dict(module), used, MISSING
    while owner is not None and at < len(chain):
        held = owner.get(chain[at], MISSING)
        if not issubclass(type(held), ModuleType):
            break
        owner, at = instance_dict(held), at + 1
    if owner is not None and at < len(chain) and (is_of_project(held, boundary) or boundary.puts(owner, chain[at])):
        return Target("slot", value=held, owner=owner, key=chain[at], used=at + 1)
    return _new(Target, ("library", boundary.name_library(name, ".".join(chain[used:])), module, _NOWHERE, "", used))


def _attribute(module: ModuleType, name: str, boundary: Boundary) -> Any:
    value = vars(module).get(name, MISSING)
    if value is MISSING:  # a submodule that is loaded, but not bound in its package
        value = sys.modules.get(f"{vars(module).get('__name__')}.{name}", MISSING)
    return ask_now(module, name, boundary) if value is MISSING else value


def _is_up_to_class(module: ModuleType, name: str, boundary: Boundary) -> bool:
    """Whether the class of a module has a say in an attribute (``__dict__``, methods of the project's own class)."""
    cls, own = type(module), name in vars(module)
    if own and cls is ModuleType:
        return False
    defined = any(name in vars(base) for base in cls.__mro__)
    if cls is ModuleType or library_name(cls, boundary) is not None:  # those load lazily, and are not to be woken
        return defined and not own
    bases = cls.__mro__[: cls.__mro__.index(ModuleType)]
    return defined or not own or any("__getattribute__" in vars(base) for base in bases)


def _file(module: ModuleType) -> str | None:
    file = vars(module).get("__file__")
    return file if isinstance(file, str) else None


def follow_import(namespace: dict[str, Any], one: Import, boundary: Boundary) -> Iterator[Target]:
    """What an import statement inside a function brings in, one target per name or chain."""
    name = _absolute(namespace, one)
    for full in [name] if one.chains is not None or one.names or "." not in name else [name.partition(".")[0], name]:
        yield from _imported(full, one, boundary)


def _absolute(namespace: dict[str, Any], one: Import) -> str:
    if not one.level:
        return one.module
    package = namespace.get("__package__") or ""
    if not package and isinstance(namespace.get("__name__"), str):
        package = namespace["__name__"] if "__path__" in namespace else namespace["__name__"].rpartition(".")[0]
    base = package.split(".")
    kept = base[: len(base) - one.level + 1]
    return ".".join([*kept, one.module] if one.module else kept)


def _imported(name: str, one: Import, boundary: Boundary) -> Iterator[Target]:
    wanted = [n.split(".") for n in one.names] if one.names else one.chains
    if is_library_module(name, boundary):
        for chain in wanted or [[]]:
            if name == "sys" and chain[:1] == [_ARGUMENTS]:
                yield _arguments(1)
                continue
            yield _in_library(name, sys.modules.get(name, MISSING), [name, *chain], 1, boundary)
        return
    module = import_now(name, boundary)
    if module is None:
        yield Target("missing", f"import {name}")
    elif wanted is None:
        yield Target("module", value=module, key=name)
    else:
        for chain in wanted:
            yield member(module, chain, boundary)


def member(module: ModuleType, chain: list[str], boundary: Boundary) -> Target:
    """What a project module gives for a name, and its attributes, as it would to an import statement."""
    name = chain[0]
    if name not in vars(module) and "__path__" in vars(module) and ask_now(module, name, boundary) is MISSING:
        import_now(f"{module.__name__}.{name}", boundary)
    if _is_up_to_class(module, name, boundary):
        return Target("module", value=module, key=name)
    value = _attribute(module, name, boundary)
    if value is MISSING:
        return Target("missing", f"{name} of an imported module")
    return _walk(vars(module), chain, value, boundary)

"""Where the user's project ends and libraries begin.

Unknown code is project code: the other default is silent staleness. Decided by the file a module came
from, never by importing anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_STDLIB = tuple(
    {
        os.path.dirname(os.__file__) + os.sep,
        os.path.join(sys.base_prefix, "lib", _VERSION) + os.sep,
        os.path.join(sys.base_exec_prefix, sys.platlibdir, _VERSION) + os.sep,
    }
)


#: How the modules are called, which no file holds, in which Cython's libraries share the classes of their functions.
_CYTHON = "_cython_"


def module_name(name: str) -> str:
    """The name that a module has when it is imported: a script's file name in place of ``__main__``."""
    if name != "__main__":
        return name
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    spec, file = main.get("__spec__"), main.get("__file__")
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return os.path.splitext(os.path.basename(file))[0] if isinstance(file, str) else name


def is_library_file(file: str) -> bool:
    """Whether a source or extension file belongs to an installed package or the standard library."""
    path = file if file[:1] == "/" and ".." not in file else os.path.abspath(file)
    return any(part in path for part in _SITE) or path.startswith(_STDLIB)


#: ``library_versions``, ``track`` and ``library``, as for `Fingerprinter`.
Policy = tuple[str, tuple[str, ...], tuple[str, ...]]


class Boundary:
    """Tells library modules from project modules, and names versions.

    Parameters
    ----------
    versions : {"exact", "minor", "ignore"}
        How much of a library's version counts.
    track, library : sequence of str
        Package names (with everything below them) that count as project, or as library, wherever they lie.

    Attributes
    ----------
    imported : int
        How many imports were carried out so far because code would import a module.
    puts : callable
        Namespace of a library's module, name -> whether the project puts something there (`additions`).
    """

    def __init__(self, versions: str = "minor", track: Sequence[str] = (), library: Sequence[str] = ()) -> None:
        self._policy = versions
        self._track = tuple(track)
        self._library = tuple(library)
        self._known: dict[tuple[str, str | None], bool] = {}
        self._versions: dict[str, str] = {}
        self.imported = 0
        self.puts: Callable[[Any, str], bool] = _puts_nothing

    @property
    def policy(self) -> Policy:
        """What it was made with."""
        return self._policy, self._track, self._library

    def is_library(self, name: str | None, file: str | None = None) -> bool:
        """Whether the module `name` (loaded from `file`, if it is known) is library code."""
        if not isinstance(name, str):
            return False
        if file is None:
            file = module_file(name)
        known = self._known.get((name, file))
        if known is None:
            known = self._known[name, file] = self._decide(name, file)
        return known

    def owns_globals(self, namespace: Mapping[str, Any]) -> bool:
        """Whether the module with this namespace is library code; made by ``exec`` without a name: no."""
        name, file = namespace.get("__name__"), namespace.get("__file__")
        if type(name) is type(file) is str and (name, file) in self._known:  # nearly always
            return self._known[name, file]
        return self.is_library(name, file if isinstance(file, str) else None)

    def _decide(self, name: str, file: str | None) -> bool:
        if _below(name, ("pyplantx",)) or _below(name, self._library):
            return True
        if _below(name, self._track) or name == "__main__":
            return False
        if file is not None:
            return is_library_file(file)
        return name.startswith(_CYTHON) or name.partition(".")[0] in sys.stdlib_module_names

    def version(self, name: str) -> str:
        """Version text, cut as the policy says, of the package that holds module `name`."""
        top = name.partition(".")[0]
        if self._policy == "ignore" or top == "pyplantx":
            return ""
        known = self._versions.get(top)
        if known is None:
            full = _find_version(top)
            known = full if self._policy == "exact" else ".".join(full.split(".")[:2])
            self._versions[top] = known
        return known

    def name_library(self, module: str, path: str) -> str:
        """Canonical name of something in a library: package, dotted path and version."""
        version = self.version(module)
        return f"{module}:{path}@{version}" if version else f"{module}:{path}"

    def versions(self) -> dict[str, str]:
        """The packages that were referred to so far, with what counts of their versions."""
        return dict(self._versions)


def module_file(name: str) -> str | None:
    """File of a loaded module, read without running its ``__getattr__``; of one that isn't that of its package.

    (Classes may name a module that nobody imports: `numpy.recarray` says ``numpy.rec``.)
    """
    module = sys.modules.get(name)
    while module is None and "." in name:
        name = name.rpartition(".")[0]
        module = sys.modules.get(name)
    if module is None:
        return None
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None


def _puts_nothing(namespace: Any, name: str) -> bool:
    return False


def _below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _find_version(top: str) -> str:
    if top in sys.stdlib_module_names:
        return ".".join(str(n) for n in sys.version_info[:3])
    # most packages say it themselves; the metadata of an installed one cost a millisecond, their import ten
    own = getattr(sys.modules.get(top), "__dict__", {}).get("__version__")
    if isinstance(own, str):
        return own
    from importlib import metadata

    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        return ""

"""Whether another process has under the names of this one what this one has: code that travels by name.

A pickle holds names of what can be imported, and whoever reads it imports that anew: from a file that was edited since,
without what the program has changed in it, or from what an old import has left. So the fingerprints of all that goes by
name travel too, and the reader compares them with its own. What counts is what the names hold *now*: that a
global is state, so that it never causes a run, does not make another value of it right.

This file may know: fingerprinters, modules. It may not know: pickles, processes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest
from pyplantx.fingerprint.boundary import Policy
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.objects import MISSING, is_code, library_name, static_attribute
from pyplantx.fingerprint.references import Target, follow, follow_import

#: Types that count by their name, and whose objects hold nothing that a result could depend on, or only chance.
_HARMLESS: Final = frozenset(
    {
        *(
            "logging.Logger",
            "logging.RootLogger",
            "logging.LoggerAdapter",
            "loguru._logger.Logger",
            "_thread.lock",
            "_thread.RLock",
        ),
        *("threading.Condition", "threading.Semaphore", "threading.BoundedSemaphore", "threading.Barrier"),
        *("numpy.random._generator.Generator", "numpy.random.mtrand.RandomState", "random.Random"),
    }
)


class Name(NamedTuple):
    """Where something lies: an attribute, or "" for all of a module."""

    module: str
    path: str

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.module}.{self.path}" if self.path else f"module {self.module}"


class Content(NamedTuple):
    """What lies there: its fingerprint ("" for nothing), and those of its parts, by their labels."""

    root: Digest
    parts: dict[str, Digest]


class Agreement:
    """What names held where a function comes from.

    Parameters
    ----------
    policy : Policy
        What counts.
    contents : dict of Name to Content
        What was found.
    """

    def __init__(self, policy: Policy, contents: dict[Name, Content]) -> None:
        self._policy, self._contents = policy, contents

    def __reduce__(self) -> tuple[Any, ...]:
        plain = [(*name, *content) for name, content in self._contents.items()]
        return _agreement, (self._policy, plain)

    def differences(self) -> list[str]:
        """Labels of what is not the same in this process, sorted."""
        versions, track, library = self._policy
        here = Fingerprinter(library_versions=versions, track=track, library=library).of_present()
        found: set[str] = set()
        for name, content in self._contents.items():
            found.update(_differing(name, content, _content(here, name)))
        return sorted(found)


def _agreement(policy: Any, plain: list[tuple[str, str, Digest, dict[str, Digest]]]) -> Agreement:
    return Agreement(policy, {Name(*each[:2]): Content(*each[2:]) for each in plain})


def _differing(name: Name, one: Content, other: Content) -> set[str]:
    if one.root == other.root:
        return set()
    labels = one.parts.keys() | other.parts.keys()
    return {label for label in labels if one.parts.get(label) != other.parts.get(label)} or {name.label}


class NamedCode:
    """Collects what of the project a pickle refers to by name; pickled after that, it is an `Agreement`.

    Parameters
    ----------
    fingerprinter : Fingerprinter, optional
        Whose rules say what counts, and which is not altered; those of a new one if there is none.
    """

    def __init__(self, fingerprinter: Fingerprinter | None = None) -> None:
        self._now = (fingerprinter or Fingerprinter()).of_present()
        self._boundary = self._now.boundary
        self._names: dict[Name, None] = {}
        self._followed: set[str] = set()  # modules of which functions use attributes that are known

    def __reduce__(self) -> tuple[Any, ...]:
        return self.sealed().__reduce__()

    def note(self, item: Any) -> None:
        """Something is about to be pickled."""
        kind = type(item)
        if issubclass(kind, ModuleType):
            if item.__name__ not in self._followed:
                self._add_whole(item)
            return
        name = _name_of(item, kind)
        if name is not None:
            if library_name(item, self._boundary) is None:
                self._names[name] = None
        elif kind is FunctionType and not self._boundary.owns_globals(item.__globals__):
            self._follow(item)

    def note_global(self, item: Any, path: str | None) -> None:
        """An object is about to be pickled as the name that it gives for itself."""
        module = getattr(item, "__module__", None)
        if isinstance(module, str) and path is not None and not self._boundary.is_library(module):
            self._names[Name(module, path)] = None

    def sealed(self) -> Agreement:
        """What the names hold now.

        Raises
        ------
        BadRequest
            If there is something among it that can't be compared.
        """
        contents = {name: _content(self._now, name) for name in self._names}
        for name in self._names:
            for line in self._now.opaque(_held(name)):
                if line.rpartition(": a ")[2] not in _HARMLESS and "finds code by computed text" not in line:
                    raise BadRequest(f"{name.label} refers to {line}: nobody can tell whether a worker has the same")
        return Agreement(self._boundary.policy, contents)

    def _follow(self, function: FunctionType) -> None:
        """Of a function that goes by value: what it reaches through modules."""
        namespace = function.__globals__
        for module in _held_modules(function):
            self._add_whole(module)
        record = self._now.record(function.__code__)
        for chain in record.chains:
            names = chain.lstrip("@").split(".")
            head: Any = namespace.get(names[0])
            if issubclass(type(head), ModuleType):  # not isinstance(), which a dead proxy can't answer
                self._followed.add(head.__name__)
                self._add_target(follow(namespace, names, self._boundary), head)
        for one in record.imports:
            for target in follow_import(namespace, one, self._boundary):
                self._add_target(target, target.value)

    def _add_target(self, target: Target, module: Any) -> None:
        name = target.owner.get("__name__")
        if target.kind == "slot" and isinstance(name, str):
            self._names[Name(name, target.key)] = None
        elif target.kind == "module":
            self._add_whole(target.value)
        elif target.kind == "missing" and isinstance(module, ModuleType):
            self._add_whole(module)

    def _add_whole(self, module: ModuleType) -> None:
        if library_name(module, self._boundary) is None:
            self._names[Name(module.__name__, "")] = None


def _held_modules(function: FunctionType) -> Iterator[ModuleType]:
    """Modules in closure variables and defaults: nobody follows what is taken from these."""
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    yield from (value for value in held if issubclass(type(value), ModuleType))


def _name_of(item: Any, kind: type) -> Name | None:
    """The name under which something can be imported; None if there is none, or it is the program's own."""
    known = kind is FunctionType or kind is BuiltinFunctionType or issubclass(kind, type)
    if not known and not isinstance(static_attribute(item, "__qualname__"), str):
        return None
    module, path = getattr(item, "__module__", None), getattr(item, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str) or module == "__main__":
        return None
    name = Name(module, path)
    return name if _held(name) is item else None


def _held(name: Name) -> Any:
    """What lies under a name in this process; `MISSING` if nothing does."""
    found: Any = sys.modules.get(name.module, MISSING)
    for part in name.path.split(".") if name.path else ():
        found = getattr(found, part, MISSING)
    return found


def _content(fingerprinter: Fingerprinter, name: Name) -> Content:
    if name.module not in sys.modules:
        importlib.import_module(name.module)
    held = _held(name)
    if held is MISSING:
        return Content("", {})
    if is_code(held):
        return Content(fingerprinter.standalone(held), fingerprinter.parts(held))
    parts = fingerprinter.parts(held)
    own, *others = parts  # the value itself comes first, and is called by its type
    named = {f"constant {name.label}": parts[own], **{label: parts[label] for label in others}}
    return Content(fingerprinter.standalone(held), named)

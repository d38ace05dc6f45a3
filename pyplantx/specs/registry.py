"""Which spec stores a value, and which one reads a stored object.

Order of inference: specs that the user registered, newest first; then simple, list, array, sparse, hdf, zarr,
keras; last object, which takes all that is left. A built-in whose library is not loaded can't own a value, so
inference imports nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from enum import Enum
from typing import Any

from pyplantx.errors import BadRequest, UnknownSpec, did_you_mean, shown
from pyplantx.specs.base import IngredientTypeSpec
from pyplantx.specs.plain import SIMPLE
from pyplantx.specs.services import BuiltinSpec, Services
from pyplantx.specs.simple import ListSpec, SimpleSpec

#: Built-ins that are loaded when they are first needed: name -> module, class, and the library that must be loaded
#: before a value can belong to it (None: that alone tells nothing).
_LATER: dict[str, tuple[str, str, str | None]] = {
    "file": ("pyplantx.specs.files", "FileSpec", None),
    "array": ("pyplantx.specs.arrays", "ArraySpec", "numpy"),
    "sparse": ("pyplantx.specs.sparse", "ScipySparseSpec", "scipy.sparse"),
    "hdf": ("pyplantx.specs.hdf", "HdfArraySpec", "h5py"),
    "zarr": ("pyplantx.specs.zarr", "ZarrArraySpec", "zarr"),
    "keras": ("pyplantx.specs.keras", "KerasModelSpec", "keras"),
    "object": ("pyplantx.specs.builtin", "ObjectSpec", None),
}

_HOW_TO_MOVE = (
    "PyPlant's custom specs had another interface. Derive from pyplantx's specs.IngredientTypeSpec, set "
    "name = '...', and replace get_name by name, is_instance by recognise(value), store by write(value, stage), "
    "fetch by open(payload, meta, version), allocate by allocate(stage, **options)"
)
_OLD_METHODS = frozenset({"get_name", "is_instance", "store", "fetch", "deallocate"})


class SpecRegistry:
    """The ingredient types that one warehouse knows.

    Parameters
    ----------
    services : Services, optional
        What the plant lends to the built-in ones.
    """

    def __init__(self, services: Services | None = None) -> None:
        self._services = services or Services()
        eager = (SimpleSpec(), ListSpec())
        self._specs: dict[str, IngredientTypeSpec] = {spec.name: spec.serve(self._services) for spec in eager}
        self._own: list[IngredientTypeSpec] = []  # the user's, newest first

    # -- registering

    def register(self, specs: Iterable[Any] | IngredientTypeSpec | type[IngredientTypeSpec]) -> None:
        """Add ingredient types: instances or classes, one or several.

        A built-in that is registered again takes over the given instance's options, nothing else changes.

        Raises
        ------
        BadRequest
            If something is not an ingredient type, or its name is taken by another one.
        """
        several = specs if isinstance(specs, Iterable) else (specs,)
        for given in several:
            self._add(_instance(given))

    def _add(self, spec: IngredientTypeSpec) -> None:
        known = self._find(spec.name)
        if known is not None and not isinstance(spec, type(known)) and not _same_class(known, spec):
            raise BadRequest(
                f"the ingredient type name {spec.name!r} of {type(spec).__qualname__} is taken by "
                f"{type(known).__qualname__}",
                hint="give the new one another name; stored objects are found by it",
            )
        if isinstance(spec, BuiltinSpec):
            import copy

            # A copy, since one instance may be registered with several plants.
            spec = copy.copy(spec).serve(self._services)
        self._specs[spec.name] = spec
        self._own = [old for old in self._own if old.name != spec.name]
        if not type(spec).__module__.startswith("pyplantx.specs."):
            self._own.insert(0, spec)

    # -- finding

    def get(self, name: str, version: int = 1) -> IngredientTypeSpec:
        """The spec that reads stored objects of this name and format version.

        Raises
        ------
        UnknownSpec
            If there is none, or only an older one.
        """
        spec = self._find(name)
        if spec is None:
            raise UnknownSpec(f"no registered ingredient type is called {name!r}", hint=self._advice(name))
        if not 1 <= version <= spec.version:
            raise UnknownSpec(
                f"this object has format version {version} of {name!r}, the registered spec reads up to {spec.version}",
                hint="it was written by a newer version of pyplantx or of the spec's package: upgrade that",
            )
        return spec

    def names(self) -> tuple[str, ...]:
        """Names of all registered types, in order of registration, built-ins first."""
        return (*dict.fromkeys((*_LATER, *self._specs)),)

    def added(self) -> tuple[IngredientTypeSpec, ...]:
        """The user's own types, in an order in which another registry can be given them: oldest first."""
        return tuple(reversed(self._own))

    def resolve(self, type_given: Any) -> IngredientTypeSpec:
        """The spec that a script names.

        Parameters
        ----------
        type_given : Ingredient.Type member, spec class, spec instance, or str
            What stands in ``pipe.send(name, value, type_given)``.

        Raises
        ------
        UnknownSpec
            If it is a type that is not registered.
        BadRequest
            If it is no type at all, or one made for PyPlant.
        """
        if isinstance(type_given, Enum):
            type_given = type_given.value
        if isinstance(type_given, str):
            return self._named(type_given)
        spec = _instance(type_given)
        known = self._find(spec.name)
        if known is None or not (isinstance(known, type(spec)) or _same_class(known, spec)):
            raise UnknownSpec(
                f"the ingredient type {type(spec).__qualname__} is not registered",
                hint=f"plant.warehouse.register_ingredient_specs([{type(spec).__qualname__}()])",
            )
        return known

    def infer(self, value: Any) -> IngredientTypeSpec:
        """The spec that stores a value when the sender names no type; imports nothing.

        Asks the user's specs, newest first, then the built-ins in their order; `object` takes what is left.
        """
        for spec in self._own:
            if spec.recognise(value):
                return spec
        kind = type(value)
        if kind in SIMPLE:
            return self._specs["simple"]
        if kind is list:
            return self._specs["list"] if self._specs["list"].recognise(value) else self._load("object")
        return self._infer_later(value)

    def _infer_later(self, value: Any) -> IngredientTypeSpec:
        for name, (_, _, library) in _LATER.items():
            if library in sys.modules:
                spec = self._load(name)
                if spec.recognise(value):
                    return spec
        return self._load("object")

    def _named(self, name: str) -> IngredientTypeSpec:
        spec = self._find(name)
        if spec is None:
            raise UnknownSpec(f"no registered ingredient type is called {name!r}", hint=self._advice(name))
        return spec

    def _find(self, name: str) -> IngredientTypeSpec | None:
        spec = self._specs.get(name)
        return self._load(name) if spec is None and name in _LATER else spec

    def _load(self, name: str) -> IngredientTypeSpec:
        spec = self._specs.get(name)
        if spec is None:
            module, class_name, _ = _LATER[name]
            made = getattr(importlib.import_module(module), class_name)()
            spec = self._specs[name] = made.serve(self._services)
        return spec

    def _advice(self, name: str) -> str:
        register = "register the spec that wrote it: plant.warehouse.register_ingredient_specs([MySpec()])"
        return did_you_mean(name, self.names()) or register


def _same_class(known: IngredientTypeSpec, spec: IngredientTypeSpec) -> bool:
    # Re-running a notebook cell defines the class anew: same name, same place, another object.
    ours, theirs = type(known), type(spec)
    return (ours.__module__, ours.__qualname__) == (theirs.__module__, theirs.__qualname__)


def _instance(given: Any) -> IngredientTypeSpec:
    """An instance of the spec that is meant; `BadRequest` if `given` is none."""
    kind = given if isinstance(given, type) else type(given)
    if not issubclass(kind, IngredientTypeSpec):
        if _OLD_METHODS & set(dir(kind)):
            raise BadRequest(f"{kind.__qualname__} is not an ingredient type of pyplantx", hint=_HOW_TO_MOVE)
        raise BadRequest(
            f"{shown(given)} is not an ingredient type",
            hint="use Ingredient.Type.array or the like, or a spec class such as specs.HdfArraySpec",
        )
    missing = [name for name in ("write", "open") if getattr(kind, name) is getattr(IngredientTypeSpec, name)]
    if missing or not kind.name:
        lack = " and ".join([*(f"the method {name}" for name in missing), *([] if kind.name else ["a name"])])
        hint = _HOW_TO_MOVE if _OLD_METHODS & set(dir(kind)) else f"define {lack}"
        raise BadRequest(f"the ingredient type {kind.__qualname__} lacks {lack}", hint=hint)
    return kind() if isinstance(given, type) else given

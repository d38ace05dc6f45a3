"""What is a group of parameters, what is one value, and what a class says about an attribute.

Facts about classes only; nothing here reads a parameter for a reactor.
"""

from __future__ import annotations

import enum
import sys
from abc import ABC
from collections.abc import Hashable, Mapping
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, Generic, Protocol, cast

from pyplantx.config.base import ConfigBase, ConfigValue
from pyplantx.fingerprint.boundary import is_library_file, module_name

_is_library_file = lru_cache(maxsize=None)(is_library_file)

# The kinds of places in a config.
ABSENT = "absent"
LEAF = "leaf"  # one value
OBJECT = "object"  # a group read by attribute
MAPPING = "mapping"  # a group read by key
CODE = "code"  # a property or method of the user's config class
CLASS = "class"  # something else that a class says: classmethods, descriptors, __dataclass_fields__
LIBRARY = "library"  # an attribute that a library's class defines: model_dump, mark_auxiliary
FAILED = "failed"  # asking for it raised something else than "not there"

GROUPS = frozenset((OBJECT, MAPPING))

#: Values of these types can't be changed, and hold nothing that can.
ATOMS = frozenset(
    (int, float, complex, bool, str, bytes, type(None), type(...), range, object, FunctionType, BuiltinFunctionType)
)
_CONTAINERS = frozenset((list, dict, tuple, set, frozenset, bytearray))

# Classes written in C whose objects are nothing but their attributes.
_OPEN_BASES = frozenset((object, SimpleNamespace, ModuleType))
# A group's class may have these bases; any other base from a library makes it one value.
_PLAIN_BASES = frozenset((object, Generic, Protocol, ABC))
_GROUP_MARKS = ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__")
_LIBRARY_PACKAGES = frozenset((*sys.stdlib_module_names, "pyplantx")) - {"__main__"}
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement (or as if)

#: Attributes by which dataclasses and attrs classes are known.
FIELD_LISTS = ("__attrs_attrs__", "__dataclass_fields__")
# Special methods that every view has, or that concern the making of objects and classes.
_FOR_ALL = frozenset(
    "__bool__ __class__ __class_getitem__ __copy__ __deepcopy__ __del__ __delattr__ __delete__ __dict__ __dir__ "
    "__doc__ __eq__ __fingerprint__ __format__ __ge__ __get__ __getattr__ __getattribute__ __getnewargs__ "
    "__getnewargs_ex__ __getstate__ __gt__ __hash__ __init__ __init_subclass__ __le__ __lt__ __module__ __ne__ "
    "__new__ __post_init__ __prepare__ __reduce__ __reduce_ex__ __replace__ __repr__ __set__ __set_name__ "
    "__setattr__ __setstate__ __sizeof__ __slots__ __str__ __subclasshook__ __weakref__".split()
)

_RUN_ON_VIEW = (property, staticmethod, FunctionType)


def kind_of(value: object, *, root: bool = False) -> str:
    """`LEAF`, `OBJECT` or `MAPPING`.

    Parameters
    ----------
    value : object
        A config, or a value in one.
    root : bool
        Whether it is the config itself: that is a group wherever possible, while a dict or an object
        of a library *in* a config is one value.
    """
    cls = type(value)
    if cls in ATOMS or isinstance(value, (type, enum.Enum)):
        return LEAF
    if is_omegaconf(cls, "DictConfig") or (root and isinstance(value, Mapping)):
        return MAPPING
    if cls in _CONTAINERS or not _made_of_attributes(cls):
        return LEAF
    return OBJECT if root or _is_group_class(cls) else LEAF


def _made_of_attributes(cls: type) -> bool:
    """Whether all state is in attributes (not in C fields, which no view could watch)."""
    return all(base.__flags__ & _HEAP_TYPE or base in _OPEN_BASES for base in cls.__mro__)


def _is_group_class(cls: type) -> bool:
    if issubclass(cls, (ConfigBase, SimpleNamespace)) or is_argparse(cls):
        return True
    if any(class_attribute(cls, mark) for mark in _GROUP_MARKS):  # and no word of a metaclass
        return True
    return all(base in _PLAIN_BASES or not is_library(base) for base in cls.__mro__)


def is_omegaconf(cls: type, name: str) -> bool:
    """Whether `cls` is OmegaConf's class of that name."""
    return cls.__name__ == name and cls.__module__.startswith("omegaconf.")


def is_argparse(cls: type) -> bool:
    """Whether `cls` is (derived from) ``argparse.Namespace``."""
    # Nobody has one of its objects without having imported it; a thread may be just importing it.
    namespace = getattr(sys.modules.get("argparse"), "Namespace", None)
    return isinstance(namespace, type) and issubclass(cls, namespace)


def is_library(cls: type) -> bool:
    """Whether `cls` comes from the standard library, from an installed package, or from pyplantx."""
    name = cls.__module__
    if name.partition(".")[0] in _LIBRARY_PACKAGES:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and _is_library_file(file)


def class_attribute(cls: type, name: str) -> tuple[type, Any] | None:
    """The class in the inheritance order of `cls` that defines `name`, and the definition itself."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base, base.__dict__[name]
    return None


def kind_of_definition(owner: type, definition: object, name: str) -> str:
    """How a class's definition of an attribute is read: `CODE`, `CLASS`, `LIBRARY`, or `LEAF` for data."""
    if isinstance(definition, _RUN_ON_VIEW) or is_cached_property(definition):
        return LIBRARY if is_library(owner) else CODE
    if hasattr(type(definition), "__get__") and not hasattr(type(definition), "__set__"):
        return LIBRARY if is_library(owner) else CLASS
    return CLASS if is_dunder(name) and not _is_data(definition) else LEAF


def _is_data(definition: object) -> bool:
    if hasattr(type(definition), "__set__"):
        return True
    if isinstance(definition, tuple):
        return ATOMS.issuperset(map(type, definition))
    return isinstance(definition, (str, type(None)))


def is_cached_property(definition: object) -> bool:
    """Whether it is functools' or one of its many kin."""
    return type(definition).__name__ == "cached_property" and hasattr(definition, "func")


def is_dunder(name: str) -> bool:
    """Whether `name` is reserved for Python's protocols."""
    return name.startswith("__") and name.endswith("__") and len(name) > 4


def protocols(cls: type) -> tuple[str, ...]:
    """What objects of a class can do beyond what all can: names of special methods, and what marks a dataclass.

    A view has just these too, so they are part of what "it is a group" means.
    """
    return _protocols(cast(Hashable, cls))


@lru_cache(maxsize=256)
def _protocols(cls: type) -> tuple[str, ...]:
    names = {name for name in FIELD_LISTS if class_attribute(cls, name)}
    for base in cls.__mro__[:-1]:
        names.update(name for name, definition in base.__dict__.items() if _is_protocol(name, definition))
    return tuple(sorted(names))


def _is_protocol(name: str, definition: object) -> bool:
    return is_dunder(name) and name not in _FOR_ALL and callable(definition) and hasattr(definition, "__get__")


def is_data_descriptor(definition: object) -> bool:
    """Whether the class's definition wins over the instance's own attribute."""
    return hasattr(type(definition), "__set__") or hasattr(type(definition), "__delete__")


def slot_names(cls: type) -> list[str]:
    """The slots of `cls` and its bases, as attributes are named (private names mangled)."""
    names = []
    for base in reversed(cls.__mro__):
        if base is ConfigBase:
            continue
        for name, definition in base.__dict__.items():
            if type(definition).__name__ == "member_descriptor" and not is_dunder(name):
                names.append(name)
    return names


def class_data_names(cls: type) -> list[str]:
    """Names of the parameters that classes of the user define as data."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        if not is_library(base):
            names.update((name, None) for name, value in base.__dict__.items() if _is_class_data(name, value))
    return list(names)


def _is_class_data(name: str, definition: object) -> bool:
    if is_dunder(name) or name == "_abc_impl":
        return False
    return not hasattr(type(definition), "__get__") or isinstance(definition, ConfigValue)


def class_names(cls: type) -> tuple[str, ...]:
    """Identity of a class by names: those of all its bases, each with its module's last name.

    A script's classes have the same names whether it is run or imported.
    """
    stems = (module_name(base.__module__).rpartition(".")[2] for base in cls.__mro__[:-1])
    return tuple(f"{stem}.{base.__qualname__}" for stem, base in zip(stems, cls.__mro__, strict=False))

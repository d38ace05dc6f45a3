"""Looking at objects without running their code: names, dictionaries, slots, what is code and whose.

This file may know: Python's object model. It may not know: how anything is encoded or hashed.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.foreign import ANSWERS, asked, is_a, let_end

MISSING: Final = object()

#: Flag of classes that are made at run time (Py_TPFLAGS_HEAPTYPE).
HEAP_TYPE: Final = 1 << 9

_POINTER: Final = tuple.__itemsize__

#: Modules that make classes for others; ``exec`` without a name says "builtins".
_MAKERS: Final = frozenset({"builtins", "types", "dataclasses"})

_ANY_VERSION: Final = Boundary("ignore")

_CACHE: Final[type] = type(functools.lru_cache(lambda: None))

_CODE_TYPES: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ModuleType,
    types.CodeType,
    type,
    property,
    staticmethod,
    classmethod,
    functools.partial,
    functools.partialmethod,
    functools.cached_property,
    _CACHE,
)
#: Compiled functions whose types can't be had without importing their library.
_CODE_NAMES: Final = frozenset({"numpy.ufunc", "numpy._ArrayFunctionDispatcher"})

_ROLE, _INNER = "__pyplantx_kind__", "py_func"
#: Attributes of objects that stand for a function: of reactors and subreactors, and of numba's dispatchers.
MARKS: Final = (_ROLE, _INNER)

#: A smaller number is hardly the hash of anything that is seeded: of a thousand million of these, one is.
_LEAST_HASH: Final = 1 << 32


#: Field -> the library whose objects count in it how many were made before them.
_COUNTERS: Final = {"_creation_order": "sqlalchemy."}


def class_module(cls: type) -> str:
    """Name of the module that a class says it is from; "?" if it says something else (descriptors of metaclasses)."""
    module = cls.__module__
    return module if isinstance(module, str) else "?"


def qualified(cls: type) -> str:
    """Dotted name of a class, the same on every supported version of Python."""
    module = class_module(cls)
    return f"{'pathlib' if module.startswith('pathlib.') else module}.{cls.__qualname__}"


def lineage(cls: type) -> list[str]:
    """Dotted names of a class and all its bases."""
    return [qualified(base) for base in cls.__mro__]


def static_attribute(obj: Any, name: str) -> Any:
    """An attribute as it lies in the object's or its classes' dictionaries; `MISSING` if it does not.

    Never runs foreign code, as ``getattr`` and ``hasattr`` may (lazy modules, properties).
    """
    own = instance_dict(obj)
    if own is not None and name in own:
        return own[name]
    return class_attribute(obj if issubclass(type(obj), type) else type(obj), name)


def class_attribute(cls: type, name: str) -> Any:
    """An attribute of a class, as it lies in its dictionary or that of a base; `MISSING` if it does not."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return MISSING


def instance_dict(obj: Any) -> dict[str, Any] | None:
    """The ``__dict__`` of an instance, or None."""
    try:
        found = object.__getattribute__(obj, "__dict__")
    except ANSWERS as error:  # a property of that name may raise anything
        let_end(error)
        return None
    return found if isinstance(found, dict) else None


def is_code(value: object) -> bool:
    """Whether a value is code, or a thin wrapper around code: ``code`` decides what stands for it."""
    return is_code_class(type(value)) or is_marked(value)


def is_code_class(cls: type) -> bool:
    """Whether all instances of a class are code."""
    # by type, since isinstance() also asks the object, which may be a proxy for something dead
    if issubclass(cls, _CODE_TYPES) or qualified(cls) in _CODE_NAMES:
        return True
    return cls.__name__ == "cython_function_or_method"


def is_marked(value: object) -> bool:
    """Whether an object stands for a function: one of `MARKS` says so."""
    return inner_function(value) is not MISSING or isinstance(static_attribute(value, _ROLE), str)


def plain_array_class(array: Any) -> type:
    return next(base for base in type(array).__mro__ if qualified(base) == "numpy.ndarray")


_SCALARS: Final = (str, bytes, int, float, complex)
_BASES: Final = (dict, list, tuple, set, frozenset, bytearray, *_SCALARS)


def builtin_base(cls: type) -> type | None:
    return next((base for base in _BASES if issubclass(cls, base)), None)


def as_builtin(value: Any, base: type) -> Any:
    """The value as a plain builtin, read past what its class overrides."""
    if base is dict:
        return dict(zip(dict.keys(value), dict.values(value), strict=True))
    if base in (list, tuple, set, frozenset):
        return base(_iterate(base, value))
    return base.__getnewargs__(value)[0] if hasattr(base, "__getnewargs__") else base(value)


def _iterate(base: Any, value: Any) -> Any:
    return base.__iter__(value)


def python_slots(cls: type) -> list[tuple[str, Any]]:
    """Slots that classes written in Python declare: (name, descriptor), base classes first."""
    found: list[tuple[str, Any]] = []
    for base in reversed(cls.__mro__):
        if "__slots__" in vars(base):
            members = ((n, m) for n, m in vars(base).items() if isinstance(m, types.MemberDescriptorType))
            found += sorted(members, key=lambda pair: pair[0])
    return found


def read_slot(member: Any, value: Any) -> Any:
    try:
        return member.__get__(value, type(value))
    except AttributeError:
        return MISSING


#: Methods by which a class tells pickle what its state is.
PICKLING: Final = ("__reduce__", "__reduce_ex__", "__getstate__")


def has_own_reduce(cls: type) -> bool:
    """Whether a class says itself what its state is."""
    for base in cls.__mro__:
        if base in _BASES or base is object:
            return False
        if any(name in vars(base) for name in PICKLING):
            return True
    return False


def hides_state(cls: type, slots: int) -> bool:
    """Whether instances have fields in C, which neither a ``__dict__`` nor so many slots of Python show."""
    visible = slots + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    return cls.__basicsize__ > object.__basicsize__ + visible * _POINTER


def name_of(value: Any) -> str:
    """What a person calls a piece of code."""
    kind = "class" if isinstance(value, type) else type(value).__name__
    return f"{kind} {getattr(value, '__qualname__', getattr(value, '__name__', '?'))}"


def library_name(value: Any, boundary: Boundary) -> str | None:
    """Canonical name of a library's function, class, ufunc, descriptor or module; None for project code."""
    if is_a(value, types.ModuleType):
        name = asked(value, "__name__", "?")
        return boundary.name_library(name, "") if boundary.is_library(name, _file_of(value)) else None
    if is_a(value, types.FunctionType):
        namespace = value.__globals__
        if not boundary.owns_globals(namespace):
            return None
        return boundary.name_library(namespace["__name__"], value.__code__.co_qualname)
    return _compiled_name(value, boundary)


def _file_of(module: types.ModuleType) -> str | None:
    file = (instance_dict(module) or {}).get("__file__")
    return file if isinstance(file, str) else None


def _compiled_name(value: Any, boundary: Boundary) -> str | None:
    # Classes have none, and would ask their metaclass, which may raise anything.
    owner = None if is_a(value, type) else asked(value, "__objclass__")
    path: Any = asked(value, "__qualname__") or asked(value, "__name__")
    module = _module_of(value)
    if isinstance(owner, type):
        module, path = owner.__module__, f"{owner.__qualname__}.{value.__name__}"
    if not isinstance(module, str) or not isinstance(path, str) or _is_named_for_its_maker(value, module):
        return None
    return boundary.name_library(module, path) if boundary.is_library(module) else None


def is_of_project(value: Any, boundary: Boundary) -> bool:
    """Whether code is the project's, as itself or inside a thin wrapper."""
    kind = type(value)
    if kind is types.FunctionType:
        wrapped = value.__dict__.get("__wrapped__")
        return not boundary.owns_globals(value.__globals__) or is_of_project(wrapped, boundary)
    if issubclass(kind, type):
        return library_name(value, boundary) is None
    if kind is types.MethodType:
        return is_of_project(value.__func__, boundary)
    if issubclass(kind, functools.partial):
        return is_of_project(value.func, boundary)
    return issubclass(kind, _CACHE) and is_of_project(value.__wrapped__, boundary)


def _is_named_for_its_maker(value: Any, module: str) -> bool:
    """Whether a class names the module of what made it: it was given no ``__module__``, and can't be found there."""
    if not isinstance(value, type) or not value.__flags__ & HEAP_TYPE:
        return False
    if module not in _MAKERS and (type(value) is type or module not in _metaclass_modules(type(value))):
        return False
    held: Any = sys.modules.get(module)
    for part in value.__qualname__.split("."):
        held = vars(held).get(part) if isinstance(held, type | types.ModuleType) else None
    return held is not value


def _metaclass_modules(metaclass: type) -> set[str]:
    """Where the ``__new__`` of Python lie that make the classes of a metaclass; `type` asks the frame for a name."""
    makers = (vars(base).get("__new__") for base in metaclass.__mro__)
    functions = (getattr(maker, "__func__", None) for maker in makers)
    return {str(one.__globals__.get("__name__")) for one in functions if isinstance(one, types.FunctionType)}


def _ufunc_module(ufunc: Any) -> str | None:
    """The library that holds a ufunc; None for one made from a Python function, which can't be looked into."""
    known = (name for name in ("numpy", "scipy.special") if name in sys.modules)
    return next((name for name in known if vars(sys.modules[name]).get(ufunc.__name__) is ufunc), None)


def called_by_ufunc(ufunc: Any) -> list[Any]:
    """The Python callables behind a ufunc that `numpy.frompyfunc` made."""
    import gc  # it tells the garbage collector what it holds, and nobody else

    return [held for held in gc.get_referents(ufunc) if callable(held)]


def _module_of(value: Any) -> Any:
    module = asked(value, "__module__")
    if qualified(type(value)) == "numpy.ufunc":
        return _ufunc_module(value)
    if isinstance(value, types.BuiltinFunctionType) and module is None:
        return "builtins"
    return module


def role_function(obj: Any) -> Any:
    """The function of a reactor or subreactor, which does not notice that it is looked at."""
    held = instance_dict(obj)
    return held["function"] if held and "function" in held else own_fields(obj)["function"]


def inner_function(obj: Any) -> Any:
    """The Python function inside a compiled one of a library (numba's dispatchers)."""
    inner = static_attribute(obj, _INNER) if not issubclass(type(obj), type) else MISSING
    if not isinstance(inner, types.FunctionType) or library_name(type(obj), _ANY_VERSION) is None:
        return MISSING  # an object of the project may call something of its own by that name
    return inner


def own_fields(obj: Any) -> dict[str, Any]:
    """What an object itself holds: its ``__dict__``, and the slots that classes written in Python declare."""
    fields = dict(instance_dict(obj) or {})
    for name, member in python_slots(type(obj)):
        item = read_slot(member, obj)
        if item is not MISSING:
            fields[name] = item
    return fields


def without_own_numbers(obj: Any, fields: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """The fields of an object but for those that keep its hash, or where one of them lies: another in each process.

    Only where it is the hash of another field, or of all others, or the address of another field: a number that
    somebody has chosen (of a picture, of a commit), and that ``__hash__`` gives away, may be all that the object is.
    """
    for name, kept in fields:
        if is_own_number(obj, name, kept, fields):
            return without_own_numbers(obj, [pair for pair in fields if pair[0] is not name])
    return fields


def is_own_number(obj: Any, name: Any, kept: Any, fields: Iterable[tuple[Any, Any]]) -> bool:
    """Whether what lies under a name in an object is its hash, its address or that of another of its fields.

    Or how many things a library had made in this process before it: who orders them by that keeps the order, too.
    """
    if type(kept) is not int or type(name) is not str:
        return False
    if name in _COUNTERS:
        return any(class_module(base).startswith(_COUNTERS[name]) for base in type(obj).__mro__)
    if abs(kept) < _LEAST_HASH or not _may_be_own(name):
        return False
    return _is_own(obj, name, kept, [item for other, item in fields if other is not name])


def without_hashes(items: tuple[Any, ...]) -> list[Any]:
    """These, without the numbers that are the hash of a text among them, which is another one in each process."""
    return [item for item in items if not (type(item) is int and abs(item) >= _LEAST_HASH and _is_hash(item, items))]


def _is_hash(number: int, items: tuple[Any, ...]) -> bool:
    return any(type(item) in (str, bytes) and hash(item) == number for item in items)


def is_by_address(table: dict[Any, Any]) -> bool:
    """Whether each key of a dict is the address of what lies under it: a number of the process."""
    for key, item in table.items():
        if type(key) is not int or key < _LEAST_HASH or key != id(item):
            return False
    return bool(table)


def _may_be_own(name: str) -> bool:
    return "hash" in name or "id" in name


def _is_own(obj: Any, name: str, kept: int, others: list[Any]) -> bool:
    """Whether a number is the address of one of these, or the hash of an object with these fields."""
    if kept == id(obj) or ("id" in name and any([id(item) == kept for item in others])):
        return True
    return "hash" in name and any(_hash_of(ask) == kept for ask in _hashed(type(obj), others))


def _hashed(cls: type, items: list[Any]) -> Iterator[Callable[[], object]]:
    """What the hash of an object may be that of: one of its fields, all of them, with its class or without."""
    for item in items:
        if type(item) is not int:  # whose hash is itself, and not seeded
            yield partial(frozenset, item.items()) if isinstance(item, dict) else partial(_same, item)
    for front in ((), (cls,), (cls.__name__,)):
        yield partial(_same, (*front, *items))


def _same(thing: object) -> object:
    return thing


def _hash_of(ask: Callable[[], object]) -> int | None:
    try:
        return hash(ask())
    except MemoryError:  # says nothing of the object
        raise
    except ANSWERS as error:  # foreign code: what can't be hashed was not
        let_end(error)
        return None


def fields_added_to(obj: Any, base: type) -> dict[str, Any]:
    """What an object holds that its class has beside those of one of its bases; nothing for that base itself."""
    cls = type(obj)
    if cls is base:
        return {}
    inherited = dict(python_slots(base))
    return {name: item for name, item in own_fields(obj).items() if name not in inherited}


def member_fields(member: Any) -> dict[str, Any]:
    """What an enum member of the project holds beside its name and value; "" is its content as a builtin."""
    fields = {name: item for name, item in own_fields(member).items() if not _is_of_enum(member, name)}
    base = builtin_base(type(member))
    if base is not None:
        content = as_builtin(member, base)
        if base not in _SCALARS or type(member._value_) is not base or content != member._value_:
            fields[""] = content
    return fields if fields and library_name(type(member), _ANY_VERSION) is None else {}


def _is_of_enum(member: Any, name: str) -> bool:
    """Whether enum keeps an attribute for itself, or it is a property's cache, which follows from the others."""
    own = name.startswith("_") and name.endswith("_")
    return own or isinstance(static_attribute(type(member), name), functools.cached_property)


def bound_to(obj: Any) -> Any:
    """What a built-in method is bound to; `MISSING` for functions of modules and class methods of libraries."""
    if not isinstance(obj, types.BuiltinFunctionType | types.MethodWrapperType):
        return MISSING
    owner = getattr(obj, "__self__", None)
    if isinstance(owner, type):
        return owner if library_name(owner, _ANY_VERSION) is None else MISSING
    return MISSING if owner is None or isinstance(owner, types.ModuleType) else owner


def is_same_method(one: Any, other: Any) -> bool:
    """Whether two bound methods are one: Python makes a new object each time that one is asked for."""
    if type(one) is not types.MethodType or type(other) is not types.MethodType:
        return False
    return one.__func__ is other.__func__ and one.__self__ is other.__self__

"""The records of a walk over code: a node per piece of code, a slot per place that holds a value.

This file may know: how to look at one place or one object. It may not know: what counts (``nodes.py``
decides) or how digests are put together (``graph.py``).
"""

from __future__ import annotations

import abc
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.arrays import text
from pyplantx.fingerprint.boundary import module_name
from pyplantx.fingerprint.foreign import asked, is_a
from pyplantx.fingerprint.modules import TARGETS, made_up
from pyplantx.fingerprint.objects import (
    MISSING,
    class_module,
    instance_dict,
    is_same_method,
    member_fields,
    static_attribute,
)


class Pin:
    """What stands for a function or class in place of its code.

    It names its owner, because `functools.wraps` copies it to wrappers, whose code does count.
    """

    __slots__ = ("owner", "text")

    def __init__(self, owner: object, text: str) -> None:
        self.owner = owner
        self.text = text


class Member(NamedTuple):
    """An enum member that holds more than its value.

    Attributes
    ----------
    value : object
        What it was made from, or what its ``__new__`` says.
    fields : dict
        Attributes that were set on it.
    """

    value: Any
    fields: dict[str, Any]


#: What the machinery of abstract classes knows of one of them: weak references to those registered with it come first.
_TOLD_BY_ABC: Final[Callable[[type], Any]] = vars(abc)["_get_dump"]

#: Head of a function's data; a function that refers to nothing has its normal form behind it and nothing else.
FUNCTION: Final = b"function\0"

#: What a slot holds that holds nothing.
ABSENT: Final = b"-"


class Slot:
    """A place that holds a value which code refers to: a global, a default, a closure cell, a class attribute.

    Attributes
    ----------
    owner, key : object
        The place.
    label : str
        What people call it.
    value : object
        What it held when it was looked at.
    now, data : bytes
        Encoding of that value, and the one that counts; they differ for state (see ``activity`` in code.py).
    refs_now, refs : tuple
        The code inside the value, in the order of the encoding; likewise.
    opaque : tuple of str
        Types inside it that have no encoding.
    sees : int
        What can be read about other code with a text in it, such as "__name__": as in `Record`.
    """

    __slots__ = ("data", "key", "label", "now", "opaque", "owner", "read", "refs", "refs_now", "sees", "value")

    def __init__(self, owner: Any, key: str, label: str, value: Any, read: Callable[[Any, str], Any]) -> None:
        self.owner, self.key, self.label, self.value, self.read = owner, key, label, value, read
        self.data = self.now = b""
        self.refs: tuple[Any, ...] = ()
        self.refs_now: tuple[Any, ...] = ()
        self.opaque: tuple[str, ...] = ()
        self.sees = 0

    def holds(self, data: bytes, refs: tuple[Any, ...]) -> bool:
        """Whether this is what it held when it was looked at."""
        if self.now != data or len(self.refs_now) != len(refs):
            return False
        pairs = zip(self.refs_now, refs, strict=True)
        return all(mine is theirs or is_same_method(mine, theirs) for mine, theirs in pairs)

    @property
    def framed(self) -> bytes:
        """What the slot adds to the data of a node."""
        return framed(self.key, self.data)


def framed(key: str, data: bytes) -> bytes:
    """What a slot with that key adds to the data of a node."""
    return text(key) + len(data).to_bytes(8, "little") + data


def joined(own: bytes, constants: list[bytes]) -> bytes:
    """The data of a node: what is its own, and what its global constants add."""
    return own + b"\0constants" + b"".join(constants) if constants else own


def read_item(owner: dict[str, Any], key: str) -> Any:
    """What a namespace holds."""
    return owner.get(key, MISSING)


def read_field(owner: Any, key: str) -> Any:
    """What an object itself holds."""
    return (instance_dict(owner) or {}).get(key, MISSING)


def read_made_up(owner: dict[str, Any], key: str) -> Any:
    """What a namespace holds, or its module makes up when it is asked."""
    held = owner.get(key, MISSING)
    module = sys.modules.get(str(owner.get("__name__")))
    return made_up(module, key) if held is MISSING and module is not None else held


def read_arguments(owner: dict[str, Any], key: str) -> Any:
    """The arguments of the command line, without the path of the script."""
    arguments = owner.get(key, MISSING)
    return arguments[1:] if isinstance(arguments, list) else arguments


def read_class(owner: type, key: str) -> Any:
    """What a class itself holds; a text that names code to be called, as in a dict."""
    held = vars(owner).get(key, MISSING)
    return {key: held} if key in TARGETS and isinstance(held, str) else held


def read_modules(owner: dict[str, Any], key: str) -> Any:
    """The names of the modules in a package, loaded or not; `MISSING` if it is none."""
    from pkgutil import iter_modules

    folders = owner.get("__path__", ())
    return sorted((one.name, one.ispkg) for one in iter_modules(map(str, folders))) or MISSING


def read_derived(owner: type, key: str) -> Any:
    """The classes that derive from one, in the order in which they were made; `MISSING` if there are none."""
    return type.__subclasses__(owner) or MISSING


def read_registered(owner: type, key: str) -> Any:
    """The classes that are registered with an abstract one; `MISSING` if there are none."""
    registry = _TOLD_BY_ABC(owner)[0]
    return frozenset([cls for cls in (held() for held in registry) if cls is not None]) or MISSING


def read_member(owner: type, key: str) -> Any:
    """The value of an enum member, with its other fields if it has any."""
    member = vars(owner)["_member_map_"].get(key)
    if member is None:
        return MISSING
    fields = member_fields(member)
    return Member(member._value_, fields) if fields else member._value_


def read_cell(owner: types.CellType, key: str) -> Any:
    """What a closure cell holds; `MISSING` while it is empty."""
    try:
        return owner.cell_contents
    except ValueError:
        return MISSING


def read_attribute(owner: Any, key: str) -> Any:
    """A plain attribute."""
    return asked(owner, key, MISSING)


class Node:
    """One piece of code, described.

    Attributes
    ----------
    obj : object
        The piece itself.
    own : bytearray
        What counts about it, constants and other code excluded.
    constants : list of Slot
        Global constants that it refers to.
    refs : list
        The code that it refers to, in a canonical order.
    documented : bool
        Whether its docstrings are known to be the project's.
    sees : int
        What it reads about other code, as in `Record`: docstrings, names, annotations, derived classes.
    opaque : tuple of str
        What counts by its type only.
    """

    __slots__ = ("constants", "documented", "obj", "opaque", "own", "refs", "sees")

    def __init__(self, obj: Any, kind: bytes) -> None:
        self.obj = obj
        self.own = bytearray(kind)
        self.constants: list[Slot] = []
        self.refs: list[Any] = []
        self.documented = False
        self.sees = 0
        self.opaque: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What people call it."""
        return label_of(self.obj)

    @property
    def docs(self) -> tuple[str, ...]:
        """Its docstrings; looked for only when somebody reads docstrings."""
        return docstrings(self.obj) if self.documented else ()

    @property
    def data(self) -> bytes:
        """Everything that counts but the other code."""
        return joined(bytes(self.own), [slot.framed for slot in self.constants])

    def add_text(self, key: str, content: str = "") -> None:
        """Add two texts."""
        self.own += text(key) + text(content)

    def add_slot(self, slot: Slot) -> None:
        """Add what a slot holds to the piece itself."""
        self.own += slot.framed
        self.refs += slot.refs
        self.opaque += slot.opaque
        self.sees |= slot.sees

    def add_constant(self, slot: Slot) -> None:
        """Add a global constant, which is a part of its own for those who explain."""
        self.constants.append(slot)
        self.refs += slot.refs
        self.opaque += slot.opaque
        self.sees |= slot.sees

    def add_ref(self, obj: Any) -> None:
        """Add other code; a class by its name too, since two may have one body, and which it is can be asked."""
        self.own += b">" + text(obj.__qualname__) if is_a(obj, type) else b">"
        self.refs.append(obj)

    def note(self, line: str) -> None:
        """Note something that can't be seen."""
        self.opaque += (line,)


#: What a name adds to a function that uses it: to its own bytes, to its constants, and as other code.
Look = tuple[bytes, bytes, tuple[Any, ...]]


class Reference:
    """What a name in a module comes to, ready to be added to the nodes of all functions that use it.

    Parameters
    ----------
    namespace : dict
        Kept alive, since references are found by its identity.
    own : bytes
        What it adds to a node.
    slot : Slot, optional
        The global that it names.
    module : object
        The module that is used as a whole.
    finder : str
        What it is called if code that has it can find any name of its own module; else "".
    """

    __slots__ = ("_module", "_namespace", "_own", "_slot", "finder")

    def __init__(
        self,
        namespace: Any,
        own: bytes,
        slot: Slot | None = None,
        module: Any = MISSING,
        finder: str = "",
    ) -> None:
        self._namespace, self._own, self._slot, self._module = namespace, own, slot, module
        self.finder = finder

    @property
    def at_a_look(self) -> Look | None:
        """What it adds, unless it leads to a whole module or to others by their names."""
        if self._module is not MISSING or self.finder:
            return None
        if self._slot is None:
            return self._own, b"", ()
        return None if self._slot.sees else (self._own, self._slot.framed, self._slot.refs)

    def add_to(self, node: Node) -> None:
        """Add it to a node."""
        node.own += self._own
        if self._slot is not None:
            node.add_constant(self._slot)
        elif self._module is not MISSING:
            node.add_ref(self._module)


def static_pin(obj: Any) -> Pin | None:
    """The pin that belongs to this very object."""
    own = asked(obj, "__dict__")
    pin = own.get("__pyplantx_pin__") if isinstance(own, dict | types.MappingProxyType) else None
    return pin if isinstance(pin, Pin) and pin.owner is obj else None


def names_of(obj: Any) -> tuple[str, ...]:
    """The names that a function has when it is asked for them; of other code none, what is reached has its own."""
    return (obj.__name__, obj.__qualname__) if is_a(obj, types.FunctionType) else ()


def inner_names(obj: Any) -> Iterator[str]:
    """The names of the functions and classes inside a function."""
    code = obj if is_a(obj, types.CodeType) else asked(obj, "__code__")
    for const in code.co_consts if isinstance(code, types.CodeType) else ():
        if isinstance(const, types.CodeType):
            yield const.co_name
            yield from inner_names(const)


def docstrings(obj: Any) -> tuple[str, ...]:
    """The docstring of a function or class and, in code, what may be those of the functions and classes inside it."""
    if isinstance(obj, types.CodeType):
        inside = [const for const in obj.co_consts if isinstance(const, types.CodeType)]
        texts = ((*filter(_is_text, code.co_consts), *docstrings(code)) for code in inside)
        return tuple(text for found in texts for text in found)
    own = (obj.__doc__,) if isinstance(obj.__doc__, str) else ()
    return own + docstrings(obj.__code__) if isinstance(obj, types.FunctionType) else own


def _is_text(thing: object) -> bool:
    return isinstance(thing, str)


def label_of(obj: Any) -> str:
    """What people call a piece of code: "function utils.scale", "class app.Model"."""
    if is_a(obj, types.FunctionType):
        module = obj.__globals__.get("__name__", "?")
        return f"function {module_name(str(module))}.{obj.__qualname__}"
    if is_a(obj, types.ModuleType):
        return f"module {asked(obj, '__name__', '?')}"
    if is_a(obj, types.CodeType):
        return f"code {obj.co_qualname}"
    if is_a(obj, type):
        return f"class {module_name(class_module(obj))}.{obj.__qualname__}"
    kind = static_attribute(obj, "__pyplantx_kind__")
    word = kind if isinstance(kind, str) else type(obj).__name__
    name = asked(obj, "__qualname__") or asked(obj, "__name__")
    module = asked(obj, "__module__")
    where = f"{module_name(module)}." if isinstance(module, str) else ""
    return f"{word} {where}{name}" if isinstance(name, str) else word

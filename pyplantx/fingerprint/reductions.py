"""What an object tells pickle of itself, what of that is another thing each time, and what it leaves out.

This file may know: Python's object model and what pickle asks for. It may not know: how anything is encoded or
hashed.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Iterator
from typing import IO, Any, Final

from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.modules import locate
from pyplantx.fingerprint.notes import is_note
from pyplantx.fingerprint.objects import (
    PICKLING,
    builtin_base,
    class_module,
    fields_added_to,
    is_code,
    library_name,
    own_fields,
    static_attribute,
)

_LEAVES: Final = (type(None), bool, int, float, complex, str, bytes)
_LIBRARIES: Final = Boundary("ignore")

#: Where something lies and what is written about it: not what it is.
_LOCATION: Final = frozenset(functools.WRAPPER_ASSIGNMENTS)

_FEW: Final = 64

#: How a pickle of protocol 4 or 5 begins: with a frame, and the length of that.
_PICKLE: Final = re.compile(rb"\x80[\x04\x05]\x95([\s\S]{8})")
#: The same in MessagePack, where bytes may be a list of numbers: those above 127 have a mark in front.
_PACKED: Final = re.compile(rb"\xcc\x80[\x04\x05]\xcc\x95")
_MARKED: Final = re.compile(rb"\xcc([\x80-\xff])")
_NO_FIELDS: Final[list[tuple[str, Any]]] = []


class Unsteady:
    """Stands for a number in a reduction that is another one each time: a count of the saves, the time of day.

    Texts and bytes that change are left as they are: all that an object is may be packed into them.

    Attributes
    ----------
    owner : object
        Whose part it is.
    kind : type
        Its class.
    """

    __slots__ = ("kind", "owner")

    def __init__(self, owner: object, kind: type) -> None:
        self.owner, self.kind = owner, kind


def reduction(value: Any) -> Any:
    """What an object tells pickle, with an `Unsteady` for each number that changes with being asked for.

    Methods written in Python are asked twice, and a third time if they answered differently: the first answer may
    have filled a cache.
    """
    parts = _asked(value)
    if isinstance(parts, str) or not _pickles_in_python(type(value)):
        return parts
    again = _asked(value)
    if _steady(parts, again, value) is parts:
        return parts
    return _steady(again, _asked(value), value)


def _asked(value: Any) -> Any:
    """What an object tells pickle. That it warns of it is nobody's concern, and must not change the answer (-W error).

    (Those of itertools say from Python 3.12 on that one day they will tell nothing any more.)
    """
    if class_module(type(value)) != "itertools":
        try:
            return value.__reduce_ex__(4)
        except Warning:
            pass
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return value.__reduce_ex__(4)


def _pickles_in_python(cls: type) -> bool:
    return any(isinstance(static_attribute(cls, name), types.FunctionType) for name in PICKLING)


def _steady(one: Any, other: Any, owner: object) -> Any:
    """`one` itself if `other` has the same numbers, as far as plain containers go; else a copy with stand-ins."""
    kind = type(one)
    if kind in (int, float):
        same = type(other) is not kind or one == other or one != one
        return one if same else Unsteady(owner, kind)
    if one is other or type(other) is not kind or kind not in (tuple, list, dict) or len(one) != len(other):
        return one
    if kind is dict:
        found = {key: _steady(item, other.get(key, item), owner) for key, item in one.items()}
        return found if any(found[key] is not one[key] for key in one) else one
    items = [_steady(mine, theirs, owner) for mine, theirs in zip(one, other, strict=True)]
    return kind(items) if any(new is not old for new, old in zip(items, one, strict=True)) else one


def left_out(value: Any, parts: Any) -> list[tuple[str, Any]]:
    """The fields of an object that its reduction does not show, though they say what it is.

    Parameters
    ----------
    value : object
        The object.
    parts : str or tuple
        Its reduction.

    Returns
    -------
    list of (str, object)
        All fields where the reduction is a look-up (a name, or a function of the project and a key). Those that a
        derived class has added, where the reduction is that of a class without a ``__dict__``, or of a builtin's
        kind, and knows nothing of them. Of others the functions and classes: pickle can't keep most of them, so
        they are left out, or a name stands for them. What else is left out is a cache, or not meant to count.
    """
    if _is_ours(type(value)) or isinstance(parts, str) and _lies_in_library(value, parts):
        return _NO_FIELDS
    known = own_fields(value)
    unknown = known if is_look_up(parts) else fields_added_to(value, _author(type(value)))
    candidates = [
        (name, item)
        for name, item in known.items()
        if name not in _LOCATION and (name in unknown or _has_code(item)) and not is_note(value, name, item)
    ]
    told = _told(parts) if candidates else ()
    return [(name, item) for name, item in candidates if id(item) not in told]


def held_code(value: Any) -> list[tuple[str, Any]]:
    """The functions and classes in an object that has no encoding: in its fields, and in those in C.

    What it was given to call is most of what it does, as with a decorator that is written in C. Fields in C have no
    names, but the order in which the class shows them to the garbage collector.
    """
    import gc

    found = [(name, item) for name, item in own_fields(value).items() if name not in _LOCATION and _has_code(item)]
    told = {id(type(value)), *(id(item) for _, item in found)}
    for number, item in enumerate(gc.get_referents(value)):
        if id(item) not in told and (_is_function(item) or type(item) is type(value)):
            told.add(id(item))
            found.append((str(number), item))
    return found


def _is_function(item: Any) -> bool:
    return is_code(item) and not issubclass(type(item), types.ModuleType)


def pickled_code(parts: Any, boundary: Boundary = _LIBRARIES) -> list[tuple[str, Any]]:
    """The functions and classes of the project that pickles inside a reduction name.

    Libraries that are not written in Python keep the functions that they were given in such bytes (expressions of
    polars), where all that is left of a function is its name.
    """
    names = (name for item in _walk(parts) if type(item) is bytes for name in _pickled_names(item))
    found = [(path, locate(path, boundary)) for path in dict.fromkeys(map(".".join, names))]
    return [(path, held) for path, held in found if is_code(held) and library_name(held, boundary) is None]


def _pickled_names(raw: bytes) -> Iterator[tuple[str, str]]:
    """Module and dotted path of everything that the pickles in some bytes name."""
    yield from _names_in(raw)
    packed = _PACKED.search(raw)
    if packed:
        yield from _names_in(_MARKED.sub(rb"\1", raw[packed.start() :]))


def _names_in(raw: bytes) -> Iterator[tuple[str, str]]:
    from io import BytesIO

    stream = BytesIO(raw)  # which copies nothing
    for start in _PICKLE.finditer(raw):
        if int.from_bytes(start[1], "little") <= len(raw) - start.end():
            stream.seek(start.start())
            yield from _names_in_pickle(stream)


def _names_in_pickle(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    import pickletools

    memo: list[str | None] = []
    pushed: tuple[str | None, str | None] = (None, None)  # the last two things that were pushed, if they are texts
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STACK_GLOBAL" and pushed[0] is not None and pushed[1] is not None:
                yield pushed[0], pushed[1]
            if opcode.name == "MEMOIZE":
                memo.append(pushed[1])
            elif "UNICODE" in opcode.name:
                pushed = (pushed[1], argument)
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                pushed = (pushed[1], memo[int(argument or 0)])
            elif opcode.name != "FRAME":
                pushed = (pushed[1], None)
    except (ValueError, IndexError, OverflowError):  # bytes that only begin like a pickle
        return


def _find(module: str, path: str) -> Any:
    """What lies in a loaded module under a dotted path; None if nothing does."""
    held: Any = sys.modules.get(module)
    for part in path.split("."):
        held = vars(held).get(part) if isinstance(held, type | types.ModuleType) else None
    return held


def _is_ours(cls: type) -> bool:
    """Whether it is a class of this library: arrays that are received, say, lead to all of the plant."""
    return class_module(cls).partition(".")[0] == "pyplantx"


def _has_code(item: Any) -> bool:
    """Whether this is code, or a plain container of a few things with code among them."""
    if type(item) not in (tuple, list, dict) or len(item) > _FEW:
        return is_code(item)
    return any(map(is_code, item.values() if type(item) is dict else item))


def _author(cls: type) -> type:
    """The class that says how instances of `cls` are pickled, if it is one that has no ``__dict__`` for more fields."""
    for base in cls.__mro__:
        if any(name in vars(base) for name in PICKLING):
            return base if not base.__dictoffset__ or builtin_base(base) is not None else cls
    return cls


def is_look_up(parts: Any) -> bool:
    """Whether a reduction says where an object is to be found, not what it is."""
    if isinstance(parts, str):
        return True
    function, arguments = parts[:2]
    if any(part is not None for part in parts[2:]):
        return False
    if function is getattr:
        return True
    if not all(type(part) in _LEAVES for part in arguments):
        return False
    while isinstance(function, functools.partial):
        function = function.func
    inner = function.__func__ if isinstance(function, types.MethodType) else function
    return isinstance(inner, types.FunctionType) and library_name(inner, _LIBRARIES) is None


def _lies_in_library(value: Any, path: str) -> bool:
    """Whether a library's module holds an object under that name, so that the name says all."""
    module = static_attribute(value, "__module__")
    module = module if isinstance(module, str) else class_module(type(value))
    if not _LIBRARIES.is_library(module):
        return False
    return _find(module, path) is value


def _told(parts: Any) -> set[int]:
    """Identities of all that lies in a reduction, and in the plain containers inside it."""
    return {id(item) for item in _walk(parts)}


def _walk(parts: Any) -> Iterator[Any]:
    """All that lies in a reduction, and in the plain containers inside it, each once."""
    pending, met = [parts], set[int]()
    while pending:
        item = pending.pop()
        if id(item) in met:
            continue
        met.add(id(item))
        yield item
        if type(item) in (tuple, list):
            pending += item
        elif type(item) is dict:
            pending += item.values()

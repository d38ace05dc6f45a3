"""Simple values and lists as JSON text (specs/simple and specs/list are the written formats).

What JSON lacks is an object with one key, the tag, that names the type. Values only: this file knows
nothing of stages and payloads.
"""

from __future__ import annotations

from collections.abc import Callable
from json import JSONDecoder, JSONEncoder
from math import isfinite
from struct import error as StructError  # noqa: N812
from struct import pack, unpack
from typing import Any

from pyplantx.errors import DamagedObject

#: Types of simple values. Exact: a subclass is an object.
SIMPLE = frozenset({type(None), bool, int, float, complex, str, bytes})

_EXACT_INT = 2**53  #: up to here every JSON reader keeps an integer
_DEEPEST_LIST = 100


def _tag_int(value: int) -> Any:
    return value if -_EXACT_INT <= value <= _EXACT_INT else {"int": hex(value)}


def _tag_float(value: float) -> Any:
    return value if isfinite(value) else {"float": pack(">d", value).hex()}


def _tag_str(value: str) -> Any:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates; two of them in a row would come back as one character
        return {"str": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _base64(data: bytes) -> str:
    from base64 import b64encode  # every plant loads this file, few values are bytes

    return b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    from base64 import b64decode

    return b64decode(text, validate=True)


_TAG: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _tag_int,
    float: _tag_float,
    str: _tag_str,
    bytes: lambda value: {"bytes": _base64(value)},
    complex: lambda value: {"complex": [_tag_float(value.real), _tag_float(value.imag)]},
    list: lambda value: [_TAG[type(item)](item) for item in value],
}

_UNTAG: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": lambda text: unpack(">d", bytes.fromhex(text))[0],
    "str": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "bytes": _from_base64,
    "complex": lambda pair: _complex(*pair),
}


def _complex(real: float, imag: float) -> complex:
    if type(real) is not float or type(imag) is not float:
        raise ValueError("a complex number has two floats")
    return complex(real, imag)


def _untag(pairs: dict[str, Any]) -> Any:
    if len(pairs) != 1:
        raise ValueError(f"a tagged value has one key, this one {len(pairs)}")
    ((tag, content),) = pairs.items()
    if tag not in _UNTAG:
        raise ValueError(f"unknown tag {tag[:40]!r}")
    try:
        return _UNTAG[tag](content)
    except (TypeError, AttributeError, StructError) as error:
        raise ValueError(f"the tag {tag!r} holds something else: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_encode = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# Not `raw_decode`: `scan_once` is the same without a Python frame, on the path of every small value.
_scan: Callable[[str, int], tuple[Any, int]] = JSONDecoder(  # type: ignore[attr-defined]
    object_hook=_untag, parse_float=_finite, parse_constant=_no_constant
).scan_once


def dump_json(value: Any) -> bytes:
    """The JSON text of a simple value or a list."""
    kind = type(value)
    if kind is int and -_EXACT_INT <= value <= _EXACT_INT:
        return b"%d" % value
    if kind is list and _needs_no_tag(value):
        return _encode(value).encode()
    return _encode(_TAG[kind](value)).encode()


def _needs_no_tag(items: list[Any]) -> bool:
    # Long lists of one type are the common long ones: three passes at C speed instead of one in Python.
    kinds = set(map(type, items))
    if kinds == {float}:
        return all(map(isfinite, items))
    return kinds == {int} and -_EXACT_INT <= min(items) and max(items) <= _EXACT_INT


def load_json(data: bytes, what: str) -> Any:
    """The value of `dump_json`'s text; `DamagedObject` if it is anything else."""
    try:
        text = data.decode()
        value, end = _scan(text, 0)
    except StopIteration:
        raise DamagedObject(f"the payload of a {what} is not JSON: {data[:40]!r}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedObject(f"the payload of a {what} is not what it must be: {error}") from error
    if end != len(text):
        raise DamagedObject(f"the payload of a {what} goes on after its end: {text[end : end + 40]!r}")
    return value


def find_unlisted(value: list[Any]) -> tuple[str, str] | None:
    """(path, what) of the first thing in a list that JSON would lose, else None.

    That is: a type that is not simple, a list object that occurs twice, lists in lists deeper than 100.
    """
    seen = {id(value)}
    level: list[tuple[str, list[Any]]] = [("value", value)]
    for _ in range(_DEEPEST_LIST):
        deeper: list[tuple[str, list[Any]]] = []
        for path, items in level:
            kinds = set(map(type, items))
            if kinds <= SIMPLE:
                continue
            trouble = _look_closer(path, items, seen, deeper)
            if trouble is not None:
                return trouble
        if not deeper:
            return None
        level = deeper
    return level[0][0], "nested too deeply"


def _look_closer(
    path: str, items: list[Any], seen: set[int], deeper: list[tuple[str, list[Any]]]
) -> tuple[str, str] | None:
    for index, item in enumerate(items):
        if type(item) is list:
            if id(item) in seen:
                return f"{path}[{index}]", "a list that occurs twice"
            seen.add(id(item))
            deeper.append((f"{path}[{index}]", item))
        elif type(item) not in SIMPLE:
            return f"{path}[{index}]", f"a {type_name(type(item))}"
    return None


def type_name(kind: type) -> str:
    """How a class is called in a message: with its module, unless that is builtins."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

"""Sizes and spans of time as people write them, and back.

This file may know: numbers, texts, ``datetime.timedelta``. It may not know: disks, clocks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, overload

from pyplantx.errors import BadRequest, shown

if TYPE_CHECKING:
    from datetime import timedelta

Size = int | float | str

_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40, "pi": 1 << 50}

#: What may follow the number of a size -> bytes. Capitals don't count; "GB" and "G" are decimal, "GiB" is binary.
_SIZES = {
    prefix + end: factor
    for prefix, factor in (_DECIMAL | _BINARY).items()
    for end in ("", "b", "byte", "bytes")
    if not (prefix and end.startswith("byte"))
}

_MINUTE, _HOUR, _DAY, _WEEK = 60, 3600, 86_400, 604_800

#: Words for a unit of time -> its seconds.
_SPANS: dict[str, float] = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1),
    "ms": 0.001,
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), _WEEK),
}

_NUMBER_AND_UNIT = r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*([a-z]*)\s*"

#: Larger numbers are taken for a slip of the finger: an exabyte, ten thousand years.
_MOST_BYTES, _MOST_SECONDS = 10**18, 3.2e11


@overload
def parse_bytes(given: None, what: str = "a size") -> None: ...
@overload
def parse_bytes(given: Size, what: str = "a size") -> int: ...
@overload
def parse_bytes(given: Size | None, what: str = "a size") -> int | None: ...


def parse_bytes(given: Size | None, what: str = "a size") -> int | None:
    """A number of bytes.

    Parameters
    ----------
    given : int, float, str or None
        A number of bytes, or a text such as ``"50GB"``, ``"1.5 GiB"`` or ``"200 k"``. k, M, G, T, P are powers of
        1,000, with an i (KiB) of 1,024.
    what : str
        What it is the size of, for the message.

    Returns
    -------
    int or None
        Bytes, rounded down; None if None was given.

    Raises
    ------
    BadRequest
        If it is none of these, or negative, or beyond 10**18.
    """
    if given is None:
        return None
    hint = f"{what} is a number of bytes, or a text like '50GB', '200 MB' or '1.5GiB'"
    return int(_parse(given, _SIZES, _MOST_BYTES, what, hint))


@overload
def parse_seconds(given: None, what: str = "a span of time") -> None: ...
@overload
def parse_seconds(given: int | float | str | timedelta, what: str = "a span of time") -> float: ...
@overload
def parse_seconds(given: int | float | str | timedelta | None, what: str = "a span of time") -> float | None: ...


def parse_seconds(given: int | float | str | timedelta | None, what: str = "a span of time") -> float | None:
    """A span of time.

    Parameters
    ----------
    given : int, float, str, timedelta or None
        Seconds, a `datetime.timedelta`, or a text such as ``"7 days"``, ``"12h"``, ``"30 min"``.
    what : str
        What it is, for the message.

    Returns
    -------
    float or None
        Seconds; None if None was given.

    Raises
    ------
    BadRequest
        If it is none of these, or negative, or beyond 10,000 years.
    """
    if given is None:
        return None
    hint = f"{what} is a number of seconds, a timedelta, or a text like '7 days', '12h' or '30 min'"
    total = getattr(given, "total_seconds", None)
    return float(_parse(total() if callable(total) else given, _SPANS, _MOST_SECONDS, what, hint))


def _parse(given: object, units: dict[str, int] | dict[str, float], most: float, what: str, hint: str) -> float:
    """The number times its unit."""
    if isinstance(given, str):
        number = _parse_text(given, units)
    else:
        number = given if isinstance(given, int) and not isinstance(given, bool) else _as_float(given)
    if number is None or not 0 <= number <= most:  # False for what is not a number, too
        raise BadRequest(f"{what} can't be {shown(given)}", hint=hint)
    return number


def _as_float(given: Any) -> float | None:
    """What says that it is a number, as one; True does not."""
    try:
        return None if isinstance(given, bool) or not hasattr(given, "__float__") else float(given)
    except (TypeError, ValueError, OverflowError):  # an array of several
        return None


def _parse_text(text: str, units: dict[str, int] | dict[str, float]) -> float | None:
    match = re.fullmatch(_NUMBER_AND_UNIT, text, re.IGNORECASE | re.ASCII)
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        return None
    digits = match[1].replace("_", "")
    return int(digits) * unit if digits.isdigit() else float(digits) * unit


def show_bytes(size: float) -> str:
    """A size with three digits or more: ``"0 B"``, ``"999 B"``, ``"1.50 kB"``, ``"12.3 MB"``, ``"1,234 PB"``.

    Parameters
    ----------
    size : int or float
        Bytes; may be negative.
    """
    sign, size = ("-", -size) if size < 0 else ("", size)
    if size < 999.5:
        return f"{sign}{size:.0f} B"
    for letter in ("k", "M", "G", "T", "P"):
        size /= 1000
        if size < 999.5 or letter == "P":
            break
    decimals = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{sign}{size:,.{decimals}f} {letter}B"


def show_seconds(seconds: float) -> str:
    """A span of time in the unit that suits it: ``"3 ms"``, ``"1.5 s"``, ``"12 min"``, ``"3.1 h"``, ``"12 days"``.

    Parameters
    ----------
    seconds : float
        Not negative.
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    for unit, length, until in (("s", 1, 99.95), ("min", _MINUTE, 99.5 * _MINUTE), ("h", _HOUR, 2 * _DAY)):
        if seconds < until:
            amount = seconds / length
            return f"{amount:.1f} {unit}" if amount < 9.95 or unit == "s" else f"{amount:.0f} {unit}"
    return f"{seconds / _DAY:,.0f} days"

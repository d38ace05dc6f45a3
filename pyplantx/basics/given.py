"""What people give for options, looked at where it comes in: what can't be is an error that says what to give instead.

This file may know: kinds of values, what can be a path. It may not know: what an option does.

Each function names the option in its message, takes what is as good as the right kind (a NumPy number for a number, a
subclass for a text), and returns the plain value, so that nobody behind has to ask again.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any

from pyplantx.errors import BadRequest, shown

#: Seconds that stand for "as long as it takes": threads can't wait longer than some hundred years.
FOR_EVER = 1e9


def refusal(what: str, given: object, hint: str) -> BadRequest:
    """The error for a value that can't be.

    Parameters
    ----------
    what : str
        The option, with its ``=``; or what the value would be in words.
    given : object
        The value.
    hint : str
        What to give instead.
    """
    message = f"{what}{shown(given)} is not possible" if what.endswith("=") else f"{what} can't be {shown(given)}"
    return BadRequest(message, hint=hint)


def check_text(what: str, given: object, hint: str) -> str:
    """A text, as a plain `str`.

    Parameters
    ----------
    what, given, hint
        As in `refusal`; all functions here raise that.
    """
    if isinstance(given, str):
        return str(given)
    raise refusal(what, given, hint)


def check_texts(what: str, given: object, hint: str) -> tuple[str, ...]:
    """One text, or several in anything that can be iterated."""
    found = (given,) if isinstance(given, str) else several(given)
    if found is None or not all(isinstance(one, str) for one in found):
        raise refusal(what, given, hint)
    return found


def check_path(what: str, given: object, hint: str) -> str:
    """A path that a file or folder can have.

    The empty one is none: as a rule a variable is empty that should not be, and it would stand for the working folder.
    """
    path = given if isinstance(given, str) else given.__fspath__() if isinstance(given, os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise refusal(what, given, hint)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise refusal(what, given, hint) from None
    return path


def check_config(given: object) -> object:
    """A config: anything but texts and numbers, which have no parameters. A text is mostly the path of their file."""
    if isinstance(given, (str, bytes, os.PathLike, int, float)) and not hasattr(given, "__dict__"):
        raise refusal("the config", given, "read the file first, and give the dict or object that holds the parameters")
    return given


def check_whole(what: str, given: object, hint: str, least: int | None = None) -> int:
    """A whole number, `least` or more. True is none."""
    number = whole(given)
    if number is None or (least is not None and number < least):
        raise refusal(what, given, hint)
    return number


def check_wholes(what: str, given: object, hint: str, least: int | None = None) -> tuple[int, ...]:
    """One whole number, or several in anything that can be iterated."""
    one = whole(given)
    listed = (one,) if one is not None else several(given)
    if listed is None:
        raise refusal(what, given, hint)
    numbers = [whole(number) for number in listed]
    found = tuple([number for number in numbers if number is not None and (least is None or number >= least)])
    if len(found) < len(listed):
        raise refusal(what, given, hint)
    return found


def several(given: Any) -> tuple[Any, ...] | None:
    """What is in anything that can be iterated; None if it can't be, or is one text."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else None


def whole(given: Any) -> int | None:
    """A whole number as an `int`, None if it is none."""
    try:
        return None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return None


def check_flag(what: str, given: Any) -> bool:
    """True or False; 1 and 0 will do."""
    if type(given) is bool:
        return given
    if whole(given) not in (0, 1) and type(given).__name__ not in ("bool", "bool_"):
        raise refusal(what, given, "it is True or False")
    return bool(given)


def check_callable(what: str, given: Any, hint: str) -> None:
    """Something that can be called."""
    if not callable(given):
        raise refusal(what, given, hint)


def check_wait(what: str, given: Any) -> float:
    """How many seconds to wait at most: a number or a text as in `parse_seconds`, or infinity."""
    from pyplantx.basics.units import parse_seconds  # a pattern to compile, for those who only decorate reactors

    if given is None:
        raise refusal(what, given, f"seconds, such as {what}60; {what}float('inf') waits as long as it takes")
    endless = isinstance(given, float) and given == math.inf
    return FOR_EVER if endless else min(parse_seconds(given, what), FOR_EVER)


def check_limit(what: str, given: Any) -> float:
    """How long something may take: as in `check_wait`, and more than no time."""
    seconds = check_wait(what, given)
    if not seconds:
        raise refusal(what, given, f"seconds, such as {what}60; leave it out where there is no limit")
    return seconds

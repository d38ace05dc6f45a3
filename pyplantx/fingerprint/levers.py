"""Marks with which users say what counts of their code.

This file may know: functions and classes. It may not know: how fingerprints are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pyplantx.errors import CannotFingerprint, shown
from pyplantx.fingerprint.objects import is_code
from pyplantx.fingerprint.pieces import Pin
from pyplantx.fingerprint.roles import unwrapped

_T = TypeVar("_T")


def untracked(obj: _T) -> _T:
    """Decorator: edits to this function or class never re-run anything (logging, plotting).

    Its name still counts, so that exchanging it for another one is an edit.
    """
    return _pin(obj, "untracked")


def tracked(*, version: object) -> Callable[[_T], _T]:
    """Decorator: this version stands for the code of the function or class; raise it to re-run its users.

    Parameters
    ----------
    version : object
        Anything with a stable text, such as 3 or "2024-05".
    """

    def pin(obj: _T) -> _T:
        return _pin(obj, f"version {version}")

    return pin


def _pin(obj: _T, text: str) -> _T:
    target: Any = unwrapped(obj)
    if not is_code(target):
        raise CannotFingerprint(
            f"{shown(obj)} can't be marked as {text}: it counts as a value",
            hint="mark its class, or the function in it; __fingerprint__ on its class says what counts of it",
        )
    try:
        target.__pyplantx_pin__ = Pin(target, text)
    except (AttributeError, TypeError) as error:
        raise CannotFingerprint(
            f"{obj!r} can't be marked as {text}",
            hint="mark functions and classes of your project; library code counts by name and version anyway",
        ) from error
    return obj

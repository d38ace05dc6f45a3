"""Threads that work for another one, which waits for them: they must not wait for it in turn.

This file may know: threads. It may not know: plants, loops, who works for whom.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_here = threading.local()


def helping(thread: int, function: Callable[..., Any], *given: Any) -> Any:
    """Call a function for another thread.

    Parameters
    ----------
    thread : int
        The identity of the thread that waits for the result.
    function : callable
    *given
        What it gets.
    """
    before, _here.helps = helped(), thread
    try:
        return function(*given)
    finally:
        _here.helps = before


def helped() -> int:
    """The thread that this one works for; 0 if it works for nobody."""
    helps: int = getattr(_here, "helps", 0)
    return helps

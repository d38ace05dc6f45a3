"""Waiting for other processes, with an end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def until(happens: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when something is so.

    Raises
    ------
    AssertionError
        If it takes too long.
    """
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Whether there is no such process any more, or only what its parent has not yet asked about."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False

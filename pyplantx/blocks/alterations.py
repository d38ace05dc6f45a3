"""Whether what a run has allocated was altered since some point of it.

What a killed run wrote is lost with it, unless a ledger of blocks keeps it; and that is taken up only by who runs the
loop again. So a checkpoint that was kept after such a write would skip, in the next run, what made the write.

This file may know: handles of arrays, files. It may not know: loops, ledgers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from pyplantx.blocks.handles import digest_of, handle_of

#: What is as it was allocated.
_BLANK = None


class Alterations:
    """What was altered since this was made.

    Datasets tell. An array on a memory map can't: unless it is blank it is read.

    Parameters
    ----------
    allocations : sequence of Allocated
        Those that are not sent yet; no loop is writing to them now.
    """

    def __init__(self, allocations: Sequence[Any]) -> None:
        self._before = {allocation: _state(allocation) for allocation in allocations}
        self._found: str | None = None

    def first(self, allocations: Sequence[Any]) -> str | None:
        """The name of one that was altered; None if there is none.

        Parameters
        ----------
        allocations : sequence of Allocated
            Those that are not sent yet, with those that have come since.
        """
        if self._found is None:
            altered = (each for each in allocations if _state(each) != self._before.get(each, _BLANK))
            self._found = next((each.name for each in altered), None)
        return self._found


class Others:
    """What was allocated besides what a loop fills: who writes to it in the body leaves more behind than blocks.

    Datasets and files tell. Arrays on memory maps don't, and are not read for it.

    Parameters
    ----------
    allocations : sequence of Allocated
        Those that are not sent yet, without those of the loop.
    """

    def __init__(self, allocations: Sequence[Any]) -> None:
        self._before = [(each, _mark(each)) for each in allocations]

    def are_altered(self) -> bool:
        """Whether one of them was written to since this was made."""
        return any(_mark(each) != mark for each, mark in self._before)


def _mark(allocation: Any) -> Any:
    """Another one after each write, as far as that can be told without reading."""
    handle = allocation.handle
    return _state_of_file(handle) if isinstance(handle, (str, os.PathLike)) else getattr(handle, "last_write", None)


def _state(allocation: Any) -> Any:
    """Equal for an allocation that nobody has altered meanwhile; what is of an unknown kind never equals itself."""
    handle = allocation.handle
    if isinstance(handle, (str, os.PathLike)):
        return _state_of_file(handle)
    if hasattr(handle, "read_block"):
        return getattr(handle, "last_write", object())
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(handle, numpy.ndarray):
        fortran = handle.flags.f_contiguous and not handle.flags.c_contiguous
        return _BLANK if handle_of(handle, allocation).untouched else digest_of(handle.T if fortran else handle)
    return object()


def _state_of_file(path: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        info = os.stat(path)
    except OSError:  # nobody has made it yet
        return _BLANK
    return info.st_ino, info.st_size, info.st_mtime_ns

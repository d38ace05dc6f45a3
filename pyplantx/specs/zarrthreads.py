"""How zarr is called, which works with threads of its own: with memory for them, and without any wait that may not end.

This file knows nothing of what zarr is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pyplantx.errors import WarehouseError
from pyplantx.specs.scarce import ask_for_memory, is_memory_limited, share_one_heap
from pyplantx.specs.threads import small_stacks

if TYPE_CHECKING:
    from pyplantx.specs.pools import SteadyPool

_T = TypeVar("_T")

_MEMORY = 8 << 20  #: bytes for zarr's threads and what they need besides chunks
#: Seconds that an answer of zarr's may take, however little it reads or writes.
PATIENCE = 120.0
_SLOWEST = 1 << 20  #: bytes per second that the slowest disk and the best packing manage together
_MOST_CALLERS = 32  #: threads that wait for zarr at a time


@contextmanager
def entering(chunk: int = 0) -> Iterator[None]:
    """A block in which zarr is called, which starts threads.

    Parameters
    ----------
    chunk : int
        Size of a chunk in bytes, of which there are several copies.

    Raises
    ------
    MemoryError
        If the process may have only so much memory, and there may not be enough.
    """
    if not is_memory_limited():
        yield
        return
    share_one_heap()
    ask_for_memory(_MEMORY + 4 * chunk, "zarr")
    with small_stacks():
        yield


def answer_of(work: Callable[[], _T], nbytes: int = 0) -> _T:
    """Call zarr, and wait for its threads no longer than makes sense.

    Zarr itself waits for ever for a thread that can't begin, or whose answer got lost for want of memory. So it is
    called in a thread that can be left behind.

    Parameters
    ----------
    work : callable
        Calls zarr.
    nbytes : int
        How much it reads or writes.

    Raises
    ------
    WarehouseError
        If there is no answer.
    """
    from pyplantx.specs.pools import NoAnswer, result_of

    patience = PATIENCE + nbytes / _SLOWEST
    try:
        answer: _T = result_of(_callers().submit(work), patience)
        return answer
    except (MemoryError, RuntimeError):  # perhaps it has half begun its threads: then it waits for them for ever
        _begin_anew()
        raise
    except NoAnswer:
        _begin_anew()
        raise WarehouseError(
            f"zarr has given no answer for {patience:,.0f} s: one of its threads must have failed in silence",
            hint="it may have been out of memory: give the process more, and run again",
        ) from None


def _begin_anew() -> None:
    """Have zarr start new threads at the next call: it knows of no end of the old ones but a fork."""
    sync = sys.modules.get("zarr.core.sync")
    if sync is not None:
        sync.reset_resources_after_fork()
    _callers.cache_clear()


@lru_cache(maxsize=1)
def _callers() -> SteadyPool:
    from pyplantx.specs.pools import SteadyPool

    return SteadyPool(_MOST_CALLERS, "pyplantx zarr")


os.register_at_fork(after_in_child=_callers.cache_clear)  # threads stay behind

"""Where the process may have only so much memory (RLIMIT_DATA, RLIMIT_AS): what must not run out of it asks first.

This file knows nothing of those who ask.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

_ARENA_MAX = -8  #: of mallopt(3)


def is_memory_limited() -> bool:
    """Whether the process may have only so much memory."""
    import resource  # a fifth of a millisecond, for those who store something

    kinds = (resource.RLIMIT_DATA, resource.RLIMIT_AS)
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)


@cache
def share_one_heap() -> None:
    """Have all threads allocate from one heap.

    glibc reserves 64 MiB of addresses for the heap of each of the first threads; RLIMIT_AS counts them.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def keep_freed_memory(nbytes: int) -> None:
    """Let the C library keep freed memory of about this size for what comes next.

    glibc gives back to the system what lies free above twice the largest block that was ever mapped and freed (see
    mallopt(3)), and whatever comes next is faulted in anew, page by page. Where memory is limited or short it is given
    back.
    """
    if not is_memory_limited():
        with suppress(MemoryError):
            bytes(nbytes)  # mapped and freed, never touched


class Reserve:
    """Memory that is put aside, untouched, until it is needed; none where there is no limit.

    Parameters
    ----------
    nbytes : int
        How much.
    purpose : str
        What it is for.

    Raises
    ------
    MemoryError
        If the limit of the process does not leave so much.
    """

    def __init__(self, nbytes: int, purpose: str) -> None:
        self._map: mmap.mmap | None = None
        if not is_memory_limited():
            return
        import mmap

        try:
            self._map = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(
                f"{purpose} may take {nbytes:,} bytes of memory, and the process's limit (ulimit -d, -v) leaves less"
            ) from error

    def release(self) -> None:
        """Give it back."""
        reserved, self._map = self._map, None
        if reserved is not None:
            reserved.close()


def ask_for_memory(nbytes: int, purpose: str) -> None:
    """Refuse to begin what could take more memory than there is; see `Reserve`."""
    Reserve(nbytes, purpose).release()

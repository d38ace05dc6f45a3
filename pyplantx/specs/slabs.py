"""Private memory for many small arrays that are kept at once: cut from slabs that lie in huge pages.

A fresh page costs more than what is copied into it: 25 of 4 KiB take 38 µs, the copy of the 100 kB in them 5; a
twentieth of a huge page of 2 MiB takes 6. But a slab stays until the last array in it goes. So who receives arrays one
by one, or drops them as they come, gets memory for each (which the C library then uses again).

This file may know: bytes, pages, who is still alive. It may not know: payloads, types.
"""

from __future__ import annotations

import mmap
import threading
import time
import weakref
from collections import deque
from typing import Any, Final

#: Bytes of a slab: a huge page of most machines.
SLAB: Final = 2 << 20

#: Bytes from which on a slab is of use.
LEAST: Final = 16 << 10

#: So many of the last arrays must be alive before the next one is cut from a slab.
MANY: Final = 8

#: Seconds of processor time that a huge page may take (usual are 0.1 ms), and of pause after one that took longer.
TOO_LONG: Final = 0.001
PAUSE: Final = 1.0

_ALIGN: Final = 64


class Slabs(threading.local):
    """Gives memory to arrays; each thread has slabs of its own, so there is no lock that a fork could leave locked."""

    def __init__(self) -> None:
        self._last: deque[weakref.ref[Any]] = deque(maxlen=MANY)
        self._slab: memoryview | None = None
        self._at = 0
        self._not_before = 0.0

    def copy(self, data: bytes) -> bytearray | memoryview:
        """A writable copy that nobody else has."""
        room = self._room(len(data)) if LEAST <= len(data) <= SLAB and self._are_kept() else None
        if room is None:
            return bytearray(data)
        room[:] = data
        return room

    def note(self, array: Any) -> None:
        """The array that was made of the last copy."""
        self._last.append(weakref.ref(array))

    def _are_kept(self) -> bool:
        return len(self._last) == MANY and all([last() is not None for last in self._last])

    def _room(self, size: int) -> memoryview | None:
        """Fresh memory, not larger than a slab; None if there is none."""
        if self._slab is None or self._at + size > SLAB:
            self._slab, self._at = self._new_slab() if time.monotonic() >= self._not_before else None, 0
        start, self._at = self._at, self._at + -(-size // _ALIGN) * _ALIGN
        return None if self._slab is None else self._slab[start : start + size]

    def _new_slab(self) -> memoryview | None:
        """If the system has no huge page at hand, and must first make room or ask its host: none for a while."""
        slab, begin = _map_slab(), time.thread_time()
        if slab is not None:
            slab[0] = 0  # the page is there now
        if slab is None or time.thread_time() - begin > TOO_LONG:
            self._not_before = time.monotonic() + PAUSE
        return slab


def _map_slab() -> memoryview | None:
    try:
        slab = mmap.mmap(-1, SLAB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        slab.madvise(mmap.MADV_HUGEPAGE)
    except (OSError, AttributeError):  # no room for so much; or a system without such pages
        return None
    return memoryview(slab)

"""How much memory the plant itself may hold, and who of it gets which share.

This file may know: numbers. It may not know: who asks, nor what is kept there. A budget never changes, so any thread
may ask it.
"""

from __future__ import annotations

import os

from pyplantx.basics.tuples import NamedTuple
from pyplantx.basics.units import Size, parse_bytes, show_bytes
from pyplantx.errors import BadRequest

#: Less would leave nothing to divide: one block of 4 MiB, read ahead and written behind, and the bookkeeping.
LEAST = 32 * 10**6


class Share(NamedTuple):
    """One purpose: its part of the whole (1 / `divisor`), and what is enough for it however large the whole is."""

    divisor: int
    enough: int


#: Purpose -> its share. What may be held at the same time adds up to the whole: three loops, the caches, the queue.
SHARES = {
    "blocks": Share(4, 256 * 10**6),  # one loop: read ahead, in the reactor's hands, waiting to be written
    "chunks": Share(8, 32 << 20),  # the chunk cache of one open HDF5 dataset
    "waiting": Share(8, 16 * 10**6),  # small payloads that wait for their group commit: one batch
}


class MemoryBudget:
    """Bounds what the plant itself holds: buffers, caches, what waits to be written. Not what reactors hold.

    Parameters
    ----------
    total : int, str or None
        Bytes, or a text such as ``"2GB"``; None: half of the machine's memory.

    Attributes
    ----------
    total : int
        Bytes.

    Raises
    ------
    BadRequest
        If it is no size, or less than 32 MB.
    """

    __slots__ = ("total",)

    def __init__(self, total: Size | None = None) -> None:
        parsed = parse_bytes(total, "the memory budget")
        if parsed is not None and parsed < LEAST:
            raise BadRequest(
                f"the memory budget can't be {show_bytes(parsed)}: blocks of 4 MiB need {show_bytes(LEAST)} at least",
                hint="Plant(dir, memory='500MB'); it bounds what the plant holds, not what reactors do",
            )
        self.total = max(LEAST, _physical() // 2) if parsed is None else parsed

    def __repr__(self) -> str:
        return f"MemoryBudget({show_bytes(self.total)})"

    def share(self, what: str) -> int:
        """Bytes that one holder may use for one purpose.

        Parameters
        ----------
        what : {"blocks", "chunks", "waiting"}
            One loop over blocks, the chunk cache of one open dataset, or the payloads that wait to be written.

        Returns
        -------
        int
            Of a large budget what is enough for the purpose (256 MB for a loop), else a fixed part of it.
        """
        share = SHARES[what]
        return min(share.enough, self.total // share.divisor)


def _physical() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

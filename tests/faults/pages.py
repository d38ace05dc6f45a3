"""What each page of an LMDB 0.9 data file is for: so that damage can be aimed at, and none goes to pages out of use."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PAGE = 4096
FIRST = 2  #: the first page behind those that say where everything is
_HEAD = 16  # bytes in front of a page's content: number, flags, where free space begins and ends
_BRANCH = 1
_ELSEWHERE, _TABLE = 1, 2  # flags of a node: its value lies in pages of its own, or is a table
_NOTHING = (1 << 64) - 1


def parts_in_use(data: bytes) -> Iterator[tuple[str, int, int]]:
    """What it is, begin and end of all that LMDB reads behind the first two pages, page by page."""
    _, free, main = max(_newest(data, number) for number in range(FIRST))
    yield from _tree(data, free, "free list")
    yield from _tree(data, main, "records")


def _newest(data: bytes, number: int) -> tuple[int, int, int]:
    """Transaction, root of the free list and root of everything else, as one of the first two pages says."""
    begin = number * PAGE + _HEAD + 24
    free, main = (struct.unpack_from("<Q", data, begin + 48 * each + 40)[0] for each in range(2))
    return struct.unpack_from("<Q", data, begin + 2 * 48 + 8)[0], free, main


def _tree(data: bytes, number: int, what: str) -> Iterator[tuple[str, int, int]]:
    if number == _NOTHING:
        return
    begin = number * PAGE
    flags, lower, upper = struct.unpack_from("<HHH", data, begin + 10)
    kind = f"{what}, {'branch' if flags & _BRANCH else 'leaf'}"
    yield kind, begin, begin + lower
    yield kind, begin + upper, begin + PAGE
    for (place,) in struct.iter_unpack("<H", data[begin + _HEAD : begin + lower]):
        low, high, node, key = struct.unpack_from("<HHHH", data, begin + place)
        value = begin + place + 8 + key
        if flags & _BRANCH:
            yield from _tree(data, low | high << 16 | node << 32, what)
        elif node & _ELSEWHERE:
            first = struct.unpack_from("<Q", data, value)[0]
            yield f"{what}, value", first * PAGE, first * PAGE + _HEAD + (low | high << 16)
        elif node & _TABLE:
            yield from _tree(data, struct.unpack_from("<Q", data, value + 40)[0], what)

"""What is known of the logical blocks of an array that is being written to, in any order and by any thread.

This file may know: positions in bytes, digests. It may not know: files, arrays.

A block is *untouched* (zeros: nobody wrote there), *known* (its digest was computed from the buffer that was written),
*begun* (written from its start on, hashed as far as it goes), or *to be read* (written in pieces). While somebody
writes to a block it counts as to be read, so whatever interrupts a write leaves nothing that is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest
from pyplantx.fingerprint.value import Hasher, hash_bytes

_TO_READ: Final = object()


class _Begun:
    """A block that is written from its start on.

    Attributes
    ----------
    filled : int
        Bytes from the start that are written and hashed.
    fresh : bool
        Whether what follows them is still zeros.
    """

    __slots__ = ("hasher", "filled", "fresh")

    def __init__(self, fresh: bool) -> None:
        self.hasher = Hasher()
        self.filled = 0
        self.fresh = fresh


class BlockMap:
    """The states of all blocks of one array; thread-safe.

    Parameters
    ----------
    nbytes : int
        Bytes of the array.
    block : int
        Bytes per logical block; the last one may be shorter.

    Attributes
    ----------
    untouched : bool
        Whether nothing was ever written.
    """

    def __init__(self, nbytes: int, block: int) -> None:
        self.nbytes, self.block = nbytes, block
        count = -(-nbytes // block)
        self.untouched = True
        self._states: list[Any] = [None] * count  # None: untouched; a Digest; a _Begun; _TO_READ; who writes to it
        self._writers = [0] * count
        self._alone: list[range] = []  # blocks to which one writer at a time may write
        self._frozen = False
        self._lock = threading.RLock()  # by itself, not through the condition: see `interrupts.py`
        self._change = threading.Condition(self._lock)

    def span(self, index: int) -> tuple[int, int]:
        """Where a block begins and ends, in bytes."""
        start = index * self.block
        return start, min(start + self.block, self.nbytes)

    def indices(self, start: int, stop: int) -> range:
        """The blocks that some bytes touch (at least one)."""
        return range(start // self.block, (stop - 1) // self.block + 1)

    def touch_all(self) -> None:
        """Every block was perhaps written to: read them all."""
        with self._lock:
            self.untouched = False
            self._states = [_TO_READ] * len(self._states)

    def freeze(self) -> None:
        """Take no more writes.

        Raises
        ------
        BadRequest
            If somebody is writing at this moment.
        """
        with self._lock:
            if any(self._writers):
                raise BadRequest(
                    "the array is sent while a thread is still writing to it", hint="join the thread before pipe.send"
                )
            self._frozen = True

    @contextmanager
    def writing(self, start: int, stop: int) -> Iterator[Write]:
        """A write of the bytes ``start:stop``; what the `Write` is told of digests counts if the body ends well."""
        write = Write(self, start, stop)
        self._begin(write, alone=False)
        try:
            yield write
            write.done = True
        finally:
            self._end(write)

    @contextmanager
    def altering(self, start: int, stop: int) -> Iterator[None]:
        """Reading, altering and writing back the bytes ``start:stop``, with nobody else writing to their blocks."""
        write = Write(self, start, stop)
        self._begin(write, alone=True)
        try:
            yield
        finally:
            with self._lock:
                self._alone.remove(write.blocks)
            self._end(write)

    def _begin(self, write: Write, alone: bool) -> None:
        with self._lock:
            while self._is_taken(write.blocks, alone):
                self._change.wait()
            if self._frozen:
                raise BadRequest("the array has been sent and can't be written to", hint="write before pipe.send")
            self.untouched = False
            for index in write.blocks:
                self._writers[index] += 1
                write.before.append(self._states[index])
                self._states[index] = write if self._writers[index] == 1 else _TO_READ
            if alone:
                self._alone.append(write.blocks)

    def _is_taken(self, blocks: range, alone: bool) -> bool:
        if any(max(other.start, blocks.start) < min(other.stop, blocks.stop) for other in self._alone):
            return True
        return alone and any(self._writers[blocks.start : blocks.stop])

    def _end(self, write: Write) -> None:
        with self._lock:
            for index, after in zip(write.blocks, write.after):
                self._writers[index] -= 1
                if self._states[index] is write:  # else somebody else wrote there meanwhile
                    self._states[index] = after if write.done else _TO_READ
            self._change.notify_all()

    def to_read(self) -> list[int]:
        """The blocks whose digests are not known without reading them."""
        return [index for index, state in enumerate(self._states) if self._known(index, state) is None]

    def know(self, index: int, found: Digest) -> None:
        """Note the digest of a block that was read."""
        self._states[index] = found

    def digests(self) -> list[Digest]:
        """The digests of all blocks; none may be left to read."""
        found = (self._known(index, state) for index, state in enumerate(self._states))
        return [digest for digest in found if digest is not None]

    def _known(self, index: int, state: Any) -> Digest | None:
        start, stop = self.span(index)
        if state is None:
            return _digest_of_zeros(stop - start)
        if type(state) is _Begun and state.fresh:
            state.hasher.update(bytes(stop - start - state.filled))
            state.filled = stop - start
            return state.hasher.hexdigest()
        return state if isinstance(state, str) else None


class Write:
    """One write while it lasts: which blocks it touches, what they were before and will be after."""

    __slots__ = ("_map", "start", "stop", "blocks", "before", "after", "done")

    def __init__(self, of: BlockMap, start: int, stop: int) -> None:
        self._map = of
        self.start, self.stop = start, stop
        self.blocks = of.indices(start, stop)
        self.before: list[Any] = []
        self.after: list[Any] = [_TO_READ] * len(self.blocks)
        self.done = False

    def pieces(self) -> list[tuple[int, int]]:
        """The bytes to write, cut where blocks begin: (start, stop) each, relative to the first byte."""
        spans = (self._map.span(index) for index in self.blocks)
        return [(max(begin, self.start) - self.start, min(end, self.stop) - self.start) for begin, end in spans]

    def hash(self, place: int, data: memoryview) -> None:
        """Hash what was written to the block number `place` of this write, all of it."""
        index = self.blocks[place]
        begin, end = self._map.span(index)
        low = max(begin, self.start) - begin
        if low == 0 and len(data) == end - begin:
            self.after[place] = hash_bytes(data)
            return
        begun = self._begun(self.before[place], low)
        if begun is None:
            return
        begun.hasher.update(data)
        begun.filled = low + len(data)
        self.after[place] = begun if begun.filled < end - begin else begun.hasher.hexdigest()

    def _begun(self, before: Any, low: int) -> _Begun | None:
        """The block's hash so far, if this write goes on where the last one ended, or begins the block."""
        if type(before) is _Begun and before.filled == low:
            return before
        return _Begun(fresh=before is None) if low == 0 else None


@lru_cache(maxsize=16)
def _digest_of_zeros(nbytes: int) -> Digest:
    return hash_bytes(bytes(nbytes))

"""Whether what a run has allocated was altered since some point of it.

What a killed run wrote is lost with it, unless a ledger of blocks keeps it; and that is taken up only by who runs the
loop again. So a checkpoint that was kept after such a write would skip, in the next run, what made the write.

This file may know: handles of arrays, files. It may not know: loops, ledgers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pyplantx.basics.loaded import is_of
from pyplantx.basics.logs import log
from pyplantx.blocks.geometry import blocks_of, cut
from pyplantx.blocks.handles import Handle, digest_of, handle_of, in_c_order
from pyplantx.core.trace import Digest
from pyplantx.fingerprint.value import BlockHasher, block_size, hash_bytes, hash_text
from pyplantx.specs.selections import as_tuple, slabs
from pyplantx.warehouse.files import read_ordinary

#: What is as it was allocated.
_BLANK = None

#: Bytes of datasets and files that are read to know what is in them.
_MOST_BYTES: Final[int] = 256 << 20


class Alterations:
    """What was altered since this was made.

    Datasets tell. An array on a memory map can't: unless it is blank it is read.

    Parameters
    ----------
    allocations : sequence of Allocated
        Those that are not sent yet; no loop is writing to them now.

    Attributes
    ----------
    before : dict
        Allocation -> how it was then.
    """

    def __init__(self, allocations: Sequence[Any]) -> None:
        self.before = {allocation: _state(allocation) for allocation in allocations}
        self._found: str | None = None

    def first(self, allocations: Sequence[Any]) -> str | None:
        """The name of one that was altered; None if there is none.

        Parameters
        ----------
        allocations : sequence of Allocated
            Those that are not sent yet, with those that have come since.
        """
        if self._found is None:
            altered = (each for each in allocations if _state(each) != self.before.get(each, _BLANK))
            self._found = next((each.name for each in altered), None)
        return self._found


class Contents:
    """What is in everything that was allocated: a kept value may have been made from it.

    Parameters
    ----------
    known : callable
        Dataset -> digest of its content if that is known without reading, else None.
    """

    def __init__(self, known: Callable[[Any], Digest | None]) -> None:
        self._known = known
        self._read: dict[Any, tuple[Any, Digest]] = {}  # allocation -> its mark, and its digest then

    def of(self, states: Mapping[Any, Any]) -> Digest | None:
        """A digest; "" if nothing was written to, None if there is too much to be read, or it can't be.

        Parameters
        ----------
        states : mapping
            See `Alterations.before`.
        """
        found, left = [], _MOST_BYTES
        for each, state in states.items():
            digest, read = ("", 0) if state is _BLANK else self._of(each, state, left)
            if digest is None:
                return None
            left -= read
            found.append(f"{len(each.name)}:{each.name} {digest}")
        return hash_text("\n".join(found)) if any(state is not _BLANK for state in states.values()) else ""

    def _of(self, allocation: Any, state: Any, most: int) -> tuple[Digest | None, int]:
        """The digest of one, and how many bytes were read for it."""
        handle = allocation.handle
        if isinstance(handle, (str, os.PathLike)):
            return _content_of_file(handle, most)
        if not hasattr(handle, "read_block"):
            return (state if isinstance(state, str) else None), 0
        mark, digest = self._read.get(allocation, (None, None))
        digest = digest if mark is state else self._known(handle) or _told_content(handle)
        if digest is not None:
            return digest, 0
        size = math.prod(handle.shape) * handle.dtype.itemsize
        if size > most:
            return None, 0
        self._read[allocation] = state, _content_of(handle_of(handle, allocation))
        return self._read[allocation][1], size


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
        """Whether one of them was written to since this was made; what nobody has any more leaves nothing behind."""
        return any(each.handle is not None and _mark(each) != mark for each, mark in self._before)


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
    if is_of(handle, "numpy", "ndarray"):
        fortran = handle.flags.f_contiguous and not handle.flags.c_contiguous
        return _BLANK if handle_of(handle, allocation).untouched else digest_of(handle.T if fortran else handle)
    return object()


def _content_of(dataset: Handle) -> Digest:
    """The digest of a dataset's elements, which are read block by block; of a growing one that of `_told_content`."""
    if getattr(dataset.array, "axis_of_growth", None) is not None:
        return _content_of_growing(dataset)
    grid = cut([dataset.extent], 4 * _MOST_BYTES)
    return hash_text("\n".join([str(grid), *[dataset.digest(block) for block in blocks_of(grid)]]))


def _told_content(dataset: Any) -> Digest | None:
    """The digest of what is in a growing dataset, if it knows that without being read."""
    is_growing = getattr(dataset, "axis_of_growth", None) is not None
    digests = dataset.digests_so_far() if is_growing else None
    return None if digests is None else hash_text("\n".join([str(dataset.shape), *digests]))


def _content_of_growing(dataset: Handle) -> Digest:
    hasher = BlockHasher(block_size(dataset.dtype.itemsize))
    for rows in slabs(dataset.shape, dataset.dtype.itemsize) if math.prod(dataset.shape) else ():
        hasher.update(in_c_order(dataset.read(as_tuple(rows))))
    return hash_text("\n".join([str(dataset.shape), *hasher.digests()]))


def _content_of_file(path: str | os.PathLike[str], most: int) -> tuple[Digest | None, int]:
    try:
        if os.stat(path).st_size > most:
            return None, 0
        data = read_ordinary(os.fspath(path))
    except OSError as error:  # a folder, say
        log().debug("%s is not digested: %s", path, error)
        return None, 0
    return hash_bytes(data), len(data)


def _state_of_file(path: str | os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        info = os.stat(path)
    except OSError:  # nobody has made it yet
        return _BLANK
    return info.st_ino, info.st_size, info.st_mtime_ns

"""Where an array lies in a file, so that another process can map it instead of being sent it.

This file may know: memory maps, the system's tables of them. It may not know: loops, stores, specs.

A received array is a private map of a file. As long as nobody has written to it, the file says the same; whether
somebody has, the kernel knows: pages that were written to are no longer the file's. Where it doesn't tell (on other
systems than Linux) arrays are sent.
"""

from __future__ import annotations

import functools
import mmap
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyplantx.basics.tuples import NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes from which on an array is worth looking for.
_WORTHWHILE = 1 << 16

#: A line that begins a map: first and last address, rights, offset, device, inode, path.
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)\n")

#: What a page belongs to that a process has written to, in a private map.
_OWN = ("Anonymous:", "Swap:")


class Place(NamedTuple):
    """Where an array lies.

    Attributes
    ----------
    machine : str
        Which boot of which machine it is.
    path : str
        Of the file.
    file : (int, int)
        Its device and inode: under the same path another one may lie.
    offset : int
        Of the first element, in bytes.
    shape, dtype, strides
        As NumPy has them.
    """

    machine: str
    path: str
    file: tuple[int, int]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]

    def open(self, writable: bool = False) -> Array:
        """The array on a map of the file.

        Parameters
        ----------
        writable : bool
            Whether it can be written to, privately; else nothing can write to it.

        Raises
        ------
        OSError
            If the file is not here, or is another one.
        """
        import numpy as np

        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) != self.file or _machine() != self.machine:
                raise FileNotFoundError(f"{self.path!r} is another file here")
            whole = mmap.mmap(fd, 0, access=mmap.ACCESS_COPY if writable else mmap.ACCESS_READ)
        finally:
            os.close(fd)
        return np.ndarray(self.shape, self.dtype, whole, self.offset, self.strides)


def place_of(array: Array) -> Place | None:
    """Where an array lies in a file; None if it lies in memory, has been written to, or that can't be told."""
    if array.nbytes < _WORTHWHILE or array.dtype.hasobject or min(array.strides) < 0:
        return None
    start = array.__array_interface__["data"][0]
    stop = start + sum((length - 1) * step for length, step in zip(array.shape, array.strides)) + array.itemsize
    try:
        found = next((found for found in _maps() if found.start <= start and stop <= found.stop), None)
        if found is None or (found.is_private and _has_own_pages(found)):
            return None
        info = os.stat(found.path)  # it may have been removed or replaced
    except OSError:
        return None
    if info.st_ino != found.inode:
        return None
    offset = found.offset + start - found.start
    file = (info.st_dev, info.st_ino)
    return Place(_machine(), found.path, file, offset, array.shape, array.dtype, array.strides)


class _Map(NamedTuple):
    start: int
    stop: int
    is_private: bool
    offset: int
    inode: int
    path: str


def _maps() -> Iterator[_Map]:
    """The files that this process has mapped."""
    with open("/proc/self/maps", errors="surrogateescape") as table:
        for line in table:
            found = _parsed(line)
            if found is not None:
                yield found


def _parsed(line: str) -> _Map | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    start, stop, rights, offset, _, _, inode, path = match.groups()
    return _Map(int(start, 16), int(stop, 16), rights[3] == "p", int(offset, 16), int(inode), path)


def _has_own_pages(wanted: _Map) -> bool:
    """Whether a private map holds anything that is not in its file."""
    with open("/proc/self/smaps", errors="surrogateescape") as table:
        for line in table:
            if _parsed(line) == wanted:
                break
        else:
            return True
        for line in table:
            if _LINE.fullmatch(line) or line.startswith("VmFlags:"):
                return False
            if line.startswith(_OWN) and int(line.split()[1]):
                return True
    return False


@functools.cache
def _machine() -> str:
    """Which machine this is, and since when it runs; "" if that can't be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""

"""Buffers in pieces and files as private memory; texts for one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from pyplantx.errors import DamagedObject

if TYPE_CHECKING:
    import mmap

#: Arrays of more bytes, header included, lie in files, whose checksums are those of the array's blocks.
LAID_OUT = 1 << 20

#: MAP_NORESERVE: without it the kernel refuses private maps of files that are larger than memory, though
#: only the pages that are written to cost any. The mmap module has no name for it.
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0

_PAGE = os.sysconf("SC_PAGE_SIZE")
_AT_ONCE = 15 << 20  #: bytes that are let go of at once: four blocks, without the pages at their borders


def slices(buffer: memoryview) -> Iterator[memoryview]:
    """A contiguous buffer in pieces that stay in the processor's cache while they are hashed and written."""
    from pyplantx.fingerprint.value import BLOCK

    return (buffer[start : start + BLOCK] for start in range(0, len(buffer), BLOCK))


def map_file(path: str, writable: bool) -> Any:
    """A private memory map of a file; see `map_descriptor`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return map_descriptor(fd, writable, os.path.basename(path))
    finally:
        os.close(fd)


def map_descriptor(fd: int, writable: bool, part: str) -> Any:
    """A private memory map of a whole file: copy-on-write if `writable`, else one that nothing can write to.

    A file may be larger than memory. Where the process may not have so much private memory (RLIMIT_DATA), the map
    can only be read.

    Parameters
    ----------
    fd : int
        The file's descriptor; may be closed afterwards.
    writable : bool
        Whether the map may be written to.
    part : str
        Name of the part, for messages.

    Raises
    ------
    DamagedObject
        If the file is empty.
    """
    import mmap

    try:
        return (writable and copy_on_write(fd)) or mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DamagedObject(f"a part of the payload is empty: {part}") from error


def copy_on_write(fd: int) -> Any:
    """A private writable map of a whole file; None if the process may not have so much private memory."""
    import mmap

    try:
        return mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE | NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return None


class FilePages:
    """The bytes of a file where they lie in the page cache: who only hashes them is spared the copy of a read.

    An I/O error met by touching a map is a signal, which kills. So the system is asked for the pages first, and says
    whether they are there.

    Parameters
    ----------
    whole : mmap
        A shared, read-only map of the whole file.
    address : int
        Where it begins in memory.
    at_once : int
        Bytes that are let go of at once.
    """

    __slots__ = ("_address", "_at_once", "_seen", "_view")

    def __init__(self, whole: mmap.mmap, address: int, at_once: int) -> None:
        self._view, self._address, self._at_once = memoryview(whole), address, at_once
        self._seen: list[tuple[int, int]] = []  # pages to be let go of

    def bytes_at(self, start: int, stop: int) -> memoryview | None:
        """These bytes; None if they can't be brought in: whoever reads them is told why."""
        first = start & -_PAGE
        brought = madvise()(self._address + first, stop - first, POPULATE_READ) == 0
        return self._view[start:stop] if brought else None

    def let_go(self, start: int, stop: int) -> None:
        """These bytes were looked at: they stay in the page cache, and no longer count as memory of this process.

        That happens when there are enough of them. Each time every processor on which a thread of this process runs is
        stopped: 35 to 130 µs, where hashing a block takes 120 to 300.
        """
        first, end = -(-start // _PAGE) * _PAGE, stop & -_PAGE  # somebody may be looking at the rest of a border's page
        if first < end:
            self._seen.append((first, end))
        if sum([end - first for first, end in self._seen]) >= self._at_once:
            seen, self._seen = self._seen, []
            for first, end in _joined(sorted(seen)):
                madvise()(self._address + first, end - first, DONT_NEED)


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges in order, neighbours in one. The page between two that were looked at is nobody's any more."""
    begin, end = ranges[0]
    for first, last in ranges[1:]:
        if first > end + _PAGE:
            yield begin, end
            begin = first
        end = last
    yield begin, end


def file_pages(fd: int, size: int, at_once: int = _AT_ONCE) -> FilePages | None:
    """The pages of a file; None where that is not possible, or NumPy, which knows addresses, is not loaded.

    Parameters
    ----------
    fd : int
        Descriptor of the file; may be closed afterwards.
    size : int
        Bytes of the file, at least one.
    at_once : int
        Bytes that are let go of at once: so many more may count as this process's.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or sys.platform != "linux":
        return None
    import mmap

    try:
        whole = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        return FilePages(whole, numpy.frombuffer(whole, "u1").__array_interface__["data"][0], at_once)
    except (OSError, ValueError, AttributeError):  # no address space for it; or the file is shorter; or half a NumPy
        return None


#: What `madvise` is asked for (Linux); others refuse some.
WILL_NEED, DONT_NEED, COLD, POPULATE_READ, POPULATE_WRITE = 3, 4, 20, 22, 23


@cache
def madvise() -> Any:
    """The system call (address, length, advice) -> 0 if it went well."""
    import ctypes

    function = ctypes.CDLL(None).madvise  # gives up the interpreter lock, as `mmap.madvise` does not
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def one_line(text: str, most: int = 80) -> str:
    """A text clipped and escaped for a one-line preview."""
    shown = text if len(text) <= most else text[: most - 3] + "..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]

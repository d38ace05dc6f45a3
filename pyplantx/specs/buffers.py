"""Buffers in pieces and files as private memory; texts for one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

from pyplantx.errors import DamagedObject

#: Arrays of more bytes, header included, lie in files, whose checksums are those of the array's blocks.
LAID_OUT = 1 << 20

#: MAP_NORESERVE: without it the kernel refuses private maps of files that are larger than memory, though
#: only the pages that are written to cost any. The mmap module has no name for it.
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0


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


def one_line(text: str, most: int = 80) -> str:
    """A text clipped and escaped for a one-line preview."""
    shown = text if len(text) <= most else text[: most - 3] + "..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]

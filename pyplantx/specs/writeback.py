"""Writing back early: of a file that will be synced, the first blocks go to the disk while the next ones are written.

Left alone, the kernel begins when the sync asks for it, and the disk has had nothing to do until then.

This file may know: folders whose files will be synced, descriptors. It may not know: sessions, when they are synced.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any, Final

#: Fewer bytes are not worth a system call.
LEAST: Final = 1 << 20

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and wait for nothing

_folders: set[str] = set()


def begin_in(folder: str) -> None:
    """Files below this folder will be synced."""
    _folders.add(os.path.join(folder, ""))


def end_in(folder: str) -> None:
    """They no longer will."""
    _folders.discard(os.path.join(folder, ""))


def is_wanted(path: str) -> bool:
    """Whether this file will be synced."""
    return any(map(path.startswith, _folders))


def begin(fd: int, start: int, size: int) -> None:
    """Have these bytes, which were just written, written back from now on.

    It waits for nothing, so it tells of no errors: the sync does.
    """
    call = _sync_file_range() if size >= LEAST else None
    if call is not None:
        call(fd, start, size, _WRITE)


@cache
def _sync_file_range() -> Any:
    """The system call; None where there is none."""
    if sys.platform != "linux":
        return None
    import ctypes

    try:
        function = ctypes.CDLL(None).sync_file_range
    except AttributeError:  # another C library
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function

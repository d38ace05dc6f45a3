"""What file systems differ in: whether they tell their size, keep permissions, sync folders, give files second names.

This file may know: system calls and what they say where a file system lacks something. It may not know: the store.

A file system that lacks one of these is poorer, not broken: FUSE programs without ``statfs``, shares of other systems,
sticks. What a caller can't do without is asked for directly, and its error is told.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

#: What is said of room where the file system doesn't tell.
UNKNOWN = sys.maxsize

#: What a file system says of something that it can't do for anybody.
_LACKING = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def free_bytes(folder: str) -> int:
    """Bytes that may still be written where a folder lies; `UNKNOWN` where the file system tells no size at all."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize if room.f_blocks else UNKNOWN


def all_bytes(folder: str) -> int:
    """Bytes of the whole file system; `UNKNOWN` where it doesn't tell."""
    room = os.statvfs(folder)
    return room.f_blocks * room.f_frsize or UNKNOWN


def taken_bytes(folder: str) -> int:
    """Bytes that all its files take; 0 where it doesn't tell."""
    room = os.statvfs(folder)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def allow(target: str | int, mode: int) -> None:
    """Set the permissions of a file of ours, where the file system keeps any.

    Who wants to be sure of them looks at them: a file system that keeps none shows what it was mounted with.
    """
    try:
        os.chmod(target, mode)
    except OSError as error:
        if error.errno not in _LACKING:
            raise


def umask_advice() -> str:
    """What to do if this process makes files that it may not use itself; "" if it does not, or that can't be told.

    The umask can be read without setting it, which other threads would notice, on Linux only.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            mask = next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0)
    except (OSError, ValueError, IndexError):
        return ""
    if not mask & 0o700:
        return ""
    return (
        f"the umask {mask:04o} takes from you the rights to what this program makes; set another one in the shell that "
        "starts it (umask 0077), and remove what was made with this one"
    )


def link(source: str, target: str) -> bool:
    """Give a file a second name; False where the file system knows no such thing.

    Raises
    ------
    FileExistsError
        If there is something of that name.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_LACKING, errno.EMLINK):
            raise
        return False
    return True


def sync(fd: int) -> None:
    """Make an open file or folder durable; of a folder EINVAL says that it can't be synced, as on some shares."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise

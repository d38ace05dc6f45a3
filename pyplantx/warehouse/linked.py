"""Files that are written in place must be one store's alone, and their locks those of all who have it open.

This file may know: files and folders, their second names. It may not know: records, lmdb, who holds a lock.

A copy by hard links (``cp -al``, some backups; programs that join equal files do the same to an index and its backup)
has the same data files as its original: who writes to one of them writes to both, without LMDB's knowledge.
"""

from __future__ import annotations

import os
import stat
import time

from pyplantx.basics.disk import allow
from pyplantx.warehouse.files import RESUME, Layout, remove_file, remove_tree, sync_path, unlink

#: Seconds in which somebody makes the file that he is about to make, and between two looks for it.
_SOON, _PAUSE = 2.0, 0.02


def has_other_names(path: str) -> bool:
    """Whether a file has a second name."""
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode) and info.st_nlink > 1


def part_from_copies(layout: Layout) -> bool:
    """Give the store files of its own where it has them in common with a copy; whether there were any.

    Call only while no session is open, of the copy neither: it has the same lock files. These are new ones then.
    """
    data = [os.path.join(folder, "data.mdb") for folder in (layout.meta, layout.small)]
    locks = [os.path.join(layout.locks, name) for name in os.listdir(layout.locks)]
    shared = list(filter(has_other_names, [*data, *locks]))
    for path in shared:
        if path in data:
            _copy_in_place(path)
        else:
            unlink(path)
    if shared:  # files in there are written to, too; and data files there have a second name in any case
        remove_tree(os.path.join(layout.staging, RESUME))
    return bool(shared)


def _copy_in_place(path: str) -> None:
    import shutil  # some milliseconds, for those who have such copies only

    beside = f"{path}.new"
    remove_file(beside)
    shutil.copyfile(path, beside)
    allow(beside, 0o600)
    sync_path(beside)
    os.rename(beside, path)
    sync_path(os.path.dirname(path))


def lost_lock(layout: Layout, timeout: float) -> str | None:
    """The lock file of LMDB that is not there, though somebody has the store open.

    Whoever opens it for reading makes it without our locks, so it is waited for.
    """
    deadline = time.monotonic() + min(timeout, _SOON)
    for folder in (layout.meta, layout.small):
        path = os.path.join(folder, "lock.mdb")
        while not os.path.exists(path):
            if time.monotonic() >= deadline:
                return path
            time.sleep(_PAUSE)
    return None

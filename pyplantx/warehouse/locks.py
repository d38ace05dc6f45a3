"""Locks between processes: files that the kernel unlocks when their holder dies.

``flock`` and not ``lockf``: the latter's locks vanish when *any* descriptor of the file is closed in the process.
A forked child must close what it inherits (`FileLock.forget`), or the lock outlives its holder.

A lock file can be removed under its holder, by somebody who takes it for a leftover. So the locks that keep two
processes apart follow their path (`lasting`), and whoever has a store open locks the folder of the index, too
(`FolderLock`): that has no other name, and goes with the index only. Not the folder of the store, which is the users':
``flock STORE python script.py`` keeps two of their own programs apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from io import FileIO

from pyplantx.basics.disk import umask_advice
from pyplantx.errors import StoreReadOnly, WarehouseError

#: Seconds between two tries of a lock that is taken: short at first, longer later.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


def host_name() -> str:
    return os.uname().nodename


class FileLock:
    """One lock file. Not for several threads at once.

    Parameters
    ----------
    path : str
        The file; made if it is missing (mode 0600), never removed.
    readable_only : bool
        Open it without the right to write; a shared lock needs no more.
    lasting : bool
        None of us ever removes the file. Somebody else may: then the lock of the file that is at the path now counts.
    """

    def __init__(self, path: str, *, readable_only: bool = False, lasting: bool = False) -> None:
        self.path = path
        self._lasting = lasting
        self._file: FileIO | _OpenFolder | None = None  # a file object: closing it twice does no harm
        self._flags = os.O_RDONLY if readable_only else os.O_RDWR | os.O_CREAT

    @property
    def is_open(self) -> bool:
        return self._file is not None and not self._file.closed

    def acquire(self, timeout: float = 0.0, *, shared: bool = False) -> bool:
        """Try until `timeout` seconds have passed; True if the lock is ours.

        An exclusive lock that we hold may become a shared one (the kernel lets others in between).
        """
        wanted = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        deadline = time.monotonic() + timeout
        while self._try_until(deadline, wanted):
            if not self._lasting or self.is_current() or not self._follow():
                return True
        return False

    def _try_until(self, deadline: float, wanted: int) -> bool:
        fd, pause = self._open(), _FIRST_PAUSE
        while not _try_flock(fd, wanted):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return True

    def _follow(self) -> bool:
        """Open what is at the path now, or make it; False if that can't be done: then what we hold has to do."""
        folder = os.path.dirname(self.path)
        try:
            if self._flags != os.O_RDONLY and not os.path.lexists(folder):
                os.mkdir(folder, 0o700)
            fd = self._open_ordinary()
        except OSError:
            return False
        self.close()
        self._file = FileIO(fd, "r" if self._flags == os.O_RDONLY else "r+")
        return True

    def sign(self, text: str = "") -> None:
        """Write into the file who holds it, for those who wait."""
        note = json.dumps({"pid": os.getpid(), "host": host_name(), "since": time.time(), "note": text}).encode()
        try:
            os.pwrite(self._open(), note.ljust(256), 0)
        except OSError:
            return  # a full disk, say: the lock holds all the same, only others' messages are poorer

    def holder(self) -> tuple[str, str]:
        """Who signed last, in words, and the note that they left."""
        try:
            with open(self.path, "rb") as file:
                said = json.loads(file.read(4096))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said["since"]))
            return f"process {said['pid']} on {said['host']} since {since}", str(said["note"])
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return "an unknown process", ""  # it has not signed yet: only the message is poorer

    def processes(self) -> set[int]:
        """Ids of the processes that hold the file locked, ours too; none where the system does not tell."""
        try:
            info = os.stat(self.path)
            with open("/proc/locks", encoding="ascii") as file:
                lines = [line.split() for line in file]
        except OSError:
            return set()
        where = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
        return {int(line[4]) for line in lines if len(line) > 5 and line[1] == "FLOCK" and line[5] == where}

    def release(self) -> None:
        """Unlock; the file stays open for the next time."""
        if self.is_open:
            fcntl.flock(self._open(), fcntl.LOCK_UN)

    def close(self) -> None:
        """Unlock and close. The file is forgotten last: after an interrupt it can be closed once more."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # the kernel has closed it, and dropped the lock, all the same
                self._file.close()
            self._file = None

    def forget(self) -> None:
        """In a forked child: close the copy. The lock itself belongs to the parent."""
        self.close()

    def is_current(self) -> bool:
        """Whether the path still leads to the file that we hold."""
        try:
            here, there = os.fstat(self._open()), os.stat(self.path)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def _open(self) -> int:
        if self._file is None or self._file.closed:
            try:
                fd = self._open_ordinary()
            except OSError as error:
                raise _cannot_lock(self.path, error) from error
            self._file = FileIO(fd, "r" if self._flags == os.O_RDONLY else "r+")
        return self._file.fileno()

    def _open_ordinary(self) -> int:
        """Open the file; a folder, link or pipe that was put in its place is moved aside, if we may write."""
        flags = self._flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            if self._flags != os.O_RDONLY and not stat.S_ISREG(os.lstat(self.path).st_mode):
                os.rename(self.path, f"{self.path}.not-a-file-{os.urandom(4).hex()}")
        except FileNotFoundError:
            pass  # the next line makes it
        return os.open(self.path, flags, 0o600)


class _OpenFolder:
    """The descriptor of a folder, with what a file object has (which Python makes of no folder)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class FolderLock(FileLock):
    """A lock on a folder itself.

    Where the file system has no such locks, everybody gets it: the lock files have to do then.

    Parameters
    ----------
    path : str
        The folder; it must be there.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, readable_only=True, lasting=True)

    def acquire(self, timeout: float = 0.0, *, shared: bool = False) -> bool:
        """See `FileLock.acquire`."""
        try:
            return super().acquire(timeout, shared=shared)
        except OSError:
            return True

    def close(self) -> None:
        """Unlock and close. Unlocked first: Ctrl-C may come before the descriptor is closed, which then stays."""
        with contextlib.suppress(OSError):
            self.release()
        self.forget()

    def forget(self) -> None:
        """In a forked child: close it. The lock belongs to the parent, so it is not unlocked."""
        super().close()

    def _open(self) -> int:
        if self._file is None or self._file.closed:
            try:
                self._file = self._open_folder()
            except OSError as error:
                raise _cannot_lock(self.path, error) from error
        return self._file.fileno()

    def _follow(self) -> bool:
        try:
            found = self._open_folder()
        except OSError:
            return False
        self.close()
        self._file = found
        return True

    def _open_folder(self) -> _OpenFolder:
        return _OpenFolder(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _try_flock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        return False
    return True


def _cannot_lock(path: str, error: OSError) -> WarehouseError:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(
            f"the store can't be written: no lock file {path!r} can be made ({error.strerror})",
            hint=umask_advice() or "ask for the right to write there, or copy the directory to where you may write",
        )
    return WarehouseError(f"the lock file {path!r} can't be opened: {error.strerror}")

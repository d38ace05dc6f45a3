"""Folders and files: every path inside a warehouse is made here, and whole files are written and read safely.

This file may know: paths, bytes, what the system's errors mean. It may not know: records, specs, lmdb.

Nothing that came from a name or a record becomes a path unless `Layout.object_folder` has accepted it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyplantx.basics import disk
from pyplantx.core.trace import Digest
from pyplantx.errors import PayloadMissing, StoreReadOnly, WarehouseError, WarehouseFull
from pyplantx.warehouse.verify import close_read

#: In staging, beside the folders of sessions: work that outlives its session (`warehouse.resume`).
RESUME = "resume"

_HEX = frozenset("0123456789abcdef")
#: Bytes that a file of ours has at most which is read in one piece.
_LONGEST_SMALL = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM}


class Layout:
    """The paths of one warehouse.

    Parameters
    ----------
    root : str
        The real path of its directory.
    index : str, optional
        That of the directory of the index, if it lies apart.
    """

    def __init__(self, root: str, index: str | None = None) -> None:
        self.root = root
        self.index = index = index or root
        self.format = os.path.join(root, "format.json")
        self.mark = os.path.join(index, "clean.json")
        self.lifted_mark = os.path.join(index, "clean.json.open")
        self.doubt = os.path.join(index, "doubt")
        self.meta = os.path.join(index, "meta.lmdb")
        self.small = os.path.join(index, "small.lmdb")
        self.objects = os.path.join(root, "objects")
        self.staging = os.path.join(root, "staging")
        self.backup = os.path.join(root, "backup")
        self.quarantine = os.path.join(root, "quarantine")
        self.locks = os.path.join(index, "locks")
        self.claims = os.path.join(index, "claims")
        self.format_copy = os.path.join(self.backup, "format.json")

    @property
    def is_apart(self) -> bool:
        """Whether the index lies in a directory of its own."""
        return self.index != self.root

    def make(self) -> list[tuple[str, str]]:
        """Make the folders that are missing (mode 0700).

        Returns
        -------
        list of (str, str)
            Those in whose place there was something else, and where that is now.
        """
        folders = (self.meta, self.small, self.objects, self.staging, self.backup, self.quarantine)
        os.makedirs(self.index, 0o700, exist_ok=True)
        made = [(folder, make_folder(folder)) for folder in (*folders, self.locks, self.claims)]
        return [(folder, aside) for folder, aside in made if aside is not None]

    def object_folder(self, address: Digest) -> str:
        """Folder of one object.

        Raises
        ------
        PayloadMissing
            If the address is no digest (a record written by something else).
        """
        if not is_address(address):
            raise PayloadMissing(f"no object can have the address {address!r}: it is not 32 hex digits")
        return f"{self.objects}/{address[:2]}/{address}"

    def aside(self, what: str) -> str:
        """A fresh path in quarantine for something damaged."""
        return os.path.join(self.quarantine, f"{what}-{fresh_id()[:8]}")

    def index_aside(self, what: str) -> str:
        """A fresh path for something damaged of the index, on the same file system."""
        return os.path.join(self.index, f"{what}-damaged-{fresh_id()[:8]}") if self.is_apart else self.aside(what)


def fresh_id() -> str:
    """32 hex digits that nobody else has."""
    return os.urandom(16).hex()


def is_address(text: str) -> bool:
    """Whether a text can be an object's address."""
    return len(text) == 32 and _HEX.issuperset(text)


def make_folder(path: str) -> str | None:
    """Make one folder of mode 0700 whatever the umask; nothing happens if it is there.

    Returns
    -------
    str or None
        Where the link or file is now that was in its place.
    """
    aside = None
    while True:
        try:
            os.mkdir(path, 0o700)
            return aside
        except FileExistsError:
            if os.path.isdir(path) and not os.path.islink(path):
                return aside
        aside = _moved_aside(path) or aside


def _moved_aside(path: str) -> str | None:
    """Where a file or link is now; None if it is gone, or there is a folder in its place.

    Somebody else may have made that a moment ago, and stored something in it. So there is a file at the target: no
    folder can be moved to its place.
    """
    aside = f"{path}.not-a-folder-{fresh_id()[:8]}"
    open(aside, "xb").close()
    try:
        os.rename(path, aside)
    except OSError as error:
        os.remove(aside)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return None
        raise
    return aside


def make_root(root: str) -> None:
    """Make the directory of a warehouse; a fresh one is private."""
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        if not os.listdir(root) and os.stat(root).st_uid == os.geteuid():
            disk.allow(root, 0o700)  # whatever the umask made of it
    except FileExistsError:
        raise WarehouseError(
            f"{root!r} is a file; a store needs a directory", hint="name another path: the directory is made"
        ) from None
    except OSError as error:
        raise disk_error(error, f"the store {root!r} can't be made", os.path.dirname(root)) from error


def sync_path(path: str) -> None:
    """Make a file's or folder's content durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        disk.sync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, view: memoryview) -> None:
    """Write all of it, however little the system takes at a time."""
    while view.nbytes:
        view = view[os.write(fd, view) :]


def write_file(path: str, data: bytes, *, durable: bool) -> None:
    """Put a small file in place whole or not at all (mode 0600)."""
    beside = f"{path}.{fresh_id()[:8]}.new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, memoryview(data))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    make_way(path)
    os.rename(beside, path)
    if durable:
        sync_path(os.path.dirname(path))


def write_first(path: str, data: bytes) -> None:
    """Put a small file in place durably, unless somebody else has been first: then theirs stays."""
    beside = f"{path}.{fresh_id()[:8]}.first"
    write_file(beside, data, durable=True)
    try:
        if not disk.link(beside, path):
            _write_first_by_name(path, data)
        sync_path(os.path.dirname(path))
    except FileExistsError:
        return
    finally:
        unlink(beside)


def _write_first_by_name(path: str, data: bytes) -> None:
    """Without second names a kill in the middle leaves half a file, which its readers can tell."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, memoryview(data))
        os.fsync(fd)
    finally:
        os.close(fd)


def read_small(path: str) -> bytes:
    """Content of a small file of ours; see `read_ordinary`."""
    return read_ordinary(path, _LONGEST_SMALL)


def read_ordinary(path: str, most: int | None = None) -> bytes:
    """Content of a file of ours, at most so many bytes.

    Raises
    ------
    OSError
        If it can't be read, or something else was put in its place: a pipe would block, a link lead outside.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", path)
        if most is not None:
            return os.pread(fd, min(info.st_size, most), 0)
        with open(fd, "rb", buffering=0, closefd=False) as file:
            return file.readall()
    finally:
        close_read(fd)


def make_way(path: str) -> None:
    """Move aside a folder that was put in the place of a file of ours."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, f"{path}.not-a-file-{fresh_id()[:8]}")


def unlink(path: str) -> None:
    """Remove a file, if there is one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def remove_tree(path: str) -> None:
    """Remove a folder that may hold read-only files, or what was put in its place; it may be gone already."""
    import shutil  # some milliseconds, for those who remove files only

    with suppress(OSError):  # it does not ignore those of closing a folder
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:  # of which it opens a pipe, and waits
            os.unlink(path)


def disk_error(
    error: OSError, what: str, folder: str, written: int | None = None, wanted: int | None = None
) -> Exception:
    """The error to raise for a failed system call: in the words of the store where we have some.

    Parameters
    ----------
    error : OSError
        What the system said.
    what : str
        What could not be done, as in "the ingredient 'x' can't be stored".
    folder : str
        Where; its file system is asked for the free space.
    written : int, optional
        Bytes that there was room for, which are free again.
    wanted : int, optional
        Bytes that were to be written, if that is known.
    """
    if error.errno in _NO_SPACE:
        free = disk.free_bytes(folder)
        came = "" if written is None else f"{written:,} bytes were not enough, "
        came = f"{wanted:,} bytes were to be written, " if wanted else came
        return WarehouseFull(
            f"{what}: no space left ({error.strerror}; {came}{free:,} bytes free)",
            hint=f"free some space on the file system of {folder!r}, then go on: what was finished is still there",
        )
    if error.errno in _NO_RIGHT:
        advice = "ask for the right to write there; Plant(dir, read_only=True) gives what is up to date in it"
        return StoreReadOnly(
            f"{what}: {error.strerror} ({error.filename or folder!r})", hint=disk.umask_advice() or advice
        )
    if error.errno == errno.ENOENT and not os.path.lexists(folder):
        return WarehouseError(
            f"{what}: {folder!r} was removed while it was open",
            hint="close it in every program and notebook that uses it, then open it again",
        )
    return WarehouseError(f"{what}: {error.strerror or error} ({error.filename or folder!r})")


def opened_read_only(root: str) -> StoreReadOnly:
    """The error for what would write to a store that was opened for reading only."""
    return StoreReadOnly(f"the store {root!r} was opened with read_only=True", hint="open it without, to write")


def refuse_unreadable(layout: Layout) -> None:
    """Refuse a store that isn't open to this user: much in it would look as if it weren't there.

    Raises
    ------
    WarehouseError
        If something that each opening reads may not be read.
    """
    folders = (layout.root, layout.index, layout.meta, layout.small, layout.locks)
    names = ((layout.meta, "data.mdb"), (layout.small, "data.mdb"), (layout.locks, "entry"), (layout.locks, "presence"))
    for path in (*folders, layout.format, *(os.path.join(*name) for name in names)):
        needed = os.R_OK | (os.X_OK if os.path.isdir(path) else 0)
        if os.path.exists(path) and not os.access(path, needed):  # a link to nowhere is mended
            raise WarehouseError(
                f"the store {layout.root!r} can't be read: no permission for {path!r}",
                hint=_how_to_let_read(layout, path),
            )


def _how_to_let_read(layout: Layout, path: str) -> str:
    if os.stat(path).st_uid == os.geteuid():
        return f"it is yours: chmod -R u+rwX {layout.root!r}"
    return f"its owner can let others read: chmod -R go+rX {layout.root!r}; then Plant(dir, read_only=True)"


@contextmanager
def in_words(what: str, folder: str) -> Iterator[None]:
    """System calls that fail inside raise `disk_error`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, what, folder) from error


def remove_file(path: str) -> None:
    """Remove a file that may be gone already."""
    make_way(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

"""The sealed objects: moved to their addresses, opened for reading, checked, taken out of the way.

This file may know: addresses, records of objects, files. It may not know: lmdb, the queue of commits, what a type spec
is given to read (``payloads.py``).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject, PayloadMissing, WarehouseError
from pyplantx.warehouse.files import Layout, in_words, is_address, make_folder, remove_tree, sync_path, unlink
from pyplantx.warehouse.records import (
    ObjectRecord,
    Part,
    from_json,
)
from pyplantx.warehouse.staging import Sealed, StagedObject, check_part_name
from pyplantx.warehouse.verify import Checks, PartCheck, close_read

if TYPE_CHECKING:
    from pyplantx.warehouse.sealing import Sealing


_PUT_BACK = (
    "if somebody has moved it, put it back; else close the plant and open it again: that makes an empty one, and what "
    "was in it is computed again when it is needed"
)


class Objects:
    """The files below ``objects/``.

    Parameters
    ----------
    layout : Layout
    sealing : Sealing, optional
        The keyed checks of a signed store.
    """

    def __init__(self, layout: Layout, sealing: Sealing | None = None) -> None:
        self.layout = layout
        self.checks = Checks() if sealing is None else sealing.new_checks()
        self._synced_folders: set[tuple[int, int, str]] = set()  # device and inode of ``objects/``, folder in it

    def publish(self, stage: StagedObject, sealed: Sealed) -> None:
        """Move a staged folder to its address.

        If something is there already it is read back in full: whole, it stays; otherwise ours replaces it. So a
        file at its address is never trusted for being there.
        """
        self._check_folder()
        folder, target = stage.release_folder(), self.layout.object_folder(sealed.address)
        self._make_folder_of(target)
        if not self._move(folder, target):
            if self.is_whole(sealed.address, sealed.record):
                remove_tree(folder)
                return
            self.quarantine(sealed.address)
            self._move(folder, target)
        # They were hashed as they were written: no need to do it again at the first open.
        self.checks.forget(sealed.address)
        for part in sealed.record.parts:
            self.checks.trust(sealed.address, os.path.join(target, part.name), part)

    def _check_folder(self) -> None:
        """Raise if the folder of all objects is not there. None is made: it may be put back in a moment."""
        path = self.layout.objects
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            info = None
        if info is None or not stat.S_ISDIR(info.st_mode):
            trouble = "is gone" if info is None else "is not a folder any more"
            raise WarehouseError(f"{path!r}, where the payloads of this store are, {trouble}", hint=_PUT_BACK)

    def _make_folder_of(self, folder: str) -> None:
        """Make the folder in which an object's folder lies; a file or link in its place is put aside."""
        stray = make_folder(os.path.dirname(folder))
        if stray is not None:
            self.put_stray_aside(stray)

    def _move(self, source: str, target: str) -> bool:
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        return True

    def checked_path(self, address: Digest, part: Part, verify: str = "lazy") -> str:
        """Path of one part, its content checked once per session and again whenever the file was touched.

        Raises
        ------
        PayloadMissing
            If there is no such file.
        DamagedObject
            If it is not what the record says.
        """
        path = self._path(address, part)
        if not self.checks.is_whole(address, part):
            fd, check = self.open_part(address, part, verify)
            try:
                self.check_now(check, fd)
            finally:
                close_read(fd)
        return path

    def open_part(self, address: Digest, part: Part, verify: str = "lazy") -> tuple[int, PartCheck]:
        """Open a part's file; see `Checks.open`."""
        path = self._path(address, part)
        with in_words(f"{path!r} can't be read", path):
            return self.checks.open(address, path, part, verify)

    def check_now(self, check: PartCheck, fd: int) -> None:
        """Check a part's open file, unless that was done already.

        Raises
        ------
        DamagedObject
            If it is not what the record says.
        """
        with in_words(f"{check.path!r} can't be read", check.path):
            self.checks.finish(check, os.dup(fd))

    def _path(self, address: Digest, part: Part) -> str:
        return os.path.join(self.layout.object_folder(address), check_part_name(part.name))

    def is_whole(self, address: Digest, record: ObjectRecord) -> bool:
        """Whether all files are there, with the right content."""
        try:
            for part in record.parts:
                self.checked_path(address, part)
        except (PayloadMissing, DamagedObject):
            return False
        return True

    def paths(self, address: Digest) -> list[str]:
        """Folder and files of an object, as far as they are there."""
        folder = self.layout.object_folder(address)
        found = [os.path.dirname(folder), folder]
        if os.path.isdir(folder):
            found += [os.path.join(folder, name) for name in os.listdir(folder)]
        return [path for path in found if os.path.lexists(path)]

    def is_there(self, address: Digest) -> bool:
        """Whether something is at the address; says nothing about its content."""
        return os.path.isdir(self.layout.object_folder(address))

    def sync(self, address: Digest, record: ObjectRecord) -> None:
        """Make one object durable: its files, its folder, and the folders above that it may have made."""
        target = self.layout.object_folder(address)
        for part in record.parts:
            sync_path(os.path.join(target, part.name))
        sync_path(target)
        prefix = os.path.dirname(target)
        sync_path(prefix)
        info = os.lstat(self.layout.objects)  # another one, perhaps, that was put in its place
        above = info.st_dev, info.st_ino, prefix
        if above not in self._synced_folders:
            sync_path(self.layout.objects)
            sync_path(self.layout.root)
            self._synced_folders.add(above)

    def quarantine(self, address: Digest) -> str | None:
        """Put what is at the address aside; the new path, or None if nothing was there."""
        self.checks.forget(address)
        aside = self.layout.aside(address)
        folder = self.layout.object_folder(address)
        try:
            self._make_folder_of(folder)
            os.rename(folder, aside)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return aside

    def remove(self, address: Digest) -> None:
        """Remove an object's files. Open memory maps of them stay valid."""
        self.checks.forget(address)
        path = self.layout.object_folder(address)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            unlink(path)

    def forget_checked(self, address: Digest) -> None:
        """Check the files of an object again when they are next asked for."""
        self.checks.forget(address)

    def addresses(self) -> Iterator[Digest]:
        """Every address at which there is something."""
        return (name for prefix, name in self._entries() if _is_at_its_place(prefix, name))

    def strays(self) -> Iterator[str]:
        """The paths of what is no object at its address, and no folder of such."""
        for prefix, name in self._entries():
            if not _is_at_its_place(prefix, name):
                yield os.path.join(self.layout.objects, prefix, name) if name else self._prefix_path(prefix)

    def _entries(self) -> Iterator[tuple[str, str]]:
        """What there is in each folder; with an empty name, what is none (a link to one leads to somebody else's)."""
        self._check_folder()
        for prefix in sorted(os.listdir(self.layout.objects)):
            if not _is_folder(self._prefix_path(prefix)):
                yield prefix, ""
            else:
                yield from ((prefix, name) for name in sorted(os.listdir(self._prefix_path(prefix))))

    def _prefix_path(self, prefix: str) -> str:
        return os.path.join(self.layout.objects, prefix)

    def is_stray(self, path: str) -> bool:
        """Whether one of `strays` is still there: a folder may be in its place by now."""
        return os.path.lexists(path) and not (os.path.dirname(path) == self.layout.objects and _is_folder(path))

    def put_stray_aside(self, path: str) -> None:
        """Move to quarantine what is no object at its address."""
        os.rename(path, self.layout.aside("stray"))


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _is_at_its_place(prefix: str, name: str) -> bool:
    return is_address(name) and name[:2] == prefix


def meta_of(text: str) -> Mapping[str, Any]:
    """The spec's metadata from the text in an `ObjectRef`.

    Raises
    ------
    DamagedObject
        If it is no JSON.
    """
    try:
        value = from_json(text) if text else {}
    except ValueError as error:
        raise DamagedObject(f"the metadata of an object can't be read: {error}") from error
    return value if isinstance(value, dict) else {}

"""Payloads: staging, sealing, opening, checking, sweeping. Every path inside a warehouse is made here.

This file may know: paths, bytes, checksums, type specs' stages. It may not know: lmdb, the queue of commits.

A payload is written aside (`StagedObject`), described (`seal`), and, if it consists of files, moved to its address
(`Objects.publish`). Nothing that came from a name, a type or a record becomes a path unless `object_folder` or
`check_part_name` has accepted it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import CannotStore, DamagedObject, PayloadMissing, StoreReadOnly, WarehouseError, WarehouseFull
from pyplantx.fingerprint.value import BLOCK, BlockHasher, hash_bytes, hash_text
from pyplantx.specs.base import Buffer, Written
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.records import IN_FILES, IN_RECORD, IN_SMALL, ObjectRecord, Part, from_json, to_json

#: Payloads up to these many bytes: in the reference itself, in the index, in the second environment.
TINY, LITTLE, SMALL = 128, 8 * 1024, 1024 * 1024

_HEX = frozenset("0123456789abcdef")
_LETTERS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_IN_PART_NAMES = _LETTERS | set("._-")
_LONGEST_PART_NAME = 100
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM}
_NOT_ITS_FAULT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # a file that can't be opened now is not damaged


# -- paths ----------------------------------------------------------------------------------------------------------


class Layout:
    """The paths of one warehouse.

    Parameters
    ----------
    root : str
        The real path of its directory.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.format = os.path.join(root, "format.json")
        self.mark = os.path.join(root, "clean.json")
        self.meta = os.path.join(root, "meta.lmdb")
        self.small = os.path.join(root, "small.lmdb")
        self.objects = os.path.join(root, "objects")
        self.staging = os.path.join(root, "staging")
        self.backup = os.path.join(root, "backup")
        self.quarantine = os.path.join(root, "quarantine")
        self.locks = os.path.join(root, "locks")
        self.claims = os.path.join(root, "claims")

    def make(self) -> None:
        """Make the folders that are missing (mode 0700)."""
        folders = (self.meta, self.small, self.objects, self.staging, self.backup, self.quarantine)
        for folder in (*folders, self.locks, self.claims):
            make_folder(folder)

    def object_folder(self, address: Digest) -> str:
        """Folder of one object.

        Raises
        ------
        PayloadMissing
            If the address is no digest (a record written by something else).
        """
        if not _is_address(address):
            raise PayloadMissing(f"no object can have the address {address!r}: it is not 32 hex digits")
        return f"{self.objects}/{address[:2]}/{address}"

    def aside(self, what: str) -> str:
        """A fresh path in quarantine for something damaged."""
        return os.path.join(self.quarantine, f"{what}-{fresh_id()[:8]}")


def fresh_id() -> str:
    """32 hex digits that nobody else has."""
    return os.urandom(16).hex()


def _is_address(text: str) -> bool:
    return len(text) == 32 and _HEX.issuperset(text)


def make_folder(path: str) -> None:
    """Make one folder of mode 0700 whatever the umask; nothing happens if it is there."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.rename(path, f"{path}.not-a-folder-{fresh_id()[:8]}")  # a link or file put in its place: kept aside
        os.mkdir(path, 0o700)


def sync_path(path: str) -> None:
    """Make a file's or folder's content durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: str, data: bytes, *, durable: bool) -> None:
    """Put a small file in place whole or not at all (mode 0600)."""
    beside = f"{path}.{fresh_id()[:8]}.new"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, memoryview(data))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(beside, path)
    if durable:
        sync_path(os.path.dirname(path))


def remove_tree(path: str) -> None:
    """Remove a folder that may hold read-only files; it may be gone already."""
    import shutil  # some milliseconds, for those who remove files only

    shutil.rmtree(path, ignore_errors=True)


def disk_error(error: OSError, what: str, folder: str, needed: int | None = None) -> Exception:
    """The error to raise for a failed system call: in the words of the store where we have some.

    Parameters
    ----------
    error : OSError
        What the system said.
    what : str
        What could not be done, as in "the ingredient 'x' can't be stored".
    folder : str
        Where; its file system is asked for the free space.
    needed : int, optional
        Bytes that were to be written at least.
    """
    if error.errno in _NO_SPACE:
        room = os.statvfs(folder)
        wanted = "" if needed is None else f"{needed:,} bytes needed, "
        return WarehouseFull(
            f"{what}: no space left ({error.strerror}; {wanted}{room.f_bavail * room.f_frsize:,} bytes free)",
            hint=f"free some space on the file system of {folder!r}, then go on: what was finished is still there",
        )
    if error.errno in _NO_RIGHT:
        return StoreReadOnly(f"{what}: {error.strerror} ({error.filename or folder!r})")
    return WarehouseError(f"{what}: {error.strerror or error} ({error.filename or folder!r})")


@contextmanager
def in_words(what: str, folder: str) -> Iterator[None]:
    """System calls that fail inside raise `disk_error`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, what, folder) from error


# -- writing --------------------------------------------------------------------------------------------------------


def check_part_name(part: str) -> str:
    """The name, if it can be a file's name everywhere.

    Raises
    ------
    CannotStore
        If not.
    """
    if not (0 < len(part) <= _LONGEST_PART_NAME and part[0] in _LETTERS and _IN_PART_NAMES.issuperset(part)):
        raise CannotStore(
            f"{part!r} can't be the name of a part of an ingredient",
            hint="a type spec names its parts with letters, digits, dot, dash and underscore",
        )
    return part


def make_address(spec: str, version: int, meta: str, parts: Iterable[Part]) -> Digest:
    """Address of an object: its spec, the spec's metadata, and the exact bytes of its parts."""
    listed = "".join([f"{part.name} {part.size} {part.digest}\n" for part in parts])
    return hash_text(f"{spec}\n{version}\n{meta}\n{listed}")


def digest_blocks(blocks: list[Digest]) -> Digest:
    """Digest of a part from those of its blocks of 4 MiB."""
    return blocks[0] if len(blocks) == 1 else hash_text("".join(blocks))


class _PartHasher:
    """Size and block digests of one part, whatever pieces it comes in."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._size = 0
        self._blocks = BlockHasher()

    def update(self, view: memoryview) -> None:
        self._size += view.nbytes
        self._blocks.update(view)

    def part(self) -> Part:
        blocks = self._blocks.digests() or [hash_bytes(b"")]
        return Part(self._name, self._size, digest_blocks(blocks), tuple(blocks) if len(blocks) > 1 else ())


def _write_all(fd: int, view: memoryview) -> None:
    while view.nbytes:
        view = view[os.write(fd, view) :]


class _PartFile:
    """A part that is being written to a file, hashed as it passes."""

    def __init__(self, path: str, name: str) -> None:
        self._hasher = _PartHasher(name)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, view: memoryview) -> None:
        """Write and hash one block at a time, while it is in the processor's cache."""
        for start in range(0, view.nbytes, BLOCK):
            piece = view[start : start + BLOCK]
            _write_all(self._fd, piece)
            self._hasher.update(piece)

    def finish(self) -> Part:
        os.fchmod(self._fd, 0o400)
        return self._hasher.part()

    def close(self) -> None:
        os.close(self._fd)


class StagedObject:
    """The `pyplantx.specs.base.Stage` that specs write into.

    What is written stays in memory up to `SMALL` bytes, then goes to files in a folder of this session.

    Parameters
    ----------
    staging : Staging
        Gives a folder when one is needed.
    """

    __slots__ = ("_staging", "_memory", "_written", "_given", "_held", "folder")

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._memory: dict[str, bytes] = {}
        self._written: dict[str, Part] = {}  # in files, by `write`
        self._given: list[str] = []  # in files, made by the spec itself at `path`
        self._held = 0
        self.folder: str | None = None

    def write(self, part: str, chunks: Iterable[Buffer]) -> None:
        """Write one part from buffers; see `Stage.write`."""
        self._claim(part)
        held: list[bytes] = []
        source = iter(chunks)
        for chunk in source:
            data = chunk if type(chunk) is bytes else _flat(chunk)
            if self._held + len(data) > SMALL:
                self._held -= sum(map(len, held))
                self._write_file(part, [*held, data], source)
                return
            self._held += len(data)
            held.append(data if type(data) is bytes else bytes(data))
        self._memory[part] = held[0] if len(held) == 1 else b"".join(held)

    def path(self, part: str) -> str:
        """A path at which the spec creates the part itself; see `Stage.path`."""
        self._claim(part)
        self._given.append(part)
        return os.path.join(self._make_folder(), part)

    def seal(self, spec: str, version: int, written: Written) -> Sealed:
        """Finish: every part has its size and checksum, the files are read-only, the address is known.

        Raises
        ------
        CannotStore
            If the spec asked for a path and made no ordinary file there, or wrote nothing at all.
        """
        parts = list(self._parts())
        if not parts:
            raise CannotStore(f"the type spec {spec!r} wrote no part at all")
        meta = to_json(dict(written.meta)) if written.meta else ""
        address = make_address(spec, version, meta, parts)
        home, payload = self._home()
        record = ObjectRecord(spec, version, written.digest, meta, home, tuple(parts), time.time())
        return Sealed(address, record, payload)

    def tiny(self, spec: str, version: int, written: Written) -> ObjectRef | None:
        """A reference that holds the whole payload, if it is one part of at most `TINY` bytes; else None."""
        if self._held > TINY or len(self._memory) != 1 or self.folder is not None:
            return None
        ((name, data),) = self._memory.items()
        meta = to_json(dict(written.meta)) if written.meta else ""
        address = hash_text(f"{spec}\n{version}\n{meta}\n{name} {len(data)} {hash_bytes(data)}\n")
        inline = f"{name}\n{data.decode('latin-1')}"
        return ObjectRef(spec, version, written.digest, address, len(data), meta, inline)

    def size_so_far(self) -> int:
        """Bytes that were written, for messages."""
        files = os.scandir(self.folder) if self.folder is not None else ()
        return self._held + sum(entry.stat().st_size for entry in files)

    def discard(self) -> None:
        """Forget everything; remove what was written."""
        self._memory.clear()
        folder, self.folder = self.folder, None
        if folder is not None:
            remove_tree(folder)

    def release_folder(self) -> str:
        """Hand over the folder: discarding the stage no longer removes it."""
        folder, self.folder = self._make_folder(), None
        return folder

    def _claim(self, part: str) -> None:
        if part in self._memory or part in self._written or part in self._given:
            raise CannotStore(f"the part {part!r} is written twice")
        check_part_name(part)

    def _home(self) -> tuple[str, bytes]:
        if self.folder is not None:
            return IN_FILES, b""
        return (IN_RECORD if self._held <= LITTLE else IN_SMALL), b"".join(self._memory.values())

    def _parts(self) -> Iterator[Part]:
        if self.folder is not None:
            for name, data in list(self._memory.items()):
                self._write_file(name, [data], iter(()))
        for name, data in self._memory.items():
            yield Part(name, len(data), hash_bytes(data))
        yield from self._written.values()
        for name in self._given:
            yield _finish_given(os.path.join(self.folder or "", name), name)

    def _write_file(self, name: str, first: list[bytes | memoryview], rest: Iterator[Buffer]) -> None:
        self._memory.pop(name, None)
        file = _PartFile(os.path.join(self._make_folder(), name), name)
        try:
            for data in first:
                file.write(memoryview(data))
            for chunk in rest:
                file.write(memoryview(_flat(chunk)))
            self._written[name] = file.finish()
        finally:
            file.close()

    def _make_folder(self) -> str:
        if self.folder is None:
            self.folder = self._staging.new_folder()
        return self.folder


class Sealed(NamedTuple):
    """A payload that is complete: its address, what it consists of, and its bytes unless they are in files."""

    address: Digest
    record: ObjectRecord
    payload: bytes


def _flat(chunk: Buffer) -> memoryview | bytes:
    view = memoryview(chunk)
    return view.cast("B") if view.nbytes else b""  # a shape with a zero in it can't be cast


def _finish_given(path: str, name: str) -> Part:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise CannotStore(f"the part {name!r} is not an ordinary file")
    except FileNotFoundError:
        raise CannotStore(f"the file of the part {name!r} was never made", hint=f"write it to {path!r}") from None
    os.chmod(path, 0o600)
    part = hash_file(path, name)
    os.chmod(path, 0o400)
    return part


class Staging:
    """This session's folder for what is being written; its lock file tells others that the session lives.

    Parameters
    ----------
    layout : Layout
    session : str
        A name that no other session has.
    """

    def __init__(self, layout: Layout, session: str) -> None:
        self._folder = os.path.join(layout.staging, session)
        self._lease = FileLock(f"{self._folder}.lease")
        self._made = False

    def begin(self) -> None:
        """Take the lease, so that nobody sweeps what we write."""
        self._lease.acquire()

    def new_folder(self) -> str:
        """A fresh folder for one object."""
        if not self._made:
            make_folder(self._folder)
            self._made = True
        path = os.path.join(self._folder, fresh_id())
        os.mkdir(path, 0o700)
        return path

    def end(self) -> None:
        """Remove the folder and give the lease back."""
        try:
            if self._lease.is_open:
                if self._made:
                    remove_tree(self._folder)
                _unlink(self._lease.path)
        except OSError:
            return  # what is left is swept by the next session
        finally:
            self._lease.close()

    def forget(self) -> None:
        """In a forked child: the lease belongs to the parent."""
        self._lease.forget()


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def sweep_staging(layout: Layout) -> list[str]:
    """Remove what sessions that died have left in staging.

    Returns
    -------
    list of str
        The folders that were removed.
    """
    swept = []
    for name in sorted({entry.removesuffix(".lease") for entry in os.listdir(layout.staging)}):
        path = os.path.join(layout.staging, name)
        lease = FileLock(f"{path}.lease")
        if lease.acquire():
            remove_tree(path)
            _unlink(lease.path)
            swept.append(path)
        lease.close()
    return swept


# -- reading --------------------------------------------------------------------------------------------------------

Signature = tuple[int, int, int, int]


def _signature(info: os.stat_result) -> Signature:
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def hash_file(path: str, name: str) -> Part:
    """Size and digests of a file, read with ordinary reads: an I/O error is an exception, not a signal."""
    hasher = _PartHasher(name)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        buffer = memoryview(bytearray(min(BLOCK, os.fstat(fd).st_size + 1)))
        while count := os.readv(fd, [buffer]):
            hasher.update(buffer[:count])
    finally:
        os.close(fd)
    return hasher.part()


class MemoryPayload:
    """A payload whose bytes are at hand and checked."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self._parts = parts

    def parts(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def is_file(self, part: str) -> bool:
        return False

    def read(self, part: str) -> bytes:
        try:
            return self._parts[part]
        except KeyError:
            raise DamagedObject(f"the object has no part {part!r}") from None

    def path(self, part: str) -> str:
        raise WarehouseError(f"the part {part!r} lives in the index and has no file of its own")


class FilePayload:
    """A payload that consists of files; each is checked before its path or bytes are given away."""

    __slots__ = ("_objects", "_address", "_parts")

    def __init__(self, objects: Objects, address: Digest, record: ObjectRecord) -> None:
        self._objects = objects
        self._address = address
        self._parts = {part.name: part for part in record.parts}

    def parts(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def is_file(self, part: str) -> bool:
        return True

    def path(self, part: str) -> str:
        return self._objects.checked_path(self._address, self._part(part))

    def read(self, part: str) -> bytes:
        entry = self._part(part)
        with open(self._objects.checked_path(self._address, entry), "rb") as file:
            data = file.read()
        if len(data) != entry.size:
            raise DamagedObject(f"the part {part!r} of object {self._address} changed while it was read")
        return data

    def _part(self, part: str) -> Part:
        try:
            return self._parts[part]
        except KeyError:
            raise DamagedObject(f"the object {self._address} has no part {part!r}") from None


class Objects:
    """The files below ``objects/``.

    Parameters
    ----------
    layout : Layout
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._checked: dict[Digest, dict[str, Signature]] = {}
        self._synced_folders: set[str] = set()

    def publish(self, stage: StagedObject, sealed: Sealed) -> None:
        """Move a staged folder to its address.

        If something is there already it is read back in full: whole, it stays; otherwise ours replaces it. So a
        file at its address is never trusted for being there.
        """
        folder, target = stage.release_folder(), self.layout.object_folder(sealed.address)
        make_folder(os.path.dirname(target))
        if not self._move(folder, target):
            if self.is_whole(sealed.address, sealed.record):
                remove_tree(folder)
                return
            self.quarantine(sealed.address)
            self._move(folder, target)
        # They were hashed as they were written: no need to do it again at the first open.
        names = [part.name for part in sealed.record.parts]
        self._checked[sealed.address] = {name: _signature(os.lstat(os.path.join(target, name))) for name in names}

    def _move(self, source: str, target: str) -> bool:
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        return True

    def checked_path(self, address: Digest, part: Part) -> str:
        """Path of one part, its content checked once per session and again whenever the file was touched.

        Raises
        ------
        PayloadMissing
            If there is no such file.
        DamagedObject
            If it is not what the record says.
        """
        path = os.path.join(self.layout.object_folder(address), check_part_name(part.name))
        try:
            info = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise PayloadMissing(f"the file {path!r} is gone") from None
        checked = self._checked.setdefault(address, {})
        if checked.get(part.name) != _signature(info):
            self._check(path, info, part)
            checked[part.name] = _signature(info)
        return path

    def _check(self, path: str, info: os.stat_result, part: Part) -> None:
        if not stat.S_ISREG(info.st_mode):
            raise DamagedObject(f"{path!r} is not an ordinary file")
        if info.st_size != part.size:
            raise DamagedObject(f"{path!r} has {info.st_size:,} bytes instead of {part.size:,}")
        try:
            found = hash_file(path, part.name)
        except OSError as error:
            if error.errno in _NOT_ITS_FAULT:
                raise disk_error(error, f"{path!r} can't be read", path) from error
            raise DamagedObject(f"{path!r} can't be read: {error.strerror}") from error
        if found != part:
            raise DamagedObject(f"{path!r} does not match its checksum")

    def is_whole(self, address: Digest, record: ObjectRecord) -> bool:
        """Whether all files are there, with the right content."""
        try:
            for part in record.parts:
                self.checked_path(address, part)
        except (PayloadMissing, DamagedObject):
            return False
        return True

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
        if prefix not in self._synced_folders:
            sync_path(self.layout.objects)
            self._synced_folders.add(prefix)

    def quarantine(self, address: Digest) -> str | None:
        """Put what is at the address aside; the new path, or None if nothing was there."""
        self._checked.pop(address, None)
        aside = self.layout.aside(address)
        try:
            os.rename(self.layout.object_folder(address), aside)
        except FileNotFoundError:
            return None
        return aside

    def remove(self, address: Digest) -> None:
        """Remove an object's files. Open memory maps of them stay valid."""
        self._checked.pop(address, None)
        path = self.layout.object_folder(address)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            _unlink(path)

    def forget_checked(self, address: Digest) -> None:
        """Check the files of an object again when they are next asked for."""
        self._checked.pop(address, None)

    def addresses(self) -> Iterator[Digest]:
        """Every address at which there is something."""
        for prefix in sorted(os.listdir(self.layout.objects)):
            folder = os.path.join(self.layout.objects, prefix)
            names = os.listdir(folder) if os.path.isdir(folder) else []
            yield from (name for name in sorted(names) if _is_address(name))


def meta_of(text: str) -> Mapping[str, Any]:
    """The spec's metadata from the text in an `ObjectRef`."""
    value = from_json(text) if text else {}
    return value if isinstance(value, dict) else {}

"""Payloads as files: staging, sealing, checking, sweeping. Every path inside a warehouse is made here.

This file may know: paths, bytes, checksums, type specs' stages. It may not know: lmdb, the queue of commits, what a
type spec is given to read (``payloads.py``).

A payload is written aside (`StagedObject`), described (`seal`), and, if it consists of files, moved to its address
(`Objects.publish`). Nothing that came from a name, a type or a record becomes a path unless `object_folder` or
`check_part_name` has accepted it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import CannotStore, DamagedObject, PayloadMissing, StoreReadOnly, WarehouseError, WarehouseFull
from pyplantx.fingerprint.value import BLOCK, BlockHasher, hash_bytes, hash_text
from pyplantx.specs import writeback
from pyplantx.specs.base import Buffer, Written
from pyplantx.specs.base import Layout as PartLayout
from pyplantx.specs.buffers import LAID_OUT, file_pages
from pyplantx.specs.parallel import WORTHWHILE, for_each_block
from pyplantx.tuples import NamedTuple
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.records import (
    IN_FILES,
    IN_RECORD,
    IN_SMALL,
    Cut,
    ObjectRecord,
    Part,
    from_json,
    make_part,
    to_json,
)
from pyplantx.warehouse.verify import Checks, PartCheck, close_read, read_all

if TYPE_CHECKING:
    from pyplantx.warehouse.sealing import Sealing

#: Bytes of a block -> its digest.
HashBlock = Callable[[Buffer], Digest]

#: Payloads up to these many bytes: in the reference itself, in the index, in the second environment.
TINY, LITTLE, SMALL = 128, 8 * 1024, LAID_OUT

#: In staging, beside the folders of sessions: work that outlives its session (`warehouse.resume`).
RESUME = "resume"

_HEX = frozenset("0123456789abcdef")
_LETTERS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_IN_PART_NAMES = _LETTERS | set("._-")
_LONGEST_PART_NAME = 100
#: Bytes that a file of ours has at most which is read in one piece.
_LONGEST_SMALL = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM}


# -- paths ----------------------------------------------------------------------------------------------------------


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

    def make(self) -> None:
        """Make the folders that are missing (mode 0700)."""
        folders = (self.meta, self.small, self.objects, self.staging, self.backup, self.quarantine)
        os.makedirs(self.index, 0o700, exist_ok=True)
        for folder in (*folders, self.locks, self.claims):
            make_folder(folder)

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
    make_way(path)
    os.rename(beside, path)
    if durable:
        sync_path(os.path.dirname(path))


def write_first(path: str, data: bytes) -> None:
    """Put a small file in place durably, unless somebody else has been first: then theirs stays."""
    beside = f"{path}.{fresh_id()[:8]}.first"
    write_file(beside, data, durable=True)
    try:
        os.link(beside, path, follow_symlinks=False)
        sync_path(os.path.dirname(path))
    except FileExistsError:
        return
    finally:
        _unlink(beside)


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


def remove_tree(path: str) -> None:
    """Remove a folder that may hold read-only files, or what was put in its place; it may be gone already."""
    import shutil  # some milliseconds, for those who remove files only

    with suppress(OSError):  # it does not ignore those of closing a folder
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:  # of which it opens a pipe, and waits
            os.unlink(path)


def disk_error(error: OSError, what: str, folder: str, written: int | None = None) -> Exception:
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
    """
    if error.errno in _NO_SPACE:
        room = os.statvfs(folder)
        came = "" if written is None else f"{written:,} bytes were not enough, "
        return WarehouseFull(
            f"{what}: no space left ({error.strerror}; {came}{room.f_bavail * room.f_frsize:,} bytes free)",
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


def make_address(
    spec: str, version: int, meta: str, parts: Iterable[Part], hash_text: Callable[[str], Digest] = hash_text
) -> Digest:
    """Address of an object: its spec, the spec's metadata, and the exact bytes of its parts."""
    listed = "".join([f"{part.name} {part.size} {part.digest}\n" for part in parts])
    return hash_text(f"{spec}\n{version}\n{meta}\n{listed}")


class _PartHasher:
    """Size and block digests of one part, whatever pieces it comes in."""

    def __init__(self, name: str, sealing: Sealing | None) -> None:
        self._name = name
        self._size = 0
        self._blocks = BlockHasher() if sealing is None else sealing.block_hasher()
        self._nothing = hash_bytes if sealing is None else sealing.hash_block

    def update(self, view: memoryview) -> None:
        self._size += view.nbytes
        self._blocks.update(view)

    def part(self) -> Part:
        return make_part(self._name, self._size, self._blocks.digests() or [self._nothing(b"")])


def _write_all(fd: int, view: memoryview) -> None:
    while view.nbytes:
        view = view[os.write(fd, view) :]


class _PartFile:
    """A part that is being written to a file, hashed as it passes."""

    def __init__(self, path: str, name: str, sealing: Sealing | None) -> None:
        self._hasher = _PartHasher(name, sealing)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._early, self._end = writeback.is_wanted(path), 0

    def write(self, view: memoryview) -> None:
        """Write and hash one block at a time, while it is in the processor's cache."""
        for start in range(0, view.nbytes, BLOCK):
            piece = view[start : start + BLOCK]
            _write_all(self._fd, piece)
            if self._early:
                writeback.begin(self._fd, self._end, piece.nbytes)
            self._end += piece.nbytes
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

    __slots__ = ("_staging", "_memory", "_written", "_given", "_known", "_held", "folder")

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._memory: dict[str, bytes] = {}
        self._written: dict[str, Part] = {}  # in files, by `write`
        self._given: list[str] = []  # in files, made by the spec itself at `path`
        self._known: dict[str, tuple[PartLayout, Sequence[Digest]]] = {}  # of those that were given and described
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

    def write_array(self, part: str, head: bytes, body: Buffer, block: int) -> list[Digest]:
        """Write one part that is a head and a contiguous body; see `Stage.write_array`."""
        flat = memoryview(_flat(body))
        is_small = len(head) + len(flat) <= SMALL
        if is_small or self._staging.sealing is not None:  # a signed file has checks of its own
            self.write(part, [b"".join((head, flat))] if is_small else [head, flat])
            return [hash_bytes(flat[start : start + block]) for start in range(0, len(flat), block)]
        self._claim(part)
        path = os.path.join(self._make_folder(), part)
        self._written[part], digests = _write_blocks(path, part, head, flat, block)
        return digests

    def describe(self, part: str, layout: PartLayout, digests: Sequence[Digest]) -> None:
        """Tell how a part made at `path` is cut, and its blocks' digests; see `Stage.describe`."""
        if self._staging.sealing is None:
            self._known[part] = layout, digests

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
        address = self._address(spec, version, meta, parts)
        home, payload = self._home()
        record = ObjectRecord(spec, version, written.digest, meta, home, tuple(parts), time.time())
        return Sealed(address, record, payload)

    def tiny(self, spec: str, version: int, written: Written) -> ObjectRef | None:
        """A reference that holds the whole payload, if it is one part of at most `TINY` bytes; else None."""
        if self._held > TINY or len(self._memory) != 1 or self.folder is not None:
            return None
        ((name, data),) = self._memory.items()
        meta = to_json(dict(written.meta)) if written.meta else ""
        return tiny_ref(spec, version, name, data, written.digest, meta)

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

    def _address(self, spec: str, version: int, meta: str, parts: list[Part]) -> Digest:
        sealing = self._staging.sealing
        if sealing is None:
            return make_address(spec, version, meta, parts)
        # Parts that lie in the index are checked with their record. But who chooses what is sent could find two of
        # the same xxh3, and the second one would be taken for the first.
        digests = {name: sealing.hash_block(data) for name, data in self._memory.items()}
        keyed = [part._replace(digest=digests.get(part.name, part.digest)) for part in parts]
        return make_address(spec, version, meta, keyed, sealing.hash_text)

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
        sealing = self._staging.sealing
        hash_block = hash_bytes if sealing is None else sealing.hash_block
        for name in self._given:
            yield _finish_given(os.path.join(self.folder or "", name), name, self._known.get(name), hash_block)

    def _write_file(self, name: str, first: list[bytes | memoryview], rest: Iterator[Buffer]) -> None:
        self._memory.pop(name, None)
        file = _PartFile(os.path.join(self._make_folder(), name), name, self._staging.sealing)
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


def tiny_ref(spec: str, version: int, part: str, data: bytes, digest: Digest, meta: str = "") -> ObjectRef:
    """The reference that holds the whole payload: one part of at most `TINY` bytes."""
    address = hash_text(f"{spec}\n{version}\n{meta}\n{part} {len(data)} {hash_bytes(data)}\n")
    inline = f"{part}\n{data.decode('latin-1')}"
    return tuple.__new__(ObjectRef, (spec, version, digest, address, len(data), meta, inline))  # see `core/trace.py`


class Sealed(NamedTuple):
    """A payload that is complete: its address, what it consists of, and its bytes unless they are in files."""

    address: Digest
    record: ObjectRecord
    payload: bytes


def _flat(chunk: Buffer) -> memoryview | bytes:
    view = memoryview(chunk)
    return view.cast("B") if view.nbytes else b""  # a shape with a zero in it can't be cast


def _write_blocks(path: str, name: str, head: bytes, body: memoryview, block: int) -> tuple[Part, list[Digest]]:
    """Make a part's file; each block is hashed while it is in the processor's cache, by one of two threads.

    Returns
    -------
    (Part, list of Digest)
        The part, and the digests of the body's blocks.
    """
    fd, early = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), writeback.is_wanted(path)
    count = -(-len(body) // block)

    def write_one(index: int) -> Digest:
        # Cut at multiples of the block in the file: written in such pieces it is cached in huge pages.
        begin, end = max(0, index * block - len(head)), (index + 1) * block - len(head)
        piece = body[begin : end if index + 1 < count else len(body)]
        _write_at(fd, piece, len(head) + begin)
        if early:
            writeback.begin(fd, len(head) + begin, piece.nbytes)
        return hash_bytes(body[index * block : (index + 1) * block])

    try:
        _write_at(fd, memoryview(head), 0)
        digests = for_each_block(count, write_one, parallel=len(body) >= WORTHWHILE)
        os.fchmod(fd, 0o400)
    finally:
        os.close(fd)
    layout = PartLayout(len(head), block, len(body))
    return make_part(name, len(head) + len(body), [hash_bytes(head), *digests], layout), digests


def _write_at(fd: int, view: memoryview, position: int) -> None:
    while view.nbytes:
        count = os.pwrite(fd, view, position)
        view, position = view[count:], position + count


def _finish_given(
    path: str, name: str, known: tuple[PartLayout, Sequence[Digest]] | None, hash_block: HashBlock
) -> Part:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise CannotStore(f"the part {name!r} is not an ordinary file")
    except FileNotFoundError:
        raise CannotStore(f"the file of the part {name!r} was never made", hint=f"write it to {path!r}") from None
    os.chmod(path, 0o600)
    part = hash_file(path, name, *(known or ()), hash_block=hash_block)
    os.chmod(path, 0o400)
    return part


class Staging:
    """This session's folder for what is being written; its lock file tells others that the session lives.

    Parameters
    ----------
    layout : Layout
    session : str
        A name that no other session has.
    sealing : Sealing, optional
        The keyed checks of a signed store.
    durable : bool
        Whether what is written will be synced.
    """

    def __init__(self, layout: Layout, session: str, sealing: Sealing | None = None, *, durable: bool = False) -> None:
        self.sealing = sealing
        self._durable = durable
        self._folder = os.path.join(layout.staging, session)
        self._lease = FileLock(f"{self._folder}.lease")
        self._made = False

    def begin(self) -> None:
        """Take the lease, so that nobody sweeps what we write."""
        self._lease.acquire()
        if self._durable:
            writeback.begin_in(self._folder)

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
        writeback.end_in(self._folder)
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
    for name in sorted({entry.removesuffix(".lease") for entry in os.listdir(layout.staging)} - {RESUME}):
        path = os.path.join(layout.staging, name)
        lease = FileLock(f"{path}.lease")
        if lease.acquire():
            remove_tree(path)
            _unlink(lease.path)
            swept.append(path)
        lease.close()
    return swept


# -- reading --------------------------------------------------------------------------------------------------------


def hash_file(
    path: str,
    name: str,
    layout: PartLayout | None = None,
    known: Sequence[Digest] = (),
    *,
    hash_block: HashBlock = hash_bytes,
) -> Part:
    """Size and digests of a file, looked at so that an I/O error is an exception, not a signal.

    Parameters
    ----------
    path, name : str
        Of the file and of the part.
    layout : Layout, optional
        How it is cut into blocks; into ones of 4 MiB from its beginning if not given.
    known : sequence of Digest
        Digests of the blocks of the layout's body: those are not read.
    hash_block : callable
        Bytes -> digest.

    Raises
    ------
    CannotStore
        If the file has no such layout, or not so many blocks.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = os.fstat(fd).st_size
        cut = _cut_for(name, size, layout)
        told = dict(enumerate(known, start=1 if layout is not None and layout.head else 0))
        if layout is not None and known and len(known) != -(-layout.body // layout.block):
            raise CannotStore(f"the type spec tells {len(known):,} digests of the part {name!r} of layout {layout}")

        scratch, pages = _Scratch(), file_pages(fd, size) if size >= WORTHWHILE and not known else None

        def digest_of(index: int) -> Digest:
            if index in told:
                return told[index]
            start, stop = cut.span(index)
            in_place = None if pages is None else pages.bytes_at(start, stop)
            digest = hash_block(_span(fd, scratch, start, stop) if in_place is None else in_place)
            if pages is not None:
                pages.let_go(start, stop)
            return digest

        blocks = for_each_block(cut.count, digest_of, parallel=not known and size >= WORTHWHILE)
    finally:
        close_read(fd)
    return make_part(name, size, blocks, layout)


def _cut_for(name: str, size: int, layout: PartLayout | None) -> Cut:
    try:
        return Cut(size, layout)
    except ValueError as error:
        raise CannotStore(f"the part {name!r}: {error}") from error


class _Scratch(threading.local):
    """A buffer for each thread: fresh memory for each block would cost more than reading it."""

    buffer = bytearray()

    def view(self, size: int) -> memoryview:
        if len(self.buffer) < size:
            self.buffer = bytearray(size)
        return memoryview(self.buffer)[:size]


def _span(fd: int, scratch: _Scratch, start: int, stop: int) -> memoryview:
    view = scratch.view(stop - start)
    read_all(fd, view, start)
    return view


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
        self.checks.forget(sealed.address)
        for part in sealed.record.parts:
            self.checks.trust(sealed.address, os.path.join(target, part.name), part)

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
        if prefix not in self._synced_folders:
            sync_path(self.layout.objects)
            self._synced_folders.add(prefix)

    def quarantine(self, address: Digest) -> str | None:
        """Put what is at the address aside; the new path, or None if nothing was there."""
        self.checks.forget(address)
        aside = self.layout.aside(address)
        try:
            os.rename(self.layout.object_folder(address), aside)
        except FileNotFoundError:
            return None
        return aside

    def remove(self, address: Digest) -> None:
        """Remove an object's files. Open memory maps of them stay valid."""
        self.checks.forget(address)
        path = self.layout.object_folder(address)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            _unlink(path)

    def forget_checked(self, address: Digest) -> None:
        """Check the files of an object again when they are next asked for."""
        self.checks.forget(address)

    def addresses(self) -> Iterator[Digest]:
        """Every address at which there is something."""
        for prefix in sorted(os.listdir(self.layout.objects)):
            folder = os.path.join(self.layout.objects, prefix)
            names = os.listdir(folder) if os.path.isdir(folder) else []
            yield from (name for name in sorted(names) if is_address(name))


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

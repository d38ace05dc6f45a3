"""An object while it is made: parts written aside and hashed as they pass, then described, with an address.

This file may know: bytes, checksums, type specs' stages. It may not know: lmdb, the queue of commits, where it goes.

A payload is written aside (`StagedObject`), described (`seal`), and, if it consists of files, moved to its address
(`objects.Objects.publish`). Nothing that a type spec names becomes a path unless `check_part_name` has accepted it.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pyplantx.basics.disk import allow
from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import CannotStore
from pyplantx.fingerprint.value import BLOCK, BlockHasher, hash_bytes, hash_text
from pyplantx.specs import writeback
from pyplantx.specs.base import Buffer, Written
from pyplantx.specs.base import Layout as PartLayout
from pyplantx.specs.buffers import LAID_OUT, file_pages
from pyplantx.specs.parallel import WORTHWHILE, for_each_block
from pyplantx.warehouse.files import RESUME, Layout, fresh_id, make_folder, remove_tree, unlink, write_all
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.records import (
    IN_FILES,
    IN_RECORD,
    IN_SMALL,
    Cut,
    ObjectRecord,
    Part,
    make_part,
    to_json,
)
from pyplantx.warehouse.verify import close_read, read_all

if TYPE_CHECKING:
    from pyplantx.warehouse.sealing import Sealing

#: Bytes of a block -> its digest.
HashBlock = Callable[[Buffer], Digest]

#: Payloads up to these many bytes: in the reference itself, in the index, in the second environment.
TINY, LITTLE, SMALL = 128, 8 * 1024, LAID_OUT

_LETTERS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_IN_PART_NAMES = _LETTERS | set("._-")
_LONGEST_PART_NAME = 100


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
            write_all(self._fd, piece)
            if self._early:
                writeback.begin(self._fd, self._end, piece.nbytes)
            self._end += piece.nbytes
            self._hasher.update(piece)

    def finish(self) -> Part:
        allow(self._fd, 0o400)
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
        """Bytes that were written, as far as that can be told; for messages."""
        try:
            files = os.scandir(self.folder) if self.folder is not None else ()
            return self._held + sum(entry.stat().st_size for entry in files)
        except OSError:  # no descriptor is left, say, and an error is being told just now
            return self._held

    def discard(self) -> None:
        """Forget everything; remove what was written, unless by the process from which this one was forked."""
        self._memory.clear()
        folder, self.folder = self.folder, None
        if folder is not None and self._staging.is_ours:
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
        allow(fd, 0o400)
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
    allow(path, 0o600)
    part = hash_file(path, name, *(known or ()), hash_block=hash_block)
    allow(path, 0o400)
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

    Attributes
    ----------
    is_ours : bool
        Whether this process has begun it.
    """

    def __init__(self, layout: Layout, session: str, sealing: Sealing | None = None, *, durable: bool = False) -> None:
        self.sealing = sealing
        self.is_ours = True
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
                unlink(self._lease.path)
        except OSError:
            return  # what is left is swept by the next session
        finally:
            self._lease.close()

    def forget(self) -> None:
        """In a forked child: the lease belongs to the parent, and so does what is staged."""
        self.is_ours = False
        self._lease.forget()


#: Bytes that the name of a folder has at most that has a lease beside it: file systems allow 255.
_LONGEST_NAME = 255 - len(".lease")


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
        if len(os.fsencode(name)) > _LONGEST_NAME:  # too long for a lease, so it is no session's
            remove_tree(path)
            continue
        lease = FileLock(f"{path}.lease")
        if lease.acquire():
            remove_tree(path)
            unlink(lease.path)
            swept.append(path)
        lease.close()
    return swept


# -- files that are there already -----------------------------------------------------------------------------------


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

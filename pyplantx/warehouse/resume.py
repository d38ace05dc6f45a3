"""Workspaces: what a reactor leaves so that it can go on after a kill. They outlive their session.

A workspace is the folder ``staging/resume/<reactor>/<key>/`` with a lock that dies with its holder, a *ledger*, and the
files that the ledger speaks of. What the lines mean belongs to `pyplantx.blocks.logbook`; this file knows how they are
kept: appended, numbered, each with a checksum, and the first line that does not match ends them.

This file may know: paths, locks, bytes. It may not know: reactors, blocks, arrays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.basics.logs import log
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, DamagedObject, WarehouseError
from pyplantx.fingerprint.value import Hasher, hash_bytes, hash_text
from pyplantx.specs.base import Buffer, IngredientTypeSpec, Layout
from pyplantx.warehouse.files import RESUME, in_words, make_folder, read_ordinary, remove_tree
from pyplantx.warehouse.files import Layout as Folders
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.payloads import MemoryPayload
from pyplantx.warehouse.records import from_json, to_json
from pyplantx.warehouse.staging import check_part_name

if TYPE_CHECKING:
    from pyplantx.specs import SpecRegistry

#: Seconds after which a workspace that nobody holds is given up.
KEPT_FOR = 7 * 24 * 3600.0

_LOCK, _LEDGER, _BEGUN = "lock", "ledger", "begun"
_CHECK = 16  #: characters of checksum in front of each line
#: There is none, or something else in its place: what is left then is of no use, and is removed.
_NO_LEDGER = (errno.ENOENT, errno.ELOOP, errno.EINVAL)
_TRIES = 5  #: of taking a folder that others remove at the same time

#: All that this process holds: a forked child must let go of them.
_held: weakref.WeakSet[Workspace] = weakref.WeakSet()


class Ledger:
    """A file of checksummed lines that is only appended to.

    Parameters
    ----------
    path : str
        The file; made by the first `append`.
    key : Digest
        Enters each checksum: lines of another ledger don't count here.

    Attributes
    ----------
    entries : list of dict
        What the lines say that `read` has found whole; not what was appended since, of which there may be millions.
    count : int
        How many lines there are.
    """

    def __init__(self, path: str, key: Digest) -> None:
        self._path, self._key = path, key
        self.entries: list[dict[str, Any]] = []
        self.count = self._end = 0  # where the next line will be
        self._ends: list[int] = []  # of the entries
        self._fd = -1

    def read(self) -> None:
        """Read the lines; a torn or altered one ends them, and the next `append` overwrites it."""
        try:
            data = read_ordinary(self._path)
        except OSError as error:
            if error.errno in _NO_LEDGER:
                return
            raise
        for line in data.splitlines(keepends=True):
            entry = self._decoded(line)
            if entry is None:
                return
            self._added(len(line))
            self.entries.append(entry)
            self._ends.append(self._end)

    def _added(self, length: int) -> None:
        self.count += 1
        self._end += length

    def cut(self, count: int) -> None:
        """Forget all but the first of the entries; the next `append` overwrites what follows them."""
        self.close()
        del self.entries[count:], self._ends[count:]
        self.count, self._end = count, self._ends[-1] if count else 0

    def take_entries(self) -> list[dict[str, Any]]:
        """The entries, which are not kept here any more."""
        entries, self.entries, self._ends = self.entries, [], []
        return entries

    def _decoded(self, line: bytes) -> dict[str, Any] | None:
        check, _, text = line[:-1].partition(b" ")
        if line[-1:] != b"\n" or check != self._check(text):
            return None
        try:
            entry = from_json(text.decode())
        except ValueError:  # anybody can compute the checksum
            return None
        return entry if isinstance(entry, dict) else None

    def _check(self, text: bytes) -> bytes:
        return hash_bytes(f"{self._key} {self.count} ".encode() + text)[:_CHECK].encode()

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line. It survives the death of the process when this returns."""
        text = to_json(entry).encode()
        line = self._check(text) + b" " + text + b"\n"
        if self._fd < 0:
            flags = (
                os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )  # no wait for a pipe's reader
            self._fd = os.open(self._path, flags, 0o600)
            os.ftruncate(self._fd, self._end)
        written = os.pwrite(self._fd, line, self._end)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._added(written)

    def close(self) -> None:
        """Close the file; it can be appended to again.

        A failing disk is nobody's trouble here: the descriptor is given back in any case, and a block whose line is not
        there, or not whole, is done again.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.close(fd)
        except OSError as error:
            log().debug("%s: closed with %s", self._path, error)


class Workspace:
    """One folder, locked. Get it from `Workspaces.take`.

    Attributes
    ----------
    key : Digest
        What it was asked for by.
    ledger : Ledger
        What is finished.
    """

    def __init__(self, folder: str, key: Digest, lock: FileLock) -> None:
        self._folder, self._lock, self.key = folder, lock, key
        self.ledger = Ledger(os.path.join(folder, _LEDGER), key)
        self.ledger.read()
        _held.add(self)

    def path(self, name: str) -> str:
        """The path of a file in it."""
        return os.path.join(self._folder, check_part_name(name))

    def has(self, name: str) -> bool:
        """Whether there is such a file; nothing else counts."""
        return _is_ordinary(self.path(name))

    def link(self, source: str, name: str) -> None:
        """Give a file a second name here: it stays when its own folder is swept."""
        self.unlink(name)
        os.link(source, self.path(name), follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file, or what was put in its place, if it is there."""
        try:
            _remove(self.path(name))
        except FileNotFoundError:
            return

    def begin(self, number: int) -> None:
        """Note that a piece of work is begun. It survives the death of the process when this returns."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path(_BEGUN), flags, 0o600)
        try:
            os.pwrite(fd, number.to_bytes(8, "little"), 0)
        finally:
            os.close(fd)

    def begun(self) -> int:
        """The last piece of work that was begun; -1 if there is none, or nothing tells."""
        try:
            data = read_ordinary(self.path(_BEGUN))
        except OSError:
            return -1
        return int.from_bytes(data, "little") if len(data) == 8 else -1

    def clear(self) -> None:
        """Forget all that is in it."""
        self.ledger.close()
        self.ledger = Ledger(os.path.join(self._folder, _LEDGER), self.key)
        for name in os.listdir(self._folder):
            if name != _LOCK:
                _remove(os.path.join(self._folder, name))

    def remove(self) -> None:
        """It is no longer needed: remove folder and lock. What was let go of may be another's by now, and stays."""
        if not self._lock.is_open:
            return
        self.ledger.close()
        remove_tree(self._folder)
        self.close()
        for folder in (os.path.dirname(self._folder), os.path.dirname(os.path.dirname(self._folder))):
            _remove_if_empty(folder)

    def close(self) -> None:
        """Let go of it; whoever comes next may take it."""
        self.ledger.close()
        self._lock.close()
        _held.discard(self)

    # -- values

    def write_value(self, name: str, value: Any, registry: SpecRegistry) -> dict[str, Any]:
        """Keep a value in a folder of its own.

        Parameters
        ----------
        name : str
            Of the folder.
        value : object
        registry : SpecRegistry
            Whose types ``simple`` and ``object`` do it.

        Returns
        -------
        dict
            What `read_value` needs, for the ledger.

        Raises
        ------
        CannotStore
            If it can't be written; says where inside it.
        WarehouseFull, WarehouseError
            If the disk is full, or fails.
        """
        folder = self.path(name)
        self.unlink(name)
        spec = registry.infer(value)
        if spec.name != "simple":
            spec = registry.get("object")
        stage = _ValueStage(folder)
        try:
            with in_words("a checkpoint can't be kept", os.path.dirname(folder)):
                os.mkdir(folder, 0o700)
                written = spec.write(value, stage)
        except BaseException:
            remove_tree(folder)
            raise
        return {"folder": name, "spec": spec.name, "version": spec.version, "meta": written.meta, "parts": stage.parts}

    def read_value(self, kept: dict[str, Any], spec: IngredientTypeSpec) -> Any:
        """The value that `write_value` kept.

        Raises
        ------
        DamagedObject
            If it is gone, or not what was written.
        """
        payload = MemoryPayload(_KeptParts(self.path(kept["folder"]), kept["parts"]))
        return spec.open(payload, kept["meta"], kept["version"])

    def rename_value(self, kept: dict[str, Any], told: dict[str, Any]) -> None:
        """A value takes the place of another one."""
        if kept["folder"] != told["folder"]:
            self.unlink(told["folder"])
            os.rename(self.path(kept["folder"]), self.path(told["folder"]))

    def remove_value(self, kept: dict[str, Any]) -> None:
        """A later value has taken its place."""
        remove_tree(self.path(kept["folder"]))


class _ValueStage:
    """A `pyplantx.specs.base.Stage` in a folder of a workspace, for specs that write parts from buffers."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.parts: dict[str, Digest] = {}

    def write(self, part: str, chunks: Iterable[Buffer]) -> None:
        """Write one part, hashed as it passes."""
        hasher = Hasher()
        with open(os.path.join(self._folder, check_part_name(part)), "xb") as file:
            for chunk in chunks:
                file.write(chunk)
                hasher.update(chunk)
        self.parts[part] = hasher.hexdigest()

    def path(self, part: str) -> str:
        """Not for values."""
        raise BadRequest(f"a value that makes the file {part!r} itself can't be kept by a checkpoint")

    def write_array(self, part: str, head: bytes, body: Buffer, block: int) -> list[Digest]:
        """Write head and body as they come."""
        self.write(part, (head, body))
        view = memoryview(body).cast("B")
        return [hash_bytes(view[start : start + block]) for start in range(0, len(view), block)]

    def describe(self, part: str, layout: Layout, digests: object) -> None:
        """Of no use here: the whole part is checked at once."""


class _KeptParts(Mapping[str, bytes]):
    """The parts in such a folder, each read and checked when it is asked for."""

    def __init__(self, folder: str, digests: dict[str, Digest]) -> None:
        self._folder, self._digests = folder, digests

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    def __getitem__(self, part: str) -> bytes:
        try:
            data = read_ordinary(os.path.join(self._folder, check_part_name(part)))
        except OSError as error:
            raise DamagedObject(f"the part {part!r} of a kept value is gone: {error.strerror}") from None
        if hash_bytes(data) != self._digests.get(part):
            raise DamagedObject(f"the part {part!r} of a kept value does not match its checksum")
        return data


class Workspaces:
    """The workspaces of one warehouse.

    Parameters
    ----------
    layout : Layout
        The warehouse's folders.
    registry : SpecRegistry
        For values.
    trusts_code : callable
        Whether values that can run code when they are decoded may be decoded.
    """

    def __init__(self, layout: Folders, registry: SpecRegistry, trusts_code: Callable[[], bool]) -> None:
        self.registry, self._layout, self._trusts_code = registry, layout, trusts_code
        self._root = os.path.join(layout.staging, RESUME)
        self._open: dict[str, list[Workspace]] = {}  # by the reactor's folder
        self._known: set[str] | None = None  # folders of reactors that may have workspaces
        self._distrusted: dict[str, set[Digest]] = {}  # reactors, and which of their journals were emptied since

    def take(self, reactor: str, key: Digest) -> Workspace | None:
        """The workspace of a piece of work, with what was left in it; None if another process holds it.

        Parameters
        ----------
        reactor : str
            Id of the reactor.
        key : Digest
            Equal for equal work.
        """
        name = hash_text(reactor)
        path = os.path.join(self._root, name, key)
        lock = _locked(path, (self._root, os.path.dirname(path), path))
        if lock is None:
            return None
        workspace = Workspace(path, key, lock)
        self._open.setdefault(name, []).append(workspace)
        if self._known is not None:
            self._known.add(name)
        return workspace

    def peek(self, reactor: str, key: Digest) -> list[dict[str, Any]]:
        """The lines of a ledger of the reactor, without taking it; none if there is no such ledger."""
        ledger = Ledger(os.path.join(self._root, hash_text(reactor), key, _LEDGER), key)
        ledger.read()
        return ledger.entries

    def open_value(self, workspace: Workspace, kept: dict[str, Any]) -> Any:
        """A value kept in a workspace.

        Raises
        ------
        DamagedObject
            If it can't be had: damaged, of an unknown type, or not to be decoded in a store that is not trusted.
        """
        spec = self.registry.get(kept["spec"], kept["version"])
        if spec.executes_code and not self._trusts_code():
            raise DamagedObject("decoding it could run code, and the store is not trusted to hold code")
        return workspace.read_value(kept, spec)

    def sealed(self, path: str) -> str | None:
        """What a file is called in the store, if it belongs to an object: its address says what is in it; else None.

        Parameters
        ----------
        path : str
            Without symbolic links, as the kernel tells it.
        """
        objects = os.path.realpath(self._layout.objects) + os.sep
        return path[len(objects) :] if path.startswith(objects) else None

    def copy_object(self, address: Digest, part: str, target: str) -> None:
        """Copy a part of a sealed object, which nobody may alter; the copy is the caller's to check.

        Raises
        ------
        PayloadMissing, OSError
            If it is not there.
        """
        import shutil

        source = os.path.join(self._layout.object_folder(address), check_part_name(part))
        shutil.copyfile(source, target, follow_symlinks=False)

    def drop(self, workspace: Workspace, *, remove: bool) -> None:
        """Let go of a workspace, and remove it if it is of no use."""
        workspace.remove() if remove else workspace.close()  # before it is forgotten: Ctrl-C may come between
        for held in self._open.values():
            if workspace in held:
                held.remove(workspace)

    def distrust(self, reactor: str) -> None:
        """A reactor could not go on with one of its journals: what others tell is of no use to it either."""
        self._distrusted[reactor] = set()

    def take_journal(self, reactor: str, key: Digest) -> Workspace | None:
        """As `take`; what an earlier run has left in it is forgotten if it is not to be trusted."""
        workspace = self.take(reactor, key)
        emptied = self._distrusted.get(reactor)
        if workspace is not None and emptied is not None and key not in emptied:
            emptied.add(key)
            workspace.clear()
        return workspace

    def finished(self, reactor: str) -> None:
        """A reactor has committed: what was kept for it goes, unless another process holds it."""
        self._distrusted.pop(reactor, None)
        with contextlib.suppress(OSError):  # what can't be removed now is the next time, or when a week has gone by
            self._remove_all(reactor)

    def _remove_all(self, reactor: str) -> None:
        if self._known is None:
            self._known = set(_names(self._root))
        if not self._known:
            return
        name = hash_text(reactor)
        if name not in self._known:
            return
        held = self._open.get(name, [])
        while held:  # Ctrl-C may come: what is left then is closed with the others, or removed the next time
            held[-1].remove()
            held.pop()
        self._open.pop(name, None)
        for path in _folders(os.path.join(self._root, name)):
            _remove_unheld(path, older_than=0.0)
        self._known.discard(name)

    def close(self) -> None:
        """Let go of all; they stay for the next session."""
        for held in self._open.values():
            for workspace in held:
                workspace.close()
        self._open.clear()


def sweep_workspaces(staging: str, older_than: float = KEPT_FOR) -> list[str]:
    """Remove workspaces that nobody holds and nobody has written to for `older_than` seconds.

    Returns
    -------
    list of str
        The folders that were removed.
    """
    reactors = _folders(os.path.join(staging, RESUME))
    return [path for reactor in reactors for path in _folders(reactor) if _remove_unheld(path, older_than)]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _folders(folder: str) -> Iterator[str]:
    return (os.path.join(folder, name) for name in sorted(_names(folder)))


def _locked(path: str, folders: Iterable[str]) -> FileLock | None:
    """The lock of a folder that is made if it is missing; others may be removing it right now."""
    for _ in range(_TRIES):
        lock = FileLock(os.path.join(path, _LOCK))
        try:
            for folder in folders:
                make_folder(folder)
            if not lock.acquire():
                return None
            if lock.is_current():
                return lock
        except (FileNotFoundError, WarehouseError) as error:
            log().debug("%r was removed while it was taken: %s", path, error)
        lock.close()
    return None


def _remove_unheld(path: str, older_than: float) -> bool:
    """Remove a workspace unless somebody holds it or it is too young."""
    try:
        age = time.time() - max(os.lstat(path).st_mtime, *_times(path))
        if age < older_than:
            return False
        lock = FileLock(os.path.join(path, _LOCK))
        if not lock.acquire():
            lock.close()
            return False
    except (FileNotFoundError, WarehouseError):  # somebody else was quicker
        return False
    remove_tree(path)
    lock.close()
    _remove_if_empty(os.path.dirname(path))
    _remove_if_empty(os.path.dirname(os.path.dirname(path)))
    return True


def _times(path: str) -> list[float]:
    with os.scandir(path) as entries:
        return [0.0, *(entry.stat(follow_symlinks=False).st_mtime for entry in entries)]


def _is_ordinary(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        os.unlink(path)


def _remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        return  # others have something in it


def _let_go_in_child() -> None:
    for workspace in list(_held):
        workspace.close()


os.register_at_fork(after_in_child=_let_go_in_child)

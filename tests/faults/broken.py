"""Stores with one defect each: the positive controls. A harness that does not notice its defect proves nothing.

Each function breaks the classes of this process; harnesses call `apply` before they fork.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from pyplantx import errors
from pyplantx.executors import processes
from pyplantx.specs import builtin, chunked, library
from pyplantx.warehouse import (
    collect,
    committer,
    damage,
    environments,
    files,
    index,
    inspection,
    objects,
    opening,
    recordchecks,
    records,
    session,
    staging,
    storing,
    verify,
)
from pyplantx.warehouse.locks import FileLock, FolderLock
from pyplantx.warehouse.warehouse import Warehouse


def shared_name() -> None:
    """All sessions write into one folder under one name, as caches do that name a temporary file after its target."""

    def new_folder(self: Any) -> str:
        path = os.path.join(os.path.dirname(self._folder), "shared")
        os.makedirs(path, exist_ok=True)
        return path

    staging.Staging.new_folder = new_folder  # type: ignore[method-assign]
    _without_exclusive_opening()


def _without_exclusive_opening() -> None:
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        if flags & os.O_EXCL and "/shared/" in os.fspath(path):
            flags = flags & ~os.O_EXCL | os.O_TRUNC
        return real(path, flags, mode, **options)

    staging.os = _Patched(os, open=opened)  # type: ignore[assignment]


class _Patched:
    """A module with some names replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self.__dict__.update(vars(module))
        self.__dict__.update(replaced)


def missing_sync() -> None:
    """Nothing is ever synced, though it is announced as if it were."""
    objects.Objects.sync = lambda self, address, record: None  # type: ignore[method-assign]
    files.sync_path = objects.sync_path = inspection.sync_path = lambda path: None
    real = environments.Environments.__init__

    def init(self: Any, layout: Any, **options: Any) -> None:
        real(self, layout, **{**options, "durable": False})

    environments.Environments.__init__ = init  # type: ignore[method-assign]


def missing_payload_sync() -> None:
    """The index is synced, and what it names is not: objects, the folders that they lie in."""
    objects.Objects.sync = lambda self, address, record: None  # type: ignore[method-assign]


def missing_checksum() -> None:
    """What is read is believed: records, payloads in the index, files."""
    believed: Callable[[bytes, bytes], bytes] = lambda key, record: record[records.CHECK :]  # noqa: E731
    records.unseal_record = recordchecks.unseal_record = believed
    objects.Objects._check = lambda self, path, info, part: None  # type: ignore[method-assign]
    _believe_memory()


def _believe_memory() -> None:
    def memory_parts(self: Any, address: str, record: Any, payload: bytes) -> Any:
        stored = payload or self._reader.payload(address.encode()) or b""
        return records.split_payload(record, stored)

    opening.Opener.memory_parts = memory_parts  # type: ignore[method-assign]


def leaked_lock() -> None:
    """A lock is kept when an exception passes by, as where ``finally`` was forgotten."""
    real = FileLock.release

    def release(self: FileLock) -> None:
        if sys.exc_info()[0] is None:
            real(self)

    FileLock.release = release  # type: ignore[method-assign]


def early_announcement() -> None:
    """A reactor is announced when it is queued, not when it is durable."""
    real = committer.Committer.commit

    def commit(self: Any, what: Any, version: Any, announce: Any) -> None:
        real(self, what, version, None)
        if announce is not None:
            self._due.append(announce)

    committer.Committer.commit = commit  # type: ignore[method-assign]


def trusting_address() -> None:
    """Files are copied to their address one by one, and what lies there is believed to be whole, of whatever size."""
    missing_checksum()

    def find(self: Any, address: str, path: str, part: Any, info: os.stat_result, how: str) -> verify.PartCheck:
        return verify.PartCheck(path, part, verify.stamp_of(info), right=True)

    verify.Checks._find = find  # type: ignore[method-assign]

    def publish(self: Any, stage: Any, sealed: Any) -> None:
        folder, target = stage.release_folder(), self.layout.object_folder(sealed.address)
        os.makedirs(target, 0o700, exist_ok=True)
        for part in sealed.record.parts:
            if not os.path.exists(os.path.join(target, part.name)):
                there = os.path.join(target, part.name)
                with open(os.path.join(folder, part.name), "rb") as source, open(there, "wb", buffering=0) as file:
                    while piece := source.read(1 + part.size // 16):
                        file.write(piece)
        objects.remove_tree(folder)

    objects.Objects.publish = publish  # type: ignore[method-assign]


def swallowed_errors() -> None:
    """A write to the index that fails counts as done, as where an ``except`` was too wide."""
    real = environments.Environments.transact

    def transact(self: Any, env: Any, work: Any) -> None:
        with contextlib.suppress(errors.WarehouseError):
            real(self, env, work)

    environments.Environments.transact = transact  # type: ignore[method-assign]


def endless_wait() -> None:
    """Locks are waited for without a limit."""
    real = FileLock.acquire

    def acquire(self: FileLock, timeout: float = 0.0, *, shared: bool = False) -> bool:
        return real(self, 1e9 if timeout else 0.0, shared=shared)

    FileLock.acquire = acquire  # type: ignore[method-assign]


def eager_collection() -> None:
    """What looks unused is removed while others are about to name it."""
    session.Session.is_alone = lambda self: True  # type: ignore[method-assign]
    real = collect.collect
    collect.collect = lambda session, reader, *rest: real(session, reader, *rest)


def no_claims() -> None:
    """Nobody waits for anybody: each process does all the work."""
    from pyplantx.session.turns import Turns

    Turns.take = lambda self, id, root, reason: True  # type: ignore[method-assign]


def unmarked_fork() -> None:
    """A forked child goes on with the handles of its parent."""
    session._after_fork_in_child.__code__ = (lambda: None).__code__


def verified_by_nobody() -> None:
    """A data file is given to LMDB as it is."""
    inspection._is_sound = session.refuse_damaged = lambda *_: True  # type: ignore[assignment]


def forgotten_damage() -> None:
    """Damage that is met while a store is open is told, and not noted for the next opening."""
    damage.Damage.doubt = lambda self, trouble: self._report(trouble)  # type: ignore[method-assign]


def removable_locks() -> None:
    """Who removes the lock files lets others believe that the store is unused."""
    FolderLock.acquire = lambda *_, **__: True  # type: ignore[method-assign]


def believed_code() -> None:
    """Code that another Python has written is run."""
    builtin._check_python = lambda meta: None


def bare_errors() -> None:
    """What the system says is passed on as it is, without a word about the store."""

    def bare(error: OSError, *_: Any) -> Exception:
        return OSError(error.errno, error.strerror)

    files.disk_error = storing.disk_error = index.disk_error = environments.disk_error = session.disk_error = bare


def believed_reads() -> None:
    """A read that fails counts as done: what it has not filled stays zero, and nobody compares that."""
    real, compare = verify.PartCheck._read, verify.PartCheck._compare
    last = threading.local()

    def read(self: Any, fd: int, view: memoryview, start: int) -> None:
        last.failed = False
        try:
            real(self, fd, view, start)
        except errors.WarehouseError:
            self.damage, last.failed = None, True

    def compare_some(self: Any, block: int, data: memoryview) -> None:
        if not last.failed:
            compare(self, block, data)

    verify.PartCheck._read = read  # type: ignore[method-assign]
    verify.PartCheck._compare = compare_some  # type: ignore[method-assign]


def unasked_memory() -> None:
    """HDF5 is entered without asking whether there is memory for it, and none is put aside for its end."""

    class Nothing:
        def __init__(self, nbytes: int, purpose: str) -> None:
            pass

        def release(self) -> None:
            pass

    library.Reserve = Nothing  # type: ignore[assignment, misc]
    library.ask_for_memory = chunked.ask_for_memory = lambda nbytes, purpose: None


def swallowed_memory() -> None:
    """A reactor that runs out of memory counts as done, with what it has sent until then."""
    from pyplantx.runs.run import Run

    real = Run._raised

    def raised(self: Any, error: BaseException) -> Any:
        return self._ended() if isinstance(error, MemoryError) else real(self, error)  # type: ignore[arg-type, unused-ignore]

    Run._raised = raised  # type: ignore[method-assign]


def unshared_session() -> None:
    """Each plant of a process opens the files for itself, which LMDB forbids."""

    class Forgetful(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return default

    session._sessions = Forgetful()


def forgetful() -> None:
    """What can't be read now is taken for damaged, and forgotten, though it can't even be put aside."""
    verify._NOT_ITS_FAULT = set()
    real = objects.Objects.quarantine

    def quarantine(self: Any, address: str) -> str | None:
        with contextlib.suppress(OSError):
            return real(self, address)
        return None

    objects.Objects.quarantine = quarantine  # type: ignore[method-assign]


def believed_deaths() -> None:
    """A worker that has died is taken to have given what was given last."""
    real, given = processes._Session._asked, list[Any]()

    def asked(self: Any, call: Any, ends: list[str]) -> Any:
        answer = real(self, call, ends)
        given[:] = [answer] if answer is not None else given
        return given[0] if given else answer

    processes._Session._asked = asked  # type: ignore[method-assign]


def kept_connections() -> None:
    """The connection to a worker that has died stays open."""
    real, kept = processes.WorkerProcesses.drop, list[int]()

    def drop(self: Any, worker: Any, *patience: float, **named: float) -> str:
        kept.append(os.dup(worker._channel._end.fileno()))
        return real(self, worker, *patience, **named)

    processes.WorkerProcesses.drop = drop  # type: ignore[method-assign]


def early_names() -> None:
    """What is sent has its name in the store at once, whether or not its reactor comes to its end."""
    stored = dict[str, Any]()
    store, last_ref = Warehouse.store, Warehouse.last_ref

    def named(self: Any, name: str, value: Any, type_given: Any = None) -> Any:
        return stored.setdefault(name, store(self, name, value, type_given))

    Warehouse.store = named  # type: ignore[method-assign]
    Warehouse.last_ref = lambda self, name: last_ref(self, name) or stored.get(name)  # type: ignore[method-assign]


def nameless_deaths() -> None:
    """Nobody says how a worker has ended."""
    processes._in_words = lambda code: "it is gone"


STORES: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        shared_name,
        missing_sync,
        missing_payload_sync,
        missing_checksum,
        leaked_lock,
        early_announcement,
        trusting_address,
        swallowed_errors,
        endless_wait,
        eager_collection,
        no_claims,
        unmarked_fork,
        verified_by_nobody,
        forgotten_damage,
        removable_locks,
        believed_code,
        bare_errors,
        believed_reads,
        unasked_memory,
        swallowed_memory,
        unshared_session,
        forgetful,
        believed_deaths,
        nameless_deaths,
        kept_connections,
        early_names,
    )
}


def apply(name: str | None) -> None:
    """Break this process's classes; nothing happens without a name."""
    if name is not None:
        STORES[name]()

"""One directory, opened: format, locks, index, objects, committer. Shared by all warehouses of this process on it.

This file may know: in which order a directory is opened and closed, and what a fork must not take along. It may not
know: records, specs, values.
"""

from __future__ import annotations

import atexit
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from pyplantx.errors import StoreBusy, StoreReadOnly, StoreTooNew, WarehouseError
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.claims import sweep_claims
from pyplantx.warehouse.committer import Committer
from pyplantx.warehouse.index import Index, inspect_files, is_as_closed, refuse_damaged, write_mark
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.objects import (
    Layout,
    Objects,
    Staging,
    disk_error,
    fresh_id,
    in_words,
    sweep_staging,
    write_file,
)
from pyplantx.warehouse.records import from_json, to_json

#: The format that is written, and the newest that is read. specs/warehouse/ has a folder for each.
FORMAT_NAME, FORMAT_VERSION = "pyplantx warehouse", 1


#: Seconds for which the answer to "is anybody else here?" is good.
_LOOK_AROUND_EVERY = 0.05


def report(sentence: str) -> None:
    """Tell the user's log about damage that was dealt with."""
    import logging  # 6 ms: not for those who have no damage

    logging.getLogger("pyplantx.warehouse").warning("%s", sentence)


class Session:
    """An open directory. Get it with `open_session`, give it back with `close_session`.

    Attributes
    ----------
    layout, index, objects, committer, staging
        The parts of the open store.
    id : str
        Names this session in lock files and staging.
    """

    def __init__(self, root: str, *, durability: str, read_only: bool, lock_timeout: float) -> None:
        self.layout = Layout(root)
        self.id = fresh_id()
        self.pid = os.getpid()
        self.durability = durability
        self.read_only = read_only
        self.users = 0
        self._looked_around, self._others = -_LOOK_AROUND_EVERY, False
        self._presence = FileLock(os.path.join(self.layout.locks, "presence"), readable_only=read_only)
        self._entry = FileLock(os.path.join(self.layout.locks, "entry"), readable_only=read_only)
        self.staging = Staging(self.layout, self.id)
        durable = durability == "power"
        self.objects = Objects(self.layout)
        self.index = Index(self.layout, durable=durable, read_only=read_only, lock_timeout=lock_timeout, report=report)
        self.committer = Committer(self.index, self.objects, durable=durable, report=report)

    def open(self) -> None:
        """Open the directory. If that fails, or is interrupted, `leave` cleans up."""
        with in_words(f"the warehouse {self.layout.root!r} can't be opened", os.path.dirname(self.layout.root)):
            self._prepare(self.index.lock_timeout)
            self.index.open()

    def _prepare(self, lock_timeout: float) -> None:
        """Check the format, take the locks, and let nothing damaged reach LMDB."""
        check_format(self.layout)
        if self.read_only:
            self._look_only(lock_timeout)
            return
        self.layout.make()
        if _read_format(self.layout.format) is None:  # new, or lost, or damaged
            write_format(self.layout)
        self._enter(lock_timeout)
        try:
            if self._presence.acquire():  # nobody else is here
                inspect_files(self.layout, report)
                sweep_staging(self.layout)
                sweep_claims(self.layout.claims)
            self._be_present(lock_timeout)
        finally:
            self._entry.release()
        self.staging.begin()

    def _enter(self, lock_timeout: float) -> None:
        """Take the lock without which nobody tries to be alone.

        Trying to make a shared lock exclusive gives it away for a moment, even in vain. Meanwhile nobody else
        may come in and believe that the store is unused.
        """
        if not self._entry.acquire(lock_timeout):
            raise self._busy(self._entry, lock_timeout)
        self._entry.sign()

    def _look_only(self, lock_timeout: float) -> None:
        if not os.path.exists(os.path.join(self.layout.meta, "data.mdb")):
            raise WarehouseError(
                f"there is no warehouse in {self.layout.root!r}",
                hint="is the path right? Only a plant or export that may write makes one",
            )
        if not os.path.exists(self._presence.path) or not os.path.exists(self._entry.path):
            refuse_damaged(self.layout)  # a copy without the locks: nobody writes here
            return
        if is_as_closed(self.layout):  # needs no lock, and an exclusive one may be more than a reader can get
            self._be_present(lock_timeout)
            return
        self._enter(lock_timeout)
        try:
            if self._presence.acquire():  # nobody else is here
                refuse_damaged(self.layout)
            self._be_present(lock_timeout)
        finally:
            self._entry.release()

    def _be_present(self, lock_timeout: float) -> None:
        """Hold the presence lock together with all others who have the store open."""
        if not self._presence.acquire(lock_timeout, shared=True):
            raise self._busy(self._entry, lock_timeout)

    def _busy(self, lock: FileLock, lock_timeout: float) -> StoreBusy:
        return StoreBusy(
            f"the warehouse {self.layout.root!r} is being opened, checked or closed by {lock.holder()[0]} "
            f"for more than {lock_timeout:g} s",
            hint="is that process stopped? Let it go on or end it",
        )

    def is_alone(self) -> bool:
        """Try to have the store to ourselves; while we do, others wait to open it. `share` ends that."""
        if self.read_only or not self._entry.acquire():
            return False
        self._entry.sign()
        return self._presence.acquire()

    def others_present(self) -> bool:
        """Whether other sessions have left a staging folder: they are alive, or died without a sweep since."""
        now = time.monotonic()
        if now - self._looked_around > _LOOK_AROUND_EVERY:
            self._looked_around = now
            try:
                with os.scandir(self.layout.staging) as entries:
                    self._others = any(entry.name.partition(".")[0] != self.id for entry in entries)
            except FileNotFoundError:  # read from a copy without empty folders: nobody can work in that
                self._others = False
        return self._others

    def share(self) -> None:
        """Be one of several again; after `is_alone`, whatever it said: trying gives the shared lock away."""
        if not self.read_only and self._entry.is_open:
            self._be_present(self.index.lock_timeout)
            self._entry.release()

    def close(self) -> None:
        """Write what waits, back up the index, note that all is well. The store is closed whatever fails."""
        try:
            self.committer.close()
            if self.index.changed:
                self.index.back_up()
        finally:
            self.leave(clean=True)

    def leave(self, clean: bool = False) -> None:
        """Let go of everything, from whatever state; `clean`: note that all is well."""
        try:
            self.committer.stop()
        finally:
            self.index.close()
        try:
            if clean and not self.read_only:
                self._mark_clean()
            self.staging.end()
        finally:
            self._presence.close()
            self._entry.close()

    def _mark_clean(self) -> None:
        if os.path.exists(self.layout.mark) or not self.is_alone():
            return
        sweep_claims(self.layout.claims)
        try:
            write_mark(self.layout, durable=self.durability == "power")
        except OSError as error:  # without the mark the next opening verifies the files: slower, not wrong
            report(f"the clean end of {self.layout.root!r} could not be noted: {error.strerror}")

    def forget(self) -> None:
        """In a forked child: nothing of this is ours."""
        self.index.forget()
        self.staging.forget()
        self._presence.forget()
        self._entry.forget()


# -- the format -----------------------------------------------------------------------------------------------------


def check_format(layout: Layout) -> None:
    """Refuse a store of another version before anything is touched.

    A format file that is missing or damaged refuses nothing: its checksum tells damage from a newer version.

    Raises
    ------
    StoreTooNew
        If a newer version of pyplantx has made it.
    """
    version = _read_format(layout.format)
    if version is not None and version != FORMAT_VERSION:
        raise StoreTooNew(
            f"the warehouse {layout.root!r} has format {version}, this pyplantx reads format {FORMAT_VERSION}",
            hint="install the pyplantx that made it, or use another directory; nothing was changed",
        )


def write_format(layout: Layout) -> None:
    """Say which format this store has."""
    said: dict[str, Any] = {"format": FORMAT_NAME, "version": FORMAT_VERSION}
    write_file(layout.format, to_json({**said, "check": _format_check(FORMAT_VERSION)}).encode(), durable=True)


def _read_format(path: str) -> int | None:
    try:
        with open(path, encoding="utf-8") as file:
            said = from_json(file.read(4096).strip())
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("version"), int):
        return None
    version: int = said["version"]
    return version if said.get("check") == _format_check(version) else None


def _format_check(version: int) -> str:
    return hash_text(f"{FORMAT_NAME} {version}")


# -- the sessions of this process --------------------------------------------------------------------------------------

_sessions: dict[str, Session] = {}
_sessions_lock = threading.RLock()


def open_session(directory: str, *, durability: str, read_only: bool, lock_timeout: float) -> Session:
    """The session on a directory: the one that is open in this process already, or a new one.

    LMDB must not open one file twice in a process, so two plants on one directory share everything below them.
    """
    root = os.path.realpath(directory)
    with _sessions_lock:
        session = _sessions.get(root)
        if session is not None and not session.users:
            session.leave()  # its opening or closing was interrupted
            session = None
        if session is None:
            session = _open_new(root, durability, read_only, lock_timeout)
        else:
            _check_same(session, durability, read_only)
        session.users += 1
        return session


def _open_new(root: str, durability: str, read_only: bool, lock_timeout: float) -> Session:
    if not read_only:
        _make_root(root)
    session = Session(root, durability=durability, read_only=read_only, lock_timeout=lock_timeout)
    _sessions[root] = session
    try:
        session.open()
    except BaseException:
        session.leave()
        del _sessions[root]
        raise
    return session


def close_session(session: Session) -> None:
    """Give a session back; the last one who does closes it."""
    if session.pid != os.getpid():
        return  # a copy in a forked child: closing it is the parent's business
    with _sessions_lock:
        session.users -= 1
        if session.users or session.index.closed:
            return
        try:
            session.close()
        except Exception:
            del _sessions[session.layout.root]
            raise
        del _sessions[session.layout.root]


def _check_same(session: Session, durability: str, read_only: bool) -> None:
    if session.read_only and not read_only:
        raise StoreReadOnly(
            f"the warehouse {session.layout.root!r} is open in this process with read_only=True",
            hint="close that one first",
        )
    if session.durability != durability and not read_only:
        raise WarehouseError(
            f"the warehouse {session.layout.root!r} is open in this process with durability={session.durability!r}, "
            f"so it can't be opened with {durability!r} too"
        )


def _make_root(root: str) -> None:
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        if not os.listdir(root) and os.stat(root).st_uid == os.geteuid():
            os.chmod(root, 0o700)  # a fresh folder becomes private whatever the umask made of it
    except FileExistsError:
        raise WarehouseError(f"{root!r} is a file; a warehouse needs a directory") from None
    except OSError as error:
        raise disk_error(error, f"the warehouse {root!r} can't be made", os.path.dirname(root)) from error


def is_private(root: str) -> bool:
    """Whether the store belongs to this user and nobody else may write to it."""
    layout = Layout(root)
    inside = [layout.root, layout.meta, layout.small, layout.objects]
    inside += [os.path.join(folder, "data.mdb") for folder in (layout.meta, layout.small)]
    return all(map(_is_ours, filter(os.path.exists, inside)))


def _is_ours(path: str) -> bool:
    info = os.lstat(path)
    writable = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return info.st_uid == os.geteuid() and not writable and not stat.S_ISLNK(info.st_mode)


# -- fork and exit --------------------------------------------------------------------------------------------------


def _each(action: Callable[[Session], None]) -> None:
    for session in list(_sessions.values()):
        action(session)


def _before_fork() -> None:
    _sessions_lock.acquire()
    _each(lambda session: session.index.pause())


def _after_fork_in_parent() -> None:
    _each(lambda session: session.index.resume())
    _sessions_lock.release()


def _after_fork_in_child() -> None:
    global _sessions_lock
    _each(lambda session: session.forget())
    _sessions.clear()
    _sessions_lock = threading.RLock()


@atexit.register
def _close_all() -> None:
    """What was queued when the interpreter ends is written all the same."""
    with _sessions_lock:
        sessions = list(_sessions.values())
        _sessions.clear()
    for session in sessions:
        if session.pid == os.getpid() and not session.index.closed:
            session.close()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

"""Work claims between processes: of those that want the same reactor run, one runs it and the others wait.

This file may know: one lock file, and who waits for what. It may not know: what the work is; a key is any text.

A claim is a locked byte of one file, at a place that the key's digest names: it costs two microseconds, leaves nothing
behind and dies with its process. Two keys at one place (once in 2**62) would wait for each other: slower, never wrong.
Waiting is bounded, and a wait that would close a circle (we wait for somebody who waits for us) is not begun: then both
compute, which costs time and is never wrong either.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator

from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.objects import fresh_id

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_LONGEST_CHAIN = 64
_WAITS = ".waits"

#: ``struct flock`` of Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")


class Claim:
    """The right to do one piece of work, until `release`, the end of the ``with`` block, or the end of the process."""

    def __init__(self, claims: Claims, place: int) -> None:
        self._claims, self._place, self._held = claims, place, True

    def release(self) -> None:
        """Give it up; doing so twice does no harm."""
        if self._held:
            self._held = False
            self._claims.unlock(self._place)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _File:
    """The lock file of one folder, shared by all of this process: closing any descriptor of it drops every lock."""

    def __init__(self, folder: str) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.holders: dict[int, str] = {}  # place -> which `Claims` of this process
        self._path = os.path.join(folder, "claims.lock")
        self._descriptor = -1

    def take(self, place: int, holder: str) -> bool:
        with self.lock:
            if place in self.holders:
                return False
            try:
                fcntl.lockf(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return False
                raise
            self.holders[place] = holder
            return True

    def give_back(self, place: int) -> None:
        with self.lock:
            self.holders.pop(place, None)
            fcntl.lockf(self._open(), fcntl.LOCK_UN, 1, place)

    def holder(self, place: int) -> tuple[int, str]:
        """Process and `Claims` that hold a place: (0, "") if nobody does, or if that can't be found out."""
        with self.lock:
            if place in self.holders:
                return self.pid, self.holders[place]
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
            try:
                kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(self._open(), fcntl.F_GETLK, asked))
            except (OSError, struct.error):  # another system: waits are bounded all the same
                return 0, ""
            return (0, "") if kind == fcntl.F_UNLCK else (pid, "")

    def is_current(self) -> bool:
        """Whether it is this process's (a forked child inherits no locks), and still the file in the folder."""
        if self.pid != os.getpid():
            return False
        try:
            return self._descriptor < 0 or os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._descriptor


_files: dict[str, _File] = {}
_files_lock = threading.Lock()


def _file_of(folder: str) -> _File:
    key = os.path.realpath(folder)
    with _files_lock:
        found = _files.get(key)
        if found is None or not found.is_current():
            found = _files[key] = _File(key)
        return found


class Claims:
    """The claims of one warehouse object.

    Parameters
    ----------
    folder : str
        Where the lock file is.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file = _file_of(folder)
        self._me = f"{os.getpid()}-{fresh_id()}"

    def claim(self, key: str, timeout: float) -> Claim | None:
        """Take the claim on `key`, waiting for its holder at most `timeout` seconds.

        Parameters
        ----------
        key : str
            Names the work, such as the root and the node at which a replay fell off.
        timeout : float
            Seconds; 0 only tries.

        Returns
        -------
        Claim or None
            None if another still holds it, or waits for us: do the work without a claim.
        """
        place = _place(key)
        if self._file.take(place, self._me):
            return Claim(self, place)
        return self._wait(key, place, timeout) if timeout > 0 else None

    def unlock(self, place: int) -> None:
        """Give a place back; see `Claim.release`."""
        self._file.give_back(place)

    def _wait(self, key: str, place: int, timeout: float) -> Claim | None:
        deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
        self._note_waiting(key)
        try:
            while time.monotonic() < deadline and not self._closes_circle(place):
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(pause * 1.5, _LONGEST_PAUSE)
                if self._file.take(place, self._me):
                    return Claim(self, place)
            return None
        finally:
            _remove(self._waiting_path())

    def _closes_circle(self, place: int) -> bool:
        """Whether the holder of `place` waits, directly or through others, for a claim of ours."""
        seen: set[str] = set()
        places = [place]
        while places and len(seen) < _LONGEST_CHAIN:
            pid, name = self._file.holder(places.pop())
            if name == self._me:
                return True
            for waiter, waited_for in self._waiting(pid, name):
                if waiter not in seen:
                    seen.add(waiter)
                    places.append(waited_for)
        return False

    def _waiting(self, pid: int, name: str) -> Iterator[tuple[str, int]]:
        """What a holder waits for: its name and the place; of another process, all that any of its parts waits for."""
        for entry in os.listdir(self._folder) if pid else ():
            waiter = entry.removesuffix(_WAITS)
            if waiter == entry or waiter == self._me or not waiter.startswith(name or f"{pid}-"):
                continue
            try:
                with open(os.path.join(self._folder, entry), encoding="ascii") as file:
                    yield waiter, int(file.read() or "-1")
            except (OSError, ValueError):
                continue  # it has stopped waiting

    def _note_waiting(self, key: str) -> None:
        with open(self._waiting_path(), "w", encoding="ascii") as file:
            file.write(str(_place(key)))

    def _waiting_path(self) -> str:
        return os.path.join(self._folder, self._me + _WAITS)


def sweep_claims(folder: str) -> None:
    """Remove what waiting processes have left when they died. Call only while no session is open."""
    for name in os.listdir(folder):
        if name.endswith(_WAITS):
            _remove(os.path.join(folder, name))


def _place(key: str) -> int:
    return int(hash_text(key)[:16], 16) >> 2


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

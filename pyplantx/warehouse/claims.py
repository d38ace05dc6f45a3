"""Work claims between processes: of those that want the same reactor run, one runs it and the others wait.

This file may know: one file, mapped into memory, and who waits for what. It may not know: what the work is; a key is
any text.

The file is a table of numbers. Each process draws a number and locks the byte of that number far behind the table, so
that the number means nothing any more once the process is dead. A claim is the number in the place that the key's
digest names, written under a lock that is held for that moment only: it costs three microseconds however many are held
(of a chain that is 100,000 deep all are held at once, and a kernel's list of locks is searched from its start), leaves
nothing behind and dies with its process. The first process to use a table needs no lock until a second one comes, which
says so in the table and waits until the first is between two claims. Two keys at one place would wait for each other:
slower, never wrong.
Waiting is bounded, and a wait that would close a circle (we wait for somebody who waits for us) is not begun: then both
compute, which costs time and is never wrong either. A process that multiprocessing has started, and that is importing
the script, waits for nobody: its parent waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator

from pyplantx.basics.logs import log
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.files import fresh_id, in_words

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_LONGEST_CHAIN = 64
_TABLE, _WAITS = "claims.lock", ".waits"

#: Places of the table, of four bytes each. A power of two.
_PLACES = 1 << 18
#: Behind them: the number of the first process that has used this table, and whether it is just now claiming something.
_FIRST, _BUSY = _PLACES, _PLACES + 1
_BYTES = 4 * (_PLACES + 2)
#: Is there instead of the first one's number, as soon as others have come.
_SEVERAL = (1 << 32) - 1
#: Bytes that are locked and never written: one to change the table, and one for each process's number behind it.
_CHANGING, _NUMBERS = 1 << 40, 1 << 41
#: Seconds after which who waits says so.
_SAY_AFTER = 30.0
#: Seconds to wait for somebody who changes the table, which takes a microsecond: a process that was stopped just then.
_LONGEST_CHANGE = 1.0

#: ``struct flock`` of Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")


_WAITING = (
    "this process has waited %g s for process %s, which computes what is needed here; after %g s (claim_timeout=) "
    "that is done here, too"
)
_NOT_WAITING = (
    "this process was started by multiprocessing and imports the script, which uses the plant again; what the program "
    "itself computes is not waited for, since it may wait for this process. Put what uses the plant under "
    "`if __name__ == '__main__':`"
)


class Claim:
    """The right to do one piece of work, from `take` until `release`, the end of the ``with`` block, or of the process.

    It is there before it is taken: whoever keeps it first can give it back, wherever Ctrl-C comes between.
    """

    __slots__ = ("_claims", "_text", "key", "unsettled")

    def __init__(self, claims: Claims, text: str) -> None:
        self._claims, self._text = claims, text
        self.key = _number(text)
        self.unsettled = False  # in the middle of being taken or given back

    @property
    def holder(self) -> str:
        """Which `Claims` it is of."""
        return self._claims.me

    def take(self, timeout: float = 0.0) -> bool:
        """Whether it could be had, its holder waited for at most so many seconds; see `Claims.claim`."""
        file = self._claims.file
        return file.take(self) or (timeout > 0 and self._claims.wait(self, self._text, timeout))

    def release(self) -> None:
        """Give it up, if it is held; doing so twice does no harm."""
        self._claims.file.give_back(self)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _File:
    """The table of one folder, shared by all of this process: closing any descriptor of it drops every lock."""

    def __init__(self, folder: str) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.holders: dict[int, Claim] = {}  # by key, of this process
        self._counts: dict[int, int] = {}  # place -> how many of the keys above are there
        self._path = os.path.join(folder, _TABLE)
        self._descriptor, self._number = -1, 0
        self._is_introduced = self._is_first = False
        self._table: memoryview

    def take(self, claim: Claim) -> bool:
        key, claim.unsettled = claim.key, True
        place = key % _PLACES
        with self.lock:
            is_free = key not in self.holders
            count = self._counts.get(place, 0)
            if is_free and (count or self._enter(place)):
                self._counts[place] = count + 1
                self.holders[key] = claim
                claim.unsettled = False
                return True
        claim.unsettled = False
        return False

    def give_back(self, claim: Claim) -> None:
        with self.lock:
            is_held = self.holders.get(claim.key) is claim
            if not is_held and not claim.unsettled:
                return
            place, interrupted = claim.key % _PLACES, claim.unsettled
            claim.unsettled = True
            if is_held:
                del self.holders[claim.key]
            count = self._count(place) if interrupted else self._counts[place] - 1
            if count:
                self._counts[place] = count
            else:
                self._counts.pop(place, None)
                if self._descriptor >= 0 and self._table[place] == self._number:
                    self._table[place] = 0
        claim.unsettled = False

    def _count(self, place: int) -> int:
        """How many keys at a place are held, counted anew: Ctrl-C may have come between a key and its count."""
        return sum([key % _PLACES == place for key in self.holders])

    def holder(self, key: int) -> tuple[int, str]:
        """Process and `Claims` that hold a key's place: (0, "") if nobody does, or if that can't be found out."""
        place = key % _PLACES
        with self.lock:
            if place in self._counts:
                held = (claim for other, claim in self.holders.items() if other % _PLACES == place)
                return self.pid, (self.holders.get(key) or next(held)).holder
            self._open()
            return self._process_of(self._table[place]), ""

    def is_current(self) -> bool:
        """Whether it is this process's (a forked child inherits no locks), and still the file in the folder."""
        if self.pid != os.getpid():
            return False
        try:
            return self._descriptor < 0 or os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _enter(self, place: int) -> bool:
        """Write our number, unless there is one of a living process."""
        if self._descriptor < 0:
            self._open()
        if self._is_first:
            table = self._table
            table[_BUSY] = 1
            try:
                if table[_FIRST] == self._number:  # still: whoever comes now waits for us
                    return self._write(place)
            finally:
                table[_BUSY] = 0
            self._is_first = False
        if not self._lock_byte(_CHANGING) and not self._wait_for_table():
            return False
        try:
            if not self._is_introduced:
                self._introduce()
            return self._write(place)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _CHANGING)

    def _write(self, place: int) -> bool:
        number = self._table[place]
        if number and self._process_of(number):
            return False
        self._table[place] = self._number
        return True

    def _introduce(self) -> None:
        """Find out whether we are the first; else tell the first one, and wait until it has seen that."""
        self._is_introduced = True
        first = self._table[_FIRST]
        if not first:
            self._table[_FIRST], self._is_first = self._number, True
        elif first != _SEVERAL:
            self._table[_FIRST] = _SEVERAL
            deadline = time.monotonic() + _LONGEST_CHANGE
            while self._table[_BUSY] and self._process_of(first) and time.monotonic() < deadline:
                time.sleep(_FIRST_PAUSE)

    def _wait_for_table(self) -> bool:
        """Lock the table, which another is changing just now; False if that one does not end."""
        deadline = time.monotonic() + _LONGEST_CHANGE
        while time.monotonic() < deadline:
            time.sleep(_FIRST_PAUSE)
            if self._lock_byte(_CHANGING):
                return True
        return False

    def close(self) -> None:
        """Give descriptor and map back, unless a claim is held; the next one who claims something opens it anew."""
        with self.lock:
            if self._descriptor >= 0 and not self.holders:
                descriptor, self._descriptor = self._descriptor, -1
                self._is_introduced = self._is_first = False
                del self._table
                _close(descriptor)

    def _lock_byte(self, place: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _process_of(self, number: int) -> int:
        """The living process that has drawn a number, or 0."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _NUMBERS + number, 1, 0)
        try:
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(self._descriptor, fcntl.F_GETLK, asked))
        except (OSError, struct.error):  # another system: waits are bounded all the same
            return 0
        return 0 if kind == fcntl.F_UNLCK else int(pid)

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        import mmap  # for those who run something only

        with in_words(f"the claims in {self._path!r} can't be used", os.path.dirname(self._path)):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # All of its space now: on a full disk, writing to a hole of a mapped file would kill the process.
                getattr(os, "posix_fallocate", _lengthen)(self._descriptor, 0, _BYTES)
                self._table = memoryview(mmap.mmap(self._descriptor, _BYTES)).cast("I")
                while self._number in (0, _SEVERAL) or not self._lock_byte(_NUMBERS + self._number):
                    self._number = struct.unpack("I", os.urandom(4))[0]
            except BaseException:
                descriptor, self._descriptor = self._descriptor, -1
                _close(descriptor)
                raise


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # it is closed all the same, and the table keeps nothing beyond its processes
        os.close(descriptor)


def _lengthen(descriptor: int, _: int, size: int) -> None:
    os.ftruncate(descriptor, size)


_files: dict[str, _File] = {}
_files_lock = threading.Lock()


def _file_of(folder: str) -> _File:
    key = os.path.realpath(folder)
    with _files_lock:
        found = _files.get(key)
        if found is None or not found.is_current():
            found = _files[key] = _File(key)
        return found


def close_claims(folder: str) -> None:
    """No session of this process has the folder open any more: a program may open thousands, one after the other."""
    key = os.path.realpath(folder)
    with _files_lock:
        found = _files.get(key)
        if found is not None:
            if found.pid == os.getpid():
                found.close()
            del _files[key]  # last: what was interrupted is taken up again


class Claims:
    """The claims of one warehouse object.

    Parameters
    ----------
    folder : str
        Where the lock file is.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.file = _file_of(folder)
        self.me = f"{os.getpid()}-{fresh_id()}"

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
        claim = self.new(key)
        try:
            return claim if claim.take(timeout) else None
        except BaseException:
            claim.release()
            raise

    def new(self, key: str) -> Claim:
        """A claim on `key` that is still to be taken."""
        return Claim(self, key)

    def wait(self, claim: Claim, key: str, timeout: float) -> bool:
        """See `Claim.take`."""
        if is_importing_script():
            log().warning(_NOT_WAITING)
            return False
        begun, pause = time.monotonic(), _FIRST_PAUSE
        deadline, say_at = begun + timeout, begun + _SAY_AFTER
        self._note_waiting(key)
        try:
            while time.monotonic() < deadline and not self._closes_circle(claim.key):
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(pause * 1.5, _LONGEST_PAUSE)
                if self.file.take(claim):
                    return True
                if time.monotonic() >= say_at:
                    say_at = math.inf
                    log().warning(_WAITING, _SAY_AFTER, self.file.holder(claim.key)[0] or "?", timeout)
            return False
        finally:
            _remove(self._waiting_path())

    def _closes_circle(self, wanted: int) -> bool:
        """Whether the holder of `wanted` waits, directly or through others, for a claim of ours."""
        seen: set[str] = set()
        keys = [wanted]
        while keys and len(seen) < _LONGEST_CHAIN:
            pid, name = self.file.holder(keys.pop())
            if name == self.me:
                return True
            for waiter, waited_for in self._waiting(pid, name):
                if waiter not in seen:
                    seen.add(waiter)
                    keys.append(waited_for)
        return False

    def _waiting(self, pid: int, name: str) -> Iterator[tuple[str, int]]:
        """What a holder waits for: its name and the key; of another process, all that any of its parts waits for."""
        for entry in os.listdir(self._folder) if pid else ():
            waiter = entry.removesuffix(_WAITS)
            if waiter == entry or waiter == self.me or not waiter.startswith(name or f"{pid}-"):
                continue
            try:
                with open(os.path.join(self._folder, entry), encoding="ascii") as file:
                    yield waiter, int(file.read() or "-1")
            except (OSError, ValueError):
                continue  # it has stopped waiting

    def _note_waiting(self, key: str) -> None:
        what = f"{self._folder!r} can't take a note that this process waits for another one"
        with in_words(what, self._folder), open(self._waiting_path(), "w", encoding="ascii") as file:
            file.write(str(_number(key)))

    def _waiting_path(self) -> str:
        return os.path.join(self._folder, self.me + _WAITS)


def is_importing_script() -> bool:
    """Whether multiprocessing has started this process and is importing the script into it, for which its parent waits.

    That is what it asks itself when a process is to be started there, which it refuses.
    """
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and getattr(processes.current_process(), "_inheriting", False)


def sweep_claims(folder: str) -> None:
    """Remove the table and what waiting processes have left when they died. Call only while no session is open."""
    for name in os.listdir(folder):
        if name == _TABLE or name.endswith(_WAITS):
            _remove(os.path.join(folder, name))


def _number(key: str) -> int:
    """What stands for a key: the beginning of its digest, or its own if it is one, as the nodes of trace trees are."""
    try:
        return abs(int(key[:16] if len(key) == 32 else hash_text(key)[:16], 16))  # any text: "-" is not excluded
    except ValueError:
        return int(hash_text(key)[:16], 16)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

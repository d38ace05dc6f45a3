"""Which bytes of the store's files are known to be right, and how the others are checked: by blocks, by two threads.

This file may know: files, checksums, threads. It may not know: lmdb, records' keys, specs, what a payload means.

`Checks` belongs to a session. It keeps a `PartCheck` for each file that was looked at: what is known of that file as
it was then (inode, size and times). Whoever wants all of it checked begins a check and finishes it; the session's
helper works on what was begun meanwhile. Files are read with ordinary reads: an I/O error is an exception, not a
signal. docs/design/arrays.md tells when what is checked.
"""

from __future__ import annotations

import errno
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject, PayloadMissing, WarehouseError
from pyplantx.fingerprint.value import BLOCK, hash_bytes, hash_text
from pyplantx.specs.buffers import FilePages, file_pages, map_descriptor
from pyplantx.specs.threads import start_thread
from pyplantx.warehouse.records import Cut, Part, join_digests

Stamp = tuple[int, int, int, int]

#: Whose results are believed when: see `Warehouse`.
VERIFY = ("lazy", "always", "off")

#: Files below this size are checked at once: that costs less than handing the work over.
AT_ONCE = 1 << 20

#: Bytes from which on a map costs less than a copy.
_IN_PLACE = 1 << 18

_OPEN, _BUSY, _RIGHT = 0, 1, 2  # what is known of a block: nothing yet; somebody is checking it; it is right
_OPEN_BYTE, _BUSY_BYTE, _RIGHT_BYTE = b"\0", b"\1", b"\2"
_TAKEN = (_BUSY_BYTE, _RIGHT_BYTE)

#: Blocks that are claimed, brought in and let go of in one: each of these costs 10 to 35 µs, a block's hash 120 to 300.
_TOGETHER = 4

#: Bytes that are let go of in one: whoever has a file checked as a whole has a map of all of it.
_LET_GO = 60 << 20

#: What a file that is whole can meet: this process has no room for it, or its file system is not there just now.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_NOT_THERE = {
    *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.ESTALE),
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
    *(errno.ENODEV, errno.ENXIO),
}
_NOT_ITS_FAULT = _NO_ROOM | _NOT_THERE


def stamp_of(info: os.stat_result) -> Stamp:
    """What tells whether a file was touched."""
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def read_all(fd: int, view: memoryview, start: int) -> None:
    """Fill the buffer from position `start` of the file.

    Raises
    ------
    OSError
        If that fails, or the file is shorter.
    """
    while view.nbytes:
        count = os.preadv(fd, [view], start)
        if not count:
            raise OSError(errno.EIO, "the file ends too early")
        view, start = view[count:], start + count


class PartCheck:
    """What is known of the content of one file.

    Parameters
    ----------
    path : str
        Of the file.
    part : Part
        What it should be.
    seen : Stamp
        Of the file; if that changes this check is void.
    right : bool
        Whether it is known to be right, because this session wrote it.

    Attributes
    ----------
    damage : str or None
        What is wrong with it, once that is known.

    Raises
    ------
    DamagedObject
        If the record of the part makes no sense.
    """

    def __init__(self, path: str, part: Part, seen: Stamp, right: bool = False) -> None:
        self._fd, self._given_up = -1, False
        self._pages: FilePages | None = None
        self.path, self.part, self.stamp = path, part, seen
        self.damage: str | None = None
        self.cut = _cut_of(part)
        self._states = bytearray((_RIGHT_BYTE if right else _OPEN_BYTE) * self.cut.count)
        self._lock = threading.RLock()  # by itself, not through the condition: see `interrupts.py`
        self._changed = threading.Condition(self._lock)
        self._busy: dict[int, range] = {}  # thread -> the blocks that it is checking

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:  # and `os` may be gone, at the end of the interpreter
            close(self._fd)

    @property
    def is_whole(self) -> bool:
        """Whether every byte is known to be right."""
        return self._states.find(_OPEN_BYTE) < 0 and self._states.find(_BUSY_BYTE) < 0

    def is_in_place(self) -> bool:
        """Whether the file is still there, untouched."""
        try:
            return stamp_of(os.lstat(self.path)) == self.stamp
        except OSError:
            return False

    # -- the whole file

    def begin(self, fd: int) -> bool:
        """Take the file's descriptor over, to check all that is not yet checked; False if there is nothing to do."""
        with self._lock:
            wanted = self.damage is None and not self.is_whole
            if wanted and self._fd < 0:
                self._fd = fd
                self._pages = file_pages(fd, self.cut.size, _LET_GO) if self.cut.size > AT_ONCE else None
                return True
        close_read(fd)
        return wanted

    def finish(self) -> None:
        """Return when what was begun is over; this thread helps.

        Raises
        ------
        DamagedObject
            If the file is not what it should be.
        """
        while self._fd >= 0 and self.damage is None:
            self.work()
            self._wait()
        if self.damage is not None:
            raise _as_error(self.damage)
        if self._given_up and not self.is_whole:
            raise WarehouseError(f"the store was closed before {self.path!r} was checked")

    def work(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Check blocks that nobody else is checking, until there are no more."""
        buffer = bytearray()
        while goes_on() and self.damage is None:
            try:
                claimed = self._claim()
                if not claimed:
                    return
                if self._pages is None or not self._check_in_place(claimed, self._pages):
                    for index in claimed:
                        buffer = self._check_copy(index, buffer)
            except DamagedObject:
                return  # it is noted; whoever waits raises it
            finally:
                self._leave()

    def _check_in_place(self, indices: range, pages: FilePages) -> bool:
        """Check neighbouring blocks where they lie in the page cache; False if the system can't bring them in."""
        start, stop = self.cut.span(indices[0])[0], self.cut.span(indices[-1])[1]
        view = pages.bytes_at(start, stop)
        if view is None:
            return False
        for index in indices:
            first, end = self.cut.span(index)
            self._compare(index, view[first - start : end - start])
        pages.let_go(start, stop)
        return True

    def _check_copy(self, index: int, buffer: bytearray) -> bytearray:
        """Read a block and check it; the buffer for the next one."""
        start, stop = self.cut.span(index)
        if len(buffer) < stop - start:
            buffer = bytearray(stop - start)
        view = memoryview(buffer)[: stop - start]
        self._read(self._fd, view, start)
        self._compare(index, view)
        return buffer

    def _claim(self) -> range:
        """Neighbouring blocks that nobody else is checking; fewer towards the end, where all who check share them."""
        with self._lock:
            first = self._states.find(_OPEN_BYTE) if self._fd >= 0 else -1
            if first < 0:
                return range(0)
            stop = first + max(1, min(_TOGETHER, self._states.count(_OPEN_BYTE) // 8))
            taken = [found for found in (self._states.find(byte, first, stop) for byte in _TAKEN) if found >= 0]
            claimed = range(first, min(taken, default=stop))
            self._busy[threading.get_ident()] = claimed  # first, so that an interrupt here leaves nothing claimed
            self._states[first : claimed.stop] = _BUSY_BYTE * len(claimed)
            return claimed

    def _leave(self) -> None:
        with self._lock:
            claimed = self._busy.get(threading.get_ident())
            if claimed is None:
                return
            for index in claimed:
                if self._states[index] == _BUSY:  # interrupted
                    self._states[index] = _OPEN
            del self._busy[threading.get_ident()]
            self._close_if_over()
            self._changed.notify_all()

    def _close_if_over(self) -> None:
        if (self.damage is not None or self.is_whole) and not self._busy:
            self._close()

    def _wait(self) -> None:
        """Until nobody else is at work on a block."""
        with self._lock:
            while self._busy.keys() - {threading.get_ident()}:
                self._changed.wait()
            self._close_if_over()

    def give_up(self) -> None:
        """Let go of the file, unless somebody is still at work."""
        with self._lock:
            if not self._busy:
                self._given_up = True
                self._close()

    def _close(self) -> None:
        fd, self._fd, self._pages = self._fd, -1, None
        if fd >= 0:
            close_read(fd)

    # -- some of it

    def check_head(self, fd: int) -> None:
        """Check what comes before the body, if the part has a layout: something will be made of it at once."""
        begin, end = self.cut.span(0)
        if self.part.layout is not None and self.part.layout.head:
            self.read_into(fd, memoryview(bytearray(end - begin)), begin)

    def read_into(self, fd: int, view: memoryview, start: int) -> None:
        """Fill the buffer from position `start`, and check each block of it that was not yet checked.

        It takes no lock, since it may be called in a forked child, in which nobody would release it.
        """
        if self.damage is not None:
            raise _as_error(self.damage)
        at, stop = start, start + view.nbytes
        if start < 0 or stop > self.cut.size:
            raise WarehouseError(f"{self.path!r} has no bytes {start:,} to {stop:,}, it has {self.cut.size:,}")
        while at < stop:
            at = self._read_some(fd, view[at - start :], at)

    def _read_some(self, fd: int, view: memoryview, at: int) -> int:
        """Read and check one block, or as many as are known to be right; where the next one begins."""
        index = self.cut.index(at)
        begin, end = self.cut.span(index)
        wanted = at + view.nbytes
        if self._states[index] == _RIGHT:
            end = min(self._end_of_right(index), wanted)
            self._read(fd, view[: end - at], at)
        elif begin == at and end <= wanted:
            self._read(fd, view[: end - at], at)
            self._compare(index, view[: end - at])
        elif self._is_right_in_place(fd, index):
            end = min(end, wanted)
            self._read(fd, view[: end - at], at)
        else:
            block = memoryview(bytearray(end - begin))
            self._read(fd, block, begin)
            self._compare(index, block)
            end = min(end, wanted)
            view[: end - at] = block[at - begin : end - begin]  # the very bytes that were checked
        return end

    def _is_right_in_place(self, fd: int, index: int) -> bool:
        """Check a block of which only some is wanted, without a copy of all of it; False if it must be read."""
        start, stop = self.cut.span(index)
        pages = file_pages(fd, self.cut.size) if stop - start >= _IN_PLACE else None
        return pages is not None and self._check_in_place(range(index, index + 1), pages)

    def _end_of_right(self, index: int) -> int:
        after = [found for found in (self._states.find(byte, index) for byte in (_OPEN_BYTE, _BUSY_BYTE)) if found >= 0]
        return self.cut.span(min(after))[0] if after else self.cut.size

    # -- both

    def _read(self, fd: int, view: memoryview, start: int) -> None:
        try:
            read_all(fd, view, start)
        except OSError as error:
            if error.errno in _NOT_ITS_FAULT:
                raise _unreadable(self.path, error) from error
            raise self._damaged(f"{self.path!r} can't be read: {error.strerror}") from error

    def _compare(self, index: int, data: memoryview) -> None:
        right = self.part.blocks[index] if self.part.blocks else self.part.digest
        if hash_bytes(data) != right:
            raise self._damaged(f"{self.path!r} does not match its checksum")
        self._states[index] = _RIGHT

    def _damaged(self, what: str) -> DamagedObject:
        self.damage = what
        return _as_error(what)


def _as_error(what: str) -> DamagedObject:
    """For who holds the data in hand; a plant makes it again by itself where a reactor meets it."""
    return DamagedObject(what, hint="plant.produce it once more: what is damaged is made again")


def _cut_of(part: Part) -> Cut:
    try:
        cut = Cut(part.size, part.layout)
    except ValueError as error:
        raise DamagedObject(f"the record of the part {part.name!r} makes no sense: {error}") from error
    listed = len(part.blocks) or 1
    if listed != cut.count or (part.blocks and hash_text(join_digests(part.blocks)) != part.digest):
        raise DamagedObject(f"the checksums of the part {part.name!r} don't fit its size")
    return cut


class Checks:
    """What a session knows of its store's files; and its helper, a thread that checks beside the computation."""

    def __init__(self) -> None:
        self._known: dict[Digest, dict[str, PartCheck]] = {}
        self._helper: _Helper | None = None
        self._making = threading.Lock()

    def trust(self, address: Digest, path: str, part: Part) -> None:
        """The file was hashed as it was written: no need to do it again."""
        check = PartCheck(path, part, stamp_of(os.lstat(path)), right=True)
        self._known.setdefault(address, {})[part.name] = check

    def forget(self, address: Digest) -> None:
        """Look at the files of an object afresh when they are next asked for."""
        self._known.pop(address, None)

    def open(self, address: Digest, path: str, part: Part, verify: str = "lazy") -> tuple[int, PartCheck]:
        """Open a file that should be a part of an object.

        Returns
        -------
        (int, PartCheck)
            Its descriptor, which belongs to the caller, and what is known of it; with ``verify="off"`` all is taken
            for right.

        Raises
        ------
        PayloadMissing
            If there is no such file.
        DamagedObject
            If it is known to be damaged, is of another size, or no ordinary file.
        """
        fd = _open(path)
        try:
            return fd, self._find(address, path, part, os.fstat(fd), verify)
        except BaseException:
            close_read(fd)
            raise

    def is_whole(self, address: Digest, part: Part) -> bool:
        """Whether the file that is there now is known to be right."""
        check = self._known.get(address, {}).get(part.name)
        return check is not None and check.is_whole and check.is_in_place()

    def _find(self, address: Digest, path: str, part: Part, info: os.stat_result, verify: str) -> PartCheck:
        if not stat.S_ISREG(info.st_mode):
            raise DamagedObject(f"{path!r} is not an ordinary file")
        if info.st_size != part.size:
            raise DamagedObject(f"{path!r} has {info.st_size:,} bytes instead of {part.size:,}")
        if verify == "off":
            return PartCheck(path, part, stamp_of(info), right=True)
        known = self._known.setdefault(address, {})
        check = known.get(part.name)
        if check is None or check.stamp != stamp_of(info):
            check = known[part.name] = PartCheck(path, part, stamp_of(info))
        if check.damage is not None:
            raise DamagedObject(check.damage)
        return check

    # -- the helper

    def begin(self, check: PartCheck, fd: int) -> None:
        """Check a whole file in the background; the descriptor is taken over."""
        if check.begin(fd):
            self._help().put(check)

    def finish(self, check: PartCheck, fd: int) -> None:
        """Check a whole file now; the descriptor is taken over.

        Raises
        ------
        DamagedObject
            If it is not what it should be.
        """
        if check.begin(fd) and check.cut.size > AT_ONCE:
            self._help().put(check)
        check.finish()

    def _help(self) -> _Helper:
        with self._making:
            if self._helper is None:
                from pyplantx.basics.interrupts import uninterrupted  # signal, which a warm run does without

                with uninterrupted():  # threads that nobody knows would never end
                    self._helper = _Helper()
            return self._helper

    def close(self) -> None:
        """End the helper."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.stop()

    def forget_threads(self) -> None:
        """In a forked child: the threads were left behind."""
        self._helper, self._making = None, threading.Lock()


class _Helper:
    """Threads that work on what was begun: one less than there are processors, two at most."""

    def __init__(self) -> None:
        self._begun: queue.SimpleQueue[PartCheck | None] = queue.SimpleQueue()
        self._stopping = False
        count = max(1, min(2, (os.cpu_count() or 2) - 1))
        started = [start_thread(self._run, "pyplantx checks") for _ in range(count)]
        self._threads = [thread for thread in started if thread is not None]  # none at all: who waits does it alone

    def put(self, check: PartCheck) -> None:
        for _ in self._threads:
            self._begun.put(check)

    def stop(self) -> None:
        """End after the block at hand."""
        self._stopping = True
        for _ in self._threads:
            self._begun.put(None)
        for thread in self._threads:
            thread.join()
        while not self._begun.empty():
            self._give_up(self._begun.get())

    def _run(self) -> None:
        while not self._stopping and (check := self._begun.get()) is not None:
            try:
                check.work(lambda: not self._stopping)
            except (WarehouseError, MemoryError):
                continue  # whoever waits for the check does the rest, and meets the same error
            if self._stopping:
                self._give_up(check)

    def _give_up(self, check: PartCheck | None) -> None:
        if check is not None:
            check.give_up()


def close_read(fd: int) -> None:
    """Close what was only read: that this fails says nothing about what was read."""
    with suppress(OSError):
        os.close(fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise PayloadMissing(f"the file {path!r} is gone") from None
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise _unreadable(path, error) from error
        what = "is not an ordinary file" if error.errno == errno.ELOOP else f"can't be read: {error.strerror}"
        raise DamagedObject(f"{path!r} {what}") from error


def _unreadable(path: str, error: OSError) -> WarehouseError:
    hint = "close some files or free some memory, and try again"
    if error.errno in _NOT_THERE:
        hint = "is the file system there? Nothing was forgotten: run it again when the store can be reached"
    return WarehouseError(f"{path!r} can't be read now: {error.strerror}", hint=hint)


class PartReader:
    """The `pyplantx.specs.base.CheckedFile` that specs read from by position.

    Parameters
    ----------
    fd : int
        Descriptor of the file; it belongs to the reader.
    check : PartCheck
        What is known of it.
    found_damaged : callable, optional
        Called with what is wrong, before that is raised.
    """

    def __init__(self, fd: int, check: PartCheck, found_damaged: Callable[[str], None] | None = None) -> None:
        self._fd, self._check = fd, check
        self._found_damaged = found_damaged
        self.path, self.size = check.path, check.cut.size

    def __reduce__(self) -> tuple[Any, ...]:
        """How another process opens the same file, and checks it by the same checksums.

        Those of a signed store need its key, which goes nowhere: there the whole file is checked now.
        """
        check = self._check
        if type(check) is PartCheck:
            return _reopened, (self.path, check.part)
        for start in range(0, self.size, BLOCK):
            self.read_into(bytearray(min(BLOCK, self.size - start)), start)
        return _reopened, (self.path, check.part, check.stamp)

    def map(self, writable: bool) -> Any:
        """A private memory map of the file; every byte is checked first.

        Raises
        ------
        DamagedObject
            If the file is not what it should be.
        """
        with self._telling():
            self._check.begin(os.dup(self._opened()))
            self._check.finish()
        return map_descriptor(self._opened(), writable, self.path)

    def read_into(self, buffer: Any, start: int) -> None:
        """See `CheckedFile.read_into`."""
        view = memoryview(buffer)
        if view.nbytes:  # a shape with a zero in it can't be cast
            with self._telling():
                self._check.read_into(self._opened(), view.cast("B"), start)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except DamagedObject as error:
            if self._found_damaged is not None:
                self._found_damaged(error.message)
            raise

    def _opened(self) -> int:
        if self._fd < 0:
            raise WarehouseError(f"{self.path!r} was closed")
        return self._fd

    def close(self) -> None:
        """See `CheckedFile.close`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_read(fd)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:  # and `os` may be gone, at the end of the interpreter
            close(self._fd)


def _reopened(path: str, part: Part, right: Stamp | None = None) -> PartReader:
    """A reader that came from another process; `right` is what the file looked like there if all of it was checked.

    Raises
    ------
    PayloadMissing
        If the file is gone.
    DamagedObject
        If it is another one, or not what it should be.
    """
    fd = _open(path)
    try:
        seen = stamp_of(os.fstat(fd))
        if right not in (None, seen):
            raise DamagedObject(f"{path!r} was touched since it was checked")
        if os.fstat(fd).st_size != part.size:
            raise DamagedObject(f"{path!r} has another size than the {part.size:,} bytes of its record")
        return PartReader(fd, PartCheck(path, part, seen, right=right is not None))
    except BaseException:
        close_read(fd)
        raise

"""Values of ``small.lmdb`` as memory that nobody else has, without a copy: private maps of its data file.

This file may know: LMDB's pages, memory maps, who is still alive. It may not know: what a value means, checksums.

A copy costs less than the fresh memory for it. A private map costs neither: its pages are those of the page cache until
somebody writes to them. But LMDB uses the pages of what was removed for something else. So each `Window` has a read
transaction, its *pin*: as long as that is open no process uses a page again that it sees. Pins don't last: before one
goes (at the end of the activity, before a fork, when the map of the index grows, or when somebody has written and this
was idle) what is still alive gets pages of its own, which is the copy that was spared so far.

LMDB puts a value that is longer than half a page on pages of its own, behind a header of 16 bytes that tells their
number; so where a value lies in the file is known twice, by that and by its address. If the two differ, or it looks
otherwise, it is not given out. Its content is checked where LMDB has mapped it: these are the same pages.
"""

from __future__ import annotations

import os
import struct
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyplantx.specs.buffers import DONT_NEED, POPULATE_WRITE, REUSED_FILES, copy_on_write, madvise
from pyplantx.specs.scarce import is_memory_limited

if TYPE_CHECKING:
    import ctypes
    import mmap

#: Bytes from which on a value is worth its own pages. Shorter than two pages it may share one with others.
LEAST: Final = 16 << 10

#: Windows that may be pinned at a time: each takes one of LMDB's slots for readers.
MOST: Final = 4

#: Seconds after which a pin is looked at: has somebody written since?
OLD: Final = 1.0

#: Looks at the content of a value.
Check = Callable[[Any], bool]

_HEAD = struct.Struct("@QHHI")  #: before a value that has pages of its own: page number, -, kind, number of pages
_HEADER = _HEAD.size
_OVERFLOW = 0x04  #: the kind of such pages


class Pin(Protocol):
    """A read transaction that gives buffers."""

    def get(self, key: bytes) -> Any: ...
    def id(self) -> int: ...
    def abort(self) -> None: ...


class _Piece(weakref.ref[Any]):
    """Leads to the owner of a piece, and says what pages they are."""

    __slots__ = ("length", "start", "window")

    window: Window
    start: int
    length: int


class Window:
    """One private map of the data file, and the pin that keeps its pages as they are.

    Parameters
    ----------
    pin : Pin
        Begun before the map was made; belongs to the window.
    whole : mmap
        The map, writable.
    base : int
        Where LMDB's own map of the file begins.
    page : int
        Bytes of LMDB's pages.
    """

    def __init__(self, pin: Pin, whole: mmap.mmap, base: int, page: int) -> None:
        self._pin: Pin | None = pin
        self._map, self._base, self._page = whole, base, page
        self._pieces: dict[int, _Piece] = {}  # those whose owners are alive
        self.looked_at = time.monotonic()
        self.number = pin.id()

    def piece(self, key: bytes, size: int, is_right: Check) -> ctypes.Array[ctypes.c_ubyte] | None:
        """A value of so many bytes; None if it is not here, not alone on its pages, damaged, or somebody else's."""
        import ctypes

        value = None if self._pin is None else self._pin.get(key)
        if value is None or len(value) != size:
            return None
        length = -(-(_HEADER + size) // self._page) * self._page
        start = self._start_of(_address(value), length)
        if start is None or start in self._pieces or not is_right(value):
            return None
        owner = (ctypes.c_ubyte * size).from_buffer(self._map, start + _HEADER)
        piece = self._pieces[start] = _Piece(owner, _let_go)
        piece.window, piece.start, piece.length = self, start, length
        return owner

    def _start_of(self, address: int, length: int) -> int | None:
        """Where the pages of a value begin in the file; None if they are not all here, or not its own."""
        import ctypes

        start = address - _HEADER - self._base
        if start <= 0 or start % self._page:
            return None
        number, _, kind, count = _HEAD.unpack(ctypes.string_at(address - _HEADER, _HEADER))
        is_its = number * self._page == start and kind == _OVERFLOW and count * self._page >= length
        return start if is_its and start + length <= len(self._map) else None

    def let_go(self, piece: _Piece) -> None:
        """The owner is gone: what was written to the pages goes, too; they are the file's again."""
        self._map.madvise(DONT_NEED, piece.start, piece.length)
        del self._pieces[piece.start]  # from now on it may be given out again
        if not self._pieces:
            _unpinned.discard(self)

    @property
    def is_empty(self) -> bool:
        """Whether nobody has anything of it."""
        return not self._pieces

    def settle(self) -> bool:
        """Give what is alive pages of its own, and let the pin go; False if there is no memory for that."""
        if not all([self._own_pages(piece) for piece in list(self._pieces.values())]):
            return False
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.abort()
        _unpinned.add(self)  # the pieces tell it when their owners go
        if not self._pieces:
            _unpinned.discard(self)
        return True

    def _own_pages(self, piece: _Piece) -> bool:
        import ctypes

        owner = piece()
        if owner is None:
            return True
        return bool(madvise()(ctypes.addressof(owner) - _HEADER, piece.length, POPULATE_WRITE) == 0)


def _let_go(piece: _Piece) -> None:
    piece.window.let_go(piece)


#: Windows without a pin some of whose pieces are alive.
_unpinned: set[Window] = set()


class Windows:
    """The windows of one reader of the index; its lock is held by whoever calls.

    Parameters
    ----------
    path : str
        The data file.
    begin : callable
        Begins a `Pin`.
    info : callable
        What LMDB tells of the environment: ``"psize"``, bytes of a page, and ``"last_txnid"``, the last commit.
    """

    def __init__(self, path: str, begin: Callable[[], Pin], info: Callable[[], Mapping[str, Any]]) -> None:
        self._path, self._begin, self._info = path, begin, info
        self._windows: list[Window] = []
        self._base: int | None = None
        self._inode = 0

    @property
    def are_pinned(self) -> bool:
        return bool(self._windows)

    def piece(self, key: bytes, size: int, is_right: Check) -> Any:
        """The value of a key as memory that nobody else has: a writable buffer; None if it must be copied."""
        if size < LEAST:
            return None
        self._look_at_old()
        found = self._windows[-1].piece(key, size, is_right) if self._windows else None
        if found is None and _is_possible():
            window = self._new_window(key)
            found = None if window is None else window.piece(key, size, is_right)
            if found is None:
                self._base = None  # LMDB's map may lie elsewhere by now
        return found

    def settle(self, *, if_changed: bool = False) -> None:
        """Give what is alive memory of its own, and let the pins go: all, or those before the last commit."""
        last = self._info()["last_txnid"] if if_changed and self._windows else None
        self._windows = [window for window in self._windows if window.number == last or not window.settle()]

    def _look_at_old(self) -> None:
        if self._windows and time.monotonic() - self._windows[-1].looked_at >= OLD:
            self.settle(if_changed=True)
            for window in self._windows:
                window.looked_at = time.monotonic()

    def _new_window(self, key: bytes) -> Window | None:
        self._windows = [window for window in self._windows if not (window.is_empty and window.settle())]
        if len(self._windows) >= MOST and not self._windows.pop(0).settle():
            return None  # no memory for what is there already
        pin = self._begin()
        whole = self._mapped()
        base = None if whole is None else self._base_of(pin, key)
        if whole is None or base is None:
            pin.abort()
            return None
        window = Window(pin, whole, base, self._info()["psize"])
        self._windows.append(window)
        return window

    def _mapped(self) -> mmap.mmap | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            info = os.fstat(fd)
            if info.st_ino != self._inode:
                self._inode, self._base = info.st_ino, None
            REUSED_FILES.add((info.st_dev, info.st_ino))
            whole: mmap.mmap | None = copy_on_write(fd)
            return whole
        except (OSError, ValueError):  # no room for another map; an empty file
            return None
        finally:
            os.close(fd)

    def _base_of(self, pin: Pin, key: bytes) -> int | None:
        """Where LMDB has mapped the file."""
        if self._base is None:
            value = pin.get(key)
            self._base = None if not value else _map_around(_address(value), self._inode)
        return self._base


def _address(buffer: Any) -> int:
    numpy: Any = sys.modules["numpy"]
    return int(numpy.frombuffer(buffer, "u1").__array_interface__["data"][0])


def _map_around(address: int, inode: int) -> int | None:
    """Where the shared map of this file begins that an address lies in."""
    with open("/proc/self/maps", errors="surrogateescape") as table:
        for line in table:
            bounds, rights, offset, _, number, *_ = line.split(None, 5)
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            if first <= address < last:
                is_it = rights == "r--s" and int(offset, 16) == 0 and int(number) == inode
                return first if is_it else None
    return None


def _is_possible() -> bool:
    """Not where memory is limited, since a private map counts in full; nor without NumPy, which knows addresses."""
    return "numpy" in sys.modules and _can_populate() and not is_memory_limited()


@cache
def _can_populate() -> bool:
    """Whether the system gives a range of a private map pages of its own without touching their content."""
    if sys.platform != "linux":
        return False
    import mmap

    try:
        mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).madvise(POPULATE_WRITE)
    except (OSError, ValueError):
        return False
    return True

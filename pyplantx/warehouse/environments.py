"""The two LMDB environments of an index: ``meta.lmdb`` (records) and ``small.lmdb`` (payloads up to 1 MB).

This file may know: opening, tables, transactions, map sizes, forks, copies. It may not know: what a record or a payload
means, checksums, the queue of commits. Together with ``inspection.py`` it is the only importer of lmdb.

Rules kept here, each for a measured reason (docs/design/warehouse.md):

- one writer at a time, by a lock of our own with a time limit in front of LMDB's, which has none;
- never ``writemap``; maps grow in steps; no transaction of this process is open while a map changes its size;
- a data file is inspected before LMDB opens it (``inspection.py``).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import lmdb

from pyplantx.basics.disk import free_bytes
from pyplantx.errors import StoreBusy, WarehouseError, WarehouseFull
from pyplantx.warehouse.files import disk_error
from pyplantx.warehouse.locks import FileLock

if TYPE_CHECKING:
    from pyplantx.warehouse.files import Layout

    Environment = lmdb.Environment
    Txn = lmdb.Transaction[bytes]
    Work = Callable[[Txn], None]

#: The tables of ``meta.lmdb``. specs/warehouse/1/FORMAT.md says what each holds.
TABLES = ("traces", "names", "versions", "parts", "code", "objects", "blobs", "history")

FIRST_MAP, _GROWTH = 64 << 20, 2
_MAX_READERS = 510
#: Seconds after which a read that blocks a growing map or a fork is an error.
LONGEST_READ = 10.0
#: Free bytes below which a failed write is blamed on the full disk.
_NEARLY_FULL = 4 << 20

#: In a forked child: what of its parent must not be ended, see `Environments.forget`.
_never_ended: list[Any] = []
_FORK_AGAIN = "it was in use when this process was forked: fork when nobody uses it, or use a fresh process"

Key = bytes
#: What LMDB says of its pages.
EngineError = lmdb.Error
#: What it says of them where they are not as it has written them.
_MISSHAPEN = (
    lmdb.BadDbiError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.ProblemError,
    lmdb.VersionMismatchError,
)
#: Another process has made a file longer than our map: `Environments.follow_growth`.
Outgrown = lmdb.MapResizedError


class View(Protocol):
    """What reads in a transaction that stays open."""

    def pause(self) -> None:
        """Block reads, end the transaction."""

    def resume(self) -> None:
        """Reads go on."""

    def abandon(self) -> Any:
        """In a forked child: the transaction that was open, which must not be ended."""


class Environments:
    """Both environments of one directory, opened once per process.

    Parameters
    ----------
    layout : Layout
    durable : bool
        Whether each commit is synced to disk.
    read_only : bool
    lock_timeout : float
        Seconds to wait for another process that writes.
    """

    meta: lmdb.Environment
    small: lmdb.Environment
    tables: dict[str, Any]

    def __init__(self, layout: Layout, *, durable: bool, read_only: bool, lock_timeout: float) -> None:
        self.turn = FileLock(os.path.join(layout.locks, "write"), lasting=True)
        self.views: list[View] = []
        self.doubt: Callable[[str], None] = _ignore  #: told of damage that a write has met
        self.closed = self._forked = False
        self.is_usable = True  # neither of the two
        self.layout = layout
        self._durable = durable
        self.read_only = read_only
        self.lock_timeout = lock_timeout
        self._patience = max(LONGEST_READ, lock_timeout)
        self._gate = threading.RLock()  # the one writing thread of this process
        self._writing = threading.RLock()  # a write transaction is open
        self._copying = threading.RLock()  # the index is being backed up
        self._paused: list[Callable[[], None]] = []
        self._envs: list[lmdb.Environment] = []
        self._opened: dict[str, tuple[int, int] | None] = {}  # data file -> device and inode

    # -- reading

    def begin_read(self, env: Environment, *, buffers: bool = False) -> Any:
        """A read transaction; for readers only.

        Raises
        ------
        Outgrown
            If another process has made the file longer than our map: `follow_growth`, without a lock of a reader.
        """
        if not self.is_usable:
            self.usable()
        try:
            return env.begin(buffers=True) if buffers else env.begin()
        except Outgrown:
            raise
        except lmdb.Error as error:
            raise WarehouseError(
                f"the index of {self.layout.root!r} can't be read: {error}",
                hint="close the store and open it again",
            ) from error

    def last_commit(self) -> int:
        """The number of the last commit, whoever made it; -1 where the file has outgrown our map."""
        try:
            txn = self.begin_read(self.meta)  # a fifth of what `info` costs
        except Outgrown:
            return -1
        number: int = txn.id()
        txn.abort()
        return number

    def follow_growth(self) -> None:
        """Map what other processes have added to the files; nobody of this process reads or writes meanwhile."""
        paused = self._stand_still()
        try:
            for env in (self.meta, self.small):
                env.set_mapsize(0)
        finally:
            _resume(paused)

    def too_late(self) -> WarehouseError:
        """The error for whoever comes too late."""
        hint = "use it inside its `with` block, before close(); or open it again"
        return WarehouseError(f"the store {self.layout.root!r} is closed", hint=hint)

    def usable(self) -> None:
        """Raise unless the environments are open and belong to this process."""
        if self.is_usable:
            return
        if self._forked:
            raise WarehouseError(
                f"the store {self.layout.root!r} was opened before this process was forked",
                hint="open it again in the child process (a new Plant or Warehouse on the same directory)",
            )
        if self.closed:
            raise self.too_late()
        self._reopen()

    # -- writing

    def in_turn(self, work: Callable[[], None], wait: float) -> bool:
        """Do what writes, when neither another thread nor another process does.

        Parameters
        ----------
        work : callable
        wait : float
            Seconds to wait for whoever writes.

        Returns
        -------
        bool
            False if somebody else was writing all that time.
        """
        if not self._gate.acquire(timeout=wait):
            return False
        try:
            return self._in_our_turn(work, wait)
        finally:
            self._gate.release()

    def _in_our_turn(self, work: Callable[[], None], wait: float) -> bool:
        try:
            if not self.turn.acquire(wait):
                return False
            self.turn.sign()
            self._check_in_place()
            work()
        finally:
            self._end_turn()
        return True

    def _check_in_place(self) -> None:
        """Raise unless the files that are written are those that will be found: nothing is announced otherwise."""
        for path, opened in self._opened.items():
            if (found := _file_at(path)) != opened:
                raise WarehouseError(
                    f"{path!r} was {'removed' if found is None else 'replaced'} while it was open",
                    hint="close it in every program and notebook that uses it, then open it again",
                )

    def _end_turn(self) -> None:
        try:
            self.turn.release()
        except BaseException:  # Ctrl-C in there: nobody else could write any more
            self.turn.release()
            raise

    def busy(self) -> StoreBusy:
        """The error for a writer that does not end."""
        holder, _ = self.turn.holder()
        return StoreBusy(
            f"the store {self.layout.root!r} is being written by {holder}, for more than {self.lock_timeout:g} s",
            hint="is that process stopped? Let it go on or end it; Plant(lock_timeout=...) waits longer",
        )

    def transact(self, env: Environment, work: Work) -> None:
        """Do `work` in a write transaction, once more if the map was too small. In our turn only."""
        while True:
            try:
                env.reader_check()  # a quarter of a microsecond: pages that a killed process was reading are used again
                with self._writing, env.begin(write=True) as txn:
                    work(txn)
                return
            except lmdb.MapFullError:
                self._resize(env, env.info()["map_size"] * _GROWTH)
            except Outgrown:
                self._resize(env, 0)
            except lmdb.Error as error:
                self._reopen_if_broken(env)
                raise self._write_error(error) from error

    def _reopen_if_broken(self, env: Environment) -> None:
        """An environment that failed to write its last page refuses everything from then on; a new one does not.

        What it failed to write counts as not written: the page before that is still whole, and is the one that is
        found when the file is opened.
        """
        try:
            env.begin().abort()
        except lmdb.PanicError:
            self._reopen()
        except lmdb.Error:
            return  # another trouble, which is not for ever

    def _reopen(self) -> None:
        """If this fails, too, it is tried again at the next use."""
        with self._gate:
            paused = self._stand_still()
            try:
                self.is_usable = False
                self._close_all()
                self.open()
                self.is_usable = True
            finally:
                _resume(paused)

    def _close_all(self) -> None:
        while self._envs:
            self._envs[-1].close()  # twice does no harm, should an interrupt come before the next line
            self._envs.pop()

    def _write_error(self, error: lmdb.Error) -> WarehouseError:
        free = free_bytes(self.layout.root)
        what = f"the index of {self.layout.root!r} can't be written: {error}"
        if isinstance(error, _MISSHAPEN):
            self.doubt(what)
            return WarehouseError(what, hint="close the store and open it again: its index is then checked")
        # On the last bytes of a disk LMDB's writes are short, which it reports as an I/O error.
        if isinstance(error, lmdb.DiskError) or free < _NEARLY_FULL:
            hint = "free some space there, then go on: what was announced as finished is still there"
            return WarehouseFull(f"{what} ({free:,} bytes free)", hint=hint)
        return WarehouseError(what, hint="close the store and open it again")

    def _resize(self, env: Environment, size: int) -> None:
        paused = self._stand_still()
        try:
            env.set_mapsize(size)
        finally:
            _resume(paused)

    # -- standing still

    def _stand_still(self) -> list[Callable[[], None]]:
        """Wait until nobody of this process reads, writes or copies, and keep it so until `_resume`.

        LMDB moves its map when that grows, whoever is in it. The locks are always taken in this order, and a reader
        that has to wait for others has given its own back before.
        """
        taken: list[Callable[[], None]] = []
        try:
            for lock in (self._writing, self._copying):
                if not lock.acquire(timeout=self._patience):
                    raise WarehouseError("a transaction of the store does not end")
                taken.append(lock.release)
            for view in list(self.views):
                view.pause()
                taken.append(view.resume)
        except BaseException:
            _resume(taken)
            raise
        return taken

    def pause(self) -> None:
        """Nothing is open and nobody writes until `resume`: a fork copies no transaction.

        Raises
        ------
        WarehouseError
            If somebody does not come to an end; then there is nothing to resume.
        """
        if not self._gate.acquire(timeout=self._patience):
            raise WarehouseError("a transaction of the store does not end")
        try:
            self._paused = self._stand_still()
        except BaseException:
            self._gate.release()
            raise

    def resume(self) -> None:
        """What `pause` has stopped goes on."""
        try:
            _resume(self._paused)
        finally:
            self._gate.release()

    def forget(self, *, paused: bool) -> None:
        """In a forked child: let go of what belongs to the parent, and of the locks that `pause` took.

        Parameters
        ----------
        paused : bool
            Whether `pause` came to its end. If not, there may be transactions of threads that the child does not have,
            and to end them would end the parent's: they are kept for ever, and the environments too.
        """
        self._forked, self.is_usable = True, False
        if paused:
            self.resume()
            for env in self._envs:
                env.close()
        else:
            _never_ended.append((self._envs, [view.abandon() for view in self.views]))
        self.turn.forget()

    # -- opening, copying, closing

    def open(self) -> None:
        """Open both environments. Whatever happens, `close` closes what is open."""
        self.meta = self._open(self.layout.meta, max_dbs=len(TABLES))
        self.small = self._open(self.layout.small, max_dbs=0)
        self.tables = self._open_tables()

    def _open(self, folder: str, max_dbs: int) -> Environment:
        data = os.path.join(folder, "data.mdb")
        size = os.path.getsize(data) if os.path.exists(data) else 0
        options: dict[str, Any] = {
            "map_size": max(FIRST_MAP, -(-size * 5 // 4 // 4096) * 4096),
            "max_dbs": max_dbs,
            "max_readers": _MAX_READERS,
            "mode": 0o600,
            "readonly": self.read_only,
            "create": not self.read_only,
            "sync": self._durable,
            "readahead": False,
            "lib_version": 0,  # the engine 0.9: the file formats of the engines differ
        }
        try:
            env = self._open_env(os.fsencode(folder), options)  # lmdb takes text only if it is Unicode
        except lmdb.Error as error:
            if f"mdb_txn_begin: {os.strerror(errno.EAGAIN)}" in str(error):
                raise self._same_number(folder) from error
            hint = _FORK_AGAIN if _never_ended else ""
            if "already open in this process" in str(error) and not hint:
                hint = "it is open under another path (a second mount?): use that one"
            if os.strerror(errno.ENODEV) in str(error):
                hint = "this file system maps no files: Plant(dir, index='/a/local/folder') keeps the index elsewhere"
            raise WarehouseError(f"the index {folder!r} can't be opened: {error}", hint=hint) from error
        except OSError as error:  # of making the folder
            raise disk_error(error, f"the index {folder!r} can't be opened", self.layout.root) from error
        self._envs.append(env)
        self._opened[data] = _file_at(data)
        if not self.read_only:
            env.reader_check()  # readers that died keep old pages in use
        return env

    def _same_number(self, folder: str) -> StoreBusy:
        """LMDB knows its readers by the numbers of their processes, which containers count each for themselves."""
        return StoreBusy(
            f"the index {folder!r} is open in a process of another container that has the number {os.getpid()}, too",
            hint="let the containers count their processes together (docker run --pid=host), or run one at a time",
        )

    def _open_env(self, folder: bytes, options: dict[str, Any]) -> Environment:
        try:
            return lmdb.open(folder, **options)
        except lmdb.ReadonlyError:
            return lmdb.open(folder, lock=False, **options)
        except lmdb.Error:
            if not self.read_only or os.access(folder, os.W_OK):
                raise
            return lmdb.open(folder, lock=False, **options)  # no lock file can be made on a read-only file system

    def _open_tables(self) -> dict[str, Any]:
        try:
            if self.read_only:
                return {name: self.meta.open_db(name.encode(), create=False) for name in TABLES}
        except lmdb.Error as error:
            raise WarehouseError(f"the index {self.layout.meta!r} lacks a table: {error}") from error
        # LMDB opens tables in a write transaction, and waits without a time limit for one that a stopped process holds.
        if not self.turn.acquire(self.lock_timeout):
            raise self.busy()
        try:
            self.turn.sign()
            return self._make_tables()
        finally:
            self.turn.release()

    def _make_tables(self) -> dict[str, Any]:
        try:
            with self.meta.begin(write=True) as txn:  # one for all: each that makes a table is synced to disk
                _refuse_strays(txn)
                return {name: self.meta.open_db(name.encode(), txn) for name in TABLES}
        except lmdb.Error as error:
            raise self._write_error(error) from error

    def let_go(self) -> None:
        """Close the files, so that they can be inspected; `open` opens them again."""
        self._close_all()

    def copy_meta(self, path: str) -> None:
        """Copy ``meta.lmdb`` to a file.

        Raises
        ------
        OSError
            Whatever the reason.
        """
        try:
            with self._copying:
                _copy_env(self.meta, path, durable=self._durable)
        except lmdb.DiskError as error:  # what LMDB calls a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
        except lmdb.Error as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Close what is open; whoever comes later gets an error."""
        self.closed, self.is_usable = True, False
        self._close_all()
        self.turn.close()


def _ignore(trouble: str) -> None:
    pass


def _refuse_strays(txn: Txn) -> None:
    """Raise if there is a table that is none of ours: where a name was damaged, an empty table would take its place."""
    strays = set(txn.cursor().iternext(values=False)).difference(map(str.encode, TABLES))
    if strays:
        raise lmdb.CorruptedError(f"it has the tables {sorted(strays)}")


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _resume(taken: list[Callable[[], None]]) -> None:
    for give_back in reversed(taken):
        give_back()


def rows_of(txn: Txn, table: Any, start: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
    """Up to `limit` keys and records from `start` on; with None the last ones, backward."""
    with txn.cursor(table) as cursor:
        found = cursor.last() if start is None else cursor.set_range(start)
        rows = cursor.iterprev() if start is None else cursor.iternext()
        return list(islice(rows, limit)) if found else []


def _copy_env(env: Environment, path: str, *, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        env.copyfd(fd)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)

"""The LMDB environments: ``meta.lmdb`` (records), ``small.lmdb`` (payloads up to 1 MB). The only importer of lmdb.

This file may know: tables, keys, records with checksums, transactions, map sizes, backups. It may not know: what a
record means, the queue of commits, files of objects.

Rules kept here, each for a measured reason (docs/design/warehouse.md):

- one writer at a time, by a lock of our own with a time limit in front of LMDB's, which has none;
- never ``writemap``; maps grow in steps; no transaction of this process is open while a map changes its size;
- reading goes through a `Reader`, whose transaction others may end between reads (a growing map, a fork, a timer);
- a data file is verified before LMDB opens it, unless it is what the last clean close left.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb

from pyplantx.errors import DamagedObject, StoreBusy, StoreReadOnly, WarehouseError, WarehouseFull
from pyplantx.fingerprint.value import Hasher
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.objects import Layout, disk_error, in_words, make_way, read_small, sync_path, write_file
from pyplantx.warehouse.records import from_json, seal_record, to_json, unseal_record

#: The tables of ``meta.lmdb``. specs/warehouse/1/FORMAT.md says what each holds.
TABLES = ("traces", "names", "versions", "parts", "code", "objects", "blobs", "history")

#: Stands for the table in the checks of the payloads of a signed store.
_PAYLOADS = "small"

_INDEX = "meta.lmdb"  # the folder's name; the other one holds payloads
_FIRST_MAP, _GROWTH = 64 << 20, 2
#: Bytes of a data file that the mark of a clean close covers (DESIGN: up to 64 MiB by default).
_MARKED = 64 << 20
#: Bytes that are read of it at once. Freeing larger pieces would teach malloc to take the megabytes that LMDB asks for
#: next from its heap, and to fill them with zeros, page by page: a millisecond at each opening.
_PIECE = 256 << 10
_MAX_READERS = 510
#: Seconds after which a read that blocks a growing map or a fork is an error.
_LONGEST_READ = 10.0
#: Free bytes below which a failed write is blamed on the full disk.
_NEARLY_FULL = 4 << 20

Key = bytes
_T = TypeVar("_T")
if TYPE_CHECKING:
    from pyplantx.warehouse.sealing import Sealing

    Txn = lmdb.Transaction[bytes]
Work = Callable[["Txn"], None]
Batch = tuple[Mapping[Key, bytes | None], Work | None]


class Reader:
    """Reads of one warehouse, from any thread.

    While an activity lasts, one read transaction stays open, so that a read costs one look-up and one checksum.

    Parameters
    ----------
    index : Index
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.RLock()  # an interrupted read may leave it locked: its own thread gets it again
        self._stale = False
        self._txn: Txn | None = None
        self._begun = 0.0
        self._kept = False
        self.uses = 0  # so that an idle timer can tell whether the transaction is in use

    def get(self, table: str, key: Key) -> bytes | None:
        """Body of one record; None if there is none, or if it is damaged (which is reported)."""
        with self._lock:
            txn = self._txn if not self._stale else None
            if txn is None:
                txn = self._begin()
            self.uses += 1
            try:
                record = txn.get(key, None, self._index.tables[table])
            except lmdb.Error as error:
                self._index.doubt(f"a page of table {table!r} can't be read ({error})")
                record = None
            if not self._kept:
                self._end()
        if record is None:
            return None
        sealing = self._index.sealing
        body = unseal_record(key, record) if sealing is None else sealing.unseal(table, key, record)
        if body is None:
            self._index.condemn(table, key, record)
        return body

    def scan(self, table: str) -> Iterator[tuple[Key, bytes]]:
        """Keys and bodies of one table in order; damaged ones are left out and reported.

        The records are fetched in slices, so that no transaction stays open while the caller works.
        """
        start = b""
        while rows := self._slice(table, start, 256):
            yield from self._sound(table, rows)
            if rows[-1][0] < start:  # a damaged key: going on from there would never end
                self._index.doubt(f"keys of table {table!r} are out of order; what is behind them counts as missing")
                return
            start = rows[-1][0] + b"\0"

    def decoded(self, table: str, decode: Callable[[bytes], _T]) -> Iterator[tuple[Key, _T]]:
        """As `scan`, decoded; what makes no sense is left out and reported, too."""
        for key, body in self.scan(table):
            try:
                value = decode(body)
            except DamagedObject:
                self._index.condemn_body(table, key, body)
                continue
            yield key, value

    def tail(self, table: str, limit: int) -> list[tuple[Key, bytes]]:
        """The last records of one table, in order."""
        return list(self._sound(table, self._slice(table, None, limit)[::-1]))

    def payload(self, key: Key) -> bytes | None:
        """A payload of the second environment; its checksum is in the object's record."""
        with self._lock:
            try:
                with self._index.begin_read(self._index.small) as txn:
                    return self._index.payload_of(key, txn.get(key))
            except lmdb.Error as error:
                self._index.doubt(f"a page of small.lmdb can't be read ({error})")
                return None

    def payload_sizes(self) -> dict[Key, int]:
        """Key -> bytes of every payload of the second environment."""
        with self._lock, self._index.begin_read(self._index.small) as txn:
            return {key: len(value) for key, value in txn.cursor()}

    def keep(self, kept: bool) -> None:
        """Whether the transaction stays open between reads."""
        with self._lock:
            self._kept = kept
            if not kept:
                self._end()

    def refresh(self, older_than: float = 0.0) -> None:
        """Let the next read see what others have committed since, if the view is older than that many seconds."""
        if self._txn is not None and time.monotonic() - self._begun >= older_than:
            self._stale = True  # the reading thread ends it: no other thread ever waits for that one

    def foreign_changes(self) -> int:
        """A number that grows when look-ups may see, from now on, what another process has written."""
        if self._stale or self._txn is None:
            with self._lock:
                self._begin()
                if not self._kept:
                    self._end()
        return self._index.foreign_commits

    def drop_idle(self) -> None:
        """End the view, unless a read is under way."""
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()

    @property
    def holds_view(self) -> bool:
        return self._txn is not None

    def pause(self) -> None:
        """Block reads, end the transaction; for a growing map and for fork."""
        if not self._lock.acquire(timeout=_LONGEST_READ):
            raise WarehouseError("a read of the warehouse does not end")
        self._end()

    def resume(self) -> None:
        self._lock.release()

    def _slice(self, table: str, start: Key | None, limit: int) -> list[tuple[Key, bytes]]:
        """Up to `limit` raw records from `start` on; with None the last ones, backward."""
        with self._lock:
            txn = self._begin() if self._stale or self._txn is None else self._txn
            try:
                taken = _rows(txn, self._index.tables[table], start, limit)
            except lmdb.Error as error:
                self._end()
                self._index.is_doubtful = True
                raise WarehouseError(
                    f"table {table!r} of {self._index.layout.meta!r} can't be read: {error}",
                    hint="close the warehouse and open it again: its index is then checked, and its backup serves",
                ) from error
            if not self._kept:
                self._end()
        return taken

    def _sound(self, table: str, rows: list[tuple[Key, bytes]]) -> Iterator[tuple[Key, bytes]]:
        for key, record in rows:
            body = self._index.body_of(table, key, record)
            if body is None:
                self._index.condemn(table, key, record)
            else:
                yield key, body

    def _begin(self) -> Txn:
        self._end()
        self._stale = False
        self._txn = txn = self._index.begin_read(self._index.meta)
        self._index.note_commit(txn.id())
        self._begun = time.monotonic()
        return txn

    def _end(self) -> None:
        txn, self._txn = self._txn, None
        if txn is not None:
            txn.abort()


class Index:
    """Both environments of one directory, opened once per process.

    Parameters
    ----------
    layout : Layout
    durable : bool
        Whether each commit is synced to disk.
    read_only : bool
    lock_timeout : float
        Seconds to wait for another process that writes.
    report : callable
        Takes a sentence about damage; it reaches the user's log once.
    sealing : Sealing, optional
        The keyed checks of a signed store.
    """

    meta: lmdb.Environment
    small: lmdb.Environment
    tables: dict[str, Any]

    def __init__(
        self,
        layout: Layout,
        *,
        durable: bool,
        read_only: bool,
        lock_timeout: float,
        report: Callable[[str], None],
        sealing: Sealing | None = None,
    ) -> None:
        self.layout = layout
        self.read_only = read_only
        self.lock_timeout = lock_timeout
        self.report = report
        self.sealing = sealing
        self._durable = durable
        self._turn = FileLock(os.path.join(layout.locks, "write"))
        self._gate = threading.RLock()  # the one writing thread of this process
        self._readers: list[Reader] = []
        self._paused: list[Reader] = []
        self._condemned: dict[tuple[str, Key], bytes] = {}  # what counts as missing
        self._senseless: dict[tuple[str, Key], bytes] = {}  # those of them that the next write removes
        self.is_doubtful = False  # damage was seen: the next opening has to look closely
        self._marked = True  # a mark of a clean close may exist: remove it before the first write
        self.changed = False
        self.foreign_commits = 0  # grows with every commit of another process that was noticed
        self._last_commit = 0  # number of the newest commit that is counted above, or is our own
        self.closed = self._forked = False
        self.is_usable = True  # neither of the two
        self._envs: list[lmdb.Environment] = []

    def open(self) -> None:
        """Open both environments. Whatever happens, `close` closes what is open."""
        self.meta = self._open(self.layout.meta, max_dbs=len(TABLES))
        self.small = self._open(self.layout.small, max_dbs=0)
        self.tables = self._open_tables()

    # -- reading

    def new_reader(self) -> Reader:
        reader = Reader(self)
        self._readers.append(reader)
        return reader

    def drop_reader(self, reader: Reader) -> None:
        reader.keep(False)
        self._readers.remove(reader)

    def begin_read(self, env: lmdb.Environment) -> Txn:
        """A read transaction; for `Reader` only."""
        if not self.is_usable:
            self.usable()
        try:
            return env.begin()
        except lmdb.MapResizedError:  # another process has made the file longer than our map
            env.set_mapsize(0)
            return env.begin()
        except lmdb.Error as error:
            raise WarehouseError(
                f"the index of {self.layout.root!r} can't be read: {error}",
                hint="close the warehouse and open it again",
            ) from error

    def usable(self) -> None:
        """Raise unless the environments are open and belong to this process."""
        if self.is_usable:
            return
        if self._forked:
            raise WarehouseError(
                f"the warehouse {self.layout.root!r} was opened before this process was forked",
                hint="open it again in the child process (a new Plant or Warehouse on the same directory)",
            )
        if self.closed:
            raise WarehouseError(f"the warehouse {self.layout.root!r} is closed")
        self._reopen()

    def doubt(self, trouble: str) -> None:
        """Damage was seen: tell it, and let the next opening look closely."""
        self.is_doubtful = True
        self.report(trouble)

    def condemn(self, table: str, key: Key, record: bytes) -> None:
        """A record does not match its checksum: it counts as missing.

        The next opening leaves it out. Until then it stays: its size may be what is damaged, and LMDB would move its
        neighbours by that size.
        """
        self.is_doubtful = True
        if (table, key) in self._condemned:
            return
        self._condemned[table, key] = record
        self.report(f"a record of table {table!r} is damaged and counts as missing")
        try:
            if not self.read_only:
                write_file(self.layout.aside(f"{table}-record"), record, durable=False)
        except OSError as error:
            self.report(f"the damaged record could not be kept aside: {error.strerror}")

    def condemn_body(self, table: str, key: Key, body: bytes) -> None:
        """A record matches its checksum and makes no sense: it counts as missing, and the next write removes it."""
        sealing = self.sealing
        record = seal_record(key, body) if sealing is None else sealing.seal(table, key, body)
        self._senseless[table, key] = record
        self.condemn(table, key, record)

    def condemned(self) -> list[tuple[str, Key, bool]]:
        """Table and key of records that count as missing and are still there; whether the next write removes them."""
        return [(*place, place in self._senseless) for place in self._condemned]

    def drop_idle_views(self, seen: dict[int, int]) -> None:
        """End read transactions that were not used since `seen` was filled: an open one keeps old pages in use."""
        for reader in self._readers:
            if reader.holds_view and seen.get(id(reader)) == reader.uses:
                reader.drop_idle()
            seen[id(reader)] = reader.uses

    def has_views(self) -> bool:
        return any(reader.holds_view for reader in self._readers)

    def body_of(self, table: str, key: Key, record: bytes) -> bytes | None:
        """The body of a record; None if it does not match its checksum."""
        return unseal_record(key, record) if self.sealing is None else self.sealing.unseal(table, key, record)

    def is_whole(self, table: str, key: Key, record: bytes) -> bool:
        """Whether a record matches its checksum."""
        return self.body_of(table, key, record) is not None

    def payload_of(self, key: Key, value: bytes | None) -> bytes | None:
        """The payload in a value of ``small.lmdb``; None if there is none, or if it was not signed."""
        return value if value is None or self.sealing is None else self.sealing.unseal(_PAYLOADS, key, value)

    # -- writing

    def write(self, take: Callable[[], Batch], wait: float) -> bool:
        """One group commit: payloads first, then the records in a transaction of ``meta.lmdb``.

        Parameters
        ----------
        take : callable
            Called when it is our turn; gives the payloads for ``small.lmdb`` (None removes one), and what puts the
            records (called again if the map was too small), or None.
        wait : float
            Seconds to wait for another thread or process that writes.

        Returns
        -------
        bool
            False if somebody else was writing all that time.
        """
        self.usable()
        if self.read_only:
            raise StoreReadOnly(f"the warehouse {self.layout.root!r} was opened with read_only=True")
        if not self._gate.acquire(timeout=wait):
            return False
        try:
            if not self._turn.acquire(wait):
                return False
            try:
                self._turn.sign()
                with in_words(f"the index of {self.layout.root!r} can't be written", self.layout.root):
                    self._write(*take())
            finally:
                self._turn.release()
        finally:
            self._gate.release()
        return True

    def note_commit(self, number: int) -> None:
        """The index is seen to be at this commit; LMDB numbers them, whoever makes them."""
        if number > self._last_commit:
            self._last_commit = number
            self.foreign_commits += 1

    def _note_own_commit(self, number: int) -> None:
        """We have written as this number. In doubt (a number was skipped, or is not there) it counts as another's."""
        if number == self._last_commit + 1 == self.meta.info()["last_txnid"]:
            self._last_commit = number
        self.note_commit(self.meta.info()["last_txnid"])

    def busy(self) -> StoreBusy:
        """The error for a writer that does not end."""
        holder, _ = self._turn.holder()
        return StoreBusy(
            f"the warehouse {self.layout.root!r} is being written by {holder}, for more than {self.lock_timeout:g} s",
            hint="is that process stopped? Let it go on or end it; Plant(lock_timeout=...) waits longer",
        )

    def _write(self, payloads: Mapping[Key, bytes | None], work: Work | None) -> None:
        if not payloads and not work and not self._senseless:
            return
        self.remove_mark()
        if payloads:
            self._transact(self.small, lambda txn: self._put_payloads(txn, payloads))
        senseless = dict(self._senseless)
        number = 0

        def put_records(txn: Txn) -> None:
            nonlocal number
            number = txn.id()
            self._drop_senseless(txn, senseless)
            if work is not None:
                work(txn)

        if work is not None or senseless:
            self._transact(self.meta, put_records)
            self._note_own_commit(number)
        self.changed = True
        for place in senseless:
            self._senseless.pop(place, None)
            self._condemned.pop(place, None)
        for reader in self._readers:
            reader.refresh()

    def _transact(self, env: lmdb.Environment, work: Work) -> None:
        while True:
            try:
                with env.begin(write=True) as txn:
                    work(txn)
                return
            except lmdb.MapFullError:
                self._resize(env, env.info()["map_size"] * _GROWTH)
            except lmdb.MapResizedError:
                self._resize(env, 0)
            except lmdb.Error as error:
                self._reopen_if_broken(env)
                raise self._write_error(error) from error

    def _reopen_if_broken(self, env: lmdb.Environment) -> None:
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
            paused = self._pause_readers()
            try:
                self.is_usable = False
                self._close_environments()
                self.open()
                self.is_usable = True
            finally:
                for reader in paused:
                    reader.resume()

    def _close_environments(self) -> None:
        envs, self._envs = self._envs, []
        for env in envs:
            env.close()

    def _write_error(self, error: lmdb.Error) -> WarehouseError:
        room = os.statvfs(self.layout.root)
        free = room.f_bavail * room.f_frsize
        what = f"the index of {self.layout.root!r} can't be written: {error}"
        # On the last bytes of a disk LMDB's writes are short, which it reports as an I/O error.
        if isinstance(error, lmdb.DiskError) or free < _NEARLY_FULL:
            hint = "free some space there, then go on: what was announced as finished is still there"
            return WarehouseFull(f"{what} ({free:,} bytes free)", hint=hint)
        return WarehouseError(what)

    def _resize(self, env: lmdb.Environment, size: int) -> None:
        paused = self._pause_readers()
        try:
            env.set_mapsize(size)
        finally:
            for reader in paused:
                reader.resume()

    def _pause_readers(self) -> list[Reader]:
        paused: list[Reader] = []
        try:
            for reader in list(self._readers):
                reader.pause()
                paused.append(reader)
        except BaseException:
            for reader in paused:
                reader.resume()
            raise
        return paused

    def _drop_senseless(self, txn: Txn, senseless: Mapping[tuple[str, Key], bytes]) -> None:
        for (table, key), record in senseless.items():
            if txn.get(key, None, self.tables[table]) == record:  # it may have been written anew meanwhile
                txn.delete(key, db=self.tables[table])

    def record(self, txn: Txn, table: str, key: Key) -> bytes | None:
        """Body of one record inside a write transaction; None if missing or damaged."""
        record = self.stored(txn, table, key)
        return None if record is None else self.body_of(table, key, record)

    def stored(self, txn: Txn, table: str, key: Key) -> bytes | None:
        """One record inside a write transaction as it is, its check unread."""
        return txn.get(key, None, self.tables[table])

    def put(self, txn: Txn, table: str, rows: list[tuple[Key, bytes]]) -> None:
        """Put bodies of one table, each with its checksum."""
        sealing = self.sealing
        if sealing is None:
            records = sorted((key, seal_record(key, body)) for key, body in rows)
        else:
            records = sorted((key, sealing.seal(table, key, body)) for key, body in rows)
        with txn.cursor(self.tables[table]) as cursor:
            cursor.putmulti(records)

    def _put_payloads(self, txn: Txn, payloads: Mapping[Key, bytes | None]) -> None:
        for key, value in sorted(payloads.items()):
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value if self.sealing is None else self.sealing.seal(_PAYLOADS, key, value))

    def delete(self, txn: Txn, table: str, key: Key) -> None:
        """Remove one record; it may be gone already."""
        txn.delete(key, db=self.tables[table])

    def last_key(self, txn: Txn, table: str) -> Key | None:
        with txn.cursor(self.tables[table]) as cursor:
            return cursor.key() if cursor.last() else None

    # -- opening and closing

    def _open(self, folder: str, max_dbs: int) -> lmdb.Environment:
        data = os.path.join(folder, "data.mdb")
        size = os.path.getsize(data) if os.path.exists(data) else 0
        options: dict[str, Any] = {
            "map_size": max(_FIRST_MAP, -(-size * 5 // 4 // 4096) * 4096),
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
            raise WarehouseError(f"the index {folder!r} can't be opened: {error}") from error
        except OSError as error:  # of making the folder
            raise disk_error(error, f"the index {folder!r} can't be opened", self.layout.root) from error
        self._envs.append(env)
        if not self.read_only:
            env.reader_check()  # readers that died keep old pages in use
        return env

    def _open_env(self, folder: bytes, options: dict[str, Any]) -> lmdb.Environment:
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
        if not self._turn.acquire(self.lock_timeout):
            raise self.busy()
        try:
            self._turn.sign()
            return self._make_tables()
        finally:
            self._turn.release()

    def _make_tables(self) -> dict[str, Any]:
        try:
            with self.meta.begin(write=True) as txn:  # one for all: each that makes a table is synced to disk
                return {name: self.meta.open_db(name.encode(), txn) for name in TABLES}
        except lmdb.Error as error:
            raise self._write_error(error) from error

    def close(self) -> None:
        self.closed, self.is_usable = True, False
        for reader in list(self._readers):
            self.drop_reader(reader)
        self._close_environments()
        self._turn.close()

    def pause(self) -> None:
        """Nothing is open and nobody writes until `resume`: a fork copies no transaction."""
        self._gate.acquire()
        self._paused = self._pause_readers()

    def resume(self) -> None:
        for reader in self._paused:
            reader.resume()
        self._gate.release()

    def forget(self) -> None:
        """In a forked child: let go of what belongs to the parent, and of the locks that `pause` took."""
        self._forked, self.is_usable = True, False
        self.resume()
        for env in self._envs:
            env.close()
        self._turn.forget()

    # -- backup and the mark of a clean close

    def back_up(self) -> None:
        """Copy ``meta.lmdb`` to ``backup/meta.mdb``, whole or not at all."""
        target = os.path.join(self.layout.backup, "meta.mdb")
        beside = f"{target}.{os.getpid()}.new"
        self.changed = False
        try:
            _copy_env(self.meta, beside, durable=self._durable)
            make_way(target)
            os.rename(beside, target)
        except (OSError, lmdb.Error) as error:
            self.changed = True
            with suppress(OSError):  # what is left of it is overwritten by the next one
                remove_file(beside)
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise disk_error(cause, "the index can't be backed up", self.layout.backup) from error

    def remove_mark(self) -> None:
        """From now on the data files are not what the last clean close has left, or not to be believed."""
        if self._marked:
            remove_file(self.layout.mark)
            self._marked = False


def _rows(txn: Txn, table: Any, start: Key | None, limit: int) -> list[tuple[Key, bytes]]:
    with txn.cursor(table) as cursor:
        found = cursor.last() if start is None else cursor.set_range(start)
        rows = cursor.iterprev() if start is None else cursor.iternext()
        return list(islice(rows, limit)) if found else []


def _copy_env(env: lmdb.Environment, path: str, *, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        env.copyfd(fd)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def remove_file(path: str) -> None:
    """Remove a file that may be gone already."""
    make_way(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


# -- before opening: is each data file one that LMDB may be given? -----------------------------------------------------


#: Makes the hasher with which the mark of a clean close was made; None: no mark is believed, whoever made it.
NewHasher = Callable[[], Any] | None


#: Whether a record (table, key, record) matches its checksum.
IsWhole = Callable[[str, Key, bytes], bool]


def inspect_files(
    layout: Layout, report: Callable[[str], None], is_whole: IsWhole, new_hasher: NewHasher = Hasher
) -> None:
    """Put damaged data files aside and bring the backup of the index back. Call only while no session is open.

    A damaged or truncated data file can kill the process inside LMDB, so it never gets one to see that is not
    either what the last clean close left, or sound by `lmdb.verify`.

    Parameters
    ----------
    layout : Layout
    report : callable
        As in `Index`.
    is_whole : callable
        See `IsWhole`.
    new_hasher : callable or None
        See `NewHasher`.
    """
    mark = _read_mark(layout)
    for folder in (layout.meta, layout.small):
        remove_file(os.path.join(folder, "lock.mdb"))  # stale or forged; LMDB makes a new one
        _drop_empty(os.path.join(folder, "data.mdb"))
        if _is_as_marked(folder, mark, new_hasher):
            continue
        if not _is_sound(folder):
            aside = layout.index_aside(os.path.basename(folder))
            os.rename(folder, aside)
            os.mkdir(folder, 0o700)
            report(f"{folder!r} was damaged and is now {aside!r}; {_bring_back(layout, folder)}")
        elif folder == layout.meta and _is_lost(layout):
            report(f"the index {folder!r} was lost; {_bring_back(layout, folder)}")
        if folder == layout.meta:
            _leave_out_damaged(layout, report, is_whole)


def _is_lost(layout: Layout) -> bool:
    """Whether there is no index, and a backup of one."""
    data, backup = os.path.join(layout.meta, "data.mdb"), os.path.join(layout.backup, "meta.mdb")
    return not os.path.exists(data) and os.path.exists(backup)


def _leave_out_damaged(layout: Layout, report: Callable[[str], None], is_whole: IsWhole) -> None:
    """Copy the records that match their checksums to a new file, if there are others.

    They can't be taken out one by one: their size may be what is damaged, and LMDB would move what lies beside them by
    that size.
    """
    data = os.path.join(layout.meta, "data.mdb")
    if not os.path.exists(data):
        return
    with _opened_alone(data) as env, env.begin() as txn:
        damaged = sum(not is_whole(table, key, value) for table, key, value in _records(env, txn))
        if not damaged:
            return
        beside = f"{data}.new"
        remove_file(beside)
        _copy_records(env, txn, beside, is_whole)
    import shutil  # as in `_bring_back`

    aside = layout.index_aside(_INDEX)
    os.mkdir(aside, 0o700)
    shutil.copyfile(data, os.path.join(aside, "data.mdb"))
    os.rename(beside, data)
    sync_path(layout.meta)
    report(f"{damaged} damaged record(s) of {layout.meta!r} count as missing; the file as it was is now in {aside!r}")


def _records(env: lmdb.Environment, txn: Txn) -> Iterator[tuple[str, Key, bytes]]:
    """Table, key and record of everything in an index."""
    for name in txn.cursor().iternext(values=False):
        for key, record in txn.cursor(env.open_db(name, txn, create=False)):
            yield name.decode(), key, record


def _copy_records(env: lmdb.Environment, txn: Txn, path: str, is_whole: IsWhole) -> None:
    """Write the sound records of an index to a new data file."""
    size = 2 * max(_FIRST_MAP, int(env.info()["map_size"]))
    with _opened_alone(path, map_size=size, readonly=False, sync=False) as new:
        tables = {name: new.open_db(name.encode()) for name in TABLES}
        with new.begin(write=True) as into:
            for table, key, record in _records(env, txn):
                if is_whole(table, key, record):
                    into.put(key, record, db=tables[table])
    os.chmod(path, 0o600)
    sync_path(path)


def _opened_alone(path: str, **options: Any) -> lmdb.Environment:
    """A data file that nobody else has open, without LMDB's lock file; for reading, unless `options` differ."""
    size = max(_FIRST_MAP, os.path.getsize(path)) if os.path.exists(path) else _FIRST_MAP
    private = {"map_size": size, "readonly": True, "lock": False, "subdir": False, "lib_version": 0}
    return lmdb.open(os.fsencode(path), max_dbs=len(TABLES), **{**private, **options})


def is_as_closed(layout: Layout, new_hasher: NewHasher = Hasher) -> bool:
    """Whether both data files are what the last clean close has left; True is good even while others may write."""
    mark = _read_mark(layout)
    return all(_is_as_marked(folder, mark, new_hasher) for folder in (layout.meta, layout.small))


def refuse_damaged(layout: Layout, new_hasher: NewHasher = Hasher) -> None:
    """`inspect_files` for those who may not write: they are told. Call only while nobody writes.

    Raises
    ------
    WarehouseError
        If LMDB may not be given one of the data files.
    """
    mark = _read_mark(layout)
    for folder in (layout.meta, layout.small):
        if not _is_as_marked(folder, mark, new_hasher) and not _is_sound(folder):
            raise WarehouseError(
                f"the index {folder!r} is damaged, so the warehouse can't be read",
                hint="open it once so that it may write (Warehouse(directory)): the damaged file is put aside, "
                "and the backup of the index serves if there is one",
            )


def _drop_empty(data: str) -> None:
    """An empty data file is what a kill leaves while LMDB makes it, or damage: either way there is nothing in it."""
    if os.path.isfile(data) and os.path.getsize(data) == 0:
        remove_file(data)


def write_mark(layout: Layout, *, durable: bool, new_hasher: NewHasher = Hasher) -> None:
    """Note what both data files are, now that all sessions have closed."""
    make = new_hasher or Hasher
    found = {os.path.basename(folder): _describe(folder, make) for folder in (layout.meta, layout.small)}
    write_file(layout.mark, to_json(found).encode(), durable=durable)


def _read_mark(layout: Layout) -> dict[str, Any]:
    try:
        mark = from_json(read_small(layout.mark).decode())
    except (OSError, ValueError):
        return {}  # no mark, or none that can be read: the files are verified
    return mark if isinstance(mark, dict) else {}


def _is_as_marked(folder: str, mark: Mapping[str, Any], new_hasher: NewHasher) -> bool:
    """Whether a data file is what the last clean close has left."""
    if new_hasher is None:
        return False
    try:
        is_file = stat.S_ISREG(os.lstat(os.path.join(folder, "data.mdb")).st_mode)
        return is_file and mark.get(os.path.basename(folder)) == _describe(folder, new_hasher)
    except OSError:
        return False


def _describe(folder: str, new_hasher: Callable[[], Any]) -> list[int | str]:
    """Size of the data file and digest of its first 64 MiB."""
    hasher, piece = new_hasher(), memoryview(bytearray(_PIECE))
    with open(os.path.join(folder, "data.mdb"), "rb", buffering=0) as file:
        for _ in range(_MARKED // _PIECE):
            count = file.readinto(piece)
            if not count:
                break
            hasher.update(piece[:count])
        return [os.fstat(file.fileno()).st_size, hasher.hexdigest()]


def _is_sound(folder: str) -> bool:
    """Whether LMDB may be given a data file, and finds in it all that there is."""
    data = os.path.join(folder, "data.mdb")
    try:
        info = os.lstat(data)
    except FileNotFoundError:
        return True  # nothing there: nothing wrong with it
    try:
        return stat.S_ISREG(info.st_mode) and not _verify(data) and not _walk(data, folder.endswith(_INDEX))
    except OSError:
        return False


def _verify(data: str) -> list[str]:
    from lmdb.verify import VerifyError, verify  # pure Python and only needed after an unclean end

    try:
        return list(verify(data, subdir=False))  # type: ignore[no-untyped-call]
    except VerifyError as error:
        return [str(error)]


def _walk(data: str, is_index: bool) -> list[str]:
    """Look up every key, as reading will; only for what `verify` lets pass, since LMDB can die of the rest.

    `verify` does not compare keys with the branches above them (where a key leads elsewhere, its record can't be found,
    nor removed), and it does not see that a file belongs elsewhere.
    """
    try:
        with _opened_alone(data) as env, env.begin() as txn:
            return _strays_of_index(env, txn) if is_index else _strays(txn, None, _is_address)
    except lmdb.Error as error:
        return [str(error)]


def _strays_of_index(env: lmdb.Environment, txn: Txn) -> list[str]:
    names = {name.encode() for name in TABLES}
    found = list(txn.cursor().iternext(values=False))
    strays = [repr(name) for name in found if name not in names]
    for name in names.intersection(found):
        strays += _strays(txn, env.open_db(name, txn, create=False), bool)
    return strays


def _strays(txn: Txn, table: Any, belongs: Callable[[Key], bool]) -> list[str]:
    """The first key of a table that does not belong there, or is not found where it is looked for."""
    finder = txn.cursor(table)
    for key in txn.cursor(table).iternext(values=False):
        if not belongs(key) or not finder.set_key(key):
            return [f"the key {key!r} does not belong where it is"]
    return []


def _is_address(key: Key) -> bool:
    return len(key) == 32 and key.isalnum()


def _bring_back(layout: Layout, folder: str) -> str:
    """Put the backup in place; what was done, in words."""
    backup = os.path.join(layout.backup, "meta.mdb")
    if folder != layout.meta:
        return "the ingredients in it are made again when they are needed"
    if not os.path.isfile(backup) or os.path.islink(backup) or _verify(backup) or _walk(backup, is_index=True):
        return "there is no backup that can be used, so everything is made again when it is needed"
    import shutil  # some milliseconds, for those who lost an index only

    beside = os.path.join(folder, "data.mdb.new")
    shutil.copyfile(backup, beside)
    os.chmod(beside, 0o600)
    sync_path(beside)
    os.rename(beside, os.path.join(folder, "data.mdb"))
    sync_path(folder)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.path.getmtime(backup)))
    return f"its backup of {when} serves, what is newer is made again when it is needed"

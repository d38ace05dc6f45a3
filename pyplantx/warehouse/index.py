"""The LMDB environments: ``meta.lmdb`` (records), ``small.lmdb`` (payloads up to 1 MB).

This file may know: tables, keys, records with checksums, transactions, map sizes, backups. It may not know: what a
record means, the queue of commits, files of objects.

Rules kept here, each for a measured reason (docs/design/warehouse.md):

- one writer at a time, by a lock of our own with a time limit in front of LMDB's, which has none;
- never ``writemap``; maps grow in steps; no transaction of this process is open while a map changes its size;
- reading goes through a `Reader`, whose transaction others may end between reads (a growing map, a fork, a timer);
- a data file is inspected before LMDB opens it (``inspection.py``, the only other importer of lmdb);
- a record that does not match its checksum is neither removed nor replaced in place.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb

from pyplantx.errors import DamagedObject, StoreBusy, WarehouseError, WarehouseFull
from pyplantx.warehouse.files import Layout, disk_error, in_words, make_folder, make_way, opened_read_only, write_file
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.records import seal_record, unseal_record

#: The tables of ``meta.lmdb``. specs/warehouse/1/FORMAT.md says what each holds.
TABLES = ("traces", "names", "versions", "parts", "code", "objects", "blobs", "history")

#: Stands for the table in the checks of the payloads of a signed store.
_PAYLOADS = "small"

FIRST_MAP, _GROWTH = 64 << 20, 2
_MAX_READERS = 510
#: Seconds after which a read that blocks a growing map or a fork is an error.
_LONGEST_READ = 10.0
#: Free bytes below which a failed write is blamed on the full disk.
_NEARLY_FULL = 4 << 20

#: In a forked child: what of its parent must not be ended, see `Index.forget`.
_never_ended: list[Any] = []
_FORK_AGAIN = "it was in use when this process was forked: fork when nobody uses it, or use a fresh process"

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
        self._kept = self._dropped = False
        self._last_foreign = 0  # number of the newest commit of another process that the view shows
        self.uses = 0  # so that an idle timer can tell whether the transaction is in use

    def get(self, table: str, key: Key) -> bytes | None:
        """Body of one record; None if there is none, or if it is damaged (which is reported)."""
        try:
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
        except lmdb.MapResizedError:
            self._index.follow_growth()
            return self.get(table, key)
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
        return self._from_small(lambda txn: self._index.payload_of(key, txn.get(key)), buffers=False)

    def own_payload(self, key: Key) -> bytearray | None:
        """A payload in memory that nobody else has, copied once; None if there is none. Not for signed stores."""

        def copied(txn: Any) -> bytearray | None:
            stored = txn.get(key)
            return None if stored is None else bytearray(stored)

        return self._from_small(copied, buffers=True)

    def payload_sizes(self) -> dict[Key, int]:
        """Key -> bytes of every payload of the second environment."""
        return self._from_small(lambda txn: {bytes(key): len(value) for key, value in txn.cursor()}, buffers=True) or {}

    def _from_small(self, read: Callable[[Any], _T], *, buffers: bool) -> _T | None:
        """What a read of the second environment gives; None if its pages can't be read, which is reported."""
        try:
            with self._lock, self._index.begin_read(self._index.small, buffers=buffers) as txn:
                return read(txn)
        except lmdb.MapResizedError:
            self._index.follow_growth()
            return self._from_small(read, buffers=buffers)
        except lmdb.Error as error:
            self._index.doubt(f"a page of small.lmdb can't be read ({error})")
            return None

    def keep(self, kept: bool) -> None:
        """Whether the transaction stays open between reads."""
        with self._lock:
            self._kept = kept
            if not kept:
                self._end()

    def refresh(self, older_than: float = 0.0) -> None:
        """Let the next read see what others have committed since, if the view is older than that many seconds."""
        if time.monotonic() - self._begun >= older_than:  # even while a view is begun: it may have come too early
            self._stale = True  # the reading thread ends it: no other thread ever waits for that one

    def catch_up(self) -> None:
        """As `refresh`, if anybody has committed anything since; to look costs a third of a new view."""
        with self._lock:  # so that the map stays where it is
            if self._txn is not None and self._index.last_commit() != self._txn.id():
                self._stale = True

    def foreign_changes(self) -> int:
        """A number that grows when look-ups may see, from now on, what another process has written."""
        if self._stale or self._txn is None:
            try:
                with self._lock:
                    self._begin()
                    if not self._kept:
                        self._end()
            except lmdb.MapResizedError:
                self._index.follow_growth()
                return self.foreign_changes()
        return self._last_foreign

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
            raise WarehouseError("a read of the store does not end")
        self._end()

    def resume(self) -> None:
        self._lock.release()

    def abandon(self) -> Any:
        """In a forked child: nobody holds the lock any more; the transaction that was open, which must not be ended."""
        self._lock = threading.RLock()
        txn, self._txn = self._txn, None
        return txn

    def _slice(self, table: str, start: Key | None, limit: int) -> list[tuple[Key, bytes]]:
        """Up to `limit` raw records from `start` on; with None the last ones, backward."""
        try:
            return self._slice_of_view(table, start, limit)
        except lmdb.MapResizedError:
            self._index.follow_growth()
            return self._slice(table, start, limit)

    def _slice_of_view(self, table: str, start: Key | None, limit: int) -> list[tuple[Key, bytes]]:
        with self._lock:
            txn = self._begin() if self._stale or self._txn is None else self._txn
            try:
                taken = _rows(txn, self._index.tables[table], start, limit)
            except lmdb.Error as error:
                self._end()
                self._index.doubt(f"table {table!r} can't be read ({error})")
                raise WarehouseError(
                    f"table {table!r} of {self._index.layout.meta!r} can't be read: {error}",
                    hint="close the store and open it again: its index is then checked, and its backup serves",
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

    def drop(self) -> None:
        """Its warehouse is closed: nothing is read any more, though others of this process have the store open."""
        self._dropped = True
        self.keep(False)

    def check(self) -> None:
        """Raise if it was dropped."""
        if self._dropped:
            raise self._index.too_late()

    def _begin(self) -> Txn:
        self.check()
        self._end()
        self._stale = False
        txn: Txn = self._index.begin_read(self._index.meta)
        self._txn = txn
        number = txn.id()
        # At most that: another thread may have seen a later one, which this view does not show.
        self._last_foreign = min(self._index.note_commit(number), number)
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
        self._writing = threading.RLock()  # a write transaction is open
        self._copying = threading.RLock()  # the index is being backed up
        self._readers: list[Reader] = []
        self._paused: list[Any] = []
        self._patience = max(_LONGEST_READ, lock_timeout)
        self._condemned: dict[tuple[str, Key], bytes] = {}  # what counts as missing
        self._senseless: dict[tuple[str, Key], bytes] = {}  # those of them that the next write removes
        self._renewed: set[str] = set()  # tables that the present transaction has written anew
        self._is_doubtful = False  # damage was seen
        self._marked = True  # a mark of a clean close may exist: remove it before the first write
        self.changed = False
        self._noting = threading.RLock()  # one thread notes a commit at a time
        self._last_foreign = 0  # number of the newest commit of another process that was noticed
        self._last_commit = 0  # number of the newest commit that is known, whoever made it
        self._own_commit = 0  # number of the one that we are writing just now
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
        reader.drop()
        self._readers.remove(reader)

    def begin_read(self, env: lmdb.Environment, *, buffers: bool = False) -> Any:
        """A read transaction; for `Reader` only.

        Raises
        ------
        lmdb.MapResizedError
            If another process has made the file longer than our map: `follow_growth`, without a lock of a reader.
        """
        if not self.is_usable:
            self.usable()
        try:
            return env.begin(buffers=True) if buffers else env.begin()
        except lmdb.MapResizedError:
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
        except lmdb.MapResizedError:
            return -1
        number: int = txn.id()
        txn.abort()
        return number

    def follow_growth(self) -> None:
        """Map what other processes have added to the files; nobody of this process reads or writes meanwhile."""
        paused = self._pause_readers()
        try:
            for env in (self.meta, self.small):
                env.set_mapsize(0)
        finally:
            self._resume_readers(paused)

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

    def doubt(self, trouble: str) -> None:
        """Damage was seen: tell it, and let the next opening look closely, whoever closes the store."""
        self.report(trouble)
        if self._is_doubtful or self.read_only:
            return
        self._is_doubtful = True
        try:
            write_file(self.layout.doubt, b"", durable=False)
        except OSError as error:
            self.report(f"that could not be noted for the next opening: {error.strerror}")

    def condemn(self, table: str, key: Key, record: bytes) -> None:
        """A record does not match its checksum: it counts as missing.

        It stays until the table is written anew, at the next opening or before it is to be replaced: its size may be
        what is damaged, and LMDB would move its neighbours by that size.
        """
        if (table, key) in self._condemned:
            return
        self._condemned[table, key] = record
        self.doubt(f"a record of table {table!r} is damaged and counts as missing")
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
            raise opened_read_only(self.layout.root)
        if not self._gate.acquire(timeout=wait):
            return False
        try:
            return self._write_in_turn(take, wait)
        finally:
            self._gate.release()

    def _write_in_turn(self, take: Callable[[], Batch], wait: float) -> bool:
        try:
            if not self._turn.acquire(wait):
                return False
            self._turn.sign()
            with in_words(f"the index of {self.layout.root!r} can't be written", self.layout.root):
                self._write(*take())
        finally:
            self._end_turn()
        return True

    def _end_turn(self) -> None:
        try:
            self._turn.release()
        except BaseException:  # Ctrl-C in there: nobody else could write any more
            self._turn.release()
            raise

    def note_commit(self, number: int) -> int:
        """The index is seen to be at this commit; LMDB numbers them, whoever makes them.

        Returns
        -------
        int
            The newest one known that is another's. In doubt (a number was skipped) our own counts as such.
        """
        if number > self._last_commit:
            with self._noting:
                self._note_next_commit(number)
        return self._last_foreign

    def _note_next_commit(self, number: int) -> None:
        if number > self._last_commit:
            if not number == self._own_commit == self._last_commit + 1:
                self._last_foreign = number  # first: who finds nothing to note any more reads what is noted
            self._last_commit = number

    def busy(self) -> StoreBusy:
        """The error for a writer that does not end."""
        holder, _ = self._turn.holder()
        return StoreBusy(
            f"the store {self.layout.root!r} is being written by {holder}, for more than {self.lock_timeout:g} s",
            hint="is that process stopped? Let it go on or end it; Plant(lock_timeout=...) waits longer",
        )

    def _write(self, payloads: Mapping[Key, bytes | None], work: Work | None) -> None:
        if not payloads and not work and not self._senseless:
            return
        self._remove_mark()
        if payloads:
            self._transact(self.small, lambda txn: self._put_payloads(txn, payloads))
        senseless = dict(self._senseless)

        def put_records(txn: Txn) -> None:
            self._own_commit = txn.id()  # beforehand: another thread may see it before this one goes on
            self._renewed.clear()  # of a transaction that was too large
            self._drop_senseless(txn, senseless)
            if work is not None:
                work(txn)

        if work is not None or senseless:
            try:
                self._transact(self.meta, put_records)
                self.note_commit(self.meta.info()["last_txnid"])
            finally:
                self._own_commit = 0  # while it is still our turn: if nothing was written, another's gets that number
        self.changed = True
        for place in [*senseless, *[place for place in self._condemned if place[0] in self._renewed]]:
            self._senseless.pop(place, None)
            self._condemned.pop(place, None)
        for reader in self._readers:
            reader.refresh()

    def _transact(self, env: lmdb.Environment, work: Work) -> None:
        while True:
            try:
                with self._writing, env.begin(write=True) as txn:
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
                self._resume_readers(paused)

    def _close_environments(self) -> None:
        while self._envs:
            self._envs[-1].close()  # twice does no harm, should an interrupt come before the next line
            self._envs.pop()

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
            self._resume_readers(paused)

    def _pause_readers(self) -> list[Any]:
        """Wait until nobody of this process reads, writes or copies, and keep it so until `_resume_readers`.

        LMDB moves its map when that grows, whoever is in it. The locks are always taken in this order, and a reader
        that has to wait for others has given its own back before.
        """
        taken: list[Any] = []
        try:
            for lock in (self._writing, self._copying):
                if not lock.acquire(timeout=self._patience):
                    raise WarehouseError("a transaction of the store does not end")
                taken.append(lock)
            for reader in list(self._readers):
                reader.pause()
                taken.append(reader)
        except BaseException:
            self._resume_readers(taken)
            raise
        return taken

    @staticmethod
    def _resume_readers(taken: list[Any]) -> None:
        for one in reversed(taken):
            one.resume() if isinstance(one, Reader) else one.release()

    def _drop_senseless(self, txn: Txn, senseless: Mapping[tuple[str, Key], bytes]) -> None:
        for (table, key), record in senseless.items():
            if txn.get(key, None, self.tables[table]) == record:  # it may have been written anew meanwhile
                txn.delete(key, db=self.tables[table])

    def record(self, txn: Txn, table: str, key: Key) -> bytes | None:
        """Body of one record inside a write transaction; None if missing or damaged."""
        record = self.stored(txn, table, key)
        return None if record is None else self.checked(table, key, record)

    def stored(self, txn: Txn, table: str, key: Key) -> bytes | None:
        """A record as it is stored, whether it matches its checksum or not; None if there is none."""
        return txn.get(key, None, self.tables[table])

    def checked(self, table: str, key: Key, record: bytes) -> bytes | None:
        """The body of a record; None if it does not match its checksum, which is reported."""
        body = self.body_of(table, key, record)
        if body is None:
            self.condemn(table, key, record)
        return body

    def put(self, txn: Txn, table: str, rows: list[tuple[Key, bytes]]) -> None:
        """Put bodies of one table, each with its checksum. What they replace must have been looked at before."""
        if self._condemned:
            self._make_way(txn, table, [key for key, _ in rows])
        sealing = self.sealing
        if sealing is None:
            records = sorted((key, seal_record(key, body)) for key, body in rows)
        else:
            records = sorted((key, sealing.seal(table, key, body)) for key, body in rows)
        with txn.cursor(self.tables[table]) as cursor:
            cursor.putmulti(records)

    def _make_way(self, txn: Txn, table: str, keys: list[Key]) -> None:
        """Write a table anew, without its damaged records, if one of them is about to be replaced."""
        if all(self._may_change(table, key) for key in keys):
            return
        sound = []
        for key, record in txn.cursor(self.tables[table]):
            if self.checked(table, key, record) is not None:
                sound.append((key, record))
        txn.drop(self.tables[table], delete=False)
        with txn.cursor(self.tables[table]) as cursor:
            cursor.putmulti(sound)
        self._renewed.add(table)

    def _may_change(self, table: str, key: Key) -> bool:
        """Whether a record may be replaced or removed in place: its size is right."""
        return (table, key) not in self._condemned or (table, key) in self._senseless or table in self._renewed

    def _put_payloads(self, txn: Txn, payloads: Mapping[Key, bytes | None]) -> None:
        for key, value in sorted(payloads.items()):
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value if self.sealing is None else self.sealing.seal(_PAYLOADS, key, value))

    def delete(self, txn: Txn, table: str, key: Key) -> None:
        """Remove one record; it may be gone already. A damaged one stays, and counts as missing."""
        if self._may_change(table, key):
            txn.delete(key, db=self.tables[table])

    def last_key(self, txn: Txn, table: str) -> Key | None:
        with txn.cursor(self.tables[table]) as cursor:
            return cursor.key() if cursor.last() else None

    def first_keys(self, txn: Txn, table: str, end: Key, most: int) -> list[Key]:
        """The first keys of a table that are below `end`, at most so many."""
        with txn.cursor(self.tables[table]) as cursor:
            cursor.first()
            keys = islice(cursor.iternext(keys=True, values=False), most)
            return list(takewhile(lambda key: key < end, keys))

    # -- opening and closing

    def _open(self, folder: str, max_dbs: int) -> lmdb.Environment:
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
            hint = _FORK_AGAIN if _never_ended else ""
            raise WarehouseError(f"the index {folder!r} can't be opened: {error}", hint=hint) from error
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
        """Nothing is open and nobody writes until `resume`: a fork copies no transaction.

        Raises
        ------
        WarehouseError
            If somebody does not come to an end; then there is nothing to resume.
        """
        if not self._gate.acquire(timeout=self._patience):
            raise WarehouseError("a transaction of the store does not end")
        try:
            self._paused = self._pause_readers()
        except BaseException:
            self._gate.release()
            raise

    def resume(self) -> None:
        try:
            self._resume_readers(self._paused)
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
            _never_ended.append((self._envs, [reader.abandon() for reader in self._readers]))
        self._turn.forget()

    # -- backup and the mark of a clean close

    def back_up(self) -> None:
        """Copy ``meta.lmdb`` to ``backup/meta.mdb``, whole or not at all; not where damage was seen.

        The last backup may be the only sound copy then.
        """
        if os.path.exists(self.layout.doubt):
            return
        target = os.path.join(self.layout.backup, "meta.mdb")
        beside = f"{target}.{os.getpid()}.new"
        self.changed = False
        try:
            make_folder(self.layout.backup)  # a link that was put in its place leads elsewhere
            with self._copying:
                _copy_env(self.meta, beside, durable=self._durable)
            make_way(target)
            os.rename(beside, target)
        except (OSError, lmdb.Error) as error:
            self.changed = True
            with suppress(OSError):  # what is left of it is overwritten by the next one
                remove_file(beside)
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise disk_error(cause, "the index can't be backed up", self.layout.backup) from error

    def _remove_mark(self) -> None:
        if self._marked:
            remove_file(self.layout.mark)
            remove_file(self.layout.lifted_mark)
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

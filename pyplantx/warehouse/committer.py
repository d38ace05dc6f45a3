"""The queue between "a reactor has ended" and "it is durable".

This file may know: what waits to be written, in which order, and when. It may not know: specs, values, plants.

A commit is queued and can be looked up at once (`Waiting` answers before the index does). It is written by whoever
comes first: the plant's own thread at a quiet point, once the oldest commit has waited `PATIENCE`; or the background
thread, if the plant's thread is in user code for longer than `LIMIT`. (LMDB gives up the interpreter lock at each put,
so a background thread that writes while the main thread computes is about 1,000 times slower.) A second thread syncs
the files of objects; a commit that names one waits in the queue until that is done, and so does what is to replace a
record of it. So a trace never becomes durable before what it names, and it is announced only after it is durable.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Set
from functools import cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from pyplantx.core.trace import Digest
from pyplantx.errors import WarehouseError
from pyplantx.specs.threads import start_thread
from pyplantx.warehouse.haste import haste
from pyplantx.warehouse.index import Batch, Index
from pyplantx.warehouse.objects import Objects
from pyplantx.warehouse.records import IN_FILES, IN_RECORD, IN_SMALL, HistoryEntry, ObjectRecord
from pyplantx.warehouse.tables import WRITERS, put_history
from pyplantx.warehouse.waiting import Commit, Held, Item, NewVersion, Waiting

if TYPE_CHECKING:
    from pyplantx.warehouse.environments import Txn

_new = tuple.__new__  # see `core/trace.py`

#: Seconds after which the plant's thread writes what waits; after which the background thread does.
PATIENCE, LIMIT = 0.025, 0.035
#: Bytes of waiting payloads at which the plant's thread writes sooner; at which whoever adds to them writes.
MANY_BYTES, TOO_MANY_BYTES = 8 << 20, 16 << 20
#: Bytes from which on a payload that would live in its record may live in ``small.lmdb``: on pages of its own there.
_MOVABLE = 2048
#: Bytes of waiting payloads from which on their memory is used again for the next ones.
_WORTH_KEEPING = 1 << 20
#: Times the background thread looks without finding anything before it waits until it is told.
_LOOKS = 25
#: Seconds after which an unused read transaction is ended; between backups of an index that changes.
IDLE, BACKUP_EVERY = 1.0, 300.0
#: Seconds until a write that failed is tried again by itself.
RETRY = 1.0
#: Seconds to wait for a background thread at the end: one that hangs must not hang the program.
_LONGEST_STOP = 10.0


class Committer:
    """Queue and background thread of one directory.

    Parameters
    ----------
    index : Index
    objects : Objects
    durable : bool
        Whether files are synced to disk before the index names them.
    report : callable
        Takes a sentence about trouble that nobody is waiting for.
    """

    def __init__(self, index: Index, objects: Objects, *, durable: bool, report: Callable[[str], None]) -> None:
        self._index = index
        self._objects = objects
        self._durable = durable
        self._report = report
        self._lock = threading.RLock()  # guards everything below; held for microseconds only
        self.waiting = Waiting()
        self.commits = 0  # of all warehouses that share this
        self._queue: list[Item] = []
        self._payloads: dict[Digest, bytes] = {}
        self._unsynced: dict[Digest, ObjectRecord] = {}
        self._void: set[Digest] = set()  # objects that could not be synced, until they are stored again
        self._syncing: dict[Digest, threading.Thread] = {}  # of those above, the ones that are under way
        self._bytes = 0
        self._most_bytes = TOO_MANY_BYTES
        self._oldest = 0.0  # when the oldest entry came; 0: nothing waits
        self._written = 0.0  # when the plant's thread has last begun to write
        self._due: deque[Callable[[], None]] = deque()
        self._error: BaseException | None = None
        self._retry_at = 0.0
        self._flushing = threading.RLock()  # one batch at a time: a later one may build on what an earlier one writes
        self._synced = threading.Condition(self._lock)
        self._ticks: SimpleQueue[bool] = SimpleQueue()  # True: something waits; False: stop
        self._files: SimpleQueue[bool] = SimpleQueue()  # True: something is to be synced; False: stop
        self._ticker: threading.Thread | None = None
        self._looks = 0  # how often the ticker still looks by itself; 0: it is to be told
        self._syncer: threading.Thread | None = None
        self._idle_uses: dict[int, int] = {}
        self._backup_at = time.monotonic() + BACKUP_EVERY

    def limit_waiting(self, most: int) -> None:
        """Payloads of at most so many bytes may wait; of several limits the lowest counts."""
        self._most_bytes = min(most, self._most_bytes)

    # -- adding to the queue (the plant's thread, or a worker's)

    def hold(self, address: Digest, record: ObjectRecord, payload: bytes, *, passing: bool = False) -> None:
        """Keep a sealed object at hand until a commit names it; begin to make its payload durable.

        Parameters
        ----------
        address, record, payload
            What was sealed.
        passing : bool
            Whether an activity has sent it: `let_go` forgets it, if no commit has named it by then.
        """
        with self._lock:
            if record.home == IN_RECORD and len(payload) >= _MOVABLE and self._is_crowded():
                record = record._replace(home=IN_SMALL)
            if record.home == IN_SMALL:
                self._payloads[address] = payload
                self._bytes += len(payload)
                self._touch()
                if self._bytes > _WORTH_KEEPING:
                    _keep_freed_memory()
            elif record.home == IN_FILES and self._durable:
                self._unsynced[address] = record
                self._start_syncer()
                self._files.put(True)
            # Last, so that an interrupt leaves nothing that looks stored and is not on its way to disk.
            self._void.discard(address)
            self.waiting.gone.discard(address)
            self.waiting.keep(address, Held(record, payload))
            if passing:
                self.waiting.unnamed.add(address)
        if self._bytes > self._most_bytes or (self._queue and self._is_crowded()):
            self.flush(self._index.environments.lock_timeout)

    def _is_crowded(self) -> bool:
        """Whether those payloads that will be written with their records, and not before, fill half of the room."""
        return self.waiting.in_records > self._most_bytes // 2

    def let_go(self) -> None:
        """Forget what was sent and no commit has named, now that all activities have ended: failed runs left it."""
        if not self.waiting.unnamed:
            return
        with self._lock:
            for address in list(self.waiting.unnamed):
                self.waiting.lose(address)
                self._drop_payload(address)

    def keep_unnamed(self, address: Digest) -> None:
        """Somebody outside of all activities is about to name it."""
        with self._lock:
            self.waiting.unnamed.discard(address)

    def commit(self, commit: Commit, version: NewVersion | None, announce: Callable[[], None] | None) -> None:
        """Queue what one reactor has left; nothing, if it has sent what could not be synced, which `sync` tells."""
        writes: list[tuple[str, Any, Any]] = []
        needs: tuple[Digest, ...] = ()
        producer = (commit.reactor, commit.root)
        seconds = commit.entry.seconds if commit.entry is not None else None
        with self._lock:
            if self._void and not self._void.isdisjoint([ref.address for _, ref in commit.sent]):
                self.commits += 1
                return
            waiting = self.waiting
            for name, ref in commit.sent:
                writes.append(("names", name, waiting.add_sent(name, ref, producer)))
                if ref.inline is None:
                    needs += self._name_object(ref.address, writes, seconds)
            for key, text in commit.records:
                waiting.traces[key] = text
                writes.append(("traces", key, text))
            if version is not None:
                waiting.add_version(version)
                writes.append(("versions", (version.reactor, version.root), version))
            self.commits += 1  # behind what it tells of: who has read this number sees all that it counts
            self._queue.append(_new(Item, (writes, needs, commit.entry, announce)))
            self._touch()

    def put(self, table: str, key: str, text: str, *, patient: bool = False) -> None:
        """Queue one small record; a `patient` one does not start the clock, it goes with whatever comes next."""
        with self._lock:
            self.waiting.tables[table][key] = text
            self._queue.append(_new(Item, ([(table, key, text)], (), None, None)))
            if not patient:
                self._touch()

    def note_run(self, entry: HistoryEntry) -> None:
        """Queue what the history tells of a run that leaves nothing else; it goes with whatever comes next."""
        with self._lock:
            self._queue.append(_new(Item, ([], (), entry, None)))

    def forget_object(self, address: Digest) -> None:
        """An object counts as missing from now on; queue the removal of its record."""
        with self._lock:
            self.waiting.lose(address)
            self._drop_payload(address)
            self.waiting.gone.add(address)
            if not self._index.read_only:
                self._queue.append(Item([("objects", address, None)], (), None, None))
                self._touch()

    def _drop_payload(self, address: Digest) -> None:
        """Nothing of it need become durable any more; what names it waits for that no longer."""
        if self._payloads.pop(address, None) is not None:
            self._bytes = sum(map(len, self._payloads.values()))
        if self._unsynced.pop(address, None) is not None:
            self._syncing.pop(address, None)
            self._synced.notify_all()

    def _name_object(
        self, address: Digest, writes: list[tuple[str, Any, Any]], seconds: float | None
    ) -> tuple[Digest, ...]:
        """Write the object's record with this commit too, if it is not known to be durable yet."""
        held = self.waiting.sealed.get(address)
        if held is not None:
            self.waiting.unnamed.discard(address)
            if held.record.seconds is None and seconds is not None:
                held = self.waiting.sealed[address] = Held(held.record._replace(seconds=seconds), held.payload)
            writes.append(("objects", address, held))
        return (address,) if address in self._unsynced else ()

    def _touch(self) -> None:
        if not self._oldest:
            self._oldest = time.monotonic()
            self._start_ticker()
            if not self._looks:  # waking a thread costs both of them the interpreter lock, for each batch
                self._looks = _LOOKS
                self._ticks.put(True)

    # -- writing

    def maybe_flush(self) -> None:
        """Write what waits, if it has waited long enough. Cheap when nothing is due.

        Raises
        ------
        WarehouseError
            If something could not be made durable; what waits stays queued and is tried again.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        oldest = self._oldest
        if not oldest:
            return
        now = time.monotonic()
        if (now - oldest >= PATIENCE or self._bytes > MANY_BYTES) and now >= self._retry_at:
            written = self.flush(0.0)
            if not written and now - oldest > self._index.environments.lock_timeout:
                raise self._index.environments.busy()

    def flush(self, wait: float) -> bool:
        """Write everything that is ready; False if another writer did not end within `wait` seconds."""
        if not self._flushing.acquire(timeout=wait):
            return False
        try:
            return self._flush(wait)
        finally:
            self._flushing.release()

    def _flush(self, wait: float) -> bool:
        if not self._queue and not self._payloads:
            return True
        batch: list[tuple[list[Item], dict[Digest, bytes]]] = []

        def take() -> Batch:
            batch.append(self._ready())
            items, payloads = batch[-1]
            self._put_off_ticker()
            return _by_key(payloads), (lambda txn: self._put(txn, items)) if items else None

        try:
            written = self._index.write(take, wait)
        except WarehouseError:
            self._retry_at = time.monotonic() + RETRY
            raise
        if written:
            self._done(*batch[-1])
        return written

    def _put_off_ticker(self) -> None:
        """The plant's thread writes: the other one need not look for a while.

        It is told now because the engine gives up the interpreter lock in what follows. If its time were up while the
        plant computes, it would wait for that lock, and each look-up of the plant, which gives it up for less than a
        microsecond, would wake it in vain: 20 µs each.
        """
        if self._ticker is not None and self._ticker is not threading.current_thread():
            self._written = time.monotonic()
            self._ticks.put(True)

    def sync(self) -> None:
        """Return when everything that was queued before is durable.

        Raises
        ------
        WarehouseError
            If it can't be made so.
        """
        self._sync_files()  # what the syncer has not come to; it may be busy, or there may be none
        with self._lock:
            self._synced.wait_for(lambda: not self._unsynced)
        if not self.flush(self._index.environments.lock_timeout):
            raise self._index.environments.busy()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def announcements(self) -> list[Callable[[], None]]:
        """Callbacks of the commits that have become durable since the last call, in order."""
        if not self._due:
            return []
        with self._lock:
            due = list(self._due)
            self._due.clear()
        return due

    def _ready(self) -> tuple[list[Item], dict[Digest, bytes]]:
        """What may be written now. It stays in the queue until it is durable, so that no interrupt loses it."""
        with self._lock:
            unsynced = self._unsynced.keys()
            items = _not_held_up(self._queue, unsynced) if unsynced else [*self._queue]
            return items, dict(self._payloads)

    def _done(self, items: list[Item], payloads: dict[Digest, bytes]) -> None:
        with self._lock:
            for address, payload in payloads.items():
                held = self.waiting.sealed.get(address)
                if held is not None and held.payload is payload:
                    self.waiting.sealed[address] = Held(held.record, b"")  # it can be read from the index now
            self.waiting.drop(items)
            self._due.extend(item.announce for item in items if item.announce is not None)
            written = set(map(id, items))
            self._queue = [item for item in self._queue if id(item) not in written]
            self._payloads = {key: data for key, data in self._payloads.items() if payloads.get(key) is not data}
            self._bytes = sum(map(len, self._payloads.values()))
            self._oldest = time.monotonic() if self._queue or self._payloads else 0.0

    def _put(self, txn: Txn, items: list[Item]) -> None:
        tables: dict[str, dict[Any, Any]] = {}
        for item in items:
            for table, key, value in item.writes:
                rows = tables.setdefault(table, {})
                rows.pop(key, None)  # the last one comes last
                rows[key] = value
        for table, values in tables.items():
            WRITERS[table](self._index, txn, values)
        entries = [item.entry for item in items if item.entry is not None]
        if entries:
            put_history(self._index, txn, entries)

    # -- the background threads

    def _start_ticker(self) -> None:
        if self._ticker is None:
            from pyplantx.basics.interrupts import uninterrupted  # signal, which a warm run does without

            with uninterrupted():  # one that nobody knows would never end
                self._ticker = self._started(self._tick_on, "pyplantx-committer")

    def _start_syncer(self) -> None:
        if self._syncer is None:
            from pyplantx.basics.interrupts import uninterrupted

            with uninterrupted():
                self._syncer = self._started(self._sync_on, "pyplantx-syncer")

    def _started(self, work: Callable[[], None], name: str) -> threading.Thread | None:
        thread = start_thread(work, name)
        if thread is None:  # `sync` does the work
            self._report(f"the store works without its thread {name!r}: no memory for one, or there are too many")
        return thread

    def _tick_on(self) -> None:
        while True:
            try:
                if not self._ticks.get(timeout=self._pause()):
                    return
            except Empty:
                pass  # the time is up: something may be due
            try:
                self._tick()
            except BaseException as error:  # it belongs to the plant's thread, which asks for it
                self._error = error

    def _tick(self) -> None:
        oldest, now = self._oldest, time.monotonic()
        if oldest and now - oldest >= LIMIT and now >= self._retry_at:
            with haste:
                self.flush(0.0)
        elif not oldest and not self._looks:
            self._index.drop_idle_views(self._idle_uses)
            self._back_up_if_due(now)

    def _pause(self) -> float | None:
        """Seconds until the ticker has something to do by itself; None: until it is told."""
        now = time.monotonic()
        if self._looks and not self._oldest:
            self._looks -= 1  # before the next line: who adds something looks at both in the other order
        if self._oldest:
            self._looks = _LOOKS
            return max(0.001, max(self._oldest, self._written) + LIMIT - now, self._retry_at - now)
        if self._looks:
            return LIMIT
        if self._index.has_views():
            return IDLE
        return max(0.001, self._backup_at - now) if self._index.changed else None

    def _sync_on(self) -> None:
        while self._files.get():
            try:
                self._sync_files()
            except BaseException as error:  # what is unsynced still is: whoever calls `sync` goes on with it
                self._error = error

    def _sync_files(self) -> None:
        """Sync what nobody else is syncing, one object after the other."""
        while (found := self._next_unsynced()) is not None:
            self._sync_one(*found)

    def _next_unsynced(self) -> tuple[Digest, ObjectRecord] | None:
        """Take one for this thread. One that this thread has already, or a dead one, was left by an interrupt."""
        me = threading.current_thread()
        with self._lock:
            for address, record in self._unsynced.items():
                owner = self._syncing.get(address, me)
                if owner is me or not owner.is_alive():
                    self._syncing[address] = me
                    return address, record
        return None

    def _sync_one(self, address: Digest, record: ObjectRecord) -> None:
        error = self._failure(address, record)
        if isinstance(error, FileNotFoundError) and self._objects.is_there(address):
            error = self._failure(address, record)  # between the one that was put aside and the one that replaces it
        if isinstance(error, FileNotFoundError) and not self._objects.is_there(address):
            self._note_gone(address, record)
        elif error is not None:
            self._give_up(address, record, error)
        with self._lock:
            if self._unsynced.get(address) is record:
                self._unsynced.pop(address)
                self._syncing.pop(address, None)
            self._synced.notify_all()

    def _failure(self, address: Digest, record: ObjectRecord) -> OSError | None:
        """Sync an object; what has failed."""
        try:
            self._objects.sync(address, record)
        except OSError as error:
            return error
        return None

    def _note_gone(self, address: Digest, record: ObjectRecord) -> None:
        """An object has no files any more: they were found damaged and put aside. That is no fault of the disk."""
        with self._lock:
            if self._unsynced.get(address) is record:
                self.forget_object(address)

    def _give_up(self, address: Digest, record: ObjectRecord, error: OSError) -> None:
        """A sync that failed must not be repeated: the kernel may have dropped the data. The object is void.

        Unless it was forgotten meanwhile: then it need not be durable any more.
        """
        with self._lock:
            if self._unsynced.get(address) is not record:
                return
            void = [item for item in self._queue if address in item.needs]
            self._queue = [item for item in self._queue if address not in item.needs]
            self.waiting.drop(void)
            self.waiting.lose(address)
            self._void.add(address)  # the reactor that has sent it may still run
        try:
            self._objects.quarantine(address)
            what = "The data was put aside in the store's folder 'quarantine'"
        except OSError as trouble:
            what = f"The data could not be put aside ({trouble.strerror}): it stays where it is, named by nothing"
        where = error.filename or self._objects.layout.root
        self._error = WarehouseError(
            f"an ingredient could not be made durable: {error.strerror} ({where!r}); "
            f"what has sent it ({len(void)} finished reactor(s) so far) will run again",
            hint=f"is the disk failing, full or gone? {what}",
        )

    def _back_up_if_due(self, now: float) -> None:
        if now >= self._backup_at and self._index.changed:
            self._backup_at = now + BACKUP_EVERY
            try:
                self._index.back_up()
            except WarehouseError as error:
                self._report(str(error))

    # -- the end

    def close(self) -> None:
        """Write what waits and stop the threads. They are stopped even if writing fails."""
        try:
            self.sync()
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop the threads; what waits is lost. They are forgotten last: an interrupted stop can be taken up again."""
        if self._ticker is not None:
            self._ticks.put(False)
            self._ticker.join(_LONGEST_STOP)
            self._ticker = None
        if self._syncer is not None:
            self._files.put(False)
            self._syncer.join(_LONGEST_STOP)
            self._syncer = None


def _by_key(payloads: Mapping[Digest, bytes]) -> dict[bytes, bytes | None]:
    return {address.encode(): payload for address, payload in payloads.items()}


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep the memory of one batch for the next, instead of giving it back to the system.

    Without this, each payload and each page that LMDB makes for it is faulted in anew: 60 µs of 210 for 100 kB.
    """
    from pyplantx.specs.scarce import keep_freed_memory

    keep_freed_memory(TOO_MANY_BYTES * 3 // 2)  # a batch, its pages and what comes meanwhile


def _not_held_up(queue: list[Item], unsynced: Set[Digest]) -> list[Item]:
    """What needs no file that isn't durable yet, and writes no record that one before it writes, which has to wait.

    The last one that writes a record counts: an overtaken one would take back what is newer.
    """
    free: list[Item] = []
    waiting: set[tuple[str, Any]] = set()
    for item in queue:
        places = [(table, key) for table, key, _ in item.writes]
        if unsynced.isdisjoint(item.needs) and waiting.isdisjoint(places):
            free.append(item)
        else:
            waiting.update(places)
    return free

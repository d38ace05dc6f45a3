"""Reads of an index: look-ups and walks through its tables, payloads, in a view that others may end between reads.

This file may know: keys, records with checksums, read transactions. It may not know: what a record means, who writes.

A record that does not match its checksum counts as missing, and so does what a page that can't be read would hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pyplantx.errors import DamagedObject, WarehouseError
from pyplantx.warehouse.environments import LONGEST_READ, EngineError, Key, Outgrown, rows_of

if TYPE_CHECKING:
    from pyplantx.warehouse.commits import Commits
    from pyplantx.warehouse.damage import Damage
    from pyplantx.warehouse.environments import Environments, Txn
    from pyplantx.warehouse.recordchecks import RecordChecks

_T = TypeVar("_T")


class Reader:
    """Reads of one warehouse, from any thread.

    While an activity lasts, one read transaction stays open, so that a read costs one look-up and one checksum.

    Parameters
    ----------
    environments : Environments
    checks : RecordChecks
    damage : Damage
        Is told of what is damaged.
    commits : Commits
        Is told of each commit that is seen.
    """

    def __init__(self, environments: Environments, checks: RecordChecks, damage: Damage, commits: Commits) -> None:
        self._environments = environments
        self._checks = checks
        self._damage = damage
        self._commits = commits
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
                    record = txn.get(key, None, self._environments.tables[table])
                except EngineError as error:
                    self._damage.doubt(f"a page of table {table!r} can't be read ({error})")
                    record = None
                if not self._kept:
                    self._end()
        except Outgrown:
            self._environments.follow_growth()
            return self.get(table, key)
        if record is None:
            return None
        body = self._checks.unseal(table, key, record)
        if body is None:
            self._damage.condemn(table, key, record)
        return body

    def scan(self, table: str) -> Iterator[tuple[Key, bytes]]:
        """Keys and bodies of one table in order; damaged ones are left out and reported.

        The records are fetched in slices, so that no transaction stays open while the caller works.
        """
        start = b""
        while rows := self._slice(table, start, 256):
            yield from self._sound(table, rows)
            if rows[-1][0] < start:  # a damaged key: going on from there would never end
                self._damage.doubt(f"keys of table {table!r} are out of order; what is behind them counts as missing")
                return
            start = rows[-1][0] + b"\0"

    def decoded(self, table: str, decode: Callable[[bytes], _T]) -> Iterator[tuple[Key, _T]]:
        """As `scan`, decoded; what makes no sense is left out and reported, too."""
        for key, body in self.scan(table):
            try:
                value = decode(body)
            except DamagedObject:
                self._damage.condemn_senseless(table, key, self._checks.seal(table, key, body))
                continue
            yield key, value

    def tail(self, table: str, limit: int) -> list[tuple[Key, bytes]]:
        """The last records of one table, in order."""
        return list(self._sound(table, self._slice(table, None, limit)[::-1]))

    def payload(self, key: Key) -> bytes | None:
        """A payload of the second environment; its checksum is in the object's record."""
        return self._from_small(lambda txn: self._checks.unseal_payload(key, txn.get(key)), buffers=False)

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
            with self._lock, self._environments.begin_read(self._environments.small, buffers=buffers) as txn:
                return read(txn)
        except Outgrown:
            self._environments.follow_growth()
            return self._from_small(read, buffers=buffers)
        except EngineError as error:
            self._damage.doubt(f"a page of small.lmdb can't be read ({error})")
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
            if self._txn is not None and self._environments.last_commit() != self._txn.id():
                self._stale = True

    def foreign_changes(self) -> int:
        """A number that grows when look-ups may see, from now on, what another process has written."""
        if self._stale or self._txn is None:
            try:
                with self._lock:
                    self._begin()
                    if not self._kept:
                        self._end()
            except Outgrown:
                self._environments.follow_growth()
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
        if not self._lock.acquire(timeout=LONGEST_READ):
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
        except Outgrown:
            self._environments.follow_growth()
            return self._slice(table, start, limit)

    def _slice_of_view(self, table: str, start: Key | None, limit: int) -> list[tuple[Key, bytes]]:
        with self._lock:
            txn = self._begin() if self._stale or self._txn is None else self._txn
            try:
                taken = rows_of(txn, self._environments.tables[table], start, limit)
            except EngineError as error:
                self._end()
                self._damage.doubt(f"table {table!r} can't be read ({error})")
                raise WarehouseError(
                    f"table {table!r} of {self._environments.layout.meta!r} can't be read: {error}",
                    hint="close the store and open it again: its index is then checked, and its backup serves",
                ) from error
            if not self._kept:
                self._end()
        return taken

    def _sound(self, table: str, rows: list[tuple[Key, bytes]]) -> Iterator[tuple[Key, bytes]]:
        for key, record in rows:
            body = self._checks.unseal(table, key, record)
            if body is None:
                self._damage.condemn(table, key, record)
            else:
                yield key, body

    def drop(self) -> None:
        """Its warehouse is closed: nothing is read any more, though others of this process have the store open."""
        self._dropped = True
        self.keep(False)

    def check(self) -> None:
        """Raise if it was dropped."""
        if self._dropped:
            raise self._environments.too_late()

    def _begin(self) -> Txn:
        self.check()
        self._end()
        self._stale = False
        txn: Txn = self._environments.begin_read(self._environments.meta)
        self._txn = txn
        number = txn.id()
        # At most that: another thread may have seen a later one, which this view does not show.
        self._last_foreign = min(self._commits.note(number), number)
        self._begun = time.monotonic()
        return txn

    def _end(self) -> None:
        txn, self._txn = self._txn, None
        if txn is not None:
            txn.abort()

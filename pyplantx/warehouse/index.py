"""The index: records and small payloads of one directory, with their checks, written one group commit at a time.

This file may know: tables, keys, records with checksums, the mark of a clean close, backups. It may not know: what a
record means, the queue of commits, files of objects.

Below it: ``environments.py`` (LMDB), ``reader.py`` (reads), ``damage.py`` (what counts as missing), ``commits.py``
(whose commit it was), ``recordchecks.py``. A record that does not match its checksum is neither removed nor replaced
in place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from pyplantx.warehouse.commits import Commits
from pyplantx.warehouse.damage import Damage
from pyplantx.warehouse.environments import Environments, Key
from pyplantx.warehouse.files import disk_error, in_words, make_folder, make_way, opened_read_only, remove_file
from pyplantx.warehouse.reader import Reader
from pyplantx.warehouse.recordchecks import RecordChecks

if TYPE_CHECKING:
    from pyplantx.warehouse.environments import Txn
    from pyplantx.warehouse.sealing import Sealing

Work = Callable[["Txn"], None]
Batch = tuple[Mapping[Key, bytes | None], Work | None]


class Index:
    """The records and small payloads of one directory, opened once per process.

    Parameters
    ----------
    environments : Environments
        Where they are kept; opened and closed by the index.
    report : callable
        Takes a sentence about damage; it reaches the user's log once.
    sealing : Sealing, optional
        The keyed checks of a signed store.
    """

    def __init__(
        self, environments: Environments, *, report: Callable[[str], None], sealing: Sealing | None = None
    ) -> None:
        self.environments = environments
        self.layout, self.read_only = environments.layout, environments.read_only
        self.checks = RecordChecks(sealing)
        self.damage = Damage(self.layout, report, read_only=self.read_only)
        environments.doubt = self.damage.doubt
        self._commits = Commits()
        self._readers: list[Reader] = []
        self._marked = True  # a mark of a clean close may exist: remove it before the first write
        self.changed = False

    def open(self) -> None:
        """Open both environments. Whatever happens, `close` closes what is open."""
        self.environments.open()

    def close(self) -> None:
        """Nothing is read or written any more."""
        for reader in list(self._readers):
            self.drop_reader(reader)
        self.environments.close()

    # -- reading

    def new_reader(self) -> Reader:
        """A view of its own for whoever reads."""
        reader = Reader(self.environments, self.checks, self.damage, self._commits)
        self._readers.append(reader)
        self.environments.views.append(reader)
        return reader

    def drop_reader(self, reader: Reader) -> None:
        """Its owner reads no more."""
        reader.drop()
        self._readers.remove(reader)
        self.environments.views.remove(reader)

    def drop_idle_views(self, seen: dict[int, int]) -> None:
        """End read transactions that were not used since `seen` was filled: an open one keeps old pages in use."""
        for reader in self._readers:
            if reader.holds_view and seen.get(id(reader)) == reader.uses:
                reader.drop_idle()
            seen[id(reader)] = reader.uses

    def has_views(self) -> bool:
        return any(reader.holds_view for reader in self._readers)

    def condemn_body(self, table: str, key: Key, body: bytes) -> None:
        """A record matches its checksum and makes no sense: it counts as missing, and the next write removes it."""
        self.damage.condemn_senseless(table, key, self.checks.seal(table, key, body))

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
        self.environments.usable()
        if self.read_only:
            raise opened_read_only(self.layout.root)

        def work() -> None:
            with in_words(f"the index of {self.layout.root!r} can't be written", self.layout.root):
                self._write(*take())

        return self.environments.in_turn(work, wait)

    def _write(self, payloads: Mapping[Key, bytes | None], work: Work | None) -> None:
        if not payloads and not work and not self.damage.has_senseless():
            return
        self._remove_mark()
        if payloads:
            self.environments.transact(self.environments.small, lambda txn: self._put_payloads(txn, payloads))
        if work is not None or self.damage.has_senseless():
            self._write_records(work)
        self.changed = True
        for reader in self._readers:
            reader.refresh()

    def _write_records(self, work: Work | None) -> None:
        senseless = self.damage.senseless()

        def put_records(txn: Txn) -> None:
            self._commits.begin(txn.id())
            self.damage.begin()  # of a transaction that was too large nothing is left
            self._drop_senseless(txn, senseless)
            if work is not None:
                work(txn)

        try:
            self.environments.transact(self.environments.meta, put_records)
            self._commits.note(self.environments.meta.info()["last_txnid"])
        finally:
            self._commits.end()
        self.damage.settle(senseless)

    def _drop_senseless(self, txn: Txn, senseless: Mapping[tuple[str, Key], bytes]) -> None:
        for (table, key), record in senseless.items():
            if self.stored(txn, table, key) == record:  # it may have been written anew meanwhile
                txn.delete(key, db=self.environments.tables[table])

    def record(self, txn: Txn, table: str, key: Key) -> bytes | None:
        """Body of one record inside a write transaction; None if missing or damaged."""
        record = self.stored(txn, table, key)
        return None if record is None else self.checked(table, key, record)

    def stored(self, txn: Txn, table: str, key: Key) -> bytes | None:
        """A record as it is stored, whether it matches its checksum or not; None if there is none."""
        return txn.get(key, None, self.environments.tables[table])

    def checked(self, table: str, key: Key, record: bytes) -> bytes | None:
        """The body of a record; None if it does not match its checksum, which is reported."""
        body = self.checks.unseal(table, key, record)
        if body is None:
            self.damage.condemn(table, key, record)
        return body

    def put(self, txn: Txn, table: str, rows: list[tuple[Key, bytes]]) -> None:
        """Put bodies of one table, each with its checksum. What they replace must have been looked at before."""
        if self.damage:
            self._make_way(txn, table, [key for key, _ in rows])
        with txn.cursor(self.environments.tables[table]) as cursor:
            cursor.putmulti(self.checks.seal_all(table, rows))

    def _make_way(self, txn: Txn, table: str, keys: list[Key]) -> None:
        """Write a table anew, without its damaged records, if one of them is about to be replaced."""
        if all(self.damage.may_change(table, key) for key in keys):
            return
        sound = []
        for key, record in txn.cursor(self.environments.tables[table]):
            if self.checked(table, key, record) is not None:
                sound.append((key, record))
        txn.drop(self.environments.tables[table], delete=False)
        with txn.cursor(self.environments.tables[table]) as cursor:
            cursor.putmulti(sound)
        self.damage.note_renewed(table)

    def _put_payloads(self, txn: Txn, payloads: Mapping[Key, bytes | None]) -> None:
        for key, value in sorted(payloads.items()):
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, self.checks.seal_payload(key, value))

    def delete(self, txn: Txn, table: str, key: Key) -> None:
        """Remove one record; it may be gone already. A damaged one stays, and counts as missing."""
        if self.damage.may_change(table, key):
            txn.delete(key, db=self.environments.tables[table])

    def last_key(self, txn: Txn, table: str) -> Key | None:
        with txn.cursor(self.environments.tables[table]) as cursor:
            return cursor.key() if cursor.last() else None

    def first_keys(self, txn: Txn, table: str, end: Key, most: int) -> list[Key]:
        """The first keys of a table that are below `end`, at most so many."""
        with txn.cursor(self.environments.tables[table]) as cursor:
            cursor.first()
            keys = islice(cursor.iternext(keys=True, values=False), most)
            return list(takewhile(lambda key: key < end, keys))

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
            self.environments.copy_meta(beside)
            make_way(target)
            os.rename(beside, target)
        except OSError as error:
            self.changed = True
            with suppress(OSError):  # what is left of it is overwritten by the next one
                remove_file(beside)
            raise disk_error(error, "the index can't be backed up", self.layout.backup) from error

    def _remove_mark(self) -> None:
        if self._marked:
            remove_file(self.layout.mark)
            remove_file(self.layout.lifted_mark)
            self._marked = False

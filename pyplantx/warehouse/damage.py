"""What of the index is damaged: such a record counts as missing, until its table is written anew.

This file may know: places of records, the file that tells the next opening of damage, where what is damaged is kept.
It may not know: lmdb, checksums, what a record means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyplantx.warehouse.files import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyplantx.warehouse.files import Layout

    Place = tuple[str, bytes]  # table and key


class Damage:
    """The damage that was seen in one index while it is open.

    Parameters
    ----------
    layout : Layout
    read_only : bool
        Whether nothing may be noted in the store.
    report : callable
        Takes a sentence about damage; it reaches the user's log once.
    """

    def __init__(self, layout: Layout, report: Callable[[str], None], *, read_only: bool) -> None:
        self._layout = layout
        self._report = report
        self._read_only = read_only
        self._is_doubtful = False
        self._condemned: dict[Place, bytes] = {}  # what counts as missing
        self._senseless: dict[Place, bytes] = {}  # those of them that the next write removes
        self._renewed: set[str] = set()  # tables that the present transaction has written anew

    def doubt(self, trouble: str) -> None:
        """Tell it, and let the next opening look closely, whoever closes the store."""
        self._report(trouble)
        if self._is_doubtful or self._read_only:
            return
        self._is_doubtful = True
        try:
            write_file(self._layout.doubt, b"", durable=False)
        except OSError as error:
            self._report(f"that could not be noted for the next opening: {error.strerror}")

    def inspected(self) -> None:
        """The files were looked at closely since: what is met from now on is news to the next opening."""
        self._is_doubtful = False

    def condemn(self, table: str, key: bytes, record: bytes) -> None:
        """A record does not match its checksum: it counts as missing.

        It stays until the table is written anew, at the next opening or before it is to be replaced: its size may be
        what is damaged, and LMDB would move its neighbours by that size.
        """
        if (table, key) in self._condemned:
            return
        self._condemned[table, key] = record
        self.doubt(f"a record of table {table!r} is damaged and counts as missing")
        try:
            if not self._read_only:
                write_file(self._layout.aside(f"{table}-record"), record, durable=False)
        except OSError as error:
            self._report(f"the damaged record could not be kept aside: {error.strerror}")

    def condemn_senseless(self, table: str, key: bytes, record: bytes) -> None:
        """A record matches its checksum and makes no sense: it counts as missing, and the next write removes it."""
        self._senseless[table, key] = record
        self.condemn(table, key, record)

    def places(self) -> list[tuple[str, bytes, bool]]:
        """Table and key of records that count as missing and are still there; whether the next write removes them."""
        return [(*place, place in self._senseless) for place in self._condemned]

    def __bool__(self) -> bool:
        return bool(self._condemned)

    def has_senseless(self) -> bool:
        """Whether the next write has something to remove."""
        return bool(self._senseless)

    def senseless(self) -> dict[Place, bytes]:
        """What the next write is to remove, with the records that it must still hold."""
        return dict(self._senseless)

    # -- in a write transaction

    def begin(self) -> None:
        """A transaction begins, perhaps once more."""
        self._renewed.clear()

    def may_change(self, table: str, key: bytes) -> bool:
        """Whether a record may be replaced or removed in place: its size is right."""
        return (table, key) not in self._condemned or (table, key) in self._senseless or table in self._renewed

    def note_renewed(self, table: str) -> None:
        """The transaction has written a table anew, without its damaged records."""
        self._renewed.add(table)

    def settle(self, removed: Mapping[Place, bytes]) -> None:
        """The transaction is done: what it has removed is no longer there."""
        for place in [*removed, *[place for place in self._condemned if place[0] in self._renewed]]:
            self._senseless.pop(place, None)
            self._condemned.pop(place, None)
        self._renewed.clear()

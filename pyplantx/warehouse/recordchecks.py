"""The check in front of each record of the index: keyed in a signed store, xxh3 elsewhere.

This file may know: tables, keys, bytes. It may not know: lmdb, what a record means, what becomes of damaged ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyplantx.warehouse.records import seal_record, unseal_record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyplantx.warehouse.sealing import Sealing

#: Stands for the table in the checks of the payloads of a signed store.
_PAYLOADS = "small"


class RecordChecks:
    """Puts checks in front of what is stored, and tells what is whole.

    Parameters
    ----------
    sealing : Sealing, optional
        The keyed checks of a signed store.
    """

    def __init__(self, sealing: Sealing | None) -> None:
        self._sealing = sealing

    def seal(self, table: str, key: bytes, body: bytes) -> bytes:
        """A record as it is stored."""
        return seal_record(key, body) if self._sealing is None else self._sealing.seal(table, key, body)

    def seal_all(self, table: str, rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Keys and records of one table, in order."""
        sealing = self._sealing
        if sealing is None:
            return sorted([(key, seal_record(key, body)) for key, body in rows])
        return sorted([(key, sealing.seal(table, key, body)) for key, body in rows])

    def unseal(self, table: str, key: bytes, record: bytes) -> bytes | None:
        """The body of a record; None if it does not match its check."""
        return unseal_record(key, record) if self._sealing is None else self._sealing.unseal(table, key, record)

    def is_whole(self, table: str, key: bytes, record: bytes) -> bool:
        """Whether a record matches its check."""
        return self.unseal(table, key, record) is not None

    # -- payloads: what is not signed has its checksum in the object's record

    def seal_payload(self, key: bytes, value: bytes) -> bytes:
        """A payload as it is stored in ``small.lmdb``."""
        return value if self._sealing is None else self._sealing.seal(_PAYLOADS, key, value)

    def unseal_payload(self, key: bytes, value: bytes | None) -> bytes | None:
        """The payload in a stored value; None if there is none, or if it was not signed."""
        return value if value is None or self._sealing is None else self._sealing.unseal(_PAYLOADS, key, value)

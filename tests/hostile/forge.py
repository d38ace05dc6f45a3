"""What an attacker with write access does to a store: he knows the format, so all his checksums are right.

Nothing here uses more of the package than its functions for checksums and records, and lmdb itself.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from pyplantx.core.trace import ObjectRef
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.warehouse.environments import TABLES
from pyplantx.warehouse.records import (
    IN_FILES,
    IN_RECORD,
    IN_SMALL,
    NameRecord,
    ObjectRecord,
    Part,
    encode_name,
    encode_object,
    make_part,
    seal_record,
    to_json,
)
from pyplantx.warehouse.staging import make_address
from pyplantx.warehouse.tables import name_key

_BLOCK = 4 << 20


class Bomb:
    """Writes a marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self._marker,)


def bombs(marker: Path) -> list[bytes]:
    """Pickles that write the marker: by every protocol, and by hand with the opcodes that protocols share."""
    by_protocol = [pickle.dumps(Bomb(marker), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    path = str(marker).encode()
    by_hand = [
        b"(S'" + path + b"'\nios\nmkdir\n.",  # INST
        b"(cos\nmkdir\nS'" + path + b"'\no.",  # OBJ
        b"cos\nmkdir\n(S'" + path + b"'\ntR.",  # REDUCE
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c" + bytes([len(path)]) + path + b"\x85R.",  # STACK_GLOBAL
        b"\x80\x02cos\nmkdir\n(S'" + path + b"'\nt\x81.",  # NEWOBJ
    ]
    return by_protocol + by_hand


def named(name: str, ref: ObjectRef) -> tuple[str, bytes, bytes]:
    """A record that says: the last version of `name` is this."""
    return "names", name_key(name), encode_name(NameRecord(name, ref, [("mod:r", "0" * 32)]))


class Forger:
    """Alters the files of a closed store.

    Parameters
    ----------
    folder : Path
        Of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, *records: tuple[str, bytes, bytes]) -> None:
        """Write records (table, key, body) with right checksums."""
        with lmdb.open(str(self.folder / "meta.lmdb"), max_dbs=len(TABLES), lib_version=0) as env:
            for table, key, body in records:
                database = env.open_db(table.encode())
                with env.begin(write=True, db=database) as txn:
                    txn.put(key, seal_record(key, body))

    def replace(self, make: Callable[[str, bytes, bytes], bytes]) -> int:
        """Give each record of the index another body; how many there were."""
        found = self.records()
        self.put(*[(table, key, make(table, key, body)) for table, key, body in found])
        return len(found)

    def records(self) -> list[tuple[str, bytes, bytes]]:
        """All that there are: table, key, body."""
        found = []
        with lmdb.open(str(self.folder / "meta.lmdb"), max_dbs=len(TABLES), lib_version=0) as env:
            for table in TABLES:
                database = env.open_db(table.encode())
                with env.begin(db=database) as txn:
                    found += [(table, bytes(key), bytes(value[16:])) for key, value in txn.cursor()]
        return found

    def add(
        self, name: str, spec: str, parts: dict[str, bytes], meta: dict[str, Any] | None = None, home: str = IN_FILES
    ) -> ObjectRef:
        """A whole object with right checksums, and a name that leads to it."""
        listed = tuple([_part(part, data) for part, data in parts.items()])
        text = to_json(meta) if meta else ""
        address = make_address(spec, 1, text, listed)
        record = ObjectRecord(spec, 1, "ab" * 16, text, home, listed, 1.0)
        whole = b"".join(parts.values())
        if home == IN_FILES:
            self._write_files(address, parts)
        elif home == IN_SMALL:
            self.put_payload(address, whole)
        ref = ObjectRef(spec, 1, "ab" * 16, address, record.size, text)
        self.put(
            ("objects", address.encode(), encode_object(record, whole if home == IN_RECORD else b"")), named(name, ref)
        )
        return ref

    def put_payload(self, address: str, data: bytes) -> None:
        """Write to the second environment."""
        with lmdb.open(str(self.folder / "small.lmdb"), lib_version=0) as env, env.begin(write=True) as txn:
            txn.put(address.encode(), data)

    def _write_files(self, address: str, parts: dict[str, bytes]) -> None:
        target = self.folder / "objects" / address[:2] / address
        target.mkdir(parents=True, exist_ok=True)
        for part, data in parts.items():
            (target / part).write_bytes(data)


def _part(name: str, data: bytes) -> Part:
    pieces = [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)] or [b""]
    return make_part(name, len(data), [hash_bytes(piece) for piece in pieces])

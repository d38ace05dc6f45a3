"""How what waits gets into the tables of the index: under which keys, and what is taken over of what is there.

This file may know: tables, keys, records. It may not know: the queue, when anything is written, threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.index import Index
from pyplantx.warehouse.records import (
    IN_SMALL,
    MAX_VERSIONS,
    HistoryEntry,
    VersionList,
    decode_name,
    decode_versions,
    encode_history,
    encode_name,
    encode_object,
    encode_parts,
    encode_text,
    encode_versions,
    merge_name,
    same_producers,
    to_json,
)

if TYPE_CHECKING:
    from pyplantx.warehouse.environments import Txn

_T = TypeVar("_T")

#: Runs that the history tells of, at least: some 15 MB of the index. Of those before, what each commit adds is let go,
#: and so many commits more, for stores whose history had no bound once.
HISTORY, _MORE = 100_000, 16

#: Bytes of a name that its key begins with.
_KEY_BYTES = 128
#: Bytes of payloads in their records that are put at once.
_AT_ONCE = 1 << 20


def name_key(name: str) -> bytes:
    """Key of a name, or of a reactor: how it begins, and its digest; LMDB has a limit of 511 bytes, names have none.

    Names that begin alike are mostly sent and asked for one after the other, so they had better lie on one page.
    """
    return encode_text(name)[:_KEY_BYTES] + hash_text(name).encode()


def version_key(reactor: str, root: Digest) -> bytes:
    """Key of the parts of one version."""
    return name_key(reactor) + root.encode()


def blob_key(kind: str, key: str) -> str:
    """What identifies a blob: kind and key, told apart however they look."""
    return f"{len(kind)}:{kind}{key}"


def _put_texts(table: str) -> Callable[[Index, Any, dict[str, Any]], None]:
    def put(index: Index, txn: Txn, values: dict[str, Any]) -> None:
        index.put(txn, table, [(key.encode(), encode_text(text)) for key, text in values.items()])

    return put


def _put_blobs(index: Index, txn: Txn, values: dict[str, Any]) -> None:
    rows = [(name_key(key), to_json([key, text]).encode()) for key, text in values.items()]
    for key, _ in rows:
        index.record(txn, "blobs", key)  # whoever keeps one has not always looked at the former one
    index.put(txn, "blobs", rows)


def _put_names(index: Index, txn: Txn, values: dict[str, Any]) -> None:
    rows = []
    for name, update in values.items():
        key = name_key(name)
        record = encode_name(update)
        stored = index.stored(txn, "names", key)
        if stored is not None and not same_producers(record, stored):  # else nothing of it is taken over
            base = _sensible(decode_name, index.checked("names", key, stored))
            if base is not None:
                record = encode_name(merge_name(update, base))
        rows.append((key, record))
    index.put(txn, "names", rows)


def _put_objects(index: Index, txn: Txn, values: dict[str, Any]) -> None:
    rows: list[tuple[bytes, bytes]] = []
    size = 0
    for address, held in values.items():
        if held is None:
            index.delete(txn, "objects", address.encode())
            continue
        payload = b"" if held.record.home == IN_SMALL else held.payload
        rows.append((address.encode(), encode_object(held.record, payload)))
        size += len(payload)
        if size > _AT_ONCE:  # each payload is copied twice on its way
            index.put(txn, "objects", rows)
            rows, size = [], 0
    index.put(txn, "objects", rows)


def _put_versions(index: Index, txn: Txn, values: dict[str, Any]) -> None:
    lists: dict[bytes, VersionList] = {}
    parts: dict[bytes, bytes | None] = {}  # of those that are not the newest ones; None: no longer one
    for new in values.values():
        known = lists.get(new.key) or _known_versions(index, txn, new.key)
        when = dict(known.roots) if known is not None else {}
        roots = [(new.root, when.pop(new.root, new.when)), *when.items()]
        if known is not None:
            parts[new.key + known.roots[0][0].encode()] = encode_parts(known.parts).encode()
            parts[new.key + new.root.encode()] = None
        for root, _ in roots[MAX_VERSIONS:]:
            parts[new.key + root.encode()] = None
        lists[new.key] = VersionList(new.reactor, roots[:MAX_VERSIONS], new.parts)
    index.put(txn, "versions", [(key, encode_versions(record)) for key, record in lists.items()])
    kept = [(key, encoded) for key, encoded in parts.items() if encoded is not None]
    if kept:
        index.put(txn, "parts", kept)
    for key, encoded in parts.items():
        if encoded is None:
            index.delete(txn, "parts", key)


def _known_versions(index: Index, txn: Txn, key: bytes) -> VersionList | None:
    return _sensible(decode_versions, index.record(txn, "versions", key))


def _sensible(decode: Callable[[bytes], _T], body: bytes | None) -> _T | None:
    """A record, decoded; None if there is none, or if it makes no sense: then it is replaced."""
    try:
        return None if body is None else decode(body)
    except DamagedObject:
        return None


def put_history(index: Index, txn: Txn, entries: list[HistoryEntry]) -> None:
    """Add a commit's entries under the number of the last of them, and let go of as many old ones."""
    last = index.last_key(txn, "history")
    number = len(entries) + (-1 if last is None else int(last, 16))
    index.put(txn, "history", [(b"%016x" % number, encode_history(entries))])
    if number >= HISTORY:
        for key in index.first_keys(txn, "history", b"%016x" % (number - HISTORY + 1), len(entries) + _MORE):
            index.delete(txn, "history", key)


#: Table -> puts the values that wait for it, by their keys.
WRITERS: dict[str, Callable[[Index, Any, dict[str, Any]], None]] = {
    "traces": _put_texts("traces"),
    "code": _put_texts("code"),
    "blobs": _put_blobs,
    "names": _put_names,
    "objects": _put_objects,
    "versions": _put_versions,
}

"""Keyed checks: what in a signed store stands where xxh3 stands elsewhere, which anybody can compute.

This file may know: a key, bytes, digests, what is known of files. It may not know: where the key comes from
(``trust.py``), lmdb, what a record means.

Everything is keyed BLAKE2b (RFC 7693) with 128 bits of result. The key is one of the store's own, derived from the
user's, so that nothing can be brought over from another store of the same user; and what a check is for enters it, so
that a record can't be passed off as a block, or as one of another table.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING

from pyplantx.fingerprint.value import BLOCK
from pyplantx.warehouse.verify import _RIGHT, Checks, PartCheck, stamp_of

if TYPE_CHECKING:
    from pyplantx.core.trace import Digest
    from pyplantx.specs.base import Buffer
    from pyplantx.warehouse.records import Part

#: Bytes of a check; characters of one in front of a record.
_BYTES, _LENGTH = 16, 32

# What a check is for: at most 16 bytes, as BLAKE2b wants it.
_RECORD, _BLOCK, _TEXT, _FILE, _STORE, _NAME = (
    b"pyplantx record",
    b"pyplantx block",
    b"pyplantx text",
    b"pyplantx file",
    b"pyplantx store",
    b"pyplantx key id",
)


def name_of(key: bytes) -> str:
    """What a key is called in messages and in ``format.json``: 16 hex digits, from which nobody finds the key."""
    return blake2b(key=key, person=_NAME, digest_size=8).hexdigest()


class Sealing:
    """The checks of one signed store.

    Parameters
    ----------
    key : bytes
        The user's: 32 bytes.
    store : str
        Names the store, as its ``format.json`` does.
    """

    def __init__(self, key: bytes, store: str) -> None:
        self._key = blake2b(store.encode(), key=key, person=_STORE, digest_size=32).digest()

    # -- records

    def seal(self, table: str, key: bytes, body: bytes) -> bytes:
        """Body with its check in front, as it is stored under `key` of a table."""
        return self._check(table, key, body) + body

    def unseal(self, table: str, key: bytes, record: bytes) -> bytes | None:
        """The body, or None if nobody who has the key has put it there."""
        body = record[_LENGTH:]
        return body if compare_digest(self._check(table, key, body), record[:_LENGTH]) else None

    def _check(self, table: str, key: bytes, body: bytes) -> bytes:
        place = f"{table} {len(key)} ".encode() + key
        return blake2b(place + body, key=self._key, person=_RECORD, digest_size=_BYTES).hexdigest().encode()

    # -- everything else

    def hash_block(self, data: Buffer) -> Digest:
        """Check of a block of a file, or of all bytes of a small payload."""
        return blake2b(data, key=self._key, person=_BLOCK, digest_size=_BYTES).hexdigest()

    def hash_text(self, text: str) -> Digest:
        """Address, or the check of a small file."""
        data = text.encode("utf-8", "surrogatepass")
        return blake2b(data, key=self._key, person=_TEXT, digest_size=_BYTES).hexdigest()

    def is_right(self, part: Part, data: bytes) -> bool:
        """Whether these bytes, all of a part's file, are what was signed."""
        hasher = self.block_hasher()
        hasher.update(data)
        digests = hasher.digests() or [self.hash_block(b"")]
        return compare_digest("".join(digests), "".join(part.blocks or (part.digest,)))

    def file_hasher(self) -> blake2b:
        """To be fed with the bytes of a data file."""
        return blake2b(key=self._key, person=_FILE, digest_size=_BYTES)

    def block_hasher(self) -> KeyedBlocks:
        """To be fed with the bytes of a part that comes in pieces."""
        return KeyedBlocks(self)

    def new_checks(self) -> Checks:
        """What a session knows of the files of the store."""
        return _KeyedChecks(self)


class KeyedBlocks:
    """`hash_block` of the blocks of a stream that comes in pieces of any size; as `fingerprint.value.BlockHasher`.

    Parameters
    ----------
    sealing : Sealing
    """

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing
        self._held = bytearray()
        self._digests: list[Digest] = []

    def update(self, data: Buffer) -> None:
        """Add the next piece of the stream."""
        view = memoryview(data).cast("B")
        while len(self._held) + len(view) >= BLOCK:
            missing = BLOCK - len(self._held)
            self._close_block(view[:missing])
            view = view[missing:]
        self._held += view

    def _close_block(self, rest: memoryview) -> None:
        whole = self._held + rest if self._held else rest
        self._digests.append(self._sealing.hash_block(whole))
        self._held.clear()

    def digests(self) -> list[Digest]:
        """The blocks' checks; a last, shorter block included."""
        tail = [self._sealing.hash_block(self._held)] if self._held else []
        return self._digests + tail


class _KeyedCheck(PartCheck):
    """What is known of a file whose blocks have keyed checks."""

    def __init__(self, sealing: Sealing, path: str, part: Part, info: os.stat_result, right: bool = False) -> None:
        super().__init__(path, part, stamp_of(info), right)
        self._sealing = sealing

    def _compare(self, index: int, data: memoryview) -> None:
        right = self.part.blocks[index] if self.part.blocks else self.part.digest
        if not compare_digest(self._sealing.hash_block(data), right):
            raise self._damaged(f"{self.path!r} is not what was signed")
        self._states[index] = _RIGHT


class _KeyedChecks(Checks):
    """`Checks` that know the files they meet by keyed checks."""

    def __init__(self, sealing: Sealing) -> None:
        super().__init__()
        self._sealing = sealing

    def trust(self, address: Digest, path: str, part: Part) -> None:
        check = _KeyedCheck(self._sealing, path, part, os.lstat(path), right=True)
        self._known.setdefault(address, {})[part.name] = check

    def _find(self, address: Digest, path: str, part: Part, info: os.stat_result, verify: str) -> PartCheck:
        known = self._known.setdefault(address, {})
        check = known.get(part.name)
        if check is None or check.stamp != stamp_of(info):
            known[part.name] = _KeyedCheck(self._sealing, path, part, info)
        return super()._find(address, path, part, info, verify)

"""What the records of the index look like: a checksum, then JSON text (then raw payload bytes, in ``objects``).

This file may know: texts, bytes, checksums. It may not know: lmdb, paths, threads. The written
format is specs/warehouse/.

Every record begins with 16 hex digits: the first half of the digest of *key + body*. The key is part of it, so
that a record which ended up under another key is found out like any other damage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Any, NamedTuple

from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.fingerprint.value import hash_bytes

CHECK = 16  #: characters of checksum in front of each record

#: How many producers of a name, and how many versions of a reactor, are remembered.
MAX_PRODUCERS = 16
MAX_VERSIONS = 32

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True)
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # public in practice, missing in the stubs


def to_json(value: Any) -> str:
    """JSON text without spaces, ASCII only: any text, lone surrogates too, comes back as it was.

    Raises
    ------
    TypeError, ValueError
        If the value is not made of what JSON has.
    """
    if _quick is None:
        return _encoder.encode(value)
    return "".join(_quick(value, 0))


def from_json(text: str) -> Any:
    """Read JSON text that `to_json` (or the f-strings below) wrote: no white space around it.

    Raises
    ------
    ValueError
        If the text is no JSON, or is followed by something else.
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration as error:
        raise ValueError(f"no JSON at character {error.value}") from None
    if end != len(text):
        raise ValueError(f"characters after the JSON value, at {end}")
    return value


def _make_quick() -> Callable[[Any, int], Iterable[str]] | None:
    """CPython's own encoder; the json module makes a new one for each text, which costs more than a short record."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return None
    encode: Callable[[Any, int], Iterable[str]] = make(
        None, _encoder.default, quote, None, ":", ",", False, False, True
    )
    return encode


_quick = _make_quick()


def seal_record(key: bytes, body: bytes) -> bytes:
    """Body with its checksum in front, as it is stored under `key`."""
    return hash_bytes(key + body)[:CHECK].encode() + body


def unseal_record(key: bytes, record: bytes) -> bytes | None:
    """The body, or None if the checksum does not match."""
    body = record[CHECK:]
    return body if hash_bytes(key + body)[:CHECK].encode() == record[:CHECK] else None


def encode_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def decode_text(body: bytes) -> str:
    return body.decode("utf-8", "surrogatepass")


# -- names: what was sent under a name, and by whom ---------------------------------------------------------------


class NameRecord(NamedTuple):
    """What is known of one name: its last version, and who has sent it (newest first).

    What a session adds to the stored record has the same form; see `merge_name`.
    """

    name: str
    ref: ObjectRef
    producers: Sequence[tuple[str, Digest]]


def encode_ref(ref: ObjectRef) -> str:
    """JSON array of the seven fields; written by hand because it is on the hot path of a cold run."""
    spec, version, digest, address, size, meta, inline = ref
    tail = "null" if inline is None else quote(inline)
    return f"[{quote(spec)},{version},{quote(digest)},{quote(address)},{size},{quote(meta)},{tail}]"


def merge_name(update: NameRecord, base: NameRecord) -> NameRecord:
    """The record after the update: its producers in front, each one once, at most `MAX_PRODUCERS`."""
    older = [item for item in base.producers if item not in update.producers]
    return NameRecord(update.name, update.ref, [*update.producers, *older][:MAX_PRODUCERS])


def encode_name(record: NameRecord) -> bytes:
    producers = ",".join([f"[{quote(reactor)},{quote(root)}]" for reactor, root in record.producers])
    return f"[{quote(record.name)},{encode_ref(record.ref)},[{producers}]]".encode()


def same_producers(one: bytes, other: bytes) -> bool:
    """Whether two records name the same producers; cheaper than decoding both.

    Two brackets follow each other where the list begins and nowhere behind (in a text, its quotes are escaped).
    """
    start = one.rindex(b',[["')
    return other.endswith(one[start:])


def decode_name(body: bytes) -> NameRecord:
    name, ref, producers = from_json(body.decode())
    return NameRecord(name, ObjectRef(*ref), [(reactor, root) for reactor, root in producers])


def decode_producers(body: bytes) -> list[tuple[str, Digest]]:
    """The producers only, which a warm run asks for once per ingredient."""
    return [(reactor, root) for reactor, root in from_json(body.decode())[2]]


# -- versions: which roots a reactor had ---------------------------------------------------------------------------


class VersionInfo(NamedTuple):
    """One version of a reactor.

    Attributes
    ----------
    root : Digest
        The reactor's fingerprint.
    when : float
        Seconds since 1970 at which it was first committed; for display only.
    parts : dict
        Label of each part of the code -> its digest.
    """

    root: Digest
    when: float
    parts: dict[str, Digest]


class VersionList(NamedTuple):
    """The roots of one reactor, newest first, each with the time of its first commit; and the newest one's parts.

    The parts of the older ones have records of their own in ``parts``: most reactors have one version only.
    """

    reactor: str
    roots: list[tuple[Digest, float]]
    parts: Mapping[str, Digest]


def encode_versions(record: VersionList) -> bytes:
    roots = ",".join([f"[{quote(root)},{when!r}]" for root, when in record.roots])
    return f"[{quote(record.reactor)},[{roots}],{encode_parts(record.parts)}]".encode()


def decode_versions(body: bytes) -> VersionList:
    reactor, roots, parts = from_json(body.decode())
    return VersionList(reactor, [(root, when) for root, when in roots], parts)


def encode_parts(parts: Mapping[str, Digest]) -> str:
    pairs = ",".join([f"{quote(label)}:{quote(digest)}" for label, digest in parts.items()])
    return f"{{{pairs}}}"


# -- objects: what a sealed payload consists of ----------------------------------------------------------------------


class Part(NamedTuple):
    """One part of a payload.

    Attributes
    ----------
    name : str
        Such as ``"data.npy"``; the file's name if the object consists of files.
    size : int
        Bytes.
    digest : Digest
        Digest of the bytes; of a part longer than one block the digest of the joined digests of its blocks.
    blocks : tuple of Digest
        The digests of its blocks of 4 MiB; empty if there is only one.
    """

    name: str
    size: int
    digest: Digest
    blocks: tuple[Digest, ...] = ()


#: Where a payload lives: in its record, in the second environment, in files.
IN_RECORD, IN_SMALL, IN_FILES = "record", "small", "files"


class ObjectRecord(NamedTuple):
    """What the index keeps of one sealed object; ``spec`` to ``meta`` as in `ObjectRef`."""

    spec: str
    version: int
    digest: Digest
    meta: str
    home: str
    parts: tuple[Part, ...]
    when: float

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


def encode_object(record: ObjectRecord, payload: bytes) -> bytes:
    """JSON header, newline, and the bytes of the payload (empty unless it lives in the record)."""
    return to_json(record).encode() + b"\n" + payload


def decode_object(body: bytes) -> tuple[ObjectRecord, bytes]:
    end = body.index(b"\n")
    spec, version, digest, meta, home, parts, when = from_json(body[:end].decode())
    items = tuple(Part(name, size, check, tuple(blocks)) for name, size, check, blocks in parts)
    return ObjectRecord(spec, version, digest, meta, home, items, when), body[end + 1 :]


def split_payload(record: ObjectRecord, payload: bytes) -> dict[str, bytes] | None:
    """The parts by name, or None if the payload is not as long as the record says."""
    if len(payload) != record.size:
        return None
    if len(record.parts) == 1:
        return {record.parts[0].name: payload}
    parts, start = {}, 0
    for part in record.parts:
        parts[part.name] = payload[start : start + part.size]
        start += part.size
    return parts

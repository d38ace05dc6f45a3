"""What the records of the index look like: a checksum, then JSON text (then raw payload bytes, in ``objects``).

This file may know: texts, bytes, checksums. It may not know: lmdb, paths, threads. The written
format is specs/warehouse/.

Every record begins with 16 hex digits: the first half of the digest of *key + body*. The key is part of it, so
that a record which ended up under another key is found out like any other damage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring as quote
from json.encoder import encode_basestring_ascii
from typing import Any, TypeVar

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import DamagedObject
from pyplantx.fingerprint.value import BLOCK, hash_bytes, hash_text
from pyplantx.specs.base import Layout

_Bytes = TypeVar("_Bytes", bytes, memoryview)

CHECK = 16  #: characters of checksum in front of each record
_DIGITS = 32  # of a digest
_MICRO = 1_000_000

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
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if end != len(text):
        raise ValueError(f"characters after the JSON value, at {end}")
    return value


def _make_quick() -> Callable[[Any, int], Iterable[str]] | None:
    """CPython's own encoder; the json module makes a new one for each text, which costs more than a short record."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return None
    encode: Callable[[Any, int], Iterable[str]] = make(
        None, _encoder.default, encode_basestring_ascii, None, ":", ",", False, False, True
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


#: What goes wrong where a record is taken apart that makes no sense.
_NONSENSE = (ValueError, TypeError, LookupError, AttributeError)


def _no_sense(what: str, error: Exception) -> DamagedObject:
    return DamagedObject(f"a record of {what} makes no sense: {error}")


def _must(holds: bool, trouble: str) -> None:
    if not holds:
        raise ValueError(trouble)


def _number(value: object) -> bool:
    return type(value) is float or type(value) is int


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
    # Not escaped: of `\\ud800\\udc00` nobody can tell whether it was one character or two.
    return f"[{quote(spec)},{version},{quote(digest)},{quote(address)},{size},{quote(meta)},{tail}]"


def merge_name(update: NameRecord, base: NameRecord) -> NameRecord:
    """The record after the update: its producers in front, each one once, at most `MAX_PRODUCERS`."""
    older = [item for item in base.producers if item not in update.producers]
    return NameRecord(update.name, update.ref, [*update.producers, *older][:MAX_PRODUCERS])


def encode_name(record: NameRecord) -> bytes:
    producers = ",".join([f"[{quote(reactor)},{quote(root)}]" for reactor, root in record.producers])
    return encode_text(f"[{quote(record.name)},{encode_ref(record.ref)},[{producers}]]")


def same_producers(one: bytes, other: bytes) -> bool:
    """Whether two records (the second one may have its check in front) name the same producers; cheaper than decoding.

    Two brackets follow each other where the list begins and nowhere behind (in a text, its quotes are escaped).
    """
    start = one.rindex(b',[["')
    return other.endswith(one[start:])


def decode_name(body: bytes) -> NameRecord:
    try:
        name, ref, producers = from_json(decode_text(body))
        _must(type(name) is str, "its name is no text")
        return NameRecord(name, _checked_ref(*ref), _pairs(producers))
    except _NONSENSE as error:
        raise _no_sense("a name", error) from error


def _checked_ref(
    spec: Any, version: Any, digest: Any, address: Any, size: Any, meta: Any, inline: Any = None
) -> ObjectRef:
    "".join((spec, digest, address, meta, "" if inline is None else inline))  # a TypeError unless all are texts
    _must(type(version) is int and type(size) is int, "a version and a size are whole numbers")
    return ObjectRef(spec, version, digest, address, size, meta, inline)


def _pairs(rows: Any) -> list[tuple[str, Digest]]:
    found = [(reactor, root) for reactor, root in rows]
    for pair in found:
        "".join(pair)  # as above
    return found


def decode_producers(body: bytes) -> list[tuple[str, Digest]]:
    """The producers only, which a warm run asks for once per ingredient."""
    try:
        return _pairs(from_json(decode_text(body))[2])
    except _NONSENSE as error:
        raise _no_sense("a name", error) from error


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
    """The roots of one reactor, each with the time of its first commit; and the parts of the newest one.

    The newest one is the one that was in use last, and comes first.

    The parts of the older ones have records of their own in ``parts``: most reactors have one version only.
    """

    reactor: str
    roots: list[tuple[Digest, float]]
    parts: Mapping[str, Digest]


def encode_versions(record: VersionList) -> bytes:
    roots = ",".join([f"[{quote(root)},{when!r}]" for root, when in record.roots])
    return encode_text(f"[{quote(record.reactor)},[{roots}],{encode_parts(record.parts)}]")


def decode_versions(body: bytes) -> VersionList:
    try:
        reactor, roots, parts = from_json(decode_text(body))
        known = [(root, when) for root, when in roots]
        _must(type(reactor) is str, "it has no reactor")
        _must(all(type(root) is str and _number(when) for root, when in known), "a version is a text and a time")
        return VersionList(reactor, known, _checked_parts(parts))
    except _NONSENSE as error:
        raise _no_sense("a reactor's versions", error) from error


def is_newest(root: Digest, body: bytes) -> bool:
    """Whether a root is the first in the record of a reactor's versions, which needn't be decoded for that."""
    return b'[["' + root.encode() + b'"' in body  # quotes inside of names are escaped


def decode_parts(body: bytes) -> dict[str, Digest]:
    """What `encode_parts` wrote, of an older version."""
    try:
        return _checked_parts(from_json(decode_text(body)))
    except _NONSENSE as error:
        raise _no_sense("a version's parts", error) from error


def _checked_parts(parts: Any) -> dict[str, Digest]:
    "".join(parts.values())  # an error unless it is a dict of texts
    return dict(parts)


def encode_parts(parts: Mapping[str, Digest]) -> str:
    escaped = encode_basestring_ascii
    pairs = ",".join([f"{escaped(label)}:{escaped(digest)}" for label, digest in parts.items()])
    return f"{{{pairs}}}"


# -- objects: what a sealed payload consists of ----------------------------------------------------------------------


class Joined(Sequence[Digest]):
    """Digests as one text: a part of many gigabytes has tens of thousands, of which a run looks at a few.

    Parameters
    ----------
    text : str
        The digests, one after the other.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text) // _DIGITS

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        at = range(len(self))[index] * _DIGITS
        return self.text[at : at + _DIGITS]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Joined) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


class Part(NamedTuple):
    """One part of a payload.

    Attributes
    ----------
    name : str
        Such as ``"data.npy"``; the file's name if the object consists of files.
    size : int
        Bytes.
    digest : Digest
        Digest of the bytes; of a part of several blocks the digest of the joined digests of its blocks.
    blocks : sequence of Digest
        The digests of its blocks: of 4 MiB, or as the layout says; empty if there is only one.
    layout : Layout, optional
        How it is cut, if not from its beginning into blocks of 4 MiB.
    """

    name: str
    size: int
    digest: Digest
    blocks: Sequence[Digest] = ()
    layout: Layout | None = None


def join_digests(digests: Sequence[Digest]) -> str:
    """Digests one after the other, as they are hashed."""
    return digests.text if type(digests) is Joined else "".join(digests)


def make_part(name: str, size: int, blocks: Sequence[Digest], layout: Layout | None = None) -> Part:
    """A part from the digests of all its blocks.

    Parameters
    ----------
    name, size, layout
        As in `Part`.
    blocks : sequence of Digest
        At least one.
    """
    if len(blocks) == 1:
        return Part(name, size, blocks[0], (), layout)
    joined = join_digests(blocks)
    return Part(name, size, hash_text(joined), tuple(blocks) if layout is None else Joined(joined), layout)


class Cut:
    """Where the blocks of a part begin and end. Blocks are counted from 0: head, body, tail; empty ones don't count.

    Parameters
    ----------
    size : int
        Bytes of the part.
    layout : Layout, optional
        None: blocks of 4 MiB from the beginning.

    Raises
    ------
    ValueError
        If the layout is impossible for so many bytes.
    """

    __slots__ = ("_block", "_body", "_first", "_head", "count", "size")

    def __init__(self, size: int, layout: Layout | None) -> None:
        self._head, self._block, body = (0, BLOCK, size) if layout is None else layout
        if min(self._head, body) < 0 or self._block < 1 or self._head + body > size:
            raise ValueError(f"a part of {size:,} bytes can't have the layout {layout}")
        self.size, self._body = size, self._head + body  # where it ends
        self._first = 1 if self._head else 0
        blocks = -(-body // self._block)
        self.count = max(1, self._first + blocks + (self._body < size))  # nothing at all is one block, too

    def index(self, position: int) -> int:
        """The block that a byte lies in."""
        if position < self._head:
            return 0
        if position >= self._body:
            return self.count - 1
        return self._first + (position - self._head) // self._block

    def span(self, index: int) -> tuple[int, int]:
        """Where a block begins and ends."""
        if index < self._first:
            return 0, self._head
        start = self._head + (index - self._first) * self._block
        if start >= self._body:
            return self._body, self.size
        return start, min(start + self._block, self._body)


#: Where a payload lives: in its record, in the second environment, in files.
IN_RECORD, IN_SMALL, IN_FILES = "record", "small", "files"
_HOMES = (IN_RECORD, IN_SMALL, IN_FILES)


class ObjectRecord(NamedTuple):
    """What the index keeps of one sealed object; ``spec`` to ``meta`` as in `ObjectRef`.

    ``seconds``: what the run took that first sent it; None if that is not known.
    """

    spec: str
    version: int
    digest: Digest
    meta: str
    home: str
    parts: tuple[Part, ...]
    when: float
    seconds: float | None = None

    @property
    def size(self) -> int:
        parts = self.parts
        return parts[0].size if len(parts) == 1 else sum([part.size for part in parts])


def encode_object(record: ObjectRecord, payload: bytes) -> bytes:
    """JSON header, newline, and the bytes of the payload (empty unless it lives in the record)."""
    entries = [part[:4] if part.layout is None else _laid_out(part) for part in record.parts]
    times = (record.when,) if record.seconds is None else (record.when, record.seconds)
    return to_json([*record[:5], entries, *times]).encode() + b"\n" + payload


def _laid_out(part: Part) -> list[Any]:
    return [part.name, part.size, part.digest, join_digests(part.blocks), part.layout]


def decode_object(body: bytes) -> tuple[ObjectRecord, bytes]:
    try:
        end = body.index(b"\n")
        spec, version, digest, meta, home, parts, *times = from_json(decode_text(body[:end]))
        "".join((spec, digest, meta))  # a TypeError unless all are texts
        _must(type(version) is int and home in _HOMES, "its version or home is none")
        _must(1 <= len(times) <= 2 and all(map(_number, times)), "its times are none")
        items = tuple([_decode_part(*entry) for entry in parts])
        return ObjectRecord(spec, version, digest, meta, home, items, *times), body[end + 1 :]
    except _NONSENSE as error:
        raise _no_sense("an object", error) from error


def _decode_part(name: str, size: int, digest: Digest, blocks: Any, layout: Any = None) -> Part:
    "".join((name, digest, *blocks))  # a TypeError unless all are texts
    _must(type(size) is int and size >= 0, "a part's size is none")
    if layout is None:
        return Part(name, size, digest, tuple(blocks))
    cut = Layout(*layout)
    _must(all(type(number) is int for number in cut), "a part's layout is none")
    return Part(name, size, digest, Joined(blocks) if blocks else (), cut)


# -- small texts, and what ran ----------------------------------------------------------------------------------------


def decode_blob(body: bytes) -> tuple[str, str]:
    """Kind-and-key, and the text."""
    try:
        both, text = from_json(decode_text(body))
        "".join((both, text))  # a TypeError unless both are texts
        return both, text
    except _NONSENSE as error:
        raise _no_sense("a small text", error) from error


class HistoryEntry(NamedTuple):
    """One run, as the history tells it.

    Attributes
    ----------
    reactor, id : str
        The reactor's name, and its id.
    action : str
        ``"ran"``, ``"failed"`` or ``"interrupted"``.
    reason : str
        Why it ran, as a sentence.
    started : float
        Seconds since 1970.
    seconds : float
        Spent in the reactor; with what killed runs spent on what this one has taken over.
    """

    reactor: str
    id: str
    action: str
    reason: str
    started: float
    seconds: float


def encode_history(entries: Iterable[HistoryEntry]) -> bytes:
    """The entries of one commit, their times in whole microseconds: floats are slow to write."""
    rows = [[*entry[:4], int(entry.started * _MICRO), int(entry.seconds * _MICRO)] for entry in entries]
    return to_json(rows).encode()


def decode_history(body: bytes) -> list[dict[str, Any]]:
    """The entries of one commit, as dictionaries with the names of `HistoryEntry`."""
    try:
        entries = from_json(decode_text(body))
        _must(type(entries) is list, "it is no list of entries")
        return [_decode_entry(entry) for entry in entries]
    except _NONSENSE as error:
        raise _no_sense("the history", error) from error


def _decode_entry(entry: Any) -> dict[str, Any]:
    if type(entry) is dict:  # of an earlier version
        return entry
    reactor, id, action, reason, started, micros = entry
    "".join((reactor, id, action, reason))  # a TypeError unless all are texts
    _must(type(started) is int and type(micros) is int, "its times are none")
    return HistoryEntry(reactor, id, action, reason, started / _MICRO, micros / _MICRO)._asdict()


def split_payload(record: ObjectRecord, payload: _Bytes) -> dict[str, _Bytes] | None:
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

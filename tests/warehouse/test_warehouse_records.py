"""Records: what is written comes back, what was touched does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyplantx.core.trace import ObjectRef
from pyplantx.warehouse import records
from pyplantx.warehouse.tables import name_key
from pyplantx.warehouse.waiting import Item, NewVersion, Waiting

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
digests = st.text("0123456789abcdef", min_size=32, max_size=32)
sizes = st.integers(0, 2**60)
refs = st.builds(ObjectRef, texts, st.integers(1, 99), digests, digests, sizes, texts, st.none() | texts)
producers = st.lists(st.tuples(texts, digests), max_size=20, unique=True)


@given(key=st.binary(max_size=40), body=st.binary(max_size=60), at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_of_record_or_key_is_found(key: bytes, body: bytes, at: int, bit: int) -> None:
    record = records.seal_record(key, body)
    assert records.unseal_record(key, record) == body
    assert records.unseal_record(_flip(key, at, bit), record) is None or not key
    assert records.unseal_record(key, _flip(record, at, bit)) is None


def _flip(data: bytes, at: int, bit: int) -> bytes:
    if not data:
        return data
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@given(name=texts, ref=refs, senders=producers)
def test_name_records_come_back(name: str, ref: ObjectRef, senders: list[tuple[str, str]]) -> None:
    record = records.NameRecord(name, ref, senders)
    assert records.decode_name(records.encode_name(record)) == record


@given(name=texts, ref=refs, old=producers, new=producers)
def test_merging_keeps_each_producer_once_newest_first(name: str, ref: ObjectRef, old: list, new: list) -> None:
    update = records.NameRecord(name, ref, tuple(new))
    merged = records.merge_name(update, records.NameRecord(name, ref, old)).producers
    assert merged[: len(new)] == new[: records.MAX_PRODUCERS]
    assert len(merged) == len(set(merged)) <= records.MAX_PRODUCERS
    assert merged == list(dict.fromkeys(new + old))[: records.MAX_PRODUCERS]


@given(reactor=texts, roots=st.lists(st.tuples(digests, st.floats(0, 1e11)), max_size=5), labels=st.lists(texts))
def test_version_lists_come_back(reactor: str, roots: list[tuple[str, float]], labels: list[str]) -> None:
    record = records.VersionList(reactor, roots, {label: root for label, (root, _) in zip(labels, roots)})
    assert records.decode_versions(records.encode_versions(record)) == record


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=4), data=st.data())
def test_payloads_are_split_as_they_were_joined(sizes: list[int], data: st.DataObject) -> None:
    pieces = [data.draw(st.binary(min_size=size, max_size=size)) for size in sizes]
    parts = tuple(records.Part(f"p{i}", len(piece), "0" * 32) for i, piece in enumerate(pieces))
    record = records.ObjectRecord("s", 1, "d", '{"a":1}', records.IN_RECORD, parts, 1.5)
    decoded, payload = records.decode_object(records.encode_object(record, b"".join(pieces)))
    assert decoded == record
    assert records.split_payload(decoded, payload) == {f"p{i}": piece for i, piece in enumerate(pieces)}
    assert records.split_payload(decoded, payload + b"x") is None


@given(st.lists(st.tuples(texts, texts), min_size=1), st.lists(st.tuples(texts, texts), min_size=1))
def test_same_producers_without_decoding(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    ref = ObjectRef("simple", 1, "d", "a", 1, '[["x"', ',[["x","y"]]]')
    bodies = [records.encode_name(records.NameRecord("n", ref, items)) for items in (one, other, one)]
    assert records.same_producers(bodies[0], bodies[2])
    assert records.same_producers(bodies[0], bodies[1]) == (one == other)


@given(texts, texts)
def test_the_key_of_a_name_tells_names_apart(one: str, other: str) -> None:
    long = "n" * 200
    keys = [name_key(name) for name in (one, other, long + one, long + other)]
    assert all(0 < len(key) <= 160 for key in keys)
    assert (keys[0] == keys[1]) == (keys[2] == keys[3]) == (one == other)


def test_versions_that_wait_are_found_by_reactor_until_they_are_written() -> None:
    waiting = Waiting()
    news = [NewVersion(b"k", "r", root, 1.0, {}) for root in ("a", "b", "a")]
    for new in news:
        waiting.add_version(new)
    assert [new.root for new in waiting.versions_of("r")] == ["a", "b"]
    waiting.drop([Item([("versions", ("r", "a"), news[2])], (), None, None)])
    assert [new.root for new in waiting.versions_of("r")] == ["b"]
    waiting.drop([Item([("versions", ("r", "b"), news[1])], (), None, None)])
    assert waiting.versions_of("r") == []

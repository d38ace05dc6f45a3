"""The index by itself: damaged records and the commits after them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.index import Index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    layout = Layout(str(tmp_path / "store"))
    layout.make()
    index = Index(layout, durable=False, read_only=False, lock_timeout=10.0, report=lambda trouble: None)
    index.open()
    yield index
    index.close()


def put(index: Index, key: bytes, body: bytes) -> None:
    assert index.write(lambda: ({}, lambda txn: index.put(txn, "blobs", [(key, body)])), 10.0)


def store(index: Index, payloads: Mapping[bytes, bytes]) -> None:
    assert index.write(lambda: (dict(payloads), None), 10.0)


def damage(index: Index, key: bytes) -> None:
    def flip(txn: Any) -> None:
        record = bytearray(txn.get(key, None, index.environments.tables["blobs"]))
        record[-1] ^= 1
        txn.put(key, bytes(record), db=index.environments.tables["blobs"])

    index.environments.transact(index.environments.meta, flip)


def test_a_damaged_record_counts_as_missing_until_it_is_written_anew(index: Index) -> None:
    reader = index.new_reader()
    put(index, b"a", b"body of a")
    put(index, b"b", b"body of b")
    damage(index, b"a")
    assert reader.get("blobs", b"a") is None and reader.get("blobs", b"b") == b"body of b"
    assert index.damage.places() == [("blobs", b"a", False)]
    put(index, b"a", b"another")
    assert reader.get("blobs", b"a") == b"another" and reader.get("blobs", b"b") == b"body of b"
    assert index.damage.places() == []


def test_what_is_damaged_after_its_table_was_written_anew_is_not_forgotten(index: Index) -> None:
    """A write of payloads alone once took it for gone: what replaced it would have been written over it in place."""
    reader = index.new_reader()
    put(index, b"a", b"body of a")
    put(index, b"b", b"body of b")
    damage(index, b"a")
    assert reader.get("blobs", b"a") is None
    put(index, b"a", b"another")
    damage(index, b"b")
    assert reader.get("blobs", b"b") is None
    store(index, {b"payload": b"bytes"})
    assert index.damage.places() == [("blobs", b"b", False)]
    put(index, b"b", b"another")
    assert index.damage.places() == [] and reader.get("blobs", b"a") == b"another"


def test_a_record_that_makes_no_sense_goes_with_the_next_write(index: Index) -> None:
    reader = index.new_reader()
    put(index, b"a", b"nonsense")
    index.condemn_body("blobs", b"a", b"nonsense")
    assert index.damage.places() == [("blobs", b"a", True)]
    put(index, b"b", b"body of b")
    assert index.damage.places() == [] and reader.get("blobs", b"a") is None


def test_a_record_that_was_put_in_the_place_of_nonsense_stays(index: Index) -> None:
    reader = index.new_reader()
    put(index, b"a", b"sound by now")
    index.condemn_body("blobs", b"a", b"nonsense")
    store(index, {b"payload": b"bytes"})
    assert reader.get("blobs", b"a") == b"sound by now" and reader.payload(b"payload") == b"bytes"

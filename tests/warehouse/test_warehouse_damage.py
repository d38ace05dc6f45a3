"""Changed bytes: never a wrong value, never the death of the process."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from pyplantx.errors import PayloadMissing
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse import committer, inspection
from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.tables import name_key
from pyplantx.warehouse.waiting import Commit, NewVersion
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import ROOT, fetch, send

VALUES = {
    "tiny": 12,
    "text": "some words " * 5,
    "little": list(range(300)),
    "object": {"a": (1, 2), "b": "x" * 200},
    "small": "s" * 20_000,
    "large": b"l" * 1_100_000,
}

#: Flips one bit per given place, opens the store, and reports what it then finds under each name.
READER = """
import json, logging, os, shutil, sys
from tests.warehouse.stores import fetch
from tests.warehouse.test_warehouse_damage import VALUES
from pyplantx.errors import PayloadMissing
from pyplantx.warehouse.warehouse import Warehouse

logging.disable()
store, work, places = sys.argv[1], sys.argv[2], json.load(sys.stdin)
for path, at, bit in places:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(store, work)
    os.chmod(f"{work}/{path}", 0o600)
    with open(f"{work}/{path}", "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
    print("next", path, at, bit, flush=True)
    with Warehouse(work, durability="process", lock_timeout=5) as warehouse:
        found = 0
        for name, value in VALUES.items():
            for _ in range(2):
                try:
                    got = fetch(warehouse, name)
                except PayloadMissing:
                    continue
                assert got is None or (type(got) is type(value) and got == value), (path, at, bit, name)
                found += got is not None
        assert all(name in VALUES for name in warehouse.names())
        warehouse.versions("mod.r"), warehouse.history()
        problems = warehouse.check(fix=True)
        left = [p for p in warehouse.check() if not p.harmless]
        assert left == [], (path, at, bit, problems, left)
    print("found", found, flush=True)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("damage") / "store"
    # In one transaction, however busy the machine: where a record lies in its page decides what LMDB makes of damage.
    with mock.patch.multiple(committer, PATIENCE=60.0, LIMIT=60.0), Warehouse(directory) as warehouse:
        for name, value in VALUES.items():
            send(warehouse, name, value)
    return directory


def places(store: Path) -> list[tuple[str, int, int]]:
    """Some bytes of every file: all kinds of pages, records and payloads are among them."""
    chosen = []
    for path in sorted(store.rglob("*")):
        name = str(path.relative_to(store))
        if path.is_file() and name != "clean.json" and path.stat().st_size:
            size = path.stat().st_size
            step = max(1, size // (60 if "meta.lmdb/data" in name else 8))
            chosen += [(name, at, (at // 7) % 8) for at in range(at_first(name), size, step)]
    return chosen


def at_first(name: str) -> int:
    return sum(name.encode()) % 5


@pytest.mark.parametrize("clean", [True, False], ids=["after a clean close", "after a kill"])
def test_one_flipped_bit_anywhere(store: Path, tmp_path: Path, clean: bool) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    if not clean:
        (copy / "clean.json").unlink()
    ran = subprocess.run(
        [sys.executable, "-c", READER, str(copy), str(tmp_path / "work")],
        input=json.dumps(places(store)),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0 and lines[-1] == "done", f"{ran.returncode}: {lines[-3:]}\n{ran.stderr[-3000:]}"
    found = [int(line.split()[1]) for line in lines if line.startswith("found")]
    assert len(found) > 80
    assert sum(count == 2 * len(VALUES) for count in found) > len(found) / 2  # most flips cost nothing: the test reads
    assert any(count < 2 * len(VALUES) for count in found)  # some cost an ingredient: the test flips


def flip(path: Path, key: bytes, place: int, bit: int) -> None:
    """Change one bit in every copy of a record that a file of LMDB holds; `place` counts from the end of its key."""
    content = bytearray(path.read_bytes())
    for match in re.finditer(re.escape(key), content):
        content[match.end() + place] ^= 1 << bit
    path.write_bytes(content)


def damaged_unseen(store: Path, directory: Path, place: int, bit: int) -> Path:
    """A copy of a store with damage to the name "text" that opening does not see: as in a file of more than 64 MiB."""
    shutil.copytree(store, directory)
    flip(directory / "meta.lmdb" / "data.mdb", name_key("text"), place, bit)
    inspection.write_mark(Layout(str(directory)), durable=False)
    return directory


#: A byte of a record's header, before its key (two of the size, two more, flags, two of the key's length), and a bit.
SIZES = [(-8, 2), (-8, 6), (-7, 0), (-2, 1)]


@pytest.mark.parametrize("seen", [True, False], ids=["by the opening", "by a reader"])
@pytest.mark.parametrize(("field", "bit"), SIZES)
def test_a_record_of_a_wrong_size_costs_only_itself(
    store: Path, tmp_path: Path, field: int, bit: int, seen: bool
) -> None:
    """LMDB would move a record's neighbours by that size, as soon as the record is removed or replaced."""
    copy = damaged_unseen(store, tmp_path / "store", field - len(name_key("text")), bit)
    if seen:
        (copy / "clean.json").unlink()
    with Warehouse(copy) as warehouse:
        assert set(warehouse.names()) == VALUES.keys() - {"text"}
        send(warehouse, "text", VALUES["text"])
        warehouse.sync()
        assert all(fetch(warehouse, name) == value for name, value in VALUES.items())
    with Warehouse(copy) as warehouse:
        assert all(fetch(warehouse, name) == value for name, value in VALUES.items())
        assert warehouse.check() == []


LOOK = """
import sys
from pyplantx.warehouse.warehouse import Warehouse

with Warehouse(sys.argv[1]) as warehouse:
    assert warehouse.last_ref("text") is None
"""


def test_damage_that_one_session_has_seen_is_inspected_whoever_closes_last(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    with Warehouse(copy) as warehouse:
        send(warehouse, "mine", 1)
        warehouse.sync()
        flip(copy / "meta.lmdb" / "data.mdb", name_key("text"), 40, 0)
        subprocess.run([sys.executable, "-c", LOOK, str(copy)], check=True, cwd=ROOT)
    assert (copy / "clean.json").exists()
    with Warehouse(copy) as warehouse:
        assert fetch(warehouse, "text") is None
        assert warehouse.check() == []
    assert list((copy / "quarantine").glob("meta.lmdb-*"))


def test_the_backup_is_not_replaced_by_a_damaged_index(store: Path, tmp_path: Path) -> None:
    copy = damaged_unseen(store, tmp_path / "store", 40, 0)
    before = (copy / "backup" / "meta.mdb").read_bytes()
    with Warehouse(copy) as warehouse:
        assert fetch(warehouse, "text") is None
        send(warehouse, "other", 1)
    assert (copy / "backup" / "meta.mdb").read_bytes() == before
    with Warehouse(copy) as warehouse:  # whose opening has left it out
        send(warehouse, "another", 1)
    assert (copy / "backup" / "meta.mdb").read_bytes() != before


@pytest.mark.parametrize("step", ["_copy_records", "_put_in_place"])
def test_where_damaged_records_cannot_be_left_out_the_store_opens_all_the_same(
    store: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = damaged_unseen(store, tmp_path / "store", 40, 0)
    (copy / "clean.json").unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(inspection, step, full)
        with Warehouse(copy) as warehouse:
            assert all(fetch(warehouse, name) == value for name, value in VALUES.items() if name != "text")
            assert fetch(warehouse, "text") is None
    assert not list((copy / "quarantine").glob("meta.lmdb-*"))
    with Warehouse(copy) as warehouse:
        assert fetch(warehouse, "text") is None
        assert warehouse.check() == []
    assert list((copy / "quarantine").glob("meta.lmdb-*"))


@pytest.mark.parametrize(("table", "key"), [("names", "text"), ("versions", "mod.r")])
def test_a_record_that_makes_no_sense_is_replaced(store: Path, tmp_path: Path, table: str, key: str) -> None:
    """It matches its checksum, which anybody can compute; and nobody has looked at it before it is written."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    with Warehouse(copy) as warehouse:
        index = warehouse._session.index
        index.write(lambda: ({}, lambda txn: index.put(txn, table, [(name_key(key), b"[1,2")])), 1.0)
    with Warehouse(copy) as warehouse:
        ref, root = warehouse.store("text", 2), hash_text("another version")
        new = NewVersion(name_key("mod.r"), "mod.r", root, 1.0, {})
        warehouse._committer.commit(Commit("mod.r", root, [(root, "{}")], [("text", ref)]), new, None)
        warehouse.sync()
    with Warehouse(copy) as warehouse:
        assert fetch(warehouse, "text") == 2
        assert [version.root for version in warehouse.versions("mod.r")][0] == root


@pytest.mark.parametrize("name", list(VALUES))
def test_damage_is_reported_once_and_the_value_can_be_stored_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "store"
    with Warehouse(directory) as warehouse:
        send(warehouse, name, VALUES[name])
    damage_all_payloads(directory)
    (directory / "backup" / "meta.mdb").unlink()
    with Warehouse(directory) as warehouse:
        for _ in range(3):
            try:
                assert fetch(warehouse, name) is None
            except PayloadMissing:
                continue
        assert len(caplog.records) == 1
        send(warehouse, name, VALUES[name])
        assert fetch(warehouse, name) == VALUES[name]
        warehouse.sync()
        assert warehouse.check() == []
    with Warehouse(directory) as warehouse:
        assert fetch(warehouse, name) == VALUES[name]


LETTERS = (b"x", b"s", b"l", b"bGxs")  #: what the longer values consist of; the last one in base64


def damage_all_payloads(directory: Path) -> None:
    """Change one byte of the value itself, wherever it lives."""
    for path in [*(directory / "objects").glob("*/*/*"), *directory.glob("*.lmdb/data.mdb")]:
        content = path.read_bytes()
        for told in (b"value.json\\n12", b"some words s", b"101,102,103", *(letter * 8 for letter in LETTERS)):
            content = content.replace(told, told[:-1] + b"!")
        path.chmod(0o600)
        path.write_bytes(content)

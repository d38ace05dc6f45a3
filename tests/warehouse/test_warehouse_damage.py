"""Changed bytes: never a wrong value, never the death of the process."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyplantx.errors import PayloadMissing
from pyplantx.warehouse.committer import name_key
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
    with Warehouse(directory) as warehouse:
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


@pytest.mark.parametrize(("field", "bit"), [(0, 2), (0, 6), (1, 0), (6, 1)])
def test_a_record_of_a_wrong_size_costs_only_itself(store: Path, tmp_path: Path, field: int, bit: int) -> None:
    """LMDB would move a record's neighbours by that size, as soon as the record is removed or replaced.

    `field` is a byte of the node's header: two of the size, two more, flags, and two of the key's length.
    """
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    (copy / "clean.json").unlink()
    path = copy / "meta.lmdb" / "data.mdb"
    content = bytearray(path.read_bytes())
    at = [match.start() for match in re.finditer(re.escape(name_key("text")), content)]
    for key in at:
        content[key - 8 + field] ^= 1 << bit
    path.write_bytes(content)
    with Warehouse(copy) as warehouse:
        assert set(warehouse.names()) == VALUES.keys() - {"text"}
        send(warehouse, "text", VALUES["text"])
    with Warehouse(copy) as warehouse:
        assert all(fetch(warehouse, name) == value for name, value in VALUES.items())
        assert warehouse.check() == []


def test_damage_that_is_seen_while_it_is_open_leaves_no_mark_of_a_clean_close(tmp_path: Path) -> None:
    """So the next opening looks closely, and leaves the record out."""
    directory = tmp_path / "store"
    with Warehouse(directory) as warehouse:
        send(warehouse, "text", VALUES["text"])
    with Warehouse(directory) as warehouse:
        warehouse._session.index.condemn("names", name_key("text"), b"as if it were damaged")
    assert not (directory / "clean.json").exists()


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

"""The written format (specs/warehouse/1/FORMAT.md), read by a reader that knows nothing of the package."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import xxhash

from pyplantx.errors import PayloadMissing, StoreTooNew
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import ROOT, fetch, send

FORMAT = ROOT / "specs" / "warehouse" / "1"
EXPECTED = json.loads((FORMAT / "golden" / "expected.json").read_text())
LAID_OUT = json.loads((FORMAT / "golden" / "laid-out.json").read_text())
BLOCK = 4 * 1024 * 1024
TABLES = ["blobs", "code", "history", "names", "objects", "parts", "traces", "versions"]


def digest(data: bytes | str) -> str:
    return xxhash.xxh3_128_hexdigest(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def name_key(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")[:128] + digest(text).encode()


def pieces(content: bytes, layout: Sequence[int] = (0, BLOCK, 1 << 60)) -> list[bytes]:
    """The blocks of a part."""
    head, block, length = layout
    body, tail = content[head : head + length], content[head + length :]
    found = [content[:head], *(body[at : at + block] for at in range(0, len(body), block)), tail]
    return [piece for piece in found if piece] or [b""]


class Independent:
    """A store as FORMAT.md describes it."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.said = json.loads((store / "format.json").read_text())
        with lmdb.open(str(store / "meta.lmdb"), max_dbs=10, readonly=True, lock=False) as env, env.begin() as txn:
            assert sorted(key.decode() for key, _ in txn.cursor()) == TABLES
            self.tables = {name: dict(self._table(env, txn, name)) for name in TABLES}
        with lmdb.open(str(store / "small.lmdb"), readonly=True, lock=False) as env, env.begin() as txn:
            self.small = {key.decode(): value for key, value in txn.cursor()}

    @staticmethod
    def _table(env: Any, txn: Any, name: str) -> Iterator[tuple[Any, bytes]]:
        texts = name not in ("names", "versions", "parts", "blobs")
        for key, record in txn.cursor(env.open_db(name.encode(), txn=txn, create=False)):
            if digest(key + record[16:])[:16].encode() == record[:16]:
                yield key.decode("ascii") if texts else key, record[16:]

    def parts(self, ref: list[Any]) -> dict[str, bytes]:
        spec, version, semantic, address, size, meta, inline = ref
        if inline is not None:
            name, _, text = inline.partition("\n")
            header = [[name, len(text), digest(text.encode("latin-1")), []]]
            found = {name: text.encode("latin-1")}
        else:
            header, found = self.stored(address)
        assert size == sum(map(len, found.values()))
        listed = "".join(f"{name} {size} {check}\n" for name, size, check, *_ in header)
        assert address == digest(f"{spec}\n{version}\n{meta}\n{listed}")
        for name, _, check, blocks, *layout in header:
            cut = [digest(piece) for piece in pieces(found[name], *layout)]
            listing = "".join(cut) if layout else cut
            assert blocks == (listing if len(cut) > 1 else listing[:0])
            assert check == (digest("".join(cut)) if len(cut) > 1 else cut[0])
        return found

    def stored(self, address: str) -> tuple[list[Any], dict[str, bytes]]:
        text, _, payload = self.tables["objects"][address].partition(b"\n")
        *_, home, header, when = json.loads(text)
        assert isinstance(when, float) and (home == "record" or not payload)
        if home == "files":
            folder = self.store / "objects" / address[:2] / address
            assert sorted(path.name for path in folder.iterdir()) == sorted(part[0] for part in header)
            return header, {name: (folder / name).read_bytes() for name, *_ in header}
        payload = self.small[address] if home == "small" else payload
        found = {}
        for name, size, *_ in header:
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name)
            found[name], payload = payload[:size], payload[size:]
        assert payload == b""
        return header, found

    def names(self) -> dict[str, tuple[list[Any], list[list[str]]]]:
        found = {}
        for key, body in self.tables["names"].items():
            name, ref, producers = json.loads(body)
            assert key == name_key(name)
            found[name] = (ref, producers)
        return found


def expected_value(told: Any) -> Any:
    return told["repeat"][0] * told["repeat"][1] if isinstance(told, dict) else told


def test_the_corpus_is_not_empty() -> None:
    assert len(EXPECTED["names"]) >= 4 and len(list((FORMAT / "reject").iterdir())) >= 2


def test_the_golden_store_by_the_letter() -> None:
    store = Independent(FORMAT / "golden" / "store")
    assert store.said == {"format": "pyplantx warehouse", "version": 1, "check": digest("pyplantx warehouse 1")}
    names = store.names()
    assert set(names) == set(EXPECTED["names"])
    for name, told in EXPECTED["names"].items():
        ref, producers = names[name]
        (content,) = store.parts(ref).values()
        if isinstance(told, dict) and "content" in told:
            assert content.decode() == told["content"]
        else:
            assert json.loads(content) == expected_value(told)
        root = digest(f"root {name}")
        assert producers == [[f"module.send {name}", root]]
        assert json.loads(store.tables["traces"][root]) == {"node": name}
        reactor, roots, parts = json.loads(store.tables["versions"][name_key(f"module.send {name}")])
        assert (reactor, roots[0][0], parts) == (f"module.send {name}", root, {"function f": root})
    assert [entry for body in store.tables["history"].values() for entry in json.loads(body)] == EXPECTED["history"]
    assert {key: body.decode() for key, body in store.tables["code"].items()} == EXPECTED["code"]
    assert sorted(json.loads(body) for body in store.tables["blobs"].values()) == [["4:kindkey", "a blob"]]
    homes = {json.loads(body.partition(b"\n")[0])[4] for body in store.tables["objects"].values()}
    assert homes == {"record", "small", "files"}


def test_the_golden_store_by_the_package(tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "golden" / "store", tmp_path / "store")
    with Warehouse(tmp_path / "store") as warehouse:
        for name, told in EXPECTED["names"].items():
            value = fetch(warehouse, name)
            if isinstance(told, dict) and "content" in told:
                assert Path(value).read_text() == told["content"]
            else:
                assert value == expected_value(told)
        assert warehouse.history() == EXPECTED["history"]
        assert warehouse.blob_get("kind", "key") == "a blob"
        assert warehouse.check() == []


def test_parts_with_a_layout_by_the_letter() -> None:
    store = Independent(FORMAT / "golden" / "laid-out")
    names = store.names()
    assert set(names) == set(LAID_OUT)
    for name, (text, layout) in LAID_OUT.items():
        ref, _ = names[name]
        assert store.parts(ref) == {"file.txt": text.encode()}
        header, _ = store.stored(ref[3])
        assert header[0][4] == layout


def test_parts_with_a_layout_by_the_package(tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "golden" / "laid-out", tmp_path / "store")
    with Warehouse(tmp_path / "store") as warehouse:
        for name, (text, _) in LAID_OUT.items():
            assert Path(fetch(warehouse, name)).read_text() == text
        assert warehouse.check() == []


@pytest.mark.parametrize("position", range(0, 53, 4))
def test_each_block_of_a_part_with_a_layout_is_checked(tmp_path: Path, position: int) -> None:
    shutil.copytree(FORMAT / "golden" / "laid-out", tmp_path / "store")
    with Warehouse(tmp_path / "store") as warehouse:
        ref = warehouse.last_ref("head, body and tail")
        assert ref is not None and ref.size == 53
        (path,) = (tmp_path / "store" / "objects").glob(f"*/{ref.address}/file.txt")
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(PayloadMissing, match="damaged"):
            warehouse.open(ref)


def test_a_newer_store_is_refused_untouched(tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "reject" / "newer", tmp_path / "store")
    with pytest.raises(StoreTooNew):
        Warehouse(tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["format.json"]


def test_a_damaged_record_is_absent_and_the_others_are_not(tmp_path: Path) -> None:
    shutil.copytree(FORMAT / "reject" / "damaged_record", tmp_path / "store")
    with Warehouse(tmp_path / "store") as warehouse:
        ref = warehouse.last_ref("little")
        assert ref is not None and not warehouse.has(ref)
        assert fetch(warehouse, "tiny") == 12 and fetch(warehouse, "small") == "s" * 9_000


def test_what_is_written_today_obeys_the_format(tmp_path: Path) -> None:
    values = {"tiny": 1, "little": "l" * 1_000, "small": "s" * 100_000, "large": "b" * (BLOCK + 10), "\ud800": []}
    with Warehouse(tmp_path / "store") as warehouse:
        for round in range(3):
            for name, value in values.items():
                send(warehouse, name, value, reactor=f"r{round}")
        array = np.arange(3 * BLOCK // 8)
        send(warehouse, "array", array)
        warehouse.put_code(digest("raw"), "code")
        warehouse.blob_put("k", "key", "text")
    store = Independent(tmp_path / "store")
    for name, (ref, producers) in store.names().items():
        (content,) = store.parts(ref).values()
        if name == "array":
            assert content.endswith(array.tobytes())
            continue
        assert json.loads(content) == values[name]
        assert producers == [[f"r{round}", digest(f"r{round} {name}")] for round in (2, 1, 0)]
    sizes = json.loads((tmp_path / "store" / "clean.json").read_text())
    for folder, (size, check) in sizes.items():
        data = (tmp_path / "store" / folder / "data.mdb").read_bytes()
        assert (size, check) == (len(data), digest(data[: 64 << 20]))
    for key, body in store.tables["versions"].items():
        reactor, roots, _ = json.loads(body)
        assert key == name_key(reactor)
        assert all(key + root.encode() in store.tables["parts"] for root, _ in roots[1:])

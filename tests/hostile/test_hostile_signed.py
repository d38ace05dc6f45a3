"""`trust="signed"`: what was not written with the user's key is not believed, and nothing of it is parsed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from pyplantx import Ingredient, Plant, ReactorFunc, specs
from pyplantx.errors import BadRequest, PayloadMissing, PyplantxError, UntrustedStore
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.testing import forget_reactors
from pyplantx.warehouse import recordchecks, sealing
from pyplantx.warehouse.environments import TABLES
from pyplantx.warehouse.warehouse import Warehouse
from tests.hostile.forge import Forger, bombs
from tests.warehouse.stores import ROOT, send


@pytest.fixture(autouse=True)
def no_default_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or makes the key of whoever runs it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("PYPLANTX_KEY", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def store(tmp_path: Path, key: Path) -> Path:
    """A signed store of all homes, closed."""
    (tmp_path / "file.txt").write_text("text")
    with Warehouse(tmp_path / "store", trust="signed", key=key, durability="process") as warehouse:
        for name, value in VALUES.items():
            send(warehouse, name, value)
        send(warehouse, "file", str(tmp_path / "file.txt"), Ingredient.Type.file)
        send(warehouse, "hdf", np.arange(400_000.0), specs.HdfArraySpec)
        assert warehouse.check() == []
    return tmp_path / "store"


VALUES: dict[str, Any] = {
    "tiny": 7,
    "little": "x" * 2_000,
    "small": b"y" * 20_000,
    "large": b"z" * 9_000_000,
    "object": {"a": (1, {2})},
    "small object": {"a": b"x" * 20_000},
    "large object": {"a": np.arange(300_000.0)},
    "array": np.arange(30.0),
    "large array": np.arange(1_200_000.0),
    "fortran": np.asfortranarray(np.arange(600_000.0).reshape(2, -1)),
    "strided": np.arange(600_000.0)[::2],
}


def opened(store: Path, key: Path, **options: Any) -> Warehouse:
    return Warehouse(store, trust="signed", key=key, durability="process", **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def value_of(warehouse: Warehouse, name: str) -> Any:
    """The value, or None if it counts as missing."""
    ref = warehouse.last_ref(name)
    if ref is None:
        return None
    try:
        return warehouse.open(ref)
    except PayloadMissing:
        return None


def is_right(name: str, value: Any) -> bool:
    if name == "file":
        return Path(value).read_text() == "text"
    if name == "hdf":
        return bool((np.asarray(value[...]) == np.arange(400_000.0)).all())
    right = VALUES[name]
    return bool((value["a"] == right["a"]).all()) if name == "large object" else bool(np.all(value == right))


# -- life with a key --------------------------------------------------------------------------------


def test_everything_comes_back(store: Path, key: Path) -> None:
    for options in ({}, {"read_only": True}, {"verify": "always"}):
        with opened(store, key, **options) as warehouse:
            for name in [*VALUES, "file", "hdf"]:
                assert is_right(name, value_of(warehouse, name)), name
            assert warehouse.check() == []


def test_the_key_is_made_once_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "home" / ".config" / "pyplantx" / "key"
    before = os.umask(0)
    try:
        Warehouse(tmp_path / "one", trust="signed").close()
    finally:
        os.umask(before)
    made = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600 and len(bytes.fromhex(made)) == 32
    Warehouse(tmp_path / "two", trust="signed").close()
    assert path.read_text() == made
    said = [json.loads((tmp_path / name / "format.json").read_text())["signed"] for name in ("one", "two")]
    assert said[0]["key_id"] == said[1]["key_id"] and said[0]["store"] != said[1]["store"]
    for folder in ("one", "two"):
        assert not any(made.strip().encode() in data for data in contents(tmp_path / folder).values())


def test_the_environment_names_the_key(store: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYPLANTX_KEY", str(key))
    with Warehouse(store, trust="signed", durability="process") as warehouse:
        assert value_of(warehouse, "tiny") == 7
    assert not (Path(os.environ["HOME"]) / ".config").exists()


def test_a_plant_with_a_key(tmp_path: Path, key: Path) -> None:
    ran = []

    def run(**options: Any) -> Any:
        forget_reactors()

        @ReactorFunc
        def make(pipe: Any) -> None:
            pipe.send("x", {"value": (1, 2)})

        @ReactorFunc
        def use(pipe: Any) -> Any:
            pipe.send("y", len((yield pipe.receive("x"))["value"]))

        with Plant(tmp_path / "plant", trust="signed", key=key, durability="process", **options) as plant:
            plant.add_event_listener(Plant.EventType.reactor_started, lambda kind, name, function: ran.append(name))
            return plant.produce("y")

    assert [run(), run()] == [2, 2] and ran == ["use", "make"]
    forget_reactors()


def test_two_plants_of_one_process_and_another_process(store: Path, key: Path) -> None:
    program = (
        "import sys\n"
        "from pyplantx.warehouse.warehouse import Warehouse\n"
        "from tests.warehouse.stores import send, fetch\n"
        "with Warehouse(sys.argv[1], trust='signed', key=sys.argv[2], durability='process') as warehouse:\n"
        "    print(fetch(warehouse, 'tiny')); send(warehouse, 'theirs', {'a': (3,)})\n"
    )
    with opened(store, key) as one, opened(store, key) as other:
        done = subprocess.run(
            [sys.executable, "-c", program, str(store), str(key)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout == "7\n"
        assert value_of(one, "theirs") == value_of(other, "theirs") == {"a": (3,)}


def test_semantic_digests_are_those_of_any_store(tmp_path: Path, key: Path) -> None:
    """So a value is the same whether its store is signed or not; addresses are not."""
    with Warehouse(tmp_path / "plain", durability="process") as plain, opened(tmp_path / "signed", key) as signed:
        for name, value in VALUES.items():
            one, other = plain.store(name, value), signed.store(name, value)
            assert one.digest == other.digest
            assert one.inline is not None or one.address != other.address


def test_what_a_killed_run_left_is_not_taken_up(store: Path, key: Path) -> None:
    with opened(store, key) as warehouse:
        assert warehouse.workspaces.take("mod:r", "0" * 32) is None


# -- who may open what ------------------------------------------------------------------------------


def refused(store: Path, match: str, **options: Any) -> None:
    before = contents(store)
    with pytest.raises(UntrustedStore, match=match):
        Warehouse(store, durability="process", **options)
    assert contents(store) == before


def test_a_signed_store_is_opened_with_its_key_only(store: Path, key: Path, tmp_path: Path) -> None:
    refused(store, "is signed with the key", trust="own")
    refused(store, "is signed with the key", trust="data")
    refused(store, "is signed with the key", trust="own", read_only=True)
    refused(store, "there is no key", trust="signed", key=tmp_path / "absent")
    refused(store, "there is no key", trust="signed")
    assert not (tmp_path / "absent").exists()
    Warehouse(tmp_path / "another", trust="signed", key=tmp_path / "other key").close()
    refused(store, "is signed with the key .* and .*other key' is the key", trust="signed", key=tmp_path / "other key")
    refused(store, "is signed", trust="signed", key=tmp_path / "other key", read_only=True)


def test_an_unsigned_store_is_not_opened_as_a_signed_one(tmp_path: Path, key: Path) -> None:
    with Warehouse(tmp_path / "plain", durability="process") as warehouse:
        send(warehouse, "x", 1)
        refused(tmp_path / "plain", "is not signed", trust="signed", key=key)
    refused(tmp_path / "plain", "is not signed", trust="signed", key=key)
    os.unlink(tmp_path / "plain" / "format.json")
    refused(tmp_path / "plain", "is not signed", trust="signed", key=key)
    assert not key.exists()


def test_an_open_store_stays_what_it_is(store: Path, key: Path) -> None:
    with opened(store, key):
        with pytest.raises(UntrustedStore):
            Warehouse(store, durability="process")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_can_use_is_refused(store: Path, key: Path, mode: int) -> None:
    key.chmod(mode)
    refused(store, "others can use the key", trust="signed", key=key)


@pytest.mark.parametrize("text", ["", "00", "x" * 64, "0" * 63, "0" * 66, "\xff" * 64])
def test_what_is_no_key(store: Path, key: Path, text: str) -> None:
    key.write_text(text, encoding="latin-1")
    refused(store, "holds no key", trust="signed", key=key)


def test_keys_in_odd_places(store: Path, key: Path, tmp_path: Path) -> None:
    shutil.copy(key, store / "key")
    refused(store, "lies in the store", trust="signed", key=store / "key")
    os.mkfifo(tmp_path / "fifo", 0o600)
    refused(store, "not an ordinary file", trust="signed", key=tmp_path / "fifo")
    (tmp_path / "folder").mkdir(0o700)
    refused(store, "not an ordinary file|there is no key", trust="signed", key=tmp_path / "folder")
    with pytest.raises(BadRequest, match="of no use"):
        Warehouse(tmp_path / "new", key=key)
    with pytest.raises(BadRequest, match="verify='off'"):
        Warehouse(tmp_path / "new", trust="signed", key=key, verify="off")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_key_of_somebody_else(store: Path, key: Path) -> None:
    os.chown(key, 12345, 12345)
    refused(store, "belongs to another user", trust="signed", key=key)


def test_the_key_is_in_no_message(store: Path, key: Path) -> None:
    from pyplantx.warehouse.trust import load_key

    loaded = load_key(str(key), str(store), make=False)
    assert key.read_text().strip() not in f"{loaded!r} {loaded}" and loaded.secret.hex() == key.read_text().strip()


# -- format.json --------------------------------------------------------------------------------------


def test_a_signed_store_that_lost_what_it_said_is_not_taken_for_another(store: Path, key: Path) -> None:
    """It says it twice; the second one serves, and the first is written again."""
    sound = (store / "format.json").read_bytes()
    for damage in (lambda: os.unlink(store / "format.json"), lambda: (store / "format.json").write_bytes(b"{}")):
        damage()
        refused(store, "is signed", trust="own")
        with opened(store, key) as warehouse:
            assert value_of(warehouse, "tiny") == 7
        assert (store / "format.json").read_bytes() == sound


def test_flipped_bits_of_what_it_says(store: Path, key: Path) -> None:
    sound = (store / "format.json").read_bytes()
    for at in range(0, len(sound), 3):
        (store / "format.json").write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        refused(store, "is signed", trust="own")


def alter(folder: Path, **changed: str) -> None:
    """As an attacker does it: with a right checksum."""
    from pyplantx.warehouse.formatfile import _format_text
    from pyplantx.warehouse.trust import Signature

    said = json.loads((folder / "format.json").read_text())["signed"]
    for path in (folder / "format.json", folder / "backup" / "format.json"):
        path.write_bytes(_format_text(Signature(**{**said, **changed})))


def test_a_forged_signature(store: Path, key: Path, tmp_path: Path) -> None:
    alter(store, store="0" * 32)
    refused(store, "does not come from the key", trust="signed", key=key)
    alter(store, proof="0" * 32)
    refused(store, "does not come from the key", trust="signed", key=key)
    opened(tmp_path / "another", key).close()
    for name in ("format.json", "backup/format.json"):
        shutil.copy(tmp_path / "another" / name, store / name)
    with opened(store, key) as warehouse:  # of this user's, but not this store's: none of its records counts
        assert [value_of(warehouse, name) for name in VALUES] == [None] * len(VALUES)


def test_a_signature_taken_away(store: Path, key: Path) -> None:
    """Then it is an unsigned store, in which nothing is right: it is refused to who wants it signed."""
    from pyplantx.warehouse.formatfile import _format_text

    for path in (store / "format.json", store / "backup" / "format.json"):
        path.write_bytes(_format_text(None))
    refused(store, "is not signed", trust="signed", key=key)


# -- records and payloads -----------------------------------------------------------------------------


def test_no_record_of_another_hand_is_believed(store: Path, key: Path, tmp_path: Path) -> None:
    """Whatever is written with checksums that anybody can compute counts as missing."""
    forger, marker = Forger(store), tmp_path / "marker"
    for number, bomb in enumerate(bombs(marker)):
        forger.add(f"bomb {number}", "object", {"value.pickle": bomb}, home=("record", "small", "files")[number % 3])
    forger.replace(lambda table, key, body: body)
    with opened(store, key) as warehouse:
        assert [value_of(warehouse, f"bomb {number}") for number in range(11)] == [None] * 11
        assert [value_of(warehouse, name) for name in VALUES] == [None] * len(VALUES)
        assert list(warehouse.names()) == [] and warehouse.history() == []
        warehouse.check(fix=True)
        assert [problem for problem in warehouse.check() if not problem.harmless] == []
    assert not marker.exists()


def test_records_of_another_hand_that_are_believed_are_found(
    store: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: a check that anybody can compute is as good as the key."""
    real: Callable[..., Any] = recordchecks.RecordChecks.unseal

    def unseal(self: Any, table: str, key: bytes, record: bytes) -> Any:
        body = real(self, table, key, record)
        return recordchecks.unseal_record(key, record) if body is None else body

    monkeypatch.setattr(recordchecks.RecordChecks, "unseal", unseal)
    monkeypatch.setattr(recordchecks.RecordChecks, "unseal_payload", lambda self, key, value: value)
    with pytest.raises((AssertionError, FileExistsError)):  # which the second bomb says, if the first went off
        test_no_record_of_another_hand_is_believed(store, key, tmp_path)
    assert (tmp_path / "marker").exists()


def stored_records(store: Path) -> list[tuple[str, bytes, bytes]]:
    """Table, key, and the record as it is, check and all."""
    found = []
    with lmdb.open(str(store / "meta.lmdb"), max_dbs=len(TABLES), lib_version=0) as env:
        for table in TABLES:
            database = env.open_db(table.encode())
            with env.begin(db=database) as txn:
                found += [(table, bytes(key), bytes(value)) for key, value in txn.cursor()]
    return found


def put_raw(store: Path, table: str, key: bytes, record: bytes) -> None:
    with lmdb.open(str(store / "meta.lmdb"), max_dbs=len(TABLES), lib_version=0) as env:
        database = env.open_db(table.encode())
        with env.begin(write=True, db=database) as txn:
            txn.put(key, record)


def test_signed_records_that_change_places(store: Path, key: Path) -> None:
    """Each is signed, and none of them where it was put: swapped names, objects, tables."""
    records = stored_records(store)
    names = [(key, record) for table, key, record in records if table == "names"]
    for (place, _), (_, record) in zip(names, names[1:] + names[:1]):
        put_raw(store, "names", place, record)
    for table, place, record in records:
        if table == "traces":
            put_raw(store, "code", place, record)
    with opened(store, key) as warehouse:
        assert [name for name in VALUES if value_of(warehouse, name) is not None] == []
        traces = [place for table, place, _ in records if table == "traces"]
        assert traces and [warehouse.get_code(place.decode()) for place in traces] == [None] * len(traces)


def test_checks_that_know_no_place_are_found(
    request: pytest.FixtureRequest, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: a signature covers what a record says, and not where it belongs."""
    real: Callable[..., bytes] = sealing.Sealing._check
    monkeypatch.setattr(sealing.Sealing, "_check", lambda self, table, key, body: real(self, "", b"", body))
    with pytest.raises(AssertionError, match="'tiny'"):
        test_signed_records_that_change_places(request.getfixturevalue("store"), key)


def test_records_of_another_store_with_the_same_key(store: Path, key: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "another", key) as warehouse:
        send(warehouse, "tiny", 8)
    for table, place, record in stored_records(tmp_path / "another"):
        put_raw(store, table, place, record)
    with opened(store, key) as warehouse:
        assert value_of(warehouse, "tiny") is None


@pytest.mark.parametrize("home", ["meta.lmdb", "small.lmdb", "objects"])
def test_altered_bytes(store: Path, key: Path, home: str) -> None:
    """Of a thousand alterations none is accepted: every value is right or missing."""
    paths = [path for path in sorted((store / home).rglob("*")) if path.is_file() and path.name != "lock.mdb"]
    for path in paths:
        path.chmod(0o600)
        sound = bytearray(path.read_bytes())
        size, step = len(sound), max(1, len(sound) // 8)
        for at in range(size // 3, size, step):
            sound[at] ^= 0x41
        path.write_bytes(sound)
    if home != "objects":
        shutil.rmtree(store / "backup")
        (store / "backup").mkdir()
        (store / "backup" / "format.json").write_bytes((store / "format.json").read_bytes())
    with opened(store, key) as warehouse:
        found = {name: value_of(warehouse, name) for name in [*VALUES, "file", "hdf"]}
        assert all(value is None or is_right(name, value) for name, value in found.items())
        large = ("large", "large object", "large array", "fortran", "strided", "file", "hdf")
        assert home != "objects" or all(found[name] is None for name in large)


def test_bytes_that_are_believed_are_found(store: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: files are not compared with what was signed."""
    monkeypatch.setattr(sealing, "compare_digest", lambda one, other: True)
    with pytest.raises(AssertionError, match="False = all"):
        test_altered_bytes(store, key, "objects")


def test_payloads_swapped_with_their_checksums(store: Path, key: Path) -> None:
    """Two files of one size that are exchanged; and one whose bytes have the same xxh3 would be found, too."""
    with opened(store, key) as warehouse:
        refs = [send(warehouse, name, np.full(300_000, number)) for number, name in enumerate("ab")]
    files = [next((store / "objects" / ref.address[:2] / ref.address).iterdir()) for ref in refs]
    one, other = (path.read_bytes() for path in files)
    for path, data in zip(files, (other, one)):
        path.chmod(0o600)
        path.write_bytes(data)
    with opened(store, key) as warehouse:
        assert value_of(warehouse, "a") is value_of(warehouse, "b") is None


def test_no_check_is_one_that_anybody_can_compute(store: Path, key: Path) -> None:
    """The checks of records, payloads and blocks are not xxh3 of the same bytes under any name."""
    for table, place, record in stored_records(store):
        body = record[32:]
        assert record[:32].decode() not in (hash_bytes(place + body), hash_bytes(body)), table
    told = b"".join(record for table, _, record in stored_records(store) if table == "objects")
    for path in (store / "objects").glob("*/*/*"):
        data = path.read_bytes()
        for start in range(0, len(data), 4 << 20):
            assert hash_bytes(data[start : start + (4 << 20)]).encode() not in told


def test_an_old_mark_of_a_clean_close_is_not_believed(store: Path, key: Path) -> None:
    """LMDB is given nothing that only somebody without the key calls sound."""
    from pyplantx.warehouse.files import Layout
    from pyplantx.warehouse.inspection import is_as_closed

    layout = Layout(str(store))
    assert (store / "clean.json").exists() and not is_as_closed(layout)
    (store / "meta.lmdb" / "data.mdb").write_bytes(b"\xff" * 8192)
    from pyplantx.warehouse.inspection import write_mark

    write_mark(layout, durable=False)
    with opened(store, key) as warehouse:  # the backup has taken its place
        assert value_of(warehouse, "tiny") == 7


def test_a_pickle_that_is_exchanged_while_it_is_opened(
    store: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are decoded are the very bytes that were checked."""
    from pyplantx.specs.builtin import ObjectSpec
    from pyplantx.warehouse.payloads import MemoryPayload

    seen: list[Any] = []
    real: Callable[..., Any] = ObjectSpec.open

    def spy(self: Any, payload: Any, meta: Any, version: int) -> Any:
        seen.append(type(payload))
        return real(self, payload, meta, version)

    monkeypatch.setattr(ObjectSpec, "open", spy)
    with opened(store, key) as warehouse:
        assert is_right("large object", value_of(warehouse, "large object"))
    assert seen == [MemoryPayload]


def test_an_old_store_put_back_is_the_users_own_word(store: Path, key: Path, tmp_path: Path) -> None:
    """What signatures can't tell: that a newer state of the whole store was taken away. The guide says so."""
    shutil.copytree(store, tmp_path / "kept")
    with opened(store, key) as warehouse:
        send(warehouse, "tiny", 8)
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "kept", store)
    with opened(store, key) as warehouse:
        assert value_of(warehouse, "tiny") == 7


def test_every_error_is_of_the_hierarchy(store: Path, key: Path, tmp_path: Path) -> None:
    for path in sorted(store.rglob("*")):
        if not path.is_file() or path.name == "data.mdb":
            continue
        sound = path.read_bytes()
        path.chmod(0o600)
        for data in (b"", b"\xff" * 100, b"[" * 5000, sound[: len(sound) // 2]):
            path.write_bytes(data)
            try:
                with opened(store, key) as warehouse:
                    value_of(warehouse, "object")
            except PyplantxError:
                pass
        if path.exists():
            path.chmod(0o600)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound)


# -- the written format ---------------------------------------------------------------------------------


def test_a_reader_made_from_the_written_format(store: Path, key: Path) -> None:
    """specs/warehouse/1/FORMAT.md, "format.json of a signed store", with hashlib and nothing of ours."""
    from hashlib import blake2b

    def check(secret: bytes, person: str, length: int, message: bytes) -> str:
        return blake2b(message, key=secret, person=person.encode(), digest_size=length).hexdigest()

    user = bytes.fromhex(key.read_text().strip())
    signed = json.loads((store / "format.json").read_text())["signed"]
    assert signed["key_id"] == check(user, "pyplantx key id", 8, b"")
    own = bytes.fromhex(check(user, "pyplantx store", 32, signed["store"].encode()))
    said = f"signed {signed['key_id']} {signed['store']}"
    assert signed["proof"] == check(own, "pyplantx text", 16, said.encode())
    assert (store / "backup" / "format.json").read_bytes() == (store / "format.json").read_bytes()

    def body_of(table: str, place: bytes, record: bytes) -> bytes:
        message = f"{table} {len(place)} ".encode() + place + record[32:]
        assert record[:32].decode() == check(own, "pyplantx record", 16, message)
        return record[32:]

    with lmdb.open(str(store / "small.lmdb"), lib_version=0) as env, env.begin() as txn:
        small = {bytes(place).decode(): body_of("small", bytes(place), bytes(value)) for place, value in txn.cursor()}
    seen = set()
    for table, place, record in stored_records(store):
        body = body_of(table, place, record)
        if table == "objects":
            header, _, payload = body.partition(b"\n")
            spec, version, _, meta, home, parts, *_ = json.loads(header)
            files = store / "objects" / place[:2].decode() / place.decode()
            listed = []
            for name, size, digest, blocks in parts:
                data = (files / name).read_bytes() if home == "files" else small.get(place.decode(), payload)
                assert len(data) == size
                pieces = [data[start : start + (4 << 20)] for start in range(0, size, 4 << 20)] or [b""]
                checks = [check(own, "pyplantx block", 16, piece) for piece in pieces]
                if home == "files":
                    assert (blocks or [digest]) == checks
                    assert len(checks) == 1 or digest == hash_bytes("".join(checks).encode())
                else:
                    assert digest == hash_bytes(data)
                    digest = checks[0]
                listed.append(f"{name} {size} {digest}\n")
            text = f"{spec}\n{version}\n{meta}\n{''.join(listed)}"
            assert place.decode() == check(own, "pyplantx text", 16, text.encode())
            seen.add(home)
    assert seen == {"record", "small", "files"}
    mark = json.loads((store / "clean.json").read_text())
    for folder, (size, digest) in mark.items():
        data = (store / folder / "data.mdb").read_bytes()
        assert size == len(data) and digest == check(own, "pyplantx file", 16, data[: 64 << 20])


def test_a_dataset_that_goes_to_another_process(tmp_path: Path, key: Path) -> None:
    """It is checked before it goes, since the key stays here."""
    import pickle

    for closed in (False, True):
        with opened(tmp_path / "store", key) as warehouse:
            if not closed:
                send(warehouse, "hdf", np.arange(400_000.0), specs.HdfArraySpec)
            ref = warehouse.last_ref("hdf")
            assert ref is not None
            data = pickle.dumps(warehouse.open(ref))
            assert bool((np.asarray(pickle.loads(data)[...]) == np.arange(400_000.0)).all())
            assert bytes.fromhex(key.read_text().strip()) not in data

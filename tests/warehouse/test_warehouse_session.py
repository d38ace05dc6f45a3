"""Opening and closing a directory: formats, locks, backups, forks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import CannotStore, StoreBusy, StoreReadOnly, StoreTooNew, WarehouseError
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse import session as session_module
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults.children import in_child
from tests.faults.pages import FIRST, PAGE, parts_in_use
from tests.warehouse.stores import ROOT, fetch, send

Open = Callable[..., Warehouse]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def filled(opened: Open, count: int = 20) -> None:
    warehouse = opened()
    for number in range(count):
        send(warehouse, f"x{number}", str(number) * (10 ** (number % 6)))
    warehouse.close()


def expect(warehouse: Warehouse, count: int = 20) -> None:
    for number in range(count):
        assert fetch(warehouse, f"x{number}") == str(number) * (10 ** (number % 6))


def test_a_newer_format_is_refused_and_untouched(opened: Open, directory: Path) -> None:
    filled(opened)
    said = {"format": "pyplantx warehouse", "version": 2, "check": hash_text("pyplantx warehouse 2")}
    (directory / "format.json").write_text(json.dumps(said))
    before = contents(directory)
    for options in ({}, {"read_only": True}):
        with pytest.raises(StoreTooNew, match="format 2"):
            opened(**options)
    assert contents(directory) == before


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"version":9}', b"[]", b"\xff\xfe", b'{"version":3,"check":"0"}']
)
def test_a_lost_or_damaged_format_file_stops_nobody(opened: Open, directory: Path, content: bytes | None) -> None:
    filled(opened)
    good = (directory / "format.json").read_bytes()
    (directory / "format.json").unlink()
    if content is not None:
        (directory / "format.json").write_bytes(content)
    expect(opened())
    assert (directory / "format.json").read_bytes() == good


def test_a_clean_close_leaves_a_mark_and_reading_keeps_it(opened: Open, directory: Path, monkeypatch: Any) -> None:
    filled(opened)
    mark = (directory / "clean.json").read_bytes()
    from pyplantx.warehouse import inspection

    monkeypatch.setattr(inspection, "_verify", lambda data: pytest.fail("verified although the close was clean"))
    for _ in range(2):
        warehouse = opened()
        expect(warehouse)
        warehouse.close()
        assert (directory / "clean.json").read_bytes() == mark
    warehouse = opened()
    send(warehouse, "new", 1)
    warehouse.sync()
    assert not (directory / "clean.json").exists()
    warehouse.close()
    assert (directory / "clean.json").read_bytes() != mark


def test_after_an_unclean_end_the_files_are_verified(opened: Open, directory: Path, monkeypatch: Any) -> None:
    filled(opened)
    (directory / "clean.json").unlink()
    from pyplantx.warehouse import inspection

    seen, real = [], inspection._verify
    monkeypatch.setattr(inspection, "_verify", lambda data: seen.append(data) or real(data))
    expect(opened())
    assert [Path(data).parent.name for data in seen] == ["meta.lmdb", "small.lmdb"]


@pytest.fixture
def verified(monkeypatch: Any) -> list[str]:
    """The data files that were verified since; their marks cover 16 kB only, as if they were larger than 64 MiB."""
    from pyplantx.warehouse import inspection

    seen, real = [], inspection._verify
    monkeypatch.setattr(inspection, "_MARKED", 4 * 4096)
    monkeypatch.setattr(inspection, "_verify", lambda data: seen.append(Path(data).parent.name) or real(data))
    return seen


def test_the_mark_of_large_files_is_lifted_while_they_are_open(
    opened: Open, directory: Path, verified: list[str]
) -> None:
    """Damage beyond what it covers may kill the process: not a second time, then."""
    filled(opened)
    mark = (directory / "clean.json").read_bytes()
    warehouse = opened()
    assert not (directory / "clean.json").exists()
    warehouse.close()
    assert (directory / "clean.json").read_bytes() == mark and verified == []
    for _ in range(2):  # dies: by SIGBUS, say
        assert in_child(lambda: (Warehouse(directory), os._exit(9))) == 9
    expect(opened())
    assert verified == ["meta.lmdb", "small.lmdb"]


def test_a_lifted_mark_does_not_outlive_a_write(opened: Open, directory: Path, verified: list[str]) -> None:
    filled(opened)
    mark = (directory / "clean.json").read_bytes()
    warehouse = opened()
    send(warehouse, "new", 1)
    warehouse.sync()
    assert not list(directory.glob("clean.json*"))
    warehouse.close()
    assert (directory / "clean.json").read_bytes() != mark
    expect(opened())
    assert verified == []


def test_large_files_are_compared_as_a_whole_if_that_is_asked_for(
    opened: Open, directory: Path, verified: list[str]
) -> None:
    filled(opened)
    opened(verify="always").close()  # the mark does not cover all: verified once
    assert verified == ["meta.lmdb", "small.lmdb"]
    for options in ({"verify": "always"}, {"verify": "always", "read_only": True}, {}):
        warehouse = opened(**options)
        expect(warehouse)
        warehouse.close()
    assert len(verified) == 2
    data = directory / "small.lmdb" / "data.mdb"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    opened().close()
    assert len(verified) == 2
    opened(verify="always").close()
    assert verified[2:] == ["small.lmdb"]


def flip_beyond(directory: Path, what: str, find: bytes = b"", at: int = 10) -> None:
    """Alter a bit of the first such page of the index: of its kind, or of the bytes that are looked for in it."""
    path = directory / "meta.lmdb" / "data.mdb"
    data = bytearray(path.read_bytes())
    begin = next(begin for kind, begin, _ in parts_in_use(data) if kind == what)
    place = data.index(find, begin, begin + PAGE) if find else begin + at
    data[place] ^= 2
    path.write_bytes(data)


def test_damage_beyond_the_mark_that_a_write_meets_costs_that_write(
    opened: Open, directory: Path, verified: list[str], monkeypatch: Any
) -> None:
    """Nothing reads the free list before. Each later opening was told that all is well, and could write nothing."""
    monkeypatch.setattr("pyplantx.warehouse.inspection._MARKED", FIRST * PAGE)
    filled(opened)
    filled(opened, 3)
    flip_beyond(directory, "free list, leaf")
    warehouse = opened()
    expect(warehouse)
    with pytest.raises(WarehouseError, match="can't be written: .*CORRUPTED") as caught:
        send(warehouse, "new", "text")
        warehouse.sync()
    assert "open it again" in str(caught.value.hint) and verified == []
    with suppress(WarehouseError):
        warehouse.close()
    warehouse = opened()
    assert verified[0] == "meta.lmdb"
    expect(warehouse)
    send(warehouse, "new", "text")
    warehouse.close()
    assert fetch(opened(), "new") == "text"


@pytest.mark.parametrize("find", [b"names", b""], ids=["a table's name", "the page of all tables"])
def test_damage_beyond_the_mark_that_an_opening_meets_costs_nothing(
    opened: Open, directory: Path, verified: list[str], monkeypatch: Any, find: bytes
) -> None:
    """A table whose name was damaged would be made anew, and be empty."""
    monkeypatch.setattr("pyplantx.warehouse.inspection._MARKED", FIRST * PAGE)
    filled(opened)
    flip_beyond(directory, "records, leaf", find)
    warehouse = opened()
    assert verified[0] == "meta.lmdb"  # and the backup serves
    expect(warehouse)
    send(warehouse, "new", "text")
    warehouse.close()
    verified.clear()
    assert fetch(opened(), "new") == "text" and verified == []


@pytest.mark.parametrize("damage", ["delete", "empty", "truncate", "noise", "folder", "folder gone", "link"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_lost_or_damaged_index_is_replaced_by_its_backup(
    opened: Open, directory: Path, damage: str, clean: bool, caplog: Any
) -> None:
    filled(opened)
    harm(directory / "meta.lmdb" / "data.mdb", damage)
    if not clean:
        (directory / "clean.json").unlink()
    expect(opened())
    assert sum("backup" in record.message for record in caplog.records) == 1


def harm(data: Path, damage: str) -> None:
    content = data.read_bytes()
    if damage == "folder gone":
        shutil.rmtree(data.parent)
        return
    data.unlink()
    if damage == "folder":
        data.mkdir()
    elif damage == "link":
        data.symlink_to("/etc/passwd")
    elif damage != "delete":
        half, noise = content[: len(content) // 2], b"\x5a" * len(content)
        data.write_bytes({"empty": b"", "truncate": half, "noise": noise}[damage])


def test_without_index_and_backup_everything_is_missing_not_wrong(opened: Open, directory: Path, caplog: Any) -> None:
    filled(opened)
    shutil.rmtree(directory / "backup")
    harm(directory / "meta.lmdb" / "data.mdb", "noise")
    warehouse = opened()
    assert list(warehouse.names()) == []
    assert "no backup" in caplog.text
    send(warehouse, "x", b"x" * 2_000_000)
    assert fetch(warehouse, "x") == b"x" * 2_000_000


def test_a_damaged_second_environment_costs_its_payloads_only(opened: Open, directory: Path, caplog: Any) -> None:
    filled(opened)
    harm(directory / "small.lmdb" / "data.mdb", "truncate")
    warehouse = opened()
    refs = {name: warehouse.last_ref(name) for name in warehouse.names()}
    assert len(refs) == 20 and not all(warehouse.has(ref) and _opens(warehouse, ref) for ref in refs.values())
    for number in range(20):
        send(warehouse, f"x{number}", str(number) * (10 ** (number % 6)))
    expect(warehouse)


def _opens(warehouse: Warehouse, ref: Any) -> bool:
    from pyplantx.errors import PayloadMissing

    try:
        warehouse.open(ref)
    except PayloadMissing:
        return False
    return True


def test_the_backup_follows_the_index(opened: Open, directory: Path) -> None:
    filled(opened, 3)
    size = (directory / "backup" / "meta.mdb").stat().st_size
    filled(opened, 200)
    assert (directory / "backup" / "meta.mdb").stat().st_size > size
    when = (directory / "backup" / "meta.mdb").stat().st_mtime_ns
    opened().close()
    assert (directory / "backup" / "meta.mdb").stat().st_mtime_ns == when
    assert os.listdir(directory / "backup") == ["meta.mdb"]


def test_a_writer_that_does_not_end_is_named(opened: Open, directory: Path) -> None:
    warehouse = opened(lock_timeout=0.1)
    send(warehouse, "x", 1)
    lock = FileLock(str(directory / "locks" / "write"))
    assert lock.acquire(5)
    lock.sign()
    with pytest.raises(StoreBusy, match=f"process {os.getpid()} on"):
        warehouse.sync()
    lock.close()
    warehouse.sync()
    assert fetch(warehouse, "x") == 1


def test_one_who_checks_for_too_long_is_reported(opened: Open, directory: Path) -> None:
    filled(opened)
    lock = FileLock(str(directory / "locks" / "entry"))
    assert lock.acquire()
    with pytest.raises(StoreBusy, match=f"by process {os.getpid()} on"):
        opened(lock_timeout=0.05)
    lock.close()
    expect(opened())


def test_a_file_is_no_warehouse(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match="is a file"):
        Warehouse(tmp_path / "file")
    with pytest.raises(WarehouseError, match="no store"):
        Warehouse(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", [b"pl\xff", "pl\udce4 \u00fc".encode("utf-8", "surrogateescape"), b"a\nb'\"%s{}"])
def test_any_name_of_a_directory_will_do(tmp_path: Path, name: bytes) -> None:
    directory = os.path.join(tmp_path, os.fsdecode(name))
    with Warehouse(directory) as warehouse:
        send(warehouse, "x", b"x" * 2_000_000)
        send(warehouse, "y", "y" * 50_000)
        with pytest.raises(CannotStore, match="'z'"):
            warehouse.store("z", 1, "list")
        claim = warehouse.new_claim("work")
        assert claim.take()
        claim.release()
        warehouse.backup()
        assert warehouse.check() == [] and warehouse.keeper.du().total > 2_000_000
    os.unlink(os.path.join(directory, "clean.json"))
    for options in ({}, {"read_only": True}):
        with Warehouse(directory, **options) as warehouse:
            assert fetch(warehouse, "x") == b"x" * 2_000_000 and fetch(warehouse, "y") == "y" * 50_000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreReadOnly):
        Warehouse(tmp_path / "plant")


def test_other_files_of_the_directory_are_left_alone(opened: Open, directory: Path) -> None:
    directory.mkdir(mode=0o755)
    (directory / "notes.txt").write_text("mine")
    filled(opened)
    assert (directory / "notes.txt").read_text() == "mine"
    assert directory.stat().st_mode & 0o777 == 0o755


def test_a_forked_child_may_open_the_store_but_not_use_the_inherited_one(opened: Open, directory: Path) -> None:
    warehouse = opened()
    warehouse.begin_activity()
    send(warehouse, "x", 1)
    assert warehouse.find_record(hash_text("nothing")) is None

    def child() -> None:
        for use in (lambda: warehouse.store("y", 1), warehouse.sync):
            with pytest.raises(WarehouseError, match="forked"):
                use()
        warehouse.close()
        own = Warehouse(directory)
        send(own, "y", "y" * 50_000)
        own.close()

    assert in_child(child) == 0
    warehouse.sync()
    assert fetch(warehouse, "x") == 1 and fetch(warehouse, "y") == "y" * 50_000


def test_a_fork_while_an_index_is_in_use_for_too_long(
    opened: Open, directory: Path, tmp_path: Path, caplog: Any
) -> None:
    warehouse, other = opened(), Warehouse(tmp_path / "other")
    send(warehouse, "x", "x" * 5_000)
    send(other, "x", "x" * 5_000)
    other.sync()
    warehouse.begin_activity()
    assert fetch(warehouse, "x") == "x" * 5_000
    environments = warehouse._session.index.environments
    environments._patience = 0.05
    held, over = threading.Event(), threading.Event()

    def back_up() -> None:
        with environments._copying:
            held.set()
            over.wait()

    thread = threading.Thread(target=back_up)
    thread.start()
    held.wait()

    def child() -> None:
        for inherited in (warehouse, other):
            with pytest.raises(WarehouseError, match="forked"):
                inherited.find_record(hash_text("nothing"))
            inherited.close()
        with pytest.raises(WarehouseError, match="in use when this process was forked"):
            Warehouse(directory)
        with Warehouse(tmp_path / "other") as own:
            assert fetch(own, "x") == "x" * 5_000 and own._session.pid == os.getpid()

    try:
        assert in_child(child) == 0
    finally:
        over.set()
        thread.join()
    assert [record.message for record in caplog.records if "was in use while this process was forked" in record.message]
    for one in (warehouse, other):  # no lock is left behind, for other threads either
        with ThreadPoolExecutor() as pool:
            assert pool.submit(index_is_free, one._session.index.environments).result()
        assert fetch(one, "x") == "x" * 5_000
    with ThreadPoolExecutor() as pool:
        pool.submit(lambda: Warehouse(tmp_path / "third").close()).result()
    other.close()


def index_is_free(environments: Any) -> bool:
    """Whether another thread may read, write and copy it."""
    views = [view._lock for view in environments.views]
    locks = (environments._gate, environments._writing, environments._copying, *views)
    taken = [lock for lock in locks if lock.acquire(timeout=1)]
    for lock in taken:
        lock.release()
    return len(taken) == len(locks)


def test_a_store_that_cannot_be_closed_keeps_none_from_being_closed(tmp_path: Path) -> None:
    script = """
import os, shutil, sys
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import send
stores = [Warehouse(os.path.join(sys.argv[1], name)) for name in ("gone", "gone too", "left")]
for store in stores:
    send(store, "x", "x" * 5_000)
for store in stores[:2]:
    shutil.rmtree(store.directory)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT)
    assert "WarehouseError" in done.stderr
    assert all(f"{tmp_path / name}'" in done.stderr for name in ("gone", "gone too"))
    assert (tmp_path / "left" / "clean.json").exists()
    with Warehouse(tmp_path / "left") as left:
        assert fetch(left, "x") == "x" * 5_000


def test_a_living_fork_does_not_keep_the_locks_of_a_dead_parent(opened: Open, directory: Path) -> None:
    script = """
import os, sys
from pyplantx.warehouse.warehouse import Warehouse
warehouse = Warehouse(sys.argv[1])
warehouse.allocate("x", "array", shape=(100,), dtype="f8")
forked, told = os.pipe()
if os.fork() == 0:
    os.write(told, b"1")
    sys.stdin.read()
    os._exit(0)
os.read(forked, 1)
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.wait()
    opened(lock_timeout=5)
    left = [name for name in os.listdir(directory / "staging") if not name.startswith(session_of(directory))]
    assert left == []
    assert process.stdin is not None
    process.stdin.close()


def session_of(directory: Path) -> str:
    return session_module._sessions[os.path.realpath(directory)].id


def test_what_is_queued_when_the_interpreter_ends_is_written(opened: Open, directory: Path) -> None:
    script = """
import sys
from tests.warehouse.stores import send
from pyplantx.warehouse.warehouse import Warehouse
send(Warehouse(sys.argv[1]), "x", "y" * 50_000)
"""
    subprocess.run([sys.executable, "-c", script, str(directory)], check=True, cwd=ROOT)
    assert (directory / "clean.json").exists()
    assert fetch(opened(), "x") == "y" * 50_000


def _truncate(data: Path) -> None:
    os.truncate(data, data.stat().st_size // 2)


def _overwrite(data: Path) -> None:
    with data.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * (data.stat().st_size - 2 * 4096))


@pytest.mark.parametrize("damage", [_truncate, _overwrite])
@pytest.mark.parametrize("index", ["meta", "small"])
@pytest.mark.parametrize("locks", [True, False])
def test_a_reader_refuses_a_damaged_index(
    opened: Open, directory: Path, damage: Callable[[Path], None], index: str, locks: bool
) -> None:
    """LMDB would kill the process; who may not write can't put the file aside, so the error says who can."""
    filled(opened)
    damage(directory / f"{index}.lmdb" / "data.mdb")
    if not locks:
        shutil.rmtree(directory / "locks")
    before = contents(directory)
    with pytest.raises(WarehouseError, match=f"{index}.lmdb' is damaged") as caught:
        opened(read_only=True)
    assert "Warehouse(directory)" in caught.value.hint and contents(directory) == before
    opened().close()
    if index == "meta":
        expect(opened(read_only=True))


@pytest.mark.parametrize("missing", ["clean.json", "locks", "staging", "quarantine", "backup", "claims"])
def test_a_reader_needs_the_data_only(opened: Open, directory: Path, missing: str) -> None:
    filled(opened)
    gone = directory / missing
    gone.unlink() if gone.is_file() else shutil.rmtree(gone)
    reading = opened(read_only=True)
    expect(reading)
    assert not reading._session.others_may_store() and reading.check() == [] and reading.keeper.du().total > 0
    assert not gone.exists()


_WRITER = """
import sys
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import send
with Warehouse(sys.argv[1]) as warehouse:
    for number in sys.stdin:
        send(warehouse, f"w{number.strip()}", number * 20_000)
        warehouse.sync()
        print("done", flush=True)
"""


def test_a_reader_beside_a_writer(opened: Open, directory: Path) -> None:
    filled(opened)
    command = [sys.executable, "-c", _WRITER, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        reading = None
        for number in range(3):
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "done\n"
            reading = reading or opened(read_only=True)
            reading.refresh()
            assert fetch(reading, f"w{number}") == f"{number}\n" * 20_000 and reading._session.others_may_store()
        assert reading is not None
        expect(reading)
        reading.close()
        writer.stdin.close()
        assert writer.wait() == 0
    assert (directory / "clean.json").exists()

"""The facade: what is stored and committed is found again, by this session and by the next."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplantx import Ingredient, specs
from pyplantx.core.trace import ObjectRef
from pyplantx.errors import BadRequest, CannotStore, PayloadMissing, StoreReadOnly, UntrustedStore, WarehouseError
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse import tables
from pyplantx.warehouse.environments import Environments
from pyplantx.warehouse.records import HistoryEntry
from pyplantx.warehouse.warehouse import Commit, VersionInfo, Warehouse
from tests.warehouse.stores import fetch, send

Open = Callable[..., Warehouse]
VALUES: list[Any] = [None, 0, -1.5, "text", b"bytes", [1, [2]], {"a": (1, 2)}]
VALUES += ["x" * 500, "y" * 50_000, b"z" * 3_000_000]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{len(repr(value))}")
@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_value_comes_back_now_and_later(opened: Open, value: Any, durability: str) -> None:
    warehouse = opened(durability=durability)
    ref = send(warehouse, "x", value)
    assert fetch(warehouse, "x") == value and warehouse.has(ref)
    warehouse.sync()
    assert fetch(warehouse, "x") == value and warehouse.has(ref)
    warehouse.close()
    assert fetch(opened(), "x") == value


@pytest.mark.parametrize("count", [10, 1_000, 20_000, 300_000])
def test_arrays_of_every_home_come_back_and_are_private(opened: Open, count: int) -> None:
    array = np.arange(float(count))
    warehouse = opened()
    send(warehouse, "x", array)
    received = fetch(warehouse, "x")
    received += 1
    for again in _now_and_later(warehouse, opened):
        found = fetch(again, "x")
        assert found.dtype == array.dtype and np.array_equal(found, array)


def _reopened(warehouse: Warehouse, opened: Open) -> Warehouse:
    warehouse.close()
    return opened()


def _now_and_later(warehouse: Warehouse, opened: Open) -> Iterator[Warehouse]:
    """The warehouse itself, then the same store in another session."""
    yield warehouse
    yield _reopened(warehouse, opened)


def test_what_is_sealed_can_be_opened_before_it_is_committed(warehouse: Warehouse) -> None:
    for value in VALUES:
        assert warehouse.open(warehouse.store("x", value)) == value
    assert warehouse.last_ref("x") is None


def test_tiny_values_need_no_record(warehouse: Warehouse) -> None:
    ref = send(warehouse, "x", 12)
    assert ref.inline is not None and warehouse.has(ref)
    warehouse.sync()
    assert list(warehouse._reader.scan("objects")) == []


@pytest.mark.parametrize("value", [[1, 2], (), {}, object(), np.float64(3), np.ma.masked, type("S", (str,), {})("x")])
def test_what_is_not_simple_is_refused_as_such(warehouse: Warehouse, value: Any) -> None:
    """A short list was stored, and could not be opened; others ended in an error of Python's own."""
    with pytest.raises(CannotStore, match="not a simple value"):
        warehouse.store("x", value, Ingredient.Type.simple)


def test_equal_content_is_kept_once(warehouse: Warehouse) -> None:
    refs = {send(warehouse, name, b"z" * 2_000_000).address for name in "abc"}
    warehouse.sync()
    assert len(refs) == 1
    assert list(warehouse._session.objects.addresses()) == list(refs)


def test_a_name_has_its_last_version_and_its_senders(opened: Open) -> None:
    warehouse = opened()
    for round in range(20):
        send(warehouse, "x", round, reactor=f"mod.r{round % 18}")
    expected = [(f"mod.r{i}", hash_text(f"mod.r{i} x")) for i in [1, 0, *range(17, 3, -1)]]
    for again in _now_and_later(warehouse, opened):
        assert again.producers("x") == expected
        assert fetch(again, "x") == 19
    assert again.producers("never sent") == [] and again.last_ref("never sent") is None


NAMES = ["../x", "/abs", "CON", "a\0b", "line\nbreak", "", ".", "A", "a", " a", "\u00e9", "e\u0301", "\ud800"]
NAMES += ["n" * 1_000_000]


def test_names_are_any_text_and_all_distinct(opened: Open, directory: Path) -> None:
    warehouse = opened()
    for i, name in enumerate(NAMES):
        send(warehouse, name, i, reactor=name)
    again = _reopened(warehouse, opened)
    assert [fetch(again, name) for name in NAMES] == list(range(len(NAMES)))
    assert sorted(again.names()) == sorted(NAMES)
    assert os.listdir(directory.parent) == [directory.name]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.dictionaries(st.text(st.characters(codec=None, exclude_categories=())), st.integers(), max_size=8))
def test_names_before_and_after_they_are_durable(warehouse: Warehouse, entries: dict[str, int]) -> None:
    for flush in (lambda: None, warehouse.sync):
        for name, value in entries.items():
            send(warehouse, name, value)
        flush()
        assert {name: fetch(warehouse, name) for name in entries} == entries
        assert set(entries) <= set(warehouse.names())


def test_trace_records_code_and_blobs(opened: Open) -> None:
    warehouse = opened()
    key = hash_text("node")
    assert warehouse.find_record(key) is warehouse.get_code(key) is warehouse.blob_get("kind", "key") is None
    warehouse.commit(Commit("r", hash_text("root"), [(key, "trace \ud800 ü")], []))
    warehouse.put_code(key, "code record")
    warehouse.blob_put("kind", "key", "a blob")
    warehouse.blob_put("kin", "dkey", "another")
    for again in _now_and_later(warehouse, opened):
        assert again.find_record(key) == "trace \ud800 ü"
        assert again.get_code(key) == "code record"
        assert (again.blob_get("kind", "key"), again.blob_get("kin", "dkey")) == ("a blob", "another")


def test_versions_are_noted_once_newest_first(opened: Open) -> None:
    warehouse, calls = opened(), []

    def commit(number: int) -> None:
        root = hash_text(str(number))
        warehouse.commit(Commit("mod.r", root, parts=lambda: calls.append(number) or {"function r": root}))

    for number in [*range(40), 39, 39]:
        commit(number)
    expected = [(hash_text(str(i)), {"function r": hash_text(str(i))}) for i in range(39, 7, -1)]
    for again in _now_and_later(warehouse, opened):
        assert [(version.root, version.parts) for version in again.versions("mod.r")] == expected
        assert all(isinstance(version, VersionInfo) for version in again.versions("mod.r"))
    warehouse = again
    commit(39)
    commit(40)
    warehouse.sync()
    assert calls == [*range(40), 40]
    assert [version.root for version in warehouse.versions("mod.r")][:2] == [hash_text("40"), hash_text("39")]
    assert len(list(warehouse._reader.scan("parts"))) == 31
    assert warehouse.versions("other") == []


def test_a_version_that_is_used_again_is_the_newest_one(opened: Open) -> None:
    warehouse = opened()

    def parts(number: int) -> dict[str, str]:
        return {"function r": hash_text(str(number))}

    def roots() -> list[str]:
        return [version.root for version in warehouse.versions("mod.r")]

    a, b = hash_text("1"), hash_text("2")
    for synced in (False, True):
        for number in (1, 2):
            warehouse.commit(Commit("mod.r", hash_text(str(number)), parts=partial(parts, number)))
            if synced:
                warehouse.sync()
        assert roots() == [b, a]
        warehouse.renew_version("mod.r", a, partial(parts, 1))
        assert roots() == [a, b]
        warehouse.sync()
        assert roots() == [a, b]
    warehouse.renew_version("mod.r", a, lambda: pytest.fail("it is the newest one"))
    assert [version.parts for version in warehouse.versions("mod.r")] == [parts(1), parts(2)]
    assert len(list(warehouse._reader.scan("parts"))) == 1


def _entry(number: int) -> HistoryEntry:
    return HistoryEntry("r", "mod.r", "ran", "never run before", number + 0.5, 0.25)


@pytest.mark.parametrize("together", [1, 7])
def test_history_forgets_the_oldest_runs(opened: Open, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(tables, "HISTORY", 20)
    warehouse = opened()
    for number in range(1, 71):
        warehouse.commit(Commit("r", "0" * 32, entry=_entry(number)))
        if number % together == 0:
            warehouse.sync()
    kept = 20 if together == 1 else 21  # a commit goes as a whole
    assert warehouse.history() == [_entry(number)._asdict() for number in range(71 - kept, 71)]


def test_a_long_history_of_before_gets_shorter_with_each_commit(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = opened()
    for number in range(60):
        warehouse.commit(Commit("r", "0" * 32, entry=_entry(number)))
        warehouse.sync()
    monkeypatch.setattr(tables, "HISTORY", 20)
    lengths = []
    for number in range(60, 64):
        warehouse.commit(Commit("r", "0" * 32, entry=_entry(number)))
        lengths.append(len(warehouse.history()))
    assert lengths == [44, 28, 20, 20] and warehouse.history()[-1] == _entry(63)._asdict()


def test_history_is_in_order_newest_last(opened: Open) -> None:
    warehouse = opened()
    for number in range(10):
        warehouse.commit(Commit("r", "0" * 32, entry=_entry(number)))
        if number % 3 == 0:
            warehouse.sync()
    assert warehouse.history() == [_entry(number)._asdict() for number in range(10)]
    assert _reopened(warehouse, opened).history(2) == [_entry(8)._asdict(), _entry(9)._asdict()]


@pytest.mark.parametrize(("size", "is_ordered"), [(20_000, True), (2_000_000, False)], ids=["records", "files"])
def test_callbacks_come_after_durability_in_order(opened: Open, size: int, is_ordered: bool) -> None:
    """Files are synced by two threads, the plant's and the background one: what is durable first is told first."""
    warehouse = opened()
    said: list[int] = []
    for number in range(5):
        ref = warehouse.store("x", bytes([number]) * size)
        commit = Commit("r", hash_text("r"), [], [(f"x{number}", ref)])
        warehouse.commit(commit, lambda number=number: said.append(number))
    warehouse.sync()
    for tell in warehouse.announcements():
        tell()
    assert (said if is_ordered else sorted(said)) == [0, 1, 2, 3, 4]
    assert warehouse.announcements() == []


def test_nothing_is_announced_while_its_files_are_not_synced(warehouse: Warehouse, monkeypatch: Any) -> None:
    may_sync, real = threading.Event(), warehouse._session.objects.sync
    monkeypatch.setattr(warehouse._session.objects, "sync", lambda *object: may_sync.wait(30) and real(*object))
    send(warehouse, "large", b"x" * 2_000_000)
    send(warehouse, "small", 1)
    warehouse._committer.flush(1.0)
    reader = warehouse._session.index.new_reader()
    keys = {json.loads(body)[0] for _, body in reader.scan("names")}
    assert keys == {"small"}  # the other one waits
    assert fetch(warehouse, "large") == b"x" * 2_000_000  # but can be used
    may_sync.set()
    warehouse.sync()
    reader.refresh()
    assert {json.loads(body)[0] for _, body in reader.scan("names")} == {"small", "large"}


def test_a_failed_sync_voids_the_object_and_is_told(warehouse: Warehouse, monkeypatch: Any, caplog: Any) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error", "data")

    with monkeypatch.context() as patch:
        patch.setattr(warehouse._session.objects, "sync", fail)
        ref = send(warehouse, "x", b"x" * 2_000_000)
        with pytest.raises(WarehouseError, match="durable"):
            warehouse.sync()
    assert not warehouse.has(ref) and warehouse.last_ref("x") is None
    assert warehouse.announcements() == []
    send(warehouse, "x", b"x" * 2_000_000)
    warehouse.sync()
    assert fetch(warehouse, "x") == b"x" * 2_000_000


def harm(warehouse: Warehouse, ref: Any) -> None:
    for path in Path(warehouse._session.layout.object_folder(ref.address)).iterdir():
        path.chmod(0o600)
        path.write_bytes(b"?" * path.stat().st_size)


def test_damage_that_is_found_before_the_sync_is_no_failed_disk(warehouse: Warehouse, monkeypatch: Any) -> None:
    """What was found damaged is put aside, so its sync finds nothing there."""
    may_sync, real = threading.Event(), warehouse._session.objects.sync
    monkeypatch.setattr(warehouse._session.objects, "sync", lambda *object: may_sync.wait(30) and real(*object))
    quarantine = warehouse._session.objects.quarantine

    def is_synced_then(address: str) -> None:
        quarantine(address)
        may_sync.set()
        with warehouse._committer._synced:
            assert warehouse._committer._synced.wait_for(lambda: not warehouse._committer._unsynced, timeout=30)

    monkeypatch.setattr(warehouse._session.objects, "quarantine", is_synced_then)
    told: list[str] = []
    ref = warehouse.store("x", b"x" * 2_000_000)
    warehouse.commit(Commit("r", hash_text("r"), [(hash_text("r"), "{}")], [("x", ref)]), lambda: told.append("r"))
    harm(warehouse, ref)
    with pytest.raises(PayloadMissing):
        warehouse.open(ref)
    monkeypatch.undo()
    warehouse.sync()
    assert len(warehouse.announcements()) == 1 and warehouse.find_record(hash_text("r")) == "{}"
    assert not warehouse.has(ref)
    send(warehouse, "x", b"x" * 2_000_000)
    warehouse.sync()
    assert fetch(warehouse, "x") == b"x" * 2_000_000


def test_a_sync_that_fails_after_its_object_was_forgotten_says_nothing_of_the_next_one(
    warehouse: Warehouse, monkeypatch: Any
) -> None:
    committer, real = warehouse._committer, warehouse._session.objects.sync
    begun, may_fail = threading.Event(), threading.Event()

    def sync(*object: Any) -> None:
        if not begun.is_set():
            begun.set()
            assert may_fail.wait(30)
            raise OSError(5, "Input/output error", "data")
        real(*object)

    monkeypatch.setattr(warehouse._session.objects, "sync", sync)
    ref = send(warehouse, "x", b"x" * 2_000_000)
    assert begun.wait(30)
    warehouse._session.objects.quarantine(ref.address)
    committer.forget_object(ref.address)
    send(warehouse, "x", b"x" * 2_000_000)
    may_fail.set()
    warehouse.sync()
    assert fetch(warehouse, "x") == b"x" * 2_000_000


@pytest.mark.parametrize("size", [5_000, 50_000, 2_000_000])
def test_what_is_forgotten_and_stored_again_before_a_flush_is_kept(opened: Open, monkeypatch: Any, size: int) -> None:
    warehouse = opened()
    with monkeypatch.context() as patch:
        patch.setattr(warehouse._committer, "_start_ticker", lambda: None)
        ref = send(warehouse, "x", b"x" * size)
        warehouse._session.objects.quarantine(ref.address)
        warehouse._committer.forget_object(ref.address)
        again = warehouse.store("x", b"x" * size)
        warehouse.sync()
        warehouse.commit(Commit("again", hash_text("again"), [], [("y", again)]))
    warehouse.close()
    assert fetch(opened(), "y") == b"x" * size


def test_what_could_not_be_synced_before_its_sender_has_ended_is_not_committed(
    warehouse: Warehouse, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error", "data")

    committer = warehouse._committer
    with monkeypatch.context() as patch:
        patch.setattr(warehouse._session.objects, "sync", fail)
        ref = warehouse.store("x", b"x" * 2_000_000)
        with committer._synced:
            assert committer._synced.wait_for(lambda: not committer._unsynced, timeout=60)
        told: list[str] = []
        commit = Commit("mod.r", hash_text("r"), [(hash_text("r"), "{}")], [("x", ref)])
        warehouse.commit(commit, lambda: told.append("finished"))
        with pytest.raises(WarehouseError, match="durable"):
            warehouse.sync()
    assert warehouse.find_record(hash_text("r")) is None and warehouse.last_ref("x") is None
    assert warehouse.announcements() == []
    send(warehouse, "x", b"x" * 2_000_000)
    warehouse.sync()
    assert fetch(warehouse, "x") == b"x" * 2_000_000


def test_errors_name_the_ingredient_and_leave_nothing(warehouse: Warehouse, directory: Path) -> None:
    with pytest.raises(CannotStore, match="ingredient 'my lock'"):
        warehouse.store("my lock", [threading.Lock()])
    assert [path for path in (directory / "staging").rglob("*") if path.is_file() and path.suffix != ".lease"] == []


def test_allocating_sealing_and_discarding(warehouse: Warehouse, directory: Path) -> None:
    allocation = warehouse.allocate("a", specs.ArraySpec, shape=(500, 1000), dtype="f8")
    allocation.handle[:] = 3.0
    ref = allocation.seal()
    assert warehouse.open(ref).sum() == 1_500_000.0
    scratch = warehouse.allocate_temp("t", specs.ArraySpec, shape=(500, 1000), dtype="f8")
    scratch.handle[:] = 1
    assert len(list((directory / "staging").glob("*/*"))) == 1
    scratch.discard()
    assert list((directory / "staging").glob("*/*")) == []


def test_a_missing_payload_is_said_to_be_missing(warehouse: Warehouse) -> None:
    ref = send(warehouse, "x", b"x" * 2_000_000)
    warehouse.sync()
    warehouse._session.objects.remove(ref.address)
    assert not warehouse.has(ref)
    with pytest.raises(PayloadMissing):
        warehouse.open(ref)
    nowhere = ObjectRef("simple", 1, "d", "0" * 32, 5)
    assert not warehouse.has(nowhere)
    with pytest.raises(PayloadMissing):
        warehouse.open(nowhere)
    send(warehouse, "x", b"x" * 2_000_000)
    assert fetch(warehouse, "x") == b"x" * 2_000_000


def test_modes_are_private_whatever_the_umask(opened: Open, directory: Path) -> None:
    before = os.umask(0)
    try:
        warehouse = opened()
        for value in VALUES:
            send(warehouse, repr(value)[:20], value)
        send(warehouse, "a", np.zeros(300_000))
        warehouse.close()
    finally:
        os.umask(before)
    for path in [directory, *directory.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode in ((0o700,) if path.is_dir() else (0o600, 0o400)), path
    assert {stat.S_IMODE(path.stat().st_mode) for path in (directory / "objects").glob("*/*/*")} == {0o400}


def test_code_is_decoded_only_from_a_private_store(opened: Open, directory: Path) -> None:
    warehouse = opened()
    send(warehouse, "object", {"a": (1, 2)})
    send(warehouse, "plain", 1)
    warehouse.close()
    careful = opened(trust="data")
    ref = careful.last_ref("object")
    assert ref is not None and not careful.trusts(ref)
    with pytest.raises(UntrustedStore, match="trust='data'"):
        careful.open(ref)
    assert fetch(careful, "plain") == 1
    careful.close()
    directory.chmod(0o770)
    with pytest.raises(UntrustedStore, match="others may write"):
        opened().open(ref)
    directory.chmod(0o700)
    again = Warehouse(directory)
    assert again.trusts(ref) and again.open(ref) == {"a": (1, 2)}
    again.close()


def test_a_read_only_warehouse_writes_nothing(opened: Open, directory: Path) -> None:
    warehouse = opened()
    send(warehouse, "x", b"x" * 2_000_000)
    warehouse.close()
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock.mdb"}
    reading = opened(read_only=True)
    assert fetch(reading, "x") == b"x" * 2_000_000
    assert reading.check() == [] and len(reading.history()) == 0
    ref = reading.last_ref("x")
    assert ref is not None and reading.has(ref) and reading.trusts(ref) and "bytes" in reading.preview(ref)
    assert list(reading.names()) == ["x"] and reading.producers("x") == [("mod.r", root := hash_text("mod.r x"))]
    assert [version.root for version in reading.versions("mod.r")] == [root] and reading.find_record(root) is not None
    assert reading.blob_get("a", "b") is None and reading.keeper.du().total > 2_000_000
    assert not reading._session.others_may_store()
    reading.begin_activity()
    reading.maybe_flush()
    reading.sync()
    reading.end_activity()
    for write in (
        lambda: reading.store("y", 1),
        lambda: reading.commit(Commit("r", "0" * 32)),
        lambda: reading.allocate("y", "array", shape=(1,)),
        lambda: reading.allocate_temp("y", "array", shape=(1,)),
        lambda: reading.backup(),
        lambda: reading.new_claim("work"),
    ):
        with pytest.raises(StoreReadOnly):
            write()
    reading.put_code(hash_text("raw"), "not kept, and no error: the fingerprinter must go on")
    reading.blob_put("a", "b", "neither")
    assert reading.blob_get("a", "b") is None
    reading.close()
    assert before == {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.name != "lock.mdb"}


def test_two_warehouses_of_one_process_share_a_directory(opened: Open) -> None:
    first, second = opened(), opened()
    send(first, "x", 1)
    assert fetch(second, "x") == 1
    first.close()
    send(second, "y", "y" * 50_000)
    second.sync()
    assert fetch(second, "y") == "y" * 50_000
    with pytest.raises(WarehouseError, match="durability"):
        opened(durability="process")
    second.close()
    second.close()
    with pytest.raises(WarehouseError, match="closed"):
        second.store("x", 1)


def test_threads_store_and_fetch(warehouse: Warehouse) -> None:
    def work(number: int) -> None:
        for i in range(20):
            value = f"{number}-{i}" * 5_000
            send(warehouse, f"{number}-{i}", value, reactor=f"r{number}")
            warehouse.maybe_flush()
            assert fetch(warehouse, f"{number}-{i}") == value

    failures: list[BaseException] = []
    threads = [threading.Thread(target=lambda n=n: _keep_failure(lambda: work(n), failures)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    warehouse.sync()
    assert len(list(warehouse.names())) == 120


def _keep_failure(work: Callable[[], None], failures: list[BaseException]) -> None:
    try:
        work()
    except BaseException as error:
        failures.append(error)


def test_the_view_of_an_activity_is_renewed_after_own_commits(opened: Open) -> None:
    warehouse = opened()
    warehouse.begin_activity()
    assert warehouse.last_ref("x") is None
    send(warehouse, "x", 5)
    warehouse.sync()
    assert fetch(warehouse, "x") == 5
    warehouse.end_activity()


def test_what_the_background_thread_writes_while_a_view_is_begun_is_found(opened: Open, monkeypatch: Any) -> None:
    """What is written does not wait any more, and the view shows what was there before."""
    warehouse = opened()
    warehouse.begin_activity()
    send(warehouse, "x", 5)
    begin = Environments.begin_read

    def overtaken(environments: Environments, env: Any, **how: Any) -> Any:
        txn = begin(environments, env, **how)
        ticker = threading.Thread(target=warehouse.sync)
        ticker.start()
        ticker.join()
        return txn

    monkeypatch.setattr(Environments, "begin_read", overtaken)
    warehouse._reader.refresh()
    assert warehouse.last_ref("y") is None
    monkeypatch.undo()
    assert fetch(warehouse, "x") == 5
    warehouse.end_activity()


def test_the_map_grows_with_the_index(opened: Open, monkeypatch: Any) -> None:
    import pyplantx.warehouse.environments as environments

    monkeypatch.setattr(environments, "FIRST_MAP", 64 * 4096)
    warehouse = opened()
    warehouse.begin_activity()
    for number in range(40):
        send(warehouse, f"x{number}", str(number) * 20_000)
        send(warehouse, f"y{number}", str(number) * 2_000)
        warehouse.sync()
        assert fetch(warehouse, "x0") == "0" * 20_000
    warehouse.end_activity()
    assert all(fetch(warehouse, f"x{number}") == str(number) * 20_000 for number in range(40))


def test_wrong_options_are_refused_in_words(directory: Path) -> None:
    """With the words that there are, and with the one that was probably meant."""
    wrong = {"durability": "proces", "trust": "singed", "arrays": "read-only", "verify": "lasy"}
    meant = {"durability": "process", "trust": "signed", "arrays": "readonly", "verify": "lazy"}
    for option, word in wrong.items():
        with pytest.raises(BadRequest, match=f"{option}='{word}' is not possible") as caught:
            Warehouse(directory, **{option: word})  # type: ignore[arg-type]
        assert caught.value.hint.startswith(f"did you mean {meant[option]!r}? '")
        assert caught.value.hint.endswith(" are possible")
    assert not directory.exists()


@pytest.mark.parametrize("options", [{"durability": None}, {"trust": 1}, {"trust": "signed", "verify": "off"}])
def test_options_that_are_like_no_word_or_exclude_each_other(directory: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        Warehouse(directory, **options)
    assert caught.value.hint and "did you mean" not in caught.value.hint
    assert not directory.exists()


def test_an_error_is_told_though_nobody_can_tell_how_much_was_written(directory: Path, monkeypatch: Any) -> None:
    """No descriptor was left: neither to allocate, nor to look what had been written."""

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def allocate(self: object, stage: Any, **options: Any) -> None:
        stage.path("data.npy")
        fail()

    with Warehouse(directory) as warehouse, monkeypatch.context() as patch:
        patch.setattr(specs.ArraySpec, "allocate", allocate)
        patch.setattr(os, "scandir", fail)
        with pytest.raises(WarehouseError, match="'x' can't be allocated"):
            warehouse.allocate("x", specs.ArraySpec, shape=(3,))


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    with Warehouse("~/store", index="~/index") as warehouse:
        assert warehouse.directory == str(home / "store")
    assert sorted(os.listdir(home)) == ["index", "store"]
    assert os.listdir(here) == []


@pytest.mark.parametrize("options", [{}, {"index": "~nobody-of-this-name/x"}], ids=["store", "index"])
def test_a_home_that_nobody_knows_is_no_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="'~nobody-of-this-name', and this machine knows no home") as caught:
        Warehouse("store" if options else "~nobody-of-this-name/x", **options)
    assert "'./~nobody-of-this-name/x'" in caught.value.hint and not list(tmp_path.iterdir())
    Warehouse("./~nobody-of-this-name/x").close()

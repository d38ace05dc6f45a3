"""Checking, collecting, measuring."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx.errors import PayloadMissing, StoreBusy, WarehouseError
from pyplantx.warehouse import collect
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults.children import in_child
from tests.warehouse.stores import ROOT, fetch, send

Open = Callable[..., Warehouse]
SIZES = (5_000, 50_000, 1_500_000)


def collect_former(warehouse: Warehouse) -> Any:
    return warehouse.keeper.gc(None, 1, None, False)


def test_collecting_removes_what_no_name_needs(warehouse: Warehouse) -> None:
    for round in range(3):
        for size in SIZES:
            send(warehouse, f"x{size}", f"{round}" * size)
    before = warehouse.keeper.du().places["files"]
    assert collect_former(warehouse).freed == 2 * sum(size + 2 for size in SIZES)  # quotes around the JSON text
    assert warehouse.keeper.du().places["files"] < before / 2
    assert all(fetch(warehouse, f"x{size}") == "2" * size for size in SIZES)
    assert warehouse.check() == []
    assert collect_former(warehouse).freed == 0


def test_a_memory_map_survives_collection(warehouse: Warehouse) -> None:
    ref = send(warehouse, "x", np.arange(300_000.0))
    array = warehouse.open(ref)
    send(warehouse, "x", 1)
    assert collect_former(warehouse).freed > 0
    with pytest.raises(PayloadMissing):
        warehouse.open(ref)
    assert array.sum() == np.arange(300_000.0).sum()


def test_nothing_is_collected_or_swept_while_others_are_here(opened: Open, directory: Path) -> None:
    warehouse = opened()
    for round in range(2):
        send(warehouse, "x", f"{round}" * 1_500_000)
    warehouse.sync()

    def collect() -> None:
        assert collect_former(Warehouse(directory)).hindrance

    assert in_child(collect) == 0


def test_check_finds_each_kind_of_trouble_and_mends_it(opened: Open, directory: Path) -> None:
    warehouse = opened()
    refs = [send(warehouse, f"x{number}", f"{number}" * 1_500_000) for number in range(4)]
    warehouse.store("never committed", "n" * 1_500_000)
    warehouse.store("never committed", "n" * 50_000)
    small = send(warehouse, "small", "s" * 50_000)
    warehouse.close()
    path = directory / "objects" / refs[0].address[:2] / refs[0].address / "value.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (directory / "objects" / refs[1].address[:2] / refs[1].address / "value.json").unlink()
    (directory / "objects" / refs[2].address[:2] / refs[2].address).rename(directory / "moved")
    warehouse = opened()
    assert warehouse._session.index.write(lambda: ({small.address.encode(): b"other"}, None), 1)
    kinds = sorted((problem.kind, problem.harmless) for problem in warehouse.check())
    assert kinds == [("absent", True), ("garbage", True), ("garbage", True), *[("payload", False)] * 3]
    assert {problem.fixed for problem in warehouse.check(fix=True)} == {True}
    assert warehouse.check() == []  # names of what is gone are no problem: it is made again
    assert fetch(warehouse, "x3") == "3" * 1_500_000


@pytest.mark.parametrize("replace", [lambda path: path.write_text("x"), lambda path: path.symlink_to(path.name)])
def test_a_folder_of_objects_that_something_else_replaces(directory, replace):
    """None of its objects can be reached, not even to be put aside."""
    with Warehouse(directory, durability="process") as warehouse:
        ref = send(warehouse, "x", "x" * 1_500_000)
    folder = directory / "objects" / ref.address[:2]
    shutil.rmtree(folder)
    replace(folder)
    with Warehouse(directory, durability="process") as warehouse:
        problems = warehouse.check(fix=True)
        assert problems and all(problem.fixed for problem in problems)
        assert warehouse.check() == []
        send(warehouse, "x", "x" * 1_500_000)
        assert fetch(warehouse, "x") == "x" * 1_500_000


# -- other plants of the same process -------------------------------------------------------------------------------


def in_thread(action: Callable[[], Any]) -> Any:
    """What another thread gets by it, or the error that it meets."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(action())
        except WarehouseError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_what_another_plant_finishes_during_a_check_is_no_garbage(
    opened: Open, monkeypatch: pytest.MonkeyPatch, size: int, fix: bool
) -> None:
    one, other = opened(), opened()
    send(one, "x", "x" * size)
    one.sync()
    look, *others = collect._CHECKS

    def works_meanwhile(*given: Any) -> Iterator[Any]:
        yield from look(*given)
        send(other, "y", "y" * size)
        other.sync()

    monkeypatch.setattr(collect, "_CHECKS", (works_meanwhile, *others))
    assert one.check(fix=fix) == []
    assert fetch(other, "y") == "y" * size


def test_what_another_plant_has_mended_during_a_check_is_not_put_aside(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = opened(), opened()
    ref = send(one, "x", "x" * 1_500_000)
    one.sync()
    path = directory / "objects" / ref.address[:2] / ref.address / "value.json"
    path.chmod(0o600)
    path.write_bytes(b"?" * path.stat().st_size)
    look, *others = collect._CHECKS

    def works_meanwhile(*given: Any) -> Iterator[Any]:
        found = list(look(*given))
        assert [finding.problem.kind for finding in found] == ["payload"]
        send(other, "x", "x" * 1_500_000)
        other.sync()
        yield from found

    monkeypatch.setattr(collect, "_CHECKS", (works_meanwhile, *others))
    assert one.check(fix=True) == []
    assert fetch(other, "x") == "x" * 1_500_000


def test_while_something_is_removed_nobody_begins(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = opened(lock_timeout=0.1), opened()
    ref = send(one, "x", "x" * 1_500_000)
    one.sync()
    remove, met = collect._remove, []

    def meets_others(*given: Any) -> None:
        met.append(in_thread(other.begin_activity))
        met.append(in_thread(lambda: other.store("y", "y" * 5_000)))
        remove(*given)

    monkeypatch.setattr(collect, "_remove", meets_others)
    assert one.keeper.gc(0, None, None, False).hindrance == ""
    assert [type(error) for error in met] == [StoreBusy] * 2 and "another thread" in str(met[0])
    assert not one.has(ref)
    assert in_thread(other.begin_activity) is None
    assert "another plant" in one.keeper.gc(0, None, None, False).hindrance
    other.end_activity()


def test_who_removes_waits_for_what_is_being_stored(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = opened(lock_timeout=0.1), opened()
    publish, met = one._session.objects.publish, []

    def meets_others(*given: Any) -> None:
        publish(*given)
        met.append(in_thread(lambda: one.check(fix=True)))

    monkeypatch.setattr(one._session.objects, "publish", meets_others)
    send(other, "y", "y" * 1_500_000)
    assert [type(error) for error in met] == [StoreBusy]
    assert one.check(fix=True) == [] and fetch(other, "y") == "y" * 1_500_000


# -- other processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fix", [True, False])
def test_others_may_open_the_store_while_it_is_checked(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch, fix: bool
) -> None:
    warehouse = opened()
    send(warehouse, "x", "x" * 1_500_000)
    trouble, code = collect._trouble, "import sys; from pyplantx.warehouse.warehouse import Warehouse as W; "
    command = [sys.executable, "-c", code + "W(sys.argv[1], lock_timeout=0.2).close()", str(directory)]

    def meets_others(*given: Any, **options: Any) -> str | None:
        subprocess.run(command, check=True, cwd=ROOT)
        return trouble(*given, **options)

    monkeypatch.setattr(collect, "_trouble", meets_others)
    assert warehouse.check(fix=fix) == []


STORE = """
import sys
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.warehouse import Commit, Warehouse

with Warehouse(sys.argv[1]) as warehouse:
    sent = [(f"y{size}", warehouse.store("y", "y" * size)) for size in (50_000, 1_500_000)]
    warehouse.sync()
    print("stored", flush=True)
    sys.stdin.readline()
    warehouse.commit(Commit("r", hash_text("r"), [], sent))
"""


@pytest.mark.parametrize("how", ["names it", "is killed"])
def test_what_another_process_is_still_to_name_is_no_garbage(opened: Open, directory: Path, how: str) -> None:
    warehouse = opened()
    command = [sys.executable, "-c", STORE, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None and other.stdout.readline() == "stored\n"
        assert warehouse.check() == [] and warehouse.check(fix=True) == []
        if how == "is killed":
            other.send_signal(signal.SIGKILL)
        else:
            other.communicate("now\n")
    found = [problem.kind for problem in warehouse.check()]
    assert found == (["garbage"] * 2 if how == "is killed" else [])
    assert [problem.fixed for problem in warehouse.check(fix=True)] == [True] * len(found)
    assert warehouse.check() == []
    assert how == "is killed" or fetch(warehouse, "y50000") == "y" * 50_000

"""What goes, in which order, and what stays: the decision, and the store that it is carried out on."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyplantx import specs
from pyplantx.core.trace import ObjectRef, Segment, Sent, encode_segment
from pyplantx.errors import BadRequest, PayloadMissing
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse import roots
from pyplantx.warehouse.collect import survey
from pyplantx.warehouse.objects import Objects
from pyplantx.warehouse.records import HistoryEntry
from pyplantx.warehouse.retention import Limits, Stored, decide, rank_versions, table
from pyplantx.warehouse.roots import Notes
from pyplantx.warehouse.warehouse import Commit, Warehouse
from tests.faults.children import in_child
from tests.warehouse.stores import ROOT, fetch

Open = Callable[..., Warehouse]
MB = 10**6


def make(
    warehouse: Warehouse, name: str, value: Any, seconds: float | None = None, type_given: Any = None
) -> ObjectRef:
    """Store, commit and trace one ingredient as a run of so many seconds leaves it."""
    ref = warehouse.store(name, value, type_given)
    root = hash_text(f"{name} {ref.address}")
    entry = None if seconds is None else HistoryEntry("r", f"mod.{name}", "ran", "", 0.0, seconds)
    text = encode_segment(Segment((Sent(name, ref),)))
    warehouse.commit(Commit(f"mod.{name}", root, [(root, text)], [(name, ref)], entry=entry))
    return ref


def text(size: int, mark: str) -> str:
    return mark * (size - 2)  # quotes around the JSON text


def present(warehouse: Warehouse) -> set[str]:
    """Addresses of all payloads that the index names."""
    warehouse.sync()
    return {item.address for item in survey(warehouse._session, warehouse._reader, notes(warehouse)).stored}


def notes(warehouse: Warehouse) -> Notes:
    return Notes(warehouse._session, warehouse._reader)


def gc(
    warehouse: Warehouse, max_size: Any = None, keep_versions: Any = None, older_than: Any = None, dry: bool = False
):
    return warehouse.keeper.gc(max_size, keep_versions, older_than, dry)


# -- the decision, against a dictionary -------------------------------------------------------------------------------

ITEMS = st.lists(
    st.builds(
        Stored,
        address=st.integers(0, 30).map(lambda number: f"{number:032x}"),
        names=st.just(("x",)),
        version=st.integers(0, 4),
        bytes=st.integers(0, 50),
        seconds=st.none() | st.integers(0, 20).map(float),
        used=st.integers(0, 100).map(float),
    ),
    unique_by=lambda item: item.address,
    max_size=20,
)
LIMITS = st.builds(
    Limits,
    st.none() | st.integers(0, 500),
    st.none() | st.integers(0, 4),
    st.none() | st.integers(0, 100).map(float),
)


def worth(item: Stored) -> float:
    if item.seconds is None:
        return float("inf")
    return item.seconds / item.bytes if item.bytes else item.seconds


def what_stays(items: list[Stored], held: set[str], limits: Limits, now: float) -> set[str]:
    """The rule, spelled out."""
    left = {item.address: item for item in items}
    for item in items:
        old = limits.older_than is not None and now - item.used > limits.older_than
        many = limits.keep_versions is not None and (item.version == 0 or item.version > limits.keep_versions)
        if (old or many) and item.address not in held:
            del left[item.address]
    while limits.max_size is not None and sum(item.bytes for item in left.values()) > limits.max_size:
        free = [item for item in left.values() if item.address not in held]
        if not free:
            break
        del left[min(free, key=lambda item: (worth(item), item.used, item.address)).address]
    return set(left)


@given(ITEMS, st.sets(st.integers(0, 30).map(lambda number: f"{number:032x}")), LIMITS)
def test_the_decision_is_the_rule(items: list[Stored], held: set[str], limits: Limits) -> None:
    gone, kept = decide(items, dict.fromkeys(held, "root"), limits, 100.0)
    assert {verdict.stored.address for verdict in kept} == what_stays(items, held, limits, 100.0)
    assert sorted(verdict.stored for verdict in gone + kept) == sorted(items)
    assert all(verdict.why for verdict in gone + kept)
    by_size = [worth(verdict.stored) for verdict in gone if verdict.why.startswith("over ")]
    spared = [worth(verdict.stored) for verdict in kept if verdict.why == "within the limits"]
    assert by_size == sorted(by_size)
    assert max(by_size, default=0.0) <= min(spared, default=float("inf"))


@given(ITEMS, LIMITS)
def test_nothing_goes_that_no_limit_wants_gone(items: list[Stored], limits: Limits) -> None:
    assert decide(items, {}, Limits(), 100.0)[0] == []
    assert decide(items, {item.address: "root" for item in items}, limits, 100.0)[0] == []
    fits = Limits(max_size=sum(item.bytes for item in items))
    assert decide(items, {}, fits, 100.0)[0] == []


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from("1234"), unique=True)))
def test_versions_are_ranked_by_their_best_place(newest_first: dict[str, list[str]]) -> None:
    ranked = rank_versions(newest_first)
    for address in {address for versions in newest_first.values() for address in versions}:
        names = sorted(name for name, versions in newest_first.items() if address in versions)
        assert ranked[address] == (tuple(names), min(newest_first[name].index(address) + 1 for name in names))


# -- the store, against a dictionary ----------------------------------------------------------------------------------


class Model(RuleBasedStateMachine):
    """Ingredients come, scripts run and end, people pin and collect; a dictionary says what must be there."""

    sizes = st.sampled_from((5_000, 6_000, 40_000, 1_100_000))
    names = st.sampled_from(("a", "b", "c"))

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.stored: dict[str, tuple[int, float]] = {}  # address -> bytes, seconds
        self.order: list[str] = []  # addresses, oldest first
        self.sent: dict[str, set[str]] = {}  # name -> addresses
        self.refs: dict[str, ObjectRef] = {}  # name -> its last version
        self.pins: dict[str, set[str]] = {}
        self.reached: dict[str, set[str]] = {}
        self.mine: set[str] = set()
        self.script = "one.py"
        self.warehouse = Warehouse(self.folder, durability="process")

    def teardown(self) -> None:
        if hasattr(self, "warehouse"):
            self.close()
            shutil.rmtree(self.folder)

    def close(self) -> None:
        self.warehouse._session.script = self.script
        self.warehouse.close()
        if self.mine:
            self.reached[self.script] = self.mine

    @rule(name=names, size=sizes, mark=st.sampled_from("xyz"), seconds=st.sampled_from((0.5, 3.0, 20.0)))
    def send(self, name: str, size: int, mark: str, seconds: float) -> None:
        ref = make(self.warehouse, name, text(size, mark), seconds)
        if ref.address not in self.stored:
            self.stored[ref.address] = size, seconds
            self.order = [*(old for old in self.order if old != ref.address), ref.address]
        self.sent.setdefault(name, set()).add(ref.address)
        self.refs[name] = ref

    @rule(name=names)
    def answer(self, name: str) -> None:
        if name in self.refs:
            self.warehouse.note_reached([self.refs[name].address])
            self.mine.add(self.refs[name].address)

    @rule(name=names)
    def pin(self, name: str) -> None:
        if name in self.refs and self.warehouse.has(self.refs[name]):
            self.warehouse.keeper.pin(name, self.refs[name].address, stored=True)
            self.pins.setdefault(name, set()).add(self.refs[name].address)

    @rule(name=names)
    def unpin(self, name: str) -> None:
        assert self.warehouse.keeper.unpin(name) == bool(self.pins.pop(name, None))

    @rule(script=st.sampled_from(("one.py", "two.py")))
    def run_another(self, script: str) -> None:
        self.close()
        self.script, self.mine = script, set()
        self.warehouse = Warehouse(self.folder, durability="process")

    @precondition(lambda self: self.stored)
    @rule(
        max_size=st.none() | st.sampled_from((0, 10_000, 60_000, 1_200_000, 3_000_000)),
        keep_versions=st.none() | st.integers(0, 2),
        dry=st.booleans(),
    )
    def collect(self, max_size: int | None, keep_versions: int | None, dry: bool) -> None:
        limits = Limits(max_size, keep_versions)
        if limits == Limits():
            return
        stays = what_stays(self.listed(), self.held(), limits, 0.0)
        done = gc(self.warehouse, max_size, keep_versions, dry=dry)
        assert {verdict.stored.address for verdict in done.kept} == stays
        assert {verdict.stored.address for verdict in done.gone} == set(self.stored) - stays
        assert done.left == sum(self.stored[address][0] for address in stays)
        assert str(done)
        if not dry:
            self.stored = {address: facts for address, facts in self.stored.items() if address in stays}

    def held(self) -> set[str]:
        return self.mine.union(*self.pins.values(), *self.reached.values())

    def listed(self) -> list[Stored]:
        places: dict[str, int] = {}
        for name, addresses in self.sent.items():
            last = self.refs[name].address
            older = [old for old in reversed(self.order) if old in addresses & set(self.stored) and old != last]
            for place, address in enumerate([last, *older], 1):
                places[address] = min(place, places.get(address, place))
        made = {address: float(number) for number, address in enumerate(self.order)}  # what was reached later is held
        return [
            Stored(address, (), places[address], size, seconds, made[address])
            for address, (size, seconds) in self.stored.items()
        ]

    @invariant()
    def it_is_all_there(self) -> None:
        if not hasattr(self, "warehouse"):
            return
        assert present(self.warehouse) == set(self.stored)
        for name, ref in self.refs.items():
            assert self.warehouse.has(ref) == (ref.address in self.stored), name
        assert self.warehouse.check() == []


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


# -- seconds, versions, roots -----------------------------------------------------------------------------------------


def test_the_cheapest_to_make_again_goes_first(warehouse: Warehouse) -> None:
    dear = make(warehouse, "dear", text(1_500_000, "d"), 100.0)
    cheap = make(warehouse, "cheap", text(1_500_000, "c"), 1.0)
    large = make(warehouse, "large", text(6_000_000, "l"), 3.0)  # the least seconds per byte
    done = gc(warehouse, "7.6 MB")
    assert [str(verdict.stored) for verdict in done.gone] == ["large"]
    assert [str(verdict.stored) for verdict in gc(warehouse, 0).gone] == ["cheap", "dear"]
    assert not any(map(warehouse.has, (dear, cheap, large)))


def test_of_unknown_cost_goes_last(warehouse: Warehouse) -> None:
    make(warehouse, "unknown", text(50_000, "u"))
    make(warehouse, "dear", text(50_000, "d"), 1e6)
    done = gc(warehouse, 0, dry=True)
    assert [str(verdict.stored) for verdict in done.gone] == ["dear", "unknown"]
    assert done.seconds == 1e6 and "and 1 of unknown cost" in str(done)


def test_a_limit_of_versions_counts_from_the_one_that_was_sent_last(warehouse: Warehouse) -> None:
    first, second, third = (make(warehouse, "x", text(50_000, mark), 1.0) for mark in "123")
    make(warehouse, "x", text(50_000, "1"), 1.0)  # an edit was taken back: the oldest one is the last again
    gc(warehouse, keep_versions=2)
    assert [warehouse.has(ref) for ref in (first, second, third)] == [True, False, True]


def test_a_tiny_last_version_takes_its_place_too(warehouse: Warehouse) -> None:
    large = make(warehouse, "x", text(50_000, "1"), 1.0)
    make(warehouse, "x", 1, 1.0)
    assert gc(warehouse, keep_versions=2, dry=True).gone == ()
    gc(warehouse, keep_versions=1)
    assert not warehouse.has(large) and fetch(warehouse, "x") == 1


def test_what_two_names_share_stays_as_long_as_one_of_them_wants_it(warehouse: Warehouse) -> None:
    shared = make(warehouse, "x", text(50_000, "s"), 1.0)
    make(warehouse, "y", text(50_000, "s"), 1.0)
    make(warehouse, "x", text(50_000, "n"), 1.0)
    gc(warehouse, keep_versions=1)
    assert warehouse.has(shared)
    assert {(holding.name, holding.versions) for holding in warehouse.keeper.du().ingredients} == {("x", 2), ("y", 1)}


def test_age_counts_from_the_last_use(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = opened()
    reached, old = (make(warehouse, name, text(50_000, name), 1.0) for name in "ro")
    now = roots.time.time
    monkeypatch.setattr(roots.time, "time", lambda: now() + 5 * 86_400)
    warehouse.note_reached([reached.address])
    warehouse.close()
    monkeypatch.setattr(roots.time, "time", lambda: now() + 6 * 86_400)
    warehouse = opened()
    assert gc(warehouse, older_than="8 days").gone == ()
    [gone] = gc(warehouse, older_than="2 days").gone
    assert gone.stored.address == old.address and gone.why == "not used for 6 days"
    assert warehouse.has(reached)
    monkeypatch.setattr(roots.time, "time", lambda: now() + 9 * 86_400)
    gc(warehouse, older_than="2 days")  # now the script that held it has not run for so long either
    assert not warehouse.has(reached)


def test_pins_hold_and_let_go(opened: Open) -> None:
    warehouse = opened()
    kept = make(warehouse, "x/\n☃", text(50_000, "1"), 1.0)
    warehouse.keeper.pin("x/\n☃", kept.address, stored=True)
    make(warehouse, "x/\n☃", text(50_000, "2"), 1.0)
    warehouse.close()
    warehouse = opened()
    done = gc(warehouse, 0)
    assert [verdict.why for verdict in done.kept] == ["pinned"] and warehouse.has(kept)
    assert "all of it is needed" in str(done) and r"x/\n☃" in str(done)
    [holding] = warehouse.keeper.du().ingredients
    assert holding.pinned and "pinned" in str(warehouse.keeper.du())
    assert warehouse.keeper.unpin("x/\n☃") and not warehouse.keeper.unpin("x/\n☃")
    gc(warehouse, 0)
    assert not warehouse.has(kept)
    with pytest.raises(PayloadMissing, match=r"plant\.produce"):
        warehouse.keeper.pin("x", kept.address, stored=warehouse.has(kept))


def test_only_the_last_run_of_a_script_holds_something(opened: Open) -> None:
    refs = []
    for script, mark in (("one.py", "1"), ("two.py", "2"), ("one.py", "3")):
        warehouse = opened()
        warehouse._session.script = f"/project/{script}"
        refs.append(make(warehouse, "x", text(50_000, mark), 1.0))
        warehouse.note_reached([refs[-1].address])
        warehouse.close()
    warehouse = opened()
    done = gc(warehouse, 0)
    assert {verdict.why for verdict in done.kept} == {"last run of one.py", "last run of two.py"}
    assert [warehouse.has(ref) for ref in refs] == [False, True, True]


def test_a_long_session_is_noted_together_with_the_run_before(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = opened()
    before, now = (make(warehouse, name, text(50_000, name), 1.0) for name in "bn")
    warehouse.note_reached([before.address])
    warehouse.close()
    warehouse = opened()
    monkeypatch.setattr("pyplantx.warehouse.warehouse._NOTED_EVERY", -1.0)
    warehouse.note_reached([now.address])
    [run] = roots.last_runs(notes(warehouse))
    assert run.addresses == {before.address, now.address}
    warehouse.close()
    [run] = roots.last_runs(notes(opened()))
    assert run.addresses == {now.address}


def test_a_run_that_reaches_the_same_writes_nothing(opened: Open) -> None:
    warehouse = opened()
    ref = make(warehouse, "x", text(50_000, "x"), 1.0)
    for _ in range(2):
        warehouse.note_reached([ref.address])
        warehouse.close()
        warehouse = opened()
    warehouse.note_reached([ref.address])
    session = warehouse._session
    warehouse.close()
    assert not session.index.changed


def test_a_store_remembers_a_limited_number_of_scripts(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "MOST_SCRIPTS", 3)
    warehouse.note_reached(["0" * 32])
    for number in range(5):
        warehouse._session.script = f"{number}.py"
        roots.note_reached(warehouse._session, notes(warehouse), over=True)
    assert sorted(run.script for run in roots.last_runs(notes(warehouse))) == ["2.py", "3.py", "4.py"]


# -- others, kills, views ---------------------------------------------------------------------------------------------

HOLD = """
import sys
from pyplantx.warehouse.warehouse import Warehouse
with Warehouse(sys.argv[1], read_only=sys.argv[2] == "reading"):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["writing", "reading"])
def test_while_another_process_is_there_nothing_is_removed_and_the_report_says_so(
    warehouse: Warehouse, directory: Path, how: str
) -> None:
    ref = make(warehouse, "x", text(1_500_000, "x"), 1.0)
    warehouse.sync()
    command = [sys.executable, "-c", HOLD, str(directory), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "open\n"
        done = gc(warehouse, 0)
        assert done.hindrance == f"process {other.pid} has the store open; try again when that has ended"
        assert str(done).startswith(f"nothing was removed: process {other.pid}") and "would remove 1.50 MB" in str(done)
        assert warehouse.has(ref) and warehouse.check() == []
        other.stdin.close()
    assert gc(warehouse, 0).hindrance == "" and not warehouse.has(ref)


def crash_points() -> Iterator[tuple[type, str]]:
    from pyplantx.warehouse.committer import Committer
    from pyplantx.warehouse.index import Index

    yield from ((Committer, "forget_object"), (Committer, "sync"), (Index, "write"), (Objects, "remove"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("owner_and_method", list(crash_points()), ids=lambda pair: pair[1])
def test_a_kill_in_the_middle_leaves_garbage_at_most(
    opened: Open, directory: Path, owner_and_method: tuple[type, str], when: str
) -> None:
    owner, method = owner_and_method
    warehouse = opened()
    for name, size in (("record", 5_000), ("small", 50_000), ("file", 1_500_000), ("file too", 1_500_001)):
        make(warehouse, name, text(size, "x"), 1.0)
    kept = make(warehouse, "kept", text(1_500_000, "k"), 1.0)
    warehouse.keeper.pin("kept", kept.address, stored=True)
    warehouse.close()
    for step in range(1, 4):
        shutil.rmtree(directory.with_name("copy"), ignore_errors=True)
        shutil.copytree(directory, directory.with_name("copy"))
        assert in_child(partial(collect_and_die, directory.with_name("copy"), owner, method, when, step)) in (0, 9)
        with Warehouse(directory.with_name("copy")) as after:
            assert {problem.kind for problem in after.check()} <= {"garbage"}
            assert fetch(after, "kept") == text(1_500_000, "k")
            gc(after, 0)
            assert after.check() == []
            assert present(after) == {kept.address}


def collect_and_die(directory: Path, owner: type, method: str, when: str, step: int) -> None:
    """In a forked child: collect everything; die at the `step`-th call of a method."""
    warehouse = Warehouse(directory)
    original, calls = getattr(owner, method), 0

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step and when == "before":
            os._exit(9)
        result = original(*args, **options)
        if calls == step:
            os._exit(9)
        return result

    setattr(owner, method, dying)
    gc(warehouse, 0)
    os._exit(0)


def test_what_killed_processes_left_goes_too(opened: Open, directory: Path) -> None:
    warehouse = opened()
    warehouse.store("never committed", text(1_500_000, "n"))
    unfinished = directory / "staging" / "resume" / ("1" * 32) / ("2" * 32)
    unfinished.mkdir(parents=True)
    (unfinished / "data").write_bytes(b"x" * 300_000)
    make(warehouse, "x", text(50_000, "x"), 1.0)
    warehouse.close()
    warehouse = opened()
    assert warehouse.keeper.du().places["unfinished work"] >= 300_000
    done = gc(warehouse, keep_versions=1)
    assert done.gone == () and done.garbage == 1_500_000 and unfinished.exists()
    assert "1.50 MB that killed processes had left" in str(done)
    assert gc(warehouse, 0).garbage >= 300_000 and not unfinished.exists()
    assert warehouse.check() == []


def test_views_that_a_user_keeps_stay_valid(warehouse: Warehouse) -> None:
    numbers = np.arange(300_000.0)
    refs = [make(warehouse, "map", numbers, 1.0), make(warehouse, "hdf", numbers, 1.0, specs.HdfArraySpec)]
    array, dataset = map(warehouse.open, refs)
    half = array[150_000:]
    assert len(gc(warehouse, 0).gone) == 2
    for ref in refs:
        with pytest.raises(PayloadMissing):
            warehouse.open(ref)
    make(warehouse, "map", numbers + 1, 1.0)
    make(warehouse, "hdf", numbers + 1, 1.0, specs.HdfArraySpec)
    assert (half == numbers[150_000:]).all() and (array == numbers).all()
    assert (dataset[...] == numbers).all()


def test_what_was_collected_can_be_stored_again(warehouse: Warehouse) -> None:
    for _ in range(2):
        refs = [make(warehouse, f"x{size}", text(size, "x"), 1.0) for size in (5_000, 50_000, 1_500_000)]
        assert all(map(warehouse.has, refs)) and len(fetch(warehouse, "x50000")) == 49_998
        assert len(gc(warehouse, 0).gone) == 3
        assert warehouse.check() == [] and not any(map(warehouse.has, refs))


# -- the budget -------------------------------------------------------------------------------------------------------


def test_a_store_over_its_budget_is_collected_when_it_is_closed(opened: Open) -> None:
    warehouse = opened(disk=4 * MB)
    refs = [make(warehouse, f"x{number}", text(1_500_000, f"{number}"), float(number)) for number in range(4)]
    warehouse.note_reached([refs[0].address])
    assert all(map(warehouse.has, refs))
    warehouse.close()
    warehouse = opened()
    assert [warehouse.has(ref) for ref in refs] == [True, False, False, True]
    assert warehouse.check() == []


def test_a_budget_that_is_set_later_counts_at_the_next_end(opened: Open) -> None:
    warehouse = opened()
    ref = make(warehouse, "x", text(1_500_000, "x"), 1.0)
    warehouse.close()
    opened(disk=MB).close()
    assert not opened().has(ref)


def test_the_log_warns_from_80_percent_on(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    for total, warned in ((1_500_000, False), (3_100_000, True)):
        warehouse = opened(disk=int(3.5 * MB))
        make(warehouse, f"x{total}", text(1_550_000, f"{total}"[0]), 1.0)
        with caplog.at_level(logging.WARNING, "pyplantx"):
            warehouse.close()
        assert ("its budget is 3.50 MB" in caplog.text) is warned
    assert len(present(opened())) == 2


def test_the_log_warns_if_all_of_it_is_needed(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    warehouse = opened(disk=MB)
    ref = make(warehouse, "x", text(1_500_000, "x"), 1.0)
    warehouse.note_reached([ref.address])
    with caplog.at_level(logging.WARNING, "pyplantx"):
        warehouse.close()
    assert "holds 1.50 MB, its budget is 1.00 MB" in caplog.text
    assert opened().has(ref)


def test_trouble_at_the_end_is_told_and_loses_nothing(
    opened: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = opened(disk=MB)
    kept = make(warehouse, "kept", text(50_000, "k"), 100.0)
    make(warehouse, "x", text(1_500_000, "x"), 1.0)

    def failing(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Objects, "remove", failing)
    warehouse.close()
    assert "could not be tidied up" in caplog.text
    monkeypatch.undo()
    warehouse = opened()
    assert warehouse.has(kept) and all(problem.harmless for problem in warehouse.check())


def test_far_from_its_budget_a_store_is_not_measured(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyplantx.warehouse import keeper

    measured = []
    monkeypatch.setattr(keeper, "_measure", lambda reader: measured.append(reader) or 10**6)
    monkeypatch.setattr(keeper, "taken_bytes", lambda folder: 10**12)
    for number in range(3):
        warehouse = opened(disk=100 * MB)
        make(warehouse, "x", text(1_500_000, f"{number}"), 1.0)
        warehouse.close()
    assert len(measured) == 1
    assert int(notes(opened()).get("stored", "")) == 10**6 + 2 * 1_500_000


def test_the_budget_is_a_quarter_of_the_file_system(warehouse: Warehouse, directory: Path) -> None:
    room = os.statvfs(directory)
    assert warehouse.keeper.du().budget == room.f_blocks * room.f_frsize // 4


# -- what is told -----------------------------------------------------------------------------------------------------


def test_who_holds_what(warehouse: Warehouse) -> None:
    for mark in "12":
        make(warehouse, "large", text(1_500_000, mark), 1.0)
    make(warehouse, "little", text(5_000, "x"), 1.0)
    make(warehouse, "tiny", 1, 1.0)
    used = warehouse.keeper.du()
    assert [(holding.name, holding.versions, holding.bytes) for holding in used.ingredients] == [
        ("large", 2, 3_000_000),
        ("little", 1, 5_000),
    ]
    assert used.homes == {"record": 5_000, "small": 0, "files": 3_000_000}
    assert used.payloads == 3_005_000 and used.total == sum(used.places.values())
    assert "3.00 MB of payloads" in str(used)


def test_a_store_that_is_only_read_can_be_measured(opened: Open) -> None:
    make(opened(), "x", text(5_000, "x"), 1.0)
    opened().close()
    for warehouse in (opened(), opened(read_only=True)):
        assert warehouse.keeper.du().payloads == 5_000


@pytest.mark.parametrize(
    "limits", [{"max_size": "much"}, {"keep_versions": -1}, {"keep_versions": "2"}, {"keep_versions": True}]
)
def test_nonsense_is_refused(warehouse: Warehouse, limits: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=next(iter(limits))):
        gc(warehouse, **limits)


def test_a_long_table_is_cut_short() -> None:
    lines = table(("name", "size"), [(f"x{number}", "1") for number in range(30)], right=(1,))
    assert len(lines) == 22 and lines[-1] == "  … and 10 more" and lines[0] == "  name  size"
    assert table(("name",), []) == []

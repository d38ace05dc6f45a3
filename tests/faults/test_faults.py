"""Each harness in its quick version, and pointed at a store with a known defect: that one it must find.

The long versions: ``campaign.py``.
"""

from __future__ import annotations

import pytest

from tests.faults import shim
from tests.faults.commands import Report, run
from tests.faults.verdict import BROKEN, KEPT

needs_shim = pytest.mark.skipif(bool(shim.why_not()), reason=shim.why_not() or "the shim can be built")


def kept(report: Report, cases: int) -> None:
    """All promises kept, in at least so many cases."""
    if "not possible here" in report.text:
        pytest.skip(report.text.strip().splitlines()[-1])
    assert report.code == KEPT, report.text
    assert report.counts["cases"] >= cases, report.text


def broken(report: Report, *kinds: str) -> None:
    """The positive control: the harness has found the defect, as one of these kinds."""
    if "not possible here" in report.text:
        pytest.skip(report.text.strip().splitlines()[-1])
    assert report.code == BROKEN, report.text
    assert sum(report.counts[kind] for kind in kinds), report.text


# -- the n-th system call -----------------------------------------------------------------------------


@needs_shim
@pytest.mark.parametrize(("fault", "step"), [("KILL", 61), ("EIO", 83), ("SHORT", 97)])
def test_the_nth_call_fails_once(fault: str, step: int) -> None:
    kept(run("calls", "--fault", fault, "--step", step, "--start", 1 + step // 2), cases=6)


@needs_shim
def test_from_the_nth_call_on_all_fail() -> None:
    kept(run("calls", "--fault", "EMFILE", "--step", 151, "--start", 27, "--for-ever"), cases=4)


@needs_shim
def test_the_nth_read_fails() -> None:
    kept(run("calls", "--fault", "EIO", "--step", 97, "--reads"), cases=4)


@needs_shim
@pytest.mark.parametrize(
    ("fault", "within", "defect", "kind"),
    [
        ("KILL", "meta.lmdb", "early_announcement", "lost"),
        ("TEAR", "objects", "trusting_address", "wrong"),
        ("SHORT", "meta.lmdb", "swallowed_errors", "lost"),
        pytest.param("EIO", "meta.lmdb", "swallowed_errors", "lost", marks=pytest.mark.campaign),
    ],
)
def test_calls_find(fault: str, within: str, defect: str, kind: str) -> None:
    step = 9 if within == "objects" else 1  # files are written there in many pieces
    report = run("calls", "--fault", fault, "--within", within, "--step", step, "--broken", defect, "--until-found")
    broken(report, kind, "unclear", "unusable")


@needs_shim
def test_failing_reads_find_a_store_that_believes_them() -> None:
    where = ("--fault", "EIO", "--reads", "--within", "objects", "--start", 5, "--step", 7, "--until-found")
    broken(run("calls", *where, "--broken", "believed_reads"), "wrong")


# -- worker processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "deaths"), [("kill", 6), ("exit", 5), ("memory", 3)])
def test_workers_that_die(way: str, deaths: int) -> None:
    kept(run("workers", "--way", way, "--deaths", deaths), cases=1)


@pytest.mark.parametrize(
    ("defect", "kind"),
    [
        ("believed_deaths", "wrong"),
        ("nameless_deaths", "unclear"),
        pytest.param("early_names", "wrong", marks=pytest.mark.campaign),
        pytest.param("kept_connections", "unusable", marks=pytest.mark.campaign),
    ],
)
def test_deaths_of_workers_that_are_overlooked_are_found(defect: str, kind: str) -> None:
    broken(run("workers", "--way", "exit", "--deaths", 3, "--until-found", "--broken", defect), kind)


# -- kills and crowds ---------------------------------------------------------------------------------


def test_kills_at_random_moments() -> None:
    kept(run("kills", "--kills", 10), cases=10)


def test_kills_at_announcements() -> None:
    kept(run("kills", "--kills", 10, "--told"), cases=10)


def test_kills_find_an_announcement_that_is_too_early() -> None:
    broken(run("kills", "--told", "--kills", 40, "--until-found", "--broken", "early_announcement"), "lost")


@pytest.mark.parametrize("scenario", ["processes", "writers", "threads", "takeover", "forked", "collected", "tidied"])
def test_a_crowd(scenario: str) -> None:
    kept(run("crowds", "--scenario", scenario, "--rounds", 1), cases=1)


@needs_shim
def test_a_holder_that_stops() -> None:
    kept(run("crowds", "--scenario", "stopped", "--rounds", 2), cases=2)


@pytest.mark.parametrize(
    ("scenario", "defect"),
    [
        ("processes", "no_claims"),
        ("writers", "shared_name"),
        ("threads", "unshared_session"),
        ("takeover", "no_claims"),
        ("forked", "unmarked_fork"),
        ("collected", "eager_collection"),
        ("tidied", "removable_locks"),
    ],
)
def test_crowds_find(scenario: str, defect: str) -> None:
    report = run("crowds", "--scenario", scenario, "--rounds", 12, "--broken", defect, "--until-found")
    broken(report, "wrong", "lost", "unusable", "unclear")


@needs_shim
def test_a_wait_without_end_is_found() -> None:
    where = ("--scenario", "stopped", "--rounds", 12, "--patience", 5)
    broken(run("crowds", *where, "--broken", "endless_wait", "--until-found"), "unusable")


# -- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "step", "every"),
    [("flips", 16001, 1), ("truncations", 50021, 1), ("surprises", 1, 23)],
)
def test_damage(kind: str, step: int, every: int) -> None:
    kept(run("damage", "--kind", kind, "--step", step, "--every", every), cases=20)


def test_damage_beyond_the_mark_of_a_clean_close() -> None:
    kept(run("damage", "--kind", "beyond", "--step", 40009), cases=3)


def test_damage_beyond_the_mark_finds_a_store_that_forgets_what_it_met() -> None:
    where = ("--kind", "beyond", "--only", "free list", "--step", 97)
    broken(run("damage", *where, "--broken", "forgotten_damage"), "unusable")


def test_damage_finds_a_missing_checksum() -> None:
    broken(run("damage", "--kind", "flips", "--step", 9001, "--broken", "missing_checksum"), "wrong")


def test_damage_finds_files_that_nobody_verifies() -> None:
    broken(run("damage", "--kind", "truncations", "--step", 30000, "--broken", "verified_by_nobody"), "unusable")


def test_surprises_find_files_that_nobody_verifies() -> None:
    broken(run("damage", "--kind", "surprises", "--every", 23, "--broken", "verified_by_nobody"), "unusable")


# -- interrupts, allocations, limits ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "step", "only"),
    [("lines", 14999, ""), ("lines", 2503, "warehouse/"), ("allocations", 99991, "")],
)
def test_an_interrupt(kind: str, step: int, only: str) -> None:
    kept(run("interrupts", "--kind", kind, "--step", step, "--only", only), cases=3)


def test_interrupts_find_a_lock_that_is_kept() -> None:
    where = ("--only", "warehouse/environments.py", "--step", 29)
    broken(run("interrupts", *where, "--until-found", "--broken", "leaked_lock"), "unclear", "unusable")


@pytest.mark.campaign
def test_failing_allocations_find_a_lock_that_is_kept() -> None:
    where = ("--kind", "allocations", "--step", 9973, "--until-found")
    broken(run("interrupts", *where, "--broken", "leaked_lock"), "unclear", "unusable")


@pytest.mark.parametrize(
    ("kind", "every"), [("disk", 19), ("size", 9), ("files", 13), ("memory", 17), ("addresses", 17)]
)
def test_too_little(kind: str, every: int) -> None:
    kept(run("limits", "--kind", kind, "--every", every), cases=3)


def test_a_directory_that_cannot_be_written() -> None:
    kept(run("limits", "--kind", "readonly"), cases=3)


def test_limits_find_errors_without_words() -> None:
    broken(run("limits", "--kind", "size", "--every", 5, "--broken", "bare_errors"), "unclear")
    broken(run("limits", "--kind", "readonly", "--broken", "bare_errors"), "unusable")


@pytest.mark.campaign
@pytest.mark.parametrize(("kind", "every"), [("disk", 9), ("files", 5)])
def test_other_limits_find_errors_without_words(kind: str, every: int) -> None:
    broken(run("limits", "--kind", kind, "--every", every, "--broken", "bare_errors"), "unclear")


@pytest.mark.parametrize(("kind", "every"), [("memory", 3), ("addresses", 3)])
def test_too_little_memory_finds_work_that_counts_as_done(kind: str, every: int) -> None:
    """What is short first depends on threads: of a few values none may hit what the defect is about."""
    where = ("--kind", kind, "--every", every, "--until-found")
    broken(run("limits", *where, "--broken", "swallowed_memory"), "unusable", "lost")


@pytest.mark.campaign
def test_too_little_memory_finds_what_enters_hdf5_without_asking_for_it() -> None:
    broken(run("limits", "--kind", "memory", "--broken", "unasked_memory"), "unusable")


# -- power loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("system", "cuts"), [("ext4", 2), ("ext4 noauto_da_alloc", 3), ("xfs", 5)])
def test_power_loss(system: str, cuts: int) -> None:
    kept(run("power", "--system", system, "--cycles", cuts, "--cuts", cuts), cases=cuts)


@pytest.mark.parametrize(
    ("system", "cuts", "defect"),
    [("ext4", 2, "missing_payload_sync"), ("ext4 noauto_da_alloc", 5, "missing_sync")],
)
def test_power_loss_finds_a_missing_sync(system: str, cuts: int, defect: str) -> None:
    report = run("power", "--system", system, "--cycles", cuts, "--cuts", cuts, "--broken", defect)
    broken(report, "lost", "wrong", "unusable")


# -- mounts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["objects", "whole"])
def test_a_mount_goes_away(way: str) -> None:
    kept(run("mounts", "--way", way, "--cycles", 4), cases=4)


def test_a_mount_that_goes_away_finds_a_store_that_forgets() -> None:
    broken(run("mounts", "--way", "objects", "--cycles", 40, "--broken", "forgetful"), "lost")

"""Each harness in its quick version, and pointed at a store with a known defect: that one it must find.

The long versions: ``pytest -m campaign tests/faults``, or the commands that docs/design/reliability.md names.
"""

from __future__ import annotations

from typing import Any

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


def long(*arguments: Any) -> Any:
    """A long version of a case."""
    return pytest.param(*arguments, marks=pytest.mark.campaign, id="-".join(map(str, ("long", *arguments))))


# -- the n-th system call -----------------------------------------------------------------------------

QUICK_CALLS = [("KILL", 61), ("EIO", 83), ("SHORT", 97)]
ALL_ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE", "EACCES", "SHORT", "EINTR")


@needs_shim
@pytest.mark.parametrize(
    ("fault", "step"), [*QUICK_CALLS, long("KILL", 1), long("TEAR", 1), *[long(fault, 1) for fault in ALL_ERRORS]]
)
def test_the_nth_call_fails_once(fault: str, step: int) -> None:
    kept(run("calls", "--fault", fault, "--step", step, "--start", 1 + step // 2, limit=3600), cases=6)


@needs_shim
@pytest.mark.parametrize(
    ("fault", "step"), [("EMFILE", 151), *[long(fault, 3) for fault in ALL_ERRORS if fault != "EINTR"]]
)
def test_from_the_nth_call_on_all_fail(fault: str, step: int) -> None:
    kept(run("calls", "--fault", fault, "--step", step, "--start", 27, "--for-ever", limit=3600), cases=4)


@needs_shim
@pytest.mark.parametrize(("fault", "step"), [("EIO", 61), long("EIO", 1), long("EMFILE", 1)])
def test_the_nth_read_fails(fault: str, step: int) -> None:
    kept(run("calls", "--fault", fault, "--step", step, "--reads", limit=3600), cases=4)


@needs_shim
@pytest.mark.parametrize(
    ("fault", "within", "defect", "kind"),
    [
        ("KILL", "meta.lmdb", "early_announcement", "lost"),
        ("TEAR", "objects", "trusting_address", "wrong"),
        ("SHORT", "meta.lmdb", "swallowed_errors", "lost"),
    ],
)
def test_calls_find(fault: str, within: str, defect: str, kind: str) -> None:
    step = 9 if within == "objects" else 1  # files are written there in many pieces
    report = run("calls", "--fault", fault, "--within", within, "--step", step, "--broken", defect, "--until-found")
    broken(report, kind, "unclear", "unusable")


# -- kills and crowds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("durability", "kills"), [("power", 10), long("power", 5000), long("process", 1000)])
def test_kills_at_random_moments(durability: str, kills: int) -> None:
    kept(run("kills", "--kills", kills, "--durability", durability, limit=7200), cases=kills)


def test_kills_find_an_announcement_that_is_too_early() -> None:
    broken(run("kills", "--kills", 30, "--broken", "early_announcement"), "lost")


ROUNDS = {"processes": 1, "writers": 1, "threads": 1, "takeover": 1, "forked": 1, "collected": 1}


@pytest.mark.parametrize(("scenario", "rounds"), [*ROUNDS.items(), *[long(scenario, 100) for scenario in ROUNDS]])
def test_a_crowd(scenario: str, rounds: int) -> None:
    kept(run("crowds", "--scenario", scenario, "--rounds", rounds, limit=7200), cases=rounds)


@needs_shim
@pytest.mark.parametrize("rounds", [2, long(100)])
def test_a_holder_that_stops(rounds: int) -> None:
    kept(run("crowds", "--scenario", "stopped", "--rounds", rounds, limit=7200), cases=rounds)


@pytest.mark.parametrize(
    ("scenario", "defect"),
    [
        ("processes", "no_claims"),
        ("writers", "shared_name"),
        ("threads", "unshared_session"),
        ("takeover", "no_claims"),
        ("forked", "unmarked_fork"),
        ("collected", "eager_collection"),
    ],
)
def test_crowds_find(scenario: str, defect: str) -> None:
    report = run("crowds", "--scenario", scenario, "--rounds", 2, "--broken", defect, "--until-found")
    broken(report, "wrong", "lost", "unusable", "unclear")


@needs_shim
def test_a_wait_without_end_is_found() -> None:
    broken(
        run("crowds", "--scenario", "stopped", "--rounds", 12, "--broken", "endless_wait", "--until-found"), "unusable"
    )


# -- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "step", "every"),
    [
        ("flips", 16001, 1),
        ("truncations", 50021, 1),
        ("surprises", 1, 23),
        long("flips", 17, 1),
        long("truncations", 257, 1),
        long("surprises", 1, 1),
    ],
)
def test_damage(kind: str, step: int, every: int) -> None:
    kept(run("damage", "--kind", kind, "--step", step, "--every", every, limit=7200), cases=20)


def test_damage_finds_a_missing_checksum() -> None:
    broken(run("damage", "--kind", "flips", "--step", 9001, "--broken", "missing_checksum"), "wrong")


def test_damage_finds_files_that_nobody_verifies() -> None:
    broken(run("damage", "--kind", "truncations", "--step", 30000, "--broken", "verified_by_nobody"), "unusable")


# -- interrupts, allocations, limits ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "step", "only"),
    [
        ("lines", 14999, ""),
        ("lines", 2503, "warehouse/"),
        ("allocations", 99991, ""),
        long("lines", 97, ""),
        long("lines", 11, "warehouse/"),
        long("allocations", 499, ""),
    ],
)
def test_an_interrupt(kind: str, step: int, only: str) -> None:
    kept(run("interrupts", "--kind", kind, "--step", step, "--only", only, limit=7200), cases=3)


def test_interrupts_find_a_lock_that_is_kept() -> None:
    report = run(
        "interrupts",
        "--step",
        29,
        "--start",
        175,
        "--cases",
        2,
        "--only",
        "warehouse/index.py",
        "--broken",
        "leaked_lock",
    )
    broken(report, "unclear")


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("disk", 19),
        ("size", 9),
        ("files", 13),
        ("memory", 17),
        *[long(kind, 1) for kind in ("disk", "size", "files", "memory")],
    ],
)
def test_too_little(kind: str, every: int) -> None:
    kept(run("limits", "--kind", kind, "--every", every, limit=3600), cases=3)


def test_a_directory_that_cannot_be_written() -> None:
    kept(run("limits", "--kind", "readonly"), cases=3)


def test_limits_find_errors_without_words() -> None:
    broken(run("limits", "--kind", "size", "--every", 5, "--broken", "bare_errors"), "unclear")
    broken(run("limits", "--kind", "readonly", "--broken", "bare_errors"), "unusable")


# -- power loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "cycles"),
    [
        *[(system, 5) for system in ("ext4 noauto_da_alloc", "xfs")],
        *[long(system, 300) for system in ("ext4", "ext4 noauto_da_alloc", "xfs")],
    ],
)
def test_power_loss(system: str, cycles: int) -> None:
    kept(run("power", "--system", system, "--cycles", cycles, limit=7200), cases=cycles)


def test_power_loss_finds_a_missing_sync() -> None:
    broken(
        run("power", "--system", "ext4 noauto_da_alloc", "--cycles", 5, "--broken", "missing_sync"),
        "lost",
        "wrong",
        "unusable",
    )

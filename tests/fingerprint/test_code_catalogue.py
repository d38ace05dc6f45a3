"""Each code case of the catalogue, at the level of fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fingerprint.catalogue import CASES, CONFIG_CASES, Case, config_source, sources
from tests.fingerprint.harness import fingerprints

ROLES = {"P8": ("main", "source", "high", "low")}
#: In P8 the change lies behind a boundary: which fingerprints it must and must not touch.
TOUCHED = {"D57": {"high"}, "D58": {"low"}, "D59": {"source"}, "D60": {"source"}, "D61": set()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case: Case, tmp_path: Path) -> None:
    names = ROLES.get(case.program, ("main",))
    before = fingerprints(tmp_path / "a", sources(case.program), *names)
    again = fingerprints(tmp_path / "b", sources(case.program), *names)
    after = fingerprints(tmp_path / "c", sources(case.program, case.edits), *names)
    assert before == again
    changed = {name for name in names if before[name] != after[name]}
    expected = {name for name, outcome in case.expected.items() if outcome == "run"}
    assert changed == TOUCHED.get(case.id, expected)


def test_the_catalogue_is_complete() -> None:
    numbers = [case.id for case in CASES] + [case.id for case in CONFIG_CASES]
    assert sorted(numbers) == [f"D{n:02}" for n in range(1, 84)]


@pytest.mark.parametrize("case", CONFIG_CASES, ids=lambda case: case.id)
def test_config_programs_compile(case: Case) -> None:
    for config in (case.before, case.after):
        compile(config_source(case, config), case.id, "exec")

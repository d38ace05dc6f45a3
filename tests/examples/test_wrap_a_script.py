"""The script prints the same before, after and at every step between; edits re-run what they touch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pages import ROOT, copy_of, environment, play_walk

README = ROOT / "examples/wrap_a_script/README.md"
STEPS = ["step1.py", "step2.py", "step3.py", "after.py"]


def printed(script: str, *arguments: str) -> str:
    command = [sys.executable, str(README.parent / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def before() -> str:
    return printed("before.py")


@pytest.mark.parametrize("script", STEPS)
def test_every_step_prints_the_same(script, before, tmp_path):
    assert "351 good days" in before
    assert printed(script, str(tmp_path / "plant")) == before


def test_the_walk_prints_what_the_readme_says(tmp_path):
    played = play_walk(README, copy_of(README, tmp_path))
    assert len(played) >= 5
    assert "".join(step.printed for step in played) == "".join(step.said for step in played)

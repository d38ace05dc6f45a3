"""An array twice as large as the memory limit goes through; read in one piece, it does not."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pages import ROOT, environment

SCRIPT = ROOT / "examples/beyond_ram/beyond_ram.py"
LIMIT, SIZE = 64, 128

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets RLIMIT_DATA")


def run(plant_dir, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--plant-dir", str(plant_dir), "--limit", str(LIMIT), "--size", str(SIZE)]
    return subprocess.run([*command, *options], capture_output=True, text=True, env=environment(), timeout=120)


@pytest.fixture(scope="module")
def plant_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("beyond") / "plant"


@pytest.fixture(scope="module")
def first(plant_dir):
    return run(plant_dir)


def test_it_stays_within_the_limit(first):
    assert first.returncode == 0, first.stderr
    assert f"{SIZE} MB; mean after standardizing 0.0000" in first.stdout
    peak = re.search(r"peak private memory (\d+) MB", first.stdout)
    assert peak and int(peak[1]) <= LIMIT


def test_the_second_run_only_summarizes(first, plant_dir):
    again = run(plant_dir)
    assert [line for line in again.stdout.splitlines() if line.startswith("ran")] == ["ran: summarize"]


def test_the_limit_is_real(first, plant_dir):
    whole = run(plant_dir, "--whole")
    assert whole.returncode != 0
    assert "MemoryError" in whole.stderr or "Unable to allocate" in whole.stderr
    assert run(plant_dir).returncode == 0

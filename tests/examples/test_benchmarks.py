"""The programs of the benchmarks give the right results, and what is said about the systems is so."""

from __future__ import annotations

import json
import subprocess
import sys

import bench_fingerprint
import equivalents
import pytest
from pages import ROOT, environment

MEASURE = ROOT / "benchmarks/measure.py"

SIZE = 12


@pytest.fixture
def measure(tmp_path):
    """Run one program in its own process; return what it told."""

    def measure(system: str, shape: str, seed: int, edited: bool = False) -> dict[str, object]:
        pytest.importorskip(system)
        path = tmp_path / str(edited) / f"{system}_{shape}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(equivalents.source(system, shape, SIZE, edited))
        command = [sys.executable, str(MEASURE), str(path), str(seed), str(tmp_path / "s"), "count"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return measure


@pytest.mark.parametrize("shape", ["chain", "fan"])
@pytest.mark.parametrize("system", ["pyplantx", "joblib", "diskcache"])
def test_cold_warm_and_another_seed(measure, system, shape):
    for seed, steps in ((1, SIZE), (1, 0), (2, SIZE)):
        told = measure(system, shape, seed)
        assert told["result"] == equivalents.expected(shape, SIZE, seed)
        assert told["steps"] == steps


@pytest.mark.parametrize(("system", "noticed"), [("pyplantx", 1), ("joblib", 1), ("diskcache", 0)])
def test_an_edit_that_keeps_the_value(measure, system, noticed):
    measure(system, "chain", 1)
    assert measure(system, "chain", 1, edited=True)["steps"] == noticed


@pytest.mark.parametrize("kind", ["CLOSED", "WITH_HELPER", "ORDINARY"])
def test_rows_of_fingerprints(kind):
    row = bench_fingerprint.code_row(getattr(bench_fingerprint, kind), 3, rounds=1)
    assert all(0 < figure < 1e9 for figure in row)

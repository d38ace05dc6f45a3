"""A volume larger than the memory limit prints what its README says: killed, resumed, edited."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from pages import ROOT, copy_of, environment, play_walk

from pyplantx import Plant

README = ROOT / "examples/beyond_ram/README.md"
SCRIPT = ROOT / "examples/beyond_ram/beyond_ram.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets RLIMIT_DATA")

if not os.environ.get("CI"):  # there, a missing library is a failure
    pytest.importorskip("matplotlib", reason="the example draws with matplotlib (group `examples`)")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    folder = copy_of(README, tmp_path_factory.mktemp("walk"))
    return folder, play_walk(README, folder)


def test_each_step_prints_what_the_readme_says(walk):
    _, played = walk
    assert len(played) == 7
    assert "".join(step.printed for step in played) == "".join(step.said for step in played)


def test_the_picture_is_there(walk):
    folder, _ = walk
    picture = folder / "output/projection.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert os.stat(picture).st_mode & stat.S_IWUSR  # else nobody but root can run it twice


def run(folder, *options: str) -> subprocess.CompletedProcess[str]:
    places = ["--plant-dir", str(folder / "plant"), "--out-dir", str(folder / "output")]
    command = [sys.executable, str(SCRIPT), *places, "--size", "24", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)


def test_a_kill_leaves_no_trace_in_the_result(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert "killed after 3 of" in run(killed, "--kill-after", "3").stdout
    for folder in (killed, whole):
        done = run(folder)
        assert done.returncode == 0, done.stderr
    with Plant(killed / "plant") as one, Plant(whole / "plant") as other:
        found = [plant.find_ingredient("clean_volume") for plant in (one, other)]
        volumes = [plant.fetch_ingredient("clean_volume")[...] for plant in (one, other)]
    assert found[0] == found[1]
    np.testing.assert_array_equal(*volumes)
    assert volumes[0].shape == (96, 256, 256)
    np.testing.assert_allclose(volumes[0], filtered_in_memory(), rtol=1e-5, atol=1e-5)


def filtered_in_memory():
    """The same volume, made and filtered in one piece."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import beyond_ram
    finally:
        sys.path.pop(0)
    return beyond_ram.smooth(beyond_ram.scanned(range(96), 3), 1.0)

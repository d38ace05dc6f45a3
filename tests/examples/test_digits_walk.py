"""The digits example prints what its README says, edit by edit."""

from __future__ import annotations

import json
import os

import pytest
from pages import ROOT, copy_of, play_walk

README = ROOT / "examples/digits/README.md"

if not os.environ.get("CI"):  # there, a missing library is a failure
    pytest.importorskip("matplotlib", reason="the example draws with matplotlib (group `examples`)")
    pytest.importorskip("sklearn", reason="the example trains with scikit-learn (group `examples`)")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    folder = copy_of(README, tmp_path_factory.mktemp("walk"))
    return folder, play_walk(README, folder)


def test_each_step_prints_what_the_readme_says(walk):
    _, played = walk
    assert len(played) >= 8
    assert "".join(step.printed for step in played) == "".join(step.said for step in played)


def test_the_artifacts_are_there(walk):
    folder, _ = walk
    metrics = json.loads((folder / "output/metrics.json").read_text())
    assert set(metrics["accuracy"]) == {"softmax", "neighbours"}
    assert (folder / "output/confusion.png").read_bytes().startswith(b"\x89PNG")

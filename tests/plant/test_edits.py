"""The catalogue of edits, with whole plants: one store, one process for each session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fingerprint.catalogue import CASES, CONFIG_CASES, Case, ConfigCase, config_source, sources

API = """
import json
import pyplantx
from pyplantx import ReactorFunc as reactor, SubreactorFunc as subreactor, untracked

marks, auxiliary = [], []

def mark(name):
    marks.append(name)

def AUX(config, names):
    auxiliary.extend(names)
    return config

def session(app, directory):
    with pyplantx.Plant(directory) as plant:
        make_config = getattr(app, "make_config", None)
        if make_config is not None:
            plant.set_config(make_config())
        plant.mark_params_as_auxiliary(auxiliary)
        value = plant.produce("out")
    print(json.dumps([sorted(marks), repr(value)]))
"""
RUN = "import catalogue_api, app; catalogue_api.session(app, 'plant')"


class Project:
    """A folder with a program, its store, and the adapter (which counts as a library)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        library = folder / "site-packages"
        library.mkdir()
        (library / "catalogue_api.py").write_text(API)
        paths = [str(folder), str(library), os.getcwd()]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
        self.seed = 0

    def run(self, files: dict[str, str]) -> tuple[list[str], str]:
        """One session of the program: which bodies ran, and the value."""
        for name, source in files.items():
            (self.folder / name).write_text(source)
        self.seed += 1  # no session sees the hash seed of another
        environment = {**self.environment, "PYTHONHASHSEED": str(self.seed)}
        command = [sys.executable, "-c", RUN]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        ran, value = json.loads(done.stdout)
        return ran, value


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def _case_id(case: Any) -> str:
    return str(case.id)


@pytest.mark.parametrize("case", CASES, ids=_case_id)
def test_code_edits(case: Case, project: Project) -> None:
    first, _ = project.run(sources(case.program))
    again, before = project.run({})
    assert (sorted(case.expected), again) == (first, []), "the unedited program"
    ran, after = project.run(sources(case.program, case.edits))
    assert ran == sorted(name for name, expected in case.expected.items() if expected == "run")
    if case.expected["main"] == "run":
        assert after != before
    back, value = project.run(sources(case.program))
    assert (back, value) == ([], before), "the edit taken back"


@pytest.mark.parametrize("case", CONFIG_CASES, ids=_case_id)
def test_config_edits(case: ConfigCase, project: Project) -> None:
    before_files = {"app.py": config_source(case, case.before)}
    first, _ = project.run(before_files)
    again, before = project.run({})
    assert (first, again) == (["main"], [])
    ran, after = project.run({"app.py": config_source(case, case.after)})
    if case.expected != "either":
        assert ran == (["main"] if case.expected == "run" else [])
    if case.expected == "run":
        assert after != before
    assert project.run(before_files) == ([], before)

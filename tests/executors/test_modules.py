"""Whether another process has imported the same code."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pyplantx.executors import modules

TEXT = """
import functools
import json

SET = frozenset({"a", "b", "c"})

def helper(x):
    return x + 1 if x in {"one", "two", "three"} else (1.0, (2, "x"))

class Thing:
    def method(self):
        return [helper(x) for x in range(3)]

    @staticmethod
    def of_all():
        return lambda y: y ** 2

    class Inner:
        def deep(self):
            return 1
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Writes a module of the user's, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def imported(text: str) -> ModuleType:
        (tmp_path / "some_project.py").write_text(text)
        sys.modules.pop("some_project", None)
        importlib.invalidate_caches()
        return importlib.import_module("some_project")

    yield imported
    sys.modules.pop("some_project", None)


class TestDigest:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("x + 1", "x + 2"),
            ("(2,", "(3,"),
            ("range(3)", "range(4)"),
            ("y ** 2", "y ** 3"),
            ("return 1\n", "return 2\n"),
        ],
    )
    def test_an_edit_shows(self, old, new, project):
        before = modules.digest(project(TEXT))
        assert modules.digest(project(TEXT.replace(old, new))) != before

    @pytest.mark.parametrize(("old", "new"), [("\ndef", "\n\n# words\ndef"), ("import json", "import json  # why")])
    def test_what_is_no_code_does_not(self, old, new, project):
        before = modules.digest(project(TEXT))
        assert modules.digest(project(TEXT.replace(old, new))) == before

    def test_it_is_the_same_in_every_process(self, project, tmp_path):
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import some_project\n"
            "from pyplantx.executors import modules; print(modules.digests()['some_project'])"
        )
        here = modules.digest(project(TEXT))
        for seed in ("1", "2"):
            environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(modules.__file__).parents[2])}
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            )
            assert done.stdout.strip() == here


class TestWhatCounts:
    def test_modules_of_the_project_only(self, project):
        project(TEXT)
        found = modules.digests()
        assert "some_project" in found
        assert not {"json", "numpy", "pytest", "pyplantx.plant", "__main__"} & found.keys()
        assert "some_project" not in modules.digests({"some_project"})

    def test_those_that_differ_are_named(self, project):
        project(TEXT)
        theirs = modules.digests()
        assert modules.edited(theirs) == []
        project(TEXT.replace("x + 1", "x - 1"))
        assert modules.edited(theirs) == ["some_project"]

    def test_what_only_the_other_one_has_imported_is_no_matter(self):
        assert modules.edited({"never_imported_here": "0" * 32}) == []

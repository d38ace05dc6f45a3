"""Modules that functions import when they run: what these put into registries counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyplantx.fingerprint.code import Fingerprinter
from tests.fingerprint.harness import fingerprints, program

FILES = {
    "reg.py": "REG = {}\ndef register(fn):\n    REG[fn.__name__] = fn\n    return fn\n",
    "plugins.py": "from reg import register\n@register\ndef p(v): return v * 2\n",
    "more.py": "import reg\n@reg.register\ndef q(v): return v * 5\nreg.LATE = [q]\n",
}
PROGRAMS = {
    "in the function": "def f():\n    import plugins\n    return REG['p'](3)",
    "in a helper": "def load(): import plugins\ndef f():\n    load()\n    return REG['p'](3)",
    "in a caller": "def look(): return REG['p'](3)\ndef f():\n    import plugins\n    return look()",
    "through an object": (
        "class Registry:\n    def __init__(self): self.found = REG\nR = Registry()\n"
        "def load(): import plugins\ndef f():\n    load()\n    return R.found['p'](3)"
    ),
    "in a submodule": "def load(): from package import plugins\ndef f():\n    load()\n    return REG['p'](3)",
    "in two steps": "import reg\ndef load(): import more\ndef f():\n    load()\n    return reg.LATE",
}


def _files(source: str, **edits: tuple[str, str]) -> dict[str, str]:
    files = {**FILES, "app.py": f"from reg import REG\n{source}\n"}
    for name, edit in edits.items():
        files[f"{name}.py"] = files[f"{name}.py"].replace(*edit)
    return {**files, "package/__init__.py": "", "package/plugins.py": files["plugins.py"]}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_an_import_registers_counts(name: str, tmp_path: Path) -> None:
    source = PROGRAMS[name]
    first = fingerprints(tmp_path / "1", _files(source), "f")
    assert fingerprints(tmp_path / "2", _files(source, plugins=("@", "# a comment\n@")), "f") == first
    edits = {"plugins": ("v * 2", "v * 3"), "more": ("v * 5", "v * 6")}
    assert fingerprints(tmp_path / "3", _files(source, **edits), "f") != first
    early = {"plugins.py": FILES["plugins.py"] + "import more\n", "more.py": FILES["more.py"]}
    late = _files(source) | early
    before = fingerprints(tmp_path / "4", late, "f")
    with program(tmp_path / "5", late) as app:
        __import__("package.plugins" if name == "in a submodule" else "more" if name == "in two steps" else "plugins")
        assert Fingerprinter().fingerprint(app.f) == before["f"]


def test_imports_that_fail_are_not_waited_for(tmp_path: Path) -> None:
    source = "import reg\ndef f():\n    import nowhere, broken, more, gone\n    return reg.NEVER"
    gone = {"broken.py": "1 / 0", "gone.py": "import sys\ndel sys.modules['gone']"}
    first = fingerprints(tmp_path / "1", _files(source) | gone, "f")
    assert fingerprints(tmp_path / "2", _files(source) | gone, "f") == first


def test_those_who_read_it_before_are_read_again(tmp_path: Path) -> None:
    """The registry was looked at for another function, and found empty."""
    source = "def g(): return len(REG)\n" + PROGRAMS["in the function"]
    first = fingerprints(tmp_path / "1", _files(source), "g", "f")
    second = fingerprints(tmp_path / "2", _files(source, plugins=("v * 2", "v * 3")), "g", "f")
    assert first["f"] != second["f"]


def test_what_running_code_changed_is_still_state(tmp_path: Path) -> None:
    source = "SEEN = []\ndef g(): return len(SEEN)\n" + PROGRAMS["in the function"]
    with program(tmp_path, _files(source)) as app:
        printer = Fingerprinter()
        printer.begin_activity()
        before: Any = printer.fingerprint(app.g)
        printer.freeze(())
        app.SEEN.append(1)
        printer.fingerprint(app.f)
        printer.end_activity()
        assert printer.state_changes() == ["constant app.SEEN"]
        printer.begin_activity()
        assert printer.fingerprint(app.g) == before


def test_what_an_import_adds_to_a_class_is_no_state(tmp_path: Path) -> None:
    source = "class C: pass\ndef f():\n    import adds\n    return C"
    files = {"app.py": source, "adds.py": "import app\napp.C.scale = 2\ndef unused(): pass\n"}
    first = fingerprints(tmp_path / "1", files, "f")
    with program(tmp_path / "2", files) as app:
        printer = Fingerprinter()
        for _ in range(2):
            printer.begin_activity()
            assert printer.fingerprint(app.f) == first["f"]
            printer.end_activity()
        assert printer.state_changes() == []
    edited = files | {"adds.py": files["adds.py"].replace("= 2", "= 3")}
    assert fingerprints(tmp_path / "3", edited, "f") != first

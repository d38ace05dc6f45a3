"""Who is told of imports by text, on every Python that there is."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType

import pytest

from pyplantx.runs.imports import importer, is_reactors_own, watch
from pyplantx.subreactor import Uncounted, watching


class Listener(Uncounted):
    """Notes what a run would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool, bool, str]] = []

    def imported(self, name: str, caller: FrameType, found: bool) -> None:
        self.told.append((name, found, is_reactors_own(caller), importer(caller)["__name__"]))


FILES = {
    "hooked/__init__.py": "",
    "hooked/leaf.py": "X = 1\n",
    "hooked/branch.py": "import importlib\nleaf = importlib.import_module('.leaf', __package__)\n",
    "hooked/broken.py": "import importlib\nimportlib.import_module('hooked.leaf')\n1 / 0\n",
}


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    for name, source in FILES.items():
        (tmp_path / "hooked").mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    watch()
    watch()  # once is enough
    before, watching.run = watching.run, Listener()
    try:
        yield watching.run
    finally:
        watching.run = before
        for name in [name for name in sys.modules if name.partition(".")[0] == "hooked"]:
            del sys.modules[name]


def test_the_one_who_imports_is_told_whether_the_module_was_loaded_or_not(listener: Listener) -> None:
    for _ in range(2):
        import_module("hooked.leaf")
        importlib.import_module(".branch", "hooked")
    own = [told for told in listener.told if told[2]]
    assert own == [("hooked.leaf", True, True, __name__), ("hooked.branch", True, True, __name__)] * 2
    assert listener.told[1] == ("hooked.leaf", True, False, "hooked.branch")
    assert len(listener.told) == 5  # packages on the way are not told of


def test_statements_are_not_told_of(listener: Listener) -> None:
    import hooked.branch  # noqa: F401

    assert [told[2] for told in listener.told] == [False]
    importlib.reload(sys.modules["hooked.branch"])
    assert [told[2] for told in listener.told] == [False, False]


def test_a_reload_and_failures(listener: Listener) -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("hooked.nothing")
    with pytest.raises(ModuleNotFoundError):
        import_module("nothing_hooked.at.all")
    with pytest.raises(ZeroDivisionError):
        import_module("hooked.broken")
    own = [told[:2] for told in listener.told if told[2]]
    assert own == [("hooked.nothing", False), ("nothing_hooked.at.all", False), ("hooked.broken", False)]


def test_what_is_no_name_raises_what_python_raises(listener: Listener) -> None:
    for name, package in (("", None), (".x", None), (5, None), ("....x", "hooked"), (".x", 5)):
        with pytest.raises((TypeError, ValueError, AttributeError, ImportError)):
            import_module(name, package)  # type: ignore[arg-type]


def test_resolve_name_imports_for_its_caller(listener: Listener) -> None:
    assert pkgutil.resolve_name("hooked.leaf:X") == 1
    assert listener.told == [("hooked.leaf", True, True, __name__)]


def test_nobody_is_told_where_no_reactor_runs(listener: Listener) -> None:
    watching.run = None
    import_module("hooked.leaf")
    assert listener.told == []

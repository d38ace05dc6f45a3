"""What code names without a global of its own: by imports inside functions, by text, through names and annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fingerprint.harness import fingerprints

PACKAGE = {
    "pkg/__init__.py": "",
    "pkg/u.py": "def f(x): return x + 1\ndef g(): return 2\n",
    "pkg/v.py": "def h(): return 3\n",
}


def moved(folder: Path, files: dict[str, str], old: str, new: str) -> bool:
    """Whether an edit, made wherever `old` stands, changes the fingerprint of ``app.f``."""
    edited = {name: source.replace(old, new) for name, source in files.items()}
    assert edited != files
    before = fingerprints(folder / "before", files, "f")
    assert fingerprints(folder / "again", files, "f") == before
    return fingerprints(folder / "after", edited, "f") != before


# --- imports inside functions -------------------------------------------------------------------------------

WAYS = [
    "from pkg import u\n    return u.f(1)",
    "from pkg import u as w\n    return w.f(1)",
    "from pkg import v, u\n    return u.f(1)",
    "import pkg.u\n    return pkg.u.f(1)",
    "import pkg.u, pkg.v\n    return pkg.u.f(1)",
    "import pkg.u as u\n    return u.f(1)",
    "from pkg.u import f\n    return f(1)",
]


@pytest.mark.parametrize("way", WAYS)
def test_of_an_imported_module_only_what_is_used_counts(way: str, tmp_path: Path) -> None:
    files = {**PACKAGE, "app.py": f"import pkg.v\ndef f():\n    {way}\n"}
    assert moved(tmp_path / "used", files, "x + 1", "x + 2")
    assert not moved(tmp_path / "unused", files, "return 2", "return 0")
    if "v, u" not in way:
        assert not moved(tmp_path / "other", files, "return 3", "return 0")


@pytest.mark.parametrize(
    "way",
    [
        "from pkg import u\n    return getattr(u, x)",
        "import pkg.u\n    return getattr(pkg.u, x)",
        "import pkg.u\n    return pkg",
        "from pkg import u\n    u = wrap(u)\n    return u.f",
        "from pkg import u, u as w\n    return u.f, getattr(w, x)",
    ],
)
def test_a_module_that_is_handed_on_counts_whole(way: str, tmp_path: Path) -> None:
    assert moved(tmp_path, {**PACKAGE, "app.py": f"def f(x):\n    {way}\n"}, "return 2", "return 0")


def test_two_names_for_one_import_are_kept_apart(tmp_path: Path) -> None:
    files = {**PACKAGE, "app.py": "def f():\n    from pkg import u as a, u as b\n    return a.f(1), b.g()\n"}
    assert moved(tmp_path / "a", files, "x + 1", "x + 2")
    assert moved(tmp_path / "b", files, "return 2", "return 0")

"""What the project puts into libraries counts for who reads it; what libraries hold themselves does not."""

from __future__ import annotations

import argparse
import importlib
import math
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyplantx.fingerprint.code import Fingerprinter
from tests.fingerprint.harness import fingerprints, program


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """The library is left as it was."""
    holders = (math, argparse.Namespace, argparse.Action, argparse.HelpFormatter, textwrap)
    before = [dict(vars(holder)) for holder in holders]
    yield
    for holder, held in zip(holders, before, strict=True):
        restore(holder, held)


def restore(holder: object, held: dict[str, object]) -> None:
    for name in [*vars(holder)]:
        if name not in held:
            delattr(holder, name)
        elif vars(holder)[name] is not held[name]:
            setattr(holder, name, held[name])


NAMESPACE = "import argparse\nfrom argparse import Namespace\n"
#: Program -> edits that count, edits that don't.
HUNG = {
    "value": ("import math\nmath.G = 9.81\ndef f(): return math.G", ["9.81"], []),
    "value for a helper": ("import math\nmath.G = 9.81\ndef g(): return math.G\ndef f(): return g()", ["9.81"], []),
    "value, imported inside": (
        "import math\nmath.G = 9.81\ndef f():\n    from math import G\n    return G",
        ["9.81"],
        [],
    ),
    "another value": ("import math\nmath.G = 9.81\nmath.H = 7\ndef f(): return math.G", ["9.81"], ["7"]),
    "in place of its own": ("import math\nmath.pi = 3\ndef f(): return math.pi", ["3"], []),
    "two at once": ("import math\nmath.G, math.H = 9.81, 7\ndef f(): return math.G, math.H", ["9.81", "7"], []),
    "in a row": ("import math\nmath.G = math.H = 7\ndef f(): return math.G", ["7"], []),
    "annotated": ("import math\nmath.G: float = 7\ndef f(): return math.G", ["7"], []),
    "added to": ("import math\nmath.G = 1\nmath.G += 7\ndef f(): return math.G", ["7"], []),
    "by a function": (
        "def set_up():\n    import math\n    math.G = 7\nset_up()\nimport math\ndef f(): return math.G",
        ["7"],
        [],
    ),
    "by text": ("import math\nsetattr(math, 'G', 7)\ndef f(): return math.G", ["7"], []),
    "by texts": (
        "import math\nfor k, v in {'G': 7, 'H': 8}.items(): setattr(math, k, v)\ndef f(): return math.G",
        ["7"],
        ["8"],
    ),
    "by its dict": ("import math\nvars(math).update(G=7)\ndef f(): return math.G", ["7"], []),
    "method": (
        NAMESPACE + "def twice(self): return 7\nNamespace.twice = twice\nargparse.Action.other = lambda self: 8\n"
        "def f(x): return x.twice()",
        ["7"],
        ["8"],
    ),
    "method, by text": (
        NAMESPACE + "setattr(Namespace, 'twice', lambda self: 7)\ndef f(x): return x.twice()",
        ["7"],
        [],
    ),
    "method, asked for by text": (
        NAMESPACE + "Namespace.twice = lambda self: 7\ndef f(x): return getattr(x, 'twice')()",
        ["7"],
        [],
    ),
    "method, by a decorator": (
        NAMESPACE
        + "def into(cls):\n    def put(g):\n        setattr(cls, g.__name__, g)\n        return g\n    return put\n"
        "@into(Namespace)\ndef twice(self): return 7\n@into(Namespace)\ndef thrice(self): return 8\n"
        "def g(x): return x.twice()\ndef f(x): return g(x)",
        ["7"],
        ["8"],
    ),
    "property": (NAMESPACE + "Namespace.half = property(lambda self: 7)\ndef f(x): return x.half", ["7"], []),
    "value in a class": (NAMESPACE + "argparse.Namespace.UNIT = 7\ndef f(x): return x.UNIT", ["7"], []),
    "operator": (NAMESPACE + "Namespace.__matmul__ = lambda a, b: 7\ndef f(x): return x @ x", ["7"], []),
    "in place of a method": (
        "from argparse import HelpFormatter as H\nH.add_text = lambda self, t: 7\ndef f(p): return p.format_help()",
        ["7"],
        [],
    ),
    "inherited, in its place": (
        "from argparse import RawTextHelpFormatter as R\nfrom argparse import HelpFormatter\n"
        "HelpFormatter.__repr__ = lambda self: 7\ndef f(p): return repr(p)",
        ["7"],
        [],
    ),
}


@pytest.mark.parametrize("name", HUNG)
def test_what_is_put_into_a_library_counts(name: str, tmp_path: Path) -> None:
    source, counting, others = HUNG[name]
    before = of(tmp_path / "a", source)
    assert of(tmp_path / "b", source.replace("def f", "# a comment\ndef f")) == before
    for number, old in enumerate([*counting, *others]):
        edited = source.replace(old, "5.5")
        assert edited != source
        assert (of(tmp_path / f"edit{number}", edited) != before) is (old in counting), old


def of(folder: Path, source: str, app: str = "from hung import f") -> str:
    return fingerprints(folder, {"hung.py": source, "app.py": app}, "f")["f"]


NOT_HUNG = {
    "only read": "import math\nx = math.pi\ny = dict(a=math.pi, b=1)\nif math.pi == 3: pass\n# math.pi = 3\n",
    "an attribute of that name elsewhere": "class C: pass\nc = C()\nc.pi = 3\nc.tempdir = 2\n",
    "where a program runs": "import sys, tempfile, os\nsys.path = [*sys.path]\ntempfile.tempdir = tempfile.tempdir\n",
}


@pytest.mark.parametrize("name", NOT_HUNG)
def test_what_is_the_librarys_own_counts_by_name(name: str, tmp_path: Path) -> None:
    use = "import math, sys, tempfile\ndef f(): return math.pi, sys.path, tempfile.tempdir"
    assert of(tmp_path / "a", NOT_HUNG[name] + use) == of(tmp_path / "b", use)


def test_who_patches_is_found_wherever_it_is_imported(tmp_path: Path) -> None:
    files = {
        "patches.py": "import argparse\nargparse.Namespace.twice = lambda self: 7\n",
        "app.py": "def g(x): return x.twice()\ndef f(x):\n    import patches\n    return g(x)\n",
    }
    before = fingerprints(tmp_path / "a", files, "f")
    restore(argparse.Namespace, {name: held for name, held in vars(argparse.Namespace).items() if name != "twice"})
    edited = {**files, "patches.py": files["patches.py"].replace("7", "8")}
    assert fingerprints(tmp_path / "b", edited, "f") != before


@pytest.mark.parametrize(
    ("script", "put"),
    [
        ("train", "math.G = {}"),
        ("train.py", "math.größe = {}"),
        ("train.py", "setattr(mäß, 'größe', {})"),
        ("train.py", "vars(math).update(größe={})"),
    ],
)
def test_whatever_the_script_and_its_names_are_called(script: str, put: str, tmp_path: Path) -> None:
    """In a process of its own, whose other modules say nothing of the kind."""
    name, told = "G" if "G" in put else "größe", []
    for value in ("9.81", "9.82"):
        (tmp_path / script).write_text(
            f"import math\nimport math as mäß\n{put.format(value)}\ndef f(): return math.{name}\n"
            "from pyplantx.fingerprint.code import Fingerprinter\nprint(Fingerprinter().fingerprint(f))\n"
        )
        ran = subprocess.run([sys.executable, script], cwd=tmp_path, check=True, timeout=60, capture_output=True)
        told.append(ran.stdout)
    assert told[0] != told[1]


def test_edits_in_a_session_are_seen(tmp_path: Path) -> None:
    files = {"app.py": "import math\nmath.G = 7\ndef f(): return math.G\n"}
    printer = Fingerprinter()
    with program(tmp_path, files) as app:
        printer.begin_activity()
        before = printer.fingerprint(app.f)
        printer.end_activity()
        math.G = 8  # type: ignore[attr-defined]
        printer.begin_activity()
        assert printer.fingerprint(app.f) != before
        printer.end_activity()


TAKEN_AWAY = {
    "a method": (NAMESPACE + "Namespace.twice = lambda self: 7\n", "del Namespace.twice", "def f(x): return x.twice()"),
    "one that is called": (
        "from argparse import HelpFormatter as H\nown = H.add_text\nH.add_text = lambda self, t: 7\n",
        "H.add_text = own",
        "def f(p): return p.format_help()",
    ),
}


@pytest.mark.parametrize("name", TAKEN_AWAY)
def test_what_was_taken_away_again_does_not_count(name: str, tmp_path: Path) -> None:
    put, undo, use = TAKEN_AWAY[name]
    found = []
    with program(tmp_path / "a", {"app.py": f"{put}{use}\ndef undo():\n    {undo}\n"}) as app:
        printer = Fingerprinter()
        for then in (app.undo, lambda: None):
            printer.begin_activity()
            found.append(printer.fingerprint(app.f))
            printer.end_activity()
            then()
    assert found[1] != found[0] and found[1] == of(tmp_path / "b", f"import argparse\n{use}")


def test_who_sets_attributes_of_objects_has_no_classes_looked_at(tmp_path: Path) -> None:
    app = (
        "class C:\n    def __init__(self, **k):\n        for n in k: setattr(self, n, k[n])\n"
        "def f():\n    c = C(a=1)\n    c.b = vars(c)\n    return c\n"
    )
    (tmp_path / "run.py").write_text(
        "from pyplantx.fingerprint import additions\nadditions._all_classes = None\nimport app\n"
        "from pyplantx.fingerprint.code import Fingerprinter\nFingerprinter().fingerprint(app.f)\n"
    )
    (tmp_path / "app.py").write_text(app)
    subprocess.run([sys.executable, "run.py"], cwd=tmp_path, check=True, timeout=60)


def test_a_text_that_is_said_later_in_a_session_counts_too(tmp_path: Path) -> None:
    """Of names that are set by text it is asked which texts there are; each import may bring another one."""
    files = {
        "app.py": (
            "import math\ndef put(**kept):\n    for k in kept: setattr(math, k, kept[k])\ndef f(): return math.tau\n"
        ),
        "late.py": f"import app\napp.put({'uat'[::-1]}=3)\n",  # here it must not be said
    }
    printer = Fingerprinter()
    with program(tmp_path, files) as app:
        printer.begin_activity()
        before = printer.fingerprint(app.f)
        printer.end_activity()
        importlib.import_module("late")
        printer.begin_activity()
        assert printer.fingerprint(app.f) != before
        printer.end_activity()


def test_modules_in_the_place_of_others_are_looked_at(tmp_path: Path) -> None:
    """As many modules as before, and others."""
    found, place = [], f"math.{'ahpla'[::-1]}"  # this source must not say it
    for number in range(4):  # the first ones may load libraries, too
        patches = f"import math\n{place} = {number}\n" if number > 1 else ""
        app = f"import part{number}\nimport math\ndef f(): return {place}\n"
        found.append(fingerprints(tmp_path / f"{number}", {"app.py": app, f"part{number}.py": patches}, "f")["f"])
    assert len({*found}) == 3

"""Objects of libraries in globals: an edited seed, format or content counts, what the process makes up does not."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import ConfigError
from pyplantx.fingerprint import value
from pyplantx.fingerprint.code import Fingerprinter
from tests.fingerprint.harness import fingerprints, of_source
from tests.fingerprint.test_activity import Session

IMPORTS = (
    "import contextvars, functools, io, random, struct, types, weakref\nimport numpy as np\n"
    "class One: x = 1\nclass Two: x = 2\nKEPT = [One(), Two()]\ndef one(): return 1\ndef two(): return 2\n"
)
LONG = 122807528840384100672342137672332424406  # the example of NumPy's documentation


def of_global(made: str) -> tuple[str, list[str]]:
    names: dict[str, Any] = {}
    exec(f"{IMPORTS}K = {made}\ndef f(): return K", names)
    printer = Fingerprinter()
    return printer.fingerprint(names["f"]), printer.opaque(names["f"])


EDITS = [
    ("np.random.default_rng(1)", "np.random.default_rng(2)"),
    ("np.random.default_rng([1, 2])", "np.random.default_rng([1, 3])"),
    ("np.random.default_rng(np.random.SeedSequence(5).spawn(2)[0])", "np.random.default_rng(5)"),
    ("np.random.Generator(np.random.MT19937(1))", "np.random.Generator(np.random.MT19937(2))"),
    ("np.random.RandomState(1)", "np.random.RandomState(2)"),
    ("np.random.PCG64(1)", "np.random.PCG64(2)"),
    ("np.random.SeedSequence(1)", "np.random.SeedSequence(2)"),
    ("random.Random(1)", "random.Random(2)"),
    ("random.Random(1).random", "random.Random(2).random"),
    ("{'rng': random.Random(1)}", "{'rng': random.Random(2)}"),
    ("struct.Struct('<h')", "struct.Struct('>h')"),
    ("io.StringIO('a,b')", "io.StringIO('a,c')"),
    ("io.BytesIO(b'a')", "io.BytesIO(b'b')"),
    ("contextvars.ContextVar('v', default=1)", "contextvars.ContextVar('v', default=2)"),
    ("contextvars.ContextVar('v', default=None)", "contextvars.ContextVar('v')"),
    ("weakref.ref(One)", "weakref.ref(Two)"),
    ("weakref.proxy(KEPT[0])", "weakref.proxy(KEPT[1])"),
    ("weakref.proxy(one)", "weakref.proxy(two)"),
    ("functools.cmp_to_key(lambda a, b: 1)", "functools.cmp_to_key(lambda a, b: 2)"),
    ("{1: 1}.items()", "{1: 2}.items()"),
    ("types.CellType(1)", "types.CellType(2)"),
    ("np.frompyfunc(lambda x: x, 1, 1)", "np.frompyfunc(lambda x: x + 1, 1, 1)"),
    ("np.frompyfunc(lambda *x: 1, 1, 1)", "np.frompyfunc(lambda *x: 1, 2, 1)"),
    ("np.vectorize(lambda x: x)", "np.vectorize(lambda x: x + 1)"),
]


@pytest.mark.parametrize(("before", "after"), EDITS, ids=[before for before, _ in EDITS])
def test_an_edit_counts(before: str, after: str) -> None:
    assert of_global(before) == of_global(before)
    assert of_global(before)[0] != of_global(after)[0]
    assert of_global(before)[1] == []


@pytest.mark.parametrize("made", ["random.SystemRandom()", "np.random.default_rng()", "np.random.RandomState()"])
def test_what_has_no_seed_is_listed(made: str) -> None:
    assert of_global(made) == of_global(made)
    assert len(of_global(made)[1]) == 1


def test_a_context_variable_that_was_set_counts() -> None:
    source = f"{IMPORTS}K = contextvars.ContextVar('v', default=1)\nK.set(5)\ndef f(): return K"
    assert of_source(source) == of_source(source)
    assert of_source(source) != of_source(source.replace("K.set(5)", "K.set(6)"))


LOCAL = """\
import threading
class Settings(threading.local):
    rate = 1
    def __init__(self, depth):
        if threading.current_thread() is not threading.main_thread(): raise OSError("not here")
        self.depth = depth
bare, own = threading.local(), Settings(3)
bare.k = 4
own.rate = 5
def f(): return bare.k, own.depth, own.rate
"""


@pytest.mark.parametrize(("before", "after"), [("bare.k = 4", "bare.k = 5"), ("(3)", "(4)"), ("rate = 5", "rate = 6")])
def test_what_a_thread_has_for_itself_counts_as_the_asking_one_has_it(before: str, after: str) -> None:
    assert of_source(LOCAL) == of_source(LOCAL)
    assert of_source(LOCAL) != of_source(LOCAL.replace(before, after))


def test_what_other_threads_have_for_themselves_is_listed() -> None:
    names: dict[str, Any] = {}
    exec(LOCAL, names)
    lines = ["constant ?.bare: a _thread._local", "constant ?.own: a builtins.Settings"]
    assert Fingerprinter().opaque(names["f"]) == lines
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: Fingerprinter().opaque(names["f"])).result() == lines


def test_what_is_kept_in_the_thread_while_a_reactor_runs_is_state() -> None:
    session = Session("import threading\nL = threading.local()\nL.k = 0\ndef f():\n    L.k += 1\n    return L.k")
    before = session.activity(session.run)
    assert session.activity(session.run) == before == session.activity()
    session.edit("L.k = 20")
    assert session.activity() != before


def test_a_seed_as_long_as_those_of_the_system_counts_if_it_is_written(tmp_path: Path) -> None:
    source = f"import numpy as np\nrng = np.random.default_rng({LONG})\ndef f(): return rng.random()\n"
    edited = source.replace(str(LONG), str(LONG + 2))
    before = fingerprints(tmp_path / "a", {"app.py": source}, "f")
    assert before == fingerprints(tmp_path / "b", {"app.py": source}, "f")
    assert before != fingerprints(tmp_path / "c", {"app.py": edited}, "f")


def test_seeded_generators_are_the_same_in_every_process() -> None:
    script = (
        "import sys, numpy as np, random\nfrom pyplantx.fingerprint.code import Fingerprinter\n"
        "K = [random.Random(1), np.random.default_rng(1), np.random.RandomState(1), np.random.PCG64(1)]\n"
        "def f(): return K\nprint(Fingerprinter().fingerprint(f))"
    )
    outputs = {subprocess.check_output([sys.executable, "-c", script], text=True) for _ in range(2)}
    assert len(outputs) == 1


def test_drawing_while_a_reactor_runs_is_state() -> None:
    session = Session("import random\nrng = random.Random(1)\ndef f(): return rng.random()")
    before = session.activity(session.run)
    assert session.activity(session.run) == before == session.activity()
    session.edit("rng = random.Random(2)")
    assert session.activity() != before


def test_fields_in_c_that_nothing_shows_are_listed() -> None:
    names: dict[str, Any] = {}
    exec("import struct\nclass S(struct.Struct): pass\nK = S('<h')\ndef f(): return K", names)
    assert Fingerprinter().opaque(names["f"]) == ["constant ?.K: a builtins.S"]
    exec("class P:\n    __slots__ = ('a', '__dict__', '__weakref__')\nclass Q(P): pass\nK = [P(), Q()]", names)
    assert Fingerprinter().opaque(names["f"]) == []


def test_values_that_are_sent_see_the_same_states() -> None:
    import io
    import struct

    assert value.digest(struct.Struct("<h")) != value.digest(struct.Struct(">h"))
    assert value.digest(io.StringIO("a")) == value.digest(io.StringIO("a")) != value.digest(io.StringIO("b"))


# --- names of one's own module that are computed ------------------------------------------------------------

FOUND = {
    "globals": "def f(name): return globals()[name]",
    "globals, a call": "def f(name): return globals()['g' + name]()",
    "sys.modules": "import sys\ndef f(name): return getattr(sys.modules[__name__], name)()",
    "sys under another name": "import sys as s\ndef f(name): return getattr(s.modules[__name__], name)()",
    "sys imported inside": "def f(name):\n    import sys\n    return getattr(sys.modules[__name__], name)",
    "modules": "from sys import modules\ndef f(name): return getattr(modules[__name__], name)",
    "modules imported inside": "def f(name):\n    from sys import modules\n    return modules[__name__]",
    "in a nested function": "def f(name):\n    return [(lambda: globals()[n])() for n in name]",
    "in a helper": "def h(): return globals()\ndef f(name): return h()[name]",
    "another name": "find = globals\ndef f(name): return find()[name]",
    "builtins": "import builtins\ndef f(name): return builtins.globals()[name]",
    "eval": "def f(text): return eval(text)",
    "exec": "def f(text): exec(text)",
}


@pytest.mark.parametrize("name", FOUND)
def test_computed_names_of_the_own_module_count(name: str, tmp_path: Path) -> None:
    source = f"{FOUND[name]}\nK = 1\ndef g_x():\n    return 1\n"
    results = [
        fingerprints(tmp_path / folder, {"app.py": text}, "f")["f"]
        for folder, text in (
            ("a", source),
            ("same", source),
            ("k", source.replace("K = 1", "K = 2")),
            ("g", source.replace("    return 1", "    return 2")),
        )
    ]
    assert results[0] == results[1]
    assert len(set(results[1:])) == 3


def test_methods_that_are_called_eval_find_nothing(tmp_path: Path) -> None:
    source = "def f(frame): return frame.eval('a + b')\nK = 1\n"
    before = fingerprints(tmp_path / "a", {"app.py": source}, "f")
    assert before == fingerprints(tmp_path / "b", {"app.py": source.replace("K = 1", "K = 2")}, "f")


SHELL = """\
class InteractiveShell:
    __module__ = "IPython.core.interactiveshell"
    execution_count = 1
    def get_ipython(self): return self
get_ipython = InteractiveShell().get_ipython
def f():
    try:
        return get_ipython().__class__.__name__ != "TerminalInteractiveShell"
    except NameError:
        return False
"""


def test_who_asks_for_the_shell_of_a_notebook_does_not_see_each_cell_that_is_run() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(SHELL, names)
    printer = Fingerprinter()
    before = printer.fingerprint(names["f"])
    names["get_ipython"].__self__.execution_count = 2
    assert Fingerprinter().fingerprint(names["f"]) == before
    assert any("get_ipython" in line for line in printer.opaque(names["f"]))


def test_the_history_of_a_notebook_does_not_count() -> None:
    cells = "def get_ipython(): pass\nIn = ['a']\n_i = 'a'\n_i1 = 'a'\n_ = 1\n_3 = 4\n_dh = ['/home']\n"
    source = cells + "K = 1\ndef f(name): return globals()[name]"
    later = source.replace("'a'", "'b'").replace("_ = 1", "_ = 2").replace("_3 = 4", "_3 = 5")
    assert of_source(source) == of_source(later) != of_source(source.replace("K = 1", "K = 2"))


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"library_versions": "x"}, "library_versions='x' is unknown"),
        ({"library_versions": None}, "library_versions=None is unknown"),
        ({"track": "my package"}, "track='my package' does not name packages"),
        ({"library": ["a", 1]}, "does not name packages: 1 can't be imported"),
        ({"track": ["./src"]}, "'./src' can't be imported"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Fingerprinter(**options)
    assert message in str(caught.value) and caught.value.hint


def test_one_package_needs_no_list(tmp_path: Path) -> None:
    files = {"app.py": "from vendored import g\ndef f(): return g()\n", "vendored.py": "def g(): return 1\n"}
    edited = {**files, "vendored.py": "def g(): return 2\n"}
    first = fingerprints(tmp_path / "a", files, "f", library="vendored")
    assert first == fingerprints(tmp_path / "b", edited, "f", library="vendored")
    assert Fingerprinter(track="a.b")._boundary.is_library("a.b.c", "/x/site-packages/c.py") is False

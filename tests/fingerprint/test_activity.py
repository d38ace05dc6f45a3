"""Edits within a session are noticed; what running code does to its own globals is state."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyplantx.fingerprint import settings
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.kinds import Kind
from tests.fingerprint.harness import Role


class Session:
    """One process: a namespace, a fingerprinter, activities."""

    def __init__(self, source: str) -> None:
        self.names: dict[str, Any] = {"__name__": "app"}
        self.printer = Fingerprinter()
        self.edit(source)

    def edit(self, source: str) -> None:
        exec(source, self.names)

    def activity(self, run: Callable[[], object] = lambda: None) -> str:
        """Fingerprint of ``f`` as a plant sees it, with `run` happening meanwhile."""
        self.printer.begin_activity()
        self.printer.freeze([self.names["f"]])
        run()
        digest = self.printer.fingerprint(self.names["f"])
        self.printer.end_activity()
        return digest

    def run(self) -> object:
        return self.names["f"]()


EDITS = {
    "redefined": ("def f(): return 1", "def f(): return 2"),
    "helper": ("def g(): return 1\ndef f(): return g()", "def g(): return 2"),
    "constant": ("K = 1\ndef f(): return K", "K = 2"),
    "list": ("K = [1]\ndef f(): return K", "K.append(2)"),
    "method": ("class C:\n    def m(self): return 1\ndef f(): return C().m()", "C.m = lambda self: 2"),
    "class attribute": ("class C:\n    x = 1\ndef f(): return C.x", "C.x = 2"),
    "attribute of an object": ("class C: pass\nc = C()\nc.x = 1\ndef f(): return c.x", "c.x = 2"),
    "object with the attribute": (
        "class C:\n    def __init__(self, x): self.x = x\nc = C(1)\ndef f(): return c.x",
        "c = C(2)",
    ),
    "array": ("import numpy\nK = numpy.zeros(3)\ndef f(): return K", "K[1] = 1"),
    "default": ("def f(x=1): return x", "f.__defaults__ = (2,)"),
    "default in place": ("def f(x=[1]): return x", "f.__defaults__[0].append(2)"),
    "code": ("def g(): return 2\ndef f(): return 1", "f.__code__ = g.__code__"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_between_activities_are_noticed(name: str) -> None:
    source, edit = EDITS[name]
    session = Session(source)
    before = session.activity()
    assert session.activity() == before
    session.edit(edit)
    assert session.activity() != before
    assert session.printer.state_changes() == []


STATES = {
    "counter": "N = 0\ndef f():\n    global N\n    N += 1",
    "cache": "CACHE = {}\ndef f(): CACHE[len(CACHE)] = 1",
    "buffer": "BUFFER = bytearray(2)\ndef f(): BUFFER[0] += 1",
    "lazy": "MODEL = None\ndef f():\n    global MODEL\n    MODEL = MODEL or [1]",
    "lazy function": "G = None\ndef f():\n    global G\n    G = G or len",
    "created": "def f():\n    global NEW\n    NEW = 1\n    return NEW",
    "class attribute": "class C: n = 0\ndef f(): C.n += 1",
    "new class attribute": "class C: pass\ndef f(): C.n = 1",
    "new attribute of the class of an instance": "class C:\n    def m(self): type(self).n = 1\nc = C()\ndef f(): c.m()",
    "new function attribute": "def g(): pass\ndef f(): g.n = getattr(g, 'n', 0) + 1",
    "second function attribute": "def g(): pass\ng.a = 1\ndef f(): g.n = getattr(g, 'n', 0) + 1",
    "new name in a module that counts as a whole": "def f(): globals()['NEW'] = 1",
    "instance": "class C: pass\nc = C()\nc.n = 0\ndef f(): c.n += 1",
    "settings that a run adds to a class": "class C: n = 0\nclass D(C): pass\ndef f():\n    D.n = 1\n    return D.n",
    "settings that a run makes": (
        "S = None\nclass C:\n    def __init__(self): self.x = 1\ndef make():\n    global S\n    S = C()\n"
        "def f():\n    make()\n    return S.x"
    ),
    "closure": "def make():\n    n = 0\n    def f():\n        nonlocal n\n        n += 1\n    return f\nf = make()",
    "mutable default": "def f(seen=[]): seen.append(1)",
    "function attribute": "def f(): f.n += 1\nf.n = 0",
    "in a helper": "SEEN = []\ndef g(): SEEN.append(1)\ndef f(): g()",
    "array": "import numpy\nK = numpy.zeros(3)\ndef f(): K[0] += 1",
    "functions registered": "OPS = {}\ndef f(): OPS[len(OPS)] = lambda: 1",
    "lru_cache": (
        "import functools\n@functools.lru_cache\ndef g(n): return n\nN = []\ndef f():\n    N.append(1)\n    g(len(N))"
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_changes_during_an_activity_are_state(name: str) -> None:
    session = Session(STATES[name])
    before = session.activity()
    assert session.activity(session.run) == before
    assert session.activity(session.run) == before
    assert session.activity() == before
    assert len(session.printer.state_changes()) == 1


def test_what_runs_have_added_is_named_and_an_edit_of_it_is_an_edit() -> None:
    session = Session("class C: pass\ndef f():\n    C.made = 1")
    before = session.activity(session.run)
    assert session.printer.state_changes() == ["class app.C.made"]
    session.edit("C.made = 2")
    assert session.activity() != before
    session.edit("del C.made")
    assert session.activity() == before


ODD = {
    "all fields anew": "class C: pass\nc = C()\nc.n = 0\ndef f():\n    c.__dict__ = {'n': c.n + 1}\n    return c.n",
    "one for another": (
        "class C: pass\ndef f():\n    if hasattr(C, 'a'):\n        del C.a\n        C.b = 1\n    else: C.a = 1"
    ),
    "beside names that are no texts": "C = type('C', (), {1: 2})\ndef f(): C.n = 1",
    "a name that is no text": "def f(): globals()[5] = 1",
    "settings of an object": (
        "class C: pass\nc = C()\ndef g(): return c.n\ndef f():\n    c.__dict__['n'] = 1\n    return g()"
    ),
    "annotations": "class C: pass\nC.__annotations__\ndef f(): C.__annotations__['n'] = int",
    "settings inside others, made when first asked for": (
        "class S: inner = None\nclass C:\n    def __init__(self): self.x = 1\ndef f():\n"
        "    if S.inner is None: S.inner = C()\n    return S.inner.x"
    ),
    "settings inside others, another object each time": (
        "class C: pass\nc = C()\nc.inner = C()\nc.inner.x = N = 0\ndef renew(c, x):\n    c.inner = C()\n"
        "    c.inner.x = x\ndef f():\n    global N\n    N += 1\n    renew(c, N)\n    return c.inner.x"
    ),
    "settings of which each run makes others": (
        "S, N = None, 0\nclass C:\n    def __init__(self, x): self.x = x\ndef make():\n    global S, N\n    N += 1\n"
        "    S = C(N)\ndef f():\n    make()\n    return S.x"
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_names_that_runs_add_are_state(name: str) -> None:
    session = Session(ODD[name])
    looks = [session.activity(run) for run in (lambda: None, session.run, session.run, session.run, lambda: None)]
    assert len(set(looks)) == 1


def test_modules_may_be_filled_by_threads() -> None:
    session = Session("def f(): return globals()")
    session.names.update({f"n{number}": number for number in range(1000)})
    stop = threading.Event()

    def fill() -> None:
        while not stop.is_set():
            for number in range(200):
                session.names[f"more{number}"] = 1
            for number in range(200):
                del session.names[f"more{number}"]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=fill)
    thread.start()
    try:
        for _ in range(5):
            session.activity()
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_what_is_added_between_activities_is_an_edit() -> None:
    session = Session("class C: pass\ndef g(): pass\ndef f(): return C, g")
    looks = [session.activity()]
    for edit in ("C.made = 1", "g.made = 1"):
        session.edit(edit)
        looks.append(session.activity())
    assert len(set(looks)) == 3


def test_state_is_named() -> None:
    session = Session(STATES["in a helper"])
    session.activity(session.run)
    assert session.printer.state_changes() == ["constant app.SEEN"]


def test_a_class_of_settings_is_looked_at_once_per_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[type] = []
    monkeypatch.setattr(settings, "Kind", lambda cls: looked_at.append(cls) or Kind(cls))
    session = Session("class C: pass\nc = C()\nc.a, c.b = 1, 2\ndef g(): return c.a\ndef f(): return g() + c.b")
    before = session.activity()
    assert len(looked_at) == 1
    session.edit("C.__getattribute__ = lambda self, name: 3")
    assert session.activity() != before


def test_an_edit_of_state_is_an_edit() -> None:
    session = Session(STATES["counter"])
    before = session.activity(session.run)
    session.edit("N = 7")
    after = session.activity()
    assert after != before
    session.edit("N = 0")
    assert session.activity() == before


def test_settings_that_are_looked_at_after_a_run_are_taken_as_before_it() -> None:
    session = Session(
        "class S: inner = None\nclass C: pass\ndef f():\n    S.inner = S.inner or C()\n    S.inner.x = S.inner.y = 1\n"
        "    return S.inner.x\ndef g(): return S.inner.y"
    )
    looks = []
    for _ in range(3):
        session.printer.begin_activity()
        session.printer.freeze([session.names["f"]])
        session.run()
        looks.append(session.printer.fingerprint(session.names["g"]))
        session.printer.end_activity()
    assert len(set(looks)) == 1


@pytest.mark.parametrize("edit", ["c.inner.x = 5", "c.inner = C()\nc.inner.x = 5", "c = C()\nc.inner = c\nc.x = 5"])
def test_an_edit_of_settings_that_a_run_has_exchanged_is_an_edit(edit: str) -> None:
    session = Session(ODD["settings inside others, another object each time"])
    before = session.activity(session.run)
    assert session.activity(session.run) == before
    session.edit(edit)
    assert session.activity() != before


def test_another_edit_keeps_state_out() -> None:
    """The edited helper counts, the cache that grew does not: the same as a fresh process sees."""
    source = "CACHE = {}\ndef g(): return 1\ndef f():\n    CACHE[len(CACHE)] = g()"
    session = Session(source)
    before = session.activity(session.run)
    session.edit("def g(): return 2")
    after = session.activity(session.run)
    fresh = Session(source.replace("return 1", "return 2"))
    assert before != after == fresh.activity()


def test_reverting_gives_the_old_fingerprint() -> None:
    session = Session("def g(): return 1\ndef f(): return g()")
    before = session.activity()
    session.edit("def g(): return 2")
    session.activity()
    session.edit("def g(): return 1")
    assert session.activity() == before


def test_an_activity_that_did_not_end_is_ended_by_the_next() -> None:
    session = Session(STATES["counter"])
    session.printer.begin_activity()
    before = session.printer.fingerprint(session.names["f"])
    session.run()
    assert session.activity() == before


def test_what_changes_while_nothing_runs_is_an_edit() -> None:
    session = Session("K = 1\ndef f(): return K")
    session.printer.begin_activity()
    before = session.printer.fingerprint(session.names["f"])
    session.printer.leave_activity()
    session.edit("K = 2")
    assert session.activity() != before
    assert session.printer.state_changes() == []


def test_config_values_see_edits_too() -> None:
    session = Session("def f(): return 1")
    value = {"f": session.names["f"]}
    session.printer.begin_activity()
    before = session.printer.encode_value(value)
    session.printer.end_activity()
    session.names["f"].__code__ = (lambda: 2).__code__
    session.printer.begin_activity()
    assert session.printer.encode_value(value) != before


def test_reactors_in_globals_count_as_their_functions() -> None:
    def wrapped(body: str, kind: str) -> str:
        names: dict[str, Any] = {}
        exec(f"def g(): return {body}\ndef f(): return g", names)
        names["g"] = Role(kind, names["g"])
        return Fingerprinter().fingerprint(Role("reactor", names["f"]))

    assert wrapped("1", "reactor") != wrapped("2", "reactor")
    assert wrapped("1", "subreactor") == wrapped("2", "subreactor")


def test_looking_at_a_class_does_not_change_it() -> None:
    class Seen:
        value = 1

    before = Fingerprinter().fingerprint(Seen)
    copy.copy(Seen())
    assert Seen.__annotations__ == {}
    assert {"__slotnames__", "__annotations__"} & set(vars(Seen))
    assert Fingerprinter().fingerprint(Seen) == before


CLASS = "class C:\n n = 1\n"
MADE = f"{CLASS}K = C()\n"


def test_an_object_of_a_class_that_was_defined_anew_is_another_one_to_who_names_both() -> None:
    session = Session(f"{MADE}def f(): return isinstance(K, C)\ndef g(): return K.n")
    before, other = session.activity(), session.printer.fingerprint(session.names["g"])
    session.edit(CLASS)
    assert session.run() is False
    assert session.activity() != before
    assert list(session.printer.parts(session.names["f"]))[-1] == "objects of a former class app.C"
    assert session.printer.fingerprint(session.names["g"]) == other  # that can't ask
    session.edit("K = C()")
    assert session.activity() == before


def test_whatever_else_is_looked_at_first() -> None:
    session = Session(f"{MADE}def f(): return K, C\ndef g(): return L")
    session.edit(f"{CLASS}L = C()")
    session.edit(CLASS)
    alone = session.activity()
    session.printer.begin_activity()
    session.printer.fingerprint(session.names["g"])
    assert session.printer.fingerprint(session.names["f"]) == alone


@pytest.mark.parametrize("made", ["[C(), 1]", "functools.partial(C().get)", "C", "Other(C())"])
def test_wherever_an_object_of_a_former_class_lies(made: str) -> None:
    head = "import functools\nclass Other:\n def __init__(self, c): self.c = c\n"
    body = CLASS + " def get(self): return self\n"
    session = Session(f"{head}{body}K = {made}\ndef f(): return K, C")
    before = session.activity()
    session.edit(body)
    assert session.activity() != before


def test_classes_that_a_function_makes_are_no_former_ones() -> None:
    session = Session("def make():\n class C: pass\n return C\nA, B = make(), make()\ndef f(): return A, B")
    session.activity()
    assert not any(label.startswith("objects of") for label in session.printer.parts(session.names["f"]))

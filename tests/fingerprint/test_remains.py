"""What a memo of the user's own keeps from before an edit is not stored as the value of the new code."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from pyplantx import Plant
from pyplantx.blocks.logbook import Logbook
from pyplantx.fingerprint.uses import uses
from pyplantx.testing import forget_reactors

HEAD = "import functools, random, itertools\nfrom pyplantx import ReactorFunc, SubreactorFunc, untracked\nK = 3\n"
REACTOR = "@ReactorFunc\ndef r(pipe): pipe.send('y', cached(2))\n"

MEMOS = {
    "a dict": "CACHE = {}\ndef cached(k):\n if k not in CACHE: CACHE[k] = k * K\n return CACHE[k]\n" + REACTOR,
    "a default": "def cached(k, kept={}):\n if k not in kept: kept[k] = k * K\n return kept[k]\n" + REACTOR,
    "a global": "KEPT = None\ndef cached(k):\n global KEPT\n if KEPT is None: KEPT = k * K\n return KEPT\n" + REACTOR,
    "a list": "KEPT = []\ndef cached(k):\n if not KEPT: KEPT.append(k * K)\n return KEPT[0]\n" + REACTOR,
    "setdefault": "CACHE = {}\ndef cached(k): return CACHE.setdefault(k, k * K)\n" + REACTOR,
    "a class": "class C:\n kept = {}\n @classmethod\n def of(cls, k): return cls.kept.setdefault(k, k * K)\n"
    "def cached(k): return C.of(k)\n" + REACTOR,
    "an attribute of a class": "class C:\n def of(self, k):\n  if not hasattr(C, 'kept'): C.kept = k * K\n"
    "  return C.kept\ndef cached(k): return C().of(k)\n" + REACTOR,
    "an attribute of a function": "def cached(k):\n if not hasattr(cached, 'kept'): cached.kept = k * K\n"
    " return cached.kept\n" + REACTOR,
    "an attribute of a class, from elsewhere": "class C: pass\ndef cached(k):\n"
    " if not hasattr(C, 'kept'): C.kept = k * K\n return C.kept\n" + REACTOR,
    "an attribute of another function": "def g(): pass\ndef cached(k):\n"
    " if not hasattr(g, 'kept'): g.kept = k * K\n return g.kept\n" + REACTOR,
    "an attribute under a computed name": "class C: pass\ndef cached(k):\n"
    " if not hasattr(C, f'a{k}'): setattr(C, f'a{k}', k * K)\n return getattr(C, f'a{k}')\n" + REACTOR,
    "a method called as those that only add": "class C:\n def __init__(self): self.kept = {}\n def update(self, k):\n"
    "  return self.kept.setdefault(k, k * K)\nONE = C()\ndef cached(k): return ONE.update(k)\n" + REACTOR,
    "an object": "class C:\n def __init__(self): self.kept = {}\n def of(self, k):\n"
    "  if k not in self.kept: self.kept[k] = k * K\n  return self.kept[k]\nONE = C()\n"
    "def cached(k): return ONE.of(k)\n" + REACTOR,
    "a cached property": "class C:\n @functools.cached_property\n def kept(self): return 2 * K\nONE = C()\n"
    "def cached(k): return ONE.kept\n" + REACTOR,
    "a decorator": "def memo(f):\n kept = {}\n def inner(k):\n  if k not in kept: kept[k] = f(k)\n  return kept[k]\n"
    " return inner\n@memo\ndef cached(k): return k * K\n" + REACTOR,
    "what is given": "CACHE = {}\ndef memo(k, make):\n if k not in CACHE: CACHE[k] = make()\n return CACHE[k]\n"
    "def cached(k): return memo(k, lambda: k * K)\n" + REACTOR,
    "a subreactor": "CACHE = {}\n@SubreactorFunc\ndef sub(pipe, k):\n if k not in CACHE: CACHE[k] = k * K\n"
    " return CACHE[k]\n yield\n@ReactorFunc\ndef r(pipe):\n y = yield from sub(pipe, 2)\n pipe.send('y', y)\n",
}
LEFT_ALONE = {
    "a log": "LOG = []\ndef cached(k):\n LOG.append(k)\n return k * K\n" + REACTOR,
    "a dict that is only written": "LOG = {}\ndef cached(k):\n LOG[k, str(k)] = f'{k}'\n return k * K\n" + REACTOR,
    "a counter": "N = 0\ndef cached(k):\n global N\n N += 1\n return k * K\n" + REACTOR,
    "a dict of counters": "N = {2: 0}\ndef cached(k):\n N[k] += 1\n return k * K\n" + REACTOR,
    "a counter of a class": "class C:\n n = 0\ndef cached(k):\n C.n += 1\n return k * K\n" + REACTOR,
    "a counter of an object": "class C: pass\nONE = C()\nONE.n = 0\ndef cached(k):\n ONE.n += 1\n ONE.last = k\n"
    " return k * K\n" + REACTOR,
    "logs by kind": "import collections\nLOG = collections.defaultdict(list)\ndef cached(k):\n"
    " LOG[k].append('a' if k else 'b')\n return k * K\n" + REACTOR,
    "an attribute that the caller does not write": "class C:\n @classmethod\n def note(cls, k): cls.kept = k\n"
    "def cached(k):\n C.note(k)\n return k * K\n" + REACTOR,
    "a decorator that counts": "def count(f):\n n = 0\n def inner(k):\n  nonlocal n\n  n += 1\n  return f(k)\n"
    " return inner\n@count\ndef cached(k): return k * K\n" + REACTOR,
    "random numbers": "RNG = random.Random(1)\ndef cached(k): return k * K + 0 * RNG.random()\n" + REACTOR,
    "numbers": "N = itertools.count()\ndef cached(k): return k * K + 0 * next(N)\n" + REACTOR,
    "a memo of other code": "CACHE = {}\ndef other(k):\n if k not in CACHE: CACHE[k] = k * 2\n return CACHE[k]\n"
    "def cached(k): return other(k) * 0 + k * K\n" + REACTOR,
    "a memo that is untracked": "CACHE = {}\n@untracked\ndef other(k):\n if k not in CACHE: CACHE[k] = k\n"
    " return CACHE[k]\ndef cached(k): return other(k) * K\n" + REACTOR,
}


def notebook(monkeypatch: pytest.MonkeyPatch, cell: str) -> dict[str, Any]:
    """The namespace of a notebook in which the cell was run."""
    forget_reactors()
    monkeypatch.setitem(sys.modules, "notebook_of_a_test", types.ModuleType("notebook_of_a_test"))
    names = vars(sys.modules["notebook_of_a_test"])
    exec(HEAD + cell, names)
    return names


@pytest.mark.parametrize("kind", MEMOS)
def test_what_other_code_has_kept_is_not_stored_as_the_value_of_the_new_code(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = notebook(monkeypatch, MEMOS[kind])
    with Plant(tmp_path / "plant") as plant:
        assert [plant.produce("y"), plant.produce("y")] == [6, 6]
        assert not caplog.messages
        names["K"] = 4
        for _ in range(2):
            plant.produce("y")
            assert "not kept for reuse, as it read" in str(plant.explain("y"))
        assert [message.startswith("reactor r has run, and ") for message in caplog.messages] == [True, True]
        names["K"] = 3
        assert plant.produce("y") == 6
        assert plant.explain("y").action == "up to date"
    names = notebook(monkeypatch, MEMOS[kind])
    names["K"] = 4
    with Plant(tmp_path / "plant") as plant:
        assert plant.produce("y") == 8


def test_a_memo_that_is_made_anew_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = notebook(monkeypatch, MEMOS["a dict"])
    with Plant(tmp_path / "plant") as plant:
        plant.produce("y")
        names["K"] = 4
        plant.produce("y")
        names["CACHE"].clear()
        caplog.clear()
        assert [plant.produce("y"), plant.produce("y")] == [8, 8]
        assert len(plant.get_execution_history()) == 3
        assert not caplog.messages


@pytest.mark.parametrize("keep", ["pipe.checkpoint('k', y)", "fill(pipe, y)"])
def test_what_is_kept_for_after_a_kill_is_not_of_other_code(
    keep: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    cell = (
        "import numpy as np\nfrom pyplantx import specs\nCACHE, ENDS = {}, {}\n"
        "def cached(k):\n if k not in CACHE: CACHE[k] = k * K\n return CACHE[k]\n"
        "def fill(pipe, y):\n z = pipe.allocate('z', specs.HdfArraySpec, shape=(4,), dtype=int)\n"
        " pipe.map_blocks(np.negative, np.full(4, y), out=z)\n ENDS.get('it', lambda: None)()\n pipe.send('z', z)\n"
        "@ReactorFunc\ndef r(pipe):\n y = pipe.checkpoint('k', default=None) or cached(2)\n "
        + keep
        + "\n ENDS.get('it', lambda: None)()\n pipe.send('y', y)\n"
    )
    kept: list[str] = []
    monkeypatch.setattr(Logbook, "__init__", _noting(Logbook.__init__, kept))

    def end() -> None:
        raise KeyError("ends")

    names = notebook(monkeypatch, cell)
    with Plant(tmp_path / "plant") as plant:
        assert plant.produce("y") == 6
        assert kept
        kept.clear()
        names["K"] = 4
        names["ENDS"]["it"] = end
        with pytest.raises(KeyError):
            plant.produce("y")
        assert kept == []
    names = notebook(monkeypatch, cell)
    names["K"] = 4
    with Plant(tmp_path / "plant") as plant:
        assert plant.produce("y") == 8


def _noting(plain: Any, noted: list[str]) -> Any:
    def init(self: Any, *arguments: Any) -> None:
        noted.append("kept")
        plain(self, *arguments)

    return init


@pytest.mark.parametrize("kind", LEFT_ALONE)
def test_logs_counters_and_what_is_drawn_from_are_left_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = notebook(monkeypatch, LEFT_ALONE[kind])
    with Plant(tmp_path / "plant") as plant:
        assert plant.produce("y") == 6
        names["K"] = 4
        assert [plant.produce("y"), plant.produce("y")] == [8, 8]
        assert len(plant.get_execution_history()) == 2
    assert not caplog.messages


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("X[a] = b", False),
        ("X[a, b['c']] = f'{a} {b:>{a}}'", False),
        ("X[a] += b", False),
        ("del X[a]", False),
        ("X.append(a)", False),
        ("global X; X += 1", False),
        ("a.X += 1", False),
        ("X.append('a' if a else [b for b in a])", False),
        ("X[a].append(b)", False),
        ("X[a][b] = a", False),
        ("X.n = a", False),
        ("X.n += a", False),
        ("del X.n", False),
        ("a.n, b = X.append(b), 1", True),
        ("return X.add(a)", True),
        ("return X[a].add(b) if a else b", True),
        ("return f(X.append)", True),
        ("X.n.m = X[a]", True),
        ("a.n += X.n", True),
        ("a.n = X", True),
        ("X.append(X)", True),
        ("b = X", True),
        ("b = X[a]", True),
        ("a[X[b]] = b", True),
        ("a[b] = X", True),
        ("a[b] = X[b]", True),
        ("X[a if b else a] = b", True),
        ("X[a] = b = X", True),
        ("return len(X)", True),
        ("return a in X", True),
        ("X(a)", True),
        ("X.append", False),
        ("a.b = X + 1", True),
        ("a.n = a.X + 1", True),
    ],
)
def test_what_code_does_with_a_name(body: str, read: bool) -> None:
    names: dict[str, Any] = {}
    exec(f"def f(a, b): {body}", names)
    assert any(uses(names["f"].__code__, {"X"})) is read
    exec(f"def f(a, b):\n def g(a, b): {body}", names)
    assert any(uses(names["f"].__code__, {"X"})) is read


SHARED = (
    "CACHE = {}\ndef cached(k): return CACHE.setdefault(k, k * K)\n" + REACTOR + "@ReactorFunc\n"
    "def t(pipe): pipe.send('t', len(CACHE))\n"
)


def test_what_a_reactor_of_another_plant_may_have_filled_is_trusted_until_that_is_edited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = notebook(monkeypatch, SHARED)
    forget_reactors()
    with Plant(tmp_path / "one") as plant:
        plant.add_reactors(names["r"], names["t"])
        plant.produce("y")
    with Plant(tmp_path / "two") as plant:
        plant.add_reactors(names["r"])
        assert [plant.produce("y"), plant.produce("y")] == [6, 6]
        assert plant.explain("y").action == "up to date"
    assert not caplog.messages
    names["t"] = None  # its cell was run again, and says something else
    with Plant(tmp_path / "three") as plant:
        plant.add_reactors(names["r"])
        plant.produce("y")
        assert "not kept for reuse, as it read" in str(plant.explain("y"))


def test_plants_that_look_at_libraries_in_other_ways_know_of_one_another_what_they_have_filled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    cell = MEMOS["a dict"] + "@ReactorFunc\ndef s(pipe): pipe.send('z', cached(5))\n"
    names = notebook(monkeypatch, cell)
    with Plant(tmp_path / "one") as one, Plant(tmp_path / "two", library_versions="exact") as two:
        assert [one.produce("y"), two.produce("z"), two.produce("y"), one.produce("z")] == [6, 15, 6, 15]
        for plant in (one, two):
            plant.produce("y")
            assert plant.explain("y").action == "up to date"
        names["K"] = 4
        for plant in (two, one, two):
            plant.produce("y")
            assert "not kept for reuse, as it read" in str(plant.explain("y"))
        names["CACHE"].clear()
        assert [two.produce("y"), one.produce("y")] == [8, 8]
        one.produce("y")
        assert one.explain("y").action == "up to date"
    notebook(monkeypatch, cell)["K"] = 4
    with Plant(tmp_path / "two", library_versions="exact") as two:
        assert [two.produce("y"), two.produce("z")] == [8, 20]

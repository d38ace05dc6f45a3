"""What a fingerprint follows: one program per kind of reference, with edits that count and edits that do not."""

from __future__ import annotations

import glob
import importlib
import importlib.machinery
import importlib.util
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import CannotFingerprint
from pyplantx.fingerprint import tracked, untracked
from pyplantx.fingerprint.code import Fingerprinter
from tests.fingerprint.harness import DictMemo, fingerprints, of_source, program

#: name -> (source with a function f, [(old, new)] that count, [(old, new)] that do not)
KINDS: dict[str, tuple[str, list[tuple[str, str]], list[tuple[str, str]]]] = {
    "global": ("K = 1\nL = 2\ndef f(): return K", [("K = 1", "K = 2"), ("K = 1", "pass")], [("L = 2", "L = 3")]),
    "missing name": ("def f(): return K", [("def f", "K = 1\ndef f")], [("def f", "L = 1\ndef f")]),
    "helper": ("def g(): return 1\ndef f(): return g()", [("return 1", "return 2")], [("def g", "# x\ndef g")]),
    "helper of a helper": (
        "def h(): return 1\ndef g(): return h()\ndef f(): return g()",
        [("return 1", "return 2")],
        [],
    ),
    "shadowed builtin": ("def f(): return len('a')", [("def f", "def len(x): return 0\ndef f")], []),
    "builtin of the program's own": (
        "import builtins\ndef g(x): return x\nbuiltins.a_test_scales = g\nbuiltins.A_TEST_HAS = 1\n"
        "def f(): return a_test_scales(A_TEST_HAS)",
        [("return x", "return -x"), ("HAS = 1", "HAS = 2"), ("scales = g", "scales = abs")],
        [("def g", "# x\ndef g")],
    ),
    "hung into a library": (
        "import math, xml.dom\nimport functools\ndef g(x): return x\ndef h(x): return x * 2\nclass C:\n    k = 1\n"
        "math.a_test_hangs = g\nxml.dom.a_test_hangs = functools.partial(h, 1)\nmath.ATest = C\n"
        "def f(): return math.a_test_hangs(xml.dom.a_test_hangs()), math.ATest.k",
        [("return x\n", "return -x\n"), ("x * 2", "x * 3"), ("(h, 1)", "(h, 2)"), ("k = 1", "k = 2"), ("= g", "= abs")],
        [("def g", "# x\ndef g")],
    ),
    "hung into a library, imported by the function": (
        "import math\nmath.a_test_hangs = lambda x: x\nmath.another = lambda x: x + 1\n"
        "def f():\n    import math as m\n    from math import another\n    return m.a_test_hangs(another(1))",
        [("x: x\n", "x: -x\n"), ("x + 1", "x + 2")],
        [],
    ),
    "derived classes": (
        "class B:\n    @classmethod\n    def all(cls): return cls.__subclasses__()\nclass C(B):\n    k = 1\n"
        "class D(C):\n    k = 2\nclass Other:\n    k = 3\ndef f(): return B.all()",
        [("k = 1", "k = 4"), ("k = 2", "k = 4"), ("C(B)", "C"), ("class D", "class C2(B): pass\nclass D")],
        [("k = 3", "k = 4"), ("class C(", "# x\nclass C(")],
    ),
    "derived classes, by text": (
        "class B: pass\nclass C(B):\n    k = 1\ndef f(): return getattr(B, '__subclasses__')()",
        [("k = 1", "k = 2")],
        [],
    ),
    "what derived classes read": (
        "class B: pass\nclass C(B):\n    def m(self): return C.__doc__, D().m.__doc__\nclass D(B):\n"
        "    'a'\n    def m(self): 'b'\ndef f(): return [C().m() for C in B.__subclasses__()]",
        [("'a'", "'c'"), ("'b'", "'c'")],
        [],
    ),
    "derived classes that nobody asks for": (
        "class B: pass\nclass C(B):\n    k = 1\ndef f(): return B()",
        [],
        [("k = 1", "k = 2"), ("C(B)", "C")],
    ),
    "registered classes": (
        "import abc\nclass A(abc.ABC): pass\nclass B: pass\nclass C: pass\nA.register(B)\nA.register(list)\n"
        "def f(x): return isinstance(x, A)",
        [("A.register(B)\n", ""), ("register(B)", "register(C)"), ("(list)", "(dict)")],
        [("A.register(B)\nA.register(list)", "A.register(list)\nA.register(B)")],
    ),
    "attribute of a plain class": (
        "class B: pass\nclass C(B):\n    lr = 1\n    other = 2\n    class D:\n        deep = 3\n        rest = 4\n"
        "    def m(self): return 5\ndef f(): return C.lr + C.D.deep",
        [("lr = 1", "lr = 2"), ("deep = 3", "deep = 4"), ("lr = 1", "lr = property(len)")],
        [("other = 2", "other = 3"), ("rest = 4", "rest = 5"), ("return 5", "return 6"), ("C(B)", "C")],
    ),
    "attribute of a plain object": (
        "import argparse, types\nclass C:\n    def __init__(self): self.lr, self.other = 1, 2\n"
        "    def m(self): return 3\nc = C()\na = argparse.Namespace(width=4, out=5)\n"
        "n = types.SimpleNamespace(deep=a, rest=6)\ndef f(): return c.lr, a.width, n.deep.width",
        [("1, 2", "7, 2"), ("width=4", "width=5"), ("return 3", "return 3\n    lr = property(len, print)")],
        [("1, 2", "1, 7"), ("return 3", "return 4"), ("out=5", "out=6"), ("rest=6", "rest=7")],
    ),
    "attribute in which more has a say": (
        "class M(type):\n    def __getattribute__(c, n): return 1 if n == 'x' else type.__getattribute__(c, n)\n"
        "class A(metaclass=M): x = 0\nclass B:\n    y = 2\n"
        "class C(B):\n    def __init__(self): self.z = 0\n    def __getattribute__(self, n): return 3\nc = C()\n"
        "class D:\n    def __init__(self): self.__dict__['v'] = 0\n    @property\n    def v(self): return 4\nd = D()\n"
        "class E:\n    def m(self): return 5\ne = E()\ndef f(): return A.x, C.y, c.z, d.v, e.m(), E.m(e)",
        [(f"return {n}", f"return {n + 10}") for n in (1, 3, 4, 5)] + [("y = 2", "y = 3")],
        [],
    ),
    "attribute of an object that says what it is": (
        "class C:\n    def __init__(self, x, key): self.x, self.key = x, key\n"
        "    def __fingerprint__(self): return self.key\nc = C(1, 2)\ndef f(): return c.x",
        [("1, 2", "1, 3")],
        [("1, 2", "7, 2")],
    ),
    "closure": ("def m(n):\n    def f(): return n\n    return f\nf = m(1)", [("m(1)", "m(2)")], []),
    "empty closure": (
        "def m():\n    def f(): return n\n    return f\n    n = 1\nf = m()",
        [("return n", "return -n")],
        [],
    ),
    "nonlocal function": (
        "def m():\n    def g(): return 1\n    def f(): return g()\n    return f\nf = m()",
        [("return 1", "return 2")],
        [],
    ),
    "lambda": ("g = lambda x: x + 1\ndef f(): return g(1)", [("x + 1", "x + 2")], []),
    "decorator": (
        "def deco(fn):\n    def wrapped(*a): return fn(*a) + 1\n    return wrapped\n@deco\ndef f(): return 1",
        [("+ 1", "+ 2"), ("return 1", "return 2"), ("@deco\n", "")],
        [],
    ),
    "wraps": (
        "import functools\ndef deco(fn):\n    @functools.wraps(fn)\n"
        "    def wrapped(*a): return fn(*a) + 1\n    return wrapped\n"
        "@deco\ndef f(): return 1",
        [("+ 1", "+ 2"), ("return 1", "return 2")],
        [],
    ),
    "lru_cache": (
        "import functools\n@functools.lru_cache\ndef g(x): return x\ndef f(): return g(1)",
        [("return x", "return -x")],
        [],
    ),
    "contextmanager": (
        "import contextlib\n@contextlib.contextmanager\ndef g():\n    yield 1\ndef f():\n    with g() as x: return x",
        [("yield 1", "yield 2")],
        [],
    ),
    "singledispatch": (
        "import functools\n@functools.singledispatch\ndef g(x): return 1\n"
        "@g.register\ndef _(x: int): return 2\ndef f(): return g(3)",
        [("return 1", "return 0"), ("return 2", "return 3"), ("x: int", "x: str")],
        [],
    ),
    "partial": (
        "import functools\ndef g(x, y): return x\nh = functools.partial(g, 1)\ndef f(): return h(2)",
        [("g, 1", "g, 2"), ("return x", "return y")],
        [],
    ),
    "bound method": (
        "class C:\n    def __init__(self, n): self.n = n\n"
        "    def m(self): return self.n\ng = C(1).m\ndef f(): return g()",
        [("C(1)", "C(2)"), ("return self.n", "return -self.n")],
        [],
    ),
    "instance": (
        "class C:\n    def m(self): return 1\nc = C()\nc.n = 1\ndef f(): return c.m()",
        [("return 1", "return 2"), ("c.n = 1", "c.n = 2")],
        [],
    ),
    "callable instance": (
        "class C:\n    def __call__(self): return 1\nc = C()\ndef f(): return c()",
        [("return 1", "return 2")],
        [],
    ),
    "slots": (
        "class C:\n    __slots__ = ('n',)\n    def __init__(self, n): self.n = n\nc = C(1)\ndef f(): return c.n",
        [("C(1)", "C(2)")],
        [],
    ),
    "metaclass": (
        "class M(type):\n    def __len__(cls): return 1\nclass C(metaclass=M): pass\ndef f(): return len(C)",
        [("return 1", "return 2")],
        [],
    ),
    "mixin order": (
        "class A:\n    def m(self): return 1\nclass B:\n"
        "    def m(self): return 2\nclass C(A, B): pass\ndef f(): return C().m()",
        [("(A, B)", "(B, A)")],
        [],
    ),
    "class docstring": (
        "class C:\n    'doc'\n    x = 1\ndef f(): return C.x",
        [("x = 1", "x = 2")],
        [("'doc'", "'other'")],
    ),
    "classmethod": (
        "class C:\n    @classmethod\n    def m(cls): return 1\ndef f(): return C.m()",
        [("return 1", "return 2"), ("classmethod", "staticmethod")],
        [],
    ),
    "cached_property": (
        "import functools\nclass C:\n    @functools.cached_property\n    def m(self): return 1\ndef f(): return C().m",
        [("return 1", "return 2")],
        [],
    ),
    "property setter": (
        "class C:\n    @property\n    def m(self): return 1\n"
        "    @m.setter\n    def m(self, v): self.v = v\ndef f(): return C()",
        [("self.v = v", "self.v = -v")],
        [],
    ),
    "dataclass factory": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n"
        "    x: list = dataclasses.field(default_factory=lambda: [1])\ndef f(): return C()",
        [("[1]", "[2]"), ("x: list", "x: tuple"), ("dataclass\n", "dataclass(frozen=True)\n")],
        [],
    ),
    "enum method": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n    def m(self): return 1\ndef f(): return E.A.m()",
        [("A = 1", "A = 3"), ("return 1", "return 2"), ("B = 2", "C = 2")],
        [],
    ),
    "enum member": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\nX = E.A\ndef f(): return X",
        [("E.A", "E.B"), ("A = 1", "A = 3")],
        [],
    ),
    "fields of enum members": (
        "import enum\nclass E(enum.Enum):\n    A = (1, 5)\n    B = (2, 5)\n    def __new__(cls, v, mass):\n"
        "        o = object.__new__(cls)\n        o._value_, o.mass = v, mass\n        return o\n"
        "E.B.later = 1\ndef f(): return E.A.mass, E.B.later",
        [("(1, 5)", "(1, 6)"), ("later = 1", "later = 2")],
        [],
    ),
    "fields of an enum member alone": (
        "import enum\nclass E(enum.Enum):\n    A = 1, 5\n    B = 1, 6\n"
        "    def __init__(self, v, w): self.w = w\nX = E.A\nX.k = 1\ndef f(): return X",
        [("1, 5", "1, 7"), ("k = 1", "k = 2")],
        [],
    ),
    "enum members that are not their value": (
        "import enum\nn = 2\nclass E(str, enum.Enum):\n    A = 'a'\n    def __new__(cls, v):\n"
        "        o = str.__new__(cls, v * n)\n        o._value_ = v\n        return o\n"
        "def f(): return E.A.upper()",
        [("n = 2", "n = 3")],
        [],
    ),
    "flag": (
        "import enum\nclass E(enum.Flag):\n    A = 1\n    B = 2\ndef f(): return E.A | E.B",
        [("B = 2", "B = 4")],
        [],
    ),
    "namedtuple class": (
        "import typing\nclass P(typing.NamedTuple):\n    a: int = 1\ndef f(): return P()",
        [("= 1", "= 2")],
        [],
    ),
    "abstract class": (
        "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\n"
        "class B(A):\n    def m(self): return 1\ndef f(): return B().m()",
        [("return 1", "return 2")],
        [],
    ),
    "exception class": (
        "class X(Exception):\n    code = 1\ndef f():\n    raise X",
        [("code = 1", "code = 2"), ("(Exception)", "(ValueError)")],
        [],
    ),
    "nested containers": (
        "K = {'a': [1, {2: (3, lambda: 4)}]}\ndef f(): return K",
        [("lambda: 4", "lambda: 5"), ("(3,", "(9,")],
        [],
    ),
    "self-reference": ("def f(n): return f(n - 1) if n else 0", [("else 0", "else 1")], []),
    "mutual recursion": (
        "def g(n): return f(n - 1)\ndef f(n): return g(n) if n else 0\n",
        [("else 0", "else 1"), ("n - 1", "n - 2")],
        [("def g", "\n# x\ndef g")],
    ),
    "function attribute": ("def f(): return f.k\nf.k = 1", [("f.k = 1", "f.k = 2")], []),
    "regex": ("import re\nP = re.compile('a')\ndef f(): return P", [("'a')", "'b')"), ("'a')", "'a', re.I)")], []),
    "path, decimal, date": (
        "import pathlib, decimal, datetime\n"
        "K = [pathlib.Path('a'), decimal.Decimal('1'), datetime.date(2026, 1, 1)]\ndef f(): return K",
        [("'a'", "'b'"), ("'1'", "'1.0'"), ("1, 1)", "1, 2)")],
        [],
    ),
    "typing": ("import typing\nK = typing.Optional[int]\ndef f(): return K", [("Optional[int]", "Optional[str]")], []),
    "ufunc": ("import numpy as np\nK = np.sin\ndef f(): return K(1)", [("np.sin", "np.cos")], []),
    "vectorize": (
        "import numpy as np\n@np.vectorize\ndef g(x): return x\ndef f(): return g(1)",
        [("return x", "return -x")],
        [],
    ),
    "class-based decorator": (
        "import functools\nclass D:\n    def __init__(self, fn):\n        functools.update_wrapper(self, fn)\n"
        "    def __call__(self, x): return self.__wrapped__(x) + 1\n"
        "@D\ndef g(x):\n    'doc'\n    return x\ndef f(): return g(1)",
        [("return x", "return -x"), ("(x) + 1", "(x) + 2")],
        [("'doc'", "'other doc'"), ("g(x):", "g(x: int) -> int:")],
    ),
    "twins as values": (
        "class A: pass\nclass B: pass\nMODE = A\nCATCH = [(B,)]\ndef g(k=A): return k\n"
        "def f(): return MODE is A, CATCH, g() is B",
        [("MODE = A", "MODE = B"), ("[(B,)]", "[(A,)]"), ("k=A", "k=B")],
        [("class B: pass", "class B: 'a marker'")],
    ),
    "twins as bases": (
        "class A: pass\nclass B: pass\nclass M(type): pass\nclass N(type): pass\nclass C(A, metaclass=M): pass\n"
        "def f(): return isinstance(C(), A)",
        [("C(A", "C(B"), ("metaclass=M", "metaclass=N")],
        [],
    ),
    "twins that are wrapped": (
        "import functools\nclass A: pass\nclass B: pass\n@functools.wraps(A)\ndef g(): pass\n"
        "def f(): return g.__wrapped__ is A",
        [("wraps(A)", "wraps(B)")],
        [],
    ),
    "twins of functions": (
        "def a(): pass\ndef b(): pass\ng = a\ndef f(): return g()",
        [],
        [("g = a", "g = b")],
    ),
    "numba dispatcher": (
        "class D:\n    def __init__(self, fn): self.py_func = fn\n@D\ndef g(x): return x\ndef f(): return g",
        [("return x", "return -x")],
        [],
    ),
    "object with a py_func": (
        "class D:\n    def __init__(self, fn, k): self.py_func, self.k = fn, k\n"
        "    def __call__(self, x): return self.py_func(x) * self.k\n"
        "g = D(lambda x: x, 3)\ndef f(): return g(1)",
        [("x: x", "x: -x"), (", 3)", ", 4)"), (") * self", ") + self")],
        [],
    ),
    "derived property": (
        "class lazy(property):\n    times = 2\n    def __init__(self, fn):\n"
        "        super().__init__(fn)\n        self.plus = 1\n"
        "    def __get__(self, i, o): return super().__get__(i, o) * self.times + self.plus\n"
        "class C:\n    @lazy\n    def p(self): return 1\ndef f(): return C().p",
        [("return 1", "return 2"), ("times = 2", "times = 3"), ("plus = 1", "plus = 2"), (", o) *", ", o) -")],
        [],
    ),
    "derived classmethod": (
        "class classproperty(classmethod):\n    def __get__(self, i, o): return super().__get__(i, o)() + 1\n"
        "class C:\n    @classproperty\n    def p(cls): return 1\ndef f(): return C.p",
        [("return 1", "return 2"), ("+ 1", "+ 2")],
        [],
    ),
    "derived staticmethod": (
        "class S(staticmethod):\n    __slots__ = ('k',)\n"
        "    def __call__(self, x): return super().__call__(x) + self.k\n"
        "s = S(lambda x: x)\ns.k = 1\ndef f(): return s(1)",
        [("x: x", "x: -x"), (") + self", ") - self"), ("s.k = 1", "s.k = 2")],
        [],
    ),
    "derived cached_property": (
        "import functools\nclass cp(functools.cached_property):\n"
        "    def __get__(self, i, o=None): return super().__get__(i, o) + 1\n"
        "class C:\n    @cp\n    def p(self): return 1\ndef f(): return C().p",
        [("return 1", "return 2"), ("+ 1", "+ 2")],
        [],
    ),
    "derived partial": (
        "import functools\nclass P(functools.partial):\n    def __call__(self, *a): return super().__call__(*a) + 1\n"
        "g = P(lambda v: v, 3)\ndef f(): return g()",
        [("v: v", "v: -v"), (", 3)", ", 4)"), ("+ 1", "+ 2")],
        [],
    ),
    "attribute of a partial": (
        "import functools\ndef g(x): return x\nh = functools.partial(g, 1)\nh.k = 1\ndef f(): return h.k",
        [("h.k = 1", "h.k = 2")],
        [],
    ),
    "derived module": (
        "import types\nclass M(types.ModuleType):\n    k = 1\n    def go(self): return self.k + self.j\n"
        "m = M('m')\nm.j = 1\ndef f(): return m.go()",
        [("k = 1", "k = 2"), ("m.j = 1", "m.j = 2"), (".k + ", ".k - ")],
        [],
    ),
    "names of a derived module": (
        "import types\nclass M(types.ModuleType):\n    k = 1\nm = M('m')\nm.j = 1\nm.other = 1\ndef f(): return m.j",
        [("m.j = 1", "m.j = 2")],
        [("m.other = 1", "m.other = 2"), ("k = 1", "k = 2")],
    ),
    "module name": ("def f(): return __name__, __file__", [], [("def f", "__file__ = '/elsewhere'\ndef f")]),
    "module docstring": ("__doc__ = 'a'\ndef f(): return __doc__", [("'a'", "'b'")], []),
    "docstring that is read": ("def g(): 'a'\ndef f(): return g.__doc__", [("'a'", "'b'")], []),
    "docstring read by a helper": (
        "def g(x): return x.__doc__\nclass C:\n    'a'\ndef f(): return g(C)",
        [("'a'", "'b'")],
        [],
    ),
    "inspect.getdoc": ("import inspect\ndef g(): 'a'\ndef f(): return inspect.getdoc(g)", [("'a'", "'b'")], []),
    "class annotations": ("class C:\n    x: int\ndef f(): return C.__annotations__", [("x: int", "x: str")], []),
    "function annotations": ("def g(x): return x\ndef f(): return g(1)", [], [("g(x)", "g(x: int) -> str")]),
    "type parameters": (
        "from typing import Generic, TypeVar\nT = TypeVar('T')\n"
        "class C(Generic[T]):\n    x = 1\ndef f(): return C[int]",
        [("x = 1", "x = 2")],
        [],
    ),
    "match": (
        "def f(x):\n    match x:\n        case {'a': 1}: return 1\n        case [a, *b]: return b",
        [("'a': 1", "'a': 2"), ("[a, *b]", "[*a, b]")],
        [],
    ),
    "star import of a name": ("from math import *\ndef f(): return floor(1.5)", [("floor(1.5)", "ceil(1.5)")], []),
    "async": ("async def g(): return 1\nasync def f(): return await g()", [("return 1", "return 2")], []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kind(kind: str) -> None:
    source, counts, does_not = KINDS[kind]
    before = of_source(source)
    assert before == of_source(source)
    for old, new in counts:
        assert old in source
        assert of_source(source.replace(old, new, 1)) != before, (old, new)
    for old, new in does_not:
        assert old in source
        assert of_source(source.replace(old, new, 1)) == before, (old, new)


# --- modules and imports ------------------------------------------------------------------------------------

PACKAGE = {
    "app.py": "import pkg.mod\nimport pkg.other as o\ndef f(): return pkg.mod.g() + o.K\n",
    "pkg/__init__.py": "UNUSED = 1\n",
    "pkg/mod.py": "def g(): return 1\ndef unused(): return 1\n",
    "pkg/other.py": "K = 1\nL = 1\n",
}
LAZY = {
    **PACKAGE,
    "app.py": (
        "def f():\n    import pkg.mod as m\n    from pkg import other\n    from pkg.other import K as k\n"
        "    return m.g() + other.L + k\n"
    ),
}
RELATIVE = {
    "app.py": "from pkg.user import f\n",
    "pkg/__init__.py": "",
    "pkg/user.py": "def f():\n    from .mod import g\n    from . import other\n    return g() + other.K\n",
    "pkg/mod.py": PACKAGE["pkg/mod.py"],
    "pkg/other.py": PACKAGE["pkg/other.py"],
}


def changes(tmp_path: Path, files: dict[str, str], file: str, old: str, new: str) -> bool:
    assert old in files[file]
    edited = {**files, file: files[file].replace(old, new, 1)}
    before = fingerprints(tmp_path / "before", files, "f")
    return fingerprints(tmp_path / f"after_{file}_{new}", edited, "f") != before


@pytest.mark.parametrize(
    ("files", "file", "old", "new", "expected"),
    [
        (PACKAGE, "pkg/mod.py", "g(): return 1", "g(): return 2", True),
        (PACKAGE, "pkg/mod.py", "unused(): return 1", "unused(): return 2", False),
        (PACKAGE, "pkg/other.py", "K = 1", "K = 2", True),
        (PACKAGE, "pkg/other.py", "L = 1", "L = 2", False),
        (PACKAGE, "pkg/__init__.py", "UNUSED = 1", "UNUSED = 2", False),
        (LAZY, "pkg/mod.py", "g(): return 1", "g(): return 2", True),
        (LAZY, "pkg/mod.py", "unused(): return 1", "unused(): return 2", False),
        (LAZY, "pkg/other.py", "K = 1", "K = 2", True),
        (LAZY, "pkg/other.py", "L = 1", "L = 2", True),
        (RELATIVE, "pkg/mod.py", "g(): return 1", "g(): return 2", True),
        (RELATIVE, "pkg/mod.py", "unused(): return 1", "unused(): return 2", False),
        (RELATIVE, "pkg/other.py", "K = 1", "K = 2", True),
    ],
)
def test_modules(tmp_path: Path, files: dict[str, str], file: str, old: str, new: str, expected: bool) -> None:
    assert changes(tmp_path, files, file, old, new) is expected


@pytest.mark.parametrize(
    "use", ["getattr(utils, name)", "vars(utils)", "show(utils)", "[utils]", "utils.__dict__[name]"]
)
def test_a_module_that_escapes_counts_as_a_whole(tmp_path: Path, use: str) -> None:
    files = {
        "app.py": f"import utils\ndef f(name, show): return {use}\n",
        "utils.py": "import sys, math\nA = 1\nB = 2\n",
    }
    assert changes(tmp_path, files, "utils.py", "B = 2", "B = 3")


def test_function_level_import_used_as_a_whole(tmp_path: Path) -> None:
    files = {"app.py": "def f(name):\n    import utils\n    return getattr(utils, name)\n", "utils.py": "A = 1\n"}
    assert changes(tmp_path, files, "utils.py", "A = 1", "A = 2")


@pytest.mark.parametrize(
    "app",
    [
        "import pkg, pkgutil\ndef f(): return list(pkgutil.iter_modules(pkg.__path__))\n",
        "import pkgutil\ndef f():\n    import pkg\n    return list(pkgutil.walk_packages(pkg.__path__, 'pkg.'))\n",
        "from pkg import f\n",
    ],
)
def test_the_modules_in_a_package_count_for_who_looks_for_them(tmp_path: Path, app: str) -> None:
    """Not where it lies: each of these is in another folder."""
    own = "import pkgutil\ndef f(): return list(pkgutil.iter_modules(__path__))\n"
    files = {"app.py": app, "pkg/__init__.py": own, "pkg/one.py": "K = 1\n"}
    before = fingerprints(tmp_path / "before", files, "f")
    assert fingerprints(tmp_path / "moved", {**files, "pkg/one.py": "K = 2\n"}, "f") == before
    assert fingerprints(tmp_path / "added", {**files, "pkg/two.py": ""}, "f") != before


def test_where_another_module_lies_does_not_count(tmp_path: Path) -> None:
    files = {"app.py": "import utils\ndef f(): return utils.__file__, utils.__name__, utils.K\n", "utils.py": "K = 1\n"}
    before = fingerprints(tmp_path / "before", files, "f")
    assert fingerprints(tmp_path / "moved", files, "f") == before
    assert fingerprints(tmp_path / "edited", {**files, "utils.py": "K = 2\n"}, "f") != before


def test_modules_with_a_class_of_the_project(tmp_path: Path) -> None:
    files = {
        "app.py": "def f():\n    from odd import double\n    return double\n",
        "odd.py": (
            "import sys, types\nK = 1\nclass Odd(types.ModuleType):\n"
            "    @property\n    def double(self): return self.K * 2\nsys.modules[__name__].__class__ = Odd\n"
        ),
    }
    assert changes(tmp_path, files, "odd.py", "K * 2", "K * 3")
    assert changes(tmp_path, files, "odd.py", "K = 1", "K = 2")


def test_compiled_functions_of_a_library_count_by_the_function_inside_and_the_options() -> None:
    jit = types.ModuleType("jit")
    jit.__file__ = "/usr/lib/site-packages/jit.py"
    exec(
        "class D:\n    def __init__(self, fn, **options):\n        self.py_func, self.made = fn, object()\n"
        "        if options: self.targetoptions = options\n"
        "def told(**options): return lambda fn: D(fn, **options)",
        vars(jit),
    )

    def of(body: str, made: str = "D") -> str:
        names: dict[str, Any] = {"D": vars(jit)["D"], "told": vars(jit)["told"]}
        exec(f"@{made}\ndef g(x): return {body}\ndef f(): return g(1)", names)
        return Fingerprinter().fingerprint(names["f"])

    sys.modules["jit"] = jit
    try:
        assert of("x") == of("x") != of("-x")
        assert of("x", "told(a=1)") == of("x", "told(a=1)") != of("x", "told(a=2)")
    finally:
        del sys.modules["jit"]


@pytest.mark.parametrize(
    "source",
    [
        "import sys\ndef f(): return sys.argv[1:]",
        "import sys as system\ndef g(): return '--fast' in system.argv\ndef f(): return g()",
        "from sys import argv\ndef f(): return argv",
        "def f():\n    import sys\n    return len(sys.argv)",
        "def f():\n    from sys import argv\n    return argv",
    ],
)
def test_the_command_line_counts_and_the_path_of_the_script_does_not(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", list(arguments))
        names: dict[str, Any] = {}
        exec(source, names)
        return Fingerprinter().fingerprint(names["f"])

    assert look("/a/app.py", "1") == look("/b/app.py", "1") != look("/a/app.py", "2")


def test_optional_import_that_fails(tmp_path: Path) -> None:
    source = "def f():\n    try:\n        import no_such_module_here\n    except ImportError: return 1\n"
    assert fingerprints(tmp_path / "a", {"app.py": source}, "f") == fingerprints(
        tmp_path / "b", {"app.py": source}, "f"
    )


#: A package that loads its modules when they are asked for; `KEEP` decides whether it keeps what it gave.
LOADING = {
    "lazy/__init__.py": (
        "import importlib\n_PLACES = {'Model': 'lazy.models', 'fast': '', 'LIMIT': 'lazy.models'}\nKEEP = True\n"
        "def __getattr__(name):\n    if name not in _PLACES: raise AttributeError(name)\n"
        "    home = _PLACES[name] or f'lazy.{name}'\n    made = importlib.import_module(home)\n"
        "    made = getattr(made, name) if _PLACES[name] else made\n"
        "    if KEEP: globals()[name] = made\n    return made\n"
    ),
    "lazy/models.py": "LIMIT = [8]\nclass Model:\n    def run(self): return 1\n",
    "lazy/fast.py": "def g(x): return x * 7\ndef other(): return 9\n",
}


@pytest.mark.parametrize("keep", ["KEEP = True", "KEEP = False"])
@pytest.mark.parametrize(
    ("use", "edits"),
    [
        ("import lazy\ndef f(): return lazy.Model().run()", ["return 1"]),
        ("import lazy as z\ndef f(): return z.fast.g(1), z.LIMIT", ["x * 7", "[8]"]),
        ("def f():\n    from lazy import Model\n    return Model().run()", ["return 1"]),
        ("def f():\n    from lazy import fast, LIMIT\n    return fast.g(1), LIMIT", ["x * 7", "[8]"]),
        ("def f():\n    import lazy\n    return lazy.fast.g(1)", ["x * 7"]),
        ("def f(make): return make({'_target_': 'lazy.Model'}).run()", ["return 1"]),
    ],
)
def test_what_a_lazy_package_gives_counts(use: str, edits: list[str], keep: str, tmp_path: Path) -> None:
    files = {**LOADING, "lazy/__init__.py": LOADING["lazy/__init__.py"].replace("KEEP = True", keep), "app.py": use}
    for edit in ("return 1", "[8]", "x * 7", "return 9"):
        name = "lazy/models.py" if edit in LOADING["lazy/models.py"] else "lazy/fast.py"
        new = edit.translate(str.maketrans("1879", "2345"))
        assert changes(tmp_path / new, files, name, edit, new) is (edit in edits)


@pytest.mark.parametrize("keep", ["KEEP = True", "KEEP = False"])
@pytest.mark.parametrize("offer", ["def __dir__(): return list(_PLACES)\n", "__all__ = ['Model', 'fast', 'LIMIT']\n"])
@pytest.mark.parametrize(
    "use",
    [
        "def f():\n    other = lazy\n    return other.Model().run(), other.fast.g(1)\n",
        "def f(): return getattr(lazy, 'Model')().run(), getattr(lazy, 'fast').g(1)\n",
        "def f(): return (lambda held: (held.Model().run(), held.fast.g(1)))(lazy)\n",
    ],
)
def test_a_lazy_package_as_a_whole_counts_with_all_that_it_offers(
    use: str, offer: str, keep: str, tmp_path: Path
) -> None:
    files = {
        **LOADING,
        "lazy/__init__.py": LOADING["lazy/__init__.py"].replace("KEEP = True", keep) + offer,
        "app.py": f"import lazy\n{use}",
    }
    assert changes(tmp_path / "1", files, "lazy/models.py", "return 1", "return 2")
    assert changes(tmp_path / "2", files, "lazy/fast.py", "x * 7", "x * 8")
    cold = fingerprints(tmp_path / "cold", files, "f")
    assert fingerprints(tmp_path / "warm", {**files, "app.py": f"import lazy\n{use}f()\n"}, "f") == cold


def test_what_a_lazy_package_has_loaded_before_does_not_count(tmp_path: Path) -> None:
    use = "import lazy\ndef f(): return lazy.Model().run(), lazy.fast.g(1)\n"
    cold = fingerprints(tmp_path / "cold", {**LOADING, "app.py": use}, "f")
    assert fingerprints(tmp_path / "warm", {**LOADING, "app.py": f"{use}f()\n"}, "f") == cold


def test_a_module_under_a_lazy_loader_counts(tmp_path: Path) -> None:
    source = (
        "import importlib.util, sys\nspec = importlib.util.find_spec('late')\n"
        "spec.loader = importlib.util.LazyLoader(spec.loader)\nlate = importlib.util.module_from_spec(spec)\n"
        "sys.modules['late'] = late\nspec.loader.exec_module(late)\ndef f(): return late.g()\n"
    )
    files = {"app.py": source, "late.py": "def g(): return 1\n"}
    assert changes(tmp_path, files, "late.py", "return 1", "return 2")


def test_a_lazy_module_that_fails_gives_nothing(tmp_path: Path) -> None:
    files = {
        "app.py": "import lazy\ndef f(): return lazy.heavy + lazy.light\n",
        "lazy.py": "light = 1\ndef __getattr__(name): raise SystemExit('woken')\n",
    }
    assert fingerprints(tmp_path, files, "f")


def test_a_module_under_a_lazy_loader_that_fails_is_missing(tmp_path: Path) -> None:
    source = (
        "import importlib.util, sys\nspec = importlib.util.find_spec('late')\n"
        "spec.loader = importlib.util.LazyLoader(spec.loader)\nlate = importlib.util.module_from_spec(spec)\n"
        "sys.modules['late'] = late\nspec.loader.exec_module(late)\n"
        "def f(fast): return late.g() if fast else late\n"
    )
    fails = {"app.py": source, "late.py": "raise ImportError('no such device')\ndef g(): return 1\n"}
    whole = {"app.py": source, "late.py": "def g(): return 1\n"}
    with program(tmp_path / "fails", fails) as app:
        found = [Fingerprinter().fingerprint(app.f) for _ in range(2)]
        with pytest.raises(ImportError, match="no such device"):
            app.f(True)
        del sys.modules["late"]  # whoever looks at it would load it
    assert found[0] == found[1] != fingerprints(tmp_path / "whole", whole, "f")


def test_what_a_module_makes_up_anew_each_time_is_state(tmp_path: Path) -> None:
    files = {
        "app.py": "import odd\ndef f(): return odd.count\n",
        "odd.py": "made = []\ndef __getattr__(name):\n    made.append(name)\n    return len(made)\n",
    }
    with program(tmp_path, files) as app:
        printer = Fingerprinter()
        printer.begin_activity()
        before = printer.fingerprint(app.f)
        printer.end_activity()
        assert printer.fingerprint(app.f) == before


def test_moves_do_not_count(tmp_path: Path) -> None:
    one = {"app.py": "K = 2\nclass C:\n    def m(self): return K\ndef g(): return C().m()\ndef f(): return g()\n"}
    two = {"app.py": "from deep.down import f\n", "deep/__init__.py": "", "deep/down.py": one["app.py"]}
    assert fingerprints(tmp_path / "a", one, "f") == fingerprints(tmp_path / "b", two, "f")


def test_moves_of_classes_that_are_values_do_not_count(tmp_path: Path) -> None:
    classes = "import threading\nclass A: pass\nclass L(threading.local, A): pass\n"
    use = "MODE = [A]\nX = L()\ndef f(): return MODE, X\n"
    one = {"app.py": classes + use}
    two = {"app.py": f"from deep import *\n{use}", "deep.py": classes}
    assert fingerprints(tmp_path / "a", one, "f") == fingerprints(tmp_path / "b", two, "f")


def test_main_and_module_are_one(tmp_path: Path) -> None:
    source = (
        "import enum\nclass E(enum.Enum):\n    A = 1\nclass C: pass\n"
        "K = [C(), E.A]\ndef g(): return K\ndef f(): return g()\n"
    )
    as_main: dict[str, Any] = {"__name__": "__main__", "__file__": "/x/app.py"}
    exec(source, as_main)
    assert Fingerprinter().fingerprint(as_main["f"]) == fingerprints(tmp_path, {"app.py": source}, "f")["f"]


# --- libraries ----------------------------------------------------------------------------------------------


def fake_library(tmp_path: Path, body: str, version: str) -> dict[str, str]:
    return {
        "app.py": "import fakelib\nfrom fakelib import tool\ndef f(): return fakelib.run(1) + tool(2)\n",
        "site-packages/fakelib.py": f"__version__ = {version!r}\ndef run(x): return {body}\ndef tool(x): return x\n",
    }


def library_print(tmp_path: Path, body: str = "x", version: str = "1.2.3", **options: Any) -> str:
    folder = tmp_path / f"{hash((body, version, str(options)))}"
    sys.path.insert(0, str(folder / "site-packages"))
    try:
        return fingerprints(folder, fake_library(tmp_path, body, version), "f", **options)["f"]
    finally:
        sys.path.remove(str(folder / "site-packages"))


def test_libraries_count_by_name_and_version(tmp_path: Path) -> None:
    base = library_print(tmp_path)
    assert library_print(tmp_path, body="-x") == base
    assert library_print(tmp_path, version="1.2.4") == base
    assert library_print(tmp_path, version="1.3.0") != base


def test_policies(tmp_path: Path) -> None:
    exact = [library_print(tmp_path, version=v, library_versions="exact") for v in ("1.2.3", "1.2.4")]
    ignore = [library_print(tmp_path, version=v, library_versions="ignore") for v in ("1.2.3", "2.0")]
    assert exact[0] != exact[1]
    assert ignore[0] == ignore[1]


def test_boundary_can_be_moved(tmp_path: Path) -> None:
    tracked_ones = [library_print(tmp_path, body=body, track=("fakelib",)) for body in ("x", "-x")]
    assert tracked_ones[0] != tracked_ones[1]
    files = {"app.py": "import vendored\ndef f(): return vendored.K\n", "vendored.py": "K = 1\n"}
    edited = {**files, "vendored.py": "K = 2\n"}
    options = {"library": ("vendored",)}
    assert fingerprints(tmp_path / "v", files, "f", **options) == fingerprints(tmp_path / "w", edited, "f", **options)


def test_library_internals_are_not_walked() -> None:
    source = "import json, logging, sys\ndef f(x): return json.dumps(x), logging.getLogger(), 'a' in sys.modules"
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    assert (
        list(Fingerprinter().parts(namespace["f"])) == ["function builtins.f"]
        or len(Fingerprinter().parts(namespace["f"])) == 1
    )


def test_registrations_with_other_abstract_classes_do_not_count() -> None:
    names: dict[str, Any] = {}
    exec(
        "import abc, collections.abc, functools\n@functools.singledispatch\ndef g(x): return 1\n"
        "@g.register(collections.abc.Sequence)\ndef _(x): return 2\ndef f(): return g([])\n"
        "class Other(abc.ABC): pass",
        names,
    )
    before = Fingerprinter().fingerprint(names["f"])
    names["Other"].register(int)
    names["f"]()  # fills the cache and takes the new token
    assert Fingerprinter().fingerprint(names["f"]) == before
    assert Fingerprinter().opaque(names["f"]) == []
    names["g"].register(set, len)
    assert Fingerprinter().fingerprint(names["f"]) != before


def test_dead_proxies_and_failing_hooks_are_listed() -> None:
    source = (
        "import weakref\nclass C: pass\nclass H:\n    def __fingerprint__(self): raise OSError('no disk')\n"
        "P = weakref.proxy(C())\nK = H()\ndef f(): return P, K"
    )
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    lines = Fingerprinter().opaque(namespace["f"])
    assert [line.partition(":")[0] for line in lines] == ["constant ?.K", "constant ?.P"]


def test_versions_are_reported() -> None:
    namespace: dict[str, Any] = {}
    exec("import numpy as np\ndef f(x): return np.linalg.norm(x)", namespace)
    printer = Fingerprinter(library_versions="exact")
    printer.fingerprint(namespace["f"])
    assert printer.versions() == {"numpy": sys.modules["numpy"].__version__}


# --- graphs -------------------------------------------------------------------------------------------------


def test_circles_do_not_depend_on_the_entry() -> None:
    source = (
        "def a(): return b() + 1\ndef b(): return c() + 2\n"
        "def c(): return a() + 3\ndef f(): return a\ndef g(): return c"
    )
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    order, other = Fingerprinter(), Fingerprinter()
    names = ["f", "g", "a", "b", "c"]
    first = {name: order.fingerprint(namespace[name]) for name in names}
    assert first == {name: other.fingerprint(namespace[name]) for name in reversed(names)}
    assert len(set(first.values())) == 5


def test_twins_in_a_circle_do_not_depend_on_the_entry() -> None:
    """Lambdas of one body and one name, of which one leads elsewhere: only what they refer to tells them apart."""
    source = (
        "def make(to):\n    return lambda n: to[0](n)\n"
        "def end(n): return n\nboxes = [[], [], []]\na, b, c = map(make, boxes)\n"
        "boxes[0] += [b, c]; boxes[1] += [c, a]; boxes[2] += [a, end]\ndef f(): return a, b, c"
    )
    seen = []
    for order in ("abcf", "cbaf", "fbca", "bfac"):
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        printer = Fingerprinter()
        found = {name: printer.fingerprint(namespace[name]) for name in order}
        assert len(set(found.values())) == 4
        seen.append(sorted(found.items()))
    assert all(one == seen[0] for one in seen)
    assert of_source(source) != of_source(source.replace("end(n): return n", "end(n): return -n"))


def test_depth_is_no_limit() -> None:
    count = 5000
    source = "\n".join(f"def f{n}(): return f{n + 1}()" for n in range(count)) + f"\ndef f{count}(): return 1\nf = f0"
    assert of_source(source) != of_source(source.replace("return 1", "return 2"))


def test_helpers_are_described_once() -> None:
    source = "def h(): return 1\n" + "\n".join(f"def f{n}(): return h() + {n}" for n in range(50))
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    memo = DictMemo()
    printer = Fingerprinter(memo)
    assert len({printer.fingerprint(namespace[f"f{n}"]) for n in range(50)}) == 50
    assert len(memo) == 51


def test_the_memo_gives_the_same_fingerprints() -> None:
    memo = DictMemo()
    for kind, (source, *_) in KINDS.items():
        assert of_source(source, memo=memo) == of_source(source), kind
        assert of_source(source, memo=memo) == of_source(source), kind
    assert memo.hits > len(KINDS)


def test_shortcut_and_graph_agree() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(pipe): pipe.send('x', 1)\ndef g(): return f", namespace)
    alone, within = Fingerprinter(), Fingerprinter()
    within.fingerprint(namespace["g"])
    assert alone.fingerprint(namespace["f"]) == within._graph.root(namespace["f"])


# --- parts, opaque things, levers -----------------------------------------------------------------------------


def test_parts_name_what_changed(tmp_path: Path) -> None:
    files = {
        "app.py": (
            "import utils\nK = 1\nclass Model:\n    def run(self): return K\n"
            "def f(): return utils.scale(Model().run())\n"
        ),
        "utils.py": "def scale(x): return x * 2\n",
    }

    def parts(folder: str, edited: dict[str, str]) -> dict[str, str]:
        with program(tmp_path / folder, edited) as app:
            return Fingerprinter().parts(app.f)

    before = parts("a", files)
    assert set(before) == {
        "function app.f",
        "function utils.scale",
        "constant app.K",
        "class app.Model",
        "function app.Model.run",
    }
    for number, (file, old, new, label) in enumerate(
        [
            ("utils.py", "x * 2", "x * 3", "function utils.scale"),
            ("app.py", "K = 1", "K = 2", "constant app.K"),
            ("app.py", "return K", "return -K", "function app.Model.run"),
        ]
    ):
        after = parts(f"b{number}", {**files, file: files[file].replace(old, new)})
        assert {name for name in after if after[name] != before.get(name)} == {label}


def test_parts_of_one_name_are_kept_apart() -> None:
    namespace: dict[str, Any] = {}
    exec("OPS = [lambda x: 1, lambda x: 2]\ndef f(): return OPS", namespace)
    labels = [label for label in Fingerprinter().parts(namespace["f"]) if "<lambda>" in label]
    assert len(labels) == 2


def test_parts_name_the_global_that_holds_another_class() -> None:
    def parts(mode: str) -> dict[str, str]:
        names: dict[str, Any] = {}
        exec(f"class A: pass\nclass B: pass\nMODE = {mode}\ndef f(): return MODE is A or MODE is B", names)
        return Fingerprinter().parts(names["f"])

    first, second = parts("A"), parts("B")
    assert {label for label in first if first[label] != second.get(label)} == {"constant ?.MODE"}


def test_opaque_things_count_by_type_and_are_listed() -> None:
    source = "import threading, random, logging\nL = {mark}\ndef f(): return L"
    lock, other = source.replace("{mark}", "threading.Lock()"), source.replace("{mark}", "random.SystemRandom()")
    assert of_source(lock) == of_source(lock)
    assert of_source(other) == of_source(other)
    assert of_source(lock) != of_source(other)
    namespace: dict[str, Any] = {}
    exec(lock, namespace)
    assert Fingerprinter().opaque(namespace["f"]) == ["constant ?.L: a _thread.lock"]


@pytest.mark.parametrize(
    "made",
    [
        "open('/dev/null')",
        "(x for x in ())",
        "threading.Thread()",
        "logging.getLogger('x')",
        "random.SystemRandom()",
        "random.choice",
        "os.environ",
        "weakref.WeakValueDictionary()",
        "numpy.random.default_rng()",
        "numpy.random.RandomState()",
        "numpy.random.PCG64()",
        "numpy.random.rand",
        "threading.local()",
        "iter([])",
        "object()",
        "io.BytesIO(b'a')",
    ],
)
def test_odd_globals_are_stable(made: str) -> None:
    source = f"import io, logging, os, random, threading, weakref, numpy\nK = {made}\ndef f(): return K"
    assert of_source(source) == of_source(source)


@pytest.mark.parametrize(
    "made",
    [
        "concurrent.futures.ThreadPoolExecutor(1)",
        "logging.Handler()",
        "logging.Logger('x')",
        "threading.local()",
        "threading.Thread()",
        "io.TextIOBase()",
        "weakref.WeakValueDictionary()",
        "iter([])",  # nothing is left out, the class counts as for any instance
    ],
)
def test_what_has_a_state_that_does_not_count_has_a_class_that_does(made: str) -> None:
    base, arguments = made.rstrip(")").split("(", 1)
    base = base if base != "iter" else "list"
    source = (
        f"import concurrent.futures, io, logging, threading, weakref\nclass C({base}):\n    k = 1\n"
        f"    def work(self): return self.k + 3\nc = C({arguments})\ndef f(): return c.work()"
    )
    assert of_source(source) == of_source(source)
    assert of_source(source) != of_source(source.replace("k = 1", "k = 2"))
    assert of_source(source) != of_source(source.replace("+ 3", "+ 4"))


def test_classes_whose_state_can_not_be_asked_for_count_by_their_code() -> None:
    source = (
        "class C:\n    def __fingerprint__(self): raise ValueError\n    def work(self): return 3\n"
        "c = [C()]\ndef f(): return c"
    )
    assert of_source(source) == of_source(source) != of_source(source.replace("return 3", "return 4"))


def test_dynamic_code_is_listed() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(x): return eval(x)", namespace)
    assert any("computed text" in line for line in Fingerprinter().opaque(namespace["f"]))


def levered(source: str) -> str:
    namespace: dict[str, Any] = {"untracked": untracked, "tracked": tracked}
    exec(source, namespace)
    return Fingerprinter().fingerprint(namespace["f"])


@pytest.mark.parametrize("body", ["def g(): return 1", "class g:\n    x = 1"])
def test_levers(body: str) -> None:
    use = "\ndef f(): return g()"
    plain, edited = body, body.replace("1", "2")
    assert levered(f"@untracked\n{plain}{use}") == levered(f"@untracked\n{edited}{use}")
    assert levered(f"@tracked(version=1)\n{plain}{use}") == levered(f"@tracked(version=1)\n{edited}{use}")
    assert levered(f"@tracked(version=1)\n{plain}{use}") != levered(f"@tracked(version=2)\n{plain}{use}")
    assert levered(f"{plain}{use}") != levered(f"@untracked\n{plain}{use}")


def test_a_pin_does_not_spread_to_wrappers_and_subclasses() -> None:
    wrapped = (
        "import functools\ndef deco(fn):\n    @functools.wraps(fn)\n"
        "    def inner(): return fn() + 1\n    return inner\n"
        "@deco\n@untracked\ndef g(): return 1\ndef f(): return g()"
    )
    assert levered(wrapped) == levered(wrapped.replace("return 1", "return 2"))
    assert levered(wrapped) != levered(wrapped.replace("fn() + 1", "fn() + 2"))
    derived = "@untracked\nclass A: pass\nclass B(A):\n    x = 1\ndef f(): return B"
    assert levered(derived) != levered(derived.replace("x = 1", "x = 2"))


def test_modules_without_files_are_project_code() -> None:
    module = types.ModuleType("made_up")
    exec("def g(): return 1", vars(module))
    assert not Fingerprinter()._boundary.owns_globals(vars(module))


def test_classes_of_the_project(tmp_path: Path) -> None:
    with program(tmp_path, {"app.py": "class C: pass\n"}) as app:
        printer = Fingerprinter()
        assert printer.is_project_class(app.C)
        assert not printer.is_project_class(dict)
        assert not printer.is_project_class(Path)
        assert not printer.is_project_class(Fingerprinter)


MADE = {
    "make_dataclass": "dataclasses.make_dataclass('C', [('k', int, 3)], namespace={'m': lambda self: self.k + 1})",
    "new_class": "types.new_class('C', (), {}, lambda ns: ns.update(m=lambda self: 1))",
    "abstract": "type('C', (abc.ABC,), {'m': lambda self: 1})",
    "protocol": "type('C', (typing.Protocol,), {'m': lambda self: 1})",
    "enum": "enum.Enum('C', {'A': 1})",
    "named tuple": "typing.NamedTuple('C', [('a', int), ('b1', int)])",
    "metaclass of a library": "jit.Meta('C', (), {'m': lambda self: 1})",
}


@pytest.mark.parametrize("made", MADE)
def test_classes_that_a_library_made_for_the_project(made: str, tmp_path: Path) -> None:
    jit = types.ModuleType("jit")
    jit.__file__ = "/usr/lib/site-packages/jit.py"
    meta = "class Meta(type):\n    def __new__(cls, *args): return super().__new__(cls, *args)\n"
    exec(f"{meta}class Own(metaclass=Meta): x = 1", vars(jit))
    source = f"import abc, dataclasses, enum, types, typing, jit\nC = {MADE[made]}\ndef f(): return C(1)\n"
    before, sys.modules["jit"] = sys.modules.get("jit"), jit
    try:
        first, again, after = (
            fingerprints(tmp_path / folder, {"app.py": text}, "f")
            for folder, text in (("a", source), ("b", source), ("c", source.replace("1", "2")))
        )
        assert first == again != after
        assert not Fingerprinter().is_project_class(vars(jit)["Own"])
    finally:
        del sys.modules["jit"]
        assert before is None


@pytest.mark.parametrize(
    "module", ["abc", "builtins", "collections.abc", "dataclasses", "enum", "numpy", "types", "typing"]
)
def test_classes_of_libraries_are_theirs(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "numpy.rec", raising=False)  # which nobody imports, and `numpy.recarray` names
    held = vars(importlib.import_module(module))
    classes = [one for name, one in held.items() if isinstance(one, type) and one.__name__ == name]
    assert [one for one in classes if Fingerprinter().is_project_class(one)] == []


def test_only_project_code_can_be_marked() -> None:
    with pytest.raises(CannotFingerprint, match="can't be marked as untracked"):
        untracked(len)


def test_an_object_can_not_be_marked() -> None:
    """It counts by its value: the mark would be without effect."""

    class Decorated:
        def __call__(self) -> None:
            pass

    with pytest.raises(CannotFingerprint, match="counts as a value.*\n.*mark its class, or the function in it"):
        untracked(Decorated())


def test_extension_modules_of_the_project_count_by_their_file(tmp_path: Path) -> None:
    found = [Path(one) for one in glob.glob(f"{sysconfig.get_config_var('DESTSHARED')}/_bisect*.so")]
    if not found:
        pytest.skip("this Python has no extension modules as files")

    def fingerprint(folder: str, tail: bytes) -> str:
        copy = tmp_path / folder / found[0].name
        copy.parent.mkdir()
        copy.write_bytes(found[0].read_bytes() + tail)
        loader = importlib.machinery.ExtensionFileLoader("_bisect", str(copy))
        spec = importlib.util.spec_from_loader("_bisect", loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        before, sys.modules["_bisect"] = sys.modules.get("_bisect"), module
        namespace: dict[str, Any] = {"g": module.insort_right}
        exec("def f(x): return g(x, 1)", namespace)
        try:
            return Fingerprinter().fingerprint(namespace["f"])
        finally:
            sys.modules.pop("_bisect")
            if before is not None:
                sys.modules["_bisect"] = before

    assert fingerprint("a", b"") == fingerprint("b", b"") != fingerprint("c", b"recompiled")


@pytest.mark.parametrize(
    "source",
    [
        "class Scarce:\n    def __reduce_ex__(self, p): raise MemoryError\nK = Scarce()\ndef f(): return K",
        "class Scarce:\n    def __fingerprint__(self): raise MemoryError\nK = Scarce()\ndef f(): return K",
    ],
)
def test_want_of_memory_is_no_property_of_a_value(source: str):
    """It would give a fingerprint that no other process gets."""
    with pytest.raises(MemoryError):
        of_source(source)


def test_none_is_no_command_line_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "argv")
    names: dict[str, Any] = {"__name__": "app"}
    exec("K = None\ndef f(): return K", names)
    assert "constant app.K" in Fingerprinter().parts(names["f"])

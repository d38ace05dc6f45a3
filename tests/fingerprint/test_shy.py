"""Objects that raise when they are asked for what they lack, or for their class: no error of theirs comes through.

Proxies for the request that nobody has made, settings that nobody has configured, tables of classes in C: a program
refers to them by the way, and is not to fail for that.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import CannotFingerprint
from pyplantx.fingerprint import sending
from pyplantx.fingerprint.code import Fingerprinter
from tests.fingerprint.harness import program

KINDS = """
import functools, types
def base(x): return x
def asked(self, name): raise ERROR(name)
class Lacking: __getattr__ = asked
class Hidden: __getattribute__ = asked
class Classless:
    __getattr__ = asked
    @property
    def __class__(self): raise ERROR("class")
class Called:
    __getattr__ = asked
    def __call__(self, x): return x
class Nameless:
    @property
    def __dict__(self): raise ERROR("dict")
    @property
    def __name__(self): raise ERROR("name")
    @property
    def __wrapped__(self): raise ERROR("wrapped")
    def __call__(self, x): return x
class Meta(type): __getattr__ = asked
class OfMeta(metaclass=Meta):
    def go(self): return 1
class Module(types.ModuleType): __getattr__ = asked
class Partial(functools.partial): __getattr__ = asked
class Cached(functools.cached_property): __getattr__ = asked
class Static(staticmethod): __getattribute__ = asked
class Items(dict):
    __getattr__ = asked
    def __getitem__(self, key): raise ERROR("item")
    def __iter__(self): raise ERROR("iter")
MADE = {
    "lacking": Lacking(), "hidden": Hidden(), "classless": Classless(), "called": Called(), "nameless": Nameless(),
    "of a metaclass": OfMeta(), "with a metaclass": OfMeta, "module": Module("m"), "partial": Partial(base, 1),
    "cached": Cached(base), "static": Static(base), "items": Items(a=1), "method": types.MethodType(base, Lacking()),
    "method of a call": types.MethodType(Called(), 1),
}
"""

#: Where a program may have one.
PLACES = {
    "global": "def f(): return V",
    "attribute": "def f(): return V.x.y",
    "method": "def f(): return V.go(1)",
    "by text": "def f(): return getattr(V, 'a' + str(1))",
    "documented": "def f(): return V.__doc__, V.__name__",
    "item": "L = [V, 1]\ndef f(): return L",
    "key": "L = {'a': V}\ndef f(): return L['a']",
    "default": "def f(x=V): return x",
    "closure": "def make(v):\n    def f(): return v\n    return f\nf = make(V)",
    "partial": "import functools\ndef g(a, b): return a\nP = functools.partial(g, V, b=V)\ndef f(): return P()",
    "class attribute": "class C:\n    x = V\n    def m(self): return self.x\ndef f(): return C().m(), C.x",
    "field": "class C: pass\nc = C()\nc.x = V\ndef f(): return c.x",
    "object": "class C: pass\nc = C()\nc.x = V\ndef f(): return c",
    "mark": "def g(): return 1\ng.x = g.__wrapped__ = V\ndef f(): return g()",
    "annotation": "import inspect\ndef g(x: V): return 1\ndef f(): return inspect.signature(g)",
}

ASKS: list[Callable[[Fingerprinter, Any], object]] = [
    Fingerprinter.parts,
    Fingerprinter.opaque,
    Fingerprinter.named,
    sending.hints,
    sending.mentions,
    Fingerprinter.remains,
]


@pytest.fixture(params=["RuntimeError", "SystemExit"])
def kinds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    source = f"ERROR = {request.param}\n{KINDS}"
    with program(tmp_path, {"app.py": source}) as app:
        yield app.MADE
    sys.modules.pop("uses", None)


def uses(value: Any, source: str) -> Any:
    """The function f of a module in which V is a value."""
    module = types.ModuleType("uses")
    vars(module).update(V=value, __file__=str(Path(__file__).with_name("uses.py")))
    sys.modules["uses"] = module
    exec(source, vars(module))
    return module.f


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_they_raise_comes_through(place: str, kinds: dict[str, Any]) -> None:
    for value in kinds.values():
        function = uses(value, PLACES[place])
        printer = Fingerprinter()
        printer.begin_activity()
        printer.fingerprint(function)
        for ask in ASKS:
            ask(printer, function)
        printer.freeze([function])
        printer.end_activity()


def test_as_values_they_are_taken_or_refused(kinds: dict[str, Any]) -> None:
    for value in kinds.values():
        with suppress(CannotFingerprint):
            Fingerprinter().encode_value(value)

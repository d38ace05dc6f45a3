"""What carries a number of the process (a hash, an address, an order) and is the same in each process all the same."""

from __future__ import annotations

import ctypes
import shutil
import sys
from operator import attrgetter
from pathlib import Path

import pytest

from pyplantx.fingerprint import shared
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.records import raw_digest
from pyplantx.fingerprint.sending import hints
from pyplantx.fingerprint.shared import is_of_system
from tests.fingerprint.harness import DictMemo, program
from tests.fingerprint.test_stability import run

ATTRS = """
import attr
def lower(x): return x.lower()
@attr.s(frozen=True)
class Point:
    x = attr.ib(default=1, validator=attr.validators.in_({"a", "b", "c", 1}))
    y = attr.ib(default="q", eq=lower)
@attr.s(auto_attribs=True, unsafe_hash=True, cache_hash=True, slots=True)
class Cached:
    x: int = 2
HELD = Point()
def f(): return {Point(): Cached(), HELD: 1}
"""
BEARTYPE = """
from beartype import beartype, BeartypeConf
class Own: pass
@beartype
def plain(x: "set[int] | None" = None, y: list[str] = (), z: Own = None) -> int: return 1
@beartype(conf=BeartypeConf(is_pep484_tower=True))
def tower(x: float = 1.0) -> float: return x * 2
def f(): return plain(), tower()
"""
VECTORIZER = """
class Vectorizer:
    def __init__(self, words):
        self.words, self.words_id = words, id(words)
class Reduced(Vectorizer):
    def __getstate__(self): return dict(vars(self))
KEPT, REDUCED = Vectorizer(["a", "b"]), Reduced(["c", "d"])
def f(): return KEPT, REDUCED
"""
NUMBERS = """
class Fields(dict): pass
class Units:
    def __init__(self, **fields):
        self.fields = Fields(fields)
        self.kept_hash = hash(frozenset(self.fields.items()))
class Graph:
    def __init__(self, *nodes): self.nodes = {id(node): node for node in nodes}
class Variable:
    def __init__(self, name): self.name, self.hash = name, id(self)
def marked(function):
    def wrapper(): return function()
    wrapper.wrapper_id = id(wrapper)
    return wrapper
UNITS, VARIABLE, GRAPH = Units(metre=1, second=-1), Variable("x"), Graph(Variable("y"), Variable("z"))
@marked
def one(): return 1
def f(): return UNITS, VARIABLE, GRAPH, one
"""
TORCH = """
import torch
def twice(x): return x * 2
@torch.compile
def compiled(x): return twice(x)
class Net(torch.nn.Module):
    def forward(self, x): return x + 1
net = torch.compile(Net())
def f(): return compiled, net
"""
OPERATOR = """
import torch
@torch.library.custom_op("mylib::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor: return x * 2
@twice.register_fake
def _(x): return torch.empty_like(x)
def f(): return twice
"""
JAX = """
import functools
import jax
def twice(x): return x * 2
@functools.partial(jax.jit, static_argnums=(1,))
def scaled(x, n): return twice(x) * n
def f(): return scaled
"""
DASK = """
import dask.utils
LOCKS = [dask.utils.SerializableLock()]
def f(): return LOCKS
"""
FIGURE = """
from matplotlib.figure import Figure
KEPT = Figure()
KEPT.subplots().plot([1, 2, 3], label="line")
def f(): return KEPT
"""
LOGURU = "from loguru import logger\ndef f(): logger.info('here'); return 1\n"
PINT = """
import pint
registry = pint.UnitRegistry()
registry.define("smoot = 1.702 * metre")
def f(): return (3 * registry.smoot).to("km")
"""
TREES = """
import pyrsistent
KEPT = pyrsistent.pset(["a", "b", "c"])
def f(): return KEPT
"""
MAPS = """
import immutables
KEPT = immutables.Map(a=1, b=2, c=3)
def f(): return KEPT
"""
PYDANTIC = """
import typing
from pydantic import AfterValidator, BaseModel, TypeAdapter, validate_call
class Inner(BaseModel):
    a: int = 1
    kids: "list[Inner]" = []
class Outer(BaseModel):
    inner: Inner = Inner()
    table: dict = {"ref": "app.Inner:123456"}
def grown(x): return x + 1
Grown = typing.Annotated[int, AfterValidator(grown)]
@validate_call
def take(x: Outer, y: "Inner | None" = None, z: Grown = 3): return 1
ADAPTER = TypeAdapter(list[Outer])
def f(): return take({}), ADAPTER.validate_python([])
"""
SYMBOLS = """
class Symbol(int):
    def __new__(cls, name, canonical=None):
        made = int.__new__(cls, hash(name) if canonical is None else canonical)
        made.name = name
        return made
    def __reduce__(self): return Symbol, (self.name, int(self))
HELD, GIVEN = Symbol("not there"), Symbol("given", 2 ** 40)
def f(): return HELD, GIVEN
"""
SQLALCHEMY = """
from sqlalchemy import Column, ForeignKey, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, declarative_base, mapped_column, relationship
class Base(DeclarativeBase): pass
class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), default="nobody")
    things: Mapped[list["Thing"]] = relationship(back_populates="user", order_by="Thing.id")
    def greet(self): return "hello " + self.name
class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    user: Mapped["User"] = relationship(back_populates="things")
class Old(declarative_base()):
    __tablename__ = "old"
    id = Column(Integer, primary_key=True)
    kind = Column(String)
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "old"}
class Derived(Old):
    __mapper_args__ = {"polymorphic_identity": "derived"}
def f(): return User(name="a").greet(), Derived(id=3)
"""
CODES = """
def a(): return 1
def b(): return 2
def c(): return 3
KEPT = {a.__code__, b.__code__, c.__code__}
def f(): return KEPT
"""
#: Which of them is first in the set must not hang on the number in their code.
IN_A_SET = {
    "attrs": f"{ATTRS}\nSET = {{frozenset({{Point, f}}), frozenset({{Cached, f}}), frozenset({{lower, f}})}}\n",
    "beartype": f"{BEARTYPE}\nSET = {{plain, tower, Own, f}}\n",
}
SOURCES = {
    "attrs": ATTRS,
    "beartype": BEARTYPE,
    "pydantic": PYDANTIC,
    "an address": VECTORIZER,
    "numbers": NUMBERS,
    "code in a set": CODES,
    "matplotlib": FIGURE,
    "loguru": LOGURU,
    "torch": TORCH,
    "torch operator": OPERATOR,
    "jax": JAX,
    "dask": DASK,
    "pint": PINT,
    "pyrsistent": TREES,
    "immutables": MAPS,
    "symbols": SYMBOLS,
    "sqlalchemy": SQLALCHEMY,
}


def _need(name: str) -> None:
    if name not in ("an address", "numbers", "symbols", "code in a set"):
        pytest.importorskip({"attrs": "attr"}.get(name, name.partition(" ")[0]))


@pytest.mark.parametrize("name", SOURCES)
def test_each_process_finds_the_same_whatever_the_folder_and_the_line(name: str, tmp_path: Path) -> None:
    _need(name)
    asked = "import app\nfrom pyplantx.fingerprint.code import Fingerprinter\nprint(Fingerprinter().fingerprint(app.f))"
    found = set()
    for seed in "123":
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "app.py").write_text("# moved\n" * int(seed) + SOURCES[name])
        found.add(run(asked, folder=folder, PYTHONHASHSEED=seed))
    assert len(found) == 1


@pytest.mark.parametrize("name", IN_A_SET)
def test_each_process_finds_them_in_the_same_order_in_a_set(name: str) -> None:
    _need(name)
    asked = "\nfrom pyplantx.fingerprint.code import Fingerprinter\nprint(Fingerprinter().fingerprint(lambda: SET))"
    found = {run(IN_A_SET[name] + asked, PYTHONHASHSEED=seed) for seed in "123456"}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("attrs", 'default="q"', 'default="r"'),
        ("attrs", "x.lower()", "x.upper()"),
        ("attrs", "eq=lower", "eq=False"),
        ("attrs", '"c", 1', '"d", 1'),
        ("attrs", "x: int = 2", "x: int = 3"),
        ("attrs", "unsafe_hash=True, cache_hash=True, ", ""),
        ("beartype", "return 1", "return 2"),
        ("beartype", "list[str]", "tuple[str, ...]"),
        ("beartype", "x: float = 1.0", "x: int = 1"),
        ("beartype", "is_pep484_tower=True", "is_pep484_tower=False"),
        ("beartype", "class Own: pass", "class Own: x = 1"),
        ("pydantic", "a: int = 1", "a: int = 2"),
        ("pydantic", ":123456", ":123457"),
        ("pydantic", "x + 1", "x + 2"),
        ("pydantic", "z: Grown", "z: int"),
        ("pydantic", "list[Outer]", "tuple[Outer]"),
        ("an address", '"b"', '"e"'),
        ("an address", '"d"', '"e"'),
        ("numbers", "metre=1", "metre=2"),
        ("numbers", '"x"', '"w"'),
        ("numbers", '"z"', '"w"'),
        ("numbers", "return 1", "return 2"),
        ("torch", "x * 2", "x * 3"),
        ("torch", "x + 1", "x + 2"),
        ("torch", "torch.compile\ndef", "torch.compile(fullgraph=True)\ndef"),
        ("torch", "torch.compile(Net())", "torch.compile(Net(), mode='max-autotune')"),
        ("jax", "x * 2", "x * 3"),
        ("jax", "static_argnums=(1,)", "static_argnums=(1,), donate_argnums=(0,)"),
        ("dask", "SerializableLock()]", "SerializableLock(), 1]"),
        ("code in a set", "return 3", "return 4"),
        ("matplotlib", "[1, 2, 3]", "[1, 2, 4]"),
        ("loguru", "return 1", "return 2"),
        ("pint", "1.702", "1.703"),
        ("pint", "UnitRegistry()", "UnitRegistry(autoconvert_offset_to_baseunit=True)"),
        ("pyrsistent", '"c"', '"d"'),
        ("immutables", "c=3", "c=4"),
        ("symbols", "not there", "nowhere"),
        ("symbols", "2 ** 40", "2 ** 41"),
        ("sqlalchemy", "String(30)", "String(31)"),
        ("sqlalchemy", '"nobody"', '"somebody"'),
        ("sqlalchemy", "Thing.id", "Thing.user_id"),
        ("sqlalchemy", '"hello "', '"hi "'),
        ("sqlalchemy", '"derived"', '"other"'),
        ("sqlalchemy", "Column(String)", "Column(String, nullable=False)"),
        ("sqlalchemy", '"user.id"', '"user.id", ondelete="CASCADE"'),
    ],
)
def test_what_it_was_made_from_counts(name: str, old: str, new: str, tmp_path: Path) -> None:
    _need(name)
    looks = []
    for source in (SOURCES[name], SOURCES[name], SOURCES[name].replace(old, new)):
        with program(tmp_path, {"app.py": source}) as app:
            looks.append(Fingerprinter().fingerprint(app.f))
    assert looks[0] == looks[1] != looks[2]


@pytest.mark.parametrize(("name", "made"), [("attrs", "Point.__hash__"), ("beartype", "plain")])
def test_records_of_such_code_are_not_kept(name: str, made: str, tmp_path: Path) -> None:
    """There would be one more of each in every process."""
    _need(name)
    memo = DictMemo()
    with program(tmp_path, {"app.py": SOURCES[name]}) as app:
        printer = Fingerprinter(memo)
        printer.fingerprint(app.f)
        hints(printer, app.f)
        assert raw_digest(app.f.__code__) in memo
        assert raw_digest(attrgetter(made)(app).__code__) not in memo


NATIVE = """
import ctypes
LIB = ctypes.CDLL(PATH)
LIB.cos.restype = ctypes.c_double
LIB.cos.argtypes = [ctypes.c_double]
cos = LIB.cos
def through(): return LIB.cos(1.0)
def held(): return cos(1.0)
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of the project: a copy of one that Python has loaded."""
    from ctypes.util import find_library

    name = find_library("m")
    if name is None or not sys.platform.startswith("linux"):
        pytest.skip("no library of mathematics is found by its name")
    ctypes.CDLL(name)
    lines = Path("/proc/self/maps").read_text().splitlines()
    path = next(line.split()[-1] for line in lines if "/libm" in line)
    return Path(shutil.copy(path, tmp_path / "libown.so"))


def _looks(folder: Path, source: str, path: object) -> list[str]:
    with program(folder, {"app.py": source.replace("PATH", repr(str(path)))}) as app:
        return [Fingerprinter().fingerprint(function) for function in (app.through, app.held)]


def test_a_shared_library_counts_with_its_content_wherever_it_lies(library: Path, tmp_path: Path) -> None:
    first = _looks(tmp_path, NATIVE, library)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert _looks(tmp_path, NATIVE, shutil.copy(library, elsewhere)) == first
    again = tmp_path / "again"
    again.mkdir()
    changed = Path(shutil.copy(library, again))
    with changed.open("ab") as file:
        file.write(b"built anew")
    assert all(new != old for new, old in zip(_looks(tmp_path, NATIVE, changed), first, strict=True))


@pytest.mark.parametrize(
    ("old", "new"),
    [("restype = ctypes.c_double", "restype = ctypes.c_float"), ("[ctypes.c_double]", "[ctypes.c_float]")],
)
def test_how_a_native_function_is_called_counts(old: str, new: str, library: Path, tmp_path: Path) -> None:
    first = _looks(tmp_path, NATIVE, library)
    assert all(new != old for new, old in zip(_looks(tmp_path, NATIVE.replace(old, new), library), first, strict=True))


def test_that_a_native_function_was_looked_up_says_nothing(library: Path, tmp_path: Path) -> None:
    one, other = _looks(tmp_path, NATIVE, library), _looks(tmp_path, NATIVE + "LIB.sin\n", library)
    assert one == other


def test_a_shared_library_is_read_once(library: Path, tmp_path: Path) -> None:
    first = _looks(tmp_path, NATIVE, library)
    reads = shared._digest_of.cache_info().misses
    assert _looks(tmp_path, NATIVE, library) == first
    assert shared._digest_of.cache_info().misses == reads


def test_what_lies_beside_the_libraries_of_the_system_is_none_of_them() -> None:
    own = ["/libs/own.so", "/library/own.so", "/usr/libexec/own.so", "/usr/local/lib/own.so", "/home/me/lib/own.so"]
    assert not any(map(is_of_system, own))
    assert all(map(is_of_system, ["/lib/libm.so.6", "/lib64/libm.so.6", "/usr/lib/x86_64-linux-gnu/libm.so.6"]))

"""Objects as globals and as values: what they hold counts, however they are pickled."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from pyplantx.errors import CannotFingerprint
from pyplantx.fingerprint import value
from pyplantx.fingerprint.arrays import beside_layout
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.reductions import pickled_code
from pyplantx.fingerprint.states import hung_on_sparse
from tests.fingerprint.harness import program


def both_ways(source: str) -> tuple[str, str, list[str]]:
    """The fingerprint of code that refers to a global ``K``, the digest of ``K`` itself, what is not seen."""
    for library in ("h5py", "toolz", "dask", "torch", "sympy", "wrapt", "polars"):
        if library in source:
            pytest.importorskip(library)
    names: dict[str, Any] = {}
    exec(f"{source}\ndef f(): return K", names)
    printer = Fingerprinter()
    return printer.fingerprint(names["f"]), printer.encode_value(names["K"]), printer.opaque(names["f"])


def check_edit(source: str, old: str, new: str) -> None:
    """An edit is seen both ways, and the same source twice is the same."""
    assert source.count(old) == 1
    before, again, after = both_ways(source), both_ways(source), both_ways(source.replace(old, new))
    assert before == again
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert before[2] == []


# --- scipy.sparse -------------------------------------------------------------------------------------------

OPERATORS = {
    "function": ("S = 2\ndef damp(v): return v * S\nK = LinearOperator((3, 3), matvec=damp)", "S = 2", "S = 3"),
    "lambda": ("K = LinearOperator((3, 3), matvec=lambda v: v * 2)", "* 2", "* 3"),
    "matrix": ("import numpy as np\nK = aslinearoperator(np.eye(2) * 2)", "* 2", "* 3"),
    "sum": ("import numpy as np\nK = aslinearoperator(np.eye(2)) * 2", ") * 2", ") * 3"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_linear_operators_count_with_their_functions(name: str) -> None:
    source, old, new = OPERATORS[name]
    check_edit(f"from scipy.sparse.linalg import LinearOperator, aslinearoperator\n{source}", old, new)


def test_what_hangs_on_a_sparse_matrix_counts_whatever_its_name() -> None:
    source = "import scipy.sparse\nK = scipy.sparse.csr_array([[1, 0]])\nK._weight = 2"
    check_edit(source, "_weight = 2", "_weight = 3")


@pytest.mark.parametrize("name", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_what_scipy_keeps_on_a_sparse_matrix_does_not_count(name: str, kind: str) -> None:
    matrix = getattr(scipy.sparse, f"{name}_{kind}")(np.eye(3))
    fresh = value.digest(matrix)
    for form in (matrix, matrix.T, matrix.copy(), matrix.tocsr(), matrix.tocoo(), matrix @ matrix, matrix.astype("f4")):
        assert hung_on_sparse(form) == {}
    assert value.digest(matrix) == fresh


# --- dtypes -------------------------------------------------------------------------------------------------

DTYPES = {
    "enumeration": ("h5py.enum_dtype({'CAT': 1}, basetype='i1')", "CAT", "DOG"),
    "string": ("h5py.string_dtype('utf-8')", "utf-8", "ascii"),
    "string of a width": ("h5py.string_dtype('utf-8', 5)", "utf-8", "ascii"),
    "varying length": ("h5py.vlen_dtype(np.dtype('i4'))", "i4", "i8"),
    "metadata": ("np.dtype('f8', metadata={'unit': 'm'})", "'m'", "'s'"),
    "a field": ("np.dtype([('a', np.dtype('f8', metadata={'unit': 'm'}))])", "'m'", "'s'"),
    "a sub-array": ("np.dtype((np.dtype('f8', metadata={'unit': 'm'}), (2,)))", "'m'", "'s'"),
    "title": ("np.dtype([(('long', 'a'), 'f8')])", "long", "short"),
    "records": ("np.dtype((np.void, [('a', 'f8')]))", "np.void", "np.record"),
    "array": ("np.zeros(2, np.dtype('f8', metadata={'unit': 'm'}))", "'m'", "'s'"),
    "array of objects": ("np.zeros(2, h5py.string_dtype('utf-8'))", "utf-8", "ascii"),
    "scalar": ("np.zeros(2, [('a', np.dtype('f8', metadata={'unit': 'm'}))])[0]", "'m'", "'s'"),
}
if hasattr(getattr(np, "dtypes", None), "StringDType"):
    DTYPES["missing strings"] = ("np.dtypes.StringDType(na_object=None)", "None", "''")
    DTYPES["strict strings"] = ("np.dtypes.StringDType(coerce=True)", "True", "False")


@pytest.mark.parametrize("name", DTYPES)
def test_what_a_dtype_says_beside_its_layout_counts(name: str) -> None:
    source, old, new = DTYPES[name]
    check_edit(f"import h5py\nimport numpy as np\nK = {source}", old, new)


def test_plain_dtypes_say_nothing_beside_their_layout() -> None:
    for dtype in ("f8", "O", "M8[ns]", "U3", [("a", "i4"), ("b", "f8", (2,))]):
        assert beside_layout(np.dtype(dtype)) == []


# --- objects that pickle by name, and those that leave functions out ----------------------------------------

CURRIED = "import toolz\n@toolz.curry\ndef scale(k, x): return k * x\n"
NAMED = """
class Task:
    def __init__(self, function, rate): self.function, self.rate = function, rate
    def __call__(self, x): return self.function(x)
    def __reduce__(self): return "K"
K = Task(lambda x: x + 1, 5)
"""
KEYED = """
import functools
REGISTER = {}
def find(key): return REGISTER[key]
class Task:
    def __init__(self, key, function, rate):
        self.key, self.function, self.rate = key, function, rate
        REGISTER[key] = self
    def __reduce__(self): return find, (self.key,)
K = Task("one", lambda x: x + 1, 5)
"""
SAVED = """
class Task:
    def __init__(self, function, rate): self.function, self.rate = function, rate
    def __getstate__(self): return {"rate": self.rate}
K = Task(lambda x: x + 1, 5)
K.cache = 7
"""
COUNTED = """
import collections
class Counts(collections.Counter):
    pass
K = Counts("abc")
K.rate = 5
"""
LEFT_OUT = {
    "curry": (f"{CURRIED}K = scale", "k * x", "k + x"),
    "curry with arguments": (f"{CURRIED}K = scale(5)", "k * x", "k + x"),
    "curry, an argument": (f"{CURRIED}K = scale(5)", "(5)", "(6)"),
    "a name, its function": (NAMED, "x + 1", "x + 2"),
    "a name, its field": (NAMED, "5)", "6)"),
    "a key, its function": (KEYED, "x + 1", "x + 2"),
    "a key, its field": (KEYED, "5)", "6)"),
    "a key that is bound": (KEYED.replace("find, (self.key,)", "functools.partial(find, self.key), ()"), "5)", "6)"),
    "functions in a list": (SAVED.replace("lambda x: x + 1", "[lambda x: x + 1]"), "x + 1", "x + 2"),
    "an attribute": (
        "class Shelf: pass\nclass A:\n    def __reduce__(self): return getattr, (Shelf, 'K')\nK = A()\nK.rate = 5",
        "= 5",
        "= 6",
    ),
    "a function that is not saved": (SAVED, "x + 1", "x + 2"),
    "a field beside a builtin": (COUNTED, "= 5", "= 6"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_reduction_leaves_out_counts_where_it_says_too_little(name: str) -> None:
    check_edit(*LEFT_OUT[name])


def test_a_cache_that_is_not_saved_does_not_count() -> None:
    assert both_ways(SAVED) == both_ways(SAVED.replace("cache = 7", "cache = 8"))


def test_names_in_libraries_say_all() -> None:
    from collections.abc import Callable
    from typing import NoReturn

    for thing in (NoReturn, Callable):
        assert b"h" + (1).to_bytes(8, "little") not in value.encode(thing)


def test_a_field_that_has_no_encoding_counts_by_its_class_beside_a_name() -> None:
    source = "import threading\n" + NAMED.replace("5)", "threading.Lock())")
    assert both_ways(source)[1] == both_ways(source)[1] != both_ways(source.replace("Lock", "Event"))[1]
    assert both_ways(source)[2] == ["constant ?.K: a _thread.lock"]


# --- code that objects keep out of sight ---------------------------------------------------------------------

#: The parser is written in C, can't be pickled, and has its handlers in fields that have no names.
EXPAT = "import xml.parsers.expat\nK = xml.parsers.expat.ParserCreate()\nK.StartElementHandler = lambda *a: 5"
REFUSING = """
class Task:
    def __init__(self, todo): self.todo = todo
    def __reduce__(self): raise TypeError("it runs")
K = Task(lambda x: x * 5)
"""
WRAPT = """
import wrapt
@wrapt.decorator
def twice(wrapped, instance, args, kwargs): return wrapped(*args, **kwargs) * 5
"""
HELD = {
    "handlers in C": (EXPAT, "5", "6"),
    "fields": (REFUSING, "x * 5", "x * 6"),
    "a decorator": (f"{WRAPT}@twice\ndef K(x): return x", "* 5", "* 6"),
    "a decorated function": (f"{WRAPT}@twice\ndef K(x): return x + 1", "x + 1", "x + 2"),
    "decorated twice": (f"{WRAPT}@twice\n@twice\ndef K(x): return x + 1", "x + 1", "x + 2"),
    "a decorated method": (f"{WRAPT}class K:\n    @twice\n    def m(self, x): return x + 1", "x + 1", "x + 2"),
}


@pytest.mark.parametrize("name", HELD)
def test_code_inside_objects_without_an_encoding_counts(name: str) -> None:
    source, old, new = HELD[name]
    if "wrapt" in source:
        pytest.importorskip("wrapt")
    looks = []
    for text in (source, source, source.replace(old, new)):
        names: dict[str, Any] = {}
        exec(f"{text}\ndef f(): return K", names)
        looks.append(Fingerprinter().fingerprint(names["f"]))
    assert looks[0] == looks[1] != looks[2]


VALIDATED = """
from typing import Annotated
from pydantic import Field, validate_call
OTHER = 1
LIMIT = 10
Size = Annotated[int, Field(lt=LIMIT)]
@validate_call
def scale(x: Size, y: int = 1): return x * 2
def f(): return scale(3)
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("OTHER = 1", "OTHER = 2", False),
        ("LIMIT = 10", "LIMIT = 20", True),
        ("y: int", "y: float", True),
        ("x * 2", "x * 3", True),
        ("= 1)", "= 2)", True),
    ],
)
def test_a_validated_function_counts_with_what_it_accepts(
    future: str, old: str, new: str, counts: bool, tmp_path: Path
) -> None:
    pytest.importorskip("pydantic")
    looks = []
    for source in (VALIDATED, VALIDATED.replace(old, new)):
        with program(tmp_path, {"app.py": future + source}) as app:
            looks.append(Fingerprinter().fingerprint(app.f))
    assert (looks[0] != looks[1]) == counts


DEFERRED = {
    "function": "@validate_call(config={'defer_build': True})\ndef scale(x: Size): return x",
    "adapter": "T = TypeAdapter(list[Size], config={'defer_build': True})\ndef scale(x): return T.validate_python([x])",
    "named": "T = TypeAdapter(list['Size'], config={'defer_build': True})\ndef scale(x): return T.validate_python([x])",
    "model": "class M(BaseModel, defer_build=True): a: Size = 1\ndef scale(x): return M(a=x)",
}


@pytest.mark.parametrize("what", DEFERRED)
def test_what_is_validated_later_counts_as_if_it_were_now(what: str, tmp_path: Path) -> None:
    """It has no schema before its first use: that neither hides what it accepts nor makes another one of it."""
    pytest.importorskip("pydantic")
    head = VALIDATED.partition("@")[0].replace("import Field", "import BaseModel, Field, TypeAdapter")
    source, looks = f"{head}{DEFERRED[what]}\ndef f(): return scale(3)\n", []
    edits = ("", ""), ("", ""), ("LIMIT = 10", "LIMIT = 20"), ("OTHER = 1", "OTHER = 2")
    for edited in (source.replace(*edit) for edit in edits):
        with program(tmp_path, {"app.py": edited}) as app:
            looks.append(Fingerprinter().fingerprint(app.f))
            app.f()
            assert Fingerprinter().fingerprint(app.f) == looks[-1]
    assert looks[0] == looks[1] == looks[3] != looks[2]


def test_what_can_not_be_validated_yet_counts_without(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    source = "from pydantic import *\n@validate_call(config={'defer_build': True})\ndef g(x: 'Later'): return x\n"
    with program(tmp_path, {"app.py": source + "def f(): return g(1)\n"}) as app:
        assert Fingerprinter().fingerprint(app.f) == Fingerprinter().fingerprint(app.f)


PICKLES = """
import pickle
def helper(x): return x + 1
def score(x): return helper(x)
class Expression:
    def __init__(self, function): self.raw = b"head" + pickle.dumps({"function": [function]}, 5) + b"tail"
    def __reduce__(self): return Expression, (), {"raw": [self.raw]}
K = Expression(score)
def f(): return K
"""
POLARS = """
import polars as pl
def helper(x): return x + 1
def score(x): return helper(x)
K = pl.col("a").map_elements(score, return_dtype=pl.Float64)
def f(): return K
"""


PACKED = PICKLES.replace("self.raw = ", "self.raw = packed(").replace('b"tail"', 'b"tail")')
PACK = "def packed(raw): return b''.join(b'\\xcc' * (byte > 127) + bytes([byte]) for byte in raw)\n"
LAZY = POLARS.replace('pl.col("a").map_elements(score, return_dtype=pl.Float64)', "pl.LazyFrame().map_batches(score)")


@pytest.mark.parametrize(
    "source", [PICKLES, PACK + PACKED, POLARS, POLARS.replace("score,", "lambda x: score(x),"), LAZY]
)
def test_functions_that_a_pickle_in_bytes_names_count(source: str, tmp_path: Path) -> None:
    if "polars" in source:
        pytest.importorskip("polars")
    looks = []
    for edit in ("x + 1", "x + 1", "x + 2"):
        with program(tmp_path, {"app.py": source.replace("x + 1", edit)}) as app:
            looks.append((Fingerprinter().fingerprint(app.f), Fingerprinter().encode_value(app.K)))
    assert looks[0] == looks[1]
    assert looks[0][0] != looks[2][0]
    assert looks[0][1] != looks[2][1]


@pytest.mark.parametrize("end", range(40))
def test_bytes_that_only_begin_like_a_pickle_are_left_alone(end: int) -> None:
    whole = pickle.dumps({"function": [pytest.approx, "approx"]}, 5)
    for raw in (whole[:end], whole[:end] + b"\xff" * 40, b"\x80\x05\x95" + bytes(8) + whole[end:]):
        assert pickled_code([raw]) == []


def test_modules_that_a_pickle_in_bytes_names_need_not_be_loaded(tmp_path: Path) -> None:
    files = {"app.py": "", "helpers.py": "def score(x): return x + 1\n"}
    with program(tmp_path / "1", files):
        importlib.import_module("helpers")
        raw = pickle.dumps(sys.modules["helpers"].score)
    with program(tmp_path / "2", files):
        assert "helpers" not in sys.modules
        assert [name for name, _ in pickled_code([raw])] == ["helpers.score"]


@pytest.mark.parametrize(
    "around", [bytes, lambda raw: b"".join(b"\xcc" * (byte > 127) + bytes([byte]) for byte in raw)]
)
def test_many_pickles_in_bytes_are_read_once(around: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counted(io.BytesIO):
        def __init__(self, raw: bytes) -> None:
            read.append(len(raw))
            super().__init__(raw)

        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            read.append(len(found))
            return found

    monkeypatch.setattr(io, "BytesIO", Counted)
    raw = around(pickle.dumps(["some", "text", both_ways])) * 1_000
    assert [name for name, _ in pickled_code([raw])] == [f"{__name__}.both_ways"]
    assert len(raw) < sum(read) < 10 * len(raw)  # it took the square


KEYS = {
    "of a tuple that it keeps": ("self.args = args; self._hash = hash(args)", ""),
    "of its fields": ("self.low, self.high = args; self._hash = hash(args)", ""),
    "of its class and fields": ("self.low, self.high = args; self.hash = hash((Key, *args))", ""),
    "of a dict": ("self.known = dict([args]); self._hash = hash(frozenset([args]))", ""),
    "in a slot": ("self.low, self.high = args; self._hash = hash((args[1], args[0]))", "'low', 'high', '_hash'"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_hash_that_an_object_keeps_of_itself_does_not_count(name: str) -> None:
    made, slots = KEYS[name]
    slots = f"__slots__ = ({slots})" if slots else "pass"
    source = f"class Key:\n    {slots}\n    def __init__(self, *args): {made}\nK = Key('a', 'b')\ndef f(): return K"
    look = "from pyplantx.fingerprint.code import Fingerprinter; print(Fingerprinter().fingerprint(f))"
    looks = []
    for seed, edit in (("1", "'a'"), ("2", "'a'"), ("1", "'c'")):
        command = [sys.executable, "-c", f"{source}\n{look}".replace("'a'", edit)]
        looks.append(subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": seed}))
    assert looks[0] == looks[1] != looks[2]


@pytest.mark.parametrize("old, new", [(1 << 50, 1 << 51), (5, 6), ((1 << 60) + 1, (1 << 60) + 2)])
def test_a_hash_that_somebody_has_chosen_counts(old: int, new: int) -> None:
    source = "class Picture:\n    def __init__(self, value): self.hash, self.size = value, {size}\n"
    source += "    def __hash__(self): return self.hash\nK = Picture({hash})\ndef f(): return K"
    looks = []
    for chosen in (old, new):
        names: dict[str, Any] = {}
        exec(source.format(hash=chosen, size=old), names)
        looks.append((Fingerprinter().fingerprint(names["f"]), Fingerprinter().encode_value(names["K"])))
    assert looks[0][0] != looks[1][0]
    assert looks[0][1] != looks[1][1]


@pytest.mark.filterwarnings("ignore:non-string key")
def test_attributes_whose_names_are_no_texts_count() -> None:
    check_edit("class C: pass\nK = C()\nvars(K)[3] = 4", "4", "5")


SCRIPTS = {
    "a function": "@torch.jit.script\ndef K(x): return x * 5",
    "a function that it calls": "@torch.jit.script\ndef g(x): return x * 5\n@torch.jit.script\ndef K(x): return g(x)",
    "a traced function": "K = torch.jit.trace(lambda x: x * 5, torch.ones(1))",
    "a constant of it": "w = torch.ones(9)\nw[2] = 5\nK = torch.jit.trace(lambda x: x * w, torch.ones(9))",
    "a module": "class M(torch.nn.Module):\n    def forward(self, x): return x * 5\nK = torch.jit.script(M())",
    "a traced module": (
        "class M(torch.nn.Module):\n    def forward(self, x): return x * 5\nK = torch.jit.trace(M(), torch.ones(1))"
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_torch_has_compiled_counts(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    looks = []
    for number, (before, edit) in enumerate((("", "5"), ("# a comment\n", "5"), ("", "6"))):
        source = f"import torch\n{before}{SCRIPTS[name].replace('5', edit)}\ndef f(): return K"
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "app.py").write_text(source)
        look = (
            "import app\nfrom pyplantx.fingerprint.code import Fingerprinter\nprint(Fingerprinter().fingerprint(app.f))"
        )
        paths = os.pathsep.join([str(tmp_path / str(number)), os.getcwd()])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        looks.append(subprocess.check_output([sys.executable, "-W", "ignore", "-c", look], env=environment, text=True))
    assert looks[0] == looks[1] != looks[2]


# --- numba --------------------------------------------------------------------------------------------------

JITTED = {
    "options": ("@nb.njit\ndef K(x): return 1 // x", "@nb.njit", "@nb.njit(error_model='numpy')"),
    "a signature": ("@nb.njit('i8(i8)')\ndef K(x): return x", "'i8(i8)'", "'i4(i4)'"),
    "locals": ("@nb.njit(locals={'y': nb.int8})\ndef K(x):\n    y = x\n    return y", "int8", "int16"),
    "a ufunc": ("@nb.vectorize\ndef K(x): return 1 // x", "@nb.vectorize", "@nb.vectorize(error_model='numpy')"),
    "a callback": ("@nb.cfunc('f8(f8)')\ndef K(x): return x * 5", "x * 5", "x * 6"),
    "signature of a callback": ("@nb.cfunc('f8(f8)')\ndef K(x): return x * 5", "'f8(f8)'", "'f4(f4)'"),
    "a stencil": ("@nb.stencil\ndef K(x): return x[0]", "x[0]", "x[1]"),
    "options of a stencil": ("@nb.stencil(cval=1)\ndef K(x): return x[0]", "cval=1", "cval=2"),
    "a class": (
        "@nb.experimental.jitclass([('v', nb.float64)])\nclass K:\n"
        "    def __init__(self): self.v = 1\n    def m(self): return self.v * 5",
        "v * 5",
        "v * 6",
    ),
    "fields of a class": (
        "@nb.experimental.jitclass([('v', nb.float64)])\nclass K:\n    def __init__(self): self.v = 1",
        "float64",
        "int64",
    ),
}


@pytest.mark.parametrize("name", JITTED)
def test_what_numba_compiles_counts_with_what_it_was_told(name: str) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("numba.experimental")
    source, old, new = JITTED[name]
    prints = []
    for text in (source, source, source.replace(old, new)):
        names: dict[str, Any] = {}
        exec(f"import numba as nb\n{text}\ndef f(): return K", names)
        prints.append(Fingerprinter().fingerprint(names["f"]))
    assert prints[0] == prints[1] != prints[2]


def test_what_a_call_of_a_stencil_finds_out_does_not_count() -> None:
    nb = pytest.importorskip("numba")
    np = pytest.importorskip("numpy")
    pytest.importorskip("numba.stencils")
    names: dict[str, Any] = {}
    exec("import numba as nb\n@nb.stencil\ndef K(x): return x[0] + x[1]\ndef f(): return K", names)
    before = Fingerprinter().fingerprint(names["f"])
    names["K"](np.zeros(3))
    assert Fingerprinter().fingerprint(names["f"]) == before
    around = nb.stencil(neighborhood=((0, 2),))(names["K"].kernel_ir.func_id.func)
    assert Fingerprinter().fingerprint(eval("lambda: K", {"K": around})) != before


# --- objects that change when they are looked at ------------------------------------------------------------

COUNTS = """
class Tracker:
    def __init__(self, low): self.low, self.saves = low, 0
    def __getstate__(self):
        self.saves += 1
        return {"state": [dict(self.__dict__)]}
K = Tracker(2)
def f(): return K
"""
FILLS = """
class Lazy:
    def __init__(self, low): self.low, self.total = low, None
    def __getstate__(self):
        self.total = self.low * 2
        return dict(self.__dict__)
K = Lazy(2)
def f(): return K
"""
NORM = "from matplotlib.colors import Normalize\nK = Normalize(0, 2)\ndef f(): return K"
STAMPED = """
import time
class Stamped:
    def __init__(self, low): self.low = low
    def __reduce__(self): return Stamped, (self.low,), {"at": time.perf_counter()}
K = Stamped(2)
def f(): return K
"""
RESTLESS = {"counts": COUNTS, "fills a cache": FILLS, "matplotlib": NORM, "stamps": STAMPED}


@pytest.mark.parametrize("name", RESTLESS)
def test_looking_changes_nothing(name: str) -> None:
    source = RESTLESS[name]
    if "matplotlib" in source:
        pytest.importorskip("matplotlib")
    names: dict[str, Any] = {}
    exec(source, names)
    printer = Fingerprinter()
    digest = printer.encode_value(names["K"])
    looks = set()
    for _ in range(3):
        printer.begin_activity()
        looks.add(printer.fingerprint(names["f"]))
        printer.end_activity()
    assert len(looks) == 1
    assert printer.state_changes() == []
    assert printer.encode_value(names["K"]) == digest
    for low in ("K.low = 3", "K.vmax = 3"):
        exec(low, names)
    assert printer.encode_value(names["K"]) != digest


def test_a_number_that_changes_when_it_is_looked_at_is_listed() -> None:
    assert both_ways(COUNTS)[2] == ["constant ?.K: a builtins.Tracker"]
    assert both_ways(FILLS)[2] == []


# --- types that are made by calls ---------------------------------------------------------------------------

TYPES = {
    "new type": ("NewType('Price', int)", "int", "float"),
    "new type, in a list": ("[NewType('Price', int)]", "int", "float"),
    "name": ("NewType('Price', int)", "Price", "Cost"),
    "bound": ("TypeVar('T', bound=int)", "int", "float"),
    "constraints": ("TypeVar('T', int, str)", "str", "float"),
    "variance": ("TypeVar('T', covariant=True)", "covariant", "contravariant"),
    "text": ("TypeVar('T', bound='int')", "'int'", "'str'"),
    "parameters": ("ParamSpec('P', bound=int)", "int", "float"),
    "reference": ("ForwardRef('int')", "int", "str"),
    "alias": ("List[NewType('Price', int)]", "int", "float"),
    "annotated": ("Annotated[int, NewType('Price', int)]", "Price', int", "Price', str"),
}


@pytest.mark.parametrize("name", TYPES)
def test_types_that_are_made_by_calls_count_with_what_they_are_made_of(name: str) -> None:
    source, old, new = TYPES[name]
    names = "Annotated, ForwardRef, List, NewType, ParamSpec, TypeVar"
    check_edit(f"from typing import {names}\nK = {source}", old, new)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in 3.12")
@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("type K = int", "int", "str"),
        ("type K = dict[str, K] | int", "int", "str"),
        ("def g[T: int](x: T) -> T: return x\nK = g.__type_params__", "int", "str"),
    ],
)
def test_statements_that_make_types(source: str, old: str, new: str) -> None:
    check_edit(source, old, new)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in 3.12")
def test_an_alias_of_what_is_not_there_yet_is_none() -> None:
    assert both_ways("type K = Later") == both_ways("type K = Later")


# --- caches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"), [("typed=False", "typed=True"), ("maxsize=8", "maxsize=0"), ("x + 1", "x + 2")]
)
def test_how_a_cache_is_kept_counts(old: str, new: str) -> None:
    source = "from functools import lru_cache\n@lru_cache(maxsize=8, typed=False)\ndef K(x): return x + 1"
    check_edit(source, old, new)


# --- parts of objects that were not looked at ---------------------------------------------------------------

SUBCLASS = "import {module}\nclass C({module}.{name}): pass\nK = C({arguments})\nK.unit = 1"
PARTS = {
    "date": (SUBCLASS.format(module="datetime", name="date", arguments="2020, 1, 2"), "unit = 1", "unit = 2"),
    "duration": (SUBCLASS.format(module="datetime", name="timedelta", arguments="5"), "unit = 1", "unit = 2"),
    "decimal": (SUBCLASS.format(module="decimal", name="Decimal", arguments="5"), "unit = 1", "unit = 2"),
    "fraction": (SUBCLASS.format(module="fractions", name="Fraction", arguments="5"), "unit = 1", "unit = 2"),
    "path": (SUBCLASS.format(module="pathlib", name="PosixPath", arguments="'a'"), "unit = 1", "unit = 2"),
    "mapping": (SUBCLASS.format(module="collections", name="defaultdict", arguments="int"), "unit = 1", "unit = 2"),
    "masked array": ("import numpy as np\nK = np.ma.zeros(2)\nK.unit = 1", "unit = 1", "unit = 2"),
    "masked array, information": ("import numpy as np\nK = np.ma.zeros(2)\nK._optinfo['a'] = 1", "= 1", "= 2"),
    "slots of arrays": (
        "import numpy as np\nclass A(np.ndarray):\n    __slots__ = ('a',)\nK = np.zeros(2).view(A)\nK.a = 1",
        "a = 1",
        "a = 2",
    ),
    "spawned generators": ("import numpy as np\nK = np.random.default_rng(1)\nK.spawn(5)", "(5)", "(6)"),
    "ends of lines": ("import io\nK = io.StringIO('a', newline='')", "''", "'\\r\\n'"),
    "unpacked alias": ("K = next(iter(tuple[int, ...]))", "next(iter(tuple[int, ...]))", "tuple[int, ...]"),
    "calendar": ("import numpy as np\nK = np.busdaycalendar('1111100')", "1111100", "1111000"),
    "weak method": (
        "import weakref\nclass C:\n    def m(self): return 5\nc = C()\nK = weakref.WeakMethod(c.m)",
        "return 5",
        "return 6",
    ),
    "delayed": ("import dask\nK = dask.delayed(lambda x: x + 1)", "x + 1", "x + 2"),
    "delayed, its name": ("import dask\nK = dask.delayed(5, name='one')", "one", "two"),
}


@pytest.mark.parametrize("name", PARTS)
def test_other_parts_of_objects_count(name: str) -> None:
    check_edit(*PARTS[name])


def test_a_finalizer_is_listed() -> None:
    names: dict[str, Any] = {}
    exec("import weakref\nclass C: pass\nc = C()\nK = weakref.finalize(c, print)\ndef f(): return K", names)
    assert Fingerprinter().opaque(names["f"]) == ["constant ?.K: a weakref.finalize"]


def test_what_fractions_and_paths_keep_for_themselves_does_not_count() -> None:
    source = SUBCLASS.format(module="pathlib", name="PosixPath", arguments="'a/b'")
    used = f"{source}\nstr(K), hash(K), K.parts, K.name, K.suffix"
    assert both_ways(source)[0] == both_ways(used)[0]


def test_a_state_that_can_not_be_asked_for_is_listed() -> None:
    names: dict[str, Any] = {}
    exec("import io\nK = io.StringIO('a')\nK.close()\ndef f(): return K", names)
    assert Fingerprinter().opaque(names["f"]) == ["constant ?.K: a _io.StringIO"]
    with pytest.raises(CannotFingerprint):
        Fingerprinter().encode_value(names["K"])


REFUSALS = {
    "a state": "def __getstate__(self): raise TypeError('use save()')",
    "a reduction": "def __reduce__(self): raise TypeError('use save()')",
    "no reduction": "__reduce__ = None",
    "slots": "__slots__ = ('k', 'lock')\n    def __getstate__(self): raise TypeError('use save()')",
    "a subclass": "def __reduce_ex__(self, protocol): raise TypeError\nclass C(C): pass",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_refuses_to_be_pickled_counts_with_its_fields(name: str) -> None:
    def look(number: int) -> tuple[str, list[str]]:
        names: dict[str, Any] = {}
        init = "def __init__(self, k): self.k, self.lock = k, threading.Lock()"
        exec(
            f"import threading\nclass C:\n    {init}\n    {REFUSALS[name]}\nK = [C({number})]\ndef f(): return K", names
        )
        printer = Fingerprinter()
        return printer.fingerprint(names["f"]), printer.opaque(names["f"])

    assert look(1) == look(1)
    assert look(1)[0] != look(2)[0]
    assert look(1)[1] == ["constant ?.K: a _thread.lock"]


def test_a_refusal_of_a_library_leaves_its_fields_out() -> None:
    names: dict[str, Any] = {}
    exec("import multiprocessing.pool as p", names)
    exec(
        "class P(p.Pool):\n    def __init__(self, k): self.k = k\n    def __del__(self): pass\ndef f(): return K", names
    )
    prints = set()
    for number in (1, 2):
        names["K"] = names["P"](number)
        prints.add(Fingerprinter().fingerprint(names["f"]))
    assert len(prints) == 1


def test_a_network_with_parametrizations_counts_with_its_weights() -> None:
    pytest.importorskip("torch")
    prints = []
    for seed in (1, 1, 2):
        names: dict[str, Any] = {}
        made = "torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))"
        exec(f"import torch\ntorch.manual_seed({seed})\nK = {made}\ndef f(): return K", names)
        prints.append(Fingerprinter().fingerprint(names["f"]))
    assert prints[0] == prints[1] != prints[2]


def test_a_network_counts_with_its_hooks_and_not_with_their_numbers_in_the_process() -> None:
    pytest.importorskip("torch")

    def look(factor: int) -> str:
        names: dict[str, Any] = {}
        hooks = f"K.register_forward_hook(lambda *x: {factor})\nK.register_forward_pre_hook(print, with_kwargs=True)"
        exec(f"import torch\nK = torch.nn.Tanh()\n{hooks}\ndef f(): return K", names)
        return Fingerprinter().fingerprint(names["f"])

    assert look(1) == look(1) != look(2)


# --- tensors, symbols ---------------------------------------------------------------------------------------

TENSORS = {
    "elements": ("torch.ones(2, 2)", "ones", "zeros"),
    "shape": ("torch.ones(2, 2)", "2, 2", "4"),
    "type": ("torch.ones(2, dtype=torch.float16)", "float16", "bfloat16"),
    "gradient": ("torch.ones(2, requires_grad=True)", "True", "False"),
    "a part of a module": ("torch.nn.Parameter(torch.ones(2))", "ones", "zeros"),
    "sparse": ("torch.eye(2).to_sparse() * 5", "5", "6"),
    "rows": ("torch.eye(2).to_sparse_csr() * 5", "5", "6"),
    "scales": ("torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.quint8)", "0.5", "0.25"),
    "nothing": ("torch.ones(2, device='meta')", "2", "3"),
    "scalar": ("torch.tensor(5)", "5", "6"),
    "empty": ("torch.ones(0, 5)", "5", "6"),
    "generator": ("torch.Generator().manual_seed(1)", "1", "2"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_count_by_their_elements(name: str) -> None:
    source, old, new = TENSORS[name]
    check_edit(f"import torch\nK = {source}", old, new)


def test_strides_of_a_tensor_do_not_show() -> None:
    torch = pytest.importorskip("torch")
    grid = torch.arange(6).reshape(2, 3)
    assert value.digest(grid.t()) == value.digest(grid.t().contiguous()) != value.digest(grid)


def test_symbolic_functions_are_the_same_in_every_process() -> None:
    pytest.importorskip("sympy")
    script = (
        "import sympy\nfrom pyplantx.fingerprint.code import Fingerprinter\n"
        "class G(sympy.Function): is_real = True\n"
        "K = [sympy.Function('f'), G]\ndef f(): return K\nprint(Fingerprinter().fingerprint(f))"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in "123"]
    outputs = {subprocess.check_output([sys.executable, "-c", script], env=env, text=True) for env in environments}
    assert len(outputs) == 1
    check_edit("import sympy\nclass K(sympy.Function): is_real = True", "True", "False")


# --- methods that are bound ---------------------------------------------------------------------------------

ENDLESS = """
class Holder:
    def __init__(self, rate): self.rate = rate
    def update(self): return self.rate
    def __getstate__(self): return {"rate": self.rate, "calls": [self.update]}
K = Holder(5)
"""


def test_a_method_that_is_made_at_each_look_is_one_method() -> None:
    check_edit(ENDLESS, "(5)", "(6)")
    names: dict[str, Any] = {}
    exec(f"{ENDLESS}\ndef f(): return K", names)
    printer = Fingerprinter()
    printer.begin_activity()
    before = printer.fingerprint(names["f"])
    printer.end_activity()
    printer.begin_activity()
    assert printer.fingerprint(names["f"]) == before
    assert printer.state_changes() == []


@pytest.mark.parametrize("name", ["class D(dict)", "class D(int)"])
def test_class_methods_in_c_count_with_the_class_that_they_make(name: str) -> None:
    method = "fromkeys" if "dict" in name else "from_bytes"
    source = f"{name}:\n    def f(self): return 1\nK = D.{method}"
    check_edit(source, "return 1", "return 2")
    names: dict[str, Any] = {}
    exec(source, names)
    with pytest.raises(CannotFingerprint):
        value.digest(names["K"])

"""What code names without a global of its own: by imports inside functions, by text, through names and annotations."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.normalform import normalise
from pyplantx.fingerprint.pieces import FUNCTION
from pyplantx.fingerprint.records import Record
from pyplantx.fingerprint.value import hash_bytes
from tests.fingerprint.harness import DictMemo, fingerprints, program

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


# --- modules and names that are found by text ---------------------------------------------------------------

FINDERS = [
    "import importlib\ndef f(): return importlib.import_module(__name__).helper()",
    "from importlib import import_module as load\ndef f(): return load('app').helper()",
    "import importlib\nload = importlib.import_module\ndef f(): return load(__name__).helper()",
    "def f():\n    from importlib import import_module\n    return import_module(__name__).helper()",
    "def f(): return __import__(__name__).helper()",
    "import pydoc\ndef f(): return pydoc.locate(__name__ + '.helper')()",
    "from pkgutil import resolve_name\ndef f(name): return resolve_name(name)()",
    "import runpy\ndef f(): return runpy.run_module(__name__)['helper']()",
    "def f(g): return g.__globals__['helper']()",
    "import sys\ndef f(): return sys._getframe().f_globals['helper']()",
    "class C:\n    def m(self): return __import__(__name__).helper()\ndef f(): return C().m()",
]


@pytest.mark.parametrize("source", FINDERS)
def test_own_module_of_code_that_finds_modules_by_text_counts(source: str, tmp_path: Path) -> None:
    files = {"app.py": f"{source}\ndef helper(): return 1\n"}
    assert moved(tmp_path / "code", files, "return 1", "return 2")
    seen_as_it_runs = any(name in source for name in ("import_module", "resolve_name", "__import__"))
    with program(tmp_path / "seen", files) as app:
        told = [line for line in Fingerprinter().opaque(app.f) if "finds code by computed text" in line]
    assert bool(told) is not seen_as_it_runs


@pytest.mark.parametrize(
    ("call", "literal"),
    [
        ("import_module('pkg.u').f(1)", True),
        ("import_module('.u', __package__ or 'pkg').f(1)", False),
        ("__import__('pkg.u').u.f(1)", True),
    ],
)
def test_a_module_that_a_text_in_the_code_names_counts(call: str, literal: bool, tmp_path: Path) -> None:
    source = f"from importlib import import_module\ndef f(): return {call}\ndef helper(): return 5\n"
    files = {**PACKAGE, "app.py": source}
    assert moved(tmp_path / "named", files, "x + 1", "x + 2") is literal
    assert moved(tmp_path / "own", files, "return 5", "return 6") is not literal


def test_a_module_that_a_text_names_counts_where_the_function_imports_the_importer(tmp_path: Path) -> None:
    source = "def f():\n    from importlib import import_module\n    return import_module('pkg.u').f(1)\n"
    assert moved(tmp_path, {**PACKAGE, "app.py": source}, "x + 1", "x + 2")


def test_a_relative_import_without_a_package_is_missing(tmp_path: Path) -> None:
    source = "def f():\n    try: from .u import g\n    except ImportError: g = K\n    return g\nK = 1\n"
    assert moved(tmp_path, {"app.py": source}, "K = 1", "K = 2")


def test_a_relative_module_that_a_text_in_the_code_names_counts(tmp_path: Path) -> None:
    source = "import importlib\ndef f(): return importlib.import_module('.u', __package__).f(1)\n"
    files = {**PACKAGE, "pkg/w.py": source, "app.py": "from pkg.w import f\n"}
    assert moved(tmp_path, files, "x + 1", "x + 2")


def test_beside_a_module_that_a_text_names_its_package_does_not_count(tmp_path: Path) -> None:
    source = "from importlib import import_module\nimport pkg.v\ndef f(): return import_module('pkg.u').f(1)\n"
    assert not moved(tmp_path, {**PACKAGE, "app.py": source}, "return 3", "return 4")


# --- names in texts that are looked up in the caller --------------------------------------------------------

QUERIES = [
    "def f(df): return df.query('age >= @LIMIT')",
    "def f(df): return df.eval('age + LIMIT')",
    "def f(df): return df.eval('@h(age)')",
    "def f(df): return df.query('age >= @C.limit')",
    "def f(df): return [one.query(f'{x} < @LIMIT') for one in df for x in 'ab']",
    "import lib\ndef f(): return lib.eval('LIMIT + 1')",
    "import lib\ndef f(a): return lib.evaluate('a * LIMIT')",
    "from lib import evaluate\ndef f(a): return evaluate('a * LIMIT')",
    "def f(a):\n    from lib import sql\n    return sql('select * from a where x > LIMIT')",
    "def f(df): return df.query(TEXT)",
    "def f(df, text='age >= @LIMIT'): return df.query(text)",
    "def f(df): return df.query(RULES['old'])",
    "def f(df): return df.query(O.text)",
    "def keep(df, text): return df.query(text)\ndef f(df): return keep(df, 'age >= @LIMIT')",
    "def make(text): return lambda df: df.query(text)\nf = make('age > @LIMIT')",
    "import string\ndef f(): return string.Template('$LIMIT').substitute(globals())",
    "def f(): return '{LIMIT}'.format(**globals())",
    "def f(data): return smf.ols('y ~ h(x)', data)",
]
REST = (
    "LIMIT = 1\ndef h(x): return x + LIMIT\nclass C:\n    limit = LIMIT\n"
    "TEXT = 'age >= @LIMIT'\nRULES = {'old': ['age >= @LIMIT']}\nclass Options: pass\nO = Options()\nO.text = TEXT\n"
)


@pytest.mark.parametrize("source", QUERIES)
def test_names_in_the_text_of_a_query_count(source: str, tmp_path: Path) -> None:
    assert moved(tmp_path, {"app.py": f"{REST}{source}\n", "lib.py": "evaluate = sql = None"}, "LIMIT = 1", "LIMIT = 2")


@pytest.mark.parametrize("call", ["df.query('@lo < x < @hi')", "df.eval('x + lo')", "df.query(text)"])
def test_locals_that_a_query_may_name_keep_their_names(call: str, tmp_path: Path) -> None:
    source = f"def f(df, text):\n    lo, hi = 1, 2\n    return {call}\n"
    assert moved(tmp_path, {"app.py": source}, "lo, hi = 1, 2", "hi, lo = 1, 2")


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("def f(pipe): return pipe.get('train').query('x > 1')", "return 5", "return 6"),  # a reactor's name
        ("def f(model):\n    kept = 1\n    return model.eval()", "kept", "held"),
        ("def f(model, x):\n    kept = x\n    return model.evaluate(kept, 'train')", "kept", "held"),
        ("def f(pipe): return pipe.get('other')", "return 7", "return 8"),
        ("def f(df):\n    'In other words.'\n    return df.query('x > 1')", "return 7", "return 8"),
    ],
)
def test_texts_that_are_no_queries_name_nothing(source: str, old: str, new: str, tmp_path: Path) -> None:
    rest = "import catalogue_api\n@catalogue_api.reactor\ndef train(pipe): return 5\ndef other(): return 7\n"
    assert not moved(tmp_path, {"app.py": f"{rest}{source}\n"}, old, new)


def test_a_query_is_not_listed_as_unseen(tmp_path: Path) -> None:
    with program(tmp_path, {"app.py": "K = 1\ndef f(df): return df.eval('x + @K')\n"}) as app:
        assert Fingerprinter().opaque(app.f) == []


@pytest.mark.parametrize("line", QUERIES)
def test_what_is_remembered_of_a_query_says_the_same(line: str, tmp_path: Path) -> None:
    memo = DictMemo()
    with program(tmp_path, {"app.py": f"{REST}{line}\n", "lib.py": "evaluate = sql = None"}) as app:
        first, second = Fingerprinter(memo).fingerprint(app.f), Fingerprinter(memo).fingerprint(app.f)
        assert first == second == Fingerprinter().fingerprint(app.f) and memo.hits


# --- names and annotations, once something in reach reads them ----------------------------------------------

METRICS = "def rmse(y): return y * y\ndef mae(y): return abs(y)\nALL = [rmse, mae]\n"
NAMES = [
    "def f(): return {m.__name__: m(3) for m in ALL}",
    "def f(): return {m.__qualname__: m(3) for m in ALL}",
    "def f(): return {getattr(m, '__name__'): m(3) for m in ALL}",
    "N = '__name__'\ndef f(): return {getattr(m, N): m(3) for m in ALL}",
    "def f(): return [getattr(m, n) for m in ALL for n in ('__name__', '__module__')]",
    "import operator\nname = operator.attrgetter('__name__')\ndef f(): return [name(m) for m in ALL]",
    "def name(m): return m.__name__\ndef f(): return [name(m) for m in ALL]",
    "def f(): return [m.__code__.co_name for m in ALL]",
    "import functools\nP = functools.partial(rmse, 1)\ndef f(): return P.func.__name__",
    "def make(m):\n    def f(): return m.__name__\n    return f\nf = make(rmse)",
    "def f():\n    def rmse(): return 1\n    g = rmse\n    return g.__name__",
    "M = rmse\ndef f(): return M.__name__",
]


@pytest.mark.parametrize("source", NAMES)
def test_names_of_functions_count_for_those_who_read_them(source: str, tmp_path: Path) -> None:
    files = {"app.py": f"{METRICS}{source}\n"}
    assert moved(tmp_path, files, "rmse", "rms")


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return [m(3) for m in ALL]",
        "import logging\ndef f():\n    logging.getLogger(__name__)\n    return [m(3) for m in ALL]",
        "def f():\n    if __name__ == '__main__': return None\n    return [m(3) for m in ALL]",
        "class C:\n    def __repr__(self): return 'C'\ndef f(): return [C(), ALL]",
    ],
)
def test_names_of_functions_do_not_count_otherwise(source: str, tmp_path: Path) -> None:
    assert not moved(tmp_path, {"app.py": f"{METRICS}{source}\n"}, "rmse", "rms")


def test_functions_whose_names_are_read_may_be_moved(tmp_path: Path) -> None:
    use = "def f(): return {m.__name__: m(3) for m in ALL}\n"
    here = {"app.py": METRICS + use}
    there = {"app.py": "from metrics import rmse, mae\nALL = [rmse, mae]\n" + use, "metrics.py": METRICS}
    assert fingerprints(tmp_path / "1", here, "f") == fingerprints(tmp_path / "2", there, "f")


FUTURE = "from __future__ import annotations\n"
MODELS = "import dataclasses, typing\n@dataclasses.dataclass\nclass Ridge:\n    alpha: float = 1.0\nT = Ridge\n"


@pytest.mark.parametrize(
    "field",
    [
        *(FUTURE + field for field in ("Ridge", "list[Ridge]", "typing.Optional[T]", "dict[str, 'Ridge']")),
        *("'Ridge'", "list['Ridge']", "typing.Optional['Ridge']", "'Ridge | None'", "dict[str, list['T']]"),
    ],
)
def test_classes_that_annotations_of_a_class_name_in_texts_count(field: str, tmp_path: Path) -> None:
    head, field = (FUTURE, field[len(FUTURE) :]) if field.startswith(FUTURE) else ("", field)
    source = f"{head}{MODELS}@dataclasses.dataclass\nclass Options:\n    ridge: {field}\ndef f(): return Options\n"
    assert moved(tmp_path, {"app.py": source}, "= 1.0", "= 2.0")


def test_an_alias_in_annotations_counts(tmp_path: Path) -> None:
    source = f"{FUTURE}T = int\nclass Row:\n    x: T\n    next: Row\ndef f(): return Row\n"
    assert moved(tmp_path, {"app.py": source}, "T = int", "T = str")


def test_texts_of_literals_name_nothing(tmp_path: Path) -> None:
    source = "import typing\ndef mean(): return 1\nclass Row:\n    how: typing.Literal['mean']\ndef f(): return Row\n"
    assert not moved(tmp_path, {"app.py": source}, "return 1", "return 2")


READERS = [
    "import inspect\ndef build(fn): return [p.annotation() for p in inspect.signature(fn).parameters.values()]",
    "import inspect as i\n"
    "def build(fn): return [p.annotation() for p in i.Signature.from_callable(fn).parameters.values()]",
    "import typing\ndef build(fn): return typing.get_type_hints(fn)",
    "def build(fn): return fn.__annotations__",
    "from inspect import get_annotations as hints\ndef build(fn): return hints(fn)",
    "def build(fn):\n    from inspect import get_annotations\n    return get_annotations(fn)",
]


@pytest.mark.parametrize("head", ["", FUTURE])
@pytest.mark.parametrize("reader", READERS)
def test_annotations_of_functions_count_for_those_who_read_them(reader: str, head: str, tmp_path: Path) -> None:
    source = f"{head}{MODELS}{reader}\ndef fit(x: Ridge): return x\ndef f(): return build(fit)\n"
    assert moved(tmp_path / "class", {"app.py": source}, "= 1.0", "= 2.0")
    assert moved(tmp_path / "annotation", {"app.py": source}, "x: Ridge", "x: int")
    assert not moved(tmp_path / "moved", {"app.py": source}, "def fit", "# fit\ndef fit")


@pytest.mark.parametrize("head", ["", FUTURE])
def test_annotations_of_functions_do_not_count_otherwise(head: str, tmp_path: Path) -> None:
    source = f"{head}{MODELS}def fit(x: Ridge): return x\ndef f(): return fit(1)\n"
    assert not moved(tmp_path / "class", {"app.py": source}, "= 1.0", "= 2.0")
    assert not moved(tmp_path / "annotation", {"app.py": source}, "x: Ridge", "x: int")


@pytest.mark.parametrize("source", ["def f(m): return m.__name__", "def f(m): return m.__annotations__, m.__doc__"])
def test_what_is_read_of_code_is_remembered(source: str) -> None:
    namespace: dict[str, types.FunctionType] = {}
    exec(source, namespace)
    record = normalise(namespace["f"].__code__)
    assert record.sees and Record.from_text(record.to_text()) == record


NETS = """
class Net:
    def __init__(self, gain): self.gain = gain
    def run(self): return self.gain * 1
net = Net(3)
"""
TARGETS = {
    "a dict": "K = {'_target_': 'nets.Net'}",
    "an ordered dict": "K = collections.OrderedDict(_target_='nets.Net')",
    "a namespace": "K = argparse.Namespace(class_path='nets.Net', init_args={})",
    "a slot": "class C: __slots__ = ('class_path',)\nK = C()\nK.class_path = 'nets.Net'",
    "a structured config": "@dataclasses.dataclass\nclass C:\n    _target_: str = 'nets.Net'\nK = C()",
    "a named tuple": "K = collections.namedtuple('C', 'class_path, gain')('nets.Net', 1)",
    "a typed one": "class C(typing.NamedTuple):\n    class_path: str\n    gain: int = 1\nK = [C('nets.Net')]",
    "the class of a typed one": "class K(typing.NamedTuple):\n    class_path: str = 'nets.Net'",
    "the class of one": "@dataclasses.dataclass\nclass K:\n    _target_: str = 'nets.Net'",
    "a subclass of str": "class T(str): pass\nK = {'_target_': T('nets.Net')}",
    "an object": "K = {'_target_': 'nets.net'}",
    "a method of an object": "K = {'_target_': 'nets.net.run'}",
}


@pytest.mark.parametrize("edit", [("* 1", "* 2"), ("Net(3)", "Net(4)")])
@pytest.mark.parametrize("name", TARGETS)
def test_texts_that_name_what_is_to_be_called(tmp_path: Path, name: str, edit: tuple[str, str]) -> None:
    source = f"import argparse, collections, dataclasses, typing\n{TARGETS[name]}\ndef f(): return K\n"
    looks = []
    for number, nets in enumerate((NETS, NETS, NETS.replace(*edit))):
        with program(tmp_path / str(number), {"app.py": source, "nets.py": nets}) as app:
            looks.append((Fingerprinter().fingerprint(app.f), Fingerprinter().encode_value(app.K)))
    assert looks[0] == looks[1]
    for before, after in zip(looks[0], looks[2], strict=True):
        assert (before != after) == (edit[0] == "* 1" or "object" in name)


def test_packages_that_are_tracked_are_found_by_texts(tmp_path: Path) -> None:
    looks = []
    for number, edit in enumerate(("* 1", "* 2")):
        files = {"app.py": "K = {'_target_': 'nets.Net'}\ndef f(): return K", "nets.py": NETS.replace("* 1", edit)}
        with program(tmp_path / str(number) / "site-packages", files) as app:
            options = {"track": ["app", "nets"]}
            looks.append((Fingerprinter(**options).fingerprint(app.f), Fingerprinter(**options).encode_value(app.K)))
            looks.append((Fingerprinter(track="app").fingerprint(app.f), "nets is a library"))
    assert looks[0][0] != looks[2][0]
    assert looks[0][1] != looks[2][1]
    assert looks[1] == looks[3]


def test_what_a_named_module_registers_is_the_same_whenever_it_was_imported(tmp_path: Path) -> None:
    app = "SEEN = []\nK = {'_target_': 'nets.Net'}\ndef f(): return SEEN, K\n"
    files = {"app.py": app, "nets.py": f"import app\napp.SEEN.append(1)\n{NETS}"}
    first = fingerprints(tmp_path / "1", files, "f")
    assert fingerprints(tmp_path / "2", {**files, "app.py": f"{app}import nets\n"}, "f") == first


def test_a_named_module_may_end_the_program(tmp_path: Path) -> None:
    app = "K = {'_target_': 'nets.Net'}\ndef f(): return K\n"
    assert fingerprints(tmp_path, {"app.py": app, "nets.py": "import sys\nsys.exit('usage: nets')"}, "f")


WRITTEN = {
    "one key": "{'_target_': 'nets.Net'}",
    "many keys": "{'_target_': 'nets.Net', 'gain': x}",
    "arguments": "dict(x, _target_='nets.Net')",
    "a class path": "{'class_path': 'nets.Net', 'init_args': {'gain': x}}",
    "an assignment": "x.update(_target_='nets.net.run')",
    "nested": "[{'_target_': 'nets.Net'} for _ in x]",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_dicts_in_code_count_with_what_they_name_to_be_called(tmp_path: Path, name: str) -> None:
    files = {"app.py": f"def f(x): return {WRITTEN[name]}", "nets.py": NETS}
    assert moved(tmp_path, files, "* 1", "* 2")
    assert moved(tmp_path / "other", {**files, "more.py": "K = 1"}, "K = 1", "K = 2") is False


@pytest.mark.parametrize("path", ["nowhere.at.all", "collections.Counter", "data.csv", "1.5", "Net"])
def test_texts_that_name_nothing_of_the_project_change_nothing(tmp_path: Path, path: str) -> None:
    source = f"def f(x): return {{'_target_': '{path}'}}"
    record = normalise(compile(source, "app.py", "exec").co_consts[0])
    assert Record.from_text(record.to_text()) == record
    assert fingerprints(tmp_path, {"app.py": source}, "f")["f"] == hash_bytes(b"N" + FUNCTION + record.digest.encode())

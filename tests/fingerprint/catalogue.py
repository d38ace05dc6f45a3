"""The catalogue of edits, as data: what must run again, and what must not.

Each case is a program, an edit, and what is expected of its reactors after the edit: ``"run"`` (the value
changes, so that an old one would be provably wrong) or ``"cached"``. The programs import a small adapter
``catalogue_api`` with ``reactor``, ``subreactor``, ``mark(name)`` (notes that a body ran), ``untracked`` and
``AUX(config, names)``; whoever runs the catalogue provides it. Every case also demands that the unedited
program does not run twice.
"""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """One replacement; `old` occurs exactly once in `file` ("" creates the file)."""

    old: str
    new: str
    file: str = "app.py"


class Case(NamedTuple):
    """One edit of one program.

    Attributes
    ----------
    id, title : str
        "D01", "comment inside the body".
    program : str
        Key of `PROGRAMS`.
    edits : tuple of Edit
        Made together.
    expected : dict
        Reactor -> "run" or "cached".
    """

    id: str
    title: str
    program: str
    edits: tuple[Edit, ...]
    expected: dict[str, str]


class ConfigCase(NamedTuple):
    """One change of a config object.

    Attributes
    ----------
    before, after : str
        Expressions for what ``make_config()`` returns; NS is ``types.SimpleNamespace``.
    reads : tuple of str
        Expressions over ``config`` that the reactor evaluates, the first of which it sends as ``out``;
        ``pick(m)`` returns ``m.lr``.
    expected : str
        "run", "cached" or "either".
    """

    id: str
    title: str
    before: str
    after: str
    reads: tuple[str, ...]
    expected: str


P1 = '''\
from catalogue_api import reactor, mark
import math

K = 3
def helper(x):
    """Help."""
    return inner(x) + K
def inner(x):
    return x * 2
def unrelated(x):
    return x - 1

@reactor
def main(pipe, config):
    """Main reactor."""
    mark('main')
    total = 0
    for i in range(3):
        total += helper(i) * 1000
    tag = f"v={total}"
    flag = total in {1, 2, 3}
    pipe.send('out', [tag, flag, 16, True, 0.5])
'''

P2 = """\
from catalogue_api import reactor, mark

def load(x, scale=2, *, bias=1):
    try:
        value = int(x)
    except ValueError:
        return -1
    if value > 2:
        return value * scale
    else:
        return value + bias

def make():
    def nested(v):
        return v + 1
    return nested

@reactor
def main(pipe, config):
    mark('main')
    key = lambda v: -v
    xs = sorted([load(s) for s in ("1", "x", "7") if s != "0"], key=key)
    ys = (make()(1), min(xs), dict(a=1))
    pipe.send('out', (xs, ys))
"""

P3 = '''\
from catalogue_api import reactor, mark

@reactor
def main(pipe, config):
    """usage: v1"""
    mark('main')
    pipe.send('out', main_doc())
def main_doc():
    """help text 1"""
    return main_doc.__doc__
'''

P4_APP = """\
from catalogue_api import reactor, mark
import utils
@reactor
def main(pipe, config):
    mark('main')
    pipe.send('out', utils.h(2))
"""
P4_UTILS = """\
def h(x):
    return x + 1
def other(x):
    return x
LIMIT = 3
"""

P5_APP = """\
from catalogue_api import reactor, mark
import utils
from utils import h2
@reactor
def main(pipe, config):
    mark('main')
    from utils import h3
    pipe.send('out', (utils.h(2), h2(3), h3(4)))
"""
P5_UTILS = """\
def h(x):
    return x + 1
def h2(x):
    return x + 1
def h3(x):
    return x + 1
def other(x):
    return x
LIMIT = 3
"""

P6_APP = """\
from catalogue_api import reactor, mark
from utils import h
@reactor
def main(pipe, config):
    mark('main')
    pipe.send('out', h(2))
"""
P6_UTILS = """\
Z = 4
def h(x):
    return x + Z
"""

P7 = """\
import functools, enum, re, collections
from dataclasses import dataclass
from catalogue_api import reactor, mark

class Base:
    gain = 2
    def run(self, x): return x * self.gain
class Model(Base):
    rate = 3
    def __init__(self, n): self.n = n
    def step(self): return self.run(self.n) + self.rate + self.twice
    @property
    def twice(self): return self.n * 2
    @staticmethod
    def stat(x): return x + 1
class Mode(enum.Enum):
    FAST = 1
    SLOW = 2
@dataclass
class Opt:
    k: int = 5
Pair = collections.namedtuple("Pair", "a b", defaults=(1, 2))
@functools.lru_cache(None)
def cached(x): return x + 1
def plain(x, y): return x - y
part = functools.partial(plain, y=4)
OPS = {"p": plain, "c": lambda x: x * 7}
PAT = re.compile("a+")
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
def gen(n):
    for i in range(n): yield i
def pipeline(fn, xs): return [fn(x) for x in xs]
def item(x): return x + 0.5

@reactor
def main(pipe, config):
    mark('main')
    out = [Model(4).step(), Model.stat(1), Mode.FAST.value, Opt().k, Pair().b, cached(1), part(9), OPS["c"](2),
           bool(PAT.match("aa")), even(4), list(gen(3)), pipeline(item, [1, 2])]
    pipe.send('out', out)
"""

P8 = """\
from catalogue_api import reactor, subreactor, mark

@subreactor
def low(pipe, x):
    data = yield pipe.receive('data')
    return data + x
@subreactor
def high(pipe, x):
    v = yield from low(pipe, x)
    return v * 2
@reactor
def source(pipe, config):
    mark('source')
    pipe.send('data', 10)
@reactor
def main(pipe, config):
    mark('main')
    v = yield from high(pipe, 1)
    pipe.send('out', v)
"""

P9 = """\
from catalogue_api import reactor, mark, untracked

@untracked
def show(x):
    return print("value", x, file=None) if False else None

@reactor
def main(pipe, config):
    mark('main')
    show(3)
    pipe.send('out', 1)
"""

P10 = """\
import numpy as np
from catalogue_api import reactor, mark
W = np.array([1.0, 2.0, 3.0])
GLOBAL = {"a": [1, 2, (3,)], "b": None}
@reactor
def main(pipe, config):
    mark('main')
    pipe.send('out', [float(W.sum()), GLOBAL["a"][0]])
"""

P11 = """\
from catalogue_api import reactor, mark
class Spec:
    width: int
    depth: float
def describe():
    return [(k, getattr(t, "__name__", t)) for k, t in Spec.__annotations__.items()]
@reactor
def main(pipe, config):
    mark('main')
    pipe.send('out', describe())
"""

#: Program -> file name -> source.
PROGRAMS: dict[str, dict[str, str]] = {
    "P1": {"app.py": P1},
    "P2": {"app.py": P2},
    "P3": {"app.py": P3},
    "P4": {"app.py": P4_APP, "utils.py": P4_UTILS},
    "P5": {"app.py": P5_APP, "utils.py": P5_UTILS},
    "P6": {"app.py": P6_APP, "utils.py": P6_UTILS},
    "P7": {"app.py": P7},
    "P8": {"app.py": P8},
    "P9": {"app.py": P9},
    "P10": {"app.py": P10},
    "P11": {"app.py": P11},
}


def _case(number: str, title: str, program: str, expected: str | dict[str, str], *edits: Edit) -> Case:
    wanted = {"main": expected} if isinstance(expected, str) else expected
    return Case(number, title, program, edits, wanted)


_STEP = "    def step(self): return self.run(self.n) "
_SEND = "    pipe.send('out', [tag, flag, 16, True, 0.5])\n"
_LOOP = "        total += helper(i) * 1000\n"
_XS = '    xs = sorted([load(s) for s in ("1", "x", "7") if s != "'
_YS = "    ys = (make()(1), "
_SHOW = '    return print("value", x, file=None) if False else None'
_PAIR = 'Pair = collections.namedtuple("Pair", "a b", defaults=(1, '

CASES: tuple[Case, ...] = (
    _case(
        "D01",
        "comment inside the body",
        "P1",
        "cached",
        Edit("    total = 0\n", "    total = 0  # start\n    # loop\n"),
    ),
    _case(
        "D02",
        "blank lines and comments above the function",
        "P1",
        "cached",
        Edit("@reactor\n", "\n\n# a comment\n\n@reactor\n"),
    ),
    _case(
        "D03",
        "call re-wrapped over lines",
        "P1",
        "cached",
        Edit(
            _LOOP,
            "        total += (\n            helper(\n                i,\n            )\n"
            "            * 1000\n        )\n",
        ),
    ),
    _case(
        "D04",
        "docstring of the reactor edited",
        "P1",
        "cached",
        Edit('"""Main reactor."""', '"""Main reactor, better."""'),
    ),
    _case("D05", "docstring of the reactor removed", "P1", "cached", Edit('    """Main reactor."""\n', "")),
    _case("D06", "docstring of a helper edited", "P1", "cached", Edit('"""Help."""', '"""Helps."""')),
    _case("D07", "local variable annotated", "P1", "cached", Edit("    total = 0\n", "    total: int = 0\n")),
    _case(
        "D08",
        "parameter and return annotations added to a helper",
        "P1",
        "cached",
        Edit("def helper(x):", "def helper(x: int) -> int:"),
    ),
    _case(
        "D09",
        "from __future__ import annotations added",
        "P1",
        "cached",
        Edit("from catalogue_api", "from __future__ import annotations\nfrom catalogue_api"),
    ),
    _case(
        "D10",
        "plain local renamed",
        "P1",
        "cached",
        Edit("    total = 0\n", "    acc = 0\n"),
        Edit(_LOOP, "        acc += helper(i) * 1000\n"),
        Edit('    tag = f"v={total}"\n', '    tag = f"v={acc}"\n'),
        Edit("    flag = total in {1, 2, 3}\n", "    flag = acc in {1, 2, 3}\n"),
    ),
    _case(
        "D11",
        "literals respelled: 1000 -> 1_000, 16 -> 0x10, quotes",
        "P1",
        "cached",
        Edit(_LOOP, "        total += helper(i) * 1_000\n"),
        Edit(_SEND, '    pipe.send("out", [tag, flag, 0x10, True, 0.5])\n'),
    ),
    _case(
        "D12",
        "functions reordered in the file",
        "P1",
        "cached",
        Edit(
            "def inner(x):\n    return x * 2\ndef unrelated(x):\n    return x - 1\n",
            "def unrelated(x):\n    return x - 1\ndef inner(x):\n    return x * 2\n",
        ),
    ),
    _case(
        "D13",
        "unrelated function and import added",
        "P1",
        "cached",
        Edit("import math\n", "import math, json\ndef another(): return 0\n"),
    ),
    _case("D14", "unrelated function edited", "P1", "cached", Edit("    return x - 1\n", "    return x - 2\n")),
    _case(
        "D15",
        'dead branch "if 0:" added',
        "P1",
        "cached",
        Edit("    total = 0\n", "    total = 0\n    if 0:\n        total = 9\n"),
    ),
    _case(
        "D16",
        "redundant pass and bare string statement added",
        "P1",
        "cached",
        Edit("    total = 0\n", '    total = 0\n    pass\n    "note"\n'),
    ),
    _case("D17", "elements of a set literal reordered", "P1", "cached", Edit("{1, 2, 3}", "{3, 1, 2}")),
    _case("D18", "int constant changed", "P1", "run", Edit("helper(i) * 1000", "helper(i) * 1001")),
    _case("D19", "operator changed in a helper of a helper", "P1", "run", Edit("return x * 2", "return x + 2")),
    _case("D20", "module constant used by a helper changed", "P1", "run", Edit("K = 3", "K = 4")),
    _case("D21", "literal text of an f-string changed", "P1", "run", Edit('f"v={total}"', 'f"w={total}"')),
    _case("D22", "True -> 1", "P1", "run", Edit("16, True, 0.5", "16, 1, 0.5")),
    _case("D23", "16 -> 16.0", "P1", "run", Edit("16, True, 0.5", "16.0, True, 0.5")),
    _case("D24", '0.5 -> "0.5"', "P1", "run", Edit("16, True, 0.5", '16, True, "0.5"')),
    _case("D25", "set literal content", "P1", "run", Edit("{1, 2, 3}", "{1, 2, 15000}")),
    _case("D26", "default argument", "P2", "run", Edit("scale=2", "scale=3")),
    _case("D27", "keyword-only default", "P2", "run", Edit("bias=1", "bias=9")),
    _case("D28", "lambda body", "P2", "run", Edit("lambda v: -v", "lambda v: v")),
    _case("D29", "nested function body", "P2", "run", Edit("return v + 1", "return v + 2")),
    _case("D30", "condition of a comprehension", "P2", "run", Edit(f'{_XS}0"', f'{_XS}1"')),
    _case("D31", "value returned by the handler", "P2", "run", Edit("return -1", "return -2")),
    _case("D32", "branches of if/else swapped", "P2", "run", Edit("if value > 2:", "if not value > 2:")),
    _case("D33", "other builtin called", "P2", "run", Edit(f"{_YS}min(xs)", f"{_YS}max(xs)")),
    _case("D34", "keyword name at a call", "P2", "run", Edit("dict(a=1)", "dict(b=1)")),
    _case(
        "D35",
        "docstring edited where the program reads __doc__",
        "P3",
        "run",
        Edit('"""help text 1"""', '"""help text 2"""'),
    ),
    _case(
        "D36",
        "helper in another module (import utils)",
        "P4",
        "run",
        Edit("return x + 1", "return x + 2", "utils.py"),
    ),
    _case(
        "D37",
        "helper imported by name",
        "P5",
        "run",
        Edit("def h2(x):\n    return x + 1", "def h2(x):\n    return x + 5", "utils.py"),
    ),
    _case(
        "D38",
        "helper imported inside the function",
        "P5",
        "run",
        Edit("def h3(x):\n    return x + 1", "def h3(x):\n    return x + 5", "utils.py"),
    ),
    _case(
        "D39",
        "function of the helper module that the reactor does not use",
        "P5",
        "cached",
        Edit("    return x\n", "    return x + 1\n", "utils.py"),
    ),
    _case(
        "D40",
        "constant of the helper module that the reactor does not use",
        "P5",
        "cached",
        Edit("LIMIT = 3", "LIMIT = 4", "utils.py"),
    ),
    _case(
        "D41",
        "helper moved to another module, body unchanged",
        "P6",
        "cached",
        Edit("", P6_UTILS, "better.py"),
        Edit(P6_UTILS, "from better import h\n", "utils.py"),
    ),
    _case("D42", "method of a class", "P7", "run", Edit(f"{_STEP}+ self.rate", f"{_STEP}- self.rate")),
    _case("D43", "method of a base class", "P7", "run", Edit("return x * self.gain", "return x + self.gain")),
    _case("D44", "class attribute of a base class", "P7", "run", Edit("gain = 2", "gain = 3")),
    _case("D45", "property", "P7", "run", Edit("return self.n * 2", "return self.n * 3")),
    _case("D46", "staticmethod", "P7", "run", Edit("def stat(x): return x + 1", "def stat(x): return x + 2")),
    _case("D47", "enum value", "P7", "run", Edit("FAST = 1", "FAST = 9")),
    _case("D48", "dataclass default", "P7", "run", Edit("k: int = 5", "k: int = 6")),
    _case("D49", "namedtuple default", "P7", "run", Edit(f"{_PAIR}2))", f"{_PAIR}3))")),
    _case(
        "D50", "body of an lru_cache helper", "P7", "run", Edit("cached(x): return x + 1", "cached(x): return x + 2")
    ),
    _case("D51", "bound argument of a partial", "P7", "run", Edit("partial(plain, y=4)", "partial(plain, y=5)")),
    _case("D52", "lambda in a dict of functions", "P7", "run", Edit("lambda x: x * 7", "lambda x: x * 8")),
    _case("D53", "compiled regular expression", "P7", "run", Edit('re.compile("a+")', 're.compile("b+")')),
    _case(
        "D54",
        "mutual recursion: the partner is edited",
        "P7",
        "run",
        Edit("def even(n): return True if", 'def even(n): return "yes" if'),
    ),
    _case("D55", "generator helper", "P7", "run", Edit("yield i\n", "yield i + 1\n")),
    _case("D56", "function passed as an argument", "P7", "run", Edit("return x + 0.5", "return x + 0.25")),
    _case(
        "D57",
        "subreactor edited",
        "P8",
        {"main": "run", "source": "cached"},
        Edit("return v * 2", "return v * 3"),
    ),
    _case(
        "D58",
        "subreactor called by a subreactor edited",
        "P8",
        {"main": "run", "source": "cached"},
        Edit("return data + x", "return data - x"),
    ),
    _case(
        "D59",
        "upstream reactor sends another value",
        "P8",
        {"main": "run", "source": "run"},
        Edit("pipe.send('data', 10)", "pipe.send('data', 11)"),
    ),
    _case(
        "D60",
        "upstream edited, same value sent (early cutoff)",
        "P8",
        {"main": "cached", "source": "run"},
        Edit("pipe.send('data', 10)", "pipe.send('data', 2 * int('5'))"),
    ),
    _case(
        "D61",
        "comment in a subreactor",
        "P8",
        {"main": "cached", "source": "cached"},
        Edit("return v * 2", "return v * 2  # twice"),
    ),
    _case(
        "D62",
        "helper marked as untracked edited",
        "P9",
        "cached",
        Edit(_SHOW, '    return print("the value", x, file=None) if not True else None'),
    ),
    _case("D63", "content of a module-level array", "P10", "run", Edit("[1.0, 2.0, 3.0]", "[1.0, 2.0, 4.0]")),
    _case("D64", "content of a module-level nested container", "P10", "run", Edit('"a": [1, 2', '"a": [5, 2')),
    _case("D81", "class annotations read at run time change", "P11", "run", Edit("depth: float", "depth: str")),
)

#: The reactor that reads a config; `{out}` is the first expression read, `{more}` the others.
CONFIG_PROGRAM = """\
from types import SimpleNamespace as NS
from catalogue_api import reactor, mark, AUX
def pick(m): return m.lr
def make_config():
    return {config}
@reactor
def main(pipe, config):
    mark('main')
    {more}
    pipe.send('out', {out})
"""

CONFIG_CASES: tuple[ConfigCase, ...] = (
    ConfigCase("D65", "option that is read changes", "NS(a=1, b=2)", "NS(a=3, b=2)", ("config.a",), "run"),
    ConfigCase("D66", "option that is not read changes", "NS(a=1, b=2)", "NS(a=1, b=5)", ("config.a",), "cached"),
    ConfigCase(
        "D67",
        "nested option read, sibling changes",
        "NS(m=NS(lr=1, n=2))",
        "NS(m=NS(lr=1, n=3))",
        ("config.m.lr",),
        "cached",
    ),
    ConfigCase(
        "D68", "nested option read, it changes", "NS(m=NS(lr=1, n=2))", "NS(m=NS(lr=2, n=2))", ("config.m.lr",), "run"
    ),
    ConfigCase(
        "D69",
        "nested object passed to a helper",
        "NS(m=NS(lr=1, n=2))",
        "NS(m=NS(lr=2, n=2))",
        ("pick(config.m)",),
        "run",
    ),
    ConfigCase("D70", "hasattr was false, option added", "NS(a=1)", "NS(a=1, z=1)", ('hasattr(config, "z")',), "run"),
    ConfigCase("D71", "list option, one element changes", "NS(a=[1, 2])", "NS(a=[1, 3])", ("sum(config.a)",), "run"),
    ConfigCase(
        "D72",
        "dict option read by key, other key changes (a re-run is sound too)",
        'NS(o={"a": 1, "b": 2})',
        'NS(o={"a": 1, "b": 3})',
        ('config.o["a"]',),
        "either",
    ),
    ConfigCase("D73", '"1" becomes 1', 'NS(a="1")', "NS(a=1)", ("repr(config.a)",), "run"),
    ConfigCase("D74", "1 becomes 1.0", "NS(a=1)", "NS(a=1.0)", ("repr(config.a)",), "run"),
    ConfigCase(
        "D75",
        "option removed that was read with a default",
        "NS(a=1, z=4)",
        "NS(a=1)",
        ('getattr(config, "z", 0)',),
        "run",
    ),
    ConfigCase(
        "D76",
        "callable option, body edited",
        "NS(f=lambda x: x + 1)",
        "NS(f=lambda x: x + 2)",
        ("config.f(1)",),
        "run",
    ),
    ConfigCase("D77", "range option changes length", "NS(a=range(3))", "NS(a=range(4))", ("len(config.a)",), "run"),
    ConfigCase("D78", "unread option added", "NS(a=1)", "NS(a=1, new=2)", ("config.a",), "cached"),
    ConfigCase(
        "D79",
        "two reads of the same option, nothing changed",
        "NS(a=1)",
        "NS(a=1)",
        ("config.a + config.a",),
        "cached",
    ),
    ConfigCase(
        "D80",
        "auxiliary option changes",
        'AUX(NS(a=1, tmp="x"), ["tmp"])',
        'AUX(NS(a=1, tmp="y"), ["tmp"])',
        ("config.a", "config.tmp"),
        "cached",
    ),
    ConfigCase(
        "D82",
        "dict config: key that is read changes",
        '{"a": 1, "b": 2}',
        '{"a": 5, "b": 2}',
        ('config["a"]',),
        "run",
    ),
    ConfigCase(
        "D83",
        "dict config: other key changes",
        '{"a": 1, "b": 2}',
        '{"a": 1, "b": 5}',
        ('config["a"]',),
        "cached",
    ),
)


def sources(program: str, edits: tuple[Edit, ...] = ()) -> dict[str, str]:
    """File name -> source of a program, edited.

    Raises
    ------
    ValueError
        If the text to replace does not occur exactly once.
    """
    files = dict(PROGRAMS[program])
    for old, new, file in edits:
        if not old:
            files[file] = new
            continue
        if files[file].count(old) != 1:
            raise ValueError(f"{old!r} occurs {files[file].count(old)} times in {file} of {program}")
        files[file] = files[file].replace(old, new)
    return files


def config_source(case: ConfigCase, config: str) -> str:
    """Source of the config program with the config expression `config`."""
    more = "; ".join(case.reads[1:]) or "pass"
    return CONFIG_PROGRAM.format(config=config, more=more, out=case.reads[0])

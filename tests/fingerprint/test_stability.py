"""Digests are the same in every process, and an edit is seen by the next one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pyplantx.fingerprint.value import encode

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, sys
from tests.fingerprint import test_references, test_values
from tests.fingerprint.harness import of_source
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.errors import CannotFingerprint
values = {**test_values.DIFFERENT, **test_values.EQUAL}
digests = {name: [Fingerprinter().encode_value(one) for one in pair] for name, pair in values.items()}
digests |= {name: of_source(source) for name, (source, *_) in test_references.KINDS.items()}
json.dump(digests, sys.stdout)
"""


def run(code: str, *options: str, folder: Path = ROOT, **environment: str) -> str:
    # the package's own folder first, as the tests that start this one have it
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, *options, "-c", code], env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hash_seeds_and_options_do_not_count() -> None:
    one = json.loads(run(SCRIPT, PYTHONHASHSEED="1"))
    assert len(one) > 100
    assert json.loads(run(SCRIPT, PYTHONHASHSEED="2")) == one
    assert json.loads(run(SCRIPT, "-X", "no_debug_ranges", PYTHONHASHSEED="3")) == one


#: Sets whose order hangs on the hash seed, with code of the project in them that is described on the way.
SETS = """
from functools import partial
from pyplantx.fingerprint.code import Fingerprinter
class Step:
    def __init__(self, name, work): self.name, self.work = name, work
    def __hash__(self): return hash(self.name)
    def __eq__(self, other): return self.name == other.name
class Named(type):
    def __hash__(self): return hash(self.__name__)
def make(n):
    def inner(x): return x + n if n else inner(x)
    return inner
def one(x): return x + 1
def two(x): return x * 2
STEPS = {Step("a", one), Step("b", two), Step("c", partial(one, 3)), Step("d", make(1)), Step("e", make(2))}
CLASSES = frozenset(Named(name, (), {"size": size, "__module__": __name__}) for size, name in enumerate("ABCDEF"))
BOUND = {(name, step.__eq__) for name, step in zip("uvwxyz", sorted(STEPS, key=lambda step: step.name))}
def kind(n):
    class Kind:
        size = n
        def grown(self): return n
    return Kind
KINDS = {Step(name, kind(size)) for size, name in enumerate("pqrs")} | {frozenset({kind(7), kind(8)}), kind(9)}
def run(): return [step.work(3) for step in STEPS]
def sizes(): return sum(cls.size for cls in CLASSES)
def bound(): return len(BOUND)
def kinds(): return len(KINDS)
print([step.name for step in STEPS], [cls.__name__ for cls in CLASSES])
print([Fingerprinter().fingerprint(function) for function in (run, sizes, bound, kinds)])
"""


def test_the_order_of_code_in_a_set_does_not_count() -> None:
    orders, digests = zip(*[run(SETS, PYTHONHASHSEED=seed).splitlines() for seed in "123"], strict=True)
    assert len(set(orders)) == 3
    assert len(set(digests)) == 1


def test_what_code_in_a_set_does_counts() -> None:
    digests = [
        run(source, PYTHONHASHSEED="1").splitlines()[1]
        for source in (SETS, *(SETS.replace(*edit) for edit in SET_EDITS))
    ]
    assert len(set(digests)) == 1 + len(SET_EDITS)


SET_EDITS = [("x * 2", "x * 3"), ("make(2)", "make(4)"), ("kind(9)", "kind(10)")]

TABLE = """
from pyplantx.fingerprint.code import Fingerprinter
def lab():
    table = {}
    def listed(function):
        def step(x): return function(x, table)
        table[function.__name__] = step
    for n in range(12):
        names = {}
        exec(f"def f{n}(x, table): return x + {n}", names)
        listed(names[f"f{n}"])
    return set(table.values())
STEPS = lab()
def run(): return len(STEPS)
print(id(STEPS), [len(STEPS)])
print(Fingerprinter().fingerprint(run))
"""


def test_functions_in_a_set_that_hold_the_table_in_which_they_are_listed_are_looked_at_once_each() -> None:
    digests = [run(TABLE, PYTHONHASHSEED=seed).splitlines()[1] for seed in "12"]  # else it takes hours
    assert len(set(digests)) == 1


def test_a_set_without_code_in_it_is_encoded_once() -> None:
    asked = 0

    class Counted:
        def __fingerprint__(self) -> str:
            nonlocal asked
            asked += 1
            return "counted"

    def described(value: object) -> bytes:
        return encode(value, lambda obj: "code", lambda thing: None, None, lambda obj: "rank")

    nested: frozenset[object] = frozenset({1})
    for _ in range(40):  # each of them would be gone through twice for the one around it
        nested = frozenset({nested, frozenset({nested, 2})})
    assert described(nested) == encode(nested)
    described(frozenset({Counted()}))
    assert asked == 2  # its class is code: once for the order, once for what it is


PROJECT = {
    "main.py": (
        "import sys\nfrom pyplantx.fingerprint.code import Fingerprinter\nfrom lab import steps\n"
        "printer = Fingerprinter()\n"
        "print(*(printer.fingerprint(getattr(steps, name)) for name in ('load', 'train', 'plot')))\n"
    ),
    "lab/__init__.py": "",
    "lab/steps.py": (
        "from . import tools\nfrom .model import Model\nRATE = 0.1\nPALETTE = {'line': 'red'}\n"
        "def load(pipe):\n    pipe.send('data', tools.clean([3, 1, 2]))\n"
        "def train(pipe):\n    data = yield pipe.receive('data')\n    pipe.send('model', Model(RATE).fit(data))\n"
        "def plot(pipe):\n    model = yield pipe.receive('model')\n    tools.draw(model, PALETTE['line'])\n"
    ),
    "lab/tools.py": (
        "LIMIT = 10\ndef clean(xs): return [x for x in sorted(xs) if keep(x)]\ndef keep(x): return x < LIMIT\n"
        "def draw(model, colour): return f'{colour}: {model}'\n"
    ),
    "lab/model.py": (
        "class Base:\n    def __init__(self, rate): self.rate = rate\n"
        "class Model(Base):\n    def fit(self, xs):\n        self.w = sum(xs) * self.rate\n        return self\n"
    ),
}

#: (file, old, new, what changes)
EDITS = [
    ("lab/tools.py", "LIMIT = 10", "LIMIT = 11", {"load"}),
    ("lab/tools.py", "x < LIMIT", "x <= LIMIT", {"load"}),
    ("lab/tools.py", "{colour}: ", "{colour} ", {"plot"}),
    ("lab/tools.py", "def keep(x)", "# what stays\n\n\ndef keep(x: int) -> bool", set[str]()),
    ("lab/steps.py", "RATE = 0.1", "RATE = 0.2", {"train"}),
    ("lab/steps.py", "'red'", "'blue'", {"plot"}),
    ("lab/steps.py", "'data', tools", "'DATA', tools", {"load"}),
    ("lab/model.py", "self.rate = rate", "self.rate = -rate", {"train"}),
    ("lab/model.py", "sum(xs)", "max(xs)", {"train"}),
    ("lab/model.py", "class Model(Base):\n", "class Model(Base):\n    '''A model.'''\n", set[str]()),
]


def project_prints(folder: Path, files: dict[str, str]) -> dict[str, str]:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source, encoding="utf-8")
    out = run("import runpy; runpy.run_path('main.py', run_name='__main__')", folder=folder)
    return dict(zip(("load", "train", "plot"), out.split(), strict=True))


def test_edits_of_a_project(tmp_path: Path) -> None:
    before = project_prints(tmp_path / "start", PROJECT)
    assert project_prints(tmp_path / "elsewhere" / "checkout", PROJECT) == before
    for number, (file, old, new, expected) in enumerate(EDITS):
        assert old in PROJECT[file]
        after = project_prints(tmp_path / str(number), {**PROJECT, file: PROJECT[file].replace(old, new)})
        assert {name for name in before if before[name] != after[name]} == expected, (file, new)


def test_optimised_runs_differ_only_where_the_code_does() -> None:
    code = (
        "from tests.fingerprint.harness import of_source\n"
        "print(of_source('def f(x): return x + 1'), of_source('def f(x):\\n    assert x\\n    return x'))"
    )
    plain, optimised = run(code).split(), run(code, "-O").split()
    assert plain[0] == optimised[0]
    assert plain[1] != optimised[1]

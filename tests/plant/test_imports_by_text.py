"""Modules that reactors choose by a computed text: which edits of them run who has imported them."""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import ReactorFunc
from pyplantx.core.trace import observations_of
from pyplantx.session.trees import Trees

APP = """
import importlib, os, pkgutil, sys
from pyplantx import ReactorFunc, SubreactorFunc
{before}
class Config:
    kind = os.environ.get("KIND", "small")

@ReactorFunc
def model(pipe, config):
    {body}
    pipe.send("model", value)

@ReactorFunc
def out(pipe):
    pipe.send("out", (yield pipe.receive("model")) + 1)
"""
ZOO = {
    "zoo/__init__.py": "",
    "zoo/small.py": "from zoo.layers import width\nK = 1\ndef build(): return width() + K\n",
    "zoo/big.py": "def build(): return 1000\n",
    "zoo/layers.py": "def width(): return 10\ndef unused(): return 5\n",
    "zoo/own.py": "import importlib\npart = importlib.import_module(f'{__package__}.layers')\n"
    "def build(): return part.width()\n",
}
PLAIN = "value = importlib.import_module('zoo.' + config.kind).build()"
RUN = """
import json, os, sys
exec(os.environ.get("FIRST", ""))
import app, pyplantx
with pyplantx.Plant("store", **json.loads(os.environ.get("OPTIONS", "{}"))) as plant:
    ran = []
    plant.add_event_listener(plant.EventType.reactor_started, lambda event, name, function: ran.append(name))
    plant.set_config(app.Config())
    exec(os.environ.get("THEN", ""))
    try:
        value = plant.produce("out")
    except Exception as error:
        value = type(error).__name__
    print(json.dumps([value, sorted(ran), str(plant.why("model"))]))
"""


class Project:
    """A folder with a program and its store; each session is a process of its own."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder, self.seed = folder, 0
        for name, source in files.items():
            self.write(name, source)

    def write(self, name: str, source: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    def edit(self, name: str, old: str, new: str) -> None:
        source = (self.folder / name).read_text()
        assert old in source
        self.write(name, source.replace(old, new))

    def run(self, **environment: str) -> tuple[Any, list[str], str]:
        """What is made, who ran, and why the model was made."""
        self.seed += 1  # no session sees the hash seed of another
        own = {"PYTHONHASHSEED": str(self.seed), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.getcwd()}
        environment = {**os.environ, **own, **environment}
        command = [sys.executable, "-c", RUN]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        value, ran, why = json.loads(done.stdout)
        return value, ran, why

    def ran(self, **environment: str) -> list[str]:
        return self.run(**environment)[1]


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    def make(body: str = PLAIN, before: str = "", **files: str) -> Project:
        return Project(tmp_path, {**ZOO, "app.py": APP.format(body=body, before=before), **files})

    return make


Make = Callable[..., Project]
BOTH = ["model", "out"]


def test_edits_of_the_chosen_module_and_of_what_it_reaches(project: Make) -> None:
    made = project()
    assert made.run()[:2] == (12, BOTH)
    assert made.run()[:2] == (12, [])
    assert made.ran(FIRST="import zoo.small") == []  # loaded before
    assert made.ran(FIRST="import zoo.big, zoo.own") == []

    made.edit("zoo/small.py", "K = 1", "K = 2")
    assert made.run()[:2] == (13, BOTH)
    made.edit("zoo/layers.py", "return 10", "return 20")
    value, ran, why = made.run()
    assert (value, ran) == (23, BOTH)
    assert why.startswith("model: ran (module zoo.small changed (")
    assert why.endswith("function zoo.layers.width changed))")

    made.edit("zoo/big.py", "1000", "2000")
    made.edit("zoo/layers.py", "return 5", "return 6")
    made.edit("zoo/small.py", "def build", "# a comment\n\ndef build")
    assert made.ran() == []
    assert made.run(KIND="big")[:2] == (2001, BOTH)
    made.edit("zoo/small.py", "K = 2", "K = 3")
    assert made.ran(KIND="big") == []
    assert made.run()[:2] == (24, BOTH)
    made.edit("zoo/small.py", "K = 3", "K = 2")
    assert made.run()[:2] == (23, [])  # that one is known


def test_a_module_that_is_gone_and_comes_back(project: Make) -> None:
    made = project()
    assert made.ran() == BOTH
    source = (made.folder / "zoo/small.py").read_text()
    (made.folder / "zoo/small.py").unlink()
    value, ran, why = made.run()
    assert (value, ran) == ("ModuleNotFoundError", BOTH)
    made.write("zoo/small.py", "raise SystemExit(3)")
    assert made.run(THEN="print(plant.status(), file=sys.stderr); plant.produce = len")[:2] == (3, [])
    made.write("zoo/small.py", source)
    assert made.run()[:2] == (12, [])
    (made.folder / "zoo/small.py").rename(made.folder / "zoo/tiny.py")
    assert made.run(KIND="tiny")[:2] == (12, BOTH[:1])  # early cutoff


def test_a_module_that_was_not_found_counts_once_it_is_there(project: Make) -> None:
    body = "try: value = importlib.import_module('extra_' + config.kind).VALUE\n    except ImportError: value = 0"
    made = project(body)
    assert made.run()[:2] == (1, BOTH)
    assert made.run()[:2] == (1, [])
    made.write("extra_small.py", "VALUE = 5")
    value, ran, why = made.run()
    assert (value, ran) == (6, BOTH) and "module extra_small is new" in why
    assert made.ran() == []


WAYS = {
    "function held before": (
        "value = load(f'zoo.{config.kind}').build()",
        "from importlib import import_module as load",
    ),
    "relative": ("value = importlib.import_module('.' + config.kind, 'zoo').build()", ""),
    "helper": ("value = build(config.kind)", "def build(kind): return importlib.import_module('zoo.' + kind).build()"),
    "resolve_name": ("value = pkgutil.resolve_name(f'zoo.{config.kind}:build')()", ""),
    "subreactor": (
        "value = yield from build(pipe, config.kind)",
        "@SubreactorFunc\ndef build(pipe, kind):\n    if False: yield\n"
        "    return importlib.import_module('zoo.' + kind).build()",
    ),
    "lazy package": ("value = getattr(lazy, config.kind).build()", "import lazy"),
    "library": ("value = somelib.make('zoo.' + config.kind)", "import somelib"),
    "__import__": ("value = getattr(__import__('zoo.' + config.kind), config.kind).build()", ""),
    "__import__ and sys.modules": (
        "__import__('zoo.' + config.kind); value = sys.modules['zoo.' + config.kind].build()",
        "",
    ),
    "find_spec": (
        "spec = find_spec('zoo.' + config.kind); made = module_from_spec(spec); spec.loader.exec_module(made); "
        "value = made.build()",
        "from importlib.util import find_spec, module_from_spec",
    ),
    "find_spec imported inside": (
        "from importlib import util; spec = util.find_spec('.' + config.kind, 'zoo'); "
        "made = util.module_from_spec(spec); spec.loader.exec_module(made); value = made.build()",
        "",
    ),
    "sys.modules": ("value = sys.modules[f'zoo.{config.kind}'].build()", "import zoo.small"),
    "sys.modules in a helper": (
        "value = take('zoo.' + config.kind).build()",
        "import zoo.small\ndef take(name): return sys.modules.get(name)",
    ),
    "sys.modules with a text": ("value = sys.modules['zoo.small'].build()", "import zoo.small"),
    "__import__ from a package": (
        "value = getattr(__import__('zoo', fromlist=[config.kind]), config.kind).build()",
        "",
    ),
    "__import__ in a subreactor": (
        "value = yield from build(pipe, config.kind)",
        "@SubreactorFunc\ndef build(pipe, kind):\n    if False: yield\n"
        "    return getattr(__import__('zoo.' + kind), kind).build()",
    ),
    "__import__ relative": ("value = zoo.rel.make(config.kind)", "import zoo.rel"),
    "registry": ("value = zoo.reg.make(config.kind)", "import zoo.reg"),
}
MORE = {
    "lazy.py": "import importlib\ndef __getattr__(name): return importlib.import_module('zoo.' + name)\n",
    "site-packages/somelib.py": "import importlib\ndef make(name): return importlib.import_module(name).build()\n",
    "zoo/rel.py": "def make(kind): return getattr(__import__('', globals(), fromlist=[kind], level=1), kind).build()\n",
    "zoo/reg.py": "import importlib\nMADE = {}\n"
    "def make(kind):\n    importlib.import_module('zoo.' + kind)\n    return MADE.get(kind, lambda: 11)()\n",
}
ON_PATH = "sys.path.append('site-packages')"


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_import_by_text(way: str, project: Make) -> None:
    body, before = WAYS[way]
    made = project(body, before, **MORE)
    if way == "registry":
        made.edit(
            "zoo/small.py", "def build", "import zoo.reg\n@lambda f: zoo.reg.MADE.setdefault('small', f)\ndef build"
        )
    assert made.run(FIRST=ON_PATH)[:2] == (12, BOTH)
    assert made.ran(FIRST=ON_PATH, THEN="plant.status(); plant.why('model'); plant.produce('model')") == []
    assert made.ran(FIRST=f"{ON_PATH}; import zoo.layers", THEN="plant.produce('model'); plant.status()") == []
    made.edit("zoo/layers.py", "return 10", "return 20")
    assert made.run(FIRST=ON_PATH)[:2] == (22, BOTH)
    made.edit("zoo/big.py", "1000", "2000")
    assert made.ran(FIRST=ON_PATH) == []


def test_state_of_a_chosen_module_is_no_reason(project: Make) -> None:
    made = project()
    made.write("zoo/small.py", "CALLS = []\nMEMO = {}\ndef build():\n    CALLS.append(1); MEMO[2] = 3\n    return 11\n")
    assert made.run(THEN="plant.run_reactor('model'); plant.run_reactor('model')")[0] == 12
    assert made.ran() == []
    assert made.ran(THEN="plant.produce('out'); plant.run_reactor('model'); ran.clear()") == []
    assert made.ran(FIRST="import zoo.small") == []
    made.edit("zoo/small.py", "CALLS = []", "CALLS = [0]")
    assert made.ran() == ["model"]


def test_an_import_inside_the_chosen_module_is_carried_out_before_it_is_looked_at(project: Make) -> None:
    made = project()
    made.write("zoo/small.py", "TABLE = {}\ndef build():\n    import zoo.entries\n    return TABLE['x']\n")
    made.write("zoo/entries.py", "import zoo.small as small\nsmall.TABLE['x'] = 11\n")
    assert made.run()[:2] == (12, BOTH)
    assert made.ran() == []
    assert made.ran(FIRST="import zoo.entries") == []
    made.edit("zoo/entries.py", "11", "12")
    assert made.run()[:2] == (13, BOTH)


def test_a_folder_that_the_reactor_adds_to_the_path(project: Make) -> None:
    body = "sys.path.insert(0, 'plugins')\n    value = importlib.import_module('plug_' + config.kind).build()"
    made = project(body, **{"plugins/plug_small.py": "def build(): return 1\n"})
    assert made.run()[:2] == (2, BOTH)
    assert made.run()[:2] == (2, [])
    made.edit("plugins/plug_small.py", "return 1", "return 2")
    assert made.run()[:2] == (3, BOTH)


def test_accept(project: Make) -> None:
    made = project()
    assert made.ran() == BOTH
    made.edit("zoo/small.py", "width() + K", "K + width()")
    assert made.run(THEN="assert plant.accept('model', 'out') == ['model']")[:2] == (12, [])
    assert made.ran() == []


def test_the_script_itself_is_not_imported_again(project: Make) -> None:
    made = project()
    script = "import importlib, os\nfrom pyplantx import Plant, ReactorFunc\nprint('loaded', __name__)\n"
    script += (
        "NAME = 'scri' + 'pt'\n@ReactorFunc\ndef a(pipe):\n    pipe.send('a', importlib.import_module(NAME).NAME)\n"
    )
    script += "if __name__ == '__main__':\n    with Plant('other') as plant: print(plant.produce('a'))\n"
    made.write("script.py", script)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    for expected in (["loaded __main__", "loaded script", "script"], ["loaded __main__", "script"]):
        command = [sys.executable, "script.py"]
        done = subprocess.run(command, cwd=made.folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.parametrize("executor", [None, "threads"])
def test_functions_of_blocks(executor: str | None, project: Make) -> None:
    before = "import numpy as np\nKIND = 'small'\n"
    before += "def scaled(block): return block * importlib.import_module(f'zoo.{KIND}').build()"
    body = "y = np.zeros(64)\n    pipe.map_blocks(scaled, np.ones(64), out=y)\n    value = float(y[0])"
    made = project(body, before)
    options = {"OPTIONS": json.dumps({"executor": executor})}
    assert made.run(**options)[:2] == (12.0, BOTH)
    assert made.ran(**options) == []
    made.edit("zoo/layers.py", "return 10", "return 20")
    assert made.run(**options)[:2] == (22.0, BOTH)


# --- what is noted, in one process --------------------------------------------------------------------------


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """The modules that the reactors which have run since observed, and then no zoo is loaded; it can be imported."""
    found: list[str] = []
    grow = Trees.grow

    def growing(trees: Trees, record: Any) -> Any:
        found.extend([key for kind, key, _ in observations_of(record.steps) if kind == "module"])
        return grow(trees, record)

    def take() -> list[str]:
        taken = found.copy()
        found.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "zoo_of_text"]:
            del sys.modules[name]
        return taken

    monkeypatch.setattr(Trees, "grow", growing)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, source in ZOO.items():
        path = tmp_path / name.replace("zoo/", "zoo_of_text/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source.replace("from zoo", "from zoo_of_text"))
    importlib.invalidate_caches()
    yield take
    take()


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("statement", ["pass", "import zoo_of_text.own"])
def test_what_a_module_imports_while_it_is_loaded_is_not_noted(
    loaded: bool, statement: str, open_plant: Any, noted: Callable[[], list[str]]
) -> None:
    @ReactorFunc
    def choose(pipe: Any, config: Any) -> None:
        exec(statement)
        pipe.send("x", importlib.import_module(f"zoo_of_text.{config.kind}").build())

    if loaded:
        importlib.import_module("zoo_of_text.own")
    with open_plant(choose, config=SimpleNamespace(kind="own")) as plant:
        assert plant.produce("x") == 10
        assert noted() == ["zoo_of_text.own"]
        plant.run_reactor("choose")
        assert noted() == ["zoo_of_text.own"]


def test_libraries(open_plant: Any, noted: Callable[[], list[str]]) -> None:
    @ReactorFunc
    def choose(pipe: Any, config: Any) -> None:
        found = [importlib.import_module(name) for name in config.names]
        pkgutil.resolve_name(config.names[0])
        pipe.send("x", len(found))

    with open_plant(choose, config=SimpleNamespace(names=["wave", "numpy.linalg", "pyplantx.specs"])) as plant:
        sys.modules.pop("wave", None)
        plant.produce("x")
        assert noted() == ["wave", "numpy.linalg"]
        sys.modules.pop("wave", None)
        assert plant.status().decisions[0].action == "up to date"
        assert "wave" not in sys.modules  # to ask for its version


def test_coroutines(open_plant: Any, noted: Callable[[], list[str]]) -> None:
    @ReactorFunc
    def first(pipe: Any) -> None:
        pipe.send("x", 1)

    @ReactorFunc
    async def later(pipe: Any, config: Any) -> None:
        x = await pipe.receive("x")
        pipe.send("y", importlib.import_module("zoo_of_text." + config.kind).build() + x)

    with open_plant(first, later, config=SimpleNamespace(kind="big")) as plant:
        assert plant.produce("y") == 1001
        assert noted() == ["zoo_of_text.big"]


def test_imports_outside_of_reactors_are_nobodys(open_plant: Any, noted: Callable[[], list[str]]) -> None:
    @ReactorFunc
    def first(pipe: Any) -> None:
        pipe.send("x", 1)

    with open_plant(first) as plant:
        listen = functools.partial(importlib.import_module, "zoo_of_text.big")
        plant.add_event_listener(plant.EventType.reactor_started, lambda *told: listen())
        plant.produce("x")
        assert noted() == []


def test_errors_of_an_import_are_those_of_python(open_plant: Any) -> None:
    @ReactorFunc
    def wrong(pipe: Any, config: Any) -> None:
        for name, package, error in config.calls:
            with pytest.raises(error):
                importlib.import_module(name, package)
        pipe.send("x", 1)

    calls = [("." * 9, "a.b", ImportError), (".x", None, TypeError), (5, None, AttributeError), ("", None, ValueError)]
    with open_plant(wrong, config=SimpleNamespace(calls=[(*call[:2], Exception) for call in calls])) as plant:
        assert plant.produce("x") == 1


@pytest.mark.parametrize("again", ["reload", "forget"])
def test_an_edit_that_is_loaded_between_two_demands(
    again: str, open_plant: Any, noted: Callable[[], list[str]], tmp_path: Path
) -> None:
    @ReactorFunc
    def choose(pipe: Any, config: Any) -> None:
        pipe.send("x", importlib.import_module(f"zoo_of_text.{config.kind}").build())

    with open_plant(choose, config=SimpleNamespace(kind="big")) as plant:
        assert plant.produce("x") == 1000
        assert plant.status().decisions[0].action == "up to date"
        (tmp_path / "zoo_of_text" / "big.py").write_text("def build(): return 20_000\n")
        if again == "forget":
            del sys.modules["zoo_of_text.big"]
            importlib.invalidate_caches()
        else:
            importlib.reload(dict(sys.modules)["zoo_of_text.big"])
        assert plant.produce("x") == 20_000
        assert plant.produce("x") == 20_000
        assert plant.log.take() == ["choose", "choose"]


def test_what_a_library_does_not_find_is_its_own_business(open_plant: Any, noted: Callable[[], list[str]]) -> None:
    library: dict[str, Any] = {"__name__": "somelib", "__file__": "/usr/lib/site-packages/somelib.py"}
    code = "import importlib\ndef attempt(name):\n    try: importlib.import_module(name)\n    except ImportError: pass"
    exec(code, library)

    @ReactorFunc
    def choose(pipe: Any, config: Any) -> None:
        for name in config.names:
            library["attempt"](name)
        pipe.send("x", 1)

    names = ["zoo_of_text.nowhere", "numpy.linalg", "zoo_of_text.small"]
    with open_plant(choose, config=SimpleNamespace(names=names)) as plant:
        plant.produce("x")
        assert noted() == ["zoo_of_text.small"]

"""What a program registers with a library counts for who uses that library, and for nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fingerprint.harness import fingerprints, program
from tests.fingerprint.test_stability import ROOT, run

LIBRARY = """
TABLE = {}
def register(name, thing=None, **more): TABLE[name] = thing
def make(name): return TABLE[name]()
class Registry:
    def __init__(self): self.table = {}
    def register_module(self, name=None): return lambda thing: self.table.setdefault(name or thing.__name__, thing)
    def add_constructor(self, **rules): self.table.update(rules)
MODELS = Registry()
async def register_later(name, thing): TABLE[name] = thing
class Shy:
    def register(self, *things): pass
    @property
    def __class__(self): raise RuntimeError("nobody is here")
SHY = Shy()
"""

MAZE = "import games\nclass Maze:\n    def size(self): return 7\n"
USES = "def f(): return games.make('Maze-v0').size()\n"
#: Programs in which 7 counts, and 8 does not.
REGISTERED = {
    "a class": MAZE + "games.register('Maze-v0', Maze)\ndef other(): return 8\n" + USES,
    "by keyword": MAZE + "games.register(name='Maze-v0', thing=Maze)\n" + USES,
    "under a name of its own": MAZE + "from games import register as register_game\nregister_game('a', Maze)\n" + USES,
    "what makes one": MAZE + "games.register('Maze-v0', lambda: Maze())\n" + USES,
    "by a function": MAZE + "def set_up():\n    x = 8\n    games.register('Maze-v0', Maze)\nset_up()\n" + USES,
    "by a function, with its own": MAZE + "def set_up():\n    x = Maze\n    games.register('a', x)\nset_up()\n" + USES,
    "imported inside": (
        MAZE + "def set_up():\n    from games import register\n    register('Maze-v0', Maze)\nset_up()\n" + USES
    ),
    "where it is possible": MAZE + "try:\n    games.register('a', Maze)\nexcept OSError:\n    x = 8\n" + USES,
    "in a loop": MAZE + "for k, v in {'Maze-v0': Maze}.items(): games.register(k, v)\n" + USES,
    "by a decorator": (
        "import games\n@games.MODELS.register_module()\ndef maze(): return 7\ndef f(): return games.make\n"
    ),
    "another word": "import games\ngames.MODELS.add_constructor(maze=lambda: 7)\ndef f(): return games.make\n",
    "for a helper": MAZE + "games.register('Maze-v0', Maze)\ndef g(): return games.make('a')\ndef f(): return g()\n",
    "its user imports inside": MAZE
    + "games.register('a', Maze)\ndef f():\n    import games as g\n    return g.make('a')\n",
    "an object of its": MAZE + "games.register('a', Maze)\nmodels = games.MODELS\ndef f(): return models.table\n",
    "through another library": MAZE
    + "import math\ngames.register('Maze-v0', Maze)\ndef f(): return math.make('Maze-v0')\n",
    "with Python itself": (
        "import codecs\ndef replaced(e): return ('7', e.end)\ncodecs.register_error('mine', replaced)\n"
        "def f(x): return x.encode('ascii', 'mine')\n"
    ),
    "under a text that is no place": MAZE + "games.register('in:out', Maze)\ngames.register('a..b:c.', 1)\n" + USES,
    "by who waits": MAZE + "async def set_up():\n    await games.register_later('a', Maze)\n" + USES,
    "by who waits, with its own": (
        MAZE + "async def set_up(x):\n    async with x as y:\n        games.register(y, Maze)\n" + USES
    ),
    "with what does not say its class": MAZE + "def set_up(): games.SHY.register('a', Maze)\n" + USES,
    "under a name that is not ASCII": MAZE + "import games as größe\ngröße.register('a', Maze)\n" + USES,
    "with a long sum": "import games\ngames.register('a', lambda: 7" + " + x" * 900 + ")\n" + USES,
    "in a function that sends": (
        MAZE + "def set_up(x):\n    for k in x:\n        games.register(k, Maze)\n        yield from k\n" + USES
    ),
    "beside one that is another's": (
        MAZE + "import atexit\natexit.register(lambda: 8)\ngames.register('Maze-v0', Maze)\n" + USES
    ),
}


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "games.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "games", raising=False)


def of(folder: Path, source: str, **more: str) -> str:
    return fingerprints(folder, {"app.py": source, **{f"{name}.py": text for name, text in more.items()}}, "f")["f"]


@pytest.mark.parametrize("name", REGISTERED)
def test_what_is_registered_counts(name: str, tmp_path: Path) -> None:
    source = REGISTERED[name]
    before = of(tmp_path / "a", source)
    assert of(tmp_path / "b", source.replace("7", "9")) != before
    assert of(tmp_path / "c", "import sys\n# a comment\n" + source.replace("8", "9")) == before


def test_what_is_registered_by_its_place_counts(tmp_path: Path) -> None:
    source = "import games\ngames.register('Maze-v0', 'mazes:Maze')\n" + USES
    mazes = "class Maze:\n    def size(self): return 7\ndef other(): return 8\n"
    before = of(tmp_path / "a", source, mazes=mazes)
    assert of(tmp_path / "b", source, mazes=mazes.replace("7", "9")) != before
    assert of(tmp_path / "c", source, mazes=mazes.replace("8", "9")) == before


@pytest.mark.parametrize("place", ["mazes:Maze", "mazes:", ":Maze", "math:pi", "class:def"])
def test_a_place_where_nothing_is_found_stops_nobody(place: str, tmp_path: Path) -> None:
    of(tmp_path / "a", f"import games\ngames.register('Maze-v0', {place!r})\n" + USES)


OF_NO_CONCERN = {
    "who uses something else": MAZE + "import math\ngames.register('Maze-v0', Maze)\ndef f(): return math.pi\n",
    "a table of the project's": (
        "import games\nOWN = games.Registry()\n@OWN.register_module()\ndef maze(): return 7\n"
        "def f(): return games.make\n"
    ),
    "a function of the project's": (
        "import games\ndef register(thing): return thing\n@register\ndef maze(): return 7\ndef f(): return games.make\n"
    ),
    "a method": (
        "import games\nclass C:\n    def one(self): self.register(games, 7)\n    def register(self, *x): pass\n"
        "def f(): return games.make\n"
    ),
    "what is taken away": "import games\ndef f(): return games.make\ndef g(): games.unregister('a', 7)\n",
    "what happens at the end": "import atexit\natexit.register(lambda: 7)\ndef f(): return atexit\n",
    "an object of a library that the project has made": (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.register('type', 'a', lambda: 7)\n"
        "def f(): return argparse.Namespace()\n"
    ),
    "whose result is wanted": (
        "import games\ndef align(x):\n    moved = games.register('a', x)\n    return moved + 7\n"
        "def f(): return games.make\n"
    ),
    "in a comment": "import games\n# games.register('a', 7)\ndef f(): return games.make\n",
}


@pytest.mark.parametrize("name", OF_NO_CONCERN)
def test_what_no_library_was_given_does_not_count(name: str, tmp_path: Path) -> None:
    source = OF_NO_CONCERN[name]
    assert of(tmp_path / "a", source) == of(tmp_path / "b", source.replace("7", "9"))


def test_where_it_is_said_does_not_count(tmp_path: Path) -> None:
    said = "games.register('a', lambda: 7)\ngames.register('b', lambda: 8)\n"
    before = of(tmp_path / "a", "import games\n" + said + USES)
    assert of(tmp_path / "b", "import games\n" + USES + "\n\n" + said) == before
    elsewhere = of(tmp_path / "c", "import games, others\n" + USES, others="import games\n" + said)
    assert elsewhere == before


def test_what_is_registered_later_in_a_session_counts(tmp_path: Path) -> None:
    from pyplantx.fingerprint.code import Fingerprinter

    printer, found = Fingerprinter(), []
    with program(
        tmp_path / "a", {"app.py": MAZE + USES, "late.py": "import app, games\ngames.register('a', app.Maze)\n"}
    ) as app:
        for _ in range(2):
            printer.begin_activity()
            found.append(printer.fingerprint(app.f))
            printer.end_activity()
            __import__("late")
    assert found[0] != found[1]


CELLS = """
import linecache, sys
def run(number, text):
    name = f"<ipython-input-{number}>"
    linecache.cache[name] = len(text), None, text.splitlines(True), name
    exec(compile(text, name, "exec"), vars(sys.modules["__main__"]))
try:
    run(1, "def (:\\n")
except SyntaxError:
    pass
run(2, "import games\\ngames.register('a', lambda: VALUE)\\n")
run(3, "def f(): return games.make('a')\\n")
from pyplantx.fingerprint.code import Fingerprinter
print(Fingerprinter().fingerprint(f))
"""


def test_what_cells_register_counts(tmp_path: Path) -> None:
    """One that is no Python, as those are that somebody has just mistyped, hides none of the others."""
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path / 'site-packages'}"}
    assert run(CELLS.replace("VALUE", "7"), **path) != run(CELLS.replace("VALUE", "8"), **path)

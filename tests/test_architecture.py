"""The walls of the house: who may import whom, held as data and compared with the parsed imports.

Lazy imports, imports for annotations only and imports by constant name count as well: a lower floor
knows nothing of a higher one, at no time of day. docs/design/ tells why the walls stand where they do.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pyplantx"

#: Room (module without the leading "pyplantx.", or a whole folder ending in ".*") -> floor.
#: A room sees its own floor and the floors below.
FLOORS = {
    "errors": 0,
    "events": 0,
    "basics.*": 0,
    "core.messages": 0,
    "core.trace": 0,
    "core.*": 1,
    "fingerprint.*": 1,
    "specs.*": 2,
    "ingredient": 2,
    "config.*": 2,
    "subreactor": 2,
    "reactor": 2,
    "warehouse.*": 3,
    "blocks.*": 4,
    "pipework": 4,
    "runs.*": 4,
    "session.*": 4,
    "executors.*": 5,
    "session.activity": 6,
    "explain": 6,
    "session.gate": 6,
    "plant": 6,
    "utils": 7,
    "testing": 7,
    "spec_tests": 7,
    "tracking": 7,
    "report": 7,
    "cli": 7,
    "": 8,  # the front door: pyplantx/__init__.py
}

#: Rooms with a shorter list than their floor gives them: room -> rooms that it may see.
NARROWER = {
    "errors": [],
    "basics.*": ["basics.*", "errors"],
    "events": ["errors", "basics.given"],
    "warehouse.retention": ["core.trace", "basics.units", "errors", "basics.tuples", "basics.disk"],
    "core.*": ["core.*", "errors", "basics.tuples"],
    "pipework": ["blocks.*", "core.trace", "reactor", "specs.views", "basics.units", "errors", "basics.given"],
    "fingerprint.*": ["fingerprint.*", "core.trace", "errors", "basics.tuples"],
    "specs.base": ["core.trace", "errors", "basics.tuples"],
    "config.*": ["config.*", "fingerprint.boundary", "core.trace", "errors"],
    "subreactor": ["errors"],
    "reactor": ["subreactor", "core.*", "errors", "basics.given"],
    "runs.scratch": [],
    "runs.deadlines": ["basics.interrupts", "basics.kerneltimers", "basics.logs", "specs.threads"],
    "warehouse.environments": ["warehouse.files", "warehouse.locks", "errors", "basics.disk"],
    "warehouse.index": ["warehouse.*", "errors"],
    "executors.*": [
        "executors.*",
        "runs.run",
        "runs.deadlines",
        "subreactor",
        "core.*",
        "errors",
        "basics.helping",
        "basics.interrupts",
        "basics.tuples",
    ],
}

#: Library -> the one room whose door leads to it.
ONE_DOOR = {
    "lmdb": {"warehouse.environments", "warehouse.inspection"},
    "h5py": {"specs.hdf"},
    "dill": {"specs.builtin"},
    "xxhash": {"fingerprint.value"},
}

#: What core/ may not know of: the disk, the clock, other threads, chance, voices.
NOT_IN_CORE = {
    "asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil",
    "socket", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip

#: Rooms below the warehouse that never touch the disk.
NO_DISK = ["errors", "events", "config", "reactor", "subreactor", "fingerprint.value"]
DISK = {"io", "os", "pathlib", "shutil", "tempfile", "mmap", "fcntl"}

#: What `import pyplantx` must not pull in: these alone would cost more than its whole budget.
NOT_AT_IMPORT = ["numpy", "scipy", "h5py", "dill", "asyncio", "dataclasses", "inspect"]


def module_name(path: Path) -> str:
    """Name of a module file inside the package: "core.trace", "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), str(MODULES[name]))


def imported_names(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Full dotted names that a module imports, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The absolute name of the module in ``from <module> import ...``."""
    if not node.level:
        return node.module or ""
    here = ["pyplantx", *filter(None, module.split("."))]
    here = here[: len(here) - node.level + is_package]
    return ".".join([*here, *filter(None, [node.module])])


def called_name(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def own_room(dotted: str) -> str | None:
    """The module of ours that an imported name lies in, or None if it is not ours."""
    head, *rest = dotted.split(".")
    if head != "pyplantx":
        return None
    while rest and ".".join(rest) not in MODULES:
        rest.pop()
    return ".".join(rest)


def edges() -> dict[str, set[str]]:
    """Which of our modules imports which of our modules."""
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        seen = {own_room(dotted) for dotted in imported_names(parsed(name), name, name in PACKAGES)}
        graph[name] = {room for room in seen if room is not None and room != name}
    return graph


def foreign(name: str) -> set[str]:
    """Top-level names of the other libraries that a module imports."""
    names = imported_names(parsed(name), name, name in PACKAGES)
    return {dotted.split(".")[0] for dotted in names} - {"pyplantx", ""}


def matches(room: str, pattern: str) -> bool:
    folder = pattern.removesuffix(".*")
    return room == pattern or (folder != pattern and (room == folder or room.startswith(folder + ".")))


def closest(room: str, table: dict[str, object]) -> str | None:
    """The most exact entry of a table of rooms and folders."""
    fitting = [pattern for pattern in table if matches(room, pattern)]
    return max(fitting, key=lambda pattern: (not pattern.endswith(".*"), len(pattern)), default=None)


def floor(room: str) -> int:
    pattern = closest(room, dict(FLOORS))
    assert pattern is not None, f"pyplantx.{room} has no floor yet: give it one in FLOORS, and say why in docs/design/"
    return FLOORS[pattern]


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports that look upwards, or out of a narrower list."""
    wrong = []
    for room, seen in graph.items():
        narrow = closest(room, dict(NARROWER))
        for other in sorted(seen):
            if floor(other) > floor(room):
                wrong.append(f"{room} (floor {floor(room)}) imports {other or 'pyplantx'} ({floor(other)})")
            elif narrow is not None and not any(matches(other, pattern) for pattern in NARROWER[narrow]):
                wrong.append(f"{room} imports {other}; it may only see {NARROWER[narrow]}")
    return wrong


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of imports, as a path that ends where it begins; empty if there is none."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        found = walk_down(start, graph, path, done)
        if found:
            return found
    return []


def walk_down(room: str, graph: dict[str, set[str]], path: list[str], done: set[str]) -> list[str]:
    if room in path:
        return [*path[path.index(room) :], room]
    if room in done:
        return []
    path.append(room)
    for other in sorted(graph.get(room, ())):
        found = walk_down(other, graph, path, done)
        if found:
            return found
    path.pop()
    done.add(room)
    return []


def test_every_room_has_a_floor():
    assert len(MODULES) > 20
    for room in MODULES:
        floor(room)


def test_no_room_sees_a_higher_floor():
    assert upward(edges()) == []


def test_no_cycles():
    assert cycle(edges()) == []


@pytest.mark.parametrize(("library", "door"), sorted(ONE_DOOR.items()))
def test_one_door_per_library(library: str, door: set[str]):
    assert {name for name in MODULES if library in foreign(name)} == door


def test_core_is_pure():
    for name in MODULES:
        if matches(name, "core.*"):
            assert foreign(name) - sys.stdlib_module_names == set(), name
            assert foreign(name) & NOT_IN_CORE == set(), name


@pytest.mark.parametrize("room", NO_DISK)
def test_no_disk_below_the_warehouse(room: str):
    assert foreign(room) & DISK == set()


@pytest.mark.parametrize(
    ("line", "spared"),
    [
        ("from pyplantx import *", NOT_AT_IMPORT),
        ("from pyplantx import ReactorFunc", [*NOT_AT_IMPORT, "lmdb", "xxhash", "json"]),
        ("import pyplantx", [*NOT_AT_IMPORT, "lmdb", "xxhash", "json", "pyplantx.reactor"]),
    ],
)
def test_the_front_door_is_cheap(line: str, spared: list[str]):
    code = f"import sys\n{line}\nprint([name for name in {spared!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_door_names_what_is_behind_it():
    names = "{*pyplantx.__all__} <= {*dir(pyplantx)}, hasattr(pyplantx, 'plants'), pyplantx.testing.__name__"
    code = f"import pyplantx; print({names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "True False pyplantx.testing"


def test_star_import_gives_what_the_readme_uses():
    code = "from pyplantx import *; print(sorted(set(dir()) & {*'''%s'''.split()}))"
    names = "Plant ReactorFunc SubreactorFunc Pipework Ingredient ConfigBase ConfigValue specs utils"
    done = subprocess.run([sys.executable, "-c", code % names], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ast.literal_eval(done.stdout) == sorted(names.split())


class TestTheChecker:
    """A wall that can't be seen to fall guards nothing."""

    def test_finds_lazy_relative_and_named_imports(self):
        source = """
            def late():
                from pyplantx.plant import Plant
                from ..warehouse import index
                importlib.import_module("lmdb")
        """
        tree = ast.parse("if True:" + source)
        found = set(imported_names(tree, "core.replay", False))
        assert found == {"pyplantx.plant.Plant", "pyplantx.warehouse.index", "lmdb"}

    def test_finds_imports_that_look_upwards(self):
        assert upward({"core.replay": {"plant"}, "plant": {"core.replay"}}) == [
            "core.replay (floor 1) imports plant (6)"
        ]

    def test_finds_imports_outside_of_a_narrow_list(self):
        assert len(upward({"core.replay": {"fingerprint.value"}})) == 1

    def test_finds_cycles(self):
        assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
        assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []

"""What is never stored inside a value, and where in a value something is.

Pickle refuses most of these itself; dill would store a lock or an open file and give back one that
means something else. Types are recognised by name along the MRO, so nothing is imported.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator

from pyplantx.errors import shown

#: "module.qualname" of a class -> what a person calls it.
_NEVER = {
    "_thread.lock": "a lock",
    "_thread.RLock": "a lock",
    "_thread._local": "thread-local data",
    "_thread._localdummy": "thread-local data",
    "threading.Thread": "a thread",
    "multiprocessing.process.BaseProcess": "a process",
    "multiprocessing.synchronize.SemLock": "a lock shared between processes",
    "subprocess.Popen": "a running program",
    "_io.FileIO": "an open file",
    "_io.BufferedReader": "an open file",
    "_io.BufferedWriter": "an open file",
    "_io.BufferedRandom": "an open file",
    "_io.BufferedRWPair": "an open file",
    "_io.TextIOWrapper": "an open file",
    "_socket.socket": "a socket",
    "mmap.mmap": "a memory map",
    "sqlite3.Connection": "an open database",
    "builtins.generator": "a generator",
    "builtins.coroutine": "a coroutine",
    "builtins.async_generator": "an async generator",
    "builtins.frame": "a stack frame",
    "builtins.traceback": "a traceback",
    "builtins.module": "a module",
    "h5py._hl.base.HLObject": "an open HDF5 object",
    "pyplantx.specs.datasets.HdfDataset": "an HDF dataset of the plant",
    "pyplantx.specs.zarrarray.ZarrArray": "a Zarr array of the plant",
    "pyplantx.specs.zarrstore.PartsStore": "the files of a Zarr array",
    "pyplantx.pipework.Pipework": "the pipe of a reactor",
    "pyplantx.pipework.Request": "a request that was never answered",
    "pyplantx.subreactor.SubreactorCall": "the call of a subreactor that has not run",
    "pyplantx.plant.Plant": "a plant",
    "pyplantx.warehouse.warehouse.Warehouse": "the store of a plant",
}

_DATASET = "send it under a name of its own: pipe.send(name, dataset); or what is needed of it: dataset[...]"
_ADVICE = {
    "pyplantx.specs.datasets.HdfDataset": _DATASET,
    "pyplantx.specs.zarrarray.ZarrArray": _DATASET,
    "pyplantx.pipework.Pipework": "the pipe belongs to one run; send what was received or computed with it",
    "pyplantx.pipework.Request": "write `yield`: value = yield pipe.receive(...)",
    "pyplantx.subreactor.SubreactorCall": "write `yield from`: value = yield from subreactor(pipe)",
    "pyplantx.plant.Plant": "send what it has produced",
    "pyplantx.warehouse.warehouse.Warehouse": "send what it holds",
}
_ANY_ADVICE = "leave it out before sending (drop it in __getstate__), and make it again after receiving"

#: Characters of a key in a path.
_LONGEST_KEY = 40

#: Characters of a path in a message: of a longer one its beginning and its end are told.
_LONGEST_PATH = 200

#: A walk that looks for an object gives up after this many; only the path in a message depends on it.
_MOST_VISITED = 1_000_000


def refusal(kind: type) -> str | None:
    """What instances of `kind` are called if they are never stored, else None."""
    return _known(_NEVER, kind)


def advice(kind: type) -> str:
    """What to do about an instance of `kind` that can't be stored."""
    return _known(_ADVICE, kind) or _ANY_ADVICE


def advice_where_pickle_fails(kind: type) -> str:
    """What to do about an instance of a class for which neither pickle nor dill has a way."""
    if "<locals>" in kind.__qualname__:
        return f"move class {kind.__name__} out of its function: a class is found again by its name in a module"
    if not _is_found(kind):
        return (
            f"there is no {kind.__qualname__} in the module {kind.__module__} that is loaded now: a class is found "
            "again by its name in a module (under python -m cProfile or -m trace, and after exec or runpy, those of a "
            "script are not); put it into a module that is imported"
        )
    return "leave it out before sending, or give its class __reduce__ or __getstate__"


def _is_found(kind: type) -> bool:
    held: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        held = getattr(held, part, None)
    return held is not None


def _known(table: dict[str, str], kind: type) -> str | None:
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return next((table[name] for name in names if name in table), None)


def path_to(value: object, target: object) -> str | None:
    """The shortest path from `value` to the very object `target`, such as ``"value['model'].lock"``.

    Returns
    -------
    str or None
        None if it can't be reached through containers and attributes.
    """
    queue: deque[tuple[str, object]] = deque([("value", value)])
    # Holding the objects keeps their ids from being used again by what attributes compute.
    seen: dict[int, object] = {}
    while queue and len(seen) < _MOST_VISITED:
        path, node = queue.popleft()
        if node is target:
            return _clipped(path)
        if id(node) in seen:
            continue
        seen[id(node)] = node
        queue.extend((path + step, child) for step, child in children(node))
    return None


def deepest(value: object, fails: Callable[[object], bool]) -> tuple[str, object]:
    """Follow failing children down from `value`, which fails, to one that has none.

    Returns
    -------
    (str, object)
        Its path and the object itself.
    """
    path, node = "value", value
    seen: dict[int, object] = {}
    while id(node) not in seen:
        seen[id(node)] = node
        found = next(((step, child) for step, child in children(node) if fails(child)), None)
        if found is None:
            break
        path, node = path + found[0], found[1]
    return _clipped(path), node


def _clipped(path: str) -> str:
    half = _LONGEST_PATH // 2
    return path if len(path) <= _LONGEST_PATH else f"{path[:half]} ... {path[-half:]}"


def children(node: object) -> Iterator[tuple[str, object]]:
    """(step, child) for each object directly inside `node`: elements, attributes, what a function closes over."""
    if isinstance(node, (str, bytes, int, float, type)):
        return
    if isinstance(node, dict):
        yield from ((f"[{shown(key, _LONGEST_KEY)}]", item) for key, item in node.items())
        yield from ((f".keys()[{shown(key, _LONGEST_KEY)}]", key) for key in node)
    elif isinstance(node, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(node))
    elif isinstance(node, (set, frozenset, deque)):
        yield from ((f"[element {shown(item, _LONGEST_KEY)}]", item) for item in node)
    yield from _attributes(node)
    yield from _inside_callable(node)


def _attributes(node: object) -> Iterator[tuple[str, object]]:
    held = getattr(node, "__dict__", None)
    if isinstance(held, dict):
        yield from ((f".{name}", item) for name, item in list(held.items()))
    for base in type(node).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = base.__dict__.get(name)
            if member is not None and hasattr(node, name):
                yield f".{name}", getattr(node, name)


def _inside_callable(node: object) -> Iterator[tuple[str, object]]:
    for name in ("__self__", "__func__", "func", "args", "keywords", "__defaults__", "__kwdefaults__"):
        item = getattr(node, name, None) if callable(node) else None
        if item is not None:
            yield f".{name}", item
    cells = getattr(node, "__closure__", None) or ()
    names = getattr(getattr(node, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, cells):
        if cell != type(cell)():  # an empty cell equals a new one
            yield f"'s closure variable {name}", cell.cell_contents

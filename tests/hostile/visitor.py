"""A program that looks at a store in every way, and tells what it ran, and which errors it met.

``python -m tests.hostile.visitor FRIENDLY STRANGE TRUST [MISSING]``: the friendly store is visited first, so that
everything is imported; then the audit hook listens while the strange one is. Prints JSON: ``events`` (what no visit may
do), ``errors`` (one line each), ``bare`` (errors that are not of the hierarchy, with the way they came). MISSING names
a protection that is taken away first (``unprotected.py``), as the positive controls do.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyplantx import Plant
from pyplantx.errors import PyplantxError
from tests.hostile import unprotected

_NEVER = frozenset(
    {
        *("pickle.find_class", "exec", "marshal.loads", "os.system", "subprocess.Popen", "os.exec", "os.fork"),
        *("os.posix_spawn", "os.forkpty", "socket.connect", "socket.bind", "ctypes.dlopen", "cpython.run_command"),
        *("os.putenv", "os.kill", "shutil.unpack_archive"),
    }
)
_PATHS = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown"})


class Watch:
    """The audit hook.

    Parameters
    ----------
    folder : str
        Real path of what may be written to.
    """

    def __init__(self, folder: str) -> None:
        self.armed = False
        self.events: list[str] = []
        self._folder = folder

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "ctypes.dlopen" and args == (None,):  # the process itself
            return
        if self.armed and (event in _NEVER and not _is_import() or self._writes_outside(event, args)):
            self.events.append(f"{event} {args!r}"[:300])

    def _writes_outside(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            writing = isinstance(args[1], str) and set(args[1]) & set("wxa+") or args[2] & os.O_ACCMODE
            return bool(writing) and self._is_outside(args[0])
        return event in _PATHS and any([self._is_outside(path, follow=False) for path in args[:2]])

    def _is_outside(self, path: Any, follow: bool = True) -> bool:
        if not isinstance(path, (str, bytes)) or not os.path.isabs(os.fsdecode(path)):
            return False
        folder, name = os.path.split(os.fsdecode(path))
        real = os.path.realpath(os.fsdecode(path)) if follow else os.path.join(os.path.realpath(folder), name)
        return not real.startswith((self._folder, "/dev/", "/proc/"))


def _is_import() -> bool:
    """Whether the interpreter is importing a module: that runs code of the library's, not the store's."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Visit:
    """One store, looked at."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.bare: list[str] = []

    def attempt(self, what: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except PyplantxError as error:
            self.errors.append(f"{what}: {type(error).__name__}: {error}")
        except Exception as error:
            self.bare.append(f"{what}: {''.join(traceback.format_exception(error)[-3:])}")
        return None

    def all_of(self, folder: str, trust: str) -> None:
        plant = self.attempt("open", lambda: Plant(folder, trust=trust, durability="process", lock_timeout=5))
        if plant is None:
            return
        try:
            self._questions(plant)
        finally:
            self.attempt("close", plant.close)

    def _questions(self, plant: Any) -> None:
        warehouse = plant.warehouse
        names = self.attempt("names", lambda: sorted(warehouse.names())) or []
        for name in [*names, "simple", "object", "absent"]:
            self._ingredient(plant, name)
        for what in ("status", "du", "get_reactors"):
            self.attempt(what, getattr(plant, what))
        self.attempt("history", lambda: plant.get_execution_history(all_sessions=True))
        self.attempt("gc", lambda: plant.gc(dry_run=True))
        self.attempt("check", lambda: [str(problem) for problem in warehouse.check()])

    def _ingredient(self, plant: Any, name: str) -> None:
        warehouse = plant.warehouse
        self.attempt("producers", lambda: warehouse.producers(name))
        self.attempt("explain", lambda: str(plant.explain(name)))
        self.attempt("known", lambda: plant.is_ingredient_known(name))
        ref = self.attempt("last_ref", lambda: warehouse.last_ref(name))
        if ref is None:
            return
        self.attempt(f"has {name}", lambda: warehouse.has(ref))
        self.attempt(f"preview {name}", lambda: warehouse.preview(ref))
        self.attempt(f"fetch {name}", lambda: touch(plant.fetch_ingredient(name)))
        self.attempt(f"pin {name}", lambda: plant.pin(name))
        self.attempt(f"unpin {name}", lambda: plant.unpin(name))


def touch(value: Any) -> None:
    """Use a value as a program would: all of it."""
    if hasattr(value, "tocsr"):
        with contextlib.suppress(ValueError):  # SciPy's own refusal, in its own words
            value.tocsr() @ ([1.0] * value.shape[1])
    elif hasattr(value, "__getitem__") and hasattr(value, "shape"):
        value[()] if value.shape == () else value[:1]
    elif isinstance(value, str) and os.path.isfile(value):
        Path(value).read_bytes()


def main(friendly: str, strange: str, trust: str, missing: str = "") -> None:
    logging.getLogger("pyplantx").setLevel(logging.CRITICAL)
    if missing:
        unprotected.MISSING[missing]()
    watch = Watch(os.path.realpath(strange))
    sys.addaudithook(watch)
    Visit().all_of(friendly, trust)
    visit = Visit()
    watch.armed = True
    visit.all_of(strange, trust)
    watch.armed = False
    print(json.dumps({"events": watch.events, "errors": visit.errors, "bare": visit.bare}))


if __name__ == "__main__":
    main(*sys.argv[1:])

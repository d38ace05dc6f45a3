"""Builds small programs as real modules, so that their functions can be fingerprinted before and after an edit."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pyplantx.fingerprint import untracked
from pyplantx.fingerprint.code import Fingerprinter


class Role:
    """Stands in for reactors and subreactors: only the mark and ``function`` matter to fingerprints."""

    def __init__(self, kind: str, function: Any) -> None:
        self.__pyplantx_kind__ = kind
        self.function = function
        self.__wrapped__ = function
        self.version = ""


class DictMemo(dict[str, str]):
    """A code memo in memory that counts its hits."""

    hits = 0

    def get_code(self, raw: str) -> str | None:
        self.hits += raw in self
        return self.get(raw)

    def put_code(self, raw: str, record: str) -> None:
        self[raw] = record


def reactor(function: Any) -> Role:
    return Role("reactor", function)


def subreactor(function: Any) -> Role:
    return Role("subreactor", function)


def _api() -> ModuleType:
    api = ModuleType("catalogue_api")
    names = {"reactor": reactor, "subreactor": subreactor, "untracked": untracked, "mark": print, "AUX": print}
    vars(api).update(names, __file__="/usr/lib/site-packages/catalogue_api.py")
    return api


@contextmanager
def program(folder: Path, files: dict[str, str]) -> Iterator[ModuleType]:
    """The program's ``app`` module, imported from `folder`; all its modules are forgotten afterwards."""
    before = dict(sys.modules)
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    sys.modules["catalogue_api"] = _api()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield importlib.import_module("app")
    finally:
        sys.dont_write_bytecode = dont_write
        sys.path.remove(str(folder))
        for name in set(sys.modules) - set(before):
            if name in ("app", "catalogue_api") or _lies_in(sys.modules[name], folder):
                del sys.modules[name]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    return str(vars(module).get("__file__") or "").startswith(str(folder))


def fingerprints(folder: Path, files: dict[str, str], *names: str, **options: Any) -> dict[str, str]:
    """Fingerprints of members of the program's ``app`` module."""
    with program(folder, files) as app:
        printer = Fingerprinter(**options)
        return {name: printer.fingerprint(getattr(app, name)) for name in names}


def of_source(source: str, name: str = "f", **options: Any) -> str:
    """Fingerprint of a function that is made by ``exec``, without file or module."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return Fingerprinter(**options).fingerprint(namespace[name])

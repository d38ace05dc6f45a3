"""Whole packages taken for the project: each of their functions and classes is the same in every process.

    pytest -m campaign tests/fingerprint/test_packages.py

They are written in more ways than we would think of. What differs is printed part by part: it may be the package that
keeps a number of the process (an address, the time of its import), or we that can't see past it.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from tests.fingerprint.test_stability import run

#: Those that keep nothing of the process in what their functions refer to.
PACKAGES = ["attr", "dask", "dateutil", "diskcache", "joblib", "loky", "omegaconf", "packaging", "PIL", "pint"]

PARTS = """
import importlib, json, pkgutil, types, warnings
from pyplantx.fingerprint.code import Fingerprinter
warnings.simplefilter("ignore")
names = [PACKAGE]
for found in pkgutil.walk_packages(importlib.import_module(PACKAGE).__path__, PACKAGE + ".", onerror=lambda name: None):
    if "test" not in found.name and "__main__" not in found.name:
        names.append(found.name)
modules = []
for name in names[:60]:
    try:
        modules.append(importlib.import_module(name))
    except BaseException:  # what needs another library, or another system, is left out
        pass
printer, parts = Fingerprinter(track=[PACKAGE]), {}
for module in modules:
    for name, value in sorted(vars(module).items()):
        own = getattr(value, "__module__", None) == module.__name__
        if own and isinstance(value, (types.FunctionType, type)):
            parts[f"{module.__name__}.{name}"] = [printer.fingerprint(value), printer.parts(value)]
print(json.dumps(parts))
"""


def parts_in(package: str, seed: str) -> dict[str, Any]:
    """Of each function and class: its fingerprint, and those of its parts by name."""
    printed = run(f"PACKAGE = {package!r}{PARTS}", PYTHONHASHSEED=seed)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


@pytest.mark.campaign
@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_the_same_in_each_process(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    one, other = parts_in(package, "1"), parts_in(package, "2")
    assert len(one) > 10
    differing = {
        part
        for name in one.keys() & other.keys()
        if one[name][0] != other[name][0]
        for part in one[name][1].keys() | other[name][1].keys()
        if one[name][1].get(part) != other[name][1].get(part)
    }
    assert differing == set()

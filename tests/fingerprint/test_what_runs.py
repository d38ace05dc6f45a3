"""Whole packages taken for the project: all of their code that runs, counts.

    pytest -m campaign tests/fingerprint/test_what_runs.py

What a function calls is watched while it runs, and held against what its fingerprint was made of. What is imported by
computed text comes later, as an observation of the run (`tests/plant`), and is left out here.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fingerprint.test_stability import run

#: Package -> functions that use it.
QUICK = {
    "omegaconf": """
def merged():
    from omegaconf import OmegaConf
    return OmegaConf.merge(OmegaConf.create({"a": {"b": 1}}), OmegaConf.from_dotlist(["a.b=3"])).a.b
def interpolated():
    from omegaconf import OmegaConf
    return OmegaConf.to_yaml(OmegaConf.create({"a": 1, "b": "${a}"}), resolve=True)
""",
    "dask": """
def total():
    import dask.array as da
    return da.arange(20, chunks=5)[::2].mean().compute(scheduler="sync")
def delayed():
    import dask
    return dask.delayed(sum)([dask.delayed(abs)(i) for i in range(4)]).compute(scheduler="sync")
""",
}
LONG = {
    "pint": """
def converted():
    import pint
    units = pint.UnitRegistry()
    return str((3 * units.meter / units.second).to("km/h"))
""",
    "joblib": """
def several():
    import joblib
    return joblib.Parallel(n_jobs=1)(joblib.delayed(abs)(i) for i in range(3))
def hashed():
    import joblib
    return joblib.hash({"a": [1, 2]})
""",
    "xarray": """
def grouped():
    import numpy, xarray
    array = xarray.DataArray(numpy.arange(12.0).reshape(3, 4), dims=("x", "y"), coords={"x": [1, 2, 3]})
    return array.sel(x=2).mean().item(), array.groupby("x").sum().values.sum()
def rolled():
    import xarray
    return xarray.DataArray([1.0, 2.0, 3.0], dims="t").rolling(t=2).mean().values
""",
    "zarr": """
def written():
    import zarr
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(10,), chunks=(5,), dtype="f8")
    array[:] = 1
    return float(array[:].sum())
""",
    "sklearn": """
import numpy as np
X, Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
def piped():
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), Ridge()).fit(X, Y).predict(X)
def searched():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    return GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(X, Y).best_params_
def grown():
    from sklearn.ensemble import RandomForestClassifier
    return RandomForestClassifier(n_estimators=3).fit(X, Y).predict(X)
""",
    "pandas": """
def grouped():
    import pandas as pd
    return pd.DataFrame({"a": [1, 1, 2], "b": [1.0, 2.0, 3.0]}).groupby("a").b.mean().to_dict()
def merged():
    import pandas as pd
    one, other = pd.DataFrame({"k": [1, 2], "x": [1, 2]}), pd.DataFrame({"k": [1, 2], "y": [1, 2]})
    return one.merge(other, on="k").pivot_table(index="x", columns="y", values="k").to_csv()
def asked():
    import pandas as pd
    return pd.DataFrame({"a": [1, 2]}).query("a > 1").a.tolist()
""",
}

WATCH = """
import importlib, json, os, sys, types, warnings
from contextlib import suppress
import uses
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.nested import with_nested

warnings.simplefilter("ignore")

def place(code):
    return code.co_filename, code.co_firstlineno, code.co_name

def functions_in(thing):
    if isinstance(thing, types.FunctionType):
        yield thing
    inside = list(vars(thing).values()) if isinstance(thing, type) else []
    for name in ("__func__", "fget", "fset", "fdel", "func", "__wrapped__"):
        with suppress(AttributeError):
            inside.append(object.__getattribute__(thing, name))
    for one in inside:
        if not isinstance(one, type):
            yield from functions_in(one)

def watched(function, folder):
    ran = {}
    def see(frame, event, argument):
        if frame.f_code.co_filename.startswith(folder) and frame.f_code.co_name != "<module>":
            ran[place(frame.f_code)] = frame.f_code.co_qualname
    sys.setprofile(see)
    try:
        function()
    finally:
        sys.setprofile(None)
    return ran

def main():
    told = {}
    for name, function in sorted(vars(uses).items()):
        if not isinstance(function, types.FunctionType):
            continue
        printer = Fingerprinter(track=TRACK)
        printer.begin_activity()
        printer.fingerprint(function)
        reach = printer._reach(function).objects.values()
        counts = {place(code) for one in reach for f in functions_in(one) for code in with_nested(f.__code__)}
        module = importlib.import_module(PACKAGE)
        ran = watched(function, os.path.dirname(module.__file__))
        told[name] = len(ran), sorted({ran[one] for one in set(ran) - counts})
    print(json.dumps(told))

main()
"""


def overlooked(package: str, source: str, folder: Path, track: list[str]) -> dict[str, tuple[int, list[str]]]:
    """Of each function of some source: how much code of the package ran, and which of that did not count."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (folder / "uses.py").write_text(source)
    told: dict[str, Any] = json.loads(
        run(f"PACKAGE, TRACK = {package!r}, {track!r}\n{WATCH}", folder=folder).splitlines()[-1]
    )
    return {name: (count, missing) for name, (count, missing) in told.items()}


def check(package: str, source: str, folder: Path) -> None:
    for name, (count, missing) in overlooked(package, source, folder, [package]).items():
        assert count >= 5, name
        assert not missing, name


@pytest.mark.parametrize("package", QUICK)
def test_what_runs_counts(package: str, tmp_path: Path) -> None:
    check(package, QUICK[package], tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("package", LONG)
def test_what_runs_counts_in_large_packages(package: str, tmp_path: Path) -> None:
    check(package, LONG[package], tmp_path)


def test_what_does_not_count_is_found(tmp_path: Path) -> None:
    """The positive control: the package is a library, of which the version counts."""
    for count, missing in overlooked("omegaconf", QUICK["omegaconf"], tmp_path, []).values():
        assert 5 <= len(missing) <= count

"""To look at something is not to change it, whatever it keeps of what it was asked."""

from __future__ import annotations

from typing import Any

import pytest

from pyplantx.fingerprint.code import Fingerprinter

TABLE = """\
import pandas as pd
columns = {"g": list("aab"), "x": [1, 2, 3], "c": pd.Categorical(list("aba")), "t": pd.to_datetime(["2020-01-01"] * 3)}
K = pd.DataFrame(columns | {"i": pd.array([1, None, 2]), "f": [0.5, 1.0, 1.5]})"""
GRAPH = "import networkx\nK = networkx.DiGraph([(1, 2), (2, 3)])"
DATASET = "import xarray\nK = xarray.Dataset({'a': ('t', [1.0, 2.0])}, coords={'t': [0, 1]})"

ACCESSOR = f"""{DATASET}
@xarray.register_dataset_accessor("of_a_test")
class Accessor:
    def __init__(self, table):
        self.seen = {{}}
"""
OWN_GRAPH = f"""{GRAPH}
import functools
class Own(networkx.DiGraph):
    @functools.cached_property
    def mine(self): return {{}}
K = Own(K)
"""
OWN_TABLE = f"""{TABLE}
class Own(pd.DataFrame):
    _metadata = ["_readonly"]
K = Own(K)
K._readonly = True
"""

GROUPS = DATASET.replace("coords={'t': [0, 1]}", "coords={'t': [0, 1], 'g': ('t', [1, 1])}")

LOOKS = {
    "grouped": (f"{TABLE}\nK = K.groupby('g')", "(K.groups, K.indices, list(K), repr(K), K.x.mean(), K.ngroup())"),
    "rolling": (f"{TABLE}\nK = K[['x', 'f']].rolling(2)", "(K.sum(), list(K), repr(K))"),
    "resampled": (f"{TABLE}\nK = K.set_index('t').x.resample('D')", "(K.sum(), K.groups, list(K), repr(K))"),
    "groups of a dataset": (f"{GROUPS}\nK = K.groupby('g')", "(K.groups, K.dims, K.sizes, list(K), repr(K), K.sum())"),
    "groups of an array": (f"{GROUPS}\nK = K.a.groupby('g')", "(K.groups, K.dims, K.sizes, list(K), K.mean())"),
    "resampled array": (
        f"{DATASET}\nimport pandas as pd\nK = K.assign_coords(t=pd.date_range('2020', periods=2)).a.resample(t='2D')",
        "(K.groups, K.mean())",
    ),
    "types": (TABLE, "K.dtypes"),
    "printed": (TABLE, "repr(K)"),
    "shown": (TABLE, "K._repr_html_()"),
    "described": (TABLE, "K.describe()"),
    "row": (TABLE, "K.loc[0]"),
    "query": (TABLE, "K.query('x > 1')"),
    "groups": (TABLE, "K.groupby('g').x.mean()"),
    "column": (TABLE, "(K.i.isna(), K.i.array.dtype, K.c.array._can_hold_na, K.t.dt.year)"),
    "index": (TABLE, "(K.index.is_unique, K.columns.get_loc('x'))"),
    "written": (TABLE, "K.loc.__setitem__((0, 'x'), 1)"),
    "added": (TABLE, "(K.__setitem__('n', 1), K.__delitem__('n'))"),
    "nodes": (GRAPH, "(K.nodes, K.edges, K.adj, K.succ, K.in_degree)"),
    "way": (GRAPH, "networkx.shortest_path(K, 1, 3)"),
    "used elsewhere": (GRAPH, "K.__networkx_cache__.setdefault('backends', {}).__setitem__('parallel', {'made': 1})"),
    "dataset": (DATASET, "(repr(K), K.a.attrs, K.encoding)"),
    "accessor": (ACCESSOR, "K.of_a_test.seen"),
}


def digests(names: dict[str, Any]) -> tuple[str, str]:
    """The fingerprint of code that refers to a global ``K``, and the digest of ``K`` itself."""
    printer = Fingerprinter()
    return printer.fingerprint(names["f"]), printer.encode_value(names["K"])


def made(source: str) -> dict[str, Any]:
    pytest.importorskip(source.split("import ")[1].split()[0])
    names: dict[str, Any] = {}
    exec(f"{source}\ndef f(): return K", names)
    return names


@pytest.mark.parametrize("name", LOOKS)
def test_who_looks_at_something_has_not_changed_it(name: str) -> None:
    source, look = LOOKS[name]
    names = made(source)
    before = digests(names)
    eval(look, names)
    assert digests(names) == before


CHANGES = {
    "cell": (TABLE, "K.loc.__setitem__((0, 'x'), 7)"),
    "missing": (TABLE, "K.loc.__setitem__((0, 'i'), None)"),
    "category": (TABLE, "K.__setitem__('c', K.c.cat.rename_categories({'a': 'z'}))"),
    "column": (TABLE, "K.__setitem__('n', 1)"),
    "attributes": (TABLE, "K.attrs.__setitem__('unit', 'm')"),
    "edge": (GRAPH, "K.add_edge(3, 1)"),
    "property of one's own": (OWN_GRAPH, "K.mine.__setitem__(1, 2)"),
    "name of one's own": (OWN_TABLE, "setattr(K, '_readonly', False)"),
    "flags": (TABLE, "setattr(K.flags, 'allows_duplicate_labels', False)"),
    "name of the index": (TABLE, "setattr(K.index, 'name', 'i')"),
    "graph": (GRAPH, "K.graph.__setitem__('name', 'g')"),
    "weight": (GRAPH, "K.edges[1, 2].__setitem__('w', 2)"),
    "word": (DATASET, "K.attrs.__setitem__('unit', 'm')"),
    "word inside": (DATASET, "K.a.encoding.__setitem__('dtype', 'f4')"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_who_changes_it_has_changed_it(name: str) -> None:
    source, change = CHANGES[name]
    names = made(source)
    before = digests(names)
    eval(change, names)
    after = digests(names)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_somebody_has_put_where_pandas_keeps_its_notes_counts() -> None:
    names = made(TABLE)
    before = digests(names)
    names["K"].i.array.__dict__["_cache"] = {"mine": 1}
    names["K"]._mgr.blocks[0].__dict__["_cache"] = {"mine": 1}
    assert digests(names) != before

"""Objects as globals and as values: what they hold counts, however they are pickled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from pyplantx.fingerprint import value
from pyplantx.fingerprint.arrays import beside_layout
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.states import hung_on_sparse


def both_ways(source: str) -> tuple[str, str, list[str]]:
    """The fingerprint of code that refers to a global ``K``, the digest of ``K`` itself, what is not seen."""
    names: dict[str, Any] = {}
    exec(f"{source}\ndef f(): return K", names)
    printer = Fingerprinter()
    return printer.fingerprint(names["f"]), printer.encode_value(names["K"]), printer.opaque(names["f"])


def check_edit(source: str, old: str, new: str) -> None:
    """An edit is seen both ways, and the same source twice is the same."""
    assert source.count(old) == 1
    before, again, after = both_ways(source), both_ways(source), both_ways(source.replace(old, new))
    assert before == again
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert before[2] == []


# --- scipy.sparse -------------------------------------------------------------------------------------------

OPERATORS = {
    "function": ("S = 2\ndef damp(v): return v * S\nK = LinearOperator((3, 3), matvec=damp)", "S = 2", "S = 3"),
    "lambda": ("K = LinearOperator((3, 3), matvec=lambda v: v * 2)", "* 2", "* 3"),
    "matrix": ("import numpy as np\nK = aslinearoperator(np.eye(2) * 2)", "* 2", "* 3"),
    "sum": ("import numpy as np\nK = aslinearoperator(np.eye(2)) * 2", ") * 2", ") * 3"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_linear_operators_count_with_their_functions(name: str) -> None:
    source, old, new = OPERATORS[name]
    check_edit(f"from scipy.sparse.linalg import LinearOperator, aslinearoperator\n{source}", old, new)


def test_what_hangs_on_a_sparse_matrix_counts_whatever_its_name() -> None:
    source = "import scipy.sparse\nK = scipy.sparse.csr_array([[1, 0]])\nK._weight = 2"
    check_edit(source, "_weight = 2", "_weight = 3")


@pytest.mark.parametrize("name", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_what_scipy_keeps_on_a_sparse_matrix_does_not_count(name: str, kind: str) -> None:
    matrix = getattr(scipy.sparse, f"{name}_{kind}")(np.eye(3))
    fresh = value.digest(matrix)
    for form in (matrix, matrix.T, matrix.copy(), matrix.tocsr(), matrix.tocoo(), matrix @ matrix, matrix.astype("f4")):
        assert hung_on_sparse(form) == {}
    assert value.digest(matrix) == fresh


# --- dtypes -------------------------------------------------------------------------------------------------

DTYPES = {
    "enumeration": ("h5py.enum_dtype({'CAT': 1}, basetype='i1')", "CAT", "DOG"),
    "string": ("h5py.string_dtype('utf-8')", "utf-8", "ascii"),
    "string of a width": ("h5py.string_dtype('utf-8', 5)", "utf-8", "ascii"),
    "varying length": ("h5py.vlen_dtype(np.dtype('i4'))", "i4", "i8"),
    "metadata": ("np.dtype('f8', metadata={'unit': 'm'})", "'m'", "'s'"),
    "a field": ("np.dtype([('a', np.dtype('f8', metadata={'unit': 'm'}))])", "'m'", "'s'"),
    "a sub-array": ("np.dtype((np.dtype('f8', metadata={'unit': 'm'}), (2,)))", "'m'", "'s'"),
    "title": ("np.dtype([(('long', 'a'), 'f8')])", "long", "short"),
    "records": ("np.dtype((np.void, [('a', 'f8')]))", "np.void", "np.record"),
    "array": ("np.zeros(2, np.dtype('f8', metadata={'unit': 'm'}))", "'m'", "'s'"),
    "array of objects": ("np.zeros(2, h5py.string_dtype('utf-8'))", "utf-8", "ascii"),
    "scalar": ("np.zeros(2, [('a', np.dtype('f8', metadata={'unit': 'm'}))])[0]", "'m'", "'s'"),
}
if hasattr(getattr(np, "dtypes", None), "StringDType"):
    DTYPES["missing strings"] = ("np.dtypes.StringDType(na_object=None)", "None", "''")
    DTYPES["strict strings"] = ("np.dtypes.StringDType(coerce=True)", "True", "False")


@pytest.mark.parametrize("name", DTYPES)
def test_what_a_dtype_says_beside_its_layout_counts(name: str) -> None:
    source, old, new = DTYPES[name]
    check_edit(f"import h5py\nimport numpy as np\nK = {source}", old, new)


def test_plain_dtypes_say_nothing_beside_their_layout() -> None:
    for dtype in ("f8", "O", "M8[ns]", "U3", [("a", "i4"), ("b", "f8", (2,))]):
        assert beside_layout(np.dtype(dtype)) == []

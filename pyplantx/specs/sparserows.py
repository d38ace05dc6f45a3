"""Rows of csr matrices and columns of csc ones, on the memory of the whole: for matrices larger than memory.

This file may know: the attributes of SciPy's compressed formats. It imports nothing of SciPy.
"""

from __future__ import annotations

from typing import Any

from pyplantx.basics.given import check_whole
from pyplantx.basics.loaded import is_of
from pyplantx.errors import BadRequest
from pyplantx.specs.plain import type_name


def is_sparse(value: Any) -> bool:
    """Whether it is a sparse matrix or array of SciPy's."""
    return is_of(value, "scipy.sparse", "spmatrix", "sparray")


def rows(matrix: Any, start: int, stop: int) -> Any:
    """Some rows of a csr matrix, on the same memory: of a received one nothing else is read, and nothing is copied.

    ``matrix[start:stop]`` reads no more, but copies the entries. What is written into the result is written into the
    matrix (a received one is private to its reactor).

    Parameters
    ----------
    matrix : csr_array or csr_matrix
        Two-dimensional.
    start, stop : int
        The first row, and the one after the last; as in a slice, negative ones count from the end.

    Returns
    -------
    csr_array or csr_matrix
        Of shape (stop - start, columns).

    Raises
    ------
    BadRequest
        If it is not in csr format.
    """
    must_be(matrix, "csr", "only a csr matrix can be cut into rows")
    return _part(matrix, start, stop, axis=0)


def columns(matrix: Any, start: int, stop: int) -> Any:
    """Some columns of a csc matrix, on the same memory; see `rows`."""
    must_be(matrix, "csc", "only a csc matrix can be cut into columns")
    return _part(matrix, start, stop, axis=1)


def must_be(matrix: Any, form: str, trouble: str) -> None:
    """Refuse whatever is not a two-dimensional sparse matrix of that format."""
    found = getattr(matrix, "format", type_name(type(matrix)))
    if found != form or len(matrix.shape) != 2:
        raise BadRequest(f"{trouble}: this one is {found}", hint=f"matrix.to{form}() makes one (a copy in memory)")


def _border(at: Any) -> int | None:
    return None if at is None else check_whole("where rows or columns begin or end", at, "specs.rows(matrix, 0, 1000)")


def _part(matrix: Any, start: int, stop: int, axis: int) -> Any:
    begin, end, _ = slice(_border(start), _border(stop)).indices(matrix.shape[axis])
    end = max(begin, end)
    first, last = int(matrix.indptr[begin]), int(matrix.indptr[end])
    shape = list(matrix.shape)
    shape[axis] = end - begin
    # By attribute: the constructor copies indices that it can make narrower.
    part = type(matrix)(tuple(shape), dtype=matrix.dtype)
    part.data = matrix.data[first:last]
    part.indices = matrix.indices[first:last]
    part.indptr = matrix.indptr[begin : end + 1] - first
    known = vars(matrix).get("_has_sorted_indices", vars(matrix).get("has_sorted_indices"))
    if known:
        part.has_sorted_indices = True
    return part

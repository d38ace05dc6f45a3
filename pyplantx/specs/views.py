"""Received arrays as other libraries want them, without a copy: dask, xarray, torch.

This file may know: the faces of received values (shape, dtype, chunks, slicing). It may not know: h5py, zarr, files.
The other libraries are imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pyplantx.basics.loaded import is_of
from pyplantx.errors import BadRequest, did_you_mean
from pyplantx.specs.chunks import grown
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import OptionalLibrary
from pyplantx.specs.sparserows import is_sparse, must_be, rows

#: Bytes of a dask block: large enough for its overhead, small enough for several in memory.
_DASK_BLOCK: Final = 64 << 20


def converted(value: Any, as_: str, name: str) -> Any:
    """A received value in the form that another library works on.

    Parameters
    ----------
    value : ndarray, HdfDataset, ZarrArray or sparse matrix
        As it was received.
    as_ : {"numpy", "dask", "xarray", "torch"}
        "numpy": an ndarray; a dataset in one piece is mapped, others are read. "dask": a ``dask.array`` in blocks of
        whole chunks, of a csr matrix in blocks of rows (for ``map_blocks``: SciPy's matrices don't have what dask's own
        reductions call). "xarray": a lazy ``DataArray``. "torch": for an array a
        tensor on the same memory, for all others a ``torch.utils.data.Dataset`` of rows.
    name : str
        The ingredient, for errors and for the ``DataArray``.

    Raises
    ------
    BadRequest
        If there is no such form, or none of this value.
    MissingLibrary
        If the library is not installed.
    """
    check_form(as_, name)
    if not (_is_array(value) or _is_lazy(value) or is_sparse(value)):
        raise BadRequest(
            f"the ingredient {name!r} is a {type_name(type(value))}: it can't be received as {as_!r}",
            hint="arrays, HDF and Zarr arrays and sparse matrices can; receive it without as_=",
        )
    return _FORMS[as_](value, name)


def check_form(as_: str, name: str) -> None:
    """Refuse a form that there is not, before anything is produced for it.

    Raises
    ------
    BadRequest
        With the form that was probably meant.
    """
    if not isinstance(as_, str) or as_ not in _FORMS:
        hint = f"{did_you_mean(as_, _FORMS)} one of {', '.join(map(repr, _FORMS))}".lstrip()
        raise BadRequest(f"the ingredient {name!r} can't be received as {as_!r}", hint=hint)


def _is_array(value: Any) -> bool:
    return is_of(value, "numpy", "ndarray")


def _is_lazy(value: Any) -> bool:
    """Whether it is a dataset of ours, read by slices."""
    return all(hasattr(type(value), face) for face in ("shape", "dtype", "chunks", "read_block"))


def _refuse_sparse(value: Any, name: str, form: str) -> None:
    if is_sparse(value):
        raise BadRequest(
            f"the sparse matrix {name!r} can't be received as {form!r}: its zeros would have to be made",
            hint="receive it without as_= and call .toarray() on the rows that you need: specs.rows(matrix, a, b)",
        )


# -- numpy ----------------------------------------------------------------------------------------


def _as_numpy(value: Any, name: str) -> Any:
    import numpy as np

    _refuse_sparse(value, name, "numpy")
    if _is_array(value):
        return value
    mapped = getattr(value, "mapped", None)
    if mapped is not None and value.chunks is None and value.size:
        try:
            return mapped(writable=True)
        except BadRequest:  # structured elements lie in one piece, but not as in memory
            pass
    return np.asarray(value)


# -- dask -----------------------------------------------------------------------------------------


def _as_dask(value: Any, name: str) -> Any:
    with OptionalLibrary("dask", f"receiving {name!r} as 'dask'"):
        import dask.array

    da: Any = dask.array
    if is_sparse(value):
        return _sparse_as_dask(da, value, name)
    chunks = grown(value.shape, getattr(value, "chunks", None), value.dtype.itemsize, _DASK_BLOCK)
    source = ArraySlices(value) if _is_array(value) else value
    # A name of its own: to make one dask would hash an array in memory as a whole.
    return da.from_array(source, chunks=chunks, name=False, lock=False, asarray=True)


class ArraySlices:
    """An array as dask slices it; without the method ``copy``, which dask would call for the whole.

    Parameters
    ----------
    array : ndarray
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, selection: Any) -> Any:
        return self.array[selection]


class SparseBlocks:
    """A csr matrix as dask slices it.

    Parameters
    ----------
    matrix : csr_array or csr_matrix
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.shape = matrix.shape
        self.dtype = matrix.dtype

    def __getitem__(self, selection: tuple[slice, slice]) -> Any:
        along, across = selection
        start, stop, step = along.indices(self.shape[0])
        found = rows(self.matrix, start, max(start, stop))
        if step != 1:
            found = found[::step]
        return found if across == slice(0, self.shape[1], 1) or across == slice(None) else found[:, across]


def _sparse_as_dask(da: Any, matrix: Any, name: str) -> Any:
    must_be(matrix, "csr", f"the sparse matrix {name!r} can't be received as 'dask'")
    count, width = matrix.shape
    entry = matrix.data.itemsize + matrix.indices.itemsize
    per_row = max(1, matrix.nnz * entry // max(1, count))
    step = max(1, min(count, _DASK_BLOCK // per_row))
    return da.from_array(
        SparseBlocks(matrix), chunks=(step, width), name=False, lock=False, asarray=False, meta=type(matrix)((0, 0))
    )


# -- xarray and torch -----------------------------------------------------------------------------


def _as_xarray(value: Any, name: str) -> Any:
    _refuse_sparse(value, name, "xarray")
    with OptionalLibrary("xarray", f"receiving {name!r} as 'xarray'"):
        from pyplantx.specs.lazyxarray import data_array

    return data_array(value, name, in_memory=_is_array(value))


def _as_torch(value: Any, name: str) -> Any:
    with OptionalLibrary("torch", f"receiving {name!r} as 'torch'"):
        from pyplantx.specs.torchrows import Rows, tensor

    if not _is_array(value):
        if not value.shape:
            raise BadRequest(f"{name!r} has no rows: it is a single number", hint="receive it without as_=")
        return Rows(value)
    if not value.flags.writeable:
        raise BadRequest(
            f"{name!r} was received read-only, and a tensor can't be",
            hint="torch.tensor(x) copies it; Plant(arrays='copy') gives arrays that may be written to",
        )
    return tensor(value, name)


_FORMS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "numpy": _as_numpy,
    "dask": _as_dask,
    "xarray": _as_xarray,
    "torch": _as_torch,
}

"""Datasets of ours as lazy ``xarray.DataArray`` objects. Imported once xarray is."""

from __future__ import annotations

from typing import Any

import xarray
from xarray.backends import BackendArray
from xarray.core import indexing


class Backed(BackendArray):  # type: ignore[misc, unused-ignore]
    """A dataset as a backend of xarray: it is read where values are needed, only there, and not kept.

    Parameters
    ----------
    value : HdfDataset or ZarrArray
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self.shape = value.shape
        self.dtype = value.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        return self.value[key]


def _copied_on_write(backed: Any) -> Any:
    """Lazy until somebody assigns to elements, who gets an array in memory."""
    lazy: Any = indexing.LazilyIndexedArray(backed)
    return indexing.CopyOnWriteArray(lazy)


def data_array(value: Any, name: str, in_memory: bool) -> Any:
    """A `DataArray` with the axes ``dim_0``, ``dim_1``, ...

    Parameters
    ----------
    value : ndarray, HdfDataset or ZarrArray
    name : str
        Its name.
    in_memory : bool
        Whether it is an ndarray: the `DataArray` is then made on its memory.
    """
    if 0 in value.shape:  # xarray's lazy slices with negative steps need an element
        value, in_memory = value[...], True
    data: Any = value if in_memory else _copied_on_write(Backed(value))
    axes = [f"dim_{axis}" for axis in range(len(value.shape))]
    variable = xarray.Variable(axes, data, fastpath=not in_memory)
    return xarray.DataArray(variable, name=name)

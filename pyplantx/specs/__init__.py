"""Ingredient types: how values of one kind are recognised, stored, fetched, allocated and previewed.

Names are resolved on first use, so that ``import pyplantx`` loads none of numpy, scipy, h5py, dill.
docs/design/specs.md tells how the types are built; the folder ``specs/`` at the top has the written formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyplantx.specs.arrays import ArraySpec
    from pyplantx.specs.base import Allocation, IngredientTypeSpec, Payload, Stage, Written
    from pyplantx.specs.builtin import ObjectSpec
    from pyplantx.specs.files import FileSpec
    from pyplantx.specs.hdf import HdfArraySpec
    from pyplantx.specs.keras import KerasModelSpec
    from pyplantx.specs.registry import SpecRegistry
    from pyplantx.specs.simple import ListSpec, SimpleSpec
    from pyplantx.specs.sparse import ScipySparseSpec
    from pyplantx.specs.sparserows import columns, rows
    from pyplantx.specs.zarr import ZarrArraySpec

__all__ = [
    "Allocation",
    "ArraySpec",
    "FileSpec",
    "HdfArraySpec",
    "IngredientTypeSpec",
    "KerasModelSpec",
    "ListSpec",
    "ObjectSpec",
    "Payload",
    "ScipySparseSpec",
    "SimpleSpec",
    "SpecRegistry",
    "Stage",
    "Written",
    "ZarrArraySpec",
    "columns",
    "rows",
]

_HOME = {
    "Allocation": "base",
    "ArraySpec": "arrays",
    "FileSpec": "files",
    "HdfArraySpec": "hdf",
    "IngredientTypeSpec": "base",
    "KerasModelSpec": "keras",
    "ListSpec": "simple",
    "ObjectSpec": "builtin",
    "Payload": "base",
    "ScipySparseSpec": "sparse",
    "SimpleSpec": "simple",
    "SpecRegistry": "registry",
    "Stage": "base",
    "Written": "base",
    "ZarrArraySpec": "zarr",
    "columns": "sparserows",
    "rows": "sparserows",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

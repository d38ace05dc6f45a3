"""Whether a value is of a library's class, also while another thread is importing that library."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from pyplantx import specs
from pyplantx.basics.loaded import is_of
from pyplantx.specs.masks import is_masked_array
from pyplantx.specs.sparserows import is_sparse
from pyplantx.specs.views import converted


def test_classes_of_a_library() -> None:
    assert is_of(np.zeros(2), "numpy", "generic", "ndarray") and not is_of([0, 0], "numpy", "ndarray")
    assert not is_of(1, "library_that_is_not_there", "Array") and not is_of(1, "numpy", "NoSuchClass", "zeros")


@pytest.mark.parametrize("library", ["numpy.ma", "h5py", "zarr", "keras", "scipy.sparse"])
def test_a_library_that_is_being_imported(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, types.ModuleType(library))
    value: Any = {"a": 1}
    kinds = (specs.ArraySpec, specs.HdfArraySpec, specs.ZarrArraySpec, specs.KerasModelSpec)
    assert not any(kind().recognise(value) for kind in kinds)
    assert not is_masked_array(np.zeros(2)) and not is_sparse(value)
    assert converted(np.zeros(2), "numpy", "x").tolist() == [0, 0]

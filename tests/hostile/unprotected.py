"""The product without one of its protections, for the positive controls: what a test of a hostile thing must then find.

Each function takes one check away from this process. ``visitor.py`` calls them by name, in the process that looks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def any_hdf5_file() -> None:
    """Whatever is called 'data' in an HDF5 file is read, from wherever it takes its elements."""
    from pyplantx.specs import hdf

    hdf._checked = lambda h5py, file, size: file["data"]


def any_npy_length() -> None:
    """A .npy file may be longer than its header says."""
    from pyplantx.specs import npy

    real: Callable[..., Any] = npy.read_header

    class Believing(int):
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    class Header(npy.Header):  # type: ignore[misc, unused-ignore]
        @property
        def size(self) -> int:
            return Believing(super().size)

    npy.read_header = lambda data, part: Header(*real(data, part))


def any_sparse_index() -> None:
    """The indices of a sparse matrix are followed without a look at them."""
    from pyplantx.specs import sparse

    sparse._check_fully = lambda value: None


def any_zarr_head() -> None:
    """What is said of a Zarr array is left to zarr."""
    from pyplantx.specs import zarr

    zarr._check_head = lambda text, parts: None


def any_file() -> None:
    """Whatever lies in the place of a payload is opened like a file."""
    from pyplantx.warehouse import verify

    verify._open = lambda path: os.open(path, os.O_RDONLY)


def any_json() -> None:
    """What is JSON is a value."""
    import json

    from pyplantx.specs import simple

    simple.load_json = lambda data, what: json.loads(data)


def any_keras_model() -> None:
    """Keras models are no code."""
    from pyplantx.specs import KerasModelSpec

    KerasModelSpec.executes_code = False


MISSING: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        any_hdf5_file,
        any_npy_length,
        any_sparse_index,
        any_zarr_head,
        any_file,
        any_json,
        any_keras_model,
    )
}

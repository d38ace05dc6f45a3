"""Arrays for the tests of blocks: every layout, values of any dtype, and damage to their files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pyplantx import specs

#: Name of a layout -> spec and options with which such an array is allocated.
LAYOUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "raw": (specs.HdfArraySpec, {}),
    "chunked": (specs.HdfArraySpec, {"chunks": True}),
    "packed": (specs.HdfArraySpec, {"compression": "gzip"}),
    "npy": (specs.ArraySpec, {}),
    "npy F": (specs.ArraySpec, {"order": "F"}),
}


def some_values(shape: tuple[int, ...], dtype: Any) -> Any:
    """Any bytes that are numbers, and neither NaN nor minus zero."""
    count = int(np.prod(shape))
    value = np.random.default_rng(2).integers(0, 100, count * dtype.itemsize, "u1")
    return (value % 2 if dtype.kind == "?" else value).view(dtype).reshape(shape)


def flip(path: str, at: int, bit: int = 0) -> None:
    """Change one bit of a file; negative positions count from its end."""
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(at, 2 if at < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1 << bit]))


class Unseen(list[Any]):
    """A list that functions may append to behind the back of fingerprints: it is no state of theirs."""

    def __fingerprint__(self) -> str:
        return "unseen"

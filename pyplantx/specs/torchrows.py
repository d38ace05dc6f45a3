"""Received arrays for torch: tensors on the same memory, and map-style data sets of rows. Imported once torch is."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pyplantx.errors import BadRequest
from pyplantx.specs.sparserows import rows


def tensor(array: Any, name: str) -> Any:
    """A tensor on an array's memory.

    Raises
    ------
    BadRequest
        If torch has no such elements (text, structures, other byte orders).
    """
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise BadRequest(
            f"{name!r} can't be received as 'torch': {error}", hint="receive it without as_=, and convert it"
        ) from error


class Rows(Dataset[Any]):  # type: ignore[misc, unused-ignore]
    """The rows of a dataset or a csr matrix as tensors, read when they are asked for.

    For ``torch.utils.data.DataLoader``, its worker processes too: each opens the dataset anew. Rows of a sparse matrix
    come dense.

    Parameters
    ----------
    value : HdfDataset, ZarrArray, csr_array or csr_matrix
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self._process = os.getpid()

    def __len__(self) -> int:
        return int(self._value.shape[0])

    def __getitem__(self, index: int) -> Any:
        place = range(len(self))[index]
        return self._read(place, place + 1)[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch of rows; neighbours are read at once."""
        if indices and list(indices) == list(range(indices[0], indices[0] + len(indices))):
            return list(self._read(indices[0], indices[0] + len(indices)))
        return [self[index] for index in indices]

    def _read(self, start: int, stop: int) -> Any:
        value = self._here()
        sparse = hasattr(value, "indptr")
        found = rows(value, start, stop).toarray() if sparse else np.asarray(value[start:stop])
        return tensor(found if found.flags.writeable else found.copy(), "a row")

    def _here(self) -> Any:
        """The value; in a forked process opened anew, since its file and locks are the parent's."""
        if self._process != os.getpid():
            if not hasattr(self._value, "indptr"):
                self._value = pickle.loads(pickle.dumps(self._value))
            self._process = os.getpid()
        return self._value

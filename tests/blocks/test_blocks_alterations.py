"""Whether what was allocated was altered, for kinds of handles that no spec of ours gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyplantx.blocks.alterations import Alterations
from tests.blocks.fakes import FakeAllocation, FakeDataset


class BareDataset:
    """Of a type of the user's: blocks can be read and written, and it tells nothing."""

    shape, dtype = (3,), np.dtype("f8")

    def read_block(self, selection: Any) -> Any:
        raise NotImplementedError


def test_datasets_that_tell() -> None:
    allocation = FakeAllocation(FakeDataset(np.zeros(3)), "told")
    noted = Alterations([allocation])
    assert noted.first([allocation]) is None
    allocation.handle.write_block((slice(0, 1),), np.ones(1))
    assert noted.first([allocation]) == "told"
    assert Alterations([allocation]).first([allocation]) is None


def test_what_tells_nothing_counts_as_altered() -> None:
    for handle in (BareDataset(), object()):
        allocation = FakeAllocation(handle, "silent")
        assert Alterations([allocation]).first([allocation]) == "silent"


def test_what_is_new_is_altered_if_there_is_anything_in_it(tmp_path: Path) -> None:
    noted = Alterations([])
    dataset, path = FakeAllocation(FakeDataset(np.zeros(3))), FakeAllocation(tmp_path / "file", "file")
    assert noted.first([dataset, path]) is None
    path.handle.write_text("something")
    assert noted.first([dataset, path]) == "file"

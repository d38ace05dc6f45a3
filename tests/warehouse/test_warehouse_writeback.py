"""Early writeback: of stores that sync, for large writes, wherever they come from; and never more than a hint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pyplantx import specs
from pyplantx.fingerprint.value import BLOCK
from pyplantx.specs import writeback
from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.staging import StagedObject, Staging
from pyplantx.warehouse.warehouse import Warehouse

Calls = list[tuple[int, int]]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """What was asked to be written back: (start, size)."""
    calls: Calls = []

    def note(fd: int, start: int, size: int, flag: int) -> int:
        assert os.fstat(fd).st_size >= start + size
        assert flag == 2
        calls.append((start, size))
        return 0

    monkeypatch.setattr(writeback, "_sync_file_range", lambda: note)
    yield calls
    assert not writeback._folders


def covered(calls: Calls) -> int:
    """Bytes of the calls, none of which overlap."""
    ends = 0
    for start, size in sorted(calls):
        assert start >= ends
        ends = start + size
    return sum(size for _, size in calls)


def values(count: int) -> np.ndarray:
    return np.random.default_rng(count).random(count)


@pytest.mark.parametrize("order", ["C", "F", "gathered"])
@pytest.mark.parametrize("durability", ["power", "process"])
def test_arrays_that_are_sent(tmp_path: Path, begun: Calls, durability: str, order: str) -> None:
    array = values(3 << 20).reshape(3, -1)
    array = array[:, ::-1] if order == "gathered" else np.asarray(array, order=order)  # type: ignore[call-overload]
    with Warehouse(tmp_path, durability=durability) as warehouse:
        ref = warehouse.store("x", array)
        assert covered(begun) == (array.nbytes if durability == "power" else 0)
        assert np.array_equal(warehouse.open(ref), array)


@pytest.mark.parametrize("size", [BLOCK, 2 * BLOCK - 128, 2 * BLOCK - 127, 3 * BLOCK, 5 * BLOCK + 8])
def test_arrays_are_written_in_pieces_that_huge_pages_can_cache(tmp_path: Path, begun: Calls, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    with Warehouse(tmp_path, durability="power") as warehouse:
        ref = warehouse.store("x", array)
        assert np.array_equal(warehouse.open(ref), array)
    head, *others = sorted(start for start, _ in begun)
    assert 0 < head < BLOCK
    assert all(start % BLOCK == 0 for start in others)


def test_datasets_that_are_written_block_by_block(tmp_path: Path, begun: Calls) -> None:
    pytest.importorskip("h5py")
    array = values(2 << 20)
    with Warehouse(tmp_path, durability="power") as warehouse:
        allocated = warehouse.allocate("x", specs.HdfArraySpec, shape=array.shape, dtype="f8")
        for start in range(0, array.size, BLOCK // 8):
            allocated.handle[start : start + BLOCK // 8] = array[start : start + BLOCK // 8]
        assert covered(begun) == array.nbytes
        allocated.handle[5:9] = 0  # too little for a system call of its own
        assert covered(begun) == array.nbytes
        array[5:9] = 0
        assert np.array_equal(warehouse.open(allocated.seal())[:], array)


def test_parts_that_come_in_pieces(tmp_path: Path, begun: Calls) -> None:
    layout = Layout(str(tmp_path))
    layout.make()
    staging = Staging(layout, "session", durable=True)
    staging.begin()
    data = os.urandom(BLOCK + 5)
    StagedObject(staging).write("part", [data[:3], memoryview(data)[3:], data])
    staging.end()
    assert all(size >= writeback.LEAST for _, size in begun)
    assert covered(begun) >= 2 * len(data) - 4 * writeback.LEAST


def test_what_another_store_writes_is_its_own_affair(tmp_path: Path, begun: Calls) -> None:
    with (
        Warehouse(tmp_path / "durable", durability="power"),
        Warehouse(tmp_path / "durable too", durability="process") as other,
    ):
        other.store("x", values(1 << 20))
    assert begun == []


def test_a_system_that_refuses_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values(1 << 20)
    for call in (None, lambda *_: -1):
        monkeypatch.setattr(writeback, "_sync_file_range", lambda call=call: call)
        with Warehouse(tmp_path, durability="power") as warehouse:
            assert np.array_equal(warehouse.open(warehouse.store("x", array)), array)


def test_the_real_call(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * writeback.LEAST))
    with open(path, "rb") as file:
        writeback.begin(file.fileno(), 0, 2 * writeback.LEAST)
    writeback.begin(-1, 0, 2 * writeback.LEAST)  # the sync will tell what is wrong

"""Arrays that are written across their chunks: each chunk is packed a few times at most, whatever the order."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx import specs
from pyplantx.errors import WarehouseError, WarehouseFull
from pyplantx.spec_tests import FolderStage
from pyplantx.specs import packed as packed_datasets
from pyplantx.specs import packing, unpacked
from pyplantx.specs.library import SPARE
from pyplantx.specs.services import Services

ROWS, COLUMNS = 96, 40
CHUNK = (ROWS, 4)


@pytest.fixture
def stage(tmp_path: Path) -> FolderStage:
    return FolderStage(str(tmp_path))


def little_memory() -> specs.HdfArraySpec:
    """A spec whose datasets keep one chunk unpacked in memory."""
    return specs.HdfArraySpec().serve(Services(chunk_memory=1))


def allocate(stage: FolderStage, **options: Any) -> Any:
    options = {"shape": (ROWS, COLUMNS), "dtype": "f4", "chunks": CHUNK, "compression": "gzip", **options}
    return little_memory().allocate(stage, **options)


def numbers() -> Any:
    return np.random.default_rng(1).integers(0, 99, (ROWS, COLUMNS)).astype("f4")


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The chunks that were packed, one entry for each time."""
    seen: list[Any] = []
    real = packing.PackedWriter._pack

    def pack(self: Any, chunk: Any, data: Any) -> None:
        seen.append(chunk)
        real(self, chunk, data)

    monkeypatch.setattr(packing.PackedWriter, "_pack", pack)
    return seen


def in_file(stage: FolderStage) -> Any:
    with h5py.File(os.path.join(stage.folder, "data.h5")) as file:
        return next(iter(file.values()))[...]


@pytest.mark.parametrize("step", [1, 5, 96])
def test_rows_are_written_to_columns_without_packing_each_time(
    stage: FolderStage, packed: list[Any], step: int
) -> None:
    array, allocation = numbers(), allocate(stage)
    for start in range(0, ROWS, step):
        allocation.handle[start : start + step] = array[start : start + step]
        assert (allocation.handle[start] == array[start]).all()
    allocation.seal()
    assert len(packed) <= 2 * COLUMNS // CHUNK[1]
    assert (in_file(stage) == array).all() and (allocation.handle[...] == array).all()
    assert os.listdir(stage.folder) == ["data.h5"]


def test_what_waits_on_the_disk_leaves_room_for_the_array(
    stage: FolderStage, packed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    array, allocation = numbers(), allocate(stage)
    free = 2 * SPARE + array.nbytes  # enough to write it, not to keep chunks besides
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free, f_blocks=free, f_frsize=1))
    for start in range(0, ROWS, 8):
        allocation.handle[start : start + 8] = array[start : start + 8]
    monkeypatch.undo()
    allocation.seal()
    assert len(packed) > 5 * COLUMNS // CHUNK[1]  # each time, as there is no other way
    assert (in_file(stage) == array).all()


def test_what_waits_on_the_disk_must_still_fit_beside_it(tmp_path: Path) -> None:
    chunks = unpacked.UnpackedChunks(str(tmp_path / "data.h5"), (4,), np.dtype("f4"))
    assert not chunks.put((0,), np.zeros(4, "f4"), reserve=1 << 62) and (0,) not in chunks
    assert chunks.put((0,), np.arange(4, dtype="f4"), reserve=0) and chunks.nbytes == 16
    chunks.write((0,), (slice(1, 4, 2),), np.array([7.0, 8.0]))
    assert chunks.read((0,)).tolist() == [0, 7, 2, 8] and chunks.read((0,), (slice(2, 4),)).tolist() == [2, 8]
    chunks.drop((0,))
    assert chunks.put((5,), np.ones(4, "f4"), reserve=0) and list(chunks) == [(5,)]
    chunks.close()
    assert not list(chunks) and not os.listdir(tmp_path)


WRITES = st.lists(
    st.tuples(
        st.integers(0, ROWS),
        st.integers(0, ROWS),
        st.sampled_from([1, 1, 3]),
        st.integers(0, COLUMNS - 1),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(WRITES, st.sampled_from([(ROWS, 4), (7, 9), (ROWS, COLUMNS)]))
def test_any_order_gives_the_same_array(tmp_path_factory: Any, plan: list[Any], chunks: Any) -> None:
    stage = FolderStage(str(tmp_path_factory.mktemp("any")))
    allocation, expected = allocate(stage, chunks=chunks, fillvalue=3), np.full((ROWS, COLUMNS), 3, "f4")
    for number, (start, stop, step, column, with_mask) in enumerate(plan):
        where: Any = np.s_[start:stop:step, column:]
        if with_mask:  # by h5py: everything is packed before
            where = np.zeros((ROWS, COLUMNS), bool)
            where[min(start, ROWS - 1), column] = True
        allocation.handle[where] = expected[where] = number
    assert (allocation.handle[...] == expected).all()
    allocation.seal()
    assert (in_file(stage) == expected).all()


@pytest.mark.parametrize("method", ["put", "write", "read", "check"])
def test_an_error_beside_the_array_is_not_forgotten(
    stage: FolderStage, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(*_: Any) -> Any:
        raise WarehouseFull("no space")

    allocation, array = allocate(stage), numbers()
    with monkeypatch.context() as patch:
        patch.setattr(unpacked.UnpackedChunks, method, fail)
        with pytest.raises(WarehouseFull):
            for start in range(0, ROWS, 8):
                allocation.handle[start : start + 8] = array[start : start + 8]
            allocation.seal()
    with pytest.raises(WarehouseFull, match="no space"):
        allocation.seal()
    allocation.discard()


@pytest.mark.parametrize("method", ["put", "read", "drop", "check"])
def test_what_stops_a_program_between_two_places_is_not_forgotten(
    stage: FolderStage, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """As an exception that another thread sets, which no signal handler can hold back."""

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    allocation, array = allocate(stage), numbers()
    with monkeypatch.context() as patch:
        patch.setattr(unpacked.UnpackedChunks, method, stop)
        with pytest.raises(KeyboardInterrupt):
            for start in range(0, ROWS, 8):
                allocation.handle[start : start + 8] = array[start : start + 8]
            allocation.seal()
    with pytest.raises(WarehouseError, match="interrupted by KeyboardInterrupt while it was written"):
        allocation.seal()
    allocation.discard()


class CtrlC:
    """Sends SIGINT once, at the n-th call in the modules that pack; counts them."""

    FILES = (packing.__file__, unpacked.__file__, packed_datasets.__file__)

    def __init__(self, n: int) -> None:
        self._n = n
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename in self.FILES and event in ("call", "c_return"):
            self.calls += 1
            if self.calls == self._n:
                signal.raise_signal(signal.SIGINT)


def write_on(handle: Any, array: Any, ctrl_c: CtrlC) -> int:
    """Write rows, in part by a mask, across them and whole; how many writes were interrupted, and done again."""
    interrupted = 0
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[::7, 3] = True
    for where in [*(np.s_[start : start + 32] for start in range(0, ROWS, 32)), mask, np.s_[40:44], np.s_[:, 8:12]]:
        sys.setprofile(ctrl_c)
        try:
            handle[where] = array[where]
        except KeyboardInterrupt:
            sys.setprofile(None)
            interrupted += 1
            handle[where] = array[where]
        finally:
            sys.setprofile(None)
    return interrupted


@pytest.mark.parametrize("cores", [1, 2])
def test_ctrl_c_that_is_caught_costs_nothing_of_earlier_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(packing, "_cores", lambda: cores)
    array, n, interrupted = numbers(), 1, 0
    while True:
        stage = FolderStage(str(tmp_path / str(n)))
        os.mkdir(stage.folder)
        allocation, ctrl_c = allocate(stage), CtrlC(n)
        interrupted += write_on(allocation.handle, array, ctrl_c)
        allocation.seal()
        assert (in_file(stage) == array).all(), n
        if ctrl_c.calls < n:
            break
        n += 37
    assert interrupted > 10


def test_a_disk_that_did_not_keep_them_is_told(stage: FolderStage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    allocation, array = allocate(stage), numbers()
    for start in range(0, ROWS, 8):
        allocation.handle[start : start + 8] = array[start : start + 8]
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(WarehouseError, match="can't be written: Input/output error"):
        allocation.seal()
    allocation.discard()

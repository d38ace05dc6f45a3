"""HDF arrays in whole plants: damage, full disks, kept datasets, and how much memory they take."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.errors import BadRequest, DamagedObject, PayloadMissing, WarehouseError, WarehouseFull

ROWS, COLUMNS = 3000, 1024  # three logical blocks


def rows(start: int, stop: int) -> Any:
    return np.arange(start * COLUMNS, stop * COLUMNS, dtype="f4").reshape(-1, COLUMNS)


@ReactorFunc
def make_field(pipe: Any) -> Any:
    field = pipe.allocate("field", specs.HdfArraySpec, shape=(ROWS, COLUMNS), dtype="f4")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda start: write_rows(field, start), range(0, ROWS, 700)))
    pipe.send("field", field)


def write_rows(field: Any, start: int) -> None:
    stop = min(start + 700, ROWS)
    field[start:stop] = rows(start, stop)


@ReactorFunc
def make_packed(pipe: Any) -> Any:
    pipe.send("packed", packed(pipe.allocate("packed", specs.HdfArraySpec, shape=(ROWS, COLUMNS), compression="lzf")))


def packed(dataset: Any) -> Any:
    dataset[:] = rows(0, ROWS)
    return dataset


def damage(folder: Path, position: int) -> None:
    (path,) = folder.glob("plant/objects/*/*/data.h5")
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x40]))


@pytest.mark.parametrize("position", [100, 5000, 9 << 20], ids=["head", "first block", "last block"])
@pytest.mark.parametrize("way", ["slices", "map", "numpy"])
def test_a_damaged_array_is_made_again(open_plant: Callable[..., Any], tmp_path: Path, position: int, way: str) -> None:
    with open_plant(make_field) as plant:
        plant.produce("field")
    damage(tmp_path, position)
    with open_plant(make_field, reader(way)) as plant:
        assert plant.produce("sums") == [float(rows(r, r + 1).sum(dtype="f8")) for r in range(0, ROWS, 500)]
        assert plant.log.take().count("make_field") == 1


def reader(way: str) -> Any:
    @ReactorFunc(name="read")
    def read(pipe: Any) -> Any:
        field = yield pipe.receive("field", as_="numpy" if way == "numpy" else None)
        whole = field.mapped() if way == "map" else field
        pipe.send("sums", [float(whole[row].sum(dtype="f8")) for row in range(0, ROWS, 500)])
        assert len(whole[0 : ROWS : ROWS - 1]) == 2

    return read


def test_a_map_that_nobody_settles_is_checked_first(open_plant: Callable[..., Any], tmp_path: Path) -> None:
    """One that is made after `produce` or after the run, or in another process."""
    kept = []

    @ReactorFunc
    def keep(pipe: Any) -> Any:
        kept.append((yield pipe.receive("field")))

    with open_plant(make_field) as plant:
        plant.produce("field")
    damage(tmp_path, 9 << 20)
    with open_plant(make_field, keep) as plant:
        produced = plant.produce("field")
        plant.run_reactor(keep)
        elsewhere = pickle.loads(pickle.dumps(produced))
        held = (produced, kept[0], elsewhere)
        assert all(np.array_equal(dataset[:7], rows(0, 7)) for dataset in held)
        for dataset in held:  # the first one that notices has it put aside, so that the next finds nothing to map
            with pytest.raises(PayloadMissing if dataset is kept[0] else DamagedObject, match="is gone|its checksum"):
                dataset.mapped()
            with pytest.raises(DamagedObject, match="does not match its checksum\n.*produce it once more"):
                dataset[-1]
        assert np.array_equal(plant.produce("field").mapped(), rows(0, ROWS))


def test_a_dataset_in_another_process_is_mapped_and_sent_on(open_plant: Callable[..., Any]) -> None:
    with open_plant(make_field, make_packed) as plant:
        field, chunked = (pickle.loads(pickle.dumps(plant.produce(name))) for name in ("field", "packed"))
    assert np.array_equal(field.mapped(writable=True), rows(0, ROWS))
    assert np.array_equal(chunked[...], rows(0, ROWS))


def test_a_damaged_chunk_is_never_returned(open_plant: Callable[..., Any], tmp_path: Path) -> None:
    with open_plant(make_packed) as plant:
        plant.produce("packed")
    (path,) = tmp_path.glob("plant/objects/*/*/data.h5")
    damage(tmp_path, os.path.getsize(path) - 2000)
    with open_plant(make_packed) as plant:
        found = plant.produce("packed")
        with pytest.raises(DamagedObject, match="does not match its checksum\n.*produce it once more"):
            found[...]
        with pytest.raises(DamagedObject):  # HDF5 does not keep what it has made of it
            found[...]
        assert np.array_equal(plant.produce("packed")[...], rows(0, ROWS))


def test_a_kept_dataset_outlives_newer_versions_and_collection(open_plant: Callable[..., Any]) -> None:
    kept = {}
    for version in range(2):

        @ReactorFunc(name="make", version=str(version))
        def make(pipe: Any) -> Any:
            pipe.send("x", np.full((700, 1000), version, "f4"), specs.HdfArraySpec)  # noqa: B023

        with open_plant(make) as plant:
            kept[version] = plant.produce("x")
            former = plant.produce("x").mapped()
    with open_plant(make) as plant:
        plant.gc(max_size=0)
    assert kept[0][699, 5] == 0 and kept[1][699, 5] == former[3, 4] == 1


def test_equal_content_has_one_digest_in_whichever_order_it_was_written(open_plant: Callable[..., Any]) -> None:
    @ReactorFunc
    def backwards(pipe: Any) -> Any:
        field = pipe.allocate("backwards", specs.HdfArraySpec, shape=(ROWS, COLUMNS), dtype="f4")
        for start in range(ROWS - 100, -1, -100):
            field[start : start + 100] = rows(start, start + 100)
        pipe.send("backwards", field)

    @ReactorFunc
    def at_once(pipe: Any) -> Any:
        pipe.send("at_once", rows(0, ROWS), specs.HdfArraySpec)

    with open_plant(make_field, backwards, at_once) as plant:
        for name in ("field", "backwards", "at_once"):
            plant.produce(name)
        digests = {plant.warehouse.last_ref(name).digest for name in ("field", "backwards", "at_once")}
        assert len(digests) == 1


def test_bad_requests(open_plant: Callable[..., Any], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        mine = file.create_dataset("x", data=np.arange(6.0).reshape(2, 3))

        @ReactorFunc
        def careless(pipe: Any) -> Any:
            mistakes = []
            first, second = (pipe.allocate(n, specs.HdfArraySpec, shape=(2, 3)) for n in ("first", "second"))
            for mistake in (
                lambda: first.__setitem__(0, np.zeros(5)),
                lambda: first.__setitem__((), "text"),
                lambda: first.resize((3, 3)),
                lambda: pipe.send("first", second),
                lambda: pipe.send("first", np.zeros((2, 3))),
                lambda: first.mapped(),
            ):
                with pytest.raises(BadRequest) as caught:
                    mistake()
                mistakes.append(str(caught.value))
            first[...] = 1
            pipe.send("first", first)
            with pytest.raises(BadRequest, match="read-only"):
                first[0] = 2
            second[...] = first[...]
            pipe.send("second", second)
            pipe.send("copy", mine)  # a dataset of one's own is copied
            pipe.send("mistakes", mistakes)

        with open_plant(careless) as plant:
            assert len(set(plant.produce("mistakes"))) == 5
            assert plant.produce("first")[...].sum() == plant.produce("second").mapped().sum() == 6
            assert plant.produce("copy")[1].tolist() == [3, 4, 5]


@pytest.fixture
def small_disk(new_disk: Callable[[str], Path]) -> Path:
    return new_disk("40m")


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    """Two arrays have room one by one, not together."""
    full = []

    @ReactorFunc
    def greedy(pipe: Any) -> Any:
        arrays = [pipe.allocate(name, specs.HdfArraySpec, shape=(5, 1 << 20)) for name in ("one", "two")]
        with pytest.raises(WarehouseFull, match=r"no space to write 800,000,000 bytes.*bytes are free"):
            pipe.allocate_temp(specs.HdfArraySpec, shape=(200, 1000, 1000))
        for array in arrays:
            for row in range(5):
                array[row] = row
        full.append(False)

    @ReactorFunc
    def modest(pipe: Any) -> Any:
        pipe.send("kept", np.arange(100_000.0), specs.HdfArraySpec)

    with Plant(small_disk / "plant", durability="process") as plant:
        plant.add_reactors(greedy, modest)
        assert plant.produce("kept")[5] == 5
        with pytest.raises(WarehouseFull, match="No space left on device"):
            plant.run_reactor(greedy)
        assert plant.produce("kept")[6] == 6 and full == []
    with Plant(small_disk / "plant", durability="process") as plant:
        plant.add_reactors(modest)
        assert plant.produce("kept")[7] == 7
        assert [problem for problem in plant.warehouse.check() if not problem.harmless] == []


MEMORY = """
import sys, numpy as np
from pyplantx import *

def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

peak = 0

def look():
    global peak
    peak = max(peak, private())

@ReactorFunc
def fill(pipe):
    field = pipe.allocate("field", specs.HdfArraySpec, shape=(96, 1 << 20), dtype="f4")
    for row in range(0, 96, 4):
        field[row : row + 4] = np.full((4, 1 << 20), row, "f4")
        look()
    field[0] = np.ones(1 << 20)  # of another dtype
    field[:, ::2] = 3
    look()
    pipe.send("field", field)
    look()
    for row in range(0, 96, 4):
        field[row : row + 4].sum()
    look()

base = private()
with Plant(sys.argv[1], durability="process") as plant:
    plant.add_reactors(fill)
    plant.produce("field")
print(peak - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_private_memory(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 64


def test_a_checkpoint_on_a_full_disk(small_disk: Path) -> None:
    @ReactorFunc
    def greedy(pipe: Any) -> Any:
        for number in range(4):
            pipe.checkpoint("state", np.full(3 << 20, number, "f8"))
        pipe.send("done", True)

    with Plant(small_disk / "plant", durability="process") as plant:
        plant.add_reactors(greedy)
        with pytest.raises(WarehouseFull, match="checkpoint can.t be kept"):
            plant.produce("done")


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (2,)}, {"compression": "gzip"}, {"compression": "lzf"}],
    ids=["raw", "chunked", "packed", "lzf"],
)
def test_scratch_space_that_is_looked_at_after_the_end_says_so(open_plant: Callable[..., Any], options: Any) -> None:
    kept = []

    @ReactorFunc
    def careless(pipe: Any) -> None:
        kept.append(pipe.allocate_temp(specs.HdfArraySpec, shape=(6,), **options))
        kept[-1][:] = 5
        pipe.send("done", 1)

    with open_plant(careless) as plant:
        plant.produce("done")
    for look in (lambda: kept[0][...], lambda: kept[0][1:3], lambda: kept[0][[1, 2]], lambda: np.asarray(kept[0])):
        with pytest.raises(WarehouseError, match=r"gone with the reactor that allocated it\n  hint: pipe.send"):
            look()
    with pytest.raises(BadRequest if options else WarehouseError):
        kept[0].mapped()


@pytest.mark.parametrize(("length", "region"), [(8, np.s_[:]), (16, np.s_[::2])])
def test_copying_a_dataset_is_a_look_at_it(tmp_path: Path, length: int, region: slice) -> None:
    """In a loop over it something may wait to be written, which the copy has to have."""

    @ReactorFunc
    def copies(pipe: Any) -> None:
        source = pipe.allocate("source", specs.HdfArraySpec, shape=(8, 4))
        copy = pipe.allocate("copy", specs.HdfArraySpec, shape=(length, 4))
        looked: list[bool] = []
        source.watchers += (looked.append,)
        copy[region] = source
        assert looked == [False]
        pipe.send("source", source)
        pipe.send("copy", copy)

    with Plant(tmp_path / "plant") as plant:
        plant.run_reactor(copies)

"""Zarr arrays of a plant in other processes: what they read there is checked there."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyplantx import ReactorFunc, specs
from pyplantx.errors import DamagedObject, PayloadMissing, WarehouseError

np = pytest.importorskip("numpy")
pytest.importorskip("zarr", minversion="3")

VALUES = np.arange(3000.0)

#: Reads an array that it is given, and says what it meets.
READER = """
import pickle, sys
array = pickle.load(open(sys.argv[1], "rb"))
print(array[:1000].sum())
try:
    print(array[2500])
except Exception as error:
    print(type(error).__name__)
"""


@ReactorFunc
def make(pipe: Any) -> None:
    field = pipe.allocate("field", specs.ZarrArraySpec, shape=3000, dtype="f8", chunks=1000)
    field[:] = VALUES
    pipe.send("field", field)


def chunk(directory: Path, name: str) -> Path:
    (path,) = directory.glob(f"objects/*/*/{name}")
    return path


def damage(path: Path) -> None:
    """One bit in the middle, the times as they were."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_an_array_is_read_and_sent_on_elsewhere(open_plant: Callable[..., Any]) -> None:
    with open_plant(make) as plant:
        once = pickle.loads(pickle.dumps(plant.produce("field")))
    twice = pickle.loads(pickle.dumps(once))
    assert np.array_equal(once[...], VALUES) and np.array_equal(twice[...], VALUES)


def test_damage_is_found_in_the_other_process(open_plant: Callable[..., Any], tmp_path: Path) -> None:
    with open_plant(make) as plant:
        (tmp_path / "array").write_bytes(pickle.dumps(plant.produce("field")))
        damage(chunk(Path(plant.plant_dir), "c.2"))
    ran = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path / "array")], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [str(VALUES[:1000].sum()), "DamagedObject"]


def test_a_head_that_was_altered_is_refused_there(open_plant: Callable[..., Any]) -> None:
    with open_plant(make) as plant:
        array = pickle.dumps(plant.produce("field"))
        damage(chunk(Path(plant.plant_dir), "zarr.json"))
    with pytest.raises(DamagedObject, match="does not match its checksum"):
        pickle.loads(array)


def test_a_chunk_that_is_gone_is_no_zeros(open_plant: Callable[..., Any]) -> None:
    with open_plant(make) as plant:
        array = pickle.loads(pickle.dumps(plant.produce("field")))
        chunk(Path(plant.plant_dir), "c.1").unlink()
        with pytest.raises(PayloadMissing):
            array[1500]
        assert array[2500] == 2500


def test_scratch_space_that_is_looked_at_after_the_end_is_no_zeros(open_plant: Callable[..., Any]) -> None:
    kept = []

    @ReactorFunc
    def careless(pipe: Any) -> None:
        kept.append(pipe.allocate_temp(specs.ZarrArraySpec, shape=6))
        kept[0][:] = 5
        pipe.send("done", 1)

    @ReactorFunc
    def misled(pipe: Any) -> None:
        pipe.send("fives", kept[0])

    with open_plant(careless, misled) as plant:
        plant.produce("done")
        for look in (lambda: kept[0][...], lambda: np.asarray(kept[0]), lambda: plant.produce("fives")):
            with pytest.raises(WarehouseError, match=r"gone with the reactor that allocated it\n  hint: pipe.send"):
                look()


def test_an_array_that_the_store_has_already_is_read_after_it_was_sent(open_plant: Callable[..., Any]) -> None:
    with open_plant(make) as plant:
        plant.produce("field")

    @ReactorFunc
    def again(pipe: Any) -> None:
        field = pipe.allocate("same", specs.ZarrArraySpec, shape=3000, dtype="f8", chunks=1000)
        field[:] = VALUES
        pipe.send("same", field)
        pipe.send("sum", float(field[...].sum()))

    with open_plant(again) as plant:
        assert plant.produce("sum") == VALUES.sum()

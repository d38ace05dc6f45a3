"""A byte of a stored array changes between two processes: nobody ever gets a wrong value."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.errors import BadRequest, DamagedObject, PayloadMissing, ReactorError
from pyplantx.fingerprint.value import BLOCK

PROGRAM = """
import json, sys
import numpy as np
from pyplantx import Plant, ReactorFunc, specs
{imports}

ELEMENTS = 3 << 19  # of 8 bytes: three logical blocks

@ReactorFunc
def make(pipe):
    values = np.arange(ELEMENTS, dtype="f8")
{make}

@ReactorFunc
def use(pipe):
    value = yield pipe.receive("array")
{use}

if __name__ == "__main__":
    ran = []
    with Plant("plant", durability="process", {options}) as plant:
        plant.add_event_listener(Plant.EventType.reactor_started, lambda kind, name, function: ran.append(name))
        result = plant.produce("result")
    print(json.dumps([ran, result]))
"""

ARRAY = {"imports": "", "make": "    pipe.send('array', values)"}
ALLOCATED = {
    "imports": "from pyplantx import specs",
    "make": "    out = pipe.allocate('array', specs.ArraySpec, shape=values.shape)\n"
    "    out[:] = values\n    pipe.send('array', out)",
}
SPARSE = {
    "imports": "from scipy import sparse",
    "make": "    pointers = np.array([0, ELEMENTS])\n    columns = np.arange(ELEMENTS)\n"
    "    pipe.send('array', sparse.csr_array((values, columns, pointers), shape=(1, ELEMENTS)))",
}
HDF = {
    "imports": "from pyplantx import specs",
    "make": "    out = pipe.allocate('array', specs.HdfArraySpec, shape=values.shape, dtype='f8')\n"
    "    out[:] = values\n    pipe.send('array', out)",
}
USE = "    pipe.send('result', float(value.sum()) * {factor})"
RIGHT = sum(range(3 << 19))


class Project:
    """A folder with one program; each run is a process."""

    def __init__(self, folder: Path, kind: dict[str, str], options: str = "") -> None:
        self.folder, self.kind, self.options = folder, kind, options
        self.environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, use: str) -> tuple[list[str], float]:
        (self.folder / "program.py").write_text(PROGRAM.format(**self.kind, use=use, options=self.options))
        done = subprocess.run(
            [sys.executable, "program.py"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ran, result = json.loads(done.stdout)
        return ran, result

    def damage(self, part: str, position: int) -> None:
        """Change one byte of a stored part."""
        (path,) = self.folder.glob(f"plant/objects/*/*/{part}")
        path.chmod(0o600)
        with open(path, "r+b") as file:
            file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x40]))

    def put_aside(self) -> int:
        return len(list(self.folder.glob("plant/quarantine/*")))


@pytest.mark.parametrize("verify", ["lazy", "always"])
@pytest.mark.parametrize(
    ("kind", "part", "position"),
    [
        (ARRAY, "data.npy", 50),
        (ARRAY, "data.npy", 2000),
        (ARRAY, "data.npy", -1),
        (ALLOCATED, "data.npy", BLOCK + 3),
        (SPARSE, "data.npy", 2 * BLOCK),
        (SPARSE, "indices.npy", 2 * BLOCK),
    ],
)
def test_an_edited_consumer_gets_the_right_value(
    tmp_path: Path, kind: dict[str, str], part: str, position: int, verify: str
) -> None:
    project = Project(tmp_path, kind, f"verify={verify!r}")
    assert project.run(USE.format(factor=1)) == (["use", "make"], RIGHT)
    assert project.run(USE.format(factor=2)) == (["use"], 2 * RIGHT)
    project.damage(part, position)
    ran, result = project.run(USE.format(factor=3))
    assert result == 3 * RIGHT and set(ran) == {"make", "use"} and ran.count("make") == 1
    assert project.put_aside() == 1
    assert project.run(USE.format(factor=3)) == ([], 3 * RIGHT)
    assert project.run(USE.format(factor=4)) == (["use"], 4 * RIGHT)


RAISES = """
    total = float(value.sum())
    if total != sum(range(ELEMENTS)):
        raise ValueError("these are not the numbers that I know")
    pipe.send('result', total * {factor})
"""


@pytest.mark.parametrize("kind", [ARRAY, SPARSE])
def test_a_consumer_that_fails_because_of_damage_runs_again(tmp_path: Path, kind: dict[str, str]) -> None:
    project = Project(tmp_path, kind)
    project.run(RAISES.format(factor=1))
    project.damage("data.npy", -1)
    ran, result = project.run(RAISES.format(factor=2))
    assert (result, ran.count("make"), project.put_aside()) == (2 * RIGHT, 1, 1)


def test_without_checks_the_wrong_value_is_the_users_choice(tmp_path: Path) -> None:
    project = Project(tmp_path, ARRAY, "verify='off'")
    project.run(USE.format(factor=1))
    project.damage("data.npy", -1)
    ran, result = project.run(USE.format(factor=2))
    assert ran == ["use"] and result != 2 * RIGHT


PIECES = """
    pipe.send('result', {factor} * sum(float(value[at:at + 100_000].sum()) for at in range(0, ELEMENTS, 100_000)))
"""


@pytest.mark.parametrize("position", [3, BLOCK, -1])
def test_a_dataset_is_checked_as_it_is_read(tmp_path: Path, position: int) -> None:
    project = Project(tmp_path, HDF)
    project.run(PIECES.format(factor=1))
    project.damage("data.h5", position)
    ran, result = project.run(PIECES.format(factor=2))
    assert (result, ran.count("make"), project.put_aside()) == (2 * RIGHT, 1, 1)


EARLY = """
    pipe.send('early', float(value.sum()))
    other = yield pipe.receive('doubled')
    pipe.send('result', other * {factor})

@ReactorFunc
def double(pipe):
    pipe.send('doubled', 2 * (yield pipe.receive('early')))
"""


def test_what_was_sent_early_from_damaged_input_is_sent_again(tmp_path: Path) -> None:
    project = Project(tmp_path, ARRAY)
    project.run(EARLY.format(factor=1))
    project.damage("data.npy", -1)
    ran, result = project.run(EARLY.format(factor=3))
    assert result == 6 * RIGHT and ran.count("make") == 1


def damage(folder: Path, part: str = "data.npy") -> None:
    (path,) = folder.glob(f"plant/objects/*/*/{part}")
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 0x40]))


def declare_array() -> Any:
    import numpy as np

    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("array", np.arange(3 << 19, dtype="f8"))

    return make


def test_whoever_asks_from_outside_waits_for_the_check(open_plant: Callable[..., Any], tmp_path: Path) -> None:
    make = declare_array()
    with open_plant(make) as plant:
        plant.produce("array")
    damage(tmp_path)
    with open_plant(make) as plant:
        assert plant.produce("array").sum() == RIGHT
        assert plant.log.take() == ["make"]
    damage(tmp_path)
    with open_plant(make) as plant, pytest.raises(PayloadMissing, match="damaged"):
        plant.fetch_ingredient("array")


def test_an_array_that_is_kept_outlives_its_file(open_plant: Callable[..., Any]) -> None:
    import numpy as np

    kept: list[Any] = []

    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("array", np.full(3 << 19, float(pipe.read_config("value"))))

    @ReactorFunc
    def keep(pipe: Any) -> Any:
        array = yield pipe.receive("array")
        kept.append(array[5:])

    for value in range(4):
        with open_plant(make, keep, config={"value": value}) as plant:
            plant.run_reactor(keep)
    with open_plant(make, keep, config={"value": 3}) as plant:
        for path in list((Path(plant.warehouse.directory) / "objects").glob("*/*/data.npy")):
            path.unlink()  # what collecting old versions comes to
    for value, array in enumerate(kept):
        assert (array == value).all()
        array[0] = -1.0  # still private, and writable


@pytest.mark.parametrize("wrong", ["sometimes", "", "LAZY"])
def test_a_wrong_choice_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(BadRequest, match="verify="):
        Plant(tmp_path / "plant", verify=wrong)


def test_damage_that_comes_back_is_an_error(open_plant: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    make = declare_array()

    @ReactorFunc
    def use(pipe: Any) -> Any:
        pipe.send("sum", float((yield pipe.receive("array")).sum()))

    with open_plant(make) as plant:
        plant.produce("array")
    with open_plant(make, use) as plant:
        with monkeypatch.context() as patched, pytest.raises(ReactorError, match="damaged"):
            patched.setattr(plant.warehouse, "settle", lambda receipts: [receipt.address for receipt in receipts])
            patched.setattr("pyplantx.warehouse.verify.PartCheck.is_whole", False)
            plant.produce("sum")
        assert plant.log.take() == ["use"] * 3
        assert "damaged" in plant.why(use).reason
        assert plant.produce("sum") == RIGHT


def test_a_reactors_own_error_stays_its_own(open_plant: Callable[..., Any]) -> None:
    make = declare_array()

    @ReactorFunc
    def use(pipe: Any) -> Any:
        yield pipe.receive("array")
        raise DamagedObject("not one of the files that it was given")

    with open_plant(make, use) as plant:
        with pytest.raises(DamagedObject, match="not one of"):
            plant.run_reactor(use)
        assert plant.log.take() == ["use", "make"]


@pytest.mark.parametrize("how", ["truncated", "removed"])
def test_a_part_that_is_opened_late_is_made_again(open_plant: Callable[..., Any], tmp_path: Path, how: str) -> None:
    """The chunks of a Zarr array are opened when they are read, long after the array was received."""
    pytest.importorskip("zarr")
    content = np.arange(60_000, dtype="f4").reshape(300, 200)

    @ReactorFunc
    def make(pipe: Any) -> None:
        array = pipe.allocate("zarr", specs.ZarrArraySpec, shape=content.shape, dtype="f4")
        array[:] = content
        pipe.send("zarr", array)

    @ReactorFunc
    def use(pipe: Any) -> Any:
        array = yield pipe.receive("zarr")
        pipe.send("part", float(array[5:200].sum(dtype="f8")))

    with open_plant(make) as plant:
        plant.produce("zarr")
    (chunk,) = (tmp_path / "plant" / "objects").glob("*/*/c*")
    chunk.parent.chmod(0o700)
    chunk.chmod(0o600)
    if how == "removed":
        chunk.unlink()
    else:
        os.truncate(chunk, 100)
    with open_plant(make, use) as plant:
        assert plant.produce("part") == content[5:200].sum(dtype="f8")
        assert plant.log.take().count("make") == 1
        assert plant.warehouse.check() == []


@pytest.mark.parametrize("reads", ["inside", "outside"])
@pytest.mark.parametrize("spec", [specs.HdfArraySpec, specs.ZarrArraySpec], ids=["hdf", "zarr"])
def test_damage_that_the_script_meets_is_made_good(
    open_plant: Callable[..., Any], tmp_path: Path, spec: Any, reads: str
) -> None:
    """The script reads what `produce` has given it, long after everything was settled: with the plant, or without."""
    if spec is specs.ZarrArraySpec:
        pytest.importorskip("zarr")
    content = np.arange(600_000, dtype="f4").reshape(3000, 200)  # beyond what is checked at once

    @ReactorFunc
    def make(pipe: Any) -> None:
        array = pipe.allocate("field", spec, shape=content.shape, dtype="f4")
        array[:] = content
        pipe.send("field", array)

    with open_plant(make) as plant:
        plant.produce("field")
    path = max((tmp_path / "plant" / "objects").glob("*/*/*"), key=lambda path: path.stat().st_size)
    flip(path, path.stat().st_size // 2)
    with open_plant(make) as plant:
        field = plant.produce("field")
        if reads == "inside":
            with pytest.raises(DamagedObject, match="checksum"):
                field[...]
            assert np.array_equal(plant.produce("field")[...], content)
    if reads == "outside":
        with pytest.raises(DamagedObject, match="checksum"):
            field[...]
    assert len(list((tmp_path / "plant" / "quarantine").iterdir())) == 1
    with open_plant(make) as plant:
        plant.log.take()
        assert np.array_equal(plant.produce("field")[...], content)
        assert plant.log.take() == (["make"] if reads == "outside" else [])
        assert plant.warehouse.check() == []


def flip(path: Path, position: int) -> None:
    """Change one byte of a file."""
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 4]))

"""A store that is written by one Python and read by another: no crash, nothing wrong.

    python -m tests.faults.versions /path/to/python3.13        both ways, with the Python that runs this
    python -m tests.faults.versions /path/to/python3.13 --broken believed_code          (must fail)

The other Python needs the libraries of the package; zarr is used if it has that, too. Payloads without code are found
by both; what holds code (a pickled function of the program itself) belongs to the Python that wrote it, and is made
again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyplantx import Ingredient, Plant, ReactorFunc
from pyplantx.errors import PayloadMissing
from tests.faults import broken, program
from tests.faults.children import scratch
from tests.faults.verdict import Finding, Tally

ROOT = Path(__file__).parents[2]
SEED = program.SMALL + 1


@ReactorFunc(sends="code")
def make_code(pipe: Any) -> None:
    step = pipe.read_config("seed")
    pipe.send("code", {"function": lambda x: x + step, "numbers": [1, 2.5]}, Ingredient.Type.object)


def use(directory: str) -> None:
    """Whatever is in the store is what it must be, and so is what is made of it here."""
    with program.open_plant(directory, SEED) as plant:
        plant.add_reactors(make_code)
        _look_at_stored(plant)
        for name in program.NAMES:
            assert program.is_right(name, plant.produce(name), (SEED,)), name
        _try_code(plant.produce("code"))
        assert [problem for problem in plant.check() if not problem.harmless] == []


def _look_at_stored(plant: Plant) -> None:
    for name in plant.warehouse.names():
        ref = plant.warehouse.last_ref(name)
        try:
            value = None if ref is None else plant.warehouse.open(ref)
        except PayloadMissing:
            assert name == "code", f"{name} is data, and not found"
            continue
        if name == "code":
            _try_code(value)
        else:
            assert program.is_right(name, value, (SEED,)), name


def _try_code(value: Any) -> None:
    assert value["function"](3) == 3 + SEED and value["numbers"] == [1, 2.5]


def both_ways(other: str, defect: str | None) -> int:
    tally = Tally(f"versions {other}" + (f" broken={defect}" if defect else ""))
    if subprocess.run([other, "-c", "import zarr"], capture_output=True).returncode:
        os.environ[program.NO_ZARR] = "1"
    for way in ((sys.executable, other), (other, sys.executable)):
        with scratch() as place:
            findings = [finding for python in way for finding in _used_by(python, f"{place}/plant", defect)]
            tally.case(" then ".join(way), findings)
    return tally.finish()


def _used_by(python: str, directory: str, defect: str | None) -> list[Finding]:
    command = [python, "-B", "-m", "tests.faults.versions", "--use", directory]
    command += ["--broken", defect] if defect else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    if not done.returncode:
        return []
    kind = "wrong" if "AssertionError" in done.stderr else "unusable"
    return [Finding(kind, f"{python} ended with {done.returncode}: {done.stderr[-2000:]}")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="?", help="the other one")
    parser.add_argument("--use", metavar="DIRECTORY", help=argparse.SUPPRESS)
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    if options.use:
        broken.apply(options.broken)
        use(options.use)
        return 0
    if not options.python:
        parser.error("which other Python?")
    return both_ways(options.python, options.broken)


if __name__ == "__main__":
    raise SystemExit(main())

"""Chains, fan-outs, whole processes and import times, with joblib.Memory and diskcache beside us.

    python benchmarks/run.py [--quick] [--only pyplantx] [--output docs/benchmarks.md]

Each figure comes from fresh processes, the systems taking turns so that a busy moment hits all alike. The
report says minimum and median; compare figures of one report only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import py_compile
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import equivalents

ROOT = Path(__file__).resolve().parent.parent
MEASURE = ROOT / "benchmarks/measure.py"
SYSTEMS = ["pyplantx", "joblib", "diskcache"]
#: The largest N that a system is asked for; beyond, a single figure would take minutes.
LARGEST = {"pyplantx": 100_000, "joblib": 1_000, "diskcache": 100_000}
SIZES = [1_000, 10_000, 100_000]
PHASES = ["cold", "warm", "cold, code known"]
DISK = "disk"
TMPFS = "tmpfs"


class Sample(NamedTuple):
    """One measured process."""

    inside: float  #: seconds from the end of the import to the stored result
    whole: float  #: seconds of the whole process
    steps: int | None


class Figure(NamedTuple):
    """One cell of the report: all samples of one kind."""

    samples: list[Sample]

    def per_step(self, size: int) -> str:
        return spread([sample.inside / size * 1e6 for sample in self.samples])

    def whole(self) -> str:
        return spread([sample.whole * 1e3 for sample in self.samples])


def environment() -> dict[str, str]:
    """Of the children: our package is found, and compiled modules are kept, or each would pay the parser."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT)}


def spread(values: list[float]) -> str:
    low, middle = min(values), statistics.median(values)
    digits = 1 if low < 100 else 0
    return f"{low:,.{digits}f} ({middle:,.{digits}f})"


class Bench:
    """Runs programs in child processes and keeps what they tell.

    Parameters
    ----------
    places : dict
        Kind of storage -> folder to work in.
    systems : list of str
        Which systems to measure.
    repeats : int
        Fresh stores per figure (a third of it for the largest N, at least one).
    """

    def __init__(self, places: dict[str, Path], systems: list[str], repeats: int) -> None:
        self.places = places
        self.systems = systems
        self.repeats = repeats
        self.figures: dict[tuple[str, str, str, int, str], Figure] = {}

    def program(self, system: str, shape: str, size: int, edited: bool = False) -> Path:
        """The program's file, compiled in advance: nobody measures the parser here."""
        folder = self.places[TMPFS] / "programs" / ("edited" if edited else "plain")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{system}_{shape.replace(' ', '_')}_{size}.py"
        if not path.exists():
            path.write_text(equivalents.source(system, shape, size, edited))
            py_compile.compile(str(path), doraise=True)
        return path

    def sample(self, path: Path, seed: int, store: Path, *mode: str) -> tuple[Sample, int]:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(MEASURE), str(path), str(seed), str(store), *mode],
            capture_output=True, text=True, env=environment(),
        )  # fmt: skip
        whole = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{path.name} failed:\n{done.stderr[-3000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        return Sample(told["seconds"], whole, told["steps"]), told["result"]

    def phases(self, system: str, shape: str, size: int, store: Path) -> Iterator[tuple[str, Sample]]:
        """Cold, warm, and cold again with another seed, on one store."""
        path = self.program(system, shape, size)
        for phase, seed in zip(PHASES, (1, 1, 2)):
            sample, result = self.sample(path, seed, store)
            if result != equivalents.expected(shape, size, seed):
                raise SystemExit(f"{system} gave {result} for {shape} of {size} with seed {seed}: wrong")
            yield phase, sample

    def measure(self, shape: str, size: int, place: str) -> None:
        """All phases of one shape and size, the systems in turn."""
        fitting = [system for system in self.systems if size <= LARGEST[system]]
        for _ in range(max(1, self.repeats // (3 if size > 10_000 else 1))):
            for system in fitting:
                store = Path(tempfile.mkdtemp(dir=self.places[place]))
                for phase, sample in self.phases(system, shape, size, store):
                    self.keep((system, shape, place, size, phase), sample)
                shutil.rmtree(store)
        print(f"measured: {shape} of {size:,} on {place}", file=sys.stderr)

    def keep(self, key: tuple[str, str, str, int, str], sample: Sample) -> None:
        self.figures.setdefault(key, Figure([])).samples.append(sample)

    def edit(self, system: str, size: int) -> tuple[Figure, int, bool]:
        """One function of `size` rewritten to the same value: time of the process, steps that ran."""
        plain, edited = self.program(system, "chain", size), self.program(system, "chain", size, edited=True)
        samples, ran = [], 0
        for _ in range(self.repeats):
            for mode in ((), ("count",)):
                store = Path(tempfile.mkdtemp(dir=self.places[TMPFS]))
                self.sample(plain, 1, store)
                sample, _ = self.sample(edited, 1, store, *mode)
                if mode:
                    ran = sample.steps or 0
                else:
                    samples.append(sample)
                shutil.rmtree(store)
        return Figure(samples), ran, ran > 0


#: What is imported, per system; `pyplantx` opens what is used, so all of it is measured, too.
IMPORTS = {
    "pyplantx": ["from pyplantx import *", "from pyplantx import ReactorFunc", "import pyplantx"],
    "joblib": ["import joblib"],
    "diskcache": ["import diskcache"],
}


def import_times(systems: list[str], repeats: int) -> dict[str, str]:
    """Milliseconds that an import adds to a bare interpreter, taking turns with it."""
    lines = ["", *[line for system in systems for line in IMPORTS[system]]]
    times: dict[str, list[float]] = {line: [] for line in lines}
    for _ in range(repeats * 3):
        for line, kept in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True, env=environment())
            kept.append((time.perf_counter() - start) * 1e3)
    bare = times.pop("")
    return {
        line: f"{min(kept) - min(bare):.1f} ({statistics.median(kept) - statistics.median(bare):.1f})"
        for line, kept in times.items()
    }


# --- the report ----------------------------------------------------------------------------------


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows), ""]


def shape_table(bench: Bench, shape: str, place: str) -> list[str]:
    sizes = sorted({key[3] for key in bench.figures if key[1:3] == (shape, place)})
    rows = []
    for size in sizes:
        for phase in PHASES:
            figures = [bench.figures.get((system, shape, place, size, phase)) for system in bench.systems]
            rows.append([f"{size:,}", phase, *(figure.per_step(size) if figure else "–" for figure in figures)])
    if not rows:
        return []
    return [f"### {shape} on {place}, µs per step", "", *table(["N", "phase", *bench.systems], rows)]


def process_table(bench: Bench) -> list[str]:
    size = min(key[3] for key in bench.figures)
    rows = []
    for phase in PHASES[:2]:
        figures = [bench.figures.get((system, "chain", TMPFS, size, phase)) for system in bench.systems]
        rows.append([phase, *(figure.whole() if figure else "–" for figure in figures)])
    return [f"### Whole process, chain of {size:,} on tmpfs, ms", "", *table(["phase", *bench.systems], rows)]


def edit_table(bench: Bench) -> list[str]:
    rows = []
    for system in bench.systems:
        figure, ran, noticed = bench.edit(system, SIZES[0])
        rows.append([system, str(ran) if noticed else "0 (stale: the edit is not noticed)", figure.whole()])
    head = ["", "steps run", "process, ms"]
    return ["### One of 1,000 functions rewritten to the same value", "", *table(head, rows)]


def import_table(bench: Bench) -> list[str]:
    times = import_times(bench.systems, bench.repeats)
    rows = [[f"`{line}`", figure] for line, figure in times.items()]
    return ["### Import, ms above a bare interpreter", "", *table(["", "ms"], rows)]


def version(name: str) -> str:
    """Version of a system, as it is measured here."""
    code = f"import {name}; print({name}.__version__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return done.stdout.strip()


def preface(bench: Bench) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in bench.systems)
    return [
        "# Benchmarks",
        "",
        f"{datetime.date.today()}, CPython {platform.python_version()}, {os.cpu_count()} CPUs, {versions}.",
        f"Written by `make bench`; minimum (median) of {bench.repeats} fresh processes on fresh stores, fewer at",
        "N = 100,000.",
        "Compare figures within this page only: another machine, or the same one at another hour, gives others.",
        "",
        "The programs are equivalent (`benchmarks/equivalents.py`): N distinct functions, each of which makes one",
        "small integer out of another. The clock runs from the end of the import, the functions' module included,",
        "to the stored result. *Cold*: an empty store. *Warm*: nothing has changed. *Cold, code known*: another",
        "seed, so every value is new and every function is known. In a chain with helpers each step calls a function",
        "of its own, which reads a constant of the module. What the systems promise differs: pyplantx checks",
        "the code that each function reaches and each config value that it read, and its `with` block ends when all",
        "is synced to the disk; joblib checks each function's own source; diskcache checks no code. Neither of the",
        "two syncs. A dash: not measured, one figure would take minutes.",
        "",
    ]


def report(bench: Bench) -> str:
    lines = preface(bench)
    for shape in (equivalents.CHAIN, equivalents.FAN, equivalents.HELPERS):
        for place in (TMPFS, DISK):
            lines += shape_table(bench, shape, place)
    return "\n".join(lines + process_table(bench) + edit_table(bench) + import_table(bench)).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="N = 1,000 only, three repeats")
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="measure this system only (repeatable)")
    parser.add_argument("--sizes", type=int, nargs="+", help="the N to measure")
    parser.add_argument("--output", type=Path, help="also write the report here")
    arguments = parser.parse_args()

    sizes = arguments.sizes or (SIZES[:1] if arguments.quick else SIZES)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as fast, tempfile.TemporaryDirectory(dir=ROOT / "benchmarks") as slow:
        bench = Bench({TMPFS: Path(fast), DISK: Path(slow)}, arguments.only or SYSTEMS, 3 if arguments.quick else 5)
        for size in sizes:
            for shape in (equivalents.CHAIN, equivalents.FAN):
                bench.measure(shape, size, TMPFS)
            if size <= 10_000:
                bench.measure(equivalents.HELPERS, size, TMPFS)
            bench.measure("chain", size, DISK)
        text = report(bench)
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

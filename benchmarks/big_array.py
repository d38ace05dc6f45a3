"""One large array, made by a reactor and summed by another: how long, and how much private memory.

    python benchmarks/big_array.py [--size GIB] [--repeat N] [--folder FOLDER]

Each figure is of a process of its own, from the end of its imports (pyplantx, numpy) to the end of its ``with Plant``
block, in seconds; the least of several runs, but the middle one where something is synced. *cold* makes the array and
sums it; *consumer edited* sums it again after an edit of the summing reactor; *no-op* finds that nothing is to be done.

*physical* is what no library can avoid: fill, write, hash, sum by hand, once in one thread and once with two that write
and hash; measured in the same run, since disks differ from minute to minute. Its *consumer edited* maps the file and
sums it. *and checked* hashes it meanwhile in a second thread, and then in both, as must be done by whoever lets no
damaged byte pass: both need all of the memory's bandwidth.

Between imports and clock all programs rest for a moment: NumPy's OpenBLAS starts a thread that spins for a tenth of a
second before it first sleeps. Until then it takes one of two processors, and what is done beside the sum is done after
it: all of these figures, but not those of one thread, would be too high by that.

Memory is what the process had at most for itself (RssAnon, sampled), above what its imports took; mapped files don't
count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE_EVERY = 0.005  # seconds between two looks at the memory of a process
REST = 0.3  # seconds until the threads that imports have started sleep

PRELUDE = """
import json, os, sys, time
import numpy as np
import xxhash
COUNT, STORE = int(sys.argv[1]), sys.argv[2]
BLOCK = 4 << 20

def measured(work):
    print("imported", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    result = work()
    print(json.dumps([time.perf_counter() - begin, result]), flush=True)
"""

PLANT = (
    PRELUDE
    + """
from pyplantx import Plant, ReactorFunc, specs

@ReactorFunc
def make(pipe):
{make}

@ReactorFunc
def use(pipe):
    array = yield pipe.receive("array")
    pipe.send("sum", float(array.sum()) + {edit})

def work():
    with Plant(STORE, durability={durability!r}) as plant:
        return plant.produce("sum") - {edit}

measured(work)
"""
)
SENT = "    pipe.send('array', np.full(COUNT, 1.5))"
ALLOCATED = """    out = pipe.allocate('array', specs.ArraySpec, shape=(COUNT,))
    for start in range(0, COUNT, 1 << 19):
        out[start:start + (1 << 19)] = 1.5
    pipe.send('array', out)"""

PHYSICAL = (
    PRELUDE
    + """
from concurrent.futures import ThreadPoolExecutor

def work():
    array = np.full(COUNT, 1.5)
    view = memoryview(array).cast("B")
    os.makedirs(STORE)
    fd = os.open(os.path.join(STORE, "file"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def write(start):
        piece = view[start:start + BLOCK]
        os.pwrite(fd, piece, start)
        return xxhash.xxh3_128_hexdigest(piece)

    with ThreadPoolExecutor({threads}) as pool:
        digests = list(pool.map(write, range(0, len(view), BLOCK)))
    if {durability!r} == "power":
        os.fsync(fd)
    os.close(fd)
    return float(np.memmap(os.path.join(STORE, "file"), mode="r").view("f8").sum())

measured(work)
"""
)

MAPPED_SUM = (
    PRELUDE
    + """
def work():
    return float(np.memmap(os.path.join(STORE, "file"), mode="r").view("f8").sum())

measured(work)
"""
)


CHECKED_SUM = (
    PRELUDE
    + """
import threading

def work():
    mapped = np.memmap(os.path.join(STORE, "file"), mode="r")
    view, starts = memoryview(mapped), iter(range(0, len(mapped), BLOCK))

    def check():
        for start in starts:  # the interpreter lock makes this safe between threads
            xxhash.xxh3_128_hexdigest(view[start:start + BLOCK])

    helper = threading.Thread(target=check)
    helper.start()
    total = float(mapped.view("f8").sum())
    check()
    helper.join()
    return total

measured(work)
"""
)


def anonymous(process: int) -> int:
    """Private memory of a process now, in bytes."""
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def run(source: str, count: int, store: Path) -> tuple[float, int]:
    """Seconds and private memory (bytes above the imports) of one program in a process of its own."""
    command = [sys.executable, "-c", source, str(count), str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        time.sleep(REST)
        base = most = anonymous(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        while process.poll() is None:
            try:
                most = max(most, anonymous(process.pid))
            except (StopIteration, ProcessLookupError, FileNotFoundError):  # it has just ended
                break
            time.sleep(SAMPLE_EVERY)
        answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"a program failed:\n{source}")
    seconds, total = json.loads(answer)
    assert total == 1.5 * count, total
    return seconds, most - base


#: (row, column) -> seconds and private memory of each run
Figures = dict[tuple[str, str], list[tuple[float, int]]]


def one_round(figures: Figures, durability: str, count: int, folder: Path) -> None:
    """Measure everything once."""

    def measure(row: str, column: str, source: str, store: Path) -> None:
        os.sync()  # what the one before has left to write must not slow this one
        figures.setdefault((row, column), []).append(run(source, count, store))

    for threads in (1, 2):
        row = f"physical, {threads} thread{'s'[: threads - 1]}"
        measure(row, "cold", PHYSICAL.format(threads=threads, durability=durability), folder / row)
        measure(row, "consumer edited", MAPPED_SUM, folder / row)
        if threads > 1:
            measure(f"{row}, and checked", "consumer edited", CHECKED_SUM, folder / row)
        shutil.rmtree(folder / row)
    for row, make in (("pyplantx, sent", SENT), ("pyplantx, allocated", ALLOCATED)):
        store = folder / row
        for column, edit in (("cold", 0), ("consumer edited", 1), ("no-op", 1)):
            measure(row, column, PLANT.format(make=make, edit=edit, durability=durability), store)
        shutil.rmtree(store)


def table(figures: Figures, count: int, durability: str) -> str:
    """The figures as a markdown table."""
    columns = ("cold", "consumer edited", "no-op")
    lines = [
        f"| {count * 8 / 2**30:g} GiB float64 | {' | '.join(f'{name}, s' for name in columns)} | private memory, MiB |",
        f"|---|{'---|' * len(columns)}---|",
    ]
    for row in dict.fromkeys(row for row, _ in figures):
        found = [sorted(figures.get((row, column), [])) for column in columns]
        places = [
            len(runs) // 2 if durability == "power" and column == "cold" else 0 for runs, column in zip(found, columns)
        ]
        cells = [f"{runs[place][0]:.3f}" if runs else "–" for runs, place in zip(found, places)]
        memory = max(memory for runs in found for _, memory in runs)
        lines.append(f"| {row} | {' | '.join(cells)} | {memory / 2**20:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, help="GiB of the array (default: 1)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each figure (default: 3)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    count = int(options.size * 2**30) // 8
    for durability in ("process", "power"):
        figures: Figures = {}
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                one_round(figures, durability, count, Path(folder))
        print(f"\ndurability={durability!r}\n\n{table(figures, count, durability)}", flush=True)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()

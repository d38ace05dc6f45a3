"""An array larger than memory, transformed block by block: y = 2x + 1, with the rivals beside us.

    python benchmarks/out_of_core.py [--gib 8] [--limit-mib 1024] [--only hand pyplantx] [--folder DIR] [--repeats 2]

Every row is a process of its own under RLIMIT_DATA, on an input that was dropped from the page cache; the systems
take turns, and each result is compared with the input, block by block. The clock runs from the open input to the closed
output (for pyplantx: from the demand to the sealed, checked, committed ingredient). Prints a table in markdown.

*hand* is the best program we could write without a library: two threads, each with one buffer, that read at the
input's offset, compute in place, and write at the output's offset.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 1024
ROW = COLUMNS * 4
MIB = 1 << 20
BLOCK = 8 * MIB
INPUT, OUTPUT = "input.h5", "output.h5"


# -- the input ----------------------------------------------------------------------------------------------------


def pattern(first: int, rows: int) -> Any:
    """Rows `first` ... of the input: cheap to make again, different everywhere, three decimals."""
    import numpy as np

    down = np.arange(first, first + rows, dtype=np.uint32)[:, None] * np.uint32(2_654_435_761)
    across = np.arange(COLUMNS, dtype=np.uint32) * np.uint32(40_503)
    mixed = (down ^ across) % np.uint32(1 << 20)
    return (mixed.astype(np.float32) / np.float32(1024)).astype(np.float32)


def blocks(rows: int, nbytes: int = BLOCK) -> list[tuple[int, int]]:
    step = nbytes // ROW
    return [(start, min(step, rows - start)) for start in range(0, rows, step)]


def make_input(path: Path, rows: int) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (rows, COLUMNS), "f4")
        for start, count in blocks(rows):
            data[start : start + count] = pattern(start, count)


def drop(folder: Path) -> None:
    """Write back and drop from the page cache whatever lies in the folder."""
    for place, _, names in os.walk(folder):
        for name in names:
            fd = os.open(os.path.join(place, name), os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


# -- the systems: each gets its folder and the number of rows, and returns how to read a range of the result ---------


def hand(folder: Path, rows: int) -> None:
    import h5py
    import numpy as np

    with h5py.File(folder / INPUT) as file:
        source = file["data"].id.get_offset()
    with h5py.File(folder / OUTPUT, "w", libver="latest") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((rows, COLUMNS))
        target = h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, properties).get_offset()
    reading, writing = os.open(folder / INPUT, os.O_RDONLY), os.open(folder / OUTPUT, os.O_WRONLY)

    def work(parts: list[tuple[int, int]]) -> None:
        buffer = np.empty((BLOCK // ROW, COLUMNS), np.float32)
        for start, count in parts:
            block = buffer[:count]
            _fill(reading, memoryview(block).cast("B"), source + start * ROW)
            block *= 2
            block += 1
            _flush(writing, memoryview(block).cast("B"), target + start * ROW)

    _in_two_threads(work, blocks(rows))
    os.close(reading)
    os.close(writing)


def _fill(fd: int, view: memoryview, position: int) -> None:
    while view:
        count = os.preadv(fd, [view], position)
        if not count:
            raise EOFError("the input is shorter than its dataset")
        view, position = view[count:], position + count


def _flush(fd: int, view: memoryview, position: int) -> None:
    while view:
        count = os.pwrite(fd, view, position)
        view, position = view[count:], position + count


def _in_two_threads(work: Callable[[list[tuple[int, int]]], None], parts: list[tuple[int, int]]) -> None:
    threads = [threading.Thread(target=work, args=(parts[number::2],)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def h5py_loop(folder: Path, rows: int) -> None:
    import h5py
    import numpy as np

    step = BLOCK // ROW
    with h5py.File(folder / INPUT) as source, h5py.File(folder / OUTPUT, "w", libver="latest") as target:
        data = source["data"]
        made = target.create_dataset("data", (rows, COLUMNS), "f4", chunks=(min(step, rows), COLUMNS))
        buffer = np.empty((step, COLUMNS), np.float32)
        for start, count in blocks(rows):
            part, block = np.s_[start : start + count], buffer[:count]
            data.read_direct(block, part)
            block *= 2
            block += 1
            made.write_direct(block, None, part)


def dask_h5py(folder: Path, rows: int) -> None:
    import dask
    import dask.array as da
    import h5py

    step = BLOCK // ROW
    with h5py.File(folder / INPUT) as source, h5py.File(folder / OUTPUT, "w", libver="latest") as target:
        made = target.create_dataset("data", (rows, COLUMNS), "f4", chunks=(min(step, rows), COLUMNS))
        x = da.from_array(source["data"], chunks=(step, COLUMNS))
        with dask.config.set(scheduler="threads", num_workers=2):
            da.store(2 * x + 1, made)


def zarr_loop(folder: Path, rows: int) -> None:
    import h5py
    import zarr

    step = BLOCK // ROW
    made = zarr.create_array(
        str(folder / "output.zarr"), shape=(rows, COLUMNS), chunks=(step, COLUMNS), dtype="f4", compressors=None
    )
    with h5py.File(folder / INPUT) as source:
        for start, count in blocks(rows):
            made[start : start + count] = 2 * source["data"][start : start + count] + 1


def pyplantx(folder: Path, rows: int, durability: str = "process") -> None:
    from pyplantx import Plant

    with Plant(folder / "plant", durability=durability) as plant:
        plant.add_reactors(_reactors(rows))
        plant.run_reactor("transform")


def pyplantx_durable(folder: Path, rows: int) -> None:
    pyplantx(folder, rows, "power")


def hand_durable(folder: Path, rows: int) -> None:
    hand(folder, rows)
    fd = os.open(folder / OUTPUT, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _reactors(rows: int) -> list[Any]:
    from pyplantx import ReactorFunc, specs

    @ReactorFunc(name="load")
    def load(pipe):
        x = pipe.allocate("x", specs.HdfArraySpec, shape=(rows, COLUMNS), dtype="f4")
        for start, count in blocks(rows):
            x[start : start + count] = pattern(start, count)
        pipe.send("x", x)

    @ReactorFunc(name="transform")
    def transform(pipe):
        x = yield pipe.receive("x")
        y = pipe.allocate("y", specs.HdfArraySpec, shape=x.shape, dtype=x.dtype)
        pipe.map_blocks(doubled, x, out=y, memory="64MB")
        pipe.send("y", y)

    return [load, transform]


def doubled(x):
    x = x * 2
    x += 1
    return x


SYSTEMS: dict[str, Callable[[Path, int], None]] = {
    "hand": hand,
    "pyplantx": pyplantx,
    "h5py": h5py_loop,
    "dask on h5py": dask_h5py,
    "zarr": zarr_loop,
    "hand, fsync": hand_durable,
    "pyplantx, power": pyplantx_durable,
}


def prepare(system: str, folder: Path, rows: int, shared_input: Path) -> None:
    """The input where the system expects it, written anew for each: in a plant's store, or beside the output.

    A link would do, but then the others would find memory that was just freed, and the plant memory that a virtual
    machine has to ask its host for first: with 1 GiB that made the very same program 1.5 to 3 times as fast.
    """
    if system.startswith("pyplantx"):
        from pyplantx import Plant

        with Plant(folder / "plant") as plant:
            plant.add_reactors(_reactors(rows))
            plant.run_reactor("load")
    else:
        shutil.copyfile(shared_input, folder / INPUT)


def check(system: str, folder: Path, rows: int) -> None:
    """Compare the whole result with what it must be."""
    import numpy as np

    for start, count in blocks(rows, 64 * MIB):
        found = _result(system, folder, start, count)
        if not np.array_equal(found, 2 * pattern(start, count) + 1):
            raise SystemExit(f"{system}: rows {start} ... are wrong")


def _result(system: str, folder: Path, start: int, count: int) -> Any:
    if system == "zarr":
        import zarr

        return zarr.open_array(str(folder / "output.zarr"), mode="r")[start : start + count]
    import h5py

    path = _sealed(folder) if system.startswith("pyplantx") else folder / OUTPUT
    with h5py.File(path) as file:
        return file["data"][start : start + count]


def _sealed(folder: Path) -> Path:
    """The plant's newest HDF file: an ordinary file that any reader opens."""
    return max((folder / "plant/objects").rglob("data.h5"), key=lambda path: path.stat().st_mtime_ns)


# -- one measurement ------------------------------------------------------------------------------------------------


class Peak(threading.Thread):
    """Watches the private memory of this process, every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.base = self.top = status("RssAnon")

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.top = max(self.top, status("RssAnon"))

    def stop(self) -> float:
        self._over.set()
        self.join()
        return (self.top - self.base) / MIB


def status(key: str) -> int:
    """One figure of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def child(system: str, folder: Path, rows: int, limit: int) -> None:
    import resource

    _import_libraries(system)
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit * MIB, limit * MIB))
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    SYSTEMS[system](folder, rows)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "private": peak.stop(), "rss": status("VmHWM") / MIB}))


def _import_libraries(system: str) -> None:
    """Nobody measures imports here."""
    import h5py  # noqa: F401
    import numpy  # noqa: F401

    if system.startswith("pyplantx"):
        import pyplantx  # noqa: F401
    elif system.startswith("dask"):
        import dask.array  # noqa: F401
    elif system == "zarr":
        import zarr  # noqa: F401


def measured(system: str, rows: int, limit: int, place: Path, shared_input: Path) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        prepare(system, folder, rows, shared_input)
        drop(folder)
        command = [sys.executable, __file__, "--child", system, "--folder", str(folder), "--rows", str(rows)]
        done = subprocess.run(
            [*command, "--limit-mib", str(limit)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        if done.returncode:
            raise SystemExit(f"{system} failed:\n{done.stderr[-3000:]}")
        check(system, folder, rows)
        told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return told
    finally:
        shutil.rmtree(folder)


def table(rows: int, limit: int, found: dict[str, list[dict[str, float]]]) -> str:
    gib = rows * ROW / (1 << 30)
    best = min(min(run["seconds"] for run in runs) for runs in found.values())
    lines = [
        f"### {gib:g} GiB float32 HDF5 → HDF5, y = 2x + 1, under {limit} MiB (RLIMIT_DATA), input not in page cache",
        "",
        "| system | seconds | GB/s of input | ÷ best | peak private MiB | peak RSS MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for system, runs in found.items():
        times = sorted(run["seconds"] for run in runs)
        middle = times[len(times) // 2]
        lines.append(
            f"| {system} | {times[0]:.2f} ({middle:.2f}) | {rows * ROW / times[0] / 1e9:.2f} | {times[0] / best:.2f} "
            f"| {max(run['private'] for run in runs):.0f} | {max(run['rss'] for run in runs):.0f} |"
        )
    return "\n".join(lines) + "\n"


def installed(system: str) -> bool:
    import importlib.util

    wanted = {"dask on h5py": "dask", "zarr": "zarr"}.get(system)
    return wanted is None or importlib.util.find_spec(wanted) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=8)
    parser.add_argument("--limit-mib", type=int, default=1024)
    parser.add_argument("--only", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--folder", type=Path, default=None, help="where to work; on the disk to be measured")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--child", choices=list(SYSTEMS), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder, arguments.rows, arguments.limit_mib)
        return
    rows = int(arguments.gib * (1 << 30)) // ROW
    systems = [system for system in arguments.only if installed(system)]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        shared_input = Path(place) / INPUT
        make_input(shared_input, rows)
        found: dict[str, list[dict[str, float]]] = {system: [] for system in systems}
        for _ in range(arguments.repeats):
            for system in systems:
                found[system].append(measured(system, rows, arguments.limit_mib, Path(place), shared_input))
                print(system, found[system][-1], file=sys.stderr)
    print(table(rows, arguments.limit_mib, found))


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process would pay the parser
    main()

"""What each kind of array ingredient costs: made, opened, read by slab and by column, summed; and many small ones.

    python benchmarks/formats.py [--mib 256] [--count 1000] [--folder DIR]

One process per row. The array is float32, (rows, 1024), half-realistic (three decimals). *make*: allocate, fill in
slabs of 16 MiB, send, with durability="process". *open*: from the demand of a reactor to its first line after the
`yield`, in a fresh process. *100 rows*, *1 column*: reading that much, the first time in a process (checks included).
*sum*: reading everything, slab by slab. The last rows are plain libraries without a plant. Many small ones: *lmdb* is
what the plant keeps them in, with nothing around it, copying each array out and keeping it. Compression: the same
chunks and filters, the least of three runs, from the empty to the closed dataset (what the plant writes is hashed and
checksummed besides) and from the closed one to all elements in memory, slab by slab (what the plant reads is checked
first). In brackets what all processors did together: with two of them and nothing else to do, at least half of that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 1024
SLAB = 4096  #: rows of 4 KiB: 16 MiB
KINDS = ["array", "hdf", "hdf, gzip", "hdf, by column", "zarr", "np.save", "h5py, guessed chunks"]
ACTS = ["make", "open", "100 rows", "1 column", "sum"]


def slab(start: int, rows: int) -> Any:
    import numpy as np

    rng = np.random.default_rng(start)
    return np.round(rng.standard_normal((rows, COLUMNS), dtype=np.float32), 3)


def slices(rows: int) -> list[slice]:
    return [slice(start, min(start + SLAB, rows)) for start in range(0, rows, SLAB)]


def filled(target: Any, rows: int, slabs: list[Any]) -> None:
    for part, values in zip(slices(rows), slabs):
        target[part] = values


HELD: list[Any] = []  #: what the making reactors store; made before the clock runs


def held() -> list[Any]:
    return HELD


def options_of(kind: str) -> tuple[Any, dict[str, Any]]:
    from pyplantx import specs

    if kind == "array":
        return specs.ArraySpec, {}
    if kind == "zarr":
        return specs.ZarrArraySpec, {}
    more: dict[str, dict[str, Any]] = {"hdf, gzip": {"compression": "gzip"}, "hdf, by column": {"axis": 1}}
    return specs.HdfArraySpec, more.get(kind, {})


def with_plant(kind: str, folder: Path, rows: int, act: str) -> dict[str, float]:
    from pyplantx import Plant, ReactorFunc, untracked

    spec, options = options_of(kind)
    times: dict[str, float] = {}
    material = untracked(held)  # the reactors are the same in all processes, whatever is held and timed in each
    told, reading = untracked(lambda more: times.update(more)), untracked(lambda x: timed_reads(x, rows, act))
    if act == "make":
        HELD.extend(slab(part.start, part.stop - part.start) for part in slices(rows))

    @ReactorFunc(name="make")
    def make(pipe):
        begin = time.perf_counter()
        x = pipe.allocate("x", spec, shape=(rows, COLUMNS), dtype="f4", **options)
        filled(x, rows, material())
        pipe.send("x", x)
        told({"make": time.perf_counter() - begin})

    @ReactorFunc(name="read")
    def read(pipe):
        begin = time.perf_counter()
        x = yield pipe.receive("x")
        told({"open": time.perf_counter() - begin})
        told(reading(x))

    with Plant(folder / "plant", durability="process") as plant:
        plant.add_reactors(make, read)
        plant.run_reactor("make" if act == "make" else "read")
    return times


def timed_reads(x: Any, rows: int, act: str) -> dict[str, float]:
    import numpy as np

    reads: dict[str, Callable[[], Any]] = {
        "open": lambda: None,
        "100 rows": lambda: np.asarray(x[rows // 2 : rows // 2 + 100]).sum(),
        "1 column": lambda: np.asarray(x[:, 5]).sum(),
        "sum": lambda: sum(float(np.asarray(x[part]).sum(dtype=np.float64)) for part in slices(rows)),
    }
    begin = time.perf_counter()
    reads[act]()
    return {} if act == "open" else {act: time.perf_counter() - begin}


def plain(kind: str, folder: Path, rows: int, act: str) -> dict[str, float]:
    import h5py
    import numpy as np

    path = folder / "plain"
    slabs = [slab(part.start, part.stop - part.start) for part in slices(rows)] if act == "make" else []
    begin = time.perf_counter()
    if act == "make" and kind == "np.save":
        np.save(f"{path}.npy", np.concatenate(slabs))
    elif act == "make":
        with h5py.File(path, "w") as file:
            filled(file.create_dataset("x", (rows, COLUMNS), "f4", chunks=True), rows, slabs)
    if act == "make":
        return {"make": time.perf_counter() - begin}
    x = np.load(f"{path}.npy", mmap_mode="r") if kind == "np.save" else h5py.File(path)["x"]
    return {"open": time.perf_counter() - begin, **timed_reads(x, rows, act)}


# -- many small ones ------------------------------------------------------------------------------------------------

SMALL = 12_500  #: float64: 100 kB
SMALL_SYSTEMS = ["pyplantx", "lmdb", "joblib", "diskcache", "np.save"]


def small(system: str, folder: Path, count: int, act: str) -> dict[str, float]:
    import numpy as np

    arrays = [np.random.default_rng(number).random(SMALL) for number in range(count if act == "store" else 0)]
    doing = {
        "pyplantx": small_plant,
        "lmdb": small_lmdb,
        "joblib": small_joblib,
        "diskcache": small_diskcache,
        "np.save": small_npy,
    }
    return {act: doing[system](folder, count, act, arrays) / count}


def small_plant(folder: Path, count: int, act: str, arrays: list[Any]) -> float:
    from pyplantx import Plant, ReactorFunc, untracked

    times: list[float] = []
    names = [f"x{number}" for number in range(count)]
    material, told = untracked(held), untracked(lambda seconds: times.append(seconds))
    HELD.extend(arrays)

    @ReactorFunc(name="make")
    def make(pipe):
        for name, array in zip(names, material()):
            pipe.send(name, array)

    @ReactorFunc(name="read")
    def read(pipe):
        begin = time.perf_counter()
        values = yield pipe.receive(*names)
        told(time.perf_counter() - begin)
        assert len(values) == count

    begin = time.perf_counter()
    with Plant(folder / "plant", durability="process") as plant:
        plant.add_reactors(make, read)
        plant.run_reactor("make" if act == "store" else "read")
    return times[0] if times else time.perf_counter() - begin


def small_lmdb(folder: Path, count: int, act: str, arrays: list[Any]) -> float:
    """The store's own means with nothing around them: a transaction to store, copies that are kept to fetch."""
    import lmdb

    (folder / "lmdb").mkdir(exist_ok=True)
    begin = time.perf_counter()
    with lmdb.open(str(folder / "lmdb"), map_size=1 << 30, sync=False, readahead=False) as env:
        with env.begin(write=act == "store") as txn:
            for number, array in enumerate(arrays):
                txn.put(b"%d" % number, array.tobytes())
            if act == "store":
                kept = []
            else:
                begin = time.perf_counter()
                kept = [txn.get(b"%d" % number) for number in range(count)]
        seconds = time.perf_counter() - begin
    assert len(kept) == count or act == "store"
    return seconds


def small_joblib(folder: Path, count: int, act: str, arrays: list[Any]) -> float:
    from joblib import Memory

    by_number = dict(enumerate(arrays))

    def value(number):
        return by_number[number]

    cached = Memory(folder / "joblib", verbose=0, mmap_mode="r").cache(value)
    begin = time.perf_counter()
    for number in range(count):
        cached(number)
    return time.perf_counter() - begin


def small_diskcache(folder: Path, count: int, act: str, arrays: list[Any]) -> float:
    from diskcache import Cache

    begin = time.perf_counter()
    with Cache(folder / "diskcache") as cache:
        for number in range(count):
            if act == "store":
                cache[number] = arrays[number]
            else:
                cache[number]
    return time.perf_counter() - begin


def small_npy(folder: Path, count: int, act: str, arrays: list[Any]) -> float:
    import numpy as np

    begin = time.perf_counter()
    for number in range(count):
        if act == "store":
            np.save(folder / f"{number}.npy", arrays[number])
        else:
            np.load(folder / f"{number}.npy", mmap_mode="r")
    return time.perf_counter() - begin


# -- compression ------------------------------------------------------------------------------------------------------

FILTERS = ["gzip", "lzf", "lz4", "bitshuffle", "zstd", "blosc2"]
COMPRESSING = ["pyplantx", "h5py"]


class Stopwatch:
    """Seconds that passed, and that the processors worked, from its making to `stop`."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def stop(self) -> list[float]:
        return [time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]]


def compressing(system: str, folder: Path, rows: int, compression: str) -> dict[str, list[float]]:
    """What it takes from the empty to the closed dataset (write), and from the closed one to all elements (read)."""
    slabs = [slab(number, SLAB) for number in range(4)]  # the processor's work is the same for repeated ones
    HELD.extend(slabs[place % len(slabs)][: part.stop - part.start] for place, part in enumerate(slices(rows)))
    chunks = (min(rows, 256), COLUMNS)  # 1 MiB, as the plant chooses
    if system == "pyplantx":
        return compressing_plant(folder, rows, chunks, compression)
    import h5py

    options: Any = {"compression": compression} if compression in ("gzip", "lzf") else plugin(compression)
    watch = Stopwatch()
    with h5py.File(folder / "plain", "w") as file:
        filled(file.create_dataset("x", (rows, COLUMNS), "f4", chunks=chunks, **options), rows, HELD)
    told = {"write": watch.stop()}
    watch = Stopwatch()
    with h5py.File(folder / "plain") as file:
        read_all(file["x"], rows)
    return {**told, "read": watch.stop()}


def read_all(source: Any, rows: int) -> None:
    for part in slices(rows):
        source[part]


def compressing_plant(folder: Path, rows: int, chunks: tuple[int, int], compression: str) -> dict[str, list[float]]:
    """In the reactors: what a plant costs besides is told by other tables. The reader is another session."""
    from pyplantx import Plant, ReactorFunc, specs, untracked

    material, reading = untracked(held), untracked(lambda x: read_all(x, rows))
    watches: list[Stopwatch] = []
    told: dict[str, list[float]] = {}
    start = untracked(lambda: watches.append(Stopwatch()))
    stop = untracked(lambda act: told.update({act: watches.pop().stop()}))

    @ReactorFunc(name="make")
    def make(pipe):
        pipe.send("first", pipe.allocate("first", specs.HdfArraySpec, shape=(1, 1), compression=compression))  # imports
        start()
        x = pipe.allocate(
            "x", specs.HdfArraySpec, shape=(rows, COLUMNS), dtype="f4", chunks=chunks, compression=compression
        )
        filled(x, rows, material())
        pipe.send("x", x)
        stop("write")

    @ReactorFunc(name="read")
    def read(pipe):
        start()
        x = yield pipe.receive("x")
        reading(x)
        stop("read")

    for act in (make, read):
        with Plant(folder / "plant", durability="process") as plant:
            plant.add_reactors(make, read)
            plant.run_reactor(act.name)
    return told


def plugin(compression: str) -> Any:
    """What h5py is given, with the settings that the plant chooses."""
    import hdf5plugin

    if compression == "blosc2":
        return hdf5plugin.Blosc2(cname="lz4")
    classes = {"lz4": hdf5plugin.LZ4, "bitshuffle": hdf5plugin.Bitshuffle, "zstd": hdf5plugin.Zstd}
    return classes[compression]()


# -- rows -----------------------------------------------------------------------------------------------------------


def child(kind: str, folder: Path, size: int, act: str) -> dict[str, Any]:
    if act in ("store", "fetch"):
        return small(kind, folder, size, act)
    if act in FILTERS:
        return compressing(kind, folder, size, act)
    return (plain if kind in KINDS[-2:] else with_plant)(kind, folder, size, act)


def measured(kind: str, folder: Path, size: int, act: str, cores: int = 0) -> dict[str, Any]:
    """One process, on as many processors as may be (0) or so many; what it told."""
    command = [sys.executable, __file__, "--child", kind, "--act", act, "--folder", str(folder), "--count", str(size)]
    command += ["--cores", str(cores)] if cores else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise SystemExit(f"{kind}, {act}:\n{done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def row(kind: str, acts: list[str], size: int, place: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        times: dict[str, float] = {}
        for act in acts:
            for name, seconds in measured(kind, Path(folder), size, act).items():
                times[name] = min(seconds, times.get(name, seconds))
        return times


def formats_table(mib: int, place: Path | None) -> str:
    rows = mib * (1 << 20) // (COLUMNS * 4)
    lines = [f"### One array of {mib} MiB, by kind, ms", "", f"| kind | {' | '.join(ACTS)} |", "| --- " * 6 + "|"]
    for kind in KINDS:
        times = row(kind, ACTS, rows, place)
        lines.append(f"| {kind} | {' | '.join(f'{times[act] * 1e3:,.2f}' for act in ACTS)} |")
    return "\n".join(lines) + "\n"


def small_table(count: int, place: Path | None) -> str:
    lines = [f"### {count:,} arrays of 100 kB, µs each", "", "| system | store | fetch |", "| --- | --- | --- |"]
    for system in SMALL_SYSTEMS:
        times = row(system, ["store", "fetch", "fetch"], count, place)
        lines.append(f"| {system} | {times['store'] * 1e6:.0f} | {times['fetch'] * 1e6:.0f} |")
    return "\n".join(lines) + "\n"


def compression_table(mib: int, place: Path | None) -> str:
    """One table for each act: milliseconds, and in brackets those that the processors worked in all."""
    rows = mib * (1 << 20) // (COLUMNS * 4)
    least: dict[tuple[str, str, int, str], list[float]] = {}
    for compression in FILTERS:  # the systems take turns
        for _ in range(3):
            for cores in (1, 2):
                for system in COMPRESSING:
                    with tempfile.TemporaryDirectory(dir=place) as folder:
                        told = measured(system, Path(folder), rows, compression, cores)
                    for act, figures in told.items():
                        key = (act, system, cores, compression)
                        least[key] = [min(pair) for pair in zip(figures, least.get(key, figures))]
    lines = []
    for act in ("write", "read"):
        lines += [f"### {mib} MiB with compression, chunks of 1 MiB: {act}, ms (of all processors)", ""]
        lines += [f"| system | cores | {' | '.join(FILTERS)} |", "| --- " * (2 + len(FILTERS)) + "|"]
        for cores in (1, 2):
            for system in COMPRESSING:
                cells = [least[act, system, cores, name] for name in FILTERS]
                shown = " | ".join(f"{wall * 1e3:,.0f} ({work * 1e3:,.0f})" for wall, work in cells)
                lines.append(f"| {system} | {cores} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--count", type=int, default=1000, help="small arrays")
    parser.add_argument("--folder", type=Path, help="where to write, on the disk to be measured")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--act", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        if arguments.cores:
            os.sched_setaffinity(0, range(arguments.cores))
        import h5py  # noqa: F401  (nobody measures imports here)
        import numpy  # noqa: F401

        print(json.dumps(child(arguments.child, arguments.folder, arguments.count, arguments.act)))
        return
    print(formats_table(arguments.mib, arguments.folder))
    print(small_table(arguments.count, arguments.folder))
    print(compression_table(arguments.mib, arguments.folder))


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process would pay the parser
    main()

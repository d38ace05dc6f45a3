"""The plant that the fault harnesses torment: one reactor for each kind of payload, and what each must be.

The values follow from a seed in the config, so that the oracle needs no store: `expected` computes them anew.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import zlib
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse

from pyplantx import Ingredient, Plant, ReactorFunc, specs

#: Bytes that a walk in blocks may take: some blocks for each array.
MEMORY = 1 << 20
#: Seeds from this one on give small values, so that every byte of their store can be tried.
SMALL = 1000


def _rows(seed: int) -> int:
    return 400 if seed < SMALL else 4


#: Ingredients and the functions that make them. Between them they live in each home that a payload can have.
MAKERS: dict[str, Callable[[int], Any]] = {
    "tiny": lambda seed: 1000 + seed,
    "words": lambda seed: [seed * 1000 + i for i in range(300)],
    "thing": lambda seed: {"seed": (seed, None), "text": f"{seed}-" * 100, "where": {1: [2.5, -0.0]}},
    "small": lambda seed: f"{seed:05d};" * 15 * (100 + _rows(seed)),
    "short_array": lambda seed: np.arange(8 * _rows(seed)) * seed,
    "long_array": lambda seed: np.arange(380 * _rows(seed)) * 0.5 + seed,
    "allocated": lambda seed: np.arange(400 * _rows(seed), dtype=np.int64).reshape(-1, 400) ^ seed,
    "dataset": lambda seed: (np.arange(400 * _rows(seed)) % 977 + seed).reshape(-1, 400).astype(np.float64),
    "packed": lambda seed: (np.arange(300 * _rows(seed)) // 7 * seed).reshape(-1, 300),
    "grown": lambda seed: (np.arange(100 * _rows(seed)) // 3 + seed).reshape(-1, 100),
    "mapped": lambda seed: MAKERS["dataset"](seed) * 2 + 1,
    "matrix": lambda seed: _matrix(seed, 230 * _rows(seed)),
    "report": lambda seed: f"report of {seed}\n".encode() * 500,
}
#: Environment variable: set where a program that shares the store has no zarr.
NO_ZARR = "PYPLANTX_FAULTS_NO_ZARR"
if importlib.util.find_spec("zarr") and NO_ZARR not in os.environ:
    import zarr as zarr  # here, for all children that are forked

    MAKERS["tiled"] = lambda seed: (np.arange(50 * _rows(seed)) % 983 * seed).reshape(-1, 50)


#: Those that are received as datasets.
DATASETS = ("dataset", "packed", "grown", "mapped", "tiled")


def _matrix(seed: int, count: int) -> Any:
    places = np.arange(count)
    return sparse.csr_matrix((places * 1.0 + seed, (places % 1000, places % 997)), shape=(1000, 997))


def digest(value: Any) -> int:
    """A number that differs where two of our values differ."""
    if sparse.issparse(value):
        return digest([digest(part) for part in (value.data, value.indices, value.indptr)])
    if isinstance(value, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(value).tobytes(), zlib.crc32(f"{value.dtype}{value.shape}".encode()))
    if isinstance(value, dict):
        value = sorted(value.items(), key=repr)
    return zlib.crc32(repr(value).encode())


def plain(name: str, value: Any) -> Any:
    """What was received, as the maker made it: a dataset read, a file's content."""
    if name in DATASETS:
        return value[...]
    if name == "report":
        with open(value, "rb") as file:
            return file.read()
    return value


@functools.cache
def expected(name: str, seed: int) -> int:
    """The digest of the only right value of an ingredient under a seed."""
    if name == "total":
        return digest([expected(part, seed) for part in sorted(MAKERS)])
    return digest(MAKERS[name](seed))


def is_right(name: str, value: Any, seeds: Iterable[int]) -> bool:
    """Whether a received value is what this ingredient must be under one of the seeds."""
    found = value if name == "total" else digest(plain(name, value))
    return found in [expected(name, seed) for seed in seeds]


# -- the reactors -----------------------------------------------------------------------------------


@ReactorFunc(sends="tiny")
def make_tiny(pipe: Any, config: Any) -> None:
    pipe.send("tiny", MAKERS["tiny"](config.seed))


@ReactorFunc(sends=["words", "thing"])
def make_words(pipe: Any, config: Any) -> None:
    pipe.send("words", MAKERS["words"](config.seed))
    pipe.send("thing", MAKERS["thing"](config.seed), Ingredient.Type.object)


@ReactorFunc(sends="small")
def make_small(pipe: Any, config: Any) -> None:
    pipe.send("small", MAKERS["small"](config.seed))


@ReactorFunc(sends=["short_array", "long_array"])
def make_arrays(pipe: Any, config: Any) -> None:
    pipe.send("short_array", MAKERS["short_array"](config.seed))
    pipe.send("long_array", MAKERS["long_array"](config.seed))


@ReactorFunc(sends="allocated")
def make_allocated(pipe: Any, config: Any) -> None:
    value = MAKERS["allocated"](config.seed)
    array = pipe.allocate("allocated", Ingredient.Type.array, shape=value.shape, dtype=value.dtype)
    for row in range(0, len(value), 100):
        array[row : row + 100] = value[row : row + 100]
    pipe.send("allocated", array)


@ReactorFunc(sends="dataset")
def make_dataset(pipe: Any, config: Any) -> None:
    value = MAKERS["dataset"](config.seed)
    dataset = pipe.allocate("dataset", specs.HdfArraySpec, shape=value.shape, dtype=value.dtype)
    for row in range(0, len(value), 150):
        dataset[row : row + 150] = value[row : row + 150]
    pipe.send("dataset", dataset)


@ReactorFunc(sends="packed")
def make_packed(pipe: Any, config: Any) -> None:
    value = MAKERS["packed"](config.seed)
    chunked = {"chunks": (100, 300), "compression": "gzip"} if len(value) > 100 else {"compression": "gzip"}
    dataset = pipe.allocate("packed", specs.HdfArraySpec, shape=value.shape, dtype=value.dtype, **chunked)
    dataset[...] = value
    pipe.send("packed", dataset)


@ReactorFunc(sends="grown")
def make_grown(pipe: Any, config: Any) -> None:
    """By HDF5 alone: it grows, and its chunks are packed by a filter that nobody else has."""
    value = MAKERS["grown"](config.seed)
    layout: dict[str, Any] = {"maxshape": (None, 100), "chunks": (64, 100), "compression": "lzf"}
    dataset = pipe.allocate("grown", specs.HdfArraySpec, shape=(0, 100), dtype=value.dtype, **layout)
    for row in range(0, len(value), 100):
        dataset.resize(min(row + 100, len(value)), axis=0)
        dataset[row : row + 100] = value[row : row + 100]
    pipe.send("grown", dataset)


@ReactorFunc(sends="mapped")
def make_mapped(pipe: Any) -> Any:
    """Block by block: killed in the middle, it goes on at the last finished block."""
    dataset = yield pipe.receive("dataset")
    mapped = pipe.allocate("mapped", specs.HdfArraySpec, shape=dataset.shape, dtype=dataset.dtype)
    pipe.map_blocks(lambda block: block * 2 + 1, dataset, out=mapped, memory=MEMORY)
    pipe.send("mapped", mapped)


@ReactorFunc(sends="tiled")
def make_tiled(pipe: Any, config: Any) -> None:
    """Two chunks, each a file."""
    value = MAKERS["tiled"](config.seed)
    half = len(value) // 2
    tiled = pipe.allocate("tiled", specs.ZarrArraySpec, shape=value.shape, dtype=value.dtype, chunks=(half, 50))
    tiled[:half] = value[:half]
    tiled[half:] = value[half:]
    pipe.send("tiled", tiled)


@ReactorFunc(sends="matrix")
def make_matrix(pipe: Any, config: Any) -> None:
    pipe.send("matrix", MAKERS["matrix"](config.seed))


@ReactorFunc(sends="report")
def make_report(pipe: Any, config: Any) -> None:
    path = pipe.allocate("report", Ingredient.Type.file, suffix=".txt")
    with open(path, "wb") as file:
        file.write(MAKERS["report"](config.seed))
    pipe.send("report", path)


@ReactorFunc(sends="total")
def make_total(pipe: Any) -> Any:
    values = yield pipe.receive(*sorted(MAKERS))
    pipe.send("total", digest([digest(plain(name, value)) for name, value in zip(sorted(MAKERS), values)]))


REACTORS = [
    make_tiny,
    make_words,
    make_small,
    make_arrays,
    make_allocated,
    make_dataset,
    make_packed,
    make_grown,
    make_mapped,
    *([make_tiled] if "tiled" in MAKERS else []),
    make_matrix,
    make_report,
    make_total,
]

NAMES = sorted([*MAKERS, "total"])


# -- a life -----------------------------------------------------------------------------------------

Tell = Callable[[str], object]


def configured(seed: int) -> SimpleNamespace:
    """The config under a seed."""
    return SimpleNamespace(seed=seed)


def open_plant(directory: str | os.PathLike[str], seed: int, tell: Tell | None = None, **options: Any) -> Plant:
    """The plant under a seed; `tell` gets ``"started <reactor> <seed>"`` and ``"finished <reactor> <seed>"``."""
    plant = Plant(directory, config=configured(seed), **{"lock_timeout": 5.0, **options})
    plant.add_reactors(REACTORS)
    if tell is not None:
        _listen(plant, tell)
    return plant


def _listen(plant: Plant, tell: Tell) -> None:
    def started(event: Any, name: str, function: Any) -> None:
        tell(f"started {name} {plant.config.seed}")  # type: ignore[union-attr]

    def finished(event: Any, name: str, function: Any) -> None:
        tell(f"finished {name} {plant.config.seed}")  # type: ignore[union-attr]

    plant.add_event_listener(Plant.EventType.reactor_started, started)
    plant.add_event_listener(Plant.EventType.reactor_finished, finished)


def use(plant: Plant, seeds: Iterable[int], tell: Tell) -> None:
    """What a plant is used for: several configs, look-ups, a backup, a collection, a check."""
    for seed in seeds:
        plant.set_config(configured(seed))
        total = plant.produce("total")
        tell(f"got total {seed} {total}")
        for name in NAMES:
            tell(f"got {name} {seed} {told(name, plant.produce(name))}")
    plant.warehouse.backup()
    tell(f"collecting {seed}")  # from here on only the last config's values must be there
    plant.gc(keep_versions=1)
    plant.warehouse.check(fix=True)


def told(name: str, value: Any) -> int:
    return value if name == "total" else digest(plain(name, value))


def live(directory: str | os.PathLike[str], tell: Tell, seeds: Iterable[int] = (1, 2), **options: Any) -> None:
    """One process's life with a plant, without any fault."""
    with open_plant(directory, min(seeds), tell, **options) as plant:
        use(plant, seeds, tell)

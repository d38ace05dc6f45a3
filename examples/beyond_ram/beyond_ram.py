"""An array that is larger than the memory that the script allows itself.

    python examples/beyond_ram/beyond_ram.py [--limit MB] [--size MB] [--plant-dir DIR] [--whole]

The kernel holds the limit (RLIMIT_DATA, on top of what Python and its libraries take): whoever asks for
more gets a MemoryError. `--whole` shows that by reading the array in one piece.
"""

from __future__ import annotations

import argparse
import os
import resource
import threading

import h5py  # noqa: F401  (loaded before the limit is set: the limit is about data, not about libraries)
import numpy as np

from pyplantx import *

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = 1024
MB = 1 << 20


class FieldConfig(ConfigBase):
    def __init__(self):
        super().__init__()
        self.megabytes = 512
        self.slab_megabytes = 8
        self.seed = 3
        self.whole = False


def slabs(length, megabytes):
    """Slices that cut `length` rows of float32 into slabs of so many megabytes."""
    rows = max(1, megabytes * MB // (COLUMNS * 4))
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


@ReactorFunc
def make_field(pipe, config):
    rows = config.megabytes * MB // (COLUMNS * 4)
    field = pipe.allocate("field", specs.HdfArraySpec, shape=(rows, COLUMNS), dtype=np.float32)
    slope = np.linspace(-1, 1, COLUMNS, dtype=np.float32)
    for number, part in enumerate(slabs(rows, config.slab_megabytes)):
        noise = np.random.default_rng([config.seed, number])
        field[part] = noise.standard_normal((part.stop - part.start, COLUMNS), dtype=np.float32) + slope
    pipe.send("field", field)


@ReactorFunc
def measure(pipe, config):
    """Mean and spread of each column, in one pass."""
    field = yield pipe.receive("field")
    total, squares = np.zeros(COLUMNS), np.zeros(COLUMNS)
    for part in slabs(len(field), config.slab_megabytes):
        slab = field[part]
        total += slab.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", slab, slab, dtype=np.float64)
    mean = total / len(field)
    pipe.send("moments", np.stack([mean, np.sqrt(squares / len(field) - mean**2)]))


@ReactorFunc
def standardize(pipe, config):
    field, moments = yield pipe.receive("field", "moments")
    mean, spread = moments.astype(np.float32)
    standard = pipe.allocate("standard_field", specs.HdfArraySpec, shape=field.shape, dtype=field.dtype)
    for part in slabs(len(field), config.slab_megabytes):
        slab = field[part]
        slab -= mean
        slab /= spread
        standard[part] = slab
    pipe.send("standard_field", standard)


@ReactorFunc
def summarize(pipe, config):
    standard = yield pipe.receive("standard_field")
    if config.whole:
        standard[...]  # as one would write it for an array that fits
    means = [standard[part].mean(dtype=np.float64) for part in slabs(len(standard), config.slab_megabytes)]
    megabytes = len(standard) * COLUMNS * 4 // MB
    print(f"array of {standard.shape}, {megabytes} MB; mean after standardizing {abs(np.mean(means)):.4f}")


# --- memory --------------------------------------------------------------------------------------


def status(key: str) -> int:
    """One figure of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


class Peak(threading.Thread):
    """Watches the private memory of this process: what it holds for itself, mapped files apart."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.base = self.bytes = status("RssAnon")

    def run(self):
        while not self.over.wait(0.002):
            self.bytes = max(self.bytes, status("RssAnon"))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def limit_memory(megabytes):
    allowed = status("VmData") + megabytes * MB
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def tell(event, name, function):
    print(f"ran: {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plant-dir", default=os.path.join(HERE, "plant"))
    parser.add_argument("--limit", type=int, default=256, metavar="MB", help="memory that may be used for data")
    parser.add_argument("--size", type=int, default=512, metavar="MB", help="size of the array")
    parser.add_argument("--whole", action="store_true", help="read the array in one piece, to see the limit hold")
    arguments = parser.parse_args()

    config = FieldConfig()
    config.megabytes, config.whole = arguments.size, arguments.whole
    limit_memory(arguments.limit)
    with Peak() as peak, Plant(arguments.plant_dir) as plant:
        plant.add_event_listener(Plant.EventType.reactor_started, tell)
        plant.set_config(config)
        plant.run_reactor(summarize)
    print(f"limit {arguments.limit} MB, peak private memory {(peak.bytes - peak.base) / MB:.0f} MB")


if __name__ == "__main__":
    main()

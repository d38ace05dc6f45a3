"""A volume that is larger than the memory that the script allows itself: made, filtered, measured, pictured.

    python examples/beyond_ram/beyond_ram.py [--limit MB] [--size MB] [--sigma S] [--kill-after BLOCKS] [--whole]

The kernel holds the limit (RLIMIT_DATA, on top of what Python and its libraries take): whoever asks for
more gets a MemoryError. `--whole` shows that by reading the volume in one piece. `--kill-after 5` ends the process with
SIGKILL when five blocks have been filtered; the next run goes on from there.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import threading

import h5py  # noqa: F401  (loaded before the limit is set: the limit is about data, not about libraries)
import matplotlib
import numpy as np
from scipy import ndimage

from pyplantx import *

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = os.path.dirname(os.path.abspath(__file__))
MB = 1 << 20
SIDE = 256  #: voxels along y and x


class VolumeConfig(ConfigBase):
    def __init__(self):
        super().__init__()
        self.megabytes = 256
        self.seed = 3
        self.sigma = 1.0
        self.colours = "magma"
        self.block_memory = "32MB"
        self.out_dir = "output"
        self.kill_after = 0
        self.whole = False


# --- the work on one block, in plain NumPy -----------------------------------------------------------


def scanned(z, seed):
    """Slices of a made-up scan: nested shells, a drifting bright rod, noise. `z`: their numbers."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    slices = np.empty((len(z), SIDE, SIDE), np.float32)
    for slot, number in enumerate(z):
        radius = np.hypot(y - SIDE / 2, x - SIDE / 2)
        rod = np.hypot(y - SIDE / 2 - 60 * np.sin(number / 90), x - SIDE / 2 - 60 * np.cos(number / 90))
        noise = np.random.default_rng([seed, int(number)]).standard_normal((SIDE, SIDE), dtype=np.float32)
        slices[slot] = np.cos(radius / 7) * (radius < 110) + 3.0 * (rod < 6) + 0.5 * noise
    return slices


def reach(sigma):
    """How far a filtered voxel looks: the filter is cut off there."""
    return int(4 * sigma + 0.5)


def smooth(block, sigma):
    return ndimage.gaussian_filter(block, sigma, mode="nearest", truncate=4)


def moments(block):
    """What a block adds to count, sum, sum of squares, and the brightest voxel along z."""
    wide = block.astype(np.float64)
    return block.size, wide.sum(), np.einsum("ijk,ijk->", wide, wide), block.max(axis=0)


def added(one, other):
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], np.maximum(one[3], other[3])


# --- the reactors ------------------------------------------------------------------------------------


@ReactorFunc
def scan(pipe, config):
    depth = config.megabytes * MB // (SIDE * SIDE * 4)
    volume = pipe.allocate("volume", specs.HdfArraySpec, shape=(depth, SIDE, SIDE), dtype=np.float32)
    for block in pipe.blocks(volume, memory=pipe.peek("block_memory"), resume=True):
        volume[block] = scanned(range(depth)[block[0]], config.seed)
    pipe.send("volume", volume)


@ReactorFunc
def denoise(pipe, config):
    volume = yield pipe.receive("volume")
    sigma = config.sigma
    clean = pipe.allocate("clean_volume", specs.HdfArraySpec, shape=volume.shape, dtype=volume.dtype)
    pipe.map_blocks(
        lambda block: smooth(block, sigma),
        volume,
        out=clean,
        halo=reach(sigma),
        memory=pipe.peek("block_memory"),
        progress=Progress(pipe.peek("kill_after")),
    )
    pipe.send("clean_volume", clean)


@ReactorFunc
def measure(pipe, config):
    clean = yield pipe.receive("clean_volume")
    count, total, squares, brightest = pipe.reduce_blocks(
        moments, clean, combine=added, memory=pipe.peek("block_memory")
    )
    mean = total / count
    pipe.send("statistics", {"mean": float(mean), "spread": float(np.sqrt(squares / count - mean**2))})
    pipe.send("projection", brightest)


@ReactorFunc
def picture(pipe, config):
    projection = yield pipe.receive("projection")
    path = pipe.allocate("picture", Ingredient.Type.file, suffix=".png")
    plt.imsave(path, projection, cmap=config.colours)
    pipe.send("picture", path)


@ReactorFunc
def report(pipe, config):
    statistics, path, clean = yield pipe.receive("statistics", "picture", "clean_volume")
    if pipe.peek("whole"):
        clean[...]  # as one would write it for an array that fits
    print(f"volume of {clean.shape}, {clean.nbytes // MB} MB", end="; ")
    print(f"mean {statistics['mean']:.4f}, spread {statistics['spread']:.4f}")
    shutil.copyfile(path, os.path.join(pipe.peek("out_dir"), "projection.png"))


# --- what happens around it ---------------------------------------------------------------------------


@untracked
class Progress:
    """Tells how many blocks this process has filtered, and ends it after some if it is asked to."""

    filtered = 0

    def __init__(self, kill_after):
        self.kill_after = kill_after

    def __call__(self, done, count, seconds_left):
        Progress.filtered += 1
        if Progress.filtered == self.kill_after:
            print(f"killed after {done} of {count} blocks", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


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


def rounded_up(size):
    """Megabytes, in steps of 100: the last few differ from run to run."""
    return max(1, -(-size // (100 * MB))) * 100


def limit_memory(megabytes):
    allowed = status("VmData") + megabytes * MB
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def tell(event, name, function):
    print(f"ran: {name}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plant-dir", default=os.path.join(HERE, "plant"))
    parser.add_argument("--out-dir", default=os.path.join(HERE, "output"))
    parser.add_argument("--limit", type=int, default=192, metavar="MB", help="memory that may be used for data")
    parser.add_argument("--size", type=int, default=256, metavar="MB", help="size of the volume")
    parser.add_argument("--sigma", type=float, default=1.0, help="width of the filter, in voxels")
    parser.add_argument("--colours", default="magma", help="matplotlib's name of the picture's colours")
    parser.add_argument("--kill-after", type=int, default=0, metavar="BLOCKS", help="die when so many were filtered")
    parser.add_argument("--whole", action="store_true", help="read the volume in one piece, to see the limit hold")
    arguments = parser.parse_args()

    config = VolumeConfig()
    config.megabytes, config.sigma, config.colours = arguments.size, arguments.sigma, arguments.colours
    config.kill_after, config.whole, config.out_dir = arguments.kill_after, arguments.whole, arguments.out_dir
    os.makedirs(config.out_dir, exist_ok=True)
    limit_memory(arguments.limit)
    with Peak() as peak, Plant(arguments.plant_dir) as plant:
        plant.add_event_listener(Plant.EventType.reactor_started, tell)
        plant.set_config(config)
        try:
            plant.run_reactor(report)
        except MemoryError as error:
            sys.exit(f"MemoryError: {error}")
    print(f"blocks filtered by this process: about {round(Progress.filtered, -1)}")
    print(f"limit {arguments.limit} MB, private memory below {rounded_up(peak.bytes - peak.base)} MB")


if __name__ == "__main__":
    main()

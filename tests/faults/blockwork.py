"""The plant whose worker processes die: arrays that are filled block by block, beside work that is none of theirs.

A worker dies as it finds a file for its block in the folder that ``DEATHS`` names: ``once-7`` is removed first, so that
the next one lives; of ``always-7`` everyone dies. How they die says the folder's file ``way``.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from pyplantx import Plant, ReactorFunc, specs

#: Variable of the environment: the folder that says who is to die, and how.
DEATHS = "PYPLANTX_TEST_DEATHS"
BLOCKS, LENGTH = 24, 4096
MEMORY = 16 * 8 * LENGTH  #: bytes for a loop
#: Bytes that a worker takes in its cgroup, whose limit is a fraction of that.
TOO_MUCH = 1 << 28

#: What a worker's end is called in an error.
ENDS = {"kill": "SIGKILL", "exit": "status 3", "memory": "SIGKILL"}


def squared(block: Any) -> Any:
    """The squares of a block, if the worker lives to give them."""
    meet_death(int(block[0]) // LENGTH)
    return block * block


def negated(block: Any) -> Any:
    """The same with another function, for another reactor."""
    meet_death(int(block[0]) // LENGTH)
    return -block


def meet_death(number: int) -> None:
    """Die if that is this block's lot."""
    folder = Path(os.environ[DEATHS])
    if (folder / f"always-{number}").exists():
        die(folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / f"once-{number}")
        die(folder)


def die(folder: Path) -> None:
    """End this process in the way of this round."""
    way, _, place = (folder / "way").read_text().partition(" ")
    if way == "exit":
        os._exit(3)
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    Path(place, "cgroup.procs").write_text(str(os.getpid()))
    bytearray(TOO_MUCH)  # zeros of it are asked for, and touched, one page after the other
    raise AssertionError(f"{TOO_MUCH:,} bytes are no more than the limit")


@ReactorFunc(name="source")
def source(pipe: Any) -> Any:
    array = pipe.allocate("numbers", specs.ArraySpec, shape=(BLOCKS * LENGTH,), dtype="f8")
    array[...] = np.arange(BLOCKS * LENGTH)
    pipe.send("numbers", array)
    return
    yield


@ReactorFunc(name="squares")
def squares(pipe: Any) -> Any:
    numbers = yield pipe.receive("numbers")
    out = pipe.allocate("squares", specs.ArraySpec, shape=numbers.shape, dtype="f8")
    pipe.map_blocks(squared, numbers, out=out, memory=MEMORY)
    pipe.send("squares", out)


@ReactorFunc(name="negatives")
def negatives(pipe: Any) -> Any:
    numbers = yield pipe.receive("numbers")
    out = pipe.allocate("negatives", specs.HdfArraySpec, shape=numbers.shape, dtype="f8")
    pipe.map_blocks(negated, numbers, out=out, memory=MEMORY)
    pipe.send("negatives", out)


@ReactorFunc(name="apart")
def apart(pipe: Any) -> Any:
    pipe.send("apart", 7)
    return
    yield


REACTORS = (source, squares, negatives, apart)


def expected(name: str) -> Any:
    """What an ingredient holds."""
    numbers = np.arange(BLOCKS * LENGTH, dtype="f8")
    return {"squares": numbers * numbers, "negatives": -numbers, "numbers": numbers, "apart": 7}[name]


def is_right(name: str, value: Any) -> bool:
    """Whether an ingredient holds what it must."""
    return bool(np.array_equal(np.asarray(value), expected(name)))


def opened(directory: str, **options: Any) -> Plant:
    """A plant with these reactors."""
    plant = Plant(directory, **options)
    plant.add_reactors(REACTORS)
    return plant

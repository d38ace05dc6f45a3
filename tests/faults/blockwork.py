"""The plant whose worker processes die: arrays that are filled block by block, beside work that is none of theirs.

A worker dies as it finds a file for its function and block in the folder that ``DEATHS`` names: ``once-squared-7`` is
removed first, so that the next one lives; of ``always-negated-7`` everyone dies. How they die says the folder's file
``way``.
"""

from __future__ import annotations

import contextlib
import operator
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from pyplantx import Plant, ReactorFunc, specs

#: Variable of the environment: the folder that says who is to die, and how.
DEATHS = "PYPLANTX_TEST_DEATHS"
#: A block is more than a socket takes at once, so that workers also die in the midst of a message.
BLOCKS, LENGTH = 24, 1 << 15
#: How loops are cut into these blocks, on every machine.
CUT: dict[str, Any] = {"workers": 2, "memory": 16 * 8 * LENGTH}
CUT_REDUCED: dict[str, Any] = {"workers": 2, "memory": 8 * 8 * LENGTH}
#: Bytes that a worker takes in its cgroup, whose limit is a fraction of that.
TOO_MUCH = 1 << 28

#: What a worker's end is called in an error.
ENDS = {"kill": "it was killed by SIGKILL", "exit": "it ended with status 3", "memory": "it was killed by SIGKILL"}


def squared(block: Any) -> Any:
    """The squares of a block, if the worker lives to give them."""
    meet_death("squared", block)
    return block * block


def raised(block: Any) -> Any:
    """One more than a block, which shows in place whether it was done twice."""
    meet_death("raised", block)
    return block + 1


def summed(block: Any) -> float:
    """The sum of a block."""
    meet_death("summed", block)
    return float(block.sum())


def negated(block: Any) -> Any:
    """The opposite of a block, for the reactor whose workers all die."""
    meet_death("negated", block)
    return -block


def meet_death(function: str, block: Any) -> None:
    """Die if that is this block's lot."""
    if DEATHS not in os.environ:  # the clean process that runs what a life has not come to
        return
    folder, lot = Path(os.environ[DEATHS]), f"{function}-{int(block[0]) // LENGTH}"
    if (folder / f"always-{lot}").exists():
        die(folder)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / f"once-{lot}")
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


@ReactorFunc(name="counts")
def counts(pipe: Any) -> Any:
    array = pipe.allocate("numbers", specs.ArraySpec, shape=(BLOCKS * LENGTH,), dtype="f8")
    array[...] = np.arange(BLOCKS * LENGTH)
    pipe.send("numbers", array)
    return
    yield


@ReactorFunc(name="multiplies")
def multiplies(pipe: Any) -> Any:
    numbers = yield pipe.receive("numbers")  # which workers read from the store
    out = pipe.allocate("squares", specs.ArraySpec, shape=numbers.shape, dtype="f8")
    pipe.map_blocks(squared, numbers, out=out, **CUT)
    pipe.send("squares", out)


@ReactorFunc(name="climbs")
def climbs(pipe: Any) -> Any:
    numbers = yield pipe.receive("numbers")
    out = pipe.allocate("successors", specs.ArraySpec, shape=numbers.shape, dtype="f8")
    out[...] = numbers
    pipe.map_blocks(raised, out, out=out, **CUT)  # blocks that are sent to workers
    pipe.send("successors", out)


@ReactorFunc(name="adds")
def adds(pipe: Any) -> Any:
    numbers = yield pipe.receive("numbers")
    pipe.send("total", pipe.reduce_blocks(summed, numbers, combine=operator.add, **CUT_REDUCED))


@ReactorFunc(name="subtracts")
def subtracts(pipe: Any) -> Any:
    numbers = yield pipe.receive("numbers")
    pipe.send("early", 11)
    out = pipe.allocate("negatives", specs.HdfArraySpec, shape=numbers.shape, dtype="f8")
    pipe.map_blocks(negated, numbers, out=out, **CUT)
    pipe.send("negatives", out)


@ReactorFunc(name="stands_apart")
def stands_apart(pipe: Any) -> Any:
    pipe.send("apart", 7)
    return
    yield


REACTORS = (counts, multiplies, climbs, adds, subtracts, stands_apart)
#: What is filled while some workers die, and by which function.
LOOPS = {"squares": "squared", "successors": "raised", "total": "summed"}
#: What the reactor sends that all workers leave alone with a block.
FAILING = ("early", "negatives")
NAMES = ("numbers", *LOOPS, *FAILING, "apart")


def expected(name: str) -> Any:
    """What an ingredient holds."""
    numbers = np.arange(BLOCKS * LENGTH, dtype="f8")
    return {
        "numbers": numbers,
        "squares": numbers * numbers,
        "successors": numbers + 1,
        "total": numbers.sum(),
        "early": 11,
        "negatives": -numbers,
        "apart": 7,
    }[name]


def is_right(name: str, value: Any) -> bool:
    """Whether an ingredient holds what it must."""
    return bool(np.array_equal(np.asarray(value), expected(name)))


def opened(directory: str, **options: Any) -> Plant:
    """A plant with these reactors."""
    plant = Plant(directory, **options)
    plant.add_reactors(REACTORS)
    return plant

"""SIGKILL at random instants of a running plant, thousands of times, on one directory.

    python -m tests.faults.kills --kills 2000
    python -m tests.faults.kills --kills 200 --durability process
    python -m tests.faults.kills --kills 200 --told
    python -m tests.faults.kills --kills 40 --told --broken early_announcement    (must fail: the positive control)

Each round begins a process on the directory that the last one was killed on, and kills it after a random time, or as
soon as it has told that some reactor has finished. Every ten rounds, what is left is examined (`verdict.examine`).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from typing import Any, NamedTuple

from tests.faults import broken, program
from tests.faults.children import Child, Ended, Tell, scratch
from tests.faults.verdict import Tally, debts, examine, values_told

#: Rounds on one directory.
ROUNDS = 10
#: Seconds that a process lives at most after it was doomed: a commit is due every 0.025.
LONGEST = 0.06


def work(directory: str, seed: int, durability: str, tell: Tell) -> None:
    """Two configs one after the other, and a look at the store's health now and then."""
    with program.open_plant(directory, seed, tell, durability=durability) as plant:
        for number in (seed, seed + 1):
            plant.set_config(program.configured(number))
            plant.produce("total")
        plant.warehouse.backup()
        plant.warehouse.check(fix=True)


def round_of(directory: str, seed: int, moment: Moment, durability: str) -> Ended:
    """One process, killed at a moment (at its end at the latest)."""
    child = Child(lambda tell: work(directory, seed, durability, tell))
    child.wait_for(moment.what, moment.times)
    time.sleep(moment.later)
    child.kill(signal.SIGKILL)
    return child.end()


class Moment(NamedTuple):
    """When a process has told something so many times, and so many seconds later."""

    what: str
    times: int
    later: float


def drawn(chance: random.Random, told: bool) -> Moment:
    """Any moment, or one at which a reactor has just been told to have finished."""
    times = chance.randint(0, 2 * len(program.REACTORS))
    return Moment("finished", 1 + times, 0.0) if told else Moment("started", times, chance.uniform(0.0, LONGEST))


def on_one_directory(directory: str, chance: random.Random, options: argparse.Namespace, tally: Tally) -> None:
    """Some rounds; each finishes the config at which the last one was killed, and begins one more."""
    endeds = []
    for seed in range(1, ROUNDS + 1):
        ended = round_of(directory, seed, drawn(chance, options.told), options.durability)
        endeds.append(ended)
        announced = sum(line.startswith("finished") for line in ended.lines)
        tally.case("kill", values_told(ended), announced=announced, killed=ended.status == -signal.SIGKILL)
    tally.add("afterwards", examine(directory, debts(endeds, tuple(range(1, ROUNDS + 2)))))


def campaign(options: argparse.Namespace) -> int:
    title = f"kills ({options.durability})" + (f" broken={options.broken}" if options.broken else "")
    tally, chance = Tally(title), random.Random(options.seed)
    broken.apply(options.broken)
    with scratch() as place:
        while tally.counts["cases"] < options.kills and not (options.until_found and tally.found):
            directory = os.path.join(place, "plant")
            on_one_directory(directory, chance, options, tally)
            shutil.rmtree(directory, ignore_errors=True)
    return tally.finish()


def main(arguments: Any = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--durability", default="power", choices=("power", "process"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--told", action="store_true", help="kill when a reactor has been told to have finished")
    parser.add_argument("--until-found", action="store_true", help="end at the first broken promise")
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    return campaign(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

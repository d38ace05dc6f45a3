"""A file system in user space whose program goes away while a plant works: sshfs, when the other machine does.

    python -m tests.faults.mounts --cycles 100                                            both ways to lie there (root)
    python -m tests.faults.mounts --cycles 20 --way objects --broken forgetful                          (must fail)

The store's objects, or all of it, lie on a real FUSE mount (``passthrough.py``). Its server is killed at a random
moment: each call for its files fails with ``ENOTCONN`` from then on. Then it is mounted again, and examined.
Memory maps of such files end their process by SIGBUS, which is the kernel's word and nobody's mistake.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import broken, passthrough, program
from tests.faults.children import Child, Ended, scratch
from tests.faults.verdict import Debts, Finding, Tally, debts, end_of, examine, values_told

#: Losses in one store before it is made anew.
LOSSES = 4


class Way(NamedTuple):
    """How a store lies on the mount."""

    kind: str  # of the file system
    is_apart: bool  # its index lies elsewhere


WAYS = {"objects": Way("fuse.sshfs", True), "whole": Way("fuse.bindfs", False)}


def lost(mount: passthrough.Mounted, seed: int, chance: random.Random, options: dict[str, Any]) -> Ended:
    """One process, whose file system goes away after a random number of reactors and a moment."""
    child = Child(lambda tell: program.live(mount.point / "plant", tell, (seed,), **options))
    child.wait_for(chance.choice(("started", "finished")), chance.randint(1, 12))
    time.sleep(chance.uniform(0.0, 0.1))
    mount.lose()
    ended = child.end()
    mount.end()
    return ended


def judged(ended: Ended) -> list[Finding]:
    """As without such a loss, but for maps of files that are no longer there."""
    return values_told(ended) if ended.status == -signal.SIGBUS else values_told(ended) + end_of(ended)


def in_one_store(way: Way, chance: random.Random, tally: Tally) -> None:
    """Some losses: each process goes on with what the last one left, and everything announced is still owed."""
    endeds: list[Ended] = []
    first = program.SMALL if chance.random() < 0.5 else 1
    with scratch() as place:
        options = {"index": os.path.join(place, "index")} if way.is_apart else {}
        with passthrough.mounted(Path(place, "behind"), Path(place, "mount"), way.kind) as mount:
            for number in range(LOSSES):
                endeds.append(lost(mount, first + number, chance, options))
                mount.begin()
                owed = debts(endeds, ())
                seeds = sorted({first + number, *[seed for _, seed in owed.finished]})
                findings = judged(endeds[-1])
                used = tuple(range(first, first + number + 1))  # some may have been stored and not announced
                findings += examine(str(mount.point / "plant"), Debts(owed.finished, tuple(seeds), used), **options)
                announced = sum(line.startswith("finished") for line in endeds[-1].lines)
                maps = int(endeds[-1].status == -signal.SIGBUS)
                tally.case(f"loss {number}", findings, announced=announced, **{"by SIGBUS": maps})


def campaign(name: str, options: argparse.Namespace) -> int:
    tally = Tally(f"FUSE mounts lost, {name}" + (f" broken={options.broken}" if options.broken else ""))
    chance = random.Random(options.seed)
    while tally.counts["cases"] < options.cycles and not (options.broken and tally.found):
        in_one_store(WAYS[name], chance, tally)
    return tally.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=100, help="losses in each way")
    parser.add_argument("--way", choices=sorted(WAYS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    if reason := passthrough.why_not():
        print(f"FUSE mounts lost: not possible here: {reason}")
        return 1
    broken.apply(options.broken)
    return max(campaign(name, options) for name in options.way or WAYS)


if __name__ == "__main__":
    raise SystemExit(main())

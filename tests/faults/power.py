"""Power loss on real file systems: a loop-mounted image, whose file system is shut down without flushing its log.

    python -m tests.faults.power --cycles 300                             all file systems that can be had here (root)
    python -m tests.faults.power --cycles 100 --system xfs
    python -m tests.faults.power --cycles 20 --system xfs --broken missing_sync            (must fail)

A plant works on the mounted image; at a random moment ``EXT4_IOC_SHUTDOWN`` (XFS has the same call) with *no log flush*
makes the file system forget what was not synced, as a power cut does. The process is killed, the image mounted again
(the journal is replayed) and examined. By default ext4 writes out a file that is renamed over another, which hides a
missing sync of such files; with ``noauto_da_alloc``, and on XFS, nothing is written out for that.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.faults import broken, program
from tests.faults.children import Child, Ended, Tell, scratch
from tests.faults.verdict import Debts, Tally, debts, examine, values_told

#: ``_IOR('X', 125, __u32)`` with the flag "no log flush".
SHUTDOWN, NO_LOG_FLUSH = 2 << 30 | 4 << 16 | ord("X") << 8 | 125, struct.pack("I", 2)
#: Power cuts on one image before it is made anew, unless `--cuts` says otherwise.
CUTS = 5


class FileSystem(NamedTuple):
    """How one is made and mounted."""

    make: tuple[str, ...]
    options: str
    size: str


SYSTEMS = {
    "ext4": FileSystem(("mkfs.ext4", "-q", "-F"), "loop", "160M"),
    "ext4 noauto_da_alloc": FileSystem(("mkfs.ext4", "-q", "-F"), "loop,noauto_da_alloc", "160M"),
    "xfs": FileSystem(("mkfs.xfs", "-q", "-f"), "loop", "320M"),
}


def why_not(system: str) -> str:
    """The reason why a file system can't be tried here; empty if it can."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    if shutil.which(SYSTEMS[system].make[0]) is None:
        return f"{SYSTEMS[system].make[0]} is not installed"
    with scratch() as place:
        try:
            with Disk(place, SYSTEMS[system]) as disk:
                disk.cut_power()
                disk.mount_again()
        except (subprocess.CalledProcessError, OSError) as error:
            return f"no image can be mounted and shut down here: {getattr(error, 'stderr', '') or error}"
    return ""


class Disk:
    """An image, mounted."""

    def __init__(self, place: str, system: FileSystem) -> None:
        self._image, self.path = os.path.join(place, "image"), os.path.join(place, "disk")
        self._system = system

    def __enter__(self) -> Disk:
        os.makedirs(self.path, exist_ok=True)
        with open(self._image, "wb"):
            pass
        subprocess.run(["truncate", "-s", self._system.size, self._image], check=True)
        _run(*self._system.make, self._image)
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._unmount()
        os.unlink(self._image)

    def cut_power(self) -> None:
        """From now on nothing reaches the image; what was not synced is forgotten."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def mount_again(self) -> None:
        """After the cut: the journal is replayed."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", self._system.options, self._image, self.path)

    def _unmount(self) -> None:
        for _ in range(50):  # a dying process may hold it for a moment
            ran = subprocess.run(["umount", self.path], capture_output=True)
            if ran.returncode == 0:
                return
            time.sleep(0.05)
        _run("umount", self.path)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def mounted(system: str) -> Iterator[Disk]:
    """A fresh image on a scratch directory."""
    with scratch() as place, Disk(place, SYSTEMS[system]) as disk:
        yield disk


def work(directory: str, first: int, tell: Tell) -> None:
    """Configs without end, until the power goes."""
    with program.open_plant(directory, first, tell) as plant:
        for seed in range(first, first + 1000):
            plant.set_config(program.configured(seed))
            plant.produce("total")
            plant.warehouse.backup()


def cut(disk: Disk, directory: str, first: int, chance: random.Random) -> Child:
    """One process, whose power goes after a random number of reactors and a moment."""
    child = Child(lambda tell: work(directory, first, tell))
    child.wait_for("started", chance.randint(1, 14))
    time.sleep(chance.uniform(0.0, 0.06))
    disk.cut_power()
    child.kill(signal.SIGKILL)
    return child


def on_one_image(system: str, cuts: int, chance: random.Random, tally: Tally) -> None:
    """Some cuts on one image: each goes on with what the last one left, and everything announced is still owed."""
    endeds, seeds = [], program.SMALL if chance.random() < 0.5 else 1
    with mounted(system) as disk:
        directory = os.path.join(disk.path, "plant")
        for number in range(cuts):
            ended = cut(disk, directory, seeds + number, chance).end()
            endeds.append(ended)
            disk.mount_again()
            announced = sum(line.startswith("finished") for line in ended.lines)
            findings = values_told(ended) + examine(directory, _owed(endeds, seeds, seeds + number))
            tally.case(f"cut {number}", findings, announced=announced)


def _owed(endeds: list[Ended], first: int, seed: int) -> Debts:
    """What was announced. A process may have finished some configs more, unannounced, before the power went."""
    finished = debts(endeds, ()).finished
    used = {seed, *[other for _, other in finished]}
    return Debts(finished, tuple(sorted(used)), tuple(range(first, max(used) + 20)))


def campaign(system: str, options: argparse.Namespace) -> int:
    tally = Tally(f"power loss on {system}" + (f" broken={options.broken}" if options.broken else ""))
    chance = random.Random(options.seed)
    while tally.counts["cases"] < options.cycles:
        on_one_image(system, options.cuts, chance, tally)
    return tally.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=300, help="power cuts on each file system")
    parser.add_argument("--cuts", type=int, default=CUTS, help="power cuts on one image before it is made anew")
    parser.add_argument("--system", choices=sorted(SYSTEMS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    reasons = {system: why_not(system) for system in options.system or SYSTEMS}
    for system, reason in reasons.items():
        if reason:
            print(f"power loss on {system}: not possible here: {reason}")
    broken.apply(options.broken)
    possible = [system for system, reason in reasons.items() if not reason]
    return max((campaign(system, options) for system in possible), default=1)


if __name__ == "__main__":
    raise SystemExit(main())

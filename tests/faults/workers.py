"""Worker processes that die while they compute blocks, hundreds of times.

    python -m tests.faults.workers --way kill --deaths 200       SIGKILL from outside, at random moments
    python -m tests.faults.workers --way exit --deaths 200       os._exit(3) in the user's function
    python -m tests.faults.workers --way memory --deaths 200     the kernel, in a cgroup of 100 MB (root)
    python -m tests.faults.workers --way exit --deaths 200 --broken believed_deaths          (must fail)

In each round a plant of its own fills one array from a stored one, one in place, and sums up a third. Some blocks lose
the worker that they were given to, and each is tried once more. Then one block of a fourth loses every worker: the
error names how they ended, the block, the reactor and what was demanded; what else was demanded is made; of what the
reactor sent nothing is to be seen; and when nobody dies any more, the same plant goes on. Meanwhile and afterwards no
process and no descriptor is left, and a clean process finds all values, without running anything.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import tempfile
import threading
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from pyplantx import Plant
from pyplantx.errors import ReactorError
from tests.executors.waiting import is_gone, until
from tests.faults import blockwork, broken
from tests.faults.children import Child, Ended, Tell, run_child, scratch, told
from tests.faults.verdict import Finding, Tally, end_of

#: Bytes of the cgroup.
LIMIT = 100_000_000
#: Blocks that lose one worker in a round; how many the one that loses all of them is given; kills from outside.
ONCE, ALWAYS, KILLS = 5, 2, 8
#: How often a demand is repeated whose blocks met two kills from outside.
PATIENCE = KILLS
#: Seconds for a round; within which killed processes are gone.
LONGEST, GONE_IN = 90.0, 5.0


def life(directory: str, folder: str, always: int, tell: Tell) -> None:
    """What a process does while its workers die."""
    os.environ[blockwork.DEATHS] = folder
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as programs do that are piped into others
    before = descriptors()
    with blockwork.opened(directory, executor="processes") as plant:
        plant.add_event_listener(Plant.EventType.reactor_finished, lambda _, name, __: tell(f"finished {name}"))
        plant.produce("numbers")
        without_workers = descriptors()
        tell("begun")
        for name in blockwork.LOOPS:
            tell(f"got {name} {persistent(plant, name, tell)}")
        tell("harmless")
        meet_always(plant, Path(folder), always, tell)
        for name in blockwork.NAMES:
            tell(f"got {name} {blockwork.is_right(name, plant.produce(name))}")
        workers = children_of(os.getpid())
        tell(f"workers {' '.join(map(str, workers))}")
        tell(f"descriptors {descriptors() - without_workers - len(workers)}")
    tell(f"descriptors {descriptors() - before}")


def persistent(plant: Plant, name: str, tell: Tell) -> bool:
    """Whether an ingredient is right; a block that met two kills ends the reactor, which then goes on where it was."""
    for _ in range(PATIENCE):
        try:
            return blockwork.is_right(name, plant.produce(name))
        except ReactorError as error:
            if "each time it died" not in str(error):
                raise
        tell("refused")
    return blockwork.is_right(name, plant.produce(name))


def meet_always(plant: Plant, folder: Path, block: int, tell: Tell) -> None:
    """One block loses every worker that it is given to."""
    lot = folder / f"always-negated-{block}"
    lot.touch()
    demand = ("negatives", "apart")
    try:
        plant.produce(*demand[:: 1 if block % 2 else -1])
        tell("unclear nobody told that all workers of a block have died")
    except ReactorError as error:
        tell("refused")
        story = " | ".join([str(error), *getattr(error, "__notes__", ())])
        died = f"2 times, and each time it died: {'; '.join([ends(folder)] * 2)}"
        named = (died, f"block {block + 1} of", "reactor subtracts", "'negatives' was demanded")
        lacking = [part for part in named if part not in story]
        if lacking:
            tell(f"unclear {', '.join(lacking)} is not in: {story}".replace("\n", " "))
    look_around(plant, tell)
    lot.unlink()


def look_around(plant: Plant, tell: Tell) -> None:
    """After an error: others of the same demand are done, nothing is there of who failed, and the store is sound."""
    if not plant.is_ingredient_known("apart"):
        tell("found lost what else was demanded was not made")
    for name in blockwork.FAILING:
        if plant.is_ingredient_known(name):
            tell(f"found wrong {name} is there, though its reactor has failed")
    tell_problems(plant, tell)


def tell_problems(plant: Plant, tell: Tell) -> None:
    """What a check of the store finds."""
    for problem in plant.check():
        if not problem.harmless:
            tell(f"found unusable check: {problem.kind} {problem.where} {problem.what}")


def ends(folder: Path) -> str:
    """How an error calls the way in which workers end."""
    return blockwork.ENDS[(folder / "way").read_text().partition(" ")[0]]


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def children_of(pid: int) -> list[int]:
    """The processes that a process has begun and not yet asked about."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it, or one of its threads, has just ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


class Killer(threading.Thread):
    """Kills workers of a process at random moments, a number of times or until it is stopped."""

    def __init__(self, pid: int, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self._pid, self._chance, self._over = pid, chance, threading.Event()

    def run(self) -> None:
        while self.killed < KILLS and not self._over.wait(self._chance.uniform(0.0, 0.15)):
            workers = [pid for pid in children_of(self._pid) if not is_gone(pid)]
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._chance.choice(workers), signal.SIGKILL)
                    self.killed += 1

    def stop(self) -> None:
        """No more kills from now on."""
        self._over.set()
        self.join()


def round_of(directory: str, folder: Path, way: str, most: int, chance: random.Random) -> tuple[Ended, int]:
    """One process, in which no more die than are wanted or one block costs; how it ended, and how many it lost."""
    lots = [f"once-{function}-{block}" for function in blockwork.LOOPS.values() for block in range(blockwork.BLOCKS)]
    once = chance.sample(lots, 0 if way == "kill" else min(ONCE, max(0, most - ALWAYS)))
    for lot in once:
        (folder / lot).touch()
    child = Child(lambda tell: life(directory, str(folder), chance.randrange(blockwork.BLOCKS), tell))
    killer = Killer(child.pid, chance)
    if way == "kill" and child.wait_for("begun", limit=LONGEST):
        killer.start()
        child.wait_for("harmless", limit=LONGEST)
        killer.stop()
    ended = child.end(LONGEST)
    return ended, killer.killed + len(once) + ALWAYS


def judged(ended: Ended, folder: Path) -> Iterator[Finding]:
    """What a process had to keep while its workers died."""
    yield from end_of(ended)
    if ended.status and not ended.hung and not ended.crashed:
        yield Finding("unclear", f"ended with {ended.status}: {ended.errors[-3000:]}")
    yield from (
        Finding("wrong", f"a living process got another {name}")
        for name, right in told(ended, "got")
        if right != "True"
    )
    yield from found_by(ended)
    for (more,) in told(ended, "descriptors"):
        if int(more) > 0:
            yield Finding("unusable", f"{more} descriptors are left open")
    left = [int(pid) for pids in told(ended, "workers") for pid in pids if not is_gone_soon(int(pid))]
    if left:
        yield Finding("unusable", f"workers {left} outlive their plant")
    forgotten = [path.name for path in folder.iterdir() if path.name != "way"]
    if forgotten and not ended.status:
        yield Finding("unclear", f"blocks were never tried: {forgotten}")


def found_by(ended: Ended) -> list[Finding]:
    """What a process has found, as it told."""
    return [Finding(kind, " ".join(story)) for kind, *story in told(ended, "found")]


def is_gone_soon(pid: int) -> bool:
    """Whether there is no such process, at once or in a while."""
    with contextlib.suppress(AssertionError):
        until(lambda: is_gone(pid), GONE_IN)
    return is_gone(pid)


def examined(directory: str, before: Ended) -> list[Finding]:
    """A clean process finds everything, and runs nothing that was announced."""
    announced = {name for (name,) in told(before, "finished")}
    if not before.status and len(announced) < len(blockwork.REACTORS):
        return [Finding("lost", f"only {sorted(announced)} were announced")]
    ended = run_child(lambda tell: examine(directory, announced, tell), LONGEST)
    return found_by(ended) + (
        [Finding("unusable", f"examining ended with {ended.status}\n{ended.errors}")] if ended.status else []
    )


def examine(directory: str, announced: Container[str], tell: Tell) -> None:
    """Look at what a round has left."""
    started: list[str] = []
    with blockwork.opened(directory) as plant:
        plant.add_event_listener(Plant.EventType.reactor_started, lambda event, name, function: started.append(name))
        for name in blockwork.NAMES:
            if not blockwork.is_right(name, plant.produce(name)):
                tell(f"found wrong the store has another {name}")
        for name in started:
            if name in announced:
                tell(f"found lost {name} was announced and runs again")
        tell_problems(plant, tell)


# --- the kernel's way --------------------------------------------------------------------------------------


@contextlib.contextmanager
def cgroup(way: str) -> Iterator[str]:
    """A cgroup with too little memory, if that is the way; its folder."""
    if way != "memory":
        yield ""
        return
    made = Path(tempfile.mkdtemp(prefix="pyplantx-faults-", dir=_hierarchy()))
    try:
        _limit(made)
        yield str(made)
    finally:
        made.rmdir()


def _hierarchy() -> Path:
    """Where cgroups with a limit of memory can be made."""
    old = Path("/sys/fs/cgroup/memory")
    return old if old.is_dir() else Path("/sys/fs/cgroup")


def _limit(group: Path) -> None:
    names = ("memory.limit_in_bytes", "memory.max")
    next(group / name for name in names if (group / name).exists()).write_text(str(LIMIT))
    for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):  # swapping is none of our business
        with contextlib.suppress(OSError):
            (group / name).write_text(str(LIMIT if "memsw" in name else 0))


def why_not(ways: Iterable[str]) -> str:
    """Why it can't be tried here; empty if it can."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return "there is no /proc that tells a process's children"
    if "memory" not in ways:
        return ""
    try:
        with cgroup("memory"):
            return ""
    except (OSError, StopIteration) as error:
        return f"no cgroup with a limit of memory can be made ({error or 'no such limit'})"


# --- campaign ----------------------------------------------------------------------------------------------


def campaign(way: str, options: argparse.Namespace) -> int:
    tally, chance = (
        Tally(f"workers {way}" + (f" broken={options.broken}" if options.broken else "")),
        random.Random(options.seed),
    )
    with scratch() as place, cgroup(way) as group:
        while tally.counts["deaths"] < options.deaths and not (options.until_found and tally.found):
            number = tally.counts["cases"]
            folder, directory = Path(place, f"deaths{number}"), os.path.join(place, f"plant{number}")
            folder.mkdir()
            (folder / "way").write_text(f"{way} {group}")
            most = options.deaths - tally.counts["deaths"]
            ended, deaths = round_of(directory, folder, way, most, chance)
            refused = sum(line == "refused" for line in ended.lines)
            tally.case(
                f"round {number}", [*judged(ended, folder), *examined(directory, ended)], deaths=deaths, refused=refused
            )
    return tally.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=sorted(blockwork.ENDS), default="kill")
    parser.add_argument("--deaths", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until-found", action="store_true", help="end at the first broken promise")
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    reason = why_not([options.way])
    if reason:
        raise SystemExit(f"not possible here: {reason}")
    broken.apply(options.broken)
    return campaign(options.way, options)


if __name__ == "__main__":
    raise SystemExit(main())

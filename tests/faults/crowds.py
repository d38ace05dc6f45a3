"""Many processes and threads on one directory: killed, stopped, forked, while others read and collect.

    python -m tests.faults.crowds --scenario processes --rounds 20
    python -m tests.faults.crowds --scenario all --rounds 5
    python -m tests.faults.crowds --scenario processes --broken no_claims      (must fail: the positive control)

processes   eight do the same work, one after the other is killed: each piece is done once while its worker lives
writers     eight do different work, half of them are killed
threads     sixteen threads, each with a plant of its own on one directory
stopped     the holder stops (SIGSTOP) at a system call: others end in bounded time, with an error that names it
takeover    the worker of a long reactor dies: who waits for it takes over within two seconds
forked      a fork at each point of a plant's life: the parent goes on, the child is told, or opens its own
collected   readers, writers and a collector at once: what was received stays valid
tidied      somebody removes the lock files of a store that is open, and another process opens it: both go on
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import PyplantxError, StoreBusy, WarehouseError
from tests.faults import broken, program, shim
from tests.faults.children import Child, Ended, Tell, run_child, scratch
from tests.faults.verdict import Debts, Finding, Tally, debts, end_of, examine, ran_again, values_told

PROCESSES, THREADS = 8, 16
#: Seconds that the patient wait for a holder, and that they may take to say so on a busy machine.
TIMEOUT, BOUND = 1.0, 8.0
#: Seconds after which one that waits for a stopped holder counts as hanging.
PATIENCE = 20.0
#: Seconds within which a dead worker's work is taken over, as promised.
TAKEOVER = 2.0


# -- eight processes, some killed ---------------------------------------------------------------------


def processes(directory: str, chance: random.Random) -> list[Finding]:
    endeds = _crowd(directory, chance, [1] * PROCESSES)
    findings = [finding for ended in endeds for finding in _of_worker(ended)]
    findings += _done_twice([ended for ended in endeds if ended.status == 0])
    return findings + examine(directory, debts(endeds, (1,)))


def writers(directory: str, chance: random.Random) -> list[Finding]:
    seeds = tuple(range(1, PROCESSES + 1))
    endeds = _crowd(directory, chance, seeds)
    findings = [finding for ended in endeds for finding in _of_worker(ended)]
    return findings + examine(directory, debts(endeds, seeds))


def _crowd(directory: str, chance: random.Random, seeds: Sequence[int]) -> list[Ended]:
    """One process for each seed; half of them are killed."""
    children = [Child(lambda tell, seed=seed: _work(directory, tell, seed)) for seed in seeds]  # type: ignore[misc]
    for child in chance.sample(children, len(children) // 2):
        child.wait_for("started", chance.randint(0, 3), limit=chance.uniform(0.1, 0.4))
        child.kill(signal.SIGKILL)
    return [child.end() for child in children]


def _work(directory: str, tell: Tell, seed: int = 1) -> None:
    with program.open_plant(directory, seed, tell, lock_timeout=60.0) as plant:
        for name in program.NAMES:
            tell(f"got {name} {seed} {program.told(name, plant.produce(name))}")


def _of_worker(ended: Ended) -> list[Finding]:
    findings = values_told(ended)
    if ended.status != -signal.SIGKILL:
        findings += end_of(ended)
    if ended.status > 0:
        findings.append(Finding("unusable", ended.errors[-2000:]))
    return findings


def _done_twice(living: list[Ended]) -> list[Finding]:
    """What two processes did that both lived to the end."""
    starts = Counter(line for ended in living for line in ended.lines if line.startswith("started"))
    return [Finding("lost", f"{line}: {count} times") for line, count in starts.items() if count > 1]


# -- sixteen threads --------------------------------------------------------------------------------


def threads(directory: str, chance: random.Random) -> list[Finding]:
    ended = run_child(lambda tell: _in_threads(directory, tell))
    return _of_worker(ended) + examine(directory, debts([ended], (1, 2)))


def _in_threads(directory: str, tell: Tell) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with program.open_plant(directory, seed, tell) as plant:
                tell(f"got total {seed} {plant.produce('total')}")
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(1 + number % 2,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise ExceptionGroup("in threads", [error for error in errors if isinstance(error, Exception)])


# -- a holder that stops ------------------------------------------------------------------------------


def stopped(directory: str, chance: random.Random, patience: float = PATIENCE) -> list[Finding]:
    """Stop the holder at a call, let another try for so many seconds, kill the holder, examine."""
    place, n = chance.choice([(directory, chance.randint(20, 160)), (f"{directory}/meta.lmdb", chance.randint(3, 14))])
    holder = Child(lambda tell: _stop_at(directory, place, n, tell))
    _wait_until_stopped(holder.pid)
    other = run_child(lambda tell: _try(directory, tell), limit=patience)
    findings = _of_worker(other) + _is_told(other, holder.pid)
    holder.kill(signal.SIGKILL)
    killed = holder.end()
    return findings + examine(directory, debts([killed, other], (1,)))


def _stop_at(directory: str, place: str, n: int, tell: Tell) -> None:
    shim.Shim().arm(place, n, shim.FAULTS["STOP"])
    _work(directory, tell)
    os.kill(os.getpid(), signal.SIGSTOP)  # it had fewer calls than n


def _wait_until_stopped(pid: int) -> None:
    info = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert info is not None and info.si_code == os.CLD_STOPPED, info


def _try(directory: str, tell: Tell) -> None:
    begun = time.monotonic()
    try:
        with program.open_plant(directory, 1, tell, lock_timeout=TIMEOUT, claim_timeout=TIMEOUT) as plant:
            tell(f"got total 1 {plant.produce('total')}")
    except StoreBusy as error:
        tell(f"busy {error}".replace("\n", " | "))
    tell(f"took {time.monotonic() - begun:.2f}")


def _is_told(other: Ended, holder: int) -> list[Finding]:
    """In bounded time, and if it could not go on: by whom, where and since when the store is held."""
    findings = []
    for line in other.lines:
        if line.startswith("took") and float(line.split()[1]) > len(program.REACTORS) * TIMEOUT + BOUND:
            findings.append(Finding("unusable", f"a stopped holder was waited for: {line} s"))
        if line.startswith("busy") and not re.search(rf"process {holder} on \S+ since \d{{4}}-", line):
            findings.append(Finding("unclear", line))
    return findings


# -- a worker that dies -------------------------------------------------------------------------------


@ReactorFunc(sends="long work")
def long_work(pipe: Any, config: Any) -> None:
    while not os.path.exists(pipe.read_config_unregistered("go_on")):
        time.sleep(0.005)
    pipe.send("long work", 42)


def _long(directory: str, tell: Tell) -> None:
    with Plant(directory, config=program.SimpleNamespace(go_on=directory + ".go-on")) as plant:
        plant.add_reactors(long_work)
        plant.add_event_listener(Plant.EventType.reactor_started, lambda *_: tell("started"))
        tell("asks")
        tell(f"has {plant.produce('long work')} {time.monotonic()}")


def takeover(directory: str, chance: random.Random) -> list[Finding]:
    worker = Child(lambda tell: _long(directory, tell))
    worker.wait_for("started")
    waiting = [Child(lambda tell: _long(directory, tell)) for _ in range(3)]
    for child in waiting:
        child.wait_for("asks")
    time.sleep(0.2)  # they are to wait for the claim when the worker dies
    with open(directory + ".go-on", "w"):
        died = time.monotonic()
        worker.kill(signal.SIGKILL)
    worker.end()
    endeds = [child.end() for child in waiting]
    os.unlink(directory + ".go-on")
    findings = [finding for ended in endeds for finding in _of_worker(ended)] + _done_twice(endeds)
    findings += [Finding("lost", line) for line in _last_lines(endeds) if not line.startswith("has 42")]
    seconds = max((float(line.split()[2]) - died for line in _last_lines(endeds) if line.startswith("has")), default=0)
    return findings + ([Finding("unusable", f"taken over after {seconds:.1f} s")] if seconds > TAKEOVER else [])


def _last_lines(endeds: list[Ended]) -> list[str]:
    return [ended.lines[-1] if ended.lines else "nothing" for ended in endeds]


# -- forks --------------------------------------------------------------------------------------------

#: Where a fork happens in the life below.
POINTS = ("opened", "producing", "produced", "queued", "reading", "allocated", "backed up", "closed")


def forked(directory: str, chance: random.Random) -> list[Finding]:
    findings = []
    for point in POINTS:
        ended = run_child(lambda tell, point=point: _fork_at(directory, point, tell))  # type: ignore[misc]
        findings += [Finding(kind, f"fork when {point}: {story}") for kind, story in _of_worker(ended)]
    return findings + examine(directory, Debts(set(), (1, 2)))


def _fork_at(directory: str, point: str, tell: Tell) -> None:
    """A plant's life; at one point a child is forked, which looks and opens its own, while the parent goes on."""
    grandchildren: list[Child] = []

    def at(here: str) -> None:
        if here == point:
            grandchildren.append(Child(lambda inner: _after_fork(plant, directory, inner)))

    plant = program.open_plant(directory, 1, tell)
    at("opened")
    plant.add_event_listener(Plant.EventType.reactor_step, lambda *_: at("producing"))
    tell(f"got total 1 {plant.produce('total')}")
    at("produced")
    ref = plant.warehouse.store("tiny", 1001)
    plant.warehouse.put_code("0" * 32, "a note that waits in the queue")
    at("queued")
    dataset = plant.warehouse.open(plant.find_ingredient("dataset"))
    at("reading")
    tell(f"got dataset 1 {program.told('dataset', dataset)}")
    allocated = plant.warehouse.allocate("report", "file", suffix=".txt")
    at("allocated")
    allocated.discard()
    plant.warehouse.backup()
    at("backed up")
    assert plant.warehouse.open(ref) == 1001
    plant.close()
    at("closed")
    for child in grandchildren:
        _judge_grandchild(child.end(), tell)


def _after_fork(plant: Plant, directory: str, tell: Tell) -> None:
    """In the child of a fork: the inherited plant refuses, an own one works."""
    try:
        plant.produce("total")
        tell("unclear the inherited plant answers")
    except PyplantxError as error:
        tell(f"refused {type(error).__name__}")
    try:
        plant.close()
    except PyplantxError as error:
        tell(f"refused {type(error).__name__}")
    with program.open_plant(directory, 2, tell) as own:
        tell(f"got total 2 {own.produce('total')}")


def _judge_grandchild(ended: Ended, tell: Tell) -> None:
    for line in ended.lines:
        tell(line)
    if ended.status != 0:
        errors = ended.errors[-1500:].replace("\n", " | ")
        tell(f"unclear the forked child ended with {ended.status}{' (hung)' if ended.hung else ''}: {errors}")


# -- readers and a collector --------------------------------------------------------------------------


def collected(directory: str, chance: random.Random) -> list[Finding]:
    seeds = tuple(range(1, 5))
    with program.open_plant(directory, 1) as plant:
        plant.produce("total")
    until = time.monotonic() + 3.0
    actions: list[Callable[[Tell], object]] = [
        lambda tell: _read(directory, until, tell),
        lambda tell: _read(directory, until, tell),
        lambda tell: _write(directory, seeds, until, tell),
        lambda tell: _collect(directory, until, tell),
    ]
    children = [Child(action) for action in actions]
    endeds = [child.end() for child in children]
    findings = [finding for ended in endeds for finding in _of_worker(ended)]
    return findings + examine(directory, Debts(set(), seeds))


def _read(directory: str, until: float, tell: Tell) -> None:
    held: list[tuple[str, int, Any]] = []
    while time.monotonic() < until:
        with program.open_plant(directory, 1) as plant:
            for name in ("long_array", "dataset", "matrix"):
                value = plant.produce(name)
                held.append((name, 1, value))
                tell(f"got {name} 1 {program.told(name, value)}")
    for name, seed, value in held[-9:]:  # files that may be removed by now
        if name not in program.DATASETS:
            tell(f"got {name} {seed} {program.told(name, value)}")


def _write(directory: str, seeds: tuple[int, ...], until: float, tell: Tell) -> None:
    number = 0
    while time.monotonic() < until:
        seed = seeds[number % len(seeds)]
        number += 1
        with program.open_plant(directory, seed) as plant:
            tell(f"got total {seed} {plant.produce('total')}")


def _collect(directory: str, until: float, tell: Tell) -> None:
    while time.monotonic() < until:
        with program.open_plant(directory, 1) as plant:
            try:
                plant.gc(keep_versions=1)
                plant.warehouse.check(fix=True)
            except WarehouseError as error:
                tell(f"refused {error}")


# -- somebody who knows nothing of stores ---------------------------------------------------------------------------


def tidied(directory: str, chance: random.Random) -> list[Finding]:
    first, second = (tuple(range(program.SMALL + at, program.SMALL + at + 4)) for at in (1, 21))
    one = Child(lambda tell: _live_on(directory, first, tell))
    one.wait_for("got", 1 + chance.randrange(3))
    for path in os.scandir(os.path.join(directory, "locks")):
        os.unlink(path)
    other = Child(lambda tell: _live_on(directory, second, tell))
    endeds = [one.end(), other.end()]
    findings = [finding for ended in endeds for finding in (*_of_worker(ended), *ran_again(ended))]
    return findings + examine(directory, debts(endeds, first + second))


def _live_on(directory: str, seeds: Sequence[int], tell: Tell) -> None:
    with program.open_plant(directory, seeds[0], tell) as plant:
        for seed in seeds:
            plant.set_config(program.configured(seed))
            tell(f"got total {seed} {plant.produce('total')}")


SCENARIOS: dict[str, Callable[[str, random.Random], list[Finding]]] = {
    function.__name__: function
    for function in (processes, writers, threads, stopped, takeover, forked, collected, tidied)
}
#: Those that need the shim.
SHIMMED = {"stopped"}


def campaign(options: argparse.Namespace, names: list[str]) -> int:
    broken.apply(options.broken)
    worst = 0
    for name in names:
        scenario = partial(stopped, patience=options.patience) if name == "stopped" else SCENARIOS[name]
        tally, chance = (
            Tally(f"crowds {name}" + (f" broken={options.broken}" if options.broken else "")),
            random.Random(1),
        )
        with scratch() as place:
            for number in range(options.rounds):
                directory = os.path.join(place, "plant")
                tally.case(f"round {number}", scenario(directory, chance))
                shutil.rmtree(directory, ignore_errors=True)
                if options.until_found and tally.found:
                    break
        worst = max(worst, tally.finish())
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="all", choices=("all", *SCENARIOS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that wait for one who stopped")
    parser.add_argument("--until-found", action="store_true", help="end at the first broken promise")
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    names = list(SCENARIOS) if options.scenario == "all" else [options.scenario]
    if SHIMMED.isdisjoint(names):
        return campaign(options, names)
    reason = shim.why_not()
    if reason:
        raise SystemExit(f"not possible here: {reason}")
    code = shim.rerun_with_shim("tests.faults.crowds")
    return campaign(options, names) if code is None else code


if __name__ == "__main__":
    raise SystemExit(main())

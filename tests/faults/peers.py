"""The same faults on pyplantx, joblib.Memory and diskcache, side by side; prints a table.

    python -m tests.faults.peers --kills 200 --flips 2000 --cuts 50

What a caller does: ask for a value; it is computed and stored if it is not there. *Announced* is what such a call has
returned. Afterwards: *wrong* is another value than the right one, returned without an error; *lost* was announced and
is computed again; *error* is an exception or the death of the process instead of a value.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.faults import damage, power, program, shim
from tests.faults.children import Child, Ended, Tell, run_child, scratch, told

NAMES = [name for name in sorted(program.MAKERS) if name not in program.DATASETS]
Make = Callable[[str, int], tuple[Any, bool]]


# -- the three stores ---------------------------------------------------------------------------------

_closers: list[Callable[[], object]] = []


def open_pyplantx(directory: str) -> Make:
    ran: list[str] = []
    plant = program.open_plant(directory, 1, ran.append)
    _closers.append(plant.close)

    def make(name: str, seed: int) -> tuple[Any, bool]:
        ran.clear()
        plant.set_config(program.configured(seed))
        value = program.plain(name, plant.produce(name))
        return value, bool(ran)

    return make


_computed: list[str] = []


def compute(name: str, seed: int) -> Any:
    _computed.append(name)
    return program.MAKERS[name](seed)


def open_joblib(directory: str) -> Make:
    import joblib

    cached = joblib.Memory(directory, verbose=0).cache(compute)

    def make(name: str, seed: int) -> tuple[Any, bool]:
        _computed.clear()
        return cached(name, seed), bool(_computed)

    return make


def open_diskcache(directory: str) -> Make:
    import diskcache

    cache = diskcache.Cache(directory)
    _closers.append(cache.close)

    def make(name: str, seed: int) -> tuple[Any, bool]:
        value = cache.get((name, seed), cache)
        if value is not cache:
            return value, False
        value = compute(name, seed)
        cache.set((name, seed), value)
        return value, True

    return make


STORES: dict[str, Callable[[str], Make]] = {
    "pyplantx": open_pyplantx,
    "joblib": open_joblib,
    "diskcache": open_diskcache,
}


# -- a life, and what is left of it -------------------------------------------------------------------


def work(store: str, directory: str, seeds: range, tell: Tell, opened: Callable[[], object] = lambda: None) -> None:
    make = STORES[store](directory)
    opened()
    for seed in seeds:
        for name in NAMES:
            make(name, seed)
            tell(f"announced {name} {seed}")


def look(store: str, directory: str, announced: list[tuple[Any, ...]], tell: Tell) -> None:
    """Ask for everything once more; one line for each that is not as it was."""
    make = STORES[store](directory)
    for name, seed in announced:
        try:
            value, computed = make(name, int(seed))
        except Exception as error:
            tell(f"error {name} {type(error).__name__}")
            continue
        if program.digest(value) != program.expected(name, int(seed)):
            tell(f"wrong {name}")
        elif computed:
            tell(f"lost {name}")


def count(store: str, directory: str, ended: list[Ended], counts: Counter[str]) -> None:
    """Add up one case."""
    announced = [words for one in ended for words in told(one, "announced")]
    looked = run_child(lambda tell: look(store, directory, announced, tell), 60.0)
    counts["announced"] += len(announced)
    counts["cases"] += 1
    for line in looked.lines:
        counts[line.split()[0]] += 1
    counts["error"] += looked.status != 0


# -- the faults ---------------------------------------------------------------------------------------


def kills(store: str, options: argparse.Namespace, counts: Counter[str]) -> None:
    """SIGKILL at a random moment."""
    chance = random.Random(1)
    with scratch() as place:
        for number in range(options.kills):
            directory = os.path.join(place, f"store{number}")
            child = Child(functools.partial(work, store, directory, range(1, 6)))
            child.wait_for("announced", chance.randint(1, 30))
            time.sleep(chance.uniform(0.0, 0.02))
            child.kill(signal.SIGKILL)
            count(store, directory, [child.end()], counts)
            shutil.rmtree(directory, ignore_errors=True)


def calls(store: str, options: argparse.Namespace, counts: Counter[str], fault: str = "TEAR") -> None:
    """SIGKILL in the middle of the n-th write."""
    with scratch() as place:
        for n in range(1, 10_000, options.step):
            directory = os.path.join(place, f"store{n}")
            ended = run_child(functools.partial(_armed, store, directory, n, fault))
            count(store, directory, [ended], counts)
            shutil.rmtree(directory, ignore_errors=True)
            if "undisturbed" in ended.lines:
                break


def _armed(store: str, directory: str, n: int, fault: str, tell: Tell) -> None:
    """Two configs, the n-th call after the store's opening disturbed; who meets an error gives up."""
    preload = shim.Shim()
    try:
        work(store, directory, range(1, 3), tell, lambda: preload.arm(directory, n, shim.fault(fault)))
    finally:
        preload.disarm()
        if not preload.hit:
            tell("undisturbed")


def full(store: str, options: argparse.Namespace, counts: Counter[str]) -> None:
    """ENOSPC at the n-th call, once."""
    calls(store, options, counts, "ENOSPC")


def flips(store: str, options: argparse.Namespace, counts: Counter[str]) -> None:
    """One flipped bit."""
    _damaged(store, options.flips, damage.flips, counts)


def truncations(store: str, options: argparse.Namespace, counts: Counter[str]) -> None:
    """A file cut short."""
    _damaged(store, options.flips, damage.truncations, counts)


def _damaged(store: str, cases: int, kind: Callable[[str, int], Any], counts: Counter[str]) -> None:
    with scratch() as place:
        whole, copy = os.path.join(place, "whole"), os.path.join(place, "copy")
        ended = run_child(lambda tell: _closed(store, whole, tell))
        assert ended.status == 0, ended.errors
        size = sum(os.path.getsize(f"{whole}/{path}") for path in damage.files(whole))
        for case in kind(whole, max(1, size // cases)):
            shutil.copytree(whole, copy)
            case.harm(copy)
            count(store, copy, [ended], counts)
            shutil.rmtree(copy)


def _closed(store: str, directory: str, tell: Tell) -> None:
    """One config of small values; all is closed as at the end of a program."""
    work(store, directory, range(program.SMALL, program.SMALL + 1), tell)
    gc.collect()
    for close in _closers:
        close()


def cut_on(system: str) -> Callable[[str, argparse.Namespace, Counter[str]], None]:
    """Power loss on a file system."""

    def cuts(store: str, options: argparse.Namespace, counts: Counter[str]) -> None:
        chance = random.Random(1)
        for _ in range(0 if power.why_not(system) else options.cuts):
            with power.mounted(system) as disk:
                directory = os.path.join(disk.path, "store")
                child = Child(functools.partial(work, store, directory, range(1, 200)))
                child.wait_for("announced", chance.randint(1, 40))
                time.sleep(chance.uniform(0.0, 0.06))
                disk.cut_power()
                child.kill(signal.SIGKILL)
                ended = child.end()
                disk.mount_again()
                count(store, directory, [ended], counts)

    return cuts


FAULTS: dict[str, Callable[[str, argparse.Namespace, Counter[str]], None]] = {
    "SIGKILL at random": kills,
    "SIGKILL inside the n-th write": calls,
    "n-th call: disk full": full,
    "one flipped bit": flips,
    "a file cut short": truncations,
    **{f"power loss, {system}": cut_on(system) for system in power.SYSTEMS},
}


def table(options: argparse.Namespace) -> str:
    """The counts as Markdown."""
    rows = ["| fault | " + " | ".join(STORES) + " |", "|---" * (len(STORES) + 1) + "|"]
    for fault, bring in FAULTS.items():
        cells = []
        for store in STORES:
            counts: Counter[str] = Counter()
            bring(store, options, counts)
            cells.append(_cell(counts))
            print(f"{fault}, {store}: {dict(counts)}", flush=True)
        rows.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(counts: Counter[str]) -> str:
    if not counts["cases"]:
        return "not possible here"
    what = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("wrong", "lost", "error"))
    return f"{what} ({counts['cases']:,} cases, {counts['announced']:,} announced)"


def main() -> int:
    import logging
    import warnings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--step", type=int, default=1, help="from one n to the next")
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--cuts", type=int, default=50)
    options = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")
    if shim.why_not():
        raise SystemExit(f"not possible here: {shim.why_not()}")
    code = shim.rerun_with_shim("tests.faults.peers")
    if code is None:
        print(table(options), flush=True)
    return code or 0


if __name__ == "__main__":
    raise SystemExit(main())

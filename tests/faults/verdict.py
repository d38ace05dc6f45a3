"""What must hold after any fault, and the count of where it did not.

P0 *never wrong*: what is found equals the oracle, or is absent. P1 *never lost*: what was announced is there without
running again. P2 *always usable*: the store opens by itself, in time, and `check` finds garbage at most.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from pyplantx.errors import PayloadMissing, PyplantxError
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults import program
from tests.faults.children import LIMIT, Ended, Tell, run_child, told

#: The ways to fail. *unclear*: an error that is none of ours, or names nothing.
KINDS = ("wrong", "lost", "unusable", "unclear")
#: Exit codes of a harness: all promises kept, some broken. (1 is what Python gives for an error of the harness.)
KEPT, BROKEN = 0, 3
#: Seconds within which a small store must open, and what a busy machine may add.
OPENS_IN, PATIENCE = 2.0, 3.0


class Finding(NamedTuple):
    """One broken promise."""

    kind: str
    story: str


class Tally:
    """Counts of a campaign.

    Parameters
    ----------
    title : str
        Begins the line that is printed.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.counts: Counter[str] = Counter()
        self.found: list[Finding] = []
        self._begun = time.monotonic()

    def case(self, name: str, findings: Iterable[Finding], **counts: int) -> None:
        """Count one case and what it broke."""
        self.counts["cases"] += 1
        self.counts.update(counts)
        self.add(name, findings)

    def add(self, name: str, findings: Iterable[Finding]) -> None:
        """Note what was broken; the first twenty stories are told at once."""
        for kind, story in findings:
            assert kind in KINDS, kind
            self.found.append(Finding(kind, story))
            if len(self.found) <= 20:
                print(f"{self.title}, {name}: {kind}: {story}", file=sys.stderr, flush=True)

    def line(self) -> str:
        """All counts in one line."""
        broken = Counter(finding.kind for finding in self.found)
        counts = [f"{count:,} {what}" for what, count in self.counts.items()]
        counts += [f"{broken[kind]:,} {kind}" for kind in KINDS]
        return f"{self.title}: {', '.join(counts)} ({time.monotonic() - self._begun:.0f} s)"

    def finish(self) -> int:
        """Print the line; the exit code."""
        print(self.line(), flush=True)
        return BROKEN if self.found else KEPT


class Debts(NamedTuple):
    """What a store owes after what processes told.

    Attributes
    ----------
    finished : set of (str, int)
        Reactors that were announced, and under which seed.
    seeds : tuple of int
        Those to be tried.
    known : tuple of int
        All that may have been in use, if these are more.
    """

    finished: set[tuple[str, int]]
    seeds: tuple[int, ...]
    known: tuple[int, ...] = ()


def debts(endeds: Iterable[Ended], seeds: tuple[int, ...]) -> Debts:
    """What was announced and not given up to a collection since."""
    finished: set[tuple[str, int]] = set()
    for ended in endeds:
        trouble = False
        for line in ended.lines:
            word, *rest = line.split()
            if word == "finished":
                finished.add((rest[0], int(rest[1])))
            elif word == "collecting":  # keeps each name's last version, which a second time may be another
                finished = {item for item in finished if item[1] == int(rest[0]) and not trouble}
            trouble = trouble or word in ("refused", "unclear", "collecting")
    return Debts(finished, seeds)


def values_told(ended: Ended) -> list[Finding]:
    """Values that a process got while the fault was there."""
    wrong = []
    for name, seed, value in told(ended, "got"):
        if int(value) != program.expected(name, int(seed)):
            wrong.append(Finding("wrong", f"a living process got {value} for {name} under seed {seed}"))
    return wrong


def ran_again(ended: Ended) -> list[Finding]:
    """Reactors that a process announced and had to start once more, though nothing was collected in between."""
    announced: set[tuple[str, ...]] = set()
    again = []
    for line in ended.lines:
        word, *rest = line.split()
        if word == "finished":
            announced.add(tuple(rest))
        elif word == "collecting":
            announced.clear()
        elif word == "started" and tuple(rest) in announced:
            again.append(Finding("lost", f"{line}, after it was announced"))
    return again


def end_of(ended: Ended) -> list[Finding]:
    """How a process that nobody killed must end: by itself, without an error that is not ours."""
    if ended.hung:
        return [Finding("unusable", f"hung for {ended.seconds:.0f} s\n{ended.errors[-3000:]}")]
    if ended.crashed:
        return [Finding("unusable", f"died by signal {-ended.status}\n{ended.errors[-3000:]}")]
    return [Finding("unclear", " ".join(words)) for words in told(ended, "unclear")]


def is_the_reactors(error: Exception) -> bool:
    """Whether an error is one that the program's own input and output met, and not one that the plant let through bare.

    A plant leaves its own lines out, so the last line is the program's in both cases. The program writes a file itself,
    and reads it. Whoever opens an ingredient may be the first to import a library: that is Python's input and output,
    and a note names the ingredient.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, OSError) or not frames or frames[-1].filename != program.__file__:
        return False
    is_own = frames[-1].name in ("make_report", "plain") and "pipe." not in (frames[-1].line or "")
    return is_own or any("while the stored ingredient" in note for note in getattr(error, "__notes__", ()))


def examine(directory: str, owed: Debts, *, limit: float = LIMIT, **options: Any) -> list[Finding]:
    """Open what a fault has left in a clean process, and try the three promises.

    Parameters
    ----------
    directory : str
        Of the store.
    owed : Debts
        What was announced.
    limit : float
        Seconds after which the examination counts as hanging.
    **options
        With which the store must be opened.
    """
    ended = run_child(lambda tell: _examine(directory, owed, tell, options), limit)
    findings = [Finding(words[0], " ".join(words[1:])) for words in told(ended, "found")]
    if ended.hung:
        findings.append(Finding("unusable", f"the store can't be examined in {limit} s\n{ended.errors[-3000:]}"))
    elif ended.status != 0:
        findings.append(Finding("unusable", f"examining ended with {ended.status}\n{ended.errors[-3000:]}"))
    return findings


def _examine(directory: str, owed: Debts, tell: Tell, options: dict[str, Any]) -> None:
    def found(kind: str, story: str) -> None:
        tell(f"found {kind} {story}".replace("\n", " | "))

    begun = time.monotonic()
    with Warehouse(directory, lock_timeout=5.0, **options) as warehouse:
        seconds = time.monotonic() - begun
        if seconds > OPENS_IN + PATIENCE:
            found("unusable", f"opening took {seconds:.1f} s")
        for problem in warehouse.check():
            if not problem.harmless:
                found("unusable", f"check: {problem.kind} {problem.where} {problem.what}")
        _look_at_last(warehouse, owed.known or owed.seeds, found)
    for seed in owed.seeds:
        _produce_again(directory, seed, owed, found, options)
    with program.open_plant(directory, owed.seeds[-1], **options) as plant:
        plant.warehouse.check(fix=True)
        left = [problem for problem in plant.warehouse.check() if not problem.harmless or problem.kind == "garbage"]
        if left:
            found("unusable", f"check(fix=True) leaves {left}")


def _look_at_last(warehouse: Warehouse, seeds: tuple[int, ...], found: Tell) -> None:
    """Whatever is stored under a name is right under one of the seeds."""
    for name in warehouse.names():
        ref = warehouse.last_ref(name)
        if ref is None:
            continue
        try:
            value = warehouse.open(ref)
        except PayloadMissing:
            continue
        if name not in program.NAMES or not program.is_right(name, value, seeds):
            found("wrong", f"the store has another value for {name}")  # type: ignore[call-arg]


def _produce_again(directory: str, seed: int, owed: Debts, found: Tell, options: dict[str, Any]) -> None:
    """A new plant gives the right values, and runs nothing that was announced as finished."""
    ran: list[str] = []
    with program.open_plant(directory, seed, ran.append, **options) as plant:
        for name in program.NAMES:
            try:
                value = plant.produce(name)
            except PyplantxError as error:
                found("unusable", f"{name} can't be produced: {error}")  # type: ignore[call-arg]
                continue
            if not program.is_right(name, value, (seed,)):
                found("wrong", f"the plant makes another value for {name} under seed {seed}")  # type: ignore[call-arg]
    for line in ran:
        word, reactor, _ = line.split()
        if word == "started" and (reactor, seed) in owed.finished:
            found("lost", f"{reactor} under seed {seed} was announced and had to run again")  # type: ignore[call-arg]

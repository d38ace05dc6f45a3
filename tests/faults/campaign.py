"""All harnesses in their long versions, some at a time, and the rows of the table in docs/design/reliability.md.

    python -m tests.faults.campaign --table rows.md          (`make faults`) about two hours on two cores
    python -m tests.faults.campaign --share 0.1              a tenth of the cases
    python -m tests.faults.campaign --only "calls --fault E"

A row is printed when its harness has ended, and the table is written anew then. What can't be tried on this machine is
a row with the reason. The positive controls are tests (test_faults.py).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tests.faults.commands import Report, run, run_tests
from tests.faults.verdict import BROKEN, KEPT, KINDS

#: Seconds after which a harness is ended. Generous: two of them share the machine.
LIMIT = 7200.0
HEAD = f"| command | cases | announced | refused | {' | '.join(KINDS)} | seconds |"


class Row(NamedTuple):
    """One run of a harness.

    Attributes
    ----------
    command : str
        Harness and arguments.
    option : str
        Which of its options says how much it does; empty if none does.
    size : int
        What that is in a whole campaign: a number of rounds, or (`--step`, `--every`) from one case to the next.
    """

    command: str
    option: str
    size: int

    def scaled(self, share: float) -> str:
        """The command for a share of the campaign."""
        if not self.option:
            return self.command
        size = self.size / share if self.option in ("--step", "--every") else self.size * share
        return f"{self.command} {self.option} {max(1, round(size))}"


ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EMFILE", "EACCES", "SHORT", "EINTR")
SCENARIOS = ("processes", "writers", "threads", "takeover", "forked", "collected", "tidied", "stopped")

#: The longest first, so that none is left over when all others have ended.
ROWS = [
    Row("damage --kind flips", "--step", 347),
    Row("damage --kind truncations", "--step", 347),
    Row("interrupts --kind lines", "--step", 97),
    Row("interrupts --kind lines --only warehouse/", "--step", 23),
    Row("interrupts --kind lines --only specs/", "--step", 23),
    Row("interrupts --kind allocations", "--step", 997),
    Row("kills --durability power", "--kills", 2000),
    Row("kills --durability process", "--kills", 1000),
    Row("kills --told", "--kills", 1000),
    *[Row(f"calls --fault {fault}", "--step", 1) for fault in ("KILL", "TEAR", *ERRORS)],
    *[Row(f"calls --fault {fault} --for-ever", "--step", 3) for fault in ERRORS if fault != "EINTR"],
    *[Row(f"calls --fault {fault} --reads", "--step", 1) for fault in ("EIO", "EMFILE")],
    *[Row(f"calls --fault {fault} --within staging --for-ever", "--step", 1) for fault in ("EIO", "ENOSPC")],
    *[Row(f"crowds --scenario {scenario}", "--rounds", 60) for scenario in SCENARIOS],
    *[Row(f"workers --way {way}", "--deaths", 400) for way in ("kill", "exit", "memory")],
    *[Row(f"power --system '{system}'", "--cycles", 200) for system in ("ext4", "ext4 noauto_da_alloc", "xfs")],
    *[Row(f"mounts --way {way}", "--cycles", 200) for way in ("objects", "whole")],
    Row("damage --kind surprises", "--every", 1),
    Row("damage --kind beyond", "--step", 347),
    *[Row(f"limits --kind {kind}", "--every", 1) for kind in ("disk", "size", "files", "memory", "addresses")],
    Row("limits --kind readonly", "", 1),
    Row("pytest -m campaign tests/faults", "", 1),  # the warehouse alone
    Row("pytest -m campaign tests/hostile", "", 1),
]


class Outcome(NamedTuple):
    """What became of a row."""

    command: str
    report: Report
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether no promise was broken, as far as it could be tried."""
        return self.report.code == KEPT or bool(self.reason)

    @property
    def reason(self) -> str:
        """Why it can't be tried here; empty if it can."""
        told = [line for line in self.report.text.splitlines() if "not possible here" in line]
        return told[-1] if told and "cases" not in self.report.counts else ""

    def line(self) -> str:
        """A row of the table."""
        counts = self.report.counts
        if self.report.code not in (KEPT, BROKEN):
            return f"| `{self.command}` | {self.reason or 'did not come to its end'} {'| ' * (len(KINDS) + 3)}|"
        named = [f"{counts[what]:,}" if what in counts else "" for what in ("cases", "announced", "refused", *KINDS)]
        return f"| `{self.command}` | {' | '.join(named)} | {self.seconds:,.0f} |"


def tried(command: str) -> Outcome:
    """Run a harness, or the long tests of a folder, to the end."""
    begun = time.monotonic()
    harness, *arguments = shlex.split(command)
    try:
        report = run_tests(*arguments, limit=LIMIT) if harness == "pytest" else run(harness, *arguments, limit=LIMIT)
    except subprocess.TimeoutExpired:
        report = Report(-1, {}, "")
    return Outcome(command, report, time.monotonic() - begun)


def table(outcomes: dict[str, Outcome], commands: list[str]) -> str:
    """The rows so far, in the campaign's order."""
    lines = [outcomes[command].line() for command in commands if command in outcomes]
    missing = len(commands) - len(lines)
    end = [f"\n{missing} of {len(commands)} commands have not come to their end."] if missing else []
    return "\n".join([f"{date.today():%d %B %Y}.\n", HEAD, "|---" * (len(KINDS) + 5) + "|", *lines, *end]) + "\n"


def chosen(options: argparse.Namespace) -> Iterator[str]:
    """The commands of a campaign."""
    return (row.scaled(options.share) for row in ROWS if options.only in row.command)


def campaign(options: argparse.Namespace) -> int:
    """Run all; the exit code."""
    os.nice(10)
    commands, outcomes = list(chosen(options)), dict[str, Outcome]()
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(tried, command) for command in commands]):
            outcome = done.result()
            outcomes[outcome.command] = outcome
            print(outcome.line(), flush=True)
            if not outcome.kept:
                print(outcome.report.text, file=sys.stderr, flush=True)
            if options.table:
                Path(options.table).write_text(table(outcomes, commands))
    return KEPT if all(outcome.kept for outcome in outcomes.values()) else BROKEN


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="how much of the campaign: 1 is all of it")
    parser.add_argument("--jobs", type=int, default=2, help="harnesses at a time")
    parser.add_argument("--only", default="", help="only commands that contain this text")
    parser.add_argument("--table", help="file for the rows of the table")
    return campaign(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())

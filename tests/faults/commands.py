"""Runs a harness as its command, for the tests and the campaign: what it printed, and what it found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.faults.verdict import BROKEN, KEPT, KINDS

ROOT = Path(__file__).parents[2]


class Report(NamedTuple):
    """What a harness said.

    Attributes
    ----------
    code : int
        Exit code: `verdict.KEPT` or `verdict.BROKEN`.
    counts : dict
        What it counted -> how often, over all its lines.
    text : str
        All that it printed.
    """

    code: int
    counts: dict[str, int]
    text: str


def run(harness: str, *arguments: object, limit: float = 600.0) -> Report:
    """``python -m tests.faults.<harness> <arguments>``."""
    command = [sys.executable, "-m", f"tests.faults.{harness}", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=limit)
    counts: dict[str, int] = {}
    for number, what in re.findall(r"([\d,]+) ([a-z][a-z ]*?)(?=,| \()", ran.stdout):
        counts[what] = counts.get(what, 0) + int(number.replace(",", ""))
    return Report(ran.returncode, counts, f"{ran.stdout}\n{ran.stderr[-6000:]}")


def run_tests(*arguments: object, limit: float = 600.0) -> Report:
    """``pytest <arguments>``: each test is a case, each that fails an unclear one."""
    command = [sys.executable, "-m", "pytest", "-q", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=limit)
    ended = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed)", ran.stdout)}
    failed = ended.get("failed", 0)
    counts = {"cases": sum(ended.values()), **dict.fromkeys(KINDS, 0), "unclear": failed}
    code = {0: KEPT, 1: BROKEN}.get(ran.returncode, ran.returncode)
    return Report(code, counts, f"{ran.stdout}\n{ran.stderr[-6000:]}")

"""Runs a harness as its command, for the tests: what it printed, and what it found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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

"""Everything about arrays, as one page: one large array, out of core, kinds of arrays, many small ones.

    python benchmarks/arrays.py [--quick] [--folder DIR] [--output docs/benchmarks-arrays.md]

Runs `big_array.py`, `out_of_core.py` and `formats.py` and puts their tables together. About fifteen minutes on a disk
that writes 1 GB/s; `--quick` does it with arrays an eighth as large.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

PREFACE = """\
# Benchmarks: arrays

{day}, CPython {python}, {cpus} CPUs. Written by `make bench`. Compare figures of one table only: disks differ
from minute to minute. Private memory is what a process holds for itself (RssAnon) above what its imports took.

{load}

"""


def others(loads: list[float]) -> str:
    """What the machine did besides, in words, by its load before each section and after the last one."""
    is_busy = loads[0] > 1 or max(loads) > 3
    busy = "**Busy with other work meanwhile: figures are too high.**" if is_busy else "The machine did nothing else."
    return f"{busy} (Load averages: {', '.join(f'{load:.1f}' for load in loads)}.)"


def section(title: str, script: str, *options: str) -> str:
    print(f"measuring: {title}", file=sys.stderr)
    done = subprocess.run([sys.executable, str(HERE / script), *options], stdout=subprocess.PIPE, text=True, check=True)
    return f"## {title}\n\n{done.stdout.strip()}\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="arrays an eighth as large, one repeat")
    parser.add_argument("--folder", help="where to write: on the disk to be measured")
    parser.add_argument("--output", type=Path, help="also write the page here")
    arguments = parser.parse_args()
    place = ["--folder", arguments.folder] if arguments.folder else []
    large, far, kinds = (["0.125"], ["1"], ["64"]) if arguments.quick else (["1"], ["8"], ["256"])
    repeat, far_repeat = ("1", "1") if arguments.quick else ("3", "2")
    sections = [
        ("One large array, made and summed", "big_array.py", "--size", *large, "--repeat", repeat, *place),
        ("Larger than memory", "out_of_core.py", "--gib", *far, "--repeats", far_repeat, *place),
        ("Kinds of arrays", "formats.py", "--mib", *kinds, *place),
    ]
    loads = [os.getloadavg()[0]]
    parts = []
    for title, script, *options in sections:
        parts.append(section(title, script, *options))
        loads.append(os.getloadavg()[0])
    text = PREFACE.format(
        day=datetime.date.today(), python=platform.python_version(), cpus=os.cpu_count(), load=others(loads)
    )
    text += "".join(parts)
    print(text)
    if arguments.output:
        arguments.output.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Where nothing is to be done, nothing is: no thread, no write, no look at what may be collected."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, threading
from pathlib import Path
from pyplantx import Plant, ReactorFunc

@ReactorFunc
def make(pipe):
    pipe.send("x", list(range(5000)))

@ReactorFunc
def use(pipe):
    x = yield pipe.receive("x")
    pipe.send("sum", sum(x))

def files():
    found = {str(path): path.stat() for path in Path(sys.argv[1]).rglob("*") if "locks" not in path.parts}
    return {path: info.st_mtime_ns for path, info in found.items() if path.endswith(("data.mdb", ".json", ".mdb.new"))}

started = []
begin = threading.Thread.start
threading.Thread.start = lambda thread: (started.append(thread.name), begin(thread))
before = files()
with Plant(sys.argv[1], durability=sys.argv[2]) as plant:
    total = plant.produce("sum")
print(json.dumps({
    "total": total, "threads": started, "touched": before != files(),
    "modules": [name for name in sys.modules if name.startswith("pyplantx.warehouse.")],
}))
"""


def run(folder: Path, durability: str) -> dict:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(folder / "plant"), durability]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_warm_process_that_finds_nothing_to_do_starts_and_writes_nothing(tmp_path, durability):
    cold = run(tmp_path, durability)
    assert cold["total"] == sum(range(5000))
    assert cold["touched"]
    assert cold["threads"]
    warm = run(tmp_path, durability)
    assert warm["total"] == cold["total"]
    assert warm["threads"] == []
    assert not warm["touched"]
    not_needed = {"collect", "keeper", "retention", "resume", "sealing"}
    assert not_needed.isdisjoint(name.rpartition(".")[2] for name in warm["modules"])

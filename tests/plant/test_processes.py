"""Several processes on one directory: equal results, and each piece of work done once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys, time
from pyplantx import Plant, ReactorFunc

directory, log = sys.argv[1:]

def note(name):
    with open(log, "a") as file:
        file.write(name + "\\n")

def make(i):
    @ReactorFunc(name=f"step-{i}", sends=f"x{i}")
    def step(pipe):
        x = (yield pipe.receive(f"x{i - 1}")) if i else 0
        note(f"step-{i}")
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        pipe.send(f"x{i}", x + i)
    return step

with Plant(directory) as plant:
    plant.add_reactors([make(i) for i in range(12)])
    print(plant.produce("x11"))
"""


def test_each_piece_of_work_is_done_once(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    log = tmp_path / "log"
    command = [sys.executable, str(script), str(tmp_path / "plant"), str(log)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["66"] * 4
    ran = log.read_text().split()
    assert sorted(set(ran)) == sorted(f"step-{i}" for i in range(12))
    assert len(ran) <= 14, ran


MEANWHILE = """
import os, subprocess, sys
from pyplantx import Plant, ReactorFunc

@ReactorFunc
def measure(pipe):
    value = pipe.read_config("value")
    if os.environ.pop("MEANWHILE", ""):
        subprocess.run([sys.executable, sys.argv[0], sys.argv[1], "other", "run"], check=True)
    print("ran with", value, flush=True)
    pipe.send("x", value)

with Plant(sys.argv[1]) as plant:
    plant.set_config({"value": sys.argv[2]})
    if sys.argv[3] == "run":
        plant.run_reactor(measure)
    assert plant.produce("x") == sys.argv[2]
"""


def test_a_trace_that_another_process_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    """Two forced runs begin where nothing is recorded; the one that ends last must not overwrite the other's trace."""
    script = tmp_path / "program.py"
    script.write_text(MEANWHILE)

    def call(value: str, how: str, **environment: str) -> list[str]:
        command = [sys.executable, str(script), str(tmp_path / "plant"), value, how]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=60, check=True, env={**os.environ, **environment}
        )
        return done.stdout.splitlines()

    assert call("one", "run", MEANWHILE="1") == ["ran with other", "ran with one"]
    assert call("other", "produce") == call("one", "produce") == []

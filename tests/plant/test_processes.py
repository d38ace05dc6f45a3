"""Several processes on one directory: equal results, and each piece of work done once."""

from __future__ import annotations

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

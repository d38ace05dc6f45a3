"""Stores where the process may have only so much memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warehouse.stores import ROOT

LIMITED = """
import resource, sys
import numpy as np
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch, send


def counted():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))


with Warehouse(sys.argv[1]) as warehouse:
    send(warehouse, "first", np.zeros(1000))  # whatever is imported for it is there
    resource.setrlimit(resource.RLIMIT_DATA, (counted() + (20 << 20), resource.RLIM_INFINITY))
    for number in range(4):
        send(warehouse, f"x{number}", np.full(100_000, float(number)))
    assert [fetch(warehouse, f"x{number}")[-1] for number in range(4)] == [0, 1, 2, 3]
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and limits RLIMIT_DATA")
def test_storing_takes_little_memory_besides_the_values(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), *sys.path]))
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "store")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Payloads of some hundred kilobytes: their memory is used again from batch to batch."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import send

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with Warehouse(sys.argv[1], durability="process") as warehouse:
    for number in range(900):
        if number == 500:
            before = faults()
        send(warehouse, f"x{number}", b"%06d" % number * 16_000)
    print((faults() - before) / 400)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back so eagerly")
def test_storing_faults_no_fresh_memory_in(tmp_path: Path) -> None:
    """24 pages for each payload and 24 for LMDB's copy, if nothing was used again; a few where the disk is slow."""
    done = subprocess.run([sys.executable, "-c", FAULTS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20

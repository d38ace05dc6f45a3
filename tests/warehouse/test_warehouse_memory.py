"""Stores where the process may have only so much memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.warehouse import Commit, Warehouse
from tests.warehouse.stores import ROOT, fetch, send

Open = Callable[..., Warehouse]

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


def number(index: int, size: int) -> bytes:
    return index.to_bytes(4, "little") + bytes(size - 4)


@pytest.mark.parametrize("size", [5_000, 50_000])
def test_what_one_run_sends_does_not_wait_in_memory(opened: Open, size: int) -> None:
    """However small the payloads are, and though the record of none is written before the run has ended."""
    warehouse = opened()
    room, count = 200_000, 1_000_000 // size
    committer = warehouse._committer
    committer.limit_waiting(room)
    sent = []
    for index in range(count):
        sent.append((f"x{index}", warehouse.store("x", number(index, size))))
        held = sum(len(held.payload) for held in committer.waiting.sealed.values())
        assert held <= 2 * room + size
    warehouse.commit(Commit("r", hash_text("r"), [], sent))
    assert committer.waiting.in_records <= room
    warehouse.sync()
    assert committer.waiting.in_records == 0 and not committer.waiting.sealed
    for _ in range(2):
        assert all(fetch(warehouse, name) == number(index, size) for index, (name, _) in enumerate(sent))
        assert warehouse.check() == []
        warehouse.close()
        warehouse = opened()


def test_many_finished_runs_are_written_and_not_moved(opened: Open) -> None:
    warehouse = opened()
    warehouse._committer.limit_waiting(200_000)
    for index in range(100):
        send(warehouse, f"x{index}", number(index, 5_000))
    warehouse.sync()
    assert warehouse.keeper.du().homes["small"] == 0


@pytest.mark.parametrize("size", [5_000, 50_000, 1_500_000])
def test_what_a_failed_run_has_sent_is_forgotten_with_the_last_activity(opened: Open, size: int) -> None:
    one, other = opened(), opened()
    sealed = one._committer.waiting.sealed
    one.begin_activity()
    other.begin_activity()
    failed = one.store("x", number(1, size))
    used = one.store("y", number(2, size))
    send(one, "z", number(3, size))
    one.end_activity()
    assert one.has(failed)  # the other one may have been told of it
    send(other, "y", number(2, size))
    other.end_activity()
    assert not one.has(failed) and failed.address not in sealed and one.has(used)
    assert fetch(one, "y") == number(2, size) and fetch(one, "z") == number(3, size)
    one.sync()
    assert not sealed and one._committer.waiting.in_records == 0 and not one._committer._payloads
    send(one, "x", number(1, size))
    assert fetch(one, "x") == number(1, size)


def test_what_was_stored_outside_of_activities_is_kept(opened: Open) -> None:
    one, other = opened(), opened()
    mine = other.store("x", number(1, 5_000))
    one.begin_activity()
    one.store("y", number(2, 5_000))
    found = other.store("y", number(2, 5_000))
    one.end_activity()
    other.commit(Commit("r", hash_text("r"), [], [("x", mine), ("y", found)]))
    other.close()
    assert fetch(one, "x") == number(1, 5_000) and fetch(one, "y") == number(2, 5_000)

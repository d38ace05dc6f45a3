"""Locks and work claims between processes."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import WarehouseError, WarehouseFull
from pyplantx.warehouse import claims as claims_module
from pyplantx.warehouse.claims import Claims, close_claims
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults.interrupts import Lines
from tests.warehouse.stores import ROOT

HOLDER = """
import sys
from pyplantx.warehouse.claims import Claims
claim = Claims(sys.argv[1]).claim(sys.argv[2], 0)
print("held" if claim else "not", flush=True)
sys.stdin.read()
"""


def holding(folder: Path, key: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = Claims(str(tmp_path)), Claims(str(tmp_path))
    claim = first.claim("work", 0)
    assert claim is not None
    assert second.claim("work", 0) is None
    other = second.claim("other work", 0)
    assert other is not None
    claim.release()
    again = second.claim("work", 0)
    assert again is not None
    again.release()
    again.release()
    other.release()
    assert [path.name for path in tmp_path.iterdir()] == ["claims.lock"]


def test_waiting_is_bounded(tmp_path: Path) -> None:
    with Claims(str(tmp_path)).claim("work", 0):
        begun = time.monotonic()
        assert Claims(str(tmp_path)).claim("work", 0.1) is None
        assert 0.1 <= time.monotonic() - begun < 2


def test_a_claim_dies_with_its_holder(tmp_path: Path) -> None:
    process = holding(tmp_path, "work")
    try:
        assert Claims(str(tmp_path)).claim("work", 0) is None
    finally:
        process.kill()
        process.wait()
    claim = Claims(str(tmp_path)).claim("work", 5)
    assert claim is not None
    claim.release()


def test_a_waiting_circle_is_not_closed(tmp_path: Path) -> None:
    ours, theirs = Claims(str(tmp_path)), Claims(str(tmp_path))
    mine, yours = ours.claim("mine", 0), theirs.claim("yours", 0)
    assert mine is not None and yours is not None
    theirs._note_waiting("mine")  # as if another process waited for us
    begun = time.monotonic()
    assert ours.claim("yours", 30) is None
    assert time.monotonic() - begun < 5
    mine.release()
    yours.release()


UNGUARDED = """
import multiprocessing, sys
from pyplantx import Plant, ReactorFunc


def work():
    pass


@ReactorFunc
def parallel(pipe):
    process = multiprocessing.get_context(sys.argv[2]).Process(target=work)
    process.start()
    process.join()
    pipe.send("x", process.exitcode)


with Plant(sys.argv[1]) as plant:
    print(plant.produce("x"))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_that_is_imported_by_its_own_worker_does_not_wait_for_its_program(tmp_path: Path, method: str) -> None:
    """The program waits for the worker, and ten minutes would pass before the worker's error came."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    command = [sys.executable, str(script), str(tmp_path / "plant"), method]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "1\n", done.stderr  # what a worker ends with that could not import the script
    assert "under `if __name__ == '__main__':`" in done.stderr and "bootstrapping phase" in done.stderr


def test_a_long_wait_is_told(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(claims_module, "_SAY_AFTER", 0.05)
    process = holding(tmp_path, "work")
    try:
        assert Claims(str(tmp_path)).claim("work", 0.3) is None
    finally:
        process.kill()
        process.wait()
    (text,) = caplog.messages
    assert f"for process {process.pid}," in text


def test_keys_at_one_place_are_told_apart_within_a_process(tmp_path: Path) -> None:
    claims = Claims(str(tmp_path))
    first, second = _keys_at_one_place()
    one, two = claims.claim(first, 0), claims.claim(second, 0)
    assert one is not None and two is not None and claims.claim(first, 0) is None
    one.release()
    assert _tries(tmp_path, first) == "not"  # the place is still taken
    two.release()
    assert _tries(tmp_path, first) == "held"


def _keys_at_one_place() -> tuple[str, str]:
    seen: dict[int, str] = {}
    for number in range(100_000):
        place = claims_module._number(str(number)) % claims_module._PLACES
        if place in seen:
            return seen[place], str(number)
        seen[place] = str(number)
    raise AssertionError("the places are too many for this test")


def _tries(folder: Path, key: str) -> str:
    command = [sys.executable, "-c", HOLDER, str(folder), key]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def test_a_number_that_nobody_holds_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "claims.lock").write_bytes(b"\x07\0\0\0" * claims_module._PLACES)
    claim = Claims(str(tmp_path)).claim("work", 0)
    assert claim is not None
    claim.release()


def test_the_first_process_needs_no_lock_until_another_comes(tmp_path: Path, monkeypatch: Any) -> None:
    locked: list[int] = []
    lock = claims_module._File._lock_byte
    monkeypatch.setattr(
        claims_module._File, "_lock_byte", lambda file, place: locked.append(place) or lock(file, place)
    )
    claims = Claims(str(tmp_path))
    assert claims.claim("first", 0) is not None
    locked.clear()
    assert claims.claim("second", 0) is not None and not locked
    assert _tries(tmp_path, "second") == "not" and _tries(tmp_path, "theirs") == "held"
    assert claims.claim("third", 0) is not None and locked == [claims_module._CHANGING]


def test_who_comes_waits_for_a_claim_under_way(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims_module, "_LONGEST_CHANGE", 0.1)
    process = holding(tmp_path, "theirs")
    with open(tmp_path / "claims.lock", "r+b") as file:  # as if it were in the middle of another one
        file.seek(4 * claims_module._BUSY)
        file.write(b"\1")
    begun = time.monotonic()
    assert Claims(str(tmp_path)).claim("ours", 0) is not None
    assert 0.1 <= time.monotonic() - begun < 5  # a process that is stopped there holds nobody up for long
    process.kill()
    process.wait()


def test_who_was_killed_in_the_middle_of_a_claim_is_not_waited_for(tmp_path: Path) -> None:
    process = holding(tmp_path, "theirs")
    process.kill()
    process.wait()
    with open(tmp_path / "claims.lock", "r+b") as file:
        file.seek(4 * claims_module._BUSY)
        file.write(b"\1")
    begun = time.monotonic()
    assert Claims(str(tmp_path)).claim("theirs", 0) is not None
    assert time.monotonic() - begun < claims_module._LONGEST_CHANGE


def test_a_process_that_was_stopped_while_it_changed_the_table(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims_module, "_LONGEST_CHANGE", 0.05)
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX, 1, int(sys.argv[2]))"
    script += "; print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path / "claims.lock"), str(claims_module._CHANGING)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        assert Claims(str(tmp_path)).claim("work", 0) is None
        other.kill()
    assert Claims(str(tmp_path)).claim("work", 0) is not None


def test_a_full_disk_is_an_error_in_words(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    claims = Claims(str(tmp_path))
    with pytest.raises(WarehouseError, match="claims"):
        claims.claim("work", 0)
    monkeypatch.undo()
    assert claims.claim("work", 0) is not None


def test_keys_are_any_text(tmp_path: Path) -> None:
    claims = Claims(str(tmp_path))
    keys = ["../x", "", "a\0b", "\ud800", "x" * 10_000, "/abs"]
    held = [claims.claim(key, 0) for key in keys]
    assert None not in held
    assert all(path.parent == tmp_path for path in tmp_path.iterdir())
    for claim in held:
        claim.release()


def test_a_lock_says_who_holds_it(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "lock"))
    assert FileLock(str(tmp_path / "lock")).holder()[0] == "an unknown process"
    assert lock.acquire()
    lock.sign("note")
    holder, note = FileLock(str(tmp_path / "lock")).holder()
    assert "process " in holder and " since " in holder and note == "note"
    lock.close()


def test_exclusive_and_shared(tmp_path: Path) -> None:
    a, b = FileLock(str(tmp_path / "lock")), FileLock(str(tmp_path / "lock"))
    assert a.acquire(shared=True) and b.acquire(shared=True)
    assert not a.acquire()
    b.close()
    assert a.acquire()
    assert not b.acquire(shared=True)
    a.close()
    b.close()


def test_ctrl_c_leaves_no_claim_behind(tmp_path):
    """At each line that taking or giving back one executes: whoever kept it first can give it back."""
    claims, interrupted = Claims(str(tmp_path)), 0
    for n in itertools.count(1):
        claim, fault = claims.new("work"), Lines(n, "warehouse/claims.py")
        try:
            with fault.active():
                claim.take()
                claim.release()
        except KeyboardInterrupt:
            interrupted += 1
        claim.release()
        with Claims(str(tmp_path)).claim("work", 0) or pytest.fail(f"{fault.where}: it was left behind"):
            assert len(claims.file.holders) == 1
        assert claims.file.holders == claims.file._counts == {}
        if not fault.reached:
            break
    assert interrupted > 15


def test_no_room_for_the_note_that_one_waits(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = Claims(str(tmp_path)), Claims(str(tmp_path))
    claim = first.claim("work", 0)
    assert claim is not None
    monkeypatch.setattr(claims_module, "open", full, raising=False)
    with claim, pytest.raises(WarehouseFull, match="waits for another one") as caught:
        second.claim("work", 1)
    assert "free some space" in caught.value.hint


def test_closed_stores_leave_no_descriptors(tmp_path: Path) -> None:
    """A program that opens many stores, one after the other, would run out of them."""

    def claim_in(name: str) -> None:
        with Warehouse(tmp_path / name) as warehouse:
            claim = warehouse.new_claim("work")
            assert claim.take()
            claim.release()

    claim_in("0")  # what is opened once for all of them
    before = len(os.listdir("/proc/self/fd"))
    for name in map(str, range(1, 6)):
        claim_in(name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_claim_outlives_the_store_that_was_closed(tmp_path: Path) -> None:
    """Whoever still holds one keeps others from the work; the table goes when it is given back and closed again."""
    claims = Claims(str(tmp_path))
    claim = claims.claim("work", 0)
    close_claims(str(tmp_path))
    with holding(tmp_path, "other") as process:
        assert claims.claim("other", 0) is None
        process.kill()
    assert claim is not None
    claim.release()
    assert claims.claim("other", 0) is not None


def test_trouble_with_closing_the_table_is_none(tmp_path: Path, monkeypatch: Any) -> None:
    """It was the bare error of a session whose work was all safe."""

    def fail(descriptor: int, close: Any = os.close) -> None:
        close(descriptor)
        raise OSError(errno.EMFILE, "Too many open files")

    claims = Claims(str(tmp_path))
    claim = claims.claim("work", 0)
    assert claim is not None
    claim.release()
    monkeypatch.setattr("pyplantx.warehouse.claims.os.close", fail)
    close_claims(str(tmp_path))
    monkeypatch.undo()
    assert Claims(str(tmp_path)).claim("work", 0) is not None

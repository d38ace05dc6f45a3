"""SIGKILL at random instants, at each mutating call, and of one process among several.

What was announced is still there; nothing is wrong; the next opening needs no help.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.environments import Environments
from pyplantx.warehouse.records import HistoryEntry
from pyplantx.warehouse.warehouse import Commit, Warehouse

SIZES = (3, 100, 3_000, 30_000, 1_200_000)


def value_of(name: str, number: int) -> str:
    """The only right value of this version of this name."""
    size = SIZES[(number + len(name)) % len(SIZES)]
    return (f"{name}={number};" * (size // 4 + 1))[:size] + f"#{number}"


def send(warehouse: Warehouse, name: str, number: int, announce: Callable[[], None] | None = None) -> None:
    ref = warehouse.store(name, value_of(name, number))
    node = hash_text(f"{name} {number}")
    text = f"{name}|{ref.address if ref.inline is None else ''}"
    entry = HistoryEntry(name, name, "ran", "", float(number), 0.5)
    warehouse.commit(Commit(name, node, [(node, text)], [(name, ref)], entry=entry), announce)


def verify(directory: Path, announced: dict[str, int], collected: bool = False) -> None:
    """All promises about what a killed process leaves."""
    begun = time.monotonic()
    with Warehouse(directory) as warehouse:
        assert time.monotonic() - begun < 2 + len(announced) / 10_000
        problems = warehouse.check()
        assert [problem for problem in problems if problem.kind != "garbage"] == []
        for name, number in announced.items():
            ref = warehouse.last_ref(name)
            assert ref is not None, name
            value = warehouse.open(ref)
            found = int(value.rpartition("#")[2])
            assert found >= number and value == value_of(name, found)
            text = warehouse.find_record(hash_text(f"{name} {number}"))
            assert text is not None and text.startswith(f"{name}|")
        for _, body in warehouse._reader.scan("traces"):
            address = body.decode().rpartition("|")[2]  # a durable trace names durable objects only
            assert not address or collected or warehouse._opener.find(address) is not None
        assert os.listdir(directory / "staging") == [f"{warehouse._session.id}.lease"]


def child(action: Callable[[int], None]) -> tuple[int, int]:
    """A forked process that does it; its pid, and a pipe that it writes into."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            action(writing)
            code = 0
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(writing)
    return pid, reading


def said(pipe: int) -> Iterator[tuple[str, int]]:
    with open(pipe) as file:
        for line in file.read().splitlines(keepends=True):
            if line.endswith("\n"):
                name, _, number = line.strip().partition(" ")
                yield name, int(number)


def work(directory: Path, first: int, pipe: int, prefix: str = "n") -> None:
    """Send for ever, tell what was announced."""
    warehouse = Warehouse(directory)
    for number in range(first, first + 10_000):
        name = f"{prefix}{number % 7}"
        line = f"{name} {number}\n".encode()
        send(warehouse, name, number, lambda line=line: os.write(pipe, line))  # type: ignore[misc]
        warehouse.maybe_flush()
        for tell in warehouse.announcements():
            tell()


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("durability", ["power", "process"])
def test_sixty_kills_at_random_instants(tmp_path: Path, durability: str, monkeypatch: Any) -> None:
    directory, chance = tmp_path / "plant", random.Random(1)
    announced: dict[str, int] = {}
    for round in range(30):
        pid, pipe = child(lambda pipe, round=round: work(directory, round * 10_000, pipe))  # type: ignore[misc]
        time.sleep(chance.uniform(0.005, 0.12))
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
        announced.update(said(pipe))
        verify(directory, announced)
    assert announced


MUTATING = ("open", "write", "pwrite", "rename", "unlink", "mkdir", "chmod", "fchmod", "fsync", "rmdir")


def kill_at_call(number: int) -> None:
    """Make this process die just before its n-th mutating call."""
    left = [number]

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in MUTATING:
        setattr(os, name, watched(getattr(os, name)))
    Environments.transact = watched(Environments.transact)  # type: ignore[method-assign]


def scripted(directory: Path, pipe: int) -> None:
    """One of everything that writes: sends of all sizes, an allocation, a re-add, a backup, a collection, a close."""
    write = os.write
    warehouse = Warehouse(directory)
    for number in range(6):
        line = f"n {number}\n".encode()
        send(warehouse, "n", number, lambda line=line: write(pipe, line))  # type: ignore[misc]
        warehouse.sync()
        for tell in warehouse.announcements():
            tell()
    warehouse.store("lost", value_of("lost", 2))
    warehouse.allocate("file", "file", suffix=".txt").discard()
    warehouse.backup()
    warehouse.keeper.gc(None, 1, None, False)
    warehouse.close()


def test_a_kill_at_each_mutating_call(tmp_path: Path) -> None:
    number, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        number += 1
        directory = tmp_path / f"plant{number}"

        def act(pipe: int, directory: Path = directory, number: int = number) -> None:
            kill_at_call(number)
            scripted(directory, pipe)

        pid, pipe = child(act)
        code = wait(pid)
        assert code in (0, -signal.SIGKILL)
        verify(directory, dict(said(pipe)), collected=True)
        shutil.rmtree(directory)
    assert number > 60


def test_several_processes_and_kills_on_one_directory(tmp_path: Path) -> None:
    directory, chance = tmp_path / "plant", random.Random(2)
    announced: dict[str, int] = {}
    first = 0
    for round in range(6):
        children = []
        for prefix in "abc":
            first += 10_000
            children.append(
                child(lambda pipe, first=first, prefix=prefix: work(directory, first, pipe, prefix))  # type: ignore[misc]
            )
        for pid, pipe in children:
            if round == 5:  # on a busy machine none may have come so far before
                select.select([pipe], [], [], 60)
            time.sleep(chance.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
        for pid, pipe in children:
            assert wait(pid) == -signal.SIGKILL
            announced.update(said(pipe))
        verify(directory, announced)
    assert {name[0] for name in announced} == set("abc")


def test_a_stopped_writer_is_named_within_the_time_limit(tmp_path: Path) -> None:
    """The other process is stopped inside a commit; we get an error that names it, and go on after its death."""
    from pyplantx.errors import StoreBusy

    directory = tmp_path / "plant"

    def stop_inside(pipe: int) -> None:
        real = Environments.transact

        def stopped(self: Environments, env: Any, work: Any) -> None:
            os.write(pipe, b"stopped 0\n")
            os.kill(os.getpid(), signal.SIGSTOP)
            real(self, env, work)

        warehouse = Warehouse(directory)
        Environments.transact = stopped  # type: ignore[method-assign]
        send(warehouse, "x", 1)
        warehouse.sync()

    warehouse = Warehouse(directory, lock_timeout=0.3)
    pid, pipe = child(stop_inside)
    os.waitpid(pid, os.WUNTRACED)
    try:
        begun = time.monotonic()
        send(warehouse, "x", 2)
        with pytest.raises(StoreBusy, match=f"process {pid} on"):
            warehouse.sync()
        assert time.monotonic() - begun < 3
    finally:
        os.kill(pid, signal.SIGKILL)
    wait(pid)
    warehouse.sync()
    warehouse.close()
    os.close(pipe)
    verify(directory, {"x": 2})

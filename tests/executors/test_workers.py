"""Worker processes: how they are started, what becomes of those that die, and that none is left."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx.blocks import travel
from pyplantx.errors import BadRequest, ReactorError
from pyplantx.executors.processes import WorkerProcesses
from pyplantx.executors.workers import Given, Threads, workers_for
from pyplantx.specs.builtin import code_pickler
from tests.executors.waiting import is_gone, until


@pytest.fixture
def pool() -> Iterator[WorkerProcesses]:
    workers = WorkerProcesses(2)
    yield workers
    workers.close()


def job(workers: Any, function: Callable[..., Any]) -> Any:
    return workers.begin(workers.pack(function, code_pickler))


def once(path: str) -> bool:
    """Whether nobody was here before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


class TestCalls:
    def test_lambdas_and_closures(self, pool):
        offset = np.arange(3)
        with job(pool, lambda x: x * 2 + offset) as call:
            assert call(np.array([1, 2, 3])).tolist() == [2, 5, 8]

    def test_several_at_once_in_processes_of_their_own(self, pool):
        with job(pool, lambda x: (os.getpid(), x)) as call, ThreadPoolExecutor(4) as threads:
            found = list(threads.map(call, range(40)))
        assert [x for _, x in found] == list(range(40))
        assert os.getpid() not in {pid for pid, _ in found}

    def test_workers_are_used_again(self, pool):
        found = set()
        for _ in range(3):
            with job(pool, os.getpid) as call:
                found.add(call())
        assert len(found) == 1

    def test_where_and_with_what_arguments_the_program_runs(self, pool, tmp_path, monkeypatch):
        import sys

        for folder in (tmp_path, tmp_path.parent):
            monkeypatch.chdir(folder)
            monkeypatch.setattr(sys, "argv", ["program", str(folder)])
            with job(pool, lambda: (os.getcwd(), __import__("sys").argv)) as call:
                assert call() == (str(folder), ["program", str(folder)])

    def test_a_job_is_forgotten(self, pool, tmp_path):
        class Marker:
            def __init__(self, path: str) -> None:
                self.path = path

            def __del__(self, close: Any = os.close, open: Any = os.open, flags: int = os.O_CREAT) -> None:
                close(open(self.path, flags))

        kept = Marker(str(tmp_path / "gone"))
        with job(pool, lambda: kept.path) as call:
            path = call()
            assert not os.path.exists(path)
        until(lambda: os.path.exists(path))


class TestSurroundings:
    def test_what_is_printed_is_not_lost(self, pool, capfd):
        with job(pool, lambda: print("printed by a worker")) as call:
            call()
        assert "printed by a worker" in capfd.readouterr().out

    def test_modules_that_are_reached_through_their_package(self, pool, tmp_path, monkeypatch):
        import importlib

        inside = tmp_path / "some_package" / "part"
        inside.mkdir(parents=True)
        (tmp_path / "some_package/__init__.py").touch()
        (inside / "__init__.py").touch()
        (inside / "leaf.py").write_text("VALUE = 4\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.import_module("some_package.part.leaf")
        some_package = importlib.import_module("some_package")
        job_, _ = travel.pack(lambda: some_package.part.leaf.VALUE, [], "a test", pool)
        with pool.begin(job_) as call:
            assert call() == 4

    def test_the_death_of_one_with_children_is_noticed(self, pool, tmp_path):
        """Which have all that it had, but not its connection."""

        def leaves_a_child() -> None:
            child = os.fork()
            if child == 0:
                time.sleep(600)
            (tmp_path / str(child)).touch()
            os._exit(4)

        with pytest.raises(ReactorError, match="status 4"), job(pool, leaves_a_child) as call:
            call()
        for child in tmp_path.iterdir():
            os.kill(int(child.name), signal.SIGKILL)

    def test_the_death_of_one_that_has_started_a_command_is_noticed(self, pool, tmp_path):
        """Which goes on, and was taken for the worker as long as it did."""

        def leaves_a_command() -> None:
            os.system(f"sleep 60 & echo $! >> {tmp_path}/pids")
            os._exit(4)

        begun = time.monotonic()
        try:
            with pytest.raises(ReactorError, match="status 4"), job(pool, leaves_a_command) as call:
                call()
        finally:
            for pid in (tmp_path / "pids").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        assert time.monotonic() - begun < 50


class TestErrors:
    def test_come_as_they_are_with_the_traceback_of_the_worker(self, pool):
        def divide(x: int) -> float:
            return 1 / x

        with pytest.raises(ZeroDivisionError) as caught, job(pool, divide) as call:
            call(0)
        (note,) = caught.value.__notes__
        assert note.startswith("in a worker process:") and "return 1 / x" in note and "pyplantx/" not in note

    def test_system_exit_too(self, pool):
        with pytest.raises(SystemExit) as caught, job(pool, lambda: __import__("sys").exit(7)) as call:
            call()
        assert caught.value.code == 7

    def test_those_that_can_not_be_made_again_are_told(self, pool):
        class Odd(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one} and {two}")

        def fail() -> None:
            raise Odd(1, 2)

        with (
            pytest.raises(ReactorError, match="(?s)failed in a worker process:.*Odd: 1 and 2"),
            job(pool, fail) as call,
        ):
            call()

    def test_results_that_can_not_be_sent_are_told(self, pool):
        with (
            pytest.raises(BadRequest, match="returned for a block, a lock can't be sent.*"),
            job(pool, lambda: threading.Lock()) as call,
        ):
            call()

    def test_modules_that_can_not_be_imported_there(self, pool, tmp_path, monkeypatch):
        import importlib

        (tmp_path / "vanishing.py").write_text("def f():\n    return 1\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr("sys.dont_write_bytecode", True)
        function = importlib.import_module("vanishing").f
        (tmp_path / "vanishing.py").unlink()
        with pytest.raises(ModuleNotFoundError, match="vanishing"), job(pool, function) as call:
            call()


class TestDeath:
    def test_a_block_is_tried_once_more(self, pool, tmp_path):
        path = str(tmp_path / "mark")

        def dies_once(x: int) -> int:
            if once(path):
                os.kill(os.getpid(), signal.SIGKILL)
            return x

        with job(pool, dies_once) as call:
            assert call(5) == 5

    @pytest.mark.parametrize(
        ("end", "words"),
        [
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
            (lambda: os._exit(3), "ended with status 3"),
        ],
    )
    def test_but_not_for_ever(self, end, words, pool):
        with (
            pytest.raises(ReactorError, match=f"2 times, and each time it died: .*{words}.*{words}"),
            job(pool, end) as call,
        ):
            call()
        with job(pool, lambda: 1) as call:
            assert call() == 1

    def test_of_one_that_can_not_answer_and_has_threads_of_its_own(self, pool):
        def closes_all_there_is():
            threading.Thread(target=time.sleep, args=(60,)).start()
            os.closerange(3, 100)

        with job(pool, closes_all_there_is) as call, pytest.raises(ReactorError, match="it ended with status 1"):
            call()

    def test_where_the_system_does_not_say_how(self, pool):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with (
                pytest.raises(ReactorError, match="status 0, or as nobody can tell: the program ignores SIGCHLD"),
                job(pool, lambda: os.kill(os.getpid(), signal.SIGKILL)) as call,
            ):
                call()
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_none_can_be_started(self, pool, monkeypatch):
        """For want of descriptors, be it for the connection or for the process; nothing of it stays open."""

        def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        for place, name in ((socket, "socketpair"), (subprocess, "Popen")):
            before = len(os.listdir("/dev/fd"))
            with (
                monkeypatch.context() as without,
                pytest.raises(BadRequest, match="no worker process can be started: .*Too many open") as caught,
                job(pool, lambda: 1) as call,
            ):
                without.setattr(place, name, refuse)
                call()
            assert caught.tb and len(os.listdir("/dev/fd")) == before
        with job(pool, lambda: 1) as call:
            assert call() == 1

    def test_of_those_that_were_idle_is_no_attempt(self, pool):
        def pid(_: int) -> int:
            time.sleep(0.05)  # long enough for the others to be asked, too
            return os.getpid()

        with job(pool, pid) as call, ThreadPoolExecutor(3) as threads:
            pids = set(threads.map(call, range(6)))
        assert len(pids) > 1
        for each in pids:
            os.kill(each, signal.SIGKILL)
            until(partial(is_gone, each))
        with job(pool, lambda: 5) as call:
            assert call() == 5

    def test_one_that_is_ended_as_it_has_just_finished(self, pool):
        """It is not taken for a worker of the next loop."""
        for _ in range(5):
            with (
                pytest.raises(ZeroDivisionError),
                ThreadPoolExecutor(2) as threads,
                job(pool, lambda x: 1 // x) as call,
            ):
                running = [threads.submit(call, number) for number in (0, 1, 1, 1, 1, 1, 1)]
                for future in running:
                    future.result()
        with job(pool, lambda: 5) as call:
            assert call() == 5


class TestNoneIsLeft:
    def test_after_close(self, pool):
        with job(pool, os.getpid) as call:
            pid = call()
        pool.close()
        assert is_gone(pid)

    def test_when_nobody_has_the_pool_any_more(self):
        workers = WorkerProcesses(1)
        with job(workers, os.getpid) as call:
            pid = call()
        del workers, call
        assert is_gone(pid)

    def test_what_is_under_way_is_ended_with_the_loop(self, pool, tmp_path):
        path = tmp_path / "pid"

        def long() -> None:
            (path.parent / "new").write_text(str(os.getpid()))
            os.rename(path.parent / "new", path)
            time.sleep(600)

        with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as threads, job(pool, long) as call:
            threads.submit(call)
            until(path.exists)
            raise KeyboardInterrupt
        assert is_gone(int(path.read_text()))

    def test_when_the_program_is_killed(self, tmp_path):
        """In the middle of a function that never ends by itself."""
        path = tmp_path / "pid"

        def spin() -> None:
            (path.parent / "new").write_text(str(os.getpid()))
            os.rename(path.parent / "new", path)
            while True:
                pass

        program = os.fork()
        if program == 0:
            try:
                workers = WorkerProcesses(1)
                with job(workers, spin) as call:
                    call()
            finally:
                os._exit(1)
        until(path.exists)
        os.kill(program, signal.SIGKILL)
        os.waitpid(program, 0)
        until(partial(is_gone, int(path.read_text())))

    def test_a_forked_child_does_not_keep_them(self, pool):
        with job(pool, os.getpid) as call:
            pid = call()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        pool.close()
        assert is_gone(pid)
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)

    def test_ctrl_c_is_not_theirs(self, pool):
        with job(pool, os.getpid) as call:
            pid = call()
            os.kill(pid, signal.SIGINT)
            assert call() == pid


class TestChoice:
    def test_none(self):
        assert workers_for(None) is None

    def test_words(self):
        assert isinstance(workers_for("threads"), Threads)
        found = workers_for("processes")
        assert isinstance(found, WorkerProcesses) and found.count >= 1

    @pytest.mark.parametrize("wrong", ["process", 3, object(), Future])
    def test_anything_else(self, wrong):
        with pytest.raises(BadRequest, match="executor=.*is not possible"):
            workers_for(wrong)

    def test_an_executor_of_the_users(self):
        with ThreadPoolExecutor(3) as threads:
            given = workers_for(threads)
            assert isinstance(given, Given) and given.count == 3 and not given.travels
            with given.begin(lambda x: (x, threading.current_thread().name)) as call:
                value, name = call(4)
            assert value == 4 and name.startswith("ThreadPoolExecutor")
            given.close()
            assert threads.submit(int).result() == 0

    def test_one_with_processes(self, tmp_path):
        path, array = str(tmp_path / "mark"), np.arange(5)
        with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as processes:
            given = workers_for(processes)
            assert given.count == 2 and given.travels
            with job(given, lambda x: (os.getpid(), x + array)) as call:
                (one, values), (other, _) = call(1), call(2)
            assert values.tolist() == [1, 2, 3, 4, 5] and os.getpid() not in (one, other)
            with pytest.raises(ZeroDivisionError) as caught, job(given, lambda x: 1 / x) as call:
                call(0)
            assert "in a worker process" in caught.value.__notes__[0]
            with pytest.raises(ReactorError, match="has lost a worker"), job(given, lambda: os._exit(1)) as call:
                call()
        assert not Path(path).exists()

    def test_one_that_was_shut_down(self):
        with ThreadPoolExecutor(1) as threads:
            given = workers_for(threads)
        with pytest.raises(BadRequest, match="takes no work"), given.begin(int) as call:
            call()

    def test_whoever_waits_for_one_is_let_go(self):
        never = Future()

        class Stuck:
            def submit(self, *_: Any) -> Future[Any]:
                return never

        given = workers_for(Stuck())
        given.travels = False
        with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as threads, given.begin(int) as call:
            waiting = threads.submit(call)
            raise KeyboardInterrupt
        assert isinstance(waiting.exception(), ReactorError) and never.cancelled()

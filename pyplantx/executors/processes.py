"""Worker processes of our own, for functions of blocks.

Each is a fresh interpreter that is started when it is first needed and lives until the plant is closed. It does not
import the user's ``__main__``, so a script needs no ``if __name__ == "__main__"``. It is given a job and then blocks,
one at a time, through one end of a socket: when the plant is gone, however it died, the other end is closed, and the
worker ends.

This file may know: processes, sockets, messages. It may not know: arrays, runs, stores.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from pyplantx.errors import BadRequest, ReactorError
from pyplantx.executors.channel import Channel, MakePickler, Message, encode
from pyplantx.executors.worker import Job, packed, taken

#: The program of a worker: `pyplantx` is imported from where the plant has it from.
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from pyplantx.executors.worker import main; main(int(sys.argv[1]))"

#: How often a block is given to a worker before its loss is an error.
_ATTEMPTS = 2

_PATIENCE = 5.0  #: seconds for a worker to end by itself


class WorkerProcesses:
    """Calls functions in processes of its own.

    Parameters
    ----------
    count : int
        How many at once, if nobody says otherwise.

    Attributes
    ----------
    travels : bool
        What they are given goes to another process.
    same_machine : bool
        They see the same files.
    """

    travels = same_machine = True

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._end = weakref.finalize(self, _kill_all, self._idle, self._busy)  # at the end of the interpreter, too
        _pools.add(self)

    def pack(self, function: Callable[..., Any], pickler: MakePickler) -> Job:
        """A function as a job."""
        return packed(function, pickler)

    @contextlib.contextmanager
    def begin(self, job: Job) -> Iterator[Callable[..., Any]]:
        """Do a job: gives a function that is called with the parts of a block, by several threads at once.

        When the block of the ``with`` statement is left by an exception, what is still being computed is ended.
        """
        session = _Session(self, job)
        try:
            yield session
        except BaseException:
            session.is_over = True
            self._kill_busy()
            raise
        session.is_over = True
        self._forget_job()

    def take(self) -> _Worker:
        """A worker that nobody else has."""
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive():  # it may have been killed as it was given back, or by the system since
                    self._busy.add(worker)
                    return worker
                worker.kill()
        worker = _Worker()
        with self._lock:
            self._busy.add(worker)
        return worker

    def give_back(self, worker: _Worker) -> None:
        """A worker has done what it was asked for."""
        with self._lock:
            self._busy.discard(worker)
            self._idle.append(worker)

    def drop(self, worker: _Worker, patience: float = _PATIENCE) -> str:
        """A worker is of no use any more; how it has ended."""
        with self._lock:
            self._busy.discard(worker)
        return worker.kill(patience)

    def _kill_busy(self) -> None:
        with self._lock:
            busy = list(self._busy)
        for worker in busy:
            worker.kill(patience=0)

    def _forget_job(self) -> None:
        """Have the workers let go of what they know of the job."""
        with self._lock:
            idle = list(self._idle)
        for worker in idle:
            with contextlib.suppress(OSError):  # it has died meanwhile: whoever takes it next finds out
                worker.forget()

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            workers = [*self._idle, *self._busy]
            self._idle.clear()
            self._busy.clear()
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.kill()

    def left_behind(self) -> None:
        """In a forked child: the workers belong to the parent, and must not wait for us to end."""
        for worker in (*self._idle, *self._busy):
            worker.close()
        self._lock = threading.Lock()
        self._idle.clear()
        self._busy.clear()


class _Session:
    """One job while it lasts.

    Attributes
    ----------
    is_over : bool
        Nobody wants to know any more: a worker that dies now was ended by us.
    """

    def __init__(self, pool: WorkerProcesses, job: Job) -> None:
        self._pool, self._job = pool, job
        self.is_over = False

    def __call__(self, *parts: Any) -> Any:
        call = encode(("call", parts))
        ends: list[str] = []
        while len(ends) < _ATTEMPTS and not self.is_over:
            answer = self._asked(call, ends)
            if answer is not None:
                return taken(answer)
        raise ReactorError(
            f"a block was given to a worker process {len(ends)} times, and each time it died: {'; '.join(ends)}",
            hint="if the system has killed them there was too little memory (its log says so): give less memory= or "
            "fewer workers=; workers=1 calls the function in the plant's own process, where a crash can be looked into",
        )

    def _asked(self, call: Message, ends: list[str]) -> Message | None:
        """The answer of a worker; None if it has died (and then how), or is out of date."""
        worker = self._pool.take()
        try:
            answer = None if self.is_over else worker.ask(self._job, call)
        except _Died:
            ends.append(self._pool.drop(worker))
            return None
        except _Stale:  # no attempt: the next one may be as old, the last one is fresh
            self._pool.drop(worker, patience=0)
            return None
        except BaseException:  # an interrupt in the middle of a message, or a job that it can't do
            self._pool.drop(worker, patience=0)
            raise
        self._pool.give_back(worker)
        return answer


class _Died(Exception):
    """A worker is gone."""


class _Stale(Exception):
    """A worker that has done other jobs can't do this one; a fresh one, which imports everything anew, may."""


class _Worker:
    """One process."""

    def __init__(self) -> None:
        ours, self._process = _started()
        self._channel = Channel(ours)
        self._job = ""
        self._is_fresh = True

    def ask(self, job: Job, call: Message) -> Message:
        """The answer to a call.

        Raises
        ------
        _Died
            If it is gone.
        _Stale
            If it can't take up the job, and had others before.
        BadRequest
            If it is fresh, and yet has other code or values than we have.
        Exception
            Whatever importing the job's modules raised.
        """
        if self._job != job.key:
            self._job = job.key
            self._hand_over(job)
        return self._exchange(call)

    def _exchange(self, message: Message) -> Message:
        try:
            self._channel.send(message)
            return self._channel.receive()
        except (EOFError, OSError) as error:
            raise _Died from error

    def _hand_over(self, job: Job) -> None:
        was_fresh, self._is_fresh = self._is_fresh, False
        answer = self._exchange(encode(("job", job)))
        try:
            taken(answer)
        except Exception as error:
            if was_fresh:
                raise
            raise _Stale from error

    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def forget(self) -> None:
        """Let it forget its job."""
        if self._job:
            self._job = ""
            self._channel.send(encode(("forget",)))

    def close(self) -> None:
        """Close the connection, so that it ends."""
        self._channel.close()

    def kill(self, patience: float = _PATIENCE) -> str:
        """See to it that it has ended; in words, how."""
        try:
            code = self._process.wait(patience) if patience else None
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            self._process.kill()
            code = self._process.wait()
        self._channel.close()
        return _in_words(code)


def _started() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a worker; our end of the socket, and the process at the other one."""
    try:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as unless_started, theirs:
            unless_started.callback(ours.close)
            process = _process_on(theirs.fileno())
            unless_started.pop_all()
        return ours, process
    except OSError as error:
        raise BadRequest(
            f"no worker process can be started: {error}", hint="Plant(executor='threads'), or workers=1"
        ) from error


def _process_on(fd: int) -> subprocess.Popen[bytes]:
    """A worker on one end of a socket."""
    flags = ["-O"] * sys.flags.optimize
    command = [sys.executable, *flags, "-c", _PROGRAM, str(fd), *sys.path]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # handed down: Ctrl-C must not meet it half-made
    try:
        return subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_words(code: int) -> str:
    if code == 0:  # which `subprocess` also says where the system has no status to give
        return "it ended with status 0, or as nobody can tell: the program ignores SIGCHLD, or waits for any child"
    if code > 0:
        return f"it ended with status {code}"
    try:
        return f"it was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was killed by signal {-code}"


def _kill_all(idle: list[_Worker], busy: set[_Worker]) -> None:
    for worker in (*idle, *busy):
        worker.kill(patience=0)


_pools: weakref.WeakSet[WorkerProcesses] = weakref.WeakSet()


def _leave_behind() -> None:
    for pool in _pools:
        pool.left_behind()


os.register_at_fork(after_in_child=_leave_behind)

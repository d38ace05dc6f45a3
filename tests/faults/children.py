"""Forked children under a time limit, and what became of them.

A harness imports everything once and forks for each case: twenty milliseconds instead of a second.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

#: Seconds after which a child counts as hanging. Generous: the machine may be busy.
LIMIT = 60.0

Tell = Callable[[str], object]


class Ended(NamedTuple):
    """What became of a child.

    Attributes
    ----------
    status : int
        Exit code; minus the signal's number if one ended it.
    lines : list of str
        What it told, whole lines only.
    errors : str
        What it wrote to its standard error, tracebacks and the stacks of a crash included.
    seconds : float
        How long it took.
    hung : bool
        Whether the time limit ended it.
    """

    status: int
    lines: list[str]
    errors: str
    seconds: float
    hung: bool

    @property
    def crashed(self) -> bool:
        """Ended by a signal that nobody sent on purpose."""
        return self.status < 0 and self.status != -signal.SIGKILL and not self.hung


class Child:
    """A forked process that does something and tells lines about it."""

    def __init__(self, action: Callable[[Tell], object]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._begun = time.monotonic()
        self._errors = tempfile.TemporaryFile()
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            _do(action, writing, self._errors.fileno())
        os.close(writing)
        self._told = bytearray()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal; it may have ended already."""
        os.kill(self.pid, number)

    def wait_for(self, beginning: str, times: int = 1, limit: float = LIMIT) -> bool:
        """Wait until it has told so many lines that begin so; False if it ends or the time is up before that."""
        deadline = time.monotonic() + limit
        while sum(line.startswith(beginning) for line in self.lines()) < times:
            if not self._read(deadline - time.monotonic()):
                return False
        return True

    def lines(self) -> list[str]:
        """The lines that it has told so far."""
        whole, newline, _ = self._told.rpartition(b"\n")
        return whole.decode().split("\n") if newline else []

    def end(self, limit: float = LIMIT) -> Ended:
        """Wait for its end; at the limit it is made to print its stacks and die."""
        deadline = time.monotonic() + limit
        while self._read(deadline - time.monotonic()):
            pass
        hung = time.monotonic() >= deadline
        if hung:
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGABRT)  # faulthandler prints where each thread is
            self._await_death(10.0)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._reading)
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")
        self._errors.close()
        return Ended(status, self.lines(), errors, time.monotonic() - self._begun, hung)

    def _read(self, seconds: float) -> bool:
        """Take what it told; False at its end, or when the seconds are over."""
        told = select.poll()  # which takes descriptors of any number, when many files are open
        told.register(self._reading, select.POLLIN)
        if seconds <= 0 or not told.poll(1000 * seconds):
            return False
        data = os.read(self._reading, 1 << 16)
        self._told += data
        return bool(data)

    def _await_death(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _do(action: Callable[[Tell], object], writing: int, errors: int) -> None:
    """In the child: act, and end without any of the parent's business."""
    status = 1
    try:
        os.dup2(errors, 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        faulthandler.enable(sys.stderr)
        action(lambda line: os.write(writing, line.encode() + b"\n"))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def run_child(action: Callable[[Tell], object], limit: float = LIMIT) -> Ended:
    """Do something in a child and wait for its end."""
    return Child(action).end(limit)


def in_child(action: Callable[[], object], limit: float = LIMIT) -> int:
    """Do something in a child; its exit code. No exception leads out of there: it would go on as the test's process."""
    ended = run_child(lambda _: action(), limit)
    print(ended.errors, end="", file=sys.stderr)
    return ended.status


@contextlib.contextmanager
def scratch(prefix: str = "pyplantx-faults-", where: str | None = None) -> Iterator[str]:
    """An empty directory, in memory where the system has one (a sync costs nothing there), removed at the end."""
    place = where or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as directory:
        yield os.path.realpath(directory)


def told(ended: Ended, kind: str) -> Iterator[tuple[Any, ...]]:
    """The words after `kind`, of each line that begins with it."""
    for line in ended.lines:
        word, *rest = line.split()
        if word == kind:
            yield tuple(rest)

"""How threads of ours are started: with small stacks where memory is limited, and without any wait that may not end.

This file knows nothing of what they do. Pools of them: ``pools.py``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from pyplantx.specs.scarce import is_memory_limited, share_one_heap

if TYPE_CHECKING:
    import weakref

#: Bytes of stack of our own threads where memory is limited; 8 MiB are usual.
SMALL_STACK = 1 << 20
#: The same of threads in which HDF5 may run filters: h5py's lzf takes 1 MiB to pack, and to have less ends the process.
FILTER_STACK = 2 << 20
_LOOK_AGAIN = 0.05  #: seconds after which a thread that has given no sign is looked for


def start_thread(work: Callable[[], None], name: str, *, stack: int | None = SMALL_STACK) -> threading.Thread | None:
    """Start a daemon thread that would help.

    Parameters
    ----------
    work : callable
        What it does.
    name : str
        Its name.
    stack : int, optional
        Bytes of stack that are enough, where memory is limited. None, the usual one, for functions of users, which may
        call themselves as deep as they like.

    Returns
    -------
    threading.Thread or None
        None if there is no memory for it, or are too many threads.
    """
    thread = _Thread(target=work, name=name, daemon=True)
    try:
        with nullcontext() if stack is None else small_stacks(stack):
            thread.start()
    except RuntimeError:
        return None
    return thread


@contextmanager
def small_stacks(nbytes: int = SMALL_STACK) -> Iterator[None]:
    """Threads that are started inside get stacks of so many bytes, where the process may have only so much memory.

    Such a limit counts stacks in full, touched or not. Without one they cost nothing, and nothing is changed: the
    setting is the whole process's, and a thread that others start in this moment would get a small one too.
    """
    if not is_memory_limited():
        yield
        return
    before = threading.stack_size(nbytes)
    try:
        yield
    finally:
        threading.stack_size(before)


class _Thread(threading.Thread):
    """A thread whose `start` ends whatever becomes of it.

    `threading.Thread.start` waits for a sign that the thread gives in its first lines. One that dies before that, since
    there is no memory for them, is waited for for ever. So the wait is ours, and looks for the thread's life: an object
    that nobody has but the thread itself.
    """

    def __init__(self, **options: Any) -> None:
        from weakref import ref  # not for those who never start one

        super().__init__(**options)
        self._ref = ref
        self._started = _Sign()  # what `Thread.start` waits for

    @property
    def _bootstrap(self) -> _Life:  # what `Thread.start` has the new thread call
        life = _Life(super()._bootstrap)  # type: ignore[misc]
        self._started.life = self._ref(life)
        return life

    def start(self) -> None:
        """See `threading.Thread.start`.

        Raises
        ------
        RuntimeError
            If the thread can't be started, or has died before it could begin.
        """
        if is_memory_limited():
            share_one_heap()
        try:
            super().start()
        except RuntimeError:
            getattr(threading, "_limbo", {}).pop(self, None)  # where those are listed that have not begun
            raise


class _Life:
    """What the new thread calls; it is let go of when the thread is over, in whichever way."""

    def __init__(self, bootstrap: Callable[[], None]) -> None:
        self._bootstrap = bootstrap

    def __call__(self) -> None:
        self._bootstrap()


class _Sign(threading.Event):
    """The sign of a thread that it has begun."""

    life: weakref.ref[_Life] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the sign, or the end of the thread.

        Raises
        ------
        RuntimeError
            If the thread is over and has given no sign.
        """
        while not self._wait_a_moment():
            over = self.life is None or self.life() is None
            if over and not self.is_set():  # asked for in this order: it may have come and gone
                raise RuntimeError("can't start new thread: there was no memory for its first lines")
        return True

    def _wait_a_moment(self) -> bool:
        try:
            return super().wait(_LOOK_AGAIN)
        except MemoryError:  # to wait takes memory, to sleep takes none
            time.sleep(_LOOK_AGAIN)
            return self.is_set()

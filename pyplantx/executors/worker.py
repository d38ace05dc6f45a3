"""What runs in another process: it is given a job once, and then parts, for each of which it gives a result.

This file may know: messages, pickles. It may not know: arrays, plants, stores. A worker of ours is started as ``main``
on one end of a socket and ends when the plant closes the other one, or dies. In somebody else's executor, `run_block`
does the same for one block.

What is said, each a `Message`:

- to the worker: ``("job", Job)``; ``("call", parts)``; ``("forget",)``, which has no answer;
- from it: ``("gave", value)``; ``("raised", encoded error or None, traceback as text)``; ``("unsent", why)``, if the
  value can't be sent; ``("differs", labels)``, if the job's function is not here what it was there: then nothing is
  computed. To a job that it can do it gives None.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import BadRequest, ReactorError, add_note
from pyplantx.executors.channel import Channel, MakePickler, Message, decode, encode

#: How many jobs a process of somebody else's executor remembers.
_REMEMBERED = 4

#: How many labels of what differs an error names.
_SHOWN = 8


class Job(NamedTuple):
    """What is to be done with each block.

    Attributes
    ----------
    key : str
        Tells jobs apart.
    code : Message
        A pickled callable, which is given the parts of a block. If it has a method ``differences``, that gives labels
        of what is imported here and is not what the sender has.
    folder : str
        The working directory; "" if there is none.
    path, argv : list of str
        As in ``sys``.
    """

    key: str
    code: Message
    folder: str
    path: list[str]
    argv: list[str]


def packed(function: Callable[..., Any], pickler: MakePickler) -> Job:
    """The job to call a function with the parts of each block."""
    return Job(os.urandom(8).hex(), encode(function, pickler), _folder(), list(sys.path), list(sys.argv))


def _folder() -> str:
    """Where this process works; "" if that folder was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def main(fd: int) -> None:
    """Work for the process at the other end of a socket, until that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the plant's business: it ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    channel = Channel(socket.socket(fileno=fd))
    os.set_inheritable(fd, False)  # a command that we start may outlive us, and must not seem to be us
    os.register_at_fork(after_in_child=channel.close)  # nor must a child of ours
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
    try:
        _work(channel, inbox)
    except BaseException:  # no memory for an answer, or a function has closed our end
        traceback.print_exc()
    os._exit(1)  # threads that functions have begun must not keep alive a process that answers nothing


def _work(channel: Channel, inbox: queue.SimpleQueue[Message]) -> None:
    worker = _Worker()
    while True:
        answer = worker.hear(inbox.get())
        if answer is not None:
            channel.send(answer)


def _listen(channel: Channel, inbox: queue.SimpleQueue[Message]) -> None:
    """Take what comes; when nothing can come any more, end the process, whatever it is doing."""
    while True:
        try:
            inbox.put(channel.receive())
        except (EOFError, OSError):
            os._exit(0)
        except BaseException:  # no memory for it: the plant is told by our end
            traceback.print_exc()
            os._exit(1)


class _Worker:
    """What a worker process knows: the present job."""

    def __init__(self) -> None:
        self._do: Callable[..., Any] = _nothing_to_do

    def hear(self, message: Message) -> Message | None:
        """The answer to a message; None if there is none."""
        try:
            kind, *rest = decode(message)
        except Exception as error:  # parts of a class that can't be made here, say
            return _raised(error)
        if kind == "call":
            return _flushed(_answer(self._do, rest[0]))
        self._do = _nothing_to_do
        return self._taken_up(rest[0]) if kind == "job" else None

    def _taken_up(self, job: Job) -> Message:
        try:
            sys.path[:], sys.argv[:] = job.path, job.argv
            if job.folder:
                os.chdir(job.folder)
            self._do = _decoded_job(job.code)
        except _Differs as error:
            return encode(("differs", error.labels))
        except BaseException as error:  # what importing its modules raised
            return _raised(error)
        return encode(("gave", None))


class _Differs(Exception):
    """A job's function is not here what it was there."""

    def __init__(self, labels: list[str]) -> None:
        super().__init__(*labels)
        self.labels = labels


def _decoded_job(code: Message) -> Callable[..., Any]:
    """The callable of a job, which is just what was packed."""
    function: Callable[..., Any] = decode(code)
    compare = getattr(type(function), "differences", None)
    labels = compare(function) if compare is not None else []
    if labels:
        raise _Differs(labels)
    return function


def _flushed(answer: Message) -> Message:
    """What the function has printed must not be lost with the process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    return answer


def _nothing_to_do(*_: Any) -> Any:
    raise RuntimeError("a worker was called before it was given a job")


def _answer(function: Callable[..., Any], parts: Sequence[Any]) -> Message:
    try:
        value = function(*parts)
    except BaseException as error:  # raised again in the plant's process, SystemExit too
        return _raised(error)
    try:
        return encode(("gave", value))
    except Exception as error:
        why = f"a {type(value).__qualname__} can't be sent to another process: {type(error).__name__}: {error}"
        return encode(("unsent", f"what the function returned for a block, {why}"))


def _raised(error: BaseException) -> Message:
    text = "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__))).rstrip()
    try:
        kept: Message | None = encode(error)
    except Exception:  # it holds what can't be sent: the text tells all there is
        kept = None
    return encode(("raised", kept, text))


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without its first frames, which are ours."""
    first = tb
    while tb is not None and str(tb.tb_frame.f_globals.get("__name__")).startswith("pyplantx."):
        tb = tb.tb_next
    return tb or first


# -- in the plant's process -------------------------------------------------------------------------


def taken(answer: Message) -> Any:
    """The value that a worker has given.

    Raises
    ------
    BaseException
        What its function raised, with the worker's traceback as a note.
    ReactorError
        If that can't be made again here.
    BadRequest
        If its result can't be sent, or it has other code or other values than this process.
    """
    kind, *rest = _decoded(answer)
    if kind == "gave":
        return rest[0]
    if kind == "raised":
        raise _error_of(*rest)
    if kind == "differs":
        raise _refusal(*rest)
    raise BadRequest(
        rest[0], hint="return arrays, numbers, texts and containers of them; workers=1 keeps everything in one process"
    )


def _refusal(labels: Sequence[str]) -> BadRequest:
    shown = ", ".join(labels[:_SHOWN]) + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")
    return BadRequest(
        f"a worker process would compute with other code or values than this program has: it imports anew what can be "
        f"imported, and finds something else for {shown}",
        hint="if a file was edited, run the program again; what the program changes in modules while it runs needs "
        "executor='threads' or workers=1, or goes to the function as a value (an argument, a closure, a source)",
    )


def _decoded(answer: Message) -> Any:
    try:
        return decode(answer)
    except Exception as error:
        return "unsent", f"what a worker process sent can't be made again here: {type(error).__name__}: {error}"


def _error_of(kept: Message | None, text: str) -> BaseException:
    try:
        error = decode(kept) if kept is not None else None
    except Exception:  # its class wants other arguments than it keeps: the text tells all there is
        error = None
    if not isinstance(error, BaseException):
        return ReactorError(f"the function failed in a worker process:\n{text}")
    add_note(error, f"in a worker process:\n{text}")
    return error


# -- in somebody else's executor --------------------------------------------------------------------


_jobs: dict[str, Callable[..., Any]] = {}


def run_block(key: str, code: bytes, parts: bytes) -> bytes:
    """Do one block of a job.

    Parameters
    ----------
    key : str
        Tells jobs apart; the process remembers some.
    code : bytes
        A pickled `Message`, with the callable.
    parts : bytes
        A pickled `Message`, with what it is given.

    Returns
    -------
    bytes
        A pickled `Message`: the answer.
    """
    try:
        function = _jobs.get(key)
        if function is None:
            function = _decoded_job(unwrap(code))
            for old in list(_jobs)[: 1 - _REMEMBERED]:
                _jobs.pop(old, None)
            _jobs[key] = function
        given = decode(unwrap(parts))
    except _Differs as error:
        return wrap(encode(("differs", error.labels)))
    except Exception as error:
        return wrap(_raised(error))
    return wrap(_answer(function, given))


def wrap(message: Message) -> bytes:
    """A message in one piece, as any executor can send it."""
    return pickle.dumps((message.data, [(bytes(buffer), fixed) for buffer, fixed in message.buffers]), protocol=5)


def unwrap(data: bytes) -> Message:
    """The message of `wrap`."""
    code, buffers = pickle.loads(data)
    return Message(code, [(buffer if fixed else bytearray(buffer), fixed) for buffer, fixed in buffers])

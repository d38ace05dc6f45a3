"""Messages between the plant and its worker processes: a value, its large buffers beside it, over a socket.

This file may know: pickle, sockets. It may not know: what is said.

Both ends trust each other: the socket has no name, and only the two processes have it. Arrays keep their bytes, dtype,
memory order and (those of dates apart) whether they can be written to. Classes and functions of ``__main__`` are sent
by name: the plant looks them up in the program that runs there, whatever copy a worker has made its values of.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from pyplantx.basics.tuples import NamedTuple

_FRAME = struct.Struct("<QI")  # bytes of the pickle, number of buffers
_SIZE = struct.Struct("<Q?")  # bytes of a buffer, whether it is read-only

#: Bytes that are sent together with what comes before them.
_SMALL = 1 << 16

#: A program that has SIGPIPE end it, as many do for ``| head``, must not end because a worker has.
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class Message(NamedTuple):
    """A pickled value.

    Attributes
    ----------
    data : bytes
        The pickle, without its large buffers.
    buffers : list of (buffer, bool)
        These, in order, and whether each is read-only.
    """

    data: bytes
    buffers: list[tuple[Any, bool]]


#: Makes a pickler that writes to a file and hands large buffers to a function.
MakePickler = Callable[[io.BytesIO, Callable[[pickle.PickleBuffer], Any]], Any]


def encode(value: object, pickler: MakePickler | None = None) -> Message:
    """Pickle a value without copying its arrays.

    Parameters
    ----------
    value : object
        The value.
    pickler : callable, optional
        Makes another pickler than the usual one.

    Raises
    ------
    Exception
        Of many kinds, if that can't be done.
    """
    buffers: list[tuple[Any, bool]] = []

    def take(buffer: pickle.PickleBuffer) -> None:
        raw = buffer.raw()
        buffers.append((pickle.PickleBuffer(raw), raw.readonly))

    file = io.BytesIO()
    (pickler or _usual_pickler)(file, take).dump(value)
    return Message(file.getvalue(), buffers)


def decode(message: Message) -> Any:
    """The value of a message.

    Raises
    ------
    Exception
        Of many kinds, if it can't be made here.
    """
    given = (memoryview(buffer).toreadonly() if fixed else buffer for buffer, fixed in message.buffers)
    return pickle.loads(message.data, buffers=given)


def _usual_pickler(file: io.BytesIO, take: Callable[[pickle.PickleBuffer], Any]) -> _Pickler:
    return _Pickler(file, protocol=5, buffer_callback=take)


class _Pickler(pickle.Pickler):
    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, (type, FunctionType)) and item.__module__ == "__main__":
            return _of_main, (item.__qualname__,)
        return NotImplemented


def _of_main(qualname: str) -> Any:
    """What is called so in the program of this process."""
    found: Any = sys.modules["__main__"]
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


class Channel:
    """One end of a socket.

    Parameters
    ----------
    end : socket.socket
        Connected; belongs to the channel.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Message) -> None:
        """Send a message.

        Raises
        ------
        OSError
            If nobody is there to receive it.
        """
        data, buffers = message
        views = [memoryview(buffer).cast("B") for buffer, _ in buffers]
        sizes = [_SIZE.pack(view.nbytes, fixed) for view, (_, fixed) in zip(views, buffers)]
        head = b"".join([_FRAME.pack(len(data), len(buffers)), *sizes])
        for part in [head + data] if len(data) < _SMALL else [head, data]:
            self._end.sendall(part, _NO_SIGNAL)
        for view in views:
            self._end.sendall(view, _NO_SIGNAL)

    def receive(self) -> Message:
        """Wait for a message.

        Raises
        ------
        EOFError
            If the other end was closed.
        OSError
            If it is gone in another way.
        """
        length, count = _FRAME.unpack(self._read(_FRAME.size))
        sizes = list(_SIZE.iter_unpack(self._read(count * _SIZE.size)))
        data = bytes(self._read(length))
        return Message(data, [(self._read(size), fixed) for size, fixed in sizes])

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view.nbytes:
            count = self._end.recv_into(view)
            if not count:
                raise EOFError("the other process has closed the connection")
            view = view[count:]
        return buffer

    def close(self) -> None:
        """Close this end."""
        self._end.close()

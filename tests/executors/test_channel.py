"""Messages between processes: what was sent arrives, bit by bit, or it is told that nobody is there."""

from __future__ import annotations

import pickle
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.executors.channel import Channel, Message, decode, encode
from pyplantx.executors.worker import unwrap, wrap


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def sent(message: Message) -> Message:
    """A message as it comes out at the other end."""
    one, other = map(Channel, socket.socketpair())
    thread = threading.Thread(target=one.send, args=(message,))
    thread.start()
    received = other.receive()
    thread.join()
    one.close()
    other.close()
    return received


arrays = st.builds(
    lambda shape, dtype, order, fixed: made(tuple(shape), dtype, order, fixed),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from(["u1", ">i4", "f8", "c16", "S3", "U2", "M8[s]", "?", "i2,f4"]),
    st.sampled_from("CF"),
    st.booleans(),
)


def made(shape: tuple[int, ...], dtype: str, order: Any, fixed: bool) -> Any:
    array = np.zeros(shape, dtype, order=order)
    array.reshape(-1, order="A").view("u1")[:] = np.arange(array.nbytes) % 2 if array.nbytes else 0
    array.flags.writeable = not fixed
    return array


class TestValues:
    @given(
        values=st.lists(arrays | st.integers() | st.text(max_size=3), max_size=4),
        way=st.sampled_from(["socket", "wrap"]),
    )
    def test_arrive_as_they_were(self, values, way):
        message = encode(values)
        found = decode(sent(message) if way == "socket" else unwrap(wrap(message)))
        assert list(map(type, found)) == list(map(type, values))
        for one, other in zip(found, values):
            if not isinstance(one, np.ndarray):
                assert one == other
                continue
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
            assert one.flags.f_contiguous == other.flags.f_contiguous
            if other.nbytes and other.dtype.kind != "M":  # which have no buffers
                assert one.flags.writeable == other.flags.writeable

    def test_arrays_are_not_copied_into_the_pickle(self):
        message = encode(np.zeros(10_000_000, "u1"))
        assert len(message.data) < 1000 and len(message.buffers) == 1

    def test_larger_than_the_socket_takes_at_once(self):
        values = [np.arange(3_000_000), b"x" * 1_000_000, np.arange(5)]
        found = decode(sent(encode(values)))
        assert (found[0] == values[0]).all() and found[1] == values[1] and (found[2] == values[2]).all()

    def test_what_belongs_to_the_program_goes_by_name(self, monkeypatch):
        class Result:
            pass

        def helper() -> None:
            pass

        for item in (Result, helper):
            item.__module__, item.__qualname__ = "__main__", f"{item.__name__}_of_the_program"
        copy = type("Result_of_the_program", (), {"__module__": "__main__"})
        for name, item in (("Result_of_the_program", Result), ("helper_of_the_program", helper)):
            monkeypatch.setattr(sys.modules["__main__"], name, item, raising=False)
        assert type(decode(encode(copy()))) is Result
        assert decode(encode(helper)) is helper


class TestEnds:
    def test_nobody_sends_any_more(self, ends):
        one, other = ends
        one.close()
        with pytest.raises(EOFError):
            other.receive()

    def test_nobody_receives_any_more(self, ends):
        one, other = ends
        other.close()
        with pytest.raises(OSError):
            one.send(encode(1))

    @pytest.mark.skipif(not hasattr(socket, "MSG_NOSIGNAL"), reason="this system has no send without a signal")
    @pytest.mark.parametrize("value", [1, np.zeros(100_000)])
    def test_a_program_that_sigpipe_ends_lives_on(self, ends, value):
        one, other = ends
        other.close()
        before = signal.signal(signal.SIGPIPE, lambda *_: pytest.fail("SIGPIPE came"))  # most have SIG_DFL: the end
        try:
            with pytest.raises(OSError):
                one.send(encode(value))
        finally:
            signal.signal(signal.SIGPIPE, before)

    def test_in_the_middle_of_a_message(self):
        left, right = socket.socketpair()
        other = Channel(right)
        left.sendall(b"\x10\0\0\0\0\0\0\0\0\0\0\0" + pickle.dumps(1)[:3])
        left.close()
        with pytest.raises(EOFError):
            other.receive()
        other.close()

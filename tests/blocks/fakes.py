"""Arrays that act like the plant's datasets and note who does what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class FakeDataset:
    """A dataset in memory: asks blocks, tells watchers, and notes each access with its thread."""

    def __init__(self, data: Any, chunks: tuple[int, ...] | None = None) -> None:
        self.data = np.array(data)
        self.shape, self.dtype, self.chunks = self.data.shape, self.data.dtype, chunks
        self.watchers: tuple[Callable[[bool], None], ...] = ()
        self.untouched, self.data_path = True, None
        self.last_write: object = None
        self.reads: list[tuple[Any, str]] = []
        self.writes: list[tuple[Any, str]] = []
        self.written: list[int] = []  # addresses of the arrays that were written
        self.fail: Callable[[str, Any], None] = lambda what, selection: None

    def __getitem__(self, selection: Any) -> Any:
        if hasattr(selection, "fetch"):
            return selection.fetch(self)
        for watch in self.watchers:
            watch(False)
        return self.data[selection].copy()

    def __setitem__(self, selection: Any, value: Any) -> None:
        store = getattr(selection, "store", None)
        if store is not None:
            store(self, value)
        else:
            for watch in self.watchers:
                watch(True)
            self.data[selection] = value

    def read_block(self, selection: Any) -> Any:
        assert type(selection) is tuple
        self.reads.append((selection, threading.current_thread().name))
        self.fail("read", selection)
        return self.data[selection].copy()

    def write_block(self, selection: Any, array: Any) -> None:
        assert type(selection) is tuple
        self.writes.append((selection, threading.current_thread().name))
        self.fail("write", selection)
        self.written.append(address(array))
        self.untouched, self.last_write = False, object()
        self.data[selection] = array


class FakeAllocation:
    """What makes a handle one that this run has allocated."""

    def __init__(self, handle: Any, name: str = "dst") -> None:
        self.handle, self.name, self.inner = handle, name, None


def address(array: Any) -> int:
    """Where an array lies in memory."""
    return int(array.__array_interface__["data"][0])


def block_threads() -> list[str]:
    """Names of the threads of loops that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pyplantx-")]

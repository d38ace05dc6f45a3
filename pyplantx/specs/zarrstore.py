"""Parts of a payload as a store of the zarr library, read-only. Imported once zarr is.

Zarr takes a key that is not there for a chunk that was never written. So which parts there are is told beforehand, and
one that is missing then is an error.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from pyplantx.errors import BadRequest, PayloadMissing, PyplantxError
from pyplantx.specs.rawfile import Readable

_T = TypeVar("_T")

#: Where a read keeps what has gone wrong in it; None: it is raised. Tasks and threads have that of who started them.
_trouble: ContextVar[list[PyplantxError] | None] = ContextVar("trouble", default=None)


def read_whole(read: Callable[[], _T]) -> _T:
    """What zarr reads, if all parts of it can be had.

    An error that passes through zarr ends its wait alone: its tasks for all other chunks go on behind our back, each
    with an error of its own, and are complained of at the end of the program. So zarr is told that there is no such
    part, for which it takes the fill value, and what it has made of that is thrown away.

    Parameters
    ----------
    read : callable
        Reads by zarr.

    Raises
    ------
    PyplantxError
        What the first part has met with that can't be had.
    """
    met: list[PyplantxError] = []
    before = _trouble.set(met)
    try:
        values = read()
    except Exception:
        if met:
            raise met[0] from None
        raise
    finally:
        _trouble.reset(before)
    if met:
        raise met[0]
    return values


class InMemory:
    """A part that lies in memory.

    Parameters
    ----------
    data : bytes
        All of it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_into(self, buffer: Any, start: int) -> None:
        """Fill the buffer from position `start`."""
        view = memoryview(buffer)
        view[:] = self._data[start : start + view.nbytes]

    def close(self) -> None:
        """Nothing is open."""


class Folder:
    """Files of a folder, found wherever it is moved to while this lives.

    Parameters
    ----------
    path : str
        Where it is now.

    Attributes
    ----------
    twin : str or None
        Another folder with the very same files, should these be removed.
    """

    def __init__(self, path: str) -> None:
        self.twin: str | None = None
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, part: str) -> InMemory:
        """The contents of a file.

        Raises
        ------
        PayloadMissing
            If it is gone.
        """
        try:
            fd = self._descriptor(part)
        except FileNotFoundError:
            raise PayloadMissing(f"the file {part!r} of a Zarr array is gone") from None
        with open(fd, "rb", buffering=0) as file:
            return InMemory(file.readall())

    def _descriptor(self, part: str) -> int:
        try:
            return os.open(part, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            if self.twin is None:
                raise
            return os.open(os.path.join(self.twin, part), os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._fd >= 0:  # and `os` may be gone, at the end of the interpreter
            close(self._fd)


class PartsStore(Store):  # type: ignore[misc, unused-ignore]
    """A read-only store.

    Parameters
    ----------
    parts : iterable of str
        The keys.
    open_part : callable
        Opens a part to be read; what it reads has been checked.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, parts: Iterable[str], open_part: Callable[[str], Readable]) -> None:
        super().__init__(read_only=True)
        self._parts = frozenset(parts)
        self._open_part = open_part

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """The bytes of a part, or a range of them; None if there is no such part."""
        met = _trouble.get()
        if key not in self._parts or met:
            return None
        try:
            data = await asyncio.to_thread(self._read, key, byte_range)
        except PyplantxError as error:
            if met is None:
                raise
            met.append(error)
            return None
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        """Several ranges."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    def _read(self, key: str, byte_range: Any) -> bytearray:
        file = self._opened(key)
        try:
            start, stop = _bounds(byte_range, file.size)
            data = bytearray(stop - start)
            file.read_into(data, start)
            return data
        finally:
            file.close()

    def _opened(self, key: str) -> Readable:
        try:
            return self._open_part(key)
        except PayloadMissing as error:
            raise PayloadMissing(
                f"{error.message}: the Zarr array was collected while it was held, or its files were deleted",
                hint="receive it again: it is made again if need be. A chunk is opened when it is read, so what is to "
                "outlive its plant is pinned (plant.pin(name)) or copied (array[...])",
            ) from error

    async def exists(self, key: str) -> bool:
        """Whether there is such a part."""
        return key in self._parts

    async def set(self, key: str, value: Any) -> None:
        """Never."""
        raise BadRequest("a sealed Zarr array can't be written to")

    async def delete(self, key: str) -> None:
        """Never."""
        raise BadRequest("a sealed Zarr array can't be written to")

    async def list(self) -> AsyncIterator[str]:
        """All parts."""
        for part in sorted(self._parts):
            yield part

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Parts whose names begin so."""
        for part in sorted(self._parts):
            if part.startswith(prefix):
                yield part

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """All parts: there are no folders."""
        for part in sorted(self._parts) if not prefix.strip("/") else ():
            yield part


def _bounds(byte_range: Any, size: int) -> tuple[int, int]:
    if isinstance(byte_range, RangeByteRequest):
        return min(byte_range.start, size), min(byte_range.end, size)
    if isinstance(byte_range, OffsetByteRequest):
        return min(byte_range.offset, size), size
    if isinstance(byte_range, SuffixByteRequest):
        return max(0, size - byte_range.suffix), size
    return 0, size

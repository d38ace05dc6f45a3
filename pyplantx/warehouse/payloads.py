"""What a type spec is given to read: an object's parts, from the index or from files.

This file may know: parts, checks, memory maps. It may not know: lmdb, where an object lies, what a part means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.errors import DamagedObject, PayloadMissing, WarehouseError
from pyplantx.specs.buffers import map_descriptor
from pyplantx.warehouse.files import in_words
from pyplantx.warehouse.verify import AT_ONCE, PartCheck, PartReader, close_read

if TYPE_CHECKING:
    from pyplantx.core.trace import Digest
    from pyplantx.specs.base import CheckedFile
    from pyplantx.warehouse.objects import Objects
    from pyplantx.warehouse.records import ObjectRecord, Part


class MemoryPayload:
    """A payload whose bytes are at hand and checked."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self._parts = parts

    def parts(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def is_file(self, part: str) -> bool:
        return False

    def read(self, part: str) -> bytes:
        try:
            return self._parts[part]
        except KeyError:
            raise DamagedObject(f"the object has no part {part!r}") from None

    def path(self, part: str) -> str:
        raise _no_file(part)

    def open_checked(self, part: str) -> CheckedFile:
        raise _no_file(part)

    def map(self, part: str, writable: bool) -> Any:
        raise _no_file(part)


class OwnPayload(MemoryPayload):
    """A payload whose bytes lie in memory that nobody else has, checked.

    Parameters
    ----------
    parts : mapping of str to memoryview
        By name; writable.
    """

    __slots__ = ("_own",)

    def __init__(self, parts: Mapping[str, memoryview]) -> None:
        super().__init__({})
        self._own = parts

    def parts(self) -> tuple[str, ...]:
        return tuple(self._own)

    def read(self, part: str) -> bytes:
        return bytes(self.own(part))

    def own(self, part: str) -> memoryview:
        """A part's very bytes. Who is given a part may write to it: nobody else asks for it."""
        try:
            return self._own[part]
        except KeyError:
            raise DamagedObject(f"the object has no part {part!r}") from None


def _no_file(part: str) -> WarehouseError:
    return WarehouseError(f"the part {part!r} lives in the index and has no file of its own")


class FilePayload:
    """A payload that consists of files. Its parts are checked before they are given away, or while they are used.

    It is also the receipt for what was given away unchecked: `settle` tells what became of that.

    Parameters
    ----------
    objects : Objects
    address : Digest
    record : ObjectRecord
    verify : {"lazy", "always", "off"}
        When files are checked; see `Warehouse`.
    put_aside : callable, optional
        Called with the address and the trouble when something is found damaged or gone that nobody will settle.
    """

    __slots__ = (
        "address",
        "_harm",
        "_mapped",
        "_objects",
        "_parts",
        "_process",
        "_put_aside",
        "_read",
        "_verify",
        "_waits",
    )

    def __init__(
        self,
        objects: Objects,
        address: Digest,
        record: ObjectRecord,
        verify: str = "lazy",
        put_aside: Callable[[Digest, str], None] | None = None,
    ) -> None:
        self.address = address
        self._objects = objects
        self._parts = {part.name: part for part in record.parts}
        self._verify = verify
        self._mapped: list[PartCheck] = []  # is being checked beside the computation
        self._read: list[PartCheck] = []  # is checked as it is read
        self._waits = False
        self._harm: str | None = None  # of a part that could not even be opened, after the first ones were
        self._put_aside = put_aside
        self._process = os.getpid()  # a forked child has the store only to read
        if verify == "always":
            objects.forget_checked(address)

    def parts(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def is_file(self, part: str) -> bool:
        return True

    def path(self, part: str) -> str:
        return self._objects.checked_path(self.address, self._part(part), self._verify)

    def read(self, part: str) -> bytes:
        reader = self.open_checked(part)
        try:
            data = bytearray(reader.size)
            reader.read_into(data, 0)
        finally:
            reader.close()
        return bytes(data)

    def open_checked(self, part: str) -> CheckedFile:
        fd, check = self._open(part)
        if self._verify != "off":
            self._read.append(check)
        return PartReader(fd, check, lambda trouble: self._found_damaged(trouble, check))

    def map(self, part: str, writable: bool) -> Any:
        fd, check = self._open(part)
        try:
            with in_words(f"{check.path!r} can't be mapped", check.path):
                mapped = map_descriptor(fd, writable, part)
                check.check_head(fd)
                if not check.is_whole:
                    checks = self._objects.checks
                    (checks.finish if self._waits else checks.begin)(check, os.dup(fd))
                    self._mapped.append(check)
        except DamagedObject as error:
            self._found_damaged(error.message, check)
            raise
        finally:
            close_read(fd)
        return mapped

    @property
    def is_unchecked(self) -> bool:
        """Whether something was given away that is, or may be, checked only later."""
        return bool(self._mapped or self._read)

    def is_right(self) -> bool:
        """Whether all that was mapped is known to be right by now; does not wait for that."""
        unharmed = self._harm is None and all([check.damage is None for check in (*self._mapped, *self._read)])
        return unharmed and all([check.is_whole for check in self._mapped])

    def is_in_place(self) -> bool:
        """Whether the files that were given away and found damaged are still those at the object's address."""
        harmed = [check for check in (*self._mapped, *self._read) if check.damage is not None]
        return self._harm is not None or any(check.is_in_place() for check in harmed)

    def settle(self) -> str | None:
        """Wait for the checks of all that was mapped. What is mapped later is checked before `map` returns.

        Returns
        -------
        str or None
            What is wrong with something that was mapped or read; None if nothing is.
        """
        self._waits = True  # nobody settles a second time
        trouble = next((check.damage for check in self._read if check.damage is not None), self._harm)
        for check in self._mapped:
            try:
                check.finish()
            except DamagedObject as error:
                trouble = error.message
        return trouble

    def _open(self, part: str) -> tuple[int, PartCheck]:
        """`_opened`; what is wrong is remembered, for a spec may open parts long after it has opened the object."""
        try:
            return self._opened(part)
        except (DamagedObject, PayloadMissing) as error:
            self._harm = error.message
            self._found_damaged(self._harm)
            raise

    def _found_damaged(self, trouble: str, check: PartCheck | None = None) -> None:
        """Put the object aside if nobody will settle any more (else `settle` tells of it), or somebody has done so."""
        if not self._waits or self._put_aside is None or os.getpid() != self._process:
            return
        if check is None or check.is_in_place():
            self._put_aside(self.address, trouble)

    def _opened(self, part: str) -> tuple[int, PartCheck]:
        """Open a part's file; small ones, and all if everything is to be checked first, are checked now."""
        fd, check = self._objects.open_part(self.address, self._part(part), self._verify)
        try:
            if not check.is_whole and (self._verify == "always" or check.cut.size < AT_ONCE):
                self._objects.check_now(check, fd)
        except BaseException:
            close_read(fd)
            raise
        return fd, check

    def _part(self, part: str) -> Part:
        try:
            return self._parts[part]
        except KeyError:
            raise DamagedObject(f"the object {self.address} has no part {part!r}") from None

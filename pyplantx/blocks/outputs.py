"""The arrays that a loop fills, and how their blocks outlive a kill: in the array's own file, or in copies beside it.

Nothing is believed for being there: a finished block is read back and compared with its digest.

This file may know: handles, the files of workspaces. It may not know: loops, what the lines of a ledger mean.
"""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.disk import free_bytes
from pyplantx.blocks.handles import digest_of
from pyplantx.errors import DamagedObject
from pyplantx.warehouse.files import is_address, read_ordinary

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.blocks.geometry import Block
    from pyplantx.blocks.handles import Handle
    from pyplantx.blocks.logbook import Logbook
    from pyplantx.blocks.passes import Passes
    from pyplantx.core.trace import Digest

    Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes that copies of blocks leave free besides what the array itself may need.
SPARE = 64 << 20


class Output(Protocol):
    """One array that a loop fills, and what is kept of it."""

    def take_up(self) -> None:
        """Let the array have what an earlier run has left."""

    def is_whole(self, block: Block, digest: Digest) -> bool:
        """Whether a finished block is there, as it was written."""

    def restore(self, block: Block) -> None:
        """Put a block that is whole where it belongs."""

    def begin(self) -> None:
        """See to it that what is written from now on stays."""

    def finished(self, block: Block, written: Array | None) -> Digest:
        """A block is finished; the digest of its elements. In the writing thread."""

    def over(self) -> None:
        """The loop has ended: the array is not kept any more."""

    def sealing(self) -> None:
        """It is about to be published: from now on nobody but the store may have its file."""


class SharedFile:
    """An output whose file has a second name in the workspace.

    Parameters
    ----------
    handle : Handle
        With a `data_path`.
    logbook : Logbook
        Of the loop.
    place : int
        Of the array in the loop.
    passes : Passes, optional
        Over the array, if others may follow this one.
    """

    def __init__(self, handle: Handle, logbook: Logbook, place: int, passes: Passes | None = None) -> None:
        self._handle, self._logbook, self._place, self._passes = handle, logbook, place, passes
        self._workspace, self._name = logbook.workspace, f"data-{place}"
        self.part = os.path.basename(handle.data_path or "")  # what the store will call it

    def take_up(self) -> None:
        """Move the earlier file to where ours is; its name here stays, so that a kill in between loses nothing."""
        adopted = f"{self._name}.adopted"
        if self._workspace.has(self._name):
            self._workspace.link(self._workspace.path(self._name), adopted)
        else:
            self._workspace.unlink(adopted)
            self._logbook.copy_sealed(self._place, self._workspace.path(adopted))
        if not self._workspace.has(adopted):
            raise DamagedObject("something else is in the place of an interrupted run's file")
        self._handle.adopt(self._workspace.path(adopted))
        self._workspace.unlink(adopted)

    def is_whole(self, block: Block, digest: Digest) -> bool:
        found = self._handle.digest(block)
        return found == digest or (self._passes is not None and self._passes.is_later(block.index, found))

    def restore(self, block: Block) -> None:
        """It is there already."""

    def begin(self) -> None:
        path = self._handle.data_path
        assert path is not None
        if not self._workspace.has(self._name) or not os.path.samefile(path, self._workspace.path(self._name)):
            self._workspace.link(path, self._name)

    def finished(self, block: Block, written: Array | None) -> Digest:
        return self._handle.digest(block) if written is None else digest_of(written)

    def over(self) -> None:
        del self._handle

    def sealing(self) -> None:
        self._workspace.unlink(self._name)


class Rewritten:
    """An output that an earlier pass has filled, whose workspace has its file.

    Parameters
    ----------
    handle : Handle
        As in `SharedFile`.
    passes : Passes
        Over the array.
    """

    def __init__(self, handle: Handle, passes: Passes) -> None:
        self._handle, self._passes = handle, passes

    def take_up(self) -> None:
        """The first pass has done it."""

    def is_whole(self, block: Block, digest: Digest) -> bool:
        return is_address(digest) and self._passes.has(block.index, digest)

    def restore(self, block: Block) -> None:
        """It is there already."""

    def begin(self) -> None:
        """It stays by its name in the first workspace."""

    def finished(self, block: Block, written: Array | None) -> Digest:
        return self._handle.digest(block) if written is None else digest_of(written)

    def over(self) -> None:
        del self._handle

    def sealing(self) -> None:
        """That is up to the first pass."""


class Spool:
    """An output whose blocks are kept one by one, for arrays whose file proves nothing before it is closed.

    Parameters
    ----------
    handle, logbook, place
        As in `SharedFile`.
    """

    def __init__(self, handle: Handle, logbook: Logbook, place: int) -> None:
        self._handle, self._workspace, self._place = handle, logbook.workspace, place

    def take_up(self) -> None:
        """The blocks are written when they turn out to be whole."""

    def is_whole(self, block: Block, digest: Digest) -> bool:
        return self._workspace.has(self._name(block)) and digest_of(self._values(block)) == digest

    def restore(self, block: Block) -> None:
        self._handle.write(block, self._values(block).reshape(self._handle.region(block)))

    def _values(self, block: Block) -> Array:
        import numpy as np

        return np.frombuffer(read_ordinary(self._path(block)), self._handle.dtype)

    def begin(self) -> None:
        """The blocks are kept as they come."""

    def finished(self, block: Block, written: Array | None) -> Digest:
        values = self._handle.read(block) if written is None else written
        self._ask_for_space(block, values.nbytes)
        beside = f"{self._name(block)}.new"
        self._workspace.unlink(beside)
        with open(self._workspace.path(beside), "xb") as file:
            values.tofile(file)
        os.rename(self._workspace.path(beside), self._path(block))
        return digest_of(values)

    def _ask_for_space(self, block: Block, nbytes: int) -> None:
        """What is kept here must not take the room that the array itself may still need."""
        size = math.prod(self._handle.shape) * self._handle.dtype.itemsize
        needed = nbytes + size * (block.count - block.index) // block.count + SPARE
        if free_bytes(os.path.dirname(self._path(block))) < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for copies of the blocks")

    def over(self) -> None:
        del self._handle

    def sealing(self) -> None:
        """The blocks have files of their own."""

    def _path(self, block: Block) -> str:
        return self._workspace.path(self._name(block))

    def _name(self, block: Block) -> str:
        return f"block-{self._place}-{block.index}"

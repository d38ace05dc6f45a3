"""What a loop reads, so that a block of a killed run counts only for what it was made from.

A received dataset tells what it was opened from, and an array that lies unaltered in a sealed file has the content that
the file's address says. Of anything else nothing tells: scratch arrays, maps of other files, a received array that was
written to, arrays of other libraries. The next run may fill them otherwise, from random numbers, say. Of these each
block's part is digested when it is handed out, and the digest stands in the ledger: so no pass of its own is needed,
and the array may be of any size.

This file may know: handles, where arrays lie. It may not know: ledgers, workspaces, threads.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.basics.loaded import is_of
from pyplantx.basics.logs import log
from pyplantx.blocks.handles import Handle, handle_of
from pyplantx.blocks.places import place_of
from pyplantx.core.trace import Digest
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.foreign import offers
from pyplantx.fingerprint.objects import class_module
from pyplantx.fingerprint.value import hash_bytes, hash_text
from pyplantx.specs.sparserows import is_sparse

if TYPE_CHECKING:
    from pyplantx.blocks.geometry import Block

#: Bytes of an array up to which it is digested at once and as a whole.
_SMALL = 1 << 16

#: What `Sources.of` gives where a part has no digest.
_UNSEEN = "?"


class Sources:
    """What a loop reads.

    Parameters
    ----------
    handles : mapping of int to Handle
        Place in the loop -> what is read there. Without what the loop fills.
    encode : callable
        Digest of a value.
    sealed : callable
        Path of a file -> what it is called in the store, if it is a sealed one, which nobody alters; else None.
    exposed : bool
        Whether the loop's body has the arrays themselves, and may write to them.

    Attributes
    ----------
    key : str
        For the key of a workspace: which sources there are, as far as something tells.
    places : tuple of int
        Of those of which nothing tells.
    """

    def __init__(
        self,
        handles: Mapping[int, Handle],
        encode: Callable[[Any], Digest],
        sealed: Callable[[str], str | None],
        exposed: bool = False,
    ) -> None:
        self._encode, self._exposed = encode, exposed
        told = {place: _told(handle.here, encode, sealed, exposed) for place, handle in handles.items()}
        self.key = hash_text("\n".join(f"{place} {text or _UNSEEN}" for place, text in told.items()))
        self._handles = {place: handles[place].here for place, text in told.items() if text is None}
        self._elsewhere = {place for place, handle in self._handles.items() if handle is not handles[place]}
        self.places = tuple(self._handles)
        self._taken: dict[int, dict[int, Digest]] = {}  # block -> place -> digest of its part
        self._before: list[Digest] = []  # of what lies in memory, of the block that the body has

    def let_go(self) -> None:
        """The loop has ended: nothing more is read."""
        self._handles = {}

    def of(self, block: Block) -> list[Digest]:
        """Digests of the parts of a block as they are now."""
        return [self._digest(handle.part(block.padded)) for handle in self._handles.values()]

    def give(self, block: Block, place: int, part: Any) -> None:
        """A part is about to be handed out; of what is read elsewhere, a word where it lies."""
        found = self._handles[place].part(block.padded) if place in self._elsewhere else part
        self._taken.setdefault(block.index, {})[place] = self._digest(found)

    def watch(self, block: Block) -> None:
        """The body is about to have a block, after `give`, and may write to all that lies in memory."""
        if self._exposed:
            self._before = self._bare(block) if tuple(block.padded) != tuple(block) else self._given(block)

    def taken(self, block: Block) -> list[Digest] | None:
        """Digests of what was handed out of a block; None if there is no telling."""
        taken = self._taken.pop(block.index, {})
        found = [taken.get(place, _UNSEEN) for place in self.places]
        return None if _UNSEEN in found else found

    def is_altered(self, block: Block) -> bool:
        """Whether the body has written to what lies in memory: blocks that are left out would not do so again."""
        return self._exposed and self._bare(block) != self._before

    def _bare(self, block: Block) -> list[Digest]:
        """Of what tells of no write, the block without its halo: that belongs to the neighbours."""
        return [self._digest(handle.part(block)) for handle in self._handles.values() if not handle.asks]

    def _given(self, block: Block) -> list[Digest]:
        """`_bare`, as it was given."""
        taken = self._taken.get(block.index, {})
        return [taken[place] for place, handle in self._handles.items() if not handle.asks]

    def _digest(self, part: Any) -> Digest:
        value = (type(part).__qualname__, part.shape, part.data, part.indices, part.indptr) if is_sparse(part) else part
        try:
            return self._encode(value) + _order(part)
        except PyplantxError as error:
            log().debug("a part of a source has no digest: %s", error)
            return _UNSEEN


def folded(before: Digest, parts: list[Digest]) -> Digest:
    """The digest of all blocks up to one, from that of those before it; "" if there is nothing to be digested."""
    return hash_text("\n".join([before, *parts])) if parts else before


def _order(part: Any) -> str:
    """In which order it lies in memory, if that is not C's: NumPy adds up in another order then."""
    flags = getattr(part, "flags", None)
    return "" if flags is None or flags.c_contiguous else f" {part.strides}"


def told_of(array: Any, encode: Callable[[Any], Digest], sealed: Callable[[str], str | None]) -> str | None:
    """What tells which elements an array or dataset has, without reading them; None if nothing does.

    Parameters
    ----------
    array : object
        Anything; of what is no array nothing tells here.
    encode, sealed : callable
        See `Sources`.
    """
    known = (
        offers(type(array), "read_block")  # an object of the user's may have a word for any name
        or is_of(array, "numpy", "ndarray")
        or (is_sparse(array) and array.format == "csr")
    )
    return _told(handle_of(array), encode, sealed, exposed=False) if known else None


# -- what tells -----------------------------------------------------------------------------------


def _told(
    handle: Handle, encode: Callable[[Any], Digest], sealed: Callable[[str], str | None], exposed: bool
) -> str | None:
    """A text that is equal for the same elements; None if there is none to be had without reading them."""
    if handle.asks:
        return _of_dataset(handle)
    arrays = handle.arrays()
    if not arrays or exposed and any(array.flags.writeable for array in arrays):
        return None
    texts = [_of_array(array, encode, sealed) for array in arrays]
    if None in texts:
        return None
    return "\n".join([f"{type(handle.array).__qualname__} {handle.shape}", *map(str, texts)])


def _of_dataset(handle: Handle) -> str | None:
    """Of a received dataset, what opens it in another process: its files with their checksums."""
    if handle.allocation is not None or not class_module(type(handle.array)).startswith("pyplantx.specs."):
        return None
    try:
        return hash_bytes(pickle.dumps(handle.array.__reduce__()))
    except (OSError, PyplantxError, TypeError) as error:  # one that this run has sent, say
        log().debug("a dataset does not tell which one it is: %s", error)
        return None


def _of_array(array: Any, encode: Callable[[Any], Digest], sealed: Callable[[str], str | None]) -> str | None:
    if array.dtype.hasobject:
        return None
    if array.nbytes < _SMALL:
        return encode(array) + _order(array)
    place = place_of(array)
    name = None if place is None else sealed(place.path)
    if place is None or name is None:
        return None
    return f"{name} {place.offset} {place.shape} {place.strides} {place.dtype!r}"

"""All hashing: bytes, texts, block-wise arrays and any value -> digest. The only importer of xxhash.

This file may know: bytes, and values through their canonical encoding (``encoding.py``, ``arrays.py``). It
may not know: bytecode, files, stores. The format is written down in ``specs/fingerprint/1/FORMAT.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from xxhash import xxh3_128, xxh3_128_digest, xxh3_128_hexdigest

from pyplantx.core.trace import Digest
from pyplantx.errors import CannotFingerprint
from pyplantx.fingerprint import arrays, encoding
from pyplantx.fingerprint.arrays import BLOCK, block_size, class_tag
from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.kinds import REGISTERED

__all__ = [
    "BLOCK",
    "BlockHasher",
    "Hasher",
    "array_digest",
    "array_header",
    "block_size",
    "class_tag",
    "combine",
    "digest",
    "encode",
    "hash_blocks",
    "hash_bytes",
    "hash_text",
    "register",
]

#: Anything with the buffer protocol, C-contiguous.
Buffer = Any
Code = Callable[[object], str]
_F = TypeVar("_F", bound=Callable[[Any], object])


#: Digest of a buffer: xxh3, 128 bits, as 32 hex digits. Under our own name, and without a call of our own around it.
hash_bytes: Callable[[Buffer], Digest] = xxh3_128_hexdigest


def hash_text(text: str) -> Digest:
    """Digest of a text (UTF-8; lone surrogates are let through)."""
    return xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


class Hasher:
    """Digest of bytes that come in pieces; equal to `hash_bytes` of the whole."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = xxh3_128()

    def update(self, data: Buffer) -> None:
        """Add the next piece."""
        self._state.update(data)

    def hexdigest(self) -> Digest:
        """The digest of all pieces so far."""
        return self._state.hexdigest()


class BlockHasher:
    """Digests of the logical blocks of a stream that comes in pieces of any size.

    Parameters
    ----------
    block : int
        Bytes per block, from `block_size`.
    """

    __slots__ = ("_block", "_digests", "_missing", "_state")

    def __init__(self, block: int = BLOCK) -> None:
        self._block = self._missing = block
        self._digests: list[Digest] = []
        self._state = xxh3_128()

    def update(self, data: Buffer) -> None:
        """Add the next piece of the stream."""
        view = memoryview(data).cast("B")
        while len(view) >= self._missing:
            self._state.update(view[: self._missing])
            view = view[self._missing :]
            self._close_block()
        self._state.update(view)
        self._missing -= len(view)

    def _close_block(self) -> None:
        self._digests.append(self._state.hexdigest())
        self._state.reset()
        self._missing = self._block

    def digests(self) -> list[Digest]:
        """The blocks' digests; a last, shorter block included."""
        tail = [self._state.hexdigest()] if self._missing < self._block else []
        return self._digests + tail


def combine(header: bytes, block_digests: Iterable[Digest]) -> Digest:
    """Root of the tree hash: one digest over a header and the digests of the blocks, in order."""
    joined = bytes.fromhex("".join(block_digests))
    return xxh3_128_hexdigest(arrays.size(len(header)) + header + joined)


def hash_blocks(blocks: Iterable[Buffer]) -> Digest:
    """Tree hash of a stream that is cut into blocks already: the digest over the blocks' digests."""
    return combine(b"", map(xxh3_128_hexdigest, blocks))


def array_header(dtype: Any, shape: Sequence[int], class_tag: str = "") -> bytes:
    """Header of an array's tree hash, for those who hash it block by block; see `combine`.

    Parameters
    ----------
    dtype : numpy.dtype
        Element type, byte order included.
    shape : sequence of int
        Lengths of the axes.
    class_tag : str
        `class_tag` of the class ("" for plain arrays), or another container's own tag.
    """
    return arrays.header(dtype, shape, class_tag)


def array_digest(array: Any) -> Digest:
    """Semantic digest of a numpy array: equal for equal elements, dtype, shape and class, whatever the layout.

    Parameters
    ----------
    array : numpy.ndarray
        Any layout and class; masked arrays and object arrays too.

    Returns
    -------
    Digest
        ``combine(array_header(...), digests of the logical blocks)`` for arrays of plain elements.

    Raises
    ------
    CannotFingerprint
        If an object element has no canonical encoding.
    """
    return digest(array)


def _plain_array(array: Any, tag: str) -> Digest:
    header = arrays.header(array.dtype, array.shape, tag)
    hasher = BlockHasher(block_size(array.dtype.itemsize))
    for buffer in arrays.c_order_buffers(array):
        hasher.update(buffer)
    return combine(header, hasher.digests())


def encode(
    value: Any,
    code: Code | None = None,
    opaque: encoding.Opaque | None = None,
    boundary: Boundary | None = None,
    rank: Code | None = None,
) -> bytes:
    """The canonical encoding of a value: typed, length-prefixed, the same in every process.

    Parameters
    ----------
    value : object
        Anything.
    code : callable, optional
        Given a function, class, method, partial, module or the class of an instance, says what stands for it.
        Without it library ones count by name, other functions and classes are refused, and the class of an
        instance counts by name.
    opaque : callable, optional
        Told of each object that has no encoding and counts by its type. Without it those are refused.
    boundary : Boundary, optional
        Tells libraries from the project where a text, or a pickle, names code.
    rank : callable, optional
        Needed if what `code` answers depends on what it was asked before: says something of a piece of code that
        does not, by which the elements of sets are put in order.

    Returns
    -------
    bytes
        See ``specs/fingerprint/1/FORMAT.md``.

    Raises
    ------
    CannotFingerprint
        With the path inside the value at which the trouble lies.
    """
    flat = encoding.flat(value)
    if flat is not None:
        return flat
    encoder = encoding.Encoder(xxh3_128_digest, _plain_array, code, opaque, boundary, rank)
    try:
        return encoder.encode(value)
    except encoding.Unencodable as trouble:
        raise CannotFingerprint(trouble.message(), hint=trouble.hint) from trouble.__cause__
    except RecursionError:
        raise CannotFingerprint(
            f"a {type(value).__qualname__} is nested too deeply to be fingerprinted",
            hint="give its class a __fingerprint__ method, or flatten it",
        ) from None


def digest(value: Any, code: Code | None = None, boundary: Boundary | None = None) -> Digest:
    """Digest of a value; equal for equal values, whatever the process, layout or insertion order of sets.

    Parameters and errors are those of `encode`.
    """
    leaf = encoding.LEAVES.get(type(value))
    if leaf is not None:
        return xxh3_128_hexdigest(leaf(value))
    if class_name(type(value)) in arrays.PLAIN and not _is_encoded(value.dtype):
        return _plain_array(value, "")
    return xxh3_128_hexdigest(encode(value, code, None, boundary))


def _is_encoded(dtype: Any) -> bool:
    """Whether an array of this dtype has no array digest: nobody writes it block by block."""
    return arrays.is_elementwise(dtype) or arrays.has_metadata(dtype)


def class_name(cls: type) -> str:
    """Dotted name of a class, for comparison with the names of types that are never imported here."""
    return f"{cls.__module__}.{cls.__qualname__}"


def register(cls: type) -> Callable[[_F], _F]:
    """Register how values of a class, and of classes derived from it, are seen by fingerprints.

    Parameters
    ----------
    cls : type
        The class. A ``__fingerprint__`` method does the same for classes of one's own.

    Returns
    -------
    callable
        Decorator for a function that takes a value and returns its state: anything that can be encoded.

    Examples
    --------
    >>> @register(memoryview)
    ... def _(view):
    ...     return view.format, view.shape, bytes(view)
    """

    def remember(function: _F) -> _F:
        REGISTERED[cls] = function
        return function

    return remember

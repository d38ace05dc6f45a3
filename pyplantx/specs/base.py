"""What an ingredient type is: how its values are recognised, written, read, allocated and previewed.

A spec never decides where bytes live. To write, it is given a `Stage`; to read, a `Payload`. Both are
made by ``warehouse/staging.py``, which computes checksums, keeps small payloads inline in the index
and moves large ones to their address. A payload is a handful of named *parts* ("data.npy"); most
types have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest

#: What a stage takes: bytes, bytearray, memoryview, a C-contiguous array.
Buffer = Any


class Layout(NamedTuple):
    """How the checksums of a part are cut: a head, a body in blocks, and what follows it.

    Where the body is an array in C order and its blocks are the logical ones (`fingerprint.value.block_size`), the
    checksums of the body's blocks are the digests of the array's blocks: one hash serves both.

    Attributes
    ----------
    head : int
        Bytes before the body.
    block : int
        Bytes per block of the body; the last one may be shorter.
    body : int
        Bytes of the body.
    """

    head: int
    block: int
    body: int


@runtime_checkable
class Stage(Protocol):
    """Where one payload is written before it is sealed."""

    def write(self, part: str, chunks: Iterable[Buffer]) -> None:
        """Write one part from buffers; they are hashed as they pass and not kept."""

    def path(self, part: str) -> str:
        """A path at which the spec (or the user) creates the part itself; hashed when sealed.

        The file does not exist yet. Its folder does.
        """

    def write_array(self, part: str, head: bytes, body: Buffer, block: int) -> list[Digest]:
        """Write one part that is a head and a contiguous body; large bodies are written and hashed in parallel.

        Returns
        -------
        list of Digest
            Of the body's blocks of `block` bytes, in order.
        """

    def describe(self, part: str, layout: Layout, digests: Sequence[Digest]) -> None:
        """Of a part made at `path`: its layout, and the digests of its body's blocks, known from writing them.

        The seal then reads head and tail only.
        """


class CheckedFile(Protocol):
    """A sealed part to read from by position; every byte is checked, block by block, at its first read in a session.

    It can be pickled: another process reads the same file, and checks it anew.
    """

    path: str  #: of the file; what is read there by other means is not checked
    size: int  #: bytes

    def read_into(self, buffer: Buffer, start: int) -> None:
        """Fill the buffer from position `start`. May be called by several threads at once.

        Raises
        ------
        DamagedObject
            If a block that it touches does not match its checksum, or can't be read.
        """

    def map(self, writable: bool) -> Any:
        """A private memory map of the file, checked as a whole first; see `Payload.map` for one that is not."""

    def close(self) -> None:
        """Give the descriptor back."""


@runtime_checkable
class Payload(Protocol):
    """One sealed object, to read from. Every byte that `read` returns has been checked."""

    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""

    def is_file(self, part: str) -> bool:
        """Whether the part is a file of its own (False: it lives in the index; use `read`)."""

    def read(self, part: str) -> bytes:
        """The part's bytes, checked against their checksum."""

    def path(self, part: str) -> str:
        """Path of the part's file, read-only, checked once per session (only if `is_file`)."""

    def open_checked(self, part: str) -> CheckedFile:
        """The part's file, to be read by position and checked as it is read (only if `is_file`)."""

    def map(self, part: str, writable: bool) -> Any:
        """A private memory map of the part's file, checked beside the computation (only if `is_file`).

        Whoever gets it may look at once; what a run made of it is believed when the check is over.
        """


class Written(NamedTuple):
    """What a spec tells about a payload that it has written.

    Attributes
    ----------
    digest : Digest
        The semantic digest of the value: equal values, equal digests, whatever the layout.
    meta : mapping
        Small JSON-able metadata that `open` needs (class name, shape, ...). Key ``"classes"`` is
        reserved: names ("module:qualname") of the project classes in the value; a reactor that
        receives the value observes their code.
    """

    digest: Digest
    meta: Mapping[str, Any] = {}


class Allocation(Protocol):
    """An ingredient under construction, made by `IngredientTypeSpec.allocate`.

    One whose handle opens its files again when they are read has a method ``published(folder)``, too: it is told where
    the object's files are once it is sealed. Those that were staged are removed if the store has the very same ones.

    One that can be discarded without its handle has a method ``let_go_of_handle()``, which forgets it: called for
    scratch space, which is discarded once nobody has the handle. It is never sealed then.
    """

    handle: Any  #: what the reactor gets to write into (a dataset, an array, a path)

    def seal(self) -> Written:
        """Finish writing: close the files, make the handle refuse more writes, compute the digest."""

    def discard(self) -> None:
        """Give up: close everything. The stage's files are removed by the warehouse."""


class IngredientTypeSpec:
    """One type of ingredient. Derive from it, set the class attributes, register an instance.

    ``plant.warehouse.register_ingredient_specs([MySpec()])``. Instances and classes are both accepted
    wherever a type is named: ``pipe.send('x', value, MySpec)``.

    Attributes
    ----------
    name : str
        Name of the format, kept in the store with each object. Never reuse one for another layout.
    version : int
        Version of the format; `open` is told which one it reads.
    executes_code : bool
        Whether decoding can run code from the store (pickle). Such payloads are only decoded from a
        trusted store.
    opens_in_place : bool
        Whether `open` makes its value on the very bytes of a small payload, if nobody else has them.
    fresh : bool
        Whether `open` gives a fresh value each time (True), or one that several may share safely.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False
    opens_in_place: ClassVar[bool] = False

    def recognise(self, value: Any) -> bool:
        """Whether this spec stores `value` when the sender names no type. Must not import anything."""
        return False

    def write(self, value: Any, stage: Stage) -> Written:
        """Write `value` into the stage.

        Raises
        ------
        CannotStore
            If the value is not of this type or can't be written; says where inside it.
        """
        raise self._cannot("be stored: its class doesn't define write(value, stage)")

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        """The value. It must not be possible to alter the store through it."""
        raise self._cannot("be read: its class doesn't define open(payload, meta, version)")

    def allocate(self, stage: Stage, **options: Any) -> Allocation:
        """Begin an ingredient that the reactor fills itself.

        Raises
        ------
        BadRequest
            If the options are impossible, or ingredients of this type can't be allocated (the default).
        """
        raise self._cannot("be allocated", hint="array, file and hdf can; make any other value and pipe.send it")

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        """One line for people: type, shape, first values. Must not run code from the store."""
        return self.name

    def _cannot(self, what: str, hint: str = "") -> BadRequest:
        return BadRequest(f"an ingredient of type {(self.name or type(self).__qualname__)!r} can't {what}", hint=hint)

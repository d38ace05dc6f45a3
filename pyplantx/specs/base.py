"""What an ingredient type is: how its values are recognised, written, read, allocated and previewed.

A spec never decides where bytes live. To write, it is given a `Stage`; to read, a `Payload`. Both are
made by ``warehouse/objects.py``, which computes checksums, keeps small payloads inline in the index
and moves large ones to their address. A payload is a handful of named *parts* ("data.npy"); most
types have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest

#: What a stage takes: bytes, bytearray, memoryview, a C-contiguous array.
Buffer = Any


@runtime_checkable
class Stage(Protocol):
    """Where one payload is written before it is sealed."""

    def write(self, part: str, chunks: Iterable[Buffer]) -> None:
        """Write one part from buffers; they are hashed as they pass and not kept."""

    def path(self, part: str) -> str:
        """A path at which the spec (or the user) creates the part itself; hashed when sealed.

        The file does not exist yet. Its folder does.
        """


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
    """An ingredient under construction, made by `IngredientTypeSpec.allocate`."""

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
    fresh : bool
        Whether `open` gives a fresh value each time (True), or one that several may share safely.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    executes_code: ClassVar[bool] = False

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

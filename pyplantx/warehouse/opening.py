"""The way of a value up: what is behind a reference, whose code may be run for it, what becomes of damage.

This file may know: records of objects, payloads, specs, trust. It may not know: lmdb, names, traces, when the queue is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import DamagedObject, PayloadMissing, UntrustedStore, WarehouseError
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.warehouse import records
from pyplantx.warehouse.files import is_address
from pyplantx.warehouse.objects import meta_of
from pyplantx.warehouse.payloads import FilePayload, MemoryPayload, OwnPayload
from pyplantx.warehouse.records import IN_FILES, IN_SMALL, ObjectRecord
from pyplantx.warehouse.session import Session, report
from pyplantx.warehouse.trust import is_ours, is_private

if TYPE_CHECKING:
    from pyplantx.specs import SpecRegistry
    from pyplantx.specs.base import Payload
    from pyplantx.specs.simple import SimpleSpec
    from pyplantx.warehouse.index import Index
    from pyplantx.warehouse.reader import Reader

_OBJECT = "object"  #: name of the type whose values are pickles
_AGAIN = "plant.produce(...) makes again what was collected or damaged"

_T = TypeVar("_T")


def decoded(index: Index, table: str, key: bytes, body: bytes, decode: Callable[[bytes], _T]) -> _T | None:
    """A record of the index; one that makes no sense counts as missing: anybody can make a checksum that fits."""
    try:
        return decode(body)
    except DamagedObject:
        index.condemn_body(table, key, body)
        return None


class Opener:
    """Gives the values behind references.

    Parameters
    ----------
    session : Session
        The open store.
    registry : SpecRegistry
        Reads the payloads.
    reader : Reader
        The warehouse's view of the index.
    trust, verify : str
        As in `Warehouse`.
    read_only : bool
        Whether damaged files stay where they are.
    """

    def __init__(
        self, session: Session, registry: SpecRegistry, reader: Reader, *, trust: str, verify: str, read_only: bool
    ) -> None:
        self._session = session
        self._registry = registry
        self._reader = reader
        self._waiting = session.committer.waiting
        self._trust = trust
        self._verify = "always" if trust == "signed" else verify  # nothing is parsed before its signature is checked
        self._read_only = read_only
        self._simple = cast("SimpleSpec", registry.get("simple"))  # unless another spec is put in its place
        self._private: bool | None = None

    # -- values

    def open(self, ref: ObjectRef) -> Any:
        """See `Warehouse.open`."""
        value, receipt = self.open_unchecked(ref)
        if receipt is not None and self.settle([receipt]):
            raise _was_damaged(ref)
        return value

    def open_unchecked(self, ref: ObjectRef) -> tuple[Any, FilePayload | None]:
        """See `Warehouse.open_unchecked`."""
        spec = self._registry.get(ref.spec, ref.version)
        if spec.executes_code and not self.trusts_code():
            raise self._distrust(ref)
        payload: Payload | None = None
        try:
            if ref.inline is not None and spec is self._simple:
                return self._simple.open_tiny(*_tiny_part(ref.inline)), None
            payload = self._payload(ref, in_place=spec.opens_in_place)
            if spec.executes_code:
                payload = self._guarded(ref, payload)
            value = spec.open(payload, meta_of(ref.meta), ref.version)
        except DamagedObject as error:
            self._put_aside(ref.address, error.message)
            raise _was_damaged(ref) from error
        except Exception as error:  # of code in an object, or of a library; unless that is not what was stored
            if type(payload) is FilePayload and payload.is_unchecked and self.settle([payload]):
                raise _was_damaged(ref) from error
            raise
        return value, payload if type(payload) is FilePayload and payload.is_unchecked else None

    def settle(self, receipts: Iterable[FilePayload]) -> list[Digest]:
        """See `Warehouse.settle`."""
        damaged = []
        for receipt in receipts:
            trouble = receipt.settle()
            if trouble is not None:
                damaged.append(receipt.address)
                if receipt.is_in_place():  # else somebody has dealt with it already
                    self._put_aside(receipt.address, trouble)
        return damaged

    def preview(self, ref: ObjectRef) -> str:
        """See `Warehouse.preview`."""
        spec = self._registry.get(ref.spec, ref.version)
        payload = self._payload(ref)
        line = spec.preview(payload, meta_of(ref.meta), ref.version)
        if type(payload) is FilePayload and self.settle([payload]):
            raise _was_damaged(ref)
        return line

    # -- objects

    def has(self, ref: ObjectRef) -> bool:
        """See `Warehouse.has`."""
        if ref.inline is not None:
            return True
        known = self.find(ref.address)
        return known is not None and (known[0].home != IN_FILES or self._session.objects.is_there(ref.address))

    def find(self, address: Digest) -> tuple[ObjectRecord, bytes] | None:
        """Record of an object, and its payload if that lives in the record or waits to be written."""
        held = self._waiting.sealed.get(address)
        if held is not None:
            return held.record, held.payload
        if address in self._waiting.gone or not is_address(address):
            return None
        key = address.encode()
        body = self._reader.get("objects", key)
        return None if body is None else decoded(self._session.index, "objects", key, body, records.decode_object)

    def memory_parts(self, address: Digest, record: ObjectRecord, payload: bytes) -> dict[str, bytes] | None:
        """The parts of a payload that consists of no files; None if it is missing or damaged."""
        if record.home != IN_SMALL or payload:
            return records.split_payload(record, payload)
        stored = self._reader.payload(address.encode())
        parts = None if stored is None else records.split_payload(record, stored)
        return parts if parts is not None and _are_right(record, parts) else None

    def _own_payload(self, address: Digest, record: ObjectRecord, payload: bytes) -> Payload | None:
        """A payload of the second environment in memory that nobody else has; None if it lies elsewhere."""
        if record.home != IN_SMALL or payload or self._session.sealing is not None:
            return None
        whole = self._reader.own_payload(address.encode())
        parts = None if whole is None else records.split_payload(record, memoryview(whole))
        return OwnPayload(parts) if parts is not None and _are_right(record, parts) else None

    def _payload(self, ref: ObjectRef, *, in_place: bool = False) -> Payload:
        if ref.inline is not None:
            return MemoryPayload(dict([_tiny_part(ref.inline)]))
        known = self.find(ref.address)
        if known is None:
            raise self._gone(ref)
        if known[0].home == IN_FILES:
            return FilePayload(self._session.objects, ref.address, known[0], self._verify, self._put_aside)
        own = self._own_payload(ref.address, *known) if in_place else None
        if own is not None:
            return own
        parts = self.memory_parts(ref.address, *known)
        if parts is None:
            if known[0].home == IN_SMALL and self._reader.payload(ref.address.encode()) is None:
                self._put_aside(ref.address, f"the payload of object {ref.address} is not where its record says")
                raise self._gone(ref)  # an index began anew from its backup, which has no payloads
            raise DamagedObject(f"the payload of object {ref.address} does not match its checksum")
        return MemoryPayload(parts)

    def _gone(self, ref: ObjectRef) -> PayloadMissing:
        where = self._session.layout.root
        return PayloadMissing(
            f"the {ref.spec} object {ref.address} is not in the store {where!r} any more", hint=_AGAIN
        )

    def _put_aside(self, address: Digest, why: str) -> None:
        """What is damaged is moved out of the way, and forgotten.

        Raises
        ------
        WarehouseError
            If it can't be moved. Then the disk may be gone, and the object whole: it is not forgotten.
        """
        if not is_address(address):
            return report(f"{why}; the ingredient is made again when it is needed")  # a forged reference
        try:
            if not self._read_only:
                self._session.objects.quarantine(address)
        except OSError as error:
            raise WarehouseError(
                f"{why}; nor can it be put aside: {error.strerror}",
                hint="is the file system there, and may it be written to? Nothing was forgotten: run it again then",
            ) from error
        report(f"{why}; the ingredient is made again when it is needed")
        if not self._session.index.environments.closed:  # else the next session finds that its files are gone
            self._session.committer.forget_object(address)

    # -- trust

    def trusts(self, ref: ObjectRef) -> bool:
        """See `Warehouse.trusts`."""
        return not self._registry.get(ref.spec, ref.version).executes_code or self.trusts_code()

    def trusts_code(self) -> bool:
        """Whether the store is trusted to hold code."""
        if self._private is None:
            own = self._trust == "own" and is_private(self._session.layout)
            self._private = own or self._session.sealing is not None
        return self._private

    def _guarded(self, ref: ObjectRef, payload: Payload) -> Payload:
        """What code may be decoded from: files that nobody else can have written, or bytes that nobody else can alter.

        Raises
        ------
        UntrustedStore
            If somebody else may have written the files.
        """
        if type(payload) is not FilePayload:
            return payload
        sealing, objects = self._session.sealing, self._session.objects
        if sealing is None:
            if not all(map(is_ours, objects.paths(ref.address))):
                raise self._distrust(ref)
            return payload
        known = self.find(ref.address)
        if known is None or ref.spec != _OBJECT:  # models are read by their path
            return payload
        data = {part.name: payload.read(part.name) for part in known[0].parts}
        if not all(sealing.is_right(part, data[part.name]) for part in known[0].parts):
            raise DamagedObject(f"the files of object {ref.address} are not what was signed")
        return MemoryPayload(data)

    def _distrust(self, ref: ObjectRef) -> UntrustedStore:
        where = self._session.layout.root
        if self._trust == "data":
            why, hint = "trust='data' allows no such thing", "open it with trust='own' if it is your own store"
        else:
            why = "it belongs to another user, or others may write to it"
            hint = f"if nobody else has written to it: chmod -R go-w {where!r}; or open a copy, if you trust its owner"
        return UntrustedStore(
            f"decoding a {ref.spec!r} ingredient could run code from the store {where!r}, and {why}", hint=hint
        )


def _are_right(record: ObjectRecord, parts: Mapping[str, bytes | memoryview]) -> bool:
    return all([hash_bytes(parts[part.name]) == part.digest for part in record.parts])


def _was_damaged(ref: ObjectRef) -> PayloadMissing:
    return PayloadMissing(f"the {ref.spec} object {ref.address} was damaged and is put aside", hint=_AGAIN)


def _tiny_part(inline: str) -> tuple[str, bytes]:
    part, _, data = inline.partition("\n")
    try:
        return part, data.encode("latin-1")
    except UnicodeEncodeError:
        raise DamagedObject("a payload in its reference holds characters that are no bytes") from None

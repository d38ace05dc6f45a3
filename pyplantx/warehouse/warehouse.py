"""The facade of the store: what the plant, the explanations and the tools ask it for.

This file may know: specs, references, commits, trust. It may not know: lmdb, lock files, when the queue is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import (
    CannotStore,
    DamagedObject,
    PayloadMissing,
    PyplantxError,
    StoreReadOnly,
    UntrustedStore,
    WarehouseError,
)
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.memory import MemoryBudget
from pyplantx.warehouse import committer, records
from pyplantx.warehouse.claims import Claim, Claims
from pyplantx.warehouse.committer import Commit, NewVersion, blob_key, name_key, version_key
from pyplantx.warehouse.objects import (
    RESUME,
    TINY,
    StagedObject,
    disk_error,
    in_words,
    is_address,
    meta_of,
    tiny_ref,
)
from pyplantx.warehouse.payloads import FilePayload, MemoryPayload
from pyplantx.warehouse.records import IN_FILES, IN_SMALL, ObjectRecord, VersionInfo, decode_text
from pyplantx.warehouse.session import Session, close_session, is_ours, is_private, open_session, report
from pyplantx.warehouse.verify import VERIFY

if TYPE_CHECKING:
    from pyplantx.specs import SpecRegistry
    from pyplantx.specs.base import Allocation, IngredientTypeSpec, Payload, Written
    from pyplantx.specs.simple import SimpleSpec
    from pyplantx.warehouse.collect import Problem, Usage
    from pyplantx.warehouse.keeper import Keeper
    from pyplantx.warehouse.resume import Workspaces

__all__ = ["Allocated", "Commit", "VersionInfo", "Warehouse"]

_T = TypeVar("_T")

_DURABILITIES = ("power", "process")
_TRUSTS = ("own", "data", "signed")

_OBJECT = "object"  #: name of the type whose values are pickles

#: Seconds after which a session notes what it has reached up to then.
_NOTED_EVERY = 30.0

#: Seconds after which an activity looks at the index anew, to see what other processes have committed.
_VIEW_LASTS = 0.01


class Allocated:
    """An ingredient that a reactor fills itself.

    Attributes
    ----------
    name : str
        Of the ingredient.
    handle : object
        What the reactor writes into.
    """

    def __init__(
        self, warehouse: Warehouse, name: str, spec: IngredientTypeSpec, stage: StagedObject, inner: Allocation
    ) -> None:
        self.name = name
        self.handle: Any = inner.handle
        self._warehouse = warehouse
        self._spec = spec
        self._stage = stage
        self._inner = inner
        self.before_publishing: list[Callable[[], None]] = []  # what is to happen while it is whole and still ours

    @property
    def inner(self) -> Allocation:
        """What the type spec made."""
        return self._inner

    def seal(self) -> ObjectRef:
        """Finish: the handle refuses more writes, the object is at its address and may be opened.

        Raises
        ------
        CannotStore, WarehouseFull
            If it can't be stored; then it is discarded.
        """
        try:
            written = self._inner.seal()
            for prepare in self.before_publishing:
                prepare()
            return self._warehouse.publish(self._spec, self._stage, written)
        except BaseException as error:
            raise self._warehouse.failure(self.name, self._stage, error) from error

    def discard(self) -> None:
        """Give up: close the handle, remove what was written."""
        try:
            self._inner.discard()
        finally:
            self._stage.discard()


class Warehouse:
    """An open warehouse.

    Parameters
    ----------
    directory : str or PathLike
        Made if it is missing (mode 0700).
    durability : {"power", "process"}
        Whether what is announced survives power loss, or only the death of the process.
    trust : {"own", "data", "signed"}
        Whether payloads whose decoding can run code are decoded: only in a store that belongs to this user and that
        nobody else may write to; never; or wherever the store lies, but only what was signed with the user's key.
    read_only : bool
        Never write anything.
    lock_timeout : float
        Seconds to wait for another process before `StoreBusy`.
    arrays : {"copy", "readonly"}
        Whether a received array may be changed (privately), or not at all.
    verify : {"lazy", "always", "off"}
        When files are checked: as they are read or beside the computation, once per session; before they are opened, at
        each opening; or never.
    encode : callable, optional
        Value -> canonical digest, for the type specs.
    is_project_class : callable, optional
        Whether a class belongs to the user's project, for the type specs.
    memory : MemoryBudget, optional
        What may be held in memory.
    disk : int, optional
        Bytes of payloads that the store may take; a quarter of the file system if not given.
    key : str or PathLike, optional
        The key file, with ``trust="signed"``: else the environment variable ``PYPLANTX_KEY`` names it, else it is
        ``~/.config/pyplantx/key``. Made (mode 0600) with the first signed store.
    index : str or PathLike, optional
        Directory of the index, locks and claims, if they are to lie apart from the objects: on a local disk.
    network_index : bool
        Whether the index may lie on a network file system.

    Attributes
    ----------
    memory : MemoryBudget
        Whoever keeps buffers asks it for a share.

    Raises
    ------
    StoreTooNew
        If a newer version has made the store; nothing was touched.
    StoreBusy, StoreReadOnly, WarehouseError
        If it can't be opened.
    """

    #: So that who has a warehouse need not import this module.
    Commit = Commit

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        durability: str = "power",
        trust: str = "own",
        read_only: bool = False,
        lock_timeout: float = 60.0,
        arrays: str = "copy",
        verify: str = "lazy",
        encode: Callable[[object], Digest] | None = None,
        is_project_class: Callable[[type], bool] | None = None,
        memory: MemoryBudget | None = None,
        disk: int | None = None,
        key: str | os.PathLike[str] | None = None,
        index: str | os.PathLike[str] | None = None,
        network_index: bool = False,
    ) -> None:
        _check_choice("durability", durability, _DURABILITIES)
        _check_choice("trust", trust, _TRUSTS)
        _check_choice("arrays", arrays, ("copy", "readonly"))
        _check_choice("verify", verify, VERIFY)
        _check_signed(trust, key, verify)
        self.directory = os.path.realpath(directory)
        self.read_only = read_only
        self._trust = trust
        self._verify = "always" if trust == "signed" else verify  # nothing is parsed before its signature is checked
        self._private: bool | None = None
        self.memory = memory if memory is not None else MemoryBudget()
        self.registry = _registry(
            encode,
            is_project_class,
            writable=arrays == "copy",
            full_check=trust != "own",
            chunk_memory=self.memory.share("chunks"),
        )
        self._simple = cast("SimpleSpec", self.registry.get("simple"))  # unless another spec is put in its place
        self._session = open_session(
            self.directory,
            durability=durability,
            read_only=read_only,
            lock_timeout=lock_timeout,
            trust=trust,
            key=key,
            index=index,
            network_index=network_index,
        )
        self._session.settle = _settle
        if disk is not None:
            self._session.disk = min(disk, self._session.disk or disk)
        self._committer = self._session.committer
        self._committer.limit_waiting(self.memory.share("waiting"))
        self._waiting = self._committer.waiting
        self._reader = self._session.index.new_reader()
        self._claims = Claims(self._session.layout.claims)
        self._workspaces: Workspaces | None = None
        self._work_left = os.path.isdir(os.path.join(self._session.layout.staging, RESUME))
        self._known_roots: set[tuple[str, Digest]] = set()  # versions that the index has
        self._without_versions: dict[str, int] = {}  # reactor without any -> `foreign_changes` when that was seen
        self._noted_at = time.monotonic()
        self._closed = False

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Make everything durable and close. Closing twice does no harm."""
        if not self._closed:
            self._closed = True
            if self._workspaces is not None:
                self._workspaces.close()
            if not self._session.index.closed:
                self._session.index.drop_reader(self._reader)
            close_session(self._session)

    def register_ingredient_specs(self, specs: Iterable[Any]) -> None:
        """Make type specs known; see `SpecRegistry.register`."""
        self.registry.register(specs)

    # -- activities

    def begin_activity(self) -> None:
        """From now on look-ups are quick: one view of the index serves them all, renewed after own commits."""
        self._session.index.usable()
        self._session.active.add(id(self))
        self._reader.refresh()
        self._reader.keep(True)

    def end_activity(self) -> None:
        """Let the view go."""
        self._session.active.discard(id(self))
        self._reader.keep(False)

    # -- looking up

    def find_record(self, key: Digest) -> str | None:
        """Text of the trace-tree record at a node, or None."""
        text = self._waiting.traces.get(key)
        if text is not None:
            return text
        body = self._reader.get("traces", key.encode())
        return None if body is None else self._text("traces", key, body)

    def producers(self, name: str) -> list[tuple[str, Digest]]:
        """(reactor id, root) of those that have sent `name`, newest first, at most 16."""
        waiting = self._waiting.names.get(name)
        if waiting is None:
            found = self._record("names", name_key(name), records.decode_producers) or []
            self._known_roots.update(found)  # a version is written together with what it sends first
            return found
        base = self._name_record(name)
        return list((waiting if base is None else records.merge_name(waiting, base)).producers)

    def last_ref(self, name: str) -> ObjectRef | None:
        """The last version of an ingredient that was committed under this name."""
        waiting = self._waiting.names.get(name)
        if waiting is not None:
            return waiting.ref
        base = self._name_record(name)
        return None if base is None else base.ref

    def names(self) -> Iterator[str]:
        """All names that were ever sent."""
        waiting = list(self._waiting.names)
        yield from waiting
        for _, record in self._reader.decoded("names", records.decode_name):
            if record.name not in waiting:
                yield record.name

    def versions(self, reactor: str) -> list[VersionInfo]:
        """The versions of a reactor, newest first, at most 32."""
        stored = self._stored_versions(reactor)
        waiting = self._waiting.versions_of(reactor)
        if not waiting:
            return stored
        found = [VersionInfo(new.root, new.when, dict(new.parts)) for new in waiting]
        seen = {version.root for version in found}
        return [*found, *[version for version in stored if version.root not in seen]][: records.MAX_VERSIONS]

    def _stored_versions(self, reactor: str) -> list[VersionInfo]:
        record = self._record("versions", name_key(reactor), records.decode_versions)
        if record is None or not record.roots:
            self._without_versions[reactor] = self.foreign_changes()
            return []
        _, roots, parts = record
        former = [VersionInfo(root, when, self._parts(reactor, root)) for root, when in roots[1:]]
        return [VersionInfo(*roots[0], dict(parts)), *former]

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Entries of the run history, newest last.

        Parameters
        ----------
        limit : int, optional
            At most this many, the newest ones.
        """
        self._committer.flush(self._session.index.lock_timeout)
        self._reader.refresh()
        batches = self._reader.tail("history", limit or 1 << 62)
        decoded = [self._decoded("history", key, body, records.decode_history) for key, body in batches]
        entries = [entry for batch in decoded if batch is not None for entry in batch]
        return entries[-limit:] if limit else entries

    def get_code(self, raw: Digest) -> str | None:
        """What is known about a code object, by its raw digest."""
        text = self._waiting.code.get(raw)
        if text is not None:
            return text
        body = self._reader.get("code", raw.encode())
        return None if body is None else self._text("code", raw, body)

    def put_code(self, raw: Digest, record: str) -> None:
        """Remember something about a code object; written with the next commit."""
        if not self.read_only:
            # A thousand of them come in a row, with no quiet point to write at: the other thread would begin to.
            self._committer.put("code", raw, record, patient=True)

    def blob_get(self, kind: str, key: str) -> str | None:
        """A small text that another part has kept here, or None."""
        both = blob_key(kind, key)
        text = self._waiting.blobs.get(both)
        if text is not None:
            return text
        found = self._record("blobs", name_key(both), records.decode_blob)
        return None if found is None else found[1]

    def blob_put(self, kind: str, key: str, text: str) -> None:
        """Keep a small text; written with the next commit."""
        self._writable()
        self._committer.put("blobs", blob_key(kind, key), text)

    def _name_record(self, name: str) -> records.NameRecord | None:
        return self._record("names", name_key(name), records.decode_name)

    def _record(self, table: str, key: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """One record of the index, decoded; None if there is none."""
        body = self._reader.get(table, key)
        return None if body is None else self._decoded(table, key, body, decode)

    def _decoded(self, table: str, key: bytes, body: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """A record that makes no sense counts as missing, whatever its checksum: anybody can compute that."""
        try:
            return decode(body)
        except DamagedObject:
            self._session.index.condemn_body(table, key, body)
            return None

    def _text(self, table: str, key: Digest, body: bytes) -> str | None:
        try:
            return decode_text(body)
        except UnicodeDecodeError:
            self._session.index.condemn_body(table, key.encode(), body)
            return None

    def _parts(self, reactor: str, root: Digest) -> dict[str, Digest]:
        return self._record("parts", version_key(reactor, root), records.decode_parts) or {}

    # -- storing

    def store(self, name: str, value: Any, type_given: Any = None) -> ObjectRef:
        """Store a value: write, seal, move to its address. It can be opened at once; a commit makes it last.

        Parameters
        ----------
        name : str
            Of the ingredient; for messages only.
        value : object
        type_given : Ingredient.Type, spec class, spec or str, optional
            How to store it; inferred from the value if not given.

        Raises
        ------
        CannotStore
            If it can't be written; names the ingredient and the place inside it.
        WarehouseFull
            If there is no space.
        """
        self._writable()
        stage: StagedObject | None = None
        try:
            spec = self.registry.infer(value) if type_given is None else self.registry.resolve(type_given)
            if spec is self._simple:
                tiny = self._simple.write_tiny(value, TINY)
                if tiny is not None:
                    return tiny_ref(spec.name, spec.version, *tiny)
            stage = StagedObject(self._session.staging)
            return self.publish(spec, stage, spec.write(value, stage))
        except BaseException as error:
            raise self.failure(name, stage, error) from error

    def allocate(self, name: str, type_given: Any, **options: Any) -> Allocated:
        """Begin an ingredient that the reactor fills itself.

        Parameters
        ----------
        name, type_given
            As in `store`.
        **options
            Belong to the type (``shape``, ``dtype``, ...).
        """
        self._writable()
        stage = StagedObject(self._session.staging)
        try:
            spec = self.registry.resolve(type_given)
            return Allocated(self, name, spec, stage, spec.allocate(stage, **options))
        except BaseException as error:
            raise self.failure(name, stage, error) from error

    def allocate_temp(self, name: str, type_given: Any, **options: Any) -> Allocated:
        """Like `allocate`, for scratch space: `discard` it; if the session dies first, the next one sweeps it."""
        return self.allocate(name, type_given, **options)

    def failure(self, name: str, stage: StagedObject | None, error: BaseException) -> BaseException:
        """The error to raise when storing failed: it names the ingredient. Nothing is left behind."""
        what = f"ingredient {name!r} can't be stored"
        written = 0
        if stage is not None:
            written = stage.size_so_far()
            stage.discard()
        if isinstance(error, OSError) and not isinstance(error, PyplantxError):
            return disk_error(error, what, self.directory, written)
        return CannotStore(f"{what}: {error}") if isinstance(error, CannotStore) else error

    def publish(self, spec: IngredientTypeSpec, stage: StagedObject, written: Written) -> ObjectRef:
        """Seal what a spec has written and make it available; bytes that the store has already are kept."""
        tiny = stage.tiny(spec.name, spec.version, written)
        if tiny is not None:
            return tiny
        address, record, payload = sealed = stage.seal(spec.name, spec.version, written)
        if self._has_whole(address):
            stage.discard()
        else:
            if record.home == IN_FILES:
                self._session.objects.publish(stage, sealed)
            self._committer.hold(address, record, payload)
            self._session.added += record.size
        return ObjectRef(record.spec, record.version, record.digest, address, record.size, record.meta)

    def _has_whole(self, address: Digest) -> bool:
        """Whether the store has these very bytes already; read back and checked, for a bad copy must not win."""
        known = self._object(address)
        if known is None:
            return False
        if known[0].home == IN_FILES:
            whole = self._session.objects.is_whole(address, known[0])
            if not whole:
                self._session.objects.quarantine(address)
            return whole
        return self._memory_parts(address, *known) is not None

    # -- opening

    def has(self, ref: ObjectRef) -> bool:
        """Whether the payload is there (not whether it is whole: `open` checks that)."""
        if ref.inline is not None:
            return True
        known = self._object(ref.address)
        return known is not None and (known[0].home != IN_FILES or self._session.objects.is_there(ref.address))

    def trusts(self, ref: ObjectRef) -> bool:
        """Whether decoding this object is allowed: it runs no code, or the store is trusted to hold code."""
        return not self.registry.get(ref.spec, ref.version).executes_code or self._trusts_code()

    def open(self, ref: ObjectRef) -> Any:
        """The value behind a reference.

        Raises
        ------
        PayloadMissing
            If it is gone, or turned out to be damaged (then it is put aside and reported in the log).
        UntrustedStore
            If decoding it could run code and the store is not trusted.
        """
        value, receipt = self.open_unchecked(ref)
        if receipt is not None and self.settle([receipt]):
            raise _was_damaged(ref)
        return value

    def open_unchecked(self, ref: ObjectRef) -> tuple[Any, FilePayload | None]:
        """The value behind a reference, which may still be being checked beside the computation.

        Returns
        -------
        (object, FilePayload or None)
            The value; and the receipt for what of it is not yet checked. Nothing that was made of the value is to be
            believed before `settle` has been asked about that.

        Raises
        ------
        PayloadMissing, UntrustedStore
            As `open`.
        """
        spec = self.registry.get(ref.spec, ref.version)
        if spec.executes_code and not self._trusts_code():
            raise self._distrust(ref)
        try:
            if ref.inline is not None and spec is self._simple:
                return self._simple.open_tiny(*_tiny_part(ref.inline)), None
            payload = self._payload(ref)
            if spec.executes_code:
                payload = self._guarded(ref, payload)
            value = spec.open(payload, meta_of(ref.meta), ref.version)
        except DamagedObject as error:
            self._put_aside(ref.address, str(error))
            raise _was_damaged(ref) from error
        return value, payload if type(payload) is FilePayload and payload.is_unchecked else None

    def settle(self, receipts: Iterable[FilePayload]) -> list[Digest]:
        """Wait for the checks of what `open_unchecked` gave away; this thread helps.

        Returns
        -------
        list of Digest
            Addresses of the objects that were damaged when they were given away; they are put aside and reported.
        """
        damaged = []
        for receipt in receipts:
            trouble = receipt.settle()
            if trouble is not None:
                damaged.append(receipt.address)
                if receipt.is_in_place():  # else somebody has dealt with it already
                    self._put_aside(receipt.address, trouble)
        return damaged

    def preview(self, ref: ObjectRef) -> str:
        """One line about the value, without running code from the store."""
        spec = self.registry.get(ref.spec, ref.version)
        payload = self._payload(ref)
        line = spec.preview(payload, meta_of(ref.meta), ref.version)
        if type(payload) is FilePayload and self.settle([payload]):
            raise _was_damaged(ref)
        return line

    def _payload(self, ref: ObjectRef) -> Payload:
        if ref.inline is not None:
            return MemoryPayload(dict([_tiny_part(ref.inline)]))
        known = self._object(ref.address)
        if known is None:
            raise PayloadMissing(f"the {ref.spec} object {ref.address} is not in the warehouse {self.directory!r}")
        if known[0].home == IN_FILES:
            return FilePayload(self._session.objects, ref.address, known[0], self._verify, self._put_aside)
        parts = self._memory_parts(ref.address, *known)
        if parts is None:
            raise DamagedObject(f"the payload of object {ref.address} does not match its checksum")
        return MemoryPayload(parts)

    def _object(self, address: Digest) -> tuple[ObjectRecord, bytes] | None:
        """Record of an object, and its payload if that lives in the record or waits to be written."""
        held = self._waiting.sealed.get(address)
        if held is not None:
            return held.record, held.payload
        if address in self._waiting.gone:
            return None
        if not is_address(address):
            return None
        return self._record("objects", address.encode(), records.decode_object)

    def _memory_parts(self, address: Digest, record: ObjectRecord, payload: bytes) -> dict[str, bytes] | None:
        """The parts of a payload that consists of no files; None if it is missing or damaged."""
        if record.home != IN_SMALL or payload:
            return records.split_payload(record, payload)
        stored = self._reader.payload(address.encode())
        parts = None if stored is None else records.split_payload(record, stored)
        if parts is None or any(hash_bytes(parts[part.name]) != part.digest for part in record.parts):
            return None
        return parts

    def _put_aside(self, address: Digest, why: str) -> None:
        report(f"{why}; the ingredient is made again when it is needed")
        if not is_address(address):
            return  # a forged reference: there is nothing to put aside
        try:
            if not self.read_only:
                self._session.objects.quarantine(address)
        except OSError as error:
            report(f"the damaged object could not be put aside: {error.strerror}")
        if not self._closed:  # else the next session finds that its files are gone
            self._committer.forget_object(address)

    def _trusts_code(self) -> bool:
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
        known = self._object(ref.address)
        if known is None or ref.spec != _OBJECT:  # models are read by their path
            return payload
        data = {part.name: payload.read(part.name) for part in known[0].parts}
        if not all(sealing.is_right(part, data[part.name]) for part in known[0].parts):
            raise DamagedObject(f"the files of object {ref.address} are not what was signed")
        return MemoryPayload(data)

    def _distrust(self, ref: ObjectRef) -> UntrustedStore:
        if self._trust == "data":
            why, hint = "trust='data' allows no such thing", "open it with trust='own' if it is your own store"
        else:
            why = "it belongs to another user, or others may write to it"
            hint = f"if nobody else has written to it: chmod -R go-w {self.directory!r}"
        return UntrustedStore(
            f"decoding a {ref.spec!r} ingredient could run code from the warehouse {self.directory!r}, and {why}",
            hint=hint,
        )

    # -- committing

    def commit(self, commit: committer.Commit, announce: Callable[[], None] | None = None) -> None:
        """Queue what a reactor has left; it is found at once, and durable within 50 ms.

        Parameters
        ----------
        commit : Commit
        announce : callable, optional
            Handed out by `announcements` once the commit is durable.
        """
        self._writable()
        self._committer.commit(commit, self._new_version(commit), announce)

    def _new_version(self, commit: committer.Commit) -> NewVersion | None:
        version = (commit.reactor, commit.root)
        if version in self._known_roots:
            return None
        self._known_roots.add(version)
        key = name_key(commit.reactor)
        if self._without_versions.pop(commit.reactor, None) != self.foreign_changes():
            body = self._reader.get("versions", key)
            if body is not None and commit.root.encode() in body:
                return None
        parts: Mapping[str, Digest] = commit.parts() if commit.parts is not None else {}
        return NewVersion(key, commit.reactor, commit.root, time.time(), parts)

    def maybe_flush(self) -> None:
        """Write what waits, if it has waited long enough; cheap otherwise. For quiet points between reactors.

        Raises
        ------
        WarehouseFull, StoreBusy, WarehouseError
            If something could not be made durable. It stays queued; the warehouse can be used on.
        """
        self._committer.maybe_flush()
        self._reader.refresh(older_than=_VIEW_LASTS)

    def sync(self) -> None:
        """Return when everything that was queued is durable; raises as `maybe_flush`."""
        self._session.index.usable()
        if not self.read_only:
            self._committer.sync()

    def announcements(self) -> list[Callable[[], None]]:
        """Callbacks of the commits that have become durable since the last call."""
        return self._committer.announcements()

    def backup(self) -> None:
        """Copy the index beside the store, as a clean close does."""
        self._writable()
        self._committer.sync()
        self._session.index.back_up()

    # -- unfinished work

    @property
    def workspaces(self) -> Workspaces:
        """Where reactors keep what lets them go on after a kill."""
        if self._workspaces is None:
            if self._session.sealing is None:
                from pyplantx.warehouse.resume import Workspaces as Kind
            else:
                from pyplantx.warehouse.unresumed import NoWorkspaces as Kind
            self._workspaces = Kind(self._session.layout, self.registry, self._trusts_code)
        return self._workspaces

    def work_finished(self, reactor: str) -> None:
        """A reactor has committed: nothing of its work is unfinished any more."""
        if self._work_left or self._workspaces is not None:
            self.workspaces.finished(reactor)

    # -- claims

    def others_present(self) -> bool:
        """Whether other sessions seem to have the store open; looked up at most every 50 ms."""
        return self._session.others_present()

    def foreign_changes(self) -> int:
        """A number; while it is the same, nobody else has written anything that look-ups could see."""
        if self._session.users > 1:  # other plants of this process write through the same session
            self._session.index.foreign_commits += 1
        return self._reader.foreign_changes()

    def refresh(self) -> None:
        """Let the next look-up see what others have committed."""
        self._reader.refresh()

    def claim(self, key: str, timeout: float = 0.0) -> Claim | None:
        """Claim a piece of work, so that no other process does it too; see `Claims.claim`."""
        self._writable()
        return self._claims.claim(key, timeout)

    @contextmanager
    def work_claim(self, key: str, timeout: float = 60.0) -> Iterator[Claim | None]:
        """Hold the claim on `key` meanwhile; what others have committed until then is visible inside.

        Yields None if the claim could not be had in time: then the work is done twice, which is never wrong.
        """
        claim = self.claim(key, timeout)
        self._reader.refresh()
        try:
            yield claim
        finally:
            if claim is not None:
                claim.release()

    # -- looking after the store

    def check(self, fix: bool = False) -> list[Problem]:
        """Every invariant of the store; see `pyplantx.warehouse.collect.check`."""
        from pyplantx.warehouse import collect

        self.sync()
        with in_words(f"the warehouse {self.directory!r} can't be checked", self.directory):
            return collect.check(self._session, self._reader, fix)

    def collect(self, max_size: int | None = None) -> int:
        """Remove former versions; see `pyplantx.warehouse.collect.collect_former`. Bytes that were removed."""
        from pyplantx.warehouse import collect

        self._writable()
        self.sync()
        with in_words(f"the warehouse {self.directory!r} can't be collected", self.directory):
            done = collect.collect_former(self._session, self._reader, max_size)
        if done.hindrance:
            report(f"the warehouse {self.directory!r} was not collected: {done.hindrance}")
        return 0 if done.hindrance else done.freed

    @property
    def keeper(self) -> Keeper:
        """Collects, measures and pins."""
        from pyplantx.warehouse.keeper import Keeper

        self._session.index.usable()
        return Keeper(self._session, self._reader)

    def note_reached(self, addresses: Iterable[Digest]) -> None:
        """Somebody was answered with these objects: they are not collected while the session lives.

        When it ends they are what this script's last run has reached. A long session notes that every half minute.
        """
        reached = self._session.reached
        before = len(reached)
        reached.update(addresses)
        now = time.monotonic()
        if len(reached) > before and now - self._noted_at > _NOTED_EVERY and not self.read_only:
            self._noted_at = now
            self.keeper.note_reached()

    def du(self) -> Usage:
        """How many bytes the parts of the store take; see `pyplantx.warehouse.collect.Usage`."""
        from pyplantx.warehouse import collect

        self.sync()
        with in_words(f"the warehouse {self.directory!r} can't be measured", self.directory):
            return collect.usage(self._session)

    def _writable(self) -> None:
        if self._session.index.is_usable and not self.read_only:
            return
        self._session.index.usable()
        if self.read_only:
            raise StoreReadOnly(
                f"the warehouse {self.directory!r} was opened with read_only=True", hint="open it without, to write"
            )


def _settle(session: Session) -> None:
    """At the end of a session: note what its script reached, keep the store within its budget."""
    if session.reached:
        from pyplantx.warehouse import roots  # not for those who have nothing but tiny values

        roots.note_end(session)
    if session.added or session.disk is not None:
        from pyplantx.warehouse import keeper  # not for those who only looked

        keeper.keep_within_budget(session)


def _check_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise WarehouseError(f"{what}={given!r} is not possible", hint=f"one of {', '.join(map(repr, choices))}")


def _check_signed(trust: str, key: object, verify: str) -> None:
    if trust == "signed" and verify == "off":
        raise WarehouseError("trust='signed' and verify='off' exclude each other: signatures have to be checked")
    if trust != "signed" and key is not None:
        raise WarehouseError(f"a key is of no use with trust={trust!r}", hint="Plant(..., trust='signed', key=path)")


def _was_damaged(ref: ObjectRef) -> PayloadMissing:
    return PayloadMissing(f"the {ref.spec} object {ref.address} was damaged and is put aside")


def _tiny_part(inline: str) -> tuple[str, bytes]:
    part, _, data = inline.partition("\n")
    try:
        return part, data.encode("latin-1")
    except UnicodeEncodeError:
        raise DamagedObject("a payload in its reference holds characters that are no bytes") from None


def _registry(
    encode: Callable[[object], Digest] | None,
    is_project_class: Callable[[type], bool] | None,
    *,
    writable: bool,
    full_check: bool,
    chunk_memory: int,
) -> SpecRegistry:
    from pyplantx.specs import SpecRegistry

    return SpecRegistry(encode, is_project_class, writable=writable, full_check=full_check, chunk_memory=chunk_memory)

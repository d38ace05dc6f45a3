"""The facade of the store: what the plant, the explanations and the tools ask it for.

This file may know: specs, references, commits, trust. It may not know: lmdb, lock files, when the queue is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pyplantx.basics.given import check_flag, check_path, check_wait
from pyplantx.basics.memory import MemoryBudget
from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.errors import BadRequest, WarehouseError, check_choice
from pyplantx.specs.registry import SpecRegistry
from pyplantx.specs.services import Services
from pyplantx.warehouse import records
from pyplantx.warehouse.claims import Claim, Claims
from pyplantx.warehouse.files import RESUME, in_words, opened_read_only
from pyplantx.warehouse.opening import Opener, decoded
from pyplantx.warehouse.payloads import FilePayload
from pyplantx.warehouse.records import VersionInfo, decode_text
from pyplantx.warehouse.session import Session, close_session, open_session
from pyplantx.warehouse.storing import Allocated, Storer
from pyplantx.warehouse.tables import blob_key, name_key, version_key
from pyplantx.warehouse.verify import VERIFY
from pyplantx.warehouse.waiting import Commit, NewVersion

if TYPE_CHECKING:
    from pyplantx.warehouse.collect import Problem
    from pyplantx.warehouse.keeper import Keeper
    from pyplantx.warehouse.resume import Workspaces

__all__ = ["Allocated", "Commit", "VersionInfo", "Warehouse"]

_T = TypeVar("_T")

_DURABILITIES = ("power", "process")
_TRUSTS = ("own", "data", "signed")

_SOME_FOLDER = "name a folder, such as 'plant'; '.' is the one that you work in"

#: How many commits of the history are looked through at most for the last run of a reactor, and how many at first.
LOOK_BACK, _FIRST_LOOK = 100_000, 64

#: Kind of the blobs that tell of runs without a trace.
_UNKEPT, _ANY = "unkept", ""

#: Seconds after which a session notes what it has reached up to then.
_NOTED_EVERY = 30.0

#: Seconds after which an activity looks at the index anew, to see what other processes have committed.
_VIEW_LASTS = 0.01


class Warehouse:
    """An open warehouse.

    Parameters
    ----------
    directory : str or PathLike
        Made if it is missing (mode 0700). A ``~`` in front stands for the home of the user.
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
        each opening; or never. With ``"always"`` the files of the index are compared as a whole with what the last
        clean close has left, else their first 64 MiB.
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
        Whether the index may lie on a network file system, or on what may be one.

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
        _check_options(durability, trust, arrays, verify, key)
        self.directory = os.path.realpath(_absolute(check_path("the directory of a store", directory, _SOME_FOLDER)))
        self.read_only = read_only
        self.memory = memory if memory is not None else MemoryBudget()
        services = Services(
            encode,
            is_project_class,
            writable=arrays == "copy",
            full_check=trust != "own",
            chunk_memory=self.memory.share("chunks"),
        )
        self.registry = SpecRegistry(services)
        self._session = open_session(
            self.directory,
            durability=durability,
            read_only=read_only,
            lock_timeout=check_wait("lock_timeout=", lock_timeout),
            trust=trust,
            key=None if key is None else _absolute(check_path("key=", key, "key='~/project.key'")),
            index=None if index is None else _absolute(check_path("index=", index, "index='/scratch/me/project'")),
            network_index=check_flag("network_index=", network_index),
            verify=verify,
        )
        self._share_room(disk)
        self._committer = self._session.committer
        self._waiting = self._committer.waiting
        self._reader = self._session.index.new_reader()
        self._opener = Opener(
            self._session, self.registry, self._reader, trust=trust, verify=verify, read_only=read_only
        )
        self._storer = Storer(self._session, self.registry, self._opener, id(self))
        self._claims = Claims(self._session.layout.claims)
        self._workspaces: Workspaces | None = None
        self._work_left = os.path.isdir(os.path.join(self._session.layout.staging, RESUME))
        self._newest: dict[str, Digest] = {}  # reactor -> its version that the index has as the newest
        self._without_versions: dict[str, int] = {}  # reactor without any -> `foreign_changes` when that was seen
        self._recent: list[tuple[bytes, bytes]] = []  # the last commits in the history, when somebody looked last
        self._told: dict[bytes, dict[str, dict[str, Any]]] = {}  # commits in the history -> see `_last_runs`
        self._noted_at = time.monotonic()
        self._has_unkept: bool | None = None  # whether any run has left no trace; None: to be looked up
        self._own_commits = 0  # the others that the committer has counted are of other plants of this process
        self._closed = False

    def _share_room(self, disk: int | None) -> None:
        """Tell the session, which other warehouses of this process may share, how much room there is."""
        self._session.settle = _settle
        if disk is not None:
            self._session.disk = min(disk, self._session.disk or disk)
        self._session.committer.limit_waiting(self.memory.share("waiting"))

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Make everything durable and close. Closing twice does no harm."""
        if not self._closed:
            self._closed = True
            try:
                if self._workspaces is not None:
                    self._workspaces.close()
                if not self._session.index.environments.closed:
                    self._session.index.drop_reader(self._reader)
            finally:
                close_session(self._session)

    @property
    def script(self) -> str:
        """What runs here: the path of a script, or a folder where somebody works interactively."""
        return self._session.script

    def register_ingredient_specs(self, specs: Iterable[Any]) -> None:
        """Make type specs known; see `SpecRegistry.register`."""
        self.registry.register(specs)

    # -- activities

    def begin_activity(self) -> None:
        """From now on look-ups are quick: one view of the index serves them all, renewed after own commits.

        Raises
        ------
        StoreBusy
            If another plant of this process is removing something, and does not come to an end.
        """
        self._usable()
        self._session.stillness.begin_activity(id(self))
        self._reader.refresh()
        self._reader.keep(True)
        self._has_unkept = self._has_unkept or None

    def end_activity(self) -> None:
        """Let the view go, and with the last activity of this process what failed runs have sent."""
        stillness = self._session.stillness
        stillness.end_activity(id(self))
        self._reader.keep(False)
        stillness.when_quiet(self._committer.let_go)

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
            self._newest.update(reversed(found))  # a version is written together with what it sends first
            return found
        base = self._name_record(name)
        return list((waiting if base is None else records.merge_name(waiting, base)).producers)

    def has_version(self, reactor: str, root: Digest) -> bool:
        """Whether this version of a reactor is known to be noted as the newest, without a look at the index."""
        return self._newest.get(reactor) == root

    def note_versions(self, versions: Iterable[tuple[str, Digest]]) -> None:
        """These had `has_version` before, and nothing that they stand on was removed since."""
        self._newest.update(versions)

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
        before = self.foreign_changes()
        record = self._record("versions", name_key(reactor), records.decode_versions)
        if record is None or not record.roots:
            self._without_versions[reactor] = before
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
        entries = [entry for batch in self._last_batches(limit or 1 << 62) for entry in self._entries(*batch)]
        return entries[-limit:] if limit else entries

    def last_run(self, reactor: str) -> dict[str, Any] | None:
        """The newest entry of the run history about a reactor; None if the last `LOOK_BACK` commits have none.

        They are read from the end, and decoded only where the reactor is named.
        """
        named, looked, most = records.to_json(reactor).encode(), 0, _FIRST_LOOK
        while (batches := self._last_batches(most)) and len(batches) > looked:
            for key, body in reversed(batches[: len(batches) - looked]):
                found = self._last_runs(key, body).get(reactor) if named in body else None
                if found is not None:
                    return found
            if most >= LOOK_BACK:
                break
            looked, most = len(batches), min(most * 8, LOOK_BACK)
        return None

    def _last_batches(self, most: int) -> list[tuple[bytes, bytes]]:
        """The entries of the last commits, as they are stored; newest last."""
        self._committer.flush(self._session.index.environments.lock_timeout)
        self._reader.refresh()
        if most > _FIRST_LOOK:
            return self._reader.tail("history", most)
        newest = self._reader.tail("history", 1)
        if self._recent[-1:] != newest:  # else nothing was added since: who asks for one reactor mostly asks for all
            self._recent, self._told = self._reader.tail("history", _FIRST_LOOK), {}
        return self._recent[-most:]

    def _last_runs(self, key: bytes, body: bytes) -> dict[str, dict[str, Any]]:
        """Reactor -> its last entry in one commit, which may hold a thousand: kept for the next who asks."""
        found = self._told.get(key)
        if found is None:
            if len(self._told) >= _FIRST_LOOK:
                self._told.clear()
            entries = self._entries(key, body)
            found = self._told[key] = {id: entry for entry in entries if isinstance(id := entry.get("id"), str)}
        return found

    def _entries(self, key: bytes, body: bytes) -> list[dict[str, Any]]:
        return decoded(self._session.index, "history", key, body, records.decode_history) or []

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
        """Keep a small text that can be found out again; written with the next commit, where anything is."""
        if self.read_only:
            return self._usable()
        self._writable()
        self._committer.put("blobs", blob_key(kind, key), text)

    def _name_record(self, name: str) -> records.NameRecord | None:
        return self._record("names", name_key(name), records.decode_name)

    def _record(self, table: str, key: bytes, decode: Callable[[bytes], _T]) -> _T | None:
        """One record of the index, decoded; None if there is none."""
        body = self._reader.get(table, key)
        return None if body is None else decoded(self._session.index, table, key, body, decode)

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
        return self._storer.store(name, value, type_given)

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
        return self._storer.allocate(name, type_given, options)

    def allocate_temp(self, name: str, type_given: Any, **options: Any) -> Allocated:
        """Like `allocate`, for scratch space: `discard` it; if the session dies first, the next one sweeps it."""
        self._writable()
        return self._storer.allocate(name, type_given, options, "scratch space")

    # -- opening

    def has(self, ref: ObjectRef) -> bool:
        """Whether the payload is there (not whether it is whole: `open` checks that)."""
        return self._opener.has(ref)

    def trusts(self, ref: ObjectRef) -> bool:
        """Whether decoding this object is allowed: it runs no code, or the store is trusted to hold code."""
        return self._opener.trusts(ref)

    def open(self, ref: ObjectRef) -> Any:
        """The value behind a reference.

        Raises
        ------
        PayloadMissing
            If it is gone, or turned out to be damaged (then it is put aside and reported in the log).
        UntrustedStore
            If decoding it could run code and the store is not trusted.
        """
        return self._opener.open(ref)

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
        return self._opener.open_unchecked(ref)

    def settle(self, receipts: Iterable[FilePayload]) -> list[Digest]:
        """Wait for the checks of what `open_unchecked` gave away; this thread helps.

        Returns
        -------
        list of Digest
            Addresses of the objects that were damaged when they were given away; they are put aside and reported.
        """
        return self._opener.settle(receipts)

    def preview(self, ref: ObjectRef) -> str:
        """One line about the value, without running code from the store."""
        return self._opener.preview(ref)

    # -- committing

    def commit(self, commit: Commit, announce: Callable[[], None] | None = None) -> None:
        """Queue what a reactor has left; it is found at once, and durable within 50 ms.

        Parameters
        ----------
        commit : Commit
        announce : callable, optional
            Handed out by `announcements` once the commit is durable.
        """
        self._writable()
        self._committer.commit(commit, self._new_version(commit), announce)
        self._own_commits += 1

    def note_run(self, entry: records.HistoryEntry) -> None:
        """Have the history tell of a run that failed, or that leaves nothing which could be used again.

        What `unkept_run` tells is noted by itself: the history is too long to be searched before each first run.
        """
        if not self.read_only:
            self._committer.note_run(entry)
            for reactor in (entry.id,) if self._has_unkept else (entry.id, _ANY):
                self._committer.put("blobs", blob_key(_UNKEPT, reactor), entry.action, patient=True)
            self._has_unkept = True

    def unkept_run(self, reactor: str) -> str:
        """How the last run of a reactor ended that has left no trace (an action of `HistoryEntry`); "" without one."""
        if self._has_unkept is None:  # once for an activity: in most stores nothing has ever failed
            self._has_unkept = self.blob_get(_UNKEPT, _ANY) is not None
        return (self.blob_get(_UNKEPT, reactor) or "") if self._has_unkept else ""

    def _new_version(self, commit: Commit) -> NewVersion | None:
        if self._newest.get(commit.reactor) == commit.root:
            return None
        self._newest[commit.reactor] = commit.root
        key = name_key(commit.reactor)
        if self._without_versions.pop(commit.reactor, None) != self.foreign_changes():
            body = self._reader.get("versions", key)
            if body is not None and records.is_newest(commit.root, body):
                return None
        parts: Mapping[str, Digest] = commit.parts() if commit.parts is not None else {}
        return NewVersion(key, commit.reactor, commit.root, time.time(), parts)

    def renew_version(self, reactor: str, root: Digest, parts: Callable[[], Mapping[str, Digest]]) -> None:
        """A version is in use again: it is the newest one from now on."""
        if self.read_only:
            return
        commit = Commit(reactor, root, (), (), parts)
        version = self._new_version(commit)
        if version is not None:
            self._committer.commit(commit, version, None)
            self._own_commits += 1

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
        self._usable()
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
            self._workspaces = Kind(self._session.layout, self.registry, self._opener.trusts_code)
        return self._workspaces

    def work_finished(self, reactor: str) -> None:
        """A reactor has committed: nothing of its work is unfinished any more."""
        if self._work_left or self._workspaces is not None:
            self.workspaces.finished(reactor)

    # -- claims

    def foreign_changes(self) -> int:
        """A number; while it is the same, nobody else has committed anything that look-ups could see."""
        return self._reader.foreign_changes() + self._committer.commits - self._own_commits

    def refresh(self) -> None:
        """Let the next look-up see what others have committed."""
        self._reader.catch_up()

    def new_claim(self, key: str) -> Claim:
        """A claim that is still to be taken: whoever keeps it before can always give it back."""
        self._writable()
        return self._claims.new(key)

    # -- looking after the store

    def check(self, fix: bool = False) -> list[Problem]:
        """Every invariant of the store; see `pyplantx.warehouse.collect.check`."""
        from pyplantx.warehouse import collect

        self.sync()
        with in_words(f"the store {self.directory!r} can't be checked", self.directory):
            return collect.check(self._session, self._reader, fix and not self.read_only)

    @property
    def keeper(self) -> Keeper:
        """Collects, measures and pins."""
        from pyplantx.warehouse.keeper import Keeper

        self._usable()
        return Keeper(self._session, self._reader, read_only=self.read_only)

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

    def _usable(self) -> None:
        """Raise unless it is open, here and in this process."""
        self._session.index.environments.usable()
        self._reader.check()

    def _writable(self) -> None:
        if self._session.index.environments.is_usable and not (self.read_only or self._closed):
            return
        self._usable()
        if self.read_only:
            raise opened_read_only(self.directory)


def _absolute(path: str) -> str:
    """The path, seen from the folder that is worked in now; a ``~`` in front is the home of the user."""
    told = os.path.expanduser(path)
    if told.startswith("~"):
        raise BadRequest(
            f"{path!r} begins with {told.partition(os.sep)[0]!r}, and this machine knows no home of such a user",
            hint=f"give the whole path, or './{path}' for a folder of that name",
        )
    try:
        return os.path.abspath(told)
    except FileNotFoundError:
        raise WarehouseError(
            f"{path!r} leads nowhere: the folder that is worked in was removed",
            hint="change to a folder that is there, or give the whole path",
        ) from None


def _settle(session: Session) -> None:
    """At the end of a session: note what its script reached, keep the store within its budget."""
    if session.reached:
        from pyplantx.warehouse import roots  # not for those who have nothing but tiny values

        roots.note_end(session)
    if session.added or session.disk is not None:
        from pyplantx.warehouse import keeper  # not for those who only looked

        keeper.keep_within_budget(session)


def _check_options(durability: str, trust: str, arrays: str, verify: str, key: object) -> None:
    """Refuse options that are no words of theirs, or exclude each other, before anything is made."""
    check_choice("durability", durability, _DURABILITIES)
    check_choice("trust", trust, _TRUSTS)
    check_choice("arrays", arrays, ("copy", "readonly"))
    check_choice("verify", verify, VERIFY)
    if trust == "signed" and verify == "off":
        raise BadRequest(
            "trust='signed' and verify='off' exclude each other: signatures have to be checked",
            hint="leave verify= out",
        )
    if trust != "signed" and key is not None:
        raise BadRequest(f"a key is of no use with trust={trust!r}", hint="Plant(..., trust='signed', key=path)")

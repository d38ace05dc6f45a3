"""What waits to be written, as commits bring it and as look-ups see it until the index has it.

This file may know: what a commit consists of, records. It may not know: the index, threads, when anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest, ObjectRef
from pyplantx.warehouse.records import IN_RECORD, MAX_PRODUCERS, HistoryEntry, NameRecord, ObjectRecord

_new = tuple.__new__  # see `core/trace.py`


class Commit(NamedTuple):
    """One reactor that has ended.

    Attributes
    ----------
    reactor : str
        Its id; any text.
    root : Digest
        Its fingerprint, the root of its trace tree.
    records : sequence of (Digest, str)
        Records of the trace tree, by node key.
    sent : sequence of (str, ObjectRef)
        The ingredients that it sent.
    parts : callable or None
        Gives the digests of the parts of its code; called only if the root is new for this reactor.
    entry : HistoryEntry or None
        What goes into the run history.
    """

    reactor: str
    root: Digest
    records: Any = ()
    sent: Any = ()
    parts: Callable[[], Mapping[str, Digest]] | None = None
    entry: HistoryEntry | None = None


class NewVersion(NamedTuple):
    """A root that is the reactor's newest from now on; `key` is the reactor's, see `name_key`."""

    key: bytes
    reactor: str
    root: Digest
    when: float
    parts: Mapping[str, Digest]


class Held(NamedTuple):
    """A sealed object that the index does not name yet; its payload as long as it is nowhere else."""

    record: ObjectRecord
    payload: bytes


class Item(NamedTuple):
    """One entry of the queue: all of it becomes durable in one transaction."""

    writes: list[tuple[str, Any, Any]]
    needs: tuple[Digest, ...]
    entry: HistoryEntry | None
    announce: Callable[[], None] | None


class Waiting:
    """What is queued, as look-ups see it: table -> key -> newest value."""

    def __init__(self) -> None:
        self.traces: dict[str, str] = {}
        self.code: dict[str, str] = {}
        self.blobs: dict[str, str] = {}
        self.names: dict[str, NameRecord] = {}
        self.versions: dict[tuple[str, Digest], NewVersion] = {}
        self._roots: dict[str, tuple[Digest, ...]] = {}  # reactor -> the roots above, newest first
        self.sealed: dict[Digest, Held] = {}  # to be changed by `keep` and `lose` only
        self.in_records = 0  # bytes of the payloads above that will live in their records
        self.unnamed: set[Digest] = set()  # of those above, what an activity has sent and no commit has named so far
        self.gone: set[Digest] = set()  # objects that count as missing, whatever the index still says
        self.tables: dict[str, dict[Any, Any]] = {
            "traces": self.traces,
            "code": self.code,
            "blobs": self.blobs,
            "names": self.names,
            "versions": self.versions,
            "objects": self.sealed,
        }

    def keep(self, address: Digest, held: Held) -> None:
        """Hold a sealed object, or another one in its place."""
        self.lose(address)
        self.sealed[address] = held
        if held.record.home == IN_RECORD:
            self.in_records += len(held.payload)

    def lose(self, address: Digest) -> None:
        """Hold it no longer."""
        held = self.sealed.pop(address, None)
        if held is not None and held.record.home == IN_RECORD:
            self.in_records -= len(held.payload)
        if self.unnamed:
            self.unnamed.discard(address)

    def add_sent(self, name: str, ref: ObjectRef, producer: tuple[str, Digest]) -> NameRecord:
        """Note that `producer` has sent `name`; what is to be written for it."""
        before = self.names.get(name)
        producers: tuple[tuple[str, Digest], ...] = (producer,)
        if before is not None:
            producers += tuple(item for item in before.producers if item != producer)
        update = self.names[name] = _new(NameRecord, (name, ref, producers[:MAX_PRODUCERS]))
        return update

    def drop(self, items: list[Item]) -> None:
        """Forget what has become durable, unless something newer waits under the same key."""
        for item in items:
            for table, key, value in item.writes:
                known = self.tables[table]
                if value is None:
                    self.gone.discard(key)
                elif table == "objects":
                    if self._is_same_seal(key, value):
                        self.lose(key)
                elif known.get(key) is value:
                    del known[key]
                    if table == "versions":
                        self._drop_root(*key)

    def _is_same_seal(self, address: Digest, written: Held) -> bool:
        """Whether what waits is what was written, with or without its payload and seconds; not what was made again."""
        held = self.sealed.get(address)
        return held is not None and held.record.when == written.record.when

    def add_version(self, new: NewVersion) -> None:
        """Note a version."""
        self.versions[new.reactor, new.root] = new
        known = self._roots.get(new.reactor, ())
        self._roots[new.reactor] = (new.root, *[root for root in known if root != new.root])

    def versions_of(self, reactor: str) -> list[NewVersion]:
        """The versions of a reactor that are queued, newest first."""
        return [self.versions[reactor, root] for root in self._roots.get(reactor, ())]

    def _drop_root(self, reactor: str, root: Digest) -> None:
        roots = tuple(other for other in self._roots[reactor] if other != root)
        if roots:
            self._roots[reactor] = roots
        else:
            del self._roots[reactor]

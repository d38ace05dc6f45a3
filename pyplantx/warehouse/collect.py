"""Looking after a store: its invariants in one place, what it holds, removing what may go.

This file may know: everything below the facade. The invariants (docs/design/warehouse.md) are one function each in
`_CHECKS`; a stress test ends by calling `check`. What may go is decided in ``retention.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pyplantx.basics.disk import UNKNOWN, all_bytes
from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest, Sent, decode_segment, older_segments
from pyplantx.errors import DamagedObject
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.warehouse import records, roots
from pyplantx.warehouse.environments import TABLES
from pyplantx.warehouse.files import RESUME
from pyplantx.warehouse.reader import Reader
from pyplantx.warehouse.records import IN_FILES, IN_RECORD, IN_SMALL, ObjectRecord
from pyplantx.warehouse.resume import sweep_workspaces
from pyplantx.warehouse.retention import Collected, DiskUse, Holding, Limits, Stored, Verdict, decide, rank_versions
from pyplantx.warehouse.roots import Notes

if TYPE_CHECKING:
    from pyplantx.warehouse.session import Session


class Problem(NamedTuple):
    """Something that `check` has found.

    Attributes
    ----------
    kind : str
        ``"record"``, ``"payload"``, ``"absent"`` or ``"garbage"``.
    where : str
        The record or path.
    what : str
        One sentence.
    harmless : bool
        Whether it is what a killed process or a collection may leave: space to be had back, or something that
        will be made again; nothing wrong is ever read because of it.
    fixed : bool
        Whether `check` has dealt with it.
    """

    kind: str
    where: str
    what: str
    harmless: bool
    fixed: bool = False


_T = TypeVar("_T")

Found = dict[Digest, tuple[ObjectRecord, bytes]]


class Finding(NamedTuple):
    """A problem that one look has found.

    Attributes
    ----------
    problem : Problem
    holds : callable
        Whether it is still so at a second look: others may have worked since.
    mend : callable
    """

    problem: Problem
    holds: Callable[[], bool]
    mend: Callable[[], None]


#: The kind of what no record names.
_GARBAGE = "garbage"

#: Share of the file system that a store may take if nobody says otherwise: one divided by this.
_OF_FILE_SYSTEM = 4


def check(session: Session, reader: Reader, fix: bool) -> list[Problem]:
    """Try every invariant of the store.

    Parameters
    ----------
    session : Session
        With nothing left in its queue.
    reader : Reader
    fix : bool
        Remove what is wrong, and garbage too if nobody else has the store open. What is removed is made again when
        it is needed. Only while garbage is removed nobody else can open the store.

    Returns
    -------
    list of Problem
        Empty if all is well.
    """
    reader.refresh()
    problems = _check_records(session, reader, fix)
    found = {key.decode("ascii", "replace"): found for key, found in reader.decoded("objects", records.decode_object)}
    findings = [finding for look in _CHECKS for finding in look(session, reader, found)]
    if fix:
        return problems + session.stillness.while_still(lambda: _mended(session, findings))
    return problems + _told(session, findings)


def _told(session: Session, findings: list[Finding]) -> list[Problem]:
    """What is still so; what another process may be about to name is no garbage.

    That is asked first: who has gone since has named what he wanted to, and the second look sees it.
    """
    shared = session.others_may_store()
    return [
        finding.problem for finding in findings if finding.holds() and not (shared and finding.problem.kind == _GARBAGE)
    ]


def _mended(session: Session, findings: list[Finding]) -> list[Problem]:
    """Mend what is still so, now that nobody of this process stores anything; garbage only if no other one is here."""
    problems = _mend([finding for finding in findings if finding.problem.kind != _GARBAGE])
    session.committer.sync()
    garbage = [finding for finding in findings if finding.problem.kind == _GARBAGE and finding.holds()]
    if garbage:
        problems += _while_alone(session, lambda alone: _mend(garbage) if alone else [])
    return problems


def _mend(findings: list[Finding]) -> list[Problem]:
    problems = []
    for problem, holds, mend in findings:
        if holds():
            mend()
            problems.append(problem._replace(fixed=True))
    return problems


def _while_alone(session: Session, work: Callable[[bool], _T]) -> _T:
    """Do something that wants to know whether no other process has the store open; none opens it meanwhile."""
    try:
        return work(session.is_alone())
    finally:
        try:
            session.share()
        except BaseException:  # Ctrl-C in there: while we have it to ourselves, others can't open the store
            session.share()
            raise


def _check_records(session: Session, reader: Reader, fix: bool) -> list[Problem]:
    """Each record matches its checksum and makes sense. Reading them all condemns those that don't."""
    for table in TABLES:
        for _ in reader.scan(table):
            pass
    condemned = session.index.damage.places()
    if fix and any(removable for *_, removable in condemned):
        _write(session, {})
    return [
        Problem(
            "record", f"{table}/{key.decode(errors='replace')}", _RECORD_TROUBLE[removable], False, fix and removable
        )
        for table, key, removable in condemned
    ]


#: Whether the next write removes it -> what is wrong with a record that counts as missing.
_RECORD_TROUBLE = {
    False: "does not match its checksum; it is left out when the store is opened next",
    True: "makes no sense",
}


def _check_payloads(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """A payload that the index names is there, and whole."""
    for address, (record, payload) in found.items():
        trouble = _trouble(session, reader, address, record, payload)
        if trouble is None:
            continue
        absent = trouble == "its payload is absent"
        problem = Problem("absent" if absent else "payload", address, trouble, absent)
        yield Finding(
            problem,
            partial(_is_in_trouble, session, reader, address),
            partial(_put_aside, session, address, record.home),
        )


def _is_in_trouble(session: Session, reader: Reader, address: Digest) -> bool:
    """Whether an object's payload is still not what it should be; files that nobody touched are not read again."""
    if address in session.committer.waiting.sealed:
        return False  # made again meanwhile
    known = _record_now(session, reader, address.encode())
    return known is not None and _trouble(session, reader, address, *known, afresh=False) is not None


def _trouble(
    session: Session, reader: Reader, address: Digest, record: ObjectRecord, payload: bytes, *, afresh: bool = True
) -> str | None:
    if record.home == IN_FILES:
        if not session.objects.is_there(address):
            return "its payload is absent"
        if afresh:
            session.objects.forget_checked(address)
        return None if session.objects.is_whole(address, record) else "its files do not match their checksums"
    if record.home == IN_SMALL:
        stored = reader.payload(address.encode())
        if stored is None:
            return "its payload is absent"
        payload = stored
    parts = records.split_payload(record, payload)
    if parts is None or any(hash_bytes(parts[part.name]) != part.digest for part in record.parts):
        return "its payload does not match its checksum"
    return None


def _put_aside(session: Session, address: Digest, home: str) -> None:
    session.committer.forget_object(address)
    if home == IN_FILES:
        session.objects.quarantine(address)
    elif home == IN_SMALL:
        _remove_payloads(session, [address.encode()])


def _check_files(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """What lies in ``objects/`` is named by the index."""
    for address in session.objects.addresses():
        if address in found and found[address][0].home == IN_FILES:
            continue
        yield Finding(
            Problem(_GARBAGE, session.layout.object_folder(address), "no record names it", True),
            partial(_is_garbage, session, reader, address.encode(), IN_FILES),
            partial(session.objects.remove, address),
        )


def _check_strays(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """What lies in ``objects/`` is an object at its address."""
    for path in session.objects.strays():
        yield Finding(
            Problem(_GARBAGE, path, "no object has its place there", True),
            partial(session.objects.is_stray, path),
            partial(session.objects.put_stray_aside, path),
        )


def _check_small(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """What lies in ``small.lmdb`` is named by the index."""
    for key in reader.payload_sizes():
        address = key.decode(errors="replace")
        if address in found and found[address][0].home == IN_SMALL:
            continue
        yield Finding(
            Problem(_GARBAGE, f"small.lmdb/{address}", "no record names it", True),
            partial(_is_garbage, session, reader, key, IN_SMALL),
            partial(_remove_payloads, session, [key]),
        )


def _is_garbage(session: Session, reader: Reader, key: bytes, home: str) -> bool:
    """Whether no record, of the index or of those that wait, says that this payload lives there."""
    known = _record_now(session, reader, key)
    return known is None or known[0].home != home


def _record_now(session: Session, reader: Reader, key: bytes) -> tuple[ObjectRecord, bytes] | None:
    """An object's record and what payload it holds, as of now: what has left the queue since is in the index."""
    address, waiting = key.decode(errors="replace"), session.committer.waiting
    held = waiting.sealed.get(address)
    if held is not None:
        return held
    if address in waiting.gone:
        return None
    reader.refresh()
    body = reader.get("objects", key)
    try:
        return None if body is None else records.decode_object(body)
    except DamagedObject:
        return None  # the scan has reported it


_CHECKS = (_check_payloads, _check_files, _check_strays, _check_small)


def _remove_payloads(session: Session, keys: list[bytes]) -> None:
    _write(session, dict.fromkeys(keys))


def _write(session: Session, payloads: dict[bytes, bytes | None]) -> None:
    if not session.index.write(lambda: (payloads, None), session.index.environments.lock_timeout):
        raise session.index.environments.busy()


# -- what there is --------------------------------------------------------------------------------------------------


class Survey(NamedTuple):
    """All payloads that the index names.

    Attributes
    ----------
    stored : list of Stored
    homes : dict of Digest to str
        Where each lives.
    """

    stored: list[Stored]
    homes: dict[Digest, str]


def survey(session: Session, reader: Reader, notes: Notes) -> Survey:
    """Look at every record. Nothing may be left in the queue."""
    reader.refresh()
    found = {
        key.decode("ascii", "replace"): found[0] for key, found in reader.decoded("objects", records.decode_object)
    }
    named = rank_versions(_versions(reader, found))
    used = _last_used(notes)
    stored = [
        Stored(
            address,
            *named.get(address, ((), 0)),
            record.size,
            record.seconds,
            max(record.when, used.get(address, 0.0)),
        )
        for address, record in found.items()
    ]
    return Survey(stored, {address: record.home for address, record in found.items()})


def _versions(reader: Reader, found: Mapping[Digest, ObjectRecord]) -> dict[str, list[Digest]]:
    """Name -> addresses of its stored versions, the last sent first, then the newest.

    A last version that lives in its reference, or was collected, takes its place too.
    """
    sent: dict[str, set[Digest]] = {}
    for name, address in _sent_in_traces(reader):
        if address in found:
            sent.setdefault(name, set()).add(address)
    versions: dict[str, list[Digest]] = {}
    for _, (name, ref, _) in reader.decoded("names", records.decode_name):
        older = sent.pop(name, set()) - {ref.address}
        versions[name] = [ref.address, *sorted(older, key=lambda address: -found[address].when)]
    for name, addresses in sent.items():  # the name's own record was lost
        versions[name] = sorted(addresses, key=lambda address: -found[address].when)
    return versions


def _sent_in_traces(reader: Reader) -> Iterator[tuple[str, Digest]]:
    """Name and address of all that any recorded run has sent."""
    for _, body in reader.scan("traces"):
        try:
            segment = decode_segment(records.decode_text(body))
            segments = [segment, *older_segments(segment)]
        except ValueError:
            continue  # another kind of record (accepted edits), or none that we can read: it names nothing
        for step in (step for one in segments for step in one.steps):
            if isinstance(step, Sent):
                yield step.name, step.ref.address


def _last_used(notes: Notes) -> dict[Digest, float]:
    """Address -> when a script that reached it last ran."""
    used: dict[Digest, float] = {}
    for run in sorted(roots.last_runs(notes), key=lambda run: run.when):
        used.update(dict.fromkeys(run.addresses, run.when))
    return used


# -- collecting ------------------------------------------------------------------------------------------------------


def collect(session: Session, reader: Reader, limits: Limits, *, dry_run: bool = False) -> Collected:
    """Remove what the limits want gone and no root holds: the index first, the bytes after.

    Nothing is removed while another process has the store open: it may be about to name what we see as unused. The
    report says so then.

    Parameters
    ----------
    session : Session
        With nothing left in its queue.
    reader : Reader
    limits : Limits
    dry_run : bool
        Remove nothing, only tell.
    """
    if dry_run:
        gone, kept, _ = _decided(session, reader, limits)
        return Collected(tuple(gone), tuple(kept), limits, dry_run=True)

    def remove(alone: bool) -> Collected:
        hindrance = _hindrance(session, alone)
        gone, kept, homes = _decided(session, reader, limits)
        garbage = 0
        if not hindrance:
            garbage = _remove_garbage(session, reader, everything=bool(gone))
            _remove(session, [verdict.stored.address for verdict in gone], homes)
        return Collected(tuple(gone), tuple(kept), limits, hindrance=hindrance, garbage=garbage)

    return session.stillness.while_still(lambda: _while_alone(session, remove))


def _decided(
    session: Session, reader: Reader, limits: Limits
) -> tuple[list[Verdict], list[Verdict], Mapping[Digest, str]]:
    """What goes and what stays; and where each payload lives."""
    notes = Notes(session, reader)
    found = survey(session, reader, notes)
    held = roots.find_roots(session, notes, limits.older_than)
    return *decide(found.stored, held, limits, time.time()), found.homes


def _remove(session: Session, addresses: list[Digest], homes: Mapping[Digest, str]) -> None:
    """The index forgets them first: a kill in the middle leaves garbage, and nothing that is named and not there."""
    for address in addresses:
        session.committer.forget_object(address)
    session.committer.sync()
    small = [address.encode() for address in addresses if homes[address] == IN_SMALL]
    if small:
        _remove_payloads(session, small)
    for address in addresses:
        if homes[address] == IN_FILES:
            session.objects.remove(address)


def _remove_garbage(session: Session, reader: Reader, *, everything: bool) -> int:
    """Remove what no record names, and if `everything`, unfinished work of killed reactors too.

    Returns
    -------
    int
        Bytes. 0 if another plant of this process is there: it may be about to name what we see as garbage.
    """
    if session.users > 1:
        return 0
    before = _unnamed_bytes(session, reader)
    if everything:
        sweep_workspaces(session.layout.staging, 0.0)
    found = {key.decode("ascii", "replace"): found for key, found in reader.decoded("objects", records.decode_object)}
    for finding in (*_check_files(session, reader, found), *_check_small(session, reader, found)):
        if finding.holds():
            finding.mend()
    return before - _unnamed_bytes(session, reader)


def _unnamed_bytes(session: Session, reader: Reader) -> int:
    """Bytes of the places where garbage lies."""
    layout = session.layout
    small = sum(reader.payload_sizes().values())
    return small + _folder_size(layout.objects) + _folder_size(os.path.join(layout.staging, RESUME))


def _hindrance(session: Session, alone: bool) -> str:
    """Who might be about to use what looks unused, in words; "" if nobody."""
    if session.stillness.active:
        return "another plant of this process is running reactors; try again when it has ended"
    if alone:
        return ""
    pids = sorted(session.other_processes())
    who = f"process {', '.join(map(str, pids))}" if pids else "another process"
    return f"{who} has the store open; try again when that has ended"


# -- who holds what --------------------------------------------------------------------------------------------------


def budget(session: Session) -> int:
    """Bytes of payloads at which a collection begins: what was set, or a quarter of the file system.

    `disk.UNKNOWN` where that doesn't tell its size: nothing is collected there by itself.
    """
    if session.disk is not None:
        return session.disk
    there = all_bytes(session.layout.root)
    return there if there == UNKNOWN else there // _OF_FILE_SYSTEM


def disk_use(session: Session, reader: Reader) -> DiskUse:
    """Who holds what: see `DiskUse`. Nothing may be left in the queue."""
    notes = Notes(session, reader)
    found = survey(session, reader, notes)
    homes = dict.fromkeys((IN_RECORD, IN_SMALL, IN_FILES), 0)
    for item in found.stored:
        homes[found.homes[item.address]] += item.bytes
    return DiskUse(_holdings(found.stored, roots.pins(notes)), homes, _places(session), budget(session), time.time())


def _holdings(stored: list[Stored], pinned: Mapping[str, list[Digest]]) -> tuple[Holding, ...]:
    """One for each ingredient that has a stored payload or a pin, the largest first."""
    held: dict[str, list[Stored]] = {name: [] for name in pinned}
    for item in stored:
        for name in item.names or ("",):
            held.setdefault(name, []).append(item)
    holdings = [
        Holding(
            name,
            len(items),
            sum(item.bytes for item in items),
            max((item.used for item in items), default=0.0),
            name in pinned,
        )
        for name, items in held.items()
    ]
    return tuple(sorted(holdings, key=lambda holding: (-holding.bytes, holding.name)))


def _places(session: Session) -> dict[str, int]:
    layout = session.layout
    resumable = _folder_size(os.path.join(layout.staging, RESUME))
    return {
        "index": _folder_size(layout.meta),
        "small payloads": _folder_size(layout.small),
        "files": _folder_size(layout.objects),
        "being written": _folder_size(layout.staging) - resumable,
        "unfinished work": resumable,
        "damaged, put aside": _folder_size(layout.quarantine),
        "backup of the index": _folder_size(layout.backup),
    }


def _folder_size(folder: str) -> int:
    """Bytes of all files below; those that go meanwhile don't count."""
    return sum(_size(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0

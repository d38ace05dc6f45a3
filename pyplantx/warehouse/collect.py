"""Looking after a store: its invariants in one place, what it holds, what may go.

This file may know: everything below the facade. The invariants (docs/design/warehouse.md) are one function each in
`_CHECKS`; a stress test ends by calling `check`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pyplantx.core.trace import Digest
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.warehouse import records
from pyplantx.warehouse.index import TABLES, Reader
from pyplantx.warehouse.records import IN_FILES, IN_SMALL, ObjectRecord

if TYPE_CHECKING:
    from pyplantx.warehouse.session import Session


class Problem(NamedTuple):
    """Something that `check` has found.

    Attributes
    ----------
    kind : str
        ``"record"``, ``"payload"``, ``"absent"``, ``"garbage"`` or ``"name"``.
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


class Usage(NamedTuple):
    """Bytes that the parts of a store take."""

    meta: int
    small: int
    objects: int
    staging: int
    quarantine: int
    backup: int

    @property
    def total(self) -> int:
        return sum(self)


Found = dict[Digest, tuple[ObjectRecord, bytes]]
Finding = tuple[Problem, Callable[[], None]]


def check(session: Session, reader: Reader, fix: bool) -> list[Problem]:
    """Try every invariant of the store.

    Parameters
    ----------
    session : Session
        With nothing left in its queue.
    reader : Reader
    fix : bool
        Remove what is wrong, and garbage too if nobody else has the store open. What is removed is made again when
        it is needed.

    Returns
    -------
    list of Problem
        Empty if all is well.
    """
    reader.refresh()
    alone = False
    try:
        alone = session.is_alone()
        problems = _check_records(session, reader, fix and not session.read_only)
        found = {key.decode(): records.decode_object(body) for key, body in reader.scan("objects")}
        for look in _CHECKS:
            for problem, mend in look(session, reader, found):
                mended = fix and (alone or problem.kind != "garbage") and not session.read_only
                if mended:
                    mend()
                problems.append(problem._replace(fixed=mended))
        if fix:
            session.committer.sync()
        return problems
    finally:
        session.share()


def _check_records(session: Session, reader: Reader, fix: bool) -> list[Problem]:
    """Each record matches its checksum. Reading them all condemns the bad ones; a write removes them."""
    for table in TABLES:
        for _ in reader.scan(table):
            pass
    condemned = session.index.condemned()
    if condemned and fix:
        _write(session, {})
    return [
        Problem("record", f"{table}/{key.decode(errors='replace')}", "does not match its checksum", False, fix)
        for table, key in condemned
    ]


def _check_payloads(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """A payload that the index names is there, and whole."""
    for address, (record, payload) in found.items():
        trouble = _trouble(session, reader, address, record, payload)
        if trouble is None:
            continue
        absent = trouble == "its payload is absent"
        problem = Problem("absent" if absent else "payload", address, trouble, absent)
        yield problem, lambda address=address, home=record.home: _put_aside(session, address, home)  # type: ignore[misc]


def _trouble(session: Session, reader: Reader, address: Digest, record: ObjectRecord, payload: bytes) -> str | None:
    if record.home == IN_FILES:
        if not session.objects.is_there(address):
            return "its payload is absent"
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


def _check_names(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """What a name's last version refers to is in the index (or was collected: it is made again when needed)."""
    held = session.committer.waiting.sealed
    for _, body in reader.scan("names"):
        name, ref, _ = records.decode_name(body)
        if ref.inline is None and ref.address not in found and ref.address not in held:
            yield Problem("name", repr(name), f"its object {ref.address} is not stored", True), _nothing


def _check_files(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """What lies in ``objects/`` is named by the index."""
    held = session.committer.waiting.sealed
    for address in session.objects.addresses():
        if address in held or (address in found and found[address][0].home == IN_FILES):
            continue
        problem = Problem("garbage", session.layout.object_folder(address), "no record names it", True)
        yield problem, lambda address=address: session.objects.remove(address)  # type: ignore[misc]


def _check_small(session: Session, reader: Reader, found: Found) -> Iterator[Finding]:
    """What lies in ``small.lmdb`` is named by the index."""
    held = session.committer.waiting.sealed
    for key in reader.payload_sizes():
        address = key.decode(errors="replace")
        if address in held or (address in found and found[address][0].home == IN_SMALL):
            continue
        problem = Problem("garbage", f"small.lmdb/{address}", "no record names it", True)
        yield problem, lambda key=key: _remove_payloads(session, [key])  # type: ignore[misc]


_CHECKS = (_check_payloads, _check_names, _check_files, _check_small)


def _nothing() -> None:
    """Nothing to mend: the next run of the producer does."""


def _remove_payloads(session: Session, keys: list[bytes]) -> None:
    _write(session, dict.fromkeys(keys))


def _write(session: Session, payloads: dict[bytes, bytes | None]) -> None:
    if not session.index.write(lambda: (payloads, None), session.index.lock_timeout):
        raise session.index.busy()


# -- collecting ------------------------------------------------------------------------------------------------------


def collect(session: Session, reader: Reader, max_size: int | None) -> int:
    """Remove payloads that are not the last version of any name, oldest first: the index first, the bytes after.

    Nothing is removed while another process has the store open, since it may be about to name what we see as unused.

    Parameters
    ----------
    session : Session
    reader : Reader
    max_size : int or None
        Stop when the payloads take no more than these bytes; None: remove all that is unused.

    Returns
    -------
    int
        Bytes that were removed.
    """
    try:
        return _collect(session, reader, max_size) if session.is_alone() else 0
    finally:
        session.share()


def _collect(session: Session, reader: Reader, max_size: int | None) -> int:
    reader.refresh()
    found = {key.decode(): records.decode_object(body)[0] for key, body in reader.scan("objects")}
    used = {records.decode_name(body).ref.address for _, body in reader.scan("names")}
    used |= set(session.committer.waiting.sealed)
    unused = sorted(set(found) - used, key=lambda address: found[address].when)
    total = sum(record.size for record in found.values())
    removed: list[Digest] = []
    for address in unused:
        if max_size is not None and total <= max_size:
            break
        removed.append(address)
        total -= found[address].size
    for address in removed:
        session.committer.forget_object(address)
    session.committer.sync()
    small = [address.encode() for address in removed if found[address].home == IN_SMALL]
    if small:
        _remove_payloads(session, small)
    for address in removed:
        if found[address].home == IN_FILES:
            session.objects.remove(address)
    return sum(found[address].size for address in removed)


def usage(session: Session) -> Usage:
    """Bytes of the parts of the store, as files."""
    layout = session.layout
    folders = (layout.meta, layout.small, layout.objects, layout.staging, layout.quarantine, layout.backup)
    return Usage(*map(_folder_size, folders))


def _folder_size(folder: str) -> int:
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)

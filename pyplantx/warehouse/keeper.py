"""Looking after the room that a store takes: what a plant asks for (`Keeper`), what happens at the end of a session.

This file may know: limits, sizes, pins, when a session ends. It may not know: what goes first (``retention.py``), how
it is removed (``collect.py``).

A store of a hundred thousand payloads is not measured at every end. What it held at the last one is noted in the index,
and what each session adds is counted; only near the budget are the records looked through.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pyplantx.basics.disk import taken_bytes
from pyplantx.basics.logs import log
from pyplantx.basics.units import Size, parse_bytes, parse_seconds, show_bytes
from pyplantx.errors import BadRequest, PayloadMissing
from pyplantx.warehouse import records, roots
from pyplantx.warehouse.collect import budget, collect, disk_use
from pyplantx.warehouse.files import in_words, opened_read_only
from pyplantx.warehouse.retention import Collected, DiskUse, Limits
from pyplantx.warehouse.roots import Notes
from pyplantx.warehouse.session import report

if TYPE_CHECKING:
    from datetime import timedelta

    from pyplantx.core.trace import Digest
    from pyplantx.warehouse.reader import Reader
    from pyplantx.warehouse.session import Session

#: Share of the budget from which on the log warns.
_WARN_FROM = 0.8

_SIZE = "stored"  # kind of the blob that keeps about how many bytes of payloads there are


class Keeper:
    """What one warehouse is asked about room on disk.

    Parameters
    ----------
    session : Session
        Others of this process may have it too, and write.
    reader : Reader
    read_only : bool
        Whether the warehouse was opened for reading only.
    """

    def __init__(self, session: Session, reader: Reader, *, read_only: bool) -> None:
        self._session, self._reader, self._read_only = session, reader, read_only
        self._notes = Notes(session, reader)

    def gc(
        self,
        max_size: Size | None,
        keep_versions: int | None,
        older_than: int | float | str | timedelta | None,
        dry_run: bool,
    ) -> Collected:
        """Remove payloads; see `pyplantx.Plant.gc`."""
        limits = make_limits(max_size, keep_versions, older_than)
        if limits == Limits():
            limits = Limits(budget(self._session))
        if not dry_run:
            self._check_writable()
        with self._in_words("collected"):
            if not self._read_only:
                self._session.committer.sync()
            return collect(self._session, self._reader, limits, dry_run=dry_run)

    def du(self) -> DiskUse:
        """Who holds what; see `pyplantx.Plant.du`."""
        with self._in_words("measured"):
            if not self._read_only:
                self._session.committer.sync()
            return disk_use(self._session, self._reader)

    def pin(self, name: str, address: Digest, *, stored: bool) -> None:
        """Keep one version of an ingredient; `stored` tells whether its payload is there."""
        if not stored:
            raise PayloadMissing(
                f"this version of {name!r} was collected, so it can't be pinned",
                hint=f"plant.produce({name!r}) makes it again",
            )
        self._check_writable()
        roots.pin(self._notes, name, address)
        self._session.committer.sync()

    def unpin(self, name: str) -> bool:
        """Let go of all pinned versions of an ingredient; False if there were none."""
        self._check_writable()
        had = roots.unpin(self._notes, name)
        self._session.committer.sync()
        return had

    def note_reached(self) -> None:
        """Note what the session has reached up to now, while it goes on."""
        roots.note_reached(self._session, self._notes, over=False)

    def _check_writable(self) -> None:
        if self._read_only:  # before anything waits to be written
            raise opened_read_only(self._session.layout.root)

    def _in_words(self, done: str) -> AbstractContextManager[None]:
        root = self._session.layout.root
        return in_words(f"the store {root!r} can't be {done}", root)


def make_limits(
    max_size: Size | None, keep_versions: int | None, older_than: int | float | str | timedelta | None
) -> Limits:
    """The limits as people give them.

    Raises
    ------
    BadRequest
        If one of them is no size, number or span of time.
    """
    if keep_versions is not None and (type(keep_versions) is not int or keep_versions < 0):
        raise BadRequest(f"keep_versions can't be {keep_versions!r}", hint="how many versions of each ingredient stay")
    return Limits(parse_bytes(max_size, "max_size"), keep_versions, parse_seconds(older_than, "older_than"))


def keep_within_budget(session: Session) -> None:
    """At the end of a session: collect if the store is over its budget, warn if it will be soon.

    Parameters
    ----------
    session : Session
        That nobody uses any more, still open.
    """
    reader = session.index.new_reader()
    try:
        _keep_within(session, reader, Notes(session, reader), budget(session))
    finally:
        session.index.drop_reader(reader)


def _keep_within(session: Session, reader: Reader, notes: Notes, limit: int) -> None:
    """Look closely only if what was noted at former ends, and what was added since, may be near the budget."""
    noted = notes.get(_SIZE, "")
    size = (int(noted) if noted.isdecimal() else 0) + session.added
    # All files of the file system take more than the store.
    if (size if noted else taken_bytes(session.layout.root)) >= _WARN_FROM * limit:
        session.committer.sync()
        size = _measure(reader)
        if size > limit:
            size = _shrink(session, reader, limit)
        elif size >= _WARN_FROM * limit:
            _warn(session, size, limit)
    elif not noted:
        return  # on a file system with so little on it there is nothing to count yet
    if str(size) != noted:
        notes.put(_SIZE, "", str(size))


def _measure(reader: Reader) -> int:
    reader.refresh()
    return sum(records.decode_object(body)[0].size for _, body in reader.scan("objects"))


def _shrink(session: Session, reader: Reader, limit: int) -> int:
    """Collect down to the budget; the size afterwards."""
    done = collect(session, reader, Limits(limit))
    if done.hindrance:
        report(f"the store {session.layout.root!r} is over its budget and is not collected: {done.hindrance}")
        return done.left + done.freed
    log().info("collected %r at the end of the session: %s", session.layout.root, done)
    if done.left > limit:
        _warn(session, done.left, limit)
    return done.left


def _warn(session: Session, size: int, limit: int) -> None:
    report(
        f"the store {session.layout.root!r} holds {show_bytes(size)}, its budget is {show_bytes(limit)}; beyond that "
        "what is cheapest to make again is collected, except what is pinned or was reached by a script's last run "
        "(plant.du() tells who holds what, Plant(dir, disk='50GB') sets another budget)"
    )

"""What must not be collected: pins, what this session was answered with, what each script's last run reached.

This file may know: small texts in the index, addresses, the name of the running script. It may not know: payloads, what
is removed and when.

What a script reached is noted when the store is closed, and every half minute of a long session (then together with
what its last run had reached, since this one is not over). A warm run that reached the same as the last one writes
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyplantx.core.trace import Digest
from pyplantx.errors import DamagedObject
from pyplantx.warehouse.records import decode_blob, from_json, to_json
from pyplantx.warehouse.tables import blob_key, name_key

if TYPE_CHECKING:
    from pyplantx.warehouse.reader import Reader
    from pyplantx.warehouse.session import Session

_PINS, _REACHED = "pin", "reached"

#: How many scripts are remembered: those that ran last.
MOST_SCRIPTS = 64

#: Seconds after which a run that reached the same as the last one is noted all the same, as the time of the last use.
_SAME_FOR = 86_400.0

_DIGITS = 32  # of an address


class LastRun:
    """What one script's last run reached. (A `NamedTuple` would take as long to make as the rest of this module.)

    Attributes
    ----------
    script : str
        Its path; of an interactive session "interactive" and the folder.
    when : float
        Seconds since 1970.
    addresses : frozenset of Digest
    """

    __slots__ = ("addresses", "script", "when")

    def __init__(self, script: str, when: float, addresses: frozenset[Digest]) -> None:
        self.script, self.when, self.addresses = script, when, addresses

    @property
    def why(self) -> str:
        return f"last run of {os.path.basename(self.script) or self.script}"


class Notes:
    """Small texts of some kinds, kept as blobs in the index.

    Parameters
    ----------
    session : Session
    reader : Reader
    """

    def __init__(self, session: Session, reader: Reader) -> None:
        self._committer = session.committer
        self._reader = reader

    def get(self, kind: str, key: str) -> str:
        """The text, or "" if there is none."""
        both = blob_key(kind, key)
        waiting = self._committer.waiting.blobs.get(both)
        if waiting is not None:
            return waiting
        body = self._reader.get("blobs", name_key(both))
        try:
            return "" if body is None else decode_blob(body)[1]
        except DamagedObject:
            return ""  # it makes no sense: whoever writes it next replaces it

    def put(self, kind: str, key: str, text: str) -> None:
        """Keep a text; "" for none."""
        self._committer.put("blobs", blob_key(kind, key), text)

    def all(self, kind: str) -> dict[str, str]:
        """All texts of a kind by key."""
        prefix = blob_key(kind, "")
        found = {}
        for key, (both, text) in self._reader.decoded("blobs", decode_blob):
            if key.startswith(prefix.encode()):
                found[both] = text
        found.update(self._committer.waiting.blobs)
        return {both[len(prefix) :]: text for both, text in found.items() if both.startswith(prefix) and text}


# -- pins -----------------------------------------------------------------------------------------------------------


def pin(notes: Notes, name: str, address: Digest) -> None:
    """Keep this version of an ingredient whatever happens."""
    addresses = pinned_versions(notes, name)
    if address not in addresses:
        notes.put(_PINS, name, to_json([*addresses, address]))


def unpin(notes: Notes, name: str) -> bool:
    """Let go of all pinned versions of an ingredient; False if there were none."""
    had = bool(notes.get(_PINS, name))
    if had:
        notes.put(_PINS, name, "")
    return had


def pinned_versions(notes: Notes, name: str) -> list[Digest]:
    """Addresses of the pinned versions of an ingredient."""
    return _addresses(notes.get(_PINS, name))


def pins(notes: Notes) -> dict[str, list[Digest]]:
    """Name -> addresses of its pinned versions."""
    return {name: _addresses(text) for name, text in notes.all(_PINS).items()}


def _addresses(text: str) -> list[Digest]:
    try:
        found = from_json(text) if text else []
    except ValueError:
        return []  # what makes no sense pins nothing
    return [address for address in found if isinstance(address, str)] if isinstance(found, list) else []


# -- what scripts reached -------------------------------------------------------------------------------------------


def note_reached(session: Session, notes: Notes, *, over: bool) -> None:
    """Note what this session was answered with as what its script reached.

    Parameters
    ----------
    session : Session
    notes : Notes
    over : bool
        Whether that is all; else what the script's last run had reached stays noted too.
    """
    if not session.reached or session.read_only:
        return
    script = session.script
    before = _decode(script, notes.get(_REACHED, script))
    reached = frozenset(session.reached) if over else before.addresses | session.reached
    now = time.time()
    if before.addresses == reached and now - before.when < _SAME_FOR:
        return
    notes.put(_REACHED, script, to_json([now, "".join(sorted(reached))]))
    if not before.when:
        _forget_oldest(notes)


def note_end(session: Session) -> None:
    """`note_reached` at the end of a session that nobody uses any more."""
    reader = session.index.new_reader()
    try:
        note_reached(session, Notes(session, reader), over=True)
    finally:
        session.index.drop_reader(reader)


def last_runs(notes: Notes) -> Iterator[LastRun]:
    """What each script's last run reached."""
    for script, text in notes.all(_REACHED).items():
        yield _decode(script, text)


def _forget_oldest(notes: Notes) -> None:
    known = sorted(last_runs(notes), key=lambda run: run.when)
    for run in known[: max(0, len(known) - MOST_SCRIPTS)]:
        notes.put(_REACHED, run.script, "")


def _decode(script: str, text: str) -> LastRun:
    if not text:
        return LastRun(script, 0.0, frozenset())
    try:
        when, joined = from_json(text)
        when, joined = float(when), str(joined)
    except (ValueError, TypeError):
        return LastRun(script, 0.0, frozenset())  # what makes no sense holds nothing
    return LastRun(script, when, frozenset(joined[at : at + _DIGITS] for at in range(0, len(joined), _DIGITS)))


# -- all of them ----------------------------------------------------------------------------------------------------


def find_roots(session: Session, notes: Notes, older_than: float | None = None) -> dict[Digest, str]:
    """Address -> why it must stay; of several reasons the strongest.

    Parameters
    ----------
    session : Session
    notes : Notes
    older_than : float, optional
        Scripts that last ran longer ago, in seconds, hold nothing.
    """
    roots: dict[Digest, str] = {}
    since = 0.0 if older_than is None else time.time() - older_than
    for run in sorted(last_runs(notes), key=lambda run: run.when):
        if run.when >= since:
            roots.update(dict.fromkeys(run.addresses, run.why))
    roots.update(dict.fromkeys(session.reached, "this session"))
    for addresses in pins(notes).values():
        roots.update(dict.fromkeys(addresses, "pinned"))
    return roots

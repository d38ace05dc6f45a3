"""The ledger of a piece of work that can go on after a kill: what a run notes in it, and what a later one believes.

A `Workspace` is found by a key that is the digest of all that the run has observed and sent so far, so what it holds
was made by a run that had the same answers. What was observed *after* that stands in its ledger, is asked again, and
ends the ledger where an answer differs.

This file may know: workspaces, ledgers, observations. It may not know: arrays, loops, how a run is stepped.

The lines of a ledger, as JSON objects:

- ``{"format": 2, "reactor": id}``: the first one;
- ``{"block": n, "wrote": [digest per output], "read": [digest per source], "saw": [[kind, key, answer, shown], ...]}``:
  a block is finished; of the sources only those of which nothing else tells (`pyplantx.blocks.sources`);
- ``{"block": n, "value": {...}, "read": [digest], "saw": [...]}``: a reduction has come so far, over all it has read;
- ``{"value": {...}, "saw": [...]}``: a checkpoint;
- ``{"sealed": place, "address": ..., "part": ..., "saw": []}``: an output was sent, and its file moved there;
- ``{"asked": key, "rows": [[array, shape, low, high, digest], ...], "saw": [...]}`` and
  ``{"key": key, "value": {...}, "rows": [...], "saw": [...]}``: a checkpoint of a run that appends to datasets was
  first asked for, or kept, and what was appended since the line before (`pyplantx.blocks.journal`);
- ``{"next": key, "saw": []}``: all blocks were finished, and another pass over the same array was begun, in the
  workspace with that key (`pyplantx.blocks.passes`);
- ``{"back": count, "saw": []}``: of those lines the first so many count, and what follows.

Each but the first has ``"during"``, too: ``[from, to]``, seconds since 1970: when the run that wrote the line began
this piece of work, and when it had come so far. Pieces of work overlap (a checkpoint and the loops before it, a loop in
a loop), so how long all of them took follows from the times only, not from how long each took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.logs import log
from pyplantx.core.trace import Digest, Group, Observation, Question, Step, branch_key
from pyplantx.errors import DamagedObject, PyplantxError
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.files import is_address

if TYPE_CHECKING:
    from pyplantx.warehouse.resume import Workspace, Workspaces

_FORMAT = 2
_LONGEST = 1e10  #: seconds since 1970 at which any work can have been done


class Host(Protocol):
    """What is needed of a run."""

    @property
    def reactor(self) -> Any: ...
    def so_far(self) -> tuple[Digest, Sequence[Step]] | None: ...
    def recent(self) -> Sequence[Step]: ...
    def note(self, observation: Observation) -> None: ...
    def answer(self, question: Question) -> Observation: ...
    def has_right_inputs(self) -> bool: ...


def place_of(host: Host, what: str) -> Digest | None:
    """The key of the present point of a run; None if it can't be told, or is not to be relied on.

    Parameters
    ----------
    host : Host
        The run.
    what : str
        Tells several pieces of work at one point apart.
    """
    known = host.so_far()
    if known is None:
        return None
    root, steps = known
    return hash_text(f"{branch_key(root, steps, hash_text)}\n{what}")


class Logbook:
    """The ledger of one workspace, as a run writes it and as a later one reads it.

    Parameters
    ----------
    host : Host
        The run.
    spaces : Workspaces
        Where the workspace is from.
    workspace : Workspace
        With what an earlier run left.

    Attributes
    ----------
    entries : list of dict
        Lines whose observations hold today (noted again in the run), without the first.
    going : bool
        Whether what comes now may be noted.
    spared : dict of float
        When earlier runs worked on what is taken over from them: from -> to.
    """

    def __init__(self, host: Host, spaces: Workspaces, workspace: Workspace) -> None:
        self._host, self._spaces, self.workspace = host, spaces, workspace
        self.entries: list[dict[str, Any]] = []
        self.going, self._broken = True, False
        self.spared: dict[float, float] = {}
        self._begun = round(time.time(), 6)
        self._values: list[dict[str, Any]] = []  # those that are there, the last two and what waits to be removed
        self._held: list[dict[str, Any]] = []  # lines that wait until what they were made from is known to be right
        self._mark = len(host.recent())
        if self._is_ours():
            self._take_up()
        else:
            self.begin()

    @property
    def who(self) -> str:
        """Whose it is, for messages."""
        return f"reactor {self._host.reactor.name}"

    def begin(self) -> None:
        """Nothing of an earlier run is of use."""
        self.entries.clear()
        self._values.clear()
        self.spared.clear()
        self.workspace.clear()
        self.workspace.ledger.append({"format": _FORMAT, "reactor": self._host.reactor.id})

    def _is_ours(self) -> bool:
        written = self.workspace.ledger.entries
        return bool(written) and written[0].get("format") == _FORMAT

    def _take_up(self) -> None:
        written = self.workspace.ledger.entries[1:]
        undone = _undone(written)
        for position, entry in enumerate(written):
            if position in undone:  # it is only counted, and what was observed there is no answer of ours
                self.entries.append(entry)
                continue
            saw = [Observation(*observation) for observation in entry["saw"]] if _makes_sense(entry) else None
            if saw is None or any(self._host.answer(seen.question).answer != seen.answer for seen in saw):
                self.workspace.ledger.cut(1 + position)
                break
            for observation in saw:
                self._host.note(observation)
            self.entries.append(entry)
            if "during" in entry:
                begun, until = entry["during"]
                self.spared[begun] = until
        self.workspace.ledger.take_entries()
        self._values = [entry["value"] for entry in self.entries if "value" in entry][-2:]
        self._mark = len(self._host.recent())

    def saw(self) -> list[list[str]]:
        """What the run has observed since it was asked last."""
        steps = self._host.recent()[self._mark :]
        self._mark += len(steps)
        return [list(observation) for step in steps if isinstance(step, Group) for observation in step.observations]

    def add(self, entry: dict[str, Any]) -> None:
        """Add a line. If the disk does not take it, no more are added: the run does not depend on it."""
        if not self._broken:
            self._held.append({**entry, "during": [self._begun, max(self._begun, round(time.time(), 6))]})
            self._write_held()

    def _write_held(self) -> None:
        """What was received may be checked beside the computation: nothing is noted that damage could have got into."""
        if not self._held or not self._host.has_right_inputs():
            return
        held, self._held = self._held, []
        try:
            for entry in held:
                self.workspace.ledger.append(entry)
        except OSError as error:
            self.give_up(error)

    def add_value(self, entry: dict[str, Any]) -> None:
        """Add a line about a value; of the values before, the last one stays."""
        self.add(entry)
        if self._broken:
            return
        self._values.append(entry["value"])
        if self._held:  # the lines before tell of values that may be wanted yet
            return
        before, self._values = self._values[:-2], self._values[-2:]
        staying = {value["folder"] for value in self._values}  # one that was damaged is kept again under its name
        for value in before:
            if value["folder"] not in staying:
                self.workspace.remove_value(value)

    @property
    def is_waiting(self) -> bool:
        """Whether there are lines that are not on the disk yet: the ones before may count then."""
        return bool(self._held)

    @property
    def is_broken(self) -> bool:
        """Whether nothing is noted any more, of what was finished before neither."""
        return self._broken

    def give_up(self, error: BaseException) -> None:
        """Nothing more can be noted. The run does not depend on it."""
        self.going, self._broken = False, True
        reason = getattr(error, "strerror", None) or error
        log().warning("%s goes on, but could not be resumed from here: %s", self.who, reason)

    def has_state(self) -> None:
        """A function has changed what it can reach: blocks that it had finished would not do so again."""
        log().info("%s: a function of blocks has a state, so after a kill it begins anew", self.who)
        self.void()

    def has_no_words(self) -> None:
        """Something that was read can't be told from anything else that might be there next time."""
        log().info("%s: a source has elements that have no digest, so after a kill it begins anew", self.who)
        self.void()

    def keeps_more(self) -> None:
        """A value is kept, or asked for, by who is given the blocks: those that are left out would not do that."""
        if self.going:
            log().warning("%s: a loop that calls pipe.checkpoint can't be resumed after a kill", self.who)
            self.void()

    def void(self) -> None:
        """What was noted is of no use to anybody."""
        self.going, self._broken = False, True
        self._held.clear()
        self.workspace.clear()

    def distrust(self) -> None:
        """What was noted here is of no use, and what other journals of the reactor tell neither."""
        self.void()
        self._spaces.distrust(self._host.reactor.id)

    @property
    def lines(self) -> int:
        """How many lines there are, with those that wait."""
        return self.workspace.ledger.count + len(self._held)

    @property
    def is_empty(self) -> bool:
        """Whether a later run would find nothing in it."""
        return self.workspace.ledger.count < 2

    def close(self, *, remove: bool, deceived: bool = False) -> None:
        """Let go of it; it stays for a later run unless it is empty, or of no use."""
        if not (remove or deceived or self._broken):
            self._write_held()
        self.going = False
        self._spaces.drop(self.workspace, remove=remove or self.is_empty)

    def let_go(self) -> bool:
        """Have others take it who come by; not while lines wait."""
        if not self._broken:
            self._write_held()
        if self._held:
            return False
        self.close(remove=False)
        return True

    def open_value(self, kept: dict[str, Any]) -> Any:
        """See `Workspaces.open_value`."""
        return self._spaces.open_value(self.workspace, kept)

    def own_value(self, kept: dict[str, Any]) -> Any:
        """A value that this very run has kept: trusted as the run is."""
        return self.workspace.read_value(kept, self._spaces.registry.get(kept["spec"], kept["version"]))

    def copy_sealed(self, place: int, target: str) -> None:
        """The file of an output that was sent before the kill; see `Workspaces.copy_object`."""
        for entry in self.entries:
            if entry.get("sealed") == place:
                return self._spaces.copy_object(entry["address"], entry["part"], target)
        raise DamagedObject("the file of an output of an interrupted run is gone")

    def later(self) -> Iterator[dict[int, Digest]]:
        """What the passes that followed this one have left: block -> digest."""
        entries, known = self.entries, {self.workspace.key}
        while (key := _next_of(entries)) is not None and key not in known:
            known.add(key)
            entries = self._spaces.peek(self._host.reactor.id, key)[1:]
            entries = list(takewhile(_makes_sense, entries))
            yield {entry["block"]: entry["wrote"][0] for entry in entries if len(entry.get("wrote", ())) == 1}

    def keep_value(self, value: Any, number: int) -> dict[str, Any]:
        """See `Workspace.write_value`."""
        return self.workspace.write_value(f"value-{number}", value, self._spaces.registry)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in any of these spans (from, to), each counted once."""
    total, reached = 0.0, -math.inf
    for begun, until in sorted(spans):
        total += max(0.0, until - max(begun, reached))
        reached = max(reached, until)
    return total


# -- values --------------------------------------------------------------------------------------------


def latest_value(logbook: Logbook, count: int | None = None) -> tuple[dict[str, Any], Any] | None:
    """The last line of a ledger whose value is whole, and the value; of a reduction of `count` blocks, one of these."""
    for entry in reversed(logbook.entries):
        if "value" not in entry or (count is not None and entry.get("block", count) >= count):
            continue
        try:
            return entry, logbook.open_value(entry["value"])
        except (OSError, PyplantxError) as error:
            log().warning("%s: a value that was kept can't be used: %s", logbook.who, error)
    return None


def save_value(logbook: Logbook, value: Any) -> dict[str, Any]:
    """Keep a value with all that the run has observed up to now; what finds it again (`Logbook.own_value`)."""
    kept = logbook.keep_value(value, logbook.lines)
    logbook.add_value({"value": kept, "saw": logbook.saw()})
    return kept


# -- lines ----------------------------------------------------------------------------------------


def _next_of(entries: Sequence[dict[str, Any]]) -> Digest | None:
    return next((entry["next"] for entry in reversed(entries) if "next" in entry), None)


def _undone(entries: Sequence[dict[str, Any]]) -> frozenset[int]:
    """Places of the lines that later ones take back."""
    standing: list[int] = []
    undone: set[int] = set()
    for place, entry in enumerate(entries):
        if not _makes_sense(entry):
            break
        if "back" in entry:
            undone.update(standing[entry["back"] :])
            del standing[entry["back"] :]
        else:
            standing.append(place)
    return frozenset(undone)


def _makes_sense(entry: dict[str, Any]) -> bool:
    """Whether a line is one of ours: whoever may write to the store can write one that matches its checksum."""
    return frozenset(entry) - _TIMES in _LINES and all(_FIELDS[name](value) for name, value in entry.items())


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < _LONGEST


def _is_span(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_is_time, value)) and value[0] <= value[1]


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_key(value: Any) -> bool:
    return _is_text(value) and is_address(value)  # it names a folder


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(map(_is_text, value))


def _are_observations(value: Any) -> bool:
    return type(value) is list and all(_are_texts(row) and len(row) == len(Observation._fields) for row in value)


def _is_folder(value: Any) -> bool:
    """Whether it can be the folder of a kept value: it is removed when a later one takes its place."""
    return _is_text(value) and value.startswith("value-") and value[6:].isascii() and value[6:].isdecimal()


def _are_rows(value: Any) -> bool:
    return type(value) is list and all(type(row) is list and len(row) == 5 and _is_row(*row) for row in value)


def _is_row(array: Any, shape: Any, low: Any, high: Any, digest: Any) -> bool:
    numbers = type(shape) is list and all(map(_is_number, [array, *shape, low, high]))
    return numbers and low <= high and _is_text(digest)


def _is_kept(value: Any) -> bool:
    """Whether it is what `Workspace.write_value` returns."""
    if type(value) is not dict or set(value) != {"folder", "spec", "version", "meta", "parts"}:
        return False
    plain = _is_folder(value["folder"]) and _is_text(value["spec"]) and _is_number(value["version"])
    parts = value["parts"]
    return plain and type(value["meta"]) is dict and type(parts) is dict and all(map(_is_text, parts.values()))


_TIMES = {"during", "spent"}  #: may be missing; the second is of lines that earlier states of 0.1.0 wrote
_LINES = {
    frozenset(("block", "wrote", "read", "saw")),
    frozenset(("block", "value", "read", "saw")),
    frozenset(("value", "saw")),
    frozenset(("sealed", "address", "part", "saw")),
    frozenset(("asked", "rows", "saw")),
    frozenset(("key", "value", "rows", "saw")),
    frozenset(("back", "saw")),
    frozenset(("next", "saw")),
}
_FIELDS: dict[str, Callable[[Any], bool]] = {
    **{"block": _is_number, "wrote": _are_texts, "read": _are_texts, "saw": _are_observations, "value": _is_kept},
    **{"sealed": _is_number, "address": _is_text, "part": _is_text, "during": _is_span},
    **{"asked": _is_text, "key": _is_text, "rows": _are_rows, "back": _is_number},
    **{"spent": _is_time, "next": _is_key},
}

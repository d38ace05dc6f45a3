"""Values that a run keeps under keys, for itself and for the next run after a kill.

Each call of a subreactor has keys of its own. A later run finds a call again by where it stands: in which call, behind
what that had kept under its own keys by then (so that calls which a later run leaves out are not missed), the
subreactor, its arguments, and how many calls like it came before.

This file may know: logbooks, what was allocated, calls of subreactors. It may not know: how loops are walked.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.logs import log
from pyplantx.blocks.alterations import Alterations, Contents
from pyplantx.blocks.captured import CannotTell, digest_of_given
from pyplantx.blocks.journal import Journal
from pyplantx.blocks.logbook import Logbook, latest_value, save_value
from pyplantx.blocks.sources import told_of
from pyplantx.errors import CannotFingerprint, DamagedObject
from pyplantx.fingerprint.value import hash_text
from pyplantx.subreactor import SubreactorCall, calls_under_way
from pyplantx.warehouse.records import to_json

if TYPE_CHECKING:
    from pyplantx.core.trace import Digest

_TOO_MUCH = (
    "%s: what pipe.checkpoint(%r) keeps is not restored after a kill: what was allocated and written to before is too "
    "large to be compared with what the next run has there. Fill it with pipe.map_blocks or pipe.blocks(..., "
    "resume=True), or send it from a reactor of its own"
)
_UNSEEN = (
    "%s: what pipe.checkpoint keeps in a call of %s is not restored after a kill, since its arguments can't be "
    "compared with those of the next run (%s). Give it plain values and arrays, or keep the value in the reactor itself"
)

_LOST = (
    "%s: what pipe.checkpoint(%r) keeps from here on is not restored after a kill: %r was written to since "
    "pipe.checkpoint(%r) was first called, and that is lost with the process. Fill it with pipe.map_blocks "
    "or pipe.blocks(..., resume=True), which go on by themselves, before that call, or without checkpoints"
)
_CROSSED = (
    "%s: what pipe.checkpoint(%r) keeps from here on is not restored after a kill: rows of %r that it has kept before "
    "were written to again, or taken away. Only what is appended is kept"
)

#: Of so many calls the ledgers stay open, ended or not: each has files open.
_MOST_OPEN = 32

#: Of a value that is kept for this run alone.
_NOT_KEPT = "-"


class Loops(Protocol):
    """What is needed of the loops of a run."""

    @property
    def spaces(self) -> Any: ...
    @property
    def is_in_loop(self) -> bool: ...
    def keeps_more(self) -> None: ...
    def settle(self) -> None: ...
    def logbook(self, what: str, numbered: bool = True, journal: bool = False) -> Logbook | None: ...
    def let_go_of(self, logbook: Logbook) -> None: ...


class Run(Protocol):
    """What is needed of a run."""

    @property
    def reactor(self) -> Any: ...
    @property
    def world(self) -> Any: ...
    def unsent(self) -> Sequence[Any]: ...


class _Keys:
    """The keys of one call of a subreactor, or those of the reactor itself.

    Attributes
    ----------
    outer : _Keys or None
        Of whom the call was made; None for the reactor.
    call : weak reference, or None
        To the call: it holds its arguments.
    name : Digest or None
        What a later run finds them by; "" as long as nobody has asked, None if it can't be told.
    open : dict
        Key -> its ledger, and what was allocated when it was first asked for.
    journals : dict
        Key -> the journal that it is kept in, if there were growing datasets when it was first asked for.
    unkept : set of str
        Keys whose values are of no use to the next run, since this one spoke last.
    kept : dict
        Key -> gives what this run has kept since it spoke last.
    marks : dict
        Key -> tells which value was kept or restored last.
    """

    __slots__ = ("call", "journals", "kept", "marks", "name", "open", "outer", "unkept")

    def __init__(self, outer: _Keys | None, call: SubreactorCall | None, name: Digest | None) -> None:
        self.outer, self.name = outer, name
        self.call = None if call is None else weakref.ref(call)
        self.open: dict[str, tuple[Logbook, Alterations]] = {}
        self.journals: dict[str, Journal] = {}
        self.unkept: set[str] = set()
        self.kept: dict[str, Callable[[], Any]] = {}
        self.marks: dict[str, str] = {}

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self.call is not None and self.call() is None

    def mark(self, key: str, kept: dict[str, Any]) -> None:
        """A value was kept for the next run, or was found there; `kept` is what `Logbook.keep_value` has made of it."""
        self.marks[key] = hash_text(to_json({**kept, "folder": ""}))  # this one tells how often, not what

    def standing(self) -> str:
        """What tells how far it has come, as far as a later run comes to know of it."""
        return to_json(sorted(self.marks.items()))


class Checkpoints:
    """The values of one run.

    Parameters
    ----------
    loops : Loops
        The run's.
    run : Run
        The run.
    content_of : callable
        See `Contents`.

    Attributes
    ----------
    has_lost : bool
        Whether a value that the run has kept itself, and counts on, is gone.
    """

    def __init__(self, loops: Loops, run: Run, content_of: Callable[[Any], Digest | None]) -> None:
        self._loops, self._run = loops, run
        self._who = f"reactor {run.reactor.name}"
        self._contents = Contents(content_of)
        self._warned = self.has_lost = False
        self._unseen: set[str] = set()  # subreactors of which that was said
        self._of_reactor = _Keys(None, None, "reactor")
        self._of_calls: list[_Keys] = []
        self._journals: list[Journal] = []  # since the run spoke last; the last one is in use
        self._must_begin_again = False
        self._counts: dict[str, int] = {}  # what a call is like -> how many of these there were

    def restore(self, key: str, default: Any) -> Any:
        """What was kept under a key; see `Pipework.checkpoint`."""
        self._loops.keeps_more()
        keys = self._keys()
        if key in keys.kept:
            return self._own(keys.kept[key])
        journal = self._journal_of(keys, key)
        if journal is not None:
            found = journal.restore(self._place_of(keys, key))
        else:
            logbook = self._logbook(keys, key)
            line = latest_value(logbook) if logbook is not None else None
            found = None if line is None else (line[0]["value"], line[1])
        if found is None:
            return default
        keys.mark(key, found[0])
        return found[1]

    def _own(self, kept: Callable[[], Any]) -> Any:
        """What this run has kept itself. Once its ledger was closed, another process may have taken that over."""
        try:
            return kept()
        except DamagedObject as error:
            log().info("%s begins anew: what pipe.checkpoint has kept is gone: %s", self._who, error)
            self.has_lost = True
            raise

    def keep(self, key: str, value: Any) -> None:
        """Keep a value under a key; see `Pipework.checkpoint`."""
        self._loops.keeps_more()
        keys = self._keys()
        journal = None if self._loops.is_in_loop else self._journal_of(keys, key)
        if journal is not None:
            own = self._kept_in(journal, keys, key, value)
        else:
            own = None if self._loops.is_in_loop else self._kept_alone(keys, key, value)
        if own is None:
            keys.marks[key] = _NOT_KEPT
            own = partial(_copy, _copy(value))
        keys.kept[key] = own

    def _kept_in(self, journal: Journal, keys: _Keys, key: str, value: Any) -> Callable[[], Any] | None:
        """Keep a value beside what is appended; what gives it, or None if it is not kept."""
        self._loops.settle()
        kept = journal.keep(self._place_of(keys, key), value)
        if kept is None:
            if journal.why_not is not None:
                name, is_crossed = journal.why_not
                self._warn(*((_CROSSED, key, name) if is_crossed else (_LOST, key, name, key)))
            return None
        keys.mark(key, kept)
        return partial(journal.logbook.own_value, kept)

    def _kept_alone(self, keys: _Keys, key: str, value: Any) -> Callable[[], Any] | None:
        """As `_kept_in`, in a ledger of its own."""
        logbook = self._logbook(keys, key)
        if logbook is None or self._has_altered(keys, key):
            return None
        kept = save_value(logbook, value)
        keys.mark(key, kept)
        return partial(logbook.own_value, kept)

    def spoke(self) -> None:
        """The run asks for something, or sends."""
        for keys in (self._of_reactor, *self._of_calls):
            keys.kept.clear()
            keys.unkept.clear()
            keys.journals.clear()
        for journal in self._journals:
            journal.leave()
        self._end_journals()

    def failed(self) -> None:
        """The run has raised an error; what it has allocated is still there."""
        for journal in self._journals:
            journal.fail()

    def _end_journals(self) -> None:
        while self._journals:
            journal = self._journals.pop()
            journal.end()
            self._must_begin_again = self._must_begin_again or journal.must_begin_again
            self._loops.let_go_of(journal.logbook)

    @property
    def must_begin_again(self) -> bool:
        """Whether the run was given something of an earlier one that it can't go on with."""
        return self._must_begin_again or any(journal.must_begin_again for journal in self._journals)

    def clear(self) -> None:
        """The run is over."""
        self._end_journals()
        self._of_reactor, self._of_calls = _Keys(None, None, "reactor"), []
        self._counts.clear()

    # ----------------------------------------------------------------- whose keys

    def _keys(self) -> _Keys:
        """Those of the call that is under way in this thread; of the reactor if there is none."""
        keys = self._of_reactor
        for call in calls_under_way(self._run):
            keys = self._keys_of(call, keys)
        return keys

    def _keys_of(self, call: SubreactorCall, outer: _Keys) -> _Keys:
        for known in self._of_calls:
            if known.call is not None and known.call() is call:
                return known
        self._let_go()
        self._of_calls.append(_Keys(outer, call, ""))
        return self._of_calls[-1]

    def _let_go(self) -> None:
        """Close the ledgers of calls that have ended: a run may make thousands.

        Somebody may hold calls that have ended. So of many the oldest are closed, too; who goes on opens his again.
        """
        over = [keys for keys in self._of_calls if keys.is_over]
        self._of_calls = [keys for keys in self._of_calls if not keys.is_over]
        for keys in (*over, *self._of_calls[:-_MOST_OPEN]):
            for logbook, _ in keys.open.values():
                self._loops.let_go_of(logbook)
            keys.open.clear()

    def _name(self, keys: _Keys) -> Digest | None:
        """What a later run finds the keys by; None if that can't be told."""
        call = keys.call() if keys.call is not None else None
        if keys.name == "" and keys.outer is not None and call is not None:
            outer = self._name(keys.outer)
            keys.name = None if outer is None else self._place(call, f"{outer} {keys.outer.standing()}")
        return keys.name

    def _place(self, call: SubreactorCall, where: str) -> Digest | None:
        code, (args, kwargs) = self._run.world.fingerprinter, call.given
        try:
            given = digest_of_given((args, sorted(kwargs.items())), code, self._told)
        except CannotTell as why:
            self._warn_unseen(call.subreactor.__name__, why)
            return None
        place = f"{where} {call.subreactor.qualified} {code.fingerprint(call.subreactor)} {given}"
        self._counts[place] = number = self._counts.get(place, 0) + 1
        return hash_text(f"{place} {number}")

    def _warn_unseen(self, name: str, why: CannotTell) -> None:
        if name not in self._unseen:
            self._unseen.add(name)
            log().warning(_UNSEEN, self._who, name, why)

    def _told(self, value: Any) -> str | None:
        """What tells of an argument without reading it."""
        for number, allocation in enumerate(self._run.unsent()):
            if allocation.handle is value:  # what is in all of them counts for all keys; names may be the same
                return f"allocated {number} {allocation.name}"
        return told_of(value, self._run.world.fingerprinter.of_present().encode_value, self._loops.spaces.sealed)

    # ----------------------------------------------------------------- ledgers

    def _logbook(self, keys: _Keys, key: str) -> Logbook | None:
        known = keys.open.get(key)
        if known is not None and known[0].going:
            return known[0]
        if self._loops.is_in_loop:  # it is done anew after a kill, and has to find then what it finds now
            return None
        if self._loops.spaces is None or key in keys.unkept:
            return None
        self._loops.settle()
        alterations = Alterations(self._run.unsent())
        logbook = self._logbook_of(keys, key, alterations)
        if logbook is None:
            keys.unkept.add(key)
        else:
            keys.open[key] = logbook, alterations
        return logbook

    # ----------------------------------------------------------------- beside what grows

    def _place_of(self, keys: _Keys, key: str) -> Digest:
        """What a key is called in a journal, which has those of all calls."""
        return hash_text(f"{self._name(keys)} {len(key)}:{key}")

    def _journal_of(self, keys: _Keys, key: str) -> Journal | None:
        """The journal in which a key is kept; None if nothing grows, or it is kept alone."""
        known = keys.journals.get(key)
        if known is not None:
            return known
        if self._loops.is_in_loop or self._loops.spaces is None or key in keys.unkept:
            return None
        growing = [each for each in self._run.unsent() if getattr(each.handle, "axis_of_growth", None) is not None]
        if not growing or self._is_any_alone or self._name(keys) is None:
            return None
        self._loops.settle()
        present = self._journals[-1] if self._journals else None
        if present is None or not all(map(present.tells_of, growing)) or not present.goes_on():
            present = self._new_journal(growing, present)
        if present is not None:
            keys.journals[key] = present
        return present

    @property
    def _is_any_alone(self) -> bool:
        """Whether a key is kept alone: both it and what is appended can't be brought back together."""
        ledgers = (ledger for keys in (self._of_reactor, *self._of_calls) for ledger, _ in keys.open.values())
        return any(ledger.going for ledger in ledgers)

    def _new_journal(self, growing: Sequence[Any], former: Journal | None) -> Journal | None:
        if former is not None:
            former.must_be_through()
        alterations = Alterations(self._run.unsent())
        content = self._contents.of(alterations.before)
        if content is None:
            return None
        what = "\n".join(["journal", *map(_described, growing), content])
        logbook = self._loops.logbook(what, numbered=False, journal=True)
        if logbook is None:
            return None
        if former is not None:
            former.end()
        self._journals.append(Journal(logbook, growing, alterations, self._run.unsent, self._are_same, former))
        return self._journals[-1]

    def _are_same(self, one: Any, other: Any) -> bool:
        encode = self._run.world.fingerprinter.of_present().encode_value
        try:
            return bool(encode(one) == encode(other))
        except CannotFingerprint:
            return False

    # ----------------------------------------------------------------- alone

    def _logbook_of(self, keys: _Keys, key: str, alterations: Alterations) -> Logbook | None:
        name = self._name(keys)
        if name is None:
            return None
        content = self._contents.of(alterations.before)
        if content is None:
            log().warning(_TOO_MUCH, self._who, key)
            return None
        return self._loops.logbook(f"checkpoint of {name} {len(key)}:{key} {content}", numbered=False)

    def _has_altered(self, keys: _Keys, key: str) -> bool:
        """Whether what was allocated has been altered since a key was first asked for: the next run has it as it was.

        Who finds a later value there goes on behind what made the alteration.
        """
        self._loops.settle()
        name = keys.open[key][1].first(self._run.unsent())
        if name is not None:
            self._warn(_LOST, key, name, key)
        return name is not None

    def _warn(self, text: str, *words: str) -> None:
        if not self._warned:
            self._warned = True
            log().warning(text, self._who, *words)


def _described(allocation: Any) -> str:
    """A growing dataset, for the key of a journal."""
    dataset, name = allocation.handle, allocation.name
    return f"{len(name)}:{name} {dataset.shape} {dataset.dtype.descr!r} {dataset.chunks} {dataset.maxshape}"


def _copy(value: Any) -> Any:
    """What the reactor does to the original is not done to the copy; what can't be copied stands for itself."""
    try:
        return copy.deepcopy(value)
    except Exception as error:  # whatever a class of the user's raises
        log().debug("a value that is kept for this run alone can't be copied: %s", error)
        return value

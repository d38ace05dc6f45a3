"""Fingerprints of code: the public face, the memory that makes them cheap, and what is state.

This file may know: functions, classes, modules, and through ``normalform.py`` their bytecode. It may not
know: stores (it is given a `CodeMemo`), reactors beyond the mark ``__pyplantx_kind__``, the scheduler.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Protocol

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import ConfigError
from pyplantx.fingerprint import memos
from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.additions import Additions
from pyplantx.fingerprint.boundary import Boundary, Policy
from pyplantx.fingerprint.generated import is_own_to_process
from pyplantx.fingerprint.graph import Graph
from pyplantx.fingerprint.modules import find_module, is_library_module
from pyplantx.fingerprint.nodes import Describer
from pyplantx.fingerprint.objects import MISSING, library_name, role_function
from pyplantx.fingerprint.pieces import ABSENT, FUNCTION, Node, Slot, label_of
from pyplantx.fingerprint.plain import PlainFunctions
from pyplantx.fingerprint.reach import Reach
from pyplantx.fingerprint.records import Record, is_closed, raw_digest
from pyplantx.fingerprint.roles import has_role, unwrapped

_POLICIES: Final = ("exact", "minor", "ignore")
_HOT: Final = b"N" + FUNCTION


class CodeMemo(Protocol):
    """Remembers what is known about code objects, from process to process."""

    def get_code(self, raw: Digest) -> str | None:
        """The record kept for a raw digest; None if there is none."""

    def put_code(self, raw: Digest, record: str) -> None:
        """Keep a record (one line of text)."""


class State(NamedTuple):
    """A slot that was changed while reactors ran: `before` counts, as long as it still holds `after`.

    `by` says which code may have filled it, for each way to look at code (see `remains`), `users` the pieces of it, of
    whichever plant; `former` is the object that was there before the first of those runs.
    """

    slot: Slot
    before: tuple[bytes, tuple[Any, ...]]
    after: tuple[bytes, tuple[Any, ...]]
    by: dict[Policy, frozenset[Digest]]
    former: Any
    users: tuple[Any, ...] = ()


#: (namespace, name) -> what running code has done to it. Of the process: the next plant must not take it for an edit.
_STATE: dict[tuple[int, str], State] = {}


class Fingerprinter:
    """Computes fingerprints of functions, classes and whatever else code refers to.

    Parameters
    ----------
    memo : CodeMemo, optional
        Remembers normal forms between processes.
    library_versions : {"exact", "minor", "ignore"}
        How much of the version of an installed library counts.
    track, library : str or sequence of str
        Names of packages that count as the project's, or as libraries, wherever they are installed.

    Raises
    ------
    ConfigError
        If one of these is something else.

    Notes
    -----
    Fingerprints are kept for one *activity* of the plant, from `begin_activity` to `end_activity`: code can
    be redefined between activities, and that is an edit. A global that changes during an activity is state:
    its old fingerprint stays valid for as long as it holds what it held at the end of that activity. An activity
    that only asks ends with `leave_activity`: it changes nothing itself.
    """

    def __init__(
        self,
        memo: CodeMemo | None = None,
        *,
        library_versions: str = "minor",
        track: str | Sequence[str] = (),
        library: str | Sequence[str] = (),
    ) -> None:
        if not isinstance(library_versions, str) or library_versions not in _POLICIES:
            raise ConfigError(
                f"library_versions={library_versions!r} is unknown",
                hint=f"choose one of {', '.join(map(repr, _POLICIES))}",
            )
        self.memo = memo  # may be set later: a warehouse is opened with this object's `encode_value`
        self._boundary = Boundary(library_versions, _names("track", track), _names("library", library))
        self._additions = Additions.of(self._boundary)
        self._boundary.puts = self._additions.puts
        self._codes: dict[int, tuple[types.CodeType, str]] = {}
        self._parsed: dict[int, tuple[types.CodeType, Record]] = {}
        self._state = _STATE
        self._met_state: set[tuple[int, str]] = set()  # what of it this one has to do with
        self._project_globals: dict[int, tuple[dict[str, Any], bool]] = {}
        self._active = self._keeps_state = False  # the latter: state stays what it was, whatever a run does meanwhile
        #: Told what code names that finds modules by computed text: whoever watches it may have to begin with that.
        self.on_finders: Callable[[set[str]], None] | None = None
        self._forget()

    def _found(self, finders: set[str]) -> None:
        if self.on_finders is not None:
            self.on_finders(finders)

    def _forget(self) -> None:
        self._known: dict[int, tuple[Digest, Any]] = {}
        self._reaches: dict[int, Reach] = {}
        self._frozen = self._loaded = False
        self._left: tuple[int, dict[tuple[int, str], list[Any]]] = (0, {})
        self._other_ways: dict[Policy, Fingerprinter] = {}  # see `_in_the_way_of`
        self._caches_seen = 0  # how many of those that the describer has met were let go where need be
        self._additions.refresh()
        self._describer = Describer(
            self._boundary, self.record, self._settle, self._former, self._found, self._additions
        )
        self._forget_roots()

    def _forget_roots(self) -> None:
        self._graph = Graph(self._describer.describe, self._describer.widen)
        self._plain = PlainFunctions(self._describer, self._graph, self.record_text, self._is_plain)
        self._reaches.clear()

    @property
    def boundary(self) -> Boundary:
        """What counts as the project's."""
        return self._boundary

    def of_present(self) -> Fingerprinter:
        """Another one with the same rules that takes globals for what they hold now, even those that are state."""
        other = self._alike(self._boundary.policy)
        other._state = {}
        return other

    def _alike(self, policy: Policy) -> Fingerprinter:
        """Another one, with these rules."""
        versions, track, library = policy
        other = Fingerprinter(self.memo, library_versions=versions, track=track, library=library)
        other._codes, other._parsed = self._codes, self._parsed  # what was read once is read
        return other

    # --- fingerprints ---------------------------------------------------------------------------------

    def fingerprint(self, obj: Any) -> Digest:
        """The fingerprint of a function, class, partial, reactor, instance, or anything else.

        Parameters
        ----------
        obj : object
            A reactor or subreactor counts as its function.

        Returns
        -------
        Digest
            Covers everything that the code refers to within the project; libraries by name and version.
        """
        known = self._known.get(id(obj))
        if known is not None:
            return known[0]
        if type(obj) is types.FunctionType:
            digest = self._closed(obj) or self._root(obj)
        elif has_role(obj):
            digest = self.fingerprint(role_function(obj))
        else:
            digest = self._root(obj)
        self._known[id(obj)] = (digest, obj)
        return digest

    def _root(self, obj: Any) -> Digest:
        """The root of a piece of code, after all imports that describing it takes: they may fill what others read."""
        before = self._boundary.imported
        root = self._root_of(obj)
        while self._boundary.imported != before and not self._frozen:
            before = self._boundary.imported
            if self._describer.look_again():
                self._forget_roots()
                root = self._root_of(obj)
        if self._frozen and len(self._describer.caches) > self._caches_seen:  # in code that was met in a run
            self._let_go()
        twins = self._twins(obj) if self._describer.twins else ()
        return values.hash_text(" ".join([root, *twins])) if twins else root

    def _twins(self, obj: Any) -> list[str]:
        """Labels of the classes of which `obj` reaches two or more."""
        reach = self._reach(obj).objects
        twins = self._describer.twins.items()
        return sorted([label for label, same in twins if len({id(one) for one in same if id(one) in reach}) > 1])

    def _root_of(self, obj: Any) -> Digest:
        root = self._plain.root(obj) if type(obj) is types.FunctionType else None
        return root or self._graph.root(obj)

    def _closed(self, function: types.FunctionType) -> Digest | None:
        """The fingerprint of a function that refers to nothing, without building a graph; else None."""
        record = self.closed_record(function)
        return None if record is None else values.hash_bytes(_HOT + record[:32].encode())

    def closed_record(self, function: types.FunctionType) -> str | None:
        """The record's text of a project function that refers to nothing: it says all about it; else None."""
        if function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__:
            return None
        text = self.record_text(function.__code__)
        return text if is_closed(text) and self._is_plain(function) else None

    def is_in_project(self, namespace: dict[str, Any]) -> bool:
        """Whether code with these globals is the project's."""
        known = self._project_globals.get(id(namespace))
        if known is None or known[0] is not namespace:
            known = self._project_globals[id(namespace)] = (namespace, not self._boundary.owns_globals(namespace))
        return known[1]

    def _is_plain(self, function: types.FunctionType) -> bool:
        """Whether a function is the project's, and nothing that this has put into libraries counts for it."""
        if not self.is_in_project(function.__globals__):
            return False
        return self._additions.is_empty or not self._additions.count_for(function)

    # --- modules that are found by text ---------------------------------------------------------------

    def is_library_module(self, name: str) -> bool:
        """Whether a module, which need not be loaded, is a library's."""
        return is_library_module(name, self._boundary)

    def find_module(self, name: str) -> Any:
        """A module of the project, imported if need be; None if that fails."""
        loaded = len(sys.modules)
        module = find_module(name, self._boundary)
        self._loaded = self._loaded or len(sys.modules) > loaded
        return module

    def of_module(self, name: str) -> Digest | None:
        """The fingerprint of a module as a whole, of a library's the name and version; None if there is none.

        Notes
        -----
        A module of the project is imported for that. What this changes elsewhere was changed by running code.
        """
        module = None if self.is_library_module(name) else self.find_module(name)
        if self.is_library_module(name):  # of a namespace that several share it is known by now
            return values.hash_text(self._boundary.name_library(name, ""))
        if module is None:
            return None
        if id(module) not in self._known:
            loaded = len(sys.modules)
            self.of_present().fingerprint(module)  # all that its functions import is there when it is looked at
            self._loaded = self._loaded or len(sys.modules) > loaded
        return self.fingerprint(module)

    def encode_value(self, value: Any) -> Digest:
        """Digest of a value, with the functions and classes inside it by what they are on their own.

        Raises
        ------
        CannotFingerprint
            If something inside it has no canonical encoding; says where.
        """
        return values.digest(value, self.standalone, self._boundary)

    def is_project_class(self, cls: Any) -> bool:
        """Whether a class (or a function) belongs to the user's project, so that its code counts."""
        return library_name(cls, self._boundary) is None

    def freeze(self, objs: Iterable[Any]) -> None:
        """Fingerprint all of `objs` now, before anything that they refer to is changed by running them.

        What caches of functions hold that other code has computed is let go: see `memos`.
        """
        for obj in objs:
            self.fingerprint(obj)
        self._let_go()
        if self._met_state:
            self._look_in_other_ways()
        self._frozen = True  # what changes from now on was changed by running code

    def _let_go(self) -> None:
        """Of caches that were met since: one that a run has filled in this activity is not looked at again."""
        met = self._describer.caches[self._caches_seen :]
        self._caches_seen += len(met)
        memos.let_go(met, self._graph.root, self._boundary.policy)

    def _note_caches(self) -> None:
        memos.note(self._describer.caches, self._graph.root, self._boundary.policy)

    # --- code records ---------------------------------------------------------------------------------

    def record_text(self, code: types.CodeType) -> str:
        """The same as `record`, as one line of text."""
        known = self._codes.get(id(code))
        if known is not None:
            return known[1]
        text = self._look_up(code)
        self._codes[id(code)] = (code, text)
        return text

    def _look_up(self, code: types.CodeType) -> str:
        if self.memo is None:
            return self._normalise(code)
        try:
            raw = raw_digest(code)
        except ValueError:  # constants that no compiler made: only the normal form can tell
            return self._normalise(code)
        text = self.memo.get_code(raw)
        if text is None:
            text = self._normalise(code)
            if not is_own_to_process(code):
                self.memo.put_code(raw, text)
        return text

    def _normalise(self, code: types.CodeType) -> str:
        record = _normaliser()(code)
        text = record.to_text()
        if not is_closed(text):
            self._parsed[id(code)] = (code, record)
        return text

    def record(self, code: types.CodeType) -> Record:
        """What is known about a code object: its normal form, and what it refers to."""
        known = self._parsed.get(id(code))
        if known is None:
            known = self._parsed[id(code)] = (code, Record.from_text(self.record_text(code)))
        return known[1]

    # --- questions for people -------------------------------------------------------------------------

    def parts(self, obj: Any) -> dict[str, Digest]:
        """What the fingerprint of `obj` is made of: label ("function utils.scale", "constant app.K") -> digest."""
        inner = unwrapped(obj)
        closed = self.closed_record(inner) if type(inner) is types.FunctionType else None
        if closed is not None:
            return {label_of(inner): values.hash_bytes(FUNCTION + closed[:32].encode())}
        from pyplantx.fingerprint.parts import Parts  # needed only for code that is new

        parts = Parts(self._graph)
        parts.add_all(inner)
        twins = self._twins(inner) if self._describer.twins else ()
        return parts.found | {f"objects of a former {label}": values.hash_text(label) for label in twins}

    def node(self, obj: Any) -> Node:
        """What is known about a piece of code, and what it refers to."""
        return self._graph.node(obj)

    def opaque(self, obj: Any) -> list[str]:
        """What counts by its type only, or can't be seen, within reach of `obj`; in words."""
        return sorted({line for node in self._graph.reach(unwrapped(obj)) for line in node.opaque})

    def versions(self) -> dict[str, str]:
        """The libraries that were referred to so far -> as much of their versions as counts."""
        return self._boundary.versions()

    # --- subreactors ----------------------------------------------------------------------------------

    def standalone(self, obj: Any) -> Digest:
        """The fingerprint of code that comes to reactors as a value: the subreactors that it names count at once."""
        digest, named = self.fingerprint(obj), self.named(obj)
        return values.hash_text(" ".join([digest, *map(self.fingerprint, named)])) if named else digest

    def named(self, obj: Any) -> list[Any]:
        """The subreactors that code names, and those that they name, in a canonical order; one for each name."""
        named, expanded = list(self._reach(obj).subreactors), set[int]()
        for subreactor in named:  # grows on the way
            if id(subreactor) not in expanded:
                expanded.add(id(subreactor))
                named += self._reach(subreactor).subreactors
        return named

    def named_directly(self, caller: Any) -> tuple[Any, ...]:
        """The subreactors that the code in reach of `caller` names, in canonical order, once for each name.

        Parameters
        ----------
        caller : object
            A function, reactor or subreactor.

        Returns
        -------
        tuple
            The fourth of twelve is at the place ``"3.12"``, in terms that hold while the fingerprint of `caller` does.
            All places of a subreactor count, since what led to a call is not known: any of these names may be meant
            for another one tomorrow.
        """
        return self._reach(caller).subreactors

    def at_place(self, caller: Any, place: str) -> Any:
        """The subreactor at one of the places of `named_directly` today.

        Raises
        ------
        LookupError
            If there is none any more, or no such place.
        """
        named = self._reach(caller).subreactors
        number, _, count = place.partition(".")
        if not number.isdecimal() or count != str(len(named)):
            raise LookupError(f"{caller!r} names {len(named)} subreactors: {place}")
        return named[int(number)]

    def holds(self, caller: Any, subreactor: Any) -> bool:
        """Whether a subreactor counts for `caller` as a function does: it lies in a container, or in an instance."""
        return id(unwrapped(subreactor)) in self._reach(caller).objects

    def defines(self, caller: Any, subreactor: Any) -> bool:
        """Whether the ``def`` of a subreactor stands inside code that counts for `caller`."""
        return id(getattr(unwrapped(subreactor), "__code__", None)) in self._reach(caller).nested()

    def _reach(self, obj: Any) -> Reach:
        inner = unwrapped(obj)
        known = self._reaches.get(id(inner))
        if known is None:
            known = self._reaches[id(inner)] = Reach(self._graph.reach(inner))
        return known

    # --- activities and state -------------------------------------------------------------------------

    def begin_activity(self) -> None:
        """Look at everything afresh: code may have been redefined since the last activity."""
        if self._active:
            self.end_activity()
        self._active = True
        self._forget()

    def leave_activity(self) -> None:
        """End an activity in which nothing ran: whatever changes from its beginning on was changed by an edit.

        Unless a module was imported to answer for it, as a run would have done.
        """
        if self._loaded:
            self.end_activity()
        self._active = False
        self._note_caches()

    def end_activity(self) -> None:
        """Note which globals changed while the activity lasted: they are state, not constants."""
        self._active = self._loaded = False
        self._note_caches()
        changed = {
            key: State(slot, (slot.data, slot.refs), (after.now, after.refs_now), {}, slot.value)
            for key, slot, after in self._describer.places.changed()
        }
        for key, slot in self._describer.places.arrivals():
            if key not in self._describer.places.slots:
                changed[key] = State(slot, (ABSENT, ()), (slot.now, slot.refs_now), {}, MISSING)
        if changed:
            self._note_state(changed)

    def _note_state(self, changed: dict[tuple[int, str], State]) -> None:
        """Note state, and by which code it may have been filled: what it held before is still in there."""
        policy, users = self._boundary.policy, self._users(changed)
        now = self._fillers(users, self._callers)
        for key, state in changed.items():
            before, former, known = self._state.get(key), state.former, users[key]
            if before is not None and before.slot.owner is state.slot.owner:
                state.by.update(before.by)
                former, known = before.former, known + _remains().others(before.users, known)
            state.by[policy] = state.by.get(policy, frozenset()) | now[key]
            self._state[key] = state._replace(former=former, users=tuple(known))
            self._met_state.add(key)

    def _former(self, owner: Any, key: str) -> tuple[Any, ...]:
        """What lay in a place before running code was seen to change it, as the only item; empty if it was not."""
        state = self._state.get((id(owner), key))
        if state is None or state.slot.owner is not owner:
            return ()
        return (MISSING if state.before[0] == ABSENT else state.former,)

    def _settle(self, slot: Slot) -> Slot:
        """The slot as it counts: with its former value if it was state and nobody touched it since."""
        state = self._state.get((id(slot.owner), slot.key))
        if state is None:
            return slot
        if state.slot.owner is slot.owner and (self._keeps_state or slot.holds(*state.after)):
            slot.data, slot.refs = state.before
            self._met_state.add((id(slot.owner), slot.key))
        else:
            del self._state[id(slot.owner), slot.key]
        return slot

    # --- what other code has left in state ------------------------------------------------------------

    def remains(self, obj: Any) -> list[str]:
        """Labels of what `obj` reads that other code than that of today may have filled; asked when `obj` has run."""
        if not self._met_state:
            return []
        left = self._left_by_others()
        if not left:
            return []
        reach = dict(self._reach(obj).objects)
        for subreactor in self.named(obj):
            reach |= self._reach(subreactor).objects
        slots = [
            self._describer.places.slots[key] for key, users in left.items() if any(id(user) in reach for user in users)
        ]
        return sorted({slot.label for slot in slots if _remains().is_read(slot, reach.values())})

    def _left_by_others(self) -> dict[tuple[int, str], list[Any]]:
        """What other code may have filled -> the pieces of code that name it; found out again if more state is met."""
        if self._left[0] != len(self._met_state):
            self._left = len(self._met_state), self._find_left()
        return self._left[1]

    def _find_left(self) -> dict[tuple[int, str], list[Any]]:
        self._describe_all()
        met = [key for key in self._met_state if key in self._state and key in self._describer.places.slots]
        users = self._users(met)
        known = {key: found + _remains().others(self._state[key].users, found) for key, found in users.items()}
        ways = {policy for key in met for policy in self._state[key].by}
        now = {policy: self._in_the_way_of(policy)._fillers(known, self._callers) for policy in ways}
        return {key: users[key] for key in met if any(by - now[way][key] for way, by in self._state[key].by.items())}

    def _in_the_way_of(self, policy: Policy) -> Fingerprinter:
        """This one, or one that looks at code as another plant does that has changed state."""
        if policy == self._boundary.policy:
            return self
        known = self._other_ways.get(policy)
        if known is None:
            known = self._other_ways[policy] = self._alike(policy)
            known._keeps_state = True
        return known

    def _look_in_other_ways(self) -> None:
        """Before anything runs, what code counts as for other plants that have changed the same state."""
        others = {policy for key in self._met_state if key in self._state for policy in self._state[key].by}
        if others - {self._boundary.policy}:
            self._left_by_others()

    def _describe_all(self) -> None:
        """Let the graph see all that is known: plain functions too, and subreactors that nobody has called yet."""
        for _, obj in list(self._known.values()):
            if type(obj) is types.FunctionType:
                self.named(obj)

    def _users(self, keys: Collection[tuple[int, str]]) -> dict[tuple[int, str], list[Any]]:
        """The pieces of code that name each of some places, or list it among all that they hold."""
        self._describe_all()
        found: dict[tuple[int, str], list[Any]] = _remains().users_of(keys, self._graph.nodes())
        for key, users in found.items():
            users += [obj for obj in self._describer.places.listing(key[0]) if not users]
        return found

    def _fillers(
        self, users: dict[tuple[int, str], list[Any]], callers: Callable[[Any], list[Any]]
    ) -> dict[tuple[int, str], set[Digest]]:
        def fingerprints(piece: Any) -> list[Digest]:
            return [self.fingerprint(caller) for caller in callers(piece)]

        fillers = _remains().fillers
        return {key: fillers(found, self._graph.root, fingerprints) for key, found in users.items()}

    def _callers(self, piece: Any) -> list[Any]:
        """Those in whose reach a piece of code is."""
        known = [obj for _, obj in list(self._known.values()) if type(obj) is types.FunctionType]
        return [obj for obj in known if id(piece) in self._reach(obj).objects]

    def state_changes(self) -> list[str]:
        """Labels of the globals that were changed by running code, and so never cause a run."""
        return sorted({self._state[key].slot.label for key in self._met_state if key in self._state})


def _names(option: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """The packages that an option names."""
    names: tuple[Any, ...] = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"{option}={given!r} does not name packages: {name!r} can't be imported",
                hint=f'give the names under which they are imported, as in {option}=["mypackage"]',
            )
    return names


@functools.cache
def _normaliser() -> Callable[[types.CodeType], Record]:
    from pyplantx.fingerprint.normalform import normalise  # needed only for code that nobody remembers

    return normalise


def _remains() -> Any:
    from pyplantx.fingerprint import remains  # needed only where running code has changed something

    return remains

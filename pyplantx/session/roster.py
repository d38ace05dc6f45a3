"""The reactors of a plant: who is registered, and what their code says about them: fingerprints, parts, hints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from pyplantx.errors import TwoProducers, UnknownReactor
from pyplantx.fingerprint import sending
from pyplantx.fingerprint.records import ANYTHING
from pyplantx.fingerprint.value import hash_text
from pyplantx.reactor import Reactor, check_clash, default_registry, described, is_twin, place_of, unknown_reactor

if TYPE_CHECKING:
    from pyplantx.core.messages import ReactorId
    from pyplantx.core.trace import Digest
    from pyplantx.fingerprint.code import Fingerprinter


class Roster:
    """Reactors by id, in order of registration.

    Parameters
    ----------
    fingerprinter : Fingerprinter
        Reads their code.
    """

    def __init__(self, fingerprinter: Fingerprinter) -> None:
        self._fingerprinter = fingerprinter
        self._reactors: dict[ReactorId, Reactor] = {}
        self._roots: dict[ReactorId, Digest] = {}
        self._by_root: dict[Digest, ReactorId] | None = None
        self._hints: _Hints | None = None
        self._mentions: dict[str, set[ReactorId]] | None = None  # text to those in whose code it stands
        self._declared: dict[str, ReactorId] = {}  # by ``sends=``: the ingredient to who sends it
        self._places: dict[tuple[str, str], Reactor] | None = None
        self._named: dict[str, list[ReactorId]] | None = None
        self._by_hand = False  # whether somebody has chosen
        self._passed_over: dict[ReactorId, Reactor] = {}  # newer ones there were when one was added by hand
        self._caught_up = -1
        self._in_vain: dict[tuple[ReactorId, str], Digest] = {}  # late one, ingredient -> its root when it was asked
        self._have_run: dict[ReactorId, Digest] = {}  # late one -> its root
        self._settled: dict[ReactorId, Reactor] = {}  # late ones that stand for no other

    def __getitem__(self, id: ReactorId) -> Reactor:
        return self._reactors[id]

    def __contains__(self, id: object) -> bool:
        return id in self._reactors

    def own(self, id: ReactorId) -> ReactorId | None:
        """The same id as the reactor has it, or None: dictionaries find that one without comparing letters."""
        reactor = self._reactors.get(id)
        return None if reactor is None else reactor.id

    def __iter__(self) -> Iterator[Reactor]:
        return iter(self._reactors.values())

    def __len__(self) -> int:
        return len(self._reactors)

    def add(self, reactor: Reactor) -> None:
        """Register a reactor; an earlier definition of it is replaced.

        Raises
        ------
        ReactorClash
            If there is another one of the same id.
        TwoProducers
            If another one declares to send the same.
        """
        old, others = self._reactors.get(reactor.id) or self._twin(reactor), self._declared
        if old is reactor:
            self.refresh()
            return
        if old is not None:
            is_same = is_twin(old, reactor)
            if is_same and old.__module__ == "__main__":
                return
            if not is_same:
                check_clash(old, reactor, self.fingerprint)
            others = {name: id for name, id in others.items() if id != old.id}
        self._declared = _with_declared(others, reactor)
        if old is not None and old.id != reactor.id:
            del self._reactors[old.id]
        self._reactors[reactor.id], self._named = reactor, None
        if self._places is not None:
            self._places[place_of(reactor)] = reactor
        self.refresh()

    def replace(self, reactors: Iterable[Reactor]) -> None:
        """Register these and no others.

        Raises
        ------
        TwoProducers
            If two of them declare to send the same.
        """
        registered = {reactor.id: reactor for reactor in reactors}
        declared: dict[str, ReactorId] = {}
        for reactor in registered.values():
            declared = _with_declared(declared, reactor)
        self._reactors, self._declared, self._places, self._named = registered, declared, None, None
        self.refresh()

    def add_by_hand(self, reactors: Iterable[Reactor]) -> None:
        """`add` those that the user has chosen: from then on no others are registered by themselves.

        Raises
        ------
        ReactorClash, TwoProducers
            As `add`.
        """
        self._by_hand = True
        self._settled.clear()  # they might stand for one of these
        self._fingerprinter.begin_activity()  # two of one name are compared as they are now
        try:
            for reactor in reactors:
                self.add(reactor)
                self._passed_over[reactor.id] = default_registry.newest(reactor)
        finally:
            self._fingerprinter.leave_activity()

    def catch_up(self) -> None:
        """Register what was decorated since; if somebody has chosen, no others than those, defined anew.

        Raises
        ------
        ReactorClash, TwoProducers
            As `add`.
        """
        if self._caught_up == default_registry.changes:
            return
        changes = default_registry.changes
        if self._by_hand:
            self._follow_definitions()
        else:
            self.replace(default_registry.resolve(self.fingerprint))
        self._caught_up = changes

    def _follow_definitions(self) -> None:
        for id in default_registry.defined_again():
            if id in self._reactors:
                newest = default_registry.newest(self._reactors[id])
                if newest is not self._reactors[id] and newest is not self._passed_over.get(id):
                    self.add(newest)

    def refresh(self) -> None:
        """Forget what was read from the code: it may have changed."""
        self._roots.clear()
        self._hints = self._by_root = self._mentions = None

    def told_apart(self, *ids: ReactorId) -> list[str]:
        """Their names, or their ids if some have the same name."""
        names = [self._reactors[id].name for id in ids]
        return names if len(set(names)) == len(names) else list(ids)

    def find(self, wanted: object) -> ReactorId:
        """Id of a reactor that is given as such, by its id, or by its name.

        Raises
        ------
        UnknownReactor
            If there is none, or several have that name.
        """
        if isinstance(wanted, Reactor):
            return self._find_reactor(wanted)
        if not isinstance(wanted, str):
            return self._find_function(wanted)
        if wanted in self._reactors:
            return wanted
        if self._named is None:
            ids: dict[str, list[ReactorId]] = {}
            for reactor in self:
                ids.setdefault(reactor.name, []).append(reactor.id)
            self._named = ids  # whole: Ctrl-C may come before
        named = self._named.get(wanted, [])
        if len(named) == 1:
            return named[0]
        raise unknown_reactor(wanted, named) if named else self._no_reactor(wanted)

    def _no_reactor(self, wanted: str) -> UnknownReactor:
        """The error for a name that no reactor has: perhaps it is that of an ingredient."""
        senders = self.hinted(wanted)
        if not senders:
            return unknown_reactor(wanted, [reactor.name for reactor in self])
        return UnknownReactor(
            f"there is no reactor {wanted!r}",
            hint=f"that is an ingredient, which {self._reactors[senders[0]].name} sends: name that reactor, or use "
            f"plant.produce({wanted!r}), plant.explain({wanted!r})",
        )

    def _find_reactor(self, wanted: Reactor) -> ReactorId:
        held = self._reactors.get(wanted.id) or self._twin(wanted)
        if held is None:
            raise unknown_reactor(wanted.id, self._reactors)
        if held is wanted or is_twin(held, wanted) or self.fingerprint(held) == self.fingerprint(wanted):
            return held.id
        raise UnknownReactor(
            f"the plant's reactor {wanted.id!r} is another one: {described(held)}, not {described(wanted)}",
            hint="it was defined a second time: give the new one, or plant.add_reactor(...) the one that is meant",
        )

    def _twin(self, reactor: Reactor) -> Reactor | None:
        """The same reactor under another id; see `is_twin`."""
        if self._places is None:
            self._places = {place_of(other): other for other in self}
        other = self._places.get(place_of(reactor))
        return other if other is not None and is_twin(other, reactor) else None

    def _find_function(self, function: object) -> ReactorId:
        for reactor in self:
            if reactor.function is function:
                return reactor.id
        name = getattr(function, "__name__", repr(function))
        if callable(function) and name not in {reactor.name for reactor in self}:
            raise UnknownReactor(f"there is no reactor {name!r}", hint=f"make {name} one: @ReactorFunc above its def")
        raise unknown_reactor(name, self._reactors)

    # ----------------------------------------------------------------- fingerprints

    def fingerprint(self, reactor: Reactor) -> Digest:
        """Root of a reactor's trace tree: its code, and its ``version=``."""
        digest = self._fingerprinter.fingerprint(reactor.function)
        return hash_text(f"version {reactor.version} {digest}") if reactor.version else digest

    def root(self, id: ReactorId) -> Digest:
        """`fingerprint`, taken once per activity."""
        root = self._roots.get(id)
        if root is None:
            root = self._roots[id] = self.fingerprint(self._reactors[id])
        return root

    def freeze(self) -> None:
        """Take all fingerprints now, before a reactor runs and changes what they are taken from."""
        for id in self._reactors:
            if id not in self._roots:
                self.root(id)
        self._fingerprinter.freeze(())

    def parts(self, id: ReactorId) -> dict[str, Digest]:
        """Label to digest of each piece of code that counts for a reactor."""
        reactor = self._reactors[id]
        parts = self._fingerprinter.parts(reactor.function)
        return {**parts, "version": hash_text(reactor.version)} if reactor.version else parts

    def with_root(self, root: Digest) -> ReactorId | None:
        """The reactor that has this fingerprint today (it may have moved to another module)."""
        if self._by_root is None:
            self._by_root = {self.root(id): id for id in reversed(self._reactors)}  # of two that are alike the first
        return self._by_root.get(root)

    # ----------------------------------------------------------------- who sends it?

    def declared(self, name: str) -> list[ReactorId]:
        """Who declares to send an ingredient: one reactor at most."""
        return [self._declared[name]] if name in self._declared else []

    def hinted(self, name: str) -> list[ReactorId]:
        """Whose code mentions the name, or a pattern that it fits, where something is sent.

        Of those that were added when others were in use and mention the name itself, the last comes first: it may be
        another under a new name.
        """
        if self._hints is None:
            self._hints = _Hints(self._fingerprinter, self)
        senders = self._hints.senders(name)
        exact = self._hints.names.get(name, ())
        if len(exact) < 2 or not default_registry.late:
            return senders
        return sorted(senders, key=lambda id: -default_registry.lateness(id) if id in exact else 0)

    def hints_at(self, id: ReactorId, name: str) -> bool:
        """Whether the code of this reactor is among `hinted`; costs no look at the code of others."""
        return bool(_Hints(self._fingerprinter, [self._reactors[id]]).senders(name))

    def late_senders(self, is_known: Callable[[Digest], bool]) -> Iterator[tuple[ReactorId, Iterable[str]]]:
        """Those that were defined when others were in use and may not have run, the last one last; what they send.

        Parameters
        ----------
        is_known : callable
            Whether something with this root has ever run. Not asked of those of which that is known already.
        """
        for id in tuple(default_registry.late):  # a thread may define more of them
            reactor = self._reactors.get(id)
            if reactor is None or self._settled.get(id) is reactor or self._have_run.get(id) == self.root(id):
                continue
            if is_known(self.root(id)):
                self._have_run[id] = self.root(id)
            yield id, (*reactor.sends, *sending.hints(self._fingerprinter, reactor).names)

    def has_run(self, id: ReactorId) -> bool:
        """Of one of `late_senders`, whether its present version has ever run."""
        return self._have_run.get(id) == self.root(id)

    def settle(self, id: ReactorId) -> None:
        """A late one has run and stands for no other: it is of no more interest, as it is defined now.

        Who comes to send the same after it is a late one as well.
        """
        self._settled[id] = self._reactors[id]

    def note_asked_in_vain(self, id: ReactorId, name: str) -> None:
        """A late one was asked for an ingredient and has not sent it: its run may leave no trace that would tell so."""
        self._in_vain[id, name] = self.root(id)

    def is_asked_in_vain(self, id: ReactorId, name: str) -> bool:
        """Whether it would be once more: neither it nor what it uses was edited since."""
        return self._in_vain.get((id, name)) == self.root(id)

    def hinted_names(self) -> list[str]:
        """All names that the code mentions where something is sent."""
        if self._hints is None:
            self._hints = _Hints(self._fingerprinter, self)
        return list(self._hints.names)

    def mentioned_first(self, name: str, ids: tuple[ReactorId, ...]) -> tuple[ReactorId, ...]:
        """`ids`, those first in whose code the name stands as a text: in a list, or the call of a helper."""
        if self._mentions is None:
            mentions: dict[str, set[ReactorId]] = {}
            for reactor in self:
                for text in sending.mentions(self._fingerprinter, reactor):
                    mentions.setdefault(text, set()).add(reactor.id)
            self._mentions = mentions
        mentioning = self._mentions.get(name)
        return ids if mentioning is None else tuple(sorted(ids, key=lambda id: id not in mentioning))

    def others(self, is_known: Callable[[Digest], bool]) -> list[ReactorId]:
        """Who could send what nobody is known or hinted to send: first those that never ran in their present version.

        Not those whose code shows all that they send: of these, it is known who sends what.
        """
        never: list[ReactorId] = []
        known: list[ReactorId] = []
        for id, reactor in self._reactors.items():
            if not sending.shows_all_it_sends(reactor):
                (known if is_known(self.root(id)) else never).append(id)
        return never + known


class _Hints:
    """What the code of all reactors says about the names that they send."""

    def __init__(self, fingerprinter: Fingerprinter, reactors: Iterable[Reactor]) -> None:
        self.names: dict[str, list[ReactorId]] = {}
        # By the text that they begin with: of a thousand patterns a name fits few. With the order of registration.
        self._patterns: dict[str, list[tuple[int, str, ReactorId]]] = {}
        for number, reactor in enumerate(reactors):
            hints = sending.hints(fingerprinter, reactor)
            for name in hints.names:
                self.names.setdefault(name, []).append(reactor.id)
            for pattern in hints.patterns:
                self._patterns.setdefault(_beginning(pattern), []).append((number, pattern, reactor.id))
        self._lengths = set(map(len, self._patterns))

    def senders(self, name: str) -> list[ReactorId]:
        """Exact names first, then patterns."""
        likely = [one for length in self._lengths for one in self._patterns.get(name[:length], ())]
        fitting = [id for _, pattern, id in sorted(likely) if re.fullmatch(pattern, name, re.DOTALL)]
        return list(dict.fromkeys([*self.names.get(name, ()), *fitting]))


def _beginning(pattern: str) -> str:
    """The text that all begins with that a pattern fits: it is made of escaped texts and one wild card."""
    return re.sub(r"\\(.)", r"\1", pattern.partition(ANYTHING)[0], flags=re.DOTALL)


def _with_declared(others: dict[str, ReactorId], reactor: Reactor) -> dict[str, ReactorId]:
    """What reactors declare to send, with one more of them: the same dictionary, unless that can't be."""
    for name in reactor.sends:
        if others.get(name, reactor.id) != reactor.id:
            raise TwoProducers(
                f"two reactors declare to send {name!r}: {others[name]} and {reactor.id}",
                hint="correct one `sends=`; after renaming one in a notebook: pyplantx.testing.forget_reactors()",
            )
    others.update(dict.fromkeys(reactor.sends, reactor.id))
    return others

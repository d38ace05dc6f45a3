"""Deep traces: an ingredient together with all that its whole ancestry observed.

Replaying a thousand reactors asks a thousand traces, each for its own question. Where nothing has changed
since the last time, one question does: are all of these fingerprints and answers as they were? A deep
trace is the list of them; if it holds, the ingredient is what it was, and no reactor between has to be
asked. It is only a short cut: where it doesn't hold, or might not, the replays decide. Then it still tells who has
sent what: those are asked first, without a look into the records of all these names.

It is kept for ingredients that somebody outside asked for (the caller, or a reactor that was run by
name), and is good until any trace is written anew: replays of other content might then come out
differently. In the words of "Build Systems à la Carte" (Mokhov, Mitchell, Peyton Jones, 2018): deep
constructive traces, on top of constructive ones that allow early cutoff.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Set
from typing import TYPE_CHECKING

from pyplantx.core.trace import Digest, Group, ObjectRef, Question, observations_of
from pyplantx.fingerprint.value import hash_text
from pyplantx.tuples import NamedTuple

if TYPE_CHECKING:
    from pyplantx.core.demand import Demand
    from pyplantx.core.messages import ReactorId
    from pyplantx.roster import Roster
    from pyplantx.warehouse.warehouse import Warehouse
    from pyplantx.world import Answers

#: Below this number of reactors the replays are as quick.
_WORTH_IT = 8

#: How many deep traces a store keeps; two names on one place drive each other out.
_PLACES = 64

#: At the end of a demand its ingredients are walked so many times in all: if more names were asked for that hang on
#: the same ones, replaying these is quicker than holding each name's deep trace against the present.
_SHARE = 4

_DECODER = json.JSONDecoder()


class DeepTrace(NamedTuple):
    """What has to hold for `ref` to be the ingredient `name`.

    Attributes
    ----------
    roots : dict of str to Digest
        Fingerprint of every reactor in the ancestry, by id.
    answers : list of (str, str, str, Digest)
        Reactor, kind and key of every question that is not about an ingredient, and the answer.
    objects : list of Digest
        Addresses of the ingredients of the ancestry that have payloads of their own.
    senders : dict of str to str
        Ingredients of the ancestry, and who sent them in the version of `roots`.
    """

    name: str
    ref: ObjectRef
    roots: dict[ReactorId, Digest]
    answers: list[tuple[ReactorId, str, str, Digest]]
    objects: list[Digest]
    senders: dict[str, ReactorId]


class Recall:
    """The deep traces of one store, in one activity.

    Parameters
    ----------
    warehouse, reactors, world
        Where they are kept, and what they are held against.
    """

    def __init__(self, warehouse: Warehouse, reactors: Roster, world: Answers) -> None:
        self._warehouse, self._reactors, self._world = warehouse, reactors, world
        self._generation = _generation(warehouse)
        self._wrote = False
        self._former: list[DeepTrace] = []  # those that don't hold
        self._kept: dict[str, str | None] = {}  # place -> whose deep trace was found there
        self.recalled: dict[str, DeepTrace] = {}

    def recall(self, name: str, forced: Set[ReactorId]) -> ObjectRef | None:
        """The ingredient, if a deep trace of it holds today and none of these reactors, which run anyway, is in it."""
        deep = self._find(name)
        if deep is None:
            return None
        if not self._holds(deep):
            self._former.append(deep)
            self._warehouse.note_versions(_noted_versions(deep))
            return None
        if not forced.isdisjoint(deep.roots):
            return None
        self.recalled[name] = deep
        return deep.ref

    def _find(self, name: str) -> DeepTrace | None:
        """The deep trace of an ingredient. That a place is another's is found out once: the text is long."""
        place = _place(name)
        if self._kept.get(place, name) != name:
            return None
        text = self._warehouse.blob_get("deep trace", place) or ""
        self._kept[place] = _name_in(text, self._generation)
        return _decode(text, name, self._generation)

    def covers(self, id: ReactorId) -> bool:
        """Whether something that was recalled was made by a reactor."""
        return any(id in deep.roots for deep in self.recalled.values())

    def take_sender(self, name: str) -> ReactorId | None:
        """Who sent an ingredient of a deep trace that doesn't hold any more, if its code is what it was; told once."""
        for deep in self._former:
            former = deep.senders.pop(name, None)
            own = None if former is None else self._reactors.own(former)
            if own is not None and self._reactors.root(own) == deep.roots[own]:
                return own
        return None

    def _holds(self, deep: DeepTrace) -> bool:
        reactors, root = self._reactors, self._reactors.root
        for id, recorded in deep.roots.items():
            if id not in reactors or root(id) != recorded:
                return False
        answer, is_waived = self._world.answer, self._world.is_waived
        return all(
            answer(reactors[id], Question(kind, key)).answer == was or is_waived(kind, key)
            for id, kind, key, was in deep.answers
        )

    # ----------------------------------------------------------------- keeping

    def trace_written(self) -> None:
        """A trace is about to be written, for the first time in this activity or again."""
        if not self._wrote:
            self._wrote = True
            self._renew()

    def keep(self, names: Iterable[str], demand: Demand, usable: Container[ReactorId]) -> None:
        """Keep deep traces at the end of an activity.

        Parameters
        ----------
        names : iterable of str
            The ingredients that were asked for from outside.
        demand : Demand
            Knows what was observed for them.
        usable : container of str
            The reactors of which the traces hold what they did now.
        """
        if self._wrote:
            self._renew()
        if _generation(self._warehouse) != self._generation:
            return  # another process has written traces meanwhile
        left = _SHARE * len(demand.answered())
        taken = {_place(name) for name in self.recalled}
        read: dict[ReactorId, tuple[list[str], list[Group]]] = {}
        for name in names:
            place = _place(name)
            if place in taken or left <= 0:
                continue  # one that this demand had kept would be driven out; or many that have an ancestry in common
            ancestry = _Ancestry(self._reactors, self._warehouse, demand, self.recalled, usable)
            deep = ancestry.gather(name, read)
            left -= ancestry.walked
            if deep is not None and len(deep.roots) >= _WORTH_IT:
                self._warehouse.blob_put("deep trace", place, _encode(deep, self._generation))
                taken.add(place)

    def _renew(self) -> None:
        """Make all deep traces void. Before the first trace and after the last one, for others read meanwhile."""
        self._generation = os.urandom(8).hex()
        self._warehouse.blob_put("deep trace", "generation", self._generation)


class _Ancestry:
    """Collects what an ingredient and its ancestry observed."""

    def __init__(
        self,
        reactors: Roster,
        warehouse: Warehouse,
        demand: Demand,
        recalled: dict[str, DeepTrace],
        usable: Container[ReactorId],
    ) -> None:
        self._reactors, self._warehouse, self._demand = reactors, warehouse, demand
        self._recalled, self._usable = recalled, usable
        self._roots: dict[ReactorId, Digest] = {}
        self._answers: list[tuple[ReactorId, str, str, Digest]] = []
        self._objects: list[Digest] = []
        self._senders: dict[str, ReactorId] = {}
        self.walked = 0  # ingredients

    def gather(self, name: str, read: dict[ReactorId, tuple[list[str], list[Group]]]) -> DeepTrace | None:
        """The deep trace of an ingredient; None if something in its ancestry isn't recorded."""
        ref = self._demand.known(name)
        if ref is None:
            return None
        usable, roots, root, has_version = self._usable, self._roots, self._reactors.root, self._warehouse.has_version
        for at, id, made, local in self._demand.ancestry(name, read):
            self.walked += 1
            if id is None:
                if not self._add_recalled(at):
                    return None
                continue
            if id not in usable:
                return None
            if made is not None and made.inline is None:
                self._objects.append(made.address)
            version = roots[id] = root(id)
            if local:
                self._answers += [(id, kind, key, answer) for kind, key, answer in observations_of(local)]
            if has_version(id, version):
                self._senders[at] = id
        return DeepTrace(name, ref, roots, self._answers, self._objects, self._senders)

    def _add_recalled(self, name: str) -> bool:
        known = self._recalled.get(name)
        if known is None:
            return False
        self._roots.update(known.roots)
        self._answers += known.answers
        self._objects += known.objects
        self._senders.update(known.senders)
        return True


def _noted_versions(deep: DeepTrace) -> Iterable[tuple[ReactorId, Digest]]:
    """The versions of which the warehouse knew when the deep trace was kept."""
    noted = set(deep.senders.values())
    return [item for item in deep.roots.items() if item[0] in noted]


def _place(name: str) -> str:
    return str(int(hash_text(name)[:4], 16) % _PLACES)


def _generation(warehouse: Warehouse) -> str:
    return warehouse.blob_get("deep trace", "generation") or ""


def _encode(deep: DeepTrace, generation: str) -> str:
    return json.dumps([generation, *deep], separators=(",", ":"))


def _name_in(text: str, generation: str) -> str | None:
    """Whose deep trace it is; None if something was written since, or it makes no sense."""
    beginning = f'["{generation}",'
    if not text.startswith(beginning):
        return None
    try:
        name = _DECODER.raw_decode(text, len(beginning))[0]
    except (ValueError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _decode(text: str, name: str, generation: str) -> DeepTrace | None:
    """The deep trace, if it is of this ingredient and nothing was written since."""
    if _name_in(text, generation) != name:
        return None
    try:
        _, _, ref, roots, answers, objects, senders = json.loads(text)  # fewer: of an earlier version
        told = [(id, *rest) for id, *rest in answers]
        deep = DeepTrace(name, ObjectRef(*ref), dict(roots), told, list(objects), dict(senders))
        # A TypeError unless all are texts.
        "".join((*ref[2:4], *deep.roots, *deep.roots.values(), *objects, *deep.senders.values()))
        "".join([field for answer in deep.answers for field in answer])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None  # it makes no sense: the replays decide
    is_sound = all(len(answer) == 4 and answer[0] in deep.roots for answer in deep.answers)
    is_sound = is_sound and deep.roots.keys() >= set(deep.senders.values())
    return deep if is_sound else None

"""Deep traces: an ingredient together with all that its whole ancestry observed.

Replaying a thousand reactors asks a thousand traces, each for its own question. Where nothing has changed
since the last time, one question does: are all of these fingerprints and answers as they were? A deep
trace is the list of them; if it holds, the ingredient is what it was, and no reactor between has to be
asked. It is only a short cut: where it doesn't hold, or might not, the replays decide, of what has changed and all
that hangs on it (`former.py`). Then it still tells who has sent what: those are asked first, without a look into the
records of all these names.

It is kept for ingredients that somebody outside asked for (the caller, or a reactor that was run by
name), and is good until any trace is written anew: replays of other content might then come out
differently. In the words of "Build Systems à la Carte" (Mokhov, Mitchell, Peyton Jones, 2018): deep
constructive traces, on top of constructive ones that allow early cutoff.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from typing import TYPE_CHECKING

from pyplantx.core.state import sent_names
from pyplantx.core.trace import Digest, Group, ObjectRef, Question, Sent, Step, observations_of
from pyplantx.fingerprint.value import hash_text
from pyplantx.session.deeptraces import (
    DeepTrace,
    Lineage,
    Maker,
    decode_deep,
    decode_lineage,
    digest_and_address,
    encode_deep,
    encode_lineage,
    name_in,
)
from pyplantx.session.former import Former
from pyplantx.session.world import OUTER

if TYPE_CHECKING:
    from pyplantx.core.demand import Demand
    from pyplantx.core.messages import ReactorId
    from pyplantx.session.roster import Roster
    from pyplantx.session.world import Answers
    from pyplantx.warehouse.warehouse import Warehouse

_new = tuple.__new__  # see `core/trace.py`

#: Below this number of reactors the replays are as quick.
_WORTH_IT = 8

#: How many deep traces a store keeps; two names on one place drive each other out.
_PLACES = 64

#: At the end of a demand its ingredients are walked so many times in all: if more names were asked for that hang on
#: the same ones, replaying these is quicker than holding each name's deep trace against the present.
_SHARE = 4


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
        self._formers: dict[str, Former] = {}  # what doesn't hold, by ingredient
        self._first: dict[str, list[ReactorId]] = {}  # ingredient -> who is to be asked before all others
        self._early: dict[str, set[ReactorId]] = {}  # ingredient -> who was
        self.in_use = False  # whether it makes a difference what runs
        self._kept: dict[str, str | None] = {}  # place -> whose deep trace was found there
        self.recalled: dict[str, DeepTrace] = {}
        self.mended: dict[str, Lineage] = {}  # ingredient -> the lineage of its deep trace, that was mended
        self.lent: dict[str, Former] = {}  # ingredient -> who has lent it

    @property
    def knows_some(self) -> bool:
        """Whether a deep trace was found that doesn't hold: it may know more than was asked for from outside."""
        return bool(self._formers)

    def recall(self, name: str, forced: Set[ReactorId]) -> ObjectRef | None:
        """The ingredient, if a deep trace of it holds today and none of these reactors, which run anyway, is in it."""
        deep = self._find(name)
        if deep is None:
            return None
        changed = self._changed(deep)
        changed |= forced & deep.roots.keys()
        if changed:
            self._note_former(deep, changed, forced)
            return None
        return self._note_recalled(deep)

    def _note_recalled(self, deep: DeepTrace) -> ObjectRef:
        self.recalled[deep.name] = deep
        self.in_use = True
        return deep.ref

    def _note_former(self, deep: DeepTrace, changed: set[ReactorId], forced: Set[ReactorId]) -> None:
        lineage = self.lineage(deep)
        self._warehouse.note_versions([(id, deep.roots[id]) for id in lineage])
        former = self._formers[deep.name] = Former(deep, lineage, changed)
        if former.culprit is not None and (former.culprit in forced or self._is_edited(former.culprit, deep)):
            self._first[deep.name] = [former.culprit]
        else:  # another value in the config is meant to make a difference
            former.take_culprit()
            former.shrink()
        self.in_use = self.in_use or not former.is_spent

    def _is_edited(self, id: ReactorId, deep: DeepTrace) -> bool:
        return id in self._reactors and self._reactors.root(id) != deep.roots[id]

    def _find(self, name: str) -> DeepTrace | None:
        """The deep trace of an ingredient. That a place is another's is found out once: the text is long."""
        place = _place(name)
        if self._kept.get(place, name) != name:
            return None
        text = self._warehouse.blob_get("deep trace", place) or ""
        self._kept[place] = name_in(text, self._generation)
        return decode_deep(text, name, self._generation)

    def lineage(self, deep: DeepTrace) -> Lineage:
        """Who received and sent what, as far as that is known."""
        if deep.name in self.mended:
            return self.mended[deep.name]
        text = self._warehouse.blob_get("lineage", _place(deep.name)) or ""
        lineage = decode_lineage(text) if hash_text(text) == deep.lineage else {}
        return lineage if lineage.keys() <= deep.roots.keys() else {}

    def _changed(self, deep: DeepTrace) -> set[ReactorId]:
        reactors, root = self._reactors, self._reactors.root
        answer, is_waived = self._world.answer_once, self._world.is_waived
        changed = {id for id, recorded in deep.roots.items() if id not in reactors or root(id) != recorded}
        for id, kind, key, was in deep.answers:
            if id in changed or answer(reactors[id], Question(kind, key)).answer == was or is_waived(kind, key):
                continue
            changed.add(id)
        return changed

    def _hold_still(self, answers: Iterable[tuple[ReactorId, str, str, Digest]]) -> bool:
        """Whether answers that held are the same now: a reactor that ran meanwhile may have written a file."""
        reactors, answer = self._reactors, self._world.answer_once
        return all(
            kind not in OUTER or answer(reactors[id], Question(kind, key)).answer == was
            for id, kind, key, was in answers
        )

    def begin_run(self, id: ReactorId) -> bool:
        """A reactor begins to run; whether something that was recalled or lent was made by it, and is no more known."""
        if self._covers(id):
            self._revoke()
            return True
        for former in self._formers.values():
            former.note_run(id)
        return False

    def _covers(self, id: ReactorId) -> bool:
        """Whether something that was recalled or lent was made by a reactor."""
        if any(id in deep.roots for deep in self.recalled.values()):
            return True
        return any(id in former.lent for former in self._formers.values())

    def lenders(self) -> Iterator[ReactorId]:
        """The reactors that have made what was lent: they are up to date, as those of what was recalled are."""
        return itertools.chain.from_iterable([former.lent for former in self._formers.values()])

    def _revoke(self) -> None:
        """Of nothing that was recalled or lent it is known any more that it holds."""
        self.recalled.clear()
        self.mended.clear()
        self.lent.clear()
        self._first.clear()
        for former in self._formers.values():
            former.revoke()

    def reached(self) -> list[Digest]:
        """Addresses of all that was recalled or lent, and that these were made of."""
        found = [address for deep in self.recalled.values() for address in deep.objects]
        for former in self._formers.values():
            for id in former.lent:
                found += former.objects_of(id)
        return found

    # ----------------------------------------------------------------- where something has changed

    def lend(self, name: str) -> tuple[ObjectRef, ReactorId] | None:
        """An ingredient in which nobody who has changed had a part, and who made it; each once."""
        for former in self._formers.values():
            sender = former.take_untouched(name)
            if sender is None:
                continue
            ref = self._warehouse.last_ref(name)
            if ref is None or digest_and_address(ref) != former.lineage[sender].sent[name]:
                continue  # it was sent with other content or in another layout since
            makers = list(former.makers_of(name, former.lent))
            if self._hold_still(itertools.chain.from_iterable(map(former.answers_of, makers))):
                former.lent.update(dict.fromkeys(makers))
                self.lent[name] = former
                return ref, sender
        return None

    def first_asked(self, name: str, search: Callable[[str], Sequence[ReactorId]]) -> ReactorId | None:
        """Who is to be asked for an ingredient before others are looked for; each is told once.

        Parameters
        ----------
        name : str
            The ingredient.
        search : callable
            Ingredient to those who have sent it according to the records, the likeliest first.
        """
        first = self._first.get(name)
        if not first:
            return self._take_sender(name)
        id, former = first.pop(), self._formers[name]
        if id != former.culprit or all(search(sent)[:1] == [id] for sent in former.lineage[id].sent):
            self._early.setdefault(name, set()).add(id)
            return id
        former.take_culprit()  # others would be asked for what it sends
        return self._take_sender(name)

    def _take_sender(self, name: str) -> ReactorId | None:
        """Who sent an ingredient of a deep trace that doesn't hold any more, if its code is what it was."""
        for former in self._formers.values():
            sender = former.take_sender(name)
            own = None if sender is None else self._reactors.own(sender)
            if own is not None and self._reactors.root(own) == former.deep.roots[own]:
                return own
        return None

    def mend(self, name: str, demand: Demand, usable: Container[ReactorId]) -> ObjectRef | None:
        """The ingredient, if the one reactor that has changed is through and sent what it had sent; found out once.

        Parameters
        ----------
        name : str
            The ingredient.
        demand : Demand
            Knows what that reactor received and sent.
        usable : container of str
            The reactors of which the traces hold what they did now.
        """
        former = self._formers.get(name)
        culprit = former.take_culprit() if former is not None else None
        if former is None or culprit is None or culprit not in usable:
            return None
        steps = demand.trace(culprit)
        mended = former.mended(culprit, self._reactors.root(culprit), steps)
        if mended is None or not self._hold_still(mended[0].answers):
            former.shrink()
            return None
        rivals = [id for sent in sent_names(steps) for id in self._rivals(sent, culprit) if id in former.deep.roots]
        if rivals:  # replays would have asked both
            self._first[name] = rivals
            return None
        deep, self.mended[name] = mended
        return self._note_recalled(deep)

    def contested(self, steps: Iterable[Step], id: ReactorId) -> Iterator[tuple[str, ReactorId]]:
        """Who sends, too, what a run sends, and may not have been asked: for what is known, or the run came first.

        Parameters
        ----------
        steps : iterable of Step
            The latest steps of the run.
        id : str
            Whose run it is.
        """
        ahead_of = [self._formers[name].deep.roots for name, early in self._early.items() if id in early]
        for step in steps:
            if type(step) is not Sent:
                continue
            for former in self._formers.values():
                former.note_sent(step.name, id)
            if self.recalled or self.lent or ahead_of:
                for rival in self._rivals(step.name, id):
                    if self._covers(rival) or any(rival in roots for roots in ahead_of):
                        yield step.name, rival

    def _rivals(self, name: str, id: ReactorId) -> list[ReactorId]:
        """Those who have ever sent an ingredient, but for one."""
        return [other for other, _ in self._warehouse.producers(name) if other != id and other in self._reactors]

    def way(self, name: str, id: ReactorId) -> list[tuple[ReactorId, str]]:
        """Who asked for what when an ingredient was made, down to a reactor that was asked before all others."""
        return self._formers[name].way_to(name, id) if id in self._early.get(name, ()) else []

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
        for name, lineage in self.mended.items():
            self._keep(self.recalled[name], lineage)
        unasked = set(self.lenders()).union(*[deep.roots for deep in self.recalled.values()])
        left = _SHARE * (len(demand.answered()) + len(unasked))
        taken = {_place(name) for name in self.recalled}
        read: dict[ReactorId, tuple[list[str], list[Group]]] = {}
        for name in names:
            place = _place(name)
            if place in taken or left <= 0:
                continue  # one that this demand had kept would be driven out; or many that have an ancestry in common
            ancestry = _Ancestry(self._reactors, self._warehouse, demand, self, usable)
            deep = ancestry.gather(name, read)
            left -= ancestry.walked
            if deep is not None and len(deep.roots) >= _WORTH_IT:
                self._keep(deep, ancestry.lineage)
                taken.add(place)

    def _keep(self, deep: DeepTrace, lineage: Lineage) -> None:
        place = _place(deep.name)
        if not deep.lineage:
            text = encode_lineage(lineage)
            self._warehouse.blob_put("lineage", place, text)
            deep = deep._replace(lineage=hash_text(text))
        self._warehouse.blob_put("deep trace", place, encode_deep(deep, self._generation))

    def _renew(self) -> None:
        """Make all deep traces void. Before the first trace and after the last one, for others read meanwhile."""
        self._generation = os.urandom(8).hex()
        self._warehouse.blob_put("deep trace", "generation", self._generation)


class _Ancestry:
    """Collects what an ingredient and its ancestry observed."""

    def __init__(
        self, reactors: Roster, warehouse: Warehouse, demand: Demand, recall: Recall, usable: Container[ReactorId]
    ) -> None:
        self._reactors, self._warehouse, self._demand = reactors, warehouse, demand
        self._recall, self._usable = recall, usable
        self._roots: dict[ReactorId, Digest] = {}
        self._answers: list[tuple[ReactorId, str, str, Digest]] = []
        self._objects: list[Digest] = []
        self.lineage: Lineage = {}
        self._met: dict[Former, set[ReactorId]] = {}  # who has lent something -> its reactors that were added
        self.walked = 0  # ingredients, and reactors that nobody has asked

    def gather(self, name: str, read: dict[ReactorId, tuple[list[str], list[Group]]]) -> DeepTrace | None:
        """The deep trace of an ingredient; None if something in its ancestry isn't recorded."""
        ref = self._demand.known(name)
        if ref is None:
            return None
        usable, roots, root, has_version = self._usable, self._roots, self._reactors.root, self._warehouse.has_version
        lineage = self.lineage
        for at, id, made in self._demand.ancestry(name, read):
            self.walked += 1
            if id is None:
                if not self._add_recalled(at):
                    return None
                continue
            if made is None or id not in usable:
                return None
            if made.inline is None:
                self._objects.append(made.address)
            if id not in roots:
                asked, local = read[id]
                version = roots[id] = root(id)
                if local:
                    self._answers += [(id, kind, key, answer) for kind, key, answer in observations_of(local)]
                if has_version(id, version):
                    lineage[id] = _new(Maker, (asked, {}))
            maker = lineage.get(id)
            if maker is not None:
                maker[1][at] = digest_and_address(made)
        return DeepTrace(name, ref, roots, self._answers, self._objects, "")

    def _add_recalled(self, name: str) -> bool:
        """Add what was recalled as a whole; of what was lent, all that had a part in it."""
        known = self._recall.recalled.get(name)
        if known is not None:
            self._add_all(known)
            return True
        former = self._recall.lent.get(name)
        if former is None:
            return False
        met = self._met.setdefault(former, set())
        makers = list(former.makers_of(name, met))
        met.update(makers)
        self.walked += len(makers)
        for id in makers:
            if id not in self._roots:
                self._answers += former.answers_of(id)
            self._objects += former.objects_of(id)
            self._add_maker(id, former.deep.roots[id], former.lineage[id])
        return True

    def _add_all(self, deep: DeepTrace) -> None:
        lineage = self._recall.lineage(deep)
        self.walked += len(deep.roots)
        self._answers += [told for told in deep.answers if told[0] not in self._roots]
        self._objects += deep.objects
        for id, version in deep.roots.items():
            self._add_maker(id, version, lineage.get(id))

    def _add_maker(self, id: ReactorId, version: Digest, maker: Maker | None) -> None:
        """Of one that is there already, only what it sent: it may have sent several ingredients of the ancestry."""
        if id not in self._roots:
            self._roots[id] = version
            if maker is not None:
                self.lineage[id] = Maker(maker.asked, dict(maker.sent))
        elif maker is not None and id in self.lineage:
            self.lineage[id].sent.update(maker.sent)


def _place(name: str) -> str:
    return str(int(hash_text(name)[:4], 16) % _PLACES)


def _generation(warehouse: Warehouse) -> str:
    return warehouse.blob_get("deep trace", "generation") or ""

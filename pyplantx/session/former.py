"""A deep trace that doesn't hold any more, and what can be known from it nevertheless.

Where a reactor has changed, all that it had no part in is what it was. That is *lent* to who asks for it, without
replays. And if only one reactor has changed, it is sure to be asked: until then all goes as it went. So it is asked
first. If it sends what it had sent, nobody behind it can notice, and the deep trace is *mended*: early cutoff for
the whole ancestry at once, instead of a replay for each reactor in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence

from pyplantx.core.messages import ReactorId
from pyplantx.core.state import asked_and_local
from pyplantx.core.trace import Digest, Sent, Step, observations_of
from pyplantx.session.deeptraces import DeepTrace, Lineage, Maker, digest_and_address


class Former:
    """What one deep trace tells where some of its reactors have changed.

    Parameters
    ----------
    deep : DeepTrace
        The deep trace.
    lineage : dict of str to Maker
        Who received and sent what; of a reactor that is not in it nothing is known.
    changed : set of str
        The reactors of which the fingerprint or an answer is another today, and those that are to run anyway.

    Attributes
    ----------
    deep, lineage
        As given.
    lent : dict of str to None
        The reactors that have made what was lent, with their whole ancestry.
    """

    def __init__(self, deep: DeepTrace, lineage: Lineage, changed: set[ReactorId]) -> None:
        self.deep, self.lineage = deep, lineage
        self.lent: dict[ReactorId, None] = {}
        self._senders: dict[str, ReactorId] = {name: id for id, maker in lineage.items() for name in maker.sent}
        self._guesses = dict(self._senders)
        self._touched = self._touched_by(changed)
        self._untouched = {name for name, id in self._senders.items() if id not in self._touched}
        self._lendable = set(self._untouched)
        self._culprit = self._only_one(changed)
        self._objects = set(deep.objects)
        self._told: dict[ReactorId, list[tuple[ReactorId, str, str, Digest]]] = {}

    def _touched_by(self, changed: set[ReactorId]) -> set[ReactorId]:
        """The reactors that may come out different, and those of which that isn't known."""
        touched = changed | (self.deep.roots.keys() - self.lineage.keys())
        users: dict[ReactorId, list[ReactorId]] = {}
        for id, maker in self.lineage.items():
            for name in maker.asked:
                sender = self._senders.get(name)
                if sender is None:
                    touched.add(id)
                else:
                    users.setdefault(sender, []).append(id)
        queue = list(touched)
        for id in queue:
            for user in users.get(id, ()):
                if user not in touched:
                    touched.add(user)
                    queue.append(user)
        return touched

    def _only_one(self, changed: set[ReactorId]) -> ReactorId | None:
        """Who has changed, if that is one on whom the ingredient hangs, and of all it is known who sent it."""
        if len(changed) != 1 or self.lineage.keys() != self.deep.roots.keys():
            return None
        asked = itertools.chain.from_iterable([maker.asked for maker in self.lineage.values()])
        is_whole = all(map(self._senders.__contains__, asked))
        return next(iter(changed)) if is_whole and self._senders.get(self.deep.name) in self._touched else None

    # ----------------------------------------------------------------- what is as it was

    def take_sender(self, name: str) -> ReactorId | None:
        """Who sent an ingredient; told once."""
        return self._guesses.pop(name, None)

    def take_untouched(self, name: str) -> ReactorId | None:
        """Who made an ingredient that is what it was; told once: who asks again could not use it."""
        if name not in self._lendable:
            return None
        self._lendable.remove(name)
        return self._senders[name]

    def makers_of(self, name: str, known: Container[ReactorId]) -> Iterator[ReactorId]:
        """The reactors that had a part in an ingredient; not those that are known, nor who is behind these alone."""
        pending, seen = [self._senders[name]], set[ReactorId]()
        while pending:
            id = pending.pop()
            if id in seen or id in known:
                continue
            seen.add(id)
            pending += [self._senders[asked] for asked in self.lineage[id].asked]
            yield id

    @property
    def is_spent(self) -> bool:
        """Whether it can only tell any more who sent what."""
        return not self._lendable and not self.lent and self._culprit is None

    def shrink(self) -> None:
        """Let go of the lineage if it is of no more use; it is large, and the replays that follow need the memory."""
        if self.is_spent:
            self.lineage, self._senders = {}, {}

    def answers_of(self, id: ReactorId) -> list[tuple[ReactorId, str, str, Digest]]:
        """What a reactor was told in answer to questions that are not about ingredients."""
        if not self._told:
            for told in self.deep.answers:
                self._told.setdefault(told[0], []).append(told)
        return self._told.get(id, [])

    def objects_of(self, id: ReactorId) -> list[Digest]:
        """Addresses of what a reactor sent that has a payload of its own."""
        return [address for _, address in self.lineage[id].sent.values() if address in self._objects]

    def note_run(self, id: ReactorId) -> None:
        """A reactor begins to run. One that hasn't changed (a payload is gone) may send other content, too."""
        if id in self.deep.roots and id != self._culprit:
            self._culprit = None
            if id not in self._touched:
                self._lendable.clear()

    def note_sent(self, name: str, id: ReactorId) -> None:
        """A run has sent an ingredient. If another had sent it, who asks for it from now on gets this one."""
        if self._senders.get(name, id) != id:
            self._lendable.clear()
            if id != self._culprit:  # of what that sends, see `Recall.mend`
                self._culprit = None

    def revoke(self) -> None:
        """Of nothing that was lent, or might be, it is known any more that it holds."""
        self._lendable.clear()
        self.lent.clear()
        self._culprit = None

    # ----------------------------------------------------------------- who has changed

    @property
    def culprit(self) -> ReactorId | None:
        """The reactor that has changed, if it is the only one and no other one that matters has run since."""
        return self._culprit

    def take_culprit(self) -> ReactorId | None:
        """The culprit, once: what it has sent is held against what it had sent when it is through."""
        culprit, self._culprit = self._culprit, None
        return culprit

    def mended(self, culprit: ReactorId, root: Digest, steps: Sequence[Step]) -> tuple[DeepTrace, Lineage] | None:
        """The deep trace and the lineage of today, if the culprit has sent what it had sent.

        Parameters
        ----------
        culprit : str
            The reactor that had changed.
        root : Digest
            Its fingerprint.
        steps : sequence of Step
            Its trace.
        """
        asked, local = asked_and_local(steps)
        sent = dict([step for step in steps if type(step) is Sent])
        was = self.lineage[culprit]
        if any(name not in sent or sent[name].digest != digest for name, (digest, _) in was.sent.items()):
            return None
        if not self._untouched.issuperset(asked):
            return None  # it has other ancestors
        told = [(culprit, *observed) for observed in observations_of(local)]
        deep = self.deep._replace(
            roots={**self.deep.roots, culprit: root},
            answers=[answer for answer in self.deep.answers if answer[0] != culprit] + told,
        )
        now = Maker(asked, {name: digest_and_address(sent[name]) for name in was.sent})
        if now == was:
            return deep, self.lineage
        lineage = {**self.lineage, culprit: now}
        stored = self._objects.union([ref.address for ref in sent.values() if ref.inline is None])
        addresses = [address for maker in lineage.values() for _, address in maker.sent.values()]
        return deep._replace(objects=[one for one in addresses if one in stored], lineage=""), lineage

    def way_to(self, name: str, id: ReactorId) -> list[tuple[ReactorId, str]]:
        """Who asked for what, from the sender of an ingredient down to a reactor; nobody if that is the sender."""
        came: dict[ReactorId, tuple[ReactorId, str]] = {}
        queue = [self._senders[name]] if name in self._senders else []
        for at in queue:
            for asked in self.lineage[at].asked:
                sender = self._senders.get(asked)
                if sender is not None and sender not in came:
                    came[sender] = (at, asked)
                    queue.append(sender)
        way: list[tuple[ReactorId, str]] = []
        while queue and id != queue[0] and id in came:
            way.append(came[id])
            id = came[id][0]
        return way[::-1]

"""Who is asked for an ingredient, one after the other.

The stages are those of `FindProducers`, in the order that docs/design/core.md tells. Before them all comes a newcomer:
in a session that goes on, what somebody has just written counts more than what has run.
This file may know: reactors and their code, who has sent what. It may not know: events, what deep traces say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pyplantx.core.messages import ProducersFound, ReactorId
from pyplantx.reactor import default_registry

if TYPE_CHECKING:
    from pyplantx.core.demand import Demand
    from pyplantx.core.trace import Digest
    from pyplantx.session.roster import Roster
    from pyplantx.session.trees import Trees
    from pyplantx.session.world import Answers
    from pyplantx.warehouse.warehouse import Warehouse

_new = tuple.__new__  # see `core/trace.py`

#: Stages of the search for a producer; see `FindProducers`.
FORMER, LAST_STAGE = -1, 3


class Search:
    """The order of candidates, in one activity.

    Parameters
    ----------
    reactors, warehouse, trees, world, demand
        What tells who might send an ingredient, and how those fared who were asked.
    starts_none : bool
        Whether those who would have to run are not started.

    Attributes
    ----------
    newcomers : dict of str to list of str
        Ingredients that others have sent -> who were defined since then to send them, and have never run, the last one
        first.
    rivals : dict of str to list of str
        Ingredients that several have sent in their present versions.
    reverted : set of str
        Reactors whose present versions are not the last ones that ran.
    """

    def __init__(
        self,
        reactors: Roster,
        warehouse: Warehouse,
        trees: Trees,
        world: Answers,
        demand: Demand,
        starts_none: bool = False,
    ) -> None:
        self._reactors, self._warehouse, self._demand, self._starts_none = reactors, warehouse, demand, starts_none
        self._trees, self._world = trees, world
        self.rivals: dict[str, list[ReactorId]] = {}
        self.reverted: set[ReactorId] = set()
        self._strangers: tuple[ReactorId, ...] | None = None  # found out once: those that have run since are through
        self._asked: dict[str, list[ReactorId]] = {}  # ingredient -> the newcomers that were asked for it
        self.newcomers = self._look_for_newcomers() if default_registry.late else {}

    # ----------------------------------------------------------------- newcomers

    def _look_for_newcomers(self) -> dict[str, list[ReactorId]]:
        """In a notebook a reactor gets another name, or moves to a module and is edited there.

        The old one is still registered, and up to date; what it has sent is not what the session's code says now.
        """
        reactors, found = self._reactors, dict[str, list[ReactorId]]()
        for id, names in reactors.late_senders(self._has_run):
            rivalled = [name for name in names if self._others(id, name)]
            has_run = reactors.has_run(id)
            if has_run and not rivalled:
                reactors.settle(id)
            for name in rivalled if not has_run else ():
                if not reactors.is_asked_in_vain(id, name):
                    found.setdefault(name, []).insert(0, id)
        return found

    def _others(self, id: ReactorId, name: str) -> list[ReactorId]:
        """Who has sent an ingredient, that a late one may be the later version of; nobody if one is later still."""
        others = [who for who, _ in self._warehouse.producers(name) if who in self._reactors]
        if any(default_registry.was_defined_after(who, id) for who in others):
            return []
        return [who for who in others if default_registry.may_stand_for(id, who)]

    def stood_for(self) -> dict[ReactorId, str]:
        """Those who are not asked as long as newcomers send what they have sent, and why, in words."""
        return {
            who: f"{self._reactors.told_apart(id, who)[0]}, which was defined after it, may send {name!r}"
            for name, ids in self.newcomers.items()
            for id in reversed(ids)
            for who in self._others(id, name)
        }

    def newcomer(self, name: str) -> ProducersFound | None:
        """The next one who was defined to send an ingredient after others; as a guess; if it fails, nobody else."""
        asked = self._asked.setdefault(name, [])
        if asked and self._demand.failure(asked[-1]) is not None:
            return _new(ProducersFound, (name, LAST_STAGE - 1, (), False))
        if asked and not self._starts_none:
            self._reactors.note_asked_in_vain(asked[-1], name)
        remaining = self.newcomers.get(name, [])[len(asked) :]
        if not remaining:
            return None
        asked.append(remaining[0])
        return _new(ProducersFound, (name, FORMER, (remaining[0],), False))

    # ----------------------------------------------------------------- stages

    def from_stage(self, name: str, stage: int) -> ProducersFound:
        """The candidates of a stage, or of the first one after it that has any."""
        candidates = self._candidates(name, stage)
        while not candidates and stage < LAST_STAGE - 1:
            stage += 1
            candidates = self._candidates(name, stage)
        return _new(ProducersFound, (name, stage, tuple(candidates), stage == LAST_STAGE))

    def _candidates(self, name: str, stage: int) -> Sequence[ReactorId]:
        if stage == 0:
            return self.traced(name)
        if stage == 1:
            return self._reactors.declared(name)
        if stage == 2:
            return self._reactors.hinted(name)
        if self._strangers is None:
            self._strangers = tuple(self._reactors.others(self._has_run))
        return self._reactors.mentioned_first(name, self._strangers)

    def is_guess(self, id: ReactorId, name: str) -> bool:
        """Whether only a run could tell that a reactor sends an ingredient."""
        return id in (self._strangers or ()) and id not in self.traced(name)

    def _has_run(self, root: Digest) -> bool:
        return self._warehouse.find_record(root) is not None

    def traced(self, name: str) -> list[ReactorId]:
        """Who sent it before: first those whose present version did, the newest first."""
        reactors, noted = self._reactors, self._warehouse.producers(name)
        if len(noted) == 1 and (own := reactors.own(noted[0][0])) is not None:
            return [own] if reactors.root(own) == noted[0][1] or self._may_send_still(own, name) else []
        current: list[ReactorId] = []
        former: list[ReactorId] = []
        for id, root in noted:
            found = id if id in reactors else reactors.with_root(root)
            if found is None:
                continue
            is_current = reactors.root(found) == root
            (current if is_current else former).append(found)
            if is_current and found in former:
                self.reverted.add(found)
        if len(set(current)) > 1:
            self.rivals[name] = list(dict.fromkeys(current))
            current.sort(key=partial(self._outlook, name))
        return list(dict.fromkeys(current + [id for id in former if self._may_send_still(id, name)]))

    def _may_send_still(self, id: ReactorId, name: str) -> bool:
        """Not one whose code no longer names it, where another's does: it would have to run to find that out."""
        reactors = self._reactors
        return reactors.hints_at(id, name) or not (reactors.declared(name) or reactors.hinted(name))

    def _outlook(self, name: str, id: ReactorId) -> int:
        """Those whose traces lead to the ingredient today come first: then the others need not run to find out."""
        return self._trees.outlook(id, name, partial(self._world.answer, self._reactors[id]))

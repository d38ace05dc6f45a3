"""A toy plant: a dictionary for an index, a plain hash for digests, generators over toy requests.

It drives `Scheduler` through ``handle`` as ``pyplantx/session/activity.py`` does. A session is one demand; the
index lives on from session to session. A *program* maps reactor ids to `Reactor`; a reactor's body is a
generator function that is given a `Pipe`, yields tuples of names, and is sent tuples of values.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

from pyplantx.core import messages as m
from pyplantx.core.scheduler import MOST_LOSSES, Scheduler
from pyplantx.core.trace import (
    ABSENT,
    Group,
    ObjectRef,
    Observation,
    Sent,
    decode_segment,
    encode_segment,
    graft,
    ingredients_received,
)


def hash_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class ToyError(Exception):
    """What a toy reactor raises of its own accord."""


class Thrown(Exception):
    """What a toy reactor meets at its yield when an ingredient can't be had."""

    def __init__(self, failure: m.Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


Body = Callable[["Pipe"], Generator[tuple[str, ...], tuple[Any, ...], None]]


class Reactor(NamedTuple):
    """A toy reactor.

    `sends` are declared names, `hints` those that its code mentions, `whole` whether there are no others.
    """

    version: str
    body: Body
    sends: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    whole: bool = True


Program = dict[str, Reactor]


class Pipe:
    """What a toy reactor may do besides asking."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.chance = run.session.chance

    def send(self, name: str, value: Any) -> None:
        self._run.steps.append(Sent(name, self._run.session.store(name, value)))

    def config(self, key: str) -> Any:
        observation = self._run.session.answer(m.Question("config", key))
        if observation not in self._run.seen:
            self._run.seen.add(observation)
            self._run.steps.append(Group((observation,)))
        return self._run.session.config.get(key)


class Run:
    """One run of one toy reactor."""

    def __init__(self, id: str, session: Session, ahead: tuple[m.Given, ...] = ()) -> None:
        self.id, self.session, self.ahead = id, session, list(ahead)
        self.steps: list[Any] = []
        self.seen: set[Observation] = set()
        self.body = session.program[id].body(Pipe(self))
        self.swallowing = self.swallowed = False
        self.asked: tuple[str, ...] = ()

    def resume(self, refs: tuple[ObjectRef, ...] | None) -> m.Event:
        if refs is None:
            return self._step(self.body.send, None)
        missing = [name for name, ref in zip(self.asked, refs, strict=True) if ref.address not in self.session.payloads]
        if missing:
            return m.Missing(self.id, tuple(missing))
        return self._step(self.body.send, tuple([self.session.payloads[ref.address] for ref in refs]))

    def throw(self, failure: m.Failure) -> m.Event:
        self.swallowing = True
        return self._step(self.body.throw, failure.error or Thrown(failure))

    def _step(self, function: Callable[[Any], tuple[str, ...]], argument: Any) -> m.Event:
        try:
            self.asked = function(argument)
            while self.ahead and self._is_next():
                given = self.ahead.pop(0)
                self.session.hurried += 1
                self.steps.append(ingredients_received(*given))
                self.asked = self.body.send(tuple([self.session.payloads[ref.address] for ref in given.refs]))
        except StopIteration:
            return m.Ended(self.id, self._take(), not (self.swallowed or self.swallowing))
        except (ToyError, Thrown) as error:
            return m.Raised(self.id, self._take(), error)
        self.swallowed, self.swallowing = self.swallowed or self.swallowing, False
        return m.Asked(self.id, self._take(), self.asked)

    def _is_next(self) -> bool:
        """Whether it asks for what it is given next, has sent nothing, and the payloads are there."""
        names, refs = self.ahead[0]
        there = all(ref.address in self.session.payloads for ref in refs)
        fits = names == self.asked and there and not any(isinstance(step, Sent) for step in self.steps)
        if not fits:
            self.ahead.clear()
        return fits

    def _take(self) -> tuple[Any, ...]:
        steps, self.steps = tuple(self.steps), []
        return steps


class Watched(Scheduler):
    """Notes whether content that was told, by a replay perhaps, came to be other content later."""

    taken_back = False

    def _sent(self, conversation: Any, sent: Sent, position: int) -> bool:
        before = self._ingredients[sent.name].ref
        self.taken_back = self.taken_back or (before is not None and before.digest != sent.ref.digest)
        return super()._sent(conversation, sent, position)


class Deep(NamedTuple):
    """An ingredient, the roots and observations of its ancestry, who sent what of that, and what (for the oracle)."""

    ref: ObjectRef
    roots: dict[str, str]
    local: list[Observation]
    senders: dict[str, str]
    refs: dict[str, ObjectRef | None]


class Index:
    """What outlives a session."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.senders: dict[str, list[tuple[str, str]]] = {}  # name -> (reactor, root), the newest first
        self.payloads: dict[str, Any] = {}
        self.deep: dict[str, Deep] = {}  # void when a record is written
        self.traces: dict[str, list[tuple[Any, ...]]] = {}  # root -> every trace ever recorded; for the oracle only


class Session:
    """One demand.

    Parameters
    ----------
    shuffle : random.Random, optional
        Events of different reactors then come in any order, as from many workers.
    losses : float
        How probable it is that a worker dies in a step.
    unfiltered : bool
        The last stage of a search names all reactors, not only those whose code hides what they send.
    recalls : bool
        What is wanted from outside is recalled as a whole, where nothing in its ancestry has changed.
    rivals : float
        How probable it is that a reactor is to be reconsidered instead of started.
    hurries : float
        How probable it is that a run goes on at once with what it was started with.
    """

    def __init__(
        self,
        index: Index,
        program: Program,
        config: dict[str, Any] | None = None,
        *,
        dry: bool = False,
        chance: random.Random | None = None,
        shuffle: random.Random | None = None,
        losses: float = 0.0,
        unfiltered: bool = False,
        recalls: bool = False,
        rivals: float = 0.0,
        hurries: float = 0.5,
    ) -> None:
        self.index, self.program, self.config, self.dry = index, program, config or {}, dry
        self.chance = chance or random.Random(0)
        self.shuffle, self.losses, self.unfiltered = shuffle, losses, unfiltered
        self.recalls, self.rivals, self.hurries = recalls, rivals, hurries
        self.hurried = 0
        self.haste = random.Random(1)  # of its own: the programs' chance stays what it is without
        self.outside: set[str] = set()
        self.recalled = 0
        self.recalled_from: list[Deep] = []  # of what was recalled
        self.forced: set[str] = set()
        self.compared: set[str] = set()  # what was held against its deep trace
        self.former: dict[str, str] = {}  # name -> sender, of what was recalled and doesn't hold
        self.reconsidered: set[str] = set()
        self.payloads = index.payloads
        self.scheduler = Watched(hash_text, self._look_up, self._segment)
        self.started: list[tuple[str, m.Reason]] = []
        self.recorded: list[tuple[str, tuple[Any, ...]]] = []
        self.told: list[tuple[Any, ...]] = []  # beside `started`: what that run observed, if it was recorded
        self.declined: list[str] = []
        self.reused: list[str] = []
        self.held: set[str] = set()  # reactors of whose last pass there is a trace
        self.runs: dict[str, Run] = {}
        self.lost = 0
        self.replaced: set[str] = set()  # names that came with different content
        self.contents: dict[str, str] = {}
        self.over: m.Deliver | m.GiveUp | None = None
        self._lanes: dict[str, list[m.Event]] = {}
        self._do: dict[type, Callable[[Any], None]] = {
            m.FindProducers: self._find_producers,
            m.Observe: self._observe,
            m.Start: self._start,
            m.Resume: self._resume,
            m.Throw: self._throw,
            m.Drop: self._drop,
            m.Record: self._record,
            m.Reuse: self._reuse,
            m.Deliver: self._end,
            m.GiveUp: self._end,
        }

    # ------------------------------------------------------------- what a test asks for

    def produce(self, *names: str) -> list[Any]:
        return self.meet(m.Demanded(names))

    def run_reactor(self, *ids: str, force: bool = True) -> None:
        self.meet(m.Demanded((), ids if force else (), () if force else ids))

    def meet(self, demand: m.Demanded) -> list[Any]:
        self._say(demand, "")
        self.outside.update(demand.names)
        self.forced.update(demand.forced)
        while True:
            while self.over is None:
                self._drain()
                if self.over is None:
                    self._say(m.Idle(), "")
            if isinstance(self.over, m.GiveUp):
                raise self.over.failure.error or Thrown(self.over.failure)
            refs = self.over.refs
            missing = [n for n, ref in zip(self.over.names, refs) if ref.address not in self.payloads]
            if not missing:
                self._keep_deep_traces()
                return [self.payloads[ref.address] for ref in refs]
            self.over = None
            self._say(m.Missing("", tuple(missing)), "")

    def inspect(self, demand: m.Demanded) -> list[str]:
        """A dry run: who would run first."""
        assert self.dry
        self._say(demand, "")
        self._drain()
        return self.declined

    @property
    def ran(self) -> list[str]:
        return [id for id, _ in self.started]

    def lost_for_good(self) -> set[str]:
        """Reactors whose workers died so often that they were not started again."""
        return {c.id for c in self.scheduler.demand.conversations.values() if c.losses > MOST_LOSSES}

    def root(self, id: str) -> str:
        return hash_text(f"{id} {self.program[id].version}")

    def answer(self, question: m.Question) -> Observation:
        value = self.config.get(question.key)
        return Observation(*question, ABSENT if value is None else hash_text(repr(value)), repr(value))

    def store(self, name: str, value: Any) -> ObjectRef:
        digest = hash_text(repr(value))
        self.payloads[digest] = value
        if self.contents.setdefault(name, digest) != digest:
            self.replaced.add(name)
        return ObjectRef("toy", 1, digest, digest, len(repr(value)))

    # ------------------------------------------------------------- the loop

    def _say(self, event: m.Event, lane: str) -> None:
        self._lanes.setdefault(lane if self.shuffle else "", []).append(event)

    def _drain(self) -> None:
        while self._lanes:
            lane = self.shuffle.choice(list(self._lanes)) if self.shuffle else ""
            event = self._lanes[lane].pop(0)
            if not self._lanes[lane]:
                del self._lanes[lane]
            for instruction in self.scheduler.handle(event):
                self._do[type(instruction)](instruction)

    def _end(self, instruction: m.Deliver | m.GiveUp) -> None:
        self.over = instruction

    def _segment(self, key: str) -> Any:
        text = self.index.records.get(key)
        return decode_segment(text) if text is not None else None

    def _look_up(self, id: str) -> tuple[str, Any]:
        key = self.root(id)
        return key, self._segment(key)

    def _find_producers(self, instruction: m.FindProducers) -> None:
        name, stage = instruction
        deep = self.index.deep.get(name) if stage == 0 and self.recalls and not self.dry else None
        if deep is not None and name in self.outside:
            if self._holds(deep) and self.forced.isdisjoint(deep.roots):
                self.outside.remove(name)  # not a second time, if it can't be opened
                self.recalled += 1
                self.recalled_from.append(deep)
                self._say(m.Recalled(name, deep.ref), f"search {name}")
                return
            if name not in self.compared:  # once, as what it tells is told once
                self.former.update(deep.senders)
            self.compared.add(name)
        if stage == 0 and self.former.get(name) in self.program:
            self._say(m.ProducersFound(name, -1, (self.former.pop(name),), False), f"search {name}")
            return
        self._say(m.ProducersFound(name, stage, tuple(self._candidates(name, stage)), stage == 3), f"search {name}")

    def _candidates(self, name: str, stage: int) -> Iterable[str]:
        if stage == 0:
            noted = [(id, root) for id, root in self.index.senders.get(name, ()) if id in self.program]
            return dict.fromkeys([id for id, root in noted if self.root(id) == root] + [id for id, _ in noted])
        if stage == 1:
            return [id for id, reactor in self.program.items() if name in reactor.sends]
        if stage == 2:
            return [id for id, reactor in self.program.items() if name in reactor.hints]
        others = [id for id, reactor in self.program.items() if self.unfiltered or not reactor.whole]
        return sorted(others, key=lambda id: self.root(id) in self.index.records)

    def _observe(self, instruction: m.Observe) -> None:
        answers = tuple([self.answer(question) for question in instruction.questions])
        self._say(m.Observed(instruction.reactor, answers), instruction.reactor)

    def _holds(self, deep: Deep) -> bool:
        known = all(id in self.program and self.root(id) == root for id, root in deep.roots.items())
        return known and all(self.answer(o.question).answer == o.answer for o in deep.local)

    def _keep_deep_traces(self) -> None:
        """For each name that was wanted from outside: all that its ancestry observed."""
        for name in self.outside if self.recalls else ():
            roots: dict[str, str] = {}
            local: list[Observation] = []
            senders: dict[str, str] = {}
            ref, queue = self.scheduler.demand.known(name), [name]
            for at in queue:
                id = self.scheduler.demand.sender(at)
                if id not in self.held:
                    break  # recalled itself; or it caught a failure, which may be mended behind the deep trace's back
                senders[at] = id
                if id in roots:
                    continue
                roots[id] = self.root(id)
                for step in self.scheduler.demand.trace(id):
                    for o in step.observations if isinstance(step, Group) else ():
                        queue.append(o.key) if o.kind == "ingredient" else local.append(o)
            else:
                if ref is not None:
                    refs = {at: self.scheduler.demand.known(at) for at in senders}
                    self.index.deep[name] = Deep(ref, roots, local, senders, refs)

    # ------------------------------------------------------------- running

    def _start(self, instruction: m.Start) -> None:
        id, reason, ahead, _ = instruction
        if self.dry:
            self.declined.append(id)
            self._say(m.Declined(id), id)
            return
        assert id not in self.runs, f"{id} is started while it runs"
        if self.chance.random() < self.rivals and reason.kind in ("new", "changed") and id not in self.reconsidered:
            self.reconsidered.add(id)
            self._say(m.Reconsider(id), id)
            return
        if any(id in deep.roots for deep in self.recalled_from):
            self.recalled_from.clear()
            self._say(m.Revoked(), "")
        self.started.append((id, reason))
        self.told.append(())
        self.held.discard(id)
        self.runs[id] = Run(id, self, ahead if self.haste.random() < self.hurries else ())
        self._step(id, lambda run: run.resume(None))

    def _resume(self, instruction: m.Resume) -> None:
        assert self.runs[instruction.reactor].asked == instruction.names
        self._step(instruction.reactor, lambda run: run.resume(instruction.refs))

    def _throw(self, instruction: m.Throw) -> None:
        self._step(instruction.reactor, lambda run: run.throw(instruction.failure))

    def _drop(self, instruction: m.Drop) -> None:
        self.runs.pop(instruction.reactor).body.close()

    def _step(self, id: str, step: Callable[[Run], m.Event]) -> None:
        if self.losses and self.chance.random() < self.losses:
            self.lost += 1
            self.runs.pop(id).body.close()
            self._say(m.Lost(id), id)
            return
        outcome = step(self.runs[id])
        if isinstance(outcome, (m.Ended, m.Raised)):
            del self.runs[id]
        if isinstance(outcome, m.Asked) and id in self.scheduler.demand.wanted:
            self.outside.update(outcome.names)
        self._say(outcome, id)

    def _reuse(self, instruction: m.Reuse) -> None:
        self.reused.append(instruction.reactor)
        self.held.add(instruction.reactor)

    def _record(self, instruction: m.Record) -> None:
        id, root, steps, _ = instruction
        self.held.add(id)
        self.recorded.append((id, steps))
        self.told[max(nr for nr, (started, _) in enumerate(self.started) if started == id)] = steps
        self.index.deep.clear()
        self.index.traces.setdefault(root, []).append(steps)
        grafted = graft(root, steps, self._segment, hash_text)
        if grafted is not None:
            self.index.records[grafted[0]] = encode_segment(grafted[1])
        for step in steps:
            if isinstance(step, Sent):
                noted = self.index.senders.setdefault(step.name, [])
                if (id, root) in noted:
                    noted.remove((id, root))
                noted.insert(0, (id, root))

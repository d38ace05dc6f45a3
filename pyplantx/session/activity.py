"""One demand, from the question to the answer: the loop between scheduler, warehouse and executor.

Events go to the scheduler, its instructions come back and are carried out here, one function for each
kind. The loop ends when the scheduler delivers or gives up. docs/design/core.md tells the walks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pyplantx.basics.logs import log
from pyplantx.core.messages import (
    Asked,
    Declined,
    Deliver,
    Demanded,
    Drop,
    Ended,
    Event,
    Failure,
    FindProducers,
    Given,
    GiveUp,
    Idle,
    Missing,
    Observe,
    Observed,
    ProducersFound,
    Raised,
    ReactorId,
    Reason,
    Recalled,
    Reconsider,
    Record,
    Resume,
    Reuse,
    Revoked,
    Start,
    Throw,
)
from pyplantx.core.scheduler import Scheduler
from pyplantx.core.trace import Digest, ObjectRef, Observation, Sent, Step, encode_segment
from pyplantx.errors import PayloadMissing, StoreReadOnly
from pyplantx.events import EventType, call_each
from pyplantx.executors.garbage import Garbage, note_shortage
from pyplantx.explain import CodeChange, Decision, decide, up_to_date
from pyplantx.fingerprint.value import hash_text
from pyplantx.runs.failures import describe_request_chain, error_of, is_described, note_opened
from pyplantx.runs.run import Run
from pyplantx.session.recall import Recall
from pyplantx.session.search import FORMER, Search
from pyplantx.session.trees import ACCEPTED, Segments, Trees
from pyplantx.session.turns import Turns
from pyplantx.warehouse.records import HistoryEntry
from pyplantx.warehouse.waiting import Commit

if TYPE_CHECKING:
    from pyplantx.events import Listeners
    from pyplantx.executors import Executor, Reply
    from pyplantx.session.roster import Roster
    from pyplantx.session.world import Answers
    from pyplantx.warehouse.warehouse import Warehouse

_new = tuple.__new__  # see `core/trace.py`

#: Seconds between two looks at what waits to be written and what has become durable, between steps of user code.
_LOOK_AROUND_EVERY = 0.001


class Activity:
    """Meets one demand.

    Parameters
    ----------
    reactors, warehouse, executor, world, listeners, segments
        The parts of the plant.
    describe : callable
        Config key to words.
    finish : callable
        Called at the end of a demand, met or not.
    claim_timeout : float
        Seconds to wait for another process that runs the same reactor on the same inputs.
    dry : bool
        Start nothing: only find out what would run.
    """

    def __init__(
        self,
        reactors: Roster,
        warehouse: Warehouse,
        executor: Executor,
        world: Answers,
        listeners: Listeners,
        segments: Segments,
        describe: Callable[[str], str],
        finish: Callable[[Activity], None],
        claim_timeout: float = 600.0,
        dry: bool = False,
    ) -> None:
        self.reactors, self.warehouse, self.executor = reactors, warehouse, executor
        self.world, self.listeners, self.describe, self.dry = world, listeners, describe, dry
        self._starts_none = dry or warehouse.read_only
        self._finish = finish
        self._trees = Trees(warehouse, reactors, segments)
        self._scheduler = Scheduler(hash_text, self._trees.root, self._trees.find)
        self.demand = self._scheduler.demand
        self.decisions: dict[ReactorId, Decision] = {}
        self.reused: set[ReactorId] = set()  # those that were found up to date
        self.history: list[HistoryEntry] = []
        self._recall = Recall(warehouse, reactors, world)
        self._outside: dict[str, int] = {}  # what was asked for from outside -> how often it was looked for
        self._turns = Turns(warehouse, claim_timeout, self._trees.is_alone_since)
        self._events: deque[Event] = deque()
        self._forced: frozenset[ReactorId] = frozenset()
        self._recorded: set[ReactorId] = set()  # those whose last runs are in the traces
        self._started: dict[ReactorId, float] = {}
        self._busy: dict[ReactorId, float] = {}
        self._unfinished: dict[ReactorId, None] = {}  # those that are in the middle of a run, in order of their starts
        self.search = Search(reactors, warehouse, self._trees, world, self.demand, self._starts_none)
        self._would_get: set[str] = set()  # what reactors would receive that would run, as far as that is known
        self._frozen = False
        self._look_around_at = self._step_begun = 0.0
        self._due: deque[Callable[[], None]] = deque()  # what is still to be told of commits that are durable
        self._garbage = Garbage()
        self._over: Deliver | GiveUp | None = None
        self._error: BaseException = AssertionError("the demand was not given up")
        self._do: dict[type, Callable[[Any], None]] = {
            FindProducers: self._find_producers,
            Observe: self._observe,
            Start: self._start,
            Resume: self._resume,
            Throw: self._throw,
            Drop: self._drop,
            Record: self._record,
            Reuse: self._reuse,
            Deliver: self._end,
            GiveUp: self._end,
        }

    # ----------------------------------------------------------------- the loop

    def meet(self, names: tuple[str, ...], forced: tuple[ReactorId, ...], wanted: tuple[ReactorId, ...]) -> list[Any]:
        """Meet a demand.

        Parameters
        ----------
        names : tuple of str
            Ingredients whose values are wanted.
        forced, wanted : tuple of str
            Reactors that are to run, or to be up to date.

        Returns
        -------
        list of object
            The values of `names`.

        Raises
        ------
        Exception
            What a needed reactor raised, or an `IngredientError`.
        """
        self._outside.update(dict.fromkeys(names, 0))
        self._forced = frozenset(forced)
        self._events.append(Demanded(names, forced, wanted))
        with self._garbage:
            try:
                return self._work_until_open()
            finally:
                self._leave()

    def _leave(self) -> None:
        """Each of these, whatever comes between: Ctrl-C, a full disk, a listener that raises."""
        try:
            self.executor.close()
        finally:
            try:
                self._note_unfinished()
            finally:
                self.reused.update(self._recall.lenders())
                try:
                    self._finish(self)
                finally:  # nobody waits for what is not done any more
                    self._turns.release_all()

    def inspect(self, names: tuple[str, ...], wanted: tuple[ReactorId, ...]) -> dict[str, ObjectRef]:
        """Replay, start nothing; the refs of those `names` that are up to date."""
        self._events.append(Demanded(names, (), wanted))
        with self._garbage:
            self._drain()
        refs = {name: self.demand.known(name) for name in names}
        return {name: ref for name, ref in refs.items() if ref is not None}

    def inspect_with_payloads(self, wanted: tuple[ReactorId, ...]) -> None:
        """`inspect`, and see whether the payloads are there that somebody would want to have.

        These are of what nobody receives, for that is asked for from outside, and of what those receive who would run.
        Nothing is read. Of whatever else a digest is enough.
        """
        self.inspect((), wanted)
        names = self._received_by_nobody(wanted) | self._would_get
        while names:
            refs = {name: self.demand.known(name) for name in sorted(names)}
            gone = [name for name, ref in refs.items() if ref is not None and not self.warehouse.has(ref)]
            self._would_get = set()
            if gone:
                self._events.append(Missing("", tuple(gone)))
                self._drain()
            names = self._would_get - refs.keys()

    def _received_by_nobody(self, ids: tuple[ReactorId, ...]) -> set[str]:
        sent = {step.name for id in ids for step in self.demand.trace(id) if type(step) is Sent}
        return sent.difference(*[self.demand.inputs(id) for id in ids])

    def let_go(self) -> None:
        """Nobody asks any more. Errors lead to frames, these to values and back here: what they hold goes now."""
        self._do.clear()
        self.world.forget_errors()
        self._scheduler.let_go()
        self._over = None
        del self._error

    def renew_reverted(self) -> None:
        """Note that versions are in use again that are not the last ones that ran."""
        for id in self.search.reverted & (self.reused | self._recorded):
            self.warehouse.renew_version(id, self.reactors.root(id), partial(self.reactors.parts, id))

    def reached(self) -> list[Digest]:
        """Addresses of all ingredients that were answered here, or that what was recalled was made from."""
        return [ref.address for ref in self.demand.answered() if ref.inline is None] + self._recall.reached()

    def _work_until_open(self) -> list[Any]:
        """The values that were asked for; payloads that turn out to be gone are made again."""
        while True:
            self._work()
            if isinstance(self._over, GiveUp):
                raise self._error
            assert isinstance(self._over, Deliver)
            values, missing = self._open_all(self._over)
            if not missing:
                self._recall.keep(self._outside, self.demand, self.reused | self._recorded)
                return values
            self._over = None
            self._events.append(Missing("", missing))

    def _work(self) -> None:
        """Until the scheduler says that the demand is met, or can't be."""
        while self._over is None:
            self._drain()
            self.announce()
            if self._over is None:
                self._events.append(Idle())

    def _drain(self) -> None:
        """Carry out instructions until there are no more events."""
        events, handle, do = self._events, self._scheduler.handle, self._do
        instruction: Any = None
        while events:
            for instruction in handle(events.popleft()):
                do[type(instruction)](instruction)
        instruction = None  # a failure in it would keep this frame, which the failure's traceback leads to

    def _end(self, instruction: Deliver | GiveUp) -> None:
        self._over = instruction
        if isinstance(instruction, GiveUp):  # now, while those who wait can still say where
            self._error = self._error_of(instruction.failure)

    def _open_all(self, delivery: Deliver) -> tuple[list[Any], tuple[str, ...]]:
        values, missing = [], []
        for name, ref in zip(delivery.names, delivery.refs, strict=True):
            try:
                values.append(self.warehouse.open(ref))
            except PayloadMissing:
                missing.append(name)
            except Exception as error:
                note_opened(error, name)
                raise
        return values, tuple(missing)

    # ----------------------------------------------------------------- looking up

    def _find_producers(self, instruction: FindProducers) -> None:
        """A newcomer comes first, then what deep traces tell, then the stages of the search."""
        name, stage = instruction
        search = self.search
        first: Recalled | ProducersFound | None = None
        if stage == 0:
            if search.newcomers:  # deep traces know nothing of them
                first = search.newcomer(name)
            elif name in self._outside or self._recall.knows_some:
                first = self._tell_from_before(name)
        self._events.append(first if first is not None else search.from_stage(name, stage))

    def _tell_from_before(self, name: str) -> Recalled | ProducersFound | None:
        """The answer from deep traces, if they know the ingredient, or whom to ask first."""
        known = None if self.dry else self._known(name)
        if known is not None:
            return known
        first = self._recall.first_asked(name, self.search.traced)
        return None if first is None else _new(ProducersFound, (name, FORMER, (first,), False))

    def _known(self, name: str) -> Recalled | None:
        ref = self._recalled(name) if name in self._outside else None
        if ref is not None:
            self.reused.update(self._recall.recalled[name].roots)
            return Recalled(name, ref)
        lent = self._recall.lend(name)
        return Recalled(name, *lent) if lent is not None else None

    def _recalled(self, name: str) -> ObjectRef | None:
        """What was asked for from outside, if all of its ancestry holds, or does when what had changed is through."""
        self._outside[name] += 1
        if self._outside[name] == 1:
            return self._recall.recall(name, self._forced)
        return self._recall.mend(name, self.demand, self.reused | self._recorded)

    def _observe(self, instruction: Observe) -> None:
        id, questions = instruction
        reactor, answer = self.reactors[id], self.world.answer_once
        self._events.append(Observed(id, tuple([answer(reactor, question) for question in questions])))

    # ----------------------------------------------------------------- running

    def _start(self, instruction: Start) -> None:
        id, reason, ahead, node = instruction
        self._note_decision(id, "would run" if self._starts_none else "ran", reason)
        if self._starts_none:
            if not self.dry:
                raise self._can_not_run(id)
            self._would_get.update([name for given in ahead for name in given.names])
            self._events.append(Declined(id))
        elif self._turns.take(id, node, reason):
            self._run(id, ahead)
        else:
            self._events.append(Reconsider(id))

    def _can_not_run(self, id: ReactorId) -> StoreReadOnly:
        asked = [name for _, name in self._chain(id)][-1:]
        guessed = [name for name in asked if self.search.is_guess(id, name)]
        aim = "".join(f" to find out whether it sends {name!r}" for name in guessed)
        return StoreReadOnly(
            f"reactor {self._name(id)} would have to run{aim} ({self.decisions[id].reason}), and the store "
            f"{self.warehouse.directory!r} is open for reading only",
            hint="open it without read_only=True, or a copy that you may write to; plant.fetch_ingredient(name) gives "
            "the last version of what was sent",
        )

    def _run(self, id: ReactorId, ahead: tuple[Given, ...]) -> None:
        """Run a reactor from its beginning; `ahead` is what it is given without a stop."""
        reactor = self.reactors[id]
        if not self._frozen:  # before any user code can change what fingerprints are taken from
            self._frozen = True
            self.reactors.freeze()
        if self._recall.in_use and self._recall.begin_run(id):
            self._events.append(Revoked())
        self.reused.discard(id)
        self._recorded.discard(id)
        self.listeners.tell(EventType.reactor_started, reactor.name, reactor.function)
        self._started[id], self._busy[id], self._unfinished[id] = time.time(), 0.0, None
        if self.listeners.wants(EventType.reactor_step):  # they are told of each step: it has to stop for each
            ahead = ()
        kind: type[Run] = Run
        if reactor.timeout is not None:  # what it waits for is none of its time: it has to stop for that
            from pyplantx.runs.timed import TimedRun

            kind, ahead = TimedRun, ()
        make_run = partial(kind, reactor, self.warehouse, self.world, ahead, partial(self._past, id))
        self._step(id, self.executor.start, make_run)

    def _past(self, id: ReactorId) -> tuple[Digest, tuple[Step, ...]]:
        return self.reactors.root(id), self.demand.trace(id)

    def _resume(self, instruction: Resume) -> None:
        id, _, refs = instruction
        reactor = self.reactors[id]
        self.listeners.tell(EventType.reactor_step, reactor.name, reactor.function)
        self._step(id, self.executor.resume, refs)

    def _throw(self, instruction: Throw) -> None:
        id, failure = instruction
        self._step(id, self.executor.throw, failure)

    def _drop(self, instruction: Drop) -> None:
        self.executor.drop(instruction.reactor)
        self.world.files.clear()  # its ``finally`` is user code

    def _step(self, id: ReactorId, step: Callable[[ReactorId, Any, Reply], None], argument: Any) -> None:
        """Let the executor run user code; then is a quiet point to write what waits."""
        self._garbage.enter()
        self._step_begun = begin = time.perf_counter()
        try:
            step(id, argument, self._reply)
        except BaseException:  # Ctrl-C; what a reactor raises comes as an event
            self._unfinished.pop(id, None)
            self._note_run(id, "interrupted")
            raise
        end = time.perf_counter()
        self._busy[id] += end - begin
        self._garbage.leave(end - begin)
        self.world.files.clear()
        if end >= self._look_around_at:
            self.warehouse.maybe_flush()
            self.announce()
            self._look_around_at = time.perf_counter() + _LOOK_AROUND_EVERY

    def _reply(self, outcome: Any) -> None:
        kind = type(outcome)
        if kind is Ended or kind is Raised:
            self._unfinished.pop(outcome.reactor, None)
        if kind is Raised:
            self._note_failure(outcome)
        elif kind is Ended and not outcome.reusable:
            self._note_remains(outcome.reactor)
            self._note_run(outcome.reactor, "ran")
        elif kind is Asked and outcome.reactor in self._forced:
            for name in outcome.names:
                self._outside.setdefault(name, 0)
        if self._recall.in_use and (kind is Asked or kind is Ended):
            for name, rival in self._recall.contested(outcome.steps, outcome.reactor):
                self._events.append(_new(ProducersFound, (name, FORMER, (rival,), False)))
        self._events.append(outcome)

    def _note_failure(self, outcome: Raised) -> None:
        reactor = self.reactors[outcome.reactor]
        if not is_described(outcome.error):  # else it has passed through a reactor that waited
            describe_request_chain(outcome.error, reactor, list(self._chain(outcome.reactor)))
        note_shortage(outcome.error)
        self.world.note_error(outcome.reactor, outcome.error)
        self._turns.release(outcome.reactor)
        self._note_run(outcome.reactor, "failed")

    def _note_remains(self, id: ReactorId) -> None:
        """Say of a run that it read what other code may have filled, if that is why it is not recorded."""
        remains = self.world.take_remains(id)
        if not remains:
            return
        read = f"it read {' and '.join(remains)}, filled by other code than that of now"
        log().warning(
            "reactor %s has run, and what it sent is not kept for the next session: %s. Clear that, or run again "
            "what defines it; @untracked on the function that fills it keeps it out of this",
            *(self.reactors[id].name, read),
        )
        decision = self.decisions[id]
        self.decisions[id] = decision._replace(reason=f"{decision.reason}; not kept for reuse, as {read}")

    def _chain(self, id: ReactorId) -> Iterator[tuple[str, str]]:
        """Who asked for what, by name, from the demand down to a reactor, as those ask who were passed over."""
        chain = self.demand.chain(id)
        followers = [*[who for who, _ in chain[1:]], id]
        for (who, name), follower in zip(chain, followers):
            for asker, asked in ((who, name), *self._recall.way(name, follower)):
                yield self._name(asker), asked

    def _note_run(self, id: ReactorId, action: str) -> None:
        """Tell the history, in the last step of a run, of one that leaves nothing else behind."""
        self._busy[id] += time.perf_counter() - self._step_begun
        self._note_end(id, action)

    def _note_unfinished(self) -> None:
        """Tell the history of those that waited when the demand came to its end, by Ctrl-C or a failure elsewhere."""
        for id in self._unfinished:
            self._note_end(id, "interrupted")
        self._unfinished.clear()

    def _note_end(self, id: ReactorId, action: str) -> None:
        decision = self.decisions[id] = self.decisions[id]._replace(action=action)
        entry = self._entry(id, action, str(decision.reason))
        self.history.append(entry)
        self.warehouse.note_run(entry)

    def _name(self, id: ReactorId) -> str:
        return self.reactors[id].name if id else ""

    # ----------------------------------------------------------------- committing

    def _record(self, instruction: Record) -> None:
        id, root, steps, _ = instruction
        grown = self._trees.grow(instruction)
        sent = [step for step in steps if type(step) is Sent]
        if grown is not None or self._takes_over(id, root, sent):
            self._recall.trace_written()
        self._recorded.add(id)
        entry = self._entry(id, "ran", self.decisions[id].reason)
        self.history.append(entry)
        records = [(grown[0], encode_segment(grown[1]))] if grown is not None else ()
        commit = _new(Commit, (id, root, records, sent, partial(self.reactors.parts, id), entry))
        self.warehouse.commit(commit, partial(self._finished, id))

    def _takes_over(self, id: ReactorId, root: Digest, sent: list[Sent]) -> bool:
        """Whether others were the last to send what it has sent: the next demand will ask it, not them."""
        return any(self.warehouse.producers(name)[:1] != [(id, root)] for name, _ in sent)

    def _finished(self, id: ReactorId) -> None:
        self._turns.release(id)
        self.warehouse.work_finished(id)
        if self.listeners.wants(EventType.reactor_finished):
            reactor = self.reactors[id]
            self.listeners.tell(EventType.reactor_finished, reactor.name, reactor.function)
            self.world.files.clear()  # listeners are user code, too

    def _entry(self, id: ReactorId, action: str, reason: str) -> HistoryEntry:
        seconds = self._busy[id] + self.world.take_spared(id)
        return _new(HistoryEntry, (self.reactors[id].name, id, action, reason, self._started[id], seconds))

    def _reuse(self, instruction: Reuse) -> None:
        self.reused.add(instruction.reactor)
        self.decisions.pop(instruction.reactor, None)
        self._turns.release(instruction.reactor)

    def announce(self) -> None:
        """Tell what has become durable: all of it, whatever a listener raises, who is heard then."""
        self._due.extend(self.warehouse.announcements())
        if self._due:
            call_each(_taken_from(self._due))
            self.world.files.clear()

    def accept(self, id: ReactorId) -> bool:
        """Let earlier traces of a reactor count for its present version; whether there was anything to be done."""
        return self._accept_earlier(id) | self._accept_observed(id)

    def _accept_earlier(self, id: ReactorId) -> bool:
        root = self.reactors.root(id)
        earlier = [version.root for version in self.warehouse.versions(id) if version.root != root]
        if not earlier or self.warehouse.find_record(root) is not None:
            return False
        last = self._trees.accepted(earlier[0], self.warehouse.find_record(earlier[0]))[0]
        if last != root:
            self._commit_accepted(id, root, ACCEPTED + last)
        return last != root

    def _accept_observed(self, id: ReactorId) -> bool:
        """Of subreactors that it calls, modules that it imports by text, and classes of what it receives."""
        found = self._trees.bridge(id, partial(self.world.answer, self.reactors[id]))
        if found is not None:
            self._commit_accepted(id, found[0], encode_segment(found[1]))
        return found is not None

    def _commit_accepted(self, id: ReactorId, key: Digest, record: str) -> None:
        root, parts = self.reactors.root(id), partial(self.reactors.parts, id)
        self.warehouse.commit(Commit(id, root, [(key, record)], (), parts))

    # ----------------------------------------------------------------- reasons and failures

    def outdone(self) -> dict[ReactorId, str]:
        """After `inspect`: who sends what another one sends, who would be asked before it; and why not, in words."""
        found: dict[ReactorId, str] = {}
        for failure in self.demand.failures.values():
            if failure.kind == "two producers":
                first = self.search.traced(failure.name)[:1]
                if set(first) & set(failure.reactors):
                    for id in set(failure.reactors).difference(first):
                        asked = self.reactors.told_apart(*first, id)[0]
                        found[id] = f"two reactors send {failure.name!r}: {asked}, which has run last, is asked"
        return found

    def prospect(self, id: ReactorId, passed_over: str = "") -> Decision:
        """After `inspect`: what would happen to a reactor; if nobody has asked it, why it is passed over."""
        if id in self.decisions:
            return self.decisions[id]
        if id in self.reused:
            return up_to_date(self._name(id))
        failure = self.demand.failure(id)
        if failure is not None:
            return Decision(self._name(id), "unknown", str(self._error_of(failure)).splitlines()[0])
        if passed_over and id not in self.demand.conversations:
            return Decision(self._name(id), "not asked", passed_over)
        names = ", ".join(map(repr, self.demand.waiting_for(id)))
        reason = f"depends on the new content of {names}" if names else ""
        return Decision(self._name(id), "may run", reason)

    def _note_decision(self, id: ReactorId, action: str, reason: Reason) -> None:
        code = self._code_change(id) if reason.kind == "new" else None
        unkept = self.warehouse.unkept_run(id) if reason.kind == "new" and code is None else ""
        self.decisions[id] = decide(
            self.reactors[id].name, action, reason, code, self.describe, partial(self._observed_change, id), unkept
        )

    def _observed_change(self, id: ReactorId, observed: Observation) -> CodeChange | None:
        before, now = self.world.parts_of_observed(self.reactors[id], observed)
        change = CodeChange.between(before, now)
        own = CodeChange(changed=tuple(now)[:1])
        return None if change in (CodeChange(), own) else change

    def _code_change(self, id: ReactorId) -> CodeChange | None:
        """What changed since the newest earlier version of this reactor; None if there is none."""
        for version in self.warehouse.versions(id):
            return CodeChange.between(version.parts, self.reactors.parts(id))
        return None

    def _error_of(self, failure: Failure) -> BaseException:
        if failure.kind == "deadlock":
            return error_of(failure, self._name, self.executor.line)
        return self.world.error_of(failure)


def _taken_from(calls: deque[Callable[[], None]]) -> Iterator[Callable[[], None]]:
    """Each call, no longer in the queue when it is made: after Ctrl-C the others are still there."""
    while calls:
        yield calls.popleft()

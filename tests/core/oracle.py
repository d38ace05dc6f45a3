"""What is true, found out in the most obvious way.

`evaluate` runs every reactor of a program side by side, without traces, digests or a search. `check`
holds a session against it, and against a flat list of all traces that were ever recorded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from driver import Program, Session, Thrown, ToyError, hash_text

from pyplantx.core import messages as m
from pyplantx.core.trace import Group, Sent, observations_of


class Truth:
    """What a program comes to under a config; None of it for a program with chance in it."""

    def __init__(self, sendable: dict[str, set[str]]) -> None:
        self.values: dict[str, Any] = {}
        self.sender: dict[str, str] = {}
        self.sendable = sendable
        self.received: dict[str, list[str]] = {}
        self.waiting: dict[str, tuple[str, ...] | None] = {}  # for what, in the end
        self.failed: set[str] = set()
        self.done: set[str] = set()

    def leans_on_a_failure(self, id: str) -> bool:
        """Whether it got anything from a reactor that failed afterwards: then order decides, rightly."""
        return bool(_closure({id}, lambda at: {self.sender.get(name, at) for name in self.received[at]}) & self.failed)

    def may_lean_on(self, lost: set[str], demand: m.Demanded) -> bool:
        """Whether what is demanded could be another one if these reactors failed.

        Who waits in vain here (in a cycle, say) gets an answer then: so who could send what nobody sent counts as well.
        """
        wanted = {*demand.forced, *demand.wanted, *self._could_send(demand.names)}
        asked = {id: (*names, *(self.waiting.get(id) or ())) for id, names in self.received.items()}
        return bool(_closure(wanted, lambda at: self._could_send(asked[at])) & lost)

    def _could_send(self, names: Iterable[str]) -> set[str]:
        able = {name: {id for id, others in self.sendable.items() if name in others} for name in names}
        return {id for name in able for id in ({self.sender[name]} if name in self.sender else able[name])}


def _closure(start: set[str], following: Callable[[str], set[str]]) -> set[str]:
    reached, queue = set(start), list(start)
    for at in queue:
        further = following(at) - reached
        reached |= further
        queue += further
    return reached


class _Pipe:
    def __init__(self, id: str, config: dict[str, Any], truth: Truth, seed: int) -> None:
        self.id, self._config, self._truth = id, config, truth
        self.chance = random.Random(f"{id} {seed}")
        self._unseen: dict[str, Any] = {}

    def config(self, key: str) -> Any:
        return self._config[key]

    def send(self, name: str, value: Any) -> None:
        self._unseen[name] = value

    def publish(self) -> None:
        """A step is over, without an error: what a step sends in which it raises is seen by nobody."""
        self._truth.values.update(self._unseen)
        self._truth.sender.update(dict.fromkeys(self._unseen, self.id))
        self._unseen = {}


def evaluate(program: Program, config: dict[str, Any], sendable: dict[str, set[str]], seed: int = 0) -> Truth:
    """Run all reactors until nothing moves. The order in which some of them ask comes from `seed`."""
    truth = Truth(sendable)
    pipes = {id: _Pipe(id, config, truth, seed) for id in program}
    bodies = {id: reactor.body(pipes[id]) for id, reactor in program.items()}
    asked = truth.waiting = dict.fromkeys(program)
    truth.received = {id: [] for id in program}

    def step(id: str, method: Any, argument: Any) -> None:
        try:
            asked[id] = method(argument)
        except StopIteration:
            truth.done.add(id)
        except (ToyError, Thrown):
            truth.failed.add(id)
        if id not in truth.failed:
            pipes[id].publish()
        if id in truth.done | truth.failed:
            del asked[id]

    for id in program:
        step(id, bodies[id].send, None)
    moved = True
    while moved:
        moved = False
        for id, names in list(asked.items()):
            assert names is not None
            if all(name in truth.values for name in names):
                truth.received[id] += names
                step(id, bodies[id].send, tuple([truth.values[name] for name in names]))
                moved = True
        hopeless = [id for id, names in asked.items() if _is_hopeless(names, truth, asked, sendable)]
        if not moved and hopeless:
            truth.received[hopeless[0]] += asked[hopeless[0]] or ()
            step(hopeless[0], bodies[hopeless[0]].throw, Thrown(m.Failure("no producer")))
            moved = True
    return truth


def _is_hopeless(names: Any, truth: Truth, asked: Any, sendable: dict[str, set[str]]) -> bool:
    unknown = [name for name in names if name not in truth.values]
    return any(not any(name in sendable[id] for id in asked) for name in unknown)


# --------------------------------------------------------------------------- checks


def check_consistent(session: Session) -> None:
    """Whatever a reactor that the demand stands on was told is what is true at its end; so is what was recalled."""
    scheduler = session.scheduler
    ingredients, conversations = scheduler.demand.ingredients, scheduler.demand.conversations
    for name, ref in [item for deep in session.recalled_from for item in deep.refs.items()]:
        now = ingredients[name].ref
        assert now is None or ref is None or now.digest == ref.digest, name
    senders = [ingredients[name].sender for name in scheduler.demand.targets]
    queue = [sender for sender in senders if sender is not None] + [conversations[id] for id in scheduler.demand.wanted]
    reached = set(queue)
    for conversation in queue:
        for kind, key, answer in observations_of(conversation.steps):
            if kind != "ingredient":
                assert answer == session.answer(m.Question(kind, key)).answer
                continue
            ingredient = ingredients[key]
            assert ingredient.ref is not None and ingredient.ref.digest == answer, (conversation.id, key)
            if ingredient.sender is not None and ingredient.sender not in reached and ingredient.sender.state == "done":
                reached.add(ingredient.sender)
                queue.append(ingredient.sender)


def check_minimal(session: Session, before: dict[str, int], truth: Truth | None) -> None:
    """No run that a trace recorded before this session would have saved.

    Exempt are forced runs, payloads made again and lost workers; and, in a program with chance in it, sessions
    in which content was taken back: the runs on it were due at their time.
    """
    answers = dict(_answers(session, truth))
    if truth is None and _was_taken_back(session, answers):
        return
    for (id, reason), told in zip(session.started, session.told, strict=True):
        if reason.kind in ("forced", "payload", "restarted"):
            continue
        own = observations_of(told)
        mine = answers | {("ingredient", key): answer for kind, key, answer in own if kind == "ingredient"}
        root = session.root(id)
        for trace in session.index.traces.get(root, [])[: before.get(root, 0)]:
            if truth is None and not _sent(told) <= _sent(trace):
                continue  # what else came of the run, by chance, is what its consumers were waiting for
            assert not _holds(trace, mine, session), f"{id} ran ({reason}), but this trace holds: {trace}"


def _sent(steps: tuple[Any, ...]) -> set[str]:
    return {step.name for step in steps if isinstance(step, Sent)}


def _was_taken_back(session: Session, answers: dict[tuple[str, str], str]) -> bool:
    if session.scheduler.taken_back:
        return True
    new = [o for _, reason in session.started for o in reason.new]
    restarted = any(conversation.restarts for conversation in session.scheduler.demand.conversations.values())
    return restarted or any(answers.get((o.kind, o.key), o.answer) != o.answer for o in new)


def _answers(session: Session, truth: Truth | None) -> Any:
    if truth is not None:
        for name, value in truth.values.items():
            yield ("ingredient", name), hash_text(repr(value))
    for name, ingredient in session.scheduler.demand.ingredients.items():
        if ingredient.failure is not None:
            yield ("ingredient", name), "failed"
        elif ingredient.ref is not None:
            yield ("ingredient", name), ingredient.ref.digest


def _holds(trace: tuple[Any, ...], answers: dict[tuple[str, str], str], session: Session) -> bool:
    for step in trace:
        if isinstance(step, Sent):
            answers = answers | {("ingredient", step.name): step.ref.digest}
    observations = [o for step in trace if isinstance(step, Group) for o in step.observations]
    for o in observations:
        today = answers.get((o.kind, o.key)) if o.kind == "ingredient" else session.answer(o.question).answer
        if today != o.answer:
            return False
    return True

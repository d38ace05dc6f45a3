"""The state machine that decides which reactor replays, runs, waits or is up to date.

Rules of this file:

* One way in, one way out: ``handle(event) -> instructions``. Nothing else changes the state. What only asks about it
  is in ``demand.py`` and ``state.py``.
* It may know names, digests, traces. It may not know values, files, clocks, threads.
* It can't tell a replay from a live reactor where that isn't the point: both are a `Conversation`.
* *Idle is an event.* Only the driver knows that nothing is in flight.
* A running reactor is never cancelled. One that waits and that nobody needs any more is not gone on with.
* No recursion: chains of requests are as long as the user makes them.

One `Scheduler` serves one demand. States of a conversation (the table is `state.TRANSITIONS`)::

    NEW ─▶ LOOKING ─────▶ REPLAYING ──leaf──▶ DONE
              │ no trace,     │ fell off       ▲
              │ or forced     ▼                │ Ended
              └───────────▶ RUNNING ───────────┤
                             │  ▲              └─Raised─▶ FAILED, Declined ─▶ DECLINED
                       Asked ▼  │ Resume, Throw
                            WAITING ◀──needed again── PARKED   (known, but nobody needs it now)

Content that comes back different sends all who used it back to LOOKING.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from pyplantx.core.demand import Demand
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
    Instruction,
    Lost,
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
from pyplantx.core.replay import FAILED as FAILED_ANSWER
from pyplantx.core.replay import Again, Answer, AskLocally, Fell, Find, replay
from pyplantx.core.state import (
    DECLINED,
    DONE,
    FAILED,
    HINTED,
    LOOKING,
    NEW,
    OVER,
    PARKED,
    REPLAYING,
    RUNNING,
    STRANGERS,
    WAITING,
    Conversation,
    Ingredient,
    Wait,
    is_reproduced,
    is_wrong_hint,
    sent_names,
    stuck_ingredients,
)
from pyplantx.core.trace import (
    Digest,
    Group,
    HashText,
    ObjectRef,
    Observation,
    Segment,
    Sent,
    Step,
    ingredients_received,
)

_new = tuple.__new__  # see `trace.py`

#: Reactor to the key of the root of its trace tree, and the segment there.
LookUp = Callable[[ReactorId], tuple[Digest, Segment | None]]

#: How often a reactor whose worker died is started again.
MOST_LOSSES = 2

#: How often one ingredient may come back with other content, of the same answers, in one demand.
MOST_REPLACEMENTS = 1

#: How often it may do so in all, of other answers too: some that hang on each other would go round for ever.
MOST_ALTERATIONS = 16

#: How often the payload of one ingredient is made again in one demand.
MOST_REMAKES = 3

#: How often a conversation whose ingredients were replaced is replayed again; after that it runs.
MOST_REPLAYS = 3


class Scheduler:
    """Decides for one demand. See the top of this file.

    Parameters
    ----------
    hash_text : callable
        Text to digest.
    look_up : callable
        Reactor to the key of the root of its trace tree, and the segment that is kept there, or None.
    find : callable
        Key of any node of a tree to its segment, or None. Asked by replays where an answer is not the recorded one.

    These three are asked questions that have one answer, for which nobody has to wait.

    Attributes
    ----------
    demand : Demand
        What is known so far, to be asked about.
    """

    def __init__(self, hash_text: HashText, look_up: LookUp, find: Find) -> None:
        self._hash_text, self._look_up, self._find = hash_text, look_up, find
        self.demand = Demand()
        self._conversations, self._ingredients = self.demand.conversations, self.demand.ingredients
        self._forced: set[ReactorId] = set()  # still to be run, whatever their traces say
        self._begun: deque[Conversation] = deque()  # to be looked up
        self._ready: deque[Wait] = deque()  # whose ingredients are known
        self._stale: deque[Conversation] = deque()  # whose ingredients are replaced
        self._out: list[Instruction] = []
        self._clock = 0  # counts what live runs sent
        self._failure_of_error: dict[int, Failure] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            Demanded: self._demanded,
            ProducersFound: self._producers_found,
            Recalled: self._recalled,
            Revoked: self._revoked,
            Observed: self._observed,
            Asked: self._asked,
            Ended: self._ended,
            Raised: self._raised,
            Missing: self._missing,
            Lost: self._lost,
            Reconsider: self._reconsider,
            Declined: self._declined,
            Idle: self._idle,
        }

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event; return what is to be done now, in this order.

        Parameters
        ----------
        event : Event
            What happened.

        Returns
        -------
        list of Instruction
        """
        self._handlers[type(event)](event)
        while self._stale or self._ready or self._begun:
            if self._stale:
                self._restart(self._stale.popleft())
            elif self._ready:
                self._go_on(self._ready.popleft())
            else:
                self._open(self._begun.popleft())
        out, self._out = self._out, []
        return out

    def let_go(self) -> None:
        """The demand is over, and nobody asks about it any more: nothing is left that holds itself.

        An error holds on to what reactors held when it was raised. And conversations and ingredients lead to each
        other: of a hundred demands of a thousand reactors the garbage collector would find millions of objects.
        """
        self.demand.fatal = None
        self.demand.failures.clear()
        self._failure_of_error.clear()
        self._handlers.clear()
        for ingredient in self._ingredients.values():
            ingredient.failure = None
        for conversation in self._conversations.values():
            conversation.let_go()

    # ----------------------------------------------------------------- demand

    def _demanded(self, event: Demanded) -> None:
        self.demand.targets, self.demand.wanted = event.names, event.forced + event.wanted
        self._forced = set(event.forced)
        for id in self.demand.wanted:
            self._begin(self._conversations[id])
        for name in event.names:
            self._seek(self._ingredients[name], None)

    def _begin(self, conversation: Conversation) -> None:
        """Make sure that a conversation is under way."""
        if conversation.state is NEW:
            conversation.cause = conversation.sought[0] if conversation.sought else None
            conversation.state = LOOKING
            self._begun.append(conversation)
        elif conversation.state is PARKED and conversation.live:
            conversation.state = WAITING
            self._give(conversation)
        elif conversation.state is PARKED:
            assert conversation.reason is not None
            self._start(conversation, conversation.reason)

    def _is_needed(self, conversation: Conversation) -> bool:
        """Whether somebody wants it, uses what it sent, or hopes that it sends something."""
        if conversation.cause is None or conversation.products:
            return True
        for ingredient in conversation.sought:
            if ingredient.trying is conversation and ingredient.open:
                return True
        return False

    # ----------------------------------------------------------------- the search for a producer

    def _seek(self, ingredient: Ingredient, asker: Conversation | None) -> None:
        """Make sure that somebody is asked to send the ingredient."""
        if ingredient.searching or ingredient.ref is not None or ingredient.failure is not None:
            return
        ingredient.searching = True
        if ingredient.stage >= 0:
            self._try_next(ingredient)
        else:
            ingredient.cause = asker
            self._ask_for_candidates(ingredient)

    def _ask_for_candidates(self, ingredient: Ingredient) -> None:
        ingredient.stage += 1
        if ingredient.stage == STRANGERS:
            ingredient.strangers_from = len(ingredient.tried)
        self._out.append(_new(FindProducers, (ingredient.name, ingredient.stage)))

    def _producers_found(self, event: ProducersFound) -> None:
        ingredient = self._ingredients[event.name]
        ingredient.candidates, ingredient.next = event.candidates, 0
        ingredient.stage, ingredient.final = event.stage, event.final
        if ingredient.ref is None:
            self._try_next(ingredient)

    def _recalled(self, event: Recalled) -> None:
        ingredient = self._ingredients[event.name]
        if ingredient.open:
            ingredient.ref, ingredient.recalled, ingredient.maker = event.ref, True, event.sender
            self._wake(ingredient)

    def _revoked(self, _: Revoked) -> None:
        """Those who use what was recalled have their replays for it now: these wait for what is made again."""
        for ingredient in tuple(self._ingredients.values()):
            if ingredient.recalled:
                self._forget_recalled(ingredient)
                if ingredient.users or ingredient.is_awaited or ingredient.name in self.demand.targets:
                    self._seek(ingredient, ingredient.cause)

    def _try_next(self, ingredient: Ingredient) -> None:
        """Ask the next candidate; at the end of the list, ask for more candidates or give up."""
        while ingredient.next < len(ingredient.candidates):
            candidate = self._conversations[ingredient.candidates[ingredient.next]]
            ingredient.next += 1
            if candidate in ingredient.tried:
                continue
            ingredient.tried += (candidate,)
            candidate.sought.append(ingredient)
            if candidate.state is DECLINED or candidate.state not in OVER:
                ingredient.trying = candidate
                self._begin(candidate)
                return
        self._at_end_of_candidates(ingredient)

    def _at_end_of_candidates(self, ingredient: Ingredient) -> None:
        """After the hinted ones: a failure ends the search, one that waits holds it up. So do all at the end."""
        ingredient.trying = None
        if ingredient.stage >= HINTED:
            failed = next((c for c in ingredient.hinted() if c.state is FAILED), None)
            waiting = next((c for c in ingredient.tried if not c.over), None)
            if waiting is not None:
                ingredient.trying = waiting
                self._begin(waiting)
                return
            if failed is not None:
                self._fail(ingredient, self.demand.failures[failed.id])
                return
        if ingredient.final:
            self._fail(ingredient, self._nobody(ingredient))
        else:
            self._ask_for_candidates(ingredient)

    def _nobody(self, ingredient: Ingredient) -> Failure:
        """Nobody sends it; those who failed while they were tried are named, for it may have been one of them."""
        failed = tuple([c.id for c in ingredient.tried if c.state is FAILED])
        return Failure("no producer", ingredient.name, failed)

    def _fail(self, ingredient: Ingredient, failure: Failure) -> None:
        ingredient.failure, ingredient.remaking = failure, False
        ingredient.searching = False
        if ingredient.former is not None:  # it was recalled, and perhaps used
            former, ingredient.former = ingredient.former, None
            self._tell_users(ingredient, former)
        waits, ingredient.waits = ingredient.waits, []
        self._ready.extend(waits)

    # ----------------------------------------------------------------- replays

    def _open(self, conversation: Conversation) -> None:
        """Look it up; begin to replay it, or to run it."""
        conversation.root, segment = self._look_up(conversation.id)
        conversation.fell = (conversation.root, []) if segment is None else None
        if conversation.id in self._forced:
            self._start(conversation, Reason("forced"))
        elif segment is None:
            self._start(conversation, conversation.changed or Reason("new"))
        elif conversation.changed is not None and conversation.restarts > MOST_REPLAYS:
            self._start(conversation, conversation.changed)
        else:
            conversation.state, conversation.live = REPLAYING, False
            conversation.segment = segment
            conversation.replay = replay(conversation.root, segment, self._find, self._hash_text, conversation.steps)
            self._advance(conversation, None)

    def _observed(self, event: Observed) -> None:
        self._advance(self._conversations[event.reactor], event.answers)

    def _advance(self, conversation: Conversation, answer: Answer) -> None:
        """Give the replay its answer and see to its wishes, until one has to wait."""
        if conversation.state is not REPLAYING or conversation.replay is None:
            return  # restarted meanwhile: nobody wants this answer any more
        send = conversation.replay.send
        while True:
            try:
                wish = send(answer)
            except StopIteration as end:
                self._replayed(conversation, end.value)
                return
            answer = None
            if type(wish) is Group:
                answer = self._ask(conversation, wish)
                if answer is None:
                    return
            elif type(wish) is Again:
                conversation.turn_back(wish.steps)
            elif type(wish) is AskLocally:
                self._out.append(Observe(conversation.id, wish[0]))
                return
            elif type(wish) is Segment:
                conversation.segment = wish

    def _ask(self, conversation: Conversation, group: Group) -> list[Digest] | None:
        """Today's answers to a question of a replay; None if it has to wait.

        Before it waits it tells what it has sent, for that may be what it waits for in the end.
        """
        conversation.asked = asked = [self._ingredients[o[1]] for o in group[0]]
        if conversation.told < len(conversation.steps):
            own = conversation.names_untold()
            waits = any(i.ref is None or i.name in own for i in asked)
            if waits and not self._tell(conversation):
                return None
        return self._digests(conversation)

    def _tell(self, conversation: Conversation) -> bool:
        """Make known what a replay has sent; False if it failed by that."""
        steps, told = conversation.steps, conversation.told
        conversation.told = len(steps)
        for position in range(told, len(steps)):
            step = steps[position]
            if type(step) is Sent and not self._sent(conversation, step, position):
                return False
        return True

    def _digests(self, conversation: Conversation) -> list[Digest] | None:
        """The short way for the usual case: all is there."""
        digests = []
        for ingredient in conversation.asked:
            ref = ingredient.ref
            if ref is None or ingredient.failure is not None or ingredient.sender is conversation:
                return self._digests_or_wait(conversation)
            ingredient.users.append(conversation)
            digests.append(ref.digest)
        return digests

    def _digests_or_wait(self, conversation: Conversation) -> list[Digest] | None:
        asked = conversation.asked
        if not any([i.failure for i in asked]):
            lacking = [i for i in asked if conversation.lacks(i)]
            if lacking:
                self._wait(conversation, lacking)
                return None
        for ingredient in asked:
            ingredient.users.append(conversation)
        return [FAILED_ANSWER if i.failure else i.ref.digest if i.ref else "" for i in asked]

    def _wait(self, conversation: Conversation, lacking: list[Ingredient]) -> None:
        conversation.wait = wait = Wait(conversation, len(lacking))
        for ingredient in lacking:
            ingredient.waits.append(wait)
            self._seek(ingredient, conversation)

    def _go_on(self, wait: Wait) -> None:
        """What was waited for is known, or known to be impossible."""
        conversation = wait.conversation
        if conversation.wait is not wait:
            return  # it does not wait for that any more
        conversation.wait = None
        if conversation.state is WAITING:
            self._give(conversation)
        elif conversation.state is REPLAYING:
            digests = self._digests(conversation)
            if digests is not None:
                self._advance(conversation, digests)

    def _replayed(self, conversation: Conversation, fell: Fell | None) -> None:
        conversation.replay = None
        if fell is not None:
            if conversation.turned:  # in vain: now others in the cycle may turn, and then its first way may hold
                self._ask_traces_again(conversation)
                return
            reason, node = fell
            conversation.fell = (node, conversation.steps) if node else None
            self._start(conversation, reason)
            return
        if not self._tell(conversation):
            return
        if conversation.again:
            self._withdraw_unsent(conversation)
        conversation.state, conversation.segment = DONE, None
        self._out.append(_new(Reuse, (conversation.id,)))
        self._over(conversation)

    # ----------------------------------------------------------------- live runs

    def _start(self, conversation: Conversation, reason: Reason) -> None:
        self._leave(conversation)
        conversation.reason, conversation.live = reason, False
        if self.demand.fatal is not None or not self._is_needed(conversation):
            conversation.state = PARKED
            return
        ahead = self._known_again(conversation)
        conversation.new_pass()
        conversation.state, conversation.live, conversation.dirty = RUNNING, True, False
        conversation.ahead = ahead
        node = conversation.fell[0] if conversation.fell is not None else conversation.root
        self._out.append(_new(Start, (conversation.id, reason, ahead, node)))

    def _known_again(self, conversation: Conversation) -> tuple[Given, ...]:
        """What the replay was given so far: the run will mostly ask for the same."""
        ahead: list[Given] = []
        for step in conversation.steps:
            if type(step) is not Group or step[0][0][0] != "ingredient":
                continue
            names = tuple([o[1] for o in step[0]])
            refs = tuple([self._ingredients[name].value_for(conversation) for name in names])
            if None in refs:
                break
            for name in names:
                self._ingredients[name].users.append(conversation)
            ahead.append(_new(Given, (names, refs)))
        return tuple(ahead)

    @staticmethod
    def _leave(conversation: Conversation) -> None:
        """Stop replaying and waiting."""
        conversation.wait = None
        if conversation.replay is not None:
            conversation.replay.close()
            conversation.replay = None

    def _asked(self, event: Asked) -> None:
        conversation = self._conversations[event.reactor]
        if self._take(conversation, event.steps):
            conversation.state = WAITING
            conversation.asked = [self._ingredients[name] for name in event.names]
            self._give(conversation)
        else:
            self._out.append(Drop(conversation.id))

    def _give(self, conversation: Conversation) -> None:
        """Go on with a live reactor if all that it asked for is there; else it waits.

        It needs values: an ingredient whose payload is being made again is not there yet.
        """
        if conversation.dirty:
            self._restart(conversation)
            return
        lacking: list[Ingredient] = []
        failed: Ingredient | None = None
        for ingredient in conversation.asked:
            if ingredient.failure is not None:
                failed = failed or ingredient
            elif conversation.lacks(ingredient):
                lacking.append(ingredient)
        if lacking and failed is None:
            self._wait(conversation, lacking)
        elif not self._is_needed(conversation):
            conversation.state = PARKED
        elif failed is None:
            self._resume(conversation)
        else:
            self._throw(conversation, failed)

    def _resume(self, conversation: Conversation) -> None:
        conversation.state, conversation.given = RUNNING, self._clock
        for ingredient in conversation.asked:
            ingredient.users.append(conversation)
        names = tuple([i.name for i in conversation.asked])
        refs: tuple[ObjectRef, ...] = tuple([i.ref for i in conversation.asked])  # type: ignore[misc]
        if refs:
            conversation.steps.append(ingredients_received(names, refs))
        self._out.append(_new(Resume, (conversation.id, names, refs)))

    def _throw(self, conversation: Conversation, failed: Ingredient) -> None:
        assert failed.failure is not None
        conversation.state, conversation.thrown = RUNNING, (*conversation.thrown, failed)
        failed.users.append(conversation)
        self._out.append(Throw(conversation.id, failed.failure))

    def _take(self, conversation: Conversation, steps: tuple[Step, ...]) -> bool:
        """Add what a live run tells to its trace; False if that made it fail.

        What it sends after its ingredients were replaced is of no use to anybody.
        """
        conversation.ahead = ()
        for step in steps:
            position = len(conversation.steps)
            conversation.steps.append(step)
            if type(step) is Sent and not conversation.dirty and not self._sent(conversation, step, position):
                return False
        return True

    def _ended(self, event: Ended) -> None:
        conversation = self._conversations[event.reactor]
        if not self._take(conversation, event.steps):
            return
        if event.reusable:
            steps = tuple(conversation.steps)
            self._out.append(_new(Record, (conversation.id, conversation.root, steps, conversation.joint())))
        self._forced.discard(conversation.id)
        conversation.state = DONE
        if conversation.dirty:
            self._restart(conversation)
            return
        if conversation.again:
            self._withdraw_unsent(conversation)
        self._over(conversation)

    def _raised(self, event: Raised) -> None:
        conversation = self._conversations[event.reactor]
        if conversation.dirty:  # it has not seen what is true now
            conversation.state = FAILED
            self._restart(conversation)
            return
        conversation.steps += event.steps
        for name in sent_names(event.steps):  # not seen by anybody yet, and now never to be
            ingredient = self._ingredients[name]
            if ingredient.sender is None:
                ingredient.sender = conversation
                conversation.products.append(ingredient)
        self._failed(conversation, self._blame(event))

    def _blame(self, event: Raised) -> Failure:
        """The failure to report: a failure that merely passed through keeps its origin."""
        failure = self._failure_of_error.get(id(event.error))
        if failure is None:
            failure = Failure("raised", reactors=(event.reactor,), error=event.error)
            self._failure_of_error[id(event.error)] = failure
        return failure

    def _failed(self, conversation: Conversation, failure: Failure) -> None:
        """What it sent is invisible from now on; what others made of it stays valid by its content."""
        self._leave(conversation)
        conversation.state = FAILED
        self.demand.failures[conversation.id] = failure
        for ingredient in conversation.products:
            if ingredient.sender is conversation:
                self._fail(ingredient, failure)
        self._over(conversation)

    def _lost(self, event: Lost) -> None:
        conversation = self._conversations[event.reactor]
        conversation.losses += 1
        if conversation.losses <= MOST_LOSSES:
            self._start(conversation, Reason("restarted"))
        else:
            self._failed(conversation, Failure("lost", reactors=(conversation.id,)))

    def _reconsider(self, event: Reconsider) -> None:
        """It was not started: another process may have done its work meanwhile."""
        self._ask_traces_again(self._conversations[event.reactor])

    def _ask_traces_again(self, conversation: Conversation) -> None:
        conversation.state, conversation.live = LOOKING, False
        conversation.new_pass()
        self._begun.append(conversation)

    def _declined(self, event: Declined) -> None:
        self._conversations[event.reactor].state = DECLINED

    def _over(self, conversation: Conversation) -> None:
        """It will send no more: those who hoped that it would look further."""
        for ingredient in tuple(conversation.sought):
            if ingredient.ref is None and ingredient.trying is conversation and ingredient.failure is None:
                self._try_next(ingredient)

    # ----------------------------------------------------------------- what was sent

    def _sent(self, conversation: Conversation, sent: Sent, position: int) -> bool:
        """Make an ingredient known, from a run or a replay; False if the sender failed by it."""
        name, ref = sent
        ingredient = self._ingredients[name]
        if ingredient.sender is not conversation:
            if ingredient.sender is not None and ingredient.sender.holds(name):
                self._two_producers(conversation, ingredient)
                return False
            if ingredient.recalled and ingredient.maker not in ("", conversation.id):
                self._ask_too(self._conversations[ingredient.maker], ingredient)
            ingredient.sender, ingredient.recalled = conversation, False
            conversation.products.append(ingredient)
        before, ingredient.ref = ingredient.ref or ingredient.former, ref
        ingredient.failure, ingredient.remaking, ingredient.former = None, False, None
        if conversation.live:
            self._clock = ingredient.made = self._clock + 1
        if ingredient.users and (before is None or before.digest != ref.digest):
            self._note_replacement(ingredient, conversation, before)
            self._tell_users(ingredient, before)
        ingredient.basis, ingredient.position = conversation.steps, position
        if ingredient.waits:
            self._wake(ingredient)
        return True

    def _ask_too(self, maker: Conversation, ingredient: Ingredient) -> None:
        """Nobody has asked who made what was recalled, since it was. Its replay sends it, too; it need not run."""
        maker.sought.append(ingredient)
        self._begin(maker)

    def _wake(self, ingredient: Ingredient) -> None:
        waits, ingredient.waits = ingredient.waits, []
        for wait in waits:
            wait.missing -= 1
            if wait.missing == 0:
                self._ready.append(wait)

    def _two_producers(self, conversation: Conversation, ingredient: Ingredient) -> None:
        assert ingredient.sender is not None
        failure = Failure("two producers", ingredient.name, (ingredient.sender.id, conversation.id))
        self.demand.fatal = self.demand.fatal or failure
        self._failed(conversation, failure)

    def _withdraw_unsent(self, conversation: Conversation) -> None:
        """What a former pass sent early and this one did not repeat was never sent."""
        sent = sent_names(conversation.steps)
        products, conversation.products = conversation.products, []
        for ingredient in dict.fromkeys(products):
            if ingredient.name in sent:
                conversation.products.append(ingredient)
            elif ingredient.sender is conversation:
                self._withdraw(ingredient)
        conversation.again = False

    def _withdraw(self, ingredient: Ingredient) -> None:
        before, ingredient.ref, ingredient.sender = ingredient.ref, None, None
        ingredient.failure, ingredient.remaking = None, False
        ingredient.trying, ingredient.searching = None, False
        self._tell_users(ingredient, before)
        if ingredient.is_awaited or ingredient.name in self.demand.targets:
            self._seek(ingredient, None)

    # ----------------------------------------------------------------- content that came back different

    def _note_replacement(self, ingredient: Ingredient, sender: Conversation, before: ObjectRef | None) -> None:
        """Other content of the same answers is chance: more than once is too often. Else it is a consequence."""
        if not sender.live or before is None:
            return
        ingredient.altered += 1
        ingredient.replaced += is_reproduced(ingredient, sender.steps)
        if ingredient.replaced > MOST_REPLACEMENTS or ingredient.altered > MOST_ALTERATIONS:
            self.demand.fatal = self.demand.fatal or Failure("not deterministic", ingredient.name, (sender.id,))

    def _tell_users(self, ingredient: Ingredient, before: ObjectRef | None) -> None:
        """Ask those again who used the former answer."""
        users, ingredient.users = ingredient.users, []
        reason = Reason("changed", name=ingredient.name)
        if before is not None and ingredient.ref is not None:
            old, new = [Observation("ingredient", ingredient.name, ref.digest) for ref in (before, ingredient.ref)]
            reason = Reason("changed", (old,), (new,))
        digest = before.digest if before is not None else None
        for conversation in dict.fromkeys(users):
            if conversation is not ingredient.sender and conversation.used(ingredient, digest):
                conversation.changed = reason
                self._stale.append(conversation)

    def _restart(self, conversation: Conversation) -> None:
        """Ask a conversation again from its root; one that runs comes to its next stop first."""
        if conversation.state is RUNNING:
            conversation.dirty = True
        if conversation.state in (NEW, LOOKING, RUNNING, DECLINED):
            return
        if conversation.live and conversation.state in (WAITING, PARKED):
            self._out.append(Drop(conversation.id))
        self._leave(conversation)
        conversation.new_pass()
        self._forget_failure(conversation)
        conversation.dirty = False
        conversation.restarts += 1
        conversation.state = LOOKING
        self._begun.append(conversation)

    def _forget_failure(self, conversation: Conversation) -> None:
        failure = self.demand.failures.pop(conversation.id, None)
        if failure is None:
            return
        for ingredient in (*conversation.products, *conversation.sought):
            if ingredient.failure is failure:
                ingredient.failure = None
                if ingredient.ref is None:
                    ingredient.trying, ingredient.searching = conversation, True
                self._tell_users(ingredient, ingredient.ref)

    # ----------------------------------------------------------------- payloads that are gone

    def _missing(self, event: Missing) -> None:
        """Their producers run again; the reactor that was to have them waits."""
        waiter = self._conversations[event.reactor] if event.reactor else None
        given = waiter.given if waiter is not None else self._clock
        for ingredient in map(self._ingredients.__getitem__, event.names):
            if ingredient.made <= given:  # else it was made again in the meantime
                self._remake(ingredient)
        if waiter is None:
            return
        waiter.state = WAITING
        waiter.steps.pop()  # it was told the digests, but saw no value
        self._give(waiter)

    def _remake(self, ingredient: Ingredient) -> None:
        if ingredient.recalled:
            self._forget_recalled(ingredient)
            self._seek(ingredient, ingredient.cause)
        sender = ingredient.sender
        if sender is None or ingredient.remaking or ingredient.failure is not None:
            return  # it is being made, or never will be
        ingredient.remaking = True
        if sender.state is DONE or sender.state is REPLAYING:
            self._make_again(ingredient, sender)
        elif ingredient.name in sent_names(sender.steps):
            self._stale.append(sender)
        else:  # it has begun again anyway, or begins now
            self._begin(sender)

    @staticmethod
    def _forget_recalled(ingredient: Ingredient) -> None:
        """It can't be opened, or may not hold after all. If it is needed, its producer has to be found."""
        ingredient.recalled, ingredient.former, ingredient.ref = False, ingredient.ref, None
        ingredient.searching, ingredient.stage = False, -1

    def _make_again(self, ingredient: Ingredient, sender: Conversation) -> None:
        ingredient.remade += 1
        if ingredient.remade > MOST_REMAKES:
            self._fail(ingredient, Failure("payload", ingredient.name, (sender.id,)))
        else:
            self._start(sender, Reason("payload", name=ingredient.name))

    # ----------------------------------------------------------------- the end

    def _idle(self, _: Idle) -> None:
        failure = self.demand.obstacle()
        if failure is not None:
            self._finish(GiveUp(failure))
        elif self.demand.is_met():
            refs = tuple([self._ingredients[name].ref for name in self.demand.targets])
            self._finish(Deliver(self.demand.targets, refs))  # type: ignore[arg-type]
        elif not self._look_further():
            self._finish(GiveUp(self.demand.deadlock()))

    def _finish(self, last: Instruction) -> None:
        self._out.append(last)
        for conversation in self._conversations.values():
            if conversation.live and conversation.state in (WAITING, PARKED):
                self._leave(conversation)
                conversation.state, conversation.live = NEW, False
                conversation.new_pass()
                self._out.append(Drop(conversation.id))

    def _look_further(self) -> bool:
        """Nothing moves: see whether another candidate, or another way of a replay, could help.

        Strangers are the last resort: a hint that waits with others in a cycle is believed.
        """
        searches = [ingredient for ingredient in self.demand.stuck() if ingredient.sender is None]
        return (
            any(self._go_back(ingredient) or self._try_hinted(ingredient) for ingredient in searches)
            or any(self._try_stranger(ingredient) for ingredient in searches)
            or any(self._despair(ingredient) for ingredient in reversed(searches))
            or self._turn_a_replay()
        )

    def _go_back(self, ingredient: Ingredient) -> bool:
        """A candidate was parked when its question was answered, for another one was tried: now go on with it."""
        parked = next((c for c in ingredient.tried if c.state is PARKED), None)
        if parked is None:
            return False
        ingredient.trying = parked
        self._begin(parked)
        return True

    def _try_hinted(self, ingredient: Ingredient) -> bool:
        more = ingredient.next < len(ingredient.candidates)
        if ingredient.stage > HINTED or (ingredient.stage == HINTED and not more):
            return False
        self._try_next(ingredient)
        return True

    def _turn_a_replay(self) -> bool:
        """Nothing that goes wrong inside a replay is an error: let one of a cycle go another recorded way.

        If none has one that holds, let one run instead: it may ask otherwise live.
        """
        cycle = [link for link in self.demand.cycle() if link[0].state is REPLAYING]
        if any(self._turn(conversation) for conversation, _ in cycle):
            return True
        for conversation, ingredient in cycle[:1]:
            self._start(conversation, Reason("changed", name=ingredient.name))
        return bool(cycle)

    def _turn(self, conversation: Conversation) -> bool:
        """Let a replay look for a way without what it waits for; False if it has done so before."""
        stuck = stuck_ingredients(conversation)
        if conversation.denied.issuperset(stuck):
            return False
        conversation.denied = conversation.denied.union(stuck)
        conversation.turned, conversation.wait = True, None
        refs = [None if conversation.lacks(i) else i.ref for i in conversation.asked]
        self._advance(conversation, [FAILED_ANSWER if ref is None else ref.digest for ref in refs])
        return True

    def _try_stranger(self, ingredient: Ingredient) -> bool:
        if not all(c.over or is_wrong_hint(c, ingredient) for c in ingredient.hinted()):
            return False
        if not ingredient.final:
            self._ask_for_candidates(ingredient)
        elif ingredient.next < len(ingredient.candidates):
            self._try_next(ingredient)
        else:
            return False
        return True

    def _despair(self, ingredient: Ingredient) -> bool:
        """Only strangers that wait are left: that they might send it is no reason to call it a deadlock."""
        if not ingredient.final or not all(c.over for c in ingredient.hinted()):
            return False
        self._fail(ingredient, self._nobody(ingredient))
        return True

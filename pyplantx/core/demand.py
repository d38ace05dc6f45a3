"""One demand as a whole: what is known of it, and all that can be asked about that.

This file answers questions, the driver's and the scheduler's own; what changes the answers is all in ``scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyplantx.core.messages import Failure, ReactorId
from pyplantx.core.state import (
    DONE,
    Conversation,
    Conversations,
    Ingredient,
    Ingredients,
    asked_and_local,
    stuck_from,
    stuck_ingredients,
    wait_cycle,
)
from pyplantx.core.trace import Group, ObjectRef, Step


class Demand:
    """What is known of one demand, and questions about it.

    Attributes
    ----------
    conversations, ingredients
        All that have been named in it.
    targets : tuple of str
        The ingredients that the caller wants.
    wanted : tuple of str
        The reactors that the caller wants to be up to date.
    failures : dict
        Reactor to what is wrong with it.
    fatal : Failure or None
        What is wrong with the demand as a whole.
    """

    def __init__(self) -> None:
        self.conversations, self.ingredients = Conversations(), Ingredients()
        self.targets: tuple[str, ...] = ()
        self.wanted: tuple[ReactorId, ...] = ()
        self.failures: dict[ReactorId, Failure] = {}
        self.fatal: Failure | None = None

    # ----------------------------------------------------------------- of one ingredient

    def known(self, name: str) -> ObjectRef | None:
        """The ingredient, if it is known and its sender is through."""
        ingredient = self.ingredients.get(name)
        if ingredient is None or not ingredient.settled:
            return None
        return ingredient.ref

    def sender(self, name: str) -> ReactorId | None:
        """Who sent an ingredient in this demand, replayed or live; None if nobody did."""
        ingredient = self.ingredients.get(name)
        return ingredient.sender.id if ingredient is not None and ingredient.sender is not None else None

    def ancestry(
        self, name: str, read: dict[ReactorId, tuple[list[str], list[Group]]]
    ) -> Iterator[tuple[str, ReactorId | None, ObjectRef | None]]:
        """An ingredient and all that it was made from, each once.

        Parameters
        ----------
        name : str
            The ingredient.
        read : dict
            Gets, for each sender when its first ingredient is told, the ingredients that it asked for and what else it
            observed. It serves for the next call before anything happens, too: one may have sent thousands.

        Yields
        ------
        (str, str or None, ObjectRef or None)
            The ingredient; who sent it in this demand, replayed or live, if anybody did; the ingredient, if it is known
            and its sender is through.
        """
        pending, seen = [name], set[str]()
        told = set[Conversation]()
        while pending:
            at = pending.pop()
            if at in seen:
                continue
            seen.add(at)
            ingredient = self.ingredients[at]
            sender = ingredient.sender
            if sender is None:
                yield at, None, self.known(at)
                continue
            if sender not in told:
                told.add(sender)
                if sender.id not in read:
                    read[sender.id] = asked_and_local(sender.steps)
                pending += read[sender.id][0]
            yield at, sender.id, ingredient.ref if sender.state is DONE else None

    # ----------------------------------------------------------------- of one reactor

    def inputs(self, reactor: ReactorId) -> list[str]:
        """The ingredients that a reactor received in this demand, replayed or live, in order."""
        return self.conversations[reactor].inputs()

    def trace(self, reactor: ReactorId) -> tuple[Step, ...]:
        """What a reactor observed and sent in this demand so far, replayed or live, with today's answers."""
        return tuple(self.conversations[reactor].steps)

    def failure(self, reactor: ReactorId) -> Failure | None:
        """What is wrong with a reactor, or with the demand as a whole."""
        return self.failures.get(reactor) or self.fatal

    def waiting_for(self, reactor: ReactorId) -> tuple[str, ...]:
        """The ingredients that a reactor waits for and that are not known."""
        return tuple([i.name for i in stuck_ingredients(self.conversations[reactor])])

    def chain(self, reactor: ReactorId) -> list[tuple[ReactorId, str]]:
        """Who asked for what, from the demand down to `reactor`: (who asks, the ingredient).

        The first one who asks is "" where the caller of the plant asked.
        """
        chain: list[tuple[ReactorId, str]] = []
        at: Conversation | None = self.conversations[reactor]
        while at is not None and at.cause is not None:
            ingredient, at = at.cause, at.cause.cause
            chain.append((at.id if at is not None else "", ingredient.name))
        return chain[::-1]

    # ----------------------------------------------------------------- of all ingredients

    def answered(self) -> list[ObjectRef]:
        """All ingredients that are known in this demand."""
        return [ingredient.ref for ingredient in self.ingredients.values() if ingredient.ref is not None]

    # ----------------------------------------------------------------- how far it is

    def is_met(self) -> bool:
        """Whether all is there that the caller wants."""
        for ingredient in map(self.ingredients.__getitem__, self.targets):
            if ingredient.ref is None or ingredient.remaking or not ingredient.settled:
                return False
        return all(self.conversations[id].state is DONE for id in self.wanted)

    def obstacle(self) -> Failure | None:
        """Why it can't be met, if that is known."""
        if self.fatal is not None:
            return self.fatal
        for id in self.wanted:
            if id in self.failures:
                return self.failures[id]
        for name in self.targets:
            failure = self.ingredients[name].failure
            if failure is not None:
                return failure
        return None

    def stuck(self) -> list[Ingredient]:
        """All that it waits for, through anybody who might send it; near ones first."""
        return stuck_from(self._stuck_targets())

    def _stuck_targets(self) -> list[Ingredient]:
        found = []
        for conversation in map(self.conversations.__getitem__, self.wanted):
            found += stuck_ingredients(conversation)
        for ingredient in map(self.ingredients.__getitem__, self.targets):
            if ingredient.open or ingredient.remaking:
                found.append(ingredient)
            elif ingredient.sender is not None:
                found += stuck_ingredients(ingredient.sender)
        return found

    def cycle(self) -> list[tuple[Conversation, Ingredient]]:
        """Who waits for what where nothing moves, from the first one on that is stuck; see `wait_cycle`."""
        return wait_cycle(self._first_stuck())

    def _first_stuck(self) -> Conversation | None:
        for conversation in map(self.conversations.__getitem__, self.wanted):
            if not conversation.over:
                return conversation
        for ingredient in map(self.ingredients.__getitem__, self.targets):
            if ingredient.open or ingredient.remaking:
                return ingredient.trying or ingredient.sender
            if ingredient.sender is not None and ingredient.sender.state is not DONE:
                return ingredient.sender
        return None

    def deadlock(self) -> Failure:
        """What to report if that can't be helped."""
        links = self.cycle()
        name = self.targets[0] if self.targets else ""
        return Failure("deadlock", name, tuple([c.id for c, _ in links]), tuple([i.name for _, i in links]))

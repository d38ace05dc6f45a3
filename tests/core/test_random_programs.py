"""Random programs, edits, configs, losses and collections against the oracle, session after session."""

from __future__ import annotations

import random

import pytest
from driver import Index, Session, Thrown, ToyError
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Truth, check_consistent, check_minimal, evaluate
from programs import CONFIG_KEYS, CONFIG_VALUES, Source, sendable

from pyplantx.core import messages as m


class History:
    """One program on one index: edited, reverted, collected and demanded of, again and again."""

    def __init__(self, seed: int, *, chancy: bool = False, losses: float = 0.0, unfiltered: bool = False) -> None:
        self.rng = random.Random(seed)
        self.chancy, self.losses, self.unfiltered = chancy, losses, unfiltered
        self.source = Source(self.rng, self.rng.randrange(2, 9), chancy)
        self.config = {key: self.rng.choice(CONFIG_VALUES) for key in CONFIG_KEYS}
        self.index = Index()
        self.versions = [dict(self.source.ops)]
        self.tally: dict[str, int] = {}

    def go(self, sessions: int) -> dict[str, int]:
        for _ in range(sessions):
            self.change()
            self.demand()
        return self.tally

    def change(self) -> None:
        draw = self.rng.random()
        if draw < 0.35:
            self.source.edit()
            self.versions.append(dict(self.source.ops))
        elif draw < 0.45:
            self.source.ops = dict(self.rng.choice(self.versions))
        elif draw < 0.7:
            self.config = {**self.config, self.rng.choice(CONFIG_KEYS): self.rng.choice(CONFIG_VALUES)}
        elif draw < 0.8:
            kept = {address: value for address, value in self.index.payloads.items() if self.rng.random() < 0.5}
            self.index.payloads = kept

    def demand(self) -> None:
        rng, program = self.rng, self.source.program()
        names = sorted({name for ops in self.source.ops.values() for name in sendable(ops)})
        demand = m.Demanded(tuple(rng.sample(names, min(len(names), rng.choice((1, 1, 2))))))
        if rng.random() < 0.2 or not names:
            demand = m.Demanded((), (rng.choice(list(program)),))
        elif rng.random() < 0.1:
            demand = m.Demanded((), (), (rng.choice(list(program)),))
        foretold = self.dry_run(program, demand)
        before = {root: len(traces) for root, traces in self.index.traces.items()}
        session = Session(
            self.index, program, self.config, chance=random.Random(rng.random()),
            shuffle=random.Random(rng.random()) if rng.random() < 0.5 else None, losses=self.losses,
            unfiltered=self.unfiltered,
        )  # fmt: skip
        outcome = self.meet(session, demand)
        self.judge(session, demand, outcome, before)
        if not self.losses and not self.chancy:
            assert set(foretold) <= set(session.ran) | {"?"}, (foretold, session.ran)

    def dry_run(self, program: dict, demand: m.Demanded) -> list[str]:
        records = dict(self.index.records)
        session = Session(self.index, program, self.config, dry=True, unfiltered=self.unfiltered)
        declined = session.inspect(m.Demanded(demand.names, (), demand.forced + demand.wanted))
        assert self.index.records == records
        return declined[:1]

    def meet(self, session: Session, demand: m.Demanded) -> list | Thrown | ToyError:
        try:
            return session.meet(demand)
        except (Thrown, ToyError) as error:
            return error

    def judge(self, session: Session, demand: m.Demanded, outcome: list | Exception, before: dict[str, int]) -> None:
        assert session.runs == {}, "a reactor was left waiting"
        truth = None
        if not self.chancy:
            can_send = {id: sendable(ops) for id, ops in self.source.ops.items()}
            truth = evaluate(session.program, self.config, can_send)
            self.judge_outcome(session, demand, outcome, truth)
        check_minimal(session, before, truth)
        if isinstance(outcome, list):
            check_consistent(session)
        if not self.chancy and not self.losses:
            assert len(set(session.ran)) == len(session.ran), session.ran
        kind = "met" if isinstance(outcome, list) else getattr(getattr(outcome, "failure", None), "kind", "raised")
        for key in (kind, "runs" if session.ran else "nothing ran"):
            self.tally[key] = self.tally.get(key, 0) + 1

    def judge_outcome(self, session: Session, demand: m.Demanded, outcome: list | Exception, truth: Truth) -> None:
        wanted = [*demand.forced, *demand.wanted, *[truth.sender[n] for n in demand.names if n in truth.sender]]
        if any(truth.leans_on_a_failure(id) for id in wanted):
            return  # what failed had sent early: who asked before got it, who asked after got the failure
        possible = all(id in truth.done for id in wanted) and all(name in truth.values for name in demand.names)
        if possible:
            assert not isinstance(outcome, Exception), outcome
            assert outcome == [truth.values[name] for name in demand.names]
        else:
            assert isinstance(outcome, Exception), outcome


@pytest.mark.parametrize("block", range(8))
def test_campaign(block: int):
    tally: dict[str, int] = {}
    for seed in range(block * 25, block * 25 + 25):
        for kind, count in History(seed).go(12).items():
            tally[kind] = tally.get(kind, 0) + count
    assert tally["met"] > 100 and tally["nothing ran"] > 40, tally
    print(tally)

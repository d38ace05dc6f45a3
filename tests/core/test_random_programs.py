"""Random programs, edits, configs, losses and collections against the oracle, session after session."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from driver import Index, Program, Session, Thrown, ToyError
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Truth, check_consistent, check_minimal, evaluate
from programs import CONFIG_KEYS, CONFIG_VALUES, Source, sendable

from pyplantx.core import messages as m
from pyplantx.core import scheduler, state


class History:
    """One program on one index: edited, reverted, collected and demanded of, again and again.

    Parameters
    ----------
    seed : int
    chancy : bool
        Reactors send random numbers. Then there is no one truth, but all that is told must fit together.
    losses : float
        How probable it is that a worker dies in a step.
    unfiltered : bool
        As for `Session`.
    damaged : bool
        Records of the index get lost.
    others : bool
        Deep traces are recalled, and other processes make reactors be reconsidered.
    """

    def __init__(
        self, seed: int, *, chancy: bool = False, losses: float = 0.0, unfiltered: bool = False, damaged: bool = False,
        others: bool = False,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.chancy, self.losses, self.unfiltered, self.damaged = chancy, losses, unfiltered, damaged
        self.others, self.last = others, None
        self.source = Source(self.rng, self.rng.randrange(2, 9), chancy)
        self.config = {key: self.rng.choice(CONFIG_VALUES) for key in CONFIG_KEYS}
        self.index = Index()
        self.versions = [dict(self.source.ops)]
        self.tally: Counter[str] = Counter()

    def go(self, sessions: int) -> Counter[str]:
        for _ in range(sessions):
            self.change()
            self.demand()
        return self.tally

    def change(self) -> None:
        draw = self.rng.random() + (0.6 if self.others and self.rng.random() < 0.5 else 0.0)
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
        elif draw < 0.9 and self.damaged:
            self.index.records = {key: text for key, text in self.index.records.items() if self.rng.random() < 0.7}

    def demand(self) -> None:
        rng, program = self.rng, self.source.program()
        names = sorted({name for ops in self.source.ops.values() for name in sendable(ops)})
        demand = m.Demanded(tuple(rng.sample(names, min(len(names), rng.choice((1, 1, 2))))))
        if rng.random() < 0.2 or not names:
            demand = m.Demanded((), tuple(rng.sample(list(program), min(len(program), rng.choice((1, 1, 2))))))
        elif rng.random() < 0.1:
            demand = m.Demanded((), (), (rng.choice(list(program)),))
        if self.others and self.last is not None and rng.random() < 0.6:
            demand = self.last
        self.last = demand
        foretold = self.dry_run(program, demand)
        before = {root: len(traces) for root, traces in self.index.traces.items()}
        session = Session(
            self.index, program, self.config, chance=random.Random(rng.random()),
            shuffle=random.Random(rng.random()) if rng.random() < 0.5 else None, losses=self.losses,
            unfiltered=self.unfiltered, recalls=self.others, rivals=0.2 if self.others else 0.0,
        )  # fmt: skip
        outcome = self.meet(session, demand)
        self.judge(session, demand, outcome, before)
        # What fails may have asked in another order than was recorded, and never have come so far.
        if isinstance(outcome, list) and not (self.losses or self.chancy or self.others or session.shuffle):
            assert set(foretold) <= set(session.ran), (foretold, session.ran)

    def dry_run(self, program: Program, demand: m.Demanded) -> list[str]:
        """Who would run first; who else would depends on what comes of that."""
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
            truths = (evaluate(session.program, self.config, can_send, seed) for seed in range(20))
            truth = next((t for t in truths if self.is_right(session, demand, outcome, t)), None)
            assert truth is not None, outcome
        if not self.damaged:
            check_minimal(session, before, truth)
        if isinstance(outcome, list):
            check_consistent(session)
        if not (self.chancy or self.losses or session.scheduler.taken_back):  # a replay may tell what its run does not
            assert len(set(session.ran)) == len(session.ran), session.ran
        kind = "met" if isinstance(outcome, list) else getattr(getattr(outcome, "failure", None), "kind", "raised")
        self.tally["hurried"] += session.hurried
        self.tally.update([kind, "runs" if session.ran else "nothing ran", *["recalled"] * session.recalled])

    def is_right(self, session: Session, demand: m.Demanded, outcome: list | Exception, truth: Truth) -> bool:
        """Whether the outcome is the truth, or one of them: who asks in any order may meet a failure first, or not."""
        wanted = [*demand.forced, *demand.wanted, *[truth.sender[n] for n in demand.names if n in truth.sender]]
        lost = session.lost_for_good()
        if lost and getattr(getattr(outcome, "failure", None), "kind", "") == "lost":
            return True
        # What comes of a lost reactor needn't be called so: among strangers it was one that failed before "no producer"
        # was said. Values are still true ones, unless somebody caught that.
        as_true = isinstance(outcome, list) and not self.source.catches()
        if not as_true and truth.may_lean_on(lost, demand):
            return True
        if any(truth.leans_on_a_failure(id) for id in wanted):
            return True  # what failed had sent early: who asked before got it, who asked after got the failure
        possible = all(id in truth.done for id in wanted) and all(name in truth.values for name in demand.names)
        if not possible:
            return isinstance(outcome, Exception)
        return outcome == [truth.values[name] for name in demand.names]


def campaign(seeds: range, **options: object) -> Counter[str]:
    tally: Counter[str] = Counter()
    for seed in seeds:
        tally += History(seed, **options).go(12)
    return tally


#: Options of a history, and how many of them the quick campaign goes through.
CAMPAIGNS = {
    "plain": ({}, 400),
    "unfiltered": ({"unfiltered": True}, 100),
    "chancy": ({"chancy": True}, 200),
    "losses": ({"losses": 0.02}, 80),
    "chancy, losses": ({"chancy": True, "losses": 0.03}, 80),
    "damaged": ({"damaged": True}, 50),
    "others": ({"others": True}, 100),
    "chancy, others": ({"chancy": True, "others": True}, 100),
}


@pytest.mark.parametrize(("options", "histories"), CAMPAIGNS.values(), ids=CAMPAIGNS)
def test_against_the_oracle(options: dict, histories: int):
    tally = campaign(range(histories), **options)
    assert tally["met"] > 5 * histories and tally["nothing ran"] > histories, tally
    assert all(tally[kind] > 0 for kind in ("deadlock", "no producer")), tally
    assert tally["hurried"] > histories / 8, tally
    assert (tally["recalled"] > histories / 2) == ("others" in options), tally


@pytest.mark.campaign
@pytest.mark.parametrize("block", range(20))
@pytest.mark.parametrize("kind", CAMPAIGNS)
def test_against_the_oracle_at_length(kind: str, block: int):
    campaign(range(1000 + 500 * block, 1500 + 500 * block), **CAMPAIGNS[kind][0])


@settings(max_examples=150)
@given(st.integers(0, 2**64), st.booleans(), st.sampled_from([0.0, 0.1]))
def test_hypothesis_finds_no_other(seed: int, chancy: bool, losses: float):
    History(seed, chancy=chancy, losses=losses).go(6)


def test_conversations_keep_to_the_table(monkeypatch: pytest.MonkeyPatch):
    seen: set[tuple[str, str]] = set()

    class Watched(state.Conversation):
        __slots__ = ()

    state_slot = state.Conversation.__dict__["state"]

    def write(self: state.Conversation, new: str) -> None:
        try:
            seen.add((state_slot.__get__(self), new))
        except AttributeError:  # being made
            pass
        state_slot.__set__(self, new)

    Watched.state = property(state_slot.__get__, write)  # type: ignore[assignment]
    monkeypatch.setattr(state, "Conversation", Watched)
    campaign(range(150), chancy=True, losses=0.05)
    campaign(range(100))
    allowed = {(old, new) for old, following in state.TRANSITIONS.items() for new in following}
    assert seen <= allowed, seen - allowed
    assert len(seen) > 15
    assert all(name.upper() in scheduler.__doc__ for name in state.TRANSITIONS)

"""Depth is no limit, and costs no more than length."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from driver import hash_text

from pyplantx.core import messages as m
from pyplantx.core import state
from pyplantx.core.scheduler import Scheduler
from pyplantx.core.state import sent_names
from pyplantx.core.trace import Group, ObjectRef, Observation, Segment, Sent, decode_segment, encode_segment

DEEP = 100_000


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Cyclic garbage collection would take most of the time: nothing here becomes garbage before the end."""
    gc.disable()
    yield
    gc.enable()


def ref_of(i: int) -> ObjectRef:
    digest = f"{i:032x}"
    return ObjectRef("toy", 1, digest, digest, 1)


class Chain:
    """A driver of a chain of reactors "0", "1", ...: each receives the one before. Counts the scheduler's steps."""

    def __init__(self, records: dict[str, str]) -> None:
        self.records = records
        self.scheduler = Scheduler(hash_text, lambda id: (id, self.segment(id)), self.segment)
        self.events: deque[Any] = deque()
        self.started = self.steps = 0
        self.over: Any = None

    def produce(self, name: str) -> m.Deliver | m.GiveUp:
        self.events.append(m.Demanded((name,)))
        while self.over is None:
            self.steps += 1
            for instruction in self.scheduler.handle(self.events.popleft() if self.events else m.Idle()):
                getattr(self, type(instruction).__name__.lower())(instruction)
        return self.over

    def findproducers(self, instruction: m.FindProducers) -> None:
        self.events.append(m.ProducersFound(instruction.name, instruction.stage, (instruction.name,), False))

    def segment(self, key: str) -> Segment | None:
        text = self.records.get(key)
        return decode_segment(text) if text is not None else None

    def start(self, instruction: m.Start) -> None:
        self.started += 1
        before = int(instruction.reactor) - 1
        self.events.append(m.Asked(instruction.reactor, (), (str(before),) if before >= 0 else ()))

    def resume(self, instruction: m.Resume) -> None:
        sent = Sent(instruction.reactor, ref_of(int(instruction.reactor)))
        self.events.append(m.Ended(instruction.reactor, (sent,)))

    def record(self, instruction: m.Record) -> None:
        self.records[instruction.root] = encode_segment(Segment(instruction.steps))

    def reuse(self, instruction: m.Reuse) -> None:
        pass

    def deliver(self, instruction: m.Deliver) -> None:
        self.over = instruction


LAST = str(DEEP - 1)


def test_a_chain_of_100_000_cold_and_warm():
    assert sys.getrecursionlimit() <= 1000
    records: dict[str, str] = {}
    cold = Chain(records)
    assert cold.produce(LAST) == m.Deliver((LAST,), (ref_of(DEEP - 1),))
    assert cold.started == len(records) == DEEP
    warm = Chain(records)
    assert warm.produce(LAST) == m.Deliver((LAST,), (ref_of(DEEP - 1),))
    assert warm.started == 0
    assert (cold.steps, warm.steps) == (3 * DEEP + 2, DEEP + 2)  # events are linear in the length


class Failing(Chain):
    """The first reactor fails, and so does everybody who hears of it."""

    def resume(self, instruction: m.Resume) -> None:
        self.events.append(m.Raised(instruction.reactor, (), OUCH))

    def throw(self, instruction: m.Throw) -> None:
        self.events.append(m.Raised(instruction.reactor, (), instruction.failure.error))

    def giveup(self, instruction: m.GiveUp) -> None:
        self.over = instruction


OUCH = ValueError("ouch")


def test_a_failure_goes_up_a_long_chain():
    length = 20_000
    records: dict[str, str] = {}
    Chain(records).produce(str(length - 1))
    del records["0"]
    failing = Failing(records)
    given_up = failing.produce(str(length - 1))
    assert given_up == m.GiveUp(m.Failure("raised", reactors=("0",), error=OUCH))
    assert failing.started == length
    assert failing.steps < 10 * length


@pytest.mark.parametrize("fan", [1, 5_000])
def test_a_fan_out_and_in(fan: int):
    """One to many to one: as many events for each."""
    records = {"one": encode_segment(Segment((Sent("one", ref_of(1)),)))}
    question = Group((Observation("ingredient", "one", ref_of(1).digest),))
    for i in range(fan):
        records[str(i)] = encode_segment(Segment((question, Sent(str(i), ref_of(i)))))
    group = Group(tuple([Observation("ingredient", str(i), ref_of(i).digest) for i in range(fan)]))
    records["all"] = encode_segment(Segment((group, Sent("all", ref_of(2)))))
    driver = Chain(records)
    driver.produce("all")
    assert driver.started == 0
    assert driver.steps == fan + 2 + 2


def test_a_reactor_that_asks_many_times(monkeypatch: pytest.MonkeyPatch):
    """In a replay each step is looked at a few times, not once for each question behind it."""
    looked_at = 0

    def counted(steps: Any) -> set[str]:
        nonlocal looked_at
        looked_at += len(steps)
        return sent_names(steps)

    monkeypatch.setattr(state, "sent_names", counted)
    many = 2_000
    names = [str(i) for i in range(many)]
    records = {name: encode_segment(Segment((Sent(name, ref_of(int(name))),))) for name in names}
    steps: list[Any] = []
    for name in names:  # it asks and sends in turns
        steps += [Group((Observation("ingredient", name, ref_of(int(name)).digest),)), Sent(f"own {name}", ref_of(1))]
    records["all"] = encode_segment(Segment((*steps, Sent("all", ref_of(2)))))
    driver = Chain(records)
    driver.scheduler.handle(m.Demanded(tuple(names)))  # known in advance: nothing has to be told on the way
    for name in names:
        driver.scheduler.handle(m.ProducersFound(name, 0, (name,), False))
    driver.scheduler.handle(m.Demanded(("all",)))
    driver.scheduler.handle(m.ProducersFound("all", 0, ("all",), False))
    assert driver.scheduler.demand.known("all") == ref_of(2)
    assert many <= looked_at < 5 * many

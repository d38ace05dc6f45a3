"""Who might send a name, by what the code of many reactors says; who is called so."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from pyplantx import ReactorFunc
from pyplantx.fingerprint import sending
from pyplantx.fingerprint.hints import to_pattern
from pyplantx.session import roster
from pyplantx.session.roster import Roster, _Hints
from pyplantx.warehouse.warehouse import Warehouse


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each reactor the hints that it was made with."""
    monkeypatch.setattr(sending, "hints", lambda fingerprinter, reactor: reactor)


def hinting(number: int, *patterns: list[list[str]]) -> Any:
    return SimpleNamespace(id=f"r{number}", names=[], patterns=[to_pattern(pieces) for pieces in patterns])


@pytest.mark.usefixtures("told")
def test_patterns_are_found_by_their_beginnings() -> None:
    """As if each were tried, in order of registration."""
    rng = random.Random(3)

    def piece() -> list[str]:
        return rng.choice(
            [["*"], ["=", "a"], ["=", "ab"], ["=", "a.b["], ["=", "\\"], ["=", "\n☃"], ["=", "[\\s\\S]*"]]
        )

    reactors = []
    for number in range(200):
        pieces = [[piece() for _ in range(rng.randrange(1, 4))] for _ in range(2)]
        reactors.append(hinting(number, *[one for one in pieces if to_pattern(one) is not None]))
    hints = _Hints(None, reactors)  # type: ignore[arg-type]
    for _ in range(300):
        name = "".join(rng.choice(["a", "b", "a.b[", "\\", "\n☃", "[\\s\\S]*", "."]) for _ in range(rng.randrange(5)))
        fitting = [one.id for one in reactors if any(re.fullmatch(text, name, re.DOTALL) for text in one.patterns)]
        assert hints.senders(name) == fitting


@pytest.mark.usefixtures("told")
def test_a_name_is_held_against_few_of_many_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    fullmatch = re.fullmatch
    hints = _Hints(None, [hinting(number, [["=", f"a{number:03}_"], ["*"]]) for number in range(200)])  # type: ignore[arg-type]
    monkeypatch.setattr(
        roster.re, "fullmatch", lambda pattern, *rest: tried.append(pattern) or fullmatch(pattern, *rest)
    )
    assert [hints.senders(f"a{number:03}_x") for number in range(200)] == [[f"r{number}"] for number in range(200)]
    assert len(tried) == 200


@pytest.mark.usefixtures("told")
def test_a_reactor_is_found_by_its_name_and_may_be_added_again() -> None:
    def make(name: str, sends: str) -> Any:
        @ReactorFunc(sends=[sends])
        def reactor(pipe: Any) -> None:
            pass

        reactor.id, reactor.name, reactor.names, reactor.patterns = f"module.{name}", name, (), ()
        return reactor

    seen = SimpleNamespace(fingerprint=lambda function: str(function))
    known = Roster(seen)  # type: ignore[arg-type]
    one, two = make("one", "x"), make("two", "y")
    known.add(one)
    assert known.find("one") == "module.one"
    known.add(two)
    known.add(one)
    assert [reactor.name for reactor in known] == ["one", "two"]
    assert (known.find("two"), known.declared("x"), known.declared("y")) == (
        "module.two",
        ["module.one"],
        ["module.two"],
    )
    known.replace([two])
    with pytest.raises(Exception, match="one"):
        known.find("one")


def test_reactors_of_which_nobody_knows_what_they_send_are_looked_up_once_in_a_demand(
    open_plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each name that is looked for: of a thousand reactors that were a million look-ups."""
    looked_up = []
    find_record = Warehouse.find_record
    monkeypatch.setattr(Warehouse, "find_record", lambda self, key: looked_up.append(key) or find_record(self, key))

    def make(at: int) -> Any:
        names = (f"x{at}", f"x{at - 1}")

        @ReactorFunc(name=f"r{at}")
        def link(pipe: Any) -> Any:
            own, other = names
            pipe.send(own, ((yield pipe.receive(other)) if at else 0) + 1)

        return link

    count = 40
    with open_plant(*[make(at) for at in reversed(range(count))]) as plant:
        assert plant.produce(f"x{count - 1}") == count
    assert len(looked_up) <= 4 * count

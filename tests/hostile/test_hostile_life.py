"""Random lives of a whole plant against a dictionary: nothing that it answers is ever wrong, and its store stays sound.

The oracle is an attacker's opposite: it knows the code, the config and which crash came when. After any of send,
receive, config change, code change, reopening, collection, pin, fork, a second plant and a kill, each ingredient is
what the code says that it is today; what was reported finished before a kill is not run again after it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from pyplantx import Plant, ReactorFunc
from pyplantx.testing import forget_reactors
from tests.faults.children import Child, Tell, in_child

#: The last lines of the reactors, in versions: what an edit changes. `{n}` counts in the version.
CODE = {
    "base": ("pipe.send('base', [pipe.read_config('a'), {n}])", "def base(pipe):\n    "),
    "text": ("pipe.send('text', str((yield pipe.receive('base'))) * (1 + {n}))", "def text(pipe):\n    "),
    "big": (
        "pipe.send('big', bytes([pipe.read_config('b') + {n}]) * (2_000_000 - {n}))",
        "def big(pipe):\n    ",
    ),
    "join": (
        "pipe.send('join', (len(text), big[:3], {n}))",
        "def join(pipe):\n    text, big = yield pipe.receive('text', 'big')\n    ",
    ),
}


def answer(name: str, config: dict[str, int], versions: dict[str, int]) -> Any:
    """What an ingredient is, said by a program that has no store."""
    if name == "base":
        return [config["a"], versions["base"]]
    if name == "text":
        return str(answer("base", config, versions)) * (1 + versions["text"])
    if name == "big":
        return bytes([config["b"] + versions["big"]]) * (2_000_000 - versions["big"])
    text, big = answer("text", config, versions), answer("big", config, versions)
    return len(text), big[:3], versions["join"]


def reactors(versions: dict[str, int]) -> list[Any]:
    """The program as it is now, as a notebook would define it again."""
    forget_reactors()
    made = []
    for name, (line, head) in CODE.items():
        namespace: dict[str, Any] = {"__name__": "life"}
        exec(head + line.format(n=versions[name]), namespace)
        made.append(ReactorFunc(namespace[name]))
    return made


names = st.sampled_from(sorted(CODE))


class PlantLife(RuleBasedStateMachine):
    """The state: a directory, config, versions of the code, up to two plants."""

    options: dict[str, Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.config = {"a": 1, "b": 1}
        self.versions = dict.fromkeys(CODE, 0)
        self.plants: list[Any] = []

    @initialize()
    def begin(self) -> None:
        self.plants = [self.open()]

    def open(self) -> Any:
        plant = Plant(
            self.home / "plant", durability="process", lock_timeout=20, config=self.config, **self.made_options()
        )
        plant.add_reactors(*reactors(self.versions))
        return plant

    def made_options(self) -> dict[str, Any]:
        return {name: self.home / value if name in ("key", "index") else value for name, value in self.options.items()}

    def expected(self, name: str) -> Any:
        return answer(name, self.config, self.versions)

    def renew(self) -> None:
        """All plants with today's code and config."""
        for plant in self.plants:
            plant.close()
        self.plants = [self.open() for _ in self.plants]

    @rule(name=names, pick=st.integers(0, 1))
    def ask(self, name: str, pick: int) -> None:
        plant = self.plants[pick % len(self.plants)]
        assert plant.produce(name) == self.expected(name)
        assert plant.fetch_ingredient(name) == self.expected(name)

    @rule(name=names)
    def ask_twice_and_run_nothing(self, name: str) -> None:
        plant = self.plants[0]
        plant.produce(name)
        before = len(plant.get_execution_history())
        assert plant.produce(name) == self.expected(name)
        assert len(plant.get_execution_history()) == before

    @rule(name=names)
    def run(self, name: str) -> None:
        self.plants[0].run_reactor(name)
        assert self.plants[0].produce(name) == self.expected(name)

    @rule(key=st.sampled_from("ab"), value=st.integers(0, 3))
    def change_config(self, key: str, value: int) -> None:
        self.config = {**self.config, key: value}
        for plant in self.plants:
            plant.set_config(self.config)

    @rule(name=names, version=st.integers(0, 2))
    def edit(self, name: str, version: int) -> None:
        self.versions[name] = version
        self.renew()

    @rule()
    def reopen(self) -> None:
        self.renew()

    @rule()
    def second_plant(self) -> None:
        if len(self.plants) < 2:
            self.plants.append(self.open())

    @rule()
    def close_second(self) -> None:
        if len(self.plants) > 1:
            self.plants.pop().close()

    @rule(size=st.sampled_from([0, 1000, 3_000_000]))
    def collect(self, size: int) -> None:
        self.plants[0].gc(max_size=size)

    @rule(name=names)
    def pin(self, name: str) -> None:
        plant = self.plants[0]
        plant.produce(name)
        plant.pin(name)
        plant.gc(max_size=0)
        assert plant.fetch_ingredient(name) == self.expected(name)
        plant.unpin(name)

    @rule(name=names)
    def fork(self, name: str) -> None:
        """A child that uses the directory beside us, in a plant of its own."""
        self.in_child(lambda plant: plant.produce(name) == self.expected(name) and plant.close() is None, 0)
        assert self.plants[0].produce(name) == self.expected(name)

    @rule(name=names, value=st.integers(0, 3))
    def crash(self, name: str, value: int) -> None:
        """A child finishes something under another config and is killed: that is there, whoever asks."""

        def die(plant: Any) -> bool:
            plant.set_config({**self.config, "a": value, "b": value})
            plant.produce(name)
            os.kill(os.getpid(), signal.SIGKILL)
            return False

        self.in_child(die, -signal.SIGKILL)
        plant = self.plants[0]
        plant.set_config({**self.config, "a": value, "b": value})
        before = len(plant.get_execution_history())
        assert plant.produce(name) == answer(name, {**self.config, "a": value, "b": value}, self.versions)
        assert len(plant.get_execution_history()) == before  # reported as finished, and not lost
        plant.set_config(self.config)

    @rule(name=names, value=st.integers(0, 3), after=st.integers(0, 40))
    def crash_midway(self, name: str, value: int, after: int) -> None:
        """A child is killed at some moment of its work: what it told to be finished is there, and all is right."""
        config = {**self.config, "a": value, "b": value}

        def produce(tell: Tell) -> None:
            plant = self.open()
            plant.add_event_listener(Plant.EventType.reactor_finished, lambda kind, name, function: tell(name))
            plant.set_config(config)
            plant.produce(name)

        child = Child(produce)
        time.sleep(after / 1000)
        child.kill()
        finished = set(child.end().lines)
        plant = self.plants[0]
        plant.set_config(config)
        before = len(plant.get_execution_history())
        assert plant.produce(name) == answer(name, config, self.versions)
        again = {entry["reactor"] for entry in plant.get_execution_history()[before:]}
        assert not again & finished
        plant.set_config(self.config)

    @rule(name=names, value=st.integers(0, 3))
    def two_configs_at_once(self, name: str, value: int) -> None:
        """The second plant has another config for a while; neither gets what belongs to the other."""
        config = {**self.config, "a": value}
        self.plants[-1].set_config(config)
        assert self.plants[-1].produce(name) == answer(name, config, self.versions)
        self.plants[-1].set_config(self.config)
        assert self.plants[0].produce(name) == self.expected(name)

    def in_child(self, work: Any, expected: int) -> None:
        def act() -> None:
            assert work(self.open())

        assert in_child(act) == expected

    @rule()
    def drop(self) -> None:
        """A session that nobody closes, as in a notebook whose variable is bound anew."""
        self.plants = [self.open()]

    @rule()
    def check(self) -> None:
        assert [problem for problem in self.plants[0].warehouse.check() if not problem.harmless] == []

    def teardown(self) -> None:
        try:
            if self.plants:
                self.check()
        finally:
            self.end()

    def end(self) -> None:
        from pyplantx.warehouse import session

        root = os.path.realpath(self.home / "plant")
        for plant in self.plants:
            plant.close()
        left = session._sessions.get(root)  # of dropped plants
        while left is not None and left.users and not left.index.environments.closed:
            session.close_session(left)
        forget_reactors()
        shutil.rmtree(self.home)


class SignedLife(PlantLife):
    """The same with a key, and the index apart."""

    options = {"trust": "signed", "key": "key", "index": "index"}


def lives(kind: Any, examples: int, steps: int) -> Any:
    made = kind.TestCase
    made.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        derandomize=examples < 100,
    )
    return made


TestPlantLife = lives(PlantLife, 12, 12)
TestSignedLife = lives(SignedLife, 6, 12)


@pytest.mark.campaign
def test_long_lives() -> None:
    for kind in (PlantLife, SignedLife):
        lives(type(kind.__name__, (kind,), {}), 400, 40)("runTest").runTest()


def test_a_plant_that_does_not_see_edits_is_found() -> None:
    """The positive control."""

    class Stale(PlantLife):
        def open(self) -> Any:
            now, self.versions = self.versions, dict.fromkeys(CODE, 0)
            try:
                return super().open()
            finally:
                self.versions = now

    life = Stale()
    life.begin()
    life.ask("join", 0)
    life.edit("join", 1)
    with pytest.raises(AssertionError):
        life.ask("join", 0)
    life.end()

"""What the tests of the config share: a recorder, fingerprints, and "would it run again?"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyplantx.config import ConfigSource
from pyplantx.fingerprint.code import Fingerprinter


class Tape:
    """A recorder that is a list, without repeats."""

    def __init__(self) -> None:
        self.reads: dict[str, tuple[str, str]] = {}
        self.calls = 0

    def observe(self, kind: str, key: str, answer: str, shown: str) -> None:
        assert kind == "config"
        self.calls += 1
        self.reads.setdefault(key, (answer, shown))

    def keys(self) -> set[str]:
        """What was asked, apart from what kind of thing the config is and whether a place is auxiliary."""
        return {key for key in self.reads if not key.startswith("auxiliary ")} - {"value []"}

    def auxiliary(self) -> set[str]:
        """The places that were read as auxiliary ones."""
        return {key.partition(" ")[2] for key in self.reads if key.startswith("auxiliary ")}


def code(thing: Any) -> str:
    return Fingerprinter().fingerprint(thing)


def encode(value: object) -> str:
    return Fingerprinter().encode_value(value)


def source(config: Any, auxiliary: Any = ()) -> ConfigSource:
    """A source as the plant makes it, with a memory for code of its own, as in a new process."""
    today = Fingerprinter()
    return ConfigSource(config, auxiliary=auxiliary, encode=today.encode_value, code=today.fingerprint)


def record(config: Any, program: Callable[[Any], Any], auxiliary: Any = ()) -> Tape:
    """Run `program` on a view of `config`; what it read."""
    tape = Tape()
    plant_side = source(config, auxiliary)
    program(plant_side.view(tape))
    plant_side.check_unchanged(tape)
    return tape


def changed(tape: Tape, config: Any, auxiliary: Any = ()) -> list[str]:
    """The recorded questions that `config` answers otherwise: none means "up to date"."""
    today = source(config, auxiliary)
    return [key for key, (answer, _) in tape.reads.items() if today.answer(key)[0] != answer]

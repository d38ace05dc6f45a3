"""Classes whose objects raise when they are looked at, apart from the tests: pytest looks at all that these have."""

from __future__ import annotations

from typing import Any

NAMES = ["Leaves", "LeavesReduced", "HasNoDict", "Odd", "OddExit"]


class Leaves:
    """Ends the program when it is asked for its state."""

    def __getstate__(self) -> Any:
        raise SystemExit(3)


class LeavesReduced:
    def __reduce__(self) -> Any:
        raise SystemExit(3)


class HasNoDict:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise SystemExit(3)


class _Words(type):
    def __getattr__(cls, name: str) -> Any:
        raise KeyError(name)


class _Exits(type):
    def __getattr__(cls, name: str) -> Any:
        raise SystemExit(name)


class Odd(metaclass=_Words):
    """Its class has an error of its own for what it has not."""

    def __init__(self) -> None:
        self.number = 1


class OddExit(metaclass=_Exits):
    def __init__(self) -> None:
        self.number = 1

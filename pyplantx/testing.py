"""Helpers for testing one reactor without a plant.

::

    from pyplantx.testing import PipeworkMock, run_reactor_to_completion

    def test_scale():
        pipe = PipeworkMock({"data": [1, 2]}, config={"factor": 3})
        run_reactor_to_completion(scale, pipe)
        assert pipe.sent == {"scaled": [3, 6]}
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from pyplantx.basics.given import check_config, refusal
from pyplantx.config import ConfigSource
from pyplantx.core.messages import Asked, Failure, Raised
from pyplantx.core.trace import Group, ObjectRef
from pyplantx.errors import NoProducer, did_you_mean
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.pipework import Pipework
from pyplantx.reactor import Reactor, default_registry
from pyplantx.runs.failures import error_of
from pyplantx.runs.run import Outcome, Run
from pyplantx.session.world import Answers
from pyplantx.warehouse.warehouse import Warehouse


class PipeworkMock(Pipework):
    """Stands in for a plant: gives what it was given, keeps what is sent.

    Parameters
    ----------
    ingredients : mapping, optional
        Name to value of what the reactor may receive.
    config : object, optional
        The config, as for `Plant.set_config`.

    Attributes
    ----------
    sent : dict
        Name to value of what the reactor has sent: the very objects, where a plant gives its consumers copies.
    received : list of str
        Names that it asked for, in order.
    config_reads : list of str
        The config parameters that it read, as `explain` would name them.
    """

    def __init__(self, ingredients: Mapping[str, Any] | None = None, config: object | None = None) -> None:
        if ingredients is not None and not isinstance(ingredients, Mapping):
            raise refusal("ingredients of a PipeworkMock", ingredients, "PipeworkMock({'data': [1, 2]})")
        self.ingredients = dict(ingredients or {})
        self.config = check_config(config)
        self.sent: dict[str, Any] = {}
        self.received: list[str] = []
        self.config_reads: list[str] = []
        self._room: str | None = None

    def room(self) -> str:
        """A directory for what the reactor allocates; it is there as long as this object."""
        if self._room is None:
            self._room = tempfile.mkdtemp(prefix="pyplantx-mock-")
            weakref.finalize(self, shutil.rmtree, self._room, ignore_errors=True)
        return self._room


class _Store:
    """A store that keeps values as they are; allocations are real, in a directory that vanishes with the stand-in."""

    def __init__(self, pipe: PipeworkMock, warehouse: Warehouse) -> None:
        self._pipe, self._warehouse = pipe, warehouse

    def store(self, name: str, value: Any, type_given: Any = None) -> ObjectRef:
        ref = self._warehouse.store(name, value, type_given)  # refuses what a plant would refuse
        self._pipe.sent[name] = value
        return ref

    def open_unchecked(self, ref: ObjectRef) -> tuple[Any, None]:
        return self._pipe.ingredients[ref.address], None

    def settle(self, receipts: Sequence[Any]) -> Sequence[Any]:
        return ()

    def allocate(self, name: str, type_given: Any, **options: Any) -> Any:
        return _Sealed(self._pipe, name, self._warehouse, self._warehouse.allocate(name, type_given, **options))

    def allocate_temp(self, name: str, type_given: Any, **options: Any) -> Any:
        return self._warehouse.allocate_temp(name, type_given, **options)


class _Sealed:
    """An allocation that puts what was sealed among what was sent."""

    def __init__(self, pipe: PipeworkMock, name: str, warehouse: Warehouse, allocation: Any) -> None:
        self._pipe, self._name, self._warehouse, self._allocation = pipe, name, warehouse, allocation
        self.handle = allocation.handle

    def seal(self, type_given: Any = None) -> ObjectRef:
        ref: ObjectRef = self._allocation.seal(type_given)
        self._pipe.sent[self._name] = self._warehouse.open(ref)
        return ref

    def discard(self) -> None:
        self._allocation.discard()


def run_reactor_to_completion(reactor: Any, pipe: PipeworkMock) -> PipeworkMock:
    """Run one reactor to its end.

    Parameters
    ----------
    reactor : Reactor or callable
        The reactor, or a function that could be one.
    pipe : PipeworkMock
        What it receives and where it sends.

    Returns
    -------
    PipeworkMock
        `pipe`; see its ``sent``. Files that the reactor allocated are there as long as it is.

    Raises
    ------
    Exception
        What the reactor raised.
    NoProducer
        If it asks for something that `pipe` doesn't have, and does not catch the error.
    """
    if not isinstance(pipe, PipeworkMock):
        raise refusal("the pipe", pipe, "run_reactor_to_completion(reactor, PipeworkMock({'data': [1, 2]}))")
    wanted = reactor if isinstance(reactor, Reactor) else Reactor(reactor)
    with Warehouse(pipe.room(), durability="process") as warehouse:
        run = Run(wanted, _Store(pipe, warehouse), _world(pipe.config))
        outcome = run.start()
        while isinstance(outcome, Asked):
            _note_reads(pipe, outcome)
            outcome = _answered(pipe, run, outcome.names)
        _note_reads(pipe, outcome)
    if isinstance(outcome, Raised):
        raise outcome.error
    return pipe


def _world(config: object | None) -> Answers:
    fingerprinter = Fingerprinter()

    def source() -> ConfigSource:
        return ConfigSource(config, encode=fingerprinter.encode_value, code=fingerprinter.standalone)

    return Answers(source, fingerprinter, _NoNotes(), _error_of, lambda subreactor: None)


class _NoNotes:
    """Remembers nothing about tracked files."""

    def blob_get(self, kind: str, key: str) -> str | None:
        return None

    def blob_put(self, kind: str, key: str, text: str) -> None:
        return None


def _error_of(failure: Failure, cause: BaseException | None) -> BaseException:
    return error_of(failure, str, cause=cause)


def _answered(pipe: PipeworkMock, run: Run, names: Sequence[str]) -> Outcome:
    """Give the reactor what it asks for, or raise at its ``yield`` that it is not there."""
    for name in names:
        if name not in pipe.ingredients:
            error = NoProducer(
                f"the reactor asks for {name!r}, which the PipeworkMock was not given",
                hint=did_you_mean(name, pipe.ingredients) or f"PipeworkMock({{{name!r}: ...}})",
            )
            return run.throw(Failure("no producer", name, error=error))
        pipe.received.append(name)
    return run.resume(tuple([ObjectRef("mock", 1, "", name, 0) for name in names]))


def _note_reads(pipe: PipeworkMock, outcome: Any) -> None:
    for step in getattr(outcome, "steps", ()):
        if isinstance(step, Group):
            pipe.config_reads += [o.key for o in step.observations if o.kind == "config"]


def forget_reactors() -> None:
    """Empty the list of functions that were decorated: for test suites that define reactors in tests."""
    default_registry.clear()


__all__ = ["PipeworkMock", "forget_reactors", "run_reactor_to_completion"]

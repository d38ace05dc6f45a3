"""What a function of blocks stands on besides its blocks: its code, and the values that it has brought along.

A map goes on after a kill with the blocks that were finished before. That is right as long as a block hangs on nothing
but its part of the sources. A function that draws random numbers, counts, appends to a list or fills a second array
has a state, and blocks that are left out leave that behind. So what it can reach is digested when the map begins, and
is part of the workspace's key; and it is looked at again while blocks are finished. Where it has changed, or something
in it can't be seen, nothing is kept.

This file may know: functions, values, fingerprints. It may not know: ledgers, workspaces, loops.
"""

from __future__ import annotations

import functools
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from pyplantx.config.view import ConfigView
from pyplantx.core.trace import Digest
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.foreign import offers
from pyplantx.fingerprint.nodes import COMPILED
from pyplantx.fingerprint.objects import class_module, instance_dict
from pyplantx.fingerprint.value import hash_text

if TYPE_CHECKING:
    from pyplantx.fingerprint.code import Fingerprinter

#: Seconds that a look may always take; dearer ones come so rarely that they take a `_SHARE` of the time.
_CHEAP, _SHARE = 0.001, 20.0

#: Bytes of arrays that a function may have brought along: more would be digested for too long.
_MOST_BYTES: Final[int] = 256 << 20

_CONTAINERS: Final = (list, tuple, dict, set, frozenset)
_NAMED: Final = (type, types.ModuleType, types.BuiltinFunctionType)  # what they are, their names say


class CannotTell(Exception):
    """Something that a function has brought along can't be seen, or is too large to be looked at."""


class Look(Protocol):
    """Whether functions of blocks are what they were; None if it is not time to look. See `Captured.look`."""

    def __call__(self, now: bool = False) -> bool | None: ...


class Captured:
    """The functions of a map, and what they can reach, held against what that was in the beginning.

    Parameters
    ----------
    functions : sequence of object
        What is called for the blocks, and what else the result hangs on: a value to begin with.
    fingerprinter : Fingerprinter
        Of the plant.
    is_unfinished : callable
        Whether an array is one that the run has allocated and not sent: a function that has it may fill it.
    clock, effort : callable
        Seconds that pass; seconds that this thread has worked, whoever else wanted the processor.

    Attributes
    ----------
    digest : Digest
        Of all of that.

    Raises
    ------
    CannotTell
        If something can't be seen.
    """

    def __init__(
        self,
        functions: Sequence[Any],
        fingerprinter: Fingerprinter,
        is_unfinished: Callable[[Any], bool],
        clock: Callable[[], float] = time.monotonic,
        effort: Callable[[], float] = time.thread_time,
    ) -> None:
        self._functions, self._fingerprinter = functions, fingerprinter
        self._is_unfinished, self._clock, self._effort = is_unfinished, clock, effort
        self.digest: Digest = self._digest_of(functions)
        self._looked, self._took = 0.0, 0.0
        self._chance = _chance()
        if not self.look(now=True):  # the first time takes longer: it reads code
            raise CannotTell("it changes while nobody uses it")

    def look(self, now: bool = False) -> bool | None:
        """Whether the functions are what they were; None if it is not time to look.

        Parameters
        ----------
        now : bool
            Look, however long it takes.
        """
        if not now and self._took > _CHEAP and self._clock() - self._looked < _SHARE * self._took:
            return None
        begun = self._effort()
        try:
            is_same = self._digest_of(self._functions) == self.digest
        except (CannotTell, RuntimeError):  # changed while it was looked at
            return False
        chance = _chance()
        is_same = is_same and all(chance[name] == state for name, state in self._chance.items())
        self._chance = {**chance, **self._chance}  # what was loaded meanwhile counts from now on
        took = self._effort() - begun
        self._looked = self._clock()
        self._took = min(self._took or took, took)  # the least: the garbage collector may have had its turn in it
        return is_same

    def _digest_of(self, values: Iterable[Any]) -> Digest:
        reader = _Reader(self._fingerprinter.of_present(), self._is_unfinished)
        for value in values:
            reader.take(value)
        return hash_text("\n".join(reader.found))


def digest_of_given(values: Iterable[Any], fingerprinter: Fingerprinter, told: Callable[[Any], str | None]) -> Digest:
    """The digest of what a call was given.

    Parameters
    ----------
    values : iterable
        Its arguments.
    fingerprinter : Fingerprinter
        Of the plant.
    told : callable
        Value -> what tells of it without reading it, if anything does. Else None.

    Raises
    ------
    CannotTell
        If something can't be seen, or there is too much of it.
    """
    reader = _Reader(fingerprinter.of_present(), lambda value: False, told)
    for value in values:
        reader.take(value)
    return hash_text("\n".join(reader.found))


class _Reader:
    """Digests values with all that they reach."""

    def __init__(
        self,
        fingerprinter: Fingerprinter,
        is_unfinished: Callable[[Any], bool],
        told: Callable[[Any], str | None] = lambda value: None,
    ) -> None:
        self.found: list[str] = []
        self._fingerprinter, self._is_unfinished, self._told = fingerprinter, is_unfinished, told
        self._bytes_left = _MOST_BYTES
        self._seen: dict[int, tuple[int, Any]] = {}  # with the values: an address may be used again

    def take(self, value: Any) -> None:
        """Add what there is to say of a value."""
        known = self._seen.get(id(value))
        if known is not None:
            self.found.append(f"again {known[0]}")
            return
        self._seen[id(value)] = (len(self._seen), value)
        self.found.append(f"{class_module(type(value))} {type(value).__qualname__}")
        self._look_into(value)

    def _look_into(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._several((value.__func__, value.__self__))
        elif _is_bound(value):
            self.found.append(value.__name__)
            self.take(value.__self__)
        elif isinstance(value, functools.partial):
            self._several((value.func, *value.args, sorted(value.keywords), *_in_order(value.keywords), vars(value)))
        elif type(value) in _CONTAINERS:
            self._container(value)
        elif isinstance(value, _NAMED):
            self._tell(value)
        elif not (isinstance(value, ConfigView) or _is_pipe(value)):  # what is read from these is observed
            self._leaf(value)

    def _several(self, values: Iterable[Any]) -> None:
        for value in values:
            self.take(value)

    def _container(self, value: Any) -> None:
        self.found.append(str(len(value)))
        if isinstance(value, (set, frozenset)):
            self._leaf(value)
        else:
            self._several([*value, *value.values()] if isinstance(value, dict) else value)

    def _function(self, function: types.FunctionType) -> None:
        """Its code with the globals that it reaches, then what it has closed over, its defaults, its attributes."""
        cells = function.__closure__ or ()
        bare = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, None, tuple(map(_empty, cells))
        )
        bare.__module__, bare.__qualname__ = function.__module__, function.__qualname__
        self._tell(bare)
        self._several(_contents(cells))
        self._several((function.__defaults__, function.__kwdefaults__, vars(function)))

    def _leaf(self, value: Any) -> None:
        """A value that is digested as a whole."""
        told = self._told(value)
        if told is not None:
            return self.found.append(f"{len(told)}:{told}")
        if self._is_unfinished(value):
            raise CannotTell(f"it has an array that is not sent yet: {type(value).__name__}")
        if offers(type(value), "__next__"):
            raise CannotTell(f"it has an iterator: {type(value).__name__}")
        self._bytes_left -= _size_of(value)
        if self._bytes_left < 0:
            raise CannotTell("it has brought along more than is looked at")
        if _is_own_instance(value, self._fingerprinter):
            self._tell(type(value))
            self._several([vars(value)])
        else:
            self.found.append(self._in_words(self._fingerprinter.encode_value, value))

    def _tell(self, code: Any) -> None:
        opaque = [line for line in self._fingerprinter.opaque(code) if not line.endswith(COMPILED)]
        if opaque:
            raise CannotTell(opaque[0])
        self.found.append(self._in_words(self._fingerprinter.standalone, code))

    @staticmethod
    def _in_words(digest: Callable[[Any], Digest], value: Any) -> Digest:
        try:
            return digest(value)
        except PyplantxError as error:
            raise CannotTell(str(error).splitlines()[0]) from error


def _size_of(value: Any) -> int:
    """Bytes of an array; 0 for anything else. An object of the user's may have a word for any name."""
    size = value.nbytes if offers(type(value), "nbytes") else 0
    return size if isinstance(size, int) else 0


def _is_bound(value: Any) -> bool:
    """Whether it is a compiled method of an object: ``items.append``."""
    if not isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
        return False
    return not isinstance(value.__self__, (types.ModuleType, type(None)))


def _is_pipe(value: Any) -> bool:
    return type(value).__module__ == "pyplantx.pipework"


def _is_own_instance(value: Any, fingerprinter: Fingerprinter) -> bool:
    """Whether it is an object of a plain class of the project, whose attributes can be looked at one by one."""
    cls = type(value)
    if not fingerprinter.is_project_class(cls) or instance_dict(value) is None:
        return False
    own_pickle = any("__reduce_ex__" in vars(base) or "__reduce__" in vars(base) for base in cls.__mro__[:-1])
    return not own_pickle and not offers(cls, "__fingerprint__") and _has_no_slots(cls)


def _has_no_slots(cls: type) -> bool:
    return not any(vars(base).get("__slots__") for base in cls.__mro__)


def _in_order(keywords: dict[str, Any]) -> list[Any]:
    return [keywords[name] for name in sorted(keywords)]


def _empty(cell: types.CellType) -> types.CellType:
    """Another cell, so that the code can be looked at without what the function has closed over."""
    return types.CellType(None)


def _contents(cells: Iterable[types.CellType]) -> Iterator[Any]:
    """What was closed over, but for variables that have no value yet."""
    for cell in cells:
        with suppress(ValueError):
            yield cell.cell_contents


def _chance() -> dict[str, Any]:
    """The state of the generators of random numbers that everybody shares, as far as they are loaded."""
    found: dict[str, Any] = {}
    if "random" in sys.modules:
        found["random"] = sys.modules["random"].getstate()
    if "numpy.random" in sys.modules:
        kind, keys, *rest = sys.modules["numpy.random"].get_state()
        found["numpy"] = (kind, keys.tobytes(), *rest)
    torch_state = getattr(sys.modules.get("torch"), "get_rng_state", None)
    if torch_state is not None:
        found["torch"] = torch_state().numpy().tobytes()
    return found

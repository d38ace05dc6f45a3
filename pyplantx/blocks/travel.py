"""What a function of blocks needs to be called in another process: its code, what it refers to, and its arrays.

A worker reads by itself what it can: sources that lie in files, of which it is told where. Everything else is read here
and sent, block by block. Results come back: the plant's process alone writes to its store.

Code of the project that goes by name is imported anew there. What the names held here travels with it, and who finds
something else under them does not compute (`pyplantx.fingerprint.agreement`).

This file may know: handles, pickles, fingerprints. It may not know: processes, sockets, loops.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.logs import log
from pyplantx.basics.tuples import NamedTuple
from pyplantx.blocks.handles import Handle, MapHandle
from pyplantx.blocks.places import Place, place_of
from pyplantx.blocks.spaced import Spaced, has_gaps
from pyplantx.errors import BadRequest, PyplantxError
from pyplantx.fingerprint.agreement import Agreement, NamedCode
from pyplantx.fingerprint.nested import names_in
from pyplantx.specs.builtin import code_pickler
from pyplantx.specs.refusals import advice, refusal
from pyplantx.subreactor import Uncounted, Watched

if TYPE_CHECKING:
    from pyplantx.blocks.geometry import Box
    from pyplantx.fingerprint.code import Fingerprinter

#: What can't be stored in a value, and yet be sent: it is opened again.
_OPENED_AGAIN = ("an HDF dataset of the plant", "a Zarr array of the plant")

_HINT = "give it what it needs by value (read the config, receive, open files before), or call it with workers=1"


class At(NamedTuple):
    """Stands for a part of a source that a worker reads itself."""

    box: Box


class Unread(NamedTuple):
    """What a worker gives when it can't read a source."""

    why: str


class Errand:
    """A function with the sources that it is called with parts of, where it is called.

    Parameters
    ----------
    function : callable
        Of parts.
    sources : sequence
        For each part a dataset (anything with ``read_block``) from which it is read, or None.
    named : NamedCode or Agreement, optional
        What was imported by name; what these names held where the function comes from.
    """

    def __init__(
        self, function: Callable[..., Any], sources: Sequence[Any], named: NamedCode | Agreement | None = None
    ) -> None:
        self._function, self._sources, self._named = function, sources, named

    def __call__(self, *parts: Any) -> Any:
        try:
            values = [self._read(*each) for each in zip(self._sources, parts)]
        except (OSError, PyplantxError) as error:
            return Unread(f"{type(error).__name__}: {error}")
        return Watched(self._function, Uncounted())(*values)  # who sent it has counted all that it names

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._function, self._sources, self._named)  # in this order: pickling fills the last one

    def differences(self) -> list[str]:
        """Labels of the code and values that are not here what they were where the function comes from."""
        return self._named.differences() if isinstance(self._named, Agreement) else []

    def _read(self, source: Any, part: Any) -> Any:
        if type(part) is not At:
            return part
        return source.read_block(part.box)


class Placed(Handle):
    """A source that workers read themselves; a loop over it reads nothing ahead.

    Parameters
    ----------
    inner : Handle
        The source as this process reads it.
    seen : object
        The dataset as a worker gets it.
    """

    def __init__(self, inner: Handle, seen: Any) -> None:
        super().__init__(inner.array, inner.allocation)
        self.inner, self.seen = inner, seen

    @property
    def here(self) -> Handle:
        return self.inner

    def part(self, box: Box) -> Any:
        """Where it lies."""
        return At(tuple(box))

    def expect(self, box: Box) -> None:
        """The pages of a map are brought into memory here, while the workers compute."""
        if not self.inner.asks:
            self.inner.expect(box)

    def let_go(self, box: Box) -> None:
        if not self.inner.asks:
            self.inner.let_go(box)


class Workers(Protocol):
    """Who calls functions of blocks besides the reactor's own thread; see `pyplantx.executors.workers`.

    Attributes
    ----------
    count : int
        How many at once, if nobody says otherwise.
    travels : bool
        Whether what they are given goes to another process.
    same_machine : bool
        Whether they are sure to see the same files.
    """

    count: int
    travels: bool
    same_machine: bool

    def pack(self, function: Callable[..., Any], pickler: Callable[[Any, Any], Any]) -> Any:
        """A function as `begin` takes it, if it travels."""

    def begin(self, job: Any) -> AbstractContextManager[Callable[..., Any]]:
        """Gives a function that calls the one of the job, and that several threads may call at once."""


class _Called:
    """Calls a function elsewhere; what could not be read there is read here and sent."""

    def __init__(self, call: Callable[..., Any], sources: Sequence[Handle]) -> None:
        self._call, self._sources = call, sources
        self._reads_here = False

    def __call__(self, *parts: Any) -> Any:
        if not self._reads_here:
            given = self._call(*map(_ready, parts))
            if type(given) is not Unread:
                return given
            log().info("a worker process can't read a block itself, so it is sent: %s", given.why)
            self._reads_here = True
        return self._call(*[_ready(_read_here(*each)) for each in zip(self._sources, parts)])


def _ready(part: Any) -> Any:
    return Spaced(part) if has_gaps(part) else part


def _read_here(handle: Handle, part: Any) -> Any:
    if type(part) is not At:
        return part
    assert isinstance(handle, Placed)
    return handle.inner.read(part.box) if handle.inner.asks else handle.inner.part(part.box)


def pack(
    function: Callable[..., Any],
    sources: Sequence[Handle],
    what: str,
    workers: Workers,
    fingerprinter: Fingerprinter | None = None,
) -> tuple[Any, list[Handle]]:
    """Make a function ready to travel.

    Parameters
    ----------
    function : callable
        Of the parts of a block. It is sent by name if it can be imported, else (a lambda, a closure, a function of
        ``__main__``) as it is, with the globals that it refers to. A config in it is sent as a whole, and observed so.
    sources : sequence of Handle
        What it is called with parts of.
    what : str
        Who calls it, for messages.
    workers : Workers
        To whom it travels.
    fingerprinter : Fingerprinter, optional
        The plant's, which says what belongs to the project.

    Returns
    -------
    (object, list of Handle)
        The job for the workers, and the sources, of which some are `Placed`.

    Raises
    ------
    BadRequest
        If it refers to something that can't be sent, or that goes by name and can't be compared.
    """
    placed, named = [_placed(handle) for handle in sources], NamedCode(fingerprinter)
    errand = Errand(function, [handle.seen if isinstance(handle, Placed) else None for handle in placed], named)
    try:
        job = workers.pack(errand, lambda file, take: _pickler(file, take, workers.same_machine, named))
    except PyplantxError as error:
        raise BadRequest(f"the function of {what} can't be sent to another process: {error}", hint=_HINT) from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise BadRequest(f"the function of {what} can't be sent to another process: {why}", hint=_HINT) from error
    return job, placed


@contextmanager
def calling(workers: Workers, job: Any, sources: Sequence[Handle]) -> Iterator[Callable[..., Any]]:
    """A function to be called here with parts of the sources, which `pack` gave; the workers are called by it."""
    with workers.begin(job) as call:
        yield _Called(call, sources)


def _placed(handle: Handle) -> Handle:
    """The handle for a source that workers can read themselves, if it is one."""
    if handle.asks:
        return Placed(handle, handle.array) if handle.allocation is None and _was_received(handle.array) else handle
    place = place_of(handle.array) if isinstance(handle, MapHandle) and handle.is_plain else None
    return handle if place is None else Placed(handle, _Opened(place))


def _was_received(dataset: Any) -> bool:
    """Whether a dataset can be opened again in another process."""
    try:
        dataset.__reduce__()
    except (PyplantxError, TypeError):
        return False
    return True


class _Opened:
    """An array that is mapped when a part of it is first read; the other end of a `Place`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._array: Any = None

    def read_block(self, box: Box) -> Any:
        """A part, which nothing can write to."""
        if self._array is None:
            self._array = self._place.open()
        return self._array[box]

    def __reduce__(self) -> tuple[Any, ...]:
        return _Opened, (self._place,)


def _pickler(file: Any, take: Callable[[Any], Any], same_machine: bool, named: NamedCode) -> Any:
    pickler = code_pickler(file, take)
    pickler.reducer_override = _Looks(same_machine, named)
    save_global = pickler.save_global

    def save_singleton(item: Any, name: str | None = None) -> None:
        """What says itself, by a text from ``__reduce__``, that it is to be imported."""
        named.note_global(item, name)
        save_global(item, name)

    pickler.save_global = save_singleton
    return pickler


class _Looks:
    """How things that a function refers to are sent; NotImplemented: as pickle or dill do it.

    Parameters
    ----------
    same_machine : bool
        Whether files are where they are here.
    named : NamedCode
        Is told of everything.
    """

    def __init__(self, same_machine: bool, named: NamedCode) -> None:
        self._same_machine, self._named = same_machine, named
        self._names: set[str] = set()  # that the functions use so far

    def __call__(self, item: Any) -> Any:
        kind = type(item)
        self._named.note(item)
        if kind is FunctionType:
            self._names.update(names_in(item.__code__))
            return NotImplemented
        if issubclass(kind, ModuleType):
            return _imported, (item.__name__, self._used_inside(item.__name__))
        if kind.__name__ == "ndarray" and self._same_machine and hasattr(item, "__array_interface__"):
            place = place_of(item)
            return NotImplemented if place is None else (Place.open, (place, item.flags.writeable))
        return _unless_refused(item, kind)

    def _used_inside(self, package: str) -> list[str]:
        """Modules of a package that are imported here, and perhaps reached through it: ``package.module.function``."""
        found = [f"{package}.{name}" for name in sorted(self._names) if f"{package}.{name}" in sys.modules]
        return [*found, *(deeper for name in found for deeper in self._used_inside(name))]


def _unless_refused(item: Any, kind: type) -> Any:
    what = refusal(kind)
    if what is None or what in _OPENED_AGAIN or str(getattr(item, "__name__", "")).startswith("dill"):
        return NotImplemented
    raise BadRequest(f"it refers to {what}", hint=advice(kind))


def _imported(name: str, inside: Sequence[str]) -> Any:
    """A module, with modules of it that are to be there too."""
    for other in inside:
        importlib.import_module(other)
    return importlib.import_module(name)

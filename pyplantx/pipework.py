"""The reactor's side of the wall: the pipework that it is given, and the run that steps it.

A `Run` drives one reactor from its start to its end. It keeps what the reactor observed and sent, in
order, and hands that over whenever the reactor stops. The scheduler never sees the values, the reactor
never sees the index.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pyplantx.core.messages import Asked, Ended, Missing, Raised
from pyplantx.core.trace import Digest, Group, ObjectRef, Observation, Sent, Step
from pyplantx.errors import BadRequest, NotSent, PayloadMissing
from pyplantx.logs import log
from pyplantx.reactor import Reactor, SubreactorCall, watch_calls

if TYPE_CHECKING:
    from pyplantx.core.messages import Failure

#: What a plain function comes to: it has ended without ever stopping.
_FINISHED = object()

_NOTHING_SEEN: frozenset[tuple[str, str]] = frozenset()
_NOTHING_SENT: frozenset[str] = frozenset()
_NO_ALLOCATIONS: dict[str, Any] = {}  # replaced, never changed

_T = TypeVar("_T")

#: What a run may say when it stops.
Outcome = Asked | Ended | Raised | Missing


class Store(Protocol):
    """What a run needs of the warehouse."""

    def store(self, name: str, value: Any, type_given: Any = None) -> ObjectRef: ...
    def open(self, ref: ObjectRef) -> Any: ...
    def allocate(self, name: str, type_given: Any, **options: Any) -> Any: ...
    def allocate_temp(self, name: str, type_given: Any, **options: Any) -> Any: ...


class World(Protocol):
    """What a run may learn from outside, besides ingredients; see `pyplantx.world`."""

    def config_view(self, run: Run) -> Any: ...
    def read_config(self, run: Run, name: str) -> Any: ...
    def check_unchanged(self, run: Run) -> None: ...
    def forget(self, run: Run) -> None: ...
    def read_config_unregistered(self, name: str) -> Any: ...
    def peek_config(self, name: str, default: Any) -> Any: ...
    def has_config(self, run: Run, name: str) -> bool: ...
    def file(self, path: str, verify: bool) -> Observation: ...
    def env(self, name: str) -> tuple[str | None, Observation]: ...
    def classes(self, ref: ObjectRef) -> Observation | None: ...
    def subreactor(self, reactor: Reactor, callers: Sequence[Any], called: Any) -> Observation: ...
    def entered(self, called: Any) -> None: ...
    def error_of(self, failure: Failure) -> BaseException: ...


class Request:
    """What ``pipe.receive`` returns: to be yielded, or awaited."""

    __slots__ = ("_pending", "line", "names", "single")

    def __init__(self, names: tuple[str, ...], line: str, pending: set[Any]) -> None:
        self.names, self.line = names, line
        self.single = len(names) == 1
        self._pending = pending
        pending.add(self)

    def __iter__(self) -> Generator[Request, Any, Any]:
        return (yield self)

    __await__ = __iter__

    def taken(self) -> None:
        """It was yielded."""
        self._pending.discard(self)


class Pipework:
    """A reactor's only door to the plant.

    The plant makes one for each run and passes it as the reactor's first argument.
    """

    __slots__ = ("__dict__", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def name(self) -> str:
        """Name of the reactor."""
        return self._run.reactor.name

    def receive(self, *names: str) -> Request:
        """Ask for ingredients: ``x = yield pipe.receive('x')``, ``a, b = yield pipe.receive('a', 'b')``.

        Parameters
        ----------
        *names : str
            Names of the ingredients; any text.

        Returns
        -------
        Request
            To be yielded (or awaited in a coroutine); the value of that is the ingredient, or a tuple
            of them if several were asked for.

        Raises
        ------
        BadRequest
            If the reactor is a plain function: it can't wait.
        """
        return self._run.request(names)

    def send(self, name: str, value: Any, type: Any = None) -> None:
        """Send an ingredient.

        Parameters
        ----------
        name : str
            Any text.
        value : object
            The value, or the handle that `allocate` gave.
        type : Ingredient.Type, spec class, spec or str, optional
            How to store it; inferred from the value if not given.

        Raises
        ------
        CannotStore
            If the value can't be stored; says where inside it the trouble is.
        BadRequest
            If the name was sent already, or was allocated and something else is sent.
        """
        self._run.send(_checked_name(name), value, type)

    def allocate(self, name: str, type: Any = None, **options: Any) -> Any:
        """Begin an ingredient that the reactor fills itself, and sends when it is ready.

        Parameters
        ----------
        name : str
            Name of the ingredient.
        type : Ingredient.Type, spec class, spec or str
            Its type, such as ``specs.HdfArraySpec`` or ``Ingredient.Type.file``.
        **options
            Belong to the type: ``shape``, ``dtype``, ``chunks``, ``compression``; ``suffix``.

        Returns
        -------
        object
            What to write into: a dataset, an array, a path.
        """
        return self._run.allocate(_checked_name(name), type, options)

    def allocate_temp(self, *name_and_type: Any, **options: Any) -> Any:
        """Like `allocate`, for scratch space that vanishes with the reactor.

        Parameters
        ----------
        *name_and_type
            The type, or a name (for error messages only) and the type.
        **options
            Belong to the type, as in `allocate`.
        """
        if not 1 <= len(name_and_type) <= 2:
            hint = "pipe.allocate_temp(specs.HdfArraySpec, shape=...)"
            raise BadRequest("pipe.allocate_temp takes a type", hint=hint)
        name = name_and_type[0] if len(name_and_type) == 2 else "temporary"
        return self._run.allocate_temp(_checked_name(name), name_and_type[-1], options)

    def read_config(self, name: str) -> Any:
        """A parameter of the config; dotted names reach nested ones. The read is observed.

        Raises
        ------
        UnknownParameter
            If there is none; near misses are named.
        """
        return self._run.world.read_config(self._run, name)

    def read_config_unregistered(self, name: str) -> Any:
        """A parameter of the config, without noting that it was read: a change re-runs nothing."""
        return self._run.world.read_config_unregistered(name)

    def peek(self, name: str, default: Any = None) -> Any:
        """`read_config_unregistered`, with a default for what is not there."""
        return self._run.world.peek_config(name, default)

    def has(self, name: str) -> bool:
        """Whether the config has this parameter; the answer is observed."""
        return self._run.world.has_config(self._run, name)

    def track_file(self, path: str | os.PathLike[str], *, verify: bool = False) -> str:
        """Observe the content of a file that the reactor is about to read.

        Parameters
        ----------
        path : str or PathLike
            The file; that it does not exist is an observation too. Of a folder, names and contents of all
            that is in it.
        verify : bool
            Read the file even if device, inode, size and times are as they were noted.

        Returns
        -------
        str
            The path.
        """
        text = os.fsdecode(path)
        self._run.note(self._run.world.file(text, verify))
        return text

    def env(self, name: str, default: str | None = None) -> str | None:
        """Observe an environment variable.

        Parameters
        ----------
        name : str
            Its name.
        default : str, optional
            What to return if it is not set.
        """
        value, observation = self._run.world.env(name)
        self._run.note(observation)
        return default if value is None else value


def _checked_name(name: Any) -> str:
    if type(name) is str or isinstance(name, str):
        return str(name)
    raise BadRequest(f"the name of an ingredient is a text, not {name!r}", hint="name it with a str")


def _with(items: set[_T] | frozenset[_T], item: _T) -> set[_T]:
    """The set with one more item: the same one, unless it was empty."""
    if isinstance(items, set):
        items.add(item)
        return items
    return {item}


class Run:
    """One run of one reactor.

    Parameters
    ----------
    reactor : Reactor
    store : Store
        Where ingredients come from and go to.
    world : World
        What else can be observed.
    """

    __slots__ = (
        *("reactor", "store", "world", "pending", "_steps", "_seen", "_sent", "_allocations", "_temporary"),
        *("_callers", "_body", "_request", "_swallowing", "_swallowed", "_over"),
    )

    def __init__(self, reactor: Reactor, store: Store, world: World) -> None:
        self.reactor, self.store, self.world = reactor, store, world
        self.pending: set[Any] = set()  # requests and subreactor calls that were made and not yielded
        self._steps: list[Step] = []  # since the run spoke last
        # From here on empties that nobody adds to: in a long chain all runs wait at once, and sets are large.
        self._seen: set[tuple[str, str]] | frozenset[tuple[str, str]] = _NOTHING_SEEN
        self._sent: set[str] | frozenset[str] = _NOTHING_SENT
        self._allocations: dict[str, Any] = _NO_ALLOCATIONS
        self._temporary: tuple[Any, ...] = ()
        self._callers: tuple[Any, ...] = ()
        self._body: Any = None
        self._request: Request | None = None
        self._swallowing = False
        self._swallowed = False
        self._over = False

    # ----------------------------------------------------------------- what the executor calls

    def start(self) -> Outcome:
        """Call the function; step it if it is a generator or a coroutine."""
        return self._step(self._call, None)

    def resume(self, refs: tuple[ObjectRef, ...]) -> Outcome:
        """Give it what it asked for."""
        assert self._request is None or len(refs) == len(self._request.names)
        names = self._request.names if self._request is not None else ()
        values: list[Any] = []
        missing: list[str] = []
        for name, ref in zip(names, refs, strict=True):
            try:
                values.append(self._receive(ref))
            except PayloadMissing:
                missing.append(name)
            except Exception as error:  # an ingredient that can't be decoded is the reactor's business
                return self._step(self._body.throw, error)
        if missing:
            return Missing(self.reactor.id, tuple(missing))
        single = self._request is not None and self._request.single
        return self._step(self._body.send, values[0] if single else tuple(values) if names else None)

    def throw(self, failure: Failure) -> Outcome:
        """Raise a failure at its ``yield``."""
        self._swallowing = True
        return self._step(self._body.throw, self.world.error_of(failure))

    def close(self) -> None:
        """End it without a result."""
        try:
            if self._body is not None:
                self._body.close()
        except RuntimeError as error:  # it yielded while being closed
            log().warning("reactor %s did not want to end: %s", self.reactor.name, error)
        finally:
            self._discard()

    def line(self) -> str:
        """Where the reactor waits, as "file:line"."""
        return self._request.line if self._request is not None else ""

    # ----------------------------------------------------------------- stepping

    def _call(self, _: None) -> Any:
        arguments = [Pipework(self)]
        if self.reactor.takes_config:
            arguments.append(self.world.config_view(self))
        result = self.reactor.function(*arguments)
        if not hasattr(result, "send"):
            return _FINISHED
        self._body = result
        return result.send(None)

    def _step(self, function: Callable[[Any], Any], argument: Any) -> Outcome:
        """Run until the next request, the end, or an exception."""
        before = watch_calls(self)
        try:
            yielded = function(argument)
            return self._ended() if yielded is _FINISHED else self._asked(yielded)
        except StopIteration as error:
            return self._ended() if self._body is not None else self._raised(error)
        except Exception as error:
            return self._raised(error)
        except BaseException:
            self.close()
            raise
        finally:
            watch_calls(before)

    def _asked(self, yielded: Any) -> Outcome:
        self._swallowed, self._swallowing = self._swallowed or self._swallowing, False
        if yielded is None:
            self._request = None
            return Asked(self.reactor.id, self._take_steps(), ())
        if type(yielded) is not Request:
            self.close()
            return self._raised(self._garbage(yielded))
        yielded.taken()
        self._request = yielded
        return Asked(self.reactor.id, self._take_steps(), yielded.names)

    def _ended(self) -> Outcome:
        self._body = None
        try:
            self._check_end()
        except Exception as error:
            return self._raised(error)
        self._discard()
        return Ended(self.reactor.id, self._take_steps(), not (self._swallowed or self._swallowing))

    def _raised(self, error: BaseException) -> Outcome:
        self._discard()
        return Raised(self.reactor.id, self._take_steps(), error)

    def _take_steps(self) -> tuple[Step, ...]:
        steps = tuple(self._steps)
        self._steps.clear()
        return steps

    def _check_end(self) -> None:
        self.world.check_unchanged(self)
        for forgotten in self.pending:
            raise self._never_yielded(forgotten)
        unsent = [name for name in self._allocations if name not in self._sent]
        if unsent:
            raise NotSent(
                f"reactor {self.reactor.name} allocated {', '.join(map(repr, unsent))} and never sent it",
                hint=f"pipe.send({unsent[0]!r}, ...) when it is complete, or use pipe.allocate_temp",
            )

    def _discard(self) -> None:
        for name, allocation in self._allocations.items():
            if name not in self._sent:
                allocation.discard()
        for allocation in self._temporary:
            allocation.discard()
        self._allocations, self._temporary = _NO_ALLOCATIONS, ()
        self._over = True
        self.world.forget(self)

    # ----------------------------------------------------------------- what the reactor does

    def request(self, names: tuple[str, ...]) -> Request:
        """See `Pipework.receive`."""
        if not names:
            raise BadRequest("pipe.receive() without a name", hint="pipe.receive('x')")
        self._check_running("receive")
        if self._body is None:  # the function has not returned a generator or coroutine that could wait
            raise BadRequest(
                f"reactor {self.reactor.name} is a plain function and can't wait for {names[0]!r}",
                hint=f"write `x = yield pipe.receive({names[0]!r})`: that makes it a generator",
            )
        return Request(tuple([_checked_name(name) for name in names]), _users_line(), self.pending)

    def send(self, name: str, value: Any, type_given: Any) -> None:
        """See `Pipework.send`."""
        self._check_running("send")
        if name in self._sent:
            raise BadRequest(
                f"reactor {self.reactor.name} sends {name!r} a second time",
                hint="an ingredient has one value per run; send the second one under another name",
            )
        allocation = self._allocations.get(name)
        if allocation is None:
            if self._allocations:
                self._refuse_foreign_handle(name, value)
            ref = self.store.store(name, value, type_given)
        elif _is_handle(allocation, value):
            ref = allocation.seal()
        else:
            raise BadRequest(
                f"reactor {self.reactor.name} allocated {name!r} and sends something else under that name",
                hint="send what pipe.allocate returned",
            )
        self._sent = _with(self._sent, name)
        self._steps.append(Sent(name, ref))

    def _refuse_foreign_handle(self, name: str, value: Any) -> None:
        for other, allocation in self._allocations.items():
            if _is_handle(allocation, value):
                raise BadRequest(
                    f"reactor {self.reactor.name} sends as {name!r} what it allocated as {other!r}",
                    hint=f"pipe.send({other!r}, ...), or allocate it as {name!r}",
                )

    def allocate(self, name: str, type_given: Any, options: dict[str, Any]) -> Any:
        """See `Pipework.allocate`."""
        self._check_running("allocate")
        if name in self._allocations or name in self._sent:
            raise BadRequest(f"reactor {self.reactor.name} allocates {name!r} a second time")
        allocation = self.store.allocate(name, type_given, **options)
        self._allocations = {**self._allocations, name: allocation}
        return allocation.handle

    def allocate_temp(self, name: Any, type_given: Any, options: dict[str, Any]) -> Any:
        """See `Pipework.allocate_temp`."""
        self._check_running("allocate_temp")
        allocation = self.store.allocate_temp(name, type_given, **options)
        self._temporary += (allocation,)
        return allocation.handle

    def _receive(self, ref: ObjectRef) -> Any:
        value = self.store.open(ref)
        if ref.meta:
            observation = self.world.classes(ref)
            if observation is not None:
                self.note(observation)
        return value

    # ----------------------------------------------------------------- observations

    def note(self, observation: Observation) -> None:
        """Add an observation to the trace, unless the reactor knew that already."""
        key = (observation.kind, observation.key)
        if key not in self._seen:
            self._seen = _with(self._seen, key)
            self._steps.append(Group((observation,)))

    def observe(self, kind: str, key: str, answer: Digest, shown: str) -> None:
        """`note` in the words of the config view."""
        self.note(Observation(kind, key, answer, shown))

    # ----------------------------------------------------------------- subreactor calls

    def called(self, call: SubreactorCall) -> None:
        """A subreactor call was made."""
        self.pending.add(call)

    def entered(self, call: SubreactorCall) -> None:
        """A subreactor call begins: its code is observed."""
        self.pending.discard(call)
        self.note(self.world.subreactor(self.reactor, self._callers, call.subreactor))
        self._callers += (call.subreactor,)
        self.world.entered(call.subreactor)

    def left(self, _: SubreactorCall) -> None:
        """A subreactor call ended."""
        self._callers = self._callers[:-1]

    # ----------------------------------------------------------------- errors

    def _check_running(self, what: str) -> None:
        if self._over:
            raise BadRequest(
                f"pipe.{what} of reactor {self.reactor.name}, which has ended",
                hint="a pipe serves one run; end threads that use it before the reactor returns",
            )

    def _garbage(self, yielded: Any) -> BadRequest:
        kind = type(yielded).__name__
        hint = "yield pipe.receive(...)"
        if isinstance(yielded, SubreactorCall):
            kind, hint = "a subreactor call", f"yield from {yielded.subreactor.__name__}(pipe, ...)"
        return BadRequest(f"reactor {self.reactor.name} yielded {kind}: {_short(yielded)}", hint=hint)

    def _never_yielded(self, forgotten: Any) -> BadRequest:
        if isinstance(forgotten, SubreactorCall):
            name = forgotten.subreactor.__name__
            return BadRequest(
                f"reactor {self.reactor.name} called the subreactor {name} and did not wait for it",
                hint=f"value = yield from {name}(pipe, ...)",
            )
        return BadRequest(
            f"reactor {self.reactor.name} asked for {', '.join(map(repr, forgotten.names))} and never yielded the "
            f"request ({forgotten.line})",
            hint=f"x = yield pipe.receive({forgotten.names[0]!r})",
        )


def _is_handle(allocation: Any, value: Any) -> bool:
    handle = allocation.handle
    if isinstance(handle, str) and isinstance(value, (str, os.PathLike)):
        return os.fspath(value) == handle
    return value is handle


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _users_line() -> str:
    frame = sys._getframe(3)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

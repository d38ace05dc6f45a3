"""Reactors and subreactors: what the decorators make of a function, and the registry that knows them."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from pyplantx.errors import BadRequest, ReactorClash, UnknownReactor, did_you_mean
from pyplantx.given import check_text, check_texts, refusal

if TYPE_CHECKING:
    from pyplantx.core.messages import ReactorId

_ASYNC_GENERATOR = 0x200  # a code flag, see `inspect`


class _Wrapped:
    """A function in another role; it still looks like the function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if isinstance(function, _Wrapped):
            raise BadRequest(f"{function!r} is decorated already", hint="decorate the plain function, once")
        if not callable(function):
            raise BadRequest(f"{function!r} is not a function", hint="decorate a function: @ReactorFunc above def")
        self.function = function
        self.__wrapped__ = function
        self.__doc__ = function.__doc__
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.__qualname__: str = getattr(function, "__qualname__", self.__name__)
        self.__module__ = getattr(function, "__module__", None) or "__main__"

    @property
    def qualified(self) -> str:
        """ "module:qualname"."""
        return f"{self.__module__}:{self.__qualname__}"


class Reactor(_Wrapped):
    """A function that receives and sends ingredients. Made by `ReactorFunc`; still callable as it was.

    Attributes
    ----------
    id : str
        Its ``name=``, or "module:qualname".
    name : str
        Its ``name=``, or the function's name; what listeners and the history are told.
    function : callable
        The user's function.
    version : str
        Part of the fingerprint; "" if not given.
    sends : tuple of str
        Declared products.
    takes_config : bool
        Whether the function has a second parameter without a default, or called ``config``.
    """

    __pyplantx_kind__ = "reactor"

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, version: str = "", sends: Iterable[str] = ()
    ) -> None:
        super().__init__(function)
        if name is not None:
            name = check_text("name=", name, "@ReactorFunc(name='load')")
        self.name = name or self.__name__
        self.id: ReactorId = name or self.qualified
        if not isinstance(version, (str, int, float)):  # of what else no process knows what another one calls it
            raise refusal("version=", version, "@ReactorFunc(version='2')")
        self.version = str(version)
        self.sends = check_texts("sends=", sends, "@ReactorFunc(sends=('x', 'y')): names of ingredients")
        flags = _code_flags(function)
        if flags & _ASYNC_GENERATOR:
            raise BadRequest(
                f"reactor {self.name} is an async generator",
                hint="write either `async def` with `await pipe.receive(...)`, or `def` with `yield pipe.receive(...)`",
            )
        self.takes_config = _takes_config(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<reactor {self.id}>"


class Subreactor(_Wrapped):
    """A reusable part of reactors. Made by `SubreactorFunc`; called with ``yield from`` (or ``await``).

    Attributes
    ----------
    made_in : object
        Token of the run that made it; None if it was made outside of any.
    """

    __pyplantx_kind__ = "subreactor"

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.made_in: object = None if watching.run is None else watching.run.token

    def __call__(self, *args: Any, **kwargs: Any) -> SubreactorCall:
        return SubreactorCall(self, args, kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A method, where the function would be one."""
        if instance is None or not isinstance(self.function, types.FunctionType):
            return self
        return types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<subreactor {self.qualified}>"


class SubreactorCall:
    """One call of a subreactor, which begins when it is iterated or awaited."""

    def __init__(self, subreactor: Subreactor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.subreactor, self._args, self._kwargs = subreactor, args, kwargs
        self.watcher = watching.run
        if self.watcher is not None:
            self.watcher.called(self)

    def __iter__(self) -> Generator[Any, Any, Any]:
        return self._drive()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._drive()

    def _drive(self) -> Generator[Any, Any, Any]:
        if self.watcher is None:
            return (yield from self._body())
        self.watcher.entered(self)
        return (yield from self._body())

    def _body(self) -> Generator[Any, Any, Any]:
        result = self.subreactor.function(*self._args, **self._kwargs)
        if hasattr(result, "send"):  # a generator or a coroutine; `yield from` refuses the latter
            return (yield from _delegate(result))
        return result


def _delegate(body: Any) -> Generator[Any, Any, Any]:
    """``yield from`` for generators and coroutines alike."""
    return (yield from body.__await__()) if hasattr(body, "__await__") else (yield from body)


class _Watching(threading.local):
    """Of each thread: the run that is being stepped there, to which subreactor calls belong."""

    run: Any = None


watching = _Watching()


def _code_flags(function: Callable[..., Any]) -> int:
    """Flags of the function's code; 0 if it has none (a callable object, a wrapper in C)."""
    code = getattr(function, "__code__", None)
    return code.co_flags if code is not None else 0


def _takes_config(function: Callable[..., Any]) -> bool:
    """Whether there is a second parameter that has to be given, or one that is called "config".

    ``def part(pipe, i=i)`` is how functions made in a loop keep the loop's variable.
    """
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__"):
        return _signature_takes_config(function)
    names = code.co_varnames[: code.co_argcount]
    if getattr(function, "__self__", None) is not None:
        names = names[1:]
    return len(names) >= 2 and (names[1] == "config" or len(names) - len(function.__defaults__ or ()) >= 2)


def _signature_takes_config(function: Callable[..., Any]) -> bool:
    """`_takes_config` of a wrapper: by its own parameters, unless it hands on whatever it is given."""
    import inspect

    wrapped = getattr(function, "__wrapped__", None)
    try:
        given = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    except ValueError:  # compiled, and says nothing about itself
        if wrapped is None:
            hint = "def name(pipe): ... calls it"
            raise BadRequest(
                f"{function!r} does not tell its parameters, so it can't be a reactor", hint=hint
            ) from None
        return _takes_config(wrapped)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    second = [p for p in given if p.kind in kinds][1:2]
    if wrapped is not None and not second and any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in given):
        return _takes_config(wrapped)
    return any(p.name == "config" or p.default is inspect.Parameter.empty for p in second)


class Registry:
    """The reactors that are known under each id, in order of definition.

    A second definition of an id replaces the first (a notebook cell run again), unless both were made
    from one and the same code (a loop, a factory): then `resolve` has to tell whether they differ.
    """

    def __init__(self) -> None:
        self._reactors: dict[ReactorId, list[Reactor]] = {}
        self.changes = 0  #: grows with every definition

    def add(self, reactor: Reactor) -> None:
        """Note a reactor."""
        self.changes += 1
        same_code = [r for r in self._reactors.get(reactor.id, ()) if _code(r) is _code(reactor) and r is not reactor]
        self._reactors[reactor.id] = [*same_code, reactor]

    def resolve(self, fingerprint: Callable[[Reactor], object]) -> list[Reactor]:
        """The reactors, one for each id.

        Raises
        ------
        ReactorClash
            If one id was given to reactors that differ.
        """
        return [self._only(id, reactors, fingerprint) for id, reactors in self._reactors.items()]

    @staticmethod
    def _only(id: ReactorId, reactors: list[Reactor], fingerprint: Callable[[Reactor], object]) -> Reactor:
        if len(reactors) > 1 and len({fingerprint(reactor) for reactor in reactors}) > 1:
            raise clash(id)
        return reactors[-1]

    def __iter__(self) -> Iterator[Reactor]:
        return iter([reactors[-1] for reactors in self._reactors.values()])

    def clear(self) -> None:
        """Forget all reactors."""
        self._reactors.clear()
        self.changes += 1


def clash(id: ReactorId) -> ReactorClash:
    """The error for two different reactors under one id."""
    return ReactorClash(
        f"two different reactors are called {id!r}",
        hint="reactors made in a loop or by a factory need names of their own: @ReactorFunc(name=f'load-{i}')",
    )


def _code(reactor: Reactor) -> object:
    return getattr(reactor.function, "__code__", reactor.function)


#: Where `ReactorFunc` notes what it decorates.
default_registry = Registry()


@overload
def ReactorFunc(function: Callable[..., Any], /) -> Reactor: ...
@overload
def ReactorFunc(
    *, name: str | None = None, version: str = "", sends: str | Iterable[str] = ()
) -> Callable[[Callable[..., Any]], Reactor]: ...


def ReactorFunc(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "",
    sends: str | Iterable[str] = (),
) -> Any:
    """Make a reactor of a function.

    The function gets a `Pipework`, and the config if it has a second parameter. It may be a generator
    (``x = yield pipe.receive('x')``), a coroutine (``x = await pipe.receive('x')``) or, if it receives
    nothing, a plain function.

    Parameters
    ----------
    name : str, optional
        A name of its own; needed to tell reactors apart that are made in a loop or by a factory.
    version : str, optional
        Counts as part of the code: change it to have the reactor run again.
    sends : str or iterable of str, optional
        Ingredients that it sends, where the plant can't guess that from the code.

    Returns
    -------
    Reactor
        Callable as the function was.
    """
    if function is None:
        return lambda decorated: _make_reactor(decorated, name, version, sends)
    return _make_reactor(function, name, version, sends)


def _make_reactor(function: Callable[..., Any], name: str | None, version: str, sends: str | Iterable[str]) -> Reactor:
    """`ReactorFunc` with all its options."""
    reactor = Reactor(function, name, version, sends)
    default_registry.add(reactor)
    return reactor


def SubreactorFunc(function: Callable[..., Any]) -> Subreactor:
    """Make a subreactor of a function: a part of reactors whose code counts as theirs when it is called.

    Call it with ``value = yield from sub(pipe, ...)``, or ``await sub(pipe, ...)`` in a coroutine. The
    function may be a generator, a coroutine or plain.
    """
    return Subreactor(function)


def unknown_reactor(wanted: str, known: Iterable[str]) -> UnknownReactor:
    """The error for a reactor name that nobody has, with near misses."""
    names = sorted(set(known))
    hint = did_you_mean(wanted, names, 3) or f"known reactors: {', '.join(names) or 'none'}"
    return UnknownReactor(f"there is no reactor {wanted!r}", hint=hint)

"""Reactors: what the decorators make of a function, and the registry that knows them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from pyplantx.basics.given import check_limit, check_text, check_texts, refusal
from pyplantx.errors import BadRequest, ReactorClash, UnknownReactor, did_you_mean
from pyplantx.subreactor import Subreactor, Wrapped

if TYPE_CHECKING:
    from datetime import timedelta

    from pyplantx.core.messages import ReactorId

_ASYNC_GENERATOR, _VARIABLE = 0x200, 0x4  # code flags, see `inspect`


class Reactor(Wrapped):
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
    timeout : float or None
        Seconds that a run of it may take without what it waits for. No part of the fingerprint.
    takes_config : bool
        Whether the function has a second parameter without a default, or called ``config``.
    """

    __pyplantx_kind__ = "reactor"
    function: Callable[..., Any]

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        version: str = "",
        sends: Iterable[str] = (),
        timeout: Any = None,
    ) -> None:
        super().__init__(function)
        self.function = self.__wrapped__ = function
        if name is not None:
            name = check_text("name=", name, "@ReactorFunc(name='load')")
        self.name = name or self.__name__
        self.id: ReactorId = name or self.qualified
        if not isinstance(version, (str, int, float)):  # of what else no process knows what another one calls it
            raise refusal("version=", version, "@ReactorFunc(version='2')")
        self.version = str(version)
        self.sends = check_texts("sends=", sends, "@ReactorFunc(sends=('x', 'y')): names of ingredients")
        self.timeout = None if timeout is None else check_limit("timeout=", timeout)
        flags = _code_flags(function)
        if flags & _ASYNC_GENERATOR:
            raise BadRequest(
                f"reactor {self.name} is an async generator",
                hint="write either `async def` with `await pipe.receive(...)`, or `def` with `yield pipe.receive(...)`",
            )
        self.takes_config = _takes_config(function)
        _check_parameters(self.name, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<reactor {self.id}>"


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


def _check_parameters(name: str, function: Callable[..., Any]) -> None:
    """Look whether a function can be given a pipe and a config.

    Raises
    ------
    BadRequest
        If it takes no argument, needs more of them, or is a method that has no object.
    """
    code = getattr(function, "__code__", None)
    if not isinstance(function, types.FunctionType) or code is None or hasattr(function, "__wrapped__"):
        return
    names = code.co_varnames[: code.co_argcount]
    hint = f"def {function.__name__}(pipe): or def {function.__name__}(pipe, config):"
    if not names and not code.co_flags & _VARIABLE:
        raise BadRequest(f"reactor {name} takes no argument", hint=hint)
    if names[:2] == ("self", "pipe"):
        hint = (
            f"a reactor is a function of its own: {hint}; ReactorFunc(thing.{function.__name__}) makes one of a thing's"
        )
        raise BadRequest(f"reactor {name} is a method, and no object is there to call it on", hint=hint)
    needed = len(names) - len(function.__defaults__ or ())
    if needed > 2:
        raise BadRequest(
            f"reactor {name} wants {needed} arguments, the third of them {names[2]!r}",
            hint=f"{hint} is what it is given; make it an option of the config, or give it a default",
        )
    for named in _missed(function):
        raise BadRequest(f"reactor {name} wants {named!r} by name, and is given its arguments by position", hint=hint)


def _missed(function: types.FunctionType) -> list[str]:
    """Parameters behind a ``*`` that have to be given; ``config``, too, of which nobody means the default."""
    code = function.__code__
    names = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name == "config" or name not in (function.__kwdefaults__ or ())]


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

    A definition replaces an earlier one of the same function (a notebook cell run again), unless both were made
    from one and the same code (a loop, a factory): then `resolve` has to tell whether they differ. Another
    function of the same id is a clash, as long as it is there. A script that is imported by one of its own modules
    defines its reactors twice; those of ``__main__`` count.

    One that comes when others are in use is what somebody has just written: a cell of a notebook under a new name, a
    cell that was moved to a module, or back. It is asked before one that it may stand for; see `Search.newcomers`.
    """

    def __init__(self) -> None:
        self._reactors: dict[ReactorId, list[Reactor]] = {}
        self._modules: set[str] = set()
        self._again: dict[ReactorId, Reactor] = {}  # newest definition of those that have replaced another one
        self._forgotten: set[ReactorId] = set()  # plants may have them
        self._last: dict[str, ReactorId] = {}  # name -> who was defined last under it
        self.changes = 0  #: grows with every definition
        self.in_use = False  #: whether a plant has asked for any of them
        #: Those that somebody has added to what was in use, or has edited since then, the last one last; whether
        #: they were added.
        self.late: dict[ReactorId, bool] = {}

    def add(self, reactor: Reactor) -> None:
        """Note a reactor."""
        self.changes += 1
        self._modules.add(reactor.__module__)
        known = self._reactors.get(reactor.id)
        is_added = known is None or self._last.get(reactor.name) != reactor.id
        if self.in_use and (is_added or (self.late and known and _code(known[-1]) != _code(reactor))):
            self.late[reactor.id] = self.late.pop(reactor.id, False) or is_added
        self._last[reactor.name] = reactor.id
        others = [r for r in known if r is not reactor and not _replaces(reactor, r)] if known else []
        self._reactors[reactor.id] = [*others, reactor]
        if (known and len(others) < len(known)) or reactor.id in self._forgotten:
            self._again[reactor.id] = reactor

    def lateness(self, id: ReactorId) -> int:
        """The place of one that was added to what was in use, counted from one; of others 0."""
        return [*self.late].index(id) + 1 if self.late.get(id, False) else 0

    def may_stand_for(self, id: ReactorId, other: ReactorId) -> bool:
        """Whether a late one may be another one under a new name, or under its old name again."""
        return self.was_defined_after(id, other) and (self.late[id] or self.late.get(other, False))

    def was_defined_after(self, id: ReactorId, other: ReactorId) -> bool:
        """Whether one is late, and the other is not, or not so late."""
        if id == other or id not in self.late:
            return False
        return other not in self.late or next(one for one in reversed(self.late) if one in (id, other)) == id

    def newest(self, reactor: Reactor) -> Reactor:
        """The last definition of the function that a reactor was made of."""
        last = self._again.get(reactor.id)
        return last if last is not None and _replaces(last, reactor) else reactor

    def defined_again(self) -> list[ReactorId]:
        """Ids of the reactors of which there were several definitions: few, and no other has a `newest` but itself."""
        return list(self._again)

    def resolve(self, fingerprint: Callable[[Reactor], object]) -> list[Reactor]:
        """The reactors, one for each id.

        Raises
        ------
        ReactorClash
            If one id was given to reactors that differ.
        """
        known = list(self._reactors.values())
        if any(module != "__main__" and _is_main(module) for module in self._modules):
            known = _without_twins(known)
        return [self._only(reactors, fingerprint) for reactors in known]

    @staticmethod
    def _only(reactors: list[Reactor], fingerprint: Callable[[Reactor], object]) -> Reactor:
        if len(reactors) == 1:
            return reactors[0]
        for one in reactors[:-1]:
            check_clash(one, reactors[-1], fingerprint)
        return reactors[-1]

    def __iter__(self) -> Iterator[Reactor]:
        return iter([reactors[-1] for reactors in self._reactors.values()])

    def clear(self) -> None:
        """Forget all reactors."""
        self._forgotten.update(self._reactors)
        self._reactors.clear()
        self._modules.clear()
        self._again.clear()
        self._last.clear()
        self.late.clear()
        self.in_use = False
        self.changes += 1


def check_clash(one: Reactor, other: Reactor, fingerprint: Callable[[Reactor], object]) -> None:
    """Look at two reactors of one id.

    Raises
    ------
    ReactorClash
        If they are different ones, and neither is a later definition of the other.
    """
    if _code(one) is _code(other):
        if one is not other and fingerprint(one) != fingerprint(other):
            raise ReactorClash(
                f"two different reactors are called {one.id!r}",
                hint="reactors made in a loop or by a factory need names of their own: @ReactorFunc(name=f'load-{i}')",
            )
    elif not _replaces(other, one) and _is_there(one):
        raise ReactorClash(
            f"two different reactors are called {one.id!r}: {described(one)} and {described(other)}",
            hint=f"give each a name= of its own; if one is the other under a new name, first: del {one.__qualname__}",
        )


def described(reactor: Reactor) -> str:
    """A reactor by where its function stands: "app:load_a (app.py:12)"."""
    code = getattr(reactor.function, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{reactor.qualified}{where}"


def place_of(reactor: Reactor) -> tuple[str, str]:
    """File and qualified name: the same for a script and for the module that it is when it is imported."""
    code = getattr(reactor.function, "__code__", None)
    return ("" if code is None else code.co_filename, reactor.__qualname__)


def is_twin(one: Reactor, other: Reactor) -> bool:
    """Whether these are one reactor, of a script that runs as ``__main__`` and was imported besides."""
    modules = (one.__module__, other.__module__)
    if "__main__" not in modules or modules[0] == modules[1] or place_of(one) != place_of(other):
        return False
    own_names = one.id != one.qualified, other.id != other.qualified
    file = place_of(one)[0]
    return file != "" and not file.startswith("<") and (not any(own_names) or one.id == other.id)


def _is_main(module: str) -> bool:
    """Whether a module is the script that runs as ``__main__``."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and file == getattr(sys.modules.get("__main__"), "__file__", None)


def _without_twins(known: list[list[Reactor]]) -> list[list[Reactor]]:
    """The reactors without those that ``__main__`` has, too."""
    defined = [reactor for reactors in known for reactor in reactors]
    main = {place_of(reactor): reactor for reactor in defined if reactor.__module__ == "__main__"}
    kept = [[reactor for reactor in reactors if not _is_in(main, reactor, reactors)] for reactors in known]
    return list(filter(None, kept))


def _is_in(main: dict[tuple[str, str], Reactor], reactor: Reactor, of_its_id: list[Reactor]) -> bool:
    if reactor.__module__ == "__main__":
        return False
    there = main.get(place_of(reactor))
    return any(is_twin(reactor, other) for other in (there, *of_its_id) if other is not None)


def _replaces(later: Reactor, earlier: Reactor) -> bool:
    """Whether a reactor is a new definition of the function that another one was made of."""
    return later.qualified == earlier.qualified and _code(later) is not _code(earlier)


def _is_there(reactor: Reactor) -> bool:
    """Whether its name still leads to it, as far as can be told."""
    found: Any = sys.modules.get(reactor.__module__)
    for part in reactor.__qualname__.split("."):
        if part == "<locals>":
            return True
        found = getattr(found, part, None)
    return found is reactor or not (found is None or isinstance(found, Reactor))


def _code(reactor: Reactor) -> object:
    return getattr(reactor.function, "__code__", reactor.function)


#: Where `ReactorFunc` notes what it decorates.
default_registry = Registry()


@overload
def ReactorFunc(function: Callable[..., Any], /) -> Reactor: ...
@overload
def ReactorFunc(
    *,
    name: str | None = None,
    version: str = "",
    sends: str | Iterable[str] = (),
    timeout: float | str | timedelta | None = None,
) -> Callable[[Callable[..., Any]], Reactor]: ...


def ReactorFunc(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "",
    sends: str | Iterable[str] = (),
    timeout: float | str | timedelta | None = None,
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
    timeout : float, str or timedelta, optional
        Seconds (or ``"5 min"``) that a run of it may take in all, without what it waits for: the run then ends with a
        `ReactorTimeout`. It may be changed without anything being run again.

    Returns
    -------
    Reactor
        Callable as the function was.
    """
    if function is None:
        return lambda decorated: _make_reactor(decorated, name, version, sends, timeout)
    return _make_reactor(function, name, version, sends, timeout)


def _make_reactor(
    function: Callable[..., Any], name: str | None, version: str, sends: str | Iterable[str], timeout: Any
) -> Reactor:
    """`ReactorFunc` with all its options."""
    reactor = Reactor(function, name, version, sends, timeout)
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

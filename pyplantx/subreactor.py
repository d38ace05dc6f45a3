"""Subreactors, their calls, and who is told of them: what a run uses of the project without naming it beforehand.

This file may know: functions, threads. It may not know: runs, which are watchers, and fingerprints.
"""

from __future__ import annotations

import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from pyplantx.errors import BadRequest


class Wrapped:
    """A function in another role; it still looks like the function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if isinstance(function, Wrapped):
            raise BadRequest(f"{function!r} is decorated already", hint="decorate the plain function, once")
        if not callable(function):
            raise BadRequest(f"{function!r} is not a function", hint="decorate a function: @ReactorFunc above def")
        self.__doc__ = function.__doc__
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.__qualname__: str = getattr(function, "__qualname__", self.__name__)
        self.__module__ = getattr(function, "__module__", None) or "__main__"

    @property
    def qualified(self) -> str:
        """ "module:qualname"."""
        return f"{self.__module__}:{self.__qualname__}"


class Subreactor(Wrapped):
    """A reusable part of reactors. Made by `SubreactorFunc`; called with ``yield from`` (or ``await``).

    Its code is no part of the fingerprints of those who name it. So nobody gets at it unobserved: to call it, to take
    its function and to pickle it is noted by whoever watches.

    Attributes
    ----------
    made_in : object
        Token of the run that made it; None if it was made outside of any.
    """

    __pyplantx_kind__ = "subreactor"

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        vars(self)["function"] = function
        self.made_in: object = watcher().token

    @property
    def function(self) -> Callable[..., Any]:
        """The user's function; who takes it may call it, and has observed its code."""
        watcher().took(self)
        return function_of(self)

    def __getattr__(self, name: str) -> Any:
        # not a property: what asks the class for `__wrapped__` (`inspect.signature`) would take that for a function
        if name != "__wrapped__":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        try:
            return self.function
        except BadRequest as error:  # whoever only wants to know its parameters can do without
            raise AttributeError(error.message) from error

    def __call__(self, *args: Any, **kwargs: Any) -> SubreactorCall:
        return SubreactorCall(self, args, kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """A method, where the function would be one."""
        if instance is None or not isinstance(function_of(self), types.FunctionType):
            return self
        return types.MethodType(self, instance)

    def __copy__(self) -> Subreactor:
        """Itself, as with functions."""
        return self

    def __deepcopy__(self, memo: object) -> Subreactor:
        """Itself, as with functions."""
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.travels()
        return super().__reduce_ex__(protocol)

    def travels(self) -> None:
        """It is about to be pickled, by name or as it is: its code is observed, and that of all that it names."""
        watcher().took(self, whole=True)

    def __repr__(self) -> str:
        return f"<subreactor {self.qualified}>"


class SubreactorCall:
    """One call of a subreactor, which begins when it is iterated or awaited."""

    def __init__(self, subreactor: Subreactor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.subreactor, self._args, self._kwargs = subreactor, args, kwargs
        self.watcher = watcher()
        called = sys._getframe(1)
        caller = called.f_back or called  # a thread may begin with the call
        self._code, self._line = caller.f_code, caller.f_lineno
        self.watcher.called(self)

    @property
    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Its arguments: those by position, and those by name."""
        return self._args, self._kwargs

    @property
    def line(self) -> str:
        """Where it was made, as "file:line"."""
        return f"{self._code.co_filename}:{self._line}"

    def __repr__(self) -> str:
        name = self.subreactor.__name__
        return f"<call of the subreactor {name}, made at {self.line}; `yield from` or `await` it to get its value>"

    def __iter__(self) -> Generator[Any, Any, Any]:
        return self._drive()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._drive()

    def _drive(self) -> Generator[Any, Any, Any]:
        here = watcher()
        if here is not self.watcher:  # it was made elsewhere: in another thread, or at import
            self.watcher.begun(self)
        here.entered(self)
        result = function_of(self.subreactor)(*self._args, **self._kwargs)
        # All in this frame: each one more between a subreactor and its caller makes every answer that passes through
        # slower, and Python allows a thousand.
        if not hasattr(result, "send"):
            return result
        if hasattr(result, "__await__"):  # a coroutine, which `yield from` refuses
            return (yield from result.__await__())
        return (yield from result)


#: The code by whose frames calls that are under way are found.
_DRIVE = SubreactorCall._drive.__code__


def calls_under_way(run: object) -> list[SubreactorCall]:
    """The calls of subreactors of a run that lead to whoever asks, the outermost first.

    Looked up on the stack: a reactor may step two calls by turns, and calls need not be counted by those who don't ask.
    """
    found: list[SubreactorCall] = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _DRIVE:
            names = frame.f_locals
            if names["here"] is run:  # else of a plant that has a plant in it
                found.append(names["self"])
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1]


def function_of(subreactor: Any) -> Callable[..., Any]:
    """The function of a subreactor, unobserved: for those who look at code, and don't run it."""
    function: Callable[..., Any] = vars(subreactor)["function"]
    return function


# -- who is told -------------------------------------------------------------------------------------


class Watcher(Protocol):
    """Who is told of what is done with subreactors: the `Run` of the thread, or who stands in for it.

    Attributes
    ----------
    token : object
        Of the run, if that makes what is made here.
    """

    @property
    def token(self) -> object: ...
    def called(self, call: SubreactorCall) -> None:
        """A call was made, which has to be iterated or awaited some day."""

    def begun(self, call: SubreactorCall) -> None:
        """A call that was made here begins, perhaps elsewhere."""

    def entered(self, call: SubreactorCall) -> None:
        """A call begins here."""

    def took(self, subreactor: Subreactor, whole: bool = False) -> None:
        """Its function was taken, or (`whole`) with it all that it names."""

    def imported(self, name: str, caller: types.FrameType, found: bool) -> None:
        """A module was got by a text, or was not found; see `pyplantx.runs.imports`. `caller` is ``import_module``."""


class Crew(Protocol):
    """Who keeps runs that are alive: an executor."""

    def runs(self) -> Iterable[Any]:
        """The runs that have begun and not ended. Called by any thread."""


class Uncounted:
    """The watcher where all has been observed beforehand: in a worker process that is given what it is to call."""

    token: object = None

    def called(self, call: SubreactorCall) -> None:
        """See `Watcher`."""

    def begun(self, call: SubreactorCall) -> None:
        """See `Watcher`."""

    def entered(self, call: SubreactorCall) -> None:
        """See `Watcher`."""

    def took(self, subreactor: Subreactor, whole: bool = False) -> None:
        """See `Watcher`."""

    def imported(self, name: str, caller: types.FrameType, found: bool) -> None:
        """See `Watcher`."""


class Deputy(Uncounted):
    """The watcher in other threads that work for a run: the run hears of it, and looks at it in its own.

    Parameters
    ----------
    run : Run
        With ``heard(subreactor, whole)`` and ``heard_import(name, caller, found)``, which any thread may call.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def entered(self, call: SubreactorCall) -> None:
        """See `Watcher`."""
        self._run.heard(call.subreactor, False)

    def took(self, subreactor: Subreactor, whole: bool = False) -> None:
        """See `Watcher`."""
        self._run.heard(subreactor, whole)

    def imported(self, name: str, caller: types.FrameType, found: bool) -> None:
        """See `Watcher`."""
        self._run.heard_import(name, caller, found)


class _Everybody(Uncounted):
    """The watcher where no run is known: in a thread that a reactor has begun, while an ingredient is unpickled.

    Nobody can tell for which run that happens, so it counts for all that are alive. Where none is, nothing depends
    on it, unless this process works for one in another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._crews: weakref.WeakSet[Crew] = weakref.WeakSet()
        self._forked_off = False

    def join(self, crew: Crew) -> None:
        """There is another executor."""
        with self._lock:
            self._crews.add(crew)

    def entered(self, call: SubreactorCall) -> None:
        """See `Watcher`.

        Raises
        ------
        BadRequest
            If the runs that it may be for are in another process.
        """
        self.took(call.subreactor)

    def took(self, subreactor: Subreactor, whole: bool = False) -> None:
        """See `Watcher`, and `entered`."""
        runs = self._runs()
        for run in runs:
            run.heard(subreactor, whole)
        if not runs and not whole and (self._forked_off or _is_child()):
            raise BadRequest(
                f"the subreactor {subreactor.__name__} is called in a process that was started by another one, and no "
                "plant sees it there",
                hint="call it in the reactor; or move what the process needs of it into a plain function, whose code "
                "counts for all who name it; or use pipe.map_blocks with Plant(executor='processes')",
            )

    def _runs(self) -> list[Any]:
        with self._lock:
            crews = list(self._crews)
        return [run for crew in crews for run in crew.runs()]

    def forked(self) -> None:
        """In a child that was forked off: the runs are in the parent, and hear nothing of what happens here."""
        self._lock = threading.Lock()
        if watching.run is not None or self._runs():
            self._forked_off, self._crews, watching.run = True, weakref.WeakSet(), None


def _is_child() -> bool:
    """Whether ``multiprocessing`` has started this process, for itself or for the executor of a library."""
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and processes.parent_process() is not None


class _Watching(threading.local):
    """Of each thread: the run that is being stepped there, or who stands in for it."""

    run: Watcher | None = None


watching = _Watching()
everybody = _Everybody()


def watcher() -> Watcher:
    """Whom subreactors tell in this thread."""
    return everybody if watching.run is None else watching.run


class Watched:
    """A function that is watched wherever it is called.

    Parameters
    ----------
    function : callable
        Of any arguments.
    by : Watcher
        Is told of the subreactors that it calls.
    """

    def __init__(self, function: Callable[..., Any], by: Watcher) -> None:
        self._function, self._by = function, by

    def __call__(self, *args: Any) -> Any:
        before, watching.run = watching.run, self._by
        try:
            return self._function(*args)
        finally:
            watching.run = before

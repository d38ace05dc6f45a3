"""From what went wrong to the exception that the person at the keyboard sees."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from pyplantx.errors import (
    BadRequest,
    Deadlock,
    IngredientError,
    NoProducer,
    NotDeterministic,
    PayloadMissing,
    PyplantxError,
    ReactorError,
    TwoProducers,
    add_note,
)

if TYPE_CHECKING:
    from pyplantx.core.messages import Failure, ReactorId
    from pyplantx.reactor import Reactor

_HERE = os.path.dirname(os.path.dirname(__file__))
_CONTEXTS = contextlib.__file__  # leads on from a `with` of ours
_NOTE = "pyplantx: in reactor "

#: Of a long list a person reads the beginning and the end.
_FIRST, _LAST = 2, 4


def error_of(
    failure: Failure,
    name_of: Callable[[ReactorId], str],
    line_of: Callable[[ReactorId], str] = lambda _: "",
    near_misses: Callable[[str], Sequence[str]] = lambda _: (),
    advise: Callable[[str], str] = lambda _: "",
    cause: BaseException | None = None,
) -> BaseException:
    """The exception for a failure.

    Parameters
    ----------
    failure : Failure
        The scheduler's words.
    name_of, line_of : callable
        Reactor id to its name, and to the "file:line" where it waits.
    near_misses : callable
        Ingredient name to similar names that are known.
    advise : callable
        Ingredient name that nobody sends to what can be done; "" if nothing is known of it.
    cause : BaseException, optional
        What the first of the reactors raised that failed when they were tried.
    """
    if isinstance(failure.error, BaseException):
        return failure.error
    names = [name_of(id) for id in failure.reactors]
    if failure.kind == "no producer":
        error = _no_producer(failure.name, names, near_misses, advise(failure.name))
        error.__cause__ = cause
        return error
    if failure.kind == "deadlock":
        return _deadlock(failure, names, line_of)
    kind, message, hint = _WORDS[failure.kind]
    apart = names if len(set(names)) == len(names) else failure.reactors
    return kind(message.format(name=repr(failure.name), reactors=" and ".join(apart)), hint=hint)


def note_opened(error: BaseException, name: str) -> None:
    """Note in an error which stored ingredient was being opened."""
    add_note(error, f"pyplantx: raised while the stored ingredient {name!r} was opened")


#: Kind of failure -> its error, what happened, what to do.
_WORDS: dict[str, tuple[type[PyplantxError], str, str]] = {
    "two producers": (
        TwoProducers,
        "two reactors send the ingredient {name}: {reactors}",
        "an ingredient has one producer; rename one of them",
    ),
    "not deterministic": (
        NotDeterministic,
        "reactor {reactors} gave other content for {name} when it had to run again",
        "make it deterministic (seed its random numbers, sort what has no order)",
    ),
    "payload": (
        PayloadMissing,
        "what reactor {reactors} stores as {name} is gone again as soon as it is written",
        "plant.check() says what is wrong with the store; is something else deleting its files?",
    ),
    "lost": (
        ReactorError,
        "reactor {reactors} was started again and again: its worker was lost, or what it received or kept was damaged",
        "the log names damaged files, then look at the disk; else it may have run out of memory, see the system's log",
    ),
}


def _no_producer(
    name: str, failed: Sequence[str], near_misses: Callable[[str], Sequence[str]], advice: str
) -> NoProducer:
    """What was meant is looked for among all names there are, when somebody reads it: a reactor may just try many."""

    def guess() -> str:
        close = near_misses(name)
        meant = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
        return meant or "is its reactor decorated with @ReactorFunc and imported, its name right?"

    tried = f" (these failed when they were tried: {', '.join(_clipped(failed))})" if failed else ""
    if name in failed:  # it may send it behind the line where it failed, whatever else can be said of it
        advice = f"mend reactor {name} first: its error is told, too"
    return NoProducer(f"no reactor sends the ingredient {name!r}{tried}", hint=advice or guess)


def _deadlock(failure: Failure, names: Sequence[str], line_of: Callable[[ReactorId], str]) -> IngredientError:
    waits = []
    for id, name, wanted in zip(failure.reactors, names, failure.names, strict=False):
        line = line_of(id)
        waits.append(f"  {name} waits for {wanted!r}" + (f" ({line})" if line else ""))
    cycle = " -> ".join(_clipped([*names, names[0]])) if names else ""
    return Deadlock(
        "the reactors wait for each other and can't go on: " + cycle + "\n" + "\n".join(_clipped(waits)),
        hint="one of them has to send before it receives; if another reactor is the true sender, declare that "
        "with @ReactorFunc(sends=...)",
    )


#: What to do about whatever waits for something that no plant gives.
NO_LOOP_HINT = (
    "a plant drives its reactors itself and has no event loop, so pipe.receive(...) and subreactors are all that can "
    "be waited for; asyncio.run(work()) does other asynchronous work (in a notebook, in a thread of its own)"
)

#: What a `RuntimeError` says where an event loop is looked for: of asyncio (two), sniffio and trio.
_NO_LOOP = ("no running event loop", "no current event loop", "unknown async library", "from async context")


def no_event_loop(error: BaseException, reactor: Reactor) -> BadRequest | None:
    """What a reactor did that has looked for an event loop, by the error that came of it; None if that is another.

    Parameters
    ----------
    error : BaseException
        As it has left the reactor's function.
    reactor : Reactor
    """
    words = str(error.args[0]) if isinstance(error, RuntimeError) and error.args else ""
    if not any(text in words for text in _NO_LOOP):
        return None
    entries = _tracebacks(error.__traceback__)
    line = own_line([(entry.tb_frame.f_code.co_filename, entry.tb_lineno) for entry in entries])
    told = BadRequest(f"reactor {reactor.name} awaits or begins what needs an event loop ({line})", hint=NO_LOOP_HINT)
    told.__cause__ = error
    return told


def waiting_line(body: object) -> str:
    """Where a generator or coroutine waits, as "file:line": the innermost place that can be seen in its own file."""
    places: list[tuple[str, int]] = []
    # Other objects may say that they have every attribute there is.
    while isinstance(frame := getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None), FrameType):
        places.append((frame.f_code.co_filename, frame.f_lineno))
        body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)
    return own_line(places)


def own_line(places: Sequence[tuple[str, int]]) -> str:
    """Where a user's code is, as "file:line"; "" if nothing of it is there.

    Of files and lines, outermost first, the last one in the first file that is not ours: behind it are libraries,
    mostly.
    """
    users = [place for place in places if not _is_our_file(place[0])]
    own = [place for place in users if place[0] == users[0][0]]
    return "{}:{}".format(*own[-1]) if own else ""


def is_described(error: BaseException) -> bool:
    """Whether `describe_request_chain` has told where an exception comes from."""
    return any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ()))


def describe_request_chain(error: BaseException, reactor: Reactor, chain: Sequence[tuple[str, str]]) -> None:
    """Note on an exception which reactor raised it, and who asked for what on the way there.

    Parameters
    ----------
    error : BaseException
        The user's exception; gets a note.
    reactor : Reactor
        Who raised it.
    chain : sequence of (str, str)
        From the demand down: who asked ("" for the caller of the plant), and for which ingredient.
    """
    asked = [f"{who} asked for {name!r}" if who else f"{name!r} was demanded" for who, name in chain]
    how = f" ({', '.join(_clipped(asked))})" if asked else ""
    add_note(error, f"{_NOTE}{reactor.name}{how}")


def _clipped(items: Sequence[str]) -> Sequence[str]:
    """The items, without those in the middle if there are many."""
    left_out = len(items) - _FIRST - _LAST
    return items if left_out < 2 else [*items[:_FIRST], f"... {left_out} more ...", *items[-_LAST:]]


def trim(error: BaseException) -> None:
    """Cut a traceback down to the user's frames, and those of its causes.

    An error of ours is told by its message: a cause that has no frame of the user's would only show how we
    are built.
    """
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        BaseException.with_traceback(at, _users_part(at.__traceback__))  # to set the attribute may be refused
        if isinstance(at, PyplantxError):
            at.settle()
        cause = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
        if isinstance(at, PyplantxError) and cause is not None and _users_part(cause.__traceback__) is None:
            at.__cause__, at.__suppress_context__ = None, True
            return
        at = cause


class UsersFrames:
    """Errors leave this ``with`` block without our frames."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            trim(error)


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    head: TracebackType | None = None
    kept, was_ours = [], False
    for entry in _tracebacks(tb):
        was_ours = _is_ours(entry) or was_ours and entry.tb_frame.f_code.co_filename == _CONTEXTS
        if not was_ours:
            kept.append(entry)
    for entry in reversed(kept):
        head = TracebackType(head, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return head


def _tracebacks(tb: TracebackType | None) -> list[TracebackType]:
    found = []
    while tb is not None:
        found.append(tb)
        tb = tb.tb_next
    return found


def _is_ours(tb: TracebackType) -> bool:
    return _is_our_file(tb.tb_frame.f_code.co_filename)


def _is_our_file(path: str) -> bool:
    return path.startswith(_HERE + os.sep)

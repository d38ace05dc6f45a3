"""One run of one reactor, from its start to its end.

A `Run` steps the reactor. It keeps what the reactor observed and sent, in order, and hands that over whenever the
reactor stops. The scheduler never sees the values, the reactor never sees the index: its side of the wall is the
`Pipework` that it is given.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pyplantx.basics.logs import log
from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.messages import Asked, Ended, Lost, Missing, Raised
from pyplantx.core.trace import MODULE, Digest, Group, ObjectRef, Observation, Sent, Step, ingredients_received
from pyplantx.errors import BadRequest, NotSent, PayloadMissing, PyplantxError, WarehouseError, add_note, shown
from pyplantx.pipework import Outside, Pipework, Request
from pyplantx.reactor import Reactor
from pyplantx.runs.failures import NO_LOOP_HINT, no_event_loop, note_opened, waiting_line
from pyplantx.runs.imports import importer, is_reactors_own
from pyplantx.runs.scratch import Temporaries
from pyplantx.subreactor import SubreactorCall, everybody, watching

if TYPE_CHECKING:
    from types import FrameType

    from pyplantx.blocks.workshop import Workshop
    from pyplantx.core.messages import Failure, Given
    from pyplantx.core.trace import Question

#: What a plain function comes to: it has ended without ever stopping.
_FINISHED = object()

_NOTHING_SEEN: frozenset[tuple[str, str]] = frozenset()
_NOTHING_SENT: frozenset[str] = frozenset()
_NO_ALLOCATIONS: dict[str, Any] = {}  # replaced, never changed; so are the next two
_NO_HANDLES: dict[str | int, tuple[str, Any]] = {}
_NOTHING_AHEAD: list[Given] = []

#: Held by whoever touches what runs have heard from other threads.
_hearing = threading.Lock()
os.register_at_fork(after_in_child=everybody.forked)

#: Flag of the code of an ``async def``.
_COROUTINE = 0x80

_T = TypeVar("_T")
_new = tuple.__new__  # see `core/trace.py`

#: What a run may say when it stops.
Outcome = Asked | Ended | Raised | Missing | Lost

#: The fingerprint of a reactor, and what a run of it has told so far.
Past = Callable[[], tuple[Digest, Sequence[Step]]]


class Store(Protocol):
    """What a run needs of the warehouse."""

    def store(self, name: str, value: Any, type_given: Any = None) -> ObjectRef: ...
    def open_unchecked(self, ref: ObjectRef) -> tuple[Any, Any]: ...
    def settle(self, receipts: Sequence[Any]) -> Sequence[Any]: ...
    def allocate(self, name: str, type_given: Any, **options: Any) -> Any: ...
    def allocate_temp(self, name: str, type_given: Any, **options: Any) -> Any: ...


class Entered(Protocol):
    """The code that a run has entered so far; see `pyplantx.session.world`."""

    def call(self, called: Any, is_own: bool) -> Observation | None: ...


class World(Outside, Protocol):
    """What a run may learn from outside, besides ingredients; see `pyplantx.session.world`."""

    def config_view(self, run: Run) -> Any: ...
    def check_unchanged(self, run: Run) -> None: ...
    def forget(self, run: Run) -> None: ...
    def answer(self, reactor: Reactor, question: Question) -> Observation: ...
    def classes(self, ref: ObjectRef) -> Observation | None: ...
    def module(self, name: str, importer: Mapping[str, Any], found: bool) -> Observation | None: ...
    def entered_by(self, reactor: Reactor) -> Entered: ...
    def entered(self, called: Any) -> None: ...
    def named(self, code: Any) -> Sequence[Any]: ...
    def error_of(self, failure: Failure) -> BaseException: ...
    def note_spared(self, id: str, seconds: float) -> None: ...
    def reads_remains(self, reactor: Reactor) -> bool: ...
    def note_remains(self, reactor: Reactor) -> bool: ...


class _Import(NamedTuple):
    """What another thread has got by a text: see `Run.imported`."""

    qualified: str
    importer: Mapping[str, Any]
    found: bool


class Run:
    """One run of one reactor.

    Parameters
    ----------
    reactor : Reactor
    store : Store
        Where ingredients come from and go to.
    world : World
        What else can be observed.
    ahead : tuple of Given
        What it is given without a stop, if it asks for that first; see `Start`.
    past : callable, optional
        Gives the reactor's fingerprint, and all that this run has told up to now.
    """

    __slots__ = (
        *("reactor", "store", "world", "pending", "_steps", "_seen", "_sent", "_allocations", "_temporary", "_ahead"),
        *("_entered", "_body", "_request", "_swallowing", "_swallowed", "_over", "_past", "_workshop", "_unchecked"),
        *("token", "_heard", "_handles"),
    )

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        world: World,
        ahead: tuple[Given, ...] = (),
        past: Past | None = None,
    ) -> None:
        self.reactor, self.store, self.world = reactor, store, world
        self._ahead = list(reversed(ahead)) if ahead else _NOTHING_AHEAD  # the next one last
        self._past = past
        self.pending: set[Any] = set()  # requests and subreactor calls that were made and not yielded
        self._steps: list[Step] = []  # since the run spoke last
        # From here on empties that nobody adds to: in a long chain all runs wait at once, and sets are large.
        self._seen: set[tuple[str, str]] | frozenset[tuple[str, str]] = _NOTHING_SEEN
        self._sent: set[str] | frozenset[str] = _NOTHING_SENT
        self._allocations: dict[str, Any] = _NO_ALLOCATIONS  # what was not sent yet
        self._handles: dict[str | int, tuple[str, Any]] = _NO_HANDLES  # see `_key_of`; with the name, sent or not
        self._temporary: Temporaries | None = None
        self._unchecked: Sequence[Any] = ()  # receipts for what it received and is still being checked
        self.token = object()  # what it makes can tell by this, without keeping it alive
        self._entered: Entered | None = None  # the code that runs, once a subreactor is called
        self._heard: tuple[tuple[Any, bool], ...] = ()  # subreactors and imports of other threads since it spoke last
        self._body: Any = None
        self._request: Request | None = None
        self._swallowing = False
        self._swallowed = False
        self._over = False
        self._workshop: Workshop | None = None

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
                values.append(self._receive(name, ref))
            except PayloadMissing:
                missing.append(name)
            except Exception as error:  # an ingredient that can't be decoded is the reactor's business
                return self._throw(error)
        if missing:
            return Missing(self.reactor.id, tuple(missing))
        try:
            answer = self._request.answer(values) if self._request is not None else None
        except Exception as error:  # as above: it can't be had in the form that was asked for
            return self._throw(error)
        return self._step(self._body.send, answer)

    def throw(self, failure: Failure) -> Outcome:
        """Raise a failure at its ``yield``."""
        error = self.world.error_of(failure)
        before = error.__traceback__
        outcome = self._throw(error)
        if before is not None and type(outcome) is Raised and outcome.error is error:
            # it has only passed through: where each of a thousand waited says nothing
            BaseException.with_traceback(error, before)
        return outcome

    def _throw(self, error: BaseException) -> Outcome:
        """Raise an error at its ``yield``; if it goes on all the same, no trace could say what that hung on."""
        self._swallowing = True
        return self._step(self._body.throw, error)

    def close(self) -> None:
        """End it without a result."""
        try:
            self._end_body()
        except Exception as error:  # of a ``finally``, or it yielded while being closed: what ended it matters more
            log().warning("reactor %s did not end well: %s", self.reactor.name, error, exc_info=error)
        finally:
            self._discard()
            self.world.forget(self)
            if self._workshop is not None:
                self._workshop.release()

    def _end_body(self) -> None:
        if self._body is not None:
            self._body.close()

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
            self._check_returned(result)
            return _FINISHED
        self._body = result
        return result.send(None)

    def _check_returned(self, result: Any) -> None:
        """What a plain function returns is not looked at, unless it would be work that was never begun."""
        if result is None or isinstance(result, (Request, SubreactorCall)):  # these two are missed at the end
            return
        kind = type(result)
        if hasattr(kind, "__anext__") or hasattr(kind, "__await__"):
            raise BadRequest(
                f"reactor {self.reactor.name} returned {_with_article(kind.__name__)}, which nobody runs",
                hint="write `async def` with `await pipe.receive(...)`, or `def` with `yield pipe.receive(...)`, and "
                "leave nothing to an event loop: the plant drives reactors itself",
            )

    def _step(self, function: Callable[[Any], Any], argument: Any) -> Outcome:
        """Run until the next request, the end, or an exception."""
        before, watching.run = watching.run, self
        try:
            yielded = function(argument)
            while self._ahead and self._is_next(yielded):
                yielded = self._go_on(yielded)
            return self._ended() if yielded is _FINISHED else self._asked(yielded)
        except StopIteration as error:
            return self._ended() if self._body is not None else self._raised(error)
        except Exception as error:
            return self._raised(error)
        except BaseException:
            self.close()
            raise
        finally:
            watching.run = before

    def _is_next(self, yielded: Any) -> bool:
        """Whether it asks for what it is given next, with nothing sent that others should hear of first."""
        if type(yielded) is Request and yielded.names == self._ahead[-1].names and not self._sent:
            return True
        self._ahead = _NOTHING_AHEAD
        return False

    def _go_on(self, request: Request) -> Any:
        """Hand over what it asks for; what it yields next, or the request itself if a payload is gone."""
        names, refs = self._ahead.pop()
        if self._workshop is not None:
            self._workshop.spoke()
        position = len(self._steps)
        go_on, given = self._body.send, None
        try:
            given = request.answer([self._receive(*each) for each in zip(names, refs, strict=True)])
        except PayloadMissing:
            self._ahead = _NOTHING_AHEAD
            return request
        except Exception as error:  # as in `resume`
            go_on, given, self._swallowing = self._body.throw, error, True
        self._steps.insert(position, ingredients_received(names, refs))
        request.taken()
        self._request = request
        return go_on(given)

    def _asked(self, yielded: Any) -> Outcome:
        self._swallowed, self._swallowing = self._swallowed or self._swallowing, False
        if self._workshop is not None:
            self._workshop.spoke()
            if self._workshop.must_begin_again:
                self.close()
                return self._lost()
        if yielded is None:
            self._request = None
            return Asked(self.reactor.id, self._take_steps(), ())
        if type(yielded) is not Request:
            mistake = self._garbage(yielded)
            self.close()
            return self._raised(mistake)
        yielded.taken()
        self._request = yielded
        return _new(Asked, (self.reactor.id, self._take_steps(), yielded.names))

    def _ended(self) -> Outcome:
        self._body = None
        try:
            self._check_end()
        except Exception as error:
            return self._raised(error)
        self._discard()
        if (self._unchecked or self._workshop is not None) and self._was_deceived():
            return self._lost()
        if self._workshop is not None and self._workshop.must_begin_again:
            return self._lost()
        reusable = not (self._swallowed or self._swallowing or self.world.note_remains(self.reactor))
        if self._workshop is not None:
            self._workshop.hand_over(reusable)
        return _new(Ended, (self.reactor.id, self._take_steps(), reusable))

    def _raised(self, error: BaseException) -> Outcome:
        error = no_event_loop(error, self.reactor) or error
        for forgotten in self.pending if not isinstance(error, PyplantxError) else ():
            mistake = self._never_yielded(forgotten)
            add_note(error, f"pyplantx: {mistake.message}; is that what went wrong? {mistake.hint}")
        if self._workshop is not None:
            self._workshop.failed()
        self._discard()
        self.world.forget(self)
        if self._was_deceived():
            return self._lost()
        if self._workshop is not None:
            if self._workshop.must_begin_again:
                return self._lost()
            self._workshop.release()
        return Raised(self.reactor.id, self._take_steps(), error)

    def _lost(self) -> Lost:
        if self._workshop is not None:
            self._workshop.release(deceived=True)
        return Lost(self.reactor.id)

    def _was_deceived(self) -> bool:
        """Whether what it received or had kept turned out to be damaged: then all that it made is worth nothing."""
        receipts, self._unchecked = self._unchecked, ()
        damaged = bool(receipts) and bool(self.store.settle(receipts))
        return damaged or (self._workshop is not None and self._workshop.has_lost)

    def _take_steps(self) -> tuple[Step, ...]:
        if self._heard:
            self._note_heard()
        steps, self._steps = self._steps, []  # threads of the reactor may add to either, not to none
        return tuple(steps)

    def _check_end(self) -> None:
        self.world.check_unchanged(self)
        if self._workshop is not None:
            self._workshop.check()
        for forgotten in self.pending:
            raise self._never_yielded(forgotten)
        if self._allocations:
            unsent = list(self._allocations)
            raise NotSent(
                f"reactor {self.reactor.name} allocated {', '.join(map(repr, unsent))} and never sent it",
                hint=f"pipe.send({unsent[0]!r}, ...) when it is complete, or use pipe.allocate_temp",
            )

    def _discard(self) -> None:
        if self._workshop is not None:
            self._workshop.stop()
        for allocation in list(self._allocations.values()):
            allocation.discard()
        if self._temporary is not None:
            self._temporary.discard()
        self._allocations, self._handles, self._temporary = _NO_ALLOCATIONS, _NO_HANDLES, None
        self._over = True

    # ----------------------------------------------------------------- what the reactor does

    def request(self, names: tuple[str, ...], as_: str | None = None) -> Request:
        """See `Pipework.receive`."""
        if not names:
            raise BadRequest("pipe.receive() without a name", hint="pipe.receive('x')")
        if as_ is not None:
            from pyplantx.specs.views import check_form

            check_form(as_, names[0])
        if self._over:
            raise self._has_ended("receive")
        if self._body is None:  # the function has not returned a generator or coroutine that could wait
            raise BadRequest(
                f"reactor {self.reactor.name} is a plain function and can't wait for {names[0]!r}",
                hint=f"write `x = yield pipe.receive({names[0]!r})`: that makes it a generator",
            )
        return Request(names, _users_line(), self.pending, as_)

    def send(self, name: str, value: Any, type_given: Any) -> None:
        """See `Pipework.send`."""
        if self._over:
            raise self._has_ended("send")
        if name in self._sent:
            raise BadRequest(
                f"reactor {self.reactor.name} sends {name!r} a second time",
                hint="an ingredient has one value per run; send the second one under another name",
            )
        if self._workshop is not None:
            self._workshop.before_send(value)
        allocation = self._allocations.get(name)
        if allocation is None:
            if self._handles:
                self._refuse_foreign_handle(name, value)
            try:
                ref = self.store.store(name, value, type_given)
            except WarehouseError:
                self._swallowing = True  # as in `_throw`: a full disk is nothing that a trace tells of
                raise
        elif _is_handle(allocation, value):
            ref = allocation.seal(type_given)
            if self._workshop is not None:
                self._workshop.after_send(value, ref.address)
        else:
            raise BadRequest(
                f"reactor {self.reactor.name} allocated {name!r} and sends something else under that name",
                hint="send what pipe.allocate returned",
            )
        self._sent = _with(self._sent, name)
        if allocation is not None:
            self._allocations.pop(name, None)
        self._steps.append(_new(Sent, (name, ref)))

    def _refuse_foreign_handle(self, name: str, value: Any) -> None:
        found = self._handles.get(_key_of(value))
        if found is not None and _leads_to(found[1], value):
            raise BadRequest(
                f"reactor {self.reactor.name} sends as {name!r} what it allocated as {found[0]!r}",
                hint=f"pipe.send({found[0]!r}, ...), or allocate it as {name!r}",
            )

    def allocate(self, name: str, type_given: Any, options: dict[str, Any]) -> Any:
        """See `Pipework.allocate`."""
        if self._over:
            raise self._has_ended("allocate")
        if name in self._allocations or name in self._sent:
            raise BadRequest(f"reactor {self.reactor.name} allocates {name!r} a second time")
        if self._temporary is not None:
            self._temporary.sweep()
        try:
            allocation = self.store.allocate(name, type_given, **options)
        except PyplantxError as error:
            self._swallowing = self._swallowing or isinstance(error, WarehouseError)
            raise error.within(f"reactor {self.reactor.name}") from error
        handle = allocation.handle
        if self._handles is _NO_HANDLES:
            self._allocations, self._handles = {}, {}
        self._allocations[name] = allocation
        self._handles[_key_of(handle)] = name, _weakly(handle)
        return handle

    def allocate_temp(self, name: Any, type_given: Any, options: dict[str, Any]) -> Any:
        """See `Pipework.allocate_temp`."""
        if self._over:
            raise self._has_ended("allocate_temp")
        if self._temporary is None:
            self._temporary = Temporaries()
        self._temporary.sweep()
        try:
            allocation = self.store.allocate_temp(name, type_given, **options)
        except PyplantxError as error:
            self._swallowing = self._swallowing or isinstance(error, WarehouseError)
            raise error.within(f"reactor {self.reactor.name}") from error
        return self._temporary.add(allocation)

    def _receive(self, name: str, ref: ObjectRef) -> Any:
        try:
            value, receipt = self.store.open_unchecked(ref)
        except Exception as error:
            note_opened(error, name)
            raise
        if receipt is not None:
            self._unchecked = _appended(self._unchecked, receipt)
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
            step = Group((observation,))
            self._steps.append(step)  # in one go: see `_take_steps`

    def observe(self, kind: str, key: str, answer: Digest, shown: str) -> None:
        """`note` in the words of the config view."""
        self.note(Observation(kind, key, answer, shown))

    # ----------------------------------------------------------------- blocks, and going on after a kill

    def workshop(self) -> Workshop:
        """The loops over blocks of this run."""
        if self._over:
            raise self._has_ended("blocks")
        if self._workshop is None:
            from pyplantx.blocks.workshop import Workshop

            self._workshop = Workshop(self)
        return self._workshop

    def unsent(self) -> Sequence[Any]:
        """What was allocated and not sent yet, with what is temporary."""
        return (*self._allocations.values(), *(self._temporary or ()))

    def allocation_of(self, handle: Any) -> Any:
        """What was allocated with this handle, and not sent yet; None for anything else."""
        return next((found for found in self.unsent() if found.handle is handle), None)

    def so_far(self) -> tuple[Digest, Sequence[Step]] | None:
        """The reactor's fingerprint and all that it has observed and sent; None if its run can't be repeated so."""
        if self._past is None or self._swallowed or self._swallowing:
            return None
        root, told = self._past()
        return root, (*told, *self.recent())

    def recent(self) -> Sequence[Step]:
        """What it has observed and sent since it spoke last."""
        if self._heard:
            self._note_heard()
        return self._steps

    def answer(self, question: Question) -> Observation:
        """Today's answer to a question that an earlier run asked."""
        return self.world.answer(self.reactor, question)

    def has_right_inputs(self) -> bool:
        """Whether all that it received is known to be undamaged by now."""
        return all([receipt.is_right() for receipt in self._unchecked])

    # ----------------------------------------------------------------- subreactor calls

    def called(self, call: SubreactorCall) -> None:
        """A subreactor call was made."""
        self.pending.add(call)

    def begun(self, call: SubreactorCall) -> None:
        """A subreactor call that was made in the reactor's own thread begins, perhaps in another one."""
        self.pending.discard(call)

    def entered(self, call: SubreactorCall) -> None:
        """A subreactor call begins in the reactor's own thread: its code is observed."""
        self.pending.discard(call)
        self._observe_code(call.subreactor)
        self.world.entered(call.subreactor)

    def took(self, subreactor: Any, whole: bool = False) -> None:
        """The function of a subreactor was taken, which may be called; or (`whole`) all that it names with it."""
        self._observe_code(subreactor)
        if whole:
            self.count_named(subreactor)

    def count_named(self, code: Any) -> None:
        """Code goes where its calls can't be seen: the subreactors that it names are observed at once."""
        for subreactor in self.world.named(code):
            self._observe_code(subreactor)

    def _observe_code(self, subreactor: Any) -> None:
        if self._entered is None:
            self._entered = self.world.entered_by(self.reactor)
        observation = self._entered.call(subreactor, subreactor.made_in is self.token)
        if observation is not None:
            self.note(observation)

    def heard(self, subreactor: Any, whole: bool) -> None:
        """`took`, of another thread. Nothing is looked at there: it may go on while this one looks at code, too."""
        with _hearing:
            if (subreactor, whole) not in self._heard:
                self._heard += ((subreactor, whole),)

    def _note_heard(self) -> None:
        """Observe what was heard, ahead of what was sent meanwhile: that may be made of it."""
        with _hearing:
            heard, self._heard = self._heard, ()
        heard = tuple(sorted(heard, key=lambda pair: pair[0].qualified))  # threads have no order
        since, self._steps = self._steps, []
        for one, whole in heard:
            if type(one) is _Import:
                self._note_import(*one)
            else:
                self.took(one, whole)
        self._steps += since

    # ----------------------------------------------------------------- imports by text

    def imported(self, name: str, caller: FrameType, found: bool) -> None:
        """The reactor has got a module by a text, or has not found it: the module's code is observed."""
        if (MODULE, name) not in self._seen and is_reactors_own(caller):
            self._note_import(name, importer(caller), found)

    def heard_import(self, name: str, caller: FrameType, found: bool) -> None:
        """`imported`, of another thread; see `heard`."""
        if not is_reactors_own(caller):
            return
        with _hearing:
            if all([type(one) is not _Import or one.qualified != name for one, _ in self._heard]):
                self._heard += ((_Import(name, importer(caller), found), False),)

    def _note_import(self, name: str, by: Mapping[str, Any], found: bool) -> None:
        observation = self.world.module(name, by, found)
        if observation is not None:
            self.note(observation)

    # ----------------------------------------------------------------- errors

    def _has_ended(self, what: str) -> BadRequest:
        return BadRequest(
            f"pipe.{what} of reactor {self.reactor.name}, which has ended",
            hint="a pipe serves one run; end threads that use it before the reactor returns",
        )

    def _garbage(self, yielded: Any) -> BadRequest:
        kind = type(yielded).__name__
        hint = "yield pipe.receive(...)"
        did = "awaits what yielded" if hasattr(self._body, "cr_frame") else "yielded"
        if isinstance(yielded, SubreactorCall):
            kind, hint = "a subreactor call", f"yield from {yielded.subreactor.__name__}(pipe, ...)"
        elif did != "yielded" or hasattr(type(yielded), "__await__"):
            hint = NO_LOOP_HINT
        line = waiting_line(self._body)
        return BadRequest(f"reactor {self.reactor.name} {did} {kind}: {shown(yielded)} ({line})", hint=hint)

    def _waits_with(self) -> str:
        code = getattr(self.reactor.function, "__code__", None)
        return "await" if code is not None and code.co_flags & _COROUTINE else "yield"

    def _never_yielded(self, forgotten: Any) -> BadRequest:
        if isinstance(forgotten, SubreactorCall):
            name = forgotten.subreactor.__name__
            return BadRequest(
                f"reactor {self.reactor.name} called the subreactor {name} and did not wait for it ({forgotten.line})",
                hint=f"value = yield from {name}(pipe, ...)",
            )
        return BadRequest(
            f"reactor {self.reactor.name} asked for {', '.join(map(repr, forgotten.names))} and never yielded the "
            f"request ({forgotten.line})",
            hint=f"x = {self._waits_with()} pipe.receive({forgotten.names[0]!r})",
        )


def _with(items: set[_T] | frozenset[_T], item: _T) -> set[_T]:
    """The set with one more item: the same one, unless it was empty."""
    if isinstance(items, set):
        items.add(item)
        return items
    return {item}


def _appended(items: Sequence[_T], item: _T) -> Sequence[_T]:
    """The items with one more: the same list, unless it was the empty tuple that all runs begin with."""
    if isinstance(items, list):
        items.append(item)
        return items
    return [*items, item]


def _key_of(handle: Any) -> str | int:
    """What finds a handle that was handed out: a path by its text, anything else by identity."""
    return os.fspath(handle) if isinstance(handle, (str, os.PathLike)) else id(handle)


def _weakly(handle: Any) -> Any:
    """A handle in a form that does not keep it: each that is there has a file open."""
    try:
        return weakref.ref(handle)
    except TypeError:  # a path, a list of a spec of the user's
        return handle


def _leads_to(kept: Any, value: Any) -> bool:
    """Whether what `_weakly` gave is of this value, and not of an earlier one that was where it is now."""
    return not isinstance(kept, weakref.ref) or kept() is value


def _is_handle(allocation: Any, value: Any) -> bool:
    handle = allocation.handle
    if isinstance(handle, str) and isinstance(value, (str, os.PathLike)):
        return os.fspath(value) == handle
    return value is handle


def _with_article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def _users_line() -> str:
    frame = sys._getframe(3)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

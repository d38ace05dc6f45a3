"""What one run has of loops over blocks: those that are open, and what is kept so that they can go on after a kill.

This file may know: loops, geometry, attempts to resume; of the run what `Owner` says. Made when a reactor first asks
for blocks; whoever does not pays nothing.
"""

from __future__ import annotations

import copy
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.loaded import is_of
from pyplantx.basics.logs import log
from pyplantx.basics.units import Size, parse_bytes
from pyplantx.blocks import maps, travel
from pyplantx.blocks.alterations import Others
from pyplantx.blocks.attempt import Attempt
from pyplantx.blocks.captured import CannotTell, Captured
from pyplantx.blocks.checkpoints import Checkpoints
from pyplantx.blocks.geometry import Block, Grid, cut
from pyplantx.blocks.handles import Handle, MapHandle, handle_of
from pyplantx.blocks.inplace import check_output, has_common
from pyplantx.blocks.logbook import Host, Logbook, covered, place_of
from pyplantx.blocks.loop import BlockLoop, Keeper, has_ended
from pyplantx.blocks.maps import Hands
from pyplantx.blocks.passes import Passes, passes_of
from pyplantx.blocks.progress import Tell
from pyplantx.blocks.reduction import Reduction
from pyplantx.blocks.sources import Sources
from pyplantx.errors import BadRequest, WarehouseError
from pyplantx.subreactor import Deputy, Watched

if TYPE_CHECKING:
    from pyplantx.blocks.travel import Workers
    from pyplantx.core.trace import Digest
    from pyplantx.warehouse.resume import Workspaces

#: For those who have no budget of their own (a test without a plant).
_MEMORY = 256 * 10**6

#: Values to begin with that a reduction writes into.
_WRITTEN_INTO = (list, dict, set, bytearray, deque)


class Owner(Host, Protocol):
    """What is needed of a run besides `Host`."""

    @property
    def store(self) -> Any: ...
    @property
    def world(self) -> Any: ...
    def unsent(self) -> Sequence[Any]: ...
    def allocation_of(self, handle: Any) -> Any: ...
    def count_named(self, code: Any) -> None: ...


class Workshop:
    """The loops of one run.

    Parameters
    ----------
    run : Owner
        The run.
    """

    def __init__(self, run: Owner) -> None:
        self._run = run
        self._who = f"reactor {run.reactor.name}"
        self._loops: list[BlockLoop] = []
        self._attempts: list[Attempt] = []
        self._logbooks: list[Logbook] = []
        self._checkpoints = Checkpoints(self, run, self._content_of)
        # Block of each open loop, and what a loop in it is like -> how many of these were begun.
        self._counts: dict[tuple[tuple[int, ...], str], int] = {}
        self._reads_remains: bool | None = None  # see `_is_of_other_code`; None: not looked at
        self._late: BaseException | None = None
        self._ended = self._let_go = False
        self._passes: weakref.WeakSet[Passes] = weakref.WeakSet()
        self._ahead: list[Passes] = []  # those that have taken something up
        self._is_astray = False
        self._spared: set[tuple[float, float]] = set()  # see `Logbook`; of those that were let go of
        self._made = time.time()

    # ----------------------------------------------------------------- what pipes offer

    def blocks(
        self,
        arrays: Sequence[Any],
        memory: Size | None,
        axis: int | Sequence[int],
        halo: int | Sequence[int],
        resume: bool,
        progress: Tell | None,
    ) -> Iterator[Block]:
        """See `Pipework.blocks`."""
        handles = [self._handle(array) for array in arrays]
        grid = cut([handle.extent for handle in handles], self._memory(memory), axis=axis, halo=halo)
        if resume and not any(handle.allocation for handle in handles):
            raise BadRequest(
                f"{self._who}: a loop with resume=True fills no array: what else it computes is lost with the process",
                hint="name what it fills, or use pipe.reduce_blocks or pipe.checkpoint",
            )
        return self._walk(grid, handles, resume, progress)

    def _walk(self, grid: Grid, handles: list[Handle], resume: bool, progress: Tell | None) -> Iterator[Block]:
        if self._ended:
            raise has_ended(self._who)
        keeper = self._attempt_of_loop(grid, handles) if resume else None
        loop = self._loop(grid, handles, progress, keeper, resume)
        try:
            yield from loop
        finally:
            self._over(loop)

    def map_blocks(
        self,
        function: Callable[..., Any],
        sources: Sequence[Any],
        out: Any,
        memory: Size | None,
        axis: int | Sequence[int],
        halo: int | Sequence[int],
        workers: int | None,
        resume: bool,
        progress: Tell | None,
    ) -> None:
        """See `Pipework.map_blocks`."""
        output = self._handle(out)
        if (output.asks and output.allocation is None) or not _is_writeable(out):
            raise BadRequest(f"{self._who}: out= takes no writes: {out!r}", hint="out=pipe.allocate(...)")
        hands = self._hands("map_blocks", function, sources, workers)
        place = len(hands.sources)
        handles = [*hands.sources, output]
        grid, hands = self._cut_for(hands, handles, memory, axis, halo)
        for source in hands.sources:
            check_output(source, output, grid, self._who)
        captured = self._captured("map_blocks", [function]) if resume else None
        keeper = None if captured is None else self._attempt_of_map(grid, handles, captured)
        loop = self._loop(grid, handles, progress, keeper, resume)
        try:
            maps.map_blocks(loop, hands, output, place)
        finally:
            self._over(loop)

    def reduce_blocks(
        self,
        function: Callable[..., Any],
        sources: Sequence[Any],
        combine: Callable[[Any, Any], Any],
        initial: Any,
        memory: Size | None,
        axis: int | Sequence[int],
        workers: int | None,
        resume: bool,
        progress: Tell | None,
    ) -> Any:
        """See `Pipework.reduce_blocks`."""
        hands = self._hands("reduce_blocks", function, sources, workers)
        grid, hands = self._cut_for(hands, hands.sources, memory, axis, 0)
        captured = self._captured("reduce_blocks", [function, combine, initial]) if resume else None
        keeper = None if captured is None else self._reduction(grid, hands.sources, captured)
        loop = self._loop(grid, hands.sources, progress, keeper, resume)
        # A copy: who goes on after a kill would not find in the given one what `combine` has written into it.
        begun = [] if initial is None else [_of_its_own(initial)]
        before = keeper.total if keeper is not None and keeper.total else begun
        keep = keeper.keep if keeper is not None else _keep_nothing
        try:
            total = maps.reduce_blocks(loop, hands, combine, before, keep)
        finally:
            self._over(loop)
        return total[0] if total else None

    def _hands(self, what: str, function: Callable[..., Any], sources: Sequence[Any], workers: int | None) -> Hands:
        """Who calls a function of blocks: the plant's workers, if there are any and nobody wants but one."""
        handles = [self._handle(array) for array in sources]
        others: Workers | None = getattr(self._run.world, "workers", None)
        if others is None or workers == 1:
            return Hands(lambda: nullcontext(function), handles, workers or 1)
        count, fixed = workers or others.count, workers is not None
        if not others.travels:
            watched = Watched(function, Deputy(self._run))
            return Hands(lambda: others.begin(watched), handles, count, fixed=fixed)
        self._run.count_named(function)
        job, placed = travel.pack(function, handles, what, others, self._run.world.fingerprinter)
        return Hands(lambda: travel.calling(others, job, placed), placed, count, count, elsewhere=True, fixed=fixed)

    def restore(self, key: str, default: Any) -> Any:
        """What was kept under a key; see `Pipework.checkpoint`."""
        return self._checkpoints.restore(key, default)

    def keep(self, key: str, value: Any) -> None:
        """Keep a value under a key; see `Pipework.checkpoint`."""
        self._checkpoints.keep(key, value)

    @property
    def has_lost(self) -> bool:
        """Whether a value that the run has kept itself is gone: then only another run can do what it should have."""
        return self._checkpoints.has_lost

    def _content_of(self, dataset: Any) -> Digest | None:
        """The digest of what a loop has filled, if that is known."""
        found = (attempt.content_of(dataset) for attempt in self._attempts)
        return next((digest for digest in found if digest is not None), None)

    # ----------------------------------------------------------------- what checkpoints ask

    def keeps_more(self) -> None:
        """A value is kept, or asked for, in the loops that are open. It may be made from all that was allocated."""
        for passes in self._passes:
            passes.look()
        for loop in self._loops:
            loop.keeps_more()

    @property
    def is_in_loop(self) -> bool:
        """Whether a loop is open that goes on by itself."""
        return any(loop.goes_on for loop in self._loops)

    def settle(self) -> None:
        """What the loops have written is there."""
        for loop in self._loops:
            loop.settle()

    # ----------------------------------------------------------------- what the run tells

    def before_send(self, array: Any) -> None:
        """An ingredient is about to be sent.

        Raises
        ------
        Exception
            What the thread that was to write it met with.
        """
        self.settle()
        self.check()
        for attempt in self._attempts:
            attempt.before_send(array)
        self.spoke()

    def after_send(self, array: Any, address: Digest) -> None:
        """An ingredient was sent, and lies at an address now."""
        for attempt in self._attempts:
            attempt.sent(array, address)
        self._let_go_of_done()

    def _let_go_of_done(self) -> None:
        done = [attempt for attempt in self._attempts if attempt.is_done_with]
        self._attempts = [attempt for attempt in self._attempts if attempt not in done]
        for attempt in done:
            self.let_go_of(attempt.logbook)

    def spoke(self) -> None:
        """The run asks for something, or sends: from here on it could not be done again without asking and sending."""
        for logbook in self._logbooks:
            logbook.going = False
        self._checkpoints.spoke()

    @property
    def must_begin_again(self) -> bool:
        """Whether the run can't go on with what it was given of an earlier one: what it makes is worth nothing."""
        return self._is_astray or self._checkpoints.must_begin_again or any(each.is_astray for each in self._ahead)

    def check(self) -> None:
        """Raise what a loop that was left early could not raise."""
        if self._late is not None:
            late, self._late = self._late, None
            raise late

    def failed(self) -> None:
        """The run has raised an error, and ends."""
        self._checkpoints.failed()

    def stop(self) -> None:
        """The run is over, well or not: all threads end, and nothing more is read or written."""
        self._ended = True
        for loop in self._loops:
            loop.close()
        self._loops = []

    def hand_over(self, recorded: bool) -> None:
        """The run has ended well. What it kept stays until its result is durable; if that is not recorded, it goes."""
        spared = self._spared.union(*[logbook.spared.items() for logbook in self._logbooks])
        if spared:
            # Without what this run has noted itself, in a ledger that was let go of and opened again.
            earlier = (span for span in spared if span[0] < self._made)
            self._run.world.note_spared(self._run.reactor.id, covered(earlier))
        if not recorded:
            for logbook in self._logbooks:
                logbook.close(remove=True)
            if self._let_go and self.spaces is not None:
                self.spaces.finished(self._run.reactor.id)
        self._forget()

    def release(self, deceived: bool = False) -> None:
        """The run has failed, or was ended: what was finished stays for the next one.

        Parameters
        ----------
        deceived : bool
            Something that it received was damaged: what waited for that to be checked is worth nothing.
        """
        for logbook in self._logbooks:
            logbook.close(remove=False, deceived=deceived)
        self._forget()

    def _forget(self) -> None:
        for passes in self._passes:
            passes.close()
        self._ahead = []
        self._logbooks, self._attempts = [], []
        self._checkpoints.clear()

    # ----------------------------------------------------------------- making things

    def _handle(self, array: Any) -> Handle:
        return handle_of(array, self._run.allocation_of(array))

    def _memory(self, given: Size | None) -> int:
        if given is not None:
            return parse_bytes(given, "memory=")
        budget = getattr(self._run.store, "memory", None)
        return _MEMORY if budget is None else int(budget.share("blocks"))

    def _cut_for(
        self, hands: Hands, handles: list[Handle], memory: Size | None, axis: Any, halo: Any
    ) -> tuple[Grid, Hands]:
        """The grid, for as many blocks in flight as the workers need; fewer workers if memory is short."""
        extents, room = [handle.extent for handle in handles], self._memory(memory)
        while True:
            try:
                return cut(extents, room, axis=axis, halo=halo, more=hands.more), hands
            except BadRequest:
                fewer = hands.fewer()
                if fewer is None:
                    raise
            log().debug("%s: there is not enough memory for %d workers at once", self._who, hands.threads)
            hands = fewer

    def _loop(
        self, grid: Grid, handles: list[Handle], progress: Tell | None, keeper: Keeper | None, resume: bool
    ) -> BlockLoop:
        late = self._note_late
        passes = keeper.passes if isinstance(keeper, Attempt) else None
        for other in [passes_of(handle.array) for handle in handles if handle.tells]:
            if other is not None and other is not passes:
                other.look()
        loop = BlockLoop(grid, handles, self._who, progress=progress, keeper=keeper, resumes=resume, on_late_error=late)
        self._loops.append(loop)
        if passes is not None:
            passes.walker = loop
        return loop

    def _over(self, loop: BlockLoop) -> None:
        if loop in self._loops:
            self._loops.remove(loop)
        if isinstance(loop.keeper, Attempt):
            loop.keeper.over()
        elif isinstance(loop.keeper, Reduction):
            self.let_go_of(loop.keeper.logbook)

    def let_go_of(self, logbook: Logbook) -> None:
        """Nothing more will be noted in it. It stays for the next run, with no file open: a run may have thousands."""
        if logbook in self._logbooks and logbook.let_go():
            self._logbooks.remove(logbook)
            self._spared.update(logbook.spared.items())
            self._let_go = True

    def _note_late(self, error: BaseException) -> None:
        self._late = self._late or error

    # ----------------------------------------------------------------- resuming

    def _attempt_of_loop(self, grid: Grid, handles: list[Handle]) -> Attempt | None:
        """Of a loop whose body is the reactor's: it fills the allocated arrays that nobody has written to yet."""
        allocated = {place: handle for place, handle in enumerate(handles) if handle.allocation is not None}
        outputs = {place: handle for place, handle in allocated.items() if handle.untouched}
        if not outputs and len(allocated) == 1 and all(passes_of(handle.array) for handle in allocated.values()):
            outputs = allocated
        for place, handle in allocated.items():
            if place not in outputs and isinstance(handle, MapHandle):
                log().warning(
                    "%s: the loop can't be resumed: %r was written to before it, and arrays in memory can't be watched",
                    self._who,
                    handle.allocation.name,
                )
                return None
        sources = {place: handle for place, handle in enumerate(handles) if place not in outputs}
        return self._attempt("loop", grid, outputs, sources)

    def _attempt_of_map(self, grid: Grid, handles: list[Handle], captured: Captured) -> Attempt | None:
        """Of a map, whose output comes last."""
        *given, output = handles
        sources = {place: handle for place, handle in enumerate(given) if not has_common(handle.here, output)}
        in_place = len(sources) < len(given)
        return self._attempt("map", grid, {len(given): output}, sources, captured, in_place)

    def _reduction(self, grid: Grid, handles: list[Handle], captured: Captured) -> Reduction | None:
        sources = self._sources(dict(enumerate(handles)))
        logbook = self.logbook(f"reduce\n{grid}\n{captured.digest}\n{sources.key}")
        return None if logbook is None else Reduction(logbook, grid, sources, captured.look)

    def _sources(self, handles: dict[int, Handle], exposed: bool = False) -> Sources:
        """What a loop reads; `exposed`: its body has the arrays."""
        assert self.spaces is not None
        return Sources(handles, self._run.world.fingerprinter.of_present().encode_value, self.spaces.sealed, exposed)

    def _captured(self, what: str, functions: Sequence[Any]) -> Captured | None:
        """What functions of blocks stand on besides; None if it can't be told, or nothing is kept anyway."""
        if self.spaces is None:
            return None
        unsent = self._run.allocation_of
        try:
            return Captured(functions, self._run.world.fingerprinter, lambda v: unsent(v) is not None)
        except CannotTell as why:
            log().info("%s: after a kill %s begins anew, since the function has a state: %s", self._who, what, why)
            return None

    def _attempt(
        self,
        kind: str,
        grid: Grid,
        outputs: dict[int, Handle],
        sources: dict[int, Handle],
        captured: Captured | None = None,
        in_place: bool = True,
    ) -> Attempt | None:
        """Of a loop that fills some arrays; None if it can't be resumed. `captured`: of a map."""
        if self.spaces is None or not outputs or any(handle.allocation is None for handle in outputs.values()):
            return None
        before = self._pass_before(grid, outputs)
        if before is None and not all(handle.untouched for handle in outputs.values()):
            log().info(
                "%s: after a kill this loop begins anew: what it fills was written to, or resized, before", self._who
            )
            return None
        standing = "" if captured is None else captured.digest
        read = self._sources(sources, exposed=captured is None)
        over = [] if before is None else [f"over {before[1]}"]
        words = [kind, str(grid), *map(_described, outputs.values()), standing, read.key, *over]
        logbook = self.logbook("\n".join(words))
        if logbook is None:
            return None
        look = None if captured is None else captured.look
        others = Others(self._beside(outputs)) if captured is None else None
        passes = self._first_pass(grid, outputs, logbook) if before is None else self._next_pass(before[0], logbook)
        attempt = Attempt(logbook, grid, outputs, read, look, others, in_place, passes)
        self._attempts.append(attempt)
        if passes is not None and passes.are_ahead and passes not in self._ahead:
            self._ahead.append(passes)
        return attempt

    # -- several passes in place

    def _pass_before(self, grid: Grid, outputs: dict[int, Handle]) -> tuple[Attempt, Digest] | None:
        """What has filled the only output, and the digest of what it has left there; None if a loop begins afresh."""
        passes = passes_of(next(iter(outputs.values())).array) if len(outputs) == 1 else None
        if passes is None or passes.grid != str(grid) or not passes.go_on:
            return None
        (array,) = [handle.array for handle in outputs.values()]
        found = [attempt for attempt in self._attempts if attempt.passes is passes]
        left = found[-1].left(array) if found else None
        return None if left is None else (found[-1], left)

    def _first_pass(self, grid: Grid, outputs: dict[int, Handle], logbook: Logbook) -> Passes | None:
        """Of those that may follow: over a single dataset whose file is its own, and which tells who looks at it."""
        (handle, *more) = outputs.values()
        if more or not handle.asks or not handle.tells or handle.data_path is None or passes_of(handle.array):
            return None
        passes = Passes(self._who, str(grid), partial(self._lose, logbook))
        handle.array.watchers += (passes.watch,)
        self._passes.add(passes)
        return passes

    def _next_pass(self, before: Attempt, logbook: Logbook) -> Passes | None:
        passes = before.passes
        before.logbook.add({"next": logbook.workspace.key, "saw": []})
        if passes is not None:
            passes.number += 1
        if before.is_later:  # nobody asks for it again: there may be thousands
            self._attempts.remove(before)
            self.let_go_of(before.logbook)
        return passes

    def _lose(self, logbook: Logbook) -> None:
        """What was taken up is of no use, and what the run makes of it neither."""
        self._is_astray = True
        logbook.void()

    def _beside(self, outputs: dict[int, Handle]) -> list[Any]:
        """What is allocated and not sent, without the outputs of a loop."""
        filled = [handle.allocation for handle in outputs.values()]
        return [each for each in self._run.unsent() if each not in filled]

    @property
    def spaces(self) -> Workspaces | None:
        """Where to keep things; None without a plant."""
        return getattr(self._run.store, "workspaces", None)

    def logbook(self, what: str, numbered: bool = True, journal: bool = False) -> Logbook | None:
        """The ledger for a piece of work at this point of the run; None if there can't be one."""
        if numbered:
            # In a loop that goes on after a kill the first one is that of another block; and behind a checkpoint others
            # may have been left out.
            where = tuple([loop.current for loop in self._loops])
            self._counts[where, what] = number = self._counts.get((where, what), 0) + 1
            what = f"{where} {number} {what}"
        self._let_go_of_done()
        spaces, key = self.spaces, place_of(self._run, what)
        if spaces is None or key is None or self._is_of_other_code():
            return None
        try:
            take = spaces.take_journal if journal else spaces.take
            workspace = take(self._run.reactor.id, key)
            if workspace is None:
                log().info("%s: another process works on the same; this one keeps nothing", self._who)
                return None
            try:
                logbook = Logbook(self._run, spaces, workspace)
            except BaseException:  # else nobody could take it up before the plant is closed
                spaces.drop(workspace, remove=False)
                raise
        except (OSError, WarehouseError) as error:
            log().warning("%s can't be resumed after a kill: %s", self._who, error)
            return None
        self._logbooks.append(logbook)
        return logbook

    def _is_of_other_code(self) -> bool:
        """Whether what is computed here may be of former code, which has left its results in a memo."""
        if self._reads_remains is None:
            self._reads_remains = self._run.world.reads_remains(self._run.reactor)
            if self._reads_remains:
                log().info("%s keeps nothing for after a kill: what it reads was filled by other code", self._who)
        return self._reads_remains


def _is_writeable(array: Any) -> bool:
    """Whether an array in memory takes writes; what says nothing of it does."""
    return bool(getattr(getattr(array, "flags", None), "writeable", True))


def _described(handle: Handle) -> str:
    """An output, for the key of its workspace."""
    extent, name = handle.extent, handle.allocation.name
    layout = os.path.basename(handle.data_path or "")
    return f"{len(name)}:{name} {extent.shape} {handle.dtype.descr!r} {extent.chunks} {layout}"


def _of_its_own(initial: Any) -> Any:
    """A value to begin with, to be written into. What it consists of stays itself, and so do objects known by `is`."""
    is_copied = is_of(initial, "numpy", "ndarray") or isinstance(initial, _WRITTEN_INTO)
    return copy.copy(initial) if is_copied else initial


def _keep_nothing(block: Block, value: Any) -> None:
    """Of a reduction that can't be resumed."""

"""The loop over blocks: while the reactor computes, one thread reads ahead and one writes behind.

This file may know: blocks, handles, threads. It may not know: runs, workspaces; what is to survive a kill is noted by a
`Keeper`.

Rules:

- A dataset is read ahead if the body used it in the block before (or takes no writes anyway), and if nobody has written
  to it since the loop began.
- A value is copied before it waits to be written, unless nobody else can have it.
- What is read with a halo is not written to: the neighbours of a block would see what they should not.
- Whoever looks at a dataset otherwise (``dataset[0]``, sending it) waits until what waits is written.
- An error of a thread is raised in the loop at the next step. However the loop ends, its threads have ended too.
"""

from __future__ import annotations

import opcode
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.blocks.geometry import IN_FLIGHT, Block, Grid, shown
from pyplantx.blocks.handles import Handle
from pyplantx.blocks.inplace import borders_of, refusal
from pyplantx.blocks.progress import Progress
from pyplantx.errors import BadRequest, PyplantxError
from pyplantx.fingerprint.arrays import contiguous, copied
from pyplantx.specs.masks import check_written
from pyplantx.specs.pools import FilterPool, is_over, result_of, was_cancelled

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_AHEAD = IN_FLIGHT - 1  #: blocks that are read ahead, and that wait to be written

_PREPARED = -1  #: stands for the place of an array: the pages of all maps
_STORE = opcode.opmap["STORE_SUBSCR"]

#: Called in the writing thread when a block is written, with what was last written to it, by place of the array.
Note = Callable[["dict[int, Array]"], None]


def note_nothing(_: dict[int, Array]) -> None:
    """A block is finished, and nobody is to know."""


class Keeper(Protocol):
    """Notes what is finished, so that it need not be done again after a kill."""

    finished: frozenset[int]  #: blocks that need not be done again
    fills: frozenset[int]  #: places of the arrays whose blocks are noted when they are written
    looks: tuple[int, ...]  #: places of the sources of which it wants to see what is handed out

    def given(self, block: Block, place: int, part: Any) -> None:
        """What of a source is about to be handed out, with the halo."""

    def watch(self, block: Block) -> None:
        """The body of the loop is about to have a block, and the arrays themselves."""

    def blank(self, block: Block) -> None:
        """Undo what a killed run may have written to a block, before it is handed out. In the reading thread."""

    def done(self, block: Block) -> Note:
        """A block is finished. What is left to do about that in the writing thread."""

    def wrote_elsewhere(self, array: Any) -> None:
        """The loop wrote to an array otherwise than block by block."""

    def kept_elsewhere(self) -> None:
        """A value was kept for after a kill, or asked for, while a block was worked on."""


def has_ended(who: str) -> BadRequest:
    """The error for a generator over blocks that has outlived the run."""
    return BadRequest(
        f"{who} has ended, and its loop over blocks with it",
        hint="go through the blocks while the reactor runs: a generator over them serves one run",
    )


class BlockLoop:
    """Hands out blocks. Iterate over it once.

    Parameters
    ----------
    grid : Grid
        The blocks.
    handles : sequence of Handle
        The arrays.
    who : str
        What runs the loop, for messages.
    progress : callable, optional
        See `Progress`.
    keeper : Keeper, optional
        Without one nothing is kept.
    resumes : bool
        Whether one was wanted.
    on_late_error : callable, optional
        Told of an error of the writing thread when the loop can't raise it any more.
    """

    def __init__(
        self,
        grid: Grid,
        handles: Sequence[Handle],
        who: str,
        *,
        progress: Callable[[int, int, float], object] | None = None,
        keeper: Keeper | None = None,
        resumes: bool = False,
        on_late_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._grid, self._handles, self._who = grid, handles, who
        self._tell, self._keeper, self._on_late_error = progress, keeper, on_late_error
        self._resumes = resumes
        self._places = {id(handle.array): place for place, handle in enumerate(handles)}
        self._readers = FilterPool(1, "pyplantx-read")
        self._writers = FilterPool(1, "pyplantx-write")
        self._ahead: dict[tuple[int, int], Future[Any]] = {}
        self._behind: deque[tuple[int, Future[None]]] = deque()  # with the number of the block
        self._wrote: dict[int, dict[int, Array]] = {}  # block -> place -> what was written last
        self._fetched = {place for place, handle in enumerate(handles) if handle.asks and handle.allocation is None}
        self._fetching: set[int] = set()  # places that this block has read
        self._stored: set[int] = set()  # places that the loop or anybody else has written to
        self._padded: dict[int, Any] = {}  # arrays that were read with a halo, by id
        self._current = -1
        self._open = self._broken = False  # broken: something could not be written

    def __len__(self) -> int:
        return self._grid.size

    @property
    def current(self) -> int:
        """Number of the block that was handed out last; -1 before the first."""
        return self._current

    @property
    def keeper(self) -> Keeper | None:
        """Who notes what is finished."""
        return self._keeper

    @property
    def goes_on(self) -> bool:
        """Whether it is under way, and was meant to be gone on with after a kill."""
        return self._open and self._resumes

    def keeps_more(self) -> None:
        """See `Keeper.kept_elsewhere`."""
        if self.goes_on and self._keeper is not None:
            self._keeper.kept_elsewhere()

    @property
    def todo(self) -> list[int]:
        """Numbers of the blocks that are to be done."""
        finished = self._keeper.finished if self._keeper is not None else frozenset()
        return [index for index in range(self._grid.size) if index not in finished]

    def __iter__(self) -> Iterator[Block]:
        borders = borders_of(self._handles, self._grid)
        with self.running():
            for block in self.blocks():
                before = None if borders is None else borders.of(block)
                self._look_at(block)
                yield block
                if borders is not None and borders.of(block) != before:
                    raise refusal(self._who, block)
                self.finish(block)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The threads are there meanwhile; at the end everything is written."""
        self._begin()
        try:
            yield
            self.settle()
        except BaseException:
            self._end(late=True)
            raise
        self._end(late=False)

    def blocks(self) -> Iterator[Block]:
        """The blocks that are to be done, each ready to be worked on. `finish` them, in this order."""
        todo = self.todo
        self._progress = Progress(self._who, self._grid.size, self._grid.size - len(todo), self._tell)
        for position in range(len(todo)):
            if not self._open:
                raise has_ended(self._who)
            self._look_ahead(todo[position : position + 1 + _AHEAD])
            block = self._grid.block(todo[position], self)
            self._ready(block)
            yield block

    # ----------------------------------------------------------------- begin and end

    def _begin(self) -> None:
        self._open = True
        for place, handle in enumerate(self._handles):
            if handle.tells:
                handle.array.watchers += (partial(self._watch, place),)

    def _end(self, late: bool) -> None:
        """End the threads: nothing more is read, what waits is written. Errors come too late to be raised."""
        if not self._open:
            return
        self._open = False
        try:
            self._readers.shutdown(wait=True, cancel_futures=True)
        finally:
            self._writers.shutdown(wait=True)
        self._ahead.clear()
        for handle in self._handles:
            if handle.tells:
                handle.array.watchers = tuple([watch for watch in handle.array.watchers if not _belongs(watch, self)])
        errors = (future.exception() for _, future in self._behind)
        error = next((error for error in errors if error is not None), None)
        self._behind.clear()
        # Whoever has a block has the loop: not what it has read.
        self._handles, self._places = (), {}
        self._padded.clear()
        self._wrote.clear()
        if late and error is not None and self._on_late_error is not None:
            self._on_late_error(error)

    def close(self) -> None:
        """End the threads of a loop that was not finished."""
        self._end(late=True)

    def settle(self) -> None:
        """Wait until everything is written, and noted.

        Raises
        ------
        PyplantxError, OSError
            What kept the writing thread from it.
        """
        while self._behind:
            result_of(self._behind.popleft()[1])

    def _watch(self, place: int, writes: bool) -> None:
        """Somebody looks at an array otherwise, or writes to it."""
        self.settle()
        if writes:
            self._check_halo(self._handles[place].array)
            self._let_go(place)
            if self._keeper is not None:
                self._keeper.wrote_elsewhere(self._handles[place].array)

    def _check_halo(self, array: Any) -> None:
        """Refuse that an array is written to and read with a halo."""
        if self._open and id(array) in self._padded:
            raise refusal(self._who, self._grid.block(max(0, self._current)))

    def _let_go(self, place: int) -> None:
        """What was read of an array may be old."""
        self._stored.add(place)
        for key in [key for key in self._ahead if key[0] == place]:
            was_cancelled(self._ahead.pop(key))

    # ----------------------------------------------------------------- from block to block

    def _look_ahead(self, indices: Sequence[int]) -> None:
        """Have the next blocks read, and made ready."""
        self._current = indices[0]
        wanted = sorted(self._fetched - self._stored)
        for index in indices:
            for place in (_PREPARED, *wanted):
                if (place, index) not in self._ahead:
                    job = self._prepare if place == _PREPARED else partial(self._read, place)
                    self._ahead[place, index] = self._readers.submit(job, self._grid.block(index))

    def _prepare(self, block: Block) -> None:
        """In the reading thread."""
        if self._keeper is not None:
            self._keeper.blank(block)
        for handle in self._handles:
            handle.expect(block.padded)

    def _read(self, place: int, block: Block) -> Any:
        """In the reading thread."""
        return self._tried("read", block, lambda: self._handles[place].read(block.padded))

    def _ready(self, block: Block) -> None:
        """Wait for what has to be done before the block is handed out."""
        result_of(self._ahead.pop((_PREPARED, block.index)))
        self._fetching = set()

    def look(self, block: Block, parts: Sequence[Any]) -> None:
        """Show the keeper what a function is about to be given; by place."""
        if self._keeper is not None:
            for place in self._keeper.looks:
                self._keeper.given(block, place, parts[place])

    def _look_at(self, block: Block) -> None:
        """`look`, where the body reads for itself."""
        if self._keeper is None:
            return
        for place in self._keeper.looks:
            key = place, block.index
            part = result_of(self._ahead[key]) if key in self._ahead else self._handles[place].part(block.padded)
            self._keeper.given(block, place, part)
        self._keeper.watch(block)

    def finish(self, block: Block) -> None:
        """The reactor is done with a block."""
        for key in [key for key in self._ahead if key[1] == block.index]:  # it was not wanted
            was_cancelled(self._ahead.pop(key))
        self._fetched = self._fetching
        if self._keeper is not None:
            self._write_behind(block, partial(self._note, block, self._keeper.done(block)))
        for handle in self._handles:
            handle.let_go(block)
        self._progress.step(sum(handle.nbytes(block) for handle in self._handles))

    def _note(self, block: Block, note: Note) -> None:
        """In the writing thread."""
        wrote = self._wrote.pop(block.index, {})
        if not self._broken:
            note(wrote)

    # ----------------------------------------------------------------- what blocks ask

    def fetch(self, block: Block, array: Any, padded: bool) -> Any:
        """``array[block]`` or ``array[block.padded]``."""
        place = self._places.get(id(array))
        if padded and self._open and any(self._grid.halo):
            self._padded[id(array)] = array
        if place is None or not self._open:
            self._tell_others(array, writes=False)
            return array.read_block(tuple(block.padded if padded else block))
        if place in self._stored:
            self._check_halo(array)
        self._tell_others(array, writes=False)
        self._fetching.add(place)
        if (place, block.index) in self._ahead:
            found = result_of(self._ahead.pop((place, block.index)))
            return found if padded or found.shape == self._handles[place].region(block) else found[block.inner]
        if place in self._stored:
            self.settle()
        return self._tried("read", block, lambda: array.read_block(tuple(block.padded if padded else block)))

    def store(self, block: Block, array: Any, value: Any) -> None:
        """``array[block] = value``."""
        check_written(value, "the output")  # here, while it is known whose doing it is
        place = self._places.get(id(array))
        self._check_halo(array)
        if place is None or not self._open or block.index != self._current:
            self.settle()
            if self._keeper is not None:
                self._keeper.wrote_elsewhere(array)
            self._tell_others(array, writes=True)
            array.write_block(tuple(block), value)
            return
        if self._keeper is not None and place not in self._keeper.fills:
            self._keeper.wrote_elsewhere(array)
        self.put(block, place, value if _is_unshared(value) else _copied(value))

    def put(self, block: Block, place: int, value: Array, dtype: Any = None) -> None:
        """Have a value written that nobody else has, converted to a dtype first if one is given."""
        handle = self._handles[place]
        if handle.tells:
            self._tell_others(handle.array, writes=True)
        self._let_go(place)
        spread = _spread(value, handle.region(block), self._who)
        self._write_behind(block, partial(self._write, block, place, spread, dtype))
        if handle.asks and not handle.tells:  # somebody could look, and see what was there before
            self.settle()

    def _write_behind(self, block: Block, job: Callable[[], None]) -> None:
        """Have something done in the writing thread, once what belongs to blocks too far behind is done."""
        while self._behind and (self._behind[0][0] <= block.index - _AHEAD or is_over(self._behind[0][1])):
            result_of(self._behind.popleft()[1])
        self._behind.append((block.index, self._writers.submit(job)))

    def _write(self, block: Block, place: int, value: Array, dtype: Any) -> None:
        """In the writing thread. Elements of another dtype are left to the dataset, which has its own rules."""
        import numpy as np

        handle = self._handles[place]
        ready = contiguous(value) if dtype in (None, value.dtype) else np.asarray(value, dtype, order="C")
        try:
            self._tried("written", block, lambda: handle.write(block, ready))
        except BaseException:
            self._broken = True
            raise
        if self._keeper is not None:
            wrote = self._wrote.setdefault(block.index, {})
            wrote.pop(place, None)
            if ready.dtype == handle.dtype:
                wrote[place] = ready

    def _tell_others(self, array: Any, writes: bool) -> None:
        for watch in getattr(array, "watchers", ()):
            if not _belongs(watch, self) and not _walks(watch, self):
                watch(writes)

    # ----------------------------------------------------------------- errors

    def _tried(self, what: str, block: Sequence[slice], job: Callable[[], Any]) -> Any:
        try:
            return job()
        except PyplantxError as error:
            error.add_note(self._words(what, block))
            raise
        except OSError as error:
            from pyplantx.warehouse.files import disk_error

            folder = str(error.filename or ".")
            raise disk_error(error, self._words(what, block), folder) from error

    def _words(self, what: str, block: Sequence[slice]) -> str:
        number = f"block {block.index + 1} of {block.count}" if isinstance(block, Block) else "a block"
        return f"{self._who}: {number} {shown(block)} can't be {what}"


def _belongs(watch: Any, loop: BlockLoop) -> bool:
    return getattr(getattr(watch, "func", None), "__self__", None) is loop


def _walks(watch: Any, loop: BlockLoop) -> bool:
    """Whether who watches are the passes over an array of which this loop is the present one."""
    return getattr(getattr(watch, "__self__", None), "walker", None) is loop


# -- values that wait -------------------------------------------------------------------------------


def _spread(value: Array, region: tuple[int, ...], who: str) -> Array:
    """The value with the shape of its block."""
    import numpy as np

    if value.shape == region:
        return value
    try:
        return np.broadcast_to(value, region)
    except ValueError:
        raise BadRequest(
            f"{who}: a value of the shape {value.shape} was assigned to a block of the shape {region}",
            hint="with a halo: dst[b] = result[b.inner]",
        ) from None


def _copied(value: Any) -> Array:
    import numpy as np

    return copied(value) if isinstance(value, np.ndarray) else np.array(value)


def _is_unshared(value: Any) -> bool:
    """Whether nobody but us can have this array, so that it may wait without being copied.

    True only for ``dst[b] = <expression>`` in CPython up to 3.13, of a fresh array with memory of its own: then the
    references to it are those of that very instruction, of the dataset's ``__setitem__``, of `Block.store`, of
    `BlockLoop.store` and ours. How many these are is counted on a like way, since a debugger may add some.
    """
    caller = sys._getframe(4)
    stores = caller.f_code.co_code[caller.f_lasti] == _STORE
    return stores and sys.getrefcount(value) <= _references_to_nothing_else() and is_whole(value)


def is_whole(value: Any) -> bool:
    """Whether it has memory of its own and its references tell who has it."""
    import numpy as np

    if not _COUNTABLE or type(value) is not np.ndarray or value.base is not None:
        return False
    return bool(value.flags.owndata) and not weakref.getweakrefcount(value)


#: From 3.14 on, and without the interpreter lock, a value may be had without a reference that counts.
_COUNTABLE = (
    sys.implementation.name == "cpython"
    and sys.version_info < (3, 14)
    and getattr(sys, "_is_gil_enabled", lambda: True)()
)


def _references_to_nothing_else() -> int:
    """How many references there are to a temporary value that has come the way of `_is_unshared`."""
    probe = _Probe()
    probe[probe] = [None]
    return probe.count


class _Probe:
    """Dataset, block and loop in one, to count references."""

    count = 0

    def __setitem__(self, selection: Any, value: Any) -> None:
        store = getattr(selection, "store", None)
        if store is not None:
            store(self, value)

    def store(self, array: Any, value: Any) -> None:
        array.store_in_loop(self, array, value)

    def store_in_loop(self, block: Any, array: Any, value: Any) -> None:
        self._look(value)

    def _look(self, value: Any) -> None:
        self.count = sys.getrefcount(value)

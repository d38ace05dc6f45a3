"""map_blocks and reduce_blocks: the loop over blocks with its body in our hands.

This file may know: loops, blocks, threads that call functions. It may not know: runs, workspaces, who else calls them.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Any

from pyplantx.basics.helping import helping
from pyplantx.basics.logs import log
from pyplantx.basics.tuples import NamedTuple
from pyplantx.blocks.geometry import Block, shown
from pyplantx.blocks.handles import Handle
from pyplantx.blocks.loop import BlockLoop, is_whole
from pyplantx.errors import BadRequest, add_note
from pyplantx.fingerprint.arrays import copied
from pyplantx.runs.deadlines import Calls
from pyplantx.specs.masks import hides_elements
from pyplantx.specs.pools import SteadyPool, result_of, was_cancelled
from pyplantx.specs.sparserows import is_sparse

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_PATIENCE = 0.3  #: seconds for threads to end after Ctrl-C

#: A block, and what goes into the function for it.
Work = tuple[Block, "list[Any]"]

#: A block, and the function's result in a list of its own, so that nobody but who takes it out has it.
Done = tuple[Block, "list[Any]"]


class Hands(NamedTuple):
    """Who calls the function.

    Attributes
    ----------
    open : callable
        Begins: a context manager, which gives the function to be called. It ends the calls that are under way when it
        is left by an exception.
    sources : list of Handle
        What the function is given parts of.
    threads : int
        How many call it at once; with 1 the reactor's own thread does.
    ahead : int
        How many blocks wait besides, so that nobody waits for the slowest one.
    elsewhere : bool
        Whether the function has copies of what it works on.
    fixed : bool
        Whether so many were asked for.
    """

    open: Callable[[], AbstractContextManager[Callable[..., Any]]]
    sources: list[Handle]
    threads: int = 1
    ahead: int = 0
    elsewhere: bool = False
    fixed: bool = True

    @property
    def more(self) -> int:
        """Blocks in flight besides those of a loop whose body is the reactor's."""
        return self.threads - 1 + self.ahead + (self.threads if self.elsewhere else 0)

    def fewer(self) -> Hands | None:
        """Half of them; None if there is but one, or so many were asked for."""
        if self.fixed or self.threads == 1 and not self.ahead:
            return None
        return self._replace(threads=max(1, self.threads // 2), ahead=self.ahead // 2)

    def apply(self, work: Iterator[Work]) -> Generator[Done, None, None]:
        """Call the function with each piece of work, perhaps with several at once; the results in order."""
        if self.threads == 1 and not self.ahead:
            return self._one_by_one(work)
        return self._several_at_once(work)

    def _one_by_one(self, work: Iterator[Work]) -> Generator[Done, None, None]:
        with self.open() as function:
            for block, parts in work:
                box = [_applied(function, block, parts)]
                parts.clear()
                yield block, box

    def _several_at_once(self, work: Iterator[Work]) -> Generator[Done, None, None]:
        # No names for futures: an error has this frame, and the future has the error; that would keep the run's arrays.
        running: deque[tuple[Block, Future[Any]]] = deque()
        me, calls = threading.get_ident(), Calls()
        with _threads(self.threads, calls) as pool, self.open() as function:
            try:
                for block, parts in work:
                    running.append((block, pool.submit(calls.call, helping, me, _applied, function, block, parts)))
                    if len(running) >= self.threads + self.ahead:
                        yield _taken(running)
                while running:
                    yield _taken(running)
            finally:
                while running:
                    was_cancelled(running.popleft()[1])


@contextmanager
def _threads(count: int, calls: Calls) -> Iterator[SteadyPool]:
    """Threads that have ended when the ``with`` block is over.

    After Ctrl-C, or when the reactor's time is over, what they do is ended, and those that can't be are left behind:
    nobody wants what they compute. After an error they may end what they have begun.
    """
    pool = SteadyPool(count, "pyplantx-map")
    try:
        try:
            yield pool
        except BaseException as error:
            if _is_interrupt(error):
                raise
            pool.shutdown()
            raise
        pool.shutdown()
    except BaseException as error:
        if _is_interrupt(error):
            _leave(pool, calls)
        raise


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is meant to end what is under way, or a generator is closed because of such a one."""
    while isinstance(error, GeneratorExit):
        error = error.__context__
    return error is not None and not isinstance(error, Exception)


def _leave(pool: SteadyPool, calls: Calls) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    calls.end()
    if not pool.has_ended(_PATIENCE):
        log().warning(
            "a function of a loop can't be interrupted where it is: its thread goes on, and what it makes is not used"
        )


def _applied(function: Callable[..., Any], block: Block, parts: list[Any]) -> Any:
    try:
        return function(*parts)
    except Exception as error:
        add_note(error, f"in {block!r}")
        if isinstance(error, ValueError) and "read-only" in str(error):  # in NumPy's words
            add_note(
                error, "the blocks that the function gets can't be written to: return a new array, or copy it first"
            )
        raise


def _taken(running: deque[tuple[Block, Future[Any]]]) -> Done:
    return running[0][0], [result_of(running.popleft()[1])]


def map_blocks(loop: BlockLoop, hands: Hands, out: Handle, place: int) -> None:
    """Write ``function(*parts of the sources)`` to each block of `out`.

    Parameters
    ----------
    loop : BlockLoop
        Over the sources and `out`.
    hands : Hands
        Who calls the function, and with parts of which arrays. It gets one array per source: the block with its halo,
        read-only if it is part of a memory map.
    out : Handle
        What is written.
    place : int
        Of `out` in the loop.

    Raises
    ------
    BadRequest
        If a result does not go into its block.
    """
    with loop.running(), closing(hands.apply(_work(loop, hands.sources))) as done:
        for block, box in done:
            value = _fitted(box, block, out)
            loop.put(block, place, value, out.made_from(value.dtype))
            del value  # it waits, and nobody else has it
            loop.finish(block)


def reduce_blocks(
    loop: BlockLoop,
    hands: Hands,
    combine: Callable[[Any, Any], Any],
    initial: list[Any],
    keep: Callable[[Block, Any], None],
) -> list[Any]:
    """Combine ``function(*parts of the sources)`` of all blocks, in their order.

    Parameters
    ----------
    loop, hands
        As in `map_blocks`.
    combine : callable
        Of the value so far and a block's value.
    initial : list
        The value to begin with; empty: the first block's.
    keep : callable
        Told of the value after each block.

    Returns
    -------
    list
        The value; empty if there was none.
    """
    total = initial
    with loop.running(), closing(hands.apply(_work(loop, hands.sources))) as done:
        for block, box in done:
            total = [combine(total[0], box.pop())] if total else [box.pop()]
            keep(block, total[0])
            loop.finish(block)
    return total


def _work(loop: BlockLoop, sources: Sequence[Handle]) -> Iterator[Work]:
    for block in loop.blocks():
        parts = [_part(loop, handle, block) for handle in sources]
        loop.look(block, parts)
        yield block, parts
        del parts  # the function has them, and perhaps nobody else


def _part(loop: BlockLoop, handle: Handle, block: Block) -> Any:
    if handle.asks:
        return loop.fetch(block, handle.array, padded=True)
    return handle.part(block.padded)


def _fitted(box: list[Any], block: Block, out: Handle) -> Array:
    """A result without its halo, that nobody else has."""
    import numpy as np

    result = box.pop()
    unshared = is_whole(result) and sys.getrefcount(result) <= 2  # ours, and that of the question
    value = np.asarray(result)
    shape, padded = out.region(block), out.region(block.padded)
    where = f"block {block.index + 1} of {block.count} {shown(block)}"
    if hides_elements(result):
        raise BadRequest(
            f"the function of map_blocks returned masked elements for {where}: they would become numbers",
            hint="return result.filled(...)",
        )
    if result is None:
        raise BadRequest(
            f"the function of map_blocks returned None for {where}", hint="return what is to be written there"
        )
    if is_sparse(result):  # NumPy takes one for a single object
        raise BadRequest(
            f"the function of map_blocks returned a sparse matrix of the shape {result.shape} for {where}",
            hint="return result.toarray(): blocks are dense",
        )
    if value.shape not in (shape, padded):
        or_padded = f" (or {padded}, with its halo)" if padded != shape else ""
        raise BadRequest(
            f"the function of map_blocks returned an array of the shape {value.shape} for {where} of an output of "
            f"{out.shape}; it should be {shape}{or_padded}",
            hint="return one element for each of the block",
        )
    if not np.can_cast(value.dtype, out.dtype, "same_kind"):
        other = "" if value.dtype.hasobject else f", or allocate the output with dtype={str(value.dtype)!r}"
        raise BadRequest(
            f"the function of map_blocks returned {value.dtype} for {where}, the output is {out.dtype}",
            hint=f"return result.astype({str(out.dtype)!r}){other}",
        )
    trimmed = value if value.shape == shape else value[block.inner]
    return trimmed if unshared else copied(trimmed)

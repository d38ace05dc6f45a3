"""map_blocks and reduce_blocks: the loop over blocks with its body in our hands.

This file may know: loops, blocks, threads that compute. It may not know: runs, workspaces.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pyplantx.blocks.geometry import Block, shown
from pyplantx.blocks.handles import Handle
from pyplantx.blocks.loop import BlockLoop, is_whole
from pyplantx.errors import BadRequest
from pyplantx.specs.pools import SteadyPool

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

#: A block, and what goes into the function for it.
Work = tuple[Block, "list[Any]"]

#: Applies a function to each piece of work, perhaps to several at once; gives block and result in order, the result in
#: a list of its own, so that nobody but who takes it out has it. An executor with workers elsewhere brings another one.
Map = Callable[[Callable[..., Any], Iterator[Work]], Iterator["tuple[Block, list[Any]]"]]


def one_by_one(function: Callable[..., Any], work: Iterator[Work]) -> Iterator[tuple[Block, list[Any]]]:
    """In the reactor's own thread."""
    for block, parts in work:
        box = [_applied(function, block, parts)]
        parts.clear()
        yield block, box


def _applied(function: Callable[..., Any], block: Block, parts: list[Any]) -> Any:
    try:
        return function(*parts)
    except Exception as error:
        error.add_note(f"in {block!r}")
        raise


def by_threads(workers: int) -> Map:
    """By several threads; `workers` pieces of work at once."""
    if workers < 1:
        raise BadRequest(f"workers={workers!r} is not a number of threads", hint="workers=1: the reactor's own thread")
    if workers == 1:
        return one_by_one

    def mapped(function: Callable[..., Any], work: Iterator[Work]) -> Iterator[tuple[Block, list[Any]]]:
        with SteadyPool(workers, "pyplantx-map") as pool:
            running: deque[tuple[Block, Future[Any]]] = deque()
            try:
                for block, parts in work:
                    running.append((block, pool.submit(_applied, function, block, parts)))
                    if len(running) >= workers:
                        yield _taken(running)
                while running:
                    yield _taken(running)
            finally:
                for _, future in running:
                    future.cancel()

    return mapped


def _taken(running: deque[tuple[Block, Future[Any]]]) -> tuple[Block, list[Any]]:
    block, future = running.popleft()
    return block, [future.result()]


def map_blocks(
    loop: BlockLoop, function: Callable[..., Any], sources: Sequence[Handle], out: Handle, place: int, apply: Map
) -> None:
    """Write ``function(*parts of the sources)`` to each block of `out`.

    Parameters
    ----------
    loop : BlockLoop
        Over the sources and `out`.
    function : callable
        Gets one array per source: the block with its halo, read-only if it is part of a memory map.
    sources, out : Handle
        The arrays.
    place : int
        Of `out` in the loop.
    apply : callable
        See `Map`.

    Raises
    ------
    BadRequest
        If a result does not go into its block.
    """
    with loop.running():
        for block, box in apply(function, _work(loop, sources)):
            loop.put(block, place, _fitted(box, block, out), out.dtype)
            loop.finish(block)


def reduce_blocks(
    loop: BlockLoop,
    function: Callable[..., Any],
    sources: Sequence[Handle],
    combine: Callable[[Any, Any], Any],
    initial: list[Any],
    apply: Map,
    keep: Callable[[Block, Any], None],
) -> list[Any]:
    """Combine ``function(*parts of the sources)`` of all blocks, in their order.

    Parameters
    ----------
    loop, function, sources, apply
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
    with loop.running():
        for block, box in apply(function, _work(loop, sources)):
            total = [combine(total[0], box.pop())] if total else [box.pop()]
            keep(block, total[0])
            loop.finish(block)
    return total


def _work(loop: BlockLoop, sources: Sequence[Handle]) -> Iterator[Work]:
    for block in loop.blocks():
        yield block, [_part(loop, handle, block) for handle in sources]


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
    if result is None:
        raise BadRequest(
            f"the function of map_blocks returned None for {where}", hint="return what is to be written there"
        )
    if value.shape not in (shape, padded):
        or_padded = f" (or {padded}, with its halo)" if padded != shape else ""
        raise BadRequest(
            f"the function of map_blocks returned an array of the shape {value.shape} for {where} of an output of "
            f"{out.shape}; it should be {shape}{or_padded}"
        )
    if not np.can_cast(value.dtype, out.dtype, "same_kind"):
        raise BadRequest(
            f"the function of map_blocks returned {value.dtype} for {where}, the output is {out.dtype}",
            hint=f"return result.astype({str(out.dtype)!r}), or allocate the output with dtype={str(value.dtype)!r}",
        )
    trimmed = value if value.shape == shape else value[block.inner]
    return trimmed if unshared else trimmed.copy()

"""A loop that fills arrays and goes on after a kill: which blocks were finished, and which of them still hold.

This file may know: logbooks, outputs, sources, handles. It may not know: how ledgers are kept, the threads of a loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pyplantx.basics.logs import log
from pyplantx.blocks.handles import in_c_order, weakly
from pyplantx.blocks.loop import note_nothing
from pyplantx.blocks.outputs import Output, Rewritten, SharedFile, Spool
from pyplantx.core.trace import Digest
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.value import hash_text
from pyplantx.specs.pools import FilterPool

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.blocks.alterations import Others
    from pyplantx.blocks.captured import Look
    from pyplantx.blocks.geometry import Block, Grid
    from pyplantx.blocks.handles import Handle
    from pyplantx.blocks.logbook import Logbook
    from pyplantx.blocks.loop import Note
    from pyplantx.blocks.passes import Passes
    from pyplantx.blocks.sources import Sources

    Array = np.ndarray[Any, np.dtype[Any]]

_WIDTH = 16  #: bytes of a digest


class Attempt:
    """One loop that fills arrays and can go on after a kill. The `Keeper` of a `BlockLoop`.

    Parameters
    ----------
    logbook : Logbook
        Its ledger.
    grid : Grid
        Its blocks.
    outputs : dict
        Place in the loop -> the array; all untouched, but for that of a later pass.
    sources : Sources
        What it reads besides.
    look : callable, optional
        Of a map: see `Captured.look`. Its blocks hang on nothing but their parts of the sources.
    others : Others, optional
        Of a plain loop: what its body must not write to.
    in_place : bool
        Whether an output is read. In a map that is not so, blocks are written as a whole, whatever was in them; else
        what a killed run left there is blanked.
    passes : Passes, optional
        Over its only output, if it is one of several.

    Attributes
    ----------
    passes
        As given.
    finished : frozenset of int
        Blocks that need not be done again.
    fills, looks
        See `Keeper`.
    """

    def __init__(
        self,
        logbook: Logbook,
        grid: Grid,
        outputs: dict[int, Handle],
        sources: Sources,
        look: Look | None = None,
        others: Others | None = None,
        in_place: bool = True,
        passes: Passes | None = None,
    ) -> None:
        self.passes = passes
        self._number = 1 if passes is None else passes.number
        self.logbook, self._grid, self._handles, self._look = logbook, grid, outputs, look
        # From its end on it has none of them: who lets go of scratch space wants its room.
        self._arrays = {place: weakly(handle.array) for place, handle in outputs.items()}
        self._allocations = {place: handle.allocation for place, handle in outputs.items()}
        self._others = others
        # What the body has in its hands as memory it can write to anywhere, and nothing tells of it.
        self._bare = {place: handle for place, handle in outputs.items() if look is None and not handle.asks}
        self._unsent = set(outputs)
        self._sources, self.looks, self.fills = sources, sources.places, frozenset(outputs)
        self._outputs = {place: self._output(handle, place) for place, handle in outputs.items()}
        self.finished: frozenset[int] = frozenset()
        self._done = self._sure = 0  # blocks that are done; those up to which the function is known to have no state
        self._unsure: deque[tuple[int, dict[str, Any]]] = deque()
        self._soiled = False
        self._written = Digests(grid.size, len(outputs))  # of all blocks that are done
        self._marks: dict[int, object] = {}  # the last write to each output when the loop was over
        try:
            if logbook.entries:
                if passes is not None and self._number == 1:
                    passes.expect(logbook.later())
                self._take_up()
                logbook.entries.clear()  # a line for each block that was finished
                self._soiled = in_place
                self._blank_bare()
            for output in self._outputs.values():
                output.begin()
        except OSError as error:  # a file system without second names, say
            logbook.give_up(error)
        if passes is not None and self._number == 1:
            passes.begin()
        elif passes is not None:
            passes.take(self.finished)

    def _output(self, handle: Handle, place: int) -> Output:
        if self.passes is not None:
            first = self._number == 1
            return SharedFile(handle, self.logbook, place, self.passes) if first else Rewritten(handle, self.passes)
        return (SharedFile if handle.data_path else Spool)(handle, self.logbook, place)

    def _take_up(self) -> None:
        who = self.logbook.who
        try:
            for output in self._outputs.values():
                output.take_up()
        except (OSError, PyplantxError) as error:
            log().warning("%s: what an interrupted run has left can't be used, it is done again: %s", who, error)
            self.logbook.begin()
            return
        count = len(self._outputs)
        lines = [entry for entry in self.logbook.entries if len(entry.get("wrote", ())) == count]
        wrote = self._of_the_same(lines)
        with FilterPool(2, "pyplantx-check") as pool:
            whole = list(pool.map(self._is_whole, wrote.items()))
        self.finished = frozenset(index for index, good in zip(wrote, whole) if good)
        for index in self.finished:
            self._written.put(index, wrote[index])
        if self._number > 1:
            return self._go_on_with_pass()
        damaged = len(wrote) - len(self.finished)
        if self._bare and (damaged or self._is_anything_ahead()):
            log().info(
                "%s: blocks of an interrupted run were written to by others, or damaged: the loop begins anew", who
            )
            return self._begin_anew()
        if self._bare:
            self.finished = frozenset(filter(self._is_restored, self.finished))
        if damaged and len(wrote) == self._grid.size and not self._has_copies:
            # The loop had ended, so what came after it may have written to the same file, a second map in place, say.
            log().info(
                "%s: %d blocks of a finished loop were written to after it, or damaged, and are done again",
                who,
                damaged,
            )
        elif damaged:
            log().warning(
                "%s: %d blocks of an interrupted run don't match their checksums and are done again", who, damaged
            )
        log().info("%s: %d of %d blocks were finished by an interrupted run", who, len(self.finished), self._grid.size)

    def _go_on_with_pass(self) -> None:
        """What the first pass has done again is as the pass before has left it."""
        if not self.finished:
            self.logbook.begin()
        log().info(
            "%s: %d of %d blocks had been through pass %d over the array",
            self.logbook.who,
            len(self.finished),
            self._grid.size,
            self._number,
        )

    def _of_the_same(self, lines: Sequence[dict[str, Any]]) -> dict[int, list[Digest]]:
        """Blocks whose sources are what they were, with what was written to them."""
        last = {entry["block"]: entry for entry in lines if entry["block"] < self._grid.size}
        if not self.looks:
            return {index: entry["wrote"] for index, entry in last.items()}
        blocks = map(self._grid.block, last)
        found = {block.index for block in blocks if self._sources.of(block) == last[block.index]["read"]}
        others = len(last) - len(found)
        if others:
            log().info(
                "%s: %d finished blocks were made from something else than is there now, and are done again",
                self.logbook.who,
                others,
            )
        if others and self._look is None:  # the body can read whatever it likes of them
            self._begin_anew()
            return {}
        return {index: entry["wrote"] for index, entry in last.items() if index in found}

    def _begin_anew(self) -> None:
        self.logbook.begin()
        self.finished, self._written = frozenset(), Digests(self._grid.size, len(self._outputs))

    def _is_anything_ahead(self) -> bool:
        """Whether the killed run has written to blocks that its body had not been given yet."""
        begun = self.logbook.workspace.begun()
        blocks = [self._grid.block(index) for index in range(begun + 1, self._grid.size)]
        return any(_has_anything(handle.read(block)) for handle in self._bare.values() for block in blocks)

    def _blank_bare(self) -> None:
        """As `blank`, at once: the body may write to the last block when it has the first one."""
        blocks = [self._grid.block(index) for index in range(self._grid.size) if index not in self.finished]
        for handle in self._bare.values():
            for block in blocks:
                if _has_anything(handle.read(block)):
                    handle.write(block, _zeros(handle.region(block), handle.dtype))

    def _is_whole(self, written: tuple[int, Sequence[Digest]]) -> bool:
        index, digests = written
        block = self._grid.block(index)
        try:
            if not all(output.is_whole(block, digest) for output, digest in zip(self._outputs.values(), digests)):
                return False
        except (OSError, ValueError, PyplantxError) as error:
            log().debug("block %d can't be read back: %s", index, error)
            return False
        return bool(self._bare) or self._is_restored(index)  # all decide whether any of them is of use

    def _is_restored(self, index: int) -> bool:
        """Put a block that is whole where it belongs; whether that can be done."""
        try:
            for output in self._outputs.values():
                output.restore(self._grid.block(index))
        except (OSError, ValueError, PyplantxError) as error:
            log().debug("block %d can't be written: %s", index, error)
            return False
        return True

    def blank(self, block: Block) -> None:
        """See `Keeper.blank`."""
        if not self._soiled:
            return
        for place, handle in self._handles.items():
            is_shared = place not in self._bare and isinstance(self._outputs[place], SharedFile)
            if is_shared and _has_anything(handle.read(block)):
                handle.write(block, _zeros(handle.region(block), handle.dtype))

    def done(self, block: Block) -> Note:
        """See `Keeper.done`."""
        saw = self.logbook.saw()
        if not self.logbook.going:
            return note_nothing
        read = self._sources.taken(block)
        if self._number > 1 and self.passes is not None and not self.passes.go_on:
            self.logbook.void()
            return note_nothing
        if self._sources.is_altered(block) or self._others is not None and self._others.are_altered():
            self.wrote_elsewhere(None)
            return note_nothing
        if read is None:
            self.logbook.has_no_words()
            return note_nothing
        self._done = number = self._done + 1
        is_same = True if self._look is None else self._look()
        if is_same is False:
            self.logbook.has_state()
            return note_nothing
        self._sure = number if is_same else self._sure
        # Now: the body of the next block may write to this one.
        known = {place: self._outputs[place].finished(block, None) for place in self._bare}

        def note(written: dict[int, Array]) -> None:
            if self.logbook.is_broken:  # by the block before: copies of this one would stay, and nobody want them
                return
            try:
                wrote = list(self._digests(block, written, known))
                self._written.put(block.index, wrote)
                entry = {"block": block.index, "wrote": wrote, "read": read, "saw": saw}
                self._unsure.append((number, entry))
                while self._unsure and self._unsure[0][0] <= self._sure:
                    self.logbook.add(self._unsure.popleft()[1])
            except OSError as error:
                self._give_up(error)

        return note

    def _give_up(self, error: OSError) -> None:
        """There is no room for what is kept: the run needs it more."""
        self.logbook.give_up(error)
        if self._has_copies:
            self.logbook.void()

    @property
    def _has_copies(self) -> bool:
        return any(isinstance(output, Spool) for output in self._outputs.values())

    def _digests(self, block: Block, written: dict[int, Array], known: dict[int, Digest]) -> Iterator[Digest]:
        for place, output in self._outputs.items():
            yield known[place] if place in known else output.finished(block, written.get(place))

    def over(self) -> None:
        """The loop has ended, and writes nothing more. What it has read and filled is not kept any more."""
        self._sources.let_go()
        self._look = self._others = None
        if self.passes is not None:
            self.passes.end()
        self._marks = {place: getattr(handle.array, "last_write", None) for place, handle in self._handles.items()}
        self._handles, self._bare = {}, {}
        for output in self._outputs.values():
            output.over()

    def content_of(self, array: Any) -> Digest | None:
        """The digest of an output that all blocks have filled, and nobody has written to since; else None."""
        for number, (place, look) in enumerate(self._arrays.items()):
            mark = self._marks.get(place)
            if look() is array and mark is not None and mark is array.last_write:
                wrote = self._written.of_output(number)
                return None if wrote is None else hash_text("\n".join([str(self._grid), *wrote]))
        return None

    def left(self, array: Any) -> Digest | None:
        """The digest of what this pass has left in an array; None if it is not through, or others wrote there."""
        for place, look in self._arrays.items():
            if look() is array and place in self._marks and self._marks[place] is array.last_write:
                wrote = self._written.of_output(0)
                return None if wrote is None or self.logbook.is_broken else hash_text("\n".join(wrote))
        return None

    def given(self, block: Block, place: int, part: Any) -> None:
        """See `Keeper.given`."""
        if self.logbook.going:
            self._sources.give(block, place, part)

    def watch(self, block: Block) -> None:
        """See `Keeper.watch`."""
        if not self.logbook.going:
            return
        if any(_has_anything(handle.read(block)) for handle in self._bare.values()):
            return self.wrote_elsewhere(None)  # an earlier block did
        if self._bare:
            self._note_begun(block)
        self._sources.watch(block)

    def _note_begun(self, block: Block) -> None:
        try:
            self.logbook.workspace.begin(block.index)
        except OSError as error:
            self.logbook.give_up(error)
            self.logbook.void()

    def wrote_elsewhere(self, array: Any) -> None:
        """See `Keeper.wrote_elsewhere`: what is in the array is no longer known from its blocks."""
        if self.logbook.going:
            log().warning(
                "%s: a loop with resume=True writes otherwise than dst[block] = ... to arrays that were allocated and "
                "not written to before, and can't be resumed",
                self.logbook.who,
            )
            self.logbook.void()

    def kept_elsewhere(self) -> None:
        """See `Keeper.kept_elsewhere`."""
        self.logbook.keeps_more()

    def before_send(self, array: Any) -> None:
        """An array is about to be sent: it must not be altered through our name of its file any more."""
        for place, look in self._arrays.items():
            if look() is array:
                if self.passes is not None:
                    self.passes.look()
                self._allocations[place].before_publishing.append(self._outputs[place].sealing)

    def sent(self, array: Any, address: Digest) -> None:
        """Where an array has gone that was sent."""
        for place, output in self._outputs.items():
            if self._arrays[place]() is not array:
                continue
            self._unsent.discard(place)
            if isinstance(output, SharedFile):
                self.logbook.add({"sealed": place, "address": address, "part": output.part, "saw": []})
        if not self._unsent:  # whoever has a block has the loop, and this: not the arrays
            self._handles, self._outputs = {}, {}
            self._arrays, self._allocations = {}, {}

    @property
    def is_later(self) -> bool:
        """Whether it is a later pass over an array."""
        return self._number > 1

    @property
    def is_done_with(self) -> bool:
        """Whether all that it fills was sent, or nobody has it any more: it is asked for nothing more."""
        return all(self._arrays[place]() is None for place in self._unsent)


class Digests:
    """Of each output in each block, as 16 bytes: there may be millions of blocks.

    Parameters
    ----------
    blocks, outputs : int
        How many there are.
    """

    def __init__(self, blocks: int, outputs: int) -> None:
        self._blocks, self._outputs = blocks, outputs
        self._packed = bytearray(blocks * outputs * _WIDTH)
        self._known = bytearray(blocks)

    def put(self, block: int, digests: Sequence[Digest]) -> None:
        """What was written to the outputs in a block."""
        start = block * self._outputs * _WIDTH
        self._packed[start : start + self._outputs * _WIDTH] = bytes.fromhex("".join(digests))
        self._known[block] = 1

    def of_output(self, number: int) -> Iterator[Digest] | None:
        """Those of one output in all blocks; None if not all are known."""
        if not all(self._known):
            return None
        step = self._outputs * _WIDTH
        starts = range(number * _WIDTH, self._blocks * step, step)
        return (self._packed[start : start + _WIDTH].hex() for start in starts)


def _has_anything(values: Any) -> bool:
    return bool(in_c_order(values).any())


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    import numpy as np

    return np.zeros(shape, dtype)

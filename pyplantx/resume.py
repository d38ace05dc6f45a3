"""Going on after a kill: what an interrupted run has left of a loop or a value, and whether it still holds.

A `Workspace` is found by a key that is the digest of all that the run has observed and sent so far, so what it holds
was made by a run that had the same answers. What was observed *after* that stands in its ledger, is asked again, and
ends the ledger where an answer differs. Nothing is believed for being there: each finished block is read back and
compared with its digest.

This file may know: workspaces, ledgers, observations, handles. It may not know: generators, how a run is stepped.

The lines of a ledger, as JSON objects:

- ``{"format": 2, "reactor": id}``: the first one;
- ``{"block": n, "wrote": [digest per output], "read": [digest per source], "saw": [[kind, key, answer, shown], ...]}``:
  a block is finished; of the sources only those of which nothing else tells (`pyplantx.blocks.sources`);
- ``{"block": n, "value": {...}, "read": [digest], "saw": [...]}``: a reduction has come so far, over all it has read;
- ``{"value": {...}, "saw": [...]}``: a checkpoint;
- ``{"sealed": place, "address": ..., "part": ..., "saw": []}``: an output was sent, and its file moved there.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.blocks.handles import digest_of
from pyplantx.blocks.sources import folded
from pyplantx.core.trace import Digest, Group, Observation, Question, Step, branch_key
from pyplantx.errors import DamagedObject, PyplantxError
from pyplantx.fingerprint.value import hash_text
from pyplantx.logs import log
from pyplantx.specs.pools import Pool
from pyplantx.warehouse.files import read_ordinary

if TYPE_CHECKING:
    import numpy as np

    from pyplantx.blocks.alterations import Others
    from pyplantx.blocks.geometry import Block, Grid
    from pyplantx.blocks.handles import Handle
    from pyplantx.blocks.sources import Sources
    from pyplantx.warehouse.resume import Workspace, Workspaces

    Array = np.ndarray[Any, np.dtype[Any]]

_FORMAT = 2

#: A value is saved when so many times as much time has passed as that takes.
WORTH = 20.0

#: Bytes that copies of blocks leave free besides what the array itself may need.
SPARE = 64 << 20


class Look(Protocol):
    """Whether functions of blocks are what they were; None if it is not time to look. See `Captured.look`."""

    def __call__(self, now: bool = False) -> bool | None: ...


class Host(Protocol):
    """What is needed of a run."""

    @property
    def reactor(self) -> Any: ...
    def so_far(self) -> tuple[Digest, Sequence[Step]] | None: ...
    def recent(self) -> Sequence[Step]: ...
    def note(self, observation: Observation) -> None: ...
    def answer(self, question: Question) -> Observation: ...
    def has_right_inputs(self) -> bool: ...


def place_of(host: Host, what: str) -> Digest | None:
    """The key of the present point of a run; None if it can't be told, or is not to be relied on.

    Parameters
    ----------
    host : Host
        The run.
    what : str
        Tells several pieces of work at one point apart.
    """
    known = host.so_far()
    if known is None:
        return None
    root, steps = known
    return hash_text(f"{branch_key(root, steps, hash_text)}\n{what}")


class Logbook:
    """The ledger of one workspace, as a run writes it and as a later one reads it.

    Parameters
    ----------
    host : Host
        The run.
    spaces : Workspaces
        Where the workspace is from.
    workspace : Workspace
        With what an earlier run left.

    Attributes
    ----------
    entries : list of dict
        Lines whose observations hold today (noted again in the run), without the first.
    going : bool
        Whether what comes now may be noted.
    """

    def __init__(self, host: Host, spaces: Workspaces, workspace: Workspace) -> None:
        self._host, self._spaces, self.workspace = host, spaces, workspace
        self.entries: list[dict[str, Any]] = []
        self.going, self._broken = True, False
        self._held: list[dict[str, Any]] = []  # lines that wait until what they were made from is known to be right
        self._mark = len(host.recent())
        if self._is_ours():
            self._take_up(workspace.ledger.entries[1:])
        else:
            self.begin()

    def begin(self) -> None:
        """Nothing of an earlier run is of use."""
        self.entries.clear()
        self.workspace.clear()
        self.workspace.ledger.append({"format": _FORMAT, "reactor": self._host.reactor.id})

    def _is_ours(self) -> bool:
        written = self.workspace.ledger.entries
        return bool(written) and written[0].get("format") == _FORMAT

    def _take_up(self, entries: Sequence[dict[str, Any]]) -> None:
        for position, entry in enumerate(entries):
            saw = [Observation(*observation) for observation in entry["saw"]] if _makes_sense(entry) else None
            if saw is None or any(self._host.answer(seen.question).answer != seen.answer for seen in saw):
                self.workspace.ledger.cut(1 + position)
                break
            for observation in saw:
                self._host.note(observation)
            self.entries.append(entry)
        self._mark = len(self._host.recent())

    def saw(self) -> list[list[str]]:
        """What the run has observed since it was asked last."""
        steps = self._host.recent()[self._mark :]
        self._mark += len(steps)
        return [list(observation) for step in steps if isinstance(step, Group) for observation in step.observations]

    def add(self, entry: dict[str, Any]) -> None:
        """Add a line. If the disk does not take it, no more are added: the run does not depend on it."""
        if not self._broken:
            self._held.append(entry)
            self._write_held()

    def _write_held(self) -> None:
        """What was received may be checked beside the computation: nothing is noted that damage could have got into."""
        if not self._held or not self._host.has_right_inputs():
            return
        held, self._held = self._held, []
        try:
            for entry in held:
                self.workspace.ledger.append(entry)
        except OSError as error:
            self.give_up(error)

    def add_value(self, entry: dict[str, Any]) -> None:
        """Add a line about a value; of the values before, the last one stays."""
        lines = [*self.workspace.ledger.entries, *self._held]
        before = [line["value"] for line in lines[1:] if "value" in line]
        self.add(entry)
        if len(before) > 1 and not self._held:
            self.workspace.remove_value(before[-2])

    def give_up(self, error: BaseException) -> None:
        """Nothing more can be noted. The run does not depend on it."""
        self.going, self._broken = False, True
        reason = getattr(error, "strerror", None) or error
        log().warning("reactor %s goes on, but could not be resumed from here: %s", self._host.reactor.name, reason)

    def has_state(self) -> None:
        """A function has changed what it can reach: blocks that it had finished would not do so again."""
        name = self._host.reactor.name
        log().info("reactor %s: a function of blocks has a state, so after a kill it begins anew", name)
        self.void()

    def has_no_words(self) -> None:
        """Something that was read can't be told from anything else that might be there next time."""
        name = self._host.reactor.name
        log().info("reactor %s: a source has elements that have no digest, so after a kill it begins anew", name)
        self.void()

    def keeps_more(self) -> None:
        """A value is kept, or asked for, by who is given the blocks: those that are left out would not do that."""
        if self.going:
            name = self._host.reactor.name
            log().warning("reactor %s: a loop that calls pipe.checkpoint can't be resumed after a kill", name)
            self.void()

    def void(self) -> None:
        """What was noted is of no use to anybody."""
        self.going, self._broken = False, True
        self._held.clear()
        self.workspace.clear()

    @property
    def lines(self) -> int:
        """How many lines there are, with those that wait."""
        return len(self.workspace.ledger.entries) + len(self._held)

    @property
    def is_empty(self) -> bool:
        """Whether a later run would find nothing in it."""
        return len(self.workspace.ledger.entries) < 2

    def close(self, *, remove: bool, deceived: bool = False) -> None:
        """Let go of it; it stays for a later run unless it is empty, or of no use."""
        if not (remove or deceived or self._broken):
            self._write_held()
        self.going = False
        self._spaces.drop(self.workspace, remove=remove or self.is_empty)

    def open_value(self, kept: dict[str, Any]) -> Any:
        """See `Workspaces.open_value`."""
        return self._spaces.open_value(self.workspace, kept)

    def own_value(self, kept: dict[str, Any]) -> Any:
        """A value that this very run has kept: trusted as the run is."""
        return self.workspace.read_value(kept, self._spaces.registry.get(kept["spec"], kept["version"]))

    def copy_sealed(self, place: int, target: str) -> None:
        """The file of an output that was sent before the kill; see `Workspaces.copy_object`."""
        for entry in self.entries:
            if entry.get("sealed") == place:
                return self._spaces.copy_object(entry["address"], entry["part"], target)
        raise DamagedObject("the file of an output of an interrupted run is gone")

    def keep_value(self, value: Any, number: int) -> dict[str, Any]:
        """See `Workspace.write_value`."""
        return self.workspace.write_value(f"value-{number}", value, self._spaces.registry)


# -- lines ----------------------------------------------------------------------------------------


def _makes_sense(entry: dict[str, Any]) -> bool:
    """Whether a line is one of ours: whoever may write to the store can write one that matches its checksum."""
    return frozenset(entry) in _LINES and all(_FIELDS[name](value) for name, value in entry.items())


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: Any) -> bool:
    return type(value) is str


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(map(_is_text, value))


def _are_observations(value: Any) -> bool:
    return type(value) is list and all(_are_texts(row) and len(row) == len(Observation._fields) for row in value)


def _is_folder(value: Any) -> bool:
    """Whether it can be the folder of a kept value: it is removed when a later one takes its place."""
    return _is_text(value) and value.startswith("value-") and value[6:].isascii() and value[6:].isdecimal()


def _is_kept(value: Any) -> bool:
    """Whether it is what `Workspace.write_value` returns."""
    if type(value) is not dict or set(value) != {"folder", "spec", "version", "meta", "parts"}:
        return False
    plain = _is_folder(value["folder"]) and _is_text(value["spec"]) and _is_number(value["version"])
    parts = value["parts"]
    return plain and type(value["meta"]) is dict and type(parts) is dict and all(map(_is_text, parts.values()))


_LINES = {
    frozenset(("block", "wrote", "read", "saw")),
    frozenset(("block", "value", "read", "saw")),
    frozenset(("value", "saw")),
    frozenset(("sealed", "address", "part", "saw")),
}
_FIELDS: dict[str, Callable[[Any], bool]] = {
    **{"block": _is_number, "wrote": _are_texts, "read": _are_texts, "saw": _are_observations, "value": _is_kept},
    **{"sealed": _is_number, "address": _is_text, "part": _is_text},
}


# -- arrays ---------------------------------------------------------------------------------------


class Output(Protocol):
    """One array that a loop fills, and what is kept of it."""

    def take_up(self) -> None:
        """Let the array have what an earlier run has left."""

    def is_whole(self, block: Block, digest: Digest) -> bool:
        """Whether a finished block is there, as it was written."""

    def restore(self, block: Block) -> None:
        """Put a block that is whole where it belongs."""

    def begin(self) -> None:
        """See to it that what is written from now on stays."""

    def finished(self, block: Block, written: Array | None) -> Digest:
        """A block is finished; the digest of its elements. In the writing thread."""

    def sealing(self) -> None:
        """It is about to be published: from now on nobody but the store may have its file."""


class SharedFile:
    """An output whose file has a second name in the workspace.

    Parameters
    ----------
    handle : Handle
        With a `data_path`.
    logbook : Logbook
        Of the loop.
    place : int
        Of the array in the loop.
    """

    def __init__(self, handle: Handle, logbook: Logbook, place: int) -> None:
        self._handle, self._logbook, self._place = handle, logbook, place
        self._workspace, self._name = logbook.workspace, f"data-{place}"
        self.part = os.path.basename(handle.data_path or "")  # what the store will call it

    def take_up(self) -> None:
        """Move the earlier file to where ours is; its name here stays, so that a kill in between loses nothing."""
        adopted = f"{self._name}.adopted"
        if self._workspace.has(self._name):
            self._workspace.link(self._workspace.path(self._name), adopted)
        else:
            self._workspace.unlink(adopted)
            self._logbook.copy_sealed(self._place, self._workspace.path(adopted))
        if not self._workspace.has(adopted):
            raise DamagedObject("something else is in the place of an interrupted run's file")
        self._handle.adopt(self._workspace.path(adopted))
        self._workspace.unlink(adopted)

    def is_whole(self, block: Block, digest: Digest) -> bool:
        return self._handle.digest(block) == digest

    def restore(self, block: Block) -> None:
        """It is there already."""

    def begin(self) -> None:
        path = self._handle.data_path
        assert path is not None
        if not self._workspace.has(self._name) or not os.path.samefile(path, self._workspace.path(self._name)):
            self._workspace.link(path, self._name)

    def finished(self, block: Block, written: Array | None) -> Digest:
        return self._handle.digest(block) if written is None else digest_of(written)

    def sealing(self) -> None:
        self._workspace.unlink(self._name)


class Spool:
    """An output whose blocks are kept one by one, for arrays whose file proves nothing before it is closed.

    Parameters
    ----------
    handle, logbook, place
        As in `SharedFile`.
    """

    def __init__(self, handle: Handle, logbook: Logbook, place: int) -> None:
        self._handle, self._workspace, self._place = handle, logbook.workspace, place

    def take_up(self) -> None:
        """The blocks are written when they turn out to be whole."""

    def is_whole(self, block: Block, digest: Digest) -> bool:
        return self._workspace.has(self._name(block)) and digest_of(self._values(block)) == digest

    def restore(self, block: Block) -> None:
        self._handle.write(block, self._values(block).reshape(self._handle.region(block)))

    def _values(self, block: Block) -> Array:
        import numpy as np

        return np.frombuffer(read_ordinary(self._path(block)), self._handle.dtype)

    def begin(self) -> None:
        """The blocks are kept as they come."""

    def finished(self, block: Block, written: Array | None) -> Digest:
        values = self._handle.read(block) if written is None else written
        self._ask_for_space(block, values.nbytes)
        beside = f"{self._name(block)}.new"
        self._workspace.unlink(beside)
        with open(self._workspace.path(beside), "xb") as file:
            values.tofile(file)
        os.rename(self._workspace.path(beside), self._path(block))
        return digest_of(values)

    def _ask_for_space(self, block: Block, nbytes: int) -> None:
        """What is kept here must not take the room that the array itself may still need."""
        disk = os.statvfs(os.path.dirname(self._path(block)))
        size = math.prod(self._handle.shape) * self._handle.dtype.itemsize
        needed = nbytes + size * (block.count - block.index) // block.count + SPARE
        if disk.f_bavail * disk.f_frsize < needed:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for copies of the blocks")

    def sealing(self) -> None:
        """The blocks have files of their own."""

    def _path(self, block: Block) -> str:
        return self._workspace.path(self._name(block))

    def _name(self, block: Block) -> str:
        return f"block-{self._place}-{block.index}"


class Attempt:
    """One loop that fills arrays and can go on after a kill. The `Keeper` of a `BlockLoop`.

    Parameters
    ----------
    logbook : Logbook
        Its ledger.
    grid : Grid
        Its blocks.
    outputs : dict
        Place in the loop -> the array; all untouched.
    sources : Sources
        What it reads besides.
    look : callable, optional
        Of a map: see `Captured.look`. Its blocks hang on nothing but their parts of the sources.
    others : Others, optional
        Of a plain loop: what its body must not write to.
    in_place : bool
        Whether an output is read. In a map that is not so, blocks are written as a whole, whatever was in them; else
        what a killed run left there is blanked.

    Attributes
    ----------
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
    ) -> None:
        self._logbook, self._grid, self._handles, self._look = logbook, grid, outputs, look
        self._others = others
        # What the body has in its hands as memory it can write to anywhere, and nothing tells of it.
        self._bare = {place: handle for place, handle in outputs.items() if look is None and not handle.asks}
        self._sources, self.looks, self.fills = sources, sources.places, frozenset(outputs)
        self._outputs: dict[int, Output] = {
            place: (SharedFile if handle.data_path else Spool)(handle, logbook, place)
            for place, handle in outputs.items()
        }
        self.finished: frozenset[int] = frozenset()
        self._done = self._sure = 0  # blocks that are done; those up to which the function is known to have no state
        self._unsure: deque[tuple[int, dict[str, Any]]] = deque()
        self._soiled = False
        self._written: dict[int, Sequence[Digest]] = {}  # block -> digests, of all that are done
        self._marks: dict[int, object] = {}  # the last write to each output when the loop was over
        try:
            if logbook.entries:
                self._take_up()
                self._soiled = in_place
                self._blank_bare()
            for output in self._outputs.values():
                output.begin()
        except OSError as error:  # a file system without second names, say
            logbook.give_up(error)

    def _take_up(self) -> None:
        try:
            for output in self._outputs.values():
                output.take_up()
        except (OSError, PyplantxError) as error:
            log().warning("what an interrupted run has left can't be used, it is done again: %s", error)
            self._logbook.begin()
            return
        count = len(self._outputs)
        lines = [entry for entry in self._logbook.entries if len(entry.get("wrote", ())) == count]
        wrote = self._of_the_same(lines)
        with Pool(2, "pyplantx-check") as pool:
            whole = list(pool.map(self._is_whole, wrote.items()))
        self.finished = frozenset(index for index, good in zip(wrote, whole) if good)
        self._written = {index: wrote[index] for index in self.finished}
        damaged = len(wrote) - len(self.finished)
        if self._bare and (damaged or self._is_anything_ahead()):
            log().info("blocks of an interrupted run were written to by others, or damaged: the loop begins anew")
            return self._begin_anew()
        if self._bare:
            self.finished = frozenset(filter(self._is_restored, self.finished))
        if damaged and len(wrote) == self._grid.size and not self._has_copies:
            # The loop had ended, so what came after it may have written to the same file, a second map in place, say.
            log().info("%d blocks of a finished loop were written to after it, or damaged, and are done again", damaged)
        elif damaged:
            log().warning("%d blocks of an interrupted run don't match their checksums and are done again", damaged)
        log().info("%d of %d blocks were finished by an interrupted run", len(self.finished), self._grid.size)

    def _of_the_same(self, lines: Sequence[dict[str, Any]]) -> dict[int, list[Digest]]:
        """Blocks whose sources are what they were, with what was written to them."""
        last = {entry["block"]: entry for entry in lines if entry["block"] < self._grid.size}
        if not self.looks:
            return {index: entry["wrote"] for index, entry in last.items()}
        blocks = map(self._grid.block, last)
        found = {block.index for block in blocks if self._sources.of(block) == last[block.index]["read"]}
        others = len(last) - len(found)
        if others:
            log().info("%d finished blocks were made from something else than is there now, and are done again", others)
        if others and self._look is None:  # the body can read whatever it likes of them
            self._begin_anew()
            return {}
        return {index: entry["wrote"] for index, entry in last.items() if index in found}

    def _begin_anew(self) -> None:
        self._logbook.begin()
        self.finished, self._written = frozenset(), {}

    def _is_anything_ahead(self) -> bool:
        """Whether the killed run has written to blocks that its body had not been given yet."""
        begun = self._logbook.workspace.begun()
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

    def done(self, block: Block) -> Any:
        """See `Keeper.done`."""
        saw = self._logbook.saw()
        if not self._logbook.going:
            return _note_nothing
        read = self._sources.taken(block)
        if self._sources.is_altered(block) or self._others is not None and self._others.are_altered():
            self.wrote_elsewhere(None)
            return _note_nothing
        if read is None:
            self._logbook.has_no_words()
            return _note_nothing
        self._done = number = self._done + 1
        is_same = True if self._look is None else self._look()
        if is_same is False:
            self._logbook.has_state()
            return _note_nothing
        self._sure = number if is_same else self._sure
        # Now: the body of the next block may write to this one.
        known = {place: self._outputs[place].finished(block, None) for place in self._bare}

        def note(written: dict[int, Array]) -> None:
            try:
                wrote = self._written[block.index] = list(self._digests(block, written, known))
                entry = {"block": block.index, "wrote": wrote, "read": read, "saw": saw}
                self._unsure.append((number, entry))
                while self._unsure and self._unsure[0][0] <= self._sure:
                    self._logbook.add(self._unsure.popleft()[1])
            except OSError as error:
                self._give_up(error)

        return note

    def _give_up(self, error: OSError) -> None:
        """There is no room for what is kept: the run needs it more."""
        self._logbook.give_up(error)
        if self._has_copies:
            self._logbook.void()

    @property
    def _has_copies(self) -> bool:
        return any(isinstance(output, Spool) for output in self._outputs.values())

    def _digests(self, block: Block, written: dict[int, Array], known: dict[int, Digest]) -> Iterator[Digest]:
        for place, output in self._outputs.items():
            yield known[place] if place in known else output.finished(block, written.get(place))

    def over(self) -> None:
        """The loop has ended, and writes nothing more."""
        self._marks = {place: getattr(handle.array, "last_write", None) for place, handle in self._handles.items()}

    def content_of(self, array: Any) -> Digest | None:
        """The digest of an output that all blocks have filled, and nobody has written to since; else None."""
        for number, (place, handle) in enumerate(self._handles.items()):
            mark = self._marks.get(place)
            if handle.array is array and mark is not None and mark is array.last_write:
                wrote = [self._written[index][number] for index in sorted(self._written)]
                return hash_text("\n".join([str(self._grid), *wrote])) if len(wrote) == self._grid.size else None
        return None

    def given(self, block: Block, place: int, part: Any) -> None:
        """See `Keeper.given`."""
        if self._logbook.going:
            self._sources.give(block, place, part)

    def watch(self, block: Block) -> None:
        """See `Keeper.watch`."""
        if not self._logbook.going:
            return
        if any(_has_anything(handle.read(block)) for handle in self._bare.values()):
            return self.wrote_elsewhere(None)  # an earlier block did
        if self._bare:
            self._note_begun(block)
        self._sources.watch(block)

    def _note_begun(self, block: Block) -> None:
        try:
            self._logbook.workspace.begin(block.index)
        except OSError as error:
            self._logbook.give_up(error)
            self._logbook.void()

    def wrote_elsewhere(self, array: Any) -> None:
        """See `Keeper.wrote_elsewhere`: what is in the array is no longer known from its blocks."""
        if self._logbook.going:
            log().warning(
                "a loop with resume=True writes otherwise than dst[block] = ... to arrays that were allocated and not "
                "written to before, and can't be resumed"
            )
            self._logbook.void()

    def kept_elsewhere(self) -> None:
        """See `Keeper.kept_elsewhere`."""
        self._logbook.keeps_more()

    def before_send(self, array: Any) -> None:
        """An array is about to be sent: it must not be altered through our name of its file any more."""
        for place, handle in self._handles.items():
            if handle.array is array:
                handle.allocation.before_publishing.append(self._outputs[place].sealing)

    def sent(self, array: Any, address: Digest) -> None:
        """Where an array has gone that was sent."""
        for place, output in self._outputs.items():
            if self._handles[place].array is array and isinstance(output, SharedFile):
                self._logbook.add({"sealed": place, "address": address, "part": output.part, "saw": []})


# -- values -----------------------------------------------------------------------------------------


class Reduction:
    """The value of a reduction so far. The `Keeper` of its loop.

    Saving the value takes time, so it is done only when a multiple of that has passed since it was done last.

    Parameters
    ----------
    logbook : Logbook
        Its ledger.
    grid : Grid
        Its blocks.
    sources : Sources
        What is read.
    look : callable
        See `Captured.look`.
    clock : callable
        Seconds.

    Attributes
    ----------
    total : list
        The value that an interrupted run has left; empty if there is none.
    finished : frozenset of int
        The blocks that it is made of.
    fills, looks
        See `Keeper`.
    """

    fills: frozenset[int] = frozenset()

    def __init__(
        self, logbook: Logbook, grid: Grid, sources: Sources, look: Look, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logbook, self._look, self._clock = logbook, look, clock
        self._sources, self.looks = sources, sources.places
        self.total: list[Any] = []
        self.finished: frozenset[int] = frozenset()
        self._read = ""  # digest of all that went into the value
        found = latest_value(logbook, grid.size)
        if found is not None:
            self._take_up(grid, *found)
        self._kept: dict[str, Any] | None = None
        self._saw: list[list[str]] = []
        self._saved, self._took = -math.inf, 0.0

    def _take_up(self, grid: Grid, entry: dict[str, Any], value: Any) -> None:
        finished = range(entry["block"] + 1)
        read = ""
        for index in finished if self.looks else ():
            read = folded(read, self._sources.of(grid.block(index)))
        if [read] != entry["read"]:
            log().info("what was combined was made from something else than is there now: it is done again")
            return self._logbook.begin()
        self.total, self.finished, self._read = [value], frozenset(finished), read

    def keep(self, block: Block, value: Any) -> None:
        """The value after a block."""
        begun = self._clock()
        if not self._logbook.going or begun - self._saved < WORTH * self._took:
            return
        try:
            self._kept = self._logbook.keep_value(value, block.index)
        except (OSError, PyplantxError) as error:
            self._logbook.give_up(error)
        self._saved = self._clock()
        self._took = self._saved - begun

    def done(self, block: Block) -> Any:
        """See `Keeper.done`."""
        self._saw += self._logbook.saw()
        kept, self._kept = self._kept, None
        if not self._logbook.going:
            return _note_nothing
        parts = self._sources.taken(block)
        if parts is None:
            self._logbook.has_no_words()
            return _note_nothing
        read = self._read = folded(self._read, parts)
        if kept is None:
            return _note_nothing
        if not self._look(now=True):
            self._logbook.has_state()
            return _note_nothing
        saw, self._saw = self._saw, []

        def note(_: dict[int, Array]) -> None:
            self._logbook.add_value({"block": block.index, "value": kept, "read": [read], "saw": saw})

        return note

    def given(self, block: Block, place: int, part: Any) -> None:
        """See `Keeper.given`."""
        if self._logbook.going:
            self._sources.give(block, place, part)

    def watch(self, block: Block) -> None:
        """See `Keeper.watch`: a function is given parts alone."""

    def blank(self, block: Block) -> None:
        """See `Keeper.blank`: nothing is written."""

    def wrote_elsewhere(self, array: Any) -> None:
        """See `Keeper.wrote_elsewhere`: what a function writes besides is no part of the value."""

    def kept_elsewhere(self) -> None:
        """See `Keeper.kept_elsewhere`."""
        self._logbook.keeps_more()


def latest_value(logbook: Logbook, count: int | None = None) -> tuple[dict[str, Any], Any] | None:
    """The last line of a ledger whose value is whole, and the value; of a reduction of `count` blocks, one of these."""
    for entry in reversed(logbook.entries):
        if "value" not in entry or (count is not None and entry.get("block", count) >= count):
            continue
        try:
            return entry, logbook.open_value(entry["value"])
        except (OSError, PyplantxError) as error:
            log().warning("a value that was kept can't be used: %s", error)
    return None


def save_value(logbook: Logbook, value: Any) -> Callable[[], Any]:
    """Keep a value with all that the run has observed up to now. What is returned gives it back to this run."""
    kept = logbook.keep_value(value, logbook.lines)
    logbook.add_value({"value": kept, "saw": logbook.saw()})
    return lambda: logbook.own_value(kept)


def _note_nothing(_: dict[int, Array]) -> None:
    """A block is finished, and nobody is to know."""


def _has_anything(values: Any) -> bool:
    import numpy as np

    return bool(np.ascontiguousarray(values).reshape(-1).view("u1").any()) if values.nbytes else False


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    import numpy as np

    return np.zeros(shape, dtype)

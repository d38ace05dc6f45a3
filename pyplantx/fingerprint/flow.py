"""Where control goes in a code object, and the order in which that lets it be written down.

The compiler may lay the same blocks out in another order after an edit that means nothing. So the normal
form follows the control flow: each *chain* from an entry along the fall-through to its end, entries in the
order in which they were met. An instruction goes by its index in `Body`.
"""

from __future__ import annotations

from types import CodeType
from typing import Final

from pyplantx.fingerprint.bytecode import JUMP, PLAIN, Body, Entry, handlers

#: Entry, depth of the stack, whether the place of the exception is pushed.
_Handling = tuple[int, int, int]
#: Tests that are written as their opposite, with the ways out exchanged.
_OPPOSITES: Final = {"FALSE": "TRUE", "NOT_NONE": "NONE"}
_FOREVER: Final[Entry] = (PLAIN, "forever", 0)
_UNHANDLED: Final[Entry] = (PLAIN, "try -", 0)
_LATER: Final[Entry] = (PLAIN, "", 0)  # its text is known at the end


class Flow:
    """The jumps and handlers of one code object.

    Attributes
    ----------
    goes : dict of int to int
        Unconditional jump, or instruction that does not count -> where control is afterwards.
    splits : dict of int to (str, int)
        Instruction behind a conditional jump -> what that tests, and its target.
    ends : dict of int to int
        Start of a block -> start of the next one. Nothing jumps into the middle of a block. A conditional jump is
        the last instruction of its block, an unconditional one has a block of its own.
    covering : list or None
        The handler of each instruction; None if there are no handlers at all.
    """

    def __init__(self, code: CodeType, body: Body) -> None:
        self.goes: dict[int, int] = {}
        self.splits: dict[int, tuple[str, int]] = {}
        places, size = body.places(), len(body.entries)
        cuts = {0, size}
        for place in body.jumps():
            at = places[place]
            kind, name, distance = body.entries[at]
            target = places[place + distance]
            cuts.add(target)
            cuts.add(at + 1)
            if kind == JUMP:
                cuts.add(at)
                self.goes[at] = target
            else:
                self.splits[at + 1] = name, target
        for at in body.gaps:
            cuts.update((at, at + 1))
            self.goes[at] = at + 1
        table = code.co_exceptiontable
        self.covering = self._cover(table, places, cuts) if table else None
        starts = sorted(cuts)
        self.ends = dict(zip(starts, starts[1:]))

    def _cover(self, table: bytes, places: list[int], cuts: set[int]) -> list[_Handling | None]:
        """Handlers are compared by value: a jump between two instructions splits a range of the table in two."""
        covering: list[_Handling | None] = [None] * (places[-1] + 1)
        for start, length, target, packed in handlers(table):
            first, last, entry = places[start], places[start + length], places[target]
            cuts.update((first, last, entry))
            covering[first:last] = [(self.skip(entry), packed >> 1, packed & 1)] * (last - first)
        return covering

    def skip(self, at: int) -> int:
        """Step through unconditional jumps (an endless empty loop ends on itself)."""
        if at not in self.goes:
            return at
        seen = set[int]()
        while at in self.goes and at not in seen:
            seen.add(at)
            at = self.goes[at]
        return at


class Walk:
    """The instructions of a code object in the order of its control flow.

    Parameters
    ----------
    body : Body
    flow : Flow

    Attributes
    ----------
    written : list of Entry
        One per instruction, and `PLAIN` ones that say where control goes and what handles exceptions. These name
        instructions by their number in this order.
    """

    def __init__(self, body: Body, flow: Flow) -> None:
        self.written: list[Entry] = []
        self._entries = body.entries
        self._ends = body.ends()
        self._flow = flow
        self._others = 0  # what is written and is no instruction
        self._order: dict[int, int] = {}  # block -> number of its first instruction
        self._forks: list[tuple[int, str, int, int]] = []  # (where it is written, test, if true, if false)
        self._links: list[tuple[int, str, int]] = []  # (where it is written, text, where control goes)
        self._queue = [0]
        self._run()

    def _run(self) -> None:
        order, written = self._order, self.written
        for start in self._queue:  # grows on the way
            if start not in order:
                self._chain(start)
        for place, name, there, here in self._forks:
            written[place] = PLAIN, f"{name} >{order[there]} >{order[here]}", 0
        for place, text, target in self._links:
            written[place] = PLAIN, f"{text} >{order[target]}", 0

    def _chain(self, at: int) -> None:
        """Write from one block along the fall-through until the end or known ground."""
        flow, order, written = self._flow, self._order, self.written
        goes, splits, covering = flow.goes, flow.splits, flow.covering
        handler, fresh = None, True
        while True:
            if at in goes:
                at = flow.skip(at)
            if at in order:
                if not fresh:
                    self._link("goto", at)
                return
            order[at] = len(written) - self._others
            if at in goes:
                written.append(_FOREVER)
                return
            if covering is not None and (fresh or covering[at] != handler):
                handler = covering[at]
                self._enter(handler)
            fresh = False
            end = flow.ends[at]
            last = self._ends.find(1, at, end)
            if last >= 0:
                written += self._entries[at : last + 1]
                return
            if end in splits:
                written += self._entries[at : end - 1]
                at = self._split(*splits[end], end)
            else:
                written += self._entries[at:end]
                at = end

    def _link(self, text: str, target: int) -> None:
        """Write what is no instruction, and names one."""
        self._others += 1
        self._links.append((len(self.written), text, target))
        self.written.append(_LATER)

    def _enter(self, handler: _Handling | None) -> None:
        if handler is None:
            self._others += 1
            self.written.append(_UNHANDLED)
            return
        entry, depth, lasti = handler
        self._queue.append(entry)
        self._link(f"try {depth} {lasti}", entry)

    def _split(self, name: str, there: int, here: int) -> int:
        """Write a conditional jump as (test, if true, if false); returns where to go on."""
        goes, skip = self._flow.goes, self._flow.skip
        there, here = skip(there) if there in goes else there, skip(here) if here in goes else here
        if name in _OPPOSITES:
            name, there, here = _OPPOSITES[name], here, there
        self._queue.append(there)
        self._forks.append((len(self.written), name, there, here))
        self.written.append(_LATER)
        return here

"""What a run appends to growing datasets between the values that it keeps, so that the next run has both or neither.

HDF5 proves nothing before a file is closed, so a dataset that was growing when the process died is lost. What was
appended is therefore copied, uncompressed, whenever a value is kept, and one line of a ledger names the value and the
rows. The lines are a history: where a run has asked for which key, what it kept there, and what it had appended by
then. A later run moves along it. Who asks for a key gets the value that was kept last, and the datasets are brought to
where they were at that line; so what the run does in between finds what it found then. Where it does something else
than the history tells, the history ends.

This file may know: logbooks, rows of datasets, what else was allocated. It may not know: whose the keys are, loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pyplantx.blocks.rows import Row, Rows
from pyplantx.errors import PyplantxError, WarehouseError
from pyplantx.logs import log
from pyplantx.warehouse.records import to_json

if TYPE_CHECKING:
    from pyplantx.blocks.alterations import Alterations
    from pyplantx.blocks.logbook import Logbook


class Journal:
    """The history of one run between two requests, and where the run is in it.

    Parameters
    ----------
    logbook : Logbook
        Its ledger.
    growing : sequence of Allocated
        The datasets that it tells of.
    before : Alterations
        How all that is allocated is now.
    unsent : callable
        Gives what is allocated and not sent yet.
    former : Journal, optional
        What told of the run up to now: rows that it has brought are not to be written to either.

    Attributes
    ----------
    must_begin_again : bool
        Whether the run has rows that an earlier run kept, and can't go on with them.
    """

    def __init__(
        self,
        logbook: Logbook,
        growing: Sequence[Any],
        before: Alterations,
        unsent: Callable[[], Sequence[Any]],
        former: Journal | None = None,
    ) -> None:
        self.logbook, self._before, self._unsent = logbook, before, unsent
        self._arrays = [Rows(number, each, logbook.workspace, self._crossed) for number, each in enumerate(growing)]
        self._history = _lasting(logbook.entries, len(growing))  # of earlier runs, as far as this one goes along
        logbook.entries.clear()
        self._asked = {line["asked"]: place for place, line in enumerate(self._history) if "asked" in line}
        self._kept: dict[str, list[int]] = {}
        for place, line in enumerate(self._history):
            self._kept.setdefault(line.get("key", ""), []).append(place)
        self._cut = 0  # what the run has done is what the first so many lines tell, and those of its own after them
        self._own = 0
        self._written = len(self._history)  # so many lines count on the disk
        self._latest: dict[str, dict[str, Any] | None] = {}  # keys of this run -> what was kept or restored last
        self._brought = self._stopped = self.must_begin_again = False
        self._why: str | None = None
        if former is not None:
            self._go_on_from(former)

    def _go_on_from(self, former: Journal) -> None:
        self._brought = former._brought
        kept = {array.allocation: array.growth.kept for array in former._arrays}
        for array in self._arrays:
            array.growth.look_again(kept.get(array.allocation, 0))

    def tells_of(self, allocation: Any) -> bool:
        """Whether an array is one of those that it tells of."""
        return any(array.allocation is allocation for array in self._arrays)

    def _beside(self) -> list[Any]:
        arrays = [array.allocation for array in self._arrays]
        return [each for each in self._unsent() if each not in arrays]

    # ----------------------------------------------------------------- what checkpoints ask

    def restore(self, key: str) -> tuple[dict[str, Any], Any] | None:
        """What was kept last under a key, and what that is called in the ledger; None if nothing was.

        Raises
        ------
        WarehouseError
            If the run must begin again.
        """
        if key in self._latest:
            kept = self._latest[key]
            return None if kept is None else (kept, self.logbook.own_value(kept))
        if not self._ask(key):
            return None
        for place in self._places_of(key, ahead=not any(array.pending() for array in self._arrays)):
            if place >= len(self._history):  # behind damage that was just met
                continue
            kept = self._history[place]["value"]
            value = self._opened(kept)
            if value is not None and (place < self._cut or self._bring(place + 1)):
                self._end_before_next(key, place + 1)
                self._latest[key] = kept
                return kept, value[0]
        if self._places_of(key, ahead=False):
            self._begin_again("a value that it has kept is gone")
        self._end_before_next(key, self._cut)
        return None

    def keep(self, key: str, value: Any) -> dict[str, Any] | None:
        """Keep a value; what it is called in the ledger, or None if it is of no use to the next run.

        Raises
        ------
        CannotStore, WarehouseError
            See `Workspace.write_value`.
        """
        if key not in self._latest:
            self._ask(key)
        if not self.goes_on():
            return None
        kept = self.logbook.keep_value(value, self.logbook.lines)
        if self._is_next(key, kept):
            self.logbook.workspace.remove_value(kept)
            kept = self._history[self._cut]["value"]
            self._stand(self._cut + 1)
        elif not self._add({"key": key, "value": kept}):
            return None
        self._brought = False  # from here on the run is where an undisturbed one would be
        self._latest[key] = kept
        return kept

    def goes_on(self) -> bool:
        """Whether what is kept now is of use to the next run; `why_not` says what is in the way."""
        if self._stopped or not self.logbook.going:
            return False
        crossed = next((array for array in self._arrays if array.growth.crossed), None)
        by_blocks = next((array for array in self._arrays if array.growth.by_blocks), None)
        if crossed is not None:
            self._stopped, self._why = True, crossed.allocation.name
            self.logbook.add({"back": 0, "saw": []})  # who went on from there would come to the same write
        elif by_blocks is not None:
            self._stopped, self._why = True, by_blocks.allocation.name
        else:
            self._why = self._before.first(self._beside())
            self._stopped = self._why is not None
        return not self._stopped

    @property
    def why_not(self) -> tuple[str, bool] | None:
        """Name of the array that is in the way, and whether rows of it that were kept are written to."""
        if self._why is None:
            return None
        return self._why, any(array.growth.crossed for array in self._arrays)

    def end(self) -> None:
        """Nothing more is asked, or kept."""
        self._stopped = True
        for array in self._arrays:
            array.end()

    # ----------------------------------------------------------------- moving along the history

    def _ask(self, key: str) -> bool:
        """The run comes by the place where a key is first asked for; whether the history may tell more of that key."""
        self._latest[key] = None
        if not self.goes_on():
            return False
        place = self._asked.get(key, len(self._history))
        if place < self._cut or (place < len(self._history) and self._meets(place)):
            return True
        self._add({"asked": key})
        return False

    def _meets(self, place: int) -> bool:
        """Go ahead to behind a line, if all that was appended until then is what the lines tell."""
        if not self._is_as_at(place + 1):
            return False
        self._stand(place + 1)
        return True

    def _places_of(self, key: str, *, ahead: bool) -> list[int]:
        """Lines of earlier runs that keep a value under a key, the last one first."""
        end = len(self._history) if ahead else self._cut
        return [place for place in reversed(self._kept.get(key, ())) if place < end]

    def _end_before_next(self, key: str, start: int) -> None:
        """What the run now has under a key is not what later lines under it tell: it does not come by there."""
        later = [place for place in self._places_of(key, ahead=True) if place >= max(start, self._cut)]
        if later:
            del self._history[later[-1] :]

    def _opened(self, kept: dict[str, Any]) -> tuple[Any] | None:
        try:
            return (self.logbook.open_value(kept),)
        except (OSError, PyplantxError) as error:
            log().warning("%s: a value that was kept can't be used: %s", self.logbook.who, error)
            return None

    def _is_next(self, key: str, kept: dict[str, Any]) -> bool:
        """Whether keeping this is what comes next in the history; nothing else was kept under the key after it."""
        if self._places_of(key, ahead=True)[:1] != [self._cut]:
            return False
        told = self._history[self._cut]["value"]
        return to_json({**told, "folder": ""}) == to_json({**kept, "folder": ""}) and self._is_as_at(self._cut + 1)

    def _rows(self, stop: int, number: int) -> list[Row]:
        return [row for line in self._history[self._cut : stop] for row in line["rows"] if row[0] == number]

    def _is_as_at(self, stop: int) -> bool:
        return all(array.is_as(self._rows(stop, array.number)) for array in self._arrays)

    def _stand(self, stop: int) -> None:
        self._cut = stop
        for array in self._arrays:
            array.stand()

    def _bring(self, stop: int) -> bool:
        """Have all datasets as they were at a line ahead; False if copies are damaged: there the history ends.

        Raises
        ------
        WarehouseError
            If it was begun and can't be ended.
        """
        for place in range(self._cut, stop):
            if not all(self._arrays[row[0]].is_whole(row) for row in self._history[place]["rows"]):
                log().warning("%s: rows of an interrupted run don't match their checksums", self.logbook.who)
                del self._history[place:]
                return False
        try:
            for line in self._history[self._cut : stop]:
                for row in line["rows"]:
                    self._brought = True
                    self._arrays[row[0]].bring(row)
        except (OSError, ValueError, PyplantxError) as error:
            self._begin_again(str(error))
        self._cut = stop
        return True

    def _add(self, event: dict[str, Any]) -> bool:
        """Something happens that the history does not tell: what it tells from here on is not so. Whether it is noted.

        That comes first: the copies of rows that now come lie where those of such lines are.
        """
        if self._cut + self._own < self._written:
            self.logbook.add({"back": self._cut, "saw": []})  # the first own line
        del self._history[self._cut :]
        try:
            saved = [row for row in [array.save() for array in self._arrays] if row is not None]
        except OSError as error:
            self._give_up(error)
            return False
        line = {**event, "rows": saved, "saw": self.logbook.saw()}
        self.logbook.add_value(line) if "value" in event else self.logbook.add(line)
        self._own += 1
        self._written = self._cut + self._own
        self._stand(self._cut)
        return not self.logbook.is_broken

    def _give_up(self, error: OSError) -> None:
        """There is no room for copies: the run needs it more."""
        self._stopped = True
        self.logbook.give_up(error)
        try:
            for array in self._arrays:
                array.remove()
        except OSError as other:
            log().debug("%s: %s", self.logbook.who, other)

    # ----------------------------------------------------------------- beginning again

    def _crossed(self) -> None:
        """Rows that are kept are about to be written to.

        If they were brought here, and nothing was kept since, that may be what stands between the first call with a
        key and the loop: an undisturbed run had done it before there were any rows.
        """
        if self._brought and not self.must_begin_again:
            self._begin_again("rows that it has kept are written to before anything more is kept")

    def _begin_again(self, why: str) -> None:
        self._stopped = self.must_begin_again = True
        self.logbook.distrust()
        log().warning(
            "%s: what an interrupted run has left can't be gone on with, and the reactor begins anew: %s",
            *(self.logbook.who, why),
        )
        raise WarehouseError(
            f"{self.logbook.who} begins anew, since it can't go on with what an interrupted run has left: {why}"
        )


def _lasting(entries: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The lines that count; those of a ledger that nobody of us has written end it."""
    history: list[dict[str, Any]] = []
    for entry in entries:
        if "back" in entry:
            del history[entry["back"] :]
        elif any(row[0] >= count for row in entry.get("rows", [[count]])):
            break
        else:
            history.append(entry)
    return history

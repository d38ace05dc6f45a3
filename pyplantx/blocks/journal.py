"""What a run appends to growing datasets between the values that it keeps, so that the next run has both or neither.

HDF5 proves nothing before a file is closed, so a dataset that was growing when the process died is lost. What was
appended is therefore copied, uncompressed, whenever a value is kept, and one line of a ledger names the value and the
rows. The lines are a history: where a run has asked for which key, what it kept there, and what it had appended by
then. A later run moves along it. Who asks for a key gets a value that was kept, and the datasets are brought to where
they were at that line; so what the run does in between finds what it found then. Where it does something else than the
history tells, the history ends.

A run that was brought anywhere is *on trial*: it is brought no further than before the last line that tells of rows,
and has to come by that line itself, with the same rows and the same value. Nobody can see whether what stands between
a checkpoint and the loop is to be done once, or what the loop has in its variables; but who does the same again has
shown that it is where an undisturbed run was. Who does not begins anew.

This file may know: logbooks, rows of datasets, what else was allocated. It may not know: whose the keys are, loops.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pyplantx.basics.logs import log
from pyplantx.blocks.rows import Row, Rows
from pyplantx.errors import PyplantxError, WarehouseError
from pyplantx.warehouse.records import to_json

_DIFFERS = (
    "what it has appended and kept since then is not what the interrupted run has appended and kept there. All that a "
    "loop goes on with belongs in the value that pipe.checkpoint keeps, and what is to be done once stands before the "
    "first pipe.checkpoint"
)

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
    are_same : callable
        Whether two values are the same.
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
        are_same: Callable[[Any, Any], bool],
        former: Journal | None = None,
    ) -> None:
        self.logbook, self._before, self._unsent, self._are_same = logbook, before, unsent, are_same
        self._arrays = [Rows(number, each, logbook.workspace, self._crossed) for number, each in enumerate(growing)]
        self._history = _lasting(logbook.entries, len(growing))  # of earlier runs, as far as this one goes along
        logbook.entries.clear()
        self._asked = {line["asked"]: place for place, line in enumerate(self._history) if "asked" in line}
        self._kept: dict[str, list[int]] = {}
        self._values, self._gone = _Values(), list[dict[str, Any]]()
        for place, line in enumerate(self._history):
            self._kept.setdefault(line.get("key", ""), []).append(place)
            self._values.add(place, line)
        self._cut = 0  # what the run has done is what the first so many lines tell, and those of its own after them
        self._own = 0
        self._written = len(self._history)  # so many lines count on the disk
        self._latest: dict[str, dict[str, Any] | None] = {}  # keys of this run -> what was kept or restored last
        self._proof = -1  # on trial until it has come by this line
        self._stopped = self.must_begin_again = False
        self._why: str | None = None
        if former is not None:
            self._go_on_from(former)

    def _go_on_from(self, former: Journal) -> None:
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
        while (place := self._place_of_value(key)) is not None:
            kept = self._history[place]["value"]
            value = self._opened(kept)
            if value is not None and (place < self._cut or self._go_to(place)):
                self._latest[key] = kept
                return kept, value[0]
            if place < self._cut:
                self._begin_again("a value that it has kept is gone")
            del self._history[self._cut :]
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
            kept = self._stands_for(kept)
            self._stand(self._cut + 1)
        elif not self._add({"key": key, "value": kept}):
            return None
        self._replace(key, kept)
        return kept

    def _stands_for(self, kept: dict[str, Any]) -> dict[str, Any]:
        """What a value is called that was kept again; that of the next line may be gone, as those in between are."""
        told: dict[str, Any] = self._history[self._cut]["value"]
        if _is_alike(told, kept):
            self.logbook.workspace.rename_value(kept, told)
        else:
            self.logbook.workspace.remove_value(kept)
        return told

    def _replace(self, key: str, kept: dict[str, Any]) -> None:
        """A value stands for the one before, which goes if it is not to be found by a later run."""
        former, self._latest[key] = self._latest[key], kept
        if former is not None:
            self._gone.append(former)
        if self.logbook.is_waiting:  # what is on the disk tells of values before
            return
        gone, self._gone = self._gone, []
        for each in gone:
            if each["folder"] not in self._values.folders and each["folder"] != kept["folder"]:
                self.logbook.workspace.remove_value(each)

    def goes_on(self) -> bool:
        """Whether what is kept now is of use to the next run; `why_not` says what is in the way.

        Raises
        ------
        WarehouseError
            If it is not, and the run is on trial: it must begin again.
        """
        going = self._looks_well()
        if not going and self.is_on_trial:  # the interrupted run went on from here
            self._begin_again(_DIFFERS)
        return going

    def _looks_well(self) -> bool:
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

    @property
    def is_on_trial(self) -> bool:
        """Whether it has not been shown that the run goes on as the interrupted one did."""
        return self._cut <= self._proof and not self.must_begin_again

    def leave(self) -> None:
        """The run asks for something, or sends: nothing more is kept here."""
        if self.is_on_trial:
            self._distrust(_DIFFERS)
        self.end()

    def must_be_through(self) -> None:
        """Raise `WarehouseError`, and begin again, if the run is on trial: another journal can't tell how it ends."""
        if self.is_on_trial:
            self._begin_again(_DIFFERS)

    def fail(self) -> None:
        """The run has raised an error, which an undisturbed one may not do: that can be told from rows alone."""
        if self.is_on_trial and not all(self._begins_as_told(array) for array in self._arrays):
            self._distrust(_DIFFERS)

    def _begins_as_told(self, array: Rows) -> bool:
        try:
            return array.begins_as(self._rows(self._proof + 1, array.number))
        except (OSError, ValueError, PyplantxError):
            return False

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
        if not self._passes_nothing(place) or not self._is_as_at(place + 1):
            return False
        self._stand(place + 1)
        return True

    def _passes_nothing(self, place: int, key: str = "") -> bool:
        """Whether the run has of all keys but one what it would have behind a line ahead."""
        keys = {line.get("key", key) for line in self._history[self._cut : place]}
        return self._latest.keys().isdisjoint(keys - {key})

    def _place_of_value(self, key: str) -> int | None:
        """The line with the value that the run is to have under a key; None if there is none."""
        places = self._kept.get(key, [])
        place = _last_before(places, self._end_of_ways())
        if place is not None and place >= self._cut:
            if any(array.pending() for array in self._arrays) or not self._passes_nothing(place, key):
                place = _last_before(places, self._cut)
        return place

    def _end_of_ways(self) -> int:
        """The line that the run has to come by itself: the last one with rows. If there are none nothing was done."""
        if self.is_on_trial:
            return min(self._proof, len(self._history))
        ahead = range(len(self._history) - 1, self._cut - 1, -1)
        return next((place for place in ahead if self._history[place]["rows"]), len(self._history))

    def _go_to(self, place: int) -> bool:
        proof = self._end_of_ways()
        if not self._bring(place + 1):
            return False
        self._proof = max(self._proof, proof if proof < len(self._history) else -1)
        return True

    def _opened(self, kept: dict[str, Any]) -> tuple[Any] | None:
        try:
            return (self.logbook.open_value(kept),)
        except (OSError, PyplantxError) as error:
            log().warning("%s: a value that was kept can't be used: %s", self.logbook.who, error)
            return None

    def _is_next(self, key: str, kept: dict[str, Any]) -> bool:
        """Whether keeping this is what comes next in the history."""
        if self._cut >= len(self._history) or self._history[self._cut].get("key") != key:
            return False
        return self._is_as_at(self._cut + 1) and self._is_same(self._history[self._cut]["value"], kept)

    def _is_same(self, told: dict[str, Any], kept: dict[str, Any]) -> bool:
        """Whether two values are the same; of objects that may be, though their bytes differ (sets, shared parts)."""
        if _is_alike(told, kept):
            return True
        value = self._opened(told) if self.is_on_trial else None
        return value is not None and self._are_same(value[0], self.logbook.own_value(kept))

    def _rows(self, stop: int, number: int) -> list[Row]:
        return [row for line in self._history[self._cut : stop] for row in line["rows"] if row[0] == number]

    def _is_as_at(self, stop: int) -> bool:
        return all(array.is_as(self._rows(stop, array.number)) for array in self._arrays)

    def _stand(self, stop: int) -> None:
        self._cut = stop
        for array in self._arrays:
            array.stand()

    def _bring(self, stop: int) -> bool:
        """Have all datasets as they were at a line ahead; False if copies are damaged.

        Raises
        ------
        WarehouseError
            If it was begun and can't be ended.
        """
        for place in range(self._cut, stop):
            if not all(self._arrays[row[0]].is_whole(row) for row in self._history[place]["rows"]):
                log().warning("%s: rows of an interrupted run don't match their checksums", self.logbook.who)
                return False
        try:
            for line in self._history[self._cut : stop]:
                for row in line["rows"]:
                    self._arrays[row[0]].bring(row)
        except (OSError, ValueError, PyplantxError) as error:
            self._begin_again(str(error))
        self._cut = stop
        return True

    def _add(self, event: dict[str, Any]) -> bool:
        """Something happens that the history does not tell: what it tells from here on is not so. Whether it is noted.

        That comes first: the copies of rows that now come lie where those of such lines are.
        """
        if self.is_on_trial:
            self._begin_again(_DIFFERS)
        if self._cut + self._own < self._written:
            self._values.cut(self._cut)
            self.logbook.add({"back": self._cut, "saw": []})  # the first own line
        del self._history[self._cut :]
        try:
            saved = [row for row in [array.save() for array in self._arrays] if row is not None]
        except OSError as error:
            self._give_up(error)
            return False
        line = {**event, "rows": saved, "saw": self.logbook.saw()}
        self.logbook.add(line)
        self._gone += self._values.add(self._cut + self._own, line)
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

        If the run is on trial, that may be what stands between the first call with a key and the loop: an undisturbed
        run had done it before there were any rows.
        """
        if self.is_on_trial:
            self._begin_again("rows that it has kept are written to before anything more is kept")

    def _begin_again(self, why: str) -> NoReturn:
        self._distrust(why)
        raise WarehouseError(
            f"{self.logbook.who} begins anew, since it can't go on with what an interrupted run has left: {why}"
        )

    def _distrust(self, why: str) -> None:
        self._stopped = self.must_begin_again = True
        self.logbook.distrust()
        log().warning(
            "%s: what an interrupted run has left can't be gone on with, and the reactor begins anew: %s",
            *(self.logbook.who, why),
        )


class _Values:
    """Which values a later run may ask for: of each key the last one, that beside the last rows, and the one before.

    Attributes
    ----------
    folders : set of str
        Where they lie.
    """

    def __init__(self) -> None:
        self.folders: set[str] = set()
        self._of: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._rows_at = -1

    def add(self, place: int, line: dict[str, Any]) -> list[dict[str, Any]]:
        """A line counts, too; those that a later run won't ask for any more."""
        if line["rows"]:
            self._rows_at = place
        if "value" not in line:
            return []
        values = self._of.setdefault(line["key"], [])
        before = sum(at < self._rows_at for at, _ in values)
        staying = values[max(0, before - 1) : before + (before < len(values) and values[before][0] == self._rows_at)]
        gone = [value for at, value in values if (at, value) not in staying]
        values[:] = [*staying, (place, line["value"])]
        self.folders.difference_update([value["folder"] for value in gone])
        self.folders.add(line["value"]["folder"])
        return gone

    def cut(self, stop: int) -> None:
        """The lines from one on don't count any more."""
        for values in self._of.values():
            values[:] = [each for each in values if each[0] < stop]
        self.folders = {value["folder"] for values in self._of.values() for _, value in values}


def _is_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two values have the same bytes."""
    return to_json({**one, "folder": ""}) == to_json({**other, "folder": ""})


def _last_before(places: Sequence[int], stop: int) -> int | None:
    """The last of some places, in order, that is before another one."""
    count = bisect_left(places, stop)
    return places[count - 1] if count else None


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

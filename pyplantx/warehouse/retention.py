"""What may go when space is needed, in which order, and how that is told.

This file may know: what is stored, as lists of numbers; roots; limits; the words of the reports. It may not know: the
disk, the index, locks, what time it is. So `decide` is one function that a test can hold against a dictionary.

The rule: roots stay. Of the rest goes what a limit wants gone, and for a limit of size the cheapest first, in *seconds
of computing per byte*: what `decide` gives up costs the least time to have again for the space that it frees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pyplantx.basics.disk import UNKNOWN
from pyplantx.basics.tuples import NamedTuple
from pyplantx.basics.units import show_bytes, show_seconds
from pyplantx.core.trace import Digest

#: Lines of a table that are printed; the rest is summed up.
_MOST_LINES = 20

_UNKNOWN = float("inf")  # nobody knows what it costs to have it again: it goes last


class Stored(NamedTuple):
    """One payload in the store.

    Attributes
    ----------
    address : Digest
        Where it is.
    names : tuple of str
        The ingredients that it is a version of; empty if no trace names it any more.
    version : int
        Its place among the stored versions of its ingredient: 1 is the newest. Of several names the smallest; 0
        without a name.
    bytes : int
        Its size.
    seconds : float or None
        What the run took that made it; None if that is not known.
    used : float
        When it was made, or when a script that reached it last ran: seconds since 1970.
    """

    address: Digest
    names: tuple[str, ...]
    version: int
    bytes: int
    seconds: float | None
    used: float

    @property
    def worth(self) -> float:
        """Seconds of computing per byte."""
        return _UNKNOWN if self.seconds is None else self.seconds / max(self.bytes, 1)

    def __str__(self) -> str:
        return ", ".join(self.names) if self.names else f"object {self.address}"


class Limits(NamedTuple):
    """What is wanted gone; None: no such limit.

    Attributes
    ----------
    max_size : int or None
        Bytes that all payloads together may take.
    keep_versions : int or None
        How many versions of each ingredient stay.
    older_than : float or None
        Seconds; what was not used for longer goes.
    """

    max_size: int | None = None
    keep_versions: int | None = None
    older_than: float | None = None


class Verdict(NamedTuple):
    """One payload, and why it goes or stays."""

    stored: Stored
    why: str


def decide(
    stored: Iterable[Stored], roots: Mapping[Digest, str], limits: Limits, now: float
) -> tuple[list[Verdict], list[Verdict]]:
    """What goes and what stays.

    Parameters
    ----------
    stored : iterable of Stored
        All payloads.
    roots : mapping of Digest to str
        Addresses that stay, and why.
    limits : Limits
        Each one that is given is enforced; together they let go what any of them wants gone.
    now : float
        Seconds since 1970.

    Returns
    -------
    (gone, kept) : two lists of Verdict
        `gone` in the order in which it goes.
    """
    gone: list[Verdict] = []
    kept: list[Verdict] = []
    free: list[Stored] = []
    for item in stored:
        why = _out_of_limits(item, limits, now)
        if item.address in roots:
            kept.append(Verdict(item, roots[item.address]))
        elif why:
            gone.append(Verdict(item, why))
        else:
            free.append(item)
    spare = _to_spare(free, sum(verdict.stored.bytes for verdict in kept), limits.max_size)
    gone += [Verdict(item, f"over {show_bytes(limits.max_size or 0)}") for item in free[:spare]]
    kept += [Verdict(item, "within the limits") for item in free[spare:]]
    return gone, kept


def _out_of_limits(item: Stored, limits: Limits, now: float) -> str:
    """Why age or number want it gone; "" if they don't."""
    if limits.older_than is not None and now - item.used > limits.older_than:
        return f"not used for {show_seconds(now - item.used)}"
    if limits.keep_versions is not None and not 0 < item.version <= limits.keep_versions:
        return f"not among the newest {limits.keep_versions}" if item.version else "no ingredient's version"
    return ""


def _to_spare(free: list[Stored], held: int, max_size: int | None) -> int:
    """How many have to go; puts `free` into the order in which they do."""
    free.sort(key=lambda item: (item.worth, item.used, item.address))
    total = held + sum(item.bytes for item in free)
    count = 0
    while max_size is not None and total > max_size and count < len(free):
        total -= free[count].bytes
        count += 1
    return count


def rank_versions(newest_first: Mapping[str, Sequence[Digest]]) -> dict[Digest, tuple[tuple[str, ...], int]]:
    """Names and smallest place of each address; see `Stored`.

    Parameters
    ----------
    newest_first : mapping of str to sequence of Digest
        Of each name its versions.
    """
    names: dict[Digest, list[str]] = {}
    places: dict[Digest, int] = {}
    for name in sorted(newest_first):
        for place, address in enumerate(newest_first[name], 1):
            names.setdefault(address, []).append(name)
            places[address] = min(place, places.get(address, place))
    return {address: (tuple(names[address]), place) for address, place in places.items()}


# -- reports ----------------------------------------------------------------------------------------------------------


class Collected(NamedTuple):
    """What a collection did, or would do. ``print`` shows it as a table.

    Attributes
    ----------
    gone : tuple of Verdict
        In the order in which it went: each with names, version, bytes, seconds to make it again, and why.
    kept : tuple of Verdict
        What stays, and why.
    limits : Limits
        What was asked for.
    dry_run : bool
        Whether nothing was to be removed.
    hindrance : str
        Why nothing could be removed, such as that another process has the store open; "" if nothing hindered.
    garbage : int
        Bytes that were removed beside that: what killed processes had left, which no ingredient needs.
    """

    gone: tuple[Verdict, ...]
    kept: tuple[Verdict, ...]
    limits: Limits
    dry_run: bool = False
    hindrance: str = ""
    garbage: int = 0

    @property
    def freed(self) -> int:
        """Bytes of what is gone."""
        return sum(verdict.stored.bytes for verdict in self.gone)

    @property
    def left(self) -> int:
        """Bytes of what is kept."""
        return sum(verdict.stored.bytes for verdict in self.kept)

    @property
    def seconds(self) -> float:
        """What it takes to make again all that is gone, as far as that is known."""
        return sum(verdict.stored.seconds or 0.0 for verdict in self.gone)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return str(self)  # as one reads it at a prompt

    def _lines(self) -> list[str]:
        removes = self.dry_run or self.hindrance
        verb = "would remove" if removes else "removed"
        lines = [f"{verb} {show_bytes(self.freed)} in {_count(len(self.gone), 'version')}, {self._price()}"]
        if self.hindrance:
            lines.insert(0, f"nothing was removed: {self.hindrance}")
        rows = [_row(verdict) for verdict in self.gone]
        lines += table(("ingredient", "version", "size", "to make again", "why"), rows, right=(1, 2, 3))
        if self.garbage:
            lines.append(f"and {show_bytes(self.garbage)} that killed processes had left")
        lines.append(f"{'would stay' if removes else 'stays'}: {show_bytes(self.left)}")
        lines += table(("why", "versions", "size"), self._reasons(), right=(1, 2))
        limit = self.limits.max_size
        if limit is not None and self.left > limit:
            over = show_bytes(self.left - limit)
            lines.append(f"that is {over} over the limit of {show_bytes(limit)}: all of it is needed")
        return lines

    def _price(self) -> str:
        unknown = sum(verdict.stored.seconds is None for verdict in self.gone)
        beside = f" and {unknown} of unknown cost" if unknown else ""
        return f"{show_seconds(self.seconds)}{beside} to make again"

    def _reasons(self) -> list[tuple[str, ...]]:
        """What stays, summed up by reason, the largest sum first."""
        sizes: Counter[str] = Counter()
        numbers: Counter[str] = Counter()
        for item, why in self.kept:
            sizes[why] += item.bytes
            numbers[why] += 1
        return [(why, str(numbers[why]), show_bytes(size)) for why, size in sizes.most_common()]


def _row(verdict: Verdict) -> tuple[str, ...]:
    item = verdict.stored
    cost = "unknown" if item.seconds is None else show_seconds(item.seconds)
    return _clipped(str(item)), str(item.version or "-"), show_bytes(item.bytes), cost, verdict.why


class Holding(NamedTuple):
    """What one ingredient holds.

    Attributes
    ----------
    name : str
        Of the ingredient; "" sums up payloads that no trace names any more.
    versions : int
        How many versions of it are stored.
    bytes : int
        What they take. What two ingredients share counts for both.
    used : float
        When one of them was last made or reached: seconds since 1970; 0 if none is stored.
    pinned : bool
        Whether one of them is pinned.
    """

    name: str
    versions: int
    bytes: int
    used: float
    pinned: bool


class DiskUse(NamedTuple):
    """Who holds what on disk. ``print`` shows it as a table.

    Attributes
    ----------
    ingredients : tuple of Holding
        The largest first.
    homes : dict of str to int
        Bytes of payloads by where they live: ``"record"`` (in the index), ``"small"``, ``"files"``.
    places : dict of str to int
        Bytes on disk of each part of the directory: ``"index"``, ``"small payloads"``, ``"files"``,
        ``"being written"``, ``"unfinished work"`` (what killed reactors can go on with), ``"damaged, put aside"``,
        ``"backup of the index"``.
    budget : int
        Bytes of payloads at which a collection begins.
    now : float
        When this was found out: seconds since 1970.
    """

    ingredients: tuple[Holding, ...]
    homes: dict[str, int]
    places: dict[str, int]
    budget: int
    now: float

    @property
    def payloads(self) -> int:
        """Bytes of all payloads; the budget is about these."""
        return sum(self.homes.values())

    @property
    def total(self) -> int:
        """Bytes on disk."""
        return sum(self.places.values())

    def __repr__(self) -> str:
        return str(self)  # as one reads it at a prompt

    def __str__(self) -> str:
        share = f"{100 * self.payloads / max(self.budget, 1):.0f} % of the budget of {show_bytes(self.budget)}"
        if self.budget == UNKNOWN:
            share = "without a budget: the file system doesn't tell its size"
        rows = [_holding_row(holding, self.now) for holding in self.ingredients]
        places = [(place, show_bytes(size)) for place, size in self.places.items() if size]
        return "\n".join(
            [
                f"{show_bytes(self.payloads)} of payloads, {share}",
                *table(("ingredient", "versions", "size", "last used", ""), rows, right=(1, 2)),
                f"on disk: {show_bytes(self.total)}",
                *table(("where", "size"), places, right=(1,)),
            ]
        )


def _holding_row(holding: Holding, now: float) -> tuple[str, ...]:
    ago = f"{show_seconds(max(0.0, now - holding.used))} ago" if holding.versions else ""
    pinned = "pinned" if holding.pinned else ""
    name = _clipped(holding.name) if holding.name else "(former versions without a name)"
    return name, str(holding.versions), show_bytes(holding.bytes), ago, pinned


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Lines of a table with a heading; nothing at all if there are no rows.

    Parameters
    ----------
    head : tuple of str
        The headings.
    rows : sequence of tuple of str
        As many cells each. Beyond 20 the others are counted only.
    right : tuple of int
        The columns that are flush right.
    """
    if not rows:
        return []
    shown = [head, *rows[:_MOST_LINES]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
    lines = ["  " + _joined(row, widths, right) for row in shown]
    if len(rows) > _MOST_LINES:
        lines.append(f"  … and {len(rows) - _MOST_LINES:,} more")
    return lines


def _joined(row: tuple[str, ...], widths: list[int], right: tuple[int, ...]) -> str:
    cells = zip(row, widths, strict=True)
    padded = [cell.rjust(width) if at in right else cell.ljust(width) for at, (cell, width) in enumerate(cells)]
    return "  ".join(padded).rstrip()


def _clipped(text: str) -> str:
    """On one line, and not longer than a table has room for."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

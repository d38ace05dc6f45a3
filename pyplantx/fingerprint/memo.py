"""What is known about code objects, as a program asks for it: all of its functions at once.

Records of a thousand functions are kept together, in one text for each program: to write or read one by itself costs
two microseconds, in every process. A few that are new, after an edit, are kept by themselves, each under the raw digest
of its code. A program that is new here, or asks for much that it never asked for (a script was renamed, a module is
used by another one), looks into the texts that others have kept last. What a killed process had found out is found out
again.
"""

from __future__ import annotations

from typing import Protocol

from pyplantx.core.trace import Digest

#: The text is written anew when so many were not in it, and they are more than this part of it.
_MANY, _PART = 16, 1 / 8
#: Key of the list of programs that have written a text, the last one first; and how many it names.
_WRITERS, _LISTED = "", 8


class Notes(Protocol):
    """Where records of code, and small texts, are kept between processes."""

    def get_code(self, raw: Digest) -> str | None: ...
    def put_code(self, raw: Digest, record: str) -> None: ...
    def blob_get(self, kind: str, key: str) -> str | None: ...
    def blob_put(self, kind: str, key: str, text: str) -> None: ...


class PackedMemo:
    """A `CodeMemo` that reads what this program has asked for last time in one piece.

    Parameters
    ----------
    notes : Notes
    program : str
        Names the program that asks, from one run to the next.
    """

    def __init__(self, notes: Notes, program: str) -> None:
        self._notes, self._program = notes, program
        self._pack: dict[Digest, str] | None = None
        self._asked: dict[Digest, str] = {}
        self._new: dict[Digest, str] = {}  # not kept yet
        self._alone = 0  # how many were not in the pack
        self._others: dict[Digest, str] | None = None  # what other programs have kept

    def get_code(self, raw: Digest) -> str | None:
        """See `CodeMemo`."""
        if self._pack is None:
            self._pack = _unpacked(self._notes.blob_get("codes", self._program))
        record = self._pack.get(raw)
        if record is None:
            self._alone += 1
            record = self._notes.get_code(raw) or self._of_others(raw)
        if record is not None:
            self._asked[raw] = record
        return record

    def put_code(self, raw: Digest, record: str) -> None:
        """See `CodeMemo`."""
        self._asked[raw] = self._new[raw] = record

    def keep(self) -> None:
        """Keep what is new; all that was asked for in one text, if much of it was not there."""
        if self._alone >= _MANY and self._alone >= len(self._asked) * _PART:
            self._alone, self._pack = 0, self._asked
            self._notes.blob_put("codes", self._program, _packed(self._asked))
            self._list_as_writer()
        else:
            for raw, record in self._new.items():
                self._notes.put_code(raw, record)
        self._new.clear()

    def _of_others(self, raw: Digest) -> str | None:
        """What another program has found out; not for the few that an edit makes: to read all texts takes a while."""
        if self._pack and self._alone < _MANY:
            return None
        if self._others is None:
            packs = [_unpacked(self._notes.blob_get("codes", program)) for program in self._writers()]
            self._others = {raw: record for pack in packs for raw, record in pack.items()}
        return self._others.get(raw)

    def _writers(self) -> list[str]:
        return [program for program in (self._notes.blob_get("codes", _WRITERS) or "").split("\0") if program]

    def _list_as_writer(self) -> None:
        others = [program for program in self._writers() if program != self._program]
        self._notes.blob_put("codes", _WRITERS, "\0".join([self._program, *others][:_LISTED]))


def _packed(records: dict[Digest, str]) -> str:
    return "\n".join([line for pair in records.items() for line in pair])


def _unpacked(text: str | None) -> dict[Digest, str]:
    """Digest to record: lines that take turns."""
    lines = text.split("\n") if text else []
    return dict(zip(lines[::2], lines[1::2]))

"""The numbers of an index's commits: which of them are another process's.

This file may know: numbers, as LMDB counts the commits of a file, whoever makes them. It may not know: lmdb.
"""

from __future__ import annotations

import threading


class Commits:
    """What is known of the commits of one index."""

    def __init__(self) -> None:
        self._noting = threading.RLock()  # one thread notes a commit at a time
        self._last_foreign = 0  # number of the newest commit of another process that was noticed
        self._last = 0  # number of the newest commit that is known, whoever made it
        self._own = 0  # number of the one that we are writing just now

    def begin(self, number: int) -> None:
        """We are about to write that one. Beforehand: another thread may see it before the writer goes on."""
        self._own = number

    def end(self) -> None:
        """While it is still our turn: if nothing was written, another's commit gets that number."""
        self._own = 0

    def note(self, number: int) -> int:
        """The index is seen to be at this commit.

        Returns
        -------
        int
            The newest one known that is another's. In doubt (a number was skipped) our own counts as such.
        """
        if number > self._last:
            with self._noting:
                self._note_next(number)
        return self._last_foreign

    def _note_next(self, number: int) -> None:
        if number > self._last:
            if not number == self._own == self._last + 1:
                self._last_foreign = number  # first: who finds nothing to note any more reads what is noted
            self._last = number

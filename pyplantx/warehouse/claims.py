"""Work claims: of two processes that want the same reactor run, one runs it and the other waits for the result.

This file may know: lock files. It may not know: what the work is; a key is any text.

A claim is a locked file, so it dies with its holder. Waiting is bounded, and a wait that would close a circle (we wait
for somebody who waits for us) is not begun: then both compute, which costs time and is never wrong.
"""

from __future__ import annotations

import os
import time

from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.locks import FileLock
from pyplantx.warehouse.objects import fresh_id

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
_LONGEST_CHAIN = 64


class Claim:
    """The right to do one piece of work, until `release`, the end of the ``with`` block, or the end of the process."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        """Give it up; doing so twice does no harm."""
        if self._lock.is_open:
            _remove(self._lock.path)  # while it is locked: nobody can hold the file that we remove
            self._lock.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Claims:
    """The claims of one warehouse object.

    Parameters
    ----------
    folder : str
        Where the lock files are.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._me = fresh_id()

    def claim(self, key: str, timeout: float) -> Claim | None:
        """Take the claim on `key`, waiting for its holder at most `timeout` seconds.

        Parameters
        ----------
        key : str
            Names the work, such as the root and the node at which a replay fell off.
        timeout : float
            Seconds; 0 only tries.

        Returns
        -------
        Claim or None
            None if another still holds it, or waits for us: do the work without a claim.
        """
        deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
        claim = self._try(key)
        while claim is None and time.monotonic() < deadline and not self._closes_circle(key):
            self._note_waiting(key)
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            claim = self._try(key)
        if timeout > 0:
            _remove(self._waiting_path(self._me))
        return claim

    def _try(self, key: str) -> Claim | None:
        while True:
            lock = FileLock(self._path(key))
            if not lock.acquire():
                lock.close()
                return None
            if lock.is_current():
                lock.sign(self._me)
                return Claim(lock)
            lock.close()  # its holder removed it between our opening and our locking: there is a new one

    def _closes_circle(self, key: str) -> bool:
        """Whether the holder of `key` waits, directly or through others, for a claim of ours."""
        for _ in range(_LONGEST_CHAIN):
            _, holder = FileLock(self._path(key)).holder()
            if holder == self._me:
                return True
            waited_for = self._waits_for(holder)
            if waited_for is None:
                return False
            key = waited_for
        return True

    def _note_waiting(self, key: str) -> None:
        with open(self._waiting_path(self._me), "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(key)

    def _waits_for(self, holder: str) -> str | None:
        try:
            with open(self._waiting_path(holder), encoding="utf-8", errors="surrogatepass") as file:
                return file.read()
        except (OSError, ValueError):
            return None  # it does not wait, or has ended

    def _path(self, key: str) -> str:
        return os.path.join(self._folder, f"{hash_text(key)}.claim")

    def _waiting_path(self, holder: str) -> str:
        return os.path.join(self._folder, f"{holder if holder.isalnum() else 'nobody'}.waits")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return

"""Taking turns with other processes: of those that want one and the same run, one does it.

Before a reactor starts, its piece of work (the node of its trace tree where its replay fell off) is
claimed. Who finds it claimed waits, and then asks the traces again: by then the answer is usually there.
So does who gets the claim, if others have written anything since the traces were asked: the last holder may just have
come to its end. What a holder leaves can be seen before its claim is free, so one look behind the claim is enough.
If the answer is not there, the replay falls off elsewhere now (the first run has shown what is asked, and here the
config answers otherwise): that is another piece of work, which somebody else may have begun.
A claim costs three microseconds, the look behind it less than one, and a claim dies with its holder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyplantx.core.messages import ReactorId, Reason
    from pyplantx.core.trace import Digest
    from pyplantx.warehouse.claims import Claim
    from pyplantx.warehouse.warehouse import Warehouse

#: Runs for other reasons are not shared: they were asked for, or are to be done again.
_SHARED = ("new", "changed")


class Turns:
    """The claims of one activity.

    Parameters
    ----------
    warehouse : Warehouse
        Where the claims are.
    timeout : float
        Seconds to wait for another's run; after that it is done here too.
    is_alone_since : callable
        Whether nobody else has written anything, as far as the warehouse's view goes, since a reactor was looked up.
    """

    def __init__(self, warehouse: Warehouse, timeout: float, is_alone_since: Callable[[ReactorId], bool]) -> None:
        self._warehouse, self._timeout, self._is_alone_since = warehouse, timeout, is_alone_since
        self._claims: dict[ReactorId, Claim] = {}
        self._waits_end: dict[ReactorId, float] = {}  # of those that were asked again

    def take(self, id: ReactorId, node: Digest, reason: Reason) -> bool:
        """Claim a run. True if it is to start now; False if the traces are to be asked once more before."""
        if reason.kind not in _SHARED:
            return True
        claim = self._warehouse.new_claim(node)
        if id in self._claims:
            if self._claims[id].key == claim.key or time.monotonic() >= self._waits_end.get(id, 0.0):
                return True
            self.release(id)  # who waits for that piece of work may have to do another one, too
        self._claims[id] = claim
        is_ours = claim.take()
        self._warehouse.refresh()
        if is_ours and self._is_alone_since(id):
            return True
        end = self._waits_end.setdefault(id, time.monotonic() + self._timeout)
        if not is_ours:
            claim.take(end - time.monotonic())
            self._warehouse.refresh()
        return False

    def release(self, id: ReactorId) -> None:
        """The run is over, and what it left can be seen by others."""
        claim = self._claims.get(id)
        if claim is not None:
            claim.release()  # before it is forgotten: Ctrl-C may come between
            self._claims.pop(id, None)

    def release_all(self) -> None:
        """The activity is over."""
        for id in list(self._claims):
            self.release(id)

"""What goes wrong in a plant, with what can be done about it: looked for among the reactors and in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyplantx.errors import NoProducer, PyplantxError, near_misses
from pyplantx.runs.failures import error_of

if TYPE_CHECKING:
    from pyplantx.core.messages import Failure
    from pyplantx.session.roster import Roster
    from pyplantx.warehouse.warehouse import Warehouse


class Advice:
    """Makes the errors about ingredients.

    Parameters
    ----------
    reactors : Roster
    warehouse : Warehouse
    """

    def __init__(self, reactors: Roster, warehouse: Warehouse) -> None:
        self._reactors, self._warehouse = reactors, warehouse

    def error_of(self, failure: Failure, cause: BaseException | None = None) -> BaseException:
        """The exception for a failure; see `failures.error_of`."""
        return error_of(
            failure,
            lambda id: self._reactors[id].name,
            near_misses=self.near_misses,
            advise=self._where_nobody_sends,
            cause=cause,
        )

    def error_of_unknown(self, name: str) -> NoProducer:
        """The exception for an ingredient that is asked for without running anything, and not stored."""
        close = self.near_misses(name)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "plant.produce(...) runs what is needed"
        return NoProducer(f"no ingredient {name!r} is stored", hint=hint)

    def near_misses(self, name: str) -> list[str]:
        """Names that may have been meant, of all that are stored or that the code says are sent."""
        try:
            stored = set(self._warehouse.names())
        except PyplantxError:  # a reactor kept the error, and it is read when the store is closed
            stored = set()
        return near_misses(name, (stored | set(self._reactors.hinted_names())) - {name})

    def _where_nobody_sends(self, name: str) -> str:
        """What to do if no reactor sends an ingredient; "" where its name says nothing."""
        hinted = [self._reactors[id].name for id in self._reactors.hinted(name)]
        if hinted:
            return f"{' and '.join(hinted)} would send it, by what the code says, and did not: is that line reached?"
        if any(reactor.name == name for reactor in self._reactors):
            return f"there is a reactor {name}, but what it returns is not kept: pipe.send({name!r}, value) in it"
        if self._warehouse.last_ref(name) is not None:
            return f"other reactors have sent it to this store: plant.fetch_ingredient({name!r}) gives the last version"
        return ""

"""Who executes: the protocol that the plant knows, and the executors that keep to it.

The scheduler decides, an executor executes. Values do not pass between them: only names, digests and
traces do. What a step came to is told by `reply`, as one of the scheduler's events (`Asked`, `Ended`,
`Raised`, `Missing`, `Lost`).

An executor executes whole reactors; there is one, in ``local.py``. *Workers* call the functions of ``pipe.map_blocks``
and ``pipe.reduce_blocks``: ``workers.py`` says which there are, ``processes.py``, ``worker.py`` and ``channel.py``
are those in processes of the plant's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyplantx.core.messages import Event, Failure, ReactorId
    from pyplantx.core.trace import ObjectRef
    from pyplantx.runs.run import Run

Reply = Callable[["Event"], None]


class Executor(Protocol):
    """Starts, resumes and drops reactors."""

    #: Whether reactors run in the plant's own process.
    in_process: bool

    def start(self, reactor: ReactorId, make_run: Callable[[], Run], reply: Reply) -> None:
        """Run a reactor from its beginning until it stops."""

    def resume(self, reactor: ReactorId, refs: tuple[ObjectRef, ...], reply: Reply) -> None:
        """Go on with a waiting reactor."""

    def throw(self, reactor: ReactorId, failure: Failure, reply: Reply) -> None:
        """Raise a failure in a waiting reactor."""

    def drop(self, reactor: ReactorId) -> None:
        """Close a reactor that waits."""

    def line(self, reactor: ReactorId) -> str:
        """Where it waits, as "file:line"; "" if that is not known."""

    def busy(self) -> bool:
        """Whether a step is under way whose reply is still to come."""

    def close(self) -> None:
        """Close all reactors that wait."""

"""The serial executor: reactors run one after the other in the plant's own thread.

``breakpoint()`` works, tracebacks are whole, nothing is pickled. It is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyplantx.core.messages import Failure, ReactorId
    from pyplantx.core.trace import ObjectRef
    from pyplantx.executors import Reply
    from pyplantx.runs.run import Outcome, Run

from pyplantx.core.messages import Asked, Missing
from pyplantx.subreactor import everybody


class SerialExecutor:
    """Runs each step at once and replies before it returns."""

    in_process = True

    def __init__(self) -> None:
        self._runs: dict[ReactorId, Run] = {}
        everybody.join(self)

    def start(self, reactor: ReactorId, make_run: Callable[[], Run], reply: Reply) -> None:
        """See `Executor.start`."""
        if reactor in self._runs:
            self.drop(reactor)
        run = self._runs[reactor] = make_run()
        self._tell(reactor, run.start(), reply)

    def resume(self, reactor: ReactorId, refs: tuple[ObjectRef, ...], reply: Reply) -> None:
        """See `Executor.resume`."""
        self._tell(reactor, self._runs[reactor].resume(refs), reply)

    def throw(self, reactor: ReactorId, failure: Failure, reply: Reply) -> None:
        """See `Executor.throw`."""
        self._tell(reactor, self._runs[reactor].throw(failure), reply)

    def drop(self, reactor: ReactorId) -> None:
        """See `Executor.drop`."""
        run = self._runs.pop(reactor, None)
        if run is not None:
            run.close()

    def line(self, reactor: ReactorId) -> str:
        """See `Executor.line`."""
        run = self._runs.get(reactor)
        return run.line() if run is not None else ""

    def runs(self) -> Iterable[Run]:
        """The runs that have begun and not ended; see `pyplantx.subreactor.Crew`."""
        return self._runs.copy().values()  # at once: it may change while another thread goes through it

    def busy(self) -> bool:
        """Never: every reply came before the call returned."""
        return False

    def close(self) -> None:
        """See `Executor.close`."""
        try:
            while self._runs:
                self.drop(next(reversed(self._runs)))
        except BaseException:  # Ctrl-C in one of them: the others are ended, too
            self.close()
            raise

    def _tell(self, reactor: ReactorId, outcome: Outcome, reply: Reply) -> None:
        kind = type(outcome)
        if kind is not Asked and kind is not Missing:
            del self._runs[reactor]
        reply(outcome)

"""Runs of reactors that have a timeout.

This file may know: runs, deadlines. Imported when the first such reactor starts: who sets no timeout pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pyplantx.basics.units import show_seconds
from pyplantx.errors import ReactorTimeout
from pyplantx.runs.deadlines import Deadline, TimeIsUp
from pyplantx.runs.failures import own_line
from pyplantx.runs.run import Outcome, Run

if TYPE_CHECKING:
    from pyplantx.core.trace import ObjectRef

#: Names of ingredients that an error tells.
_SHOWN = 8

#: Seconds that a reactor's ``finally`` may take in any case.
_LEAST = 1.0


class TimedRun(Run):
    """A run that is ended when the reactor's own code has taken longer than its ``timeout``.

    Parameters are those of `Run`.
    """

    __slots__ = ("_deadline", "_received")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        assert self.reactor.timeout is not None
        self._deadline = Deadline(self.reactor.timeout)
        self._received: list[str] = []

    def resume(self, refs: tuple[ObjectRef, ...]) -> Outcome:
        """See `Run`."""
        if self._request is not None:
            self._received += self._request.names
        return super().resume(refs)

    def _step(self, function: Callable[[Any], Any], argument: Any) -> Outcome:
        return super()._step(partial(self._within_its_time, function), argument)

    def _within_its_time(self, function: Callable[[Any], Any], argument: Any) -> Any:
        try:
            yielded = self._deadline.call(function, argument)
            if not self._deadline.has_passed:
                return yielded
            self._deadline.call(super()._end_body, least=_LEAST)  # it has caught what was to end it, and goes on
        except (Exception, TimeIsUp) as error:
            if not self._deadline.has_passed:  # it is not over; or that of a reactor around this plant is
                raise
            raise self._timeout(error) from None if isinstance(error, TimeIsUp) else error
        raise self._timeout(None)

    def _end_body(self) -> None:
        try:
            self._deadline.call(super()._end_body, least=_LEAST)
        except TimeIsUp as error:
            if not self._deadline.has_passed:  # as above
                raise
            raise self._timeout(error) from None

    def _timeout(self, error: BaseException | None) -> ReactorTimeout:
        """The error to raise; with the traceback of what has ended the reactor."""
        line = own_line(self._deadline.stood)
        where = f" ({line})" if line else ""
        told = ReactorTimeout(
            f"reactor {self.reactor.name} has run for longer than its timeout of {show_seconds(self._limit)}{where}; "
            f"it had received {self._shown_received()}",
            hint="the line is where it was when the time was over; timeout= gives it longer, and changing that runs "
            "nothing again",
        )
        return told.with_traceback(error.__traceback__ if isinstance(error, TimeIsUp) else None)

    @property
    def _limit(self) -> float:
        return self.reactor.timeout or 0.0

    def _shown_received(self) -> str:
        names = [repr(name) for name in dict.fromkeys(self._received)]  # twice, if a payload was gone
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return (", ".join(names[-_SHOWN:]) + more) or "nothing"

"""What a plant announces while it works, and who listens.

Listeners are called in the plant's thread, in the order in which they were added. An exception in a
listener comes out of the plant's call: it is the user's code.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pyplantx.basics.given import check_callable, refusal


class EventType(enum.Enum):
    """Kinds of events; also reachable as ``Plant.EventType``.

    Every listener is called as ``listener(event_type, name, function)``.
    """

    unknown = 0
    #: A reactor begins to run (not: is found up to date).
    reactor_started = 1
    #: A subreactor is entered.
    subreactor_started = 2
    #: A reactor's products and trace are durable. May come after a successor's `reactor_started`.
    reactor_finished = 3
    #: A reactor goes on after a ``yield``.
    reactor_step = 4


Listener = Callable[..., Any]


class Listeners:
    """The listeners of one plant."""

    def __init__(self) -> None:
        self._listeners: dict[EventType, list[Listener]] = {}

    def add(self, event_type: EventType, listener: Listener) -> None:
        """Call `listener(event_type, name, function)` at every such event.

        Raises
        ------
        BadRequest
            If there is no such event, or the listener can't be called.
        """
        if not isinstance(event_type, EventType):
            kinds = ", ".join([kind.name for kind in EventType if kind is not EventType.unknown])
            raise refusal("an event", event_type, f"Plant.EventType has {kinds}")
        check_callable("a listener", listener, "def listener(event_type, name, function): ...")
        self._listeners.setdefault(event_type, []).append(listener)

    def remove(self, listener: Listener) -> None:
        """Call it no more, whatever it listened to."""
        for listeners in self._listeners.values():
            while listener in listeners:
                listeners.remove(listener)

    def wants(self, event_type: EventType) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners) and bool(self._listeners.get(event_type))

    def tell(self, event_type: EventType, name: str, function: Any) -> None:
        """Call all who listen to this kind; then the first error that one of them has raised is raised."""
        if not self._listeners:
            return
        listeners = self._listeners.get(event_type, ())
        call_each([partial(listener, event_type, name, function) for listener in listeners])


def call_each(calls: Iterable[Callable[[], object]]) -> None:
    """Make all these calls; then the first error that one of them has raised is raised."""
    first: Exception | None = None
    for call in calls:
        try:
            call()
        except Exception as error:
            first = first or error
    try:
        if first is not None:
            raise first
    finally:
        del first  # it has this frame

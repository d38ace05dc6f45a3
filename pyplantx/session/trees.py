"""The trace trees of a plant's reactors, as one activity finds and grows them.

The scheduler asks for roots and nodes and gets segments; what a run has left is given back as the one record to write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyplantx.basics.logs import log
from pyplantx.core.replay import Again, AskLocally, replay
from pyplantx.core.state import sent_names
from pyplantx.core.trace import (
    MODULE,
    Digest,
    Group,
    Observation,
    Question,
    Segment,
    Step,
    branch_key,
    decode_segment,
    graft,
)
from pyplantx.fingerprint.value import hash_text

if TYPE_CHECKING:
    from pyplantx.core.messages import ReactorId, Record
    from pyplantx.session.roster import Roster
    from pyplantx.warehouse.warehouse import Warehouse

#: A record under a root that begins so names the root of an earlier version whose traces count for this one.
ACCEPTED = "accepted "

#: See `Trees.outlook`; the better ones first.
SENDS, HANGS, RUNS = range(3)

#: Texts of so many characters are worth keeping decoded, up to so many in all.
_LONG, _MOST_KEPT = 1 << 13, 1 << 20

_new = tuple.__new__  # see `core/trace.py`


class Segments:
    """Decodes the records of a plant's trees; long ones that are asked for in one demand after the other only once.

    A reactor that has sent a thousand ingredients is replayed for each of them that is produced by itself, and half of
    that would be to read its trace.
    """

    def __init__(self) -> None:
        self._kept: dict[Digest, tuple[str, Segment]] = {}  # the last ones last

    def decoded(self, key: Digest, text: str | None) -> Segment | None:
        """The segment of a record; one that can't be read is as good as none: the reactor runs."""
        if text is None:
            return None
        kept = self._kept.get(key)
        if kept is not None and kept[0] == text:
            return kept[1]
        try:
            segment = decode_segment(text)
        except ValueError as error:
            log().warning("a trace record can't be read and is left out of account: %s", error)
            return None
        if _LONG <= len(text) <= _MOST_KEPT:
            self._keep(key, text, segment)
        return segment

    def _keep(self, key: Digest, text: str, segment: Segment) -> None:
        self._kept.pop(key, None)
        room = _MOST_KEPT - len(text)
        for other in reversed(list(self._kept)):
            room -= len(self._kept[other][0])
            if room < 0:
                del self._kept[other]
        self._kept[key] = text, segment


class Trees:
    """Reads and grows the trees.

    Parameters
    ----------
    warehouse : Warehouse
        Where they are kept.
    reactors : Roster
        Whose they are.
    segments : Segments
        What decodes them.
    """

    def __init__(self, warehouse: Warehouse, reactors: Roster, segments: Segments) -> None:
        self._warehouse, self._reactors, self._decoded = warehouse, reactors, segments.decoded
        self._looked_up: dict[ReactorId, int] = {}  # reactor -> `Warehouse.foreign_changes` when its root was found
        self._written: set[Digest] = set()  # keys of the segments that were grown here

    def root(self, id: ReactorId) -> tuple[Digest, Segment | None]:
        """Key and segment of the root of a reactor's tree: its fingerprint, or that of an earlier version."""
        self._looked_up[id] = self._warehouse.foreign_changes()  # first: what comes between may have been overlooked
        return self._look_up(id)

    def _look_up(self, id: ReactorId) -> tuple[Digest, Segment | None]:
        key = self._reactors.root(id)
        text = self._warehouse.find_record(key)
        if text is not None and text.startswith(ACCEPTED):
            key, text = self.accepted(key, text)
        return key, self._decoded(key, text)

    def accepted(self, key: Digest, text: str | None) -> tuple[Digest, str | None]:
        """Where a root leads to whose record is `text`, and the record there; to itself if it only leads back."""
        at, passed = key, set[Digest]()
        while text is not None and text.startswith(ACCEPTED):
            passed.add(at)
            at = text[len(ACCEPTED) :]
            if at in passed:  # such a ring is no traces at all: a run puts one in its place
                return key, None
            text = self._warehouse.find_record(at)
        return at, text

    def find(self, key: Digest) -> Segment | None:
        """The segment of a node."""
        return self._decoded(key, self._warehouse.find_record(key))

    def outlook(self, id: ReactorId, name: str, answer: Callable[[Question], Observation]) -> int:
        """What a reactor's traces say of whether it sends an ingredient today, before it or anybody else is asked.

        Parameters
        ----------
        id : str
            The reactor.
        name : str
            The ingredient.
        answer : callable
            Today's answers to what it observes besides ingredients.

        Returns
        -------
        int
            `SENDS`; `HANGS` on ingredients; `RUNS` to find out, or has run and sent no such thing.
        """
        key, segment = self._look_up(id)
        if segment is None:
            return RUNS
        steps: list[Step] = []
        walk, told = replay(key, segment, self.find, hash_text, steps), None
        while True:
            try:
                wish = walk.send(told)
            except StopIteration as end:
                return SENDS if end.value is None and name in sent_names(steps) else RUNS
            told = None
            if isinstance(wish, Group):
                return SENDS if name in sent_names(steps) else HANGS
            if isinstance(wish, AskLocally):
                told = tuple(map(answer, wish.questions))
            elif isinstance(wish, Again):
                steps = wish.steps

    def bridge(self, id: ReactorId, answer: Callable[[Question], Observation]) -> tuple[Digest, Segment] | None:
        """What makes a trace hold in spite of other answers about observed code: the key and segment to write.

        It is the trace that today's config leads to, or else the newest. Ingredients are taken to be what was
        recorded: who replays it will ask for them.

        Parameters
        ----------
        id : str
            The reactor.
        answer : callable
            Today's answers to what it observes besides ingredients.

        Returns
        -------
        (key, segment) or None
            None if the tree holds that trace with today's code.
        """
        root, segment = self._look_up(id)
        return None if segment is None else graft(root, self._with_code(root, segment, answer), self.find, hash_text)

    def _with_code(self, key: Digest, segment: Segment, answer: Callable[[Question], Observation]) -> list[Step]:
        """A trace with today's answers about code, which is looked for with the recorded ones."""
        trace: list[Step] = []
        passed: list[Step] = []  # since the node
        waiting = list(reversed(segment.steps))
        while waiting:
            step = waiting.pop()
            today = _today(step, answer, _is_of_world)
            if today != step:
                branch = branch_key(key, [*passed, today], hash_text)
                found = self.find(branch)
                if found is not None:
                    key, passed, waiting = branch, [], list(reversed(found.steps))
                    trace.append(_today(today, answer, _is_of_code))
                    continue
            passed.append(step)
            trace.append(_today(step, answer, _is_of_code))
        return trace

    def grow(self, record: Record) -> tuple[Digest, Segment] | None:
        """`graft` a new trace: the key and segment to write.

        Where its replay fell off is mostly the place still, and need not be looked for again.
        """
        id, root, steps, joint = record
        grown: tuple[Digest, Segment] | None
        if joint is not None and joint[0] not in self._written and self.is_alone_since(id):
            key, count = joint
            grown = key, _new(Segment, (steps[count:], ""))
        else:
            grown = graft(root, steps, self.find, hash_text)
        if grown is not None:
            self._written.add(grown[0])
        return grown

    def is_alone_since(self, id: ReactorId) -> bool:
        """Whether nobody else has written anything since the reactor was looked up, as far as the view goes."""
        return self._looked_up.get(id) == self._warehouse.foreign_changes()


def _is_of_code(kind: str) -> bool:
    """Whether a question is about called subreactors, modules imported by text, or classes of received objects."""
    return kind in ("subreactor", MODULE, "classes")


def _is_of_world(kind: str) -> bool:
    """Whether it is about anything else but ingredients."""
    return kind != "ingredient" and not _is_of_code(kind)


def _today(step: Step, answer: Callable[[Question], Observation], asks: Callable[[str], bool]) -> Step:
    """A step with today's answers to the questions of some kinds."""
    if not isinstance(step, Group):
        return step
    return Group(tuple(_answered(o, answer) if asks(o.kind) else o for o in step.observations))


def _answered(recorded: Observation, answer: Callable[[Question], Observation]) -> Observation:
    today = answer(Question(recorded.kind, recorded.key))
    if today.answer == recorded.answer:
        return recorded
    return today._replace(shown=today.shown or recorded.shown)

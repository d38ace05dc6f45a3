"""What the scheduler remembers of one demand: its conversations, its ingredients, who waits for whom.

This file holds state and answers questions about it; what changes the state is all in ``scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyplantx.core.messages import Failure, ReactorId, Reason
from pyplantx.core.replay import Replay
from pyplantx.core.trace import Digest, ObjectRef, Segment, Sent, Step, observations_of

NEW, LOOKING, REPLAYING, RUNNING, WAITING, PARKED, DONE, FAILED, DECLINED = (
    "new", "looking", "replaying", "running", "waiting", "parked", "done", "failed", "declined",
)  # fmt: skip

#: State of a conversation -> the states that may follow. Tests hold every change against this table.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    NEW: (LOOKING,),
    LOOKING: (REPLAYING, RUNNING, PARKED),
    REPLAYING: (DONE, RUNNING, PARKED, LOOKING, FAILED),
    RUNNING: (WAITING, DONE, FAILED, DECLINED, LOOKING, RUNNING),
    WAITING: (RUNNING, PARKED, LOOKING, NEW),
    PARKED: (WAITING, RUNNING, LOOKING, NEW),
    DONE: (LOOKING, RUNNING),
    FAILED: (LOOKING,),
    DECLINED: (),
}

#: From this state on a conversation asks and sends nothing, unless it begins again.
OVER = frozenset((DONE, FAILED, DECLINED))

#: Stages of the search for a producer; see `FindProducers`.
DECLARED, HINTED, STRANGERS = 1, 2, 3


class Conversation:
    """One reactor's questions and answers in this demand, replayed or live.

    One walk from the root is a *pass*; content that comes back different begins another one. `steps` is
    the trace of the pass so far, with today's answers.
    """

    __slots__ = (
        "again", "cause", "changed", "dirty", "given", "held", "id", "live", "losses", "names", "pass_", "products",
        "reason", "replay", "restarts", "root", "segment", "sought", "state", "steps", "wait",
    )  # fmt: skip

    def __init__(self, id: ReactorId, cause: Ingredient | None) -> None:
        self.id = id
        self.cause = cause  # the ingredient that it was first asked for; None: the caller wants it
        self.state = NEW
        self.root: Digest = ""
        self.replay: Replay | None = None
        self.segment: Segment | None = None  # the last one that the replay has walked
        self.steps: list[Step] = []
        self.held: list[tuple[Sent, int]] = []  # sent by the replay, not told yet; with the place in `steps`
        self.pass_ = _Pass(self)
        self.wait: Wait | None = None
        self.names: tuple[str, ...] = ()  # the ingredients that it asked for last
        self.products: list[str] = []  # all names that it sent in this demand
        self.sought: list[Ingredient] = []  # what it is tried as a producer of
        self.reason: Reason | None = None  # why it ran last, or is to run when it is needed
        self.changed: Reason | None = None  # what came back different under it
        self.live = self.dirty = self.again = False  # in a run; to begin again; may have sent other names before
        self.losses = self.restarts = 0
        self.given = 0  # the scheduler's clock when it was resumed last

    @property
    def over(self) -> bool:
        return self.state in OVER

    def turn_back(self, steps: list[Step]) -> None:
        """The replay goes on from there; what it told beyond may not come again."""
        self.steps, self.again = steps, True
        self.held = [(sent, position) for sent, position in self.held if position < len(steps)]

    def new_pass(self) -> None:
        self.steps, self.held = [], []
        self.pass_ = _Pass(self)
        self.again = self.again or bool(self.products)

    def holds(self, name: str) -> bool:
        """Whether it has sent `name` in this pass (what a former one sent may not come again)."""
        return not self.again or any(isinstance(step, Sent) and step.name == name for step in self.steps)

    def lacks(self, ingredient: Ingredient) -> bool:
        """Whether it has to wait for an ingredient (if that is not known to be impossible).

        A live reactor needs the value, not the digest alone. What it sends itself it must have sent.
        """
        if ingredient.ref is None or (ingredient.remaking and self.live):
            return True
        return ingredient.sender is self and not self.holds(ingredient.name)

    def inputs(self) -> list[str]:
        """The ingredients that it asked for; of a replay also what lies beyond the point where it stopped."""
        ahead = self.segment.steps if self.segment is not None and not self.live else ()
        asked = observations_of((*self.steps, *ahead))
        return list(dict.fromkeys([key for kind, key, _ in asked if kind == "ingredient"]))


class _Pass:
    """One walk of a conversation: who was answered in it is asked again when the answer changes."""

    __slots__ = ("conversation",)

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation


class Wait:
    """One conversation that waits for ingredients, once."""

    __slots__ = ("conversation", "missing")

    def __init__(self, conversation: Conversation, missing: int) -> None:
        self.conversation = conversation
        self.missing = missing  # how many are not known yet


class Ingredient:
    """What is known of one name in this demand."""

    __slots__ = (
        "basis", "candidates", "cause", "failure", "final", "made", "marks", "name", "next", "position", "ref",
        "remade", "remaking", "replaced", "searching", "sender", "stage", "tried", "trying", "users", "waits",
    )  # fmt: skip

    def __init__(self, name: str, cause: Conversation | None) -> None:
        self.name = name
        self.cause = cause  # who asked for it first; None: the caller
        self.ref: ObjectRef | None = None
        self.failure: Failure | None = None
        self.sender: Conversation | None = None
        self.basis: list[Step] = []  # the sender's trace up to `position`, from which the content came
        self.position = 0
        self.remaking = False  # its payload is being produced again
        self.made = 0  # the scheduler's clock when a live run sent it last
        self.remade = 0
        self.replaced = 0  # how often other content came of the same answers
        self.waits: list[Wait] = []
        self.users: list[_Pass] = []  # who was told of it since it changed last
        self.searching = False
        self.stage = -1  # the last stage of producers asked for
        self.final = False
        self.candidates: tuple[ReactorId, ...] = ()
        self.next = 0  # index of the next candidate to try
        self.tried: list[Conversation] = []
        self.marks: dict[int, int] = {}  # stage -> how many were tried before it
        self.trying: Conversation | None = None

    @property
    def open(self) -> bool:
        """Whether it is neither known nor known to be impossible."""
        return self.ref is None and self.failure is None

    def tried_before(self, stage: int) -> list[Conversation]:
        """The candidates of earlier stages."""
        return self.tried[: self.marks.get(stage, len(self.tried))]


def is_reproduced(ingredient: Ingredient, steps: list[Step]) -> bool:
    """Whether the pass `steps` had the very answers that the content came from (other content is chance)."""
    before = observations_of(ingredient.basis[: ingredient.position])
    return observations_of(steps)[: len(before)] == before


def sent_names(steps: Iterable[Step]) -> set[str]:
    return {step.name for step in steps if isinstance(step, Sent)}


def stuck_ingredients(conversation: Conversation, known: dict[str, Ingredient]) -> list[Ingredient]:
    """What a conversation waits for."""
    if conversation.wait is None:
        return []
    return [i for i in map(known.__getitem__, conversation.names) if i.failure is None and conversation.lacks(i)]


def stuck_from(starts: Iterable[Ingredient], known: dict[str, Ingredient]) -> list[Ingredient]:
    """All ingredients that `starts` wait for, through anybody who might send them; near ones first."""
    reached = dict.fromkeys(starts)
    queue = list(reached)
    for ingredient in queue:
        owners = ingredient.tried if ingredient.sender is None else [ingredient.sender]
        for further in [i for owner in owners for i in stuck_ingredients(owner, known)]:
            if further not in reached:
                reached[further] = None
                queue.append(further)
    return queue


def wait_cycle(start: Conversation | None, known: dict[str, Ingredient]) -> list[tuple[Conversation, Ingredient]]:
    """Who waits for what, from `start` on; only the cycle, if the way comes round to itself."""
    way: dict[Conversation, Ingredient] = {}
    at = start
    while at is not None and at not in way:
        stuck = stuck_ingredients(at, known)
        if not stuck:
            break
        way[at] = stuck[0]
        at = stuck[0].trying or stuck[0].sender
    links = list(way.items())
    begin = list(way).index(at) if at in way else 0
    return links[begin:]


def is_wrong_hint(candidate: Conversation, ingredient: Ingredient, known: dict[str, Ingredient]) -> bool:
    """Whether it waits for the very ingredient that it is thought to send: then somebody else sends it."""
    return ingredient in stuck_ingredients(candidate, known)


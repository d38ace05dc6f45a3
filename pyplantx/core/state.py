"""What the scheduler remembers of each reactor and each ingredient of a demand, and who waits for whom.

This file holds state and answers questions about it; what changes the state is all in ``scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyplantx.core.messages import Failure, Given, ReactorId, Reason
from pyplantx.core.replay import Replay
from pyplantx.core.trace import Digest, Group, ObjectRef, Segment, Sent, Step, observations_of

NEW, LOOKING, REPLAYING, RUNNING, WAITING, PARKED, DONE, FAILED, DECLINED = (
    "new", "looking", "replaying", "running", "waiting", "parked", "done", "failed", "declined",
)  # fmt: skip

#: State of a conversation -> the states that may follow. Tests hold every change against this table.
TRANSITIONS: dict[str, tuple[str, ...]] = {
    NEW: (LOOKING,),
    LOOKING: (REPLAYING, RUNNING, PARKED),
    REPLAYING: (DONE, RUNNING, PARKED, LOOKING, FAILED),
    RUNNING: (RUNNING, WAITING, PARKED, LOOKING, DONE, FAILED, DECLINED),
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


_NOTHING: set[str] = set()  # replaced, never changed


class Conversation:
    """One reactor's questions and answers in this demand, replayed or live.

    One walk from the root is a *pass*; content that comes back different begins another one. `steps` is
    the trace of the pass so far, with today's answers; what a replay has sent is told only when it has to
    wait, or at its leaf.
    """

    __slots__ = (
        "again", "ahead", "asked", "cause", "changed", "denied", "dirty", "fell", "given", "id", "live", "looked",
        "losses", "products", "reason", "replay", "restarts", "root", "segment", "sought", "state", "steps", "thrown",
        "told", "turned", "untold", "wait",
    )  # fmt: skip

    def __init__(self, id: ReactorId) -> None:
        self.id = id
        self.cause: Ingredient | None = None  # what it was first asked for; None: the caller wants it
        self.state = NEW
        self.root: Digest = ""
        self.replay: Replay | None = None
        self.segment: Segment | None = None  # the last one that the replay has walked
        self.fell: tuple[Digest, list[Step]] | None = None  # the node that its replay found missing, what leads there
        self.steps: list[Step] = []
        self.told = 0  # how many of them the others know of
        self.looked, self.untold = 0, _NOTHING  # how many were looked at for the names in them, see `names_untold`
        self.wait: Wait | None = None
        self.asked: list[Ingredient] = []  # what it asked for last
        self.thrown: tuple[Ingredient, ...] = ()  # those whose failure it was thrown in this pass
        self.products: list[Ingredient] = []  # all that it sent in this demand
        self.sought: list[Ingredient] = []  # what it is tried as a producer of
        self.reason: Reason | None = None  # why it ran last, or is to run when it is needed
        self.changed: Reason | None = None  # what came back different under it
        self.live = self.dirty = self.again = False  # in a run; to begin again; may have sent other names before
        self.denied: frozenset[Ingredient] = frozenset()  # it waited for them in a cycle, and looked for a way without
        self.turned = False  # it does so in this pass
        self.losses = self.restarts = 0
        self.given = 0  # the scheduler's clock when it was resumed last
        self.ahead: tuple[Given, ...] = ()  # what it was started with, until it is heard of

    @property
    def over(self) -> bool:
        return self.state in OVER

    def turn_back(self, steps: list[Step]) -> None:
        """The replay goes on from there; what it told beyond may not come again."""
        self.steps, self.again = steps, True
        self.told, self.looked = min(self.told, len(steps)), 0

    def new_pass(self) -> None:
        self.steps, self.told, self.thrown, self.ahead, self.turned = [], 0, (), (), False
        self.looked = 0
        self.again = self.again or bool(self.products)

    def let_go(self) -> None:
        """Lead to no ingredient any more: these lead to conversations, and then to nothing else."""
        self.cause, self.wait, self.thrown, self.denied = None, None, (), frozenset()
        self.asked, self.products, self.sought = [], [], []

    def names_untold(self) -> set[str]:
        """What its replay has sent and the others don't know of; each step is looked at once."""
        if self.looked <= self.told:
            self.looked, self.untold = self.told, set()
        self.untold |= sent_names(self.steps[self.looked :])
        self.looked = len(self.steps)
        return self.untold

    def joint(self) -> tuple[Digest, int] | None:
        """Where its trace joins the tree, see `Record`: where its replay fell off, if the run has led there too."""
        if self.fell is None:
            return None
        node, before = self.fell
        return (node, len(before)) if self.steps[: len(before)] == before else None

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

    def used(self, ingredient: Ingredient, digest: Digest | None) -> bool:
        """Whether it was answered `digest` in this pass, or thrown a failure (None); or was started with it."""
        if ingredient in self.thrown or any(ingredient.name in given.names for given in self.ahead):
            return True
        return digest is not None and ("ingredient", ingredient.name, digest) in observations_of(self.steps)

    def inputs(self) -> list[str]:
        """The ingredients that it asked for; of a replay also what lies beyond the point where it stopped."""
        ahead = self.segment.steps if self.segment is not None and not self.live else ()
        asked = observations_of((*self.steps, *ahead))
        return list(dict.fromkeys([key for kind, key, _ in asked if kind == "ingredient"]))


class Wait:
    """One conversation that waits for ingredients, once."""

    __slots__ = ("conversation", "missing")

    def __init__(self, conversation: Conversation, missing: int) -> None:
        self.conversation = conversation
        self.missing = missing  # how many are not known yet


class Ingredient:
    """What is known of one name in this demand."""

    __slots__ = (
        "altered", "basis", "candidates", "cause", "failure", "final", "former", "made", "maker", "name", "next",
        "position", "recalled", "ref", "remade", "remaking", "replaced", "searching", "sender", "stage",
        "strangers_from", "tried", "trying", "users", "waits",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.cause: Conversation | None = None  # who had it searched for first; None: the caller
        self.ref: ObjectRef | None = None
        self.failure: Failure | None = None
        self.sender: Conversation | None = None
        self.recalled = False  # known without a sender: up to date with all its ancestry
        self.maker: ReactorId = ""  # who has made what was recalled, if that is known
        self.former: ObjectRef | None = None  # what was recalled, and could not be opened
        self.basis: list[Step] | None = None  # the sender's trace, from whose first steps the content came:
        self.position = 0  # so many
        self.made = 0  # the scheduler's clock when a live run sent it last
        self.remaking = False  # its payload is being produced again
        self.remade = 0  # how often that was so
        self.replaced = 0  # how often other content came of the same answers
        self.altered = 0  # how often other content came of a run at all
        self.waits: list[Wait] = []
        self.users: list[Conversation] = []  # who was told of it since it changed last
        self.searching = False
        self.stage = -1  # the last stage of producers asked for
        self.final = False
        self.candidates: tuple[ReactorId, ...] = ()
        self.next = 0  # index of the next candidate to try
        self.tried: tuple[Conversation, ...] = ()
        self.strangers_from: int | None = None  # how many were tried before the strangers
        self.trying: Conversation | None = None

    @property
    def settled(self) -> bool:
        """Whether it is sure to be published: its sender is through, or was not needed."""
        return self.recalled or (self.sender is not None and self.sender.state is DONE)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it."""
        return any(wait.conversation.wait is wait for wait in self.waits)

    @property
    def open(self) -> bool:
        """Whether it is neither known nor known to be impossible."""
        return self.ref is None and self.failure is None

    def value_for(self, conversation: Conversation) -> ObjectRef | None:
        """What can be handed out without asking whether that waits for something; None if nothing can."""
        if self.failure is not None or self.remaking or self.sender is conversation:
            return None
        return self.ref

    def hinted(self) -> tuple[Conversation, ...]:
        """The candidates that were not tried as strangers."""
        return self.tried[: self.strangers_from]


class Conversations(dict[ReactorId, Conversation]):
    """By id; made when first named."""

    def __missing__(self, id: ReactorId) -> Conversation:
        made = self[id] = Conversation(id)
        return made


class Ingredients(dict[str, Ingredient]):
    """By name; made when first named."""

    def __missing__(self, name: str) -> Ingredient:
        made = self[name] = Ingredient(name)
        return made


def is_reproduced(ingredient: Ingredient, steps: list[Step]) -> bool:
    """Whether the pass `steps` had the very answers that the content came from (other content is chance)."""
    before = observations_of((ingredient.basis or [])[: ingredient.position])
    return observations_of(steps)[: len(before)] == before


def sent_names(steps: Iterable[Step]) -> set[str]:
    return {step.name for step in steps if isinstance(step, Sent)}


def asked_and_local(steps: Iterable[Step]) -> tuple[list[str], list[Group]]:
    """The ingredients that a trace has asked for, and its observations of everything else."""
    asked: list[str] = []
    local: list[Group] = []
    for step in steps:
        if type(step) is not Group:
            continue
        if step[0][0][0] == "ingredient":
            asked += [observation[1] for observation in step[0]]
        else:
            local.append(step)
    return asked, local


def stuck_ingredients(conversation: Conversation) -> list[Ingredient]:
    """What a conversation waits for."""
    if conversation.wait is None:
        return []
    return [i for i in conversation.asked if i.failure is None and conversation.lacks(i)]


def stuck_from(starts: Iterable[Ingredient]) -> list[Ingredient]:
    """All ingredients that `starts` wait for, through anybody who might send them; near ones first."""
    reached = dict.fromkeys(starts)
    queue = list(reached)
    for ingredient in queue:
        for owner in ingredient.tried if ingredient.sender is None else (ingredient.sender,):
            for further in owner.asked if owner.wait is not None else ():
                if further not in reached and further.failure is None and owner.lacks(further):
                    reached[further] = None
                    queue.append(further)
    return queue


def wait_cycle(start: Conversation | None) -> list[tuple[Conversation, Ingredient]]:
    """Who waits for what, from `start` on; only the cycle, if the way comes round to itself."""
    way: dict[Conversation, Ingredient] = {}
    at = start
    while at is not None and at not in way:
        stuck = stuck_ingredients(at)
        if not stuck:
            break
        way[at] = stuck[0]
        at = stuck[0].trying or stuck[0].sender
    links = list(way.items())
    begin = list(way).index(at) if at in way else 0
    return links[begin:]


def is_wrong_hint(candidate: Conversation, ingredient: Ingredient) -> bool:
    """Whether it waits for the very ingredient that it is thought to send: then somebody else sends it."""
    return ingredient in stuck_ingredients(candidate)

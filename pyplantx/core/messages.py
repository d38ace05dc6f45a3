"""What is said between the scheduler and its driver: events in, instructions out.

Events tell what happened, instructions what to do next. All are immutable tuples of names, digests
and traces, never values: they can be logged, compared, pickled and replayed. Answers that concern one
reactor come in the order in which they were asked for.

=====================  =====================================================================
event                  who says it, and when
=====================  =====================================================================
`Demanded`             the driver, once at the beginning
`ProducersFound`       answer to `FindProducers`
`Recalled`             answer to `FindProducers`, where the ingredient is up to date as a whole
`Revoked`              something that recalled ingredients were made from is made again
`Observed`             answer to `Observe`
`Asked`                a live reactor yielded a request
`Ended`                a live reactor returned
`Raised`               a live reactor failed
`Missing`              a payload that was to be handed out is not in the store
`Lost`                 the worker of a live reactor died
`Reconsider`           another process has done something meanwhile: ask the traces again
`Declined`             a driver that only wants to know does not start the reactor
`Idle`                 nothing is in flight; only the driver can know
=====================  =====================================================================
"""

from __future__ import annotations

from typing import Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest, ObjectRef, Observation, Question, Step

#: Identity of a reactor: "module:qualname", or its ``name=``.
ReactorId = str


class Reason(NamedTuple):
    """Why a reactor runs. Printed alike by log, status and report; see `pyplantx.explain`.

    Attributes
    ----------
    kind : str
        ``"forced"`` (asked for by name), ``"new"`` (no trace of this version: never run, or its code
        changed), ``"changed"`` (`old` and `new` differ; without them: the ingredient `name` can't be
        produced), ``"payload"`` (its output `name` is not in the store) or ``"restarted"`` (its worker
        was lost, what it had received or kept was damaged, or it could not go on from an interrupted run).
    old : tuple of Observation
        The recorded observations that no longer hold.
    new : tuple of Observation
        Today's answers to the same questions.
    name : str
        The ingredient concerned, if it is about one.
    """

    kind: str
    old: tuple[Observation, ...] = ()
    new: tuple[Observation, ...] = ()
    name: str = ""


class Failure(NamedTuple):
    """Something that went wrong; thrown into those who wait for its outcome.

    Attributes
    ----------
    kind : str
        ``"raised"`` (the reactor's own exception, in `error`), ``"no producer"``, ``"two producers"``,
        ``"deadlock"``, ``"not deterministic"``, ``"payload"`` (what was made is gone at once, again and
        again) or ``"lost"`` (its worker was, again and again).
    name : str
        The ingredient concerned ("" if none).
    reactors : tuple of str
        The reactors concerned; for a deadlock those that wait, in order; for "no producer" those that failed
        when they were tried.
    names : tuple of str
        For a deadlock: what each of `reactors` waits for.
    error : object
        The exception; opaque to the core.
    """

    kind: str
    name: str = ""
    reactors: tuple[ReactorId, ...] = ()
    names: tuple[str, ...] = ()
    error: Any = None


# --------------------------------------------------------------------------- events


class Demanded(NamedTuple):
    """Somebody wants these ingredients, and these reactors run (forced) or up to date (wanted)."""

    names: tuple[str, ...] = ()
    forced: tuple[ReactorId, ...] = ()
    wanted: tuple[ReactorId, ...] = ()


class ProducersFound(NamedTuple):
    """Who may send `name`, the likeliest first; the last stage has `final`.

    `stage` is as in `FindProducers`, or a later one if nobody was found before; never that of the strangers. An answer
    to stage 0 may also be a guess, with -1: the stage itself is then still to come. Such a guess comes unasked before a
    run is told of that sends what another sends, too, who was passed over.
    """

    name: str
    stage: int
    candidates: tuple[ReactorId, ...]
    final: bool


class Recalled(NamedTuple):
    """The ingredient is known to be up to date with all its ancestry: nobody has to be asked.

    `sender` is who made it, or "" where that is not known.
    """

    name: str
    ref: ObjectRef
    sender: ReactorId = ""


class Revoked(NamedTuple):
    """What was recalled may come out different after all, for a reactor that it was made by begins to run."""


class Observed(NamedTuple):
    """Today's answers to the questions of an `Observe`, in its order."""

    reactor: ReactorId
    answers: tuple[Observation, ...]


class Asked(NamedTuple):
    """A live reactor wants ingredients; `steps` is what it observed and sent since it last spoke."""

    reactor: ReactorId
    steps: tuple[Step, ...]
    names: tuple[str, ...]


class Ended(NamedTuple):
    """A live reactor returned. `reusable` is False if it swallowed a failure."""

    reactor: ReactorId
    steps: tuple[Step, ...]
    reusable: bool = True


class Raised(NamedTuple):
    """A live reactor raised `error`."""

    reactor: ReactorId
    steps: tuple[Step, ...]
    error: Any


class Missing(NamedTuple):
    """The payloads of these names can't be opened; `reactor` is "" if the caller wanted them."""

    reactor: ReactorId
    names: tuple[str, ...]


class Lost(NamedTuple):
    """The worker that ran the reactor is gone, or what it received or kept was damaged: its run is worth nothing."""

    reactor: ReactorId


class Reconsider(NamedTuple):
    """Instead of starting the reactor: its traces may have grown while the driver waited for somebody."""

    reactor: ReactorId


class Declined(NamedTuple):
    """The driver does not start this reactor: it only wants to know what would run."""

    reactor: ReactorId


class Idle(NamedTuple):
    """Nothing is in flight."""


Event = (
    Demanded
    | ProducersFound
    | Recalled
    | Revoked
    | Observed
    | Asked
    | Ended
    | Raised
    | Missing
    | Lost
    | Reconsider
    | Declined
    | Idle
)

# --------------------------------------------------------------------------- instructions


class FindProducers(NamedTuple):
    """Name candidates for an ingredient.

    Stages: 0 recorded in traces, 1 declared by ``sends=``, 2 hinted by the bytecode, 3 all others.
    """

    name: str
    stage: int


class Observe(NamedTuple):
    """Answer these questions (none of them about an ingredient) as of today."""

    reactor: ReactorId
    questions: tuple[Question, ...]


class Given(NamedTuple):
    """Ingredients that a reactor asks for together, and their refs."""

    names: tuple[str, ...]
    refs: tuple[ObjectRef, ...]


class Start(NamedTuple):
    """Run the reactor from its beginning.

    `ahead` is what its replay was given before it fell off. As long as the reactor asks for just that, in this
    order, and has sent nothing, it need not stop for it: it goes on at once, and tells of it as a step of its own.
    `node` is the place in its trace tree at which there is nothing yet for today's answers, or else the root: it
    names this piece of work.
    """

    reactor: ReactorId
    reason: Reason
    ahead: tuple[Given, ...]
    node: Digest


class Resume(NamedTuple):
    """Give a waiting reactor what it asked for."""

    reactor: ReactorId
    names: tuple[str, ...]
    refs: tuple[ObjectRef, ...]


class Throw(NamedTuple):
    """Raise a failure in a waiting reactor, at its ``yield``."""

    reactor: ReactorId
    failure: Failure


class Drop(NamedTuple):
    """Close a reactor that nobody waits for; it leaves nothing behind."""

    reactor: ReactorId


class Record(NamedTuple):
    """Commit the trace of a completed run.

    `joint` is where it joins the tree below `root`, unless others have written there since the reactor was looked up:
    the key of a node that is not there yet, and how many of the steps lead to it. None where `graft` has to find out.
    """

    reactor: ReactorId
    root: Digest
    steps: tuple[Step, ...]
    joint: tuple[Digest, int] | None


class Reuse(NamedTuple):
    """The reactor is up to date; its products are those of its last matching run."""

    reactor: ReactorId


class Deliver(NamedTuple):
    """The demanded ingredients are known; the demand is met once they can be opened."""

    names: tuple[str, ...]
    refs: tuple[ObjectRef, ...]


class GiveUp(NamedTuple):
    """The demand can't be met."""

    failure: Failure


Instruction = FindProducers | Observe | Start | Resume | Throw | Drop | Record | Reuse | Deliver | GiveUp

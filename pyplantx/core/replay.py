"""The generator that asks the recorded questions.

A replay is driven like a live reactor: it yields what it wants to know, is sent today's answers, and
notes in its list of steps what was answered and what was sent at this point of the recording. It can't
fail. It ends with None at a leaf (the reactor is up to date) or tells how it `Fell` off the tree.

A question has an edge if today's answer is the recorded one; else the tree may hold a branch for
today's answer, under a key that only that answer leads to. Where neither leads on, the older segments of
the nodes on the way are tried: a reactor that is not deterministic may have asked otherwise before. But first it is
asked whether the answer counts at all today: if it does not, the recorded one is as good as any.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.messages import Reason
from pyplantx.core.trace import (
    COUNTS,
    WAIVED,
    Digest,
    Group,
    HashText,
    Observation,
    Question,
    Segment,
    Sent,
    Step,
    branch_text,
    readable_older,
)

_new = tuple.__new__  # see `trace.py`

#: Today's answer to a question for an ingredient that can't be produced. No trace holds it.
FAILED: Digest = "failed"


class AskLocally(NamedTuple):
    """The replay wants today's answers to questions that need no other reactor."""

    questions: tuple[Question, ...]


class Again(NamedTuple):
    """The replay turns back to an older segment; `steps` is what still holds, and is filled from now on."""

    steps: list[Step]


class Fell(NamedTuple):
    """The replay left the tree: why, and the node that it found missing ("" if it had several ways to try)."""

    reason: Reason
    node: Digest


#: A `Group` is the wish for today's digests of the ingredients in it.
#: A `Segment` is none: the replay says that it goes on along this one.
Wish = Group | AskLocally | Again | Segment

#: How many local questions are asked together at first; then twice as many, and so on. In a deep tree each branch is
#: mostly left soon, and what would have been asked behind that point is asked for nothing.
_AT_ONCE = 16

#: Digests for a `Group`, observations for `AskLocally`, else None.
Answer = Sequence[Digest] | tuple[Observation, ...] | None

Replay = Generator[Wish, Any, Fell | None]  # what is sent is an `Answer`, of the kind that the wish calls for

#: Key of a node to the segment that is kept there, or None.
Find = Callable[[Digest], Segment | None]


def replay(key: Digest, segment: Segment, find: Find, hash_text: HashText, steps: list[Step]) -> Replay:
    """Walk a trace tree with today's answers.

    Parameters
    ----------
    key : Digest
        Key of the node to begin at: the root's is the reactor's fingerprint.
    segment : Segment
        The segment stored under `key`.
    find : callable
        Key of a node to its segment, or None.
    hash_text : callable
        Text to digest, to find branches.
    steps : list of Step
        Is filled with the trace as it is today. After an `Again`, the list in there is.

    Returns
    -------
    Fell or None
        None at a leaf; else the observations that have no edge, old beside new, on the newest way.
    """
    first: Fell | None = None
    turns: list[tuple[Digest, Segment, list[Step]]] = []  # older segments: (node, segment, steps before it)
    seen: set[Digest] = set()  # branches that were tried: older segments may lead to them again
    start = 0
    while True:
        if segment.older:
            turns += [(key, older, steps[:start]) for older in reversed(readable_older(segment))]
        passed, end = key, start  # what the key of a branch is made of, and the steps that are in there
        ahead: list[Observation] = []
        while True:
            reason = yield from _walk(segment[0], steps, len(steps) - start, ahead)
            if reason is None:
                return None
            passed, end = branch_text(passed, steps[end:-1]), len(steps) - 1
            branch = hash_text(branch_text(passed, steps[-1:]))
            found = None if branch in seen else find(branch)
            if found is not None or not (yield from _is_waived(reason[1])):
                break
            steps[-1] = segment[0][end - start]
        if found is not None:
            seen.add(branch)
            key, segment, start = branch, found, len(steps)
            yield found
            continue
        first = first or _new(Fell, (reason, "" if turns else branch))
        if not turns:
            return first
        key, segment, steps = turns.pop()
        start = len(steps)
        yield Again(steps)


def _is_waived(recorded: tuple[Observation, ...]) -> Generator[Wish, Any, bool]:
    """Whether none of these answers, which are others today, counts any more."""
    if not recorded or recorded[0][0] == "ingredient":
        return False
    today = yield AskLocally(tuple([Question(COUNTS, f"{o[0]} {o[1]}") for o in recorded]))
    return all(o[2] == WAIVED for o in today)


def _walk(
    path: tuple[Step, ...], steps: list[Step], start: int, ahead: list[Observation]
) -> Generator[Wish, Any, Reason | None]:
    """Follow one segment to its leaf, from its step `start` on; the reason, where an answer is not the recorded one.

    `ahead` keeps what was asked at once with that, for whoever goes on all the same.
    """
    most = _AT_ONCE
    for index, step in enumerate(path[start:], start):
        if isinstance(step, Group):
            recorded = step[0]
            today: list[Observation] | None = None
            digests: Sequence[Digest]
            if recorded[0][0] == "ingredient":
                digests = yield step
            else:
                if not ahead:
                    ahead += yield AskLocally(_questions(path, index, most))
                    most *= 2
                today = ahead[: len(recorded)]
                del ahead[: len(recorded)]
                digests = [o[2] for o in today]
            if [o[2] for o in recorded] != digests:
                today = today or [_new(Observation, (*o[:2], digest, "")) for o, digest in zip(recorded, digests)]
                steps.append(_new(Group, (tuple(today),)))
                return _difference(recorded, today)
        steps.append(step)
    return None


def _questions(path: tuple[Step, ...], start: int, most: int) -> tuple[Question, ...]:
    """Those of the local groups from there on: asked together, for they wait for nobody; about so many."""
    questions: list[Question] = []
    for index in range(start, len(path)):
        step = path[index]
        if isinstance(step, Sent) or step[0][0][0] == "ingredient" or len(questions) >= most:
            break
        questions += [Question(o[0], o[1]) for o in step[0]]
    return tuple(questions)


def _difference(recorded: tuple[Observation, ...], today: list[Observation]) -> Reason:
    before: list[Observation] = []
    now: list[Observation] = []
    for old, new in zip(recorded, today):
        if new[2] == FAILED:
            return Reason("changed", name=new.key)
        if old[2] != new[2]:
            before.append(old)
            now.append(new)
    return _new(Reason, ("changed", tuple(before), tuple(now), ""))

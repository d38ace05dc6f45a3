"""What a run learned and sent, in order, and how that becomes the records of a trace tree.

This file may know: names, digests (32 hex digits), texts. It may not know: values, files, clocks.

A *trace* is a list of steps. A step is a `Group` of observations that were asked for together, or a
`Sent` ingredient. All traces of one reactor version form a tree whose root is the reactor's
fingerprint; the key of a node is a rolling digest of the root and of all answers so far. Runs of nodes
without a branch are stored as one record, a *segment* (a radix tree). A reactor that does not always ask
in one order leaves several segments at a node, the newest first. docs/design/core.md tells how a segment
is found and grown; specs/trace/ is the written format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyplantx.basics.tuples import NamedTuple

#: 128 bits as 32 lower-case hex digits; identity of data or of a cause.
Digest = str

#: Text -> digest. The core computes no hashes itself: it is given one.
HashText = Callable[[str], Digest]


class Question(NamedTuple):
    """Something that a reactor asked the world outside itself.

    Attributes
    ----------
    kind : str
        ``"ingredient"``, ``"classes"``, ``"config"``, ``"subreactor"``, ``"module"`` (one that was imported by a
        computed text), ``"file"``, ``"verified"`` (a file that is read each time) or ``"env"``.
    key : str
        What was asked for; its form belongs to whoever answers this kind.
    """

    kind: str
    key: str


class Observation(NamedTuple):
    """A question with the answer that a run was given.

    Attributes
    ----------
    kind, key : str
        As in `Question`.
    answer : Digest
        Digest of what was answered; `ABSENT` if there was nothing.
    shown : str
        The answer as a person reads it, clipped; "" where a digest says enough.
    """

    kind: str
    key: str
    answer: Digest
    shown: str = ""

    @property
    def question(self) -> Question:
        return Question(self.kind, self.key)


#: The answer to a question about something that is not there.
ABSENT: Digest = "absent"

#: Kind of the question for the code of a module that a reactor has imported by a text; its key is the absolute name.
MODULE = "module"

#: Kind of the question whether the answer to another one counts today; its key is that one's kind, a space and its
#: key. The answer is `WAIVED` if it does not. Asked by replays only, and recorded nowhere.
COUNTS = "counts"
WAIVED: Digest = "waived"


class ObjectRef(NamedTuple):
    """Address and identity of one sealed object; small enough to travel anywhere.

    Attributes
    ----------
    spec : str
        Name of the ingredient type that reads it, such as ``"array"``.
    version : int
        Version of that type's format.
    digest : Digest
        The semantic digest: equal for equal values, whatever their layout.
    address : Digest
        The object's address: spec, layout and exact bytes.
    size : int
        Bytes of payload.
    meta : str
        Small metadata of the spec, as JSON text.
    inline : str or None
        The payload itself if it is tiny: the name of its one part, a line break, one character per byte.
    """

    spec: str
    version: int
    digest: Digest
    address: Digest
    size: int
    meta: str = ""
    inline: str | None = None


class Sent(NamedTuple):
    """An ingredient that a run sent at this point of its trace."""

    name: str
    ref: ObjectRef


class Group(NamedTuple):
    """Observations that were asked for together (one ``yield``, or one read)."""

    observations: tuple[Observation, ...]


Step = Group | Sent


# A named tuple without a call of its constructor, which is Python code: three times as fast. Dozens are made for each
# reactor, and records are read by the thousand.
_new = tuple.__new__


def ingredients_received(names: Sequence[str], refs: Sequence[ObjectRef]) -> Group:
    """The step of a run that was given these ingredients."""
    observations = [_new(Observation, ("ingredient", name, ref[2], "")) for name, ref in zip(names, refs)]
    return _new(Group, (tuple(observations),))


class Segment(NamedTuple):
    """What is stored under the key of a node: how traces go on from there.

    Attributes
    ----------
    steps : tuple of Step
        The newest continuation, down to its leaf.
    older : str
        Other continuations from the same node, the newest first, one per line as `encode_segment` writes
        them; "" for a reactor that is deterministic. They are decoded only when `steps` does not fit.
    """

    steps: tuple[Step, ...]
    older: str = ""


#: How many continuations a node remembers besides the newest. What is forgotten costs a run, no more.
MOST_OLDER = 63


_quote = json.encoder.encode_basestring
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def encode_segment(segment: Segment) -> str:
    """The segment as lines of JSON (specs/trace/): `steps` first, then `older`.

    Written by hand because it is on the hot path of a cold run. No \\u escapes: two lone surrogates beside each other
    would come back as one character.
    """
    line = ",".join([_row_of(step) for step in segment[0]])
    return f"[{line}]\n{segment[1]}" if segment[1] else f"[{line}]"


def _row_of(step: Step) -> str:
    if isinstance(step, Group):
        asked = [f"[{_quote(o[0])},{_quote(o[1])},{_quote(o[2])},{_quote(o[3])}]" for o in step[0]]
        return f'["ask",{",".join(asked)}]'
    name, (spec, version, digest, address, size, meta, inline) = step
    payload = "null" if inline is None else _quote(inline)
    ref = f"{_quote(spec)},{version},{_quote(digest)},{_quote(address)},{size},{_quote(meta)},{payload}"
    return f'["sent",{_quote(name)},{ref}]'


def decode_segment(text: str) -> Segment:
    """Read what `encode_segment` wrote.

    Raises
    ------
    ValueError
        If the text is not a segment.
    """
    try:
        rows, end = _scan(text, 0)
        if type(rows) is not list:
            raise ValueError("its first line is not an array")
        steps = tuple([_group_of(row) if row[0] == "ask" else _sent_of(row) for row in rows])
    except StopIteration:
        raise ValueError("not a trace segment: no JSON at its beginning") from None
    except (TypeError, LookupError, ValueError, RecursionError) as error:
        raise ValueError(f"not a trace segment: {error}") from error
    if end == len(text):
        return _new(Segment, (steps, ""))
    if text[end] != "\n":
        raise ValueError(f"not a trace segment: {text[end : end + 20]!r} follows the array")
    return Segment(steps, text[end + 1 :])


def older_segments(segment: Segment) -> list[Segment]:
    """The older continuations from the same node, the newest first, each without `older` of its own.

    Raises
    ------
    ValueError
        If one of the lines is not a segment.
    """
    return [decode_segment(line) for line in segment.older.split("\n")] if segment.older else []


def readable_older(segment: Segment) -> list[Segment]:
    """`older_segments`; none if they can't be read: what is no trace is as good as forgotten, and the reactor runs."""
    try:
        return older_segments(segment)
    except ValueError:
        return []


def _group_of(row: list[Any]) -> Group:
    observations = []
    for fields in row[1:]:
        if type(fields) is not list or len(fields) != 4:
            raise ValueError(f"an observation has four fields, not {fields!r}")
        "".join(fields)  # a TypeError unless all are texts; cheaper than asking each
        observations.append(_new(Observation, fields))
    if not observations:
        raise ValueError("a group without an observation")
    return _new(Group, (tuple(observations),))


def _sent_of(row: list[Any]) -> Sent:
    kind, name, spec, version, digest, address, size, meta, inline = row
    "".join((name, spec, digest, address, meta, "" if inline is None else inline))
    if kind != "sent":
        raise ValueError(f"a step is 'ask' or 'sent', not {kind!r}")
    if type(version) is not int or type(size) is not int:
        raise ValueError(f"the version and the size of {name!r} are whole numbers")
    return _new(Sent, (name, _new(ObjectRef, (spec, version, digest, address, size, meta, inline))))


# --------------------------------------------------------------------------- the tree


def observations_of(steps: Iterable[Step]) -> list[tuple[str, str, Digest]]:
    """Kind, key and answer of all observations, in order."""
    return [o[:3] for step in steps if isinstance(step, Group) for o in step.observations]


def branch_key(key: Digest, steps: Iterable[Step], hash_text: HashText) -> Digest:
    """Key of the node that is reached from another by these steps.

    Questions enter with the answers: a reactor whose order of asking isn't fixed must never take an
    answer to one question for the answer to another. What was sent enters too: a reactor whose content
    isn't fixed must never go on from what another run had sent.

    Parameters
    ----------
    key : Digest
        Key of the node to start from.
    steps : iterable of Step
        The steps from there, with the answers of the branch to take.
    hash_text : callable
        Text to digest.
    """
    return hash_text(branch_text(key, steps))


def branch_text(key: str, steps: Iterable[Step]) -> str:
    """What a key is the digest of. It begins with what stands for the first of the steps: `key` may be such a text."""
    parts = [key]
    for step in steps:
        if isinstance(step, Sent):
            parts.append(f"sent {len(step.name)}:{step.name} {step.ref.digest}")
            continue
        for kind, name, answer, _ in step.observations:
            parts.append(f"{kind} {len(name)}:{name} {answer}")
    return "\n".join(parts)


def graft(
    root: Digest,
    steps: Sequence[Step],
    find: Callable[[Digest], Segment | None],
    hash_text: HashText,
) -> tuple[Digest, Segment] | None:
    """Where a new trace joins the tree below `root`: the one segment to write.

    It branches off the newest segment of a node where an answer is another one. Where it differs in
    anything else (the reactor is not deterministic), it becomes the newest segment of the node itself.

    Parameters
    ----------
    root : Digest
        The reactor's fingerprint.
    steps : sequence of Step
        The trace of a completed run.
    find : callable
        Key of a node to its segment, or None.
    hash_text : callable
        Text to digest.

    Returns
    -------
    (key, segment) or None
        None if the tree holds the whole trace already.
    """
    key, rest = root, tuple(steps)
    while (found := find(key)) is not None:
        at = _branching(found.steps, rest)
        if at is None:
            return None if found.steps == rest else (key, _newest(rest, found))
        key, rest = branch_key(key, rest[: at + 1], hash_text), rest[at + 1 :]
    return key, Segment(rest)


def _branching(known: tuple[Step, ...], new: tuple[Step, ...]) -> int | None:
    """Index of the first step in which both differ, if they differ there in an answer; else None."""
    for index, (old, today) in enumerate(zip(known, new)):
        if old == today:
            continue
        if isinstance(old, Group) and isinstance(today, Group):
            before, now = observations_of((old,)), observations_of((today,))
            if before != now:
                return index if [o[:2] for o in before] == [o[:2] for o in now] else None
        else:
            return None
    return None


def _newest(steps: tuple[Step, ...], before: Segment) -> Segment:
    """A segment with `steps` in front of what its node held before."""
    others = [Segment(before.steps), *readable_older(before)]
    stem = _stem(steps)
    kept = [encode_segment(other) for other in others if _stem(other.steps) != stem]
    return Segment(steps, "\n".join(kept[:MOST_OLDER]))


def _stem(steps: tuple[Step, ...]) -> list[object]:
    """All up to the last observation. Of two traces with one stem the older one can't be of use again."""
    last = max((index for index, step in enumerate(steps) if isinstance(step, Group)), default=-1)
    stem: list[object] = []
    for step in steps[: last + 1]:
        stem.append((step.name, step.ref.digest) if isinstance(step, Sent) else observations_of((step,)))
    return stem

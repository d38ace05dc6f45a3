"""Deep traces as data: what has to hold for an ingredient to be what it was, and what it was made from.

A *deep trace* lists what the whole ancestry of an ingredient observed. Its *lineage* tells who in there received and
sent what; it is a text of its own, for it is read only where something has changed. Both may be damaged, or
anybody's: what makes no sense is as good as absent.
"""

from __future__ import annotations

import itertools
import json

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.messages import ReactorId
from pyplantx.core.trace import Digest, ObjectRef

_new = tuple.__new__  # see `core/trace.py`

_DECODER = json.JSONDecoder()
_NO_SENSE = (ValueError, TypeError, LookupError, RecursionError)


class DeepTrace(NamedTuple):
    """What has to hold for `ref` to be the ingredient `name`.

    Attributes
    ----------
    roots : dict of str to Digest
        Fingerprint of every reactor in the ancestry, by id.
    answers : list of (str, str, str, Digest)
        Reactor, kind and key of every question that is not about an ingredient, and the answer.
    objects : list of Digest
        Addresses of the ingredients of the ancestry that have payloads of their own.
    lineage : Digest
        Digest of the text that tells who received and sent what.
    """

    name: str
    ref: ObjectRef
    roots: dict[ReactorId, Digest]
    answers: list[tuple[ReactorId, str, str, Digest]]
    objects: list[Digest]
    lineage: Digest


class Maker(NamedTuple):
    """What a reactor of the ancestry received, and what of the ancestry it sent.

    Attributes
    ----------
    asked : list of str
        The ingredients that it received.
    sent : dict of str to [Digest, Digest]
        Those that it sent: digest and address of each.
    """

    asked: list[str]
    sent: dict[str, list[Digest]]


#: A lineage: those reactors of the ancestry that sent something in the version in which they are in the deep trace.
Lineage = dict[ReactorId, Maker]


def digest_and_address(ref: ObjectRef) -> list[Digest]:
    """What a `Maker` tells of an ingredient."""
    return [ref[2], ref[3]]


def encode_deep(deep: DeepTrace, generation: str) -> str:
    """The text that is kept of a deep trace, good as long as `generation` is the present one."""
    return json.dumps([generation, *deep], separators=(",", ":"), check_circular=False)


def name_in(text: str, generation: str) -> str | None:
    """Whose deep trace it is; None if something was written since, or it makes no sense."""
    beginning = f'["{generation}",'
    if not text.startswith(beginning):
        return None
    try:
        name = _DECODER.raw_decode(text, len(beginning))[0]
    except (ValueError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def decode_deep(text: str, name: str, generation: str) -> DeepTrace | None:
    """The deep trace, if it is of this ingredient and nothing was written since."""
    if name_in(text, generation) != name:
        return None
    try:
        _, _, ref, roots, answers, objects, lineage = json.loads(text)  # another form: of an earlier version
        told = [(id, *rest) for id, *rest in answers]
        deep = DeepTrace(name, ObjectRef(*ref), dict(roots), told, list(objects), lineage)
        # A TypeError unless all are texts.
        "".join((*ref[2:4], *deep.roots, *deep.roots.values(), *objects, lineage))
        "".join([field for answer in deep.answers for field in answer])
    except _NO_SENSE:
        return None  # the replays decide
    is_sound = all(len(answer) == 4 and answer[0] in deep.roots for answer in deep.answers)
    return deep if is_sound else None


def encode_lineage(lineage: Lineage) -> str:
    """One text of the same for the same. No \\u escapes, as in a trace: see `core.trace.encode_segment`."""
    return json.dumps(lineage, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def decode_lineage(text: str) -> Lineage:
    """Read what `encode_lineage` wrote; nobody at all if it makes no sense."""
    try:
        lineage = {id: _new(Maker, (asked, sent)) for id, (asked, sent) in json.loads(text).items()}
        pairs = [pair for _, sent in lineage.values() for pair in sent.values()]
        # A TypeError unless all are texts.
        "".join(itertools.chain.from_iterable([*[asked for asked, _ in lineage.values()], *pairs]))
        is_sound = all(type(asked) is list for asked, _ in lineage.values()) and all(len(pair) == 2 for pair in pairs)
    except (*_NO_SENSE, AttributeError):
        return {}
    return lineage if is_sound else {}

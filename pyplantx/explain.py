"""Reasons as data and as sentences. One place, so that log, status and report say the same.

A `Decision` is what the plant decided about a reactor in one activity, and why. Everything here only
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import ABSENT, MODULE, Digest, Observation

if TYPE_CHECKING:
    from pyplantx.core.messages import Reason

_new = tuple.__new__  # see `core/trace.py`

#: How a config key is named in a sentence.
Describe = Callable[[str], str]

#: What differs in the code of an observed subreactor or module today; None if that is its own function alone, or can't
#: be told.
Compare = Callable[[Observation], "CodeChange | None"]


class CodeChange(NamedTuple):
    """What differs between two versions of a reactor's code.

    Attributes
    ----------
    changed, added, removed : tuple of str
        Labels such as "function utils.scale".
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def between(cls, old: Mapping[str, Digest], new: Mapping[str, Digest]) -> CodeChange:
        """Compare two tables of parts; the first part of each is the reactor's own function.

        A script may be called otherwise by now, or come from the standard input: its parts are compared all the same.
        """
        if old and new:
            old = _seen_from(_modules_apart(next(iter(old)), next(iter(new))), old, new)
        return cls(
            tuple(label for label in new if label in old and old[label] != new[label]),
            tuple(label for label in new if label not in old),
            tuple(label for label in old if label not in new),
        )

    def __str__(self) -> str:
        parts = [f"{label} changed" for label in self.changed]
        parts += [f"{label} is new" for label in self.added]
        parts += [f"{label} is gone" for label in self.removed]
        return "; ".join(parts) or "its code or version changed"


def _modules_apart(old: str, new: str) -> tuple[str, str]:
    """Of two labels, "function a.load" and "function b.load": what they call the place where that lies."""
    before, after = old.split(" ", 1)[-1].split("."), new.split(" ", 1)[-1].split(".")
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    return ".".join(before), ".".join(after)


def _seen_from(places: tuple[str, str], old: Mapping[str, Digest], new: Mapping[str, Digest]) -> Mapping[str, Digest]:
    """The old table with the labels that the new one has, where only the place is called otherwise."""
    before, after = places
    if not before or not after:
        return old
    renamed = {label: label.replace(f" {before}.", f" {after}.") for label in old}
    return {renamed[label] if renamed[label] in new else label: digest for label, digest in old.items()}


#: How many things that are not seen a printed decision names; and those that have nothing in them to be seen.
_MOST_UNSEEN = 3
_USUAL = (
    " a logging.Logger",
    " a logging.RootLogger",
    " a loguru._logger.Logger",
    " a _thread.lock",
    " a _thread.RLock",
)


class Decision(NamedTuple):
    """What the plant decided about a reactor, and why.

    Attributes
    ----------
    reactor : str
        The reactor's name.
    action : str
        ``"ran"``, ``"failed"``, ``"interrupted"``, ``"up to date"``, ``"would run"``, ``"may run"``, ``"not asked"``
        (another one sends the same, and is asked before it) or ``"unknown"``.
    reason : str
        The sentence; "" if it is up to date.
    kind : str
        As in `pyplantx.core.messages.Reason`; ``"code"`` if another version ran before.
    old, new : tuple of Observation
        The answers that changed, old beside new.
    code : CodeChange or None
        Which parts of the code changed.
    opaque : tuple of str
        What its code refers to and counts by its type only, so that changes of it are not seen. Told by
        `Plant.why` and `Plant.explain`; the printed text names the first, loggers and locks left out.
    state : tuple of str
        Globals that running code has changed in this process: state, never a reason to run. Told as `opaque`.
    """

    reactor: str
    action: str
    reason: str = ""
    kind: str = ""
    old: tuple[Observation, ...] = ()
    new: tuple[Observation, ...] = ()
    code: CodeChange | None = None
    opaque: tuple[str, ...] = ()
    state: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reactor}: {self.action}" + (f" ({self.reason})" if self.reason else "") + self._unseen()

    def _unseen(self) -> str:
        lines = [line for line in self.opaque if not line.endswith(_USUAL)]
        more = f"; and {len(lines) - _MOST_UNSEEN:,} more" if len(lines) > _MOST_UNSEEN else ""
        return f"\n    not seen: {'; '.join(lines[:_MOST_UNSEEN])}{more}" if lines else ""

    def __repr__(self) -> str:
        return f"<{self}>"


def up_to_date(reactor: str) -> Decision:
    """The decision about a reactor whose traces hold the answer."""
    return Decision(reactor, "up to date")


def decide(
    reactor: str,
    action: str,
    reason: Reason | None,
    code: CodeChange | None,
    describe: Describe,
    compare: Compare,
    unkept: str = "",
) -> Decision:
    """The decision that follows from a scheduler's reason.

    Parameters
    ----------
    reactor : str
        Its name.
    action : str
        As in `Decision`.
    reason : Reason or None
        Why; None if there is nothing to explain.
    code : CodeChange or None
        What changed since the last version, if there was one.
    describe : callable
        Config key to words.
    compare : callable
        What differs in a subreactor or module that was observed.
    unkept : str
        The action of its last run, where none of its runs has left a trace; "" if there was no run either.
    """
    if reason is None:
        return Decision(reactor, action)
    kind = "code" if reason.kind == "new" and code is not None else reason.kind
    words = sentence(reason, code, describe, compare, unkept)
    return _new(Decision, (reactor, action, words, kind, reason.old, reason.new, code, (), ()))


def sentence(reason: Reason, code: CodeChange | None, describe: Describe, compare: Compare, unkept: str = "") -> str:
    """The reason as a person says it; the arguments are those of `decide`."""
    if reason.kind == "changed" and reason.old:
        pairs = zip(reason.old[:_MOST_CHANGES], reason.new)
        words = [_change(old, new, describe) + _within(old, new, compare) for old, new in pairs]
        if len(reason.old) > _MOST_CHANGES:
            words.append(f"and {len(reason.old) - _MOST_CHANGES:,} more")
        return "; ".join(words)
    if reason.kind == "new":
        return str(code) if code is not None else _SENTENCES_WITHOUT_TRACE.get(unkept, "never run before")
    return _SENTENCES[reason.kind].format(name=repr(reason.name))


#: How many changes a sentence names; a `Decision` holds them all.
_MOST_CHANGES = 16

_SENTENCES = {
    "forced": "asked for by name",
    "changed": "ingredient {name} can't be produced any more",
    "payload": "the stored content of {name} is gone",
    "restarted": "its worker was lost, what it had received or kept was damaged, or an interrupted run can't go on",
}

#: By the action of the last run.
_SENTENCES_WITHOUT_TRACE = {
    "failed": "its last run failed",
    "interrupted": "its last run was interrupted",
    "ran": "its last run caught an error or read what other code had left, so it is not used again",
}


def _change(old: Observation, new: Observation, describe: Describe) -> str:
    return _CHANGES.get(old.kind, _change_of_unknown)(old, new, describe)


def _change_of_config(old: Observation, new: Observation, describe: Describe) -> str:
    before, after = _shown(old), _shown(new)
    if before == after:
        return f"config {describe(old.key)}: {before}, whose code or definition changed"
    if old.key.startswith("whole "):
        before, after = _differing(before, after)
    return f"config {describe(old.key)}: {before} → {after}"


def _differing(old: str, new: str) -> tuple[str, str]:
    """Two overviews without the parts that they share; as they are if nothing is left of one."""
    before, after = _overview_parts(old), _overview_parts(new)
    only_before = ", ".join([part for part in before if part not in after])
    only_after = ", ".join([part for part in after if part not in before])
    return (only_before, only_after) if only_before and only_after else (old, new)


def _overview_parts(overview: str) -> list[str]:
    """``lr=0.1, model={depth=3, size=(1, 2)}``: two parts."""
    parts: list[str] = []
    depth = 0
    for part in overview.split(", "):
        if depth > 0:
            parts[-1] += f", {part}"
        else:
            parts.append(part)
        depth += sum(map(part.count, "([{")) - sum(map(part.count, ")]}"))
    return parts


def _shown(observation: Observation) -> str:
    if observation.answer == ABSENT:
        return "absent"
    return observation.shown or observation.answer[:8]


def _change_of_ingredient(old: Observation, new: Observation, _: Describe) -> str:
    return f"ingredient {old.key} has new content"


def _change_of_subreactor(old: Observation, new: Observation, _: Describe) -> str:
    name = old.shown or old.key.split(" ")[-1].lstrip("=")
    return f"subreactor {name} {'is gone' if new.answer == ABSENT else 'changed'}"


def _within(old: Observation, new: Observation, compare: Compare) -> str:
    """What of a subreactor or module has changed, in brackets, if there is more to say of it."""
    change = compare(old) if old.kind in ("subreactor", MODULE) and new.answer != ABSENT else None
    return f" ({change})" if change else ""


def _change_of_classes(old: Observation, new: Observation, _: Describe) -> str:
    return f"class {old.key.replace(' ', ', ')} changed"


def _change_of_module(old: Observation, new: Observation, _: Describe) -> str:
    words = "can't be imported any more" if new.answer == ABSENT else "is new" if old.answer == ABSENT else "changed"
    return f"module {old.key} {words}"


def _change_of_file(old: Observation, new: Observation, _: Describe) -> str:
    words = "is gone" if new.answer == ABSENT else "is there now" if old.answer == ABSENT else "changed"
    return f"file {old.key} {words}"


def _change_of_env(old: Observation, new: Observation, _: Describe) -> str:
    return f"environment variable {old.key} changed"


def _change_of_unknown(old: Observation, new: Observation, _: Describe) -> str:
    return f"{old.kind} {old.key} changed"


_CHANGES: dict[str, Callable[[Observation, Observation, Describe], str]] = {
    "config": _change_of_config,
    "ingredient": _change_of_ingredient,
    "subreactor": _change_of_subreactor,
    "classes": _change_of_classes,
    MODULE: _change_of_module,
    "file": _change_of_file,
    "verified": _change_of_file,
    "env": _change_of_env,
}


class Status(NamedTuple):
    """What would happen: one decision for each reactor, in order of registration."""

    decisions: tuple[Decision, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.decisions))

    def __repr__(self) -> str:
        return str(self)  # as one reads it at a prompt

    def __iter__(self) -> Any:
        return iter(self.decisions)

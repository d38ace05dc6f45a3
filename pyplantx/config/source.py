"""`ConfigSource`: the plant's door to the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyplantx.config.keys import Path, describe_key, parse_key
from pyplantx.config.node import Answer, Node, unanswerable
from pyplantx.config.run import ConfigRun, Recorder
from pyplantx.config.view import NOTHING
from pyplantx.core.trace import Digest


class ConfigSource:
    """A config during one activity of the plant: views for reactors, today's answers for replays.

    Making one costs next to nothing; the config is looked at when it is asked about. Answers are kept, so
    make a new one when the config may have changed.

    Parameters
    ----------
    config : object or None
        A `ConfigBase`, dict or other mapping, dataclass, pydantic model, attrs object, namespace,
        OmegaConf node or any other object with attributes. None: no config is set.
    auxiliary : iterable of str
        Names (dotted ones reach into groups) that reactors may read without depending on them.
    encode : callable
        Value -> canonical digest, functions inside by their code.
    code : callable
        Function or class -> fingerprint.
    """

    __slots__ = ("encode", "code", "_config", "_auxiliary", "_root", "_runs", "_unrecorded", "_answers")

    def __init__(
        self,
        config: object | None,
        *,
        auxiliary: Iterable[str] = (),
        encode: Callable[[object], Digest],
        code: Callable[[object], Digest],
    ) -> None:
        self.encode = encode
        self.code = code
        self._config = config
        self._auxiliary = frozenset(auxiliary)
        self._root: Node | None = None
        self._runs: dict[int, tuple[Recorder | None, ConfigRun]] = {}
        self._unrecorded: dict[int, tuple[Recorder | None, ConfigRun]] = {}  # what the same runs read in secret
        self._answers: dict[str, Answer] = {}

    # -- for running reactors

    def run(self, recorder: Recorder | None) -> ConfigRun:
        """The one `ConfigRun` of a recorder, which stands for one run of a reactor."""
        found = self._runs.get(id(recorder))
        if found is None:
            # The recorder is kept with it, so that its id stays its own.
            found = self._runs.setdefault(id(recorder), (recorder, ConfigRun(self._tree(), recorder)))
        return found[1]

    def view(self, recorder: Recorder | None) -> Any:
        """The recording, read-only view that a reactor gets as its second argument."""
        return self.run(recorder).view()

    def read(self, recorder: Recorder | None, name: str, default: object = NOTHING) -> Any:
        """The value of a parameter, recorded. See `ConfigRun.read`."""
        return self.run(recorder).read(name, default)

    def has(self, recorder: Recorder | None, name: str) -> bool:
        """Whether there is such a parameter, recorded (its value is not)."""
        return self.run(recorder).has(name)

    def read_unregistered(self, recorder: Recorder | None, name: str) -> Any:
        """The value of a parameter, not recorded; the recorder's run has a copy of its own."""
        return self._unrecorded_run(recorder).read(name)

    def peek(self, recorder: Recorder | None, name: str, default: object = None) -> Any:
        """The value of a parameter, or `default`; as `read_unregistered`."""
        return self._unrecorded_run(recorder).read(name, default)

    def _unrecorded_run(self, recorder: Recorder | None) -> ConfigRun:
        found = self._unrecorded.get(id(recorder))
        if found is None:
            found = self._unrecorded.setdefault(id(recorder), (recorder, ConfigRun(self._tree(), None)))
        return found[1]

    def check_unchanged(self, recorder: Recorder | None) -> None:
        """End a recorder's run: raise `ReadOnlyConfig` if it changed what it was handed."""
        found = self._runs.pop(id(recorder), None)
        unrecorded = self._unrecorded.pop(id(recorder), None) if self._unrecorded else None
        if found is not None:
            found[1].check_unchanged()
        if unrecorded is not None:
            unrecorded[1].check_unchanged()

    def forget(self, recorder: Recorder | None) -> None:
        """End a recorder's run that failed, unchecked."""
        self._runs.pop(id(recorder), None)
        self._unrecorded.pop(id(recorder), None)

    # -- for replays and explanations

    def answer(self, key: str) -> Answer:
        """Today's answer to the recorded question ("config", `key`). Raises nothing but `MemoryError`.

        Returns
        -------
        digest : Digest
            ``core.trace.ABSENT`` if there is no such parameter; for what can't be answered, a digest
            that equals no other.
        shown : str
            The answer for people, at most 60 characters.
        """
        found = self._answers.get(key)
        if found is None:
            found = self._answers.setdefault(key, self._answer(key))
        return found

    def is_auxiliary(self, key: str) -> bool:
        """Whether a recorded question is about a place that is auxiliary today. Raises nothing but `MemoryError`."""
        try:
            return self._node(parse_key(key)[1]).hidden
        except MemoryError:
            raise
        except Exception:  # whatever can't be found is no place that is marked
            return False

    def _node(self, path: Path) -> Node:
        node = self._tree()
        for name in path:
            node = node.child(name)
        return node

    def _answer(self, key: str) -> Answer:
        try:
            mode, path = parse_key(key)
            return self._node(path).answer(mode)
        except MemoryError:  # says nothing of the config
            raise
        except Exception as error:  # whatever it is, it is not the recorded answer
            return unanswerable(error)

    def describe(self, key: str) -> str:
        """A recorded question for people: ``lr``, ``presence of z``, ``keys of model``."""
        return describe_key(key)

    def _tree(self) -> Node:
        if self._root is None:
            self._root = Node.root(self, self._config, self._auxiliary)
        return self._root

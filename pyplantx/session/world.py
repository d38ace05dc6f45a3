"""Answers to what a reactor may observe besides ingredients: one function for each kind of question.

A live run and a replay get their answers from the same place, so that they can't disagree. A `World`
lives as long as one activity of the plant: answers are memoised, the world does not change under it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.core.trace import ABSENT, COUNTS, MODULE, WAIVED, Digest, Observation, Question
from pyplantx.fingerprint.value import Hasher, hash_text
from pyplantx.runs.imports import watch, watch_calls

if TYPE_CHECKING:
    from pyplantx.blocks.travel import Workers
    from pyplantx.config import ConfigSource
    from pyplantx.core.messages import Failure, ReactorId
    from pyplantx.core.trace import ObjectRef
    from pyplantx.fingerprint.code import Fingerprinter
    from pyplantx.reactor import Reactor
    from pyplantx.runs.run import Run

#: A subreactor that is named nowhere in code that counts is stored as "=module:qualname".
_BY_NAME = "="

#: "3.12/0.2": what the one at the place 3.12 names at its place 0.2.
_WITHIN = "/"

#: The kind of question of ``track_file(path, verify=True)``.
_READ_EACH_TIME = "verified"
_FILES = ("file", _READ_EACH_TIME)

#: The kinds of questions that may be answered otherwise when user code has run.
OUTER = (*_FILES, "env")

#: Kind of the notes that tell what a subreactor, or a module, was made of.
_PARTS = "subreactor"
_Parts = dict[str, Digest]  # label -> digest

_READ_SIZE = 1 << 20

#: Nanoseconds.
_SETTLED_AFTER = 100_000_000


class Notes(Protocol):
    """Where small texts are kept between sessions."""

    def blob_get(self, kind: str, key: str) -> str | None: ...
    def blob_put(self, kind: str, key: str, text: str) -> None: ...


class Entered:
    """The code that a run has entered, and where it names subreactors. Each piece is gone through once.

    Parameters
    ----------
    code : Fingerprinter
    reactor : Reactor
        Who runs.
    note : callable
        Told of each subreactor that is observed, with its fingerprint.
    """

    def __init__(self, code: Fingerprinter, reactor: Reactor, note: Callable[[Any, Digest], None]) -> None:
        self._code, self._note = code, note
        # By identity: the reactor, and the subreactors that were observed; with what each names, so that ids stay so.
        self._callers: dict[int, tuple[Any, Sequence[Any]]] = {}
        self._places: dict[int, list[tuple[str, int, int]]] = {}  # subreactor, by identity -> where the callers name it
        self._add(reactor, "")

    def _add(self, caller: Any, start: str) -> None:
        named = self._code.named_directly(caller)
        self._callers[id(caller)] = caller, named
        for number, subreactor in enumerate(named):
            self._places.setdefault(id(subreactor), []).append((start, number, len(named)))

    def call(self, called: Any, is_own: bool) -> Observation | None:
        """The call of a subreactor, by the places where the code that ran so far names it; None if that code says all.

        Parameters
        ----------
        called : Subreactor
            The one that is called.
        is_own : bool
            Whether it was made during this run.
        """
        places = [f"{start}{number}.{count}" for start, number, count in self._places.get(id(called), ())]
        if not places:
            if self._is_said_by_callers(called, is_own):
                return None
            places = [f"{_BY_NAME}{called.qualified}"]
        digest = self._code.fingerprint(called)
        self._note(called, digest)
        observation = Observation("subreactor", " ".join(places), digest, called.__name__)
        if id(called) not in self._callers:
            self._add(called, f"{places[0]}{_WITHIN}")
        return observation

    def _is_said_by_callers(self, called: Any, is_own: bool) -> bool:
        """Whether the fingerprint of code that has run so far counts this one's code."""
        code = self._code
        callers = [caller for caller, _ in self._callers.values()]
        return any(code.holds(caller, called) or (is_own and code.defines(caller, called)) for caller in callers)


class Answers:
    """The world of one activity.

    Parameters
    ----------
    make_config : callable
        Gives the config as it is now; called by the first who asks about it.
    fingerprinter : Fingerprinter
        Answers for code.
    notes : Notes
        Remembers the digests of tracked files, and what subreactors were made of.
    error_of : callable
        A scheduler's failure, and what the reactor in question raised, to the exception to throw.
    on_subreactor : callable
        Told of each subreactor that is entered.
    workers : pyplantx.blocks.travel.Workers, optional
        Who calls functions of blocks besides the reactors' own thread.
    freeze : callable, optional
        Called before a module is imported for a replay: takes all fingerprints that this must not change.
    """

    def __init__(
        self,
        make_config: Callable[[], ConfigSource],
        fingerprinter: Fingerprinter,
        notes: Notes,
        error_of: Callable[[Failure, BaseException | None], BaseException],
        on_subreactor: Callable[[Any], None],
        workers: Workers | None = None,
        freeze: Callable[[], None] | None = None,
    ) -> None:
        self.workers, self._freeze = workers, freeze or _nothing
        self._make_config, self.fingerprinter, self._notes = make_config, fingerprinter, notes
        self._made_config: ConfigSource | None = None
        self._error_of, self.entered = error_of, on_subreactor
        self._folder, self._search_path = working_folder(), sys.path.copy()
        self._errors: dict[ReactorId, BaseException] = {}
        self._spared: dict[ReactorId, float] = {}
        self._remains: dict[ReactorId, list[str]] = {}
        self._noted: set[Digest] = set()  # fingerprints of subreactors whose parts are kept
        #: See `answer_once`. Whoever has let user code run clears this: what it does to files can't be known.
        self.files: dict[Question, Observation] = {}
        watch()
        fingerprinter.on_finders = watch_calls

    # ----------------------------------------------------------------- errors

    def note_error(self, id: ReactorId, error: BaseException) -> None:
        """A reactor has raised; an error that follows from that will say so."""
        self._errors[id] = error

    def forget_errors(self) -> None:
        """The demand is over: an error holds frames, those hold values, and one of these leads back here."""
        self._errors.clear()

    def error_of(self, failure: Failure) -> BaseException:
        """The exception for a failure, to be thrown into those who wait."""
        cause = next((self._errors[id] for id in failure.reactors if id in self._errors), None)
        return self._error_of(failure, cause)

    # ----------------------------------------------------------------- replays

    def answer(self, reactor: Reactor, question: Question) -> Observation:
        """Today's answer to a recorded question. Never raises for what a store may hold."""
        kind, key = question
        if kind == "config":
            digest, shown = self._config.answer(key)
            return Observation(kind, key, digest, shown)
        if kind == "subreactor":
            return Observation(kind, key, self._subreactor_digest(reactor, key))
        if kind == "classes":
            return Observation(kind, key, self._classes_digest(key))
        if kind == MODULE:
            return Observation(kind, key, self._module_digest(key))
        if kind in _FILES:
            return self.file(os.path.join(self._folder, key), kind != "file")._replace(key=key)
        if kind == "env":
            return self.env(key)[1]
        if kind == COUNTS and self.is_waived(*key.partition(" ")[::2]):
            return Observation(kind, key, WAIVED)
        return Observation(kind, key, _unanswerable())

    def is_waived(self, kind: str, key: str) -> bool:
        """Whether the answer to a question does not count today: it is about an auxiliary parameter."""
        return kind == "config" and self._config.is_auxiliary(key)

    def answer_once(self, reactor: Reactor, question: Question) -> Observation:
        """`answer`, for replays: a file that a hundred traces tell of is looked at once, until user code has run."""
        if question.kind not in _FILES:
            return self.answer(reactor, question)
        found = self.files.get(question)
        if found is None:
            found = self.files[question] = self.answer(reactor, question)
        return found

    # ----------------------------------------------------------------- config

    @property
    def _config(self) -> ConfigSource:
        if self._made_config is None:
            self._made_config = self._make_config()
        return self._made_config

    def describe(self, key: str) -> str:
        """A config key in words."""
        return self._config.describe(key)

    def config_view(self, run: Run) -> Any:
        """The config for one run; every read of it is noted there."""
        return self._config.view(run)

    def read_config(self, run: Run, name: str) -> Any:
        """See `Pipework.read_config`."""
        return self._config.read(run, name)

    def read_config_unregistered(self, run: Run, name: str) -> Any:
        """See `Pipework.read_config_unregistered`."""
        return self._config.read_unregistered(run, name)

    def peek_config(self, run: Run, name: str, default: Any) -> Any:
        """See `Pipework.peek`."""
        return self._config.peek(run, name, default)

    def has_config(self, run: Run, name: str) -> bool:
        """See `Pipework.has`."""
        return self._config.has(run, name)

    def check_unchanged(self, run: Run) -> None:
        """Raise `ReadOnlyConfig` if a run has changed what the config handed to it."""
        if self._made_config is not None:
            self._made_config.check_unchanged(run)

    def forget(self, run: Run) -> None:
        """A run is over."""
        if self._made_config is not None:
            self._made_config.forget(run)

    def note_spared(self, id: ReactorId, seconds: float) -> None:
        """A run has ended well that took over what earlier ones, which were killed, had spent so long on."""
        self._spared[id] = seconds

    def reads_remains(self, reactor: Reactor) -> bool:
        """Whether a reactor reads what other code may have filled."""
        return bool(self.fingerprinter.remains(reactor.function))

    def note_remains(self, reactor: Reactor) -> bool:
        """Note what a reactor that has run read and other code may have filled; whether there is any."""
        found = self.fingerprinter.remains(reactor.function)
        if found:
            self._remains[reactor.id] = found
        return bool(found)

    def take_remains(self, id: ReactorId) -> list[str]:
        """What was noted of it; it is forgotten here."""
        return self._remains.pop(id, [])

    def take_spared(self, id: ReactorId) -> float:
        """What was noted last of a reactor, once."""
        return self._spared.pop(id, 0.0) if self._spared else 0.0

    # ----------------------------------------------------------------- code

    def entered_by(self, reactor: Reactor) -> Entered:
        """For a run of a reactor, which has entered no subreactor yet."""
        return Entered(self.fingerprinter, reactor, self._note_parts)

    def _note_parts(self, called: Any, digest: Digest) -> None:
        """Keep what a fingerprint is made of: one day somebody asks what of it has changed."""
        if digest in self._noted:
            return
        self._noted.add(digest)
        if self._notes.blob_get(_PARTS, digest) is None:
            self._notes.blob_put(_PARTS, digest, json.dumps(self.fingerprinter.parts(called)))

    def parts_of_observed(self, reactor: Reactor, observed: Observation) -> tuple[_Parts, _Parts]:
        """What a subreactor or a module was made of when it was observed, and today; both empty if unknown."""
        before = _read_parts(self._notes.blob_get(_PARTS, observed.answer))
        try:
            code = self._observed_code(reactor, observed)
        except LookupError:
            return {}, {}
        return (before, self.fingerprinter.parts(code)) if before else ({}, {})

    def _observed_code(self, reactor: Reactor, observed: Observation) -> Any:
        if observed.kind != MODULE:
            return self._resolve_subreactor(reactor, observed.key.split(" ")[0])
        module = self.fingerprinter.find_module(observed.key)
        if module is None:
            raise LookupError(observed.key)
        return module

    def named(self, code: Any) -> Sequence[Any]:
        """The subreactors that code names, and those that they name."""
        return self.fingerprinter.named(code)

    def _subreactor_digest(self, reactor: Reactor, key: str) -> Digest:
        try:
            called = [self._resolve_subreactor(reactor, place) for place in key.split(" ")]
        except LookupError:
            return ABSENT
        if any(other is not called[0] for other in called):
            return ABSENT  # they were one and the same
        return self.fingerprinter.fingerprint(called[0])

    def _resolve_subreactor(self, reactor: Reactor, place: str) -> Any:
        at: Any = reactor
        for step in place.split(_WITHIN):
            named = step.startswith(_BY_NAME)
            at = find_qualified(step[len(_BY_NAME) :]) if named else self.fingerprinter.at_place(at, step)
            if getattr(at, "__pyplantx_kind__", "") != "subreactor":
                raise LookupError(place)
        return at

    def classes(self, ref: ObjectRef) -> Observation | None:
        """The code of the project classes in a received object; None if it has none."""
        names = _class_names(ref.meta)
        if not names:
            return None
        key = " ".join(names)
        return Observation("classes", key, self._classes_digest(key))

    def _classes_digest(self, key: str) -> Digest:
        try:
            return hash_text(" ".join(self.fingerprinter.standalone(find_qualified(name)) for name in key.split(" ")))
        except LookupError:
            return ABSENT

    # ----------------------------------------------------------------- modules that are found by text

    def module(self, name: str, importer: Mapping[str, Any], found: bool) -> Observation | None:
        """The code of a module that a reactor has got by a text; None if that does not count.

        Parameters
        ----------
        name : str
            Its absolute name.
        importer : dict
            The globals of the code that has imported it: what one library imports of another is its own business.
        found : bool
            Whether the import went well.
        """
        code = self.fingerprinter
        is_library = code.is_library_module(name)
        if (is_library or not found) and code.boundary.owns_globals(importer):
            return None
        if is_library and not code.boundary.version(name):
            return None
        if found and not is_library and sys.path != self._search_path:
            file = _off_path(name, self._search_path)
            if file is not None:
                return self.file(file, False)
        digest = self._module_digest(name) if found or is_library else ABSENT
        if not is_library and digest != ABSENT:
            self._note_parts(code.find_module(name), digest)
        return Observation(MODULE, name, digest)

    def _module_digest(self, name: str) -> Digest:
        if not self.fingerprinter.is_library_module(name):
            freeze, self._freeze = self._freeze, _nothing
            freeze()  # its import may fill what the fingerprints of reactors are taken from
        return self.fingerprinter.of_module(name) or ABSENT

    # ----------------------------------------------------------------- files and environment

    def file(self, path: str, verify: bool) -> Observation:
        """The content of a file or folder now; a file is read only if its stat differs from what was noted.

        With `verify` it is read in any case, by replays as well: so that is part of the question.

        A relative path is kept as such (the project may be moved), unless the reactor has changed the working
        directory: replays look from where the plant was called.
        """
        now = working_folder()
        key = path if os.path.isabs(path) or now == self._folder else os.path.normpath(os.path.join(now, path))
        return Observation(_READ_EACH_TIME if verify else "file", key, self._path_digest(key, verify, {}))

    def _path_digest(self, path: str, verify: bool, met: dict[tuple[int, int], int]) -> Digest:
        try:
            if os.path.isdir(path):
                return self._folder_digest(path, verify, met)
            with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
                return self._digest_of_open(file, path, verify)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: no file can be called so
            return ABSENT
        except OSError as error:  # no permission: an answer of its own; opening it will tell the user
            return hash_text(f"unreadable: {error.errno}")

    def _folder_digest(self, path: str, verify: bool, met: dict[tuple[int, int], int]) -> Digest:
        """Names and contents of all that is in a folder, and in those that links in it lead to.

        One that was `met` before, on another way or in a circle of links, counts by which of them it is.
        """
        stat = os.stat(path)
        known = met.get((stat.st_dev, stat.st_ino))
        if known is not None:
            return hash_text(f"folder {known}")
        met[stat.st_dev, stat.st_ino] = len(met)
        lines = ["folder"]
        for name in sorted(os.listdir(path)):
            lines.append(f"{len(name)} {name} {self._path_digest(os.path.join(path, name), verify, met)}")
        return hash_text("\n".join(lines))

    def _digest_of_open(self, file: Any, path: str, verify: bool) -> Digest:
        stat = os.fstat(file.fileno())
        if not S_ISREG(stat.st_mode):  # a pipe would keep us waiting, a device never end
            return hash_text("not an ordinary file")
        key = os.path.abspath(path)
        noted = _read_note(self._notes.blob_get("file", key))
        if noted is not None and not verify and noted[0] == _stat_key(stat):
            return str(noted[1])
        digest = _hash_file(file)
        if _is_settled(stat) and _stat_key(os.fstat(file.fileno())) == _stat_key(stat):
            self._notes.blob_put("file", key, json.dumps([_stat_key(stat), digest]))
        return digest

    def env(self, name: str) -> tuple[str | None, Observation]:
        """The value of an environment variable, and that as an observation (which does not keep it)."""
        value = _in_environment(name)
        answer = ABSENT if value is None else hash_text(value)
        return value, Observation("env", name, answer)


def working_folder() -> str:
    """Where relative paths begin; "" if that folder was removed: then nothing is found by one."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read_note(text: str | None) -> list[Any] | None:
    """What was noted about a file: its stat and its digest; None if nothing was that makes sense."""
    try:
        noted = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return noted if isinstance(noted, list) and len(noted) == 2 else None


def _read_parts(text: str | None) -> _Parts:
    """What was noted about a subreactor; nothing if that makes no sense."""
    try:
        noted = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) and all(isinstance(digest, str) for digest in noted.values()) else {}


def _class_names(meta: str) -> list[str]:
    """The classes that an object's metadata name; none if they make no sense, for then it can't be opened either."""
    try:
        names = json.loads(meta).get("classes")
    except (ValueError, AttributeError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _in_environment(name: str) -> str | None:
    try:
        return os.environ.get(name)
    except UnicodeEncodeError:  # no variable can be called so
        return None


def _nothing() -> None:
    pass


def _off_path(name: str, search_path: Sequence[str]) -> str | None:
    """File of a loaded module that lies where Python was only told to look while reactors ran; None of any other.

    No other process would find it by its name.
    """
    top, module = (getattr(sys.modules.get(one), "__dict__", {}) for one in (name.partition(".")[0], name))
    file, own = top.get("__file__"), module.get("__file__")
    if not isinstance(file, str) or not isinstance(own, str):
        return None
    place = os.path.dirname(os.path.abspath(file))
    place = os.path.dirname(place) if "__path__" in top else place
    added = {os.path.abspath(each) for each in sys.path if isinstance(each, str) and each not in search_path}
    return os.path.abspath(own) if place in added else None


def find_qualified(name: str) -> Any:
    """The object called "module:qualname" today.

    Raises
    ------
    LookupError
        If there is none.
    """
    import importlib

    module_name, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except MemoryError:  # says nothing of the module
        raise
    except Exception as error:  # a module may raise anything: it was altered, or the name is a forged one
        raise LookupError(name) from error
    return found


def _stat_key(stat: os.stat_result) -> list[int]:
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _is_settled(stat: os.stat_result) -> bool:
    """Whether a later change is sure to show in the times: they move in steps of some milliseconds."""
    age = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns)
    return age > _SETTLED_AFTER


def _hash_file(file: Any) -> Digest:
    hasher = Hasher()
    while block := file.read(_READ_SIZE):
        hasher.update(block)
    return hasher.hexdigest()


def _unanswerable() -> Digest:
    """Equal to no recorded answer."""
    return os.urandom(16).hex()

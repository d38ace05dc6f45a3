"""Every error that pyplantx raises on purpose.

::

    PyplantxError
    ├── ReactorError                 something about a reactor
    │   ├── ReactorClash             two reactors answer to one name
    │   ├── UnknownReactor           no reactor of that name is registered
    │   ├── BadRequest               a reactor yielded, sent or asked for something impossible
    │   │   └── BadSelection         an array on disk has no such elements; also an IndexError
    │   ├── NotSent                  an allocated ingredient was never sent
    │   ├── NotDeterministic         re-running gave other content, twice
    │   └── ReactorTimeout           a reactor has run for longer than its timeout=
    ├── IngredientError              something about an ingredient
    │   ├── NoProducer               nobody sends it
    │   ├── TwoProducers             two reactors send it
    │   ├── Deadlock                 the requests form a cycle, or wait for each other
    │   └── CannotStore              the value can't be written (says where inside it)
    ├── ConfigError                  something about the config
    │   ├── UnknownParameter         no such parameter (with near misses); also an AttributeError and a KeyError
    │   └── ReadOnlyConfig           a reactor tried to change the config
    ├── CannotFingerprint            a value has no canonical encoding (says where inside it)
    └── WarehouseError               something about the store
        ├── PayloadMissing           an object's payload is not there (collected, damaged)
        ├── DamagedObject            a payload's or record's checksum does not match
        ├── WarehouseFull            no space left
        ├── StoreBusy                another process holds the store for too long
        ├── StoreTooNew              written by a newer version
        ├── StoreReadOnly            the store can't be written
        ├── UntrustedStore           decoding would run code that is not trusted
        ├── UnknownSpec              no registered spec reads this ingredient type
        └── MissingLibrary           an optional library is needed and not installed

Each message says what happened, where, and what to do. ``hint`` holds the last of these on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Self


def add_note(error: BaseException, text: str) -> None:
    """Note something on anybody's error, also where its class refuses new attributes (a frozen dataclass does)."""
    try:
        error.add_note(text)
    except Exception:  # whatever it raises: the error itself is what counts
        vars(error).setdefault("__notes__", []).append(text)


class PyplantxError(Exception):
    """Root of all errors of this library.

    Parameters
    ----------
    message : str
        What happened, in one sentence.
    hint : str or callable, optional
        What the reader can do about it; or what finds that out when it is read for the first time. (Looking for what
        was meant takes a look at all names there are, and many errors are caught unread: `hasattr` asks often.)
    """

    _hint: str | Callable[[], str] = ""

    def __init__(self, message: str, *, hint: str | Callable[[], str] = "") -> None:
        super().__init__(message)
        self.message, self._hint = message, hint
        if not callable(hint):
            self._tell(hint)

    @property
    def hint(self) -> str:
        """What the reader can do about it; "" if nobody knows."""
        return self._tell(self._hint()) if callable(self._hint) else self._hint

    def _tell(self, hint: str) -> str:
        self._hint = hint
        if hint:
            self.args = (f"{self.message}\n  hint: {hint}",)
        return hint

    def settle(self) -> None:
        """Find the hint now: what it is to be found in may change, or go."""
        if callable(self._hint):
            self._tell(self._hint())

    def __str__(self) -> str:  # also because `KeyError` would print the repr
        self.settle()
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        self.settle()
        reduced: tuple[Any, ...] = super().__reduce__()  # type: ignore[assignment]
        return reduced

    def within(self, place: str) -> Self:
        """The same error, with the place in front: "<place>: <message>"."""
        told = type(self).__new__(type(self))
        told.__dict__.update(self.__dict__)
        PyplantxError.__init__(told, f"{place}: {self.message}", hint=self.hint)  # a subclass may take other arguments
        return told


class ReactorError(PyplantxError):
    """Something about a reactor."""


class ReactorClash(ReactorError):
    """Two different reactors answer to one name."""


class UnknownReactor(ReactorError):
    """No reactor of that name is registered."""


class BadRequest(ReactorError):
    """A reactor yielded, sent or asked for something that can't be."""


class BadSelection(BadRequest, IndexError):
    """An array on disk has no such elements, or can't be asked for them in this way.

    It is an `IndexError` too, so that what is written for NumPy's arrays catches it.
    """


class NotSent(ReactorError):
    """An allocated ingredient was never sent."""


class NotDeterministic(ReactorError):
    """A reactor gave other content each time that it had to be run again."""


class ReactorTimeout(ReactorError):
    """A reactor has run for longer than its ``timeout=`` allows, and was ended."""


class IngredientError(PyplantxError):
    """Something about an ingredient."""


class NoProducer(IngredientError):
    """No reactor sends the ingredient."""


class TwoProducers(IngredientError):
    """Two reactors send the same ingredient."""


class Deadlock(IngredientError):
    """Requests wait for each other and can't go on."""


class CannotStore(IngredientError):
    """A value can't be stored; the message says where inside it the trouble is."""


class ConfigError(PyplantxError):
    """Something about the config."""


class UnknownParameter(ConfigError, AttributeError, KeyError):
    """The config has no such parameter.

    It is an `AttributeError` and a `KeyError` too, so that ``hasattr``, ``getattr`` with a default and
    mapping idioms work as they do on the plain config object.
    """


class ReadOnlyConfig(ConfigError, AttributeError, TypeError):
    """A reactor tried to change the config."""


class CannotFingerprint(PyplantxError):
    """A value has no canonical encoding; the message says where inside it the trouble is."""


class WarehouseError(PyplantxError):
    """Something about the store."""


class PayloadMissing(WarehouseError):
    """The payload of a known object is not in the store."""


class DamagedObject(WarehouseError):
    """Stored bytes do not match their checksum."""


class WarehouseFull(WarehouseError):
    """There is no space left for the store."""


class StoreBusy(WarehouseError):
    """Another process holds the store for longer than the time-out."""


class StoreTooNew(WarehouseError):
    """The store was written by a newer version of pyplantx."""


class StoreReadOnly(WarehouseError):
    """The store can't be written."""


class UntrustedStore(WarehouseError):
    """Decoding would run code from a store that is not trusted."""


class UnknownSpec(WarehouseError):
    """No registered spec reads this ingredient type."""


class MissingLibrary(WarehouseError, ImportError):
    """An optional library is needed and not installed."""


def check_choice(what: str, given: object, choices: Sequence[str]) -> None:
    """Refuse a word that is none of those that are possible.

    Parameters
    ----------
    what : str
        Name of the parameter.
    given : object
        What was given for it.
    choices : sequence of str
        The words.

    Raises
    ------
    BadRequest
        With the words, and the one that was probably meant.
    """
    if not isinstance(given, str) or given not in choices:
        meant = did_you_mean(given, choices)
        possible = f"{', '.join(map(repr, choices))} are possible"
        raise BadRequest(f"{what}={shown(given)} is not possible", hint=f"{meant} {possible}".lstrip())


def did_you_mean(given: object, known: Iterable[str], most: int = 1) -> str:
    """ "did you mean 'x'?" for something like a word that is known; "" if there is none.

    Parameters
    ----------
    given : object
        What was given; only a text is like a word.
    known : iterable of str
        The words.
    most : int
        How many of them to name at most.
    """
    close = near_misses(given, known, most) if isinstance(given, str) else []
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def near_misses(given: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The words that a misspelt one may have been meant to be, best first; case, ``-`` and ``_`` make no difference.

    Parameters
    ----------
    given, known, most
        As in `did_you_mean`.
    """
    from difflib import get_close_matches  # a millisecond, for those who mistype

    folded: dict[str, list[str]] = {}
    for word in sorted(known):
        folded.setdefault(_fold(word), []).append(word)
    close = get_close_matches(_fold(given), folded, n=most)
    return [word for match in close for word in folded[match]][:most]


def _fold(word: str) -> str:
    return word.casefold().replace("-", "_")


def shown(value: object, most: int = 60) -> str:
    """What a value of the user's looks like in a message: its `repr`, clipped. One that raises is only told of."""
    try:
        text = repr(value)
    except Exception as error:
        return f"(a {type(value).__name__} whose repr() raises {type(error).__name__})"
    return text if len(text) <= most else f"{text[: most - 3]}..."

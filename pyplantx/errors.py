"""Every error that pyplantx raises on purpose.

::

    PyplantxError
    ├── ReactorError                 something about a reactor
    │   ├── ReactorClash             two reactors answer to one name
    │   ├── UnknownReactor           no reactor of that name is registered
    │   ├── BadRequest               a reactor yielded, sent or asked for something impossible
    │   ├── NotSent                  an allocated ingredient was never sent
    │   └── NotDeterministic         re-running gave other content, twice
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


class PyplantxError(Exception):
    """Root of all errors of this library.

    Parameters
    ----------
    message : str
        What happened, in one sentence.
    hint : str, optional
        What the reader can do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n  hint: {hint}" if hint else message)
        self.hint = hint


class ReactorError(PyplantxError):
    """Something about a reactor."""


class ReactorClash(ReactorError):
    """Two different reactors answer to one name."""


class UnknownReactor(ReactorError):
    """No reactor of that name is registered."""


class BadRequest(ReactorError):
    """A reactor yielded, sent or asked for something that can't be."""


class NotSent(ReactorError):
    """An allocated ingredient was never sent."""


class NotDeterministic(ReactorError):
    """A reactor gave other content each time that it had to be run again."""


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

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]) if self.args else ""


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

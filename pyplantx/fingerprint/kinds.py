"""What the encoding asks about a class, found out once for all of its instances.

A list of a hundred thousand records asks the same questions a hundred thousand times. The answers hold for one value
that is encoded, no longer: a class can be given a method, and so can those that it derives from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pyplantx.fingerprint.notes import takes_notes
from pyplantx.fingerprint.objects import (
    MARKS,
    MISSING,
    builtin_base,
    class_attribute,
    class_module,
    has_own_reduce,
    hides_state,
    instance_dict,
    is_code_class,
    is_marked,
    lineage,
    python_slots,
)
from pyplantx.fingerprint.states import NETWORK, NEVER, STATES, is_sparse, may_be_inconstant

#: Functions registered for types by ``@fingerprint.register``.
REGISTERED: dict[type, Callable[[Any], object]] = {}

_ROLE, _INNER = MARKS
#: Bases whose instances are written in ways of their own.
_OWN_WAYS: Final = frozenset({"numpy.ndarray", "numpy.generic", "numpy.dtype", "enum.Enum", "_thread._local"})


class Kind:
    """One class, as the encoding sees it.

    Parameters
    ----------
    cls : type

    Attributes
    ----------
    name : str
        Its dotted name.
    bases : list of str
        Dotted names of the class and all its bases.
    custom : callable or None
        Instance -> its state, if the class or somebody else says what that is.
    is_ordinary : bool
        Whether its instances are nothing but their fields, or what their reduction says.
    """

    __slots__ = ("_is_code", "_is_marked", "_layout", "bases", "cls", "custom", "is_ordinary", "name")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.bases = lineage(cls)
        self.name = self.bases[0]
        self.custom = _custom(cls)
        self.is_ordinary = self.name not in STATES and _are_ordinary(self.bases) and not self.is_sparse
        self._is_code = is_code_class(cls)
        self._is_marked = any([class_attribute(cls, mark) is not MISSING for mark in MARKS])
        self._layout: Layout | None = None

    def is_code(self, value: Any) -> bool:
        """`objects.is_code` of an instance."""
        if self._is_code:
            return True
        own = instance_dict(value)
        marked = self._is_marked or (own is not None and (_ROLE in own or _INNER in own))
        return marked and is_marked(value)

    @property
    def is_sparse(self) -> bool:
        """Whether it is one of SciPy's sparse matrices or arrays."""
        return is_sparse(class_module(self.cls), self.bases)

    @property
    def layout(self) -> Layout:
        """Where its instances keep their state."""
        if self._layout is None:
            self._layout = Layout(self.cls)
        return self._layout


class Layout:
    """Where the instances of a class keep their state.

    Attributes
    ----------
    is_reduced : bool
        Whether the class says itself what their state is.
    slots : list of (str, descriptor)
        Those that its classes of Python declare.
    builtin : type or None
        The builtin container or scalar that it derives from.
    is_network : bool
        Whether it is one of torch's modules.
    takes_notes : bool
        Whether they may hold what says nothing of them (`notes`).
    """

    __slots__ = ("builtin", "cls", "is_network", "is_reduced", "slots", "takes_notes")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.is_reduced = has_own_reduce(cls)
        self.slots = python_slots(cls)
        self.builtin = builtin_base(cls)
        bases = lineage(cls)
        self.is_network = NETWORK in bases
        self.takes_notes = takes_notes(bases)

    @property
    def hides_state(self) -> bool:
        """Whether they have fields in C that nothing shows."""
        return hides_state(self.cls, len(self.slots))


def _are_ordinary(bases: list[str]) -> bool:
    return NEVER.isdisjoint(bases) and _OWN_WAYS.isdisjoint(bases) and not may_be_inconstant(bases)


def _custom(cls: type) -> Callable[[Any], object] | None:
    if REGISTERED:
        for base in cls.__mro__:
            if base in REGISTERED:
                return REGISTERED[base]
    return _own_fingerprint if callable(class_attribute(cls, "__fingerprint__")) else None


def _own_fingerprint(value: Any) -> object:
    return value.__fingerprint__()

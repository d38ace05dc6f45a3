"""Lists, masks and slices that run backwards: what HDF5 is asked for them, and what becomes of its answer.

HDF5 takes one list, of indices in increasing order, none of them twice. NumPy's users expect more than that.

This file may know: NumPy, basic selections. It may not know: h5py, files.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import BadSelection, shown
from pyplantx.specs.selections import along, as_tuple, fill, parse

_WHOLE = slice(None)
_BACKWARDS = slice(None, None, -1)
_ONE_LIST = "use one of them, and index what it gives with the other: dataset[rows][:, columns]"
_ONE_MASK = "a mask has the dataset's shape, or takes the place of one index: dataset[:, mask]"
_NO_NEW_AXIS = "read first, then add it: dataset[...][..., None]"
_INDICES = "indices are whole numbers, slices, one list of whole numbers, or a mask of truth values"


class Pick(NamedTuple):
    """A selection as HDF5 takes it.

    Attributes
    ----------
    selection : tuple
        What HDF5 is asked for: each element once, in the order in which they lie.
    after : tuple or None
        Gives what was meant, of what was found; None: it is that.
    before : tuple or None
        Gives what HDF5 is to write, of a value in the shape of what was meant; None: it is that.
    shape : tuple of int
        Of what was meant.
    """

    selection: tuple[Any, ...]
    after: tuple[Any, ...] | None
    before: tuple[Any, ...] | None
    shape: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is selected: then HDF5 is asked for nothing of each axis, whatever the shape is."""
        return 0 in self.shape


class _Axis(NamedTuple):
    """A `Pick` along one axis; ``after`` and ``before`` may be of several, or of none."""

    part: Any
    after: tuple[Any, ...]
    before: tuple[Any, ...]
    lengths: tuple[int, ...]


def pick(selection: Any, shape: tuple[int, ...]) -> Pick | None:
    """How to ask HDF5 for a selection.

    Parameters
    ----------
    selection : object
        As between the brackets of ``array[...]``; names of fields may be among it.
    shape : tuple of int
        Of the dataset.

    Returns
    -------
    Pick or None
        None if HDF5 takes it as it is, or has to say itself what is wrong with it.

    Raises
    ------
    BadSelection
        If it selects nothing that there is.
    """
    if parse(selection, shape) is not None:
        return None
    parts = as_tuple(selection)
    names = tuple(part for part in parts if isinstance(part, str))
    places = tuple(part for part in parts if not isinstance(part, str))
    mask = mask_of(places, shape)
    if mask is not None:
        return Pick((*names, mask), None, None, (int(np.count_nonzero(mask)),))
    if any(not _is_index(part) for part in places):
        return None  # h5py has kinds of its own
    return _picked(names, _filled(places, shape), shape)


def mask_of(places: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """The mask of a whole dataset, an array or nested lists, if that is all that stands there; ``...`` adds nothing.

    A dataset without an axis has none.
    """
    rest = [place for place in places if place is not Ellipsis]
    if len(rest) != 1 or len(places) > 2 or not shape:
        return None
    one = rest[0]
    if type(one) is list and one and isinstance(one[0], (list, tuple)):
        try:
            one = np.asarray(one)
        except ValueError:  # lists of different lengths: `_indices` has the words
            return None
    return one if isinstance(one, np.ndarray) and one.dtype.kind == "b" and one.shape == shape else None


def _is_index(part: Any) -> bool:
    kinds = (slice, bool, int, float, complex, list, tuple, range, np.ndarray, np.generic)
    return part is None or part is Ellipsis or isinstance(part, kinds) or hasattr(part, "__index__")


def _filled(places: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    if any(place is None for place in places):
        raise BadSelection("None is no index of an array on disk: it would add an axis", hint=_NO_NEW_AXIS)
    filled = fill(places, len(shape))
    if filled is None:
        raise BadSelection(f"{shown(places)} has too many indices, or '...', for shape {shape}", hint=_INDICES)
    return filled


def _picked(names: tuple[str, ...], parts: tuple[Any, ...], shape: tuple[int, ...]) -> Pick:
    axes = [_picked_along(part, length) for part, length in zip(parts, shape)]
    if sum(isinstance(axis.part, np.ndarray) and axis.part.ndim > 0 for axis in axes) > 1:
        raise BadSelection("a dataset on disk takes one list or mask, not several", hint=_ONE_LIST)
    lengths = tuple(length for axis in axes for length in axis.lengths)
    if 0 in lengths:  # of which HDF5 has not always an idea
        return Pick((*names, *(slice(0, 0) for _ in shape)), None, None, lengths)
    after = tuple(step for axis in axes for step in axis.after)
    before = tuple(step for axis in axes for step in axis.before)
    return Pick(
        (*names, *(axis.part for axis in axes)),
        None if all(step is _WHOLE for step in after) else after,
        None if all(step is _WHOLE for step in before) else before,
        lengths,
    )


def _picked_along(part: Any, length: int) -> _Axis:
    basic = along(part, length)
    if basic is not None:
        _, count, _, kept = basic
        return _Axis(part, (_WHOLE,), (_WHOLE,), (count,)) if kept else _Axis(part, (), (), ())
    if type(part) is slice:
        return _backwards(part, length)
    if not isinstance(part, (list, tuple, range)) and not (isinstance(part, np.ndarray) and part.ndim):
        raise BadSelection(f"{shown(part)} is no index of an array on disk", hint=_INDICES)
    return _listed(_indices(part, length))


def _backwards(part: slice, length: int) -> _Axis:
    try:
        places = range(*part.indices(length))[::-1]
    except (TypeError, ValueError) as error:
        raise BadSelection(f"{shown(part)} is no slice of whole numbers: {error}", hint=_INDICES) from error
    forwards = slice(places[0], places[-1] + 1, places.step) if places else slice(0, 0)
    return _Axis(forwards, (_BACKWARDS,), (_BACKWARDS,), (len(places),))


def _indices(part: Any, length: int) -> np.ndarray[Any, Any]:
    """The indices of a list or a mask, counted from 0."""
    try:
        given = np.asarray(part)
    except ValueError as error:  # lists of different lengths
        raise BadSelection(f"{shown(part)} is no list of indices: {error}", hint=_INDICES) from error
    if given.dtype.kind == "b":
        if given.shape != (length,):
            raise BadSelection(f"a mask of shape {given.shape} doesn't fit an axis of length {length}", hint=_ONE_MASK)
        return np.flatnonzero(given)
    if given.dtype.kind not in "iu" and (given.size or isinstance(part, np.ndarray)):
        raise BadSelection(f"{shown(part)} has {given.dtype} for indices", hint=_INDICES)
    return indices_along(given, length)


def indices_along(given: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """Indices of an axis, counted from 0.

    Raises
    ------
    BadSelection
        If one is out of range.
    """
    wrong = given[(given >= length) | (given < -length)] if given.size else given
    if wrong.size:
        raise BadSelection(f"index {wrong.flat[0]} is out of range for an axis of length {length}")
    indices = given.astype(np.intp)
    return np.where(indices < 0, indices + length, indices)


def _listed(indices: np.ndarray[Any, Any]) -> _Axis:
    """Each index once and in order; of what is written to one twice, the last counts, as in NumPy."""
    if indices.ndim == 1 and bool(np.all(indices[1:] > indices[:-1])):
        return _Axis(indices, (_WHOLE,), (_WHOLE,), indices.shape)
    once, places = np.unique(indices, return_inverse=True)
    _, from_end = np.unique(indices.reshape(-1)[::-1], return_index=True)
    last = np.unravel_index(indices.size - 1 - from_end, indices.shape)
    return _Axis(once, (places.reshape(indices.shape),), last, indices.shape)

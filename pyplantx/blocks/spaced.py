"""Parts of arrays that have gaps, on their way to another process.

This file may know: strides. It may not know: blocks, processes.

A part of an array need not lie in one piece: columns of it, or rows of one in Fortran order. Sent as it is it would
arrive in one piece, and NumPy adds the elements of one piece in another order than those of several: a sum of floats
would differ in its last bit from that of a loop without workers. So gaps stay gaps, as small as they can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


class Spaced:
    """Is sent as an array with the same gaps.

    Parameters
    ----------
    array : ndarray
        Without objects.
    """

    def __init__(self, array: Array) -> None:
        self._array = array

    def __reduce__(self) -> tuple[Any, ...]:
        import numpy as np

        array = self._array
        strides, size = spacing(array.shape, array.strides, array.itemsize)
        memory = np.zeros(size, "u1")
        np.ndarray(array.shape, array.dtype, memory, 0, strides)[...] = array
        return _made, (memory, array.shape, array.dtype, strides, array.flags.writeable)


def has_gaps(part: Any) -> bool:
    """Whether something is an array that does not lie in one piece, and can be sent as `Spaced`."""
    strides = getattr(part, "strides", None)
    if type(part).__name__ != "ndarray" or strides is None or not part.size:
        return False
    return not part.flags.forc and min(strides) > 0 and not part.dtype.hasobject


def spacing(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], int]:
    """Strides with gaps at the same places, one element wide; and the bytes that it takes."""
    made = [itemsize] * len(shape)
    taken = followed = itemsize  # by what lies inside, and where the next one would begin if there were no gap
    for axis in sorted(range(len(shape)), key=lambda axis: (strides[axis], -axis)):
        if shape[axis] == 1:
            continue
        made[axis] = taken + (itemsize if strides[axis] != followed else 0)
        taken, followed = made[axis] * shape[axis], strides[axis] * shape[axis]
    return tuple(made), taken


def _made(memory: Array, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...], writable: bool) -> Array:
    import numpy as np

    array: Array = np.ndarray(shape, dtype, memory, 0, strides)
    array.flags.writeable = writable
    return array

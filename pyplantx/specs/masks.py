"""Masked arrays where there is no room for a mask: they are refused, lest what is masked becomes numbers.

This file may know: NumPy's masked arrays, once they are imported. It may not know: where values go.
"""

from __future__ import annotations

from typing import Any

from pyplantx.basics.loaded import is_of
from pyplantx.errors import BadRequest, CannotStore


def is_masked_array(value: Any) -> bool:
    """Whether a value is an array of ``numpy.ma``; imports nothing."""
    return is_of(value, "numpy.ma", "MaskedArray")


def hides_elements(value: Any) -> bool:
    """Whether a value is an array of ``numpy.ma`` of which elements, or fields of them, are masked."""
    if not is_masked_array(value):
        return False
    import numpy as np

    mask = np.ma.getmask(value)
    return mask is not np.ma.nomask and bool(np.ascontiguousarray(mask).view("?").any())


def check_sent(value: Any, what: str) -> None:
    """Refuse to send a masked array as a type that has no masks.

    Parameters
    ----------
    value : object
        What is sent.
    what : str
        What it would be kept as.

    Raises
    ------
    CannotStore
        If it is a masked array, whatever is masked: its class would not come back.
    """
    if is_masked_array(value):
        raise CannotStore(
            f"value is a masked array, and {what} has no mask: what is masked would come back as numbers",
            hint="leave the type off, or use Ingredient.Type.array: both keep the mask; or send value.filled(...)",
        )


def check_written(value: Any, where: str) -> None:
    """Refuse to write masked elements to a dataset.

    Parameters
    ----------
    value : object
        What is written.
    where : str
        What it is written to.

    Raises
    ------
    BadRequest
        If elements are masked.
    """
    if hides_elements(value):
        raise BadRequest(
            f"elements of the value are masked, and {where} has no mask: they would become numbers",
            hint="write value.filled(...), and np.ma.getmaskarray(value) to another dataset if it is needed",
        )

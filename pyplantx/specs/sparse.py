"""SciPy sparse matrices and arrays, each component a ``.npy`` (specs/sparse is the written format).

Objects are assembled by attribute, not by constructor: constructors narrow 64-bit indices and copy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from itertools import accumulate, chain
from typing import Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.core.trace import Digest
from pyplantx.errors import CannotStore, DamagedObject
from pyplantx.fingerprint.states import hung_on_sparse
from pyplantx.specs.base import Payload, Stage, Written
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import BuiltinSpec, OptionalLibrary

_FORMATS = ("csr", "csc", "bsr", "coo", "dia", "lil", "dok")
#: Facts about the order of entries that scipy notes on an object, so that they need not be found again.
_FLAGS = ("has_sorted_indices", "has_canonical_format")


class ScipySparseSpec(BuiltinSpec):
    """Every format of scipy.sparse, matrices and arrays; the type comes back.

    Parameters
    ----------
    full_check : bool
        Whether every index is checked on opening: an index out of range makes scipy read foreign memory.
        Always done if the store is not this user's own.
    """

    name = "sparse"

    def __init__(self, full_check: bool = False) -> None:
        super().__init__()
        self._full_check = full_check

    def recognise(self, value: Any) -> bool:
        return "scipy.sparse" in sys.modules and _why_not(value) is None

    def write(self, value: Any, stage: Stage) -> Written:
        trouble = _why_not(value)
        if trouble is not None:
            raise CannotStore(f"value is {trouble}", hint="leave the type off, or use Ingredient.Type.object")
        form = _FORM[value.format]
        digests = _write_parts(form.take_apart(value), stage)
        meta = {"class": type(value).__name__, "shape": list(value.shape)}
        if value.format in ("lil", "dok"):
            meta["dtype"] = value.dtype.str
        return Written(_digest(meta, digests), {**meta, **_flags(value)})

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        with OptionalLibrary("scipy", "a sparse matrix"):
            from scipy import sparse
        from pyplantx.specs.npy import open_array

        kind, form = _kind(sparse, meta)
        parts = {name[: -len(".npy")]: name for name in sorted(payload.parts())}
        writable, unrolled = self.services.writable, form in _UNROLLED
        # SciPy's own code follows indices without a look at them, so they are right before it gets them.
        arrays = {name: open_array(payload, part, writable, unrolled or name != "data") for name, part in parts.items()}
        full = self._full_check or self.services.full_check
        try:
            indices = [array for name, array in arrays.items() if name != "data"]
            _must(all(array.dtype.kind in "iu" for array in indices), "an index is no whole number")
            value = form.put_together(kind, tuple(meta["shape"]), arrays, meta)
            if full:
                _check_fully(value)
        except KeyError as error:
            raise DamagedObject(f"a {kind.__name__} without its part {error}") from error
        except (ValueError, IndexError, TypeError) as error:
            raise DamagedObject(f"a {kind.__name__} whose parts don't fit: {error}") from error
        return value

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        with OptionalLibrary("numpy", "a sparse matrix"):
            from pyplantx.specs.npy import open_array

        data = open_array(payload, "data.npy", writable=False)
        return f"{meta.get('class')} {data.dtype} {tuple(meta.get('shape', ()))}, {data.size:,} stored"


def _why_not(value: Any) -> str | None:
    from pyplantx.specs.npy import why_not

    kind = type(value)
    if not kind.__module__.startswith("scipy.sparse.") or getattr(value, "format", None) not in _FORMATS:
        return f"a {type_name(kind)}, not a sparse matrix or array of SciPy itself"
    hung = hung_on_sparse(value)
    if hung:
        return f"a {type_name(kind)} with attributes of its own: {', '.join(hung)}"
    trouble = why_not(value.dtype)
    return None if trouble is None else f"a sparse matrix that .npy can't keep: {trouble}"


def _kind(sparse: Any, meta: Mapping[str, Any]) -> tuple[Any, _Form]:
    name = str(meta.get("class"))
    form = _FORM.get(name[:3])
    if form is None or name[3:] not in ("_matrix", "_array"):
        raise DamagedObject(f"{name!r} is not a class of scipy.sparse")
    kind = getattr(sparse, name, None)
    if kind is None:
        raise DamagedObject(f"this version of scipy has no {name}", hint="pip install --upgrade scipy")
    return kind, form


def _write_parts(arrays: Mapping[str, Any], stage: Stage) -> dict[str, Digest]:
    from pyplantx.specs.npy import write_array

    return {name: write_array(array, f"{name}.npy", stage) for name, array in arrays.items()}


def _digest(meta: Mapping[str, Any], digests: Mapping[str, Digest]) -> Digest:
    from pyplantx.fingerprint.value import combine

    names = ",".join(sorted(digests))
    head = f"sparse\0{meta['class']}\0{tuple(meta['shape'])}\0{meta.get('dtype', '')}\0{names}"
    return combine(head.encode(), (digests[name] for name in sorted(digests)))


# -- formats ------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How a format is taken apart into named arrays and put together again."""

    take_apart: Callable[[Any], dict[str, Any]]
    put_together: Callable[[Any, tuple[int, ...], dict[str, Any], Mapping[str, Any]], Any]


def _apart_compressed(value: Any) -> dict[str, Any]:
    return {"data": value.data, "indices": value.indices, "indptr": value.indptr}


def _together_compressed(kind: Any, shape: tuple[int, ...], arrays: dict[str, Any], meta: Mapping[str, Any]) -> Any:
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    form = kind.__name__[:3]
    _must(data.ndim == (3 if form == "bsr" else 1), "the values have the wrong number of axes")
    _must(0 not in data.shape[1:], "the blocks are empty")
    options = {"blocksize": data.shape[1:]} if form == "bsr" else {}
    # Before an object of that shape is made: it would have so many rows, whatever the payload holds.
    rows = shape[1] if form == "csc" else shape[0] // data.shape[1] if form == "bsr" else shape[0] if shape[1:] else 1
    _must(indptr.shape == (rows + 1,), "the row pointer has the wrong length")
    _must(indices.shape == data.shape[:1], "there are more indices than values, or fewer")
    value = _empty(kind, shape, **options)
    _must(indptr[0] == 0 and indptr[-1] <= len(indices), "the row pointer points outside of the values")
    value.data, value.indices, value.indptr = data, indices, indptr
    return _flagged(value, meta)


def _apart_coo(value: Any) -> dict[str, Any]:
    coords = value.coords if hasattr(value, "coords") else (value.row, value.col)
    return {"data": value.data, **{f"coords-{axis}": index for axis, index in enumerate(coords)}}


def _together_coo(kind: Any, shape: tuple[int, ...], arrays: dict[str, Any], meta: Mapping[str, Any]) -> Any:
    data = arrays["data"]
    coords = tuple(arrays[f"coords-{axis}"] for axis in range(len(shape)))
    _must(all(index.shape == data.shape for index in coords), "there are more indices than values, or fewer")
    value = _empty(kind, shape)
    value.data = data
    if hasattr(value, "coords"):
        value.coords = coords
    else:
        value.row, value.col = coords
    return _flagged(value, meta)


def _apart_dia(value: Any) -> dict[str, Any]:
    return {"data": value.data, "offsets": value.offsets}


def _together_dia(kind: Any, shape: tuple[int, ...], arrays: dict[str, Any], meta: Mapping[str, Any]) -> Any:
    data, offsets = arrays["data"], arrays["offsets"]
    _must(data.ndim == 2 and offsets.shape == data.shape[:1], "there are more diagonals than offsets, or fewer")
    value = _empty(kind, shape)
    value.data, value.offsets = data, offsets
    return value


def _apart_lil(value: Any) -> dict[str, Any]:
    import numpy as np

    ends = list(accumulate(map(len, value.rows), initial=0))
    indices = np.fromiter(chain.from_iterable(value.rows), np.int64, ends[-1])
    data = np.array(list(chain.from_iterable(value.data)), value.dtype)
    return {"data": data, "indices": indices, "indptr": np.array(ends, np.int64)}


def _together_lil(kind: Any, shape: tuple[int, ...], arrays: dict[str, Any], meta: Mapping[str, Any]) -> Any:
    data, indices, indptr = arrays["data"], arrays["indices"].tolist(), arrays["indptr"].tolist()
    _must(len(indptr) == shape[0] + 1, "the row pointer has the wrong length")
    value = _empty(kind, shape, data.dtype)
    _must(indptr == sorted(indptr), "the row pointer goes back")
    _must(indptr[0] == 0 and indptr[-1] == len(indices) == len(data), "there are more indices than values, or fewer")
    items = list(data)
    for row, (start, end) in enumerate(zip(indptr, indptr[1:])):
        value.rows[row], value.data[row] = indices[start:end], items[start:end]
    return value


def _apart_dok(value: Any) -> dict[str, Any]:
    import numpy as np

    width = len(value.shape)
    keys = np.array(list(value.keys()), np.int64).reshape(-1, width)
    return {"data": np.array(list(value.values()), value.dtype), "keys": keys}


def _together_dok(kind: Any, shape: tuple[int, ...], arrays: dict[str, Any], meta: Mapping[str, Any]) -> Any:
    data, keys = arrays["data"], arrays["keys"]
    _must(keys.shape == (len(data), len(shape)), "there are more indices than values, or fewer")
    value = _empty(kind, shape, data.dtype)
    named = map(tuple, keys.tolist()) if len(shape) > 1 else keys[:, 0].tolist()
    # Item assignment would drop the zeros that are stored explicitly.
    value._dict.update(zip(named, data))
    return value


def _empty(kind: Any, shape: tuple[int, ...], dtype: Any = None, **options: Any) -> Any:
    """An object to be filled. scipy keeps elements of more types than it makes empty ones of."""
    value = kind(shape, dtype=float, **options)
    if dtype is not None:  # of those that don't take it from their data
        value.dtype = dtype
    return value


def _must(holds: bool, trouble: str) -> None:
    if not holds:
        raise ValueError(trouble)


def _flags(value: Any) -> dict[str, bool]:
    """What scipy has noted of a value, true or false."""
    noted = ((name, value.__dict__.get(name, value.__dict__.get(f"_{name}"))) for name in _FLAGS)
    return {name: bool(flag) for name, flag in noted if flag is not None}


def _flagged(value: Any, meta: Mapping[str, Any]) -> Any:
    if value.format == "coo":  # scipy made it empty, and took it for canonical
        value.has_canonical_format = False
    for name in _FLAGS:
        if name in meta:
            setattr(value, name, bool(meta[name]))
    return value


def _check_fully(value: Any) -> None:
    """Every index within the shape: `ValueError` if not."""
    if value.format in ("csr", "csc", "bsr"):
        data = value.data
        value.check_format(full_check=True)
        value.data = data  # scipy turns elements in the byte order of other machines
    elif value.format == "dia":
        offsets = value.offsets.tolist()
        _must(len(set(offsets)) == len(offsets), "an offset occurs twice")
        _must(all(-value.shape[0] <= offset <= value.shape[1] for offset in offsets), "a diagonal lies outside")
    else:
        _check_coordinates(value)


def _check_coordinates(value: Any) -> None:
    import numpy as np

    if value.format == "lil":
        apart = _apart_lil(value)
        columns, lengths = [apart["indices"]], value.shape[1:]
    elif value.format == "dok":
        keys = _apart_dok(value)["keys"]
        columns, lengths = list(keys.T), value.shape
    else:
        columns, lengths = [array for name, array in _apart_coo(value).items() if name != "data"], value.shape
    for index, length in zip(columns, lengths):
        _must(not index.size or (int(np.min(index)) >= 0 and int(np.max(index)) < length), "an index is out of range")


_FORM = {
    "csr": _Form(_apart_compressed, _together_compressed),
    "csc": _Form(_apart_compressed, _together_compressed),
    "bsr": _Form(_apart_compressed, _together_compressed),
    "coo": _Form(_apart_coo, _together_coo),
    "dia": _Form(_apart_dia, _together_dia),
    "lil": _Form(_apart_lil, _together_lil),
    "dok": _Form(_apart_dok, _together_dok),
}
#: Formats that consist of Python objects: every value is looked at when they are opened.
_UNROLLED = (_FORM["lil"], _FORM["dok"])

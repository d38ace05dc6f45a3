"""Hypothesis strategies for what people (and attackers) name and send, and how two values are compared to the bit."""

from __future__ import annotations

import math
import struct
import unicodedata
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

#: Names that have broken stores before: paths, devices, control characters, variants that file systems take for equal.
AWKWARD = (
    *("", " ", ".", "..", "../x", "../../etc/passwd", "/abs", "/etc/passwd", "~", "~root"),
    *("a/b", "a//b", "a\\b", "C:\\x"),
    *("CON", "con", "NUL", "aux.txt", "LPT1", "a.", "a ", "-rf", "*", "?", "$HOME", "`id`", "%00", "%2e%2e"),
    *("\0", "a\0b", "a\0", "\n", "a\nb", "\r\n", "\t", "\x1b[31m", "\x7f"),
    *("\u2028", "\ufeff", "\u202e", "\ud800", "\udfff"),
    *("\ud800\udc00", "\U00010000", "a", "A", "ß", "ss", "SS", "ı", "I", "i", "İ", "ﬁ", "fi", "K", "K"),
    *(unicodedata.normalize(form, "é") for form in ("NFC", "NFD")),
    *(unicodedata.normalize(form, "Å") for form in ("NFC", "NFD")),
    *("x" * 511, "x" * 512, "x" * 513, "x" * 127 + "é", "x" * 128 + "y", "x" * 128 + "z", "x" * (1 << 20)),
    *("meta.lmdb", "objects", "format.json", "staging", "data.npy", "0" * 32, "None", "null", "[]", '"', "'", "{}"),
)

#: Any text, lone surrogates too.
any_text = st.text(st.characters(), max_size=300)
names = st.one_of(st.sampled_from(AWKWARD), any_text, st.builds(lambda a, b: f"{a}/../{b}", any_text, any_text))


def _float(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])


#: Zeros of both signs, infinities, NaNs of several payloads, numbers that have no normal form.
_ODD = [*(0.0, -0.0, math.inf, -math.inf, math.nan), *map(_float, (0xFFF8 << 48, 0x7FF8 << 48 | 7, 0x7FF4 << 48, 1))]
_floats = st.sampled_from(_ODD) | st.floats() | st.integers(0, 2**64 - 1).map(_float)
_simple = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    _floats,
    st.complex_numbers(),
    any_text,
    st.binary(max_size=600),
)
_dtypes = st.one_of(
    npst.scalar_dtypes(),
    npst.byte_string_dtypes(),
    npst.unicode_string_dtypes(),
    npst.structured_dtypes() if hasattr(npst, "structured_dtypes") else npst.nested_dtypes(),
    npst.array_dtypes(),
)
_shapes = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def arrays(draw: Any) -> Any:
    """Arrays of any fixed-width dtype, shape, order, byte order, of random bytes: NaN payloads, padding and all."""
    dtype = draw(_dtypes)
    shape = draw(_shapes)
    size = math.prod(shape) * dtype.itemsize * (math.prod(dtype.shape) if dtype.subdtype else 1)
    seed = draw(st.binary(min_size=1, max_size=64))
    raw = (seed * (size // len(seed) + 1))[:size]
    if _has_booleans(dtype):
        raw = bytes(byte & 1 for byte in raw)
    if _has_text(dtype):
        raw = bytes(len(raw))
    array = np.frombuffer(raw, dtype.base).reshape((*shape, *dtype.shape)) if size else np.zeros(shape, dtype)
    return draw(st.sampled_from([_as_is, np.asfortranarray, _reversed, _read_only]))(array)


def _as_is(array: Any) -> Any:
    return array.copy()


def _reversed(array: Any) -> Any:
    return array[::-1] if array.ndim else array


def _read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


def _has_booleans(dtype: Any) -> bool:
    return _has(dtype, "b")


def _has_text(dtype: Any) -> bool:
    return _has(dtype, "U")  # not every four bytes are a character


def _has(dtype: Any, kind: str) -> bool:
    return any(part.kind == kind for part in _parts(dtype))


def _containers(inside: Any) -> Any:
    keys = st.one_of(any_text, st.integers(), st.booleans(), st.none(), st.tuples(st.integers()))
    return st.one_of(
        st.lists(inside, max_size=4),
        st.lists(inside, max_size=4).map(tuple),
        st.dictionaries(keys, inside, max_size=4),
        st.frozensets(st.integers() | any_text, max_size=4),
        st.sets(st.integers() | st.binary(max_size=5), max_size=4),
        st.binary(max_size=50).map(bytearray),
    )


def _survives_pickling(array: Any) -> bool:
    """NumPy pickles times and gaps of foreign byte order in such a way that they come back in native order."""
    foreign = [part for part in _parts(array.dtype) if not part.isnative]
    in_one_piece = array.flags.c_contiguous or array.flags.f_contiguous
    return not foreign or (in_one_piece and not any(part.kind in "mM" for part in foreign))


def _parts(dtype: Any) -> list[Any]:
    base = dtype.base
    return [base] if base.names is None else [part for name in base.names for part in _parts(base.fields[name][0])]


_nested = st.recursive(st.one_of(_simple, arrays().filter(_survives_pickling)), _containers, max_leaves=8)
#: Each kind by itself, too: left to the recursion alone, none of 300 values was a number or a text.
values = st.one_of(_simple, st.lists(_simple, max_size=4), arrays(), _nested)


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same type and the same bits, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and all(map(same, one.values(), other.values()))
    if isinstance(one, (np.ndarray, np.generic)):
        return _same_array(np.asarray(one), np.asarray(other))
    return bool(one == other)


def _same_array(one: Any, other: Any) -> bool:
    alike = one.dtype == other.dtype and one.dtype.str == other.dtype.str and one.shape == other.shape
    return alike and one.tobytes() == other.tobytes()

"""The canonical encoding of values: what must differ, what must be equal, and where it refuses."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import http
import itertools
import logging
import pathlib
import random
import struct
import threading
import types
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.errors import CannotFingerprint
from pyplantx.fingerprint import value
from pyplantx.fingerprint.code import Fingerprinter


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Planet(enum.Enum):
    EARTH = 1
    MARS = 2

    def __init__(self, number: int) -> None:
        self.moons = number

    @functools.cached_property
    def lonely(self) -> bool:
        return self.moons == 1


class Left:
    def __init__(self, x: object) -> None:
        self.x = x


class Right:
    def __init__(self, x: object) -> None:
        self.x = x


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x: object) -> None:
        self.x = x


class Kept(list[int]):
    pass


class TaggedArray(np.ndarray):
    tag: str

    def __array_finalize__(self, obj: object) -> None:
        self.tag = getattr(obj, "tag", "none")


def tagged(tag: str) -> Any:
    array = np.zeros(2).view(TaggedArray)
    array.tag = tag
    return array


def large(changed: int | None = None) -> Any:
    array = np.arange(5000.0)
    if changed is not None:
        array[changed] += 1
    return array


def nested(depth: int, core: object) -> object:
    for _ in range(depth):
        core = [core]
    return core


def selfish() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def subtract(x: float, y: float) -> float:
    return x - y


def masked(*mask: int) -> Any:
    return np.ma.array([1, 2, 3], mask=mask)


UTC = datetime.UTC
NAN, OTHER_NAN = struct.unpack("<2d", bytes.fromhex("000000000000f87f010000000000f8ff"))

#: Values that must not share a digest. The first 44 are those of the catalogue.
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "E01": (1, True),
    "E02": (1, 1.0),
    "E03": (0.0, -0.0),
    "E04": ("1", 1),
    "E05": ([1], (1,)),
    "E06": ({}, []),
    "E07": (b"a", "a"),
    "E08": ({1: 2}, {True: 2}),
    "E09": ([1, [2]], [[1], 2]),
    "E10": (("ab", "c"), ("a", "bc")),
    "E11": (None, NAN),
    "E12": (None, "None"),
    "E13": ("", None),
    "E14": (np.float64(1), 1.0),
    "E15": (np.ones(3, "i4"), np.ones(3, "i8")),
    "E16": (np.zeros((2, 3)), np.zeros((3, 2))),
    "E17": (np.zeros((0, 2)), np.zeros((2, 0))),
    "E18": (np.array([1, 2]), [1, 2]),
    "E19": (large(), large(4321)),
    "E20": (masked(0, 0, 1), masked(0, 1, 0)),
    "E21": (np.zeros(3, "M8[s]"), np.zeros(3, "M8[ms]")),
    "E22": (np.arange(4, dtype="<i4"), np.arange(4, dtype="<i4").view(">i4")),
    "E23": (pathlib.PurePosixPath("a"), "a"),
    "E24": (Colour.RED, 1),
    "E25": (range(3), [0, 1, 2]),
    "E26": (slice(1), slice(2)),
    "E27": ({1}, frozenset({1})),
    "E28": (collections.OrderedDict(a=1), {"a": 1}),
    "E29": (Left(1), Right(1)),
    "E30": (Slotted(1), Slotted(2)),
    "E31": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "E32": (b"a", bytearray(b"a")),
    "E33": (functools.partial(subtract, y=1), functools.partial(subtract, y=2)),
    "E34": ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    "E35": (0j, complex(0, -0.0)),
    "E36": (datetime.datetime(2026, 1, 1), datetime.datetime(2026, 1, 1, tzinfo=UTC)),
    "E37": (collections.deque([1], 3), collections.deque([1], 4)),
    "E38": (lambda x: x + 1, lambda x: x + 2),
    "E39": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "E40": (nested(9, 1), nested(9, 2)),
    "E41": (selfish(), [[]]),
    "E42": ({"a": {"b": 1}}, {"a.b": 1}),
    "E43": (["a", "b"], ["a\x00b"]),
    "E44": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "list and its subclass": ([1], Kept([1])),
    "array and matrix": (np.zeros((1, 1)), np.matrix([[0.0]])),
    "arrays with attributes": (tagged("a"), tagged("b")),
    "masked and plain": (masked(0, 0, 0), np.array([1, 2, 3])),
    "fill values": (np.ma.array([1], fill_value=7), np.ma.array([1], fill_value=8)),
    "structured fields": (np.zeros(2, "i4,f4"), np.zeros(2, [("a", "i4"), ("b", "f4")])),
    "strings as arrays": (np.array(["a", "b"]), np.array([b"a", b"b"])),
    "0-d and 1-d": (np.array(1.0), np.array([1.0])),
    "0-d and scalar": (np.array(1.0), np.float64(1.0)),
    "numpy bool": (np.bool_(True), True),
    "datetime units": (np.datetime64("2026"), np.datetime64("2026-01-01")),
    "dtypes": (np.dtype("<i4"), np.dtype(">i4")),
    "uuid and int": (uuid.UUID(int=1), 1),
    "paths": (pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")),
    "date and datetime": (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1)),
    "namespaces": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "defaults": (collections.defaultdict(int, a=1), collections.defaultdict(list, a=1)),
    "counter": (collections.Counter("aab"), collections.Counter("abb")),
    "enum members": (Colour.RED, Colour.BLUE),
    "generic aliases": (list[int], list[str]),
    "unions": (int | str, int | float),
    "bound built-ins": ("a".join, "b".join),
    "library functions": (np.sum, np.prod),
    "ufuncs": (np.sin, np.cos),
    "classes": (int, str),
    "sparse": (scipy.sparse.csr_array([[1, 0]]), scipy.sparse.csr_array([[0, 1]])),
    "sparse formats": (scipy.sparse.csr_array([[1, 0]]), scipy.sparse.csc_array([[1, 0]])),
    "sparse shapes": (scipy.sparse.csr_array((2, 3)), scipy.sparse.csr_array((2, 4))),
    "shared or equal instances": ((lambda a: [a, a])(Left(1)), [Left(1), Left(1)]),
    "int sizes": (1 << 64, -(1 << 64)),
    "lone surrogates": ("\ud800", "\ud801"),
    "long texts": ("x" * 5000, "x" * 5001),
    "random states": (np.random.default_rng(1), np.random.default_rng(2)),
    "ellipsis": (..., NotImplemented),
}


def with_moons(moons: int) -> Any:
    found = Planet(1)
    encoded = value.encode(found)
    found.moons, before = moons, found.moons
    try:
        return value.encode(found), encoded
    finally:
        found.moons = before


def test_fields_of_enum_members_are_part_of_them() -> None:
    changed, same = with_moons(3), with_moons(1)
    assert changed[0] != changed[1] == same[0] == same[1]


def test_what_properties_keep_on_enum_members_is_not() -> None:
    before = value.digest(Planet.EARTH)
    assert Planet.EARTH.lonely and "lonely" in vars(Planet.EARTH)
    assert value.digest(Planet.EARTH) == before


def test_members_without_fields_are_written_as_ever() -> None:
    assert value.encode(Colour.RED)[:1] == value.encode(http.HTTPStatus.OK)[:1] == b"e"
    assert value.encode(Planet.EARTH)[:1] == b"V"


def f_order(array: Any) -> Any:
    return np.asfortranarray(array)


def readonly(array: Any) -> Any:
    array.flags.writeable = False
    return array


def shared() -> list[list[int]]:
    inner = [1]
    return [inner, inner]


GRID = np.arange(6.0).reshape(2, 3)

#: Values that must share a digest. The first eight are those of the catalogue.
EQUAL: dict[str, tuple[Any, Any]] = {
    "Q1": (GRID, f_order(GRID)),
    "Q2": (np.arange(10)[::2], np.arange(10)[::2].copy()),
    "Q3": (NAN, float("nan")),
    "Q4": (NAN, OTHER_NAN),
    "Q5": ("".join(["ab", "c" * 50]), "".join(["a", "bc" + "c" * 49])),
    "Q6": (set(range(100)), set(reversed(range(100)))),
    "Q7": (shared(), [[1], [1]]),
    "Q8": (GRID.copy(), readonly(GRID.copy())),
    "Q4 of numpy": (np.float64(NAN), np.float64(OTHER_NAN)),
    "nan inside": ([complex(NAN, 1)], [complex(OTHER_NAN, 1)]),
    "sets in sets": ({frozenset("ab"), frozenset("cd")}, {frozenset("dc"), frozenset("ba")}),
    "slots not set": (Slotted(1), Slotted(1)),
    "cycles": (selfish(), selfish()),
    "sparse flags": (scipy.sparse.csr_array([[1, 0]]), scipy.sparse.csr_array([[1, 0]])),
    "matrix": (np.matrix([[1]]), np.matrix([[1]])),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_values_differ(name: str) -> None:
    one, other = DIFFERENT[name]
    digests = Fingerprinter()
    assert digests.encode_value(one) != digests.encode_value(other)
    assert digests.encode_value(one) == Fingerprinter().encode_value(one)


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_are_equal(name: str) -> None:
    one, other = EQUAL[name]
    assert value.digest(one) == value.digest(other)


def test_sparse_caches_do_not_count() -> None:
    fresh, used = (scipy.sparse.csr_array([[1, 0], [0, 2]]) for _ in range(2))
    used.sum_duplicates()
    assert used.has_canonical_format
    assert value.digest(fresh) == value.digest(used)


# --- properties ---------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
KEYS = st.integers() | st.text() | st.booleans()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.frozensets(KEYS)
        | st.sets(KEYS)
    ),
    max_leaves=12,
)


def model(thing: Any) -> Any:
    """A value's identity in terms of `repr`, which tells types, signs of zero and order apart."""
    if isinstance(thing, set | frozenset):
        return type(thing).__name__, sorted(map(repr, thing))
    if isinstance(thing, dict):
        return "dict", [(model(k), model(v)) for k, v in thing.items()]
    if isinstance(thing, list | tuple):
        return type(thing).__name__, [model(item) for item in thing]
    if isinstance(thing, float) and thing != thing:
        return "nan"
    if isinstance(thing, complex):
        return "complex", model(thing.real), model(thing.imag)
    return repr(thing)


@given(VALUES, VALUES)
def test_equal_encoding_means_equal_value(one: Any, other: Any) -> None:
    assert (value.encode(one) == value.encode(other)) == (model(one) == model(other))


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_concatenation_does_not_collide(one: list[Any], other: list[Any]) -> None:
    joined = [b"".join(map(value.encode, items)) for items in (one, other)]
    assert (joined[0] == joined[1]) == (model(one) == model(other))


@given(st.lists(KEYS, unique_by=lambda k: (type(k), k)), st.randoms())
def test_sets_have_no_order(keys: list[Any], rng: random.Random) -> None:
    shuffled = keys.copy()
    rng.shuffle(shuffled)
    assert value.digest(set(keys)) == value.digest(set(shuffled)) or set(keys) != set(shuffled)
    assert value.digest(dict.fromkeys(keys)) == value.digest(dict.fromkeys(list(keys)))


@given(VALUES)
def test_digest_is_the_hash_of_the_encoding(thing: Any) -> None:
    assert value.digest(thing) == value.hash_bytes(value.encode(thing))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5), st.integers(1, 50))
def test_block_hasher_does_not_see_the_pieces(data: bytes, cuts: list[int], block: int) -> None:
    hasher = value.BlockHasher(block)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, stop in zip(edges, edges[1:]):
        hasher.update(data[start:stop])
    blocks = [data[i : i + block] for i in range(0, len(data), block)]
    assert hasher.digests() == [value.hash_bytes(one) for one in blocks]
    assert value.combine(b"", hasher.digests()) == value.hash_blocks(blocks)


# --- arrays -------------------------------------------------------------------------------------------------


def tree(array: Any) -> str:
    """The digest as FORMAT.md words it, computed in the plainest way."""
    raw, size = array.tobytes(), value.block_size(array.dtype.itemsize)
    blocks = [raw[i : i + size] for i in range(0, len(raw), size)]
    return value.combine(value.array_header(array.dtype, array.shape), map(value.hash_bytes, blocks))


@pytest.mark.parametrize("dtype", ["f8", ">i2", "U3", "S5", "M8[ns]", "c16", "?", "i4,f8", "V3"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (3, 4), (2, 3, 4)])
def test_array_digest_is_the_tree(dtype: str, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    array = np.frombuffer(bytes(i % 251 for i in range(count)), np.uint8).view(dtype).reshape(shape) if count else None
    array = np.zeros(shape, dtype) if array is None else array
    assert value.array_digest(array) == value.digest(array) == tree(array)


def layouts() -> dict[str, Callable[[Any], Any]]:
    return {
        "F": np.asfortranarray,
        "reversed": lambda a: a[::-1].copy()[::-1],
        "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
        "transposed": lambda a: a.T.copy().T,
    }


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("shape", [(1300, 1000), (3, 700_000), (1, 2, 600_000), (1_100_000,)])
def test_layout_of_large_arrays_does_not_count(layout: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype="f8").reshape(shape)
    assert array.nbytes > value.BLOCK
    assert value.array_digest(layouts()[layout](array)) == tree(array)


def test_memory_map_is_a_plain_array(tmp_path: pathlib.Path) -> None:
    mapped = np.memmap(tmp_path / "x", "f8", "w+", shape=(4,))
    assert value.digest(mapped) == value.digest(np.zeros(4))
    assert value.class_tag(np.memmap) == ""


def test_object_arrays_go_by_element() -> None:
    one, same = (np.array([[1, "a"], [None, 2.0]], object) for _ in range(2))
    assert value.digest(one) == value.digest(same) == value.digest(np.asfortranarray(same))
    assert value.digest(one) != value.digest(one.T)


def test_variable_width_strings() -> None:
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("numpy < 2")
    texts = [np.array([text, "b" * 100], np.dtypes.StringDType()) for text in ("a", "a", "c")]
    assert value.digest(texts[0]) == value.digest(texts[1]) != value.digest(texts[2])


# --- shared structure, depth, cycles --------------------------------------------------------------------------


def test_shared_structure_is_cheap() -> None:
    twins: Any = []
    for _ in range(200):
        twins = [twins, twins]
    assert value.digest(twins) == value.digest([twins[0], twins[1]])


def test_linked_instances_are_cheap() -> None:
    def mesh(count: int) -> list[Left]:
        nodes = [Left(number) for number in range(count)]
        for node in nodes:
            node.neighbours = list(nodes)
        return nodes

    assert value.digest(mesh(30)) == value.digest(mesh(30)) != value.digest(mesh(31))


def test_cycle_through_an_instance() -> None:
    def ring(last: int) -> Left:
        first, second = Left(1), Left(last)
        first.next, second.next = second, first
        return first

    assert value.digest(ring(2)) == value.digest(ring(2)) != value.digest(ring(3))


class Knot:
    """Its state, as it is told to pickle, holds itself."""

    __module__, __qualname__ = "knots", "Knot"

    def __init__(self) -> None:
        self.state = vars(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Knot, (), self.state


def test_a_reduced_state_is_met_again_as_itself() -> None:
    assert value.digest(Knot()) == "6d9e6991dfaf6a645ffd6ead14aa9581"


def test_instances_in_sets_do_not_depend_on_order() -> None:
    key = pathlib.PurePosixPath("k")
    keys = [(key, n) for n in range(20)]
    assert value.digest({*keys}) == value.digest({*reversed(keys)})


def test_too_deep_says_so() -> None:
    with pytest.raises(CannotFingerprint, match="nested too deeply"):
        value.digest(nested(100_000, 1))


# --- what is refused, and where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "path"),
    [
        (threading.Lock(), "value: a _thread.lock"),
        ({"a": [1, threading.Lock()]}, r"value\['a'\]\[1\]: a _thread.lock"),
        (Left({"x": (0, 0, 0, iter([]))}), None),
        (types.SimpleNamespace(model={"x": [0, 0, 0, threading.Lock()]}), r"\['model'\]\['x'\]\[3\]: a _thread.lock"),
        (Left(threading.Thread()), r"value\.x: a threading.Thread"),
        ((i for i in ()), "a builtins.generator"),
        ([subtract], r"value\[0\]: function subtract is code of your project"),
        ({Left: 1}, "class Left is code of your project"),
        ({frozenset({subtract})}, r"value\{...\}\{...\}: function"),
    ],
)
def test_refusals_name_the_place(thing: Any, path: str | None) -> None:
    if path is None:
        assert value.digest(thing)
        return
    with pytest.raises(CannotFingerprint, match=path) as caught:
        value.digest(thing)
    assert caught.value.hint


def test_opaque_things_can_be_listed_instead() -> None:
    met: list[object] = []
    lock = threading.Lock()
    assert value.encode([1, lock, logging.getLogger("x")], opaque=met.append)
    assert met == [lock, logging.getLogger("x")]


# --- user types -----------------------------------------------------------------------------------------------


class Hooked:
    def __init__(self, counts: int, ignored: int) -> None:
        self.counts, self.ignored = counts, ignored

    def __fingerprint__(self) -> object:
        return self.counts


def test_fingerprint_method() -> None:
    assert value.digest(Hooked(1, 1)) == value.digest(Hooked(1, 2)) != value.digest(Hooked(2, 1))


def test_registered_types() -> None:
    class Foreign:
        def __init__(self, name: str) -> None:
            self.name, self.lock = name, threading.Lock()

    class Derived(Foreign):
        pass

    with pytest.raises(CannotFingerprint):
        value.digest(Foreign("a"))

    @value.register(Foreign)
    def _(thing: Foreign) -> object:
        return thing.name

    assert value.digest(Foreign("a")) == value.digest(Foreign("a")) != value.digest(Foreign("b"))
    assert value.digest(Foreign("a")) != value.digest(Derived("a"))


def test_code_is_asked_for_classes_and_functions() -> None:
    asked: list[object] = []

    def code(obj: object) -> str:
        asked.append(obj)
        return "x"

    value.encode([subtract, Left(1), Colour.RED, functools.partial(subtract)], code)
    assert asked[:3] == [subtract, Left, Colour]
    assert isinstance(asked[3], functools.partial)


def test_streams() -> None:
    hasher = value.Hasher()
    hasher.update(b"ab")
    hasher.update(np.frombuffer(b"cd", np.uint8))
    assert hasher.hexdigest() == value.hash_bytes(b"abcd") == value.hash_text("abcd")
    assert len(value.hash_text("\ud800")) == 32


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9)


FLAT = st.lists(LEAVES, max_size=6).flatmap(
    lambda items: st.sampled_from([items, tuple(items), set(items), frozenset(items), dict(zip(items, items[::-1]))])
)


@given(FLAT)
def test_flat_containers_take_a_short_cut(thing: Any) -> None:
    assert value.encode(thing) == value.encode([thing])[9:]  # inside a list they take the long way


def test_the_short_cut_leaves_out_what_is_long_or_deep() -> None:
    for thing in (
        ("x" * 5000, 1),
        (1, (2, 3)),
        (1, [2]),
        {"a": [1]},
        {1: 2, "b": {3}},
        list(range(99)),
        set(range(99)),
    ):
        assert value.encode(thing) == value.encode([thing])[9:]


class Warns:
    """Warns when it is pickled."""

    def __init__(self, kept: int) -> None:
        self.kept = kept

    def __reduce__(self) -> tuple[type, tuple[int]]:
        warnings.warn("this will be removed", DeprecationWarning, stacklevel=2)
        return Warns, (self.kept,)


@pytest.mark.parametrize("make", [itertools.count, lambda n: itertools.repeat(1, n), lambda n: iter(range(n)), Warns])
def test_warnings_of_what_is_looked_at_change_nothing(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = value.digest(make(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value.digest(make(3)) == plain != value.digest(make(4))

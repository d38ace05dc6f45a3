"""Simple values and lists: any of them, bit-equal; what is no JSON of ours is refused with its reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx import specs
from pyplantx.errors import CannotStore, DamagedObject
from pyplantx.fingerprint.value import digest
from pyplantx.spec_tests import FolderPayload, same, stored
from pyplantx.specs.plain import dump_json, load_json

floats = st.floats() | st.integers(0, 2**64 - 1).map(
    lambda n: __import__("struct").unpack(">d", n.to_bytes(8, "big"))[0]
)
simple = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**54), 2**54)
    | floats
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary(max_size=300)
)
lists = st.recursive(st.lists(simple, max_size=5), lambda inner: st.lists(simple | inner, max_size=4), max_leaves=20)


@given(simple)
def test_any_simple_value_comes_back(value):
    text = dump_json(value)
    json.loads(text, parse_constant=lambda _: pytest.fail("not strict JSON"))
    assert same(load_json(text, "value"), value)


@given(lists)
def test_any_list_comes_back(value):
    spec = specs.ListSpec()
    assert spec.recognise(value)
    assert same(load_json(dump_json(value), "list"), value)


@given(simple, simple)
def test_two_values_never_share_a_text(left, right):
    assert (dump_json(left) == dump_json(right)) == same(left, right)


def test_the_digest_is_that_of_the_value():
    for spec, value in ((specs.SimpleSpec(), 3), (specs.ListSpec(), [1, [2.0]])):
        with stored(spec, value) as entry:
            assert entry.written.digest == digest(value)


@pytest.mark.parametrize("value", [(1,), {}, [1], 1 + 0j == 2, object()])
def test_only_exact_types_are_simple(value):
    spec = specs.SimpleSpec()
    assert spec.recognise(value) == (type(value) is bool)


class Int(int):
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([(1,)], "value[0] is a tuple"),
        ([1, [2, {"a": 1}]], "value[1][1] is a dict"),
        ([Int(1)], "value[0] is a test_spec_plain.Int"),
        ((1, 2), "value is a tuple"),
        ("ab", "value is a str"),
    ],
)
def test_what_a_list_can_not_hold_is_named_with_its_path(value, path):
    spec = specs.ListSpec()
    assert not spec.recognise(value)
    with pytest.raises(CannotStore) as caught, stored(spec, value):
        pass
    assert path in str(caught.value) and caught.value.hint


def test_lists_that_json_would_change_are_left_to_pickle():
    inner: list = []
    deep: list = []
    for _ in range(101):
        deep = [deep]
    loop: list = []
    loop.append(loop)
    registry = specs.SpecRegistry()
    for value in ([inner, inner], deep, loop):
        assert not specs.ListSpec().recognise(value)
        assert registry.infer(value).name == "object"
    with stored(registry.infer(loop), [inner, inner]) as entry:
        left, right = entry.open()
        assert left is right


def payload_of(text: bytes) -> FolderPayload:
    return FolderPayload("", ["value.json"], {"value.json": text})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1 2", "goes on after its end"),
        (b"1\n", "goes on after its end"),
        (b"1e999", "out of range"),
        (b'{"int":"0x5","float":"00"}', "has one key"),
        (b"{}", "has one key"),
        (b'{"tuple":[1]}', "unknown tag 'tuple'"),
        (b'{"int":5}', "holds something else"),
        (b'{"float":"00"}', "holds something else: unpack requires"),
        (b'{"bytes":"*"}', "not what it must be"),
        (b'{"complex":[1,2]}', "two floats"),
        (b"\xff", "can't decode byte"),
        (b"[1]", "is a list"),
        (b"[" * 100_000, "not what it must be"),
        (b"9" * 5000, "not what it must be"),
    ],
)
def test_other_texts_are_refused(text, reason):
    with pytest.raises(DamagedObject, match=reason):
        specs.SimpleSpec().open(payload_of(text), {}, 1)


def test_a_simple_payload_is_no_list():
    with pytest.raises(DamagedObject, match="is a int"):
        specs.ListSpec().open(payload_of(b"5"), {}, 1)

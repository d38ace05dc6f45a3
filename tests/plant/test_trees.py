"""What is kept of trace trees from one demand to the next."""

from __future__ import annotations

from typing import Any

import pytest

from pyplantx import ReactorFunc
from pyplantx.core.trace import ObjectRef as Ref
from pyplantx.core.trace import Segment, Sent, Step, decode_segment, encode_segment
from pyplantx.session import trees
from pyplantx.session.trees import Segments


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are decoded."""
    texts: list[str] = []
    monkeypatch.setattr(trees, "decode_segment", lambda text: texts.append(text) or decode_segment(text))
    return texts


def segment(count: int, digest: str = "d") -> Segment:
    steps: list[Step] = [Sent(f"x{i}", Ref("simple", 1, digest, "a", 1)) for i in range(count)]
    return Segment(tuple(steps), "")


def test_the_trace_of_a_reactor_that_sent_a_thousand_is_decoded_once(open_plant: Any, decoded: list[str]) -> None:
    @ReactorFunc
    def many(pipe: Any) -> None:
        for i in range(1000):
            pipe.send(f"x_{i}", i * pipe.read_config("factor"))

    with open_plant(many, config={"factor": 1}) as plant:
        plant.produce("x_0")
    with open_plant(many, config={"factor": 1}) as plant:
        assert [plant.produce(f"x_{i}") for i in range(5)] == list(range(5))
        assert len(decoded) == 1
        with open_plant(many, config={"factor": 2}) as other:
            assert other.produce("x_3") == 6
        assert plant.produce("x_3") == 3  # another branch is in the record now, or at it
        plant.set_config({"factor": 2})
        assert plant.produce("x_4") == 8
        assert plant.log.take() == []


def test_a_record_that_was_written_anew_is_decoded_anew(decoded: list[str]) -> None:
    segments, one, other = Segments(), segment(200), segment(200, "e")
    assert segments.decoded("node", encode_segment(one)) == one
    assert segments.decoded("node", encode_segment(other)) == other
    assert segments.decoded("node", encode_segment(other)) == other
    assert segments.decoded("another node", encode_segment(other)) == other
    assert segments.decoded("node", None) is None
    assert len(decoded) == 3


def test_what_is_kept_has_a_bound_and_the_last_ones_stay(decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = encode_segment(segment(200))
    monkeypatch.setattr(trees, "_MOST_KEPT", 3 * len(text))
    segments = Segments()
    for key in "abcd":
        segments.decoded(key, text)
    decoded.clear()
    for key in "dcb":
        segments.decoded(key, text)
    assert decoded == []
    segments.decoded("a", text)
    segments.decoded("e", encode_segment(segment(1000)))  # longer than all that may be kept
    assert len(decoded) == 2
    for key in "acd":
        segments.decoded(key, text)
    assert len(decoded) == 2


def test_short_ones_are_not_kept(decoded: list[str]) -> None:
    segments, text = Segments(), encode_segment(segment(3))
    assert segments.decoded("node", text) == segments.decoded("node", text)
    assert len(decoded) == 2

"""The written format: today's code computes what ``specs/fingerprint/1/golden.json`` holds."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import pathlib
import re
import struct
import sys
import types
import uuid
from typing import Any

import numpy
import pytest

from pyplantx.fingerprint import value
from tests.fingerprint.harness import of_source

GOLDEN = json.loads((pathlib.Path(__file__).resolve().parents[2] / "specs/fingerprint/1/golden.json").read_text())
MODULES = (collections, datetime, decimal, fractions, numpy, pathlib, re, types, uuid)
NAMES: dict[str, Any] = {module.__name__: module for module in MODULES}


@pytest.mark.parametrize("entry", GOLDEN["values"], ids=lambda entry: entry["value"][:40])
def test_values(entry: dict[str, str]) -> None:
    thing = eval(entry["value"], dict(NAMES))
    assert value.digest(thing) == entry["digest"]
    assert value.encode(thing).hex() == entry.get("encoding", value.encode(thing).hex())


def test_code() -> None:
    code = GOLDEN["code"]
    pinned = code["digests"].get(sys.implementation.cache_tag)
    if pinned is None:
        pytest.skip(f"no digests are pinned for {sys.implementation.cache_tag}")
    assert [of_source(source, code["fingerprint_of"]) for source in code["sources"]] == pinned


def test_the_format_by_hand() -> None:
    """FORMAT.md followed with nothing but `struct`: a nested value and an array of two blocks."""

    def u64(number: int) -> bytes:
        return struct.pack("<Q", number)

    by_hand = b"d" + u64(1) + b"s" + u64(1) + b"k" + b"l" + u64(2) + b"i" + u64(1) + b"\x01" + b"N"
    assert value.encode({"k": [1, None]}) == by_hand
    array = numpy.arange(600_000, dtype="<f8")
    header = b"array\0" + u64(0) + b"S" + u64(3) + b"<f8" + u64(1) + u64(600_000)
    raw = array.tobytes()
    blocks = [raw[:4194304], raw[4194304:]]
    joined = b"".join(bytes.fromhex(value.hash_bytes(block)) for block in blocks)
    assert value.digest(array) == value.hash_bytes(u64(len(header)) + header + joined)

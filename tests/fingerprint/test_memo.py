"""A program's records of code are kept together; a few new ones by themselves."""

from __future__ import annotations

import pytest

from pyplantx.fingerprint.memo import PackedMemo
from pyplantx.fingerprint.value import hash_text


class Notes:
    """Two dictionaries, and how often the first was read."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}
        self.blobs: dict[tuple[str, str], str] = {}
        self.reads = 0

    def get_code(self, raw: str) -> str | None:
        self.reads += 1
        return self.codes.get(raw)

    def put_code(self, raw: str, record: str) -> None:
        self.codes[raw] = record

    def blob_get(self, kind: str, key: str) -> str | None:
        return self.blobs.get((kind, key))

    def blob_put(self, kind: str, key: str, text: str) -> None:
        self.blobs[kind, key] = text


def ask(notes: Notes, numbers: range, program: str = "script.py") -> int:
    """A process that asks for these functions, and notes what nobody knows; how many those were."""
    memo, unknown = PackedMemo(notes, program), 0
    for number in numbers:
        raw = hash_text(str(number))
        found = memo.get_code(raw)
        assert found in (None, f"record {number}")
        if found is None:
            unknown += 1
            memo.put_code(raw, f"record {number}")
    memo.keep()
    return unknown


def test_many_are_read_as_one():
    notes = Notes()
    assert ask(notes, range(1000)) == 1000 and not notes.codes
    notes.reads = 0
    assert ask(notes, range(1000)) == 0 and notes.reads == 0


def test_a_few_new_ones_leave_the_text_alone():
    notes = Notes()
    ask(notes, range(1000))
    before = dict(notes.blobs)
    assert ask(notes, range(1005)) == 5 and len(notes.codes) == 5
    assert notes.blobs == before
    assert ask(notes, range(1005)) == 0


def test_many_new_ones_make_a_new_text_without_those_that_are_gone():
    notes = Notes()
    ask(notes, range(1000))
    assert ask(notes, range(600, 1400)) == 400
    text = notes.blobs["codes", "script.py"]
    assert len(text.split("\n")) == 2 * 800
    notes.reads = 0
    assert ask(notes, range(600, 1400)) == 0 == notes.reads


def test_another_program_need_not_find_out_what_one_has_kept():
    notes = Notes()
    ask(notes, range(1000), "train.py")
    ask(notes, range(2000, 2100), "plot.py")
    assert ask(notes, range(1000), "renamed.py") == 0
    assert ask(notes, range(1000), "plot.py") <= 16  # it had asked for others
    notes.reads = 0
    assert ask(notes, range(1000), "renamed.py") == 0 == notes.reads


def test_what_the_last_programs_have_kept_is_looked_into():
    notes = Notes()
    for number in range(12):
        ask(notes, range(100 * number, 100 * number + 100), f"{number}.py")
    assert ask(notes, range(1100, 1200), "new.py") == 0
    assert ask(notes, range(100), "newer.py") == 100


@pytest.mark.parametrize("text", ["", "nonsense", "a\nb\nc"])
def test_a_text_that_makes_no_sense_is_none(text: str):
    notes = Notes()
    ask(notes, range(20))
    notes.blobs = dict.fromkeys(notes.blobs, text)
    assert ask(notes, range(20)) == 20

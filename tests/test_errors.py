"""What all errors have in common: message and hint, places, near misses; values that can't be shown."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from pyplantx import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PyplantxError)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_comes_in_front_and_the_hint_stays(kind: Any) -> None:
    error = kind("it is full", hint="empty it").within("the box 'a'")
    assert type(error) is kind
    assert str(error) == "the box 'a': it is full\n  hint: empty it"
    assert (error.message, error.hint) == ("the box 'a': it is full", "empty it")
    assert str(kind("it is full").within("the box")) == "the box: it is full"


def test_an_error_of_ones_own_keeps_what_it_knows() -> None:
    class Mine(errors.CannotStore):
        def __init__(self, row: int) -> None:
            super().__init__(f"row {row} is bad")
            self.row = row

    told = Mine(3).within("the table")
    assert (type(told), told.row, str(told)) == (Mine, 3, "the table: row 3 is bad")


def test_a_hint_that_takes_time_is_found_when_it_is_read() -> None:
    asked: list[str] = []

    def look() -> str:
        asked.append("looked")
        return "empty it"

    error = errors.UnknownParameter("it is full", hint=look)
    assert isinstance(error, KeyError) and not asked
    assert str(error) == "it is full\n  hint: empty it" and error.hint == "empty it"
    assert asked == ["looked"]
    sent = pickle.loads(pickle.dumps(errors.NoProducer("it is full", hint=look)))
    assert (str(sent), sent.hint, sent.within("there").hint) == (str(error), "empty it", "empty it")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_travel_between_processes(kind: Any) -> None:
    sent = kind("it is full", hint="empty it")
    found = pickle.loads(pickle.dumps(sent))
    assert type(found) is kind and str(found) == str(sent)
    assert str(found.within("there")) == "there: it is full\n  hint: empty it"


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("lasy", "did you mean 'lazy'? 'lazy', 'off' are possible"),
        ("x", "'lazy', 'off' are possible"),
        (0, "'lazy', 'off'"),
    ],
)
def test_a_wrong_word_is_refused_with_the_right_ones(given: object, advice: str) -> None:
    errors.check_choice("verify", "off", ("lazy", "off"))
    with pytest.raises(errors.BadRequest, match=f"verify={given!r} is not possible") as caught:
        errors.check_choice("verify", given, ("lazy", "off"))
    assert caught.value.hint.startswith(advice)


def test_near_misses() -> None:
    assert errors.did_you_mean("scaled", ["scale", "scaler", "other"], most=2) == "did you mean 'scale' or 'scaler'?"
    assert errors.did_you_mean("scaled", []) == errors.did_you_mean(3, ["3"]) == ""


def test_values_that_can_not_be_shown() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("not now")

    assert errors.shown(Shy()) == "(a Shy whose repr() raises RuntimeError)"
    assert errors.shown("x" * 100, 10) == "'xxxxxx..."
    assert errors.shown([1, 2]) == "[1, 2]"


def test_what_lies_on_disk_is_called_a_store() -> None:
    """One word for users: what the guides say. The warehouse is the object that has one, and the room of its code."""
    names = re.compile(r"pyplantx[. ]warehouse(\.\w+)*|plant\.warehouse|Warehouse")
    for path in sorted(Path(errors.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # of docstrings
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told]
        wrong = [each.value for each in texts if "warehouse" in names.sub("", str(each.value))]
        assert wrong == [], path

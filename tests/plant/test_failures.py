"""Every failure that the scheduler can tell has an error with a message and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyplantx import Plant, errors
from pyplantx.core.messages import Failure
from pyplantx.failures import error_of

KINDS = {
    "no producer": errors.NoProducer,
    "two producers": errors.TwoProducers,
    "not deterministic": errors.NotDeterministic,
    "payload": errors.PayloadMissing,
    "deadlock": errors.Deadlock,
    "lost": errors.ReactorError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_failure_has_words(kind: str) -> None:
    error = error_of(Failure(kind, "x", ("one", "two"), ("a", "b")), str.upper)
    assert type(error) is KINDS[kind]
    assert isinstance(error, errors.PyplantxError) and error.hint
    assert "ONE" in str(error)


def test_what_a_reactor_raised_comes_out_itself() -> None:
    mine = KeyError("mine")
    assert error_of(Failure("raised", reactors=("one",), error=mine), str) is mine


@pytest.mark.parametrize("options", [{"library_versions": "x"}, {"track": "no such module"}])
def test_a_plant_that_is_refused_leaves_no_store(options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError):
        Plant(tmp_path / "plant", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

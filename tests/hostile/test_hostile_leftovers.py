"""What a killed run has left (ledgers, blocks, values, arrays), forged or replaced by something else.

Whoever can write to the store knows the checksums of ledgers. The plant goes on with what makes sense, does the rest
again, and says what is wrong only in errors of the hierarchy; it neither waits nor touches anything outside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.value import hash_bytes
from tests.hostile.test_hostile_bytes import in_child, mutated

ROWS, COLUMNS = 12, 64
MEMORY = 2 * 3 * 2 * COLUMNS * 8  # two arrays, three times two rows
STOP_AT = ROWS - 4
STOPS = "HOSTILE_STOPS"  # in the environment: a global would be part of the code


def doubled(x: Any) -> Any:
    if STOPS in os.environ and x[0, 0] >= STOP_AT * COLUMNS:
        raise RuntimeError("no")
    return 2 * x


@ReactorFunc
def source(pipe: Any) -> None:
    pipe.send("src", np.arange(ROWS * COLUMNS, dtype="f8").reshape(ROWS, COLUMNS))


@ReactorFunc
def in_memory(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.ArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(doubled, src, out=dst, memory=MEMORY, workers=1)
    pipe.send("dst", dst)


@ReactorFunc
def in_a_file(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(doubled, src, out=dst, memory=MEMORY, workers=1)
    pipe.send("dst", dst)


@ReactorFunc
def packed(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = pipe.allocate("dst", specs.HdfArraySpec, shape=src.shape, dtype="f8", chunks=(2, COLUMNS), compression="gzip")
    pipe.map_blocks(doubled, src, out=dst, memory=MEMORY, workers=1)
    pipe.send("dst", dst)


@ReactorFunc
def reduced(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    pipe.send("dst", pipe.reduce_blocks(lambda x: doubled(x).sum(axis=0), src, memory=MEMORY // 2, workers=1))


@ReactorFunc
def with_checkpoints(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    row, total = pipe.checkpoint("fit", default=(0, 0.0))
    while row < ROWS:
        total += float(doubled(np.asarray(src[row : row + 2])).sum())
        row += 2
        pipe.checkpoint("fit", (row, total))
    pipe.send("dst", total)


REACTORS = {"in memory": in_memory, "in a file": in_a_file, "packed": packed, "reduced": reduced}
REACTORS["with checkpoints"] = with_checkpoints
#: Those of which each block is compared with its digest: a forged ledger can make them wrong only with forged blocks.
ARRAYS = ("in memory", "in a file", "packed")


def run(folder: Path, what: str) -> Any:
    with Plant(folder, durability="process", lock_timeout=5.0) as plant:
        plant.add_reactors(source, REACTORS[what])
        return np.array(plant.produce("dst"))


@pytest.fixture(autouse=True)
def every_value_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little time its computation took."""
    monkeypatch.setattr("pyplantx.blocks.reduction.WORTH", 0.0)


@pytest.fixture
def left(tmp_path: Path, request: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, Any]:
    """Which reactor, what its interrupted run has left, and what it gives in the end."""
    what = request.param
    right = run(tmp_path / "undisturbed", what)
    monkeypatch.setenv(STOPS, "yes")
    with pytest.raises(RuntimeError):
        run(tmp_path / "plant", what)
    monkeypatch.delenv(STOPS)
    return what, tmp_path / "plant", right


def ledgers(plant: Path) -> list[Path]:
    return sorted(plant.glob("staging/resume/*/*/ledger"))


def lines_of(ledger: Path) -> list[bytes]:
    return [line.partition(b" ")[2] for line in ledger.read_bytes().splitlines()]


def forged(ledger: Path, lines: list[bytes]) -> None:
    """Write the lines with right checksums."""
    key = ledger.parent.name
    texts = [line.replace(b"\n", b" ").replace(b"\r", b" ") for line in lines]
    checks = [hash_bytes(f"{key} {number} ".encode() + text)[:16].encode() for number, text in enumerate(texts)]
    ledger.write_bytes(b"".join(check + b" " + text + b"\n" for check, text in zip(checks, texts)))


def outcome(plant: Path, what: str) -> Any:
    """What the plant gives; None if it says, in an error of ours, why it can't."""
    try:
        return run(plant, what)
    except PyplantxError:
        return None


@pytest.mark.parametrize("left", REACTORS, indirect=True)
def test_what_the_forger_writes_is_believed(left: tuple[str, Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a ledger written anew by it is taken up, so less is left to do."""
    what, plant, right = left
    forged(ledgers(plant)[0], lines_of(ledgers(plant)[0]))
    asked: list[float] = []
    monkeypatch.setattr("pyplantx.blocks.logbook.Logbook._take_up", lambda logbook: asked.append(logbook.lines - 1))
    run(plant, what)
    assert asked and asked[0] > 1


@pytest.mark.parametrize("examples", [25, pytest.param(400, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("left", REACTORS, indirect=True)
def test_forged_ledgers(left: tuple[str, Path, Any], tmp_path: Path, examples: int) -> None:
    what, plant, right = left
    sound = lines_of(ledgers(plant)[0])
    assert len(sound) > 2
    awkward = [json.dumps(value).encode() for value in (*_nonsense(sound[-1]),)]

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, len(sound) - 1), st.sampled_from(awkward) | mutated(sound[1:]))
    def try_one(place: int, line: bytes) -> None:
        check([*sound[:place], line, *sound[place + 1 :]])

    def check(lines: list[bytes]) -> None:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(plant, work)
        forged(ledgers(work)[0], lines)
        found = outcome(work, what)
        assert found is not None, lines
        if what in ARRAYS:
            assert found.tobytes() == right.tobytes()

    check(sound)
    for place, line in enumerate(sound):
        if b'"folder":"' in line:  # of a value that is removed as soon as another one takes its place
            check([*sound[:place], re.sub(rb'"folder":"[^"]*"', b'"folder":""', line), *sound[place + 1 :]])
    try_one()


def _nonsense(line: bytes) -> Iterator[Any]:
    """A sound entry with one thing missing, of another type, or out of range."""
    entry = json.loads(line)
    odd: list[Any] = [None, -1, 1 << 70, 1.5, True, "", "x", "../../x", [], [[]], {}, {"x": 1}, ["x"] * 4, [["x"] * 3]]
    for key in entry:
        yield {name: value for name, value in entry.items() if name != key}
        for value in odd:
            yield {**entry, key: value}
    if isinstance(entry.get("value"), dict):
        for key in entry["value"]:
            yield {**entry, "value": {name: value for name, value in entry["value"].items() if name != key}}
            for value in odd:
                yield {**entry, "value": {**entry["value"], key: value}}


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, outside: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("kind", [_link, _fifo, _folder])
@pytest.mark.parametrize("left", REACTORS, indirect=True)
def test_something_else_in_the_place_of_what_was_left(
    left: tuple[str, Path, Any], tmp_path: Path, kind: Callable[[Path, Path], None]
) -> None:
    what, plant, right = left
    for path in sorted(path.relative_to(plant) for path in plant.glob("staging/resume/**/*")):
        outside, work = tmp_path / "outside", tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(plant, work)
        there = work / path
        shutil.copy(there, outside) if there.is_file() else outside.write_bytes(b"x")
        before = outside.read_bytes()
        shutil.rmtree(there) if there.is_dir() else there.unlink()
        kind(there, outside)
        in_child(lambda: goes_on(work, what, right))  # noqa: B023
        assert outside.read_bytes() == before, path


def goes_on(plant: Path, what: str, right: Any) -> None:
    """With the right value or an error of ours."""
    found = outcome(plant, what)
    assert found is None or found.tobytes() == right.tobytes()

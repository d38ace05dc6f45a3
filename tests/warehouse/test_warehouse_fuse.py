"""Stores on a real FUSE mount: refused, apart, or allowed, and the same values as anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import WarehouseError
from tests.faults import passthrough, program

pytestmark = pytest.mark.skipif(bool(passthrough.why_not()), reason=passthrough.why_not() or "it can be mounted")


@pytest.fixture
def mount(tmp_path: Path, request: Any) -> Iterator[passthrough.Mounted]:
    with passthrough.mounted(tmp_path / "behind", tmp_path / "mount", request.param) as mounted:
        yield mounted


def lives(directory: Path, **options: Any) -> None:
    """A whole life with all kinds of payloads gives right values, and after it nothing need be run again."""
    told: list[str] = []
    program.live(directory, told.append, (1,), **options)
    got = [line.split()[1:] for line in told if line.startswith("got")]
    assert got and all(int(value) == program.expected(name, int(seed)) for name, seed, value in got)
    told.clear()
    with program.open_plant(directory, 1, told.append, **options) as plant:
        assert plant.produce("total") == program.expected("total", 1)
        assert told == [] and plant.warehouse.check() == []


@pytest.mark.parametrize(
    ("mount", "words"),
    [("fuse.sshfs", "would lie on a network file system"), ("fuse", "may be a network file system")],
    indirect=["mount"],
)
def test_an_index_on_it_is_refused_in_words(mount: passthrough.Mounted, words: str) -> None:
    with pytest.raises(WarehouseError, match=words) as caught:
        program.open_plant(mount.point / "plant", 1)
    assert f"host:/folder, mounted on {mount.point}" in caught.value.message and "index=" in caught.value.hint
    assert list(mount.point.iterdir()) == []


@pytest.mark.parametrize("mount", ["fuse.sshfs"], indirect=True)
def test_the_objects_can_lie_there(mount: passthrough.Mounted, tmp_path: Path) -> None:
    lives(mount.point / "plant", index=tmp_path / "index")


@pytest.mark.parametrize("mount", ["fuse.sshfs"], indirect=True)
def test_all_of_it_can_where_that_is_said(mount: passthrough.Mounted) -> None:
    lives(mount.point / "plant", network_index=True)


@pytest.mark.parametrize("mount", ["fuse.bindfs"], indirect=True)
def test_a_program_that_shows_local_files_is_none_of_a_network(mount: passthrough.Mounted) -> None:
    lives(mount.point / "plant")


@pytest.mark.parametrize("mount", ["fuse.sshfs"], indirect=True)
def test_what_cannot_be_reached_is_an_error_and_not_forgotten(mount: passthrough.Mounted, tmp_path: Path) -> None:
    options: dict[str, Any] = {"index": tmp_path / "index", "verify": "always"}
    told: list[str] = []
    with program.open_plant(mount.point / "plant", 1, told.append, **options) as plant:
        plant.produce("long_array")
        plant.warehouse.sync()
        ref = plant.warehouse.last_ref("long_array")
        assert ref is not None
        mount.lose()
        with pytest.raises(WarehouseError, match="can't be read now: Transport endpoint is not connected") as caught:
            plant.warehouse.open(ref)
        assert "Nothing was forgotten" in caught.value.hint
        mount.end()
        mount.begin()
        assert program.is_right("long_array", plant.warehouse.open(ref), (1,))
    told.clear()
    with program.open_plant(mount.point / "plant", 1, told.append, **options) as plant:
        plant.produce("long_array")
    assert told == []

"""Stores on a real FUSE mount: refused, apart, or allowed, and the same values as anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import UntrustedStore, WarehouseError
from tests.faults import passthrough, program

pytestmark = pytest.mark.skipif(bool(passthrough.why_not()), reason=passthrough.why_not() or "it can be mounted")


@pytest.fixture
def mount(tmp_path: Path, request: Any) -> Iterator[passthrough.Mounted]:
    kind, lacks = request.param if isinstance(request.param, tuple) else (request.param, "")
    with passthrough.mounted(tmp_path / "behind", tmp_path / "mount", kind, lacks) as mounted:
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


POORER = [("fuse.sshfs", lacks) for lacks in ("links", "permissions", "sizes", "folder syncs")]


@pytest.mark.parametrize("mount", POORER, indirect=True, ids=str)
def test_a_poorer_file_system_serves_as_well(mount: passthrough.Mounted, tmp_path: Path) -> None:
    lives(mount.point / "plant", index=tmp_path / "index")


@pytest.mark.parametrize("mount", [("fuse.bindfs", "permissions")], indirect=True, ids=str)
def test_one_that_keeps_no_permissions_is_not_trusted_with_code_if_others_may_write(
    mount: passthrough.Mounted, tmp_path: Path
) -> None:
    with program.open_plant(mount.point / "plant", 1) as plant:
        plant.produce("thing")
    (tmp_path / "behind" / "plant").chmod(0o777)
    with program.open_plant(mount.point / "plant", 1) as plant, pytest.raises(UntrustedStore):
        plant.produce("thing")


@pytest.mark.parametrize("mount", [("fuse.sshfs", "sizes")], indirect=True, ids=str)
def test_where_no_size_is_told_nothing_is_collected_by_itself(mount: passthrough.Mounted, tmp_path: Path) -> None:
    with program.open_plant(mount.point / "plant", 1, index=tmp_path / "index") as plant:
        plant.produce("long_array")
        assert "without a budget: the file system doesn't tell its size" in str(plant.du())
    with program.open_plant(mount.point / "plant", 1, index=tmp_path / "index", disk=1000) as plant:
        assert "% of the budget of 1.00 kB" in str(plant.du())


@pytest.mark.parametrize("mount", [("fuse.bindfs", "maps")], indirect=True, ids=str)
def test_one_that_maps_no_files_says_what_to_do(mount: passthrough.Mounted, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="No such device") as caught:
        program.open_plant(mount.point / "plant", 1)
    assert "keeps the index elsewhere" in caught.value.hint
    with program.open_plant(mount.point / "plant", 1, index=tmp_path / "index") as plant:
        assert program.is_right("dataset", plant.produce("dataset"), (1,))
        assert program.is_right("long_array", plant.produce("long_array"), (1,))
        with pytest.raises(WarehouseError, match="maps no files for writing") as caught:
            plant.produce("allocated")
        assert "specs.HdfArraySpec" in caught.value.hint

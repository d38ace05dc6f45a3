"""Staging, sealing, opening, sweeping."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.errors import CannotStore, DamagedObject, PayloadMissing
from pyplantx.fingerprint.value import BLOCK, hash_bytes, hash_text
from pyplantx.specs.base import Written
from pyplantx.warehouse.files import Layout, write_file
from pyplantx.warehouse.objects import Objects
from pyplantx.warehouse.payloads import FilePayload
from pyplantx.warehouse.records import IN_FILES, IN_RECORD, IN_SMALL, make_part
from pyplantx.warehouse.staging import LITTLE, SMALL, StagedObject, Staging, hash_file, sweep_staging

WRITTEN = Written("d" * 32, {"k": 1})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path))
    made.make()
    return made


@pytest.fixture
def stage(layout: Layout) -> StagedObject:
    return StagedObject(Staging(layout, "session"))


def test_where_a_payload_lives_depends_on_its_size(layout: Layout) -> None:
    homes = {0: IN_RECORD, LITTLE: IN_RECORD, LITTLE + 1: IN_SMALL, SMALL: IN_SMALL, SMALL + 1: IN_FILES}
    for size, home in homes.items():
        stage = StagedObject(Staging(layout, f"s{size}"))
        stage.write("data", [b"x" * size])
        sealed = stage.seal("s", 1, WRITTEN)
        assert (sealed.record.home, sealed.record.size) == (home, size)


def test_the_address_is_of_content_not_of_pieces(layout: Layout) -> None:
    pieces = ([b"abc", b"def"], [b"abcdef"], [bytearray(b"abcde"), memoryview(b"f")], [b"", b"abcdef"])
    addresses = set()
    for i, chunks in enumerate(pieces):
        stage = StagedObject(Staging(layout, f"s{i}"))
        stage.write("data", chunks)
        addresses.add(stage.seal("s", 1, WRITTEN).address)
    assert len(addresses) == 1


def test_spec_version_meta_and_part_names_count(layout: Layout) -> None:
    def address(part: str = "data", spec: str = "s", version: int = 1, written: Written = WRITTEN) -> str:
        stage = StagedObject(Staging(layout, "x"))
        stage.write(part, [b"same"])
        return stage.seal(spec, version, written).address

    assert len({address(), address("other"), address(spec="t"), address(version=2), address(written=Written("d"))}) == 5


def test_a_reused_buffer_is_copied(stage: StagedObject) -> None:
    def chunks():
        buffer = bytearray(b"12")
        yield buffer
        buffer[:] = b"34"
        yield buffer

    stage.write("data", chunks())
    assert stage.seal("s", 1, WRITTEN).payload == b"1234"


def test_arrays_are_taken_as_buffers(stage: StagedObject) -> None:
    values = np.arange(6.0).reshape(2, 3)
    stage.write("data", [values, np.empty((0, 3)), np.float64(1).reshape(())])
    assert stage.seal("s", 1, WRITTEN).payload == values.tobytes() + np.float64(1).tobytes()


@pytest.mark.parametrize("sizes", [[SMALL, 1], [BLOCK], [BLOCK + 1, 5], [1] * 9 + [2 * BLOCK], [BLOCK - 3, 3, 7]])
def test_large_parts_are_hashed_as_they_pass(layout: Layout, stage: StagedObject, sizes: list[int]) -> None:
    data = np.random.default_rng(0).bytes(sum(sizes))
    cuts = np.cumsum([0, *sizes])
    stage.write("data", (data[a:b] for a, b in zip(cuts, cuts[1:])))
    sealed = stage.seal("s", 1, WRITTEN)
    blocks = [hash_bytes(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    part = sealed.record.parts[0]
    assert part == make_part("data", len(data), blocks) and list(part.blocks) == (blocks if len(blocks) > 1 else [])
    objects = Objects(layout)
    objects.publish(stage, sealed)
    payload = FilePayload(Objects(layout), sealed.address, sealed.record)
    assert payload.read("data") == data and payload.is_file("data") and payload.parts() == ("data",)


def test_a_spec_may_make_the_file_itself(layout: Layout, stage: StagedObject) -> None:
    path = stage.path("image.png")
    assert not os.path.exists(path) and os.path.isdir(os.path.dirname(path))
    Path(path).write_bytes(b"picture")
    stage.write("note", [b"beside"])
    sealed = stage.seal("s", 1, WRITTEN)
    assert sealed.record.home == IN_FILES and {part.name for part in sealed.record.parts} == {"image.png", "note"}
    objects = Objects(layout)
    objects.publish(stage, sealed)
    found = FilePayload(objects, sealed.address, sealed.record).path("image.png")
    assert Path(found).read_bytes() == b"picture"
    assert stat.S_IMODE(os.stat(found).st_mode) == 0o400


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/abs", "a\0b", "a\n", "ä", "x" * 200, "a b"])
def test_part_names_never_become_strange_paths(stage: StagedObject, name: str) -> None:
    with pytest.raises(CannotStore):
        stage.write(name, [b""])
    with pytest.raises(CannotStore):
        stage.path(name)


def test_parts_are_written_once(stage: StagedObject) -> None:
    stage.write("data", [b"1"])
    for again in (lambda: stage.write("data", [b"2"]), lambda: stage.path("data")):
        with pytest.raises(CannotStore, match="twice"):
            again()


def test_a_missing_or_strange_file_is_refused(stage: StagedObject) -> None:
    with pytest.raises(CannotStore, match="no part at all"):
        stage.seal("s", 1, WRITTEN)
    path = stage.path("data")
    with pytest.raises(CannotStore, match="never made"):
        stage.seal("s", 1, WRITTEN)
    os.symlink("/etc/passwd", path)
    with pytest.raises(CannotStore, match="ordinary"):
        stage.seal("s", 1, WRITTEN)


def published(layout: Layout, data: bytes = b"x" * (SMALL + 1)):
    stage = StagedObject(Staging(layout, "writer"))
    stage.write("data", [data])
    sealed = stage.seal("s", 1, WRITTEN)
    Objects(layout).publish(stage, sealed)
    return sealed, Path(layout.object_folder(sealed.address)) / "data"


@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "empty", "folder", "link"])
def test_damage_is_found_before_a_byte_is_given_away(layout: Layout, damage: str) -> None:
    sealed, path = published(layout)
    path.chmod(0o600)
    content = path.read_bytes()
    if damage in ("folder", "link"):
        path.unlink()
        path.mkdir() if damage == "folder" else path.symlink_to("/etc/passwd")
    else:
        changed = {"flip": b"y" + content[1:], "truncate": content[:-1], "append": content + b"x", "empty": b""}
        path.write_bytes(changed[damage])
    payload = FilePayload(Objects(layout), sealed.address, sealed.record)
    for access in (payload.read, payload.path):
        with pytest.raises(DamagedObject):
            access("data")


def test_a_file_that_changes_during_the_session_is_checked_again(layout: Layout) -> None:
    sealed, path = published(layout)
    objects = Objects(layout)
    assert objects.is_whole(sealed.address, sealed.record)
    path.chmod(0o600)
    path.write_bytes(b"y" * sealed.record.size)
    assert not objects.is_whole(sealed.address, sealed.record)


def test_a_missing_file_is_missing(layout: Layout) -> None:
    sealed, path = published(layout)
    path.unlink()
    with pytest.raises(PayloadMissing):
        FilePayload(Objects(layout), sealed.address, sealed.record).path("data")


def test_garbage_at_the_address_is_replaced_and_what_is_whole_stays(layout: Layout) -> None:
    sealed, path = published(layout)
    inode = path.stat().st_ino
    published(layout)
    assert path.stat().st_ino == inode
    path.chmod(0o600)
    path.write_bytes(b"zeros after a power loss")
    published(layout)
    assert Objects(layout).is_whole(sealed.address, sealed.record)
    assert len(os.listdir(layout.quarantine)) == 1


def test_discarding_leaves_nothing(layout: Layout) -> None:
    stage = StagedObject(Staging(layout, "session"))
    Path(stage.path("a")).write_bytes(b"1")
    stage.discard()
    stage.discard()
    assert os.listdir(os.path.join(layout.staging, "session")) == []


def test_staging_of_the_dead_is_swept_that_of_the_living_is_not(layout: Layout) -> None:
    living, dead = Staging(layout, "living"), Staging(layout, "dead")
    living.begin()
    kept, swept = living.new_folder(), dead.new_folder()
    assert sweep_staging(layout) == [os.path.join(layout.staging, "dead")]
    assert os.path.isdir(kept) and not os.path.exists(swept)
    living.end()
    assert os.listdir(layout.staging) == []


@given(address=st.text(max_size=40))
def test_addresses_never_become_strange_paths(address: str) -> None:
    layout = Layout("/store")
    try:
        folder = layout.object_folder(address)
    except PayloadMissing:
        return
    assert os.path.normpath(folder) == folder and folder.startswith("/store/objects/")


def test_small_files_are_replaced_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    for content in (b"one", b"two"):
        write_file(path, content, durable=True)
        assert Path(path).read_bytes() == content
    assert os.listdir(tmp_path) == ["file"] and stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_hashing_a_file_is_hashing_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert hash_file(str(tmp_path / "empty"), "e") == ("e", 0, hash_bytes(b""), (), None)
    (tmp_path / "two").write_bytes(b"a" * BLOCK + b"b")
    blocks = (hash_bytes(b"a" * BLOCK), hash_bytes(b"b"))
    assert hash_file(str(tmp_path / "two"), "t") == ("t", BLOCK + 1, hash_text("".join(blocks)), blocks, None)

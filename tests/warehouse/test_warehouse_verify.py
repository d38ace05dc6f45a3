"""Checking files by blocks: what is read is right, what was given away unchecked is settled, and by whom."""

from __future__ import annotations

import linecache
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyplantx.errors import CannotStore, DamagedObject, PayloadMissing, WarehouseError
from pyplantx.fingerprint.value import BLOCK, array_digest, hash_bytes, hash_text
from pyplantx.specs import buffers
from pyplantx.specs.base import Layout as PartLayout
from pyplantx.specs.base import Written
from pyplantx.specs.parallel import WORTHWHILE, for_each_block
from pyplantx.warehouse import verify
from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.objects import Objects
from pyplantx.warehouse.payloads import FilePayload
from pyplantx.warehouse.records import Cut, Joined, ObjectRecord, decode_object, encode_object, make_part
from pyplantx.warehouse.sealing import Sealing
from pyplantx.warehouse.staging import SMALL, Sealed, StagedObject, Staging, hash_file
from pyplantx.warehouse.verify import AT_ONCE, Checks, PartCheck, read_all, stamp_of
from pyplantx.warehouse.warehouse import Warehouse

WRITTEN = Written("d" * 32)
HEAD = b"h" * 128


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path))
    made.make()
    return made


def stored(layout: Layout, body: bytes, block: int = BLOCK) -> tuple[Sealed, Path]:
    """An object of one array part, and where it lies."""
    stage = StagedObject(Staging(layout, "writer"))
    stage.write_array("data", HEAD, body, block)
    sealed = stage.seal("s", 1, WRITTEN)
    Objects(layout).publish(stage, sealed)
    path = Path(layout.object_folder(sealed.address)) / "data"
    path.chmod(0o600)
    return sealed, path


def flip(path: Path, position: int) -> None:
    """Change one byte; the file's times change too."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def opened(layout: Layout, sealed: Sealed, verify: str = "lazy") -> FilePayload:
    """The payload, as a session sees it that has not looked at it yet."""
    return FilePayload(Objects(layout), sealed.address, sealed.record, verify)


# -- where blocks are -----------------------------------------------------------------------------------------------


@given(head=st.integers(0, 9), block=st.integers(1, 7), body=st.integers(0, 40), tail=st.integers(0, 5))
def test_blocks_cover_a_part_once_and_in_order(head: int, block: int, body: int, tail: int) -> None:
    cut = Cut(head + body + tail, PartLayout(head, block, body))
    spans = [cut.span(index) for index in range(cut.count)]
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == head + body + tail
    for index, (start, stop) in enumerate(spans):
        assert all(cut.index(position) == index for position in range(start, stop))
        assert stop - start <= block or (start, stop) in {(0, head), (head + body, head + body + tail)}


@pytest.mark.parametrize("impossible", [(-1, 1, 1), (0, 0, 1), (0, 1, -1), (5, 1, 6)])
def test_an_impossible_layout_is_refused(impossible: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="layout"):
        Cut(10, PartLayout(*impossible))


def test_a_part_with_layout_comes_back_from_its_record() -> None:
    digests = [hash_text(str(i)) for i in range(5)]
    for blocks in (digests, digests[:1]):
        parts = (make_part("a", 9, blocks, PartLayout(1, 2, 8)), make_part("b", 7, blocks))
        record = ObjectRecord("s", 1, "d" * 32, "", "files", parts, 1.5)
        assert decode_object(encode_object(record, b"rest")) == (record, b"rest")


def test_joined_digests_are_a_sequence() -> None:
    digests = [hash_text(str(i)) for i in range(4)]
    joined = Joined("".join(digests))
    assert list(joined) == digests and joined[-1] == digests[3] and joined[1:3] == tuple(digests[1:3])
    with pytest.raises(IndexError):
        joined[4]


# -- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5000, SMALL, BLOCK - 1, BLOCK + 1, WORTHWHILE, WORTHWHILE + 12345])
def test_an_array_is_written_and_its_blocks_are_hashed(layout: Layout, size: int) -> None:
    body = random_bytes(size)
    stage = StagedObject(Staging(layout, "writer"))
    digests = stage.write_array("data", HEAD, body, BLOCK)
    assert digests == [hash_bytes(body[start : start + BLOCK]) for start in range(0, size, BLOCK)]
    sealed = stage.seal("s", 1, WRITTEN)
    part = sealed.record.parts[0]
    if size + len(HEAD) <= SMALL:
        assert sealed.payload == HEAD + body and part.layout is None and part.digest == hash_bytes(HEAD + body)
        return
    assert part.layout == (len(HEAD), BLOCK, size)
    assert part.digest == hash_text("".join([hash_bytes(HEAD), *digests]))
    Objects(layout).publish(stage, sealed)
    assert opened(layout, sealed).read("data") == HEAD + body


def test_what_a_spec_describes_is_not_read_again(layout: Layout) -> None:
    body, tail = random_bytes(2 * SMALL), b"tail"
    told = [hash_text("not the digest"), hash_text("nor this")]
    stage = StagedObject(Staging(layout, "writer"))
    Path(stage.path("data")).write_bytes(HEAD + body + tail)
    cut = PartLayout(len(HEAD), SMALL, len(body))
    stage.describe("data", cut, told)
    part = stage.seal("s", 1, WRITTEN).record.parts[0]
    assert part == make_part("data", len(HEAD + body + tail), [hash_bytes(HEAD), *told, hash_bytes(tail)], cut)


def test_a_described_part_has_the_address_of_a_written_one(layout: Layout) -> None:
    body = random_bytes(BLOCK + 5)
    written, given = StagedObject(Staging(layout, "a")), StagedObject(Staging(layout, "b"))
    digests = written.write_array("data", HEAD, body, BLOCK)
    Path(given.path("data")).write_bytes(HEAD + body)
    given.describe("data", PartLayout(len(HEAD), BLOCK, len(body)), digests)
    assert written.seal("s", 1, WRITTEN).address == given.seal("s", 1, WRITTEN).address


@pytest.mark.parametrize(
    ("cut", "count"), [(PartLayout(0, BLOCK, 9), 1), (PartLayout(0, 2, 4), 3), (PartLayout(0, 0, 4), 1)]
)
def test_a_description_that_does_not_fit_is_refused(layout: Layout, cut: PartLayout, count: int) -> None:
    stage = StagedObject(Staging(layout, "writer"))
    Path(stage.path("data")).write_bytes(b"4567")
    stage.describe("data", cut, [hash_bytes(b"")] * count)
    with pytest.raises(CannotStore, match="data"):
        stage.seal("s", 1, WRITTEN)


def test_a_file_is_hashed_alike_by_one_thread_and_by_two(tmp_path: Path, way: str) -> None:
    (tmp_path / "file").write_bytes(data := random_bytes(WORTHWHILE + 99))
    blocks = [hash_bytes(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    assert hash_file(str(tmp_path / "file"), "f") == make_part("f", len(data), blocks)


class TestTwoThreads:
    def test_results_come_in_order_and_both_work(self) -> None:
        met = threading.Barrier(2, timeout=10)
        seen = set()

        def work(index: int) -> int:
            if index < 2:
                met.wait()  # passes only if somebody else is here at the same time
            seen.add(threading.get_ident())
            return index * index

        assert for_each_block(100, work) == [i * i for i in range(100)]
        assert len(seen) == 2

    @pytest.mark.parametrize("parallel", [False, True])
    def test_the_first_error_ends_the_work(self, parallel: bool) -> None:
        done = []

        def work(index: int) -> None:
            if index == 3:
                raise ValueError("three")
            done.append(index)

        with pytest.raises(ValueError, match="three"):
            for_each_block(1000, work, parallel=parallel)
        assert len(done) < 1000

    def test_an_interrupt_waits_for_the_other_thread(self) -> None:
        main, met = threading.get_ident(), threading.Barrier(2, timeout=10)

        def work(index: int) -> None:
            if index < 2:
                met.wait()  # so each of the two threads does something
            if threading.get_ident() == main:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            for_each_block(50, work)
        assert not [thread for thread in threading.enumerate() if thread.name == "pyplantx blocks"]


LAYOUTS = {
    "C": lambda array: array,
    "strided": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    "rows backwards": lambda array: array[::-1].copy()[::-1],
    "transposed in part": lambda array: array.transpose(1, 0, 2).copy().transpose(1, 0, 2),
    "last axis backwards": lambda array: array[..., ::-1].copy()[..., ::-1],
    "F": np.asfortranarray,
}


@pytest.mark.parametrize("shape", [(1, 1, 1), (37, 11, 3), (300, 70, 53), (3, 5, 100_001), (400_001, 2, 2)])
def test_layout_in_memory_changes_nothing_but_the_order_in_the_file(directory: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)
    with Warehouse(directory, durability="process") as warehouse:
        refs = {name: warehouse.store(name, make(values)) for name, make in LAYOUTS.items()}
        allocated = warehouse.allocate("allocated", "array", shape=shape, dtype=values.dtype)
        allocated.handle[...] = values
        refs["allocated"] = allocated.seal()
        assert {ref.digest for ref in refs.values()} == {array_digest(values)}
        fortran = refs.pop("F").address
        assert len({ref.address for ref in refs.values()}) == 1
        assert (fortran == refs["C"].address) == values.flags.f_contiguous
        for ref in refs.values():
            assert np.array_equal(warehouse.open(ref), values)


def test_fortran_order_is_kept_when_allocated(directory: Path) -> None:
    values = np.arange(3 << 20, dtype="f4").reshape(3, 1 << 10, 1 << 10)
    with Warehouse(directory, durability="process") as warehouse:
        allocated = warehouse.allocate("allocated", "array", shape=values.shape, dtype="f4", order="F")
        allocated.handle[...] = values
        sealed, sent = allocated.seal(), warehouse.store("sent", np.asfortranarray(values))
        assert sealed == sent and sealed.digest == array_digest(values)
        assert warehouse.open(sealed).flags.f_contiguous and warehouse.check() == []


# -- reading by position ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_read_by_position_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    head, block, body, tail = (data.draw(st.integers(low, 30)) for low in (0, 1, 0, 0))
    content = random_bytes(head + body + tail)
    path = tmp_path_factory.mktemp("part") / "data"
    path.write_bytes(content)
    part = hash_file(str(path), "data", PartLayout(head, block, body))
    check = PartCheck(str(path), part, stamp_of(os.lstat(path)))
    fd = os.open(path, os.O_RDONLY)
    try:
        for _ in range(4):
            start = data.draw(st.integers(0, len(content)))
            stop = data.draw(st.integers(start, len(content)))
            buffer = bytearray(stop - start)
            check.read_into(fd, memoryview(buffer), start)
            assert buffer == content[start:stop]
    finally:
        os.close(fd)


def test_only_the_blocks_that_are_touched_are_checked(layout: Layout) -> None:
    body = random_bytes(3 * BLOCK)
    sealed, path = stored(layout, body)
    flip(path, len(HEAD) + BLOCK + 7)
    reader = opened(layout, sealed).open_checked("data")
    buffer = np.empty(BLOCK, np.uint8)
    for number in (0, 2):
        reader.read_into(buffer, len(HEAD) + number * BLOCK)
        assert buffer.tobytes() == body[number * BLOCK : (number + 1) * BLOCK]
    for start in (BLOCK, 2 * BLOCK - 1, BLOCK - 1):  # the whole block, its last byte, a byte before and its first
        with pytest.raises(DamagedObject, match="checksum"):
            reader.read_into(bytearray(2), len(HEAD) + start)
    reader.close()


def test_a_block_is_read_and_checked_once(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(2 * BLOCK))
    payload = opened(layout, sealed)
    reader = payload.open_checked("data")
    reader.read_into(bytearray(BLOCK), len(HEAD))
    flip(path, len(HEAD) + 5)  # the disk's business: nobody looks at the times of an open file
    reader.read_into(found := bytearray(10), len(HEAD))
    assert found != bytearray(10)
    with pytest.raises(DamagedObject):  # opened anew the file is another one
        payload.path("data")
    reader.close()


@pytest.mark.parametrize(("start", "size"), [(-1, 1), (0, 3 * BLOCK), (2 * BLOCK, BLOCK)])
def test_reading_beyond_the_file_is_refused(layout: Layout, start: int, size: int) -> None:
    sealed, _ = stored(layout, random_bytes(2 * BLOCK))
    reader = opened(layout, sealed).open_checked("data")
    with pytest.raises(WarehouseError, match="no bytes"):
        reader.read_into(bytearray(size), start)
    reader.close()
    with pytest.raises(WarehouseError, match="closed"):
        reader.read_into(bytearray(1), 0)


def test_a_small_file_is_checked_when_it_is_opened(layout: Layout) -> None:
    stage = StagedObject(Staging(layout, "writer"))
    Path(stage.path("data")).write_bytes(random_bytes(AT_ONCE - 1))
    sealed = stage.seal("s", 1, WRITTEN)
    Objects(layout).publish(stage, sealed)
    path = Path(layout.object_folder(sealed.address)) / "data"
    path.chmod(0o600)
    flip(path, AT_ONCE - 2)
    for access in (lambda it: it.open_checked("data"), lambda it: it.map("data", False)):
        with pytest.raises(DamagedObject):
            access(opened(layout, sealed))


# -- maps, and settling them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writable", [False, True])
def test_a_map_is_given_at_once_and_settled_later(layout: Layout, writable: bool) -> None:
    body = random_bytes(3 * BLOCK)
    sealed, _ = stored(layout, body)
    objects = Objects(layout)
    payload = FilePayload(objects, sealed.address, sealed.record)
    mapped = payload.map("data", writable)
    assert mapped[:] == HEAD + body
    assert payload.settle() is None and payload.settle() is None
    assert objects.checks.is_whole(sealed.address, sealed.record.parts[0])
    objects.checks.close()


class NoHelp:
    """A helper that has no time."""

    def put(self, check: PartCheck) -> None:
        """It does nothing."""


@pytest.mark.parametrize("position", [len(HEAD), len(HEAD) + 2 * BLOCK + 1])
def test_a_damaged_map_is_found_by_all_who_got_it(
    layout: Layout, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK))
    flip(path, position)
    objects = Objects(layout)
    monkeypatch.setattr(objects.checks, "_help", NoHelp)
    receipts = [FilePayload(objects, sealed.address, sealed.record) for _ in range(2)]
    for receipt in receipts:
        receipt.map("data", True)
    for receipt in (*receipts, *receipts):
        assert "checksum" in str(receipt.settle()) and receipt.is_in_place()
    with pytest.raises(DamagedObject):
        FilePayload(objects, sealed.address, sealed.record).map("data", True)
    objects.quarantine(sealed.address)
    assert receipts[0].settle() and not receipts[0].is_in_place()


def test_a_damaged_head_is_found_before_anything_is_made_of_it(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK))
    flip(path, 3)
    with pytest.raises(DamagedObject):
        opened(layout, sealed).map("data", True)


def test_damage_that_was_read_is_told_when_settling(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK))
    flip(path, len(HEAD))
    payload = opened(layout, sealed)
    reader = payload.open_checked("data")
    reader.read_into(bytearray(5), len(HEAD) + 2 * BLOCK)
    assert payload.settle() is None  # nobody has seen the damage
    with pytest.raises(DamagedObject):
        reader.read_into(bytearray(5), len(HEAD))
    assert "checksum" in str(payload.settle())
    reader.close()


def test_a_collected_file_is_checked_all_the_same(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK))
    flip(path, len(HEAD) + BLOCK)
    objects = Objects(layout)
    payload = FilePayload(objects, sealed.address, sealed.record)
    payload.map("data", True)
    objects.remove(sealed.address)
    assert not path.exists() and "checksum" in str(payload.settle())
    objects.checks.close()


def test_always_and_off(layout: Layout) -> None:
    body = random_bytes(3 * BLOCK)
    sealed, path = stored(layout, body)
    objects = Objects(layout)

    def payload(verify: str) -> FilePayload:
        return FilePayload(objects, sealed.address, sealed.record, verify)

    assert payload("always").map("data", False)[:] == HEAD + body
    flip(path, len(HEAD))
    reads: list[Callable[[FilePayload], object]] = [
        lambda it: it.map("data", False),
        lambda it: it.path("data"),
        lambda it: it.open_checked("data"),
        lambda it: it.read("data"),
    ]
    for read in reads:
        with pytest.raises(DamagedObject):
            read(payload("always"))
    off = payload("off")
    for read in reads:
        read(off)
    assert off.settle() is None
    with pytest.raises(DamagedObject):  # what nobody checked is not taken for right later
        payload("lazy").path("data")
    path.write_bytes(HEAD + body[1:])
    with pytest.raises(DamagedObject, match="bytes instead of"):  # the size is looked at all the same
        payload("off").map("data", False)
    objects.checks.close()


def test_what_this_session_wrote_is_not_read_again(layout: Layout) -> None:
    stage = StagedObject(Staging(layout, "writer"))
    stage.write_array("data", HEAD, random_bytes(2 * BLOCK), BLOCK)
    sealed = stage.seal("s", 1, WRITTEN)
    objects = Objects(layout)
    objects.publish(stage, sealed)
    payload = FilePayload(objects, sealed.address, sealed.record)
    payload.map("data", True)
    assert payload._mapped == [] and objects.checks._helper is None


def test_a_record_whose_checksums_do_not_fit_is_damage(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(2 * BLOCK))
    part = sealed.record.parts[0]
    beyond = PartLayout(1, BLOCK, 3 * BLOCK)
    for wrong in (part._replace(blocks=part.blocks[:2]), part._replace(digest="0" * 32), part._replace(layout=beyond)):
        record = sealed.record._replace(parts=(wrong,))
        with pytest.raises(DamagedObject, match=r"checksums of|no sense"):
            FilePayload(Objects(layout), sealed.address, record).map("data", True)
    assert path.exists()


def test_a_missing_file_is_missing(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(2 * BLOCK))
    path.unlink()
    for access in (lambda it: it.open_checked("data"), lambda it: it.map("data", True)):
        with pytest.raises(PayloadMissing):
            access(opened(layout, sealed))


# -- the helper -------------------------------------------------------------------------------------------------------


def begun(path: Path, size: int) -> PartCheck:
    path.write_bytes(random_bytes(size))
    return PartCheck(str(path), hash_file(str(path), path.name), stamp_of(os.lstat(path)))


def test_closing_ends_the_helper_whatever_is_under_way(tmp_path: Path) -> None:
    checks = Checks()
    before = set(threading.enumerate())
    files = [begun(tmp_path / str(number), 5 * BLOCK) for number in range(4)]
    descriptors = len(os.listdir("/proc/self/fd"))
    for check in files:
        checks.begin(check, os.open(check.path, os.O_RDONLY))
    checks.close()
    assert set(threading.enumerate()) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    checks.close()
    for check in files:  # nobody takes for right what was not looked at
        if not check.is_whole:
            with pytest.raises(WarehouseError, match="closed before"):
                check.finish()


class Interrupt:
    """Raises KeyboardInterrupt at the n-th executed line of the file, but not where a ``with`` block ends."""

    def __init__(self, file: str, number: int) -> None:
        self.file, self.left = file, number

    def __call__(self, frame: FrameType, event: str, _: object) -> object:
        if frame.f_code.co_filename != self.file or frame.f_code.co_name in ("__del__", "_close"):
            return None
        if event == "line" and not linecache.getline(self.file, frame.f_lineno).lstrip().startswith("with "):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_line_leaves_a_check_that_can_be_finished(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(random_bytes(3000))
    part = hash_file(str(tmp_path / "file"), "file", PartLayout(100, 1000, 2500))
    number, reached = 0, True
    while reached:
        number += 1
        check = PartCheck(str(tmp_path / "file"), part, stamp_of(os.lstat(tmp_path / "file")))
        check.begin(os.open(check.path, os.O_RDONLY))
        interrupt = Interrupt(verify.__file__, number)
        before = sys.gettrace()
        try:
            sys.settrace(interrupt)
            check.finish()
        except KeyboardInterrupt:
            assert interrupt.left == 0
        finally:
            sys.settrace(before)
        reached = interrupt.left == 0
        check.finish()
        assert check.is_whole and check._fd < 0 and not check._busy.keys() - {threading.get_ident()}, number
    assert number > 60


def test_an_interrupt_leaves_nothing_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = begun(tmp_path / "file", 3 * BLOCK)
    assert check.begin(os.open(check.path, os.O_RDONLY))
    interrupts = iter([KeyboardInterrupt(), None, KeyboardInterrupt()])
    compare = check._compare

    def interrupted(index: int, data: memoryview) -> None:
        error = next(interrupts, None)
        if error is not None:
            raise error
        compare(index, data)

    monkeypatch.setattr(check, "_compare", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            check.finish()
    check.finish()
    assert check.is_whole and check._fd < 0


# -- in place, or as a copy -----------------------------------------------------------------------------------------


@pytest.fixture(params=["in place", "no NumPy to tell addresses", "pages that don't come"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How blocks are looked at; the last two by reading them."""
    if request.param == "no NumPy to tell addresses":
        monkeypatch.delitem(sys.modules, "numpy")
    elif request.param == "pages that don't come":
        monkeypatch.setattr(buffers, "madvise", lambda: lambda *_: -1)
    return str(request.param)


def test_a_file_is_checked_in_place_or_read(layout: Layout, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK + 17))
    read: list[int] = []
    monkeypatch.setattr(verify, "read_all", lambda fd, view, at: read.append(at) or read_all(fd, view, at))
    payload = opened(layout, sealed)
    payload.map("data", writable=True)
    assert payload.settle() is None
    assert payload.is_right()
    assert sorted(set(read) - {0}) == ([] if way == "in place" else [len(HEAD) + at * BLOCK for at in range(4)])


def test_some_of_a_block_is_read_without_the_rest(layout: Layout, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = random_bytes(2 * BLOCK)
    sealed, path = stored(layout, body)
    reader = opened(layout, sealed).open_checked("data")
    sizes: list[int] = []

    def noted(fd: int, view: memoryview, at: int) -> None:
        sizes.append(view.nbytes)
        read_all(fd, view, at)

    monkeypatch.setattr(verify, "read_all", noted)
    for start in (5, BLOCK - 5, BLOCK + 100, 7):
        reader.read_into(found := bytearray(10), len(HEAD) + start)
        assert found == body[start : start + 10]
    assert sizes == ([10, 5, 5, 10, 10] if way == "in place" else [BLOCK, 5, BLOCK, 10, 10])
    reader.close()


def test_damage_in_a_block_is_met_by_who_reads_some_of_it(layout: Layout, way: str) -> None:
    sealed, path = stored(layout, random_bytes(2 * BLOCK))
    flip(path, len(HEAD) + BLOCK + 4095)
    reader = opened(layout, sealed).open_checked("data")
    reader.read_into(bytearray(10), len(HEAD) + 5)
    with pytest.raises(DamagedObject, match="does not match its checksum"):
        reader.read_into(bytearray(10), len(HEAD) + 2 * BLOCK - 20)
    reader.close()


def test_damage_is_found_in_place_or_read(layout: Layout, way: str) -> None:
    for position in (len(HEAD), len(HEAD) + BLOCK - 1, len(HEAD) + 2 * BLOCK + 4095, len(HEAD) + 3 * BLOCK + 16):
        sealed, path = stored(layout, random_bytes(3 * BLOCK + 17))
        flip(path, position)
        payload = opened(layout, sealed)
        payload.map("data", writable=True)
        assert "does not match its checksum" in str(payload.settle())


def test_a_file_that_is_cut_off_meanwhile_is_damage_and_kills_nobody(layout: Layout, way: str) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK + 17))
    fd = os.open(path, os.O_RDONLY)
    check = PartCheck(str(path), sealed.record.parts[0], stamp_of(os.fstat(fd)))
    assert check.begin(fd)
    os.truncate(path, BLOCK)
    with pytest.raises(DamagedObject, match="the file ends too early|can't be read"):
        check.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_checking_in_place_leaves_nothing_mapped(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_LET_GO", 3 * BLOCK)
    size = 16 * BLOCK
    sealed, path = stored(layout, random_bytes(size))
    fd = os.open(path, os.O_RDONLY)
    check = PartCheck(str(path), sealed.record.parts[0], stamp_of(os.fstat(fd)))
    before = resident_files()
    assert check.begin(fd)
    most: list[int] = []
    check.work(lambda: most.append(resident_files()) or True)
    assert check.is_whole
    assert max(most) - before < size // 2
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_pages_are_let_go_of_a_few_blocks_at_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time all threads of the process are stopped for a moment."""
    sealed, path = stored(layout, random_bytes(16 * BLOCK))
    fd = os.open(path, os.O_RDONLY)
    check = PartCheck(str(path), sealed.record.parts[0], stamp_of(os.fstat(fd)))
    dropped: list[int] = []
    real = buffers.madvise()

    def noted(address: int, length: int, advice: int) -> int:
        if advice == buffers.DONT_NEED:
            dropped.append(length)
        return int(real(address, length, advice))

    monkeypatch.setattr(buffers, "madvise", lambda: noted)
    monkeypatch.setattr(verify, "_LET_GO", 4 * BLOCK - 2 * 4096)
    assert check.begin(fd)
    check.work()
    assert check.is_whole
    assert 3 <= len(dropped) <= 4
    assert all(4 * BLOCK - 2 * 4096 <= length <= 5 * BLOCK for length in dropped)


def test_blocks_are_claimed_together_around_those_that_are_known(tmp_path: Path) -> None:
    count = 40
    (tmp_path / "data").write_bytes(data := random_bytes(count * 100))
    digests = [hash_bytes(data[start : start + 100]) for start in range(0, len(data), 100)]
    part = make_part("data", len(data), digests, PartLayout(0, 100, len(data)))
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    check = PartCheck(str(tmp_path / "data"), part, stamp_of(os.fstat(fd)))
    check.read_into(fd, memoryview(bytearray(100)), 300)
    assert check.begin(fd)
    claims: list[range] = []
    while claimed := check._claim():
        claims.append(claimed)
        for index in claimed:
            check._states[index] = verify._RIGHT
        check._leave()
    assert claims[:2] == [range(3), range(4, 8)]
    assert sorted(index for claimed in claims for index in claimed) == [*range(3), *range(4, count)]
    assert len(claims[-1]) == 1  # what is left at the end is shared by all who check


@pytest.mark.parametrize(
    ("ranges", "joined"),
    [
        ([(0, 1)], [(0, 1)]),
        ([(0, 1), (1, 2), (3, 4)], [(0, 4)]),  # the page between two ranges is half of each
        ([(0, 1), (3, 4), (4, 5)], [(0, 1), (3, 5)]),
    ],
)
def test_neighbouring_pages_are_let_go_of_together(ranges: list[Any], joined: list[Any]) -> None:
    def in_bytes(pairs: list[Any]) -> list[Any]:
        return [(first * buffers._PAGE, last * buffers._PAGE) for first, last in pairs]

    assert list(buffers._joined(in_bytes(ranges))) == in_bytes(joined)


def resident_files() -> int:
    """Bytes of mapped files that count as memory of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssFile"))


# -- in another process -----------------------------------------------------------------------------------------------


def test_a_reader_that_was_pickled_checks_again(layout: Layout) -> None:
    body = random_bytes(3 * BLOCK)
    sealed, path = stored(layout, body)
    first = opened(layout, sealed).open_checked("data")
    sent = pickle.dumps(first)
    again = pickle.loads(pickle.dumps(pickle.loads(sent)))
    found = bytearray(again.size)
    again.read_into(found, 0)
    assert found == HEAD + body == again.map(False)[:]
    flip(path, len(HEAD) + 2 * BLOCK)
    other = pickle.loads(sent)
    other.read_into(bytearray(9), len(HEAD))  # only what is touched is checked
    with pytest.raises(DamagedObject, match="checksum"):
        other.read_into(bytearray(9), len(HEAD) + 2 * BLOCK)
    for reader in (pickle.loads(sent), other):
        with pytest.raises(DamagedObject, match="checksum"):
            reader.map(False)
    for reader in (first, again, other):
        reader.close()
    with pytest.raises(WarehouseError, match="closed"):
        again.map(False)


def test_a_reader_that_was_pickled_meets_another_file_or_none(layout: Layout) -> None:
    sealed, path = stored(layout, random_bytes(3 * BLOCK))
    sent = pickle.dumps(opened(layout, sealed).open_checked("data"))
    os.truncate(path, 5)
    with pytest.raises(DamagedObject, match="another size"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(PayloadMissing):
        pickle.loads(sent)


def test_a_reader_of_a_signed_store_is_checked_before_it_leaves(layout: Layout) -> None:
    """Its checksums can't be computed without the key, which must not be in a pickle."""
    sealing = Sealing(b"k" * 32, "store")
    body = random_bytes(2 * BLOCK)
    stage = StagedObject(Staging(layout, "writer", sealing))
    stage.write_array("data", HEAD, body, BLOCK)
    sealed = stage.seal("s", 1, WRITTEN)
    Objects(layout, sealing).publish(stage, sealed)
    path = Path(layout.object_folder(sealed.address)) / "data"

    def fresh() -> Any:
        return FilePayload(Objects(layout, sealing), sealed.address, sealed.record).open_checked("data")

    sent = pickle.dumps(fresh())
    assert b"k" * 32 not in sent
    assert pickle.loads(sent).map(False)[:] == HEAD + body
    path.chmod(0o600)
    flip(path, len(HEAD) + BLOCK)
    with pytest.raises(DamagedObject, match="touched"):
        pickle.loads(sent)
    with pytest.raises(DamagedObject, match="signed"):
        pickle.dumps(fresh())

"""Small arrays on the pages of ``small.lmdb``: as sent, their receiver's alone, whatever becomes of those pages."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx.blocks.places import place_of
from pyplantx.errors import PayloadMissing
from pyplantx.warehouse import windows
from pyplantx.warehouse.warehouse import Warehouse
from pyplantx.warehouse.windows import LEAST, MOST, Windows
from tests.warehouse.stores import ROOT, fetch, send

pytestmark = pytest.mark.skipif(not windows._can_populate(), reason="needs a system that can populate private maps")

SIZE = 12_500


def values(number: int, size: int = SIZE) -> Any:
    return np.random.default_rng(number).random(size)


def is_on_pages_of(array: Any, path: Path) -> bool:
    """Whether an array lies in a private map of a file."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, rights, *_, name = line.split(None, 5)
        first, last = (int(bound, 16) for bound in bounds.split("-"))
        if first <= address < last:
            return rights == "rw-p" and name == str(path)
    raise AssertionError("an array without memory")


@pytest.fixture
def small(directory: Path) -> Path:
    """The file that small payloads lie in."""
    return directory / "small.lmdb" / "data.mdb"


@pytest.fixture
def active(warehouse: Warehouse) -> Iterator[Warehouse]:
    """A warehouse with a few arrays, within an activity."""
    for number in range(5):
        send(warehouse, f"x{number}", values(number))
    warehouse.sync()
    warehouse.begin_activity()
    yield warehouse
    warehouse.end_activity()


def overwrite_all(warehouse: Warehouse) -> None:
    """Use every page of the second environment that may be used."""
    index = warehouse._session.index
    keys = list(warehouse._reader.payload_sizes())
    index.write(lambda: (dict.fromkeys(keys), None), 1.0)
    for turn in range(6):  # LMDB uses what was freed two transactions ago
        made = {b"%032d" % (100 * turn + number): b"\xaa" * 110_000 for number in range(8)}
        index.write(lambda made=made: (made, None), 1.0)
        index.write(lambda made=made: (dict.fromkeys(made), None), 1.0)


def test_a_received_array_lies_on_the_pages_of_the_store(active: Warehouse, small: Path) -> None:
    for number in range(5):
        array = fetch(active, f"x{number}")
        assert is_on_pages_of(array, small), number
        assert np.array_equal(array, values(number))
        assert array.flags.writeable and array.flags.aligned


def test_what_is_written_to_it_is_its_owners_alone(active: Warehouse, opened: Callable[..., Warehouse]) -> None:
    first, second = fetch(active, "x0"), fetch(active, "x0")
    first[:] = -1
    assert np.array_equal(second, values(0))
    second[:] = -2
    assert (first == -1).all()
    assert np.array_equal(fetch(active, "x0"), values(0))
    assert np.array_equal(fetch(opened(read_only=True), "x0"), values(0))


def test_who_drops_it_leaves_nothing_to_the_next(active: Warehouse, small: Path) -> None:
    array = fetch(active, "x0")
    address = array.__array_interface__["data"][0]
    array[:] = -1
    del array
    again = fetch(active, "x0")
    assert again.__array_interface__["data"][0] == address
    assert np.array_equal(again, values(0))


def test_a_view_keeps_it_alive(active: Warehouse) -> None:
    part = fetch(active, "x0")[100:].reshape(-1, 2).view("u8")
    fetch(active, "x0")[:] = 0
    gc.collect()
    assert np.array_equal(part, values(0)[100:].reshape(-1, 2).view("u8"))


@pytest.mark.parametrize("ends_before", [True, False])
def test_it_stays_when_its_pages_are_used_for_something_else(
    warehouse: Warehouse, small: Path, ends_before: bool
) -> None:
    for number in range(5):
        send(warehouse, f"x{number}", values(number))
    warehouse.sync()
    warehouse.begin_activity()
    kept = [fetch(warehouse, f"x{number}") for number in range(5)]
    kept[1][:] = 7
    refs = [warehouse.last_ref(f"x{number}") for number in range(5)]
    if ends_before:
        warehouse.end_activity()
    overwrite_all(warehouse)
    if not ends_before:
        warehouse.end_activity()
    overwrite_all(warehouse)
    assert all(is_on_pages_of(array, small) for array in kept)
    assert (kept[1] == 7).all()
    assert all(np.array_equal(kept[number], values(number)) for number in (0, 2, 3, 4))
    for number, ref in enumerate(refs):  # so that the store is whole in the end
        with pytest.raises(PayloadMissing):
            warehouse.open(ref)
        send(warehouse, f"x{number}", values(number))


def test_the_pages_are_free_when_the_activity_is_over(warehouse: Warehouse, small: Path) -> None:
    """What a value that somebody keeps would cost if its pin stayed: a store that grows with each batch."""
    send(warehouse, "x", values(0))
    warehouse.sync()
    warehouse.begin_activity()
    kept = fetch(warehouse, "x")
    warehouse.end_activity()
    sizes = []
    for turn in range(6):
        for number in range(10):
            send(warehouse, f"y{number}", values(100 * turn + number))
        warehouse.sync()
        warehouse.collect()
        sizes.append(small.stat().st_size)
    assert sizes[-1] < sizes[2] + 10 * SIZE * 8  # three batches otherwise
    assert np.array_equal(kept, values(0))


def test_memory_of_what_is_dropped_goes_though_others_stay(active: Warehouse) -> None:
    kept = [fetch(active, f"x{number}") for number in range(5)]
    for array in kept:
        array[:] = 1
    active.end_activity()
    before = own_pages(kept[0])
    del array, kept[1:]
    gc.collect()
    assert own_pages(kept[0]) <= before - 4 * SIZE * 8
    assert (kept[0] == 1).all()
    active.begin_activity()


def own_pages(array: Any) -> int:
    """Private bytes of the map that an array lies in."""
    address, is_here = array.__array_interface__["data"][0], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(None, 1)[0]
        if "-" in head:
            first, last = (int(bound, 16) for bound in head.split("-"))
            is_here = first <= address < last
        elif is_here and head == "Anonymous:":
            return int(line.split()[1]) * 1024
    raise AssertionError("an array without memory")


def test_a_forked_child_keeps_what_its_parent_lets_go_of(active: Warehouse) -> None:
    kept = fetch(active, "x0")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        right = False
        try:
            os.read(ready[0], 1)
            right = np.array_equal(kept, values(0))
        finally:
            os._exit(0 if right else 1)
    active.end_activity()
    overwrite_all(active)
    os.write(ready[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*ready, *done):
        os.close(end)
    assert np.array_equal(kept, values(0))
    for number in range(5):
        send(active, f"x{number}", values(number))
    active.begin_activity()


def test_outside_of_an_activity_it_is_copied(warehouse: Warehouse, small: Path) -> None:
    send(warehouse, "x", values(0))
    warehouse.sync()
    array = fetch(warehouse, "x")
    assert not is_on_pages_of(array, small)
    assert np.array_equal(array, values(0))


def test_short_and_long_ones_lie_elsewhere(active: Warehouse, small: Path) -> None:
    send(active, "short", values(0, LEAST // 8 - 17))
    send(active, "least", values(0, LEAST // 8))
    send(active, "long", values(0, 1 << 17))
    active.sync()
    found = [is_on_pages_of(fetch(active, name), small) for name in ("short", "least", "long")]
    assert found == [False, True, False]


def test_no_other_process_is_sent_to_those_pages(active: Warehouse) -> None:
    """It would have no pin."""
    assert place_of(fetch(active, "x0")) is None


def test_masked_arrays_and_matrices_have_all_of_their_parts(active: Warehouse) -> None:
    masked = np.ma.MaskedArray(values(1), values(2) > 0.5)
    send(active, "masked", masked)
    send(active, "matrix", np.asmatrix(values(3).reshape(100, -1)))
    active.sync()
    found, matrix = fetch(active, "masked"), fetch(active, "matrix")
    assert np.array_equal(found.mask, masked.mask) and np.array_equal(found.data, masked.data)
    assert type(matrix) is np.matrix and np.array_equal(matrix.A1, values(3))


def test_more_of_one_value_than_there_are_pins(active: Warehouse) -> None:
    kept = [fetch(active, "x0") for _ in range(3 * MOST)]
    for number, array in enumerate(kept):
        array[0] = number
    assert [array[0] for array in kept] == list(range(3 * MOST))
    assert all(np.array_equal(array[1:], values(0)[1:]) for array in kept)
    assert len(active._reader._windows._windows) <= MOST


def test_a_pin_goes_when_somebody_has_written_and_it_is_idle(
    active: Warehouse, opened: Callable[..., Warehouse]
) -> None:
    kept = fetch(active, "x0")
    index, seen = active._session.index, dict[int, int]()
    pinned = active._reader._windows
    for _ in range(2):
        index.drop_idle_views(seen)
    assert pinned.are_pinned  # nobody has written: it costs nothing
    send(active, "y", values(9))
    active.sync()
    for _ in range(2):
        index.drop_idle_views(seen)
    assert not pinned.are_pinned
    overwrite_all(active)
    assert np.array_equal(kept, values(0))
    for number in range(5):
        send(active, f"x{number}", values(number))
    send(active, "y", values(9))


def test_an_old_pin_is_left_for_a_new_one_when_somebody_has_written(active: Warehouse, monkeypatch: Any) -> None:
    monkeypatch.setattr(windows, "OLD", 0.0)
    kept = fetch(active, "x0")
    first = active._reader._windows._windows[0]
    assert np.array_equal(fetch(active, "x1"), values(1))
    assert active._reader._windows._windows == [first]
    send(active, "y", values(9))
    active.sync()
    assert np.array_equal(fetch(active, "y"), values(9))
    assert first not in active._reader._windows._windows
    assert np.array_equal(kept, values(0))


def test_without_memory_for_copies_the_pins_stay(active: Warehouse, monkeypatch: Any) -> None:
    kept = fetch(active, "x0")
    with monkeypatch.context() as patched:
        patched.setattr(windows, "madvise", lambda: lambda *_: -1)
        active.end_activity()
        overwrite_all(active)
        assert np.array_equal(kept, values(0))
        assert active._reader._windows.are_pinned
    active.begin_activity()
    active.end_activity()
    assert not active._reader._windows.are_pinned
    assert np.array_equal(kept, values(0))
    for number in range(5):
        send(active, f"x{number}", values(number))
    active.begin_activity()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("place", ["content", "page number"])
def test_damage_is_noticed(active: Warehouse, small: Path, place: str) -> None:
    ref = active.last_ref("x0")
    at = small.read_bytes().index(values(0).tobytes()[:64])
    if place == "content":
        flip(small, at + 50_000)
        with pytest.raises(PayloadMissing):
            active.open(ref)
        send(active, "x0", values(0))
    else:
        flip(small, at // 4096 * 4096)
        array = active.open(ref)  # LMDB does not look at it when it reads, so a copy is right
        assert np.array_equal(array, values(0)) and not is_on_pages_of(array, small)
        flip(small, at // 4096 * 4096)
    assert np.array_equal(fetch(active, "x1"), values(1))


def test_what_looks_otherwise_is_not_given_out(active: Warehouse, monkeypatch: Any) -> None:
    """LMDB's map lies elsewhere than we think; or pages of another kind."""
    fetch(active, "x0")
    mine: Windows = active._reader._windows
    mine._windows[0]._base += 4096
    assert np.array_equal(fetch(active, "x1"), values(1))
    assert len(mine._windows) >= 1
    monkeypatch.setattr(windows, "_OVERFLOW", 2)
    assert np.array_equal(fetch(active, "x2"), values(2))


def test_where_memory_is_limited_they_are_copied(directory: Path, small: Path) -> None:
    with Warehouse(directory) as warehouse:
        send(warehouse, "x", values(0))
    program = """
import resource, sys
import numpy as np
from pathlib import Path
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import fetch
from tests.warehouse.test_warehouse_windows import is_on_pages_of, values
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
with Warehouse(sys.argv[1]) as warehouse:
    warehouse.begin_activity()
    array = fetch(warehouse, "x")
    assert np.array_equal(array, values(0))
    assert not is_on_pages_of(array, Path(sys.argv[2]))
    warehouse.end_activity()
"""
    command = [sys.executable, "-c", program, str(directory), str(small)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_receiving_costs_no_private_memory(active: Warehouse) -> None:
    fetch(active, "x0")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [fetch(active, f"x{number}") for number in range(1, 5)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4 * 12  # 25 pages each if they were copied
    assert own_pages(kept[0]) == 0

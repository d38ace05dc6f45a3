"""Memory for many small arrays: cut from slabs only where they are kept, never shared, given back."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from pyplantx.specs import slabs
from pyplantx.specs.npy import open_array
from pyplantx.specs.slabs import LEAST, MANY, SLAB, Slabs
from pyplantx.warehouse.payloads import MemoryPayload

SIZE = 100_128


def received(given: Slabs, count: int, size: int = SIZE) -> list[Any]:
    """So many arrays, each with its number in all bytes."""
    arrays = []
    for number in range(count):
        array = np.frombuffer(given.copy(bytes([number % 256]) * size), np.uint8)
        given.note(array)
        arrays.append(array)
    return arrays


def kinds(arrays: list[Any]) -> list[type]:
    """Whose memory each of them lies in."""
    return [type(array.base.obj if isinstance(array.base, memoryview) else array.base) for array in arrays]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Slabs:
    """Slabs on a machine that has huge pages at hand."""
    monkeypatch.setattr(slabs, "TOO_LONG", 1e9)
    return Slabs()


def test_arrays_that_are_kept_come_from_slabs(patient: Slabs) -> None:
    arrays = received(patient, 100)
    assert kinds(arrays) == [bytearray] * MANY + [mmap.mmap] * (100 - MANY)
    assert all((array == number).all() for number, array in enumerate(arrays))
    for number, array in enumerate(arrays):
        array[:] = 255 - number  # theirs alone
    assert all((array == 255 - number).all() for number, array in enumerate(arrays))


def test_arrays_that_are_dropped_do_not(patient: Slabs) -> None:
    for number in range(100):
        (array,) = received(patient, 1)
        assert kinds([array]) == [bytearray], number


def test_one_that_was_dropped_is_enough(patient: Slabs) -> None:
    arrays = received(patient, MANY)
    del arrays[MANY // 2]
    assert kinds(received(patient, 1)) == [bytearray]


@pytest.mark.parametrize("size", [LEAST - 1, SLAB + 1])
def test_small_and_large_ones_have_memory_of_their_own(patient: Slabs, size: int) -> None:
    assert set(kinds(received(patient, 2 * MANY, size))) == {bytearray}


def test_what_is_cut_is_aligned_and_fills_a_slab(patient: Slabs) -> None:
    arrays = received(patient, MANY + 2 * (SLAB // SIZE), SIZE)[MANY:]
    addresses = [array.__array_interface__["data"][0] for array in arrays]
    assert all(address % 64 == 0 for address in addresses)
    assert len({id(array.base.obj) for array in arrays}) == 2


def test_a_slab_goes_with_its_last_array(patient: Slabs) -> None:
    fits = SLAB // SIZE
    arrays = received(patient, MANY + 3 * fits)
    made = [weakref.ref(arrays[MANY + number * fits].base.obj) for number in range(3)]
    keep = arrays[MANY + fits : MANY + fits + 1]  # one in the second slab; the third may be cut further
    del arrays
    assert [slab() is None for slab in made] == [True, False, False]
    assert keep[0][0] == (MANY + fits) % 256
    del keep
    assert made[1]() is None


def test_huge_pages_that_take_long_are_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(slabs, "TOO_LONG", -1.0)
    monkeypatch.setattr(slabs, "_map_slab", lambda real=slabs._map_slab: made.append(1) or real())
    now = [100.0]
    monkeypatch.setattr(slabs.time, "monotonic", lambda: now[0])
    given = Slabs()
    fits = SLAB // SIZE
    arrays = received(given, MANY + fits)
    assert set(kinds(arrays[MANY:])) == {mmap.mmap}
    arrays += received(given, MANY)
    assert set(kinds(arrays[-MANY:])) == {bytearray}
    assert len(made) == 1
    now[0] += slabs.PAUSE
    assert kinds(received(given, 1)) == [mmap.mmap]
    assert len(made) == 2


def test_a_system_without_room_gives_ordinary_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_map_slab", lambda: None)
    assert set(kinds(received(Slabs(), 3 * MANY))) == {bytearray}


def test_each_thread_has_its_own(patient: Slabs) -> None:
    arrays = received(patient, 2 * MANY)
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.extend(received(patient, 2 * MANY)))
    thread.start()
    thread.join()
    assert kinds(others) == kinds(arrays)
    assert {id(array.base.obj) for array in others[MANY:]}.isdisjoint(id(array.base.obj) for array in arrays[MANY:])


def test_a_forked_child_may_go_on(patient: Slabs) -> None:
    arrays = received(patient, 2 * MANY)
    child = os.fork()
    if not child:
        right = False
        try:
            mine = received(patient, 2)
            arrays[-1][:] = 77
            right = mine[0][0] == 0 and mine[1][0] == 1 and arrays[-2][0] == 2 * MANY - 2
        finally:
            os._exit(0 if right else 1)  # whatever was raised: no second run of the tests goes on here
    assert os.waitpid(child, 0)[1] == 0
    assert arrays[-1][0] == 2 * MANY - 1


def test_received_arrays_are_as_sent_and_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "TOO_LONG", 1e9)
    monkeypatch.setattr("pyplantx.specs.npy._slabs", Slabs())
    import io

    sent = [np.random.default_rng(number).random((100, 125)) for number in range(3 * MANY)]
    payloads = []
    for value in sent:
        file = io.BytesIO()
        np.save(file, value)
        payloads.append(MemoryPayload({"data.npy": file.getvalue()}))
    found = [open_array(payload, "data.npy", writable=True) for payload in payloads]
    for value, array in zip(sent, found):
        assert np.array_equal(value, array)
        assert array.flags.writeable
        assert array.flags.aligned
    found[-1][:] = 0
    assert all(np.array_equal(value, array) for value, array in zip(sent[:-1], found[:-1]))
    readonly = open_array(payloads[0], "data.npy", writable=False)
    assert not readonly.flags.writeable

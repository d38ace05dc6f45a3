"""Every route by which a program may hold on to what it has sent or received: store and others never see it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Ingredient, Plant, ReactorFunc, specs
from pyplantx.errors import PyplantxError

SMALL, LARGE = 10, 300_000  # elements: in the index, in a file


class Holder:
    """An object with buffers large enough to be parts of their own."""

    def __init__(self, size: int) -> None:
        self.array = np.arange(size, dtype="f8")
        self.bytes = bytearray(b"a" * (size * 8))
        self.nested = {"list": [1, [2]]}

    def __eq__(self, other: object) -> bool:
        alike = isinstance(other, Holder) and self.bytes == other.bytes and self.nested == other.nested
        return alike and bool((self.array == other.array).all())

    __hash__ = object.__hash__


def sparse(kind: str) -> Callable[[int], Any]:
    def make(size: int) -> Any:
        from scipy import sparse

        rows = np.arange(size)
        return sparse.coo_array((np.arange(1.0, size + 1), (rows, rows)), shape=(size, size)).asformat(kind)

    return make


MAKERS: dict[str, Callable[[int], Any]] = {
    "array": lambda size: np.arange(size, dtype="f8"),
    "view": lambda size: np.arange(3 * size, dtype="f8")[::3],
    "fortran": lambda size: np.asfortranarray(np.arange(2 * size, dtype="f8").reshape(2, size)),
    "structured": lambda size: np.zeros(size, [("a", "i4"), ("b", "f8")]),
    "masked": lambda size: np.ma.MaskedArray(np.arange(size, dtype="f8"), np.arange(size) % 2 == 0),
    "list": lambda size: [[1, 2], [3]],
    "object": Holder,
    "bytearray": lambda size: bytearray(b"a" * size * 8),
    "csr": sparse("csr"),
    "coo": sparse("coo"),
    "dia": sparse("dia"),
}


def buffers(value: Any) -> list[np.ndarray[Any, Any]]:
    """All memory that belongs to a value, as arrays of bytes that share it."""
    if isinstance(value, np.ma.MaskedArray):
        return [*buffers(value.data), *buffers(value.mask)]
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, bytearray):
        return [np.frombuffer(value, "u1")]
    if isinstance(value, Holder):
        return [value.array, np.frombuffer(value.bytes, "u1")]
    names = ("data", "indices", "indptr", "row", "col", "offsets")
    return [getattr(value, name) for name in names if isinstance(getattr(value, name, None), np.ndarray)]


def through_the_array(array: Any) -> None:
    array.flags.writeable = True
    array[...] = 0


def through_the_base(array: Any) -> None:
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    base.flags.writeable = True
    base[...] = 0


def through_the_buffer_below(array: Any) -> None:
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    view = memoryview(base).cast("B")
    view[:] = bytes(len(view))


def through_out(array: Any) -> None:
    array.flags.writeable = True
    np.copyto(array, np.zeros((), array.dtype), casting="unsafe")


def through_strides(array: Any) -> None:
    view = np.lib.stride_tricks.as_strided(array, array.shape, array.strides, writeable=True)
    view[...] = 0


def through_the_interface(array: Any) -> None:
    class Claims:
        __array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}

    np.asarray(Claims())[...] = 0


def through_a_view(array: Any) -> None:
    array.view("u1").flags.writeable = True
    array.view("u1")[...] = 0


def through_setattr(array: Any) -> None:
    array.setflags(write=True)
    array.sort()
    array[...] = 0


ROUTES = [
    through_the_array,
    through_the_base,
    through_the_buffer_below,
    through_out,
    through_strides,
    through_the_interface,
    through_a_view,
    through_setattr,
]


def attack(value: Any, route: Callable[[Any], None]) -> int:
    """Overwrite all that can be reached; how many routes led somewhere."""
    led = 0
    if isinstance(value, list):
        value[0].append(99)
        return 1
    if isinstance(value, Holder):
        value.nested["list"].append(99)
    for array in buffers(value):
        try:
            route(array)
            led += 1
        except (ValueError, TypeError, BufferError, AttributeError):
            continue  # refused: as good
    return led


def snapshot(value: Any) -> Any:
    if isinstance(value, Holder):
        return [value.array.tobytes(), bytes(value.bytes), repr(value.nested)]
    if isinstance(value, list):
        return repr(value)
    return [array.tobytes() for array in buffers(value)]


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.glob("plant/objects/*/*/*")}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("what", MAKERS)
def test_nothing_done_to_a_value_reaches_the_store(tmp_path: Path, what: str, size: int) -> None:
    right = snapshot(MAKERS[what](size))
    with Plant(tmp_path / "plant", durability="process") as plant:
        warehouse = plant.warehouse
        for route in ROUTES:
            sent = MAKERS[what](size)
            ref = warehouse.store("x", sent)
            attack(sent, route)
            for _ in range(2):
                received = warehouse.open(ref)
                assert snapshot(received) == right, route.__name__
                attack(received, route)
            assert snapshot(warehouse.open(ref)) == right, route.__name__
    files = stored(tmp_path)
    assert len(files) > 0 or size == SMALL or what in ("list", "dia")
    with Plant(tmp_path / "plant") as plant:
        assert [problem for problem in plant.warehouse.check() if not problem.harmless] == []


def test_the_attacks_work_on_what_is_not_guarded() -> None:
    """The positive control: each route does overwrite a plain array."""
    for route in ROUTES:
        array = np.arange(LARGE, dtype="f8")
        assert attack(array, route) == 1 and not array.any(), route.__name__


def test_what_a_reactor_does_after_send_is_not_seen_by_who_waits(tmp_path: Path) -> None:
    @ReactorFunc
    def makes(pipe: Any) -> Any:
        value = np.arange(LARGE, dtype="f8")
        pipe.send("x", value)
        value[:] = -1
        yield pipe.receive("seen first")
        value[:] = -2

    @ReactorFunc
    def first(pipe: Any) -> Any:
        x = yield pipe.receive("x")
        x *= 0
        pipe.send("seen first", float(x.sum()))

    @ReactorFunc
    def second(pipe: Any) -> Any:
        yield pipe.receive("seen first")
        x = yield pipe.receive("x")
        pipe.send("seen second", float(x.sum()))

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(makes, first, second)
        plant.run_reactor(makes)
        assert plant.produce("seen first", "seen second") == (0.0, float(sum(range(LARGE))))


@pytest.mark.parametrize("kind", ["array", "hdf", "hdf chunked"])  # a file that is open can't be sent
def test_what_was_allocated_is_out_of_reach_once_it_is_sent(tmp_path: Path, kind: str) -> None:
    kept: list[Any] = []

    @ReactorFunc
    def makes(pipe: Any) -> None:
        if kind == "array":
            out = pipe.allocate("x", specs.ArraySpec, shape=(LARGE,), dtype="f8")
            out[:] = 7
            kept.extend([out[:], memoryview(out), np.lib.stride_tricks.as_strided(out, out.shape, out.strides)])
        else:
            chunks = {"chunks": (1000,)} if kind == "hdf chunked" else {}
            out = pipe.allocate("x", specs.HdfArraySpec, shape=(LARGE,), dtype="f8", **chunks)
            out[:] = 7
            kept.append(out)
        pipe.send("x", out)

    def alter(thing: Any) -> None:
        try:
            thing[: 10 if not isinstance(thing, memoryview) else 1] = (
                np.float64(0) if kind != "array" else thing[:1] * 0
            )
        except (PyplantxError, ValueError, TypeError, OSError):
            return  # refused

    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(makes)
        plant.run_reactor(makes)
        for thing in kept:
            alter(thing)
        assert float(np.asarray(plant.produce("x")[...]).sum()) == 7.0 * LARGE
    with Plant(tmp_path / "plant", durability="process") as plant:
        plant.add_reactors(makes)
        assert float(np.asarray(plant.produce("x")[...]).sum()) == 7.0 * LARGE


def test_a_received_dataset_refuses_writes_by_every_door(tmp_path: Path) -> None:
    with Plant(tmp_path / "plant", durability="process") as plant:
        for options in ({}, {"chunks": (1000,)}):
            allocated = plant.warehouse.allocate("x", specs.HdfArraySpec, shape=(LARGE,), dtype="f8", **options)
            allocated.handle[:] = 7
            received = plant.warehouse.open(allocated.seal())
            for act in (
                lambda d: d.__setitem__(slice(0, 5), 0),
                lambda d: d.resize((3,)),
                lambda d: d.write_direct(np.zeros(5)),
                lambda d: d.file.attrs.__setitem__("x", 1),
                lambda d: d.id.write(None, None, np.zeros(LARGE)),
            ):
                with pytest.raises((PyplantxError, AttributeError, TypeError, ValueError, OSError)):
                    act(received)
            mine = received[:]
            mine[:] = 0
            assert float(received[:].sum()) == 7.0 * LARGE


def test_a_received_file_is_read_only(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("right")
    with Plant(tmp_path / "plant", durability="process") as plant:
        path = plant.warehouse.open(plant.warehouse.store("x", str(source), Ingredient.Type.file))
        assert os.stat(path).st_mode & 0o222 == 0
        source.write_text("changed afterwards")
        assert Path(path).read_text() == "right"


def test_a_raw_pointer_writes_to_private_memory(tmp_path: Path) -> None:
    """Not even `ctypes` gets from a received array into the file."""
    with Plant(tmp_path / "plant", durability="process") as plant:
        ref = plant.warehouse.store("x", np.arange(LARGE, dtype="f8"))
        received = plant.warehouse.open(ref)
        ctypes.memset(received.ctypes.data, 0, received.nbytes)
        assert not received.any()
        assert plant.warehouse.open(ref).sum() == sum(range(LARGE))

"""Objects: what comes back, what is refused and where it lies, which Python can read it."""

from __future__ import annotations

import collections
import functools
import io
import mmap
import queue
import socket
import sys
import threading
import types

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, SubreactorFunc, specs, subreactor
from pyplantx.errors import CannotFingerprint, CannotStore, DamagedObject, PayloadMissing
from pyplantx.pipework import Request
from pyplantx.spec_tests import FolderPayload, FolderStage, same, stored
from pyplantx.specs.services import Services


class Model:
    def __init__(self, **state):
        self.__dict__.update(state)


class Slotted:
    __slots__ = ("lock", "__weakref__")

    def __init__(self, lock):
        self.lock = lock


class Raising:
    def __reduce__(self):
        raise RuntimeError("no pickling on Sundays")


class Dropping:
    def __init__(self):
        self.lock = threading.Lock()

    def __getstate__(self):
        return {}


def closure_over(item):
    return lambda: item


def deep_list(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


REFUSED = [
    ({"model": Model(lock=threading.Lock())}, "value['model'].lock: a lock"),
    ([1, threading.RLock()], "value[1]: a lock"),
    ({"q": queue.Queue()}, "value['q'].mutex: a lock"),
    (Model(event=threading.Event()), "value.event._cond._lock: a lock"),
    ((Slotted(threading.Lock()),), "value[0].lock: a lock"),
    ((n for n in "ab"), "value: a generator"),
    (Model(steps=[(n for n in "ab")]), "value.steps[0]: a generator"),
    ({"local": threading.local()}, "value['local']: thread-local data"),
    ([threading.Thread(target=print)], "value[0]: a thread"),
    ({"np": np}, "value['np']: a module"),
    (closure_over({"lock": threading.Lock()}), "closure variable item['lock']: a lock"),
    (functools.partial(print, threading.Lock()), "value.args[0]: a lock"),
    ([mmap.mmap(-1, 1)], "value[0]: a memory map"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_never_stored_is_named_with_its_path(value, message, tmp_path):
    stage = FolderStage(str(tmp_path))
    with pytest.raises(CannotStore) as caught:
        specs.ObjectSpec().write(value, stage)
    assert message in str(caught.value) and "can't be stored" in str(caught.value) and caught.value.hint
    assert stage.written == [] and list(tmp_path.iterdir()) == []


def test_open_files_sockets_and_coroutines_are_refused(tmp_path):
    async def wait():
        pass

    waiting = wait()
    with open(__file__) as text, open(__file__, "rb") as binary, socket.socket() as plug:
        for item, name in (
            (text, "an open file"),
            (binary, "an open file"),
            (plug, "a socket"),
            (waiting, "a coroutine"),
        ):
            with pytest.raises(CannotStore, match=rf"value\['it'\]: {name}"):
                specs.ObjectSpec().write({"it": item}, FolderStage(str(tmp_path)))
    waiting.close()
    with stored(specs.ObjectSpec(), io.StringIO("kept")) as entry:
        assert entry.open().getvalue() == "kept"


def test_trouble_without_a_name_is_found_too(tmp_path):
    with pytest.raises(CannotStore) as caught:
        specs.ObjectSpec().write({"a": [1, Model(deep=(Raising(),))]}, FolderStage(str(tmp_path)))
    assert "value['a'][1].deep[0]" in str(caught.value) and "no pickling on Sundays" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.filterwarnings("ignore:Cannot locate")
def test_a_class_inside_a_function_is_told_where_it_should_stand(tmp_path):
    class Inner:
        pass

    for value in (Inner(), [Inner]):
        with pytest.raises(CannotStore) as caught:
            specs.ObjectSpec().write(value, FolderStage(str(tmp_path)))
        assert "move class Inner out of its function" in caught.value.hint


@pytest.mark.filterwarnings("ignore:Cannot locate")
def test_a_class_that_its_module_does_not_have_is_told_why(tmp_path):
    names = {"__name__": "module_that_is_not_there"}
    exec("class Lost:\n    pass\nclass View:\n    __class__ = property(lambda self: Lost)", names)
    for made in ("Lost", "View"):
        with pytest.raises(CannotStore, match=r"value\['a'\]: a module_that_is_not_there\.Lost can't") as caught:
            specs.ObjectSpec().write({"a": names[made]()}, FolderStage(str(tmp_path)))
        assert "there is no Lost in the module module_that_is_not_there" in caught.value.hint


def test_deep_nesting_is_a_clear_error(tmp_path):
    with pytest.raises(CannotStore, match="nested too deeply"):
        specs.ObjectSpec().write(deep_list(100_000), FolderStage(str(tmp_path)))


def test_state_that_is_dropped_is_no_trouble():
    with stored(specs.ObjectSpec(), [Dropping()]) as entry:
        assert vars(entry.open()[0]) == {}


def test_large_arrays_are_parts_and_mapped_without_a_copy():
    value = {"weights": np.arange(100_000.0), "small": np.arange(3)}
    with stored(specs.ObjectSpec(), value) as entry:
        assert entry.payload.parts() == ("value.pickle", "buffer-0.bin")
        assert entry.meta["buffers"] == 1
        received = entry.open()
        assert isinstance(memory_of(received["weights"]), mmap.mmap)
        received["weights"][:] = 0
        assert entry.open()["weights"].sum() == value["weights"].sum()


def memory_of(array):
    base = array
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base.obj if hasattr(base, "obj") else base


def test_arrays_can_be_received_read_only():
    spec = specs.ObjectSpec().serve(Services(writable=False))
    for inline in (False, True):
        with stored(spec, [np.arange(100_000.0)], inline=inline) as entry:
            (received,) = entry.open()
            with pytest.raises(ValueError, match="read-only"):
                received[0] = 1
            with pytest.raises(ValueError, match="WRITEABLE"):
                received.flags.writeable = True


def test_project_classes_are_noted():
    spec = specs.ObjectSpec().serve(Services(is_project_class=lambda kind: kind.__module__ == __name__))
    with stored(spec, {"m": [Model(inner=Dropping(), kind=Slotted)]}) as entry:
        assert entry.meta["classes"] == [f"{__name__}:{name}" for name in ("Dropping", "Model", "Slotted")]
    with stored(spec, {"m": 1}) as entry:
        assert "classes" not in entry.meta


def scale(x):
    return x * 2


@functools.lru_cache
def kept(x):
    return x


def test_project_functions_that_are_stored_by_name_are_noted():
    spec = specs.ObjectSpec().serve(Services(is_project_class=lambda thing: thing.__module__ == __name__))
    for held in (
        scale,
        functools.partial(scale, 1),
        np.vectorize(scale),
        collections.defaultdict(scale),
        functools.partial(scale, lambda: 0),  # dill
    ):
        with stored(spec, {"it": held}) as entry:
            assert entry.meta["classes"] == [f"{__name__}:scale"]
    with stored(spec, {"it": kept}) as entry:
        assert entry.meta["classes"] == [f"{__name__}:kept"]
    with stored(spec, {"it": [len, np.sum, lambda: 1]}) as entry:
        assert "classes" not in entry.meta


@pytest.mark.parametrize(
    ("spec", "library", "what"),
    [(specs.HdfArraySpec(), "h5py", "an HDF dataset"), (specs.ZarrArraySpec(), "zarr", "a Zarr array")],
)
def test_objects_do_not_hold_received_datasets(spec, library, what, tmp_path):
    """What would be stored is where the dataset lies, and it is gone with its version or when the plant is moved."""
    pytest.importorskip(library)
    with stored(spec, np.zeros((4, 4))) as entry:
        received = entry.open()
        with pytest.raises(CannotStore, match=rf"value\['data'\]: {what} of the plant can't.*\n.*a name of its own"):
            specs.ObjectSpec().write({"data": received}, FolderStage(str(tmp_path)))
        with pytest.raises(CannotStore, match="can't be stored"):
            specs.ObjectSpec().write([getattr(received, "inner", received)], FolderStage(str(tmp_path / "other")))


def test_the_plants_own_objects_are_refused_with_advice(tmp_path):
    class Call(subreactor.SubreactorCall):
        def __init__(self):
            pass

    with Plant(str(tmp_path / "plant")) as plant:
        for item, what, advice in (
            (Call(), "the call of a subreactor that has not run", "yield from"),
            (Request(("a",), "", set()), "a request that was never answered", "yield pipe.receive"),
            (plant, "a plant", "what it has produced"),
            (plant.warehouse, "the store of a plant", "what it holds"),
        ):
            with pytest.raises(CannotStore) as caught:
                specs.ObjectSpec().write({"it": item}, FolderStage(str(tmp_path)))
            assert f"value['it']: {what} can't be stored" in str(caught.value) and advice in caught.value.hint


def test_the_masked_constant_is_itself():
    with stored(specs.ObjectSpec(), {"it": np.ma.masked}) as entry:
        assert entry.open()["it"] is np.ma.masked


def test_what_a_reactor_forgot_to_wait_for_is_named(tmp_path):
    @SubreactorFunc
    def sub(pipe):
        return 1

    @ReactorFunc
    def forgetful(pipe):
        pipe.send("s", sub(pipe))

    @ReactorFunc
    def strange(pipe):
        pipe.send("p", [pipe])

    with Plant(str(tmp_path / "plant")) as plant:
        with pytest.raises(Exception, match="write `yield from`"):
            plant.run_reactor(forgetful)
        with pytest.raises(Exception, match=r"value\[0\]: the pipe of a reactor can't be stored"):
            plant.run_reactor(strange)


def test_what_has_no_digest_gets_one_of_its_own():
    def encode(value):
        raise error

    value = Model(a=1)
    spec = specs.ObjectSpec().serve(Services(encode=encode))
    for error in (CannotFingerprint("value.a: a riddle"), RecursionError()):
        with stored(spec, value) as first, stored(spec, value) as second:
            assert first.written.digest != second.written.digest
            assert first.meta["unencodable"] == (str(error) or "nested too deeply")


def test_code_goes_through_dill_and_stays_with_its_python():
    with stored(specs.ObjectSpec(), {"f": lambda x: x + 1}) as entry:
        assert entry.meta["dill"] and entry.meta["python"] == list(sys.version_info[:2])
        assert entry.open()["f"](1) == 2
        other = {**entry.meta, "python": [sys.version_info[0], sys.version_info[1] + 1]}
        with pytest.raises(PayloadMissing, match="holds bytecode of Python"):
            entry.spec.open(entry.payload, other, 1)


def test_only_payloads_that_hold_code_are_tied_to_a_python():
    with stored(specs.ObjectSpec(), types.MappingProxyType({"a": 1})) as entry:
        assert "dill" in entry.meta and "python" not in entry.meta
        assert entry.open() == {"a": 1}
    with stored(specs.ObjectSpec(), {"f": len, "g": Model}) as entry:
        assert "dill" not in entry.meta and "python" not in entry.meta


def test_a_class_that_is_gone_makes_the_value_missing(monkeypatch):
    with stored(specs.ObjectSpec(), Model(a=1)) as entry:
        monkeypatch.delitem(globals(), "Model")
        with pytest.raises(PayloadMissing, match="can't be made again here: AttributeError"):
            entry.open()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x05\x95\xff"])
def test_no_pickle_is_damage(data):
    with pytest.raises(DamagedObject, match="not a whole pickle"):
        specs.ObjectSpec().open(FolderPayload("", ["value.pickle"], {"value.pickle": data}), {}, 1)


def test_missing_buffers_are_damage():
    with stored(specs.ObjectSpec(), np.array([{}] * 3)) as entry, pytest.raises(DamagedObject, match="don't match"):
        entry.spec.open(entry.payload, {"buffers": 2}, 1)


def test_previews_run_nothing():
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('the preview has unpickled')",)

    with stored(specs.ObjectSpec(), [Bomb()]) as entry:
        assert entry.preview().startswith("object list")


class Rows(np.ndarray):
    """A subclass without a state of its own."""


NUMBERS = np.arange(-3.0, 9.0)
OTHER_ORDER = {
    "numbers": NUMBERS.astype(">f8"),
    "large": np.arange(20_000, dtype=">i4"),
    "every other one": NUMBERS.astype(">f4")[::2],
    "Fortran order": np.asfortranarray(NUMBERS.reshape(3, 4).astype(">i2")),
    "no axis": np.array(2.5, ">f8"),
    "empty": np.zeros((0, 3), ">u4"),
    "NaN with bits": np.array([0x7FF8_0000_0000_1234], ">u8").view(">f8"),
    "complex": NUMBERS.astype(">c16"),
    "extended": NUMBERS.astype(">g"),
    "dates": np.array(["2020-02-29", "NaT"], ">M8[25s]"),
    "spans": np.array([1, -1], ">m8[us]"),
    "text": np.array(["ab", "c", "\U0001f33b"], ">U3")[::2],
    "fields": np.zeros(3, [("a", ">i4"), ("b", "<f8"), ("c", ">M8[D]")])[::2],
    "subclass": NUMBERS.astype(">f8").view(Rows),
    "masked": np.ma.masked_array(NUMBERS.astype(">f8"), NUMBERS > 3, fill_value=7.0, hard_mask=True),
    "not masked": np.ma.masked_array(NUMBERS.astype(">f8")),
}


@pytest.mark.parametrize("case", OTHER_ORDER)
def test_arrays_in_the_byte_order_of_other_machines_come_back_bit_by_bit(case):
    array = OTHER_ORDER[case]
    with stored(specs.ObjectSpec(), {"x": array, "again": array}) as kept:
        opened = kept.open()
    assert opened["again"] is opened["x"]
    assert same(opened["x"], array)


def test_masks_come_back_with_them():
    for case in ("masked", "not masked"):
        array = OTHER_ORDER[case]
        with stored(specs.ObjectSpec(), [array]) as kept:
            found = kept.open()[0]
        assert (found.mask == array.mask).all() and (found.mask is np.ma.nomask) == (array.mask is np.ma.nomask)
        assert found.fill_value == array.fill_value and found.hardmask == array.hardmask


def test_a_value_in_another_byte_order_is_another_value():
    digests = []
    for dtype in ("<i4", ">i4", "<i4"):
        with stored(specs.ObjectSpec(), {"x": np.arange(3, dtype=dtype)}) as kept:
            digests.append(kept.written.digest)
    assert digests[0] == digests[2] != digests[1]

"""HDF5 files whose writes fail: HDF5 never learns of it, since what it does then can end the process."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import signal
import subprocess
import sys
import weakref

import numpy as np
import pytest

from pyplantx import specs
from pyplantx.basics.interrupts import uninterrupted
from pyplantx.errors import DamagedObject, PyplantxError, WarehouseError, WarehouseFull
from pyplantx.spec_tests import FolderPayload, FolderStage, stored

SPEC = specs.HdfArraySpec()
ARRAY = np.arange(6000.0).reshape(60, 100)
LAYOUTS = {
    "one piece": {},
    "chunked": {"chunks": (20, 100)},
    "packed here": {"chunks": (10, 100), "compression": "gzip"},
    "packed by HDF5": {"chunks": (10, 100), "compression": "lzf"},
    "growing": {"chunks": (20, 50), "maxshape": (None, 100)},
}


class FailingDisk:
    """Makes the n-th call that changes a file fail, and perhaps all after it."""

    def __init__(self, monkeypatch, n, number, for_ever):
        self._n, self._number, self._for_ever = n, number, for_ever
        self.calls = 0
        for name in ("pwrite", "ftruncate"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def _watched(self, call):
        def watched(*arguments):
            self.calls += 1
            if self.calls == self._n or (self._for_ever and self.calls > self._n):
                raise OSError(self._number, os.strerror(self._number))
            return call(*arguments)

        return watched

    @property
    def met(self):
        return self.calls >= self._n


def made(folder, layout):
    """An array written in all the ways that HDF5 is asked for, and sealed."""
    allocation = SPEC.allocate(FolderStage(str(folder)), shape=ARRAY.shape, dtype=ARRAY.dtype, **LAYOUTS[layout])
    try:
        allocation.handle[:30] = ARRAY[:30]
        allocation.handle[[30, 40, 50]] = ARRAY[[30, 40, 50]]
        assert allocation.handle[29, 3] == ARRAY[29, 3]
        allocation.handle[30:] = ARRAY[30:]
        return allocation.seal()
    except BaseException:
        allocation.discard()
        raise


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_write_that_fails_is_an_error_of_ours_and_nothing_worse(tmp_path, monkeypatch, layout, for_ever):
    met = n = 0
    while n == met:
        n += 1
        (tmp_path / str(n)).mkdir()
        with monkeypatch.context() as patch:
            disk = FailingDisk(patch, n, errno.EIO, for_ever)
            try:
                made(tmp_path / str(n), layout)
            except WarehouseError as error:
                assert "Input/output error" in str(error)
                met += 1
            else:
                assert not disk.met
        gc.collect()  # the handles of HDF5 are let go of
    assert met > 3


def test_a_full_disk_is_told_with_figures(tmp_path, monkeypatch):
    FailingDisk(monkeypatch, 3, errno.ENOSPC, True)
    with pytest.raises(WarehouseFull, match="bytes are free"):
        made(tmp_path, "chunked")


def test_after_a_failed_write_every_use_tells_of_it(tmp_path, monkeypatch):
    allocation = SPEC.allocate(FolderStage(str(tmp_path)), shape=(60, 100), dtype="f8", chunks=(10, 100))
    allocation.handle[:20] = 1
    with monkeypatch.context() as patch:
        FailingDisk(patch, 1, errno.EIO, True)
        with pytest.raises(WarehouseError, match="Input/output error"):
            allocation.seal()
    for use in (lambda: allocation.handle[0], allocation.seal):
        with pytest.raises(PyplantxError):
            use()
    allocation.discard()


ENDS = """
import os, sys
from pyplantx import specs
from pyplantx.spec_tests import FolderStage
allocation = specs.HdfArraySpec().allocate(FolderStage(sys.argv[1]), shape=(60, 100), chunks=(10, 100))
allocation.handle[:20] = 1
def refuse(*arguments):
    raise OSError(5, "Input/output error")
os.pwrite = refuse
"""


def test_the_interpreter_ends_in_peace_with_what_could_not_be_written(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run([sys.executable, "-c", ENDS, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "one piece"])
def test_a_file_is_none_of_hdf5_before_it_is_sealed(tmp_path, layout):
    allocation = SPEC.allocate(FolderStage(str(tmp_path)), shape=ARRAY.shape, dtype="f8", **LAYOUTS[layout])
    allocation.handle[...] = ARRAY
    allocation.handle.backend.dataset.file.flush()
    with pytest.raises(DamagedObject, match="not an HDF5 file"):
        SPEC.open(FolderPayload(str(tmp_path), ["data.h5"]), {"shape": [60, 100], "dtype": "<f8"}, 1)
    allocation.discard()
    with stored(SPEC, ARRAY) as entry:
        assert np.array_equal(entry.open()[...], ARRAY)


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


class TimeIsUp(Exception):
    """What the handler of an alarm raises, as those of time limits do."""


@pytest.fixture
def alarm():
    """A handler of SIGALRM that raises."""

    def stop(*_):
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    yield stop
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_of_two_signals_that_wait_both_are_handled(alarm):
    came = []

    def count(*_):
        came.append("Ctrl-C")

    before = signal.signal(signal.SIGINT, count)
    try:
        with pytest.raises(TimeIsUp), uninterrupted():
            signal.raise_signal(signal.SIGALRM)
            signal.raise_signal(signal.SIGINT)
    finally:
        found = signal.signal(signal.SIGINT, before)
    assert came == ["Ctrl-C"]
    assert (found, signal.getsignal(signal.SIGALRM)) == (count, alarm)


def signals_given_back(monkeypatch, then):
    """Have `then` called whenever a signal's own handler has been given back, after a block has begun."""
    real, own = signal.signal, {signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)}

    def give(number, handler):
        former = real(number, handler)
        if handler in own:
            then(number)
        return former

    monkeypatch.setattr(signal, "signal", give)


@pytest.mark.parametrize("first", ["SIGALRM", "SIGINT"])
def test_a_handler_that_raises_before_the_others_are_given_back_kills_none(alarm, monkeypatch, first):
    def come(number):
        if number == getattr(signal, first) and not came:
            came.append(first)
            signal.raise_signal(number)

    came = []
    with monkeypatch.context() as patch, pytest.raises((TimeIsUp, KeyboardInterrupt)):
        signals_given_back(patch, come)
        with uninterrupted():
            pass
    assert came == [first]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGALRM) is alarm


def test_a_handler_that_could_not_be_given_back_is_handed_its_signals(alarm, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(TimeIsUp):
        signals_given_back(patch, lambda number: signal.raise_signal(signal.SIGALRM))  # each time
        with uninterrupted():
            pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_alarms_at_any_moment_leave_the_handlers_in_place(alarm):
    chance = random.Random(5)
    for _ in range(2000):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-6, 4e-5))
            for _ in range(10):
                with uninterrupted():
                    pass
        except TimeIsUp:
            pass
        with contextlib.suppress(TimeIsUp):
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGALRM) is alarm


LITTLE_MEMORY = """
import os, resource, sys
import h5py, numpy
from pyplantx import specs
from pyplantx.spec_tests import FolderStage


def counted():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))

def live(folder, room):
    os.mkdir(folder)
    resource.setrlimit(resource.RLIMIT_DATA, (counted() + room, resource.RLIM_INFINITY))
    try:
        allocation = specs.HdfArraySpec().allocate(FolderStage(folder), shape=(60, 100), chunks=(20, 100))
        allocation.handle[...] = 1
        allocation.seal()
    except MemoryError:
        return 1
    return 0

ended = []
for number in range(32):
    pid = os.fork()
    if not pid:
        os._exit(live(f"{sys.argv[1]}/{number}", number << 19))
    ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(*ended)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_without_memory_hdf5_is_not_asked(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ended = list(map(int, ran.stdout.split()))
    assert ended == sorted(ended, reverse=True), "too little memory, then enough; never the end of the process"
    assert set(ended) == {0, 1}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_failed_reactor_held_is_let_go_of_without_the_collector(tmp_path, monkeypatch, layout):
    class Held:
        """Stands for a large array."""

    def attempt():
        held = Held()
        seen.append(weakref.ref(held))
        made(tmp_path, layout)

    def refuse(*_):
        raise MemoryError

    seen = []
    monkeypatch.setattr(os, "pwrite", refuse)
    gc.disable()
    try:
        with contextlib.suppress(MemoryError):
            attempt()
        assert seen[0]() is None
    finally:
        gc.enable()

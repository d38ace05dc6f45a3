"""``@ReactorFunc(timeout=)``: what hangs is ended, and all else is as it was. Everything here hangs in earnest."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, SubreactorFunc, specs
from pyplantx.basics.interrupts import uninterrupted
from pyplantx.errors import BadRequest, ReactorTimeout
from pyplantx.runs import deadlines

SOON = 0.15  #: seconds that reactors get here
LONG = 20.0  #: what never passes in a test that does what it should

HERE = os.path.basename(__file__)


def sleeps() -> None:
    time.sleep(LONG)


def loops() -> None:
    while True:
        pass


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def keeps_the_interpreter() -> None:
    """No other thread gets a turn meanwhile."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def catches_exceptions() -> None:
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


HANGS = [sleeps, loops, waits_for_a_lock, keeps_the_interpreter, catches_exceptions]


def new_plant(folder: Path, *reactors: Any, **options: Any) -> Plant:
    plant = Plant(folder / "plant", durability="process", **options)
    plant.add_reactors(*reactors)
    return plant


def ended(plant: Plant, name: str) -> str:
    """What the error says when an ingredient is asked for whose reactor hangs."""
    begun = time.monotonic()
    with pytest.raises(ReactorTimeout) as caught:
        plant.produce(name)
    assert time.monotonic() - begun < LONG / 2
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    return str(caught.value)


# -- it ends, in each kind of reactor ----------------------------------------------------------------


@pytest.mark.parametrize("hang", HANGS)
def test_what_hangs_is_ended(tmp_path: Path, hang: Callable[[], None]) -> None:
    @ReactorFunc(name="plain", timeout=SOON)
    def plain(pipe: Any) -> None:
        hang()
        pipe.send("x", 1)

    with new_plant(tmp_path, plain) as plant:
        assert HERE in ended(plant, "x")


def part_that_hangs(pipe: Any) -> Any:
    got = yield pipe.receive("a")
    sleeps()
    return got


hanging_part = SubreactorFunc(part_that_hangs)


def generator(pipe: Any) -> Any:
    a = yield pipe.receive("a")
    sleeps()
    pipe.send("x", a)


async def coroutine(pipe: Any) -> None:
    a = await pipe.receive("a")
    sleeps()
    pipe.send("x", a)


def with_a_part(pipe: Any) -> Any:
    a = yield from hanging_part(pipe)
    pipe.send("x", a)


@pytest.mark.parametrize("function", [generator, coroutine, with_a_part])
def test_in_each_kind_of_reactor(tmp_path: Path, function: Callable[..., Any]) -> None:
    @ReactorFunc(name="first")
    def first(pipe: Any) -> None:
        pipe.send("a", 1)

    with new_plant(tmp_path, first, ReactorFunc(name="late", timeout=SOON)(function)) as plant:
        told = ended(plant, "x")
    line = sleeps.__code__.co_firstlineno + 1
    assert "late" in told and "150 ms" in told and f"{HERE}:{line}" in told and "'a'" in told
    assert "timeout=" in told


def ended_in_a_thread(tmp_path: Path, late: Any) -> str:
    """As `ended`, of a plant that another thread uses."""
    told = []

    def work() -> None:
        with new_plant(tmp_path, late) as plant:
            told.append(ended(plant, "x"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return told[0]


def test_in_another_thread(tmp_path: Path) -> None:
    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> None:
        loops()
        pipe.send("x", 1)

    assert HERE in ended_in_a_thread(tmp_path, late)
    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    keeps_going = len(str(Path()))  # Python 3.11 hangs here after an exception that was taken back
    sys.settrace(before)
    assert keeps_going


def holds_off(told: list[str], is_due: Callable[[], object]) -> None:
    """Is in an uninterrupted block, and one within that, until it should have been ended, and then hangs."""
    with uninterrupted():
        with uninterrupted():
            told.append("begun")
        while not is_due():
            time.sleep(0.001)
        told.append("whole")
    loops()


def test_in_another_thread_it_waits_for_an_uninterrupted_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    struck = struck_by(monkeypatch)

    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> None:
        holds_off(told, struck.is_set)
        pipe.send("x", 1)

    assert "reactor late" in ended_in_a_thread(tmp_path, late)
    assert told == ["begun", "whole"]


def test_the_calls_of_a_loop_do_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    struck, begun = struck_by(monkeypatch), threading.Event()
    calls = deadlines.Calls()

    def function() -> None:
        holds_off(told, lambda: begun.set() or struck.is_set())  # type: ignore[func-returns-value]

    def work() -> None:
        try:
            calls.call(function)
        except deadlines.TimeIsUp:
            told.append("ended")

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    calls.end()
    thread.join(LONG)
    assert told == ["begun", "whole", "ended"]


def struck_by(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once somebody was to be interrupted."""
    struck, interrupt = threading.Event(), deadlines.interrupt

    def noted(thread: int, strike: Callable[[], object]) -> None:
        interrupt(thread, strike)
        struck.set()

    monkeypatch.setattr(deadlines, "interrupt", noted)
    return struck


def test_where_the_system_has_no_timers_for_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "_kernel_timer", lambda: None)

    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> None:
        sleeps()
        pipe.send("x", 1)

    with new_plant(tmp_path, late) as plant:
        ended(plant, "x")


@pytest.mark.parametrize("hang", [lambda over: over.wait(LONG), lambda over: loops()])
def test_with_threads_that_hang(tmp_path: Path, hang: Callable[[threading.Event], None]) -> None:
    over = threading.Event()
    try:
        ends_with_workers(tmp_path, "threads", lambda part: hang(over), SOON)
    finally:
        over.set()


def test_with_processes_that_hang(tmp_path: Path) -> None:
    ends_with_workers(tmp_path, "processes", lambda part: keeps_the_interpreter(), 1.0)


def ends_with_workers(tmp_path: Path, executor: str, function: Callable[[Any], Any], timeout: float) -> None:
    @ReactorFunc(name="late", timeout=timeout)
    def late(pipe: Any) -> None:
        source = np.arange(4000.0)
        out = pipe.allocate("x", specs.HdfArraySpec, shape=source.shape, dtype=source.dtype)
        pipe.map_blocks(function, source, out=out, memory="16kB", workers=2)
        pipe.send("x", out)

    with new_plant(tmp_path, late, executor=executor) as plant:
        ended(plant, "x")
        assert plant._workers is not None
        assert not getattr(plant._workers, "_busy", ())


# -- what counts -------------------------------------------------------------------------------------


def test_all_of_its_own_time_counts_and_none_of_others(tmp_path: Path) -> None:
    @ReactorFunc(name="slow")
    def slow(pipe: Any) -> None:
        time.sleep(2 * SOON)
        pipe.send("a", 1)

    @ReactorFunc(name="patient", timeout=SOON)
    def patient(pipe: Any) -> Any:
        a = yield pipe.receive("a")
        pipe.send("waited", a)

    @ReactorFunc(name="piecewise", timeout=SOON)
    def piecewise(pipe: Any) -> Any:
        time.sleep(SOON / 2)
        a = yield pipe.receive("a")
        time.sleep(LONG)
        pipe.send("x", a)

    with new_plant(tmp_path, slow, patient, piecewise) as plant:
        assert plant.produce("waited") == 1
        begun = time.monotonic()
        ended(plant, "x")
        assert time.monotonic() - begun < 2 * SOON + 0.5


def test_it_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    ran = []

    def given(timeout: Any) -> tuple[Any, Any]:
        @ReactorFunc(name="sender", timeout=timeout)
        def sender(pipe: Any) -> None:
            ran.append("sender")
            pipe.send("a", 1)

        @ReactorFunc(name="refers")
        def refers(pipe: Any) -> Any:
            ran.append("refers")
            a = yield pipe.receive("a")
            pipe.send("b", (a, sender.name))

        return sender, refers

    for timeout in (None, 5, "1 min", float("inf")):
        with new_plant(tmp_path, *given(timeout)) as plant:
            assert plant.produce("b") == (1, "sender")
    assert ran == ["refers", "sender"]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), True, "soon", [1]])
def test_what_is_no_time(timeout: Any) -> None:
    with pytest.raises(BadRequest, match="timeout="):
        ReactorFunc(timeout=timeout)(sleeps)


# -- what is left of it ------------------------------------------------------------------------------


def test_what_it_sent_is_not_there_and_what_others_finished_is(tmp_path: Path) -> None:
    ran = []

    @ReactorFunc(name="first")
    def first(pipe: Any) -> None:
        ran.append("first")
        pipe.send("a", 1)

    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> Any:
        a = yield pipe.receive("a")
        pipe.send("early", a)
        pipe.allocate("filled", specs.HdfArraySpec, shape=(10,), dtype="f8")[...] = 1
        if len(ran) == 1:
            sleeps()
        pipe.send("x", a)

    @ReactorFunc(name="spared")
    def spared(pipe: Any) -> Any:
        try:
            yield pipe.receive("x")
        except ReactorTimeout as error:
            pipe.send("told", type(error).__name__)

    with new_plant(tmp_path, first, late, spared) as plant:
        ended(plant, "x")
        assert not plant.is_ingredient_known("early")
        assert plant.produce("told") == "ReactorTimeout"
        assert plant.produce("a") == 1
    with new_plant(tmp_path, first, late, spared) as plant:
        assert plant.produce("a") == 1
        ended(plant, "early")
    assert ran == ["first"]


def test_it_may_clean_up_and_can_not_go_on(tmp_path: Path) -> None:
    cleaned = []

    @ReactorFunc(name="cleans", timeout=SOON)
    def cleans(pipe: Any) -> None:
        try:
            sleeps()
        finally:
            time.sleep(SOON)
            cleaned.append(True)
            pipe.send("x", 1)

    @ReactorFunc(name="goes_on", timeout=SOON)
    def goes_on(pipe: Any) -> Any:
        try:
            sleeps()
        except BaseException:
            pipe.send("y", 1)
        yield pipe.receive("z")

    @ReactorFunc(name="returns", timeout=SOON)
    def returns(pipe: Any) -> None:
        try:
            sleeps()
        except BaseException:
            pipe.send("z", 1)

    with new_plant(tmp_path, cleans, goes_on, returns) as plant:
        for name in ("x", "y", "z"):
            ended(plant, name)
    assert cleaned == [True]


def raises() -> None:
    raise ValueError("of the clean-up")


@pytest.mark.parametrize("at_the_end", [sleeps, loops, raises])
def test_what_it_does_when_it_is_closed_changes_nothing(tmp_path: Path, at_the_end: Callable[[], None]) -> None:
    @ReactorFunc(name="goes_on", timeout=SOON)
    def goes_on(pipe: Any) -> Any:
        try:
            try:
                sleeps()
            except BaseException:
                pipe.send("x", 1)
            yield pipe.receive("z")
        finally:
            at_the_end()

    with new_plant(tmp_path, goes_on) as plant:
        assert "reactor goes_on" in ended(plant, "x")


def test_who_refuses_to_be_closed(tmp_path: Path) -> None:
    @ReactorFunc(name="refuses", timeout=SOON)
    def refuses(pipe: Any) -> Any:
        pipe.send("x", 1)
        with contextlib.suppress(BaseException):
            sleeps()
        for _ in range(2):
            with contextlib.suppress(BaseException):  # GeneratorExit, too
                yield pipe.receive("z")

    with new_plant(tmp_path, refuses) as plant:
        assert "reactor refuses" in ended(plant, "x")


def test_a_clean_up_that_hangs_hides_no_mistake(tmp_path: Path) -> None:
    @ReactorFunc(name="mistaken", timeout=SOON)
    def mistaken(pipe: Any) -> Any:
        try:
            pipe.send("x", 1)
            yield "no request"
        finally:
            sleeps()

    with new_plant(tmp_path, mistaken) as plant, pytest.raises(BadRequest, match="mistaken"):
        plant.produce("x")


def test_a_clean_up_that_hangs_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "_LOOK_AGAIN", SOON)

    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> None:
        try:
            sleeps()
        finally:
            loops()
        pipe.send("x", 1)

    with new_plant(tmp_path, late) as plant:
        ended(plant, "x")


# -- signals of others -------------------------------------------------------------------------------


def test_signals_of_others_stay_theirs(tmp_path: Path) -> None:
    heard: list[int] = []

    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> None:
        os.kill(os.getpid(), signal.SIGURG)
        sleeps()
        pipe.send("x", 1)

    def handler(number: int, _: Any) -> None:
        heard.append(number)

    urgent, alarm = signal.signal(signal.SIGURG, handler), signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with new_plant(tmp_path, late) as plant, pytest.raises(ReactorTimeout):
            plant.produce("x")
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] < 1000
        assert signal.getsignal(signal.SIGURG) is handler and signal.getsignal(signal.SIGALRM) is handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGURG, urgent)
        signal.signal(signal.SIGALRM, alarm)
    assert heard == [signal.SIGURG]


def test_a_reactor_around_a_plant_is_ended_with_it(tmp_path: Path) -> None:
    @ReactorFunc(name="inner", timeout=LONG)
    def inner(pipe: Any) -> None:
        sleeps()
        pipe.send("x", 1)

    @ReactorFunc(name="outer", timeout=2 * SOON)
    def outer(pipe: Any) -> None:
        with new_plant(tmp_path / "within", inner) as plant:
            pipe.send("y", plant.produce("x"))

    with new_plant(tmp_path, outer) as plant:
        assert "reactor outer" in ended(plant, "y")


def test_who_is_being_debugged_is_left_alone(tmp_path: Path) -> None:
    at_the_prompt: dict[str, Any] = {"__name__": "bdb", "sleep": time.sleep}
    exec(f"def interaction():\n    sleep({SOON})\n    sleep({SOON})", at_the_prompt)

    @ReactorFunc(name="late", timeout=SOON)
    def late(pipe: Any) -> None:
        at_the_prompt["interaction"]()
        pipe.send("x", 1)

    with new_plant(tmp_path, late) as plant:
        assert plant.produce("x") == 1

"""Ctrl-C at the n-th executed line of the package, or the n-th memory allocation failing, for n = 1, 2, 3 …

    python -m tests.faults.interrupts --kind lines --step 1        every line (a day); --step 499: minutes
    python -m tests.faults.interrupts --kind allocations --step 997
    python -m tests.faults.interrupts --step 29 --only warehouse/environments.py --broken leaked_lock  (must fail)

After it the same process goes on with the same plant, or opens it anew, and gets right values; then a clean process
examines the store. Nothing may hang, and nobody may find a lock that was left.
"""

from __future__ import annotations

import argparse
import gc
import linecache
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pyplantx
from pyplantx.errors import PyplantxError
from pyplantx.specs import zarrthreads
from tests.faults import broken, program
from tests.faults.children import Tell, run_child, scratch
from tests.faults.limits import warm_up
from tests.faults.verdict import Finding, Tally, debts, end_of, examine, values_told

PACKAGE = os.path.dirname(os.path.abspath(pyplantx.__file__)) + os.sep
SEEDS = (program.SMALL + 1, program.SMALL + 2)
#: Seconds for one case: much longer is a hang.
LIMIT = 30.0


class Lines:
    """Sends SIGINT at the n-th executed line of the package, in the main thread.

    Left out are lines where the interpreter never delivers a signal: ``try``, which does nothing, and ``with``, where a
    trace function is called once more when the block ends, *before* the lock is released.
    """

    expected = (KeyboardInterrupt,)

    def __init__(self, n: int, only: str = "") -> None:
        self.left = n
        self.where = ""
        self._files = PACKAGE + only

    @contextmanager
    def active(self) -> Iterator[None]:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)

    @property
    def reached(self) -> bool:
        return self.left <= 0

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._files):
            return None
        if event == "line" and not _is_safe(frame):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.where = f"{os.path.relpath(frame.f_code.co_filename, PACKAGE)}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)  # like Ctrl-C: whoever handles it first says when it is raised
        return self._trace


def _is_safe(frame: FrameType) -> bool:
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.lstrip().startswith(("try:", "with ", "async with "))


class Allocations:
    """Lets the n-th memory allocation of the interpreter fail, once."""

    expected = (MemoryError, SystemError)  # the latter is what CPython's compiler makes of it

    def __init__(self, n: int, only: str = "") -> None:
        self._n = n
        self.where = ""
        self.reached = True

    @contextmanager
    def active(self) -> Iterator[None]:
        import _testcapi

        before = sys.getallocatedblocks()
        _testcapi.set_nomemory(self._n, self._n + 1)
        try:
            yield
        finally:
            _testcapi.remove_mem_hooks()
            self.where = f"allocation {self._n}, {sys.getallocatedblocks() - before:+,} blocks"


KINDS: dict[str, Any] = {"lines": Lines, "allocations": Allocations}


def why_not(kind: str) -> str:
    """The reason why a kind can't be tried here; empty if it can."""
    if kind == "allocations":
        try:
            import _testcapi  # noqa: F401
        except ImportError:
            return "this Python comes without _testcapi"
    return ""


def suffer(directory: str, fault: Any, tell: Tell) -> None:
    """A life with the fault, and a second one without, in one process."""
    zarrthreads.PATIENCE = LIMIT / 6
    plant: Any = None
    try:
        with fault.active():
            plant = program.open_plant(directory, SEEDS[0], tell, lock_timeout=3.0)
            plant.produce("total")
            plant.warehouse.check(fix=True)
            plant.close()
            tell("undisturbed")
    except fault.expected:
        tell(f"met {fault.where}")
    except PyplantxError as error:
        tell(f"met {type(error).__name__} {fault.where}")
    gc.collect()
    neighbour = run_child(lambda inner: _neighbour(directory), LIMIT / 2)
    if neighbour.status != 0:
        tell(f"unclear another process can't work beside this one: {_last_line(neighbour.errors)}")
    if plant is None or plant.warehouse._closed:
        plant = program.open_plant(directory, SEEDS[0], tell, lock_timeout=3.0)
    for name in program.NAMES:
        tell(f"got {name} {SEEDS[0]} {program.told(name, plant.produce(name))}")
    plant.close()
    tell(f"reached {int(fault.reached)}")


def _neighbour(directory: str) -> None:
    """Another process, while this one lives: it finds no lock that was left."""
    with program.open_plant(directory, SEEDS[0] + 1, lock_timeout=3.0) as plant:
        plant.produce("tiny")


def _last_line(errors: str) -> str:
    if "most recent call first" in errors:  # it hung, or died: its stacks
        return errors[-3000:].replace("\n", " | ")
    lines = [line for line in errors.splitlines() if "Error" in line or "Busy" in line]
    return lines[-1] if lines else errors[-300:].replace("\n", " | ")


def case(directory: str, n: int, options: argparse.Namespace, tally: Tally) -> bool:
    """One n; False if the life was over before."""
    ended = run_child(lambda tell: suffer(directory, KINDS[options.kind](n, options.only), tell), LIMIT)
    where = next((line for line in ended.lines if line.startswith("met")), "")
    findings = [Finding(kind, f"{where}: {story}") for kind, story in end_of(ended) + values_told(ended)]
    if ended.status > 0:
        findings.append(Finding("unusable", f"{where}: the same process can't go on: {ended.errors[-3000:]}"))
    findings += examine(directory, debts([ended], SEEDS))
    tally.case(f"n={n}", findings, met=bool(where))
    return "undisturbed" not in ended.lines


def campaign(options: argparse.Namespace) -> int:
    title = f"interrupts {options.kind} step {options.step}"
    tally = Tally(title + (f" broken={options.broken}" if options.broken else ""))
    broken.apply(options.broken)
    if options.kind == "allocations":  # an extension module that is half imported can't be imported again
        warm_up()
    n, undisturbed = options.start, 0
    with scratch() as place:
        # A failing allocation may go unnoticed, so one life without a trace of it is not yet the end.
        while undisturbed < (1 if options.kind == "lines" else 20):
            directory = os.path.join(place, f"plant{n}")
            undisturbed = 0 if case(directory, n, options, tally) else undisturbed + 1
            shutil.rmtree(directory, ignore_errors=True)
            if options.until_found and tally.found:
                break
            n += options.step
    return tally.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(KINDS), default="lines")
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--only", default="", help="lines of these files only: warehouse/, warehouse/environments.py")
    parser.add_argument("--until-found", action="store_true", help="end at the first broken promise")
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    reason = why_not(options.kind)
    if reason:
        raise SystemExit(f"not possible here: {reason}")
    return campaign(options)


if __name__ == "__main__":
    raise SystemExit(main())

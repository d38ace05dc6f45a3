"""The n-th system call on the plant's files fails, for n = 1, 2, 3 … until a run completes.

    python -m tests.faults.calls --fault KILL
    python -m tests.faults.calls --fault EIO --for-ever --step 7
    python -m tests.faults.calls --fault EIO --reads
    python -m tests.faults.calls --fault KILL --broken early_announcement      (must fail: the positive control)

KILL dies at the call, TEAR after half a write, SHORT writes half; else the name of an error that the call returns. A
process that is not killed must end by itself with errors of ours only, get right values, and recover in the same
process once the fault is over. Whatever is left must pass `verdict.examine`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import traceback
from typing import Any

from pyplantx.errors import PyplantxError
from tests.faults import broken, program, shim
from tests.faults.children import Ended, Tell, run_child, scratch, told
from tests.faults.verdict import Debts, Finding, Tally, debts, end_of, examine, is_the_reactors, ran_again, values_told

SEEDS = (1, 2)
#: Attempts of a process that meets errors; the fault is over before the last two.
ATTEMPTS = 4


def suffer(directory: str, n: int, options: argparse.Namespace, tell: Tell) -> None:
    """In a child: live with the fault, and tell whether it was met."""
    made = shim.fault(options.fault)
    preload = shim.Shim()
    preload.arm(
        os.path.join(directory, options.within) if options.within else directory,
        n,
        made,
        for_ever=options.for_ever,
        kinds=shim.READS if options.reads else shim.CHANGES,
    )
    try:
        endure(directory, preload, tell)
    finally:
        preload.disarm()
        tell(f"counted {preload.counted} {preload.hit}")


def endure(directory: str, preload: shim.Shim, tell: Tell) -> None:
    """Use a plant; after an error go on with it, as a patient user does."""
    plant: Any = None
    for attempt in range(ATTEMPTS):
        if attempt == ATTEMPTS - 2:
            preload.disarm()
        try:
            if plant is None or plant.warehouse._closed:
                plant = program.open_plant(directory, SEEDS[0], tell)
            program.use(plant, SEEDS, tell)
            plant.close()
            return
        except Exception as error:
            tell(_judged(error, preload.hit))
    tell(f"unclear the process does not recover after {preload.hit} failed")


def _judged(error: Exception, hit: str) -> str:
    """Errors of ours are clear; so are a reactor's own when it does its own input and output."""
    if isinstance(error, PyplantxError) or is_the_reactors(error):
        return f"refused {type(error).__name__}"
    story = " | ".join(traceback.format_exception(error)[-4:]).replace("\n", " ")
    return f"unclear {hit} failed: {story}"


def case(directory: str, n: int, options: argparse.Namespace, tally: Tally) -> bool:
    """One n; False if the run ended before its n-th call."""
    ended = run_child(lambda tell: suffer(directory, n, options, tell))
    reached = ended.status == -9 or any(words[1:] for words in told(ended, "counted"))
    if options.verbose:
        print(n, next(told(ended, "counted"), ("killed",)), list(told(ended, "refused")), file=sys.stderr)
    findings = [] if ended.status == -9 else end_of(ended) + _failed(ended)
    findings += values_told(ended)
    owed = owed_after(ended, options)
    findings += ran_again(ended) if owed.finished else []
    findings += examine(directory, owed)
    announced = sum(line.startswith("finished") for line in ended.lines)
    tally.case(f"call {n}", findings, announced=announced, refused=sum(1 for _ in told(ended, "refused")))
    return reached


def owed_after(ended: Ended, options: argparse.Namespace) -> Debts:
    """What was announced, unless the disk can't be read: a file that gives an I/O error counts as damaged."""
    owed = debts([ended], SEEDS)
    return owed._replace(finished=set()) if options.reads and options.fault == "EIO" else owed


def _failed(ended: Ended) -> list[Finding]:
    """An error that left the child in spite of `endure`."""
    if ended.status > 0:
        return [Finding("unclear", f"the process ended with {ended.status}: {ended.errors[-2000:]}")]
    return []


def campaign(options: argparse.Namespace) -> int:
    """All n from `start` in steps, until one run completes; the exit code."""
    often = "for ever" if options.for_ever else "once"
    what = "reads" if options.reads else "changes"
    tally = Tally(f"calls {options.fault} {often} ({what})" + (f" broken={options.broken}" if options.broken else ""))
    broken.apply(options.broken)
    n = options.start
    with scratch() as place:
        while options.cases is None or tally.counts["cases"] < options.cases:
            directory = os.path.join(place, f"plant{n}")
            reached = case(directory, n, options, tally)
            shutil.rmtree(directory, ignore_errors=True)
            if not reached or (options.until_found and tally.found):
                break
            n += options.step
    return tally.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", default="KILL", help="KILL, TEAR, SHORT, or an error such as EIO")
    parser.add_argument("--for-ever", action="store_true", help="from the n-th call on, not only there")
    parser.add_argument("--reads", action="store_true", help="count reads and opens instead of changes")
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--cases", type=int, help="at most so many")
    parser.add_argument("--within", default="", help="only calls on files of this folder of the store: meta.lmdb, ...")
    parser.add_argument("--until-found", action="store_true", help="end at the first broken promise")
    parser.add_argument("--broken", choices=sorted(broken.STORES), help="use a store with this defect")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    reason = shim.why_not()
    if reason:
        raise SystemExit(f"not possible here: {reason}")
    code = shim.rerun_with_shim("tests.faults.calls")
    return campaign(options) if code is None else code


if __name__ == "__main__":
    raise SystemExit(main())

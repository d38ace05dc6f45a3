"""Too little of everything: disk, file size, descriptors, memory, rights.

    python -m tests.faults.limits --kind disk        a full tmpfs of every size from nothing on (root)
    python -m tests.faults.limits --kind size        RLIMIT_FSIZE
    python -m tests.faults.limits --kind files       RLIMIT_NOFILE
    python -m tests.faults.limits --kind memory      RLIMIT_DATA (ulimit -d)
    python -m tests.faults.limits --kind addresses   RLIMIT_AS (ulimit -v)
    python -m tests.faults.limits --kind readonly    a directory that can't be written (root: a read-only mount)

For each limit, from the tightest on until a life passes undisturbed: errors are ours and clear, the interpreter lives,
values are right; with the limit lifted, the same process goes on; then a clean process examines the store.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyplantx import Plant
from pyplantx.errors import PyplantxError, StoreReadOnly
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults import broken, program
from tests.faults.children import Tell, run_child, scratch
from tests.faults.verdict import Finding, Tally, debts, end_of, examine, is_the_reactors, values_told

SEEDS = (1, 2)
MIB = 1 << 20


class Limit(NamedTuple):
    """Something that can be short.

    Attributes
    ----------
    values : sequence of int
        From the tightest on; the last one disturbs nobody.
    tighten : callable
        Takes a value and the store's directory; called in the child. Returns what lifts it again.
    errors : tuple of type
        What may be raised besides errors of ours.
    """

    values: Any
    tighten: Callable[[int, str], Callable[[], None]]
    errors: tuple[type[BaseException], ...] = ()


def _rlimit(kind: int, base: Callable[[], int] = lambda: 0) -> Callable[[int, str], Callable[[], None]]:
    def tighten(value: int, directory: str) -> Callable[[], None]:
        before = resource.getrlimit(kind)
        resource.setrlimit(kind, (base() + value, before[1]))
        return lambda: resource.setrlimit(kind, before)

    return tighten


def _memory_of(name: str) -> Callable[[], int]:
    """What a limit counts of this process now, in bytes."""

    def counted() -> int:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

    return counted


def _open_files() -> int:
    """One more than the highest descriptor; those below that are free get used up."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    while (made := os.open(os.devnull, os.O_RDONLY)) < highest:
        pass
    os.close(made)
    return made


def _fill(value: int, directory: str) -> Callable[[], None]:
    """Leave so many bytes free on the store's file system."""
    ballast = os.path.join(os.path.dirname(directory), "ballast")
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    os.truncate(ballast, max(0, os.path.getsize(ballast) - value))
    return lambda: os.unlink(ballast)


#: The largest file of a life is the HDF array, the whole store about 15 MB.
LIMITS = {
    "disk": Limit([*range(0, 200_000, 16_384), *range(200_000, 17 * MIB, 320_000)], _fill),
    "size": Limit([*range(0, 100_000, 8_192), *range(100_000, 3 * MIB, 150_000)], _rlimit(resource.RLIMIT_FSIZE)),
    "files": Limit(range(0, 40), _rlimit(resource.RLIMIT_NOFILE, _open_files)),
    "memory": Limit(
        [*range(0, 4 * MIB, 131_072), *range(4 * MIB, 66 * MIB, 2 * MIB)],
        _rlimit(resource.RLIMIT_DATA, _memory_of("VmData")),
        (MemoryError,),
    ),
    "addresses": Limit(
        # LMDB's maps alone take some 130 MiB: below that the index can't be opened.
        [*range(0, 128 * MIB, 8 * MIB), *range(128 * MIB, 208 * MIB, MIB), *range(208 * MIB, 300 * MIB, 8 * MIB)],
        _rlimit(resource.RLIMIT_AS, _memory_of("VmSize")),
        (MemoryError,),
    ),
}


def suffer(directory: str, limit: Limit, value: int, tell: Tell) -> None:
    """A life under the limit; with the limit lifted it goes on in the same process."""
    plant: Any = None
    lift = limit.tighten(value, directory)
    try:
        plant = program.open_plant(directory, SEEDS[0], tell)
        program.use(plant, SEEDS, tell)
        plant.close()
        tell("undisturbed")
    except Exception as error:
        lift()
        lift = lambda: None  # noqa: E731
        tell(_judged(error, limit, value))
        del error
    lift()
    if plant is None or plant.warehouse._closed:
        plant = program.open_plant(directory, SEEDS[0], tell)
    program.use(plant, SEEDS, tell)
    plant.close()


def _judged(error: Exception, limit: Limit, value: int) -> str:
    story = " | ".join(traceback.format_exception(error)[-4:]).replace("\n", " ")
    if isinstance(error, (PyplantxError, *limit.errors)) or is_the_reactors(error):
        return f"refused {type(error).__name__}: {story}"
    return f"unclear {value:,}: {story}"


def case(directory: str, limit: Limit, value: int, tally: Tally) -> bool:
    """One value; False if it disturbed nobody."""
    ended = run_child(lambda tell: suffer(directory, limit, value, tell))
    findings = end_of(ended) + values_told(ended)
    if ended.status > 0:
        findings.append(Finding("unusable", f"{value:,}: the process can't go on: {ended.errors[-3000:]}"))
    findings += examine(directory, debts([ended], SEEDS))
    refused = sum(line.startswith("refused") for line in ended.lines)
    tally.case(
        f"{value:,}", findings, refused=refused, announced=sum(line.startswith("finished") for line in ended.lines)
    )
    return "undisturbed" not in ended.lines


@contextlib.contextmanager
def small_disk(place: str) -> Iterator[str]:
    """A file system that is large enough, and not much more."""
    folder = os.path.join(place, "disk")
    os.makedirs(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def why_not(kind: str) -> str:
    """The reason why a kind can't be tried here; empty if it can."""
    if kind in ("disk", "readonly") and os.geteuid() != 0:
        return "mounting a file system needs root"
    if kind == "disk":
        with scratch() as place:
            os.mkdir(f"{place}/try")
            ran = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{place}/try"], capture_output=True, text=True)
            if ran.returncode:
                return f"no file system can be mounted here: {ran.stderr.strip()}"
            subprocess.run(["umount", f"{place}/try"], check=True)
    return ""


def warm_up() -> None:
    """Import in this process what a life imports as it goes: nothing is to be short for Python's files."""
    with scratch() as place:
        program.live(os.path.join(place, "plant"), lambda line: None)


def sweep(kind: str, every: int, until_found: bool, tally: Tally) -> None:
    """All values of one limit, until one disturbs nobody twice in a row."""
    limit, calm = LIMITS[kind], 0
    with scratch() as place, small_disk(place) if kind == "disk" else contextlib.nullcontext(place) as folder:
        for value in limit.values[::every]:
            directory = os.path.join(folder, "plant")
            calm = 0 if case(directory, limit, value, tally) else calm + 1
            shutil.rmtree(directory, ignore_errors=True)
            if calm == 2 or (until_found and tally.found):
                break


# -- a directory that can't be written ----------------------------------------------------------------


def readonly(tally: Tally) -> None:
    """Written once, then on a read-only mount: a plant that may write says so, a read-only one reads everything."""
    with scratch() as place, small_disk(place) as folder:
        directory = os.path.join(folder, "plant")
        made = run_child(lambda tell: program.live(directory, tell, (1,)))
        assert made.status == 0, made.errors
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for name, action in {"write": _try_to_write, "read": _only_read}.items():
            ended = run_child(lambda tell, action=action: action(directory, tell))  # type: ignore[misc]
            findings = end_of(ended) + values_told(ended)
            if ended.status > 0:
                findings.append(Finding("unusable", f"{name}: {ended.errors[-3000:]}"))
            tally.case(name, findings, told=len(ended.lines))
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        tally.case("written again", examine(directory, debts([], (1,))))


def _try_to_write(directory: str, tell: Tell) -> None:
    for opened in (lambda: Plant(directory), lambda: Plant(directory + "-new")):
        try:
            opened()
            tell("unclear a plant opens on a read-only file system as if it could be written")
        except StoreReadOnly as error:
            tell(f"refused {error}")


def _only_read(directory: str, tell: Tell) -> None:
    with Warehouse(directory, read_only=True) as warehouse:
        for name in program.NAMES:
            ref = warehouse.last_ref(name)
            tell(f"got {name} 1 {program.told(name, warehouse.open(ref))}" if ref else f"unclear {name} is not found")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=(*sorted(LIMITS), "readonly"), required=True)
    parser.add_argument("--every", type=int, default=1, help="try only each so-manieth value")
    parser.add_argument("--until-found", action="store_true", help="end at the first broken promise")
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    options = parser.parse_args()
    reason = why_not(options.kind)
    if reason:
        raise SystemExit(f"not possible here: {reason}")
    tally = Tally(f"limits {options.kind}" + (f" broken={options.broken}" if options.broken else ""))
    broken.apply(options.broken)
    warm_up()
    if options.kind == "readonly":
        readonly(tally)
    else:
        sweep(options.kind, options.every, options.until_found, tally)
    return tally.finish()


if __name__ == "__main__":
    raise SystemExit(main())

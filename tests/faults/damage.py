"""Damage to the files of a closed store, case after case, each on a fresh copy.

    python -m tests.faults.damage --kind flips --step 1            every byte (hours); --step 97 takes a minute
    python -m tests.faults.damage --kind truncations --step 64
    python -m tests.faults.damage --kind surprises                 emptied, swapped, deleted, replaced, grown, older
    python -m tests.faults.damage --kind beyond --step 97          one bit where the mark of a clean close does not look
    python -m tests.faults.damage --kind flips --step 997 --broken missing_checksum      (must fail)

Each case is tried after a clean close and after an unclean one. The plant must open by itself, give right values only
(running again what it must), and mend itself: `check(fix=True)` leaves nothing but what is harmless.

Beyond the mark (64 MiB of each data file; two pages in this harness) damage is not looked for before LMDB meets it.
There the first process may die, or end with an error of ours, or write over what was there: what it returns before that
is right, the second one has everything right by itself, and for the third there is nothing left to run.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pyplantx.errors import PyplantxError, WarehouseError
from pyplantx.warehouse import inspection
from tests.faults import broken, pages, program
from tests.faults.children import LIMIT, Tell, run_child, scratch
from tests.faults.verdict import Finding, Tally

SEED, OLDER = program.SMALL + 2, program.SMALL + 1
#: Cases that one process tries; a crash costs the rest of them a new process.
BATCH = 50
MARK = "clean.json"


class Case(NamedTuple):
    """One damage: its name, and what does it to a copy."""

    name: str
    harm: Callable[[str], None]


def make_store(directory: str) -> None:
    """A small store of all specs, with a backup that is older than it."""
    with program.open_plant(directory, OLDER) as plant:
        plant.produce("total")
        plant.warehouse.backup()
        shutil.copytree(os.path.join(directory, "backup"), directory + ".older")
        plant.set_config(program.configured(SEED))
        plant.produce("total")


def files(directory: str) -> list[str]:
    """Paths of all files, relative."""
    found = [os.path.join(place, name) for place, _, names in os.walk(directory) for name in names]
    return sorted(os.path.relpath(path, directory) for path in found)


# -- kinds of damage --------------------------------------------------------------------------------


def flips(store: str, step: int) -> Iterator[Case]:
    """One bit of one byte."""
    for path in files(store):
        first = sum(path.encode()) % step  # other places in each file
        for at in range(first, os.path.getsize(os.path.join(store, path)), step):
            yield Case(f"flip {path}:{at}", lambda work, path=path, at=at: _flip(f"{work}/{path}", at))  # type: ignore[misc]


def _flip(path: str, at: int) -> None:
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << at * 5 % 8]))


def truncations(store: str, step: int) -> Iterator[Case]:
    """Every length that is shorter."""
    for path in files(store):
        for size in range(0, os.path.getsize(os.path.join(store, path)), step):
            yield Case(f"cut {path} to {size}", lambda work, path=path, size=size: _cut(f"{work}/{path}", size))  # type: ignore[misc]


def _cut(path: str, size: int) -> None:
    os.chmod(path, 0o600)
    os.truncate(path, size)


def surprises(store: str, step: int) -> Iterator[Case]:
    """Whole files and folders: gone, grown, swapped, or something else in their place."""
    for path in files(store):
        for name, harm in _FILE_SURPRISES.items():
            yield Case(f"{name} {path}", lambda work, path=path, harm=harm: harm(f"{work}/{path}"))  # type: ignore[misc]
    for folder in sorted(next(os.walk(store))[1]):
        for name, harm in _FOLDER_SURPRISES.items():
            yield Case(f"{name} {folder}", lambda work, folder=folder, harm=harm: harm(f"{work}/{folder}"))  # type: ignore[misc]
    data = [path for path in files(store) if path.endswith((".mdb", ".npy", ".h5", ".txt"))]
    for one, other in itertools.combinations(data, 2):
        yield Case(f"swap {one} and {other}", lambda work, a=one, b=other: _swap(f"{work}/{a}", f"{work}/{b}"))  # type: ignore[misc]
    yield Case("an older index", lambda work: _older(store, work, "meta.lmdb/data.mdb"))
    yield Case("an older backup, no index", lambda work: _older(store, work, "backup/meta.mdb", "meta.lmdb"))
    yield Case(
        "no index, no backup",
        lambda work: [shutil.rmtree(f"{work}/{name}") for name in ("meta.lmdb", "backup")] and None,
    )


def _older(store: str, work: str, path: str, without: str = "") -> None:
    shutil.copy(f"{store}.older/meta.mdb", f"{work}/{path}")
    if without:
        shutil.rmtree(f"{work}/{without}")


def _swap(one: str, other: str) -> None:
    os.rename(one, one + ".aside")
    os.rename(other, one)
    os.rename(one + ".aside", other)


def _replaced(make: Callable[[str], object]) -> Callable[[str], None]:
    def harm(path: str) -> None:
        _gone(path)
        make(path)

    return harm


def _gone(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _grown(data: bytes) -> Callable[[str], None]:
    def harm(path: str) -> None:
        os.chmod(path, 0o600)
        with open(path, "ab") as file:
            file.write(data)

    return harm


def _zero_tail(path: str) -> None:
    """What a file system may leave of a file whose last blocks never reached the disk."""
    size = os.path.getsize(path)
    _cut(path, size // 2)
    os.truncate(path, size)


_FILE_SURPRISES: dict[str, Callable[[str], None]] = {
    "empty": lambda path: _cut(path, 0),
    "zero the tail of": _zero_tail,
    "append zeros to": _grown(b"\0" * 4096),
    "append words to": _grown(b"words"),
    "delete": _gone,
    "put a folder in place of": _replaced(os.mkdir),
    "put a link to nowhere in place of": _replaced(lambda path: os.symlink("/nowhere", path)),
    "put a link to a file in place of": _replaced(lambda path: os.symlink("/etc/passwd", path)),
    "put a FIFO in place of": _replaced(os.mkfifo),
    "take all rights from": lambda path: os.chmod(path, 0),
}
_FOLDER_SURPRISES: dict[str, Callable[[str], None]] = {
    "delete": _gone,
    "put a file in place of": _replaced(lambda path: open(path, "w").close()),
    "put a link to a folder in place of": _replaced(lambda path: os.symlink(tempfile.gettempdir(), path)),
    "put a FIFO in place of": _replaced(os.mkfifo),
}


def beyond(store: str, step: int) -> Iterator[Case]:
    """One bit of the data files that the mark of a clean close does not cover, where LMDB reads it."""
    for path in ("meta.lmdb/data.mdb", "small.lmdb/data.mdb"):
        with open(f"{store}/{path}", "rb") as file:
            parts = [(what, at) for what, begin, end in pages.parts_in_use(file.read()) for at in range(begin, end)]
        for what, at in parts[sum(path.encode()) % step :: step]:
            yield Case(f"flip {path}:{at}, {what}", lambda work, path=path, at=at: _flip(f"{work}/{path}", at))  # type: ignore[misc]


KINDS = {"flips": flips, "truncations": truncations, "surprises": surprises, "beyond": beyond}


# -- trying -----------------------------------------------------------------------------------------


def try_case(store: str, work: str, case: Case, clean: bool, tell: Tell) -> None:
    """One case in this process; what is broken is told."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(store, work)
    case.harm(work)
    if not clean and os.path.lexists(f"{work}/{MARK}") and not os.path.isdir(f"{work}/{MARK}"):
        os.unlink(f"{work}/{MARK}")
    try:
        ran = _use(work, tell)
        _use_again(work, tell)
        tell(f"tried {ran}")
    except Exception as error:
        if not _says_no_permission(case, error):
            frames = " | ".join(traceback.format_exception(error)[-3:]).replace("\n", " ")
            tell(f"found unusable {frames}")
        tell("tried 0")


def _says_no_permission(case: Case, error: Exception) -> bool:
    """Whether somebody who is not root is told that rights are missing: none of us gives himself more."""
    taken = case.name.startswith("take all rights") and isinstance(error, WarehouseError)
    return taken and "permission" in str(error).lower() and bool(error.hint)  # type: ignore[attr-defined]


def _use(work: str, tell: Tell) -> int:
    """Open, produce everything, mend; how many reactors had to run."""
    ran: list[str] = []
    with program.open_plant(work, SEED, ran.append) as plant:
        strangers = [name for name in plant.warehouse.names() if name not in program.NAMES]
        if strangers:
            tell(f"found wrong names that nobody sent: {strangers}")
        for name in program.NAMES:
            if not program.is_right(name, plant.produce(name), (SEED,)):
                tell(f"found wrong {name}")
        plant.get_execution_history(all_sessions=True)
        plant.warehouse.check(fix=True)
        left = [problem for problem in plant.warehouse.check() if not problem.harmless]
        if left:
            tell(f"found unusable check(fix=True) leaves {left}")
    return sum(line.startswith("started") for line in ran)


def _use_again(work: str, tell: Tell) -> None:
    """Once mended, nothing runs any more."""
    ran: list[str] = []
    with program.open_plant(work, SEED, ran.append) as plant:
        if not program.is_right("total", plant.produce("total"), (SEED,)):
            tell("found wrong total, the second time")
    if ran:
        tell(f"found lost after mending: {ran}")


def try_batch(store: str, work: str, cases: list[Case], clean: bool, tally: Tally) -> None:
    """Try cases in a child; if it dies or hangs at one, go on behind it in another."""
    while cases:
        ended = run_child(functools.partial(_try_each, store, work, cases, clean), LIMIT + len(cases))
        done = _count(ended.lines, cases, clean, tally)
        if done == len(cases):
            return
        story = f"{'hung' if ended.hung else f'ended with {ended.status}'}: {ended.errors[-2000:]}"
        tally.case(_name(cases[done], clean), [Finding("unusable", story)])
        cases = cases[done + 1 :]


def _try_each(store: str, work: str, cases: list[Case], clean: bool, tell: Tell) -> None:
    for case in cases:
        try_case(store, work, case, clean, tell)


def _count(lines: list[str], cases: list[Case], clean: bool, tally: Tally) -> int:
    """Count what a child told; how many cases it finished."""
    done, findings = 0, []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "found":
            kind, _, story = rest.partition(" ")
            findings.append(Finding(kind, story))
        elif word == "tried":
            costly = {"that cost a run": int(int(rest) > 0), "reactors run": int(rest)}
            tally.case(_name(cases[done], clean), findings, **costly)
            done, findings = done + 1, []
    return done


def _name(case: Case, clean: bool) -> str:
    return f"{case.name} ({'clean' if clean else 'unclean'})"


def try_beyond(store: str, work: str, case: Case, tally: Tally) -> None:
    """One case beyond the mark, in three processes."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(store, work)
    case.harm(work)
    ended = [run_child(functools.partial(_use_and_write, work), LIMIT) for _ in range(3)]
    findings = [Finding("unusable", f"hung: {each.errors[-500:]}") for each in ended if each.hung]
    for number, each in enumerate(ended):
        findings += [Finding(*line.split(" ", 2)[1:]) for line in each.lines if line.startswith("found")]
        if number and "done" not in each.lines:
            findings.append(Finding("unusable", f"process {number + 1} ended with {each.status}: {each.lines[-1:]}"))
    if any(line.startswith("ran") for line in ended[2].lines):
        findings.append(Finding("lost", f"the third process ran {ended[2].lines}"))
    died = not ended[0].hung and ended[0].status != 0
    refused = any(line.startswith("refused") for line in ended[0].lines)
    tally.case(case.name, findings, **{"whose process died": int(died), "refused": int(refused)})


def _use_and_write(work: str, tell: Tell) -> None:
    """Everything of the store's config and of another one, which writes."""
    ran: list[str] = []
    try:
        with program.open_plant(work, SEED, ran.append) as plant:
            for seed in (SEED, SEED + 1):
                plant.set_config(program.configured(seed))
                for name in program.NAMES:
                    if not program.is_right(name, plant.produce(name), (seed,)):
                        tell(f"found wrong {name} under seed {seed}")
    except PyplantxError as error:
        tell(f"refused {error}")
        return
    except Exception as error:
        tell(f"found unclear {' | '.join(traceback.format_exception(error)[-3:])}".replace("\n", " "))
        return
    for line in ran:
        tell(f"ran {line}")
    tell("done")


def campaign(options: argparse.Namespace) -> int:
    if options.kind == "beyond":
        inspection._MARKED = pages.FIRST * pages.PAGE
    step = f" step {options.step}" if options.kind != "surprises" else ""
    tally = Tally(f"damage {options.kind}{step}" + (f" broken={options.broken}" if options.broken else ""))
    with scratch() as place:
        store = os.path.join(place, "store")
        made = run_child(lambda tell: make_store(store))
        assert made.status == 0, made.errors
        tally.counts["bytes in the store"] = sum(os.path.getsize(f"{store}/{path}") for path in files(store))
        broken.apply(options.broken)
        found = [case for case in KINDS[options.kind](store, options.step) if options.only in case.name]
        for case in found[:: options.every] if options.kind == "beyond" else ():
            try_beyond(store, os.path.join(place, "work"), case, tally)
        for clean in (True, False) if options.kind != "beyond" else ():
            cases = iter(found[:: options.every])
            while batch := list(itertools.islice(cases, BATCH)):
                try_batch(store, os.path.join(place, "work"), batch, clean, tally)
    return tally.finish()


def main() -> int:
    import logging

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(KINDS), default="flips")
    parser.add_argument("--step", type=int, default=1, help="bytes from one case to the next")
    parser.add_argument("--every", type=int, default=1, help="try only each so-manieth case")
    parser.add_argument("--only", default="", help="only cases whose name contains this text")
    parser.add_argument("--broken", choices=sorted(broken.STORES))
    logging.disable()
    return campaign(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())

"""Several passes in place over one dataset, killed in any of them: nobody can tell, and what was finished stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyplantx import ReactorFunc, specs
from tests.blocks.test_resume_kills import MEMORY, ROWS, Job, calls_of, name_of, note
from tests.faults.children import run_child

BLOCKS = 10  # of each pass
AT_MOST_AGAIN = 4  # blocks that were under way; each is done again from the first pass on


def noted(x: Any) -> Any:
    note(0)
    return x


def allocated(pipe: Any, like: Any) -> Any:
    return pipe.allocate("dst", specs.HdfArraySpec, shape=like.shape, dtype="f8")


@ReactorFunc
def mapped_thrice(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
    for number in range(3):
        pipe.map_blocks(lambda x, number=number: noted(x) * 3 - number, dst, out=dst, memory=MEMORY)
    pipe.send("dst", dst)
    note(0)


@ReactorFunc
def walked_twice(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    for b in pipe.blocks(src, dst, memory=MEMORY, resume=True):
        dst[b] = noted(src[b]) + 1
    for number in range(2):
        for b in pipe.blocks(dst, memory=MEMORY // 2, resume=True):
            dst[b] = noted(dst[b]) * 3 - number
    pipe.send("dst", dst)


@ReactorFunc
def in_scratch_space(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    scratch = pipe.allocate_temp("scratch", specs.HdfArraySpec, shape=src.shape, dtype="f8")
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=scratch, memory=MEMORY)
    pipe.map_blocks(lambda x: noted(x) * 3, scratch, out=scratch, memory=MEMORY)
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) - 1, scratch, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


@ReactorFunc
def asks_between(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
    again = yield pipe.receive("src")
    pipe.map_blocks(lambda x, y: noted(x) * 3 - y, dst, again, out=dst, memory=3 * MEMORY // 2)
    pipe.send("dst", dst)


GO_ON = [mapped_thrice, walked_twice, asks_between]


# -- who looks at the array between the passes ------------------------------------------------------


def looking(name: str, look: Any) -> Any:
    """A reactor that looks at the array between its first passes, and has in the next one what it saw there.

    As long as no file says otherwise it looks at an array with the same elements: then the passes go on after a kill.
    """

    @ReactorFunc(name=name)
    def reactor(pipe: Any) -> Any:
        src = yield pipe.receive("src")
        dst = allocated(pipe, src)
        pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
        seen = look(pipe, src, dst if os.path.exists(f"{os.environ['BLOCKS_CALLS']}.look") else src[:] + 1)
        pipe.map_blocks(lambda x: noted(x) * 3 - seen, dst, out=dst, memory=MEMORY)
        pipe.map_blocks(lambda x: noted(x) - 1, dst, out=dst, memory=MEMORY)
        pipe.send("dst", dst)

    return reactor


def by_another_loop(pipe: Any, src: Any, dst: Any) -> float:
    return float(pipe.reduce_blocks(lambda x: float(x.sum()), dst, memory=MEMORY))


def by_an_index(pipe: Any, src: Any, dst: Any) -> float:
    return float(dst[0, 1] + dst[-1, 2])


def by_blocks_of_others(pipe: Any, src: Any, dst: Any) -> float:
    return float(sum(dst[b].sum() for b in pipe.blocks(src, memory=MEMORY)))


def by_a_copy(pipe: Any, src: Any, dst: Any) -> float:
    copy = pipe.allocate_temp("copy", specs.HdfArraySpec, shape=dst.shape, dtype="f8")
    copy[:] = dst
    return float(copy[:].sum())


def by_a_forked_child(pipe: Any, src: Any, dst: Any) -> float:
    return float(run_child(lambda tell: tell(repr(float(dst[:].sum())))).lines[0])


def by_a_checkpoint(pipe: Any, src: Any, dst: Any) -> float:
    found = pipe.checkpoint("sum", default=None)
    if found is None:
        found = float(dst[:].sum())
        pipe.checkpoint("sum", found)
    return float(found)


LOOKS = [by_another_loop, by_an_index, by_blocks_of_others, by_a_copy, by_a_forked_child, by_a_checkpoint]


@ReactorFunc
def body_reads_another_block(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
    for b in pipe.blocks(dst, memory=MEMORY // 2, resume=True):
        note(0)
        dst[b] = dst[b] * 3 - dst[ROWS - 1 - b[0].start, 0]
    pipe.map_blocks(lambda x: noted(x) - 1, dst, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


@ReactorFunc
def function_reads_another_block(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
    pipe.map_blocks(lambda x: noted(x) * 3 - dst[0, 0], dst, out=dst, memory=MEMORY)
    pipe.map_blocks(lambda x: noted(x) - 1, dst, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


STRANGE = [*[looking(look.__name__, look) for look in LOOKS], body_reads_another_block, function_reads_another_block]


def killed_and_run(folder: Path, reactor: Any, at: int) -> tuple[bytes, str, int]:
    """The result of a job that is killed once, with the number of calls of the second run."""
    job = Job(folder, reactor)
    job.killed(kill_at=at)
    before = len(calls_of(job.calls))
    value, digest = job.run()
    assert job.leftovers() == []
    return value.tobytes(), digest, len(calls_of(job.calls)) - before


@pytest.mark.parametrize("reactor", GO_ON, ids=name_of)
def test_a_later_pass_goes_on(reactor: Any, tmp_path: Path) -> None:
    job = Job(tmp_path / "undisturbed", reactor)
    value, digest = job.run()
    count = len(calls_of(job.calls))
    passes = count // BLOCKS
    for at in range(BLOCKS + 6, passes * BLOCKS + 1, 7):
        found = killed_and_run(tmp_path / f"killed-at-{at}", reactor, at)
        assert found[:2] == (value.tobytes(), digest)
        assert found[2] <= count - at + 1 + AT_MOST_AGAIN * passes


def test_killed_again_and_again(tmp_path: Path) -> None:
    undisturbed, job = Job(tmp_path / "undisturbed", mapped_thrice), Job(tmp_path / "job", mapped_thrice)
    value, digest = undisturbed.run()
    kills = 0
    while len(calls_of(job.calls)) < 41 + kills * (AT_MOST_AGAIN * 4):
        try:
            job.killed(kill_at=len(calls_of(job.calls)) + 13)
            kills += 1
        except AssertionError:  # it came to its end
            break
    assert kills >= 2
    found, found_digest = job.run()
    assert (found.tobytes(), found_digest) == (value.tobytes(), digest)


def test_after_it_was_sent(tmp_path: Path) -> None:
    job = Job(tmp_path / "undisturbed", mapped_thrice)
    value, digest = job.run()
    found = killed_and_run(tmp_path / "job", mapped_thrice, 4 * BLOCKS + 1)
    assert found == (value.tobytes(), digest, 1)


@pytest.mark.parametrize("when", ["in each run", "after the kill"])
@pytest.mark.parametrize("reactor", [*STRANGE, in_scratch_space], ids=name_of)
def test_who_looks_between_sees_what_belongs_there(reactor: Any, when: str, tmp_path: Path) -> None:
    value, digest = Job(tmp_path / "undisturbed", reactor).run()
    job = Job(tmp_path / "job", reactor)
    look = Path(f"{job.calls}.look")
    if when == "in each run":
        look.touch()
    job.killed(kill_at=BLOCKS + 6)
    look.touch()
    found, found_digest = job.run()
    assert (found.tobytes(), found_digest) == (value.tobytes(), digest)


@ReactorFunc
def looks_only_after_a_kill(pipe: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
    seen = dst[0, 0] if os.path.exists(os.environ["BLOCKS_CALLS"] + ".look") else src[0, 0] + 1
    if os.path.exists(os.environ["BLOCKS_CALLS"] + ".other"):
        pipe.map_blocks(lambda x: noted(x) * 3 - seen + 7, dst, out=dst, memory=MEMORY)
    else:
        pipe.map_blocks(lambda x: noted(x) * 3 - seen, dst, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


@pytest.mark.parametrize(("what", "more"), [("look", 0), ("other", 7)])
def test_a_run_that_takes_another_way_begins_anew(what: str, more: int, tmp_path: Path) -> None:
    """It sees what an undisturbed run would, though it was taken for one that goes on."""
    value, _ = Job(tmp_path / "undisturbed", looks_only_after_a_kill).run()
    job = Job(tmp_path / "job", looks_only_after_a_kill)
    job.killed(kill_at=BLOCKS + 6)
    Path(f"{job.calls}.{what}").touch()
    found, _ = job.run()
    assert (found == value + more).all()


@ReactorFunc
def reads_config_between(pipe: Any, config: Any) -> Any:
    src = yield pipe.receive("src")
    dst = allocated(pipe, src)
    pipe.map_blocks(lambda x: noted(x) + 1, src, out=dst, memory=MEMORY)
    factor = config["factor"]
    pipe.map_blocks(lambda x: noted(x) * factor, dst, out=dst, memory=MEMORY)
    pipe.send("dst", dst)


def test_another_answer_between_the_passes(tmp_path: Path) -> None:
    value, _ = Job(tmp_path / "undisturbed", reads_config_between).run({"factor": 5})
    job = Job(tmp_path / "job", reads_config_between)
    job.killed({"factor": 3}, kill_at=BLOCKS + 6)
    found, _ = job.run({"factor": 5})
    assert (found == value).all()

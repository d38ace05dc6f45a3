"""Play the pages of the documentation and compare what they print with what they say.

Fences that count:

- ``python``: executed; all blocks of one page share a namespace, one process and a folder of their own.
  A ``text`` fence that follows (nothing but blank lines between) is what the block must print.
- ``console``: lines that begin with ``$ `` are commands, the lines after each are its output.
- ``diff``: an edit of a file of the walk, named in its ``--- file`` line; the old lines must stand in the
  file exactly once.

``python tests/examples/pages.py PAGE...`` writes what was really printed into the pages.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT = 120

#: Runs the blocks of a page and tells what each printed. An error ends the page.
DRIVER = """
import contextlib, io, json, sys, traceback
page, blocks = json.load(sys.stdin)
namespace, told = {"__name__": "__main__"}, []
for line, body in blocks:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile("\\n" * line + body, page, "exec"), namespace)
    except BaseException:
        told.append([out.getvalue(), traceback.format_exc()])
        break
    told.append([out.getvalue(), ""])
json.dump(told, sys.stdout)
"""


class Fence(NamedTuple):
    """One fenced block: its language, its text, where the text begins (offset) and on which line."""

    language: str
    body: str
    start: int
    line: int


class Played(NamedTuple):
    """One comparison: where the page says it, what it says, what was printed, what went wrong."""

    fence: Fence
    said: str
    printed: str
    error: str = ""


def fences(text: str) -> list[Fence]:
    return [
        Fence(found[1], found[2], found.start(2), text.count("\n", 0, found.start(2))) for found in FENCE.finditer(text)
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "MPLCONFIGDIR": tempfile.gettempdir()}


# --- python blocks -------------------------------------------------------------------------------


def answers(text: str, blocks: list[Fence]) -> dict[int, Fence]:
    """For each python block with a text block right after it: that block, by the python block's offset."""
    found = {}
    for block, after in zip(blocks, blocks[1:]):
        between = text[block.start + len(block.body) + 3 : after.start]
        if block.language == "python" and after.language == "text" and between.strip() == "```text":
            found[block.start] = after
    return found


def play_python(page: Path, folder: Path) -> list[Played]:
    """Execute the python blocks of a page in `folder`."""
    text = page.read_text(encoding="utf-8")
    blocks = fences(text)
    python = [block for block in blocks if block.language == "python"]
    told = run_driver(page, python, folder)
    expected = answers(text, blocks)
    played = []
    for block, (printed, error) in zip(python, told):
        answer = expected.get(block.start)
        played.append(Played(answer or block, answer.body if answer else "", printed, error))
    return played


def run_driver(page: Path, python: list[Fence], folder: Path) -> list[list[str]]:
    job = json.dumps([str(page), [[block.line, block.body] for block in python]])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=job, capture_output=True, text=True, cwd=folder, env=environment(), timeout=TIMEOUT,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{page.name}: the blocks ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout)


# --- walks: commands and edits -------------------------------------------------------------------


def play_walk(page: Path, folder: Path) -> list[Played]:
    """Do the commands and edits of a page, in order, in `folder`, a copy of the page's own folder."""
    played = []
    for fence in fences(page.read_text(encoding="utf-8")):
        if fence.language == "diff":
            edit(folder, fence.body)
        elif fence.language == "console":
            played.append(Played(fence, fence.body, replay_console(fence.body, folder)))
    return played


def replay_console(body: str, folder: Path) -> str:
    """The same console block with the output that its commands have today."""
    lines = []
    for line in body.splitlines():
        if line.startswith("$ "):
            lines += [line, *run(line[2:], folder).splitlines()]
    return "\n".join(lines) + "\n"


def run(command: str, folder: Path) -> str:
    words = [sys.executable if word == "python" else word for word in shlex.split(command, comments=True)]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, cwd=folder, env=environment(), timeout=TIMEOUT,
    )  # fmt: skip
    return done.stdout


def edit(folder: Path, diff: str) -> None:
    """Apply a small diff: context and ``-`` lines are searched as one piece, and must be found once."""
    header, *lines = diff.rstrip("\n").split("\n")
    path = folder / header.removeprefix("--- ")
    text = path.read_text(encoding="utf-8")
    old = "".join(line[1:] + "\n" for line in lines if line[:1] in " -" and not line.startswith("+++"))
    new = "".join(line[1:] + "\n" for line in lines if line[:1] in " +" and not line.startswith("+++"))
    assert text.count(old) == 1, f"{path.name} holds {text.count(old)} times:\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


# --- recording -----------------------------------------------------------------------------------


def copy_of(page: Path, folder: Path) -> Path:
    """A copy of a page's folder, without what runs of the example have left there."""
    ignored = shutil.ignore_patterns("plant", "output", "__pycache__")
    return Path(shutil.copytree(page.parent, folder / page.parent.name, ignore=ignored))


def record(page: Path) -> None:
    """Write into the page what its blocks and commands print today."""
    with tempfile.TemporaryDirectory() as folder:
        if page.parent.parent.name == "examples":
            played = play_walk(page, copy_of(page, Path(folder)))
        else:
            played = play_python(page, Path(folder))
    text = page.read_text(encoding="utf-8")
    for step in reversed(played):
        print(step.error, file=sys.stderr, end="")
        if step.fence.language != "python":
            end = step.fence.start + len(step.fence.body)
            text = text[: step.fence.start] + step.printed + text[end:]
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(Path(name).resolve())

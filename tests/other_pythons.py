"""Run the tests of fingerprints and of the core on every other CPython from 3.11 on that this machine has.

And let each read what this one has written, and the other way round (``tests/faults/versions.py``).

    python tests/other_pythons.py FOLDER_FOR_ENVIRONMENTS

Each version gets a virtual environment of its own below the folder, made anew when pyproject.toml changes. One that
can't be set up is named with the reason and fails nothing: the version may be too new for the libraries. A failing
test fails.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = 11, 20
TESTS = ["--numprocesses", "2", "--dist", "worksteal", "tests/fingerprint", "tests/core"]


def version_of(python: str) -> tuple[int, int] | None:
    """(3, minor) of a CPython interpreter; None if it is something else, or does not start."""
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    words = done.stdout.split()
    if done.returncode or len(words) != 3 or words[0] != "cpython":
        return None
    return int(words[1]), int(words[2])


def others() -> dict[tuple[int, int], str]:
    """Version -> interpreter, without the version that runs this."""
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST, NEWEST)]
    managed = glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3"))
    found: dict[tuple[int, int], str] = {}
    for python in filter(None, [*managed, *named]):
        version = version_of(python)
        if version is not None and version >= (3, OLDEST) and version != sys.version_info[:2]:
            found.setdefault(version, python)
    return dict(sorted(found.items()))


def set_up(python: str, folder: Path) -> Path:
    """An environment with the package and its test libraries; its interpreter."""
    own, ready = folder / "bin" / "python", folder / "ready"
    wanted = (ROOT / "pyproject.toml").read_text()
    if not ready.exists() or ready.read_text() != wanted:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        pip = [str(own), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True, capture_output=True, cwd=ROOT)
        subprocess.run([*pip, "--editable", ".", "--group", "test"], check=True, capture_output=True, cwd=ROOT)
        ready.write_text(wanted)
    return own


def main(folder: Path) -> int:
    failed = []
    for version, python in others().items():
        name = ".".join(map(str, version))
        try:
            own = set_up(python, folder / f"python-{name}")
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"Python {name}: not tried, its environment could not be set up: {reason(error)}")
            continue
        print(f"Python {name}:", flush=True)
        done = subprocess.run([str(own), "-m", "pytest", "-q", *TESTS], cwd=ROOT)
        shared = subprocess.run([sys.executable, "-m", "tests.faults.versions", str(own)], cwd=ROOT)
        if done.returncode or shared.returncode:
            failed.append(name)
    return 1 if failed else 0


def reason(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error).encode()
    return text.decode(errors="replace").strip().splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""The shim between a process and its system calls (`shim.c`): built by gcc, loaded with LD_PRELOAD, armed by ctypes."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
ROOT = Path(__file__).parents[2]
_LOADED = "PYPLANTX_SHIM"

#: What happens at the n-th call; as in ``enum action`` of the source.
COUNT, KILL, FAIL, SHORT, TEAR, STOP = range(6)
#: Which calls count; as in ``enum kind``.
CHANGES, READS = 1, 2


class Fault(NamedTuple):
    """What is to happen at the n-th call."""

    action: int
    code: int = 0


#: Names on the command line. An error's number stands for itself.
FAULTS = {"KILL": Fault(KILL), "TEAR": Fault(TEAR), "SHORT": Fault(SHORT), "STOP": Fault(STOP), "NONE": Fault(COUNT)}


def fault(name: str) -> Fault:
    """A fault by its name: one of `FAULTS`, or the name of an error number."""
    return FAULTS[name] if name in FAULTS else Fault(FAIL, getattr(errno, name))


def why_not() -> str:
    """The reason why there can be no shim here; empty if there can."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD and /proc are Linux's"
    return "" if shutil.which("gcc") else "gcc is needed to build the shim"


def build(folder: str | os.PathLike[str]) -> str:
    """Compile the shim; its path."""
    made = os.path.join(folder, "shim.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", made, str(SOURCE), "-ldl"], check=True)
    return made


def environment(built: str) -> dict[str, str]:
    """The environment in which a Python process has the shim."""
    preloaded = ":".join(filter(None, [built, os.environ.get("LD_PRELOAD", "")]))
    return {**os.environ, "LD_PRELOAD": preloaded, _LOADED: built, "OPENBLAS_NUM_THREADS": "1"}


def rerun_with_shim(module: str) -> int | None:
    """Run this very command once more with the shim loaded; its exit code, or None if the shim is loaded here."""
    if os.environ.get(_LOADED):
        return None
    from tests.faults.children import scratch

    with scratch("pyplantx-shim-") as folder:
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        return subprocess.run(command, env=environment(build(folder)), cwd=ROOT).returncode


class Shim:
    """The shim of this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[_LOADED])
        self._library.shim_counted.restype = ctypes.c_long
        self._library.shim_hit.restype = ctypes.c_char_p

    def arm(self, directory: str, n: int, fault: Fault, *, for_ever: bool = False, kinds: int = CHANGES) -> None:
        """From now on count the calls on files of a directory; at the n-th the fault happens, once or from then on."""
        self._library.shim_arm(os.fsencode(directory), ctypes.c_long(n), fault.action, fault.code, int(for_ever), kinds)

    def disarm(self) -> None:
        self._library.shim_disarm()

    @property
    def counted(self) -> int:
        """Calls since it was armed."""
        return int(self._library.shim_counted())

    @property
    def hit(self) -> str:
        """Name of the call that failed; empty if that has not happened yet."""
        return bytes(self._library.shim_hit()).decode()

"""Settings that hold for all tests."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# The same examples each time, and no clock: the machine may be busy.
hypothesis.settings.register_profile("pyplantx", derandomize=True, deadline=None)
hypothesis.settings.load_profile("pyplantx")


# -- processes of tests that die, or hang ------------------------------------------------------------


@pytest.fixture(autouse=True)
def _campaigns_take_their_time(request: pytest.FixtureRequest) -> None:
    """Every other test ends its process after `faulthandler_timeout`, and tells where it stood."""
    if request.node.get_closest_marker("campaign"):
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of the processes that run tests has died: how is told at once, for the summary may never come."""
    if error:
        code = node.gateway._io.popen.wait(10)
        print(f"\n[{node.gateway.id}] has ended with {code}", file=sys.stderr)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str) -> None:
    """And what it was doing."""
    print(f"while it ran {crashitem}", file=sys.stderr)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Children that a process forks for its tests must not seem to be it when it has died."""
    for plugin in session.config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor":
            os.register_at_fork(after_in_child=partial(_let_go, plugin.channel.gateway._io))


def _let_go(io: Any) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (io.infile, io.outfile):
        os.dup2(nothing, file.fileno(), inheritable=False)
    os.close(nothing)


# -- fixtures ----------------------------------------------------------------------------------------


@pytest.fixture
def new_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size such as "4m"; without the right to do that the test is skipped."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        place = tmp_path / f"disk{len(mounted) or ''}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            pytest.skip(f"no file system can be mounted here: {ran.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)

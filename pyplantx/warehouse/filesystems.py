"""On which kind of file system a folder lies: LMDB's locks and maps don't hold across a network.

This file may know: mount tables. It may not know: lmdb, or what a warehouse is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pyplantx.tuples import NamedTuple

#: Types whose files other machines change too. ``fuse.*`` is judged by what follows the dot.
NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs", "lustre", "gpfs"),
        *(
            "beegfs",
            "pvfs2",
            "orangefs",
            "panfs",
            "ocfs2",
            "gfs",
            "gfs2",
            "davfs",
            "davfs2",
            "sshfs",
            "s3fs",
            "gcsfuse",
        ),
        *("blobfuse", "blobfuse2", "rclone", "cvmfs", "moosefs", "mfs", "juicefs", "cephfs", "seaweedfs", "webdav"),
    }
)

_MOUNTS = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """One line of the mount table."""

    point: str
    kind: str
    source: str


def network_mount(path: str, mounts: str = _MOUNTS) -> Mount | None:
    """The network file system on which a path lies; None if it lies on a local one, or the system doesn't say.

    Parameters
    ----------
    path : str
        Of an existing folder.
    mounts : str
        The mount table (see proc(5), "mountinfo").
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as table:
            lines = table.readlines()
    except OSError:
        return None
    if not any(map(_is_network, map(_kind_of, lines))):
        return None  # as nearly everywhere, and then every opening is spared the rest
    real = os.path.realpath(path)
    above = [mount for mount in _parsed(lines) if _holds(mount.point, real)]
    # Of several mounts on one point the last one in the table is on top.
    mount = max(enumerate(above), key=lambda item: (len(item[1].point), item[0]))[1] if above else None
    return mount if mount is not None and _is_network(mount.kind) else None


def _kind_of(line: str) -> str:
    return line.partition(" - ")[2].partition(" ")[0]


def _parsed(lines: list[str]) -> Iterator[Mount]:
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split()
        if len(fields) >= 5 and len(rest) >= 2:
            yield Mount(_unescaped(fields[4]), rest[0], _unescaped(rest[1]))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text) if "\\" in text else text


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point if point.endswith("/") else f"{point}/")


def _is_network(kind: str) -> bool:
    return kind.lower().removeprefix("fuse.") in NETWORK

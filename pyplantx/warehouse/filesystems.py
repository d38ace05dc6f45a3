"""On which kind of file system a folder lies: LMDB's locks and maps don't hold across a network.

This file may know: mount tables. It may not know: lmdb, or what a warehouse is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pyplantx.basics.tuples import NamedTuple

#: Types whose files other machines change too. ``fuse.*`` is judged by what follows the dot.
NETWORK = frozenset(
    (
        "nfs nfs4 cifs smb3 smbfs ncpfs afs coda ceph cephfs glusterfs lustre gpfs beegfs pvfs2 orangefs panfs ocfs2 "
        "gfs gfs2 davfs davfs2 webdav sshfs s3fs gcsfuse blobfuse blobfuse2 rclone cvmfs moosefs mfs juicefs seaweedfs"
    ).split()
)
#: Types whose files only this machine changes.
LOCAL = frozenset(
    (
        "ext2 ext3 ext4 xfs btrfs zfs bcachefs f2fs jfs nilfs2 reiserfs reiser4 ufs minix tmpfs ramfs rootfs hugetlbfs "
        "overlay aufs unionfs ecryptfs fuseblk exfat vfat msdos ntfs ntfs3 hfs hfsplus apfs udf iso9660 squashfs erofs"
    ).split()
)
#: What may follow ``fuse.``: programs that show local disks, or other folders of this machine.
LOCAL_FUSE = frozenset(
    (
        "ntfs ntfs-3g lowntfs-3g exfat exfat-fuse ext2 fuse-ext2 fuseext2 apfs-fuse zfs zfs-fuse encfs gocryptfs cryfs "
        "securefs ecryptfs veracrypt mergerfs mhddfs unionfs unionfs-fuse bindfs overlay fuse-overlayfs squashfuse "
        "lxcfs portal appimage"
    ).split()
)

#: Types of which nobody can tell: a FUSE program without a name, and shares from outside a virtual machine.
_SHARED = frozenset({"fuse", "9p", "virtiofs", "vboxsf", "vmhgfs", "prl_fs"})
#: What else every machine has in its table; nobody keeps data there.
_KERNEL = frozenset(
    (
        "proc sysfs cgroup cgroup2 devpts devtmpfs mqueue debugfs tracefs securityfs pstore bpf configfs fusectl "
        "autofs binfmt_misc efivarfs nsfs rpc_pipefs selinuxfs"
    ).split()
)
#: A source such as ``host:/folder``, ``user@host:folder``, ``//host/share``, ``scheme://host``.
_HOST = r"//[^/]|[a-z][a-z0-9+.-]*://|[^/\s]+:[^\s]*"  # a text: compiling takes longer than all else at an opening
_MOUNTS = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """One line of the mount table.

    Attributes
    ----------
    point : str
        The folder.
    kind : str
        The type, as "nfs4" or "fuse.sshfs".
    source : str
        What is mounted.
    """

    point: str
    kind: str
    source: str

    @property
    def is_known(self) -> bool:
        """Whether the type says that other machines change its files; else it only may be so."""
        return self.kind.lower().removeprefix("fuse.") in NETWORK


def network_mount(path: str, mounts: str = _MOUNTS) -> Mount | None:
    """The file system on which a path lies, if that is a network file system or may be one.

    What doesn't say its name (a bare ``fuse``), a FUSE program that we don't know, a share from outside a virtual
    machine, and any type that we don't know whose source is written as a host's: all these may be.

    Parameters
    ----------
    path : str
        Of an existing folder.
    mounts : str
        The mount table (see proc(5), "mountinfo").

    Returns
    -------
    Mount or None
        None if the file system is a local one, or the system doesn't say.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as table:
            lines = table.readlines()
    except OSError:
        return None
    if all(_kind_of(line) in LOCAL or _kind_of(line) in _KERNEL for line in lines):
        return None  # as nearly everywhere, and then every opening is spared the rest
    real = os.path.realpath(path)
    above = [mount for mount in _parsed(lines) if _holds(mount.point, real)]
    # Of several mounts on one point the last one in the table is on top.
    mount = max(enumerate(above), key=lambda item: (len(item[1].point), item[0]))[1] if above else None
    return mount if mount is not None and _may_be_shared(mount) else None


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


def _may_be_shared(mount: Mount) -> bool:
    kind = mount.kind.lower()
    if mount.is_known or kind in _SHARED:
        return True
    if kind.startswith("fuse."):
        return kind.removeprefix("fuse.") not in LOCAL_FUSE
    return kind not in LOCAL and re.match(_HOST, mount.source, re.IGNORECASE) is not None

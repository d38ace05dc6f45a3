"""Whether a folder lies on a network file system is read off the mount table."""

from __future__ import annotations

import pytest

from pyplantx.warehouse.filesystems import network_mount

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/export/home rw
31 30 0:41 / /home/ann/scratch rw - tmpfs tmpfs rw
32 22 0:42 / /mnt/with\\040space rw shared:7 - fuse.sshfs ann@host:/data rw
33 22 0:43 / /over rw - ext4 /dev/vdb rw
34 33 0:44 / /over rw - cifs //server/share rw
35 22 0:45 / /pictures rw - fuse.gocryptfs /home/x rw
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return str(path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/home/bob/plant", "server:/export/home"),
        ("/mnt/with space/plant", "ann@host:/data"),
        ("/over/plant", "//server/share"),
    ],
)
def test_network_file_systems_are_found(table, path, source):
    mount = network_mount(path, table)
    assert mount is not None
    assert mount.source == source


@pytest.mark.parametrize("path", ["/", "/homes", "/home/ann/scratch/plant", "/pictures/x", "/mnt/with"])
def test_local_ones_are_not(table, path):
    assert network_mount(path, table) is None


def mounted(tmp_path, kind, source):
    """What is said of a folder on such a mount, beside what every machine has."""
    path = tmp_path / "mountinfo"
    path.write_text(
        "21 22 0:20 / /proc rw - proc proc rw\n22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"30 22 0:40 / /data rw shared:3 - {kind} {source} rw\n"
    )
    assert network_mount("/elsewhere", str(path)) is None
    return network_mount("/data/plant", str(path))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("fuse", "mount"),
        ("fuse", "/dev/fuse"),
        ("fuse.somebody", "somebody"),
        ("fuse.hf3fs", "cluster"),
        ("9p", "share"),
        ("virtiofs", "share"),
        ("vboxsf", "share"),
        ("newfs", "server:/export"),
        ("newfs", "//server/share"),
        ("newfs", "ann@server:"),
        ("newfs", "10.0.0.1,10.0.0.2:/volume"),
        ("newfs", "[fe80::1]:/export"),
        ("newfs", "s3://bucket"),
    ],
)
def test_what_may_be_one_is_told_as_that(tmp_path, kind, source):
    mount = mounted(tmp_path, kind, source)
    assert mount == ("/data", kind, source) and not mount.is_known


@pytest.mark.parametrize("kind", ["nfs", "fuse.sshfs", "CIFS", "fuse.glusterfs", "lustre"])
def test_known_ones_are_known_whatever_their_source(tmp_path, kind):
    assert mounted(tmp_path, kind, "none").is_known


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        *((kind, "/dev/sda1") for kind in ("ext4", "xfs", "btrfs", "fuseblk", "bcachefs", "vfat", "fuse.exfat")),
        *(
            (kind, kind)
            for kind in ("tmpfs", "overlay", "ramfs", "fuse.fuse-overlayfs", "fuse.mergerfs", "FUSE.BINDFS")
        ),
        *((f"fuse.{name}", "/home/ann/x") for name in ("ntfs-3g", "encfs", "gocryptfs", "cryfs", "bindfs")),
        ("zfs", "tank/home:old"),
        ("newfs", "/dev/nvme0n1p2"),
        ("newfs", "none"),
        ("newfs", "/dev/disk/by-path/pci-0000:00:1f.2"),
    ],
)
def test_well_known_and_plainly_local_ones_are_let_through(tmp_path, kind, source):
    assert mounted(tmp_path, kind, source) is None


def test_a_system_without_a_mount_table_says_nothing(tmp_path):
    assert network_mount(str(tmp_path), str(tmp_path / "absent")) is None


def test_here(tmp_path):
    assert network_mount(str(tmp_path)) is None

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


def test_a_system_without_a_mount_table_says_nothing(tmp_path):
    assert network_mount(str(tmp_path), str(tmp_path / "absent")) is None


def test_here(tmp_path):
    assert network_mount(str(tmp_path)) is None

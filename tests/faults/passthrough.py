"""A real FUSE file system for tests: each request of the kernel is answered from a folder behind it.

    python -m tests.faults.passthrough FOLDER POINT fuse.sshfs                           serves until unmounted (root)

It stands for sshfs and its kin, whose programs can't be installed everywhere: the kernel sees the same file system, by
the same protocol, under the same name. It is killed to play a server that goes away.

The protocol is that of ``include/uapi/linux/fuse.h`` (7.31); fuse(4) tells of the device.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import resource
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT_NODE = 1
_IN = struct.Struct("<IIQQIIII")  # length, opcode, request, node, uid, gid, pid, -
_OUT = struct.Struct("<IiQ")  # length, error, request
_WRITE = 1 << 20
_NO_REPLY = frozenset({2, 36, 42})  # FORGET, INTERRUPT, BATCH_FORGET
_SIZE, _MODE, _UID, _GID, _ATIME, _MTIME, _ATIME_NOW, _MTIME_NOW = 8, 1, 2, 4, 16, 32, 128, 256
_RENAME_NOREPLACE = 1
_DIRECT_IO = 1  # FOPEN_DIRECT_IO: nothing is cached, so nothing can be mapped for writing

#: What a file system may lack, as many do.
LACKS = ("links", "permissions", "sizes", "folder syncs", "maps")


@functools.cache
def why_not() -> str:
    """The reason why it can't be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    with tempfile.TemporaryDirectory() as point:
        try:
            device = mount(point, "fuse.tried")
        except OSError as error:
            return f"no FUSE file system can be mounted here: {error}"
        ended = subprocess.run(["umount", "-l", point], capture_output=True, text=True)
        os.close(device)
        return f"it can't be unmounted here: {ended.stderr}" if ended.returncode else ""


class Server:
    """Answers requests about the files of a folder.

    Parameters
    ----------
    folder : str
        Behind the file system.
    device : int
        ``/dev/fuse``, opened.
    lacks : str
        One of `LACKS`, or nothing.
    """

    def __init__(self, folder: str, device: int, lacks: str = "") -> None:
        self._device, self._lacks = device, lacks
        self._nodes = {ROOT_NODE: os.open(folder, os.O_PATH | os.O_DIRECTORY)}
        self._numbers: dict[int, int] = {}  # inode -> node: names of one file are one node
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            **{1: self.look_up, 3: self.attributes, 4: self.set_attributes, 5: self.read_link, 6: self.symlink},
            **{9: self.mkdir, 10: self.unlink, 11: self.rmdir, 12: self.rename, 13: self.link, 14: self.open},
            **{15: self.read, 16: self.write, 17: self.statfs, 18: self.release, 20: self.fsync, 25: self.flush},
            **{26: self.init, 27: self.open, 28: self.read_folder, 29: self.release, 35: self.create},
            **{30: self.fsync_folder, 45: self.rename_with_flags},
        }

    def serve(self) -> None:
        """Until it is unmounted."""
        while True:
            try:
                request = os.read(self._device, _WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # a request that was taken back
                    continue
                if error.errno == errno.ENODEV:
                    return
                raise
            _, opcode, number, node, *_ = _IN.unpack_from(request)
            if opcode not in _NO_REPLY:
                self._reply(number, *self._answer(opcode, node, request[_IN.size :]))

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode not in self._answers:
            return errno.ENOSYS, b""
        try:
            return 0, self._answers[opcode](node, body)
        except OSError as error:
            return error.errno or errno.EIO, b""

    def _reply(self, number: int, error: int, body: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was taken back meanwhile
            os.write(self._device, _OUT.pack(_OUT.size + len(body), -error, number) + body)

    # -- nodes

    def _path(self, node: int) -> str:
        return f"/proc/self/fd/{self._nodes[node]}"

    def _entry(self, folder: int, name: bytes) -> bytes:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._nodes[folder])
        found = os.fstat(fd)
        node = self._numbers.get(found.st_ino)
        if node is None:
            node = self._numbers[found.st_ino] = fd + 2  # each kept descriptor is a node for ever, and keeps its inode
            self._nodes[node] = fd
        else:
            os.close(fd)
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + _attributes(found)

    def look_up(self, node: int, body: bytes) -> bytes:
        return self._entry(node, _names(body)[0])

    def attributes(self, node: int, _: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + _attributes(os.fstat(self._nodes[node]))

    def set_attributes(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = struct.unpack_from(
            "<IIQQQQQQIIIIIIII", body
        )
        if valid & _MODE and self._lacks == "permissions":
            raise OSError(errno.EPERM, "no permissions here")
        path, before = self._path(node), os.fstat(self._nodes[node])
        if valid & _MODE:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & (_UID | _GID):
            os.chown(path, uid if valid & _UID else -1, gid if valid & _GID else -1)
        if valid & _SIZE:
            os.truncate(path, size)
        if valid & (_ATIME_NOW | _MTIME_NOW):
            os.utime(path)
        elif valid & (_ATIME | _MTIME):
            atime_all = atime * 10**9 + atime_ns if valid & _ATIME else before.st_atime_ns
            os.utime(path, ns=(atime_all, mtime * 10**9 + mtime_ns if valid & _MTIME else before.st_mtime_ns))
        return self.attributes(node, b"")

    # -- names

    def read_link(self, node: int, _: bytes) -> bytes:
        return os.fsencode(os.readlink("", dir_fd=self._nodes[node]))

    def symlink(self, node: int, body: bytes) -> bytes:
        name, target = _names(body)
        os.symlink(target, name, dir_fd=self._nodes[node])
        return self._entry(node, name)

    def mkdir(self, node: int, body: bytes) -> bytes:
        mode, _ = struct.unpack_from("<II", body)
        name = _names(body[8:])[0]
        os.mkdir(name, mode, dir_fd=self._nodes[node])
        return self._entry(node, name)

    def unlink(self, node: int, body: bytes) -> bytes:
        os.unlink(_names(body)[0], dir_fd=self._nodes[node])
        return b""

    def rmdir(self, node: int, body: bytes) -> bytes:
        os.rmdir(_names(body)[0], dir_fd=self._nodes[node])
        return b""

    def rename(self, node: int, body: bytes) -> bytes:
        (target,) = struct.unpack_from("<Q", body)
        return self._move(node, target, body[8:])

    def rename_with_flags(self, node: int, body: bytes) -> bytes:
        target, flags, _ = struct.unpack_from("<QII", body)
        if flags & ~_RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, "only RENAME_NOREPLACE")
        if flags:
            with contextlib.suppress(FileNotFoundError):
                os.stat(_names(body[16:])[1], dir_fd=self._nodes[target], follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, "the new name is taken")
        return self._move(node, target, body[16:])

    def _move(self, node: int, target: int, names: bytes) -> bytes:
        old, new = _names(names)
        os.rename(old, new, src_dir_fd=self._nodes[node], dst_dir_fd=self._nodes[target])
        return b""

    def link(self, node: int, body: bytes) -> bytes:
        if self._lacks == "links":
            raise OSError(errno.EPERM, "no second names here")
        (old,) = struct.unpack_from("<Q", body)
        name = _names(body[8:])[0]
        os.link(self._path(old), name, dst_dir_fd=self._nodes[node], follow_symlinks=True)
        return self._entry(node, name)

    # -- files

    def open(self, node: int, body: bytes) -> bytes:
        flags, _ = struct.unpack_from("<II", body)
        return self._opened(os.open(self._path(node), flags & ~(os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL)))

    def _opened(self, fd: int) -> bytes:
        return struct.pack("<QII", fd, _DIRECT_IO if self._lacks == "maps" else 0, 0)

    def create(self, node: int, body: bytes) -> bytes:
        flags, mode, _, _ = struct.unpack_from("<IIII", body)
        name = _names(body[16:])[0]
        fd = os.open(name, flags | os.O_CREAT, stat.S_IMODE(mode), dir_fd=self._nodes[node])
        return self._entry(node, name) + self._opened(fd)

    def read(self, _: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(fd, size, offset)

    def write(self, _: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(fd, body[40 : 40 + size], offset), 0)

    def fsync(self, _: int, body: bytes) -> bytes:
        os.fsync(struct.unpack_from("<Q", body)[0])
        return b""

    def fsync_folder(self, node: int, body: bytes) -> bytes:
        if self._lacks == "folder syncs":
            raise OSError(errno.EINVAL, "folders can't be synced here")
        return self.fsync(node, body)

    def flush(self, _: int, __: bytes) -> bytes:
        return b""

    def release(self, _: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def read_folder(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        told = b""
        for number, name in enumerate([".", "..", *sorted(os.listdir(self._path(node)))][offset:], offset + 1):
            row = struct.pack("<QQII", 1, number, len(os.fsencode(name)), 0) + os.fsencode(name)
            row += bytes(-len(row) % 8)
            if len(told) + len(row) > size:
                break
            told += row
        return told

    def statfs(self, _: int, __: bytes) -> bytes:
        room = os.statvfs(self._path(ROOT_NODE))
        if self._lacks == "sizes":
            return bytes(80)
        counts = (room.f_blocks, room.f_bfree, room.f_bavail, room.f_files, room.f_ffree)
        return struct.pack("<QQQQQIIII24x", *counts, room.f_bsize, room.f_namemax, room.f_frsize, 0)

    def init(self, _: int, body: bytes) -> bytes:
        _, _, read_ahead, _ = struct.unpack_from("<IIII", body)
        big_writes, max_pages = 1 << 5, 1 << 22
        told = struct.pack("<IIIIHHIIHHI", 7, 31, read_ahead, big_writes | max_pages, 16, 12, _WRITE, 1, 256, 0, 0)
        return told + bytes(28)


def _names(body: bytes) -> list[bytes]:
    return body.split(b"\0")[:-1]


def _attributes(found: os.stat_result) -> bytes:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return struct.pack(
        "<QQQQQQIIIIIIIIII",
        *(found.st_ino, found.st_size, found.st_blocks, *[time // 10**9 for time in times]),
        *(time % 10**9 for time in times),
        *(found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_blksize, 0),
    )


def mount(point: str, kind: str) -> int:
    """Mount a file system of that type, as ``fuse.sshfs``; the device from which its requests are read."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"host:/folder", os.fsencode(point), kind.encode(), ctypes.c_ulong(0), options.encode()):
        os.close(device)
        raise OSError(ctypes.get_errno(), f"{kind} can't be mounted: {os.strerror(ctypes.get_errno())}")
    return device


class Mounted:
    """A folder that is served to a mount point by a process of its own.

    Parameters
    ----------
    folder : Path
        Behind it, with the files.
    point : Path
        Where they are seen.
    kind : str
        Its type in the mount table.
    lacks : str
        One of `LACKS`, or nothing.
    """

    def __init__(self, folder: Path, point: Path, kind: str, lacks: str = "") -> None:
        self._command = [sys.executable, "-m", "tests.faults.passthrough", str(folder), str(point), kind, lacks]
        self._server: subprocess.Popen[str] | None = None
        self.point = point

    def begin(self) -> None:
        """Mount it."""
        self._server = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        if self._server.stdout.readline() != "mounted\n":
            self._server.wait()
            raise OSError(f"{self._command} did not mount anything")

    def lose(self) -> None:
        """The server goes away; whoever asks it gets ``ENOTCONN`` from now on."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def end(self) -> None:
        """Unmount it, if it is mounted, whatever its state."""
        server, self._server = self._server, None
        if server is not None:
            subprocess.run(["umount", "-l", str(self.point)], check=True)
            server.communicate()


@contextlib.contextmanager
def mounted(folder: Path, point: Path, kind: str, lacks: str = "") -> Iterator[Mounted]:
    """A folder seen through a FUSE file system."""
    folder.mkdir(exist_ok=True)
    point.mkdir(exist_ok=True)
    served = Mounted(folder, point, kind, lacks)
    served.begin()
    try:
        yield served
    finally:
        served.end()


def main() -> None:
    folder, point, kind, *lacks = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each file that was looked up is kept open
    server = Server(folder, mount(point, kind), *lacks)
    print("mounted", flush=True)
    server.serve()


if __name__ == "__main__":
    main()

"""Files as ingredients (specs/file is the written format)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, shown
from pyplantx.fingerprint.value import BLOCK, combine, hash_bytes
from pyplantx.specs.base import Allocation, Payload, Stage, Written
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import BuiltinSpec, unknown_options

#: What `allocate` takes as an ending. Readers choose by it, so it is kept; nothing fancier becomes part of a path.
_SUFFIX = re.compile(r"(\.[A-Za-z0-9_]{1,16}){1,3}")
#: The ending of an existing file: one suffix, or two if the last is a compression.
_SUFFIX_AT_END = re.compile(r"(?<=[^.])((\.[A-Za-z0-9_]{1,16})?\.(gz|bz2|xz|zst)|\.[A-Za-z0-9_]{1,16})$")


class FileSpec(BuiltinSpec):
    """A file; sent as a path (copied) or allocated, received as the path of a read-only file."""

    name = "file"

    def write(self, value: Any, stage: Stage) -> Written:
        source = _regular_file(value)
        found = _SUFFIX_AT_END.search(os.path.basename(source))
        suffix = found.group() if found else ""
        part = f"file{suffix}"
        with open(source, "rb", buffering=0) as reader, open(stage.path(part), "xb", buffering=0) as writer:
            digest = _file_digest(_copied(reader, writer), suffix)
        return Written(digest, {"part": part})

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        return payload.path(_file_part(payload, meta))

    def allocate(self, stage: Stage, **options: Any) -> Allocation:
        """Begin a file.

        Parameters
        ----------
        stage : Stage
            Where it will lie.
        suffix : str, optional
            Its ending, such as ``".png"``.

        Returns
        -------
        Allocation
            Its handle is the path at which to create the file.
        """
        suffix = options.pop("suffix", None)
        if options:
            raise unknown_options("a file", options, ("suffix",))
        suffix = "" if suffix is None else suffix
        if not isinstance(suffix, str) or (suffix and not _SUFFIX.fullmatch(suffix)):
            raise BadRequest(f"{shown(suffix)} can't be the ending of a file", hint='use one like ".png" or ".tar.gz"')
        return _FileAllocation(stage.path(f"file{suffix}"), suffix)

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        part = _file_part(payload, meta)
        return f"{part} of {os.stat(payload.path(part)).st_size:,} bytes"


class _FileAllocation:
    def __init__(self, path: str, suffix: str) -> None:
        self.handle = path
        self._suffix = suffix

    def seal(self) -> Written:
        if not os.path.lexists(self.handle):
            raise CannotStore(
                f"the allocated file was never written: nothing is at {self.handle}",
                hint="write the file at the path that allocate gave before sending it",
            )
        if is_being_written(_regular_file(self.handle)):
            raise CannotStore(
                f"the allocated file is still open for writing: what is written to {self.handle} from now on, or waits "
                "in a buffer, would not be part of it",
                hint="close it before pipe.send: with open(path, 'w') as file: ..., file.close(), del memmap",
            )
        with open(self.handle, "rb", buffering=0) as reader:
            digest = _file_digest(_copied(reader, None), self._suffix)
        return Written(digest, {"part": f"file{self._suffix}"})

    def discard(self) -> None:
        """Nothing is held open."""


def _file_part(payload: Payload, meta: Mapping[str, Any]) -> str:
    part = meta.get("part")
    if tuple(payload.parts()) != (part,):
        raise DamagedObject(f"a file has the one part {part!r}, this one has {', '.join(payload.parts()) or 'none'}")
    return str(part)


def is_being_written(path: str) -> bool:
    """Whether this process has a file open for writing, as far as the system tells."""
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:  # another system than Linux
        return False
    file = os.stat(path)
    return any(_writes_to(number, file) for number in descriptors)


def _writes_to(descriptor: str, file: os.stat_result) -> bool:
    try:
        if not os.path.samestat(os.stat(f"/proc/self/fd/{descriptor}"), file):
            return False
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
            flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
    except (OSError, StopIteration):  # closed meanwhile
        return False
    return flags & os.O_ACCMODE != os.O_RDONLY


def _regular_file(value: Any) -> str:
    hint = "send the path of an existing file"
    if not isinstance(value, (str, os.PathLike)):
        raise CannotStore(f"value is a {type_name(type(value))}, not a path", hint=hint)
    path = os.fspath(value)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise CannotStore(f"there is no file at {path!r}: {error}", hint=hint) from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise CannotStore(f"{path!r} is {what}", hint="pack a folder into one file (shutil.make_archive) and send that")
    return str(path)


def _copied(reader: Any, writer: Any | None) -> Iterator[memoryview]:
    """The blocks of a file, each written to `writer` before it is given out."""
    block = memoryview(bytearray(BLOCK))
    while length := _fill(reader, block):
        if writer is not None:
            _write_all(writer, block[:length])
        yield block[:length]


def _fill(reader: Any, block: memoryview) -> int:
    done = 0
    while done < len(block) and (got := reader.readinto(block[done:])):
        done += got
    return done


def _write_all(writer: Any, data: memoryview) -> None:
    while data:
        data = data[writer.write(data) :]


def _file_digest(blocks: Iterator[memoryview], suffix: str) -> Digest:
    return combine(b"file\0" + suffix.encode(), [hash_bytes(block) for block in blocks])

"""What a store says about itself in ``format.json``: which format it has, and whether it is signed.

This file may know: the format's version, signatures, the checks that follow from them. It may not know: what a record
means, lmdb, locks, sessions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import StoreTooNew
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.files import Layout, fresh_id, make_root, read_small, write_file, write_first
from pyplantx.warehouse.records import from_json, to_json
from pyplantx.warehouse.trust import Key, Signature, check_unsigned, key_path, load_key, read_signature, unseal_store

if TYPE_CHECKING:
    from pyplantx.warehouse.sealing import Sealing

#: The format that is written, and the newest that is read. specs/warehouse/ has a folder for each.
FORMAT_NAME, FORMAT_VERSION = "pyplantx warehouse", 1


class Said(NamedTuple):
    """What a store says about itself; ``signature`` is None if it is not signed."""

    version: int
    signature: Signature | None


def check_format(layout: Layout) -> Said | None:
    """Refuse a store of another version before anything is touched.

    A format file that is missing or damaged refuses nothing: its checksum tells damage from a newer version.

    Raises
    ------
    StoreTooNew
        If a newer version of pyplantx has made it.
    """
    said = read_format(layout)
    if said is not None and said.version != FORMAT_VERSION:
        raise StoreTooNew(
            f"the store {layout.root!r} has format {said.version}, this pyplantx reads format {FORMAT_VERSION}",
            hint="install the pyplantx that made it, or use another directory; nothing was changed",
        )
    return said


def begin_signed(layout: Layout, key: Key) -> Signature | None:
    """Let a new store say that it is signed; what it says then, since somebody else may have been first."""
    make_root(layout.root)
    layout.make()
    write_first(layout.format, _format_text(key.sign(fresh_id())))
    said = check_format(layout)
    return None if said is None else said.signature


def mend_format(layout: Layout, *, signed: bool) -> None:
    """Let a store say which format it has where it does not: it is new, or what it said was lost or damaged.

    A signed one says it twice: without that its records would look damaged, and be removed.
    """
    if not signed:
        if _read_format(layout.format) is None:
            write_file(layout.format, _format_text(None), durable=True)
        return
    paths = (layout.format, layout.format_copy)
    texts = [read_small(path) for path in paths if _read_format(path) is not None]
    for path in paths:
        if texts and _read_format(path) is None:
            write_file(path, texts[0], durable=True)


def _format_text(signature: Signature | None) -> bytes:
    said: dict[str, Any] = {"format": FORMAT_NAME, "version": FORMAT_VERSION}
    if signature is not None:
        said["signed"] = signature._asdict()
    return to_json({**said, "check": _format_check(FORMAT_VERSION, signature)}).encode()


def read_format(layout: Layout) -> Said | None:
    """What a store says about itself; None if it is new, or what it said was lost."""
    return _read_format(layout.format) or _read_format(layout.format_copy)


def _read_format(path: str) -> Said | None:
    try:
        said = from_json(read_small(path).decode().strip())
        if not isinstance(said, dict) or not isinstance(said.get("version"), int):
            return None
        found = Said(said["version"], read_signature(said))
    except (OSError, ValueError):
        return None
    return found if said.get("check") == _format_check(*found) else None


def _format_check(version: int, signature: Signature | None = None) -> str:
    signed = "" if signature is None else f" {signature.text}"
    return hash_text(f"{FORMAT_NAME} {version}{signed}")


def find_sealing(layout: Layout, trust: str, key: str | os.PathLike[str] | None, read_only: bool) -> Sealing | None:
    """The checks with which a store is to be opened; None: those that anybody can compute. Changes no store.

    Raises
    ------
    StoreTooNew, UntrustedStore
        If it can't be opened so.
    """
    said = check_format(layout)
    signature = None if said is None else said.signature
    if trust != "signed":
        check_unsigned(layout.root, signature, trust)
        return None
    path = key_path(key)
    if signature is None and not read_only and _is_new(layout):
        signature = begin_signed(layout, load_key(path, layout.root, make=True))
    found, signature = unseal_store(layout.root, signature, path)
    from pyplantx.warehouse.sealing import Sealing  # not for the others

    return Sealing(found.secret, signature.store)


def _is_new(layout: Layout) -> bool:
    """Whether there is nothing yet that could be signed or not."""
    files = (layout.format, layout.format_copy, os.path.join(layout.meta, "data.mdb"))
    return not any(map(os.path.lexists, files)) and not (os.path.isdir(layout.objects) and os.listdir(layout.objects))

"""An index that lies apart from the objects: on a disk of this machine, while they are on one that is shared.

This file may know: the two directories, and the note that each keeps of the other. It may not know: lmdb, records.

The store's directory remembers in ``index.json`` where its index is; the index's directory holds the same number in
``objects.json``. So neither is ever opened without the other, or with one that belongs to another store.
"""

from __future__ import annotations

import os
from typing import Any, Final

from pyplantx.basics.logs import log
from pyplantx.errors import WarehouseError
from pyplantx.warehouse.files import Layout, fresh_id, read_small, write_file, write_first
from pyplantx.warehouse.filesystems import network_mount
from pyplantx.warehouse.locks import host_name
from pyplantx.warehouse.records import from_json, to_json

_HERE, _THERE = "index.json", "objects.json"
_FIELDS = {_HERE: ("index", "host", "pair"), _THERE: ("objects", "pair")}

_LOST_NOTE = "take it back from a copy, or remove it and open the store as before, with the same index="
_LOST_BOTH = (
    "open the store as before, with the same index=: what it said stands there, too; else take the note back from a "
    "copy, or remove it and open the store with an empty folder as index=: the index begins anew from its backup"
)


#: What a damaged note says, by identity.
_DAMAGED: Final[dict[str, Any]] = {}


def refuse_network(layout: Layout) -> None:
    """Raise if the index lies on a network file system, or on what may be one.

    Raises
    ------
    WarehouseError
        With the mount, and what to do.
    """
    mount = network_mount(layout.index)
    if mount is not None:
        named = f"({mount.kind} {mount.source}, mounted on {mount.point})"
        if mount.is_known:
            what, which = f"a network file system {named}", "if never more than one machine uses it"
        else:
            what, which = (
                f"what may be a network file system {named}",
                "if it is a local one, or no other machine uses it",
            )
        raise WarehouseError(
            f"the index of the store {layout.root!r} would lie on {what}, where its locks and memory maps don't hold",
            hint="Plant(dir, index='/a/local/folder') keeps the index on this machine and the objects there; "
            f"Plant(dir, network_index=True) {which}",
        )


def check_pair(layout: Layout) -> None:
    """Raise unless the index that is to be opened is the store's, or one may be begun there. Writes nothing.

    Raises
    ------
    WarehouseError
        If the index lies elsewhere, is lost, or belongs to another store.
    """
    noted = _here(layout)
    if noted is None:
        _check_new(layout)
    elif not layout.is_apart or not _fits(layout, noted):
        raise WarehouseError(
            f"the index of the store {layout.root!r} lies in {noted['index']!r} on {noted['host']!r}, "
            f"not in {layout.index!r}",
            hint=f"open it with index={noted['index']!r}; if that is lost, remove "
            f"{os.path.join(layout.root, _HERE)!r}: the index begins anew from its backup",
        )


def _check_new(layout: Layout) -> None:
    """Nothing says that the index lies elsewhere."""
    if not layout.is_apart:
        _check_inside(layout)
        return
    if os.path.exists(os.path.join(layout.root, "meta.lmdb", "data.mdb")):
        raise WarehouseError(
            f"the store {layout.root!r} has its index inside, and not in {layout.index!r}",
            hint="open it without index=",
        )
    there = _read(layout.index, _THERE)
    if _names(there, layout):
        return  # the note here was lost
    if there or os.path.exists(os.path.join(layout.meta, "data.mdb")):
        raise WarehouseError(
            f"{layout.index!r} holds the index of another store", hint="name an empty folder: index=path"
        )


def _check_inside(layout: Layout) -> None:
    """Refuse objects without any trace of an index: it lies elsewhere, and the note about that was lost.

    A store whose index lies inside has these folders from the beginning, before its first object; damage does not take
    them all.
    """
    if any(map(os.path.lexists, (layout.meta, layout.small, layout.locks, layout.claims))):
        return
    if _has_entries(layout.objects) or os.path.lexists(os.path.join(layout.backup, "meta.mdb")):
        raise WarehouseError(
            f"the store {layout.root!r} has no index, and nothing in it says where that is",
            hint="open it with the same index= as before. If that is lost, open it with an empty folder as index=, or "
            f"make the folder {layout.meta!r}: the index begins anew from its backup",
        )


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def pair(layout: Layout) -> None:
    """Let the two directories know of each other, if they don't yet. Call with nobody else in the store.

    A note that is damaged, while the other one still says what stood there, is put aside and written anew.
    """
    if not layout.is_apart:
        return
    noted = _here(layout)
    if noted is not None:
        if _has_lost_its_note(layout, noted):
            _keep_damaged(layout.index, _THERE, layout.index_aside(_THERE))
            there = {"objects": layout.root, "pair": noted["pair"]}
            write_file(os.path.join(layout.index, _THERE), to_json(there).encode(), durable=True)
        return
    known = _read(layout.index, _THERE)
    number = str(known.get("pair")) if known is not None and _names(known, layout) else fresh_id()
    there = {"objects": layout.root, "pair": number}
    here = {"index": layout.index, "host": host_name(), "pair": number}
    write_file(os.path.join(layout.index, _THERE), to_json(there).encode(), durable=True)
    if _keep_damaged(layout.root, _HERE, layout.aside(_HERE)):
        write_file(os.path.join(layout.root, _HERE), to_json(here).encode(), durable=True)
    else:
        write_first(os.path.join(layout.root, _HERE), to_json(here).encode())
    check_pair(layout)  # somebody may have been first, with an index in another place


def _keep_damaged(folder: str, name: str, aside: str) -> bool:
    """Keep a copy of a note that is damaged, as is known by now if there is one; whether there is.

    It stays until it is replaced: a store without any would begin an index inside for who names no other.
    """
    path = os.path.join(folder, name)
    try:
        damaged = read_small(path)
    except FileNotFoundError:
        return False
    write_file(aside, damaged, durable=True)
    log().warning("the note %r was damaged: it is written anew, and the damaged one is %r", path, aside)
    return True


def _here(layout: Layout) -> dict[str, Any] | None:
    """What the store says of its index; None if that was lost, or is damaged and the index knows it, too."""
    noted = _look(layout.root, _HERE)
    if noted is _DAMAGED and layout.is_apart and _names(_there(layout), layout):
        return None
    return _sound(noted, layout.root, _HERE)


def _there(layout: Layout) -> dict[str, Any] | None:
    """What the index says of its store; None if that was lost, or is damaged."""
    return _look(layout.index, _THERE) or None


def _names(there: dict[str, Any] | None, layout: Layout) -> bool:
    """Whether the note beside an index names this very store."""
    return there is not None and there["objects"] == layout.root


def _fits(layout: Layout, noted: dict[str, Any]) -> bool:
    there = _there(layout)
    if there is None:
        return _has_lost_its_note(layout, noted)
    return bool(there["pair"] == noted["pair"])


def _has_lost_its_note(layout: Layout, noted: dict[str, Any]) -> bool:
    """Whether an index lies where the store says, on this machine, and has no note of its own, or a damaged one."""
    is_here = (noted["index"], noted["host"]) == (layout.index, host_name())
    return is_here and os.path.exists(os.path.join(layout.meta, "data.mdb")) and _there(layout) is None


def _read(folder: str, name: str) -> dict[str, Any] | None:
    """What a note says; None if there is none.

    Raises
    ------
    WarehouseError
        If it can't be read, or is damaged.
    """
    return _sound(_look(folder, name), folder, name)


def _sound(noted: dict[str, Any] | None, folder: str, name: str) -> dict[str, Any] | None:
    if noted is _DAMAGED:
        path = os.path.join(folder, name)
        raise WarehouseError(
            f"the note {path!r} is damaged, so it can't be told where the index of this store is", hint=_LOST_BOTH
        )
    return noted


def _look(folder: str, name: str) -> dict[str, Any] | None:
    """What a note says; None if there is none, `_DAMAGED` if what stands there is none of ours."""
    path = os.path.join(folder, name)
    try:
        text = read_small(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WarehouseError(f"the note {path!r} can't be read: {error.strerror}", hint=_LOST_NOTE) from error
    try:
        said = from_json(text.decode())
    except ValueError:
        return _DAMAGED
    is_ours = isinstance(said, dict) and all(isinstance(said.get(field), str) for field in _FIELDS[name])
    return said if is_ours else _DAMAGED

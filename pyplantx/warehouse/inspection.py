"""Before the index is opened: is each data file one that LMDB may be given?

A damaged or truncated file can kill the process inside LMDB, so it never gets one to see that is not either what the
last clean close left, or sound by `lmdb.verify` and a look-up of every key. Whoever sees damage while the store is
open leaves a note, so that nobody believes the mark of a clean close before the files were inspected.

This file may know: data files, records with checksums, backups, the mark of a clean close. It may not know: sessions,
transactions of others, what a record means.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from typing import TYPE_CHECKING, Any

import lmdb

from pyplantx.basics.disk import allow
from pyplantx.errors import WarehouseError
from pyplantx.fingerprint.value import Hasher
from pyplantx.warehouse.environments import FIRST_MAP, TABLES, Key
from pyplantx.warehouse.files import Layout, read_small, remove_file, sync_path, write_file
from pyplantx.warehouse.records import from_json, to_json

if TYPE_CHECKING:
    from pyplantx.warehouse.environments import Txn

_INDEX = "meta.lmdb"  # the folder's name; the other one holds payloads
#: Bytes of a data file that the mark of a clean close covers (DESIGN: up to 64 MiB by default).
_MARKED = 64 << 20  # more only where that is asked for: hashing costs 0.1 s per GiB, each time
#: Bytes that are read of it at once. Freeing larger pieces would teach malloc to take the megabytes that LMDB asks for
#: next from its heap, and to fill them with zeros, page by page: a millisecond at each opening.
_PIECE = 256 << 10

#: What LMDB 0.9 writes behind the header of its first page: its magic number, and the version of its format.
_PAGE_HEADER, _ENGINE = bytes(16), struct.pack("=II", 0xBEEFC0DE, 1)

#: Makes the hasher with which the mark of a clean close was made; None: no mark is believed, whoever made it.
NewHasher = Callable[[], Any] | None


#: Whether a record (table, key, record) matches its checksum.
IsWhole = Callable[[str, Key, bytes], bool]


def inspect_files(
    layout: Layout,
    report: Callable[[str], None],
    is_whole: IsWhole,
    new_hasher: NewHasher = Hasher,
    *,
    wholly: bool = False,
) -> None:
    """Put damaged data files aside and bring the backup of the index back. Call only while no session is open.

    Parameters
    ----------
    layout : Layout
    report : callable
        As in `Index`.
    is_whole : callable
        See `IsWhole`.
    new_hasher : callable or None
        See `NewHasher`.
    wholly : bool
        Whether a mark is believed only if it covers the whole of both files.
    """
    mark, is_settled, is_believed = _read_mark(layout), True, True
    for folder in (layout.meta, layout.small):
        remove_file(os.path.join(folder, "lock.mdb"))  # stale or forged; LMDB makes a new one
        _drop_empty(os.path.join(folder, "data.mdb"))
        if _is_as_marked(folder, mark, new_hasher, wholly):
            continue
        is_believed = False
        if not _is_sound(folder):
            aside = layout.index_aside(os.path.basename(folder))
            os.rename(folder, aside)
            os.mkdir(folder, 0o700)
            report(f"{folder!r} was damaged and is now {aside!r}; {_bring_back(layout, folder)}")
        elif folder == layout.meta and _is_lost(layout):
            report(f"the index {folder!r} was lost; {_bring_back(layout, folder)}")
        if folder == layout.meta:
            is_settled = _leave_out_damaged(layout, report, is_whole)
    if is_settled:
        remove_file(layout.doubt)
    if _is_beyond_mark(layout):
        _lift_mark(layout, keep=wholly and is_believed)


def _is_beyond_mark(layout: Layout) -> bool:
    """Whether there is more to the data files than the mark covers unless that is asked for."""
    paths = map(_data, (layout.meta, layout.small))
    return any(os.path.exists(path) and os.path.getsize(path) > _MARKED for path in paths)


def _lift_mark(layout: Layout, keep: bool) -> None:
    """Lift the mark while the store is open, because it does not cover all of the files.

    LMDB may die of damage that was not looked for. There is no mark then, and all of the files is verified before LMDB
    is given them again.
    """
    if os.path.lexists(layout.mark) and not keep:
        os.rename(layout.mark, layout.lifted_mark)


def _is_lost(layout: Layout) -> bool:
    """Whether there is no index, and a backup of one."""
    data, backup = os.path.join(layout.meta, "data.mdb"), os.path.join(layout.backup, "meta.mdb")
    return not os.path.exists(data) and os.path.exists(backup)


def _leave_out_damaged(layout: Layout, report: Callable[[str], None], is_whole: IsWhole) -> bool:
    """Copy the records that match their checksums to a new file, if there are others; False if that can't be done.

    They can't be taken out one by one: their size may be what is damaged, and LMDB would move what lies beside them by
    that size.
    """
    data = os.path.join(layout.meta, "data.mdb")
    if not os.path.exists(data):
        return True
    beside, aside = f"{data}.new", layout.index_aside(_INDEX)
    try:
        damaged = _copy_sound(data, beside, is_whole)
        if damaged:
            _put_in_place(beside, data, aside)
    except (lmdb.Error, OSError) as error:  # a full disk, say: the store works with the file as it is
        report(f"the damaged record(s) of {layout.meta!r} could not be left out, and count as missing: {error}")
        _remove_copies(beside, aside)
        return False
    if damaged:
        report(
            f"{damaged} damaged record(s) of {layout.meta!r} count as missing; the file as it was is now in {aside!r}"
        )
    return True


def _copy_sound(data: str, beside: str, is_whole: IsWhole) -> int:
    """How many records of an index don't match their checksums; if there are some, the others are copied."""
    with _opened_alone(data) as env, env.begin() as txn:
        damaged = sum(not is_whole(table, key, value) for table, key, value in _records(env, txn))
        if damaged:
            remove_file(beside)
            _copy_records(env, txn, beside, is_whole)
    return damaged


def _put_in_place(beside: str, data: str, aside: str) -> None:
    import shutil  # as in `_bring_back`

    os.mkdir(aside, 0o700)
    shutil.copyfile(data, os.path.join(aside, "data.mdb"))
    os.rename(beside, data)
    sync_path(os.path.dirname(data))


def _remove_copies(beside: str, aside: str) -> None:
    remove_file(beside)
    remove_file(os.path.join(aside, "data.mdb"))
    if os.path.isdir(aside):
        os.rmdir(aside)


def _records(env: lmdb.Environment, txn: Txn) -> Iterator[tuple[str, Key, bytes]]:
    """Table, key and record of everything in an index."""
    for name in txn.cursor().iternext(values=False):
        for key, record in txn.cursor(env.open_db(name, txn, create=False)):
            yield name.decode(), key, record


def _copy_records(env: lmdb.Environment, txn: Txn, path: str, is_whole: IsWhole) -> None:
    """Write the sound records of an index to a new data file."""
    size = 2 * max(FIRST_MAP, int(env.info()["map_size"]))
    with _opened_alone(path, map_size=size, readonly=False, sync=False) as new:
        tables = {name: new.open_db(name.encode()) for name in TABLES}
        with new.begin(write=True) as into:
            for table, key, record in _records(env, txn):
                if is_whole(table, key, record):
                    into.put(key, record, db=tables[table])
    allow(path, 0o600)
    sync_path(path)


def _opened_alone(path: str, **options: Any) -> lmdb.Environment:
    """A data file that nobody else has open, without LMDB's lock file; for reading, unless `options` differ."""
    size = max(FIRST_MAP, os.path.getsize(path)) if os.path.exists(path) else FIRST_MAP
    private = {"map_size": size, "readonly": True, "lock": False, "subdir": False, "lib_version": 0}
    return lmdb.open(os.fsencode(path), max_dbs=len(TABLES), **{**private, **options})


def is_as_closed(layout: Layout, new_hasher: NewHasher = Hasher, *, wholly: bool = False) -> bool:
    """Whether both data files are what the last clean close has left; True is good even while others may write."""
    mark = _read_mark(layout)
    return all(_is_as_marked(folder, mark, new_hasher, wholly) for folder in (layout.meta, layout.small))


def refuse_damaged(layout: Layout, new_hasher: NewHasher = Hasher, *, wholly: bool = False) -> None:
    """`inspect_files` for those who may not write: they are told. Call only while nobody writes.

    Raises
    ------
    WarehouseError
        If LMDB may not be given one of the data files.
    """
    mark = _read_mark(layout)
    for folder in (layout.meta, layout.small):
        if not _is_as_marked(folder, mark, new_hasher, wholly) and not _is_sound(folder):
            raise WarehouseError(
                f"the index {folder!r} is damaged, so the store can't be read",
                hint="open it once so that it may write (Warehouse(directory)): the damaged file is put aside, "
                "and the backup of the index serves if there is one",
            )


def _drop_empty(data: str) -> None:
    """An empty data file is what a kill leaves while LMDB makes it, or damage: either way there is nothing in it."""
    if os.path.isfile(data) and os.path.getsize(data) == 0:
        remove_file(data)


def write_mark(layout: Layout, *, durable: bool, new_hasher: NewHasher = Hasher, wholly: bool = False) -> None:
    """Note what both data files are, now that all sessions have closed.

    Parameters
    ----------
    layout : Layout
    durable : bool
        Whether the note is synced to disk.
    new_hasher : callable or None
        See `NewHasher`.
    wholly : bool
        Whether it covers the whole of both files, however large.
    """
    if os.path.lexists(layout.lifted_mark):
        if not wholly:  # nobody has written anything
            os.rename(layout.lifted_mark, layout.mark)
            return
        remove_file(layout.lifted_mark)
    make = new_hasher or Hasher
    found = {os.path.basename(folder): _describe(folder, make, wholly) for folder in (layout.meta, layout.small)}
    write_file(layout.mark, to_json(found).encode(), durable=durable)


def _read_mark(layout: Layout) -> dict[str, Any]:
    """The mark of the last clean close; nothing, if somebody has seen damage since."""
    if os.path.lexists(layout.doubt):
        return {}
    try:
        mark = from_json(read_small(layout.mark).decode())
    except (OSError, ValueError):
        return {}  # no mark, or none that can be read: the files are verified
    return mark if isinstance(mark, dict) else {}


def _is_as_marked(folder: str, mark: Mapping[str, Any], new_hasher: NewHasher, wholly: bool) -> bool:
    """Whether a data file is what the last clean close has left; what lies beyond 64 MiB only if that is asked for."""
    if new_hasher is None:
        return False
    try:
        is_file = stat.S_ISREG(os.lstat(_data(folder)).st_mode)
        noted = mark.get(os.path.basename(folder))
        if not is_file or not isinstance(noted, list):
            return False
        found = _describe(folder, new_hasher, wholly)
        return noted[: len(found)] == found and _is_of_this_machine(folder)
    except OSError:
        return False


def _is_of_this_machine(folder: str) -> bool:
    """Whether a data file has this machine's byte order and this engine's format: a copy may come from elsewhere."""
    with open(_data(folder), "rb", buffering=0) as file:
        return file.read(len(_PAGE_HEADER) + len(_ENGINE)).endswith(_ENGINE)


def _describe(folder: str, new_hasher: Callable[[], Any], wholly: bool) -> list[int | str]:
    """Size of the data file, digest of its first 64 MiB, and if that is not all and is asked for, of all of it."""
    hasher = new_hasher()
    with open(_data(folder), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        _hash_more(hasher, file, _MARKED)
        found = [size, hasher.hexdigest()]
        if wholly and size > _MARKED:
            _hash_more(hasher, file, size - _MARKED)
            found.append(hasher.hexdigest())
    return found


def _hash_more(hasher: Any, file: FileIO, most: int) -> None:
    """Feed the hasher with what comes next, up to that many bytes."""
    piece = memoryview(bytearray(_PIECE))
    while most > 0:
        count = file.readinto(piece[: min(most, _PIECE)])
        if not count:
            return
        hasher.update(piece[:count])
        most -= count


def _data(folder: str) -> str:
    return os.path.join(folder, "data.mdb")


def _is_sound(folder: str) -> bool:
    """Whether LMDB may be given a data file, and finds in it all that there is."""
    data = os.path.join(folder, "data.mdb")
    try:
        info = os.lstat(data)
    except FileNotFoundError:
        return True  # nothing there: nothing wrong with it
    try:
        return stat.S_ISREG(info.st_mode) and not _verify(data) and not _walk(data, folder.endswith(_INDEX))
    except OSError:
        return False


def _verify(data: str) -> list[str]:
    from lmdb.verify import VerifyError, verify  # pure Python and only needed after an unclean end

    try:
        return list(verify(data, subdir=False))  # type: ignore[no-untyped-call]
    except VerifyError as error:
        return [str(error)]


def _walk(data: str, is_index: bool) -> list[str]:
    """Look up every key, as reading will; only for what `verify` lets pass, since LMDB can die of the rest.

    `verify` does not compare keys with the branches above them (where a key leads elsewhere, its record can't be found,
    nor removed), and it does not see that a file belongs elsewhere.
    """
    try:
        with _opened_alone(data) as env, env.begin() as txn:
            return _strays_of_index(env, txn) if is_index else _strays(txn, None, _is_address)
    except lmdb.Error as error:
        return [str(error)]


def _strays_of_index(env: lmdb.Environment, txn: Txn) -> list[str]:
    names = {name.encode() for name in TABLES}
    found = list(txn.cursor().iternext(values=False))
    strays = [repr(name) for name in found if name not in names]
    for name in names.intersection(found):
        strays += _strays(txn, env.open_db(name, txn, create=False), bool)
    return strays


def _strays(txn: Txn, table: Any, belongs: Callable[[Key], bool]) -> list[str]:
    """The first key of a table that does not belong there, or is not found where it is looked for."""
    finder = txn.cursor(table)
    for key in txn.cursor(table).iternext(values=False):
        if not belongs(key) or not finder.set_key(key):
            return [f"the key {key!r} does not belong where it is"]
    return []


def _is_address(key: Key) -> bool:
    return len(key) == 32 and key.isalnum()


def _bring_back(layout: Layout, folder: str) -> str:
    """Put the backup in place; what was done, in words."""
    backup = os.path.join(layout.backup, "meta.mdb")
    if folder != layout.meta:
        return "the ingredients in it are made again when they are needed"
    if not os.path.isfile(backup) or os.path.islink(backup) or _verify(backup) or _walk(backup, is_index=True):
        return "there is no backup that can be used, so everything is made again when it is needed"
    import shutil  # some milliseconds, for those who lost an index only

    beside = os.path.join(folder, "data.mdb.new")
    remove_file(beside)
    shutil.copyfile(backup, beside)
    allow(beside, 0o600)
    sync_path(beside)
    os.rename(beside, os.path.join(folder, "data.mdb"))
    sync_path(folder)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.path.getmtime(backup)))
    return f"its backup of {when} serves, what is newer is made again when it is needed"

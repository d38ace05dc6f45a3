"""Whose store this is: what ``format.json`` says about a signature, the user's key, who may open and who may alter it.

This file may know: keys and where they are kept, what a signed store says about itself. It may not know: records,
lmdb, locks. Nothing in here writes to a store; a key file is made for a new signed store and for no other.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from pyplantx.basics.tuples import NamedTuple
from pyplantx.errors import UntrustedStore, WarehouseError

if TYPE_CHECKING:
    from pyplantx.warehouse.files import Layout

#: Names the key file, if `key=` doesn't.
KEY_VARIABLE = "PYPLANTX_KEY"

_KEY_BYTES = 32


class Signature(NamedTuple):
    """What a signed store says about itself in ``format.json``.

    Attributes
    ----------
    key_id : str
        Of the key that it is signed with, see `sealing.name_of`.
    store : str
        32 hex digits that no other store has; enters the store's own key.
    proof : str
        Check of the two above with the store's own key.
    """

    key_id: str
    store: str
    proof: str

    @property
    def text(self) -> str:
        """What the checks of ``format.json`` cover."""
        return f"signed {self.key_id} {self.store}"


def read_signature(said: dict[str, Any]) -> Signature | None:
    """The signature in the content of a ``format.json``; None if there is none.

    Raises
    ------
    ValueError
        If there is one that can't be read.
    """
    given = said.get("signed")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError("a signature is an object")
    found = Signature(*[str(given.get(name)) for name in Signature._fields])
    if not all(field.isascii() for field in found):
        raise ValueError("a signature has three plain texts")
    return found


class Key(NamedTuple):
    """A user's key.

    Attributes
    ----------
    path : str
        Where it is kept.
    secret : bytes
    id : str
    """

    path: str
    secret: bytes
    id: str

    def __repr__(self) -> str:
        return f"<key {self.id} in {self.path!r}>"  # never the key itself, in a log or a traceback

    def sign(self, store: str) -> Signature:
        """The signature of a new store."""
        from pyplantx.warehouse.sealing import Sealing

        bare = Signature(self.id, store, "")
        return bare._replace(proof=Sealing(self.secret, store).hash_text(bare.text))


def key_path(given: str | os.PathLike[str] | None) -> str:
    """Where the key is: as given, else as `PYPLANTX_KEY` says, else ``~/.config/pyplantx/key``."""
    chosen = given if given is not None else os.environ.get(KEY_VARIABLE)
    if chosen:
        return os.path.abspath(os.path.expanduser(os.fspath(chosen)))
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "pyplantx", "key")


def load_key(path: str, root: str, *, make: bool) -> Key:
    """The user's key.

    Parameters
    ----------
    path : str
        Of the key file.
    root : str
        Real path of the store, in which no key may lie.
    make : bool
        Whether one is made if there is none.

    Raises
    ------
    UntrustedStore
        If there is none, if it lies in the store, or if others can read it.
    """
    if os.path.commonpath([os.path.realpath(path), root]) == root:
        raise UntrustedStore(
            f"the key {path!r} lies in the store that it is to protect", hint="keep it elsewhere: Plant(..., key=path)"
        )
    if make and not os.path.lexists(path):
        _make_key(path)
    from pyplantx.warehouse.sealing import name_of

    secret = _read_key(path)
    return Key(path, secret, name_of(secret))


def _make_key(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, 0o600)
            file.write(os.urandom(_KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(fd)
    except FileExistsError:
        return  # somebody else has made it just now
    except OSError as error:
        raise WarehouseError(
            f"no key can be made at {path!r}: {error.strerror}", hint="name another place: Plant(..., key=path)"
        ) from error


def _read_key(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UntrustedStore(
            f"there is no key at {path!r} ({error.strerror})",
            hint=f"Plant(..., key=path) or the environment variable {KEY_VARIABLE} says where it is",
        ) from error
    try:
        _check_owner(path, os.fstat(fd))
        text = os.read(fd, 1024)
    finally:
        os.close(fd)
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != _KEY_BYTES:
        raise UntrustedStore(
            f"{path!r} holds no key: that is {2 * _KEY_BYTES} hex digits",
            hint="take it back from a copy, or remove it; a key that is lost can't be made again",
        )
    return secret


def _check_owner(path: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise UntrustedStore(
            f"the key {path!r} is not an ordinary file", hint="key= is the path of a file that pyplantx makes"
        )
    if info.st_uid not in (os.geteuid(), 0):
        raise UntrustedStore(f"the key {path!r} belongs to another user", hint="use one of your own")
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UntrustedStore(
            f"others can use the key {path!r} (its mode is {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod 600 {path!r}; if somebody may have read it, use a new key and a new store",
        )


# -- who may open what ----------------------------------------------------------------------------------------------


def check_unsigned(root: str, signature: Signature | None, trust: str) -> None:
    """Raise `UntrustedStore` if a store that is to be opened without a key is signed."""
    if signature is not None:
        raise UntrustedStore(
            f"the store {root!r} is signed with the key {signature.key_id}, so it can't be opened with trust={trust!r}",
            hint="open it with trust='signed' (key=path says where the key is); nothing was changed",
        )


def unseal_store(root: str, signature: Signature | None, path: str) -> tuple[Key, Signature]:
    """The key of a signed store, once it has proved to be the right one.

    Parameters
    ----------
    root : str
        Of the store.
    signature : Signature or None
        What the store says about itself.
    path : str
        Of the key file.

    Raises
    ------
    UntrustedStore
        If the store is not signed, signed with another key, or if what it says was altered.
    """
    if signature is None:
        raise UntrustedStore(
            f"the store {root!r} is not signed, so trust='signed' can't be had for what is in it",
            hint="open it with trust='own' if it is your own store, or use a new directory; nothing was changed",
        )
    key = load_key(path, root, make=False)
    if key.id != signature.key_id:
        raise UntrustedStore(
            f"the store {root!r} is signed with the key {signature.key_id}, and {path!r} is the key {key.id}",
            hint=f"name the right one: Plant(..., key=path) or the environment variable {KEY_VARIABLE}",
        )
    if key.sign(signature.store) != signature:
        raise UntrustedStore(
            f"what the store {root!r} says about its signature does not come from the key {key.id}",
            hint="its format.json was altered: take it back from a copy, or use a new directory; nothing was changed",
        )
    return key, signature


def is_private(layout: Layout) -> bool:
    """Whether the store belongs to this user and nobody else may write to it."""
    inside = [layout.root, layout.index, layout.meta, layout.small, layout.objects, layout.staging]
    inside += [os.path.join(folder, "data.mdb") for folder in (layout.meta, layout.small)]
    return all(map(is_ours, filter(os.path.exists, inside)))


def is_ours(path: str) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write to it."""
    info = os.lstat(path)
    writable = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return info.st_uid == os.geteuid() and not writable and not stat.S_ISLNK(info.st_mode)

"""One directory, opened: format, locks, index, objects, committer. Shared by all warehouses of this process on it.

This file may know: in which order a directory is opened and closed, and what a fork must not take along. It may not
know: records, specs, values.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyplantx.basics.disk import umask_advice
from pyplantx.core.trace import Digest
from pyplantx.errors import StoreBusy, StoreReadOnly, WarehouseError
from pyplantx.fingerprint.value import Hasher
from pyplantx.warehouse.apart import check_pair, pair, refuse_network
from pyplantx.warehouse.claims import close_claims, sweep_claims
from pyplantx.warehouse.committer import Committer
from pyplantx.warehouse.environments import Environments
from pyplantx.warehouse.files import RESUME, Layout, fresh_id, in_words, make_root, refuse_unreadable
from pyplantx.warehouse.formatfile import check_format, find_sealing, mend_format
from pyplantx.warehouse.index import Index
from pyplantx.warehouse.inspection import NewHasher, inspect_files, is_as_closed, refuse_damaged, write_mark
from pyplantx.warehouse.linked import has_other_names, lost_lock, part_from_copies
from pyplantx.warehouse.locks import FileLock, FolderLock
from pyplantx.warehouse.objects import Objects
from pyplantx.warehouse.staging import Staging, sweep_staging
from pyplantx.warehouse.stillness import Stillness

if TYPE_CHECKING:
    from pyplantx.warehouse.sealing import Sealing


def report(sentence: str) -> None:
    """Tell the user's log about damage that was dealt with."""
    import logging  # 6 ms: not for those who have no damage

    logging.getLogger("pyplantx.warehouse").warning("%s", sentence)


class Session:
    """An open directory. Get it with `open_session`, give it back with `close_session`.

    Attributes
    ----------
    layout, index, objects, committer, staging
        The parts of the open store.
    id : str
        Names this session in lock files and staging.
    script : str
        What runs here, see `running_script`.
    reached : set of Digest
        Addresses that users were answered with: they are not collected while the session lives.
    stillness : Stillness
        Who of its users works just now, and who keeps them from it.
    added : int
        Bytes of payloads that it has added.
    disk : int or None
        Bytes of payloads that the store may take; None: a share of the file system.
    sealing : Sealing or None
        The keyed checks of a signed store.
    settle : callable or None
        Called with the session when its last user closes it, after everything is durable.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        durability: str,
        read_only: bool,
        lock_timeout: float,
        sealing: Sealing | None = None,
        wary: bool = False,
        wholly: bool = False,
    ) -> None:
        self.layout = layout
        self._wholly = wholly  # whether the mark of a clean close is to cover all of both files
        self.sealing = sealing
        # By what the mark of a clean close is told from a forged one; nothing, if the store is somebody else's.
        self._new_hasher: NewHasher = None if wary else Hasher if sealing is None else sealing.file_hasher
        self.id = fresh_id()
        self.pid = os.getpid()
        self.durability = durability
        self.read_only = read_only
        self.users = 0
        self.script = running_script()
        self.reached: set[Digest] = set()
        self.stillness = Stillness(layout.root, lock_timeout)
        self.added = 0
        self.disk: int | None = None
        self.settle: Callable[[Session], None] | None = None
        self._presence = FileLock(os.path.join(layout.locks, "presence"), readable_only=read_only, lasting=True)
        self._entry = FileLock(os.path.join(layout.locks, "entry"), readable_only=read_only, lasting=True)
        self._folder = FolderLock(layout.meta)  # as presence, where that was removed under somebody
        durable = durability == "power"
        self.staging = Staging(self.layout, self.id, sealing, durable=durable)
        self.objects = Objects(self.layout, sealing)
        environments = Environments(self.layout, durable=durable, read_only=read_only, lock_timeout=lock_timeout)
        self.index = Index(environments, report=report, sealing=sealing)
        self.committer = Committer(self.index, self.objects, durable=durable, report=report)

    def open(self) -> None:
        """Open the directory. If that fails, or is interrupted, `leave` cleans up."""
        with in_words(f"the store {self.layout.root!r} can't be opened", os.path.dirname(self.layout.root)):
            check_format(self.layout)
            if self.read_only:
                self._look_only(self.index.environments.lock_timeout)
                self.index.open()
            else:
                self._prepare(self.index.environments.lock_timeout)

    def _prepare(self, lock_timeout: float) -> None:
        """Take the locks, let nothing damaged reach LMDB, open the index.

        LMDB has a lock of its own for opening, without a time limit: ours is held meanwhile, so that whoever is stopped
        there is named to those who wait.
        """
        for folder, aside in self.layout.make():
            report(
                f"{folder!r} was no folder (a store can be moved and linked to as a whole only); that is now "
                f"{aside!r}, and what the store had in there is made again when it is needed"
            )
        mend_format(self.layout, signed=self.sealing is not None)
        self._enter(lock_timeout)
        try:
            self._await_checks(lock_timeout)
            if self._get_alone():
                self._own_files(lock_timeout)
                pair(self.layout)
                self._inspect()
                sweep_staging(self.layout)
                self._sweep_workspaces()
                sweep_claims(self.layout.claims)
            else:
                self._refuse_other_locks(lock_timeout)
            self._be_present(lock_timeout)
            self._open_index(lock_timeout)
        finally:
            self._entry.release()
        self.staging.begin()

    def _inspect(self) -> None:
        inspect_files(self.layout, report, self.index.checks.is_whole, self._new_hasher, wholly=self._wholly)

    def _open_index(self, lock_timeout: float) -> None:
        """Open the index; after a close look if it turns out to be damaged where the mark of a clean close ends."""
        try:
            self.index.open()
        except WarehouseError:
            if not os.path.lexists(self.layout.doubt) or not self._get_alone():
                raise
            self.index.environments.let_go()
            self._inspect()
            self.index.damage.inspected()
            self._be_present(lock_timeout)
            self.index.open()

    def _sweep_workspaces(self) -> None:
        """Give up the work of killed reactors that nobody came back to."""
        if os.path.isdir(os.path.join(self.layout.staging, RESUME)):
            from pyplantx.warehouse.resume import sweep_workspaces  # not for those who have none

            sweep_workspaces(self.layout.staging)

    def _enter(self, lock_timeout: float) -> None:
        """Take the lock without which nobody tries to be alone.

        Trying to make a shared lock exclusive gives it away for a moment, even in vain. Meanwhile nobody else
        may come in and believe that the store is unused.
        """
        if not self._entry.acquire(lock_timeout):
            raise self._busy(self._entry.holder()[0], lock_timeout)
        self._entry.sign()

    def _look_only(self, lock_timeout: float) -> None:
        if not os.path.exists(os.path.join(self.layout.meta, "data.mdb")):
            raise WarehouseError(
                f"there is no store in {self.layout.root!r}",
                hint="is the path right? Only a plant or export that may write makes one",
            )
        if not os.path.exists(self._presence.path) or not os.path.exists(self._entry.path):
            # A copy without the locks: nobody writes here, unless they were removed under somebody.
            self._look_at_copy(lock_timeout)
            return
        # Needs no lock, and an exclusive one may be more than a reader can get.
        if is_as_closed(self.layout, self._new_hasher, wholly=self._wholly):
            self._be_present(lock_timeout)
            return
        self._enter(lock_timeout)
        try:
            if self._get_alone():
                refuse_damaged(self.layout, self._new_hasher, wholly=self._wholly)
            self._be_present(lock_timeout)
        finally:
            self._entry.release()

    def _look_at_copy(self, lock_timeout: float) -> None:
        """Be present by the folder's lock alone; that of the other data file is the one of those who come in."""
        entry = FolderLock(self.layout.small)
        try:
            if not entry.acquire(lock_timeout):
                raise self._busy(_named(entry.processes()), lock_timeout)
            self._await_checks(lock_timeout)
            if self._folder.acquire():
                refuse_damaged(self.layout, self._new_hasher, wholly=self._wholly)
            self._await_checks(lock_timeout)
        finally:
            entry.close()

    def _be_present(self, lock_timeout: float) -> None:
        """Hold the presence locks together with all others who have the store open."""
        if not self._presence.acquire(lock_timeout, shared=True):
            raise self._busy(_named(self._holders() - {self.pid}), lock_timeout)
        self._await_checks(lock_timeout)

    def _await_checks(self, lock_timeout: float) -> None:
        """Hold the folder's lock together with others, once nobody checks the files any more.

        Whoever is here then has found them sound: who has not is gone, and left them to be checked by the next one.
        """
        if not self._folder.acquire(lock_timeout, shared=True):
            raise self._busy(_named(self._folder.processes() - {self.pid}), lock_timeout)

    def _get_alone(self) -> bool:
        """Whether nobody else is here; with the entry lock in hand only."""
        return self._presence.acquire() and self._folder.acquire()

    def _own_files(self, lock_timeout: float) -> None:
        """Have no file that is written in place in common with another store, of which this one is a copy."""
        if not part_from_copies(self.layout):
            return
        report(
            f"files of the store {self.layout.root!r} were those of another one, too (a copy by hard links?); it has "
            "its own now"
        )
        self._enter(lock_timeout)  # the locks are new ones
        if not self._get_alone():
            raise self._busy(_named(self._holders() - {self.pid}), lock_timeout)

    def _refuse_other_locks(self, lock_timeout: float) -> None:
        """Refuse what somebody else has open under locks that are not those of this directory.

        Without LMDB's own lock file in common, each of two processes would write over what the other one has committed.

        Raises
        ------
        StoreBusy
        """
        holders = self._holders()
        who = _named(holders - {self.pid} or holders)
        if self._folder.acquire() and has_other_names(self._presence.path):
            raise StoreBusy(
                f"the store {self.layout.root!r} shares its files with a copy, by hard links, that {who} has open",
                hint="close it there; then this one gets files of its own",
            )
        lost = lost_lock(self.layout, lock_timeout)
        if lost is not None:
            raise StoreBusy(
                f"the lock file {lost!r} was removed while {who} has the store open",
                hint="close the store there, or end that process; then it opens again",
            )

    def _busy(self, who: str, lock_timeout: float) -> StoreBusy:
        return StoreBusy(
            f"the store {self.layout.root!r} is being opened, checked or closed by {who} "
            f"for more than {lock_timeout:g} s",
            hint="is that process stopped? Let it go on or end it",
        )

    def is_alone(self) -> bool:
        """Try to have the store to ourselves; while we do, others wait to open it. `share` ends that."""
        if self.read_only or not self._entry.acquire():
            return False
        self._entry.sign()
        return self._get_alone()

    def other_processes(self) -> set[int]:
        """Ids of the other processes that have the store open, as far as the system tells."""
        return self._holders() - {self.pid}

    def _holders(self) -> set[int]:
        return self._presence.processes() | self._folder.processes()

    def others_may_store(self) -> bool:
        """Whether another process may have stored what it is still to name; asks for no lock."""
        if not self._have_others_staged():
            return False
        holders = self._holders()
        return holders != {self.pid}  # without ourselves among them the system does not tell

    def _have_others_staged(self) -> bool:
        """Whether other sessions have left a staging folder: they are alive, or died without a sweep since."""
        try:
            with os.scandir(self.layout.staging) as entries:
                names = {entry.name.partition(".")[0] for entry in entries}
                return not names <= {self.id, RESUME}
        except FileNotFoundError:  # read from a copy without empty folders: nobody can work in that
            return False

    def share(self) -> None:
        """Be one of several again; after `is_alone`, whatever it said: trying gives the shared lock away."""
        if not self.read_only and self._entry.is_open:
            self._be_present(self.index.environments.lock_timeout)
            self._entry.release()

    def close(self) -> None:
        """Write what waits, back up the index, note that all is well. The store is closed whatever fails."""
        try:
            with in_words(f"the store {self.layout.root!r} can't be closed cleanly", self.layout.root):
                self._settle()
                self.committer.close()
                if self.index.changed:
                    self.index.back_up()
        finally:
            try:
                self.leave(clean=True)
            except BaseException:  # Ctrl-C may come in any line of it: others would meet the lock that it left
                self.leave()
                raise

    def _settle(self) -> None:
        """Once all is durable: what is left to do before the end. Trouble with it loses nothing, so it is only told."""
        if self.settle is None or self.read_only:
            return
        self.committer.sync()
        try:
            self.settle(self)
        except (OSError, WarehouseError) as error:
            report(f"the store {self.layout.root!r} could not be tidied up at the end of the session: {error}")

    def leave(self, clean: bool = False) -> None:
        """Let go of everything, from whatever state; `clean`: note that all is well.

        Doing so twice does no harm: what was interrupted is taken up again.
        """
        try:
            self._stop()
            if clean and not self.read_only:
                self._mark_clean()
            self.staging.end()
        finally:
            try:
                self._presence.close()
            finally:
                try:
                    self._folder.close()
                finally:
                    self._entry.close()

    def _stop(self) -> None:
        """No thread works any more, no file of the index is open."""
        try:
            self.committer.stop()
            self.objects.checks.close()
        finally:
            try:
                close_claims(self.layout.claims)
            finally:
                self.index.close()

    def _mark_clean(self) -> None:
        if os.path.exists(self.layout.mark) or not self.is_alone():
            return
        try:
            sweep_claims(self.layout.claims)
            durable = self.durability == "power"
            write_mark(self.layout, durable=durable, new_hasher=self._new_hasher, wholly=self._wholly)
        except OSError as error:  # without the mark the next opening verifies the files: slower, not wrong
            report(f"the clean end of {self.layout.root!r} could not be noted: {error.strerror}")

    def forget(self, *, paused: bool) -> None:
        """In a forked child: nothing of this is ours.

        Parameters
        ----------
        paused : bool
            Whether nobody used the index when the process was forked.
        """
        self.index.environments.forget(paused=paused)
        self.objects.checks.forget_threads()
        self.staging.forget()
        self._presence.forget()
        self._folder.forget()
        self._entry.forget()


def _named(processes: set[int]) -> str:
    return f"the process {', '.join(map(str, sorted(processes)))}" if processes else "an unknown process"


def running_script() -> str:
    """The path of the script that is running, or where somebody works interactively.

    At the end of the interpreter, when sessions that nobody has closed are, it is no longer known.
    """
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(path, str) and path:
        return os.path.realpath(path)
    try:
        return f"interactive, {os.getcwd()}"
    except FileNotFoundError:  # the folder was removed under it
        return "interactive"


# -- the sessions of this process --------------------------------------------------------------------------------------

_sessions: dict[str, Session] = {}
_sessions_lock = threading.RLock()


def open_session(
    directory: str,
    *,
    durability: str,
    read_only: bool,
    lock_timeout: float,
    trust: str = "own",
    key: str | os.PathLike[str] | None = None,
    index: str | os.PathLike[str] | None = None,
    network_index: bool = False,
    verify: str = "lazy",
) -> Session:
    """The session on a directory: the one that is open in this process already, or a new one.

    LMDB must not open one file twice in a process, so two plants on one directory share everything below them.

    Parameters
    ----------
    directory, durability, read_only, lock_timeout, trust, key, index, network_index, verify
        As in `Warehouse`.
    """
    root = os.path.realpath(directory)
    layout = Layout(root, None if index is None else os.path.realpath(index))
    with _sessions_lock:
        session = _sessions.get(root)
        if session is not None and not session.users:
            session.leave()  # its opening or closing was interrupted
            session = None
        if session is None:
            refuse_unreadable(layout)
            if not network_index:
                refuse_network(layout)
        check_pair(layout)
        sealing = find_sealing(layout, trust, key, read_only)
        if session is None:
            session = Session(
                layout,
                durability=durability,
                read_only=read_only,
                lock_timeout=lock_timeout,
                sealing=sealing,
                wary=trust == "data",
                wholly=verify == "always",
            )
            _open_new(session)
        else:
            _check_same(session, durability, read_only)
        session.users += 1
        return session


def _open_new(session: Session) -> None:
    root = session.layout.root
    if not session.read_only:
        make_root(root)
    _sessions[root] = session
    try:
        session.open()
    except BaseException as error:
        session.leave()
        del _sessions[root]
        is_there = os.path.exists(os.path.join(session.layout.meta, "data.mdb"))
        if isinstance(error, StoreReadOnly) and is_there and not session.read_only:
            hint = (
                "Plant(dir, read_only=True) gives what is up to date in it; to run reactors, ask for the right to write"
            )
            raise StoreReadOnly(error.message, hint=umask_advice() or hint) from error
        raise


def close_session(session: Session) -> None:
    """Give a session back; the last one who does closes it."""
    if session.pid != os.getpid():
        return  # a copy in a forked child: closing it is the parent's business
    with _sessions_lock:
        session.users -= 1
        if session.users or session.index.environments.closed:
            return
        try:
            session.close()
        except Exception:
            del _sessions[session.layout.root]
            raise
        del _sessions[session.layout.root]


def _check_same(session: Session, durability: str, read_only: bool) -> None:
    if session.read_only and not read_only:
        raise StoreReadOnly(
            f"the store {session.layout.root!r} is open in this process with read_only=True",
            hint="close that one first",
        )
    if session.durability != durability and not read_only:
        raise WarehouseError(
            f"the store {session.layout.root!r} is open in this process with durability={session.durability!r}, "
            f"so it can't be opened with {durability!r} too",
            hint="say the same for both, or close the other one first",
        )


# -- fork and exit --------------------------------------------------------------------------------------------------


_paused: list[Session] = []  # by the fork that is under way
_in_use: list[str] = []  # what is to be told of the others


def _before_fork() -> None:
    _sessions_lock.acquire()
    for session in list(_sessions.values()):
        try:
            session.index.environments.pause()
        except WarehouseError as error:  # the fork goes on: the child lets that one be
            _in_use.append(f"the store {session.layout.root!r} was in use while this process was forked: {error}")
        else:
            _paused.append(session)


def _after_fork_in_parent() -> None:
    try:
        while _paused:
            _paused.pop().index.environments.resume()
    finally:
        _sessions_lock.release()
    while _in_use:
        report(_in_use.pop())  # not before the fork: the log has hooks of its own, and may not be imported yet


def _after_fork_in_child() -> None:
    global _sessions_lock
    _sessions_lock = threading.RLock()
    inherited, paused = list(_sessions.values()), list(_paused)
    _sessions.clear()  # first: whatever goes wrong below, none of them is ours
    _paused.clear()
    _in_use.clear()
    for session in inherited:
        session.forget(paused=session in paused)


@atexit.register
def _close_all() -> None:
    """What was queued when the interpreter ends is written all the same, in each store that can be closed."""
    with _sessions_lock:
        sessions = [session for session in _sessions.values() if session.pid == os.getpid()]
        _sessions.clear()
    errors = [error for error in map(_close_error, sessions) if error is not None]
    for error in errors[1:]:
        report(str(error))
    if errors:
        raise errors[0]


def _close_error(session: Session) -> Exception | None:
    """Close a session, if that was not done; what went wrong."""
    try:
        if not session.index.environments.closed:
            session.close()
    except Exception as error:
        return error
    return None


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

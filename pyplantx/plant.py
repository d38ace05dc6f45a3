"""The plant: ties reactors, config, warehouse, scheduler and executor together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pyplantx import events
from pyplantx.basics.given import check_callable, check_config, check_flag, check_texts, check_wait
from pyplantx.basics.logs import log
from pyplantx.basics.memory import MemoryBudget
from pyplantx.basics.units import parse_bytes
from pyplantx.errors import BadRequest, PayloadMissing
from pyplantx.events import Listener, Listeners
from pyplantx.executors.local import SerialExecutor
from pyplantx.explain import Decision, Status, up_to_date
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.fingerprint.memo import PackedMemo
from pyplantx.reactor import Reactor, ReactorFunc, default_registry
from pyplantx.runs.failures import UsersFrames, note_opened
from pyplantx.session.activity import Activity
from pyplantx.session.advice import Advice
from pyplantx.session.gate import Gate, Visit
from pyplantx.session.roster import Roster
from pyplantx.session.trees import Segments
from pyplantx.session.world import Answers
from pyplantx.subreactor import function_of
from pyplantx.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from datetime import timedelta

    from pyplantx.config import ConfigSource
    from pyplantx.core.messages import ReactorId
    from pyplantx.core.trace import ObjectRef
    from pyplantx.warehouse.collect import Problem
    from pyplantx.warehouse.records import HistoryEntry
    from pyplantx.warehouse.retention import Collected, DiskUse


class Plant:
    """Runs reactors, and of the rest exactly what an edit touches.

    Parameters
    ----------
    plant_dir : str or PathLike
        Directory of the store; made if it is not there. One per project. A ``~`` in front stands for the home of
        the user.
    config : object, optional
        As for `set_config`.
    durability : {"power", "process"}
        What a finished reactor survives: loss of power, or the death of the process.
    trust : {"own", "data", "signed"}
        Whose pickles are decoded: those in a store of this user that others can't write to; nobody's; those that
        were signed with the user's key. See docs/guide/11-trust.md.
    arrays : {"copy", "readonly"}
        Whether a received array can be written to (a private copy), or refuses that.
    verify : {"lazy", "always", "off"}
        When the files of the store are checked against their checksums: beside the computation, before its results are
        believed, once per session; before anything is made of them, at each opening; or never. ``"always"`` compares
        index files of more than 64 MiB as a whole, too, when the store is opened.
    library_versions : {"minor", "exact", "ignore"}
        How much of an installed library's version counts as code.
    track, library : iterable of str
        Names of modules that count as the user's project, or as libraries, against appearances.
    lock_timeout : float
        Seconds to wait for another process that holds the store; ``float("inf")``: as long as it takes.
    claim_timeout : float
        Seconds to wait for another process that is running the very reactor that is needed here; after
        that it is run here too.
    memory : int or str, optional
        What the plant itself may hold: buffers of blocks, caches, what waits to be written; bytes, or a text such as
        ``"2GB"``. Half of the machine's memory if not given. Values belong to the reactors and don't count.
    disk : int or str, optional
        What all stored payloads together may take, such as ``"50GB"``; a quarter of the file system if not given.
        See `gc`.
    key : str or PathLike, optional
        The key file, with ``trust="signed"``. If it is not given, the environment variable ``PYPLANTX_KEY`` names it;
        else it is ``~/.config/pyplantx/key``. It is made with the first signed store.
    executor : {"threads", "processes"} or concurrent.futures.Executor, optional
        Who calls the functions of ``pipe.map_blocks`` and ``pipe.reduce_blocks``: as many threads as there are
        processors, as many processes, or an executor of your own (of loky, mpi4py, dask), which you also close. If it
        is not given, the reactors' own thread does. Reactors themselves run one after the other in any case.
    index : str or PathLike, optional
        Directory of the index, locks and claims, if they are to lie on a local disk and the objects on another one.
    network_index : bool
        Whether the index may lie on a network file system, or on what may be one: only if no other machine ever uses
        the store.
    read_only : bool
        Whether nothing in the store is ever written: for one that belongs to somebody else, or lies on a file system
        that is mounted so. What is up to date is given; what would have to run raises `StoreReadOnly`.
    logger : logging.Logger, optional
        Accepted for those who come from PyPlant; the library logs to ``logging.getLogger("pyplantx")``.

    Examples
    --------
    >>> with Plant("/tmp/my-project") as plant:  # doctest: +SKIP
    ...     plant.run_reactor(plot_data)
    """

    EventType = events.EventType

    def __init__(
        self,
        plant_dir: str | os.PathLike[str],
        *,
        config: object | None = None,
        durability: str = "power",
        trust: str = "own",
        arrays: str = "copy",
        verify: str = "lazy",
        library_versions: str = "minor",
        track: Iterable[str] = (),
        library: Iterable[str] = (),
        lock_timeout: float = 60.0,
        claim_timeout: float = 600.0,
        memory: int | str | None = None,
        disk: int | str | None = None,
        key: str | os.PathLike[str] | None = None,
        executor: Any = None,
        index: str | os.PathLike[str] | None = None,
        network_index: bool = False,
        read_only: bool = False,
        logger: Any = None,
    ) -> None:
        with UsersFrames():
            budget = MemoryBudget(memory)
            workers = _workers_for(executor)
            room = parse_bytes(disk, "the disk budget")
            self._config = check_config(config)
            claim_wait = check_wait("claim_timeout=", claim_timeout)
            self._fingerprinter = Fingerprinter(
                library_versions=library_versions, track=_modules("track", track), library=_modules("library", library)
            )
            self.warehouse = Warehouse(
                plant_dir,
                durability=durability,
                trust=trust,
                read_only=check_flag("read_only=", read_only),
                arrays=arrays,
                verify=verify,
                lock_timeout=lock_timeout,
                encode=self._fingerprinter.encode_value,
                is_project_class=self._fingerprinter.is_project_class,
                memory=budget,
                disk=room,
                key=key,
                index=index,
                network_index=network_index,
            )
        self._fingerprinter.memo = self._code_memo = PackedMemo(self.warehouse, self.warehouse.script)
        self._workers = workers
        self._roster = Roster(self._fingerprinter)
        self._advice = Advice(self._roster, self.warehouse)
        self._auxiliary: set[str] = set()
        self._listeners = Listeners()
        self._decisions: dict[ReactorId, Decision | None] = {}  # None: up to date
        self._history: list[HistoryEntry] = []
        self._segments = Segments()
        self._warned: set[str] = set()  # ingredients with several senders
        self._gate = Gate(self.warehouse, self._fingerprinter, self._code_memo)
        self._claim_timeout = claim_wait
        self._logger = logger

    # ----------------------------------------------------------------- life

    def __fingerprint__(self) -> str:
        """Code that refers to a plant does not depend on what is in it."""
        return "pyplantx.Plant"

    def __repr__(self) -> str:
        return f"<Plant {self.plant_dir!r}>"

    def __enter__(self) -> Plant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Make everything durable and close the store. Closing twice does no harm.

        Raises
        ------
        BadRequest
            If a reactor of this plant is running.
        """
        if self._gate.is_at_work():
            raise BadRequest("a reactor can't close its plant while it runs", hint="close it where it was opened")
        try:
            if self._workers is not None:
                self._workers.close()
        finally:
            self.warehouse.close()

    shutdown = close

    @property
    def plant_dir(self) -> str:
        """Directory of the store."""
        return self.warehouse.directory

    plantDir = plant_dir  # noqa: N815 (PyPlant's spelling)

    # ----------------------------------------------------------------- reactors

    def add_reactor(self, *reactors: Any) -> None:
        """Register reactors, one or many, in lists or not. Others are then not registered by themselves.

        One that is defined anew afterwards (a notebook cell that is run again) is followed.

        Parameters
        ----------
        *reactors : Reactor or iterable of Reactor
            Functions decorated with `ReactorFunc`.

        Raises
        ------
        BadRequest
            If something else is given, or a reactor tries.
        ReactorClash
            If two different reactors have one name.
        TwoProducers
            If two declare with ``sends=`` that they send one ingredient.
        """
        with self._gate.resting():
            self._roster.add_by_hand(map(_checked, _flat(reactors)))

    add_reactors = add_reactor

    def get_reactors(self) -> list[Reactor]:
        """The registered reactors, in order of registration."""
        self._catch_up()
        return list(self._roster)

    def _catch_up(self) -> None:
        """Register what was decorated since; a demand that is on its way ends with those that it began with."""
        if not self._gate.is_at_work():
            self._roster.catch_up()

    # ----------------------------------------------------------------- config

    def set_config(self, config: object) -> None:
        """Give the config: a dict, a `ConfigBase`, a dataclass, a pydantic model, any object.

        Raises
        ------
        BadRequest
            If it is a text or a number, which have no parameters; if a reactor tries.
        """
        given = check_config(config)
        with self._gate.resting():
            self._config = given

    @property
    def config(self) -> object | None:
        """The config as it was given."""
        return self._config

    def mark_params_as_auxiliary(self, names: Iterable[str]) -> None:
        """Reads of these parameters are not observed: changing them re-runs nothing.

        Raises
        ------
        BadRequest
            If a reactor tries.
        """
        told = check_texts("names of parameters", names, "plant.mark_params_as_auxiliary(['verbose'])")
        with self._gate.resting():
            self._auxiliary.update(told)

    def _config_source(self) -> ConfigSource:
        from pyplantx.config import ConfigSource  # some milliseconds, for those who read a config

        return ConfigSource(
            self._config,
            auxiliary=self._auxiliary,
            encode=self._fingerprinter.encode_value,
            code=self._fingerprinter.standalone,
        )

    # ----------------------------------------------------------------- running

    def run_reactor(self, *reactors: Any, force: bool = True) -> None:
        """Run reactors, and of the rest what is not up to date.

        Parameters
        ----------
        *reactors : Reactor or str
            Reactors or their names.
        force : bool
            Whether they run in any case; False: only if they are not up to date.

        Raises
        ------
        Exception
            What a reactor raised.
        IngredientError
            If an ingredient has no producer or two, or reactors wait for each other.
        """
        forced = check_flag("force=", force)
        with self._activity() as activity:
            ids = tuple([self._roster.find(reactor) for reactor in _flat(reactors)])
            activity.meet((), ids if forced else (), () if forced else ids)
        self._warn_of_rivals(activity.search.rivals)

    def produce(self, *names: str) -> Any:
        """The values of ingredients; runs nothing that is up to date.

        Parameters
        ----------
        *names : str
            Names of ingredients.

        Returns
        -------
        object
            The value; a tuple of values if several were asked for.
        """
        _check_names("produce", names)
        with self._activity() as activity:
            values = activity.meet(names, (), ())
        self._warn_of_rivals(activity.search.rivals)
        return values[0] if len(names) == 1 else tuple(values)

    def _warn_of_rivals(self, rivals: Mapping[str, Sequence[ReactorId]]) -> None:
        """Say it where an ingredient could have come from several reactors, with the code and the config of today.

        One of them was enough, so the demand did not notice. Nothing is run for this.
        """
        for name, ids in rivals.items():
            if name in self._warned:
                continue
            with self._activity(dry=True) as activity:
                activity.inspect((), tuple(ids))
                failures = [activity.demand.failure(id) for id in ids]
            if any(failure is not None and failure.kind == "two producers" for failure in failures):
                self._warned.add(name)
                senders = " and ".join(self._roster.told_apart(*ids))
                log().warning("%s both send %r, and the one that has run last is asked: rename one", senders, name)

    def _activity(self, dry: bool = False) -> Visit:
        """A ``with`` block around an activity. `dry`: start nothing, only find out what would run."""
        return self._gate.activity(partial(self._make_activity, dry))

    def _make_activity(self, dry: bool) -> Activity:
        self._roster.refresh()
        self._roster.catch_up()
        default_registry.in_use = True
        answers = Answers(
            self._config_source,
            self._fingerprinter,
            self.warehouse,
            self._advice.error_of,
            self._subreactor_started,
            self._workers,
            self._roster.freeze,
        )
        return Activity(
            self._roster,
            self.warehouse,
            SerialExecutor(),
            answers,
            self._listeners,
            self._segments,
            answers.describe,
            self._finish,
            self._claim_timeout,
            dry,
        )

    def _finish(self, activity: Activity) -> None:
        """What an activity leaves: everything durable and announced, decisions and history kept."""
        self._fingerprinter.end_activity()
        self._code_memo.keep()
        self._decisions.update(dict.fromkeys(activity.reused))
        self._decisions.update(activity.decisions)
        self._history += activity.history
        self.warehouse.note_reached(activity.reached())
        activity.renew_reverted()
        self.warehouse.sync()
        activity.announce()

    def _subreactor_started(self, subreactor: Any) -> None:
        self._listeners.tell(self.EventType.subreactor_started, subreactor.__name__, function_of(subreactor))

    # ----------------------------------------------------------------- events and history

    def add_event_listener(self, event_type: events.EventType, listener: Listener) -> None:
        """Call ``listener(event_type, name, function)`` at every such event."""
        self._listeners.add(event_type, listener)

    def remove_event_listener(self, listener: Listener) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def get_execution_history(self, *, all_sessions: bool = False) -> list[dict[str, Any]]:
        """What ran, oldest first.

        Parameters
        ----------
        all_sessions : bool
            Of all sessions on this store (True; the last 100,000 runs), or of this plant (False).

        Returns
        -------
        list of dict
            Keys: ``reactor``, ``id``, ``action`` ("ran", "failed" or "interrupted"), ``reason``, ``started``
            (seconds since 1970), ``seconds`` (spent in the reactor).
        """
        if check_flag("all_sessions=", all_sessions):
            return list(self.warehouse.history())
        return [entry._asdict() for entry in self._history]

    def print_execution_history(self, print_function: Callable[[str], Any] = print) -> None:
        """Print one line for each run of this plant.

        Parameters
        ----------
        print_function : callable
            Gets each line; ``logger.info`` will do.
        """
        check_callable("print_function", print_function, "plant.print_execution_history(logger.info)")
        for entry in self._history:
            print_function(f"{entry.reactor}: {entry.action} in {entry.seconds:.3f} s ({entry.reason})")

    # ----------------------------------------------------------------- questions

    def fetch_ingredient(self, name: str) -> Any:
        """The value of an ingredient, without running anything.

        The version that belongs to today's code and config, if that is known; else the last one that
        was stored, which a warning in the log says.

        Raises
        ------
        NoProducer
            If there is none.
        PayloadMissing
            If that version was collected, or is damaged.
        """
        _check_names("fetch_ingredient", (name,))
        ref = self.find_ingredient(name)
        try:
            return self.warehouse.open(ref)
        except PayloadMissing as error:
            hint = error.hint or f"plant.produce({name!r}) makes it again"
            raise PayloadMissing(f"ingredient {name!r}: {error.message}", hint=hint) from error
        except Exception as error:
            note_opened(error, name)
            raise

    def find_ingredient(self, name: str) -> ObjectRef:
        """Where `fetch_ingredient` finds its value: type, digest, address, size.

        Raises
        ------
        NoProducer
            If there is none.
        """
        _check_names("find_ingredient", (name,))
        return self._find_ingredients((name,))[0]

    def _find_ingredients(self, names: tuple[str, ...]) -> list[ObjectRef]:
        """All with one look at the traces: one reactor may have sent a thousand of them."""
        with self._activity(dry=True) as activity:
            today = activity.inspect(names, ())
        return [self._current_or_last(name, today.get(name)) for name in names]

    def _current_or_last(self, name: str, ref: ObjectRef | None) -> ObjectRef:
        if ref is None:
            ref = self.warehouse.last_ref(name)
            if ref is None:
                raise self._advice.error_of_unknown(name)
            log().warning("ingredient %r is not up to date: the last stored version is taken", name)
        self.warehouse.note_reached(() if ref.inline is not None else (ref.address,))
        return ref

    def inputs_of(self, reactor: Any) -> list[str]:
        """Names of the ingredients that a reactor received when it last ran.

        Parameters
        ----------
        reactor : Reactor or str
            The reactor or its name.
        """
        with self._activity(dry=True) as activity:
            id = self._roster.find(reactor)
            activity.inspect((), (id,))
            return activity.demand.inputs(id)

    def is_ingredient_known(self, name: str) -> bool:
        """Whether `fetch_ingredient` would return a value."""
        _check_names("is_ingredient_known", (name,))
        ref = self._up_to_date(name) or self.warehouse.last_ref(name)
        return ref is not None and self.warehouse.has(ref)

    def _up_to_date(self, name: str) -> ObjectRef | None:
        with self._activity(dry=True) as activity:
            return activity.inspect((name,), ()).get(name)

    def status(self) -> Status:
        """What would run now, and why. Runs nothing.

        Of what no reactor receives, and of what those receive that would run, the payload has to be there; it is not
        read. Of what is only passed on to reactors that are up to date nobody needs it.

        Of two that send the same, one under a new name and one under the old, only one is asked, and so it is here.
        """
        passed_over: dict[ReactorId, str] = {}
        while True:
            with self._activity(dry=True) as activity:
                passed_over |= activity.search.stood_for()
                activity.inspect_with_payloads(tuple([one.id for one in self._roster if one.id not in passed_over]))
                outdone = activity.outdone()
                if outdone.keys() <= passed_over.keys():
                    return Status(
                        tuple([activity.prospect(one.id, passed_over.get(one.id, "")) for one in self._roster])
                    )
                passed_over |= outdone

    def accept(self, *reactors: Any) -> list[str]:
        """Declare that the edits of reactors' code since their last version do not matter.

        What the last version of each computed counts for the present one, too, and so does what it computed with
        subreactors, with modules that it imported by a computed text, and with classes of received objects, as they
        were. The config and the ingredients are compared as always.

        Parameters
        ----------
        *reactors : Reactor or str
            Reactors or their names; look at `status` first for what changed.

        Returns
        -------
        list of str
            Names of the reactors whose edits were accepted; those that have a trace of the present code, theirs
            and what it has observed, are left alone.
        """
        with self._activity(dry=True) as activity:
            ids = [self._roster.find(reactor) for reactor in _flat(reactors)]
            accepted = [id for id in ids if activity.accept(id)]
        self.warehouse.sync()
        return [self._roster[id].name for id in accepted]

    # ----------------------------------------------------------------- looking after the store

    def check(self, fix: bool = False) -> list[Problem]:
        """Try every invariant of the store.

        Parameters
        ----------
        fix : bool
            Remove what is wrong (damaged files are put aside in ``quarantine/``), and garbage too if nobody else has
            the store open. What is removed is made again when it is needed.

        Returns
        -------
        list of Problem
            What was found; empty if all is well.

        Raises
        ------
        BadRequest
            If a reactor asks.
        StoreBusy
            If it is to be mended, and another thread of this process does not come to an end with storing something.
        """
        with self._gate.resting():
            return self.warehouse.check(check_flag("fix=", fix))

    def gc(
        self,
        *,
        max_size: int | str | None = None,
        keep_versions: int | None = None,
        older_than: float | str | timedelta | None = None,
        dry_run: bool = False,
    ) -> Collected:
        """Remove stored payloads. What is needed again is made again.

        These stay whatever the limits say: pinned versions, what the open plants of this process were answered with,
        and what each script's last run on this directory reached.

        Parameters
        ----------
        max_size : int or str, optional
            Bytes that all payloads together may take, such as ``"10GB"``: the rest goes in the order of the seconds
            per byte that it takes to make them again, cheapest first.
        keep_versions : int, optional
            How many versions of each ingredient stay.
        older_than : float, str or timedelta, optional
            What was not made or reached for so long goes: seconds, or a text such as ``"7 days"``. What only scripts
            hold that last ran before that goes too.
        dry_run : bool
            Remove nothing, only tell.

        Returns
        -------
        Collected
            What went and what stays, and why; ``print`` shows a table. If another process has the store open, nothing
            is removed, and ``hindrance`` says so.

        Raises
        ------
        BadRequest
            If a limit makes no sense, or a reactor asks.
        StoreBusy
            If another thread of this process does not come to an end with storing something.

        Notes
        -----
        Each limit that is given is enforced, so together they remove what any of them wants gone. Without any, the
        store shrinks to its budget (``Plant(disk=...)``), as it does by itself when it is closed.
        """
        with self._gate.resting():
            return self.warehouse.keeper.gc(max_size, keep_versions, older_than, check_flag("dry_run=", dry_run))

    def du(self) -> DiskUse:
        """Who holds what on disk: ``print`` shows a table.

        Returns
        -------
        DiskUse
            Of each ingredient its versions, bytes, last use, and whether it is pinned; sums by place.
        """
        with self._gate.resting():
            return self.warehouse.keeper.du()

    def pin(self, *names: str) -> None:
        """Keep the versions that `fetch_ingredient` returns today, whatever is collected.

        Parameters
        ----------
        *names : str
            Names of ingredients.

        Raises
        ------
        NoProducer
            If there is no such ingredient.
        PayloadMissing
            If that version was collected already.
        """
        _check_names("pin", names)
        for name, ref in zip(names, self._find_ingredients(names), strict=True):
            self.warehouse.keeper.pin(name, ref.address, stored=self.warehouse.has(ref))

    def unpin(self, *names: str) -> list[str]:
        """Let go of all pinned versions of ingredients.

        Parameters
        ----------
        *names : str
            Names of ingredients.

        Returns
        -------
        list of str
            Those that were pinned.
        """
        _check_names("unpin", names)
        return [name for name in names if self.warehouse.keeper.unpin(name)]

    # ----------------------------------------------------------------- reasons

    def why(self, reactor: Any) -> Decision:
        """The last decision about a reactor, and its reason.

        Parameters
        ----------
        reactor : Reactor or str
            The reactor or its name.

        Returns
        -------
        Decision
            Of this plant; else of an earlier session, as the history tells it. While reactors run, of the run that
            they are in.
        """
        self._catch_up()
        id = self._roster.find(reactor)
        return self._last_decision(id)._replace(
            opaque=tuple(self._fingerprinter.opaque(self._roster[id].function)),
            state=tuple(self._fingerprinter.state_changes()),
        )

    def _last_decision(self, id: ReactorId) -> Decision:
        at_work = self._gate.inside
        if at_work is not None and id in at_work.decisions:  # a listener or a reactor asks, in the middle of a demand
            return at_work.decisions[id]
        if id in self._decisions:
            return self._decisions[id] or up_to_date(self._roster[id].name)
        entry = self.warehouse.last_run(id)
        if entry is not None:
            reactor, action, reason = [str(entry.get(what)) for what in ("reactor", "action", "reason")]
            return Decision(reactor, action, reason)
        asked = self._roster[id]
        if self.warehouse.versions(id):
            reason = "run so long ago that the history is not searched for it"
        elif self.warehouse.find_record(self._roster.fingerprint(asked)) is not None:
            reason = "its code has run on this store, but not under this name"
        else:
            reason = "never run on this store"
        return Decision(asked.name, "unknown", reason)

    def explain(self, name: str) -> Decision:
        """`why` of the reactor that sends an ingredient.

        Raises
        ------
        NoProducer
            If nobody is known to send it.
        """
        _check_names("explain", (name,))
        self._catch_up()
        senders = [id for id, _ in self.warehouse.producers(name) if id in self._roster] + self._roster.hinted(name)
        if not senders:
            raise self._advice.error_of_unknown(name)
        return self.why(senders[0])


def _check_names(method: str, names: tuple[Any, ...]) -> None:
    if not names or not all(isinstance(name, str) for name in names):
        raise BadRequest(f"plant.{method} takes names of ingredients", hint=f"plant.{method}('metrics')")


def _workers_for(executor: Any) -> Any:
    if executor is None:
        return None
    from pyplantx.executors.workers import workers_for

    return workers_for(executor)


def _modules(option: str, given: str | Iterable[str]) -> tuple[str, ...]:
    return check_texts(f"{option}=", given, f"Plant(..., {option}=['mypackage']): names of modules")


def _checked(reactor: Any) -> Reactor:
    if not isinstance(reactor, Reactor):
        raise BadRequest(f"{reactor!r} is not a reactor", hint="decorate the function with @ReactorFunc")
    return reactor


def _flat(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (list, tuple, set, frozenset)):
            yield from _flat(item)
        else:
            yield item


__all__ = ["Plant", "ReactorFunc"]

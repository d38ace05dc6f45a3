"""The pipe: a reactor's side of the wall, and all of the plant that a reactor gets to see.

What a reactor asks of it is answered by the run behind it (`pyplantx.runs.run`), of which this file knows no more than
`Behind` says.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pyplantx.basics.given import check_callable, check_flag, check_text, check_whole, refusal
from pyplantx.errors import BadRequest, shown

if TYPE_CHECKING:
    from pyplantx.basics.units import Size
    from pyplantx.blocks.geometry import Block
    from pyplantx.blocks.workshop import Workshop
    from pyplantx.core.trace import Observation
    from pyplantx.reactor import Reactor

_NOTHING: Any = object()  #: a value that was not given


class Outside(Protocol):
    """What a reactor may ask for besides ingredients; see `pyplantx.session.world`. The run is told what was read."""

    def read_config(self, run: Any, name: str) -> Any: ...
    def read_config_unregistered(self, run: Any, name: str) -> Any: ...
    def peek_config(self, run: Any, name: str, default: Any) -> Any: ...
    def has_config(self, run: Any, name: str) -> bool: ...
    def file(self, path: str, verify: bool) -> Observation: ...
    def env(self, name: str) -> tuple[str | None, Observation]: ...


class Behind(Protocol):
    """What a pipe needs of the run behind it."""

    @property
    def reactor(self) -> Reactor: ...
    @property
    def world(self) -> Outside: ...
    def request(self, names: tuple[str, ...], as_: str | None) -> Request: ...
    def send(self, name: str, value: Any, type_given: Any) -> None: ...
    def allocate(self, name: str, type_given: Any, options: dict[str, Any]) -> Any: ...
    def allocate_temp(self, name: str, type_given: Any, options: dict[str, Any]) -> Any: ...
    def note(self, observation: Observation) -> None: ...
    def workshop(self) -> Workshop: ...


class Request:
    """What ``pipe.receive`` returns: to be yielded, or awaited."""

    __slots__ = ("_pending", "as_", "line", "names", "single")

    def __init__(self, names: tuple[str, ...], line: str, pending: set[Any], as_: str | None = None) -> None:
        self.names, self.line, self.as_ = names, line, as_
        self.single = len(names) == 1
        self._pending = pending
        pending.add(self)

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.names))
        return f"<request for {names}, made at {self.line}; `yield` or `await` it to get the value>"

    def __iter__(self) -> Generator[Request, Any, Any]:
        return (yield self)

    __await__ = __iter__

    def taken(self) -> None:
        """It was yielded."""
        self._pending.discard(self)

    def answer(self, values: Sequence[Any]) -> Any:
        """What the ``yield`` gives, from the values in the order of the names."""
        if self.as_ is not None:
            from pyplantx.specs.views import converted

            values = [converted(value, self.as_, name) for value, name in zip(values, self.names)]
        return values[0] if self.single else tuple(values)


class Pipework:
    """A reactor's only door to the plant.

    The plant makes one for each run and passes it as the reactor's first argument.
    """

    __slots__ = ("__dict__", "_run")

    def __init__(self, run: Behind) -> None:
        self._run = run

    @property
    def name(self) -> str:
        """Name of the reactor."""
        return self._run.reactor.name

    def receive(self, *names: str, as_: str | None = None) -> Request:
        """Ask for ingredients: ``x = yield pipe.receive('x')``, ``a, b = yield pipe.receive('a', 'b')``.

        Parameters
        ----------
        *names : str
            Names of the ingredients; any text.
        as_ : {"numpy", "dask", "xarray", "torch"}, optional
            The form in which another library takes an array, an HDF or Zarr array or a sparse matrix; nothing is
            copied.

        Returns
        -------
        Request
            To be yielded (or awaited in a coroutine); the value of that is the ingredient, or a tuple
            of them if several were asked for.

        Raises
        ------
        BadRequest
            If the reactor is a plain function: it can't wait. Or if there is no such form.
        """
        return self._run.request(_checked_names(names), as_)

    def send(self, name: str, value: Any, type: Any = None) -> None:
        """Send an ingredient.

        Parameters
        ----------
        name : str
            Any text.
        value : object
            The value, or the handle that `allocate` gave.
        type : Ingredient.Type, spec class, spec or str, optional
            How to store it; inferred from the value if not given.

        Raises
        ------
        CannotStore
            If the value can't be stored; says where inside it the trouble is.
        BadRequest
            If the name was sent already, or was allocated and something else is sent.
        """
        self._run.send(_checked_name(name), value, type)

    def allocate(self, name: str, type: Any = None, **options: Any) -> Any:
        """Begin an ingredient that the reactor fills itself, and sends when it is ready.

        Parameters
        ----------
        name : str
            Name of the ingredient.
        type : Ingredient.Type, spec class, spec or str
            Its type, such as ``specs.HdfArraySpec`` or ``Ingredient.Type.file``.
        **options
            Belong to the type: ``shape``, ``dtype``, ``chunks``, ``compression``; ``suffix``.

        Returns
        -------
        object
            What to write into: a dataset, an array, a path.
        """
        return self._run.allocate(_checked_name(name), type, options)

    def allocate_temp(self, *name_and_type: Any, **options: Any) -> Any:
        """Like `allocate`, for scratch space that vanishes with the reactor.

        Parameters
        ----------
        *name_and_type
            The type, or a name (for error messages only) and the type.
        **options
            Belong to the type, as in `allocate`.
        """
        if not 1 <= len(name_and_type) <= 2:
            hint = "pipe.allocate_temp(specs.HdfArraySpec, shape=...)"
            raise BadRequest("pipe.allocate_temp takes a type", hint=hint)
        name = name_and_type[0] if len(name_and_type) == 2 else "temporary"
        return self._run.allocate_temp(_checked_name(name), name_and_type[-1], options)

    def read_config(self, name: str) -> Any:
        """A parameter of the config; dotted names reach nested ones. The read is observed.

        Raises
        ------
        UnknownParameter
            If there is none; near misses are named.
        """
        return self._run.world.read_config(self._run, _checked_parameter(name))

    def read_config_unregistered(self, name: str) -> Any:
        """A parameter of the config, without noting that it was read: a change re-runs nothing."""
        return self._run.world.read_config_unregistered(self._run, _checked_parameter(name))

    def peek(self, name: str, default: Any = None) -> Any:
        """`read_config_unregistered`, with a default for what is not there."""
        return self._run.world.peek_config(self._run, _checked_parameter(name), default)

    def has(self, name: str) -> bool:
        """Whether the config has this parameter; the answer is observed."""
        return self._run.world.has_config(self._run, _checked_parameter(name))

    def track_file(self, path: str | os.PathLike[str], *, verify: bool = False) -> str:
        """Observe the content of a file that the reactor is about to read.

        Parameters
        ----------
        path : str or PathLike
            The file; that it does not exist is an observation too. Of a folder, names and contents of all
            that is in it, and in the folders that links in it lead to.
        verify : bool
            Read the file even if device, inode, size and times are as they were noted: now, and whenever the plant
            looks whether the reactor is up to date.

        Returns
        -------
        str
            The path.
        """
        text = _checked_file(path)
        self._run.note(self._run.world.file(text, check_flag("verify=", verify)))
        return text

    def env(self, name: str, default: str | None = None) -> str | None:
        """Observe an environment variable.

        Parameters
        ----------
        name : str
            Its name.
        default : str, optional
            What to return if it is not set.
        """
        name = check_text("the name of an environment variable", name, "pipe.env('HOME')")
        value, observation = self._run.world.env(name)
        self._run.note(observation)
        return default if value is None else value

    def blocks(
        self,
        *arrays: Any,
        memory: Size | None = None,
        axis: int | Sequence[int] = 0,
        halo: int | Sequence[int] = 0,
        resume: bool = False,
        progress: Callable[[int, int, float], object] | None = None,
    ) -> Iterator[Block]:
        """Walk through arrays in blocks: ``for b in pipe.blocks(src, dst): dst[b] = f(src[b])``.

        While the body computes, one thread reads the next blocks and one writes the last ones.

        Parameters
        ----------
        *arrays : array-like
            Datasets and arrays that are equally long along the axes of the blocks. Name all that the body writes to.
        memory : int or str, optional
            Bytes that all blocks in flight may take together (``"256MB"``); by default the plant's share for a loop.
        axis : int or sequence of int
            Along which the arrays are cut; several: along the next ones only if a row is too large.
        halo : int or sequence of int
            Rows that ``src[b.padded]`` has of the neighbours, on each side; ``result[b.inner]`` is without them. What
            is read so can't be written to in the same loop. (An array in memory tells of no write: that is noticed if
            it is the only one of the loop.)
        resume : bool
            After a kill go on at the first block that was not finished. The body must then leave nothing behind but
            what it writes to the blocks of allocated arrays: variables are lost with the process.
        progress : callable, optional
            Called after each block with (blocks done, blocks in all, seconds left).

        Yields
        ------
        Block
            An index for the arrays: a tuple of slices.

        Raises
        ------
        BadRequest
            If the arrays don't go together, one row or chunk takes more than `memory`, or an array is written to that
            is read with a halo.
        """
        _check_progress(progress)
        return self._run.workshop().blocks(arrays, memory, axis, halo, check_flag("resume=", resume), progress)

    def map_blocks(
        self,
        function: Callable[..., Any],
        *sources: Any,
        out: Any,
        memory: Size | None = None,
        axis: int | Sequence[int] = 0,
        halo: int | Sequence[int] = 0,
        workers: int | None = None,
        resume: bool = True,
        progress: Callable[[int, int, float], object] | None = None,
    ) -> None:
        """Fill an array block by block: ``pipe.map_blocks(f, src, out=dst)``. Goes on where a killed run has stopped.

        Parameters
        ----------
        function : callable
            Gets one array per source, the block with its halo (read-only if the source is a memory map); returns the
            block of `out`, with or without the halo.
        *sources : array-like
            What is read.
        out : array-like
            What is written: usually what `allocate` gave. It may be a source, unless there is a halo.
        memory, axis, halo, progress
            As in `blocks`.
        workers : int, optional
            How many workers of the plant's executor call `function` at once, of threads if the plant has none; 1: the
            reactor's own thread. If it is not given: all of the executor's, and 1 if the plant has none.
        resume : bool
            Whether to go on after a kill. Not done if the function has a state (a generator of random numbers, a list
            that it appends to, a second array that it fills), or has brought along something that can't be seen.

        Raises
        ------
        BadRequest
            If arrays don't go together, a result does not go into its block, `out` has rows that a later block would
            read, or the function refers to something that can't be sent to another process: a pipe, an open file.
        ReactorError
            If worker processes die.

        Notes
        -----
        With ``Plant(executor="processes")`` what `function` changes besides its result (a list, a global, a counter) is
        changed in the worker and lost. A config that it refers to counts as read as a whole: read single values before.
        """
        check_callable("the function of map_blocks", function, "pipe.map_blocks(np.sqrt, source, out=target)")
        _check_progress(progress)
        count, resumed = _checked_workers(workers), check_flag("resume=", resume)
        self._run.workshop().map_blocks(function, sources, out, memory, axis, halo, count, resumed, progress)

    def reduce_blocks(
        self,
        function: Callable[..., Any],
        *sources: Any,
        combine: Callable[[Any, Any], Any] = operator.add,
        initial: Any = None,
        memory: Size | None = None,
        axis: int | Sequence[int] = 0,
        workers: int | None = None,
        resume: bool = True,
        progress: Callable[[int, int, float], object] | None = None,
    ) -> Any:
        """Combine what a function gives for each block, in the order of the blocks.

        Parameters
        ----------
        function : callable
            Gets one array per source; returns the value of the block.
        *sources : array-like
            What is read.
        combine : callable
            Of the value so far and the value of the next block.
        initial : object, optional
            The value to begin with; None: that of the first block. Of an array, a list, a
            dict, a set `combine` is given a copy, and may write into that.
        memory, axis, progress
            As in `blocks`.
        workers, resume
            As in `map_blocks`. `combine` is called in the reactor's own thread.

        Returns
        -------
        object
            The value of all blocks; `initial` if there are none.
        """
        check_callable("the function of reduce_blocks", function, "pipe.reduce_blocks(np.sum, source)")
        check_callable("combine=", combine, "combine=operator.add, or any function of two values")
        _check_progress(progress)
        count, resumed, workshop = _checked_workers(workers), check_flag("resume=", resume), self._run.workshop()
        return workshop.reduce_blocks(function, sources, combine, initial, memory, axis, count, resumed, progress)

    def checkpoint(self, key: str, value: Any = _NOTHING, *, default: Any = None) -> Any:
        """Keep a value for the case that this run is killed, or get back what was kept last.

        ``state = pipe.checkpoint('fit', default=None)`` before a loop, ``pipe.checkpoint('fit', state)`` in it. What a
        run has kept is found by a run that had the same answers up to the first call with this key, and has them still
        for what was observed after it; and that has the same content in what it had allocated and filled before that
        call. What the run has kept itself comes first. A `receive` or `send` in between can't
        be repeated: ask again after it, where only what is kept from there on is found.

        An HDF dataset that can grow (``maxshape=``) comes back with the value, as it was when that was kept: allocate
        it before the first call, append to it, and leave alone what is there. What was appended last is made again
        and compared: if rows or values differ from those of the interrupted run, the reactor begins anew.

        All else that is allocated and not sent is lost with the process. So a value that is kept after such a thing was
        written to, since the first call with this key, is not found by the next run (which the log says): it would go
        on behind that write. Fill arrays before that call, by `map_blocks` or `blocks`, or without checkpoints. An
        array on a memory map that has content by then is read as a whole each time something is kept. In a loop that
        goes on by itself after a kill, nothing is kept for the next run, and the loop is done anew.

        Parameters
        ----------
        key : str
            Tells several values of a reactor apart. Each call of a subreactor has keys of its own, which are found
            again by a call with the same arguments at the same place.
        value : object, optional
            To be kept, as `send` would keep it; leave it out to get one back.
        default : object
            What to return if nothing was kept.

        Returns
        -------
        object
            What was kept, or `default`; None if a value was given.

        Raises
        ------
        CannotStore
            If the value can't be stored.
        """
        workshop = self._run.workshop()
        if value is _NOTHING:
            return workshop.restore(_checked_key(key), default)
        return workshop.keep(_checked_key(key), value)


def _checked_names(names: tuple[Any, ...]) -> tuple[str, ...]:
    for name in names:
        if type(name) is not str:
            return tuple([_checked_name(name) for name in names])
    return names


def _checked_key(key: Any) -> str:
    if isinstance(key, str):
        return str(key)
    raise BadRequest(
        f"the key of a checkpoint is a text, not {shown(key)}", hint="pipe.checkpoint('fit', value), with the key first"
    )


def _checked_name(name: Any) -> str:
    if type(name) is str or isinstance(name, str):
        return str(name)
    hint = "name it with a str"
    if isinstance(name, (list, tuple)) and name and all(isinstance(one, str) for one in name):
        hint = f"names are given one after the other: {', '.join(map(repr, name))}"
    raise BadRequest(f"the name of an ingredient is a text, not {name!r}", hint=hint)


def _checked_parameter(name: Any) -> str:
    if type(name) is str:
        return name
    return check_text("the name of a parameter", name, "pipe.read_config('lr'), or 'model.lr' for a nested one")


def _checked_file(path: Any) -> str:
    """A path as a text. One that no file can have is not wrong: that file is not there."""
    if isinstance(path, (str, bytes, os.PathLike)) and (text := os.fsdecode(path)):
        return text
    raise refusal("the path of a file to track", path, "pipe.track_file('data.csv')")


def _check_progress(progress: Any) -> None:
    if progress is not None:
        check_callable("progress=", progress, "progress=lambda done, count, seconds: print(done, count)")


def _checked_workers(workers: Any) -> int | None:
    return None if workers is None else check_whole("workers=", workers, "workers=1: the reactor's own thread", least=1)

"""What foreign code raises when a value is asked for its state: an answer, or the end of the program.

This file may know: exceptions, signals' handlers. It may not know: values, fingerprints.
"""

from __future__ import annotations

from types import FrameType, TracebackType
from typing import Any, Final

#: Whatever of these comes says that there is no state; Ctrl-C says nothing of it. See `let_end`.
ANSWERS: Final = (Exception, SystemExit, KeyboardInterrupt, GeneratorExit)
_VARARGS: Final = 4  # `inspect.CO_VARARGS`, which costs an import


def let_end(error: BaseException) -> None:
    """Raise again what is no answer: what a signal's handler has raised may come in any line, and means the program.

    Parameters
    ----------
    error : BaseException
        One of `ANSWERS`.
    """
    if not is_answer(error):
        raise error


def is_answer(error: BaseException) -> bool:
    """Whether foreign code has raised an error by itself, be it one that elsewhere ends the program.

    Parameters
    ----------
    error : BaseException
        One of `ANSWERS`.
    """
    trace = error.__traceback__
    if trace is None:
        return True
    if isinstance(error, KeyboardInterrupt) and not _is_raised_by_a_statement(trace):
        return False
    return not _comes_from_a_handler(trace)


def asked(obj: Any, name: str, default: Any = None) -> Any:
    """An attribute that foreign code may compute: `default` if there is none, or an error is the answer."""
    try:
        return getattr(obj, name, default)
    except ANSWERS as error:  # proxies for what is not there, lazy settings: whatever they like
        let_end(error)
        return default


def is_a(obj: Any, kinds: Any) -> bool:
    """What `isinstance` says; by its type alone if asking ``__class__`` is an error."""
    try:
        return isinstance(obj, kinds)
    except ANSWERS as error:
        let_end(error)
        return issubclass(type(obj), kinds)


def offers(cls: type, name: str) -> bool:
    """Whether a class has an attribute, in its own dictionary or that of a base; its metaclass may have any."""
    return any(name in vars(base) for base in cls.__mro__)


def _comes_from_a_handler(trace: TracebackType) -> bool:
    """Whether an error has passed through a function that was given the frame that it has interrupted.

    Which handlers are set now says less: many begin with setting another one, for the next signal.
    """
    while (inner := trace.tb_next) is not None:
        if any(given is trace.tb_frame for given in _positional(inner.tb_frame)):
            return True
        trace = inner
    return False


def _is_raised_by_a_statement(trace: TracebackType) -> bool:
    """Whether an error began at a ``raise``. Python's own handler for Ctrl-C is no function: it leaves no frame."""
    import opcode  # a millisecond, for nobody else

    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_code[trace.tb_lasti : trace.tb_lasti + 1] == bytes([opcode.opmap["RAISE_VARARGS"]])


def _positional(frame: FrameType) -> list[Any]:
    """The positional arguments of a function that runs, or has run."""
    code, held = frame.f_code, frame.f_locals
    given = [held.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & _VARARGS:
        rest = held.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        given += rest if isinstance(rest, tuple) else ()
    return given

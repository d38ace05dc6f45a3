"""What foreign code raises when a value is asked for its state: an answer, or the end of the program.

This file may know: exceptions, signals' handlers. It may not know: values, fingerprints.
"""

from __future__ import annotations

import signal
from types import CodeType, TracebackType
from typing import Final

#: Whatever of these comes says that there is no state; Ctrl-C says nothing of it. See `let_end`.
ANSWERS: Final = (Exception, SystemExit)


def let_end(error: BaseException) -> None:
    """Raise a `SystemExit` again that a signal's handler has raised: it may come in any line, and means the program.

    Parameters
    ----------
    error : BaseException
        One of `ANSWERS`.
    """
    if isinstance(error, SystemExit) and _passes(error.__traceback__, _codes_of_handlers()):
        raise error


def offers(cls: type, name: str) -> bool:
    """Whether a class has an attribute, in its own dictionary or that of a base; its metaclass may have any."""
    return any(name in vars(base) for base in cls.__mro__)


def _passes(trace: TracebackType | None, codes: set[CodeType]) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _codes_of_handlers() -> set[CodeType]:
    """The functions that signals call; of an object with ``__call__`` that."""
    handlers = map(signal.getsignal, signal.valid_signals())
    called = [one for handler in handlers if callable(handler) for one in (handler, type(handler).__call__)]
    codes = [getattr(one, "__code__", None) for one in called]
    return {code for code in codes if isinstance(code, CodeType)}

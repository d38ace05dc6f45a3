"""Results that `functools.lru_cache` keeps: they are those of the code that was there when they were computed.

In a session that goes on, a constant or a helper below such a function is edited, and the function would go on to give
what it has kept: the reactor would run, and the old value be stored as that of the new code. So what other code has
computed is let go before reactors run.
This file may know: which caches there are. It may not know: how code is described.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from pyplantx.core.trace import Digest

#: What `functools.lru_cache` makes.
Cached: Final[Any] = type(functools.lru_cache(lambda: None))

#: Of the process: cache -> the fingerprint of the code that filled it.
_FILLED_BY: weakref.WeakKeyDictionary[Any, Digest] = weakref.WeakKeyDictionary()


def note(caches: Iterable[Any], root: Callable[[Any], Digest]) -> None:
    """Note by which code caches are filled from now on; those that hold something already keep what was noted."""
    for cache in caches:
        if cache not in _FILLED_BY or not _is_filled(cache):
            _FILLED_BY[cache] = root(cache)


def let_go(caches: Iterable[Any], root: Callable[[Any], Digest]) -> None:
    """Clear the caches that other code has filled than they stand for now."""
    for cache in caches:
        if _FILLED_BY.get(cache, now := root(cache)) != now and _is_filled(cache):
            Cached.cache_clear(cache)
        _FILLED_BY[cache] = now


def _is_filled(cache: Any) -> bool:
    return bool(Cached.cache_info(cache).currsize)

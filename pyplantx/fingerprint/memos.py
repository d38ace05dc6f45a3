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
from pyplantx.fingerprint.boundary import Policy

#: What `functools.lru_cache` makes.
Cached: Final[Any] = type(functools.lru_cache(lambda: None))

#: Of the process: cache -> for each way to look at code, the fingerprint of the code that filled it. Two plants may
#: look in different ways (`library_versions=`): what the other one has noted can't be compared.
_FILLED_BY: weakref.WeakKeyDictionary[Any, dict[Policy, Digest]] = weakref.WeakKeyDictionary()


def note(caches: Iterable[Any], root: Callable[[Any], Digest], policy: Policy) -> None:
    """Note by which code caches are filled from now on; of those that hold something already, unless it is known."""
    for cache in caches:
        filled_by = _FILLED_BY.setdefault(cache, {})
        if not filled_by or not _is_filled(cache):
            filled_by[policy] = root(cache)


def let_go(caches: Iterable[Any], root: Callable[[Any], Digest], policy: Policy) -> None:
    """Clear the caches that other code has filled than they stand for now, or that nobody can tell it of."""
    for cache in caches:
        filled_by, now = _FILLED_BY.setdefault(cache, {}), root(cache)
        if filled_by and filled_by.get(policy) != now and _is_filled(cache):
            Cached.cache_clear(cache)
        filled_by[policy] = now


def _is_filled(cache: Any) -> bool:
    return bool(Cached.cache_info(cache).currsize)

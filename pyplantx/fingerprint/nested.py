"""Code objects with those inside them: lambdas, comprehensions, nested functions, bodies of classes.

This file may know: what a code object holds. It may not know: instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType


def with_nested(code: CodeType) -> Iterator[CodeType]:
    """A code object, and those inside it at any depth."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from with_nested(const)


def names_in(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes."""
    for one in with_nested(code):
        yield from one.co_names


def texts_in(code: CodeType) -> Iterator[str]:
    """The texts that stand there by themselves, not in tuples."""
    for one in with_nested(code):
        yield from (const for const in one.co_consts if isinstance(const, str))

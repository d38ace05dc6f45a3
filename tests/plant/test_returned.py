"""What a function that is neither a generator nor a coroutine may return: anything but work that nobody would do."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import pytest

from pyplantx import ReactorFunc, SubreactorFunc
from pyplantx.errors import BadRequest


async def asks_and_yields(pipe: Any) -> AsyncIterator[int]:
    yield await pipe.receive("x")


async def asks(pipe: Any) -> None:
    pipe.send("asked", await pipe.receive("x") + 1)


class Promise:
    """Can be awaited and has no `send`, like the futures of an event loop."""

    def __await__(self) -> Generator[None, None, int]:
        yield
        return 1


@ReactorFunc
def source(pipe: Any) -> None:
    pipe.send("x", 1)


@SubreactorFunc
def part(pipe: Any) -> Any:
    return (yield pipe.receive("x"))


@pytest.mark.parametrize(
    ("make", "kind"), [(asks_and_yields, "an async_generator"), (lambda pipe: Promise(), "a Promise")]
)
def test_work_that_nobody_would_do_is_an_error_with_advice(
    open_plant: Any, make: Callable[[Any], Awaitable[Any]], kind: str
) -> None:
    @ReactorFunc
    def hands_back(pipe: Any) -> Any:
        return make(pipe)

    with open_plant(source, hands_back) as plant:
        with pytest.raises(BadRequest, match=f"reactor hands_back returned {kind}, which nobody runs") as caught:
            plant.run_reactor(hands_back)
        assert "async def" in str(caught.value.hint)
        assert plant.produce("x") == 1


def test_requests_and_calls_that_are_returned_were_not_waited_for(open_plant: Any) -> None:
    @ReactorFunc
    def calls(pipe: Any) -> Any:
        return part(pipe)

    with open_plant(source, calls) as plant, pytest.raises(BadRequest, match="did not wait for it"):
        plant.run_reactor(calls)


def test_a_coroutine_is_driven_whoever_made_it(open_plant: Any) -> None:
    @ReactorFunc
    @functools.wraps(asks)
    def logged(pipe: Any) -> Any:
        return asks(pipe)

    with open_plant(source, logged) as plant:
        assert plant.produce("asked") == 2


@pytest.mark.parametrize("value", [0, "text", [1], {"x": 1}, range(3), object()])
def test_any_other_value_is_not_looked_at(open_plant: Any, value: object) -> None:
    @ReactorFunc
    def plain(pipe: Any) -> object:
        pipe.send("plain", 1)
        return value

    with open_plant(plain) as plant:
        assert plant.produce("plain") == 1

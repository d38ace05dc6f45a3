"""What only an event loop could give is refused in words: the plant drives coroutines itself."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from pyplantx import ReactorFunc, SubreactorFunc, errors


class Greeting:
    """Is awaited, and asks for nothing that anybody knows."""

    def __await__(self) -> Generator[str, Any, None]:
        yield "hello"  # is greeted


class Whatever:
    """Has every attribute there is, as mocks and proxies do."""

    def __getattr__(self, name: str) -> Whatever:
        return self

    def __call__(self, *_: Any) -> Whatever:
        return self

    def __await__(self) -> Any:
        return self

    def __next__(self) -> str:
        return "anything"


async def rest() -> None:
    await asyncio.sleep(1)  # rests


@SubreactorFunc
async def rests(pipe: Any) -> None:
    await asyncio.sleep(1)  # rests in a subreactor


@ReactorFunc
async def sleeps(pipe: Any) -> None:
    await asyncio.sleep(1)  # sleeps


@ReactorFunc
async def calls_what_sleeps(pipe: Any) -> None:
    await rest()


@ReactorFunc
async def has_a_subreactor_that_sleeps(pipe: Any) -> None:
    await rests(pipe)  # has one


@ReactorFunc
async def has_a_time_limit(pipe: Any) -> None:
    async with asyncio.timeout(1):  # limits
        pass


@ReactorFunc
async def makes_a_task(pipe: Any) -> None:
    work = rest()
    try:
        asyncio.create_task(work)  # makes
    finally:
        work.close()


@ReactorFunc
async def is_greeted(pipe: Any) -> None:
    await Greeting()


@ReactorFunc
def yields_a_greeting(pipe: Any) -> Any:
    yield Greeting()  # is yielded


@ReactorFunc
async def awaits_whatever(pipe: Any) -> None:
    await Whatever()  # is anything


@pytest.mark.parametrize(
    ("reactor", "comment", "is_in_a_loop"),
    [
        (sleeps, "# sleeps", False),
        (sleeps, "# sleeps", True),
        (calls_what_sleeps, "# rests", False),
        (calls_what_sleeps, "# rests", True),
        (has_a_subreactor_that_sleeps, "# rests in a subreactor", False),
        (has_a_subreactor_that_sleeps, "# has one", True),
        (makes_a_task, "# makes", False),
        (has_a_time_limit, "# limits", False),
        (is_greeted, "# is greeted", False),
        (yields_a_greeting, "# is yielded", False),
        (awaits_whatever, "# is anything", False),
    ],
)
def test_is_told_with_the_line_and_what_to_do(open_plant: Any, reactor: Any, comment: str, is_in_a_loop: bool) -> None:
    async def as_in_a_notebook() -> None:
        plant.run_reactor(reactor)

    with open_plant(reactor) as plant:
        with pytest.raises(errors.BadRequest, match=f"reactor {reactor.name} (awaits|yielded)") as caught:
            asyncio.run(as_in_a_notebook()) if is_in_a_loop else plant.run_reactor(reactor)
        assert plant.why(reactor).action == "failed"
    line = next(i for i, text in enumerate(open(__file__), 1) if text.rstrip().endswith(f"  {comment}"))
    assert f"{__file__}:{line}" in caught.value.message
    assert "asyncio.run" in caught.value.hint and "pipe.receive" in caught.value.hint


def test_errors_of_the_reactors_own_are_left_alone(open_plant: Any) -> None:
    @ReactorFunc
    async def copes(pipe: Any) -> None:
        try:
            await asyncio.sleep(1)
        except RuntimeError:
            pipe.send("x", 1)

    @ReactorFunc
    async def raises(pipe: Any) -> None:
        raise RuntimeError("no running mill")

    with open_plant(copes, raises) as plant:
        assert plant.produce("x") == 1
        with pytest.raises(RuntimeError, match="no running mill"):
            plant.run_reactor(raises)


def test_what_an_event_loop_of_the_reactor_does_is_its_own(open_plant: Any) -> None:
    @ReactorFunc
    async def works(pipe: Any) -> None:
        pipe.send("x", asyncio.run(asyncio.wait_for(asyncio.sleep(0, "done"), 30)))

    with open_plant(works) as plant:
        assert plant.produce("x") == "done"

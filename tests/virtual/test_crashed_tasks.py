"""However the tasks of a machine wait for each other, none is left when it has crashed."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from simulations.virtual import Network, Overdue, simulate


async def gathers(child: asyncio.Task[None]) -> None:
    await asyncio.gather(child, asyncio.sleep(1_000))


async def shields(child: asyncio.Task[None]) -> None:
    await asyncio.shield(child)


async def waits(child: asyncio.Task[None]) -> None:
    await asyncio.wait([child])


async def waits_for_a_while(child: asyncio.Task[None]) -> None:
    async with asyncio.timeout(1_000):
        await child


@pytest.mark.parametrize("waiting", [gathers, shields, waits, waits_for_a_while])
def test_nothing_of_a_crashed_program_is_left(
    waiting: Callable[[asyncio.Task[None]], Awaitable[None]],
) -> None:
    async def sleeps() -> None:
        await asyncio.sleep(1_000)

    async def program() -> None:
        child = asyncio.create_task(sleeps())
        while True:
            await waiting(child)

    async def story(network: Network) -> set[str]:
        host = network.host("host", "5.0.0.1")
        host.spawn(program(), "the program")
        await asyncio.sleep(1)
        host.crash()
        await asyncio.sleep(1)
        return {task.get_name() for task in asyncio.all_tasks()} - {"the story"}

    assert simulate(story).value == set()


def test_nothing_is_left_of_a_program_whose_machine_runs_out_of_power_while_asleep() -> None:
    """Steps of its tasks were due when it had fallen asleep: of new ones, and of one woken up."""

    async def story(network: Network) -> set[str]:
        host = network.host("host", "5.0.0.1")
        woken = asyncio.Event()
        waiting = host.spawn(woken.wait(), "woken up")
        await asyncio.sleep(1)
        woken.set()
        new = host.spawn(asyncio.sleep(1), "not begun")
        host.sleep()
        await asyncio.sleep(1)
        host.crash()
        await asyncio.wait([waiting, new])
        return {task.get_name() for task in asyncio.all_tasks()} - {"the story"}

    assert simulate(story).value == set()


def test_what_an_inner_coroutine_raises_as_it_is_thrown_away_is_not_told_to_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for something in its ``finally``, as one that closes a connection, and is awaited
    by others: what was left of it was thrown away once more, after the end of the world."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            try:
                await asyncio.sleep(1)
            finally:
                raise OSError("the connection is gone")

    async def awaits() -> None:
        await cleans_up()

    async def story(network: Network) -> None:
        host = network.host("host", "5.0.0.1")
        host.spawn(awaits())
        await asyncio.sleep(1)
        host.crash()
        await asyncio.sleep(1)

    simulate(story)
    gc.collect()
    assert told == []


def test_a_generator_that_somebody_was_reading_as_the_machine_crashed_is_dropped_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """asyncio would have a new task close it: a dead machine begins none, and to make what such a
    task would have run is to be told, from 3.13 on, that nobody ever did."""
    told: list[object] = []
    ended: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    async def story(network: Network) -> None:
        host = network.host("host", "5.0.0.1")
        host.spawn(reads(ended))
        await asyncio.sleep(1)
        host.crash()
        await asyncio.sleep(1)

    simulate(story)
    gc.collect()
    assert (told, ended) == ([], [])


def test_a_generator_that_the_story_was_reading_as_time_was_up_is_dropped_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[object] = []
    ended: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with pytest.raises(Overdue):
        simulate(lambda _: reads(ended), limit_s=1)
    gc.collect()
    assert (told, ended) == ([], [])


async def reads(ended: list[str]) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("numbers")

    async for _ in numbers():
        await asyncio.sleep(1_000)

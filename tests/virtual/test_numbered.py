"""Sets of tasks and futures are gone through in the same order in each run."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from simulations.virtual import Network, run_in, simulate


async def ready_in_turn(_: Network) -> list[str]:
    """Names of tasks in the order that a set of them has."""
    tasks = {asyncio.create_task(asyncio.sleep(1), name=f"{n}") for n in range(100)}
    done, pending = await asyncio.wait(tasks)
    assert not pending
    return [task.get_name() for task in done]


@given(st.integers(0, 50))
def test_a_set_of_tasks_has_the_same_order_whatever_was_there_before(garbage: int) -> None:
    ballast = [object() for _ in range(garbage)]
    first = simulate(ready_in_turn).value
    del ballast[::2]
    assert simulate(ready_in_turn).value == first


def test_a_small_set_of_tasks_is_in_the_order_in_which_they_were_made() -> None:
    async def story(_: Network) -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(1), name=f"{n}") for n in range(4)}
        return [task.get_name() for task in sorted(tasks, key=hash)]

    assert simulate(story).value == ["0", "1", "2", "3"]


def test_a_set_of_futures_has_the_same_order_in_each_world() -> None:
    async def story(network: Network) -> list[int]:
        futures = [network.loop.create_future() for _ in range(100)]
        return [futures.index(future) for future in set(futures[::3])]

    assert simulate(story).value == simulate(story).value


def test_two_futures_are_equal_only_if_they_are_one() -> None:
    async def story(network: Network) -> None:
        one, other = network.loop.create_future(), network.loop.create_future()
        assert one != other
        assert len({one, other, one}) == 2
        assert hash(one) == hash(one)

    simulate(story)


def test_tasks_have_the_same_names_in_each_world() -> None:
    async def story(network: Network) -> list[str]:
        alice = network.host("alice", "192.0.2.1")
        tasks = [alice.spawn(asyncio.sleep(1)), asyncio.create_task(asyncio.sleep(1))]
        await asyncio.wait(tasks)
        return [task.get_name() for task in tasks]

    first = simulate(story).value
    asyncio.run(asyncio.sleep(0))
    assert simulate(story).value == first
    assert all(name.startswith("Task-") for name in first)


def test_the_names_that_a_program_gives_are_kept() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        assert alice.spawn(asyncio.sleep(0), name="mine").get_name() == "mine"
        assert asyncio.create_task(asyncio.sleep(0), name="yours").get_name() == "yours"
        await asyncio.sleep(1)

    simulate(story)


def test_a_task_has_its_name_whether_asyncio_or_its_factory_gives_it() -> None:
    """Which of the two it is differs from one version to the next, within 3.13 as well."""

    async def story(network: Network) -> None:
        make: Any = network.loop.get_task_factory()
        by_factory = make(network.loop, asyncio.sleep(0), name="mine")
        nameless = make(network.loop, asyncio.sleep(0), name=None)
        nameless.set_name(None)
        assert by_factory.get_name() == "mine"
        assert nameless.get_name() == f"Task-{hash(nameless)}"
        await asyncio.sleep(1)

    simulate(story)


def test_a_task_that_is_waiting_is_held_by_the_machine_that_was_asked_to_run_it() -> None:
    async def serve(stopped: list[str]) -> None:
        try:
            # Nobody else knows what it waits for, nor the task itself.
            await asyncio.Event().wait()
        finally:
            stopped.append("stopped")

    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        stopped: list[str] = []
        alice.spawn(serve(stopped))
        await asyncio.sleep(1)
        gc.collect()
        await asyncio.sleep(1)
        assert stopped == []
        assert len(alice.process.started) == 1
        alice.kill()
        assert stopped == ["stopped"]

    run_in(network := Network(), story(network))


def test_tasks_that_are_done_are_not_held() -> None:
    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        for _ in range(1_000):
            await alice.run(asyncio.sleep(0.001))
        await asyncio.sleep(1)
        assert not alice.process.started

    simulate(story)

"""What asyncio offers to programs behaves in virtual time as it does in real time."""

from __future__ import annotations

import asyncio
import contextvars
import sys

import pytest

from simulations.virtual import Network, simulate


async def after(delay_s: float, value: object = None) -> object:
    await asyncio.sleep(delay_s)
    return value


async def fails(delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    raise ValueError(f"after {delay_s:g} s")


def test_a_timeout_ends_what_it_is_around_at_its_moment() -> None:
    async def story(network: Network) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await after(5)
        assert network.loop.time() == 3
        async with asyncio.timeout(3) as limit:
            await after(2)
            limit.reschedule(network.loop.time() + 10)
            await after(9)
        assert network.loop.time() == 14
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(after(5), 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(after(5), -1)
        assert await asyncio.wait_for(after(1, "value"), 5) == "value"

    simulate(story)


def test_of_a_timeout_and_what_it_waits_for_at_one_moment_the_first_asked_for_wins() -> None:
    async def story(_: Network) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(5)
        # The sleep began earlier, so it ends first, if only by a turn of the loop.
        sleeping = asyncio.create_task(after(5, "slept"))
        await asyncio.sleep(0)
        assert await asyncio.wait({sleeping}, timeout=5) == ({sleeping}, set())
        assert sleeping.result() == "slept"
        # Here the wait began earlier: the task takes its first step in the next turn.
        late = asyncio.create_task(after(5))
        assert await asyncio.wait({late}, timeout=5) == (set(), {late})
        await late

    simulate(story)


def test_if_wait_for_and_what_it_waits_for_end_at_one_moment_asyncio_says_which_wins() -> None:
    """Until 3.11 it looked what was there. From 3.12 on it is a ``timeout``, and cancels a task
    whose last step is due, too."""

    async def story(_: Network) -> None:
        sleeping = asyncio.create_task(after(5, "slept"))
        await asyncio.sleep(0)
        if sys.version_info < (3, 12):
            assert await asyncio.wait_for(sleeping, 5) == "slept"
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sleeping, 5)
            assert sleeping.cancelled()

    simulate(story)


def test_a_group_of_tasks_waits_for_all_and_cancels_the_rest_if_one_fails() -> None:
    async def story(network: Network) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(after(n, n)) for n in (3, 1, 2)]
        assert [task.result() for task in tasks] == [3, 1, 2]
        assert network.loop.time() == 3
        with pytest.raises(ExceptionGroup) as errors:
            async with asyncio.TaskGroup() as group:
                slow = group.create_task(after(100))
                group.create_task(fails(1))
        assert [str(error) for error in errors.value.exceptions] == ["after 1 s"]
        assert slow.cancelled()
        assert network.loop.time() == 4

    simulate(story)


def test_gather_keeps_the_order_and_can_return_exceptions() -> None:
    async def story(_: Network) -> None:
        assert list(await asyncio.gather(after(2, "a"), after(1, "b"))) == ["a", "b"]
        first, second = await asyncio.gather(fails(1), after(2, "b"), return_exceptions=True)
        assert isinstance(first, ValueError)
        assert second == "b"
        with pytest.raises(ValueError, match="after 1 s"):
            await asyncio.gather(fails(1), after(2))

    simulate(story)


def test_wait_returns_when_it_was_asked_to() -> None:
    async def story(network: Network) -> None:
        tasks = [asyncio.create_task(after(n, n)) for n in (3, 1, 2)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [1]
        assert network.loop.time() == 1
        done, pending = await asyncio.wait(pending, timeout=1.5)
        assert [task.result() for task in done] == [2]
        assert network.loop.time() == 2.5
        assert await pending.pop() == 3

    simulate(story)


def test_as_completed_gives_them_in_the_order_in_which_they_end() -> None:
    async def story(_: Network) -> list[object]:
        ended = asyncio.as_completed([after(n, n) for n in (3, 1, 2)])
        return [await one for one in ended]

    assert simulate(story).value == [1, 2, 3]


def test_shield_keeps_work_alive_that_nobody_waits_for_any_more() -> None:
    async def story(network: Network) -> None:
        work = asyncio.create_task(after(5, "done"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(work), 1)
        assert network.loop.time() == 1
        assert await work == "done"

    simulate(story)


def test_queues_hand_things_over_in_order_and_hold_up_who_is_too_fast() -> None:
    async def story(network: Network) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        put_at_s: list[float] = []

        async def produce() -> None:
            for number in range(5):
                await queue.put(number)
                put_at_s.append(network.loop.time())

        producing = asyncio.create_task(produce())
        got = []
        for _ in range(5):
            await asyncio.sleep(1)
            got.append(await queue.get())
        await producing
        assert got == [0, 1, 2, 3, 4]
        assert put_at_s == [0, 0, 1, 2, 3]

    simulate(story)


def test_events_conditions_locks_and_semaphores_wake_who_waits_in_turn() -> None:
    async def story(network: Network) -> str:
        order = ""
        event, lock, some = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2)
        condition = asyncio.Condition()

        async def person(letter: str) -> None:
            nonlocal order
            await event.wait()
            async with lock:
                order += letter
                await asyncio.sleep(1)
            async with some:
                await asyncio.sleep(1)
            async with condition:
                await condition.wait()
                order += letter.upper()

        async with asyncio.TaskGroup() as group:
            for letter in "abc":
                group.create_task(person(letter))
            await asyncio.sleep(10)
            event.set()
            await asyncio.sleep(10)
            assert network.loop.time() == 20
            async with condition:
                condition.notify_all()
        return order

    assert simulate(story).value == "abcABC"


def test_cancelling_reaches_the_innermost_wait_and_cleaning_up_takes_its_time() -> None:
    async def story(network: Network) -> None:
        cleaned_at_s: list[float] = []

        async def inner() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(2)
                cleaned_at_s.append(network.loop.time())

        async def outer() -> None:
            await asyncio.gather(inner(), inner())

        task = asyncio.create_task(outer())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(5)
        assert cleaned_at_s == [3, 3]

    simulate(story)


def test_a_barrier_lets_all_go_at_once() -> None:
    async def story(network: Network) -> list[float]:
        barrier, gone_s = asyncio.Barrier(3), []

        async def come(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            async with barrier:
                gone_s.append(network.loop.time())

        await asyncio.gather(come(1), come(5), come(3))
        return gone_s

    assert simulate(story).value == [5, 5, 5]


def test_context_variables_go_along_with_tasks_and_callbacks() -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="nothing")

    async def story(network: Network) -> None:
        alice = network.host("alice", "192.0.2.1")
        seen: list[str] = []

        async def program() -> None:
            word.set("alice's")
            network.loop.call_later(1, lambda: seen.append(word.get()))
            await asyncio.create_task(after(2))
            seen.append(word.get())

        word.set("the story's")
        await alice.run(program())
        assert seen == ["alice's", "alice's"]
        assert word.get() == "the story's"

    simulate(story)

"""Time and turns: in which order things happen that do not wait for a socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("problems")

CLOCK_S = 0.001
"""uvloop's clock ticks in milliseconds."""


async def test_callbacks_run_in_the_order_in_which_they_were_asked_for() -> None:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    for number in range(100):
        loop.call_soon(order.append, number)
    assert order == []
    await asyncio.sleep(0)
    assert order == list(range(100))


async def test_what_a_callback_asks_for_runs_after_what_waits_already() -> None:
    loop = asyncio.get_running_loop()
    order: list[str] = []

    def first() -> None:
        order.append("first")
        loop.call_soon(order.append, "asked for by the first")

    loop.call_soon(first)
    loop.call_soon(order.append, "second")
    await asyncio.sleep(0)
    assert order == ["first", "second"]
    await asyncio.sleep(0)
    assert order == ["first", "second", "asked for by the first"]


async def test_a_callback_that_is_cancelled_does_not_run() -> None:
    loop = asyncio.get_running_loop()
    order: list[str] = []
    soon = loop.call_soon(order.append, "soon")
    later = loop.call_later(0.005, order.append, "later")
    soon.cancel()
    later.cancel()
    assert soon.cancelled()
    assert later.cancelled()
    await asyncio.sleep(0.01)
    later.cancel()
    assert order == []


async def test_timers_run_in_the_order_of_their_times() -> None:
    # Of equal times, asyncio promises nothing: its heap does not keep their order. And uvloop
    # reckons from a time that may be some milliseconds ago.
    loop = asyncio.get_running_loop()
    order: list[int] = []
    all_ran = asyncio.Event()
    now = loop.time()
    loop.call_at(now + 0.25, all_ran.set)
    for number in (3, 1, 4, 0, 2):
        loop.call_at(now + number * 0.05, order.append, number)
    async with asyncio.timeout(5):
        await all_ran.wait()
    assert order == [0, 1, 2, 3, 4]


async def test_a_timer_for_the_past_runs_at_once() -> None:
    loop = asyncio.get_running_loop()
    ran = asyncio.Event()
    loop.call_later(-1, ran.set)
    loop.call_at(loop.time() - 1, ran.set)
    assert not ran.is_set()
    async with asyncio.timeout(5):
        await ran.wait()


async def test_a_timer_is_not_early() -> None:
    loop = asyncio.get_running_loop()

    def tell_time(ran: asyncio.Future[float]) -> None:
        ran.set_result(loop.time())

    for delay_s in (0.0, 0.002, 0.01, 0.02):
        before = loop.time()
        ran: asyncio.Future[float] = loop.create_future()
        loop.call_later(delay_s, tell_time, ran)
        assert await ran >= before + delay_s - CLOCK_S


async def test_a_timer_knows_its_time() -> None:
    # On uvloop one without delay is no timer and has no time.
    loop = asyncio.get_running_loop()
    before = loop.time()
    timer = loop.call_later(60, print)
    assert timer.when() == pytest.approx(before + 60, abs=1)
    timer.cancel()
    timer = loop.call_at(before + 60, print)
    assert timer.when() == pytest.approx(before + 60, abs=1)
    timer.cancel()


async def test_time_never_goes_back() -> None:
    loop = asyncio.get_running_loop()
    times = [loop.time()]
    for number in range(50):
        await asyncio.sleep(0.001 * (number % 3))
        times.append(loop.time())
    assert times == sorted(times)
    assert times[-1] > times[0]


async def test_sleeping_takes_as_long_as_it_says() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert await asyncio.sleep(0.02, "well rested") == "well rested"
    assert loop.time() >= before + 0.02 - CLOCK_S


async def test_tasks_that_sleep_for_no_time_take_turns() -> None:
    order: list[str] = []

    async def work(name: str) -> None:
        for _ in range(3):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"), work("c"))
    assert order == ["a", "b", "c"] * 3


async def test_a_timeout_ends_what_takes_too_long() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await asyncio.Event().wait()
    assert loop.time() >= before + 0.02 - CLOCK_S
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)


async def test_a_timeout_leaves_what_is_in_time_alone() -> None:
    async with asyncio.timeout(5) as timeout:
        await asyncio.sleep(0)
    assert not timeout.expired()
    assert await asyncio.wait_for(asyncio.sleep(0, "done"), 5) == "done"


async def test_a_timeout_that_is_over_already_ends_at_the_first_wait() -> None:
    order: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(-1):
            order.append("begun")
            await asyncio.Event().wait()
            order.append("not reached")
    assert order == ["begun"]


async def test_the_shorter_of_two_timeouts_counts() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5) as outer:
            async with asyncio.timeout(0.01) as inner:
                await asyncio.Event().wait()
    assert inner.expired()
    assert not outer.expired()


async def test_work_in_a_thread_gives_its_result_or_raises() -> None:
    # On the simulated loop it is done at once; nobody can tell.
    assert await asyncio.to_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(divmod, 7, 0)


async def test_a_numeric_address_is_its_own_address_info() -> None:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo("127.0.0.1", 80)
    assert {address for *_, address in infos} == {("127.0.0.1", 80)}
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6)


async def test_what_a_callback_raises_is_told_and_the_loop_goes_on(
    problems: list[dict[str, Any]],
) -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: 1 // 0)
    loop.call_later(0.001, lambda: 1 // 0)
    await asyncio.sleep(0.01)
    assert [type(context["exception"]) for context in problems] == [ZeroDivisionError] * 2
    problems.clear()

"""Coroutines that do whatever coroutines do, and note what they see on their way."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeAlias

LONG_S: Final = 1_000.0

Log: TypeAlias = list[object]
Work: TypeAlias = Callable[[Log], Coroutine[Any, Any, Any]]


async def returns_at_once(log: Log) -> str:
    log.append("here")
    return "value"


async def raises_at_once(log: Log) -> None:
    log.append("here")
    raise ValueError("no")


async def waits_a_turn(log: Log) -> str:
    log.append("before")
    await asyncio.sleep(0)
    log.append("after")
    return "value"


async def waits_for_a_time(log: Log) -> str:
    log.append("before")
    try:
        await asyncio.sleep(0.01)
    finally:
        log.append("after")
    return "value"


async def waits_for_what_is_there(log: Log) -> object:
    future = asyncio.get_running_loop().create_future()
    future.set_result("there")
    log.append(await future)
    return await future


async def waits_for_what_has_failed(log: Log) -> object:
    future = asyncio.get_running_loop().create_future()

    def fail() -> None:
        if not future.done():
            future.set_exception(KeyError("gone"))

    asyncio.get_running_loop().call_soon(fail)
    try:
        return await future
    except KeyError as error:
        log.append(repr(error))
        await asyncio.sleep(0)
        raise


async def waits_for_ever(log: Log) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


async def waits_for_a_future_that_is_cancelled_with_it(log: Log) -> None:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda one: log.append(("future", one.cancelled())))
    await future


async def waits_for_a_task(log: Log) -> None:
    child = asyncio.create_task(asyncio.sleep(LONG_S))
    child.add_done_callback(lambda child: log.append(("child cancelled", child.cancelled())))
    await child


async def waits_for_a_short_task(log: Log) -> object:
    return await asyncio.create_task(waits_a_turn(log))


async def gathers(log: Log) -> list[object]:
    children = [asyncio.create_task(asyncio.sleep(0.005 * n, n)) for n in range(1, 4)]
    for child in children:
        child.add_done_callback(lambda child: log.append(child.cancelled()))
    return await asyncio.gather(*children)


async def has_a_task_group(log: Log) -> object:
    async with asyncio.TaskGroup() as group:
        one = group.create_task(waits_a_turn(log))
        two = group.create_task(waits_for_a_time(log))
    return one.result(), two.result()


async def has_a_task_group_that_fails(log: Log) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(raises_at_once(log))
            group.create_task(waits_for_ever(log))
            await asyncio.sleep(LONG_S)
    except* ValueError as errors:
        log.append(repr(errors.exceptions))
    log.append(_cancelling())
    await asyncio.sleep(0)


async def has_no_time_at_all(log: Log) -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(LONG_S)
    except TimeoutError:
        log.append("time out")
    log.append(_cancelling())
    await asyncio.sleep(0)


async def has_a_little_time(log: Log) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(LONG_S)
    log.append(_cancelling())
    await asyncio.sleep(0)


async def has_no_time_and_does_not_wait(log: Log) -> str:
    async with asyncio.timeout(0):  # noqa: ASYNC100 - that is what it is about
        log.append("inside")
    await asyncio.sleep(0)
    return "value"


async def has_times_in_times(log: Log) -> None:
    try:
        async with asyncio.timeout(0.05):
            try:
                async with asyncio.timeout(0.005):
                    await asyncio.sleep(LONG_S)
            except TimeoutError:
                log.append("inner")
            await asyncio.sleep(LONG_S)
    except TimeoutError:
        log.append("outer")


async def waits_with_wait_for(log: Log) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(waits_for_ever(log), 0.005)
    await asyncio.sleep(0)


async def has_no_time_for_a_task(log: Log) -> None:
    try:
        async with asyncio.timeout(0):
            await waits_for_a_task(log)
    except TimeoutError:
        log.append("time out")


async def shields_a_task(log: Log) -> None:
    child = asyncio.create_task(waits_for_a_time(log))
    try:
        await asyncio.shield(child)
    finally:
        log.append(await child)


async def cancels_itself_and_returns(log: Log) -> str:
    this_task().cancel()
    log.append(_cancelling())
    return "value"


async def cancels_itself_and_waits(log: Log) -> None:
    this_task().cancel()
    try:
        await asyncio.sleep(LONG_S)
    finally:
        log.append(_cancelling())


async def cancels_itself_after_a_turn_and_returns(log: Log) -> str:
    await asyncio.sleep(0)
    this_task().cancel()
    log.append(_cancelling())
    return "value"


async def is_cancelled_by_itself_but_goes_on(log: Log) -> str:
    this_task().cancel()
    try:
        await asyncio.sleep(LONG_S)
    except asyncio.CancelledError:
        log.append(this_task().uncancel())
    await asyncio.sleep(0.005)
    return "value"


async def raises_that_it_is_cancelled(log: Log) -> None:
    log.append("here")
    raise asyncio.CancelledError


async def does_not_let_itself_be_cancelled(log: Log) -> str:
    for _ in range(3):
        try:
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            log.append("cancelled")
    return "value"


async def takes_long_to_end(log: Log) -> None:
    try:
        await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(0.005)
        log.append("ended")


async def is_the_same_task_all_the_time(log: Log) -> None:
    this = this_task()
    for _ in range(3):
        await asyncio.sleep(0)
        log.append(this_task() is this)
    async with asyncio.timeout(1):
        await asyncio.sleep(0.005)
    log.append(this_task() is this)
    log.append(this in asyncio.all_tasks())


NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


async def sees_its_context(log: Log) -> None:
    token = NUMBER.set(5)
    await asyncio.sleep(0)
    log.append(NUMBER.get())

    async def child() -> None:
        log.append(NUMBER.get())
        NUMBER.set(6)

    await asyncio.create_task(child())
    log.append(NUMBER.get())
    asyncio.get_running_loop().call_soon(lambda: log.append(NUMBER.get()))
    await asyncio.sleep(0)
    NUMBER.reset(token)
    log.append(NUMBER.get())


async def holds_a_lock(log: Log) -> None:
    lock = asyncio.Lock()

    async def hold(number: int) -> None:
        async with lock:
            await asyncio.sleep(0)
            log.append(number)

    await asyncio.gather(*map(hold, range(4)))
    log.append(lock.locked())


async def goes_through_a_generator(log: Log) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            log.append("generator ended")

    async with contextlib.aclosing(numbers()) as those:  # type: ignore[type-var]
        async for number in those:
            log.append(number)


WORKS: Final = [
    returns_at_once,
    raises_at_once,
    waits_a_turn,
    waits_for_a_time,
    waits_for_what_is_there,
    waits_for_what_has_failed,
    gathers,
    has_a_task_group,
    has_a_task_group_that_fails,
    has_no_time_at_all,
    has_a_little_time,
    has_no_time_and_does_not_wait,
    has_times_in_times,
    waits_with_wait_for,
    shields_a_task,
    cancels_itself_and_waits,
    is_cancelled_by_itself_but_goes_on,
    raises_that_it_is_cancelled,
    does_not_let_itself_be_cancelled,
    takes_long_to_end,
    is_the_same_task_all_the_time,
    sees_its_context,
    holds_a_lock,
    goes_through_a_generator,
]
UNMEDDLED: Final = [waits_for_a_short_task, has_no_time_for_a_task]
"""Whether their tasks have begun when they are cancelled differs by a turn."""
TIMED: Final = [
    waits_for_a_time,
    gathers,
    has_a_task_group,
    has_a_little_time,
    has_times_in_times,
    waits_with_wait_for,
    shields_a_task,
    is_cancelled_by_itself_but_goes_on,
    does_not_let_itself_be_cancelled,
    takes_long_to_end,
    is_the_same_task_all_the_time,
]
ENDLESS: Final = [
    waits_for_ever,
    waits_for_a_future_that_is_cancelled_with_it,
    waits_for_a_task,
]


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _cancelling() -> int:
    return this_task().cancelling()

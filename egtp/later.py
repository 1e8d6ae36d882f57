"""Tasks: begun in a turn of their own, and told of if they end by mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["begin_later", "tell_of_mistake"]

T = TypeVar("T")


def begin_later(work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
    """A task for ``work``, which has not begun when this returns.

    An eager factory (``asyncio.eager_task_factory``) takes the first step at once, which may be the
    last: too early for work that ends by removing itself from where its caller has yet to enter it.
    The factory is used all the same, since it may do more than begin tasks eagerly.
    """
    is_made = False

    async def in_a_turn_of_its_own() -> T:
        if not is_made:
            await asyncio.sleep(0)
        return await work()

    task = asyncio.get_running_loop().create_task(in_a_turn_of_its_own())
    is_made = True
    return task


def tell_of_mistake(message: str, task: asyncio.Task[Any]) -> None:
    """Report what ended a task to its loop's exception handler, unless it ended as it should: for
    tasks that nobody awaits before the node is closed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": message, "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)

"""Tasks that begin in a turn of their own, whatever the event loop's task factory does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["begin_later"]

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

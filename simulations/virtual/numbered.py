# The tasks build on asyncio's own, of which typeshed declares little.
# mypy: disable-error-code="override, arg-type"
"""Futures and tasks that are numbered as they are created, and hashed by that number.

So iterating over a set of them gives the same order in each run. Hashed by memory address, as
usual, the order would differ between processes.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from simulations.virtual.loop import VirtualLoop

__all__ = ["SimulatedFuture", "SimulatedTask", "make_task"]

_T = TypeVar("_T")


class SimulatedFuture(asyncio.Future[Any]):
    __slots__ = ("number",)
    number: int
    """Assigned by the loop on creation."""

    def __hash__(self) -> int:
        return self.number


class SimulatedTask(asyncio.Task[Any]):
    __slots__ = ("context", "number")
    context: contextvars.Context
    number: int

    def __hash__(self) -> int:
        try:
            return self.number
        except AttributeError:
            # asyncio adds each task to a set before it is fully constructed.
            self.number = cast("VirtualLoop", self.get_loop()).next_number()
            return self.number

    def set_name(self, value: object, /) -> None:
        # asyncio 3.13.0 calls this with None on tasks from a factory if they were given no name.
        if value is not None:
            super().set_name(value)


def make_task(
    loop: VirtualLoop,
    coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
) -> asyncio.Task[_T]:
    """A task factory. Names the task, as 3.13.3 requires; other versions of asyncio do so later."""
    context = contextvars.copy_context() if context is None else context
    task = SimulatedTask(coro, loop=loop, context=context)
    task.context = context
    # Not asyncio's default name: its counter spans all worlds of the process.
    task.set_name(f"Task-{hash(task)}" if name is None else name)
    return task

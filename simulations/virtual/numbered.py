# The tasks are built on asyncio's own, of which typeshed says little.
# mypy: disable-error-code="override, arg-type"
"""Futures and tasks that are numbered as they come.

A set of them is gone through in the same order in each run: by memory address, as usual, that order
would be another one in each process.
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
    """Given by the loop as it makes it."""

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
            # asyncio notes each task in a set before it is all there.
            self.number = cast("VirtualLoop", self.get_loop()).next_number()
            return self.number

    def set_name(self, value: object, /) -> None:
        # asyncio of 3.13.0 gives what its factory made a name that nobody gave it: ``None``.
        if value is not None:
            super().set_name(value)


def make_task(
    loop: VirtualLoop,
    coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
) -> asyncio.Task[_T]:
    """Most versions of asyncio name the task afterwards; 3.13.3 leaves that to its factory."""
    context = contextvars.copy_context() if context is None else context
    task = SimulatedTask(coro, loop=loop, context=context)
    task.context = context
    # asyncio itself counts the tasks of all worlds that this process has seen.
    task.set_name(f"Task-{hash(task)}" if name is None else name)
    return task

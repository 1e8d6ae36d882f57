"""Process: what runs on a machine between two crashes.

Which process a callback belongs to travels with its context, as asyncio hands contexts on from
task to task and from callback to callback. So no program has to know that there are several.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Coroutine, Generator
from types import CoroutineType
from typing import Any, Final, Protocol, TypeVar

from simulations.virtual.clocks import Clocks
from simulations.virtual.errors import Blocked, HostDown

__all__ = [
    "Errand",
    "Machine",
    "Process",
    "close",
    "context_of",
    "coroutine_of",
    "current_process",
    "is_over",
    "process_of",
]

_T = TypeVar("_T")

CLOSES_MAX: Final = 1_000
"""How often a coroutine may wait for something more when it is thrown away."""


class Machine(Protocol):
    """What a process knows of the machine below it."""

    @property
    def name(self) -> str: ...

    @property
    def clocks(self) -> Clocks: ...

    @property
    def is_asleep(self) -> bool: ...

    @property
    def rng(self) -> random.Random:
        """What is random for it."""

    def unix_time(self) -> float: ...

    def elapsed(self) -> float: ...

    def entropy(self, count: int, /) -> bytes: ...


class Process:
    """Made anew whenever its machine starts."""

    def __init__(self, machine: Machine) -> None:
        self.machine: Final = machine
        self.alive = True
        self.started: Final[set[asyncio.Task[Any]]] = set()
        self.kept: list[asyncio.Handle] = []
        """Callbacks that are due, while the machine is asleep."""
        self.timers: list[tuple[float, int, Any]] = []
        """What its timers had left to wait when it fell asleep."""
        self.context: Final = contextvars.copy_context()
        self.context.run(_CURRENT.set, self)

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def runs(self) -> bool:
        return self.alive and not self.machine.is_asleep

    @property
    def clocks(self) -> Clocks:
        return self.machine.clocks

    def owns(self, task: asyncio.Task[Any]) -> bool:
        return process_of(task) is self


class Errand(Coroutine[Any, Any, _T]):
    """Work that a machine was asked to do from outside; whoever waits for it is outside as well,
    and if the machine crashes over it, gets :class:`HostDown` from what is left of the task."""

    def __init__(self, process: Process, work: Coroutine[Any, Any, _T]) -> None:
        self._process = process
        self.work: Final = work

    def send(self, value: Any, /) -> Any:
        return self.work.send(value)

    def throw(self, *error: Any) -> Any:
        if not self._process.alive:
            raise HostDown(f"{self._process.name} crashed")
        return self.work.throw(*error)

    def close(self) -> None:
        self.work.close()

    def __await__(self) -> Generator[Any, Any, _T]:
        return self.work.__await__()


_CURRENT: Final[contextvars.ContextVar[Process | None]] = contextvars.ContextVar(
    "simulated_process", default=None
)


def current_process(context: contextvars.Context | None = None) -> Process | None:
    """The process that a context belongs to, by default the running one; None for the story."""
    return _CURRENT.get() if context is None else context.get(_CURRENT)


def context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
    """The context of a task of a simulated loop. Python itself tells from 3.12 on."""
    return getattr(task, "context", None)


def process_of(task: asyncio.Task[Any]) -> Process | None:
    """The one that a task is part of; None for the story's."""
    context = context_of(task)
    return None if context is None else current_process(context)


def coroutine_of(task: asyncio.Task[Any]) -> object:
    """What a task runs, be it an errand or not."""
    coroutine = task.get_coro()
    return coroutine.work if isinstance(coroutine, Errand) else coroutine


def close(task: asyncio.Task[Any]) -> None:
    """End a task where it is: no more of it runs, except what Python insists on running when a
    coroutine is thrown away."""
    context, coroutine = context_of(task), coroutine_of(task)
    if context is not None and isinstance(coroutine, CoroutineType):
        inside = context.copy()
        for _ in range(CLOSES_MAX):
            # The innermost first: what it raises, or waits for, as it is closed would end the one
            # that awaits it, and leave the rest of it to the garbage collector.
            for one in reversed(_awaiting(coroutine)):
                _close(inside, one)
            if is_over(task):
                break
            # It waits again, in a ``finally`` or as it leaves an ``async with``: in vain as well.
    # One step more, which finds nothing to do, and whoever waits for the task knows.
    task.add_done_callback(_look_away, context=contextvars.Context())
    task.cancel()


def is_over(task: asyncio.Task[Any]) -> bool:
    """Whether nothing is left of a task's coroutine that could run."""
    return getattr(coroutine_of(task), "cr_frame", None) is None


def _awaiting(outermost: CoroutineType[Any, Any, Any]) -> list[CoroutineType[Any, Any, Any]]:
    """A coroutine, the one that it awaits, and so on."""
    chain = [outermost]
    while isinstance(inner := chain[-1].cr_await, CoroutineType):
        chain.append(inner)
    return chain


def _close(context: contextvars.Context, coroutine: CoroutineType[Any, Any, Any]) -> None:
    try:
        context.run(coroutine.close)
    except (KeyboardInterrupt, Blocked):
        raise
    except BaseException:  # noqa: S110 - there is nobody left whom it could be told
        pass


def _look_away(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()

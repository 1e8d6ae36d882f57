"""Process: what runs on a machine between two crashes.

A context variable holds the process that a callback belongs to, and asyncio passes contexts on from
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
"""How often a coroutine may await something more while it is being closed."""


class Machine(Protocol):
    """What a process knows of its machine."""

    @property
    def name(self) -> str: ...

    @property
    def clocks(self) -> Clocks: ...

    @property
    def is_asleep(self) -> bool: ...

    @property
    def rng(self) -> random.Random:
        """The machine's source of randomness."""

    def unix_time(self) -> float: ...

    def elapsed(self) -> float: ...

    def entropy(self, count: int, /) -> bytes: ...


class Process:
    """A process of one machine. Every start of the machine makes a new one."""

    def __init__(self, machine: Machine) -> None:
        self.machine: Final = machine
        self.alive = True
        self.started: Final[set[asyncio.Task[Any]]] = set()
        self.kept: list[asyncio.Handle] = []
        """Callbacks that came due while the machine is asleep."""
        self.timers: list[tuple[float, int, Any]] = []
        """Its timers, with the time that each had left when the machine fell asleep."""
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
    """Work that a machine was given from outside. Whoever awaits it is outside too, and gets
    :class:`HostDown` from the task if the machine crashes meanwhile."""

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
    """The process that a context belongs to, by default the current one; None for the story."""
    return _CURRENT.get() if context is None else context.get(_CURRENT)


def context_of(task: asyncio.Task[Any]) -> contextvars.Context | None:
    """The context of a task of a simulated loop. Python has Task.get_context only since 3.12."""
    return getattr(task, "context", None)


def process_of(task: asyncio.Task[Any]) -> Process | None:
    """The process that a task belongs to; None for the story's."""
    context = context_of(task)
    return None if context is None else current_process(context)


def coroutine_of(task: asyncio.Task[Any]) -> object:
    """The coroutine that a task runs, whether or not it is wrapped in an errand."""
    coroutine = task.get_coro()
    return coroutine.work if isinstance(coroutine, Errand) else coroutine


def close(task: asyncio.Task[Any]) -> None:
    """End a task where it is: no more of it runs, except the cleanup that Python insists on when a
    coroutine is closed."""
    context, coroutine = context_of(task), coroutine_of(task)
    if context is not None and isinstance(coroutine, CoroutineType):
        inside = context.copy()
        for _ in range(CLOSES_MAX):
            # Innermost first: whatever it raises or awaits while it is closed would otherwise end
            # the close of its caller, and leave the rest to the garbage collector.
            for one in reversed(_awaiting(coroutine)):
                _close(inside, one)
            if is_over(task):
                break
            # It awaits again, in a ``finally`` or on leaving an ``async with``: close that too.
    # One more step, which finds nothing to run, informs the waiters of the task.
    task.add_done_callback(_ignore_outcome, context=contextvars.Context())
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
    except BaseException:  # noqa: S110 - nobody is left to be told
        pass


def _ignore_outcome(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()

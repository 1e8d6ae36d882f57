"""Runs coroutine functions, taking the first step of their coroutines in place.

Most handlers of queries never wait, and a task for each costs more than all the rest of answering.
So a coroutine takes its first step where its query is taken from the packet, *as* a task that
stands by. Only if it waits for something does that task take it over and carry it to its end. The
coroutine sees no difference: it is always in the same task, ``asyncio.timeout`` and task groups
work, and it can be cancelled. (``asyncio._enter_task`` is documented for exactly this, under
"Extending".)

As with tasks, no coroutine sees the context variables that another one has set, nor those of
whoever caused its job: all begin with those of whoever made the workers. A worker whose coroutine
has set one ends with it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeAlias, TypeVar

__all__ = ["IDLE_MAX", "Workers"]

IDLE_MAX: Final = 64
"""How many tasks may stand by; further ones end when they have nothing to do."""
ENDS_WITHIN_S: Final = 5.0
"""How long to wait for a cancelled coroutine: it may clean up, but not for ever."""
ENDS_THE_PROGRAM: Final = (KeyboardInterrupt, SystemExit)
"""These propagate after they have ended their job; anything else only fails the job."""

Job = TypeVar("Job")
Function: TypeAlias = Callable[[Job], Coroutine[Any, Any, Any]]


class _Rest:
    """An awaitable for the rest of a coroutine that has begun to wait."""

    __slots__ = ("_cancel", "_coroutine", "_waits_for")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], waits_for: object, *, cancel: bool
    ) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waits_for = self._coroutine, self._waits_for
        error: BaseException | None = None
        # As a task does: cancel what the coroutine waits for, so that it learns of it from there.
        if self._cancel and not (asyncio.isfuture(waits_for) and waits_for.cancel()):
            error = asyncio.CancelledError()
        try:
            while True:
                if error is None:
                    try:
                        value = yield waits_for
                    except BaseException as raised:
                        error = raised
                        continue
                    waits_for = coroutine.send(value)
                else:
                    thrown, error = error, None
                    waits_for = coroutine.throw(thrown)
        except StopIteration as end:
            return end.value


class Worker(Generic[Job]):
    """A task that stands by, or carries the coroutine of its ``job``."""

    __slots__ = (
        "cancel_due", "context", "coroutine", "function", "job", "stands_by", "task", "waits_for",
    )  # fmt: skip

    def __init__(self, context: contextvars.Context) -> None:
        self.context: Final = context
        self.job: Job | None = None
        self.function: Function[Job] | None = None
        """What to call for the job; None if it was called already."""
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.waits_for: object = None
        """What the coroutine waits for."""
        self.cancel_due = False
        """The job was cancelled, but its coroutine does not know yet."""
        self.stands_by: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None]


class Workers(Generic[Job]):
    """Runs jobs. ``done(job, value, error)`` is called once for each, when its coroutine has ended:
    whatever the coroutine raises is the ``error``, a :class:`asyncio.CancelledError` if it was
    cancelled by :meth:`cancel` or by itself. :data:`ENDS_THE_PROGRAM` also reach the event loop.

    Invariant: a worker is in ``_idle`` exactly while its task stands by, and in ``_busy`` exactly
    while it has a job.
    """

    def __init__(self, done: Callable[[Job, Any, BaseException | None], None]) -> None:
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._context: Final = contextvars.copy_context()
        self._idle: list[Worker[Job]] = []
        self._busy: dict[int, Worker[Job]] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many coroutines wait for something."""
        return len(self._busy)

    def run(self, job: Job, function: Function[Job]) -> Worker[Job] | None:
        """Call ``function`` with the job, and take the first step of its coroutine; if no task
        stands by, a new one does so soon. Returns the worker that carries on, or None if the
        coroutine has ended already.

        Must not be called from inside a task: the coroutine would see the wrong one.
        """
        if self._closed:
            self._done(job, None, asyncio.CancelledError())
            return None
        idle = self._idle
        # Workers that no longer stand by were cancelled: by a coroutine that they had carried, or
        # by somebody who still took the task for that coroutine's.
        while idle and (stands_by := idle[-1].stands_by) is not None and stands_by.done():
            idle.pop()
        if not idle:
            worker: Worker[Job] = Worker(self._context.copy())
            # Called in its first turn: if the loop ended before that, Python would complain of a
            # coroutine that was never awaited.
            worker.job, worker.function = job, function
            self._busy[id(worker)] = worker
            worker.task = self._loop.create_task(self._carry(worker), context=worker.context)
            # With an eager task factory it may have ended by now.
            return worker if worker.job is job else None
        worker = idle[-1]
        loop, task = self._loop, worker.task
        asyncio._enter_task(loop, task)
        try:
            coroutine = function(job)
            waits_for = worker.context.run(coroutine.send, None)
        except StopIteration as end:
            self._done(job, end.value, None)
            if worker.context != self._context:
                task.cancel()  # and "stands by" no longer
            return None
        except BaseException as error:
            self._done(job, None, error)
            if worker.context != self._context:
                task.cancel()
            if isinstance(error, ENDS_THE_PROGRAM):
                raise
            return None
        finally:
            asyncio._leave_task(loop, task)
        if idle:  # it may have closed everything
            idle.pop()
        worker.job, worker.coroutine, worker.waits_for = job, coroutine, waits_for
        self._busy[id(worker)] = worker
        assert worker.stands_by is not None  # noqa: S101 - it is idle
        if not worker.stands_by.done():  # it may have cancelled itself
            worker.stands_by.set_result(None)
        return worker

    def cancel(self, worker: Worker[Job], job: Job) -> None:
        """Cancel the coroutine of a job, if the worker still carries it."""
        if worker.job is job:
            self._cancel(worker)

    def _cancel(self, worker: Worker[Job]) -> None:
        if worker.function is not None:
            # A task cancelled before its first turn never runs, so nobody would be told.
            worker.cancel_due = True
        else:
            worker.task.cancel()

    async def _stand_by(self, worker: Worker[Job]) -> None:
        """Return when the worker has a job."""
        worker.stands_by = self._loop.create_future()
        try:
            await worker.stands_by
        except asyncio.CancelledError:
            if worker.job is None:
                raise
            # It came before the task had taken over the coroutine, and is meant for that.
            worker.cancel_due = True

    async def _carry(self, worker: Worker[Job]) -> None:
        this = asyncio.current_task()
        assert this is not None  # noqa: S101 - it runs
        worker.task = this
        while True:
            if worker.job is None:
                await self._stand_by(worker)
            job, function = worker.job, worker.function
            coroutine, waits_for = worker.coroutine, worker.waits_for
            cancel, worker.cancel_due = worker.cancel_due, False
            # From here on, cancelling the task reaches the coroutine.
            worker.function = worker.coroutine = worker.waits_for = None
            assert job is not None  # noqa: S101 - nobody else gives it a turn
            value, error = None, None
            try:
                if coroutine is not None:
                    value = await _Rest(coroutine, waits_for, cancel=cancel)
                elif cancel:
                    raise asyncio.CancelledError
                else:
                    assert function is not None  # noqa: S101 - there is one of the two
                    value = await function(job)
            except BaseException as raised:
                if asyncio.current_task(self._loop) is not this:
                    raise  # the task is being destroyed, along with a loop that has ended
                error = raised
            while worker.task.cancelling():
                worker.task.uncancel()
            worker.job = None
            del self._busy[id(worker)]
            self._done(job, value, error)
            if isinstance(error, ENDS_THE_PROGRAM):
                raise error
            # Keep nothing of the job while the worker stands by.
            del job, function, coroutine, waits_for, value, error
            if self._closed or len(self._idle) >= IDLE_MAX or worker.context != self._context:
                return
            self._idle.append(worker)

    def has(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the task is one of these workers'."""
        return any(w.task is task for w in (*self._busy.values(), *self._idle))

    async def close(self, caller: asyncio.Task[Any] | None = None) -> list[Job]:
        """Cancel everything, and wait for it, but not for ever. Returns the jobs that go on all the
        same.

        A coroutine may itself be closing, in the current task or, as the ``caller``, by way of
        another: it is neither cancelled nor waited for.
        """
        self._closed = True
        closing = (caller, asyncio.current_task())
        workers = [w for w in (*self._busy.values(), *self._idle) if w.task not in closing]
        for worker in workers:
            self._cancel(worker)
        self._idle.clear()
        if workers:
            await asyncio.wait([worker.task for worker in workers], timeout=ENDS_WITHIN_S)
        return [worker.job for worker in workers if worker.job is not None]

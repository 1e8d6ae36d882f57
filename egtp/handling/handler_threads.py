"""HandlerThreads: runs plain functions as handlers, a limited number of them at a time.

The standard library's pool would not do: its queue has no limit, and it keeps the process from
ending until every function has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from egtp.errors import Refusal
from egtp.handling.handlers import Handler, Incoming
from egtp.values.message import ReplyCode

__all__ = ["HandlerThreads"]


class HandlerThreads:
    """The threads that plain handlers run in; calls start them, up to ``threads_max``.

    A call holds a place of ``_room`` from its arrival until its function has returned, even if
    nobody waits for the answer any more. So at most ``threads_max + waiting_max`` messages are
    held, whatever strangers ask and cancel.
    """

    def __init__(self, threads_max: int, waiting_max: int, name: str) -> None:
        self._threads_max: Final = threads_max
        self._room: Final = threading.BoundedSemaphore(threads_max + waiting_max)
        self._calls: Final[queue.SimpleQueue[Callable[[], None] | None]] = queue.SimpleQueue()
        self._threads: Final[list[threading.Thread]] = []
        self._name: Final = name

    def wrap(self, handler: Callable[[Incoming], Any]) -> Handler:
        """The plain handler as one for the event loop. Without room it answers "busy"."""

        async def in_a_thread(incoming: Incoming) -> bytes | None:
            # Before the call is queued: if the thread cannot start, no room is taken.
            if len(self._threads) < self._threads_max:
                self._start_thread()
            if not self._room.acquire(blocking=False):
                raise Refusal(ReplyCode.BUSY, counted="busy: all handler threads are taken")
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Any] = loop.create_future()
            self._calls.put(lambda: self._call(handler, incoming, answer, loop))
            value: bytes | Awaitable[bytes | None] | None = await answer
            return await value if inspect.isawaitable(value) else value

        return in_a_thread

    def is_one_of_them(self, thread: threading.Thread) -> bool:
        return thread in self._threads

    def close(self, timeout_s: float) -> int:
        """End the threads, each as soon as its handler returns. Returns how many still run after
        ``timeout_s``: no thread can be ended from outside. Call nothing after this."""
        for _ in self._threads:
            self._calls.put(None)
        ends_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def _start_thread(self) -> None:
        name = f"{self._name} handler {len(self._threads) + 1}"
        # A daemon: a handler that never returns must not keep the process from ending.
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more threads, so the present ones must do.
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it holds a message

    def _call(
        self,
        handler: Callable[[Incoming], Any],
        incoming: Incoming,
        answer: asyncio.Future[Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Runs in a thread: call the handler, if its answer is still wanted by now."""
        value, error = None, None
        try:
            if not answer.cancelled():
                # Each in a context of its own, as on the loop.
                value = contextvars.copy_context().run(handler, incoming)
        except BaseException as raised:  # whatever it is, the thread must serve the next call
            error = raised
        finally:
            self._room.release()
        # A closed loop has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer, answer, value, error)


def _answer(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        answer.set_exception(error)
    else:
        # What would end a program, or cannot be set on a future, is a bug of the handler here.
        wrapped = RuntimeError(f"a handler raised {error!r}")
        wrapped.__cause__ = error
        answer.set_exception(wrapped)

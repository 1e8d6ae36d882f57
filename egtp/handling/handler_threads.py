"""HandlerThreads: plain functions as handlers, a bounded number of them at a time.

Not the standard library's pool: that one queues without a limit, and holds up the end of the
process until every function has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    """Threads that plain handlers run in; each is started when there is something to do for it.

    ``_room`` is taken for each call from its coming until its function has returned, even if
    nobody waits for the answer any more: so no more than ``threads_max + waiting_max`` messages
    are held, whatever strangers ask and cancel.
    """

    def __init__(self, threads_max: int, waiting_max: int, name: str) -> None:
        self._threads_max: Final = threads_max
        self._room: Final = threading.BoundedSemaphore(threads_max + waiting_max)
        self._calls: Final[queue.SimpleQueue[Callable[[], None] | None]] = queue.SimpleQueue()
        self._threads: Final[list[threading.Thread]] = []
        self._name: Final = name

    def wrap(self, handler: Callable[[Incoming], Any]) -> Handler:
        """The plain handler as one for the event loop. With no room it answers "busy"."""

        async def in_a_thread(incoming: Incoming) -> bytes | None:
            # Before there is something for it to do: if it cannot start, no room is taken.
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
        """End the threads, those that run a handler when it returns. How many still do after
        ``timeout_s``: no thread can be ended from outside. Nothing is to be called after it."""
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
            # The system gives no more. Those that there are have the more to do.
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
        """In a thread: run the handler, if its answer is still wanted when its turn comes."""
        value, error = None, None
        try:
            if not answer.cancelled():
                value = handler(incoming)
        except BaseException as raised:  # the thread is there for the next one, whatever it is
            error = raised
        finally:
            self._room.release()
        # A loop that is closed has nobody left to be told.
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
        # What would end a program, or cannot travel in a future, is a bug of the handler's here.
        wrapped = RuntimeError(f"a handler raised {error!r}")
        wrapped.__cause__ = error
        answer.set_exception(wrapped)

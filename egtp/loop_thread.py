"""LoopThread: an event loop in a thread of its own, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf
from typing import Any, Final, Generic, TypeVar

from egtp.environment import process_id
from egtp.errors import FORKED, LocalProtocolError, NodeClosed, WrongLoop

__all__ = ["LoopThread"]

BEGIN_MAX_S: Final = 5.0
"""How long a thread may take to start: far longer than any does."""

AWAKE_EVERY_S: Final = 0.25
"""How long a thread sleeps at a stretch. A signal that comes just before it falls asleep is noted
by Python, but wakes nobody; so a Ctrl-C would be for nothing."""

T = TypeVar("T")


class LoopThread:
    """Runs ``async with life():`` on a loop in a thread, from :meth:`start` to :meth:`close`.

    No call takes a lock that the thread takes as well: a signal handler may interrupt a call at any
    moment, and close the node or call it in turn.

    Invariant: every call has an outcome. A call is noted in ``_calls`` before it looks at
    ``_open``, and the thread ends those noted after ``_open`` has become false for good.
    """

    def __init__(
        self,
        life: Callable[[], AbstractAsyncContextManager[object]],
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        name: str,
    ) -> None:
        self._life: Final = life
        self._loop_factory: Final = loop_factory
        # A daemon: whoever forgets to close it in a REPL must still be able to exit.
        self._thread: Final = threading.Thread(target=self._run, name=name, daemon=True)
        self._pid: Final = process_id()
        self._starting: Final = threading.RLock()
        """Whoever starts second, in another thread, waits for what becomes of the first."""
        self._open = False
        self._calls: Final[set[_Call[Any]]] = set()
        self._begun: Final = threading.Event()
        self._decided: Final = threading.Lock()
        """Held until life has begun, or will not. Not an event or a future: a caller interrupted
        while it takes the lock inside one would keep it, and the thread would wait for ever."""
        self._decided.acquire()
        self._has_begun = False
        self._failed_with: BaseException | None = None
        self._ended_with: BaseException | None = None
        self._is_over = False
        self._waiting: Final[list[threading.Lock]] = []
        """A lock of each who waits for the end, which releases them."""
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def start(self) -> None:
        """Raises what the beginning of life raises, and :class:`NodeClosed` if it is closed
        meanwhile; nothing is left running then.

        Raises :class:`LocalProtocolError` if it was started before."""
        self._check_process()
        with self._starting:
            if self._thread.ident is not None:
                raise LocalProtocolError("this node was already started; create a new one")
            try:
                self._thread.start()
                _acquire(self._decided)
                if self._failed_with is not None:
                    raise self._failed_with
            except BaseException:
                # Possibly interrupted while the thread was starting, or before it could.
                self._end()
                raise

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Run ``work`` on the loop, and return what it returns.

        Whatever interrupts the wait, even ``KeyboardInterrupt``, cancels the work. Raises what the
        work raises; :class:`TimeoutError` after ``timeout_s``; :class:`NodeClosed`; and
        :class:`WrongLoop` on the loop itself, and in another process.
        """
        self._check_thread()
        call = _Call(work)
        try:
            self._calls.add(call)
            if not self._open:
                raise NodeClosed(
                    "this node was not started: use `with node:` or start()"
                    if self._thread.ident is None
                    else "this node is closed"
                )
            try:
                self._loop.call_soon_threadsafe(self._begin, call)
            except RuntimeError:  # it was closed just now
                raise NodeClosed from None
            if not _acquire(call.over, timeout_s):
                raise TimeoutError(f"not done within {timeout_s:g} s")
            if call.error is not None:
                raise call.error
            return call.result
        finally:
            self._calls.discard(call)
            if not call.is_over:
                self._tell(call.cancel)
            del call  # The traceback of its error refers to this frame.

    def close(self) -> None:
        """End life, or its beginning, and wait for the end. Calls under way end, by being cancelled
        if need be. In a forked process there is nothing to end. Raises what the end of life raises,
        once."""
        if self.is_of_another_process or self._thread.ident is None:
            return
        self._check_thread()
        self._end()
        error, self._ended_with = self._ended_with, None
        if error is not None:
            raise error

    def _end(self) -> None:
        if self._begun.is_set() or self._begun.wait(BEGIN_MAX_S):
            self._tell(self._stop_life)
            over = threading.Lock()
            over.acquire()
            self._waiting.append(over)
            while not (self._is_over or over.acquire(timeout=AWAKE_EVERY_S)):
                pass
            # Not before: up to Python 3.12, a join that is interrupted takes the thread for ended.
            self._thread.join()

    def _tell(self, what: Callable[[], object]) -> None:
        if self._task is not None:  # there is a loop
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(what)

    @property
    def is_of_another_process(self) -> bool:
        """Whether this process was forked from the one that the thread is in."""
        return process_id() != self._pid

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, in this process: then there is something to close."""
        return self._thread.is_alive()

    # Checks

    def _check_thread(self) -> None:
        self._check_process()
        if threading.get_ident() == self._thread.ident:
            raise WrongLoop(
                "this is the node's own thread, which would wait for itself: in an async handler "
                "or callback, await methods of the asyncio node `node.on_loop` instead"
            )

    def _check_process(self) -> None:
        if self.is_of_another_process:
            raise WrongLoop(FORKED)

    # In the thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._live())
        except BaseException as error:
            if self._has_begun:
                self._ended_with = error
            elif isinstance(error, asyncio.CancelledError):
                self._failed_with = NodeClosed("this node was closed before it had started")
            else:
                self._failed_with = error
        finally:
            for call in self._calls.copy():
                if not call.is_over:  # it came too late for the loop
                    call.end(NodeClosed())
            self._begun.set()
            if not self._has_begun:
                self._decided.release()
            self._is_over = True
            for over in self._waiting:
                over.release()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._task = asyncio.current_task()
        self._begun.set()
        try:
            async with self._life():
                self._has_begun = self._open = True
                self._decided.release()
                await self._stop.wait()
        finally:
            self._open = False

    def _stop_life(self) -> None:
        self._open = False
        self._stop.set()
        if not self._has_begun and self._task is not None:
            self._task.cancel()

    def _begin(self, call: _Call[Any]) -> None:
        if not self._open:
            call.end(NodeClosed())
        else:
            call.task = asyncio.get_running_loop().create_task(call.work())
            call.task.add_done_callback(partial(self._take, call))

    def _take(self, call: _Call[T], task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is None:
                call.result = task.result()
            call.end(error)
        elif self._open:  # by itself, or since it was given up
            call.end(concurrent.futures.CancelledError())
        else:
            call.end(NodeClosed(may_have_run=True))


class _Call(Generic[T]):
    """A call into the loop, which begins and ends there. Another thread waits for its end."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.work: Final = work
        self.task: asyncio.Task[T] | None = None
        self.is_over = False
        self.over: Final = threading.Lock()
        """Held until it is over. Not a future, for the reason of ``_decided`` above."""
        self.over.acquire()
        self.error: BaseException | None = None
        self.result: T

    def end(self, error: BaseException | None) -> None:
        self.error, self.is_over = error, True
        self.over.release()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


def _acquire(lock: threading.Lock, timeout_s: float | None = None) -> bool:
    """Whether it was acquired within that time; without one, there is no end to waiting."""
    left_s = inf if timeout_s is None else max(0.0, timeout_s)
    while not lock.acquire(timeout=min(left_s, AWAKE_EVERY_S)):
        left_s -= AWAKE_EVERY_S
        if left_s <= 0.0:
            return False
    return True

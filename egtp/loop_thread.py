"""LoopThread: an event loop in a thread of its own, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from egtp.environment import process_id
from egtp.errors import FORKED, LocalProtocolError, NodeClosed, WrongLoop

__all__ = ["LoopThread"]

BEGIN_MAX_S: Final = 5.0
"""How long a thread may take to start: far longer than any does."""

T = TypeVar("T")


class LoopThread:
    """Runs ``async with life():`` on a loop in a thread, from :meth:`start` to :meth:`close`.

    Invariant: while ``_open``, the loop runs, and carries out whatever it is given. ``_open``
    becomes false under the lock, on the loop or as the loop is told to end; so every call that was
    let in comes to an end.
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
        self._lock: Final = threading.Lock()
        self._open = False
        self._begun: Final = threading.Event()
        self._decided: Final = threading.Lock()
        """Held until life has begun, or will not. Not an event or a future: a caller interrupted
        while it takes the lock inside one would keep it, and the thread would wait for ever."""
        self._decided.acquire()
        self._has_begun = False
        self._failed_with: BaseException | None = None
        self._ended_with: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def start(self) -> None:
        """Raises what the beginning of life raises; nothing is left running then.

        Raises :class:`LocalProtocolError` if it was started before."""
        self._check_process()
        with self._starting:
            if self._thread.ident is not None:
                raise LocalProtocolError("this node was already started; create a new one")
            try:
                self._thread.start()
                self._decided.acquire()
                if self._failed_with is not None:
                    raise self._failed_with
            except BaseException:
                # Possibly interrupted while the thread was starting, or before it could.
                if self._begun.wait(BEGIN_MAX_S):
                    self._cancel()
                    self._thread.join()
                raise

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Run ``work`` on the loop, and return what it returns.

        Whatever interrupts the wait, even ``KeyboardInterrupt``, cancels the work. Raises what the
        work raises; :class:`TimeoutError` after ``timeout_s``; :class:`NodeClosed`; and
        :class:`WrongLoop` on the loop itself, and in another process.
        """
        self._check_thread()
        # Created before the work is handed over: an interrupt may come right after that.
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            with self._lock:
                if not self._open:
                    raise NodeClosed(
                        "this node was not started: use `with node:` or start()"
                        if self._thread.ident is None
                        else "this node is closed"
                    )
                self._loop.call_soon_threadsafe(_begin, work, outcome)
            return outcome.result(timeout_s)
        except concurrent.futures.CancelledError:
            if self._open:
                raise
            raise NodeClosed(may_have_run=True) from None
        except concurrent.futures.TimeoutError:
            if outcome.done():
                raise  # the work's own
            raise TimeoutError(f"not done within {timeout_s:g} s") from None
        finally:
            outcome.cancel()

    def close(self) -> None:
        """End life, and wait for its end. Calls under way end, by being cancelled if need be. In a
        forked process there is nothing to end. Raises what the end of life raises, once."""
        if self.is_of_another_process or self._thread.ident is None:
            return
        self._check_thread()
        with self._lock:
            if self._open:
                # In this order, so that a caller interrupted in between can still close it.
                self._loop.call_soon_threadsafe(self._stop.set)
                self._open = False
        self._thread.join()
        error, self._ended_with = self._ended_with, None
        if error is not None:
            raise error

    def _cancel(self) -> None:
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)

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
            else:
                self._failed_with = error
        finally:
            self._begun.set()
            if not self._has_begun:
                self._decided.release()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._task = asyncio.current_task()
        self._begun.set()
        try:
            async with self._life():
                with self._lock:
                    self._open = True
                self._has_begun = True
                self._decided.release()
                await self._stop.wait()
        finally:
            with self._lock:
                self._open = False
            # After this, every call that was let in is a task, and the runner cancels those left.
            await asyncio.sleep(0)


def _begin(
    work: Callable[[], Coroutine[Any, Any, T]], outcome: concurrent.futures.Future[T]
) -> None:
    """Begin ``work``, on the loop. Cancelling ``outcome``, in any thread, cancels the work, even if
    it was cancelled before this."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work())

    def give_up(_: object) -> None:
        if outcome.cancelled():
            loop.call_soon_threadsafe(task.cancel)

    def end(_: object) -> None:
        error = concurrent.futures.CancelledError() if task.cancelled() else task.exception()
        if not outcome.set_running_or_notify_cancel():
            return
        if error is None:
            outcome.set_result(task.result())
        else:
            outcome.set_exception(error)

    task.add_done_callback(end)
    outcome.add_done_callback(give_up)

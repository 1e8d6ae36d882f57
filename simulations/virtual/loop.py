# The loop is built on what every event loop of asyncio is built on, of which typeshed says little.
# mypy: disable-error-code="attr-defined, override, arg-type"
"""VirtualLoop: an asyncio event loop whose time is a number.

Nothing waits. When no callback is ready, time jumps to the next timer. So an hour of waiting costs
nothing, and everything that happens follows from what was there at the start.

Callbacks run in the order in which they became due; at the same moment, in the order in which they
were asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from simulations.virtual.errors import NotSimulated, Overdue, Stalled
from simulations.virtual.numbered import SimulatedFuture, make_task
from simulations.virtual.process import Process, close, current_process, is_over
from simulations.virtual.waiting import who_waits

if TYPE_CHECKING:
    from simulations.virtual.sockets import Sockets

__all__ = ["WORLD", "VirtualLoop"]

_T = TypeVar("_T")

WORLD: Final = contextvars.Context()
"""Where the network itself runs: no machine's process."""
TURNS_MAX: Final = 1_000_000
"""Turns of the loop at one moment; a program that needs more goes round in circles."""
TICK_S: Final = 1e-9
"""The least time there is."""
CANCELLED_MAX: Final = 10_000
"""Cancelled timers may be this many, and half of all, before they are thrown out."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Made by a :class:`~simulations.virtual.network.Network`, which is where its sockets lead."""

    _ready: deque[asyncio.Handle]
    _stopping: bool
    _closed: bool

    def __init__(self, sockets: Sockets) -> None:
        super().__init__()
        self.sockets: Final = sockets
        self.limit_s: float | None = None
        """When time ends; what is not done by then is :class:`Overdue`."""
        self.turns = 0
        """How many times round so far. Tells a watchdog that the loop is alive."""
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._cancelled_timers = 0
        self._orders = itertools.count()
        self._numbers = itertools.count(1)
        self._turns_at_now = 0
        self._some_process_stopped = False
        self._some_host_slept = False
        self.set_task_factory(make_task)

    def __del__(self) -> None:
        """A world that was made and never used holds nothing that would have to be closed."""

    # Time

    def time(self) -> float:
        """Seconds, as the machine's monotonic clock counts them that the caller runs on: it stands
        still while that machine is asleep."""
        if not self._some_host_slept:
            return self._now
        process = current_process()
        return self._now if process is None else self._now - process.asleep_s

    @property
    def now(self) -> float:
        """Seconds since the start of the world, for everybody."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        self._check_closed()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True
        ahead_s = when - self.time()
        # A clock that stands still between two turns would let a program that waits for the rest
        # of a time, which rounds to nothing, wait for ever.
        due = _after(self._now, ahead_s) if ahead_s > 0 else self._now
        heapq.heappush(self._timers, (due, next(self._orders), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        now = self.time()
        when = _after(now, delay) if delay > 0 else now + delay
        return self.call_at(when, callback, *args, context=context)

    def happen(self, at_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Let the world do something at a moment of everybody's time."""
        timer = asyncio.TimerHandle(at_s, callback, args, self, WORLD)
        heapq.heappush(self._timers, (at_s, next(self._orders), timer))

    def next_number(self) -> int:
        return next(self._numbers)

    def create_future(self) -> asyncio.Future[Any]:
        return SimulatedFuture(loop=self)

    # Going round

    def _run_once(self) -> None:
        self.turns += 1
        ready, timers, now = self._ready, self._timers, self._now
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
                self._cancelled_timers -= 1
            if not timers or timers[0][0] == math.inf:
                if self._stopping:
                    return
                raise Stalled(f"nothing is left that could happen; {who_waits(self)}")
            if timers[0][0] > now and not self._stopping:
                self._now = now = timers[0][0]
                self._turns_at_now = 0
                if self.limit_s is not None and now > self.limit_s:
                    raise Overdue(f"not at its end after {self.limit_s:g} s; {who_waits(self)}")
        self._turns_at_now += 1
        if self._turns_at_now > TURNS_MAX:
            raise Stalled(f"going round in circles at {now:g} s; {who_waits(self)}")
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._cancelled_timers -= 1
            else:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled or (self._some_process_stopped and self._stopped(handle)):
                continue
            handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not handle._scheduled:
            return
        self._cancelled_timers += 1
        if self._cancelled_timers > max(CANCELLED_MAX, len(self._timers) // 2):
            # In place: the loop is perhaps in the middle of looking at them.
            self._timers[:] = [timer for timer in self._timers if not timer[2]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # Machines that stop

    def _stopped(self, handle: asyncio.Handle) -> bool:
        """Whether a callback belongs to a process that does not run now; kept for a sleeper."""
        process = _process_of(handle)
        if process is None or process.runs:
            return False
        if process.alive:
            process.kept.append(handle)
            return True
        # The tasks of a dead process were closed; one more step and whoever waits for them knows,
        # also through what asyncio itself put in between: gather, wait, shield.
        if getattr(handle._callback, "__module__", None) == "asyncio.tasks":
            return False
        task = getattr(handle._callback, "__self__", None)
        return not (isinstance(task, asyncio.Task) and is_over(task))

    def put_to_sleep(self, process: Process) -> None:
        """Nothing of the process happens any more until :meth:`wake`."""
        self._some_process_stopped = self._some_host_slept = True
        asleep = [timer for timer in self._timers if _process_of(timer[2]) is process]
        if asleep:
            self._timers[:] = [t for t in self._timers if _process_of(t[2]) is not process]
            heapq.heapify(self._timers)
        process.timers = [(due - self._now, order, timer) for due, order, timer in asleep]

    def wake(self, process: Process) -> None:
        """The clocks of its timers go on where they stood."""
        for left_s, order, timer in process.timers:
            heapq.heappush(self._timers, (self._now + left_s, order, timer))
        process.timers = []
        self._ready.extend(process.kept)
        process.kept.clear()

    def bury(self, process: Process) -> None:
        """Forget what a dead process still wanted to do, and end its tasks where they are."""
        self._some_process_stopped = True
        # Among what a sleeper still had to do is the next step of tasks that are to end now.
        self._ready.extend(process.kept)
        process.kept.clear()
        self._close_all(process.owns)
        self._timers[:] = [t for t in self._timers if _process_of(t[2]) is not process]
        heapq.heapify(self._timers)
        process.timers = []

    def end(self, last: Callable[[], None]) -> None:
        """Let ``last`` happen, and throw away what is still going on, as when a world ends."""

        def end() -> None:
            try:
                last()
                self._close_all(lambda _: True)
                self._timers.clear()
            finally:
                self.call_soon(self.stop)

        # Whatever limit it was that was reached, there is time for that.
        self.limit_s, self._turns_at_now = None, 0
        self.call_soon(end)
        try:
            self.run_forever()
        finally:
            self.close()

    def _close_all(self, wanted: Callable[[asyncio.Task[Any]], bool]) -> None:
        closed: set[asyncio.Task[Any]] = set()
        # A task that is closed may still begin others, from a ``finally``.
        while left := [task for task in asyncio.all_tasks(self) - closed if wanted(task)]:
            for task in sorted(left, key=hash):
                close(task)
            closed.update(left)

    # Sockets

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        return await self.sockets.create_connection(*args, **options)

    async def create_server(self, *args: Any, **options: Any) -> Any:
        return await self.sockets.create_server(*args, **options)

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> Any:
        return await self.sockets.create_datagram_endpoint(*args, **options)

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return self.sockets.getaddrinfo(host, port)

    # What there is not

    def run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> Any:  # noqa: ARG002
        """Runs ``func`` here and now: in a simulation there are no other threads."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> NoReturn:
        raise NotSimulated("there are no threads in a simulation: use call_soon")

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, None]) -> None:
        # asyncio itself has to expect that it is called from another thread.
        self._asyncgens.discard(agen)
        if not self.is_closed():
            self.call_soon(self.create_task, agen.aclose())

    def _process_events(self, event_list: Any) -> None:  # noqa: ARG002
        raise NotSimulated("there is no selector in a simulation")

    def _write_to_self(self) -> None:
        pass


def _after(moment_s: float, delay_s: float) -> float:
    """Later than a moment, however little the delay is, and however late it is already."""
    later_s = moment_s + max(delay_s, TICK_S)
    return later_s if later_s > moment_s else math.nextafter(moment_s, math.inf)


def _process_of(handle: asyncio.Handle) -> Process | None:
    return current_process(handle._context)


for _name in (
    "add_reader", "add_writer", "sock_connect", "sock_recv", "sock_sendall", "sock_accept",
    "subprocess_exec", "subprocess_shell", "add_signal_handler", "create_unix_connection",
    "create_unix_server", "sendfile", "start_tls", "connect_read_pipe", "connect_write_pipe",
):  # fmt: skip

    def _refuse(*_: Any, _name: str = _name, **__: Any) -> NoReturn:
        raise NotSimulated(f"a simulated event loop has no {_name}")

    setattr(VirtualLoop, _name, _refuse)

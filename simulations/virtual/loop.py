# The loop builds on asyncio's BaseEventLoop, of which typeshed declares little.
# mypy: disable-error-code="attr-defined, override, arg-type"
"""VirtualLoop: an asyncio event loop whose time is a number.

It never waits: when no callback is ready, time jumps to the next timer. So an hour of waiting costs
nothing, and everything that happens follows from the initial state.

Callbacks run in the order in which they become due; at the same moment, in the order in which they
were scheduled.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeAlias

from simulations.virtual.clocks import Clocks
from simulations.virtual.errors import Overdue, Stalled
from simulations.virtual.garbage import YOUNG_TURNS, collect_garbage
from simulations.virtual.numbered import SimulatedFuture, make_task
from simulations.virtual.process import Machine, Process, close, current_process, is_over
from simulations.virtual.sockets import Sockets
from simulations.virtual.unthreaded import Unthreaded
from simulations.virtual.waiting import who_waits, whose_turn_it_is

__all__ = ["WORLD", "VirtualLoop"]


WORLD: Final = contextvars.Context()
"""The context of the network itself, which belongs to no machine's process."""
TURNS_MAX: Final = 1_000_000
"""Turns of the loop at one moment; a program that needs more is in an endless loop."""
TICK_S: Final = 1e-9
"""The shortest delay that a timer can have."""
TURNS_PER_TICK: Final = 1_000
"""A real clock goes on while programs compute. Here it does so once in as many turns: asyncio does
not even set a timer for a time-out too short to change the clock, and a program that waits for the
rest of its time in such pieces would never get through."""
CANCELLED_MAX: Final = 10_000
"""Cancelled timers are removed when they are more than this, and more than half of all."""


class _Occurrence(asyncio.Handle):
    """An event of the world itself. There are many, and none is ever cancelled, so this has the
    bare minimum of a handle."""

    __slots__ = ()

    def __init__(self, loop: VirtualLoop, callback: Callable[..., object], args: Any) -> None:
        self._context = WORLD
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


_Due: TypeAlias = "tuple[float, int, asyncio.TimerHandle | _Occurrence]"
"""When something happens, its number in the order of scheduling, and its handle."""


class VirtualLoop(Unthreaded):
    """An event loop in virtual time. Made by a :class:`Network`, to which its sockets connect."""

    _ready: deque[asyncio.Handle]
    _stopping: bool
    _closed: bool

    def __init__(self, sockets: Sockets) -> None:
        super().__init__()
        self.sockets: Final = sockets
        self.limit_s: float | None = None
        """When time ends, in seconds of :attr:`now`; a story not done by then raises
        :class:`Overdue`."""
        self.story: Machine | None = None
        """Provides the clocks and entropy for code that runs on no machine; None while the real
        ones may be used."""
        self.turns = 0
        """The number of turns so far, which shows a watchdog that the loop is alive."""
        self.machines = 0
        """How many machines the world has."""
        self.now = 0.0
        """The world's time: seconds since it began."""
        self._timers: list[_Due] = []
        self._cancelled_timers = 0
        self._orders = itertools.count()
        self._numbers = itertools.count(1)
        self._turns_at_now = 0
        self._some_process_stopped = False
        self._some_clock_differs = False
        self._ends = False
        """The world is ending: nothing may be started any more."""
        self.set_task_factory(make_task)

    def __del__(self) -> None:
        """No warning about an unclosed loop: a world never used holds nothing to close."""

    # Time

    def time(self) -> float:
        """The monotonic clock of the machine that the caller runs on, in seconds. It stands still
        while that machine is asleep."""
        if not self._some_clock_differs:
            return self.now
        clocks = self._clocks()
        return self.now if clocks is None else clocks.monotonic(self.now)

    def clocks_differ(self) -> None:
        """Some machine's monotonic clock differs from the time of the world."""
        self._some_clock_differs = True

    def _clocks(self) -> Clocks | None:
        """The clocks of the machine that the caller runs on; None if the world's time will do."""
        if not self._some_clock_differs:
            return None
        process = current_process()
        return None if process is None else process.clocks

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
        clocks = self._clocks()
        if clocks is None:
            ahead_s = when - self.now
        else:
            ahead_s = (when - clocks.monotonic(self.now)) / clocks.rate
        # Time must advance for every positive delay: a program that keeps waiting for a remainder
        # too small to change the clock would wait for ever.
        due = _after(self.now, ahead_s) if ahead_s > 0 else self.now
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
        """Schedule an event of the world itself, in the world's time."""
        event = _Occurrence(self, callback, args)
        heapq.heappush(self._timers, (at_s, next(self._orders), event))

    def next_number(self) -> int:
        """The number of the next future or task, the same in each run."""
        return next(self._numbers)

    def create_future(self) -> asyncio.Future[Any]:
        future = SimulatedFuture(loop=self)
        future.number = next(self._numbers)
        return future

    # Turns

    def _run_once(self) -> None:
        self.turns += 1
        if not self.turns % YOUNG_TURNS:
            collect_garbage(self.turns, self.machines)
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            self._let_time_pass()
        self._turns_at_now += 1
        if not self._turns_at_now % TURNS_PER_TICK:
            self.now = _after(self.now, TICK_S)
        now = self.now
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if timer._cancelled:
                self._cancelled_timers -= 1
            else:
                ready.append(timer)
            if type(timer) is asyncio.TimerHandle:
                timer._scheduled = False
        if self._turns_at_now > TURNS_MAX:
            whose_turn, who = whose_turn_it_is(ready), who_waits(self)
            raise Stalled(f"going round in circles at {now:g} s; {whose_turn}\n{who}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not (handle._cancelled or (self._some_process_stopped and self._stopped(handle))):
                handle._run()
            # A stored exception keeps this frame alive, which would keep the task alive.
            del handle

    def _let_time_pass(self) -> None:
        """Nothing is left to do at this moment: jump to the next timer."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        if not timers or timers[0][0] == math.inf:
            raise Stalled(f"nothing is left that could happen; {who_waits(self)}")
        if timers[0][0] > self.now:
            if self.limit_s is not None and timers[0][0] > self.limit_s:
                self.now = max(self.now, self.limit_s)
                raise Overdue(f"not at its end at {self.limit_s:g} s; {who_waits(self)}")
            self.now = timers[0][0]
            self._turns_at_now = 0

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not handle._scheduled:
            return
        self._cancelled_timers += 1
        if self._cancelled_timers > max(CANCELLED_MAX, len(self._timers) // 2):
            # In place: the loop may be in the middle of going through the list.
            self._timers[:] = [timer for timer in self._timers if not timer[2]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    # Machines that sleep or die

    def _stopped(self, handle: asyncio.Handle) -> bool:
        """Whether a callback belongs to a process that does not run now; a sleeper's is kept."""
        process = _process_of(handle)
        if process is None or process.runs:
            return False
        if process.alive:
            process.kept.append(handle)
            return True
        # The tasks of a dead process were closed, and need one more step to inform their waiters,
        # as do asyncio's own callbacks in between: gather, wait, shield.
        if getattr(handle._callback, "__module__", None) == "asyncio.tasks":
            return False
        task = getattr(handle._callback, "__self__", None)
        return not (isinstance(task, asyncio.Task) and is_over(task))

    def put_to_sleep(self, process: Process) -> None:
        """Suspend the process until :meth:`wake`."""
        self._some_process_stopped = True
        self.clocks_differ()
        asleep = self._take_timers(process)
        process.timers = [(due - self.now, order, timer) for due, order, timer in asleep]

    def wake(self, process: Process) -> None:
        """Resume the process; its timers go on where they stopped."""
        for left_s, order, timer in process.timers:
            heapq.heappush(self._timers, (self.now + left_s, order, timer))
        process.timers = []
        self._ready.extend(process.kept)
        process.kept.clear()

    def bury(self, process: Process) -> None:
        """Drop the timers of a dead process, and end its tasks where they are."""
        self._some_process_stopped = True
        # The callbacks kept for a sleeper include the next step of tasks that must end now.
        self._ready.extend(process.kept)
        process.kept.clear()
        # In the context of the dead process: whatever its tasks start as they end dies with it.
        process.context.copy().run(self._close_all, process.owns)
        self._take_timers(process)
        process.timers = []

    def _take_timers(self, process: Process) -> list[_Due]:
        """Remove the timers of a process, and return them."""
        its = [timer for timer in self._timers if _process_of(timer[2]) is process]
        if its:
            self._timers[:] = [t for t in self._timers if _process_of(t[2]) is not process]
            heapq.heapify(self._timers)
        return its

    def end(self, last: Callable[[], None]) -> None:
        """Call ``last``, then discard everything still going on: the world ends."""

        def end() -> None:
            try:
                last()
                self._close_all(lambda _: True)
                self._timers.clear()
            finally:
                self.call_soon(self.stop)

        # There is time for this, whichever limit was reached.
        self.limit_s, self._turns_at_now = None, 0
        self._ends = True
        self.call_soon(end)
        try:
            self.run_forever()
        finally:
            self.close()

    def _close_all(self, wanted: Callable[[asyncio.Task[Any]], bool]) -> None:
        closed: set[asyncio.Task[Any]] = set()
        # As it is closed, a task may start others from a ``finally``.
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

    async def getaddrinfo(self, host: Any, port: Any, *, family: int = 0, **_: Any) -> Any:
        """Look ``host`` up in :attr:`Network.names`; an IP address stands for itself."""
        return self.sockets.getaddrinfo(host, port, family)

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, None]) -> None:
        # asyncio's own version uses call_soon_threadsafe; there are no threads here.
        self._asyncgens.discard(agen)
        process = current_process()
        if not (self._ends or self.is_closed() or (process is not None and not process.alive)):
            self.call_soon(self.create_task, agen.aclose())


def _after(moment_s: float, delay_s: float) -> float:
    """A time later than ``moment_s``, however short the delay and however large the time is."""
    later_s = moment_s + max(delay_s, TICK_S)
    return later_s if later_s > moment_s else math.nextafter(moment_s, math.inf)


def _process_of(handle: asyncio.Handle) -> Process | None:
    return current_process(handle._context)

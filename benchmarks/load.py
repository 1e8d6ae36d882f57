"""The work that every contestant gets: so many calls in flight for so many seconds.

Nothing here depends on an event loop: a worker only awaits its call, and the contestant provides
the sleep. So asyncio, trio and Twisted contestants do the very same work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from benchmarks.stations import say

__all__ = ["Call", "Load", "percentile_us"]

Call: TypeAlias = Callable[[bytes], Awaitable[object]]
Sleep: TypeAlias = Callable[[float], Awaitable[object]]


class Load:
    """Keeps ``at_once`` calls in flight; counts those that end between the end of the warm-up and
    the end of the window. Run :meth:`worker` ``at_once`` times, and :meth:`watch` beside them."""

    def __init__(self, call: Call, work: dict[str, Any]) -> None:
        self.at_once: int = work.get("at_once", 1)
        self._call = call
        self._body = bytes(work.get("bytes", 100))
        self._warm_up_s: float = work["warm_up_s"]
        self._seconds: float = work["seconds"]
        self._over = False
        self._done = 0
        self._times: list[float] = []

    async def worker(self) -> None:
        """One caller, which calls again as soon as it has the answer."""
        call, body = self._call, self._body
        if self.at_once == 1:
            clock = time.perf_counter
            while not self._over:
                began = clock()
                await call(body)
                self._times.append(clock() - began)
                self._done += 1
            return
        while not self._over:
            await call(body)
            self._done += 1

    async def watch(self, sleep: Sleep, *, tell: bool = True) -> dict[str, float]:
        """Warm up, measure at least one call, and end the workers.

        Returns what was measured; with ``tell``, the harness is told, too, and when it began."""
        await sleep(self._warm_up_s)
        if tell:
            say("begin")
        done, began = self._done, time.perf_counter()
        await sleep(self._seconds)
        while self._done == done:
            await sleep(self._seconds)
        counted, took_s = self._done - done, time.perf_counter() - began
        times = self._times[done : done + counted]
        self._over = True
        facts = {"done": counted, "seconds": took_s, "per_s": counted / took_s}
        if times:
            facts["p50_us"] = statistics.median(times) * 1e6
            facts["p99_us"] = percentile_us(times, 0.99)
        if tell:
            say("end", **facts)
        return facts


def percentile_us(times_s: list[float], share: float) -> float:
    """The time in microseconds within which ``share`` of ``times_s`` (seconds) lie."""
    return sorted(times_s)[min(len(times_s) - 1, int(share * len(times_s)))] * 1e6

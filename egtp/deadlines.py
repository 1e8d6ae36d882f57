"""Many deadlines, one timer.

Deadlines are put into buckets of one coarse tick each. Adding and removing touch one dict; a
timer needs to be armed for the earliest bucket only. A deadline is noticed up to one tick late
and never early.
"""

from __future__ import annotations

import heapq
import math
from typing import Final, Generic, TypeVar

__all__ = ["TICK_S", "Deadlines"]

TICK_S: Final = 0.02

Key = TypeVar("Key")


class Deadlines(Generic[Key]):
    """A set of keys, each with a deadline, in seconds on the caller's clock.

    Invariant: a key is in the bucket of its tick and in no other; the heap holds every tick that
    has a bucket.
    """

    __slots__ = ("_buckets", "_tick_of", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Key, None]] = {}
        self._ticks: list[int] = []
        self._tick_of: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._tick_of)

    def set(self, key: Key, deadline_s: float) -> None:
        """Add a key, or move it to another deadline."""
        self.discard(key)
        tick = math.ceil(deadline_s / TICK_S)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
        bucket[key] = None
        self._tick_of[key] = tick

    def discard(self, key: Key) -> None:
        """Remove a key, if it is there. An emptied bucket stays until its tick: most are reused."""
        tick = self._tick_of.pop(key, None)
        if tick is not None:
            del self._buckets[tick][key]

    def due(self, now_s: float) -> list[Key]:
        """Remove and return the keys whose deadline has passed, in order of their ticks."""
        due: list[Key] = []
        while self._ticks and self._ticks[0] * TICK_S <= now_s:
            for key in self._buckets.pop(heapq.heappop(self._ticks)):
                del self._tick_of[key]
                due.append(key)
        return due

    def next_s(self) -> float | None:
        """When to call :meth:`due` next; None when nothing is waited for."""
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        return self._ticks[0] * TICK_S if self._ticks else None

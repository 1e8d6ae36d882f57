"""Many deadlines, one timer.

There is a bucket of deadlines for each coarse tick. Adding or removing one touches one dict, and
only the earliest bucket needs a timer. A deadline is noticed up to one tick late, and never early.
"""

from __future__ import annotations

import heapq
from math import ceil
from typing import Final, Generic, TypeAlias, TypeVar

__all__ = ["TICK_S", "Bucket", "Deadlines", "KeyedDeadlines", "take_out"]

TICK_S: Final = 0.02
BUCKETS_MIN: Final = 1024
"""So many buckets may be empty before they are swept."""

Key = TypeVar("Key")
Bucket: TypeAlias = dict[Key, None]


def take_out(bucket: Bucket[Key], key: Key) -> None:
    """Remove a key from its bucket, unless its deadline was reported already."""
    bucket.pop(key, None)
    if not bucket:
        bucket.clear()  # nothing else makes a dict that was once large free its memory


class Deadlines(Generic[Key]):
    """A set of keys, each with a deadline, in seconds on the caller's clock.

    :meth:`add` returns the bucket of the key, and :func:`take_out` removes the key from it. An
    emptied bucket stays for a while, since most are used again.

    Invariant: a key is in one bucket at most; the heap holds every tick that has a bucket; at most
    half of the buckets, plus :data:`BUCKETS_MIN`, are empty.
    """

    __slots__ = ("_buckets", "_last", "_last_tick", "_sweep_at", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket[Key]] = {}
        self._ticks: list[int] = []
        self._last_tick: int | None = None
        """Where the last key went: most keys go to the same bucket as the one before."""
        self._last: Bucket[Key] = {}
        self._sweep_at = BUCKETS_MIN

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, key: Key, deadline_s: float) -> Bucket[Key]:
        """Add a key that is not there, and return its bucket."""
        tick = ceil(deadline_s / TICK_S)
        if tick != self._last_tick:
            bucket = self._buckets.get(tick)
            if bucket is None:
                if len(self._buckets) >= self._sweep_at:
                    self._sweep()
                bucket = self._buckets[tick] = {}
                heapq.heappush(self._ticks, tick)
            self._last_tick, self._last = tick, bucket
        self._last[key] = None
        return self._last

    def _sweep(self) -> None:
        """Forget the empty buckets: removed deadlines that were far away leave one in each tick."""
        self._buckets = {tick: bucket for tick, bucket in self._buckets.items() if bucket}
        self._ticks = sorted(self._buckets)
        self._sweep_at = 2 * len(self._buckets) + BUCKETS_MIN

    def due(self, now_s: float) -> list[Key]:
        """Remove and return the keys whose deadline has passed, in order of their ticks."""
        due: list[Key] = []
        self._last_tick = None
        while self._ticks and self._ticks[0] * TICK_S <= now_s:
            bucket = self._buckets.pop(heapq.heappop(self._ticks))
            due += bucket
            bucket.clear()
        return due

    def next_s(self) -> float | None:
        """When to call :meth:`due` next; None if there are no deadlines."""
        self._last_tick = None
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        return self._ticks[0] * TICK_S if self._ticks else None


class KeyedDeadlines(Deadlines[Key]):
    """Deadlines that can be moved and removed by key alone."""

    __slots__ = ("_bucket_of",)

    def __init__(self) -> None:
        super().__init__()
        self._bucket_of: dict[Key, Bucket[Key]] = {}

    def set(self, key: Key, deadline_s: float) -> None:
        """Add a key, or move it to another deadline."""
        self.discard(key)
        self._bucket_of[key] = self.add(key, deadline_s)

    def discard(self, key: Key) -> None:
        """Remove a key, if it is there."""
        bucket = self._bucket_of.pop(key, None)
        if bucket is not None:
            take_out(bucket, key)

    def due(self, now_s: float) -> list[Key]:
        due = super().due(now_s)
        for key in due:
            del self._bucket_of[key]
        return due

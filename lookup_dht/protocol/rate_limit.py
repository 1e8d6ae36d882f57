"""Token buckets: what one source, and all sources together, may use per second. And a pace for the
other side, so that a node does not ask faster than others answer."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

__all__ = ["Bucket", "Pace", "SourceLimit"]

SOURCES_MAX = 4096
BURST_S = 4.0
"""A bucket holds this many seconds' worth, since walks come in bursts."""
FULL_IN_S = BURST_S + 1e-6
"""With a margin for rounding: many small additions do not sum up exactly."""


class Bucket:
    """What all sources together may use: so much per second, and a burst."""

    def __init__(self, per_s: float) -> None:
        self._per_s: Final = per_s
        self._full: Final = per_s * BURST_S
        self.half: Final = self._full / 2
        self._level = self._full
        self._filled_at = 0.0

    @property
    def strained(self) -> bool:
        """Whether who must leave half of it would get nothing now."""
        return self._level < self.half + 1

    def take(self, now: float, leave: float = 0.0) -> bool:
        """Take one unit, if there is one above the ``leave`` that are not for this use."""
        level = self._level + (now - self._filled_at) * self._per_s
        if level > self._full:
            level = self._full
        self._filled_at = now
        taken = level >= 1 + leave
        self._level = level - 1 if taken else level
        return taken


class SourceLimit:
    """A bucket for each source. At most ``SOURCES_MAX`` are remembered: forged addresses can push
    honest ones out, whose buckets then count as full.

    A bucket that was not used for ``BURST_S`` is full, like that of a stranger. So buckets not used
    for a whole period of that length are dropped all at once, which needs no ordering.
    """

    def __init__(self, per_s: float) -> None:
        self._unit_s: Final = 1 / per_s
        self._this_turn: dict[Hashable, float] = {}
        """When the bucket of each source will be full again, which implies its level now. A single
        number per source, since there may be thousands."""
        self._last_turn: dict[Hashable, float] = {}
        self._turned_at = 0.0

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._this_turn.keys() | self._last_turn.keys())

    def allow(self, source: Hashable, now: float) -> bool:
        """Take one unit for ``source``, if available."""
        if now - self._turned_at >= BURST_S or len(self._this_turn) >= SOURCES_MAX // 2:
            self._last_turn, self._this_turn, self._turned_at = self._this_turn, {}, now
        full_at = self._this_turn.get(source) or self._last_turn.get(source, now)
        if full_at < now:
            full_at = now
        # A bucket fills in BURST_S; it holds a unit if it will be full a unit's time before that.
        allowed = full_at + self._unit_s - now <= FULL_IN_S
        if allowed:
            full_at += self._unit_s
        self._this_turn[source] = full_at
        return allowed


class Pace:
    """When each of many operations may begin: half of :data:`BURST_S` seconds' worth at once, then
    at the given rate."""

    def __init__(self, per_s: float) -> None:
        self._gap_s: Final = 1 / per_s
        self._due_s = -math.inf
        """When the next one could begin if there were no burst."""

    def wait_s(self, now: float, units: int = 1) -> float:
        """How long the next operation, of so many ``units``, has to wait. Counts it as begun."""
        due_s = max(self._due_s, now)
        self._due_s = due_s + units * self._gap_s
        return max(0.0, due_s - now - BURST_S / 2)

    def give_back(self, units: int = 1) -> None:
        """An operation that had to wait is not to begin any more."""
        self._due_s -= units * self._gap_s

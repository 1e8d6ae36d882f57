"""Token buckets: how much of something a source, and all sources together, get per second."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["RateLimit"]

BURST_S = 4.0
"""A bucket holds this many seconds' worth: a walk comes as a burst."""


class RateLimit:
    """One bucket for each source and one for all. Remembers at most ``sources_max`` sources; when
    forgers of addresses push honest ones out, the bucket for all is what holds.

    A bucket that nobody took from for ``BURST_S`` is full, like that of a stranger. So what was
    not used for one whole turn of that length is forgotten all at once, and no order is kept.
    """

    def __init__(self, per_source: float, overall: float, sources_max: int = 4096) -> None:
        """Rates are in units per second."""
        self._per_source = per_source
        self._overall = overall
        self._full, self._full_overall = per_source * BURST_S, overall * BURST_S
        self._turn_sources_max = sources_max // 2
        self._tokens = self._full_overall
        self._filled_at = self._turned_at = 0.0
        self._this_turn: dict[Hashable, tuple[float, float]] = {}
        """What was left in the bucket of a source, and when."""
        self._last_turn: dict[Hashable, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Sources that are remembered."""
        return len(self._this_turn.keys() | self._last_turn.keys())

    @property
    def strained(self) -> bool:
        """Whether less than half is left for all: time to be careful with whom nobody knows."""
        return self._tokens < self._full_overall / 2

    def allow(self, source: Hashable, now: float) -> bool:
        """Take one unit for ``source``, if there is one. A source over its own rate takes
        nothing from the others."""
        if now - self._turned_at >= BURST_S or len(self._this_turn) >= self._turn_sources_max:
            self._last_turn, self._this_turn, self._turned_at = self._this_turn, {}, now
        overall = self._tokens + (now - self._filled_at) * self._overall
        if overall > self._full_overall:
            overall = self._full_overall
        self._filled_at = now
        tokens = full = self._full
        bucket = self._this_turn.get(source) or self._last_turn.get(source)
        if bucket is not None:
            tokens = bucket[0] + (now - bucket[1]) * self._per_source
            if tokens > full:
                tokens = full
        allowed = tokens >= 1 and overall >= 1
        self._tokens = overall - allowed
        self._this_turn[source] = (tokens - allowed, now)
        return allowed

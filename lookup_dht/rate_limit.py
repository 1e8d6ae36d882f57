"""Token buckets: how much of something a source, and all sources together, get per second."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["RateLimit"]

BURST_S = 4.0
"""A bucket holds this many seconds' worth: a walk comes as a burst."""


class RateLimit:
    """One bucket for each source and one for all. Remembers at most ``sources_max`` sources; when
    forgers of addresses push honest ones out, the bucket for all is what holds."""

    def __init__(self, per_source: float, overall: float, sources_max: int = 4096) -> None:
        """Rates are in units per second."""
        self._per_source = per_source
        self._overall = overall
        self._sources_max = sources_max
        self._tokens = overall * BURST_S
        self._filled_at = 0.0
        self._sources: dict[Hashable, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Sources that are remembered."""
        return len(self._sources)

    @property
    def strained(self) -> bool:
        """Whether less than half is left for all: time to be careful with whom nobody knows."""
        return self._tokens < self._overall * BURST_S / 2

    def allow(self, source: Hashable, now: float) -> bool:
        """Take one unit for ``source``, if there is one. A source over its own rate takes
        nothing from the others."""
        overall = min(
            self._overall * BURST_S, self._tokens + (now - self._filled_at) * self._overall
        )
        self._filled_at = now
        full = self._per_source * BURST_S
        tokens, filled_at = self._sources.pop(source, (full, now))
        tokens = min(full, tokens + (now - filled_at) * self._per_source)
        allowed = tokens >= 1 and overall >= 1
        self._tokens = overall - allowed
        self._sources[source] = (tokens - allowed, now)
        self._forget_one(now)
        return allowed

    def _forget_one(self, now: float) -> None:
        """The source that was silent for longest, if there are too many or its bucket is full
        again. One at a time is as many as come."""
        longest_silent = next(iter(self._sources))
        filled_at = self._sources[longest_silent][1]
        if now - filled_at >= BURST_S or len(self._sources) > self._sources_max:
            del self._sources[longest_silent]

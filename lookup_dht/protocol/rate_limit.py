"""Token buckets: how much of something a source, and all sources together, get per second; and for
who asks such a node, when to."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

__all__ = ["Pace", "RateLimit"]

SOURCES_MAX = 4096
BURST_S = 4.0
"""A bucket holds this many seconds' worth: a walk comes as a burst."""
FULL_IN_S = BURST_S + 1e-6
"""The sum of many parts is not quite the whole."""


class RateLimit:
    """One bucket for each source and one for all. Remembers at most ``SOURCES_MAX`` sources; when
    forgers of addresses push honest ones out, the bucket for all is what holds.

    A bucket that nobody took from for ``BURST_S`` is full, like that of a stranger. So what was
    not used for one whole turn of that length is forgotten all at once, and no order is kept.
    """

    def __init__(self, per_source: float, overall: float) -> None:
        """Rates are in units per second."""
        self._overall = overall
        self._full_overall = overall * BURST_S
        self._tokens = self._full_overall
        self._filled_at = self._turned_at = 0.0
        self._unit_s = 1 / per_source
        self._this_turn: dict[Hashable, float] = {}
        """When the bucket of a source is full again, which also tells what is in it now: one number
        each, where thousands of sources are remembered."""
        self._last_turn: dict[Hashable, float] = {}

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
        if now - self._turned_at >= BURST_S or len(self._this_turn) >= SOURCES_MAX // 2:
            self._last_turn, self._this_turn, self._turned_at = self._this_turn, {}, now
        overall = self._tokens + (now - self._filled_at) * self._overall
        if overall > self._full_overall:
            overall = self._full_overall
        self._filled_at = now
        full_at = self._this_turn.get(source) or self._last_turn.get(source, now)
        if full_at < now:
            full_at = now
        # A bucket is filled in BURST_S, and holds a unit if it is that much less from being full.
        allowed = full_at + self._unit_s - now <= FULL_IN_S and overall >= 1
        if allowed:
            self._tokens = overall - 1
            full_at += self._unit_s
        else:
            self._tokens = overall
        self._this_turn[source] = full_at
        return allowed


class Pace:
    """When each of many may begin: half of :data:`BURST_S` seconds' worth at once, then as fast as
    the rate says."""

    def __init__(self, per_s: float) -> None:
        self._gap_s: Final = 1 / per_s
        self._due_s = -math.inf
        """When the next one could begin if none did so at once."""

    def wait_s(self, now: float, units: int = 1) -> float:
        """How long the next one has to wait, which takes so much. It is taken to begin then."""
        due_s = max(self._due_s, now)
        self._due_s = due_s + units * self._gap_s
        return max(0.0, due_s - now - BURST_S / 2)

"""Estimates how many nodes the network has from the distances of the closest to some targets. Pure.

The k-th closest of N evenly spread nodes is at a distance of about k/N of the id space. One sample
is accurate to a fifth; the median of several, from unrelated targets, is robust against somebody
crowding around one of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["CROWDING_MIN", "SAMPLES_SURE", "NetworkSize"]

SPACE: Final = 1 << 160
SAMPLES_MAX: Final = 16
SAMPLES_SURE: Final = 3
"""The median of this many is reliable, even if one of them is crowded too."""
SAMPLE_LIFETIME_S: Final = 3600.0
"""Within an hour a network hardly grows or shrinks by more than the error of a sample."""
CROWDING_MIN: Final = 4.0
"""Where ids are this many times as dense as elsewhere, somebody has put them there: twenty nodes
where five are expected occur by chance once in a million times. But the samples may date from when
the network was smaller, so new ones are taken before anybody is warned."""


class NetworkSize:
    """Samples from the latest walks, and one from the routing table about this node's own
    surroundings, which is always current."""

    def __init__(self, k: int, surroundings: Callable[[], Sequence[int]]) -> None:
        """``surroundings`` returns the distances of the contacts closest to this node."""
        self._k = k
        self._surroundings = surroundings
        self._samples: dict[bytes, tuple[float, float]] = {}

    def note(self, target: bytes, distances: Sequence[int], now: float) -> None:
        """A walk towards ``target`` ended with nodes at ``distances``, closest first."""
        estimate = self._estimate(distances)
        self._samples.pop(target, None)
        if estimate is not None:
            self._samples[target] = (estimate, now)
        if len(self._samples) > SAMPLES_MAX:
            del self._samples[next(iter(self._samples))]

    def nodes(self, now: float, without: bytes = b"") -> float | None:
        """The median estimate, leaving out the sample of the target ``without``, whose own
        neighbourhood is in question. None if nothing is known."""
        samples = self._valid(now, without)
        return statistics.median(samples) if samples else None

    def radius(self, target: bytes, now: float) -> int:
        """A distance within which there are k nodes even where they happen to be sparse: it is
        expected to hold k plus twice the standard deviation. 0 if nothing is known."""
        samples = self._valid(now, target)
        if not samples:
            return 0
        # Few samples may be so far off that twice as many nodes would be asked: one deviation.
        expected = self._k + (2 if len(samples) >= SAMPLES_SURE else 1) * math.sqrt(self._k)
        return _within(expected, statistics.median(samples))

    def reach(self, rank: float, now: float) -> int:
        """The distance within which ``rank`` nodes are expected; the whole id space if nothing is
        known."""
        nodes = self.nodes(now)
        return SPACE if nodes is None else _within(rank, nodes)

    def crowding(
        self, target: bytes, distances: Sequence[int], now: float, *, since: float | None = None
    ) -> float:
        """How many times as dense as elsewhere the nodes around ``target`` are; 1 if even, or
        unknown.

        ``since`` leaves out the table, and all samples noted before.
        """
        nodes, here = self.nodes(now, without=target), self._estimate(distances)
        if since is not None:
            samples = self._noted(target, since)
            nodes = statistics.median(samples) if samples else None
        return here / nodes if nodes is not None and here is not None else 1.0

    def _valid(self, now: float, without: bytes) -> list[float]:
        samples = self._noted(without, now - SAMPLE_LIFETIME_S)
        here = self._estimate(self._surroundings())
        return samples if here is None else [*samples, here]

    def _noted(self, without: bytes, since: float) -> list[float]:
        return [
            estimate
            for target, (estimate, noted_at) in self._samples.items()
            if target != without and noted_at >= since
        ]

    def _estimate(self, distances: Sequence[int]) -> float | None:
        """The size that these distances suggest. None if there are fewer than k: they are then the
        whole network; and if k is 1, as the distance of a single node says nothing."""
        if self._k == 1 or len(distances) < self._k:
            return None
        return (self._k - 1) * SPACE / max(1, distances[self._k - 1])


def _within(rank: float, nodes: float) -> int:
    """The distance within which there are ``rank`` of ``nodes`` evenly spread nodes."""
    return int(SPACE * (rank / max(nodes, rank)))

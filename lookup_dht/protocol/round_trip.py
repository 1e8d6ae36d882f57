"""The retransmission timeout, estimated from round trips. Pure."""

from __future__ import annotations

__all__ = ["RoundTripEstimate"]


class RoundTripEstimate:
    """The smoothed round trip and its deviation as in TCP (RFC 6298), within limits."""

    def __init__(self, timeout_min_s: float, timeout_max_s: float) -> None:
        self._min_s = timeout_min_s
        self._max_s = timeout_max_s
        self._mean_s: float | None = None
        self._deviation_s = 0.0
        self.timeout_s = timeout_max_s
        """How long to wait for a reply before the query is sent again."""

    def observe(self, round_trip_s: float) -> None:
        """Note a round trip. Only of queries sent once: otherwise the reply might be to either
        copy."""
        if self._mean_s is None:
            self._mean_s, self._deviation_s = round_trip_s, round_trip_s / 2
        else:
            error = round_trip_s - self._mean_s
            self._mean_s += error / 8
            self._deviation_s += (abs(error) - self._deviation_s) / 4
        timeout_s = self._mean_s + 4 * self._deviation_s
        self.timeout_s = min(self._max_s, max(self._min_s, timeout_s))

    def soft_timeout_s(self, first_s: float, least_s: float) -> float:
        """After how long a query counts as slow: ``first_s`` until something was measured, then
        somewhat longer than most round trips, but no less than ``least_s``."""
        if self._mean_s is None:
            return first_s
        return min(self._max_s, max(least_s, self._mean_s + 3 * self._deviation_s))

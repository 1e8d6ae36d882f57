"""What a node reports about itself: its table, its records, its traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["STATISTICS_BYTES_MAX", "Traffic", "overview"]

STATISTICS_BYTES_MAX: Final = 8192
"""Sent within this machine only, where a datagram may be long."""


class Traffic:
    """Turns counters that only grow into rates."""

    def __init__(self, now: float) -> None:
        self._began_at: Final = now
        self._asked_at = now
        self._before: dict[str, int] = {}

    def rates(self, counters: Mapping[str, int], now: float) -> dict[str, float]:
        """Queries answered and sent per second since the last call, and the seconds since then."""
        totals = {
            "queries_answered": sum(
                counters.get(f"query_{method}", 0)
                for method in ("ping", "find_node", "find_value", "store")
            ),
            "queries_sent": sum(n for name, n in counters.items() if name.startswith("sent_")),
        }
        passed_s = max(now - self._asked_at, 1e-9)
        rates = {
            f"{name}_per_s": round((total - self._before.get(name, 0)) / passed_s, 3)
            for name, total in totals.items()
        }
        self._before, self._asked_at = totals, now
        return {**rates, "over_s": round(passed_s, 3)}

    def uptime_s(self, now: float) -> float:
        """Seconds since the start."""
        return round(now - self._began_at, 3)


def overview(line: Mapping[str, Any]) -> str:
    """Statistics for people to read: one fact a line, counters last."""
    counters = line.get("counters", {})
    lines = [f"{name:18} {value}" for name, value in line.items() if name != "counters"]
    lines += [f"  {name:32} {counters[name]}" for name in sorted(counters)]
    return "\n".join(lines)

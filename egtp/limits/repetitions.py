"""Limits how often the same failure is reported (pure)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["AGAIN_S", "Repetitions"]

AGAIN_S: Final = 60.0
"""How long the same failure is not reported again."""
REMEMBERED_MAX: Final = 256
"""Different failures: more than an application has places to fail in."""


class Repetitions:
    """Says what to report, and counts what is not reported."""

    def __init__(self) -> None:
        self._told: dict[Hashable, tuple[float, int]] = {}
        """When each was last reported, and how often it was not since; the least recent first."""

    def times(self, what: Hashable, now_s: float) -> int:
        """0 if ``what`` is not to be reported now; otherwise how often it has happened since the
        last report, including this time."""
        told_s, untold = self._told.get(what, (now_s - AGAIN_S, 0))
        if now_s - told_s < AGAIN_S:
            self._told[what] = told_s, untold + 1
            return 0
        self._told.pop(what, None)
        self._told[what] = now_s, 0
        if len(self._told) > REMEMBERED_MAX:
            del self._told[next(iter(self._told))]
        return untold + 1

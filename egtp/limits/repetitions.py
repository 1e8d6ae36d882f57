"""What goes wrong once may go wrong with every query: told in full each time, it would be a flood
that anybody could set off. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

__all__ = ["AGAIN_S", "Repetitions"]

AGAIN_S: Final = 60.0
"""How long the same is not told again."""
REMEMBERED_MAX: Final = 256
"""Different things: more than an application has places that fail."""


class Repetitions:
    """Counts what is not told."""

    def __init__(self) -> None:
        self._told: dict[Hashable, tuple[float, int]] = {}
        """When each was told last, and how often it was not told since; in the order of these."""

    def times(self, what: Hashable, now_s: float) -> int:
        """How often ``what`` has happened since it was told last, this time included, if it is to
        be told now; 0 if not."""
        told_s, untold = self._told.get(what, (now_s - AGAIN_S, 0))
        if now_s - told_s < AGAIN_S:
            self._told[what] = told_s, untold + 1
            return 0
        self._told.pop(what, None)
        self._told[what] = now_s, 0
        if len(self._told) > REMEMBERED_MAX:
            del self._told[next(iter(self._told))]
        return untold + 1

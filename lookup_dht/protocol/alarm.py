"""One timer of an event loop, set again and again, of which the earliest time counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """Calls back once after it was set; whoever is called sets it again. It may be called too
    early, for a time that does not matter any more: that costs less than a timer for every query.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where it was first set: to ask for the running one each time is a call of the kernel."""
        self._timer: asyncio.Handle | None = None
        # Kept here: of a time that is almost now, uvloop gives a handle that does not know it.
        self._at = 0.0

    def set(self, when: float) -> None:
        """Call back at this time of the loop at the latest."""
        if self._timer is not None:
            if self._at <= when:
                return
            self._timer.cancel()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._at = when
        self._timer = self._loop.call_at(when, self._due)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """It is not set any more. Whoever it called is let go: they hold each other otherwise, and
        wait for the garbage collector with all that they have."""
        self.cancel()
        self._ring = _nobody

    def _due(self) -> None:
        self._timer = None
        self._ring()


def _nobody() -> None:
    pass

"""One event-loop timer for many deadlines: the earliest one counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """Calls back once after it was set; the callback sets it again. It may go off early, for a
    deadline that no longer matters: that costs less than a timer per query.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop it was first set on: asking for the running one each time is a system call."""
        self._timer: asyncio.Handle | None = None
        # Kept here, since for a time that is almost now uvloop returns a handle without when().
        self._at = 0.0

    def set(self, when: float) -> None:
        """Call back no later than ``when``, in the time of the loop."""
        if self._timer is not None:
            if self._at <= when:
                return
            self._timer.cancel()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._at = when
        self._timer = self._loop.call_at(when, self._due)

    def close(self) -> None:
        """Cancel for good, and drop the callback. The reference cycle would otherwise keep both
        objects, and all they hold, until the garbage collector runs."""
        if self._timer is not None:
            self._timer.cancel()
        self._ring = _ignore

    def _due(self) -> None:
        self._timer = None
        self._ring()


def _ignore() -> None:
    pass

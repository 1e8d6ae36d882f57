"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["DeadlineTimer"]

LATE_S: Final = 0.05
"""A timer that a sleep of the machine has delayed by more than this is set anew."""


class DeadlineTimer:
    """Calls ``expire`` with the current time once the earliest deadline has passed.

    ``next_s`` returns that deadline, or None if there is none. Call :meth:`arm` whenever it may
    have become earlier. Whatever ``expire`` raises, the timer is armed again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        next_s: Callable[[], float | None],
        expire: Callable[[float], None],
    ) -> None:
        self._loop: Final = loop
        self._now: Final = now
        self._next_s: Final = next_s
        self._expire: Final = expire
        self._timer: asyncio.TimerHandle | None = None
        self._at_s, self._ahead_s = float("inf"), float("inf")

    def arm(self) -> None:
        at_s = self._next_s()
        if at_s is None:
            return
        now = self._now()
        # The loop's clock stands still while the machine sleeps, and so do its timers.
        ahead_s = now - self._loop.time()
        if self._timer is not None:
            if self._at_s <= at_s and ahead_s <= self._ahead_s:
                return
            self._timer.cancel()
        self._at_s, self._ahead_s = at_s, ahead_s + LATE_S
        self._timer = self._loop.call_later(max(0.0, at_s - now), self._fired)

    @property
    def is_armed(self) -> bool:
        return self._timer is not None

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._timer = None
        try:
            self._expire(self._now())
        finally:
            self.arm()

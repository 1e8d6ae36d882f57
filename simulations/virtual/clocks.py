"""Clocks of one machine: none of them is told to the other machines, and none has to be right."""

from __future__ import annotations

import math

from simulations.virtual.errors import ImpossibleWorld

__all__ = ["Clocks"]


class Clocks:
    """Reads them from ``now_s``, the world's own time in seconds since it began."""

    def __init__(self, epoch_s: float, now_s: float, *, offset_s: float, rate: float) -> None:
        """The wall clock is ``offset_s`` ahead, and all of them are fast by a factor of ``rate``:
        the oscillator of a cheap machine is off by 1e-4 at most. Raises
        :class:`ImpossibleWorld`."""
        if not 0 < rate < math.inf:
            raise ImpossibleWorld(f"clock_rate must be above 0, not {rate!r}; a right clock has 1")
        self.rate = rate
        self.asleep_s = 0.0
        """How long the machine has been asleep, in all, up to the last time that it woke up."""
        self._made_s = self._booted_s = now_s
        self._is_plain = now_s == 0.0 and rate == 1.0
        """Whether it has been up since the world began. Then all that is noted of a moment is one
        number: of thousands of machines, millions of others would be kept."""
        self._fell_asleep_s = now_s
        self._epoch_s = epoch_s
        self._offset_s = 0.0
        self.set_offset(offset_s)

    def wall(self, now_s: float) -> float:
        """Seconds since 1970, as it thinks."""
        ran_s = (now_s - self._made_s) * self.rate
        return self._epoch_s + self._made_s + ran_s + self._offset_s

    def elapsed(self, now_s: float) -> float:
        """Seconds since it was started, time asleep included (CLOCK_BOOTTIME)."""
        if self._is_plain:
            return now_s
        return (now_s - self._booted_s) * self.rate

    def monotonic(self, now_s: float) -> float:
        """What stands still while it is asleep, and goes on when it starts again: the time of its
        event loop (CLOCK_MONOTONIC)."""
        return (now_s - self.asleep_s) * self.rate

    # What happens to them

    def set_offset(self, seconds: float) -> None:
        """The wall clock is ahead by this, beside what it has drifted."""
        if not math.isfinite(seconds):
            raise ImpossibleWorld(f"a clock offset must be a number of seconds, not {seconds!r}")
        self._offset_s = seconds

    def step(self, seconds: float) -> None:
        """The wall clock jumps, either way."""
        self.set_offset(self._offset_s + seconds)

    def boot(self, now_s: float) -> None:
        self._booted_s = now_s
        self._is_plain = False

    def stop(self, now_s: float) -> None:
        """It falls asleep."""
        self._fell_asleep_s = now_s

    def go_on(self, now_s: float) -> None:
        """It wakes up."""
        self.asleep_s += now_s - self._fell_asleep_s

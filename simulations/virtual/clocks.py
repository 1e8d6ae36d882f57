"""The clocks of one machine. Other machines cannot see them, and none of them has to be right."""

from __future__ import annotations

import math

from simulations.virtual.errors import ImpossibleWorld

__all__ = ["Clocks"]


class Clocks:
    """Computes each clock from ``now_s``, the world's own time in seconds since it began."""

    def __init__(self, epoch_s: float, now_s: float, *, offset_s: float, rate: float) -> None:
        """The wall clock is ``offset_s`` ahead, and all clocks are fast by a factor of ``rate``;
        the oscillator of a cheap machine is off by at most 1e-4. Raises
        :class:`ImpossibleWorld`."""
        if not 0 < rate < math.inf:
            raise ImpossibleWorld(f"clock_rate must be above 0, not {rate!r}; a right clock has 1")
        self.rate = rate
        self.asleep_s = 0.0
        """The total time that the machine was asleep, up to when it last woke up."""
        self._made_s = self._booted_s = now_s
        self._is_plain = now_s == 0.0 and rate == 1.0
        """Whether it has been up since the world began with an exact clock. All machines then share
        one float object per moment, where thousands of machines would keep millions."""
        self._fell_asleep_s = now_s
        self._epoch_s = epoch_s
        self._offset_s = 0.0
        self.set_offset(offset_s)

    def wall(self, now_s: float) -> float:
        """The wall clock, in seconds since 1970."""
        ran_s = (now_s - self._made_s) * self.rate
        return self._epoch_s + self._made_s + ran_s + self._offset_s

    def elapsed(self, now_s: float) -> float:
        """Seconds since it was started, including time asleep (CLOCK_BOOTTIME)."""
        if self._is_plain:
            return now_s
        return (now_s - self._booted_s) * self.rate

    def monotonic(self, now_s: float) -> float:
        """The time of its event loop, which stands still while the machine is asleep
        (CLOCK_MONOTONIC). A restart does not reset it."""
        return (now_s - self.asleep_s) * self.rate

    # What happens to them

    def set_offset(self, seconds: float) -> None:
        """Set how far the wall clock is ahead, apart from its drift."""
        if not math.isfinite(seconds):
            raise ImpossibleWorld(f"a clock offset must be a number of seconds, not {seconds!r}")
        self._offset_s = seconds

    def step(self, seconds: float) -> None:
        """Make the wall clock jump, forward or backward."""
        self.set_offset(self._offset_s + seconds)

    def boot(self, now_s: float) -> None:
        self._booted_s = now_s
        self._is_plain = False

    def stop(self, now_s: float) -> None:
        """The machine falls asleep."""
        self._fell_asleep_s = now_s

    def go_on(self, now_s: float) -> None:
        """The machine wakes up."""
        self.asleep_s += now_s - self._fell_asleep_s

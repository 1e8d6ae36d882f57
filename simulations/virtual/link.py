"""Link: what a line between two machines does to packets.

Values only; randomness is drawn from a generator that is passed in.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from typing import Final, Protocol

from simulations.virtual.errors import ImpossibleWorld

__all__ = ["Fixed", "Latency", "Link", "LogNormal", "Uniform"]

DATAGRAM_BYTES_MAX: Final = 65_507
"""The most that fits into one UDP datagram over IPv4."""


class Latency(Protocol):
    """How long a packet takes in one direction: :class:`Fixed`, :class:`Uniform`,
    :class:`LogNormal`, or any other class with this method."""

    def draw(self, rng: random.Random) -> float:
        """The latency of one packet, in seconds, never below 0. All randomness has to come from
        ``rng``, or runs with one seed differ."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same latency for each packet."""

    seconds: float

    def __post_init__(self) -> None:
        _not_negative(latency=self.seconds)

    def draw(self, rng: random.Random) -> float:  # noqa: ARG002
        """See :class:`Latency`."""
        return self.seconds


@dataclass(frozen=True, slots=True)
class Uniform:
    """A latency drawn uniformly from a range."""

    low_s: float
    high_s: float

    def __post_init__(self) -> None:
        _not_negative(latency=self.low_s)
        if not self.low_s <= self.high_s < math.inf:
            raise ImpossibleWorld(f"a latency from {self.low_s} to {self.high_s} s is not a range")

    def draw(self, rng: random.Random) -> float:
        """See :class:`Latency`."""
        return self.low_s + (self.high_s - self.low_s) * rng.random()


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A latency near the median for most packets, and occasionally much higher: as on the
    Internet."""

    median_s: float
    sigma: float = 0.5
    """The standard deviation of the logarithm: with 0.5, one packet in a hundred takes more than
    3.2 medians."""

    def __post_init__(self) -> None:
        _not_negative(latency=self.median_s, sigma=self.sigma)

    def draw(self, rng: random.Random) -> float:
        """See :class:`Latency`."""
        return self.median_s * math.exp(self.sigma * rng.gauss(0.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The properties of a line. Raises :class:`ImpossibleWorld` for an impossible value.

    A bad line delays a stream but loses none of it: lost segments are sent again.
    """

    latency: Latency | float = 0.01
    """One-way latency; a plain number of seconds means :class:`Fixed`."""
    loss: float = 0.0
    """The share of packets that are lost."""
    duplicate: float = 0.0
    """The share of datagrams that arrive twice."""
    reorder: float = 0.0
    """The share of datagrams that take up to ``reorder_s`` longer, so that others overtake them."""
    reorder_s: float = 0.05
    """The longest such extra delay, in seconds."""
    bandwidth_bytes_per_s: float = math.inf
    """The capacity of the line, in bytes per second."""
    queue_s: float = 0.5
    """A datagram that would have to queue for longer than this is lost."""
    mtu_bytes: int = DATAGRAM_BYTES_MAX
    """Larger datagrams are lost, as on paths that drop fragments. Streams are not affected."""

    def __post_init__(self) -> None:
        if isinstance(self.latency, int | float):
            object.__setattr__(self, "latency", Fixed(float(self.latency)))
        elif not callable(getattr(self.latency, "draw", None)):
            raise ImpossibleWorld(
                f"latency must be a number of seconds, or Fixed, Uniform, LogNormal or another "
                f"Latency, not {self.latency!r}"
            )
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if not isinstance(value, int | float):
                raise ImpossibleWorld(f"{field.name} must be a number, not {value!r}")
        for name in ("loss", "duplicate", "reorder"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise ImpossibleWorld(f"{name} must be a share between 0 and 1, not {share!r}")
        _not_negative(reorder_s=self.reorder_s, queue_s=self.queue_s)
        if not self.bandwidth_bytes_per_s > 0:
            raise ImpossibleWorld(
                f"bandwidth_bytes_per_s must be above 0, not {self.bandwidth_bytes_per_s!r}; "
                "a line that carries nothing is a partition"
            )
        if self.mtu_bytes < 1:
            raise ImpossibleWorld(f"mtu_bytes must be at least 1, not {self.mtu_bytes!r}")

    def draw_latency_s(self, rng: random.Random) -> float:
        """The latency of one packet, in seconds. Raises :class:`ImpossibleWorld` if a
        distribution of somebody's own draws none: one below zero would pass for zero, unnoticed."""
        latency_s = self.latency.draw(rng)  # type: ignore[union-attr]
        if not 0.0 <= latency_s < math.inf:
            raise ImpossibleWorld(f"a latency of {latency_s!r} s, as {self.latency!r} draws it")
        return latency_s


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < math.inf:
            raise ImpossibleWorld(f"{name} must be a time of 0 s or more, not {value!r}")

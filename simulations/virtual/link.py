"""Link: what a line between two machines does to what travels over it.

Values only; what is random is drawn from a generator that is handed in.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from typing import Final, Protocol

from simulations.virtual.errors import ImpossibleWorld

__all__ = ["Fixed", "Latency", "Link", "LogNormal", "Uniform"]

DATAGRAM_BYTES_MAX: Final = 65_507
"""What fits into one UDP datagram over IPv4."""


class Latency(Protocol):
    """How long a packet is under way, one way."""

    def draw(self, rng: random.Random) -> float:
        """Seconds, for one packet."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same for each packet."""

    seconds: float

    def __post_init__(self) -> None:
        _not_negative(latency=self.seconds)

    def draw(self, rng: random.Random) -> float:  # noqa: ARG002
        return self.seconds


@dataclass(frozen=True, slots=True)
class Uniform:
    """Anything between two times is as likely."""

    low_s: float
    high_s: float

    def __post_init__(self) -> None:
        _not_negative(latency=self.low_s)
        if not self.low_s <= self.high_s < math.inf:
            raise ImpossibleWorld(f"a latency from {self.low_s} to {self.high_s} s is no range")

    def draw(self, rng: random.Random) -> float:
        return self.low_s + (self.high_s - self.low_s) * rng.random()


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Mostly about the median, now and then much more: as measured on the Internet."""

    median_s: float
    sigma: float = 0.5
    """The standard deviation of the logarithm: with 0.5, one packet in a hundred takes more than
    3.2 medians."""

    def __post_init__(self) -> None:
        _not_negative(latency=self.median_s, sigma=self.sigma)

    def draw(self, rng: random.Random) -> float:
        return self.median_s * math.exp(self.sigma * rng.gauss(0.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The qualities of a line. Raises :class:`ImpossibleWorld` for what no line can be.

    A stream loses nothing over a bad line, it is only late: lost segments are sent again.
    """

    latency: Latency | float = 0.01
    """One way; a plain number of seconds means :class:`Fixed`."""
    loss: float = 0.0
    """The share of packets that are lost."""
    duplicate: float = 0.0
    """The share of datagrams that arrive twice."""
    reorder: float = 0.0
    """The share of datagrams that take up to ``reorder_s`` longer, so that others overtake."""
    reorder_s: float = 0.05
    bandwidth_bytes_per_s: float = math.inf
    queue_s: float = 0.5
    """A datagram that would have to queue for longer than this for its turn is lost."""
    mtu_bytes: int = DATAGRAM_BYTES_MAX
    """Larger datagrams are lost, as where fragments are dropped. Streams do not mind."""

    def __post_init__(self) -> None:
        if isinstance(self.latency, int | float):
            object.__setattr__(self, "latency", Fixed(float(self.latency)))
        elif not callable(getattr(self.latency, "draw", None)):
            raise ImpossibleWorld(
                f"latency is a number of seconds, or Fixed, Uniform or LogNormal, "
                f"not {self.latency!r}"
            )
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if not isinstance(value, int | float):
                raise ImpossibleWorld(f"{field.name} is a number, not {value!r}")
        for name in ("loss", "duplicate", "reorder"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise ImpossibleWorld(f"{name} is a share between 0 and 1, not {share!r}")
        _not_negative(reorder_s=self.reorder_s, queue_s=self.queue_s)
        if not self.bandwidth_bytes_per_s > 0:
            raise ImpossibleWorld(
                f"bandwidth_bytes_per_s is above 0, not {self.bandwidth_bytes_per_s!r}; "
                "a line that carries nothing is a partition"
            )
        if self.mtu_bytes < 1:
            raise ImpossibleWorld(f"mtu_bytes is at least 1, not {self.mtu_bytes!r}")

    def draw_latency_s(self, rng: random.Random) -> float:
        return self.latency.draw(rng)  # type: ignore[union-attr]


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < math.inf:
            raise ImpossibleWorld(f"{name} is a time of 0 s or more, not {value!r}")

"""Plane: machines on a square map, and the lines between them.

A synthetic Internet: no NAT, no queues, no jitter. The latency between two machines is the same in
both directions and grows with their distance, so that near and far exist and triangles close.
"""

from __future__ import annotations

import math
import random
from typing import Final

from simulations.virtual import Link

__all__ = ["Plane"]

NEAR_S: Final = 0.005
FAR_S: Final = 0.128
"""One way, between the machines nearest and farthest to each other that there can be."""
STEP_S: Final = 0.000_5
"""Latencies are rounded to this, so that a few hundred lines serve for a million pairs."""


class Plane:
    """Says which line leads from one machine to another: a map for ``Network(link=...)``."""

    def __init__(self, seed: int, *, loss: float = 0.0) -> None:
        self.seed: Final = seed
        self.loss: Final = loss
        self._places: dict[str, complex] = {}
        self._lines: dict[int, Link] = {}

    def with_loss(self, loss: float) -> Plane:
        """The same places, but this share of the packets is lost."""
        return Plane(self.seed, loss=loss)

    def __call__(self, source: str, target: str) -> Link:
        distance = abs(self._place(source) - self._place(target)) / math.sqrt(2)
        steps = round((NEAR_S + (FAR_S - NEAR_S) * distance) / STEP_S)
        line = self._lines.get(steps)
        if line is None:
            line = self._lines[steps] = Link(latency=steps * STEP_S, loss=self.loss)
        return line

    def _place(self, name: str) -> complex:
        place = self._places.get(name)
        if place is None:
            rng = random.Random(f"{self.seed}/{name}/place")  # noqa: S311
            place = self._places[name] = complex(rng.random(), rng.random())
        return place

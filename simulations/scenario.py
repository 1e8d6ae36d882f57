"""The type of a scenario."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from simulations.cluster import Cluster
from simulations.expectations import Expectations

__all__ = ["Figures", "Narrate", "Scenario"]

Figures: TypeAlias = Mapping[str, float]
"""Measurements, under names that end in the unit: ``crash_to_next_reply_ms``."""

Narrate: TypeAlias = Callable[[str], None]
"""Called with each sentence of the story."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story about a cluster, by name."""

    name: str
    summary: str
    run: Callable[[Cluster, Expectations, Narrate], Awaitable[Figures]]
    virtual_only: bool = False
    """Whether its events are possible in a virtual world only."""

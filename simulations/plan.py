"""Who is in a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from egtp import InvalidConfig

__all__ = ["ClusterPlan"]

NODES_MAX: Final = 100
"""On a real machine they share its time; this many take half a minute to join."""
REACHABLE_MIN: Final = 3
"""Two talk, and a third knows neither."""
RELAYS_MIN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """How many nodes of which kind. Raises :class:`InvalidConfig` for what cannot be."""

    nodes: int = 16
    """All of them."""
    relays: int = 3
    """Those that serve others as relays."""
    unreachable: int = 3
    """Those that accept no connections and are reached through relays only."""
    bootstraps: int = 2
    """Those that are in the DHT only, for the others to join through."""
    seed: int = 1
    """What is random comes from it, the keys included."""
    nodes_max: int = NODES_MAX
    """How many there may be; in virtual time, more than on a real machine."""

    def __post_init__(self) -> None:
        for name, least, why in (
            ("relays", RELAYS_MIN, "when one dies, another has to take over"),
            ("unreachable", 2, "two of them talk to each other"),
            ("bootstraps", 1, "the others join the DHT through it"),
        ):
            number = getattr(self, name)
            if number < least:
                raise InvalidConfig(f"{name} must be at least {least} ({why}), not {number}")
        if self.nodes > self.nodes_max:
            raise InvalidConfig(
                f"nodes must be at most {self.nodes_max} (they share one process), not {self.nodes}"
            )
        if self.reachable < REACHABLE_MIN:
            needed = self.bootstraps + self.relays + self.unreachable + REACHABLE_MIN
            or_fewer = " or fewer relays" if self.relays > RELAYS_MIN else ""
            raise InvalidConfig(
                f"{self.nodes} nodes are too few: {self.bootstraps} bootstrap nodes, "
                f"{self.relays} relays, {self.unreachable} unreachable peers and at least "
                f"{REACHABLE_MIN} reachable ones make {needed}; take more nodes{or_fewer}"
            )

    @property
    def reachable(self) -> int:
        """Ordinary peers that accept connections: whoever is nothing else."""
        return self.nodes - self.bootstraps - self.relays - self.unreachable

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes: {self.bootstraps} DHT bootstraps, {self.relays} relays, "
            f"{self.reachable} reachable peers, {self.unreachable} that accept nothing"
        )

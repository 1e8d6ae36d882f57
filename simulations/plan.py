"""The composition of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from egtp import InvalidConfig

__all__ = ["ClusterPlan"]

NODES_MAX: Final = 100
"""On a real machine, where they share its CPU: this many take half a minute to join."""
REACHABLE_MIN: Final = 3
"""Two that talk, and a third that knows neither."""
RELAYS_MIN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """How many nodes of which kind. Raises :class:`InvalidConfig` for an impossible plan."""

    nodes: int = 16
    """All nodes together."""
    relays: int = 3
    """Nodes that serve others as relays."""
    unreachable: int = 3
    """Nodes that accept no connections and are reached through relays only."""
    bootstraps: int = 2
    """Nodes of the DHT only, for the others to join through."""
    seed: int = 1
    """Of the world that is made for the cluster: all randomness comes from it, keys included."""
    nodes_max: int = NODES_MAX
    """The limit for ``nodes``; higher in virtual time than on a real machine."""

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
        """Ordinary peers that accept connections: all the rest."""
        return self.nodes - self.bootstraps - self.relays - self.unreachable

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes: {self.bootstraps} DHT bootstraps, {self.relays} relays, "
            f"{self.reachable} reachable peers, {self.unreachable} that accept nothing"
        )

"""Conditions: the members of a cluster, and the network between them.

Everything that a run depends on besides its scenario. Drawn from a seed, conditions vary from run
to run, as real networks do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Self

from simulations.plan import ClusterPlan
from simulations.virtual import Link, LogNormal, NatKind, Trace
from simulations.world import INTERNET, LoopbackWorld, VirtualWorld, World

__all__ = ["LOOPBACK", "VIRTUAL", "VIRTUAL_NODES_MAX", "Conditions"]

LOOPBACK, VIRTUAL = "loopback", "virtual"
VIRTUAL_NODES_MAX: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditions of one run."""

    plan: ClusterPlan
    world: str = LOOPBACK
    drawn: bool = False
    """Whether everything was drawn from the seed."""
    link: Link = INTERNET
    nat: NatKind = NatKind.PORT_RESTRICTED
    """The kind of the routers that unreachable peers are behind."""

    @classmethod
    def draw(cls, seed: int) -> Self:
        """Draw a virtual world: a few peers or more, good lines or bad ones."""
        rng = random.Random(f"{seed}/conditions")
        relays = rng.randint(2, 4)
        unreachable = rng.randint(2, 4)
        bootstraps = rng.randint(1, 3)
        nodes = relays + unreachable + bootstraps + rng.randint(4, 14)
        link = Link(
            latency=LogNormal(rng.choice((0.001, 0.01, 0.03, 0.08)), rng.uniform(0.1, 0.5)),
            loss=rng.choice((0.0, 0.0, 0.005, 0.02)),
            duplicate=rng.choice((0.0, 0.01)),
            reorder=rng.choice((0.0, 0.05)),
        )
        plan = ClusterPlan(
            nodes=nodes, relays=relays, unreachable=unreachable, bootstraps=bootstraps, seed=seed
        )
        return cls(plan=plan, world=VIRTUAL, drawn=True, link=link, nat=rng.choice(list(NatKind)))

    def make_world(self, trace: Trace | None = None) -> World:
        """A new world with these conditions."""
        if self.world == LOOPBACK:
            return LoopbackWorld(self.plan.seed)
        return VirtualWorld(self.plan.seed, link=self.link, nat=self.nat, trace=trace)

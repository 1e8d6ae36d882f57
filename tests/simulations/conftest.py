"""Small clusters, and clusters in which what a story tells of does not happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from simulations import Cluster, ClusterPlan, Outcome, play
from simulations.scenarios import SCENARIOS

Play = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def plan() -> ClusterPlan:
    """As few as every scenario can do with."""
    return ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=7)


@pytest.fixture
def play_in(plan: ClusterPlan) -> Play:
    """Play a scenario, by name, in a small cluster: of another kind, if need be."""

    async def run(
        name: str, kind: Callable[..., Cluster] = Cluster, patience_s: float = 10.0
    ) -> Outcome:
        return await play(SCENARIOS[name], kind(plan, patience_s=patience_s))

    return run

"""Small clusters."""

from __future__ import annotations

import pytest

from simulations import ClusterPlan


@pytest.fixture
def plan() -> ClusterPlan:
    """As few as every scenario can do with."""
    return ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=7)

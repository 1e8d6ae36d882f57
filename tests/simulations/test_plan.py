"""Which clusters can be, and what is said of those that cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp import InvalidConfig
from simulations import ClusterPlan


def test_the_default_is_a_dozen_nodes_of_every_kind() -> None:
    plan = ClusterPlan()
    assert plan.nodes >= 12
    assert plan.relays == 3
    assert plan.bootstraps >= 2
    assert plan.unreachable >= 2
    assert plan.reachable >= 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"relays": 0}, "relays must be at least 2"),
        ({"relays": 1}, "another has to take over"),
        ({"unreachable": 1}, "unreachable must be at least 2"),
        ({"bootstraps": 0}, "bootstraps must be at least 1"),
        ({"nodes": 101}, "nodes must be at most 100"),
        ({"nodes": 10}, "make 11; take more nodes or fewer relays"),
        ({"nodes": 9, "relays": 2}, "make 10; take more nodes$"),
        ({"relays": 9}, "make 17; take more nodes or fewer relays"),
        ({"nodes": -1}, "-1 nodes are too few"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(changes: dict[str, int], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        ClusterPlan(**changes)


@given(
    nodes=st.integers(-5, 120),
    relays=st.integers(-2, 20),
    unreachable=st.integers(-2, 20),
    bootstraps=st.integers(-2, 10),
)
def test_every_plan_has_the_cast_of_the_scenarios_or_is_refused(
    nodes: int, relays: int, unreachable: int, bootstraps: int
) -> None:
    try:
        plan = ClusterPlan(
            nodes=nodes, relays=relays, unreachable=unreachable, bootstraps=bootstraps
        )
    except InvalidConfig:
        return
    assert plan.relays >= 2
    assert plan.unreachable >= 2
    assert plan.bootstraps >= 1
    assert plan.reachable >= 3
    assert plan.nodes == plan.relays + plan.unreachable + plan.bootstraps + plan.reachable

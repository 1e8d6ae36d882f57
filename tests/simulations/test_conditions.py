"""Conditions: drawn from a seed, the same each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulations import ClusterPlan, LoopbackWorld
from simulations.conditions import LOOPBACK, VIRTUAL, Conditions
from simulations.world import VirtualWorld


@given(st.integers())
def test_whatever_the_seed_there_can_be_such_a_cluster(seed: int) -> None:
    drawn = Conditions.draw(seed)
    assert drawn == Conditions.draw(seed)
    assert drawn.drawn
    assert drawn.world == VIRTUAL
    assert drawn.plan.seed == seed
    assert drawn.plan.reachable >= 3


def test_seeds_differ_in_everything_that_is_drawn() -> None:
    drawn = [Conditions.draw(seed) for seed in range(60)]
    assert len({conditions.plan.nodes for conditions in drawn}) > 5
    assert len({conditions.plan.relays for conditions in drawn}) > 1
    assert len({conditions.nat for conditions in drawn}) == 4
    assert {conditions.link.loss > 0 for conditions in drawn} == {True, False}
    assert len({conditions.link.latency for conditions in drawn}) > 10


def test_a_world_is_made_as_the_conditions_say() -> None:
    plan = ClusterPlan(seed=5)
    assert isinstance(Conditions(plan=plan, world=LOOPBACK).make_world(), LoopbackWorld)
    drawn = Conditions.draw(5)
    world = drawn.make_world()
    assert isinstance(world, VirtualWorld)
    assert world.network.seed == 5
    assert world.nat is drawn.nat
    assert world.network.lines.default == drawn.link

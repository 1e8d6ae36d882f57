"""Clusters: who is in them, where, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gc

import pytest

from egtp import InvalidConfig, NodeClosed, NodeId
from simulations import (
    Cluster,
    ClusterPlan,
    Expectations,
    LoopbackWorld,
    Role,
    Scenario,
    Stopped,
    VirtualWorld,
    play,
)
from simulations.virtual import run_in


async def node_ids(plan: ClusterPlan) -> list[NodeId]:
    async with Cluster(plan) as cluster:
        return [member.node_id for member in cluster.members]


async def test_everybody_is_there_at_an_address_of_its_own(plan: ClusterPlan) -> None:
    told: list[str] = []
    async with Cluster(plan, narrate=told.append) as cluster:
        assert len(cluster.bootstraps) == plan.bootstraps
        for role, count in (
            (Role.RELAY, plan.relays),
            (Role.REACHABLE, plan.reachable),
            (Role.UNREACHABLE, plan.unreachable),
        ):
            assert len(cluster.those(role)) == count
        hosts = [member.host for member in cluster.members]
        hosts += [bootstrap.address.host for bootstrap in cluster.bootstraps]
        assert len(set(hosts)) == plan.nodes
        for member in cluster.members:
            assert member.lookup.address.host == member.host
            listening = [address.rpartition(":")[0] for address in member.node.listening]
            reachable = member.role is not Role.UNREACHABLE
            assert listening == ([member.host] if reachable else [])
            assert (member.node.relay_server is not None) is (member.role is Role.RELAY)
            if member.role is not Role.RELAY:
                assert len(member.node.relays) == plan.relays
        assert len(cluster.stored) == len(cluster.members)
        assert told


async def test_nothing_is_left_of_a_cluster(plan: ClusterPlan) -> None:
    before = asyncio.all_tasks()
    async with Cluster(plan) as cluster:
        members = list(cluster.members)
    assert asyncio.all_tasks() == before
    for member in members:
        with pytest.raises(NodeClosed):
            _ = member.node.listening
    # A socket or transport that was not closed warns when it is collected; warnings are errors.
    del cluster, members
    gc.collect()


def test_a_story_may_end_while_machines_are_asleep_or_down(plan: ClusterPlan) -> None:
    async def story(cluster: Cluster, expect: Expectations, _: object) -> dict[str, float]:
        sleeper, crashed = cluster.those(Role.REACHABLE)[:2]
        sleeper.machine.host.sleep()
        crashed.machine.host.crash()
        cluster.network.hosts["bootstrap-1"].crash()
        expect.that("they are away", True)
        return {}

    world = VirtualWorld(plan.seed)
    scenario = Scenario("away", "some are away at the end", story)
    outcome = run_in(world.network, play(scenario, Cluster(plan, world)), limit_s=600).value
    assert outcome.held, outcome.failed


async def test_a_cluster_that_cannot_start_leaves_nothing_either(plan: ClusterPlan) -> None:
    class Taken(LoopbackWorld):
        def new_host(self) -> str:
            # Documentation addresses are on no machine, so this cannot be listened on.
            host = super().new_host()
            return "192.0.2.1" if host.startswith("127.10.5.") else host

    before = asyncio.all_tasks()
    with pytest.raises(InvalidConfig, match=r"cannot listen on .*192\.0\.2\.1"):
        await Cluster(plan, Taken(plan.seed)).__aenter__()
    assert asyncio.all_tasks() == before


async def test_keys_come_from_the_seed(plan: ClusterPlan) -> None:
    other = ClusterPlan(nodes=8, relays=2, unreachable=2, bootstraps=1, seed=plan.seed + 1)
    first = await node_ids(plan)
    assert await node_ids(plan) == first
    assert not set(first) & set(await node_ids(other))


def test_hosts_are_never_given_twice() -> None:
    world = LoopbackWorld(1)
    hosts = [world.new_host() for _ in range(1000)]
    assert len(set(hosts)) == 1000
    assert all(0 < int(part) < 255 for host in hosts for part in host.split(".")[2:])


async def test_what_a_member_does_not_see_is_named(plan: ClusterPlan) -> None:
    async with Cluster(plan, patience_s=5.0) as cluster:
        alice, bob = cluster.those(Role.REACHABLE)[:2]
        await alice.ask(bob, b"hello")
        with pytest.raises(Stopped, match="alice sees a comet: not within"):
            await alice.saw("alice sees a comet", lambda _: False, limit_s=0.01)
        text = cluster.words(f"relay {cluster.those(Role.RELAY)[0].node_id} to {bob.node_id}")
        assert text == "relay-1 to bob"

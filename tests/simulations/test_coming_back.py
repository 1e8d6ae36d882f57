"""Peers that come back: from sleep, from behind another address, from the other half of a network
that was cut. Each was found by a scenario, under some seed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from egtp import EgtpError
from lookup_dht import DHTLookup
from simulations import Cluster, ClusterPlan, Member, Role
from simulations.virtual import Host, Network, run_in, simulate
from simulations.world import VirtualWorld


def in_a_cluster(story: Callable[[Cluster], Awaitable[None]]) -> None:
    world = VirtualWorld(1)
    cluster = Cluster(ClusterPlan(nodes=9, relays=2, unreachable=2, bootstraps=1, seed=1), world)

    async def whole() -> None:
        async with cluster:
            await story(cluster)

    run_in(world.network, whole(), limit_s=20_000)


async def seconds_until_reached(cluster: Cluster, asker: Member, asked: Member) -> float:
    """Somebody asks again and again, a second after each failure."""
    began_s = cluster.world.elapsed()
    while True:
        try:
            await asker.ask(asked, b"hello")
        except EgtpError:
            await asyncio.sleep(1)
        else:
            return cluster.world.elapsed() - began_s


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("slept_s", [150.0, 7_300.0])
def test_who_slept_is_reached_seconds_after_waking(role: Role, slept_s: float) -> None:
    """Leases, connections and records have run out meanwhile, and timers did not notice."""

    async def story(cluster: Cluster) -> None:
        laptop, stranger = cluster.those(role)[0], cluster.those(Role.UNREACHABLE)[1]
        laptop.machine.host.sleep()
        await asyncio.sleep(slept_s)
        laptop.machine.host.wake()
        assert await seconds_until_reached(cluster, stranger, laptop) < 5.0
        await asyncio.sleep(2)
        assert laptop.node.counters["this machine was asleep"] == 1

    in_a_cluster(story)


def test_a_dead_connection_to_a_relay_is_noticed_by_who_asks_through_it() -> None:
    async def story(cluster: Cluster) -> None:
        asker, asked = cluster.those(Role.UNREACHABLE)
        await asyncio.sleep(2)
        asker.machine.gain_address()  # Its router gets another one: all connections are dead.
        assert await seconds_until_reached(cluster, asker, asked) < 12.0

    in_a_cluster(story)


def test_a_dht_that_was_cut_in_two_becomes_one_again() -> None:
    """Each half has forgotten the other, and is large enough to want for nothing."""

    def node(host: Host, seeds: list[str]) -> DHTLookup:
        return DHTLookup(
            f"{host.addresses[0]}:9000",
            seeds,
            unix_time=host.unix_time,
            elapsed=host.elapsed,
            entropy=host.entropy,
        )

    async def story(network: Network) -> None:
        hosts = [network.host(f"node-{n}", f"11.0.{n}.1") for n in range(50)]
        seeds = [f"{host.addresses[0]}:9000" for host in hosts[:2]]
        nodes = [node(host, [s for s in seeds if host.addresses[0] not in s]) for host in hosts]
        for host, lookup in zip(hosts, nodes, strict=True):
            await host.run(lookup.start())
        await asyncio.sleep(60)
        half, other_half = range(0, 50, 2), range(1, 50, 2)
        with network.partition([hosts[n] for n in half], [hosts[n] for n in other_half]):
            await asyncio.sleep(30 * 60)
            assert crossing(nodes, half, other_half) == 0
        await asyncio.sleep(10 * 60)
        assert crossing(nodes, half, other_half) > 100

    def crossing(nodes: list[DHTLookup], half: range, other_half: range) -> int:
        """How many entries of tables lead from one half to the other."""
        return sum(
            nodes[a]._node.protocol.router.has_address((f"11.0.{b}.1", 9000))
            for a in half
            for b in other_half
        )

    simulate(story, seed=1)

"""Paths that lead nowhere any more, without a word: in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from egtp import Environment, HardTimeout, Identity, Incoming, MemoryLookup, Node, NodeConfig
from simulations.virtual import Host, Network, simulate

SILENT_S = 8.0
CONFIG = NodeConfig(silent_path_s=SILENT_S)


def node_on(host: Host, lookup: MemoryLookup) -> Node:
    environment = Environment(host.elapsed, host.unix_time, host.entropy)
    identity = Identity.generate(host.entropy)
    node = Node(
        identity,
        listen=f"{host.addresses[0]}:4000",
        lookup=lookup,
        environment=environment,
        config=CONFIG,
    )

    async def echo(query: Incoming) -> bytes:
        return query.body

    node.handle("echo", echo)
    return node


def pair(network: Network) -> tuple[Host, Node, Host, Node]:
    one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")
    lookup = MemoryLookup(network.story.unix_time)
    return one, node_on(one, lookup), two, node_on(two, lookup)


def test_a_peer_without_power_is_noticed_while_somebody_waits_and_found_again_after() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer = pair(network)
        await one.run(asker.start())
        await two.run(answerer.start())
        peer_id = answerer.node_id
        assert await one.run(asker.query(peer_id, "echo", b"1")) == b"1"
        with network.partition([one], [two]):
            began = network.loop.now
            with pytest.raises(HardTimeout) as caught:
                await one.run(asker.query(peer_id, "echo", b"2", hard_timeout_s=30))
            assert caught.value.may_have_run
            assert network.loop.now - began == pytest.approx(30, abs=0.1)
            assert asker.counters["path given up: silent"] == 1
            assert not asker.why(peer_id).paths
        # Without that, TCP alone would go on sending into the void.
        assert await one.run(asker.query(peer_id, "echo", b"3")) == b"3"

    simulate(story, seed=1)


def test_a_machine_that_started_again_says_at_once_that_the_connection_is_gone() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer = pair(network)
        await one.run(asker.start())
        await two.run(answerer.start())
        peer_id = answerer.node_id
        assert await one.run(asker.query(peer_id, "echo", b"1")) == b"1"
        two.crash()
        two.restart()
        lookup = MemoryLookup(network.story.unix_time)
        again = node_on(two, lookup)
        await two.run(again.start())
        lost = one.spawn(asker.query(peer_id, "echo", b"2", hard_timeout_s=20))
        await asyncio.sleep(0.1)
        assert not asker.why(peer_id).paths
        with pytest.raises(HardTimeout):
            await lost

    simulate(story, seed=2)


def test_nobody_is_bothered_on_paths_that_nobody_waits_for() -> None:
    async def story(network: Network) -> None:
        one, asker, two, answerer = pair(network)
        await one.run(asker.start())
        await two.run(answerer.start())
        await one.run(asker.query(answerer.node_id, "echo", b"1"))
        before = network.trace.entries
        await asyncio.sleep(60.0)
        assert network.trace.entries == before

    simulate(story, seed=3)

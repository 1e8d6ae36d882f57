"""The set rate is the measured rate, within 2 % over 10 s: in virtual time (R16)."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from egtp import (
    Environment,
    Identity,
    Incoming,
    LocalProtocolError,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
)
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.tcp.throttling import Rates
from egtp.values.comm_strat import Address, TCPStrat
from simulations.virtual import Host, Network, simulate

SECONDS = 10.0
PACKET = bytes(996)
"""1000 bytes on the wire."""


class Talker:
    """A handler on a simulated machine. Once told to, it sends on all its connections as much as
    they take."""

    def __init__(self, host: Host, **settings: Any) -> None:
        config = NodeConfig(connection_buffer_bytes_max=64 * 1024, **settings)
        self.comms = TCPCommsHandler(self, config, host.elapsed, Counter())
        self.received_bytes: Counter[int] = Counter()
        self.sends = False

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        self.received_bytes[connection.number] += 4 + len(packet)

    def read(self, connection: TCPConnection) -> None:
        pass

    def writable(self, connection: TCPConnection) -> None:
        while self.sends and connection.takes_more:
            connection.send(PACKET)

    def closed(self, connection: TCPConnection, reason: str) -> None: ...

    def why_keep(self, connection: TCPConnection) -> str | None:
        return "in use"

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        return connection.started_s

    def held_back(self, connection: TCPConnection) -> None: ...

    def knows(self, peer_id: NodeId) -> bool:
        return True


def received_in_10_s(
    connections: int, settings: dict[str, Any], other: dict[str, Any], *, warm_up_s: float = 0.0
) -> list[int]:
    """What each connection from one with ``settings`` brought to the other one in 10 s, after the
    sender began and ``warm_up_s`` passed."""

    async def story(network: Network) -> list[int]:
        one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")

        async def make(host: Host, settings: dict[str, Any]) -> Talker:
            return Talker(host, **settings)

        sender, receiver = await one.run(make(one, settings)), await two.run(make(two, other))
        address = Address.parse("5.0.1.1:4000")
        await two.run(receiver.comms.listen([address]))

        async def dial() -> None:
            dialled = [sender.comms.open(TCPStrat(address)) for _ in range(connections)]
            while not all(connection.is_open for connection in dialled):
                await asyncio.sleep(0.1)
            sender.sends = True
            for connection in dialled:
                sender.writable(connection)

        await one.run(dial())
        await asyncio.sleep(warm_up_s)
        before = receiver.received_bytes.copy()
        await asyncio.sleep(SECONDS)
        after = receiver.received_bytes.copy()
        sender.sends = False
        for host, talker in ((one, sender), (two, receiver)):
            talker.comms.throttle(Rates())
            await host.run(talker.comms.close())
        return [after[number] - before[number] for number in after]

    return simulate(story, seed=1).value


@pytest.mark.parametrize("rate", [20_000.0, 200_000.0, 5e6])
@pytest.mark.parametrize("connections", [1, 7])
def test_all_together_send_at_the_set_rate(rate: float, connections: int) -> None:
    brought = received_in_10_s(connections, {"send_bytes_per_s": rate}, {})
    assert sum(brought) == pytest.approx(rate * SECONDS, rel=0.02)
    assert len(brought) == connections
    # Nobody starves: turns go round, and all packets are as large.
    assert max(brought) - min(brought) <= 2 * 1000 + 0.06 * rate


@pytest.mark.parametrize("rate", [50_000.0, 200_000.0, 5e6])
@pytest.mark.parametrize("connections", [1, 7])
def test_all_together_receive_at_the_set_rate(rate: float, connections: int) -> None:
    brought = received_in_10_s(connections, {}, {"receive_bytes_per_s": rate}, warm_up_s=1.0)
    assert sum(brought) == pytest.approx(rate * SECONDS, rel=0.02)
    assert len(brought) == connections
    assert max(brought) - min(brought) <= 2 * 1000 + 0.06 * rate


def test_a_slow_receiver_and_a_throttled_sender_do_not_block_each_other() -> None:
    brought = received_in_10_s(
        3, {"send_bytes_per_s": 4e6}, {"receive_bytes_per_s": 5e6}, warm_up_s=1.0
    )
    assert sum(brought) == pytest.approx(4e6 * SECONDS, rel=0.02)


def test_a_low_rate_is_a_trickle_and_not_a_flood_now_and_then() -> None:
    """Whoever is silent for seconds is taken for dead."""

    async def story(network: Network, here: Node, there: Node) -> None:
        there.throttle(receive_bytes_per_s=20_000)
        for arrived in await a_trickle(network, here, there, every_s=0.5):
            assert arrived == pytest.approx(10_000, rel=0.2)

    with_nodes(story)


def test_a_low_rate_is_a_trickle_also_on_a_path_that_has_been_fast() -> None:
    """Packets of several chunks are for those that are."""

    async def story(network: Network, here: Node, there: Node) -> None:
        assert await seconds_for(network, here, there.node_id, 4_000_000) < 2
        here.throttle(send_bytes_per_s=20_000)
        assert min(await a_trickle(network, here, there, every_s=1)) > 0

    with_nodes(story)


# Through the API of a node


def node_on(host: Host, lookup: MemoryLookup, **settings: Any) -> Node:
    environment = Environment(host.elapsed, host.unix_time, host.entropy)
    node = Node(
        Identity.generate(host.entropy),
        listen=f"{host.addresses[0]}:4000",
        lookup=lookup,
        environment=environment,
        config=NodeConfig(**settings),
    )

    async def swallow(query: Incoming) -> bytes:
        return b""

    async def echo(query: Incoming) -> bytes:
        return query.body

    node.handle("swallow", swallow)
    node.handle("echo", echo)
    return node


def with_nodes(story: Any, **settings: Any) -> None:
    async def run(network: Network) -> None:
        one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")
        lookup = MemoryLookup(network.story.unix_time)
        here, there = node_on(one, lookup, **settings), node_on(two, lookup)
        await one.run(here.start())
        await two.run(there.start())
        await one.run(story(network, here, there))
        await two.run(there.close())
        await one.run(here.close())

    simulate(run, seed=1)


async def a_trickle(network: Network, here: Node, there: Node, *, every_s: float) -> list[int]:
    """What arrived in each of twenty periods of a query that takes 25 s at 20 kB/s."""
    slow = asyncio.ensure_future(seconds_for(network, here, there.node_id, 500_000))
    await asyncio.sleep(2)
    assert there._engine is not None
    (connection,) = there._engine.comms.all()
    marks = [connection.bytes_in]
    for _ in range(20):
        await asyncio.sleep(every_s)
        marks.append(connection.bytes_in)
    assert await slow == pytest.approx(25, rel=0.03)
    return [after - before for before, after in pairwise(marks)]


async def seconds_for(network: Network, node: Node, peer_id: NodeId, size: int) -> float:
    began = network.loop.now
    await node.query(peer_id, "swallow", bytes(size), hard_timeout_s=60)
    return network.loop.now - began


def test_node_throttle_holds_while_it_is_set_and_loses_nothing() -> None:
    async def story(network: Network, here: Node, there: Node) -> None:
        peer_id = there.node_id
        assert await here.query(peer_id, "echo", b"x") == b"x"
        assert await seconds_for(network, here, peer_id, 1_000_000) < 1
        here.throttle(send_bytes_per_s=100_000)
        assert await seconds_for(network, here, peer_id, 1_000_000) == pytest.approx(10, rel=0.03)
        here.throttle(send_bytes_per_s=500_000, receive_bytes_per_s=500_000)
        assert await seconds_for(network, here, peer_id, 1_000_000) == pytest.approx(2, rel=0.1)
        slow = asyncio.ensure_future(seconds_for(network, here, peer_id, 15_000_000))
        await asyncio.sleep(1)
        here.throttle()
        assert await slow < 3
        body = bytes(range(256)) * 1000
        assert await here.query(peer_id, "echo", body) == body

    with_nodes(story)


def test_a_config_throttles_from_the_beginning() -> None:
    async def story(network: Network, here: Node, there: Node) -> None:
        took_s = await seconds_for(network, here, there.node_id, 1_000_000)
        assert took_s == pytest.approx(10, rel=0.03)

    with_nodes(story, send_bytes_per_s=100_000.0)


def test_receiving_can_be_throttled_by_the_one_who_is_asked() -> None:
    async def story(network: Network, here: Node, there: Node) -> None:
        assert there._engine is not None
        there._engine.comms.throttle(Rates(receive=100_000.0))
        took_s = await seconds_for(network, here, there.node_id, 2_000_000)
        assert took_s == pytest.approx(20, rel=0.02)

    with_nodes(story)


def test_a_peer_can_be_throttled_alone() -> None:
    async def story(network: Network, here: Node, there: Node) -> None:
        here.throttle_peer(there.node_id, send_bytes_per_s=100_000)
        took_s = await seconds_for(network, here, there.node_id, 1_000_000)
        assert took_s == pytest.approx(10, rel=0.03)
        here.throttle_peer(there.node_id)
        assert await seconds_for(network, here, there.node_id, 1_000_000) < 1

    with_nodes(story)


@pytest.mark.parametrize(
    "limit", [{"peer_receive_bytes_per_s": 100_000.0}, {"peer_send_bytes_per_s": 100_000.0}]
)
def test_each_peer_has_the_configured_rate_whatever_others_take(limit: dict[str, float]) -> None:
    """A relay, say, and two of its clients: they bring it a megabyte each, or fetch it."""

    async def story(network: Network) -> None:
        lookup = MemoryLookup(network.story.unix_time)
        hosts = [network.host(f"host {number}", f"5.0.{number}.1") for number in range(3)]
        served, one, two = (
            node_on(host, lookup, **(limit if host is hosts[0] else {})) for host in hosts
        )
        for host, node in zip(hosts, (served, one, two), strict=True):
            await host.run(node.start())

        async def seconds(node: Node) -> float:
            began = network.loop.now
            await node.query(served.node_id, "echo", bytes(1_000_000), hard_timeout_s=60)
            return network.loop.now - began

        together = [hosts[1].run(seconds(one)), hosts[2].run(seconds(two))]
        assert await asyncio.gather(*together) == pytest.approx([10, 10], rel=0.03)

        async def trust_one() -> None:
            served.throttle_peer(one.node_id)

        await hosts[0].run(trust_one())
        together = [hosts[1].run(seconds(one)), hosts[2].run(seconds(two))]
        trusted_s, other_s = await asyncio.gather(*together)
        assert trusted_s < 1
        assert other_s == pytest.approx(10, rel=0.03)
        for host, node in zip(hosts, (served, one, two), strict=True):
            await host.run(node.close())

    simulate(story, seed=1)


def test_small_queries_get_through_beside_a_throttled_bulk() -> None:
    async def story(network: Network, here: Node, there: Node) -> None:
        here.throttle(send_bytes_per_s=200_000)
        bulk = asyncio.ensure_future(seconds_for(network, here, there.node_id, 2_000_000))
        await asyncio.sleep(1)
        for _ in range(5):
            began = network.loop.now
            assert await here.query(there.node_id, "echo", b"small") == b"small"
            assert network.loop.now - began < 0.5
        assert not bulk.done()
        assert await bulk == pytest.approx(10, rel=0.05)

    with_nodes(story)


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan"), True, "fast"])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    async def story(network: Network, here: Node, there: Node) -> None:
        for call in (here.throttle, lambda **rates: here.throttle_peer(there.node_id, **rates)):
            for name in ("send_bytes_per_s", "receive_bytes_per_s"):
                with pytest.raises(LocalProtocolError, match="rate"):
                    call(**{name: rate})

    with_nodes(story)

"""Peers that take nothing of what waits for them: they keep nobody else out. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egtp import Incoming, Node, NodeConfig
from egtp.channel.sealed import GOAWAY_CLOSING, ItemType, item, write_goaway
from egtp.queries.outgoing import Outgoing
from egtp.values.message import Query
from tests.lab import Lab, in_lab

MIB = 1024 * 1024
FEW = NodeConfig(connections_max=8)
"""Four are strangers'."""


def test_a_crowd_of_the_deaf_keeps_no_stranger_out() -> None:
    """Each asks for what it then does not read, and says something now and then."""

    async def story(lab: Lab) -> None:
        node, deaf = await lab.node(config=FEW), []

        @node.handler("much")
        async def much(_: Incoming) -> bytes:
            return bytes(8 * MIB)

        for _ in range(4):
            one = await lab.asker(node)
            await lab.query(one, node.node_id)
            await lab.hosts[one].run(ask_and_stop_reading(one, node))
            deaf.append(one)
        for _ in range(5):
            await asyncio.sleep(node.config.idle_timeout_s / 4)
            for one in deaf:
                await lab.hosts[one].run(say_something(one, node))
        await asyncio.sleep(2)
        engine: Any = node._engine
        assert len(engine.comms) == 4
        honest = await lab.asker(node)
        assert await lab.query(honest, node.node_id) == b"x"
        assert node.counters["connection closed: another stranger needs the place"] == 1

    async def ask_and_stop_reading(one: Node, node: Node) -> None:
        engine: Any = one._engine
        (connection,) = engine.comms.all()
        connection.pause_reading()
        query = Query(bytes(16), 900, "much", 60_000, 16 * MIB, b"")
        path = engine.book.find(node.node_id).direct
        path.queue(Outgoing(query.encode(), engine.now()))

    async def say_something(one: Node, node: Node) -> None:
        engine: Any = one._engine
        engine.book.find(node.node_id).direct.queue_control(item(ItemType.PONG, bytes(9)))

    in_lab(Lab, story)


@pytest.mark.parametrize("going_away", [False, True])
def test_a_path_where_much_waits_for_who_does_not_read_ends_when_there_is_another(
    going_away: bool,
) -> None:
    """What waits there is not moved, or looked at, each time that the peer opens a connection."""

    async def story(lab: Lab) -> None:
        node = await lab.node()
        deaf = await lab.asker(node)
        await lab.query(deaf, node.node_id)
        await lab.hosts[deaf].run(ask_much_and_stop_reading(deaf, node))
        await asyncio.sleep(1)
        engine: Any = node._engine
        peer = engine.book.find(deaf.node_id)
        (crowded,) = peer.paths
        assert crowded.outbox.messages > 1000
        await lab.hosts[deaf].run(open_another_connection(deaf, node))
        await asyncio.sleep(1)
        assert peer.direct is not crowded
        assert peer.paths == [peer.direct]
        assert node.counters["dropped: much waited where nobody read"] > 0

    async def ask_much_and_stop_reading(one: Node, node: Node) -> None:
        engine: Any = one._engine
        (connection,) = engine.comms.all()
        connection.pause_reading()
        path = engine.book.find(node.node_id).direct
        for number in range(100, 4000):
            query = Query(bytes(16), number, "echo", 60_000, 16 * MIB, bytes(1000))
            path.queue(Outgoing(query.encode(), engine.now()))
        if going_away:
            path.queue_control(item(ItemType.GOAWAY, write_goaway(GOAWAY_CLOSING, 1.0)))

    async def open_another_connection(one: Node, node: Node) -> None:
        engine: Any = one._engine
        peer = engine.book.find(node.node_id)
        await engine.reacher.renew(peer, peer.direct)

    in_lab(Lab, story)


def test_whoever_opens_connections_and_closes_none_has_few_paths() -> None:
    """With 200 of them, 12,000 cancels, which fit into a packet, took half a second."""

    async def story(lab: Lab) -> None:
        node = await lab.node()
        asker = await lab.asker(node, config=NodeConfig(connections_per_peer_max=100))
        await lab.query(asker, node.node_id)
        for _ in range(30):
            await lab.hosts[asker].run(open_another_connection(asker, node))
        engine: Any = node._engine
        peer = engine.book.find(asker.node_id)
        assert node.counters["connection closed: its peer has newer ones"] > 20
        assert len(peer.paths) <= 2 * node.config.connections_per_peer_max + 2

    async def open_another_connection(one: Node, node: Node) -> None:
        engine: Any = one._engine
        peer = engine.book.find(node.node_id)
        await engine.reacher.renew(peer, peer.direct)
        for connection in engine.comms.all():
            connection.pause_reading()  # and so does not see the end of any

    in_lab(Lab, story)


def test_what_waits_for_who_is_gone_keeps_no_path_through_a_relay() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        node = await lab.hidden(relay)

        @node.handler("much")
        async def much(_: Incoming) -> bytes:
            return bytes(8 * MIB)

        asker = await lab.asker(node)
        await lab.query(asker, node.node_id)
        await lab.open_query(asker, node.node_id, "much", hard_timeout_s=600)
        engine: Any = node._engine
        while not engine.book.find(asker.node_id).relayed.outbox:
            await asyncio.sleep(0.01)
        lab.hosts.pop(asker).crash()
        await asyncio.sleep(node.config.idle_timeout_s + 30)
        assert engine.book.find(asker.node_id).relayed is None
        assert node.counters["path given up: silent"] == 1

    in_lab(Lab, story)

"""Connections that nobody uses, and such whose other end is gone and could not say so.

In virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from egtp import EgtpError, Identity, NodeConfig
from tests.lab import Lab, in_lab
from tests.node.at_hand import Eventually, connections, direct_path


def play(story: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    in_lab(Lab, story)


def test_an_idle_connection_is_closed_and_a_used_one_is_not() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node()
        other = await lab.asker(node, config=NodeConfig(idle_timeout_s=120))
        await lab.query(other, node.node_id)
        await asyncio.sleep(110)
        assert connections(other) == connections(node) == 1
        await asyncio.sleep(20)
        assert connections(other) == connections(node) == 0
        query = await lab.open_query(other, node.node_id, "wait", hard_timeout_s=900)
        async with asyncio.timeout(2):
            await lab.called.wait()
        path = direct_path(other, node)
        await asyncio.sleep(600)
        assert direct_path(other, node) is path is not None
        assert connections(other) == connections(node) == 1
        query.cancel()

    play(story)


def test_of_idle_connections_a_relay_keeps_those_of_its_clients_alone() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True, config=NodeConfig(idle_timeout_s=30))
        client = await lab.hidden(relay)
        await lab.query(await lab.asker(relay), relay.node_id)
        assert connections(relay) == 2
        await asyncio.sleep(40)
        assert relay.connected == (client.node_id,)

    play(story)


def test_a_peer_that_lost_power_is_connected_until_it_is_asked_something() -> None:
    """As the guide says to whoever wants to show who is online."""

    async def story(lab: Lab) -> None:
        node = await lab.node()
        asked, unasked = await lab.asker(node), await lab.asker(node)
        for peer in (asked, unasked):
            await lab.query(peer, node.node_id)
            lab.hosts.pop(peer).crash()
        await asyncio.sleep(60)
        assert {asked.node_id, unasked.node_id} == set(node.connected)
        with pytest.raises(EgtpError):
            await lab.query(node, asked.node_id, hard_timeout_s=15)
        assert node.connected == (unasked.node_id,)
        await asyncio.sleep(NodeConfig().idle_timeout_max_s)
        assert not node.connected

    play(story)


def test_a_dead_socket_does_not_outlive_the_reconnect_of_a_restarted_peer(
    eventually: Eventually,
) -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node()
        who = Identity.generate(lab.host().entropy)
        first = await lab.asker(node, identity=who)
        await lab.query(first, node.node_id)
        assert await lab.query(node, first.node_id) == b"x"
        dead = direct_path(node, first)
        lab.hosts.pop(first).crash()
        # Nothing tells the node that the peer is gone, until it is there again.
        second = await lab.asker(node, identity=who)
        assert direct_path(node, second) is dead
        await lab.query(second, node.node_id)
        assert dead.closed
        assert await lab.query(node, second.node_id, hard_timeout_s=2) == b"x"
        await eventually(lambda: connections(node) == 1)

    play(story)


def test_a_dead_socket_does_not_outlive_the_reconnect_of_a_peer_that_moved() -> None:
    async def story(lab: Lab) -> None:
        node = await lab.node()
        peer = await lab.asker(node)
        await lab.query(peer, node.node_id)
        dead = direct_path(node, peer)
        lab.hosts[peer].change_ip("5.99.0.1")
        assert direct_path(node, peer) is dead
        assert not dead.closed
        await lab.query(peer, node.node_id)
        assert direct_path(node, peer) is not dead
        assert await lab.query(node, peer.node_id, hard_timeout_s=2) == b"x"

    play(story)

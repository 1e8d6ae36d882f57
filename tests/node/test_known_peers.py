"""Who is a stranger, and who is not: a crowd of strangers keeps nobody else out.

A node takes four connections, and two of strangers. Two strangers are there, and busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from discovery import StaticDiscovery
from egtp import EgtpError, Introduction, Node, NodeConfig, SignedCommRecord
from tests.lab import Lab, in_lab
from tests.node.at_hand import engine_of

TWO_OF_FOUR = NodeConfig(connections_max=4, strangers_share=0.5, relays_wanted=1)


class Crowded(Lab):
    """``node`` is the one that two strangers have come to."""

    async def fill(self, node: Node) -> None:
        self.strangers = [await self.asker(node) for _ in range(2)]
        self.waits = [
            asyncio.ensure_future(self.query(one, node.node_id, "wait", hard_timeout_s=60))
            for one in self.strangers
        ]
        await asyncio.sleep(1)

    async def is_let_in(self, peer: Node, node: Node) -> bool:
        """Whether it has a connection. (Early data is answered before it is asked who it is.)"""
        try:
            return await self.query(peer, node.node_id, hard_timeout_s=2, early=False) == b"x"
        except EgtpError:
            return False

    async def lose(self, node: Node) -> None:
        """All its connections, so that whoever wants something has to come again."""
        engine = engine_of(node)
        engine.comms.drop_all("a test")
        await asyncio.sleep(1)


def play(story: Callable[[Crowded], Coroutine[Any, Any, None]]) -> None:
    async def whole(lab: Crowded) -> None:
        await story(lab)
        for wait in lab.waits:
            wait.cancel()
        await asyncio.wait(lab.waits)

    in_lab(Crowded, whole)


def test_one_more_stranger_is_refused() -> None:
    async def story(lab: Crowded) -> None:
        node = await lab.node(config=TWO_OF_FOUR)
        await lab.fill(node)
        assert not await lab.is_let_in(await lab.asker(node), node)
        assert node.counters["connection refused: too many strangers"]

    play(story)


@pytest.mark.parametrize("with_record", [True, False])
def test_a_contact_is_no_stranger(with_record: bool) -> None:
    async def story(lab: Crowded) -> None:
        node = await lab.node(config=TWO_OF_FOUR)
        friend = await lab.asker(node)
        record: SignedCommRecord | str = friend.record
        node.add_contact(record if with_record else f"egtp:{friend.node_id}")
        await lab.fill(node)
        assert await lab.is_let_in(friend, node)

    play(story)


@pytest.mark.parametrize("sent", ["query", "send"])
def test_who_was_asked_earlier_is_no_stranger(sent: str) -> None:
    async def story(lab: Crowded) -> None:
        node = await lab.node(config=TWO_OF_FOUR)
        friend = await lab.node()
        if sent == "query":
            await lab.query(node, friend.node_id)
        else:
            await lab.hosts[node].run(node.send(friend.node_id, "echo"))
        await lab.lose(node)
        await lab.fill(node)
        assert await lab.is_let_in(friend, node)

    play(story)


def test_a_relay_that_was_introduced_is_no_stranger() -> None:
    async def story(lab: Crowded) -> None:
        relays = [await lab.node(relay_server=True) for _ in range(2)]
        discovery = StaticDiscovery(Introduction(one.node_id, one.record) for one in relays)
        node = await lab.node(config=TWO_OF_FOUR, discovery=discovery)
        await asyncio.sleep(1)
        (other,) = [relay for relay in relays if relay.node_id not in node.relays]
        await lab.fill(node)
        assert await lab.is_let_in(other, node)

    play(story)


def test_a_lease_at_a_relay_makes_no_stranger_known() -> None:
    """Or whoever takes one, and comes again, would be held by none of the limits of strangers."""

    async def story(lab: Crowded) -> None:
        relay = await lab.node(config=TWO_OF_FOUR, relay_server=True)
        for _ in range(2):
            await lab.hidden(relay)
        await lab.lose(relay)
        await asyncio.sleep(10)
        assert not await lab.is_let_in(await lab.asker(relay), relay)
        assert relay.counters["connection refused: too many strangers"]

    in_lab(Crowded, story)


def test_a_stranger_that_is_asked_is_none_any_more_and_leaves_its_place_to_another() -> None:
    async def story(lab: Crowded) -> None:
        node = await lab.node(config=TWO_OF_FOUR)
        await lab.fill(node)
        assert await lab.query(node, lab.strangers[0].node_id) == b"x"
        assert await lab.is_let_in(await lab.asker(node), node)
        assert not any(wait.done() for wait in lab.waits), "nobody had to go for it"

    play(story)


def test_a_crowd_of_strangers_does_not_make_a_node_forget_its_contacts() -> None:
    async def story(lab: Crowded) -> None:
        config = NodeConfig(peers_max=4, strangers_share=0.5)
        node = await lab.node(config=config, lookup=None)
        friend = await lab.node()
        node.add_contact(friend.record)
        lab.waits = [asyncio.ensure_future(asyncio.sleep(0, b""))]
        for _ in range(8):
            stranger = await lab.asker(node)
            assert await lab.is_let_in(stranger, node)
            await lab.close(stranger)
            lab.hosts.pop(stranger)
        assert await lab.query(node, friend.node_id) == b"x"

    play(story)

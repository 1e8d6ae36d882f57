"""What takes long to come through a relay is waited for as long as it comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import pytest

from egtp import Incoming, Node, NodeId
from simulations.virtual import Link
from tests.lab import Lab, in_lab

SLOW: Final = Link(latency=0.02, bandwidth_bytes_per_s=100_000)
"""Of a machine: just below a megabit a second, as over an old telephone line."""
KEPT, NOT_KEPT = 1_000_000, 5_000_000
"""Sizes of replies. The larger one is above what is remembered of one asker's answers."""


@dataclass
class Trio:
    """Somebody who asks, a relay, and who is reached through it."""

    asker: Node
    relay: Node
    asked: Node

    @property
    def relayed_bytes(self) -> int:
        assert self.relay.relay_server is not None
        return self.relay.relay_server.counters["relayed bytes"]


async def through_a_relay(lab: Lab, line: Link) -> Trio:
    relay = await lab.node(relay_server=True)
    asked, asker = await lab.hidden(relay), await lab.node(listens=False)

    @asked.handler("make")
    async def make(query: Incoming) -> bytes:
        return bytes(int(query.body))

    assert await lab.query(asker, asked.node_id) == b"x"
    for host in lab.hosts.values():
        host.degrade(line)
    return Trio(asker, relay, asked)


@pytest.mark.parametrize("size", [KEPT, NOT_KEPT])
def test_a_reply_that_is_coming_through_a_relay_is_not_asked_for_again(size: int) -> None:
    async def story(lab: Lab) -> None:
        trio = await through_a_relay(lab, SLOW)
        before = trio.relayed_bytes
        reply = await lab.query(
            trio.asker, trio.asked.node_id, "make", b"%d" % size, hard_timeout_s=200
        )
        assert len(reply) == size
        await asyncio.sleep(30)
        assert trio.relayed_bytes - before < 1.1 * size

    in_lab(Lab, story)


def test_replies_that_are_too_large_to_be_kept_wait_for_each_other_on_a_slow_line() -> None:
    """The first piece of the second is late, for the first one is under way."""

    async def story(lab: Lab) -> None:
        trio = await through_a_relay(lab, SLOW)
        peer_id, bodies = trio.asked.node_id, (b"%d" % NOT_KEPT, b"%d" % (NOT_KEPT + 1))

        async def ask(body: bytes) -> bytes:
            return await lab.query(trio.asker, peer_id, "make", body, hard_timeout_s=300)

        first = asyncio.ensure_future(ask(bodies[0]))
        await asyncio.sleep(5)
        sizes = [len(reply) for reply in (await ask(bodies[1]), await first)]
        assert sizes == [NOT_KEPT + 1, NOT_KEPT]

    in_lab(Lab, story)


def test_a_large_query_is_not_sent_again_while_it_is_leaving() -> None:
    async def story(lab: Lab) -> None:
        trio = await through_a_relay(lab, SLOW)
        before, body = trio.relayed_bytes, bytes(KEPT)
        reply = await lab.query(trio.asker, trio.asked.node_id, "echo", body, hard_timeout_s=200)
        assert reply == body
        await asyncio.sleep(30)
        assert trio.relayed_bytes - before < 2.1 * KEPT

    in_lab(Lab, story)


def test_what_queues_on_a_very_slow_line_is_not_taken_for_the_silence_of_the_peer() -> None:
    """All of a body at once would keep the line busy for longer than anybody waits for a word."""

    async def story(lab: Lab) -> None:
        line = Link(latency=0.02, bandwidth_bytes_per_s=30_000)
        trio = await through_a_relay(lab, line)
        body = bytes(300_000)
        reply = await lab.query(trio.asker, trio.asked.node_id, "echo", body, hard_timeout_s=100)
        assert reply == body
        assert trio.asker.counters["path given up: silent"] == 0

    in_lab(Lab, story)


def test_a_body_gets_through_where_the_relay_is_on_a_very_slow_line_itself() -> None:
    async def story(lab: Lab) -> None:
        line = Link(latency=0.02, bandwidth_bytes_per_s=10_000)
        trio = await through_a_relay(lab, line)
        body = bytes(100_000)
        reply = await lab.query(trio.asker, trio.asked.node_id, "echo", body, hard_timeout_s=80)
        assert reply == body
        for node in (trio.asker, trio.relay, trio.asked):
            assert node.counters["path given up: silent"] == 0

    in_lab(Lab, story)


@pytest.mark.reaches_in
def test_a_reply_whose_end_the_relay_has_lost_is_asked_for_again() -> None:
    async def story(lab: Lab) -> None:
        trio = await through_a_relay(lab, Link(latency=0.02))
        server = trio.relay.relay_server
        assert server is not None
        deliver, size = server._deliver, 100_000
        before, lost = trio.relayed_bytes, 0

        def lose_the_end(recipient: NodeId, sender: NodeId, packet: bytes, left_ms: int) -> None:
            nonlocal lost
            if trio.relayed_bytes - before + len(packet) > size and not lost:
                lost += len(packet)
            else:
                deliver(recipient, sender, packet, left_ms)

        server._deliver = lose_the_end  # type: ignore[method-assign]
        began_s = lab.now_s
        reply = await lab.query(trio.asker, trio.asked.node_id, "make", b"%d" % size)
        assert len(reply) == size
        assert lost
        assert lab.now_s - began_s < 8

    in_lab(Lab, story)

"""Whoever sends through a relay more than its recipient takes: others are not behind it. In virtual
time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egtp import Node, NodeConfig, RelayLimits
from egtp.channel.packet import DATA
from egtp.relay.wire import RELAY_KIND, Relay
from tests.lab import Lab, in_lab
from tests.node.at_hand import engine_of

RATE = 250_000
"""What the recipient takes, in bytes per second."""


async def flood(
    lab: Lab, relay: Node, recipient: Node, size: int = 32_000, rate: float = 4 * RATE
) -> None:
    """Four times as much as the recipient takes, or so much, for as long as it goes."""
    bad = await lab.asker(relay)
    relaying = engine_of(bad).relaying
    await lab.query(bad, relay.node_id)
    path = engine_of(bad).book.find(relay.node_id).best_path
    garbage = bytes((DATA, 1, 1, 0)) + bytes(size)
    body = Relay(recipient.node_id, 30_000, garbage).encode()

    async def send() -> None:
        while True:
            relaying.say(path, RELAY_KIND, body, 30_000)
            await asyncio.sleep(len(body) / rate)

    await lab.hosts[bad].run(send())


@pytest.mark.parametrize("flooders", [1, 3])
def test_who_floods_a_recipient_through_a_relay_keeps_nobody_else_from_it(flooders: int) -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        slow = await lab.hidden(relay, config=NodeConfig(receive_bytes_per_s=RATE))
        honest = await lab.asker(slow)
        await lab.query(honest, slow.node_id)
        floods = [asyncio.ensure_future(flood(lab, relay, slow)) for _ in range(flooders)]
        await asyncio.sleep(10)
        server: Any = relay.relay_server
        assert server.counters["dropped: the recipient is too slow"] > 0
        # Each has as much waiting there as it leaves free.
        full = RelayLimits().queue_bytes_max * flooders / (flooders + 1)
        assert 0.5 * full < engine_of(relay).relaying.queued_bytes(slow.node_id) <= full
        for _ in range(4):
            before_s = lab.now_s
            await lab.query(honest, slow.node_id, body=bytes(200), hard_timeout_s=10)
            assert lab.now_s - before_s < 1.5
        for one in floods:
            one.cancel()
        await asyncio.gather(*floods, return_exceptions=True)

    in_lab(Lab, story)


def test_sixty_strangers_with_large_packets_keep_nobody_from_a_slow_recipient() -> None:
    async def story(lab: Lab) -> None:
        relay = await lab.node(relay_server=True)
        slow = await lab.hidden(relay, config=NodeConfig(receive_bytes_per_s=RATE))
        honest, newcomer = await lab.asker(slow), await lab.asker(slow)
        await lab.query(honest, slow.node_id)
        floods = [
            asyncio.ensure_future(flood(lab, relay, slow, size=64_000, rate=2 * RATE / 60))
            for _ in range(60)
        ]
        await asyncio.sleep(20)
        assert engine_of(relay).relaying.queued_bytes(slow.node_id) > 30 * 64_000
        for asker in (honest, newcomer) * 3:
            before_s = lab.now_s
            await lab.query(asker, slow.node_id, body=bytes(200), hard_timeout_s=10)
            assert lab.now_s - before_s < 1.5
        for one in floods:
            one.cancel()
        await asyncio.gather(*floods, return_exceptions=True)

    in_lab(Lab, story)

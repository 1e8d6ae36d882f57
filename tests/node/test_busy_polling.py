"""Nodes that look for more before they sleep, on real sockets and in virtual time."""

from __future__ import annotations

import os
from typing import Any

from egtp import Environment, Identity, Incoming, MemoryLookup, Node, NodeConfig
from egtp.environment import give_way
from simulations.virtual import Fixed, Link, Network, run_in
from tests.node.at_hand import Config, Eventually, Start, echo


class Watched:
    """An environment that counts how often the loop was kept from sleeping."""

    def __init__(self) -> None:
        self.polls = self._polls_before = 0
        self.now_s = 0.0
        self.environment = Environment(elapsed=lambda: self.now_s, give_way=self._give_way)

    def _give_way(self) -> None:
        self.polls += 1

    def is_asleep(self) -> bool:
        """Whether nobody has polled since this was asked last."""
        before, self._polls_before = self._polls_before, self.polls
        return before == self.polls


async def test_a_reply_keeps_the_loop_awake_for_as_long_as_was_said(
    start: Start, config: Config, eventually: Eventually
) -> None:
    server, watched = await start(), Watched()
    server.handle("echo", echo)
    asker = await start(config=config(busy_poll_s=0.01), environment=watched.environment)
    assert await asker.query(server.node_id, "echo", b"body") == b"body"
    polls = watched.polls
    # By this clock no time passes.
    await eventually(lambda: watched.polls > polls + 100)
    watched.now_s += 0.011
    await eventually(watched.is_asleep)


async def test_a_reply_that_took_longer_lets_the_loop_sleep(
    start: Start, config: Config, eventually: Eventually
) -> None:
    server, watched = await start(), Watched()

    @server.handler("slow")
    async def slow(query: Incoming) -> bytes:
        watched.now_s += 0.011
        return query.body

    asker = await start(config=config(busy_poll_s=0.01), environment=watched.environment)
    await asker.query(server.node_id, "slow", b"body")
    await eventually(watched.is_asleep)
    polls = watched.polls
    for _ in range(10):
        await asker.query(server.node_id, "slow", b"body")
    assert watched.polls == polls


async def test_bodies_arrive_as_they_do_without(start: Start, config: Config) -> None:
    options: dict[str, Any] = {
        "config": config(busy_poll_s=0.001),
        "environment": Environment(give_way=give_way),
    }
    server, asker = await start(**options), await start(**options)
    server.handle("echo", echo)
    for size in (0, 100, 70_000):
        body = os.urandom(size)
        assert await asker.query(server.node_id, "echo", body) == body


def test_in_virtual_time_nobody_polls_for_time_would_stand_still() -> None:
    network = Network(1, link=Link(latency=Fixed(0.001)))

    async def story() -> bytes:
        lookup = MemoryLookup(network.story.unix_time)
        hosts = [network.host(f"host {number}", f"5.{number}.0.1") for number in (1, 2)]
        server, asker = (
            Node(
                Identity.generate(host.entropy),
                listen=f"5.{number}.0.1:4000",
                lookup=lookup,
                config=NodeConfig(busy_poll_s=0.01),
                environment=Environment(host.elapsed, host.unix_time, host.entropy),
            )
            for number, host in enumerate(hosts, 1)
        )
        server.handle("echo", echo)
        for host, node in zip(hosts, (server, asker), strict=True):
            await host.run(node.start())
            await host.run(node.published())
        reply = b""
        for body in (b"one", b"two"):
            reply = await hosts[1].run(asker.query(server.node_id, "echo", body))
        for host, node in zip(hosts, (server, asker), strict=True):
            await host.run(node.close())
        return reply

    assert run_in(network, story()).value == b"two"

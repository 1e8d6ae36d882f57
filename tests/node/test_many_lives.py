"""A program that is started again and again as the same peer, such as a monitor run by cron."""

from __future__ import annotations

import asyncio

from egtp import AnswerLimits, Environment, Identity, Incoming, MemoryLookup, Node, NodeConfig
from simulations.virtual import Host, Network, simulate

LIMITS = AnswerLimits(askers_max=64)


def test_a_peer_that_is_started_anew_each_minute_is_answered_in_each_of_its_lives() -> None:
    async def story(network: Network) -> None:
        here, there = network.host("here", "5.0.0.1"), network.host("there", "5.0.1.1")
        lookup = MemoryLookup(network.story.unix_time)

        def node_on(host: Host, identity: Identity, *listen: str) -> Node:
            return Node(
                identity,
                listen=listen,
                lookup=lookup,
                config=NodeConfig(relays_wanted=0, answers=LIMITS),
                environment=Environment(host.elapsed, host.unix_time, host.entropy),
            )

        answerer = node_on(there, Identity.generate(there.entropy), "5.0.1.1:4000")

        async def echo(query: Incoming) -> bytes:
            return query.body

        answerer.handle("echo", echo)
        await there.run(answerer.start())
        peer_id = answerer.node_id
        identity = Identity.generate(here.entropy)

        async def live() -> bytes:
            async with node_on(here, identity) as asker:
                return await asker.query(peer_id, "echo", b"1")

        for _ in range(2 * LIMITS.peer_askers_max):
            assert await here.run(live()) == b"1"
            await asyncio.sleep(60)

    simulate(story, seed=1)

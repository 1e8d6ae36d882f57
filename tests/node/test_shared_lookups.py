"""A record that one search looked up is there for every other."""

from __future__ import annotations

import asyncio

from egtp import Environment, Identity, Incoming, MemoryLookup, Node, NodeId
from egtp.lookup import Published
from egtp.values.comm_record import SignedCommRecord
from simulations.virtual import Host, Network, simulate


class Shared:
    """A lookup service whose answer somebody else has heard a moment earlier."""

    def __init__(self, inner: MemoryLookup) -> None:
        self._inner = inner
        self.asker: Node | None = None

    async def resolve(self, peer_id: NodeId, *, newer_than: int = 0) -> SignedCommRecord:
        record = await self._inner.resolve(peer_id, newer_than=newer_than)
        if self.asker is not None and peer_id != self.asker.node_id:
            self.asker.add_contact(record)
        return record

    async def publish(self, record: SignedCommRecord) -> Published:
        return await self._inner.publish(record)


def test_a_record_learned_from_somebody_else_meanwhile_is_tried_all_the_same() -> None:
    async def echo(query: Incoming) -> bytes:
        return query.body

    def environment(host: Host) -> Environment:
        return Environment(host.elapsed, host.unix_time, host.entropy)

    async def story(network: Network) -> None:
        one, two = network.host("one", "5.0.0.1"), network.host("two", "5.0.1.1")
        memory = MemoryLookup(network.story.unix_time)
        shared = Shared(memory)
        asker = Node(Identity.generate(one.entropy), lookup=shared, environment=environment(one))
        answerer = Node(
            Identity.generate(two.entropy),
            listen="5.0.1.1:4000",
            lookup=memory,
            environment=environment(two),
        )
        answerer.handle("echo", echo)
        shared.asker = asker
        await one.run(asker.start())
        await two.run(answerer.start())
        await asyncio.sleep(1)
        assert await one.run(asker.query(answerer.node_id, "echo", b"hi")) == b"hi"

    simulate(story, seed=1)

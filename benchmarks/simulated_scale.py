"""How many full nodes fit into the bottle: engine and DHT node each, encrypted, in virtual time.

``python benchmarks/simulated_scale.py [--nodes N,N,...] [--json FILE] [--svg FILE]``

All join and publish; then each resolves and queries another one that it has never heard of.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import egtp
from benchmarks.simulated_dht import LIMIT_S, SEEDS, Node, in_batches, other_than, world
from benchmarks.sizes import Stopwatch, sizes
from simulations.virtual import Network


class FullNode(Node):
    def __init__(self, network: Network, number: int, seeds: Sequence[str]) -> None:
        super().__init__(network, number, seeds)
        host = self.host
        self.node = egtp.Node(
            self.identity,
            listen=f"{self.address}:4000",
            lookup=self.lookup,
            config=egtp.NodeConfig(relays_wanted=0),
            environment=egtp.Environment(host.elapsed, host.unix_time, host.entropy),
        )
        self.node.handle("echo", echo)

    async def publish(self) -> None:
        await self.host.run(self.node.start())
        await self.host.run(self.node.published())

    async def ask(self, other: FullNode) -> bool:
        query = self.node.query(other.identity.node_id, "echo", b"hello")
        try:
            return await self.host.run(query) == b"hello"
        except egtp.EgtpError:
            return False


async def echo(query: egtp.Incoming) -> bytes:
    return query.body


async def story(network: Network, number_of_nodes: int, watch: Stopwatch) -> None:
    nodes: list[FullNode] = []
    for number in range(number_of_nodes):
        nodes.append(FullNode(network, number, [f"{node.address}:9000" for node in nodes[:SEEDS]]))
    for node in nodes[:SEEDS]:
        await node.join()
    await in_batches([node.join for node in nodes[SEEDS:]])
    await in_batches([node.publish for node in nodes])
    watch.lap("join")

    rng = random.Random(1)  # noqa: S311
    sent = sum(node.messages for node in nodes)
    pairs = [(node, other_than(node, nodes, rng)) for node in nodes]
    answered = await in_batches([lambda a=a, b=b: a.ask(b) for a, b in pairs])  # type: ignore[misc]
    watch.lap("ask")
    watch.figures["answered"] = sum(answered) / len(pairs)
    watch.figures["messages_per_lookup"] = (sum(n.messages for n in nodes) - sent) / len(pairs)


if __name__ == "__main__":
    sizes("full", "100,300,1000", story, world, limit_s=LIMIT_S)

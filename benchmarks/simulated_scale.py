"""How many full nodes, engine and DHT node, fit into the bottle: encrypted, in virtual time.

``python benchmarks/simulated_scale.py [--nodes N,N,...] [--json FILE] [--svg FILE]``

All nodes join and publish, then each resolves and queries another that it has never heard of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import egtp
from benchmarks.simulated_dht import LIMIT_S, Node, story, world
from benchmarks.sizes import sizes
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

    async def find(self, other: Node) -> bool:
        query = self.node.query(other.identity.node_id, "echo", b"hello")
        try:
            return await self.host.run(query) == b"hello"
        except egtp.EgtpError:
            return False


async def echo(query: egtp.Incoming) -> bytes:
    return query.body


if __name__ == "__main__":
    full = partial(story, kind=FullNode, publishing=1.0)
    sizes("full", "100,300,1000", full, world, limit_s=LIMIT_S)

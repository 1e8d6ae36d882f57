"""How many DHT nodes fit into the bottle, and how many messages a lookup takes among them.

``python benchmarks/simulated_dht.py [--nodes N,N,...] [--json FILE] [--svg FILE]``

All nodes join, a tenth of them publish a record each, then each node looks up one of those.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from benchmarks.sizes import Stopwatch, sizes
from egtp import Identity, LookupFailed, SignedCommRecord
from egtp.values.comm_record import CommRecord
from egtp.values.comm_strat import Address, TCPStrat
from lookup_dht import DHTLookup
from simulations.virtual import Host, Link, LogNormal, Network

BATCH = 50
"""How many nodes act at the same moment."""
SEEDS = 3
LIMIT_S = 24 * 3600.0


def address_of(number: int) -> str:
    """Each node has a /24 of its own, scattered all over: a node takes few contacts of one network,
    and its id follows from some bits of each byte of its address."""
    scattered = number * 40_503 % 2**16  # odd, so no two are the same
    return f"{11 + number % 64}.{scattered >> 8}.{scattered & 255}.{number * 101 % 254 + 1}"


class Node:
    def __init__(self, network: Network, number: int, seeds: Sequence[str]) -> None:
        self.address = address_of(number)
        self.host: Host = network.host(f"node-{number}", self.address)
        self.identity = Identity.generate(self.host.entropy)
        self.lookup = DHTLookup(
            f"{self.address}:9000",
            seeds,
            unix_time=self.host.unix_time,
            elapsed=self.host.elapsed,
            entropy=self.host.entropy,
        )

    async def join(self) -> None:
        await self.host.run(self.lookup.start())

    async def publish(self) -> None:
        content = CommRecord(
            int(self.host.unix_time()) + 7200,
            b"bottled!",
            ((1, self.identity.channel_key),),
            (TCPStrat(Address.parse(f"{self.address}:4000")),),
        )
        await self.host.run(self.lookup.publish(SignedCommRecord.sign(self.identity, 1, content)))

    async def find(self, other: Node) -> bool:
        try:
            return await self.host.run(self.lookup.resolve(other.identity.node_id)) is not None
        except LookupFailed:
            return False

    @property
    def messages(self) -> int:
        """How many messages it has sent so far to find something."""
        counts = self.lookup.counters.items()
        return sum(count for name, count in counts if name.startswith("sent_find"))


async def story(
    network: Network,
    number_of_nodes: int,
    watch: Stopwatch,
    *,
    kind: type[Node] = Node,
    publishing: float = 0.1,
) -> None:
    """``publishing`` is the share of the nodes that publish a record."""
    nodes: list[Node] = []
    for number in range(number_of_nodes):
        nodes.append(kind(network, number, [f"{node.address}:9000" for node in nodes[:SEEDS]]))
    for node in nodes[:SEEDS]:
        await node.join()
    await in_batches([node.join for node in nodes[SEEDS:]])
    # A record is stored by the nodes closest to it at the time. If it were published while the
    # network grows sixfold in a minute, it could be found only once it is published again.
    known = nodes[: max(50, round(number_of_nodes * publishing))]
    await in_batches([node.publish for node in known])
    watch.lap("join")

    rng = random.Random(1)  # noqa: S311
    sent = sum(node.messages for node in nodes)
    pairs = [(node, other_than(node, known, rng)) for node in nodes]
    found = await in_batches([lambda a=a, b=b: a.find(b) for a, b in pairs])  # type: ignore[misc]
    watch.lap("ask")
    watch.figures["answered"] = sum(found) / len(pairs)
    watch.figures["messages_per_lookup"] = (sum(n.messages for n in nodes) - sent) / len(pairs)


def other_than(node: Node, known: Sequence[Node], rng: random.Random) -> Node:
    return next(other for other in rng.sample(known, 2) if other is not node)


async def in_batches(work: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> list[Any]:
    results: list[Any] = []
    for start in range(0, len(work), BATCH):
        results += await asyncio.gather(*(make() for make in work[start : start + BATCH]))
    return results


def world() -> Network:
    return Network(1, link=Link(latency=LogNormal(0.03, 0.3)))


if __name__ == "__main__":
    sizes("DHT", "100,300,1000,3000", story, world, limit_s=LIMIT_S)

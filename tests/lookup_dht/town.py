"""A town of DHT nodes in virtual time, each in a network of its own, for stories of networks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

from egtp.errors import LookupFailed
from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from egtp.values.identity import Identity
from lookup_dht import DHTLookup
from simulations.virtual import Host, Link, LogNormal, Network, run_in

__all__ = ["Story", "Town", "distance", "tell"]

Story = Callable[["Town"], Coroutine[None, None, None]]


class Town:
    """DHT nodes, each in a network of its own, and peers who publish."""

    def __init__(self, seed: int) -> None:
        self.network = Network(seed, link=Link(latency=LogNormal(0.03, 0.3)))
        self.rng = random.Random(seed)
        self.hosts: list[Host] = []
        self.nodes: list[DHTLookup] = []

    def add(self, address: str | None = None) -> int:
        number = len(self.hosts)
        address = address or f"11.{number // 250}.{number % 250}.1"
        host = self.network.host(f"node-{number}", address)
        self.nodes.append(self._node_on(host))
        self.hosts.append(host)
        return number

    def _node_on(self, host: Host) -> DHTLookup:
        seeds = [f"{it.addresses[0]}:9000" for it in self.hosts[:3]]
        return DHTLookup(
            f"{host.addresses[0]}:9000", seeds, unix_time=host.unix_time, elapsed=host.elapsed,
            entropy=host.entropy,
        )  # fmt: skip

    async def everywhere(self, number: int, seeds: list[str]) -> DHTLookup:
        """Start a node that is not told its address."""
        host = self.hosts[number]
        self.nodes[number] = node = DHTLookup(
            "0.0.0.0:9000", seeds, unix_time=host.unix_time, elapsed=host.elapsed,
            entropy=host.entropy,
        )  # fmt: skip
        await host.run(node.start())
        return node

    async def restart(self, number: int) -> None:
        """Without its state: it has another id then."""
        host = self.hosts[number]
        host.kill()
        self.nodes[number] = node = self._node_on(host)
        await host.run(node.start())

    async def grow(self, count: int, batch: int = 25) -> None:
        numbers = [self.add() for _ in range(count)]
        for number in numbers[:3]:
            await self.hosts[number].run(self.nodes[number].start())
        for first in range(3, count, batch):
            await asyncio.gather(
                *(
                    self.hosts[number].run(self.nodes[number].start())
                    for number in numbers[first : first + batch]
                )
            )

    def identity(self) -> Identity:
        return Identity.generate(self.rng.randbytes)

    def sign(self, identity: Identity, sequence: int, lifetime_s: int = 7200) -> SignedCommRecord:
        expiry = int(self.hosts[0].unix_time()) + lifetime_s
        content = CommRecord(expiry, bytes(8), ((SUITE_AESGCM, identity.channel_key),), ())
        return SignedCommRecord.sign(identity, sequence, content)

    async def publish(self, number: int, record: SignedCommRecord) -> int:
        published = await self.hosts[number].run(self.nodes[number].publish(record))
        return published.stored

    async def resolve(self, number: int, identity: Identity, **how: bool) -> int:
        """The sequence; 0 if nothing is found."""
        call = self.nodes[number].resolve(identity.node_id, **how)
        try:
            return (await self.hosts[number].run(call)).sequence
        except LookupFailed:
            return 0

    def held_by_the_closest(self, peer: Identity) -> int:
        """How many of the twenty nodes closest to the peerId hold its record."""
        key = bytes(peer.node_id)
        near = sorted(self.nodes, key=lambda node: distance(node.node_id, key))[:20]
        return sum(node._node.storage.held(key) is not None for node in near)

    def total(self, *names: str) -> int:
        return sum(node.counters[name] for node in self.nodes for name in names)


def tell(story: Story, seed: int = 1, limit_s: float = 20_000) -> Town:
    town = Town(seed)
    run_in(town.network, story(town), limit_s=limit_s)
    return town


def distance(node_id: bytes, key: bytes) -> int:
    return int.from_bytes(node_id, "big") ^ int.from_bytes(key, "big")

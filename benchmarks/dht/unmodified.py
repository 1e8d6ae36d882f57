"""The ``kademlia`` package as it is, in the same worlds; and with one mend, without which it does
not survive the measurement.

As it is, a node hands a record on to whoever it takes for new, and takes all those for new whom a
full bucket has no place for: from two records on, the STOREs multiply for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from kademlia.crawling import ValueSpiderCrawl
from kademlia.network import Server
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from benchmarks.dht.members import PORT, Member
from egtp import NodeId, SignedCommRecord
from simulations.virtual import Host

__all__ = ["StormFreeProtocol", "StormFreeServer", "StormFree", "Unmodified", "quiet", "value_of"]


class StormFreeProtocol(KademliaProtocol):  # type: ignore[misc]
    """A new contact is taken in and handed nothing."""

    def welcome_if_new(self, node: Node) -> None:
        if self.router.is_new_node(node):
            self.router.add_contact(node)


class StormFreeServer(Server):  # type: ignore[misc]
    protocol_class = StormFreeProtocol


class Unmodified(Member):
    """Not a line of it is changed. It has no ``get`` by digest: that is put together of its own
    parts."""

    label = "kademlia"
    server_class: type[Server] = Server

    def __init__(
        self, host: Host, seeds: Sequence[str], port: int = PORT, node_id: bytes | None = None
    ) -> None:
        super().__init__(host, seeds, port)
        self.server = self.make_server(node_id or host.entropy(20))

    def make_server(self, node_id: bytes) -> Server:
        return self.server_class(node_id=node_id)

    @property
    def node_id(self) -> bytes:
        return bytes(self.server.node.id)

    async def join(self) -> None:
        await self.server.listen(self.port, self.address)
        if self.seeds:
            await self.server.bootstrap([(seed, PORT) for seed in self.seeds])

    async def put(self, record: SignedCommRecord) -> int:
        try:
            return int(await self.server.set_digest(bytes(record.peer_id), record.encode()))
        except ValueError:  # of max() of nothing, when all that it asked are dead
            return 0

    async def get(self, peer_id: NodeId, *, fresh: bool = False) -> bytes | None:
        del fresh
        return await value_of(self.server, bytes(peer_id))

    def held(self) -> Iterable[tuple[bytes, bytes]]:
        return list(self.server.storage)


class StormFree(Unmodified):
    """With the mend."""

    label = "kademlia, storms mended"
    server_class = StormFreeServer


async def value_of(server: Server, key: bytes) -> bytes | None:
    """What ``Server.get`` does, without hashing the key once more."""
    here = server.storage.get(key)
    if here is not None:
        return bytes(here)
    node = Node(key)
    nearest = server.protocol.router.find_neighbors(node)
    if not nearest:
        return None
    spider = ValueSpiderCrawl(server.protocol, node, nearest, server.ksize, server.alpha)
    found = await spider.find()
    return found if isinstance(found, bytes) else None


def quiet() -> None:
    """It logs a line for every datagram that gets lost."""
    for name in ("kademlia", "rpcudp"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)

"""Members: nodes of a DHT in a simulated world, whatever DHT it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from egtp import EgtpError, NodeId, SignedCommRecord
from lookup_dht import DHTLookup
from lookup_dht.state.state_file import NodeState
from simulations.virtual import Host

__all__ = ["PORT", "Client", "Member", "Ours"]

PORT = 9000


class Member(ABC):
    """One node on a machine of its own. Everything but the constructor runs on that machine."""

    label: ClassVar[str]
    """What tables call the system."""

    def __init__(self, host: Host, seeds: Sequence[str], port: int = PORT) -> None:
        """``seeds`` are the addresses of those who were there before."""
        self.host = host
        self.seeds = seeds
        self.port = port

    @property
    def address(self) -> str:
        return self.host.addresses[0]

    @abstractmethod
    async def join(self) -> None:
        """Start, and meet the others."""

    @abstractmethod
    async def put(self, record: SignedCommRecord) -> int:
        """How many nodes are known to have stored it; 0 if the system says that it failed."""

    @abstractmethod
    async def get(self, peer_id: NodeId, *, fresh: bool = False) -> bytes | None:
        """What the system takes for the record. ``fresh``: ask for the newest, not the first."""

    @property
    @abstractmethod
    def node_id(self) -> bytes:
        """Its place in the network."""

    @abstractmethod
    def held(self) -> Iterable[tuple[bytes, bytes]]:
        """The (peerId, record) pairs that it stores."""


class Ours(Member):
    """A :class:`DHTLookup`."""

    label = "ours"
    server = True

    def __init__(
        self, host: Host, seeds: Sequence[str], port: int = PORT, node_id: bytes | None = None
    ) -> None:
        """``node_id``: of an earlier run, as it were. Nodes choose their own otherwise."""
        super().__init__(host, seeds, port)
        self.lookup = DHTLookup(
            f"{self.address}:{port}",
            [f"{seed}:{PORT}" for seed in seeds],
            server=self.server,
            state=None if node_id is None else NodeState(node_id, "main"),
            unix_time=host.unix_time,
            elapsed=host.elapsed,
            entropy=host.entropy,
        )

    async def join(self) -> None:
        await self.lookup.start()

    async def put(self, record: SignedCommRecord) -> int:
        try:
            return (await self.lookup.publish(record)).stored
        except EgtpError:
            return 0

    async def get(self, peer_id: NodeId, *, fresh: bool = False) -> bytes | None:
        try:
            return (await self.lookup.resolve(peer_id, fresh=fresh)).encode()
        except EgtpError:
            return None

    @property
    def node_id(self) -> bytes:
        return self.lookup.node_id

    def held(self) -> Iterable[tuple[bytes, bytes]]:
        return self.lookup.state.records


class Client(Ours):
    """One that others cannot reach: it asks, and stays out of their tables."""

    server = False

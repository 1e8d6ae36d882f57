"""How a packet arrived, and what the channels report to their node."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from egtp.channel.sealed import Sealed
from egtp.errors import NotSent
from egtp.paths.path import Path, PathOwner
from egtp.queries.early import Early
from egtp.values.attempts import AttemptReason
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Address, Carrier, CommStrat
from egtp.values.identity import NodeId

__all__ = ["Arrival", "ChannelEvents"]


class Arrival(NamedTuple):
    """How a packet arrived: the strategy that leads back to its sender, and what carries it."""

    strategy: CommStrat
    carrier: Carrier
    observed: Address | None = None
    """The other end's address, on a TCP connection."""

    @property
    def connection(self) -> int | None:
        return self.strategy.connection

    @property
    def relayed(self) -> bool:
        return self.strategy.relayed

    def answer(self, packet: bytes) -> None:
        """Send a packet back. Raises :class:`NotSent` if it cannot leave that way, or if the relay
        takes no more: of all answers, only those to its own queries may wait for it."""
        if self.relayed and not self.carrier.takes_more(self.strategy):
            raise NotSent(AttemptReason.BUFFER_FULL)
        self.strategy.send(packet, self.carrier)


class ChannelEvents(PathOwner, Protocol):
    """What the channels tell the node, and ask it."""

    def own_record(self) -> SignedCommRecord:
        """The record with which this node introduces itself."""

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        """The newest record known of a peer."""

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here wants, or has wanted, to reach the peer; others are strangers."""

    def is_welcome(self, peer_id: NodeId) -> bool:
        """Whether the application lets the peer begin a session."""

    def learned_record(self, record: SignedCommRecord) -> None:
        """The record of a peer that has proven itself, or a newer one that the peer sent."""

    def admits(self, path: Path) -> bool:
        """Whether there is room for a path whose peer has just proven itself. If not, nothing is
        learned from the peer, and the path is closed without a word."""

    def confirmed(self, path: Path) -> None:
        """The peer at the other end of ``path`` has proven that it is alive."""

    def opened(self, path: Path, sealed: Sealed, transit_ms: int) -> None:
        """A packet of a confirmed path was opened, or early data of an unconfirmed one accepted."""

    def takes_early(self, kind: str) -> bool:
        """Whether a query of that kind may run before its sender has proven that it is alive."""

    def early_accepted(self, path: Path, early: Early) -> None:
        """The peer accepted the early data of a dial, and answers it on ``path``."""

    def session_unknown(self, path: Path) -> None:
        """The other end of a relayed path claims not to know the session."""

    def reject(self, arrival: Arrival) -> None:
        """What arrived is useless: close the connection it came by."""

    def dialled_back(self, peer_id: NodeId, token: bytes, arrival: Arrival) -> None:
        """A proven peer shows the token of a request to be dialled. It may be a replay."""

    def dialled_ourselves(self, arrival: Arrival) -> None:
        """A handshake turned out to be with this very node."""

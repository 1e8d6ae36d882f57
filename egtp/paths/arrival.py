"""How packets come, and who hears of what was in them."""

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
    """How a packet came: the strategy that leads back, and who is said to have sent it."""

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
        takes no more: what it did not ask for by a query of its own is not kept for it."""
        if self.relayed and not self.carrier.takes_more(self.strategy):
            raise NotSent(AttemptReason.BUFFER_FULL)
        self.strategy.send(packet, self.carrier)


class ChannelEvents(PathOwner, Protocol):
    """What the node wants to hear."""

    def own_record(self) -> SignedCommRecord:
        """The record to introduce ourselves with."""

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        """The newest record known of a peer."""

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has to do with the peer; others are strangers."""

    def learned_record(self, record: SignedCommRecord) -> None:
        """A peer proved itself, and this is its record, or a newer one that it gave."""

    def admits(self, path: Path) -> bool:
        """The peer at the other end of ``path`` has just proven itself: whether there is room for
        one more. If not, nothing is learned from it, and it is closed without a word."""

    def confirmed(self, path: Path) -> None:
        """The peer at the other end of ``path`` is proven and lives."""

    def opened(self, path: Path, sealed: Sealed, transit_ms: int) -> None:
        """A packet of a confirmed path was opened; or early data of an unconfirmed one was
        accepted."""

    def takes_early(self, kind: str) -> bool:
        """Whether a query of that kind may be run before its sender has proven that he lives."""

    def early_accepted(self, path: Path, early: Early) -> None:
        """The peer has accepted the early data of a dial, and answers it on ``path``."""

    def session_unknown(self, path: Path) -> None:
        """The other end of a relayed path says that it does not know the session."""

    def reject(self, arrival: Arrival) -> None:
        """What came is of no use: close the connection it came by."""

    def dialled_back(self, peer_id: NodeId, token: bytes, arrival: Arrival) -> None:
        """A proven peer shows the token of a question to be dialled. It may be a recording."""

    def dialled_ourselves(self, arrival: Arrival) -> None:
        """A handshake turned out to be with this very node."""

"""RelayServer: pushes packets down to peers that nobody can connect to (seed II.B, R13, R14)."""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from egtp.channel.packet import INITIATION, INITIATION_BYTES_MIN
from egtp.errors import InvalidMessage, Refusal
from egtp.relay.leases import Leases, RelayLimits
from egtp.relay.wire import (
    DELIVERY_KIND,
    HINT_KIND,
    NO_LEASE,
    TOO_MUCH,
    Delivery,
    Hint,
    Relay,
    decode_lease,
    digest_of,
    encode_lease,
)
from egtp.values.identity import NodeId
from egtp.values.message import ReplyCode

__all__ = ["RelayHost", "RelayServer"]


class RelayHost(Protocol):
    """What a relay server needs from its node."""

    def now(self) -> float:
        """Elapsed seconds."""

    def queued_bytes(self, peer_id: NodeId) -> int | None:
        """How many bytes wait on the peer's own confirmed connection; None if there is none."""

    def queued_bytes_of(self, sender: NodeId, peer_id: NodeId) -> int:
        """How many of these are to be passed on for one sender."""

    def push(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        lifetime_ms: int,
        sender: NodeId | None = None,
    ) -> None:
        """Send a message down the peer's own connection: a packet of ``sender``'s, behind its
        others, or else one of the relay's own. Never dials."""

    def may_push(self, peer_id: NodeId, size: int) -> bool:
        """Whether there is memory for ``size`` more to wait for the peer, which may not read."""

    def is_stranger(self, peer_id: NodeId) -> bool:
        """Whether nobody here has queried or named the peer."""


class RelayServer:
    """A node's relay server. It delivers only to peers with a lease, or with a connection here."""

    def __init__(self, host: RelayHost, limits: RelayLimits) -> None:
        self._host = host
        self._limits = limits
        self.leases: Final[Leases] = Leases(limits)
        self.counters: Counter[str] = Counter()
        """``relayed packets``, ``relayed bytes``, ``held packets``, and each reason for a drop."""

    def lease(self, peer_id: NodeId, body: bytes) -> bytes:
        """Answer a query for a lease. Raises :class:`Refusal` with the code to answer.

        What was held was delivered already, when the connection came that this was asked over.
        """
        try:
            wanted_s = decode_lease(body)
        except InvalidMessage as error:
            raise Refusal(ReplyCode.REFUSED, str(error).encode()) from None
        granted_s = self.leases.grant(
            peer_id,
            wanted_s,
            self._host.now(),
            is_here=self._host.queued_bytes(peer_id) is not None,
            stranger=self._host.is_stranger(peer_id),
        )
        if wanted_s and not granted_s:
            self.counters["lease refused: full"] += 1
            raise Refusal(ReplyCode.BUSY)
        return encode_lease(int(granted_s))

    def relay(self, sender: NodeId, body: bytes, age_ms: int) -> None:
        """Pass a packet on. ``age_ms`` is the age of the message that asks for it."""
        try:
            recipient, lifetime_ms, packet = Relay.decode(body)
        except InvalidMessage:
            self.counters["dropped: not a relay message"] += 1
            return
        left_ms = lifetime_ms - age_ms
        if left_ms <= 0:
            self.counters["dropped: too old"] += 1
            return
        queued_bytes = self._host.queued_bytes(recipient)
        if queued_bytes is not None:
            if not self._passes(sender, recipient, queued_bytes, len(packet)):
                self._refuse(sender, packet, TOO_MUCH, "dropped: the recipient is too slow")
                return
            self._deliver(recipient, sender, packet, left_ms)
            return
        if not self.leases.has(recipient, self._host.now()):
            self._refuse(sender, packet, NO_LEASE, "dropped: no lease")
        elif packet[:1] != bytes((INITIATION,)) or len(packet) < INITIATION_BYTES_MIN:
            # Sealed in a session that the recipient may no longer have when it is back; or too
            # short for an initiation, so it would only take others' room.
            self._refuse(sender, packet, NO_LEASE, "dropped: the recipient is away")
        else:
            self._hold(recipient, sender, packet, left_ms / 1000)

    def _hold(self, recipient: NodeId, sender: NodeId, packet: bytes, lifetime_s: float) -> None:
        gone = self.leases.hold(
            recipient,
            sender,
            packet,
            lifetime_s,
            self._host.now(),
            stranger=self._host.is_stranger(sender),
        )
        if gone is None:
            self._refuse(sender, packet, TOO_MUCH, "dropped: mailbox full")
            return
        self.counters["held packets"] += 1
        for held in gone:
            self._refuse(held.sender, held.packet, TOO_MUCH, "dropped: made way in a mailbox")

    def came_back(self, peer_id: NodeId) -> None:
        """A peer is connected: deliver what was held for it."""
        if self._host.queued_bytes(peer_id) is None:
            return
        now = self._host.now()
        for held in self.leases.collect(peer_id, now):
            self._deliver(peer_id, held.sender, held.packet, int((held.deadline_s - now) * 1000))

    def _deliver(self, recipient: NodeId, sender: NodeId, packet: bytes, left_ms: int) -> None:
        self.counters["relayed packets"] += 1
        self.counters["relayed bytes"] += len(packet)
        body = Delivery(sender, packet).encode()
        self._host.push(recipient, DELIVERY_KIND, body, left_ms, sender)

    def _refuse(self, sender: NodeId, packet: bytes, code: int, reason: str) -> None:
        self.counters[reason] += 1
        # A hint lets an honest sender try the next relay at once; nobody has to believe it.
        hint = Hint(digest_of(packet), code).encode()
        queued_bytes = self._host.queued_bytes(sender)
        if queued_bytes is None or queued_bytes > self._limits.queue_bytes_max:
            return
        if self._host.may_push(sender, len(hint)):
            self._host.push(sender, HINT_KIND, hint, 5000)

    def _passes(self, sender: NodeId, recipient: NodeId, queued_bytes: int, size: int) -> bool:
        """Whether the queue takes a packet. No sender may have more waiting there than stays free:
        so one alone fills half of the queue, and however many there are, they leave a newcomer as
        much as each of them has."""
        own_bytes = self._host.queued_bytes_of(sender, recipient) + size
        fits = not queued_bytes or queued_bytes + own_bytes <= self._limits.queue_bytes_max
        return fits and self._host.may_push(recipient, size)

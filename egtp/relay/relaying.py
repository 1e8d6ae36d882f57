"""The node's three roles in relaying, wired to its paths: sending through relays, being reached
through them (:mod:`egtp.relay.listener`), and being one (:mod:`egtp.relay.server`) (R14)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from egtp.channel.packet import INITIATION, is_initiation_for
from egtp.errors import InvalidMessage, NotSent
from egtp.handling.handlers import Incoming
from egtp.limits.accept_limits import RelayedInitiations
from egtp.paths.arrival import Arrival
from egtp.paths.path import Path
from egtp.queries.early import TOO_LATE
from egtp.queries.outgoing import PassedOn
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.relay.listener import RelayListener
from egtp.relay.server import RelayServer
from egtp.relay.wire import (
    DELIVERY_KIND,
    HINT_KIND,
    NO_LEASE,
    RELAY_KIND,
    Delivery,
    Hint,
    Relay,
    digest_of,
)
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.canonical import pack
from egtp.values.comm_record import SUITE_AESGCM, SignedCommRecord
from egtp.values.comm_strat import Carrier, RelayStrat, in_turns
from egtp.values.identity import NodeId
from egtp.values.message import Send

__all__ = ["Relaying", "RelayingHost"]

HINTS_MAX: Final = 3
INITIATION_LIFETIME_MS: Final = 5_000
"""How long a relay may hold an initiation: a little longer than its sender waits."""
DATA_LIFETIME_MS: Final = 30_000


class RelayingHost(Protocol):
    """What relaying needs from its node."""

    @property
    def counters(self) -> Counter[str]: ...

    @property
    def book(self) -> PeerBook: ...

    def now(self) -> float: ...

    def nonce(self) -> bytes: ...

    def carrier(self, peer_id: NodeId) -> Carrier: ...

    def receive_packet(self, packet: bytes, arrival: Arrival) -> None: ...

    def lose_path(self, path: Path, reason: str) -> None: ...

    def may_wait(self, path: Path, size: int) -> bool:
        """Whether ``size`` more may wait on a path, given what waits on all others."""


class Relaying:
    """Moves packets through relays."""

    def __init__(
        self, host: RelayingHost, channel_key: bytes, initiations: RelayedInitiations
    ) -> None:
        """``channel_key`` is this node's own."""
        self._host = host
        self.now: Final = host.now
        self._channel_key = channel_key
        self._initiations = initiations
        self.listener: RelayListener | None = None
        self.server: RelayServer | None = None
        self._used: set[NodeId] = set()
        """Relays that this node sends through: the answers come back through them."""
        self._ways: dict[NodeId, tuple[SignedCommRecord, RelayStrat]] = {}
        """The strategy "through this relay" of each, and the record that it was made from."""
        self._expected_hints: dict[bytes, Callable[[Cause], None]] = {}

    # Sending

    def send(
        self, relay_id: NodeId, recipient: NodeId, packet: bytes, until_s: float | None = None
    ) -> None:
        """Ask a relay to pass a packet on, by ``until_s`` at the latest: it must not hold a query
        beyond its hard timeout (R24). Raises :class:`NotSent`."""
        path = self._path_to(relay_id)
        if path is None:
            raise NotSent(AttemptReason.RELAY_LOST)
        first = packet[:1] == bytes((INITIATION,))
        lifetime_ms = INITIATION_LIFETIME_MS if first else DATA_LIFETIME_MS
        if until_s is not None:
            lifetime_ms = min(lifetime_ms, math.ceil((until_s - self.now()) * 1000))
            if lifetime_ms <= 0:
                raise NotSent(TOO_LATE)
        self._used.add(relay_id)
        self.say(path, RELAY_KIND, Relay(recipient, lifetime_ms, packet).encode(), lifetime_ms)

    def takes_more(self, relay_id: NodeId) -> bool:
        """Whether the way to the relay is free. True if it is gone: the write then fails."""
        path = self._path_to(relay_id)
        return path is None or path.is_writable

    def expect_hint(self, packet: bytes, tell: Callable[[Cause], None]) -> Callable[[], None]:
        """Have ``tell`` called if a relay that we send through says that it could not pass
        ``packet`` on. Returns a function that ends this."""
        digest = digest_of(packet)
        self._expected_hints[digest] = tell

        def forget() -> None:
            self._expected_hints.pop(digest, None)

        return forget

    def say(
        self, path: Path, kind: str, body: bytes, lifetime_ms: int, sender: NodeId | None = None
    ) -> None:
        """Send a relay message down a path: a packet passed on for ``sender``, or else a message of
        this node's own."""
        # The same bytes as of Send(...).encode().
        message = pack((3, self._host.nonce(), None, kind, lifetime_ms, body))
        packet = PassedOn(message, self.now(), sender)
        if sender is None:
            path.queue(packet)
        else:
            path.pass_on(packet)

    def _path_to(self, relay_id: NodeId) -> Path | None:
        relay = self._host.book.find(relay_id)
        return None if relay is None else relay.direct

    # Receiving

    def receive(self, path: Path, message: Send, age_ms: int) -> bool:
        """Take a send of one of the relay kinds. False if it is of another kind."""
        if message.kind not in (RELAY_KIND, DELIVERY_KIND, HINT_KIND):
            return False
        try:
            if path.relayed:
                # Otherwise relays could be chained, and a chain could be a loop.
                self._host.counters["dropped: a relay message inside a relay message"] += 1
            elif message.kind == RELAY_KIND:
                self._receive_relay(path, message, age_ms)
            elif message.kind == DELIVERY_KIND:
                self._receive_delivery(path, Delivery.decode(message.body))
            else:
                self._receive_hint(path, Hint.decode(message.body))
        except InvalidMessage as error:
            self._host.counters[f"dropped: {error}"] += 1
        return True

    def _receive_relay(self, path: Path, message: Send, age_ms: int) -> None:
        if self.server is None:
            self._host.counters["dropped: not a relay server"] += 1
        else:
            self.server.relay(path.peer_id, message.body, age_ms)

    def _receive_delivery(self, path: Path, delivery: Delivery) -> None:
        relay = self._host.book.find(path.peer_id)
        if not self.is_relay(path.peer_id) or relay is None:
            self._host.counters["dropped: delivery of a relay that was not chosen"] += 1
            return
        # Only an initiation for this node is costly: others are dropped further on, before any
        # key agreement.
        first = is_initiation_for(self._channel_key, delivery.packet)
        if first and not self._initiations.admit(path.peer_id, delivery.sender, self.now()):
            # An honest peer sends it again in a second.
            self._host.counters["dropped: too many handshakes through relays"] += 1
            return
        strategy = self._way_through(relay)
        if strategy is not None:
            arrival = Arrival(strategy, self._host.carrier(delivery.sender))
            self._host.receive_packet(delivery.packet, arrival)

    def _way_through(self, relay: Peer) -> RelayStrat | None:
        """Like :func:`strategy_of`, but the same object for the same record: paths compare them."""
        known = self._ways.get(relay.peer_id)
        if known is not None and known[0] is relay.record:
            return known[1]
        strategy = strategy_of(relay)
        if strategy is not None and relay.record is not None:
            self._ways[relay.peer_id] = relay.record, strategy
        return strategy

    def _receive_hint(self, path: Path, hint: Hint) -> None:
        tell = self._expected_hints.get(hint.digest)
        if tell is None or path.peer_id not in self._used:
            self._host.counters["dropped: hint about nothing we wait for"] += 1
            return
        knows_not = hint.code == NO_LEASE
        tell(Cause(AttemptReason.RELAY_KNOWS_NOT if knows_not else AttemptReason.RELAY_FULL))

    def is_relay(self, relay_id: NodeId) -> bool:
        """Whether this node chose the peer as a relay, or sends through it."""
        return relay_id in self._used or self.chose(relay_id)

    # Being a relay

    async def lease(self, incoming: Incoming) -> bytes:
        """The handler of queries for a lease."""
        assert self.server is not None  # noqa: S101 - registered together with the server
        return self.server.lease(incoming.peer_id, incoming.body)

    def _way_for_others(self, peer_id: NodeId) -> Path | None:
        peer = self._host.book.find(peer_id)
        return None if peer is None else peer.hears_by

    def queued_bytes(self, peer_id: NodeId) -> int | None:
        path = self._way_for_others(peer_id)
        return None if path is None else path.outbox.waiting_bytes

    def may_push(self, peer_id: NodeId, size: int) -> bool:
        path = self._way_for_others(peer_id)
        return path is not None and self._host.may_wait(path, size)

    def queued_bytes_of(self, sender: NodeId, peer_id: NodeId) -> int:
        path = self._way_for_others(peer_id)
        return 0 if path is None else path.outbox.waiting_of(sender)

    def push(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        lifetime_ms: int,
        sender: NodeId | None = None,
    ) -> None:
        path = self._way_for_others(peer_id)
        if path is not None:
            self.say(path, kind, body, lifetime_ms, sender)

    def is_stranger(self, peer_id: NodeId) -> bool:
        peer = self._host.book.find(peer_id)
        return peer is None or not peer.is_wanted

    # Paths

    def keeps(self, peer_id: NodeId) -> bool:
        """Whether the connection must stay: the peer is our relay, or we are the peer's."""
        return self.chose(peer_id) or (
            self.server is not None and self.server.leases.has(peer_id, self.now())
        )

    def chose(self, peer_id: NodeId) -> bool:
        """Whether the peer is, or is to become, a relay of this node."""
        return self.listener is not None and self.listener.chose(peer_id)

    @property
    def own_relays(self) -> tuple[NodeId, ...]:
        """The relays through which this node is reached."""
        return () if self.listener is None else self.listener.confirmed

    def connected(self, peer: Peer) -> None:
        """There is a direct path to a peer."""
        if self.server is not None:
            self.server.came_back(peer.peer_id)

    def end_lease(self, peer_id: NodeId) -> None:
        """The peer, or this node, has said that it hangs up: nothing is held for its return."""
        if self.server is not None:
            self.server.leases.end(peer_id)

    def disconnected(self, peer_id: NodeId) -> None:
        """There is no direct path any more by which a peer is reached through this node."""
        if self.server is not None:
            self.server.leases.left(peer_id)

    def relay_lost(self, peer_id: NodeId) -> None:
        """There is no direct path any more to a peer that may be a relay of this node, or it asked
        to be left alone."""
        was_relay = self.is_relay(peer_id)
        self._used.discard(peer_id)
        self._ways.pop(peer_id, None)
        for peer in self._host.book.all() if was_relay else ():
            path = peer.relayed
            if (
                path is None
                or not isinstance(path.strategy, RelayStrat)
                or path.strategy.relay_id != peer_id
            ):
                continue
            # All relays to one peer are one path, so the session goes on through another of them.
            others = peer.record.relays if peer.record is not None else ()
            live = [relay for relay in others if self._path_to(relay.relay_id) is not None]
            if live:
                path.reroute(live[0])
            else:
                self._host.lose_path(path, "the connection to the relay is gone")
        if self.listener is not None:
            self.listener.connection_lost(peer_id)


def strategy_of(relay: Peer) -> RelayStrat | None:
    """The strategy "through this relay", made from the relay's own record."""
    if relay.record is None or (channel_key := relay.record.channel_key()) is None:
        return None
    hints = tuple(in_turns(tcp.address for tcp in relay.record.tcp)[:HINTS_MAX])
    return RelayStrat(relay.record.key, SUITE_AESGCM, channel_key, hints)

"""Records: what this node knows of others by theirs, and what it tells them by its own."""

from __future__ import annotations

from collections import Counter
from typing import Final

from egtp.channel.sealed import ItemType, item
from egtp.engine.searching import Searching
from egtp.environment import Environment
from egtp.events import Observer, RecordLearned
from egtp.limits.throttle import TokenBucket
from egtp.own.own_record import OwnRecord
from egtp.own.publishing import Publisher
from egtp.reaching.peers import PeerBook
from egtp.reaching.strategy_choice import Backoff
from egtp.relay.relaying import Relaying, strategy_of
from egtp.values.comm_record import STRATEGIES_MAX, SignedCommRecord, claims_of
from egtp.values.comm_strat import Address, CommStrat, TCPStrat
from egtp.values.identity import NodeId

__all__ = ["Records"]

HANDSHAKE: Final = "handshake"
PUSHED: Final = "pushed by the peer"
PUSHES_PER_S: Final = 1.0
"""Of one peer: each is verified, which takes longer than to sign it. An honest one has news less
often, and whoever misses some of them finds it by a lookup or its next handshake."""
PUSHES_BURST_S: Final = 8.0
"""As a node starts, or changes its relays one by one."""


class Records:
    """Takes the news that records are, and makes this node's own of how it is reached."""

    def __init__(
        self,
        me: NodeId,
        own: OwnRecord,
        publisher: Publisher,
        book: PeerBook,
        backoff: Backoff,
        searching: Searching,
        relaying: Relaying,
        environment: Environment,
        counters: Counter[str],
        observer: Observer | None,
    ) -> None:
        self._me: Final = me
        self._own: Final = own
        self._publisher: Final = publisher
        self._book: Final = book
        self._backoff: Final = backoff
        self._searching: Final = searching
        self._relaying: Final = relaying
        self._environment: Final = environment
        self._counters: Final = counters
        self._observer: Final = observer
        self._addresses: tuple[Address, ...] = ()

    # Of others

    def known(self, peer_id: NodeId) -> SignedCommRecord | None:
        peer = self._book.find(peer_id)
        return None if peer is None else peer.record

    def came_in_handshake(self, record: SignedCommRecord) -> None:
        """A peer has shown it, and proven itself."""
        self.learn(record, HANDSHAKE)

    def came_pushed(self, peer_id: NodeId, data: bytes) -> None:
        """A peer says of itself, unasked, what is new. Raises :class:`RemoteProtocolError`."""
        owner, sequence = claims_of(data)
        peer, now = self._book.get(peer_id), self._environment.elapsed()
        if owner != peer_id:
            self._counters["dropped: pushed record of somebody else"] += 1
        elif peer.record is not None and sequence <= peer.record.sequence:
            # Whoever says the same again and again has no signature verified each time.
            self._counters["dropped: pushed record that is no news"] += 1
        elif peer.pushes is not None and now < peer.pushes.ready_s:
            # To sign a record takes less time than to verify it.
            self._counters["dropped: pushed record, too soon after others"] += 1
        else:
            if peer.pushes is None:
                peer.pushes = TokenBucket(PUSHES_PER_S, PUSHES_BURST_S, now)
            peer.pushes.take(1, now)
            self.learn(SignedCommRecord.decode(data), PUSHED)

    def learn(self, record: SignedCommRecord, source: str) -> bool:
        """Take a verified record. True if it is news."""
        if record == self._own.current:
            return False  # in a list of contacts that is given to all of them, for instance
        if record.peer_id == self._me:
            if self._own.saw(record.sequence):
                self._counters["this identity runs elsewhere"] += 1
                self._publisher.signed_anew()
                self._publisher.runs_elsewhere(record)
            return False
        if record.expired(self._environment.unix_time()) and source != "contact":
            self._counters["dropped: expired record"] += 1
            return False
        peer = self._book.get(record.peer_id)
        if not peer.learn(record, source, self._environment.elapsed()):
            return False
        counts = peer.is_wanted if source == HANDSHAKE else source != PUSHED
        if counts:
            # The peer has just said that it is there: what failed before says nothing any more. But
            # the addresses may be of a third party, so what a stranger says counts for nothing, nor
            # does what can be said again and again without a handshake.
            for strategy in record.tcp:
                self._backoff.worked(strategy.address)
        if peer.waiting and peer.best_path is None:
            self._searching.seek(peer)
        if record.tcp and peer.relayed is not None:
            # The peer may be reachable without its relays again; what is in flight stays there.
            self._searching.heard_where(peer)
        if self._observer is not None:
            self._observer(RecordLearned(record, source))
        return True

    # This node's own

    def own(self) -> SignedCommRecord:
        if self._own.current.expired(self._environment.unix_time()):
            # The machine was suspended past the renewal, for instance. If it cannot be signed now,
            # a handshake with the old one still makes a session.
            self._publisher.renew()
        return self._own.current

    def announce(self, addresses: tuple[Address, ...]) -> None:
        """This node listens at these addresses from now on."""
        self._addresses = addresses
        self.leases_changed()

    def leases_changed(self) -> None:
        """How this node is reached may have changed: if it has, tell everybody."""
        strategies: list[CommStrat] = [TCPStrat(address) for address in self._addresses]
        listener = self._relaying.listener
        for relay_id in listener.confirmed if listener is not None else ():
            relay = self._book.find(relay_id)
            strategy = strategy_of(relay) if relay is not None else None
            if strategy is not None:
                strategies.append(strategy)
        self._publisher.change(tuple(strategies[:STRATEGIES_MAX]))

    def push(self, record: SignedCommRecord) -> None:
        """Give this node's own to everybody who is connected."""
        data = item(ItemType.RECORD, record.encode())
        for peer in self._book.all():
            if peer.best_path is not None:
                peer.best_path.queue_control(data)

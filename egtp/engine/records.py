"""Records: what this node learns from those of others, and what it tells them in its own."""

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
NAMED: Final = ("contact", "discovery")
"""Whose peers the user has named. Where they were once is worth a dial if nobody knows anything
newer: without a DHT, or while none of it answers, a file of relays must not expire."""
PUSHES_PER_S: Final = 1.0
"""Per peer, since verifying a record takes longer than signing one. Honest peers have news less
often, and what is dropped is learned by a lookup or at the next handshake."""
PUSHES_BURST_S: Final = 8.0
"""Enough for a node that starts, or changes its relays one by one."""


class Records:
    """Takes in the records of others, and keeps this node's own up to date."""

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
        """A peer that has proven itself showed this record."""
        self.learn(record, HANDSHAKE)

    def came_pushed(self, peer_id: NodeId, data: bytes) -> None:
        """A peer sent a new record of its own, unasked. Raises :class:`RemoteProtocolError`."""
        owner, sequence = claims_of(data)
        peer, now = self._book.get(peer_id), self._environment.elapsed()
        if owner != peer_id:
            self._counters["dropped: pushed record of somebody else"] += 1
        elif peer.record is not None and sequence <= peer.record.sequence:
            # A peer that repeats itself does not get a signature verified each time.
            self._counters["dropped: pushed record that is no news"] += 1
        elif peer.pushes is not None and now < peer.pushes.ready_s:
            self._counters["dropped: pushed record, too soon after others"] += 1
        else:
            if peer.pushes is None:
                peer.pushes = TokenBucket(PUSHES_PER_S, PUSHES_BURST_S, now)
            peer.pushes.take(1, now)
            self.learn(SignedCommRecord.decode(data), PUSHED)

    def learn(self, record: SignedCommRecord, source: str) -> bool:
        """Take a verified record. Returns whether it is news of another peer."""
        if record == self._own.current:
            return False  # from a contact list that is given to all of them, for example
        if record.peer_id == self._me:
            if self._own.saw(record.sequence):
                self._counters["this identity runs elsewhere"] += 1
                self._publisher.signed_anew()
                self._publisher.runs_elsewhere(record)
            return False
        if record.expired(self._environment.unix_time()) and source not in NAMED:
            self._counters["dropped: expired record"] += 1
            return False
        peer = self._book.get(record.peer_id)
        if not peer.learn(record, source, self._environment.elapsed()):
            return False
        counts = peer.is_wanted if source == HANDSHAKE else source != PUSHED
        if counts:
            # The peer has just said that it is there: earlier failures mean nothing any more. But
            # the addresses may be a third party's, so what a stranger says counts for nothing, nor
            # does what can be said again and again without a handshake.
            for strategy in record.tcp:
                self._backoff.worked(strategy.address)
        if peer.waiting and peer.best_path is None:
            self._searching.seek(peer)
        if record.tcp and peer.relayed is not None:
            # The peer may be reachable directly again; what is in flight stays with the relay.
            self._searching.heard_where(peer)
        if self._observer is not None:
            self._observer(RecordLearned(record, source))
        return True

    # This node's own

    def own(self) -> SignedCommRecord:
        if self._own.current.expired(self._environment.unix_time()):
            # The machine slept through the renewal, for example. If it cannot be signed now, a
            # handshake with the old one still makes a session.
            self._publisher.renew()
        return self._own.current

    def announce(self, addresses: tuple[Address, ...]) -> None:
        """From now on, this node listens at these addresses."""
        self._addresses = addresses
        self.leases_changed()

    def leases_changed(self) -> None:
        """How this node is reached may have changed: if so, tell everybody."""
        strategies: list[CommStrat] = [TCPStrat(address) for address in self._addresses]
        listener = self._relaying.listener
        for relay_id in listener.confirmed if listener is not None else ():
            relay = self._book.find(relay_id)
            strategy = strategy_of(relay) if relay is not None else None
            if strategy is not None:
                strategies.append(strategy)
        self._publisher.change(tuple(strategies[:STRATEGIES_MAX]))

    def push(self, record: SignedCommRecord) -> None:
        """Send this node's record to every peer that it has a path to."""
        data = item(ItemType.RECORD, record.encode())
        for peer in self._book.all():
            if peer.best_path is not None:
                peer.best_path.queue_control(data)

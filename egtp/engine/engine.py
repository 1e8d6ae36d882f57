"""The engine: wires connections, channels, peers, exchanges and handlers to each other.

Every call and callback is on one event loop (R15), so nothing here is locked. The intelligence is
in the machines it drives, and in three parts with an idea each: :mod:`egtp.engine.routes` (paths),
:mod:`egtp.engine.asking` and :mod:`egtp.engine.answering`. This module decides only who is told
what, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any, Final

from egtp.channel.sealed import (
    GOAWAY_CLOSING,
    MESSAGE,
    ItemType,
    Sealed,
    item,
    parse_age,
    parse_goaway,
    parse_settled_except,
    write_goaway,
)
from egtp.config import NodeConfig
from egtp.discovery_service import Introduction
from egtp.engine.answering import Answering
from egtp.engine.asking import Asking
from egtp.engine.carriers import ConnectionCarrier, PeerCarrier
from egtp.engine.routes import Routes
from egtp.environment import Environment, nonces
from egtp.errors import FastFail, FastFailReason, NodeClosed, RemoteProtocolError
from egtp.events import Observer, RecordLearned
from egtp.handling.handlers import Handlers
from egtp.later import begin_later
from egtp.limits.accept_limits import RelayedInitiations
from egtp.lookup import LookupService
from egtp.open_query import PeerExchange, Sending
from egtp.own.address_watch import AddressWatch
from egtp.own.dial_back import CHECK_KIND, Verifier
from egtp.own.friends import FIND_KIND, STORE_KIND, Friends
from egtp.own.own_record import OwnRecord, SequenceStore
from egtp.own.publishing import Publisher
from egtp.paths.busy_poll import BusyPoll, PollingTurns
from egtp.paths.channels import Arrival, SecureChannels
from egtp.paths.path import Path
from egtp.paths.turns import Turns
from egtp.paths.uploads import Uploads
from egtp.queries.early import Early
from egtp.queries.exchange import EXCEPTIONS_MAX, Exchange, ExchangeTable
from egtp.queries.large_message import Arrived
from egtp.queries.message_reader import MessageReader
from egtp.queries.outgoing import Outgoing
from egtp.reaching.address_policy import Interface
from egtp.reaching.dialling import Dialler
from egtp.reaching.peers import Peer, PeerBook
from egtp.reaching.reaching import Reacher
from egtp.relay.relaying import Relaying, strategy_of
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.values.attempts import AttemptReason
from egtp.values.comm_record import INCARNATION_BYTES, STRATEGIES_MAX, SignedCommRecord, claims_of
from egtp.values.comm_strat import Address, Carrier, CommStrat, TCPStrat
from egtp.values.identity import Identity, NodeId
from egtp.values.message import Message, Query, Reply, Send

__all__ = ["Engine"]

TIMER_LATE_S: Final = 0.05
"""A timer that a sleep of the machine has made later than this is set anew."""
PONG_QUEUE_BYTES_MAX: Final = 64 * 1024
"""A peer that pings and reads nothing gets no more pongs than this."""
DRAIN_LOOK_S: Final = 0.05
"""How often a node that is about to close looks whether it is done."""
HANDSHAKE: Final = "handshake"
PUSHED: Final = "pushed by the peer"


class Engine:
    """All state of a node. :class:`egtp.node.Node` is its public face."""

    is_closed = False
    _closing: asyncio.Task[None] | None = None
    """What closes it, once for all who ask."""

    def __init__(
        self,
        identity: Identity,
        sequences: SequenceStore,
        lookup: LookupService | None,
        config: NodeConfig,
        environment: Environment,
        observer: Observer | None,
        friends: Friends | None = None,
    ) -> None:
        self.observer: Final = observer
        self.config: Final = config
        self.environment: Final = environment
        self.counters: Final[Counter[str]] = Counter()
        self.me: Final = identity.node_id
        self.incarnation: Final = environment.entropy(INCARNATION_BYTES)
        self.now: Final = environment.elapsed
        self.loop: Final = asyncio.get_running_loop()
        self._turns: Final = self._make_turns()
        self.soon: Final = self._turns.soon
        self.at_once: Final = self._turns.at_once
        self._addresses: tuple[Address, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s, self._timer_ahead_s = float("inf"), float("inf")
        self._cleaner: asyncio.TimerHandle | None = None
        self._cleaned_up_s = environment.elapsed()
        self._arrivals: dict[int, Arrival] = {}

        self.nonce: Final = nonces(environment.entropy).__next__
        self.book: Final = PeerBook(config.peers_max, config.known_strangers_max, self._is_needed)
        self.asking: Final = Asking(self, self.me, self.book, config, self.counters, self.nonce)
        self.answering: Final = Answering(self, self.me, config, self.counters, self.nonce)
        self.comms: Final = TCPCommsHandler(
            self, config, environment.elapsed, self.counters, observer
        )
        self.channels: Final = SecureChannels(
            identity,
            config.network,
            self.incarnation,
            config.limits,
            environment,
            self.counters,
            self,
            self.answering.answers,
        )
        self.own: Final = OwnRecord(
            identity,
            self.incarnation,
            sequences,
            environment.unix_time,
            config.record_lifetime_s,
            self.answering.answers.signed_anew,
            friends=() if friends is None else friends.announced,
            not_stored=self._own_record_not_stored,
        )
        self.publisher: Final = Publisher(
            self.me,
            self.own,
            _published_to(lookup, friends),
            self._push_record,
            config,
            environment,
            self.counters,
            observer,
        )
        self.dialler: Final = Dialler(self, self.channels, self.comms, config)
        self.reacher: Final = Reacher(self, self.me, self.dialler, lookup, config)
        self.relaying: Final = Relaying(
            self, RelayedInitiations(config.relayed_initiations_per_s, environment.elapsed())
        )
        self.routes: Final = Routes(
            self,
            self.me,
            self.book,
            self.channels,
            self.comms,
            self.reacher,
            self.asking,
            self.relaying,
            config,
            self.counters,
            observer,
        )
        self._reader: Final = MessageReader()
        self._takers: Final = self._item_takers()
        self.ask: Final = self.asking.ask
        self.settled: Final = self.exchanges.settled
        self.settled_except: Final = self.exchanges.settled_except
        self.early_for: Final = self.asking.early_for
        self.early_is_over: Final = self.asking.early_is_over
        self.early_accepted: Final = self.asking.early_accepted
        self.seek: Final = self.routes.seek
        self.not_sought: Final = self.routes.not_sought
        self.connect: Final = self.routes.connect
        self.connect_relay: Final = self.routes.connect_relay
        self.writable: Final = self.routes.writable
        self.why_keep: Final = self.routes.why_keep
        self.session_unknown: Final = self.routes.session_unknown
        self.expect_hint: Final = self.relaying.expect_hint
        self.room: Final = self.answering.room
        self.addresses: Final = AddressWatch(
            self, config, environment.local_addresses, self.counters
        )
        self.verifier: Final = Verifier(
            self, self.channels, self.comms, self.book, config, self.counters
        )
        self._answer_reserved_kinds(friends)

    def _make_turns(self) -> Turns:
        call_soon, give_way = self.loop.call_soon, self.environment.give_way
        if not self.config.busy_poll_s or give_way is None:
            return Turns(call_soon)
        return PollingTurns(
            call_soon, BusyPoll(self.config.busy_poll_s, self.now, call_soon, give_way)
        )

    def _answer_reserved_kinds(self, friends: Friends | None) -> None:
        self.handlers.add(CHECK_KIND, self.verifier.check, reserved=True, early=False)
        if friends is not None:
            friends.attach(self)
            self.handlers.add(FIND_KIND, friends.find, reserved=True, idempotent=True)
            self.handlers.add(STORE_KIND, friends.keep, reserved=True, idempotent=True)

    def _item_takers(self) -> dict[int, Callable[[Path, bytes, int], None]]:
        """Who takes which item: the path, its bytes, and how long they were under way."""
        return {
            ItemType.CHUNK: self._take_chunk,
            ItemType.CHUNKS_END: lambda path, data, _: path.end_chunks(data),
            ItemType.SETTLED_EXCEPT: self._take_settled_except,
            ItemType.WORKING: lambda path, data, _: self.asking.received_working(
                path.peer_id, data
            ),
            ItemType.CANCEL: lambda path, data, _: self.answering.cancel(path.peer_id, data),
            ItemType.PING: self._take_ping,
            ItemType.PONG: lambda path, data, _: path.pong(data),
            ItemType.RECORD: self._take_record,
            ItemType.GOAWAY: lambda path, data, _: self.routes.going_away(
                path, parse_goaway(data)[1]
            ),
            ItemType.CLOSE: self._take_close,
        }

    def start(self) -> None:
        self._clean_up()
        self.addresses.start()
        self.publisher.start()

    @property
    def exchanges(self) -> ExchangeTable[asyncio.Future[bytes]]:
        return self.asking.exchanges

    @property
    def handlers(self) -> Handlers:
        return self.answering.handlers

    @property
    def uploads(self) -> Uploads:
        return self.answering.uploads

    # The world

    def unix_time(self) -> float:
        return self.environment.unix_time()

    def entropy(self, size: int) -> bytes:
        return self.environment.entropy(size)

    def carrier(self, peer_id: NodeId, early: Early | None = None) -> Carrier:
        return PeerCarrier(peer_id, self.comms, self.relaying, early)

    def is_awaited(self, peer_id: NodeId, reference: bytes) -> bool:
        return self.exchanges.find(peer_id, reference) is not None

    def may_wait(self, path: Path, size: int) -> bool:
        return self.answering.unread.admits(path, size, self.now())

    def takes_early(self, kind: str) -> bool:
        found = self.handlers.find(kind)
        return found is not None and found.early

    # This node to itself

    def deliver_to_self(self, message: PeerExchange | Sending) -> None:
        # In a turn of its own: handlers are begun outside of any task.
        self.loop.call_soon(self._deliver_to_self, message)

    def _deliver_to_self(self, message: PeerExchange | Sending) -> None:
        if isinstance(message, Exchange) and not self.exchanges.is_open(message):
            return  # its caller has thought better of it meanwhile
        self._deliver(None, self.me, bytes(message.message[:]), 0)

    def cancel_own(self, reference: bytes) -> None:
        self.answering.cancel(self.me, reference)

    def answer_own(self, reply: bytes) -> None:
        self._deliver(None, self.me, reply, 0)

    # Relays

    async def ask_relay(self, relay_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        """A query over a direct path to a relay, dialling it if need be."""
        peer = self.book.get(relay_id)
        try:
            async with asyncio.timeout(timeout_s):
                await self.routes.connect(peer)
        except TimeoutError:
            raise FastFail(
                f"no connection to relay {relay_id} within {timeout_s:g} s",
                reason=FastFailReason.NO_TIME,
            ) from None
        return await self.ask_peer(relay_id, kind, body, timeout_s)

    async def ask_peer(self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        """A query of the engine's own, by any path."""
        if self.is_closed:
            raise NodeClosed
        outcome: asyncio.Future[bytes] = self.loop.create_future()
        exchange = self.ask(peer_id, kind, body, timeout_s, None, outcome)
        try:
            return await outcome
        except asyncio.CancelledError:
            if exchange is not None:
                self.asking.abandon(exchange)
            raise

    def meet(self, introduction: Introduction) -> None:
        """Take note of a relay server that the discovery service introduced."""
        self.want(introduction.peer_id)
        if introduction.record is not None:
            self.learn(introduction.record, "discovery")

    # Records

    def own_record(self) -> SignedCommRecord:
        if self.own.current.expired(self.unix_time()):
            # The machine was suspended past the renewal, for instance. If it cannot be signed now,
            # a handshake with the old one still makes a session.
            self.publisher.renew()
        return self.own.current

    def _own_record_not_stored(self) -> None:
        self.publisher.not_signed()

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        peer = self.book.find(peer_id)
        return None if peer is None else peer.record

    def learned_record(self, record: SignedCommRecord) -> None:
        self.learn(record, HANDSHAKE)

    def learn(self, record: SignedCommRecord, source: str) -> bool:
        """Take a verified record. True if it is news."""
        if record.peer_id == self.me:
            if self.own.saw(record.sequence):
                self.counters["this identity runs elsewhere"] += 1
                self.publisher.signed_anew()
            return False
        if record.expired(self.unix_time()) and source != "contact":
            self.counters["dropped: expired record"] += 1
            return False
        peer = self.book.get(record.peer_id)
        news = peer.learn(record, source, self.now())
        if news and (peer.is_wanted if source == HANDSHAKE else source != PUSHED):
            # The peer has just said that it is there: what failed before says nothing any more. But
            # the addresses may be of a third party, so what a stranger says counts for nothing, nor
            # does what can be said again and again without a handshake.
            for strategy in record.tcp:
                self.dialler.backoff.worked(strategy.address)
        if news and peer.waiting and peer.best_path is None:
            self.routes.seek(peer)
        if news and record.tcp and peer.relayed is not None:
            # The peer may be reachable without its relays again; what is in flight stays there.
            self.routes.heard_where(peer)
        if news and self.observer is not None:
            self.observer(RecordLearned(record, source))
        return news

    def announce(self, addresses: tuple[Address, ...]) -> None:
        """This node listens at these addresses from now on."""
        self._addresses = addresses
        self.leases_changed()

    @property
    def near(self) -> tuple[Interface, ...]:
        """The local networks in which private addresses may be dialled."""
        return self.addresses.near

    def leases_changed(self) -> None:
        """How this node is reached may have changed: if it has, tell everybody."""
        strategies: list[CommStrat] = [TCPStrat(address) for address in self._addresses]
        listener = self.relaying.listener
        for relay_id in listener.confirmed if listener is not None else ():
            relay = self.book.find(relay_id)
            strategy = strategy_of(relay) if relay is not None else None
            if strategy is not None:
                strategies.append(strategy)
        self.publisher.change(tuple(strategies[:STRATEGIES_MAX]))

    def _push_record(self, record: SignedCommRecord) -> None:
        """Give the own record to everybody who is connected."""
        data = item(ItemType.RECORD, record.encode())
        for peer in self.book.all():
            if peer.best_path is not None:
                peer.best_path.queue_control(data)

    # Paths

    def path_failed(self, path: Path, reason: str) -> None:
        self.routes.lose(path, reason)

    def path_waits(self, path: Path) -> None:
        self.routes.watch(path)

    def lose_path(self, path: Path, reason: str, *, at_once: bool = False) -> None:
        self.routes.lose(path, reason, at_once=at_once)

    def admits(self, path: Path) -> bool:
        return self.routes.admits(path)

    def confirmed(self, path: Path) -> None:
        self.routes.confirmed(path)
        self.addresses.opened(path)

    def reject(self, arrival: Arrival) -> None:
        connection = self.comms.connection(arrival.connection or 0)
        if connection is not None:
            connection.abort(AttemptReason.NOT_EGTP)

    def dialled_back(self, peer_id: NodeId, token: bytes, arrival: Arrival) -> None:
        if arrival.observed is not None:
            self.addresses.arrived(peer_id, token, arrival.connection, arrival.observed.ip)

    def dialled_ourselves(self, arrival: Arrival) -> None:
        self.counters["dialled ourselves"] += 1
        self.reject(arrival)

    # Connections

    def read(self, connection: TCPConnection) -> None:  # noqa: ARG002
        self._turns.reading_ends()

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        self._turns.reading_begins()
        arrival = self._arrivals.get(connection.number)
        if arrival is None:
            carrier = ConnectionCarrier(connection)
            arrival = Arrival(connection.strategy, carrier, connection.remote)
            self._arrivals[connection.number] = arrival
        self.channels.receive(packet, arrival)

    def receive_packet(self, packet: bytes, arrival: Arrival) -> None:
        self.channels.receive(packet, arrival)

    def closed(self, connection: TCPConnection, reason: str) -> None:
        self._arrivals.pop(connection.number, None)
        self.routes.connection_closed(connection, reason)

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        path = self.channels.path_of(connection.number)
        return path.used_s if path is not None and path.confirmed else None

    def held_back(self, connection: TCPConnection) -> None:
        """A ping of the other side waits behind all that is not read yet; so say unasked that this
        node lives."""
        path = self.channels.path_of(connection.number)
        if path is not None and path.confirmed and not path.outbox:
            path.queue_control(item(ItemType.PADDING))

    def want(self, peer_id: NodeId) -> Peer:
        """Somebody here has to do with the peer: it is no stranger from now on."""
        peer = self.book.get(peer_id)
        if not peer.is_wanted:
            self.book.want(peer)
            self.comms.want(peer_id)
            self.routes.want(peer_id)
        return peer

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here wants, or has wanted, to reach the peer; others are strangers."""
        peer = self.book.find(peer_id)
        return (peer is not None and peer.is_wanted) or self._is_needed(peer_id)

    def _is_needed(self, peer_id: NodeId) -> bool:
        return bool(self.exchanges.count_of(peer_id)) or self.relaying.keeps(peer_id)

    # What comes in

    def opened(self, path: Path, sealed: Sealed, transit_ms: int) -> None:
        asker = path.asker
        if asker is not None and sealed.settled > asker.floor:
            self.answering.answers.settle(asker, sealed.settled)
        peer_id, asking, answering = path.peer_id, self.asking, self.answering
        for kind, age_ms, data in sealed.items:
            try:
                if kind == MESSAGE:
                    message = self._reader.read(data)
                    if type(message) is Reply:
                        asking.received_reply(peer_id, message)
                    elif type(message) is Query:
                        reference = sha256(data).digest()
                        answering.receive(path, peer_id, message, reference, age_ms + transit_ms)
                    else:
                        self._dispatch(path, peer_id, message, b"", age_ms + transit_ms)
                elif kind in self._takers:
                    self._takers[kind](path, data, transit_ms)
            except RemoteProtocolError as error:
                self.counters[f"dropped: {error}"] += 1
                if kind != MESSAGE:
                    # Both sides count chunks and know the items; there is no way on from here.
                    self.routes.lose(path, str(error))
            if path.closed:
                return

    def _take_chunk(self, path: Path, data: bytes, transit_ms: int) -> None:
        whole = path.reassemble(data)
        if isinstance(whole, Arrived) and whole.refused:
            self._refuse(path, whole, transit_ms)
        elif isinstance(whole, Arrived):
            age_ms, message, reference, _ = whole
            self._dispatch(path, path.peer_id, message, reference, age_ms + transit_ms)
        elif whole is not None:
            age_ms, data = parse_age(whole)
            self._deliver(path, path.peer_id, data, age_ms + transit_ms)

    def _refuse(self, path: Path, arrived: Arrived, transit_ms: int) -> None:
        """The body of a message was not kept, for want of room, or since nobody waits for it."""
        message, age_ms = arrived.message, arrived.age_ms + transit_ms
        if isinstance(message, Reply):
            self.counters["dropped: large reply that nobody waits for"] += 1
        else:
            self.answering.receive(
                path, path.peer_id, message, arrived.reference, age_ms, refused=True
            )

    def _take_settled_except(self, path: Path, data: bytes, _: int) -> None:
        upto, exceptions = parse_settled_except(data, EXCEPTIONS_MAX)
        if path.asker is not None:
            self.answering.answers.settle_except(path.asker, upto, exceptions)

    def _take_ping(self, path: Path, data: bytes, _: int) -> None:
        if path.outbox.control_bytes > PONG_QUEUE_BYTES_MAX:
            self.counters["pong dropped: too much waits for the peer"] += 1
        else:
            path.queue_control(item(ItemType.PONG, data))

    def _take_record(self, path: Path, data: bytes, _: int) -> None:
        peer_id, sequence = claims_of(data)
        peer = self.book.find(path.peer_id)
        known = None if peer is None else peer.record
        if peer_id != path.peer_id:
            self.counters["dropped: pushed record of somebody else"] += 1
        elif known is not None and (sequence < known.sequence or data == known.encode()):
            # Whoever says the same again and again has no signature verified each time.
            self.counters["dropped: pushed record that is no news"] += 1
        else:
            self.learn(SignedCommRecord.decode(data), PUSHED)

    def _take_close(self, path: Path, _: bytes, __: int) -> None:
        self.routes.lose(path, "closed by the peer")
        self.relaying.said_goodbye(path)

    def _deliver(self, path: Path | None, peer_id: NodeId, data: bytes, age_ms: int) -> None:
        message = self._reader.read(data)
        reference = sha256(data).digest() if type(message) is Query else b""
        self._dispatch(path, peer_id, message, reference, age_ms)

    def _dispatch(
        self, path: Path | None, peer_id: NodeId, message: Message, reference: bytes, age_ms: int
    ) -> None:
        if type(message) is Reply:
            self.asking.received_reply(peer_id, message)
        elif type(message) is Query or (
            type(message) is Send
            and (path is None or not self.relaying.receive(path, message, age_ms))
        ):
            self.answering.receive(path, peer_id, message, reference, age_ms)

    def unconfirmed_bytes(self) -> int:
        return self.channels.unconfirmed_bytes()

    def best_path(self, peer_id: NodeId) -> Path | None:
        peer = self.book.find(peer_id)
        return None if peer is None else peer.best_path

    def answer_by_another_path(self, gone: Path, reply: Outgoing) -> None:
        is_sought = gone.confirmed and self.knows(gone.peer_id)
        if is_sought or self.best_path(gone.peer_id) is not None:
            self.asking.post(self.book.get(gone.peer_id), reply)
        else:
            # The query may have been a recording, and what a stranger says where it is may be the
            # address of a third party: nobody is looked up and dialled for that. It asks again.
            self.counters["reply kept until its asker comes"] += 1

    # Time

    def arm_timer(self) -> None:
        """One timer for all deadlines of the node, armed for the earliest."""
        at_s = self.exchanges.next_deadline_s()
        if at_s is None:
            return
        now = self.now()
        # The loop's clock, and so its timers, stand still while the machine sleeps.
        ahead_s = now - self.loop.time()
        if self._timer is not None:
            if self._timer_at_s <= at_s and ahead_s <= self._timer_ahead_s:
                return
            self._timer.cancel()
        self._timer_at_s, self._timer_ahead_s = at_s, ahead_s + TIMER_LATE_S
        self._timer = self.loop.call_later(max(0.0, at_s - now), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.asking.expire(self.now())
        self.arm_timer()

    def _clean_up(self) -> None:
        """Now and then: what is idle, unproven, or was superseded and has nothing left to do."""
        # First of all: whatever is raised below must not end the cleaning up.
        interval_s = self.config.clean_up_interval_s
        self._cleaner = self.loop.call_later(interval_s, self._clean_up)
        now = self.now()
        self._notice_sleep(now)
        self.asking.expire(now)
        self.channels.expire(now)
        if self.relaying.server is not None:
            self.relaying.server.leases.expire(now)
        self.routes.look(now)
        self.asking.look(now)
        self.answering.look(now, self.own.current.sequence)
        self.comms.clean_up()

    def _notice_sleep(self, now: float) -> None:
        """A machine that slept has connections of yesterday, and nobody told its timers."""
        slept_s = now - self._cleaned_up_s - self.config.clean_up_interval_s
        self._cleaned_up_s = now
        if slept_s > self.config.silent_path_s:
            self.counters["this machine was asleep"] += 1
            self.comms.drop_all("this machine was asleep")
            self.publisher.look_again()

    # The end

    async def drain(self, drain_s: float) -> None:
        """Tell everybody that this node is about to close, refuse what is new, and return when what
        is under way has ended, or after ``drain_s`` seconds."""
        self.answering.refuses_new = True
        goaway = item(ItemType.GOAWAY, write_goaway(GOAWAY_CLOSING, drain_s))
        for peer in self.book.all():
            for path in peer.paths:
                path.queue_control(goaway)
        await self._wait_while(self._is_busy, drain_s)

    async def disconnect(self, peer_id: NodeId) -> None:
        """Close all paths to a peer, after what waits there."""
        await self._wait_while(lambda: self._has_unsent(peer_id), self.config.close_timeout_s)
        self.routes.disconnect(peer_id)

    async def _wait_while(self, goes_on: Callable[[], bool], seconds: float) -> None:
        until_s = self.now() + seconds
        # Looked at now and then: an event for each reason would cost every message.
        while goes_on() and self.now() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(min(DRAIN_LOOK_S, max(0.0, until_s - self.now())))

    def _has_unsent(self, peer_id: NodeId) -> bool:
        peer = self.book.find(peer_id)
        return peer is not None and any(path.outbox for path in peer.paths)

    def _is_busy(self) -> bool:
        outboxes = any(path.outbox for peer in self.book.all() for path in peer.paths)
        return bool(len(self.handlers) or len(self.exchanges) or outboxes)

    async def close(self) -> None:
        """End every exchange with :class:`NodeClosed`, say so to the peers, and leave nothing.

        It is done once, in a task of its own that all who call this wait for: any of them may be
        cancelled, and the node is closed all the same.
        """
        caller = asyncio.current_task()
        if self._closing is None:
            self.is_closed = True
            for timer in (self._timer, self._cleaner):
                if timer is not None:
                    timer.cancel()
            self.asking.close()
            self.answering.refuses_new = True
            self._closing = begin_later(partial(self._close, caller))
        elif self.handlers.runs_in(caller):
            return  # a handler is not to wait for what waits for it
        if not self._closing.done():
            await asyncio.shield(self._closing)

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        # Cancelled, as all is when the program ends: then nothing of that is waited for. (No
        # "finally": compiled, what is awaited in one leaves its exception behind for others.)
        with contextlib.suppress(asyncio.CancelledError):
            await self._end_work(caller)
        # Relayed paths first: their goodbye travels over the direct paths to the relays.
        paths = [path for peer in self.book.all() for path in peer.paths]
        for path in sorted(paths, key=lambda path: not path.relayed):
            path.say_close()
        await self.comms.close()
        for path in paths:
            self.channels.close(path)

    async def _end_work(self, caller: asyncio.Task[Any] | None) -> None:
        await self.addresses.close()
        await self.publisher.close()
        if self.relaying.listener is not None:
            await self.relaying.listener.close()
        await self.routes.close()
        await self.handlers.close(caller)


def _published_to(lookup: LookupService | None, friends: Friends | None) -> LookupService | None:
    """Friends who only keep records have nobody to tell this node's own."""
    if friends is not None and lookup is friends and not friends.told:
        return None
    return lookup

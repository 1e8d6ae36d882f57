"""The engine: wires connections, channels, peers, exchanges and handlers to each other.

Every call and callback is on one event loop (R15), so nothing here is locked. The intelligence is
in the machines it drives; this module decides only who is told what.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from egtp.channels import Arrival, SecureChannels
from egtp.comm_record import INCARNATION_BYTES, STRATEGIES_MAX, SignedCommRecord
from egtp.comm_strat import Address, Carrier, CommStrat, RelayStrat, TCPStrat
from egtp.config import NodeConfig
from egtp.deadlines import Deadlines
from egtp.discovery_service import Introduction
from egtp.environment import Environment
from egtp.errors import EgtpError, FastFail, HardTimeout, NodeClosed, NotSent, RemoteProtocolError
from egtp.events import Observer, PathLost, PathOpened, RecordLearned, SearchFailed
from egtp.exchange import Exchange, ExchangeTable, Passed
from egtp.handlers import Handlers
from egtp.identity import Identity, NodeId
from egtp.lookup import LookupService
from egtp.message import NONCE_BYTES, Reply, Send, decode_message, reference_of
from egtp.outbox import Waiting
from egtp.outgoing import OpenQuery, Replying, Sending
from egtp.own_record import OwnRecord, SequenceStore
from egtp.path import MESSAGE_OVERHEAD_MAX, Given, Path
from egtp.peers import Peer, PeerBook, Search
from egtp.publishing import Publisher
from egtp.reaching import Reacher
from egtp.relaying import Relaying, strategy_of
from egtp.sealed import ItemType, Sealed, item, parse_age
from egtp.silence import Verdict
from egtp.strategy_choice import Contact
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection

__all__ = ["Engine"]

DRAIN_S: Final = 5.0
"""How long a superseded connection without work is kept: what is under way on it still arrives."""
PONG_QUEUE_BYTES_MAX: Final = 64 * 1024
"""A path on which this much waits is measured by its queue; a pong would only add to it."""
NOTE_INTERVAL_S: Final = 5.0
"""A peer that says it does not know the session is answered by a new handshake this often."""

PeerExchange: TypeAlias = Exchange[OpenQuery]


class _PeerCarrier:
    """Moves packets to one peer, by whatever strategy it is told to."""

    __slots__ = ("_engine", "_peer_id")

    def __init__(self, engine: Engine, peer_id: NodeId | None) -> None:
        self._engine = engine
        self._peer_id = peer_id

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        self._engine.comms.open(strategy).send(packet)

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        if self._peer_id is None:
            raise NotSent("a relay needs to be told whom a packet is for")
        self._engine.relaying.send(strategy.relay_id, self._peer_id, packet)


class Engine:
    """All state of a node. :class:`egtp.node.Node` is its public face."""

    def __init__(
        self,
        identity: Identity,
        sequences: SequenceStore,
        lookup: LookupService | None,
        config: NodeConfig,
        environment: Environment,
        observer: Observer | None,
    ) -> None:
        self.observer: Final = observer
        self.config: Final = config
        self.environment: Final = environment
        self.counters: Final[Counter[str]] = Counter()
        self.me: Final = identity.node_id
        self.incarnation: Final = environment.entropy(INCARNATION_BYTES)
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._addresses: tuple[Address, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = float("inf")
        self._cleaner: asyncio.TimerHandle | None = None
        self._cleaned_up_s = environment.elapsed()
        self._arrivals: dict[int, Arrival] = {}
        self._reply_deadlines: Deadlines[tuple[NodeId, Replying]] = Deadlines()

        self.exchanges: Final[ExchangeTable[OpenQuery]] = ExchangeTable(self.counters)
        self.book: Final = PeerBook(config.peers_max, self._is_needed)
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
        )
        self.own: Final = OwnRecord(
            identity,
            self.incarnation,
            sequences,
            environment.unix_time,
            config.record_lifetime_s,
        )
        self.publisher: Final = Publisher(
            self.me,
            self.own,
            lookup,
            self._push_record,
            config,
            environment,
            self.counters,
            observer,
        )
        self.reacher: Final = Reacher(self, self.me, self.channels, self.comms, lookup, config)
        self.handlers: Final = Handlers(
            self._answer, environment.entropy, config.open_queries_max, self.counters
        )
        self.relaying: Final = Relaying(self)

    def start(self) -> None:
        self._clean_up()
        self.publisher.start()

    @property
    def is_closed(self) -> bool:
        return self._closed

    # The world

    def now(self) -> float:
        return self.environment.elapsed()

    def unix_time(self) -> float:
        return self.environment.unix_time()

    def entropy(self, size: int) -> bytes:
        return self.environment.entropy(size)

    def soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def carrier(self, peer_id: NodeId | None) -> Carrier:
        return _PeerCarrier(self, peer_id)

    # Asking

    def ask(
        self,
        peer_id: NodeId,
        kind: str,
        body: bytes,
        hard_timeout_s: float,
        soft_timeout_s: float | None,
        query: OpenQuery,
    ) -> None:
        """Open an exchange and send its query as soon as there is a path."""
        if len(self.exchanges) >= self.config.exchanges_max:
            query.fail(FastFail(f"{self.config.exchanges_max} queries are open (exchanges_max)"))
            return
        exchange = self.exchanges.open(
            peer_id,
            kind,
            body,
            nonce=self.entropy(NONCE_BYTES),
            reply_bytes_max=self.config.body_bytes_max,
            hard_timeout_s=hard_timeout_s,
            soft_timeout_s=soft_timeout_s,
            now_s=self.now(),
            sink=query,
        )
        query.add_done_callback(lambda query: self._query_done(exchange, query))
        self._arm_timer()
        if peer_id == self.me:
            exchange.given = True
            self._deliver(None, self.me, exchange.message, 0)
        else:
            self._post(self.book.get(peer_id), Waiting(exchange.message, exchange.born_s, exchange))

    def tell(self, peer_id: NodeId, message: Send, sending: Sending) -> None:
        """Send a message that wants no reply."""
        data = message.encode()
        if peer_id == self.me:
            sending.given = True
            self._deliver(None, self.me, data, 0)
        else:
            self._post(self.book.get(peer_id), Waiting(data, self.now(), sending))

    def take_back(self, peer_id: NodeId, token: Given) -> None:
        """A message is not wanted any more; free what of it has not left."""
        peer = self.book.find(peer_id)
        if peer is None:
            return
        peer.drop_waiting(token)
        for path in peer.paths:
            path.outbox.drop(token)
        if peer.search is not None and not peer.waiting and not self.exchanges.count_of(peer_id):
            peer.search.task.cancel()
            peer.search = None

    def _query_done(self, exchange: PeerExchange, query: OpenQuery) -> None:
        if not query.cancelled:
            return
        self.exchanges.close(exchange)
        self.take_back(exchange.peer_id, exchange)
        if exchange.given:
            self.handlers.cancel(self.me, exchange.reference)
            peer = self.book.find(exchange.peer_id)
            if peer is not None and peer.best_path is not None:
                peer.best_path.queue_control(item(ItemType.CANCEL, exchange.reference))

    def _post(self, peer: Peer, waiting: Waiting[Given | None]) -> None:
        path = peer.best_path
        queued_bytes = peer.waiting_bytes if path is None else path.outbox.waiting_bytes
        if queued_bytes + len(waiting.message) > self.config.waiting_bytes_max:
            error = FastFail(f"too much waits for {peer.peer_id} (waiting_bytes_max)")
            self._fail(waiting.token, error)
        elif path is None:
            peer.wait(waiting)
            self._seek(peer)
        elif self._fits(path, waiting):
            path.queue(waiting)

    def _fits(self, path: Path, waiting: Waiting[Given | None]) -> bool:
        body_bytes_max = path.limits.body_bytes_max
        if len(waiting.message) <= body_bytes_max + MESSAGE_OVERHEAD_MAX:
            return True
        error = FastFail(f"the body is too large: {path.peer_id} takes {body_bytes_max} bytes")
        self._fail(waiting.token, error)
        return False

    def _fail(self, token: Given | None, error: EgtpError) -> None:
        if isinstance(token, Exchange):
            self.exchanges.close(token)
            token.sink.fail(error)
        elif isinstance(token, Sending):
            token.fail(error)
        else:
            self.counters["reply dropped: it could not be sent"] += 1

    # Searching for paths

    def _seek(self, peer: Peer) -> None:
        """Search for any path, unless a search is under way."""
        if peer.search is None and not self._closed:
            peer.search = Search(partial(self._search, peer))

    async def _search(self, peer: Peer, found: asyncio.Event) -> FastFail | None:
        failure = None
        try:
            await self.reacher.reach(peer, found)
            peer.attempts = ()
        except FastFail as error:
            failure = error
            peer.attempts = error.attempts
            if self.observer is not None:
                self.observer(SearchFailed(peer.peer_id, error.attempts))
        finally:
            if peer.search is not None and peer.search.found is found:
                peer.search = None
        if failure is not None:
            self._search_failed(peer, failure)
        elif peer.best_path is None and (peer.waiting or self.exchanges.count_of(peer.peer_id)):
            # The path was lost again before this search had come to its end.
            self._seek(peer)
        return failure

    def _search_failed(self, peer: Peer, error: FastFail) -> None:
        path = peer.best_path
        for waiting in peer.take_waiting():
            if path is not None:
                path.queue(waiting)
            elif isinstance(waiting.token, Replying):
                # Whoever asked may still come and fetch it, until its lifetime is over.
                peer.wait(waiting)
            else:
                self._fail(waiting.token, FastFail(error.summary, error.attempts))

    async def connect(self, peer: Peer) -> None:
        """Have a direct path to ``peer``. Raises :class:`FastFail`."""
        if peer.direct is not None:
            return
        if self._closed:
            raise FastFail("this node is closed")
        self._seek_direct(peer)
        assert peer.direct_search is not None  # noqa: S101 - there is no direct path yet
        # Shared by all who need this relay, so it goes on when one of them is cancelled.
        failure = await asyncio.shield(peer.direct_search.task)
        if failure is not None:
            raise FastFail(failure.summary, failure.attempts)

    def _seek_direct(self, peer: Peer) -> None:
        """Search for a direct path, unless there is one or a search is under way."""
        if peer.direct is None and peer.direct_search is None and not self._closed:
            peer.direct_search = Search(partial(self._search_direct, peer))

    async def _search_direct(self, peer: Peer, found: asyncio.Event) -> FastFail | None:
        try:
            await self.reacher.reach(peer, found, with_relays=False)
        except FastFail as error:
            return error
        finally:
            peer.direct_search = None
        return None

    async def connect_relay(self, relay: RelayStrat) -> None:
        """Have a direct path to a relay, from what somebody's record says of it if need be."""
        peer = self.book.get(relay.relay_id)
        peer.hearsay = Contact.of_relay(relay)
        await self.connect(peer)

    async def ask_relay(self, relay_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        """A query over a direct path to a relay, dialling it if need be."""
        peer = self.book.get(relay_id)
        try:
            async with asyncio.timeout(timeout_s):
                await self.connect(peer)
        except TimeoutError:
            raise FastFail(f"no connection to relay {relay_id} within {timeout_s:g} s") from None
        query = OpenQuery(self._loop, None)
        self.ask(relay_id, kind, body, timeout_s, None, query)
        return await query

    def meet(self, introduction: Introduction) -> None:
        """Take note of a relay server that the discovery service introduced."""
        if introduction.record is not None:
            self.learn(introduction.record, "discovery")

    def expect_hint(self, packet: bytes, tell: Callable[[str], None]) -> Callable[[], None]:
        return self.relaying.expect_hint(packet, tell)

    # Records

    def own_record(self) -> SignedCommRecord:
        if self.own.current.expired(self.unix_time()):
            # The machine was suspended past the renewal, for instance.
            self.own.renew()
            self.publisher.signed_anew()
        return self.own.current

    def known_record(self, peer_id: NodeId) -> SignedCommRecord | None:
        peer = self.book.find(peer_id)
        return None if peer is None else peer.record

    def learned_record(self, record: SignedCommRecord) -> None:
        self.learn(record, "handshake")

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
        if news:
            # The peer has just said that it is there: what failed before says nothing any more.
            for strategy in record.tcp:
                self.reacher.backoff.worked(strategy.address)
        if news and record.tcp and peer.relayed is not None:
            # The peer may be reachable without its relays again; what is in flight stays there.
            self._seek_direct(peer)
        if news and self.observer is not None:
            self.observer(RecordLearned(record, source))
        return news

    def announce(self, addresses: tuple[Address, ...]) -> None:
        """This node listens at these addresses from now on."""
        self._addresses = addresses
        self.leases_changed()

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

    def settled(self, peer_id: NodeId) -> int:
        return self.exchanges.settled(peer_id)

    def path_is_writable(self, path: Path) -> bool:
        strategy = path.strategy
        if isinstance(strategy, RelayStrat):
            return self.relaying.takes_more(strategy, self.path_is_writable)
        connection = self.comms.connection(strategy.connection or 0)
        # A connection that is gone takes everything: the write then says that it failed.
        return connection is None or connection.takes_more

    def path_failed(self, path: Path, reason: str) -> None:
        self.lose_path(path, reason)

    def confirmed(self, path: Path) -> None:
        peer = self.book.get(path.peer_id)
        peer.add_path(path, self.me)
        if self.observer is not None:
            self.observer(PathOpened(path.peer_id, path.strategy))
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            connection = self.comms.connection(strategy.connection or 0)
            if connection is not None:
                self.comms.proven(connection, path.peer_id)
            if peer.direct_search is not None:
                peer.direct_search.found.set()
        if peer.search is not None:
            peer.search.found.set()
        self._move_waiting(peer, path)
        if not path.relayed:
            self.relaying.connected(peer)
        elif path.dialled and path.record is not None and path.record.tcp:
            # The handshake brought a newer record, with addresses that were not tried yet.
            self._seek_direct(peer)

    def _move_waiting(self, peer: Peer, path: Path) -> None:
        """There is a new path: what waits for one, and what older ones still hold, goes there."""
        best = peer.best_path or path
        for older in peer.others:
            for waiting in older.outbox.take_unsent():
                peer.wait(waiting)
            if older.incarnation != path.incarnation:
                # The peer was started anew: nobody is at the other end of this one any more.
                self.lose_path(older, "the peer was restarted")
        for waiting in peer.take_waiting():
            if self._fits(best, waiting):
                best.queue(waiting)

    def lose_path(self, path: Path, reason: str, *, at_once: bool = False) -> None:
        """A path is of no use any more. What had not left by it goes by another; what was written
        may still leave, unless it is to end ``at_once``."""
        self.channels.close(path)
        strategy = path.strategy
        if isinstance(strategy, TCPStrat):
            connection = self.comms.connection(strategy.connection or 0)
            if connection is not None and at_once:
                connection.abort(reason)
            elif connection is not None:
                connection.close(reason)
        self._path_is_gone(path, reason)

    def _path_is_gone(self, path: Path, reason: str) -> None:
        path.closed = True
        peer = self.book.find(path.peer_id)
        if peer is None or path not in peer.paths:
            return
        was_direct = path is peer.direct
        peer.remove_path(path)
        if self.observer is not None:
            self.observer(PathLost(path.peer_id, path.strategy, reason))
        for waiting in path.outbox.take_unsent():
            self._post(peer, waiting)
        if peer.best_path is None and self.exchanges.count_of(peer.peer_id):
            # Replies outlive the path that their queries went by, if there is a new one to take.
            self._seek(peer)
        if was_direct and peer.direct is None:
            self.relaying.disconnected(peer.peer_id)

    def session_unknown(self, path: Path) -> None:
        """The peer restarted, or somebody on the way would like us to think so. The session stays
        until there is a new one."""
        peer = self.book.get(path.peer_id)
        now = self.now()
        if now - peer.last_note_s < NOTE_INTERVAL_S:
            self.counters["unknown-session note: too soon after the last"] += 1
            return
        peer.last_note_s = now
        path.suspect = True
        self._seek(peer)

    def reject(self, arrival: Arrival) -> None:
        connection = self.comms.connection(arrival.connection or 0)
        if connection is not None:
            connection.abort("what came was of no use")

    def dialled_ourselves(self, arrival: Arrival) -> None:
        self.counters["dialled ourselves"] += 1
        self.reject(arrival)

    # Connections

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        arrival = self._arrivals.get(connection.number)
        if arrival is None:
            arrival = Arrival(connection.strategy, self.carrier(None), connection.remote)
            self._arrivals[connection.number] = arrival
        self.channels.receive(packet, arrival)

    def receive_packet(self, packet: bytes, arrival: Arrival) -> None:
        self.channels.receive(packet, arrival)

    def writable(self, connection: TCPConnection) -> None:
        path = self.channels.path_of(connection.number)
        if path is None:
            return
        path.flush()
        if self.relaying.is_relay(path.peer_id):
            for peer in self.book.all():
                if peer.relayed is not None and peer.relayed.outbox:
                    peer.relayed.flush()

    def closed(self, connection: TCPConnection, reason: str) -> None:
        self._arrivals.pop(connection.number, None)
        path = self.channels.connection_lost(connection.number, reason)
        if path is not None:
            self._path_is_gone(path, reason)

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        path = self.channels.path_of(connection.number)
        return path.used_s if path is not None and path.confirmed else None

    def why_keep(self, connection: TCPConnection) -> str | None:
        path = self.channels.path_of(connection.number)
        if path is None:
            return None
        if path.outbox:
            return "messages wait for it"
        if self.exchanges.count_of(path.peer_id):
            return "replies are awaited"
        if self.relaying.keeps(path.peer_id):
            return "this node is reached through it"
        return None

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here wants to reach the peer; others are strangers."""
        return self._is_needed(peer_id)

    def _is_needed(self, peer_id: NodeId) -> bool:
        return bool(self.exchanges.count_of(peer_id)) or self.relaying.keeps(peer_id)

    # What comes in

    def opened(self, path: Path, sealed: Sealed, transit_ms: int) -> None:
        for kind, data in sealed.items:
            try:
                self._take_item(path, kind, data, transit_ms)
            except RemoteProtocolError as error:
                self.counters[f"dropped: {error}"] += 1
                if kind != ItemType.MESSAGE:
                    # Both sides count chunks and know the items; there is no way on from here.
                    self.lose_path(path, str(error))
            if path.closed:
                return

    def _take_item(self, path: Path, kind: int, data: bytes, transit_ms: int) -> None:
        if kind in (ItemType.MESSAGE, ItemType.CHUNK):
            whole = data if kind == ItemType.MESSAGE else path.reassemble(data)
            if whole is not None:
                age_ms, message = parse_age(whole)
                self._deliver(path, path.peer_id, message, age_ms + transit_ms)
        elif kind == ItemType.CANCEL:
            self.handlers.cancel(path.peer_id, data)
        elif kind == ItemType.PING:
            if path.outbox.waiting_bytes > PONG_QUEUE_BYTES_MAX:
                self.counters["pong dropped: too much waits for the peer"] += 1
            else:
                path.queue_control(item(ItemType.PONG, data))
        elif kind == ItemType.RECORD:
            self._take_record(path, data)
        elif kind == ItemType.GOAWAY:
            self.book.get(path.peer_id).retire(path)
        elif kind == ItemType.CLOSE:
            self.lose_path(path, "closed by the peer")
            self.relaying.said_goodbye(path)

    def _take_record(self, path: Path, data: bytes) -> None:
        record = SignedCommRecord.decode(data)
        if record.peer_id != path.peer_id:
            self.counters["dropped: pushed record of somebody else"] += 1
        else:
            self.learn(record, "pushed by the peer")

    def _deliver(self, path: Path | None, peer_id: NodeId, data: bytes, age_ms: int) -> None:
        message = decode_message(data)
        if isinstance(message, Reply):
            exchange = self.exchanges.match(peer_id, message)
            if exchange is not None:
                exchange.sink.succeed(message)
            return
        if (
            isinstance(message, Send)
            and path is not None
            and self.relaying.receive(path, message, age_ms)
        ):
            return
        self.handlers.receive(path, peer_id, message, reference_of(data), age_ms)

    def _answer(self, path: Path | None, peer_id: NodeId, reply: Reply, lifetime_s: float) -> None:
        data = reply.encode()
        if peer_id == self.me:
            self._deliver(None, self.me, data, 0)
            return
        token = Replying()
        waiting: Waiting[Given | None] = Waiting(data, self.now(), token)
        if path is not None and not path.closed:
            if path.outbox.waiting_bytes + len(data) > self.config.waiting_bytes_max:
                # Its asker does not read. Whoever asks on and on must not fill our memory.
                self.counters["reply dropped: too much waits for the peer"] += 1
            elif self._fits(path, waiting):
                path.queue(waiting)
            return
        peer = self.book.get(peer_id)
        self._reply_deadlines.set((peer_id, token), self.now() + lifetime_s)
        self._arm_timer()
        self._post(peer, waiting)

    # Time

    def _arm_timer(self) -> None:
        """One timer for all deadlines of the node, armed for the earliest."""
        deadlines = (self.exchanges.next_deadline_s(), self._reply_deadlines.next_s())
        at_s = min((d for d in deadlines if d is not None), default=None)
        # One that should have fired already stands still: the machine slept, and so did its timers.
        if at_s is None or (self._timer is not None and self.now() <= self._timer_at_s <= at_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._loop.call_later(max(0.0, at_s - self.now()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._expire()
        self._arm_timer()

    def _expire(self) -> None:
        now = self.now()
        for exchange, passed in self.exchanges.expire(now):
            if passed is Passed.SOFT:
                exchange.sink.pass_soft_timeout()
                continue
            self.take_back(exchange.peer_id, exchange)
            summary = f"no reply to {exchange.kind!r} from {exchange.peer_id} in time"
            exchange.sink.fail(HardTimeout(summary, may_have_run=exchange.given))
        for peer_id, token in self._reply_deadlines.due(now):
            self.take_back(peer_id, token)

    def _clean_up(self) -> None:
        """Now and then: what is idle, unproven, or was superseded and has nothing left to do."""
        now = self.now()
        self._notice_sleep(now)
        self._expire()
        self.channels.expire(now)
        if self.relaying.server is not None:
            self.relaying.server.leases.expire(now)
        relays = self._relays_in_use()
        for peer in self.book.all():
            self._listen(peer, now, is_relay=peer.peer_id in relays)
            for path in peer.others:
                if not path.outbox and now - path.used_s > DRAIN_S:
                    self.lose_path(path, "superseded by another path")
        self.comms.clean_up()
        interval_s = self.config.clean_up_interval_s
        self._cleaner = self._loop.call_later(interval_s, self._clean_up)

    def _notice_sleep(self, now: float) -> None:
        """A machine that slept has connections of yesterday, and nobody told its timers."""
        slept_s = now - self._cleaned_up_s - self.config.clean_up_interval_s
        self._cleaned_up_s = now
        if slept_s > self.config.silent_path_s:
            self.counters["this machine was asleep"] += 1
            self.comms.drop_all("this machine was asleep")
            self.publisher.look_again()

    def _relays_in_use(self) -> set[NodeId]:
        """Relays that somebody waits for an answer through."""
        strategies = self.channels.relays_dialled()
        for peer in self.book.all():
            if peer.relayed is not None and self.exchanges.count_of(peer.peer_id):
                strategies.append(peer.relayed.strategy)
        return {one.relay_id for one in strategies if isinstance(one, RelayStrat)}

    def _listen(self, peer: Peer, now: float, *, is_relay: bool) -> None:
        """Notice that nobody is there any more, while somebody waits for a reply."""
        waited_for = self.exchanges.count_of(peer.peer_id)
        for path in peer.paths:
            if not (waited_for or path.silence.is_asked or (is_relay and path is peer.direct)):
                continue
            match path.silence.look(now, path.heard_s, self.config.silent_path_s):
                case Verdict.ASK:
                    path.queue_control(item(ItemType.PING, b""))
                case Verdict.GIVE_UP:
                    self.counters["path given up: silent"] += 1
                    self.lose_path(path, f"silent for {now - path.heard_s:.0f} s", at_once=True)
                case Verdict.FINE:
                    pass

    # The end

    async def close(self) -> None:
        """End every exchange with :class:`NodeClosed`, say so to the peers, and leave nothing."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._timer, self._cleaner):
            if timer is not None:
                timer.cancel()
        await self.publisher.close()
        if self.relaying.listener is not None:
            await self.relaying.listener.close()
        searches = []
        for peer in self.book.all():
            searches += [s.task for s in (peer.search, peer.direct_search) if s is not None]
            for waiting in peer.take_waiting():
                if not isinstance(waiting.token, Exchange):
                    self._fail(waiting.token, NodeClosed())
        for task in searches:
            task.cancel()
        await asyncio.gather(*searches, return_exceptions=True)
        for exchange in self.exchanges.all():
            self.exchanges.close(exchange)
            exchange.sink.fail(NodeClosed(may_have_run=exchange.given))
        await self.handlers.close()
        # Relayed paths first: their goodbye travels over the direct paths to the relays.
        paths = [path for peer in self.book.all() for path in peer.paths]
        for path in sorted(paths, key=lambda path: not path.relayed):
            path.say_close()
        await self.comms.close()
        for path in paths:
            self.channels.close(path)

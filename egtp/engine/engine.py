"""The engine: wires connections, channels, peers, exchanges and handlers together.

Every call and callback runs on one event loop (R15), so nothing here is locked. The intelligence is
in the machines that the engine drives, and in the other modules of this room, one idea each. This
one decides only who is told what, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Final

from egtp.admission import Admit
from egtp.channel.sealed import ItemType, item
from egtp.config import NodeConfig
from egtp.deadline_timer import DeadlineTimer
from egtp.discovery_service import Introduction
from egtp.engine.answering import Answering
from egtp.engine.asking import Asking
from egtp.engine.carriers import ConnectionCarrier, PeerCarrier
from egtp.engine.ending import Ending
from egtp.engine.intake import Intake
from egtp.engine.records import Records
from egtp.engine.routes import Routes
from egtp.engine.searching import Searching
from egtp.engine.upkeep import Upkeep
from egtp.environment import Environment, nonces
from egtp.errors import FastFail, FastFailReason, NodeClosed
from egtp.events import Observer
from egtp.limits.accept_limits import RelayedInitiations
from egtp.lookup import LookupService
from egtp.open_query import PeerExchange, Sending
from egtp.own.address_check import CHECK_KIND
from egtp.own.address_watch import AddressWatch
from egtp.own.dialling_for_others import Verifier
from egtp.own.friends import FIND_KIND, STORE_KIND, Friends
from egtp.own.own_record import OwnRecord, SequenceStore
from egtp.own.publishing import Publisher
from egtp.paths.arrival import Arrival
from egtp.paths.busy_poll import BusyPoll, PollingTurns
from egtp.paths.channels import SecureChannels
from egtp.paths.path import Path
from egtp.paths.turns import Turns
from egtp.queries.early import Early
from egtp.queries.exchange import Exchange
from egtp.reaching.address_policy import Interface
from egtp.reaching.dialling import Dialler
from egtp.reaching.peer import Peer
from egtp.reaching.peers import PeerBook
from egtp.reaching.reaching import Reacher
from egtp.relay.relaying import Relaying
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.values.attempts import AttemptReason
from egtp.values.comm_record import INCARNATION_BYTES, SignedCommRecord
from egtp.values.comm_strat import Carrier
from egtp.values.identity import Identity, NodeId

__all__ = ["Engine"]


class Engine:
    """All state of a node. :class:`egtp.node.Node` is its public face."""

    is_closed = False

    def __init__(
        self,
        identity: Identity,
        sequences: SequenceStore,
        lookup: LookupService | None,
        publishes_to: Callable[[], LookupService | None],
        config: NodeConfig,
        environment: Environment,
        observer: Observer | None,
        friends: Friends | None,
        admit: Admit,
    ) -> None:
        self.is_welcome: Final = admit
        self.config: Final = config
        self.environment: Final = environment
        self.counters: Final[Counter[str]] = Counter()
        self.me: Final = identity.node_id
        incarnation = environment.entropy(INCARNATION_BYTES)
        self.now: Final = environment.elapsed
        self.unix_time: Final = environment.unix_time
        self.entropy: Final = environment.entropy
        self.loop: Final = asyncio.get_running_loop()
        self._turns: Final = self._make_turns()
        self.soon: Final = self._turns.soon
        self.at_once: Final = self._turns.at_once
        self._cleaner: asyncio.TimerHandle | None = None
        self._cleaned_up_s = environment.elapsed()
        self._arrivals: dict[int, Arrival] = {}

        self.nonce: Final = nonces(environment.entropy).__next__
        self.book: Final = PeerBook(config.peers_max, config.known_strangers_max, self._is_needed)
        self.asking: Final = Asking(self, self.me, self.book, config, self.counters, self.nonce)
        self.exchanges: Final = self.asking.exchanges
        self.answering: Final = Answering(self, self.me, config, self.counters, self.nonce)
        self.handlers: Final = self.answering.handlers
        self.comms: Final = TCPCommsHandler(
            self, config, environment.elapsed, self.counters, observer
        )
        self.channels: Final = SecureChannels(
            identity,
            config.network,
            incarnation,
            config.limits,
            environment,
            self.counters,
            self,
            self.answering.answers,
        )
        self.own: Final = OwnRecord(
            identity,
            incarnation,
            sequences,
            environment.unix_time,
            config.record_lifetime_s,
            self.answering.answers.signed_anew,
            lambda: () if friends is None else friends.announced,
            self._own_record_not_stored,
        )
        self.publisher: Final = Publisher(
            self.me,
            self.own,
            publishes_to,
            self._push_record,
            self.network_changed,
            self._wants_relays,
            config,
            environment,
            self.counters,
            observer,
        )
        self.dialler: Final = Dialler(self, self.channels, self.comms, config)
        self.reacher: Final = Reacher(self, self.me, self.dialler, lookup, config)
        self.relaying: Final = Relaying(
            self,
            identity.channel_key,
            RelayedInitiations(config.relayed_initiations_per_s, environment.elapsed()),
        )
        self.searching: Final = Searching(self, self.book, self.reacher, self.asking, observer)
        self.routes: Final = Routes(
            self,
            self.me,
            self.book,
            self.channels,
            self.comms,
            self.searching,
            self.asking,
            self.relaying,
            config,
            self.counters,
            observer,
        )
        self.upkeep: Final = Upkeep(
            self.me,
            self.book,
            self.channels,
            self.searching,
            self.routes,
            self.relaying,
            self.asking,
            config,
            self.counters,
        )
        self.records: Final = Records(
            self.me,
            self.own,
            self.publisher,
            self.book,
            self.dialler.backoff,
            self.searching,
            self.relaying,
            environment,
            self.counters,
            observer,
        )
        self.intake: Final = Intake(
            self.asking, self.answering, self.routes, self.relaying, self.records, self.counters
        )
        self._timer: Final = DeadlineTimer(
            self.loop, self.now, self.exchanges.next_deadline_s, self.asking.expire
        )
        self._name_what_the_parts_ask_for()
        self.addresses: Final = AddressWatch(
            self, config, environment.local_addresses, self.counters
        )
        self.verifier: Final = Verifier(
            self, self.channels, self.comms, self.book, config, self.counters
        )
        self._answer_reserved_kinds(friends)
        self._ending: Final = Ending(
            self,
            self.book,
            self.channels,
            self.comms,
            self.routes,
            self.searching,
            self.asking,
            self.answering,
            self.relaying,
            self.publisher,
            self.addresses,
            config,
        )
        self.close: Final = self._ending.close
        self.disconnect: Final = self._ending.disconnect

    def _name_what_the_parts_ask_for(self) -> None:
        """Bind what the parts ask of their host: most of it is done by other parts."""
        self.best_path = self.book.best_path
        self.paths_to = self.book.paths_to
        self.ask = self.asking.ask
        self.settled = self.exchanges.settled
        self.settled_except = self.exchanges.settled_except
        self.early_for = self.asking.early_for
        self.early_is_over = self.asking.early_is_over
        self.early_accepted = self.asking.early_accepted
        self.answer_by_another_path = self.asking.answer_by_another_path
        self.seek = self.searching.seek
        self.not_sought = self.searching.not_sought
        self.connect = self.searching.connect
        self.connect_relay = self.searching.connect_relay
        self.admits = self.routes.admits
        self.lose_path = self.routes.lose
        self.asked_in_vain = self.routes.asked_in_vain
        self.writable = self.routes.writable
        self.why_keep = self.routes.why_keep
        self.session_unknown = self.routes.session_unknown
        self.expect_hint = self.relaying.expect_hint
        self.receive_packet = self.channels.receive
        self.unconfirmed_bytes = self.channels.unconfirmed_bytes
        self.opened = self.intake.opened
        self.learn = self.records.learn
        self.learned_record = self.records.came_in_handshake
        self.known_record = self.records.known
        self.own_record = self.records.own
        self.announce = self.records.announce
        self.leases_changed = self.records.leases_changed
        self.arm_timer = self._timer.arm
        self.uploads = self.answering.uploads

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

    def start(self) -> None:
        self._clean_up()
        self.addresses.start()
        self.publisher.start()

    # The world

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
        # In a turn of its own, since handlers are begun outside of any task.
        self.loop.call_soon(self._deliver_to_self, message)

    def _deliver_to_self(self, message: PeerExchange | Sending) -> None:
        if isinstance(message, Exchange) and not self.exchanges.is_open(message):
            return  # it has ended meanwhile
        self.intake.deliver(None, self.me, bytes(message.message[:]), 0)

    def cancel_own(self, reference: bytes) -> None:
        self.handlers.cancel(self.me, reference)

    def answer_own(self, reply: bytes) -> None:
        self.intake.deliver(None, self.me, reply, 0)

    # Relays

    async def ask_directly(
        self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
    ) -> bytes:
        """Query a peer once there is a direct path to it, dialled if necessary, all within
        ``timeout_s``."""
        until_s = self.now() + timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.searching.connect(self.book.get(peer_id))
        left_s = until_s - self.now()
        if left_s <= 0:
            late = f"no direct path to {peer_id} within {timeout_s:g} s"
            raise FastFail(late, reason=FastFailReason.NO_TIME)
        return await self.ask_peer(peer_id, kind, body, left_s)

    async def ask_peer(self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float) -> bytes:
        """Send a query of the engine's own by any path, and return the reply."""
        if self.is_closed:
            raise NodeClosed
        outcome: asyncio.Future[bytes] = self.loop.create_future()
        exchange = self.asking.begin(peer_id, kind, body, timeout_s, None, outcome)
        try:
            return await outcome
        except asyncio.CancelledError:
            if exchange is not None:
                self.asking.abandon(exchange)
            raise

    # Records

    def meet(self, introduction: Introduction) -> None:
        """Take note of a relay server that the discovery service introduced."""
        self.want(introduction.peer_id)
        if introduction.record is not None:
            self.learn(introduction.record, "discovery")

    def _own_record_not_stored(self, error: Exception) -> None:
        self.publisher.not_signed(error)

    def _push_record(self, record: SignedCommRecord) -> None:
        self.records.push(record)

    @property
    def near(self) -> tuple[Interface, ...]:
        """The local networks in which private addresses may be dialled."""
        return self.addresses.near

    # Paths

    def path_waits(self, path: Path) -> None:
        peer = self.book.find(path.peer_id)
        if peer is not None:
            self.book.watch(peer)  # even if nobody waits for a reply on the path

    def confirmed(self, path: Path) -> None:
        self.routes.confirmed(path)
        self.addresses.opened(path)
        if self.publisher.failure is not None and self._was_cut_off_until(path):
            self.publisher.look_again()

    def _was_cut_off_until(self, path: Path) -> bool:
        """Whether ``path`` is the first that this node has dialled after having had none: the line
        may be up again, which nothing else on this machine shows. One that somebody may open again
        and again beside others says nothing."""
        others = (peer.direct for peer in self.book.all())
        return path.dialled and not path.relayed and all(it in (None, path) for it in others)

    def reject(self, arrival: Arrival) -> None:
        connection = self.comms.connection(arrival.connection)
        if connection is not None:
            connection.abort(AttemptReason.NOT_EGTP)

    def dialled_back(self, peer_id: NodeId, token: bytes, arrival: Arrival) -> None:
        if arrival.observed is not None:
            self.addresses.arrived(peer_id, token, arrival.connection, arrival.observed.ip)

    def dialled_ourselves(self, arrival: Arrival) -> None:
        self.counters["dialled ourselves"] += 1
        self.reject(arrival)

    # The machine

    def _wants_relays(self) -> bool:
        return self.relaying.listener is not None

    def network_changed(self) -> None:
        """This machine is on another network, or back on one, as the lookup service shows when it
        works again: that a peer could not be reached before means nothing any more."""
        self.dialler.network_changed()
        self.searching.network_changed()
        self.publisher.network_changed()
        if self.relaying.listener is not None:
            self.relaying.listener.network_changed()

    def network_lost(self) -> None:
        """This machine has no address any more. Connections stay: it may have the same again in a
        moment. But publish, since whoever runs the node is told whether that works."""
        self.publisher.look_again()

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

    def closed(self, connection: TCPConnection, reason: str) -> None:
        self._arrivals.pop(connection.number, None)
        self.routes.connection_closed(connection, reason)

    def confirmed_on(self, connection: TCPConnection) -> float | None:
        path = self.channels.path_of(connection.number)
        return path.used_s if path is not None and path.confirmed else None

    def held_back(self, connection: TCPConnection) -> None:
        """Reading is throttled, so a ping from the other side waits behind everything not read yet:
        say unasked that this node is alive."""
        path = self.channels.path_of(connection.number)
        if path is not None and path.confirmed and not path.outbox:
            path.queue_control(item(ItemType.PADDING))

    def want(self, peer_id: NodeId) -> Peer:
        """Somebody here wants to reach the peer: from now on, it is no stranger."""
        peer = self.book.get(peer_id)
        if not peer.is_wanted:
            self.book.want(peer)
            self.comms.want(peer_id)
            self.routes.want(peer_id)
        return peer

    def knows(self, peer_id: NodeId) -> bool:
        """Whether somebody here has wanted to reach the peer; if not, it is a stranger, even with a
        lease at this node."""
        peer = self.book.find(peer_id)
        return (
            (peer is not None and peer.is_wanted)
            or bool(self.exchanges.count_of(peer_id))
            or self.relaying.chose(peer_id)
        )

    def _is_needed(self, peer_id: NodeId) -> bool:
        return bool(self.exchanges.count_of(peer_id)) or self.relaying.keeps(peer_id)

    # Now and then

    def _clean_up(self) -> None:
        """Now and then, end what is idle, overdue, unproven, or superseded and without work."""
        # First, so that an exception below does not end the cleaning up for good.
        interval_s = self.config.clean_up_interval_s
        self._cleaner = self.loop.call_later(interval_s, self._clean_up)
        now = self.now()
        self._notice_sleep(now)
        self.asking.expire(now)
        self.channels.expire(now)
        if self.relaying.server is not None:
            self.relaying.server.leases.expire(now)
        self.upkeep.look(now)
        self.asking.look(now)
        self.answering.look(now, self.own.current.sequence)
        self.comms.clean_up()

    def _notice_sleep(self, now: float) -> None:
        """After a sleep of the machine, its connections are stale and its timers are late. Those
        that it has begun since it woke up, a moment ago, are not."""
        due_s = self._cleaned_up_s + self.config.clean_up_interval_s
        self._cleaned_up_s = now
        if now - due_s > self.config.silent_path_s:
            self.counters["this machine was asleep"] += 1
            self.comms.drop_all("this machine was asleep", begun_by_s=due_s)
            self.network_changed()
            self.publisher.look_again()

    # The end

    def stop(self) -> None:
        """From now on nothing is begun, and no timer runs."""
        self.is_closed = True
        self._timer.cancel()
        if self._cleaner is not None:
            self._cleaner.cancel()

"""Secure channels: turns packets into proven peers and opened items, and the other way round.

No sockets and no timers: packets come in with the route they came by, packets go out through the
strategy of a path. What this module learns it tells its :class:`ChannelEvents`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import (
    RECORD_ROOM_BYTES,
    InitiationPayload,
    Initiator,
    PeerLimits,
    Responder,
    ResponsePayload,
    SessionKeys,
)
from egtp.channel.packet import (
    Data,
    Initiation,
    Response,
    UnknownSession,
    decode_packet,
)
from egtp.channel.sealed import ItemType, Sealed, item, write_sealed
from egtp.channel.session import InOrder, Session, SlidingWindow
from egtp.channel.unconfirmed import UnconfirmedSessions
from egtp.environment import Environment
from egtp.errors import (
    HandshakeFailed,
    InvalidPacket,
    InvalidRecord,
    NotSent,
    RemoteProtocolError,
)
from egtp.paths.path import Path, PathOwner
from egtp.paths.path_life import PathEvent
from egtp.queries.answers import Answers
from egtp.queries.early import Early, read_early
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Address, Carrier, CommStrat, RelayStrat, TCPStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity, NodeId

__all__ = ["Arrival", "ChannelEvents", "Dial", "SecureChannels"]


class Arrival(NamedTuple):
    """How a packet came: the strategy that leads back, and who is said to have sent it."""

    strategy: CommStrat
    carrier: Carrier
    observed: Address | None = None
    """The other end's address, on a TCP connection."""

    @property
    def connection(self) -> int | None:
        return self.strategy.connection if isinstance(self.strategy, TCPStrat) else None

    @property
    def relayed(self) -> bool:
        return isinstance(self.strategy, RelayStrat)


class Dial:
    """A handshake that this side began. ``done`` is called once, with a path or a cause."""

    def __init__(
        self,
        contact: Contact,
        initiator: Initiator,
        packet: bytes,
        index: int,
        strategy: CommStrat,
        carrier: Carrier,
        done: Callable[[Path | Cause], None],
        early: Early | None,
        *,
        at_ms: int,
        is_check: bool = False,
    ) -> None:
        self.contact: Final = contact
        self.initiator: Final = initiator
        self.packet: Final = packet
        self.index: Final = index
        self.strategy: Final = strategy
        self.carrier: Final = carrier
        self.done: Final = done
        self.early: Final = early
        self.at_ms: Final = at_ms
        """How long this node had been running."""
        self.is_check: Final = is_check
        """Whether it is only to arrive; then no response is taken."""

    @property
    def relayed(self) -> bool:
        return isinstance(self.strategy, RelayStrat)

    def send(self) -> None:
        """Send the initiation, or the same again: the responder answers both alike.

        Raises :class:`NotSent`.
        """
        if self.early is not None and self.relayed:
            self.early.given()
        self.strategy.send(self.packet, self.carrier)


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


class SecureChannels:
    """All handshakes and sessions of a node."""

    def __init__(
        self,
        identity: Identity,
        network: str,
        incarnation: bytes,
        limits: PeerLimits,
        environment: Environment,
        counters: Counter[str],
        events: ChannelEvents,
        answers: Answers,
    ) -> None:
        self._identity = identity
        self._answers = answers
        self._network = network
        self._incarnation = incarnation
        self._limits = limits
        self._environment = environment
        self._counters = counters
        self._events = events
        self._started_s = environment.elapsed()
        self._paths: dict[int, Path] = {}
        self._by_connection: dict[int, Path] = {}
        self._by_remote: dict[int, Path] = {}
        """The confirmed relayed paths, by what the other side calls their session. It chose that at
        random: of two that are called alike one is made up, and only the newer one gets notes."""
        self._dials: dict[int, Dial] = {}
        self._unconfirmed: UnconfirmedSessions[Path] = UnconfirmedSessions()

    # Dialling

    def dial(
        self,
        contact: Contact,
        strategy: CommStrat,
        carrier: Carrier,
        done: Callable[[Path | Cause], None],
        early: Early | None = None,
        *,
        check: bytes | None = None,
    ) -> Dial:
        """Begin a handshake with the peer of ``contact`` and send its first packet, with ``early``
        in it. Raises :class:`NotSent` and :class:`HandshakeFailed` (a key of low order).

        With ``check``, the token of a peer that asked to be dialled, that packet is all there is:
        ``done`` is told a cause in any case.
        """
        index = self._new_index()
        initiator = Initiator(
            self._identity, self._network, contact.key, contact.channel_key, index
        )
        early_bytes = b"" if early is None else early.plaintext
        if contact.sequence == 0:
            early_bytes = write_sealed(0, 0, [item(ItemType.PADDING, bytes(RECORD_ROOM_BYTES))])
        payload = InitiationPayload(
            record=self._events.own_record().encode(),
            time_ms=int(self._environment.unix_time() * 1000),
            responder_sequence=contact.sequence,
            responder_incarnation=contact.incarnation,
            incarnation=self._incarnation,
            limits=self._limits,
            early=early_bytes,
            uptime_ms=self._uptime_ms(),
            check=check,
        )
        packet = initiator.initiate(payload, self._ephemeral()).encode()
        dial = Dial(
            contact,
            initiator,
            packet,
            index,
            strategy,
            carrier,
            done,
            early,
            at_ms=payload.uptime_ms,
            is_check=check is not None,
        )
        self._dials[index] = dial
        try:
            dial.send()
        except NotSent:
            del self._dials[index]
            raise
        return dial

    def abandon(self, dial: Dial) -> None:
        """Forget a handshake; ``done`` is not called any more."""
        self._dials.pop(dial.index, None)

    # Packets

    def receive(self, data: bytes, arrival: Arrival) -> None:
        """Take a packet from anybody. Never raises; what is of no use is counted."""
        try:
            packet = decode_packet(data)
            if isinstance(packet, Data):
                self._receive_data(packet, arrival, data)
            elif isinstance(packet, Initiation):
                self._receive_initiation(packet, data, arrival)
            elif isinstance(packet, Response):
                self._receive_response(packet, arrival)
            else:
                self._receive_note(packet, arrival)
        except RemoteProtocolError as error:
            self._counters[f"dropped: {error}"] += 1
            self._events.reject(arrival)
        except NotSent:
            self._counters["answer not sent: the way back is gone"] += 1

    def _receive_data(self, packet: Data, arrival: Arrival, data: bytes) -> None:
        path, relayed = self._paths.get(packet.receiver_index), arrival.relayed
        if path is None and relayed and packet.receiver_index in self._dials:
            # An answer to early data has overtaken the response. It is asked for again.
            self._counters["data packet before its session"] += 1
            return
        if path is None or path.relayed != relayed:
            self._counters["data packet of an unknown session"] += 1
            if relayed:
                note = UnknownSession(packet.receiver_index, data[-16:])
                arrival.strategy.send(note.encode(), arrival.carrier)
            else:
                self._events.reject(arrival)
            return
        strategy = path.strategy
        # Of a connection it is the same object; comparing addresses takes as long as unsealing.
        if strategy is not arrival.strategy and not path.relayed and strategy != arrival.strategy:
            raise InvalidPacket("a data packet of another connection's session")
        try:
            sealed, transit_ms = path.open(packet)
        except InvalidPacket as error:
            if not path.relayed:
                raise
            # Anybody can put such a packet into a relay; the session is none the worse for it.
            self._counters[f"dropped: {error}"] += 1
            return
        if path.relayed:
            path.reroute(arrival.strategy)
        if not path.confirmed:
            self._unconfirmed.remove(path)
            self._confirm(path)
        if not path.closed:
            self._events.opened(path, sealed, transit_ms)

    def _receive_initiation(self, packet: Initiation, data: bytes, arrival: Arrival) -> None:
        again = self._unconfirmed.find(data)
        if again is not None:
            arrival.strategy.send(again.response, arrival.carrier)
            return
        if arrival.connection is not None and (
            arrival.connection in self._by_connection
            or any(dial.strategy == arrival.strategy for dial in self._dials.values())
        ):
            raise HandshakeFailed("a second initiation on one connection")
        responder = Responder(self._identity, self._network, packet, self._events.known_record)
        record = responder.record
        peer_id = record.peer_id
        if peer_id == self._identity.node_id:
            self._events.dialled_ourselves(arrival)
            return
        self._check_not_superseded(record)
        if responder.payload.check is not None:
            # Somebody was asked to dial us, and here he is. That is all.
            self._events.dialled_back(peer_id, responder.payload.check, arrival)
            self._events.reject(arrival)
            return
        for displaced in self._unconfirmed.displace(peer_id, relayed=arrival.relayed):
            whose = "of its peer" if displaced.peer_id == peer_id else "of another peer"
            self._counters[f"unconfirmed session displaced by a newer one {whose}"] += 1
            # It has proven nothing, so nobody was told of it, and nobody is told that it is gone.
            self.close(displaced)
            if not displaced.relayed:
                self._events.reject(Arrival(displaced.strategy, arrival.carrier))
        early = self._accept_early(responder)
        own = self._events.own_record()
        now = self._environment.elapsed()
        payload = ResponsePayload(
            incarnation=self._incarnation,
            uptime_ms=self._uptime_ms(),
            early_accepted=early is not None,
            observed=arrival.observed,
            time_ms=int(self._environment.unix_time() * 1000),
            limits=self._limits,
            record=own.encode() if own.sequence > responder.payload.responder_sequence else None,
        )
        index = self._new_index()
        response, keys = responder.respond(payload, index, self._ephemeral())
        encoded = response.encode()
        path = self._new_path(
            peer_id,
            index,
            packet.sender_index,
            keys,
            arrival,
            responder.payload.limits,
            responder.payload.incarnation,
            responder.payload.uptime_ms,
            dialled=False,
            dialled_at_ms=responder.payload.uptime_ms,
        )
        path.record = record
        self._unconfirmed.add(path, peer_id, data, encoded, now, relayed=arrival.relayed)
        arrival.strategy.send(encoded, arrival.carrier)
        if early is not None:
            self._events.opened(path, early, 0)

    def _accept_early(self, responder: Responder) -> Sealed | None:
        """The early data of an initiation, if it may be looked at."""
        payload = responder.payload
        if not (payload.early and payload.responder_sequence):
            # Who knows no record of ours says nothing early: that is room for it in the response.
            return None
        early = read_early(
            payload,
            self._incarnation,
            self._answers.early_floor,
            int(self._environment.unix_time() * 1000),
            self._events.takes_early,
        )
        if early is not None and not self._answers.has_room_for(
            responder.record.peer_id,
            payload.incarnation,
            stranger=not self._events.knows(responder.record.peer_id),
        ):
            early = None
        accepted = "accepted" if early is not None else "challenged"
        self._counters[f"early data {accepted}"] += 1
        return early

    def _receive_response(self, packet: Response, arrival: Arrival) -> None:
        dial = self._dials.get(packet.receiver_index)
        if dial is None or dial.is_check or not _same_route(dial.strategy, arrival):
            self._counters["response to no dial of ours"] += 1
            if not arrival.relayed:
                self._events.reject(arrival)
            return
        try:
            payload, keys = dial.initiator.finish(packet)
            record = self._proven_record(dial.contact, payload)
        except RemoteProtocolError as error:
            self._counters[f"dropped: {error}"] += 1
            if not arrival.relayed:
                # On a TCP connection nobody but the one at the other end can have sent it.
                del self._dials[dial.index]
                self._events.reject(arrival)
                dial.done(Cause(AttemptReason.NOT_PROVEN, str(error)))
            return
        del self._dials[dial.index]
        path = self._new_path(
            dial.contact.peer_id,
            dial.index,
            packet.sender_index,
            keys,
            arrival,
            payload.limits,
            payload.incarnation,
            payload.uptime_ms,
            dialled=True,
            dialled_at_ms=dial.at_ms,
        )
        path.record = record
        path.observed = payload.observed
        if arrival.relayed or not path.is_writable:
            # Nobody is told of a path on which the proof that we live cannot be sent.
            path.prove()
            if path.closed:
                dial.done(Cause(AttemptReason.LOST))
                return
        if dial.early is not None and payload.early_accepted:
            self._events.early_accepted(path, dial.early)
        if not self._confirm(path):
            dial.done(Cause(AttemptReason.LOST))
            return
        # What waits proves it as well, and saves a packet.
        path.prove()
        dial.done(path)

    def _receive_note(self, note: UnknownSession, arrival: Arrival) -> None:
        # Its index is of the session as *we* are known by there; only the tail can tell whether it
        # was asked for. Notes are free to send, so one must not cost a look at all paths.
        path = self._by_remote.get(note.receiver_index) if arrival.relayed else None
        if path is not None and path.sent_lately(note.tail):
            self._events.session_unknown(path)
            return
        self._counters["unknown-session note that matches nothing sent"] += 1
        if not arrival.relayed:
            self._events.reject(arrival)

    # Sessions

    def close(self, path: Path) -> None:
        """Forget a path. A second time does nothing."""
        path.on(PathEvent.END)
        if self._paths.pop(path.session.index, None) is not None:
            self._unconfirmed.remove(path)
            if self._by_remote.get(path.session.remote_index) is path:
                del self._by_remote[path.session.remote_index]
            if path.asker is not None:
                self._answers.session_ended(path.asker)
            strategy = path.strategy
            if isinstance(strategy, TCPStrat) and strategy.connection is not None:
                self._by_connection.pop(strategy.connection, None)

    def connection_lost(self, connection: int, reason: str) -> Path | None:
        """A TCP connection is gone, and with it every dial over it, and its path, if any."""
        for dial in list(self._dials.values()):
            if (
                isinstance(dial.strategy, TCPStrat)
                and dial.strategy.connection == connection
                and self._dials.pop(dial.index, None) is not None
            ):
                dial.done(Cause.of(reason))
        path = self._by_connection.get(connection)
        if path is not None:
            self.close(path)
        return path

    def path_of(self, connection: int) -> Path | None:
        """The path over a TCP connection."""
        return self._by_connection.get(connection)

    def expire(self, now_s: float) -> None:
        """Forget the sessions that were never confirmed."""
        for path in self._unconfirmed.expire(now_s):
            self._counters["session never confirmed"] += 1
            self.close(path)

    @property
    def unconfirmed(self) -> int:
        """How many sessions wait for their first data packet."""
        return len(self._unconfirmed)

    def unconfirmed_bytes(self) -> int:
        """What waits for those who have proven nothing yet."""
        return sum(path.outbox.waiting_bytes for path in self._unconfirmed.paths())

    def relays_dialled(self) -> list[CommStrat]:
        """The ways of the open handshakes that go through relays."""
        return [dial.strategy for dial in self._dials.values() if dial.relayed]

    @property
    def dialling(self) -> int:
        """How many handshakes of ours are open."""
        return len(self._dials)

    def _new_path(
        self,
        peer_id: NodeId,
        index: int,
        remote_index: int,
        keys: SessionKeys,
        arrival: Arrival,
        theirs: PeerLimits,
        incarnation: bytes,
        uptime_ms: int,
        *,
        dialled: bool,
        dialled_at_ms: int,
    ) -> Path:
        now = self._environment.elapsed()
        session = Session(
            index=index,
            remote_index=remote_index,
            send_key=keys.send,
            receive_key=keys.receive,
            window=SlidingWindow() if arrival.relayed else InOrder(),
            started_s=now,
        )
        path = Path(
            peer_id,
            session,
            arrival.strategy,
            arrival.carrier,
            self._events,
            relayed=arrival.relayed,
            dialled=dialled,
            dialled_at_ms=dialled_at_ms,
            theirs=theirs,
            ours=self._limits,
            incarnation=incarnation,
            peer_started_s=now - uptime_ms / 1000,
            asker=self._answers.session_began(
                peer_id,
                incarnation,
                self._events.own_record().sequence,
                stranger=not self._events.knows(peer_id),
            ),
        )
        self._paths[index] = path
        if arrival.connection is not None:
            self._by_connection[arrival.connection] = path
        return path

    def _confirm(self, path: Path) -> bool:
        """The other end is proven. False if there is no room for it."""
        path.on(PathEvent.PROOF)
        if not self._events.admits(path):
            self.close(path)
            return False
        if path.relayed:
            self._by_remote[path.session.remote_index] = path
        if path.record is not None:
            self._events.learned_record(path.record)
        self._events.confirmed(path)
        return True

    def _check_not_superseded(self, record: SignedCommRecord) -> None:
        known = self._events.known_record(record.peer_id)
        if (
            known is not None
            and known.sequence > record.sequence
            and known.channel_key() != record.channel_key()
        ):
            raise InvalidRecord("the initiator's channel key was replaced by a newer record")

    def _proven_record(self, contact: Contact, payload: ResponsePayload) -> SignedCommRecord | None:
        """The record that the responder gave, if it proves what was dialled.

        Raises :class:`InvalidRecord` or :class:`HandshakeFailed`.
        """
        if payload.record is None:
            if contact.sequence == 0:
                # Only somebody else said that this identity has this channel key.
                raise HandshakeFailed("the peer did not show its record")
            return None
        record = SignedCommRecord.decode(payload.record)
        if record.peer_id != contact.peer_id or record.channel_key() != contact.channel_key:
            raise InvalidRecord("the responder's record is not of the peer that was dialled")
        return record

    def _uptime_ms(self) -> int:
        return int((self._environment.elapsed() - self._started_s) * 1000)

    def _new_index(self) -> int:
        while True:
            index = int.from_bytes(self._environment.entropy(8), "big")
            if index not in self._paths and index not in self._dials:
                return index

    def _ephemeral(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self._environment.entropy(32))


def _same_route(strategy: CommStrat, arrival: Arrival) -> bool:
    """Whether an answer came the way the question went: the same connection, or any relay."""
    return arrival.relayed if isinstance(strategy, RelayStrat) else strategy == arrival.strategy

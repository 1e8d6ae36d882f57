"""Handshakes: those that this side begins, and its responses to those of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from egtp.channel.handshake import (
    RECORD_ROOM_BYTES,
    InitiationPayload,
    Initiator,
    PeerLimits,
    Responder,
    ResponsePayload,
)
from egtp.channel.packet import Initiation, Response
from egtp.channel.sealed import ItemType, Sealed, item, write_sealed
from egtp.environment import Environment
from egtp.errors import HandshakeFailed, InvalidRecord, NotSent, RemoteProtocolError
from egtp.paths.arrival import Arrival, ChannelEvents
from egtp.paths.path import Path
from egtp.paths.sessions import Sessions
from egtp.queries.answers import Answers
from egtp.queries.early import Early, read_early
from egtp.values.attempts import AttemptReason, Cause
from egtp.values.comm_record import SignedCommRecord
from egtp.values.comm_strat import Carrier, CommStrat
from egtp.values.contact import Contact
from egtp.values.identity import Identity

__all__ = ["NOT_ADMITTED", "Dial", "Handshakes"]

NOT_ADMITTED: Final = "the peer is not admitted"

WRONG_RESPONSES_MAX: Final = 16
"""How many responses to one dial may prove nothing. Each costs two key agreements, and only who has
seen the dial can make them: the relay, which could drop the right one as well, and the peer."""


@dataclass(slots=True, eq=False)
class Dial:
    """A handshake that this side began."""

    contact: Contact
    initiator: Initiator
    packet: bytes
    index: int
    strategy: CommStrat
    carrier: Carrier
    done: Callable[[Path | Cause], None]
    """Called once, with a path or the cause of failure."""
    early: Early | None
    at_ms: int
    """This node's uptime when it dialled."""
    is_check: bool
    """Whether the initiation only has to arrive; then no response is accepted."""
    wrong_responses: int = 0

    @property
    def relayed(self) -> bool:
        return self.strategy.relayed

    def send(self) -> None:
        """Send the initiation, or repeat it: the responder answers both alike.

        Raises :class:`NotSent`.
        """
        if self.early is not None and self.relayed:
            self.early.given()
        self.strategy.send(self.packet, self.carrier)


class Handshakes:
    """Turns handshakes into sessions, and counts those that fail."""

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
        sessions: Sessions,
    ) -> None:
        self._identity: Final = identity
        self._network: Final = network
        self._incarnation: Final = incarnation
        self._limits: Final = limits
        self._environment: Final = environment
        self._counters: Final = counters
        self._events: Final = events
        self._answers: Final = answers
        self._sessions: Final = sessions
        self._started_s: Final = environment.elapsed()
        self.dials: Final[dict[int, Dial]] = {}
        """The open handshakes that this side began, by its own index of their session."""
        self._by_connection: Final[dict[int, Dial]] = {}
        """Those of them that go over a TCP connection; one per connection."""

    # Begun by this side

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
        in it. Raises :class:`NotSent` and :class:`HandshakeFailed` (a key of low order, or a
        connection on which another handshake of this side is open).

        With ``check``, the token of a peer that asked to be dialled, that packet is all there is:
        ``done`` can only get a cause.
        """
        connection = strategy.connection
        if connection in self._by_connection:
            raise HandshakeFailed("a second handshake of this side on one connection")
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
        self.dials[index] = dial
        if connection is not None:
            self._by_connection[connection] = dial
        try:
            dial.send()
        except NotSent:
            self.abandon(dial)
            raise
        return dial

    def abandon(self, dial: Dial) -> None:
        """Forget a handshake without calling ``done``."""
        connection = dial.strategy.connection
        if self.dials.pop(dial.index, None) is not None and connection is not None:
            del self._by_connection[connection]

    def response(self, packet: Response, arrival: Arrival) -> None:
        dial = self.dials.get(packet.receiver_index)
        if dial is None or dial.is_check or not _same_route(dial.strategy, arrival):
            self._counters["response to no dial of ours"] += 1
            if not arrival.relayed:
                self._events.reject(arrival)
            return
        if dial.wrong_responses >= WRONG_RESPONSES_MAX:
            self._counters["response to a dial that has had too many wrong ones"] += 1
            return
        try:
            payload, keys = dial.initiator.finish(packet)
            record = self._proven_record(dial.contact, payload)
        except RemoteProtocolError as error:
            self._counters[f"dropped: {error}"] += 1
            dial.wrong_responses += 1
            if not arrival.relayed:
                # On a TCP connection, only the other end can have sent it.
                self.abandon(dial)
                self._events.reject(arrival)
                dial.done(Cause(AttemptReason.NOT_PROVEN, str(error)))
            return
        self.abandon(dial)
        path = self._sessions.new(
            dial.contact.peer_id,
            dial.index,
            packet.sender_index,
            keys,
            arrival,
            payload,
            dialled=True,
            dialled_at_ms=dial.at_ms,
        )
        path.record = record
        path.observed = payload.observed
        if arrival.relayed or not path.is_writable:
            # Nobody is told of a path on which the proof that we are alive cannot be sent.
            path.prove()
            if path.closed:
                dial.done(Cause(AttemptReason.LOST))
                return
        if dial.early is not None and payload.early_accepted:
            self._events.early_accepted(path, dial.early)
        if not self._sessions.confirm(path):
            dial.done(Cause(AttemptReason.LOST))
            return
        # Messages that wait prove it as well, and save a packet.
        path.prove()
        dial.done(path)

    def connection_lost(self, connection: int, reason: str) -> None:
        """A TCP connection is gone, and with it the dial over it, if any."""
        dial = self._by_connection.get(connection)
        if dial is not None:
            self.abandon(dial)
            dial.done(Cause.of(reason))

    def _proven_record(self, contact: Contact, payload: ResponsePayload) -> SignedCommRecord | None:
        """The record that the responder gave, checked against what was dialled; None if it gave
        none.

        Raises :class:`InvalidRecord` or :class:`HandshakeFailed`.
        """
        if payload.record is None:
            if contact.sequence == 0:
                # So far, only others have said that this identity has this channel key.
                raise HandshakeFailed("the peer did not show its record")
            return None
        record = SignedCommRecord.decode(payload.record)
        if record.peer_id != contact.peer_id or record.channel_key() != contact.channel_key:
            raise InvalidRecord("the responder's record is not of the peer that was dialled")
        return record

    # Begun by others

    def initiation(self, packet: Initiation, data: bytes, arrival: Arrival) -> None:
        again = self._sessions.unconfirmed.find(data)
        if again is not None:
            if not arrival.carrier.takes_more(arrival.strategy):
                # On a connection, the first response is on its way, and copies of it would wait
                # for somebody who has proven nothing.
                raise NotSent(AttemptReason.BUFFER_FULL)
            arrival.answer(again.response)
            return
        if arrival.connection is not None and (
            self._sessions.of_connection(arrival.connection) is not None
            or arrival.connection in self._by_connection
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
            # A peer that dials back at our request: to arrive is all that it has to do.
            self._events.dialled_back(peer_id, responder.payload.check, arrival)
            self._events.reject(arrival)
            return
        if not self._events.is_welcome(peer_id):
            raise HandshakeFailed(NOT_ADMITTED)
        for displaced in self._sessions.unconfirmed.displace(peer_id, relayed=arrival.relayed):
            whose = "of its peer" if displaced.peer_id == peer_id else "of another peer"
            self._counters[f"unconfirmed session displaced by a newer one {whose}"] += 1
            # It was never confirmed, so nobody knows of it, and nobody is told that it is gone.
            self._sessions.close(displaced)
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
        path = self._sessions.new(
            peer_id,
            index,
            packet.sender_index,
            keys,
            arrival,
            responder.payload,
            dialled=False,
            dialled_at_ms=responder.payload.uptime_ms,
        )
        path.record = record
        self._sessions.unconfirmed.add(path, peer_id, data, encoded, now, relayed=arrival.relayed)
        try:
            arrival.answer(encoded)
        finally:
            if early is not None:
                # Even if the response could not be sent: it says that the early data was accepted,
                # and a repeated initiation gets the same response and runs nothing.
                self._events.opened(path, early, 0)

    def _accept_early(self, responder: Responder) -> Sealed | None:
        """The early data of an initiation, if it may run."""
        payload = responder.payload
        if not (payload.early and payload.responder_sequence):
            # A peer that knows no record of ours sends padding: room for one in the response.
            return None
        peer_id = responder.record.peer_id
        early = read_early(
            payload,
            self._incarnation,
            self._answers.early_floor_of(peer_id),
            int(self._environment.unix_time() * 1000),
            self._events.takes_early,
        )
        if early is not None and not self._answers.has_room_for(
            peer_id, payload.incarnation, stranger=not self._events.knows(peer_id)
        ):
            early = None
        accepted = "accepted" if early is not None else "challenged"
        self._counters[f"early data {accepted}"] += 1
        return early

    def _check_not_superseded(self, record: SignedCommRecord) -> None:
        known = self._events.known_record(record.peer_id)
        if (
            known is not None
            and known.sequence > record.sequence
            and known.channel_key() != record.channel_key()
        ):
            raise InvalidRecord("the initiator's channel key was replaced by a newer record")

    def _uptime_ms(self) -> int:
        return int((self._environment.elapsed() - self._started_s) * 1000)

    def _new_index(self) -> int:
        while True:
            index = int.from_bytes(self._environment.entropy(8), "big")
            if index not in self._sessions.by_index and index not in self.dials:
                return index

    def _ephemeral(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self._environment.entropy(32))


def _same_route(strategy: CommStrat, arrival: Arrival) -> bool:
    """Whether a response came the way the dial went: over the same connection, or any relay."""
    return arrival.relayed if strategy.relayed else strategy == arrival.strategy

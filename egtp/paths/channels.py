"""Secure channels: turn packets into proven peers and opened items, and the other way round.

No sockets and no timers: packets come in with the route they arrived by, and go out through the
strategy of a path. Whatever this module learns, it reports to its :class:`ChannelEvents`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from egtp.channel.handshake import PeerLimits
from egtp.channel.packet import Data, Initiation, Response, UnknownSession, decode_packet
from egtp.environment import Environment
from egtp.errors import HandshakeFailed, InvalidPacket, NotSent, RemoteProtocolError
from egtp.paths.arrival import Arrival, ChannelEvents
from egtp.paths.handshakes import NOT_ADMITTED, Handshakes
from egtp.paths.path import Path
from egtp.paths.sessions import Sessions
from egtp.queries.answers import Answers
from egtp.values.comm_strat import CommStrat
from egtp.values.identity import Identity

__all__ = ["SecureChannels"]


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
        self._counters: Final = counters
        self._events: Final = events
        self.sessions: Final = Sessions(limits, environment, events, answers)
        self.handshakes: Final = Handshakes(
            identity,
            network,
            incarnation,
            limits,
            environment,
            counters,
            events,
            answers,
            self.sessions,
        )
        self.dial: Final = self.handshakes.dial
        self.abandon: Final = self.handshakes.abandon
        self.close: Final = self.sessions.close
        self.path_of: Final = self.sessions.of_connection

    def receive(self, data: bytes, arrival: Arrival) -> None:
        """Take a packet from anybody. Never raises; useless packets are counted."""
        try:
            packet = decode_packet(data)
            if isinstance(packet, Data):
                self._receive_data(packet, arrival, data)
            elif isinstance(packet, Initiation):
                self.handshakes.initiation(packet, data, arrival)
            elif isinstance(packet, Response):
                self.handshakes.response(packet, arrival)
            else:
                self._receive_note(packet, arrival)
        except RemoteProtocolError as error:
            self._counters[f"dropped: {error}"] += 1
            self._events.reject(arrival)
        except NotSent:
            self._counters["answer not sent: the way back is gone, or full"] += 1

    def _receive_data(self, packet: Data, arrival: Arrival, data: bytes) -> None:
        path, relayed = self.sessions.by_index.get(packet.receiver_index), arrival.relayed
        if path is None and relayed and packet.receiver_index in self.handshakes.dials:
            # An answer to early data has overtaken the response; its query will be repeated.
            self._counters["data packet before its session"] += 1
            return
        if path is None or path.relayed != relayed:
            self._counters["data packet of an unknown session"] += 1
            if relayed:
                note = UnknownSession(packet.receiver_index, data[-16:])
                arrival.answer(note.encode())
            else:
                self._events.reject(arrival)
            return
        strategy = path.strategy
        # On a connection it is the same object; comparing addresses takes as long as unsealing.
        if strategy is not arrival.strategy and not path.relayed and strategy != arrival.strategy:
            raise InvalidPacket("a data packet of another connection's session")
        try:
            sealed, transit_ms = path.open(packet)
        except InvalidPacket as error:
            if not path.relayed:
                raise
            # Anybody can send such a packet through a relay; it must not harm the session.
            self._counters[f"dropped: {error}"] += 1
            return
        if path.relayed:
            path.reroute(arrival.strategy)
        if not path.confirmed:
            if not self._events.is_welcome(path.peer_id):
                # The application has changed its mind since the handshake. Without this, a peer
                # that always keeps a session unproven could not be got rid of.
                self.sessions.close(path)
                raise HandshakeFailed(NOT_ADMITTED)
            self.sessions.unconfirmed.remove(path)
            self.sessions.confirm(path)
        if not path.closed:
            self._events.opened(path, sealed, transit_ms)

    def _receive_note(self, note: UnknownSession, arrival: Arrival) -> None:
        # It names the session by the index that the *other* side chose; only the tail shows that it
        # answers a packet of ours. Notes are free to send, so none may cost a look at all paths.
        path = self.sessions.by_remote.get(note.receiver_index) if arrival.relayed else None
        if path is not None and path.sent_lately(note.tail):
            self._events.session_unknown(path)
            return
        self._counters["unknown-session note that matches nothing sent"] += 1
        if not arrival.relayed:
            self._events.reject(arrival)

    def connection_lost(self, connection: int, reason: str) -> Path | None:
        """A TCP connection is gone, and with it the dial over it and its path, if any."""
        self.handshakes.connection_lost(connection, reason)
        path = self.path_of(connection)
        if path is not None:
            self.close(path)
        return path

    def expire(self, now_s: float) -> None:
        """Forget the sessions that were not confirmed in time."""
        for path in self.sessions.unconfirmed.expire(now_s):
            self._counters["session never confirmed"] += 1
            self.close(path)

    @property
    def unconfirmed(self) -> int:
        """How many sessions await their first data packet."""
        return len(self.sessions.unconfirmed)

    def unconfirmed_bytes(self) -> int:
        """What waits for peers that have proven nothing yet."""
        return sum(path.outbox.waiting_bytes for path in self.sessions.unconfirmed.paths())

    @property
    def dialling(self) -> int:
        """How many handshakes that this side began are open."""
        return len(self.handshakes.dials)

    def relays_dialled(self) -> list[CommStrat]:
        """The strategies of those of them that go through relays."""
        return [dial.strategy for dial in self.handshakes.dials.values() if dial.relayed]

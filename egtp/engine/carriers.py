"""Carriers, which strategies send with: over one open connection, or to one peer by any route."""

from __future__ import annotations

from egtp.errors import NotSent
from egtp.queries.early import Early
from egtp.relay.relaying import Relaying
from egtp.tcp.comms_handler import TCPCommsHandler
from egtp.tcp.connection import TCPConnection
from egtp.values.comm_strat import CommStrat, RelayStrat, TCPStrat
from egtp.values.identity import NodeId

__all__ = ["ConnectionCarrier", "PeerCarrier"]


class ConnectionCarrier:
    """Moves packets over an open connection, to whoever is at its other end."""

    __slots__ = ("_connection",)

    def __init__(self, connection: TCPConnection) -> None:
        self._connection = connection

    def takes_more(self, _: CommStrat) -> bool:
        connection = self._connection
        return connection.takes_more or connection.is_closed

    def is_throttled(self, _: CommStrat) -> bool:
        return self._connection.throttle is not None

    def send_tcp(self, _: TCPStrat, packet: bytes) -> None:
        self._connection.send(packet)

    def send_relay(self, _: RelayStrat, __: bytes) -> None:
        raise NotSent("a relay needs to be told whom a packet is for")


class PeerCarrier:
    """Moves packets to one peer, by whichever strategy it is given."""

    __slots__ = ("_comms", "_early", "_peer_id", "_relaying", "_written")

    def __init__(
        self,
        peer_id: NodeId,
        comms: TCPCommsHandler,
        relaying: Relaying,
        early: Early | None,
    ) -> None:
        self._peer_id = peer_id
        self._comms = comms
        self._relaying = relaying
        self._early = early
        self._written = None if early is None else early.given

    def takes_more(self, strategy: CommStrat) -> bool:
        if isinstance(strategy, RelayStrat):
            return self._relaying.takes_more(strategy.relay_id)
        connection = self._comms.connection(strategy.connection)
        return connection is None or connection.takes_more

    def is_throttled(self, strategy: CommStrat) -> bool:
        if isinstance(strategy, RelayStrat):
            return False
        connection = self._comms.connection(strategy.connection)
        return connection is not None and connection.throttle is not None

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        self._comms.open(strategy).send(packet, self._written)

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        until_s = None if self._early is None else self._early.deadline_s
        self._relaying.send(strategy.relay_id, self._peer_id, packet, until_s)

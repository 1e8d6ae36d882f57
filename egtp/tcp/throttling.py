"""Throttling: keeps all connections of a node to the set rates (seed II.D, R16).

The machine in :mod:`egtp.limits.throttle` says whose turn it is; this module tells the connections
at the right time. To throttle sending, a connection holds what it may not write; to throttle
receiving, it does not read its socket, so that TCP holds up the other side. A connection without a
limit has no throttle at all, and pays nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from egtp.deadline_timer import DeadlineTimer
from egtp.errors import LocalProtocolError
from egtp.limits.throttle import BURST_S, Throttler
from egtp.tcp.connection import TCPConnection
from egtp.values.identity import NodeId

__all__ = ["Rates", "Throttling"]

READ_BYTES_MIN: Final = 1024
READ_BYTES_MAX: Final = 256 * 1024
"""What is read at a time: what may arrive within BURST_S, between these two."""
READ_RESERVE_BYTES: Final = 16 * 1024
"""What a connection is expected to read when it may read again. Anything above that is paid for
before another connection reads."""
PEERS_MAX: Final = 10_000
"""Peers with a limit of their own. This node's user sets them, so this guards against mistakes."""


class Rates(NamedTuple):
    """Bytes per second, frames included; None for no limit."""

    send: float | None = None
    receive: float | None = None


NO_LIMIT: Final = Rates()


class Throttling:
    """The limits of a node in both directions, and one timer for all connections that wait."""

    def __init__(self, elapsed: Callable[[], float], rates: Rates, each: Rates = NO_LIMIT) -> None:
        """
        :param rates: those of all connections together.
        :param each: those of each connection to a peer without a limit of its own.
        """
        self._elapsed = elapsed
        self._each = each
        self._sending: Throttler[TCPConnection] = Throttler()
        self._receiving: Throttler[TCPConnection] = Throttler(READ_RESERVE_BYTES)
        self._peers: dict[NodeId, Rates] = {}
        self._all = NO_LIMIT
        self._buffer: memoryview | None = None
        """Shared by all connections whose receiving is throttled."""
        self._timer: Final = DeadlineTimer(
            asyncio.get_running_loop(), elapsed, self._next_s, self._give_turns
        )
        self._giving_turns = False
        self.limit_all(rates, ())

    # Limits

    def limit_all(self, rates: Rates, connections: Iterable[TCPConnection]) -> None:
        """Limit all connections together; ``connections`` are all that there are."""
        now = self._elapsed()
        self._all = rates
        self._sending.limit_all(rates.send, now)
        self._receiving.limit_all(rates.receive, now)
        self._give_turns(now)
        for connection in connections:
            self.add(connection)

    def limit_peer(
        self, peer_id: NodeId, rates: Rates, connections: Iterable[TCPConnection]
    ) -> None:
        """Limit each connection to a peer, now and later, whatever the limits of others;
        ``connections`` are those that it has now.

        Raises :class:`LocalProtocolError` if too many peers have a limit of their own.
        """
        self._peers.pop(peer_id, None)
        if rates != self._each:
            if len(self._peers) >= PEERS_MAX:
                raise LocalProtocolError(f"{PEERS_MAX} peers already have a limit of their own")
            self._peers[peer_id] = rates
        for connection in connections:
            self.prove(connection, peer_id)

    # Connections

    def add(self, connection: TCPConnection) -> None:
        """A connection is new, or its limits have changed."""
        if self._is_off and connection.throttle is None:
            return
        send_rate = self._sending.rate_of(connection)
        read_rate = self._receiving.rate_of(connection)
        was_limited = connection.throttle is not None
        is_limited = send_rate is not None or read_rate is not None
        if is_limited:
            connection.throttle = self
        else:
            self.remove(connection)
        if was_limited or is_limited:
            connection.read_into(self._buffer_for(read_rate))

    @property
    def _is_off(self) -> bool:
        return self._all == self._each == NO_LIMIT and not self._peers

    def opened(self, connection: TCPConnection) -> None:
        """The connection's socket is connected."""
        connection.read_into(self._buffer_for(self._receiving.rate_of(connection)))

    def _buffer_for(self, rate: float | None) -> memoryview | None:
        if rate is None:
            return None
        if self._buffer is None:
            self._buffer = memoryview(bytearray(READ_BYTES_MAX))
        return self._buffer[: min(max(int(rate * BURST_S), READ_BYTES_MIN), READ_BYTES_MAX)]

    def prove(self, connection: TCPConnection, peer_id: NodeId) -> None:
        """The connection is to this peer, or the peer's limit has changed."""
        rates = self._peers.get(peer_id, self._each)
        if rates == NO_LIMIT and connection.throttle is None:
            return
        now = self._elapsed()
        self._sending.limit(connection, rates.send, now)
        self._receiving.limit(connection, rates.receive, now)
        self._give_turns(now)
        self.add(connection)

    def remove(self, connection: TCPConnection) -> None:
        """The connection is gone or has no limit any more: forget its turn, too."""
        if connection.throttle is not None:
            self._sending.forget(connection)
            self._receiving.forget(connection)
            connection.throttle = None

    def close(self) -> None:
        self._timer.cancel()

    @property
    def held_back(self) -> list[TCPConnection]:
        """The connections that may not read at the moment."""
        return self._receiving.waiting

    # What connections ask and tell

    def may_send(self, connection: TCPConnection) -> bool:
        """Whether a packet may be written now. If not, the connection gets a turn later."""
        now = self._elapsed()
        if self._sending.may_move(connection, now):
            return True
        self._sending.wait(connection, now)
        self._arm()
        return False

    def sent(self, connection: TCPConnection, size: int) -> None:
        self._sending.moved(connection, size, self._elapsed())

    def received(self, connection: TCPConnection, size: int) -> None:
        """So much was read. If it was too much, nothing more is read until the next turn."""
        now = self._elapsed()
        self._receiving.moved(connection, size, now)
        if not self._receiving.may_move(connection, now):
            connection.pause_reading()
            self._receiving.wait(connection, now)
        self._arm()

    # Time

    def _next_s(self) -> float | None:
        """When the next turn can be given."""
        times = (self._sending.next_s(), self._receiving.next_s())
        return min((time for time in times if time is not None), default=None)

    def _give_turns(self, now: float) -> None:
        self._giving_turns = True
        try:
            while (connection := self._sending.turn(now)) is not None:
                connection.send_again()
            while (connection := self._receiving.turn(now)) is not None:
                connection.resume_reading()
        finally:
            # Whatever a turn raises, there must be a next one.
            self._giving_turns = False
            self._arm()

    def _arm(self) -> None:
        if not self._giving_turns:
            self._timer.arm()

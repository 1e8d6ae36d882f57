"""The states of a :class:`~egtp.tcp.connection.TCPConnection`, as a table."""

from __future__ import annotations

from typing import Final

from egtp.state_table import State, StateTable

__all__ = ["CONNECTION_LIFE", "ConnectionEvent", "ConnectionState"]


class ConnectionState(State):
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class ConnectionEvent(State):
    CONNECTED = "the socket is connected"
    CLOSE = "close or drain"
    THEY_END = "the other side ends"
    LOST = "aborted, reset, refused, or ended by both"


CONNECTION_LIFE: Final = StateTable(
    ConnectionState.OPENING,
    [
        (ConnectionState.OPENING, ConnectionEvent.CONNECTED, ConnectionState.OPEN),
        (ConnectionState.OPENING, ConnectionEvent.CLOSE, ConnectionState.CLOSED),
        (ConnectionState.OPENING, ConnectionEvent.LOST, ConnectionState.CLOSED),
        (ConnectionState.OPEN, ConnectionEvent.CLOSE, ConnectionState.CLOSING),
        (ConnectionState.OPEN, ConnectionEvent.THEY_END, ConnectionState.CLOSING),
        (ConnectionState.OPEN, ConnectionEvent.LOST, ConnectionState.CLOSED),
        (ConnectionState.CLOSING, ConnectionEvent.LOST, ConnectionState.CLOSED),
    ],
)

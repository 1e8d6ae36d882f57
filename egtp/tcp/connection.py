"""TCPConnection: one socket (seed III.C, R19).

Puts packets into frames and cuts the incoming stream back into packets; holds what cannot be
written yet, because the connection is still being opened or the socket is full; says once why it
ended. It knows nothing of peers or sessions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol, cast

from egtp.comm_strat import Address, TCPStrat
from egtp.errors import InvalidPacket, NotSent
from egtp.frames import FrameSplitter, frame

__all__ = ["ConnectionOwner", "TCPConnection"]


class ConnectionOwner(Protocol):
    """What a connection tells, always on the event loop."""

    def opened(self, connection: TCPConnection) -> None:
        """The socket is connected."""

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        """A whole packet came."""

    def writable(self, connection: TCPConnection) -> None:
        """The socket takes data again after a pause."""

    def garbage(self, connection: TCPConnection, reason: str) -> None:
        """What came is not a stream of frames; the connection is closed by itself."""

    def closed(self, connection: TCPConnection, reason: str) -> None:
        """Called once, last, whether or not the connection was ever open."""


class TCPConnection(asyncio.Protocol):
    """States: opening, open, closed. Packets sent while opening are held and sent when open."""

    def __init__(
        self,
        number: int,
        owner: ConnectionOwner,
        *,
        dialled: Address | None,
        held_bytes_max: int,
        started_s: float,
    ) -> None:
        self.number: Final = number
        """Names the connection within its node."""
        self.dialled: Final = dialled
        """The address that was dialled; None for a connection that was accepted."""
        self.started_s: Final = started_s
        self.remote: Address | None = dialled
        self.local_host: str | None = None
        """This side's IP address, once open."""
        self.is_open = False
        self.is_closed = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._owner = owner
        self._held_bytes_max = held_bytes_max
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._paused = False
        self._splitter = FrameSplitter()
        self._transport: asyncio.Transport | None = None
        self._reason: str | None = None

    @property
    def strategy(self) -> TCPStrat:
        """The run-time strategy that means this very connection."""
        return TCPStrat(self.remote or Address(bytes(4), 0), self.number)

    @property
    def was_open(self) -> bool:
        """Whether anybody accepted the connection, even if it is closed now."""
        return self.local_host is not None

    @property
    def takes_more(self) -> bool:
        """Whether a packet sent now goes to the socket at once."""
        return self.is_open and not self._paused

    @property
    def half_frame_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return self._splitter.pending_bytes

    def lift_limit(self) -> None:
        """The peer is confirmed: take frames of full size."""
        self._splitter.lift_limit()

    def send(self, packet: bytes) -> None:
        """Write a packet, or hold it until the socket takes it.

        Raises :class:`NotSent` if the connection is closed or holds too much already.
        """
        data = frame(packet)
        if self.takes_more:
            self._write(data)
            return
        if self.is_closed:
            raise NotSent(self._reason or "connection closed")
        if self._held_bytes + len(data) > self._held_bytes_max:
            raise NotSent("the connection's buffer is full")
        self._held.append(data)
        self._held_bytes += len(data)

    def fail(self, reason: str) -> None:
        """Opening did not work."""
        self._end(reason)

    def close(self, reason: str) -> None:
        """Close after what is written has left; unlike :meth:`abort`, loses nothing written."""
        self._reason = self._reason or reason
        if self._transport is None:
            self._end(reason)
        else:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close at once. What is still buffered is lost."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = transport = cast("asyncio.Transport", transport)
        if self.is_closed:
            transport.abort()
            return
        peername = transport.get_extra_info("peername")
        sockname = transport.get_extra_info("sockname")
        if not peername or not sockname:
            # Reset between accept and here.
            transport.abort()
            return
        self.local_host = sockname[0]
        self.remote = self.dialled or Address.of(*peername[:2])
        self.is_open = True
        self._owner.opened(self)
        self._drain()

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        try:
            for packet in self._splitter.feed(data):
                if self.is_closed:
                    return
                self._owner.received(self, packet)
        except InvalidPacket as error:
            self._owner.garbage(self, str(error))
            self.abort(str(error))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._drain()
        if self.takes_more:
            self._owner.writable(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(_reason(exc) if exc is not None else "closed by the other side")

    def _write(self, data: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - open means there is one
        self.bytes_out += len(data)
        self._transport.write(data)

    def _drain(self) -> None:
        while self._held and self.takes_more:
            data = self._held.popleft()
            self._held_bytes -= len(data)
            self._write(data)

    def _end(self, reason: str) -> None:
        if self.is_closed:
            return
        self.is_open, self.is_closed = False, True
        self._reason = self._reason or reason
        self._held.clear()
        self._held_bytes = 0
        self._owner.closed(self, self._reason)


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return str(exc).lower() or type(exc).__name__

"""TCPConnection: one socket (seed III.C, R19).

Puts packets into frames, and cuts the incoming stream back into packets; holds what cannot be
written yet, because the connection is still opening, sending is throttled, or the socket is full;
reports once why it ended. It knows nothing of peers or sessions.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, cast

from egtp.channel.frames import LENGTH_BYTES, FrameSplitter, frame
from egtp.environment import process_id
from egtp.errors import InvalidPacket, NotSent, in_words
from egtp.tcp.connection_life import CONNECTION_LIFE, ConnectionEvent, ConnectionState
from egtp.tcp.small_reads import SmallReads
from egtp.values.attempts import AttemptReason
from egtp.values.comm_strat import Address, TCPStrat

__all__ = ["ConnectionOwner", "TCPConnection", "Throttle"]


class _Held(NamedTuple):
    """A packet that waits for the socket, and the callback for when it is written."""

    packet: bytes
    written: Callable[[], None] | None


class ConnectionOwner(Protocol):
    """What a connection tells its owner, always on the event loop."""

    def opened(self, connection: TCPConnection) -> None:
        """The socket is connected."""

    def received(self, connection: TCPConnection, packet: bytes) -> None:
        """A whole packet arrived."""

    def read(self, connection: TCPConnection) -> None:
        """All packets of one read from the socket have been delivered."""

    def writable(self, connection: TCPConnection) -> None:
        """The connection takes data again."""

    def garbage(self, reason: str) -> None:
        """What arrived is not a stream of frames; the connection ends by itself."""

    def closing(self, connection: TCPConnection) -> None:
        """It takes nothing more, and is closed as soon as what it has accepted has left and the
        other side has ended, too. The owner aborts it if that takes too long."""

    def closed(self, connection: TCPConnection, reason: str) -> None:
        """Called once, after everything else, whether or not the connection was ever open."""


class Throttle(Protocol):
    """Limits the rates of a connection."""

    def opened(self, connection: TCPConnection) -> None:
        """The socket is connected."""

    def may_send(self, connection: TCPConnection) -> bool:
        """Whether a packet may be written now. If not, calls ``send_again`` when it may."""

    def sent(self, connection: TCPConnection, size: int) -> None:
        """So many bytes were written."""

    def received(self, connection: TCPConnection, size: int) -> None:
        """So many bytes were read; may call ``pause_reading``."""


class TCPConnection(asyncio.Protocol):
    """A TCP connection, in the states of :data:`~egtp.tcp.connection_life.CONNECTION_LIFE`.

    - *opening*: holds packets, and sends them once it is open.
    - *open*: writes packets at once, or holds them while the socket is full or sending is
      throttled.
    - *closing*: takes no more packets; writes those that it holds, then the end of the stream, and
      reads until the other side ends, too. (Closing at once with data unread would reset the
      connection, and lose what is still on its way.)
    - *closed*: nothing is left of it but the reason.
    """

    __slots__ = (
        "_held",
        "_held_bytes",
        "_held_bytes_max",
        "_listens",
        "_owner",
        "_paused",
        "_process",
        "_reason",
        "_splitter",
        "_throttled",
        "_transport",
        "bytes_in",
        "bytes_out",
        "dialled",
        "local_host",
        "number",
        "origin",
        "remote",
        "started_s",
        "state",
        "takes_more",
        "throttle",
    )

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
        """The address that was dialled; None for an accepted connection."""
        self.started_s: Final = started_s
        self.remote: Address | None = dialled
        self.origin: bytes | None = None
        """The origin that the owner counts an accepted connection under, once let in."""
        self.local_host: str | None = None
        """The local IP address, once the connection is open."""
        self.state = CONNECTION_LIFE.start
        self.takes_more = False
        """Whether a packet sent now goes to the socket at once."""
        self.bytes_in = 0
        """Read from the socket..."""
        self.bytes_out = 0
        """...and written to it."""
        self._owner = owner
        self._process = process_id()
        self._held_bytes_max = held_bytes_max
        # An empty deque is larger than all the rest, so there is one only while something is held.
        self._held: deque[_Held] | None = None
        self._held_bytes = 0
        self.throttle: Throttle | None = None
        """What limits the rates; None while nothing does."""
        self._paused = False
        """The socket is full."""
        self._throttled = False
        """It is not our turn to write."""
        self._listens = True
        """Whether packets that arrive are given to the owner."""
        self._splitter = FrameSplitter()
        self._transport: asyncio.Transport | None = None
        self._reason: str | None = None

    @property
    def strategy(self) -> TCPStrat:
        """The run-time strategy that names this very connection."""
        return TCPStrat(self.remote or Address(bytes(4), 0), self.number)

    @property
    def is_open(self) -> bool:
        return self.state is ConnectionState.OPEN

    @property
    def is_closing(self) -> bool:
        return self.state is ConnectionState.CLOSING

    @property
    def is_closed(self) -> bool:
        return self.state is ConnectionState.CLOSED

    @property
    def was_open(self) -> bool:
        """Whether the connection was ever open, even if it is closed now."""
        return self.local_host is not None

    @property
    def half_frame_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return self._splitter.pending_bytes

    def lift_limit(self) -> None:
        """The peer is confirmed: accept frames of full size."""
        self._splitter.lift_limit()

    # Sending

    def send(self, packet: bytes, written: Callable[[], None] | None = None) -> None:
        """Write a packet, or hold it until the socket and the throttle take it.

        ``written`` is called right before the packet's first byte is given to the socket: within
        this call, or later if the packet is held; never if it is dropped. It must not use the
        connection. Raises :class:`NotSent` if the connection is closing or closed, or holds too
        much already.
        """
        if self.takes_more and (self.throttle is None or self._may_send()):
            self._write(packet, written)
            return
        if self.is_closing or self.is_closed:
            raise NotSent(self._reason or "connection closed")
        size = LENGTH_BYTES + len(packet)
        if self._held_bytes + size > self._held_bytes_max:
            raise NotSent(AttemptReason.BUFFER_FULL)
        if self._held is None:
            self._held = deque()
        self._held.append(_Held(packet, written))
        self._held_bytes += size

    def _write(self, packet: bytes, written: Callable[[], None] | None) -> None:
        if process_id() != self._process:
            # Forked in the middle of everything, and cleaning up: what was sealed here has nonces
            # that are in use there.
            return
        if written is not None:
            written()
        framed = frame(packet)
        self.bytes_out += len(framed)
        transport = self._transport
        transport.write(framed)  # type: ignore[union-attr]  # open: there is one
        if transport.is_closing():  # type: ignore[union-attr]
            # Reset by the other side, as the loop will report soon. Until then the transport would
            # take whatever is written, and asyncio logs a line for each write.
            self.takes_more = False
        if self.throttle is not None:
            self.throttle.sent(self, len(framed))
            self._may_send()

    def _may_send(self) -> bool:
        """Whether the throttle lets a packet through now; if not, ask for a turn."""
        if self.throttle is None or self.throttle.may_send(self):
            return True
        self._throttled, self.takes_more = True, False
        return False

    def send_again(self) -> None:
        """It is our turn to write a packet, or sending is no longer throttled."""
        self._throttled = False
        self._go_on()

    def _go_on(self) -> None:
        """Write what is held, and tell the owner if the connection then takes data again."""
        self._write_held()
        if self.takes_more:
            self._owner.writable(self)

    def _write_held(self) -> None:
        """Write as much of what is held as is allowed; after all of it, take more or, if closing,
        end the stream."""
        transport, held = self._transport, self._held
        if transport is None or transport.is_closing():
            return
        while held and not (self._paused or self._throttled) and self._may_send():
            packet, written = held.popleft()
            self._held_bytes -= LENGTH_BYTES + len(packet)
            self._write(packet, written)
            if transport.is_closing():
                return
        if held:
            return
        self._held = None
        if self.is_closing:
            try:
                transport.write_eof()
            except OSError as error:
                # Reset by the other side. The loop does not know yet, and never would while this
                # end does not read.
                self.abort(in_words(error))
        else:
            self.takes_more = not (self._paused or self._throttled)

    # Ending

    def close(self, reason: str) -> None:
        """Close after everything that was accepted has left. What arrives meanwhile is dropped.

        Unlike :meth:`abort`, this loses nothing that was accepted, provided that the other side
        reads, and ends, too. A connection that is not open yet ends at once.
        """
        self._listens = False
        self.drain(reason)

    def drain(self, reason: str) -> None:
        """Like :meth:`close`, but what the other side still sends is delivered until it ends."""
        after = CONNECTION_LIFE.after(self.state, ConnectionEvent.CLOSE)
        if after is self.state:
            return
        if after is ConnectionState.CLOSED:
            self._end(reason)
            return
        self._begin_closing(ConnectionEvent.CLOSE, reason)
        self._write_held()

    def abort(self, reason: str) -> None:
        """Close at once. What is still buffered is lost."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def _begin_closing(self, event: ConnectionEvent, reason: str) -> None:
        self._reason = self._reason or reason
        self.state, self.takes_more = CONNECTION_LIFE.after(self.state, event), False
        self._owner.closing(self)

    def _end(self, reason: str) -> None:
        before, self.state = self.state, CONNECTION_LIFE.after(self.state, ConnectionEvent.LOST)
        if self.state is before:
            return
        self.takes_more = self._listens = False
        self._reason = self._reason or reason
        self._owner.closed(self, self._reason)
        self._held, self._held_bytes, self._transport = None, 0, None

    # Receiving

    def pause_reading(self) -> None:
        """Leave what arrives in the socket, so that TCP holds up the other side."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def read_into(self, buffer: memoryview | None) -> None:
        """Read no more at a time than fits into ``buffer``; if None, as much as the loop likes."""
        transport = self._transport
        if transport is None:
            return
        is_reading = transport.is_reading()
        # uvloop looks at the protocol only when it starts reading.
        transport.pause_reading()
        transport.set_protocol(self if buffer is None else SmallReads(self, buffer))
        if is_reading:
            transport.resume_reading()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods, but not the base class.
        transport = cast("asyncio.Transport", transport)
        if self.is_closed:
            transport.abort()
            return
        self._transport = transport
        peername = transport.get_extra_info("peername")
        sockname = transport.get_extra_info("sockname")
        if not peername or not sockname:
            # Reset between accept and here.
            transport.abort()
            return
        self.local_host = sockname[0]
        self.remote = self.dialled or _address_of(*peername[:2])
        self.state = CONNECTION_LIFE.after(self.state, ConnectionEvent.CONNECTED)
        if self.throttle is not None:
            self.throttle.opened(self)
        self._owner.opened(self)
        self._write_held()

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self.throttle is not None:
            self.throttle.received(self, len(data))
        try:
            for packet in self._splitter.feed(data):
                if self._listens:
                    self._owner.received(self, packet)
        except InvalidPacket as error:
            if self._listens:
                self._owner.garbage(str(error))
                self.abort(AttemptReason.NO_FRAMES)
        finally:
            self._owner.read(self)

    def eof_received(self) -> bool:
        """The other side has ended its stream, and may no longer listen: what is held is not
        written."""
        if self._listens and self.half_frame_bytes:
            self._owner.garbage("a stream that ends within a frame")
        if CONNECTION_LIFE.after(self.state, ConnectionEvent.THEY_END) is not self.state:
            self._begin_closing(ConnectionEvent.THEY_END, AttemptReason.HUNG_UP)
        # The transport writes what it has, and closes.
        return False

    def pause_writing(self) -> None:
        self._paused, self.takes_more = True, False

    def resume_writing(self) -> None:
        self._paused = False
        # Not from within the loop's own write: if that ended the connection, asyncio would report
        # the end twice.
        asyncio.get_running_loop().call_soon(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(in_words(exc) if exc is not None else AttemptReason.HUNG_UP)


def _address_of(host: str, port: int) -> Address:
    """The address of a socket, whose text needs no checking."""
    return Address.of(host, port) if ":" in host else Address(socket.inet_aton(host), port)

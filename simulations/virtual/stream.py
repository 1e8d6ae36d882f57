"""StreamTransport: TCP as a program sees it through asyncio.

A stream is a queue of segments in each direction. What was given to the kernel of a live machine
gets there, in order, as soon as a way is open, or the connection breaks; what waits in the program
for room in the kernel is lost with the program. Acknowledgements take no time of their own unless
somebody waits for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from simulations.virtual.nat import Endpoint
from simulations.virtual.routing import Gateway, Route, as_seen

if TYPE_CHECKING:
    from simulations.virtual.host import Host
    from simulations.virtual.network import Network

__all__ = ["StreamTransport", "connect_pair"]

WINDOW_BYTES: Final = 256 * 1024
"""What may be under way in one direction, in the kernels of both sides together."""
HIGH_WATER_BYTES: Final = 64 * 1024
"""asyncio's own default."""
CUT_SHARE: Final = 1 / 16
"""Of segments arrive in two pieces, cut anywhere: who counts on borders finds out."""
RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 120.0
GIVE_UP_S: Final = 924.6
"""How long Linux goes on sending what nobody acknowledges (tcp_retries2 = 15)."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class _End(enum.Enum):
    """What a queue of data can end with."""

    FIN = "fin"
    RESET = "rst"


_Piece: TypeAlias = "bytes | _End"


class StreamTransport(asyncio.Transport):
    """One side of a connection."""

    def __init__(
        self, network: Network, host: Host, local: Endpoint, peername: Endpoint, way: Route
    ) -> None:
        super().__init__({"peername": as_seen(peername), "sockname": as_seen(local)})
        self._extra["socket"] = self  # type: ignore[attr-defined]
        self._network = network
        self._loop = network.loop
        self.host: Final = host
        self.local: Final = local
        self.peername: Final = peername
        self.number: Final = network.loop.next_number()
        self.remote: StreamTransport = self
        """The other side; set before anything is sent."""
        self._way = way
        self._context = contextvars.Context()
        self._protocol: Any = None
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        # Out.
        self._unsent: deque[_Piece] = deque()
        self._unsent_bytes = 0
        self._in_flight = 0
        self._last_arrival_s = 0.0
        self._stuck: deque[_Piece] = deque()
        self._stuck_since_s = 0.0
        self._power_cuts = host.power_cuts
        self._retry_s = RETRY_MIN_S
        self._writing_paused = False
        self._told_of_room = False
        self._wrote_eof = False
        """By the program."""
        self._said_end = False
        # In.
        self._unread: deque[_Piece] = deque()
        self._reading = True
        self._heard_end = False
        # Life.
        self._started = False
        self._closing = False
        self._ended = False
        """connection_lost was called, or is about to be."""
        self.is_open = True
        """The kernel knows the connection."""
        host.streams[self.number] = self

    # What protocols ask

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.happen(self._loop.now, self._read)

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._maybe_pause()

    def write(self, data: Buffer) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is bytes-like, not {type(data).__name__}")
        if self._wrote_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._ended or not self.is_open:
            return
        self._unsent.append(bytes(data))
        self._unsent_bytes += len(data)
        self._pump()
        self._maybe_pause()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._wrote_eof and not self._closing:
            self._wrote_eof = self._said_end = True
            self._unsent.append(_End.FIN)
            self._pump()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._reading = False
        if not self._unsent:
            self._finish(None)

    def abort(self) -> None:
        self._force_close(None)

    # What a program asks of a socket

    def getsockname(self) -> tuple[Any, ...]:
        return as_seen(self.local)

    def getpeername(self) -> tuple[Any, ...]:
        return as_seen(self.peername)

    def setsockopt(self, *_: Any) -> None:
        """There is nothing to set."""

    # Beginning

    def begin(self, protocol: Any, waiter: asyncio.Future[None] | None) -> None:
        """Called in the context that the protocol's callbacks run in."""
        self._context = contextvars.copy_context()
        self._protocol = protocol
        self._loop.call_soon(self._begun, waiter)

    def _begun(self, waiter: asyncio.Future[None] | None) -> None:
        if self._ended:
            if waiter is not None and not waiter.done():
                waiter.set_exception(ConnectionResetError(104, "Connection reset by peer"))
            return
        try:
            self._protocol.connection_made(self)
        finally:
            self._started = True
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            self._loop.happen(self._loop.now, self._read)

    def not_before(self, at_s: float) -> None:
        """Nothing that is sent arrives before that: the other side hears of the connection then."""
        self._last_arrival_s = at_s

    def refuse(self) -> None:
        """Nobody takes the connection that the other side believes to have."""
        self._ended = self._closing = True
        self._say_reset()
        self._forget()

    # Sending

    def _pump(self) -> None:
        """Give to the kernel what it has room for."""
        unsent = self._unsent
        while unsent:
            piece = unsent[0]
            if isinstance(piece, _End):
                unsent.popleft()
                self._send(piece)
                continue
            room = WINDOW_BYTES - self._in_flight
            if room <= 0:
                return
            if len(piece) <= room:
                unsent.popleft()
            else:
                unsent[0], piece = piece[room:], piece[:room]
            self._unsent_bytes -= len(piece)
            self._in_flight += len(piece)
            self._send(piece)

    def _pumped(self) -> None:
        """There is room again, as the other side says."""
        self._told_of_room = False
        if self._ended or not self.host.is_up or self.host.is_asleep:
            return
        self._pump()
        if self._writing_paused and self._unsent_bytes <= self._low:
            self._writing_paused = False
            self._context.run(self._call, self._protocol.resume_writing, harmless=True)
        if self._closing and not self._unsent and not self._ended:
            self._finish(None)

    def _maybe_pause(self) -> None:
        if not self._writing_paused and self._unsent_bytes > self._high:
            self._writing_paused = True
            self._call(self._protocol.pause_writing, harmless=True)

    def _send(self, piece: _Piece) -> None:
        network = self._network
        now_s = self._loop.now
        size = len(piece) if isinstance(piece, bytes) else 0
        name = "tcp" if isinstance(piece, bytes) else piece.value
        data = piece if isinstance(piece, bytes) else b""
        network.trace.packet(now_s, name, self.local, self.peername, data)
        at_s = network.lines.segment(self.host.name, self.remote.host.name, size, now_s)
        self._last_arrival_s = max(at_s, self._last_arrival_s)
        self._loop.happen(self._last_arrival_s, self._arrive, piece)

    def _arrive(self, piece: _Piece) -> None:
        """A segment is where the other side is, if there is a way and nothing waits before it."""
        if self._stuck:
            self._stuck.append(piece)
        elif not self._passes():
            self._stuck.append(piece)
            self._stuck_since_s = self._clock()
            self._retry_s = RETRY_MIN_S
            self._loop.happen(self._loop.now + self._retry_s, self._retry)
        else:
            self._hand_over(piece)

    def _retry(self) -> None:
        """Send again what got nowhere."""
        if self._power_cuts != self.host.power_cuts:
            # What is stuck stays so: whatever comes after it must not get there without it.
            self._fall_silent()
            return
        if self.host.is_asleep:
            self.host.when_awake.append(self._retry)
        elif self._passes():
            while self._stuck:
                self._hand_over(self._stuck.popleft())
        elif self._clock() - self._stuck_since_s > GIVE_UP_S:
            self._give_up()
        else:
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
            self._loop.happen(self._loop.now + self._retry_s, self._retry)

    def _give_up(self) -> None:
        error = TimeoutError(110, "Connection timed out")
        self._break(error)
        self._fall_silent()
        if _End.RESET in self._stuck and self.remote._in_flight:
            # It waits for an answer to what it sent, and this was the answer.
            self.remote._break(error)

    def probe(self) -> None:
        """Ask for room, as a kernel does now and then: whoever waits for a reader that is gone
        finds out."""
        if not self._unsent or not self.is_open or self._stuck:
            return
        if self.host.is_asleep:
            self.host.when_awake.append(self.probe)
        else:
            self._send(b"")

    def _clock(self) -> float:
        """Of the machine, and only right while it is awake."""
        return self._loop.now - self.host.asleep_s

    def _passes(self) -> bool:
        """Whether a packet gets from here to the other side now."""
        here, there = self.host, self.remote.host
        if not there.is_up or there.is_asleep or not here.owns(self.local[0]):
            return False
        is_open = self._network.lines.is_open
        # What gets there in vain is told so, if the answer gets here.
        answered = self.remote.is_open or is_open(there.name, here.name)
        if not answered or not is_open(here.name, there.name):
            return False
        if self._way.mappings:
            return self._way.is_live(self._loop.now) and there.owns(self.remote.local[0])
        if there.owns(self.remote.local[0]):
            return True
        # Its address may be somebody else's by now, who knows nothing of this connection.
        owner = here.net.owners.get(self.remote.local[0])
        if owner is None or isinstance(owner, Gateway) or owner.inbound == "drop":
            return False
        return owner.is_up and not owner.is_asleep and is_open(here.name, owner.name)

    def _hand_over(self, piece: _Piece) -> None:
        remote = self.remote
        if not remote.is_open or not remote.host.owns(remote.local[0]):
            # Nobody there knows this connection: it was closed, or the machine started again.
            if piece is not _End.RESET:
                self._break(ConnectionResetError(104, "Connection reset by peer"), after=True)
            return
        rng = self._network.rng
        if isinstance(piece, bytes) and len(piece) > 1 and rng.random() < CUT_SHARE:
            cut = rng.randrange(1, len(piece))
            remote._take(piece[:cut])
            piece = piece[cut:]
        remote._take(piece)

    # Receiving

    def _take(self, piece: _Piece) -> None:
        # Who neither reads nor writes does not see it yet.
        unseen = self._started and not (self._reading or self._closing or self._unsent)
        if piece is _End.RESET and not unseen:
            self._break(ConnectionResetError(104, "Connection reset by peer"))
            return
        if not piece:
            return
        self._unread.append(piece)
        if self._closing and self._ended:
            # Closed by the program, still known to the kernel: nobody will ever read this.
            self._unread.clear()
            if piece is not _End.FIN:
                self._say_reset()
            self._forget()
        else:
            self._read()

    def _read(self) -> None:
        """Hand to the program what the kernel has for it."""
        while self._unread and self._reading and self._started and not self._ended:
            if self.host.is_asleep:
                return
            piece = self._unread.popleft()
            if isinstance(piece, bytes):
                # A stream has no borders: what has waited comes together.
                while self._unread and isinstance(self._unread[0], bytes):
                    piece += self._unread.popleft()  # type: ignore[operator]
                self._acknowledge(len(piece))
                self._context.run(self._call, self._protocol.data_received, piece)
            elif piece is _End.FIN:
                self._context.run(self._end_heard)
            else:
                self._break(ConnectionResetError(104, "Connection reset by peer"))

    def _acknowledge(self, size: int) -> None:
        sender = self.remote
        sender._in_flight -= size
        if sender._unsent and sender.is_open and not sender._told_of_room:
            sender._told_of_room = True
            lines = self._network.lines
            at_s = lines.segment(self.host.name, sender.host.name, 0, self._loop.now)
            self._loop.happen(at_s, sender._pumped)

    def _end_heard(self) -> None:
        self._heard_end = True
        stays_open = self._call(self._protocol.eof_received)
        if not stays_open:
            self.close()

    # Ending

    def _finish(self, error: Exception | None) -> None:
        """All of the program's data is with the kernel: close."""
        self._tell_lost(error)
        if any(isinstance(piece, bytes) for piece in self._unread):
            # Data that was received and will never be read is lost: the other side is told so.
            self._unread.clear()
            self._say_reset()
            self._forget()
            return
        if not self._said_end:
            self._said_end = True
            self._send(_End.FIN)
        if self._heard_end or _End.FIN in self._unread or not self.remote.is_open:
            self._forget()

    def _force_close(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._drop_unsent()
        self._closing = True
        self._reading = False
        self._finish(error)

    def _drop_unsent(self) -> None:
        if self._unsent and self._unsent[-1] is _End.FIN:
            self._said_end = False
        self._unsent.clear()
        self._unsent_bytes = 0

    def _break(self, error: Exception, *, after: bool = False) -> None:
        """The connection is no more, as this side's kernel finds out."""
        if after:
            # The answer to what was sent takes as long as the way back.
            at_s = self._network.lines.segment(
                self.remote.host.name, self.host.name, 0, self._loop.now
            )
            self._loop.happen(at_s, self._break, error)
            return
        if not self.is_open or not self.host.is_up:
            return
        self._fall_silent()
        self._drop_unsent()
        self._closing = True
        if not self._ended:
            self._tell_lost(error)

    def _tell_lost(self, error: Exception | None) -> None:
        self._ended = True
        if self._protocol is not None:
            self._loop.call_soon(
                self._call, self._protocol.connection_lost, error, context=self._context
            )

    def _say_reset(self) -> None:
        self._send(_End.RESET)

    def _forget(self) -> None:
        self.is_open = False
        self.host.streams.pop(self.number, None)

    def _fall_silent(self) -> None:
        """This side says nothing more. Of a connection that the other side has closed, its kernel
        knows for a minute more; here, no longer."""
        self._forget()
        if self.remote._ended:
            self.remote._forget()
        else:
            self.remote.probe()

    # What happens to the machine

    def vanish(self) -> None:
        """The machine has no power."""
        self._fall_silent()
        self._ended = self._closing = True
        self._drop_unsent()

    def close_for_dead(self) -> None:
        """The program was killed: the kernel closes in its place."""
        if not self._ended:
            self._protocol = None
            self._drop_unsent()
            self._closing = True
            self._finish(None)

    def wake(self) -> None:
        """The machine slept; what others sent meanwhile may be there."""
        self._loop.happen(self._loop.now, self._read)
        self._loop.happen(self._loop.now, self._pumped)

    def _call(self, callback: Callable[..., Any], *args: Any, harmless: bool = False) -> Any:
        """Call the protocol; what it raises breaks this connection only, as with asyncio, or, in
        callbacks about pauses, nothing."""
        try:
            return callback(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {
                    "message": "Fatal error: a protocol's callback failed.",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            if not harmless:
                self._force_close(error if isinstance(error, Exception) else None)
            return None


def connect_pair(
    network: Network, way: Route, back: Route, host: Host, local: Endpoint, asked: Endpoint
) -> tuple[StreamTransport, StreamTransport]:
    """The two sides of a new connection: who asked for it, and who listened."""
    asking = StreamTransport(network, host, local, asked, way)
    answering = StreamTransport(network, way.target, way.destination, way.source, back)
    asking.remote, answering.remote = answering, asking
    return asking, answering
